//! A thread vanishes before each of its changes; the repair makes the heap whole.

use super::super::hook::{Vanished, vanish_after};
use super::{Dice, World};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec::Vec;

/// Runs `f`, vanishing before change `changes`; whether it vanished.
fn vanishes(changes: u64, f: impl FnOnce()) -> bool {
    vanish_after(changes);
    let ended = catch_unwind(AssertUnwindSafe(f));
    vanish_after(u64::MAX);
    match ended {
        Ok(()) => false,
        Err(what) => {
            assert!(what.is::<Vanished>(), "a panic of another kind");
            true
        }
    }
}

/// A heap with holes, and what is live in it.
fn prepare(seed: u64, lifetime: u64) -> (World, Vec<usize>) {
    let (world, mut dice) = (World::new(3, 12, lifetime), Dice(seed));
    let mut live: Vec<usize> = Vec::new();
    for _ in 0..dice.roll(120) {
        if dice.roll(5) < 3 {
            live.extend(world.alloc([16, 40, 130, 800][dice.roll(4)]));
        } else if !live.is_empty() {
            world.free(live.swap_remove(dice.roll(live.len())));
        }
    }
    (world, live)
}

/// After the repair: sound, all of `live` there but for `maybe`, nothing more than `live` and one new object,
/// at most one slot lost, and the heap works.
fn whole(world: &World, live: &[usize], maybe: Option<usize>) {
    world.heap.repair(&world.supply);
    assert_eq!(world.heap.verify(), Ok(()));
    let there: BTreeSet<usize> = world.live().iter().map(|l| l.0).collect();
    assert!(live.iter().all(|l| there.contains(l) || Some(*l) == maybe), "an object was lost");
    assert!(there.len() <= live.len() + 1, "objects from nowhere");
    let used = world.pages() + world.supply.left();
    assert!(used == 3 || used == 2, "{used} slots known");
    for &address in &there {
        world.free(address);
    }
    world.heap.return_empty(&world.supply);
    assert_eq!((world.pages(), world.heap.verify()), (0, Ok(())));
    let all = core::iter::from_fn(|| world.alloc(1024)).count();
    assert_eq!(all, 4 * used);
}

fn each_step(seeds: u64, lifetime: u64, operation: &dyn Fn(&World, &[usize]) -> Option<usize>) {
    let mut most = 0;
    for seed in 0..seeds {
        for changes in 0.. {
            let (world, live) = prepare(seed, lifetime);
            let victim = core::cell::Cell::new(None);
            let vanished = vanishes(changes, || victim.set(operation(&world, &live)));
            // An operation that vanished has not told its victim: any object may be it.
            world.heap.repair(&world.supply);
            let there: BTreeSet<usize> = world.live().iter().map(|l| l.0).collect();
            let missing: Vec<usize> = live.iter().copied().filter(|l| !there.contains(l)).collect();
            assert!(missing.len() <= 1);
            let maybe = victim.get().or(missing.first().copied());
            whole(&world, &live, maybe);
            if !vanished {
                most = most.max(changes);
                break;
            }
        }
    }
    assert!(most >= 5, "only {most} changes: the hook does not work");
}

#[test]
fn alloc_at_every_step() {
    for size in [16, 100, 1000, 3000] {
        each_step(25, 0, &|world, _| {
            let _ = world.heap.alloc(&world.supply, size);
            None
        });
    }
}

#[test]
fn free_at_every_step() {
    for lifetime in [0, 1000] {
        for k in 0..3 {
            each_step(25, lifetime, &|world, live| {
                let address = *live.get(k * live.len() / 3)?;
                let _ = world.heap.free(&world.supply, address);
                Some(address)
            });
        }
    }
}

#[test]
fn grow_at_every_step() {
    each_step(40, 1000, &|world, live| {
        for &address in live {
            let _ = world.heap.grow_in_place(address, world.heap.size_of(address).ok()? + 40);
        }
        None
    });
}

#[test]
fn defragment_and_repair_at_every_step() {
    each_step(10, 0, &|world, _| {
        world.heap.defragment(&world.supply);
        None
    });
    each_step(3, 0, &|world, _| {
        world.heap.repair(&world.supply);
        None
    });
}

#[test]
fn return_empty_at_every_step() {
    for seed in 0..5 {
        for changes in 0.. {
            let (world, live) = prepare(seed, 1000);
            live.iter().for_each(|&address| world.free(address));
            let vanished = vanishes(changes, || {
                world.heap.return_empty(&world.supply);
            });
            whole(&world, &[], None);
            if !vanished {
                break;
            }
        }
    }
}

/// A free leaves its mark with the page's holder, who settles it; either vanishes.
#[test]
fn free_of_a_held_page_at_every_step() {
    for lifetime in [0, 1000] {
        each_step(25, lifetime, &|world, live| {
            let held = world.heap.hold(0)?;
            let address = live.iter().copied().find(|a| a - world.data.addr() < 4096);
            if let Some(address) = address {
                let _ = world.heap.free(&world.supply, address);
            }
            let _ = world.heap.release(&world.supply, held);
            address
        });
    }
}
