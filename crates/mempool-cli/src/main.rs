//! The command `mempool`: runs unmodified programs on a pool, and shows what that is good for.
//!
//! `main` reads as a sentence: the arguments become one [`args::Task`], the task is done, and what went wrong becomes
//! a message and an exit code. The exit codes are those of `env` and `timeout`, listed in [`failure`].
//!
//! *Memory:* the command itself allocates from the C library; only the worker of `mempool starve` switches to the
//! pool (see [`allocator`]). *Limits:* Linux, and programs that are linked dynamically against the GNU C library.

mod allocator;
mod args;
mod bench;
mod configure;
mod doctor;
mod drill;
mod ending;
mod failure;
mod group;
mod inherited;
mod library;
mod peers;
mod program;
mod run;
mod say;
mod settings;
mod shell;
mod size;
mod starve;
mod terminal;
mod watch;

use std::process::ExitCode;

use args::Task;

#[global_allocator]
static ALLOCATOR: allocator::Switch = allocator::Switch::new();

fn main() -> ExitCode {
    let done = args::parse().and_then(|task| match task {
        Task::Run(order) => Err(run::exec(&order)),
        Task::Size(plan) => size::show(&plan),
        Task::Drill(plan) => drill::show(&plan),
        Task::Starve(plan) => starve::show(&plan),
        Task::StarveWorker(order) => starve::work(&order),
        Task::StarveHog(order) => starve::hog(&order),
        Task::Doctor(order) => doctor::show(&order),
        Task::Bench(order) => bench::show(&order),
        Task::BenchWorker(order) => bench::work(&order),
        Task::Configure(given) => configure::show(&given),
        Task::Shown(code) => Ok(ExitCode::from(code)),
    });
    done.unwrap_or_else(|failure| failure.report())
}
