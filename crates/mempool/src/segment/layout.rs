//! Where everything lies: pure arithmetic from a size to offsets.
//!
//! ```text
//!  [guard] header | core | control | hints | tables | bitmaps | tree | descriptors [guard] slot 0 ... slot n-1 [guard]
//!  ^ start                                                                               ^ data
//! ```
//!
//! All offsets are in bytes from the start of the metadata, are multiples of a cache line, and are kept in
//! the header, so that a tool can read a pool of another process or of a core file.

use super::slot::SlotGeometry;
use crate::units::{CELL_BITS, FRAGMENT, FRAGMENT_SHIFT, LEAF_CELLS, LINE, tree_nodes};

/// Words of one entry of the cache table.
pub const CACHE_WORDS: usize = 12;
/// Words of one entry of the thread directory.
pub const THREAD_WORDS: usize = 2;
/// Words of a class in the shape table.
pub const SHAPE_WORDS: usize = 5;

/// What the tiers above need, told to the layout by the pool, which knows them.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Bytes of the pool's core.
    pub core: usize,
    /// Bytes of a local heap with `classes` classes: `local_base + classes * local_class`.
    pub local_base: usize,
    /// See `local_base`.
    pub local_class: usize,
    /// Words of the page-frag tier's control block.
    pub frag_control: usize,
    /// Words of the heap tier's control block, beside one bitmap word per 64 slots, `heap_bitmaps` times.
    pub heap_control: usize,
    /// See `heap_control`.
    pub heap_bitmaps: usize,
    /// Size classes.
    pub classes: usize,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Bytes of the segment at its largest, guards and metadata included.
    pub bytes: usize,
    /// log2 of the slot size, 0 to choose by `bytes`.
    pub slot_shift: u32,
    /// Most threads with a local heap of their own, 0 to choose by `bytes`.
    pub threads: usize,
    /// Most named caches, 0 to choose by `bytes`.
    pub caches: usize,
    /// Bytes of each guard, 0 for none.
    pub guard: usize,
    /// Multiple that the data begins at, when the address of the start is a multiple of it.
    pub os_page: usize,
}

/// Offsets and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// The pool's core.
    pub core: u64,
    /// A cache line that is always zero.
    pub zero: u64,
    /// A cache line for the slab tier's lock.
    pub slab_lock: u64,
    /// Control block of the page-frag tier.
    pub frag_control: u64,
    /// Control block of the heap tier.
    pub heap_control: u64,
    /// One bit per slot: an orphan may be here.
    pub hints: u64,
    /// Two words per class: which groups of slots to look in for an orphan, and, behind all of those, the latest one.
    pub class_hints: u64,
    /// Shape table, `SHAPE_WORDS` words per class.
    pub shapes: u64,
    /// Cache table, `CACHE_WORDS` words per cache.
    pub caches: u64,
    /// Thread directory, `THREAD_WORDS` words per thread.
    pub directory: u64,
    /// The shared local heap.
    pub shared: u64,
    /// One bit per page: handed out since it came from the OS.
    pub touched: u64,
    /// Length of the long run that starts in a page, 32 bits each.
    pub length: u64,
    /// Fragment in use.
    pub busy: u64,
    /// First fragment of a run.
    pub first: u64,
    /// Last fragment of a run.
    pub last: u64,
    /// The search tree.
    pub tree: u64,
    /// Slot descriptors.
    pub slots: u64,
    /// End of the metadata, a multiple of the OS page.
    pub metadata_end: u64,
    /// Slot 0. Between `metadata_end` and here lies the guard.
    pub data: u64,
    /// End of the last slot, which may be cut short: runs go there, and slabs that need no more.
    pub end: u64,
    /// log2 of the bytes in a slot.
    pub slot_shift: u64,
    /// Number of slots.
    pub slot_count: u64,
    /// Number of cells of each bitmap.
    pub cells: u64,
    /// Size classes and classes of named caches.
    pub classes: u64,
    /// Most named caches.
    pub max_caches: u64,
    /// Most threads with a local heap of their own.
    pub max_threads: u64,
}

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// The least number of bytes that works with the same wishes.
    pub least: usize,
}

