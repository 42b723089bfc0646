//! Requests refused on purpose, seen through the library.
#![allow(unsafe_code, missing_docs)]

use std::alloc::Layout;
use std::ptr::NonNull;

use mempool::Pool;
use mempool::config::{Config, Exhausted, Lock, Small};

fn config() -> Config {
    Config::new().segment(4 << 20).exhausted(Exhausted::Null).lock(Lock::Off).max_retries(0)
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

/// Which of `count` requests of `size` bytes are refused, counted from 1.
fn refused(pool: &Pool, count: usize, size: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut objects: Vec<NonNull<u8>> = Vec::new();
    for number in 1..=count {
        match pool.alloc(layout(size)) {
            Ok(object) => objects.push(object),
            Err(_) => found.push(number),
        }
    }
    for object in objects {
        // SAFETY: allocated above, not used afterwards.
        unsafe { pool.free(object) };
    }
    pool.verify().expect("in order");
    assert_eq!(pool.stats().live(), 0);
    assert_eq!(pool.stats().refused, found.len() as u64);
    found
}

#[test]
fn each_tier_refuses_what_is_due() {
    for (small, size) in [(Small::Slab, 100), (Small::Heap, 100), (Small::Slab, 20_000)] {
        let with = |config: Config| refused(&config.small(small).build().expect("a pool"), 50, size);
        assert_eq!(with(config()), []);
        assert_eq!(with(config().fail_nth(7)), [7]);
        assert_eq!(with(config().fail_every(20)), [20, 40]);
        assert_eq!(with(config().fail_nth(3).fail_every(25)), [3, 25, 50]);
        assert_eq!(with(config().fail_above(size)), []);
        assert_eq!(with(config().fail_above(size - 1)).len(), 50);
        assert_eq!(with(config().fail_seed(1).fail_rate(1)).len(), 50);
        let drawn = with(config().fail_seed(5).fail_rate(4));
        assert!(drawn == with(config().fail_seed(5).fail_rate(4)) && (2..30).contains(&drawn.len()), "{drawn:?}");
    }
}

#[test]
fn caches_arrays_and_growing_objects_are_requests() {
    let pool = config().fail_every(2).build().expect("a pool");
    let cache = pool.cache::<[u64; 8]>("request").expect("a cache");
    let one = cache.alloc([1; 8]).expect("the first");
    assert!(cache.alloc([2; 8]).is_err(), "the second");
    let some = cache.alloc_slice(5, |_| [3; 8]).expect("the third");
    assert!(cache.alloc_slice(5, |_| [3; 8]).is_err(), "the fourth");
    let object = pool.alloc(layout(20_000)).expect("the fifth");
    // SAFETY: live; refused, so it stays.
    assert!(unsafe { pool.realloc(object, layout(40_000)) }.is_err(), "the sixth");
    // SAFETY: live, and only the new object is used afterwards.
    let object = unsafe { pool.realloc(object, layout(40_000)) }.expect("the seventh");
    // SAFETY: as above; what fits is no request.
    let same = unsafe { pool.realloc(object, layout(39_000)) }.expect("it fits");
    assert!(same == object && one[0] == 1 && some[4][7] == 3);
    // SAFETY: not used afterwards.
    unsafe { pool.free(object) };
    drop((one, some));
    pool.verify().expect("in order");
    assert_eq!((pool.stats().live(), pool.stats().refused), (0, 3));
}

#[test]
fn requests_of_all_threads_have_one_order() {
    let pool = config().fail_every(10).build().expect("a pool");
    let served: usize = std::thread::scope(|scope| {
        let work = || (0..1000).filter(|k| pool.alloc(layout(16 + k % 500)).is_ok()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("joined")).sum()
    });
    assert_eq!(served, 3600);
    assert_eq!(pool.stats().live(), 3600);
    pool.verify().expect("in order");
}
