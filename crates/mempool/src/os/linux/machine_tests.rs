//! What depends on the machine: parallel prefault, available memory under a real cgroup, huge OS pages as far as there
//! are any, nodes, and the program's own memory. Where a machine does not allow something, its refusal is tested.

use super::tests::{Reservation, in_child};
use super::*;
use std::fs;
use std::path::PathBuf;
use std::string::{String, ToString};
use std::vec::Vec;

const MIB: usize = 1 << 20;

#[test]
fn prefault_by_several_tasks_makes_all_present_and_keeps_content() {
    let held = Reservation::committed(200 * MIB);
    held.write(150 * MIB + 5, 42);
    // SAFETY: committed, and nobody else uses it.
    unsafe { parallel::advise(held.0, MADV_POPULATE_WRITE, 4, &|part| advise(part, MADV_POPULATE_WRITE)) }.unwrap();
    assert!(held.present().iter().all(|page| *page));
    assert_eq!((held.read(150 * MIB + 5), held.read(0)), (42, 0));
}

#[test]
fn a_part_that_cannot_be_had_is_an_error_of_the_whole() {
    let held = Reservation::committed(200 * MIB);
    // SAFETY: nobody uses the page.
    unsafe { Linux.guard(held.part(150 * MIB, 4096)) }.unwrap();
    // SAFETY: the kernel refuses the guard.
    let result = unsafe { parallel::advise(held.0, MADV_POPULATE_WRITE, 4, &|part| advise(part, MADV_POPULATE_WRITE)) };
    assert_eq!(result.unwrap_err().call, "madvise");
}

#[test]
fn the_signal_mask_is_afterwards_as_before() {
    let mask = || {
        fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("SigBlk"))
            .map(String::from)
    };
    let before = mask();
    let held = Reservation::committed(64 * MIB);
    // SAFETY: committed.
    unsafe { Linux.prefault(held.0) }.unwrap();
    assert_eq!(mask(), before);
}

