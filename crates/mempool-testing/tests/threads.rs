//! Several threads on one pool, several pools in one thread.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use mempool::Pool;
use mempool::config::{Exhausted, Small};
use mempool_testing::{Baseline, Mix, Op, Rng, Shadow, World, run};

/// An object that travels.
struct Parcel(NonNull<u8>, usize, u8);

// SAFETY: whoever has the parcel owns the object.
unsafe impl Send for Parcel {}

impl Parcel {
    fn new(pool: &Pool, size: usize, mark: u8) -> Option<Self> {
        let at = pool.try_alloc(Layout::from_size_align(size, 1).expect("a size")).ok()?;
        // SAFETY: as many bytes were handed out.
        unsafe { at.write_bytes(mark, size) };
        Some(Self(at, size, mark))
    }

    fn open(self, pool: &Pool) {
        // SAFETY: the object is ours.
        let bytes = unsafe { core::slice::from_raw_parts(self.0.as_ptr(), self.1) };
        assert!(bytes.iter().all(|&byte| byte == self.2), "a parcel was overwritten");
        // SAFETY: the object is ours and forgotten.
        unsafe { pool.free(self.0) };
    }
}

fn pool(bytes: usize, small: Small) -> Pool {
    World::of(bytes).small(small).config.build().expect("a pool")
}

/// A scope that ends when its threads have ended: destructors, which give memory back, and all. The standard library's
/// waits for their closures alone.
fn scope<'e>(f: impl for<'s> FnOnce(&'s thread::Scope<'s, 'e>, &mut Vec<thread::ScopedJoinHandle<'s, ()>>)) {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        f(scope, &mut threads);
        threads.into_iter().for_each(|thread| thread.join().expect("a thread that ends well"));
    });
}

fn each(f: impl Fn(Small)) {
    [Small::Slab, Small::Heap].into_iter().for_each(f);
}

/// Nothing is live and all of it can be had in one run, but for the local heaps.
fn assert_empty(pool: &Pool) {
    pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(pool.stats().live(), 0);
    let before = Baseline::of(pool);
    let stats = pool.stats();
    assert_eq!(before.free + stats.local_heap_bytes, stats.open, "{stats:?}");
}

fn size(rng: &mut Rng) -> usize {
    if rng.below(10) == 0 { 1 + rng.below(20_000) } else { 1 + rng.below(500) }
}

#[test]
fn producers_and_consumers() {
    each(|small| {
        let pool = pool(8 << 20, small);
        scope(|scope, threads| {
            for pair in 0..3 {
                let (to, from) = mpsc::sync_channel::<Parcel>(1000);
                let pool = &pool;
                threads.push(scope.spawn(move || {
                    let mut rng = Rng::new(pair);
                    for n in 0..30_000u32 {
                        let size = size(&mut rng);
                        let parcel = loop {
                            // The consumer may be behind.
                            match Parcel::new(pool, size, n as u8) {
                                Some(parcel) => break parcel,
                                None => thread::yield_now(),
                            }
                        };
                        to.send(parcel).expect("a consumer");
                    }
                }));
                threads.push(scope.spawn(move || {
                    let mut rng = Rng::new(pair);
                    let mut kept = Vec::new();
                    for parcel in from {
                        kept.push(parcel);
                        if kept.len() > 100 {
                            kept.swap_remove(rng.below(100)).open(pool);
                        }
                    }
                    kept.into_iter().for_each(|parcel| parcel.open(pool));
                }));
            }
        });
        assert_empty(&pool);
    });
}

#[test]
fn everybody_frees_everybodys() {
    each(|small| {
        let pool = pool(8 << 20, small);
        let shelf: Vec<Mutex<Option<Parcel>>> = (0..2000).map(|_| Mutex::new(None)).collect();
        for generation in 0..4 {
            scope(|scope, threads| {
                for number in 0..4 {
                    let (pool, shelf) = (&pool, &shelf);
                    threads.push(scope.spawn(move || {
                        let mut rng = Rng::new(generation * 10 + number);
                        for _ in 0..20_000 {
                            let new = Parcel::new(pool, size(&mut rng), rng.draw() as u8);
                            let place = &shelf[rng.below(shelf.len())];
                            let old = std::mem::replace(&mut *place.lock().expect("a lock"), new);
                            if let Some(old) = old {
                                old.open(pool);
                            }
                        }
                    }));
                }
            });
            pool.verify().unwrap_or_else(|broken| panic!("generation {generation}: {broken}"));
        }
        shelf.into_iter().filter_map(|place| place.into_inner().expect("a lock")).for_each(|parcel| parcel.open(&pool));
        assert_empty(&pool);
    });
}

