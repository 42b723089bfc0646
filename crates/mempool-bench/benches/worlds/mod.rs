//! Workloads of the hot-path benchmark, and the allocators that it compares, all in one process.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An allocator with its name.
pub struct Contender {
    /// As printed.
    pub name: &'static str,
}

static POOL: mempool::Global = mempool::Global::new(mempool::Config::process().segment(1 << 30));

/// The pool first, then its peers.
pub static CONTENDERS: [Contender; 4] = [
    Contender { name: "mempool" },
    Contender { name: "mimalloc" },
    Contender { name: "jemalloc" },
    Contender { name: "system" },
];

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Frees a random object of the live set and allocates another in its place.
    Replace,
    /// Frees all objects, then allocates as many.
    FreeAll,
    /// `Replace` in two threads, each with its own live set.
    ReplaceTwo,
    /// One thread allocates, another frees in the same order.
    HandOver,
    /// One thread allocates, another frees each batch in random order.
    HandOverShuffled,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As printed.
    pub name: &'static str,
    /// What is done.
    pub work: Work,
    /// Objects alive at once, for each thread.
    pub live: usize,
    /// Sizes in bytes, uniformly distributed.
    pub sizes: (usize, usize),
}

const fn row(name: &'static str, work: Work, live: usize, low: usize, high: usize) -> Row {
    Row { name, work, live, sizes: (low, high) }
}

/// The tables of the design: one thread, then two.
pub const ROWS: [Row; 11] = [
    row("100, 1-64 B", Work::Replace, 100, 1, 64),
    row("10,000, 1-64 B", Work::Replace, 10_000, 1, 64),
    row("10,000, 1-1000 B", Work::Replace, 10_000, 1, 1000),
    row("300,000, 1-64 B", Work::Replace, 300_000, 1, 64),
    row("300,000, 1-1000 B", Work::Replace, 300_000, 1, 1000),
    row("free all, allocate all, 10,000, 1-64 B", Work::FreeAll, 10_000, 1, 64),
    row("2 threads x 10,000, 1-1000 B", Work::ReplaceTwo, 10_000, 1, 1000),
    row("2 threads x 1,000, 1-256 B", Work::ReplaceTwo, 1_000, 1, 256),
    row("2 threads x 100,000, 1-500 B", Work::ReplaceTwo, 100_000, 1, 500),
    row("producer to consumer, in order, 64-400 B", Work::HandOver, 1_000, 64, 400),
    row("producer to consumer, shuffled, 64-400 B", Work::HandOverShuffled, 1_000, 64, 400),
];

/// A small random generator (xorshift64*): the same sequence for each contender.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// Seeded.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32) as usize * n) >> 32
    }

    fn size(&mut self, (low, high): (usize, usize)) -> usize {
        low + self.below(high - low + 1)
    }
}

/// An object as it is kept: address and size, so that freeing knows its layout as Rust programs do.
type Object = (usize, usize);

const fn layout(size: usize) -> Layout {
    // SAFETY: 16 is a power of two, and the sizes here are small.
    unsafe { Layout::from_size_align_unchecked(size, 16) }
}

fn make<A: GlobalAlloc + ?Sized>(allocator: &A, size: usize) -> Object {
    // SAFETY: sizes are above 0.
    let object = unsafe { allocator.alloc(layout(size)) };
    assert!(!object.is_null());
    // SAFETY: at least one byte was just allocated. The touch is what any program does first.
    unsafe { object.write(1) };
    (object as usize, size)
}

fn drop_object<A: GlobalAlloc + ?Sized>(allocator: &A, (address, size): Object) {
    // SAFETY: every object is made by `make` and dropped once.
    unsafe { allocator.dealloc(black_box(address as *mut u8), layout(size)) };
}

/// A thread that does what it is given, one thing after the other.
struct Worker {
    tasks: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn new() -> Self {
        let (tasks, given) = channel::<Box<dyn FnOnce() + Send>>();
        let thread = std::thread::spawn(move || given.into_iter().for_each(|task| task()));
        Self { tasks: Some(tasks), thread: Some(thread) }
    }

