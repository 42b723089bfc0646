//! A workload at work in this process: its parameters, what is measured of it, and the report.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::family;
use crate::latency::Latency;
use crate::object::Object;

/// How often a worker calls `mark`.
pub const MARK: libc::c_long = 0x6d70;

/// Which threads a workload has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One.
    Single,
    /// As many as asked for.
    Threaded,
}

/// How a pool is set up for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Memory that comes when it is touched: what an ordinary program would use.
    Lazy,
    /// Prefaulted and locked: what a program that must never wait would use.
    Ready,
}

/// A number that a workload can be given.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// As `--set NAME=NUMBER` knows it.
    pub name: &'static str,
    /// Unless given.
    pub default: usize,
    /// What it is, with its unit.
    pub about: &'static str,
}

/// Something to do.
#[derive(Debug)]
pub struct Workload {
    /// A word.
    pub name: &'static str,
    /// Which real program it stands for, and what it does: one paragraph.
    pub about: &'static str,
    /// Its threads.
    pub kind: Kind,
    /// The pool's set-up.
    pub mode: Mode,
    /// What it can be given.
    pub parameters: &'static [Parameter],
    /// Whether named caches can serve it, in place of the malloc family.
    pub caches: bool,
    /// Does it.
    pub run: fn(&mut Job) -> Done,
}

/// What became of a job.
#[derive(Debug, Default)]
pub struct Done {
    /// Allocations, frees and reallocations.
    pub operations: u64,
    /// The sum of what was read back.
    pub checksum: u64,
    /// Seconds of the parts of the work, summed over threads.
    pub phases: Vec<(&'static str, f64)>,
    /// How long single operations took.
    pub latency: Option<Latency>,
    /// Objects that are freed after the measured part.
    pub rest: Vec<Object>,
    /// What was not as it must be; empty if all was.
    pub wrong: String,
    /// Other figures.
    pub figures: Vec<(&'static str, f64)>,
}

impl Done {
    /// Work without phases.
    #[must_use]
    pub fn new(operations: u64, checksum: u64) -> Self {
        Self { operations, checksum, ..Self::default() }
    }
}

/// A row in this process.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub workload: &'static Workload,
    /// Threads; 1 for a single-threaded workload.
    pub threads: usize,
    /// How much of the full work: 1 is all of it.
    pub scale: f64,
    /// Who serves a workload of named caches: `malloc`, `pool`, or the name of a crate.
    pub supplier: String,
    given: BTreeMap<String, usize>,
    begin: Option<Snapshot>,
    end: Option<Snapshot>,
}

impl Job {
    /// With parameters over the defaults.
    #[must_use]
    pub fn new(workload: &'static Workload, threads: usize, scale: f64, given: BTreeMap<String, usize>) -> Self {
        let threads = if workload.kind == Kind::Single { 1 } else { threads };
        Self { workload, threads, scale, supplier: "malloc".into(), given, begin: None, end: None }
    }

    /// A parameter's value.
    ///
    /// # Panics
    /// The workload has no such parameter: a slip in its own code.
    #[must_use]
    pub fn get(&self, name: &str) -> usize {
        let known = self.workload.parameters.iter().find(|parameter| parameter.name == name);
        let default = known.unwrap_or_else(|| panic!("{} has no parameter {name}", self.workload.name)).default;
        self.given.get(name).copied().unwrap_or(default)
    }

    /// `full` times the scale, at least 1.
    #[must_use]
    pub fn scaled(&self, full: usize) -> usize {
        ((full as f64 * self.scale) as usize).max(1)
    }

    /// The measured part begins: what was before is preparation.
    pub fn begin(&mut self) {
        mark();
        self.begin = Some(Snapshot::take());
    }

    /// The measured part is over.
    pub fn end(&mut self) {
        self.end = Some(Snapshot::take());
        mark();
    }

    /// Does the work; the report as JSON, times in seconds, sizes in bytes.
    pub fn run(mut self) -> Value {
        self.begin();
        let done = (self.workload.run)(&mut self);
        if self.end.is_none() {
            self.end();
        }
        let (Some(begin), Some(end)) = (&self.begin, &self.end) else { return Value::Null };
        let mut report = begin.until(end);
        report.insert("operations".into(), json!(done.operations));
        report.insert("checksum".into(), json!(format!("{:016x}", done.checksum)));
        report.insert("peak_bytes".into(), json!(peak_resident()));
        if !done.wrong.is_empty() {
            report.insert("wrong".into(), json!(done.wrong));
        }
        if family::peak_live() > 0 {
            report.insert("peak_live_bytes".into(), json!(family::peak_live()));
        }
        if !done.phases.is_empty() {
            let phases: Map<String, Value> = done.phases.iter().map(|(name, s)| ((*name).into(), json!(s))).collect();
            report.insert("phases".into(), phases.into());
        }
        if let Some(latency) = &done.latency {
            report.insert("latency_ns".into(), latency.json());
        }
        for (name, figure) in &done.figures {
            report.insert((*name).into(), json!(figure));
        }
        report.into()
    }
}

/// A system call that does not exist and does nothing: whoever traces the process sees where the measured part begins
/// and ends.
fn mark() {
    // SAFETY: there is no system call of this number; the kernel answers ENOSYS.
    unsafe { libc::syscall(MARK) };
}

/// What the process has used so far.
#[derive(Debug)]
struct Snapshot {
    time: Instant,
    usage: libc::rusage,
}

impl Snapshot {
    fn take() -> Self {
        let mut usage = std::mem::MaybeUninit::zeroed();
        // SAFETY: the structure lives through the call; zeroes are a value of it should the call fail.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        Self { time: Instant::now(), usage }
    }

    /// What was used between two.
    fn until(&self, end: &Self) -> Map<String, Value> {
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
        let cpu = |usage: &libc::rusage| seconds(usage.ru_utime) + seconds(usage.ru_stime);
        let mut report = Map::new();
        report.insert("seconds".into(), json!(end.time.duration_since(self.time).as_secs_f64()));
        report.insert("cpu_seconds".into(), json!(cpu(&end.usage) - cpu(&self.usage)));
        report.insert("minor_faults".into(), json!(end.usage.ru_minflt - self.usage.ru_minflt));
        report.insert("major_faults".into(), json!(end.usage.ru_majflt - self.usage.ru_majflt));
        report
    }
}

/// The most memory that the process ever had resident, in bytes; 0 where the system does not say.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}
