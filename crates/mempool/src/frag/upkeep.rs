//! What is done seldom: looking over everything, giving clean pages back, repair after a fork.

use super::park::PARKED;
use super::parts::read;
use super::runs::LONG;
use super::tree::Open;
use super::{Frag, Run};
use crate::bitmap::{claim, clear, count, next_clear, next_set, step, test, word};
use crate::sync::Ordering;
use crate::units::CELL_BITS;

/// Pages that `trim` holds at once, so that takers miss no more than 1 MiB while they are released.
const TRIM_PAGES: usize = 64;

/// Something that calls a visitor with each internal run.
pub type Internal<'a> = dyn FnMut(&mut dyn FnMut(Run)) + 'a;

impl Frag {
    /// Free fragments of the open range, parked ones among them. Linear in the cells that are charted.
    #[must_use]
    pub fn free_fragments(&self) -> usize {
        let Open { low, high } = self.open();
        // The limits may be raised between two looks.
        let charted = self.charted().high.min(high);
        high - low - count(self.parts.busy(), low, charted - low) + self.parked_fragments()
    }

    /// Fragments of parked runs. Linear in the cells that are charted.
    #[must_use]
    pub fn parked_fragments(&self) -> usize {
        let mut parked = 0;
        self.parked(&mut |run| parked += run.len);
        parked
    }

    /// Free fragments of the reserve. Linear in its cells.
    #[must_use]
    pub fn free_reserve(&self) -> usize {
        let low = self.open().low;
        low - count(self.parts.busy(), 0, low)
    }

    /// Length of the longest gap of the open range. Linear in the cells that are charted, and gaps.
    #[must_use]
    pub fn largest_free(&self) -> usize {
        let mut largest = 0;
        self.gaps(&mut |gap| largest = largest.max(gap.len));
        largest
    }

    /// Calls `f` for each run, in address order. Linear in the cells that are charted, and runs. What other threads take and
    /// give meanwhile may be seen or not.
    pub fn runs(&self, f: &mut dyn FnMut(Run)) {
        self.runs_within(0..self.charted().high, f);
    }

    /// As above, for each run that begins in `range`.
    pub fn runs_within(&self, range: core::ops::Range<usize>, f: &mut dyn FnMut(Run)) {
        let (mut at, end) = (range.start, range.end);
        while let Some(start) = next_set(self.parts.first(), at, end) {
            if let Some(run) = self.run_at(start) {
                f(run);
            }
            at = start + 1;
        }
    }

    /// Calls `f` for each gap of the open range, in address order; parked runs are parts of gaps. Linear in the cells that are
    /// charted, gaps and runs.
    pub fn gaps(&self, f: &mut dyn FnMut(Run)) {
        let Open { low, high } = self.open();
        let charted = self.charted().high.min(high);
        let (mut at, mut from) = (low, low);
        while at < high {
            if let Some(free) = self.free_at(at, charted, high) {
                at += free;
                continue;
            }
            if from < at {
                f(Run { start: from, len: at - from });
            }
            at = self.behind_used(at, charted);
            from = at;
        }
        if from < at {
            f(Run { start: from, len: at - from });
        }
    }

    /// Free fragments from `at` on, as far as one look goes; a parked run is free, and so is all that is not charted.
    fn free_at(&self, at: usize, charted: usize, high: usize) -> Option<usize> {
        if at >= charted || !test(self.parts.busy(), at) {
            return Some(next_set(self.parts.busy(), at, charted).unwrap_or(high) - at);
        }
        let (_, says) = self.long_entry(at).filter(|&(_, says)| says > PARKED)?;
        Some(((says & !PARKED) as usize).min(high - at))
    }

    /// Where something else than what is in use at `at` may begin.
    fn behind_used(&self, at: usize, charted: usize) -> usize {
        if let Some(run) = self.run_at(at) {
            return run.end().min(charted);
        }
        let free = next_clear(self.parts.busy(), at, charted).unwrap_or(charted);
        next_set(self.parts.first(), at + 1, free).unwrap_or(free)
    }

    /// Whether a whole page is free and not clean.
    fn trimmable(&self, page: usize) -> bool {
        test(self.parts.touched(), page) && read(self.parts.busy(), page, u64::MAX) == 0
    }

