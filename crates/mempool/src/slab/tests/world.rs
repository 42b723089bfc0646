//! A world for tests: descriptors, hints and shapes in vectors, runs that are whole slots, local heaps.
//!
//! No memory is behind the addresses. Every item has a *payload* word instead, which its holder writes
//! after pop and before push; under loom it is a checked cell, so that a missing ordering between one
//! holder and the next shows as a race, elsewhere an exchange that finds an item handed out twice.
#![allow(unsafe_code)]

use std::boxed::Box;
use std::ops::Deref;
use std::sync::Arc;
use std::vec::Vec;

use crate::segment::slot::{SlotGeometry, Slots, State};
use crate::slab::classes::CLASSES;
#[cfg(loom)]
use crate::slab::thread_of;
use crate::slab::{Bad, LocalHeap, Owners, Runs, SHAPE_WORDS, Shape, SlabTier, owner_id};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Relaxed, Release};

/// Address of slot 0: a multiple of the largest slot.
pub const DATA: usize = 1 << 32;

/// One holder's word of an item.
#[cfg(loom)]
struct Payload(loom::cell::UnsafeCell<u32>);
#[cfg(not(loom))]
struct Payload(core::sync::atomic::AtomicU32);

#[cfg(loom)]
impl Payload {
    fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(0))
    }

    fn exchange(&self, from: u32, to: u32) {
        self.0.with_mut(|word| {
            // SAFETY: loom reports any access that isn't ordered against this one.
            unsafe {
                assert_eq!(*word, from, "the item has another holder");
                *word = to;
            }
        });
    }
}

#[cfg(not(loom))]
impl Payload {
    fn new() -> Self {
        Self(core::sync::atomic::AtomicU32::new(0))
    }

    fn exchange(&self, from: u32, to: u32) {
        assert_eq!(self.0.swap(to, Relaxed), from, "the item has another holder");
    }
}

#[cfg(loom)]
// SAFETY: loom checks every access to the cell.
unsafe impl Sync for Payload {}

/// Runs of whole slots, first fit.
pub struct SlotRuns {
    /// Per slot: 0 when free, 1 when taken, 2 + slots of the run where a run begins.
    slots: Vec<AtomicU64>,
    shift: u32,
}

impl SlotRuns {
    fn claim(&self, first: usize, n: usize) -> bool {
        for k in 0..n {
            let mark = if k == 0 { 2 + n as u64 } else { 1 };
            if self.slots[first + k].compare_exchange(0, mark, AcqRel, Relaxed).is_err() {
                self.clear(first, k);
                return false;
            }
        }
        true
    }

    fn clear(&self, first: usize, n: usize) {
        for slot in &self.slots[first..first + n] {
            slot.store(0, Release);
        }
    }

    /// Whether a run begins at `slot`.
    pub fn begins(&self, slot: usize) -> bool {
        self.slots[slot].load(Relaxed) > 1
    }

    /// Slots that are taken.
    pub fn taken(&self) -> usize {
        self.slots.iter().filter(|slot| slot.load(Relaxed) != 0).count()
    }
}

impl Runs for SlotRuns {
    fn take(&self, fragments: usize, align: usize) -> Option<usize> {
        let n = fragments.saturating_mul(crate::units::FRAGMENT).div_ceil(1 << self.shift);
        let fits = |&slot: &usize| (DATA + (slot << self.shift)).is_multiple_of(align) && self.claim(slot, n);
        (0..(self.slots.len() + 1).saturating_sub(n)).find(fits)
    }

    fn give(&self, slot: usize, before_clear: &mut dyn FnMut()) {
        let mark = self.slots[slot].load(Relaxed);
        assert!(mark > 2, "no run begins at slot {slot}");
        before_clear();
        self.clear(slot, mark as usize - 2);
    }
}

/// Why a free was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    NoItem,
    Length,
    Twice(Bad),
}

/// Everything that threads share.
pub struct World {
    pub tier: SlabTier,
    pub runs: SlotRuns,
    payload: Vec<Payload>,
    /// Number and address of each local heap.
    heaps: std::sync::Mutex<Vec<(u32, usize)>>,
    /// log2 of the bytes that one payload word stands for.
    grain: u32,
    /// What `tier` points to.
    _words: [Vec<AtomicU64>; 4],
    _zero: [Box<AtomicU64>; 3],
}

