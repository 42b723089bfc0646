//! Random replacement through `malloc`, whose ever it is: the figures of docs/DECISIONS.md. Runs twice, and prints the nanoseconds of
//! a pair of the second time.
//!
//! `replace LOW HIGH LIVE PAIRS [log] [touch]`: sizes from LOW to HIGH bytes, uniform or (`log`) log-uniform; `touch` writes to each OS
//! page of an object, otherwise only its first byte is written. Put an allocator in place of malloc with LD_PRELOAD.
#![allow(unsafe_code)]

use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let &[low, high, live, pairs] = numbers.as_slice() else {
        eprintln!("usage: replace LOW HIGH LIVE PAIRS [log] [touch]");
        std::process::exit(2)
    };
    let (log, touch) = (words.iter().any(|word| word == "log"), words.iter().any(|word| word == "touch"));
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let octaves = (high as f64 / low as f64).log2();
    let mut objects = vec![std::ptr::null_mut::<u8>(); live];
    let mut spent = std::time::Duration::ZERO;
    for _ in 0..2 {
        let start = Instant::now();
        for _ in 0..pairs {
            let draw = random();
            let share = (draw as u32) as f64 / f64::from(u32::MAX);
            let size = if log {
                (low as f64 * (octaves * share).exp2()) as usize
            } else {
                low + (share * (high - low) as f64) as usize
            };
            let object = &mut objects[(draw >> 32) as usize % live];
            // SAFETY: null or allocated here, and freed once; so many bytes are written as were asked for.
            unsafe {
                libc::free(object.cast());
                *object = libc::malloc(size).cast();
                assert!(!object.is_null(), "no memory");
                let step = if touch { 4096 } else { size };
                (0..size).step_by(step.max(1)).for_each(|at| object.add(at).write(1));
            }
        }
        spent = start.elapsed();
    }
    println!("{:.1} ns for a pair", spent.as_secs_f64() * 1e9 / pairs as f64);
}
