//! `paths PATH COUNT`: takes one path through the pool so often, with nothing else inside [`measured`], for `counts` to
//! count its instructions. What it is, and what it must be preceded by, each function says.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use mempool::config::Commit;
use mempool::{Config, Global};

static POOL: Global = Global::new(Config::process().segment(64 << 20).commit(Commit::Lazy));

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
        "small" => pairs(count, 64, malloc),
        "large" => pairs(count, 20_000, malloc),
        "calloc" => pairs(count, 256, calloc),
        "realloc" => pairs(count, 100, grown),
        "refill" => refill(count),
        "remote" => remote(count),
        "adopt" => adopt(count),
        other => panic!("no path {other}"),
    }
}
