//! The number that a verdict ends with: a pool made with it serves the same requests, and is not much larger than the smallest that does.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::string::{String, ToString};
use std::sync::Barrier;
use std::vec::Vec;

use crate::Why;
use crate::bytes::parse_bytes;
use crate::config::{Commit, Config, Exhausted};
use crate::os::fake::{Fake, Strike};
use crate::pool::Pool;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

fn config(segment: usize) -> Config {
    Config::new().segment(segment).commit(Commit::Lazy).exhausted(Exhausted::Null).max_retries(0)
}

fn grow(segment: usize, most: usize) -> Config {
    config(segment).exhausted(Exhausted::Grow).max_segment(most)
}

/// The name and the bytes of the setting that a verdict ends with.
fn advice(text: &str) -> (&str, usize) {
    let line = text.lines().last().and_then(|line| line.strip_prefix("  set        ")).expect("a line");
    let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{text}"));
    let value = value.split(',').next().expect("a part");
    (name, parse_bytes(value).expect("bytes"))
}

/// What a program does: the first request that is refused, if any is.
type Program<'a> = &'a dyn Fn(&Pool) -> Result<(), Layout>;

fn ask(pool: &Pool, asked: Layout) -> Result<NonNull<u8>, Layout> {
    pool.try_alloc(asked).map_err(|_| asked)
}

/// Runs `program` on pools of `with` until one serves it, each with what the verdict on the one before says. All values.
fn follow(program: Program<'_>, with: &dyn Fn(usize) -> Config, name: &str, from: usize) -> Vec<usize> {
    let mut values = std::vec![from];
    loop {
        let pool = with(values[values.len() - 1]).build().expect("a pool");
        let Err(refused) = program(&pool) else { return values };
        let text = pool.verdict(refused).to_string();
        let (given, value) = advice(&text);
        assert!(given == name && value > values[values.len() - 1] && values.len() < 9, "{values:?}: {text}");
        values.push(value);
    }
}

/// The smallest value, to 64 KiB, with which `program` is served; `most` serves it.
fn smallest(program: Program<'_>, with: &dyn Fn(usize) -> Config, least: usize, most: usize) -> usize {
    let (mut low, mut high) = (least >> 16, most.div_ceil(1 << 16));
    while low < high {
        let middle = low.midpoint(high);
        let served = with(middle << 16).build().is_ok_and(|pool| program(&pool).is_ok());
        (low, high) = if served { (low, middle) } else { (middle + 1, high) };
    }
    high << 16
}

/// The first value that the verdict gives helps, and is at most 1.3 times the smallest that does.
fn helps_at_once(program: Program<'_>, with: &dyn Fn(usize) -> Config, name: &str, from: usize) {
    let values = follow(program, with, name, from);
    let &[_, value] = values.as_slice() else { panic!("the first value does not help: {values:?}") };
    let least = smallest(program, with, from, value);
    assert!(value * 10 <= least * 13, "{name} {from}: {value} where {least} is enough");
}

const ALONE: &str = "MEMPOOL_SEGMENT";
const GROWING: &str = "MEMPOOL_MAX_SEGMENT";

#[test]
fn large_requests_get_what_they_need_and_little_more() {
    for (segment, used, size) in [
        (256 << 10, 0, 300 << 10),
        (256 << 10, 100 << 10, 20 << 20),
        (1 << 20, 500 << 10, 700 << 10),
        (1 << 20, 0, 3 << 20),
        (4 << 20, 3 << 20, 40 << 20),
        (31 << 20, 0, (31 << 20) - 4096),
        (100 << 20, 0, 300 << 20),
    ] {
        let program = |pool: &Pool| {
            (0..used / 10_000).try_for_each(|_| ask(pool, layout(10_000, 1)).map(drop))?;
            (1..20).try_for_each(|small| ask(pool, layout(small * 50, 1)).map(drop))?;
            ask(pool, layout(size, 16)).map(drop)
        };
        helps_at_once(&program, &config, ALONE, segment);
        helps_at_once(&program, &|most| grow(segment, most), GROWING, segment);
    }
}

#[test]
fn what_is_fragmented_counts_up_to_its_end() {
    for size in [100_000, 500_000, 900_000] {
        let program = |pool: &Pool| {
            let objects = (0..95).map(|_| ask(pool, layout(10_000, 1))).collect::<Result<Vec<_>, _>>()?;
            // SAFETY: live, and not used afterwards.
            objects.into_iter().step_by(2).for_each(|object| unsafe { pool.free(object) });
            ask(pool, layout(size, 1)).map(drop)
        };
        helps_at_once(&program, &config, ALONE, 1 << 20);
        helps_at_once(&program, &|most| grow(512 << 10, most), GROWING, 1 << 20);
    }
}

/// Calls `then` with a pool of `bytes` over memory that begins `offset` behind a multiple of `align`.
fn over<R>(bytes: usize, align: usize, offset: usize, then: impl FnOnce(&Pool) -> R) -> R {
    let memory = layout(offset + bytes, align);
    // SAFETY: not of size 0.
    let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(memory) }).expect("memory");
    // SAFETY: inside the memory, which is given back when the pool is gone.
    let pool = unsafe { Pool::over_raw(start.as_ptr().add(offset), bytes, &config(bytes)) }.expect("a pool");
    let result = then(&pool);
    drop(pool);
    // SAFETY: allocated above, and used by nobody any more.
    unsafe { std::alloc::dealloc(start.as_ptr(), memory) };
    result
}

