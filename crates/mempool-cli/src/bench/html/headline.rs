//! The headline picture: one line for each row, one dot for each peer, at its time over the pool's. What lies right of
//! the rule is slower than the pool.

use std::fmt::Write;

use super::plot::{class, escape};
use crate::bench::contenders::{POOL, is_pool};
use crate::bench::results::{Report, Row, SECONDS};

const WIDTH: f64 = 940.0;
const LEFT: f64 = 176.0;
const RIGHT: f64 = WIDTH - 48.0;
const TOP: f64 = 62.0;
const STEP: f64 = 19.0;
/// Powers of two at the ends of the axis; dots beyond them stand at the ends.
const RANGE: (f64, f64) = (-3.0, 4.0);

/// The drawing, for the page or for a file of its own, which then carries its style.
pub fn picture(report: &Report, style: &str) -> String {
    let peers: Vec<&str> = report.contenders.iter().map(|known| known.name.as_str()).filter(|n| !is_pool(n)).collect();
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.ratio(POOL, SECONDS).is_some()).collect();
    let height = TOP + STEP * rows.len() as f64 + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">{style}\
         <title>Time of other allocators over the pool's</title>"
    );
    legend(&mut svg, &peers);
    axis(&mut svg, height - 30.0);
    for (index, row) in rows.iter().enumerate() {
        line(&mut svg, row, &peers, TOP + STEP * (index as f64 + 0.5));
    }
    svg + "</svg>\n"
}

fn place(ratio: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * (ratio.log2().clamp(RANGE.0, RANGE.1) - RANGE.0) / (RANGE.1 - RANGE.0)
}

fn legend(svg: &mut String, peers: &[&str]) {
    let step = (RIGHT - LEFT) / peers.len().max(1) as f64;
    for (index, peer) in peers.iter().enumerate() {
        let x = LEFT + step * index as f64;
        _ = write!(svg, "<g class=\"{}\"><circle cx=\"{:.1}\" cy=\"12\" r=\"5\"/>", class(peer), x + 5.0);
        _ = write!(svg, "<text x=\"{:.1}\" y=\"16\">{}</text></g>", x + 14.0, escape(peer));
    }
}

fn axis(svg: &mut String, bottom: f64) {
    for power in RANGE.0 as i32..=RANGE.1 as i32 {
        let (x, own) = (place(2f64.powi(power)), power == 0);
        let text = match power {
            0 => "as fast as the pool".to_owned(),
            1.. => format!("{}x slower", 1 << power),
            _ => format!("{}x faster", 1 << -power),
        };
        let class = if own { "rule" } else { "grid" };
        _ = write!(svg, "<path class=\"{class}\" d=\"M{x:.1} {TOP}V{bottom:.1}\"/>");
        for y in [TOP - 10.0, bottom + 18.0] {
            let class = if own { "middle own" } else { "middle faint" };
            _ = write!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
        }
    }
}

fn line(svg: &mut String, row: &Row, peers: &[&str], y: f64) {
    _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
    _ = write!(svg, "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>", LEFT - 12.0, y + 4.0, escape(&row.label()));
    let Some(own) = row.median(POOL, SECONDS) else { return };
    for peer in peers {
        if let Some(ratio) = row.median(peer, SECONDS).map(|seconds| seconds / own) {
            let (x, peer) = (place(ratio), (class(peer), escape(peer)));
            _ = write!(
                svg,
                "<g class=\"{}\"><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{}, {}: {ratio:.2}</title></circle></g>",
                peer.0,
                escape(&row.label()),
                peer.1
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_peers_lie_right_of_the_rule() {
        let svg = picture(&crate::bench::results::tests::sample(), "");
        assert_eq!(svg.matches("<circle").count(), 2 + 4, "a legend of two, and two rows of two");
        assert!(place(2.0) > place(1.0) && place(0.5) < place(1.0) && place(1e9) <= RIGHT && place(1e-9) >= LEFT);
        assert!(svg.contains("as fast as the pool") && svg.contains("one x2"));
    }
}
