//! Models of one slab and its owner word: letting go, adoption, remote frees, stealing.
//!
//! Two threads are explored completely, three with a bound on preemptions. Slabs are tiny: one word of
//! two items or even one, so that full and empty are a step away from each other.

use std::sync::Arc;
use std::vec::Vec;

use super::world::{Heap, Refused, World, shape};
use crate::segment::slot::{SlotGeometry, State};
use crate::slab::SHARED;
use crate::sync::Ordering::{Acquire, Release};
use crate::sync::{AtomicU64, LOOKS};

pub const SLOT: usize = 4096;

/// The smallest descriptors.
pub fn geometry() -> SlotGeometry {
    SlotGeometry::new(12)
}

/// Class 0: two items, class 1: two items, class 2: one item, in slabs of one slot.
pub fn world(slots: usize) -> Arc<World> {
    let world = World::new(geometry(), slots, 3, 11);
    world.tier.define(0, &shape(0, 2, SLOT / 2));
    world.tier.define(1, &shape(1, 2, SLOT / 2));
    world.tier.define(2, &shape(2, 1, SLOT));
    Arc::new(world)
}

/// Two slots of class 0 with so many items each.
pub fn world_of(items: u32) -> Arc<World> {
    let world = World::new(geometry(), 2, 1, 10);
    world.tier.define(0, &shape(0, items, SLOT / 4));
    Arc::new(world)
}

/// Checks `model`: completely, or with so many preemptions; one more with `MODELS=deep` in the environment.
///
/// With a bound loom tries fewer schedules than the bound allows: where a step back would go beyond it, it goes back to one change of
/// threads before that and no further. So a bound says little about what was tried, and where a complete search takes
/// seconds it is worth more than any bound.
pub fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    explore_deeper(preemptions, preemptions.map(|bound| bound + 1), model);
}

/// As [`explore`], for a model of what others do between two looks at an owner word, see [`crate::sync::look`].
pub fn explore_looks(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    LOOKS.set(true);
    explore(preemptions, model);
    LOOKS.set(false);
}

/// As [`explore`], for a model that would take the gate minutes: there it gets one preemption.
pub fn explore_long(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    explore_deeper(Some(1), Some(preemptions), model);
}

fn explore_deeper(gate: Option<usize>, deep: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    let wanted = std::env::var_os("MODELS").is_some_and(|depth| depth == "deep");
    builder.preemption_bound = if wanted { deep } else { gate };
    builder.max_branches = 10_000;
    builder.check(model);
}

pub fn spawn<T: 'static>(heap: Heap, work: impl FnOnce(&Heap) -> T + 'static) -> loom::thread::JoinHandle<(Heap, T)> {
    loom::thread::spawn(move || {
        let result = work(&heap);
        (heap, result)
    })
}

/// `n` items of `class`.
pub fn pops(heap: &Heap, class: usize, n: usize) -> Vec<usize> {
    (0..n).map(|_| heap.pop(class).expect("room")).collect()
}

/// A mailbox for one item.
pub struct Post(AtomicU64);

impl Post {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(0)))
    }

    pub fn send(&self, item: usize) {
        self.0.store(item as u64, Release);
    }

    pub fn receive(&self) -> Option<usize> {
        Some(self.0.load(Acquire) as usize).filter(|&item| item != 0)
    }
}

