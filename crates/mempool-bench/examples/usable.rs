//! How much of a bounded pool objects of one size can have, each size in a pool of its own: filled until it is exhausted; every second object freed and
//! allocated again; all freed and filled again; all freed and filled with another size and back.
//!
//! `cargo run --release -p mempool-bench --example usable [SEGMENT]` prints a table, in hundredths of the segment's bytes; the
//! segment is 256 MiB unless another number of bytes is given. The test `usable` of mempool-testing asserts the limits.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;

use mempool::config::{Commit, Exhausted, Lock, Wish};
use mempool::{Config, Pool};

/// Objects and the size of each.
struct Objects {
    size: usize,
    list: Vec<NonNull<u8>>,
}

fn fill(pool: &Pool, size: usize) -> Objects {
    let layout = Layout::from_size_align(size, 1).expect("a size");
    Objects { size, list: std::iter::from_fn(|| pool.try_alloc(layout).ok()).collect() }
}

impl Objects {
    fn bytes(&self) -> usize {
        self.size * self.list.len()
    }

    fn free(self, pool: &Pool) {
        // SAFETY: live, and not used afterwards.
        self.list.into_iter().for_each(|object| unsafe { pool.free(object) });
    }

    /// Frees every second one, in address order, and fills up again. The number of objects before and afterwards.
    fn refill(mut self, pool: &Pool) -> (usize, usize, Objects) {
        self.list.sort_unstable();
        let before = self.list.len();
        let (odd, even): (Vec<_>, Vec<_>) = self.list.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        // SAFETY: live, and not used afterwards.
        odd.into_iter().for_each(|(_, object)| unsafe { pool.free(object) });
        let mut list: Vec<_> = even.into_iter().map(|(_, object)| object).collect();
        list.append(&mut fill(pool, self.size).list);
        (before, list.len(), Objects { size: self.size, list })
    }
}

fn main() {
    let segment =
        std::env::args().nth(1).map_or(256 << 20, |bytes| bytes.parse().expect("SEGMENT is a number of bytes"));
    let config = Config::new().segment(segment).exhausted(Exhausted::Null).max_retries(0).commit(Commit::Lazy);
    let config = config.lock(Lock::Off).huge_pages(Wish::Off);
    let share = |bytes: usize| bytes as f64 / segment as f64 * 100.0;
    println!("{:>9} {:>9} {:>9} {:>9} {:>9} {:>9}", "size", "filled", "half", "again", "other", "back");
    for (size, other) in [(64, 256 << 10), (4096, 64), (100_000, 64), (1 << 20, 64), (256 << 10, 64)] {
        let pool = config.build().expect("a pool");
        let first = fill(&pool, size);
        let filled = first.bytes();
        let (before, after, objects) = first.refill(&pool);
        objects.free(&pool);
        let again = fill(&pool, size);
        let again_bytes = again.bytes();
        again.free(&pool);
        let others = fill(&pool, other);
        let other_bytes = others.bytes();
        others.free(&pool);
        let back = fill(&pool, size);
        let back_bytes = back.bytes();
        back.free(&pool);
        println!(
            "{size:>9} {:>8.2}% {:>8.2}% {:>8.2}% {:>8.2}% {:>8.2}%",
            share(filled),
            after as f64 / before as f64 * 100.0,
            again_bytes as f64 / filled as f64 * 100.0,
            share(other_bytes),
            back_bytes as f64 / filled as f64 * 100.0
        );
    }
}
