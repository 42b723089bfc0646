//! Being really there, through `mempool run`: what was asked for and what was got, on the real system.
#![allow(missing_docs)]

mod common;

use common::{MEMPOOL, assert_has, clean, fails, mempool, run, stderr, stdout};

/// The command with an 8 MiB lock limit and without the right to go beyond it.
fn without_rights(arguments: &[&str]) -> std::process::Command {
    let root = stdout(&run(clean("id").arg("-u"))).trim() == "0";
    let mut command = if root { clean("setpriv") } else { clean("prlimit") };
    if root {
        command.args(["--bounding-set=-ipc_lock,-sys_resource", "prlimit"]);
    }
    command.args(["--memlock=8388608:8388608", MEMPOOL]).args(arguments);
    command
}

/// The line of the pool's table that begins with `name`.
fn line(table: &str, name: &str) -> String {
    let found = table.lines().find(|line| line.trim_start().starts_with(name));
    found.unwrap_or_else(|| panic!("no line {name:?} in:\n{table}")).to_owned()
}

fn kib(status: &str, name: &str) -> usize {
    line(status, name).split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a figure")
}

#[test]
fn a_lock_that_is_required_and_refused_names_need_limit_and_every_way_out() {
    let said = fails(&mut without_rights(&["run", "--segment", "64M", "--lock", "required", "--", "true"]), 125);
    assert_has(
        &said,
        &["cannot lock", "MiB", "the lock limit, for all that the process locks, is 8 MiB", "may raise that to 8 MiB"],
    );
    assert_has(&said, &["ulimit -l", "limits.conf", "LimitMEMLOCK=", "--ulimit memlock", "CAP_IPC_LOCK", "lock=try"]);
}

#[test]
fn a_lock_that_is_tried_and_refused_is_reported() {
    let output = run(&mut without_rights(&["run", "--segment", "64M", "--stats", "--", "true"]));
    assert!(output.status.success());
    assert_has(&line(&stderr(&output), "lock "), &["try: 0 bytes locked; cannot lock 64 MiB"]);
    assert_has(
        &line(&stderr(&output), "lock "),
        &["the lock limit, for all that the process locks, is 8 MiB", "may raise that to 8 MiB", "ulimit -l"],
    );
    let said = fails(&mut without_rights(&["run", "--segment", "64M", "--strict", "--", "true"]), 125);
    assert_has(&said, &["cannot lock"]);
}

#[test]
fn the_segment_is_present_and_locked_before_the_program_begins() {
    let output =
        run(&mut mempool(["run", "--segment", "64M", "--lock", "try", "--stats", "--", "cat", "/proc/self/status"]));
    let (status, table) = (stdout(&output), stderr(&output));
    assert!(kib(&status, "VmRSS:") >= 63 << 10, "{status}");
    let locked: usize = line(&table, "lock ").split_whitespace().nth(2).and_then(|word| word.parse().ok()).unwrap();
    assert!(kib(&status, "VmLck:") * 1024 >= locked, "{status}{table}");
    assert_has(&line(&table, "commit "), &["eager: 6", "bytes present at init"]);
}

#[test]
fn process_locks_the_program_too_or_says_why_not() {
    let arguments = ["run", "--segment", "16M", "--process", "--stats", "--", "cat", "/proc/self/status"];
    let output = run(&mut mempool(arguments));
    let (status, table) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{table}");
    let program: usize = line(&table, "process ").split_whitespace().nth(2).and_then(|word| word.parse().ok()).unwrap();
    let whole = !line(&table, "process ").contains("failed");
    assert!(!whole || (program > 1 << 20 && kib(&status, "VmLck:") * 1024 > program + (15 << 20)), "{status}{table}");
    assert_has(&line(&table, "stack "), &["1 MiB: present"]);
    assert!(kib(&status, "VmStk:") >= 1024, "{status}");
    assert_has(&line(&table, "score "), &["-900: "]);
    // Without rights: refused part by part, and the program runs all the same.
    let output = run(&mut without_rights(&arguments));
    assert!(output.status.success());
    let table = stderr(&output);
    assert_has(&line(&table, "process "), &["failed"]);
    assert_has(&line(&table, "score "), &["not granted", "failed"]);
}

#[test]
fn huge_pages_that_are_not_set_aside_are_an_error_at_init_and_never_a_crash() {
    // More than any machine that runs tests has set aside.
    let arguments = ["run", "--segment", "1T", "--huge-page-size", "1G", "--huge-pages", "required", "--", "true"];
    let said = fails(&mut mempool(arguments), 125);
    assert_has(&said, &["cannot get 1024 huge OS pages of 1 GiB", "are free", "nr_hugepages"]);
    let arguments = ["run", "--segment", "16M", "--huge-page-size", "2M", "--stats", "--", "true"];
    let output = run(&mut mempool(arguments));
    assert!(output.status.success(), "{}", stderr(&output));
    let line = line(&stderr(&output), "huge pages ");
    assert!(line.contains("16777216 bytes in huge OS pages") || line.contains("mmap failed"), "{line}");
}

#[test]
fn huge_pages_that_no_part_of_the_segment_has_room_for_are_an_error_if_required() {
    for segment in ["1M", "3M", "4M"] {
        for more in [&[][..], &["--strict"]] {
            let arguments = ["run", "--segment", segment, "--huge-pages", "required"];
            let said = fails(mempool(arguments).args(more).args(["--", "true"]), 125);
            // A kernel without them has other words.
            assert!(said.contains("huge OS page"), "{said}");
        }
    }
}

#[test]
fn process_with_a_required_lock_that_has_no_room_for_the_program_is_an_error() {
    let arguments = ["run", "--segment", "7M", "--process", "--lock", "required", "--", "true"];
    let said = fails(&mut without_rights(&arguments), 125);
    assert_has(&said, &["cannot lock", "is 8 MiB", "may raise that to 8 MiB", "ulimit -l", "LimitMEMLOCK="]);
}

#[test]
fn nodes_that_do_not_exist_are_refused() {
    let output = run(&mut mempool(["run", "--segment", "16M", "--numa", "63", "--stats", "--", "true"]));
    if output.status.success() {
        // A container that may not place memory at all, there or elsewhere.
        assert_has(&line(&stderr(&output), "numa "), &["63: not set; mbind failed", "EPERM"]);
    } else {
        assert_eq!(output.status.code(), Some(125));
        assert_has(&stderr(&output), &["on its nodes", "mbind", "has_memory"]);
    }
    assert_has(
        &fails(&mut mempool(["run", "--numa", "63", "--strict", "--", "true"]), 125),
        &["on its nodes", "mbind"],
    );
}

#[test]
fn more_than_the_machine_has_is_an_error_with_figures() {
    let said = fails(&mut mempool(["run", "--segment", "8T", "--", "true"]), 125);
    assert_has(&said, &["present: ", "available", "commit=lazy"]);
    assert!(run(&mut mempool(["run", "--segment", "64M", "--commit", "lazy", "--", "true"])).status.success());
}
