//! Access to the guide: the lock that can be lost, dirty groups, claims without the lock.
//!
//! The control words:
//!
//! | word | content |
//! |---|---|
//! | `LOCK` | 1 while a thread writes the tree, else 0 |
//! | `SUMMARY` | bit w: word w of the dirty groups may have bits |
//! | `DIRECT` | claims outside the lock: begun so far, high half; in progress, low half |
//! | `LOW`, `HIGH` | the open range of fragments |
//! | `CHARTED` | the guide knows the open range up to here; nothing behind is or was in use |
//! | `DIRTY..` | 4,096 bits: groups of leaves whose busy bits changed without the tree |
//!
//! Nobody waits for the lock for ever. A giver that cannot get it marks groups dirty; a taker claims in the
//! bits themselves. So a thread that vanished with the lock (fork) costs speed, never progress.

use super::tree::{LEAF, Open};
use super::{Frag, Run};
use crate::bitmap::step;
use crate::sync::{Ordering, spin};

const LOCK: usize = 0;
const SUMMARY: usize = 1;
const DIRECT: usize = 2;
const LOW: usize = 8;
const HIGH: usize = 9;
const CHARTED: usize = 10;
const DIRTY: usize = 16;
const DIRTY_WORDS: usize = 64;
/// Words of [`super::FragParts::control`].
pub const CONTROL_WORDS: usize = DIRTY + DIRTY_WORDS;

/// How often a giver looks at a lock that is taken, and a taker.
#[cfg(not(loom))]
const SPINS: (u32, u32) = (16, 128);
#[cfg(loom)]
const SPINS: (u32, u32) = (1, 2);
pub(super) const GIVER: u32 = SPINS.0;
pub(super) const TAKER: u32 = SPINS.1;

/// Leaves in a dirty group, as a shift, so that the groups suffice.
pub(super) const fn group_shift(leaves: usize) -> u32 {
    leaves.div_ceil(DIRTY_WORDS * 64).next_power_of_two().trailing_zeros()
}

/// The state of the claims outside the lock at some moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Claims(u64);

impl Claims {
    pub(super) const fn in_progress(self) -> u32 {
        self.0 as u32
    }

    /// The state when one more claim has begun and nothing else has happened.
    pub(super) const fn and_one(self) -> Claims {
        Claims(self.0.wrapping_add(1 << 32 | 1))
    }
}

