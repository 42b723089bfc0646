//! The core: what a pool is made of, in its own metadata.
#![allow(unsafe_code)]

use core::fmt::Write;

use super::budget::Budgets;
use super::local::Threads;
use super::marks::Marks;
use super::reclaim::Reclaim;
use crate::config::{Small, Values};
use crate::frag::Frag;
use crate::heap::Heap;
use crate::os::{Os, Range};
use crate::segment::{Granted, Layout};
use crate::slab::{LocalHeap, SlabTier};
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::units::{FRAGMENT, FRAGMENT_SHIFT};

/// A pool. Lives in the segment's metadata, never moves, and is shared by all threads.
#[repr(C)]
pub struct Core {
    pub(crate) slabs: SlabTier,
    pub(crate) frag: Frag,
    pub(crate) heap: Heap,
    pub(crate) config: Values,
    pub(crate) os: &'static dyn Os,
    pub(crate) layout: Layout,
    /// The largest request that a size class serves; 0 when the slab tier serves none.
    pub(crate) max_small: usize,
    /// What its stores may do.
    pub(crate) parking: super::parking::Parking,
    /// Start of the metadata, where the header is.
    pub(crate) metadata: *mut u8,
    /// Address of slot 0.
    pub(crate) data: usize,
    /// Bytes from there to the end of the last slot, not all of which may be open.
    pub(crate) data_len: usize,
    /// The reservation, given back at the end; null and 0 when the memory is the caller's.
    pub(crate) reservation: (*mut u8, usize),
    /// Number of this pool in the process; never reused.
    pub(crate) serial: u64,
    /// Where a thread's words name its local heap in this pool: [`place_for`](super::place_for) the number.
    pub(crate) place: super::Place,
    pub(crate) threads: Threads,
    /// The next pool in the process's list; guarded by that list's lock.
    pub(crate) next: core::cell::Cell<*const Core>,
    /// Claims on cache table entries, one bit each.
    pub(crate) caches: *const AtomicU64,
    /// Whom to tell that memory runs low.
    pub(crate) reclaim: Reclaim,
    pub(crate) marks: Marks,
    /// Caps on what some caches may have together.
    pub(crate) budgets: Budgets,
    /// Runs of emptied slabs, for the next ones.
    pub(crate) spares: super::spares::Spares,
    /// Large runs that were parked, for all threads.
    pub(crate) common: super::parking::Common,
    /// What the pool got of what it was asked for at init.
    pub(crate) granted: Granted,
    pub(crate) events: Events,
    /// Requests refused on purpose, or watched.
    pub(crate) drill: super::drill::Drill,
    /// Writes who holds most: statistics are above the front, which therefore gets told whom to ask.
    pub(crate) write_holders: fn(&Core, &mut dyn Write) -> core::fmt::Result,
}

/// Counts of things that happen seldom. Relaxed throughout: they order nothing.
#[derive(Default)]
pub struct Events {
    /// Slabs carved.
    pub slabs: AtomicU64,
    /// Runs handed out to requests above the largest size class.
    pub runs: AtomicU64,
    /// Requests that found the pool exhausted at first.
    pub exhausted: AtomicU64,
    /// Requests that were refused in the end.
    pub refused: AtomicU64,
    /// Bytes that the pool has grown by since it was made.
    pub grown: AtomicU64,
    /// Of those, bytes that were to be locked and are not.
    pub grown_unlocked: AtomicU64,
    /// Of those, bytes that were to lie in huge OS pages and do not.
    pub grown_small: AtomicU64,
    /// Bytes and alignment of the last of them, alignment 0: there was none; and its class plus one, 0 for none.
    pub refused_size: AtomicU64,
    pub refused_align: AtomicU64,
    pub refused_class: AtomicU64,
    /// When the last verdict was written, in nanoseconds; 0: never.
    pub verdict_at: AtomicU64,
}

// SAFETY: all that changes after the pool is made are atomics, but for `next`, which the list's lock guards.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    /// The pool of a local heap; None for the one that serves nothing, and when the pool has ended.
    pub(crate) fn of(local: &LocalHeap) -> Option<&Core> {
        // SAFETY: null, or set by `Core::join` to the core that the local heap lies in; null again when that ends.
        unsafe { local.pool.get().cast::<Core>().as_ref() }
    }

    /// Whether `address` lies in the data area.
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.data) < self.data_len
    }

    /// The fragment at `address`, when it begins there.
    pub(crate) fn fragment_at(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.data);
        (offset < self.data_len && offset.is_multiple_of(FRAGMENT)).then_some(offset / FRAGMENT)
    }

    /// Whether the C library serves the requests.
    pub(crate) fn is_system(&self) -> bool {
        self.config.small == Small::System
    }

    /// The words of the metadata at `offset`.
    pub(crate) fn words(&self, offset: u64) -> *const AtomicU64 {
        // SAFETY: offsets of the layout lie inside the metadata and are multiples of a cache line.
        unsafe { self.metadata.add(offset as usize).cast::<AtomicU64>() }
    }

    /// Bytes of the segment at its largest, guards and metadata included.
    pub(crate) fn segment_bytes(&self) -> usize {
        // Around reserved huge OS pages lie addresses of that size, as guards.
        match self.reservation.1.saturating_sub(2 * self.granted.huge_page) {
            0 => self.layout.end as usize,
            bytes => bytes,
        }
    }

    /// Fragments in a slot.
    pub(crate) fn slot_fragments(&self) -> usize {
        1 << (self.slabs.slots.geometry().shift - FRAGMENT_SHIFT)
    }
}

