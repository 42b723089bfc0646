//! Shorts: runs of less than a page that a thread freed, for its next requests of the same length.
//!
//! Where the best-fit heap serves small requests, all that it does not serve are runs, most of them of a few fragments, and the page-frag
//! tier takes some thousand instructions and one lock for each. So a thread keeps some of those that it frees. Parking as a long
//! run is (`frag::park`) is not for them: many may begin in one cell, which has one entry. A short run is *set aside* instead: it is no run any more,
//! so that a second free is found out, and its fragments are the pool's own, as those of a local heap. Whose they are says one atomic word
//! in the local heap of the thread that keeps them: whoever takes the word away, the thread itself or one that found the pool exhausted, owns the
//! fragments. So they are never lost, however the thread ends.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::num::NonZeroUsize;

use super::core::Core;
use super::store::LEAST;
use crate::config::{Small, Values};
use crate::frag::Run;
use crate::slab::LocalHeap;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::units::FRAGMENT;

/// Runs that a thread keeps at most.
const ENTRIES: usize = 128;
/// The end of a list.
const NONE: u8 = u8::MAX;
const _: () = assert!(ENTRIES <= NONE as usize);

/// A thread's shorts.
#[repr(C)]
pub struct Shorts {
    /// Start and length of a run that is set aside, 0 for none. Written by the thread that keeps it, and taken by anybody.
    entries: [AtomicU64; ENTRIES],
    /// The thread's own: for each entry the next one of its list.
    next: [Cell<u8>; ENTRIES],
    /// The first entry of each length, the last one that was kept; of length 0: of those that are unused.
    first: [Cell<u8>; LEAST],
    /// Fragments that the thread kept and has not taken; others may have.
    held: Cell<usize>,
}

/// A run in one word, and back.
const fn pack(run: Run) -> u64 {
    (run.start as u64) << 8 | run.len as u64
}

const fn unpack(word: u64) -> Run {
    Run { start: (word >> 8) as usize, len: (word & 0xff) as usize }
}

impl Shorts {
    /// Empties it, whatever was there before.
    fn clear(&self) {
        self.entries.iter().for_each(|entry| entry.store(0, Relaxed));
        self.list_all();
    }

    /// Puts each entry on the list of what it says.
    fn list_all(&self) {
        self.first.iter().for_each(|first| first.set(NONE));
        self.held.set(0);
        for (entry, word) in self.entries.iter().enumerate() {
            let len = unpack(word.load(Relaxed)).len;
            self.enlist(len, entry);
            self.held.set(self.held.get() + len);
        }
    }

    fn list(&self, len: usize) -> &Cell<u8> {
        &self.first[len % LEAST]
    }

    /// Takes the first entry off the list of `len`.
    fn unlist(&self, len: usize) -> Option<usize> {
        let first = self.list(len).get();
        self.list(len).set(self.next.get(first as usize)?.get());
        Some(first as usize)
    }

    fn enlist(&self, len: usize, entry: usize) {
        self.next[entry % ENTRIES].set(self.list(len).get());
        self.list(len).set(entry as u8);
    }

    /// Whether one of `len` fragments can be kept, of `most` in all. O(entries) where it looks full.
    fn has_room(&self, len: usize, most: usize) -> bool {
        let has = || self.list(0).get() != NONE && self.held.get() + len <= most;
        if len >= LEAST {
            return false;
        }
        // What others took is on the lists still.
        has() || {
            let held = self.entries.iter().map(|word| unpack(word.load(Relaxed)).len).sum::<usize>();
            held < self.held.get() && {
                self.list_all();
                has()
            }
        }
    }

    /// Keeps a run, which is set aside and the caller's own. There must be room.
    fn keep(&self, run: Run) {
        let Some(entry) = self.unlist(0) else { return };
        self.enlist(run.len, entry);
        self.held.set(self.held.get() + run.len);
        // Release pairs with the Acquire in `win`: the run was set aside, and its last owner's use is over.
        self.entries[entry % ENTRIES].store(pack(run), Release);
    }

