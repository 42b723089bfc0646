//! The arguments of the command, turned into one [`Task`].
//!
//! The flags of settings come from the library's table (see [`crate::settings`]); only what is the command's own is
//! written here.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::failure::{Failure, OWN};
use crate::{bench, configure, run, settings, starve};

/// What to do.
pub enum Task {
    /// `mempool run`.
    Run(run::Order),
    /// `mempool starve`.
    Starve(starve::Plan),
    /// What `mempool starve` starts.
    StarveWorker(starve::WorkerOrder),
    /// `mempool bench`.
    Bench(Box<bench::Order>),
    /// What `mempool bench` starts.
    BenchWorker(bench::WorkerOrder),
    /// `mempool config`.
    Configure(configure::Order),
    /// Help, the version or a complaint about the arguments was printed: the exit code.
    Shown(u8),
}

const ABOUT: &str = "Runs unmodified programs on an autonomous memory pool";

const EXAMPLES: &str = "\
Examples:
  mempool run -- redis-server --save \"\"        a program on a pool of 512 MiB
  mempool run --segment 2G --stats -- sqlite3  a larger pool; its table at exit
  mempool starve                               what it is good for, in 20 seconds
  mempool bench --quick                        how fast it is, beside other allocators
  mempool config                               the settings in force";

const RUN_EXAMPLES: &str = "\
Examples:
  mempool run -- redis-server --save \"\"
  mempool run --segment 2G --exhausted null --stats -- python3 script.py
  mempool run --segment 256M --commit lazy -- make     many child processes, each with a pool of its own
  MEMPOOL_SEGMENT=1G mempool run -- node server.js     the same settings exist as variables

The program takes the command's place. Exit codes: 125 if mempool itself fails, 126 if the program is found but
cannot run on a pool (static, set-uid, another architecture), 127 if it is not found, else the program's own;
a shell reports 128+n when it dies of signal n. Programs that it starts run on pools of their own.";

const STARVE_EXAMPLES: &str = "\
Examples:
  mempool starve
  mempool starve --seconds 3 --json
  mempool starve --limit 1G --segment 128M

Exit codes: 0 if the pool's worker did all its requests and the other one did not, 1 if the pool's worker failed,
3 if nothing is shown, since both did everything, 125 if mempool itself fails.";

fn command() -> Command {
    Command::new("mempool")
        .about(ABOUT)
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(run_command())
        .subcommand(starve_command())
        .subcommand(config_command())
        .subcommand(worker_command())
        .subcommand(bench::command())
        .subcommand(bench::worker_command())
}

fn run_command() -> Command {
    Command::new("run")
        .about("Runs a dynamically linked program on a pool")
        .override_usage("mempool run [SETTINGS] [--] PROGRAM [ARGS]...")
        .after_help(RUN_EXAMPLES)
        .args(settings::flags())
        .arg(
            Arg::new("program")
                .value_name("PROGRAM")
                .help("The program, found in PATH, and its arguments")
                .value_parser(value_parser!(OsString))
                .num_args(1..)
                .required(true)
                .trailing_var_arg(true)
                .allow_hyphen_values(false),
        )
}

fn config_command() -> Command {
    Command::new("config")
        .about("Prints the settings in force: environment, and flags as `mempool run` takes them")
        .args(settings::flags())
        .arg(json())
}

fn json() -> Arg {
    Arg::new("json").long("json").help("Prints JSON").action(ArgAction::SetTrue)
}

fn bytes(text: &str) -> Result<usize, String> {
    mempool::bytes::parse_bytes(text).map_err(|error| error.to_string())
}

fn starve_command() -> Command {
    let bytes = |name: &'static str| Arg::new(name).long(name).value_name("BYTES").value_parser(bytes);
    Command::new("starve")
        .about("Shows a program that does steady work while all memory is taken away, with and without a pool")
        .after_help(STARVE_EXAMPLES)
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("N")
                .help("Length of each of the two runs: 1 to 600")
                .value_parser(value_parser!(u64).range(1..=600))
                .default_value("8"),
        )
        .arg(bytes("limit").help("Address space of the process (RLIMIT_AS)").default_value("512M"))
        .arg(bytes("segment").help("The pool's segment").default_value("64M"))
        .arg(json())
}

/// The worker's process, which `mempool starve` starts twice.
fn worker_command() -> Command {
    let number = |name: &'static str| Arg::new(name).required(true).value_parser(value_parser!(u64));
    Command::new("starve-worker")
        .hide(true)
        .arg(Arg::new("allocator").required(true).value_parser(["system", "pool"]))
        .args(["seconds", "limit", "segment", "board"].map(number))
}

/// Reads the arguments.
pub fn parse() -> Result<Task, Failure> {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return Ok(complain(&error)),
    };
    match matches.subcommand() {
        Some(("run", given)) => Ok(Task::Run(run_order(given))),
        Some(("starve", given)) => Ok(Task::Starve(starve_plan(given))),
        Some(("starve-worker", given)) => Ok(Task::StarveWorker(worker_order(given))),
        Some(("bench", given)) => Ok(Task::Bench(Box::new(bench::order(given)))),
        Some(("bench-worker", given)) => Ok(Task::BenchWorker(bench::worker_order(given))),
        Some(("config", given)) => {
            Ok(Task::Configure(configure::Order { given: settings::given(given), json: given.get_flag("json") }))
        }
        _ => Err(Failure::own("no such command").fix("`mempool --help` lists them")),
    }
}

fn complain(error: &clap::Error) -> Task {
    // Nobody is left to tell when the output is closed.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Task::Shown(0),
        _ => Task::Shown(OWN),
    }
}

fn run_order(matches: &ArgMatches) -> run::Order {
    let mut words = matches.get_many::<OsString>("program").into_iter().flatten().cloned();
    let program = words.next().unwrap_or_default();
    run::Order { given: settings::given(matches), program, arguments: words.collect() }
}

fn starve_plan(matches: &ArgMatches) -> starve::Plan {
    let bytes = |name| matches.get_one::<usize>(name).copied().unwrap_or(0);
    starve::Plan {
        seconds: matches.get_one::<u64>("seconds").copied().unwrap_or(0),
        limit: bytes("limit"),
        segment: bytes("segment"),
        json: matches.get_flag("json"),
    }
}

fn worker_order(matches: &ArgMatches) -> starve::WorkerOrder {
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or(0);
    starve::WorkerOrder {
        pool: matches.get_one::<String>("allocator").is_some_and(|word| word == "pool"),
        seconds: number("seconds"),
        limit: number("limit"),
        segment: number("segment"),
        board: number("board") as i32,
    }
}
