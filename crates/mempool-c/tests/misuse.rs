//! One wrong thing each: the program ends with SIGABRT and exactly one line that says what it is.

mod support;

use std::os::unix::process::ExitStatusExt;

use support::{BOTH, c_program, start};

/// Whether `text` is `pattern`, in which `@` stands for an address and `#` for a number.
fn matches(pattern: &str, text: &str) -> bool {
    let mut have = text;
    for next in pattern.chars() {
        let rest = match next {
            '@' => have.strip_prefix("0x").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_hexdigit())),
            '#' => {
                let rest = have.trim_start_matches(|c: char| c.is_ascii_digit());
                (rest.len() < have.len()).then_some(rest)
            }
            other => have.strip_prefix(other),
        };
        let Some(rest) = rest else { return false };
        have = rest;
    }
    have.is_empty()
}

#[test]
fn patterns_match_whole_lines() {
    assert!(matches("a @ # z", "a 0x1f 17 z"));
    for bad in ["a 1f 17 z", "a 0x1f x z", "a 0x1f 17 zz", "a 0x1f 17 ", ""] {
        assert!(!matches("a @ # z", bad), "{bad}");
    }
}

/// What the program is asked to do wrong, and what it must say.
const CASES: &[(&str, &str)] = &[
    ("double-free", "mempool: mp_free(@): double free: item # of slab # of size class 64 bytes is free already"),
    ("double-free-late", "mempool: mp_free(@): double free: item # of slab # of size class 64 bytes is free already"),
    ("double-free-thread", "mempool: mp_free(@): double free: item # of slab # of size class 64 bytes is free already"),
    ("double-free-large", "mempool: mp_free(@): invalid pointer or double free: nothing is allocated there"),
    (
        "interior",
        "mempool: mp_free(@): invalid pointer: inside item # of slab # of size class 64 bytes, not its first byte",
    ),
    (
        "misaligned",
        "mempool: mp_free(@): invalid pointer: inside item # of slab # of size class 64 bytes, not its first byte",
    ),
    ("interior-large", "mempool: mp_free(@): invalid pointer: inside a run of 100096 bytes, not its first byte"),
    ("stack", "mempool: mp_free(@): invalid pointer: not from this pool"),
    ("static", "mempool: mp_free(@): invalid pointer: not from this pool"),
    ("libc", "mempool: mp_free(@): invalid pointer: not from this pool"),
    ("realloc-freed", "mempool: mp_realloc(@): use after free: item # of slab # of size class 64 bytes is free"),
    ("realloc-stack", "mempool: mp_realloc(@): invalid pointer: not from this pool"),
    ("usable-freed", "mempool: mp_usable_size(@): use after free: item # of slab # of size class 64 bytes is free"),
    (
        "cache-item",
        "mempool: mp_free(@): wrong call: item # of slab # of cache \"struct request\", 64 bytes belongs to its cache and goes back there",
    ),
    (
        "cache-double-free",
        "mempool: mp_cache_free(@): double free: item # of slab # of cache \"struct request\", 64 bytes is free already",
    ),
    (
        "cache-wrong",
        "mempool: mp_cache_free(@): wrong cache: item # of slab # of cache \"struct request\", 64 bytes, not of cache \"reply\"",
    ),
    (
        "cache-object",
        "mempool: mp_cache_free(@): wrong cache: item # of slab # of size class 64 bytes, not of cache \"struct request\"",
    ),
    ("cache-run", "mempool: mp_cache_free(@): wrong cache: a run of its own, not of cache \"struct request\""),
    ("cache-foreign", "mempool: mp_cache_free(@): invalid pointer: not from this pool"),
    (
        "cache-interior",
        "mempool: mp_cache_free(@): invalid pointer: inside item # of slab # of cache \"struct request\", 64 bytes, not its first byte",
    ),
    (
        "array-less",
        "mempool: mp_cache_free_array(@): wrong count: item # of slab # of cache \"struct request\", 64 bytes begins an allocation of 10 items, not 9",
    ),
    (
        "array-more",
        "mempool: mp_cache_free_array(@): wrong count: item # of slab # of cache \"struct request\", 64 bytes begins an allocation of 10 items, not 11",
    ),
    (
        "array-single",
        "mempool: mp_cache_free(@): wrong count: item # of slab # of cache \"struct request\", 64 bytes begins an allocation of 10 items, not 1",
    ),
    (
        "array-double-free",
        "mempool: mp_cache_free_array(@): double free: item # of slab # of cache \"struct request\", 64 bytes is free already",
    ),
    ("cache-destroyed", "mempool: mp_cache_alloc: cache \"struct request\" has been destroyed"),
    ("cache-destroyed-twice", "mempool: mp_cache_destroy: cache \"reply\" has been destroyed"),
    ("cache-twice", "mempool: mp_cache_init: \"int\": the cache is initialised already, as \"struct request\""),
    (
        "cache-name",
        "mempool: mp_cache_init: \"a name that has more than 31 bytes\": the cache's name has 34 bytes, more than 31",
    ),
    (
        "cache-size-0",
        "mempool: mp_cache_init: \"nothing\": items of 0 bytes: a cache holds items of 1 to 1048576 bytes",
    ),
    (
        "cache-size-large",
        "mempool: mp_cache_init: \"huge\": items of 1048577 bytes: a cache holds items of 1 to 1048576 bytes",
    ),
    (
        "cache-align",
        "mempool: mp_cache_init: \"crooked\": an alignment of 24 bytes: it must be a power of two up to 1048576",
    ),
    ("cache-no-name", "mempool: mp_cache_init: \"\": cannot make a cache: the name is NULL"),
    ("cache-after-fini", "mempool: mp_cache_alloc: cache \"struct request\" belongs to a pool that has ended"),
    ("cache-of-older-pool", "mempool: mp_cache_free: cache \"struct request\" belongs to a pool that has ended"),
    ("after-fini-malloc", "mempool: mp_malloc: the pool is not initialised: it was ended, and is used afterwards"),
    ("after-fini-free", "mempool: mp_free: the pool is not initialised: it was ended, and is used afterwards"),
    ("after-fini-init", "mempool: mp_cache_init: \"int\": the pool is not initialised"),
    ("never-initialised", "mempool: mp_cache_alloc: the cache is not initialised (mp_cache_init)"),
    ("null-cache", "mempool: mp_cache_alloc: the cache is NULL"),
    ("garbage-cache", "mempool: mp_cache_free: the cache is not initialised (mp_cache_init)"),
    (
        "too-much",
        "mempool: exhausted: 8 MiB asked (alignment 16 bytes), pool \"mempool\"\n  verdict    too large: the whole pool has room for # KiB\n  memory     # KiB of # KiB free, largest run # KiB\n  stranded   nothing\n  holders    none\n  reclaimed  # slabs, # heap pages, # bytes of parked runs; # callbacks called\n  refused    # requests so far\n  set        MEMPOOL_SEGMENT=#K",
    ),
    (
        "overflow",
        "mempool: exhausted: 18446744073709551615 bytes asked (alignment 16 bytes), pool \"mempool\"\n  verdict    too large: the whole pool has room for # KiB\n  memory     # KiB of # KiB free, largest run # KiB\n  stranded   nothing\n  holders    none\n  reclaimed  # slabs, # heap pages, # bytes of parked runs; # callbacks called\n  refused    # requests so far\n  set        none: an object has less than 512 GiB; MEMPOOL_EXHAUSTED=null refuses",
    ),
];

