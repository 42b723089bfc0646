//! What `mempool size` and `mempool drill` have in common: they run a program again and again, and leave nothing of it behind.
#![allow(missing_docs)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use common::{Folder, assert_has, clean, fails, lives, mempool, succeeds, until};

/// Whether the processes whose numbers are in `file`, one a line, have all ended, or are only to be waited for.
fn are_gone(file: &str) -> bool {
    let numbers = std::fs::read_to_string(file).unwrap_or_default();
    numbers.lines().all(|number| !lives(number))
}

/// Sends a signal to a process.
fn send(signal: &str, process: u32) {
    succeeds(clean("kill").args(["-s", signal, &process.to_string()]));
}

#[test]
fn a_signal_ends_the_command_the_program_and_what_it_started() {
    let folder = Folder::new("again-signals");
    let program = folder.script("starts", "#!/bin/sh\nsleep 600 &\necho $! >> \"$1\"\nwait\n");
    for (name, number) in [("INT", 2), ("QUIT", 3), ("TERM", 15), ("HUP", 1)] {
        for task in ["size", "drill"] {
            let numbers = folder.path(&format!("{task}{name}"));
            // Whatever the test's own parent ignores.
            let mut command = clean("env");
            command.args(["--default-signal", common::MEMPOOL, task, "--timeout", "60", "--", &program, &numbers]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the command");
            until("a start", || Path::new(&numbers).exists() && std::fs::metadata(&numbers).unwrap().len() > 0);
            send(name, child.id());
            assert_eq!(child.wait().expect("its end").signal(), Some(number), "{task}");
            until("the end of what the program started", || are_gone(&numbers));
        }
    }
}

#[test]
fn what_a_program_leaves_behind_is_ended_with_its_run() {
    let folder = Folder::new("again-left");
    let (program, numbers) =
        (folder.script("leaves", "#!/bin/sh\nsleep 600 &\necho $! >> \"$1\"\n"), folder.path("numbers"));
    succeeds(&mut mempool(["size", "--percent", "50", "--", &program, &numbers]));
    until("the end of what was left", || are_gone(&numbers));
    // One that has left the group lives on, and nobody waits until it has said all, which is when it ends. The program ends when it has left.
    let (leaver, away) =
        (folder.script("leaver", "#!/bin/sh\necho $$ >> \"$1\"\nexec sleep 600\n"), folder.path("away"));
    let script = "setsid \"$0\" \"$1\" & until grep -qsx $! \"$1\"; do sleep 0.01; done";
    succeeds(&mut mempool(["size", "--percent", "50", "--", "sh", "-c", script, &leaver, &away]));
    let all = std::fs::read_to_string(&away).expect("numbers");
    let (left, ended): (Vec<&str>, Vec<&str>) = all.lines().partition(|number| lives(number));
    left.iter().for_each(|number| send("KILL", number.parse().expect("a number")));
    assert!(!left.is_empty() && ended.is_empty(), "of {all:?} these have ended: {ended:?}");
}

#[test]
fn what_a_program_says_takes_no_memory_and_its_end_is_kept() {
    let source = r#"
#include <string.h>
#include <unistd.h>
#include <signal.h>
int main(void) {
    static char part[1 << 16];
    memset(part, 'x', sizeof part);
    for (int k = 0; k < 3200; k++) if (write(2, part, sizeof part) < 0) return 1;
    write(2, "\nthe end\n", 9);
    return raise(SIGKILL);
}
"#;
    let folder = Folder::new("again-said");
    let program = folder.compile("talks", source, &["-O1"]);
    // 200 MiB: no file, in memory or not, may have a third of them.
    let limited = format!("ulimit -f 131072; exec {} size -- {program}", common::MEMPOOL);
    assert_has(&fails(clean("sh").args(["-c", &limited]), 125), &["dies of SIGKILL", "xxx\nthe end\n"]);
}

#[test]
fn a_terminal_that_goes_away_changes_nothing() {
    let folder = Folder::new("again-terminal");
    let (ready, code) = (folder.path("ready"), folder.path("code"));
    // Standard error is a terminal at first; then each write to it fails.
    let inside = format!(
        "trap '' HUP; {} drill --max 1 -- sh -c 'echo >{ready}; sleep 1.5' >/dev/null; echo $? >{code}.new; mv {code}.new {code}",
        common::MEMPOOL
    );
    let mut terminal = clean("script");
    terminal.args(["-qec", &inside, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut terminal = terminal.spawn().expect("script, from the package bsdutils");
    until("a start", || Path::new(&ready).exists());
    send("KILL", terminal.id());
    terminal.wait().expect("its end");
    until("the command's end", || Path::new(&code).exists());
    assert_eq!(std::fs::read_to_string(&code).expect("a code"), "0\n");
}