fn words(n: usize) -> Vec<AtomicU64> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

/// A shape of one slot, with items that the world's payload can tell apart.
pub fn shape(class: u32, items: u32, size: usize) -> Shape {
    let run = (items as usize * size).div_ceil(crate::units::FRAGMENT);
    Shape { class, items, size, run, count: 0, plain: true, align: 1 }
}

impl World {
    /// `slots` slots, `classes` undefined classes. One payload word per `1 << grain` bytes.
    pub fn new(geometry: SlotGeometry, slots: usize, classes: usize, grain: u32) -> Self {
        let descriptors = words(slots * geometry.stride + 8);
        // The contract of `Slots::new`; loom's atomics have another size and no need of it.
        let skip = if cfg!(loom) { 0 } else { descriptors.as_ptr().align_offset(64) };
        let hints = words(slots.div_ceil(64));
        let class_hints = words(2 * classes);
        let shapes = words(classes * SHAPE_WORDS);
        let zero = Box::new(AtomicU64::new(0));
        let [lock, reach] = [0, 0].map(|word| Box::new(AtomicU64::new(word)));
        // SAFETY: the words stay where they are, and live as long as the world.
        let slots_view = unsafe { Slots::new(descriptors.as_ptr().add(skip), slots, geometry) };
        let tier = SlabTier {
            slots: slots_view,
            data: DATA,
            hints: hints.as_ptr(),
            class_hints: class_hints.as_ptr(),
            shapes: shapes.as_ptr(),
            classes,
            zero: &raw const *zero,
            lock: &raw const *lock,
            give_way: |_| {},
            reach: &raw const *reach,
        };
        let payload = (0..slots << (geometry.shift - grain)).map(|_| Payload::new()).collect();
        let runs = SlotRuns { slots: words(slots), shift: geometry.shift };
        let heaps = std::sync::Mutex::default();
        Self {
            tier,
            runs,
            payload,
            heaps,
            grain,
            _words: [descriptors, hints, class_hints, shapes],
            _zero: [zero, lock, reach],
        }
    }

    /// A local heap with number `id`.
    pub fn heap(self: &Arc<Self>, id: u32) -> Heap {
        let classes = self.tier.classes.max(CLASSES);
        let layout = core::alloc::Layout::from_size_align(LocalHeap::bytes(classes), 64).expect("a small layout");
        // SAFETY: the layout isn't empty; `write` gets what it was allocated for, and the world outlives the heap.
        let at = unsafe {
            let at = std::alloc::alloc(layout).cast::<LocalHeap>();
            assert!(!at.is_null());
            let length = self.tier.slots.count() << self.tier.slots.geometry().shift;
            LocalHeap::write(at, id, &self.tier.slots, (DATA, length), core::ptr::null(), classes, self.tier.zero);
            at
        };
        let mut heaps = self.heaps.lock().expect("no test fails here");
        heaps.retain(|(other, _)| *other != id);
        heaps.push((id, at as usize));
        Heap { at, layout, world: self.clone() }
    }

    fn payload(&self, address: usize) -> &Payload {
        &self.payload[(address - DATA) >> self.grain]
    }

    /// Where an allocation of length `n` begins that lies at `address`: slot, item, and number of the slab's items.
    fn find(&self, address: usize, n: usize) -> Result<(usize, usize, usize), Refused> {
        // As the front does: what lies behind the last slot is not the tier's business.
        let offset = address - DATA;
        if offset >> self.tier.slots.geometry().shift >= self.tier.slots.count() {
            return Err(Refused::NoItem);
        }
        let at = self.tier.locate(offset).filter(|at| at.exact).ok_or(Refused::NoItem)?;
        let (length, items) = match at.shape.count {
            0 => at.slab.region_at(at.item).map(|length| (length, length)).ok_or(Refused::NoItem)?,
            count => (count, 1),
        };
        if n == length { Ok((at.slab.index(), at.item, items)) } else { Err(Refused::Length) }
    }

    /// Whether the item at `address` is allocated.
    pub fn is_live(&self, address: usize) -> bool {
        self.tier.locate(address - DATA).is_some_and(|at| at.exact && at.slab.is_allocated(at.item))
    }

