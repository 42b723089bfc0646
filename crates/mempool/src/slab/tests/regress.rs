//! Single cases that were wrong once, or are easily got wrong.

use std::sync::Arc;
use std::vec::Vec;

use super::world::{DATA, Heap, Refused, World, shape};
use crate::segment::slot::{SlotGeometry, State};
use crate::slab::{CLASSES, Shape, owner_id};
use crate::sync::Ordering::AcqRel;

const SLOT: usize = 4096;

/// Two ordinary classes (0: one item, 1: two items) and an array class (2) of 64-byte items.
fn world(slots: usize) -> (Arc<World>, Heap, Heap) {
    let world = World::new(SlotGeometry::new(12), slots, 4, 4);
    world.tier.define(0, &shape(0, 1, SLOT));
    world.tier.define(1, &shape(1, 2, SLOT / 2));
    world.tier.define(2, &world.tier.array_shape_for(2, 64));
    let world = Arc::new(world);
    let (a, b) = (world.heap(2), world.heap(3));
    (world, a, b)
}

/// Slot 0 is in the queue of `a` under class 0, empty, and was stolen.
fn stolen_from(a: &Heap) {
    let [x, y, z] = [0; 3].map(|class| a.pop(class).expect("room"));
    assert_eq!([x, y, z], [0, 1, 2].map(|slot| DATA + slot * SLOT));
    a.push(x);
    a.push(y);
    assert_eq!((a.queue(0), world_taken(a)), ([0].to_vec(), 2));
    assert_eq!(a.steal(), 1);
    assert_eq!(a.queue(0), [0], "a thief touches no link");
    a.push(z);
}

fn world_taken(heap: &Heap) -> usize {
    heap.world.runs.taken()
}

#[test]
fn a_whole_array_whose_links_are_in_use_elsewhere_is_never_handed_out_as_a_small_one() {
    let (world, a, b) = world(5);
    stolen_from(&a);
    let n = SLOT / 64;
    let x = b.pop_array(2, n + n / 2).expect("room");
    assert_eq!(x, DATA, "the array got the stolen slot");
    b.push_array(x, n + n / 2);
    let y = b.pop_array(2, 1).expect("room");
    assert_eq!(b.try_push(y, 2), Err(Refused::Length));
    b.push_array(y, 1);
    world.finish(&[&a, &b]);
}

#[test]
fn destroying_a_class_leaves_the_queues_of_others_whole() {
    let (world, a, b) = world(3);
    stolen_from(&a);
    let x = b.pop(1).expect("room");
    assert_eq!(x, DATA, "class 1 got the stolen slot");
    for heap in [&a, &b] {
        world.tier.forget(heap, 1);
    }
    assert_eq!(world.tier.destroy(&world.runs, 1), 1);
    world.verify(&[&a, &b]);
    let y = a.pop(0).expect("room");
    a.leave();
    a.try_push(y, 1).expect("live");
    a.leave();
    assert_eq!(world.runs.taken(), 0);
}

#[test]
fn a_class_that_ends_gives_back_what_it_looked_at_and_nothing_else() {
    let (world, a, b) = world(1);
    let x = a.pop(1).expect("room");
    a.push(x);
    // Empty, and nobody's: one of each class stays.
    a.leave();
    let slab = world.tier.slab(0);
    let seen = slab.owner();
    assert_eq!((seen.state(), slab.shape().class), (State::Nobody, 1));
    assert_eq!(b.steal(), 1);
    let y = b.pop(0).expect("room");
    assert!(!slab.condemn(seen), "it is another class's by now");
    b.push(y);
    world.finish(&[&a, &b]);
}

