//! Every workload does its work, whatever serves it, and the same work each time.

use std::collections::BTreeMap;

use serde_json::Value;

use super::WORKLOADS;
use crate::rows::{POOL_ROWS, ROWS, Row};

fn run(row: &Row, threads: usize, supplier: &str) -> Value {
    let mut job = row.job(threads, 0.002, &BTreeMap::new()).unwrap();
    job.supplier = supplier.into();
    job.run()
}

#[test]
fn checksums_are_those_of_the_work() {
    for row in ROWS {
        let (one, again) = (run(&row, 2, "malloc"), run(&row, 2, "malloc"));
        assert_eq!(one["checksum"], again["checksum"], "{}", row.name);
        assert_ne!(one["checksum"], "0000000000000000", "{}", row.name);
        assert!(one["operations"].as_u64().unwrap() > 0, "{}", row.name);
        assert!(one["seconds"].as_f64().unwrap() > 0.0, "{}", row.name);
        assert_eq!(one["operations"], again["operations"], "{}", row.name);
        let more = row.job(2, 0.04, &BTreeMap::new()).unwrap().run();
        assert_ne!(one["checksum"], more["checksum"], "{}: more work, same sum", row.name);
    }
}

#[test]
fn suppliers_of_caches_do_the_same_work() {
    for row in ROWS {
        let malloc = run(&row, 1, "malloc");
        for supplier in row.suppliers() {
            assert_eq!(run(&row, 1, supplier)["checksum"], malloc["checksum"], "{} from {supplier}", row.name);
        }
    }
}

#[test]
fn workloads_say_what_they_stand_for() {
    for workload in WORKLOADS {
        assert!(workload.about.len() > 100 && workload.about.ends_with('.'), "{}", workload.name);
        assert!(
            ROWS.iter().chain(&POOL_ROWS).any(|row| row.workload == workload.name),
            "{} is in no row",
            workload.name
        );
        assert!(workload.parameters.iter().all(|parameter| !parameter.about.is_empty()), "{}", workload.name);
    }
}

#[test]
fn latencies_are_of_every_operation() {
    let report = run(Row::find("steady").unwrap(), 2, "malloc");
    let latency = &report["latency_ns"];
    assert_eq!(latency["malloc"]["count"], latency["empty"]["count"]);
    assert_eq!(latency["malloc"]["count"], 2 * 4_000);
}
