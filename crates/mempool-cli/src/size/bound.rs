//! A segment that suffices for certain, whatever the order of requests and frees.
//!
//! At any one moment let there be `S` slabs and heap pages with an object in them, all of at most one slot of `s` fragments; `R` runs
//! of single objects, `L` fragments together; and `T` threads, each with a local heap of `h` fragments and, of each of `K` classes, one
//! current slab that may be empty. All other empty slabs, and runs that are parked, are taken back before anything is refused.
//! Each slab that stays has an object of its class, so `S` is at most the sum of the most objects that there ever were at once of each class, and
//! at most the number that there were of all classes together.
//!
//! `T` is the most threads at once that had asked the pool for something and not ended, which it counts (`board::THREADS`). A local heap stays when its
//! thread ends, for the next one, and an entry of the directory of threads is used for the first time only when there are more threads at once than
//! ever before (`Threads::claim`), so there are never more than `T`. A thread that has none, because there are `max_threads` already, because
//! there was no room, or because it has ended but for its destructors, uses the shared one. That lies in the metadata, and keeps no slab that
//! is empty when something is refused: its own go back then, current ones, too. So it adds nothing here; what it serves is in `S`, `R` and `L`
//! like anybody's.
//!
//! With `S' = S + T K`:
//!
//! *A slab is refused* when no slot is wholly free. A run of `l` fragments touches at most `l / s + 2` slots. So the data have at most
//!
//! `A = s (S' + 2 R + 2 T) + L + T h` fragments.
//!
//! An object of a named cache is an item or an array. If none of a cache is larger than `s / 4`, each of its slabs is at most one slot, and counts in
//! `S`. Otherwise a slab may be two slots or one object, and begins at a slot or at a multiple of its alignment, which is no more than the object:
//! each object counts in `R` with `m = max(2 s, its bytes + s)`, the thread's current slabs too, and `n + a` is at most `2 m`. A cache has two classes.
//!
//! *A run of `n` fragments at a multiple of `a` is refused* when each gap between runs, slabs and local heaps has fewer than `n + a - 1`, and there
//! is one gap more than these:
//!
//! `B = s S' + L + T h + (S' + R + T + 1) (n + a - 2)` fragments.
//!
//! One slot more than the larger of both refuses neither (`A` alone where the program has no such runs). This holds for every placement
//! that refuses only when nothing fits, so for this one. Little less can be promised: J. M. Robson ("Bounds for some functions
//! concerning dynamic storage allocation", Journal of the ACM 21(3), 1974) shows that against any allocator that does not move objects
//! some program with `B` live bytes in objects of up to `m` units needs about `B log2(m) / 2`. Slots grow with the segment, so the
//! smallest segment is looked for that has room for its own bound. The report calls `S'` S and `n + a - 2` g.
#![allow(unsafe_code)]

use mempool::Pool;
use mempool::config::{Commit, Config, Lock, SEGMENT_LEAST, SEGMENT_MOST, SETTINGS};
use mempool::process::board;

use crate::settings;
use crate::watch::Area;

/// Bytes of a fragment.
const FRAGMENT: usize = 256;
/// Bytes of the smallest object.
const UNIT: f64 = 16.0;

/// The formula, for the report.
pub const FORMULA: &str = "max(s (S + 2 R + 2 T) + L + T h, s S + L + T h + (S + R + T + 1) g) + s";

/// The figures behind the bound, and it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bound {
    /// Bytes of a slot: what a slab has at most.
    pub slot: usize,
    /// Slabs, at most.
    pub slabs: usize,
    /// Those of them that may be empty: a current one per thread and class.
    pub empty: usize,
    /// Runs of single objects, at most, and their bytes.
    pub runs: usize,
    /// Bytes of these.
    pub run_bytes: usize,
    /// Bytes that any gap is shorter than.
    pub gap: usize,
    /// Threads with a local heap, at most.
    pub threads: usize,
    /// Bytes of the local heap of each.
    pub local: usize,
    /// Bytes of a segment that suffices, metadata included; 0 when none can be that large.
    pub segment: usize,
    /// What any allocator must be ready to need, by Robson.
    pub robson: usize,
}

