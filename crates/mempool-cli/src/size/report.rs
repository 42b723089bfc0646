//! What `mempool size` prints.

use std::fmt::Write as _;
use std::io::Write as _;

use mempool::bytes::{Bytes, Compact};
use mempool::config::SEGMENT_LEAST;
use mempool::process::board;
use serde_json::{Value, json};

use super::bound::{Bound, FORMULA};
use super::{Found, Plan, Process};
use crate::failure::Failure;
use crate::{settings, shell};

/// Holders that the table lists per process.
const ROWS: usize = 12;

/// To standard output.
pub fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::own(format_args!("standard output: {error}")))
}

/// For people.
pub fn table(plan: &Plan, found: &Found) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut text, plan, found);
    text
}

fn write_table(out: &mut String, plan: &Plan, found: &Found) -> std::fmt::Result {
    // Each has a segment of its own, and one setting serves all: the one that needs most counts.
    if let Some(most) = found.processes.iter().max_by_key(|process| process.top) {
        for process in found.processes.iter().filter(|process| process.is_with(most)) {
            write_process(out, process)?;
        }
    }
    match found.processes.iter().filter(|process| process.pool == 0).count() {
        1 => {}
        more => writeln!(out, "the largest of {more} programs that ran; --json has them all\n")?,
    }
    let forked: u64 = found.processes.iter().map(|process| process.forked).sum();
    if forked > 0 {
        let what = "asked for before they ran a program or ended";
        writeln!(out, "not counted: what forked children ({forked}) {what}; \"certain\" leaves it out\n")?;
    }
    if found.unseen > 0 {
        let (unseen, most) = (found.unseen, board::AREAS);
        writeln!(out, "not counted: {unseen} pools more than the first {most}; \"certain\" leaves them out\n")?;
    }
    writeln!(out, "smallest     {:>12}  worked {} times", Bytes(found.smallest).to_string(), super::CONFIRMATIONS + 1)?;
    match found.too_small {
        0 if found.smallest <= SEGMENT_LEAST => writeln!(out, "             no segment is smaller")?,
        0 => writeln!(
            out,
            "             less than {} percent above what is alive at once, below which none can do",
            plan.percent
        )?,
        low => writeln!(out, "             {} did not", Bytes(low))?,
    }
    let margin = match super::with_margin(found.smallest) {
        exact if exact == found.recommended => "a quarter more".to_owned(),
        quarter => format!("a quarter more, {}, rounded up to whole MiB", Bytes(quarter)),
    };
    let recommended = Bytes(found.recommended).to_string();
    writeln!(out, "recommended  {recommended:>12}  {margin}: for another day's input")?;
    write_bound(out, found)?;
    let (runs, seconds) = (found.runs, found.elapsed.as_secs_f64());
    writeln!(
        out,
        "\n{runs} runs in {seconds:.1} s, each with {}{}. Now:",
        found.first.end,
        match found.first.end {
            crate::watch::End::Code(0) => "",
            _ => " (is that how it should end?)",
        }
    )?;
    writeln!(out, "  {}", shell::run(&settings_of(plan, found), &plan.subject))
}

/// The bound of the process that has the largest, and what its letters stand for.
fn write_bound(out: &mut String, found: &Found) -> std::fmt::Result {
    // 0 is beyond all segments.
    let Some(process) = found.processes.iter().max_by_key(|process| process.bound.segment.wrapping_sub(1)) else {
        return Ok(());
    };
    let Bound { slot, slabs, empty, runs, run_bytes, gap, threads, local, segment, robson } = process.bound;
    let whose = if found.processes.len() > 1 {
        format!(" (process {}, {})", process.number, process.name)
    } else {
        String::new()
    };
    if segment > 0 {
        let segment = Bytes(segment).to_string();
        writeln!(
            out,
            "certain      {segment:>12}  suffices in every order, if no more is alive at once of anything{whose}"
        )?;
    } else {
        writeln!(out, "certain      {:>12}  would have to be larger than any segment{whose}", "-")?;
    }
    writeln!(out, "             {FORMULA}, and metadata, where")?;
    let (s, h) = (Bytes(slot), Bytes(local));
    writeln!(
        out,
        "             s = {s} (a slot: a slab is no larger), S = {slabs} (slabs, {empty} of which may be empty),"
    )?;
    write!(out, "             T = {threads} (threads), h = {h} (the local heap of each), ")?;
    if runs == 0 {
        writeln!(out, "R = L = g = 0 (all objects lie in slabs)")?;
    } else {
        let (l, g) = (Bytes(run_bytes), Bytes(gap));
        writeln!(out, "R = {runs} (objects with a run of their own),")?;
        writeln!(out, "             L = {l} (these, in all), g = {g} (a gap too short for the longest of these)")?;
    }
    writeln!(
        out,
        "             by its peak and its largest object alone no allocator that moves nothing can promise much less than {} (Robson 1974)",
        Bytes(robson)
    )
}

