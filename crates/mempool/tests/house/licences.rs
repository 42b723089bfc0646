//! Dependencies come from crates.io alone and under licences that deny.toml allows. Needs no network.

use super::root;
use std::fs;
use std::process::Command;

/// The quoted strings of the list `key` in `text`, as in `key = ["a", "b"]`.
fn list<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| !line.starts_with(&format!("{key} = [")));
    let mut found = Vec::new();
    for line in lines {
        let line = line.split('#').next().unwrap_or("");
        found.extend(line.split('"').skip(1).step_by(2));
        if line.contains(']') {
            break;
        }
    }
    found
}

/// Whether a licence expression can be satisfied with `allowed` licences alone.
fn satisfied(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = either(&words, &mut at, allowed);
    result && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut result = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= both(words, at, allowed);
    }
    result
}

fn both(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut result = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed);
    }
    result
}

fn one(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(&word) = words.get(*at) else { return false };
    *at += 1;
    if word == "(" {
        let result = either(words, at, allowed);
        *at += 1;
        return result && words.get(*at - 1) == Some(&")");
    }
    if words.get(*at) != Some(&"WITH") {
        return allowed.contains(&word);
    }
    *at += 2;
    let whole = words[*at - 3..(*at).min(words.len())].join(" ");
    allowed.contains(&whole.as_str())
}

/// What is wrong with the sources that a lock file names.
fn wrong_sources(lock: &str, allowed: &[&str]) -> Vec<String> {
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = \"registry+"));
    let registries = sources.filter(|source| !allowed.contains(&source.trim_end_matches('"')));
    let others = lock.lines().filter(|line| line.starts_with("source = ") && !line.contains("registry+"));
    registries.chain(others).map(str::to_owned).collect()
}

/// `NAME vVERSION|LICENCE` for every package in the tree. Of all platforms if those were fetched, otherwise of this one.
fn packages() -> String {
    let tree = |target: &str| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "tree",
            "--workspace",
            "--edges",
            "normal,build,dev",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{l}",
        ]);
        cargo.args(["--locked", "--offline", "--target", target]).current_dir(root());
        cargo.output().expect("cargo runs")
    };
    let all = tree("all");
    if all.status.success() {
        return String::from_utf8(all.stdout).expect("UTF-8");
    }
    let wanted = std::env::var_os("HOUSE_ALL_PLATFORMS").is_some();
    let why = String::from_utf8_lossy(&all.stderr).into_owned();
    assert!(!wanted, "cargo fetch --locked has not been run: {why}");
    let here = tree(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    assert!(here.status.success(), "{}", String::from_utf8_lossy(&here.stderr));
    String::from_utf8(here.stdout).expect("UTF-8")
}

#[test]
fn licences_are_allowed() {
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let allowed = list(&deny, "allow");
    let tree = packages();
    let mut lines: Vec<&str> = tree.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.dedup();
    assert!(lines.len() > 3, "only {} packages: is this the whole tree?", lines.len());
    let bad: Vec<&&str> = lines
        .iter()
        .filter(|line| !line.rsplit('|').next().is_some_and(|licence| satisfied(licence.trim(), &allowed)))
        .collect();
    assert!(bad.is_empty(), "licences not allowed by deny.toml: {bad:?}");
}

#[test]
fn sources_are_the_registry() {
    let deny = fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    assert!(lock.contains("source = \"registry+"), "no dependency has a source: has the format changed?");
    assert_eq!(wrong_sources(&lock, &list(&deny, "allow-registry")), [""; 0]);
}

#[test]
fn bad_licences_and_sources_are_found() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND Apache-2.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(satisfied(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT Apache-2.0", "MIT WITH exception", "MIT OR"] {
        assert!(!satisfied(bad, &allowed) || bad == "MIT OR", "{bad}");
    }
    let lock = "source = \"registry+https://here\"\nsource = \"git+https://there\"\nsource = \"registry+https://else\"";
    assert_eq!(wrong_sources(lock, &["https://here"]).len(), 2);
    assert_eq!(list("x = [\"no\"]\nallow = [\n  \"a\", # \"c\"\n  \"b\",\n]\n\"d\"", "allow"), ["a", "b"]);
}
