//! Models of loosening a current slab: its owner allocates, frees, lets go, takes over and leaves at that moment.

use std::sync::Arc;
use std::vec::Vec;

use super::loom_loosened::explore_fenced;
use super::loom_owner::{pops, spawn, world};
use super::world::{Heap, World};

/// Two slots: a slab of class 0 that is current with `a`, which has so many of its two items, and one of class 1, of which `a` took an
/// item last, so that it isn't in the bin of the first; the world, `a`, `b`, the items of class 0, that of class 1.
fn current(items: usize) -> (Arc<World>, Heap, Heap, Vec<usize>, usize) {
    let world = world(2);
    let (a, b) = (world.heap(2), world.heap(3));
    let first = a.pop(0).expect("room");
    let mut mine = pops(&a, 0, items.saturating_sub(1));
    if items == 0 {
        a.push(first)
    } else {
        mine.push(first)
    }
    let other = a.pop(1).expect("room");
    (world, a, b, mine, other)
}

/// All that is free of class 0, had by one after the other. The rest of `live` is of class 0, too, and nothing is lost.
fn end(world: &World, heaps: &[&Heap], mut live: Vec<usize>, other: usize) {
    world.verify(heaps);
    for heap in heaps.iter().chain(heaps) {
        live.extend(std::iter::from_fn(|| heap.pop(0).or_else(|| heap.pop_loosened(0))));
    }
    live.sort_unstable();
    let count = live.len();
    live.dedup();
    assert_eq!((live.len(), count), (2, 2), "an item is lost or handed out twice");
    live.into_iter().chain([other]).for_each(|item| heaps[0].push(item));
    world.finish(heaps);
}

#[test]
fn loom_the_current_slab_against_an_allocation() {
    explore_fenced(None, || {
        let (world, a, b, mut live, other) = current(1);
        let third = spawn(b, |b| b.pop_loosened(0));
        live.extend(a.pop(0));
        let (b, theirs) = third.join().expect("joined");
        live.extend(theirs);
        end(&world, &[&a, &b], live, other);
    });
}

/// The owner allocates and is elsewhere: who finds the second announcement has what was allocated before.
#[test]
fn loom_the_current_slab_behind_an_allocation_and_a_free_elsewhere() {
    explore_fenced(None, || {
        let (world, a, b, mut live, other) = current(1);
        let third = spawn(b, |b| b.pop_loosened(0));
        live.extend(a.pop(0));
        a.push(other);
        let (b, theirs) = third.join().expect("joined");
        live.extend(theirs);
        let other = a.pop(1).expect("room");
        end(&world, &[&a, &b], live, other);
    });
}

/// The owner comes back to the bin after it was elsewhere.
#[test]
fn loom_the_current_slab_against_a_free_and_an_allocation() {
    explore_fenced(Some(4), || {
        let (world, a, b, live, other) = current(1);
        let third = spawn(b, |b| b.pop_loosened(0));
        live.into_iter().for_each(|item| a.push(item));
        let mut live: Vec<usize> = a.pop(0).into_iter().collect();
        let (b, theirs) = third.join().expect("joined");
        live.extend(theirs);
        end(&world, &[&a, &b], live, other);
    });
}