/// The settings that were given, on the segment found: without them the program may need another one.
fn settings_of(plan: &Plan, found: &Found) -> Vec<(&'static str, String)> {
    let sizes = ["MEMPOOL_SEGMENT", "MEMPOOL_MAX_SEGMENT"];
    let given = settings::variables(&plan.given).filter(|(variable, _)| !sizes.contains(variable));
    std::iter::once(("MEMPOOL_SEGMENT", Compact(found.recommended).to_string())).chain(given).collect()
}

fn write_process(out: &mut String, process: &Process) -> std::fmt::Result {
    let Process { name, number, requests, all, .. } = process;
    let pool = if process.pool == 0 { "" } else { ", its own pool" };
    let largest = Bytes(process.largest as usize);
    writeln!(out, "process {number} ({name}){pool}: {requests} requests, the largest {largest}")?;
    writeln!(
        out,
        "  peak live    {:>12}  in items and runs; {} objects at most",
        Bytes(all.bytes as usize).to_string(),
        all.objects
    )?;
    writeln!(
        out,
        "  peak segment {:>12}  up to the highest byte in use, in a pool with room",
        Bytes(process.top as usize).to_string()
    )?;
    writeln!(out, "  threads      {:>12}  at most at once, of those that asked for memory", process.threads)?;
    writeln!(out, "  {:<24} {:>12} {:>14}", "peaks by holder", "objects", "bytes")?;
    let mut holders: Vec<_> = process.holders.iter().collect();
    holders.sort_by_key(|peak| std::cmp::Reverse(peak.bytes));
    for peak in holders.iter().take(ROWS) {
        writeln!(out, "  {:<24} {:>12} {:>14}", peak.holder, peak.objects, peak.bytes)?;
    }
    if holders.len() > ROWS {
        writeln!(out, "  and {} more, see --json", holders.len() - ROWS)?;
    }
    writeln!(out)
}

/// For programs.
pub fn json(plan: &Plan, found: &Found) -> String {
    let processes: Vec<Value> = found.processes.iter().map(process_json).collect();
    let all = json!({
        "program": plan.subject.program.to_string_lossy(),
        "end": found.first.end.to_string(),
        "processes": processes,
        "unseen": found.unseen,
        "smallest": found.smallest,
        "too_small": found.too_small,
        "recommended": found.recommended,
        "runs": found.runs,
        "seconds": found.elapsed.as_secs_f64(),
    });
    format!("{all:#}\n")
}

fn process_json(process: &Process) -> Value {
    let bound = process.bound;
    let holders: Vec<Value> = process
        .holders
        .iter()
        .map(|peak| json!({"holder": peak.holder, "peak_objects": peak.objects, "peak_bytes": peak.bytes}))
        .collect();
    json!({
        "process": process.number,
        "name": process.name,
        "pool": process.pool,
        "requests": process.requests,
        "largest_request": process.largest,
        "peak_objects": process.all.objects,
        "peak_bytes": process.all.bytes,
        "peak_segment": process.top,
        "threads": process.threads,
        "forked": process.forked,
        "holders": holders,
        "bound": {
            "segment": if bound.segment == 0 { Value::Null } else { bound.segment.into() },
            "formula": FORMULA,
            // What the letters stand for.
            "s": "slot", "S": "slabs", "T": "threads", "h": "local_heap", "R": "runs", "L": "run_bytes", "g": "gap",
            "slot": bound.slot, "slabs": bound.slabs, "empty_slabs": bound.empty,
            "threads": bound.threads, "local_heap": bound.local,
            "runs": bound.runs, "run_bytes": bound.run_bytes, "gap": bound.gap,
            "robson_lower": bound.robson,
        },
    })
}
