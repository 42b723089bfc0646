//! Models of loosening: a slab in the queue of a thread becomes nobody's, against everything that its owner, others who want
//! it, thieves and freers may do at that moment.
//!
//! Loom knows no barrier that one thread makes another pass. A sequentially consistent fence on both sides stands for it: that is
//! stronger in one way (the owner has one in each free) and the same in the one that matters: of the owner's announcement and the
//! thief's mark at least one is seen.

use std::sync::Arc;
use std::vec::Vec;

use super::loom_owner::{SLOT, explore, geometry, pops, spawn, world, world_of};
use super::world::{Heap, World, shape};
use crate::segment::slot::State;
use crate::sync::FENCES;

/// Explores `model` with the fences.
pub fn explore_fenced(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    FENCES.set(true);
    explore(preemptions, model);
    FENCES.set(false);
}

/// Two slabs of two items: one in the queue of `a`, with an item that it freed itself and a live one, and one that is full; the
/// world, `a`, `b`, the freed item, the live one, one of the other slab.
fn queued() -> (Arc<World>, Heap, Heap, [usize; 4]) {
    let world = world(2);
    let (a, b) = (world.heap(2), world.heap(3));
    let items = pops(&a, 0, 4);
    assert_eq!(a.pop(0), None);
    a.push(items[0]);
    assert_eq!(world.tier.slab(0).peek().state(), State::Queued);
    (world, a, b, [items[0], items[1], items[2], items[3]])
}

/// All that is free, had by one after the other.
fn rest(heaps: &[&Heap]) -> Vec<usize> {
    let mut all = Vec::new();
    for _ in 0..2 {
        for heap in heaps {
            while let Some(item) = heap.pop(0).or_else(|| heap.pop_anywhere(0)) {
                all.push(item);
            }
        }
    }
    all
}

fn end(world: &World, heaps: &[&Heap], mut live: Vec<usize>) {
    world.verify(heaps);
    live.extend(rest(heaps));
    live.sort_unstable();
    let count = live.len();
    live.dedup();
    assert_eq!((live.len(), count), (4, 4), "an item is lost or handed out twice");
    live.into_iter().for_each(|item| heaps[0].push(item));
    world.finish(heaps);
}

#[test]
fn loom_loosening_against_an_own_free() {
    explore_fenced(None, || {
        let (world, a, b, [_, live, other, last]) = queued();
        // Announces another slab than the one that is wanted.
        a.push(other);
        let third = spawn(b, |b| b.pop_loosened(0));
        a.push(live);
        let (b, theirs) = third.join().expect("joined");
        end(&world, &[&a, &b], theirs.into_iter().chain([last]).collect());
    });
}

#[test]
fn loom_loosening_against_two_own_frees() {
    explore_fenced(Some(2), || {
        let (world, a, b, [_, live, other, last]) = queued();
        let third = spawn(b, |b| b.pop_loosened(0));
        // From the slab that is wanted to another one and back.
        a.push(other);
        a.push(live);
        let (b, theirs) = third.join().expect("joined");
        end(&world, &[&a, &b], theirs.into_iter().chain([last]).collect());
    });
}

#[test]
fn loom_loosening_against_the_owner_who_claims() {
    explore_fenced(Some(2), || {
        let (world, a, b, [_, live, other, last]) = queued();
        a.push(other);
        let third = spawn(b, |b| b.pop_loosened(0));
        let mine = a.pop(0);
        let (b, theirs) = third.join().expect("joined");
        end(&world, &[&a, &b], mine.into_iter().chain(theirs).chain([live, last]).collect());
    });
}

#[test]
fn loom_loosening_against_the_exit_of_the_owner() {
    explore_fenced(Some(3), || {
        let (world, a, b, [_, live, other, last]) = queued();
        a.push(other);
        let third = spawn(b, |b| b.pop_loosened(0));
        a.leave();
        let (b, theirs) = third.join().expect("joined");
        end(&world, &[&a, &b], theirs.into_iter().chain([live, last]).collect());
    });
}

#[test]
fn loom_loosening_against_another_who_loosens() {
    explore_fenced(Some(1), || {
        let (world, a, b, [_, live, other, last]) = queued();
        let c = world.heap(4);
        a.push(other);
        let third = spawn(b, |b| b.pop_loosened(0));
        let fourth = spawn(c, |c| c.pop_loosened(0));
        a.push(live);
        let (b, one) = third.join().expect("joined");
        let (c, two) = fourth.join().expect("joined");
        assert!(one.is_none() || one != two, "handed out twice");
        end(&world, &[&a, &b, &c], one.into_iter().chain(two).chain([last]).collect());
    });
}