    /// One of `len` fragments, the caller's own now.
    fn take(&self, len: usize) -> Option<Run> {
        loop {
            let entry = self.unlist(len)?;
            self.enlist(0, entry);
            self.held.set(self.held.get() - len);
            let won = self.win(entry);
            if won.is_some() {
                return won;
            }
        }
    }

    /// What an entry says, the caller's own now; None when somebody else was first, or there is none.
    fn win(&self, entry: usize) -> Option<Run> {
        let entry = &self.entries[entry % ENTRIES];
        if entry.load(Relaxed) == 0 {
            return None;
        }
        // Acquire pairs with `keep`.
        let word = entry.swap(0, Acquire);
        (word != 0).then(|| unpack(word))
    }
}

impl Core {
    /// Bytes of a thread's shorts; none in pools that park nothing, and where hardly any run is short.
    pub(super) fn shorts_bytes(values: &Values, most: usize) -> usize {
        if values.small == Small::Heap && most > 0 { size_of::<Shorts>() } else { 0 }
    }

    fn shorts(&self, local: &LocalHeap) -> Option<&Shorts> {
        if Self::shorts_bytes(&self.config, self.parking.most) == 0 {
            return None;
        }
        let at = core::ptr::from_ref(local).cast::<u8>();
        // SAFETY: behind the store, as that is behind the local heap: see `Core::store`. What is not atomic only its thread uses.
        Some(unsafe { &*at.add(self.local_bytes() - size_of::<Shorts>()).cast::<Shorts>() })
    }

    /// Makes the shorts of a new local heap.
    pub(super) fn clear_shorts(&self, local: &LocalHeap) {
        if let Some(shorts) = self.shorts(local) {
            shorts.clear();
        }
    }

    /// `len` fragments, less than a page, that the calling thread, whose heap `local` is, freed before: their address.
    pub(super) fn pop_short(&self, local: &LocalHeap, len: usize) -> Option<NonZeroUsize> {
        if len == 0 || len >= LEAST {
            return None;
        }
        let run = self.shorts(local)?.take(len)?;
        self.frag.make_run(run);
        NonZeroUsize::new(self.data + run.start * FRAGMENT)
    }

    /// Keeps the run that begins at fragment `start`, if it is a short one and there is room. False, and nothing has changed, otherwise.
    pub(super) fn push_short(&self, local: &LocalHeap, start: usize) -> bool {
        let Some(shorts) = self.shorts(local) else { return false };
        let run = self.frag.set_aside(start, |len| shorts.has_room(len, self.parking.most));
        run.inspect(|run| {
            self.count_given(run.len);
            shorts.keep(*run);
        })
        .is_some()
    }

    /// Gives back what `local` keeps, or what is left of it, whosever it is: its fragments.
    pub(super) fn give_shorts_of(&self, local: &LocalHeap) -> usize {
        let Some(shorts) = self.shorts(local) else { return 0 };
        let won = (0..ENTRIES).filter_map(|entry| shorts.win(entry));
        won.map(|run| {
            self.frag.give_internal(run);
            run.len
        })
        .sum()
    }

    /// Gives back what all threads keep: the fragments.
    pub(super) fn give_shorts(&self) -> usize {
        let mut given = 0;
        self.each_known(&mut |local| given += self.give_shorts_of(local));
        given
    }

    /// Calls `f` with each run that is kept. Exact when nobody is at work.
    pub(crate) fn each_short(&self, f: &mut dyn FnMut(Run)) {
        self.each_known(&mut |local| {
            let words = self.shorts(local).into_iter().flat_map(|shorts| &shorts.entries);
            words.map(|entry| entry.load(Relaxed)).filter(|word| *word != 0).for_each(|word| f(unpack(word)));
        });
    }

    /// The child of a fork: what was kept is free there.
    pub(super) fn forget_shorts(&self) {
        self.each_known(&mut |local| self.clear_shorts(local));
    }
}
