//! Defects that were found once, each in its smallest form.
#![allow(unsafe_code)]

use std::alloc::Layout;

use mempool::config::Small;
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
