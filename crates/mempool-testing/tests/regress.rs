//! Defects that were found once, each in its smallest form.
#![allow(unsafe_code)]

use std::alloc::Layout;

use mempool::config::Small;
use mempool::process;
use mempool_testing::{Baseline, Shadow, World};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// Items aligned to more than a slot lay at slots.
#[test]
fn items_aligned_to_more_than_a_slot() {
    let pool = World::of(8 << 20).slots(12).config.build().expect("a pool");
    for shift in 0..=20 {
        let cache = pool.raw_cache("aligned", layout(100, 1 << shift)).expect("a cache");
        let items: Vec<_> =
            (0..3).filter_map(|n| if n < 2 { cache.try_alloc() } else { cache.try_alloc_array(2) }.ok()).collect();
        assert!(!items.is_empty());
        assert!(items.iter().all(|item| (item.as_ptr() as usize).is_multiple_of(1 << shift)), "1 << {shift}");
    }
}

/// A heap page kept its own words where a slab that was stolen out of a queue had its links.
#[test]
fn a_heap_page_where_a_queued_slab_was() {
    let pool = World::of(512 << 10).small(Small::Heap).config.build().expect("a pool");
    let mut shadow = Shadow::new(&pool, 9);
    assert!(shadow.alloc(1, 1, false) && shadow.free(0));
    let before = Baseline::of(&pool);
    for round in 0..20 {
        shadow.make_cache(500 + round, 4);
        while shadow.take(0, 3) {}
        // Queued and emptied slabs, stolen by an exhausted request, become heap pages.
        while shadow.free(0) {}
        for _ in 0..3 {
            shadow.take(0, 2);
        }
        while shadow.free(0) {}
        assert!(!shadow.alloc(1 << 30, 1, false));
        while shadow.alloc(200, 1, false) {}
        while shadow.take(0, 2) {}
        while shadow.free(0) {}
        shadow.end_cache(0);
    }
    shadow.finish(&before);
}

/// The C library's `realloc` frees an object that is made 0 bytes long, and says null.
#[test]
fn the_c_librarys_objects_made_empty() {
    let pool = World::of(256 << 10).small(Small::System).config.build().expect("a pool");
    let object = pool.alloc(layout(100, 16)).expect("memory");
    // SAFETY: live.
    let object = unsafe { pool.realloc(object, layout(0, 16)) }.expect("an object of 0 bytes");
    // SAFETY: live.
    unsafe { pool.free(object) };
}

/// A thread that had used two pools whose numbers share a place, the second of which was dropped, joined the first
/// again under another number, and its first local heap was lost.
#[test]
fn one_local_heap_per_thread_and_pool() {
    let pool = World::of(1 << 20).config.build().expect("a pool");
    let object = pool.alloc(layout(10, 1)).expect("memory");
    for _ in 0..7 {
        let other = World::of(256 << 10).config.build().expect("a pool");
        let _ = other.alloc(layout(10, 1)).expect("memory");
        drop(other);
        let second = pool.alloc(layout(10, 1)).expect("memory");
        // SAFETY: live.
        unsafe { pool.free(second) };
        assert_eq!(pool.stats().threads, 1);
    }
    // SAFETY: live.
    unsafe { pool.free(object) };
}

/// A value whose `drop` panics, once for each that is to.
struct Spiteful<'a>(&'a std::cell::Cell<bool>, [u64; 20]);

impl Drop for Spiteful<'_> {
    fn drop(&mut self) {
        assert!(!self.0.replace(false) || self.1[0] == 0, "on purpose");
    }
}

