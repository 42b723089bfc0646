//! What became of one worker.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::Ordering::Relaxed;

use hdrhistogram::Histogram;
use mempool::bytes::Bytes;
use serde_json::{Value, json};

use super::board::Board;
use super::kinds::Kind;

/// The longest latency that is told from longer ones, in nanoseconds: ten minutes.
const LONGEST: u64 = 600_000_000_000;

/// What became of one worker. Latencies in nanoseconds, from when a request was due.
pub struct Outcome {
    /// How it was starved.
    pub kind: Kind,
    /// On which allocator.
    pub side: &'static str,
    /// Requests that were to be done.
    pub planned: u64,
    /// Requests done right.
    pub done: u64,
    /// Requests given up.
    pub failed: u64,
    /// Requests and sessions with wrong content.
    pub wrong: u64,
    /// Bytes of the first refusal.
    pub refused_bytes: u64,
    /// p50, p99, p99.9 and the longest; all requests that were done.
    pub latency: [u64; 4],
    /// For each request its latency; 0: not done.
    pub times: Vec<u64>,
    /// The request at which the hog got nothing more.
    pub starved_at: Option<u64>,
    /// The most that the hog held, in bytes.
    pub hog_bytes: u64,
    /// How often it got nothing.
    pub hog_refused: u64,
    /// Page faults of the worker's thread from the hog's start on.
    pub faults: u64,
    /// System calls about memory, and in how many requests.
    pub calls: Option<(u64, u64)>,
    /// Processes that the kernel ended in the cgroup, hogs included.
    pub kills: u64,
    /// Runs that the figures are of.
    pub rounds: usize,
    /// Whether it stopped for good, and was ended.
    pub stopped: bool,
    signal: Option<i32>,
    code: Option<i32>,
    said: String,
}

impl Outcome {
    /// From the board, how the process ended, and what it said.
    pub fn new(
        kind: Kind,
        side: &'static str,
        board: &Board,
        status: ExitStatus,
        stopped: bool,
        kills: u64,
        said: &str,
    ) -> Self {
        let times: Vec<u64> = board.times().iter().map(|time| time.load(Relaxed)).collect();
        let counted = board.counted.load(Relaxed).checked_sub(1);
        Self {
            kind,
            side,
            planned: board.planned.load(Relaxed),
            done: board.done.load(Relaxed),
            failed: board.failed.load(Relaxed),
            wrong: board.wrong.load(Relaxed),
            refused_bytes: board.refused_bytes.load(Relaxed),
            latency: latencies(&times),
            times,
            starved_at: board.starved.load(Relaxed).checked_sub(1),
            hog_bytes: board.hog_most.load(Relaxed),
            hog_refused: board.hog_refused.load(Relaxed),
            faults: board.faults.load(Relaxed),
            calls: counted.map(|requests| (board.calls.load(Relaxed), requests)),
            kills,
            rounds: 1,
            stopped,
            signal: status.signal(),
            code: status.code(),
            said: said.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned(),
        }
    }

    /// What became of one worker in several rounds: the first in which it failed, if there is one; else the round in the middle, with
    /// the median of each latency, the longest of all, and the faults of all.
    pub fn of_rounds(mut rounds: Vec<Self>) -> Option<Self> {
        let count = rounds.len();
        if let Some(failed) = rounds.iter().position(|round| !round.is_whole()) {
            return Some(Self { rounds: count, ..rounds.swap_remove(failed) });
        }
        let faults = rounds.iter().map(|round| round.faults).sum();
        let median = |at: usize| {
            let mut all: Vec<u64> = rounds.iter().filter_map(|round| round.latency.get(at).copied()).collect();
            all.sort_unstable();
            all.get(all.len() / 2).copied().unwrap_or(0)
        };
        let longest = rounds.iter().map(|round| round.latency[3]).max().unwrap_or(0);
        let latency = [median(0), median(1), median(2), longest];
        rounds.sort_by_key(|round| round.latency[2]);
        let middle = (count > 0).then(|| rounds.swap_remove(count / 2))?;
        Some(Self { rounds: count, latency, faults, ..middle })
    }

    /// All requests done and none wrong, by a worker that ended by itself.
    pub fn is_whole(&self) -> bool {
        let all = self.planned > 0 && self.done == self.planned && self.failed == 0 && self.wrong == 0;
        all && self.code == Some(0)
    }

    /// Whether the hog got all there was.
    pub fn starved(&self) -> bool {
        self.hog_refused > 0
    }

    /// Requests that were never begun, or not finished.
    pub fn not_tried(&self) -> u64 {
        self.planned.saturating_sub(self.done + self.failed + self.wrong)
    }

