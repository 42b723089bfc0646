//! What other threads keep, threads that never run again among them: a request gets it, but for a bound that is checked.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::{Arc, Barrier};
use std::thread;
use std::vec::Vec;

use crate::config::{Config, Exhausted};
use crate::os::fake::Fake;
use crate::pool::Pool;
use crate::slab::{class_of, class_size};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

fn config() -> Config {
    Config::new().segment(8 << 20).exhausted(Exhausted::Null).max_retries(0).verdict_interval(0)
}

/// Objects on their way to another thread.
struct Sent(Vec<NonNull<u8>>);
// SAFETY: the pool's objects may be freed by any thread.
unsafe impl Send for Sent {}

/// Runs `work` in a thread that then sleeps until `wake` is passed: the objects that it leaves to us.
fn sleeper(
    pool: &Arc<Pool>,
    wake: &Arc<Barrier>,
    work: impl FnOnce(&Pool) -> Vec<NonNull<u8>> + Send + 'static,
) -> Vec<NonNull<u8>> {
    let (pool, wake) = (pool.clone(), wake.clone());
    let (give, take) = std::sync::mpsc::channel();
    thread::spawn(move || {
        give.send(Sent(work(&pool))).expect("somebody listens");
        wake.wait();
    });
    take.recv().expect("the thread did its work").0
}

fn free_all(pool: &Pool, objects: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    objects.into_iter().for_each(|object| unsafe { pool.free(object) });
}

/// Takes objects of `size` until there is no more.
fn fill(pool: &Pool, size: usize) -> Vec<NonNull<u8>> {
    std::iter::from_fn(|| pool.try_alloc(layout(size)).ok()).collect()
}

/// Bytes that objects of `size` can have in all, one after the other.
fn capacity(size: usize) -> usize {
    let pool = config().build().expect("a pool");
    fill(&pool, size).len() * size
}

#[test]
fn slabs_that_others_emptied_are_had_while_their_owner_sleeps() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    // A sleeper's slabs: full ones, one in its queue by a free of its own, a current one.
    let objects = sleeper(&pool, &wake, |pool| {
        let mut objects = fill(pool, 512);
        let last = objects.split_off(objects.len() - 300);
        free_all(pool, last.into_iter().step_by(7));
        objects
    });
    assert!(objects.len() * 512 > 7 << 20);
    free_all(&pool, objects);
    // A slot is 4 KiB here. The rest of the 300 objects, one current slab, and the sleeper's local heap are not to be had.
    let page = fill(&pool, 4096);
    let (all, kept) = (capacity(4096), 300usize.div_ceil(8) + 1 + 4);
    assert!((page.len() + kept) * 4096 >= all, "{} of {all}", page.len() * 4096);
    pool.verify().expect("a sound pool");
    wake.wait();
}

#[test]
fn remote_frees_are_had_out_of_a_sleepers_queue() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    // Of each slab the sleeper frees one object itself, so that all are in its queue, and keeps one.
    let objects = sleeper(&pool, &wake, |pool| {
        let objects = fill(pool, 256);
        let (first, rest): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| object.addr().get().is_multiple_of(4096));
        free_all(pool, first);
        rest.into_iter().filter(|object| object.addr().get() % 4096 != 256).collect()
    });
    let count = objects.len();
    assert!(count > 20_000);
    free_all(&pool, objects);
    let again = fill(&pool, 256);
    assert!(again.len() >= count, "{} of {count}", again.len());
    // SAFETY: live.
    assert!(again.iter().all(|object| unsafe { pool.usable_size(*object) } >= 256));
    pool.verify().expect("a sound pool");
    free_all(&pool, again);
    pool.verify().expect("a sound pool");
    wake.wait();
}

