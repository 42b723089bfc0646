//! Real threads: everything is freed by others than those who got it, while slabs are stolen and threads end.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::vec::Vec;

use super::world::{Heap, World};
use crate::segment::slot::SlotGeometry;

const THREADS: usize = 4;
const ROUNDS: usize = 60_000;
const SIZES: [usize; 4] = [16, 48, 512, 3000];

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize
}

/// Allocates, frees what others sent, sends what it allocated; leaves and steals now and then.
fn work(heap: &Heap, seed: u64, inbox: &Receiver<(usize, usize)>, others: &[Sender<(usize, usize)>]) -> usize {
    let (mut state, mut exhausted) = (seed, 0);
    for round in 0..ROUNDS {
        let r = random(&mut state);
        let class = r % (SIZES.len() + 1);
        let n = if class == SIZES.len() { 1 + r / 8 % 40 } else { 1 };
        let got = if class == SIZES.len() { heap.pop_array(class, n) } else { heap.pop(class) };
        match got {
            Some(item) if r.is_multiple_of(3) => heap.push_array(item, n),
            Some(item) => others[r / 16 % others.len()].send((item, n)).expect("all receivers live to the end"),
            None => {
                exhausted += 1;
                heap.world.tier.return_empty(&heap.world.runs, heap).expect("clean");
                heap.steal();
            }
        }
        for (item, n) in inbox.try_iter().take(2 + exhausted % 3) {
            heap.push_array(item, n);
        }
        match round % 5000 {
            1000 => heap.leave(),
            2000 => drop(heap.steal()),
            _ => {}
        }
    }
    exhausted
}

fn storm(slots: usize) -> usize {
    let world = World::new(SlotGeometry::new(12), slots, SIZES.len() + 1, 4);
    for (class, &size) in SIZES.iter().enumerate() {
        world.tier.define(class, &world.tier.shape_for(class, size));
    }
    world.tier.define(SIZES.len(), &world.tier.array_shape_for(SIZES.len(), 64));
    let world = Arc::new(world);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| channel()).unzip();
    let workers: Vec<_> = receivers
        .into_iter()
        .enumerate()
        .map(|(k, inbox)| {
            let (heap, others) = (world.heap(k as u32 + 2), senders.clone());
            thread::spawn(move || {
                let exhausted = work(&heap, 0x9e37_79b9_7f4a_7c15 ^ (k as u64 + 1), &inbox, &others);
                (heap, inbox, exhausted)
            })
        })
        .collect();
    let done: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no misuse was found")).collect();
    for (heap, inbox, _) in &done {
        inbox.try_iter().for_each(|(item, n)| heap.push_array(item, n));
    }
    let heaps: Vec<&Heap> = done.iter().map(|(heap, ..)| heap).collect();
    world.finish(&heaps);
    done.iter().map(|(.., exhausted)| exhausted).sum()
}

#[test]
fn threads_free_what_others_got_with_room() {
    storm(2000);
}

#[test]
fn threads_free_what_others_got_at_the_limit() {
    assert!(storm(24) > 0, "the limit was never reached");
}
