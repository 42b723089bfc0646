//! `paths PATH COUNT`: takes one path through the pool so often, with nothing else inside [`measured`], for `counts` to
//! count its instructions. What it is, and what it must be preceded by, each function says.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use mempool::config::{Commit, Small};
use mempool::process::{self, CacheHandle};
use mempool::{Config, Global, Pool};

static POOL: Global = Global::new(Config::process().segment(256 << 20).commit(Commit::Lazy));

/// The measured part: callgrind counts what is inside alone.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

const LAYOUT: Layout = Layout::new::<[u64; 8]>();

#[inline(always)]
fn pair() {
    // SAFETY: the layout has a size; the object is freed once and not used afterwards.
    unsafe { POOL.dealloc(black_box(POOL.alloc(LAYOUT)), LAYOUT) };
}

/// Pairs of 64 bytes through Rust's interface, inlined. One object stays, as in any program.
fn rust(count: usize) {
    // SAFETY: the layout has a size. Never freed.
    black_box(unsafe { POOL.alloc(LAYOUT) });
    (0..100).for_each(|_| pair());
    measured(|| (0..count).for_each(|_| pair()));
}

/// A pool that is not the process's.
fn own() -> Pool {
    Config::new().segment(256 << 20).commit(Commit::Lazy).build().expect("a pool of this size")
}

/// Pairs of 64 bytes from a pool of one's own, inlined.
fn pool(count: usize) {
    let pool = own();
    let pair = || {
        let object = pool.alloc(black_box(LAYOUT)).expect("room for one object");
        // SAFETY: freed once and not used afterwards.
        unsafe { pool.free(black_box(object)) };
    };
    black_box(pool.alloc(LAYOUT).expect("room for one object"));
    (0..100).for_each(|_| pair());
    measured(|| (0..count).for_each(|_| pair()));
}

/// Boxes of 64 bytes of a cache in such a pool, which are written and dropped.
fn boxes(count: usize) {
    let pool = own();
    let cache = pool.cache("boxes").expect("the pool has room for a cache");
    let pair = || drop(black_box(cache.alloc([0_u64; 8]).expect("room for one box")));
    let kept = cache.alloc([0; 8]).expect("room for one box");
    (0..100).for_each(|_| pair());
    measured(|| (0..count).for_each(|_| pair()));
    drop(kept);
}

/// Takes whatever pointer comes, and frees it.
fn free(object: *mut libc::c_void) {
    // SAFETY: callers give what the malloc family gave, once.
    unsafe { libc::free(black_box(object)) };
}

/// `malloc(size)`.
fn malloc(size: usize) -> *mut libc::c_void {
    // SAFETY: any size may be asked for.
    let object = unsafe { libc::malloc(black_box(size)) };
    assert!(!object.is_null());
    object
}

/// Pairs of `size` bytes.
fn pairs(count: usize, size: usize, make: impl Fn(usize) -> *mut libc::c_void) {
    black_box(make(size));
    (0..100).for_each(|_| free(make(size)));
    measured(|| (0..count).for_each(|_| free(make(size))));
}

fn calloc(size: usize) -> *mut libc::c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::calloc(1, black_box(size)) }
}

/// An object that is made, grows to another size class, and is freed.
fn grown(size: usize) -> *mut libc::c_void {
    // SAFETY: the object is replaced by the result.
    unsafe { libc::realloc(malloc(size), black_box(4 * size)) }
}

fn aligned(size: usize) -> *mut libc::c_void {
    // SAFETY: any size may be asked for.
    unsafe { libc::aligned_alloc(black_box(64), black_box(size)) }
}

/// Items of a named cache through Rust's interface: a random one of 1,000 is freed, and one allocated.
fn cache(count: usize) {
    let free = |cache, item, _| {
        // SAFETY: each item is freed once and not used afterwards.
        unsafe { process::cache_free(cache, item) }
    };
    replaced(count, |cache, _| process::cache_alloc(cache), free);
}

/// Arrays of 2 to 17 items, likewise.
fn array(count: usize) {
    let free = |cache, item, n| {
        // SAFETY: each array is freed once, with its length, and not used afterwards.
        unsafe { process::cache_free_array(cache, item, n) }
    };
    replaced(count, process::cache_alloc_array, free);
}