#[test]
fn many_pools_and_many_threads() {
    let pools: Vec<Pool> = (0..7).map(|n| pool(2 << 20, if n % 2 == 0 { Small::Slab } else { Small::Heap })).collect();
    scope(|scope, threads| {
        for number in 0..6 {
            let pools = &pools;
            threads.push(scope.spawn(move || {
                let mut rng = Rng::new(number);
                // Without figures: other threads use the pools too.
                let mut shadows: Vec<Shadow<'_>> = pools.iter().map(|pool| Shadow::new(pool, 0)).collect();
                for _ in 0..20_000 {
                    let which = rng.below(shadows.len());
                    let shadow = &mut shadows[which];
                    if shadow.live() > 60 {
                        shadow.free(rng.below(1000));
                    } else {
                        shadow.alloc(size(&mut rng), 1 << rng.below(10), rng.below(4) == 0);
                    }
                }
                for mut shadow in shadows {
                    while shadow.free(0) {}
                }
            }));
        }
    });
    for pool in &pools {
        assert_empty(pool);
        assert!(pool.stats().threads <= 1, "a thread that ended is still counted");
    }
}

#[test]
fn a_pool_ends_while_threads_that_used_it_go_on() {
    for round in 0..30 {
        let first = Arc::new(pool(1 << 20, Small::Slab));
        let (used, dropped) = (Barrier::new(4), Barrier::new(4));
        scope(|scope, threads| {
            for number in 0..3 {
                let (first, used, dropped) = (Arc::clone(&first), &used, &dropped);
                threads.push(scope.spawn(move || {
                    let mut rng = Rng::new(number);
                    for _ in 0..100 {
                        Parcel::new(&first, size(&mut rng), 1).expect("memory").open(&first);
                    }
                    drop(first);
                    used.wait();
                    dropped.wait();
                    // Often at the very addresses of the first.
                    let second = pool(1 << 20, Small::Slab);
                    let mut shadow = Shadow::new(&second, 50);
                    for _ in 0..200 {
                        run(&mut shadow, Op::decode(rng.draw(), Mix::Small, 1000));
                    }
                    while shadow.free(0) {}
                    shadow.check_figures();
                }));
            }
            used.wait();
            assert_eq!(Arc::strong_count(&first), 1, "round {round}");
            drop(first);
            dropped.wait();
        });
    }
}

/// A thread that waits holds nothing that is wholly empty: others get it.
#[test]
fn what_a_waiting_thread_has_freed_can_be_had() {
    for how in ["itself", "by others", "and is gone"] {
        let pool = pool(1 << 20, Small::Slab);
        let (to, from) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        scope(|scope, threads| {
            let shared = &pool;
            let mut worker = Some(scope.spawn(move || {
                let mut all = Vec::new();
                while let Some(parcel) = Parcel::new(shared, 200, 7) {
                    all.push(parcel);
                }
                if how == "itself" {
                    all.drain(..).for_each(|parcel| parcel.open(shared));
                }
                to.send(all).expect("a listener");
                if how != "and is gone" {
                    let _ = wait.recv();
                }
            }));
            let all = from.recv().expect("the objects");
            let many = all.len();
            if let Some(worker) = worker.take_if(|_| how == "and is gone") {
                worker.join().expect("an end");
            }
            all.into_iter().for_each(|parcel| parcel.open(&pool));
            // Of another class, and large: only whole slabs help.
            let mut got = 0;
            let mut mine = Vec::new();
            while let Some(parcel) = Parcel::new(&pool, 3000, 9) {
                got += 3072;
                mine.push(parcel);
            }
            assert!(got > pool.stats().open * 9 / 10, "{how}: {got} bytes after {many} objects were freed");
            mine.into_iter().for_each(|parcel| parcel.open(&pool));
            drop(go);
            threads.extend(worker);
        });
        assert_empty(&pool);
    }
}

