//! Telling the program that memory runs low: callbacks and events at levels of free memory, and at exhaustion.
//!
//! Nothing is counted but what is taken from the page-frag tier and given back, and that only while somebody wants to know: a *credit*
//! of fragments may be taken before somebody has to look how many are free, which is a walk over the busy bits, and a *recovery* may come back
//! before a level that was fallen below can be exceeded again. The
//! look and the callbacks come behind a request that was served, with no lock held, on the thread that asked.
//!
//! *Limits:* a level is noticed up to a slot's bytes, or a 4096th of the segment, late.
#![allow(unsafe_code)]

use super::core::Core;
use super::exhausted::Fail;
use crate::bytes::Bytes;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::text::Text;
use crate::units::FRAGMENT;

/// Most callbacks of a pool.
pub const CALLBACKS: usize = 8;
/// In the place of a callback that is being added.
const CLAIMED: u64 = 1;
/// Bits of `told` beyond those of the callbacks: the process was told of the watermark; of exhaustion.
const EVENT: u64 = 1 << 62;
const END: u64 = 1 << 63;

/// A callback: bytes needed, its argument. Whether it freed something.
pub type Callback = extern "C" fn(usize, *mut u8) -> bool;

/// Whom to tell, and when.
pub struct Reclaim {
    /// Level in bytes (0: exhaustion alone), function (0: none) and argument.
    entries: [[AtomicU64; 3]; CALLBACKS],
    /// Whether anybody wants to know of a level.
    watching: AtomicU64,
    /// Fragments that may be taken before somebody looks; below 0 when that is overdue.
    credit: AtomicU64,
    /// Fragments that may come back before somebody looks, likewise.
    recovery: AtomicU64,
    /// Whether somebody must look.
    due: AtomicU64,
    /// Who was told since the level was last exceeded by an eighth: a bit per entry, and those above.
    told: AtomicU64,
}

impl Reclaim {
    /// Watches from the start if there is a watermark.
    pub const fn new(watermark: usize) -> Self {
        Self {
            entries: [const { [const { AtomicU64::new(0) }; 3] }; CALLBACKS],
            watching: AtomicU64::new((watermark > 0) as u64),
            credit: AtomicU64::new(0),
            recovery: AtomicU64::new(0),
            due: AtomicU64::new(0),
            told: AtomicU64::new(0),
        }
    }

    /// Takes so many fragments off `account`.
    #[cold]
    fn spend(&self, account: &AtomicU64, fragments: usize) {
        let left = account.fetch_sub(fragments as u64, Relaxed);
        if (left as i64) < fragments as i64 {
            self.due.store(1, Relaxed);
        }
    }

    /// Whether bit `bit` was not set before, and is now.
    fn first_to_tell(&self, bit: u64) -> bool {
        self.told.fetch_or(bit, Relaxed) & bit == 0
    }
}

impl Core {
    /// Says that so many fragments were taken from the page-frag tier.
    #[inline]
    pub(super) fn count_taken(&self, fragments: usize) {
        if self.reclaim.watching.load(Relaxed) != 0 {
            self.reclaim.spend(&self.reclaim.credit, fragments);
        }
    }

    /// Says that so many fragments were given back to it, or parked.
    #[inline]
    pub(super) fn count_given(&self, fragments: usize) {
        if self.reclaim.watching.load(Relaxed) != 0 {
            self.reclaim.spend(&self.reclaim.recovery, fragments);
        }
    }

    /// Whether somebody must look how much is free.
    #[inline]
    pub(super) fn is_look_due(&self) -> bool {
        self.reclaim.due.load(Relaxed) != 0
    }

    /// Behind a request: looks whether free memory has fallen below a level, if it is time to. Not for `try_`; then the
    /// next one does.
    #[inline]
    pub(super) fn look_after(&self, fail: Fail) {
        if self.is_look_due() && fail != Fail::Try {
            self.look();
        }
    }

    /// Before a request: notices that levels are exceeded by an eighth again, which they may not be when it is served.
    #[inline]
    pub(super) fn look_before(&self) {
        if self.is_look_due() {
            self.rearm();
        }
    }

    #[cold]
    #[inline(never)]
    fn rearm(&self) {
        let free = self.frag.free_fragments() * FRAGMENT;
        for (_, bits) in self.levels().filter(|(level, _)| free >= level.saturating_add(level / 8)) {
            self.reclaim.told.fetch_and(!bits, Relaxed);
        }
    }

