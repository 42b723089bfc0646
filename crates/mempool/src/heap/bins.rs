//! All free chunks of a page: bins for small ones, the tree for the others.
//!
//! Most free chunks are small, and of few sizes. One bin per size of up to [`BINNED`] granules holds them in
//! a doubly linked list, the last one freed first, so that inserting and deleting takes a few stores instead
//! of a walk down the tree, and the best fit is the first bin that isn't empty. Larger chunks are in the
//! [tree](super::tree). Together they are ordered by size, so the fit stays the best.
//!
//! A list node has the form of a tree node, `left` being the one before and `right` the one behind, and the
//! same check word. The sixteen heads (0xffff: empty) are four cold words of the descriptor.
//!
//! Whether a chunk is in its bin is seen at its node: a node is wiped when it leaves, and its neighbour must
//! point back. A damaged node looks like none, until somebody comes to it along the list and reports it. No
//! node is written unless the bits say that a free chunk begins there.

use super::page::{HEADS, Page};
use super::step;
use super::tree::{Damaged, NIL, Node, count};
use crate::sync::Ordering::Relaxed;

/// Largest size, in granules, that has a bin.
pub(super) const BINNED: u16 = 16;
/// Bits of a head.
const LANE: u16 = 16;
/// Heads in a word.
const LANES: u16 = 4;
/// Words of heads.
const WORDS: usize = (BINNED / LANES) as usize;

impl Page<'_> {
    fn head(&self, size: u16) -> u16 {
        let bin = size - 1;
        (self.slot().cold(HEADS + usize::from(bin / LANES)).load(Relaxed) >> (bin % LANES * LANE)) as u16
    }

    fn set_head(&self, size: u16, at: u16) {
        step();
        let (bin, shift) = (size - 1, (size - 1) % LANES * LANE);
        let word = self.slot().cold(HEADS + usize::from(bin / LANES));
        let others = word.load(Relaxed) & !(u64::from(u16::MAX) << shift);
        word.store(others | u64::from(at) << shift, Relaxed);
    }

    /// The smallest size from `size` on whose bin isn't empty.
    fn first_bin(&self, size: u16) -> Option<u16> {
        let bin = size - 1;
        let mut mask = u64::MAX << (bin % LANES * LANE);
        for w in usize::from(bin / LANES)..WORDS {
            // An empty bin is all ones, so inverted it has no bit.
            let taken = !self.slot().cold(HEADS + w).load(Relaxed) & mask;
            if taken != 0 {
                return Some(w as u16 * LANES + taken.trailing_zeros() as u16 / LANE + 1);
            }
            mask = u64::MAX;
        }
        None
    }

    /// The node at `at`, which a list of chunks of `size` granules leads to.
    fn listed(&self, at: u16, size: u16) -> Result<Node, Damaged> {
        let node = self.tree().read(at)?;
        if node.size == size && self.is_free(usize::from(at)) { Ok(node) } else { Err(Damaged) }
    }

    /// Empties bins and tree.
    pub(super) fn clear_chunks(&self) {
        for w in 0..WORDS {
            step();
            self.slot().cold(HEADS + w).store(u64::MAX, Relaxed);
        }
        self.tree().clear();
    }

    /// Inserts the free chunk of `size` granules at `at`, which isn't there.
    pub(super) fn insert_chunk(&self, at: u16, size: u16) -> Result<(), Damaged> {
        if size > BINNED {
            return self.tree().insert(at, size);
        }
        count::binned();
        let (tree, head) = (self.tree(), self.head(size));
        if head != NIL {
            let node = self.listed(head, size)?;
            tree.write(head, Node { left: at, ..node });
        }
        tree.write(at, Node { left: NIL, right: head, size });
        self.set_head(size, at);
        Ok(())
    }

    /// Whether the chunk of `size` granules at `at` is there.
    pub(super) fn contains_chunk(&self, at: u16, size: u16) -> Result<bool, Damaged> {
        if size > BINNED {
            return self.tree().contains(at, size);
        }
        let Ok(node) = self.listed(at, size) else { return Ok(false) };
        if node.left == NIL {
            return Ok(self.head(size) == at);
        }
        Ok(self.listed(node.left, size).is_ok_and(|before| before.right == at))
    }

    /// Deletes the chunk of `size` granules at `at`; `false` if it isn't there.
    pub(super) fn delete_chunk(&self, at: u16, size: u16) -> Result<bool, Damaged> {
        if size > BINNED {
            return self.tree().delete(at, size);
        }
        if !self.contains_chunk(at, size)? {
            return Ok(false);
        }
        self.unlist(at, self.listed(at, size)?).map(|()| true)
    }

    /// Takes a listed node out of its bin.
    fn unlist(&self, at: u16, node: Node) -> Result<(), Damaged> {
        let tree = self.tree();
        if node.right != NIL {
            let next = self.listed(node.right, node.size)?;
            tree.write(node.right, Node { left: node.left, ..next });
        }
        if node.left == NIL {
            self.set_head(node.size, node.right);
        } else {
            let before = self.listed(node.left, node.size)?;
            tree.write(node.left, Node { right: node.right, ..before });
        }
        tree.wipe(at);
        Ok(())
    }

    /// Deletes and returns (offset, size) of the smallest chunk of at least `size` granules.
    pub(super) fn find_delete_chunk(&self, size: u16) -> Result<Option<(u16, u16)>, Damaged> {
        let bin = if size <= BINNED { self.first_bin(size) } else { None };
        let Some(size) = bin else { return self.tree().find_delete(size) };
        let at = self.head(size);
        let node = self.listed(at, size)?;
        self.unlist(at, Node { left: NIL, ..node })?;
        Ok(Some((at, size)))
    }

    /// Granules in the largest chunk, 0 if there is none.
    pub(super) fn largest_chunk(&self) -> Result<u16, Damaged> {
        let largest = self.tree().largest()?;
        if largest > 0 {
            return Ok(largest);
        }
        Ok((1..=BINNED).rev().find(|&size| self.head(size) != NIL).unwrap_or(0))
    }

    /// Calls `f(offset, size)` for each chunk, smallest first, and returns how many there are.
    pub(super) fn linearize_chunks(&self, f: &mut dyn FnMut(u16, u16)) -> Result<usize, Damaged> {
        let mut sum = 0;
        for size in 1..=BINNED {
            let (mut before, mut at) = (NIL, self.head(size));
            while at != NIL {
                let node = self.listed(at, size)?;
                if node.left != before || sum >= self.units() {
                    return Err(Damaged);
                }
                f(at, size);
                sum += 1;
                (before, at) = (at, node.right);
            }
        }
        Ok(sum + self.tree().linearize(f)?)
    }
}
