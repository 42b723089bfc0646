//! `mempool bench` from outside: what it measures, what it says when an allocator does wrong, dies or is not there.
#![allow(missing_docs)]

mod common;

use std::os::unix::process::ExitStatusExt;

use common::{Folder, assert_has, clean, fails, lives, mempool, run, send, stderr, stdout, succeeds, until};
use serde_json::Value;

/// A benchmark of little work.
fn little(arguments: &[&str]) -> std::process::Command {
    let mut command = mempool(["bench"]);
    for (flag, value) in [("--rounds", "2"), ("--scale", "0.01"), ("--threads", "2"), ("--json", "-")] {
        if !arguments.contains(&flag) {
            command.args([flag, value]);
        }
    }
    command.args(arguments);
    command
}

fn json(arguments: &[&str]) -> Value {
    let text = succeeds(&mut little(arguments));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
}

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name} in:\n{report:#}"))
}

fn result<'a>(row: &'a Value, contender: &str) -> &'a Value {
    let results = row["results"].as_array().expect("results");
    results.iter().find(|result| result["contender"] == contender).unwrap_or_else(|| panic!("no {contender}"))
}

#[test]
fn json_has_every_figure_of_every_run() {
    let report = json(&["--allocators", "pool,system", "--only", "replace-1e3,births"]);
    for field in ["format", "command", "machine", "rounds", "contenders", "missing", "rows", "summary"] {
        assert!(!report[field].is_null(), "no {field} in:\n{report:#}");
    }
    assert!(report["machine"]["cores"].as_u64() > Some(0));
    for (name, contender) in [("replace-1e3", "pool"), ("births", "system")] {
        let row = row(&report, name);
        let result = result(row, contender);
        assert_eq!(result["runs"].as_array().map(Vec::len), Some(2), "two rounds");
        for run in result["runs"].as_array().unwrap() {
            for field in ["seconds", "process_seconds", "peak_bytes", "operations"] {
                assert!(run[field].as_f64() > Some(0.0), "{field} in {run:#}");
            }
            assert!(run["process_seconds"].as_f64() >= run["seconds"].as_f64());
        }
        let sums = row["results"].as_array().unwrap().iter().map(|result| &result["runs"][1]["checksum"]);
        assert!(sums.clone().all(|sum| Some(sum) == sums.clone().next()), "{row:#}");
        assert!(result["calls"]["count"].is_u64(), "{result:#}");
    }
    let births = result(row(&report, "births"), "pool");
    let each = births["calls"]["count"].as_f64().unwrap() / births["calls"]["operations"].as_f64().unwrap();
    assert!(each > 3.0 / 200.0, "each thread of 200 operations makes more than three calls: {each}");
    assert!(report["summary"]["time"]["mean_to_best"].as_f64() > Some(0.0));
    assert_eq!(report["summary"]["time"]["duels"][0]["peer"], "system");
}

#[test]
fn a_ready_pool_neither_calls_nor_faults_and_every_operation_is_timed() {
    let report = json(&["--allocators", "pool,system", "--only", "steady-small", "--set", "pairs=1M"]);
    let pool = result(row(&report, "steady-small"), "pool");
    // Beginning and end of the measured part are seen by the threads: a barrier, and two that end.
    assert!(pool["calls"]["count"].as_u64() < Some(60), "{}", pool["calls"]);
    let run = &pool["runs"][0];
    assert!(run["minor_faults"].as_u64() < Some(20) && run["major_faults"] == 0, "{run:#}");
    for operation in ["malloc", "free", "empty"] {
        let quantiles = &run["latency_ns"][operation];
        let at = |name: &str| quantiles[name].as_f64().unwrap_or_else(|| panic!("{name} in {quantiles:#}"));
        assert!(at("p50") > 0.0 && at("p50") <= at("p99.9") && at("p99.9") <= at("max"), "{quantiles:#}");
        assert_eq!(quantiles["count"].as_u64(), Some(2 * 10485), "{operation}");
    }
}

