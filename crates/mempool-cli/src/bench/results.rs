//! What was measured, as it is kept in JSON, and the statistics that all reports share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::contenders::{Known, Missing, POOL, is_pool};
use super::machine::Machine;
use super::pool::Measure;

/// The version of the JSON's form.
pub const FORMAT: u32 = 1;

/// A whole benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The command line.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// Rounds asked for.
    pub rounds: usize,
    /// The share of the full work that each run did.
    pub scale: f64,
    /// How long everything took.
    pub seconds: f64,
    /// Who took part, in the order of the columns.
    pub contenders: Vec<Known>,
    /// Who could not.
    pub missing: Vec<Missing>,
    /// What was not measured, and why.
    pub notes: Vec<String>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What only the pool has.
    #[serde(default)]
    pub pool: Vec<Measure>,
}

/// A row of the report: one workload or program, with one number of threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Which program it stands for, or is.
    pub about: String,
    /// Threads.
    pub threads: usize,
    /// Whether the number of threads is the benchmark's choice.
    pub threaded: bool,
    /// A program rather than a workload.
    pub program: bool,
    /// What each contender did.
    pub results: Vec<Outcome>,
}

/// What one contender did of a row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub contender: String,
    /// Why it has no result.
    pub error: Option<String>,
    /// One for each round.
    pub runs: Vec<Run>,
    /// System calls of the measured part, from a run of its own.
    pub calls: Option<Calls>,
    /// Resident memory over time, of the last run: seconds, bytes.
    pub memory: Vec<(f64, u64)>,
}

/// System calls counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// How many.
    pub count: u64,
    /// Of so many operations.
    pub operations: u64,
}

/// One process. Times in seconds, sizes in bytes; of a workload they are those of its measured part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Wall clock.
    pub seconds: f64,
    /// User and system.
    pub cpu_seconds: f64,
    /// Of the whole process.
    pub process_seconds: f64,
    /// The most resident at once.
    pub peak_bytes: u64,
    /// Whether the pool's memory was made ready beforehand: then its peak does not say what it needs.
    pub ready: bool,
    /// Page faults without input or output.
    pub minor_faults: i64,
    /// Page faults with.
    pub major_faults: i64,
    /// Allocations, frees and reallocations; requests of a server; 0 where unknown.
    pub operations: u64,
    /// What shows that the work was done.
    pub checksum: String,
    /// What was not as it must be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wrong: String,
    /// Seconds of the parts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, f64>,
    /// Of single operations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub latency_ns: BTreeMap<String, Quantiles>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    /// Operations.
    pub count: u64,
    /// Half of them took at most this.
    pub p50: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// 99.99%.
    #[serde(rename = "p99.99")]
    pub p9999: f64,
    /// All.
    pub max: f64,
    /// Points: nines, nanoseconds.
    pub curve: Vec<(f64, f64)>,
}

/// A figure of a run.
pub type Figure = fn(&Run) -> f64;

/// Wall clock seconds.
pub const SECONDS: Figure = |run| run.seconds;
/// Seconds of processor time, user and system.
pub const CPU: Figure = |run| run.cpu_seconds;
/// The most resident bytes; 0, which is not compared, where the pool's memory was made ready beforehand.
pub const PEAK: Figure = |run| if run.ready { 0.0 } else { run.peak_bytes as f64 };
/// All page faults.
pub const FAULTS: Figure = |run| (run.minor_faults + run.major_faults) as f64;

/// The middle of `values`, or of the two in the middle; None of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which `share` of `values` lie, interpolated; None of nothing.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * (sorted.len().checked_sub(1)? as f64);
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

/// The geometric mean; None of nothing.
pub fn geometric_mean(ratios: &[f64]) -> Option<f64> {
    let logarithms: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
    (!ratios.is_empty()).then(|| (logarithms / ratios.len() as f64).exp())
}

impl Outcome {
    /// All values of a figure.
    pub fn values(&self, figure: Figure) -> Vec<f64> {
        self.runs.iter().map(figure).collect()
    }