    /// The levels, and the bits of `told` that each is for.
    fn levels(&self) -> impl Iterator<Item = (usize, u64)> {
        let entries = self.reclaim.entries.iter().enumerate();
        let of_entries = entries.map(|(k, [level, ..])| (level.load(Relaxed) as usize, 1 << k));
        core::iter::once((self.config.watermark, EVENT | END)).chain(of_entries)
    }

    #[cold]
    #[inline(never)]
    fn look(&self) {
        if self.is_reclaiming() || self.reclaim.due.swap(0, Relaxed) == 0 {
            return;
        }
        let free = self.frag.free_fragments() * FRAGMENT;
        // Of the levels that are exceeded the highest, and of those that are not by an eighth what it would take.
        let (mut next, mut missing) = (0, i64::MAX as usize);
        for (level, bits) in self.levels() {
            if free >= level {
                next = next.max(level);
            }
            match level.saturating_add(level / 8).saturating_sub(free) {
                0 => _ = self.reclaim.told.fetch_and(!bits, Relaxed),
                some => missing = missing.min(some),
            }
        }
        let step = self.slot_fragments().max(self.frag.open_end() / 4096);
        // Who takes a parked run counts nothing.
        let apart = ((free - next) / FRAGMENT).saturating_sub(self.frag.parked_fragments());
        self.reclaim.credit.store(apart.max(step) as u64, Relaxed);
        // Before anybody is told, who may give back a lot.
        self.reclaim.recovery.store((missing / FRAGMENT).max(step) as u64, Relaxed);
        if free < self.config.watermark && self.reclaim.first_to_tell(EVENT) {
            self.tell_process(format_args!(
                "{} free, less than the watermark of {}",
                Bytes(free),
                Bytes(self.config.watermark)
            ));
        }
        self.call(&|k, level| {
            let low = level > 0 && free < level && self.reclaim.first_to_tell(1 << k);
            low.then(|| level - free)
        });
    }

    /// Sends the signal and writes the line that the configuration asks for.
    fn tell_process(&self, what: core::fmt::Arguments<'_>) {
        if self.config.watermark_fd != 0 {
            let mut text = Text::<256>::of(format_args!("mempool: {}: {what}", self.config.name.as_str()));
            self.os.notify(self.config.watermark_fd, text.line());
        }
        if self.config.watermark_signal != 0 {
            self.os.signal(self.config.watermark_signal);
        }
    }

    /// Exhaustion is an event once more, until free memory was above the watermark again.
    pub(super) fn tell_exhausted(&self) {
        if self.config.watermark != 0 && self.reclaim.first_to_tell(END) {
            self.tell_process(format_args!("exhausted"));
        }
    }

    /// Calls every callback, with no lock held and never from within one. How many, and whether any said that it freed
    /// something.
    pub(super) fn call_reclaim(&self, needed: usize) -> (usize, bool) {
        self.call(&|_, _| Some(needed))
    }

    /// Calls the callbacks that `needed` has an answer for, by their number and level.
    fn call(&self, needed: &dyn Fn(usize, usize) -> Option<usize>) -> (usize, bool) {
        if !self.begin_reclaiming() {
            return (0, false);
        }
        let (mut called, mut freed) = (0, false);
        for (k, [level, function, argument]) in self.reclaim.entries.iter().enumerate() {
            // Acquire pairs with `on_reclaim`, which writes the rest first.
            let function = function.load(Acquire);
            if function <= CLAIMED {
                continue;
            }
            if let Some(needed) = needed(k, level.load(Relaxed) as usize) {
                // SAFETY: only `on_reclaim` writes functions, of this type.
                let callback: Callback = unsafe { core::mem::transmute(function as usize) };
                called += 1;
                freed |= callback(needed, argument.load(Relaxed) as *mut u8);
            }
        }
        self.end_reclaiming();
        (called, freed)
    }

    /// Adds a callback for exhaustion, and for less than `level` free bytes if that isn't 0. False when there are
    /// [`CALLBACKS`] already.
    pub(crate) fn on_reclaim(&self, level: usize, function: Callback, argument: *mut u8) -> bool {
        for [l, f, a] in &self.reclaim.entries {
            // Claimed with a value that is no function, so that two callers never share an entry.
            if f.compare_exchange(0, CLAIMED, Relaxed, Relaxed).is_ok() {
                l.store(level as u64, Relaxed);
                a.store(argument as u64, Relaxed);
                // Release pairs with `call`.
                f.store(function as usize as u64, Release);
                if level > 0 {
                    self.reclaim.watching.store(1, Relaxed);
                    self.reclaim.due.store(1, Relaxed);
                }
                return true;
            }
        }
        false
    }
}
