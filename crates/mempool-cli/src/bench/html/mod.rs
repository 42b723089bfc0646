//! The report as one page that needs nothing else: style and drawings are inside.

mod headline;
mod plot;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::contenders::{POOL, is_pool};
use super::results::{Figure, Outcome, PEAK, Quantiles, Report, Row, SECONDS, Summary};
use super::table::{QUANTILES, count, kernel_cell, size, time};
use plot::{Axis, Bar, Line, bars, escape, lines};

const STYLE: &str = include_str!("page.css");

/// The headline picture as a file of its own, in both light and dark.
pub fn picture(report: &Report) -> String {
    let (variables, rules) = STYLE.split_once("* { box-sizing").unwrap_or((STYLE, ""));
    let rules: String = rules.lines().filter(|line| line.starts_with("svg") || line.starts_with(".k")).collect();
    let paper = "svg { font: 12px system-ui, Arial, sans-serif; background: var(--paper); }";
    headline::picture(report, &format!("<style>{variables}{rules}{paper}</style>"))
}

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut body = String::new();
    head(&mut body, report);
    overview(&mut body, report);
    section(
        &mut body,
        report,
        "Time",
        "Medians; the thin line goes from the fastest run to the slowest. Short is fast; bars of more than four times the fastest are cut.",
        SECONDS,
        |s| time(s * 1e9),
    );
    latencies(&mut body, report);
    scaling(&mut body, report);
    section(
        &mut body,
        report,
        "Peak memory",
        "The most that was resident at once, in the whole process. Short is lean.",
        PEAK,
        size,
    );
    memory(&mut body, report);
    own(&mut body, report);
    tables(&mut body, report);
    foot(&mut body, report);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, \
         initial-scale=1\"><title>mempool bench</title><style>\n{STYLE}</style></head><body><main>\n{body}</main></body></html>\n"
    )
}

fn head(body: &mut String, report: &Report) {
    _ = writeln!(
        body,
        "<h1>mempool beside other allocators</h1><p class=\"note\">{}</p>",
        escape(&report.machine.line())
    );
    _ = writeln!(body, "<div class=\"tiles\">");
    let mut tile =
        |value: String, about: &str| _ = writeln!(body, "<div class=\"tile\"><b>{value}</b><span>{about}</span></div>");
    if let Some(time) = report.summary(SECONDS) {
        tile(format!("{:.2}", time.mean_to_best), "of the time of the best peer of each row (geometric mean)");
        let (ahead, rows) = time.duels.iter().fold((0, 0), |sum, duel| (sum.0 + duel.ahead, sum.1 + duel.rows));
        tile(format!("{:.0}%", 100.0 * ahead as f64 / rows.max(1) as f64), "of all comparisons with a peer are won");
        tile(format!("{:.2}", time.worst.1), &format!("in the worst row, {}", escape(&time.worst.0)));
    }
    if let Some(memory) = report.summary(PEAK) {
        tile(format!("{:.2}", memory.mean_to_best), "of the peak memory of the leanest peer of each row");
    }
    tile(report.rows.len().to_string(), &format!("rows, each under {} allocators in turn", report.contenders.len()));
    body.push_str("</div>\n");
}

/// Each peer over the pool.
fn means(summary: &Summary) -> String {
    let bar = |name: &str, value: f64| Bar { name: name.into(), value, low: value, high: value };
    let duels = summary.duels.iter().filter(|duel| duel.rows > 1);
    let mut all: Vec<Bar> = duels.map(|duel| bar(&duel.peer, 1.0 / duel.mean)).collect();
    all.push(bar(POOL, 1.0));
    bars(&mut all, &[], |ratio| format!("{ratio:.2}"))
}

