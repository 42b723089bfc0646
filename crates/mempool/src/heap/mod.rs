//! The best-fit heap: small objects, packed as tightly as possible.
//!
//! It divides *heap pages* (runs of one slot each) into chunks of any multiple of 16 bytes. Objects carry no
//! header; which chunks there are and which are in use stands in two bitmaps in the slot's descriptor
//! (`page`), so that a double, interior or wild free is found exactly and changes nothing. Lists of small
//! free chunks (`bins`) and a search tree of larger ones (`tree`), both inside the free chunks, find the
//! best fit; the bits never depend on them.
//!
//! Each page has a try-lock (`control`). An allocation goes to the next page when one is taken; a free
//! that finds its page taken clears the object's bit, leaves a mark for the holder, and is done. If no page
//! has room, one of those who want one makes it and the others wait a bounded time and take from it. No operation makes a
//! system call or waits without a bound: where the wait for another thread ends in vain the answer is
//! [`HeapError::Busy`], and the front decides.
//!
//! Limits: objects of up to [`HeapParts::limit`] bytes; pages of 256 to 4096 granules; alignment 16.
//! A misuse that races with another thread is judged by the bits of that moment: a second free of an object that
//! meanwhile was allocated again is a valid free, as for any allocator.
#![allow(unsafe_code)]

mod alloc;
mod bins;
mod check;
mod control;
mod free;
mod page;
mod tree;

#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, loom))]
mod tests_loom;

pub use control::control_words;

use crate::segment::{Owner, Slots, State};
use crate::sync::{AtomicU64, Ordering::Acquire};
use crate::units::GRANULE;
use control::{Control, Guard};
use page::Page;
use tree::Damaged;

/// The supplier of heap pages: the tier below.
pub trait Runs {
    /// Takes a run of exactly one slot, aligned to the slot, with any content: the slot's index, or `None`
    /// when exhausted.
    fn take_slot(&self) -> Option<usize>;
    /// Gives such a run back. Calls `before_clear` once the right to give is won and before the memory
    /// becomes available to others.
    fn give_slot(&self, slot: usize, before_clear: &mut dyn FnMut());
}

/// What a heap is made of.
#[derive(Clone, Copy)]
pub struct HeapParts {
    /// [`control_words`]`(slots.count())` words.
    pub control: *const AtomicU64,
    /// The descriptors of all slots.
    pub slots: Slots,
    /// The first byte of slot 0, aligned to the slot.
    pub data: *mut u8,
    /// The largest request in bytes: at most 3,200, and less than a page.
    pub limit: usize,
    /// An emptied page goes back only if at least this many operations of the heap came after it was made
    /// (counted in lots of [`LOT`]). Keeps a page from going to and fro.
    pub lifetime: u64,
    /// When the only pages with room are held by other threads: how often to look again before a page is
    /// added in spite of them. A thread that is preempted in a page costs others this wait or a page.
    pub patience: u32,
}

/// The largest limit, in bytes.
pub const LARGEST_LIMIT: usize = 3200;
/// The usual patience, in looks at all pages.
pub const DEFAULT_PATIENCE: u32 = 1024;
/// The heap's clock advances in lots of this many operations on one page.
pub const LOT: u64 = 16;

/// Why the heap refused. Nothing was changed, except where noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapError {
    /// The address lies in memory of a heap page that is free already.
    Free,
    /// The address lies inside the object that begins at `start`.
    Interior {
        /// Address of the object.
        start: usize,
    },
    /// The address is in no heap page.
    NotHere,
    /// The request is above the limit.
    TooLarge,
    /// Somebody wrote into free memory of the page. The page's tree was built anew from its bits, so that the heap
    /// remains usable. If a free says so, the object was freed all the same.
    Corrupted {
        /// Address of the page.
        page: usize,
    },
    /// Another thread that holds a page with room, or the right to add one, did not come to an end within
    /// the bounded wait. The heap is not exhausted: pause and ask again.
    Busy,
}

