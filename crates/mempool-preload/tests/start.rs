//! Beginning and end: settings, errors at the start, the table at the end.

mod common;

use common::{on_pool, plain, run, succeed};

/// Runs `true` with one more variable: the code and what standard error says.
fn with(name: &str, value: &str) -> (Option<i32>, String) {
    let ran = run(on_pool("/bin/true").env(name, value));
    (ran.code, ran.err)
}

#[test]
fn a_bad_setting_ends_the_program_at_its_start() {
    let cases = [
        ("MEMPOOL_SEGMNT", "1G", "mempool: unknown setting MEMPOOL_SEGMNT; did you mean MEMPOOL_SEGMENT?\n"),
        ("MEMPOOL_SEGMENT", "512MB", "mempool: MEMPOOL_SEGMENT=512MB: KB, MB, GB and TB mean 1000 to some"),
        ("MEMPOOL_SEGMENT", "100K", "mempool: segment is 100 KiB, but must be from 256 KiB to 16 TiB"),
        ("MEMPOOL_SMALL", "large", "mempool: MEMPOOL_SMALL=large: accepted: slab, heap, system"),
        ("MEMPOOL_MAX_SEGMENT", "1G", "mempool: max_segment has a meaning with exhausted=grow alone"),
    ];
    for (name, value, text) in cases {
        let (code, err) = with(name, value);
        assert_eq!(code, Some(125), "{name}: {err}");
        assert!(err.starts_with(text), "{name}: {err}");
        assert_eq!(err.lines().count(), 1, "{name}: {err}");
    }
}

#[test]
fn a_segment_that_the_machine_refuses_ends_the_program_at_its_start() {
    let command =
        format!("ulimit -v 200000; LD_PRELOAD='{}' MEMPOOL_COMMIT=lazy exec /bin/true", common::library().display());
    let ran = run(plain("/bin/sh").args(["-c", &command]));
    assert_eq!(ran.code, Some(125), "{}", ran.err);
    assert!(ran.err.starts_with("mempool: ") && ran.err.contains("ENOMEM"), "{}", ran.err);
}

#[test]
fn the_table_comes_at_the_end_if_asked_for() {
    for program in ["/bin/true", "/bin/ls"] {
        // Programs of the GNU core utilities close standard error before they end.
        let ran = succeed(on_pool(program).env("MEMPOOL_STATS", "on").current_dir("/"));
        let name = program.rsplit('/').next().expect("a name");
        assert!(ran.err.starts_with("mempool: process ") && ran.err.contains(&format!("({name})\n")), "{}", ran.err);
        for part in ["mempool statistics of pool \"mempool\"\n", "  live   ", "  holder ", "  runs  "] {
            assert!(ran.err.contains(part), "{part}: {}", ran.err);
        }
        let ran = succeed(on_pool(program).env("MEMPOOL_STATS", "off").current_dir("/"));
        assert_eq!(ran.err, "");
    }
}

#[test]
fn the_table_never_goes_into_a_file_of_the_program() {
    let file = common::folder().join("not-stderr");
    let script = format!("exec 2>{}; exec 2>&-; for n in 512 10 11; do eval \"exec $n>&-\"; done; :", file.display());
    let ran = succeed(on_pool("/bin/bash").args(["-c", &script]).env("MEMPOOL_STATS", "on"));
    assert_eq!(std::fs::read_to_string(&file).expect("the file is there"), "");
    assert_eq!(ran.err, "");
}

#[test]
fn settings_count() {
    let err = succeed(on_pool("/bin/true").envs([
        ("MEMPOOL_SEGMENT", "24M"),
        ("MEMPOOL_STATS", "1"),
        ("MEMPOOL_NAME", "other"),
    ]))
    .err;
    assert!(err.contains("pool \"other\"") && err.contains(&(24 << 20).to_string()), "{err}");
}