/// The pool against each peer, over all rows.
fn overview(body: &mut String, report: &Report) {
    let Some(summary) = report.summary(SECONDS) else { return };
    body.push_str("<div class=\"grid\">\n");
    let about = "Geometric means of the rows that both have. Longer than the pool's is worse than the pool.";
    card(body, "Time over all rows, the pool's = 1", &means(&summary), about);
    let mut table = String::from(
        "<table><tr><th>against</th><th>time</th><th>ahead in</th><th>peak memory</th><th>ahead in</th></tr>",
    );
    let memory = report.summary(PEAK);
    if let Some(memory) = &memory {
        card(body, "Peak memory over all rows, the pool's = 1", &means(memory), about);
    }
    let memory = memory.map(|summary| summary.duels).unwrap_or_default();
    for duel in &summary.duels {
        let other = memory.iter().find(|other| other.peer == duel.peer);
        let cells = other.map_or("<td>-</td><td>-</td>".into(), |other| {
            format!("<td>{:.2}</td><td>{} of {}</td>", other.mean, other.ahead, other.rows)
        });
        _ = write!(
            table,
            "<tr><td>{}</td><td>{:.2}</td><td>{} of {}</td>{cells}</tr>",
            escape(&duel.peer),
            duel.mean,
            duel.ahead,
            duel.rows
        );
    }
    card(
        body,
        "The pool against each",
        &(table + "</table>"),
        "The pool's figure over the peer's (less is better), and in how many rows it is ahead.",
    );
    body.push_str("</div>\n");
    let about = "Each dot is a peer on a row, at its time over the pool's; right of the rule is slower than the pool. The \
                 axis is logarithmic.";
    let drawing = headline::picture(report, "");
    _ = writeln!(body, "<div class=\"card headline\"><h3>Every row, every peer</h3>{drawing}<p>{about}</p></div>");
}

fn card(body: &mut String, title: &str, drawing: &str, about: &str) {
    _ = writeln!(body, "<div class=\"card\"><h3>{}</h3>{drawing}<p>{}</p></div>", escape(title), escape(about));
}

fn section(body: &mut String, report: &Report, title: &str, about: &str, figure: Figure, show: fn(f64) -> String) {
    _ = writeln!(body, "<h2>{title}</h2><p class=\"note\">{about}</p><div class=\"grid\">");
    for row in &report.rows {
        let mut all: Vec<Bar> = row.results.iter().filter_map(|result| bar(result, figure)).collect();
        if all.is_empty() {
            continue;
        }
        let failed: Vec<String> =
            row.results.iter().filter(|result| result.error.is_some()).map(|result| result.contender.clone()).collect();
        let about = if title == "Time" { row.about.as_str() } else { "" };
        card(body, &row.label(), &bars(&mut all, &failed, show), about);
    }
    body.push_str("</div>\n");
}

fn bar(result: &Outcome, figure: Figure) -> Option<Bar> {
    let values = result.values(figure);
    let edge = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
    let value = result.median(figure).filter(|value| *value > 0.0)?;
    Some(Bar { name: result.contender.clone(), value, low: edge(f64::min)?, high: edge(f64::max)? })
}

/// Quantiles of single operations, on an axis of nines, times logarithmic.
fn latencies(body: &mut String, report: &Report) {
    let timed = |row: &&Row| row.results.iter().any(|result| result.latency("malloc", |q| q.p50).is_some());
    let rows: Vec<&Row> = report.rows.iter().filter(timed).collect();
    if rows.is_empty() {
        return;
    }
    _ = writeln!(
        body,
        "<h2>Latency of single operations</h2><p class=\"note\">How long the slowest of ten, a hundred, a thousand ... operations takes; both axes are logarithmic. The dashed line is an operation that does nothing, timed the same way in the pool's run: below it nobody can be, and what it shows is the machine's noise.</p><div class=\"grid\">"
    );
    for row in rows {
        for operation in ["malloc", "free"] {
            card(body, &format!("{operation}, {}", row.label()), &latency(row, operation), "");
        }
    }
    body.push_str("</div>\n");
}

/// Of several runs the one with the median p99.9.
fn typical<'a>(result: &'a Outcome, operation: &str) -> Option<&'a Quantiles> {
    let mut runs: Vec<&Quantiles> = result.runs.iter().filter_map(|run| run.latency_ns.get(operation)).collect();
    runs.sort_by(|one, other| one.p999.total_cmp(&other.p999));
    runs.get(runs.len() / 2).copied()
}

