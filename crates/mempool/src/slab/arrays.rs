//! Arrays of a named cache: consecutive items of a slab that holds arrays, or a slab of their own.
//!
//! A cache's array class has slabs of its own, of which half the `free` words say which items are joined
//! (`protocol`), so that a free knows how many items an allocation has. Its bin has a current slab like any other, whose
//! word is where the search goes on: regions are taken from there to the slab's end, which then goes to the end of the queue,
//! so that its free items can gather. What no slab of the class can hold becomes a run of its own, described as a slab with one
//! item (`count`).

use core::num::NonZeroUsize;

use super::protocol::{mask, words_of};
use super::*;

/// Array slabs of the queue that are looked at before a fresh one is carved.
const LOOKS: usize = 16;

/// The positions at which `n` ones begin, as a set of bits. Empty for `n` 0 or above 64.
#[inline(always)]
fn regions(word: u64, n: usize) -> u64 {
    if n == 0 || n > 64 {
        return 0;
    }
    // Invariant: bit i is set if and only if `have` ones begin at i. The shift brings in zeros at the top.
    let (mut ones, mut have) = (word, 1);
    while have < n && ones != 0 {
        let step = have.min(n - have);
        ones &= ones >> step;
        have += step;
    }
    ones
}

/// Takes the items `members` of a `free` word, consecutive ones, as one array.
#[inline(always)]
fn join(free: &AtomicU64, joined: &AtomicU64, members: u64) {
    // All but the last are joined to the next.
    joined.store(joined.load(Relaxed) & !members | members & members >> 1, Relaxed);
    // Release pairs with `is_allocated`: who sees the item allocated sees how it is joined.
    free.store(free.load(Relaxed) & !members, Release);
}

impl LocalHeap {
    /// **The hot path of a cache's arrays**: `n` consecutive items of the current word of the array class `class`: the address
    /// of the first, None if there are not so many in a row.
    #[inline]
    pub fn pop_array(&self, class: usize, n: usize) -> Option<NonZeroUsize> {
        let bin = self.bin(class)?;
        self.announce_bin(bin);
        let free = bin.word();
        let found = regions(free.load(Relaxed), n);
        if found == 0 {
            return None;
        }
        let first = found.trailing_zeros() as usize;
        let slab = self.slab_at(bin.current.get().checked_sub(1)? as usize);
        join(free, slab.joined(bin.word_index()), (u64::MAX >> (64 - n)) << first);
        NonZeroUsize::new(bin.base.get() + first * bin.size.get() as usize)
    }
}

impl SlabTier {
    /// `n` consecutive items of the array class `class`: the address of the first. None when `n` is 0, or when
    /// neither a slab of the class that this thread can get at nor a run has room. O(words of a slab); O(slots) when
    /// the memory is exhausted.
    pub fn pop_array(&self, runs: &impl Runs, local: &LocalHeap, class: usize, n: usize) -> Result<Option<usize>, Bad> {
        let (Some(bin), Some(shape)) = (local.bin(class), self.shape(class)) else { return Ok(None) };
        if n == 0 {
            return Ok(None);
        }
        if n > shape.items as usize {
            return Ok(self.pop_whole(runs, shape, n));
        }
        if let Some(found) = self.pop_region(local, bin, class, n) {
            return Ok(Some(found));
        }
        self.put_back(local, bin, class);
        if let Some(found) = self.search_queue(runs, local, class, n, LOOKS)? {
            return Ok(Some(found));
        }
        if let Some(slab) = self.adopt_orphan(local, class)
            && let Some(found) = self.pop_held(runs, local, bin, &slab, n)?
        {
            return Ok(Some(found));
        }
        match self.carve(runs, class, owner_id(local.id, class)) {
            Some(slab) => self.pop_held(runs, local, bin, &slab, n),
            None => self.search_everywhere(runs, local, bin, class, n),
        }
    }

    /// `n` consecutive items of the bin's current slab, from the bin's word on.
    fn pop_region(&self, local: &LocalHeap, bin: &Bin, class: usize, n: usize) -> Option<usize> {
        let slab = self.current(local, bin, class)?;
        let item = slab.claim_region(bin.word_index(), n)?;
        let address = self.address(&slab);
        bin.point(&slab, item / 64, address);
        Some(address + item * slab.shape().size)
    }

    /// The current slab, if there is one, goes back to the queue, or is let go when it is full.
    fn put_back(&self, local: &LocalHeap, bin: &Bin, class: usize) {
        let Some(slab) = self.current(local, bin, class) else { return };
        let (me, class) = (owner_id(local.id, class), class as u32);
        bin.reset(self.zero);
        if slab.next_word(0).is_none() {
            self.unlink_anywhere(local, &slab, class);
            if slab.let_go(me) == LetGo::Gone {
                return;
            }
        }
        // Linked before it is QUEUED, since a thief touches no link.
        if self.link(local, &slab, class) {
            slab.requeue(me);
        } else if slab.orphan(me) {
            self.set_hint(&slab);
        }
    }

