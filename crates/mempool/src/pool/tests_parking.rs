//! Parked runs, as somebody sees it who allocates large objects: they come again, to other threads too, joined and cut, and take no memory
//! when they are hardly used.
#![allow(unsafe_code)]

use super::tests::layout;
use crate::config::{Commit, Config, Exhausted, Wish};
use crate::os::Range;
use crate::pool::Pool;
use std::ptr::NonNull;
use std::vec::Vec;

const MIB: usize = 1 << 20;

/// A pool that takes no memory before it is touched. Its stores may hold 64 MiB each.
fn pool() -> Pool {
    let config = Config::new().segment(4 << 30).commit(Commit::Lazy).lock(Wish::Off).exhausted(Exhausted::Null);
    config.huge_pages(Wish::Off).build().expect("a pool")
}

fn get(pool: &Pool, size: usize) -> NonNull<u8> {
    pool.alloc(layout(size)).expect("room")
}

fn put(pool: &Pool, object: NonNull<u8>) {
    // SAFETY: the tests free what they allocated, once.
    unsafe { pool.free(object) };
}

fn on_another_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(f).join().expect("no panic"))
}

#[test]
fn what_one_thread_frees_serves_another_from_a_mebibyte_on() {
    let pool = pool();
    for (size, common) in [(100_000, false), (MIB, true), (5 * MIB, true)] {
        let object = get(&pool, size);
        put(&pool, object);
        let served = pool.stats().runs_served;
        let at = object.as_ptr() as usize;
        let other = on_another_thread(|| {
            let object = get(&pool, size);
            let other = object.as_ptr() as usize;
            put(&pool, object);
            other
        });
        assert_eq!((other == at, pool.stats().runs_served == served), (common, common), "{size}");
    }
    pool.verify().expect("a sound pool");
}

#[test]
fn neighbours_are_joined_and_cut() {
    let pool = pool();
    for size in [100_000, MIB] {
        let objects: Vec<_> = (0..8).map(|_| get(&pool, size)).collect();
        let lowest = *objects.iter().min().expect("eight");
        let served = pool.stats().runs_served;
        // In an order in which each has neighbours before it and behind it.
        for i in [1, 3, 0, 2, 7, 5, 6, 4] {
            put(&pool, objects[i]);
        }
        let whole = get(&pool, 8 * size);
        assert_eq!((whole, pool.stats().runs_served), (lowest, served), "{size}");
        put(&pool, whole);
        let mut again: Vec<_> = (0..8).map(|_| get(&pool, size)).collect();
        again.sort_unstable();
        let mut objects = objects;
        objects.sort_unstable();
        assert_eq!((again.clone(), pool.stats().runs_served), (objects, served), "{size}");
        again.into_iter().for_each(|object| put(&pool, object));
        pool.trim();
        // The one before was looked at already when the one behind comes.
        let objects: Vec<_> = (0..2).map(|_| get(&pool, size)).collect();
        put(&pool, objects[0]);
        let long = get(&pool, 4 * size);
        put(&pool, objects[1]);
        let whole = get(&pool, 2 * size);
        assert_eq!(whole, objects[0], "{size}");
        put(&pool, long);
        put(&pool, whole);
        pool.verify().expect("a sound pool");
        pool.trim();
    }
}

/// While somebody has the common store, for ever if he vanishes, all goes on with the threads' own.
#[test]
fn nobody_depends_on_the_common_store() {
    let pool = pool();
    let found = pool.core().common.with(|_| {
        let object = get(&pool, 5 * MIB);
        put(&pool, object);
        let served = pool.stats().runs_served;
        put(&pool, get(&pool, 5 * MIB));
        on_another_thread(|| put(&pool, get(&pool, 5 * MIB)));
        pool.stats().runs_served - served
    });
    assert_eq!(found, Some(1), "the other thread's own");
    // What the thread kept meanwhile goes where others find it.
    let served = pool.stats().runs_served;
    put(&pool, get(&pool, 6 * MIB));
    on_another_thread(|| put(&pool, get(&pool, 5 * MIB)));
    assert_eq!(pool.stats().runs_served, served + 1);
    pool.verify().expect("a sound pool");
}

