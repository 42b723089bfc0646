//! Models of hints and queues: orphans, links that outlive the ownership of a slab, thread exit.

use std::vec::Vec;

use super::loom_owner::{Post, explore, explore_long, explore_looks, pops, spawn, world};
use super::world::{DATA, Heap};
use crate::segment::slot::State;

#[test]
fn loom_an_orphan_is_not_lost_between_two_seekers() {
    explore(None, || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let item = pops(&a, 0, 1)[0];
        let second = spawn(b, |b| b.pop(0));
        let third = spawn(c, |c| c.pop(1));
        a.leave();
        let (b, got) = second.join().expect("joined");
        let (c, wrong) = third.join().expect("joined");
        assert_eq!(wrong, None);
        world.verify(&[&a, &b, &c]);
        let got = got.or_else(|| b.pop(0)).expect("a free item that nobody finds");
        c.push(got);
        b.push(item);
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_a_hint_outlives_the_seeker_who_comes_too_early() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 0, 1)[0];
        // A stale hint, as an adoption by a free leaves behind.
        a.leave();
        a.push(item);
        let item = pops(&a, 0, 1)[0];
        let seeker = spawn(b, |b| b.pop(0));
        a.leave();
        let (b, got) = seeker.join().expect("joined");
        world.verify(&[&a, &b]);
        let got = got.or_else(|| b.pop(0)).expect("a free item that nobody finds");
        b.push(got);
        b.push(item);
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_a_hint_against_adoption_and_a_second_exit() {
    explore_long(2, || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let item = pops(&a, 0, 1)[0];
        a.leave();
        let seeker = spawn(b, |b| {
            let got = b.pop(0);
            b.leave();
            got
        });
        let freer = spawn(c, move |c| {
            c.push(item);
            c.leave();
        });
        let mine = a.pop(0);
        let (b, theirs) = seeker.join().expect("joined");
        let (c, ()) = freer.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        assert!(mine.is_none() || mine != theirs);
        mine.into_iter().for_each(|item| b.push(item));
        theirs.into_iter().for_each(|item| c.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_thread_exit_against_a_remote_free() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 2);
        let freed = items[0];
        let other = spawn(b, move |b| b.push(freed));
        a.leave();
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        assert_eq!(b.pop(0), Some(freed), "the freed item is lost");
        b.push(freed);
        b.push(items[1]);
        world.finish(&[&a, &b]);
    });
}

