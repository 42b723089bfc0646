//! The house rules, read from the source: who imports whom, how long files and functions may be, where unsafe code
//! may be and that it says why it is sound.
//!
//! The checks are functions from a source text to complaints, in `rules` and `source`; the tests here run them over the
//! tree, the tests there over samples that are bad.

mod documents;
mod licences;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// Every Rust file of the workspace's crates and fuzz targets, by its path from the root, in order.
fn files() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut left = vec![root.join("crates"), root.join("fuzz")];
    while let Some(folder) = left.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                left.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(&root).expect("below the root").to_str().expect("UTF-8").to_owned();
                found.push((name, fs::read_to_string(&path).expect("a source file")));
            }
        }
    }
    found.sort();
    found
}

/// Fails with every complaint that `check` has about a file.
fn hold(check: impl Fn(&str, &str) -> Vec<String>) {
    let files = files();
    assert!(files.len() > 50, "only {} files found: looked in the wrong place?", files.len());
    let complaints: Vec<String> = files.iter().flat_map(|(name, text)| check(name, text)).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn rooms_import_downward_alone() {
    let library = "crates/mempool/src/";
    let names: Vec<String> =
        files().into_iter().filter_map(|(name, _)| name.strip_prefix(library).map(str::to_owned)).collect();
    hold(|name, text| match name.strip_prefix(library) {
        Some(file) if !rules::is_test(file) => rules::imports(file, text, &names),
        _ => Vec::new(),
    });
}

#[test]
fn every_room_of_the_table_exists_and_every_file_has_a_room() {
    let library = root().join("crates/mempool/src");
    for room in rules::ROOMS {
        let file = library.join(room.name).with_extension("rs");
        assert!(file.is_file() || library.join(room.name).is_dir(), "no room {}", room.name);
    }
    for (name, _) in files() {
        if let Some(file) = name.strip_prefix("crates/mempool/src/") {
            assert!(file == "lib.rs" || rules::room_of(file).is_some(), "{name} is in no room");
        }
    }
}

#[test]
fn files_are_short() {
    hold(rules::file_length);
}

#[test]
fn functions_are_short() {
    hold(rules::function_lengths);
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    hold(rules::unsafe_reasons);
}

#[test]
fn unsafe_code_is_in_marked_files_alone() {
    hold(rules::unsafe_places);
}

#[test]
fn nothing_is_left_for_later() {
    hold(rules::leftovers);
}

#[test]
fn files_open_with_an_essay() {
    hold(|name, text| if name.contains("/src/") { rules::essay(name, text) } else { Vec::new() });
}
