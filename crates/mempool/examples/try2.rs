#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, missing_docs)]
use std::time::Instant;
fn rng(s: &mut u64) -> u64 {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    *s
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let n: usize = a[1].parse().unwrap();
    let hi: u64 = a[2].parse().unwrap();
    mempool::process::init(&mempool::process::environment_config(mempool::Config::process().segment(1 << 30)).unwrap())
        .unwrap();
    let mut s = 88172645463325252u64;
    let mut req = 0usize;
    let mut v: Vec<(*mut u8, usize)> = (0..n)
        .map(|_| {
            let z = (1 + rng(&mut s) % hi) as usize;
            req += z;
            (mempool::process::alloc(z), z)
        })
        .collect();
    for round in 0..8 {
        let ops = n * 5;
        let t = Instant::now();
        for _ in 0..ops {
            let r = rng(&mut s);
            let i = (r % n as u64) as usize;
            let z = (1 + (r >> 32) % hi) as usize;
            unsafe { mempool::process::free(v[i].0, "free") };
            req -= v[i].1;
            let p = mempool::process::alloc(z);
            unsafe { *p = 1 };
            v[i] = (p, z);
            req += z;
        }
        let st = mempool::process::stats().unwrap();
        println!(
            "round {round}: {:.1} ns, live {} held {} ratio {:.2} carved {} req {}",
            t.elapsed().as_nanos() as f64 / ops as f64,
            st.live_bytes(),
            st.open - st.free,
            (st.open - st.free) as f64 / req as f64,
            st.slabs_carved,
            req
        );
    }
    for p in v.drain(..) {
        unsafe { mempool::process::free(p.0, "free") }
    }
    mempool::process::verify().unwrap();
}
