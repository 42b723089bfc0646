//! The report as tables of a document: what stands between two comments of the file is replaced, the rest stays.

use std::fmt::Write;

use super::contenders::POOL;
use super::results::{Figure, PEAK, Report, Row, SECONDS};
use super::table::{QUANTILES, count, kernel_cell, size, time};

/// Before and behind what is made.
const BEGIN: &str = "<!-- bench -->";
const END: &str = "<!-- /bench -->";

/// `document` with the report in its place; the error says what it lacks.
pub fn placed(document: &str, report: &Report) -> Result<String, String> {
    let error = || format!("has no place for the tables: a line {BEGIN} and behind it a line {END}");
    let (head, rest) = document.split_once(BEGIN).ok_or_else(error)?;
    let (_, tail) = rest.split_once(END).ok_or_else(error)?;
    Ok(format!("{head}{BEGIN}\n{}\n{END}{tail}", text(report).trim_end()))
}

fn text(report: &Report) -> String {
    let mut text =
        format!("{}. mempool {}.\n\n```sh\n{}\n```\n\n", report.machine.line(), report.machine.version, report.command);
    let versions = report.contenders.iter().filter(|known| !known.version.is_empty() && known.name != POOL);
    let versions: Vec<String> = versions.map(|known| format!("{} is `{}`", known.name, known.version)).collect();
    _ = writeln!(text, "{}.\n", versions.join(", "));
    summary(&mut text, report);
    let ratio = |figure: Figure| move |row: &Row, name: &str| ratio(row, name, figure);
    let own = |figure: Figure, show: fn(f64) -> String| {
        move |row: &Row| row.median(POOL, figure).filter(|own| *own > 0.0).map_or("-".into(), show)
    };
    _ = writeln!(text, "### Time\n\nMedians of {} rounds, as ratios to the best peer of the row.\n", report.rounds);
    table(&mut text, report, "pool's time", |_| true, own(SECONDS, |s| time(s * 1e9)), ratio(SECONDS));
    text.push_str("\n### Peak memory\n\nOf the whole process, as ratios to the leanest peer of the row.\n\n");
    table(&mut text, report, "pool's peak", |_| true, own(PEAK, size), ratio(PEAK));
    phases(&mut text, report);
    text.push_str("\n### Kernel\n\nPage faults / system calls for a million operations, after preparation.\n\n");
    table(&mut text, report, "threads", |row| !row.program, |row| row.threads.to_string(), kernel_cell);
    latency(&mut text, report);
    for measure in &report.pool {
        _ = writeln!(text, "\n### {}\n\n| | {} |\n|---|---|", measure.name, measure.unit);
        for (name, figure) in &measure.figures {
            _ = writeln!(text, "| {name} | {} |", figure.map_or("-".into(), count));
        }
    }
    for line in report.failures(|_| true).iter().chain(&report.notes) {
        _ = writeln!(text, "\n{line}.");
    }
    for missing in &report.missing {
        _ = writeln!(text, "\n{} was not found; to get it: `{}`.", missing.name, missing.get);
    }
    text
}

fn summary(text: &mut String, report: &Report) {
    for (name, figure) in [("time", SECONDS), ("peak memory", PEAK)] {
        let Some(summary) = report.summary(figure) else { continue };
        _ = writeln!(
            text,
            "The pool's {name} is {:.2} of that of each row's best peer (geometric mean); the worst row is {} with {:.2}.\n",
            summary.mean_to_best, summary.worst.0, summary.worst.1
        );
        text.push_str("| the pool's over that of | geometric mean | ahead in |\n|---|---|---|\n");
        for duel in summary.duels {
            _ = writeln!(text, "| {} | {:.2} | {} of {} rows |", duel.peer, duel.mean, duel.ahead, duel.rows);
        }
        text.push('\n');
    }
}

fn ratio(row: &Row, name: &str, figure: Figure) -> String {
    match (row.ratio(name, figure), row.of(name).is_some_and(|result| result.error.is_some())) {
        (_, true) => "failed".into(),
        (Some(ratio), _) if name == POOL => format!("**{ratio:.2}**"),
        (Some(ratio), _) => format!("{ratio:.2}"),
        (None, false) => "-".into(),
    }
}

fn table(
    text: &mut String,
    report: &Report,
    title: &str,
    keep: fn(&Row) -> bool,
    own: impl Fn(&Row) -> String,
    cell: impl Fn(&Row, &str) -> String,
) {
    _ = write!(text, "| row | {title} |");
    report.contenders.iter().for_each(|known| _ = write!(text, " {} |", known.name));
    _ = writeln!(text, "\n|{}", "---|".repeat(report.contenders.len() + 2));
    for row in report.rows.iter().filter(|row| keep(row)) {
        _ = write!(text, "| {} | {} |", row.label(), own(row));
        report.contenders.iter().for_each(|known| _ = write!(text, " {} |", cell(row, &known.name)));
        text.push('\n');
    }
}

/// Parts of the work, of rows that have them.
fn phases(text: &mut String, report: &Report) {
    for row in report.rows.iter().filter(|row| !row.phases().is_empty()) {
        _ = write!(text, "\n### Parts of {}\n\nSummed over threads.\n\n| |", row.label());
        row.phases().iter().for_each(|phase| _ = write!(text, " {phase} |"));
        _ = writeln!(text, "\n|---|{}", "---|".repeat(row.phases().len()));
        for result in &row.results {
            _ = write!(text, "| {} |", result.contender);
            let shown = |phase: &&str| result.phase(phase).map_or("-".into(), |seconds| time(seconds * 1e9));
            row.phases().iter().for_each(|phase| _ = write!(text, " {} |", shown(phase)));
            text.push('\n');
        }
    }
}

fn latency(text: &mut String, report: &Report) {
    for row in &report.rows {
        let timed = |name: &str| row.of(name).filter(|result| result.latency("malloc", |q| q.p50).is_some());
        if report.contenders.iter().all(|known| timed(&known.name).is_none()) {
            continue;
        }
        _ = writeln!(
            text,
            "\n### Latency of single operations, {}\n\nAn empty operation / malloc / free, timed the same way.\n",
            row.label()
        );
        _ = writeln!(
            text,
            "| |{}\n|---|{}",
            QUANTILES.map(|(name, _)| format!(" {name} |")).concat(),
            "---|".repeat(QUANTILES.len())
        );
        for known in &report.contenders {
            let Some(result) = timed(&known.name) else { continue };
            let of = |operation, quantile| result.latency(operation, quantile).map_or("-".into(), time);
            let cell = |(_, q)| format!(" {} / {} / {} |", of("empty", q), of("malloc", q), of("free", q));
            _ = writeln!(text, "| {} |{}", known.name, QUANTILES.map(cell).concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_their_place_and_the_rest_stays() {
        let report = super::super::results::tests::sample();
        let made = placed("head\n<!-- bench -->\nold\n<!-- /bench -->\ntail\n", &report).unwrap();
        assert!(made.starts_with("head\n<!-- bench -->\n") && made.ends_with("<!-- /bench -->\ntail\n"), "{made}");
        assert!(!made.contains("old") && made.contains("| one x2 | 1.00 s | **0.50** | 1.00 | 2.00 |"), "{made}");
        assert_eq!(placed(&made, &report).unwrap(), made, "again the same");
        assert!(placed("nothing", &report).unwrap_err().contains("<!-- bench -->"));
    }
}
