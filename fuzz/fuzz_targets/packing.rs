//! The bitmaps, from outside: runs of fragments on a small pool. Two bytes are a step. What the largest free run could
//! hold must be served, what it could not must not, and freed fragments join their neighbours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mempool_testing::{Shadow, World};

fuzz_target!(|data: &[u8]| {
    let pool = World::of(1 << 20).slots(12).config.build().expect("a pool");
    let mut shadow = Shadow::new(&pool, 4);
    assert!(shadow.alloc(1, 1, false) && shadow.free(0));
    for step in data.chunks_exact(2).take(400) {
        let (kind, value) = (step[0], usize::from(step[1]));
        if kind & 1 == 0 {
            shadow.free(value);
        } else {
            // Above the largest class of such slots, so that each is a run.
            let fragments = 3 + value * if kind & 2 == 0 { 1 } else { 16 };
            let room = pool.stats().largest_free;
            let served = shadow.alloc(fragments * 256 - usize::from(kind >> 4), 1, kind & 4 != 0);
            // Slabs that are kept empty come back when a request needs them.
            assert!(served || fragments * 256 > room, "{fragments} fragments refused with {room} bytes in one run");
        }
    }
    while shadow.free(0) {}
    shadow.check_figures();
});
