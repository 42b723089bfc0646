//! The slab tier: slabs of equal items, two bits per item, one owner.
//!
//! `pop` hands out an item, `push` takes one back; the front calls them when its own few instructions
//! don't suffice. A thread allocates from its *current* slab of a class (HELD). When that is full it
//! belongs to nobody; whoever frees into it next adopts it into a queue (QUEUED), from which it becomes
//! current again. A queued slab that becomes empty goes back to the page-frag tier, but for one per bin
//! that is kept against thrashing; whoever finds memory exhausted may steal that too.
//!
//! Orphans are slabs of nobody with free items; a hint (a bit per slot, and a word per class of which
//! sixty-fourth of the segment to look in) leads to them. Hints are set after the state and cleared before
//! it; a stale hint is harmless, a missing one would lose memory.

mod arrays;
pub mod classes;
mod ends;
mod local;
mod loosen;
mod protocol;
mod queue;
mod rescue;
mod reserved;
mod swap;
mod tap;
#[cfg(test)]
mod tests;
mod tier;

use crate::segment::{Owner, Slots, State};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Relaxed, Release};
use crate::units::FRAGMENT;
pub use classes::{CLASSES, MAX_SMALL, class_of_aligned, largest, room_of_aligned, size_of as class_size};
pub(crate) use classes::{class_of, reciprocal_of};
pub use local::{LocalHeap, SHARED, WIDE};
pub use loosen::{Owners, thread_of};
pub use protocol::{DoubleFree, LetGo, Shape, Slab, owner_id, tag_of};
pub use queue::Bin;

/// What the slab tier needs of the page-frag tier.
pub trait Runs {
    /// A run of `fragments`, its first slot a whole one: begins at a slot and at a multiple of `align` bytes.
    fn take(&self, fragments: usize, align: usize) -> Option<usize>;
    /// Gives the run that begins at `slot` back; `before_clear` is called when that can no longer fail and
    /// before anybody else can get the memory.
    fn give(&self, slot: usize, before_clear: &mut dyn FnMut());
}

/// Words per class in the shape table.
pub const SHAPE_WORDS: usize = 5;

/// Where the slab tier's part of the metadata lies.
#[derive(Clone, Copy)]
pub struct SlabTier {
    pub(crate) slots: Slots,
    /// Address of slot 0.
    pub(crate) data: usize,
    /// One bit per slot: an orphan may be here.
    pub(crate) hints: *const AtomicU64,
    /// One word per class: bit g set, an orphan of the class may be in the g-th group of slots. Then another word per class: the slot
    /// of the orphan that was hinted at last, plus one; 0 for none. It saves a search, and may be wrong.
    pub(crate) class_hints: *const AtomicU64,
    /// `SHAPE_WORDS` words per class: item size (0: no such class), items, fragments of the run, plain (bit 0) and
    /// alignment of its slabs; bit g set, a slab of a cache's class was cut in the g-th group of slots.
    pub(crate) shapes: *const AtomicU64,
    pub(crate) classes: usize,
    /// A word that is always zero.
    pub(crate) zero: *const AtomicU64,
    /// Lock between those who go through all bins of a local heap, or into a bin of another class than their own, and
    /// those who visit other threads' local heaps because a cache ends. Who has it takes no lock of the front's. See
    /// [`SlabTier::undisturbed`].
    pub(crate) lock: *const AtomicU64,
    /// For who waits for it.
    pub(crate) give_way: crate::sync::GiveWay,
    /// One word: no slot from this one on was ever part of a slab.
    pub(crate) reach: *const AtomicU64,
}

/// Where an address lies.
#[derive(Clone, Copy)]
pub struct Located<'a> {
    pub slab: Slab<'a>,
    pub shape: Shape,
    pub item: usize,
    /// The address is an item's first byte.
    pub exact: bool,
}

/// A double free that was found, perhaps only now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The slab's first slot.
    pub slot: usize,
    /// The item.
    pub item: usize,
}
