//! Models of slabs in the reserve: who takes an item against who frees the last one, and against thieves.

use super::loom_owner::{SLOT, explore, explore_looks, spawn, world};
use super::world::DATA;
use crate::segment::slot::State;

#[test]
fn loom_a_reserved_item_is_taken_while_the_last_is_freed() {
    explore_looks(Some(3), || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = a.pop_reserved(0, 1).expect("room");
        let freer = spawn(b, move |b| b.push(item));
        // Of the slab, or of one that was cut after it went back; where the other one is between those, of none.
        let mine = a.pop_reserved(0, 1);
        let (b, ()) = freer.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_two_take_of_the_reserve_and_a_thief_looks() {
    explore(Some(2), || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let item = a.pop_reserved(0, 1).expect("room");
        a.push_late(item);
        assert_eq!(world.tier.slab(0).peek().state(), State::Reserved);
        let taker = spawn(b, |b| b.pop_reserved(0, 1));
        let thief = spawn(c, |c| c.steal());
        let mine = a.pop_reserved(0, 1);
        let ((b, theirs), (c, _)) = (taker.join().expect("joined"), thief.join().expect("joined"));
        world.verify(&[&a, &b, &c]);
        assert!(mine.is_none() || mine != theirs, "handed out twice");
        let inside = |item: &usize| (DATA..DATA + SLOT).contains(item);
        assert!(mine.iter().chain(&theirs).all(inside));
        mine.into_iter().chain(theirs).for_each(|item| a.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_the_last_two_items_of_the_reserve() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = [0, 1].map(|_| a.pop_reserved(0, 1).expect("room"));
        let freer = spawn(b, move |b| b.push(items[0]));
        a.push(items[1]);
        let (b, ()) = freer.join().expect("joined");
        world.finish(&[&a, &b]);
    });
}
