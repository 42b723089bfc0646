//! A thread vanishes after any of its stores, as all threads but one do in the child of a fork; the child
//! repairs, and finds everything that was allocated allocated, everything else usable.
//!
//! What a vanished thread had claimed and not yet returned may be lost: one allocation, or one run.

use std::sync::Arc;
use std::vec::Vec;

use super::world::{Heap, Refused, World, shape};
use crate::segment::slot::{SlotGeometry, State};
use crate::slab::SlabTier;
use crate::sync::steps::run_until;

const SLOT: usize = 4096;
const SLOTS: usize = 6;

/// What the thread is doing when it vanishes. Each returns what it still holds of the items it was given.
#[derive(Clone, Copy, Debug)]
enum Work {
    Pop(usize),
    PopArray(usize),
    Push(usize),
    Leave,
    Steal,
    ReturnEmpty,
    Rescue,
    Loosen(usize),
    Reserved(usize, usize),
}

struct Scene {
    world: Arc<World>,
    victim: Heap,
    survivor: Heap,
    /// Address, length: allocated before the work began.
    live: Vec<(usize, usize)>,
}

/// Brings victim and survivor into a state, and says what is allocated.
type Prepare = fn(&Heap, &Heap, &mut Vec<(usize, usize)>);

/// Classes 0: one item, 1: two, 2: arrays of 32-byte items in 128 bits, 3: three slots, one item.
fn scene(prepare: Prepare) -> Scene {
    let world = World::new(SlotGeometry::new(12), SLOTS, 4, 5);
    world.tier.define(0, &shape(0, 1, SLOT));
    world.tier.define(1, &shape(1, 2, SLOT / 2));
    world.tier.define(2, &world.tier.array_shape_for(2, 32));
    world.tier.define(3, &world.tier.shape_for(3, 2 * SLOT + 16));
    let world = Arc::new(world);
    let (victim, survivor) = (world.heap(2), world.heap(3));
    let mut live = Vec::new();
    prepare(&victim, &survivor, &mut live);
    Scene { world, victim, survivor, live }
}

fn pop(heap: &Heap, class: usize, live: &mut Vec<(usize, usize)>) {
    live.push((heap.pop(class).expect("room"), 1));
}

/// The victim's slabs in every state, the survivor's too.
const SCENES: [Prepare; 11] = [
    |_, _, _| {},
    // Held, one item left; one freed remotely.
    |a, b, live| {
        (0..3).for_each(|_| pop(a, 1, live));
        let (item, n) = live.swap_remove(2);
        b.push_array(item, n);
    },
    // Nobody's, full.
    |a, _, live| {
        (0..4).for_each(|_| pop(a, 1, live));
        assert_eq!(a.pop(3), Some(live[0].0 + 2 * SLOT));
        live.push((live[0].0 + 2 * SLOT, 1));
    },
    // A queue of three, the first one empty; then one stolen and cut again by the survivor.
    |a, b, live| {
        (0..4).for_each(|_| pop(a, 0, live));
        for _ in 0..2 {
            let (item, n) = live.remove(0);
            a.push_array(item, n);
        }
        a.steal();
        pop(b, 1, live);
    },
    // Orphans with a hint.
    |a, b, live| {
        (0..3).for_each(|_| pop(b, 1, live));
        b.leave();
        pop(a, 0, live);
    },
    // Arrays: joined ones across words, and a slab that one fills.
    |a, b, live| {
        for n in [60, 10, 58, 1, 200] {
            live.push((a.pop_array(2, n).expect("room"), n));
        }
        let (item, n) = live.remove(1);
        b.push_array(item, n);
    },
    // Queued by the survivor, one item freed remotely.
    |a, b, live| {
        (0..4).for_each(|_| pop(b, 1, live));
        let (item, n) = live.remove(0);
        b.push_array(item, n);
        pop(b, 1, live);
        assert_eq!(b.pop(0), Some(live[0].0 + 2 * SLOT - SLOT / 2));
        live.push((live[0].0 + 2 * SLOT - SLOT / 2, 1));
        let (item, n) = live.remove(1);
        b.push_array(item, n);
        let (item, n) = live.remove(1);
        a.push_array(item, n);
    },
    // Two slabs and one of arrays queued by the survivor, who freed into each itself, last into the second.
    |_, b, live| {
        (0..5).for_each(|_| pop(b, 1, live));
        for n in [60, 10] {
            live.push((b.pop_array(2, n).expect("room"), n));
        }
        for at in [5, 0, 1] {
            let (item, n) = live.remove(at);
            b.push_array(item, n);
        }
    },
    // No run is left.
    |a, b, live| {
        (0..3).for_each(|_| pop(a, 0, live));
        (0..5).for_each(|_| pop(b, 1, live));
    },
    // Slabs of the reserve: one full, one with an item left.
    |a, b, live| {
        for heap in [a, b, a] {
            live.push((heap.pop_reserved(1, 1).expect("room"), 1));
        }
        pop(b, 1, live);
    },
    // Of arrays: joined ones across words.
    |a, _, live| {
        for n in [60, 10, 20] {
            live.push((a.pop_reserved(2, n).expect("room"), n));
        }
        let (item, n) = live.remove(1);
        a.push_array(item, n);
    },
];

