//! Size classes: 16-byte steps to 128 bytes, then eight per doubling, 64 in all up to 16 KiB.
//!
//! The steps keep the waste inside an item below an eighth, and few enough classes that a program with
//! few live objects doesn't hold a slab of each (docs/DECISIONS.md has the figures).
#![allow(unsafe_code)]

use crate::units::GRANULE;

/// Number of size classes.
pub const CLASSES: usize = 64;
/// The largest size that a size class serves. A pool with small slots serves less, see [`largest`].
pub const MAX_SMALL: usize = 16 * 1024;
/// Classes in steps of [`GRANULE`] at the start.
const LINEAR: usize = 8;
/// Classes per doubling.
const STEPS: usize = 8;

/// The item size of class `class`, in bytes.
#[must_use]
pub const fn size_of(class: usize) -> usize {
    if class < LINEAR {
        return (class + 1) * GRANULE;
    }
    let doubling = (class - LINEAR) / STEPS;
    let step = (class - LINEAR) % STEPS + 1;
    let base = (LINEAR * GRANULE) << doubling;
    base + step * (base / STEPS)
}

/// Class by size in granules, rounded up.
static TABLE: [u8; MAX_SMALL / GRANULE + 1] = table();

const fn table() -> [u8; MAX_SMALL / GRANULE + 1] {
    let mut table = [0; MAX_SMALL / GRANULE + 1];
    let mut class = 0;
    let mut granules = 0;
    while granules < table.len() {
        while size_of(class) < granules * GRANULE {
            class += 1;
        }
        table[granules] = class as u8;
        granules += 1;
    }
    table
}

const _: () = assert!(size_of(CLASSES - 1) == MAX_SMALL);
const _: () = assert!(size_of(LINEAR) == 144 && size_of(LINEAR + STEPS) == 288);

/// What the descriptors of the classes' slabs have as reciprocal.
static RECIPROCALS: [u32; CLASSES] = reciprocals();

const fn reciprocals() -> [u32; CLASSES] {
    let mut table = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        table[class] = (1u64 << 32).div_ceil(size_of(class) as u64) as u32;
        class += 1;
    }
    table
}

/// The reciprocal of the item size of `class`, a size class: 2^32 divided by it, rounded up.
#[inline(always)]
#[must_use]
pub(crate) fn reciprocal_of(class: usize) -> u64 {
    debug_assert!(class < CLASSES);
    // SAFETY: the caller's contract; `class_of` keeps it, whose table holds nothing else.
    unsafe { u64::from(*RECIPROCALS.get_unchecked(class)) }
}

/// The item size of which this is the reciprocal; 0 of 0. Sizes are at most 2^14, so 2^32 over a reciprocal that was rounded up is less than a 16th below
/// the size, which rounding up takes away.
#[inline(always)]
#[must_use]
pub(crate) fn size_of_reciprocal(reciprocal: u32) -> usize {
    u32::MAX.checked_div(reciprocal).map_or(0, |size| size as usize + 1)
}

/// The class that serves `size` bytes, which are at most [`MAX_SMALL`]. O(1).
#[inline(always)]
#[must_use]
pub(crate) fn class_of(size: usize) -> usize {
    debug_assert!(size <= MAX_SMALL);
    // SAFETY: the caller's contract keeps the index at or below MAX_SMALL / GRANULE; the table has one more.
    unsafe { *TABLE.get_unchecked(size.div_ceil(GRANULE)) as usize }
}

/// As [`class_of`], for a number of granules, at compile time.
#[must_use]
pub(super) const fn class_of_granules(granules: usize) -> usize {
    TABLE[granules] as usize
}

/// The largest item of a size class in a pool with slots of `1 << shift` bytes: a quarter of the largest slot, an eighth of others.
/// From a quarter on the page-frag tier can park runs.
#[must_use]
pub const fn largest(shift: u32) -> usize {
    if (1 << shift) < 4 * MAX_SMALL { (1 << shift) / 8 } else { MAX_SMALL }
}

/// The smallest class whose items hold `size` bytes at a multiple of `align`, a power of two. O(1).
///
/// Items begin at multiples of their size within a slot, so the size must be a multiple of `align`. The class of the
/// next such multiple is one: where classes are closer together than `align` each multiple of it is a class, and where they are
/// further apart all classes are multiples of it.
#[inline(always)]
#[must_use]
pub fn class_of_aligned(size: usize, align: usize) -> Option<usize> {
    room_of_aligned(size, align).map(class_of)
}

/// That multiple, if there is a class for it. One comparison for size and alignment: it is not less than either.
#[inline(always)]
pub fn room_of_aligned(size: usize, align: usize) -> Option<usize> {
    let room = size.max(1).checked_add(align - 1)? & !(align - 1);
    (room <= MAX_SMALL).then_some(room)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_tightest_class() {
        for size in 0..=MAX_SMALL {
            let class = class_of(size);
            assert!(size_of(class) >= size);
            assert!(class == 0 || size_of(class - 1) < size, "{size}");
        }
    }

    #[test]
    fn reciprocals_give_sizes_back() {
        assert!((0..CLASSES).all(|class| size_of_reciprocal(reciprocal_of(class) as u32) == size_of(class)));
        assert_eq!(size_of_reciprocal(0), 0);
    }

    #[test]
    fn waste_inside_an_item_is_below_an_eighth_above_128() {
        for size in 129..=MAX_SMALL {
            assert!((size_of(class_of(size)) - size) * 8 < size_of(class_of(size)));
        }
    }

    #[test]
    fn aligned_classes_are_multiples() {
        for shift in 0..=14 {
            let align = 1 << shift;
            for size in [1, 16, 100, 129, 1000, 5000, MAX_SMALL] {
                let class = class_of_aligned(size, align).expect("the power of two above both is a class");
                assert!(size_of(class) >= size && size_of(class).is_multiple_of(align));
            }
            for size in 0..=MAX_SMALL {
                let first = (0..CLASSES).find(|&class| size_of(class) >= size && size_of(class) & (align - 1) == 0);
                assert_eq!(class_of_aligned(size, align), first, "{size} at {align}");
            }
        }
        assert_eq!(class_of_aligned(8, 2 * MAX_SMALL), None);
        assert_eq!(class_of_aligned(usize::MAX, 4096), None);
        assert_eq!(class_of_aligned(1, 1 << 63), None);
    }
}
