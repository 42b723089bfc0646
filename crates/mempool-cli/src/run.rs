//! `mempool run`: checks everything that can be checked beforehand, then becomes the program.
//!
//! The program takes the command's place (`exec`) instead of being its child: it keeps the process number, terminal and
//! signals, nothing stands between it and its parent, and a shell reports its exit code, or 128+n for signal n,
//! by itself.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::failure::Failure;
use crate::inherited;
use crate::library::{self, PRELOAD};
use crate::program;
use crate::settings::{self, Given};

/// What to run.
pub struct Order {
    /// Flags that were given.
    pub given: Given,
    /// The program's name or path.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Becomes the program; returns only what went wrong.
pub fn exec(order: &Order) -> Failure {
    match prepare(order) {
        Ok(mut command) => refused(order, &command.exec()),
        Err(failure) => failure,
    }
}

fn prepare(order: &Order) -> Result<Command, Failure> {
    settings::in_force(&order.given)?;
    let library = library::find()?;
    let path = program::find(&order.program)?;
    program::check(&path)?;
    let mut command = Command::new(&path);
    command.arg0(&order.program).args(&order.arguments);
    command.env(PRELOAD, library::joined(&library, std::env::var_os(PRELOAD)));
    command.envs(order.given.iter().map(|(setting, value)| (setting.env, value)));
    inherited::hand_on(&mut command);
    Ok(command)
}

fn refused(order: &Order, error: &std::io::Error) -> Failure {
    let program = order.program.display();
    match error.kind() {
        ErrorKind::NotFound => Failure::not_found(format_args!("{program}: {error}")),
        ErrorKind::OutOfMemory => Failure::own(format_args!("{program}: {error}")),
        ErrorKind::ArgumentListTooLong => Failure::not_runnable(format_args!("{program}: {error}"))
            .fix("pass fewer arguments, or a smaller environment"),
        _ => Failure::not_runnable(format_args!("{program}: {error}")),
    }
}
