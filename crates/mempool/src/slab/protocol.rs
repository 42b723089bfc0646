//! One slab and its protocol: who may touch what, with which ordering.
//!
//! A slab is a run cut into equal items. Per item there are two bits: `free`, written by the owner alone,
//! and `remote` (freed remotely), set by everybody else. **An item is allocated if and only if neither
//! bit is set.** Items that don't exist, behind the last one, have their `remote` bit set for good: they
//! look free to whoever asks and are never taken, so no bound check and no mask are needed to tell a full
//! word (all items free) or a bad index.
//!
//! The owner word decides who is who; `segment::slot::State` lists the states, docs/SAFETY.md the
//! transitions and what the loom models showed. Nothing here waits or loops without a bound.

use super::classes::CLASSES;
use super::loosen::{is_of, thread_of, unmarked};
use crate::segment::{Owner, Slot, State};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::{look, put};

/// Cold words of a slab's descriptor.
const LINKS: usize = 0;
const LINKED: usize = 1;
const SHAPE: usize = 2;
const SIZE: usize = 3;
const RUN: usize = 4;
const COUNT: usize = 5;

/// Set in the thread field of the owner word of slabs of named caches: the hot path of `free`, which compares that
/// field with its own number, thus leaves them alone, and a cache's own hot path compares with this bit set.
pub const CACHE_BIT: u32 = 1 << 31;

/// What the owner word of slabs of `class` says for the thread `id`.
pub const fn owner_id(id: u32, class: usize) -> u32 {
    if class < CLASSES { id } else { id | CACHE_BIT }
}

/// What tells slabs of `class` from others where size classes are all alike: 0 for those, a named cache's class for its slabs.
pub const fn tag_of(class: u32) -> usize {
    if (class as usize) < CLASSES { 0 } else { class as usize }
}

/// What a slab is cut into; constant from carve to giving back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Size class, or class of a named cache.
    pub class: u32,
    /// Number of items.
    pub items: u32,
    /// Bytes from item to item.
    pub size: usize,
    /// Fragments of the run.
    pub run: usize,
    /// Multiple of bytes that the slab begins at, above the slot's size; smaller ones mean nothing more.
    pub align: usize,
    /// Length of the one array that this slab is, or 0.
    pub count: usize,
    /// Whether the hot path may free into it: one slot, items of at least a granule, no arrays.
    pub plain: bool,
}

/// An item that was freed although it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoubleFree {
    /// Number of the item in its slab.
    pub item: usize,
}

/// What became of a slab that its owner let go.
#[derive(Debug, PartialEq, Eq)]
pub enum LetGo {
    /// It belongs to nobody now.
    Gone,
    /// Somebody freed into it meanwhile, and the owner has it back.
    Kept,
}

/// A slab.
#[derive(Clone, Copy)]
pub struct Slab<'a> {
    pub(super) slot: Slot<'a>,
}

/// The bits of word `w` that items `first .. first + n` have, see [`words_of`].
pub(super) fn mask(w: usize, first: usize, n: usize) -> u64 {
    let low = first.saturating_sub(w * 64).min(64);
    let high = (first + n).saturating_sub(w * 64).min(64);
    let upto = |bits: usize| if bits == 64 { !0 } else { (1u64 << bits) - 1 };
    upto(high) & !upto(low)
}

/// The words that items `first .. first + n` lie in.
pub(super) fn words_of(first: usize, n: usize) -> core::ops::Range<usize> {
    first / 64..(first + n).div_ceil(64)
}

impl<'a> Slab<'a> {
    pub fn new(slot: Slot<'a>) -> Self {
        Self { slot }
    }

    /// The slot where it begins.
    pub fn index(&self) -> usize {
        self.slot.index
    }

    /// The owner word, unordered.
    #[inline(always)]
    pub fn peek(&self) -> Owner {
        look();
        Owner(self.slot.owner().load(Relaxed))
    }

    /// The owner word, with all that was written before it.
    pub fn owner(&self) -> Owner {
        look();
        Owner(self.slot.owner().load(Acquire))
    }

    /// Its shape. Stable while an item of it is allocated or the caller owns it.
    pub fn shape(&self) -> Shape {
        let shape = self.slot.cold(SHAPE).load(Relaxed);
        let run = self.slot.cold(RUN).load(Relaxed);
        Shape {
            class: (shape >> 32) as u32,
            items: shape as u32,
            size: self.slot.cold(SIZE).load(Relaxed) as usize,
            run: run as usize,
            count: self.slot.cold(COUNT).load(Relaxed) as usize,
            plain: self.slot.recip().load(Relaxed) != 0,
            align: 1,
        }
    }

