//! `mempool starve`: the pool's workers do everything, others do not.
#![allow(missing_docs)]

mod common;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Folder, assert_has, fails, mempool, run, send, stderr, stdout, terminal, until};
use serde_json::Value;

fn starve(arguments: &[&str]) -> (i32, Value) {
    let output = run(mempool(["starve", "--json"]).args(arguments));
    assert_eq!(stderr(&output), "", "a progress line, though this is no terminal");
    let text = stdout(&output);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    (output.status.code().expect("an exit code"), report)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// The runs of a kind.
fn runs<'a>(report: &'a Value, kind: &str) -> Vec<&'a Value> {
    report["runs"].as_array().expect("runs").iter().filter(|run| run["kind"] == kind).collect()
}

/// What holds of the pool's worker in any kind of starvation.
fn assert_whole(run: &Value) {
    assert_eq!((&run["allocator"], &run["done"]), (&Value::from("mempool"), &run["planned"]), "{run:#}");
    for count in ["failed", "wrong", "not_tried", "page_faults"] {
        assert_eq!(number(&run[count]), 0, "{count} in {run:#}");
    }
    assert_eq!((&run["ended"], number(&run["exit_code"])), (&Value::from("by itself"), 0));
}

#[test]
fn without_addresses_the_pool_does_all_and_glibc_does_not() {
    let (code, report) = starve(&["--seconds", "2", "--rounds", "3", "--kinds", "addresses", "--allocators", "glibc"]);
    assert_eq!((code, number(&report["exit_code"])), (0, 0), "{report:#}");
    let (quiet, starved) = (runs(&report, "quiet"), runs(&report, "addresses"));
    assert_eq!((quiet.len(), starved.len()), (2, 2));
    assert_eq!((number(&quiet[0]["rounds"]), number(&starved[0]["rounds"]), number(&starved[1]["rounds"])), (3, 3, 1));
    assert_whole(starved[0]);
    assert!(quiet.iter().all(|run| run["done"] == run["planned"] && number(&run["planned"]) == 2000), "{report:#}");
    let glibc = starved[1];
    assert!(number(&glibc["done"]) < 1500 && number(&glibc["wrong"]) == 0, "{glibc:#}");
    let sum: u64 = ["done", "failed", "wrong", "not_tried"].iter().map(|count| number(&glibc[count])).sum();
    assert_eq!(sum, 2000);
    for run in starved {
        // Nothing was left: the limit but for the process itself and the segment.
        assert!(number(&run["hog"]["bytes"]) > 100 << 20 && number(&run["hog"]["refused"]) > 0, "{run:#}");
        assert!(number(&run["starved_at_request"]) < 200, "{run:#}");
        let times = ["p50", "p99", "p99.9", "max"].map(|name| number(&run["latency_ns"][name]));
        assert!(times[0] > 0 && times.is_sorted(), "{times:?}");
    }
    assert!(number(&glibc["first_refused_bytes"]) > 0 || glibc["signal"].is_i64());
    let calls = &report["counted"][0]["memory_system_calls"];
    if calls.is_null() {
        eprintln!("system calls are not counted: no seccomp listener is allowed here");
    }
    assert!(calls.is_null() || (number(&calls["calls"]) == 0 && number(&calls["requests"]) > 200), "{calls}");
}

/// Each kind that takes place in a memory cgroup, where one can be made; where not, each is named with the reason.
#[test]
fn in_a_full_cgroup_the_pool_does_all() {
    let (code, report) =
        starve(&["--seconds", "1", "--kinds", "killer,sleep,throttle,cache,swap", "--allocators", "glibc"]);
    assert!(code == 0 || code == 3, "{report:#}");
    let reasons = report["left_out"].as_array().expect("reasons");
    for kind in ["killer", "sleep", "throttle", "cache", "swap"] {
        let runs = runs(&report, kind);
        let reason = reasons.iter().find(|reason| reason["kind"] == kind);
        match reason {
            Some(reason) => {
                eprintln!("{kind} is not tested: {}", reason["why"]);
                assert!(runs.is_empty() && reason["why"].as_str().expect("a reason").len() > 10, "{reason}")
            }
            None => {
                assert_eq!(runs.len(), 2, "{kind}");
                assert_whole(runs[0]);
                assert!(number(&runs[0]["hog"]["bytes"]) > 100 << 20 && runs[0]["starved_at_request"].is_u64());
            }
        }
        if kind == "sleep" && reason.is_none() {
            let glibc = runs[1];
            assert!(glibc["stopped"] == true && number(&glibc["not_tried"]) > 0, "{glibc:#}");
            assert_has(glibc["ended"].as_str().expect("words"), &["stopped for good"]);
        }
    }
}

