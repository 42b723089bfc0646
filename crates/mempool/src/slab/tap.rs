//! Tapping: taking an item that was freed remotely out of the queue of a thread that may never look at it again.
//!
//! In a queued slab the owner's plain stores go to `free` words alone, and nobody but a HELD slab's owner clears
//! `remote` bits. So whoever makes a queued slab TAPPED, which keeps its owner from claiming it and thieves from stealing it,
//! may clear them. The owner word goes on to name the owner, whose frees notice nothing. An owner that leaves
//! meanwhile takes its name away, and the one who taps makes the slab nobody's.

use super::loosen::is_of;
use super::protocol::Slab;
use crate::segment::{Owner, State};
use crate::sync::Ordering::{AcqRel, Relaxed};

impl Slab<'_> {
    /// QUEUED of another thread to TAPPED of that thread: neither it nor a thief does anything with the slab until
    /// [`Self::untap`], but that the owner goes on to free plainly and others remotely. What was freed remotely is the
    /// caller's to take meanwhile: nobody else clears a `remote` bit of a slab that isn't HELD.
    pub fn tap(&self, seen: Owner) -> bool {
        seen.state() == State::Queued && self.transit(seen, seen.next(State::Tapped, seen.thread(), 1))
    }

    /// Takes one item that was freed remotely, of a slab that the caller has tapped.
    pub fn tap_item(&self) -> Option<usize> {
        (0..self.used()).find_map(|w| {
            // What both words call free was freed twice; its owner finds that out.
            let free = self.slot.free(w).load(Relaxed);
            let remote = self.slot.remote(w).load(Relaxed) & !self.pad(w) & !free;
            let bit = remote & remote.wrapping_neg();
            // Acquire pairs with the freer's fetch_or: its last use of the item comes before ours.
            let mine = bit != 0 && self.slot.remote(w).fetch_and(!bit, AcqRel) & bit != 0;
            mine.then(|| w * 64 + bit.trailing_zeros() as usize)
        })
    }

    /// TAPPED by the caller to what it was, or to NOBODY when its owner has left meanwhile: then true, and it needs a
    /// hint if it has free items.
    pub fn untap(&self) -> bool {
        loop {
            let seen = self.peek();
            let next = match seen.thread() {
                0 => seen.next(State::Nobody, 0, 1),
                owner => seen.next(State::Queued, owner, 1),
            };
            // Fails once at most: an owner leaves once.
            if self.transit(seen, next) {
                return next.thread() == 0;
            }
        }
    }

    /// TAPPED of `me`, marked or not, who leaves, to TAPPED of nobody: whoever taps it does the rest.
    pub fn disown(&self, me: u32) -> bool {
        let seen = self.peek();
        seen.state() == State::Tapped && is_of(seen, me) && self.transit(seen, seen.next(State::Tapped, 0, 1))
    }

    /// Number of items that the owner has freed itself or taken over (unordered).
    pub fn count_own_free(&self) -> usize {
        (0..self.used()).map(|w| self.slot.free(w).load(Relaxed).count_ones() as usize).sum()
    }

    /// Whether some item was freed remotely and not yet taken over (unordered).
    pub fn has_remote(&self) -> bool {
        (0..self.used()).any(|w| self.slot.remote(w).load(Relaxed) & !self.pad(w) != 0)
    }

    /// Whether it stands in the queue of `me`, tapped by somebody or not. One that is there and could not be claimed was being
    /// tapped.
    pub fn is_queued(&self, me: u32) -> bool {
        let seen = self.peek();
        matches!(seen.state(), State::Queued | State::Tapped) && is_of(seen, me)
    }
}
