//! Operation programs of several local heaps beside an oracle that knows what is allocated.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec::Vec;

use super::world::{DATA, Heap, Refused, World, shape};
use crate::segment::slot::SlotGeometry;
use crate::slab::SlabTier;

const HEAPS: usize = 3;
const SLOT: usize = 4096;
/// Ordinary classes, then the array class.
const SIZES: [usize; 6] = [1, 16, 500, 1800, 4096, 9000];
const ARRAYS: usize = SIZES.len();
const ARRAY_ITEM: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    Pop(usize, usize),
    PopArray(usize, usize),
    Push(usize, usize),
    PushTwice(usize, usize),
    PushWrong(usize, usize, usize),
    Leave(usize),
    Steal,
    ReturnEmpty(usize),
    Repair(usize),
    Destroy(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let heap = 0..HEAPS;
    let class = 0..SIZES.len();
    prop_oneof![
        20 => (heap.clone(), class.clone()).prop_map(|(h, c)| Step::Pop(h, c)),
        12 => (heap.clone(), prop_oneof![1usize..5, 1usize..150, 100usize..400]).prop_map(|(h, n)| Step::PopArray(h, n)),
        30 => (heap.clone(), any::<usize>()).prop_map(|(h, i)| Step::Push(h, i)),
        2 => (heap.clone(), any::<usize>()).prop_map(|(h, i)| Step::PushTwice(h, i)),
        2 => (heap.clone(), any::<usize>(), 1usize..200).prop_map(|(h, i, n)| Step::PushWrong(h, i, n)),
        3 => heap.clone().prop_map(Step::Leave),
        3 => Just(Step::Steal),
        2 => heap.clone().prop_map(Step::ReturnEmpty),
        1 => heap.prop_map(Step::Repair),
        1 => (0..=ARRAYS).prop_map(Step::Destroy),
    ]
}

struct Play {
    world: Arc<World>,
    heaps: Vec<Heap>,
    /// Address: class, length in items, bytes.
    live: BTreeMap<usize, (usize, usize, usize)>,
}

impl Play {
    fn new(slots: usize) -> Self {
        let world = World::new(SlotGeometry::new(12), slots, ARRAYS + 1, 0);
        let play = Self { world: Arc::new(world), heaps: Vec::new(), live: BTreeMap::new() };
        (0..=ARRAYS).for_each(|class| play.define(class));
        let heaps = (0..HEAPS).map(|k| play.world.heap(k as u32 + 2)).collect();
        Self { heaps, ..play }
    }

    fn tier(&self) -> &SlabTier {
        &self.world.tier
    }

    fn define(&self, class: usize) {
        let shape = match SIZES.get(class) {
            Some(&size) => self.tier().shape_for(class, size),
            None => self.tier().array_shape_for(class, ARRAY_ITEM),
        };
        self.tier().define(class, &shape);
    }

    fn add(&mut self, address: usize, class: usize, n: usize) {
        let bytes = n * SIZES.get(class).copied().unwrap_or(ARRAY_ITEM);
        let before = self.live.range(..address + bytes).next_back();
        if let Some((&other, &(_, _, length))) = before {
            assert!(other + length <= address, "items overlap");
        }
        assert!(address >= DATA && address + bytes <= DATA + (self.tier().slots.count() * SLOT));
        self.live.insert(address, (class, n, bytes));
    }

