//! The measuring itself: rounds in which every contender does every row once, one right after the other, so that all of
//! them see the same machine.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mempool_bench::Mode;
use serde_json::Value;

use super::child::{self, Ended};
use super::contenders::{Contender, SYSTEM};
use super::programs::Program;
use super::progress::Progress;
use super::results::{Calls, Outcome, Row, Run};
use super::trace;

/// A run that takes longer is ended.
pub const LIMIT: Duration = Duration::from_secs(300);

/// What is done in a row.
pub enum Work {
    /// A workload of our own.
    Workload(&'static mempool_bench::Row),
    /// A program.
    Program(Program),
}

/// A row to be measured.
pub struct Task {
    /// What is done.
    pub work: Work,
    /// With so many threads.
    pub threads: usize,
    /// By whom.
    pub contenders: Vec<Contender>,
}

/// How it is measured.
#[derive(Clone, Debug, Default)]
pub struct Effort {
    /// Rounds.
    pub rounds: usize,
    /// The share of a workload's full work.
    pub scale: f64,
    /// Parameters for all rows.
    pub set: BTreeMap<String, usize>,
    /// Whether system calls are counted, in a run of their own.
    pub calls: bool,
    /// After so long no further round is begun.
    pub time: Option<Duration>,
}

/// The order of the runs of one row: each round all contenders, A B C A B C.
pub fn schedule(rounds: usize, contenders: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rounds).flat_map(move |round| (0..contenders).map(move |contender| (round, contender)))
}

/// Measures all rows, a round of each before the next, so that a disturbance does not hit one row alone.
pub fn measure(tasks: &[Task], effort: &Effort, progress: &Progress) -> Vec<Row> {
    let mut rows: Vec<Row> = tasks.iter().map(Task::row).collect();
    let begin = Instant::now();
    for round in 0..effort.rounds {
        if round > 0 && effort.time.is_some_and(|time| begin.elapsed() * (round as u32 + 1) / round as u32 > time) {
            break;
        }
        for (task, row) in tasks.iter().zip(&mut rows) {
            for (_, contender) in schedule(1, task.contenders.len()) {
                let outcome = &mut row.results[contender];
                if outcome.error.is_none() {
                    progress.at(&row.name, &outcome.contender, round);
                    task.run(&task.contenders[contender], effort, outcome);
                }
                progress.step();
            }
        }
    }
    if effort.calls {
        for (task, row) in tasks.iter().zip(&mut rows) {
            for (contender, outcome) in task.contenders.iter().zip(&mut row.results) {
                progress.at(&row.name, &outcome.contender, effort.rounds);
                outcome.calls = task.count_calls(contender, effort);
                progress.step();
            }
        }
    }
    rows.iter_mut().for_each(compare_checksums);
    rows
}

/// Whoever did other work than the system's allocator, or than itself before, has no result.
fn compare_checksums(row: &mut Row) {
    let first = |outcome: &Outcome| outcome.runs.first().map(|run| run.checksum.clone());
    let wanted = row.of(SYSTEM).filter(|outcome| outcome.error.is_none()).and_then(first);
    let Some(wanted) = wanted.or_else(|| row.results.iter().find_map(first)) else { return };
    for outcome in &mut row.results {
        let wrong = outcome.runs.iter().find(|run| run.checksum != wanted);
        if let (Some(run), None) = (wrong, &outcome.error) {
            let error = format!(
                "checksum {}, but {wanted} is right: objects were overwritten, lost, or not made",
                run.checksum
            );
            outcome.error = Some(error);
        }
    }
}

impl Task {
    fn row(&self) -> Row {
        let (name, about, threaded, program) = match &self.work {
            Work::Workload(row) => (row.name.to_owned(), row.workload().about.to_owned(), row.is_threaded(), false),
            Work::Program(program) => (program.name.clone(), program.about.clone(), false, true),
        };
        let outcome = |contender: &Contender| Outcome { contender: contender.name.clone(), ..Outcome::default() };
        let results = self.contenders.iter().map(outcome).collect();
        Row { name, about, threads: self.threads, threaded, program, results }
    }

    /// One run, noted in the outcome.
    fn run(&self, contender: &Contender, effort: &Effort, outcome: &mut Outcome) {
        let done = match &self.work {
            Work::Workload(row) => run_workload(row, self.threads, contender, effort),
            Work::Program(program) => program.run(contender, effort.scale),
        };
        match done {
            Ok((run, memory)) => {
                outcome.runs.push(run);
                outcome.memory = memory;
            }
            Err(error) => outcome.error = Some(error),
        }
    }

