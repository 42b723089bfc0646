//! The policies, and one test for each verdict: its kind, its words, and that what it says to set helps.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::string::{String, ToString};
use std::sync::Mutex;
use std::vec::Vec;

use crate::Why;
use crate::bytes::parse_bytes;
use crate::config::{Config, Exhausted, ThreadNames};
use crate::os::fake::{Fake, Strike};
use crate::pool::Pool;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a size")
}

fn config() -> Config {
    Config::new().segment(1 << 20).exhausted(Exhausted::Null).max_retries(0)
}

fn make(os: &'static Fake, config: &Config) -> Pool {
    Pool::on(os, config).expect("a pool")
}

fn fill(pool: &Pool, size: usize) -> Vec<NonNull<u8>> {
    std::iter::from_fn(|| pool.try_alloc(layout(size)).ok()).collect()
}

fn free_all(pool: &Pool, objects: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: live, and not used afterwards.
    objects.into_iter().for_each(|object| unsafe { pool.free(object) });
}

/// What was written to standard error.
fn said(os: &Fake) -> String {
    String::from_utf8(os.stderr()).expect("text")
}

/// The value that the last line of a verdict gives to `name`.
fn advice(text: &str, name: &str) -> usize {
    let line = text.lines().last().expect("a line");
    let value =
        line.strip_prefix("  set        ").and_then(|rest| rest.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
    parse_bytes(value.strip_prefix('=').expect("a value")).expect("bytes")
}

/// A screen: so many lines, none wider than a terminal.
fn is_a_screen(text: &str) {
    assert!((8..=24).contains(&text.lines().count()), "{text}");
    assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    for part in ["verdict", "memory", "stranded", "holders", "reclaimed", "refused", "set"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(part)), "{part}: {text}");
    }
}

#[test]
fn exhausted_names_the_holders_and_a_segment_that_helps() {
    let os = Fake::new();
    let pool = make(os, &config());
    let cache = pool.raw_cache("orders", layout(64)).expect("a cache");
    (0..200).for_each(|_| _ = cache.try_alloc());
    let objects = fill(&pool, 500);
    let rest = fill(&pool, 1);
    assert!(pool.alloc(layout(500)).is_err());
    let text = said(os);
    is_a_screen(&text);
    assert!(
        text.starts_with(
            "mempool: exhausted: 500 bytes asked (alignment 1 byte), pool \"mempool\"\n  verdict    exhausted: all but "
        ),
        "{text}"
    );
    for part in ["size class 512 bytes: ", "cache \"orders\": 200 objects 12.5 KiB", "  stranded   nothing"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let helped = make(os, &config().segment(advice(&text, "MEMPOOL_SEGMENT")));
    let more = fill(&helped, 500);
    assert!(more.len() > objects.len(), "the advice does not help");
    free_all(&pool, objects.into_iter().chain(rest));
}

#[test]
fn fragmented_sets_the_largest_run_against_the_need() {
    let os = Fake::new();
    let pool = make(os, &config());
    let objects = fill(&pool, 10_000);
    let (odd, even): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
    free_all(&pool, odd.into_iter().map(|(_, object)| object));
    assert!(pool.alloc(layout(100_000)).is_err());
    let text = said(os);
    is_a_screen(&text);
    assert_eq!(pool.verdict(layout(100_000)).why(), Why::Fragmented);
    assert!(
        text.contains("  verdict    fragmented: ") && text.contains("needed are 100096 bytes in one piece"),
        "{text}"
    );
    assert!(advice(&text, "MEMPOOL_SEGMENT") >= (1 << 20) + 200_000);
    free_all(&pool, even.into_iter().map(|(_, object)| object));
    assert_eq!(pool.verdict(layout(100_000)).why(), Why::Fits);
    assert!(pool.verdict(layout(100_000)).to_string().contains("not exhausted"));
}

#[test]
fn an_aligned_need_is_fragmentation_too() {
    let os = Fake::new();
    let pool = make(os, &config());
    let objects = fill(&pool, 256);
    free_all(&pool, objects.into_iter().filter(|object| object.addr().get() % 8192 != 0));
    let asked = Layout::from_size_align(4096, 8192).expect("a layout");
    assert!(pool.alloc(asked).is_err());
    assert!(said(os).contains("in one piece at a multiple of 8 KiB"), "{}", said(os));
}

#[test]
fn stranded_counts_what_sleeping_threads_keep() {
    let pool = config().segment(8 << 20).build().expect("a pool");
    let done = std::sync::Barrier::new(2);
    // Judged when the sleeper is awake again, so that a failure ends the test.
    let (why, text) = std::thread::scope(|scope| {
        scope.spawn(|| {
            // A current slab with room, and slabs in the queue that are not empty.
            let objects: Vec<_> = (0..200).map(|_| pool.try_alloc(layout(300)).expect("memory")).collect();
            free_all(&pool, objects.into_iter().step_by(2));
            done.wait();
            done.wait();
        });
        done.wait();
        let objects = fill(&pool, 2000);
        let rest = fill(&pool, 1);
        let verdict = pool.verdict(layout(300));
        let judged = (verdict.why(), verdict.to_string());
        free_all(&pool, objects.into_iter().chain(rest));
        done.wait();
        judged
    });
    assert_eq!(why, Why::Stranded, "{text}");
    is_a_screen(&text);
    assert!(text.contains("lie in slabs which threads keep") && text.contains(" with thread "), "{text}");
}

/// Of free fragments there are enough for a run, though apart; in a slab that a sleeper keeps and has emptied it would lie in one piece.
#[test]
fn a_run_is_stranded_where_an_empty_slab_of_a_sleeper_has_room_for_it() {
    let pool = config().segment(8 << 20).build().expect("a pool");
    let done = std::sync::Barrier::new(2);
    let verdicts = std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..20).for_each(|class| free_all(&pool, pool.try_alloc(layout(class * 16))));
            done.wait();
            done.wait();
        });
        done.wait();
        let objects = fill(&pool, 600);
        let (kept, freed): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(i, _)| i % 2 == 1);
        free_all(&pool, freed.into_iter().map(|(_, object)| object));
        let verdicts =
            [2000, 5000].map(|size| (pool.verdict(layout(size)).why(), pool.verdict(layout(size)).to_string()));
        free_all(&pool, kept.into_iter().map(|(_, object)| object));
        done.wait();
        verdicts
    });
    assert_eq!(verdicts.each_ref().map(|(why, _)| *why), [Why::Stranded, Why::Fragmented], "{verdicts:?}");
}

