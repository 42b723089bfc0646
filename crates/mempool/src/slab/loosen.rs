//! Loosening: making slabs of a thread that may never run again nobody's, so that others get at what is free there.
//!
//! The owner of a slab stores plainly to its `free` words: it allocates from the current slab behind a look at its bin's word, and frees
//! into that one and the queued ones behind a look at the owner word. Nobody can take from a word that may be stored to at any moment.
//! So each thread *announces* before such a look which bin it is about to allocate from, or which slab it is about to free into,
//! in a word of its local heap. Whoever wants the slab puts a mark on the owner word and, if it is current, makes the bin's word point
//! to one that is always zero; lets every thread of the process pass a barrier (a system call); and then reads what the owner has
//! announced:
//!
//! ```text
//!  owner                                   thief
//!  announced = bin or slab  (Release)      owner word: QUEUED(t) -> TAPPED(t, MARK), or HELD(t) -> HELD(t, MARK)
//!                                          bin's word -> zero
//!  light fence                             heavy fence: a barrier in every thread
//!  look at the bin's word or owner word    look at what t announced   (Acquire)
//!  store to the slab's free word           owner word: -> NOBODY, or back
//! ```
//!
//! The barrier falls somewhere into what the owner does. If it falls behind an announcement, the thief reads it or a later
//! one; if before, the owner's look finds the mark, and it frees remotely, or it finds zero and comes to [`SlabTier::current`]. An
//! announcement of something else comes after the stores to this slab and brings them along. So when the owner has announced neither
//! this slab nor, if it is current, its bin, it is not about to store to the slab, nor will be, and the slab becomes nobody's. Otherwise
//! the mark is taken away again: the one slab that a thread has used last cannot be had.
//!
//! So a slab that a thread has HELD is either what the word of its bin leads to, or the thread has announced that bin.
//!
//! The bin's word stays as it is then. An owner that finds it so looks at the owner word: marked or not, a slab that names the owner
//! is its own again after one compare-exchange, of which the thief's is the other side; if it names somebody else the bin has
//! none. Nobody waits. What the owner stores to its bin's word and to the owner word of its current slab it stores plainly,
//! behind an announcement; so the thief's last look is whether the bin's word is zero still, and its last step compares the
//! very owner word that it made.
//!
//! The light fence only keeps the compiler from changing the order; the models, which know no such barrier, have a sequentially
//! consistent fence on both sides instead. Where the system has no barrier nothing is loosened.

use super::protocol::{CACHE_BIT, Slab};
use super::{Bin, LocalHeap, SlabTier, owner_id};
use crate::segment::{Owner, State};
use crate::sync::Ordering::{Acquire, Release};

/// Set in the thread field of the owner word while somebody waits for the barrier: it is not the owner's number then, so that
/// the owner frees as others do.
const MARK: u32 = 1 << 30;
/// Slabs that are loosened behind one barrier.
const MOST: usize = 32;

/// What loosening needs of those who know the threads.
pub trait Owners {
    /// The local heap of `thread`; None when there is no such thread, or it is several. Of what is there only what the thread announces
    /// and the words of its bins are others' to look at.
    fn local(&self, thread: u32) -> Option<&LocalHeap>;
    /// Lets every thread of the process pass a barrier. False when that can't be done.
    fn barrier(&self) -> bool;
}

/// The thread that an owner word names, whatever else stands in that field.
pub const fn thread_of(owner: Owner) -> u32 {
    owner.thread() & !(CACHE_BIT | MARK)
}

/// Whether `owner` names `me`, marked or not.
pub(super) const fn is_of(owner: Owner, me: u32) -> bool {
    owner.thread() & !MARK == me
}

/// The thread field of `owner` without a mark.
pub(super) const fn unmarked(owner: Owner) -> u32 {
    owner.thread() & !MARK
}

impl LocalHeap {
    /// Says that the thread is about to free into the slab whose owner word is at `owner`. Before the look at that word.
    #[inline(always)]
    pub fn announce<T>(&self, owner: *const T) {
        self.say(owner as u64);
    }

    /// As [`Self::announce`], for a slab.
    #[inline(always)]
    pub fn announce_slab(&self, slab: &Slab<'_>) {
        self.announce(slab.slot.owner());
    }

    /// Says that the thread is about to use the current slab of `bin`, one of its own. Before the look at the bin's word.
    #[inline(always)]
    pub fn announce_bin(&self, bin: &Bin) {
        self.say(self.name_of(bin));
    }

    #[inline(always)]
    fn say(&self, name: u64) {
        if !crate::sync::is_heard() {
            return;
        }
        // Release: what was stored behind the announcement before comes before. Pairs with `is_at`.
        self.announced.store(name, Release);
        crate::sync::light_fence();
    }

    /// What is announced of a bin: where it lies, from the first one, in bytes. Small numbers are no addresses.
    #[inline(always)]
    fn name_of(&self, bin: &Bin) -> u64 {
        (core::ptr::from_ref(bin) as u64).wrapping_sub(self.first_bin() as u64)
    }

    /// Whether the thread may be about to store to `slab`, which it owns as `owner` says, and is of `class`.
    fn is_at(&self, slab: &Slab<'_>, owner: Owner, class: usize) -> bool {
        let announced = self.announced.load(Acquire);
        let current = || self.bin(class).is_none_or(|bin| announced == self.name_of(bin));
        announced == slab.name() || owner.is(State::Held) && current()
    }
}

