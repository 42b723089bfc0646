//! The slab tier's operations: pop and push behind the hot path, orphans, thread exit, fork.
#![allow(unsafe_code)]

use super::loosen::is_of;
use super::swap::PASSED_OVER;
use super::*;

// SAFETY: the tier is pointers to atomics that live as long as the pool (contract of the pool that fills it in).
unsafe impl Send for SlabTier {}
// SAFETY: as above.
unsafe impl Sync for SlabTier {}

impl SlabTier {
    /// The slab that begins at `slot`.
    #[inline(always)]
    pub fn slab(&self, slot: usize) -> Slab<'_> {
        Slab::new(self.slots.slot(slot))
    }

    /// Address of the first byte of `slab`.
    #[inline(always)]
    pub fn address(&self, slab: &Slab<'_>) -> usize {
        self.data + (slab.index() << self.slots.geometry().shift)
    }

    pub(super) fn shape_word(&self, class: usize, k: usize) -> &AtomicU64 {
        debug_assert!(class < self.classes && k < SHAPE_WORDS);
        // SAFETY: the table has SHAPE_WORDS words for each class.
        unsafe { &*self.shapes.add(class * SHAPE_WORDS + k) }
    }

    fn hint(&self, slot: usize) -> &AtomicU64 {
        debug_assert!(slot < self.slots.count());
        // SAFETY: one bit per slot.
        unsafe { &*self.hints.add(slot / 64) }
    }

    pub(super) fn class_hint(&self, class: usize) -> &AtomicU64 {
        debug_assert!(class < self.classes);
        // SAFETY: one word per class.
        unsafe { &*self.class_hints.add(class) }
    }

    /// Which orphan of the class was hinted at last.
    fn latest(&self, class: usize) -> &AtomicU64 {
        debug_assert!(class < self.classes);
        // SAFETY: one word per class, behind as many others.
        unsafe { &*self.class_hints.add(self.classes + class) }
    }

    /// Whether `slab` is one of single items of a size class of which no orphan is at hand.
    fn is_wanted(&self, slab: &Slab<'_>) -> bool {
        let shape = slab.shape();
        let class = shape.class as usize;
        shape.count == 0 && class < CLASSES && self.latest(class).load(Relaxed) == 0
    }

    /// Slots in a group of the class hints.
    pub(super) fn group(&self) -> usize {
        self.slots.count().div_ceil(64).max(1)
    }

    /// Says what slabs of `class` are cut into. Before anybody allocates from the class.
    pub fn define(&self, class: usize, shape: &Shape) {
        self.shape_word(class, 0).store(shape.size as u64, Relaxed);
        self.shape_word(class, 1).store(u64::from(shape.items), Relaxed);
        self.shape_word(class, 2).store(shape.run as u64, Relaxed);
        self.shape_word(class, 3).store((shape.align as u64) << 1 | u64::from(shape.plain), Relaxed);
        self.shape_word(class, 4).store(0, Relaxed);
    }

    /// What slabs of `class` are cut into; None when the class isn't defined.
    pub fn shape(&self, class: usize) -> Option<Shape> {
        let size = self.shape_word(class, 0).load(Relaxed) as usize;
        (size != 0).then(|| Shape {
            class: class as u32,
            items: self.shape_word(class, 1).load(Relaxed) as u32,
            size,
            run: self.shape_word(class, 2).load(Relaxed) as usize,
            count: 0,
            plain: self.shape_word(class, 3).load(Relaxed) & 1 != 0,
            align: (self.shape_word(class, 3).load(Relaxed) >> 1) as usize,
        })
    }

    /// The best shape for items of `size` bytes: as many as fit in a slot, or in two when fewer than four do.
    pub fn shape_for(&self, class: usize, size: usize) -> Shape {
        let geometry = self.slots.geometry();
        let slot = geometry.bytes();
        let space = if size * 4 <= slot { slot } else { 2 * slot };
        let items = space.checked_div(size).unwrap_or(1).min(geometry.words * 64).max(1);
        // A whole slot, since nobody could make a slab of the rest.
        let run = (items * size).max(slot).div_ceil(FRAGMENT);
        let plain = size >= crate::units::GRANULE && items * size <= slot;
        Shape { class: class as u32, items: items as u32, size, run, count: 0, plain, align: 1 }
    }

    /// The shape of slabs that hold arrays of such items: at most half as many, since the other half of the words
    /// says how items are joined.
    pub fn array_shape_for(&self, class: usize, size: usize) -> Shape {
        let shape = self.shape_for(class, size);
        let items = (shape.items as usize).min(self.slots.geometry().words / 2 * 64);
        Shape { items: items as u32, run: (items * size).div_ceil(FRAGMENT), ..shape }
    }

    /// Where `offset` bytes from slot 0 lies, if in a slab. O(1).
    pub fn locate(&self, offset: usize) -> Option<Located<'_>> {
        let slot = offset >> self.slots.geometry().shift;
        let mut slab = self.slab(slot);
        if slab.peek().state() == State::Continued {
            let head = self.slots.slot(slot).recip().load(Relaxed) as usize;
            slab = self.slab(head.min(slot));
        }
        if !slab.peek().state().is_slab() {
            return None;
        }
        let shape = slab.shape();
        let inside = offset - (slab.index() << self.slots.geometry().shift);
        let item = inside.checked_div(shape.size)?;
        (item < shape.items as usize).then(|| Located { slab, shape, item, exact: inside.is_multiple_of(shape.size) })
    }

    // --- pop ---------------------------------------------------------------------------------------------

    /// An item of `class` when the hot path found none: its address, or None when no run is left to carve.
    /// O(words of a slab) now and then, amortised O(1).
    pub fn pop(&self, runs: &impl Runs, local: &LocalHeap, class: usize) -> Result<Option<usize>, Bad> {
        let Some(bin) = local.bin(class) else { return Ok(None) };
        local.announce_bin(bin);
        match self.swap(local, bin, owner_id(local.id, class)) {
            Some(address) => Ok(Some(address.get())),
            None => self.pop_unswapped(runs, local, class),
        }
    }

    /// As above, for who has tried to swap slabs.
    pub fn pop_unswapped(&self, runs: &impl Runs, local: &LocalHeap, class: usize) -> Result<Option<usize>, Bad> {
        let Some(bin) = local.bin(class) else { return Ok(None) };
        while self.next_word(local, bin, class)? || self.next_slab(runs, local, bin, class) {
            if let Some(address) = bin.pop_announced() {
                return Ok(Some(address.get()));
            }
        }
        Ok(None)
    }

    /// Moves the bin to the current slab's next word with free items, taking remote frees when it runs dry.
    /// Lets the slab go when it is full: false, and the bin has no current slab.
    fn next_word(&self, local: &LocalHeap, bin: &Bin, class: usize) -> Result<bool, Bad> {
        let Some(slab) = self.current(local, bin, class) else { return Ok(false) };
        let (me, wanted) = (owner_id(local.id, class), class as u32);
        loop {
            if let Some(w) = slab.next_word(bin.word_index()) {
                bin.point(&slab, w, self.address(&slab));
                return Ok(true);
            }
            if slab.take().map_err(|e| self.bad(&slab, e))? {
                continue;
            }
            if bin.has_other(&slab) && self.link(local, &slab, wanted) {
                // Others are to be used before: until it is its turn again some item of it may have been freed, by a plain
                // store. If not, it is let go then.
                slab.requeue(me);
                bin.reset(self.zero);
                return Ok(false);
            }
            self.unlink_anywhere(local, &slab, wanted);
            if slab.let_go(me) == LetGo::Gone {
                bin.reset(self.zero);
                return Ok(false);
            }
        }
    }

    /// Finds the bin another current slab: from its queue, an orphan, a fresh one.
    fn next_slab(&self, runs: &impl Runs, local: &LocalHeap, bin: &Bin, class: usize) -> bool {
        let me = owner_id(local.id, class);
        let slab = self
            .next_queued(local, bin, me)
            .or_else(|| self.adopt_orphan(local, class))
            .or_else(|| self.carve(runs, class, me))
            .or_else(|| self.dequeue(local, bin));
        let Some(slab) = slab else { return false };
        bin.current.set(slab.index() as u32 + 1);
        bin.point(&slab, 0, self.address(&slab));
        true
    }

    /// The longest queued slab, claimed. Those that turn out to be stolen only leave the queue; those that somebody is
    /// tapping go to its end.
    pub(super) fn dequeue(&self, local: &LocalHeap, bin: &Bin) -> Option<Slab<'_>> {
        let mut tapped = 0;
        while let Some(slot) = bin.first() {
            let slab = self.slab(slot);
            let me = self.me(local, &slab);
            let claimed = slab.claim(me);
            if !claimed && slab.is_queued(me) {
                bin.to_end(&self.slots, &slab);
                tapped += 1;
                if tapped == PASSED_OVER {
                    return None;
                }
                continue;
            }
            self.unlink(local, &slab);
            if claimed {
                return Some(slab);
            }
        }
        None
    }

    pub(super) fn carve(&self, runs: &impl Runs, class: usize, me: u32) -> Option<Slab<'_>> {
        let shape = self.shape(class)?;
        self.carve_shape(runs, shape, State::Held, me)
    }

    pub(super) fn carve_shape(&self, runs: &impl Runs, shape: Shape, state: State, me: u32) -> Option<Slab<'_>> {
        let slot = runs.take(shape.run, shape.align)?;
        self.extend_reach(slot + self.slots_of(shape.run));
        let slab = self.slab(slot);
        self.note_place(shape.class as usize, slot);
        for k in 1..self.slots_of(shape.run) {
            let next = self.slots.slot(slot + k);
            next.recip().store(slot as u64, Relaxed);
            let seen = Owner(next.owner().load(Relaxed));
            // Published by the Release of the carve.
            next.owner().store(seen.next(State::Continued, 0, 1).0, Relaxed);
        }
        slab.carve(shape, state, me);
        Some(slab)
    }

    /// The slots that were ever part of a slab lie below this one: all others need no look. In a lazily committed pool
    /// a look would bring the memory of their descriptors.
    pub fn reach(&self) -> usize {
        // SAFETY: one word. Relaxed: a slab that is carved at this moment may be overlooked, as if it were carved later.
        unsafe { &*self.reach }.load(Relaxed).min(self.slots.count() as u64) as usize
    }

    /// Before the first of the slots is a slab's, so that a child of a fork finds it.
    fn extend_reach(&self, end: usize) {
        // SAFETY: one word.
        let reach = unsafe { &*self.reach };
        if reach.load(Relaxed) < end as u64 {
            reach.fetch_max(end as u64, Relaxed);
        }
    }

    /// Slots that a run of `fragments` from a slot's start reaches into.
    fn slots_of(&self, fragments: usize) -> usize {
        (fragments * FRAGMENT).div_ceil(self.slots.geometry().bytes())
    }

    // --- push --------------------------------------------------------------------------------------------

    /// Frees `n` items from `item` on; a slab that is one array (`count`) has a single item. O(n / 64 + 1) but for the rare slab that becomes empty.
    pub fn push(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>, item: usize, n: usize) -> Result<(), Bad> {
        // That of a live item's slab.
        let class = slab.shape().class;
        let me = owner_id(local.id, class as usize);
        let bad = |e| self.bad(slab, e);
        local.announce_slab(slab);
        let seen = slab.peek();
        if seen.thread() == me {
            if slab.own_free(item, n).map_err(bad)? {
                self.maybe_empty(runs, local, slab);
            }
            return Ok(());
        }
        // The shared local heap adopts nothing: threads that end would bring all their slabs there, where others don't look for them.
        if local.id != SHARED && slab.adopt(seen, me) {
            let freed = slab.own_free(item, n).map_err(bad);
            self.adopted(runs, local, slab, class);
            return freed.map(|_| ());
        }
        slab.remote_free(item, n).map_err(bad)?;
        if local.id == SHARED {
            self.leave_to_others(runs, slab);
        } else {
            self.freed_remotely(runs, local, slab, tag_of(class));
        }
        Ok(())
    }

    /// Behind a remote free by one who adopts nothing: if the slab belongs to nobody, it goes back when it is empty, but for one of each class,
    /// or others are told of its free items.
    fn leave_to_others(&self, runs: &impl Runs, slab: &Slab<'_>) {
        // Acquire as in `maybe_empty`.
        let seen = slab.owner();
        if self.freed_into_reserve(runs, slab, seen) || seen.state() != State::Nobody {
            return;
        }
        if !self.is_wanted(slab) && slab.steal(seen) {
            self.give(runs, slab);
        } else {
            self.set_hint(slab);
        }
    }

    /// Frees the item `inside` bytes from the start of a slab of nobody's, seen so, and of a size class (`tag` 0) or of the named cache
    /// with class `tag`, if there is one in use. False, with the item as it was, if anything else is the case.
    pub fn adopt_into(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>, inside: usize, tag: usize) -> bool {
        let seen = slab.peek();
        let Some(item) = slab.item_of(inside, tag as u64) else { return false };
        // That of the state seen, or the adoption fails.
        let class = slab.shape().class;
        local.announce_slab(slab);
        if !slab.adopt(seen, owner_id(local.id, tag)) {
            return false;
        }
        // The slab is ours now whether or not the item was in use.
        let freed = slab.own_free_one(item);
        self.adopted(runs, local, slab, class);
        freed
    }

    /// Behind a remote free of an item with this [`tag_of`] its class: if the slab belongs to nobody by now, it is ours to adopt.
    #[inline]
    pub(crate) fn freed_remotely(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>, tag: usize) {
        // Acquire: the class is that of the state seen, or the adoption fails.
        let seen = slab.owner();
        if self.freed_into_reserve(runs, slab, seen) {
            return;
        }
        let class = slab.shape().class;
        // Since the bit is set it may have gone back and been cut for another class. A size class is as good as the other; but a cache that the
        // caller doesn't use may be ending, and our queue of it is then not ours to change. What was freed has gone back with the slab.
        if tag_of(class) == tag && slab.adopt(seen, owner_id(local.id, tag)) {
            self.adopted(runs, local, slab, class);
        }
    }

    /// Queues a slab of `class` that `local` has just made its own (QUEUED). It may be stolen and cut for any class meanwhile.
    pub(super) fn adopted(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>, class: u32) {
        if self.link(local, slab, class) {
            self.maybe_empty(runs, local, slab);
        } else {
            self.disown(slab, owner_id(local.id, class as usize));
        }
    }

    /// Gives a queued slab back when it is empty, but for the only one of its bin, kept against thrashing.
    #[cold]
    pub fn maybe_empty(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>) {
        // Acquire pairs with `untap`: what was tapped before this state looks taken.
        let seen = slab.owner();
        // The class is that of the queue that it is in: if it is stolen meanwhile, its own may be that of a cache that ends.
        let (thread, class) = (slab.linked().0, slab.linked().1 as usize);
        if seen.state() != State::Queued || thread != local.id || seen.thread() != owner_id(thread, class) {
            return;
        }
        let kept = slab.shape().count == 0 && local.bin(class).is_some_and(|bin| bin.is_alone(slab));
        if !kept && slab.steal(seen) {
            self.unlink(local, slab);
            self.give(runs, slab);
        }
    }

    /// Gives the run of a slab (GIVING) back to the page-frag tier.
    pub(super) fn give(&self, runs: &impl Runs, slab: &Slab<'_>) {
        let slots = self.slots_of(slab.shape().run);
        runs.give(slab.index(), &mut || {
            for k in 1..slots {
                Slab::new(self.slots.slot(slab.index() + k)).vacate();
            }
            slab.vacate();
        });
    }

    /// What the owner word of `slab` says when it belongs to `local`.
    pub(super) fn me(&self, local: &LocalHeap, slab: &Slab<'_>) -> u32 {
        owner_id(local.id, slab.shape().class as usize)
    }

    pub(super) fn bad(&self, slab: &Slab<'_>, DoubleFree { item }: DoubleFree) -> Bad {
        Bad { slot: slab.index(), item }
    }

    // --- orphans, exhaustion, exit, fork -------------------------------------------------------------------

    /// Says that `slab` (NOBODY by now) has free items. Release: after the state; pairs with `adopt_orphan`.
    pub(super) fn set_hint(&self, slab: &Slab<'_>) {
        let slot = slab.index();
        self.hint(slot).fetch_or(1 << (slot % 64), Release);
        let class = slab.shape().class as usize;
        if class < self.classes {
            self.class_hint(class).fetch_or(1 << (slot / self.group()), Release);
            // Relaxed: a slot to look at, which decides nothing.
            self.latest(class).store(slot as u64 + 1, Relaxed);
        }
    }

    /// An orphan of `class`, HELD. O(1) for the one that was hinted at last and when there is none, O(slots / 4096) per hint else.
    pub(super) fn adopt_orphan(&self, local: &LocalHeap, class: usize) -> Option<Slab<'_>> {
        let latest = self.latest(class).load(Relaxed);
        if latest != 0 {
            // Forgotten first, so that another one that is hinted at meanwhile stays.
            let _ = self.latest(class).compare_exchange(latest, 0, Relaxed, Relaxed);
            let found = self.adopt_hinted(local, class, latest as usize - 1);
            if found.is_some() {
                return found;
            }
        }
        let groups = self.class_hint(class);
        let mut left = groups.load(Relaxed);
        while left != 0 {
            let group = left.trailing_zeros() as usize;
            left &= left - 1;
            // Cleared before the group is searched: who sets a hint later sets this bit again. AcqRel pairs with `set_hint`.
            groups.fetch_and(!(1 << group), AcqRel);
            let end = ((group + 1) * self.group()).min(self.slots.count());
            let mut found = None;
            let mut at = group * self.group();
            while let Some(slot) = self.next_hint(at, end) {
                at = slot + 1;
                if found.is_some() && self.hint_is_of(slot, class) {
                    groups.fetch_or(1 << group, Release);
                    break;
                }
                if found.is_none() {
                    found = self.adopt_hinted(local, class, slot);
                }
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The first slot of `from..end` with a hint.
    fn next_hint(&self, from: usize, end: usize) -> Option<usize> {
        let mut at = from;
        while at < end {
            let bits = self.hint(at).load(Relaxed) >> (at % 64);
            if bits != 0 {
                return Some(at + bits.trailing_zeros() as usize).filter(|&slot| slot < end);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    fn hint_is_of(&self, slot: usize, class: usize) -> bool {
        self.hint(slot).load(Relaxed) >> (slot % 64) & 1 == 1 && self.slab(slot).shape().class as usize == class
    }

    pub(super) fn adopt_hinted(&self, local: &LocalHeap, class: usize, slot: usize) -> Option<Slab<'_>> {
        if !self.hint_is_of(slot, class) {
            return None;
        }
        let bit = 1 << (slot % 64);
        // Cleared before the state changes. AcqRel pairs with `set_hint`.
        if self.hint(slot).fetch_and(!bit, AcqRel) & bit == 0 {
            return None;
        }
        let slab = self.slab(slot);
        let seen = slab.owner();
        let right_class = slab.shape().class as usize == class;
        if right_class && slab.adopt_held(seen, owner_id(local.id, class)) {
            return Some(slab);
        }
        // Of another class by now, or somebody else's. If it is still nobody's the hint must not get lost.
        if slab.owner().state() == State::Nobody {
            self.set_hint(&slab);
        }
        None
    }

    /// Gives this thread's own empty current slabs back. How many.
    pub fn return_empty(&self, runs: &impl Runs, local: &LocalHeap) -> Result<usize, Bad> {
        self.undisturbed(|| self.return_current(runs, local))
    }

    fn return_current(&self, runs: &impl Runs, local: &LocalHeap) -> Result<usize, Bad> {
        let mut returned = 0;
        for (class, bin) in local.bins() {
            // Again only if somebody has begun to want it meanwhile.
            while let Some(slab) = self.current(local, bin, class) {
                slab.take().map_err(|e| self.bad(&slab, e))?;
                if slab.retire(owner_id(local.id, class)) {
                    self.unlink(local, &slab);
                    bin.reset(self.zero);
                    self.give(runs, &slab);
                    returned += 1;
                } else if !slab.is_empty() {
                    break;
                }
            }
        }
        Ok(returned)
    }

    /// The thread ends: all its slabs go back or to nobody, with a hint.
    pub fn leave(&self, runs: &impl Runs, local: &LocalHeap) {
        self.undisturbed(|| self.leave_bins(runs, local));
    }

    /// Runs `f` while no cache ends, and no other call of this kind runs.
    pub fn undisturbed<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the word lives as long as the pool.
        crate::sync::alone(unsafe { &*self.lock }, self.give_way, f)
    }

    fn leave_bins(&self, runs: &impl Runs, local: &LocalHeap) {
        for (class, bin) in local.bins() {
            if let Some(slab) = self.current(local, bin, class) {
                bin.reset(self.zero);
                // Otherwise it is in the queue.
                if slab.linked().0 != local.id {
                    self.abandon(runs, local, &slab);
                }
            }
            while let Some(slot) = bin.first() {
                let slab = self.slab(slot);
                self.unlink(local, &slab);
                self.abandon(runs, local, &slab);
            }
        }
    }

    fn abandon(&self, runs: &impl Runs, local: &LocalHeap, slab: &Slab<'_>) {
        let me = self.me(local, slab);
        loop {
            // Acquire as in `maybe_empty`.
            let seen = slab.owner();
            if !is_of(seen, me) {
                return;
            }
            // One empty slab of each class stays for the next thread, or for whoever finds the pool exhausted.
            if !self.is_wanted(slab) && (slab.retire(me) || slab.steal(seen)) {
                return self.give(runs, slab);
            }
            if self.disown(slab, me) {
                return;
            }
        }
    }

    /// The child of a fork: slabs of vanished threads become nobody's, half-given ones go back. Only thread `me` exists.
    pub fn repair(&self, runs: &impl Runs, me: u32) {
        // SAFETY: as in `undisturbed`; whoever held the lock is gone.
        unsafe { &*self.lock }.store(0, Relaxed);
        for slot in 0..self.reach() {
            let slab = self.slab(slot);
            // Whatever is here now: a slab that was stolen stays linked in the queue it was stolen from.
            if slab.linked().0 != me {
                slab.unlink();
            }
            match slab.peek().state() {
                State::Giving => self.give(runs, &slab),
                State::Held | State::Queued | State::Nobody | State::Tapped => {
                    if slab.repair(me) {
                        self.set_hint(&slab);
                    }
                }
                State::Continued => {
                    let head = self.slots.slot(slot).recip().load(Relaxed) as usize;
                    if self.slab(head.min(slot)).peek().state() == State::Free {
                        slab.vacate();
                    }
                }
                State::Reserved => slab.repair_reserved(),
                State::Free | State::Heap => {}
            }
        }
    }

    /// Calls `f` with every slab and its shape. Exact when nobody is at work.
    pub fn for_each(&self, f: &mut dyn FnMut(&Slab<'_>, Shape)) {
        for slot in 0..self.reach() {
            let slab = self.slab(slot);
            if slab.owner().state().is_slab() {
                f(&slab, slab.shape());
            }
        }
    }
}
