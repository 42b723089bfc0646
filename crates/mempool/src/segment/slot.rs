//! Slot descriptors: the words that describe one slot of the segment.
//!
//! The data area is cut into *slots* of equal size (4 to 64 KiB, a power of two, one constant per pool).
//! A slab or a heap page begins at a slot; `address >> shift` finds its descriptor, so no page table is
//! needed. A descriptor is an array of 64-bit words:
//!
//! ```text
//!  line 0      owner recip cold[0..6]
//!  line 1 + i  free[i] free[i+n] free[i+2n] free[i+3n]  remote[i] remote[i+n] remote[i+2n] remote[i+3n]
//! ```
//!
//! with `n` lines for `4 n` words of each bitmap. So a free touches two lines: one that is hardly ever written to, and that of the
//! item. Words that follow each other lie in different lines: who frees what another thread allocated a little earlier does not
//! take from it the line of the word that it allocates from. The stride between descriptors is an odd number of
//! lines but for the smallest slots, since a power of two would map all of them to few cache sets.
//! What the words mean is the business of the tier that owns the slot; the one thing all tiers agree on
//! is the owner word.
#![allow(unsafe_code)]

use crate::sync::AtomicU64;
use crate::units::GRANULE;

/// Cold words of a descriptor.
pub const COLD: usize = 6;
/// Words in a cache line.
pub const LINE_WORDS: usize = 8;
/// log2 of the words of each bitmap in one line.
const LINE_SHIFT: u32 = 2;
/// From a word of the first bitmap to that of the second.
pub const HALF_LINE: usize = 1 << LINE_SHIFT;
/// log2 of the bytes in the smallest slot, which has one line of words.
const LEAST_SHIFT: u32 = 12;

/// What a slot is used for: the `state` field of its owner word.
///
/// `owner = [generation:28 | state:4 | thread:32]`. Every transition adds one to the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No slab and no heap page begins or continues here. Runs may lie here all the same.
    Free = 0,
    /// A slab whose owner allocates from it, takes remote frees and frees plainly.
    Held = 1,
    /// A slab in its owner's queue: the owner frees plainly, never allocates or takes.
    Queued = 2,
    /// A slab of nobody: anybody adopts.
    Nobody = 3,
    /// A slab that is going back: whoever made this transition gives the run back.
    Giving = 4,
    /// The continuation of a slab of several slots; `recip` holds the index of its first slot.
    Continued = 5,
    /// A heap page.
    Heap = 6,
    /// A queued slab of which somebody else is taking an item that was freed remotely: its owner, if the thread field
    /// still names one, frees plainly and does nothing else.
    Tapped = 7,
    /// A slab in the reserve, whose items only critical requests get: nobody owns it, and who frees does so remotely. The
    /// thread field is not 0 while somebody takes an item.
    Reserved = 8,
}

impl State {
    const ALL: [State; 9] = [
        State::Free,
        State::Held,
        State::Queued,
        State::Nobody,
        State::Giving,
        State::Continued,
        State::Heap,
        State::Tapped,
        State::Reserved,
    ];

    /// Whether a slab begins here that items may be allocated of.
    #[must_use]
    pub const fn is_slab(self) -> bool {
        matches!(self, State::Held | State::Queued | State::Nobody | State::Tapped | State::Reserved)
    }
}

/// An owner word, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

impl core::fmt::Debug for Owner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Owner({:?}, thread {}, generation {})", self.state(), self.thread(), self.0 >> 36)
    }
}

impl Owner {
    /// The state.
    #[must_use]
    pub const fn state(self) -> State {
        let raw = (self.0 >> 32) as usize & 0xf;
        if raw < State::ALL.len() { State::ALL[raw] } else { State::Free }
    }

    /// Whether the state is this one.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, state: State) -> bool {
        self.0 >> 32 & 0xf == state as u64
    }

    /// [`State::is_slab`] of the state, without a branch.
    #[inline(always)]
    #[must_use]
    pub const fn is_slab(self) -> bool {
        const SLABS: u64 = 1 << State::Held as u64
            | 1 << State::Queued as u64
            | 1 << State::Nobody as u64
            | 1 << State::Tapped as u64
            | 1 << State::Reserved as u64;
        SLABS >> (self.0 >> 32 & 0xf) & 1 != 0
    }

    /// The owning thread, 0 for none.
    #[must_use]
    pub const fn thread(self) -> u32 {
        self.0 as u32
    }

    /// The word that follows this one: `state`, `thread`, the generation `by` transitions later.
    #[must_use]
    pub const fn next(self, state: State, thread: u32, by: u64) -> Owner {
        let generation = (self.0 >> 36).wrapping_add(by) << 36;
        Owner(generation | (state as u64) << 32 | thread as u64)
    }
}

/// The geometry of descriptors and slots of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotGeometry {
    /// log2 of the bytes in a slot, 12 to 16.
    pub shift: u32,
    /// Words in each of the two bitmaps: one bit per 16 bytes of the slot.
    pub words: usize,
    /// Words from one descriptor to the next.
    pub stride: usize,
}

impl SlotGeometry {
    /// For slots of `1 << shift` bytes.
    #[must_use]
    pub const fn new(shift: u32) -> Self {
        let words = (1 << shift) / GRANULE / 64;
        let lines = 1 + (words >> LINE_SHIFT);
        // The few descriptors of the smallest slots all fit in the cache, and an empty line in each would be a part of the segment that shows.
        let lines = if shift == LEAST_SHIFT { lines } else { lines | 1 };
        Self { shift, words, stride: lines * LINE_WORDS }
    }