#[test]
fn loom_exit_of_a_queue_against_a_thief() {
    explore_long(4, || {
        let world = world(2);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 2, 2);
        assert_eq!(a.pop(2), None);
        a.push(items[0]);
        let thief = spawn(b, |b| {
            b.steal();
            b.pop(0)
        });
        a.push(items[1]);
        a.leave();
        let (b, got) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        got.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// `a` queues a slab of one item; the other steals it, cuts it again, lets it go and adopts it with a free,
/// all while it may still stand in the queue of `a`.
#[test]
fn loom_a_slab_is_linked_in_one_queue_at_a_time() {
    explore(None, || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        a.push(item);
        let other = spawn(b, |b| {
            b.steal();
            let got: Vec<usize> = [b.pop(1), b.pop(1), b.pop(1)].into_iter().flatten().collect();
            got.into_iter().for_each(|item| b.push(item));
        });
        let mine = a.pop(2);
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The slab is empty the moment `a` has adopted it and before it is linked: a thief may have it, and somebody else
/// may link it, in between.
#[test]
fn loom_linking_a_slab_that_was_stolen_since_its_adoption() {
    explore(Some(2), || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let item = pops(&c, 2, 1)[0];
        assert_eq!(c.pop(2), None);
        assert_eq!(world.tier.slab(0).peek().state(), State::Nobody);
        let other = spawn(b, |b| {
            b.steal();
            let got = b.pop(2);
            assert_eq!(b.pop(2), None);
            got.into_iter().for_each(|item| b.push(item));
        });
        a.push(item);
        let (b, ()) = other.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_a_queue_of_three_with_a_thief() {
    explore(Some(2), || {
        let world = world(3);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 0, 6);
        assert_eq!(a.pop(0), None);
        [0, 2, 3, 4].map(|i| a.push(items[i]));
        assert_eq!(a.queue(0), [0, 2], "the empty slab in the middle went back");
        let thief = spawn(b, |b| {
            b.steal();
            let got = b.pop(2);
            got.into_iter().for_each(|item| b.push(item));
        });
        // Empties the first of the queue, then looks for an item.
        a.push(items[1]);
        let again = a.pop(0);
        let (b, ()) = thief.join().expect("joined");
        world.verify(&[&a, &b]);
        again.into_iter().for_each(|item| a.push(item));
        a.push(items[5]);
        world.finish(&[&a, &b]);
    });
}

/// Three partly free slabs queue; another thread empties the one in the middle and a third steals it.
#[test]
fn loom_a_queue_of_three_whose_middle_is_stolen() {
    explore(Some(2), || {
        let world = world(3);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let items = pops(&a, 0, 6);
        assert_eq!(a.pop(0), None);
        [0, 2, 4].map(|i| a.push(items[i]));
        assert_eq!(a.queue(0), [0, 1, 2]);
        let middle = items[3];
        let freer = spawn(b, move |b| b.push(middle));
        let thief = spawn(c, |c| {
            c.steal();
            let got = c.pop(1);
            got.into_iter().for_each(|item| c.push(item));
        });
        let again = pops(&a, 0, 2);
        let (b, ()) = freer.join().expect("joined");
        let (c, ()) = thief.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        [items[1], items[5], again[0], again[1]].map(|item| b.push(item));
        world.finish(&[&a, &b, &c]);
    });
}

/// Stolen, cut for another class, full, and adopted again by the thread in whose old queue it still stands.
#[test]
fn loom_adopted_again_while_linked_under_the_old_class() {
    explore_long(3, || {
        let world = world(2);
        let (a, b) = (world.heap(2), world.heap(3));
        let items = pops(&a, 2, 2);
        assert_eq!(a.pop(2), None);
        a.push(items[0]);
        let post = Post::new();
        let letters = post.clone();
        let other = spawn(b, move |b| {
            b.steal();
            let got: Vec<usize> = [b.pop(0), b.pop(0), b.pop(0)].into_iter().flatten().collect();
            got.first().into_iter().for_each(|&item| letters.send(item));
            got
        });
        // The neighbour in the old queue comes before or behind it.
        a.push(items[1]);
        if let Some(item) = post.receive() {
            a.push(item);
        }
        let mine = a.pop(2);
        let (b, theirs) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        mine.into_iter().for_each(|item| a.push(item));
        // The first of theirs was freed by `a` if the letter came in time.
        theirs.into_iter().filter(|&item| world.is_live(item)).for_each(|item| a.push(item));
        world.finish(&[&a, &b]);
    });
}

/// The same with the steal behind it, so that the model reaches every way of popping the old queue meanwhile.
#[test]
fn loom_the_old_queue_is_popped_while_the_slab_is_held_elsewhere() {
    explore(Some(3), || {
        let world = world(1);
        let (a, b) = (world.heap(2), world.heap(3));
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        a.push(item);
        assert_eq!(b.steal(), 1);
        let got = pops(&b, 0, 2);
        assert_eq!(a.queue(2), [0], "the link outlives the slab");
        let (x, y) = (got[0], got[1]);
        let other = spawn(b, move |b| {
            let none = b.pop(0);
            b.push(y);
            none
        });
        // Adopts (and moves the link to class 0), or frees remotely.
        a.push(x);
        let wrong = a.pop(2);
        let mine = a.pop(0);
        let (b, theirs) = other.join().expect("joined");
        world.verify(&[&a, &b]);
        assert!(mine.is_none() || mine != theirs);
        for item in [wrong, mine, theirs].into_iter().flatten() {
            b.push(item);
        }
        world.finish(&[&a, &b]);
    });
}

/// The class of the items that are had from `seek`, while the empty orphan that a hint leads to is stolen and cut for another class.
fn explore_recut(seek: impl Fn(&Heap) -> Option<usize> + Copy + Send + Sync + 'static) {
    explore_looks(Some(1), move || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let item = pops(&a, 0, 1)[0];
        a.push(item);
        a.leave();
        assert_eq!(world.tier.slab(0).peek().state(), State::Nobody);
        let seeker = spawn(b, move |b| seek(b));
        c.steal();
        let mine = c.pop(1);
        c.leave();
        let (b, theirs) = seeker.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        for (class, item) in [(1, mine), (0, theirs)] {
            let Some(item) = item else { continue };
            let slab = world.tier.locate(item - DATA).expect("it is live");
            assert_eq!(slab.shape.class, class, "an item of another class");
            a.push(item);
        }
        world.finish(&[&a, &b, &c]);
    });
}

#[test]
fn loom_a_hint_leads_to_a_slab_that_is_cut_for_another_class() {
    explore_recut(|b| b.pop(0));
}

#[test]
fn loom_who_looks_everywhere_finds_a_slab_that_is_cut_for_another_class() {
    explore_recut(|b| b.pop_anywhere(0));
}

/// The links of a slab that `b` adopts are in use elsewhere, so that it becomes nobody's again, while somebody taps it.
#[test]
fn loom_giving_an_adopted_slab_up_while_it_is_tapped() {
    explore(Some(3), || {
        let world = world(1);
        let (a, b, c) = (world.heap(2), world.heap(3), world.heap(4));
        let item = pops(&a, 2, 1)[0];
        assert_eq!(a.pop(2), None);
        a.push(item);
        assert_eq!(c.steal(), 1);
        let items = pops(&c, 0, 2);
        assert_eq!((c.pop(0), a.queue(2)), (None, [0].to_vec()));
        let (x, y) = (items[0], items[1]);
        let tapper = spawn(c, move |c| {
            c.push(y);
            c.pop_anywhere(0)
        });
        b.push(x);
        let (c, theirs) = tapper.join().expect("joined");
        world.verify(&[&a, &b, &c]);
        theirs.into_iter().for_each(|item| b.push(item));
        world.finish(&[&a, &b, &c]);
    });
}
