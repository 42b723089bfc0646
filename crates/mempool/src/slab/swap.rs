//! The commonest change of slabs by a short way.
//!
//! A slab of larger items has few of them, so that a thread that frees and allocates at random changes slabs at every other
//! allocation. Nearly always both slabs have a single word, the current one is full, and the head of the queue has
//! something free: then it takes one compare-exchange and a few stores. Everything else is [`SlabTier::pop`]'s.

use super::tier::{DRAINING, FEW};
use super::*;

impl SlabTier {
    /// Makes the head of the bin's queue current in place of the full current slab, and takes an item of it. None, and nothing
    /// has changed, where that is not all there is to it.
    pub(super) fn swap(&self, local: &LocalHeap, bin: &Bin, class: usize) -> Option<core::num::NonZeroUsize> {
        let (current, head) = (bin.current.get().checked_sub(1)? as usize, bin.first()?);
        if current == head {
            return None;
        }
        let (old, new) = (self.slab(current), self.slab(head));
        let items = old.one_word(class)?;
        let free = new.one_word_free(class)?;
        // As in `next_queued`: full ones are let go, those with much free left to drain.
        if old.one_word_left(items) != 0 || free == 0 || items >= FEW && free.count_ones() as usize * DRAINING > items {
            return None;
        }
        let me = owner_id(local.id, class);
        if old.linked() != (local.id, class as u32) || !new.claim(me) {
            return None;
        }
        // Linked before it is QUEUED, since a thief touches no link.
        old.requeue(me);
        bin.to_end(&self.slots, &new);
        bin.current.set(head as u32 + 1);
        bin.point(&new, 0, self.address(&new));
        bin.pop()
    }
}