    /// By how much an item's number is shifted for the place of its word in the line.
    #[must_use]
    pub const fn place_shift(&self) -> u32 {
        6 + self.shift - LEAST_SHIFT
    }

    /// The bits of an item's number that say in which line its word is: so many bytes from the first one.
    #[must_use]
    pub const fn line_mask(&self) -> usize {
        ((self.words >> LINE_SHIFT) - 1) * 64
    }

    /// Bytes in a slot.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        1 << self.shift
    }
}

const fn odd_lines(shift: u32) -> bool {
    let g = SlotGeometry::new(shift);
    let lines = g.words >> LINE_SHIFT;
    (g.stride / LINE_WORDS) % 2 == 1 && g.stride > lines * LINE_WORDS && lines == 1 << (shift - LEAST_SHIFT)
}
const _: () = assert!(odd_lines(13) && odd_lines(14) && odd_lines(15) && odd_lines(16));

/// All descriptors of a pool.
#[derive(Clone, Copy)]
pub struct Slots {
    /// The owner word of slot 0.
    hot: *const AtomicU64,
    /// Slots in the pool.
    count: usize,
    geometry: SlotGeometry,
}

// SAFETY: `Slots` is a pointer to words that are only reached as atomics and that outlive it (contract of `new`).
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

/// A slot that the pool does not have: its metadata was written to. Ends the process without a panic, which could
/// unwind out of an allocation.
#[cold]
#[inline(never)]
fn out_of_range() -> ! {
    let os = crate::os::platform();
    os.write_stderr(b"mempool: the pool's metadata was overwritten: a slot is out of range\n");
    os.abort()
}

impl Slots {
    /// Descriptors in the `count * geometry.stride` words at `words`.
    ///
    /// # Safety
    /// The words are valid atomics for as long as the result or a [`Slot`] made from it is used, and
    /// `words` is aligned to a cache line.
    #[must_use]
    pub const unsafe fn new(words: *const AtomicU64, count: usize, geometry: SlotGeometry) -> Self {
        Self { hot: words, count, geometry }
    }

    /// Number of slots.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The geometry.
    #[must_use]
    pub const fn geometry(&self) -> SlotGeometry {
        self.geometry
    }

    /// The owner word of slot 0, for the hot path's own arithmetic.
    #[must_use]
    pub(crate) const fn hot_base(&self) -> *const AtomicU64 {
        self.hot
    }

    /// The descriptor of slot `index`.
    #[inline]
    #[must_use]
    pub fn slot(&self, index: usize) -> Slot<'_> {
        if index >= self.count {
            out_of_range();
        }
        // SAFETY: `index < count`, so the descriptor lies in the area that `new` was promised, and is of this geometry.
        unsafe {
            let hot = self.hot.add(index * self.geometry.stride);
            Slot::at(hot, index, self.geometry.shift, self.geometry.line_mask())
        }
    }
}

/// One descriptor.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    hot: *const AtomicU64,
    /// Which slot this is.
    pub index: usize,
    /// log2 of the lines with words.
    fold: u32,
    /// [`SlotGeometry::line_mask`], in words.
    lines: usize,
    life: core::marker::PhantomData<&'a AtomicU64>,
}

impl<'a> Slot<'a> {
    /// The descriptor of slot `index`, which has `1 << shift` bytes, with its owner word at `hot`, and with this line mask.
    ///
    /// # Safety
    /// `hot` points to the owner word of a descriptor of such a slot, which lives as long as the result.
    #[inline]
    pub(crate) const unsafe fn at(hot: *const AtomicU64, index: usize, shift: u32, lines: usize) -> Self {
        Self { hot, index, fold: shift - LEAST_SHIFT, lines: lines / 8, life: core::marker::PhantomData }
    }

    /// Where word `w` of the first bitmap lies.
    #[inline(always)]
    const fn place(&self, w: usize) -> usize {
        LINE_WORDS + ((w * LINE_WORDS) & self.lines) + (w >> self.fold)
    }

    /// The owner word, see [`Owner`].
    #[inline]
    #[must_use]
    pub fn owner(&self) -> &'a AtomicU64 {
        // SAFETY: `hot` points into a descriptor, see `Slots::slot`.
        unsafe { &*self.hot }
    }

    /// The reciprocal of the item size (slab), the first slot's index (continuation).
    #[inline]
    #[must_use]
    pub fn recip(&self) -> &'a AtomicU64 {
        // SAFETY: the word behind the owner word belongs to the descriptor.
        unsafe { &*self.hot.add(1) }
    }

    /// Word `w` of the first bitmap: a slab's `free` bits, a heap page's chunk starts.
    #[inline]
    #[must_use]
    pub fn free(&self, w: usize) -> &'a AtomicU64 {
        debug_assert!(w < self.words());
        // SAFETY: the descriptor has a place for each number below `words`.
        unsafe { &*self.hot.add(self.place(w)) }
    }

    /// Word `w` of the second bitmap: a slab's `freed_remotely` bits, a heap page's chunks in use.
    #[inline]
    #[must_use]
    pub fn remote(&self, w: usize) -> &'a AtomicU64 {
        debug_assert!(w < self.words());
        // SAFETY: as above, in the other half of the line.
        unsafe { &*self.hot.add(self.place(w) + HALF_LINE) }
    }

    /// Cold word `k`.
    #[inline]
    #[must_use]
    pub fn cold(&self, k: usize) -> &'a AtomicU64 {
        debug_assert!(k < COLD);
        // SAFETY: `COLD` words follow `recip`.
        unsafe { &*self.hot.add(2 + k) }
    }

    /// Words in each bitmap.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> usize {
        1 << LINE_SHIFT << self.fold
    }
}