/// A memory cgroup below the test's own that goes away at the end; None where the machine does not allow one.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(bytes: usize) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let of = |line: &str, mount: &str, file: &str| {
            let path = PathBuf::from(std::format!("{mount}{}", line.rsplit(':').next()?));
            let path = path.join(std::format!("mempool-test-{}", std::process::id()));
            fs::create_dir(&path).ok()?;
            let made = Self(path);
            fs::write(made.0.join(file), bytes.to_string()).ok()?;
            Some(made)
        };
        own.lines().find_map(|line| match line {
            line if line.contains(":memory:") => of(line, "/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            line if line.starts_with("0::") => of(line, "/sys/fs/cgroup", "memory.max"),
            _ => None,
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn available_memory_is_the_machines_or_what_a_cgroup_leaves() {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let total: usize = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    let free = Linux.available().unwrap();
    assert!(free.bytes > 0 && free.bytes <= total * 1024, "{free:?}");
    let Some(group) = Cgroup::new(64 * MIB) else {
        // Nothing to be made here, as for most users; the figure above then heeds what is there.
        assert!(fs::read_to_string("/proc/self/status").unwrap().contains("CapEff"), "no /proc");
        return;
    };
    let status = in_child(|| {
        fs::write(group.0.join("cgroup.procs"), "0").expect("a move");
        let room = Linux.available().expect("a figure");
        assert!(room.bytes <= 64 * MIB && room.bytes > 32 * MIB, "{room:?}");
        assert!(room.bound != crate::os::Bound::Machine);
        let error = crate::Config::new().segment(256 << 20).build().map(drop).expect_err("too large");
        assert_eq!(error.code(), 12, "{error}");
        crate::Config::new().segment(16 << 20).build().map(drop).expect("a pool that fits");
    });
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn nodes_are_set_before_the_first_touch_or_refused() {
    let held = Reservation::committed(4 * MIB);
    // SAFETY: in the reservation.
    unsafe {
        let first = fs::metadata("/sys/devices/system/node/node0").is_ok();
        for nodes in [Nodes::Local, Nodes::All, Nodes::These(1)] {
            let placed = Linux.place(held.0, nodes);
            // Refused by kernels without nodes and by filters alone.
            assert!(placed.is_ok() || !first || matches!(placed, Err(OsError { errno: 1 | 38, .. })), "{placed:?}");
        }
        let policy = Linux.place(held.0, Nodes::These(1)).is_ok();
        let maps = fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
        let line = maps.lines().find(|line| line.starts_with(&std::format!("{:x} ", held.0.start.addr())));
        assert!(!policy || line.is_none_or(|line| line.contains("bind:0")), "{line:?}");
        let absent = Linux.place(held.0, Nodes::These(1 << 63)).unwrap_err();
        assert!(matches!(absent.errno, 22 | 38 | 1) && !absent.hint().is_empty(), "{absent}");
    }
}

#[test]
fn huge_pages_that_are_set_aside_are_taken_or_refused_before_the_first_access() {
    const SIZE: usize = 2 * MIB;
    let held = Reservation::aligned(16 * MIB, SIZE);
    let free = huge::free(SIZE);
    // SAFETY: whole huge OS pages of a reservation that nobody uses.
    let got = unsafe { Linux.commit_huge(held.0, SIZE) };
    if free < 8 {
        let error = got.unwrap_err();
        assert!(matches!(error.errno, libc::ENOMEM | libc::EINVAL | libc::ENOSYS), "{error}");
        // As before: reserved, and able to become ordinary memory.
        assert!(held.smaps(0).contains(" ---p "));
        // SAFETY: in the reservation.
        unsafe { Linux.commit(held.0) }.unwrap();
    } else {
        got.unwrap();
        // SAFETY: committed.
        unsafe { Linux.prefault(held.0) }.unwrap();
        assert!(held.smaps(0).contains("KernelPageSize:     2048 kB"));
        assert!(huge::free(SIZE) <= free - 8);
    }
    held.write(5 * MIB, 1);
    assert_eq!((held.read(5 * MIB), held.read(6 * MIB)), (1, 0));
    // More than any machine has: refused, and nothing is left behind.
    let vast = Reservation::whole(1 << 42, SIZE);
    // SAFETY: as above.
    assert!(unsafe { Linux.commit_huge(vast.0, SIZE) }.is_err());
    assert!(vast.smaps(0).contains(" ---p "));
}

#[test]
fn transparent_huge_pages_are_counted() {
    let held = Reservation::aligned(16 * MIB, 2 * MIB);
    // SAFETY: in the reservation, step by step.
    unsafe {
        Linux.commit(held.0).unwrap();
        assert_eq!(Linux.huge_bytes(held.0), Ok(0), "nothing is there yet");
        Linux.huge_pages_advise(held.0).unwrap();
        Linux.prefault(held.0).unwrap();
        let mode = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
        // The kernel may make some huge later, or split them: what it says must lie between two counts.
        let before = Linux.huge_bytes(held.0).unwrap();
        let text = held.smaps(0);
        let huge = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:")?.trim().strip_suffix(" kB"));
        let huge = huge.expect("a figure").parse::<usize>().expect("a number") << 10;
        let counted = Linux.huge_bytes(held.0).unwrap();
        assert!((before.min(counted)..=before.max(counted)).contains(&huge), "{before} {huge} {counted}");
        assert!(counted == 0 || !mode.contains("[never]"));
    }
}

#[test]
fn the_program_is_locked_and_its_stack_is_there() {
    let status = in_child(|| {
        let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: reads a live struct. Without the right the limit stays, and the lock is refused.
        unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
        Linux.prefault_stack(256 << 10).expect("a stack");
        let (locked, wanted, done) = Linux.lock_program();
        assert!(locked <= wanted && wanted > MIB, "{locked} {wanted}");
        let text = fs::read_to_string("/proc/self/status").expect("a status");
        let counted =
            text.lines().find_map(|line| line.strip_prefix("VmLck:")?.split_whitespace().next()?.parse::<usize>().ok());
        let counted = counted.expect("a figure") * 1024;
        match done {
            Ok(()) => assert!(locked > MIB && counted >= locked, "{locked} {counted}"),
            Err(error) => assert!(!error.hint().is_empty() && counted <= locked + MIB, "{error}"),
        }
    });
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn advice_that_is_refused_is_named_by_its_purpose() {
    // Nothing is mapped there.
    let nowhere = Range::new(core::ptr::without_provenance_mut(Linux.os_page()), Linux.os_page());
    // SAFETY: advice about what is not there changes nothing.
    let (dump, huge) = unsafe { (Linux.dont_dump(nowhere), Linux.huge_pages_advise(nowhere)) };
    assert_eq!(dump.map_err(|error| error.call), Err("madvise for core files"));
    assert_eq!(huge.map_err(|error| error.call), Err("madvise for huge OS pages"));
}

#[test]
fn stacks_of_threads_that_there_are_are_locked() {
    let status = in_child(|| {
        let (sent, told) = std::sync::mpsc::channel();
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().stack_size(3 * MIB).spawn(move || {
            let mark = 0u8;
            sent.send((&raw const mark).addr()).expect("a receiver");
            // Until the sender is gone.
            let _ = wait.recv();
        });
        let here = told.recv().expect("an address");
        let (_, _, done) = Linux.lock_program();
        let text = fs::read_to_string("/proc/self/smaps").expect("smaps");
        let mut inside = false;
        let (mut locked, mut seen) = (false, false);
        for line in text.lines() {
            if let Some((start, end, ..)) = program::mapping(line.as_bytes()) {
                inside = (start..end).contains(&here);
                seen |= inside;
            } else if inside && line.starts_with("VmFlags:") {
                locked = line.split_whitespace().any(|flag| flag == "lo");
            }
        }
        assert!(seen && (locked || done.is_err()), "{done:?}");
        drop(hold);
        thread.expect("a thread").join().expect("no panic");
    });
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn the_score_is_lowered_or_refused_with_a_hint() {
    let status = in_child(|| match Linux.lower_oom_score(-900) {
        Ok(()) => assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").expect("a score").trim(), "-900"),
        Err(error) => assert!(error.hint().contains("oom_score_adj"), "{error}"),
    });
    assert_eq!(status, 0, "the child failed");
    // Raising it needs no right, and lowering it to where it is no more neither.
    let status = in_child(|| {
        fs::write("/proc/self/oom_score_adj", "0").expect("a right");
        Linux.lower_oom_score(0).expect("no change");
    });
    assert_eq!(status, 0, "the child failed");
}

#[test]
fn files_are_read_line_by_line_whatever_their_length() {
    let path = std::env::temp_dir().join(std::format!("lines-{}", std::process::id()));
    let long = "x".repeat(5000);
    let text = std::format!("first\n\n{long}\nlast line: 17 kB\nno end");
    fs::write(&path, &text).unwrap();
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut lines = Vec::new();
    files::each_line(&name, &mut |line| {
        lines.push(String::from_utf8(line.into()).unwrap());
        true
    })
    .unwrap();
    assert_eq!((lines.len(), &lines[0][..], &lines[1][..]), (5, "first", ""));
    assert!(lines[2].len() >= 1024 && long.starts_with(&lines[2]));
    assert_eq!(lines[3..], ["last line: 17 kB", "no end"]);
    assert_eq!(files::field(lines[3].as_bytes(), b"last line"), Some(17));
    assert_eq!(files::field(b"lasting: 3", b"last"), None);
    fs::remove_file(&path).unwrap();
    assert_eq!(files::each_line(&name, &mut |_| true).unwrap_err(), OsError { call: "open", errno: 2 });
    assert_eq!(files::number(b"max"), None);
    assert_eq!(files::number(b"99999999999999999999999"), None);
}
