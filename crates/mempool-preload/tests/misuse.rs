//! Wrong pointers and sizes through the library: one message with the call, the address and what it is, then SIGABRT.

mod common;

use common::{compile, on_pool, run};

/// Each wrong use, the call to blame, and what the message says behind the address.
const CASES: &[(&str, &str, &str)] = &[
    ("double", "free", "double free: item "),
    ("double-later", "free", "double free: item "),
    ("double-elsewhere", "free", "double free: item "),
    ("double-large", "free", "invalid pointer or double free: nothing is allocated there"),
    ("realloc-freed", "realloc", "use after free: item "),
    ("usable-freed", "malloc_usable_size", "use after free: item "),
    ("interior", "free", "invalid pointer: inside item "),
    ("misaligned", "free", "invalid pointer: inside item "),
    ("interior-large", "free", "invalid pointer: inside a run of 1048576 bytes, not its first byte"),
    ("realloc-interior", "realloc", "invalid pointer: inside item "),
    ("stack", "free", "invalid pointer: not from this pool"),
    ("static", "free", "invalid pointer: not from this pool"),
    ("wild", "free", "invalid pointer: not from this pool"),
    ("code", "free", "invalid pointer: not from this pool"),
    ("mapped", "free", "invalid pointer: not from this pool"),
    ("usable-stack", "malloc_usable_size", "invalid pointer: not from this pool"),
    ("realloc-static", "realloc", "invalid pointer: not from this pool"),
    ("sized-small", "operator delete", "wrong size: 10 bytes given, but 112 bytes are there"),
    ("sized-large", "operator delete", "wrong size: 200 bytes given, but 112 bytes are there"),
    ("sized-array", "operator delete[]", "wrong size: 100 bytes given, but 5120 bytes are there"),
    ("sized-run", "operator delete", "wrong size: 80000 bytes given, but 100096 bytes are there"),
    ("sized-aligned", "operator delete", "wrong size: 5000 bytes given, but 1024 bytes are there"),
    ("sized-alignment", "operator delete", "wrong alignment: 4096 given, which the object does not have"),
    ("sized-twice", "operator delete", "double free: item "),
    ("free_sized", "free_sized", "wrong size: 113 bytes given, but 112 bytes are there"),
    ("free_aligned_sized", "free_aligned_sized", "wrong alignment: 3 given, which the object does not have"),
    ("new-twice", "free", "double free: item "),
];

/// The message without the address: `CALL(...): WHAT`.
fn check(program: &std::path::Path, case: &(&str, &str, &str)) {
    let (what, call, text) = case;
    let ran = run(on_pool(program).arg(what));
    assert_eq!((ran.signal, ran.out.as_str()), (Some(6), ""), "{what}: {:?} {}", ran.code, ran.err);
    let line = ran.err.strip_suffix('\n').unwrap_or_else(|| panic!("{what}: no line: {}", ran.err));
    assert!(!line.contains('\n'), "{what}: more than one line: {line}");
    let rest = line.strip_prefix(&format!("mempool: {call}(0x")).unwrap_or_else(|| panic!("{what}: {line}"));
    let (address, said) = rest.split_once("): ").unwrap_or_else(|| panic!("{what}: {line}"));
    assert!(u64::from_str_radix(address, 16).is_ok_and(|address| address != 0), "{what}: {line}");
    assert!(said.starts_with(text), "{what}: {line}");
}

#[test]
fn every_wrong_use_is_named() {
    let program = compile("misuse.cpp", "misuse", &["-std=c++17"]);
    for case in CASES {
        check(&program, case);
    }
}

/// For programs of others, in which such an error does no harm.
#[test]
fn wrong_sizes_are_overlooked_where_that_is_asked_for() {
    let program = compile("misuse.cpp", "misuse-sizes", &["-std=c++17"]);
    for what in ["sized-small", "sized-large", "sized-array", "sized-run", "free_sized"] {
        let ran = run(on_pool(&program).arg(what).env("MEMPOOL_CHECK_SIZES", "off"));
        assert!(ran.signal.is_none() && ran.err.is_empty(), "{what}: {:?} {:?} {}", ran.signal, ran.code, ran.err);
    }
    let ran = run(on_pool(&program).arg("sized-twice").env("MEMPOOL_CHECK_SIZES", "off"));
    assert!(ran.signal == Some(6) && ran.err.contains("double free: item "), "{}", ran.err);
}

#[test]
fn an_item_is_described() {
    let program = compile("misuse.cpp", "misuse-item", &["-std=c++17"]);
    let ran = run(on_pool(program).arg("double"));
    let said = ran.err.split_once("item ").expect("an item").1;
    assert!(said.contains(" of slab ") && said.ends_with(" of size class 112 bytes is free already\n"), "{said}");
}

#[test]
fn a_right_use_comes_back() {
    let program = compile("misuse.cpp", "misuse-none", &["-std=c++17"]);
    let ran = run(on_pool(program).arg("nothing"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "nothing came back\n"), "{}", ran.err);
}
