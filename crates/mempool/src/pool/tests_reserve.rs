//! What the reserve and a budget's minimum hold: nearly all of their bytes, for those whose they are and for nobody else.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Barrier, Mutex};
use std::vec::Vec;

use crate::config::{Commit, Config, Exhausted};
use crate::pool::Pool;
use crate::pool::tests_shorts::wait_for_ends;
use crate::{AllocError, BudgetError, RawCache};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

/// Slots of 64 KiB, which pools have from 128 MiB on.
fn pool(reserve: usize) -> Pool {
    let config = Config::new().segment(128 << 20).reserve(reserve).commit(Commit::Lazy).exhausted(Exhausted::Null);
    config.max_retries(0).verdict_interval(0).build().expect("a pool")
}

fn fill(mut next: impl FnMut() -> Result<NonNull<u8>, AllocError>) -> Vec<NonNull<u8>> {
    std::iter::from_fn(|| next().ok()).collect()
}

/// All that anybody may have.
fn fill_up(pool: &Pool) -> Vec<NonNull<u8>> {
    [16 << 20, 1 << 20, 64 << 10, 256].into_iter().flat_map(|size| fill(|| pool.try_alloc(layout(size)))).collect()
}

fn free_all(pool: &Pool, objects: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    objects.into_iter().for_each(|object| unsafe { pool.free(object) });
}

fn free_items(cache: &RawCache<'_>, items: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    items.into_iter().for_each(|item| unsafe { cache.free(item) });
}

/// Makes the pool give all empty slabs back.
fn collect(pool: &Pool) {
    assert!(pool.try_alloc(layout(pool.stats().open)).is_err());
}

#[test]
fn critical_items_have_nearly_all_of_the_reserve() {
    for (size, n) in [(16, 1), (64, 1), (512, 1), (5000, 1), (9000, 1), (20_000, 1), (64, 10), (1000, 7)] {
        let pool = pool(1 << 20);
        let cache = pool.raw_cache("orders", layout(size)).expect("a cache");
        let next = || if n == 1 { cache.try_alloc() } else { cache.try_alloc_array(n) };
        let rest = fill_up(&pool);
        let before = fill(next);
        assert_eq!(pool.stats().reserve_free, 1 << 20);
        let critical = pool.critical(|| fill(next));
        let live = critical.len() * size * n;
        assert!(live * 10 >= 9 << 20, "{n} of {size} bytes: {} live, {live} bytes", critical.len());
        // What is freed there is for critical requests still.
        let (some, kept) = critical.split_at(critical.len() / 2);
        let free = |items: &[NonNull<u8>]| {
            // SAFETY: live, and not used afterwards.
            items
                .iter()
                .for_each(|item| unsafe { if n == 1 { cache.free(*item) } else { cache.free_array(*item, n) } });
        };
        free(some);
        assert!(next().is_err(), "an item that isn't critical came from the reserve");
        let again = pool.critical(|| fill(next));
        assert!(again.len() >= some.len());
        pool.verify().expect("a sound pool");
        free(&again);
        free(kept);
        assert_eq!(pool.stats().reserve_free, 1 << 20, "{n} of {size} bytes");
        free(&before);
        free_all(&pool, rest);
        collect(&pool);
        assert_eq!(pool.stats().live(), 0);
        pool.verify().expect("a sound pool");
    }
}

