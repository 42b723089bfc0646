//! The tree of a heap page's free chunks.
//!
//! A binary search tree ordered by (size, offset), both in granules of 16 bytes. Its nodes lie in the free
//! chunks themselves, so it costs no memory; links are offsets from the page, 0xffff for none.
//!
//! It is a treap: a parent's priority is above its children's, and a node's priority is a hash of its
//! offset, so nothing is stored for it. A set of chunks has exactly one shape, whatever the order of
//! insertions was, and its depth is logarithmic unless somebody breaks the hash on purpose. An insertion
//! walks down to the first node of lower priority and splits what hangs there: on average less than two
//! links change, which is why insertion is no hot spot.
//!
//! The tree is only a guide: the page's bits are the truth. A program may write into memory that it has
//! freed, so no node is believed: a check word covers links, size and place, offsets are compared with the
//! page's end before they are followed, and every walk has a budget. A mismatch is [`Damaged`], after which
//! the caller builds the tree anew from the bits. A walk that failed may leave the tree half changed.
#![allow(unsafe_code)]

use super::step;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crate::units::GRANULE;

/// No node.
pub(super) const NIL: u16 = u16::MAX;

/// A node is not what was written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// What a node says. In memory: this in the first eight bytes, the check word in the next.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) left: u16,
    pub(super) right: u16,
    /// Granules in the chunk, this node included; at least 1.
    pub(super) size: u16,
}

impl Node {
    fn pack(self) -> u64 {
        u64::from(self.left) | u64::from(self.right) << 16 | u64::from(self.size) << 32
    }

    fn unpack(word: u64) -> Self {
        Self { left: word as u16, right: (word >> 16) as u16, size: (word >> 32) as u16 }
    }
}

/// Where a link is stored: in the root, or in the node at an offset, which was read as this.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Left(u16, Node),
    Right(u16, Node),
}

/// The tree of one page. Whoever uses it holds the page's lock.
pub(super) struct Tree<'a> {
    base: *mut u8,
    /// Granules in the page: every valid offset is below.
    units: u16,
    /// Makes a node of one page invalid in another.
    key: u64,
    root: &'a AtomicU64,
}

/// The order of chunks.
fn rank(size: u16, at: u16) -> u32 {
    u32::from(size) << 16 | u32::from(at)
}

/// A bijection of 32 bits, so two chunks never have the same priority.
fn priority(at: u16) -> u32 {
    let mut x = u32::from(at).wrapping_add(0x9e37_79b9);
    x = (x ^ x >> 16).wrapping_mul(0x21f0_aaad);
    x = (x ^ x >> 15).wrapping_mul(0x735a_2d97);
    x ^ x >> 15
}

impl<'a> Tree<'a> {
    /// The tree rooted in `root`, over the page at `base`.
    ///
    /// # Safety
    /// `units * 16` bytes at `base` (aligned to 16) are valid for as long as the tree is used, and those of
    /// the chunks that get inserted are nobody else's until they are deleted.
    pub(super) unsafe fn new(base: *mut u8, units: usize, key: u64, root: &'a AtomicU64) -> Self {
        Self { base, units: units as u16, key, root }
    }

    /// Forgets all nodes.
    pub(super) fn clear(&self) {
        step();
        self.set_root(NIL);
    }

    /// The root is the lower quarter of its word; the rest is the page's. Only changed under the page's lock.
    fn set_root(&self, to: u16) {
        let others = self.root.load(Relaxed) & !u64::from(u16::MAX);
        self.root.store(others | u64::from(to), Relaxed);
    }

    fn root(&self) -> u16 {
        self.root.load(Relaxed) as u16
    }

    fn check(&self, word: u64, at: u16) -> u64 {
        // The upper sixteen bits of `word` are 0. A product's low bits depend on few of its factor's, so they are
        // mixed with the high ones.
        let x = (word ^ u64::from(at) << 48 ^ self.key).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ x >> 32
    }

    /// The node at `at`.
    pub(super) fn read(&self, at: u16) -> Result<Node, Damaged> {
        count::node();
        if at >= self.units {
            return Err(Damaged);
        }
        // SAFETY: `at < units`, so the 16 bytes lie in the page and are aligned; any content is valid.
        let [word, check] = unsafe { self.base.add(usize::from(at) * GRANULE).cast::<[u64; 2]>().read() };
        let node = Node::unpack(word);
        if check == self.check(word, at) { Ok(node) } else { Err(Damaged) }
    }