    fn give(&self, task: impl FnOnce() + Send + 'static) {
        let tasks = self.tasks.as_ref().expect("the worker lives");
        assert!(tasks.send(Box::new(task)).is_ok(), "a worker panicked");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tasks = None;
        self.thread.take().expect("joined once").join().expect("a worker panicked");
    }
}

/// The processors that a thread may use.
struct Processors(libc::cpu_set_t);

impl Processors {
    /// Those of the calling thread.
    fn mine() -> Self {
        // SAFETY: all zeros is the empty set, which the call writes to. Refused, it stays empty.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
            Self(set)
        }
    }

    /// The `nth` of them alone; all of them where there are not so many.
    fn nth(&self, nth: usize) -> Self {
        // SAFETY: numbers within the set.
        let mut there = (0..libc::CPU_SETSIZE as usize).filter(|&number| unsafe { libc::CPU_ISSET(number, &self.0) });
        let Some(number) = there.nth(nth) else { return Self(self.0) };
        // SAFETY: as above.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(number, &mut set);
            Self(set)
        }
    }

    /// Keeps the calling thread to them.
    fn keep_to(&self) {
        // SAFETY: the call reads the set. Where it is refused all stays as it is.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }
}

/// What a thread of `Replace` works on.
type Set = (Vec<Object>, Rng);

/// A live set of a contender, kept between measurements as in a program that has run for a while; so are its threads.
pub struct World {
    row: Row,
    contender: usize,
    sets: Vec<Set>,
    workers: Vec<Worker>,
}

/// Calls `$f` with the concrete allocator, so that it is inlined as into a program that uses it.
macro_rules! with_allocator {
    ($index:expr, $a:ident => $f:expr) => {
        match $index {
            0 => {
                let $a = &POOL;
                $f
            }
            1 => {
                let $a = &mimalloc::MiMalloc;
                $f
            }
            2 => {
                let $a = &tikv_jemallocator::Jemalloc;
                $f
            }
            _ => {
                let $a = &System;
                $f
            }
        }
    };
}

impl World {
    /// Allocates the live set.
    #[must_use]
    pub fn new(row: Row, contender: usize) -> Self {
        let threads = if matches!(row.work, Work::ReplaceTwo) { 2 } else { 1 };
        let workers: Vec<Worker> = (0..threads).map(|_| Worker::new()).collect();
        let hand_over = matches!(row.work, Work::HandOver | Work::HandOverShuffled);
        let live = if hand_over { 0 } else { row.live };
        let mut sets = (0..threads).map(|thread| (Vec::with_capacity(live), Rng::new(0x9e37_79b9 + thread))).collect();
        with_allocator!(contender, a => at_once(&workers, &mut sets, move |set, rng| {
            set.extend((0..live).map(|_| make(a, rng.size(row.sizes))));
            Duration::ZERO
        }));
        Self { row, contender, sets, workers }
    }

    /// Bytes asked for by the live set.
    #[must_use]
    pub fn requested(&self) -> usize {
        self.sets.iter().flat_map(|(set, _)| set).map(|(_, size)| size).sum()
    }

