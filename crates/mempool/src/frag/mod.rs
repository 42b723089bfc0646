//! The page-frag tier: runs of fragments.
//!
//! It manages the data area of a segment in *fragments* of 256 bytes. A *run* is any number of consecutive
//! fragments with one owner; it begins and ends at any fragment. Three bitmaps, one bit per fragment each:
//!
//! | bitmap | 1 | 0 |
//! |---|---|---|
//! | `busy` | in use: part of a run, or claimed | free |
//! | `first` | a run begins here | not so: nothing to give back here |
//! | `last` | a run ends here | not so |
//!
//! *Take* claims busy bits, records the end (`last`, and the length of a long run), then sets `first`. *Give*
//! wins the run (marks the length of a long one, clears `first` of a short one: exactly one of several callers
//! does), clears `first` and the record, lets the caller do its part, and clears the busy bits. So the length
//! of a run is read from its own bits alone, and at every moment a run either is known by its `first` bit or is on its way
//! from or to free: that is what [`Frag::repair`] relies on in the child of a fork. A long run can also be *parked*
//! (`park`): given up, but not yet free.
//!
//! Busy bits are the truth and are claimed atomically; the tree above them is a guide (`tree`, `search`)
//! under a lock that may be lost (`guide`). No operation waits for another thread without bound, sleeps,
//! or calls the operating system; none allocates.
//!
//! The *open range* is what anybody may take; below it lies the reserve, above it what the pool has not
//! grown into. Of the open range the guide knows what is *charted*, twice as much whenever that does not suffice: so a large
//! segment costs what is used of it. One more bit per page, *touched*, says whether the page was handed out since it was last
//! clean: fragments of other pages are all zeroes.
//!
//! Limits: a run has fewer than 2^31 fragments (512 GiB), the segment at most 2^42. All sizes, positions and
//! alignments are in fragments.

mod guide;
mod park;
mod parts;
mod runs;
mod search;
mod take;
mod tree;
mod upkeep;
mod verify;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use guide::CONTROL_WORDS;
pub use park::RUN_MOST;
pub use parts::FragParts;
pub use verify::Fault;

use crate::bitmap::{step, test, word};
use crate::sync::Ordering;
use crate::units::{CELL_BITS, LEAF_CELLS};
use tree::{Open, Shape};

/// Counts a word of the tree or of the bits that a search looks at; in tests alone.
#[cfg(not(all(test, not(loom))))]
#[inline(always)]
fn visited() {}
#[cfg(all(test, not(loom)))]
use tests::visited;

/// Consecutive fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first fragment.
    pub start: usize,
    /// How many fragments.
    pub len: usize,
}

impl Run {
    /// The fragment behind the last one.
    #[inline]
    #[must_use]
    pub const fn end(self) -> usize {
        self.start + self.len
    }
}

/// Why [`Frag::give`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveError {
    /// The fragment is free: given twice, or never taken.
    Free,
    /// The fragment lies inside this run, not at its beginning.
    Interior(Run),
    /// The fragment is in use but part of no run: the pool's own ([`Frag::take_internal`]), or at this
    /// moment being taken or given by another thread.
    Internal,
    /// There is no such fragment.
    OutOfRange,
}

/// The page-frag tier of one pool: a handle to its words.
///
/// All operations may be called from any thread at any time, but for those that say otherwise.
#[derive(Clone, Copy)]
pub struct Frag {
    parts: FragParts,
    shape: Shape,
    /// log2 of the leaves in a dirty group.
    group_shift: u32,
}

impl core::fmt::Debug for Frag {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Open { low, high } = self.open();
        write!(f, "Frag({} cells, open {low}..{high})", self.parts.cells)
    }
}

impl Frag {
    const fn over(parts: FragParts) -> Frag {
        debug_assert!(parts.valid(), "page-frag tier: cells or base address");
        let leaves = parts.cells / LEAF_CELLS;
        Frag { parts, shape: Shape::new(parts.cells), group_shift: guide::group_shift(leaves) }
    }

