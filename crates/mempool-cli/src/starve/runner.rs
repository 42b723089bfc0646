//! Runs one worker against one hog, and sees both end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::board::{self, Board};
use super::cgroup::Cgroup;
use super::kinds::Kind;
use super::outcome::{Outcome, grouped, size};
use super::{Plan, RATE, Side};
use crate::ending::{self, Kept, Thing};
use crate::failure::Failure;
use crate::say::say;
use crate::terminal;

/// A worker that finishes no request for so long has stopped for good.
const STOPPED: Duration = Duration::from_millis(1000);
/// How long a worker may take to begin.
const BEGINNING: Duration = Duration::from_secs(20);
/// Between two looks at a worker no more than this counts as waiting for it: where the machine stood still, or gave the runner no processor,
/// the worker had no more.
const LOOK: Duration = Duration::from_millis(20);

/// Which run this is.
pub struct Progress {
    /// From 1.
    pub index: u64,
    /// How many there are.
    pub of: u64,
}

/// What is to be run.
pub struct Order<'a> {
    /// How long, in milliseconds.
    pub millis: u64,
    /// How it is starved.
    pub kind: Kind,
    /// On which allocator.
    pub side: &'a Side,
    /// The processor that the worker gets for itself.
    pub processor: Option<usize>,
}

/// One run's parts.
struct Run<'a> {
    plan: &'a Plan,
    kind: Kind,
    side: &'a Side,
    processor: Option<usize>,
    board: Board,
    file: File,
    cgroup: Option<Cgroup>,
}

/// Runs a worker against a hog.
pub fn run(plan: &Plan, order: &Order<'_>, progress: &Progress) -> Result<Outcome, Failure> {
    let &Order { millis, kind, side, processor } = order;
    let own = |what: &str, error: &dyn std::fmt::Display| Failure::own(format_args!("{what}: {error}"));
    let (board, file) = board::create((millis * RATE / 1000).max(1)).map_err(|error| own("shared memory", &error))?;
    let cgroup = if kind.in_cgroup() { Some(Cgroup::new(kind, plan.limit).map_err(Failure::own)?) } else { None };
    let run = Run { plan, kind, side, processor, board, file, cgroup };
    let (mut worker, kept) = run.start("starve-worker").map_err(|error| own("cannot start the worker", &error))?;
    let mut hog = None;
    let watched = run.watch(&mut worker, &mut hog, progress);
    drop(kept);
    if let Some((mut hog, _)) = hog {
        // One that has ended already needs no end.
        let _ = hog.kill();
        let _ = hog.wait();
    }
    let (status, stopped) = watched.map_err(|error| own("cannot wait for the worker", &error))?;
    let mut said = Vec::new();
    if let Some(mut pipe) = worker.stderr.take() {
        // What it said is only a part of the report.
        let _ = pipe.read_to_end(&mut said);
    }
    let kills = run.cgroup.as_ref().map_or(0, Cgroup::kills);
    Ok(Outcome::new(kind, side.name(), &run.board, status, stopped, kills, &String::from_utf8_lossy(&said)))
}

impl Run<'_> {
    /// Starts a process of this command: the worker or the hog.
    fn start(&self, what: &str) -> io::Result<(Child, Kept)> {
        let mut command = Command::new(std::env::current_exe()?);
        let numbers = [self.plan.limit as i64, self.plan.segment as i64, self.file.as_raw_fd().into()];
        let pool = matches!(self.side, Side::Pool);
        command.args([what, if pool { "pool" } else { "system" }, self.kind.name()]);
        command.args(numbers.map(|number| number.to_string()));
        command.arg(self.processor.map_or("any".into(), |number| number.to_string()));
        command.arg(self.cgroup.as_ref().map(Cgroup::entrance).unwrap_or_default());
        match self.side {
            Side::Peer(peer) if what == "starve-worker" && peer.library.is_some() => {
                command.env(crate::library::PRELOAD, peer.library.as_ref().map_or("".as_ref(), |path| path.as_os_str()))
            }
            _ => command.env_remove(crate::library::PRELOAD),
        };
        let stderr = if what == "starve-worker" { Stdio::piped() } else { Stdio::null() };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        ending::spawn(&mut command, Thing::Process)
    }

    /// Waits for the worker's end, with a progress line on a terminal. Starts the hog when the worker says so, and again
    /// when the kernel has ended it. A worker that has stopped for good is ended; whether that was so.
    fn watch(
        &self,
        worker: &mut Child,
        hog: &mut Option<(Child, Kept)>,
        progress: &Progress,
    ) -> io::Result<(ExitStatus, bool)> {
        let terminal = terminal::has_control(&io::stderr());
        let (mut begun, mut waited, mut looked, mut shown) = (0, Duration::ZERO, Instant::now(), Instant::now());
        let mut stopped = false;
        loop {
            if let Some(status) = worker.try_wait()? {
                if terminal {
                    say("\r\x1b[K");
                }
                return Ok((status, stopped));
            }
            if self.kind.has_hog_process() && self.board.starve.load(Relaxed) == 1 {
                let gone = match hog {
                    Some((hog, _)) => hog.try_wait()?.is_some(),
                    None => true,
                };
                if gone {
                    *hog = Some(self.start("starve-hog")?);
                }
            }
            let now = self.board.begun.load(Relaxed);
            waited = if now == begun { waited + looked.elapsed().min(LOOK) } else { Duration::ZERO };
            (begun, looked) = (now, Instant::now());
            let patience = if begun == 0 { BEGINNING } else { STOPPED };
            // Behind the last request there is still work to do.
            if waited > patience && (begun < self.board.planned.load(Relaxed) || waited > BEGINNING) {
                stopped = true;
                worker.kill()?;
            }
            if terminal && shown.elapsed() > Duration::from_millis(100) {
                shown = Instant::now();
                say(format_args!("\r{}\x1b[K", self.line(progress)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The line that shows how far the runs are.
    fn line(&self, progress: &Progress) -> String {
        let (planned, begun) = (self.board.planned.load(Relaxed), self.board.begun.load(Relaxed));
        let share = (begun * 20).checked_div(planned).unwrap_or(0).min(20) as usize;
        let bar: String = (0..20).map(|place| if place < share { '#' } else { '.' }).collect();
        format!(
            "{:>2} of {}  {:<10} {:<9} [{bar}] {} done, hog holds {}",
            progress.index,
            progress.of,
            self.kind.name(),
            self.side.name(),
            grouped(self.board.done.load(Relaxed)),
            size(self.board.hog_bytes.load(Relaxed)),
        )
    }
}
