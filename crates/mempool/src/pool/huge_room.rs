//! Whether a segment has room for huge OS pages.
//!
//! The ends of metadata and data that are no whole huge OS page lie in small ones, which is no shortfall: no setting changes
//! it. But data without a single whole one would have nothing of what was asked for.

use super::{alignment, open_bytes, plan};
use crate::config::{Commit, Config, Wish};
use crate::error::InitError;

/// How far a segment that has room is looked for.
const STEPS: usize = 2048;

/// Whether the data that are there from the start surely hold a whole transparent huge OS page of `size` bytes. What
/// does not ask for any, or takes those that were set aside, has no need of room.
///
/// # Errors
/// They do not, with the least segment that does; or the segment is too small for a pool.
#[cold]
#[inline(never)]
pub fn check(config: &Config, page: usize, size: usize) -> Result<(), InitError> {
    let values = config.values();
    let none = size == 0 || values.huge_pages == Wish::Off || values.commit == Commit::Lazy;
    if none || fits(config, page, size)? {
        return Ok(());
    }
    let bytes = values.segment;
    let step = (size / 2).max(page).max(1);
    let more = (1..STEPS).filter_map(|steps| bytes.next_multiple_of(step).checked_add((steps - 1) * step));
    let least = more.filter(|more| *more > bytes).find(|more| fits(&config.segment(*more), page, size) == Ok(true));
    Err(InitError::NoHugeRoom { bytes, size, least: least.unwrap_or(0) })
}

fn fits(config: &Config, page: usize, size: usize) -> Result<bool, InitError> {
    // Neither is 0; where the compiler sees that, no division can panic.
    let (page, size) = (page.max(1), size.max(1));
    let bytes = config.growth_limit().next_multiple_of(page);
    let guard = if config.values().guard_pages { page } else { 0 };
    let areas = plan(config, bytes, guard, page)?;
    let start = guard + areas.data as usize;
    let open = open_bytes(config, &areas, bytes);
    // Where the addresses may begin anywhere, the worst place counts.
    let skip = match alignment(&areas, bytes, page) % size {
        0 => start.next_multiple_of(size) - start,
        _ => size - page.min(size),
    };
    Ok(open >= skip.saturating_add(size))
}