#[test]
fn who_looks_late_leaves_a_slab_that_is_another_caches_by_then() {
    const CACHE: usize = CLASSES;
    let world = World::new(SlotGeometry::new(12), 1, CACHE + 1, 4);
    world.tier.define(0, &shape(0, 2, SLOT / 2));
    world.tier.define(CACHE, &shape(CACHE as u32, 2, SLOT / 2));
    let world = Arc::new(world);
    let (a, b) = (world.heap(2), world.heap(3));
    let [x, y] = [0; 2].map(|class| a.pop(class).expect("room"));
    let slab = world.tier.slab(0);
    // One who frees an item of another's slab is held up behind the bit.
    slab.remote_free(0, 1).expect("it is live");
    world.forget_payload(x);
    a.push(y);
    assert_eq!(world.tier.return_empty(&world.runs, &a), Ok(1));
    let got: Vec<usize> = std::iter::from_fn(|| a.pop(CACHE)).collect();
    assert_eq!((got.len(), slab.owner().state()), (2, State::Nobody));
    world.tier.freed_remotely(&world.runs, &b, &slab, 0);
    assert_eq!(slab.owner().state(), State::Nobody, "what was freed is of the past");
    world.tier.freed_remotely(&world.runs, &b, &slab, CACHE);
    assert_eq!((slab.owner().state(), slab.owner().thread()), (State::Queued, owner_id(3, CACHE)));
    got.into_iter().for_each(|item| a.push(item));
    world.finish(&[&a, &b]);
}

#[test]
fn arrays_find_room_in_any_slab_when_no_run_is_left() {
    let (world, a, b) = world(8);
    // Eight full slabs of single items; then room for a pair in the last one alone, for a single in all.
    let mut all: Vec<usize> = std::iter::from_fn(|| a.pop_array(2, 1)).collect();
    let items = SLOT / 64;
    assert_eq!(all.len(), 8 * items);
    let mut free = |i: usize| a.push(core::mem::take(&mut all[i]));
    for slab in 0..8 {
        free(slab * items);
    }
    free(7 * items + 1);
    let pair = a.pop_array(2, 2).expect("the last slab has room");
    assert_eq!(pair, DATA + 7 * SLOT);
    a.push_array(pair, 2);
    // The same with orphans.
    a.leave();
    assert_eq!(b.pop_array(2, 2), Some(pair));
    b.push_array(pair, 2);
    for address in all.into_iter().filter(|&address| address != 0) {
        b.push(address);
    }
    world.finish(&[&a, &b]);
}

#[test]
fn lengths_that_leave_the_slab_are_refused() {
    let (world, a, b) = world(4);
    let small = world.tier.shape_for(3, 16);
    world.tier.define(3, &small);
    assert_eq!(small.items as usize, SLOT / 16, "every bit stands for an item");
    let x = a.pop(3).expect("room");
    let slab = world.tier.slab(0);
    for n in [257, 1000, usize::MAX] {
        for heap in [&a, &b] {
            assert!(world.tier.push(&world.runs, heap, &slab, 0, n).is_err(), "{n}");
            assert!(world.tier.push(&world.runs, heap, &slab, 255, n).is_err(), "{n}");
        }
    }
    assert!(world.is_live(x));
    a.push(x);
    world.finish(&[&a, &b]);
}

#[test]
fn every_address_is_told_apart() {
    for shift in [12, 13, 16] {
        let slot = 1usize << shift;
        for size in [1, 3, 16, 48, 100, 1000, slot / 8, slot / 8 + 1, slot, slot + 16, 3 * slot, 3 * slot - 500] {
            let world = World::new(SlotGeometry::new(shift), 67, 2, 0);
            let shape = world.tier.shape_for(0, size);
            world.tier.define(0, &shape);
            world.tier.define(1, &world.tier.shape_for(1, 16));
            let world = Arc::new(world);
            let heap = world.heap(2);
            // A slot of another class first, so that the slab doesn't begin at 0.
            let other = heap.pop(1).expect("room");
            let items: Vec<usize> = (0..shape.items).map(|_| heap.pop(0).expect("room")).collect();
            let base = DATA + slot;
            for offset in 0..(shape.run * 256).next_multiple_of(slot) {
                let found = world.tier.locate(slot + offset);
                let expected = (offset < shape.items as usize * size).then_some((offset / size, offset % size == 0));
                assert_eq!(found.map(|at| (at.item, at.exact)), expected, "size {size} offset {offset}");
            }
            assert!(items.iter().all(|&item| item >= base && (item - base).is_multiple_of(size)));
            for &item in &items {
                heap.push(item);
                assert!(matches!(heap.try_push(item, 1), Err(Refused::Twice(_) | Refused::NoItem)), "size {size}");
            }
            heap.push(other);
            world.finish(&[&heap]);
        }
    }
}

