//! The store: where a thread remembers the runs that it parked.
//!
//! A large object that is freed is *parked* (`frag::Frag::park`): it stays as it is, and the next request of about its length gets
//! it, without a search and without clearing and setting its bits. Which runs are parked, the page-frag tier
//! knows; the store only remembers, for one thread, where a few of them are, ordered by length. What it says may be
//! out of date, since anybody may take a parked run who finds it: then the claim fails and the entry is forgotten.
//! So nothing has to be kept in order when a pool runs out, and gives back all that is parked, or when a thread vanishes.
//!
//! Lengths are kept in bins, eight per doubling; one word per bin has a bit for each entry, two words have a bit for each bin.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::num::NonZeroUsize;

use super::core::Core;
use crate::config::{Commit, Exhausted, Values};
use crate::frag::Run;
use crate::slab::LocalHeap;
use crate::units::{FRAGMENT, fragments_for};

/// The shortest run that is parked, in fragments: that of the entries of the length table.
const LEAST: usize = 64;
/// Entries of a store: the bits of a word.
const ENTRIES: usize = 64;
/// Bins per doubling, as a shift.
const STEPS: u32 = 3;
/// Bins: the last is for all runs of 2^21 fragments (512 MiB) and more.
const BINS: usize = 128;
/// The part of a pool that one thread may park, as a shift: of one whose memory is there anyway, and of one that grows and is
/// committed lazily.
const PART: u32 = 6;
const PART_LAZY: u32 = 3;
/// A pool of fewer bytes parks nothing.
const POOL_LEAST: usize = 32 << 20;

/// Runs that a thread parked.
#[repr(C)]
pub struct Store {
    /// Entries that remember a run.
    used: Cell<u64>,
    /// Fragments of these runs.
    held: Cell<usize>,
    /// A bit for each bin with entries.
    some: [Cell<u64>; BINS / 64],
    /// For each bin, a bit for each of its entries.
    bins: [Cell<u64>; BINS],
    /// Start and length. An entry is in the bin of its length while its `used` bit is set.
    entries: [Cell<Run>; ENTRIES],
}

/// Fragments that one thread may park in a pool with a data area of `bytes`: a 64th, or an eighth of one that grows and is
/// committed lazily, in which room that is kept is only addresses. 0 in small pools, in which there are no stores.
pub fn parking(bytes: usize, values: &Values) -> usize {
    let roomy = values.commit == Commit::Lazy && values.exhausted == Exhausted::Grow;
    if bytes < POOL_LEAST { 0 } else { (bytes / FRAGMENT) >> if roomy { PART_LAZY } else { PART } }
}

/// The bin of runs of `len` fragments, at least [`LEAST`].
#[inline]
fn bin_of(len: usize) -> usize {
    let doubling = (len | 1).ilog2();
    let step = (len >> (doubling - STEPS)) - (1 << STEPS);
    (((doubling - LEAST.ilog2()) << STEPS) as usize + step).min(BINS - 1)
}

/// The longest run that is an answer to a request for `len` fragments: an eighth more.
pub const fn longest_for(len: usize) -> usize {
    if len < LEAST { len } else { len + len / 8 }
}

impl Store {
    /// Forgets an entry: what it said.
    #[inline]
    fn forget(&self, entry: usize) -> Run {
        let bit = 1u64 << entry;
        let run = self.entries[entry % ENTRIES].get();
        let b = bin_of(run.len.max(LEAST));
        let left = self.bins[b].get() & !bit;
        self.bins[b].set(left);
        if left == 0 {
            self.some[b / 64].set(self.some[b / 64].get() & !(1 << (b % 64)));
        }
        self.used.set(self.used.get() & !bit);
        self.held.set(self.held.get() - run.len);
        run
    }

    /// Remembers a run. There must be an unused entry.
    #[inline]
    fn remember(&self, run: Run) {
        let entry = (!self.used.get()).trailing_zeros() as usize % ENTRIES;
        let bit = 1u64 << entry;
        let b = bin_of(run.len.max(LEAST));
        self.entries[entry].set(run);
        self.bins[b].set(self.bins[b].get() | bit);
        self.some[b / 64].set(self.some[b / 64].get() | 1 << (b % 64));
        self.used.set(self.used.get() | bit);
        self.held.set(self.held.get() + run.len);
    }