#[test]
fn an_alignment_has_room_wherever_the_segment_lies() {
    for (segment, align) in [(1 << 20, 1 << 20), (1 << 20, 8 << 20), (4 << 20, 16 << 20)] {
        let asked = layout(100, align);
        let program = |pool: &Pool| {
            (0..50).try_for_each(|_| ask(pool, layout(10_000, 1)).map(drop))?;
            ask(pool, asked).map(drop)
        };
        // The data lies behind a multiple of the alignment, and ends before the next one.
        let text = over(segment, align, 0, |pool| {
            assert_eq!(program(pool), Err(asked));
            pool.verdict(asked).to_string()
        });
        let (name, value) = advice(&text);
        assert_eq!(name, ALONE, "{text}");
        assert!(value <= (segment + align) * 13 / 10, "{text}");
        for eighth in 0..8 {
            over(value, align, eighth * align / 8, program).expect("the advice does not help");
        }
        let pool = config(value).build().expect("a pool");
        program(&pool).expect("the advice does not help");
    }
}

#[test]
fn what_no_segment_has_is_said() {
    let pool = config(1 << 20).build().expect("a pool");
    let last = |asked| pool.verdict(asked).to_string().lines().last().map(String::from).expect("a line");
    for (size, align, words) in [
        (100, 1 << 40, "MEMPOOL_SEGMENT=1"),
        (100, 8 << 40, "MEMPOOL_SEGMENT=9"),
        (100, 16 << 40, "none: no segment has more than 16 TiB; MEMPOOL_EXHAUSTED=null refuses"),
        (100, 1 << 62, "none: no segment has more than 16 TiB; MEMPOOL_EXHAUSTED=null refuses"),
        (511 << 30, 1, "MEMPOOL_SEGMENT="),
        (512 << 30, 1, "none: an object has less than 512 GiB; MEMPOOL_EXHAUSTED=null refuses"),
        (isize::MAX as usize, 1, "none: an object has less than 512 GiB; MEMPOOL_EXHAUSTED=null refuses"),
    ] {
        let line = last(layout(size, align));
        assert!(line.strip_prefix("  set        ").is_some_and(|line| line.starts_with(words)), "{line}");
    }
}

#[test]
fn a_segment_that_could_not_grow_begins_with_what_it_may_grow_to_at_most() {
    let fake = Fake::new();
    let pool = Pool::on(fake, &grow(1 << 20, 3 << 19).max_retries(0)).expect("a pool");
    fake.fail("commit", 1, 12, Strike::ForEver);
    while pool.alloc(layout(1000, 1)).is_ok() {}
    fake.heal();
    let text = String::from_utf8(fake.stderr()).expect("text");
    assert!(text.contains("the system did not let the pool grow as far"), "{text}");
    let (name, value) = advice(&text);
    assert_eq!((name, value), (ALONE, 5 << 18), "{text}");
    Pool::on(fake, &grow(value, 3 << 19)).expect("a pool");
}

/// Of each of `THREADS` sleeping threads: one object of each of many size classes, the rest of whose slabs it keeps. Meanwhile `then` is called.
fn beside_sleepers<R>(pool: &Pool, then: impl FnOnce() -> R) -> R {
    const THREADS: usize = 24;
    let ready = Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let asked = (1..40).filter(|class| pool.try_alloc(layout(class * 24, 1)).is_ok()).count();
                ready.wait();
                ready.wait();
                asked
            });
        }
        ready.wait();
        let result = then();
        ready.wait();
        result
    })
}

#[test]
fn what_threads_keep_asks_for_a_step_that_is_worth_it() {
    const MOST: usize = 6 << 20;
    for with in [&(|most| grow(1 << 20, most)) as &dyn Fn(usize) -> Config, &config] {
        let pool = with(MOST).build().expect("a pool");
        let (count, why, text) = beside_sleepers(&pool, || {
            let count = std::iter::from_fn(|| pool.try_alloc(layout(2000, 1)).ok()).count();
            while pool.try_alloc(layout(1, 1)).is_ok() {}
            let verdict = pool.verdict(layout(2000, 1));
            (count, verdict.why(), verdict.to_string())
        });
        assert!(matches!(why, Why::Exhausted | Why::Stranded) && !text.contains("stranded   nothing"), "{text}");
        assert!(!text.contains("is in use\n"), "{text}");
        let (_, value) = advice(&text);
        assert!((MOST + MOST / 4..=2 * MOST + MOST / 32).contains(&value), "{text}");
        let helped = with(value).build().expect("a pool");
        let served = beside_sleepers(&helped, || (0..=count).all(|_| helped.try_alloc(layout(2000, 1)).is_ok()));
        assert!(served, "the advice does not help: {text}");
    }
}

#[test]
fn all_in_use_and_something_stranded_do_not_contradict_each_other() {
    let pool = config(4 << 20).build().expect("a pool");
    let text = beside_sleepers(&pool, || {
        while pool.try_alloc(layout(10_000, 1)).is_ok() {}
        while pool.try_alloc(layout(200, 1)).is_ok() {}
        pool.verdict(layout(10_000, 1)).to_string()
    });
    assert!(
        text.contains("  verdict    exhausted: all but ") && text.contains(" in use, or stranded in slabs\n"),
        "{text}"
    );
    assert!(!text.contains("stranded   nothing"), "{text}");
    let alone = config(1 << 20).build().expect("a pool");
    while alone.try_alloc(layout(10_000, 1)).is_ok() {}
    let text = alone.verdict(layout(10_000, 1)).to_string();
    assert!(text.contains(" is in use\n") && text.contains("stranded   nothing"), "{text}");
}
