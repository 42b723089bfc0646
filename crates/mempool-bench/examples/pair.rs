//! `COUNT` pairs of one allocation of 64 bytes and its free, for counting instructions: run it under callgrind with two
//! counts and divide the difference. `pair rust COUNT` is inlined into this program, `pair malloc COUNT` calls `malloc`
//! and `free`, which a preloaded library may serve; `pair large COUNT` does so with 20,000 bytes.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

use mempool::config::Commit;
use mempool::{Config, Global};

static POOL: Global = Global::new(Config::process().segment(512 << 20).commit(Commit::Lazy));

#[inline(always)]
fn pairs(allocator: &impl GlobalAlloc, layout: Layout, count: usize) {
    // One object that stays, as in any program: else each free would find its slab empty.
    // SAFETY: the layout has a size. Never freed.
    black_box(unsafe { allocator.alloc(layout) });
    for _ in 0..count {
        // SAFETY: the layout has a size; the object is freed once and not used afterwards.
        unsafe { allocator.dealloc(black_box(allocator.alloc(layout)), layout) };
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [way, count] = arguments.as_slice() else { panic!("usage: pair rust|malloc|large COUNT") };
    let count = count.parse().expect("COUNT is a number");
    match way.as_str() {
        "rust" => pairs(&POOL, Layout::new::<[u64; 8]>(), count),
        "malloc" => pairs(&System, Layout::new::<[u64; 8]>(), count),
        "large" => pairs(&System, Layout::new::<[u64; 2500]>(), count),
        other => panic!("{other} is none of rust, malloc and large"),
    }
}
