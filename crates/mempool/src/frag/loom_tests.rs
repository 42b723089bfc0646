//! Models of the page-frag tier: two threads, every interleaving up to a bound on preemptions.
#![allow(unsafe_code)]

use super::take::Attempt;
use super::{CONTROL_WORDS, Frag, FragParts, Run};
use crate::bitmap::{claim, clear, test};
use crate::sync::{AtomicU32, AtomicU64};
use crate::units::tree_nodes;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use std::vec::Vec;

const CELLS: usize = 8;

struct World {
    frag: Frag,
    _words: Vec<Vec<AtomicU64>>,
    _length: Vec<AtomicU32>,
}

fn world(open_end: usize) -> Arc<World> {
    world_charted(open_end, usize::MAX)
}

fn world_charted(open_end: usize, charted: usize) -> Arc<World> {
    let counts = [CELLS, CELLS, CELLS, 1, 2 * tree_nodes(CELLS), CONTROL_WORDS];
    let w: Vec<Vec<AtomicU64>> = counts.iter().map(|&n| (0..n).map(|_| AtomicU64::new(0)).collect()).collect();
    let length: Vec<AtomicU32> = (0..CELLS).map(|_| AtomicU32::new(0)).collect();
    let parts = FragParts {
        busy: w[0].as_ptr(),
        first: w[1].as_ptr(),
        last: w[2].as_ptr(),
        length: length.as_ptr(),
        touched: w[3].as_ptr(),
        tree: w[4].as_ptr(),
        control: w[5].as_ptr(),
        cells: CELLS,
        base_address: 0x10_0000,
    };
    // SAFETY: the arrays have these lengths, are zeroed and live as long as the world.
    let frag = unsafe { Frag::new(parts) };
    frag.init(0, open_end, charted);
    Arc::new(World { frag, _words: w, _length: length })
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(f);
}

/// Of two givers of one run exactly one wins, and afterwards it is free once.
#[test]
fn loom_of_two_givers_one_wins() {
    model(|| {
        let w = world(70);
        let run = w.frag.take(66, 1).expect("room");
        let other = {
            let w = w.clone();
            thread::spawn(move || w.frag.give(run.start, |_| {}).is_ok())
        };
        let mine = w.frag.give(run.start, |_| {}).is_ok();
        assert_ne!(mine, other.join().unwrap(), "given twice, or never");
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
        assert_eq!(w.frag.free_fragments(), 70);
    });
}

/// A taker against a giver that may lose the lock: the taker gets the other gap or, later, the given one;
/// afterwards the guide is right.
#[test]
fn loom_take_against_give() {
    model(|| {
        let w = world(8);
        let held = w.frag.take(4, 1).expect("room");
        let memory = Arc::new(UnsafeCell::new(0));
        let other = {
            let (w, memory) = (w.clone(), memory.clone());
            thread::spawn(move || {
                // SAFETY: the model checks that nobody else accesses the memory of the run meanwhile.
                memory.with_mut(|memory| unsafe { *memory = 1 });
                assert_eq!(w.frag.give(held.start, |_| {}), Ok(held));
            })
        };
        let taken = w.frag.take(4, 1).expect("a gap was there all the time");
        if taken == held {
            // SAFETY: as above.
            memory.with_mut(|memory| unsafe { *memory = 2 });
        }
        other.join().unwrap();
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
        assert_eq!(w.frag.take(4, 1).map(|run| run.len), Some(4));
        assert_eq!(w.frag.take(1, 1), None);
    });
}

/// Two takers, one of which may have to go without the lock: no overlap, and none is refused.
#[test]
fn loom_two_takers_both_get_theirs() {
    model(|| {
        let w = world(10);
        let other = {
            let w = w.clone();
            thread::spawn(move || w.frag.take(5, 1).expect("there is room for both"))
        };
        let mine = w.frag.take(5, 1).expect("there is room for both");
        let theirs = other.join().unwrap();
        assert!(mine.end() <= theirs.start || theirs.end() <= mine.start, "{mine:?} {theirs:?}");
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
    });
}

/// Of one who parks a run and one who gives it one wins, and afterwards it is parked or free.
#[test]
fn loom_of_parking_and_giving_one_wins() {
    model(|| {
        let w = world(70);
        let run = w.frag.take(66, 1).expect("room");
        let other = {
            let w = w.clone();
            thread::spawn(move || w.frag.give(run.start, |_| {}).is_ok())
        };
        let parked = w.frag.park(run.start, 70).is_some();
        assert_ne!(parked, other.join().unwrap(), "given up twice, or never");
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
        assert_eq!(w.frag.parked_fragments(), if parked { 66 } else { 0 });
        assert_eq!(w.frag.free_fragments(), 70);
    });
}