#[test]
fn each_wrong_thing_ends_the_process_with_its_line() {
    let mut wrong = Vec::new();
    for link in BOTH {
        let program = c_program("misuse.c", link);
        for (what, pattern) in CASES {
            let output = start(&program, &[what], &[]);
            let said = String::from_utf8(output.stderr).unwrap();
            let line = said.strip_suffix('\n').unwrap_or("(no end of line)");
            if output.status.signal() != Some(6) || !matches(pattern, line) {
                wrong.push(format!("{link:?} {what}: {}\n  want {pattern}\n  have {said}", output.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A name can be any UTF-8, and a message is one line, which a terminal shows.
#[test]
fn names_are_escaped_in_all_that_is_said() {
    const NAME: &str = r"a\n\x1b[1mb\xc3\xa9";
    for link in BOTH {
        let program = c_program("misuse.c", link);
        let said = |what: &str| String::from_utf8(start(&program, &[what], &[]).stderr).unwrap();
        let (all, freed) = (said("names"), said("names-free"));
        assert!(!(all.clone() + &freed).contains('\x1b'), "{all}{freed}");
        for line in [
            format!("  cache {NAME} "),
            format!("cache \"{NAME}\": 1 objects 64 bytes"),
            format!("the cache is initialised already, as \"{NAME}\"\n"),
            format!("mempool: leak: cache \"{NAME}\": 1 objects, 64 bytes\n"),
            format!("mempool: mp_cache_alloc: cache \"{NAME}\" belongs to a pool that has ended\n"),
        ] {
            assert!(all.contains(&line), "{line} is not in\n{all}");
        }
        assert!(
            freed.contains(&format!("cache \"{NAME}\", 64 bytes belongs")) && freed.lines().count() == 1,
            "{freed}"
        );
    }
}

#[test]
fn leaks_are_reported_by_size_class_and_cache() {
    for link in BOTH {
        let program = c_program("misuse.c", link);
        let report = |what: &str| {
            let output = start(&program, &[what], &[]);
            assert_eq!(output.status.code(), Some(99), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        assert_eq!(
            report("leaks"),
            "mempool: leak: size class 48: 1 objects, 48 bytes\n\
             mempool: leak: size class 112: 2 objects, 224 bytes\n\
             mempool: leak: cache \"struct request\": 1 objects, 64 bytes\n\
             mempool: leak: cache \"reply\": 7 objects, 448 bytes\n\
             mempool: leak: runs: 1 objects, 50176 bytes\n\
             mempool: mempool_fini: 12 objects of 50960 bytes were still live\n"
        );
        assert_eq!(report("no-leaks"), "");
        assert_eq!(
            report("cache-live"),
            "mempool: mp_cache_destroy: cache \"struct request\" had 11 live items of 64 bytes\n"
        );
    }
}
