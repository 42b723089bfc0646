//! All of a bounded pool is usable, by objects of any size, however it was used before. `mempool-bench --example usable`
//! prints the shares.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;

use mempool::config::{Commit, Exhausted, Lock, Wish};
use mempool::{Config, Pool};
use mempool_testing::Rng;

const SEGMENT: usize = 256 << 20;
const SIZES: [usize; 4] = [64, 4096, 100_000, 1 << 20];

fn pool() -> Pool {
    let config = Config::new().segment(SEGMENT).exhausted(Exhausted::Null).max_retries(0).commit(Commit::Lazy);
    config.lock(Lock::Off).huge_pages(Wish::Off).build().expect("a pool")
}

fn fill(pool: &Pool, size: usize) -> Vec<NonNull<u8>> {
    let layout = Layout::from_size_align(size, 1).expect("a size");
    std::iter::from_fn(|| pool.try_alloc(layout).ok()).collect()
}

fn free(pool: &Pool, objects: Vec<NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    objects.into_iter().for_each(|object| unsafe { pool.free(object) });
}

fn shuffle(objects: &mut [NonNull<u8>], random: &mut Rng) {
    (1..objects.len()).for_each(|last| objects.swap(last, random.below(last + 1)));
}

/// Fills the pool with objects of `size`: 98% of the whole segment, and nearly all its data, are theirs. How many.
fn filled(pool: &Pool, size: usize) -> Vec<NonNull<u8>> {
    let objects = fill(pool, size);
    let (bytes, open) = (objects.len() * size, pool.stats().open);
    // What an object is rounded up to, the last one that doesn't fit, the slot with the thread's local heap, the last slot, which
    // is cut short.
    let rounded = size.next_multiple_of(if size > 16 << 10 { 256 } else { 16 });
    let least = (open - rounded - (128 << 10)) / rounded * size;
    assert!(bytes >= least, "{size}: {bytes} of {open} bytes");
    assert!(bytes * 100 >= SEGMENT * 98, "{size}: {bytes} of the whole segment");
    objects
}

#[test]
fn every_second_object_can_be_replaced_and_all_of_them() {
    for size in SIZES {
        let pool = pool();
        let mut objects = filled(&pool, size);
        let count = objects.len();
        objects.sort_unstable();
        let (odd, even): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        free(&pool, odd.into_iter().map(|(_, object)| object).collect());
        let mut objects: Vec<_> = even.into_iter().map(|(_, object)| object).collect();
        objects.append(&mut fill(&pool, size));
        assert_eq!(objects.len(), count, "{size}: every second one");
        free(&pool, objects);
        assert_eq!(pool.stats().live(), 0);
        let again = filled(&pool, size);
        assert_eq!(again.len(), count, "{size}: all of them");
        free(&pool, again);
        pool.verify().expect("a sound pool");
    }
}

/// Slabs that emptied in any order lie about; large objects are not laid around what is kept of them.
#[test]
fn large_objects_have_as_much_where_small_ones_were_freed_at_random() {
    for size in [100_000, 256 << 10, 1 << 20] {
        let pool = pool();
        let many = fill(&self::pool(), size).len();
        for seed in 1..3 {
            let mut small = fill(&pool, 64);
            let mut random = Rng::new(seed);
            shuffle(&mut small, &mut random);
            free(&pool, small);
            let objects = fill(&pool, size);
            assert!(objects.len() + 1 >= many, "{size}: {} of {many}", objects.len());
            free(&pool, objects);
        }
    }
}

#[test]
fn another_size_has_as_much_as_in_a_new_pool() {
    let pool = pool();
    let first = |size| fill(&self::pool(), size).len();
    let alone = (first(64), first(256 << 10));
    for _ in 0..3 {
        for (size, many) in [(64, alone.0), (256 << 10, alone.1)] {
            let objects = fill(&pool, size);
            assert_eq!(objects.len(), many, "{size}");
            free(&pool, objects);
        }
    }
    pool.verify().expect("a sound pool");
}

