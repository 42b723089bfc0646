//! What lies in the reserve, and who may have it: critical requests what is no budget's, a budget's requests what is set aside
//! for it.
//!
//! Critical items of named caches lie in slabs of the cache there (`slab::reserved`), of which nobody else gets one. A scoped
//! allocation that no slab serves is a run in the range of its budget; runs there are nothing else (I31), so that whom to uncharge
//! follows from the address.
//!
//! *Limits:* a slab begins at a slot, here as elsewhere: of a reserve with `n` slots (4 to 64 KiB) `n` caches have an item each. A budget
//! with a minimum is made before critical requests have what lies lowest in the reserve, or is refused as long as they have it; a
//! minimum is less than 512 GiB. Critical scoped allocations above 8 KiB begin at a slot.

use core::num::NonZeroUsize;

use super::budget::Entry;
use super::caches::CacheHandle;
use super::core::Core;
use super::route::Request;
use crate::frag::Run;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::units::{FRAGMENT, fragments_for};

impl Core {
    /// Fragments of the reserve that are no budget's, for a critical request.
    pub(super) fn take_critical(&self, fragments: usize, align: usize) -> Option<Run> {
        // As often as budgets are made meanwhile, of which there are few.
        loop {
            let from = self.budgets.assigned.load(Acquire) as usize;
            let run = self.frag.take_within(from..self.frag.reserve(), fragments, align)?;
            // A budget may have been made since. It raises this word while all that it gets is claimed: who takes some of that
            // afterwards has seen the bits cleared, and so the word raised.
            if run.start >= self.budgets.assigned.load(Acquire) as usize {
                return Some(run);
            }
            // Ours, just taken.
            let _ = self.frag.give(run.start, |_| ());
        }
    }

    /// Sets `need` fragments of the reserve aside, none of them in use: the first of them, or how many are left there.
    pub(super) fn set_aside(&self, need: usize) -> Result<usize, usize> {
        let reserve = self.frag.reserve();
        let mut looked = false;
        loop {
            let from = self.budgets.assigned.load(Acquire) as usize;
            if need == 0 {
                return Ok(from);
            }
            if from.checked_add(need).is_none_or(|end| end > reserve) {
                return Err(reserve.saturating_sub(from));
            }
            let raise = || {
                let (from, to) = (from as u64, (from + need) as u64);
                // Release by way of the busy bits, which are cleared behind it: see `take_critical`.
                self.budgets.assigned.compare_exchange(from, to, AcqRel, Relaxed).is_ok()
            };
            match self.frag.while_free(from..from + need, raise) {
                Some(true) => return Ok(from),
                // Another budget was made.
                Some(false) => {}
                // Empty slabs of critical requests go back when somebody looks for them.
                None if !looked => {
                    looked = true;
                    self.slabs.steal_empty(self);
                }
                None => return Err(self.frag.free_before_used(from..reserve).min(need - 1)),
            }
        }
    }

    /// An item or array of the named cache's `class` from its slabs in the reserve, or from one that is cut there, if `may_charge`.
    pub(super) fn pop_critical(&self, class: usize, request: &Request, may_charge: bool) -> Option<NonZeroUsize> {
        let shape = self.slabs.shape(class)?;
        // Arrays have the bytes of whole items.
        let n = if CacheHandle::is_array(class) { request.size.checked_div(shape.size)?.max(1) } else { 1 };
        // A large scoped allocation may be aligned to more than the items that it is made of.
        if n > 1 && self.cache_budget(class).1 {
            return None;
        }
        let end = self.frag.reserve().div_ceil(self.slot_fragments());
        let runs = self.runs_of(class, true);
        // One at a time: nobody finds a slab that another one is taking from, and cuts a second one.
        let popped = self.with_shared(|_| {
            let carve = || may_charge.then(|| self.slabs.carve_reserved(&runs, class, n)).flatten();
            self.slabs.pop_reserved(class, n, end).or_else(carve)
        });
        NonZeroUsize::new(popped?)
    }

    /// A run of what is set aside for a budget, for one of its scoped requests.
    pub(super) fn pop_set_aside(&self, number: usize, request: &Request) -> Option<NonZeroUsize> {
        let entry = self.budget_entry(number).filter(|entry| !entry.range().is_empty())?;
        if request.size > self.data_len {
            return None;
        }
        let (len, align) = (fragments_for(request.size), (request.align / FRAGMENT).max(1));
        if !entry.charge(len) {
            return None;
        }
        let Some(run) = self.frag.take_within(entry.range(), len, align) else {
            entry.uncharge(len);
            return None;
        };
        self.count_taken(len);
        NonZeroUsize::new(self.data + run.start * FRAGMENT)
    }

    /// A run that is no slab has gone back: if it was a budget's, that has so much less.
    pub(super) fn uncharge_run(&self, run: Run) {
        if let Some(entry) = self.budget_at(run.start) {
            entry.uncharge(run.len);
        }
    }

    /// Calls `f` with every run that is a scoped allocation. Exact when nobody is at work.
    pub(super) fn each_set_aside(&self, f: &mut dyn FnMut(&Entry, Run)) {
        let end = self.budgets.assigned.load(Acquire) as usize;
        self.frag.runs_within(0..end, &mut |run| {
            // Here, where the compiler sees that it isn't 0, and that the division can't panic.
            let slot = self.slot_fragments();
            let is_slab = run.start.is_multiple_of(slot) && self.slabs.slab(run.start / slot).peek().is_slab();
            if let Some(entry) = self.budget_at(run.start).filter(|_| !is_slab) {
                f(entry, run);
            }
        });
    }
}