/// Of one who sets a short run aside and one who gives it one wins, and afterwards its fragments are his or free.
#[test]
fn loom_of_setting_aside_and_giving_one_wins() {
    model(|| {
        let w = world(70);
        let run = w.frag.take(3, 1).expect("room");
        let other = {
            let w = w.clone();
            thread::spawn(move || w.frag.give(run.start, |_| {}).is_ok())
        };
        let aside = w.frag.set_aside(run.start, |len| len == 3);
        assert_eq!(aside.is_none(), other.join().unwrap(), "given up twice, or never");
        assert_eq!(w.frag.verify(&mut |keep| aside.into_iter().for_each(keep)), Ok(()));
        assert_eq!(w.frag.free_fragments(), 70 - aside.map_or(0, |run| run.len));
        if let Some(run) = aside {
            assert!(w.frag.give(run.start, |_| {}).is_err(), "given although it is set aside");
            w.frag.make_run(run);
            assert_eq!(w.frag.give(run.start, |_| {}), Ok(run));
        }
    });
}

/// A parked run is taken over by one who remembers it or given back for all: never both, and its last user is done with it.
#[test]
fn loom_a_parked_run_is_taken_over_or_given_back() {
    model(|| {
        let w = world(70);
        let run = w.frag.take(66, 1).expect("room");
        let memory = Arc::new(UnsafeCell::new(0));
        let other = {
            let (w, memory) = (w.clone(), memory.clone());
            thread::spawn(move || {
                // SAFETY: the model checks that nobody else accesses the memory of the run meanwhile.
                memory.with_mut(|memory| unsafe { *memory = 1 });
                assert_eq!(w.frag.park(run.start, 70), Some(run));
                w.frag.give_all_parked()
            })
        };
        let taken = w.frag.unpark(run.start, run.len);
        if taken.is_some() {
            // SAFETY: as above.
            memory.with_mut(|memory| unsafe { *memory = 2 });
        }
        let given = other.join().unwrap();
        assert_eq!(taken.map_or(0, |run| run.len) + given, 66);
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
    });
}

/// A run grows over the parked one behind it, or another takes that over: never both.
#[test]
fn loom_a_parked_run_is_taken_over_or_grown_into() {
    model(|| {
        let w = world(140);
        let run = w.frag.take(66, 1).expect("room");
        let next = w.frag.take(66, 1).expect("room");
        assert_eq!(w.frag.park(next.start, 70), Some(next));
        let memory = Arc::new(UnsafeCell::new(0));
        let other = {
            let (w, memory) = (w.clone(), memory.clone());
            thread::spawn(move || {
                let taken = w.frag.unpark(next.start, next.len);
                if taken.is_some() {
                    // SAFETY: the model checks that nobody else accesses the memory of the run meanwhile.
                    memory.with_mut(|memory| unsafe { *memory = 1 });
                }
                taken.is_some()
            })
        };
        let grown = w.frag.grow_into_parked(run, 132);
        if let Some(grown) = grown {
            assert_eq!(grown, Run { start: run.start, len: 132 });
            // SAFETY: as above.
            memory.with_mut(|memory| unsafe { *memory = 2 });
        }
        assert_ne!(other.join().unwrap(), grown.is_some());
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
    });
}

/// While the guide learns of more, "none" is not believed: whoever finds nothing looks again.
#[test]
fn loom_what_is_not_charted_yet_is_found() {
    model(|| {
        let w = world_charted(140, 66);
        let other = {
            let w = w.clone();
            thread::spawn(move || w.frag.chart(140))
        };
        let known = w.frag.charted().high;
        if w.frag.try_lock(1) {
            match w.frag.claim_guided(70, 1) {
                Attempt::Run(run) => w.frag.give_internal(run),
                Attempt::None => assert!(w.frag.chart_more(known, 70), "none, while nobody has any"),
                Attempt::Unsure => {}
            }
        }
        other.join().unwrap();
        assert!(w.frag.take(140, 1).is_some());
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
    });
}

