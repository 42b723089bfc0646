//! A cache ends: its slabs go back, and nobody keeps any.

use super::*;

impl SlabTier {
    /// The cache of `class` ends: every slab goes back, live items or not. Nobody uses the cache any more.
    /// The number of live items (arrays count their items).
    pub fn destroy(&self, runs: &impl Runs, class: usize) -> usize {
        let mut live = 0;
        for slot in 0..self.reach() {
            let slab = self.slab(slot);
            let state = slab.owner().state();
            let shape = slab.shape();
            if !state.is_slab() || shape.class as usize != class {
                continue;
            }
            live += if shape.count == 0 { slab.live() } else { slab.live() * shape.count };
            // Its links stay: it may have been stolen out of a living queue of another class.
            if slab.condemn() {
                self.give(runs, &slab);
            }
        }
        self.class_hint(class).store(0, Relaxed);
        self.shape_word(class, 0).store(0, Relaxed);
        live
    }

    /// Forgets what `local` holds of `class`: before [`Self::destroy`], for every local heap, [`Self::undisturbed`].
    pub fn forget(&self, local: &LocalHeap, class: usize) {
        if let Some(bin) = local.bin(class) {
            while let Some(slot) = bin.first() {
                self.unlink(local, &self.slab(slot));
            }
            bin.reset(self.zero);
        }
    }
}