/// The slot size for a segment of `bytes`: a 2048th, between 4 and 64 KiB.
#[must_use]
pub const fn slot_shift_for(bytes: usize) -> u32 {
    let shift = match (bytes / 2048).checked_ilog2() {
        Some(shift) => shift,
        None => 0,
    };
    match shift {
        0..12 => 12,
        12..=16 => shift,
        _ => 16,
    }
}

/// Named caches of a segment of `bytes`, unless the user says otherwise: 16 at least, 128 from 8 MiB, 256 from 512 MiB on. Each
/// costs some 150 bytes, and 64 in every local heap.
const fn caches_for(bytes: usize) -> usize {
    match bytes >> 16 {
        0..16 => 16,
        some @ 16..128 => some,
        _ if bytes < 512 << 20 => 128,
        _ => 256,
    }
}

/// Threads with a local heap of their own: one per 256 KiB, since each keeps a slab of every size class that it uses.
const fn threads_for(bytes: usize) -> usize {
    match bytes >> 18 {
        0..64 => 64,
        some @ 64..16384 => some,
        _ => 16384,
    }
}

impl Layout {
    /// The layout for `wish`. O(1).
    pub fn new(wish: &Wish, needs: &Needs) -> Result<Self, TooSmall> {
        let shift = if wish.slot_shift == 0 { slot_shift_for(wish.bytes) } else { wish.slot_shift };
        let slot = 1usize << shift;
        // Bytes that are left for data, whole OS pages, beside metadata for so many slots.
        let room = |slots: usize| {
            let data = wish.guard + Self::areas(wish, needs, shift, slots).data as usize;
            let room = wish.bytes.saturating_sub(data + wish.guard);
            room / wish.os_page.max(FRAGMENT) * wish.os_page.max(FRAGMENT)
        };
        // First as if the metadata took no room, which leaves too few slots; metadata for these leaves room for too many.
        // Each round comes nearer from below.
        let fit = |slots: usize| room(slots).div_ceil(slot);
        let slots = (0..ROUNDS).fold(fit((wish.bytes >> shift).max(1)), |slots, _| fit(fit(slots)).max(1));
        if room(slots) < MIN_SLOTS * slot {
            let least = Self::areas(wish, needs, shift, MIN_SLOTS + 32).data as usize + (MIN_SLOTS + 1) * slot;
            return Err(TooSmall { least: (least + 2 * wish.guard).next_multiple_of(slot.max(wish.os_page)) });
        }
        let layout = Self::areas(wish, needs, shift, slots);
        let data = room(slots).min(slots * slot) as u64;
        Ok(Self { end: layout.data + data, slot_count: data.div_ceil(slot as u64), ..layout })
    }

    fn areas(wish: &Wish, needs: &Needs, shift: u32, slots: usize) -> Self {
        let geometry = SlotGeometry::new(shift);
        let caches = if wish.caches == 0 { caches_for(wish.bytes) } else { wish.caches };
        let threads = if wish.threads == 0 { threads_for(wish.bytes) } else { wish.threads };
        // Every cache has two classes: single items, and arrays.
        let classes = needs.classes + 2 * caches;
        let cells = (slots << (shift - FRAGMENT_SHIFT)).div_ceil(CELL_BITS).next_multiple_of(LEAF_CELLS);
        let mut at = HEADER_BYTES;
        let mut area = |bytes: usize| {
            let start = at;
            at = (at + bytes).next_multiple_of(LINE);
            start as u64
        };
        let mut layout = Self {
            zero: area(LINE),
            core: area(needs.core),
            slab_lock: area(LINE),
            frag_control: area(8 * needs.frag_control),
            heap_control: area(8 * (needs.heap_control + needs.heap_bitmaps * slots.div_ceil(64))),
            hints: area(8 * slots.div_ceil(64)),
            class_hints: area(8 * 2 * classes),
            shapes: area(8 * SHAPE_WORDS * classes),
            caches: area(8 * CACHE_WORDS * caches),
            directory: area(8 * THREAD_WORDS * threads),
            shared: area(needs.local_base + needs.local_class * classes),
            touched: area(8 * cells.div_ceil(64)),
            length: area(4 * cells),
            busy: area(8 * cells),
            first: area(8 * cells),
            last: area(8 * cells),
            tree: area(16 * tree_nodes(cells)),
            slots: area(8 * geometry.stride * slots),
            slot_shift: u64::from(shift),
            cells: cells as u64,
            classes: classes as u64,
            max_caches: caches as u64,
            max_threads: threads as u64,
            ..Self::default()
        };
        let metadata_end = at.next_multiple_of(wish.os_page.max(LINE));
        layout.metadata_end = metadata_end as u64;
        // The start of the metadata is `guard` behind a multiple of the slot size.
        let data = (wish.guard + metadata_end + wish.guard).next_multiple_of(geometry.bytes().max(wish.os_page));
        layout.data = (data - wish.guard) as u64;
        layout
    }

