//! Bins and their queues: what one thread keeps of one class.
//!
//! A bin has at most one *current* slab (state HELD), whose free word the hot path pops from, and a queue
//! of slabs (state QUEUED), a ring that is linked both ways through the slabs' descriptors by slot number plus
//! one, first in, first out: letting free items gather before a slab is used again halves the cost of a
//! large live set against last in, first out (docs/DECISIONS.md). A slab that becomes current moves to the end of
//! the queue and stays linked there; only one that was never queued, or whose links are in use elsewhere, is not.
//!
//! A slab's `linked` word names the thread and the class in whose queue its links are in use. It is
//! written by that thread alone; a slab may be stolen, carved again and even be HELD elsewhere while it
//! is still linked here, so popping it is followed by a claim that may fail.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::num::NonZeroUsize;

use super::SlabTier;
use super::local::LocalHeap;
use super::protocol::Slab;
use crate::segment::Slots;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicPtr, AtomicU64};

/// One thread's part of one class. Only the owning thread touches it, but for `word` (the child of a fork and the
/// destroyer of a cache do so when no owner runs).
#[repr(C)]
pub struct Bin {
    /// The free word that the hot path pops from; a word that is always zero when there is no current slab, and another such word, the
    /// local heap's `lent`, since somebody wanted the current slab: then it may be another's by now. Read only behind an announcement of
    /// this bin; only the owner makes it point to anything else than `lent`.
    word: AtomicPtr<AtomicU64>,
    /// Address of the item that bit 0 of `word` stands for.
    pub(super) base: Cell<usize>,
    /// Bytes from item to item.
    pub(super) size: Cell<u32>,
    /// The current slab: its slot plus one, 0 for none.
    pub(super) current: Cell<u32>,
    /// First of the queue: slot plus one, 0 for none. The last is the one before it in the ring.
    head: Cell<u32>,
    /// Which word of the current slab `word` is, and how many the slab has.
    at: Cell<u16>,
    used: Cell<u16>,
}

impl Bin {
    /// A bin with nothing in it, which pops from `zero`, a word that is always zero.
    #[cfg(not(loom))]
    pub const fn new(zero: *const AtomicU64) -> Self {
        Self::of(AtomicPtr::new(zero.cast_mut()))
    }

    /// As above.
    #[cfg(loom)]
    pub fn new(zero: *const AtomicU64) -> Self {
        Self::of(AtomicPtr::new(zero.cast_mut()))
    }

    const fn of(word: AtomicPtr<AtomicU64>) -> Self {
        Self {
            word,
            base: Cell::new(0),
            size: Cell::new(0),
            current: Cell::new(0),
            head: Cell::new(0),
            at: Cell::new(0),
            used: Cell::new(0),
        }
    }

    /// The word that it pops from. Behind an announcement.
    #[inline(always)]
    pub(super) fn word(&self) -> &AtomicU64 {
        // SAFETY: `word` points to a descriptor's word or to one that is always zero; they live as long as the bin.
        unsafe { &*self.word.load(Relaxed) }
    }

    /// Takes the lowest free item of the current word: its address, or None when the word has none. The bin is one of `local`'s.
    ///
    /// The hot path of every allocation. Relaxed: only the owner writes the word while the slab is HELD.
    #[inline(always)]
    pub fn pop(&self, local: &LocalHeap) -> Option<NonZeroUsize> {
        // So that one who wants the slab knows that we may store to it. A plain move.
        local.announce_bin(self);
        self.pop_announced()
    }

    /// As above, behind an announcement.
    #[inline(always)]
    pub(super) fn pop_announced(&self) -> Option<NonZeroUsize> {
        let word = self.word();
        let free = word.load(Relaxed);
        if free == 0 {
            return None;
        }
        word.store(free & (free - 1), Relaxed);
        let address = self.base.get() + free.trailing_zeros() as usize * self.size.get() as usize;
        // SAFETY: a word with a set bit belongs to a slab, and no slab lies at address 0.
        Some(unsafe { NonZeroUsize::new_unchecked(address) })
    }

    /// Takes an item from another word of the current slab, behind the current one or around: what the hot path does next when its word
    /// has none left. The bin is one of `local`'s, and announced.
    #[inline(always)]
    pub fn advance(&self, local: &LocalHeap) -> Option<NonZeroUsize> {
        if self.used.get() > 1 { self.other_word(local) } else { None }
    }

    #[inline(never)]
    fn other_word(&self, local: &LocalHeap) -> Option<NonZeroUsize> {
        if self.is_lent(local) {
            return None;
        }
        let at = self.at.get();
        let slab = local.slab_at(self.current.get().checked_sub(1)? as usize);
        let free = |w: &u16| slab.free_word(*w as usize).load(Relaxed) != 0;
        let w = (at + 1..self.used.get()).find(free).or_else(|| (0..at).find(free))?;
        self.point_to(slab.free_word(w as usize));
        let words = isize::from(w as i16 - at as i16);
        self.base.set(self.base.get().wrapping_add_signed(words * 64 * self.size.get() as isize));
        self.at.set(w);
        self.pop_announced()
    }

    /// Pops from `word` from now on. Relaxed: others compare it with what they know.
    #[inline(always)]
    fn point_to(&self, word: *const AtomicU64) {
        self.word.store(word.cast_mut(), Relaxed);
    }

    /// Whether somebody wanted the current slab and may have it: see `loosen`. Behind an announcement, for the owner.
    #[inline(always)]
    pub(super) fn is_lent(&self, local: &LocalHeap) -> bool {
        core::ptr::eq(self.word.load(Relaxed), &raw const local.lent)
    }

