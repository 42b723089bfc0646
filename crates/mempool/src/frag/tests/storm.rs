//! Several threads at once: nothing is handed out twice, nothing is lost, nobody waits for ever.

use super::{Run, World};
use crate::sync::{AtomicU64, Ordering};
use crate::units::CELL_BITS;
use std::thread;
use std::vec::Vec;

/// A small generator of pseudo-random numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// Writes `by` over `from` in each fragment of a run's shadow.
fn mark(shadow: &[AtomicU64], run: Run, from: u64, by: u64) {
    for word in &shadow[run.start..run.end()] {
        assert_eq!(word.swap(by, Ordering::Relaxed), from, "a fragment has two owners");
    }
}

fn worker(w: &World, shadow: &[AtomicU64], me: u64, rounds: usize) {
    let mut dice = Dice(me.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut mine: Vec<Run> = Vec::new();
    for _ in 0..rounds {
        match dice.below(8) {
            0..=3 => {
                let len = if dice.below(10) == 0 { 1 + dice.below(700) } else { 1 + dice.below(40) };
                let align = 1 << dice.below(8).saturating_sub(3);
                if let Some(run) = w.frag.take(len, align) {
                    assert!(run.len == len && (run.start + 0x1000).is_multiple_of(align));
                    mark(shadow, run, 0, me);
                    mine.push(run);
                }
            }
            4 if !mine.is_empty() => {
                let nth = dice.below(mine.len());
                let (old, by) = (mine[nth], 1 + dice.below(90));
                if w.frag.grow_in_place(old, old.len + by) {
                    mark(shadow, Run { start: old.end(), len: by }, 0, me);
                    mine[nth].len += by;
                }
            }
            5 if dice.below(50) == 0 => drop(w.frag.trim(&mut |_| true)),
            _ if !mine.is_empty() => {
                let run = mine.swap_remove(dice.below(mine.len()));
                assert_eq!(w.frag.run_at(run.start), Some(run));
                assert_eq!(w.frag.give(run.start, |run| mark(shadow, run, me, 0)), Ok(run));
            }
            _ => {}
        }
        if mine.len() > 60 {
            let run = mine.swap_remove(dice.below(mine.len()));
            assert_eq!(w.frag.give(run.start, |run| mark(shadow, run, me, 0)), Ok(run));
        }
    }
    for run in mine {
        assert_eq!(w.frag.give(run.start, |run| mark(shadow, run, me, 0)), Ok(run));
    }
}

fn storm(cells: usize, threads: u64, rounds: usize, lost_lock: bool) {
    let w = World::open(cells);
    if lost_lock {
        w.lose_lock();
    }
    let shadow: Vec<AtomicU64> = (0..cells * CELL_BITS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for me in 1..=threads {
            let (w, shadow) = (&w, &shadow);
            scope.spawn(move || worker(w, shadow, me, rounds));
        }
    });
    if lost_lock {
        w.frag.unlock();
    }
    w.check();
    assert_eq!(w.frag.free_fragments(), cells * CELL_BITS);
    assert_eq!(w.frag.take(cells * CELL_BITS, 1), Some(Run { start: 0, len: cells * CELL_BITS }));
}

const ROUNDS: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };

#[test]
fn threads_share_a_roomy_tier() {
    storm(256, 4, ROUNDS, false);
}

#[test]
fn threads_share_a_tight_tier() {
    storm(16, 4, ROUNDS, false);
}

#[test]
fn a_thread_that_vanished_with_the_lock_stops_nobody() {
    storm(64, 3, ROUNDS / 10, true);
}

#[test]
fn of_many_givers_one_wins() {
    let w = World::open(8);
    for _ in 0..ROUNDS / 20 {
        let run = w.frag.take(70, 1).expect("room");
        let wins = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    if w.frag.give(run.start, |_| {}).is_ok() {
                        wins.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(wins.load(Ordering::Relaxed), 1);
    }
    w.check();
}

/// While memory for it is free at every moment, a taker is never told that there is none, whatever claims
/// others roll back.
#[test]
fn none_is_not_said_lightly() {
    let w = World::open(16);
    // Each of 3 threads holds at most 100 of 1,024 fragments at a time: a gap of 100 is always there.
    thread::scope(|scope| {
        for me in 1..=3u64 {
            let w = &w;
            scope.spawn(move || {
                let mut dice = Dice(me * 77);
                for _ in 0..ROUNDS / 4 {
                    let run = w.frag.take(1 + dice.below(100), 1).expect("there is room");
                    assert!(w.frag.give(run.start, |_| {}).is_ok());
                }
            });
        }
    });
    w.check();
}
