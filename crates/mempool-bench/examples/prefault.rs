//! How fast a segment becomes really there, beside a plain `memset` of fresh memory by as many threads as there are
//! cores: `cargo run --release -p mempool-bench --example prefault -- 1024` (MiB). Rounds alternate, so that a loaded
//! machine harms both alike; medians of 7.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use mempool::Config;
use mempool::config::Wish;

const ROUNDS: usize = 7;

fn main() {
    let mib: usize = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1024);
    let bytes = mib << 20;
    println!("{:<28} {:>10} {:>10} {:>7}", "ms for a segment", "memset", "pool", "ratio");
    for (name, huge, lock) in [
        ("4 KiB pages", Wish::Off, Wish::Off),
        ("4 KiB pages, locked", Wish::Off, Wish::Try),
        ("huge pages", Wish::Try, Wish::Off),
        ("huge pages, locked", Wish::Try, Wish::Try),
    ] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            times[0].push(memset(bytes, huge != Wish::Off));
            let start = Instant::now();
            let pool = Config::new().segment(bytes).huge_pages(huge).lock(lock).build().expect("a pool");
            times[1].push(start.elapsed());
            drop(pool);
        }
        let [plain, pool] = times.map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2].as_secs_f64() * 1000.0
        });
        println!("{name:<28} {plain:>10.1} {pool:>10.1} {:>7.2}", plain / pool);
    }
}

/// The time to map `bytes` bytes and write them all, by one thread per core.
fn memset(bytes: usize, huge: bool) -> Duration {
    let start = Instant::now();
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0) };
    assert_ne!(place, libc::MAP_FAILED);
    if huge {
        // SAFETY: the mapping just made.
        unsafe { libc::madvise(place, bytes, libc::MADV_HUGEPAGE) };
    }
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let first = place.expose_provenance();
    std::thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || {
                let part = std::ptr::with_exposed_provenance_mut::<u8>(first + bytes / cores * core);
                // SAFETY: a part of the mapping that no other thread touches.
                unsafe { part.write_bytes(0xA5, bytes / cores) };
            });
        }
    });
    let took = start.elapsed();
    // SAFETY: the mapping, which nobody uses any more.
    unsafe { libc::munmap(place, bytes) };
    took
}
