//! Tests of the heap.
#![allow(unsafe_code)]

mod corrupt;
mod exhaustive;
mod fork;
mod oracle;
mod threads;
mod tree;

use super::{DEFAULT_PATIENCE, Heap, HeapParts, LARGEST_LIMIT, Runs, control_words};
use crate::segment::slot::{SlotGeometry, Slots};
use crate::sync::AtomicU64;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

/// A supplier that counts: `Some(slot)` are free, lowest first.
pub(super) struct Supply {
    free: Mutex<Vec<usize>>,
    pub(super) taken: std::sync::atomic::AtomicUsize,
    pub(super) given: std::sync::atomic::AtomicUsize,
}

impl Supply {
    fn new(slots: usize) -> Self {
        Self { free: Mutex::new((0..slots).rev().collect()), taken: 0.into(), given: 0.into() }
    }
    /// Slots nobody has.
    pub(super) fn left(&self) -> usize {
        self.free.lock().unwrap().len()
    }
}

impl Runs for Supply {
    fn take_slot(&self) -> Option<usize> {
        let slot = self.free.lock().unwrap().pop()?;
        self.taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(slot)
    }
    fn give_slot(&self, slot: usize, before_clear: &mut dyn FnMut()) {
        before_clear();
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(!free.contains(&slot), "slot {slot} given twice");
        free.push(slot);
        self.given.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A heap with everything under it.
pub(super) struct World {
    pub(super) heap: Heap,
    pub(super) supply: Supply,
    data: *mut u8,
    layout: Layout,
    _words: (Box<[AtomicU64]>, Box<[Line]>),
}

#[repr(align(64))]
struct Line(#[allow(dead_code)] [AtomicU64; 8]); // Read as words, through `Slots`.

// SAFETY: `data` is only used through the heap, and by tests within live objects.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

impl World {
    /// `slots` slots of `1 << shift` bytes; emptied pages go back after `lifetime`.
    pub(super) fn new(slots: usize, shift: u32, lifetime: u64) -> Self {
        Self::with_patience(slots, shift, lifetime, DEFAULT_PATIENCE)
    }

    pub(super) fn with_patience(slots: usize, shift: u32, lifetime: u64, patience: u32) -> Self {
        let geometry = SlotGeometry::new(shift);
        // Control words begin as zeros; of descriptors the heap must not rely on what was there.
        let dirt = |i: usize| AtomicU64::new((i as u64).wrapping_mul(0x0123_4567_89ab_cdef));
        let control: Box<[AtomicU64]> = (0..control_words(slots)).map(|_| AtomicU64::new(0)).collect();
        let lines = (0..geometry.stride * slots / 8).map(|i| Line(core::array::from_fn(|k| dirt(8 * i + k))));
        let lines: Box<[Line]> = lines.collect();
        // SAFETY: the lines are the words, aligned, and live in the result.
        let table = unsafe { Slots::new(lines.as_ptr().cast(), slots, geometry) };
        for index in 0..slots {
            table.slot(index).owner().store(0, crate::sync::Ordering::Relaxed);
        }
        let layout = Layout::from_size_align(slots << shift, 1 << shift).unwrap();
        // SAFETY: the layout has a size.
        let data = unsafe { alloc_zeroed(layout) };
        assert!(!data.is_null());
        let parts =
            HeapParts { control: control.as_ptr(), slots: table, data, limit: LARGEST_LIMIT, lifetime, patience };
        // SAFETY: all parts live in the result and are used by this heap alone.
        let heap = unsafe { Heap::new(parts) };
        Self { heap, supply: Supply::new(slots), data, layout, _words: (control, lines) }
    }

    pub(super) fn alloc(&self, size: usize) -> Option<usize> {
        self.heap.alloc(&self.supply, size).expect("sound heap").map(|p| p.as_ptr().addr())
    }

    pub(super) fn free(&self, address: usize) {
        assert_eq!(self.heap.free(&self.supply, address), Ok(()));
    }

    /// The bytes at `address`, in the world's memory.
    #[allow(clippy::mut_from_ref)] // It is memory of an object, not of the world.
    pub(super) fn bytes(&self, address: usize, size: usize) -> &mut [u8] {
        let offset = address - self.data.addr();
        assert!(offset + size <= self.layout.size());
        // SAFETY: inside the data area; tests use only objects that they own.
        unsafe { core::slice::from_raw_parts_mut(self.data.add(offset), size) }
    }

    pub(super) fn pages(&self) -> usize {
        let mut pages = 0;
        self.heap.for_each_page(&mut |_| pages += 1);
        pages
    }

    pub(super) fn live(&self) -> Vec<(usize, usize)> {
        let mut live = Vec::new();
        self.heap.for_each_live(&mut |address, size| live.push((address, size)));
        live
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.data, self.layout) }
    }
}

/// A small generator of numbers that look random.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) % below as u64) as usize
    }
}
