//! What became of all workers: as a table, as JSON, as an exit code.

use std::fmt::Write;
use std::process::ExitCode;

use mempool::bytes::Bytes;
use serde_json::{Value, json};

use super::kinds::{ALL, Kind};
use super::outcome::{Outcome, grouped, size, time};
use super::{Absent, Plan, Refusals};

/// The exit code when there is no contrast to show.
const NOTHING_SHOWN: u8 = 3;
/// A p99.9 that is so many times the pool's in the same kind counts as held up.
const SLOWER: u64 = 5;
/// What the pool is called.
const POOL: &str = "mempool";

/// All outcomes, and what was left out.
pub struct Report<'a> {
    /// What was asked for.
    pub plan: &'a Plan,
    /// Length of each run in milliseconds.
    pub millis: u64,
    /// In the order of the runs.
    pub outcomes: Vec<Outcome>,
    /// The runs in which system calls were counted.
    pub counted: Vec<Outcome>,
    /// The processor that the workers had for themselves.
    pub apart: Option<usize>,
    /// Kinds that this machine does not allow, and why.
    pub left_out: Refusals,
    /// Allocators that are not here.
    pub missing: Absent,
}

impl Report<'_> {
    /// 0 when the pool's workers did everything and others did not; see the help in [`crate::args`].
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn pools(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.side == POOL)
    }

    fn others(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.side != POOL)
    }

    /// Whether a worker was held up where the pool's was not.
    fn is_held_up(&self, other: &Outcome) -> bool {
        let pool = self.pools().find(|pool| pool.kind == other.kind);
        pool.is_some_and(|pool| other.latency[2] > SLOWER * pool.latency[2])
    }

    fn code(&self) -> u8 {
        let whole = self.pools().all(Outcome::is_whole);
        let contrast = self.others().any(|other| other.starved() && (!other.is_whole() || self.is_held_up(other)));
        match (whole, contrast) {
            (false, _) => 1,
            (true, false) => NOTHING_SHOWN,
            (true, true) => 0,
        }
    }

    /// The kinds that were run.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, Vec<&Outcome>)> {
        let of = |kind| self.outcomes.iter().filter(|outcome| outcome.kind == kind).collect::<Vec<_>>();
        ALL.into_iter().map(move |kind| (kind, of(kind))).filter(|(_, all)| !all.is_empty())
    }

    /// How many times the p99.9 of the same allocator without a hog; None where either is missing.
    pub fn ratio(&self, outcome: &Outcome) -> Option<f64> {
        let same = |other: &&Outcome| other.kind == Kind::Quiet && other.side == outcome.side;
        let quiet = self.outcomes.iter().find(same)?.latency[2];
        (quiet > 0 && outcome.latency[2] > 0 && outcome.kind != Kind::Quiet)
            .then(|| outcome.latency[2] as f64 / quiet as f64)
    }

    /// The table for people, in colour where that is wanted.
    pub fn table(&self, colour: bool) -> String {
        let (bold, red, plain) = if colour { ("\x1b[1m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!(
            "A worker does {} requests in {:.1} s on each allocator, while a hog takes the rest of {}.\n",
            grouped(self.outcomes.first().map_or(0, |outcome| outcome.planned)),
            self.millis as f64 / 1000.0,
            Bytes(self.plan.limit),
        );
        for (kind, outcomes) in self.kinds() {
            // Writing to a string does not fail, here and below.
            let _ = writeln!(text, "\n{bold}{}{plain}", kind.words());
            let _ = writeln!(
                text,
                "  {:<10} {:>7} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8}  ended",
                "allocator", "done", "failed", "wrong", "p50", "p99", "p99.9", "max", "p99.9 by", "faults"
            );
            for outcome in outcomes {
                let [median, p99, p999, worst] = outcome.latency.map(time);
                let ratio = self.ratio(outcome).map_or("-".into(), |ratio| format!("{ratio:.2}"));
                let mark = if outcome.is_whole() { "" } else { red };
                // Who was ended could not say.
                let faults = if outcome.done == 0 { "-".into() } else { grouped(outcome.faults) };
                let _ = writeln!(
                    text,
                    "  {mark}{:<10} {:>7} {:>7} {:>6} {median:>9} {p99:>9} {p999:>9} {worst:>9} {ratio:>8} {faults:>8}  {}{plain}",
                    outcome.side,
                    grouped(outcome.done),
                    grouped(outcome.failed + outcome.not_tried()),
                    grouped(outcome.wrong),
                    outcome.ended(),
                );
            }
        }
        self.notes(&mut text);
        let _ = writeln!(text, "\n{}", self.verdict());
        text
    }

    fn notes(&self, text: &mut String) {
        let calls = |outcome: &Outcome| Some(format!("{} {}", outcome.side, grouped(outcome.calls?.0)));
        let counted: Vec<String> = self.counted.iter().filter_map(calls).collect();
        let requests = self.counted.iter().find_map(|outcome| Some(outcome.calls?.1)).unwrap_or(0);
        let _ = match counted.is_empty() {
            true => {
                writeln!(text, "\nSystem calls about memory were not counted: no seccomp listener is allowed here.")
            }
            false => writeln!(
                text,
                "\nSystem calls about memory in {requests} requests (brk, mmap, munmap, mremap, mprotect, madvise, mlock): {}.",
                counted.join(", ")
            ),
        };
        if self.apart.is_none() {
            let _ = writeln!(text, "There is one processor: workers wait for it while hogs run, and latency shows it.");
        }
        let _ = writeln!(
            text,
            "Latency counts from when a request was due. \"p99.9 by\": against the same allocator without a hog.\nWorkers \
             have a processor of their own and real-time priority, where the machine allows it. The pool: {}, process=on.",
            size(self.plan.segment as u64)
        );
        let _ = match self.plan.isolate {
            true => writeln!(text, "The kernel's own work was kept off that processor (--isolate)."),
            false => writeln!(
                text,
                "The kernel's own work runs there, too, which shows where files are written out; --isolate keeps it off."
            ),
        };
        if self.plan.rounds > 1 {
            let _ = writeln!(
                text,
                "The pool's latencies are medians of {} rounds, its longest and its faults those of all; others ran once.",
                self.plan.rounds
            );
        }
        for (kind, why) in &self.left_out {
            let _ = writeln!(text, "Left out: {} ({}): {why}.", kind.name(), kind.words());
        }
        for missing in &self.missing {
            let _ = writeln!(text, "Left out: {}: not here; {}.", missing.name, missing.get);
        }
    }

    /// The outcome in a sentence.
    pub fn verdict(&self) -> String {
        let share = |all: &mut dyn Iterator<Item = &Outcome>| {
            let (done, planned) = all.fold((0, 0), |(done, planned), one| (done + one.done, planned + one.planned));
            format!("{} of {}", grouped(done), grouped(planned))
        };
        let worst = |all: &mut dyn Iterator<Item = &Outcome>| time(all.map(|one| one.latency[2]).max().unwrap_or(0));
        let stopped = self.others().filter(|other| !other.is_whole()).count();
        match self.code() {
            0 => format!(
                "On the pool all requests were done, none wrong, in every kind of starvation, with a p99.9 of at most {}; on the others \
                 {stopped} of {} workers did not finish ({} requests done), and the worst p99.9 was {}.",
                worst(&mut self.pools()),
                self.others().count(),
                share(&mut self.others()),
                worst(&mut self.others()),
            ),
            NOTHING_SHOWN => {
                "Nothing is shown: the hog could not take everything, or all workers did all requests. Use a \
                              smaller --limit."
                    .into()
            }
            _ => format!(
                "The pool's worker failed: {} requests done right. Is --segment large enough?",
                share(&mut self.pools())
            ),
        }
    }

    /// For programs.
    pub fn json(&self) -> String {
        let kinds: Vec<&str> = self.kinds().map(|(kind, _)| kind.name()).collect();
        let plan = json!({
            "milliseconds": self.millis, "rounds": self.plan.rounds, "limit": self.plan.limit, "segment": self.plan.segment, "kinds": kinds,
        });
        let run = |outcome: &Outcome| {
            let mut value = outcome.json();
            value["p99.9_by_quiet"] = self.ratio(outcome).map_or(Value::Null, |ratio| json!(ratio));
            value
        };
        let left_out: Vec<Value> = (self.left_out.iter().map(|(kind, why)| json!({"kind": kind.name(), "why": why})))
            .chain(self.missing.iter().map(|missing| json!({"allocator": missing.name, "why": missing.get})))
            .collect();
        let all = json!({
            "plan": plan, "counted": self.counted.iter().map(Outcome::json).collect::<Vec<_>>(),
            "processor_of_its_own": self.apart.is_some(), "isolated": self.plan.isolate, "runs": self.outcomes.iter().map(run).collect::<Vec<_>>(), "left_out": left_out,
            "exit_code": self.code(), "verdict": self.verdict(),
        });
        format!("{all:#}\n")
    }
}
