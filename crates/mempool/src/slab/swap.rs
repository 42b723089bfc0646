//! Which queued slab becomes current next, and the commonest change of slabs by a short way.
//!
//! A slab of larger items has few of them, so that a thread that frees and allocates at random changes slabs at every other
//! allocation. Nearly always the current one is full and the head of the queue has something free, neither little nor
//! much: then it takes one compare-exchange and a few stores. Everything else is [`SlabTier::pop`]'s.

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
    /// Makes the head of the bin's queue current in place of the full current slab, and takes an item of it. None, with no slab
    /// but perhaps some to drain put to the queue's end, where that is not all there is to it.
    pub(super) fn swap(&self, local: &LocalHeap, bin: &Bin, class: usize) -> Option<core::num::NonZeroUsize> {
        let (current, mut head) = (bin.current.get().checked_sub(1)? as usize, bin.first()?);
        if current == head {
            return None;
        }
        let (old, me) = (self.slab(current), owner_id(local.id, class));
        if !old.is_taken(class) || old.linked() != (local.id, class as u32) {
            return None;
        }
        for _ in 0..PASSED_OVER {
            let new = self.slab(head);
            let (w, items, free) = new.own_free_count(class)?;
            if items >= FEW && free * DRAINING > items {
                // Left to drain, as in `next_queued`.
                bin.to_end(&self.slots, &new);
                head = bin.first().filter(|&next| next != current)?;
                continue;
            }
            // Of less than a word any is as good: looking further costs more than the next change.
            if items >= 64 && free * SPARSE < items || !new.claim(me) {
                return None;
            }
            // Linked before it is QUEUED, since a thief touches no link.
            old.requeue(me);
            bin.to_end(&self.slots, &new);
            bin.current.set(head as u32 + 1);
            bin.point(&new, w, self.address(&new));
            return bin.pop();
        }
        None
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
