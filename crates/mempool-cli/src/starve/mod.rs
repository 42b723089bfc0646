//! `mempool starve`: what a pool is good for, shown on one program.
//!
//! A worker does steady work while a hog takes all memory, in each kind of starvation that the machine allows
//! ([`kinds`]), on each allocator that is here (`crate::peers`) and on a pool made before the hog starts. Each
//! run is a process of its own, and so is the hog, but for one kind.
//!
//! ```text
//!   show ── starts ──> work             board: shared memory; every request noted, survives the worker's death
//!        ── starts ──> hog (in the worker's cgroup, when the worker says so; again when it is killed)
//!        ── ends   ──> a worker that has stopped for good
//!        ── prints <── report, html
//! ```
//!
//! *Limits:* the hog is confined to a cgroup or an address space of the size that `--limit` says; the machine around it
//! is left alone, and what could only be done to the whole machine is done when it is named.
#![allow(unsafe_code)]

mod board;
mod cgroup;
mod hog;
mod html;
mod kinds;
mod outcome;
mod processors;
mod records;
mod report;
mod runner;
mod service;
mod watch;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use mempool::bytes::Bytes;
use mempool::config::{Config, Exhausted};

use crate::failure::Failure;
use crate::peers::{self, Missing, Peer};
use crate::{doctor, ending, settings, terminal};
use kinds::ALL;
pub use kinds::Kind;
use outcome::Outcome;
use processors::{apart, isolate, keep_to, processors};
use report::Report;

/// What `mempool starve` was asked for. Sizes are bytes.
pub struct Plan {
    /// Length of each run in milliseconds; 0: what makes the whole take [`WHOLE`].
    pub millis: u64,
    /// Runs of the pool's worker in each kind, of which the medians count; others have one. More than one take longer.
    pub rounds: usize,
    /// Keeps the kernel's own work off the workers' processor meanwhile.
    pub isolate: bool,
    /// What worker and hog may have together.
    pub limit: usize,
    /// The pool's segment.
    pub segment: usize,
    /// The kinds that were named; empty: all that are allowed.
    pub kinds: Vec<String>,
    /// The allocators that were named; empty: all that are here.
    pub allocators: Vec<String>,
    /// As JSON.
    pub json: bool,
    /// Where a page goes.
    pub html: Option<PathBuf>,
    /// Where a picture goes.
    pub svg: Option<PathBuf>,
}

/// What a worker's process was asked for.
pub struct WorkerOrder {
    /// On a pool, else on what `malloc` is.
    pub pool: bool,
    /// The kind of starvation.
    pub kind: Kind,
    /// What there is, in bytes.
    pub limit: u64,
    /// The pool's segment in bytes.
    pub segment: u64,
    /// The file of the board.
    pub board: i32,
    /// The processor that the worker has for itself, if any.
    pub processor: Option<usize>,
    /// The file that takes the process into its cgroup; empty for none.
    pub entrance: PathBuf,
}

/// Requests in each second.
const RATE: u64 = 1000;
/// Milliseconds that all runs take together, if nothing is said.
const WHOLE: u64 = 17_000;
/// Milliseconds of a run in which system calls are counted.
const COUNTING: u64 = 300;
/// Address space that the process needs beside the segment: its own image, libraries, stacks, the C library's heap.
const ROOM: usize = 64 << 20;
/// Bytes of stack that are made real beforehand, since a stack cannot grow either when nothing is left.
const STACK: usize = 256 << 10;

/// An allocator and what the report calls it.
#[derive(Clone)]
pub enum Side {
    /// What `malloc` is, or a preloaded one.
    Peer(Peer),
    /// The pool.
    Pool,
}

impl Side {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Peer(peer) => peer.name,
            Self::Pool => "mempool",
        }
    }
}

