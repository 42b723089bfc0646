//! Slabs in the reserve: their items are for critical requests, whoever frees them.
//!
//! A slab of the reserve is RESERVED from its carving until it goes back. It has no owner: its `free` words are 0 for good, each
//! free into it, also by the thread that the item was handed out to, sets a `remote` bit, and nobody adopts, queues, taps or
//! loosens it. So no path of ordinary requests leads to an item of it (docs/SAFETY.md, I30). Who takes an item puts a mark into the thread field
//! meanwhile, which keeps thieves and other takers away, and clears the `remote` bit. Who frees the last item gives the slab
//! back, and so does everybody who looks for empty slabs.

use super::protocol::{mask, words_of};
use super::*;

/// In the thread field while somebody takes: no thread's number.
const TAKING: u32 = 1 << 30;

impl SlabTier {
    /// `n` consecutive items, one allocation, of the slabs of `class` that begin in the reserve, in slots below `end`: the address of the
    /// first. Who is kept off by another taker may be told None although there is room. O(reserve).
    pub fn pop_reserved(&self, class: usize, n: usize, end: usize) -> Option<usize> {
        (0..self.reach().min(end)).map(|slot| self.slab(slot)).find_map(|slab| {
            // Acquire: the class is that of the state seen, or the transition fails.
            let seen = slab.owner();
            let wanted = seen.state() == State::Reserved && seen.thread() == 0 && slab.shape().class as usize == class;
            if !wanted || !slab.has_remote() || !slab.transit(seen, seen.next(State::Reserved, TAKING, 1)) {
                return None;
            }
            self.take_of(&slab, n)
        })
    }

    /// As above, of a slab that is cut for it, in a run of `runs`.
    pub fn carve_reserved(&self, runs: &impl Runs, class: usize, n: usize) -> Option<usize> {
        let shape = self.shape(class).filter(|shape| n <= shape.items as usize)?;
        let slab = self.carve_shape(runs, shape, State::Reserved, TAKING)?;
        self.take_of(&slab, n)
    }

    /// `n` items of a slab that the caller has marked, which is at rest afterwards: the address of the first.
    fn take_of(&self, slab: &Slab<'_>, n: usize) -> Option<usize> {
        let item = slab.take_reserved(n);
        let address = item.map(|item| self.address(slab) + item * slab.item_size());
        let seen = slab.peek();
        // Fails only where the cache ends, which nobody uses then.
        slab.transit(seen, seen.next(State::Reserved, 0, 1));
        address
    }

    /// Behind a remote free into a slab that was seen as `seen`: whether it is the reserve's, which then goes back if it is empty.
    #[inline]
    pub(super) fn freed_into_reserve(&self, runs: &impl Runs, slab: &Slab<'_>, seen: Owner) -> bool {
        let reserved = seen.state() == State::Reserved;
        // Whatever it has been cut for since the free: an empty one of the reserve goes back.
        if reserved && slab.steal(seen) {
            self.give(runs, slab);
        }
        reserved
    }
}

impl Slab<'_> {
    /// Takes `n` consecutive free items, one allocation. For the one who has marked it: nobody else clears bits then.
    fn take_reserved(&self, n: usize) -> Option<usize> {
        if n == 1 {
            return self.tap_item();
        }
        let first = self.find_region(0, n, |w| self.slot.remote(w).load(Relaxed) & !self.pad(w))?;
        // As in `claim_region`: first how the items are joined, then that they are allocated.
        for w in words_of(first, n) {
            let joined = self.joined(w);
            joined.store(joined.load(Relaxed) & !mask(w, first, n) | mask(w, first, n - 1), Relaxed);
        }
        for w in words_of(first, n) {
            // Acquire pairs with the freer's fetch_or: its last use of the items comes before ours. Release pairs with `is_allocated`.
            self.slot.remote(w).fetch_and(!mask(w, first, n), AcqRel);
        }
        Some(first)
    }

    /// At rest again, whoever was taking. Child of a fork only.
    pub(super) fn repair_reserved(&self) {
        self.cut_joins();
        let seen = self.peek();
        if seen.thread() != 0 {
            self.slot.owner().store(seen.next(State::Reserved, 0, 1).0, Relaxed);
        }
    }
}