fn latency(row: &Row, operation: &str) -> String {
    let line = |name: &str, quantiles: &Quantiles| Line {
        name: name.into(),
        points: quantiles.curve.iter().map(|(nines, ns)| (*nines, ns.max(1.0).log10())).collect(),
    };
    let sound = row.results.iter().filter(|result| result.error.is_none());
    let mut all: Vec<Line> =
        sound.filter_map(|result| Some(line(&result.contender, typical(result, operation)?))).collect();
    all.extend(row.of(POOL).and_then(|pool| Some(line("empty", typical(pool, "empty")?))));
    let points = || all.iter().flat_map(|line| &line.points);
    let (low, high) = points().fold((f64::MAX, 0f64), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let nines = points().map(|point| point.0).fold(1.0, f64::max);
    let labels = ["best", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%", "99.99999%", "99.999999%"];
    let marks =
        labels.iter().enumerate().map(|(at, text)| (at as f64, (*text).to_owned())).take_while(|mark| mark.0 <= nines);
    let x = Axis { range: (0.0, nines), marks: marks.collect(), title: "share of operations" };
    lines(
        &all,
        &x,
        &Axis::logarithmic(10f64.powf(low), 10f64.powf(high), "", |ns| time(ns).replace(".00", "").replace(".0 ", " ")),
    )
}

/// Operations a second over the number of threads, for rows with several.
fn scaling(body: &mut String, report: &Report) {
    let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in report.rows.iter().filter(|row| row.threaded) {
        groups.entry(&row.name).or_default().push(row);
    }
    groups.retain(|_, rows| rows.len() > 1);
    if groups.is_empty() {
        return;
    }
    body.push_str("<h2>Threads</h2><p class=\"note\">Millions of operations a second, all threads together, over the number of threads. High is fast.</p><div class=\"grid\">\n");
    for (name, mut rows) in groups {
        rows.sort_by_key(|row| row.threads);
        card(body, name, &scaling_of(report, &rows), "");
    }
    body.push_str("</div>\n");
}

fn scaling_of(report: &Report, rows: &[&Row]) -> String {
    const RATE: Figure = |run| run.operations as f64 / run.seconds / 1e6;
    let point = |row: &&Row, name: &str| Some(((row.threads as f64).log2(), row.median(name, RATE)?));
    let all: Vec<Line> = (report.contenders.iter())
        .map(|known| Line {
            name: known.name.clone(),
            points: rows.iter().filter_map(|row| point(row, &known.name)).collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let most = all.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
    let ends = (rows.first().map_or(1, |row| row.threads) as f64, rows.last().map_or(1, |row| row.threads) as f64);
    let marks = rows.iter().map(|row| ((row.threads as f64).log2(), row.threads.to_string())).collect();
    let x = Axis { range: (ends.0.log2(), ends.1.log2()), marks, title: "threads" };
    lines(&all, &x, &Axis::linear(most, "", mark))
}

/// A mark's text: no more digits than it needs.
fn mark(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Resident memory over time, of rows that take long enough to be seen.
fn memory(body: &mut String, report: &Report) {
    const ENOUGH: usize = 8;
    let rows = report.rows.iter().filter(|row| row.of(POOL).is_some_and(|pool| pool.memory.len() >= ENOUGH));
    let rows: Vec<&Row> = rows.collect();
    if rows.is_empty() {
        return;
    }
    body.push_str("<h2>Memory over time</h2><p class=\"note\">Resident MiB of the process, over seconds since its start. A line ends where the work was done.</p><div class=\"grid\">\n");
    for row in rows {
        let points = |result: &Outcome| {
            result.memory.iter().map(|(s, bytes)| (*s, *bytes as f64 / f64::from(1 << 20))).collect()
        };
        let sound = row.results.iter().filter(|result| result.error.is_none() && !result.memory.is_empty());
        let all: Vec<Line> =
            sound.map(|result| Line { name: result.contender.clone(), points: points(result) }).collect();
        let most =
            |pick: fn(&(f64, f64)) -> f64| all.iter().flat_map(|line| &line.points).map(pick).fold(0.0, f64::max);
        let x = Axis::linear(most(|point| point.0), "seconds", mark);
        card(body, &row.label(), &lines(&all, &x, &Axis::linear(most(|point| point.1), "MiB", mark)), "");
    }
    body.push_str("</div>\n");
}

/// What only the pool has.
fn own(body: &mut String, report: &Report) {
    if report.pool.is_empty() {
        return;
    }
    body.push_str("<h2>What only a pool has</h2><div class=\"grid\">\n");
    for measure in &report.pool {
        let mut table = format!("<table><tr><th></th><th>{}</th></tr>", escape(&measure.unit));
        for (name, figure) in &measure.figures {
            _ = write!(table, "<tr><td>{}</td><td>{}</td></tr>", escape(name), figure.map_or("-".into(), count));
        }
        card(body, &measure.name, &(table + "</table>"), "");
    }
    body.push_str("</div>\n");
}

/// All figures, for who wants to know exactly.
fn tables(body: &mut String, report: &Report) {
    body.push_str("<h2>All figures</h2>\n");
    let ratio = |figure: Figure| {
        move |row: &Row, name: &str| row.ratio(name, figure).map_or("-".into(), |ratio| format!("{ratio:.2}"))
    };
    table(body, report, "Time, as ratios to the best peer", ratio(SECONDS));
    table(body, report, "Seconds of processor time", |row, name| {
        row.median(name, |run| run.cpu_seconds).map_or("-".into(), count)
    });
    table(body, report, "Millions of operations a second", |row, name| {
        let rate = row.median(name, |run| run.operations as f64 / run.seconds / 1e6);
        rate.filter(|rate| *rate > 0.0).map_or("-".into(), count)
    });
    let phases: BTreeSet<&str> = report.rows.iter().flat_map(Row::phases).collect();
    for phase in phases {
        table(body, report, &format!("Time of a part, summed over threads: {phase}"), |row, name| {
            row.of(name).and_then(|result| result.phase(phase)).map_or("-".into(), |seconds| time(seconds * 1e9))
        });
    }
    table(body, report, "Peak memory, as ratios to the leanest peer", ratio(PEAK));
    table(body, report, "Page faults / system calls for a million operations", kernel_cell);
    for (name, quantile) in QUANTILES {
        let timed =
            report.rows.iter().any(|row| row.results.iter().any(|result| result.latency("malloc", quantile).is_some()));
        if timed {
            table(body, report, &format!("Latency {name}: empty, malloc, free"), |row, contender| {
                let of = |operation| row.of(contender).and_then(|result| result.latency(operation, quantile)).map(time);
                of("malloc").map_or("-".into(), |malloc| {
                    format!("{}, {malloc}, {}", of("empty").unwrap_or_default(), of("free").unwrap_or_default())
                })
            });
        }
    }
}

fn table(body: &mut String, report: &Report, title: &str, cell: impl Fn(&Row, &str) -> String) {
    _ = write!(body, "<details><summary>{}</summary><div class=\"wide\"><table><tr><th></th>", escape(title));
    report.contenders.iter().for_each(|known| _ = write!(body, "<th>{}</th>", escape(&known.name)));
    body.push_str("</tr>");
    for row in &report.rows {
        _ = write!(body, "<tr><td>{}</td>", escape(&row.label()));
        for known in &report.contenders {
            let own = if is_pool(&known.name) { " class=\"own\"" } else { "" };
            _ = write!(body, "<td{own}>{}</td>", cell(row, &known.name));
        }
        body.push_str("</tr>");
    }
    body.push_str("</table></div></details>\n");
}

fn foot(body: &mut String, report: &Report) {
    _ = writeln!(
        body,
        "<h2>How it was measured</h2><p>Each run is a process of its own, in which the dynamic linker puts one allocator in place of malloc; \
        contenders take turns, {} rounds, {:.0} s in all. Checksums of what was read back are equal. mempool {}.</p><p><code>{}</code></p>",
        report.rounds,
        report.seconds,
        escape(&report.machine.version),
        escape(&report.command)
    );
    body.push_str("<table><tr><th>allocator</th><th>version</th></tr>");
    for known in &report.contenders {
        _ = write!(body, "<tr><td>{}</td><td>{}</td></tr>", escape(&known.name), escape(&known.version));
    }
    body.push_str("</table>\n");
    let missing =
        report.missing.iter().map(|missing| format!("{} was not found; to get it: {}", missing.name, missing.get));
    for line in missing.chain(report.failures(|_| true)).chain(report.notes.iter().cloned()) {
        _ = writeln!(body, "<p class=\"note\">{}</p>", escape(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&super::super::results::tests::sample());
        for part in
            ["<svg", "one x2", "jemalloc was not found", "prefers-color-scheme: dark", "<code>mempool bench</code>"]
        {
            assert!(page.contains(part), "no {part:?}");
        }
        for outside in ["https:", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} in the page");
        }
        assert_eq!(page.matches("<div").count(), page.matches("</div>").count());
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
