//! Allocation: a page with room, or a new page.
//!
//! Four looks, each more thorough: the page that served the caller last; pages that surely have room, from the cursor of the
//! request's class on; then every page, by its guard; then a new page. "None" is only said after every page was examined and
//! the tier below had no run. A page that somebody else holds is busy, not full.
//!
//! Threads that meet in a page part: who has found its page busy [`MEETINGS`] times takes another one with room, and makes one
//! where all of these are busy too. So there is at most one such page for each thread that allocates at the same time.

use super::control::{CLASSES, class_for};
use super::{Heap, HeapError, Held, Runs};
use crate::segment::State;
use crate::sync::spin;
use core::cell::Cell;
use core::ptr::NonNull;

/// Looks at single pages, and spins, before the answer is [`HeapError::Busy`]: a millisecond or so.
const BOUND: usize = if cfg!(loom) { 30 } else { 1 << 18 };

/// How often a thread finds the page that served it last busy before it looks for one of its own.
const MEETINGS: u64 = 8;
/// One such time, in [`Heap::alloc_near`]'s word.
const MEETING: u64 = 1 << 32;

/// What a look at one page gave.
enum Look {
    Took(usize),
    Full,
    Busy,
}

/// What a look at all pages gave.
struct Survey {
    took: Option<usize>,
    /// Some page with room was held by somebody else.
    room_busy: bool,
    /// Some page was held by somebody else.
    busy: bool,
    /// Pages looked at.
    looks: usize,
}

impl Heap {
    /// As [`Heap::alloc_near`], for somebody who was never here.
    #[cfg(test)]
    pub fn alloc(&self, runs: &impl Runs, size: usize) -> Result<Option<NonNull<u8>>, HeapError> {
        self.alloc_near(runs, size, &Cell::new(0))
    }

    /// Allocates `size` bytes (0 counts as 1), aligned to 16, with any content. `Ok(None)` when exhausted:
    /// no page has a chunk that is large enough, and `runs` has no slot. `near`, a word that the caller keeps from request to
    /// request, 0 at first, says where it was served last.
    ///
    /// # Errors
    /// [`HeapError::TooLarge`], [`HeapError::Corrupted`], [`HeapError::Busy`].
    ///
    /// Cost: logarithmic in the page's free chunks, once a page with room is found; that is usually the first one looked at.
    pub fn alloc_near(
        &self,
        runs: &impl Runs,
        size: usize,
        near: &Cell<u64>,
    ) -> Result<Option<NonNull<u8>>, HeapError> {
        if size > self.parts.limit {
            return Err(HeapError::TooLarge);
        }
        let (units, seen) = (Self::units_for(size), near.get());
        if let Some(last) = (seen as u32 as usize).checked_sub(1) {
            match self.look(runs, last, units)? {
                Look::Took(offset) => return Ok(NonNull::new(self.parts.data.wrapping_add(offset))),
                Look::Busy if seen < MEETINGS * MEETING => near.set(seen + MEETING),
                Look::Busy | Look::Full => {}
            }
        }
        self.alloc_far(runs, units, near)
    }

    /// What [`Heap::alloc_near`] does when the last page has no room, or somebody is in it.
    #[cold]
    #[inline(never)]
    fn alloc_far(&self, runs: &impl Runs, units: usize, near: &Cell<u64>) -> Result<Option<NonNull<u8>>, HeapError> {
        let last = near.get() as u32 as usize;
        let parting = near.get() >= MEETINGS * MEETING;
        let mut found = self.quick(runs, units, if parting { last.wrapping_sub(1) } else { usize::MAX })?;
        if found.is_none() && parting {
            found = self.grow(runs, units)?;
        }
        if found.is_none() {
            found = self.search(runs, units)?;
        }
        let Some(offset) = found else { return Ok(None) };
        let page = (offset >> self.parts.slots.geometry().shift) + 1;
        if page != last {
            near.set(page as u64);
        }
        Ok(NonNull::new(self.parts.data.wrapping_add(offset)))
    }

    /// A page more, unless somebody else is adding one: the offset of its first object.
    fn grow(&self, runs: &impl Runs, units: usize) -> Result<Option<usize>, HeapError> {
        let seen = self.control.grow();
        if !self.control.try_grow(seen) {
            return Ok(None);
        }
        let made = self.make_page(runs, units);
        self.control.grown(seen, matches!(made, Ok(Some(_))));
        made
    }

    /// Looks at pages that have room for `units` granules for sure, but for the one in slot `but`; the offset of the object.
    fn quick(&self, runs: &impl Runs, units: usize, but: usize) -> Result<Option<usize>, HeapError> {
        let class = class_for(units);
        if class >= CLASSES {
            return Ok(None);
        }
        let cursor = self.control.cursor(class);
        for w in cursor..self.control.words_in_use() {
            let mut bits = self.control.room_word(class, w);
            if bits != 0 && w != cursor {
                self.control.move_cursor(class, cursor, w);
            }
            while bits != 0 {
                let index = w * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if index != but
                    && let Look::Took(offset) = self.look(runs, index, units)?
                {
                    return Ok(Some(offset));
                }
            }
        }
        Ok(None)
    }