    /// The item's class was destroyed while somebody held it.
    pub fn forget_payload(&self, address: usize) {
        self.payload(address).exchange(1, 0);
    }

    /// Whether a hint leads to `slot`.
    pub fn hinted(&self, slot: usize) -> bool {
        let class = self.tier.slab(slot).shape().class as usize;
        let group = slot / self.tier.slots.count().div_ceil(64).max(1);
        // SAFETY: one bit per slot, one word per class.
        let (hint, groups) = unsafe { (&*self.tier.hints.add(slot / 64), &*self.tier.class_hints.add(class)) };
        hint.load(Relaxed) >> (slot % 64) & 1 == 1 && groups.load(Relaxed) >> group & 1 == 1
    }

    /// What must hold whenever nobody is at work. `heaps` are all that live.
    pub fn verify(&self, heaps: &[&Heap]) {
        for heap in heaps {
            heap.verify_queues();
        }
        for slot in 0..self.tier.slots.count() {
            let slab = self.tier.slab(slot);
            let owner = slab.owner();
            let class = slab.shape().class as usize;
            let heap = heaps.iter().find(|heap| owner_id(heap.id, class) == owner.thread());
            let current = heap.is_some_and(|heap| heap.current(class) == Some(slot));
            match owner.state() {
                State::Free => assert_eq!(owner.thread(), 0),
                State::Continued => assert!(!self.runs.begins(slot)),
                State::Held => assert!(
                    current,
                    "slot {slot} is held, but current nowhere: {owner:?} {:?}",
                    heaps
                        .iter()
                        .map(|h| (h.id, h.bin(class).map(|b| (b.current.get(), b.is_lent(h)))))
                        .collect::<Vec<_>>()
                ),
                State::Queued => {
                    assert!(!current && heap.is_some(), "slot {slot} is queued by thread {}", owner.thread());
                    assert_eq!(
                        Some(slab.linked()),
                        heap.map(|heap| (heap.id, class as u32)),
                        "slot {slot} is queued, but not in a queue"
                    );
                }
                State::Nobody => {
                    assert!(
                        !slab.has_free() || self.hinted(slot),
                        "slot {slot} has free items, but no hint leads there"
                    );
                }
                State::Reserved => assert_eq!(owner.thread(), 0, "slot {slot} is being taken from"),
                state @ (State::Giving | State::Heap | State::Tapped) => panic!("slot {slot} is {state:?}"),
            }
            let slab_here = owner.state().is_slab();
            assert!(!slab_here || self.runs.begins(slot), "the slab at slot {slot} has no run");
            let linked = slab.linked().0;
            assert!(
                linked == 0 || heaps.iter().any(|heap| heap.id == linked && heap.holds(slot)),
                "slot {slot} is linked by thread {linked}, which doesn't have it"
            );
        }
    }

    /// The end: everything was freed, all threads leave, every run comes back.
    pub fn finish(&self, heaps: &[&Heap]) {
        self.verify(heaps);
        for heap in heaps {
            heap.leave();
        }
        self.verify(heaps);
        self.tier.steal_empty(&self.runs);
        self.tier.for_each(&mut |slab, shape| panic!("slot {}: {} live in {shape:?}", slab.index(), slab.live()));
        assert_eq!(self.runs.taken(), 0, "a run without a slab is lost");
    }
}

impl Owners for World {
    fn local(&self, thread: u32) -> Option<&LocalHeap> {
        let heaps = self.heaps.lock().expect("no test fails here");
        let at = heaps.iter().find(|(id, _)| *id == thread)?.1 as *const LocalHeap;
        // SAFETY: tests drop local heaps only when nobody is at work.
        Some(unsafe { &*at })
    }

    /// One thread takes the steps of all tests but the models, where a fence stands for it.
    fn barrier(&self) -> bool {
        crate::sync::light_fence();
        true
    }
}

/// A local heap that one thread at a time uses, and its world.
pub struct Heap {
    at: *mut LocalHeap,
    layout: core::alloc::Layout,
    pub world: Arc<World>,
}

// SAFETY: one thread at a time uses it, as a value that is moved there and back.
unsafe impl Send for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        let at = self.at as usize;
        if let Ok(mut heaps) = self.world.heaps.lock() {
            heaps.retain(|(_, other)| *other != at);
        }
        // SAFETY: allocated with this layout, used by nobody else.
        unsafe { std::alloc::dealloc(self.at.cast(), self.layout) };
    }
}