const WORKS: [Work; 22] = [
    Work::Reserved(1, 1),
    Work::Reserved(2, 5),
    Work::Reserved(2, 70),
    Work::Loosen(1),
    Work::Loosen(2),
    Work::Pop(0),
    Work::Pop(1),
    Work::Pop(3),
    Work::PopArray(1),
    Work::PopArray(9),
    Work::PopArray(70),
    Work::PopArray(200),
    Work::Push(0),
    Work::Push(1),
    Work::Push(2),
    Work::Push(3),
    Work::Push(4),
    Work::Push(5),
    Work::Leave,
    Work::Steal,
    Work::ReturnEmpty,
    Work::Rescue,
];

/// Does the work; what it allocated goes to `live`, what it frees leaves it.
fn work(scene: &mut Scene, kind: Work, until: u64) -> Option<()> {
    let heap = &scene.victim;
    let tier: SlabTier = scene.world.tier;
    match kind {
        Work::Pop(class) => {
            let got = run_until(until, || heap.pop(class))?;
            scene.live.extend(got.map(|item| (item, 1)));
        }
        Work::PopArray(n) => {
            let got = run_until(until, || heap.pop_array(2, n))?;
            scene.live.extend(got.map(|item| (item, n)));
        }
        Work::Push(i) => {
            if i < scene.live.len() {
                let (item, n) = scene.live.remove(i);
                run_until(until, || heap.push_array(item, n))?;
            }
        }
        Work::Rescue => {
            let got = run_until(until, || heap.pop_anywhere(1))?;
            scene.live.extend(got.map(|item| (item, 1)));
        }
        Work::Reserved(class, n) => {
            let got = run_until(until, || heap.pop_reserved(class, n))?;
            scene.live.extend(got.map(|item| (item, n)));
        }
        Work::Loosen(class) => run_until(until, || heap.loosen(class)).map(drop)?,
        Work::Leave => run_until(until, || heap.leave())?,
        Work::Steal => run_until(until, || heap.steal()).map(|_| ())?,
        Work::ReturnEmpty => {
            run_until(until, || tier.return_empty(&scene.world.runs, heap).expect("clean")).map(drop)?
        }
    }
    Some(())
}

/// The child: repairs, checks, frees everything, and counts what is lost.
fn child(scene: &Scene, vanished: usize, what: &str) {
    let (world, me) = (&scene.world, &scene.survivor);
    world.tier.repair(&world.runs, me.id);
    world.verify(&[me]);
    for &(item, _) in &scene.live {
        assert!(world.is_live(item), "{what}: a live item was lost");
    }
    // Idempotent.
    world.tier.repair(&world.runs, me.id);
    world.verify(&[me]);
    for &(item, n) in &scene.live {
        me.push_array(item, n);
        assert!(matches!(me.try_push(item, n), Err(Refused::Twice(_) | Refused::NoItem | Refused::Length)), "{what}");
    }
    // All that is free can be used: nothing is handed out twice (the payload tells) or refused.
    let all: Vec<(usize, usize)> = (0..4).flat_map(|class| use_up(me, class)).collect();
    all.iter().for_each(|&(item, n)| me.push_array(item, n));
    me.leave();
    world.verify(&[me]);
    world.tier.steal_empty(&world.runs);
    let mut slabs = 0;
    world.tier.for_each(&mut |_, _| slabs += 1);
    let lost = (0..SLOTS)
        .filter(|&slot| world.runs.begins(slot) && world.tier.slab(slot).peek().state() == State::Free)
        .count();
    assert!(slabs + lost <= vanished, "{what}: {slabs} slabs and {lost} runs are lost");
    assert!((0..SLOTS).all(|slot| world.tier.slab(slot).peek().state() != State::Giving), "{what}");
}

fn use_up(heap: &Heap, class: usize) -> Vec<(usize, usize)> {
    match class {
        2 => std::iter::from_fn(|| heap.pop_array(2, 3)).take(50).map(|item| (item, 3)).collect(),
        _ => std::iter::from_fn(|| heap.pop(class)).take(2).map(|item| (item, 1)).collect(),
    }
}

#[test]
fn a_thread_vanishes_after_any_store_of_any_operation() {
    let mut stops = 0;
    for (s, prepare) in SCENES.into_iter().enumerate() {
        for kind in WORKS {
            for until in 1.. {
                let mut scene = scene(prepare);
                let done = work(&mut scene, kind, until).is_some();
                child(&scene, 1, &std::format!("scene {s}, {kind:?}, stopped after {until} stores"));
                if done {
                    break;
                }
                stops += 1;
            }
        }
    }
    assert!(stops > 800, "only {stops} places to stop");
}

/// A second thread goes on beside what the first left in the middle, and vanishes too, before anybody repairs.
#[test]
fn a_second_thread_vanishes_beside_the_first() {
    const SECOND: [Work; 7] = [
        Work::Pop(1),
        Work::PopArray(9),
        Work::Push(0),
        Work::Leave,
        Work::Steal,
        Work::Loosen(1),
        Work::Reserved(1, 1),
    ];
    for (s, prepare) in SCENES.into_iter().enumerate() {
        for (first, second) in WORKS.into_iter().flat_map(|first| SECOND.map(|second| (first, second))) {
            for (one, two) in (1..).step_by(2).flat_map(|one| [1, 2, 3, 5, 8].map(|two| (one, two))) {
                let mut scene = scene(prepare);
                let done = work(&mut scene, first, one).is_some();
                scene.victim = scene.world.heap(4);
                work(&mut scene, second, two);
                child(&scene, 2, &std::format!("scene {s}, {first:?} to store {one}, {second:?} to store {two}"));
                if done {
                    break;
                }
            }
        }
    }
}
