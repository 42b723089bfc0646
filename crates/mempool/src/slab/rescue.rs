//! Where an exhausted pool still finds an item of a class: in orphans, and in what was freed remotely into the queues of
//! threads that may never run again.
//!
//! What else is free in a thread's slabs is had by making them nobody's: see `loosen`.
//!
//! *Limits:* what is left then is the free part of the slab that each thread used last.
//! [`SlabTier::each_stranded`] says what threads have that is free, whether it could be had for its class or not.

use super::loosen::is_of;
use super::*;

impl SlabTier {
    /// Exhaustion: takes every wholly empty slab that waits in a queue or belongs to nobody, whosever it is.
    /// How many. O(slots).
    pub fn steal_empty(&self, runs: &impl Runs) -> usize {
        (0..self.reach())
            .filter(|&slot| {
                let slab = self.slab(slot);
                let stolen = slab.steal(slab.owner());
                if stolen {
                    self.give(runs, &slab);
                }
                stolen
            })
            .count()
    }

    /// An item of `class` when [`Self::pop`] found none and no run is left: from any slab of nobody, hint or not, else one
    /// freed remotely into a slab of another thread's queue. O(slots).
    pub fn pop_anywhere(&self, runs: &impl Runs, local: &LocalHeap, class: usize) -> Result<Option<usize>, Bad> {
        let Some(bin) = local.bin(class) else { return Ok(None) };
        while self.current(local, bin, class).is_none()
            && let Some(slab) = self.adopt_anywhere(local, class)
        {
            bin.current.set(slab.index() as u32 + 1);
            bin.point(&slab, 0, self.address(&slab));
            let popped = self.pop(runs, local, class)?;
            if popped.is_some() {
                return Ok(popped);
            }
        }
        Ok(self.tap_anywhere(local, class))
    }

    /// Any slab of nobody with free items of `class`, HELD. The hint that leads there stays, and is stale.
    fn adopt_anywhere(&self, local: &LocalHeap, class: usize) -> Option<Slab<'_>> {
        (0..self.reach()).map(|slot| self.slab(slot)).find(|slab| {
            let seen = slab.owner();
            seen.state() == State::Nobody
                && slab.shape().class as usize == class
                && slab.has_free()
                && slab.adopt_held(seen, owner_id(local.id, class))
        })
    }

    /// An item of `class` that was freed remotely into a slab of another thread's queue.
    fn tap_anywhere(&self, local: &LocalHeap, class: usize) -> Option<usize> {
        let me = owner_id(local.id, class);
        (0..self.reach()).find_map(|slot| {
            let slab = self.slab(slot);
            let seen = slab.owner();
            let shape = slab.shape();
            let wanted = seen.state() == State::Queued && seen.thread() != me && shape.class as usize == class;
            // The shape is that of the owner word: it is constant from carve to giving back, and `tap` compares the
            // generation.
            if !wanted || shape.count != 0 || !slab.has_remote() || !slab.tap(seen) {
                return None;
            }
            let item = slab.tap_item();
            if slab.untap() && slab.has_free() {
                self.set_hint(&slab);
            }
            item.map(|item| self.address(&slab) + item * shape.size)
        })
    }

    /// Makes a slab of `me` nobody's. False when it was stolen, and empty.
    pub(super) fn disown(&self, slab: &Slab<'_>, me: u32) -> bool {
        // Again only if somebody else got on: began or ended to tap or loosen it.
        while is_of(slab.peek(), me) {
            if slab.orphan(me) {
                self.set_hint(slab);
                return true;
            }
            if slab.disown(me) {
                return true;
            }
        }
        false
    }

    /// Calls `f` with the thread's number, the class and the free bytes of each slab that belongs to a thread. `current`
    /// tells the current ones from those in a queue. O(slots). Exact when nobody is at work.
    pub fn each_stranded(&self, f: &mut dyn FnMut(u32, &Shape, bool, usize)) {
        self.for_each(&mut |slab, shape| {
            let owner = slab.owner();
            let free = match owner.state() {
                State::Held => slab.count().1,
                State::Queued | State::Tapped if !slab.is_empty() => slab.count_own_free(),
                _ => 0,
            };
            if free > 0 {
                f(thread_of(owner), &shape, owner.state() == State::Held, free * shape.size);
            }
        });
    }
}