/// The item of a value whose `drop` panicked was lost.
#[test]
fn a_value_that_panics_gives_its_item_back() {
    let pool = World::of(1 << 20).config.build().expect("a pool");
    let cache = pool.cache("spiteful").expect("a cache");
    let armed = std::cell::Cell::new(false);
    let panics = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    let live = || pool.stats().live();
    let one = || {
        let value = cache.alloc(Spiteful(&armed, [1; 20])).expect("memory");
        armed.set(true);
        drop(value);
    };
    let many = || {
        let values = cache.alloc_slice(10, |_| Spiteful(&armed, [1; 20])).expect("memory");
        armed.set(true);
        drop(values);
    };
    assert!(panics(&one) && live() == 0, "{} items", live());
    assert!(panics(&many) && live() == 0, "{} items", live());
    pool.verify().expect("in order");
}

extern "C" fn count(_: usize, argument: *mut u8) -> bool {
    if argument.is_null() {
        CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    false
}

static CALLS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Callbacks may have no argument; each that was added is called, once per exhausted request, but for one that only tries.
#[test]
fn callbacks_without_an_argument() {
    let pool = World::of(256 << 10).config.exhausted(mempool::config::Exhausted::Null).build().expect("a pool");
    for _ in 0..8 {
        // SAFETY: the function lives for ever.
        unsafe { pool.on_reclaim(count, std::ptr::null_mut()) }.expect("a place");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { pool.on_reclaim(count, std::ptr::null_mut()) }, Err(8));
    let _ = pool.try_alloc(layout(120 << 10, 1)).expect("half of it");
    assert!(pool.try_alloc(layout(120 << 10, 1)).is_err());
    assert_eq!(CALLS.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(pool.alloc(layout(120 << 10, 1)).is_err());
    assert_eq!(CALLS.load(std::sync::atomic::Ordering::Relaxed), 8);
}

/// With the feature `global` these very tests run on a pool.
#[cfg(feature = "global")]
#[test]
fn the_tests_run_on_a_pool() {
    let object = Box::new(1u8);
    assert!(mempool::process::contains(&raw const *object));
    assert!(mempool::process::stats().is_some_and(|stats| stats.live() > 10));
}

/// The short path of `usable_size` asks no more of a slab than that it is one: of other threads', of full ones that are nobody's, and
/// of those that were adopted it says the same as the long path, and of all that is no live small object it says nothing.
#[test]
fn the_room_of_an_object_is_the_same_to_every_thread() {
    let sizes: Vec<usize> = (0..64).map(mempool::Pool::door_class_size).collect();
    // 5,000 of the smaller ones fill slabs.
    let objects: Vec<(usize, usize)> = sizes
        .iter()
        .flat_map(|&size| std::iter::repeat_n(size, if size <= 128 { 5000 } else { 20 }))
        .map(|size| (process::alloc(size - 3) as usize, size))
        .collect();
    // SAFETY: live whenever it is asked.
    let room = |address: usize| unsafe { process::usable_size(address as *mut u8, "usable_size") };
    let ask = |objects: &[(usize, usize)]| {
        for &(address, size) in objects {
            assert_eq!(process::room_of(address as *const u8), Some(size));
            assert_eq!(room(address), size);
            assert_eq!(process::room_of((address + 8) as *const u8), None, "inside of an object");
        }
    };
    ask(&objects);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A thread without a local heap takes the long path.
            assert_eq!(room(objects[0].0), objects[0].1);
            // SAFETY: just made.
            unsafe { process::free(process::alloc(1), "free") };
            ask(&objects);
            for &(address, _) in objects.iter().skip(1).step_by(2) {
                // SAFETY: made above, freed once.
                unsafe { process::free(address as *mut u8, "free") };
                assert_eq!(process::room_of(address as *const u8), None, "freed");
            }
            let left: Vec<(usize, usize)> = objects.iter().copied().step_by(2).collect();
            ask(&left);
        });
    });
    let run = process::alloc(100_000);
    assert_eq!(process::room_of(run), None);
    assert!(room(run as usize) >= 100_000);
    assert_eq!(process::room_of(std::ptr::null()), None);
    // SAFETY: made above, freed once.
    unsafe { process::free(run, "free") };
    for &(address, _) in objects.iter().step_by(2) {
        // SAFETY: as above.
        unsafe { process::free(address as *mut u8, "free") };
    }
}
