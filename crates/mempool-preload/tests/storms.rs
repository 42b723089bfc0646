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

/// Their slabs, 64 KiB each, would be more than the pool has.
#[test]
fn what_threads_free_when_they_end_serves_those_that_follow() {
    let program = compile("keys.c", "keys", &[]);
    let ran = succeed(on_pool(program).arg("10000").env("MEMPOOL_SEGMENT", "128M").env("MEMPOOL_STATS", "on"));
    let slabs =
        ran.err.lines().find(|line| line.contains("size class 112 ")).and_then(|line| line.split_whitespace().nth(3));
    let slabs: usize = slabs.expect("the class is in use").parse().expect("a number of slabs");
    assert!(slabs <= 40, "3,000 objects fit in 6 slabs: {}", ran.err);
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

/// Of every function and size, freed by others, with room and without, and with each small tier.
#[test]
fn what_threads_hand_each_other_keeps_its_content() {
    let program = compile("mixture.c", "mixture", &[]);
    let settings: [&[(&str, &str)]; 5] = [
        &[("MEMPOOL_SEGMENT", "512M")],
        &[("MEMPOOL_SEGMENT", "48M"), ("MEMPOOL_WAIT_TIME", "0")],
        &[
            ("MEMPOOL_SEGMENT", "16M"),
            ("MEMPOOL_EXHAUSTED", "grow"),
            ("MEMPOOL_MAX_SEGMENT", "4G"),
            ("MEMPOOL_COMMIT", "lazy"),
        ],
        &[("MEMPOOL_SEGMENT", "512M"), ("MEMPOOL_SMALL", "heap")],
        &[("MEMPOOL_SEGMENT", "64M"), ("MEMPOOL_SMALL", "system")],
    ];
    for (seed, set) in settings.iter().enumerate() {
        let mut command = on_pool(&program);
        command
            .args(["6", "30000", &seed.to_string()])
            .env("MEMPOOL_EXHAUSTED", "null")
            .env("MEMPOOL_VERDICT_INTERVAL", "0");
        let ran = succeed(command.envs(set.iter().copied()));
        assert!(ran.out.ends_with(" 0 failures\n"), "{set:?}: {}", ran.out);
    }
}
