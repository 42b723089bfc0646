//! `mempool starve`: the pool's workers do everything, others do not.
#![allow(missing_docs)]

mod common;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use common::{Folder, assert_has, fails, mempool, run, send, stderr, stdout, terminal, until};
use serde_json::Value;

fn starve(arguments: &[&str]) -> (i32, Value) {
    let output = run(mempool(["starve", "--json"]).args(arguments));
    assert_eq!(stderr(&output), "", "a progress line, though this is no terminal");
    let text = stdout(&output);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    (output.status.code().expect("an exit code"), report)
}

/// The report of runs that are so long, of `lengths` in seconds, that the hogs took everything while there was time to feel it, as `told` sees in the
/// report. How long that takes is the machine's matter. What holds of all runs is checked of those that were too short, too, by `each`.
fn starve_long_enough(
    lengths: [&str; 3],
    arguments: &[&str],
    each: impl Fn(i32, &Value),
    told: impl Fn(&Value) -> bool,
) -> Value {
    let mut report = Value::Null;
    for seconds in lengths {
        let code;
        (code, report) = starve(&[&["--seconds", seconds], arguments].concat());
        each(code, &report);
        if told(&report) {
            break;
        }
    }
    report
}

/// Whether the hog had taken all when at most one in `part` of the requests was begun.
fn is_starved_before(run: &Value, part: u64) -> bool {
    run["starved_at_request"].as_u64().is_some_and(|request| request * part < number(&run["planned"]))
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
    let each = |code: i32, report: &Value| {
        // 3: nobody was starved.
        assert!(report["exit_code"] == code && (code == 0 || code == 3), "{report:#}");
        assert_whole(runs(report, "addresses")[0]);
        let quiet = runs(report, "quiet");
        assert!(quiet.len() == 2 && quiet.iter().all(|run| run["done"] == run["planned"]), "{report:#}");
    };
    // While the load still grows for the first time.
    let told = |report: &Value| runs(report, "addresses").iter().all(|run| is_starved_before(run, 10));
    let arguments = ["--rounds", "3", "--kinds", "addresses", "--allocators", "glibc"];
    let report = starve_long_enough(["2", "8", "32"], &arguments, each, told);
    assert_eq!(number(&report["exit_code"]), 0, "{report:#}");
    let (quiet, starved) = (runs(&report, "quiet"), runs(&report, "addresses"));
    assert_eq!(starved.len(), 2);
    assert_eq!((number(&quiet[0]["rounds"]), number(&starved[0]["rounds"]), number(&starved[1]["rounds"])), (3, 3, 1));
    let (planned, glibc) = (number(&quiet[0]["planned"]), starved[1]);
    assert_eq!(planned, number(&report["plan"]["milliseconds"]));
    assert!(number(&glibc["done"]) < planned / 4 * 3 && number(&glibc["wrong"]) == 0, "{glibc:#}");
    let sum: u64 = ["done", "failed", "wrong", "not_tried"].iter().map(|count| number(&glibc[count])).sum();
    assert_eq!(sum, planned);
    for run in starved {
        // Nothing was left: the limit but for the process itself and the segment.
        assert!(number(&run["hog"]["bytes"]) > 100 << 20 && number(&run["hog"]["refused"]) > 0, "{run:#}");
        assert!(is_starved_before(run, 10), "{run:#}");
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
    const KINDS: [&str; 5] = ["killer", "sleep", "throttle", "cache", "swap"];
    let each = |code: i32, report: &Value| {
        assert!(code == 0 || code == 3, "{report:#}");
        KINDS.iter().filter_map(|kind| runs(report, kind).first().copied()).for_each(assert_whole);
    };
    let stops = |run: &Value| run["stopped"] == true && number(&run["not_tried"]) > 0;
    // Who needs no more than at the first peak of the load, an eighth behind the beginning, does not feel what is taken later.
    let told = |report: &Value| {
        let felt = runs(report, "sleep").get(1).is_none_or(|glibc| stops(glibc) || is_starved_before(glibc, 8));
        felt && KINDS.iter().filter_map(|kind| runs(report, kind).first().copied()).all(|run| is_starved_before(run, 2))
    };
    let arguments = ["--kinds", &KINDS.join(","), "--allocators", "glibc"];
    let report = starve_long_enough(["1", "5", "25"], &arguments, each, told);
    let reasons = report["left_out"].as_array().expect("reasons");
    for kind in KINDS {
        let runs = runs(&report, kind);
        let reason = reasons.iter().find(|reason| reason["kind"] == kind);
        match reason {
            Some(reason) => {
                eprintln!("{kind} is not tested: {}", reason["why"]);
                assert!(runs.is_empty() && reason["why"].as_str().expect("a reason").len() > 10, "{reason}")
            }
            None => {
                assert_eq!(runs.len(), 2, "{kind}");
                assert!(number(&runs[0]["hog"]["bytes"]) > 100 << 20 && is_starved_before(runs[0], 2), "{:#}", runs[0]);
            }
        }
        if kind == "sleep" && reason.is_none() {
            let glibc = runs[1];
            assert!(stops(glibc), "{glibc:#}");
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

/// Waits until `seen`, or the command has ended.
fn until_ended(child: &mut Child, mut seen: impl FnMut(u32) -> bool) {
    while !seen(child.id()) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_signal_leaves_nothing_behind() {
    let of = |process| cgroups(Path::new("/sys/fs/cgroup"), process, 6);
    for (signal, kind) in
        [(libc::SIGINT, "killer"), (libc::SIGTERM, "sleep"), (libc::SIGHUP, "cache"), (libc::SIGTERM, "addresses")]
    {
        let start = || {
            let mut command = mempool(["starve", "--seconds", "5", "--allocators", "mempool", "--kinds", kind]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let workers = |process: u32| {
            std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default()
        };
        let inside =
            |path: &PathBuf| std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|all| !all.is_empty());
        let is_limited = |worker: &str| {
            let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).unwrap_or_default();
            limits.lines().any(|line| line.starts_with("Max address space") && !line.contains("unlimited"))
        };
        let mut child = start();
        // Behind a quiet run.
        until_ended(&mut child, |process| {
            of(process).iter().any(inside) || workers(process).split_whitespace().any(is_limited)
        });
        if let Some(status) = child.try_wait().unwrap() {
            // Where no cgroup can be made there is only that.
            assert!(matches!(status.code(), Some(0 | 3)), "{kind}: {status}");
            child = start();
            until_ended(&mut child, |process| !workers(process).is_empty());
        }
        let workers = workers(child.id());
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
    // The second is ended long before its time.
    for (signal, seconds) in [(None, "2"), (Some(libc::SIGTERM), "60")] {
        let mut command =
            mempool(["starve", "--isolate", "--seconds", seconds, "--kinds", "quiet", "--allocators", "glibc"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        until_ended(&mut child, |_| mask() != before);
        let ended = child.try_wait().unwrap().is_some();
        signal.filter(|_| !ended).into_iter().for_each(|signal| send(child.id(), signal));
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(125) => assert_has(&stderr(&output), &["--isolate", "fix: "]),
            // By itself, where the mask was not to be seen changed: it left that processor out before.
            Some(code) => assert!(code == 3 && (signal.is_none() || ended), "{code}"),
            None => assert_eq!(output.status.signal(), signal),
        }
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
