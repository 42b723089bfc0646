//! Searching the guide: gaps in address order, and which of them to take.
//!
//! A *gap* is a maximal stretch of free fragments in the open range; it may span cells, leaves and nodes.
//! One descent yields the gaps one after another: a node whose longest free stretch is too short is not
//! entered, but its ends are joined with those of its neighbours. So a search costs the height of the tree
//! for each gap it looks at, and it looks at few.
//!
//! Of the first 8 gaps that fit the shortest is taken, at its lowest address; an exact fit ends the search. What is to be
//! aligned, slabs above all, takes the first: all of them have one size, so that what is left of a gap serves the next.

use super::Frag;
use super::tree::{Node, Open};
use crate::bitmap::word;
use crate::units::CELL_BITS;

/// Fitting gaps to choose from.
const FITS: usize = 8;
/// Gaps that are long enough but have no aligned place, before the search is content with what it has or,
/// if that is nothing, looks for a longer gap.
const MISFITS: usize = 16;

/// What is wanted, and the best gap so far.
struct Choice {
    len: usize,
    /// In fragments, a power of two.
    align: usize,
    /// Address of fragment 0, in fragments.
    base: usize,
    /// (length of the gap, where the run would begin)
    best: Option<(usize, usize)>,
    fits: usize,
    misfits: usize,
    most_misfits: usize,
}

impl Choice {
    /// The lowest aligned place in a gap.
    fn place(&self, start: usize, len: usize) -> Option<usize> {
        let at = align_up(self.base, start, self.align)?;
        (at.checked_add(self.len)? <= start + len).then_some(at)
    }

    /// Looks at a gap of at least `self.len` fragments. True ends the search.
    fn offer(&mut self, start: usize, len: usize) -> bool {
        let Some(at) = self.place(start, len) else {
            self.misfits += 1;
            return self.misfits >= self.most_misfits;
        };
        self.fits += if self.align == 1 { 1 } else { FITS };
        if self.best.is_none_or(|(least, _)| len < least) {
            self.best = Some((len, at));
        }
        len == self.len || self.fits >= FITS
    }
}

/// The lowest fragment from `start` on whose address is a multiple of `align` fragments.
#[inline]
pub(super) fn align_up(base: usize, start: usize, align: usize) -> Option<usize> {
    let address = base.checked_add(start)?.checked_add(align - 1)? & !(align - 1);
    Some(address - base)
}

/// A walk over the gaps, in address order.
struct Walk<'a> {
    frag: &'a Frag,
    open: Open,
    /// Only gaps of at least this length are offered.
    need: usize,
    /// The gap that reaches up to where the walk is: where it began, its length so far.
    from: usize,
    length: usize,
    choice: &'a mut Choice,
}

impl Walk<'_> {
    /// `len` free fragments from `at` on, and what follows them is unknown.
    #[inline]
    fn extend(&mut self, at: usize, len: usize) {
        if self.length == 0 {
            self.from = at;
        }
        self.length += len;
    }

    /// `len` free fragments from `at` on, and what follows them is in use.
    #[inline]
    fn close(&mut self, at: usize, len: usize) -> bool {
        self.extend(at, len);
        let length = core::mem::take(&mut self.length);
        length >= self.need && self.choice.offer(self.from, length)
    }

    /// Walks a node that begins at `at`. True ends the search.
    fn node(&mut self, level: usize, index: usize, at: usize, covers: usize, node: Node) -> bool {
        if node.start >= covers {
            self.extend(at, covers);
            return false;
        }
        if node.max < self.need {
            // Without the lock a node may be torn, hence `min`.
            let end = node.end.min(covers);
            let stop = self.close(at, node.start);
            self.extend(at + covers - end, end);
            return stop;
        }
        if level == 0 { self.leaf(index) } else { self.inner(level, index) }
    }

    fn inner(&mut self, level: usize, index: usize) -> bool {
        let frag = self.frag;
        frag.children(level, index).any(|(child, at, covers, node)| self.node(level - 1, child, at, covers, node))
    }

    fn leaf(&mut self, leaf: usize) -> bool {
        let frag = self.frag;
        frag.leaf_cells(self.open, leaf).any(|(at, bits)| {
            if bits == 0 {
                self.extend(at, CELL_BITS);
                return false;
            }
            let (low, high) = (word::low_zeros(bits), word::high_zeros(bits));
            let stop = self.close(at, low as usize) || self.inside(at, bits, low, high);
            self.extend(at + CELL_BITS - high as usize, high as usize);
            stop
        })
    }

    /// The gaps of a cell that touch neither of its ends.
    fn inside(&mut self, at: usize, bits: u64, low: u32, high: u32) -> bool {
        if (bits.count_zeros() as usize) < self.need + (low + high) as usize {
            return false;
        }
        let bits = bits | word::mask(0, low) | word::mask(word::BITS - high, high);
        let mut fit = word::starts(bits, self.need as u32);
        while fit != 0 {
            let from = fit.trailing_zeros();
            let len = (bits >> from).trailing_zeros();
            if self.choice.offer(at + from as usize, len as usize) {
                return true;
            }
            // Below 64: the top bit is set, so the gap ends before it.
            fit &= u64::MAX << (from + len);
        }
        false
    }
}

impl Frag {
    fn search(&self, open: Open, need: usize, choice: &mut Choice) -> Option<usize> {
        let top = self.shape.levels.saturating_sub(1);
        let mut walk = Walk { frag: self, open, need, from: 0, length: 0, choice };
        let end = self.parts.fragments();
        if !walk.node(top, 0, 0, end, self.node(top, 0)) {
            walk.close(end, 0);
        }
        choice.best.map(|(_, at)| at)
    }

    /// Where a run of `len` fragments at a multiple of `align` should begin, as the guide knows it.
    ///
    /// Finds a place if the guide knows any. Under the lock the answer is exact; without it, a hint.
    /// O(log segment) for each gap looked at; only for a misfitting alignment may it be linear in the gaps.
    pub(super) fn find(&self, open: Open, len: usize, align: usize) -> Option<usize> {
        let base = self.parts.base();
        let fresh = |most_misfits| Choice { len, align, base, best: None, fits: 0, misfits: 0, most_misfits };
        let mut choice = fresh(if align == 1 { usize::MAX } else { MISFITS });
        let found = self.search(open, len, &mut choice);
        if found.is_some() || choice.misfits < MISFITS || align == 1 {
            return found;
        }
        // Many gaps, all misplaced: one that is longer by the alignment fits wherever it lies.
        let roomy = len.checked_add(align - 1)?;
        let found = self.search(open, roomy, &mut fresh(usize::MAX));
        found.or_else(|| self.search(open, len, &mut fresh(usize::MAX)))
    }
}