impl Deref for Heap {
    type Target = LocalHeap;

    fn deref(&self) -> &LocalHeap {
        // SAFETY: written by `World::heap`, lives until the drop.
        unsafe { &*self.at }
    }
}

impl Heap {
    /// An item of `class`, as the front gets it, its payload written.
    pub fn try_pop(&self, class: usize) -> Result<Option<usize>, Bad> {
        let bin = self.bin(class).expect("a class of the heap");
        let address = match bin.pop(self).or_else(|| bin.advance(self)) {
            None => self.world.tier.pop(&self.world.runs, self, class)?,
            popped => popped.map(core::num::NonZeroUsize::get),
        };
        if let Some(address) = address {
            self.world.payload(address).exchange(0, 1);
            // The models of loosening: it came out of a slab that is its own.
            #[cfg(loom)]
            if crate::sync::is_heard() {
                let slab = self.world.tier.slab((address - DATA) >> self.world.tier.slots.geometry().shift);
                let owner = slab.owner();
                assert!(owner.is(State::Held) && thread_of(owner) == self.id, "from a slab that is {owner:?}");
            }
        }
        Ok(address)
    }

    pub fn pop(&self, class: usize) -> Option<usize> {
        self.try_pop(class).expect("no double free so far")
    }

    /// An item of `class` from wherever an exhausted pool still finds one.
    pub fn pop_anywhere(&self, class: usize) -> Option<usize> {
        let address = self.world.tier.pop_anywhere(&self.world.runs, self, class).expect("no double free so far")?;
        self.world.payload(address).exchange(0, 1);
        Some(address)
    }

    /// An item of `class`, after slabs of others were loosened if need be.
    #[cfg(loom)]
    pub fn pop_loosened(&self, class: usize) -> Option<usize> {
        self.pop_anywhere(class).or_else(|| (self.loosen(class) > 0).then(|| self.pop_anywhere(class))?)
    }

    /// Makes slabs in others' queues nobody's.
    pub fn loosen(&self, class: usize) -> usize {
        self.world.tier.loosen(&*self.world, self.id, Some(class))
    }

    /// An array of `n`.
    pub fn pop_array(&self, class: usize, n: usize) -> Option<usize> {
        let address = self.world.tier.pop_array(&self.world.runs, self, class, n).expect("no double free so far")?;
        self.world.payload(address).exchange(0, 1);
        Some(address)
    }

    /// `n` items of the slabs in the reserve, which is all there is, or of a fresh one.
    pub fn pop_reserved(&self, class: usize, n: usize) -> Option<usize> {
        let tier = &self.world.tier;
        let found = tier.pop_reserved(class, n, usize::MAX);
        let address = found.or_else(|| tier.carve_reserved(&self.world.runs, class, n))?;
        self.world.payload(address).exchange(0, 1);
        Some(address)
    }

    /// Frees as the front does: finds the item, compares the length, pushes.
    pub fn try_push(&self, address: usize, n: usize) -> Result<(), Refused> {
        let (slot, item, items) = self.world.find(address, n)?;
        let slab = self.world.tier.slab(slot);
        self.world.tier.push(&self.world.runs, self, &slab, item, items).map_err(Refused::Twice)
    }

    pub fn push_array(&self, address: usize, n: usize) {
        self.world.payload(address).exchange(1, 0);
        assert_eq!(self.try_push(address, n), Ok(()), "address {:#x}", address - DATA);
    }

    pub fn push(&self, address: usize) {
        self.push_array(address, 1);
    }

    /// Frees as the front does into a slab of nobody's; as ever if it is somebody's.
    #[cfg(loom)]
    pub fn push_by_adoption(&self, address: usize) {
        self.world.payload(address).exchange(1, 0);
        let offset = address - DATA;
        let shift = self.world.tier.slots.geometry().shift;
        let slab = self.world.tier.slab(offset >> shift);
        if !self.world.tier.adopt_into(&self.world.runs, self, &slab, offset & ((1 << shift) - 1), 0) {
            assert_eq!(self.try_push(address, 1), Ok(()));
        }
    }

