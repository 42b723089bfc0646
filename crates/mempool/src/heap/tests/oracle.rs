//! The heap against a list of what is live, with pattern-filled memory.

use super::{Dice, World};
use crate::heap::HeapError;
use std::vec::Vec;

struct Live {
    address: usize,
    size: usize,
    pattern: u8,
}

fn fill(world: &World, live: &Live) {
    world.bytes(live.address, live.size).fill(live.pattern);
}

fn check(world: &World, live: &Live) {
    assert!(world.bytes(live.address, live.size).iter().all(|&b| b == live.pattern), "payload changed");
    let size = world.heap.size_of(live.address).unwrap();
    assert!(size >= live.size && size.is_multiple_of(16));
}

/// Everything that is live, no more and no less, disjoint.
fn compare(world: &World, live: &[Live]) {
    assert_eq!(world.heap.verify(), Ok(()));
    let mut expected: Vec<usize> = live.iter().map(|l| l.address).collect();
    expected.sort_unstable();
    let listed = world.live();
    assert!(listed.iter().map(|&(address, _)| address).eq(expected), "live objects");
    assert!(listed.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "objects overlap");
    live.iter().for_each(|l| check(world, l));
}

/// One random life of a heap; every kind of operation, right and wrong.
fn life(seed: u64, shift: u32, slots: usize, lifetime: u64, steps: usize, largest: usize) {
    let (world, mut dice, mut live) = (World::new(slots, shift, lifetime), Dice(seed), Vec::<Live>::new());
    for step in 0..steps {
        match dice.roll(20) {
            0..8 => {
                let size = 1 + dice.roll(largest);
                match world.alloc(size) {
                    Some(address) => {
                        assert_eq!(address % 16, 0);
                        live.push(Live { address, size, pattern: step as u8 });
                        fill(&world, &live[live.len() - 1]);
                    }
                    None => no_room(&world, size),
                }
            }
            8..15 if !live.is_empty() => {
                let gone = live.swap_remove(dice.roll(live.len()));
                check(&world, &gone);
                world.free(gone.address);
                let again = world.heap.free(&world.supply, gone.address);
                assert!(matches!(again, Err(HeapError::Free | HeapError::NotHere)), "{again:?}");
            }
            15 if !live.is_empty() => grow(&world, &mut dice, &mut live),
            16 if !live.is_empty() => wrong(&world, &mut dice, &live),
            17 => world.heap.defragment(&world.supply),
            18 => {
                world.heap.return_empty(&world.supply);
            }
            19 => world.heap.repair(&world.supply),
            _ => {}
        }
        compare(&world, &live);
    }
    live.iter().for_each(|l| world.free(l.address));
    world.heap.return_empty(&world.supply);
    assert_eq!((world.pages(), world.supply.left()), (0, slots));
}

/// "Exhausted" is only said when it is true.
fn no_room(world: &World, size: usize) {
    assert_eq!(world.supply.left(), 0);
    world.heap.for_each_page(&mut |page| assert!(page.largest_free < size, "{page:?} has room for {size}"));
}

fn grow(world: &World, dice: &mut Dice, live: &mut [Live]) {
    let which = dice.roll(live.len());
    let l = &mut live[which];
    let (before, size) = (world.heap.size_of(l.address).unwrap(), l.size + dice.roll(100));
    let grown = world.heap.grow_in_place(l.address, size).unwrap();
    let after = world.heap.size_of(l.address).unwrap();
    assert!(grown == (after >= size) && after == if grown { before.max(size.next_multiple_of(16)) } else { before });
    check(world, l);
    if grown {
        l.size = size;
        fill(world, l);
    }
}

