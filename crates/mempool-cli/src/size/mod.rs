//! `mempool size`: how large a segment a program needs.
//!
//! The program runs first on a pool that grows and that sees every request (a drill that refuses none): peaks of objects
//! and bytes, per size class too, are counted request by request and free by free, and are exact; bytes are those of the
//! items, so rounded up as the pool rounds. Then it runs on ordinary pools of fixed size that abort when exhausted, and
//! the smallest segment on which it ends as it did the first time is found by halving. The recommended segment is that
//! and a quarter more, in whole MiB; the bound (`bound`) holds for every order of the same requests.
//!
//! A program that is linked to libmempool, or a Rust program on a pool of its own, has two pools: that of the preload library for what it
//! asks of malloc, and its own, with its named caches. Both count, both get the same settings, and each has a segment of that size.
//!
//! *Limits:* what holds for this input holds for it alone. What dies of a signal in the first run is not measured, since
//! a segment that is too small could not be told from that. A pool that a program configures without the environment
//! neither counts nor changes its size, and what it configures so beside the environment the bound does not know. Of a process
//! that forks, the child counts no more, which the report says if it asks for memory; programs that it starts do, and are listed. Every process
//! gets a segment of its own.

mod bound;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mempool::bytes::Bytes;
use mempool::config::{Config, SEGMENT_LEAST, SEGMENT_MOST};
use mempool::process::board;

use crate::failure::Failure;
use crate::settings::{self, Given};
use crate::watch::{Board, End, Run, Runner, Subject};
use bound::Bound;
pub use report::print;

/// Runs at the segment found, beyond the first, before it is believed.
const CONFIRMATIONS: usize = 2;
/// Segments that may turn out to have worked by luck, each twice as far from the last as that one was.
const LUCK: usize = 6;
/// Segments are multiples of this many bytes.
const STEP: usize = 64 << 10;

/// What to find out.
pub struct Plan {
    /// Flags that were given: settings that the program shall have.
    pub given: Given,
    /// What to run.
    pub subject: Subject,
    /// The largest segment that is tried, in bytes.
    pub most: usize,
    /// How exact the smallest segment shall be, in percent.
    pub percent: usize,
    /// As JSON.
    pub json: bool,
}

/// What was found out.
pub struct Found {
    /// The first run.
    pub first: Run,
    /// What its processes counted, and the bound for each.
    pub processes: Vec<Process>,
    /// Pools of processes that could not count any more.
    pub unseen: usize,
    /// The smallest segment that worked, in bytes.
    pub smallest: usize,
    /// The largest that did not; 0 if all did.
    pub too_small: usize,
    /// What to set.
    pub recommended: usize,
    /// Runs of the program.
    pub runs: usize,
    /// All took so long.
    pub elapsed: Duration,
}

/// The peaks of one holder.
#[derive(Clone, Debug)]
pub struct Peak {
    /// The holder's name.
    pub holder: String,
    /// Most objects at once.
    pub objects: u64,
    /// Most bytes at once.
    pub bytes: u64,
}

/// What one pool of a process counted.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its program's name.
    pub name: String,
    /// Its number.
    pub number: u64,
    /// Which program it is: a process may run one after the other.
    pub image: u64,
    /// Which of its pools: 0 is malloc's, others are the program's own.
    pub pool: usize,
    /// Requests.
    pub requests: u64,
    /// Bytes of the largest.
    pub largest: u64,
    /// Bytes of the data area up to the highest that an object had.
    pub top: u64,
    /// Most threads at once that asked for memory or gave some back.
    pub threads: u64,
    /// Children by `fork` that asked for memory, and that nobody counts.
    pub forked: u64,
    /// All holders together.
    pub all: Peak,
    /// Each that had any.
    pub holders: Vec<Peak>,
    /// The bound.
    pub bound: Bound,
}

