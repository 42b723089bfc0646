//! After init a pool makes no system call and no page fault, in millions of operations of three threads.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

fn steady(small: &str, count: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_steady")).args([small, count]).output().expect("the helper runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.signal(), Some(31), "{small}: a system call: {said}");
    assert!(output.status.success(), "{small}: {:?} {said}", output.status);
}

#[test]
fn no_system_call_and_no_page_fault_with_slabs() {
    steady("slab", "1000000");
}

#[test]
fn no_system_call_and_no_page_fault_with_the_heap() {
    steady("heap", "300000");
}

/// The filter of the other tests does strike.
#[test]
fn a_system_call_would_be_noticed() {
    let output = Command::new(env!("CARGO_BIN_EXE_steady")).arg("trespass").output().expect("the helper runs");
    assert_eq!(output.status.signal(), Some(31), "{output:?}");
}