impl Slab<'_> {
    /// Where its owner word is: what is announced.
    fn name(&self) -> u64 {
        core::ptr::from_ref(self.slot.owner()) as u64
    }

    /// QUEUED of a thread to TAPPED of that thread with a mark, or HELD to HELD with one: what the owner word says then.
    fn mark(&self, seen: Owner) -> Option<Owner> {
        let state = if seen.is(State::Queued) { State::Tapped } else { State::Held };
        let marked = seen.next(state, seen.thread() | MARK, 1);
        self.transit(seen, marked).then_some(marked)
    }

    /// A slab that the caller has marked, as `marked` says, becomes nobody's if `loose`, or if its owner has left meanwhile; else it is
    /// its owner's as before. Whether it is nobody's, and so needs a hint.
    fn unmark(&self, marked: Owner, loose: bool) -> bool {
        if marked.is(State::Held) {
            // Unless its owner has taken it back, and done with it whatever it wanted.
            let next = if loose { (State::Nobody, 0) } else { (State::Held, unmarked(marked)) };
            return self.transit(marked, marked.next(next.0, next.1, 1)) && loose;
        }
        loop {
            let seen = self.peek();
            let next = match unmarked(seen) {
                0 => seen.next(State::Nobody, 0, 1),
                _ if loose => seen.next(State::Nobody, 0, 1),
                owner => seen.next(State::Queued, owner, 1),
            };
            // Fails once at most: an owner leaves once.
            if self.transit(seen, next) {
                return next.state() == State::Nobody;
            }
        }
    }

    /// Whether it is the current slab of `me`, who has announced its bin; if somebody has marked it, it is not any more. Acquire: what
    /// others did with it meanwhile is seen.
    fn keep(&self, me: u32, class: usize) -> bool {
        loop {
            let seen = self.owner();
            // It may have gone back and been cut anew, for another bin of the same thread, too.
            if !seen.is(State::Held) || !is_of(seen, me) || self.shape().class as usize != class {
                return false;
            }
            // Fails only when the mark is set or taken away meanwhile, or the slab is nobody's.
            if seen.thread() == me || self.transit(seen, seen.next(State::Held, me, 1)) {
                return true;
            }
        }
    }
}

impl SlabTier {
    /// The current slab of `bin`, which is `local`'s for `class`; None when there is none, or somebody else has got it. For the owner, before
    /// anything else than a look at the bin's word leads it there, and before it makes another slab its own to allocate from.
    pub(super) fn current(&self, local: &LocalHeap, bin: &Bin, class: usize) -> Option<Slab<'_>> {
        local.announce_bin(bin);
        let slab = self.slab(bin.current.get().checked_sub(1)? as usize);
        if slab.keep(owner_id(local.id, class), class) {
            return Some(slab);
        }
        // It may be linked here still, as any slab that was stolen.
        bin.reset(self.zero);
        None
    }

    /// Exhaustion: makes slabs of other threads than `me` nobody's that these are not about to store to: those of `class` with free items, and
    /// current ones that are wholly empty, of any class. Some of them, and how many; 0 when there are no more. O(slots) and one
    /// barrier.
    pub fn loosen(&self, owners: &impl Owners, me: u32, class: Option<usize>) -> usize {
        let mut marked = [(0_u32, Owner(0)); MOST];
        let mut count = 0;
        for slot in 0..self.reach() {
            let slab = self.slab(slot);
            let Some(place) = marked.get_mut(count) else { break };
            if let Some(owner) = self.mark_for(owners, &slab, me, class) {
                *place = (slot as u32, owner);
                count += 1;
            }
        }
        if count == 0 {
            return 0;
        }
        let passed = owners.barrier();
        let loosened = marked.iter().take(count).filter(|&&(slot, owner)| {
            let slab = self.slab(slot as usize);
            let class = slab.shape().class as usize;
            // In this order: what the owner made its bin's word point to before it announced something else is seen.
            let away = |local: &LocalHeap| {
                let held = owner.is(State::Held);
                !local.is_at(&slab, owner, class) && (!held || local.bin(class).is_some_and(|bin| bin.is_lent(local)))
            };
            let nobodys = slab.unmark(owner, passed && owners.local(thread_of(owner)).is_some_and(away));
            if nobodys {
                self.set_hint(&slab);
            }
            nobodys
        });
        loosened.count()
    }

    /// Marks `slab` if it is one to be loosened: what its owner word says then.
    fn mark_for(&self, owners: &impl Owners, slab: &Slab<'_>, me: u32, class: Option<usize>) -> Option<Owner> {
        let seen = slab.owner();
        let (held, thread) = (seen.is(State::Held), thread_of(seen));
        if !held && !seen.is(State::Queued) || thread == me || unmarked(seen) != seen.thread() {
            return None;
        }
        // Looks without the mark first; they may be wrong either way.
        let shape = slab.shape();
        let wanted = class == Some(shape.class as usize) && shape.count == 0 && slab.has_free();
        let local = owners.local(thread).filter(|_| wanted || held && slab.is_empty())?;
        if local.is_at(slab, seen, shape.class as usize) {
            return None;
        }
        let marked = slab.mark(seen)?;
        // The class is that of the owner word that was marked.
        if let Some(bin) = local.bin(shape.class as usize).filter(|_| held) {
            bin.lend(local);
        }
        Some(marked)
    }
}
