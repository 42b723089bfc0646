//! Models of tapping: an item that was freed remotely into the queue of a thread that does nothing is taken by a third
//! one, against everything that the owner, a thief and a freer may do at that moment.

use std::sync::Arc;
use std::vec::Vec;

use super::loom_owner::{SLOT, explore, explore_looks, geometry, pops, spawn, world, world_of};
use super::world::{DATA, Heap, World, shape};
use crate::segment::slot::State;
use crate::slab::CLASSES;

/// A slab of two items in the queue of `a`, one of them freed by `b`: the world, `a`, `b`, the freed item, the live one.
fn queued() -> (Arc<World>, Heap, Heap, usize, usize) {
    let world = world(1);
    let (a, b) = (world.heap(2), world.heap(3));
    let items = pops(&a, 0, 2);
    assert_eq!(a.pop(0), None);
    // Freed by the owner, and so in its queue; taken again only by a claim.
    a.push(items[0]);
    b.push(items[1]);
    let got = a.pop(0).expect("freed");
    let other = a.pop(0).expect("freed");
    assert_eq!(a.pop(0), None);
    a.push(got);
    assert_eq!(world.tier.slab(0).peek().state(), State::Queued);
    (world, a, b, got, other)
}

#[test]
fn loom_tapping_against_the_owner_who_claims() {
    explore(Some(3), || {
        let (world, a, b, own, live) = queued();
        b.push(live);
        // One item free by the owner, one remotely. The owner claims, and takes over what was freed remotely.
        let third = spawn(b, |b| b.pop_anywhere(0));
        let mine: Vec<usize> = [a.pop(0), a.pop(0)].into_iter().flatten().collect();
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(theirs.is_none_or(|item| item == live && !mine.contains(&item)), "handed out twice");
        // Nothing is lost: the owner gets at all that is left.
        let rest: Vec<usize> = std::iter::from_fn(|| a.pop(0)).take(3).collect();
        let mut all: Vec<usize> = mine.into_iter().chain(rest).chain(theirs).collect();
        all.sort_unstable();
        assert_eq!(all, [own.min(live), own.max(live)]);
        all.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_tapping_against_an_own_free() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        assert_eq!(a.pop(0), None);
        a.push(items[0]);
        let (own, remote) = (a.pop(0).expect("freed"), items[1]);
        assert_eq!(a.pop(0), None);
        // Queued by the free of one; the other is freed by its owner while somebody taps what a third one frees.
        a.push(own);
        let third = spawn(b, move |b| {
            b.push(remote);
            b.pop_anywhere(0)
        });
        let again = a.pop(0);
        again.into_iter().for_each(|item| a.push(item));
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_tapping_against_the_exit_of_the_owner() {
    explore(None, || {
        let (world, a, b, _, live) = queued();
        b.push(live);
        let third = spawn(b, |b| b.pop_anywhere(0));
        a.leave();
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        let second = if theirs.is_some() { b.pop(0).or_else(|| b.pop_anywhere(0)) } else { None };
        assert!(theirs.is_none() || second.is_some_and(|item| Some(item) != theirs), "the other item is lost");
        theirs.into_iter().chain(second).for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_tapping_against_the_heir_of_the_owner() {
    explore(None, || {
        let (world, a, b, own, live) = queued();
        let c = world.heap(4);
        b.push(live);
        let third = spawn(b, |b| b.pop_anywhere(0));
        // Adopts what the owner leaves, and takes over what was freed remotely.
        let heir = spawn(c, |c| [c.pop(0), c.pop(0)].into_iter().flatten().collect::<Vec<usize>>());
        a.leave();
        let (b, theirs) = third.join().expect("joined");
        let (c, got) = heir.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(theirs.is_none_or(|item| !got.contains(&item)), "handed out twice");
        assert!(got.iter().chain(&theirs).all(|&item| item == own || item == live));
        theirs.into_iter().chain(got).for_each(|item| b.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_tapping_against_a_thief() {
    explore(Some(2), || {
        let (world, a, b, _, live) = queued();
        let c = world.heap(4);
        b.push(live);
        // Empty by now, and so the thief's, unless somebody took an item first.
        let third = spawn(b, |b| b.pop_anywhere(0));
        let thief = spawn(c, |c| {
            c.steal();
            c.pop(1)
        });
        let (b, theirs) = third.join().expect("joined");
        let (c, cut) = thief.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(theirs.is_none() || cut.is_none(), "an item lives in a slab that was given back");
        theirs.into_iter().chain(cut).for_each(|item| b.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_of_two_who_tap_one_gets_the_item() {
    explore(None, || {
        let (world, a, b, own, live) = queued();
        let c = world.heap(4);
        // Only `own` is free remotely: the owner took it, somebody else freed it.
        let got = a.pop(0).expect("freed");
        assert_eq!((got, a.pop(0)), (own, None));
        a.push(live);
        b.push(own);
        let third = spawn(b, |b| b.pop_anywhere(0));
        let fourth = spawn(c, |c| c.pop_anywhere(0));
        let (b, one) = third.join().expect("joined");
        let (c, two) = fourth.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(one.is_none() || one != two, "handed out twice");
        assert!(one.is_some() || two.is_some(), "one item is free remotely, and nobody gets it");
        one.into_iter().chain(two).for_each(|item| a.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_tapping_against_remote_frees() {
    explore(None, || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let items = pops(&a, 0, 2);
        assert_eq!(a.pop(0), None);
        a.push(items[0]);
        let last = items[1];
        // The slab is queued by `a`, who does nothing any more.
        let freer = spawn(c, move |c| c.push(last));
        let third = spawn(b, |b| b.pop_anywhere(0));
        let (c, ()) = freer.join().expect("joined");
        let (b, got) = third.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(got.is_none_or(|item| item == last));
        let got = got.or_else(|| b.pop_anywhere(0));
        assert_eq!(got, Some(last), "the freed item is lost to all but its sleeping owner");
        b.push(last);
        world.finish(&[&a, &b, &c]);
    });
}

/// The owner frees another item itself before it leaves; its heir relies on seeing that.
#[test]
fn loom_tapping_against_an_own_free_and_the_exit() {
    explore(Some(2), || {
        let world = world_of(3);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let items = pops(&a, 0, 6);
        assert_eq!(a.pop(0), None);
        a.push(items[0]);
        b.push(items[1]);
        let third = spawn(b, |b| b.pop_anywhere(0));
        let heir = spawn(c, |c| [c.pop(0), c.pop(0), c.pop(0)].into_iter().flatten().collect::<Vec<usize>>());
        a.push(items[2]);
        a.leave();
        let (b, theirs) = third.join().expect("joined");
        let (c, got) = heir.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        theirs.into_iter().chain(got).chain([items[3], items[4], items[5]]).for_each(|item| b.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

/// Of a cache no empty slab is kept: the owner who leaves gives it back, unless somebody has tapped an item of it.
#[test]
fn loom_tapping_against_the_exit_of_one_who_keeps_no_slab() {
    explore(None, || {
        let world = World::new(geometry(), 1, CLASSES + 1, 11);
        world.tier.define(0, &shape(0, 2, SLOT / 2));
        world.tier.define(CLASSES, &shape(CLASSES as u32, 2, SLOT / 2));
        let world = Arc::new(world);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, CLASSES, 2);
        assert_eq!(a.pop(CLASSES), None);
        a.push(items[0]);
        b.push(items[1]);
        let third = spawn(b, |b| b.pop_anywhere(CLASSES));
        a.leave();
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

/// Empty, it is stolen, cut for another class and queued again between the look at it and the tap.
#[test]
fn loom_tapping_a_slab_that_is_cut_for_another_class() {
    explore_looks(Some(1), || {
        let (world, a, b, _, live) = queued();
        let c = world.heap(4);
        b.push(live);
        let third = spawn(b, |b| b.pop_anywhere(0));
        assert!(a.steal() < 2);
        let got: Vec<usize> = std::iter::from_fn(|| a.pop(1)).collect();
        if let [x, y] = got[..] {
            a.push(x);
            c.push(y);
        }
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        if let Some(item) = theirs {
            assert_eq!(world.tier.locate(item - DATA).expect("live").shape.class, 0, "an item of another class");
            a.push(item);
        }
        world.finish(&[&a, &b, &c]);
    });
}
