//! Parking: a large object that is freed stays as it is, and the next request of about its length gets it.
//!
//! Its run is *parked* (`frag::Frag::park`), and a store remembers where it is: then neither free nor allocation searches, or clears and
//! sets bits. Runs below [`COMMON`] are remembered by the thread that freed them. The longer ones, of which there are few and which are
//! most of the memory, are remembered in a store that all threads have in common, so that what one frees serves another before the pool
//! reaches further. Nobody waits long for it: who finds it taken uses his own store.
//!
//! A store joins runs with its own ones behind them, never with those of another store: a thread whose runs others join has to go for new
//! ones, while the others keep more than they need.
#![allow(unsafe_code)]

use core::num::NonZeroUsize;

use super::core::Core;
use super::store::{LEAST, Store, longest_for};
use crate::config::{Commit, Exhausted, Values};
use crate::frag::Run;
use crate::slab::LocalHeap;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, spin};
use crate::units::{FRAGMENT, fragments_for};

/// Runs of so many fragments (1 MiB) are remembered in common.
const COMMON: usize = 4096;
/// The part of a pool that each store may hold, as a shift: of one whose memory is there anyway, and of one that grows and is
/// committed lazily.
const PART: u32 = 6;
const PART_LAZY: u32 = 3;
/// A pool of fewer bytes parks nothing.
const POOL_LEAST: usize = 32 << 20;
/// A thread that needs a run takes more than it needs, and parks the rest, so that its runs lie together and can be joined: a part of what
/// it has out, as a shift, and so many fragments (4 MiB) at most.
const MORE: u32 = 2;
const MORE_MOST: usize = 16384;
/// Each of the common store's runs is looked at for memory that is hardly used once while so many times what it holds comes to it.
const ROUNDS: usize = 64;
/// After so many requests in turn for which no parked run is just right, with none parked in between, a thread takes and frees no more; in a
/// pool that was exhausted before, after fewer.
const MISSES: usize = 8;
const MISSES_EXHAUSTED: usize = 2;
/// Room is short when no more than so much of the open range, as a shift, is free in one piece.
const SHORT: u32 = 3;
/// How often one who finds the common store taken looks again: some microseconds, as long as joining its runs may take.
const PATIENCE: u32 = 400;

/// What a pool's stores may do.
#[derive(Clone, Copy, Debug)]
pub struct Parking {
    /// Fragments that each store may hold; 0 in small pools, in which there are none.
    pub most: usize,
    /// The pool grows and is committed lazily: room that is kept is only addresses.
    roomy: bool,
}

impl Parking {
    /// For a pool with a data area of `bytes`: a 64th of it for each store, an eighth where room is only addresses.
    pub fn new(bytes: usize, values: &Values) -> Self {
        let roomy = values.commit == Commit::Lazy && values.exhausted == Exhausted::Grow;
        let part = if roomy { PART_LAZY } else { PART };
        Self { most: if bytes < POOL_LEAST { 0 } else { (bytes / FRAGMENT) >> part }, roomy }
    }
}

/// The store that all threads have in common.
pub struct Common {
    /// 1 while somebody uses it, 2 when another one has lost patience meanwhile: then the user is not running, and nobody else waits. Nobody
    /// relies on getting it, so it may be held across a system call, and by one who vanishes.
    taken: AtomicU64,
    store: Store,
}

impl Common {
    pub const fn new() -> Self {
        Self { taken: AtomicU64::new(0), store: Store::new() }
    }

    /// Runs `f` with the store, unless somebody else uses it for long.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&Store) -> R) -> Option<R> {
        let mut patience = PATIENCE;
        // Acquire pairs with the Release below: the store is found as its last user left it.
        while let Err(seen) = self.taken.compare_exchange(0, 1, Acquire, Relaxed) {
            if seen != 1 || patience == 0 {
                // Relaxed: it orders nothing, and being wrong about who has it costs a try.
                let _ = self.taken.compare_exchange(1, 2, Relaxed, Relaxed);
                return None;
            }
            patience -= 1;
            spin();
        }
        let result = f(&self.store);
        self.taken.store(0, Release);
        Some(result)
    }

    /// The child of a fork: somebody may have been at it. What was parked is free there.
    pub fn reset(&self) {
        self.store.clear();
        self.taken.store(0, Relaxed);
    }
}

