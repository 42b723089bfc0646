//! What became of the two workers: as a table, as JSON, as an exit code, and the line that shows progress.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mempool::bytes::Bytes;
use serde_json::{Value, json};

use super::Plan;
use super::board::Board;

/// The exit code when there is no contrast to show.
const NOTHING_SHOWN: u8 = 3;

/// What became of one worker. Latencies in nanoseconds.
pub struct Outcome {
    planned: u64,
    done: u64,
    failed: u64,
    wrong: u64,
    refused_bytes: u64,
    median: u64,
    p99: u64,
    worst: u64,
    hog_bytes: u64,
    hog_refused: u64,
    signal: Option<i32>,
    code: Option<i32>,
    said: String,
}

impl Outcome {
    /// From the board, how the process ended, and what it said.
    pub fn new(board: &Board, status: ExitStatus, said: &str) -> Self {
        Self {
            planned: board.planned.load(Relaxed),
            done: board.done.load(Relaxed),
            failed: board.failed.load(Relaxed),
            wrong: board.wrong.load(Relaxed),
            refused_bytes: board.refused_bytes.load(Relaxed),
            median: board.quantile(0.5),
            p99: board.quantile(0.99),
            worst: board.worst.load(Relaxed),
            hog_bytes: board.hog_bytes.load(Relaxed),
            hog_refused: board.hog_refused.load(Relaxed),
            signal: status.signal(),
            code: status.code(),
            said: said.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned(),
        }
    }

    /// All requests done and none wrong, by a worker that ended by itself.
    fn is_whole(&self) -> bool {
        let all = self.planned > 0 && self.done == self.planned && self.failed == 0 && self.wrong == 0;
        all && self.code == Some(0)
    }

    /// Whether the hog got all there was.
    fn starved(&self) -> bool {
        self.hog_refused > 0
    }

    fn ended(&self) -> String {
        let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
        match (self.signal, self.code) {
            (Some(signal), _) => format!("killed by {}{said}", signal_name(signal)),
            (_, Some(0)) => "by itself".into(),
            (_, code) => format!("with exit code {}{said}", code.unwrap_or(-1)),
        }
    }

    fn json(&self) -> Value {
        json!({
            "planned": self.planned, "done": self.done, "failed": self.failed, "wrong": self.wrong,
            "not_tried": self.not_tried(), "first_refused_bytes": self.refused_bytes,
            "latency_ns": {"median": self.median, "p99": self.p99, "worst": self.worst},
            "hog": {"bytes": self.hog_bytes, "refused": self.hog_refused},
            "ended": self.ended(), "signal": self.signal, "exit_code": self.code,
        })
    }

    fn not_tried(&self) -> u64 {
        self.planned.saturating_sub(self.done + self.failed + self.wrong)
    }
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

/// A figure's name in the table, and where it comes from.
type Figure = (&'static str, fn(&Outcome) -> u64);

/// Both outcomes.
pub struct Report<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// The worker on the C library's allocator.
    pub system: Outcome,
    /// The worker on the pool.
    pub pool: Outcome,
}

impl Report<'_> {
    /// 0 when the pool's worker did everything and the other one did not; see the help in [`crate::args`].
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        let contrast = self.pool.starved() && self.system.starved() && !self.system.is_whole();
        match (self.pool.is_whole(), contrast) {
            (false, _) => 1,
            (true, false) => NOTHING_SHOWN,
            (true, true) => 0,
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let plan = self.plan;
        let mut text = format!(
            "A worker does requests for {} s while a hog takes all of the {} that its process may have.\n\n",
            plan.seconds,
            Bytes(plan.limit),
        );
        let mut row = |name: &str, system: String, pool: String| {
            text += &format!("  {name:<24} {system:>18} {pool:>18}\n");
        };
        row("", "C library".into(), format!("pool of {:#}", Bytes(plan.segment)));
        let counts: [Figure; 5] = [
            ("requests planned", |o| o.planned),
            ("done", |o| o.done),
            ("failed, no memory", |o| o.failed),
            ("never tried", Outcome::not_tried),
            ("wrong", |o| o.wrong),
        ];
        for (name, get) in counts {
            row(name, grouped(get(&self.system)), grouped(get(&self.pool)));
        }
        let times: [Figure; 3] =
            [("done in, median", |o| o.median), ("done in, 99%", |o| o.p99), ("done in, worst", |o| o.worst)];
        for (name, get) in times {
            row(name, time(get(&self.system)), time(get(&self.pool)));
        }
        let refused = |outcome: &Outcome| match outcome.failed {
            0 => "-".into(),
            _ => format!("{} bytes", grouped(outcome.refused_bytes)),
        };
        row("first refused", refused(&self.system), refused(&self.pool));
        row("hog holds", size(self.system.hog_bytes), size(self.pool.hog_bytes));
        row("hog asked in vain", grouped(self.system.hog_refused), grouped(self.pool.hog_refused));
        text += &format!("\n  worker on the C library ended {}\n", self.system.ended());
        text += &format!("  worker on the pool ended {}\n\n{}\n", self.pool.ended(), self.verdict());
        text
    }

    fn verdict(&self) -> String {
        let done = |outcome: &Outcome| format!("{} of {}", grouped(outcome.done), grouped(outcome.planned));
        match self.code() {
            0 => format!(
                "On the pool all requests were done, none wrong; on the C library's allocator {}.",
                done(&self.system)
            ),
            NOTHING_SHOWN => "Nothing is shown: the hog could not take everything, or both workers did all requests. \
                              Use a smaller --limit."
                .into(),
            _ => format!(
                "The pool's worker failed: {} requests done right. Is --segment large enough?",
                done(&self.pool)
            ),
        }
    }

    /// For programs.
    pub fn json(&self) -> String {
        let plan = json!({"seconds": self.plan.seconds, "limit": self.plan.limit, "segment": self.plan.segment});
        let all = json!({
            "plan": plan, "system": self.system.json(), "pool": self.pool.json(),
            "exit_code": self.code(), "verdict": self.verdict(),
        });
        format!("{all:#}\n")
    }
}

/// The line that shows how far a worker is.
pub fn progress(board: &Board, pool: bool, elapsed: Duration) -> String {
    let (planned, done) = (board.planned.load(Relaxed), board.done.load(Relaxed));
    let failed = board.failed.load(Relaxed) + board.wrong.load(Relaxed);
    let share = (done + failed).saturating_mul(20).checked_div(planned).unwrap_or(0).min(20) as usize;
    let bar: String = (0..20).map(|place| if place < share { '#' } else { '.' }).collect();
    format!(
        "{} of 2  worker on {:<13} [{bar}] {} of {} done, {failed} failed, hog holds {}, {:.0} s",
        1 + u8::from(pool),
        if pool { "the pool" } else { "the C library" },
        grouped(done),
        grouped(planned),
        size(board.hog_bytes.load(Relaxed)),
        elapsed.as_secs_f64(),
    )
}

fn size(bytes: u64) -> String {
    format!("{:#}", Bytes(usize::try_from(bytes).unwrap_or(usize::MAX)))
}

fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0..10_000 => format!("{nanoseconds} ns"),
        10_000..10_000_000 => format!("{} us", grouped(nanoseconds / 1000)),
        _ => format!("{} ms", grouped(nanoseconds / 1_000_000)),
    }
}

/// A number with commas between thousands.
fn grouped(number: u64) -> String {
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
