//! The arguments of `mempool bench`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::contenders;
use crate::shell;

/// What `mempool bench` was asked for.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The command line, for the report.
    pub line: String,
    /// Numbers of threads; none means one for each processor.
    pub threads: Vec<usize>,
    /// Rounds.
    pub rounds: Option<usize>,
    /// The share of the full work.
    pub scale: Option<f64>,
    /// Patterns of rows.
    pub only: Vec<String>,
    /// Less of everything.
    pub quick: bool,
    /// Further peers.
    pub peers: Vec<(String, PathBuf)>,
    /// Who takes part; none means all.
    pub allocators: Vec<String>,
    /// Parameters of workloads.
    pub set: BTreeMap<String, usize>,
    /// Measures also what only a pool has.
    pub pool: bool,
    /// Shows the rows and does nothing.
    pub list: bool,
    /// Where the JSON goes; `-` is standard output.
    pub json: Option<PathBuf>,
    /// Where the page goes.
    pub html: Option<PathBuf>,
    /// Where the headline picture goes.
    pub picture: Option<PathBuf>,
    /// The document whose tables are replaced.
    pub markdown: Option<PathBuf>,
    /// A report to be shown again.
    pub from: Option<PathBuf>,
    /// The user's program and its arguments.
    pub program: Option<(OsString, Vec<OsString>)>,
}

/// What a worker was asked for.
#[derive(Clone, Debug)]
pub struct WorkerOrder {
    /// The row.
    pub row: String,
    /// Threads.
    pub threads: usize,
    /// The share of the full work.
    pub scale: f64,
    /// Parameters.
    pub set: BTreeMap<String, usize>,
    /// Who serves named caches.
    pub supplier: Option<String>,
    /// Whether live bytes are counted.
    pub count_live: bool,
    /// The inherited file for the report; standard output without.
    pub report: Option<i32>,
}

const EXAMPLES: &str = "\
Examples:
  mempool bench --quick                          all workloads, roughly, in a minute
  mempool bench --html report.html               everything, with plots, in an hour
  mempool bench --only 'replace*,pipe' --threads 1,2,4,8
  mempool bench --peer mine=/usr/local/lib/libmine.so
  mempool bench -- perl script.pl                a program of yours, under each allocator
  mempool bench --pool --only none               what only a pool has: smallest segments, start-up, ...
  mempool bench --list                           what there is and what it stands for

The pool runs with --commit lazy --exhausted grow, and prefaulted and locked where latency is measured. That and the
rest of small, commit, lock, exhausted, segment and max_segment is set here; other variables MEMPOOL_... hold for it.

Exit codes: 0 if all work was done, 1 if the pool, the system's allocator or a given peer failed or did it wrong (a peer
that was merely found may: the report says so), 125 if mempool itself fails.";

impl Order {
    /// Whether a row is to be measured; one that is left out by default is if it is named.
    pub fn wants(&self, row: &str, left_out: bool) -> bool {
        if self.only.is_empty() { !left_out } else { self.only.iter().any(|pattern| fits(pattern, row)) }
    }
}

/// Whether `name` fits a pattern, in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name
            .strip_prefix(head)
            .is_some_and(|tail| (0..=tail.len()).any(|at| tail.is_char_boundary(at) && fits(rest, &tail[at..]))),
    }
}

fn assignment(text: &str) -> Result<(String, usize), String> {
    let (name, number) = text.split_once('=').ok_or("write NAME=NUMBER")?;
    let number = mempool::bytes::parse_bytes(number).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), number))
}

fn scale(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "write a number such as 0.5")?;
    if share > 0.0 && share <= 100.0 { Ok(share) } else { Err("must be above 0 and at most 100".into()) }
}

fn list(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).value_delimiter(',').action(ArgAction::Append).help(help)
}

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
}

fn set() -> Arg {
    list("set", "NAME=NUMBER", "Sets a parameter of the workloads; `--list` shows them").value_parser(assignment)
}

fn share() -> Arg {
    Arg::new("scale").long("scale").value_name("SHARE").value_parser(scale).help("Does this share of the full work")
}

