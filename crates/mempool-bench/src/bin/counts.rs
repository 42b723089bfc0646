//! `counts`: instructions of the pool's hot paths, counted by callgrind, against those recorded in counts.txt. Fails
//! where a path has grown by more than 3%, and names the functions that grew. Deterministic: no time is measured.
//!
//! ```sh
//! cargo build --release -p mempool-preload -p mempool-bench && target/release/counts
//! BLESS=1 target/release/counts      # records what was counted
//! ```
//!
//! The released library and the program `paths` are taken from the folder of this program. *Limits:* needs valgrind;
//! what was recorded is for one processor architecture and one version of the compiler.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A path, and how often it is taken: rarely where each time takes long.
const PATHS: [(&str, &str, u32, bool); 17] = [
    ("rust", "one pair of 64 bytes in Rust, inlined", 20_000, false),
    ("pool", "the same from a pool that is not the process's", 20_000, false),
    ("boxes", "a box of 64 bytes of a cache there, made, written and dropped", 20_000, false),
    ("small", "malloc and free of 64 bytes, preloaded", 20_000, true),
    ("narrow", "the same in a pool of 64 MiB, whose slots are smaller", 20_000, true),
    ("large", "malloc and free of 20,000 bytes, preloaded", 2_000, true),
    ("calloc", "calloc and free of 256 bytes, preloaded", 20_000, true),
    ("realloc", "malloc of 100 bytes, realloc to 400, free, preloaded", 20_000, true),
    ("aligned", "aligned_alloc of 192 bytes at a multiple of 64 and free, preloaded", 20_000, true),
    ("cache", "free and allocation of a cache's items, a random one of 1,000, in Rust", 20_000, false),
    ("array", "the same of arrays of 2 to 17 items", 20_000, false),
    ("heap", "the same of 1 to 250 bytes of the best-fit heap", 20_000, false),
    ("short", "the same of 257 to 1,024 bytes beside that heap", 20_000, false),
    ("usable", "malloc_usable_size of an object of 100 bytes, preloaded", 20_000, true),
    ("refill", "one malloc of 64 bytes that were never freed, preloaded", 20_000, true),
    ("remote", "free into another thread's slab, preloaded", 20_000, true),
    ("adopt", "free into nobody's slab, preloaded", 20_000, true),
];

/// Growth that is let pass, in hundredths.
const GROWTH: f64 = 3.0;
/// Functions with less than this, in instructions each time, are not recorded.
const LEAST: f64 = 0.05;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");

/// Instructions each time: of the whole path, and of its functions alone.
#[derive(Clone, Debug, Default, PartialEq)]
struct Count {
    all: f64,
    functions: BTreeMap<String, f64>,
}

type Counts = BTreeMap<String, Count>;

fn main() -> ExitCode {
    match counted() {
        Ok(counts) if std::env::var_os("BLESS").is_some() => record(&counts),
        Ok(counts) => judge(&counts),
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::from(125)
        }
    }
}

fn record(counts: &Counts) -> ExitCode {
    match std::fs::write(RECORDED, written(counts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {RECORDED}: {error}");
            ExitCode::from(125)
        }
    }
}

fn judge(counts: &Counts) -> ExitCode {
    let recorded = read(&std::fs::read_to_string(RECORDED).unwrap_or_default());
    let mut failed = false;
    for (path, about, ..) in PATHS {
        let (now, before) = (&counts[path], recorded.get(path));
        let was = before.map_or("not recorded".into(), |before| format!("recorded {:.1}", before.all));
        println!("{path:<8} {:>9.1}  {was:<17} {about}", now.all);
        let complaints = before.map_or(vec!["is not recorded".into()], |before| grown(before, now));
        failed |= !complaints.is_empty();
        complaints.iter().for_each(|complaint| println!("  {path} {complaint}"));
        if before.is_some_and(|before| now.all < before.all * (1.0 - GROWTH / 100.0)) {
            println!("  {path} has shrunk: record that with BLESS=1, so that it stays");
        }
    }
    if failed {
        println!("Instructions have grown. Take them back, or record them with BLESS=1 and say why in the commit.");
    }
    ExitCode::from(u8::from(failed))
}

/// What is to be said of a path that has grown too much; nothing of others.
fn grown(before: &Count, now: &Count) -> Vec<String> {
    if now.all <= before.all * (1.0 + GROWTH / 100.0) {
        return Vec::new();
    }
    let mut complaints = vec![format!("grew by {:.1}%", 100.0 * (now.all / before.all - 1.0))];
    let old = |name: &String| before.functions.get(name).copied().unwrap_or(0.0);
    let mut more: Vec<_> = now.functions.iter().filter(|(name, count)| **count > old(name) + LEAST).collect();
    more.sort_by(|one, other| (other.1 - old(other.0)).total_cmp(&(one.1 - old(one.0))));
    complaints.extend(more.iter().take(5).map(|(name, count)| format!("{name}: {:.1} to {count:.1}", old(name))));
    complaints
}

/// Counts every path.
fn counted() -> Result<Counts, String> {
    let own = std::env::current_exe().map_err(|error| format!("own file: {error}"))?;
    let folder = own.parent().unwrap_or(Path::new("."));
    // Where cargo puts the library that it builds with the command comes first: it is never an older copy.
    let libraries = ["deps", "."].map(|place| folder.join(place).join("libmempool_preload.so"));
    let library = libraries.iter().find(|path| path.is_file());
    let library =
        library.ok_or_else(|| format!("no {}: build mempool-cli in the same profile", libraries[0].display()))?;
    PATHS.iter().map(|path| Ok((path.0.to_owned(), count(path, folder, library)?))).collect()
}

