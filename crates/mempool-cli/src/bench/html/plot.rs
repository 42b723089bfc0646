//! Drawings as SVG text: bars with spread, and lines over linear or logarithmic axes.
//!
//! Colours are the page's variables (`--k` of a contender's class, `--ink`, `--faint`), so one drawing serves light and
//! dark.

use std::fmt::Write;

/// The width of a drawing in its own units.
pub const WIDTH: f64 = 460.0;
const LABELS: f64 = 92.0;
const VALUES: f64 = 66.0;
const BAR: f64 = 20.0;
/// Bars longer than so many times the best are cut.
const LONGEST: f64 = 4.0;

/// A bar: who, how much, from least to most.
pub struct Bar {
    /// The label.
    pub name: String,
    /// The median.
    pub value: f64,
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// Text that may stand in HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The class that gives a contender its colour.
pub fn class(name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("k k-{word}")
}

/// Bars, shortest first, with a line from the least to the most; who failed stands below without a bar.
pub fn bars(bars: &mut [Bar], failed: &[String], show: fn(f64) -> String) -> String {
    bars.sort_by(|one, other| one.value.total_cmp(&other.value));
    let best = bars.first().map_or(1.0, |bar| bar.value).max(f64::MIN_POSITIVE);
    let longest = bars.iter().map(|bar| bar.high.max(bar.value)).fold(0.0, f64::max).min(LONGEST * best);
    let scale = (WIDTH - LABELS - VALUES) / longest.max(f64::MIN_POSITIVE);
    let height = BAR * (bars.len() + failed.len()) as f64 + 4.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (index, bar) in bars.iter().enumerate() {
        let top = BAR * index as f64;
        let (middle, text) = (top + BAR / 2.0, top + BAR / 2.0 + 4.0);
        let (length, cut) = (bar.value.min(longest) * scale, bar.value > longest);
        let own = if bar.name.starts_with("pool") { " own" } else { "" };
        _ = write!(
            svg,
            "<g class=\"{}{own}\"><title>{}: {} ({} to {})</title>\
             <text x=\"{}\" y=\"{text:.1}\" class=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" rx=\"2\"/>",
            class(&bar.name),
            escape(&bar.name),
            show(bar.value),
            show(bar.low),
            show(bar.high),
            LABELS - 8.0,
            escape(&bar.name),
            top + 3.0,
            BAR - 6.0,
        );
        if cut {
            let x = LABELS + length - 14.0;
            _ = write!(svg, "<path class=\"cut\" d=\"M{x:.1} {:.1}l6 {BAR}m4 -{BAR}l6 {BAR}\"/>", top);
        } else {
            let x = |value: f64| LABELS + value.min(longest) * scale;
            _ = write!(svg, "<path class=\"spread\" d=\"M{:.1} {middle:.1}H{:.1}\"/>", x(bar.low), x(bar.high));
        }
        let end = if cut { LABELS + length } else { LABELS + bar.high.max(bar.value).min(longest) * scale };
        _ = write!(svg, "<text x=\"{:.1}\" y=\"{text:.1}\" class=\"value\">{}</text></g>", end + 6.0, show(bar.value));
    }
    for (index, name) in failed.iter().enumerate() {
        let text = BAR * (bars.len() + index) as f64 + BAR / 2.0 + 4.0;
        _ = write!(
            svg,
            "<text x=\"{}\" y=\"{text:.1}\" class=\"end faint\">{}</text><text x=\"{LABELS}\" y=\"{text:.1}\" class=\"faint\">failed</text>",
            LABELS - 8.0,
            escape(name)
        );
    }
    svg + "</svg>"
}

/// A line through points.
pub struct Line {
    /// The label.
    pub name: String,
    /// The points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// An axis: its marks, and where its ends are.
pub struct Axis {
    /// From, to; of a logarithmic axis the logarithms.
    pub range: (f64, f64),
    /// Where a mark is, and what it says.
    pub marks: Vec<(f64, String)>,
    /// What it is.
    pub title: &'static str,
}

impl Axis {
    /// From 0 to at least `most`, with round marks.
    pub fn linear(most: f64, title: &'static str, show: impl Fn(f64) -> String) -> Self {
        let raw = (most / 4.0).max(f64::MIN_POSITIVE);
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|f| f * power).into_iter().find(|step| *step >= raw).unwrap_or(raw);
        let count = (most / step).ceil().max(1.0) as usize;
        let marks = (0..=count).map(|mark| (mark as f64 * step, show(mark as f64 * step))).collect();
        Self { range: (0.0, count as f64 * step), marks, title }
    }