/// More threads than a pool has local heaps for share one, under a lock.
#[test]
fn more_threads_than_local_heaps() {
    let mut world = World::of(4 << 20);
    world.config = world.config.max_threads(2);
    let pool = world.config.build().expect("a pool");
    scope(|scope, threads| {
        for number in 0..8 {
            let pool = &pool;
            threads.push(scope.spawn(move || {
                let mut shadow = Shadow::new(pool, 0);
                let mut rng = Rng::new(number);
                for _ in 0..3000 {
                    if shadow.live() > 100 || rng.below(3) == 0 {
                        shadow.free(rng.below(1000));
                    } else {
                        shadow.alloc(size(&mut rng), 1, false);
                    }
                }
                while shadow.free(0) {}
            }));
        }
    });
    assert_empty(&pool);
}

/// Caches are used by all threads, and each is ended by one while the others go on with other things, in a pool so
/// tight that exhausted requests steal empty slabs out of queues all the time.
#[test]
fn caches_end_while_others_go_on() {
    let pool = pool(1 << 20, Small::Slab);
    let layout = Layout::from_size_align(200, 8).expect("a layout");
    let rounds = 600;
    let (used, slots) = (Barrier::new(3), Mutex::new(None::<mempool::RawCache<'_>>));
    scope(|scope, threads| {
        for number in 0..3u64 {
            let (pool, used, slots) = (&pool, &used, &slots);
            threads.push(scope.spawn(move || {
                let mut rng = Rng::new(number);
                for round in 0..rounds {
                    if number == 0 {
                        let cache = pool.raw_cache(&format!("round {round}"), layout).expect("a cache");
                        *slots.lock().expect("a lock") = Some(cache);
                    }
                    used.wait();
                    let items: Vec<usize> = {
                        let guard = slots.lock().expect("a lock");
                        let cache = guard.as_ref().expect("the cache of the round");
                        let items: Vec<_> = (0..400).filter_map(|_| cache.try_alloc().ok()).collect();
                        // SAFETY: live; half of them stay.
                        items.iter().step_by(2).for_each(|&item| unsafe { cache.free(item) });
                        items.iter().skip(1).step_by(2).map(|item| item.as_ptr() as usize).collect()
                    };
                    used.wait();
                    {
                        let guard = slots.lock().expect("a lock");
                        let cache = guard.as_ref().expect("the cache of the round");
                        for &item in &items {
                            // SAFETY: live.
                            unsafe { cache.free(NonNull::new(item as *mut u8).expect("an item")) };
                        }
                    }
                    used.wait();
                    if number == 0 {
                        let cache = slots.lock().expect("a lock").take().expect("the cache of the round");
                        // SAFETY: everybody has freed what they had.
                        assert_eq!(unsafe { cache.destroy() }, 0);
                    } else {
                        let mut kept = Vec::new();
                        for _ in 0..3000 {
                            match Parcel::new(pool, 1 + rng.below(500), 3) {
                                Some(parcel) if kept.len() < 2500 => kept.push(parcel),
                                Some(parcel) => parcel.open(pool),
                                None => kept.drain(..kept.len() / 2).for_each(|parcel| parcel.open(pool)),
                            }
                        }
                        kept.into_iter().for_each(|parcel| parcel.open(pool));
                    }
                }
            }));
        }
    });
    assert_empty(&pool);
}

/// What one thread opens another may take: nobody is refused before the pool is as large as it may be.
#[test]
fn threads_that_need_growth_at_once_are_all_served() {
    const THREADS: usize = 16;
    const SIZE: usize = 1 << 20;
    each(|small| {
        let config = World::of(1 << 20).small(small).config;
        let config = config.exhausted(Exhausted::Grow).max_segment(3 * THREADS * SIZE).max_retries(0);
        for _ in 0..20 {
            let pool = config.build().expect("a pool");
            let begin = Barrier::new(THREADS);
            scope(|scope, threads| {
                threads.extend((0..THREADS).map(|_| {
                    scope.spawn(|| {
                        begin.wait();
                        let parcels = [1, 2].map(|mark| Parcel::new(&pool, SIZE, mark).expect("there is room"));
                        parcels.into_iter().for_each(|parcel| parcel.open(&pool));
                    })
                }));
            });
            assert_eq!(pool.stats().live(), 0);
        }
    });
}