#[test]
fn what_ended_threads_left_is_had_to_the_last_item() {
    let pool = Arc::new(config().build().expect("a pool"));
    let kept: Vec<Vec<NonNull<u8>>> = (0..4)
        .map(|k| {
            let pool = pool.clone();
            let work = move || {
                let objects: Vec<_> = (0..3000).map_while(|_| pool.try_alloc(layout(300)).ok()).collect();
                let (odd, even): (Vec<_>, Vec<_>) =
                    objects.into_iter().enumerate().partition(|(i, _)| (i + k) % 2 == 1);
                free_all(&pool, even.into_iter().map(|(_, object)| object));
                Sent(odd.into_iter().map(|(_, object)| object).collect())
            };
            thread::spawn(work).join().expect("joined").0
        })
        .collect();
    let live: usize = kept.iter().map(Vec::len).sum();
    let again = fill(&pool, 300);
    let size = 320;
    assert!((live + again.len()) * size >= capacity(size) * 999 / 1000, "{live} and {}", again.len());
    kept.into_iter().for_each(|objects| free_all(&pool, objects));
    free_all(&pool, again);
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
}

#[test]
fn what_threads_without_a_local_heap_left_is_had() {
    // One thread has a local heap; the other allocates from the shared one.
    let pool = Arc::new(config().max_threads(1).build().expect("a pool"));
    let first = pool.try_alloc(layout(100)).expect("memory");
    let other = pool.clone();
    let left = thread::spawn(move || {
        let objects = fill(&other, 100);
        let (odd, even): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        free_all(&other, even.into_iter().map(|(_, object)| object));
        Sent(odd.into_iter().map(|(_, object)| object).collect())
    });
    let left = left.join().expect("joined").0;
    let again = fill(&pool, 100);
    assert!(again.len() + 64 >= left.len(), "{} of {}", again.len(), left.len());
    free_all(&pool, again.into_iter().chain(left).chain([first]));
    assert_eq!(pool.stats().live(), 0);
}

/// What threads free themselves into slabs that are not empty, and then sleep for ever: had, but for one slab of each.
#[test]
fn own_frees_are_had_out_of_a_sleepers_queue() {
    const SLEEPERS: usize = 3;
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(SLEEPERS + 1)));
    let (mut kept, mut freed) = (Vec::new(), 0);
    for share in [2, 3, 1] {
        // Each takes a part of what is left, and frees all but the first object of each slab: 15 of 16.
        let more = sleeper(&pool, &wake, move |pool| {
            let all: Vec<_> = std::iter::from_fn(|| pool.try_alloc(layout(256)).ok()).take(24_000 / share).collect();
            let (first, rest): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|object| object.addr().get().is_multiple_of(4096));
            free_all(pool, rest);
            first
        });
        freed += more.len() * 15;
        kept.extend(more);
    }
    assert!(freed > 15_000, "{freed}");
    let again = fill(&pool, 256);
    // Of each sleeper the slab that it used last, of 16 items.
    assert!(again.len() + SLEEPERS * 16 >= freed, "{} of {freed}", again.len());
    let mut addresses: Vec<usize> = again.iter().chain(&kept).map(|object| object.addr().get()).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[0] < pair[1]), "an object was handed out twice");
    pool.verify().expect("a sound pool");
    free_all(&pool, again.into_iter().chain(kept));
    assert_eq!(pool.stats().live(), 0);
    wake.wait();
}

#[test]
fn arrays_are_had_out_of_a_sleepers_queue() {
    let (pool, wake) = (config().build().expect("a pool"), Barrier::new(2));
    let cache = pool.raw_cache("arrays", layout(64)).expect("a cache");
    let (give, take) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let (cache, wake) = (&cache, &wake);
        let sleeper = scope.spawn(move || {
            let all: Vec<_> = std::iter::from_fn(|| cache.try_alloc_array(4).ok()).collect();
            let (live, freed): (Vec<_>, Vec<_>) = all.into_iter().enumerate().partition(|(i, _)| i % 4 == 0);
            let freed: Vec<_> = freed.into_iter().map(|(_, array)| array).collect();
            let count = freed.len();
            // SAFETY: live, and not used afterwards.
            freed.into_iter().for_each(|array| unsafe { cache.free_array(array, 4) });
            give.send((Sent(live.into_iter().map(|(_, array)| array).collect()), count)).expect("somebody listens");
            wake.wait();
        });
        let (Sent(live), freed) = take.recv().expect("the thread did its work");
        let again: Vec<_> = std::iter::from_fn(|| cache.try_alloc_array(4).ok()).collect();
        // But for the slab that it freed into last.
        assert!(freed > 10_000 && again.len() + 16 >= freed, "{} of {freed}", again.len());
        pool.verify().expect("a sound pool");
        // SAFETY: live, and not used afterwards.
        live.into_iter().chain(again).for_each(|array| unsafe { cache.free_array(array, 4) });
        wake.wait();
        // To its very end, where it leaves the pool.
        sleeper.join().expect("no panic");
    });
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
}

