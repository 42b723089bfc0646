//! The arguments of the command, turned into one [`Task`].
//!
//! The flags of settings come from the library's table (see [`crate::settings`]); only what is the command's own is
//! written here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::failure::{Failure, OWN};
use crate::{bench, configure, doctor, drill, run, settings, size, starve, watch};

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
    /// What `mempool starve` starts: a worker.
    StarveWorker(starve::WorkerOrder),
    /// What `mempool starve` starts: a hog.
    StarveHog(starve::WorkerOrder),
    /// `mempool doctor`.
    Doctor(doctor::Order),
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
  mempool starve                               what it is good for, in less than 30 seconds
  mempool doctor --segment 2G                  what this machine allows, and how to have the rest
  mempool bench --quick                        how fast it is, beside other allocators
  mempool size -- sqlite3 :memory: < work      how large a segment it needs
  mempool drill -- ls /                        what it does when memory is refused, call by call
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

const DOCTOR_EXAMPLES: &str = "\
Examples:
  mempool doctor
  mempool doctor --segment 2G --lock required --process
  mempool doctor -- redis-server --save \"\"

Exit codes: 0 if every promise holds, 1 if a pool can be made and some do not, 2 if there can be no pool, or PROGRAM
cannot run on one, 125 if mempool itself fails.";
const SIZE_EXAMPLES: &str = "\
Examples:
  mempool size -- python3 -c 'print(sum(range(10**6)))'
  mempool size --input script.sql --json -- sqlite3 :memory:
  mempool size --small heap --percent 1 -- ls -R /usr/share/doc

The program runs once with every request watched, then about ten times on segments of fixed size; its output is
thrown away. A segment works when the program ends as it did the first time, which must not be by a signal.
--segment, --max-segment, --exhausted, --commit, --lock and --huge-pages are this command's to choose; the other
settings are the program's. What it leaves running is killed at the end of each run.

Exit codes: 0 if a segment was found, 125 if not or if mempool itself fails, 126 and 127 as for `mempool run`.";

const DRILL_EXAMPLES: &str = "\
Examples:
  mempool drill -- ls /
  mempool drill --accept 1,2 --json -- grep -r pattern .
  mempool drill --all --max 200 -- ./program

The program runs once to learn where it allocates, then once for each such place with that request refused; its
output is thrown away. `mempool run --exhausted null --fail-nth N` repeats one of the runs.
What the program leaves running is killed at the end of each run. Which requests are refused is this command's to choose.

Exit codes: 0 if every place tried can bear a refusal, 1 if one crashed, hung, or ended with a code that --accept does
not name, 125 if the program dies of a signal without a refusal or if mempool itself fails, 126 and 127 as for
`mempool run`.";

const STARVE_EXAMPLES: &str = "\
Examples:
  mempool starve
  mempool starve --seconds 10 --html starve.html
  mempool starve --kinds addresses,killer --json
  mempool starve --rounds 9 --seconds 2 --allocators mempool --isolate

Kinds: quiet (always), addresses, killer, sleep, throttle, cache, swap, overcommit. Those that this machine does not allow
are named with the reason. The pool has --exhausted null --process; other variables MEMPOOL_... hold for it.

Exit codes: 0 if the pool's workers did all their requests and others did not or were held up, 1 if a worker of the pool failed,
3 if nothing is shown, since all did everything, 125 if mempool itself fails.";

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
        .subcommand(doctor_command())
        .subcommand(config_command())
        .subcommand(worker_command("starve-worker"))
        .subcommand(worker_command("starve-hog"))
        .subcommand(bench::command())
        .subcommand(bench::worker_command())
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

