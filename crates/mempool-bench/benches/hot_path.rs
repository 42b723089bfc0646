//! The tables of the design, with the finished front: nanoseconds per free+allocate pair, beside other allocators in the
//! same process, interleaved.
//!
//! Criterion measures one function after the other, which on a shared machine compares one minute with the next.
//! So each of its iterations runs every contender in turn, in short slices, and reports the time of one; all samples
//! of all contenders go into the table printed at the end: medians, and the pool's ratio to the faster of mimalloc
//! and jemalloc. Every free of the pool is checked for double free; that is how it works, there is no other mode.

use std::time::Duration;

use criterion::{Criterion, SamplingMode};
mod worlds;

use worlds::{CONTENDERS, ROWS, Row, World, pool_held};

/// Pairs of one slice: long enough to time and to warm the caches that another contender has just used, short enough
/// that all contenders see the same machine.
fn slice(row: &Row) -> u64 {
    50_000.max(2 * row.live as u64)
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10);
    let mut lines = Vec::new();
    for row in ROWS {
        lines.push(measure(&mut criterion, row));
    }
    criterion.final_summary();
    println!("\nns per pair, medians of interleaved slices");
    print!("| {:<42} |", "live set, sizes");
    CONTENDERS.iter().for_each(|contender| print!(" {:>8} |", contender.name));
    println!(" {:>23} | {:>21} |", "ratio to faster peer", "memory over requested");
    for line in lines.into_iter().flatten() {
        println!("{line}");
    }
}

/// Measures a row; None when criterion's filter left it out.
fn measure(criterion: &mut Criterion, row: Row) -> Option<String> {
    let before = pool_held();
    let slice = slice(&row);
    // Made when the first contender runs: not for a row that is left out.
    let mut worlds: Vec<World> = Vec::new();
    let mut samples = vec![Vec::new(); CONTENDERS.len()];
    let mut group = criterion.benchmark_group(row.name);
    group.sampling_mode(SamplingMode::Flat);
    for (index, contender) in CONTENDERS.iter().enumerate() {
        group.bench_function(contender.name, |bencher| {
            bencher.iter_custom(|pairs| {
                if worlds.is_empty() {
                    worlds.extend((0..CONTENDERS.len()).map(|index| World::new(row, index)));
                }
                let slices = pairs.div_ceil(slice);
                let mut own = Duration::ZERO;
                for _ in 0..slices {
                    for (other, world) in worlds.iter_mut().enumerate() {
                        let time = world.run(slice);
                        samples[other].push(time.as_secs_f64() * 1e9 / slice as f64);
                        if other == index {
                            own += time;
                        }
                    }
                }
                own.mul_f64(pairs as f64 / (slices * slice) as f64)
            });
        });
    }
    group.finish();
    if samples[0].is_empty() {
        return None;
    }
    let medians: Vec<f64> = samples.iter_mut().map(|times| median(times)).collect();
    let ratio = medians[0] / medians[1].min(medians[2]);
    let requested = worlds[0].requested();
    let memory = if requested == 0 { 0.0 } else { (pool_held() - before) as f64 / requested as f64 };
    let columns: String = medians.iter().map(|median| format!(" {median:>8.1} |")).collect();
    let memory = if requested == 0 { "-".to_string() } else { format!("{memory:.2}") };
    Some(format!("| {:<42} |{columns} {ratio:>23.2} | {memory:>21} |", row.name))
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
