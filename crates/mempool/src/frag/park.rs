//! Parked runs: given up by their owners, not yet free.
//!
//! A long run that is given back can be *parked* instead: one bit of its entry in the length table says so, and
//! nothing else changes. Whoever takes the bit away again owns the run. So a thread that frees and allocates large objects
//! neither clears and sets bits by the hundred nor bothers the guide, every second free still finds the
//! bit that the first one set, and since the bit is in the table and not in the thread, everybody finds every parked
//! run when memory runs out, whatever its last owner does or however it ended.
//!
//! | entry | the run that begins in the cell and covers its end |
//! |---|---|
//! | 0 | is shorter than a cell, or there is none |
//! | length | is in use |
//! | length and `PARKED` | is parked |
//! | `PARKED` alone | is being given back |

use super::parts::read;
use super::runs::LONG;
use super::{Frag, GiveError, Run};
use crate::bitmap::step;
use crate::sync::{AtomicU32, Ordering};
use crate::units::CELL_BITS;

/// In an entry of the length table: parked, or being given back.
pub(super) const PARKED: u32 = 1 << 31;
/// Runs are shorter than this.
pub(super) const MOST: usize = PARKED as usize;
/// Fragments in the longest run: 512 GiB less one.
pub const RUN_MOST: usize = MOST - 1;

impl Frag {
    /// The entry of the length table for the long run that begins at `start`, if one does, with what it says.
    pub(super) fn long_entry(&self, start: usize) -> Option<(&AtomicU32, u32)> {
        let (cell, bit) = (start / CELL_BITS, start % CELL_BITS);
        // Acquire pairs with `set_first`: who sees the run sees its end.
        let begins = read(self.parts.first(), cell, 0) >> bit & 1 != 0;
        // A run that does not end in its cell and has an entry is the one that the entry is for: it covers the cell's end.
        if !begins || read(self.parts.last(), cell, !0) >> bit != 0 {
            return None;
        }
        let entry = self.parts.length().get(cell)?;
        let says = entry.load(Ordering::Acquire);
        (says != 0).then_some((entry, says))
    }

    /// Parks the run that begins at `start` if it is a long one of at most `most` fragments. Of several callers, and of those
    /// that give it, one is told so; it may afterwards be anybody's. O(1).
    pub fn park(&self, start: usize, most: usize) -> Option<Run> {
        let (entry, says) = self.long_entry(start)?;
        if says & PARKED != 0 || says as usize > most {
            return None;
        }
        // Release pairs with the Acquire in `unpark` and `give_parked`: the owner's last use comes before the next one's first.
        entry.compare_exchange(says, says | PARKED, Ordering::Release, Ordering::Relaxed).ok()?;
        step();
        Some(Run { start, len: says as usize })
    }

    /// Takes over a run of `len` fragments that was parked in the cell of `start`: the caller's own if it is returned. O(1).
    pub fn unpark(&self, start: usize, len: usize) -> Option<Run> {
        let cell = start / CELL_BITS;
        let entry = self.parts.length().get(cell)?;
        let len = u32::try_from(len).ok()?;
        // Acquire pairs with `park`.
        entry.compare_exchange(len | PARKED, len, Ordering::Acquire, Ordering::Relaxed).ok()?;
        step();
        Some(Run { start: self.last_start(cell), len: len as usize })
    }

    /// Where the long run of a cell begins that has one: it covers the cell's end, so nothing begins behind it.
    fn last_start(&self, cell: usize) -> usize {
        let firsts = read(self.parts.first(), cell, 0);
        cell * CELL_BITS + (63 - (firsts | 1).leading_zeros()) as usize
    }

    /// Shortens `run`, which is the caller's own, to `len` fragments, and parks the rest. Both are long. O(1).
    pub fn park_rest(&self, run: Run, len: usize) -> Run {
        debug_assert!(len >= LONG && run.len >= len + LONG);
        let rest = Run { start: run.start + len, len: run.len - len };
        self.record_end(Run { start: run.start, len });
        // In this order nobody finds the rest by its entry before its beginning is known, and nobody gives it by its beginning.
        self.set_entry(rest.start, PARKED);
        self.set_first(rest.start);
        self.set_entry(rest.start, rest.len as u32 | PARKED);
        rest
    }

    /// Whether a fragment right before or behind `run` is free now, as far as the bits tell. O(1).
    pub fn is_beside_free(&self, run: Run) -> bool {
        let open = self.charted();
        let is_free = |at: usize| {
            (open.low..open.high).contains(&at)
                && read(self.parts.busy(), at / CELL_BITS, !0) >> (at % CELL_BITS) & 1 == 0
        };
        is_free(run.start.wrapping_sub(1)) || is_free(run.end())
    }

    /// Whether no more than a part of the open range, given as a shift, is free in one piece, as far as the guide knows. O(1).
    pub fn is_room_short(&self, part: u32) -> bool {
        let (open, known) = (self.open(), self.charted().high);
        let longest = self.node(self.shape.levels.saturating_sub(1), 0).max;
        // Of two moments: the range may have been raised in between.
        longest.max(open.high.saturating_sub(known)) <= (open.high - open.low) >> part
    }

    pub(super) fn set_entry(&self, start: usize, says: u32) {
        if let Some(entry) = self.parts.length().get(start / CELL_BITS) {
            // Release pairs with the Acquire of those who read it: they see what was done before.
            entry.store(says, Ordering::Release);
            step();
        }
    }

