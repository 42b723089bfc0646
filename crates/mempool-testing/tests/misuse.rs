//! Every kind of misuse ends in SIGABRT with exactly one line, which says what was wrong.

// The helper makes process pools of its own, and ends them.
#![cfg(not(feature = "global"))]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// The kind, and its line behind "mempool: ", addresses as `@`.
const LINES: &[(&str, &str)] = &[
    ("double-free", "Pool::free(@): double free: item 0 of slab 2 of size class 112 bytes is free already"),
    ("double-free-tiny", "Pool::free(@): double free: item 0 of slab 2 of size class 16 bytes is free already"),
    (
        "double-free-largest-class",
        "Pool::free(@): double free: item 0 of slab 2 of size class 208 bytes is free already",
    ),
    ("double-free-run", "Pool::free(@): invalid pointer or double free: nothing is allocated there"),
    ("double-free-pages", "Pool::free(@): invalid pointer or double free: nothing is allocated there"),
    ("double-free-heap", "Pool::free(@): double free: the object of the heap is free already"),
    ("double-free-kept-run", "Pool::free(@): invalid pointer or double free: nothing is allocated there"),
    ("double-free-empty", "Pool::free(@): double free: item 0 of slab 2 of size class 16 bytes is free already"),
    ("double-free-interleaved", "Pool::free(@): double free: item 0 of slab 2 of size class 112 bytes is free already"),
    ("double-free-delayed", "Pool::free(@): double free: item 17 of slab 2 of size class 64 bytes is free already"),
    (
        "double-free-then-elsewhere",
        "Pool::free(@): double free: item 0 of slab 2 of size class 112 bytes is free already",
    ),
    (
        "double-free-elsewhere-then-here",
        "Pool::free(@): double free: item 0 of slab 2 of size class 112 bytes is free already",
    ),
    (
        "double-free-both-elsewhere",
        "Pool::free(@): double free: item 0 of slab 2 of size class 112 bytes is free already",
    ),
    ("double-free-run-elsewhere", "Pool::free(@): invalid pointer or double free: nothing is allocated there"),
    ("double-free-kept-run-elsewhere", "Pool::free(@): invalid pointer or double free: nothing is allocated there"),
    ("double-free-heap-elsewhere", "Pool::free(@): double free: the object of the heap is free already"),
    (
        "double-free-cache-item",
        "RawCache::free(@): double free: item 0 of slab 2 of cache \"request\", 64 bytes is free already",
    ),
    (
        "double-free-cache-item-elsewhere",
        "RawCache::free(@): double free: item 0 of slab 2 of cache \"request\", 64 bytes is free already",
    ),
    (
        "double-free-array",
        "RawCache::free_array(@): double free: item 0 of slab 2 of cache \"request\", 64 bytes is free already",
    ),
    ("double-free-large-array", "RawCache::free_array(@): invalid pointer or double free: nothing is allocated there"),
    ("interior", "Pool::free(@): invalid pointer: inside item 0 of slab 2 of size class 112 bytes, not its first byte"),
    (
        "misaligned",
        "Pool::free(@): invalid pointer: inside item 0 of slab 2 of size class 112 bytes, not its first byte",
    ),
    ("interior-run", "Pool::free(@): invalid pointer: inside a run of 10240 bytes, not its first byte"),
    ("misaligned-run", "Pool::free(@): invalid pointer: inside a run of 10240 bytes, not its first byte"),
    ("interior-pages", "Pool::free(@): invalid pointer: inside a run of 500224 bytes, not its first byte"),
    ("interior-heap", "Pool::free(@): invalid pointer: inside the heap object at @, not its first byte"),
    ("misaligned-heap", "Pool::free(@): invalid pointer: inside the heap object at @, not its first byte"),
    (
        "interior-cache-item",
        "RawCache::free(@): invalid pointer: inside item 0 of slab 2 of cache \"request\", 64 bytes, not its first byte",
    ),
    ("never-allocated-item", "Pool::free(@): double free: item 3 of slab 2 of size class 112 bytes is free already"),
    ("never-allocated-run", "Pool::free(@): invalid pointer or double free: nothing is allocated there"),
    ("wild", "Pool::free(@): invalid pointer: not from this pool"),
    ("wild-small", "Pool::free(@): invalid pointer: not from this pool"),
    ("stack", "Pool::free(@): invalid pointer: not from this pool"),
    ("static", "Pool::free(@): invalid pointer: not from this pool"),
    ("libc", "Pool::free(@): invalid pointer: not from this pool"),
    ("foreign-pool", "Pool::free(@): invalid pointer: not from this pool"),
    ("metadata", "Pool::free(@): invalid pointer: not from this pool"),
    (
        "wrong-cache",
        "RawCache::free(@): wrong cache: item 0 of slab 2 of cache \"request\", 64 bytes, not of cache \"reply\"",
    ),
    (
        "wrong-cache-not-an-item",
        "RawCache::free(@): wrong cache: item 0 of slab 2 of size class 64 bytes, not of cache \"request\"",
    ),
    ("wrong-cache-a-run", "RawCache::free(@): wrong cache: a run of its own, not of cache \"request\""),
    ("wrong-cache-foreign", "RawCache::free(@): invalid pointer: not from this pool"),
    (
        "wrong-call-item",
        "Pool::free(@): wrong call: item 0 of slab 2 of cache \"request\", 64 bytes belongs to its cache and goes back there",
    ),
    (
        "wrong-call-array",
        "Pool::free(@): wrong call: item 0 of slab 2 of cache \"request\", 64 bytes belongs to its cache and goes back there",
    ),
    (
        "wrong-call-large-array",
        "Pool::free(@): wrong call: the array of 5000 items of cache \"request\" belongs to its cache and goes back there",
    ),
    (
        "fewer",
        "RawCache::free_array(@): wrong count: item 0 of slab 2 of cache \"request\", 64 bytes begins an allocation of 10 items, not 9",
    ),
    (
        "more",
        "RawCache::free_array(@): wrong count: item 0 of slab 2 of cache \"request\", 64 bytes begins an allocation of 10 items, not 11",
    ),
    (
        "fewer-of-large",
        "RawCache::free_array(@): wrong count: the array of 5000 items of cache \"request\" begins an allocation of 5000 items, not 4999",
    ),
    (
        "array-as-item",
        "RawCache::free(@): wrong count: item 0 of slab 2 of cache \"request\", 64 bytes begins an allocation of 10 items, not 1",
    ),
    (
        "item-as-array",
        "RawCache::free_array(@): wrong count: item 0 of slab 2 of cache \"request\", 64 bytes begins an allocation of 1 items, not 2",
    ),
    (
        "interior-of-array",
        "RawCache::free_array(@): invalid pointer: inside an array of cache \"request\", not its first byte",
    ),
    (
        "interior-of-large-array",
        "RawCache::free_array(@): invalid pointer: inside the array of 5000 items of cache \"request\", not its first byte",
    ),
    ("realloc-freed", "Pool::realloc(@): use after free: item 0 of slab 2 of size class 112 bytes is free"),
    ("realloc-freed-run", "Pool::realloc(@): invalid pointer or use after free: nothing is allocated there"),
    ("realloc-freed-kept-run", "Pool::realloc(@): invalid pointer or use after free: nothing is allocated there"),
    ("realloc-freed-heap", "Pool::realloc(@): use after free: the object of the heap is free"),
    (
        "realloc-interior",
        "Pool::realloc(@): invalid pointer: inside item 0 of slab 2 of size class 112 bytes, not its first byte",
    ),
    ("realloc-wild", "Pool::realloc(@): invalid pointer: not from this pool"),
    (
        "realloc-cache-item",
        "Pool::realloc(@): wrong call: item 0 of slab 2 of cache \"request\", 64 bytes belongs to its cache and goes back there",
    ),
    ("usable-size-freed", "Pool::usable_size(@): use after free: item 0 of slab 2 of size class 112 bytes is free"),
    ("usable-size-freed-run", "Pool::usable_size(@): invalid pointer or use after free: nothing is allocated there"),
    ("usable-size-wild", "Pool::usable_size(@): invalid pointer: not from this pool"),
    ("damaged-heap", "Pool::free(@): corrupted tree: free memory of the heap page at @ was written to"),
    (
        "exhausted",
        "exhausted: 9000 bytes asked (alignment 1 byte), pool \"mempool\"\n  verdict    exhausted: all but # bytes is in use\n  memory     # KiB of # KiB free, largest run # KiB\n  stranded   nothing\n  holders    runs: # objects # KiB\n             cache \"request\": # objects # KiB\n  reclaimed  # slabs, # heap pages, # bytes of parked runs; # callbacks called\n  refused    # requests so far\n  set        MEMPOOL_SEGMENT=#K",
    ),
    (
        "exhausted-absurd",
        "exhausted: 9223372036854775807 bytes asked (alignment 1 byte), pool \"mempool\"\n  verdict    too large: the whole pool has room for # KiB\n  memory     # KiB of # KiB free, largest run # KiB\n  stranded   nothing\n  holders    none\n  reclaimed  # slabs, # heap pages, # bytes of parked runs; # callbacks called\n  refused    # requests so far\n  set        none: an object has less than # GiB; MEMPOOL_EXHAUSTED=null refuses",
    ),
    (
        "exhausted-heap",
        "exhausted: 9000 bytes asked (alignment 1 byte), pool \"mempool\"\n  verdict    exhausted: all but # bytes is in use\n  memory     # KiB of # KiB free, largest run # KiB\n  stranded   nothing\n  holders    runs: # objects # KiB\n             cache \"request\": # objects # KiB\n  reclaimed  # slabs, # heap pages, # bytes of parked runs; # callbacks called\n  refused    # requests so far\n  set        MEMPOOL_SEGMENT=#K",
    ),
    (
        "exhausted-system",
        "exhausted: 9223372036854775807 bytes asked (alignment 1 byte), pool \"mempool\": the C library, which serves with small=system, refused",
    ),
    ("mp-double-free", "mp_free(@): double free: item 0 of slab 2 of size class 112 bytes is free already"),
    (
        "mp-free-of-cache-item",
        "mp_free(@): wrong call: item 0 of slab 2 of cache \"request\", 64 bytes belongs to its cache and goes back there",
    ),
    ("mp-use-of-destroyed-cache", "mp_cache_alloc(@): no such cache: cache 0 was destroyed, or is of another pool"),
    ("mp-free-into-destroyed-cache", "mp_cache_free(@): no such cache: cache 0 was destroyed, or is of another pool"),
    ("mp-destroy-twice", "mp_cache_destroy(@): no such cache: cache 0 was destroyed, or is of another pool"),
    ("mp-alloc-after-fini", "malloc: the pool is not initialised: it was ended, and is used afterwards"),
    ("mp-free-after-fini", "mp_free: the pool is not initialised: it was ended, and is used afterwards"),
    ("mp-alloc-after-fini-elsewhere", "malloc: the pool is not initialised: it was ended, and is used afterwards"),
    (
        "mp-alloc-large-after-fini-elsewhere",
        "malloc: the pool is not initialised: it was ended, and is used afterwards",
    ),
    (
        "mp-alloc-item-after-fini-elsewhere",
        "mp_cache_alloc: the pool is not initialised: it was ended, and is used afterwards",
    ),
    (
        "mp-alloc-array-after-fini-elsewhere",
        "mp_cache_alloc_array: the pool is not initialised: it was ended, and is used afterwards",
    ),
    ("mp-free-after-fini-elsewhere", "mp_free: the pool is not initialised: it was ended, and is used afterwards"),
];