    /// Frees remotely, and looks no further: as one who is held up there.
    #[cfg(loom)]
    pub fn push_late(&self, address: usize) {
        self.world.payload(address).exchange(1, 0);
        let (slot, item, items) = self.world.find(address, 1).expect("it is live");
        self.world.tier.slab(slot).remote_free(item, items).expect("it is live");
    }

    /// Frees an array as the hot path does into a slab of the thread's own.
    #[cfg(loom)]
    pub fn push_own_array(&self, address: usize, n: usize) {
        self.world.payload(address).exchange(1, 0);
        let (slot, item, _) = self.world.find(address, n).expect("it is live");
        let slab = self.world.tier.slab(slot);
        self.announce_slab(&slab);
        if slab.own_free_array(item, n).expect("it is live, and ours") {
            self.world.tier.maybe_empty(&self.world.runs, self, &slab);
        }
    }

    /// All items of the slab of `class` that a hint leads to.
    #[cfg(loom)]
    pub fn adopted(&self, class: usize) -> Vec<usize> {
        let tier = &self.world.tier;
        let bin = self.bin(class).expect("a class of the heap");
        self.announce_bin(bin);
        let Some(slab) = tier.adopt_orphan(self, class) else { return Vec::new() };
        bin.current.set(slab.index() as u32 + 1);
        bin.point(&slab, 0, tier.address(&slab));
        let popped = std::iter::from_fn(|| bin.pop(self).map(core::num::NonZeroUsize::get));
        popped.inspect(|&item| self.world.payload(item).exchange(0, 1)).collect()
    }

    /// Gives its own empty current slabs back.
    #[cfg(loom)]
    pub fn return_empty(&self) -> usize {
        self.world.tier.return_empty(&self.world.runs, self).expect("no double free so far")
    }

    pub fn leave(&self) {
        self.world.tier.leave(&self.world.runs, self);
    }

    /// Takes all empty slabs that wait somewhere.
    pub fn steal(&self) -> usize {
        self.world.tier.steal_empty(&self.world.runs)
    }

    /// Slots in the queue of `class`, first to last.
    pub fn queue(&self, class: usize) -> Vec<usize> {
        let mut queue = Vec::new();
        let Some(first) = self.bin(class).and_then(|bin| bin.first()) else { return queue };
        loop {
            assert!(queue.len() <= self.world.tier.slots.count(), "the ring does not close");
            let slot = queue.last().map_or(first, |&last| self.world.tier.slab(last).links().0 as usize - 1);
            if !queue.is_empty() && slot == first {
                return queue;
            }
            queue.push(slot);
        }
    }

    /// The slot of the current slab of `class`. One that somebody else has got is none, if the bin's word says so.
    fn current(&self, class: usize) -> Option<usize> {
        let bin = self.bin(class)?;
        let slot = bin.current.get().checked_sub(1)? as usize;
        let slab = self.world.tier.slab(slot);
        let ours = slab.peek().thread() == owner_id(self.id, class) && slab.shape().class as usize == class;
        (ours && slab.peek().is(State::Held) || !bin.is_lent(self)).then_some(slot)
    }

    fn holds(&self, slot: usize) -> bool {
        self.bins().any(|(class, _)| self.queue(class).contains(&slot))
    }

    fn verify_queues(&self) {
        for (class, bin) in self.bins() {
            let queue = self.queue(class);
            let mut previous = queue.last().map_or(0, |&last| last as u32 + 1);
            for &slot in &queue {
                let slab = self.world.tier.slab(slot);
                assert_eq!(slab.linked(), (self.id, class as u32), "slot {slot} is in a queue that it doesn't name");
                assert_eq!(slab.links().1, previous, "slot {slot} has a wrong link backwards");
                previous = slot as u32 + 1;
            }
            for &slot in &queue {
                let alone = queue.iter().all(|&other| other == slot || other as u32 + 1 == bin.current.get());
                assert_eq!(bin.is_alone(&self.world.tier.slab(slot)), alone);
            }
            if let Some(slot) = self.current(class) {
                let slab = self.world.tier.slab(slot);
                assert_eq!((slab.peek().state(), slab.peek().thread()), (State::Held, owner_id(self.id, class)));
                assert_eq!(slab.shape().class as usize, class);
            }
        }
    }
}
