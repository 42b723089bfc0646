//! Tests of the bitmaps, and the hook that stops a thread between two writes.
use super::*;
use std::cell::Cell;
use std::vec::Vec;

std::thread_local! { static LEFT: Cell<Option<usize>> = const { Cell::new(None) }; }

/// What a stopped thread unwinds with.
pub(crate) struct Stopped;

/// Called after each write; unwinds when the steps that `stop_after` allowed are used up.
pub(crate) fn step() {
    LEFT.with(|left| match left.get() {
        None => {}
        Some(0) => {
            left.set(None);
            std::panic::resume_unwind(std::boxed::Box::new(Stopped));
        }
        Some(n) => left.set(Some(n - 1)),
    });
}

/// Runs `f` and stops it for ever after `steps` writes and the one that follows. True if it came to its end.
pub(crate) fn stop_after(steps: usize, f: impl FnOnce()) -> bool {
    LEFT.with(|left| left.set(Some(steps)));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    LEFT.with(|left| left.set(None));
    match result {
        Ok(()) => true,
        Err(stopped) if stopped.is::<Stopped>() => false,
        Err(other) => std::panic::resume_unwind(other),
    }
}

mod naive {
    //! The obvious way, one bit at a time.

    pub fn find(cell: u64, num: u32) -> Option<u32> {
        (0..64).find(|&at| num > 0 && at + num <= 64 && (at..at + num).all(|bit| cell >> bit & 1 == 0))
    }