impl Core {
    /// Bytes of a thread's local heap, its store, and its shorts.
    pub(crate) fn local_bytes(&self) -> usize {
        let store = if self.parking.most > 0 { size_of::<Store>() } else { 0 };
        LocalHeap::bytes(self.layout.classes as usize) + store + Self::shorts_bytes(&self.config, self.parking.most)
    }

    /// The store of `local`, which is the calling thread's own.
    #[inline]
    fn store(&self, local: &LocalHeap) -> Option<&Store> {
        if self.parking.most == 0 {
            return None;
        }
        let at = core::ptr::from_ref(local).cast::<u8>();
        // SAFETY: `Core::local_heap` took a run that has the store behind the local heap, and wrote both; only this thread uses them.
        Some(unsafe { &*at.add(LocalHeap::bytes(self.layout.classes as usize)).cast::<Store>() })
    }

    /// Makes the store of a new local heap.
    pub(super) fn clear_store(&self, local: &LocalHeap) {
        if let Some(store) = self.store(local) {
            store.clear();
        }
    }

    /// `size` bytes at a multiple of `align`, a power of two, from the store of `local`, the calling thread's own, or the common one: the
    /// address of a run that was parked.
    pub(super) fn pop_run(&self, local: &LocalHeap, size: usize, align: usize) -> Option<NonZeroUsize> {
        // Slot 0 lies at a multiple of a slot; of more than that nothing is known.
        if size > self.parking.most * FRAGMENT || size > local.len.get() || align > local.mask + 1 || self.is_look_due()
        {
            return None;
        }
        let (len, align, own) = (fragments_for(size), (align / FRAGMENT).max(1), self.store(local)?);
        let fitting = if len < COMMON {
            self.unpark_fitting(own, own, len, align)
        } else {
            self.common.with(|store| self.unpark_fitting(own, store, len, align))?
        };
        fitting.or_else(|| {
            own.missed.set(own.missed.get() + 1);
            own.tight.set(self.is_room_short(own));
            // Then `unpark` takes more care.
            if own.tight.get() {
                return None;
            }
            if len < COMMON { self.unpark_longer(own, len, align) } else { self.unpark_common(own, len, align) }
        })
    }

    /// Whether room is short, or the thread with this store seems to take what there is. What is parked then serves requests of exactly
    /// its length, and no run is laid around what free memory lies beside, since each such place may take the room for another one.
    fn is_room_short(&self, own: &Store) -> bool {
        let most = if self.events.exhausted.load(Relaxed) > 0 { MISSES_EXHAUSTED } else { MISSES };
        !self.parking.roomy && (own.missed.get() >= most || self.frag.is_room_short(SHORT))
    }

    /// As `pop_run`, of `len` fragments anywhere, after trying harder: what a store holds is joined first, and what one lacks the
    /// other gives.
    pub(super) fn unpark(&self, len: usize) -> Option<NonZeroUsize> {
        let local = self.own().or_else(|| self.join())?;
        if len < LEAST {
            return self.pop_short(local, len);
        }
        let own = self.store(local)?;
        if own.tight.get() {
            self.give_islands(own);
        }
        if len < COMMON {
            self.unpark_from(own, own, len, 1)
                .or_else(|| self.tidy(own).then(|| self.unpark_from(own, own, len, 1))?)
                .or_else(|| self.take_more(own, len))
        } else {
            self.unpark_common(own, len, 1)
                .or_else(|| self.tidy(own).then(|| self.unpark_common(own, len, 1))?)
                .or_else(|| self.unpark_from(own, own, len, 1))
        }
    }

    /// Gives back what is parked, in this store or in common, beside free memory, before a run is laid around it.
    #[cold]
    #[inline(never)]
    fn give_islands(&self, own: &Store) {
        let is_island = |run: Run| self.frag.is_beside_free(run);
        // First: some of what is tidied goes to the common store.
        self.tidy(own);
        let of = |store: &Store| {
            let mut any = self.tidy(store);
            store.each(|entry, run| {
                if is_island(run) {
                    store.forget(entry);
                    any |= self.frag.give_parked(run.start, run.len);
                }
            });
            any
        };
        // What one gives back may be beside what another has.
        while self.give_spares(is_island) | of(own) | (self.common.with(of) == Some(true)) {}
    }

