//! Tests of the page-frag tier: the world they run in, and small tables. The larger ones have files of
//! their own.
#![allow(unsafe_code)]

mod kill;
mod oracle;
mod storm;

use super::{CONTROL_WORDS, Frag, FragParts, GiveError, Run};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::units::{CELL_BITS, tree_nodes};
use std::boxed::Box;
use std::cell::Cell;
use std::vec::Vec;

std::thread_local! { static VISITS: Cell<usize> = const { Cell::new(0) }; }

/// Called for each word that a search looks at.
pub(super) fn visited() {
    VISITS.with(|v| v.set(v.get() + 1));
}

/// The words of a tier, and the handle. Zeroed memory that is never touched costs nothing.
pub(super) struct World {
    pub frag: Frag,
    _words: [Box<[AtomicU64]>; 6],
    _length: Box<[AtomicU32]>,
}

fn words(count: usize) -> Box<[AtomicU64]> {
    let zeroes: Box<[u64]> = std::vec![0; count].into_boxed_slice();
    // SAFETY: AtomicU64 has the layout of u64 (its documentation says so, with equal alignment on 64 bits).
    unsafe { Box::from_raw(Box::into_raw(zeroes) as *mut [AtomicU64]) }
}

impl World {
    pub fn new(cells: usize, base_address: usize) -> World {
        let w = [
            words(cells),
            words(cells),
            words(cells),
            words(cells.div_ceil(64)),
            words(2 * tree_nodes(cells)),
            words(CONTROL_WORDS),
        ];
        let length: Box<[AtomicU32]> = (0..cells).map(|_| AtomicU32::new(0)).collect();
        let parts = FragParts {
            busy: w[0].as_ptr(),
            first: w[1].as_ptr(),
            last: w[2].as_ptr(),
            length: length.as_ptr(),
            touched: w[3].as_ptr(),
            tree: w[4].as_ptr(),
            control: w[5].as_ptr(),
            cells,
            base_address,
        };
        // SAFETY: the arrays have these lengths, are zeroed and live as long as the world.
        World { frag: unsafe { Frag::new(parts) }, _words: w, _length: length }
    }

    pub fn open(cells: usize) -> World {
        let world = World::new(cells, 0x10_0000);
        world.frag.init(0, cells * CELL_BITS, usize::MAX);
        world
    }

    /// Holds the lock as a thread would that is never seen again.
    pub fn lose_lock(&self) {
        assert!(self.frag.try_lock(1));
    }

    pub fn check(&self) {
        assert_eq!(self.frag.verify(&mut |_| {}), Ok(()));
    }
}

fn run(start: usize, len: usize) -> Run {
    Run { start, len }
}

#[test]
fn takes_low_addresses_first_and_gives_them_back() {
    let w = World::open(8);
    assert_eq!(w.frag.take(3, 1), Some(run(0, 3)));
    assert_eq!(w.frag.take(100, 1), Some(run(3, 100)));
    assert_eq!(w.frag.take(1, 1), Some(run(103, 1)));
    assert_eq!(w.frag.run_at(3), Some(run(3, 100)));
    assert_eq!(w.frag.run_at(4), None);
    assert_eq!(w.frag.run_of(102), Some(run(3, 100)));
    assert_eq!(w.frag.run_of(104), None);
    assert_eq!(w.frag.give(4, |_| panic!("not given")), Err(GiveError::Interior(run(3, 100))));
    assert_eq!(w.frag.give(104, |_| panic!("not given")), Err(GiveError::Free));
    assert_eq!(w.frag.give(512, |_| panic!("not given")), Err(GiveError::OutOfRange));
    assert_eq!(w.frag.give(usize::MAX, |_| panic!("not given")), Err(GiveError::OutOfRange));
    let mut told = None;
    assert_eq!(w.frag.give(3, |run| told = Some(run)), Ok(run(3, 100)));
    assert_eq!(told, Some(run(3, 100)));
    assert_eq!(w.frag.give(3, |_| panic!("not given")), Err(GiveError::Free));
    w.check();
    assert_eq!(w.frag.free_fragments(), 512 - 4);
    assert_eq!(w.frag.largest_free(), 512 - 104);
}