/// Runs every worker and prints what became of them.
pub fn show(plan: &Plan) -> Result<ExitCode, Failure> {
    check_limit(plan, doctor::available())?;
    settings::warn_of_own("starve", &OWN);
    config(plan.segment)?.validate().map_err(|error| settings::contradicts("starve", &OWN, error))?;
    ending::by_signal();
    let (kinds, left_out) = chosen(&plan.kinds)?;
    let (sides, missing) = sides(&plan.allocators)?;
    let own = apart();
    let _isolated = if plan.isolate { Some(isolate(own)?) } else { None };
    let rounds = plan.rounds.max(1);
    let runs = (kinds.len() * (sides.len() - 1 + rounds)) as u64;
    // Not shorter for more rounds: a hog needs its time to take everything.
    let single = (kinds.len() * sides.len()) as u64;
    let millis = if plan.millis > 0 { plan.millis } else { (WHOLE / single.max(1)).clamp(200, 4000) };
    let (mut outcomes, mut counted) = (Vec::new(), Vec::new());
    for side in &sides {
        let progress = runner::Progress { index: 0, of: runs };
        counted.push(runner::run(
            plan,
            &runner::Order { millis: COUNTING, kind: Kind::Counted, side, processor: own },
            &progress,
        )?);
    }
    let mut begun = 0;
    let mut run = |kind: Kind, side: &Side| {
        begun += 1;
        let progress = runner::Progress { index: begun, of: runs };
        runner::run(plan, &runner::Order { millis, kind, side, processor: own }, &progress)
    };
    // Rounds of all kinds, so that whatever else the machine does meets the quiet runs as it does the starved ones.
    let mut pools: Vec<Vec<Outcome>> = kinds.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (kind, of_kind) in kinds.iter().zip(&mut pools) {
            of_kind.push(run(*kind, &Side::Pool)?);
        }
    }
    for (kind, of_kind) in kinds.iter().zip(pools) {
        outcomes.extend(Outcome::of_rounds(of_kind));
        for side in sides.iter().filter(|side| !matches!(side, Side::Pool)) {
            outcomes.push(run(*kind, side)?);
        }
    }
    let report = Report { plan, millis, outcomes, counted, left_out, missing, apart: own };
    publish(plan, &report)?;
    Ok(report.exit_code())
}

/// Checks that worker and hog have room within `--limit`, and the machine around them has, too.
fn check_limit(plan: &Plan, available: Option<(usize, Option<String>)>) -> Result<(), Failure> {
    let (limit, least) = (Bytes(plan.limit), plan.segment.saturating_add(ROOM));
    if plan.limit < least {
        let least = Bytes(least);
        let message = format!("--limit is {limit}, but must be at least {least}: the segment and room for the process");
        return Err(Failure::own(message));
    }
    let Some((room, file)) = available else { return Ok(()) };
    let most = room / 4 * 3;
    if plan.limit > most {
        let source = file.unwrap_or_else(|| "MemAvailable of /proc/meminfo".into());
        let message = format!(
            "--limit is {limit}, but may be at most {:#}: three quarters of the {:#} that are available ({source}), since a hog takes all of it",
            Bytes(most),
            Bytes(room)
        );
        return Err(Failure::own(message).fix(format_args!("--limit {}M or less", most >> 20)));
    }
    Ok(())
}

/// The processors that are left to hogs and the runner.
static OTHERS: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();

/// The pool and those of the allocators that are here, and those that are not.
fn sides(names: &[String]) -> Result<(Vec<Side>, Vec<Missing>), Failure> {
    let (peers, mut missing) = peers::find();
    let mut sides: Vec<Side> = std::iter::once(Side::Pool).chain(peers.into_iter().map(Side::Peer)).collect();
    let named = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    let known: Vec<&str> = sides.iter().map(Side::name).collect();
    if let Some(bad) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let known = known.join(", ");
        return Err(Failure::own(format_args!("--allocators {bad}: no such allocator here; there are {known}")));
    }
    sides.retain(|side| named(side.name()) || matches!(side, Side::Pool));
    missing.retain(|missing| named(missing.name));
    Ok((sides, missing))
}

/// Those of the kinds that can be run, and why the others cannot.
fn chosen(names: &[String]) -> Result<(Vec<Kind>, Refusals), Failure> {
    let known = || ALL.map(Kind::name).join(", ");
    if let Some(bad) = names.iter().find(|name| Kind::of(name).is_none()) {
        return Err(Failure::own(format_args!("--kinds {bad}: no such kind; there are {}", known())));
    }
    let (mut run, mut left_out) = (Vec::new(), Vec::new());
    for kind in ALL {
        let named = names.iter().any(|name| name == kind.name());
        if !names.is_empty() && !named && kind != Kind::Quiet {
            continue;
        }
        match kind.refusal(named) {
            None => run.push(kind),
            Some(why) => left_out.push((kind, why)),
        }
    }
    Ok((run, left_out))
}

fn publish(plan: &Plan, report: &Report<'_>) -> Result<(), Failure> {
    let write = |path: &PathBuf, text: String| {
        std::fs::write(path, text).map_err(|error| Failure::own(format_args!("{}: {error}", path.display())))
    };
    plan.html.as_ref().map_or(Ok(()), |path| write(path, html::page(report)))?;
    plan.svg.as_ref().map_or(Ok(()), |path| write(path, html::picture(report)))?;
    let text = if plan.json { report.json() } else { report.table(terminal::has_colours(&std::io::stdout())) };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::own(format_args!("standard output: {error}")))
}

/// The settings that the command sets itself; the others are the environment's.
const OWN: [&str; 4] = ["MEMPOOL_SEGMENT", "MEMPOOL_EXHAUSTED", "MEMPOOL_PROCESS", "MEMPOOL_NAME"];

