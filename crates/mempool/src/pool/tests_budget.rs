//! Budgets: what they cap, what they guarantee, what is charged to them, and that one tenant fails alone.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::config::{Config, Exhausted};
use crate::os::fake::Fake;
use crate::pool::Pool;
use crate::pool::tests_shorts::wait_for_ends;
use crate::{Budget, BudgetError};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

fn config() -> Config {
    Config::new().segment(4 << 20).exhausted(Exhausted::Null).max_retries(0).verdict_interval(0)
}

fn fill(mut next: impl FnMut() -> Result<NonNull<u8>, crate::AllocError>) -> Vec<NonNull<u8>> {
    std::iter::from_fn(|| next().ok()).collect()
}

fn free_all(pool: &Pool, objects: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    objects.into_iter().for_each(|object| unsafe { pool.free(object) });
}

/// Makes the pool give all empty slabs back.
fn collect(pool: &Pool) {
    wait_for_ends(pool);
    assert!(pool.try_alloc(layout(pool.stats().open)).is_err());
}

#[test]
fn a_tenant_fails_alone_at_its_cap() {
    let pool = config().build().expect("a pool");
    let tenant = pool.budget("tenant", 0, 1 << 20).expect("a budget");
    let other = pool.budget("other", 0, 1 << 20).expect("a budget");
    let (a, b) =
        (tenant.raw_cache("a", layout(64)).expect("a cache"), tenant.raw_cache("b", layout(1000)).expect("a cache"));
    // All three ways together.
    let half = (0..4000).map(|_| a.try_alloc().expect("within the budget")).collect::<Vec<_>>();
    let arrays = fill(|| b.try_alloc_array(10));
    let scoped = fill(|| tenant.try_alloc(layout(100)));
    let info = tenant.info();
    assert!(info.used <= 1 << 20 && info.used > (1 << 20) - 16384, "{info:?}");
    assert!(half.len() * 64 + arrays.len() * 10_000 + scoped.len() * 100 > 900_000);
    assert!(tenant.try_alloc(layout(1)).is_err() && tenant.try_alloc(layout(100_000)).is_err());
    // Nobody else notices.
    assert!(fill(|| other.try_alloc(layout(500))).len() > 1900);
    assert!(fill(|| pool.try_alloc(layout(500))).len() > 2000);
    pool.verify().expect("a sound pool");
    // What is freed, the tenant has again; nobody else gets at its slabs.
    // SAFETY: live, and not used afterwards.
    unsafe {
        half.iter().for_each(|item| a.free(*item));
        arrays.iter().for_each(|array| b.free_array(*array, 10));
    }
    free_all(&pool, scoped);
    let again = fill(|| tenant.try_alloc(layout(500)));
    // The slots that its arrays had in part are taken by others in part.
    assert!(again.len() > 1600, "{}", again.len());
    assert!(tenant.info().used <= 1 << 20);
    free_all(&pool, again);
    collect(&pool);
    assert_eq!(tenant.info().used, 0, "{tenant:?}");
}

#[test]
fn what_is_set_aside_is_there_when_others_have_all() {
    let pool = config().reserve(1 << 20).build().expect("a pool");
    let tenant = pool.budget("tenant", 512 << 10, 2 << 20).expect("a budget");
    assert_eq!(tenant.info().least, 512 << 10);
    let cache = tenant.raw_cache("late", layout(200)).expect("a cache");
    let pages = fill(|| pool.try_alloc(layout(4096)));
    let rest = fill(|| pool.try_alloc(layout(1)));
    // Critical requests have the rest of the reserve, and no more.
    let critical = pool.critical(|| fill(|| pool.try_alloc(layout(4096))));
    assert_eq!(critical.len(), (512 << 10) / 4096);
    let items = fill(|| cache.try_alloc());
    assert!(items.len() * 200 > 500_000 && tenant.info().used == 512 << 10, "{} items", items.len());
    // SAFETY: live, and not used afterwards.
    unsafe { items.iter().for_each(|item| cache.free(*item)) };
    let scoped = fill(|| tenant.try_alloc(layout(60_000)));
    assert!(scoped.len() >= 7, "{}", scoped.len());
    free_all(&pool, scoped.into_iter().chain(critical).chain(pages).chain(rest));
    // With the pool's own memory it goes up to its cap.
    let all = fill(|| tenant.try_alloc(layout(500)));
    assert!(all.len() * 512 > 15 << 17 && tenant.info().used <= 2 << 20, "{}", all.len());
    free_all(&pool, all);
    pool.verify().expect("a sound pool");
    assert_eq!(
        pool.budget("late", (512 << 10) + 1, 2 << 20).err(),
        Some(BudgetError::Reserve((512 << 10) + 4096, 512 << 10))
    );
}

