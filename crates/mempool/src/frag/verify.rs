//! The consistency check: everything that must hold while nobody is in the middle of an operation.

use super::park::PARKED;
use super::runs::LONG;
use super::upkeep::Internal;
use super::{Frag, Run};
use crate::bitmap::{count, next_clear, next_set, test};
use crate::sync::Ordering;
use crate::units::CELL_BITS;

/// What [`Frag::verify`] found wrong. Numbers are fragments unless another word is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A run begins here and no end of it is found.
    NoEnd(usize),
    /// Two runs, or a run and an internal one, overlap here.
    Overlap(usize),
    /// A fragment of a run is not busy.
    NotBusy(usize),
    /// A `last` bit inside a run, or outside of all runs.
    StrayEnd(usize),
    /// The length table has an entry for this cell that is no run's.
    StrayLength {
        /// The cell.
        cell: usize,
    },
    /// A fragment is in use, or was, in a page that is marked clean.
    Untouched(usize),
    /// Fragments are busy and belong to nobody.
    Lost {
        /// Busy fragments.
        busy: usize,
        /// Fragments of runs and internal runs.
        owned: usize,
    },
    /// A fragment beyond the open range, or the part of it that the guide knows, is busy.
    Beyond(usize),
    /// The lock of the guide cannot be had.
    Locked,
    /// Claims outside the lock are in progress.
    Claiming,
    /// A node of the guide is wrong.
    Node {
        /// Level, 0 for the leaves.
        level: usize,
        /// Index in its level.
        index: usize,
    },
}

/// Fragments behind those that are charted of which it is checked that nothing is in use: an OS page of bits.
const BEHIND: usize = 4096 * 8;

fn hold(condition: bool, fault: Fault) -> Result<(), Fault> {
    if condition { Ok(()) } else { Err(fault) }
}

impl Frag {
    /// Checks every invariant, while no other thread uses the tier. Linear in the cells that are charted, and runs.
    ///
    /// `internal` calls its visitor with each internal run there is.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn verify(&self, internal: &mut Internal<'_>) -> Result<(), Fault> {
        hold(self.claims().in_progress() == 0, Fault::Claiming)?;
        let owned = self.verify_runs()? + self.verify_internal(internal)?;
        let charted = self.charted().high;
        let busy = count(self.parts.busy(), 0, charted);
        hold(busy == owned, Fault::Lost { busy, owned })?;
        // No further: what was never used of a large segment is not brought into memory to be looked at.
        let behind = self.parts.fragments().min(charted + BEHIND);
        if let Some(at) = next_set(self.parts.busy(), charted, behind) {
            return Err(Fault::Beyond(at));
        }
        self.verify_guide()
    }

    /// Fragments of all runs.
    fn verify_runs(&self) -> Result<usize, Fault> {
        let charted = self.charted().high;
        let (mut at, mut owned) = (0, 0);
        while let Some(start) = next_set(self.parts.first(), at, charted) {
            let run = self.extent(start).ok_or(Fault::NoEnd(start))?;
            hold(run.end() <= charted, Fault::NoEnd(start))?;
            self.verify_ends(at, run)?;
            if let Some(second) = next_set(self.parts.first(), start + 1, run.end()) {
                return Err(Fault::Overlap(second));
            }
            self.verify_owned(run)?;
            owned += run.len;
            at = run.end();
        }
        if let Some(stray) = next_set(self.parts.last(), at, charted) {
            return Err(Fault::StrayEnd(stray));
        }
        self.verify_lengths()?;
        Ok(owned)
    }

    /// One `last` bit from `at` to the end of `run`, at that end; none if the run is a long one.
    fn verify_ends(&self, at: usize, run: Run) -> Result<(), Fault> {
        if run.len >= LONG {
            return next_set(self.parts.last(), at, run.end()).map_or(Ok(()), |stray| Err(Fault::StrayEnd(stray)));
        }
        match next_set(self.parts.last(), at, run.end()) {
            Some(end) => hold(end + 1 == run.end(), Fault::StrayEnd(end)),
            None => Err(Fault::NoEnd(run.start)),
        }
    }

    /// Busy, and its pages touched.
    fn verify_owned(&self, run: Run) -> Result<(), Fault> {
        if let Some(free) = next_clear(self.parts.busy(), run.start, run.end()) {
            return Err(Fault::NotBusy(free));
        }
        let pages = run.start / CELL_BITS..run.end().div_ceil(CELL_BITS);
        match next_clear(self.parts.touched(), pages.start, pages.end) {
            Some(page) => Err(Fault::Untouched(page * CELL_BITS)),
            None => Ok(()),
        }
    }

    /// Every entry of the length table is that of a run which begins in its cell.
    fn verify_lengths(&self) -> Result<(), Fault> {
        let charted = self.charted().high.div_ceil(CELL_BITS);
        for (cell, entry) in self.parts.length().iter().enumerate().take(charted) {
            let len = (entry.load(Ordering::Acquire) & !PARKED) as usize;
            let from = cell * CELL_BITS;
            let mut found = len == 0;
            let mut at = from;
            while let Some(start) = next_set(self.parts.first(), at, from + CELL_BITS) {
                found |= self.extent(start).is_some_and(|run| run.len == len);
                at = start + 1;
            }
            hold(found, Fault::StrayLength { cell })?;
        }
        Ok(())
    }

    /// Fragments of all internal runs.
    fn verify_internal(&self, internal: &mut Internal<'_>) -> Result<usize, Fault> {
        let mut result = Ok(0);
        internal(&mut |run| {
            if let Ok(sum) = result {
                result = self.verify_one_internal(run).map(|()| sum + run.len);
            }
        });
        result
    }

    fn verify_one_internal(&self, run: Run) -> Result<(), Fault> {
        self.verify_owned(run)?;
        if let Some(first) = next_set(self.parts.first(), run.start, run.end()) {
            return Err(Fault::Overlap(first));
        }
        if let Some(end) = next_set(self.parts.last(), run.start, run.end()) {
            return Err(Fault::StrayEnd(end));
        }
        hold(self.run_of(run.start).is_none(), Fault::Overlap(run.start))?;
        hold(test(self.parts.busy(), run.start), Fault::NotBusy(run.start))
    }

    fn verify_guide(&self) -> Result<(), Fault> {
        hold(self.try_lock(super::guide::TAKER), Fault::Locked)?;
        self.absorb_dirty();
        let open = self.charted();
        let wrong = self.wrong_node(open);
        self.unlock();
        match wrong {
            Some((level, index)) => Err(Fault::Node { level, index }),
            None => Ok(()),
        }
    }
}