/// Finds the size and prints it.
pub fn show(plan: &Plan) -> Result<ExitCode, Failure> {
    crate::ending::by_signal();
    let found = find(plan, &check(plan)?)?;
    report::print(&if plan.json { report::json(plan, &found) } else { report::table(plan, &found) })?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses what could only fail, or find nothing. The settings in force.
fn check(plan: &Plan) -> Result<Config, Failure> {
    let config = settings::in_force(&plan.given)?;
    if settings::value(&config, "small") == "system" {
        return Err(Failure::own(
            "with small=system the C library serves the program, and no segment is too small for it",
        )
        .fix("choose small=slab or small=heap (--small, MEMPOOL_SMALL)"));
    }
    if !(SEGMENT_LEAST..=SEGMENT_MOST).contains(&plan.most) {
        let (least, most) = (Bytes(SEGMENT_LEAST), Bytes(SEGMENT_MOST));
        return Err(Failure::own(format_args!("--most {}: no segment can be that large", Bytes(plan.most)))
            .fix(format_args!("pass {least} to {most}")));
    }
    Ok(config)
}

fn find(plan: &Plan, given: &Config) -> Result<Found, Failure> {
    let begin = Instant::now();
    let runner = Runner::new(&plan.subject)?;
    let board = Board::new()?;
    // Smaller segments are refused.
    let floor = given.values().reserve.max(given.values().watermark);
    let grown = fixed(plan, "grow", (floor + (16 << 20)).min(plan.most), Some(plan.most));
    let first = runner.run(&grown, Some(&board), "looking at every request")?;
    if first.end == End::Hung {
        return Err(Failure::own(format_args!("the program did not end within {} s", plan.subject.timeout.as_secs()))
            .fix("raise --timeout, or let the program do less"));
    }
    let mut processes: Vec<Process> = Vec::new();
    for area in board.areas() {
        let process = Process::of(&area, given);
        let pool = processes.iter().filter(|other| other.is_with(&process)).count();
        processes.push(Process { pool, ..process });
    }
    if processes.is_empty() {
        let message = format!("the program ended ({}) before the pool could count{}", first.end, first.last_words());
        return Err(Failure::own(message));
    }
    if let End::Signal(_) = first.end {
        let (most, said) = (Bytes(plan.most), first.last_words());
        let message = format!(
            "the program dies of {} on a pool that may grow to {most}, which measures nothing{said}",
            first.end
        );
        return Err(
            Failure::own(message).fix("see whether it dies without a pool too; if it is out of memory, raise --most")
        );
    }
    let mut search = Search { plan, runner, end: first.end, other: None, runs: 1 };
    let (too_small, smallest) = search.smallest(&processes, floor)?;
    let recommended = with_margin(smallest).next_multiple_of(1 << 20);
    let runs = search.runs;
    let unseen = board.unseen();
    Ok(Found { first, processes, unseen, smallest, too_small, recommended, runs, elapsed: begin.elapsed() })
}

/// A quarter more.
const fn with_margin(bytes: usize) -> usize {
    bytes + bytes / 4
}

/// Settings of a run: those that were given, and over them what this command varies.
fn fixed(plan: &Plan, exhausted: &str, segment: usize, most: Option<usize>) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&'static str, String)> = settings::variables(&plan.given).collect();
    all.push(("MEMPOOL_EXHAUSTED", exhausted.into()));
    all.push(("MEMPOOL_SEGMENT", segment.to_string()));
    all.push(("MEMPOOL_MAX_SEGMENT", most.unwrap_or(0).to_string()));
    // What is not touched takes no memory, so that large segments can be tried on small machines.
    all.push(("MEMPOOL_COMMIT", "lazy".into()));
    all.push(("MEMPOOL_LOCK", "off".into()));
    all.push(("MEMPOOL_HUGE_PAGES", "off".into()));
    all
}

/// The search for the smallest segment.
struct Search<'a> {
    plan: &'a Plan,
    runner: Runner<'a>,
    end: End,
    /// The last run that ended otherwise, and on how many bytes.
    other: Option<(Run, usize)>,
    runs: usize,
}