    /// Opens fragments `reserve..open_end`, of which none is in use, to takers; `0..reserve` becomes the
    /// reserve. Once, before anything else, while no other thread uses the tier. Of the open range the guide is told up to
    /// `charted`, which this is linear in, and the rest when it is needed.
    pub fn init(&self, reserve: usize, open_end: usize, charted: usize) {
        let high = open_end.min(self.parts.fragments());
        let low = reserve.min(high);
        let charted = charted.clamp(low, high);
        self.set_open(Open { low, high }, charted);
        self.build_free(Open { low, high: charted });
    }

    /// Takes a run of `len` fragments that begins at an address which is a multiple of `align` fragments
    /// (a power of two; 1: anywhere).
    ///
    /// `None` if nothing fits, or if `len` is 0 or `align` no power of two. The bytes are those left by the
    /// last owner. O(log segment), and linear in `len` with 1/64 of a step per fragment.
    #[must_use]
    pub fn take(&self, len: usize, align: usize) -> Option<Run> {
        Some(self.publish(self.claim_open(len, align)?, &mut |_| {}))
    }

    /// Takes a run like [`Frag::take`] (or, with `reserve`, [`Frag::take_reserve`]) and calls `dirty` for
    /// each part of it that may hold bytes other than zero. Once the caller has cleared those, all bytes
    /// of the run are zero.
    #[must_use]
    pub fn take_zeroed(&self, len: usize, align: usize, reserve: bool, mut dirty: impl FnMut(Run)) -> Option<Run> {
        let run =
            if reserve { self.claim_within(0..self.open().low, len, align) } else { self.claim_open(len, align) }?;
        Some(self.publish(run, &mut dirty))
    }

    /// Takes a run of the reserve, like [`Frag::take`] otherwise. Linear in the reserve.
    #[cfg(test)]
    #[must_use]
    pub fn take_reserve(&self, len: usize, align: usize) -> Option<Run> {
        self.take_within(0..self.open().low, len, align)
    }

    /// Takes a run from `range`, a part of the reserve, like [`Frag::take`] otherwise. Linear in the range.
    #[must_use]
    pub fn take_within(&self, range: core::ops::Range<usize>, len: usize, align: usize) -> Option<Run> {
        Some(self.publish(self.claim_within(range, len, align)?, &mut |_| {}))
    }

    /// Takes fragments for the pool's own use: they are no run, so [`Frag::give`] refuses them, and only
    /// who remembers `Run` can give them back.
    #[must_use]
    pub fn take_internal(&self, len: usize, align: usize) -> Option<Run> {
        let run = self.claim_open(len, align)?;
        self.touch(run, &mut |_| {});
        Some(run)
    }

    /// As [`Frag::take_internal`], from `range`, a part of the reserve. Linear in the range.
    #[must_use]
    pub fn take_internal_within(&self, range: core::ops::Range<usize>, len: usize) -> Option<Run> {
        let run = self.claim_within(range, len, 1)?;
        self.touch(run, &mut |_| {});
        Some(run)
    }

    /// Runs `f` while all of `range`, a part of the reserve, is claimed. None, and nothing has happened, if some of it is in use.
    /// Linear in the range.
    #[must_use]
    pub fn while_free<R>(&self, range: core::ops::Range<usize>, f: impl FnOnce() -> R) -> Option<R> {
        let run = self.claim_within(range.clone(), range.len(), 1)?;
        let result = f();
        self.give_internal(run);
        Some(result)
    }

    /// Fragments of `range` before the first one that is in use. Linear in the range.
    #[must_use]
    pub fn free_before_used(&self, range: core::ops::Range<usize>) -> usize {
        crate::bitmap::next_set(self.parts.busy(), range.start, range.end).unwrap_or(range.end) - range.start
    }

    /// Ends the run that begins at fragment `start`, if one shorter than a cell does and `wanted` wants so many fragments, but keeps
    /// them: they are the caller's own, as those of [`Frag::take_internal`]. Of several callers, and of those that give it, one is told so. O(1).
    pub fn set_aside(&self, start: usize, wanted: impl FnOnce(usize) -> bool) -> Option<Run> {
        if !test(self.parts.first(), start) || self.long_entry(start).is_some() {
            return None;
        }
        let short = self.extent(start).is_some_and(|run| run.len < runs::LONG && wanted(run.len));
        if !short || !self.clear_first(start) {
            return None;
        }
        // A run without an end means damaged bits; its fragments stay lost.
        let run = self.extent(start)?;
        self.erase_end(run);
        Some(run)
    }