fn normalised(text: &str) -> String {
    let mut parts = text.split("0x");
    let mut out = String::from(parts.next().unwrap_or(""));
    for part in parts {
        out.push('@');
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    // The figures of an exhausted pool depend on how much metadata it has.
    let Some(figures) = out.find("\n  verdict") else { return out };
    let hidden = out[figures..].replace(|c: char| c.is_ascii_digit(), "#");
    out.truncate(figures);
    out.push_str(&hidden);
    while out.contains("##") {
        out = out.replace("##", "#");
    }
    // So does the unit of what is free.
    out.replace("# bytes of # KiB free", "# KiB of # KiB free")
}

fn run(kind: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_misuse")).arg(kind).output().expect("the helper runs")
}

#[test]
fn every_kind_ends_with_its_line() {
    for (kind, line) in LINES {
        let output = run(kind);
        let said = normalised(&String::from_utf8_lossy(&output.stderr));
        assert_eq!(said, format!("mempool: {line}\n"), "{kind}");
        assert_eq!(output.status.signal(), Some(6), "{kind}: {:?}", output.status);
    }
}

#[test]
fn every_kind_has_a_line() {
    let output = run("list");
    let kinds = String::from_utf8_lossy(&output.stdout).into_owned();
    let known: Vec<&str> = LINES.iter().map(|(kind, _)| *kind).chain(["null-is-fine"]).collect();
    assert_eq!(kinds.lines().collect::<Vec<_>>(), known);
    assert!(known.len() >= 60);
}

#[test]
fn freeing_null_is_fine() {
    let output = run("null-is-fine");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