    /// For one who wants the current slab: it is not found behind this bin of `local`'s any more, unless the owner is about to say otherwise.
    pub(super) fn lend(&self, local: &LocalHeap) {
        // Relaxed: the barrier follows.
        self.point_to(&raw const local.lent);
    }

    /// Whether it has a current slab.
    #[inline(always)]
    pub fn has_current(&self) -> bool {
        self.current.get() != 0
    }

    /// Which word of the current slab `word` is.
    pub(super) fn word_index(&self) -> usize {
        self.at.get() as usize
    }

    /// Pops from word `w` of `slab`, which begins at `address`, from now on.
    #[inline(always)]
    pub(super) fn point(&self, slab: &Slab<'_>, w: usize, address: usize) {
        let size = slab.item_size();
        self.point_to(slab.free_word(w));
        self.at.set(w as u16);
        self.used.set(slab.used() as u16);
        self.base.set(address + w * 64 * size);
        // Slabs of larger items hold one array and are never current.
        self.size.set(size as u32);
    }

    /// Has no current slab any more.
    pub(super) fn reset(&self, zero: *const AtomicU64) {
        self.point_to(zero);
        self.used.set(0);
        self.current.set(0);
    }

    /// Holds nothing any more, whatever it held.
    pub(super) fn clear(&self, zero: *const AtomicU64) {
        self.reset(zero);
        self.head.set(0);
    }

    /// The first slab of the queue.
    pub(super) fn first(&self) -> Option<usize> {
        self.head.get().checked_sub(1).map(|slot| slot as usize)
    }

    /// Whether the queue holds another slab than this one.
    pub(super) fn has_other(&self, slab: &Slab<'_>) -> bool {
        let me = slab.index() as u32 + 1;
        self.head.get() != 0 && (self.head.get() != me || slab.links().0 != me)
    }

    /// Whether the queue holds no slab but this one, which is in it, and perhaps the current one.
    pub(super) fn is_alone(&self, slab: &Slab<'_>) -> bool {
        let (next, previous) = slab.links();
        next == slab.index() as u32 + 1 || next == previous && next == self.current.get()
    }

    /// Moves the head of the queue to its end.
    #[inline(always)]
    pub(super) fn rotate(&self, head: &Slab<'_>) {
        self.head.set(head.links().0);
    }

    /// Moves `slab`, which is in the queue, to its end.
    pub(super) fn to_end(&self, slots: &Slots, slab: &Slab<'_>) {
        if self.head.get() == slab.index() as u32 + 1 {
            self.rotate(slab);
        } else {
            self.dequeue(slots, slab);
            self.enqueue(slots, slab);
        }
    }

    /// Appends `slab`, which is linked nowhere.
    pub(super) fn enqueue(&self, slots: &Slots, slab: &Slab<'_>) {
        let me = slab.index() as u32 + 1;
        let Some(first) = self.first() else {
            slab.set_links(me, me);
            return self.head.set(me);
        };
        let first = Slab::new(slots.slot(first));
        let tail = first.links().1;
        slab.set_links(first.index() as u32 + 1, tail);
        let last = Slab::new(slots.slot((tail as usize).saturating_sub(1)));
        last.set_links(me, last.links().1);
        first.set_links(first.links().0, me);
    }

    /// Takes `slab` out of this queue, wherever in it it stands.
    pub(super) fn dequeue(&self, slots: &Slots, slab: &Slab<'_>) {
        let me = slab.index() as u32 + 1;
        let (next, previous) = slab.links();
        if next == me {
            return self.head.set(0);
        }
        let p = Slab::new(slots.slot((previous as usize).saturating_sub(1)));
        p.set_links(next, p.links().1);
        let n = Slab::new(slots.slot((next as usize).saturating_sub(1)));
        n.set_links(n.links().0, previous);
        if self.head.get() == me {
            self.head.set(next);
        }
    }
}

impl SlabTier {
    /// Puts an own slab in the queue of its class, `wanted`. False when its links are still in use in another thread's queue,
    /// from which it was stolen: then it can't be queued here.
    pub(super) fn link(&self, local: &LocalHeap, slab: &Slab<'_>, wanted: u32) -> bool {
        if slab.linked() == (local.id, wanted) {
            return true;
        }
        self.unlink_anywhere(local, slab, wanted);
        // An empty slab may be stolen, carved and adopted by others between our adoption and this line, so that two
        // threads link it at once: the one that wins the word may write the links. If that is the one that doesn't own
        // the slab any more, its queue holds a slab that can't be claimed, as after any other theft.
        let bin = local.bin(wanted as usize).filter(|_| slab.claim_links(local.id, wanted));
        if let Some(bin) = bin {
            bin.enqueue(&self.slots, slab);
        }
        bin.is_some()
    }

    /// As [`Self::unlink`], for a slab of the thread's of class `own` that may have been stolen from its queue of another class and cut anew: that queue is one
    /// that others look through if a cache ends.
    pub(super) fn unlink_anywhere(&self, local: &LocalHeap, slab: &Slab<'_>, own: u32) {
        let (thread, class) = slab.linked();
        if thread != local.id {
            return;
        }
        if class == own {
            self.unlink(local, slab);
        } else {
            self.undisturbed(|| self.unlink(local, slab));
        }
    }

    /// Takes `slab` out of the queue of `local` that it is linked in, if any. That is one of a class in use, or nobody else looks through queues.
    pub(super) fn unlink(&self, local: &LocalHeap, slab: &Slab<'_>) {
        let (thread, class) = slab.linked();
        if thread != local.id {
            return;
        }
        if let Some(bin) = local.bin(class as usize) {
            bin.dequeue(&self.slots, slab);
        }
        slab.unlink();
    }
}