#[test]
fn scoped_allocations_have_nearly_all_of_the_minimum() {
    for size in [64, 1000, 9000, 12_000, 20_000, 70_000] {
        let pool = pool(4 << 20);
        let tenant = pool.budget("tenant", 2 << 20, 64 << 20).expect("a budget");
        tenant.scope(|| ()).expect("a local heap");
        let rest = fill_up(&pool);
        let objects = tenant.scope(|| fill(|| pool.try_alloc_zeroed(layout(size)))).expect("a local heap");
        let (live, used) = (objects.len() * size, tenant.info().used);
        assert!(live * 10 >= 9 * (2 << 20) && used <= 2 << 20, "{size}: {} objects, {live} of {used}", objects.len());
        assert_eq!(pool.stats().reserve_free, (4 << 20) - used);
        for object in &objects {
            // SAFETY: live, and so large.
            unsafe {
                assert!(core::slice::from_raw_parts(object.as_ptr(), size).iter().all(|&byte| byte == 0));
                object.as_ptr().write_bytes(0xAB, size);
                assert!(pool.usable_size(*object) >= size);
            }
        }
        pool.verify().expect("a sound pool");
        // As in the child of a fork.
        pool.core().recharge();
        assert_eq!(tenant.info().used, used);
        free_all(&pool, objects);
        // What is freed is the tenant's only.
        assert!(pool.try_alloc(layout(size)).is_err());
        assert!(tenant.scope(|| fill(|| pool.try_alloc(layout(size)))).is_ok_and(|again| {
            let room = again.len() * size * 10 >= 9 * (2 << 20);
            free_all(&pool, again);
            room
        }));
        free_all(&pool, rest);
        collect(&pool);
        assert_eq!((tenant.info().used, pool.stats().live(), pool.stats().reserve_free), (0, 0, 4 << 20));
        pool.verify().expect("a sound pool");
    }
}

#[test]
fn the_minimum_serves_any_sizes_to_the_last_fragments() {
    let pool = pool(1 << 20);
    let tenant = pool.budget("tenant", 1 << 20, 8 << 20).expect("a budget");
    tenant.scope(|| ()).expect("a local heap");
    let rest = fill_up(&pool);
    let objects = tenant
        .scope(|| {
            let sizes = [70_000, 9000, 3000, 100, 20_000, 1];
            sizes.into_iter().cycle().take(60).filter_map(|size| pool.try_alloc(layout(size)).ok()).collect::<Vec<_>>()
        })
        .expect("a local heap");
    assert!(objects.len() >= 48, "{}", objects.len());
    let more = tenant.scope(|| fill(|| pool.try_alloc(layout(256)))).expect("a local heap");
    assert_eq!((tenant.info().used, pool.stats().reserve_free), (1 << 20, 0), "{} more", more.len());
    // Larger ones move, and are charged where they come to lie.
    let used = tenant.info().used;
    let mut grown = None;
    tenant
        .scope(|| {
            // SAFETY: live; the old one is not used afterwards.
            grown = unsafe { pool.try_realloc(objects[1], layout(9001)) }.ok();
            // SAFETY: as above.
            assert!(unsafe { pool.try_realloc(objects[0], layout(700_000)) }.is_err());
        })
        .expect("a local heap");
    assert_eq!((grown, tenant.info().used), (Some(objects[1]), used));
    free_all(&pool, objects.into_iter().chain(more).chain(rest));
    collect(&pool);
    assert_eq!((tenant.info().used, pool.stats().live(), pool.stats().reserve_free), (0, 0, 1 << 20));
    pool.verify().expect("a sound pool");
}

#[test]
fn a_budget_does_not_get_what_critical_requests_have() {
    let pool = pool(1 << 20);
    let cache = pool.raw_cache("orders", layout(64)).expect("a cache");
    let (rest, before) = (fill_up(&pool), fill(|| cache.try_alloc()));
    let critical = pool.critical(|| pool.try_alloc(layout(5000))).expect("the reserve");
    let item = pool.critical(|| cache.try_alloc()).expect("the reserve");
    assert_eq!(pool.budget("a", 1 << 18, 1 << 20).err(), Some(BudgetError::Reserve(1 << 18, 0)));
    free_all(&pool, [critical]);
    assert_eq!(pool.budget("a", 1 << 18, 1 << 20).err(), Some(BudgetError::Reserve(1 << 18, 1 << 16)));
    free_items(&cache, [item]);
    let tenant = pool.budget("a", 1 << 20, 1 << 20).expect("all of the reserve");
    assert!(pool.critical(|| cache.try_alloc()).is_err() && pool.critical(|| pool.try_alloc(layout(1))).is_err());
    assert_eq!(tenant.info().used, 0);
    free_items(&cache, before);
    free_all(&pool, rest);
    pool.verify().expect("a sound pool");
}

