//! Claiming fragments: with the guide, or without it when its lock cannot be had.
//!
//! The busy bits decide. Under the lock a place is looked up, claimed, and the tree brought up to date. A
//! claimer without the lock may have been quicker; then the leaves are computed anew and the search
//! repeated.
//!
//! "None" is believed only if it was found under the lock, on a tree that knew every mark, while no claim
//! outside the lock was in progress from before the marks were read until after the search. Otherwise the
//! attempt is repeated, [`ROUNDS`] times: then "none" means "none to be had now", and the front, which
//! waits and retries, asks again. Before "none" is said the guide learns of more of the open range, while there is more.

use super::guide::{Claims, TAKER};
use super::park::MOST;
use super::search::align_up;
use super::tree::{LEAF, Open};
use super::{Frag, Run};
use crate::bitmap::{claim, next_clear, next_set};
use crate::sync::spin;

/// Attempts before "none" is said without proof.
#[cfg(not(loom))]
const ROUNDS: u32 = 16;
#[cfg(loom)]
const ROUNDS: u32 = 2;
/// Conflicts with other claimers in one attempt.
const CONFLICTS: u32 = 64;

/// What an attempt came to.
pub(super) enum Attempt {
    Run(Run),
    /// Nothing is free that fits: certain.
    None,
    /// Nothing was found, but others were at it.
    Unsure,
}

impl Frag {
    /// Claims `len` fragments of the open range. Only busy bits are set; the guide knows.
    pub(super) fn claim_open(&self, len: usize, align: usize) -> Option<Run> {
        if len == 0 || len >= MOST || !align.is_power_of_two() {
            return None;
        }
        let mut round = 0;
        loop {
            let known = self.charted().high;
            let attempt =
                if self.try_lock(TAKER) { self.claim_guided(len, align) } else { self.claim_direct(len, align) };
            match attempt {
                Attempt::Run(run) => return Some(run),
                Attempt::Unsure if round + 1 < ROUNDS => {
                    (0..round).for_each(|_| spin());
                    round += 1;
                }
                // A logarithmic number of times: what is charted doubles.
                Attempt::None | Attempt::Unsure => {
                    if !self.chart_more(known, len.saturating_add(align)) {
                        return None;
                    }
                    round = 0;
                }
            }
        }
    }

    /// Holds the lock; gives it back.
    pub(super) fn claim_guided(&self, len: usize, align: usize) -> Attempt {
        let before = self.claims();
        self.absorb_dirty();
        // Behind `before`: who raises a limit has announced it, so that the last look below shows it if this one does.
        let open = self.charted();
        let mut attempt = Attempt::Unsure;
        let mut sure = before.in_progress() == 0;
        for _ in 0..CONFLICTS {
            let Some(start) = self.find(open, len, align) else {
                if sure && self.claims() == before {
                    attempt = Attempt::None;
                }
                break;
            };
            let claimed = claim(self.parts.busy(), start, len).is_ok();
            self.refresh(open, start / LEAF, (start + len - 1) / LEAF);
            if claimed {
                attempt = Attempt::Run(Run { start, len });
                break;
            }
            sure = false;
        }
        self.unlock();
        attempt
    }

    /// Without the lock: by the guide's hint, else by the bits from the lowest address on.
    #[cold]
    #[inline(never)]
    fn claim_direct(&self, len: usize, align: usize) -> Attempt {
        let open = self.charted();
        self.begin_direct();
        let found = self.claim_hinted(open, len, align).or_else(|| self.claim_scanning(open, len, align));
        self.end_direct();
        found.map_or(Attempt::Unsure, Attempt::Run)
    }

    fn claim_hinted(&self, open: Open, len: usize, align: usize) -> Option<Run> {
        let start = self.find(open, len, align)?;
        let fits = start >= open.low && start.checked_add(len)? <= open.high;
        if !fits || next_set(self.parts.busy(), start, start + len).is_some() {
            return None;
        }
        let run = Run { start, len };
        let claimed = claim(self.parts.busy(), start, len).is_ok();
        // After a failure, too: the holder of the lock may have seen what was rolled back.
        self.mark_dirty(run);
        claimed.then_some(run)
    }

    /// Claims the first free place of `open`, by the bits alone. Linear in the range.
    fn claim_scanning(&self, open: Open, len: usize, align: usize) -> Option<Run> {
        let busy = self.parts.busy();
        let high = open.high.min(self.parts.fragments());
        let mut at = open.low;
        let mut conflicts = 0;
        while conflicts < CONFLICTS {
            let free = next_clear(busy, at, high)?;
            let start = align_up(self.parts.base(), free, align)?;
            if start.checked_add(len)? > high {
                return None;
            }
            if let Some(used) = next_set(busy, start, start + len) {
                at = used + 1;
                continue;
            }
            let run = Run { start, len };
            let claimed = claim(busy, start, len).is_ok();
            self.mark_dirty(run);
            if claimed {
                return Some(run);
            }
            // The bits have changed: look again from the same place.
            conflicts += 1;
            at = free;
        }
        None
    }

    /// Claims `len` fragments of `range`, a part of the reserve. Linear in the range.
    #[cold]
    #[inline(never)]
    pub(super) fn claim_within(&self, range: core::ops::Range<usize>, len: usize, align: usize) -> Option<Run> {
        if range.is_empty() || len == 0 || len >= MOST || !align.is_power_of_two() {
            return None;
        }
        let reserve = Open { low: range.start, high: range.end.min(self.open().low) };
        for round in 0..ROUNDS {
            let before = self.begin_direct();
            let run = self.claim_scanning(reserve, len, align);
            let quiet = self.was_alone(before);
            self.end_direct();
            if run.is_some() || quiet {
                return run;
            }
            (0..round).for_each(|_| spin());
        }
        None
    }

    /// Whether no claim but the caller's own was in progress since `before`.
    fn was_alone(&self, before: Claims) -> bool {
        before.in_progress() == 0 && self.claims() == before.and_one()
    }
}
