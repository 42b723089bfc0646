//! What one does with a pool besides allocating: looking inside, and taking care that memory suffices.
#![allow(unsafe_code)]

use core::alloc::Layout;

use super::Pool;
use crate::front::{self, Callback, Core, Request, Verdict};
use crate::segment::{Granted, Shortfalls};
use crate::stats::{CacheStats, Stats, Table};

/// Looking inside, and taking care.
impl Pool {
    /// The figures, computed from the bitmaps. O(segment / 256 bytes / 64).
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(self.core())
    }

    /// Calls `f` with the figures of each named cache.
    pub fn each_cache(&self, mut f: impl FnMut(&CacheStats)) {
        Stats::each_cache(self.core(), &mut f);
    }

    /// The table of docs/STATS.md, ready to print.
    #[must_use]
    pub fn table(&self) -> impl core::fmt::Display + '_ {
        Table(self.core())
    }

    /// Walks everything and checks every invariant. For a moment when no other thread uses the pool.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn verify(&self) -> Result<(), crate::verify::Broken> {
        crate::verify::verify(self.core())
    }

    /// Gives whole free pages back to the OS; they read as zeros and are faulted in again when used. For lazily
    /// committed pools. Bytes given back. O(segment / 16 KiB).
    pub fn trim(&self) -> usize {
        self.core().trim()
    }

    /// Runs `f` with the right to use the reserve when all else is exhausted. Scopes nest; they end also by panic.
    pub fn critical<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Scope<'a>(&'a Core);
        impl Drop for Scope<'_> {
            fn drop(&mut self) {
                self.0.critical(false);
            }
        }
        self.core().critical(true);
        let _scope = Scope(self.core());
        f()
    }

    /// Gives up what the calling thread keeps for its next requests, as if it ended: nothing of it is stranded then, however
    /// long the thread sleeps. It may go on as before. O(slabs of the thread).
    pub fn relinquish(&self) {
        self.core().relinquish();
    }

    /// Adds a callback for exhaustion: it gets the bytes needed and `argument`, frees what it can and says whether it
    /// freed anything. Called on the thread that found the pool exhausted, outside all locks, never from within itself,
    /// and not for requests with `try`.
    ///
    /// # Errors
    /// There are as many callbacks as a pool takes, 8 of both kinds, already: that number.
    ///
    /// # Safety
    /// `callback` may be called with `argument` from any thread until the pool is dropped.
    pub unsafe fn on_reclaim(&self, callback: Callback, argument: *mut u8) -> Result<(), usize> {
        if self.core().on_reclaim(0, callback, argument) { Ok(()) } else { Err(front::CALLBACKS) }
    }

    /// As [`Pool::on_reclaim`], for a callback that is also called when fewer than `level` bytes are free: once, with the
    /// bytes that are missing, and again after an eighth more than `level` was free meanwhile. Called behind a request that was
    /// served; noticed up to a slot (4 to 64 KiB), or a 4096th of the segment, late. What it says then counts for nothing.
    ///
    /// # Errors
    /// As [`Pool::on_reclaim`].
    ///
    /// # Safety
    /// As for [`Pool::on_reclaim`].
    pub unsafe fn on_low(&self, level: usize, callback: Callback, argument: *mut u8) -> Result<(), usize> {
        if self.core().on_reclaim(level, callback, argument) { Ok(()) } else { Err(front::CALLBACKS) }
    }

    /// Why a request for `layout` could not be served now, and what would help; a verdict also says so when it could.
    /// Allocates nothing. O(segment / 256 bytes / 64).
    ///
    /// ```
    /// use std::alloc::Layout;
    /// let pool = mempool::Pool::builder().segment(4 << 20).build()?;
    /// let verdict = pool.verdict(Layout::from_size_align(8 << 20, 16)?);
    /// assert_eq!(verdict.why(), mempool::Why::TooLarge);
    /// assert!(verdict.to_string().contains("MEMPOOL_SEGMENT="));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn verdict(&self, layout: Layout) -> Verdict<'_> {
        self.core().verdict(&Request { size: layout.size(), align: layout.align(), zeroed: false })
    }

    /// What was asked for with `try` and not granted.
    #[must_use]
    pub fn shortfalls(&self) -> Shortfalls {
        self.core().granted.short
    }

    /// What was got of what was asked for at init, in bytes.
    #[must_use]
    pub fn granted(&self) -> Granted {
        self.core().granted
    }

    /// The configuration that the pool was made with.
    #[must_use]
    pub fn values(&self) -> &crate::config::Values {
        &self.core().config
    }

    /// Tells the process's list of pools about this one: thread exits and forks are handled from now on.
    pub(crate) fn enlist(&self) {
        front::enlist(self.core());
        front::watch_threads(self.core());
    }
}
