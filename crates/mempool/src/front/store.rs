//! A store: where some of the runs that were parked are remembered.
//!
//! It says where they are, ordered by length, and nothing else: which runs are parked, the page-frag tier knows. What a store says may be
//! out of date, since anybody may take a parked run who finds it: then the claim fails and the entry is forgotten
//! (`parking`). So nothing has to be kept in order when a pool runs out, and gives back all that is parked, or when a thread vanishes.
//!
//! Lengths are kept in bins, eight per doubling; one word per bin has a bit for each entry, two words have a bit for each bin.

use core::cell::Cell;

use crate::frag::Run;

/// The shortest run that is parked, in fragments: that of the entries of the length table.
pub const LEAST: usize = 64;
/// Entries of a store: the bits of a word.
const ENTRIES: usize = 64;
/// Entries that are compared at once.
const GROUP: usize = 16;
/// Bins per doubling, as a shift.
const STEPS: u32 = 3;
/// Bins: the last is for all runs of 2^21 fragments (512 MiB) and more.
const BINS: usize = 128;

/// Runs that were parked.
#[repr(C)]
pub struct Store {
    /// Entries that remember a run.
    used: Cell<u64>,
    /// Of those, the ones that nobody has looked for neighbours of since they were made.
    new: Cell<u64>,
    /// Fragments of these runs.
    held: Cell<usize>,
    /// Of a thread's: fragments of the runs that the thread took, less those that it freed; not below 0, since others may have taken them.
    pub out: Cell<usize>,
    /// Of a thread's: requests since it last parked a run that no parked run was just right for.
    pub missed: Cell<usize>,
    /// Of a thread's: room was short at the last of them ([`Core::is_room_short`](super::core::Core)).
    pub tight: Cell<bool>,
    /// Fragments of the runs that came to it since [`Store::next_round`] said anything, and the entry that it said then.
    since: Cell<usize>,
    latest: Cell<usize>,
    /// A bit for each bin with entries.
    some: [Cell<u64>; BINS / 64],
    /// For each bin, a bit for each of its entries.
    bins: [Cell<u64>; BINS],
    /// Start and length. An entry is in the bin of its length while its `used` bit is set.
    entries: [Cell<Run>; ENTRIES],
    /// Of each entry in use the lower bits of its run's start and end, so that one instruction compares several.
    starts: [Cell<u32>; ENTRIES],
    ends: [Cell<u32>; ENTRIES],
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
    pub const fn new() -> Self {
        Self {
            used: Cell::new(0),
            new: Cell::new(0),
            held: Cell::new(0),
            out: Cell::new(0),
            missed: Cell::new(0),
            tight: Cell::new(false),
            since: Cell::new(0),
            latest: Cell::new(0),
            some: [const { Cell::new(0) }; BINS / 64],
            bins: [const { Cell::new(0) }; BINS],
            entries: [const { Cell::new(Run { start: 0, len: 0 }) }; ENTRIES],
            starts: [const { Cell::new(0) }; ENTRIES],
            ends: [const { Cell::new(0) }; ENTRIES],
        }
    }

    /// Empties it, whatever was there before.
    pub fn clear(&self) {
        self.some.iter().chain(&self.bins).chain([&self.used, &self.new]).for_each(|word| word.set(0));
        [&self.held, &self.out, &self.missed, &self.since, &self.latest].into_iter().for_each(|count| count.set(0));
        self.tight.set(false);
    }