#[test]
fn named_caches_compete_with_slab_crates() {
    let report = json(&["--allocators", "pool,system", "--only", "caches*"]);
    for contender in ["pool", "system", "slab", "sharded-slab"] {
        assert!(result(row(&report, "caches"), contender)["error"].is_null(), "{contender}");
    }
    let arrays = row(&report, "caches-arrays")["results"].as_array().unwrap().len();
    assert_eq!(arrays, 2, "slab crates have no arrays");
}

/// A preload library from C.
fn peer(folder: &Folder, name: &str, source: &str) -> String {
    let library = folder.compile(name, source, &["-shared", "-fPIC", "-O1"]);
    format!("{name}={library}")
}

const HEAD: &str = "#include <stddef.h>\n#include <string.h>\n#include <signal.h>\nstatic char heap[1 << 29] __attribute__((aligned(4096)));\nstatic size_t top;\n";
const TAIL: &str = "void free(void *p) { (void)p; }
void *calloc(size_t n, size_t s) { return malloc(n * s); }
void *realloc(void *p, size_t n) { void *q = malloc(n); if (p) memcpy(q, p, n); return q; }
void *aligned_alloc(size_t a, size_t n) { return malloc(n + 0 * a); }
";

#[test]
fn who_does_other_work_is_told() {
    let folder = Folder::new("bench-wrong");
    // Objects of 77 bytes overlap one another, and nothing else.
    let source = "static char odd[1 << 26]; static size_t odds;
        void *malloc(size_t n) { if (n == 77) return odd + __atomic_fetch_add(&odds, 4, __ATOMIC_RELAXED);
        return heap + __atomic_fetch_add(&top, ((n + 31) & ~15ul), __ATOMIC_RELAXED); }\n";
    let wrong = peer(&folder, "wrong", &format!("{HEAD}{source}{TAIL}"));
    let arguments =
        ["--peer", &wrong, "--allocators", "system,wrong", "--only", "replace-1e2", "--set", "least=77,most=77"];
    let output = run(&mut little(&arguments));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let error = &result(row(&report, "replace-1e2"), "wrong")["error"];
    assert_has(error.as_str().unwrap(), &["checksum ", " is right"]);
    assert!(result(row(&report, "replace-1e2"), "system")["error"].is_null());
}

#[test]
fn memory_that_is_not_zero_or_not_aligned_is_told() {
    let folder = Folder::new("bench-dirty");
    let source =
        "void *malloc(size_t n) { char *p = heap + __atomic_fetch_add(&top, ((n + 31) & ~15ul), __ATOMIC_RELAXED);
        p[n / 2] = 1; return p; }\n";
    let dirty = peer(&folder, "dirty", &format!("{HEAD}{source}{TAIL}"));
    let arguments = ["--peer", &dirty, "--allocators", "system,dirty", "--only", "calloc,aligned", "--scale", "0.001"];
    let output = run(&mut little(&arguments));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_has(result(row(&report, "calloc"), "dirty")["error"].as_str().unwrap(), &["objects were not zero"]);
    assert_has(result(row(&report, "aligned"), "dirty")["error"].as_str().unwrap(), &["addresses were not aligned"]);
}

#[test]
fn who_dies_is_reported_with_the_signal() {
    let folder = Folder::new("bench-dies");
    let source = "void *malloc(size_t n) { if (top > 400000) raise(SIGSEGV);
        return heap + __atomic_fetch_add(&top, ((n + 31) & ~15ul), __ATOMIC_RELAXED); }\n";
    let dies = peer(&folder, "dies", &format!("{HEAD}{source}{TAIL}"));
    let arguments = ["--peer", &dies, "--allocators", "system,dies", "--only", "replace-1e4"];
    let output = run(&mut little(&arguments));
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_has(result(row(&report, "replace-1e4"), "dies")["error"].as_str().unwrap(), &["killed by SIGSEGV"]);
}