/// Whatever critical requests take and give meanwhile, none of it is charged to a budget, or taken off it.
#[test]
fn budgets_are_made_while_critical_requests_come_and_go() {
    let pool = pool(4 << 20);
    let _rest = fill_up(&pool);
    let stop = AtomicBool::new(false);
    let budgets = std::thread::scope(|scope| {
        let (pool, stop) = (&pool, &stop);
        for k in 1..4 {
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let objects = pool.critical(|| (0..k).map(|_| pool.try_alloc(layout(3000))).collect::<Vec<_>>());
                    free_all(pool, objects.into_iter().flatten());
                }
            });
        }
        let tries = (0..200_000).filter_map(|_| pool.budget("a", 128 << 10, 1 << 20).ok());
        let budgets = tries.take(16).collect::<Vec<_>>();
        stop.store(true, Relaxed);
        budgets
    });
    wait_for_ends(&pool);
    let used = budgets.iter().map(|budget| budget.info().used).collect::<Vec<_>>();
    assert!(used.iter().all(|&used| used == 0), "{used:?}");
    assert_eq!(pool.stats().reserve_free, 4 << 20);
    pool.verify().expect("a sound pool");
}

#[test]
fn a_budgets_critical_items_are_charged_and_its_end_returns_them() {
    let pool = pool(1 << 20);
    let tenant = pool.budget("a", 0, 1 << 18).expect("a budget");
    let cache = tenant.raw_cache("orders", layout(512)).expect("a cache");
    let rest = fill_up(&pool);
    let items = pool.critical(|| fill(|| cache.try_alloc()));
    assert_eq!((items.len(), tenant.info().used), (512, 1 << 18));
    // At the cap a free item of a slab there serves still.
    free_items(&cache, [items[7]]);
    assert_eq!(pool.critical(|| cache.try_alloc()), Ok(items[7]));
    pool.core().recharge();
    assert_eq!(tenant.info().used, 1 << 18);
    drop(cache);
    assert_eq!((tenant.info().used, pool.stats().reserve_free), (0, 1 << 20));
    free_all(&pool, rest);
    pool.verify().expect("a sound pool");
}

/// Threads that are critical and threads that aren't, with one cache: items of the reserve go from hand to hand.
#[test]
fn ordinary_threads_get_nothing_of_what_critical_ones_free() {
    let pool = pool(1 << 20);
    let cache = pool.raw_cache("orders", layout(500)).expect("a cache");
    let (bag, ready) = (Mutex::new(Vec::<usize>::new()), Barrier::new(6));
    let reserved = |item: NonNull<u8>| item.addr().get() - pool.core().data < 1 << 20;
    let work = |critical: bool, seed: usize| {
        // Each thread has its local heap before nothing is left.
        free_all(&pool, pool.try_alloc(layout(10)));
        ready.wait();
        ready.wait();
        let (mut state, mut held) = (seed, Vec::new());
        for _ in 0..1500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match (state >> 33) % 4 {
                0 | 1 if critical => held.extend(pool.critical(|| cache.try_alloc())),
                0 | 1 => {
                    let item = cache.try_alloc();
                    assert!(!item.is_ok_and(reserved), "an ordinary request has an item of the reserve");
                    held.extend(item);
                    let object = pool.try_alloc(layout(2000));
                    assert!(!object.is_ok_and(reserved), "an ordinary request has a run of the reserve");
                    free_all(&pool, object);
                }
                2 => {
                    let given = held.pop().map(|item| item.as_ptr().expose_provenance());
                    bag.lock().expect("no test fails here").extend(given);
                }
                _ => {
                    let taken = bag.lock().expect("no test fails here").pop();
                    free_items(&cache, taken.and_then(|at| NonNull::new(core::ptr::with_exposed_provenance_mut(at))));
                }
            }
        }
        free_items(&cache, held);
    };
    std::thread::scope(|scope| {
        let work = &work;
        (0..5).for_each(|k| _ = scope.spawn(move || work(k < 3, k + 1)));
        ready.wait();
        let (_, items) = (fill_up(&pool), fill(|| cache.try_alloc()));
        ready.wait();
        // Some, so that all kinds of threads find something now and then.
        free_items(&cache, items);
    });
    wait_for_ends(&pool);
    let bag = bag.into_inner().expect("no test fails here").into_iter();
    free_items(&cache, bag.filter_map(|at| NonNull::new(core::ptr::with_exposed_provenance_mut(at))));
    pool.verify().expect("a sound pool");
    collect(&pool);
    assert_eq!((pool.stats().reserve_free, pool.stats().caches.live), (1 << 20, 0));
}