    /// An entry with a run of `len` to `longest_for(len)` fragments that begins at a multiple of `align`.
    #[inline]
    fn find(&self, len: usize, align: usize) -> Option<usize> {
        let first = bin_of(len);
        // A bin is at least a sixteenth of its lengths wide: an eighth more reaches two bins further.
        for b in first..=(first + 2).min(BINS - 1) {
            let mut entries = self.bins[b].get();
            while entries != 0 {
                let entry = entries.trailing_zeros() as usize % ENTRIES;
                let Run { start, len: found } = self.entries[entry].get();
                if found >= len && found <= longest_for(len) && start & (align - 1) == 0 {
                    return Some(entry);
                }
                entries &= entries - 1;
            }
        }
        None
    }

    /// An entry with a run so long that the rest of it can stay parked, of the shortest there are.
    #[inline]
    fn find_longer(&self, len: usize) -> Option<usize> {
        self.find_from(bin_of(len + LEAST) + 1)
    }

    /// An entry of the first bin from `first` on that has any.
    #[inline]
    fn find_from(&self, first: usize) -> Option<usize> {
        let mut above = u64::MAX << (first % 64);
        for word in first / 64..BINS / 64 {
            let some = self.some[word].get() & above;
            if some != 0 {
                let b = word * 64 + some.trailing_zeros() as usize;
                return Some(self.bins[b % BINS].get().trailing_zeros() as usize % ENTRIES);
            }
            above = u64::MAX;
        }
        None
    }

    /// An entry with one of the shortest runs.
    fn shortest(&self) -> Option<usize> {
        self.find_from(0)
    }
}

impl Core {
    /// Bytes of a thread's local heap and its store.
    pub(crate) fn local_bytes(&self) -> usize {
        let store = if self.parking > 0 { size_of::<Store>() } else { 0 };
        LocalHeap::bytes(self.layout.classes as usize) + store
    }

    /// The store of `local`, which is the calling thread's own.
    #[inline]
    pub(super) fn store(&self, local: &LocalHeap) -> Option<&Store> {
        if self.parking == 0 {
            return None;
        }
        let at = core::ptr::from_ref(local).cast::<u8>();
        // SAFETY: `Core::local_heap` took a run that has the store behind the local heap, and wrote both; only this thread uses them.
        Some(unsafe { &*at.add(LocalHeap::bytes(self.layout.classes as usize)).cast::<Store>() })
    }

    /// Makes the store of a new local heap.
    pub(super) fn clear_store(&self, local: &LocalHeap) {
        if let Some(store) = self.store(local) {
            // SAFETY: the calling thread's own. Zeros are an empty store; entries are written before they are read.
            unsafe { core::ptr::from_ref(store).cast_mut().write_bytes(0, 1) };
        }
    }

    /// `size` bytes at a multiple of `align`, a power of two, from the store of `local`, the calling thread's own: the address of a
    /// run that was parked.
    pub(super) fn pop_run(&self, local: &LocalHeap, size: usize, align: usize) -> Option<NonZeroUsize> {
        // Slot 0 lies at a multiple of a slot; of more than that nothing is known.
        if size > self.parking * FRAGMENT || size > local.len.get() || align > local.mask + 1 {
            return None;
        }
        self.unpark_from(self.store(local)?, fragments_for(size), (align / FRAGMENT).max(1))
    }

    /// The address of a parked run of at least `len` fragments, at most an eighth longer, after trying harder.
    pub(super) fn unpark(&self, len: usize) -> Option<NonZeroUsize> {
        let store = self.store(self.own().or_else(|| self.join())?)?;
        self.unpark_from(store, len, 1).or_else(|| self.tidy(store).then(|| self.unpark_from(store, len, 1))?)
    }

    fn unpark_from(&self, store: &Store, len: usize, align: usize) -> Option<NonZeroUsize> {
        if len < LEAST {
            return None;
        }
        while let Some(entry) = store.find(len, align) {
            let run = store.forget(entry);
            if let Some(run) = self.frag.unpark(run.start, run.len) {
                return NonZeroUsize::new(self.data + run.start * FRAGMENT);
            }
        }
        while let Some(entry) =
            store.find_longer(len).filter(|&entry| store.entries[entry].get().start & (align - 1) == 0)
        {
            let run = store.forget(entry);
            if let Some(run) = self.frag.unpark(run.start, run.len) {
                store.remember(self.frag.park_rest(run, len));
                return NonZeroUsize::new(self.data + run.start * FRAGMENT);
            }
        }
        None
    }