impl Core {
    /// Defragments the heap, then gives whole free pages back to the OS. Bytes given back.
    pub(crate) fn trim(&self) -> usize {
        self.heap.defragment(self);
        self.slabs.steal_empty(self);
        self.frag.give_all_parked();
        self.give_shorts();
        // Huge OS pages that were set aside are kept: another process could take them, and the next touch would fail.
        if self.reservation.0.is_null() || self.granted.huge_page > 0 {
            return 0;
        }
        let page = self.os.os_page();
        let locked = self.is_locked();
        let mut release = |run: crate::frag::Run| {
            let (from, to) = (self.data + run.start * FRAGMENT, self.data + (run.start + run.len) * FRAGMENT);
            if !from.is_multiple_of(page) || !to.is_multiple_of(page) {
                return false;
            }
            // SAFETY: the page-frag tier has claimed the run for this call; its content is needed by nobody.
            unsafe { self.os.decommit(Range::new(from as *mut u8, to - from), locked) }.is_ok()
        };
        self.frag.trim(&mut release) * FRAGMENT
    }

    /// Counts a growth by `bytes` and what was granted of it.
    pub(crate) fn note_growth(&self, bytes: usize, granted: &Granted) {
        let count = |counter: &AtomicU64, bytes: usize| _ = counter.fetch_add(bytes as u64, Relaxed);
        count(&self.events.grown, bytes);
        if granted.short.lock.is_some() {
            count(&self.events.grown_unlocked, bytes);
        }
        if granted.short.huge_pages.is_some() {
            count(&self.events.grown_small, bytes - granted.huge.min(bytes));
        }
    }
}

/// The page-frag tier as the slab tier sees it: runs that begin at a slot.
impl crate::slab::Runs for Core {
    fn take(&self, fragments: usize, align: usize) -> Option<usize> {
        self.take_slab(fragments, self.slot_fragments().max(align / FRAGMENT))
    }

    fn give(&self, slot: usize, before_clear: &mut dyn FnMut()) {
        let shape = self.slabs.slab(slot).shape();
        if self.keep_spare(slot, shape.run, before_clear) || self.give_slots(slot, before_clear) {
            self.uncharge(shape.class as usize, shape.run);
        }
    }
}

impl crate::slab::Owners for Core {
    fn local(&self, thread: u32) -> Option<&LocalHeap> {
        self.local_of(thread)
    }

    fn barrier(&self) -> bool {
        self.os.barrier()
    }
}

impl Core {
    /// A run for a slab, at a multiple of `align` fragments, a slot at least: its slot.
    pub(super) fn take_slab(&self, fragments: usize, align: usize) -> Option<usize> {
        let slot = self.slot_fragments();
        // Whoever takes a parked run counts nothing.
        if align == slot
            && let Some(spare) = self.take_spare(fragments)
        {
            self.events.slabs.fetch_add(1, Relaxed);
            return Some(spare);
        }
        let run = self.frag.take(fragments, align)?;
        self.count_slab(fragments);
        Some(run.start / slot)
    }

    /// Gives the run of a slab or heap page back. False when it was gone already.
    fn give_slots(&self, slot: usize, before_clear: &mut dyn FnMut()) -> bool {
        match self.frag.give(slot * self.slot_fragments(), |_| before_clear()) {
            Ok(run) => {
                self.count_given(run.len);
                true
            }
            // Only a slab cut off in a fork can fail here: its run is gone already, its state is not.
            Err(_) => {
                before_clear();
                false
            }
        }
    }

    /// Says that a slab of so many fragments was taken.
    pub(super) fn count_slab(&self, fragments: usize) {
        self.count_taken(fragments);
        self.events.slabs.fetch_add(1, Relaxed);
    }
}

/// The page-frag tier as the heap tier sees it: single slots.
impl crate::heap::Runs for Core {
    fn take_slot(&self) -> Option<usize> {
        let slot = self.slot_fragments();
        let run = self.frag.take(slot, slot)?;
        self.count_taken(slot);
        Some(run.start / slot)
    }

    fn give_slot(&self, slot: usize, before_clear: &mut dyn FnMut()) {
        self.give_slots(slot, before_clear);
    }
}
