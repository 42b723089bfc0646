//! The words that all heap pages share: which slots are pages, who holds which page, where there is room.
//!
//! ```text
//!  grow  tick  making  reach ...  cursors[16]   | pages[]  room[0][] ... room[15][] | guards[]
//!  one bit per slot in each bitmap        one word per slot
//! ```
//!
//! `pages`: 1 = the slot is a heap page. `room[c]`: 1 = the page's largest free chunk is at least
//! `threshold(c)` granules, as far as its guard knows. The guard is the page's lock and more:
//!
//! ```text
//!  guard = [marks:32 | - | hint:16 | lock:1]
//! ```
//!
//! `hint` is never below the largest chunk in the page's tree; only the lock's holder changes it. `marks` are left by a free
//! that finds the page locked: its object's used bit is cleared already, and the mark says in which words
//! of the page the tree has still to learn of it. Mark and attempt to lock are one read-modify-write, and
//! so are unlocking and looking for marks: a mark is either seen by the holder or by a later one, and no
//! free ever waits.
//!
//! Guards lie here and not in the slot's descriptor, because a thread may touch a guard late, when the
//! page has gone back and the descriptor belongs to another tier. A guard always belongs to the heap.
#![allow(unsafe_code)]

use super::step;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Classes of room.
pub(super) const CLASSES: usize = 16;
const GROW: usize = 0;
const TICK: usize = 1;
const MAKING: usize = 2;
/// No slot from this one on was ever made a page: nobody looks at its words, its guard or its descriptor.
const REACH: usize = 3;
const CURSORS: usize = 8;
const BITMAPS: usize = CURSORS + CLASSES;

const LOCK: u64 = 1;
const HINT_SHIFT: u32 = 1;
const HINT_MASK: u64 = 0xffff;
const MARK_SHIFT: u32 = 32;
const MARKS: u64 = 0xffff_ffff << MARK_SHIFT;

/// Words that the heap of a pool with `slots` slots needs for its control area.
#[must_use]
pub const fn control_words(slots: usize) -> usize {
    BITMAPS + (1 + CLASSES) * slots.div_ceil(64) + 8 * slots.div_ceil(8)
}

/// Granules of class `c`: 1, 2, 3, 4, 6, 8, 12, 16, 24, ... 256.
const fn threshold(c: usize) -> usize {
    match c {
        0 => 1,
        _ if c % 2 == 1 => 1 << c.div_ceil(2),
        _ => 3 << (c / 2 - 1),
    }
}

/// How many classes have a threshold of at most `units`.
pub(super) const fn classes_up_to(units: usize) -> usize {
    if units < 2 {
        return units;
    }
    let e = units.ilog2() as usize;
    let count = 2 * e + (units >= 3 << (e - 1)) as usize;
    if count < CLASSES { count } else { CLASSES }
}

/// The first class whose pages all have room for `units` granules.
pub(super) const fn class_for(units: usize) -> usize {
    let below = classes_up_to(units);
    if below > 0 && threshold(below - 1) == units { below - 1 } else { below }
}

const _: () = assert!(threshold(1) == 2 && threshold(2) == 3 && threshold(3) == 4 && threshold(4) == 6);
const _: () = assert!(class_for(200) == 15 && class_for(1) == 0 && class_for(5) == 4 && classes_up_to(5) == 4);

/// A guard's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard(u64);

impl Guard {
    pub(super) const fn locked(self) -> bool {
        self.0 & LOCK != 0
    }
    pub(super) const fn hint(self) -> usize {
        (self.0 >> HINT_SHIFT & HINT_MASK) as usize
    }
    pub(super) const fn marked(self) -> bool {
        self.0 & MARKS != 0
    }
}

/// What the grow word said: `[pages made | lock:1]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Grow(u64);