    /// Bytes in the data area.
    #[must_use]
    pub const fn data_len(&self) -> usize {
        (self.end - self.data) as usize
    }
}

/// Bytes kept for the header.
pub const HEADER_BYTES: usize = 1024;
/// How often the number of slots is looked for, see [`Layout::new`].
const ROUNDS: usize = 4;
/// The least number of whole slots that makes a pool.
pub const MIN_SLOTS: usize = 4;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        core: 1000,
        local_base: 64,
        local_class: 32,
        frag_control: 80,
        heap_control: 24,
        heap_bitmaps: 0,
        classes: 56,
    };

    fn wish(bytes: usize) -> Wish {
        Wish { bytes, slot_shift: 0, threads: 0, caches: 0, guard: 4096, os_page: 4096 }
    }

    #[test]
    fn areas_are_aligned_in_order_and_inside() {
        for bytes in [256 << 10, 1 << 20, 2 << 20, 3_000_000, 64 << 20, 1 << 30, 1 << 40] {
            let l = Layout::new(&wish(bytes), &NEEDS).expect("large enough");
            let offsets = [
                l.zero,
                l.core,
                l.frag_control,
                l.heap_control,
                l.hints,
                l.class_hints,
                l.shapes,
                l.caches,
                l.directory,
                l.shared,
                l.touched,
                l.length,
                l.busy,
                l.first,
                l.last,
                l.tree,
                l.slots,
                l.metadata_end,
                l.data,
                l.end,
            ];
            assert!(offsets.is_sorted_by(|a, b| a < b), "{l:?}");
            assert!(offsets[..18].iter().all(|o| o % 64 == 0));
            assert_eq!((l.data + 4096) % (1 << l.slot_shift), 0);
            assert!(4096 + l.end as usize + 4096 <= bytes, "{bytes}: {l:?}");
            assert!(l.cells as usize * 64 * 256 >= l.data_len());
            // Nothing is left over but a slot's alignment before the data, and what would not do for one more behind it.
            assert!(bytes - (8192 + l.end as usize) < (1 << l.slot_shift) + 4096, "{bytes}: {l:?}");
            assert_eq!(l.slot_count as usize, l.data_len().div_ceil(1 << l.slot_shift));
        }
    }

    #[test]
    fn metadata_is_small() {
        for (bytes, most) in [(2 << 20, 10), (64 << 20, 4), (256 << 20, 2), (512 << 20, 2), (16usize << 30, 2)] {
            let l = Layout::new(&wish(bytes), &NEEDS).expect("large enough");
            assert!((bytes - l.data_len()) * 100 < bytes * most, "{bytes}: {}", bytes - l.data_len());
        }
    }

    #[test]
    fn too_small_says_what_works() {
        for bytes in [0, 1, 4096, 30_000] {
            let TooSmall { least } = Layout::new(&wish(bytes), &NEEDS).expect_err("too small");
            assert!(Layout::new(&wish(least), &NEEDS).is_ok(), "{bytes} {least}");
        }
    }

    #[test]
    fn slots_are_a_2048th() {
        let kib = |bytes| (1 << slot_shift_for(bytes)) >> 10;
        assert_eq!([0, 2 << 20, 16 << 20, 64 << 20, 128 << 20, 1 << 40].map(kib), [4, 4, 8, 32, 64, 64]);
    }
}
