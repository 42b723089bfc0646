//! One heap page: chunks as bits, and an index (bins and tree) that finds them.
//!
//! A page is one slot. For each granule of 16 bytes two bits lie in the slot's descriptor:
//!
//! ```text
//!  start  used
//!    0     0    a granule inside a chunk
//!    1     0    a free chunk begins here
//!    1     1    an object begins here
//!    0     1    never
//! ```
//!
//! A chunk ends where the next one begins, or with the page. The bits are the truth, after every single
//! store; the index only says where to look. That dictates the order of stores:
//!
//! - split: start bit of the remainder, then the used bit of the object
//! - free: the used bit alone; merge: the start bit of the right chunk alone
//! - grow an object: start bit of what remains of the free chunk behind it, then that chunk's start bit
//!
//! `start` is written only under the page's lock, `used` by anybody who frees, so it is always changed by
//! a read-modify-write. Who clears a used bit has freed the object: two frees at once have one winner.
//! A live object's end is stable without the lock, because the chunk behind it can't lose its start bit
//! while the object in front of it is in use.
#![allow(unsafe_code)]

use super::tree::{Damaged, Tree};
use super::{HeapFault, LOT, step};
use crate::segment::Slot;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// The first of the cold words that hold the heads of the bins. The two before it are not the heap's: a slab that was
/// stolen from a thread's queue leaves its links there until that thread takes it out (slab room, `queue`).
pub(super) const HEADS: usize = 2;
/// The word beside the owner word holds the tree's root (lower 16 bits) and the clock (the others): the heap's tick at
/// which the page was made, and operations on the page since the last lot.
const CLOCK_SHIFT: u32 = 16;

/// A page, seen through its descriptor.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    slot: Slot<'a>,
    base: *mut u8,
}

/// What lies at a granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An object begins here.
    Object,
    /// Inside the object that begins at this granule.
    Inside(usize),
    /// In a free chunk.
    Free,
}

impl<'a> Page<'a> {
    /// The page in `slot`, whose memory begins at `base`.
    ///
    /// # Safety
    /// The slot's memory is valid, and while the slot is a heap page nobody but the heap uses what the bits
    /// say is free.
    pub(super) unsafe fn new(slot: Slot<'a>, base: *mut u8) -> Self {
        Self { slot, base }
    }

    /// Granules in the page.
    pub(super) fn units(&self) -> usize {
        self.slot.words() * 64
    }

    pub(super) fn tree(&self) -> Tree<'a> {
        let key = (self.slot.index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // SAFETY: the slot's memory is valid (contract of `new`), and only free chunks get inserted.
        unsafe { Tree::new(self.base, self.units(), key, self.slot.recip()) }
    }

    /// Makes the page one free chunk. The caller alone knows the slot.
    pub(super) fn make(&self, tick: u64) {
        for w in 0..self.slot.words() {
            step();
            self.slot.free(w).store(u64::from(w == 0), Relaxed);
            self.slot.remote(w).store(0, Relaxed);
        }
        self.set_clock(tick * LOT);
        self.clear_chunks();
        // Where there is no node none is damaged, and the chunk is inside the page.
        let _ = self.insert_chunk(0, self.units() as u16);
    }

    /// The tick at which the page was made.
    pub(super) fn birth(&self) -> u64 {
        self.clock() / LOT
    }

    /// Counts an operation; whether it completes a lot. Under the lock.
    pub(super) fn operation(&self) -> bool {
        let clock = self.clock();
        let lot = clock % LOT == LOT - 1;
        self.set_clock(if lot { clock + 1 - LOT } else { clock + 1 });
        lot
    }

    fn clock(&self) -> u64 {
        self.slot.recip().load(Relaxed) >> CLOCK_SHIFT
    }

    /// Under the page's lock, as the root.
    fn set_clock(&self, clock: u64) {
        let root = self.slot.recip().load(Relaxed) & ((1 << CLOCK_SHIFT) - 1);
        self.slot.recip().store(clock << CLOCK_SHIFT | root, Relaxed);
    }

