//! Bitmaps of atomic cells: claiming, clearing and reading ranges of bits.
//!
//! A bitmap is a slice of `AtomicU64`; bit `i % 64` of cell `i / 64` belongs to item `i`; 1 means in
//! use, 0 means free. Any number of threads may claim and clear at once: a bit is only ever set by the
//! one read-modify-write that found it clear, so two claimers never both believe that they have it.
//!
//! Nothing here waits, sleeps or calls the operating system. A cell on which a compare-exchange fails is
//! *busy*, not full, and is looked at again at once; that always means that another thread got on.
//!
//! Limit: a claim of several cells that meets a bit of somebody else takes back what it has claimed.
//! Between the two, a third thread may see those bits as used. Whoever must know that nothing is free,
//! and not only that nothing was seen, counts such claims (the page-frag tier does).

pub mod word;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

use crate::sync::{AtomicU64, Ordering};
use word::{BITS, find_region, mask};

const CELL: usize = BITS as usize;

/// A point after a write at which a test may stop the thread for ever (by unwinding); nothing otherwise.
#[cfg(not(all(test, not(loom))))]
#[inline(always)]
pub(crate) fn step() {}
#[cfg(all(test, not(loom)))]
pub(crate) use tests::{step, stop_after};

/// The cells that `start..start + len` touches, with the bits in each.
struct Pieces {
    at: usize,
    left: usize,
}

impl Iterator for Pieces {
    type Item = (usize, u64);

    #[inline]
    fn next(&mut self) -> Option<(usize, u64)> {
        if self.left == 0 {
            return None;
        }
        let (cell, bit) = (self.at / CELL, self.at % CELL);
        let len = self.left.min(CELL - bit);
        self.at += len;
        self.left -= len;
        Some((cell, mask(bit as u32, len as u32)))
    }
}

#[inline]
fn pieces(start: usize, len: usize) -> Pieces {
    Pieces { at: start, left: len }
}

/// Claims `num` consecutive items of one cell, of which the first `max_items` exist.
///
/// Returns the lowest position that fits, or `None` if none does. Concurrent callers never overlap; a
/// failed exchange is tried again. Lock-free: each retry means that another thread changed the cell.
#[must_use]
pub fn cell_alloc(cell: &AtomicU64, num: u32, max_items: u32) -> Option<u32> {
    let absent = !mask(0, max_items);
    let mut seen = cell.load(Ordering::Relaxed);
    loop {
        let at = find_region(seen | absent, num)?;
        // Acquire pairs with the Release of `clear`: the last user is done with the items.
        match cell.compare_exchange_weak(seen, seen | mask(at, num), Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                step();
                return Some(at);
            }
            Err(now) => seen = now,
        }
    }
}

/// Claims `n` consecutive items of the first `num_items` of a bitmap, wherever they begin and end.
///
/// Returns the index of the first item, or `None` if no free region was seen. Never waits. First fit:
/// linear in the size of the bitmap.
#[must_use]
pub fn alloc(bitmap: &[AtomicU64], num_items: usize, n: usize) -> Option<usize> {
    let end = num_items.min(bitmap.len() * CELL);
    if n == 0 || n > end {
        return None;
    }
    let mut at = 0;
    loop {
        let start = next_clear(bitmap, at, end)?;
        if end - start < n {
            return None;
        }
        match next_set(bitmap, start, start + n) {
            Some(used) => at = used + 1,
            // On a conflict the bits have changed under us: look again from the same place.
            None if claim(bitmap, start, n).is_ok() => return Some(start),
            None => at = start,
        }
    }
}

/// Claims `n_cells` consecutive whole cells among those that `num_items` items fill.
///
/// Returns the index of the first item, or `None`. One cell works like several. Never waits.
#[must_use]
pub fn alloc_cells(bitmap: &[AtomicU64], num_items: usize, n_cells: usize) -> Option<usize> {
    let cells = bitmap.get(..(num_items / CELL).min(bitmap.len()))?;
    if n_cells == 0 {
        return None;
    }
    let mut first = 0;
    while first + n_cells <= cells.len() {
        let group = cells.get(first..first + n_cells)?;
        match group.iter().rposition(|cell| cell.load(Ordering::Relaxed) != 0) {
            Some(used) => first += used + 1,
            None if claim(bitmap, first * CELL, n_cells * CELL).is_ok() => return Some(first * CELL),
            None => {}
        }
    }
    None
}

