//! A door for the project's own benchmarks and its command. Not part of the interface.
//!
//! The page-frag tier alone, below the store of recently freed runs, so that what is measured is the search; and what
//! `mempool size` computes its bound from.

use super::Pool;

#[doc(hidden)]
impl Pool {
    /// Takes a run of `fragments` from the page-frag tier: its first fragment. None if nothing fits.
    #[must_use]
    pub fn door_take(&self, fragments: usize) -> Option<usize> {
        self.core().frag.take(fragments, 1).map(|run| run.start)
    }

    /// Fragments of a slot, at which slabs begin.
    #[must_use]
    pub fn door_slot(&self) -> usize {
        self.core().slot_fragments()
    }

    /// Bytes of an item of size class `class`.
    #[must_use]
    pub fn door_class_size(class: usize) -> usize {
        crate::slab::class_size(class)
    }

    /// Gives the run that begins at fragment `start` back. Whether there was one.
    ///
    /// # Safety
    /// The run came from [`Pool::door_take`], and nobody uses it any more.
    pub unsafe fn door_give(&self, start: usize) -> bool {
        self.core().frag.give(start, |_| ()).is_ok()
    }
}