#[test]
fn loom_letting_go_loses_no_remote_free() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let freed = items[0];
        let other = spawn(b, move |b| b.push(freed));
        let again = a.pop(0);
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        // Wherever the item went, one of the two gets at it.
        let last = again.or_else(|| a.pop(0)).or_else(|| b.pop(0));
        assert_eq!(last, Some(freed), "the freed item is lost");
        a.push(freed);
        a.push(items[1]);
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_the_last_two_bits() {
    explore(Some(2), || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let items = pops(&a, 0, 2);
        let (x, y) = (items[0], items[1]);
        let second = spawn(b, move |b| b.push(x));
        let third = spawn(c, move |c| c.push(y));
        let again = a.pop(0);
        let (b, ()) = second.join().expect("joined");
        let (c, ()) = third.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        if let Some(item) = again {
            a.push(item);
        }
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_taking_back_looks_at_the_exact_generation() {
    explore(Some(3), || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 2, 1)[0];
        let other = spawn(b, move |b| {
            b.push(item);
            b.steal();
            // Perhaps the same slot, cut for another class, and nobody's again with an item left.
            let got = b.pop(1);
            b.leave();
            got
        });
        let mine = a.pop(2);
        let (b, theirs) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(mine.is_none() || theirs.is_none(), "one slot was cut for two classes at once");
        mine.into_iter().for_each(|item| a.push(item));
        theirs.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_stealing_against_claim() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        a.push(item);
        assert_eq!(world.tier.slab(0).peek().state(), State::Queued);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(0)
        });
        let mine = a.pop(2);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(mine.is_none() || theirs.is_none(), "the slot was handed out twice");
        mine.into_iter().for_each(|item| b.push(item));
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_stealing_against_an_own_free() {
    explore(Some(4), || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        assert_eq!(a.pop(0), None);
        a.push(items[1]);
        // The first item that a slab cut anew hands out.
        let last = items[0];
        // The thief must see the owner's last use of the item before it is used again.
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(1)
        });
        a.push(last);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_stealing_against_a_remote_free_and_the_owner() {
    explore(Some(3), || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let items = pops(&a, 0, 2);
        assert_eq!(a.pop(0), None);
        a.push(items[0]);
        let last = items[1];
        let freer = spawn(b, move |b| b.push(last));
        let thief = spawn(c, |c| {
            c.steal();
            c.pop(1)
        });
        let mine = a.pop(0);
        let (b, ()) = freer.join().expect("joined");
        let (c, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(mine.is_none() || theirs.is_none(), "the slot was handed out twice");
        mine.into_iter().for_each(|item| b.push(item));
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_a_thief_acts_on_the_state_it_looked_at() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        a.push(item);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(1)
        });
        // Empty and queued, then held, then nobody's and full: the thief must not act on what it saw first.
        let mine = a.pop(2);
        let second = a.pop(2);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        let got: Vec<usize> = [mine, second, theirs].into_iter().flatten().collect();
        assert!(got.len() <= 1, "the slot was handed out twice");
        got.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_of_two_remote_frees_one_wins() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        // The slab stays with `c`, which does nothing.
        let c = world.heap(4);
        let item = pops(&c, 0, 1)[0];
        let other = spawn(b, move |b| b.try_push(item, 1).is_ok());
        let first = a.try_push(item, 1).is_ok();
        let (b, second) = other.join().expect("joined");
        assert!(first ^ second, "the item was freed {} times", u32::from(first) + u32::from(second));
        world.tier.leave(&world.runs, &c);
        world.verify(&[&a, &b, &c]);
    });
}

#[test]
fn loom_a_double_free_by_owner_and_another_is_found_at_the_take() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let item = items[1];
        let other = spawn(b, move |b| b.try_push(item, 1).is_ok());
        let first = a.try_push(item, 1).is_ok();
        let (_b, second) = other.join().expect("joined");
        let late = world.tier.return_empty(&world.runs, &a).is_err();
        assert!(!(first && second) || late, "nobody noticed");
        assert!(first || second);
    });
}

