//! One page that needs nothing else: for each kind of starvation the latency of every allocator over time, with the
//! moment marked from which nothing was left.
//!
//! A drawing is 120 columns wide; each column's bar reaches from the least to the greatest latency of the requests that
//! were due then, on a logarithmic scale. Where a line ends, the worker had ended or stopped.

use std::fmt::Write;

use super::kinds::Kind;
use super::outcome::{Outcome, grouped, time};
use super::report::Report;

const COLUMNS: usize = 120;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
/// Room for the scale, left and below.
const LEFT: f64 = 64.0;
const BELOW: f64 = 28.0;
const ABOVE: f64 = 16.0;
const RIGHT: f64 = 24.0;
/// Room for a title above a drawing.
const TITLE: f64 = 36.0;
/// The scale, in nanoseconds: 10 us to 10 s.
const LEAST: f64 = 1e4;
const MOST: f64 = 1e10;
const COLOURS: [&str; 6] = ["#0a7d38", "#c0392b", "#2c6fbb", "#b9770e", "#7d3c98", "#555555"];

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:66rem;margin:2rem auto;padding:0 1rem;color:#222}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2.2rem}table{border-collapse:collapse;font-size:.86rem}\
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}\
.bad{color:#b00020}svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#444}\
.key{display:inline-block;width:.8rem;height:.8rem;margin-right:.4rem;border-radius:2px}.note{color:#555;font-size:.88rem}";

/// The whole page.
pub fn page(report: &Report<'_>) -> String {
    let mut text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>mempool starve</title><style>{STYLE}</style></head><body><h1>mempool starve</h1><p>{}</p>",
        escaped(&report.verdict())
    );
    for (kind, outcomes) in report.kinds() {
        // Writing to a string does not fail, here and below.
        let _ = write!(text, "<h2>{}</h2>", escaped(kind.words()));
        drawing(&mut text, &outcomes, report.millis, "");
        table(&mut text, report, &outcomes);
    }
    text += "<p class=\"note\">Each bar reaches from the least to the greatest latency of the requests due at that time, counted from \
             when they were due. The dashed line is the moment from which nothing was left. A colour that ends has ended.</p>";
    for (kind, why) in &report.left_out {
        let _ = write!(text, "<p class=\"note\">Left out: {}: {}.</p>", kind.name(), escaped(why));
    }
    for missing in &report.missing {
        let _ = write!(text, "<p class=\"note\">Left out: {}: not here; {}.</p>", missing.name, missing.get);
    }
    text + "</body></html>\n"
}

/// The drawings alone, one below the other, as one picture; without that of the quiet runs.
pub fn picture(report: &Report<'_>) -> String {
    let (wide, high) = (LEFT + WIDTH + RIGHT, ABOVE + HEIGHT + BELOW);
    let kinds: Vec<_> = report.kinds().filter(|(kind, _)| *kind != Kind::Quiet).collect();
    let all = (high + TITLE) * kinds.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {all}\" font-family=\"sans-serif\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for (place, (kind, outcomes)) in kinds.iter().enumerate() {
        let top = (high + TITLE) * place as f64;
        let _ = write!(
            text,
            "<text x=\"{LEFT}\" y=\"{}\" font-size=\"14\" font-weight=\"bold\">{}: latency over time</text>",
            top + TITLE - 12.0,
            escaped(kind.words())
        );
        drawing(
            &mut text,
            outcomes,
            report.millis,
            &format!("y=\"{}\" width=\"{wide}\" height=\"{high}\" ", top + TITLE),
        );
    }
    text + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn colour(place: usize) -> &'static str {
    COLOURS.get(place % COLOURS.len()).unwrap_or(&"#555555")
}

/// Where a latency stands.
fn height(nanoseconds: f64) -> f64 {
    let share = (nanoseconds.clamp(LEAST, MOST) / LEAST).log10() / (MOST / LEAST).log10();
    ABOVE + HEIGHT * (1.0 - share)
}

