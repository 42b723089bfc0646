//! Being really there, on a fake system: each wish granted, refused and tried, refused and required; OS pages of
//! every size; memory that is not there.
#![allow(unsafe_code)]

use super::tests::{layout, small, work};
use crate::config::{Commit, Config, Exhausted, Numa, Small, Wish};
use crate::error::InitError;
use crate::os::fake::{Fake, Strike};
use crate::os::{Bound, Nodes, OsError};
use crate::pool::Pool;
use std::string::ToString;
use std::vec::Vec;

const MIB: usize = 1 << 20;

fn error(os: &'static Fake, config: &Config) -> InitError {
    let error = Pool::on(os, config).map(drop).expect_err("no pool");
    assert_eq!((os.reserved_bytes(), os.locked_bytes()), (0, 0), "{error}");
    error
}

#[test]
fn os_pages_of_every_size_carry_every_pool() {
    for page in [4 << 10, 16 << 10, 64 << 10] {
        for segment in [512 << 10, 1 << 20, 3_000_000, 16 << 20] {
            for config in [
                small(),
                small().commit(Commit::Lazy).small(Small::Heap),
                small().guard_pages(false).lock(Wish::Required),
                small().exhausted(Exhausted::Grow).max_segment(32 << 20),
            ] {
                let os = Fake::with_page(page);
                let pool = Pool::on(os, &config.segment(segment)).expect("a pool");
                assert!(pool.stats().open + pool.stats().metadata >= segment / 2);
                work(&pool);
                drop(pool);
                assert_eq!((os.reserved_bytes(), os.locked_bytes()), (0, 0), "{page} {config}");
            }
        }
    }
}

#[test]
fn memory_that_is_not_there_is_an_error_before_it_is_touched() {
    for (bound, words) in [
        (Bound::Machine, ["the machine has", "end other programs"]),
        (Bound::Cgroup1, ["cgroup", "memory.limit_in_bytes"]),
        (Bound::Cgroup2, ["cgroup", "memory.max"]),
    ] {
        let os = Fake::new();
        os.set_available(8 * MIB, bound);
        let config = Config::new().segment(64 * MIB);
        let error = error(os, &config);
        let text = error.to_string();
        assert_eq!(error.code(), 12, "{text}");
        for part in ["8 MiB", "commit=lazy", words[0], words[1]] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(!os.calls().contains(&"prefault") && !os.calls().contains(&"commit"));
        Pool::on(os, &config.commit(Commit::Lazy)).expect("a pool that takes memory when it is touched");
        Pool::on(os, &config.segment(4 * MIB)).expect("a pool that fits");
        // Page tables, and what the kernel takes ahead, are not the segment's.
        for left in [0, MIB, 2 * MIB] {
            os.set_available(64 * MIB + left, bound);
            assert_eq!(Pool::on(os, &config).is_ok(), left == 2 * MIB, "{left}");
        }
    }
}

#[test]
fn growth_asks_for_memory_first_and_is_refused_without() {
    let os = Fake::new();
    let pool = Pool::on(os, &small().exhausted(Exhausted::Grow).max_segment(8 * MIB)).expect("a pool");
    os.set_available(MIB, Bound::Cgroup2);
    assert!(pool.try_alloc(layout(3 * MIB)).is_err());
    os.set_available(64 * MIB, Bound::Cgroup2);
    assert!(pool.try_alloc(layout(3 * MIB)).is_ok());
}

#[test]
fn growth_without_lock_or_huge_pages_shows_in_the_figures() {
    let os = Fake::new();
    let pool = Pool::on(os, &small().exhausted(Exhausted::Grow).max_segment(16 * MIB)).expect("a pool");
    assert!(pool.shortfalls().is_empty() && !pool.table().to_string().contains("grown "));
    os.fail("lock", 1, 12, Strike::ForEver);
    os.set_transparent(2 * MIB, false);
    pool.try_alloc(layout(6 * MIB)).expect("growth");
    let stats = pool.stats();
    assert!(stats.grown >= 6 * MIB as u64 && stats.grown_unlocked == stats.grown && stats.grown_small > 0, "{stats:?}");
    let line = std::format!("{} bytes, {} not locked", stats.grown, stats.grown);
    assert!(pool.table().to_string().contains(&line), "{}", pool.table());
    assert!(pool.shortfalls().is_empty(), "what init got stays as it is");
}

