//! `mempool bench`: workloads and real programs under the pool and under every other allocator at hand, side by side.
//!
//! ```text
//!   show ── contenders: who is there, who is missing
//!        ── tasks: rows x threads                     each a child process: worker (mempool-bench) or a program
//!        ── measure: rounds, A B C A B C ──────────>  report through an inherited file; wait4; /proc; ptrace
//!        ── results: medians, ratios ── table, JSON, HTML, Markdown
//! ```
//!
//! The command itself runs on the C library's allocator; the dynamic linker gives each child another one. So all run the
//! same code.
//!
//! *Limits:* Linux. Small machines and loaded ones show ratios, not times.
#![allow(unsafe_code)]

mod child;
mod contenders;
mod html;
mod machine;
mod markdown;
mod measure;
mod order;
mod pool;
mod programs;
mod progress;
mod results;
mod table;
mod trace;

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mempool_bench::ROWS;

use crate::ending::{self, Thing};
use crate::failure::Failure;
use crate::say::say;
use crate::terminal;
use contenders::{Contender, Missing};
use machine::Machine;
use measure::{Effort, Task, Work};
pub use order::{Order, WorkerOrder, command, order, worker_command, worker_order};
use results::Report;

/// The exit code when the pool, the system's allocator or a given peer failed or did not do all work right.
const SOMETHING_FAILED: u8 = 1;
/// A quick benchmark does so much of the work,
const QUICK_SCALE: f64 = 0.06;
/// begins no round that would end later,
const QUICK_TIME: Duration = Duration::from_secs(45);
/// and leaves out what takes longest to prepare.
const NOT_QUICK: [&str; 2] = ["replace-1e6", "steady-1e5"];

/// Measures and reports, or reports again what was measured.
pub fn show(order: &Order) -> Result<ExitCode, Failure> {
    if order.list {
        print(&list())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = match &order.from {
        Some(path) => read(path)?,
        None => measured(order)?,
    };
    write(order, &report)?;
    // A peer that was found and not asked for may fail: that is said, and says nothing about the pool.
    let asked = |name: &str| {
        contenders::is_pool(name) || name == contenders::SYSTEM || order.peers.iter().any(|(peer, _)| peer == name)
    };
    Ok(ExitCode::from(if report.failures(asked).is_empty() { 0 } else { SOMETHING_FAILED }))
}

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::own(format_args!("standard output: {error}")))
}

fn read(path: &Path) -> Result<Report, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::own(format_args!("{}: {error}", path.display()))
            .fix("give a file that `mempool bench --json FILE` wrote")
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    if report.format != results::FORMAT {
        return Err(failed(&format_args!("its format is {}, not {}", report.format, results::FORMAT)));
    }
    Ok(report)
}

fn write(order: &Order, report: &Report) -> Result<(), Failure> {
    let json = report.json().map_err(Failure::own)?;
    let save = |path: &Path, text: &str| {
        std::fs::write(path, text).map_err(|error| Failure::own(format_args!("{}: {error}", path.display())))
    };
    match order.json.as_deref() {
        Some(path) if path.as_os_str() == "-" => print(&json)?,
        path => {
            print(&table::text(report, &table::Colours::new(terminal::has_colours(&std::io::stdout()))))?;
            path.map_or(Ok(()), |path| save(path, &json))?;
        }
    }
    if let Some(path) = &order.markdown {
        let failed = |error: &dyn std::fmt::Display| Failure::own(format_args!("{}: {error}", path.display()));
        let document = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        save(path, &markdown::placed(&document, report).map_err(|error| failed(&error))?)?;
    }
    let page = order.html.iter().map(|path| (path, html::page(report)));
    for (path, text) in page.chain(order.picture.iter().map(|path| (path, html::picture(report)))) {
        save(path, &text)?;
    }
    Ok(())
}

/// All rows and programs, with what they stand for and what they can be given.
fn list() -> String {
    let mut text = String::new();
    for row in ROWS {
        let workload = row.workload();
        let given = |name: &str| row.given.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        text += &format!("{}{}\n  {}\n", row.name, if row.is_threaded() { ", threaded" } else { "" }, workload.about);
        for parameter in workload.parameters {
            let value = given(parameter.name).unwrap_or(parameter.default);
            text += &format!("    --set {}={value}: {}\n", parameter.name, parameter.about);
        }
    }
    text + "redis, sqlite, python, gcc\n  Real programs.\n"
}

fn measured(order: &Order) -> Result<Report, Failure> {
    contenders::check_settings()?;
    ending::by_signal();
    let begin = Instant::now();
    let machine = Machine::here();
    let folder = Folder::new()?;
    let (all, missing) = contenders::find(&order.peers, !order.quick && order.program.is_none())?;
    let all = chosen(all, order)?;
    let effort = Effort {
        rounds: order.rounds.unwrap_or(if order.quick { 3 } else { 5 }),
        scale: order.scale.unwrap_or(if order.quick { QUICK_SCALE } else { 1.0 }),
        set: order.set.clone(),
        calls: !order.quick && order.program.is_none(),
        time: order.quick.then_some(QUICK_TIME),
    };
    let (tasks, notes) = tasks(order, &all, &effort, &folder)?;
    warn(&missing, &notes);
    let each: usize = tasks.iter().map(|task| task.contenders.len()).sum();
    let steps = each * (effort.rounds + usize::from(effort.calls)) + if order.pool { pool::STEPS } else { 0 };
    let progress = progress::Progress::new(steps, effort.rounds);
    let rows = measure::measure(&tasks, &effort, &progress);
    let pool = pool::Bench::new(&all, effort.scale).filter(|_| order.pool).map(|bench| bench.measure(&progress));
    progress.end();
    let mut known: Vec<contenders::Known> = all.iter().map(Contender::known).collect();
    for contender in tasks.iter().flat_map(|task| &task.contenders) {
        if !known.iter().any(|known| known.name == contender.name) {
            known.push(contender.known());
        }
    }
    Ok(Report {
        format: results::FORMAT,
        command: order.line.clone(),
        machine,
        rounds: effort.rounds,
        scale: effort.scale,
        seconds: begin.elapsed().as_secs_f64(),
        contenders: known,
        missing,
        notes,
        rows,
        pool: pool.unwrap_or_default(),
    })
}