#[test]
fn the_table_and_the_page_show_every_run() {
    let folder = Folder::new("starve");
    let page = folder.path("starve.html");
    let picture = folder.path("starve.svg");
    let arguments = ["--seconds", "1", "--limit", "300M", "--segment", "48M", "--kinds", "addresses", "--html", &page];
    let output = run(mempool(["starve", "--allocators", "glibc", "--svg", &picture]).args(arguments));
    let table = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{table}{}", stderr(&output));
    assert_has(
        &table,
        &["300 MiB", "RLIMIT_AS", "no hog", "mempool ", "glibc ", "p99.9", "wrong", "System calls about memory"],
    );
    assert_has(&table, &["On the pool all requests were done, none wrong, in every kind of starvation"]);
    assert!(!table.contains('\x1b') && stderr(&output).is_empty());
    let html = std::fs::read_to_string(&page).expect("a page");
    assert_has(&html, &["<!doctype html>", "<svg", "nothing is left", "RLIMIT_AS", "<title>glibc</title>", "</html>"]);
    let svg = std::fs::read_to_string(&picture).expect("a picture");
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("glibc") && !svg.contains("no hog"));
    let links = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!links.contains("http") && !html.contains("<script") && !html.contains("src="), "it needs something else");
}

#[test]
fn a_pool_that_is_too_small_is_reported_as_failed() {
    let arguments = ["--seconds", "1", "--segment", "4M", "--limit", "200M", "--kinds", "addresses"];
    let (code, report) = starve(&[&arguments[..], &["--allocators", "mempool"]].concat());
    assert_eq!(code, 1, "{report:#}");
    let pool = runs(&report, "addresses")[0];
    assert!(number(&pool["failed"]) + number(&pool["not_tried"]) > 0);
    assert_has(report["verdict"].as_str().unwrap(), &["The pool's worker failed", "--segment large enough?"]);
}

#[test]
fn what_cannot_be_done_here_is_named() {
    let (_, report) = starve(&["--seconds", "1", "--kinds", "swap,overcommit", "--allocators", "mempool"]);
    let reasons = report["left_out"].as_array().expect("reasons");
    for kind in ["swap", "overcommit"] {
        let ran = !runs(&report, kind).is_empty();
        assert!(ran || reasons.iter().any(|reason| reason["kind"] == kind), "{report:#}");
    }
}

#[test]
fn bad_arguments_are_refused() {
    let said = fails(&mut mempool(["starve", "--limit", "100M"]), 125);
    assert_has(&said, &["--limit is 100 MiB, but must be at least 128 MiB: the segment and room for the process"]);
    let said = fails(&mut mempool(["starve", "--limit", "4096T"]), 125);
    assert_has(&said, &["--limit is 4096 TiB, but may be at most ", "three quarters", "available", "fix: --limit "]);
    assert_has(&fails(&mut mempool(["starve", "--limit", "16E"]), 125), &["--limit", "unknown unit; use K, M, G, T"]);
    assert_has(&fails(&mut mempool(["starve", "--limit", "99999999T"]), 125), &["more bytes than an address"]);
    assert_has(
        &fails(&mut mempool(["starve", "--segment", "100"]), 125),
        &["segment is 100 bytes, but must be from 256 KiB"],
    );
    assert_has(&fails(&mut mempool(["starve", "--seconds", "0"]), 125), &["--seconds", "1..=600"]);
    assert_has(&fails(&mut mempool(["starve", "--rounds", "0"]), 125), &["--rounds", "1..=99"]);
    assert_has(&fails(&mut mempool(["starve", "--limit", "1GB"]), 125), &["--limit", "KB, MB, GB and TB mean"]);
    assert_has(&fails(&mut mempool(["starve", "--kinds", "hunger"]), 125), &["no such kind", "killer, sleep"]);
    assert_has(&fails(&mut mempool(["starve", "--allocators", "x"]), 125), &["no such allocator", "mempool, glibc"]);
}