    /// Tries to allocate from the page in slot `index`.
    fn look(&self, runs: &impl Runs, index: usize, units: usize) -> Result<Look, HeapError> {
        if index >= self.parts.slots.count() {
            return Ok(Look::Full);
        }
        let guard = self.control.guard(index);
        if guard.locked() {
            return Ok(Look::Busy);
        }
        if guard.hint() < units && !guard.marked() {
            return Ok(Look::Full);
        }
        match self.hold(index) {
            Some(held) => self.take(runs, held, units),
            None => Ok(Look::Busy),
        }
    }

    /// Takes `units` granules from a held page and gives its lock back.
    fn take<'a>(&'a self, runs: &impl Runs, mut held: Held<'a>, units: usize) -> Result<Look, HeapError> {
        let settled = if held.guard.marked() { self.settle(&mut held) } else { Ok(()) };
        let taken = settled.and_then(|()| {
            let found = held.page.take(units);
            let taken = found.map_err(|what| self.heal(&mut held, what))?;
            if taken.is_none() {
                let largest = held.page.largest_chunk();
                held.hint = largest.map_err(|what| self.heal(&mut held, what))?.into();
            }
            Ok(taken)
        });
        if let Ok(Some(_)) = taken {
            self.count(&held);
        }
        let index = held.index;
        let released = self.release(runs, held);
        match (taken, released) {
            // The object is there: damage that was found at unlocking is healed, and the next one is told.
            (Ok(Some(at)), _) => Ok(Look::Took(self.offset(index, at))),
            (Ok(None), Ok(())) => Ok(Look::Full),
            (Err(what), _) | (Ok(None), Err(what)) => Err(what),
        }
    }

    /// Bytes from slot 0 to granule `at` of slot `index`.
    fn offset(&self, index: usize, at: usize) -> usize {
        (index << self.parts.slots.geometry().shift) + at * crate::units::GRANULE
    }

    /// Looks at every page.
    fn survey(&self, runs: &impl Runs, units: usize) -> Result<Survey, HeapError> {
        let mut survey = Survey { took: None, room_busy: false, busy: false, looks: 1 };
        for w in 0..self.control.words_in_use() {
            let mut bits = self.control.page_word(w);
            while bits != 0 {
                let index = w * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                survey.looks += 1;
                match self.look(runs, index, units)? {
                    Look::Took(offset) => {
                        survey.took = Some(offset);
                        return Ok(survey);
                    }
                    Look::Full => {}
                    Look::Busy => {
                        let guard = self.control.guard(index);
                        survey.room_busy |= guard.hint() >= units || guard.marked();
                        survey.busy = true;
                    }
                }
            }
        }
        Ok(survey)
    }

    /// Everything after the quick look.
    #[cold]
    #[inline(never)]
    fn search(&self, runs: &impl Runs, units: usize) -> Result<Option<usize>, HeapError> {
        let (mut looks, mut rounds, mut no_slot) = (0, 0, false);
        while looks < BOUND {
            let seen = self.control.grow();
            let survey = self.survey(runs, units)?;
            if survey.took.is_some() {
                return Ok(survey.took);
            }
            let wait = survey.busy && (no_slot || survey.room_busy && rounds < self.parts.patience);
            if !wait && self.control.try_grow(seen) {
                let made = self.make_page(runs, units);
                self.control.grown(seen, matches!(made, Ok(Some(_))));
                if made != Ok(None) || !survey.busy {
                    return made;
                }
                no_slot = true;
            }
            looks += survey.looks;
            rounds += 1;
            spin();
        }
        Err(HeapError::Busy)
    }

    /// Makes a page and takes the first object from it. The caller has the right to grow.
    fn make_page(&self, runs: &impl Runs, units: usize) -> Result<Option<usize>, HeapError> {
        let Some(index) = runs.take_slot() else { return Ok(None) };
        self.control.set_making(Some(index));
        self.control.extend_reach(index);
        // Somebody who comes late for a former page in this slot may hold the guard, for a moment.
        let Some(guard) = (0..BOUND).find_map(|_| {
            let guard = self.control.try_lock(index);
            if guard.is_none() {
                spin();
            }
            guard
        }) else {
            self.control.set_making(None);
            runs.give_slot(index, &mut || self.set_state(index, State::Free));
            return Err(HeapError::Busy);
        };
        self.control.take_marks(index, &mut |_| {});
        let page = self.page(index);
        page.make(self.control.tick());
        self.set_state(index, State::Heap);
        self.control.set_page(index);
        self.control.set_making(None);
        let held = Held { index, guard, page, hint: page.units() };
        match self.take(runs, held, units)? {
            Look::Took(offset) => Ok(Some(offset)),
            Look::Full | Look::Busy => Err(HeapError::Busy),
        }
    }
}