/// Where the system has no barrier for all threads, nothing is taken that its owner might be storing to.
#[test]
fn without_a_barrier_own_frees_stay_with_the_sleeper() {
    let os = Fake::new();
    os.refuse_barriers();
    let pool = Arc::new(Pool::on(os, &config()).expect("a pool"));
    let wake = Arc::new(Barrier::new(2));
    let kept = sleeper(&pool, &wake, |pool| {
        let all = fill(pool, 256);
        let (first, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|object| object.addr().get().is_multiple_of(4096));
        free_all(pool, rest);
        first
    });
    let again = fill(&pool, 256);
    // The formula of docs/SAFETY.md: of each slab with a live item all others.
    let slab = pool.core().slabs.shape(class_of(256)).expect("a class");
    assert!(again.len() < kept.len(), "{} objects", again.len());
    let mut told = 0;
    pool.core().slabs.each_stranded(&mut |_, _, _, free| told += free);
    assert!(told > 1 << 20 && told <= (kept.len() + 1) * (slab.run * 256 - 256), "{told}");
    pool.verify().expect("a sound pool");
    free_all(&pool, again.into_iter().chain(kept));
    assert_eq!(pool.stats().live(), 0);
    wake.wait();
}

/// Threads that free and fill without rest, while others loosen their slabs.
#[test]
fn loosening_the_slabs_of_workers() {
    const WORKERS: usize = 4;
    let pool = Arc::new(config().segment(2 << 20).build().expect("a pool"));
    let work = |k: usize| {
        let pool = pool.clone();
        move || {
            let mut mine = Vec::new();
            for round in 0..60_usize {
                while let Ok(object) = pool.try_alloc(layout(128)) {
                    // SAFETY: 128 bytes, ours.
                    unsafe { object.as_ptr().write_bytes((k * 60 + round) as u8, 128) };
                    mine.push((object, (k * 60 + round) as u8));
                    if mine.len() > 6000 {
                        break;
                    }
                }
                let keep = mine.len() / 3;
                let mut at = 0;
                mine.retain(|(object, byte)| {
                    at += 1;
                    let keeps = (at * 7_usize).is_multiple_of(round + 3) && at < keep * 3;
                    // SAFETY: 128 bytes of ours, written above; freed once, and not used afterwards.
                    unsafe {
                        let bytes = core::slice::from_raw_parts(object.as_ptr(), 128);
                        assert!(bytes.iter().all(|other| other == byte), "somebody else has the object");
                        if !keeps {
                            pool.free(*object);
                        }
                    }
                    keeps
                });
            }
            Sent(mine.into_iter().map(|(object, _)| object).collect())
        }
    };
    let workers: Vec<_> = (0..WORKERS).map(|k| thread::spawn(work(k))).collect();
    let rest: Vec<Sent> = workers.into_iter().map(|worker| worker.join().expect("joined")).collect();
    pool.verify().expect("a sound pool");
    rest.into_iter().for_each(|sent| free_all(&pool, sent.0));
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
}

