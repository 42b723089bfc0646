//! Freeing, and what is known about an address.
//!
//! With the page's lock a free is judged and done exactly. Without it (somebody else is in the page) the used
//! bit decides: whoever clears it has freed the object. See [`super::control`] for the mark that follows.

use super::page::Place;
use super::{Heap, HeapError, Runs};
use crate::units::GRANULE;

/// Attempts to lock a page for growing an object, before it counts as not possible.
const ATTEMPTS: u32 = 64;

impl Heap {
    /// Slot and granule of an address in a heap page, and whether it is a granule's first byte.
    fn locate(&self, address: usize) -> Result<(usize, usize, bool), HeapError> {
        let geometry = self.parts.slots.geometry();
        let offset = address.checked_sub(self.parts.data.addr()).ok_or(HeapError::NotHere)?;
        let index = offset >> geometry.shift;
        if index >= self.parts.slots.count() || !self.is_page(index) {
            return Err(HeapError::NotHere);
        }
        let inside = offset & (geometry.bytes() - 1);
        Ok((index, inside / GRANULE, inside.is_multiple_of(GRANULE)))
    }

    /// Why `at` (or a byte behind it, if not `aligned`) is no object; `Ok` if it is one.
    fn judge(&self, index: usize, at: usize, aligned: bool) -> Result<(), HeapError> {
        let start = match self.page(index).place(at) {
            Place::Object if aligned => return Ok(()),
            Place::Object => at,
            Place::Inside(start) => start,
            Place::Free => return Err(HeapError::Free),
        };
        Err(HeapError::Interior { start: self.page_address(index) + start * GRANULE })
    }

    /// Frees the object at `address`. Never waits.
    ///
    /// # Errors
    /// [`HeapError::Free`], [`HeapError::Interior`], [`HeapError::NotHere`]: nothing was changed.
    /// [`HeapError::Corrupted`]: the object was freed, and its page was found damaged.
    pub fn free(&self, runs: &impl Runs, address: usize) -> Result<(), HeapError> {
        let (index, at, aligned) = self.locate(address)?;
        let Some(guard) = self.control.try_lock(index) else {
            return self.free_busy(runs, index, at, aligned);
        };
        let Some(mut held) = self.held(index, guard) else { return Err(HeapError::NotHere) };
        let judged = self.judge(index, at, aligned);
        if judged.is_err() || !held.page.clear_used(at) {
            // Plainly, so that nothing changes; marks wait for the next one who comes by.
            self.control.unlock(held.index, held.guard, held.hint);
            return judged.and(Err(HeapError::Free));
        }
        self.count(&held);
        let freed = match held.page.absorb(at) {
            Ok(size) => {
                held.hint = held.hint.max(size);
                Ok(())
            }
            Err(what) => Err(self.heal(&mut held, what)),
        };
        self.release(runs, held).and(freed)
    }

    /// Frees an object of a page that somebody else holds.
    #[cold]
    #[inline(never)]
    fn free_busy(&self, runs: &impl Runs, index: usize, at: usize, aligned: bool) -> Result<(), HeapError> {
        self.judge(index, at, aligned)?;
        if !self.page(index).clear_used(at) {
            return Err(HeapError::Free);
        }
        // From here on the page may go back at any time; only its guard is ours to touch.
        let Some(guard) = self.control.mark_and_lock(index, at / 64) else { return Ok(()) };
        let Some(mut held) = self.held(index, guard) else { return Ok(()) };
        let settled = self.settle(&mut held);
        self.release(runs, held).and(settled)
    }

    /// Bytes of the object at `address`, as rounded: found by scanning bits, without a lock.
    ///
    /// # Errors
    /// As for [`Heap::free`].
    pub fn size_of(&self, address: usize) -> Result<usize, HeapError> {
        let (index, at, aligned) = self.locate(address)?;
        self.judge(index, at, aligned)?;
        Ok((self.page(index).next_start(at) - at) * GRANULE)
    }

    /// Grows the object at `address` to `size` bytes where it is: `true` if it has them now, `false` if the
    /// memory behind it is not free, or its page is in use by somebody else. Never shrinks.
    ///
    /// # Errors
    /// As for [`Heap::free`], but nothing is ever changed.
    pub fn grow_in_place(&self, address: usize, size: usize) -> Result<bool, HeapError> {
        let (index, at, aligned) = self.locate(address)?;
        self.judge(index, at, aligned)?;
        let units = Self::units_for(size);
        if units <= self.page(index).next_start(at) - at {
            return Ok(true);
        }
        if units > self.page(index).units() {
            return Ok(false);
        }
        let Some(mut held) = (0..ATTEMPTS).find_map(|_| self.hold(index)) else { return Ok(false) };
        let grown = held.page.extend(at, units).map_err(|what| self.heal(&mut held, what));
        // A page with an object in it can't go back, so no run is given here; marks wait for the next one.
        self.control.unlock(held.index, held.guard, held.hint);
        grown
    }

    /// Gives every wholly empty page back, however young: what the front does when memory is short.
    /// Returns how many. A page that somebody else holds is left alone.
    pub fn return_empty(&self, runs: &impl Runs) -> usize {
        let mut given = 0;
        for w in 0..self.control.words_in_use() {
            let mut bits = self.control.page_word(w);
            while bits != 0 {
                let index = w * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let Some(held) = self.hold(index) else { continue };
                if held.page.is_empty() {
                    self.give_page(runs, held);
                    given += 1;
                } else if self.release(runs, held).is_err() {
                    // Healed; the next operation on the page would have found the same.
                }
            }
        }
        given
    }
}