    pub fn longest(cell: u64) -> u32 {
        let (mut longest, mut run) = (0, 0);
        for bit in 0..64 {
            run = if cell >> bit & 1 == 0 { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        longest
    }
}

/// (cell, number of zeros wanted, where they are)
const REGIONS: [(u64, u32, Option<u32>); 16] = [
    (0, 1, Some(0)),
    (0, 64, Some(0)),
    (0, 65, None),
    (0, 0, None),
    (u64::MAX, 1, None),
    (u64::MAX >> 1, 1, Some(63)),
    (u64::MAX >> 1, 2, None),
    (u64::MAX >> 5, 5, Some(59)),
    (u64::MAX >> 5, 6, None),
    (1, 63, Some(1)),
    (1 << 63, 63, Some(0)),
    (1 << 31, 32, Some(32)),
    (1 << 32, 32, Some(0)),
    (0x5555_5555_5555_5555, 1, Some(1)),
    (0x5555_5555_5555_5555, 2, None),
    (0b1101_0011, 2, Some(2)),
];

#[test]
fn regions_are_found_at_every_position() {
    for (cell, num, at) in REGIONS {
        assert_eq!(word::find_region(cell, num), at, "{cell:#x} {num}");
        assert_eq!(naive::find(cell, num), at, "{cell:#x} {num}");
    }
    // One gap, at every position and of every length.
    for len in 1..=64 {
        for at in 0..=64 - len {
            let cell = !mask(at, len);
            assert_eq!(word::find_region(cell, len), Some(at));
            assert_eq!(word::find_region(cell, len + 1), None);
            assert_eq!(word::longest_zeros(cell), len);
        }
    }
}

#[test]
fn masks_have_their_bits_and_no_others() {
    for start in 0..64 {
        for len in 0..=64 {
            let bits = (0..64).filter(|&bit| bit >= start && bit < start + len).fold(0u64, |m, bit| m | 1 << bit);
            assert_eq!(mask(start, len), bits, "{start} {len}");
        }
    }
    assert_eq!((mask(64, 1), mask(0, 65)), (0, u64::MAX));
}

#[test]
fn words_agree_with_the_obvious_way() {
    // All small cells, at the low end, at the high end and in the middle of ones and of zeros.
    let bits = if cfg!(debug_assertions) { 9 } else { 12 };
    for small in 0..1u64 << bits {
        let top = 64 - bits;
        for cell in [small, !mask(0, bits) | small, small << top, small << top | mask(0, top), small << 26] {
            agree(cell, 1..=bits + 2);
        }
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut dice = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..if cfg!(debug_assertions) { 200 } else { 4_000 } {
        // Dense, even and sparse.
        let (a, b, c) = (dice(), dice(), dice());
        for cell in [a, a & b, a & b & c, a & b & c & dice() & dice(), a | b, a | b | c] {
            agree(cell, 0..=65);
        }
    }
}

fn agree(cell: u64, nums: std::ops::RangeInclusive<u32>) {
    for num in nums {
        assert_eq!(word::find_region(cell, num), naive::find(cell, num), "{cell:#x} {num}");
        let starts = word::starts(cell, num);
        assert_eq!((starts != 0).then(|| starts.trailing_zeros()), naive::find(cell, num));
    }
    assert_eq!(word::longest_zeros(cell), naive::longest(cell), "{cell:#x}");
    assert_eq!(word::low_zeros(cell), (0..64).take_while(|&bit| cell >> bit & 1 == 0).count() as u32);
    assert_eq!(word::high_zeros(cell), (0..64).take_while(|&bit| cell << bit >> 63 == 0).count() as u32);
}

fn bitmap(cells: &[u64]) -> Vec<AtomicU64> {
    cells.iter().map(|&cell| AtomicU64::new(cell)).collect()
}

fn values(bitmap: &[AtomicU64]) -> Vec<u64> {
    bitmap.iter().map(|cell| cell.load(Ordering::Relaxed)).collect()
}

#[test]
fn a_cell_hands_out_its_items_and_no_more() {
    let cell = AtomicU64::new(0);
    assert_eq!(cell_alloc(&cell, 3, 10), Some(0));
    assert_eq!(cell_alloc(&cell, 7, 10), Some(3));
    assert_eq!(cell_alloc(&cell, 1, 10), None);
    assert_eq!(cell_alloc(&cell, 1, 64), Some(10));
    assert_eq!(cell_alloc(&cell, 53, 64), Some(11));
    assert_eq!(cell.load(Ordering::Relaxed), u64::MAX);
    assert_eq!(cell_alloc(&AtomicU64::new(u64::MAX >> 1), 1, 64), Some(63));
}

#[test]
fn regions_begin_and_end_at_any_item() {
    let b = bitmap(&[!0 >> 3, 0, 0, !0 << 2]);
    // Three at the end of cell 0, two whole cells, two at the beginning of cell 3.
    assert_eq!(alloc(&b, 256, 134), None);
    assert_eq!(alloc(&b, 194, 133), Some(61));
    assert_eq!(values(&b), [!0, !0, !0, !0]);
    let b = bitmap(&[0, 0]);
    assert_eq!(alloc(&b, 100, 101), None);
    assert_eq!(alloc(&b, 100, 60), Some(0));
    assert_eq!(alloc(&b, 100, 40), Some(60));
    assert_eq!(alloc(&b, 100, 1), None);
    assert_eq!((alloc(&b, 100, 0), alloc(&b, 1 << 40, 29)), (None, None));
    assert_eq!(alloc(&b, 1 << 40, 28), Some(100));
}

#[test]
fn whole_cells_are_found_one_or_several() {
    let b = bitmap(&[1, 0, 1 << 63, 0, 0, 0]);
    assert_eq!(alloc_cells(&b, 6 * 64, 4), None);
    assert_eq!(alloc_cells(&b, 6 * 64, 0), None);
    assert_eq!(alloc_cells(&b, 6 * 64 - 1, 3), None);
    assert_eq!(alloc_cells(&b, 6 * 64, 1), Some(64));
    assert_eq!(alloc_cells(&b, 6 * 64, 3), Some(192));
    assert_eq!(alloc_cells(&b, 6 * 64, 1), None);
    // The tails of the cells in use are still to be had.
    assert_eq!(alloc(&b, 6 * 64, 63), Some(1));
    assert_eq!(alloc(&b, 6 * 64, 63), Some(128));
}

#[test]
fn a_claim_takes_all_or_nothing() {
    for used in 0..192 {
        for (start, len) in [(0, 192), (3, 61), (60, 10), (63, 1), (64, 64), (10, 150), (5, 0)] {
            let before = bitmap(&[0, 0, 0]);
            clear(&before, 0, 192);
            assert_eq!(claim(&before, used, 1), Ok(()));
            let was = values(&before);
            let hit = (start..start + len).contains(&used);
            assert_eq!(claim(&before, start, len), if hit { Err(used) } else { Ok(()) });
            assert_eq!(count(&before, 0, 192), if hit { 1 } else { 1 + len });
            if !hit {
                clear(&before, start, len);
            }
            assert_eq!(values(&before), was, "{start} {len} with {used} in use");
        }
    }
    // Beyond the end: nothing is claimed.
    let b = bitmap(&[0, 0]);
    assert_eq!(claim(&b, 100, 64), Err(128));
    assert_eq!(claim(&b, 500, 1), Err(448));
    assert_eq!(values(&b), [0, 0]);
}

#[test]
fn readers_agree_with_the_obvious_way() {
    let b = bitmap(&[0x8000_0000_0000_0001, 0, !0, 0x00ff_0000_0000_ff00]);
    let bit = |at: usize| at < 256 && b[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 != 0;
    for from in 0..260 {
        assert_eq!(super::test(&b, from), bit(from));
        assert_eq!(prev_set(&b, from), (0..=from).rev().find(|&at| bit(at)));
        for end in [0, 1, 63, 64, 65, 100, 128, 191, 192, 200, 256] {
            assert_eq!(next_set(&b, from, end), (from..end).find(|&at| bit(at)));
            assert_eq!(next_clear(&b, from, end), (from..end).find(|&at| !bit(at)));
            let len = end.saturating_sub(from);
            assert_eq!(count(&b, from, len), (from..from + len).filter(|&at| bit(at)).count());
        }
    }
}

#[test]
fn threads_never_share_an_item() {
    const ITEMS: usize = 300;
    let b = bitmap(&[0; 5]);
    let shadow = bitmap(&[0; ITEMS]);
    std::thread::scope(|scope| {
        for me in 1..=4u64 {
            let (b, shadow) = (&b, &shadow);
            scope.spawn(move || {
                for round in 0..20_000u64 {
                    let n = 1 + (round * me * 7 % 90) as usize;
                    let (at, n) = match round % 3 {
                        0 => (alloc_cells(b, ITEMS, 1), 64),
                        1 => (
                            cell_alloc(&b[round as usize % 4], 9, 64).map(|at| at as usize + round as usize % 4 * 64),
                            9,
                        ),
                        _ => (alloc(b, ITEMS, n), n),
                    };
                    let Some(at) = at else { continue };
                    assert!(at + n <= ITEMS);
                    let own = &shadow[at..at + n];
                    own.iter().for_each(|item| assert_eq!(item.swap(me, Ordering::Relaxed), 0, "shared"));
                    own.iter().for_each(|item| assert_eq!(item.swap(0, Ordering::Relaxed), me, "shared"));
                    clear(b, at, n);
                }
            });
        }
    });
    assert_eq!(values(&b), [0; 5]);
}

#[test]
fn a_stopped_claim_leaves_only_its_own_bits() {
    for steps in 0..=6 {
        let b = bitmap(&[0, 0, 1 << 40]);
        let finished = stop_after(steps, || assert_eq!(claim(&b, 60, 120), Err(168)));
        let left = values(&b);
        assert_ne!(left[2] & 1 << 40, 0, "the bit of another was cleared");
        assert_eq!(finished, steps >= 6);
        assert!(!finished || left == [0, 0, 1 << 40]);
    }
}
