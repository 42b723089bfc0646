//! The page-frag tier's search: nanoseconds for taking and giving back one run, at 2 MiB, 256 MiB and 16 GiB.
//!
//! `cargo bench -p mempool-bench --bench page_frag`; a word behind `--` picks rows, as in `-- "1 fragment"`.
//!
//! Runs are asked of the tier itself, below the store of recently freed runs: a pair that the store serves searches
//! nothing. The segments are committed lazily and no run is ever written to, so that 16 GiB take as much memory as
//! their bitmaps. In each of three states the three sizes take turns in slices, so that all see the same
//! machine; the last column says what the cost grows by when the segment doubles, which must be about the same for
//! 2 MiB to 256 MiB (7 doublings) as for 256 MiB to 16 GiB (6 doublings): the logarithm.
//!
//! | state | the segment |
//! |---|---|
//! | empty | nothing in use |
//! | half full | filled with runs of 1 to 300 fragments, mostly short, of which half, drawn at random, went back |
//! | nearly full | filled so, and 1 in 200 went back: gaps are many and too short, but for one of the size asked for, made half way |
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};
use mempool::Pool;
use mempool::config::{Commit, Config, Lock};

const SEGMENTS: [(&str, usize); 3] = [("2 MiB", 2 << 20), ("256 MiB", 256 << 20), ("16 GiB", 16 << 30)];
/// What is asked for, in fragments of 256 bytes.
const LENGTHS: [(&str, usize); 4] = [("1 fragment", 1), ("1 page", 64), ("100 fragments", 100), ("1 MiB", 4096)];
/// Pairs of one slice.
const SLICE: u64 = 20_000;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Empty,
    HalfFull,
    NearlyFull,
}

const STATES: [(&str, State); 3] =
    [("empty", State::Empty), ("half full", State::HalfFull), ("nearly full", State::NearlyFull)];

/// Marsaglia's xorshift: the same runs each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Mostly a few fragments, now and then some pages.
    fn length(&mut self) -> usize {
        let most = [4, 4, 16, 16, 64, 300][self.below(6) as usize];
        1 + self.below(most) as usize
    }
}

/// A pool of `bytes` bytes in `state`, with room for a run of `length` fragments.
fn prepare(bytes: usize, state: State, length: usize) -> Pool {
    let config = Config::new().segment(bytes).commit(Commit::Lazy).lock(Lock::Off).max_retries(0);
    let pool = config.build().expect("a lazily committed segment");
    if state == State::Empty {
        return pool;
    }
    let half = pool.stats().free / 256 / 2;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut runs, mut used, mut hole) = (Vec::new(), 0, None);
    loop {
        if hole.is_none() && used >= half.saturating_sub(length) {
            hole = Some(pool.door_take(length).expect("half of the segment is free"));
        }
        let wanted = random.length();
        // When the drawn length does not fit any more, single fragments fill what is left.
        let Some(start) = pool.door_take(wanted).or_else(|| pool.door_take(1)) else { break };
        runs.push(start);
        used += wanted;
    }
    let one_in = if state == State::HalfFull { 2 } else { 200 };
    for start in runs {
        if random.below(one_in) == 0 {
            give(&pool, start);
        }
    }
    give(&pool, hole.expect("half way was passed"));
    pool
}

fn give(pool: &Pool, start: usize) {
    // SAFETY: taken here, and never written to.
    assert!(unsafe { pool.door_give(start) });
}

fn pairs(pool: &Pool, length: usize, count: u64) -> Duration {
    let begin = Instant::now();
    for _ in 0..count {
        let start = pool.door_take(black_box(length)).expect("room was left");
        give(pool, black_box(start));
    }
    begin.elapsed()
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10);
    let mut lines = Vec::new();
    for (name, length) in LENGTHS {
        for (condition, state) in STATES {
            lines.extend(measure(&mut criterion, &format!("{name}, {condition}"), length, state));
        }
    }
    criterion.final_summary();
    println!("\nns to take and give back one run, medians of interleaved slices");
    print!("| {:<28} |", "run, segment");
    SEGMENTS.iter().for_each(|(name, _)| print!(" {name:>8} |"));
    println!(" {:>32} |", "more per doubling: below, above 256 MiB");
    lines.iter().for_each(|line| println!("{line}"));
}

/// Measures a row; None when criterion's filter left it out.
fn measure(criterion: &mut Criterion, row: &str, length: usize, state: State) -> Option<String> {
    // Made when the row is run for the first time: filling 16 GiB takes a while.
    let mut pools = Vec::new();
    let mut samples = vec![Vec::new(); SEGMENTS.len()];
    let mut group = criterion.benchmark_group(row);
    group.sampling_mode(SamplingMode::Flat);
    for (index, (name, _)) in SEGMENTS.iter().enumerate() {
        group.bench_function(*name, |bencher| {
            if pools.is_empty() {
                pools.extend(SEGMENTS.map(|(_, bytes)| prepare(bytes, state, length)));
            }
            bencher.iter_custom(|wanted| {
                let slices = wanted.div_ceil(SLICE);
                let mut own = Duration::ZERO;
                for _ in 0..slices {
                    for (other, pool) in pools.iter().enumerate() {
                        let time = pairs(pool, length, SLICE);
                        samples[other].push(time.as_secs_f64() * 1e9 / SLICE as f64);
                        if other == index {
                            own += time;
                        }
                    }
                }
                own.mul_f64(wanted as f64 / (slices * SLICE) as f64)
            });
        });
    }
    group.finish();
    if samples[0].is_empty() {
        return None;
    }
    let medians: Vec<f64> = samples.iter_mut().map(|times| median(times)).collect();
    let columns: String = medians.iter().map(|median| format!(" {median:>8.1} |")).collect();
    let (below, above) = ((medians[1] - medians[0]) / 7.0, (medians[2] - medians[1]) / 6.0);
    Some(format!("| {row:<28} |{columns} {below:>18.1}, {above:>18.1} |"))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