impl Search<'_> {
    /// Whether the program ends on a segment of `bytes` as it did the first time.
    fn works(&mut self, bytes: usize) -> Result<bool, Failure> {
        self.runs += 1;
        let progress = format!("run {}, on {}", self.runs, Bytes(bytes));
        let run = self.runner.run(&fixed(self.plan, "abort", bytes, None), None, &progress)?;
        let works = run.end == self.end;
        if !works {
            self.other = Some((run, bytes));
        }
        Ok(works)
    }

    /// The largest segment known to be too small, 0 for none, and the smallest that works; all are larger than `floor`.
    fn smallest(&mut self, processes: &[Process], floor: usize) -> Result<(usize, usize), Failure> {
        let live = processes.iter().map(|process| process.all.bytes).max().unwrap_or(0) as usize;
        let top = processes.iter().map(|process| process.top).max().unwrap_or(0) as usize;
        let enough = (floor + top + top / 2).next_multiple_of(STEP).max(SEGMENT_LEAST);
        let (mut low, mut high) = (0, enough.min(self.plan.most));
        while !self.works(high)? {
            low = high;
            if high >= self.plan.most {
                let message = format!("no segment up to {} serves the program", Bytes(self.plan.most));
                return Err(Failure::own(message).fix("raise --most, or see whether it ends the same way twice"));
            }
            high = (high * 2).min(self.plan.most);
        }
        loop {
            // Nothing smaller than what is live can do.
            let least = low.max(live).max(floor).max(SEGMENT_LEAST - STEP) / STEP * STEP;
            if high <= SEGMENT_LEAST || high - least <= STEP.max(high * self.plan.percent / 100) {
                return self.believed(low, high);
            }
            let middle = ((least + high) / 2).next_multiple_of(STEP).max(SEGMENT_LEAST);
            if self.works(middle)? { high = middle } else { low = middle }
        }
    }

    /// The first segment from `high` on, which has worked once, that works each time, and the last before it.
    fn believed(&mut self, mut low: usize, mut high: usize) -> Result<(usize, usize), Failure> {
        let (mut step, mut runs) = ((high * self.plan.percent / 100).max(STEP), CONFIRMATIONS);
        for _ in 0..LUCK {
            if (0..runs).try_fold(true, |all, _| Ok::<_, Failure>(all && self.works(high)?))? {
                return Ok((low, high));
            }
            // It worked by luck, as the threads ran: a little more.
            (low, runs) = (high, CONFIRMATIONS + 1);
            high = (high + step).next_multiple_of(STEP).min(self.plan.most);
            step *= 2;
            if low == high {
                break;
            }
        }
        Err(self.fickle())
    }

    fn fickle(&self) -> Failure {
        let mut message =
            format!("the program does not behave the same from run to run: it ends now with {}", self.end);
        if let Some((run, bytes)) = &self.other {
            message += &format!(" and now with {}, last on {}{}", run.end, Bytes(*bytes), run.last_words());
        }
        Failure::own(message).fix("let it find everything as it was in each run (its files, --input), or raise --most")
    }
}

impl Process {
    /// Whether both are pools of one program.
    pub fn is_with(&self, other: &Self) -> bool {
        (self.number, self.image) == (other.number, other.image)
    }

    fn of(area: &crate::watch::Area<'_>, given: &Config) -> Self {
        let peak = |holder: usize| {
            let (objects, bytes) = area.most(holder);
            Peak { holder: holder_name(area, holder), objects, bytes }
        };
        Self {
            name: area.name(),
            number: area.get(board::PROCESS),
            image: area.get(board::IMAGE),
            pool: 0,
            requests: area.get(board::REQUESTS),
            largest: area.get(board::LARGEST),
            top: area.get(board::TOP),
            threads: area.get(board::THREADS),
            forked: area.get(board::FORKED),
            all: peak(board::ALL),
            holders: holders().map(peak).filter(|peak| peak.objects > 0).collect(),
            bound: bound::of(area, given),
        }
    }
}

/// All holders of a board.
pub fn holders() -> impl Iterator<Item = usize> {
    (0..board::ALL).chain(board::NAMED..board::NAMED + board::NAMED_MOST)
}

fn holder_name(area: &crate::watch::Area<'_>, holder: usize) -> String {
    match holder {
        named if named >= board::NAMED => format!("cache {:?}", area.cache(named).0),
        board::CACHES => "other caches".into(),
        board::HEAP => "best-fit heap".into(),
        board::RUNS => "runs".into(),
        board::ALL => "all".into(),
        class => format!("size class {}", mempool::Pool::door_class_size(class)),
    }
}
