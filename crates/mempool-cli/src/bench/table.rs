//! The report for people, on a terminal: ratios to the best peer, one row a line.

use std::fmt::Write;

use super::contenders::POOL;
use super::results::{CPU, FAULTS, Figure, PEAK, Quantiles, Report, Row, SECONDS, quantile};

/// Bold, green, red and plain, or nothing.
pub struct Colours([&'static str; 4]);

impl Colours {
    /// Colours where `wanted`.
    pub const fn new(wanted: bool) -> Self {
        Self(if wanted { ["\x1b[1m", "\x1b[32m", "\x1b[31m", "\x1b[0m"] } else { [""; 4] })
    }
}

/// The whole text.
pub fn text(report: &Report, colours: &Colours) -> String {
    let mut text = String::new();
    let [bold, .., plain] = colours.0;
    for missing in &report.missing {
        _ = writeln!(text, "not found: {}; to get it: {}", missing.name, missing.get);
    }
    _ = writeln!(text, "{}\n", report.machine.line());
    if !report.rows.is_empty() {
        rows(&mut text, report, colours);
    }
    for measure in &report.pool {
        _ = writeln!(text, "\n{bold}{}{plain}, {}", measure.name, measure.unit);
        for (name, figure) in &measure.figures {
            _ = writeln!(text, "  {name:<40} {:>10}", figure.map_or("-".into(), count));
        }
    }
    summary(&mut text, report, colours);
    for line in report.failures(|_| true).iter().chain(&report.notes) {
        _ = writeln!(text, "{line}");
    }
    text
}

/// The tables of the rows.
fn rows(text: &mut String, report: &Report, colours: &Colours) {
    let [bold, .., plain] = colours.0;
    _ = writeln!(
        text,
        "{bold}Time{plain}, medians of {} rounds, as ratios to the best peer (less is better)",
        rounds(report)
    );
    figures(text, report, SECONDS, "pool", |seconds| time(seconds * 1e9), colours);
    if report.rows.iter().any(|row| row.ratio(POOL, PEAK).is_some()) {
        _ = writeln!(text, "\n{bold}Peak memory{plain}, as ratios to the leanest peer");
        figures(text, report, PEAK, "pool", size, colours);
    }
    latencies(text, report, colours);
    phases(text, report, colours);
    kernel(text, report, colours);
}

fn rounds(report: &Report) -> usize {
    let runs = report.rows.iter().flat_map(|row| &row.results).map(|result| result.runs.len());
    runs.max().unwrap_or(report.rounds)
}

/// One table: the pool's own figure with its spread, then every contender's ratio to the best peer.
fn figures(
    text: &mut String,
    report: &Report,
    figure: Figure,
    title: &str,
    show: fn(f64) -> String,
    colours: &Colours,
) {
    let [bold, green, red, plain] = colours.0;
    let width = report.rows.iter().map(|row| row.label().len()).max().unwrap_or(0).max(8);
    _ = write!(text, "{:width$} {title:>10} {:>7}", "", "spread");
    for known in &report.contenders {
        _ = write!(text, " {:>9}", cut(&known.name, 9));
    }
    text.push('\n');
    for row in &report.rows {
        let own = row.median(POOL, figure).filter(|own| *own > 0.0).map_or("-".into(), show);
        _ = write!(text, "{:width$} {own:>10} {:>7}", row.label(), spread(row, figure));
        for known in &report.contenders {
            let ratio = row.ratio(&known.name, figure);
            let failed = row.of(&known.name).is_some_and(|result| result.error.is_some());
            let shown = ratio.map_or(if failed { "failed".into() } else { "-".into() }, |ratio| format!("{ratio:.2}"));
            let colour = match (known.name == POOL, ratio) {
                (true, Some(ratio)) if ratio <= 1.0 => green,
                (true, Some(_)) => red,
                (false, Some(1.0)) => bold,
                _ if failed => red,
                _ => "",
            };
            _ = write!(text, " {colour}{shown:>9}{}", if colour.is_empty() { "" } else { plain });
        }
        text.push('\n');
    }
}

/// Half of the pool's runs lie within so many percent.
fn spread(row: &Row, figure: Figure) -> String {
    let values = row.of(POOL).map(|result| result.values(figure)).unwrap_or_default();
    let part = || Some((quantile(&values, 0.75)? - quantile(&values, 0.25)?) / quantile(&values, 0.5)?);
    part().filter(|part| part.is_finite()).map_or("-".into(), |part| format!("{:.0}%", part * 100.0))
}

/// A quantile of a run.
pub type Quantile = fn(&Quantiles) -> f64;

/// Names and quantiles as they are printed.
pub const QUANTILES: [(&str, Quantile); 5] =
    [("p50", |q| q.p50), ("p99", |q| q.p99), ("p99.9", |q| q.p999), ("p99.99", |q| q.p9999), ("max", |q| q.max)];

fn latencies(text: &mut String, report: &Report, colours: &Colours) {
    let [bold, .., plain] = colours.0;
    for row in &report.rows {
        if row.results.iter().all(|result| result.latency("malloc", |q| q.p50).is_none()) {
            continue;
        }
        _ = writeln!(
            text,
            "\n{bold}Latency{plain} of single operations in {}: an empty operation timed the same way, malloc, free",
            row.label()
        );
        for known in &report.contenders {
            let Some(result) = row.of(&known.name).filter(|result| result.error.is_none()) else { continue };
            _ = write!(text, "  {:<10}", cut(&known.name, 10));
            for (name, quantile) in QUANTILES {
                let of = |operation| result.latency(operation, quantile).map_or("-".into(), time);
                _ = write!(text, "  {name} {} {} {}", of("empty"), of("malloc"), of("free"));
            }
            text.push('\n');
        }
    }
}

/// Parts of the work, of rows that have them.
fn phases(text: &mut String, report: &Report, colours: &Colours) {
    let [bold, .., plain] = colours.0;
    for row in &report.rows {
        for phase in row.phases() {
            _ = write!(text, "\n{bold}{}, {phase}{plain}:", row.label());
            for result in &row.results {
                let shown = result.phase(phase).map_or("-".into(), |seconds| time(seconds * 1e9));
                _ = write!(text, " {} {shown},", result.contender);
            }
            text.pop();
        }
    }
    text.push('\n');
}

/// Faults and system calls of the measured part, per million operations.
fn kernel(text: &mut String, report: &Report, colours: &Colours) {
    let [bold, .., plain] = colours.0;
    let counted = report.rows.iter().flat_map(|row| &row.results).any(|result| result.calls.is_some());
    let what = if counted { "page faults / system calls" } else { "page faults" };
    _ = writeln!(text, "\n{bold}Kernel{plain}, {what} for a million operations");
    let width = report.rows.iter().map(|row| row.label().len()).max().unwrap_or(0).max(8);
    _ = write!(text, "{:width$}", "");
    report.contenders.iter().for_each(|known| _ = write!(text, " {:>13}", cut(&known.name, 13)));
    text.push('\n');
    for row in report.rows.iter().filter(|row| !row.program) {
        _ = write!(text, "{:width$}", row.label());
        for known in &report.contenders {
            _ = write!(text, " {:>13}", kernel_cell(row, &known.name));
        }
        text.push('\n');
    }
}

/// Faults, and calls where they were counted, of a million operations.
pub fn kernel_cell(row: &Row, contender: &str) -> String {
    let Some(result) = row.of(contender).filter(|result| result.error.is_none()) else { return "-".into() };
    let operations = result.runs.first().map_or(0, |run| run.operations).max(1) as f64;
    let faults = result.median(FAULTS).map_or("-".into(), |faults| count(faults / operations * 1e6));
    match result.calls {
        Some(calls) => format!("{faults} / {}", count(calls.count as f64 / calls.operations.max(1) as f64 * 1e6)),
        None => faults,
    }
}

fn summary(text: &mut String, report: &Report, colours: &Colours) {
    let [bold, green, red, plain] = colours.0;
    for (title, figure) in [("time", SECONDS), ("processor time", CPU), ("peak memory", PEAK)] {
        let Some(summary) = report.summary(figure) else { continue };
        let colour = if summary.mean_to_best <= 1.0 { green } else { red };
        _ = writeln!(
            text,
            "\n{bold}The pool's {title}{plain} is {colour}{:.2}{plain} of the best peer's (geometric mean of the rows); the worst row is {} with {:.2}",
            summary.mean_to_best, summary.worst.0, summary.worst.1
        );
        // What is said of time holds of processor time, but where threads wait.
        for duel in summary.duels.iter().filter(|_| title != "processor time") {
            let share = 100.0 * duel.ahead as f64 / duel.rows.max(1) as f64;
            _ = writeln!(
                text,
                "  against {:<12} {:.2}, ahead in {} of {} rows ({share:.0}%)",
                duel.peer, duel.mean, duel.ahead, duel.rows
            );
        }
    }
}

fn cut(name: &str, most: usize) -> &str {
    name.get(..most).unwrap_or(name)
}

/// Nanoseconds as people write them.
pub fn time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "us"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", count(value))
}

/// Bytes as people write them.
pub fn size(bytes: f64) -> String {
    if bytes < f64::from(1 << 30) {
        format!("{} MiB", count(bytes / f64::from(1 << 20)))
    } else {
        format!("{:.2} GiB", bytes / f64::from(1 << 30))
    }
}

/// A number with three digits or more.
pub fn count(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_the_value() {
        assert_eq!([0.5, 12.0, 1500.0, 2.5e6, 3.2e9].map(time), ["0.50 ns", "12.0 ns", "1.50 us", "2.50 ms", "3.20 s"]);
        assert_eq!(size(3.0 * 1048576.0), "3.00 MiB");
    }

    #[test]
    fn the_table_has_every_row_and_who_is_missing() {
        let text = text(&super::super::results::tests::sample(), &Colours::new(false));
        for part in ["not found: jemalloc; to get it: apt-get", "one x2", "0.50", "two x2", "ahead in 2 of 2 rows"] {
            assert!(text.contains(part), "no {part:?} in:\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }
}