/// Objects of 1 to 250 bytes of the best-fit heap, likewise.
fn heap(count: usize) {
    beside_heap(count, 250, process::alloc);
}

/// Objects of 257 to 1,024 bytes, which are runs of two to four fragments where the heap serves smaller ones, likewise.
fn short(count: usize) {
    beside_heap(count, 768, |size| process::alloc(size + 256));
}

fn beside_heap(count: usize, most: usize, make: impl Fn(usize) -> *mut u8) {
    let config = Config::process().segment(256 << 20).commit(Commit::Lazy).small(Small::Heap);
    process::init(&config).expect("a pool of this size");
    let free = |object, _| {
        // SAFETY: each object is freed once and not used afterwards.
        unsafe { process::free(object, "free") }
    };
    replace(count, most, make, free);
}

fn replaced(count: usize, make: impl Fn(CacheHandle, usize) -> *mut u8, free: impl Fn(CacheHandle, *mut u8, usize)) {
    // The process pool, as it is configured here, is made by the first request.
    pair();
    let cache = process::cache_create("items", 64, 16).expect("the pool has room for a cache");
    replace(count, 16, |n| make(cache, n + 1), |item, n| free(cache, item, n + 1));
}

/// Frees a random one of 1,000 objects, and makes one with a number of 1 to `most` in its place.
fn replace(count: usize, most: usize, make: impl Fn(usize) -> *mut u8, free: impl Fn(*mut u8, usize)) {
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut live: Vec<(*mut u8, usize)> = (0..1000).map(|_| random(most) + 1).map(|n| (make(n), n)).collect();
    let mut replace = |times| {
        (0..times).for_each(|_| {
            let place = &mut live[random(1000)];
            free(place.0, place.1);
            let n = random(most) + 1;
            *place = (make(n), n);
        });
    };
    replace(20_000);
    measured(|| replace(count));
}

/// `malloc_usable_size` of an object of 100 bytes.
fn usable(count: usize) {
    let object = malloc(100);
    // SAFETY: a live object.
    let ask = || unsafe { libc::malloc_usable_size(black_box(object)) };
    assert!(ask() >= 100);
    measured(|| (0..count).map(|_| ask()).fold(0, |sum: usize, room| sum.wrapping_add(black_box(room))));
}

/// Objects that nobody freed before: all that it takes to find items, slabs and runs.
fn refill(count: usize) {
    black_box(malloc(64));
    measured(|| {
        (0..count).for_each(|_| {
            black_box(malloc(64));
        })
    });
}

/// Frees by another thread, into slabs that are this thread's, since it freed every second object of each before.
fn remote(count: usize) {
    let objects: Vec<usize> = (0..2 * count).map(|_| malloc(64) as usize).collect();
    objects.iter().skip(1).step_by(2).for_each(|object| free(*object as *mut libc::c_void));
    by_another(&objects.into_iter().step_by(2).collect::<Vec<_>>());
}

/// Frees by another thread, into slabs that are nobody's, since they are full.
fn adopt(count: usize) {
    by_another(&(0..count).map(|_| malloc(64) as usize).collect::<Vec<_>>());
}

fn by_another(objects: &[usize]) {
    let consumer = || {
        // The thread's first request makes its local heap.
        free(malloc(64));
        measured(|| objects.iter().for_each(|object| free(*object as *mut libc::c_void)));
    };
    std::thread::scope(|scope| scope.spawn(consumer).join().expect("the thread ends"));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, count] = arguments.as_slice() else { panic!("usage: paths PATH COUNT") };
    let count = count.parse().expect("COUNT is a number");
    match path.as_str() {
        "rust" => rust(count),
        "pool" => pool(count),
        "boxes" => boxes(count),
        "small" | "narrow" => pairs(count, 64, malloc),
        "large" => pairs(count, 20_000, malloc),
        "calloc" => pairs(count, 256, calloc),
        "aligned" => pairs(count, 192, aligned),
        "cache" => cache(count),
        "array" => array(count),
        "heap" => heap(count),
        "short" => short(count),
        "realloc" => pairs(count, 100, grown),
        "usable" => usable(count),
        "refill" => refill(count),
        "remote" => remote(count),
        "adopt" => adopt(count),
        other => panic!("no path {other}"),
    }
}
