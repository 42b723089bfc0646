//! The arguments of the command, turned into one [`Task`].
//!
//! The flags of settings come from the library's table (see [`crate::settings`]); only what is the command's own is
//! written here.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::failure::{Failure, OWN};
use crate::{configure, drill, run, settings, size, starve, watch};

/// What to do.
pub enum Task {
    /// `mempool run`.
    Run(run::Order),
    /// `mempool size`.
    Size(size::Plan),
    /// `mempool drill`.
    Drill(drill::Plan),
    /// `mempool starve`.
    Starve(starve::Plan),
    /// What `mempool starve` starts.
    StarveWorker(starve::WorkerOrder),
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
  mempool size -- sqlite3 :memory: < work      how large a segment it needs
  mempool drill -- ls /                        what it does when memory is refused, call by call
  mempool starve                               what it is good for, in 20 seconds
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

const SIZE_EXAMPLES: &str = "\
Examples:
  mempool size -- python3 -c 'print(sum(range(10**6)))'
  mempool size --input script.sql --json -- sqlite3 :memory:
  mempool size --small heap --percent 1 -- ls -R /usr/share/doc

The program runs once with every request watched, then about ten times on segments of fixed size; its output is
thrown away. A segment works when the program ends as it did the first time. --segment, --max-segment, --exhausted,
--commit, --lock and --huge-pages are this command's to choose; the other settings are the program's.

Exit codes: 0 if a segment was found, 125 if not or if mempool itself fails, 126 and 127 as for `mempool run`.";

const DRILL_EXAMPLES: &str = "\
Examples:
  mempool drill -- ls /
  mempool drill --accept 1,2 --json -- grep -r pattern .
  mempool drill --all --max 200 -- ./program

The program runs once to learn where it allocates, then once for each such place with that request refused; its
output is thrown away. `mempool run --exhausted null --fail-nth N` repeats one of the runs.

Exit codes: 0 if every place tried can bear a refusal, 1 if one crashed, hung, or ended with a code that --accept does
not name, 125 if mempool itself fails, 126 and 127 as for `mempool run`.";

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
        .subcommand(size_command())
        .subcommand(drill_command())
        .subcommand(starve_command())
        .subcommand(config_command())
        .subcommand(worker_command())
}

fn run_command() -> Command {
    Command::new("run")
        .about("Runs a dynamically linked program on a pool")
        .override_usage("mempool run [SETTINGS] [--] PROGRAM [ARGS]...")
        .after_help(RUN_EXAMPLES)
        .args(settings::flags())
        .arg(program())
}

fn program() -> Arg {
    Arg::new("program")
        .value_name("PROGRAM")
        .help("The program, found in PATH, and its arguments")
        .value_parser(value_parser!(OsString))
        .num_args(1..)
        .required(true)
        .trailing_var_arg(true)
        .allow_hyphen_values(false)
}

/// What commands that run a program again and again have in common.
fn again(command: Command, timeout: &'static str) -> Command {
    command
        .arg(
            Arg::new("input")
                .long("input")
                .value_name("FILE")
                .help("What the program reads as standard input, in each run [default: nothing]")
                .value_parser(value_parser!(std::path::PathBuf)),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("SECONDS")
                .help("The longest that a run may take: 1 to 86400")
                .value_parser(value_parser!(u64).range(1..=86_400))
                .default_value(timeout),
        )
        .arg(json())
        .args(settings::flags())
        .arg(program())
}

fn size_command() -> Command {
    let command = Command::new("size")
        .about("Finds out how large a segment a program needs, by running it")
        .override_usage("mempool size [OPTIONS] [SETTINGS] [--] PROGRAM [ARGS]...")
        .after_help(SIZE_EXAMPLES)
        .arg(
            Arg::new("most")
                .long("most")
                .value_name("BYTES")
                .help("The largest segment that is tried")
                .value_parser(bytes)
                .default_value("64G"),
        )
        .arg(
            Arg::new("percent")
                .long("percent")
                .value_name("N")
                .help("How exact the smallest segment shall be, in percent: 1 to 50")
                .value_parser(value_parser!(u64).range(1..=50))
                .default_value("3"),
        );
    again(command, "600")
}

fn drill_command() -> Command {
    let command = Command::new("drill")
        .about("Refuses a program's requests one by one, and says which places cannot bear it")
        .override_usage("mempool drill [OPTIONS] [SETTINGS] [--] PROGRAM [ARGS]...")
        .after_help(DRILL_EXAMPLES)
        .arg(
            Arg::new("max")
                .long("max")
                .value_name("N")
                .help("The most runs: 1 to 10000000")
                .value_parser(value_parser!(u64).range(1..=10_000_000))
                .default_value("1000"),
        )
        .arg(
            Arg::new("all")
                .long("all")
                .help("Refuses every request in turn, not only the first of each place")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new("accept")
                .long("accept")
                .value_name("CODES")
                .help("Exit codes that are right after a refusal, with commas: others are then wrong [default: all]")
                .value_delimiter(',')
                .value_parser(value_parser!(i32).range(0..=255)),
        );
    again(command, "10")
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
        Some(("size", given)) => Ok(Task::Size(size_plan(given))),
        Some(("drill", given)) => Ok(Task::Drill(drill_plan(given))),
        Some(("starve", given)) => Ok(Task::Starve(starve_plan(given))),
        Some(("starve-worker", given)) => Ok(Task::StarveWorker(worker_order(given))),
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

fn subject(matches: &ArgMatches) -> watch::Subject {
    let run::Order { program, arguments, .. } = run_order(matches);
    let seconds = matches.get_one::<u64>("timeout").copied().unwrap_or(0);
    watch::Subject {
        program,
        arguments,
        input: matches.get_one("input").cloned(),
        timeout: std::time::Duration::from_secs(seconds),
    }
}

fn size_plan(matches: &ArgMatches) -> size::Plan {
    size::Plan {
        given: settings::given(matches),
        subject: subject(matches),
        most: matches.get_one::<usize>("most").copied().unwrap_or(0),
        percent: matches.get_one::<u64>("percent").copied().unwrap_or(0) as usize,
        json: matches.get_flag("json"),
    }
}

fn drill_plan(matches: &ArgMatches) -> drill::Plan {
    drill::Plan {
        given: settings::given(matches),
        subject: subject(matches),
        most: matches.get_one::<u64>("max").copied().unwrap_or(0) as usize,
        all: matches.get_flag("all"),
        accept: matches.get_many::<i32>("accept").into_iter().flatten().copied().collect(),
        json: matches.get_flag("json"),
    }
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