/// Threads that sleep and have nothing live keep one slab each, of however many classes and caches they have used, and their local heaps.
#[test]
fn empty_current_slabs_of_sleepers_are_had() {
    const SLEEPERS: usize = 12;
    let (pool, wake) = (config().build().expect("a pool"), Barrier::new(SLEEPERS + 1));
    let cache = pool.raw_cache("items", layout(80)).expect("a cache");
    let before = fill(&pool, 4096);
    let all = before.len();
    free_all(&pool, before);
    let (tell, ready) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let mut sleepers = Vec::new();
        for _ in 0..SLEEPERS {
            let (pool, cache, wake, tell) = (&pool, &cache, &wake, tell.clone());
            sleepers.push(scope.spawn(move || {
                for class in 0..crate::slab::CLASSES {
                    let object = pool.try_alloc(layout(class_size(class))).expect("memory");
                    free_all(pool, [object]);
                }
                let (item, array) = (cache.try_alloc().expect("memory"), cache.try_alloc_array(3).expect("memory"));
                // SAFETY: live, and not used afterwards.
                unsafe { cache.free(item) };
                // SAFETY: as above.
                unsafe { cache.free_array(array, 3) };
                tell.send(()).expect("somebody listens");
                wake.wait();
                // It goes on where it was: what it finds in its bins is not its own any more.
                for round in 0..3 {
                    for class in 0..crate::slab::CLASSES {
                        let object = pool.try_alloc(layout(class_size(class)));
                        assert!(object.is_ok(), "{round} {class}");
                        free_all(pool, object);
                    }
                    let array = cache.try_alloc_array(3).expect("memory");
                    // SAFETY: live, and not used afterwards.
                    unsafe { cache.free_array(array, 3) };
                }
            }));
        }
        (0..SLEEPERS).for_each(|_| ready.recv().expect("the thread did its work"));
        let again = fill(&pool, 4096);
        let local = pool.core().local_bytes().div_ceil(4096) + 1;
        assert!(again.len() + SLEEPERS * (1 + local) >= all, "{} of {all} with {SLEEPERS} sleepers", again.len());
        let mut told = Vec::new();
        pool.core().slabs.each_stranded(&mut |thread, shape, _, _| told.push((thread, shape.class)));
        assert!(told.len() <= SLEEPERS, "{told:?}");
        pool.verify().expect("a sound pool");
        free_all(&pool, again);
        wake.wait();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().expect("no panic"));
    });
    drop(cache);
    pool.verify().expect("a sound pool");
    assert_eq!(pool.stats().live(), 0);
}

/// What is free in a current slab with live items is had for its class.
#[test]
fn free_items_of_sleepers_current_slabs_are_had() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    let kept = sleeper(&pool, &wake, |pool| {
        // Of each class one object, in a slab of its own; last one of a size that nobody asks for afterwards.
        (0..20).rev().map(|class| pool.try_alloc(layout(class_size(class))).expect("memory")).collect()
    });
    let (mut had, others) = (Vec::new(), fill(&pool, 4096));
    for class in 1..20 {
        let items = pool.core().slabs.shape(class).expect("a class").items as usize;
        let again = fill(&pool, class_size(class));
        assert!(again.len() + 1 >= items, "{} of {items} of class {class}", again.len());
        had.extend(again);
    }
    pool.verify().expect("a sound pool");
    free_all(&pool, had.into_iter().chain(others).chain(kept));
    assert_eq!(pool.stats().live(), 0);
    wake.wait();
}