    /// System calls of the measured part, None where they could not be counted.
    fn count_calls(&self, contender: &Contender, effort: &Effort) -> Option<Calls> {
        let Work::Workload(row) = &self.work else { return None };
        let less = Effort { scale: effort.scale / 5.0, ..effort.clone() };
        let file = child::scratch().ok()?;
        let mut command = worker(row, self.threads, contender, &less, &file)?;
        let count = trace::count_calls(&mut command)?;
        let report: Value = serde_json::from_str(&child::contents(file).ok()?).ok()?;
        Some(Calls { count, operations: report["operations"].as_u64()? })
    }
}

/// A command in a clean environment in which `contender` serves malloc.
pub fn under(program: &std::ffi::OsStr, contender: &Contender, mode: Mode, threads: usize) -> Command {
    let mut command = Command::new(program);
    command.env_remove(crate::library::PRELOAD).envs(contender.environment(mode, threads)).stdout(Stdio::null());
    command
}

/// The command that does a workload in a process of its own and writes its report to `report`.
pub fn worker(
    row: &mempool_bench::Row,
    threads: usize,
    contender: &Contender,
    effort: &Effort,
    report: &std::fs::File,
) -> Option<Command> {
    let own = std::env::current_exe().ok()?;
    let mut command = under(own.as_os_str(), contender, row.workload().mode, threads);
    command.args(["bench-worker", row.name, "--report", &child::number(report)]);
    command.args(["--threads", &threads.to_string(), "--scale", &effort.scale.to_string()]);
    command.args(effort.set.iter().map(|(name, value)| format!("--set={name}={value}")));
    command.args(contender.supplier.map(|supplier| format!("--supplier={supplier}")));
    Some(command)
}

/// One run of a workload: what was measured, and resident memory over time.
fn run_workload(
    row: &mempool_bench::Row,
    threads: usize,
    contender: &Contender,
    effort: &Effort,
) -> Result<(Run, Vec<(f64, u64)>), String> {
    let failed = |error: std::io::Error| format!("cannot start the worker: {error}");
    let file = child::scratch().map_err(failed)?;
    let mut command = worker(row, threads, contender, effort, &file).ok_or("the command's own file is not found")?;
    let ended = child::start(&mut command, LIMIT).and_then(child::Running::wait).map_err(failed)?;
    if let Some(failure) = ended.failure() {
        return Err(failure);
    }
    let text = child::contents(file).map_err(failed)?;
    let mut run: Run = serde_json::from_str(&text).map_err(|error| format!("the worker's report: {error}"))?;
    if !run.wrong.is_empty() {
        return Err(run.wrong);
    }
    run.process_seconds = ended.wall_seconds;
    run.ready = row.workload().mode == Mode::Ready;
    Ok((run, ended.memory))
}

/// A run of a program as it is measured from outside.
pub fn run_of(ended: &Ended) -> Run {
    Run {
        seconds: ended.wall_seconds,
        cpu_seconds: ended.cpu_seconds,
        process_seconds: ended.wall_seconds,
        peak_bytes: ended.peak_bytes,
        minor_faults: ended.minor_faults,
        major_faults: ended.major_faults,
        ..Run::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_take_turns() {
        let order: Vec<_> = schedule(2, 3).collect();
        assert_eq!(order, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn other_work_is_an_error() {
        let outcome = |contender: &str, sums: [&str; 2]| Outcome {
            contender: contender.into(),
            runs: sums.map(|sum| Run { checksum: sum.into(), ..Run::default() }).into(),
            ..Outcome::default()
        };
        let mut row = super::super::results::tests::sample().rows.remove(0);
        row.results = vec![outcome("pool", ["a", "a"]), outcome("system", ["a", "a"]), outcome("bad", ["a", "b"])];
        compare_checksums(&mut row);
        let errors: Vec<bool> = row.results.iter().map(|outcome| outcome.error.is_some()).collect();
        assert_eq!(errors, [false, false, true]);
        row.results[0].runs[0].checksum = "c".into();
        compare_checksums(&mut row);
        assert!(row.results[0].error.as_ref().unwrap().contains("checksum c, but a is right"));
    }
}