impl Grow {
    pub(super) const fn locked(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The control area.
#[derive(Clone, Copy)]
pub(super) struct Control {
    words: *const AtomicU64,
    slots: usize,
    /// Where the guards begin, and how many lie in a line's column.
    guards: usize,
    stripe: usize,
    /// log2 of the descriptor words that one mark stands for.
    mark_shift: u32,
}

impl Control {
    /// # Safety
    /// `control_words(slots)` atomics at `words` are valid for as long as the result is used.
    pub(super) unsafe fn new(words: *const AtomicU64, slots: usize, bitmap_words: usize) -> Self {
        let guards = BITMAPS + (1 + CLASSES) * slots.div_ceil(64);
        Self { words, slots, guards, stripe: slots.div_ceil(8), mark_shift: u32::from(bitmap_words > 32) }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < control_words(self.slots));
        // SAFETY: all callers stay below `control_words(slots)`, which `new` was promised.
        unsafe { &*self.words.add(index) }
    }

    /// Words in a bitmap of one bit per slot.
    fn bitmap_words(&self) -> usize {
        self.slots.div_ceil(64)
    }

    /// Those of them that may say anything.
    #[inline]
    pub(super) fn words_in_use(&self) -> usize {
        self.reach().div_ceil(64)
    }

    /// The slots that may be pages lie below this one.
    #[inline]
    pub(super) fn reach(&self) -> usize {
        // Relaxed: a page that is made at this moment may be overlooked, as if it were made later.
        self.word(REACH).load(Relaxed).min(self.slots as u64) as usize
    }

    /// Before `slot` is a page, so that a child of a fork finds it. By one who has the right to grow.
    pub(super) fn extend_reach(&self, slot: usize) {
        step();
        self.word(REACH).fetch_max(slot as u64 + 1, Relaxed);
    }

    fn pages(&self, w: usize) -> &AtomicU64 {
        self.word(BITMAPS + w)
    }

    fn room(&self, class: usize, w: usize) -> &AtomicU64 {
        self.word(BITMAPS + (1 + class) * self.bitmap_words() + w)
    }

    /// Neighbouring slots have their guards in different cache lines.
    fn guard_word(&self, slot: usize) -> &AtomicU64 {
        self.word(self.guards + slot % 8 * self.stripe + slot / 8)
    }

    /// Word `w` of the page bitmap. Acquire: the pages in it are made.
    pub(super) fn page_word(&self, w: usize) -> u64 {
        self.pages(w).load(Acquire)
    }

    /// Word `w` of the bitmap of class `class`.
    pub(super) fn room_word(&self, class: usize, w: usize) -> u64 {
        self.room(class, w).load(Acquire)
    }

    /// The word of class `class`'s bitmap to look at first.
    pub(super) fn cursor(&self, class: usize) -> usize {
        self.word(CURSORS + class).load(Relaxed) as usize
    }

    /// Moves the cursor from `old` to `new`, unless somebody else moved it: a guide, so it may be wrong.
    pub(super) fn move_cursor(&self, class: usize, old: usize, new: usize) {
        step();
        let _ = self.word(CURSORS + class).compare_exchange(old as u64, new as u64, Relaxed, Relaxed);
    }

    /// Clears everything that was ever written but the reach: no page, nobody inside.
    pub(super) fn reset(&self) {
        let clear = |word: &AtomicU64| {
            if word.load(Relaxed) != 0 {
                step();
                word.store(0, Relaxed);
            }
        };
        let words = self.words_in_use();
        (0..BITMAPS).filter(|&index| index != REACH).for_each(|index| clear(self.word(index)));
        (0..words).for_each(|w| clear(self.pages(w)));
        (0..CLASSES).for_each(|class| (0..words).for_each(|w| clear(self.room(class, w))));
        (0..self.reach()).for_each(|slot| clear(self.guard_word(slot)));
    }

    pub(super) fn set_page(&self, slot: usize) {
        step();
        self.pages(slot / 64).fetch_or(1 << (slot % 64), Release);
    }

    pub(super) fn clear_page(&self, slot: usize) {
        step();
        self.pages(slot / 64).fetch_and(!(1 << (slot % 64)), Release);
    }

    /// The guard of `slot`. Acquire: with its hint comes what its last holder did.
    pub(super) fn guard(&self, slot: usize) -> Guard {
        Guard(self.guard_word(slot).load(Acquire))
    }

    /// Takes the lock of `slot` unless somebody has it. Acquire: pairs with [`Control::unlock`].
    pub(super) fn try_lock(&self, slot: usize) -> Option<Guard> {
        step();
        let word = self.guard_word(slot);
        let mut seen = word.load(Relaxed);
        while seen & LOCK == 0 {
            match word.compare_exchange_weak(seen, seen | LOCK, Acquire, Relaxed) {
                Ok(_) => return Some(Guard(seen | LOCK)),
                Err(now) => seen = now,
            }
        }
        None
    }

    /// Leaves the mark for word `w` of the page's bitmap and tries to lock, in one step: the guard if the
    /// caller holds the lock now. Release: the holder who sees the mark sees the cleared bit.
    pub(super) fn mark_and_lock(&self, slot: usize, w: usize) -> Option<Guard> {
        step();
        let bits = LOCK | 1 << (MARK_SHIFT + (w >> self.mark_shift) as u32);
        let seen = self.guard_word(slot).fetch_or(bits, AcqRel);
        (seen & LOCK == 0).then_some(Guard(seen | bits))
    }

    /// Takes all marks away from the locked `slot` and calls `f` with each word they stand for. A mark
    /// that comes later stays.
    pub(super) fn take_marks(&self, slot: usize, f: &mut dyn FnMut(usize)) {
        step();
        let mut marks = (self.guard_word(slot).fetch_and(!MARKS, Acquire) & MARKS) >> MARK_SHIFT;
        while marks != 0 {
            let first = (marks.trailing_zeros() << self.mark_shift) as usize;
            marks &= marks - 1;
            for w in first..first + (1 << self.mark_shift) {
                f(w);
            }
        }
    }

    /// Gives the lock of `slot` back, with the hint `hint`; `true` if marks were left meanwhile.
    /// Release: the next holder sees the page as we leave it.
    pub(super) fn unlock(&self, slot: usize, held: Guard, hint: usize) -> bool {
        let (old, new) = (held.hint(), hint);
        if old != new {
            self.tell_room(slot, classes_up_to(old), classes_up_to(new));
        }
        step();
        let change = LOCK | ((old ^ new) as u64 & HINT_MASK) << HINT_SHIFT;
        self.guard_word(slot).fetch_xor(change, Release) & MARKS != 0
    }

    /// Says in the room bitmaps that the page had room for the first `had` classes, and has for `has`.
    #[cold]
    fn tell_room(&self, slot: usize, had: usize, has: usize) {
        for class in has..had {
            step();
            self.room(class, slot / 64).fetch_and(!(1 << (slot % 64)), Relaxed);
        }
        for class in had..has {
            step();
            self.room(class, slot / 64).fetch_or(1 << (slot % 64), Release);
            self.word(CURSORS + class).fetch_min((slot / 64) as u64, Relaxed);
        }
    }

    /// Whether the room bitmaps say what the hint of `slot` says.
    pub(super) fn room_agrees(&self, slot: usize, hint: usize) -> bool {
        (0..CLASSES).all(|c| {
            let set = self.room_word(c, slot / 64) >> (slot % 64) & 1 != 0;
            set == (c < classes_up_to(hint))
        })
    }

    /// The grow word. Acquire: pairs with [`Control::grown`], so that the page made is found.
    pub(super) fn grow(&self) -> Grow {
        Grow(self.word(GROW).load(Acquire))
    }

    /// Takes the right to make a page, if nobody has it and none was made since `seen` was read.
    pub(super) fn try_grow(&self, seen: Grow) -> bool {
        step();
        !seen.locked() && self.word(GROW).compare_exchange(seen.0, seen.0 | 1, Acquire, Relaxed).is_ok()
    }

    /// Gives that right back; `made` tells those who wait that there is a page.
    pub(super) fn grown(&self, seen: Grow, made: bool) {
        step();
        self.word(GROW).store(seen.0.wrapping_add(u64::from(made) << 1), Release);
    }

    /// Notes which slot is being made a page, for the repair after a fork.
    pub(super) fn set_making(&self, slot: Option<usize>) {
        step();
        self.word(MAKING).store(slot.map_or(0, |s| s as u64 + 1), Relaxed);
    }

    /// The slot that was being made a page.
    pub(super) fn making(&self) -> Option<usize> {
        let slot = self.word(MAKING).load(Relaxed).checked_sub(1)? as usize;
        (slot < self.slots).then_some(slot)
    }

    /// The heap's clock: operations, counted in lots.
    pub(super) fn tick(&self) -> u64 {
        self.word(TICK).load(Relaxed)
    }

    /// Moves the clock on.
    pub(super) fn add_ticks(&self, by: u64) {
        step();
        self.word(TICK).fetch_add(by, Relaxed);
    }
}
