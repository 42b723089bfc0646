//! The rules: each turns a file's name and text into complaints. The table of rooms is the one of ARCHITECTURE.md.

use super::source::{code_of, functions, tokens};

/// Most lines of a file, and of a function.
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;
/// Lines above an unsafe block within which its reason begins.
const REASON_WITHIN: usize = 3;
const REASON: &str = "SAFETY:";

/// A room of the library and the rooms it may import.
pub struct Room {
    pub name: &'static str,
    pub below: &'static [&'static str],
}

const fn room(name: &'static str, below: &'static [&'static str]) -> Room {
    Room { name, below }
}

/// Lowest first: a room imports only rooms above its own line here.
pub const ROOMS: &[Room] = &[
    room("units", &[]),
    room("sync", &[]),
    room("bytes", &[]),
    room("text", &[]),
    room("os", &["units", "sync"]),
    room("config", &["bytes", "text"]),
    room("error", &["bytes", "config", "os"]),
    room("bitmap", &["units", "sync"]),
    room("segment", &["units", "sync", "os", "config", "error"]),
    room("frag", &["units", "sync", "bitmap"]),
    room("slab", &["units", "sync", "segment"]),
    room("heap", &["units", "sync", "segment"]),
    room("front", &["units", "sync", "bytes", "text", "os", "config", "segment", "frag", "slab", "heap"]),
    room("stats", &["units", "sync", "bytes", "text", "segment", "slab", "front"]),
    room("verify", &["units", "sync", "segment", "frag", "heap", "front"]),
    room(
        "pool",
        &["units", "sync", "config", "error", "os", "segment", "frag", "slab", "heap", "front", "stats", "verify"],
    ),
    room("raw", &["error", "front", "pool"]),
    room("typed", &["error", "front", "pool"]),
    room("budget", &["text", "error", "front", "pool", "raw", "typed"]),
    room("process", &["units", "sync", "text", "config", "error", "os", "segment", "front", "stats", "verify", "pool"]),
];

/// Modules that a room shows by their own name, because the name says what their functions belong to.
const SHOWN: &[&str] = &["bitmap::word", "os::system"];

/// Files of the library's and the other crates' sources that may contain unsafe code. A name that ends in `/` stands
/// for all files below it.
const UNSAFE: &[&str] = &[
    "crates/mempool/src/frag/parts.rs",
    "crates/mempool/src/front/",
    "crates/mempool/src/heap/",
    "crates/mempool/src/os/",
    "crates/mempool/src/pool.rs",
    "crates/mempool/src/pool/",
    "crates/mempool/src/process.rs",
    "crates/mempool/src/process/",
    "crates/mempool/src/raw.rs",
    "crates/mempool/src/segment/real.rs",
    "crates/mempool/src/segment/slot.rs",
    "crates/mempool/src/slab/classes.rs",
    "crates/mempool/src/slab/local.rs",
    "crates/mempool/src/slab/queue.rs",
    "crates/mempool/src/slab/tier.rs",
    "crates/mempool/src/typed.rs",
    "crates/mempool-c/src/",
    "crates/mempool-preload/src/",
    "crates/mempool-cli/src/",
    "crates/mempool-bench/src/",
    "crates/mempool-testing/src/",
];

/// Programs that do wrong on purpose, and say so at their top: there is no reason why they are sound.
const WRONG: &[&str] = &["crates/mempool-testing/src/bin/misuse.rs"];

/// Whether a file of the library is tests alone.
pub fn is_test(file: &str) -> bool {
    file.split(['/', '.', '_']).any(|part| part == "tests")
}

/// The room that a file of the library belongs to.
pub fn room_of(file: &str) -> Option<&'static Room> {
    let name = file.split('/').next()?.trim_end_matches(".rs").trim_end_matches("_tests");
    ROOMS.iter().find(|room| room.name == name)
}

/// Every path that begins with `crate::`, one for each leaf of a braced list, with its line.
fn crate_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let words: Vec<&str> = tokens[at..].iter().take(3).map(|t| t.1).collect();
        let dollar = at > 0 && tokens[at - 1].1 == "$";
        if words == ["crate", ":", ":"] && !dollar {
            let mut rest = at + 3;
            leaves(&tokens, &mut rest, &mut Vec::new(), &mut |path| found.push((tokens[at].0 + 1, path)));
        }
    }
    found
}