#[test]
fn scopes_charge_what_the_thread_allocates_and_nothing_else() {
    let pool = config().build().expect("a pool");
    let (tenant, inner) =
        (pool.budget("a", 0, 1 << 20).expect("a budget"), pool.budget("b", 0, 1 << 20).expect("a budget"));
    let before = pool.try_alloc(layout(100)).expect("memory");
    let (one, two, three) = tenant
        .scope(|| {
            let one = pool.try_alloc_zeroed(layout(100)).expect("memory");
            let two = inner.scope(|| pool.try_alloc(layout(30_000)).expect("memory")).expect("a local heap");
            // What was allocated outside can be freed and grown here.
            // SAFETY: live.
            let three = unsafe { pool.try_realloc(before, layout(500)) }.expect("memory");
            (one, two, three)
        })
        .expect("a local heap");
    assert!(inner.info().used >= 30_000 && tenant.info().used > 0);
    let used = tenant.info().used;
    // SAFETY: live.
    let room = [one, two, three].map(|object| unsafe { pool.usable_size(object) });
    assert!(room[0] >= 100 && room[1] >= 30_000 && room[2] >= 500);
    // SAFETY: 100 bytes, ours.
    assert!(unsafe { core::slice::from_raw_parts(one.as_ptr(), 100) }.iter().all(|&byte| byte == 0));
    // Behind the scope nothing is charged, and the hot path serves again.
    let outside = fill(|| {
        pool.try_alloc(layout(100)).and_then(|object| {
            if tenant.info().used == used {
                Ok(object)
            } else {
                Err(crate::AllocError::Exhausted { bytes: 0, align: 0 })
            }
        })
    });
    assert!(outside.len() > 10_000 && tenant.info().used == used);
    let local = pool.core().own().expect("a local heap");
    assert_eq!(local.budget.get(), 0);
    // Another thread frees; a panic ends the scope.
    let sent = [one, two, three].map(|object| object.as_ptr().expose_provenance());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let objects =
                sent.map(|address| NonNull::new(core::ptr::with_exposed_provenance_mut(address)).expect("an object"));
            free_all(&pool, objects);
        });
    });
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tenant.scope(|| panic!("on purpose"))));
    assert!(panicked.is_err());
    assert_eq!(pool.core().with_local(|local| local.budget.get()), 0);
    free_all(&pool, outside);
    collect(&pool);
    pool.verify().expect("a sound pool");
    assert_eq!((tenant.info().used, inner.info().used, pool.stats().live()), (0, 0, 0));
}

#[test]
fn alignments_and_sizes_of_scoped_allocations() {
    let pool = config().build().expect("a pool");
    let tenant = pool.budget("a", 0, 3 << 20).expect("a budget");
    let mut objects = Vec::new();
    for align in [1, 16, 64, 4096, 8192, 65536] {
        for size in [0, 1, 16, 17, 100, 4096, 8192, 8193, 60_000] {
            let asked = Layout::from_size_align(size, align).expect("a layout");
            let object = tenant.try_alloc(asked).expect("memory");
            // SAFETY: live.
            let room = unsafe { pool.usable_size(object) };
            assert!(object.addr().get().is_multiple_of(align) && room >= size, "{size} {align}");
            // SAFETY: so many bytes, ours.
            unsafe { object.as_ptr().write_bytes(0xAB, size) };
            objects.push(object);
        }
    }
    objects.sort_unstable();
    objects.dedup();
    assert_eq!(objects.len(), 54);
    pool.verify().expect("a sound pool");
    // What the charges come to when they are counted anew, as in the child of a fork.
    let used = tenant.info().used;
    pool.core().recharge();
    assert_eq!(tenant.info().used, used);
    free_all(&pool, objects);
    collect(&pool);
    assert_eq!(tenant.info().used, 0);
}

