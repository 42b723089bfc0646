//! Many threads.

use super::{Dice, World};
use crate::heap::HeapError;
use std::sync::Barrier;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::vec::Vec;

/// Asks again while the answer is "busy", as the front does.
fn alloc(world: &World, size: usize) -> Option<usize> {
    loop {
        match world.heap.alloc(&world.supply, size) {
            Ok(found) => return found.map(|p| p.as_ptr().addr()),
            Err(HeapError::Busy) => std::thread::yield_now(),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn fill(world: &World, address: usize, size: usize, pattern: u8) {
    world.bytes(address, size).fill(pattern);
}

fn intact(world: &World, address: usize, size: usize, pattern: u8) {
    assert!(world.bytes(address, size).iter().all(|&b| b == pattern), "payload changed");
}

/// Random replacement by each thread; every object is freed by the thread next to its maker half of the time.
fn storm(threads: usize, slots: usize, lifetime: u64, steps: usize) {
    let world = World::new(slots, 12, lifetime);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel()).unzip();
    std::thread::scope(|scope| {
        for (me, inbox) in receivers.into_iter().enumerate() {
            let (world, out) = (&world, senders[(me + 1) % threads].clone());
            scope.spawn(move || {
                let (mut dice, mut mine) = (Dice(me as u64), Vec::new());
                for _ in 0..steps {
                    mine.extend(inbox.try_recv().ok());
                    if dice.roll(2) == 0 && mine.len() < 200 {
                        let size = 1 + dice.roll(300);
                        let Some(address) = alloc(world, size) else { continue };
                        let pattern = dice.roll(256) as u8;
                        fill(world, address, size, pattern);
                        mine.push((address, size, pattern));
                    } else if !mine.is_empty() {
                        let (address, size, pattern) = mine.swap_remove(dice.roll(mine.len()));
                        intact(world, address, size, pattern);
                        if dice.roll(2) == 0 && out.send((address, size, pattern)).is_ok() {
                            continue;
                        }
                        assert!(world.heap.size_of(address).unwrap() >= size);
                        world.free(address);
                    }
                }
                drop(out);
                mine.extend(inbox.try_iter());
                mine.into_iter().for_each(|(address, size, pattern)| {
                    intact(world, address, size, pattern);
                    world.free(address);
                });
            });
        }
    });
    assert_eq!(world.heap.verify(), Ok(()));
    // What was sent to a thread that had ended is still live.
    world.live().iter().for_each(|&(address, _)| world.free(address));
    world.heap.return_empty(&world.supply);
    assert_eq!((world.pages(), world.supply.left(), world.heap.verify()), (0, slots, Ok(())));
}

#[test]
fn storm_with_room() {
    storm(4, 64, 64, 40_000);
}

#[test]
fn storm_at_the_edge_of_exhaustion() {
    storm(4, 3, 0, 40_000);
}

#[test]
fn storm_in_one_page() {
    storm(3, 1, 1 << 40, 40_000);
}

/// Growers at once make one page: with n pages' worth of objects, exactly n pages.
#[test]
fn concurrent_growers_make_one_page() {
    for _ in 0..200 {
        // Endless patience: however long a thread is preempted in the page, nobody goes round it.
        let (world, threads) = (World::with_patience(16, 12, 1 << 40, u32::MAX), 4);
        let barrier = Barrier::new(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    barrier.wait();
                    assert!(alloc(&world, 1000).is_some());
                });
            }
        });
        assert_eq!((world.supply.taken.load(Relaxed), world.live().len()), (1, threads));
    }
}

