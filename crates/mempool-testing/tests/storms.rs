//! Storms of threads and forks, each in a process of its own. `TEST_CASES_FACTOR` multiplies their length.

use std::process::Command;

fn storm(kind: &str, count: usize) {
    let factor = std::env::var("TEST_CASES_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let output = Command::new(env!("CARGO_BIN_EXE_storm"))
        .args([kind, &(count * factor).to_string()])
        .output()
        .expect("the helper runs");
    assert!(output.status.success(), "{kind}: {:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn threads_come_and_go() {
    storm("reborn", 20_000);
}

#[test]
fn destructors_that_allocate() {
    storm("destructors", 20_000);
}

#[test]
fn children_allocate_at_once() {
    storm("forks", 500);
}

#[test]
fn threads_fork_at_the_same_time() {
    storm("fork-in-threads", 400);
}