fn doctor_command() -> Command {
    Command::new("doctor")
        .about("Says what this machine and user allow, which promises hold here, and how to have the rest")
        .override_usage("mempool doctor [SETTINGS] [--json] [--] [PROGRAM [ARGS]...]")
        .after_help(DOCTOR_EXAMPLES)
        .args(settings::flags())
        .arg(json())
        .arg(Arg::new("root").long("root").hide(true).value_parser(value_parser!(PathBuf)).default_value("/"))
        .arg(program().required(false).help("A program that is to run on a pool; its arguments change nothing here"))
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
        .about("Shows a program that does steady work while all memory is taken away, on each allocator and on a pool")
        .after_help(STARVE_EXAMPLES)
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("N")
                .help("Length of each run: 1 to 600 [default: what makes the whole take less than 30 s]")
                .value_parser(value_parser!(u64).range(1..=600)),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .help("Runs of the pool's worker in each kind, of which the medians count: 1 to 99")
                .default_value("1")
                .value_parser(value_parser!(u64).range(1..=99)),
        )
        .arg(Arg::new("isolate").long("isolate").action(ArgAction::SetTrue).help(
            "Keeps the kernel's own work off the workers' processor meanwhile, so that what writes files out does not delay them (root)",
        ))
        .arg(bytes("limit").help("What worker and hog may have together").default_value("256M"))
        .arg(bytes("segment").help("The pool's segment").default_value("64M"))
        .arg(
            Arg::new("kinds")
                .long("kinds")
                .value_name("KIND,...")
                .help("Kinds of starvation [default: all that the machine allows]")
                .value_delimiter(','),
        )
        .arg(
            Arg::new("allocators")
                .long("allocators")
                .value_name("NAME,...")
                .help("Allocators beside the pool [default: glibc and those that are installed]")
                .value_delimiter(','),
        )
        .arg(json())
        .arg(
            Arg::new("svg")
                .long("svg")
                .value_name("FILE")
                .help("Writes the page's drawings as one picture")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            Arg::new("html")
                .long("html")
                .value_name("FILE")
                .help("Writes a page with latency over time")
                .value_parser(value_parser!(PathBuf)),
        )
}

/// The processes that `mempool starve` starts.
fn worker_command(name: &'static str) -> Command {
    let number = |name: &'static str| Arg::new(name).required(true).value_parser(value_parser!(u64));
    Command::new(name)
        .hide(true)
        .arg(Arg::new("allocator").required(true).value_parser(["system", "pool"]))
        .arg(Arg::new("kind").required(true))
        .args(["limit", "segment", "board"].map(number))
        .arg(Arg::new("processor").required(true))
        .arg(Arg::new("entrance").required(true).value_parser(value_parser!(OsString)))
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
        Some(("starve-worker", given)) => worker_order(given).map(Task::StarveWorker),
        Some(("starve-hog", given)) => worker_order(given).map(Task::StarveHog),
        Some(("doctor", given)) => Ok(Task::Doctor(doctor_order(given))),
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

fn doctor_order(matches: &ArgMatches) -> doctor::Order {
    doctor::Order {
        given: settings::given(matches),
        program: matches.get_one::<OsString>("program").cloned(),
        json: matches.get_flag("json"),
        root: matches.get_one::<PathBuf>("root").cloned().unwrap_or_default(),
    }
}

fn starve_plan(matches: &ArgMatches) -> starve::Plan {
    let bytes = |name| matches.get_one::<usize>(name).copied().unwrap_or(0);
    let words = |name| matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
    starve::Plan {
        millis: matches.get_one::<u64>("seconds").copied().unwrap_or(0) * 1000,
        rounds: matches.get_one::<u64>("rounds").map_or(1, |rounds| *rounds as usize),
        isolate: matches.get_flag("isolate"),
        limit: bytes("limit"),
        segment: bytes("segment"),
        kinds: words("kinds"),
        allocators: words("allocators"),
        json: matches.get_flag("json"),
        html: matches.get_one::<PathBuf>("html").cloned(),
        svg: matches.get_one::<PathBuf>("svg").cloned(),
    }
}

fn worker_order(matches: &ArgMatches) -> Result<starve::WorkerOrder, Failure> {
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or(0);
    let kind = matches.get_one::<String>("kind").map_or("", String::as_str);
    Ok(starve::WorkerOrder {
        pool: matches.get_one::<String>("allocator").is_some_and(|word| word == "pool"),
        kind: starve::Kind::of(kind).ok_or_else(|| Failure::own(format_args!("{kind}: no such kind")))?,
        limit: number("limit"),
        segment: number("segment"),
        board: number("board") as i32,
        processor: matches.get_one::<String>("processor").and_then(|number| number.parse().ok()),
        entrance: matches.get_one::<OsString>("entrance").map(PathBuf::from).unwrap_or_default(),
    })
}
