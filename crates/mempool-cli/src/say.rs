//! What a command says beside its result: how far it is, on a terminal. Nothing here fails, since nobody is left to tell when standard error is gone.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

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
        Self { is_terminal: std::io::stderr().is_terminal(), begin, next: begin + QUIET, is_shown: false }
    }

    /// Shows `text` and for how long it has been so, if that is due.
    pub fn show(&mut self, text: impl Display) {
        let now = Instant::now();
        if self.is_terminal && now >= self.next {
            self.next = now + PAUSE;
            self.is_shown = true;
            progress(&format!("{text}, {} s", self.begin.elapsed().as_secs()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            progress("");
        }
    }
}

/// Puts `text` in place of the line that the cursor is on.
pub fn progress(text: &str) {
    let _ = std::io::stderr().lock().write_all(format!("\r{text}\x1b[K").as_bytes());
}
