//! The directory of threads: no more of its entries are used, and no more local heaps made, than there were threads at once.

use core::alloc::Layout;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::vec::Vec;

use crate::config::Config;
use crate::pool::Pool;

fn pool(config: &Config) -> Pool {
    config.segment(64 << 20).build().expect("a pool")
}

/// Has the calling thread ask `pool` for memory.
fn ask(pool: &Pool) {
    pool.try_alloc(Layout::new::<u64>()).expect("room");
}

/// Bytes of the local heap of one thread.
fn one_heap() -> usize {
    let pool = pool(&Config::new());
    ask(&pool);
    pool.stats().local_heap_bytes
}

#[test]
fn threads_one_after_another_use_one_entry_and_threads_at_once_one_each() {
    let pool = Arc::new(pool(&Config::new()));
    assert_eq!(pool.stats().threads_most, 0);
    ask(&pool);
    for _ in 0..40 {
        let pool = pool.clone();
        thread::spawn(move || ask(&pool)).join().expect("no panic");
    }
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.threads_most, stats.local_heap_bytes), (1, 2, 2 * one_heap()));
    let all = Arc::new(Barrier::new(40));
    let threads: Vec<_> = (0..40)
        .map(|_| {
            let (pool, all) = (pool.clone(), all.clone());
            thread::spawn(move || {
                ask(&pool);
                all.wait();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.threads_most, stats.local_heap_bytes), (1, 41, 41 * one_heap()));
}

#[test]
fn more_threads_than_entries_are_not_counted() {
    let pool = Arc::new(pool(&Config::new().max_threads(3)));
    let all = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (pool, all) = (pool.clone(), all.clone());
            thread::spawn(move || {
                ask(&pool);
                all.wait();
                assert_eq!(pool.stats().threads, 3);
                all.wait();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    ask(&pool);
    let stats = pool.stats();
    assert_eq!((stats.threads, stats.threads_most), (1, 3));
}

/// Whoever claims an entry while others come and go takes one of the first: with three at most at once no fourth is used, whatever a walk over the entries
/// passes by.
#[test]
fn entries_are_no_more_than_threads_at_once() {
    let pool = pool(&Config::new());
    let (highest, claims) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for token in 1..=3_u64 {
            let (pool, highest, claims) = (&pool, &highest, &claims);
            scope.spawn(move || {
                let directory = &pool.core().threads;
                for _ in 0..100_000 {
                    if let Some(index) = directory.claim(token) {
                        highest.fetch_max(index, Relaxed);
                        claims.fetch_add(1, Relaxed);
                        directory.vacate(index);
                    }
                }
            });
        }
    });
    assert!(highest.load(Relaxed) < 3, "entry {}", highest.load(Relaxed));
    // Others are quicker 64 times in a row once in a blue moon.
    assert!(claims.load(Relaxed) > 290_000, "{} claims", claims.load(Relaxed));
    let threads = &pool.core().threads;
    assert!(threads.most_at_once() <= 3 && (0..3).all(|token| threads.claim(token + 1).is_some()));
}
