//! How long single operations take: histograms of ticks, beside one of nothing at all, timed the same way in the same
//! run. What the empty operation shows is the machine's own noise: interrupts, other programs, the clock.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::clock;

/// The longest that is told apart, in ticks: about 20 seconds.
const MOST: u64 = 1 << 36;

/// Histograms of ticks, for `malloc`, `free`, and nothing.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Of allocations.
    pub malloc: Histogram<u64>,
    /// Of frees.
    pub free: Histogram<u64>,
    /// Of nothing.
    pub empty: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { malloc: histogram(), free: histogram(), empty: histogram() }
    }
}

/// A histogram of 1/1000 steps whose memory is all touched, so that counting faults no more.
fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, MOST, 3).expect("the bounds are in order");
    // Clearing writes all counts.
    histogram.record(1).expect("1 is in bounds");
    histogram.reset();
    histogram
}

/// Times what `operation` does into `histogram`.
#[inline(always)]
pub fn time<T>(histogram: &mut Histogram<u64>, operation: impl FnOnce() -> T) -> T {
    let begin = clock::ticks();
    let result = operation();
    let ticks = clock::ticks() - begin;
    histogram.saturating_record(ticks);
    result
}

impl Latency {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        for (own, its) in
            [(&mut self.malloc, &other.malloc), (&mut self.free, &other.free), (&mut self.empty, &other.empty)]
        {
            own.add(its).expect("all have the same bounds");
        }
    }

    /// Quantiles and curves, in nanoseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let tick = clock::nanoseconds_per_tick();
        json!({
            "malloc": figures(&self.malloc, tick), "free": figures(&self.free, tick),
            "empty": figures(&self.empty, tick),
        })
    }
}

fn figures(histogram: &Histogram<u64>, tick: f64) -> Value {
    let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 * tick;
    // Points of equal distance on an axis of nines: 0, 0.206, 0.369, ... 0.9, ... 0.99, ...
    let nines = (histogram.len().max(1) as f64).log10();
    let curve: Vec<[f64; 2]> = (0..)
        .map(|step| f64::from(step) / 10.0)
        .take_while(|n| *n <= nines)
        .map(|n| [n, at(1.0 - 10f64.powf(-n))])
        .collect();
    json!({
        "count": histogram.len(), "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "p99.99": at(0.9999),
        "max": histogram.max() as f64 * tick, "curve": curve,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::default();
        for ticks in 1..=10_000 {
            latency.malloc.record(ticks).unwrap();
        }
        let figures = figures(&latency.malloc, 2.0);
        let at = |name: &str| figures[name].as_f64().unwrap();
        for (name, wanted) in [("p50", 10_000.0), ("p99", 19_800.0), ("p99.9", 19_980.0), ("max", 20_000.0)] {
            assert!((at(name) / wanted - 1.0).abs() < 0.002, "{name}: {}", at(name));
        }
        let curve = figures["curve"].as_array().unwrap();
        assert_eq!(curve.len(), 41, "four nines in steps of a tenth");
        assert!(curve.windows(2).all(|pair| pair[0][1].as_f64() <= pair[1][1].as_f64()));
    }

    #[test]
    fn threads_add_up() {
        let (mut one, mut two) = (Latency::default(), Latency::default());
        time(&mut one.free, || ());
        time(&mut two.free, || ());
        one.add(&two);
        assert_eq!((one.free.len(), one.malloc.len()), (2, 0));
    }
}