    /// Powers of ten that hold `low` to `high`; points are given by their logarithms.
    pub fn logarithmic(low: f64, high: f64, title: &'static str, show: impl Fn(f64) -> String) -> Self {
        let (from, to) = (low.log10().floor(), high.log10().ceil());
        let marks = (from as i32..=to as i32).map(|power| (f64::from(power), show(10f64.powi(power)))).collect();
        Self { range: (from, to.max(from + 1.0)), marks, title }
    }

    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        let part = (value - self.range.0) / (self.range.1 - self.range.0);
        from + (to - from) * part.clamp(0.0, 1.0)
    }
}

const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 84.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 220.0;

/// Lines with their names at their ends.
pub fn lines(lines: &[Line], x: &Axis, y: &Axis) -> String {
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", BOTTOM + 40.0);
    for (value, text) in &y.marks {
        let at = y.place(*value, BOTTOM, TOP);
        _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
        _ = write!(svg, "<text class=\"end faint\" x=\"{}\" y=\"{:.1}\">{text}</text>", LEFT - 6.0, at + 4.0);
    }
    for (value, text) in &x.marks {
        let at = x.place(*value, LEFT, RIGHT);
        _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {BOTTOM}v4\"/>");
        _ = write!(svg, "<text class=\"middle faint\" x=\"{at:.1}\" y=\"{}\">{text}</text>", BOTTOM + 17.0);
    }
    let middle = (LEFT + RIGHT) / 2.0;
    _ = write!(svg, "<text class=\"middle faint\" x=\"{middle}\" y=\"{}\">{}</text>", BOTTOM + 34.0, x.title);
    _ = write!(svg, "<text class=\"faint\" x=\"{}\" y=\"{}\">{}</text>", LEFT + 4.0, TOP + 4.0, y.title);
    let mut ends: Vec<(f64, &str)> = Vec::new();
    // The pool last, so that it lies above the others.
    let (own, others): (Vec<&Line>, Vec<&Line>) = lines.iter().partition(|line| line.name == "pool");
    for line in others.into_iter().chain(own) {
        let place = |point: &(f64, f64)| (x.place(point.0, LEFT, RIGHT), y.place(point.1, BOTTOM, TOP));
        let path: Vec<String> = line.points.iter().map(place).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
        let own = if line.name == "pool" { " own" } else { "" };
        _ = write!(
            svg,
            "<g class=\"{}{own}\"><title>{}</title><path class=\"line\" d=\"M{}\"/></g>",
            class(&line.name),
            escape(&line.name),
            path.join("L")
        );
        ends.extend(line.points.last().map(|last| (place(last).1, line.name.as_str())));
    }
    for (at, name) in apart(ends) {
        _ = write!(
            svg,
            "<g class=\"{}\"><text class=\"named\" x=\"{}\" y=\"{:.1}\">{}</text></g>",
            class(name),
            RIGHT + 6.0,
            at + 4.0,
            escape(name)
        );
    }
    svg + "</svg>"
}

/// Labels moved so that none covers another.
fn apart(mut labels: Vec<(f64, &str)>) -> Vec<(f64, &str)> {
    const LEAST: f64 = 13.0;
    labels.sort_by(|one, other| one.0.total_cmp(&other.0));
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + LEAST);
    }
    let mut lowest = BOTTOM;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(lowest);
        lowest = label.0 - LEAST;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_sorted_cut_and_escaped() {
        let bar = |name: &str, value: f64| Bar { name: name.into(), value, low: value, high: value };
        let svg = bars(&mut [bar("slow<", 100.0), bar("pool", 1.0)], &["dead".into()], |value| format!("{value}"));
        assert!(svg.find("pool").unwrap() < svg.find("slow&lt;").unwrap(), "{svg}");
        assert!(svg.contains("class=\"cut\"") && svg.contains("failed") && !svg.contains("slow<"), "{svg}");
    }

    #[test]
    fn axes_end_at_round_marks() {
        let axis = Axis::linear(7.3, "", |value| format!("{value}"));
        assert_eq!(axis.range, (0.0, 8.0));
        let axis = Axis::logarithmic(20.0, 5e6, "", |value| format!("{value}"));
        assert_eq!((axis.range, axis.marks.len()), ((1.0, 7.0), 7));
    }

    #[test]
    fn labels_do_not_cover_one_another() {
        let placed = apart(vec![(100.0, "a"), (101.0, "b"), (219.0, "c"), (220.0, "d")]);
        assert!(placed.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 12.9), "{placed:?}");
        assert!(placed.iter().all(|label| label.0 <= BOTTOM));
    }
}
