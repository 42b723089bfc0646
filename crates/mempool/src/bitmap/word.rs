//! Arithmetic on one cell: pure functions of a `u64`, no atomics, no memory.
//!
//! A cell is 64 bits; 1 means in use, 0 means free. Bit 0 is the lowest position. Nothing here loops
//! over bits: a search takes as many steps as the logarithm of the length that is asked for. The limit
//! is the cell; what spans cells is the business of the parent module.

/// Bits in a cell.
pub const BITS: u32 = u64::BITS;

/// A cell with `len` bits set from `start` on. Bits that would lie beyond bit 63 are left out.
///
/// `start` is below 64 and `len` at most 64; what exceeds that is cut off.
#[inline]
#[must_use]
pub const fn mask(start: u32, len: u32) -> u64 {
    if len == 0 || start >= BITS {
        return 0;
    }
    let ones = if len >= BITS { u64::MAX } else { (1 << len) - 1 };
    ones << start
}

/// The positions at which `num` zeros begin, as a set of bits. Empty for `num` 0 or above 64.
#[inline]
#[must_use]
pub const fn starts(cell: u64, num: u32) -> u64 {
    if num == 0 || num > BITS {
        return 0;
    }
    // Invariant: bit i of `zeros` is set if and only if `have` zeros begin at i. The shift brings in
    // zeros at the top, so nothing reaches beyond bit 63, and what ends there counts.
    let mut zeros = !cell;
    let mut have = 1;
    while have < num && zeros != 0 {
        let step = if have < num - have { have } else { num - have };
        zeros &= zeros >> step;
        have += step;
    }
    zeros
}

/// The lowest position of `num` consecutive zeros in `cell`; `None` if there is none, or if `num` is 0
/// or above 64. Every position is considered, those whose region ends at bit 63 included.
#[inline]
#[must_use]
pub const fn find_region(cell: u64, num: u32) -> Option<u32> {
    let found = starts(cell, num);
    if found == 0 { None } else { Some(found.trailing_zeros()) }
}

/// Length of the longest run of zeros in `cell`, 0 to 64.
#[inline]
#[must_use]
pub const fn longest_zeros(cell: u64) -> u32 {
    let one = !cell;
    if one == 0 {
        return 0;
    }
    if one == u64::MAX {
        return BITS;
    }
    // `p[k]`: where 2^k zeros begin. Then the longest run is built from the largest power down.
    let mut p = [one, 0, 0, 0, 0, 0];
    let mut k = 0;
    while k < 5 {
        let next = p[k] & (p[k] >> (1 << k));
        if next == 0 {
            break;
        }
        k += 1;
        p[k] = next;
    }
    let mut cur = p[k];
    let mut len = 1 << k;
    while k > 0 {
        k -= 1;
        let more = cur & (p[k] >> len);
        if more != 0 {
            cur = more;
            len += 1 << k;
        }
    }
    len
}

/// Zeros at the low end of `cell`, 0 to 64.
#[inline]
#[must_use]
pub const fn low_zeros(cell: u64) -> u32 {
    cell.trailing_zeros()
}

/// Zeros at the high end of `cell`, 0 to 64.
#[inline]
#[must_use]
pub const fn high_zeros(cell: u64) -> u32 {
    cell.leading_zeros()
}