/// What [`Heap::verify`] found wrong; `page` is the index of the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapFault {
    /// A used bit without start bit, or no chunk at the page's beginning.
    Bits {
        /// The slot.
        page: usize,
    },
    /// Tree and bits disagree, or a node is damaged.
    Tree {
        /// The slot.
        page: usize,
    },
    /// Two free chunks are neighbours.
    Unmerged {
        /// The slot.
        page: usize,
    },
    /// The hint or a room bitmap is wrong: the page's room would not be found.
    Hint {
        /// The slot.
        page: usize,
    },
    /// The page bitmap and the owner word disagree.
    Owner {
        /// The slot.
        page: usize,
    },
    /// The page stayed locked.
    Locked {
        /// The slot.
        page: usize,
    },
}

/// A heap page's figures, from its bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    /// Index of the slot.
    pub slot: usize,
    /// Address of the page.
    pub address: usize,
    /// Bytes in the page.
    pub bytes: usize,
    /// Live objects.
    pub objects: usize,
    /// Bytes in live objects, rounded as allocated.
    pub object_bytes: usize,
    /// Free chunks.
    pub free_chunks: usize,
    /// Bytes in the largest free chunk.
    pub largest_free: usize,
}

/// The best-fit heap of one pool. All functions may be called from any thread at any time, unless noted.
pub struct Heap {
    parts: HeapParts,
    control: Control,
}

// SAFETY: the heap's words are atomics, and page memory is only touched under the page's lock.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

/// A page whose lock the caller holds.
#[derive(Clone, Copy)]
struct Held<'a> {
    index: usize,
    guard: Guard,
    page: Page<'a>,
    /// What the guard's hint will be.
    hint: usize,
}

impl Heap {
    /// An empty heap over `parts`, whose control words are zero. Writes nothing: where the heap serves nobody its control words
    /// cost no memory.
    ///
    /// # Safety
    /// All memory that `parts` names is valid for as long as the heap is used; control words and the
    /// descriptors of slots that `Runs` handed to this heap are used by nobody else; nobody but the heap
    /// uses free memory of such a slot.
    #[must_use]
    pub unsafe fn new(parts: HeapParts) -> Self {
        // SAFETY: handed on to our caller.
        let control = unsafe { Control::new(parts.control, parts.slots.count(), parts.slots.geometry().words) };
        Self { parts, control }
    }

    /// Granules for a request of `size` bytes.
    fn units_for(size: usize) -> usize {
        if size == 0 { 1 } else { size.div_ceil(GRANULE) }
    }

