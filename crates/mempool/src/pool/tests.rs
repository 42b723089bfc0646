//! Every call of the operating system fails at its Nth time, once and for ever: a pool is made all the same, or
//! is not and says why; it serves, or refuses; and nothing is left behind.
#![allow(unsafe_code)]

use core::alloc::Layout;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::config::{Commit, Config, Exhausted, Numa, Small, Wish};
use crate::error::InitError;
use crate::os::fake::{Fake, Strike};
use crate::pool::Pool;

const ERRNOS: [i32; 4] = [1, 11, 12, 22];

pub(super) fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

pub(super) fn small() -> Config {
    Config::new().segment(1 << 20).exhausted(Exhausted::Null).max_retries(2)
}

fn configs() -> Vec<Config> {
    Vec::from([
        small(),
        small().commit(Commit::Lazy).dump(false),
        small().lock(Wish::Required).guard_pages(false),
        small().segment(6 << 20).huge_pages(Wish::Required).lock(Wish::Off).small(Small::Heap),
        small().segment(4 << 20).huge_page_size(2 << 20).numa(Numa::Interleave).dump(false),
        small().segment(6 << 20).lock_process(true).numa(Numa::Local).dump(false).strict(true),
        small().exhausted(Exhausted::Grow).segment(512 << 10).max_segment(2 << 20).lock(Wish::Required),
        small().exhausted(Exhausted::Grow).segment(512 << 10).max_segment(2 << 20).commit(Commit::Lazy),
    ])
}

/// What a program does with a pool: fills it to the brim, frees, trims, and ends it.
pub(super) fn work(pool: &Pool) {
    let mut objects = Vec::new();
    for size in [100, 9000, 500_000] {
        while let Ok(object) = pool.try_alloc_zeroed(layout(size)) {
            // SAFETY: as many bytes were handed out.
            let bytes = unsafe { core::slice::from_raw_parts_mut(object.as_ptr(), size) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(0xCD);
            objects.push(object);
        }
    }
    assert!(objects.len() > 100);
    pool.verify().expect("a sound pool");
    // SAFETY: live.
    objects.drain(..).for_each(|object| unsafe { pool.free(object) });
    pool.trim();
    pool.verify().expect("a sound pool");
    assert_eq!(pool.stats().live(), 0);
}

/// What became of the pool: its error, or what it could not get, and the calls that making it took.
fn scenario(os: &'static Fake, config: &Config) -> Result<(crate::Shortfalls, usize), InitError> {
    let pool = Pool::on(os, config)?;
    let calls = os.calls().len();
    work(&pool);
    // What fails for ever fails in the end too, where nobody is left to be told.
    os.heal();
    Ok((pool.shortfalls(), calls))
}

/// Runs the scenario with call number `at` failing. The call's name, None when there are fewer calls.
fn with_failure(config: &Config, at: usize, errno: i32, strike: Strike) -> Option<&'static str> {
    let os = Fake::new();
    os.set_stock(2);
    os.fail("", at, errno, strike);
    let outcome = scenario(os, config);
    let failed = *os.calls().get(at - 1)?;
    if failed != "release" && (strike == Strike::Once || outcome.is_ok()) {
        assert_eq!(os.reserved_bytes(), 0, "call {at}, {failed}, with {errno}: {outcome:?}");
    }
    match outcome {
        Err(error) => {
            let text = error.to_string();
            assert!(matches!(error.code(), 5 | 9), "{error:?}");
            let named = matches!(error, InitError::LockLimit { .. }) || text.contains(failed) || os_name(&text);
            assert!(named && !text.is_empty(), "call {at}, {failed}: {text}");
            assert!(!error.hint().is_empty() || errno == 22, "{text} has no hint");
        }
        Ok((short, calls)) => {
            let wanted = config.values();
            let told = [
                ("lock", short.lock),
                ("huge_pages_advise", short.huge_pages),
                ("huge_bytes", short.huge_pages),
                ("commit_huge", short.huge_pages),
                ("place", short.numa),
                ("dont_dump", short.dump),
                ("lock_program", short.program),
                ("prefault_stack", short.stack),
                ("lower_oom_score", short.oom_score),
            ];
            for (call, told) in told.map(|(call, short)| (call, short.is_some())) {
                assert!(at > calls || failed != call || told, "{call} failed in silence: {short:?}");
            }
            assert!(wanted.lock != Wish::Required || short.lock.is_none());
            assert!(wanted.huge_pages != Wish::Required || short.huge_pages.is_none());
            assert!(!wanted.strict || short.is_empty());
        }
    }
    Some(failed)
}

/// Whether a message carries an errno's name.
fn os_name(text: &str) -> bool {
    ["EPERM", "EAGAIN", "ENOMEM", "EINVAL"].iter().any(|name| text.contains(name))
}