/// An empty one goes back and is cut for another class, while its owner allocates.
#[test]
fn loom_an_empty_current_slab_that_is_cut_anew() {
    explore_fenced(Some(2), || {
        let (world, a, b, _, other) = current(0);
        let third = spawn(b, |b| {
            b.loosen(2);
            b.steal();
            b.pop(2)
        });
        let mine = a.pop(0);
        let (b, theirs) = third.join().expect("joined");
        assert!(mine.is_some() || theirs.is_some());
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| b.push(item));
        a.push(other);
        mine.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The owner itself cuts anew what it has lost, for another bin.
#[test]
fn loom_an_empty_current_slab_that_its_owner_cuts_anew() {
    explore_fenced(Some(3), || {
        let (world, a, b, _, other) = current(0);
        let third = spawn(b, |b| {
            b.loosen(2);
            b.steal();
        });
        let single = a.pop(2);
        let mine = a.pop(0);
        let (b, ()) = third.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(mine.is_none() || mine != single);
        single.into_iter().chain(mine).chain([other]).for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The owner fills the slab, finds it full and lets it go.
#[test]
fn loom_the_current_slab_against_letting_go() {
    explore_fenced(None, || {
        let (world, a, b, mut live, other) = current(1);
        let third = spawn(b, |b| b.pop_loosened(0));
        live.extend(a.pop(0));
        assert!(a.pop(0).is_none() || live.len() == 1);
        let (b, theirs) = third.join().expect("joined");
        live.extend(theirs);
        world.verify(&[&a, &b]);
        drop((live, other));
    });
}

/// The owner, which has looked at the owner word before, makes its bin's word point to the slab again, and is elsewhere when the barrier comes.
#[test]
fn loom_the_current_slab_against_an_owner_who_goes_on_behind_its_look() {
    explore_fenced(Some(4), || {
        let (world, a, b, items, other) = current(2);
        items.into_iter().for_each(|item| b.push(item));
        let third = spawn(b, |b| b.pop_loosened(0));
        let mut live: Vec<usize> = a.pop(0).into_iter().collect();
        a.push(other);
        live.extend(a.pop(0));
        let (b, theirs) = third.join().expect("joined");
        live.extend(theirs);
        let other = a.pop(1).expect("room");
        end(&world, &[&a, &b], live, other);
    });
}

/// The owner looks for empty slabs of its own, and takes over what was freed remotely.
#[test]
fn loom_the_current_slab_against_an_owner_who_gives_back_empty_ones() {
    explore_fenced(Some(2), || {
        let (world, a, b, items, other) = current(2);
        b.push(items[0]);
        let third = spawn(b, |b| b.pop_loosened(0));
        a.return_empty();
        a.push(other);
        let mine = a.pop(0);
        let (b, theirs) = third.join().expect("joined");
        let other = a.pop(1).expect("room");
        end(&world, &[&a, &b], mine.into_iter().chain(theirs).chain([items[1]]).collect(), other);
    });
}

#[test]
fn loom_the_current_slab_against_the_exit_of_the_owner() {
    explore_fenced(Some(4), || {
        let (world, a, b, mut live, other) = current(1);
        let third = spawn(b, |b| b.pop_loosened(0));
        a.leave();
        let (b, theirs) = third.join().expect("joined");
        live.extend(theirs);
        end(&world, &[&a, &b], live, other);
    });
}

#[test]
fn loom_the_current_slab_against_another_who_loosens() {
    explore_fenced(Some(3), || {
        let (world, a, b, mut live, other) = current(1);
        let c = world.heap(4);
        let third = spawn(b, |b| b.pop_loosened(0));
        let fourth = spawn(c, |c| c.pop_loosened(0));
        live.extend(a.pop(0));
        let (b, one) = third.join().expect("joined");
        let (c, two) = fourth.join().expect("joined");
        live.extend(one.into_iter().chain(two));
        end(&world, &[&a, &b, &c], live, other);
    });
}

/// Somebody frees into the slab remotely, and the owner takes that over.
#[test]
fn loom_the_current_slab_against_a_remote_free_and_a_take() {
    explore_fenced(Some(2), || {
        let (world, a, b, live, other) = current(2);
        let c = world.heap(4);
        let (first, second) = (live[0], live[1]);
        let freer = spawn(c, move |c| c.push(first));
        let third = spawn(b, |b| b.pop_loosened(0));
        let mine = a.pop(0);
        let (c, ()) = freer.join().expect("joined");
        let (b, theirs) = third.join().expect("joined");
        end(&world, &[&a, &b, &c], mine.into_iter().chain(theirs).chain([second]).collect(), other);
    });
}