/// Cgroups of `process` below `folder`.
fn cgroups(folder: &Path, process: u32, depth: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    folders
        .flat_map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let own = name.starts_with(&format!("mempool-starve-{process}-"));
            let below = if depth > 0 { cgroups(&path, process, depth - 1) } else { Vec::new() };
            own.then_some(path).into_iter().chain(below)
        })
        .collect()
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let of = |process| cgroups(Path::new("/sys/fs/cgroup"), process, 6);
    for (signal, kind) in
        [(libc::SIGINT, "killer"), (libc::SIGTERM, "sleep"), (libc::SIGHUP, "cache"), (libc::SIGTERM, "addresses")]
    {
        let mut command = mempool(["starve", "--seconds", "5", "--allocators", "mempool", "--kinds", kind]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begin = std::time::Instant::now();
        // Behind a quiet run; where no cgroup can be made there is only that.
        let inside =
            |path: &PathBuf| std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|all| !all.is_empty());
        while !of(child.id()).iter().any(inside) && begin.elapsed().as_secs() < 9 && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let workers = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
        assert!(!workers.is_empty(), "{kind}");
        send(child.id(), signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal), "{kind}");
        assert!(of(child.id()).is_empty(), "{kind}");
        until("the workers' end", || !workers.split_whitespace().any(common::lives));
    }
}

/// The mask is another one while it runs, and the same afterwards, however it ends; where it may not be set that is said.
#[test]
fn the_kernels_work_is_kept_off_for_the_time_of_a_run() {
    let mask = || std::fs::read_to_string("/sys/devices/virtual/workqueue/cpumask").unwrap_or_default();
    let before = mask();
    for signal in [None, Some(libc::SIGTERM)] {
        let mut command =
            mempool(["starve", "--isolate", "--seconds", "2", "--kinds", "quiet", "--allocators", "glibc"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let begin = std::time::Instant::now();
        while mask() == before && child.try_wait().unwrap().is_none() && begin.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if mask() == before {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(125));
            assert_has(&stderr(&output), &["--isolate", "fix: "]);
            continue;
        }
        signal.into_iter().for_each(|signal| send(child.id(), signal));
        let status = child.wait().unwrap();
        assert_eq!((status.signal(), status.code()), (signal, signal.is_none().then_some(3)));
        assert_eq!(mask(), before);
    }
}

#[test]
fn a_terminal_that_goes_away_is_no_failure() {
    let (mut shown, written) = terminal();
    let mut command = mempool(["starve", "--seconds", "1", "--kinds", "quiet", "--allocators", "glibc", "--json"]);
    let child = command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(written).spawn().unwrap();
    drop(command);
    shown.read_exact(&mut [0; 10]).expect("a progress line");
    drop(shown);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "nothing is taken away, and nothing shown");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(runs(&report, "quiet").len(), 2);
}

/// The environment's settings are the pool's, but for those that the command sets itself; none is ignored without a word.
#[test]
fn settings_of_the_environment_hold() {
    let starve = || mempool(["starve", "--seconds", "1", "--kinds", "quiet", "--allocators", "mempool"]);
    assert_has(&fails(starve().env("MEMPOOL_SEGMNT", "1M"), 125), &["did you mean MEMPOOL_SEGMENT?"]);
    assert_has(&fails(starve().env("MEMPOOL_LOCK", "maybe"), 125), &["MEMPOOL_LOCK=maybe: accepted: off, try"]);
    let said = fails(starve().env("MEMPOOL_MAX_SEGMENT", "1G"), 125);
    assert_has(&said, &["max_segment", "fix: `mempool starve` sets segment, exhausted, process, name; unset"]);
    let said = fails(starve().env("MEMPOOL_EXHAUSTED", "abort"), 3);
    assert_eq!(
        said,
        "mempool: MEMPOOL_EXHAUSTED does not count: `mempool starve` sets segment, exhausted, process, name\n"
    );
    let said = fails(starve().env("MEMPOOL_FAIL_ABOVE", "1"), 1);
    assert_eq!(said, "", "the pool is the one that was asked for, and fails");
}