#[test]
fn every_call_fails_at_its_nth_time() {
    let mut seen: Vec<&str> = Vec::new();
    for config in configs() {
        for errno in ERRNOS {
            // A refusal for ever leaks what cannot be released, so that one kind of it must do.
            let strikes = if errno == 12 { &[Strike::Once, Strike::ForEver][..] } else { &[Strike::Once] };
            for &strike in strikes {
                let calls = (1..).map_while(|at| with_failure(&config, at, errno, strike));
                seen.extend(calls.take(200));
            }
        }
    }
    for call in [
        "reserve",
        "commit",
        "prefault",
        "lock",
        "release",
        "name",
        "available",
        "huge_pages_advise",
        "huge_bytes",
        "commit_huge",
        "place",
        "dont_dump",
        "lock_program",
        "prefault_stack",
        "lower_oom_score",
    ] {
        assert!(seen.contains(&call), "{call} was never made to fail: {seen:?}");
    }
}

#[test]
fn a_lock_that_is_tried_degrades_and_one_that_is_required_fails() {
    let os = Fake::new();
    os.limit_locks(64 << 10);
    let pool = Pool::on(os, &small().lock(Wish::Try)).expect("a pool without a lock");
    assert!(pool.shortfalls().lock.is_some());
    work(&pool);
    drop(pool);
    assert_eq!((os.reserved_bytes(), os.locked_bytes()), (0, 0));
    let error = Pool::on(os, &small().lock(Wish::Required)).map(drop).expect_err("no lock");
    let text: String = error.to_string();
    assert_eq!(error.code(), 9, "{text}");
    assert!(text.contains("64 KiB") && error.hint().contains("ulimit -l"), "{text}");
    assert_eq!((os.reserved_bytes(), os.locked_bytes()), (0, 0));
}

#[test]
fn growth_that_fails_refuses_and_works_later() {
    let os = Fake::new();
    let config = small().exhausted(Exhausted::Grow).segment(512 << 10).max_segment(4 << 20);
    let pool = Pool::on(os, &config).expect("a pool");
    let open = pool.stats().open;
    os.fail("commit", 1, 12, Strike::ForEver);
    assert!(pool.try_alloc(layout(1 << 20)).is_err());
    assert_eq!(pool.stats().open, open);
    pool.verify().expect("a sound pool");
    os.heal();
    let object = pool.try_alloc(layout(1 << 20)).expect("memory that was committed");
    assert!(pool.stats().open > open);
    pool.verify().expect("a sound pool");
    // SAFETY: live.
    unsafe { pool.free(object) };
    drop(pool);
    assert_eq!(os.reserved_bytes(), 0);
}

#[test]
fn waiting_is_as_long_as_configured() {
    let os = Fake::new();
    let pool = Pool::on(os, &small().max_retries(5).wait_time(7_000)).expect("a pool");
    let half = pool.try_alloc(layout(600 << 10)).expect("memory");
    assert!(pool.try_alloc(layout(600 << 10)).is_err());
    assert_eq!(os.sleeps(), [7_000; 5]);
    // What the pool could never serve is not waited for.
    assert!(pool.try_alloc(layout(2 << 20)).is_err());
    assert_eq!(os.sleeps().len(), 5);
    // SAFETY: live.
    unsafe { pool.free(half) };
}

/// `cargo test -p mempool --lib -- --nocapture what_each_area_costs` prints them.
#[test]
fn what_each_area_costs() {
    let pool = Config::new().segment(256 << 20).commit(Commit::Lazy).lock(Wish::Off).build().expect("a pool");
    let layout = pool.core().layout;
    let starts = [
        ("header", 0),
        ("zero", layout.zero),
        ("core", layout.core),
        ("slab lock", layout.slab_lock),
        ("page-frag control", layout.frag_control),
        ("heap control", layout.heap_control),
        ("hints", layout.hints),
        ("class hints", layout.class_hints),
        ("shapes", layout.shapes),
        ("cache table", layout.caches),
        ("thread directory", layout.directory),
        ("shared local heap", layout.shared),
        ("touched", layout.touched),
        ("lengths of runs", layout.length),
        ("busy", layout.busy),
        ("first", layout.first),
        ("last", layout.last),
        ("tree", layout.tree),
        ("descriptors", layout.slots),
        ("rounding", layout.metadata_end),
        ("data", layout.data),
    ];
    let mut parts: Vec<_> = starts.to_vec();
    parts.sort_by_key(|(_, at)| *at);
    for pair in parts.windows(2) {
        std::println!("{:>9}  {}", pair[1].1 - pair[0].1, pair[0].0);
    }
    let other = (256 << 20) - (layout.end - layout.data);
    std::println!("{other:>9}  all but data; a local heap has {}", pool.core().local_bytes());
    assert!(other < (256 << 20) * 19 / 1000, "{other} bytes are not for objects");
}