#[test]
fn only_the_reserve_left_says_so_and_a_critical_scope_gets_it() {
    let os = Fake::new();
    let pool = make(os, &config().reserve(256 << 10));
    let objects = fill(&pool, 4096);
    let rest = fill(&pool, 1);
    let reserve = pool.stats().reserve_free;
    assert!(reserve >= 256 << 10);
    assert!(pool.alloc(layout(100_000)).is_err());
    let text = said(os);
    is_a_screen(&text);
    assert!(text.contains("only the reserve is left: 256 KiB, for critical requests alone"), "{text}");
    assert_eq!(pool.stats().reserve_free, reserve, "a request that isn't critical touched the reserve");
    let critical = pool.critical(|| pool.alloc(layout(100_000))).expect("the reserve");
    let small = pool.critical(|| pool.alloc_zeroed(layout(10))).expect("the reserve");
    // SAFETY: 10 bytes, ours.
    assert!(unsafe { core::slice::from_raw_parts(small.as_ptr(), 10) }.iter().all(|&byte| byte == 0));
    assert!(pool.critical(|| pool.alloc(layout(200_000))).is_err());
    // Inside the scope it is the reserve that is too small.
    let verdict = pool.critical(|| pool.verdict(layout(200_000)).to_string());
    assert!(advice(&verdict, "MEMPOOL_RESERVE") >= (256 << 10) + 200_000, "{verdict}");
    free_all(&pool, [critical, small]);
    assert_eq!(pool.stats().reserve_free, reserve, "what was freed goes back to the reserve");
    free_all(&pool, objects.into_iter().chain(rest));
    pool.verify().expect("a sound pool");
}

#[test]
fn items_and_arrays_of_caches_come_from_the_reserve_and_go_back() {
    let os = Fake::new();
    let pool = make(os, &config().reserve(256 << 10));
    let cache = pool.raw_cache("orders", layout(100)).expect("a cache");
    let objects = fill(&pool, 4096);
    let rest = fill(&pool, 1);
    assert!(cache.alloc().is_err() && cache.alloc_array(10).is_err());
    let item = pool.critical(|| cache.alloc()).expect("the reserve");
    let array = pool.critical(|| cache.alloc_array(10)).expect("the reserve");
    let reserve = pool.stats().reserve_free;
    assert!(cache.alloc().is_err(), "an item that isn't critical came from the reserve");
    // SAFETY: allocated above, not used afterwards.
    unsafe {
        cache.free(item);
        cache.free_array(array, 10);
    }
    assert!(pool.stats().reserve_free > reserve && pool.stats().reserve_free == pool.stats().reserve);
    free_all(&pool, objects.into_iter().chain(rest));
    pool.verify().expect("a sound pool");
}

#[test]
fn threads_of_certain_names_are_always_critical() {
    let os = Fake::new();
    let base = config().reserve(256 << 10);
    for (names, critical) in [("fake", true), ("other,fake", true), ("fak", false), ("fake2,other", false), ("", false)]
    {
        let pool = make(os, &base.critical(ThreadNames::of(names)));
        let objects = fill(&pool, 4096);
        assert_eq!(pool.stats().reserve_free < pool.stats().reserve, critical, "{names}");
        free_all(&pool, objects);
    }
}