    fn nth(&self, i: usize) -> Option<(usize, usize)> {
        let i = i.checked_rem(self.live.len())?;
        self.live.iter().nth(i).map(|(&address, &(_, n, _))| (address, n))
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Pop(h, class) => {
                if let Some(address) = self.heaps[h].pop(class) {
                    self.add(address, class, 1);
                }
            }
            Step::PopArray(h, n) => {
                if let Some(address) = self.heaps[h].pop_array(ARRAYS, n) {
                    self.add(address, ARRAYS, n);
                }
            }
            Step::Push(h, i) => {
                if let Some((address, n)) = self.nth(i) {
                    self.live.remove(&address);
                    self.heaps[h].push_array(address, n);
                }
            }
            Step::PushTwice(h, i) => {
                if let Some((address, n)) = self.nth(i) {
                    self.live.remove(&address);
                    self.heaps[h].push_array(address, n);
                    let other = &self.heaps[(h + 1) % HEAPS];
                    assert!(other.try_push(address, n).is_err(), "freed twice");
                    assert!(self.heaps[h].try_push(address, n).is_err(), "freed twice");
                }
            }
            Step::PushWrong(h, i, by) => {
                if let Some((address, n)) = self.nth(i) {
                    assert_eq!(self.heaps[h].try_push(address, n + by), Err(Refused::Length));
                    let inside = address + by;
                    if !self.live.contains_key(&inside) {
                        assert!(self.heaps[h].try_push(inside, 1).is_err(), "not an item's first byte");
                    }
                }
            }
            Step::Leave(h) => self.heaps[h].leave(),
            Step::Steal => drop(self.tier().steal_empty(&self.world.runs)),
            Step::ReturnEmpty(h) => drop(self.tier().return_empty(&self.world.runs, &self.heaps[h]).expect("clean")),
            Step::Repair(h) => self.fork(h),
            Step::Destroy(class) => self.destroy(class),
        }
        self.check();
    }

    /// Only the thread of heap `h` goes on; the others are new ones.
    fn fork(&mut self, h: usize) {
        self.tier().repair(&self.world.runs, h as u32 + 2);
        for k in 0..HEAPS {
            if k != h {
                self.heaps[k] = self.world.heap(k as u32 + 2);
            }
        }
    }

    fn destroy(&mut self, class: usize) {
        self.heaps.iter().for_each(|heap| self.tier().forget(heap, class));
        let items: usize = self.live.values().filter(|item| item.0 == class).map(|item| item.1).sum();
        assert_eq!(self.tier().destroy(&self.world.runs, class), items, "live items of class {class}");
        for (&address, _) in self.live.iter().filter(|(_, item)| item.0 == class) {
            self.world.forget_payload(address);
        }
        self.live.retain(|_, item| item.0 != class);
        self.define(class);
    }

    fn check(&self) {
        self.world.verify(&self.heaps.iter().collect::<Vec<_>>());
        for &address in self.live.keys() {
            assert!(self.world.is_live(address));
        }
        let mut items = 0;
        self.tier().for_each(&mut |slab, shape| items += slab.live() * shape.count.max(1));
        assert_eq!(items, self.live.values().map(|item| item.1).sum::<usize>());
    }

    fn end(mut self) {
        while let Some((address, n)) = self.nth(self.live.len() / 2) {
            self.live.remove(&address);
            self.heaps[address % HEAPS].push_array(address, n);
        }
        self.world.finish(&self.heaps.iter().collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_agree_with_the_oracle(slots in 1usize..12, steps in proptest::collection::vec(step(), 1..200)) {
        let mut play = Play::new(slots);
        steps.iter().for_each(|step| play.play(step));
        play.end();
    }
}

/// Every program of five steps of two heaps in a world of two slots, with slabs of two items.
#[test]
fn every_short_program_ends_with_nothing_lost() {
    const STEPS: usize = 10;
    const LENGTH: u32 = 5;
    for mut program in 0..STEPS.pow(LENGTH) {
        let world = World::new(SlotGeometry::new(12), 2, 2, 11);
        world.tier.define(0, &shape(0, 2, SLOT / 2));
        world.tier.define(1, &shape(1, 1, SLOT));
        let world = Arc::new(world);
        let heaps = [world.heap(2), world.heap(3)];
        let mut live = Vec::new();
        for _ in 0..LENGTH {
            let heap = &heaps[program % 2];
            match program % STEPS / 2 {
                0 => live.extend(heap.pop(0)),
                1 => live.extend(heap.pop(1)),
                2 if !live.is_empty() => heap.push(live.remove(0)),
                3 => live.pop().into_iter().for_each(|item| heap.push(item)),
                4 if live.len() % 2 == 0 => drop(heap.steal()),
                _ => heap.leave(),
            }
            program /= STEPS;
        }
        live.into_iter().for_each(|item| heaps[0].push(item));
        world.finish(&[&heaps[0], &heaps[1]]);
    }
}