fn wrong(world: &World, dice: &mut Dice, live: &[Live]) {
    let l = &live[dice.roll(live.len())];
    let inside = l.address + 1 + dice.roll(world.heap.size_of(l.address).unwrap() - 1);
    let error = Err(HeapError::Interior { start: l.address });
    assert_eq!(world.heap.free(&world.supply, inside), error);
    assert_eq!(world.heap.size_of(inside).err(), error.err());
    assert_eq!(world.heap.grow_in_place(inside, 8).err(), error.err());
    for wild in [0, 16, usize::MAX & !15, world.data.addr() - 16, world.data.addr() + world.layout.size()] {
        assert_eq!(world.heap.free(&world.supply, wild), Err(HeapError::NotHere));
        assert_eq!(world.heap.size_of(wild), Err(HeapError::NotHere));
    }
    let mut frees = Vec::new();
    world.heap.for_each_page(&mut |page| {
        let mut at = page.address;
        world.heap.for_each_live(&mut |address, size| {
            if (page.address..page.address + page.bytes).contains(&address) {
                frees.extend((at..address).step_by(16));
                at = address + size;
            }
        });
        frees.extend((at..page.address + page.bytes).step_by(16));
    });
    for address in frees {
        assert_eq!(world.heap.free(&world.supply, address), Err(HeapError::Free));
    }
}

#[test]
fn random_lives_in_small_pages() {
    for seed in 0..60 {
        life(seed, 12, 3, [0, 16, 1000][seed as usize % 3], 400, [40, 256, 3200][seed as usize / 3 % 3]);
    }
}

#[test]
fn random_lives_in_large_pages() {
    for (seed, shift) in [(1, 13), (2, 14), (3, 15), (4, 16), (5, 16)] {
        life(seed, shift, 2, 64, 300, 3200);
    }
}

#[test]
fn many_pages() {
    let world = World::new(300, 12, 0);
    let all: Vec<usize> = core::iter::from_fn(|| world.alloc(64)).collect();
    assert_eq!((all.len(), world.pages()), (300 * 64, 300));
    assert_eq!(world.heap.verify(), Ok(()));
    // One hole in each page; the next objects fill them, whatever the cursor says.
    all.iter().step_by(64).for_each(|&address| world.free(address));
    assert_eq!(core::iter::from_fn(|| world.alloc(64)).count(), 300);
    all.iter().for_each(|&address| world.free(address));
    assert_eq!((world.pages(), world.supply.left(), world.heap.verify()), (0, 300, Ok(())));
}

#[test]
fn best_fit_splits_the_tightest_hole() {
    let world = World::new(1, 12, 1000);
    let sizes = [96, 16, 48, 16, 64, 16, 48, 16];
    let at: Vec<usize> = sizes.iter().map(|&size| world.alloc(size).unwrap()).collect();
    [0, 2, 4, 6].iter().for_each(|&i| world.free(at[i]));
    assert_eq!(world.alloc(40), Some(at[6]), "of two holes of 48 the one freed last");
    assert_eq!(world.alloc(33), Some(at[2]));
    assert_eq!(world.alloc(33), Some(at[4]), "64 is split");
    assert_eq!(world.alloc(1), Some(at[4] + 48), "its remainder");
    assert_eq!(world.alloc(96), Some(at[0]));
    assert_eq!(world.heap.verify(), Ok(()));
}

#[test]
fn a_young_page_stays_and_an_old_one_goes() {
    let world = World::new(2, 12, 64);
    for round in 0..100 {
        let address = world.alloc(100).unwrap();
        world.free(address);
        if round < 31 {
            assert_eq!(world.pages(), 1, "round {round}: just made");
        }
    }
    assert!(world.supply.taken.load(std::sync::atomic::Ordering::Relaxed) <= 4);
    let address = world.alloc(100).unwrap();
    for _ in 0..100 {
        world.free(world.alloc(50).unwrap());
    }
    world.free(address);
    assert_eq!((world.pages(), world.supply.left()), (0, 2));
}

#[test]
fn limits() {
    let world = World::new(1, 12, 0);
    assert_eq!(world.heap.alloc(&world.supply, 3201), Err(HeapError::TooLarge));
    let address = world.alloc(0).unwrap();
    assert_eq!(world.heap.size_of(address), Ok(16));
    assert_eq!(world.heap.grow_in_place(address, 4096), Ok(true));
    assert_eq!(world.heap.grow_in_place(address, 4097), Ok(false));
    assert_eq!(world.alloc(1), None);
    world.free(address);
    assert_eq!(world.alloc(3200).map(|a| world.heap.size_of(a)), Some(Ok(3200)));
}