/// Claims the items `start..start + len`, all or none.
///
/// # Errors
/// The index of an item that was in use (or does not exist). Nothing stays claimed then: the rollback
/// clears only bits that this very call has set.
pub fn claim(bitmap: &[AtomicU64], start: usize, len: usize) -> Result<(), usize> {
    for (cell, bits) in pieces(start, len) {
        let Some(word) = bitmap.get(cell) else {
            clear(bitmap, start, (cell * CELL).max(start) - start);
            return Err(cell * CELL);
        };
        // Acquire pairs with the Release of `clear`. Release lets one who sees these bits see also what
        // this thread announced before the claim (the count of direct claimers of the page-frag tier).
        let before = word.fetch_or(bits, Ordering::AcqRel);
        step();
        if before & bits != 0 {
            roll_back(bitmap, start, cell, bits & !before);
            return Err(cell * CELL + (before & bits).trailing_zeros() as usize);
        }
    }
    Ok(())
}

/// Takes back `own` in `cell` and everything from `start` up to that cell.
#[cold]
#[inline(never)]
fn roll_back(bitmap: &[AtomicU64], start: usize, cell: usize, own: u64) {
    if let Some(word) = bitmap.get(cell) {
        word.fetch_and(!own, Ordering::Release);
        step();
    }
    clear(bitmap, start, (cell * CELL).max(start) - start);
}

/// Clears the items `start..start + len`, which the caller has claimed.
pub fn clear(bitmap: &[AtomicU64], start: usize, len: usize) {
    for (cell, bits) in pieces(start, len) {
        if let Some(word) = bitmap.get(cell) {
            // Release pairs with the Acquire of a later claim.
            if bits == u64::MAX {
                // No bit of it is anybody else's, whose change could be lost: a claim that fails here has set and takes back none.
                word.store(0, Ordering::Release);
            } else {
                word.fetch_and(!bits, Ordering::Release);
            }
            step();
        }
    }
}

/// Whether item `at` is in use. An item that does not exist is not.
#[inline]
#[must_use]
pub fn test(bitmap: &[AtomicU64], at: usize) -> bool {
    bitmap.get(at / CELL).is_some_and(|word| word.load(Ordering::Acquire) >> (at % CELL) & 1 != 0)
}

/// The first item of `from..end` whose bit differs from those of `flip`.
#[inline]
fn next(bitmap: &[AtomicU64], from: usize, end: usize, flip: u64) -> Option<usize> {
    if from >= end {
        return None;
    }
    let mut below = mask(0, (from % CELL) as u32);
    for (cell, word) in bitmap.iter().enumerate().take(end.div_ceil(CELL)).skip(from / CELL) {
        let bits = (word.load(Ordering::Acquire) ^ flip) & !below;
        if bits != 0 {
            let at = cell * CELL + bits.trailing_zeros() as usize;
            return (at < end).then_some(at);
        }
        below = 0;
    }
    None
}

/// The first item of `from..end` that is in use. Linear in the distance.
#[inline]
#[must_use]
pub fn next_set(bitmap: &[AtomicU64], from: usize, end: usize) -> Option<usize> {
    next(bitmap, from, end, 0)
}

/// The first item of `from..end` that is free. Linear in the distance.
#[inline]
#[must_use]
pub fn next_clear(bitmap: &[AtomicU64], from: usize, end: usize) -> Option<usize> {
    next(bitmap, from, end, u64::MAX)
}

/// The last item at or below `from` that is in use. Linear in the distance.
#[must_use]
pub fn prev_set(bitmap: &[AtomicU64], from: usize) -> Option<usize> {
    let own = mask(0, (from % CELL) as u32 + 1);
    for (cell, word) in bitmap.iter().enumerate().take(from / CELL + 1).rev() {
        let keep = if cell == from / CELL { own } else { u64::MAX };
        let bits = word.load(Ordering::Acquire) & keep;
        if bits != 0 {
            return Some(cell * CELL + (BITS - 1 - bits.leading_zeros()) as usize);
        }
    }
    None
}

/// Items of `start..start + len` that are in use. Linear in `len`.
#[must_use]
pub fn count(bitmap: &[AtomicU64], start: usize, len: usize) -> usize {
    let ones = |(cell, bits): (usize, u64)| {
        bitmap.get(cell).map_or(0, |word| (word.load(Ordering::Acquire) & bits).count_ones() as usize)
    };
    pieces(start, len).map(ones).sum()
}
