//! Models of arrays: joined items across words, slabs that one array fills, length checks beside a take.

use super::loom_owner::{SLOT, explore, spawn};
use super::world::{Heap, World, shape};
use crate::segment::slot::{SlotGeometry, State};
use crate::slab::{Runs, Shape, Slab};
use std::sync::Arc;
use std::vec::Vec;

/// Four words each way, two of them for items: 66 items of 32 bytes.
fn wide(slots: usize) -> (Arc<World>, Heap, Heap) {
    let world = World::new(SlotGeometry::new(12), slots, 2, 5);
    world.tier.define(0, &Shape { plain: false, ..shape(0, 66, 32) });
    world.tier.define(1, &shape(1, 1, SLOT));
    let world = Arc::new(world);
    let (a, b) = (world.heap(2), world.heap(3));
    (world, a, b)
}

/// An array across two words is freed while the owner looks for room.
#[test]
fn loom_an_array_across_words_is_freed_against_the_owner() {
    explore(None, || {
        let (world, a, b) = wide(1);
        let front = a.pop_array(0, 63).expect("room");
        let across = a.pop_array(0, 3).expect("room");
        let other = spawn(b, move |b| b.push_array(across, 3));
        let mine = a.pop_array(0, 2);
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().for_each(|item| b.push_array(item, 2));
        b.push_array(front, 63);
        world.finish(&[&a, &b]);
    });
}

/// Both free halves of a full slab of nobody.
#[test]
fn loom_two_arrays_of_a_slab_of_nobody() {
    explore(None, || {
        let (world, a, b) = wide(1);
        let front = a.pop_array(0, 63).expect("room");
        let across = a.pop_array(0, 3).expect("room");
        let other = spawn(b, move |b| b.push_array(across, 3));
        a.push_array(front, 63);
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        world.finish(&[&a, &b]);
    });
}

/// Item 63 was the first of an array and is free; item 64 is an array of its own. Its length must read 1 while the
/// owner takes item 63, whose joined bit is stale.
#[test]
fn loom_the_length_of_an_array_beside_a_take() {
    explore(None, || {
        let (world, a, b) = wide(1);
        let slot = world.runs.take(9, 1).expect("room");
        let slab = world.tier.slab(slot);
        slab.carve(world.tier.shape(0).expect("defined"), State::Held, 2);
        assert_eq!(slab.claim_region(0, 63), Some(0));
        assert_eq!(slab.claim_region(0, 2), Some(63));
        // A remote free across two words, of which the owner's take sees the second word only.
        slab.remote_free(64, 1).expect("live");
        assert_eq!(slab.take(), Ok(true));
        assert_eq!(slab.claim_region(0, 1), Some(64));
        slab.remote_free(63, 1).expect("live");
        let shared = world.clone();
        let other = loom::thread::spawn(move || {
            let slab: Slab<'_> = shared.tier.slab(slot);
            slab.region_at(64)
        });
        slab.take().expect("no double free");
        assert_eq!(other.join().expect("joined"), Some(1), "a live array looked like the inside of another");
        drop((a, b));
    });
}

/// An array in a slab of its own, freed while a thief goes round, and the slot used again.
#[test]
fn loom_a_whole_array_against_a_thief() {
    explore(Some(2), || {
        let (world, a, b) = wide(1);
        let x = a.pop_array(0, 100).expect("room");
        let thief = spawn(b, |b| {
            b.steal();
            let got: Vec<usize> = [b.pop(1), b.pop(1)].into_iter().flatten().collect();
            got.into_iter().for_each(|item| b.push(item));
        });
        a.push_array(x, 100);
        let (b, ()) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        world.finish(&[&a, &b]);
    });
}

/// Two threads free one whole array: one of them is told.
#[test]
fn loom_a_whole_array_is_adopted_by_one() {
    explore(None, || {
        let (world, a, b) = wide(2);
        let x = a.pop_array(0, 100).expect("room");
        let y = a.pop_array(0, 110).expect("room");
        let other = spawn(b, move |b| {
            b.push_array(y, 110);
            b.pop_array(0, 120)
        });
        a.push_array(x, 100);
        let mine = a.pop_array(0, 128);
        let (b, theirs) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().for_each(|item| b.push_array(item, 128));
        theirs.into_iter().for_each(|item| a.push_array(item, 120));
        world.finish(&[&a, &b]);
    });
}

/// Born full and nobody's where an empty slab was just now, as far as the thief knows.
#[test]
fn loom_a_whole_array_is_cut_beside_a_thief() {
    explore(None, || {
        let (world, a, b) = wide(1);
        let item = a.pop(1).expect("room");
        a.push(item);
        assert_eq!(a.pop(1), Some(item));
        assert_eq!(a.pop(1), None);
        a.push(item);
        assert_eq!(a.steal(), 1);
        let thief = spawn(b, |b| b.steal());
        let x = a.pop_array(0, 100).expect("room");
        let (b, stolen) = thief.join().expect("joined");
        assert_eq!(stolen, 0, "it is in use");
        world.verify(&[&a, &b]);
        b.push_array(x, 100);
        world.finish(&[&a, &b]);
    });
}

/// An array of a word is freed by the short way of its owner, the last use of the slab before it is stolen.
#[test]
fn loom_stealing_against_an_own_free_of_an_array() {
    explore(Some(4), || {
        let (world, a, b) = wide(1);
        let front = a.pop_array(0, 64).expect("room");
        let last = a.pop_array(0, 2).expect("room");
        assert_eq!(a.pop_array(0, 2), None);
        a.push_array(last, 2);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(1)
        });
        a.push_own_array(front, 64);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}
