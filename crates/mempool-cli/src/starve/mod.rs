//! `mempool starve`: what a pool is good for, shown on one program.
//!
//! A worker does steady work while a hog in the same process takes every byte of address space that `RLIMIT_AS`
//! leaves, and goes on trying for more, so that what the worker gives back is gone. This happens twice, in a process of
//! its own each time: once with the worker on the C library's allocator, once on a pool made before the hog starts.
//!
//! ```text
//!   show ── starts ──> work (system)          board: shared memory; counts survive the worker's death
//!        ── starts ──> work (pool)            service: the requests;  hog: the thread that takes all
//!        ── prints <── report
//! ```
//!
//! *Limits:* `RLIMIT_AS` counts addresses, not memory, so the hog reserves and does not touch; the machine around
//! the process is left alone.
#![allow(unsafe_code)]

mod board;
mod hog;
mod records;
mod report;
mod service;

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use mempool::config::{Config, Exhausted};

use crate::failure::Failure;
use board::Board;
use report::{Outcome, Report};

/// What `mempool starve` was asked for. Sizes are bytes.
pub struct Plan {
    /// Length of each run.
    pub seconds: u64,
    /// Address space of the worker's process.
    pub limit: usize,
    /// The pool's segment.
    pub segment: usize,
    /// As JSON.
    pub json: bool,
}

/// What a worker's process was asked for.
pub struct WorkerOrder {
    /// On a pool, else on the C library's allocator.
    pub pool: bool,
    /// Length of the run.
    pub seconds: u64,
    /// Address space in bytes.
    pub limit: u64,
    /// The pool's segment in bytes.
    pub segment: u64,
    /// The file of the board.
    pub board: i32,
}

/// Address space that the process needs beside the segment: its own image, libraries, stacks, the C library's heap.
const ROOM: usize = 64 << 20;
/// Bytes of stack that are made real beforehand, since a stack cannot grow either when nothing is left.
const STACK: usize = 256 << 10;

/// Runs both workers and prints what became of them.
pub fn show(plan: &Plan) -> Result<ExitCode, Failure> {
    let least = plan.segment.saturating_add(ROOM);
    if plan.limit < least {
        let (limit, least) = (mempool::bytes::Bytes(plan.limit), mempool::bytes::Bytes(least));
        let message = format!("--limit is {limit}, but must be at least {least}: the segment and room for the process");
        return Err(Failure::own(message));
    }
    config(plan.segment).validate().map_err(Failure::own)?;
    let report = Report { plan, system: run_worker(plan, false)?, pool: run_worker(plan, true)? };
    let text = if plan.json { report.json() } else { report.table() };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::own(format_args!("standard output: {error}")))?;
    Ok(report.exit_code())
}

fn config(segment: usize) -> Config {
    Config::process().segment(segment).exhausted(Exhausted::Null).name("starve")
}

/// Starts a worker's process and waits for its end.
fn run_worker(plan: &Plan, pool: bool) -> Result<Outcome, Failure> {
    let (board, file) = board::create().map_err(|error| Failure::own(format_args!("shared memory: {error}")))?;
    let own = std::env::current_exe().map_err(|error| Failure::own(format_args!("the command's own file: {error}")))?;
    let numbers = [plan.seconds as i64, plan.limit as i64, plan.segment as i64, file.as_raw_fd().into()];
    let child = Command::new(own)
        .args(["starve-worker", if pool { "pool" } else { "system" }])
        .args(numbers.map(|number| number.to_string()))
        .env_remove(crate::library::PRELOAD)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| Failure::own(format_args!("cannot start the worker: {error}")))?;
    let status = watch(&mut child, &board, plan, pool)
        .map_err(|error| Failure::own(format_args!("cannot wait for the worker: {error}")))?;
    let mut said = Vec::new();
    if let Some(mut pipe) = child.stderr.take() {
        // What it said is only a part of the report.
        let _ = pipe.read_to_end(&mut said);
    }
    Ok(Outcome::new(&board, status, &String::from_utf8_lossy(&said)))
}

/// Waits for the worker with a progress line on a terminal, and kills it if it takes far longer than planned.
fn watch(child: &mut Child, board: &Board, plan: &Plan, pool: bool) -> std::io::Result<std::process::ExitStatus> {
    let terminal = std::io::stderr().is_terminal();
    let (start, most) = (Instant::now(), Duration::from_secs(plan.seconds * 10 + 20));
    loop {
        if let Some(status) = child.try_wait()? {
            if terminal {
                eprint!("\r\x1b[K");
            }
            return Ok(status);
        }
        if terminal {
            eprint!("\r{}\x1b[K", report::progress(board, pool, start.elapsed()));
        }
        if start.elapsed() > most {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The worker's process.
pub fn work(order: &WorkerOrder) -> Result<ExitCode, Failure> {
    let board = board::open(order.board).map_err(|error| Failure::own(format_args!("shared memory: {error}")))?;
    // The hog never ends and counts on it.
    let board = Box::leak(Box::new(board));
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_AS, order.limit)?;
    if order.pool {
        let segment = usize::try_from(order.segment).unwrap_or(usize::MAX);
        crate::ALLOCATOR
            .to_pool(&config(segment))
            .map_err(|error| Failure::own(format_args!("the pool cannot be made: {error}")).fix(error.hint()))?;
    }
    harden_stack();
    service::serve(board, order).map_err(Failure::own)?;
    Ok(ExitCode::SUCCESS)
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

/// Touches [`STACK`] bytes of the stack.
#[inline(never)]
fn harden_stack() {
    std::hint::black_box(&mut [1u8; STACK]);
}
