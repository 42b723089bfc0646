//! What `mempool drill` prints: sites by verdict, the worst first.

use std::fmt::Write as _;

use mempool::bytes::Bytes;
use serde_json::{Value, json};

use super::{Findings, Plan, Trial, Verdict};
use crate::shell;
use crate::watch::signal_name;

/// The trials of one site that came to the same.
struct Row<'a> {
    verdict: Verdict,
    /// The first of them.
    first: &'a Trial,
    trials: usize,
}

/// Trials by verdict and site, the worst first, in the order of their requests.
fn rows(findings: &Findings) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for trial in &findings.trials {
        let same = |row: &&mut Row<'_>| row.verdict == trial.verdict && row.first.site.is_same(&trial.site);
        match rows.iter_mut().find(same) {
            Some(row) => row.trials += 1,
            None => rows.push(Row { verdict: trial.verdict, first: trial, trials: 1 }),
        }
    }
    rows.sort_by_key(|row| (row.verdict, row.first.request));
    rows
}

fn words(verdict: Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Crashed(signal) => ("crashed", signal_name(signal)),
        Verdict::Hung => ("hung", String::new()),
        Verdict::Wrong(code) => ("wrong", format!("exit code {code}")),
        Verdict::GaveUp(code) => ("gave up", format!("exit code {code}")),
        Verdict::Handled => ("handled", String::new()),
    }
}

/// For people.
pub fn table(plan: &Plan, findings: &Findings) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut text, plan, findings);
    text
}

fn write_table(out: &mut String, plan: &Plan, findings: &Findings) -> std::fmt::Result {
    let Findings { usual, requests, before, places, trials, missed, left_out, elapsed } = findings;
    let program = plan.subject.program.display();
    writeln!(
        out,
        "{program}: {requests} requests, {before} before its start, the others from {places} places; without a refusal it ends with {usual}"
    )?;
    writeln!(out, "{} runs with one refusal each, in {:.1} s\n", trials.len(), elapsed.as_secs_f64())?;
    writeln!(out, "{:<8} {:<13} {:>5} {:>9} {:>10}  site", "verdict", "", "runs", "request", "bytes")?;
    let rows = rows(findings);
    for row in &rows {
        let (verdict, detail) = words(row.verdict);
        let Trial { request, size, site, .. } = row.first;
        let bytes = if *size == 0 { "-".to_owned() } else { Bytes(*size as usize).to_string() };
        writeln!(out, "{verdict:<8} {detail:<13} {:>5} {request:>9} {bytes:>10}  {}", row.trials, site.short())?;
        if row.verdict.is_bad() {
            for frame in site.frames.iter().rev().skip(1) {
                writeln!(out, "{:>51}by {}", "", frame.short())?;
            }
        }
    }
    let bad = rows.iter().filter(|row| row.verdict.is_bad()).count();
    writeln!(out)?;
    if *missed > 0 {
        writeln!(
            out,
            "{missed} runs did not reach their request: the program does not ask in the same order each time"
        )?;
    }
    if *left_out > 0 {
        writeln!(out, "{left_out} requests were left out; --max says how many are tried")?;
    }
    match rows.iter().find(|row| row.verdict.is_bad()) {
        Some(row) => {
            writeln!(out, "{bad} sites cannot bear a refusal. To see the first:")?;
            let settings = super::values(plan, "MEMPOOL_FAIL_NTH", row.first.request);
            writeln!(out, "  {}", shell::run(&settings, &plan.subject))
        }
        None if rows.is_empty() && requests == before => {
            writeln!(
                out,
                "nothing was tried: it asks for nothing itself, and --all alone refuses what comes before its start"
            )
        }
        None if rows.is_empty() => writeln!(out, "no request was refused, so nothing is known"),
        None => writeln!(out, "every site tried can bear a refusal"),
    }
}

/// For programs.
pub fn json(plan: &Plan, findings: &Findings) -> String {
    let sites: Vec<Value> = rows(findings).iter().map(row_json).collect();
    let all = json!({
        "program": plan.subject.program.to_string_lossy(),
        "usual": findings.usual.to_string(),
        "requests": findings.requests,
        "before": findings.before,
        "places": findings.places,
        "runs": findings.trials.len(),
        "missed": findings.missed,
        "left_out": findings.left_out,
        "seconds": findings.elapsed.as_secs_f64(),
        "sites": sites,
    });
    format!("{all:#}\n")
}

fn row_json(row: &Row<'_>) -> Value {
    let (verdict, detail) = words(row.verdict);
    let frames: Vec<Value> = row
        .first
        .site
        .frames
        .iter()
        .map(|frame| json!({"function": frame.function, "line": frame.line, "module": frame.module, "offset": frame.offset}))
        .collect();
    json!({
        "verdict": verdict,
        "detail": detail,
        "runs": row.trials,
        "request": row.first.request,
        "bytes": row.first.size,
        "site": row.first.site.short(),
        "frames": frames,
        "said": row.first.said,
    })
}