    /// Writes the node at `at`, which is a free chunk's beginning.
    pub(super) fn write(&self, at: u16, node: Node) {
        step();
        debug_assert!(at < self.units);
        let word = node.pack();
        // SAFETY: `at` was read as a node or is a free chunk of the caller, inside the page and aligned.
        unsafe { self.base.add(usize::from(at) * GRANULE).cast::<[u64; 2]>().write([word, self.check(word, at)]) }
    }

    /// Makes the node at `at` none.
    pub(super) fn wipe(&self, at: u16) {
        step();
        debug_assert!(at < self.units);
        let wrong = !self.check(0, at);
        // SAFETY: as for `write`.
        unsafe { self.base.add(usize::from(at) * GRANULE).cast::<[u64; 2]>().write([0, wrong]) }
    }

    fn set(&self, link: Link, target: u16) {
        match link {
            Link::Root => {
                step();
                self.set_root(target);
            }
            Link::Left(at, node) if node.left != target => self.write(at, Node { left: target, ..node }),
            Link::Right(at, node) if node.right != target => self.write(at, Node { right: target, ..node }),
            _ => {}
        }
    }

    /// A walk can't be longer than this.
    fn budget(&self) -> u32 {
        u32::from(self.units) + 1
    }

    /// Inserts the free chunk of `size` granules at `at`. [`Damaged`] also if it is there already.
    pub(super) fn insert(&self, at: u16, size: u16) -> Result<(), Damaged> {
        count::insertion();
        let (mine, rank_here) = (priority(at), rank(size, at));
        let (mut link, mut next, mut budget) = (Link::Root, self.root(), self.budget());
        while next != NIL && priority(next) >= mine {
            let node = self.read(next)?;
            budget = budget.checked_sub(1).ok_or(Damaged)?;
            if next == at {
                return Err(Damaged);
            }
            (link, next) = if rank(node.size, next) < rank_here {
                (Link::Right(next, node), node.right)
            } else {
                (Link::Left(next, node), node.left)
            };
        }
        let (left, right) = if next == NIL { (NIL, NIL) } else { self.split(rank_here, next, budget)? };
        self.write(at, Node { left, right, size });
        self.set(link, at);
        Ok(())
    }

    /// Cuts the subtree `next` into what is before and what is behind `rank_here`.
    fn split(&self, rank_here: u32, mut next: u16, mut budget: u32) -> Result<(u16, u16), Damaged> {
        let (mut first, mut second) = (None, None);
        // The last node on each side, whose link to the other side is still open.
        let (mut left, mut right) = (None, None);
        while next != NIL {
            let node = self.read(next)?;
            budget = budget.checked_sub(1).ok_or(Damaged)?;
            if rank(node.size, next) < rank_here {
                left.map_or_else(|| first = Some(next), |link| self.set(link, next));
                (left, next) = (Some(Link::Right(next, node)), node.right);
            } else {
                right.map_or_else(|| second = Some(next), |link| self.set(link, next));
                (right, next) = (Some(Link::Left(next, node)), node.left);
            }
        }
        for open in [left, right].into_iter().flatten() {
            self.set(open, NIL);
        }
        Ok((first.unwrap_or(NIL), second.unwrap_or(NIL)))
    }

    /// Replaces the node that `link` leads to by the union of its two subtrees.
    fn unhook(&self, mut link: Link, node: Node) -> Result<(), Damaged> {
        let (mut a, mut b) = (node.left, node.right);
        for _ in 0..self.budget() {
            if a == NIL || b == NIL {
                self.set(link, if a == NIL { b } else { a });
                return Ok(());
            }
            if priority(a) > priority(b) {
                let node = self.read(a)?;
                self.set(link, a);
                (link, a) = (Link::Right(a, node), node.right);
            } else {
                let node = self.read(b)?;
                self.set(link, b);
                (link, b) = (Link::Left(b, node), node.left);
            }
        }
        Err(Damaged)
    }

    /// Deletes the chunk of `size` granules at `at`; `false` if it isn't there.
    pub(super) fn delete(&self, at: u16, size: u16) -> Result<bool, Damaged> {
        let wanted = rank(size, at);
        let (mut link, mut next) = (Link::Root, self.root());
        for _ in 0..self.budget() {
            if next == NIL {
                return Ok(false);
            }
            let node = self.read(next)?;
            let here = rank(node.size, next);
            if here == wanted {
                return self.unhook(link, node).map(|()| true);
            }
            (link, next) =
                if here < wanted { (Link::Right(next, node), node.right) } else { (Link::Left(next, node), node.left) };
        }
        Err(Damaged)
    }

