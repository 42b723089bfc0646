//! Programs of operations beside a naive model: an array that says for each fragment whose it is.

use super::{GiveError, Run, World, run};
use crate::units::CELL_BITS;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

#[derive(Clone, Copy, Debug)]
enum Op {
    Take {
        len: usize,
        align: u32,
    },
    Zeroed {
        len: usize,
    },
    Internal {
        len: usize,
    },
    Reserve {
        len: usize,
        align: u32,
    },
    /// Gives the nth live run.
    Give(usize),
    GiveInternal(usize),
    /// Gives at an arbitrary fragment.
    Wild(usize),
    Grow {
        nth: usize,
        by: usize,
    },
    Extend(usize),
    Trim,
    Repair,
}

/// The model. `owner[i]` is 0 for a free fragment, else the run's number.
struct Model {
    world: World,
    owner: Vec<usize>,
    live: Vec<(usize, Run)>,
    internal: Vec<(usize, Run)>,
    dirty: Vec<bool>,
    next: usize,
    reserve: usize,
    open_end: usize,
    base: usize,
}

impl Model {
    fn new(cells: usize, base: usize, reserve: usize, open_end: usize) -> Model {
        let world = World::new(cells, base * 256);
        // The guide knows a third at first.
        world.frag.init(reserve, open_end, reserve + open_end / 3);
        let all = cells * CELL_BITS;
        let (owner, dirty) = (vec![0; all], vec![false; all]);
        Model { world, owner, dirty, live: vec![], internal: vec![], next: 1, reserve, open_end, base }
    }

    fn fits(&self, low: usize, high: usize, len: usize, align: usize) -> bool {
        len > 0
            && (low..high).any(|at| {
                (self.base + at).is_multiple_of(align)
                    && at + len <= high
                    && self.owner[at..at + len].iter().all(|&owner| owner == 0)
            })
    }

    fn own(&mut self, taken: Option<Run>, low: usize, high: usize, len: usize, align: usize) -> Option<(usize, Run)> {
        assert_eq!(taken.is_some(), self.fits(low, high, len, align), "{taken:?} for {len} at {align}");
        let taken = taken?;
        assert_eq!(taken.len, len);
        assert!(taken.start >= low && taken.end() <= high && (self.base + taken.start).is_multiple_of(align));
        for at in taken.start..taken.end() {
            assert_eq!(self.owner[at], 0, "fragment {at} handed out twice");
            self.owner[at] = self.next;
            self.dirty[at] = true;
        }
        self.next += 1;
        Some((self.next - 1, taken))
    }

    fn free(&mut self, run: Run) {
        self.owner[run.start..run.end()].fill(0);
    }

    fn apply(&mut self, op: Op) {
        let frag = self.world.frag;
        let (low, high) = (self.reserve, self.open_end);
        match op {
            Op::Take { len, align } => {
                let taken = self.own(frag.take(len, 1 << align), low, high, len, 1 << align);
                self.live.extend(taken);
            }
            Op::Reserve { len, align } => {
                let taken = self.own(frag.take_reserve(len, 1 << align), 0, low, len, 1 << align);
                self.live.extend(taken);
            }
            Op::Internal { len } => {
                let taken = self.own(frag.take_internal(len, 1), low, high, len, 1);
                self.internal.extend(taken);
            }
            Op::Zeroed { len } => {
                let mut cleared = vec![];
                let taken = frag.take_zeroed(len, 1, false, |part| cleared.push(part));
                if let Some(run) = taken {
                    for at in run.start..run.end() {
                        let seen = cleared.iter().any(|part| (part.start..part.end()).contains(&at));
                        assert!(seen || !self.dirty[at], "fragment {at} is dirty");
                    }
                    assert!(cleared.iter().all(|part| part.start >= run.start && part.end() <= run.end()));
                }
                let taken = self.own(taken, low, high, len, 1);
                self.live.extend(taken);
            }
            Op::Give(nth) if !self.live.is_empty() => {
                let (_, run) = self.live.swap_remove(nth % self.live.len());
                let mut told = None;
                assert_eq!(frag.give(run.start, |run| told = Some(run)), Ok(run));
                assert_eq!(told, Some(run));
                self.free(run);
            }
            Op::GiveInternal(nth) if !self.internal.is_empty() => {
                let (_, run) = self.internal.swap_remove(nth % self.internal.len());
                frag.give_internal(run);
                self.free(run);
            }
            Op::Wild(at) => self.wild(at),
            Op::Grow { nth, by } if !self.live.is_empty() => self.grow(nth % self.live.len(), by),
            Op::Extend(to) => {
                frag.extend(to);
                self.open_end = self.open_end.max(to.min(self.owner.len()));
            }
            Op::Trim => self.trim(),
            Op::Repair => {
                let internal = &self.internal;
                frag.repair(&mut |f| internal.iter().for_each(|&(_, run)| f(run)));
            }
            _ => {}
        }
    }

    fn wild(&mut self, at: usize) {
        if self.live.iter().any(|(_, run)| run.start == at) {
            return;
        }
        let found = self.live.iter().find(|(_, run)| (run.start..run.end()).contains(&at));
        let expected = match (self.owner.get(at), found) {
            (None, _) => GiveError::OutOfRange,
            (Some(0), _) => GiveError::Free,
            (_, Some(&(_, run))) => GiveError::Interior(run),
            _ => GiveError::Internal,
        };
        assert_eq!(self.world.frag.give(at, |_| panic!("given")), Err(expected));
        assert_eq!(self.world.frag.run_at(at), None);
        assert_eq!(self.world.frag.run_of(at), found.map(|&(_, run)| run));
    }

