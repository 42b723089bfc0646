//! Threads without a local heap of their own: what they are in the midst of is theirs all the same, and stays theirs when they get one.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mempool::Pool;
use mempool::config::{Config, Exhausted};
use mempool_testing::World;

const LARGE: usize = 60_000;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

fn config() -> Config {
    World::of(2 << 20).config.exhausted(Exhausted::Null).max_retries(0).verdict_interval(0)
}

fn fill(pool: &Pool) {
    for size in [LARGE, 4096, 256] {
        while pool.try_alloc(layout(size)).is_ok() {}
    }
}

/// What the program can do without: each callback frees some of it.
struct Spare {
    pool: Pool,
    objects: Vec<NonNull<u8>>,
    next: AtomicUsize,
    calls: AtomicUsize,
    /// So many callbacks wait for each other.
    together: usize,
}

// SAFETY: each object is freed once, by whoever drew its number.
unsafe impl Sync for Spare {}

impl Spare {
    /// A full pool.
    fn of(config: Config, together: usize) -> Self {
        let pool = config.build().expect("a pool");
        let objects = (0..24).map(|_| pool.try_alloc(layout(LARGE)).expect("memory")).collect();
        fill(&pool);
        Self { pool, objects, next: AtomicUsize::new(0), calls: AtomicUsize::new(0), together }
    }

    fn register(&self) {
        let this = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the callback only frees, and nobody calls it when the pool, which is a part of this, is gone.
        unsafe { self.pool.on_reclaim(Self::give, this) }.expect("a place");
    }

    extern "C" fn give(_: usize, this: *mut u8) -> bool {
        // SAFETY: what `register` said.
        let this = unsafe { &*this.cast::<Self>() };
        this.calls.fetch_add(1, SeqCst);
        let deadline = Instant::now() + Duration::from_secs(20);
        while this.calls.load(SeqCst) < this.together && Instant::now() < deadline {
            std::thread::yield_now();
        }
        for _ in 0..4 {
            // SAFETY: live, and not used afterwards.
            unsafe { this.pool.free(this.objects[this.next.fetch_add(1, SeqCst)]) };
        }
        true
    }
}

/// The first request of a thread in a full pool calls back on the shared local heap, and has its own when that is done.
#[test]
fn each_new_thread_in_a_full_pool_is_called_back_for() {
    let spare = Spare::of(config(), 0);
    spare.register();
    std::thread::scope(|scope| {
        // Each stays until all were there.
        let (mut ends, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let before = spare.calls.load(SeqCst);
            let ((tell, came), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
            let spare = &spare;
            threads.push(scope.spawn(move || {
                assert!(spare.pool.alloc(layout(LARGE)).is_ok());
                tell.send(()).expect("somebody who waits");
                let _ = ended.recv();
            }));
            came.recv().expect("a thread that was served");
            assert_eq!(spare.calls.load(SeqCst), before + 1);
            fill(&spare.pool);
            ends.push(end);
        }
        drop(ends);
        // To their very ends, where they leave the pool.
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    spare.pool.verify().expect("in order");
}

/// That one thread is inside its callback is nothing to another.
#[test]
fn threads_on_the_shared_local_heap_are_called_back_for_at_once() {
    let spare = Spare::of(config().max_threads(1), 2);
    spare.register();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(spare.pool.alloc(layout(LARGE)).is_ok()));
        }
    });
    assert_eq!(spare.calls.load(SeqCst), 2);
}

/// A critical scope that begins on the shared local heap is the thread's own, and goes with it to its own local heap.
#[test]
fn a_critical_scope_belongs_to_its_thread() {
    let pool = &config().reserve(64 << 10).build().expect("a pool");
    let object = pool.try_alloc(layout(4 * LARGE)).expect("memory");
    fill(pool);
    // A run, of which no thread keeps any.
    let is_served = || pool.try_alloc(layout(20_000)).is_ok();
    let joined = pool.stats().threads;
    std::thread::scope(|scope| {
        let ((go, told), (tell, came)) = (mpsc::channel(), mpsc::channel());
        scope.spawn(move || {
            pool.critical(|| {
                tell.send(()).expect("somebody who waits");
                told.recv().expect("memory is free");
                assert!(is_served());
                tell.send(()).expect("somebody who waits");
                told.recv().expect("memory is full");
                pool.critical(|| assert!(is_served(), "the reserve is for this thread"));
                assert!(is_served(), "and still is");
            });
            assert!(!is_served(), "the scope is over");
        });
        came.recv().expect("a scope that was entered");
        scope.spawn(move || assert!(!is_served(), "another thread's scope")).join().expect("no reserve for it");
        assert_eq!(pool.stats().threads, joined, "neither has a local heap");
        // SAFETY: live, and not used afterwards.
        unsafe { pool.free(object) };
        go.send(()).expect("somebody who waits");
        came.recv().expect("a thread that was served");
        assert_eq!(pool.stats().threads, joined + 1);
        fill(pool);
        go.send(()).expect("somebody who waits");
    });
    std::thread::scope(|scope| {
        scope.spawn(|| pool.critical(|| assert!(is_served(), "a scope on the shared local heap")));
    });
}