#[test]
fn a_lock_that_is_required_names_need_limits_and_every_way_out() {
    let os = Fake::new();
    os.limit_locks(64 << 10);
    let text = error(os, &small().lock(Wish::Required)).to_string();
    for part in ["64 KiB", "ulimit -l", "limits.conf", "LimitMEMLOCK", "--ulimit memlock", "CAP_IPC_LOCK", "--cap-add"]
    {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    let with = |errno| {
        let os = Fake::new();
        os.fail("lock", 1, errno, Strike::Once);
        error(os, &small().lock(Wish::Required)).to_string()
    };
    let texts: Vec<_> = [1, 11, 12, 22].into_iter().map(with).collect();
    for (place, text) in texts.iter().enumerate() {
        assert!(texts.iter().skip(place + 1).all(|other| other != text), "{text}");
    }
}

#[test]
fn locks_that_are_refused_for_different_reasons_have_different_words() {
    let words = |errno, limit| {
        let os = Fake::new();
        os.limit_locks(limit);
        os.fail("lock", 1, errno, Strike::ForEver);
        error(os, &small().lock(Wish::Required)).to_string()
    };
    // Beyond the limit, which all locked memory counts against; forbidden; not now; forbidden, but not by the limit.
    let all = [words(12, 64 << 10), words(1, 0), words(11, 8 * MIB), words(1, 8 * MIB)];
    assert!(all[0].contains("lock limit, for all that the process locks, is 64 KiB"), "{}", all[0]);
    // A limit that has room was not in the way.
    let other = words(12, 8 * MIB);
    assert!(other.contains("lock failed") && !other.contains("is 8 MiB"), "{other}");
    assert!(all[1].contains("is 0 bytes"), "{}", all[1]);
    assert!(all[2].contains("EAGAIN") && !all[2].contains("lock limit"), "{}", all[2]);
    assert!(all[3].contains("EPERM") && all[3] != all[1], "{}", all[3]);
}

#[test]
fn transparent_huge_pages_that_do_not_come_are_a_shortfall_or_an_error() {
    let config = Config::new().segment(16 * MIB);
    let os = Fake::new();
    let pool = Pool::on(os, &config).expect("a pool");
    assert!(pool.shortfalls().is_empty() && pool.granted().huge >= 12 * MIB, "{:?}", pool.granted());
    for size in [2 * MIB, 0] {
        let os = Fake::new();
        os.set_transparent(size, false);
        let pool = Pool::on(os, &config).expect("a pool");
        let short = pool.shortfalls().huge_pages.expect("a shortfall");
        assert!(short.hint().contains("transparent_hugepage/enabled"), "{short}");
        assert!(pool.table().to_string().contains("huge pages       try: 0 bytes in huge OS pages; huge pages: less"));
    }
    os.set_transparent(2 * MIB, false);
    drop(pool);
    for config in [config.huge_pages(Wish::Required), config.strict(true)] {
        assert_eq!(error(os, &config).code(), 5);
        assert!(os.calls().contains(&"huge_pages_make"));
    }
}

#[test]
fn reserved_huge_pages_are_taken_whole_or_the_small_ones_are() {
    let config = Config::new().segment(15 * MIB).huge_page_size(2 * MIB).exhausted(Exhausted::Null).max_retries(0);
    let os = Fake::new();
    os.set_stock(10);
    let pool = Pool::on(os, &config).expect("a pool");
    let granted = pool.granted();
    assert_eq!(
        (granted.present, granted.huge, granted.locked, granted.huge_page),
        (16 * MIB, 16 * MIB, 16 * MIB, 2 * MIB)
    );
    assert!(os.stock() == 2 && granted.short.is_empty() && pool.stats().segment == 16 * MIB);
    assert!(!os.calls().contains(&"lock") && !os.calls().contains(&"commit"));
    work(&pool);
    assert_eq!(pool.trim(), 0, "they would be lost to others");
    drop(pool);
    assert_eq!(os.reserved_bytes(), 0);
    // Two are left: too few.
    let pool = Pool::on(os, &config).expect("a pool on small OS pages");
    assert!(
        pool.granted().huge_page == 0 && pool.shortfalls().huge_pages.is_some() && pool.stats().segment == 15 * MIB
    );
    work(&pool);
    drop(pool);
    for config in [config.huge_pages(Wish::Required), config.strict(true)] {
        let error = error(os, &config);
        assert_eq!(error.code(), 13);
        assert!(error.to_string().contains("cannot get 8 huge OS pages of 2 MiB: 2 are free"), "{error}");
    }
}

#[test]
fn nodes_are_set_before_anything_is_touched() {
    for (numa, nodes) in [(Numa::Local, Nodes::Local), (Numa::Interleave, Nodes::All), (Numa::Bind(6), Nodes::These(6))]
    {
        // The fake complains of a range that was touched before it was placed.
        let os = Fake::new();
        os.set_stock(8);
        let pool = Pool::on(os, &small().numa(numa)).expect("a pool");
        assert_eq!(os.placed(), [nodes, nodes]);
        drop(pool);
        let pool = Pool::on(os, &small().segment(16 * MIB).numa(numa).huge_page_size(2 * MIB)).expect("a pool");
        assert_eq!((os.placed().len(), pool.granted().huge_page), (3, 2 * MIB));
        drop(pool);
        os.fail("place", 1, 22, Strike::ForEver);
        // Nodes that are not there are an error, what the kernel does not do otherwise is none.
        if let Numa::Bind(_) = numa {
            assert_eq!(error(os, &small().numa(numa)).code(), 5);
            os.fail("place", 1, 38, Strike::ForEver);
        }
        let pool = Pool::on(os, &small().numa(numa)).expect("a pool on any node");
        assert_eq!(pool.shortfalls().numa.map(|error| error.call), Some("place"));
        assert!(pool.table().to_string().contains("numa "));
        drop(pool);
        assert_eq!(error(os, &small().segment(16 * MIB).numa(numa).strict(true)).code(), 5);
    }
    let os = Fake::new();
    Pool::on(os, &small()).expect("a pool");
    assert!(!os.calls().contains(&"place"));
}

#[test]
fn the_program_is_made_real_when_asked_and_reported_part_by_part() {
    let os = Fake::new();
    Pool::on(os, &small()).expect("a pool");
    assert!(!os.calls().contains(&"lock_program"));
    let pool = Pool::on(os, &small().lock_process(true)).expect("a pool");
    assert!(pool.shortfalls().is_empty() && pool.granted().program > 0);
    for (call, name) in [("lock_program", "locking"), ("prefault_stack", "stack"), ("lower_oom_score", "score")] {
        let os = Fake::new();
        os.fail(call, 1, 12, Strike::ForEver);
        let pool = Pool::on(os, &small().lock_process(true)).expect("a pool");
        let short: Vec<_> = pool.shortfalls().each().collect();
        assert!(short.len() == 1 && short[0].0.contains(name) && short[0].1.call == call, "{short:?}");
        assert!(pool.table().to_string().contains(&std::format!("{call} failed")), "{}", pool.table());
        drop(pool);
        assert_eq!(error(os, &small().segment(16 * MIB).lock_process(true).strict(true)).code(), 5);
    }
}

#[test]
fn a_program_that_must_be_locked_names_need_and_limits() {
    let os = Fake::new();
    os.fail("lock_program", 1, 12, Strike::ForEver);
    let config = Config::new().segment(16 * MIB).lock_process(true);
    Pool::on(os, &config).expect("a pool, since a lock is only tried");
    for config in [config.strict(true), config.lock(Wish::Required)] {
        // All that the segment takes, and no more: the program counts against the same limit.
        let pool = Pool::on(os, &config.strict(false).lock(Wish::Try)).expect("a pool");
        os.limit_locks(pool.granted().locked);
        drop(pool);
        let text = error(os, &config).to_string();
        for part in ["cannot lock 8 KiB", "is 16368 KiB", "ulimit -l", "LimitMEMLOCK", "CAP_IPC_LOCK"] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        os.limit_locks(32 * MIB);
        let text = error(os, &config).to_string();
        assert!(text.contains("lock_program failed") && !text.contains("is 32 MiB"), "{text}");
        os.limit_locks(usize::MAX);
    }
}

#[test]
fn required_huge_pages_refuse_a_segment_that_has_room_for_none() {
    let os = Fake::new();
    for segment in [MIB, 3 * MIB, 4 * MIB] {
        let config = Config::new().segment(segment);
        let table = Pool::on(os, &config).expect("a pool").table().to_string();
        // The fake counts by bytes, wherever they begin.
        let none = "0 bytes in huge OS pages; the segment has no room for a whole one";
        assert!(table.contains(none) || segment > 2 * MIB, "{table}");
        for config in [config.huge_pages(Wish::Required), config.strict(true)] {
            let error = error(os, &config);
            let text = error.to_string();
            let InitError::NoHugeRoom { bytes, size, least } = error else { panic!("{text}") };
            assert_eq!((bytes, size, error.code()), (segment, 2 * MIB, 6));
            assert!(text.contains("huge OS page of 2 MiB") && text.contains("at least"), "{text}");
            // What is said to be enough is, and half a huge OS page less is not.
            assert!(Pool::on(os, &config.segment(least)).expect("a pool").granted().huge > 0);
            assert!(Pool::on(os, &config.segment(least - MIB)).is_err());
        }
        Pool::on(os, &config.strict(true).huge_pages(Wish::Off)).expect("a pool");
        Pool::on(os, &config.strict(true).commit(Commit::Lazy)).expect("a pool");
    }
    // What is there from the start counts, not what the pool may grow to.
    let grow = Config::new().segment(4 * MIB).exhausted(Exhausted::Grow).max_segment(256 * MIB);
    assert_eq!(error(os, &grow.huge_pages(Wish::Required)).code(), 6);
}

#[test]
fn the_table_says_what_can_be_done_about_a_refusal() {
    let os = Fake::new();
    os.limit_locks(MIB);
    let pool = Pool::on(os, &small().segment(4 * MIB)).expect("a pool");
    let limit = "try: 0 bytes locked; cannot lock 4 MiB: the lock limit, for all that the process locks, is 1 MiB";
    let table = pool.table().to_string();
    assert!(table.contains(limit) && table.contains("ulimit -l") && table.contains("CAP_IPC_LOCK"), "{table}");
    drop(pool);
    let os = Fake::new();
    os.fail("lower_oom_score", 1, 1, Strike::ForEver);
    let table = Pool::on(os, &small().lock_process(true)).expect("a pool").table().to_string();
    assert!(table.contains("-900: not granted; lower_oom_score failed: not permitted (EPERM, 1); "), "{table}");
}

#[test]
fn core_files_leave_out_whole_ranges_or_say_so() {
    let os = Fake::new();
    os.fail("dont_dump", 1, 12, Strike::ForEver);
    let pool = Pool::on(os, &small().dump(false)).expect("a pool");
    assert!(pool.shortfalls().dump.is_some() && pool.table().to_string().contains("in core files; dont_dump failed"));
    drop(pool);
    assert_eq!(error(os, &small().segment(16 * MIB).dump(false).strict(true)).code(), 5);
    os.heal();
    let calls = |name| os.calls().iter().filter(|call| **call == name).count();
    let before = calls("dont_dump");
    let _pool = Pool::on(os, &small().dump(false)).expect("a pool");
    assert_eq!(calls("dont_dump") - before, 2, "metadata and data, each whole");
}

#[test]
fn strict_lets_a_pool_be_made_where_all_is_granted() {
    let os = Fake::new();
    let config = small().segment(16 * MIB).strict(true).numa(Numa::Local).lock_process(true).dump(false);
    assert!(Pool::on(os, &config).expect("a pool").shortfalls().is_empty());
    for call in ["lock", "huge_pages_advise", "huge_bytes", "place", "dont_dump", "lock_program"] {
        os.fail(call, 1, 11, Strike::Once);
        let error = error(os, &config);
        assert!(error.to_string().contains(call) || error.to_string().contains("EAGAIN"), "{error}");
    }
}

/// Whether a run is cleared by hand or by the OS, and whether the OS agrees or not.
#[test]
fn long_runs_are_zero_however_they_were_used() {
    for (commit, refused) in [(Commit::Lazy, false), (Commit::Lazy, true), (Commit::Eager, false)] {
        let os = Fake::new();
        let config = Config::new().segment(64 * MIB).commit(commit).exhausted(Exhausted::Null);
        let pool = Pool::on(os, &config).expect("a pool");
        if refused {
            os.fail("decommit", 1, OsError::ENOMEM, Strike::ForEver);
        }
        for size in [20_000, 32 << 10, 100_000, MIB + 77, 3 * MIB] {
            for _ in 0..3 {
                let used = pool.alloc(layout(size)).expect("room");
                // SAFETY: live, and so large.
                unsafe { used.as_ptr().write_bytes(0xAB, size) };
                // SAFETY: allocated above.
                unsafe { pool.free(used) };
                let zeroed = pool.alloc_zeroed(layout(size)).expect("room");
                // SAFETY: live, and so large.
                let bytes = unsafe { core::slice::from_raw_parts(zeroed.as_ptr(), size) };
                assert!(bytes.iter().all(|byte| *byte == 0), "{commit:?} {size}");
                // SAFETY: allocated above.
                unsafe { pool.free(zeroed) };
            }
        }
        assert_eq!(os.calls().contains(&"decommit"), commit == Commit::Lazy);
        assert_eq!(pool.verify(), Ok(()));
        os.heal();
    }
}