fn count(
    &(path, _, times, preloaded): &(&str, &str, u32, bool),
    folder: &Path,
    library: &Path,
) -> Result<Count, String> {
    let file = std::env::temp_dir().join(format!("mempool-counts-{}-{path}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MEMPOOL_")) {
        valgrind.env_remove(name);
    }
    valgrind.args(["--tool=callgrind", "--toggle-collect=paths::measured*", "--collect-atstart=no"]);
    valgrind.arg(format!("--callgrind-out-file={}", file.display()));
    valgrind.arg(folder.join("paths")).args([path, &times.to_string()]);
    if preloaded {
        valgrind.env("LD_PRELOAD", library).env("MEMPOOL_COMMIT", "lazy").env("MEMPOOL_LOCK", "off");
        valgrind.env("MEMPOOL_SEGMENT", if path == "narrow" { "64M" } else { "256M" });
    }
    let output =
        valgrind.output().map_err(|error| format!("valgrind: {error}; to get it: apt-get install valgrind"))?;
    let text = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    if !output.status.success() {
        return Err(format!("{path}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let costs = costs(&text.map_err(|error| format!("{}: {error}", file.display()))?);
    let each = |cost: u64| cost as f64 / f64::from(times);
    let all = each(costs.values().sum());
    if all < 1.0 {
        return Err(format!("{path}: nothing was counted: is `paths::measured` still a function of its own?"));
    }
    let functions = costs.into_iter().map(|(name, cost)| (name, each(cost))).filter(|(_, each)| *each >= LEAST);
    Ok(Count { all, functions: functions.collect() })
}

/// Instructions of each function alone, from callgrind's file.
fn costs(text: &str) -> BTreeMap<String, u64> {
    let (mut names, mut costs) = (BTreeMap::new(), BTreeMap::new());
    let (mut function, mut called) = (String::new(), false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = resolve(&mut names, name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            resolve(&mut names, name);
        } else if line.starts_with("calls=") {
            called = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            // A line of costs: behind a call it is the callee's, which the callee's own lines have too.
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if let (Some(cost), false) = (cost, called) {
                *costs.entry(function.clone()).or_insert(0) += cost;
            }
            called = false;
        }
    }
    costs
}

/// A function's name: `(7) name` says what 7 stands for, `(7)` uses it. Without generic hashes.
fn resolve(names: &mut BTreeMap<String, String>, text: &str) -> String {
    let (id, name) = text.split_once(' ').unwrap_or((text, ""));
    if !name.is_empty() {
        let end = name.rfind("::h").filter(|at| name.len() - at == 19).unwrap_or(name.len());
        names.insert(id.to_owned(), name[..end].to_owned());
    }
    names.get(id).cloned().unwrap_or_default()
}

/// As text: a line for each path, below it one for each function.
fn written(counts: &Counts) -> String {
    let mut text = String::from("# Instructions each time, recorded by `BLESS=1 counts`; see src/bin/counts.rs.\n");
    for (path, count) in counts {
        _ = writeln!(text, "{path} {:.2}", count.all);
        count.functions.iter().for_each(|(name, each)| _ = writeln!(text, "    {each:.2} {name}"));
    }
    text
}

fn read(text: &str) -> Counts {
    let mut counts = Counts::new();
    let mut path = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((one, two)) = line.trim_start().split_once(' ') else { continue };
        let number = |text: &str| text.parse().unwrap_or(0.0);
        if line.starts_with(' ') {
            counts.entry(path.clone()).or_default().functions.insert(two.to_owned(), number(one));
        } else {
            path = one.to_owned();
            counts.entry(path.clone()).or_default().all = number(two);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(all: f64, functions: &[(&str, f64)]) -> Count {
        Count { all, functions: functions.iter().map(|(name, each)| ((*name).to_owned(), *each)).collect() }
    }

    #[test]
    fn growth_is_told_with_the_function() {
        let before = of(100.0, &[("malloc", 60.0), ("free", 40.0)]);
        assert_eq!(grown(&before, &of(102.9, &[("malloc", 62.9), ("free", 40.0)])), [""; 0]);
        assert_eq!(grown(&before, &of(50.0, &[])), [""; 0]);
        let complaints = grown(&before, &of(110.0, &[("malloc", 55.0), ("free", 47.0), ("new", 8.0)]));
        assert_eq!(complaints, ["grew by 10.0%", "new: 0.0 to 8.0", "free: 40.0 to 47.0"]);
    }

    #[test]
    fn costs_of_callees_are_counted_once() {
        let text =
            "fn=(1) a::b::h0123456789abcdef\n10 5\ncfn=(2) c\ncalls=3 20\n11 300\n+1 7\nfn=(2)\n20 300\nfn=(1)\n* 1\n";
        let costs = costs(text);
        assert_eq!((costs["a::b"], costs["c"], costs.len()), (13, 300, 2));
    }

    #[test]
    fn what_is_written_is_read() {
        let counts: Counts = [("x".to_owned(), of(12.5, &[("f g", 10.25), ("h", 2.25)]))].into();
        assert_eq!(read(&written(&counts)), counts);
    }
}