    /// Whether no entry is unused.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.used.get() == u64::MAX
    }

    /// Fragments of the runs that it remembers.
    #[inline]
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// What an entry in use says.
    #[inline]
    pub fn at(&self, entry: usize) -> Run {
        self.entries[entry % ENTRIES].get()
    }

    /// Forgets an entry: what it said.
    #[inline]
    pub fn forget(&self, entry: usize) -> Run {
        let run = self.at(entry);
        self.forget_in(bin_of(run.len.max(LEAST)), entry, run);
        run
    }

    /// Forgets an entry of bin `b` that says `run`.
    #[inline]
    fn forget_in(&self, b: usize, entry: usize, run: Run) {
        let bit = 1u64 << entry;
        let left = self.bins[b].get() & !bit;
        self.bins[b].set(left);
        if left == 0 {
            self.some[b / 64].set(self.some[b / 64].get() & !(1 << (b % 64)));
        }
        self.used.set(self.used.get() & !bit);
        self.new.set(self.new.get() & !bit);
        self.held.set(self.held.get() - run.len);
    }

    /// Remembers a run. There must be an unused entry.
    #[inline]
    pub fn remember(&self, run: Run) {
        let entry = (!self.used.get()).trailing_zeros() as usize % ENTRIES;
        let bit = 1u64 << entry;
        let b = bin_of(run.len.max(LEAST));
        self.entries[entry].set(run);
        self.starts[entry].set(run.start as u32);
        self.ends[entry].set(run.end() as u32);
        self.bins[b].set(self.bins[b].get() | bit);
        self.some[b / 64].set(self.some[b / 64].get() | 1 << (b % 64));
        self.used.set(self.used.get() | bit);
        self.new.set(self.new.get() | bit);
        self.held.set(self.held.get() + run.len);
    }

    /// Forgets an entry with a run of `len` to `most` fragments, `longest_for(len)` at most, that begins at a multiple of `align`: what it said.
    #[inline]
    pub fn take(&self, len: usize, most: usize, align: usize) -> Option<Run> {
        if len < LEAST {
            return None;
        }
        let first = bin_of(len);
        // A bin is at least a sixteenth of its lengths wide: an eighth more reaches two bins further.
        for b in first..=(first + 2).min(BINS - 1) {
            let mut entries = self.bins[b].get();
            while entries != 0 {
                let entry = entries.trailing_zeros() as usize % ENTRIES;
                let run = self.at(entry);
                if run.len >= len && run.len <= most && run.start & (align - 1) == 0 {
                    self.forget_in(b, entry, run);
                    return Some(run);
                }
                entries &= entries - 1;
            }
        }
        None
    }

    /// The same of a run so long that the rest of it can stay parked, of the shortest there are, if that begins so.
    #[inline]
    pub fn take_longer(&self, len: usize, align: usize) -> Option<Run> {
        if len < LEAST {
            return None;
        }
        let entry = self.find_from(bin_of(len + LEAST) + 1)?;
        (self.at(entry).start & (align - 1) == 0).then(|| self.forget(entry))
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

    /// The same of one of the shortest runs.
    pub fn take_shortest(&self) -> Option<Run> {
        self.find_from(0).map(|entry| self.forget(entry))
    }

    /// Goes round the entries, once while `rounds` times what the store holds comes to it: what the next one says, if it is its turn, now that
    /// `len` fragments have come.
    pub fn next_round(&self, len: usize, rounds: usize) -> Option<Run> {
        let since = self.since.get().saturating_add(len);
        self.since.set(since);
        let used = self.used.get();
        if since.saturating_mul(used.count_ones() as usize) < self.held.get().saturating_mul(rounds) {
            return None;
        }
        self.since.set(0);
        let behind = used & (u64::MAX << (self.latest.get() % ENTRIES)) << 1;
        let next = if behind != 0 { behind } else { used };
        self.latest.set(next.trailing_zeros() as usize % ENTRIES);
        (used != 0).then(|| self.at(self.latest.get()))
    }

    /// Calls `f` with each entry in use and what it says.
    pub fn each(&self, mut f: impl FnMut(usize, Run)) {
        let mut used = self.used.get();
        while used != 0 {
            let entry = used.trailing_zeros() as usize % ENTRIES;
            used &= used - 1;
            f(entry, self.at(entry));
        }
    }

    /// Calls `f` with each new entry and what it says. What `f` remembers is new the next time.
    pub fn each_new(&self, mut f: impl FnMut(usize, Run)) {
        let mut new = self.new.take();
        while new != 0 {
            let entry = new.trailing_zeros() as usize % ENTRIES;
            new &= new - 1;
            // `f` may have forgotten it.
            if self.used.get() >> entry & 1 != 0 {
                f(entry, self.at(entry));
            }
        }
    }

    /// The entry whose run begins at fragment `start`, if one does.
    #[inline]
    pub fn beginning_at(&self, start: usize) -> Option<usize> {
        self.find(&self.starts, start, |run| run.start)
    }

    /// The entry whose run ends before fragment `end`, if one does.
    #[inline]
    pub fn ending_at(&self, end: usize) -> Option<usize> {
        self.find(&self.ends, end, Run::end)
    }

    /// The entry in use of whose run `of` is `wanted`, which `keys` have the lower bits of. Linear in the entries.
    #[inline(always)]
    fn find(&self, keys: &[Cell<u32>; ENTRIES], wanted: usize, of: impl Fn(Run) -> usize) -> Option<usize> {
        // What an unused entry says may be anything ([`Store::clear`]).
        let is_it = |entry: usize| self.used.get() >> entry & 1 != 0 && of(self.at(entry)) == wanted;
        for (group, keys) in keys.chunks_exact(GROUP).enumerate() {
            // All of a group, so that the compiler compares several at once.
            if keys.iter().fold(false, |some, key| some | (key.get() == wanted as u32))
                && let Some(entry) = (group * GROUP..(group + 1) * GROUP).find(|&entry| is_it(entry))
            {
                return Some(entry);
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

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

    /// A thread's store lies in fragments that were somebody else's before.
    #[test]
    fn what_was_in_an_unused_entry_is_never_looked_at() {
        let store = Store::new();
        store.entries.iter().for_each(|entry| entry.set(Run { start: usize::MAX, len: usize::MAX }));
        store.starts.iter().chain(&store.ends).for_each(|key| key.set(u32::MAX));
        store.clear();
        let run = Run { start: 8, len: LEAST };
        store.remember(run);
        let found = |entry: Option<usize>| entry.map(|entry| store.at(entry));
        assert_eq!((found(store.beginning_at(8)), found(store.ending_at(8 + LEAST))), (Some(run), Some(run)));
        assert_eq!((store.beginning_at(9), store.ending_at(usize::MAX)), (None, None));
    }

    /// Against a plain list: what is found is there and fits, and what fits within the bins looked at is found.
    #[test]
    fn a_store_matches_a_list() {
        let store = Store::new();
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
                let found = store.take(want, longest_for(want), 1);
                assert_eq!(found.is_some(), list.iter().any(fits), "{want} in {list:?}");
                assert!(found.as_ref().is_none_or(fits));
                let long = if found.is_none() { store.take_longer(want, 1) } else { None };
                assert_eq!(long.is_some(), found.is_none() && list.iter().any(longer), "{want} in {list:?}");
                assert!(long.is_none_or(|run| run.len >= want + LEAST));
                if let Some(run) = found.or(long).or_else(|| store.take_shortest()) {
                    list.retain(|other| *other != run);
                }
            }
            assert_eq!(store.used.get().count_ones() as usize, list.len());
            let place = start - random(100).min(start);
            let begins = store.beginning_at(place).map(|entry| store.at(entry));
            assert_eq!(begins, list.iter().copied().find(|run| run.start == place));
            let ends = store.ending_at(place).map(|entry| store.at(entry));
            assert_eq!(ends.is_some(), list.iter().any(|run| run.end() == place));
            assert!(ends.is_none_or(|run| run.end() == place));
            assert_eq!(store.held.get(), list.iter().map(|run| run.len).sum());
        }
    }
}
