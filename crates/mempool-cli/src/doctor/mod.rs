//! `mempool doctor`: what this machine and user allow, which promises of the pool hold here, and how to have the rest.
//!
//! It reads, and changes nothing. What it says of a configuration is what `mempool run` with the same settings would
//! find at init; where that depends on the moment (memory that is available) it says what there is now.

mod advice;
mod machine;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mempool::bytes::Bytes;
use mempool::config::{Config, SETTINGS};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::settings::{self, Given, Shown};
use crate::{library, program, terminal};
use advice::{Finding, State};
use machine::Machine;

/// The memory that this process may take now, and the file of the cgroup that says so, if one does; None where that is not shown.
pub fn available() -> Option<(usize, Option<String>)> {
    advice::available(&Machine::read(Path::new("/")))
}

/// What to look at.
pub struct Order {
    /// Flags that were given.
    pub given: Given,
    /// A program that is to run on a pool.
    pub program: Option<OsString>,
    /// As JSON.
    pub json: bool,
    /// Where /proc and /sys are.
    pub root: PathBuf,
}

/// Something falls short.
const SHORT: u8 = 1;
/// There can be no pool.
const FAILS: u8 = 2;

/// Prints all findings; 0 if every promise holds, 1 if some do not, 2 if there can be no pool.
pub fn show(order: &Order) -> Result<ExitCode, Failure> {
    let config = settings::in_force(&order.given)?;
    let mut findings = advice::findings(&Machine::read(&order.root), &config);
    findings.push(about_library(order.program.is_some()));
    findings.extend(order.program.as_ref().map(about_program));
    let any = |state| findings.iter().any(|finding: &Finding| finding.state == state);
    let code = match (any(State::Fails), any(State::Short)) {
        (true, _) => FAILS,
        (_, true) => SHORT,
        _ => 0,
    };
    let text = match order.json {
        true => as_json(&config, &findings, code),
        false => as_text(&config, &findings, code, terminal::has_colours(&std::io::stdout())),
    };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Failure::own(format_args!("standard output: {error}")))?;
    Ok(ExitCode::from(code))
}

/// Whether there is what `mempool run` loads into a program. Without it there are still the pools of programs that
/// are linked to one, so it is missed for good only where a program was named.
fn about_library(has_program: bool) -> Finding {
    let without = if has_program { State::Fails } else { State::Short };
    let found = library::find().map(|path| format!("`mempool run` loads {}.", path.display()));
    let found = found.map_err(|failure| match has_program {
        true => failure,
        false => Failure { message: format!("`mempool run` fails: {}", failure.message), ..failure },
    });
    checked("library", found, without)
}

/// Whether a program can run on a pool.
fn about_program(name: &OsString) -> Finding {
    let found = program::find(name).and_then(|path| Ok((program::check(&path)?, path)));
    if let Ok((binary, path)) = &found
        && program::has_malloc(binary)
    {
        let says = format!("{} has a malloc of its own, so that a pool serves little of it.", path.display());
        let fix = "use a build of it with the C library's malloc".into();
        return Finding { topic: "program", state: State::Short, says, fix };
    }
    checked("program", found.map(|(_, path)| format!("{} can run on a pool.", path.display())), State::Fails)
}

/// What a check of `mempool run` came to, in the words of `mempool run`.
fn checked(topic: &'static str, found: Result<String, Failure>, otherwise: State) -> Finding {
    match found {
        Ok(says) => Finding { topic, state: State::Holds, says, fix: String::new() },
        Err(failure) => Finding { topic, state: otherwise, says: format!("{}.", failure.message), fix: failure.fix },
    }
}

const fn word(state: State) -> &'static str {
    match state {
        State::Holds => "holds",
        State::Note => "note",
        State::Short => "short",
        State::Fails => "fails",
    }
}

/// The settings that differ from the defaults, and the segment.
fn summary(config: &Config) -> String {
    let default = Config::process();
    let changed =
        SETTINGS.iter().filter(|setting| !setting.hidden && setting.name != "segment").filter_map(|setting| {
            let (is, was) = (Shown(setting, config).to_string(), Shown(setting, &default).to_string());
            (is != was).then(|| format!(", {}={is}", setting.name))
        });
    format!("segment={}{}", Bytes(config.values().segment), changed.collect::<String>())
}

/// How many promises hold, in a sentence.
fn verdict(findings: &[Finding], code: u8) -> String {
    let promises: Vec<&Finding> = findings.iter().filter(|finding| finding.state != State::Note).collect();
    let those = |which: &dyn Fn(State) -> bool| -> Vec<&str> {
        promises.iter().filter(|finding| which(finding.state)).map(|finding| finding.topic).collect()
    };
    let broken = those(&|state| state != State::Holds);
    match code {
        FAILS => format!("No pool serves so: {}.", those(&|state| state == State::Fails).join(", ")),
        SHORT => format!(
            "{} of {} promises hold; not: {}.",
            promises.len() - broken.len(),
            promises.len(),
            broken.join(", ")
        ),
        _ => format!("All {} promises hold.", promises.len()),
    }
}

fn as_text(config: &Config, findings: &[Finding], code: u8, colour: bool) -> String {
    let paint = |state| match state {
        _ if !colour => ("", ""),
        State::Holds => ("\x1b[32m", "\x1b[0m"),
        State::Note => ("\x1b[36m", "\x1b[0m"),
        State::Short => ("\x1b[33m", "\x1b[0m"),
        State::Fails => ("\x1b[31m", "\x1b[0m"),
    };
    let mut text = format!("A pool with {}:\n\n", summary(config));
    for finding in findings {
        let (on, off) = paint(finding.state);
        text += &format!("  {on}{:<5}{off}  {:<10}  {}\n", word(finding.state), finding.topic, finding.says);
        if !finding.fix.is_empty() {
            text += &format!("{:21}fix: {}\n", "", finding.fix);
        }
    }
    text + &format!("\n{}\n", verdict(findings, code))
}

fn as_json(config: &Config, findings: &[Finding], code: u8) -> String {
    let row = |finding: &Finding| {
        let fix = if finding.fix.is_empty() { Value::Null } else { json!(finding.fix) };
        json!({"topic": finding.topic, "state": word(finding.state), "says": finding.says, "fix": fix})
    };
    let settings: serde_json::Map<String, Value> = SETTINGS
        .iter()
        .filter(|setting| !setting.hidden)
        .map(|setting| (setting.name.to_owned(), json!(Shown(setting, config).to_string())))
        .collect();
    let all = json!({
        "settings": settings, "findings": findings.iter().map(row).collect::<Vec<_>>(), "exit_code": code,
        "verdict": verdict(findings, code),
    });
    format!("{all:#}\n")
}