impl Frag {
    /// Tries to get the lock, looking at most `spins` times.
    #[inline]
    pub(super) fn try_lock(&self, spins: u32) -> bool {
        let lock = self.parts.control(LOCK);
        for _ in 0..spins {
            // Acquire pairs with the Release of `unlock`: we see the tree that the last holder left.
            if lock.load(Ordering::Relaxed) == 0
                && lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                step();
                return true;
            }
            spin();
        }
        false
    }

    #[inline]
    pub(super) fn unlock(&self) {
        self.parts.control(LOCK).store(0, Ordering::Release);
        step();
    }

    pub(super) fn open(&self) -> Open {
        // Acquire pairs with `set_high`: who sees a higher limit also sees the memory behind it.
        let load = |at| self.parts.control(at).load(Ordering::Acquire) as usize;
        Open { low: load(LOW), high: load(HIGH) }
    }

    /// The part of the open range that the guide knows: all claims are in it, or in the reserve.
    pub(super) fn charted(&self) -> Open {
        // Acquire pairs with `raise`: who sees a higher limit also sees that somebody is at work to tell the guide.
        let charted = self.parts.control(CHARTED).load(Ordering::Acquire) as usize;
        let open = self.open();
        Open { high: open.high.min(charted), ..open }
    }

    /// Sets the limits. Nobody else may use the room yet.
    pub(super) fn set_open(&self, open: Open, charted: usize) {
        for (word, limit) in [(LOW, open.low), (HIGH, open.high), (CHARTED, charted)] {
            self.parts.control(word).store(limit as u64, Ordering::Release);
        }
    }

    /// Raises the upper limit to `to`, never lowers it.
    pub(super) fn raise_high(&self, to: usize) {
        self.raise(HIGH, to);
    }

    /// Raises a limit to `to`, never lowers it. Returns what it was.
    fn raise(&self, limit: usize, to: usize) -> usize {
        let limit = self.parts.control(limit);
        let mut seen = limit.load(Ordering::Acquire);
        while (seen as usize) < to {
            match limit.compare_exchange(seen, to as u64, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    step();
                    break;
                }
                Err(now) => seen = now,
            }
        }
        seen as usize
    }

    /// Makes the guide know the open range up to `to`, as far as it reaches. Linear in what is added.
    pub(super) fn chart(&self, to: usize) {
        let to = to.min(self.open().high);
        // Announced first: who sees the new limit before the guide knows what is behind it does not believe in "none".
        self.begin_direct();
        let was = self.raise(CHARTED, to);
        if was < to {
            self.tell(Run { start: was, len: to - was });
        }
        self.end_direct();
    }

    /// Charts more, at least `room` fragments, after nothing was found below `known`. False if there is no more.
    pub(super) fn chart_more(&self, known: usize, room: usize) -> bool {
        let (open, charted) = (self.open(), self.charted().high);
        if charted >= open.high {
            // Somebody may have been quicker.
            return charted > known;
        }
        // Twice as much each time, so that a pool that grows looks at each fragment twice at most.
        self.chart(charted.saturating_mul(2).max(charted.saturating_add(room)));
        true
    }

    /// Announces a claim outside the lock. Until `end_direct` no taker believes that nothing is free.
    pub(super) fn begin_direct(&self) -> Claims {
        // AcqRel: the claim that follows is a Release, so whoever sees its bits sees this count, too.
        let before = self.parts.control(DIRECT).fetch_add(1 << 32 | 1, Ordering::AcqRel);
        step();
        Claims(before)
    }

    /// Ends it. What changed must have been told to the guide before.
    pub(super) fn end_direct(&self) {
        // Release pairs with `claims`: who sees the lower count sees the dirty bits.
        self.parts.control(DIRECT).fetch_sub(1, Ordering::AcqRel);
        step();
    }

    pub(super) fn claims(&self) -> Claims {
        Claims(self.parts.control(DIRECT).load(Ordering::Acquire))
    }

    /// Tells the guide that bits of `run` changed: at once if the lock is to be had, else by a mark.
    pub(super) fn tell(&self, run: Run) {
        if run.end() <= self.open().low || run.len == 0 {
            return;
        }
        if self.try_lock(GIVER) {
            // Under the lock, so that a limit that was raised before the last holder's work is not forgotten again.
            let open = self.charted();
            self.refresh(open, run.start / LEAF, (run.end() - 1) / LEAF);
            self.unlock();
        } else {
            self.mark_dirty(run);
        }
    }

    /// Marks the groups of `run` dirty.
    #[cold]
    #[inline(never)]
    pub(super) fn mark_dirty(&self, run: Run) {
        let shift = self.group_shift;
        let (from, to) = ((run.start / LEAF) >> shift, ((run.end().max(1) - 1) / LEAF) >> shift);
        let mut summary = 0u64;
        for group in from..=to.min(DIRTY_WORDS * 64 - 1) {
            // Release pairs with the swap in `absorb_dirty`: who takes the mark sees the bits.
            self.parts.control(DIRTY + group / 64).fetch_or(1 << (group % 64), Ordering::Release);
            step();
            summary |= 1 << (group / 64);
        }
        self.parts.control(SUMMARY).fetch_or(summary, Ordering::Release);
        step();
    }

    /// Under the lock: brings the groups that are marked dirty up to date.
    pub(super) fn absorb_dirty(&self) {
        let summary = self.parts.control(SUMMARY);
        if summary.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut words = summary.swap(0, Ordering::AcqRel);
        step();
        while words != 0 {
            let word = words.trailing_zeros() as usize;
            words &= words - 1;
            let mut groups = self.parts.control(DIRTY + word).swap(0, Ordering::AcqRel);
            step();
            while groups != 0 {
                let group = word * 64 + groups.trailing_zeros() as usize;
                groups &= groups - 1;
                // Behind the swap: who takes the mark of a limit that was raised sees the limit.
                self.refresh_group(self.charted(), group);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn refresh_group(&self, open: Open, group: usize) {
        let from = group << self.group_shift;
        self.refresh(open, from, from + (1 << self.group_shift) - 1);
    }

    /// One thread, nobody else: forgets locks, marks and claims of threads that are gone.
    pub(super) fn reset_control(&self) {
        for word in [LOCK, SUMMARY, DIRECT] {
            self.parts.control(word).store(0, Ordering::Relaxed);
        }
        for word in 0..DIRTY_WORDS {
            self.parts.control(DIRTY + word).store(0, Ordering::Relaxed);
        }
    }
}