/// Reads a path (behind `crate::`) from `at` on.
fn leaves(tokens: &[(usize, &str)], at: &mut usize, path: &mut Vec<String>, found: &mut dyn FnMut(Vec<String>)) {
    let depth = path.len();
    let mark = |at: usize, wanted: &str| tokens.get(at).is_some_and(|t| t.1 == wanted);
    if mark(*at, "{") {
        *at += 1;
        while *at < tokens.len() && !mark(*at, "}") {
            leaves(tokens, at, path, found);
            while *at < tokens.len() && !mark(*at, ",") && !mark(*at, "}") {
                *at += 1;
            }
            *at += usize::from(mark(*at, ","));
        }
        *at += 1;
        return;
    }
    let Some(&(_, word)) = tokens.get(*at) else { return };
    path.push(word.to_owned());
    *at += 1;
    if mark(*at, ":") && mark(*at + 1, ":") {
        *at += 2;
        leaves(tokens, at, path, found);
    } else {
        found(path.clone());
    }
    path.truncate(depth);
}

/// Imports of `file` that go up, sideways, or into another room's files. `files` are all files of the library.
pub fn imports(file: &str, text: &str, files: &[String]) -> Vec<String> {
    let Some(room) = room_of(file) else { return Vec::new() };
    let code = without_test_modules(&code_of(text));
    let mut complaints = Vec::new();
    for (line, path) in crate_paths(&code) {
        let wanted = path[0].as_str();
        let whole = path.join("::");
        if wanted == room.name {
            continue;
        }
        if !room.below.contains(&wanted) {
            complaints.push(format!("{file}:{line}: room `{}` may not import `crate::{whole}`", room.name));
        }
        let inner = path.get(1).map_or("", String::as_str);
        let is_file = [format!("{wanted}/{inner}.rs"), format!("{wanted}/{inner}/mod.rs")];
        let shown = SHOWN.contains(&format!("{wanted}::{inner}").as_str());
        if !shown && files.iter().any(|known| is_file.contains(known)) {
            complaints.push(format!("{file}:{line}: `crate::{whole}` reaches into a file of room `{wanted}`"));
        }
    }
    complaints
}

/// `code` with the bodies of `mod tests { }` and the like blanked.
fn without_test_modules(code: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut inside = false;
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let attribute = line.starts_with("#[cfg(") && line.contains("test") && !line.contains("not(test");
        let module = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        inside |= attribute && module;
        kept.push(if inside { "" } else { line });
        inside &= line != "}";
    }
    kept.join("\n")
}

pub fn file_length(file: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines > FILE_LINES { vec![format!("{file}: {lines} lines, more than {FILE_LINES}")] } else { Vec::new() }
}

pub fn function_lengths(file: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let long = functions(&code).into_iter().filter(|(_, first, last)| last - first + 1 > FUNCTION_LINES);
    long.map(|(name, first, last)| {
        format!("{file}:{first}: fn {name} has {} lines, more than {FUNCTION_LINES}", last - first + 1)
    })
    .collect()
}

/// Unsafe blocks and implementations without a reason close above them.
pub fn unsafe_reasons(file: &str, text: &str) -> Vec<String> {
    if WRONG.contains(&file) {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().collect();
    let code = code_of(text);
    let tokens = tokens(&code);
    let needs = tokens.windows(2).filter(|pair| pair[0].1 == "unsafe" && matches!(pair[1].1, "{" | "impl"));
    needs
        .filter(|pair| !has_reason(&lines, pair[0].0))
        .map(|pair| format!("{file}:{}: unsafe without `// SAFETY:` above it", pair[0].0 + 1))
        .collect()
}

/// Whether a comment with the reason stands at `line`, within [`REASON_WITHIN`] lines above it, or in the comment that
/// ends there.
fn has_reason(lines: &[&str], line: usize) -> bool {
    let is_comment = |at: usize| lines[at].trim_start().starts_with("//");
    let mut from = line.saturating_sub(REASON_WITHIN);
    while from > 0 && is_comment(from) && !lines[from].contains(REASON) {
        from -= 1;
    }
    (from..=line).any(|at| is_comment(at) && lines[at].contains(REASON))
}

/// Files that allow unsafe code without being listed, or use it without allowing it at their top.
pub fn unsafe_places(file: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let allows = code.contains("allow(unsafe_code");
    let source = file.contains("/src/") && !is_test(file);
    let listed = UNSAFE.iter().any(|place| file == *place || place.ends_with('/') && file.starts_with(place));
    let mut complaints = Vec::new();
    if source && allows && !listed {
        complaints.push(format!("{file}: allows unsafe code, but is not in the list of tests/house/rules.rs"));
    }
    if allows && !code.contains("#![allow(unsafe_code") {
        complaints.push(format!("{file}: allows unsafe code in part; allow it for the whole file, at its top"));
    }
    complaints
}

/// Marks of unfinished work.
pub fn leftovers(file: &str, text: &str) -> Vec<String> {
    let words = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "X".repeat(3), "un".to_owned() + "implemented!"];
    let macros = ["to".to_owned() + "do!", "#[ig".to_owned() + "nore"];
    let bad = |line: &str| words.iter().chain(&macros).any(|word| line.contains(word.as_str()));
    let lines = text.lines().enumerate().filter(|(_, line)| bad(line));
    lines.map(|(number, line)| format!("{file}:{}: {}", number + 1, line.trim())).collect()
}