    /// `n` items from the first slabs of the queue, at most `looks` of them and none twice. There is no current slab; the one that
    /// has room becomes it.
    fn search_queue(
        &self,
        runs: &impl Runs,
        local: &LocalHeap,
        class: usize,
        n: usize,
        looks: usize,
    ) -> Result<Option<usize>, Bad> {
        let Some(bin) = local.bin(class) else { return Ok(None) };
        let (me, mut first) = (owner_id(local.id, class), None);
        for _ in 0..looks {
            // Slabs without room went to the end of the queue.
            let Some(slot) = bin.first().filter(|&slot| Some(slot) != first) else { break };
            first = first.or(Some(slot));
            let slab = self.slab(slot);
            if !slab.is_queued(me) {
                // Stolen.
                self.unlink(local, &slab);
                continue;
            }
            bin.to_end(&self.slots, &slab);
            // One that somebody is tapping can't be claimed.
            if slab.may_have_region(n)
                && slab.claim(me)
                && let Some(found) = self.pop_held(runs, local, bin, &slab, n)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// No run is left: looks at every orphan of the class and at the whole queue.
    #[cold]
    fn search_everywhere(
        &self,
        runs: &impl Runs,
        local: &LocalHeap,
        bin: &Bin,
        class: usize,
        n: usize,
    ) -> Result<Option<usize>, Bad> {
        for slot in 0..self.reach() {
            let Some(slab) = self.adopt_hinted(local, class, slot) else { continue };
            let found = self.pop_held(runs, local, bin, &slab, n)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        self.search_queue(runs, local, class, n, self.slots.count())
    }

    /// Makes a held slab of the array class the bin's current one, which has none, and takes `n` items of it. None, and the slab is
    /// back in the queue, if it has no room.
    fn pop_held(
        &self,
        runs: &impl Runs,
        local: &LocalHeap,
        bin: &Bin,
        slab: &Slab<'_>,
        n: usize,
    ) -> Result<Option<usize>, Bad> {
        if slab.shape().count != 0 {
            self.settle_whole(runs, local, slab);
            return Ok(None);
        }
        bin.current.set(slab.index() as u32 + 1);
        bin.point(slab, 0, self.address(slab));
        slab.take().map_err(|e| self.bad(slab, e))?;
        let class = slab.shape().class as usize;
        let found = self.pop_region(local, bin, class, n);
        if found.is_none() {
            self.put_back(local, bin, class);
        }
        Ok(found)
    }

    /// A held slab that is one array, with links that were in use elsewhere when the array was freed, or adopted by
    /// mistake since another slab went before it: goes back when it is free, to nobody when it isn't.
    fn settle_whole(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>) {
        let me = self.me(local, slab);
        loop {
            if slab.retire(me) {
                return self.give(runs, slab);
            }
            // Kept: freed since we looked, so that it can be retired now.
            if slab.let_go(me) == LetGo::Gone {
                return;
            }
        }
    }

    /// An array that no slab of its class holds gets a slab of its own: one item, born full, nobody's.
    pub fn pop_whole(&self, runs: &impl Runs, shape: Shape, n: usize) -> Option<usize> {
        let size = shape.size.checked_mul(n)?;
        let whole = Shape { items: 1, size, run: size.div_ceil(FRAGMENT), count: n, plain: false, ..shape };
        let slab = self.carve_shape(runs, whole, State::Nobody, 0)?;
        Some(self.address(&slab))
    }
}

/// Arrays: consecutive items, told apart by *joined* bits ("this item and the next belong together") in
/// the upper half of the `free` words of slabs that hold arrays and have at most half as many items.
impl Slab<'_> {
    pub(super) fn joined(&self, w: usize) -> &AtomicU64 {
        self.slot.free(self.slot.words() / 2 + w)
    }

    /// An array claimed or freed by half: its last allocated item must not be joined to a free one, which may become the
    /// first of another array. Child of a fork only.
    pub(super) fn cut_joins(&self) {
        let used = self.used();
        if used > self.slot.words() / 2 {
            return;
        }
        let free = |w| self.slot.remote(w).load(Relaxed) | self.slot.free(w).load(Relaxed);
        for w in 0..used {
            let next = if w + 1 < used { free(w + 1) } else { !0 };
            let joined = self.joined(w);
            joined.store(joined.load(Relaxed) & !(free(w) >> 1 | next << 63), Relaxed);
        }
    }

    fn is_joined(&self, i: usize) -> bool {
        self.joined(i / 64).load(Relaxed) >> (i % 64) & 1 == 1
    }

    /// Finds and claims `n` consecutive free items in the words from `w` on. For the owner (HELD). The first one's number.
    pub fn claim_region(&self, w: usize, n: usize) -> Option<usize> {
        let first = self.find_region(w, n, |w| self.slot.free(w).load(Relaxed))?;
        if n <= 64 - first % 64 {
            let members = (u64::MAX >> (64 - n)) << (first % 64);
            join(self.free_word(first / 64), self.joined(first / 64), members);
            return Some(first);
        }
        for w in words_of(first, n) {
            let members = mask(w, first, n);
            let links = mask(w, first, n - 1);
            let joined = self.joined(w);
            joined.store(joined.load(Relaxed) & !members | links, Relaxed);
        }
        for w in words_of(first, n) {
            let free = self.slot.free(w);
            // Release pairs with `is_allocated`: who sees the item allocated sees how it is joined.
            free.store(free.load(Relaxed) & !mask(w, first, n), Release);
        }
        Some(first)
    }

    /// Whether `n` consecutive items are free, taken over or not (unordered).
    fn may_have_region(&self, n: usize) -> bool {
        let items = self.items();
        let free = |w| self.slot.free(w).load(Relaxed) | self.slot.remote(w).load(Relaxed);
        // The remote bits of items that don't exist are set: what reaches there has no room before.
        self.find_region(0, n, free).is_some_and(|first| first + n <= items)
    }

    /// The first `n` consecutive bits that are set in the words from `w` on, as `word` gives them.
    pub(super) fn find_region(&self, w: usize, n: usize, word: impl Fn(usize) -> u64) -> Option<usize> {
        // Ones at the end of the words so far.
        let mut open = 0;
        for w in w..self.used() {
            let bits = word(w);
            if bits == 0 {
                open = 0;
                continue;
            }
            if open > 0 && open + bits.trailing_ones() as usize >= n {
                return Some(w * 64 - open);
            }
            let found = regions(bits, n);
            if found != 0 {
                return Some(w * 64 + found.trailing_zeros() as usize);
            }
            open = if bits == u64::MAX { open + 64 } else { bits.leading_ones() as usize };
        }
        None
    }

    /// The number of items of the allocation that begins at item `i`, or None when `i` lies inside one.
    pub fn region_at(&self, i: usize) -> Option<usize> {
        let items = self.items();
        if items > self.slot.words() / 2 * 64 {
            // Too many for arrays: there are no joined bits.
            return Some(1);
        }
        // Item i - 1 may be free with a stale bit, so the bit counts only if it is allocated; a new allocation of it
        // writes the bit first.
        if i > 0 && self.is_allocated(i - 1) && self.is_joined(i - 1) {
            return None;
        }
        let mut end = i;
        while end < items {
            let ones = (self.joined(end / 64).load(Relaxed) >> (end % 64)).trailing_ones() as usize;
            end += ones;
            if ones == 0 || !end.is_multiple_of(64) {
                break;
            }
        }
        Some(end.min(items) - i + 1)
    }

    /// Frees the array of `n` items that begins at item `i`, as the owner (HELD or QUEUED). Whether a word is now all free;
    /// None, and nothing has changed, if it is no live array of this length.
    #[inline]
    pub fn own_free_array(&self, i: usize, n: usize) -> Option<bool> {
        let (w, from) = (i / 64, i % 64);
        if n == 0 || n > 64 - from {
            return self.own_free_long(i, n);
        }
        if w >= self.slot.words() / 2 {
            return None;
        }
        // As in `region_at`: joined to one another, the last one to none, and the one before not to the first.
        if from == 0 && w > 0 && self.is_allocated(i - 1) && self.is_joined(i - 1) {
            return None;
        }
        let (free, remote) = (self.slot.free(w), self.slot.remote(w).load(Relaxed));
        let all_free = free.load(Relaxed) | remote;
        let joined = self.joined(w).load(Relaxed);
        let members = (u64::MAX >> (64 - n)) << from;
        let before = (1u64 << from) >> 1;
        if all_free & members != 0 || joined & members != members & members >> 1 || joined & before & !all_free != 0 {
            return None;
        }
        let bits = free.load(Relaxed) | members;
        // Release pairs with a thief's Acquire in `is_empty`: our last use of the items comes before their reuse.
        free.store(bits, Release);
        Some(bits | remote == !0)
    }

    #[inline(never)]
    fn own_free_long(&self, i: usize, n: usize) -> Option<bool> {
        let right = n > 0 && i < self.items() && self.region_at(i) == Some(n);
        if right { self.own_free(i, n).ok() } else { None }
    }
}