    /// Joins two parked runs of which the second begins where the first ends: the joined run, parked. None, and nothing has changed, if one
    /// of them is parked no more. O(1).
    pub fn join_parked(&self, run: Run, behind: Run) -> Option<Run> {
        let mut whole = self.win_parked(run.start, run.len)?;
        // Another one of that length may begin in the cell.
        let next = if whole == run { self.win_next(behind.start, MOST - run.len) } else { None };
        if let Some(next) = next {
            self.clear_first(next.start);
            self.set_entry(next.start, 0);
            whole.len += next.len;
        }
        self.set_entry(whole.start, whole.len as u32 | PARKED);
        next.map(|_| whole)
    }

    /// Calls `f` while `run`, which was parked, is the caller's own, if it still is. Afterwards it is parked again.
    pub fn with_parked(&self, run: Run, f: impl FnOnce(Run)) {
        if let Some(run) = self.win_parked(run.start, run.len) {
            f(run);
            self.set_entry(run.start, run.len as u32 | PARKED);
        }
    }

    /// Makes `run`, which is the caller's own and a long one, at least `new_len` fragments long by the parked runs behind it, and the
    /// free fragments behind those. The run as it is then; None, with nothing changed, if they do not suffice. O(1) for each.
    #[must_use]
    pub fn grow_into_parked(&self, run: Run, new_len: usize) -> Option<Run> {
        if run.len < LONG || new_len >= MOST || self.run_at(run.start) != Some(run) {
            return None;
        }
        let mut grown = run;
        while grown.len < new_len {
            let Some(next) = self.win_next(grown.end(), MOST - grown.len) else { break };
            self.clear_first(next.start);
            self.set_entry(next.start, 0);
            grown.len += next.len;
            self.record_end(grown);
        }
        if grown.len > run.len && grown.len < new_len && self.grow_in_place(grown, new_len) {
            grown.len = new_len;
        }
        if grown.len < new_len && grown.len > run.len {
            self.park_rest(grown, run.len);
        }
        (grown.len >= new_len).then_some(grown)
    }

    /// The run of `len` fragments that was parked in the cell of `start`, if it still is: the caller's own, as if it were being given,
    /// so that a free by mistake is found out and nobody else takes it.
    fn win_parked(&self, start: usize, len: usize) -> Option<Run> {
        let cell = start / CELL_BITS;
        let (entry, says) = (self.parts.length().get(cell)?, u32::try_from(len).ok()?);
        // Acquire pairs with `park`.
        entry.compare_exchange(says | PARKED, PARKED, Ordering::Acquire, Ordering::Relaxed).ok()?;
        step();
        Some(Run { start: self.last_start(cell), len })
    }

    /// The parked run that begins at `start`, if one of fewer than `below` fragments does: the caller's own, likewise.
    fn win_next(&self, start: usize, below: usize) -> Option<Run> {
        let shorter = |says: u32| says > PARKED && ((says & !PARKED) as usize) < below;
        let (entry, says) = self.long_entry(start).filter(|&(_, says)| shorter(says))?;
        // Acquire pairs with `park`.
        entry.compare_exchange(says, PARKED, Ordering::Acquire, Ordering::Relaxed).ok()?;
        step();
        Some(Run { start, len: (says & !PARKED) as usize })
    }

    /// Gives back a run of `len` fragments that was parked in the cell of `start`, if it still is. Cost of a give.
    pub fn give_parked(&self, start: usize, len: usize) -> bool {
        let won = self.win_parked(start, len);
        won.into_iter().for_each(|run| self.end(run, |_| {}));
        won.is_some()
    }

    /// Gives back all parked runs. Returns their fragments. Linear in the cells.
    pub fn give_all_parked(&self) -> usize {
        let mut given = 0;
        self.parked(&mut |run| {
            if self.give_parked(run.start, run.len) {
                given += run.len;
            }
        });
        given
    }

    /// Calls `f` with each parked run, in address order, of which only the cell and the length are certain. Linear in the cells
    /// that are charted.
    pub fn parked(&self, f: &mut dyn FnMut(Run)) {
        let charted = self.charted().high.div_ceil(CELL_BITS);
        for (cell, entry) in self.parts.length().iter().enumerate().take(charted) {
            let says = entry.load(Ordering::Relaxed);
            if says > PARKED {
                f(Run { start: cell * CELL_BITS, len: (says & !PARKED) as usize });
            }
        }
    }

    /// Makes the run that begins at `start` the caller's to give. Of several callers one is told so.
    pub(super) fn win(&self, start: usize) -> Result<Run, GiveError> {
        if let Some((entry, says)) = self.long_entry(start) {
            // Acquire, as in `clear_first`.
            if says & PARKED != 0 || entry.compare_exchange(says, PARKED, Ordering::Acquire, Ordering::Relaxed).is_err()
            {
                return Err(GiveError::Free);
            }
            step();
            return Ok(Run { start, len: says as usize });
        }
        // Without an entry the `first` bit decides. A run without an end means damaged bits; its fragments stay lost.
        if !self.clear_first(start) {
            return Err(self.refusal(start));
        }
        self.extent(start).ok_or(GiveError::Internal)
    }

    /// Gives the long run that begins at `start` up as [`Self::give`] does, but parks it. None, and nothing has changed, if no such
    /// run begins there. `before` is called when the run is the caller's and before anybody else can take it. O(1).
    pub fn park_given(&self, start: usize, before: impl FnOnce(Run)) -> Option<Run> {
        self.long_entry(start)?;
        let run = self.win(start).ok()?;
        before(run);
        self.set_entry(run.start, run.len as u32 | PARKED);
        Some(run)
    }

    /// Ends a run that the caller has won, and frees it.
    pub(super) fn end(&self, run: Run, before_clear: impl FnOnce(Run)) {
        if run.len >= LONG {
            self.clear_first(run.start);
        }
        self.erase_end(run);
        before_clear(run);
        crate::bitmap::clear(self.parts.busy(), run.start, run.len);
        self.tell(run);
    }
}
