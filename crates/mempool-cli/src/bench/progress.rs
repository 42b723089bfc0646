//! How far the benchmark is, on a terminal alone.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal;

/// A bar on standard error.
pub struct Progress {
    bar: ProgressBar,
    rounds: usize,
}

impl Progress {
    /// Of `steps` runs in `rounds` rounds; invisible where standard error is no terminal, or one that cannot write a line again.
    pub fn new(steps: usize, rounds: usize) -> Self {
        let target = match terminal::has_control(&std::io::stderr()) {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target);
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} runs, {eta} left: {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, rounds }
    }

    /// What is done now.
    pub fn at(&self, row: &str, contender: &str, round: usize) {
        let what = if round < self.rounds { format!("round {}", round + 1) } else { "system calls".into() };
        self.bar.set_message(format!("{what}, {row} on {contender}"));
    }

    /// One run is over.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// All are.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