    /// The median of a figure; None without runs, and where something went wrong.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        if self.error.is_some() { None } else { median(&self.values(figure)) }
    }

    /// The median of a part's seconds, summed over threads.
    pub fn phase(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| run.phases.get(name).copied()).collect();
        if self.error.is_some() { None } else { median(&values) }
    }

    /// The median of a quantile of an operation's latency, in nanoseconds.
    pub fn latency(&self, operation: &str, quantile: fn(&Quantiles) -> f64) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().filter_map(|run| run.latency_ns.get(operation)).map(quantile).collect();
        if self.error.is_some() { None } else { median(&values) }
    }
}

impl Row {
    /// What a contender did.
    pub fn of(&self, contender: &str) -> Option<&Outcome> {
        self.results.iter().find(|result| result.contender == contender)
    }

    /// The median of a contender's figure.
    pub fn median(&self, contender: &str, figure: Figure) -> Option<f64> {
        self.of(contender)?.median(figure)
    }

    /// The peer with the least of a figure, and that. Zeroes count as unknown.
    pub fn best_peer(&self, figure: Figure) -> Option<(&str, f64)> {
        let peers = self.results.iter().filter(|result| !is_pool(&result.contender));
        let figures = peers.filter_map(|result| Some((result.contender.as_str(), result.median(figure)?)));
        figures.filter(|(_, value)| *value > 0.0).min_by(|one, other| one.1.total_cmp(&other.1))
    }

    /// A contender's figure over that of the best peer.
    pub fn ratio(&self, contender: &str, figure: Figure) -> Option<f64> {
        Some(self.median(contender, figure)? / self.best_peer(figure)?.1)
    }

    /// The parts of the work whose times are known.
    pub fn phases(&self) -> Vec<&str> {
        let run = self.results.iter().find_map(|result| result.runs.first());
        run.map(|run| run.phases.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The name with the number of threads, where that is a choice.
    pub fn label(&self) -> String {
        if self.threaded { format!("{} x{}", self.name, self.threads) } else { self.name.clone() }
    }
}

/// The pool against one peer, over all rows that both have.
#[derive(Clone, Debug, Serialize)]
pub struct Duel {
    /// The peer.
    pub peer: String,
    /// Rows that both have.
    pub rows: usize,
    /// Rows in which the pool is ahead.
    pub ahead: usize,
    /// The geometric mean of the pool's over the peer's.
    pub mean: f64,
}

/// All rows in a few figures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Of the pool's figure over the best peer's, by row.
    pub mean_to_best: f64,
    /// The worst row, and its ratio.
    pub worst: (String, f64),
    /// The pool against each peer.
    pub duels: Vec<Duel>,
}

impl Report {
    /// The summary of a figure; None without a row that the pool and a peer have.
    pub fn summary(&self, figure: Figure) -> Option<Summary> {
        let ratios: Vec<(String, f64)> =
            self.rows.iter().filter_map(|row| Some((row.label(), row.ratio(POOL, figure)?))).collect();
        let values: Vec<f64> = ratios.iter().map(|(_, ratio)| *ratio).collect();
        let worst = ratios.iter().max_by(|one, other| one.1.total_cmp(&other.1))?.clone();
        Some(Summary { mean_to_best: geometric_mean(&values)?, worst, duels: self.duels(figure) })
    }

    fn duels(&self, figure: Figure) -> Vec<Duel> {
        let peers = self.contenders.iter().map(|known| known.name.as_str()).filter(|name| !is_pool(name));
        let duel = |peer: &str| {
            let ratio = |row: &Row| {
                let theirs = row.median(peer, figure).filter(|value| *value > 0.0)?;
                Some(row.median(POOL, figure)? / theirs)
            };
            let ratios: Vec<f64> = self.rows.iter().filter_map(ratio).collect();
            let ahead = ratios.iter().filter(|ratio| **ratio < 1.0).count();
            Some(Duel { peer: peer.into(), rows: ratios.len(), ahead, mean: geometric_mean(&ratios)? })
        };
        peers.filter_map(duel).collect()
    }

    /// What went wrong with `whose` contenders, one line each.
    pub fn failures(&self, whose: impl Fn(&str) -> bool) -> Vec<String> {
        let line = |row: &Row, result: &Outcome| {
            let error = result.error.as_ref().filter(|_| whose(&result.contender))?;
            Some(format!("{} on {}: {error}", row.label(), result.contender))
        };
        let line = &line;
        self.rows.iter().flat_map(|row| row.results.iter().filter_map(move |result| line(row, result))).collect()
    }