/// Files of a library or program say what they manage before anything else.
pub fn essay(file: &str, text: &str) -> Vec<String> {
    if text.starts_with("//!") { Vec::new() } else { vec![format!("{file}: does not open with an essay (`//!`)")] }
}

#[test]
fn rooms_are_listed_lowest_first() {
    for (at, room) in ROOMS.iter().enumerate() {
        for below in room.below {
            assert!(ROOMS[..at].iter().any(|r| r.name == *below), "{} imports {below}, which is not below", room.name);
        }
    }
}

#[test]
fn bad_imports_are_found() {
    let files = ["slab/queue.rs", "frag/mod.rs", "os/system.rs", "os/linux.rs"].map(str::to_owned);
    let about = |file, text| imports(file, text, &files);
    let up = about("slab/tier.rs", "use crate::front::Core;");
    assert_eq!(up, ["slab/tier.rs:1: room `slab` may not import `crate::front::Core`"]);
    assert_eq!(about("slab/mod.rs", "\nfn f() { crate::heap::merge() }").len(), 1, "sideways, in an expression");
    assert_eq!(about("front/mod.rs", "use crate::slab::queue::Bin;").len(), 1, "deep");
    assert_eq!(about("front/mod.rs", "use crate::{units::{A, B}, stats::Stats, typed};").len(), 2, "braced");
    assert_eq!(about("front/mod.rs", "use crate::slab::{Slab, queue::Bin};").len(), 1, "deep in braces");
    assert_eq!(about("process.rs", "fn f() -> crate::Stats {}").len(), 1, "the library's root");
    assert_eq!(about("front/mod.rs", "use crate::os::linux::Linux;").len(), 1);
    let good = "use crate::slab::{Bin, Slab};\nuse crate::os::system::alloc; // crate::typed\nuse crate::front::x;";
    assert_eq!(about("front/mod.rs", good), [""; 0]);
    let tests = "#[cfg(all(test, not(loom)))]\nmod tests {\n    use crate::typed::Cache;\n}\nuse crate::pool::Pool;\n";
    assert_eq!(about("frag/mod.rs", tests), ["frag/mod.rs:5: room `frag` may not import `crate::pool::Pool`"]);
}

#[test]
fn long_files_and_functions_are_found() {
    let body = |lines| format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines));
    assert_eq!(file_length("a", &"\n".repeat(600)).len(), 0);
    assert_eq!(file_length("a", &"\n".repeat(601)).len(), 1);
    assert_eq!(function_lengths("a", &body(68)).len(), 0);
    assert_eq!(function_lengths("a", &body(69)), ["a:1: fn long has 71 lines, more than 70"]);
}

#[test]
fn unsafe_code_without_a_reason_is_found() {
    let about = |text| unsafe_reasons("a", text).len();
    assert_eq!(about("fn f() {\n    unsafe { g() }\n}"), 1);
    assert_eq!(about("unsafe impl Send for X {}"), 1);
    assert_eq!(about("// SAFETY: so.\n\n\n\nunsafe { g() }"), 1, "too far above");
    assert_eq!(about("let s = \"// SAFE\";\nunsafe { g() }"), 1);
    assert_eq!(about("// SAFETY: so,\n// and so,\n// and so,\n// and so,\n// and so.\nlet x = unsafe { g() };"), 0);
    assert_eq!(about("unsafe fn f() {}\n// unsafe { }\nlet s = \"unsafe {\";"), 0);
}

#[test]
fn unsafe_code_in_the_wrong_place_is_found() {
    let about = |file, text| unsafe_places(file, text).len();
    assert_eq!(about("crates/mempool/src/stats.rs", "#![allow(unsafe_code)]"), 1);
    assert_eq!(about("crates/mempool/src/pool.rs", "#[allow(unsafe_code)]\nfn f() {}"), 1);
    assert_eq!(about("crates/mempool/src/pool.rs", "#![allow(unsafe_code)]"), 0);
    assert_eq!(about("crates/mempool/tests/any.rs", "#![allow(unsafe_code)]"), 0);
}

#[test]
fn leftovers_are_found() {
    for word in ["TO-DO: later", "FIX-ME", "to-do!()", "un-implemented!()", "#[ig-nore]"] {
        assert_eq!(leftovers("a", &format!("x();\n// {}", word.replace('-', ""))).len(), 1, "{word}");
    }
    assert_eq!(leftovers("a", "all is done\n"), [""; 0]);
    assert_eq!(essay("a", "use std::fmt;\n").len(), 1);
    assert_eq!(essay("a", "//! What it is.\n").len(), 0);
}
