//! What only a pool has: the smallest segment in which work can be done, a small segment shared by many threads,
//! start-up and prefaulting, and what an operation costs as the segment and the number of live objects grow.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;

use mempool::bytes::Bytes;
use mempool_bench::{Mode, POOL_ROWS, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::child::{self, Ended};
use super::contenders::{Contender, POOL, SYSTEM};
use super::measure::{Effort, LIMIT, under, worker};
use super::progress::Progress;
use super::results::median;

/// One measurement: figures by what they are of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// What it is.
    pub name: String,
    /// The figures' unit.
    pub unit: String,
    /// What each figure is of, and it; None where it could not be measured.
    pub figures: Vec<(String, Option<f64>)>,
}

/// Halvings in the search for the smallest segment: to within a hundredth.
const HALVINGS: usize = 9;
/// Starts of which the median counts.
const STARTS: usize = 31;
/// Bytes that are prefaulted.
const READY: usize = 1 << 30;

/// A measurement, or two that belong together.
type Step<'a> = fn(&Bench<'a>) -> Vec<Measure>;
/// So many.
pub const STEPS: usize = 5;

/// Workers on the pool and on the system's allocator.
pub struct Bench<'a> {
    pool: &'a Contender,
    system: &'a Contender,
    scale: f64,
}

impl<'a> Bench<'a> {
    /// None where one of the two does not take part.
    pub fn new(all: &'a [Contender], scale: f64) -> Option<Self> {
        let find = |name: &str| all.iter().find(|contender| contender.name == name);
        Some(Self { pool: find(POOL)?, system: find(SYSTEM)?, scale })
    }

    /// Everything.
    pub fn measure(&self, progress: &Progress) -> Vec<Measure> {
        let steps: [(&str, Step<'a>); STEPS] = [
            ("smallest segments", |bench| vec![bench.fit(1), bench.fit(8)]),
            ("filling a segment", |bench| vec![bench.fill()]),
            ("start-up", |bench| vec![bench.start(), bench.prefault()]),
            ("segment sizes", |bench| vec![bench.segments()]),
            ("live objects", |bench| vec![bench.objects()]),
        ];
        let mut all = Vec::new();
        for (name, step) in steps {
            progress.at(name, POOL, 0);
            all.extend(step(self));
            progress.step();
        }
        all
    }

    /// A worker's report; None where it failed.
    fn work(&self, contender: &Contender, row: &Row, threads: usize, how: &How) -> Option<Value> {
        let effort = Effort { scale: self.scale, set: how.set.clone(), ..Effort::default() };
        let settings = how.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let contender = Contender { settings, ..contender.clone() };
        let file = child::scratch().ok()?;
        let mut command = worker(row, threads, &contender, &effort, &file)?;
        if how.count {
            command.arg("--count-live");
        }
        let ended = child::start(&mut command, LIMIT).and_then(child::Running::wait).ok()?;
        ended.failure().is_none().then(|| serde_json::from_str(&child::contents(file).ok()?).ok())?
    }

    /// The smallest segment in which each workload completes, over its peak live bytes.
    fn fit(&self, threads: usize) -> Measure {
        let rows = POOL_ROWS.iter().filter(|row| row.name.starts_with("fit-"));
        let figure = |row: &Row| {
            let counted = self.work(self.system, row, threads, &How { count: true, ..How::default() })?;
            let live = counted["peak_live_bytes"].as_u64()? as usize;
            let fits = |segment: usize| self.work(self.pool, row, threads, &How::with_segment(segment)).is_some();
            Some(smallest(live, 4 * live + (4 << 20), fits)? as f64 / live as f64)
        };
        let threads = if threads == 1 { "one thread".to_owned() } else { format!("{threads} threads") };
        Measure {
            name: format!("Smallest segment over peak live bytes, {threads}"),
            unit: "ratio".into(),
            figures: rows.map(|row| (row.workload.to_owned(), figure(row))).collect(),
        }
    }

    /// The share of small segments that is alive at the first refusal.
    fn fill(&self) -> Measure {
        let figure = |segment: usize, threads: usize| {
            let row = Row::find("fill")?;
            let report = self.work(self.pool, row, threads, &How::with_segment(segment))?;
            Some(report["live_bytes"].as_f64()? / segment as f64)
        };
        let cases = [(2 << 20, 1), (2 << 20, 8), (16 << 20, 8), (64 << 20, 8)];
        Measure {
            name: "Share of the segment that is alive at the first refusal, 20 sizes up to 1 KiB".into(),
            unit: "ratio".into(),
            figures: cases
                .map(|(segment, threads)| {
                    (format!("{:#}, {threads} threads", Bytes(segment)), figure(segment, threads))
                })
                .into(),
        }
    }

    /// What a pool adds to the start of a process.
    fn start(&self) -> Measure {
        let seconds = |contender: &Contender| {
            let times: Option<Vec<f64>> = (0..STARTS).map(|_| Some(run_true(contender)?.wall_seconds)).collect();
            median(&times?)
        };
        let pool = |segment: usize| Contender { settings: How::with_segment(segment).owned(), ..self.pool.clone() };
        let plain = seconds(self.system);
        let over = |segment: usize| Some((seconds(&pool(segment))? - plain?) * 1e3);
        Measure {
            name: "Start-up of a process on a lazily committed pool, over that of one without".into(),
            unit: "ms".into(),
            figures: [2 << 20, 512 << 20, 16 << 30].map(|size| (format!("{:#}", Bytes(size)), over(size))).into(),
        }
    }

    /// How fast a pool makes its memory ready, and how fast all processors can write to fresh memory.
    fn prefault(&self) -> Measure {
        let pool = |commit: &str| {
            let mut settings = How::with_segment(READY).owned();
            settings.push(("MEMPOOL_COMMIT".into(), commit.into()));
            let times: Option<Vec<f64>> = (0..5)
                .map(|_| Some(run_true(&Contender { settings: settings.clone(), ..self.pool.clone() })?.wall_seconds))
                .collect();
            median(&times?)
        };
        let gib = READY as f64 / f64::from(1 << 30);
        let ready = || Some(gib / (pool("eager")? - pool("lazy")?));
        let plain: Vec<f64> = (0..5).filter_map(|_| parallel_memset(READY)).map(|seconds| gib / seconds).collect();
        Measure {
            name: "Making 1 GiB ready".into(),
            unit: "GiB/s".into(),
            figures: vec![("pool".into(), ready()), ("memset by all processors".into(), median(&plain))],
        }
    }

    fn nanoseconds(&self, contender: &Contender, row: &Row, how: &How) -> Option<f64> {
        let each = |report: Value| Some(report["seconds"].as_f64()? * 1e9 / report["operations"].as_f64()?);
        let times: Option<Vec<f64>> = (0..3).map(|_| each(self.work(contender, row, 1, how)?)).collect();
        median(&times?)
    }

    /// What an operation costs in segments of many sizes.
    fn segments(&self) -> Measure {
        let sizes = [2 << 20, 16 << 20, 256 << 20, 4 << 30, 64 << 30, 1 << 40];
        let figure = |size: usize| self.nanoseconds(self.pool, Row::find("segments")?, &How::with_segment(size));
        let large = |size: usize| {
            let mut how = How::with_segment(size);
            how.set.extend([
                ("least".into(), 9_000),
                ("most".into(), 40_000),
                ("live".into(), 30),
                ("pairs".into(), 400_000),
            ]);
            self.nanoseconds(self.pool, Row::find("segments")?, &how)
        };
        let small = sizes.map(|size| (format!("up to 512 bytes, {:#}", Bytes(size)), figure(size)));
        let large = sizes.map(|size| (format!("9,000 to 40,000 bytes, {:#}", Bytes(size)), large(size)));
        Measure {
            name: "An operation against the size of the segment".into(),
            unit: "ns".into(),
            figures: small.into_iter().chain(large).collect(),
        }
    }

    /// What an operation costs among so many live objects.
    fn objects(&self) -> Measure {
        // 32 bytes each, and 16 for the worker's own list.
        let room = (memory() / 64).min(((1e8 * self.scale) as usize).max(100_000) + 1);
        let counts = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000].into_iter().filter(|n| *n < room);
        let figure = |contender: &Contender, count: usize| {
            let mut how = How { settings: vec![("MEMPOOL_SEGMENT", "12G".into())], ..How::default() };
            how.set.insert("live".into(), count);
            self.nanoseconds(contender, Row::find("objects")?, &how)
        };
        let both = |count: usize| {
            [self.pool, self.system]
                .map(|contender| (format!("{}, {count} objects", contender.name), figure(contender, count)))
        };
        Measure {
            name: "An operation against the number of live objects of 8 to 32 bytes".into(),
            unit: "ns".into(),
            figures: counts.flat_map(both).collect(),
        }
    }
}