/// A run that is given up and parked is taken over by one who knows of it or given by another by mistake, never both; what is
/// done before it is parked comes before its next owner.
#[test]
fn loom_a_run_is_parked_as_it_is_given() {
    model(|| {
        let w = world(70);
        let run = w.frag.take(66, 1).expect("room");
        let memory = Arc::new(UnsafeCell::new(0));
        let other = {
            let (w, memory) = (w.clone(), memory.clone());
            thread::spawn(move || {
                let taken = w.frag.unpark(run.start, run.len);
                if taken.is_some() {
                    // SAFETY: the model checks that nobody else accesses the memory of the run meanwhile.
                    memory.with_mut(|memory| unsafe { *memory = 2 });
                }
                (taken.is_some(), w.frag.give(run.start, |_| {}).is_ok())
            })
        };
        // SAFETY: as above.
        let parked = w.frag.park_given(run.start, |_| memory.with_mut(|memory| unsafe { *memory = 1 }));
        let (taken, given) = other.join().unwrap();
        assert_eq!(parked.is_some(), taken || !given, "given up twice, or never");
        assert_eq!(w.frag.parked_fragments(), if parked.is_some() && !taken { 66 } else { 0 });
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
    });
}

/// A run that grows while its size is read by another: the old or the new size, nothing else.
#[test]
fn loom_growth_shows_the_old_or_the_new_length() {
    for (old, new) in [(5, 9), (60, 70), (66, 80)] {
        model(move || {
            let w = world(100);
            let run = w.frag.take(old, 1).expect("room");
            let reader = {
                let w = w.clone();
                thread::spawn(move || w.frag.run_at(run.start))
            };
            assert!(w.frag.grow_in_place(run, new));
            let seen = reader.join().unwrap().expect("it is a run all the time");
            assert!(seen == run || seen == Run { start: run.start, len: new }, "{seen:?}");
            assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
        });
    }
}

/// A neighbour that comes and goes does not show in a run's size.
#[test]
fn loom_size_is_the_runs_own() {
    model(|| {
        let w = world(140);
        let run = w.frag.take(60, 1).expect("room");
        let next = w.frag.take(70, 1).expect("room");
        let other = {
            let w = w.clone();
            thread::spawn(move || assert!(w.frag.give(next.start, |_| {}).is_ok()))
        };
        assert_eq!(w.frag.run_at(run.start), Some(run));
        assert_eq!(w.frag.give(run.start, |_| {}), Ok(run));
        other.join().unwrap();
        assert_eq!(w.frag.verify(&mut |_| {}), Ok(()));
        assert_eq!(w.frag.free_fragments(), 140);
    });
}

/// A claim outside the lock that is taken back may hide a gap for a moment; it is not believed to be gone.
#[test]
fn loom_none_is_not_believed_while_a_claim_is_rolled_back() {
    model(|| {
        let w = world(8);
        let all = Run { start: 0, len: 8 };
        // A mark, so that the taker reads the bits.
        w.frag.mark_dirty(all);
        let other = {
            let w = w.clone();
            thread::spawn(move || {
                w.frag.begin_direct();
                // It fails if the taker was first.
                if claim(w.frag.parts.busy(), 0, 4).is_ok() {
                    clear(w.frag.parts.busy(), 0, 4);
                }
                w.frag.mark_dirty(all);
                w.frag.end_direct();
            })
        };
        assert!(w.frag.try_lock(1));
        let attempt = w.frag.claim_guided(8, 1);
        assert!(!matches!(attempt, Attempt::None), "none, while nobody has any");
        other.join().unwrap();
        if let Attempt::Run(run) = attempt {
            w.frag.give_internal(run);
        }
        assert!(w.frag.try_lock(1));
        assert!(matches!(w.frag.claim_guided(8, 1), Attempt::Run(run) if run == all));
        assert!(w.frag.try_lock(1));
        assert!(matches!(w.frag.claim_guided(1, 1), Attempt::None));
    });
}

/// Who sees that a run begins finds its end.
#[test]
fn loom_a_run_is_known_with_its_end() {
    for len in [5, 62, 66] {
        model(move || {
            let w = world(100);
            let before = w.frag.take(3, 1).expect("room");
            let reader = {
                let w = w.clone();
                thread::spawn(move || test(w.frag.parts.first(), 3).then(|| w.frag.extent(3)))
            };
            let run = w.frag.take(len, 1).expect("room");
            if let Some(seen) = reader.join().unwrap() {
                assert_eq!(seen, Some(run));
            }
            assert_eq!((before.start, run.start), (0, 3));
        });
    }
}