#[test]
fn takes_the_tightest_of_eight_gaps_and_stops_at_an_exact_one() {
    let w = World::open(64);
    // Gaps of these lengths, one fragment in use behind each.
    let gaps = [30, 20, 25, 12, 40, 11, 50, 60, 9, 10];
    let mut at = 0;
    for gap in gaps {
        let hole = w.frag.take(gap, 1).expect("room");
        assert_eq!(hole.start, at);
        assert_eq!(w.frag.take(1, 1), Some(run(at + gap, 1)));
        at += gap + 1;
    }
    let mut at = 0;
    let mut start = Vec::new();
    for gap in gaps {
        assert!(w.frag.give(at, |_| {}).is_ok());
        start.push(at);
        at += gap + 1;
    }
    // 9 and 10 come ninth and tenth; 11 is the tightest of the first eight.
    assert_eq!(w.frag.take(9, 1), Some(run(start[5], 9)));
    // Exact: the ninth gap is not reached, since 12 ends the search.
    assert_eq!(w.frag.take(12, 1), Some(run(start[3], 12)));
    w.check();
}

#[test]
fn exhausts_to_the_last_fragment_and_refuses_odd_requests() {
    let w = World::open(8);
    assert_eq!(w.frag.take(0, 1), None);
    assert_eq!(w.frag.take(1, 0), None);
    assert_eq!(w.frag.take(1, 3), None);
    assert_eq!(w.frag.take(513, 1), None);
    assert_eq!(w.frag.take(usize::MAX, 1), None);
    assert_eq!(w.frag.take(1, 1 << 63), None);
    assert_eq!(w.frag.take(512, 1), Some(run(0, 512)));
    assert_eq!(w.frag.take(1, 1), None);
    assert_eq!(w.frag.run_at(0), Some(run(0, 512)));
    w.check();
}

#[test]
fn aligns_to_addresses_and_finds_the_only_place() {
    // Fragment 0 lies 16 fragments above a multiple of 64.
    let w = World::new(64, 0x10_1000);
    w.frag.init(0, 4096, usize::MAX);
    assert_eq!(w.frag.take(1, 64), Some(run(48, 1)));
    assert_eq!(w.frag.take(64, 64), Some(run(112, 64)));
    let mut one = Vec::new();
    while let Some(run) = w.frag.take(1, 1) {
        one.push(run.start);
    }
    // 2,000 single gaps, none of them aligned, and one aligned at the far end.
    let aligned = |at: usize| (at + 16).is_multiple_of(64);
    let mut holes = 0;
    for &at in one.iter().filter(|&&at| at % 2 == 1 && !aligned(at)) {
        assert!(w.frag.give(at, |_| {}).is_ok());
        holes += 1;
    }
    assert!(holes > 1500);
    assert_eq!(w.frag.take(1, 64), None);
    assert!(w.frag.give(4080, |_| {}).is_ok());
    assert_eq!(w.frag.take(1, 64), Some(run(4080, 1)));
    w.check();
}

#[test]
fn calloc_sees_which_parts_may_be_dirty() {
    let w = World::open(8);
    let mut parts = Vec::new();
    let a = w.frag.take_zeroed(100, 1, false, |part| parts.push(part)).expect("room");
    assert_eq!((a, parts.as_slice()), (run(0, 100), &[][..]));
    let b = w.frag.take_zeroed(100, 1, false, |part| parts.push(part)).expect("room");
    // Page 1 was touched by the first run.
    assert_eq!((b, parts.as_slice()), (run(100, 100), &[run(100, 28)][..]));
    assert!(w.frag.give(0, |_| {}).is_ok() && w.frag.give(100, |_| {}).is_ok());
    let mut pages = Vec::new();
    assert_eq!(
        w.frag.trim(&mut |run| {
            pages.push(run);
            true
        }),
        256
    );
    assert_eq!(pages, [run(0, 256)]);
    parts.clear();
    assert_eq!(w.frag.take_zeroed(512, 1, false, |part| parts.push(part)), Some(run(0, 512)));
    assert!(parts.is_empty());
    w.check();
}

#[test]
fn trim_leaves_pages_touched_that_were_not_released() {
    let w = World::open(8);
    assert!(w.frag.take(512, 1).is_some() && w.frag.give(0, |_| {}).is_ok());
    assert_eq!(w.frag.trim(&mut |_| false), 0);
    let mut parts = Vec::new();
    assert!(w.frag.take_zeroed(512, 1, false, |part| parts.push(part)).is_some());
    assert_eq!(parts, [run(0, 512)]);
}

