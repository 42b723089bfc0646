//! What `mempool size` prints.

use std::fmt::Write as _;
use std::io::Write as _;

use mempool::bytes::{Bytes, Compact};
use serde_json::{Value, json};

use super::bound::FORMULA;
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
        for process in found.processes.iter().filter(|process| process.number == most.number) {
            write_process(out, process, found)?;
        }
    }
    match found.processes.iter().filter(|process| process.pool == 0).count() {
        1 => {}
        more => writeln!(out, "the largest of {more} processes; --json has them all\n")?,
    }
    writeln!(out, "smallest     {:>12}  worked {} times", Bytes(found.smallest).to_string(), super::CONFIRMATIONS + 1)?;
    match found.too_small {
        0 => writeln!(out, "             nothing smaller is possible")?,
        low => writeln!(out, "             {} did not", Bytes(low))?,
    }
    let margin = match super::with_margin(found.smallest) {
        exact if exact == found.recommended => "a quarter more".to_owned(),
        quarter => format!("a quarter more, {}, rounded up to whole MiB", Bytes(quarter)),
    };
    let recommended = Bytes(found.recommended).to_string();
    writeln!(out, "recommended  {recommended:>12}  {margin}: for another day's input")?;
    if let Some(bound) = found.processes.iter().map(|process| process.bound).max_by_key(|bound| bound.segment) {
        if bound.segment > 0 {
            writeln!(
                out,
                "certain      {:>12}  suffices in every order, if no more is alive of anything at once",
                Bytes(bound.segment).to_string()
            )?;
        } else {
            writeln!(out, "certain      {:>12}  would have to be larger than any segment", "-")?;
        }
        writeln!(
            out,
            "             {FORMULA}: {} slabs {}, {} runs {}, gaps below {}",
            bound.slabs,
            Bytes(bound.slab_bytes),
            bound.runs,
            Bytes(bound.run_bytes),
            Bytes(bound.gap)
        )?;
        writeln!(
            out,
            "             no allocator that does not move objects can promise much less than {} (Robson 1974)",
            Bytes(bound.robson)
        )?;
    }
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

/// The settings that were given, on the segment found: without them the program may need another one.
fn settings_of(plan: &Plan, found: &Found) -> Vec<(&'static str, String)> {
    let sizes = ["MEMPOOL_SEGMENT", "MEMPOOL_MAX_SEGMENT"];
    let given = settings::variables(&plan.given).filter(|(variable, _)| !sizes.contains(variable));
    std::iter::once(("MEMPOOL_SEGMENT", Compact(found.recommended).to_string())).chain(given).collect()
}

fn write_process(out: &mut String, process: &Process, found: &Found) -> std::fmt::Result {
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
        "  peak segment {:>12}  up to the highest byte in use, without metadata",
        Bytes(process.top as usize).to_string()
    )?;
    if u64::from(found.first.process) == *number {
        writeln!(out, "  threads      {:>12}  at once, looked at every 2 ms", found.first.threads)?;
    }
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
        "threads": found.first.threads,
        "processes": processes,
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
        "holders": holders,
        "bound": {
            "segment": if bound.segment == 0 { Value::Null } else { bound.segment.into() },
            "formula": FORMULA,
            "slabs": bound.slabs, "slab_bytes": bound.slab_bytes,
            "runs": bound.runs, "run_bytes": bound.run_bytes,
            "gap": bound.gap, "local_heaps": bound.local,
            "robson_lower": bound.robson,
        },
    })
}
