//! `mempool starve`: the pool's worker does everything, the other one does not.
#![allow(missing_docs)]

mod common;

use common::{assert_has, fails, mempool, run, stderr, stdout};
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

#[test]
fn on_the_pool_all_is_done_and_elsewhere_it_is_not() {
    let (code, report) = starve(&["--seconds", "2"]);
    assert_eq!((code, number(&report["exit_code"])), (0, 0), "{report:#}");
    let (pool, system) = (&report["pool"], &report["system"]);
    assert_eq!(number(&pool["planned"]), 2000);
    assert_eq!((&pool["done"], &system["planned"]), (&pool["planned"], &pool["planned"]));
    for count in ["failed", "wrong", "not_tried"] {
        assert_eq!(number(&pool[count]), 0, "{count}");
    }
    assert_eq!((&pool["ended"], number(&pool["exit_code"])), (&Value::from("by itself"), 0));
    assert!(number(&system["done"]) < 1500, "{report:#}");
    assert_eq!(number(&system["wrong"]), 0);
    let sum: u64 = ["done", "failed", "wrong", "not_tried"].iter().map(|count| number(&system[count])).sum();
    assert_eq!(sum, 2000);
    for side in [pool, system] {
        // Nothing was left: the limit but for the process itself and the segment.
        assert!(number(&side["hog"]["bytes"]) > 300 << 20 && number(&side["hog"]["refused"]) > 0, "{report:#}");
        let latency = &side["latency_ns"];
        let times = ["median", "p99", "worst"].map(|name| number(&latency[name]));
        assert!(times[0] > 0 && times.is_sorted(), "{latency}");
    }
    assert!(number(&system["first_refused_bytes"]) > 0 || system["signal"].is_i64());
}

#[test]
fn the_table_stands_side_by_side() {
    let output = run(&mut mempool(["starve", "--seconds", "1", "--limit", "300M", "--segment", "48M"]));
    let table = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{table}{}", stderr(&output));
    assert_has(
        &table,
        &["C library", "pool of 48 MiB", "requests planned", "wrong", "done in, worst", "hog holds", "300 MiB"],
    );
    assert_has(&table, &["On the pool all requests were done, none wrong; on the C library's allocator "]);
    assert!(!table.contains('\x1b') && stderr(&output).is_empty());
}

#[test]
fn a_pool_that_is_too_small_is_reported_as_failed() {
    let (code, report) = starve(&["--seconds", "1", "--segment", "4M", "--limit", "200M"]);
    assert_eq!(code, 1, "{report:#}");
    assert!(number(&report["pool"]["failed"]) + number(&report["pool"]["not_tried"]) > 0);
    assert_has(report["verdict"].as_str().unwrap(), &["The pool's worker failed", "--segment large enough?"]);
}

#[test]
fn without_a_limit_that_matters_nothing_is_shown() {
    // More addresses than there are: the hog is refused neither here nor there within a second.
    let (code, report) = starve(&["--seconds", "1", "--limit", "15T"]);
    assert!(code == 3 || number(&report["system"]["hog"]["refused"]) > 0, "{report:#}");
}

#[test]
fn bad_arguments_are_refused() {
    let said = fails(&mut mempool(["starve", "--limit", "100M"]), 125);
    assert_has(&said, &["--limit is 100 MiB, but must be at least 128 MiB: the segment and room for the process"]);
    assert_has(
        &fails(&mut mempool(["starve", "--segment", "100"]), 125),
        &["segment is 100 bytes, but must be from 256 KiB"],
    );
    assert_has(&fails(&mut mempool(["starve", "--seconds", "0"]), 125), &["--seconds", "1..=600"]);
    assert_has(&fails(&mut mempool(["starve", "--limit", "1GB"]), 125), &["--limit", "KB, MB, GB and TB mean"]);
}