/// Many threads free the same object at once: exactly one may.
#[test]
fn of_concurrent_frees_one_wins() {
    let world = World::new(1, 12, 1 << 40);
    let keep = alloc(&world, 16).unwrap();
    for _ in 0..2000 {
        let address = alloc(&world, 48).unwrap();
        let (barrier, won) = (Barrier::new(2), core::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    barrier.wait();
                    match world.heap.free(&world.supply, address) {
                        Ok(()) => drop(won.fetch_add(1, Relaxed)),
                        Err(what) => assert_eq!(what, HeapError::Free),
                    }
                });
            }
        });
        assert_eq!((won.load(Relaxed), world.live().len()), (1, 1));
    }
    world.free(keep);
    assert_eq!(world.heap.verify(), Ok(()));
}

/// Objects grow in place while others work in the same page.
#[test]
fn growing_beside_others() {
    let world = World::new(4, 12, 1 << 40);
    std::thread::scope(|scope| {
        for me in 0..3u64 {
            let world = &world;
            scope.spawn(move || {
                let mut dice = Dice(me);
                for _ in 0..20_000 {
                    let size = 1 + dice.roll(100);
                    let address = alloc(world, size).expect("room");
                    fill(world, address, size, me as u8);
                    let more = size + dice.roll(100);
                    if world.heap.grow_in_place(address, more).unwrap() {
                        fill(world, address, more, me as u8);
                        intact(world, address, more, me as u8);
                    }
                    intact(world, address, size, me as u8);
                    world.free(address);
                }
            });
        }
    });
    assert_eq!((world.live().len(), world.heap.verify()), (0, Ok(())));
}

/// Who finds its page busy again and again takes another one, and stays there.
#[test]
fn threads_that_meet_part() {
    let world = World::with_patience(3, 12, 1 << 40, u32::MAX);
    let near = core::cell::Cell::new(0);
    let page = |address: Option<core::ptr::NonNull<u8>>| (address.unwrap().as_ptr().addr() - world.data.addr()) / 4096;
    assert_eq!(world.heap.alloc_near(&world.supply, 16, &near).map(page), Ok(0));
    let held = world.heap.hold(0).unwrap();
    let busy = (0..).take_while(|_| world.heap.alloc_near(&world.supply, 16, &near) == Err(HeapError::Busy)).count();
    assert_eq!((busy, world.pages()), (7, 2));
    assert_eq!(world.heap.alloc_near(&world.supply, 16, &near).map(page), Ok(1));
    assert_eq!(world.heap.release(&world.supply, held), Ok(()));
    assert_eq!(world.heap.alloc_near(&world.supply, 16, &near).map(page), Ok(1));
    // Somebody else is led to the first page.
    assert_eq!(world.heap.alloc(&world.supply, 16).map(page), Ok(0));
    // And where another page has room, none is made.
    let held = world.heap.hold(1).unwrap();
    (0..7).for_each(|_| assert_eq!(world.heap.alloc_near(&world.supply, 16, &near).map(page), Ok(0)));
    assert_eq!(world.pages(), 2);
    assert_eq!(world.heap.release(&world.supply, held), Ok(()));
    assert_eq!(world.heap.verify(), Ok(()));
}

/// A page whose holder doesn't come back is gone round: to another page, then to a new one; only when there is
/// no memory for one is the answer "busy", never "none".
#[test]
fn a_page_that_stays_locked_is_gone_round() {
    let world = World::with_patience(2, 12, 1 << 40, 10);
    let first = alloc(&world, 16).unwrap();
    let held = world.heap.hold(0).unwrap();
    let second = alloc(&world, 3000).unwrap();
    assert_eq!((world.pages(), second - first), (2, 4096));
    assert_eq!(alloc(&world, 1000), Some(second + 3008));
    assert_eq!(world.heap.alloc(&world.supply, 1000), Err(HeapError::Busy));
    // A free doesn't wait: the holder finds the mark.
    world.free(first);
    assert_eq!(world.heap.free(&world.supply, first), Err(HeapError::Free));
    assert_eq!(world.heap.size_of(first), Err(HeapError::Free));
    assert_eq!(world.heap.release(&world.supply, held), Ok(()));
    assert_eq!(world.heap.verify(), Ok(()));
    assert_eq!(alloc(&world, 3200), Some(first));
}
