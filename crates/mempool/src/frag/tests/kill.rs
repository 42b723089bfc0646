//! A thread that vanishes after any one of its writes, and the repair in the child of a fork.

use super::{Frag, Run, World, run};
use crate::bitmap::stop_after;
use std::vec::Vec;

/// The runs that live before the operation that is stopped.
const BEFORE: [(usize, usize); 4] = [(0, 10), (10, 100), (110, 40), (300, 64)];

fn world() -> World {
    let w = World::open(16);
    for (start, len) in BEFORE {
        // A filler up to where the run is to begin.
        let mut filler = None;
        while filler.is_none_or(|run: Run| run.end() < start) && start > 0 {
            match w.frag.take(1, 1) {
                Some(run) if run.start < start => filler = Some(run),
                Some(run) => {
                    assert!(w.frag.give(run.start, |_| {}).is_ok());
                    break;
                }
                None => panic!("no room"),
            }
        }
        assert_eq!(w.frag.take(len, 1), Some(run(start, len)));
    }
    let mut fillers = Vec::new();
    w.frag.runs(&mut |run| fillers.push((run.start, run.len)));
    for (start, _) in fillers.into_iter().filter(|run| !BEFORE.contains(run)) {
        assert!(w.frag.give(start, |_| {}).is_ok());
    }
    w.check();
    w
}

/// Says whether these runs may be what is left.
type Kept<'a> = dyn Fn(&[(usize, usize)]) -> bool + 'a;

/// Stops `op` after each of its writes.
fn at_every_step(op: &dyn Fn(&Frag), lost_lock: bool, kept: &Kept<'_>) -> usize {
    for steps in 0.. {
        let w = world();
        if lost_lock {
            w.lose_lock();
        }
        let finished = stop_after(steps, || op(&w.frag));
        w.frag.repair(&mut |_| {});
        w.check();
        let mut runs = Vec::new();
        w.frag.runs(&mut |run| runs.push((run.start, run.len)));
        assert!(kept(&runs), "after {steps} steps: {runs:?}");
        let used: usize = runs.iter().map(|&(_, len)| len).sum();
        assert_eq!(w.frag.free_fragments(), 1024 - used, "after {steps} steps");
        // The tier works on: all that is free can be taken.
        let mut gaps = Vec::new();
        w.frag.gaps(&mut |gap| gaps.push(gap));
        for gap in gaps {
            assert!(w.frag.take(gap.len, 1).is_some_and(|run| run.len == gap.len));
        }
        assert_eq!(w.frag.take(1, 1), None);
        if finished {
            return steps;
        }
    }
    0
}

fn with(extra: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut runs = BEFORE.to_vec();
    runs.extend(extra);
    runs.sort_unstable();
    runs
}

fn without(start: usize) -> Vec<(usize, usize)> {
    BEFORE.iter().copied().filter(|run| run.0 != start).collect()
}

#[test]
fn take_is_whole_or_nothing() {
    for (len, at) in [(7, 150), (100, 150), (200, 364), (64, 150)] {
        for lost_lock in [false, true] {
            let kept = |runs: &[(usize, usize)]| runs == BEFORE || runs == with(&[(at, len)]);
            let steps = at_every_step(&|f| assert!(f.take(len, 1).is_some()), lost_lock, &kept);
            assert!(steps >= 5, "{steps}");
        }
    }
}

#[test]
fn give_is_whole_or_nothing() {
    for (start, _) in BEFORE {
        for lost_lock in [false, true] {
            let kept = |runs: &[(usize, usize)]| runs == BEFORE || runs == without(start);
            let steps = at_every_step(&|f| assert!(f.give(start, |_| {}).is_ok()), lost_lock, &kept);
            assert!(steps >= 4, "{steps}");
        }
    }
}

#[test]
fn growth_is_whole_or_nothing() {
    for (old, new) in [((110, 40), 41), ((110, 40), 63), ((110, 40), 64), ((110, 40), 180), ((300, 64), 300)] {
        for lost_lock in [false, true] {
            let mut grown = without(old.0);
            grown.push((old.0, new));
            grown.sort_unstable();
            let kept = |runs: &[(usize, usize)]| runs == BEFORE || runs == grown;
            let op = |f: &Frag| assert!(f.grow_in_place(run(old.0, old.1), new));
            let steps = at_every_step(&op, lost_lock, &kept);
            assert!(steps >= 6, "{steps}");
        }
    }
}

#[test]
fn the_others_leave_the_runs_alone() {
    for lost_lock in [false, true] {
        let same = |runs: &[(usize, usize)]| runs == BEFORE;
        at_every_step(&|f| assert!(f.take_internal(70, 1).is_some()), lost_lock, &same);
        at_every_step(&|f| assert!(f.trim(&mut |_| true) > 0 || lost_lock), lost_lock, &same);
        at_every_step(&|f| f.extend(1024), lost_lock, &same);
    }
}