    /// Does about `pairs` frees and allocations; the time per pair is the result divided by them.
    pub fn run(&mut self, pairs: u64) -> Duration {
        let Row { work, sizes, live, .. } = self.row;
        with_allocator!(self.contender, a => match work {
            Work::Replace | Work::ReplaceTwo => {
                at_once(&self.workers, &mut self.sets, move |set, rng| replace(a, set, rng, sizes, pairs))
            }
            Work::FreeAll => {
                at_once(&self.workers, &mut self.sets, move |set, rng| free_all(a, set, rng, sizes, pairs))
            }
            Work::HandOver => hand_over(a, &self.workers[0], live, sizes, pairs, false),
            Work::HandOverShuffled => hand_over(a, &self.workers[0], live, sizes, pairs, true),
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (set, _) in &mut self.sets {
            with_allocator!(self.contender, a => set.drain(..).for_each(|object| drop_object(a, object)));
        }
    }
}

fn replace<A: GlobalAlloc>(a: &A, set: &mut [Object], rng: &mut Rng, sizes: (usize, usize), pairs: u64) -> Duration {
    // The threads' generators share a cache line, of which the allocators are not to blame.
    let mut own = rng.clone();
    let start = Instant::now();
    for _ in 0..pairs {
        let index = own.below(set.len());
        let size = own.size(sizes);
        drop_object(a, set[index]);
        set[index] = make(a, size);
    }
    *rng = own;
    start.elapsed()
}

fn free_all<A: GlobalAlloc>(
    a: &A,
    set: &mut Vec<Object>,
    rng: &mut Rng,
    sizes: (usize, usize),
    pairs: u64,
) -> Duration {
    let live = set.len();
    let rounds = pairs.div_ceil(live as u64);
    let start = Instant::now();
    for _ in 0..rounds {
        set.drain(..).for_each(|object| drop_object(a, object));
        set.extend((0..live).map(|_| make(a, rng.size(sizes))));
    }
    // Whole rounds are measured, `pairs` are asked for.
    start.elapsed().mul_f64(pairs as f64 / (rounds * live as u64) as f64)
}

/// Each worker does `work` with its own set, all at once: the longest time that one took.
fn at_once(
    workers: &[Worker],
    sets: &mut Vec<Set>,
    work: impl Fn(&mut Vec<Object>, &mut Rng) -> Duration + Clone + Send + 'static,
) -> Duration {
    let barrier = Arc::new(Barrier::new(sets.len()));
    let (done, results) = channel();
    for (nth, ((mut set, mut rng), worker)) in sets.drain(..).zip(workers).enumerate() {
        let (barrier, done, work) = (barrier.clone(), done.clone(), work.clone());
        worker.give(move || {
            barrier.wait();
            let time = work(&mut set, &mut rng);
            // Whoever asked waits for it.
            let _ = done.send((nth, time, (set, rng)));
        });
    }
    drop(done);
    let mut results: Vec<_> = results.into_iter().collect();
    assert_eq!(results.len(), workers.len(), "a worker panicked");
    results.sort_by_key(|&(nth, ..)| nth);
    let time = results.iter().map(|&(_, time, _)| time).max().unwrap_or_default();
    sets.extend(results.into_iter().map(|(.., set)| set));
    time
}

/// Batches go through a bounded channel; only their handling is the allocators', the rest is the same for all. Producer and consumer have a
/// processor each: one who is done early sleeps, and then the scheduler likes to put both on the same one, where they
/// take turns.
fn hand_over<A: GlobalAlloc + Sync>(
    a: &'static A,
    producer: &Worker,
    batch: usize,
    sizes: (usize, usize),
    pairs: u64,
    shuffled: bool,
) -> Duration {
    let batches = pairs.div_ceil(batch as u64).max(1);
    let (to_consumer, from_producer) = sync_channel::<Vec<Object>>(4);
    let (to_producer, from_consumer) = sync_channel::<Vec<Object>>(8);
    for _ in 0..6 {
        to_producer.send(Vec::with_capacity(batch)).expect("the channel has room");
    }
    let all = Processors::mine();
    let second = all.nth(1);
    all.nth(0).keep_to();
    let start = Instant::now();
    producer.give(move || {
        second.keep_to();
        let mut rng = Rng::new(7);
        for _ in 0..batches {
            let mut objects = from_consumer.recv().expect("the consumer lives");
            objects.extend((0..batch).map(|_| make(a, rng.size(sizes))));
            to_consumer.send(objects).expect("the consumer lives");
        }
    });
    let mut rng = Rng::new(11);
    for mut objects in from_producer {
        if shuffled {
            for index in (1..objects.len()).rev() {
                objects.swap(index, rng.below(index + 1));
            }
        }
        objects.drain(..).for_each(|object| drop_object(a, object));
        // The producer may have ended.
        let _ = to_producer.send(objects);
    }
    let time = start.elapsed();
    all.keep_to();
    time.mul_f64(pairs as f64 / (batches * batch as u64) as f64)
}

/// Bytes that the pool holds (slabs, runs) for what is live now.
#[must_use]
pub fn pool_held() -> usize {
    mempool::process::stats().map_or(0, |stats| stats.open - stats.free)
}
