//! A cache ends: its slabs go back, and nobody keeps any.

use super::*;

impl SlabTier {
    /// A slab of `class` is cut at `slot`: a cache that ends looks there. Relaxed: it does so when nobody uses it any more.
    pub(super) fn note_place(&self, class: usize, slot: usize) {
        if (CLASSES..self.classes).contains(&class) {
            let (groups, bit) = (self.shape_word(class, 4), 1 << (slot / self.group()));
            if groups.load(Relaxed) & bit == 0 {
                groups.fetch_or(bit, Relaxed);
            }
        }
    }

    /// The cache of `class` ends: every slab goes back, live items or not. Nobody uses the cache any more.
    /// The number of live items (arrays count their items). O(slots) in the groups that its slabs are in.
    pub fn destroy(&self, runs: &impl Runs, class: usize) -> usize {
        let groups = if class < CLASSES { u64::MAX } else { self.shape_word(class, 4).load(Relaxed) };
        let slots = |g: usize| g * self.group()..((g + 1) * self.group()).min(self.reach());
        let mut live = 0;
        for slot in (0..64).filter(|g| groups >> g & 1 == 1).flat_map(slots) {
            let slab = self.slab(slot);
            loop {
                // First: others may steal an empty one meanwhile, and cut it anew for another class. Then what was read behind it may be of
                // either, and the transition fails.
                let seen = slab.owner();
                let shape = slab.shape();
                if !seen.state().is_slab() || shape.class as usize != class {
                    break;
                }
                let items = if shape.count == 0 { slab.live() } else { slab.live() * shape.count };
                // Its links stay: it may have been stolen out of a living queue of another class.
                if slab.condemn(seen) {
                    live += items;
                    self.give(runs, &slab);
                    break;
                }
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