    /// The descriptor.
    pub(super) fn slot(&self) -> &Slot<'a> {
        &self.slot
    }

    /// Whether a chunk begins at `at`.
    pub(super) fn is_start(&self, at: usize) -> bool {
        self.slot.free(at / 64).load(Relaxed) >> (at % 64) & 1 != 0
    }

    /// Whether an object begins at `at`. Acquire: pairs with [`Page::clear_used`], so that who sees an
    /// object freed may write into it.
    pub(super) fn is_used(&self, at: usize) -> bool {
        self.slot.remote(at / 64).load(Acquire) >> (at % 64) & 1 != 0
    }

    fn set_start(&self, at: usize) {
        step();
        let word = self.slot.free(at / 64);
        // Only the lock's holder writes start words.
        word.store(word.load(Relaxed) | 1 << (at % 64), Relaxed);
    }

    fn clear_start(&self, at: usize) {
        step();
        let word = self.slot.free(at / 64);
        word.store(word.load(Relaxed) & !(1 << (at % 64)), Relaxed);
    }

    fn set_used(&self, at: usize) {
        step();
        // Release: whoever frees the object reads it, and finds the start bits that delimit it.
        self.slot.remote(at / 64).fetch_or(1 << (at % 64), Release);
    }

    /// Frees the object at `at`: `true` for the one caller that did it.
    pub(super) fn clear_used(&self, at: usize) -> bool {
        step();
        // Release: the program's last writes to the object come before the next owner's first.
        self.slot.remote(at / 64).fetch_and(!(1 << (at % 64)), AcqRel) >> (at % 64) & 1 != 0
    }

    /// Where the chunk after `at` begins; the page's end if there is none.
    pub(super) fn next_start(&self, at: usize) -> usize {
        let (mut w, from) = ((at + 1) / 64, (at + 1) % 64);
        let mut mask = u64::MAX << from;
        while w < self.slot.words() {
            let bits = self.slot.free(w).load(Relaxed) & mask;
            if bits != 0 {
                return w * 64 + bits.trailing_zeros() as usize;
            }
            mask = u64::MAX;
            w += 1;
        }
        self.units()
    }

    /// Where the chunk that holds granule `at` begins. The first granule is always a start.
    pub(super) fn chunk_of(&self, at: usize) -> usize {
        let mut mask = u64::MAX >> (63 - at % 64);
        for w in (0..=at / 64).rev() {
            let bits = self.slot.free(w).load(Relaxed) & mask;
            if bits != 0 {
                return w * 64 + bits.ilog2() as usize;
            }
            mask = u64::MAX;
        }
        0
    }

    /// What lies at granule `at`.
    pub(super) fn place(&self, at: usize) -> Place {
        if self.is_used(at) {
            return Place::Object;
        }
        let start = self.chunk_of(at);
        if start != at && self.is_used(start) { Place::Inside(start) } else { Place::Free }
    }

    /// Whether a free chunk begins at `at`.
    pub(super) fn is_free(&self, at: usize) -> bool {
        self.is_start(at) && !self.is_used(at)
    }

    /// Whether the page holds no object.
    pub(super) fn is_empty(&self) -> bool {
        (0..self.slot.words()).all(|w| self.slot.remote(w).load(Acquire) == 0)
    }

    /// Takes the best fit for `units` granules: its offset, or `None` if nothing is large enough.
    pub(super) fn take(&self, units: usize) -> Result<Option<usize>, Damaged> {
        let Some((at, size)) = self.find_delete_chunk(units as u16)? else { return Ok(None) };
        let (at, size) = (usize::from(at), usize::from(size));
        // The bits have the last word: an old node that somebody wrote back is no chunk.
        if !self.is_free(at) || self.next_start(at) != at + size {
            return Err(Damaged);
        }
        if size > units {
            self.set_start(at + units);
            self.insert_chunk((at + units) as u16, (size - units) as u16)?;
        }
        self.set_used(at);
        Ok(Some(at))
    }

    /// Puts the free chunk at `at`, which is not in the tree, into the tree, merged with its free
    /// neighbours. Returns the size of what came out.
    pub(super) fn absorb(&self, at: usize) -> Result<usize, Damaged> {
        let (mut begin, mut end) = (at, self.next_start(at));
        while end < self.units() && self.is_free(end) {
            let next = self.next_start(end);
            self.delete_chunk(end as u16, (next - end) as u16)?;
            self.clear_start(end);
            end = next;
        }
        while begin > 0 {
            let before = self.chunk_of(begin - 1);
            if !self.is_free(before) {
                break;
            }
            self.delete_chunk(before as u16, (begin - before) as u16)?;
            self.clear_start(begin);
            begin = before;
        }
        self.insert_chunk(begin as u16, (end - begin) as u16)?;
        Ok(end - begin)
    }

    /// Sees to it that all free chunks that begin in word `w` are in the tree; returns the largest size
    /// that was put there. A chunk may have been merged, allocated again or put there by somebody else
    /// since its freer left its mark: all the same, it is looked for.
    pub(super) fn settle(&self, w: usize) -> Result<usize, Damaged> {
        let mut largest = 0;
        let mut bits = self.slot.free(w).load(Relaxed) & !self.slot.remote(w).load(Acquire);
        while bits != 0 {
            let at = w * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if self.is_free(at) && !self.contains_chunk(at as u16, (self.next_start(at) - at) as u16)? {
                largest = largest.max(self.absorb(at)?);
            }
        }
        Ok(largest)
    }

    /// Grows the object at `at` to `units` granules if the chunk behind it is free and large enough.
    pub(super) fn extend(&self, at: usize, units: usize) -> Result<bool, Damaged> {
        let (end, want) = (self.next_start(at), at + units);
        if want <= end {
            return Ok(true);
        }
        if want > self.units() || !self.is_free(end) {
            return Ok(false);
        }
        let next = self.next_start(end);
        if want > next {
            return Ok(false);
        }
        self.delete_chunk(end as u16, (next - end) as u16)?;
        if want < next {
            self.set_start(want);
            self.insert_chunk(want as u16, (next - want) as u16)?;
        }
        self.clear_start(end);
        Ok(true)
    }

    /// Merges all neighbouring free chunks and builds the tree anew, from the bits alone. Returns the size
    /// of the largest free chunk.
    pub(super) fn defragment(&self) -> usize {
        let tree = self.tree();
        self.clear_chunks();
        let (mut at, mut largest) = (0, 0);
        while at < self.units() {
            let mut end = self.next_start(at);
            if self.is_free(at) {
                while end < self.units() && self.is_free(end) {
                    let next = self.next_start(end);
                    self.clear_start(end);
                    // An old node must not look like a listed one later.
                    tree.wipe(end as u16);
                    end = next;
                }
                // Can't be damaged: each node was written a moment ago, and if a stray write comes in
                // between, the next walk finds it.
                let _ = self.insert_chunk(at as u16, (end - at) as u16);
                largest = largest.max(end - at);
            }
            at = end;
        }
        largest
    }

    /// Calls `f(offset, granules, used)` for each chunk, in order of addresses.
    pub(super) fn for_each_chunk(&self, f: &mut dyn FnMut(usize, usize, bool)) {
        let mut at = 0;
        while at < self.units() {
            let end = self.next_start(at);
            f(at, end - at, self.is_used(at));
            at = end;
        }
    }

    /// Checks bits and tree against each other; the largest free chunk if all is well. Exact while nobody
    /// else is in the page.
    pub(super) fn verify(&self) -> Result<usize, HeapFault> {
        let index = self.slot.index;
        if !self.is_start(0) {
            return Err(HeapFault::Bits { page: index });
        }
        for w in 0..self.slot.words() {
            if self.slot.remote(w).load(Acquire) & !self.slot.free(w).load(Relaxed) != 0 {
                return Err(HeapFault::Bits { page: index });
            }
        }
        let (mut chunks, mut largest, mut before, mut apart) = (0, 0, true, true);
        self.for_each_chunk(&mut |_, size, used| {
            if !used {
                chunks += 1;
                largest = largest.max(size);
                apart &= before;
            }
            before = used;
        });
        if !apart {
            return Err(HeapFault::Unmerged { page: index });
        }
        let mut right = true;
        let nodes = self.linearize_chunks(&mut |at, size| {
            let (at, size) = (usize::from(at), usize::from(size));
            right &= self.is_free(at) && self.next_start(at) == at + size;
        });
        if nodes == Ok(chunks) && right { Ok(largest) } else { Err(HeapFault::Tree { page: index }) }
    }
}