#[test]
fn reserve_and_extension() {
    let w = World::new(16, 0x10_0000);
    w.frag.init(70, 500, usize::MAX);
    assert_eq!((w.frag.reserve(), w.frag.open_end()), (70, 500));
    assert_eq!(w.frag.take(431, 1), None);
    assert_eq!(w.frag.take(430, 1), Some(run(70, 430)));
    assert_eq!(w.frag.take(1, 1), None);
    assert_eq!(w.frag.take_reserve(71, 1), None);
    assert_eq!(w.frag.take_reserve(70, 1), Some(run(0, 70)));
    assert_eq!(w.frag.free_reserve(), 0);
    assert!(!w.frag.grow_in_place(run(70, 430), 431));
    w.frag.extend(1000);
    w.frag.extend(600);
    assert_eq!(w.frag.open_end(), 1000);
    assert!(w.frag.grow_in_place(run(70, 430), 500));
    assert_eq!(w.frag.run_at(70), Some(run(70, 500)));
    assert_eq!(w.frag.take(430, 1), Some(run(570, 430)));
    assert!(w.frag.give(0, |_| {}).is_ok());
    assert_eq!(w.frag.take(1, 1), None);
    // A run of the reserve does not grow into the rest of it.
    let critical = w.frag.take_reserve(3, 1).expect("reserve");
    assert!(!w.frag.grow_in_place(critical, 4));
    w.check();
}

#[test]
fn internal_runs_are_nobodys_to_give() {
    let w = World::open(8);
    let inner = w.frag.take_internal(70, 1).expect("room");
    assert_eq!(w.frag.give(inner.start, |_| {}), Err(GiveError::Internal));
    assert_eq!(w.frag.give(inner.start + 5, |_| {}), Err(GiveError::Internal));
    assert_eq!(w.frag.run_of(3), None);
    assert_eq!(w.frag.verify(&mut |f| f(inner)), Ok(()));
    assert!(w.frag.verify(&mut |_| {}).is_err());
    w.frag.give_internal(inner);
    w.check();
    assert_eq!(w.frag.free_fragments(), 512);
}

#[test]
fn verify_sees_each_kind_of_damage() {
    let damage: [&dyn Fn(&Frag) -> u64; 7] = [
        &|f| f.parts.busy()[0].fetch_and(!2, Ordering::Relaxed),
        &|f| f.parts.busy()[7].fetch_or(2, Ordering::Relaxed),
        &|f| f.parts.first()[0].fetch_or(2, Ordering::Relaxed),
        &|f| f.parts.last()[0].fetch_or(2, Ordering::Relaxed),
        &|f| f.parts.length()[0].swap(77, Ordering::Relaxed).into(),
        &|f| f.parts.touched()[0].swap(0, Ordering::Relaxed),
        &|f| f.parts.tree(tree_nodes(8))[0].fetch_add(1, Ordering::Relaxed),
    ];
    for (kind, damage) in damage.iter().enumerate() {
        let w = World::open(8);
        assert!(w.frag.take(10, 1).is_some() && w.frag.take(100, 1).is_some());
        w.check();
        damage(&w.frag);
        assert!(w.frag.verify(&mut |_| {}).is_err(), "damage {kind} unseen");
    }
}

/// Words that a take of `len` looks at in a segment of `cells` cells that is full of small gaps, with the
/// only long gap at its end.
fn cost(cells: usize, len: usize) -> usize {
    let w = World::open(cells);
    let all = cells * CELL_BITS;
    // Every other fragment of all but the last leaf is in use.
    for cell in w.frag.parts.busy().iter().take(cells - 8) {
        cell.store(0x5555_5555_5555_5555, Ordering::Relaxed);
    }
    w.frag.rebuild(w.frag.open());
    VISITS.with(|v| v.set(0));
    let taken = w.frag.take(len, 1).expect("room");
    assert_eq!(taken.start, if len == 1 { 1 } else { all - 512 - 1 });
    VISITS.with(Cell::get)
}

#[test]
fn a_search_costs_the_logarithm_of_the_segment() {
    // 2 MiB, 256 MiB, 16 GiB.
    let sizes = [128, 128 << 7, 128 << 13];
    for len in [1, 2, 100] {
        let costs = sizes.map(|cells| cost(cells, len));
        std::eprintln!("words visited for {len} fragments at 2 MiB, 256 MiB, 16 GiB: {costs:?}");
        // Per level at most 8 nodes on the way down and 8 on the way up, and two leaves of cells.
        for (cells, cost) in sizes.iter().zip(costs) {
            let levels = 1 + (cells / 8_usize).ilog2().div_ceil(3) as usize;
            assert!(cost <= 16 * levels + 4 * 8 * 2, "{cost} words at {cells} cells");
        }
    }
}