    /// How it ended, in few words.
    pub fn ended(&self) -> String {
        let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
        match (self.stopped, self.signal, self.code) {
            (true, ..) => "stopped for good, and was ended by the runner".into(),
            (_, Some(libc::SIGKILL), _) if self.kills > 0 => "killed by the kernel for lack of memory".into(),
            (_, Some(signal), _) => format!("killed by {}{said}", signal_name(signal)),
            (.., Some(0)) => "by itself".into(),
            (.., code) => format!("with exit code {}{said}", code.unwrap_or(-1)),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let [median, p99, p999, worst] = self.latency;
        json!({
            "kind": self.kind.name(), "allocator": self.side,
            "planned": self.planned, "done": self.done, "failed": self.failed, "wrong": self.wrong,
            "not_tried": self.not_tried(), "first_refused_bytes": self.refused_bytes,
            "latency_ns": {"p50": median, "p99": p99, "p99.9": p999, "max": worst},
            "starved_at_request": self.starved_at,
            "hog": {"bytes": self.hog_bytes, "refused": self.hog_refused, "kills": self.kills},
            "page_faults": self.faults, "rounds": self.rounds,
            "memory_system_calls": self.calls.map(|(calls, requests)| json!({"calls": calls, "requests": requests})),
            "ended": self.ended(), "stopped": self.stopped, "signal": self.signal, "exit_code": self.code,
        })
    }
}

/// p50, p99, p99.9 and the longest of the requests that were done.
fn latencies(times: &[u64]) -> [u64; 4] {
    // Three significant figures; the bounds are good ones, so this does not fail.
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LONGEST, 3) else { return [0; 4] };
    times.iter().filter(|time| **time > 0).for_each(|time| histogram.saturating_record(*time));
    let at = |share| if histogram.is_empty() { 0 } else { histogram.value_at_quantile(share) };
    let worst = times.iter().copied().max().unwrap_or(0);
    [at(0.5), at(0.99), at(0.999)]
        .map(|value| value.min(worst))
        .into_iter()
        .chain([worst])
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or([0; 4])
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGABRT => "SIGABRT".into(),
        libc::SIGSEGV => "SIGSEGV".into(),
        libc::SIGBUS => "SIGBUS".into(),
        libc::SIGKILL => "SIGKILL".into(),
        other => format!("signal {other}"),
    }
}

/// Bytes in a round unit.
pub fn size(bytes: u64) -> String {
    format!("{:#}", Bytes(usize::try_from(bytes).unwrap_or(usize::MAX)))
}

/// Nanoseconds in the unit that keeps them short.
pub fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0 => "-".into(),
        1..10_000 => format!("{nanoseconds} ns"),
        10_000..10_000_000 => format!("{} us", grouped(nanoseconds / 1000)),
        _ => format!("{} ms", grouped(nanoseconds / 1_000_000)),
    }
}

/// A number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_the_requests_that_were_done() {
        let times: Vec<u64> = (1..=1000).map(|number| number * 1000).chain([0; 500]).collect();
        let [median, p99, p999, worst] = latencies(&times);
        assert!(median.abs_diff(500_000) <= 500 && p99.abs_diff(990_000) <= 1000 && p999.abs_diff(999_000) <= 1000);
        assert_eq!((worst, latencies(&[]), latencies(&[0, 0])), (1_000_000, [0; 4], [0; 4]));
        assert_eq!(latencies(&[u64::MAX])[3], u64::MAX);
    }

    #[test]
    fn rounds_come_to_their_medians_and_a_failure_counts() {
        let round = |p999: u64, done: u64| Outcome {
            kind: Kind::Quiet,
            side: "mempool",
            planned: 10,
            done,
            failed: 10 - done,
            wrong: 0,
            refused_bytes: 0,
            latency: [10, 20, p999, p999 + 1],
            times: vec![p999],
            starved_at: None,
            hog_bytes: 0,
            hog_refused: 0,
            faults: 1,
            calls: None,
            kills: 0,
            rounds: 1,
            stopped: false,
            signal: None,
            code: Some(0),
            said: String::new(),
        };
        let all = Outcome::of_rounds(vec![round(900, 10), round(30, 10), round(31, 10)]).expect("an outcome");
        assert_eq!((all.latency, all.times, all.faults, all.rounds), ([10, 20, 31, 901], vec![31], 3, 3));
        let failed = Outcome::of_rounds(vec![round(30, 10), round(29, 9), round(31, 10)]).expect("an outcome");
        assert_eq!((failed.done, failed.is_whole(), failed.rounds), (9, false, 3));
        assert!(Outcome::of_rounds(Vec::new()).is_none());
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([0, 9_999, 10_000, 1_234_567, 12_345_678].map(time), ["-", "9999 ns", "10 us", "1,234 us", "12 ms"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