/// Whatever was there before and in whichever order it was freed. What a thread keeps of small objects, a slab or two, may be in the way of
/// large ones, of which there are one or two fewer then.
#[test]
fn each_size_has_as_much_after_any_other() {
    const SIZES: [usize; 9] = [64, 1000, 4096, 12_000, 17_000, 50_000, 100_000, 256 << 10, 1 << 20];
    let first = SIZES.map(|size| fill(&pool(), size).len());
    for seed in 1..4 {
        let (pool, mut random) = (pool(), Rng::new(seed));
        let mut kept = 0;
        for _ in 0..30 {
            let k = random.below(SIZES.len());
            let mut objects = fill(&pool, SIZES[k]);
            assert!(objects.len() + kept >= first[k], "{}: {} of {}", SIZES[k], objects.len(), first[k]);
            kept = 2;
            match random.below(3) {
                0 => {}
                1 => objects.reverse(),
                _ => shuffle(&mut objects, &mut random),
            }
            free(&pool, objects);
        }
        pool.verify().expect("a sound pool");
    }
}

/// Large objects that are freed in order, as often as you like.
#[test]
fn large_objects_of_one_size_always_find_the_same_room() {
    for size in [17_000, 50_000, 100_000, 256 << 10, 3 << 20] {
        let pool = pool();
        let many = fill(&self::pool(), size).len();
        for round in 0..12 {
            let mut objects = fill(&pool, size);
            assert_eq!(objects.len(), many, "{size} in round {round}");
            if round % 2 == 1 {
                objects.reverse();
            }
            free(&pool, objects);
        }
    }
}

/// Of 256 MiB 200 are live, of objects between 32 KiB and a MB, each of which is replaced by one of another size some 500 times: there is room for each.
#[test]
fn a_pool_that_is_nearly_full_is_not_cut_to_pieces() {
    let (pool, mut random) = (pool(), Rng::new(1));
    let layout = |random: &mut Rng| {
        Layout::from_size_align((32 << 10) + random.below(1_000_000 - (32 << 10)), 1).expect("a size")
    };
    let (mut objects, mut bytes) = (Vec::new(), 0);
    while bytes < 190 << 20 {
        let layout = layout(&mut random);
        objects.push((pool.try_alloc(layout).expect("room"), layout.size()));
        bytes += layout.size();
    }
    let (mut refused, many) = (0, 500 * objects.len());
    for _ in 0..many {
        let k = random.below(objects.len());
        let (object, size) = objects[k];
        free(&pool, vec![object]);
        bytes -= size;
        let mut layout = layout(&mut random);
        while bytes + layout.size() > 200 << 20 {
            layout = Layout::from_size_align(layout.size() / 2, 1).expect("a size");
        }
        objects[k] = loop {
            match pool.try_alloc(layout) {
                Ok(object) => break (object, layout.size()),
                Err(_) => {
                    refused += 1;
                    layout = Layout::from_size_align(layout.size() / 2, 1).expect("a size");
                }
            }
        };
        bytes += objects[k].1;
    }
    assert!(refused * 1000 <= many, "{refused} of {many} refused");
    pool.verify().expect("a sound pool");
}

/// Slots are taken by slabs of one class each; a single object left in each keeps no others out but from its slab.
#[test]
fn gaps_between_large_objects_serve_small_requests() {
    let pool = pool();
    let large = fill(&pool, (1 << 20) - 4096);
    let tail = fill(&pool, 4096);
    assert!(pool.stats().free < 4096);
    free(&pool, tail);
    let free_bytes = pool.stats().free;
    // No slab fits any more; each request gets a run.
    let small = fill(&pool, 10);
    assert!(small.len() * 256 >= free_bytes - 4096 && pool.stats().free < 4096, "{} of {free_bytes}", small.len());
    // SAFETY: live.
    assert!(small.iter().all(|object| unsafe { pool.usable_size(*object) } >= 10));
    free(&pool, small);
    free(&pool, large);
    assert_eq!(pool.stats().live(), 0);
}