fn config(segment: usize) -> Result<Config, Failure> {
    let given = settings::from_environment()?;
    Ok(given.segment(segment).exhausted(Exhausted::Null).lock_process(true).name("starve"))
}

/// The worker's process.
pub fn work(order: &WorkerOrder) -> Result<ExitCode, Failure> {
    let board = board::open(order.board).map_err(|error| Failure::own(format_args!("shared memory: {error}")))?;
    // The hog's thread never ends and counts on it.
    let board = Box::leak(Box::new(board));
    crate::library::check_serves()?;
    enter(order)?;
    if order.kind == Kind::Addresses {
        limit(libc::RLIMIT_AS, order.limit)?;
    }
    if order.pool {
        let segment = usize::try_from(order.segment).unwrap_or(usize::MAX);
        crate::ALLOCATOR
            .to_pool(&config(segment)?)
            .map_err(|error| Failure::own(format_args!("the pool cannot be made: {error}")).fix(error.hint()))?;
    }
    harden_stack();
    if let Some(processor) = order.processor {
        // Set once, here. The hog's thread goes back to those.
        let _ = OTHERS.set(processors());
        keep_to(&[processor]);
    }
    be_on_time();
    service::serve(board, order).map_err(Failure::own)?;
    Ok(ExitCode::SUCCESS)
}

/// What else runs on the machine is not what is measured: sleeps end when they should, not up to 50 us later, and who
/// wakes runs at once, by real-time priority. Where the right is lacking the worker is as all others are.
fn be_on_time() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: plain numbers and a live struct; all for the calling thread.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1);
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const lowest);
    }
}

/// The hog's process.
pub fn hog(order: &WorkerOrder) -> Result<ExitCode, Failure> {
    let board = board::open(order.board).map_err(|error| Failure::own(format_args!("shared memory: {error}")))?;
    enter(order)?;
    let limit = usize::try_from(order.limit).unwrap_or(usize::MAX);
    hog::work(&board, order.kind, limit).map_err(|error| Failure::own(format_args!("the hog: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Goes into the cgroup, and leaves no core files.
fn enter(order: &WorkerOrder) -> Result<(), Failure> {
    limit(libc::RLIMIT_CORE, 0)?;
    if order.entrance.as_os_str().is_empty() {
        return Ok(());
    }
    std::fs::write(&order.entrance, "0")
        .map_err(|error| Failure::own(format_args!("{}: {error}", order.entrance.display())))
}

fn limit(what: libc::__rlimit_resource_t, most: u64) -> Result<(), Failure> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the structure lives through the call, which only reads it.
    if unsafe { libc::setrlimit(what, &raw const limit) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Failure::own(format_args!("cannot limit the process to {most} bytes: {error}")))
}

/// What the kernel counts for a thread or process.
fn usage(who: i32) -> Option<libc::rusage> {
    // SAFETY: all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: fills a live structure.
    (unsafe { libc::getrusage(who, &raw mut usage) } == 0).then_some(usage)
}

/// Touches [`STACK`] bytes of the stack.
#[inline(never)]
fn harden_stack() {
    std::hint::black_box(&mut [1u8; STACK]);
}

/// Kinds that this machine does not allow, and why.
pub type Refusals = Vec<(Kind, String)>;

/// What the report says of peers that are not here.
pub type Absent = Vec<Missing>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_the_machine_its_memory() {
        let plan = |limit| Plan {
            millis: 0,
            rounds: 1,
            isolate: false,
            limit,
            segment: 64 << 20,
            kinds: Vec::new(),
            allocators: Vec::new(),
            json: false,
            html: None,
            svg: None,
        };
        let said = |limit, available| check_limit(&plan(limit), available).err().map(|failure| failure.message);
        let machine = Some((4 << 30, None));
        assert_eq!((said(256 << 20, machine.clone()), said(3 << 30, machine.clone())), (None, None));
        assert_eq!((said(3 << 40, None), said(128 << 20, None)), (None, None));
        assert!(said(127 << 20, None).is_some_and(|why| why.contains("must be at least 128 MiB")));
        assert_eq!(
            said(4 << 40, machine).as_deref(),
            Some(
                "--limit is 4 TiB, but may be at most 3 GiB: three quarters of the 4 GiB that are available (MemAvailable \
                 of /proc/meminfo), since a hog takes all of it"
            )
        );
        let group = Some((300 << 20, Some("/sys/fs/cgroup/memory.max".to_owned())));
        let failure = check_limit(&plan(256 << 20), group).expect_err("too much");
        assert!(failure.message.contains("at most 225 MiB") && failure.message.contains("(/sys/fs/cgroup/memory.max)"));
        assert_eq!(failure.fix, "--limit 225M or less");
    }
}