#[test]
fn signals_that_end_the_command_are_the_programs_own_too() {
    for (name, signal) in [("TERM", "killed by SIGTERM"), ("QUIT", "killed by signal 3")] {
        let script = format!("ulimit -c 0; kill -{name} $$");
        let output = run(&mut little(&["--allocators", "system", "--", "sh", "-c", &script]));
        assert_eq!(output.status.code(), Some(1));
        assert_has(&stdout(&output), &[signal]);
    }
}

#[test]
fn an_exhausted_pool_is_reported_with_what_it_said() {
    // One thread: of two that are refused at once, one may end the process before the other has written the verdict.
    let arguments = ["--threads", "1", "--allocators", "pool,system", "--only", "steady", "--set", "live=1M"];
    let output = run(&mut little(&arguments));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_has(result(row(&report, "steady"), "pool")["error"].as_str().unwrap(), &["exit code 3", "exhausted"]);
}

/// What the benchmark needs it sets itself; what it does not set is the user's; what cannot be read is an error.
#[test]
fn settings_of_the_environment_hold_where_the_benchmark_has_none() {
    let protocol = || little(&["--allocators", "pool,system", "--only", "protocol,steady-small", "--rounds", "1"]);
    let own =
        [("EXHAUSTED", "null"), ("SEGMENT", "1M"), ("MAX_SEGMENT", "0"), ("COMMIT", "eager"), ("SMALL", "system")];
    for (name, value) in own {
        let output = run(protocol().env(format!("MEMPOOL_{name}"), value));
        assert_eq!(output.status.code(), Some(0), "{name}: {}{}", stderr(&output), stdout(&output));
        let said =
            format!("MEMPOOL_{name} does not count: `mempool bench` sets small, commit, lock, exhausted, segment");
        assert_has(&stderr(&output), &[&said]);
    }
    assert_has(&fails(protocol().env("MEMPOOL_SEGMNT", "1M"), 125), &["did you mean MEMPOOL_SEGMENT?"]);
    let said = fails(protocol().env("MEMPOOL_HUGE_PAGES", "required"), 125);
    assert_has(&said, &["huge_pages=required needs commit=eager", "fix: `mempool bench` sets small, commit, "]);
    let report = run(protocol().env("MEMPOOL_FAIL_NTH", "1").env("MEMPOOL_FAIL_ABOVE", "1"));
    assert_eq!(report.status.code(), Some(1), "the pool is the one that was asked for");
}

#[test]
fn nobody_who_listens_is_no_failure() {
    let arguments = ["--allocators", "pool,system", "--only", "protocol"];
    // Without a PATH real programs are missing, which is said.
    let words = "exec \"$0\" \"$@\" 2>/dev/full";
    let mut command = clean("/bin/sh");
    command.args(["-c", words, common::MEMPOOL]).args(little(&arguments).get_args()).env("PATH", "/nowhere");
    let report: Value = serde_json::from_str(&succeeds(&mut command)).unwrap();
    assert!(result(row(&report, "protocol"), "pool")["error"].is_null());
}

#[test]
fn a_signal_leaves_nothing_behind() {
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
        let folder = Folder::new(&format!("bench-signal-{signal}"));
        let (script, note) = ("sleep 300 & echo $! >$0.new; mv $0.new $0; wait", folder.path("note"));
        let mut command = little(&["--allocators", "pool,system", "--", "sh", "-c", script, &note]);
        let mut child = command.env("TMPDIR", &folder.0).spawn().unwrap();
        let count = || std::fs::read_dir(&folder.0).unwrap().count();
        until("the program's start", || std::path::Path::new(&note).exists());
        let sleeper = std::fs::read_to_string(&note).unwrap();
        assert!(lives(sleeper.trim()) && count() == 2, "the folder and the note");
        send(child.id(), signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        until("the program's end", || !lives(sleeper.trim()));
        assert_eq!(count(), 1, "the note alone");
    }
}

