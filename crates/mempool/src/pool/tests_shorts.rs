//! Short runs, as somebody sees it whose small objects are the best-fit heap's: what a thread freed serves its next request, and is nobody's
//! loss.
#![allow(unsafe_code)]

use super::tests::layout;
use crate::config::{Commit, Config, Exhausted, Small, Wish};
use crate::pool::Pool;
use crate::units::{FRAGMENT, fragments_for};
use std::ptr::NonNull;
use std::sync::mpsc::channel;
use std::vec::Vec;

/// All of these are runs shorter than a page.
const SIZES: [usize; 6] = [256, 300, 1000, 1024, 5000, 16_000];

fn pool(bytes: usize) -> Pool {
    let config = Config::new().segment(bytes).commit(Commit::Lazy).lock(Wish::Off).exhausted(Exhausted::Null);
    config.small(Small::Heap).max_retries(0).huge_pages(Wish::Off).build().expect("a pool")
}

fn get(pool: &Pool, size: usize) -> Option<NonNull<u8>> {
    pool.try_alloc(layout(size)).ok()
}

fn put(pool: &Pool, object: NonNull<u8>) {
    // SAFETY: the tests free what they allocated, once.
    unsafe { pool.free(object) };
}

/// Waits until no thread but this one has a local heap: the end of a thread is told to the pool a little after it can be joined.
pub fn wait_for_ends(pool: &Pool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while pool.stats().threads > usize::from(pool.core().own().is_some()) {
        assert!(std::time::Instant::now() < deadline, "{} threads", pool.stats().threads);
        std::thread::yield_now();
    }
}

#[test]
fn what_a_thread_freed_last_comes_first() {
    let pool = pool(64 << 20);
    for size in SIZES {
        let objects: Vec<_> = (0..10).map(|_| get(&pool, size).expect("room")).collect();
        let (before, len) = (pool.stats(), fragments_for(size));
        objects.iter().for_each(|object| put(&pool, *object));
        let kept = pool.stats();
        let bytes = 10 * len * FRAGMENT;
        assert_eq!((kept.parked - before.parked, kept.free - before.free), (bytes, bytes), "{size}");
        assert_eq!(before.runs - kept.runs, 10, "{size}");
        pool.verify().expect("a sound pool");
        // Another length leaves them alone.
        let other = get(&pool, size + FRAGMENT).expect("room");
        let again: Vec<_> = (0..10).map(|_| get(&pool, size).expect("room")).collect();
        assert!(again.iter().eq(objects.iter().rev()), "{size}");
        assert_eq!((pool.stats().runs_served, pool.stats().parked), (kept.runs_served + 1, before.parked), "{size}");
        pool.verify().expect("a sound pool");
        again.into_iter().chain([other]).for_each(|object| put(&pool, object));
        assert!(pool.trim() > 0);
        assert_eq!(pool.stats().parked, 0, "{size}");
    }
}

#[test]
fn zeros_are_zeros_again() {
    let pool = pool(64 << 20);
    for size in SIZES {
        let object = get(&pool, size).expect("room");
        // SAFETY: so many bytes of our own.
        unsafe { object.as_ptr().write_bytes(7, size) };
        put(&pool, object);
        let zeros = pool.try_alloc_zeroed(layout(size)).expect("room");
        assert_eq!(zeros, object, "{size}");
        // SAFETY: as above, and written.
        assert!(unsafe { std::slice::from_raw_parts(zeros.as_ptr(), size) }.iter().all(|byte| *byte == 0), "{size}");
        put(&pool, zeros);
    }
}

#[test]
fn what_is_set_aside_is_no_object() {
    let pool = pool(64 << 20);
    let (object, neighbour) = (get(&pool, 1000).expect("room"), get(&pool, 1000).expect("room"));
    put(&pool, object);
    let start = (object.as_ptr() as usize - pool.core().data) / FRAGMENT;
    let local = pool.core().own().expect("a local heap");
    assert!(pool.core().frag.run_at(start).is_none() && pool.core().frag.run_of(start + 1).is_none());
    assert!(!crate::front::push_behind(local, object.as_ptr() as usize, "free"), "kept twice");
    assert!(pool.core().frag.give(start, |_| ()).is_err(), "given as well");
    put(&pool, neighbour);
    pool.verify().expect("a sound pool");
}

