//! Models of claiming: every interleaving of the threads.
#![allow(unsafe_code)]

use super::{alloc, cell_alloc, claim, clear};
use crate::sync::{AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::vec::Vec;

fn bitmap(cells: usize) -> Arc<Vec<AtomicU64>> {
    Arc::new((0..cells).map(|_| AtomicU64::new(0)).collect())
}

/// Two claimers whose ranges overlap in the middle cell: never both, and a loser leaves no bit behind.
#[test]
fn loom_overlapping_claims_roll_back_their_own_bits() {
    loom::model(|| {
        let b = bitmap(3);
        let other = {
            let b = b.clone();
            thread::spawn(move || claim(&b, 32, 64).is_ok())
        };
        let mine = claim(&b, 64, 128).is_ok();
        let theirs = other.join().unwrap();
        assert!(!(mine && theirs), "one bit, two owners");
        let expected = match (mine, theirs) {
            (true, _) => [0, !0, !0],
            (_, true) => [!0 << 32, !0 >> 32, 0],
            _ => [0, 0, 0],
        };
        let left: Vec<u64> = b.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
        assert_eq!(left, expected);
    });
}

/// What the last owner wrote is seen by the next: clear pairs with claim.
#[test]
fn loom_a_claim_sees_what_the_last_owner_did() {
    loom::model(|| {
        let b = bitmap(1);
        let memory = Arc::new(UnsafeCell::new(0));
        assert_eq!(claim(&b, 5, 1), Ok(()));
        let other = {
            let (b, memory) = (b.clone(), memory.clone());
            thread::spawn(move || {
                // SAFETY: the model checks that nobody else accesses the memory meanwhile.
                memory.with_mut(|memory| unsafe { *memory = 7 });
                clear(&b, 5, 1);
            })
        };
        if claim(&b, 5, 1).is_ok() {
            // SAFETY: as above.
            memory.with_mut(|memory| unsafe {
                assert_eq!(*memory, 7);
                *memory = 8;
            });
        }
        other.join().unwrap();
    });
}

/// A cell with room for all is never full because somebody else is at it.
#[test]
fn loom_a_busy_cell_is_not_full() {
    loom::model(|| {
        let b = bitmap(1);
        let others: Vec<_> = (0..2)
            .map(|_| {
                let b = b.clone();
                thread::spawn(move || cell_alloc(&b[0], 21, 64).expect("there is room for three"))
            })
            .collect();
        let mut at = std::vec![cell_alloc(&b[0], 21, 64).expect("there is room for three")];
        at.extend(others.into_iter().map(|other| other.join().unwrap()));
        at.sort_unstable();
        assert_eq!(at, [0, 21, 42]);
    });
}

/// Two allocators of regions that span cells.
#[test]
fn loom_regions_never_overlap() {
    loom::model(|| {
        let b = bitmap(3);
        let other = {
            let b = b.clone();
            thread::spawn(move || alloc(&b, 192, 90))
        };
        let mine = alloc(&b, 192, 90);
        let theirs = other.join().unwrap();
        if let (Some(mine), Some(theirs)) = (mine, theirs) {
            assert!(mine + 90 <= theirs || theirs + 90 <= mine);
        }
        assert!(mine.is_some() || theirs.is_some());
    });
}