/// `place` is where it lies in another drawing, as attributes.
fn drawing(text: &mut String, outcomes: &[&Outcome], millis: u64, place: &str) {
    let (wide, high) = (LEFT + WIDTH + RIGHT, ABOVE + HEIGHT + BELOW);
    let _ = write!(
        text,
        "<svg {place}xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" font-family=\"sans-serif\" font-size=\"11\" role=\"img\" aria-label=\"latency over time\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    let mut mark = LEAST;
    while mark <= MOST {
        let y = height(mark);
        let _ = write!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            y + 4.0,
            scale(mark)
        );
        mark *= 10.0;
    }
    for part in 0..=4 {
        let x = LEFT + WIDTH * f64::from(part) / 4.0;
        let seconds = millis as f64 / 1000.0 * f64::from(part) / 4.0;
        let _ = write!(text, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{seconds:.2} s</text>", high - 8.0);
    }
    for (place, outcome) in outcomes.iter().enumerate() {
        bars(text, outcome, place, outcomes.len());
        let x = LEFT + WIDTH - 76.0 * (outcomes.len() - place) as f64;
        let _ = write!(
            text,
            "<rect x=\"{x}\" y=\"2\" width=\"9\" height=\"9\" fill=\"{}\"/><text x=\"{}\" y=\"11\">{}</text>",
            colour(place),
            x + 13.0,
            outcome.side
        );
    }
    if let Some(at) = outcomes.iter().filter_map(|outcome| Some((outcome.starved_at?, outcome.planned))).min() {
        let x = LEFT + WIDTH * at.0 as f64 / at.1.max(1) as f64;
        let _ = write!(
            text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{ABOVE}\" y2=\"{}\" stroke=\"#000\" stroke-dasharray=\"5 4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">nothing is left</text>",
            ABOVE + HEIGHT,
            x + 5.0,
            ABOVE + 10.0
        );
    }
    *text += "</svg>";
}

fn scale(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 1e6 => format!("{:.0} us", small / 1e3),
        middle if middle < 1e9 => format!("{:.0} ms", middle / 1e6),
        large => format!("{:.0} s", large / 1e9),
    }
}

/// One allocator's bars, side by side with the others' in each column.
fn bars(text: &mut String, outcome: &Outcome, place: usize, sides: usize) {
    let each = outcome.times.len().div_ceil(COLUMNS).max(1);
    let step = WIDTH * each as f64 / outcome.times.len().max(1) as f64;
    let thick = (step / sides.max(1) as f64 * 0.9).max(0.6);
    let _ = write!(text, "<g fill=\"{}\"><title>{}</title>", colour(place), outcome.side);
    for (column, part) in outcome.times.chunks(each).enumerate() {
        let done = || part.iter().filter(|time| **time > 0);
        let (Some(least), Some(most)) = (done().min(), done().max()) else { continue };
        let (top, bottom) = (height(*most as f64), height(*least as f64));
        let x = LEFT + step * column as f64 + step * place as f64 / sides.max(1) as f64;
        let _ = write!(
            text,
            "<rect x=\"{x:.2}\" y=\"{top:.1}\" width=\"{thick:.2}\" height=\"{:.1}\"/>",
            (bottom - top).max(1.5)
        );
    }
    *text += "</g>";
}

fn table(text: &mut String, report: &Report<'_>, outcomes: &[&Outcome]) {
    *text += "<table><tr><th>allocator</th><th>done</th><th>failed</th><th>wrong</th><th>p50</th><th>p99</th><th>p99.9</th>\
              <th>max</th><th>p99.9 by</th><th>faults</th><th>ended</th></tr>";
    for (place, outcome) in outcomes.iter().enumerate() {
        let [median, p99, p999, worst] = outcome.latency.map(time);
        let ratio = report.ratio(outcome).map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let class = if outcome.is_whole() { "" } else { " class=\"bad\"" };
        let _ = write!(
            text,
            "<tr{class}><td><span class=\"key\" style=\"background:{}\"></span>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{median}</td>\
             <td>{p99}</td><td>{p999}</td><td>{worst}</td><td>{ratio}</td><td>{}</td><td>{}</td></tr>",
            colour(place),
            outcome.side,
            grouped(outcome.done),
            grouped(outcome.failed + outcome.not_tried()),
            grouped(outcome.wrong),
            grouped(outcome.faults),
            escaped(&outcome.ended())
        );
    }
    *text += "</table>";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_grow_with_latency_and_stay_inside() {
        let all = [0.0, 1e4, 1e5, 1e7, 1e10, 1e12].map(height);
        assert!(all.is_sorted_by(|a, b| a >= b) && all[0] == ABOVE + HEIGHT && all[5] == ABOVE);
        assert_eq!([1e4, 1e6, 1e9].map(scale), ["10 us", "1 ms", "1 s"]);
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
