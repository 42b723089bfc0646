//! The guide: a radix tree of free lengths above the busy bits.
//!
//! A leaf describes 8 cells (512 fragments, one cache line of busy bits); an inner node describes 8 nodes
//! of the level below. A node holds three lengths in fragments: free at its start, longest free anywhere
//! inside, free at its end. A node that is free as a whole has all three equal to what it covers. Fragments
//! outside the open range count as not free.
//!
//! The tree is written under the room's lock alone, with relaxed stores. It may be read without it, as a
//! hint: a torn node misleads, and then the claim in the busy bits fails.
//!
//! Limit: a length has 42 bits (1 PiB), and there are at most [`LEVELS`] levels.

use super::Frag;
use crate::bitmap::{step, word};
use crate::sync::{AtomicU64, Ordering};
use crate::units::{CELL_BITS, FAN_OUT, LEAF_CELLS};

/// Most levels of a tree: 8^11 leaves of 512 fragments are 2^42 fragments.
pub(super) const LEVELS: usize = 12;
/// Fragments that a leaf covers.
pub(super) const LEAF: usize = LEAF_CELLS * CELL_BITS;
const FIELD: u32 = 42;
const FIELD_MASK: u64 = (1 << FIELD) - 1;

/// Free lengths of a stretch of fragments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub start: usize,
    pub max: usize,
    pub end: usize,
}

impl Node {
    fn pack(self) -> (u64, u64) {
        let (start, max, end) = (self.start as u64, self.max as u64, self.end as u64);
        (start | end << FIELD, max | end >> (64 - FIELD) << FIELD)
    }

    fn unpack(a: u64, b: u64) -> Node {
        let end = (a >> FIELD) | (b >> FIELD) << (64 - FIELD);
        Node { start: (a & FIELD_MASK) as usize, max: (b & FIELD_MASK) as usize, end: end as usize }
    }

    /// This stretch of `length` fragments so far, followed by one of `covers` fragments.
    fn then(self, length: usize, next: Node, covers: usize) -> Node {
        let start = if self.start == length { length + next.start } else { self.start };
        let end = if next.start == covers { self.end + covers } else { next.end };
        Node { start, max: self.max.max(next.max).max(self.end + next.start), end }
    }
}

/// Where the levels of the tree lie; level 0 is the leaves.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub levels: usize,
    /// Nodes in all, as [`crate::units::tree_nodes`] has it.
    nodes: usize,
    /// Node index of the first node of each level.
    offset: [usize; LEVELS],
    /// Nodes of each level.
    count: [usize; LEVELS],
}

impl Shape {
    pub(super) const fn new(cells: usize) -> Shape {
        let mut shape = Shape { levels: 0, nodes: 0, offset: [0; LEVELS], count: [0; LEVELS] };
        let mut count = cells.div_ceil(LEAF_CELLS);
        let mut offset = 0;
        while shape.levels < LEVELS {
            shape.offset[shape.levels] = offset;
            shape.count[shape.levels] = count;
            shape.levels += 1;
            offset += count;
            shape.nodes = offset;
            if count <= 1 {
                break;
            }
            count = count.div_ceil(FAN_OUT);
        }
        shape
    }

    /// Nodes of a level; 0 for one that does not exist.
    #[inline]
    pub(super) fn count(&self, level: usize) -> usize {
        self.count.get(level).copied().unwrap_or(0)
    }

    /// Nodes of a level that begin before fragment `end`.
    fn count_to(&self, level: usize, end: usize) -> usize {
        // By a shift, since a division could panic, as far as the compiler knows.
        let shift = Self::span(level).trailing_zeros();
        self.count(level).min((end + Self::span(level) - 1).checked_shr(shift).unwrap_or(0))
    }

    /// Fragments that a node of `level` covers, unless it is the last.
    #[inline]
    pub(super) fn span(level: usize) -> usize {
        LEAF << (3 * level)
    }
}

/// The open range of fragments, `low..high`.
#[derive(Clone, Copy)]
pub(super) struct Open {
    pub low: usize,
    pub high: usize,
}

impl Open {
    /// The bits of `cell` that lie outside the range.
    #[inline]
    pub(super) fn closed(self, cell: usize) -> u64 {
        let at = cell * CELL_BITS;
        if at >= self.low && at + CELL_BITS <= self.high {
            return 0;
        }
        let from = self.low.saturating_sub(at).min(CELL_BITS);
        let to = self.high.saturating_sub(at).min(CELL_BITS);
        if from >= to { u64::MAX } else { !word::mask(from as u32, (to - from) as u32) }
    }
}

impl Frag {
    /// Index of a node's first word.
    #[inline]
    fn node_at(&self, level: usize, index: usize) -> usize {
        2 * (self.shape.offset.get(level).copied().unwrap_or(0) + index)
    }

    /// The words of the tree.
    #[inline]
    fn tree(&self) -> &[AtomicU64] {
        self.parts.tree(self.shape.nodes)
    }