#[test]
fn too_large_says_what_the_pool_has() {
    let os = Fake::new();
    let pool = make(os, &config());
    assert!(pool.alloc(layout(3 << 20)).is_err());
    let text = said(os);
    is_a_screen(&text);
    assert!(text.contains("  verdict    too large: the whole pool has room for "), "{text}");
    let segment = advice(&text, "MEMPOOL_SEGMENT");
    assert!(make(os, &config().segment(segment)).try_alloc(layout(3 << 20)).is_ok(), "the advice does not help");
    assert!(pool.alloc(layout(isize::MAX as usize)).is_err());
    assert!(pool.verdict(layout(isize::MAX as usize)).to_string().ends_with("MEMPOOL_EXHAUSTED=null refuses"));
}

#[test]
fn verdicts_are_written_seldom_and_not_for_try() {
    let os = Fake::new();
    let pool = make(os, &config().verdict_interval(1_000_000).wait_time(0));
    let count = || said(os).matches("mempool: exhausted: ").count();
    assert!(pool.try_alloc(layout(2 << 20)).is_err());
    assert_eq!(count(), 0);
    (0..5).for_each(|_| assert!(pool.alloc(layout(2 << 20)).is_err()));
    assert_eq!(count(), 1);
    crate::os::Os::sleep(os, 1_000_001);
    (0..5).for_each(|_| assert!(pool.alloc(layout(2 << 20)).is_err()));
    assert_eq!(count(), 2);
    assert!(said(os).contains("  refused    7 requests so far"), "{}", said(os));
    let silent = Fake::new();
    assert!(make(silent, &config().verdict_interval(0)).alloc(layout(2 << 20)).is_err());
    assert!(said(silent).is_empty());
}

#[test]
fn abort_writes_the_verdict_and_ends() {
    let os = Fake::new();
    let pool = make(os, &config().exhausted(Exhausted::Abort));
    assert!(pool.try_alloc(layout(2 << 20)).is_err(), "try never ends the process");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.alloc(layout(2 << 20)).is_ok()));
    assert_eq!(ended.unwrap_err().downcast_ref::<&str>(), Some(&"aborted"));
    is_a_screen(&said(os));
}

#[test]
fn wait_serves_what_another_thread_frees_and_gives_up_at_its_limit() {
    let pool = config().exhausted(Exhausted::Wait).wait_limit(30_000_000_000).build().expect("a pool");
    let object = pool.try_alloc(layout(600 << 10)).expect("memory");
    let address = object.addr();
    std::thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let object = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(address.get())).expect("an address");
            // SAFETY: live; the other thread has given it up.
            unsafe { pool.free(object) };
        });
        let _ = object.expose_provenance();
        let second = pool.alloc(layout(600 << 10)).expect("what the other thread freed");
        free_all(pool, [second]);
    });
    let os = Fake::new();
    let pool = make(os, &config().exhausted(Exhausted::Wait).wait_limit(10_000_000).wait_time(3_000_000));
    let _all = fill(&pool, 600 << 10);
    assert!(os.sleeps().is_empty(), "try doesn't wait");
    assert!(pool.alloc(layout(600 << 10)).is_err());
    assert_eq!(os.sleeps(), [3_000_000, 3_000_000, 3_000_000, 1_000_000]);
    assert!(said(os).contains("looked again 4 times within 10000 us"), "{}", said(os));
}

#[test]
fn growth_that_is_refused_is_tried_smaller_then_said() {
    let os = Fake::new();
    let grow = config().exhausted(Exhausted::Grow).segment(1 << 20).max_segment(8 << 20);
    let pool = make(os, &grow);
    // Half as much again is refused once, what the request needs is not.
    os.fail("commit", 1, 12, Strike::Once);
    let object = pool.alloc(layout(10_000)).expect("memory");
    let objects = fill(&pool, 10_000);
    assert!(objects.len() > 500);
    os.fail("commit", 1, 12, Strike::ForEver);
    let all = fill(&pool, 10_000);
    assert!(pool.alloc(layout(10_000)).is_err());
    let text = said(os);
    assert!(text.contains("MEMPOOL_MAX_SEGMENT=") || text.contains("if `mempool doctor --segment "), "{text}");
    free_all(&pool, objects.into_iter().chain(all).chain([object]));
}

/// One test at a time makes notes.
static CALLS_ALONE: Mutex<()> = Mutex::new(());
static CALLS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

extern "C" fn note(needed: usize, argument: *mut u8) -> bool {
    CALLS.lock().expect("a list").push((argument.addr(), needed));
    false
}

fn calls() -> Vec<(usize, usize)> {
    core::mem::take(&mut *CALLS.lock().expect("a list"))
}