    /// A long run from the common store, whose runs are joined before one is cut, so that it reaches less far.
    fn unpark_common(&self, own: &Store, len: usize, align: usize) -> Option<NonZeroUsize> {
        self.common.with(|store| {
            self.unpark_fitting(own, store, len, align).or_else(|| {
                self.tidy(store);
                self.unpark_from(own, store, len, align)
            })
        })?
    }

    /// A run of `store` that fits, or else the beginning of a longer one, whose rest stays parked.
    #[inline(always)]
    fn unpark_from(&self, own: &Store, store: &Store, len: usize, align: usize) -> Option<NonZeroUsize> {
        self.unpark_fitting(own, store, len, align).or_else(|| self.unpark_longer(store, len, align))
    }

    #[inline(never)]
    fn unpark_longer(&self, store: &Store, len: usize, align: usize) -> Option<NonZeroUsize> {
        while let Some(run) = store.take_longer(len, align) {
            if let Some(run) = self.frag.unpark(run.start, run.len) {
                return self.cut(store, run, len);
            }
        }
        None
    }

    /// A run of `store` that is hardly longer than it need be.
    #[inline(always)]
    fn unpark_fitting(&self, own: &Store, store: &Store, len: usize, align: usize) -> Option<NonZeroUsize> {
        let most = if own.tight.get() { len } else { longest_for(len) };
        while let Some(run) = store.take(len, most, align) {
            if let Some(run) = self.frag.unpark(run.start, run.len) {
                return self.hand_out(store, run);
            }
        }
        None
    }

    /// The address of `run`, which is the caller's own.
    #[inline]
    fn hand_out(&self, store: &Store, run: Run) -> Option<NonZeroUsize> {
        store.out.set(store.out.get() + run.len);
        NonZeroUsize::new(self.data + run.start * FRAGMENT)
    }

    /// The address of `run`, which is the caller's own and of which he needs `len` fragments; the rest, a long one, goes to `store`, which
    /// has an unused entry.
    #[inline]
    fn cut(&self, store: &Store, run: Run, len: usize) -> Option<NonZeroUsize> {
        store.remember(self.frag.park_rest(run, len));
        self.hand_out(store, Run { start: run.start, len })
    }

    /// A run of `len` fragments for the thread whose `own` store has none, and more to park there: from the common store, or a new one. None
    /// where a new one would have to be no longer than needed, or nothing is free.
    fn take_more(&self, own: &Store, len: usize) -> Option<NonZeroUsize> {
        if own.is_full() {
            return None;
        }
        let more = (own.out.get() >> MORE).min(MORE_MOST);
        // A multiple, so that a run divided into equal ones leaves nothing over that is too short for another one.
        let more = more - more % len.max(1);
        let run = self.common.with(|common| self.move_from(common, len, len + more)).flatten();
        let run = run.or_else(|| {
            let run = if self.parking.roomy && more > 0 { self.frag.take(len + more, 1) } else { None }?;
            self.count_taken(run.len);
            self.events.runs.fetch_add(1, Relaxed);
            Some(run)
        })?;
        if run.len < len + LEAST { self.hand_out(own, run) } else { self.cut(own, run, len) }
    }

    /// A run of `len` to `most` fragments, or hardly more, that leaves `store`.
    fn move_from(&self, store: &Store, len: usize, most: usize) -> Option<Run> {
        while let Some(run) = store.take(len, longest_for(len), 1).or_else(|| store.take_longer(len, 1)) {
            let Some(run) = self.frag.unpark(run.start, run.len) else { continue };
            if run.len < most + LEAST {
                return Some(run);
            }
            store.remember(self.frag.park_rest(run, most));
            return Some(Run { start: run.start, len: most });
        }
        None
    }

    /// Takes note that the calling thread took a run of `len` fragments that was not parked.
    pub(super) fn note_taken(&self, len: usize) {
        let own = if (LEAST..COMMON).contains(&len) { self.own() } else { None };
        if let Some(store) = own.and_then(|local| self.store(local)) {
            store.out.set(store.out.get() + len);
        }
    }