/// Some of it with a thread that is never heard of again.
#[test]
fn others_get_it_when_nothing_else_is_left() {
    let pool = pool(48 << 20);
    let (kept, done) = channel();
    let (wake, woken) = channel::<()>();
    std::thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(move || {
            let objects: Vec<_> = (0..100).map(|_| get(pool, 1000).expect("room")).collect();
            objects.into_iter().for_each(|object| put(pool, object));
            kept.send(pool.stats().parked).expect("somebody waits");
            // Until the test is over: it neither gives back nor looks at what it keeps.
            let _ = woken.recv();
        });
        assert_eq!(done.recv(), Ok(100 * 1024));
        let mut all: Vec<_> = std::iter::from_fn(|| get(pool, 1000)).collect();
        let stats = pool.stats();
        assert!(stats.parked == 0 && stats.largest_free < 1024, "{} bytes are left", stats.largest_free);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), stats.runs, "an object is handed out twice");
        all.into_iter().for_each(|object| put(pool, object));
        pool.verify().expect("a sound pool");
        drop(wake);
    });
    // What the thread then finds in its list is not there any more.
    assert_eq!(pool.stats().runs, 0);
}

#[test]
fn a_thread_that_ends_gives_it_back() {
    let pool = pool(64 << 20);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let end = scope.spawn(|| {
                let objects = SIZES.map(|size| get(&pool, size).expect("room"));
                objects.into_iter().for_each(|object| put(&pool, object));
                pool.stats().parked
            });
            assert!(end.join().expect("no panic") > 0);
        });
        wait_for_ends(&pool);
        assert_eq!(pool.stats().parked, 0);
        pool.verify().expect("a sound pool");
    }
}

/// As many as there is room for, in number and in bytes; the rest goes back at once.
#[test]
fn there_is_a_limit() {
    for (bytes, size, most) in [(64 << 20, 300, 128), (40 << 20, 16_000, usize::MAX)] {
        let pool = pool(bytes);
        let objects: Vec<_> = (0..1000).map(|_| get(&pool, size).expect("room")).collect();
        objects.into_iter().for_each(|object| put(&pool, object));
        let parked = pool.stats().parked;
        assert!(parked <= bytes / 64 && parked / FRAGMENT <= most.saturating_mul(fragments_for(size)), "{parked}");
        assert!(parked > 0);
        assert_eq!(pool.stats().runs, 0);
        pool.verify().expect("a sound pool");
    }
}

#[test]
fn what_others_took_makes_room() {
    let pool = pool(64 << 20);
    let objects: Vec<_> = (0..200).map(|_| get(&pool, 300).expect("room")).collect();
    let other = get(&pool, 1000).expect("room");
    objects.into_iter().for_each(|object| put(&pool, object));
    assert!(pool.trim() > 0 && pool.stats().parked == 0);
    put(&pool, other);
    assert_eq!(pool.stats().parked, 1024);
    assert_eq!(get(&pool, 1000), Some(other));
    pool.verify().expect("a sound pool");
}

/// Threads that free and allocate while the pool is exhausted again and again, so that they take each other's.
#[test]
fn takers_and_keepers_meet() {
    let pool = pool(40 << 20);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let pool = &pool;
            scope.spawn(move || {
                let mut state = thread as u64 + 1;
                let mut live: Vec<(NonNull<u8>, usize)> = Vec::new();
                for _ in 0..30_000 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let random = (state >> 33) as usize;
                    let size = SIZES[random % SIZES.len()];
                    match get(pool, size) {
                        Some(object) => {
                            // SAFETY: so many bytes of our own.
                            unsafe { object.as_ptr().write_bytes(thread as u8 + 1, size) };
                            live.push((object, size));
                        }
                        None => (0..live.len() / 8).for_each(|_| check(pool, thread, &mut live, random)),
                    }
                    if random.is_multiple_of(3) {
                        check(pool, thread, &mut live, random / 3);
                    }
                }
                while !live.is_empty() {
                    check(pool, thread, &mut live, 0);
                }
            });
        }
    });
    wait_for_ends(&pool);
    assert_eq!((pool.stats().runs, pool.stats().parked), (0, 0));
    pool.verify().expect("a sound pool");
}

/// Frees one of `live`, which must be as `thread` left it.
fn check(pool: &Pool, thread: usize, live: &mut Vec<(NonNull<u8>, usize)>, which: usize) {
    if live.is_empty() {
        return;
    }
    let (object, size) = live.swap_remove(which % live.len());
    // SAFETY: live, and written.
    let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
    assert!(bytes.iter().all(|byte| usize::from(*byte) == thread + 1), "somebody else wrote there");
    put(pool, object);
}
