//! C and C++ programs that use every function of the header, linked with the shared and with the static library.

mod support;

use support::{BOTH, Link, c_program, checks, compile, crate_dir, prefix, start};

/// Runs a program both ways, with slabs and with the best-fit heap. It must make at least so many checks each time.
fn both(name: &str, least: usize) {
    for link in BOTH {
        let program = c_program(name, link);
        for small in ["slab", "heap"] {
            let count = checks(&program, &[], &[("MEMPOOL_SMALL", small)]);
            assert!(count >= least, "{name} {link:?} {small}: {count} checks, fewer than {least}");
        }
    }
}

#[test]
fn objects() {
    both("objects.c", 250);
}

#[test]
fn caches() {
    both("caches.c", 1200);
}

#[test]
fn life() {
    both("life.c", 200);
}

#[test]
fn threads_and_forks() {
    both("threads.c", 150);
}

#[test]
fn a_fork_while_the_pool_is_made_or_ended() {
    for link in BOTH {
        // Large enough to take a while.
        let settings = [("MEMPOOL_SEGMENT", "512M"), ("MEMPOOL_COMMIT", "eager"), ("MEMPOOL_LOCK", "off")];
        assert_eq!(checks(&c_program("begun.c", link), &[], &settings), 445);
    }
}

#[test]
fn fork_handlers_that_are_older_than_the_pool() {
    for link in BOTH {
        assert_eq!(checks(&c_program("handlers.c", link), &[], &[]), 208);
    }
}

#[test]
fn a_thread_outlives_pools() {
    for link in BOTH {
        let program = c_program("outlive.c", link);
        for (segment, small) in [("16M", "slab"), ("16M", "heap"), ("160M", "slab")] {
            let settings = [("MEMPOOL_SEGMENT", segment), ("MEMPOOL_SMALL", small)];
            assert!(checks(&program, &[], &settings) >= 240, "{link:?} {segment} {small}");
        }
    }
}

#[test]
fn a_large_pool_costs_what_is_used_of_it() {
    for link in BOTH {
        assert!(checks(&c_program("sparse.c", link), &[], &[]) >= 50);
    }
}

/// The smallest threads have 16 KiB of stack, of which their variables take a part.
#[test]
fn a_first_use_needs_little_stack() {
    for link in BOTH {
        assert_eq!(checks(&c_program("stack.c", link), &[], &[("MEMPOOL_SEGMENT", "4M")]), 3);
    }
}

#[test]
fn exhausted() {
    both("exhausted.c", 70);
}

#[test]
fn storms() {
    for link in BOTH {
        let program = c_program("storm.c", link);
        for seed in ["1", "2", "3"] {
            assert!(checks(&program, &[seed], &[]) >= 30);
        }
    }
}

#[test]
fn cplusplus() {
    let source = crate_dir().join("tests/c/plus.cpp");
    for (standard, link) in [("c++17", Link::Shared), ("c++17", Link::Static), ("c++20", Link::Shared)] {
        assert!(checks(&compile("c++", standard, &source, link), &[], &[]) >= 14);
    }
}

#[test]
fn the_first_use_makes_the_pool_from_the_environment() {
    for link in BOTH {
        let program = c_program("lazy.c", link);
        for first in [
            "malloc", "calloc", "realloc", "aligned", "strdup", "try", "critical", "reclaim", "cache", "init", "config",
        ] {
            assert!(checks(&program, &[first], &[("MEMPOOL_SEGMENT", "3M")]) >= 4, "{first}");
        }
        checks(&program, &["bad-try"], &[("MEMPOOL_SEGMENT", "3X")]);
    }
}

#[test]
fn a_bad_environment_is_an_error_at_init_and_an_end_at_first_use() {
    let program = c_program("lazy.c", Link::Shared);
    // Less address space than the last of them asks for, more than all else needs.
    let start = |first: &str, variable: (&str, &str)| {
        let script = format!("ulimit -v 2000000 && exec {} {first}", program.display());
        start(std::path::Path::new("/bin/sh"), &["-c", &script], &[variable])
    };
    for (variable, value, code, words, sentence) in [
        ("MEMPOOL_SEGMNT", "3M", 1, "unknown setting", "did you mean MEMPOOL_SEGMENT?"),
        ("MEMPOOL_SEGMENT", "3MB", 2, "the value of a setting cannot be read", "MEMPOOL_SEGMENT=3MB: "),
        (
            "MEMPOOL_SEGMENT",
            "3K",
            3,
            "the value of a setting is out of range",
            "segment is 3 KiB, but must be from 256 KiB",
        ),
        ("MEMPOOL_RESERVE", "1G", 4, "two settings contradict each other", "reserve must be less than segment"),
        ("MEMPOOL_SEGMENT", "1T", 5, "the operating system refused a request", "1 TiB"),
    ] {
        let output = start("init", (variable, value));
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.starts_with(&format!("{code} {words}: ")) && said.contains(sentence), "{said}");

        let output = start("malloc", (variable, value));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("mempool: mp_malloc: ") && said.contains(sentence), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6));
    }
}

#[test]
fn statistics_are_printed_at_exit_where_asked_for() {
    for link in BOTH {
        let program = c_program("lazy.c", link);
        let output = start(
            &program,
            &["malloc"],
            &[("MEMPOOL_SEGMENT", "3M"), ("MEMPOOL_STATS", "on"), ("MEMPOOL_NAME", "mine")],
        );
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.starts_with("mempool statistics of pool \"mine\"\n"), "{said}");
        assert!(said.contains("holder"), "{said}");
    }
}

#[test]
fn the_library_can_be_loaded_later_and_exports_no_malloc() {
    let source = crate_dir().join("tests/c/dlopen.c");
    let program = support::scratch().join("dlopen");
    let built = std::process::Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread"])
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success());
    let library = prefix().join("lib/libmempool.so.0");
    let output = start(&program, &[library.to_str().unwrap()], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The program of docs/C.md compiles, and prints what is said there.
#[test]
fn the_documentation_shows_a_true_program() {
    let text = std::fs::read_to_string(crate_dir().join("../../docs/C.md")).unwrap();
    let block = |kind: &str, number: usize| {
        let after = text.split(&format!("```{kind}\n")).nth(number + 1).unwrap();
        after.split("```").next().unwrap().to_owned()
    };
    let source = support::scratch().join("documented.c");
    std::fs::write(&source, block("c", 0)).unwrap();
    for link in BOTH {
        let output = start(&compile("cc", "c99", &source, link), &[], &[("MEMPOOL_SEGMENT", "4M")]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), block("text", 0));
    }
    let source = support::scratch().join("configured.c");
    let head = "#include <mempool.h>\n#include <stdio.h>\nint main(void) {\n";
    let tail = "return !mempool_is_ready(); }\n";
    std::fs::write(&source, format!("{head}{}{tail}", block("c", 1))).unwrap();
    let output = start(&compile("cc", "c99", &source, Link::Shared), &[], &[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
