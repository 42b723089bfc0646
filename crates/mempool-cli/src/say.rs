//! Words for people on standard error while a command works. Nobody must hear them: `eprint!` ends the command where standard error cannot be
//! written to, and what it has measured is lost.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::terminal::has_control;

/// After so long the line appears.
const QUIET: Duration = Duration::from_secs(1);
/// It is written anew no sooner than this.
const PAUSE: Duration = Duration::from_millis(100);

/// A line on a terminal that says how far something is; taken away at the end.
pub struct Progress {
    is_terminal: bool,
    begin: Instant,
    /// When it is due again.
    next: Instant,
    is_shown: bool,
}

impl Progress {
    /// Of something that begins now.
    pub fn new() -> Self {
        let begin = Instant::now();
        Self { is_terminal: has_control(&std::io::stderr()), begin, next: begin + QUIET, is_shown: false }
    }

    /// Shows `text` and for how long it has been so, if that is due.
    pub fn show(&mut self, text: impl Display) {
        let now = Instant::now();
        if self.is_terminal && now >= self.next {
            self.next = now + PAUSE;
            self.is_shown = true;
            show(format_args!("{text}, {} s", self.begin.elapsed().as_secs()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            show("");
        }
    }
}

/// Puts `text` in place of the line that the cursor is on.
fn show(text: impl Display) {
    say(format_args!("\r{text}\x1b[K"));
}

/// Writes `text` to standard error, if that can be.
pub fn say(text: impl Display) {
    // In one piece, so that others' lines do not come in between.
    let _ = std::io::stderr().lock().write_all(text.to_string().as_bytes());
}
