//! Units and geometry constants. Every size in the crate is one of these or is computed from them.
//!
//! A *fragment* is 256 bytes, the smallest unit of the page-frag allocator. A *page* is 64 fragments,
//! 16 KiB, and is tracked by one bitmap *cell*. The kernel's page is always called *OS page*.

/// log2 of the bytes in a fragment.
pub const FRAGMENT_SHIFT: u32 = 8;
/// Bytes in a fragment.
pub const FRAGMENT: usize = 1 << FRAGMENT_SHIFT;
/// Bits in a cell, and so fragments in a page.
pub const CELL_BITS: usize = 64;
/// Bytes in a page.
pub const PAGE: usize = FRAGMENT * CELL_BITS;
/// Bytes in a cache line.
pub const LINE: usize = 64;
/// Every address that a pool hands out for a request without an alignment is a multiple of this.
pub const GRANULE: usize = 16;
/// Cells in a leaf of the search tree: one cache line of busy bits.
pub const LEAF_CELLS: usize = 8;
/// Children of an inner node of the search tree.
pub const FAN_OUT: usize = 8;

const _: () = assert!(PAGE == 16 * 1024);
const _: () = assert!(LEAF_CELLS * 8 == LINE);

/// Fragments that hold `bytes` bytes, at least one.
#[must_use]
pub const fn fragments_for(bytes: usize) -> usize {
    if bytes == 0 { 1 } else { bytes.div_ceil(FRAGMENT) }
}

/// Nodes of a search tree over `cells` cells (a multiple of [`LEAF_CELLS`]), leaves included.
#[must_use]
pub const fn tree_nodes(cells: usize) -> usize {
    let mut level = cells.div_ceil(LEAF_CELLS);
    let mut sum = level;
    while level > 1 {
        level = level.div_ceil(FAN_OUT);
        sum += level;
    }
    sum
}
