//! What can go wrong, as a message and an exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 125 | the command itself failed: bad arguments or settings, no library, no memory |
//! | 126 | the program was found but cannot run on a pool: not executable, static, set-uid, another architecture |
//! | 127 | the program was not found |
//! | 128+n | the program died of signal n (as a shell reports it: the program takes the command's place) |

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use crate::terminal;

/// The command itself failed.
pub const OWN: u8 = 125;
/// The program is there but cannot be run.
pub const NOT_RUNNABLE: u8 = 126;
/// There is no such program.
pub const NOT_FOUND: u8 = 127;

/// A message, the exit code, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do now; empty where the message says it.
    pub fix: String,
}

impl Failure {
    /// A failure of the command itself.
    pub fn own(message: impl fmt::Display) -> Self {
        Self { code: OWN, message: message.to_string(), fix: String::new() }
    }

    /// A program that cannot be run.
    pub fn not_runnable(message: impl fmt::Display) -> Self {
        Self { code: NOT_RUNNABLE, ..Self::own(message) }
    }

    /// A program that is not there.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self { code: NOT_FOUND, ..Self::own(message) }
    }

    /// With the way out.
    pub fn fix(mut self, fix: impl fmt::Display) -> Self {
        self.fix = fix.to_string();
        self
    }

    /// Prints it to standard error, in colour on a terminal; the exit code.
    pub fn report(&self) -> ExitCode {
        let mut out = std::io::stderr().lock();
        let (red, cyan, plain) =
            if terminal::has_colours(&out) { ("\x1b[1;31m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(out, "{red}mempool:{plain} {}", self.message);
        if !self.fix.is_empty() {
            let _ = writeln!(out, "  {cyan}fix:{plain} {}", self.fix);
        }
        ExitCode::from(self.code)
    }
}