/// The dynamic linker goes on without a library that it cannot load: that would compare the C library with itself.
#[test]
fn an_allocator_that_does_not_serve_has_no_figures() {
    let folder = Folder::new("bench-absent");
    // A program, which looks like a library and cannot be loaded as one.
    let source = "void *malloc(unsigned long n) { return 0; } void mempool_preload_contains(void) {} int main(void) {}";
    let library = folder.compile("absent.so", source, &["-pie", "-fPIE", "-rdynamic", "-fno-builtin"]);
    let peer = format!("absent={library}");
    let arguments = ["--peer", &peer, "--allocators", "pool,absent,system", "--only", "protocol"];
    let output = run(little(&arguments).env("MEMPOOL_LIBRARY", &library));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    for contender in ["pool", "absent"] {
        let result = result(row(&report, "protocol"), contender);
        assert_has(
            result["error"].as_str().expect("an error"),
            &["malloc is served by ", "/libc.so.6, not by ", &library],
        );
        assert!(result["runs"].as_array().unwrap().is_empty(), "{result:#}");
    }
    let mut command = little(&["--peer", "libc=/etc/passwd"]);
    assert_has(&fails(&mut command, 125), &["/etc/passwd: is no shared library; give a library that has malloc"]);
}

#[test]
fn who_is_missing_is_said() {
    // The peers that the build script makes are not beside the command under test.
    let output =
        run(mempool(["bench", "--rounds", "1", "--scale", "0.001", "--only", "protocol"]).env("PATH", "/usr/bin"));
    let (said, shown) = (stderr(&output), stdout(&output));
    for name in ["jemalloc", "tcmalloc", "mimalloc2", "mimalloc3", "snmalloc", "rpmalloc"] {
        let told = said.contains(&format!("not found: {name}; to get it: "));
        let took_part = shown.lines().any(|line| line.contains(" pool ") && line.contains(name));
        assert!(told != took_part, "{name} is neither there nor missing:\n{said}{shown}");
    }
}

#[test]
fn a_program_of_the_users_runs_under_each() {
    let text = succeeds(&mut little(&["--allocators", "pool,system", "--", "sh", "-c", "echo hello"]));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result(row(&report, "sh"), "pool")["runs"].as_array().unwrap().len(), 2);
    // The command of a report can be pasted.
    assert_has(report["command"].as_str().expect("a command"), &["mempool bench --", " -- sh -c 'echo hello'"]);
    let said = fails(&mut little(&["--", "no-such-program"]), 127);
    assert_has(&said, &["no-such-program: no such program"]);
    let output = run(&mut little(&["--allocators", "system", "--", "sh", "-c", "exit 7"]));
    assert_eq!(output.status.code(), Some(1));
    assert_has(&stdout(&output), &["exit code 7"]);
}

#[test]
fn real_programs_do_the_same_under_each() {
    let report = json(&["--allocators", "pool,system", "--only", "redis,sqlite,python,gcc", "--rounds", "1"]);
    for program in ["redis", "sqlite", "python", "gcc"] {
        for contender in ["pool", "system"] {
            let result = result(row(&report, program), contender);
            assert!(result["error"].is_null(), "{program}: {result:#}");
            assert!(result["runs"][0]["seconds"].as_f64() > Some(0.0));
        }
    }
}

#[test]
fn bad_orders_are_refused_with_the_way_out() {
    for (arguments, parts) in [
        (["--only", "nothing"], ["matches no row", "--list"]),
        (["--allocators", "nobody"], ["no allocator nobody", "there are pool, "]),
        (["--set", "nothing=3"], ["has no parameter nothing", "it has count, most"]),
        (["--peer", "x=/no/such"], ["/no/such", "No such file"]),
        (["--from", "/etc/passwd"], ["/etc/passwd", "--json FILE"]),
        (["--json=-", "--json=x"], ["--json", "cannot be used multiple times"]),
    ] {
        assert_has(&fails(&mut little(&arguments), 125), &parts);
    }
}

#[test]
fn a_report_is_shown_again_from_its_file() {
    let folder = Folder::new("bench-again");
    let path = folder.path("report.json");
    let mut first =
        mempool(["bench", "--rounds", "1", "--scale", "0.01", "--allocators", "pool,system", "--only", "maps"]);
    let shown = succeeds(first.args(["--json", &path]));
    assert_eq!(succeeds(&mut mempool(["bench", "--from", &path])), shown);
    assert_has(&shown, &["maps x", "Time", "Peak memory", "The pool's time"]);
    assert!(!shown.contains('\x1b'), "no colours but on a terminal");
}

