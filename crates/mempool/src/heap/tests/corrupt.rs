//! A program that writes into memory it has freed: reported, never followed, and the heap stays usable.

use super::{Dice, World};
use crate::heap::{HeapError, HeapFault};
use std::vec::Vec;

/// A page whose tree has many nodes; live objects and holes.
fn holes(world: &World) -> (Vec<usize>, Vec<usize>) {
    let all: Vec<usize> = (0..60).map(|i| world.alloc(16 + 16 * (i % 4)).unwrap()).collect();
    let free: Vec<usize> = all.iter().copied().skip(1).step_by(2).collect();
    free.iter().for_each(|&address| world.free(address));
    (all.into_iter().step_by(2).collect(), free)
}

#[test]
fn every_byte_of_every_node_is_watched() {
    let world = World::new(1, 12, 1 << 40);
    let (live, free) = holes(&world);
    for &address in &free {
        for byte in 0..16 {
            world.bytes(address, 16)[byte] ^= 0x41;
            assert_eq!(world.heap.verify(), Err(HeapFault::Tree { page: 0 }), "byte {byte} of {address:x}");
            world.heap.defragment(&world.supply);
            assert_eq!(world.heap.verify(), Ok(()));
        }
    }
    live.iter().for_each(|&address| world.free(address));
}

#[test]
fn random_damage_is_reported_and_healed() {
    for seed in 0..2000 {
        let (world, mut dice) = (World::new(2, 12, 1 << 40), Dice(seed));
        let (mut live, free) = holes(&world);
        for &address in &free {
            if dice.roll(4) == 0 {
                let value = [0, 0xff, dice.roll(256) as u8][dice.roll(3)];
                world.bytes(address, 16)[dice.roll(16)..].fill(value);
            }
        }
        let mut reports = 0;
        for _ in 0..40 {
            if dice.roll(2) == 0 {
                match world.heap.alloc(&world.supply, 1 + dice.roll(100)) {
                    Ok(address) => live.extend(address.map(|p| p.as_ptr().addr())),
                    Err(HeapError::Corrupted { .. }) => reports += 1,
                    Err(other) => panic!("{other:?}"),
                }
            } else if !live.is_empty() {
                let address = live.swap_remove(dice.roll(live.len()));
                match world.heap.free(&world.supply, address) {
                    Ok(()) => {}
                    Err(HeapError::Corrupted { .. }) => reports += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
        assert!(reports <= 2, "each page is healed once: {reports}");
        world.heap.defragment(&world.supply);
        assert_eq!(world.heap.verify(), Ok(()));
        let (mut listed, mut expected) = (world.live(), live);
        listed.sort_unstable();
        expected.sort_unstable();
        assert!(listed.iter().map(|l| l.0).eq(expected));
    }
}

/// Old nodes written back have right check words: the bits refuse them.
#[test]
fn nodes_from_the_past_hand_nothing_out_twice() {
    for seed in 0..500 {
        let (world, mut dice) = (World::new(1, 12, 1 << 40), Dice(seed));
        let (mut live, free) = holes(&world);
        let past: Vec<(usize, [u8; 16])> = free.iter().map(|&a| (a, world.bytes(a, 16).try_into().unwrap())).collect();
        for _ in 0..20 {
            if let Ok(Some(p)) = world.heap.alloc(&world.supply, 16 + dice.roll(60)) {
                live.push(p.as_ptr().addr());
            }
        }
        for (address, node) in &past {
            world.bytes(*address, 16).copy_from_slice(node);
        }
        for _ in 0..40 {
            if let Ok(Some(p)) = world.heap.alloc(&world.supply, 16 + dice.roll(60)) {
                assert!(!live.contains(&p.as_ptr().addr()), "handed out twice");
                live.push(p.as_ptr().addr());
            }
        }
        let listed = world.live();
        assert!(listed.len() == live.len() && listed.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
    }
}
