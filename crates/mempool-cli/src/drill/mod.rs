//! `mempool drill`: which places of a program cannot bear that a request is refused.
//!
//! A first run refuses nothing and notes which requests come first from their place, a place being a list of return
//! addresses. Then the program runs once for each of these requests, in order, with that one refused (`--all`: for
//! every request). What became of each run is put down to its *site*: the innermost call that is not the C or C++
//! library's own.
//!
//! | verdict | the program |
//! |---|---|
//! | crashed | died of a signal |
//! | hung | did not end in time |
//! | wrong | ended with an exit code that `--accept` does not name, where it was given |
//! | gave up | ended with another exit code than without refusals |
//! | handled | ended as without refusals |
//!
//! *Limits:* a program that dies of a signal without a refusal is not drilled; one that does not ask in the same order
//! each time may not reach a request, which is counted; only the process itself is looked at, although programs that it
//! starts are drilled along.

mod report;
mod sites;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mempool::process::board;

use crate::failure::Failure;
use crate::settings::{self, Given};
use crate::watch::{Area, Board, End, Run, Runner, Subject};
use sites::Site;

/// What to try.
pub struct Plan {
    /// Flags that were given: settings that the program shall have.
    pub given: Given,
    /// What to run.
    pub subject: Subject,
    /// The most runs.
    pub most: usize,
    /// Whether every request is refused in turn, not only the first of each place.
    pub all: bool,
    /// Exit codes that are right for a program that was refused memory; any if empty.
    pub accept: Vec<i32>,
    /// As JSON.
    pub json: bool,
}

/// What a run came to. In order of gravity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Died of a signal.
    Crashed(i32),
    /// Did not end.
    Hung,
    /// Ended with a code that was not accepted.
    Wrong(i32),
    /// Ended with another code than usually.
    GaveUp(i32),
    /// Ended as usually.
    Handled,
}

impl Verdict {
    fn of(end: End, usual: End, accept: &[i32]) -> Self {
        match end {
            _ if end == usual => Self::Handled,
            End::Signal(signal) => Self::Crashed(signal),
            End::Hung => Self::Hung,
            End::Code(code) if accept.is_empty() || accept.contains(&code) => Self::GaveUp(code),
            End::Code(code) => Self::Wrong(code),
        }
    }

    /// Whether the program ought to be mended.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Crashed(_) | Self::Hung | Self::Wrong(_))
    }
}

/// A run with a refusal.
pub struct Trial {
    /// The request that was refused.
    pub request: u64,
    /// Its bytes.
    pub size: u64,
    /// What became of it.
    pub verdict: Verdict,
    /// Where it came from.
    pub site: Site,
    /// The end of what the program said.
    pub said: String,
}

/// All of it.
pub struct Findings {
    /// How the program ends without refusals.
    pub usual: End,
    /// Its requests then.
    pub requests: u64,
    /// Places that were told apart.
    pub places: usize,
    /// The runs in which something was refused.
    pub trials: Vec<Trial>,
    /// Runs that did not reach their request.
    pub missed: usize,
    /// Requests that were left out because of `--max`.
    pub left_out: usize,
    /// All took so long.
    pub elapsed: Duration,
}

/// Drills the program and prints what was found.
pub fn show(plan: &Plan) -> Result<ExitCode, Failure> {
    settings::in_force(&plan.given)?;
    let findings = find(plan)?;
    let text = if plan.json { report::json(plan, &findings) } else { report::table(plan, &findings) };
    crate::size::print(&text)?;
    let is_bad = findings.trials.iter().any(|trial| trial.verdict.is_bad());
    Ok(ExitCode::from(u8::from(is_bad)))
}

fn find(plan: &Plan) -> Result<Findings, Failure> {
    let begin = Instant::now();
    let runner = Runner::new(&plan.subject)?;
    let (first, requests, mut numbers, places) = survey(plan, &runner)?;
    if plan.all {
        numbers = (1..=requests).collect();
    }
    let left_out = numbers.len().saturating_sub(plan.most);
    numbers.truncate(plan.most);
    let mut sites = sites::Names::default();
    let (mut trials, mut missed) = (Vec::new(), 0);
    for (place, number) in numbers.iter().enumerate() {
        let progress = format!("request {number}, {} of {}", place + 1, numbers.len());
        let board = Board::new()?;
        let run = runner.run(&values(plan, "MEMPOOL_FAIL_NTH", *number), Some(&board), &progress)?;
        sites::progress(&progress, begin.elapsed());
        match own(&board, &run).filter(|area| area.get(board::REFUSAL) != 0) {
            Some(area) => trials.push(Trial {
                request: area.get(board::REFUSAL),
                size: area.get(board::REFUSAL + 1),
                verdict: Verdict::of(run.end, first.end, &plan.accept),
                site: sites.of(&area.text(board::TEXT, area.get(board::REFUSAL + 2) as usize)),
                said: run.said,
            }),
            None => missed += 1,
        }
    }
    sites::progress_end();
    Ok(Findings { usual: first.end, requests, places, trials, missed, left_out, elapsed: begin.elapsed() })
}

/// The run without refusals: how it ended, its requests, the first of each place, places.
fn survey(plan: &Plan, runner: &Runner<'_>) -> Result<(Run, u64, Vec<u64>, usize), Failure> {
    let board = Board::new()?;
    let run = runner.run(&values(plan, "MEMPOOL_SURVEY", 1), Some(&board), "looking for places")?;
    if run.end == End::Hung {
        return Err(Failure::own(format_args!("the program did not end within {} s", plan.subject.timeout.as_secs()))
            .fix("raise --timeout, or let the program do less"));
    }
    let Some(area) = own(&board, &run) else {
        let message = format!("the program ended ({}) before it could be watched{}", run.end, run.last_words());
        return Err(Failure::own(message));
    };
    if let End::Signal(_) = run.end {
        let message = format!(
            "the program dies of {} without a refusal: what one does to it cannot be told{}",
            run.end,
            run.last_words()
        );
        return Err(Failure::own(message)
            .fix("see whether it dies without a pool too; if the segment is too small for it, raise --segment"));
    }
    let places = (area.get(board::LOGGED) as usize).min(board::LOG_MOST);
    let mut numbers: Vec<u64> = (0..places).map(|entry| area.get(board::LOG + entry)).filter(|&n| n != 0).collect();
    numbers.sort_unstable();
    Ok((run, area.get(board::REQUESTS), numbers, places))
}

/// What the program itself counted, not what it started.
fn own<'a>(board: &'a Board, run: &Run) -> Option<Area<'a>> {
    board.areas().find(|area| area.get(board::PROCESS) == u64::from(run.process))
}

/// The settings of a run.
fn values(plan: &Plan, name: &'static str, value: u64) -> Vec<(&'static str, String)> {
    // What refusing means: null, on a pool that is otherwise never exhausted.
    let mut all = vec![
        ("MEMPOOL_COMMIT", "lazy".to_owned()),
        ("MEMPOOL_LOCK", "off".to_owned()),
        ("MEMPOOL_HUGE_PAGES", "off".to_owned()),
    ];
    all.extend(settings::variables(&plan.given));
    all.push(("MEMPOOL_EXHAUSTED", "null".to_owned()));
    all.push((name, if name == "MEMPOOL_SURVEY" { "on".to_owned() } else { value.to_string() }));
    all
}