/// Runs of two threads that lie between each other stay apart: who has freed all of its own can use all of it.
#[test]
fn nobody_joins_the_runs_of_others() {
    let pool = pool();
    let size = 100_000;
    let take_turns = |turn: &std::sync::Barrier, mine: bool| {
        let mut objects = Vec::new();
        for round in 0..32 {
            turn.wait();
            if (round % 2 == 0) == mine {
                objects.push(get(&pool, size));
            }
        }
        turn.wait();
        objects.iter().for_each(|object| put(&pool, *object));
        turn.wait();
        // Of a length that only joined runs could have: the store is tidied.
        put(&pool, get(&pool, 3 * size));
        turn.wait();
        let served = pool.stats().runs_served;
        let again: Vec<_> = objects.iter().map(|_| get(&pool, size)).collect();
        turn.wait();
        let missing = pool.stats().runs_served - served;
        again.into_iter().for_each(|object| put(&pool, object));
        missing
    };
    let turn = std::sync::Barrier::new(2);
    let missing = std::thread::scope(|scope| {
        let other = scope.spawn(|| take_turns(&turn, false));
        take_turns(&turn, true) + other.join().expect("no panic")
    });
    assert_eq!(missing, 0);
}

/// Objects that are written to at their ends alone, of ever other lengths: without giving memory back all OS pages would be there in the end.
#[cfg(target_os = "linux")]
#[test]
fn large_objects_that_are_hardly_used_take_little_memory() {
    let pool = pool();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let core = pool.core();
    let (mut end, mut most) = (core.data, 0);
    let mut live: Vec<NonNull<u8>> = Vec::new();
    for round in 0..20_000 {
        let size = 2 * MIB + random(6 * MIB);
        let object = get(&pool, size);
        // SAFETY: so long.
        unsafe { (object.as_ptr().write(1), object.as_ptr().add(size - 1).write(1)) };
        live.push(object);
        if live.len() == 8 {
            let object = live.swap_remove(random(8));
            put(&pool, object);
        }
        end = end.max((object.as_ptr() as usize + size).next_multiple_of(4096));
        if round % 500 == 499 {
            // SAFETY: committed memory of the data area.
            let there = unsafe { core.os.present(Range::new(core.data as *mut u8, end - core.data)) };
            most = most.max(there.expect("the OS says"));
        }
    }
    live.into_iter().for_each(|object| put(&pool, object));
    assert!(most > 16 * 4096 && most < 8 * MIB, "{most} of {}", end - core.data);
}

/// A run serves no request that it is more than an eighth too long for: who frees with a size would be told that it is wrong. Whatever is
/// parked where, and however much a thread has out.
#[test]
fn nobody_gets_an_eighth_too_much() {
    let pool = pool();
    let room = |object: NonNull<u8>, size: usize| {
        // SAFETY: live, and the pool's.
        let room = unsafe { pool.usable_size(object) };
        let fragments = size.div_ceil(256);
        assert!(room <= (fragments + fragments / 8) * 256, "{size} bytes got {room}");
    };
    let start = get(&pool, 3 * MIB);
    put(&pool, start);
    on_another_thread(|| {
        for size in [2 << 20, 63_488, 29_856] {
            let object = get(&pool, size);
            room(object, size);
            if size > MIB {
                put(&pool, object);
            }
        }
    });
    for seed in 0..20_u64 {
        on_another_thread(|| {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as usize % below
            };
            let mut live: Vec<NonNull<u8>> = Vec::new();
            for _ in 0..500 {
                if live.len() < 2 || random(2) == 0 {
                    let size = 16_385 + if random(10) == 0 { random(3 * MIB) } else { random(120_000) };
                    let object = get(&pool, size);
                    room(object, size);
                    live.push(object);
                } else {
                    put(&pool, live.swap_remove(random(live.len())));
                }
            }
            live.into_iter().for_each(|object| put(&pool, object));
        });
    }
    pool.verify().expect("a sound pool");
}