/// Says at once who cannot take part, not only in the report.
fn warn(missing: &[Missing], notes: &[String]) {
    for missing in missing {
        say(format_args!("mempool: not found: {}; to get it: {}\n", missing.name, missing.get));
    }
    notes.iter().for_each(|note| say(format_args!("mempool: {note}\n")));
}

/// Those that `--allocators` names, in its order; all without.
fn chosen(all: Vec<Contender>, order: &Order) -> Result<Vec<Contender>, Failure> {
    if order.allocators.is_empty() {
        return Ok(all);
    }
    let find = |name: &String| {
        all.iter().find(|contender| contender.name == *name).cloned().ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|contender| contender.name.as_str()).collect();
            Failure::own(format_args!("no allocator {name}")).fix(format_args!("there are {}", known.join(", ")))
        })
    };
    order.allocators.iter().map(find).collect()
}

/// Rows and programs to be measured, and notes on what cannot be.
fn tasks(
    order: &Order,
    all: &[Contender],
    effort: &Effort,
    folder: &Folder,
) -> Result<(Vec<Task>, Vec<String>), Failure> {
    if let Some((program, arguments)) = &order.program {
        let path = crate::program::find(program)?;
        crate::program::check(&path)?;
        let work = Work::Program(programs::Program::own(path, arguments.clone()));
        return Ok((vec![Task { work, threads: 1, contenders: all.to_vec() }], Vec::new()));
    }
    let mut tasks = Vec::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if order.threads.is_empty() { vec![cores] } else { order.threads.clone() };
    let static_rows = ROWS.iter().filter_map(|row| mempool_bench::Row::find(row.name));
    for row in static_rows.filter(|row| order.wants(row.name, order.quick && NOT_QUICK.contains(&row.name))) {
        row.job(1, 1.0, &order.set).map_err(Failure::own)?;
        let contenders = with_suppliers(row, all);
        for threads in if row.is_threaded() { threads.as_slice() } else { &[1] } {
            tasks.push(Task { work: Work::Workload(row), threads: *threads, contenders: contenders.clone() });
        }
    }
    let failed = |error| Failure::own(format_args!("{}: {error}", folder.path.display()));
    let (programs, notes) = programs::all(&folder.path, effort.scale).map_err(failed)?;
    for program in programs.into_iter().filter(|program| order.wants(&program.name, order.quick)) {
        tasks.push(Task { work: Work::Program(program), threads: 1, contenders: all.to_vec() });
    }
    if tasks.is_empty() && !order.pool {
        let failure = Failure::own(format_args!("--only {} matches no row", order.only.join(",")));
        return Err(failure.fix("`mempool bench --list` shows all"));
    }
    Ok((tasks, if order.quick { Vec::new() } else { notes }))
}

/// For named caches, the pool serves from its own, and slab crates join in.
fn with_suppliers(row: &mempool_bench::Row, all: &[Contender]) -> Vec<Contender> {
    let suppliers = row.suppliers();
    if suppliers.is_empty() {
        return all.to_vec();
    }
    let caches = |contender: &Contender| match contender.name.as_str() {
        contenders::POOL => Some(Contender::supplier("pool")),
        _ if contender.is_pool() => None,
        _ => Some(contender.clone()),
    };
    let crates = suppliers.iter().filter(|name| **name != "pool").map(|name| Contender::supplier(name));
    all.iter().filter_map(caches).chain(crates).collect()
}

/// A folder of this benchmark alone, which disappears with it.
struct Folder {
    path: PathBuf,
    _kept: ending::Kept,
}

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("mempool-bench-{}", std::process::id()));
        let made = ending::keep(|| std::fs::create_dir_all(&path), |()| Thing::Folder(path.clone()));
        let ((), kept) = made.map_err(|error| Failure::own(format_args!("{}: {error}", path.display())))?;
        Ok(Self { path, _kept: kept })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Does a workload in this process and writes the report to the inherited file.
pub fn work(order: &WorkerOrder) -> Result<ExitCode, Failure> {
    // Who starts a worker by hand may name libraries in other ways.
    if order.report.is_some() {
        crate::library::check_serves()?;
    }
    let row = mempool_bench::Row::find(&order.row).ok_or_else(|| Failure::own(format_args!("no row {}", order.row)))?;
    let mut job = row.job(order.threads, order.scale, &order.set).map_err(Failure::own)?;
    if let Some(supplier) = &order.supplier {
        job.supplier = supplier.clone();
    }
    if order.count_live {
        mempool_bench::family::count_live();
    }
    let report = format!("{:#}\n", job.run());
    let written = match order.report {
        Some(number) => into_inherited(number).write_all(report.as_bytes()),
        None => std::io::stdout().lock().write_all(report.as_bytes()),
    };
    written.map_err(|error| Failure::own(format_args!("the report: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

fn into_inherited(number: i32) -> File {
    // SAFETY: the number is that of a file that this process inherited for this purpose alone.
    unsafe { File::from_raw_fd(number) }
}