#[test]
fn loom_adoption_against_a_remote_free() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let c = world.heap(4);
        let items = pops(&c, 0, 2);
        assert_eq!(c.pop(0), None);
        assert_eq!(world.tier.slab(0).peek().state(), State::Nobody);
        let (x, y) = (items[0], items[1]);
        let other = spawn(b, move |b| {
            b.push(x);
            b.pop(0)
        });
        a.push(y);
        let mine = a.pop(0);
        let (b, theirs) = other.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(mine.is_none() || mine != theirs);
        mine.into_iter().for_each(|item| b.push(item));
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_remote_free_against_the_owner() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let (x, y) = (items[0], items[1]);
        let other = spawn(b, move |b| b.push(x));
        a.push(y);
        let got: Vec<usize> = [a.pop(0), a.pop(0)].into_iter().flatten().collect();
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(!got.is_empty());
        got.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_a_free_item_never_looks_allocated() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let freed = items[0];
        b.push(freed);
        let shared = world.clone();
        // An inspector, the double-free check and the child of a fork all look like this.
        let looker = loom::thread::spawn(move || shared.is_live(freed));
        world.tier.return_empty(&world.runs, &a).expect("no double free");
        assert!(!looker.join().expect("joined"), "a free item looked allocated");
        a.push(items[1]);
        world.finish(&[&a, &b]);
    });
}

/// Only the freer's first look can tell: at the take, once its bit is set, it would be too late for it.
#[test]
fn loom_a_second_free_by_another_is_found_at_once_beside_a_take() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let freed = items[0];
        b.push(freed);
        let twice = spawn(b, move |b| b.try_push(freed, 1));
        world.tier.return_empty(&world.runs, &a).expect("no double free so far");
        let (b, result) = twice.join().expect("joined");
        assert!(matches!(result, Err(Refused::Twice(_))), "freed twice");
        world.verify(&[&a, &b]);
        a.push(items[1]);
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_a_take_loses_no_remote_free_that_comes_meanwhile() {
    explore(Some(4), || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let (x, y) = (items[0], items[1]);
        let freer = spawn(b, move |b| {
            b.push(x);
            b.push(y);
        });
        let first = a.pop(0);
        let (b, ()) = freer.join().expect("joined");
        world.verify(&[&a, &b]);
        first.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The current slab was empty when the thief last saw it, is used up, and goes to the end of the queue.
#[test]
fn loom_a_slab_that_goes_back_to_the_queue_full_does_not_look_empty() {
    explore(Some(3), || {
        let world = world(2);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 3);
        a.push(items[0]);
        a.push(items[2]);
        assert_eq!(a.queue(0), [0]);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(1)
        });
        let mine = pops(&a, 0, 3);
        let (b, theirs) = thief.join().expect("joined");
        assert_eq!(theirs, None, "every slab is in use");
        world.verify(&[&a, &b]);
        mine.into_iter().chain([items[1]]).for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The same, while others free all that was in it: it may be stolen as soon as it is in the queue, and not before.
#[test]
fn loom_a_slab_that_goes_back_to_the_queue_is_emptied_and_stolen() {
    explore(Some(3), || {
        let world = world(2);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 4);
        a.push(items[0]);
        assert_eq!(a.queue(0), [0]);
        let (x, y) = (items[2], items[3]);
        let thief = spawn(b, move |b| {
            b.push(x);
            b.push(y);
            b.steal();
            b.pop(1)
        });
        let mine = a.pop(0);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().chain(theirs).chain([items[1]]).for_each(|item| b.push(item));
        world.finish(&[&a, &b]);
    });
}

/// As `loom_stealing_against_an_own_free`, by the way of the front: the slab is nobody's, and the free adopts it.
#[test]
fn loom_stealing_against_a_free_that_adopts() {
    explore(Some(4), || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(1)
        });
        a.push_by_adoption(item);
        let (b, theirs) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        theirs.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// One who adopts nothing frees the last item of a slab that its owner, who looks for another, lets go.
#[test]
fn loom_the_shared_local_heap_frees_into_a_slab_that_is_let_go() {
    explore(Some(4), || {
        let world = world(1);
        let (a, shared) = (world.heap(2), world.heap(SHARED));
        let items = pops(&a, 0, 2);
        let (x, y) = (items[0], items[1]);
        let freer = spawn(shared, move |shared| {
            shared.push(x);
            shared.push(y);
        });
        let mine = a.pop(0);
        let (shared, ()) = freer.join().expect("joined");
        world.verify(&[&a, &shared]);
        mine.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &shared]);
    });
}
