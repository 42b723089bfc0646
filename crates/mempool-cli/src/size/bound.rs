//! A segment that suffices for certain, whatever the order of requests and frees.
//!
//! Let `P(c)` be the most objects that there ever were at once of size class `c`, `r(c)` the fragments of its slabs, and
//! let there never have been more than `R` objects with runs of their own, `L` fragments together. A slab that stays has
//! at least one object (empty ones are taken back before anything is refused), so there are at most `S = sum P(c)` slabs
//! of at most `M = sum P(c) r(c)` fragments; a heap page counts as one. When a run of `n` fragments at a multiple of `a` is refused, every gap
//! between runs has fewer than `n + a - 1` fragments, and there is one gap more than runs:
//!
//! `U = M + L + (S + R + T + 1) (n + a - 2) + T h`
//!
//! fragments, where `T` threads have local heaps of `h` fragments, and `n + a - 1` is that of the largest request or slab.
//! This holds for every placement policy that refuses only when no gap fits, so for this one. Nobody can promise much
//! less: J. M. Robson ("Bounds for some functions concerning dynamic storage allocation", Journal of the ACM 21(3),
//! 1974) shows that against any allocator that does not move objects some program with `B` live bytes in objects of up to
//! `m` units needs about `B log2(m) / 2`.
#![allow(unsafe_code)]

use mempool::Pool;
use mempool::config::{Commit, Config, Lock};
use mempool::process::board;

use crate::watch::Area;

/// Bytes of a fragment.
const FRAGMENT: usize = 256;
/// Bytes of the smallest object.
const UNIT: f64 = 16.0;

/// The formula, for the report.
pub const FORMULA: &str = "U = sum P(c) r(c) + L + (S + R + T + 1) (n + a - 2) + T h";

/// The figures behind the bound, and it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bound {
    /// Slabs, at most.
    pub slabs: usize,
    /// Their bytes.
    pub slab_bytes: usize,
    /// Runs of single objects, at most, and their bytes.
    pub runs: usize,
    /// Bytes of these.
    pub run_bytes: usize,
    /// Bytes that any gap is shorter than.
    pub gap: usize,
    /// Bytes of local heaps.
    pub local: usize,
    /// Bytes of a segment that suffices, metadata included; 0 when none can be that large.
    pub segment: usize,
    /// What any allocator must be ready to need, by Robson.
    pub robson: usize,
}

/// Computes the bound for what `area` saw with `threads` threads.
pub fn of(area: &Area<'_>, threads: usize) -> Bound {
    let mut bound = Bound::default();
    // Slab shapes depend on the segment, and that on them: twice is enough, since they only grow up to a size.
    let mut guess = 64 << 20;
    for _ in 0..8 {
        let Some(pool) = probe(guess) else { return Bound { segment: 0, ..bound } };
        bound = data(area, threads, &pool);
        let need =
            bound.slab_bytes + bound.run_bytes + bound.local + (bound.slabs + bound.runs + threads + 1) * bound.gap;
        let stats = pool.stats();
        if need <= stats.open && guess != 64 << 20 {
            bound.segment = guess;
            break;
        }
        guess = (need + stats.metadata + stats.metadata / 8 + need / 64).next_multiple_of(1 << 20);
    }
    bound
}

fn probe(segment: usize) -> Option<Pool> {
    Config::new().segment(segment).commit(Commit::Lazy).lock(Lock::Off).guard_pages(true).build().ok()
}

fn data(area: &Area<'_>, threads: usize, pool: &Pool) -> Bound {
    let most = |holder| area.most(holder).0 as usize;
    let slot = pool.door_slot();
    let (mut slabs, mut slab_bytes, mut longest) = (0, 0, 1);
    for class in 0..board::CACHES {
        let Some((_, run)) = pool.door_shape(class) else { continue };
        slabs += most(class);
        slab_bytes += most(class) * run * FRAGMENT;
        longest = if most(class) > 0 { longest.max(run + slot - 1) } else { longest };
    }
    // A heap page is a slot, and stays while it has an object.
    slabs += most(board::HEAP);
    slab_bytes += most(board::HEAP) * slot * FRAGMENT;
    longest = if most(board::HEAP) > 0 { longest.max(2 * slot - 1) } else { longest };
    let (runs, run_bytes) = area.most(board::RUNS);
    longest = longest.max(area.get(board::LARGEST_RUN) as usize);
    // Makes the local heap of this thread.
    if let Ok(object) = pool.try_alloc(std::alloc::Layout::new::<u64>()) {
        // SAFETY: allocated above, not used afterwards.
        unsafe { pool.free(object) };
    }
    let (objects, bytes) = area.most(board::ALL);
    let largest = area.get(board::LARGEST).max(1) as f64;
    Bound {
        slabs,
        slab_bytes,
        runs: runs as usize,
        run_bytes: run_bytes as usize,
        gap: (longest - 1) * FRAGMENT,
        local: threads * pool.stats().local_heap_bytes,
        segment: 0,
        robson: if objects == 0 { 0 } else { (bytes as f64 * (largest / UNIT).log2().max(0.0) / 2.0) as usize },
    }
}