    /// Calls `release` with whole free pages of the open range that are not clean, after claiming them and
    /// without any lock. If it returns true, the pages read as zeroes from now on, and are clean.
    ///
    /// Returns the fragments that were released. Linear in the cells that are charted.
    pub fn trim(&self, release: &mut dyn FnMut(Run) -> bool) -> usize {
        let open = self.open();
        let end = (open.high / CELL_BITS).min(self.charted().high.div_ceil(CELL_BITS));
        let mut page = open.low.div_ceil(CELL_BITS);
        let mut released = 0;
        while page < end {
            let most = (page + TRIM_PAGES).min(end);
            let pages = (page..most).take_while(|&page| self.trimmable(page)).count();
            if pages > 0 {
                released += self.trim_pages(page, pages, release);
            }
            page += pages.max(1);
        }
        released
    }

    fn trim_pages(&self, page: usize, pages: usize, release: &mut dyn FnMut(Run) -> bool) -> usize {
        let run = Run { start: page * CELL_BITS, len: pages * CELL_BITS };
        let mut released = 0;
        self.begin_direct();
        if claim(self.parts.busy(), run.start, run.len).is_ok() {
            if release(run) {
                self.untouch(page, pages);
                released = run.len;
            }
            clear(self.parts.busy(), run.start, run.len);
        }
        self.tell(run);
        self.end_direct();
        released
    }

    /// Marks pages that the caller has claimed as clean.
    fn untouch(&self, page: usize, pages: usize) {
        // Relaxed: the clearing of the busy bits, which follows, is a Release.
        for page in page..page + pages {
            if let Some(word) = self.parts.touched().get(page / CELL_BITS) {
                word.fetch_and(!(1 << (page % CELL_BITS)), Ordering::Relaxed);
                step();
            }
        }
    }

    /// Brings the tier in order after threads vanished in the middle of operations: in the child of a fork.
    /// For one thread alone. Linear in the cells that are charted.
    ///
    /// `internal` calls its visitor with each run of [`Frag::take_internal`] that is to be kept. All runs
    /// with a `first` bit stay, but for parked ones; every other fragment becomes free. Locks, marks and counts are reset.
    pub fn repair(&self, internal: &mut Internal<'_>) {
        self.reset_control();
        let charted = self.charted();
        let cells = charted.high.div_ceil(CELL_BITS);
        for word in self.parts.busy().iter().take(cells).filter(|word| word.load(Ordering::Relaxed) != 0) {
            word.store(0, Ordering::Relaxed);
        }
        let mut done = 0;
        for cell in 0..cells {
            done = self.repair_cell(cell, done);
        }
        self.clear_ends(done, cells * CELL_BITS);
        internal(&mut |run| self.set_busy(run));
        self.rebuild(charted);
    }

    /// Restores busy bits and ends of the runs that begin in `cell`. What lies below `done` is in order;
    /// returns up to where it is then. The ends of a run are read before anything from its beginning on
    /// is changed.
    fn repair_cell(&self, cell: usize, done: usize) -> usize {
        let mut done = done;
        let mut long = 0;
        let mut firsts = read(self.parts.first(), cell, 0);
        while firsts != 0 {
            let start = cell * CELL_BITS + firsts.trailing_zeros() as usize;
            firsts &= firsts - 1;
            if self.long_entry(start).is_some_and(|(_, says)| says & PARKED != 0) {
                // Parked, or on its way back: free. Its end is cleared with what lies before the next run.
                self.clear_first(start);
                continue;
            }
            let Some(run) = self.extent(start) else { continue };
            self.clear_ends(done, run.start);
            self.clear_ends(run.start, run.end());
            self.set_busy(run);
            // Also sets `last`: a growing run may have been stopped before it did.
            self.record_end(run);
            done = run.end();
            if run.len >= LONG {
                long = run.len as u32;
            }
        }
        // What is right is not written: the child would get its own copy of the OS page.
        if let Some(entry) = self.parts.length().get(cell).filter(|entry| entry.load(Ordering::Relaxed) != long) {
            entry.store(long, Ordering::Relaxed);
        }
        done
    }

    /// Clears the `last` bits of `from..to`.
    fn clear_ends(&self, from: usize, to: usize) {
        let mut at = from;
        while let Some(end) = next_set(self.parts.last(), at, to) {
            self.clear_last(end);
            at = end + 1;
        }
    }

    fn set_busy(&self, run: Run) {
        let mut at = run.start;
        while at < run.end() {
            let len = (CELL_BITS - at % CELL_BITS).min(run.end() - at);
            if let Some(word) = self.parts.busy().get(at / CELL_BITS) {
                word.fetch_or(word::mask((at % CELL_BITS) as u32, len as u32), Ordering::Relaxed);
            }
            at += len;
        }
    }
}
