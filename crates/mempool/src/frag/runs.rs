//! Runs: how their ends are recorded, how long they are, how one grows.
//!
//! A run of fewer than 64 fragments has its `last` bit set at its last fragment and nowhere else; it ends in the cell
//! in which it begins or in the next, so its length takes two words to find. A longer, a *long* run has no `last` bit but its
//! length in the table, in the entry of the cell it begins in: at most one such run begins in a cell, since it
//! covers the rest of it.
//!
//! Only the owner's own bits are read, so nothing that neighbours do at the same time matters.

use super::park::{MOST, PARKED};
use super::parts::read;
use super::{Frag, Run};
use crate::bitmap::{self, claim, next_set, prev_set, step};
use crate::sync::Ordering;
use crate::units::CELL_BITS;

/// Runs from this length on have it in the table.
pub(super) const LONG: usize = CELL_BITS;

impl Frag {
    /// Records the end of a claimed run. It is not a run until its `first` bit is set.
    pub(super) fn record_end(&self, run: Run) {
        if run.len >= LONG {
            self.set_entry(run.start, run.len as u32);
        } else {
            self.set_last(run.end() - 1);
        }
    }

    fn set_last(&self, at: usize) {
        if let Some(word) = self.parts.last().get(at / CELL_BITS) {
            word.fetch_or(1 << (at % CELL_BITS), Ordering::Release);
            step();
        }
    }

    pub(super) fn clear_last(&self, at: usize) {
        if let Some(word) = self.parts.last().get(at / CELL_BITS) {
            word.fetch_and(!(1 << (at % CELL_BITS)), Ordering::Release);
            step();
        }
    }

    /// Takes the record of the end back. Whoever claims the fragments next sees none: the clearing of the
    /// busy bits, which follows, is a Release.
    pub(super) fn erase_end(&self, run: Run) {
        if run.len >= LONG {
            self.set_entry(run.start, 0);
        } else {
            self.clear_last(run.end() - 1);
        }
    }

    /// Makes a claimed and recorded run known.
    pub(super) fn set_first(&self, start: usize) {
        if let Some(word) = self.parts.first().get(start / CELL_BITS) {
            // Release pairs with `clear_first` and `run_at`: who sees the run sees its end.
            word.fetch_or(1 << (start % CELL_BITS), Ordering::Release);
            step();
        }
    }

    /// Says whether a run began at `start`, and ends that. Of several callers one is told so.
    pub(super) fn clear_first(&self, start: usize) -> bool {
        let Some(word) = self.parts.first().get(start / CELL_BITS) else { return false };
        let bit = 1 << (start % CELL_BITS);
        // A plain look first, so that a wrong pointer does not write.
        if word.load(Ordering::Relaxed) & bit == 0 {
            return false;
        }
        let before = word.fetch_and(!bit, Ordering::AcqRel);
        step();
        before & bit != 0
    }

    /// The run that begins at `start`, by its end alone; `None` if no end is found.
    pub(super) fn extent(&self, start: usize) -> Option<Run> {
        let (cell, bit) = (start / CELL_BITS, start % CELL_BITS);
        let here = read(self.parts.last(), cell, 0) >> bit;
        if here != 0 {
            return Some(Run { start, len: here.trailing_zeros() as usize + 1 });
        }
        let long = (self.parts.length().get(cell)?.load(Ordering::Acquire) & !PARKED) as usize;
        if long != 0 {
            return (start + long <= self.parts.fragments()).then_some(Run { start, len: long });
        }
        let there = read(self.parts.last(), cell + 1, 0);
        let len = CELL_BITS - bit + there.trailing_zeros() as usize + 1;
        (there != 0).then_some(Run { start, len })
    }

    /// The run that begins at fragment `start`, if one does. O(1).
    ///
    /// While another thread gives that very run, the answer may be either.
    #[must_use]
    pub fn run_at(&self, start: usize) -> Option<Run> {
        // Parked runs and those that are being given are no runs any more.
        let gone = self.long_entry(start).is_some_and(|(_, says)| says & PARKED != 0);
        if !gone && bitmap::test(self.parts.first(), start) { self.extent(start) } else { None }
    }

    /// The run that `fragment` is part of, at its beginning or inside. Linear in the distance to the
    /// beginning of the run: for messages.
    #[must_use]
    pub fn run_of(&self, fragment: usize) -> Option<Run> {
        if !bitmap::test(self.parts.busy(), fragment) {
            return None;
        }
        let run = self.run_at(prev_set(self.parts.first(), fragment)?)?;
        (fragment < run.end()).then_some(run)
    }

    /// Makes `run` `new_len` fragments long by claiming the fragments behind it. The run must be the
    /// caller's own.
    ///
    /// Returns false, with nothing changed, if one of them is in use, in the reserve or beyond the open
    /// range, or if `run` is not a run. True without a change if it is that long already. Linear in the
    /// fragments added, and O(log segment).
    #[must_use]
    pub fn grow_in_place(&self, run: Run, new_len: usize) -> bool {
        if new_len <= run.len {
            return self.run_at(run.start) == Some(run);
        }
        let extra = Run { start: run.end(), len: new_len - run.len };
        let open = self.open();
        let inside = extra.start >= open.low && run.start.checked_add(new_len).is_some_and(|end| end <= open.high);
        if !inside || new_len >= MOST || self.run_at(run.start) != Some(run) {
            return false;
        }
        if next_set(self.parts.busy(), extra.start, extra.end()).is_some() {
            return false;
        }
        if extra.end() > self.charted().high {
            self.chart(extra.end());
        }
        self.begin_direct();
        let claimed = claim(self.parts.busy(), extra.start, extra.len).is_ok();
        if claimed {
            self.touch(extra, &mut |_| {});
            // In this order a reader finds the old end until the new one is complete.
            self.record_end(Run { start: run.start, len: new_len });
            if run.len < LONG {
                self.clear_last(run.end() - 1);
            }
        }
        self.tell(extra);
        self.end_direct();
        claimed
    }
}