#[test]
fn levels_tell_once_and_again_when_memory_was_there_meanwhile() {
    let _alone = CALLS_ALONE.lock();
    let os = Fake::new();
    let pool = make(os, &config().watermark(400 << 10).watermark_signal(10).watermark_fd(3));
    let levels = [500 << 10, 300 << 10];
    for level in levels {
        // SAFETY: the callback only makes notes.
        unsafe { pool.on_low(level, note, core::ptr::without_provenance_mut(level)) }.expect("room");
    }
    // SAFETY: as above.
    unsafe { pool.on_reclaim(note, core::ptr::without_provenance_mut(7)) }.expect("room");
    let round = || {
        let mut objects = Vec::new();
        let mut told = Vec::new();
        while let Ok(object) = pool.alloc(layout(10_000)) {
            objects.push(object);
            let free = pool.stats().free;
            for (level, needed) in calls() {
                assert!(free < level && needed == level - free && level - free <= 20_000, "{level} at {free}");
                told.push(level);
            }
        }
        assert_eq!(told, levels);
        // Once more at exhaustion, all three, with the bytes of the request.
        assert_eq!(calls(), [(levels[0], 10_000), (levels[1], 10_000), (7, 10_000)]);
        assert!(pool.alloc(layout(10_000)).is_err());
        assert_eq!(calls().len(), 3);
        assert!(pool.try_alloc(layout(10_000)).is_err());
        assert_eq!(calls(), [], "try skips callbacks");
        free_all(&pool, objects);
    };
    round();
    round();
    assert_eq!(os.signals(), [10; 4], "below the watermark, exhausted; twice");
    let notes = String::from_utf8(os.notes()).expect("text");
    assert!(
        notes.starts_with("3: mempool: mempool: ")
            && notes.contains("less than the watermark of 400 KiB\n3: mempool: mempool: exhausted\n"),
        "{notes}"
    );
}

/// Without exhaustion in between, and with objects of all lengths: large ones are parked when they are freed, and taken again at once.
#[test]
fn a_level_that_is_exceeded_by_an_eighth_again_tells_again() {
    let _alone = CALLS_ALONE.lock();
    let os = Fake::new();
    let pool = make(os, &config().segment(64 << 20));
    let levels = [40 << 20, 30 << 20, 20 << 20];
    for level in levels {
        // SAFETY: the callback only makes notes.
        unsafe { pool.on_low(level, note, core::ptr::without_provenance_mut(level)) }.expect("room");
    }
    let told = || calls().into_iter().map(|(level, _)| level).collect::<Vec<_>>();
    let free = || pool.stats().free;
    for size in [10_000, 100_000, 3 << 20, 12 << 20] {
        let mut objects = Vec::new();
        for (least, most, wanted) in
            [(16 << 20, 46 << 20, &levels[..]), (25 << 20, 46 << 20, &levels[..2]), (35 << 20, 41 << 20, &levels[..1])]
        {
            while free() > least {
                objects.push(pool.alloc(layout(size)).expect("room"));
            }
            let all = told();
            let jumped = levels.into_iter().filter(|&level| free() < level).collect::<Vec<_>>();
            assert!(all == wanted || size > 1 << 20 && all == jumped, "{size}: {all:?} at {}", free());
            while free() < most {
                free_all(&pool, objects.pop());
            }
        }
        free_all(&pool, objects);
        let object = pool.alloc(layout(1)).expect("room");
        free_all(&pool, [object]);
        assert_eq!(told(), []);
    }
}

#[test]
fn a_callback_may_use_the_pool_and_is_not_called_from_within_itself() {
    static DEPTH: Mutex<(usize, usize)> = Mutex::new((0, 0));
    extern "C" fn greedy(_: usize, argument: *mut u8) -> bool {
        {
            let mut depth = DEPTH.lock().expect("a number");
            depth.0 += 1;
            depth.1 += 1;
            assert_eq!(depth.0, 1, "called from within itself");
        }
        // SAFETY: the pool of the test, which lives longer.
        let pool = unsafe { &*argument.cast::<Pool>() };
        let mine = pool.alloc(layout(50)).ok();
        assert!(pool.alloc(layout(900 << 10)).is_err());
        free_all(pool, mine);
        DEPTH.lock().expect("a number").0 -= 1;
        true
    }
    let os = Fake::new();
    let pool = make(os, &config());
    // SAFETY: the pool outlives its calls.
    unsafe { pool.on_low(500 << 10, greedy, (&raw const pool).cast_mut().cast()) }.expect("room");
    let mut objects = Vec::new();
    while let Ok(object) = pool.alloc(layout(1000)) {
        objects.push(object);
    }
    // At its level, at exhaustion.
    assert_eq!(*DEPTH.lock().expect("a number"), (0, 2));
    free_all(&pool, objects);
}