    fn grow(&mut self, nth: usize, by: usize) {
        let (number, old) = self.live[nth];
        let to = old.end() + by;
        let free = old.end() >= self.reserve && to <= self.open_end && (old.end()..to).all(|at| self.owner[at] == 0);
        assert_eq!(self.world.frag.grow_in_place(old, old.len + by), free || by == 0);
        if free {
            self.owner[old.end()..to].fill(number);
            self.dirty[old.end()..to].fill(true);
            self.live[nth].1.len += by;
        }
    }

    fn trim(&mut self) {
        let mut parts = vec![];
        let released = self.world.frag.trim(&mut |part| {
            parts.push(part);
            part.start % 128 == 0
        });
        let mut sum = 0;
        for part in parts {
            assert!(part.start >= self.reserve && part.end() <= self.open_end);
            assert!(self.owner[part.start..part.end()].iter().all(|&owner| owner == 0));
            if part.start % 128 == 0 {
                self.dirty[part.start..part.end()].fill(false);
                sum += part.len;
            }
        }
        assert_eq!(released, sum);
    }

    fn check(&self) {
        let frag = &self.world.frag;
        let internal = &self.internal;
        assert_eq!(frag.verify(&mut |f| internal.iter().for_each(|&(_, run)| f(run))), Ok(()));
        let mut seen = vec![];
        frag.runs(&mut |run| seen.push(run));
        let mut live: Vec<Run> = self.live.iter().map(|&(_, run)| run).collect();
        live.sort_by_key(|run| run.start);
        assert_eq!(seen, live);
        let free = self.owner[self.reserve..self.open_end].iter().filter(|&&owner| owner == 0).count();
        assert_eq!(frag.free_fragments(), free);
        let mut sum = 0;
        frag.gaps(&mut |gap| sum += gap.len);
        assert_eq!(sum, free);
    }
}

fn ops(all: usize) -> impl Strategy<Value = Op> {
    let len = prop_oneof![4 => 1..20usize, 2 => 1..200usize, 1 => 1..all];
    let by = prop_oneof![4 => 0..20usize, 2 => 0..200usize];
    prop_oneof![
        8 => (len.clone(), prop_oneof![3 => Just(0u32), 2 => 0..11u32]).prop_map(|(len, align)| Op::Take { len, align }),
        2 => len.clone().prop_map(|len| Op::Zeroed { len }),
        1 => len.clone().prop_map(|len| Op::Internal { len }),
        1 => (1..80usize, 0..8u32).prop_map(|(len, align)| Op::Reserve { len, align }),
        8 => any::<usize>().prop_map(Op::Give),
        1 => any::<usize>().prop_map(Op::GiveInternal),
        2 => (0..all + 100).prop_map(Op::Wild),
        4 => (any::<usize>(), by).prop_map(|(nth, by)| Op::Grow { nth, by }),
        1 => (0..all + 10).prop_map(Op::Extend),
        1 => Just(Op::Trim),
        1 => Just(Op::Repair),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_match_the_model(
        cells in prop_oneof![Just(8usize), Just(16), Just(72)],
        base in (0..16usize).prop_map(|k| k * 16),
        reserve in 0..100usize,
        program in prop::collection::vec(ops(1024), 1..120),
    ) {
        let mut model = Model::new(cells, base, reserve, cells * CELL_BITS - 57);
        for op in program {
            model.apply(op);
            model.check();
        }
    }
}

/// Every sequence of these kinds, up to `depth` long, from the state that `model` is in.
fn every(kinds: &[Op], depth: usize, done: &mut Vec<Op>) {
    let mut model = Model::new(8, 16, 60, 200);
    for &op in done.iter() {
        model.apply(op);
    }
    model.check();
    if depth > 0 {
        for &op in kinds {
            done.push(op);
            every(kinds, depth - 1, done);
            done.pop();
        }
    }
}

#[test]
fn every_short_sequence_matches_the_model() {
    let kinds = [
        Op::Take { len: 63, align: 0 },
        Op::Take { len: 1, align: 5 },
        Op::Give(0),
        Op::Give(1),
        Op::Grow { nth: 0, by: 2 },
        Op::Reserve { len: 30, align: 0 },
    ];
    every(&kinds, if cfg!(debug_assertions) { 5 } else { 6 }, &mut vec![]);
    let kinds =
        [Op::Zeroed { len: 70 }, Op::Internal { len: 40 }, Op::Give(0), Op::GiveInternal(0), Op::Trim, Op::Extend(260)];
    every(&kinds, if cfg!(debug_assertions) { 5 } else { 6 }, &mut vec![]);
}

#[test]
fn the_model_itself_sees_a_wrong_answer() {
    let mut model = Model::new(8, 0, 0, 512);
    model.apply(Op::Take { len: 10, align: 0 });
    let stolen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        model.own(Some(run(5, 3)), 0, 512, 3, 1);
    }));
    assert!(stolen.is_err());
}