/// A parked run is free in the child: its owner had given it up, and who had taken it over may be gone.
#[test]
fn parked_runs_are_used_or_free() {
    for lost_lock in [false, true] {
        let used_or_free = |runs: &[(usize, usize)]| runs == BEFORE || runs == without(10);
        let park = |f: &Frag| assert_eq!(f.park(10, 1000), Some(run(10, 100)));
        at_every_step(&park, lost_lock, &used_or_free);
        let reuse = |f: &Frag| {
            park(f);
            assert_eq!(f.unpark(10, 100), Some(run(10, 100)));
        };
        at_every_step(&reuse, lost_lock, &used_or_free);
        let give = |f: &Frag| {
            park(f);
            assert!(f.give_parked(10, 100));
        };
        at_every_step(&give, lost_lock, &used_or_free);
        let give_up = |f: &Frag| assert_eq!(f.park_given(10, |_| {}), Some(run(10, 100)));
        at_every_step(&give_up, lost_lock, &used_or_free);
    }
}

#[test]
fn parked_runs_are_cut_and_joined_whole_or_not_at_all() {
    let cut = |f: &Frag| {
        // What lies behind the others, whole.
        let all = f.take(600, 1).expect("room");
        assert_eq!(f.park(all.start, 1000), Some(all));
        let all = f.unpark(all.start, all.len).expect("parked");
        let rest = f.park_rest(all, 300);
        assert_eq!((rest.start, rest.len), (all.start + 300, 300));
        assert_eq!(f.park(all.start, 1000), Some(run(all.start, 300)));
        assert_eq!(f.join_parked(run(all.start, 300), run(all.start + 300, all.len - 300)), Some(all));
    };
    for lost_lock in [false, true] {
        let kept = |runs: &[(usize, usize)]| {
            let others = runs.iter().filter(|run| !BEFORE.contains(run)).count();
            BEFORE.iter().all(|run| runs.contains(run)) && others <= 1
        };
        at_every_step(&cut, lost_lock, &kept);
    }
}

/// A run grows over the parked ones behind it, and is cut back when they do not suffice.
#[test]
fn growing_into_parked_runs_is_whole_or_nothing() {
    let grow = |f: &Frag| {
        // Three in a row behind the others; the first is used, the last touches the end.
        let [a, b, c] = [200, 200, 250].map(|len| f.take(len, 1).expect("room"));
        assert!(b.start == a.end() && c.start == b.end());
        assert_eq!(f.park(b.start, 1000), Some(b));
        assert_eq!(f.grow_into_parked(a, 1000), None);
        assert_eq!(f.run_at(a.start), Some(a));
        assert_eq!(f.grow_into_parked(a, 300), Some(run(a.start, 400)));
        assert_eq!(f.run_at(a.start), Some(run(a.start, 400)));
        assert_eq!(f.park(c.start, 1000), Some(c));
        assert_eq!(f.grow_into_parked(run(a.start, 400), 655), Some(run(a.start, 655)));
    };
    for lost_lock in [false, true] {
        let kept = |runs: &[(usize, usize)]| BEFORE.iter().all(|run| runs.contains(run));
        at_every_step(&grow, lost_lock, &kept);
    }
}

#[test]
fn repair_keeps_internal_runs() {
    let w = world();
    let inner = w.frag.take_internal(100, 1).expect("room");
    w.frag.repair(&mut |f| f(inner));
    assert_eq!(w.frag.verify(&mut |f| f(inner)), Ok(()));
    w.frag.repair(&mut |_| {});
    w.check();
}

/// The guide learns of more of the open range in the middle of a take, and of a run that grows.
#[test]
fn charting_loses_nothing() {
    let ops: [&dyn Fn(&Frag) -> bool; 2] = [&|f| f.take(600, 1).is_some(), &|f| f.grow_in_place(run(0, 50), 700)];
    for (op, lost_lock) in [(ops[0], false), (ops[0], true), (ops[1], false), (ops[1], true)] {
        for steps in 0.. {
            let w = World::new(16, 0x10_0000);
            w.frag.init(0, 1024, 100);
            assert_eq!(w.frag.take(50, 1), Some(run(0, 50)));
            w.check();
            if lost_lock {
                w.lose_lock();
            }
            let finished = stop_after(steps, || assert!(op(&w.frag)));
            w.frag.repair(&mut |_| {});
            w.check();
            let mut used = 0;
            w.frag.runs(&mut |run| used += run.len);
            assert_eq!(w.frag.free_fragments(), 1024 - used, "after {steps} steps");
            assert!(w.frag.take(1024 - used, 1).is_some(), "after {steps} steps");
            if finished {
                break;
            }
        }
    }
}