    /// Bytes from item to item, stable as the shape is.
    #[inline(always)]
    pub fn item_size(&self) -> usize {
        self.slot.cold(SIZE).load(Relaxed) as usize
    }

    /// [`Self::item_size`] of a slab in which [`Self::plain_item`] finds items, without a look at another cache line.
    #[inline]
    pub fn plain_size(&self) -> usize {
        super::classes::size_of_reciprocal(self.slot.recip().load(Relaxed) as u32)
    }

    /// Words in use for `items` items.
    #[inline(always)]
    pub(super) fn used(&self) -> usize {
        let items = self.slot.cold(SHAPE).load(Relaxed) as u32 as usize;
        items.div_ceil(64).min(self.slot.words())
    }

    /// The bits of word `w` that stand for no item.
    pub(super) fn pad(&self, w: usize) -> u64 {
        let items = self.slot.cold(SHAPE).load(Relaxed) as u32 as usize;
        !mask(w, 0, items)
    }

    /// Makes a slab of a run that the caller has just taken. HELD of `me`: all items free; NOBODY: born full (an array in a slab of
    /// its own); RESERVED: as if all items had been freed remotely.
    pub fn carve(&self, shape: Shape, state: State, me: u32) {
        self.slot.cold(SHAPE).store(u64::from(shape.class) << 32 | u64::from(shape.items), Relaxed);
        self.slot.cold(SIZE).store(shape.size as u64, Relaxed);
        self.slot.cold(RUN).store(shape.run as u64, Relaxed);
        self.slot.cold(COUNT).store(shape.count as u64, Relaxed);
        let recip = if shape.plain {
            (1u64 << 32).div_ceil(shape.size.max(1) as u64) | (tag_of(shape.class) as u64) << 32
        } else {
            0
        };
        self.slot.recip().store(recip, Relaxed);
        let (reach, half) = (self.reach(&shape), self.slot.words() / 2);
        for w in 0..reach {
            let pad = self.pad(w);
            self.slot.remote(w).store(if state == State::Reserved { !0 } else { pad }, Relaxed);
            self.slot.free(w).store(if state == State::Held { !pad } else { 0 }, Relaxed);
            if reach <= half {
                // No item is joined to another, see `arrays`.
                self.slot.free(half + w).store(0, Relaxed);
            }
        }
        // Release: whoever acts on the owner word finds the words above. Pairs with every Acquire of it.
        self.slot.owner().store(self.peek().next(state, me, 1).0, Release);
    }

    /// The words that anybody looks at in a slab of this shape: those of its items, and those that the hot path, which knows
    /// only the slot's end, finds for an address behind the last item.
    fn reach(&self, shape: &Shape) -> usize {
        let items = shape.items as usize;
        let behind =
            if shape.plain { self.slot.words() * 64 * crate::units::GRANULE / shape.size.max(1) } else { items };
        (items.max(behind) / 64 + 1).min(self.slot.words())
    }

    /// The next word with a free item behind word `w`. For the owner (HELD).
    pub fn next_word_behind(&self, w: usize) -> Option<usize> {
        (w + 1..self.used()).find(|&w| self.slot.free(w).load(Relaxed) != 0)
    }

    /// The next word with a free item, behind `w` and around. For the owner (HELD).
    pub fn next_word(&self, w: usize) -> Option<usize> {
        self.next_word_behind(w).or_else(|| (0..self.used().min(w + 1)).find(|&w| self.slot.free(w).load(Relaxed) != 0))
    }

    /// Number of items, and of those that are free, taken over or not (unordered).
    pub fn count(&self) -> (usize, usize) {
        let items = self.slot.cold(SHAPE).load(Relaxed) as u32 as usize;
        let used = items.div_ceil(64).min(self.slot.words());
        let free = |w| self.slot.remote(w).load(Relaxed) | self.slot.free(w).load(Relaxed);
        let bits: usize = (0..used).map(|w| free(w).count_ones() as usize).sum();
        // The remote bits of items that don't exist are set.
        (items, bits.saturating_sub(used * 64 - items.min(used * 64)))
    }

    /// Number of items, stable as the shape is.
    #[inline(always)]
    pub fn items(&self) -> usize {
        self.slot.cold(SHAPE).load(Relaxed) as u32 as usize
    }

    /// Whether it stands in the queue of its own class of the thread `id`.
    #[inline(always)]
    pub fn is_at_home(&self, id: u32) -> bool {
        let class = self.slot.cold(SHAPE).load(Relaxed) >> 32;
        self.slot.cold(LINKED).load(Relaxed) == class << 32 | u64::from(id)
    }

