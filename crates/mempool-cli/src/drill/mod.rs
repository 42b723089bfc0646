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
//! Requests from before the program's start are numbered, but nobody notes where they come from: those of the dynamic loader, of constructors of
//! libraries, and of the preparation of this. `--all` alone refuses them.
//!
//! *Limits:* a program that dies of a signal without a refusal is not drilled; one that does not ask in the same order
//! each time may not reach a request, which is counted, unless it ends badly; only the process itself is looked at, although programs that it
//! starts are drilled along.

mod report;
mod sites;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mempool::config::{Config, SETTINGS};
use mempool::process::board;

use crate::failure::Failure;
use crate::say::Progress;
use crate::settings::{self, Given, Shown};
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

/// A run with a refusal, or that ended badly without one.
pub struct Trial {
    /// The request that was to be refused.
    pub request: u64,
    /// Its bytes; 0 where nobody saw it.
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
    /// Those of them from before its start.
    pub before: u64,
    /// Places that were told apart.
    pub places: usize,
    /// The runs that say something.
    pub trials: Vec<Trial>,
    /// The other ones: they did not reach their request, and ended well.
    pub missed: usize,
    /// Requests that were left out because of `--max`.
    pub left_out: usize,
    /// All took so long.
    pub elapsed: Duration,
}

/// Drills the program and prints what was found.
pub fn show(plan: &Plan) -> Result<ExitCode, Failure> {
    crate::ending::by_signal();
    check(plan)?;
    let findings = find(plan)?;
    let text = if plan.json { report::json(plan, &findings) } else { report::table(plan, &findings) };
    crate::size::print(&text)?;
    let is_bad = findings.trials.iter().any(|trial| trial.verdict.is_bad());
    Ok(ExitCode::from(u8::from(is_bad)))
}

/// Refuses settings that say what is refused, which is for the drill to say.
fn check(plan: &Plan) -> Result<(), Failure> {
    let (config, usual) = (settings::in_force(&plan.given)?, Config::process());
    for setting in SETTINGS.iter().filter(|setting| setting.name.starts_with("fail_")) {
        let value = Shown(setting, &config).to_string();
        if value != Shown(setting, &usual).to_string() {
            let message = format!("{}={value}: `mempool drill` itself sets which request is refused", setting.env);
            let fix = format!("leave out {} and unset {}; `mempool run` takes them", setting.flag, setting.env);
            return Err(Failure::own(message).fix(fix));
        }
    }
    Ok(())
}

fn find(plan: &Plan) -> Result<Findings, Failure> {
    let begin = Instant::now();
    let runner = Runner::new(&plan.subject)?;
    let survey = survey(plan, &runner)?;
    let Survey { end, requests, before, places, .. } = survey;
    let mut numbers = if plan.all { (1..=requests).collect() } else { survey.numbers };
    let left_out = numbers.len().saturating_sub(plan.most);
    numbers.truncate(plan.most);
    let mut sites = sites::Names::default();
    let (mut trials, mut missed) = (Vec::new(), 0);
    let mut line = Progress::new();
    for (place, &request) in numbers.iter().enumerate() {
        let progress = format!("request {request}, {} of {}", place + 1, numbers.len());
        line.show(&progress);
        let board = Board::new()?;
        let run = runner.run(&values(plan, "MEMPOOL_FAIL_NTH", request), Some(&board), &progress)?;
        let verdict = Verdict::of(run.end, end, &plan.accept);
        let (size, site) = match own(&board, &run) {
            Some(area) if area.get(board::REFUSAL) != 0 => {
                let text = area.text(board::TEXT, area.get(board::REFUSAL + 2) as usize);
                (area.get(board::REFUSAL + 1), sites.of(&text))
            }
            _ if request <= before => (0, Site::unseen("(before the program's start)")),
            _ if verdict.is_bad() => (0, Site::unseen("(nothing that it asked itself was refused)")),
            _ => {
                missed += 1;
                continue;
            }
        };
        trials.push(Trial { request, size, verdict, site, said: run.said });
    }
    Ok(Findings { usual: end, requests, before, places, trials, missed, left_out, elapsed: begin.elapsed() })
}

/// What the run without refusals showed.
struct Survey {
    end: End,
    requests: u64,
    /// Requests from before the program's start.
    before: u64,
    /// The first request of each place.
    numbers: Vec<u64>,
    /// Places that were told apart.
    places: usize,
}

/// The run without refusals.
fn survey(plan: &Plan, runner: &Runner<'_>) -> Result<Survey, Failure> {
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
    let requests = area.get(board::REQUESTS);
    // The first request that is looked at is the first of its place, whatever that is.
    let before = numbers.first().map_or(requests, |first| first - 1);
    Ok(Survey { end: run.end, requests, before, numbers, places })
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
