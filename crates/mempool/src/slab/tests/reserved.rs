//! Slabs in the reserve: what ordinary requests do not get, whatever is freed there.

use std::sync::Arc;
use std::vec::Vec;

use super::world::{Refused, World, shape};
use crate::segment::slot::{SlotGeometry, State};
use crate::slab::Bad;

const SLOT: usize = 4096;

#[test]
fn no_ordinary_path_leads_to_an_item_of_the_reserve() {
    let world = World::new(SlotGeometry::new(12), 2, 1, 10);
    world.tier.define(0, &shape(0, 4, SLOT / 4));
    let world = Arc::new(world);
    let (a, b) = (world.heap(2), world.heap(3));
    let items: Vec<usize> = (0..8).map(|_| a.pop_reserved(0, 1).expect("room")).collect();
    assert_eq!(a.pop_reserved(0, 1), None);
    // Freed by the one who was served, and by another; twice.
    for (heap, at) in [(&a, 0), (&b, 1), (&a, 4), (&b, 5)] {
        heap.push(items[at]);
        let bad = Bad { slot: at / 4, item: at % 4 };
        assert_eq!(heap.try_push(items[at], 1), Err(Refused::Twice(bad)));
    }
    world.verify(&[&a, &b]);
    for heap in [&a, &b] {
        assert_eq!((heap.pop(0), heap.pop_anywhere(0), heap.loosen(0), heap.steal()), (None, None, 0, 0));
        heap.leave();
    }
    let mut stranded = 0;
    world.tier.each_stranded(&mut |_, _, _, free| stranded += free);
    assert_eq!(stranded, 0);
    // Taken again by whoever asks so, then freed: each slab goes back with its last item.
    let again: Vec<usize> = std::iter::from_fn(|| b.pop_reserved(0, 1)).collect();
    assert_eq!(again.len(), 4);
    again.into_iter().for_each(|item| a.push(item));
    [2, 3, 6, 7].into_iter().for_each(|at| b.push(items[at]));
    assert_eq!((world.runs.taken(), world.tier.slab(0).peek().state()), (0, State::Free));
    assert!(a.pop(0).is_some());
}

#[test]
fn arrays_of_the_reserve_keep_their_lengths() {
    let world = World::new(SlotGeometry::new(12), 1, 1, 5);
    world.tier.define(0, &world.tier.array_shape_for(0, 32));
    let world = Arc::new(world);
    let heap = world.heap(2);
    let arrays = [50, 30, 7].map(|n| (heap.pop_reserved(0, n).expect("room"), n));
    assert_eq!(heap.pop_reserved(0, 60), None);
    for (array, n) in arrays {
        assert_eq!(
            (heap.try_push(array, n - 1), heap.try_push(array + 32, n)),
            (Err(Refused::Length), Err(Refused::NoItem))
        );
    }
    heap.push_array(arrays[1].0, 30);
    assert_eq!(heap.pop_reserved(0, 31), Some(arrays[2].0 + 7 * 32));
    assert_eq!(heap.pop_reserved(0, 20), Some(arrays[1].0));
    assert_eq!(heap.pop_reserved(0, 10), Some(arrays[1].0 + 20 * 32));
    for (array, n) in [arrays[0], arrays[2], (arrays[2].0 + 7 * 32, 31), (arrays[1].0, 20), (arrays[1].0 + 640, 10)] {
        heap.push_array(array, n);
    }
    world.finish(&[&heap]);
}