    /// As JSON, with the summaries.
    ///
    /// # Errors
    /// A figure that JSON cannot express, such as infinity.
    pub fn json(&self) -> serde_json::Result<String> {
        let mut value = serde_json::to_value(self)?;
        value["summary"] = serde_json::json!({ "time": self.summary(SECONDS), "cpu": self.summary(CPU), "memory": self.summary(PEAK) });
        Ok(format!("{value:#}\n"))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn outcome(contender: &str, seconds: &[f64]) -> Outcome {
        let run = |seconds: &f64| Run { seconds: *seconds, peak_bytes: (*seconds * 1e6) as u64, ..Run::default() };
        Outcome { contender: contender.into(), runs: seconds.iter().map(run).collect(), ..Outcome::default() }
    }

    /// A report of two rows.
    pub fn sample() -> Report {
        let known = |name: &str| Known { name: name.into(), library: String::new(), version: String::new() };
        let row = |name: &str, results: Vec<Outcome>| Row {
            name: name.into(),
            about: "Something.".into(),
            threads: 2,
            threaded: true,
            program: false,
            results,
        };
        Report {
            format: FORMAT,
            command: "mempool bench".into(),
            machine: Machine::default(),
            rounds: 3,
            scale: 1.0,
            seconds: 12.0,
            contenders: ["pool", "system", "other"].map(known).into(),
            missing: vec![Missing { name: "jemalloc".into(), get: "apt-get install libjemalloc2".into() }],
            notes: Vec::new(),
            rows: vec![
                row(
                    "one",
                    vec![outcome("pool", &[1.0, 9.0, 1.0]), outcome("system", &[2.0; 3]), outcome("other", &[4.0; 3])],
                ),
                row("two", vec![outcome("pool", &[2.0; 3]), outcome("system", &[4.0; 3]), outcome("other", &[1.0; 3])]),
            ],
            pool: vec![Measure {
                name: "Ready".into(),
                unit: "ms".into(),
                figures: vec![("2 MiB".into(), Some(0.5)), ("4 MiB".into(), None)],
            }],
        }
    }

    #[test]
    fn medians_and_quantiles() {
        assert_eq!((median(&[]), median(&[3.0]), median(&[4.0, 1.0, 2.0])), (None, Some(3.0), Some(2.0)));
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), Some(3.0));
        assert_eq!(quantile(&[10.0, 20.0, 30.0], 0.25), Some(15.0));
        assert!((geometric_mean(&[0.5, 2.0, 1.0]).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn the_summary_is_of_ratios_to_the_best_peer() {
        let report = sample();
        assert_eq!(report.rows[0].best_peer(SECONDS), Some(("system", 2.0)));
        assert_eq!(report.rows[1].ratio("pool", SECONDS), Some(2.0));
        let summary = report.summary(SECONDS).unwrap();
        assert!((summary.mean_to_best - 1.0).abs() < 1e-12, "0.5 and 2");
        assert_eq!(summary.worst, ("two x2".into(), 2.0));
        let duel = |peer: &str| summary.duels.iter().find(|duel| duel.peer == peer).unwrap().clone();
        assert_eq!((duel("system").ahead, duel("system").rows, duel("other").ahead), (2, 2, 1));
        assert!((duel("system").mean - 0.5).abs() < 1e-12);
    }

    #[test]
    fn who_failed_has_no_figures_and_is_named() {
        let mut report = sample();
        report.rows[0].results[1].error = Some("killed by SIGSEGV".into());
        assert_eq!(report.rows[0].best_peer(SECONDS), Some(("other", 4.0)));
        assert_eq!(report.failures(|_| true), ["one x2 on system: killed by SIGSEGV"]);
    }

    #[test]
    fn peaks_of_ready_memory_are_not_compared() {
        let mut report = sample();
        report.rows[1].results.iter_mut().flat_map(|result| &mut result.runs).for_each(|run| run.ready = true);
        assert_eq!(report.rows[1].ratio("pool", PEAK), None);
        assert_eq!(report.summary(PEAK).unwrap().duels[0].rows, 1);
    }

    #[test]
    fn json_can_be_read_back() {
        let text = sample().json().unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.json().unwrap(), text);
    }
}
