//! Spares: where the run of an emptied slab waits for the next slab.
//!
//! Between a producer and a consumer slabs empty in one thread while the other cuts new ones, a few hundred objects each. Through
//! the page-frag tier that costs a search, two refreshes of the tree, and bits to claim and to clear. So a few such runs are
//! *parked* (`frag::park`) instead of given back, and a few words of the pool say where. As in a thread's store these are
//! hints: whoever runs out of memory finds parked runs without them, and a hint that is out of date is forgotten.

use super::core::Core;
use crate::frag::Run;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::units::FRAGMENT;

/// Spare runs of a pool at most.
const ENTRIES: usize = 32;
/// Of a pool's slots one in so many may be spare at most.
const PART: usize = 64;
/// Fragments of the longest run that is kept: that of the largest slot.
const MOST: usize = 256;

/// Spare runs.
#[derive(Default)]
pub struct Spares {
    /// Slot and fragments of each, 0 for none.
    entries: [AtomicU64; ENTRIES],
    /// Whether there are any that no slab wanted since a large run was taken from the page-frag tier.
    idle: AtomicU64,
}

/// A slot and its run's fragments in one word, and back.
const fn pack(slot: usize, fragments: usize) -> u64 {
    (slot as u64) << 16 | fragments as u64
}

impl Core {
    /// The entries in use; none in small pools, in which nothing is parked.
    fn spares(&self) -> &[AtomicU64] {
        let most = if self.parking.most == 0 { 0 } else { self.slabs.slots.count() / PART };
        &self.spares.entries[..most.min(ENTRIES)]
    }

    /// A spare run of so many fragments, the caller's own now: its slot. O(1).
    pub(super) fn take_spare(&self, fragments: usize) -> Option<usize> {
        for entry in self.spares() {
            let seen = entry.load(Relaxed);
            let slot = (seen >> 16) as usize;
            // Acquire pairs with `keep_spare`, although the run itself comes by `unpark`.
            if seen != pack(slot, fragments) || seen == 0 || entry.compare_exchange(seen, 0, Acquire, Relaxed).is_err()
            {
                continue;
            }
            self.spares.idle.store(0, Relaxed);
            let start = slot * self.slot_fragments();
            match self.frag.unpark(start, fragments) {
                Some(run) if run.start == start => return Some(slot),
                // Somebody's who took the place of the one that was remembered, and parked it in turn.
                Some(run) => _ = self.frag.give(run.start, |_| ()),
                None => {}
            }
        }
        None
    }

    /// Parks the run of a slab that is being given back, if there is room for it. `before_clear` is called before anybody else
    /// can have it. False, and nothing has happened, otherwise. O(1).
    pub(super) fn keep_spare(&self, slot: usize, fragments: usize, before_clear: &mut dyn FnMut()) -> bool {
        // What lies in the reserve goes back there, as from a thread's store.
        if fragments > MOST || slot * self.slot_fragments() * FRAGMENT < self.config.reserve {
            return false;
        }
        let Some(entry) = self.spares().iter().find(|entry| entry.load(Relaxed) == 0) else { return false };
        let Some(run) = self.frag.park_given(slot * self.slot_fragments(), |_| before_clear()) else { return false };
        self.count_given(run.len);
        // Release pairs with `take_spare`.
        if entry.compare_exchange(0, pack(slot, run.len), Release, Relaxed).is_err() {
            self.frag.give_parked(run.start, run.len);
        }
        true
    }

    /// Before a large run is taken from the page-frag tier: gives the spares back that lay idle since the last one was, so that large runs are not laid around
    /// them for good.
    pub(super) fn give_idle_spares(&self) {
        if self.spares.idle.swap(1, Relaxed) != 0 {
            self.give_spares(|_| true);
        }
    }

    /// Gives back the spares that `which` says. Whether there were any.
    pub(super) fn give_spares(&self, which: impl Fn(Run) -> bool) -> bool {
        let mut any = false;
        for entry in self.spares() {
            let seen = entry.load(Relaxed);
            let run = Run { start: (seen >> 16) as usize * self.slot_fragments(), len: seen as usize & 0xffff };
            // Acquire pairs with `keep_spare`, although the run itself comes by `give_parked`.
            if seen != 0 && which(run) && entry.compare_exchange(seen, 0, Acquire, Relaxed).is_ok() {
                any |= self.frag.give_parked(run.start, run.len);
            }
        }
        any
    }
}