/// Threads that want everything of everybody at once: items of several classes, arrays of a cache, and runs.
#[test]
fn workers_take_each_others_current_slabs() {
    const WORKERS: usize = 4;
    let pool = config().segment(2 << 20).build().expect("a pool");
    let cache = pool.raw_cache("arrays", layout(48)).expect("a cache");
    let work = |k: usize| {
        let (pool, cache) = (&pool, &cache);
        move || {
            let mut mine: Vec<(NonNull<u8>, usize, usize)> = Vec::new();
            let mut random = k as u64 + 1;
            for step in 0..30_000_usize {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pick = (random >> 33) as usize;
                // Mostly few objects of many classes, now and then all that there is.
                if step % 3_000 == 2_999 || mine.len() > 4_000 {
                    for (object, bytes, n) in mine.drain(..) {
                        // SAFETY: `bytes` bytes of ours, live, and not used afterwards.
                        unsafe {
                            let first = *object.as_ptr();
                            let bytes = core::slice::from_raw_parts(object.as_ptr(), bytes);
                            assert!(bytes.iter().all(|byte| *byte == first), "somebody else has the object");
                            if n == 0 { pool.free(object) } else { cache.free_array(object, n) }
                        }
                    }
                }
                let (object, bytes, n) = match pick % 16 {
                    0 => (pool.try_alloc(layout(20_000)).ok(), 20_000, 0),
                    1 | 2 => {
                        (cache.try_alloc_array(2 + pick / 16 % 20).ok(), 48 * (2 + pick / 16 % 20), 2 + pick / 16 % 20)
                    }
                    other => (pool.try_alloc(layout(32 * other)).ok(), 32 * other, 0),
                };
                if let Some(object) = object {
                    // SAFETY: so many bytes, ours.
                    unsafe { object.as_ptr().write_bytes((step + k * 97) as u8, bytes) };
                    mine.push((object, bytes, n));
                }
                if pick.is_multiple_of(3) && !mine.is_empty() {
                    let (object, _, n) = mine.swap_remove(pick % mine.len());
                    // SAFETY: live, and not used afterwards.
                    unsafe { if n == 0 { pool.free(object) } else { cache.free_array(object, n) } };
                }
            }
            for (object, _, n) in mine {
                // SAFETY: as above.
                unsafe { if n == 0 { pool.free(object) } else { cache.free_array(object, n) } };
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|k| scope.spawn(work(k))).collect();
        // To their very ends, where they leave the pool.
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
    });
    pool.verify().expect("a sound pool");
    drop(cache);
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
}

/// The bound of docs/SAFETY.md, in bytes: of each thread the slab that it used last.
#[test]
fn no_more_than_the_bound_is_stranded() {
    const THREADS: usize = 3;
    const CLASSES: [usize; 4] = [2, 5, 12, 20];
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(THREADS + 1)));
    let mut pinned = Vec::new();
    for k in 0..THREADS {
        pinned.extend(sleeper(&pool, &wake, move |pool| {
            let mut live = Vec::new();
            CLASSES.into_iter().for_each(|class| {
                let size = class_size(class);
                let objects: Vec<_> = (0..300).map(|_| pool.try_alloc(layout(size)).expect("memory")).collect();
                // The first thread's slabs are all empty in the end; the others keep one object in five.
                let keep = |i: usize| k > 0 && i.is_multiple_of(5);
                let (some, rest): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| keep(*i));
                free_all(pool, rest.into_iter().map(|(_, object)| object));
                live.extend(some.into_iter().map(|(_, object)| object));
            });
            live
        }));
    }
    let run = |class: usize| pool.core().slabs.shape(class).expect("a class").run * 256;
    let bound = THREADS * CLASSES.map(run).into_iter().max().unwrap_or(0);
    // All there is: pages, then items of each class, then single bytes.
    let pages = fill(&pool, 4096);
    let items: Vec<_> = CLASSES.into_iter().flat_map(|class| fill(&pool, class_size(class))).collect();
    let rest = fill(&pool, 1);
    assert_eq!(pool.stats().free, 0);
    let (mut told, mut slabs) = (0, 0);
    pool.core().slabs.each_stranded(&mut |_, _, _, free| (told, slabs) = (told + free, slabs + 1));
    assert!(told <= bound && told > 0, "{told} bytes are stranded, the bound is {bound}");
    // The verdict says as much.
    let text = std::format!("{}", pool.verdict(layout(4096)));
    let line = std::format!("  stranded   {} in {slabs} slabs: ", crate::bytes::Bytes(told));
    assert!(text.contains(&line) && text.contains(" with thread "), "{text}");
    free_all(&pool, pages.into_iter().chain(items).chain(rest).chain(pinned));
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
    wake.wait();
}