#[test]
fn the_list_has_every_row_with_its_paragraph() {
    let text = succeeds(&mut mempool(["bench", "--list"]));
    assert_has(
        &text,
        &["protocol, threaded", "replace-1e6", "pipe-many-shuffled", "--set live=100000", "redis, sqlite"],
    );
    assert!(text.lines().filter(|line| !line.starts_with(' ')).count() > 30);
}

#[test]
fn quick_is_under_a_minute() {
    let mut command = clean(common::MEMPOOL);
    let output = run(command.args(["bench", "--quick", "--json"]));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() > 25);
    // A minute as the clock has it is the matter of a machine that nobody else uses. Anywhere the work of one round has a bound, and no further
    // one is begun that would end after 45 s.
    let results = || rows.iter().flat_map(|row| row["results"].as_array().unwrap());
    let rounds = results().map(|result| result["runs"].as_array().unwrap().len()).max().unwrap();
    let of_round =
        |round: usize, field: &str| results().filter_map(|result| result["runs"][round][field].as_f64()).sum::<f64>();
    let work = of_round(0, "cpu_seconds");
    assert!((1..=3).contains(&rounds) && work > 0.0 && work < 60.0, "{rounds} rounds, {work} s of processors each");
    let before: f64 = (1..rounds).map(|round| of_round(round - 1, "process_seconds")).sum();
    assert!(rounds == 1 || before * rounds as f64 / (rounds - 1) as f64 <= 45.0, "{rounds} rounds: {before} s");
}

#[test]
fn what_only_a_pool_has_is_measured() {
    // A small share of the work: what is checked is that each figure is there and can be true.
    let report = json(&["--allocators", "pool,system", "--only", "none", "--pool", "--scale", "0.05"]);
    let measures = report["pool"].as_array().expect("measures");
    let find = |part: &str| {
        let measure = measures.iter().find(|measure| measure["name"].as_str().unwrap().contains(part));
        measure.unwrap_or_else(|| panic!("no {part}"))["figures"].as_array().unwrap()
    };
    for (part, low, high) in [
        ("peak live bytes, one thread", 1.0, 4.0),
        ("peak live bytes, 8 threads", 1.0, 8.0),
        ("alive at the first refusal", 0.05, 1.0),
        ("Making 1 GiB ready", 0.01, 1_000.0),
        ("size of the segment", 0.5, 1e6),
        ("number of live objects", 0.5, 1e6),
    ] {
        for figure in find(part) {
            let value = figure[1].as_f64();
            assert!(value.is_some_and(|value| (low..=high).contains(&value)), "{part}: {figure}");
        }
    }
    assert_eq!(find("Start-up of a process").len(), 3);
}

#[test]
fn pages_pictures_and_documents_are_written() {
    let folder = Folder::new("bench-page");
    let (page, picture) = (folder.path("page.html"), folder.path("picture.svg"));
    let document = folder.write("document.md", "before\n<!-- bench -->\n<!-- /bench -->\nbehind\n");
    let arguments = ["--allocators", "pool,system", "--only", "maps,steady-small", "--threads", "1,2"];
    let written = ["--html", &page, "--picture", &picture, "--markdown", &document];
    succeeds(little(&arguments).args(written));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert_has(&read(&page), &["<svg", "Latency of single operations", "malloc, steady-small x2", "<h2>Threads</h2>"]);
    assert_has(&read(&picture), &["<svg xmlns", "as fast as the pool", "maps x2"]);
    assert_has(&read(&document), &["before\n", "| maps x1 |", "### Peak memory", "\nbehind\n"]);
    let said = fails(little(&arguments).args(["--markdown", &picture]), 125);
    assert_has(&said, &["<!-- bench -->"]);
}
