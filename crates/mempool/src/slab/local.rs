//! The local heap: one thread's set of bins, the lock-free front.
//!
//! It begins with a cache line of constants copied from the pool, so that the hot path finds all it needs
//! behind one thread-local pointer, and continues with one bin per class: the size classes here, the
//! classes of named caches behind them in memory. A thread without a local heap of its own points to
//! [`LocalHeap::none`], whose bins are empty and whose address range is empty too: no null check needed.
#![allow(unsafe_code)]

use core::cell::Cell;

use super::classes::{CLASSES, MAX_SMALL, class_of_granules};
use super::protocol::Slab;
use super::queue::Bin;
use crate::segment::{Slot, Slots};
use crate::sync::AtomicU64;
use crate::units::GRANULE;

/// Where the bin that serves a size lies behind the first one, in bytes, by size in granules: one load instead of a class and what follows
/// from it, and what is announced before the bin is used.
static PLACES: [u16; MAX_SMALL / GRANULE + 1] = places();

const fn places() -> [u16; MAX_SMALL / GRANULE + 1] {
    let mut places = [0; MAX_SMALL / GRANULE + 1];
    let mut granules = 0;
    while granules < places.len() {
        places[granules] = (class_of_granules(granules) * size_of::<Bin>()) as u16;
        granules += 1;
    }
    places
}

const _: () = assert!(size_of::<LocalHeap>() <= u16::MAX as usize);

/// The number of the local heap that threads without one of their own share; threads count from 2.
pub const SHARED: u32 = 1;

/// log2 of the bytes in the slots of all but small pools: those for which the hot path of free is compiled.
pub const WIDE: u32 = 16;

/// A thread's bins.
#[repr(C, align(64))]
pub struct LocalHeap {
    /// The thread's number in owner words, or [`SHARED`].
    pub(crate) id: u32,
    /// log2 of the bytes in a slot.
    pub(crate) shift: u8,
    /// By how much the product of an offset and a reciprocal is shifted for the place of a word in its line: see `front::words_of`.
    pub(crate) place: u8,
    /// [`SlotGeometry::line_mask`](crate::segment::SlotGeometry::line_mask) of the pool.
    pub(crate) lines: u16,
    /// Address of slot 0.
    pub(crate) data: usize,
    /// Bytes from there that belong to the pool.
    pub(crate) len: Cell<usize>,
    /// The whole slots in there, where those are [`WIDE`]; else 0.
    pub(crate) wide: Cell<usize>,
    /// Owner word of slot 0.
    pub(crate) hot: *const AtomicU64,
    /// `data` in slots: it is a multiple of theirs.
    pub(crate) first: usize,
    /// The owner word of the slab that the thread frees into or, as so many bytes from `bins`, the bin that it allocates from, now or
    /// when it did so last: see `loosen`. Others read it.
    pub(super) announced: AtomicU64,
    /// Words from one owner word to the next.
    pub(crate) stride: usize,
    /// Bytes in a slot, less one.
    pub(crate) mask: usize,
    /// Always zero: what the word of a bin points to since somebody else wanted its current slab.
    pub(super) lent: AtomicU64,
    /// Number of bins, at least `CLASSES`.
    count: u32,
    /// What the thread is in the midst of; the front knows what the bits mean.
    pub(crate) marks: Cell<u16>,
    /// The budget of the scope that the thread is in: its number plus one, 0 for none.
    pub(crate) budget: Cell<u8>,
    /// Of a retired one: its thread does not point to it any more. Guarded as `next`.
    left: Cell<bool>,
    /// The pool, null when it has ended; the front knows its type.
    pub(crate) pool: Cell<*const ()>,
    /// Where the best-fit heap served the thread last, in its own words. Of a retired one: the end of its OS pages.
    pub(crate) near: Cell<u64>,
    /// The whole slots in the data area, of any size.
    pub(crate) slots: Cell<usize>,
    /// Of a retired one: the next of the list that it is on. Guarded by the lock of the list.
    pub(crate) next: Cell<*const LocalHeap>,
    /// Of a retired one: the beginning of its OS pages.
    pages: Cell<usize>,
    bins: [Bin; CLASSES],
}

#[cfg(not(loom))]
const _: () = assert!(core::mem::offset_of!(LocalHeap, bins).is_multiple_of(64), "no bin lies in two cache lines");

impl LocalHeap {
    /// The local heap of a thread that has none: serves nothing, owns nothing. `zero` stays zero for ever.
    #[cfg(not(loom))]
    pub const fn none(zero: *const AtomicU64) -> Self {
        let mut bins = [const { Bin::new(core::ptr::null()) }; CLASSES];
        let mut class = 0;
        while class < CLASSES {
            bins[class] = Bin::new(zero);
            class += 1;
        }
        Self {
            id: u32::MAX,
            shift: 0,
            place: 0,
            lines: 0,
            data: 0,
            len: Cell::new(0),
            wide: Cell::new(0),
            mask: 0,
            hot: core::ptr::null(),
            stride: 0,
            announced: AtomicU64::new(0),
            lent: AtomicU64::new(0),
            count: CLASSES as u32,
            marks: Cell::new(0),
            budget: Cell::new(0),
            pool: Cell::new(core::ptr::null()),
            near: Cell::new(0),
            slots: Cell::new(0),
            first: 0,
            left: Cell::new(false),
            next: Cell::new(core::ptr::null()),
            pages: Cell::new(0),
            bins,
        }
    }

    /// Bytes of a local heap with bins for `classes` classes.
    pub const fn bytes(classes: usize) -> usize {
        size_of::<Self>() + classes.saturating_sub(CLASSES) * size_of::<Bin>()
    }