#[test]
fn loom_loosening_against_a_thief_and_the_last_free() {
    explore_fenced(Some(2), || {
        let (world, a, b, [_, live, other, last]) = queued();
        let c = world.heap(4);
        a.push(other);
        let third = spawn(b, |b| b.loosen(0));
        let thief = spawn(c, move |c| {
            c.push(live);
            c.steal();
        });
        a.push(last);
        let (b, _) = third.join().expect("joined");
        let (c, ()) = thief.join().expect("joined");
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_loosening_against_remote_frees() {
    explore_fenced(Some(1), || {
        let (world, a, b, [_, live, other, last]) = queued();
        let c = world.heap(4);
        a.push(other);
        let third = spawn(b, |b| b.pop_loosened(0));
        let freer = spawn(c, move |c| c.push(live));
        let mine = a.pop(0);
        let (b, theirs) = third.join().expect("joined");
        let (c, ()) = freer.join().expect("joined");
        end(&world, &[&a, &b, &c], mine.into_iter().chain(theirs).chain([last]).collect());
    });
}

/// The owner frees into the slab that is wanted and then into another: who finds the second announcement has what was freed before.
/// Somebody else than the one who loosens uses the slab.
#[test]
fn loom_loosening_behind_an_own_free_and_another() {
    explore_fenced(Some(2), || {
        let world = world_of(3);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 6);
        assert_eq!(a.pop(0), None);
        a.push(items[3]);
        a.push(items[0]);
        a.push(items[4]);
        let third = spawn(b, |b| {
            let loosened = b.loosen(0);
            let got: Vec<usize> = [b.pop(0), b.pop(0), b.pop(0)].into_iter().flatten().collect();
            (loosened, got)
        });
        a.push(items[1]);
        a.push(items[5]);
        let (b, (_, got)) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        got.into_iter().chain([items[2]]).for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// What one loosens another adopts by the hint, with all that the owner has freed.
#[test]
fn loom_loosening_for_another_who_adopts() {
    explore_fenced(Some(2), || {
        let world = world_of(3);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let items = pops(&a, 0, 6);
        assert_eq!(a.pop(0), None);
        a.push(items[0]);
        let third = spawn(b, |b| b.loosen(0));
        let heir = spawn(c, |c| c.adopted(0));
        a.push(items[1]);
        a.push(items[3]);
        let (b, _) = third.join().expect("joined");
        let (c, got) = heir.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        got.into_iter().chain([items[2], items[4], items[5]]).for_each(|item| a.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

/// The current slab is taken and filled by another, and its owner has one in its queue to change to.
#[test]
fn loom_a_current_slab_that_is_full_elsewhere_when_its_owner_changes_slabs() {
    explore_fenced(Some(3), || {
        let world = world_of(3);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 6);
        assert_eq!(a.pop(0), None);
        // Both are linked, and one of them is current. The last free is into the other one.
        a.push(items[0]);
        a.push(items[3]);
        let first = a.pop(0).expect("two are free");
        a.push(first);
        let (other, rest) = if first == items[0] { (items[4], items[1]) } else { (items[1], items[4]) };
        a.push(other);
        let third = spawn(b, |b| b.pop_loosened(0));
        let mine = a.pop(0);
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().chain(theirs).chain([rest, items[2], items[5]]).for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The current slab is wanted while its owner looks for another word of it.
#[test]
fn loom_another_word_of_a_current_slab() {
    explore_fenced(Some(3), || {
        let world = World::new(geometry(), 2, 2, 5);
        world.tier.define(0, &shape(0, 65, 32));
        world.tier.define(1, &shape(1, 2, SLOT / 2));
        let world = Arc::new(world);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 65);
        // In the first word, while the bin is at the second.
        a.push(items[0]);
        let other = a.pop(1).expect("room");
        let third = spawn(b, |b| b.pop_loosened(0));
        let mine = a.pop(0);
        let (b, theirs) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(mine.is_none() || theirs.is_none(), "handed out twice");
        mine.into_iter().chain(theirs).chain(items[1..].iter().copied()).chain([other]).for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}
