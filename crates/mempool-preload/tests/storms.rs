//! Forks, ending threads, dlopen and spawned processes, many at once.

mod common;

use std::process::Command;

use common::{compile, library, on_pool, plain, succeed};

/// One storm on the pool.
fn storm(arguments: &[&str]) -> Command {
    let program = compile("storms.c", &format!("storms-{}", arguments[0]), &[]);
    let mut command = on_pool(program);
    command.args(arguments).env("MEMPOOL_SEGMENT", "64M");
    command
}

#[test]
fn children_of_a_fork_allocate_at_once_whatever_other_threads_did() {
    succeed(&mut storm(&["fork", "1000"]));
}

#[test]
fn children_of_a_fork_allocate_at_once_with_the_heap() {
    succeed(storm(&["fork", "400"]).env("MEMPOOL_SMALL", "heap"));
}

#[test]
fn twenty_thousand_threads_that_end_allocating_leave_nothing() {
    let ran = succeed(&mut storm(&["exit", "20000"]));
    assert!(ran.err.contains("from 2000 to 20000 threads"), "{}", ran.err);
}

#[test]
fn opened_again_the_library_stays_and_works() {
    let library = library();
    let library = library.to_str().expect("a path in UTF-8");
    succeed(&mut storm(&["dlopen", "300", library]));
}

#[test]
fn opened_without_preload_the_library_serves_who_asks_and_nobody_else() {
    let library = library();
    let program = compile("late.c", "late", &[]);
    let mut command = plain(program);
    succeed(command.arg(library).env("MEMPOOL_COMMIT", "lazy").env("MEMPOOL_SEGMENT", "16M"));
}

#[test]
fn processes_are_spawned_from_many_threads() {
    succeed(&mut storm(&["spawn", "150"]));
}
