//! Random replacement on the pool beside the C library's allocator: nanoseconds per free and allocation.
#![allow(unsafe_code)]
use std::time::Instant;
fn rng(s: &mut u64) -> u64 {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    *s
}
fn main() {
    mempool::process::init(&mempool::Config::process()).unwrap();
    for (n, lo, hi) in
        [(100usize, 1u64, 64u64), (10_000, 1, 64), (10_000, 1, 1000), (300_000, 1, 64), (300_000, 1, 1000)]
    {
        let mut best = [f64::MAX; 2];
        for _ in 0..5 {
            for k in 0..2 {
                let mut s = 88172645463325252u64;
                let al = |z: usize| -> *mut u8 {
                    // SAFETY: a plain call of the C library.
                    if k == 0 { mempool::process::alloc(z) } else { unsafe { libc::malloc(z) as *mut u8 } }
                };
                let fr = |p: *mut u8| {
                    if k == 0 {
                        // SAFETY: `p` came from `al` and is used no more.
                        unsafe { mempool::process::free(p, "free") }
                    } else {
                        // SAFETY: as above.
                        unsafe { libc::free(p as *mut _) }
                    }
                };
                let mut v: Vec<*mut u8> = (0..n)
                    .map(|_| {
                        let p = al((lo + rng(&mut s) % (hi - lo + 1)) as usize);
                        // SAFETY: at least one byte was allocated.
                        unsafe { *p = 1 };
                        p
                    })
                    .collect();
                let ops = 2_000_000;
                let t = Instant::now();
                for _ in 0..ops {
                    let r = rng(&mut s);
                    let i = (r % n as u64) as usize;
                    let z = (lo + (r >> 32) % (hi - lo + 1)) as usize;
                    fr(v[i]);
                    let p = al(z);
                    // SAFETY: at least one byte was allocated.
                    unsafe { *p = 1 };
                    v[i] = p;
                }
                let d = t.elapsed().as_nanos() as f64 / ops as f64;
                if d < best[k] {
                    best[k] = d
                }
                if k == 0 {
                    let st = mempool::process::stats().unwrap();
                    if best[0] == d && n == 300_000 {
                        eprintln!("live {} held {}", st.live_bytes(), st.open - st.free);
                    }
                }
                for p in v.drain(..) {
                    fr(p)
                }
            }
        }
        println!("{n} {lo}-{hi}: pool {:.1} glibc {:.1}", best[0], best[1]);
    }
    mempool::process::verify().unwrap();
    println!("{}", mempool::process::with_table(|t| t.to_string()).unwrap());
}