    /// Makes a run, the caller's own, at least `len` fragments long by parked runs behind it.
    pub(super) fn grow_into_parked(&self, run: Run, len: usize) -> bool {
        // What is left over and cannot be parked is then not more than an eighth.
        if self.parking == 0 || len < 8 * LEAST {
            return false;
        }
        let Some(grown) = self.frag.grow_into_parked(run, len) else { return false };
        if grown.len >= len + LEAST {
            let rest = self.frag.park_rest(grown, len);
            let store = self.own().and_then(|local| self.store(local));
            // Without an entry it is found when memory runs out.
            if let Some(store) = store.filter(|store| store.used.get() != u64::MAX) {
                store.remember(rest);
            }
        }
        true
    }

    /// Joins the store's runs with the parked ones behind them, and forgets those that are gone. Whether there was anything to join.
    #[cold]
    #[inline(never)]
    fn tidy(&self, store: &Store) -> bool {
        let mut joined = false;
        let mut entries = store.used.get();
        while entries != 0 {
            let entry = entries.trailing_zeros() as usize;
            entries &= entries - 1;
            let run = store.entries[entry % ENTRIES].get();
            if !self.frag.is_parked(run.start, run.len) {
                store.forget(entry);
            } else if let Some(run) = self.frag.join_parked(run.start, run.len) {
                store.forget(entry);
                store.remember(run);
                joined = true;
            }
        }
        joined
    }

    /// Parks the run that begins `offset` bytes from slot 0, if it is a long one and the calling thread, whose own `local` is, may park
    /// so much. False, and nothing has changed, otherwise.
    pub(super) fn park(&self, local: &LocalHeap, offset: usize) -> bool {
        let Some(store) = self.store(local) else { return false };
        // What lies in the reserve goes back there.
        if !offset.is_multiple_of(FRAGMENT) || offset < self.config.reserve {
            return false;
        }
        let Some(run) = self.frag.park(offset / FRAGMENT, self.parking) else { return false };
        if store.used.get() == u64::MAX || store.held.get() + run.len > self.parking {
            self.make_way(store, run.len);
        }
        store.remember(run);
        true
    }

    /// Gives parked runs back until there is an entry and room for `len` fragments.
    #[cold]
    #[inline(never)]
    fn make_way(&self, store: &Store, len: usize) {
        self.tidy(store);
        while store.used.get() == u64::MAX || store.held.get() + len > self.parking {
            let Some(entry) = store.shortest() else { return };
            let run = store.forget(entry);
            self.frag.give_parked(run.start, run.len);
        }
    }

    /// Gives back all that the store of `local` remembers: its thread ends.
    pub(super) fn empty_store(&self, local: &LocalHeap) {
        let Some(store) = self.store(local) else { return };
        while let Some(entry) = store.shortest() {
            let run = store.forget(entry);
            self.frag.give_parked(run.start, run.len);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn empty() -> Store {
        Store {
            used: Cell::new(0),
            held: Cell::new(0),
            some: [const { Cell::new(0) }; BINS / 64],
            bins: [const { Cell::new(0) }; BINS],
            entries: [const { Cell::new(Run { start: 0, len: 0 }) }; ENTRIES],
        }
    }

    #[test]
    fn bins_are_in_the_order_of_lengths() {
        let mut last = 0;
        for len in LEAST..100_000 {
            let bin = bin_of(len);
            assert!(bin == last || bin == last + 1, "{len}");
            last = bin;
        }
        assert_eq!((bin_of(LEAST), bin_of(usize::MAX)), (0, BINS - 1));
    }

    /// Against a plain list: what is found is there and fits, and what fits within the bins looked at is found.
    #[test]
    fn a_store_matches_a_list() {
        let store = empty();
        let mut list: Vec<Run> = Vec::new();
        let mut state = 7_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for start in 0..20_000 {
            if list.len() < ENTRIES && random(2) == 0 {
                let run = Run { start, len: LEAST << random(8) | random(64) };
                store.remember(run);
                list.push(run);
            } else {
                let want = LEAST << random(8) | random(64);
                let fits = |run: &Run| run.len >= want && run.len <= longest_for(want);
                let longer = |run: &Run| bin_of(run.len) > bin_of(want + LEAST);
                let found = store.find(want, 1);
                assert_eq!(found.is_some(), list.iter().any(fits), "{want} in {list:?}");
                let long = store.find_longer(want);
                assert_eq!(long.is_some(), list.iter().any(longer), "{want} in {list:?}");
                if let Some(entry) = found.or(long).or(store.shortest()) {
                    let run = store.forget(entry);
                    assert!(found.is_none() || fits(&run));
                    assert!(found.is_some() || long.is_none() || run.len >= want + LEAST);
                    list.retain(|other| *other != run);
                }
            }
            assert_eq!(store.used.get().count_ones() as usize, list.len());
            assert_eq!(store.held.get(), list.iter().map(|run| run.len).sum());
        }
    }
}
