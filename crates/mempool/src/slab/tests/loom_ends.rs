//! Models of a cache that ends, and of those who come late to its slabs: a slab goes back while a thief has it, cuts it
//! anew, or somebody who freed into it long ago looks at it again.

use std::sync::Arc;
use std::vec::Vec;

use super::loom_owner::{SLOT, explore, explore_looks, geometry, pops, spawn};
use super::world::{Heap, World, shape};
use crate::segment::slot::State;
use crate::slab::CLASSES;

/// A named cache, two items in a slab.
const CACHE: usize = CLASSES;

/// One slot. Class 0: two items, class 2: one item, and the cache.
fn world() -> (Arc<World>, Heap, Heap) {
    let world = World::new(geometry(), 1, CACHE + 1, 11);
    world.tier.define(0, &shape(0, 2, SLOT / 2));
    world.tier.define(2, &shape(2, 1, SLOT));
    world.tier.define(CACHE, &shape(CACHE as u32, 2, SLOT / 2));
    let world = Arc::new(world);
    let (a, b) = (world.heap(2), world.heap(3));
    (world, a, b)
}

/// A slab of the cache in the queue of `heap`, all items free: what stays for the next allocation, and may be stolen.
fn queue_empty(heap: &Heap) {
    let items = pops(heap, CACHE, 2);
    assert_eq!(heap.pop(CACHE), None);
    items.into_iter().for_each(|item| heap.push(item));
    assert_eq!((heap.world.tier.slab(0).peek().state(), heap.queue(CACHE)), (State::Queued, [0].to_vec()));
}

/// Its empty slab is stolen, and cut anew for a class that lives on, between any two looks of the cache that ends.
#[test]
fn loom_a_cache_ends_against_a_thief() {
    explore_looks(Some(2), || {
        let (world, a, b) = world();
        queue_empty(&a);
        world.tier.forget(&a, CACHE);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(0)
        });
        assert_eq!(world.tier.destroy(&world.runs, CACHE), 0);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// It stands in the queue of another class of a thread that looks through that queue meanwhile, and an item of it lives.
#[test]
fn loom_a_cache_ends_whose_slab_was_stolen_from_another_queue() {
    explore(Some(4), || {
        let (world, a, b) = world();
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        a.push(item);
        assert_eq!(b.steal(), 1);
        let live = pops(&b, CACHE, 1)[0];
        assert_eq!(a.queue(2), [0], "the link outlives the slab");
        world.tier.forget(&b, CACHE);
        world.forget_payload(live);
        let owner = spawn(a, |a| a.pop(2));
        assert_eq!(world.tier.destroy(&world.runs, CACHE), 1);
        let (a, mine) = owner.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

/// Held up behind the bit that it set, somebody looks at the slab again when it is a cache's, and nobody's: that is no business
/// of one who doesn't use the cache, which may end meanwhile.
#[test]
fn loom_who_adopts_late_against_a_slab_cut_for_a_cache() {
    explore(Some(4), || {
        let (world, a, b) = world();
        let items = pops(&a, 0, 2);
        let freed = items[0];
        let late = spawn(b, move |b| b.push(freed));
        a.push(items[1]);
        world.tier.return_empty(&world.runs, &a).expect("no double free");
        let got: Vec<usize> = std::iter::from_fn(|| a.pop(CACHE)).collect();
        let (b, ()) = late.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(b.queue(CACHE).is_empty(), "it has no part in the cache");
        got.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// Empty behind the adoption, it is stolen and cut for a cache before it is linked.
#[test]
fn loom_linking_a_slab_that_is_a_caches_by_now() {
    explore(Some(3), || {
        let (world, a, b) = world();
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        let thief = spawn(b, |b| {
            b.steal();
            std::iter::from_fn(|| b.pop(CACHE)).collect::<Vec<usize>>()
        });
        a.push(item);
        let (b, got) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(a.queue(CACHE).is_empty(), "it has no part in the cache");
        got.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}