/// How a worker is run.
#[derive(Clone, Debug, Default)]
struct How {
    settings: Vec<(&'static str, String)>,
    set: BTreeMap<String, usize>,
    count: bool,
}

impl How {
    /// On a pool that does not grow and refuses what it has not.
    fn with_segment(segment: usize) -> Self {
        let settings = [
            ("MEMPOOL_SEGMENT", segment.to_string()),
            ("MEMPOOL_MAX_SEGMENT", "0".into()),
            ("MEMPOOL_EXHAUSTED", "null".into()),
            // Nobody frees while the only thread waits.
            ("MEMPOOL_MAX_RETRIES", "0".into()),
        ];
        Self { settings: settings.into(), ..Self::default() }
    }

    fn owned(&self) -> Vec<(String, String)> {
        self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }
}

/// The smallest number from `low` to `high` that `fits`, to within 2^-[`HALVINGS`] of the range.
fn smallest(mut low: usize, mut high: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if !fits(high) {
        return None;
    }
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// A process that does nothing.
fn run_true(contender: &Contender) -> Option<Ended> {
    let mut command: Command = under("/bin/true".as_ref(), contender, Mode::Lazy, 1);
    command.stdout(Stdio::null());
    let ended = child::start(&mut command, LIMIT).and_then(child::Running::wait).ok()?;
    ended.failure().is_none().then_some(ended)
}

/// Bytes of memory that are to be had.
fn memory() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// Seconds in which all processors write to fresh memory, in huge OS pages where there are any.
fn parallel_memset(bytes: usize) -> Option<f64> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses a free place for a new mapping.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping is ours; advice changes no content.
    unsafe { libc::madvise(place, bytes, libc::MADV_HUGEPAGE) };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (begin, part) = (Instant::now(), bytes / threads);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let from = place as usize + thread * part;
            scope.spawn(move || {
                // SAFETY: each thread writes to a part of its own of the mapping.
                unsafe { std::ptr::write_bytes(std::hint::black_box(from as *mut u8), 1, part) };
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    // SAFETY: the mapping is ours, and its last user has ended.
    unsafe { libc::munmap(place, bytes) };
    Some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_is_found() {
        assert_eq!(smallest(100, 1_000, |n| n >= 1_001), None);
        let found = smallest(100, 1_000, |n| n >= 333).unwrap();
        assert!((333..336).contains(&found), "{found}");
        assert_eq!(smallest(100, 1_000, |_| true), Some(101));
    }

    #[test]
    fn fresh_memory_is_written() {
        assert!(parallel_memset(64 << 20).unwrap() > 0.0);
    }
}
