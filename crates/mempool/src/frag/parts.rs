//! Where the room's words lie, and the only code of the room that turns pointers into references.
//!
//! Everything is an array of atomics, reached by index. An index beyond an array reads as "in use" or 0
//! and writes nothing: no path here can panic.
#![allow(unsafe_code)]

use super::{CONTROL_WORDS, Frag};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::units::{CELL_BITS, FRAGMENT, LEAF_CELLS, tree_nodes};

/// The arrays of a page-frag tier. All of them begin as zeroes.
#[derive(Clone, Copy)]
pub struct FragParts {
    /// `cells` words: a bit for each fragment that is in use. The truth.
    pub busy: *const AtomicU64,
    /// `cells` words: a bit for the first fragment of each run.
    pub first: *const AtomicU64,
    /// `cells` words: a bit for the last fragment of each run.
    pub last: *const AtomicU64,
    /// `cells` lengths: that of the run of 64 fragments or more which begins in the cell, or 0.
    pub length: *const AtomicU32,
    /// `cells / 64`, rounded up, words: a bit for each page that was handed out since it was clean.
    pub touched: *const AtomicU64,
    /// `2 * tree_nodes(cells)` words: the guide.
    pub tree: *const AtomicU64,
    /// [`CONTROL_WORDS`] words: lock, counts, limits, dirty groups.
    pub control: *const AtomicU64,
    /// Cells; a multiple of [`LEAF_CELLS`].
    pub cells: usize,
    /// Address of fragment 0, a multiple of 4,096.
    pub base_address: usize,
}

impl FragParts {
    pub(super) fn busy(&self) -> &[AtomicU64] {
        // SAFETY: `Frag::new` was promised `cells` words that outlive the handle.
        unsafe { core::slice::from_raw_parts(self.busy, self.cells) }
    }

    pub(super) fn first(&self) -> &[AtomicU64] {
        // SAFETY: as `busy`.
        unsafe { core::slice::from_raw_parts(self.first, self.cells) }
    }

    pub(super) fn last(&self) -> &[AtomicU64] {
        // SAFETY: as `busy`.
        unsafe { core::slice::from_raw_parts(self.last, self.cells) }
    }

    pub(super) fn length(&self) -> &[AtomicU32] {
        // SAFETY: as `busy`, with `cells` elements of 32 bits.
        unsafe { core::slice::from_raw_parts(self.length, self.cells) }
    }

    pub(super) fn touched(&self) -> &[AtomicU64] {
        // SAFETY: `Frag::new` was promised one bit per cell, in whole words.
        unsafe { core::slice::from_raw_parts(self.touched, self.cells.div_ceil(CELL_BITS)) }
    }

    /// `nodes` is `tree_nodes(cells)`, which takes too long to compute each time.
    #[inline]
    pub(super) fn tree(&self, nodes: usize) -> &[AtomicU64] {
        debug_assert_eq!(nodes, tree_nodes(self.cells));
        // SAFETY: `Frag::new` was promised two words per node.
        unsafe { core::slice::from_raw_parts(self.tree, 2 * nodes) }
    }

    pub(super) fn control(&self, word: usize) -> &AtomicU64 {
        let word = word.min(CONTROL_WORDS - 1);
        // SAFETY: `Frag::new` was promised `CONTROL_WORDS` words, and `word` is one of them.
        unsafe { &*self.control.add(word) }
    }

    /// Fragments, padding included.
    pub(super) const fn fragments(&self) -> usize {
        self.cells * CELL_BITS
    }

    /// The first fragment's address, in fragments.
    pub(super) const fn base(&self) -> usize {
        self.base_address / FRAGMENT
    }

    pub(super) const fn valid(&self) -> bool {
        self.cells > 0 && self.cells.is_multiple_of(LEAF_CELLS) && self.base_address.is_multiple_of(4096)
    }
}

// SAFETY: the pointers lead to atomics that outlive the handle (contract of `Frag::new`).
unsafe impl Send for FragParts {}
// SAFETY: as above; all access is atomic.
unsafe impl Sync for FragParts {}

impl Frag {
    /// The tier whose state lies in `parts`. Several handles to the same parts are the same tier.
    ///
    /// # Panics
    /// If `cells` or `base_address` of the parts break their rules.
    ///
    /// # Safety
    /// Each array of `parts` has the stated number of elements, all zero before the first use, aligned, and
    /// reached only as atomics and only by this tier for as long as the handle or a copy of it is used.
    #[must_use]
    pub const unsafe fn new(parts: FragParts) -> Frag {
        Frag::over(parts)
    }
}

/// Reads a word; `absent` where there is none.
#[inline]
pub(super) fn read(words: &[AtomicU64], at: usize, absent: u64) -> u64 {
    words.get(at).map_or(absent, |word| word.load(Ordering::Acquire))
}