    /// Deletes and returns (offset, size) of the smallest chunk of at least `size` granules, the lowest of
    /// several equal ones. `None` if there is none.
    pub(super) fn find_delete(&self, size: u16) -> Result<Option<(u16, u16)>, Damaged> {
        let (mut link, mut next, mut best) = (Link::Root, self.root(), None);
        for _ in 0..self.budget() {
            if next == NIL {
                let Some((at, link, node)) = best else { return Ok(None) };
                return self.unhook(link, node).map(|()| Some((at, node.size)));
            }
            let node = self.read(next)?;
            if node.size >= size {
                best = Some((next, link, node));
                (link, next) = (Link::Left(next, node), node.left);
            } else {
                (link, next) = (Link::Right(next, node), node.right);
            }
        }
        Err(Damaged)
    }

    /// The first chunk whose rank is at least `least`, as (offset, size).
    fn first_from(&self, least: u32) -> Result<Option<(u16, u16)>, Damaged> {
        let (mut next, mut best) = (self.root(), None);
        for _ in 0..self.budget() {
            if next == NIL {
                return Ok(best);
            }
            let node = self.read(next)?;
            next = if rank(node.size, next) >= least {
                best = Some((next, node.size));
                node.left
            } else {
                node.right
            };
        }
        Err(Damaged)
    }

    /// Whether the chunk of `size` granules at `at` is in the tree.
    pub(super) fn contains(&self, at: u16, size: u16) -> Result<bool, Damaged> {
        Ok(self.first_from(rank(size, at))? == Some((at, size)))
    }

    /// Granules in the largest chunk, 0 if there is none.
    pub(super) fn largest(&self) -> Result<u16, Damaged> {
        let (mut next, mut size) = (self.root(), 0);
        for _ in 0..self.budget() {
            if next == NIL {
                return Ok(size);
            }
            let node = self.read(next)?;
            (next, size) = (node.right, node.size);
        }
        Err(Damaged)
    }

    /// Calls `f(offset, size)` for each chunk, smallest first, and returns how many there are. Needs no
    /// stack and changes nothing; costs the logarithm per chunk.
    pub(super) fn linearize(&self, f: &mut dyn FnMut(u16, u16)) -> Result<usize, Damaged> {
        let (mut least, mut sum) = (0, 0);
        while let Some((at, size)) = self.first_from(least)? {
            if sum >= usize::from(self.units) {
                return Err(Damaged);
            }
            f(at, size);
            sum += 1;
            least = rank(size, at) + 1;
        }
        Ok(sum)
    }

    /// The shape, as the nodes' offsets in preorder with [`NIL`] for no child.
    #[cfg(all(test, not(loom)))]
    pub(super) fn shape(&self) -> std::vec::Vec<u16> {
        let (mut out, mut stack) = (std::vec::Vec::new(), std::vec![self.root()]);
        while let Some(at) = stack.pop() {
            out.push(at);
            if at != NIL {
                let node = self.read(at).expect("a sound tree");
                stack.extend([node.right, node.left]);
            }
        }
        out
    }
}

/// Counts node visits, in tests alone.
#[cfg(not(test))]
pub(super) mod count {
    #[inline(always)]
    pub(crate) fn node() {}
    #[inline(always)]
    pub(crate) fn insertion() {}
    #[inline(always)]
    pub(crate) fn binned() {}
}

/// Counts node visits, in tests alone.
#[cfg(test)]
pub(super) mod count {
    use core::cell::Cell;
    std::thread_local! {
        static NODES: Cell<u64> = const { Cell::new(0) };
        static INSERTIONS: Cell<u64> = const { Cell::new(0) };
        static BINNED: Cell<u64> = const { Cell::new(0) };
    }
    pub(crate) fn node() {
        NODES.with(|c| c.set(c.get() + 1));
    }
    pub(crate) fn insertion() {
        INSERTIONS.with(|c| c.set(c.get() + 1));
    }
    pub(crate) fn binned() {
        BINNED.with(|c| c.set(c.get() + 1));
    }
    /// Insertions into bins by this thread so far.
    pub(crate) fn binned_so_far() -> u64 {
        BINNED.with(Cell::get)
    }
    /// Nodes read and insertions made by this thread so far.
    pub(crate) fn so_far() -> (u64, u64) {
        (NODES.with(Cell::get), INSERTIONS.with(Cell::get))
    }
}