/// The subcommand.
pub fn command() -> Command {
    Command::new("bench")
        .about("Compares the pool with other allocators: workloads, real programs, your own")
        .override_usage("mempool bench [OPTIONS] [-- PROGRAM [ARGS]...]")
        .after_help(EXAMPLES)
        .arg(
            list("threads", "LIST", "Numbers of threads of threaded workloads [default: one for each processor]")
                .value_parser(value_parser!(u64).range(1..=1024)),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..=1000))
                .help("Runs of each row on each allocator, of which the median counts [default: 5; quick: 3 at most]"),
        )
        .arg(list("only", "PATTERNS", "Rows to be measured; * stands for anything"))
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Under a minute: less work, fewer rounds, no real programs"),
        )
        .arg(share())
        .arg(set())
        .arg(
            list("peer", "NAME=PATH", "Another allocator: a shared library with a malloc")
                .value_parser(contenders::given),
        )
        .arg(list("allocators", "NAMES", "Who takes part, in this order [default: all that are found]"))
        .arg(
            Arg::new("pool")
                .long("pool")
                .action(ArgAction::SetTrue)
                .help("Measures also what only a pool has: smallest segments, start-up, cost against size"),
        )
        .arg(Arg::new("list").long("list").action(ArgAction::SetTrue).help("Shows all rows and their parameters"))
        .arg(
            path("json", "Writes JSON, to standard output if no file is given")
                .num_args(0..=1)
                .default_missing_value("-")
                .require_equals(false),
        )
        .arg(path("html", "Writes a page with plots, which needs no other file"))
        .arg(path("picture", "Writes the page's headline picture, as SVG"))
        .arg(path("markdown", "Replaces the tables between <!-- bench --> and <!-- /bench --> in a document"))
        .arg(path("from", "Measures nothing: reports again what --json FILE kept"))
        .arg(
            Arg::new("program")
                .value_name("PROGRAM")
                .help("A program and its arguments, in place of the workloads")
                .value_parser(value_parser!(OsString))
                .num_args(1..)
                .last(true),
        )
}

/// What a worker is started with.
pub fn worker_command() -> Command {
    Command::new("bench-worker")
        .hide(true)
        .arg(Arg::new("row").required(true))
        .arg(Arg::new("threads").long("threads").value_parser(value_parser!(u64)).default_value("1"))
        .arg(share().default_value("1"))
        .arg(set())
        .arg(Arg::new("supplier").long("supplier"))
        .arg(Arg::new("count-live").long("count-live").action(ArgAction::SetTrue))
        .arg(Arg::new("report").long("report").value_parser(value_parser!(i32)))
}

fn all<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches.get_many::<T>(name).into_iter().flatten().cloned().collect()
}

/// From what was given.
pub fn order(matches: &ArgMatches) -> Order {
    let mut words = all::<OsString>(matches, "program").into_iter();
    Order {
        line: format!("mempool {}", shell::line(&std::env::args_os().skip(1).collect::<Vec<_>>())),
        threads: all::<u64>(matches, "threads").into_iter().map(|n| n as usize).collect(),
        rounds: matches.get_one::<u64>("rounds").map(|n| *n as usize),
        scale: matches.get_one("scale").copied(),
        only: all(matches, "only"),
        quick: matches.get_flag("quick"),
        peers: all(matches, "peer"),
        allocators: all(matches, "allocators"),
        set: all::<(String, usize)>(matches, "set").into_iter().collect(),
        pool: matches.get_flag("pool"),
        list: matches.get_flag("list"),
        json: matches.get_one("json").cloned(),
        html: matches.get_one("html").cloned(),
        picture: matches.get_one("picture").cloned(),
        markdown: matches.get_one("markdown").cloned(),
        from: matches.get_one("from").cloned(),
        program: words.next().map(|program| (program, words.collect())),
    }
}

/// From what was given.
pub fn worker_order(matches: &ArgMatches) -> WorkerOrder {
    WorkerOrder {
        row: matches.get_one::<String>("row").cloned().unwrap_or_default(),
        threads: matches.get_one::<u64>("threads").map_or(1, |n| *n as usize),
        scale: matches.get_one("scale").copied().unwrap_or(1.0),
        set: all::<(String, usize)>(matches, "set").into_iter().collect(),
        supplier: matches.get_one("supplier").cloned(),
        count_live: matches.get_flag("count-live"),
        report: matches.get_one("report").copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Result<Order, clap::Error> {
        let words = ["bench"].iter().chain(arguments);
        command().try_get_matches_from(words).map(|matches| order(&matches))
    }

    #[test]
    fn patterns_name_rows() {
        for (pattern, name, fit) in [
            ("pipe", "pipe", true),
            ("pipe", "pipe-many", false),
            ("pipe*", "pipe-many", true),
            ("*many*", "pipe-many-shuffled", true),
            ("*", "anything", true),
            ("re*4", "replace-1e4", true),
            ("re*4", "replace-1e5", false),
        ] {
            assert_eq!(fits(pattern, name), fit, "{pattern} on {name}");
        }
    }

    #[test]
    fn lists_and_assignments_are_read() {
        let order = given(&["--threads", "1,2,8", "--only", "a*,b", "--set", "live=4K,most=10", "--json"]).unwrap();
        assert_eq!(order.threads, [1, 2, 8]);
        assert_eq!((order.only.len(), order.set["live"], order.set["most"]), (2, 4096, 10));
        assert_eq!(order.json, Some("-".into()));
        assert!(order.wants("abc", true) && !order.wants("c", false));
        let order = given(&["--", "perl", "-e", "1"]).unwrap();
        assert_eq!(order.program.unwrap().1, ["-e", "1"]);
        for bad in [["--threads", "0"], ["--scale", "0"], ["--set", "x"], ["--peer", "x"], ["--rounds", "none"]] {
            assert!(given(&bad).is_err(), "{bad:?}");
        }
    }
}