    #[inline]
    pub(super) fn node(&self, level: usize, index: usize) -> Node {
        super::visited();
        let at = self.node_at(level, index);
        match self.tree().get(at..at + 2) {
            Some([a, b]) => Node::unpack(a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)),
            _ => Node::default(),
        }
    }

    /// Stores a node without a look at what was there: a look would bring the memory once more.
    fn write_node(&self, level: usize, index: usize, node: Node) {
        let at = self.node_at(level, index);
        if let Some([a, b]) = self.tree().get(at..at + 2) {
            let (start, max) = node.pack();
            a.store(start, Ordering::Relaxed);
            b.store(max, Ordering::Relaxed);
        }
    }

    /// Stores a node; says whether it was another one before.
    #[inline]
    fn set_node(&self, level: usize, index: usize, node: Node) -> bool {
        let at = self.node_at(level, index);
        let Some([a, b]) = self.tree().get(at..at + 2) else { return false };
        let (start, max) = node.pack();
        let changed = a.load(Ordering::Relaxed) != start || b.load(Ordering::Relaxed) != max;
        if changed {
            a.store(start, Ordering::Relaxed);
            step();
            b.store(max, Ordering::Relaxed);
            step();
        }
        changed
    }

    /// The cells of a leaf: where each begins, and the bits that a taker of the open range must not take.
    #[inline]
    pub(super) fn leaf_cells(&self, open: Open, leaf: usize) -> impl Iterator<Item = (usize, u64)> {
        let from = leaf * LEAF_CELLS;
        let whole = leaf * LEAF >= open.low && (leaf + 1) * LEAF <= open.high;
        let words = self.parts.busy().get(from..from + LEAF_CELLS).unwrap_or(&[]);
        words.iter().enumerate().map(move |(nth, word)| {
            super::visited();
            let closed = if whole { 0 } else { open.closed(from + nth) };
            // Acquire: who sees the bits of a claim outside the lock sees that it was announced.
            ((from + nth) * CELL_BITS, word.load(Ordering::Acquire) | closed)
        })
    }

    /// A leaf, computed from the bits.
    pub(super) fn leaf_from_bits(&self, open: Open, leaf: usize) -> Node {
        let (mut start, mut max, mut run) = (None, 0, 0);
        for (_, bits) in self.leaf_cells(open, leaf) {
            if bits == 0 {
                run += CELL_BITS;
                continue;
            }
            let closed = run + word::low_zeros(bits) as usize;
            start = start.or(Some(closed));
            max = max.max(closed);
            run = word::high_zeros(bits) as usize;
            // Only then can there be a longer gap that touches neither end of the cell.
            if bits.count_zeros() as usize > max + run {
                max = max.max(word::longest_zeros(bits) as usize);
            }
        }
        Node { start: start.unwrap_or(run), max: max.max(run), end: run }
    }

    /// The nodes below node `index` of `level`: (index, where it begins, what it covers, lengths).
    #[inline]
    pub(super) fn children(&self, level: usize, index: usize) -> impl Iterator<Item = (usize, usize, usize, Node)> {
        let below = level.saturating_sub(1);
        let from = index * FAN_OUT;
        let count = if level == 0 { 0 } else { FAN_OUT.min(self.shape.count(below).saturating_sub(from)) };
        let (words, span) = (self.node_at(below, from), Shape::span(below));
        let all = self.parts.fragments();
        let words = self.tree().get(words..words + 2 * count).unwrap_or(&[]);
        words.chunks_exact(2).enumerate().map(move |(nth, pair)| {
            super::visited();
            let at = (from + nth) * span;
            let node = match pair {
                [a, b] => Node::unpack(a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)),
                _ => Node::default(),
            };
            (from + nth, at, span.min(all.saturating_sub(at)), node)
        })
    }

    /// An inner node, computed from its children.
    pub(super) fn node_from_children(&self, level: usize, index: usize) -> Node {
        let mut length = 0;
        self.children(level, index).fold(Node::default(), |node, (_, _, covers, child)| {
            let joined = node.then(length, child, covers);
            length += covers;
            joined
        })
    }

    /// Computes the leaves `from..=to` and everything above them anew. Under the lock. An ancestor is
    /// computed only if one of its children changed.
    pub(super) fn refresh(&self, open: Open, from: usize, to: usize) {
        let (mut from, mut to) = (from, to.min(self.shape.count(0).saturating_sub(1)));
        let mut changed = false;
        for leaf in from..=to {
            changed |= self.set_node(0, leaf, self.leaf_from_bits(open, leaf));
        }
        for level in 1..self.shape.levels {
            if !changed {
                return;
            }
            (from, to) = (from / FAN_OUT, to / FAN_OUT);
            changed = false;
            for index in from..=to {
                changed |= self.set_node(level, index, self.node_from_children(level, index));
            }
        }
    }

    /// Computes the whole tree anew, up to the end of `open`. Under the lock, or alone.
    pub(super) fn rebuild(&self, open: Open) {
        for level in 0..self.shape.levels {
            for index in 0..self.shape.count_to(level, open.high) {
                let node =
                    if level == 0 { self.leaf_from_bits(open, index) } else { self.node_from_children(level, index) };
                self.set_node(level, index, node);
            }
        }
    }

    /// As [`Self::rebuild`], of a tree of zeros, when nothing is in use: what lies in the open range as a whole is not looked at.
    pub(super) fn build_free(&self, open: Open) {
        for level in 0..self.shape.levels {
            let span = Shape::span(level);
            // Behind the open range nothing is free, which is what zeros say: untouched memory stays untouched.
            for index in 0..self.shape.count_to(level, open.high) {
                let node = if index * span >= open.low && (index + 1) * span <= open.high {
                    Node { start: span, max: span, end: span }
                } else if level == 0 {
                    self.leaf_from_bits(open, index)
                } else {
                    self.node_from_children(level, index)
                };
                self.write_node(level, index, node);
            }
        }
    }

    /// The first node up to the end of `open` that does not say what the bits say, as (level, index).
    pub(super) fn wrong_node(&self, open: Open) -> Option<(usize, usize)> {
        let nodes = |level| (0..self.shape.count_to(level, open.high)).map(move |i| (level, i));
        let all = (0..self.shape.levels).flat_map(nodes);
        all.into_iter().find(|&(level, i)| {
            let right = if level == 0 { self.leaf_from_bits(open, i) } else { self.node_from_children(level, i) };
            self.node(level, i) != right
        })
    }
}