    /// Whether every item is allocated (unordered). `ONE`: it has less than a word of them.
    #[inline(always)]
    pub fn is_taken<const ONE: bool>(&self) -> bool {
        let items = self.items();
        let taken =
            |w: usize, pad: u64| self.slot.free(w).load(Relaxed) == 0 && self.slot.remote(w).load(Relaxed) == pad;
        if ONE {
            return taken(0, !0 << (items & 63));
        }
        (0..items / 64).all(|w| taken(w, 0)) && (items.is_multiple_of(64) || taken(items / 64, !0 << (items % 64)))
    }

    /// The first word with items that are free and taken over, and the number of such items (unordered), if there are any among so
    /// many. `ONE`: less than a word.
    #[inline(always)]
    pub fn own_free_count<const ONE: bool>(&self, items: usize) -> Option<(usize, usize)> {
        let free = |w: usize| self.slot.free(w).load(Relaxed);
        if ONE {
            let free = free(0);
            return (free != 0).then(|| (0, free.count_ones() as usize));
        }
        let words = items.div_ceil(64).min(self.slot.words());
        let first = (0..words).find(|&w| free(w) != 0)?;
        Some((first, (first..words).map(|w| free(w).count_ones() as usize).sum()))
    }

    /// The `free` word `w`, for the hot path.
    #[inline(always)]
    pub fn free_word(&self, w: usize) -> &'a AtomicU64 {
        self.slot.free(w)
    }

    /// Takes over what was freed remotely. For the owner (HELD). Whether anything was.
    pub fn take(&self) -> Result<bool, DoubleFree> {
        let mut any = false;
        for w in 0..self.used() {
            // Acquire pairs with the freer's fetch_or: its last use of the item comes before our reuse.
            let seen = self.slot.remote(w).load(Acquire);
            // Most have nothing; those of items that don't exist are in few words.
            let remote = if seen == 0 { 0 } else { seen & !self.pad(w) };
            if remote == 0 {
                continue;
            }
            let free = self.slot.free(w).load(Relaxed);
            if free & remote != 0 {
                return Err(DoubleFree { item: w * 64 + (free & remote).trailing_zeros() as usize });
            }
            // First set, then clear: an item in between shows both bits and still counts as free. Release keeps that
            // order for whoever reads the remote word with Acquire.
            self.slot.free(w).store(free | remote, Relaxed);
            self.slot.remote(w).fetch_and(!remote, Release);
            any = true;
        }
        Ok(any)
    }

    /// Frees items as the owner (HELD or QUEUED). Whether a word is now all free, so that the slab may be empty.
    pub fn own_free(&self, first: usize, n: usize) -> Result<bool, DoubleFree> {
        let mut filled = false;
        self.check_allocated(first, n)?;
        for w in words_of(first, n) {
            let bits = self.slot.free(w).load(Relaxed) | mask(w, first, n);
            // Release pairs with a thief's Acquire in `is_empty`: our last use of the item comes before its reuse.
            self.slot.free(w).store(bits, Release);
            filled |= bits | self.slot.remote(w).load(Relaxed) == !0;
        }
        Ok(filled)
    }

    /// [`Self::own_free`] of one item. False if it is free already, or has no word.
    pub fn own_free_one(&self, item: usize) -> bool {
        let (w, bit) = (item / 64, 1u64 << (item % 64));
        if w >= self.slot.words() {
            return false;
        }
        let free = self.slot.free(w).load(Relaxed);
        if (free | self.slot.remote(w).load(Relaxed)) & bit != 0 {
            return false;
        }
        // Release as in `own_free`.
        self.slot.free(w).store(free | bit, Release);
        true
    }

    /// Whether all of these items are allocated, and exist: those behind the last one are never allocated.
    fn check_allocated(&self, first: usize, n: usize) -> Result<(), DoubleFree> {
        let bits = self.slot.words() * 64;
        if n > bits || first > bits - n {
            return Err(DoubleFree { item: bits });
        }
        for w in words_of(first, n) {
            // Acquire and the remote word first, see `is_allocated`: for one who isn't the owner.
            let free_ones = self.slot.remote(w).load(Acquire) | self.slot.free(w).load(Relaxed);
            let twice = free_ones & mask(w, first, n);
            if twice != 0 {
                return Err(DoubleFree { item: w * 64 + twice.trailing_zeros() as usize });
            }
        }
        Ok(())
    }

    /// Frees items as somebody else. Look at the owner word afterwards: if it says NOBODY, adopt.
    pub fn remote_free(&self, first: usize, n: usize) -> Result<(), DoubleFree> {
        self.check_allocated(first, n)?;
        for w in words_of(first, n) {
            // AcqRel: Release pairs with the Acquire of `take` and `is_empty`; Acquire with the compare-exchange of
            // `let_go`: if that came first we read from it, and then must see NOBODY.
            let twice = self.slot.remote(w).fetch_or(mask(w, first, n), AcqRel) & mask(w, first, n);
            if twice != 0 {
                return Err(DoubleFree { item: w * 64 + twice.trailing_zeros() as usize });
            }
        }
        Ok(())
    }

    /// The item whose first byte is `inside` bytes from the slab's, if the slab is of a size class and in one slot.
    #[inline(always)]
    pub fn plain_item(&self, inside: usize) -> Option<usize> {
        self.item_of(inside, 0)
    }

    /// As [`Self::plain_item`], for slabs of the named cache with class `tag`.
    #[inline(always)]
    pub fn item_of(&self, inside: usize, tag: u64) -> Option<usize> {
        let tagged = self.slot.recip().load(Relaxed);
        let recip = tagged & u64::from(u32::MAX);
        let product = inside as u64 * recip;
        // As in the front's hot path; 0, or with another class above it, the reciprocal is not for us.
        (tagged >> 32 == tag && product & u64::from(u32::MAX) < recip).then_some((product >> 32) as usize)
    }

    /// NOBODY to QUEUED of `me`.
    /// AcqRel: Acquire to see the last owner's `free` words, Release so that the next one sees ours.
    pub fn adopt(&self, seen: Owner, me: u32) -> bool {
        seen.state() == State::Nobody && self.transit(seen, seen.next(State::Queued, me, 1))
    }

    /// NOBODY to HELD of `me`, through a hint.
    pub fn adopt_held(&self, seen: Owner, me: u32) -> bool {
        seen.state() == State::Nobody && self.transit(seen, seen.next(State::Held, me, 1))
    }

    /// QUEUED to HELD. Fails when the slab was stolen.
    #[inline(always)]
    pub fn claim(&self, me: u32) -> bool {
        let seen = self.peek();
        seen.is(State::Queued) && seen.thread() == me && self.transit(seen, seen.next(State::Held, me, 1))
    }

    /// HELD (not full) to QUEUED: the owner puts an array slab back in its queue.
    #[inline(always)]
    pub fn requeue(&self, me: u32) {
        // Release pairs with a thief's Acquire of the owner word.
        put(self.slot.owner(), self.peek().next(State::Queued, me, 1).0);
    }

    /// HELD, marked or not, or QUEUED of `me` to NOBODY; false when it was stolen.
    pub fn orphan(&self, me: u32) -> bool {
        let seen = self.peek();
        matches!(seen.state(), State::Held | State::Queued)
            && is_of(seen, me)
            && self.transit(seen, seen.next(State::Nobody, 0, 1))
    }

    /// QUEUED, NOBODY, or RESERVED and at rest, and empty, to GIVING: the caller, whoever it is, gives the run back. Touches no link.
    pub fn steal(&self, seen: Owner) -> bool {
        (matches!(seen.state(), State::Queued | State::Nobody) || seen.state() == State::Reserved && seen.thread() == 0)
            && self.is_empty()
            && self.transit(seen, seen.next(State::Giving, 0, 1))
    }

    /// HELD of `me`, and empty, to GIVING.
    pub fn retire(&self, me: u32) -> bool {
        let seen = self.peek();
        seen.state() == State::Held
            && seen.thread() == me
            && self.is_empty()
            && self.transit(seen, seen.next(State::Giving, 0, 1))
    }

    /// A slab's state as seen to GIVING: the cache is destroyed and nobody uses it any more.
    pub fn condemn(&self, seen: Owner) -> bool {
        seen.state().is_slab() && self.transit(seen, seen.next(State::Giving, 0, 1))
    }

    /// GIVING to FREE, between winning the right to give the run back and making it available.
    pub fn vacate(&self) {
        // Release pairs with the next carver's view through the page-frag tier (its busy bits).
        self.slot.owner().store(self.peek().next(State::Free, 0, 1).0, Release);
    }

    #[inline(always)]
    pub(super) fn transit(&self, from: Owner, to: Owner) -> bool {
        look();
        self.slot.owner().compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Lets a full slab go. For the owner (HELD).
    pub fn let_go(&self, me: u32) -> LetGo {
        let nobody = self.peek().next(State::Nobody, 0, 1);
        // Release pairs with the Acquire of whoever adopts.
        put(self.slot.owner(), nobody.0);
        // A freer's fetch_or and this compare-exchange are read-modify-writes of the same word: if the freer was first
        // this fails and we see its bit; if it comes later it reads from this one and must see NOBODY.
        let touched = (0..self.used()).any(|w| {
            let pad = self.pad(w);
            self.slot.remote(w).compare_exchange(pad, pad, AcqRel, Relaxed).is_err()
        });
        // The exact generation: the slab may have been adopted, emptied and carved again meanwhile.
        if touched && self.transit(nobody, nobody.next(State::Held, me, 1)) { LetGo::Kept } else { LetGo::Gone }
    }

    /// Whether every item is free. Acquire pairs with `own_free` and `remote_free`.
    pub fn is_empty(&self) -> bool {
        (0..self.used()).all(|w| self.slot.remote(w).load(Acquire) | self.slot.free(w).load(Acquire) == !0)
    }

    /// Whether some item is free (unordered).
    pub fn has_free(&self) -> bool {
        (0..self.used())
            .any(|w| (self.slot.remote(w).load(Relaxed) & !self.pad(w)) | self.slot.free(w).load(Relaxed) != 0)
    }

    /// Number of allocated items (unordered; exact when nobody is at work).
    pub fn live(&self) -> usize {
        let allocated = |w| !(self.slot.remote(w).load(Relaxed) | self.slot.free(w).load(Relaxed));
        (0..self.used()).map(|w| allocated(w).count_ones() as usize).sum()
    }

    /// Whether the bits that stand for no item are as they must be: never free, freed remotely for good.
    pub fn check_padding(&self) -> Result<(), &'static str> {
        let right = |w| {
            let pad = self.pad(w);
            self.slot.free(w).load(Relaxed) & pad == 0 && self.slot.remote(w).load(Relaxed) & pad == pad
        };
        if (0..self.used()).all(right) { Ok(()) } else { Err("bits that stand for no item are wrong") }
    }

    /// Whether item `i` is allocated.
    /// Acquire pairs with `claim_region`: who sees it allocated sees how it is joined.
    #[inline]
    pub fn is_allocated(&self, i: usize) -> bool {
        // The remote word first: a take sets `free` before it clears `remote`, so that a free item shows one of them.
        let both = self.slot.remote(i / 64).load(Acquire) | self.slot.free(i / 64).load(Acquire);
        both >> (i % 64) & 1 == 0
    }

    /// Next and previous in the queue: slot plus one, 0 for none. For the thread in `linked`.
    #[inline(always)]
    pub fn links(&self) -> (u32, u32) {
        let links = self.slot.cold(LINKS).load(Relaxed);
        ((links >> 32) as u32, links as u32)
    }

    pub fn set_links(&self, next: u32, previous: u32) {
        self.slot.cold(LINKS).store(u64::from(next) << 32 | u64::from(previous), Relaxed);
    }

    /// The thread in whose queue the links are in use (0: none), and the class of that queue.
    pub fn linked(&self) -> (u32, u32) {
        let linked = self.slot.cold(LINKED).load(Relaxed);
        (linked as u32, (linked >> 32) as u32)
    }

    /// Takes the links for the queue of `class` of `me`; false when they are in use already.
    /// Acquire pairs with `unlink`: the last user's links come before ours.
    pub fn claim_links(&self, me: u32, class: u32) -> bool {
        let linked = u64::from(class) << 32 | u64::from(me);
        self.slot.cold(LINKED).compare_exchange(0, linked, Acquire, Relaxed).is_ok()
    }

    /// The links are in use no more. Release pairs with `claim_links`: the next user's links come after ours.
    pub fn unlink(&self) {
        self.slot.cold(LINKED).store(0, Release);
    }

    /// Makes a slab whole that vanished threads may have left in the middle of anything. Child of a fork only.
    /// Whether it has become one of nobody with free items, and so needs a hint.
    pub fn repair(&self, me: u32) -> bool {
        let seen = self.peek();
        for w in 0..self.used() {
            // A take cut in half shows both bits.
            let free = self.slot.free(w).load(Relaxed);
            self.slot.remote(w).fetch_and(!free, Relaxed);
        }
        self.cut_joins();
        if thread_of(seen) != me || seen.thread() == 0 && seen.state() == State::Tapped {
            self.slot.owner().store(seen.next(State::Nobody, 0, 1).0, Relaxed);
            return self.has_free();
        }
        // Whoever tapped or marked it is gone; it still stands in its owner's queue, or is current there.
        let settled = if seen.state() == State::Tapped { State::Queued } else { seen.state() };
        if settled != seen.state() || unmarked(seen) != seen.thread() {
            self.slot.owner().store(seen.next(settled, unmarked(seen), 1).0, Relaxed);
        }
        false
    }
}
