//! Loosening: making queued slabs of a thread that may never run again nobody's, so that others get at what the thread freed
//! itself.
//!
//! The owner of a queued slab frees into it by a plain store behind a look at the owner word, and nobody can take from a word
//! that may be stored to at any moment. So each thread *announces* before that look which slab it is about to free into,
//! in a word of its local heap. Whoever wants the slab puts a mark on the owner word, lets every thread of the process pass a
//! barrier (a system call), and then reads what the owner has announced:
//!
//! ```text
//!  owner                                   thief
//!  announced = slab         (Release)      owner word: QUEUED(t) -> TAPPED(t, MARK)
//!  light fence                             heavy fence: a barrier in every thread
//!  look at the owner word                  look at what t announced   (Acquire)
//!  store to the slab's free word
//! ```
//!
//! The barrier falls somewhere into what the owner does. If it falls behind an announcement, the thief reads it or a later
//! one; if before, the owner's look finds the mark, and it frees remotely. An announcement of another slab comes after the
//! stores to this one and brings them along. So when the owner has announced another slab (or none), it neither is about to store
//! to this one nor will be, and the slab becomes nobody's. Otherwise the mark is taken away again: the one slab that
//! a thread has freed into last cannot be had.
//!
//! The light fence only keeps the compiler from changing the order; the models, which know no such barrier, have a sequentially
//! consistent fence on both sides instead. Where the system has no barrier nothing is loosened.

use super::protocol::{CACHE_BIT, Slab};
use super::{LocalHeap, SlabTier};
use crate::segment::{Owner, State};
use crate::sync::Ordering::{Acquire, Release};

/// Set in the thread field of the owner word while somebody waits for the barrier: it is not the owner's number then, so that
/// the owner frees as others do.
const MARK: u32 = 1 << 30;
/// Slabs that are loosened behind one barrier.
const MOST: usize = 32;

/// What loosening needs of those who know the threads.
pub trait Owners {
    /// What `thread` announced last; None when there is no such thread, or it is several.
    fn announced(&self, thread: u32) -> Option<u64>;
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
        // Release: what was stored to the slab announced before comes before. Pairs with `announced`.
        self.announced.store(owner as u64, Release);
        crate::sync::light_fence();
    }

    /// As [`Self::announce`], for a slab.
    #[inline(always)]
    pub fn announce_slab(&self, slab: &Slab<'_>) {
        self.announce(slab.slot.owner());
    }

    /// What was announced last.
    pub fn announced(&self) -> u64 {
        self.announced.load(Acquire)
    }
}

impl Slab<'_> {
    /// Where its owner word is: what is announced.
    pub(super) fn name(&self) -> u64 {
        core::ptr::from_ref(self.slot.owner()) as u64
    }

    /// QUEUED of a thread to TAPPED of that thread with a mark.
    fn mark(&self, seen: Owner) -> bool {
        seen.state() == State::Queued && self.transit(seen, seen.next(State::Tapped, seen.thread() | MARK, 1))
    }

    /// A slab that the caller has marked becomes nobody's if `loose`, or if its owner has left meanwhile; else it is queued as
    /// before. Whether it is nobody's, and so needs a hint.
    fn unmark(&self, loose: bool) -> bool {
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
}

impl SlabTier {
    /// Exhaustion: makes queued slabs of `class` with free items nobody's, whose owners are other threads than `me` and not about
    /// to free into them. Some of them, and how many; 0 when there are no more. O(slots) and one barrier.
    pub fn loosen(&self, owners: &impl Owners, me: u32, class: usize) -> usize {
        let mut marked = [0_u32; MOST];
        let mut count = 0;
        for slot in 0..self.reach() {
            let slab = self.slab(slot);
            let seen = slab.owner();
            // A look without the mark first; it may be wrong either way.
            let wanted = seen.state() == State::Queued
                && thread_of(seen) != me
                && self.is_loosened_for(&slab, class)
                && owners.announced(thread_of(seen)).is_some_and(|name| name != slab.name());
            let Some(place) = marked.get_mut(count) else { break };
            if wanted && slab.mark(seen) {
                *place = slot as u32;
                count += 1;
            }
        }
        if count == 0 {
            return 0;
        }
        let passed = owners.barrier();
        let loosened = marked.iter().take(count).filter(|&&slot| {
            let slab = self.slab(slot as usize);
            let announced = owners.announced(thread_of(slab.peek()));
            let nobodys = slab.unmark(passed && announced.is_some_and(|name| name != slab.name()));
            if nobodys {
                self.set_hint(&slab);
            }
            nobodys
        });
        loosened.count()
    }

    /// Whether `slab` is one of `class`, not a single array, with something free.
    fn is_loosened_for(&self, slab: &Slab<'_>, class: usize) -> bool {
        let shape = slab.shape();
        shape.class as usize == class && shape.count == 0 && slab.has_free()
    }
}