    /// Writes an empty local heap to `at`.
    ///
    /// # Safety
    /// `at` is aligned to a cache line and valid for writes of `bytes(classes)` bytes, which nobody else uses; `zero`
    /// stays zero and valid while the local heap is used; `classes >= CLASSES`.
    pub unsafe fn write(
        at: *mut Self,
        id: u32,
        slots: &Slots,
        data: (usize, usize),
        pool: *const (),
        classes: usize,
        zero: *const AtomicU64,
    ) {
        let geometry = slots.geometry();
        debug_assert!(data.0.is_multiple_of(geometry.bytes()));
        let whole = data.1 >> geometry.shift;
        let heap = Self {
            id,
            shift: geometry.shift as u8,
            place: geometry.place_shift() as u8 + 32,
            lines: geometry.line_mask() as u16,
            data: data.0,
            len: Cell::new(data.1),
            wide: Cell::new(if geometry.shift == WIDE { whole } else { 0 }),
            mask: geometry.bytes() - 1,
            hot: slots.hot_base(),
            stride: geometry.stride,
            announced: AtomicU64::new(0),
            lent: AtomicU64::new(0),
            count: classes as u32,
            marks: Cell::new(0),
            budget: Cell::new(0),
            pool: Cell::new(pool),
            near: Cell::new(0),
            slots: Cell::new(whole),
            first: data.0 >> geometry.shift,
            left: Cell::new(false),
            next: Cell::new(core::ptr::null()),
            pages: Cell::new(0),
            bins: core::array::from_fn(|_| Bin::new(zero)),
        };
        // SAFETY: valid for writes of more than this (contract).
        unsafe { at.write(heap) };
        for class in CLASSES..classes {
            // SAFETY: bin `class` lies within `bytes(classes)` bytes of `at`.
            unsafe { (&raw mut (*at).bins).cast::<Bin>().add(class).write(Bin::new(zero)) };
        }
    }

    /// Serves another thread from now on, with nothing in its bins, whatever was there. For that thread, whose directory entry it is: others
    /// may still look at what the last one announced.
    pub fn renew(&self, pool: *const (), zero: *const AtomicU64) {
        self.bins().for_each(|(_, bin)| bin.clear(zero));
        self.marks.set(0);
        self.budget.set(0);
        self.pool.set(pool);
        self.near.set(0);
    }

    /// Serves nothing, owns nothing and is of no pool from now on: the pool ends while its thread still points here, unless that is in
    /// the scope of a budget. It lies in the OS pages from the first of `pages` to the second. `zero` stays zero and valid for ever.
    pub fn retire(&self, zero: *const AtomicU64, pages: (usize, usize)) {
        for (_, bin) in self.bins() {
            bin.reset(zero);
        }
        [&self.len, &self.wide, &self.slots].into_iter().for_each(|bound| bound.set(0));
        // What lies behind the hot paths would go to it for more.
        self.pool.set(core::ptr::null());
        self.pages.set(pages.0);
        self.near.set(pages.1 as u64);
        self.left.set(self.budget.get() != 0);
    }

    /// Where the OS pages of a retired one begin and end.
    pub fn pages(&self) -> (usize, usize) {
        (self.pages.get(), self.near.get() as usize)
    }

    /// The thread of a retired one points to it no more.
    pub fn set_left(&self) {
        self.left.set(true);
    }

    /// Whether that is so.
    pub fn is_left(&self) -> bool {
        self.left.get()
    }

    /// The slab at `slot`, which must be one of the pool's: that of a current slab, or of an offset below `len`.
    #[inline(always)]
    pub(crate) fn slab_at(&self, slot: usize) -> Slab<'_> {
        debug_assert!(slot << self.shift < self.len.get());
        // SAFETY: the slot exists, and so does its descriptor; the pool outlives its local heaps.
        let slot =
            unsafe { Slot::at(self.hot.add(slot * self.stride), slot, u32::from(self.shift), self.lines as usize) };
        Slab::new(slot)
    }

    /// The bin of `class`, None when the local heap has none for it.
    #[inline(always)]
    pub fn bin(&self, class: usize) -> Option<&Bin> {
        // SAFETY: `write` made `count` bins.
        (class < self.count as usize).then(|| unsafe { self.bin_unchecked(class) })
    }

    /// The bin of `class`.
    ///
    /// # Safety
    /// `class < CLASSES`, or the local heap was written for more classes than `class`.
    #[inline(always)]
    pub unsafe fn bin_unchecked(&self, class: usize) -> &Bin {
        debug_assert!(class < self.count as usize);
        // SAFETY: the bins lie one behind the other (contract).
        unsafe { &*self.first_bin().add(class) }
    }

    /// Where the bins begin.
    #[inline(always)]
    pub(super) fn first_bin(&self) -> *const Bin {
        (&raw const self.bins).cast()
    }

    /// The bin of the size class that serves `size` bytes.
    ///
    /// # Safety
    /// `size <= MAX_SMALL`.
    #[inline(always)]
    pub unsafe fn bin_for(&self, size: usize) -> &Bin {
        debug_assert!(size <= MAX_SMALL);
        // SAFETY: the table has an entry for each number of granules up to MAX_SMALL (contract).
        let place = unsafe { *PLACES.get_unchecked(size.div_ceil(GRANULE)) };
        // SAFETY: the place of a size class's bin, which every local heap has.
        unsafe { &*self.first_bin().byte_add(place as usize) }
    }

    /// All bins with their classes.
    pub(super) fn bins(&self) -> impl Iterator<Item = (usize, &Bin)> {
        // SAFETY: `write` made `count` bins.
        (0..self.count as usize).map(|class| (class, unsafe { self.bin_unchecked(class) }))
    }
}
