//! Arrays of a named cache: consecutive items of a slab that holds arrays, or a slab of their own.
//!
//! A cache's array class has slabs of its own, of which half the `free` words say which items are joined
//! (`protocol`), so that a free knows how many items an allocation has. Such a slab is never a bin's current
//! one: it is claimed from the queue, searched for a region, and put back. What no slab of the class can
//! hold becomes a run of its own, described as a slab with one item (`count`).

use super::protocol::{mask, words_of};
use super::*;

/// Array slabs of the queue that are tried before a fresh one is carved.
const ARRAY_TRIES: usize = 4;

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
        let found = self.search_queue(runs, local, bin, n, ARRAY_TRIES)?;
        if found.is_some() {
            return Ok(found);
        }
        if let Some(slab) = self.adopt_orphan(local, class) {
            let found = self.claim_array(runs, local, &slab, n)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        match self.carve(runs, class, owner_id(local.id, class)) {
            Some(slab) => self.claim_array(runs, local, &slab, n),
            None => self.search_everywhere(runs, local, bin, class, n),
        }
    }

    /// `n` items from the first slabs of the queue, at most `tries` of them and none twice.
    fn search_queue(
        &self,
        runs: &impl Runs,
        local: &LocalHeap,
        bin: &Bin,
        n: usize,
        tries: usize,
    ) -> Result<Option<usize>, Bad> {
        let mut first = None;
        for _ in 0..tries {
            let Some(slab) = self.dequeue(local, bin) else { break };
            let found = self.claim_array(runs, local, &slab, n)?;
            if found.is_some() {
                return Ok(found);
            }
            // Slabs without room went to the end of the queue.
            let came_round = bin.first() == first;
            first = first.or(Some(slab.index()));
            if came_round {
                break;
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
            let found = self.claim_array(runs, local, &slab, n)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        self.search_queue(runs, local, bin, n, self.slots.count())
    }

    /// Claims `n` items of a held array slab and puts it back in the queue, or lets it go when it is full.
    fn claim_array(
        &self,
        runs: &impl Runs,
        local: &LocalHeap,
        slab: &Slab<'_>,
        n: usize,
    ) -> Result<Option<usize>, Bad> {
        let me = self.me(local, slab);
        let shape = slab.shape();
        if shape.count != 0 {
            self.settle_whole(runs, local, slab);
            return Ok(None);
        }
        slab.take().map_err(|e| self.bad(slab, e))?;
        let found = slab.claim_region(n).map(|item| self.address(slab) + item * shape.size);
        let full = slab.next_word(0).is_none();
        if full && slab.let_go(me) == LetGo::Gone {
            return Ok(found);
        }
        // Linked before it is QUEUED, since a thief touches no link.
        if self.link(local, slab) {
            slab.requeue(me);
        } else if slab.orphan(me) {
            self.set_hint(slab);
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
        let whole = Shape { items: 1, size, run: size.div_ceil(FRAGMENT), count: n, ..shape };
        let slab = self.carve_shape(runs, whole, 0)?;
        Some(self.address(&slab))
    }
}

/// Arrays: consecutive items, told apart by *joined* bits ("this item and the next belong together") in
/// the upper half of the `free` words of slabs that hold arrays and have at most half as many items.
impl Slab<'_> {
    fn joined(&self, w: usize) -> &AtomicU64 {
        self.slot.free(self.slot.words() / 2 + w)
    }

    /// An array claimed or freed by half: its last allocated item must not be joined to a free one, which may become the
    /// first of another array. Child of a fork only.
    pub(super) fn cut_joins(&self) {
        let used = self.used();
        if self.shape().plain || used > self.slot.words() / 2 {
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

    /// Finds and claims `n` consecutive free items. For the owner (HELD). The first one's number.
    pub fn claim_region(&self, n: usize) -> Option<usize> {
        let items = self.shape().items as usize;
        let first = self.find_region(items, n)?;
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

    /// The first `n` consecutive set bits of the `free` words.
    fn find_region(&self, items: usize, n: usize) -> Option<usize> {
        let (mut start, mut length) = (0, 0);
        let mut at = 0;
        while at < items {
            let word = self.slot.free(at / 64).load(Relaxed) >> (at % 64);
            let ones = (word.trailing_ones() as usize).min(64 - at % 64);
            if length == 0 {
                start = at;
            }
            length += ones;
            if length >= n {
                return Some(start);
            }
            at += ones;
            if at % 64 == 0 && ones > 0 {
                continue;
            }
            length = 0;
            let zeros = (!(self.slot.free(at / 64).load(Relaxed) >> (at % 64))).trailing_ones() as usize;
            at += zeros.clamp(1, 64 - at % 64);
        }
        None
    }

    /// The number of items of the allocation that begins at item `i`, or None when `i` lies inside one.
    pub fn region_at(&self, i: usize) -> Option<usize> {
        let shape = self.shape();
        let items = shape.items as usize;
        if shape.plain || items > self.slot.words() / 2 * 64 {
            // Single items, or too many for arrays: there are no joined bits.
            return Some(1);
        }
        // Item i - 1 may be free with a stale bit, so the bit counts only if it is allocated; a new allocation of it
        // writes the bit first.
        if i > 0 && self.is_allocated(i - 1) && self.is_joined(i - 1) {
            return None;
        }
        Some((i..items).take_while(|&k| self.is_joined(k)).count() + 1)
    }
}
