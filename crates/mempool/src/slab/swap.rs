//! Which queued slab becomes current next, and the commonest change of slabs by a short way.
//!
//! A slab of larger items has few of them, so that a thread that frees and allocates at random changes slabs at every other
//! allocation. Nearly always the current one is full and the head of the queue has something free, neither little nor
//! much: then it takes one compare-exchange and a few stores. Everything else is [`SlabTier::pop`]'s.

use core::num::NonZeroUsize;

use super::*;

/// A queued slab with fewer than one of so many items free is not worth a visit while there are fresh slabs...
const SPARSE: usize = 16;
/// ...if it has at least so many items: with fewer, chance decides how many are free, and each bad draw would cost a slab.
const MANY: usize = 24;
/// A queued slab with more than one of so many items free is left to drain, while others are there.
const DRAINING: usize = 2;
/// Slabs of fewer items than this are taken as they come.
const FEW: usize = 8;
/// How many such slabs are passed over at once.
pub(super) const PASSED_OVER: usize = 4;

impl SlabTier {
    /// Makes the head of the queue of `bin`, one of `me`'s in `local` and announced, current in place of the full current slab, and takes an item of
    /// it. None, with no slab but perhaps some to drain put to the queue's end, where that is not all there is to it.
    #[inline]
    pub(crate) fn swap(&self, local: &LocalHeap, bin: &Bin, me: u32) -> Option<NonZeroUsize> {
        if bin.is_lent(local) {
            return None;
        }
        let old = local.slab_at(bin.current.get().checked_sub(1)? as usize);
        if old.items() < 64 {
            self.swap_for::<true>(local, bin, me, &old, PASSED_OVER)
        } else {
            self.swap_words(local, bin, me, &old, PASSED_OVER)
        }
    }

    /// As above, for slabs of any number of words, passing over at most so many.
    #[inline(never)]
    fn swap_words(&self, local: &LocalHeap, bin: &Bin, me: u32, old: &Slab<'_>, most: usize) -> Option<NonZeroUsize> {
        self.swap_for::<false>(local, bin, me, old, most)
    }

    /// As above. `ONE`: the items of a slab have their bits in one word.
    #[inline(always)]
    fn swap_for<const ONE: bool>(
        &self,
        local: &LocalHeap,
        bin: &Bin,
        me: u32,
        old: &Slab<'_>,
        most: usize,
    ) -> Option<NonZeroUsize> {
        let head = bin.first().filter(|&head| head != old.index() && most > 0)?;
        let items = old.items();
        if !old.is_taken::<ONE>() || !old.is_at_home(local.id) {
            return None;
        }
        let new = self.slab(head);
        // Whatever another thread makes of a stolen one meanwhile may be read here; then it can't be claimed.
        let (w, free) = new.own_free_count::<ONE>(items)?;
        if items >= FEW && free * DRAINING > items {
            // Left to drain, as in `next_queued`.
            bin.rotate(&new);
            return self.swap_words(local, bin, me, old, most - 1);
        }
        // Of less than a word any is as good: looking further costs more than the next change.
        if items >= 64 && free * SPARSE < items || !new.claim(me) {
            return None;
        }
        // Linked before it is QUEUED, since a thief touches no link.
        old.requeue(me);
        bin.rotate(&new);
        bin.current.set(head as u32 + 1);
        bin.point(&new, w, self.address(&new));
        bin.pop_announced()
    }

    /// A slab of the queue, claimed: the head, which has gathered free items longest, unless it is not worth a visit.
    ///
    /// A full one is let go. One of many items with few of them free is left to gather more: a fresh slab saves many visits, and
    /// wastes at most what the queued ones have free. One with many free is left to drain, so that it goes back: otherwise a
    /// queue would keep for ever the slabs that it once needed. Both go to the end, as long as there are others.
    pub(super) fn next_queued(&self, local: &LocalHeap, bin: &Bin, me: u32) -> Option<Slab<'_>> {
        let (mut looks, mut sparse, mut tapped) = (0, 0, 0);
        while let Some(slot) = bin.first() {
            let slab = self.slab(slot);
            let (items, free) = slab.count();
            if free > 0 {
                let few = items >= MANY && free * SPARSE < items;
                let draining = items >= FEW && free * DRAINING > items;
                looks += 1;
                sparse += usize::from(few);
                let last = looks > PASSED_OVER || !bin.has_other(&slab);
                if few && last && sparse == looks {
                    return None;
                }
                if (few || draining) && !last {
                    bin.to_end(&self.slots, &slab);
                    continue;
                }
            }
            if slab.claim(me) {
                if free > 0 {
                    bin.to_end(&self.slots, &slab);
                    return Some(slab);
                }
                self.unlink(local, &slab);
                // Unless somebody frees into it just now.
                if slab.let_go(me) == LetGo::Kept {
                    return Some(slab);
                }
            } else if slab.is_queued(me) && tapped < PASSED_OVER {
                tapped += 1;
                bin.to_end(&self.slots, &slab);
            } else if slab.is_queued(me) {
                return None;
            } else {
                // Stolen.
                self.unlink(local, &slab);
            }
        }
        None
    }
}
