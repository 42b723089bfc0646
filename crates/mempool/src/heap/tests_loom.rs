//! Models of the heap: every order of two threads with up to two preemptions.
#![allow(unsafe_code)]

use super::{Heap, HeapError, HeapParts, Runs, control_words};
use crate::segment::slot::{COLD, SlotGeometry, Slots};
use crate::sync::{AtomicU64, Ordering::Relaxed};
use loom::thread;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

const SHIFT: u32 = 12;

/// Free slots, and how many were ever taken. No scheduling point lies inside its lock. Writes [`OTHERS`] into the
/// descriptor of a slot that is given, as another tier may.
struct Supply(Mutex<(Vec<usize>, usize)>, Slots);

/// What another tier has in the cold words.
const OTHERS: u64 = 0x0123_4567_89ab_cdef;

impl Runs for Supply {
    fn take_slot(&self) -> Option<usize> {
        let mut supply = self.0.lock().unwrap();
        let slot = supply.0.pop()?;
        supply.1 += 1;
        Some(slot)
    }
    fn give_slot(&self, slot: usize, before_clear: &mut dyn FnMut()) {
        before_clear();
        let slot_words = self.1.slot(slot);
        (0..COLD).for_each(|k| slot_words.cold(k).store(OTHERS, Relaxed));
        (0..slot_words.words()).for_each(|w| slot_words.free(w).store(u64::MAX, Relaxed));
        self.0.lock().unwrap().0.push(slot);
    }
}

struct World {
    heap: Heap,
    supply: Supply,
    data: *mut u8,
    layout: Layout,
    _words: (Box<[AtomicU64]>, Box<[AtomicU64]>),
}

// SAFETY: `data` is only used through the heap.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    fn new(slots: usize, lifetime: u64) -> Arc<Self> {
        let geometry = SlotGeometry::new(SHIFT);
        let zeros = |n: usize| -> Box<[AtomicU64]> { (0..n).map(|_| AtomicU64::new(0)).collect() };
        let (control, table) = (zeros(control_words(slots)), zeros(geometry.stride * slots));
        let layout = Layout::from_size_align(slots << SHIFT, 1 << SHIFT).unwrap();
        // SAFETY: the layout has a size.
        let data = unsafe { alloc_zeroed(layout) };
        // SAFETY: the words live in the result.
        let slots_table = unsafe { Slots::new(table.as_ptr(), slots, geometry) };
        let parts = HeapParts {
            control: control.as_ptr(),
            slots: slots_table,
            data,
            limit: 3200,
            lifetime,
            patience: u32::MAX,
        };
        // SAFETY: all parts live in the result and are used by this heap alone.
        let heap = unsafe { Heap::new(parts) };
        let supply = Supply(Mutex::new(((0..slots).rev().collect(), 0)), slots_table);
        Arc::new(Self { heap, supply, data, layout, _words: (control, table) })
    }

    fn alloc(&self, size: usize) -> Option<usize> {
        loop {
            match self.heap.alloc(&self.supply, size) {
                Ok(found) => return found.map(|p| p.as_ptr().addr()),
                Err(HeapError::Busy) => thread::yield_now(),
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    fn free(&self, address: usize) -> Result<(), HeapError> {
        self.heap.free(&self.supply, address)
    }

    fn live(&self) -> Vec<usize> {
        let mut live = Vec::new();
        self.heap.for_each_live(&mut |address, _| live.push(address));
        live
    }

    /// Nobody wrote into a descriptor that is not the heap's any more.
    fn left_alone(&self) {
        let free = self.supply.0.lock().unwrap().0.clone();
        for slot in free.into_iter().filter(|&slot| slot == 0) {
            let words = self.supply.1.slot(slot);
            assert!((0..COLD).all(|k| words.cold(k).load(Relaxed) == OTHERS), "a descriptor of others");
        }
    }

    /// Slots taken so far, and free ones.
    fn slots(&self) -> (usize, usize) {
        let supply = self.supply.0.lock().unwrap();
        (supply.1, supply.0.len())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.data, self.layout) }
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 50_000;
    builder.check(f);
}

/// Runs both at once and returns what they return.
fn both<A: 'static, B>(a: impl FnOnce() -> A + 'static, b: impl FnOnce() -> B) -> (A, B) {
    let other = thread::spawn(a);
    let mine = b();
    (other.join().unwrap(), mine)
}

#[test]
fn loom_heap_growers_make_one_page() {
    model(|| {
        let world = World::new(2, 1 << 40);
        let w = world.clone();
        let (a, b) = both(move || w.alloc(1000), || world.alloc(1000));
        assert!(a.is_some() && b.is_some() && a != b);
        assert_eq!((world.slots(), world.heap.verify()), ((1, 1), Ok(())));
    });
}

#[test]
fn loom_heap_two_frees_lose_nothing() {
    model(|| {
        let world = World::new(1, 1 << 40);
        let (a, b) = (world.alloc(16).unwrap(), world.alloc(16).unwrap());
        let w = world.clone();
        let freed = both(move || w.free(a), || world.free(b));
        assert_eq!(freed, (Ok(()), Ok(())));
        // No mark that nobody would look at: both chunks are found, merged into one.
        assert_eq!(world.alloc(3200).map(|p| p - a), Some(0));
        assert_eq!(world.heap.verify(), Ok(()));
    });
}

#[test]
fn loom_heap_double_free_has_one_winner() {
    model(|| {
        let world = World::new(1, 1 << 40);
        let (a, keep) = (world.alloc(16).unwrap(), world.alloc(16).unwrap());
        let w = world.clone();
        let freed = both(move || w.free(a), || world.free(a));
        assert!(matches!(freed, (Ok(()), Err(HeapError::Free)) | (Err(HeapError::Free), Ok(()))), "{freed:?}");
        assert_eq!((world.live(), world.heap.verify()), (std::vec![keep], Ok(())));
    });
}

#[test]
fn loom_heap_page_goes_back_beside_an_allocation() {
    model(|| {
        let world = World::new(2, 0);
        let a = world.alloc(16).unwrap();
        let w = world.clone();
        let (freed, b) = both(move || w.free(a), || world.alloc(16).unwrap());
        assert_eq!((freed, world.live(), world.heap.verify()), (Ok(()), std::vec![b], Ok(())));
        assert_eq!(world.slots().1, 1);
        world.left_alone();
    });
}

#[test]
fn loom_heap_last_two_frees_give_the_page_back_once() {
    model(|| {
        let world = World::new(1, 0);
        let (a, b) = (world.alloc(16).unwrap(), world.alloc(16).unwrap());
        let w = world.clone();
        let freed = both(move || w.free(a), || world.free(b));
        assert_eq!(freed, (Ok(()), Ok(())));
        if world.slots().1 == 1 {
            world.left_alone();
        }
        world.heap.return_empty(&world.supply);
        assert_eq!((world.slots(), world.heap.verify()), ((1, 1), Ok(())));
    });
}

#[test]
fn loom_heap_growing_an_object_beside_a_free() {
    model(|| {
        let world = World::new(1, 1 << 40);
        let (a, b) = (world.alloc(16).unwrap(), world.alloc(16).unwrap());
        let w = world.clone();
        let (freed, grown) = both(move || w.free(b), || world.heap.grow_in_place(a, 32));
        assert_eq!(freed, Ok(()));
        let size = if grown == Ok(true) { 32 } else { 16 };
        assert_eq!((world.heap.size_of(a), world.heap.verify()), (Ok(size), Ok(())));
    });
}