#[test]
fn a_thread_that_relinquishes_strands_nothing() {
    let (pool, wake) = (Arc::new(config().build().expect("a pool")), Arc::new(Barrier::new(2)));
    let kept = sleeper(&pool, &wake, |pool| {
        let objects: Vec<_> = (0..500).map(|_| pool.try_alloc(layout(200)).expect("memory")).collect();
        let (odd, even): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        free_all(pool, odd.into_iter().map(|(_, object)| object));
        pool.relinquish();
        let again = pool.try_alloc(layout(100)).expect("it may go on");
        free_all(pool, [again]);
        pool.relinquish();
        even.into_iter().map(|(_, object)| object).collect()
    });
    let mut told = 0;
    pool.core().slabs.each_stranded(&mut |_, _, _, free| told += free);
    assert_eq!(told, 0);
    free_all(&pool, kept);
    pool.verify().expect("a sound pool");
    wake.wait();
}

/// A program that never ends a thread, under all of this at once.
#[test]
fn tapping_sleepers_and_workers_that_free_and_fill() {
    let (pool, wake) = (Arc::new(config().segment(2 << 20).build().expect("a pool")), Arc::new(Barrier::new(2)));
    let objects = sleeper(&pool, &wake, |pool| {
        let objects = fill(pool, 128);
        let (own, rest): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 9 == 0);
        free_all(pool, own.into_iter().map(|(_, object)| object));
        rest.into_iter().map(|(_, object)| object).collect()
    });
    let workers: Vec<_> = objects
        .chunks(objects.len().div_ceil(3))
        .map(|part| {
            let (pool, mut mine) = (pool.clone(), Sent(part.to_vec()));
            thread::spawn(move || {
                let sent = &mut mine;
                for round in 0..40usize {
                    let many = sent.0.len() / 2 + round % 3;
                    free_all(&pool, sent.0.drain(..many.min(sent.0.len())));
                    while let Ok(object) = pool.try_alloc(layout(128)) {
                        // SAFETY: 128 bytes, ours.
                        unsafe { object.as_ptr().write_bytes(round as u8, 128) };
                        sent.0.push(object);
                    }
                }
                mine
            })
        })
        .collect();
    let rest: Vec<Sent> = workers.into_iter().map(|worker| worker.join().expect("joined")).collect();
    let mut addresses: Vec<usize> =
        rest.iter().flat_map(|sent| sent.0.iter().map(|object| object.addr().get())).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[0] < pair[1]), "an object was handed out twice");
    pool.verify().expect("a sound pool");
    rest.into_iter().for_each(|sent| free_all(&pool, sent.0));
    pool.verify().expect("a sound pool");
    wake.wait();
}

/// One who has the shared local heap and then goes through its bins, as exhausted requests do, and one who ends a cache want the same two locks:
/// the second must not have the one for bins while it waits for the other.
#[test]
fn a_cache_ends_while_somebody_has_the_shared_local_heap() {
    let pool = config().build().expect("a pool");
    let core = pool.core();
    let cache = core.cache_create("cache", 100, 4).expect("a cache");
    let (begun, (tell, ended)) = (Barrier::new(2), std::sync::mpsc::channel());
    let long = std::time::Duration::from_secs(60);
    thread::scope(|scope| {
        core.with_shared(|_| {
            scope.spawn(|| {
                begun.wait();
                core.cache_destroy(cache, "test");
                tell.send(()).expect("somebody listens");
            });
            begun.wait();
            // Long enough for it to come to where it waits.
            assert!(ended.recv_timeout(long / 600).is_err(), "it needs the shared local heap, too");
            let (tell, passed) = std::sync::mpsc::channel();
            scope.spawn(move || core.slabs.undisturbed(|| tell.send(()).expect("somebody listens")));
            if passed.recv_timeout(long).is_err() {
                std::eprintln!("two threads wait for each other");
                std::process::abort();
            }
        });
        ended.recv_timeout(long).expect("the cache ends");
    });
}