/// Settings that decide how large a local heap is, what is a slab, and what most requests may not have.
const SHAPING: [&str; 7] =
    ["small", "reserve", "heap_max_alloc", "max_threads", "max_caches", "guard_pages", "slot_shift"];

/// Computes the bound for what `area` saw, on pools of the configuration `given` but for their segment.
pub fn of(area: &Area<'_>, given: &Config) -> Bound {
    let (mut bound, mut guess) = (Bound::default(), SEGMENT_LEAST + given.values().reserve);
    while guess <= SEGMENT_MOST {
        let next = (guess + guess / 16).next_multiple_of(64 << 10);
        // There may be no room for so many caches.
        let Some(pool) = probe(guess, given) else {
            guess = next;
            continue;
        };
        let need;
        (bound, need) = data(area, &pool);
        let stats = pool.stats();
        if need <= stats.open - stats.reserve {
            return Bound { segment: guess, ..bound };
        }
        // No slot gets smaller in a larger segment.
        guess = (need + stats.reserve).next_multiple_of(64 << 10).max(next);
    }
    bound
}

fn probe(segment: usize, given: &Config) -> Option<Pool> {
    let mut config = Config::new();
    for setting in SETTINGS.iter().filter(|setting| SHAPING.contains(&setting.name)) {
        config.apply(setting.flag.as_bytes(), settings::value(given, setting.name).as_bytes()).ok()?;
    }
    config.segment(segment).commit(Commit::Lazy).lock(Lock::Off).build().ok()
}

/// The figures in a segment like that of `pool`, and the bytes of data that suffice.
fn data(area: &Area<'_>, pool: &Pool) -> (Bound, usize) {
    let most = |holder| area.most(holder).0 as usize;
    let (slot, threads) = (pool.door_slot(), area.get(board::THREADS) as usize);
    let used = (0..board::CACHES).chain([board::HEAP]).filter(|&holder| most(holder) > 0);
    let (mut classes, mut sum) = used.fold((0, 0), |(classes, sum), holder| (classes + 1, sum + most(holder)));
    let (runs, run_bytes) = area.most(board::RUNS);
    let (mut runs, mut run_bytes) = (runs as usize, run_bytes as usize);
    let mut gap = if runs == 0 { 0 } else { area.get(board::LARGEST_RUN).saturating_sub(1) as usize * FRAGMENT };
    let caches = super::holders().filter(|&holder| holder == board::CACHES || holder >= board::NAMED);
    for cache in caches.filter(|&cache| most(cache) > 0) {
        let largest = area.cache(cache).1 as usize;
        if largest * 4 <= slot * FRAGMENT {
            (classes, sum) = (classes + 2, sum + most(cache));
        } else {
            let (more, each) = (most(cache) + 2 * threads, (largest + slot * FRAGMENT).max(2 * slot * FRAGMENT));
            (runs, run_bytes, gap) = (runs + more, run_bytes + more * each, gap.max(2 * each));
        }
    }
    let (objects, bytes) = area.most(board::ALL);
    let empty = threads * classes;
    let slabs = sum.min(objects as usize) + empty;
    // Makes the local heap of this thread.
    if let Ok(object) = pool.try_alloc(std::alloc::Layout::new::<u64>()) {
        // SAFETY: allocated above, not used afterwards.
        unsafe { pool.free(object) };
    }
    let local = pool.stats().local_heap_bytes;
    let (slot, held) = (slot * FRAGMENT, run_bytes + threads * local);
    let slabs_refused = slot * (slabs + 2 * runs + 2 * threads) + held;
    let run_refused = slot * slabs + held + (slabs + runs + threads + 1) * gap;
    let largest = area.get(board::LARGEST).max(1) as f64;
    let robson = if objects == 0 { 0 } else { (bytes as f64 * (largest / UNIT).log2().max(0.0) / 2.0) as usize };
    let bound = Bound { slot, slabs, empty, runs, run_bytes, gap, threads, local, segment: 0, robson };
    (bound, slabs_refused.max(run_refused) + slot)
}