#[test]
fn slots_go_on_in_the_last_word_of_hints() {
    for slots in [1, 63, 64, 65, 100, 129] {
        let world = World::new(SlotGeometry::new(12), slots, 2, 4);
        world.tier.define(0, &shape(0, 2, SLOT / 2));
        let world = Arc::new(world);
        let (a, b) = (world.heap(2), world.heap(3));
        let all: Vec<usize> = std::iter::from_fn(|| a.pop(0)).collect();
        assert_eq!(all.len(), 2 * slots);
        // One item of every slab is free when `a` leaves; `b` finds each of them.
        all.iter().step_by(2).for_each(|&item| a.push(item));
        a.leave();
        world.verify(&[&a, &b]);
        let found: Vec<usize> = std::iter::from_fn(|| b.pop(0)).collect();
        assert_eq!(found.len(), slots, "of {slots} slots");
        found.iter().chain(all.iter().skip(1).step_by(2)).for_each(|&item| b.push(item));
        world.finish(&[&a, &b]);
    }
}

#[test]
fn the_only_empty_slab_is_kept_and_a_second_goes_back() {
    let (world, a, b) = world(3);
    let all: Vec<usize> = (0..3).map(|_| a.pop(0).expect("room")).collect();
    a.push(all[0]);
    assert_eq!((world.runs.taken(), a.queue(0)), (3, [0].to_vec()));
    a.push(all[1]);
    assert_eq!((world.runs.taken(), a.queue(0)), (2, [0].to_vec()));
    assert_eq!(world.tier.slab(1).peek().state(), State::Free);
    a.push(all[2]);
    world.finish(&[&a, &b]);
}

#[test]
fn an_undefined_class_and_a_count_of_nothing_get_nothing() {
    let (world, a, b) = world(3);
    assert_eq!(a.pop(3), None);
    assert_eq!(a.pop_array(3, 1), None);
    assert_eq!(a.pop_array(2, 0), None);
    assert_eq!(world.tier.pop_array(&world.runs, &a, 2, usize::MAX), Ok(None));
    assert_eq!(world.tier.pop_array(&world.runs, &a, 2, usize::MAX / 64), Ok(None));
    world.finish(&[&a, &b]);
}

#[test]
fn an_array_is_freed_by_its_first_item_and_length_alone() {
    let (world, a, b) = world(6);
    let shape: Shape = world.tier.shape(2).expect("defined");
    let x = a.pop_array(2, 3).expect("room");
    let y = a.pop_array(2, shape.items as usize - 3).expect("room");
    assert_eq!(b.try_push(x + 64, 2), Err(Refused::NoItem));
    assert_eq!(b.try_push(x + 1, 3), Err(Refused::NoItem));
    assert_eq!(b.try_push(x, 2), Err(Refused::Length));
    assert_eq!(b.try_push(x, 4), Err(Refused::Length));
    b.push_array(x, 3);
    assert!(matches!(b.try_push(x, 3), Err(Refused::Twice(_))));
    // Whatever came before, a new array tells its own length.
    let z = a.pop_array(2, 2).expect("room");
    assert_eq!(b.try_push(z, 3), Err(Refused::Length));
    b.push_array(z, 2);
    b.push_array(y, shape.items as usize - 3);
    world.finish(&[&a, &b]);
}

#[test]
fn what_was_freed_twice_is_not_tapped() {
    let (world, a, b) = world(1);
    let items = [0; 2].map(|_| a.pop(1).expect("room"));
    assert_eq!(a.pop(1), None);
    a.push(items[0]);
    let slab = world.tier.slab(0);
    // By two threads at once, neither of which saw the other's bit.
    slab.slot.remote(0).fetch_or(1, AcqRel);
    assert_eq!(b.pop_anywhere(1), None, "it is free for its owner, too");
}
