//! How large a pool would have to be: the number that a verdict ends with.
//!
//! A program that does the same once more leaves the same runs in use, up to the same place; behind them must be what is asked for,
//! wherever a multiple of its alignment lies, since of a segment's own address nothing is known. Metadata grows with the data. An
//! eighth more is margin: a larger pool has larger slots, of which threads keep more.
//!
//! Where what will be asked for next is as unknown as it was this time, the number is a step that is worth another start.

use super::core::Core;
use crate::config::SEGMENT_MOST;
use crate::units::FRAGMENT;

/// How much more there must be at least.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// No more than what is missing.
    None,
    /// A quarter more.
    Quarter,
    /// Twice as much: much is stranded, and more will be, since slots may be twice as large in a pool that is larger.
    Twice,
}

/// Rounded up to a number that is easily read, by at most a 64th.
const fn round(bytes: usize) -> usize {
    let unit = match (bytes / 64).checked_ilog2() {
        Some(log) if log > 16 => 1 << log,
        _ => 1 << 16,
    };
    bytes.next_multiple_of(unit)
}

/// Bytes within which `size` bytes have room at a multiple of `align`, wherever they begin.
const fn spread(size: usize, align: usize) -> usize {
    size.saturating_add(align.saturating_sub(FRAGMENT))
}

impl Core {
    /// A segment that has room for what is in use up to `extent` bytes of the data, and behind it for `size` bytes at a multiple of
    /// `align`; larger than what there is by `step`. What there is: all that the pool may grow to, or with `open` what it has
    /// grown to. None when no segment is large enough.
    pub(super) fn larger_segment(
        &self,
        extent: usize,
        size: usize,
        align: usize,
        step: Step,
        open: bool,
    ) -> Option<usize> {
        let all = self.segment_bytes();
        let now = if open { all - (self.data_len - self.frag.open_end() * FRAGMENT) } else { all };
        let data = extent.saturating_add(spread(size, align));
        if data > SEGMENT_MOST {
            return None;
        }
        // Of the metadata these areas grow, by so much for each slot.
        let growing = (self.layout.metadata_end - self.layout.touched).div_ceil(self.layout.slot_count.max(1));
        let slots = (data.saturating_sub(self.data_len) >> self.layout.slot_shift) + 1;
        let enough = data + (all - self.data_len) + growing as usize * slots;
        let least = match step {
            Step::None => 0,
            Step::Quarter => now + now / 4,
            Step::Twice => 2 * now,
        };
        // A pool that may grow so far and no farther can't begin with more.
        let most = match self.config.max_segment {
            limit if open && limit > 0 => limit,
            _ => SEGMENT_MOST,
        };
        let segment = round(least.max(enough + enough / 8)).min(most);
        (enough <= SEGMENT_MOST && segment > now).then_some(segment)
    }

    /// A reserve that has room for `size` bytes more, at a multiple of `align`; None where there is none yet, or would be little else.
    pub(super) fn larger_reserve(&self, size: usize, align: usize) -> Option<usize> {
        let enough = self.config.reserve.saturating_add(spread(size, align));
        let reserve = round(enough.saturating_add(enough / 8).min(SEGMENT_MOST));
        (self.frag.reserve() > 0 && reserve <= self.config.segment / 4 * 3).then_some(reserve)
    }
}