#[test]
fn over_budget_is_a_verdict_and_its_advice_helps() {
    let os = Fake::new();
    let pool = Pool::on(os, &config().verdict_interval(1).reserve(64 << 10)).expect("a pool");
    let tenant = pool.budget("tenant", 0, 256 << 10).expect("a budget");
    let cache = tenant.raw_cache("orders", layout(100)).expect("a cache");
    let count = fill(|| cache.try_alloc()).len();
    assert!(cache.alloc().is_err());
    assert!(pool.critical(|| cache.try_alloc()).is_err(), "a critical request is charged as well");
    let text = String::from_utf8(os.stderr()).expect("text");
    for part in [
        "mempool: exhausted: 100 bytes asked (alignment 1 byte), pool \"mempool\"\n  verdict    over budget: \"tenant\" has slabs of ",
        " and may have 256 KiB\n",
        "cache \"orders\": ",
        "\n  set        budget \"tenant\" to at least ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let value = text.trim_end().rsplit(' ').next().expect("a figure");
    let more = crate::bytes::parse_bytes(value).expect("bytes");
    let second = pool.budget("second", 0, more).expect("a budget");
    let larger = second.raw_cache("orders", layout(100)).expect("a cache");
    assert!(fill(|| larger.try_alloc()).len() > count);
}

#[test]
fn a_budget_that_is_refused_leaves_nothing_behind() {
    let pool = config().reserve(1 << 20).max_caches(1).build().expect("a pool");
    let only = pool.raw_cache("only", layout(1)).expect("a cache");
    for _ in 0..5 {
        assert_eq!(pool.budget("a", 1 << 18, 1 << 20).err(), Some(BudgetError::TooManyCaches(1)));
    }
    drop(only);
    for least in [2 << 20, usize::MAX / 2, usize::MAX - 65535, usize::MAX] {
        let error = pool.budget("a", least, usize::MAX).map(|_| ()).expect_err("refused");
        assert!(matches!(error, BudgetError::Reserve(need, left) if need >= least && left == 1 << 20), "{error}");
    }
    assert!(pool.raw_cache("only", layout(1)).is_ok());
    let tenant = pool.budget("a", 1 << 20, 1 << 20).expect("all of the reserve");
    assert_eq!(tenant.info().least, 1 << 20);
}

#[test]
fn errors_have_figures() {
    let pool = config().build().expect("a pool");
    for (name, least, most, words) in [
        ("a name that is longer than any can be", 0, 1, "37 bytes, more than 31"),
        ("a", 2 << 20, 1 << 20, "2 MiB set aside, more than the 1 MiB"),
        ("a", 1, 1 << 20, "4 KiB are to be set aside for the budget, but of the reserve 0 bytes is left"),
    ] {
        let error = pool.budget(name, least, most).map(|_| ()).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }
    let all: Vec<Budget<'_>> = (0..16).map(|_| pool.budget("one", 0, 1 << 20).expect("a budget")).collect();
    assert_eq!(pool.budget("one", 0, 0).err(), Some(BudgetError::TooMany));
    assert_eq!(all.len(), 16);
    let pool = config().max_caches(1).build().expect("a pool");
    assert!(pool.raw_cache("only", layout(1)).is_ok_and(|cache| pool.budget("a", 0, 1).is_err_and(|error| {
        drop(cache);
        error == BudgetError::TooManyCaches(1)
    })));
    // Without room for more caches every scoped allocation gets a slab of its own.
    let tenant = pool.budget("a", 0, 1 << 20).expect("a budget");
    let objects = fill(|| tenant.try_alloc(layout(10)));
    assert!(objects.len() > 100);
    free_all(&pool, objects);
    let shared = config().max_threads(1).build().expect("a pool");
    let tenant = shared.budget("a", 0, 1 << 20).expect("a budget");
    assert!(tenant.scope(|| ()).is_ok());
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(tenant.scope(|| ()), Err(BudgetError::NoLocalHeap)));
    });
}

#[test]
fn a_new_thread_has_a_budgets_minimum_in_a_full_pool() {
    let pool = config().reserve(1 << 20).build().expect("a pool");
    let (sure, other) = (pool.budget("sure", 512 << 10, 1 << 20), pool.budget("other", 0, 1 << 20));
    let (sure, other) = (sure.expect("a budget"), other.expect("a budget"));
    let mut rest = fill(|| pool.try_alloc(layout(10_000)));
    rest.extend(fill(|| pool.try_alloc(layout(10))));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(other.scope(|| ()), Err(BudgetError::NoLocalHeap), "nothing is set aside for it");
            let objects = sure.scope(|| fill(|| pool.try_alloc(layout(1000)))).expect("what is set aside will do");
            assert!(objects.len() > 300, "{}", objects.len());
            free_all(&pool, objects);
        });
    });
    wait_for_ends(&pool);
    pool.verify().expect("a sound pool");
    free_all(&pool, rest);
    collect(&pool);
    assert_eq!(pool.stats().live(), 0);
    pool.verify().expect("a sound pool");
}

#[test]
fn threads_share_a_cap() {
    let pool = config().build().expect("a pool");
    let tenant = pool.budget("a", 0, 1 << 20).expect("a budget");
    std::thread::scope(|scope| {
        for k in 0..4usize {
            let (pool, tenant) = (&pool, &tenant);
            scope.spawn(move || {
                for round in 0..30 {
                    let objects = tenant
                        .scope(|| fill(|| pool.try_alloc(layout(50 + (k * 100 + round * 37) % 3000))))
                        .expect("a local heap");
                    assert!(tenant.info().used <= 1 << 20);
                    free_all(pool, objects);
                }
            });
        }
    });
    collect(&pool);
    assert_eq!((tenant.info().used, pool.stats().live()), (0, 0));
    pool.verify().expect("a sound pool");
}

/// Slabs that go back to the reserve are nobody's spare: whoever fills the pool afterwards leaves the reserve whole.
#[test]
fn what_a_budget_gave_back_stays_in_the_reserve() {
    let pool = config().segment(64 << 20).reserve(4 << 20).build().expect("a pool");
    let tenant = pool.budget("a", 2 << 20, 8 << 20).expect("a budget");
    let objects = tenant.scope(|| fill(|| pool.try_alloc(layout(1000)))).expect("a local heap");
    assert!(pool.stats().reserve_free < 4 << 20);
    let held = pool.stats().reserve_free;
    free_all(&pool, objects);
    // A slab or two that are empty stay with the thread.
    let back = pool.stats().reserve_free;
    assert!(back > held && back + (256 << 10) >= 4 << 20, "{held} {back}");
    let others = fill(|| pool.try_alloc(layout(1000)));
    assert!(pool.stats().reserve_free >= back);
    free_all(&pool, others);
}