    fn page(&self, index: usize) -> Page<'_> {
        let base = self.parts.data.wrapping_add(index << self.parts.slots.geometry().shift);
        // SAFETY: the slot's memory is valid and its free part ours (contract of `Heap::new`).
        unsafe { Page::new(self.parts.slots.slot(index), base) }
    }

    /// Address of the page in slot `index`.
    fn page_address(&self, index: usize) -> usize {
        self.parts.data.addr() + (index << self.parts.slots.geometry().shift)
    }

    /// Whether slot `index` is a heap page. Acquire: then it is made.
    fn is_page(&self, index: usize) -> bool {
        Owner(self.parts.slots.slot(index).owner().load(Acquire)).state() == State::Heap
    }

    /// Locks the page in slot `index`, `None` if somebody else has it or it is no page.
    fn hold(&self, index: usize) -> Option<Held<'_>> {
        let guard = self.control.try_lock(index)?;
        self.held(index, guard)
    }

    /// The page whose lock the caller took as `guard`; gives the lock back if it is no page.
    fn held(&self, index: usize, guard: Guard) -> Option<Held<'_>> {
        if self.is_page(index) {
            return Some(Held { index, guard, page: self.page(index), hint: guard.hint() });
        }
        // Late for a page that went back: what was marked there is gone with it.
        self.control.take_marks(index, &mut |_| {});
        self.control.unlock(index, guard, guard.hint());
        None
    }

    /// Builds the tree of a damaged page anew and says so.
    #[cold]
    #[inline(never)]
    fn heal(&self, held: &mut Held<'_>, _: Damaged) -> HeapError {
        held.hint = held.page.defragment();
        HeapError::Corrupted { page: self.page_address(held.index) }
    }

    /// Tells the tree what was freed while the page was locked.
    fn settle(&self, held: &mut Held<'_>) -> Result<(), HeapError> {
        let (mut largest, mut damaged) = (held.hint, None);
        let (page, words) = (held.page, held.page.units() / 64);
        self.control.take_marks(held.index, &mut |w| {
            if w < words {
                match page.settle(w) {
                    Ok(size) => largest = largest.max(size),
                    Err(what) => damaged = Some(what),
                }
            }
        });
        held.hint = largest;
        damaged.map_or(Ok(()), |what| Err(self.heal(held, what)))
    }

    /// Counts an operation on the page, and lets the heap's clock advance by whole lots.
    fn count(&self, held: &Held<'_>) {
        if held.page.operation() {
            self.control.add_ticks(LOT);
        }
    }

    /// Gives the lock back, and the page if it is empty and old enough.
    #[inline]
    fn release<'a>(&'a self, runs: &impl Runs, held: Held<'a>) -> Result<(), HeapError> {
        if self.is_over(&held) {
            self.give_page(runs, held);
        } else if self.control.unlock(held.index, held.guard, held.hint) {
            return self.settle_again(runs, held.index);
        }
        Ok(())
    }

    /// Who finds marks at unlocking is asked to settle them, a few times; after that they wait for the next one who comes by.
    #[cold]
    #[inline(never)]
    fn settle_again(&self, runs: &impl Runs, index: usize) -> Result<(), HeapError> {
        for _ in 0..4 {
            let Some(mut held) = self.hold(index) else { return Ok(()) };
            let settled = self.settle(&mut held);
            if settled.is_ok() && self.is_over(&held) {
                self.give_page(runs, held);
                return Ok(());
            }
            if !self.control.unlock(held.index, held.guard, held.hint) || settled.is_err() {
                return settled;
            }
        }
        Ok(())
    }

    /// Whether the page is empty and old enough to go back.
    #[inline]
    fn is_over(&self, held: &Held<'_>) -> bool {
        held.hint == held.page.units() && held.page.is_empty() && self.is_old(held)
    }

    fn is_old(&self, held: &Held<'_>) -> bool {
        self.control.tick().wrapping_sub(held.page.birth()) >= self.parts.lifetime
    }

    /// Gives the empty page back to the tier below and unlocks its guard.
    #[cold]
    #[inline(never)]
    fn give_page(&self, runs: &impl Runs, held: Held<'_>) {
        self.control.clear_page(held.index);
        runs.give_slot(held.index, &mut || self.set_state(held.index, State::Free));
        self.control.unlock(held.index, held.guard, 0);
    }

    /// The owner word's next state. Release: who reads it finds the slot as it is meant to be.
    fn set_state(&self, index: usize, state: State) {
        step();
        let owner = self.parts.slots.slot(index).owner();
        let old = Owner(owner.load(crate::sync::Ordering::Relaxed));
        owner.store(old.next(state, 0, 1).0, crate::sync::Ordering::Release);
    }
}

/// A point at which a thread may vanish: before each change of shared state. Only tests do anything here.
#[cfg(not(test))]
#[inline(always)]
fn step() {}

#[cfg(test)]
use hook::step;

/// Lets a test stop an operation before its Nth change.
#[cfg(test)]
mod hook {
    use core::cell::Cell;
    std::thread_local! {
        static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    }
    /// What the panic of a thread that vanishes carries.
    pub(super) struct Vanished;
    /// This thread vanishes before its change number `changes` from now; `u64::MAX` for never.
    pub(super) fn vanish_after(changes: u64) {
        LEFT.with(|left| left.set(changes));
    }
    pub(super) fn step() {
        let left = LEFT.with(Cell::get);
        if left == 0 {
            vanish_after(u64::MAX);
            std::panic::resume_unwind(std::boxed::Box::new(Vanished));
        }
        if left != u64::MAX {
            vanish_after(left - 1);
        }
    }
}