    /// Makes fragments that were set aside, and are the caller's own, a run again. O(1).
    pub fn make_run(&self, run: Run) {
        self.record_end(run);
        self.set_first(run.start);
    }

    /// Gives back what [`Frag::take_internal`] or [`Frag::set_aside`] returned. The run must be the caller's own.
    pub fn give_internal(&self, run: Run) {
        crate::bitmap::clear(self.parts.busy(), run.start, run.len);
        self.tell(run);
    }

    /// Gives the run that begins at fragment `start` back.
    ///
    /// `before_clear` is called when the run is the caller's to give (of several callers only one gets so
    /// far) and before anybody else can take it. Same cost as a take.
    ///
    /// # Errors
    /// What `start` is instead; nothing has changed then.
    pub fn give(&self, start: usize, before_clear: impl FnOnce(Run)) -> Result<Run, GiveError> {
        let run = self.win(start)?;
        self.end(run, before_clear);
        Ok(run)
    }

    #[cold]
    #[inline(never)]
    fn refusal(&self, start: usize) -> GiveError {
        if start >= self.parts.fragments() {
            return GiveError::OutOfRange;
        }
        if !test(self.parts.busy(), start) {
            return GiveError::Free;
        }
        match self.run_of(start) {
            Some(run) if run.start != start => GiveError::Interior(run),
            _ => GiveError::Internal,
        }
    }

    /// Makes claimed fragments a run.
    fn publish(&self, run: Run, dirty: &mut dyn FnMut(Run)) -> Run {
        self.touch(run, dirty);
        self.make_run(run);
        run
    }

    /// Marks the pages of a claimed run as touched; calls `dirty` for the parts of the run in pages that
    /// were touched before.
    ///
    /// The fragments of the run in an untouched page are zero even if a neighbour in the same page is
    /// marking it just now: every earlier owner of these very fragments marked the page before it gave
    /// them, and our claim saw that.
    fn touch(&self, run: Run, dirty: &mut dyn FnMut(Run)) {
        let (from, to) = (run.start / CELL_BITS, (run.end() - 1) / CELL_BITS);
        let mut open: Option<Run> = None;
        for word in from / CELL_BITS..=to / CELL_BITS {
            let Some(cell) = self.parts.touched().get(word) else { continue };
            let base = word * CELL_BITS;
            let low = from.max(base) - base;
            let high = (to + 1).min(base + CELL_BITS) - base;
            let pages = word::mask(low as u32, (high - low) as u32);
            let mut before = cell.load(Ordering::Relaxed);
            if before & pages != pages {
                before = cell.fetch_or(pages, Ordering::Relaxed);
                step();
            }
            let mut old = before & pages;
            while old != 0 {
                let page = base + old.trailing_zeros() as usize;
                old &= old - 1;
                let part = clip(run, page);
                open = match open {
                    Some(run) if run.end() == part.start => Some(Run { start: run.start, len: run.len + part.len }),
                    Some(run) => {
                        dirty(run);
                        Some(part)
                    }
                    None => Some(part),
                };
            }
        }
        if let Some(run) = open {
            dirty(run);
        }
    }

    /// Raises the end of the open range; a lower one changes nothing. The fragments become takeable.
    pub fn extend(&self, new_open_end: usize) {
        self.raise_high(new_open_end.min(self.parts.fragments()));
    }

    /// Marks every page as touched: the memory came with somebody else's bytes in it.
    pub fn mark_all_touched(&self) {
        for word in self.parts.touched() {
            word.store(!0, Ordering::Relaxed);
        }
    }

    /// The end of the open range.
    #[must_use]
    pub fn open_end(&self) -> usize {
        self.open().high
    }

    /// The beginning of the open range: fragments in the reserve.
    #[must_use]
    pub fn reserve(&self) -> usize {
        self.open().low
    }
}

/// The part of `run` that lies in `page`.
fn clip(run: Run, page: usize) -> Run {
    let start = run.start.max(page * CELL_BITS);
    let end = run.end().min((page + 1) * CELL_BITS);
    Run { start, len: end - start }
}