    /// Makes a run, the caller's own, at least `len` fragments long by parked runs behind it.
    pub(super) fn grow_into_parked(&self, run: Run, len: usize) -> bool {
        // What is left over and cannot be parked is then not more than an eighth.
        if self.parking.most == 0 || len < 8 * LEAST {
            return false;
        }
        let Some(grown) = self.frag.grow_into_parked(run, len) else { return false };
        if grown.len >= len + LEAST {
            let rest = self.frag.park_rest(grown, len);
            // Without a store it is found when memory runs out.
            if let Some(own) = self.own().and_then(|local| self.store(local)) {
                self.keep(own, rest);
            }
        }
        true
    }

    /// Parks the run that begins `offset` bytes from slot 0, if it is a long one and a store may hold so much, or keeps a short one; `local`
    /// is the calling thread's own. False, and nothing has changed, otherwise.
    pub(super) fn park(&self, local: &LocalHeap, offset: usize) -> bool {
        let Some(own) = self.store(local) else { return false };
        // What lies in the reserve goes back there.
        if !offset.is_multiple_of(FRAGMENT) || offset < self.config.reserve {
            return false;
        }
        let Some(run) = self.frag.park(offset / FRAGMENT, self.parking.most) else {
            return self.push_short(local, offset / FRAGMENT);
        };
        own.missed.set(0);
        if run.len < COMMON {
            own.out.set(own.out.get().saturating_sub(run.len));
        }
        self.count_given(run.len);
        self.keep(own, run);
        true
    }

    /// Remembers a parked run, in the common store if it is so long and the store can be had, else in the thread's `own`.
    #[inline]
    fn keep(&self, own: &Store, run: Run) {
        if run.len < COMMON || self.common.with(|common| self.keep_common(common, run)).is_none() {
            self.keep_in(own, run);
        }
    }

    fn keep_common(&self, store: &Store, run: Run) {
        self.keep_in(store, run);
        if let Some(run) = store.next_round(run.len, ROUNDS) {
            self.thin_out(run);
        }
    }

    #[inline]
    fn keep_in(&self, store: &Store, run: Run) {
        if store.is_full() || store.held() + run.len > self.parking.most {
            self.make_way(store, run.len);
        }
        store.remember(run);
    }

    /// Joins the runs that came to `store` since the last time with its own ones before and behind them. What of a thread's store is so long
    /// goes to the common one. Whether there was any of that.
    #[cold]
    #[inline(never)]
    fn tidy(&self, store: &Store) -> bool {
        let is_common = core::ptr::eq(store, &raw const self.common.store);
        let mut changed = false;
        store.each_new(|entry, was| {
            let mut run = was;
            while let Some(other) = store.beginning_at(run.end())
                && let Some(joined) = self.frag.join_parked(run, store.at(other))
            {
                store.forget(other);
                run = joined;
            }
            while let Some(other) = store.ending_at(run.start)
                && let Some(joined) = self.frag.join_parked(store.at(other), run)
            {
                store.forget(other);
                run = joined;
            }
            let leaves = run.len >= COMMON && !is_common;
            if run.len > was.len || leaves {
                store.forget(entry);
                if leaves {
                    self.keep(store, run)
                } else {
                    store.remember(run)
                }
                changed = true;
            }
        });
        changed
    }

    /// Gives parked runs back until there is an entry and room for `len` fragments.
    #[cold]
    #[inline(never)]
    fn make_way(&self, store: &Store, len: usize) {
        self.tidy(store);
        while store.is_full() || store.held() + len > self.parking.most {
            let Some(run) = store.take_shortest() else { return };
            self.frag.give_parked(run.start, run.len);
        }
    }

    /// Gives the memory of a parked run of which little was used back to the OS, in a lazily committed pool: where large objects are hardly
    /// written to, their first and last OS pages would in the end be all of the pool.
    #[cold]
    #[inline(never)]
    fn thin_out(&self, run: Run) {
        self.frag.with_parked(run, |run| {
            // SAFETY: parked, so that nobody needs the content, and nobody else's for so long.
            unsafe { self.drop_if_sparse(self.data + run.start * FRAGMENT, run.len * FRAGMENT) };
        });
    }

    /// Gives back all that the store of `local` remembers: its thread ends.
    pub(super) fn empty_store(&self, local: &LocalHeap) {
        let Some(store) = self.store(local) else { return };
        while let Some(run) = store.take_shortest() {
            self.frag.give_parked(run.start, run.len);
        }
        self.give_shorts_of(local);
    }
}
