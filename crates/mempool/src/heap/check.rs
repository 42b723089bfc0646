//! Looking at the whole heap: repair after a fork, verification, figures.

use super::page::Page;
use super::{Heap, HeapFault, PageStats, Runs};
use crate::units::GRANULE;

impl Heap {
    /// Calls `f` with the slot of each page in the page bitmap.
    fn for_each_slot(&self, f: &mut dyn FnMut(usize)) {
        for w in 0..self.control.words_in_use() {
            let mut bits = self.control.page_word(w);
            while bits != 0 {
                f(w * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Makes the heap whole again in a child after fork, where threads may have vanished at any point:
    /// forgets all locks and marks, and builds page bitmap, room bitmaps and every tree anew from owner
    /// words and bits. A slot that a vanished thread took, but had not made a page yet, goes back to `runs`.
    /// Idempotent. Only while no other thread runs.
    pub fn repair(&self, runs: &impl Runs) {
        let making = self.control.making().filter(|&index| !self.is_page(index));
        let tick = self.control.tick();
        self.control.reset();
        self.control.add_ticks(tick);
        for index in 0..self.control.reach() {
            if !self.is_page(index) {
                continue;
            }
            let hint = self.page(index).defragment();
            self.control.set_page(index);
            if let Some(guard) = self.control.try_lock(index) {
                self.control.unlock(index, guard, hint);
            }
        }
        if let Some(index) = making {
            runs.give_slot(index, &mut || self.set_state(index, crate::segment::State::Free));
        }
    }

    /// Defragments every page that nobody holds: merges neighbouring free chunks and builds its tree anew.
    pub fn defragment(&self, runs: &impl Runs) {
        self.for_each_slot(&mut |index| {
            if let Some(mut held) = self.hold(index) {
                held.hint = held.page.defragment();
                // The tree was built a moment ago.
                let _ = self.release(runs, held);
            }
        });
    }

    /// Checks every invariant of every page. Exact while no other thread is in the heap.
    ///
    /// # Errors
    /// The first fault.
    pub fn verify(&self) -> Result<(), HeapFault> {
        for index in 0..self.control.reach() {
            let listed = self.control.page_word(index / 64) >> (index % 64) & 1 != 0;
            if listed != self.is_page(index) {
                return Err(HeapFault::Owner { page: index });
            }
            if listed {
                self.verify_page(index)?;
            } else if !self.control.room_agrees(index, 0) {
                return Err(HeapFault::Hint { page: index });
            }
        }
        Ok(())
    }

    fn verify_page(&self, index: usize) -> Result<(), HeapFault> {
        let Some(mut held) = (0..1000).find_map(|_| self.hold(index)) else {
            return Err(HeapFault::Locked { page: index });
        };
        let settled = self.settle(&mut held).map_err(|_| HeapFault::Tree { page: index });
        let found = settled.and_then(|()| held.page.verify());
        self.control.unlock(index, held.guard, held.hint);
        let agrees = self.control.room_agrees(index, held.hint);
        match found {
            Err(fault) => Err(fault),
            Ok(largest) if largest <= held.hint && agrees => Ok(()),
            Ok(_) => Err(HeapFault::Hint { page: index }),
        }
    }

    fn stats(&self, index: usize, page: Page<'_>) -> PageStats {
        let mut stats = PageStats { slot: index, address: self.page_address(index), ..PageStats::default() };
        stats.bytes = page.units() * GRANULE;
        page.for_each_chunk(&mut |_, granules, used| {
            let bytes = granules * GRANULE;
            if used {
                stats.objects += 1;
                stats.object_bytes += bytes;
            } else {
                stats.free_chunks += 1;
                stats.largest_free = stats.largest_free.max(bytes);
            }
        });
        stats
    }

    /// Calls `f` with the figures of each page. Takes no lock: while other threads work, each figure is of
    /// some moment.
    pub fn for_each_page(&self, f: &mut dyn FnMut(PageStats)) {
        self.for_each_slot(&mut |index| f(self.stats(index, self.page(index))));
    }

    /// Calls `f(address, bytes)` for each live object. Takes no lock. For the tests' oracles.
    #[cfg(test)]
    pub fn for_each_live(&self, f: &mut dyn FnMut(usize, usize)) {
        self.for_each_slot(&mut |index| {
            self.page(index).for_each_chunk(&mut |at, granules, used| {
                if used {
                    f(self.page_address(index) + at * GRANULE, granules * GRANULE);
                }
            });
        });
    }
}
