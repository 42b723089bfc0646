//! The contract of the room, checked against the running kernel.

use super::*;
use crate::os::platform;
use std::ffi::CString;
use std::fs;
use std::process::{Command, Stdio};
use std::string::{String, ToString};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

const MIB: usize = 1 << 20;

/// A part of a reservation, and all of it, which goes back at the end of a test.
pub(super) struct Reservation(pub(super) Range, Range);

impl Reservation {
    pub(super) fn new(bytes: usize) -> Self {
        Self::aligned(bytes, 4096)
    }

    /// With addresses at both ends that stay reserved and no more: the kernel joins neighbours that are alike, those of other tests too, and counts
    /// them together.
    pub(super) fn aligned(bytes: usize, align: usize) -> Self {
        let whole = Range::new(Linux.reserve(bytes + 2 * align, align).unwrap(), bytes + 2 * align);
        Self(Range::new(whole.start.wrapping_add(align), bytes), whole)
    }

    /// Without.
    pub(super) fn whole(bytes: usize, align: usize) -> Self {
        let whole = Range::new(Linux.reserve(bytes, align).unwrap(), bytes);
        Self(whole, whole)
    }

    pub(super) fn committed(bytes: usize) -> Self {
        let new = Self::new(bytes);
        // SAFETY: the whole reservation.
        unsafe { Linux.commit(new.0) }.unwrap();
        new
    }

    pub(super) fn part(&self, offset: usize, bytes: usize) -> Range {
        assert!(offset + bytes <= self.0.bytes);
        Range::new(self.0.start.wrapping_add(offset), bytes)
    }

    pub(super) fn read(&self, offset: usize) -> u8 {
        assert!(offset < self.0.bytes);
        // SAFETY: inside; tests read committed pages only.
        unsafe { self.0.start.add(offset).read_volatile() }
    }

    pub(super) fn write(&self, offset: usize, byte: u8) {
        assert!(offset < self.0.bytes);
        // SAFETY: inside; tests write to committed pages only.
        unsafe { self.0.start.add(offset).write_volatile(byte) };
    }

    /// Which OS pages have memory.
    pub(super) fn present(&self) -> Vec<bool> {
        let mut pages = std::vec![0u8; self.0.bytes / 4096];
        // SAFETY: one byte for each OS page of the range.
        let result = unsafe { libc::mincore(self.0.start.cast(), self.0.bytes, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().map(|page| page & 1 == 1).collect()
    }

    /// The text of /proc/self/smaps for the mapping that `offset` lies in.
    pub(super) fn smaps(&self, offset: usize) -> String {
        let at = self.0.start.addr() + offset;
        let all = fs::read_to_string("/proc/self/smaps").unwrap();
        let range = |line: &str| {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        };
        let mut lines = all.lines().skip_while(|line| !range(line).is_some_and(|range| range.contains(&at)));
        let first = lines.next().unwrap_or_else(|| panic!("nothing is mapped at {at:x}")).to_string();
        lines.take_while(|line| range(line).is_none()).fold(first, |text, line| text + "\n" + line)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the whole reservation, not used any more.
        unsafe { Linux.release(self.1) }.unwrap();
    }
}

/// Runs `body` in a child and gives its wait status.
pub(super) fn in_child(body: impl FnOnce()) -> c_int {
    // SAFETY: the child makes system calls and ends by signal or `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        body();
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

fn killed_by(status: c_int) -> Option<c_int> {
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

#[test]
fn numbers_agree_with_libc() {
    assert_eq!(OsError::ENOMEM, libc::ENOMEM);
    assert_eq!(OsError::EINVAL, libc::EINVAL);
    assert_eq!(OsError::ENOSYS, libc::ENOSYS);
    for (number, name) in [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EINTR, "EINTR"),
        (libc::EIO, "EIO"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::ENOMEM, "ENOMEM"),
        (libc::EACCES, "EACCES"),
        (libc::EFAULT, "EFAULT"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::EHWPOISON, "EHWPOISON"),
    ] {
        assert_eq!(OsError { call: "x", errno: number }.name(), name);
    }
    assert_eq!(
        (MADV_POPULATE_WRITE, MADV_DONTNEED_LOCKED, MADV_COLLAPSE),
        (libc::MADV_POPULATE_WRITE, libc::MADV_DONTNEED_LOCKED, libc::MADV_COLLAPSE)
    );
}

#[test]
fn a_reservation_is_aligned_inaccessible_and_costs_nothing() {
    for align in [4096, 64 << 10, 2 * MIB, 64 * MIB, 1 << 30] {
        for bytes in [4096, 3 * MIB, 1 << 40] {
            let held = Reservation::whole(bytes, align);
            assert_eq!(held.0.start.addr() % align, 0, "{bytes} at {align}");
            let text = held.smaps(0);
            assert!(text.contains(" ---p "), "{text}");
            assert!(text.contains("Rss:                   0 kB"), "{text}");
        }
    }
    let held = Reservation::new(MIB);
    assert_eq!(killed_by(in_child(|| held.write(0, 1))), Some(libc::SIGSEGV));
}

#[test]
fn impossible_reservations_are_errors() {
    let error = Linux.reserve(1 << 60, 4096).unwrap_err();
    assert_eq!(error, OsError { call: "mmap", errno: libc::ENOMEM });
    assert_eq!(map_aligned(usize::MAX & !4095, 1 << 30).unwrap_err().name(), "ENOMEM");
}

#[test]
fn committed_pages_read_zeros_and_fault_in_one_by_one() {
    let held = Reservation::committed(MIB);
    assert!(held.present().iter().all(|page| !page));
    held.write(5 * 4096 + 7, 1);
    assert_eq!(held.read(5 * 4096 + 7), 1);
    assert!((0..MIB).step_by(4096).all(|offset| held.read(offset) == 0));
}

#[test]
fn prefault_makes_all_present_and_keeps_content() {
    let held = Reservation::committed(4 * MIB);
    held.write(3 * MIB, 77);
    // SAFETY: committed.
    unsafe { Linux.prefault(held.0) }.unwrap();
    assert!(held.present().iter().all(|page| *page));
    assert_eq!(held.read(3 * MIB), 77);
}

#[test]
fn touching_is_as_good_as_populating() {
    let held = Reservation::committed(MIB);
    held.write(MIB - 4096, 9);
    // SAFETY: committed.
    unsafe { touch(held.0, 4096) };
    assert!(held.present().iter().all(|page| *page));
    assert_eq!((held.read(MIB - 4096), held.read(0)), (9, 0));
}

#[test]
fn prefault_of_what_was_never_committed_is_an_error() {
    let held = Reservation::new(MIB);
    // SAFETY: the kernel refuses; nothing is written.
    let error = unsafe { Linux.prefault(held.0) }.unwrap_err();
    assert!(error.call == "madvise" && matches!(error.errno, libc::EFAULT | libc::ENOMEM | libc::EINVAL), "{error}");
}

#[test]
fn a_guard_kills_and_its_neighbours_live() {
    let held = Reservation::committed(3 * 4096);
    held.write(4095, 1);
    // SAFETY: nobody uses the page.
    unsafe { Linux.guard(held.part(4096, 4096)) }.unwrap();
    assert_eq!(killed_by(in_child(|| held.write(4096, 1))), Some(libc::SIGSEGV));
    assert_eq!(killed_by(in_child(|| assert_eq!(held.read(8191), 0))), Some(libc::SIGSEGV));
    held.write(8192, 2);
    assert_eq!((held.read(4095), held.read(8192)), (1, 2));
    // SAFETY: in the reservation.
    unsafe { Linux.commit(held.part(4096, 4096)) }.unwrap();
    held.write(4096, 3);
    assert_eq!(held.read(4096), 3);
}

#[test]
fn decommit_gives_memory_back_and_reads_zeros() {
    let held = Reservation::committed(MIB);
    (0..MIB).step_by(4096).for_each(|offset| held.write(offset, 5));
    // SAFETY: nobody needs the part.
    unsafe { Linux.decommit(held.part(4096, MIB / 2), false) }.unwrap();
    let present = held.present();
    assert_eq!(present.iter().filter(|page| **page).count(), 256 - 128);
    // SAFETY: committed.
    let (all, part) = unsafe { (Linux.present(held.0), Linux.present(held.part(0, 8192))) };
    assert_eq!((all, part), (Ok(MIB / 2), Ok(4096)));
    assert_eq!((held.read(0), held.read(4096), held.read(MIB / 2), held.read(MIB / 2 + 4096)), (5, 0, 0, 5));
}

/// That of `held`, which is locked, so many bytes are there. Of those that the kernel calls locked it leaves out what it puts down to the children that
/// other tests fork meanwhile.
#[track_caller]
fn assert_locked(held: &Reservation, bytes: usize) {
    let text = held.smaps(0);
    let there = text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse().ok());
    assert!(there == Some(bytes >> 10) && text.contains(" lo "), "{text}");
}

#[test]
fn locked_pages_stay_and_can_be_decommitted_as_locked() {
    let held = Reservation::committed(MIB);
    // SAFETY: committed.
    unsafe { Linux.lock(held.0).and_then(|()| Linux.prefault(held.0)) }.unwrap();
    assert!(held.present().iter().all(|page| *page));
    assert_locked(&held, MIB);
    // SAFETY: nobody needs the content.
    let refused = unsafe { Linux.decommit(held.0, false) }.unwrap_err();
    assert_eq!(refused.errno, libc::EINVAL);
    // SAFETY: as above.
    unsafe { Linux.decommit(held.0, true) }.unwrap();
    assert!(held.present().iter().all(|page| !page));
    // SAFETY: committed.
    unsafe { Linux.unlock(held.0) }.unwrap();
    assert!(!held.smaps(0).contains(" lo "), "{}", held.smaps(0));
}

#[test]
fn locking_by_itself_brings_nothing_in() {
    let held = Reservation::committed(MIB);
    // SAFETY: committed.
    unsafe { Linux.lock(held.0) }.unwrap();
    assert!(held.present().iter().all(|page| !page));
    assert!(held.smaps(0).contains(" lo "));
    held.write(0, 1);
    assert_locked(&held, 4096);
}

#[test]
fn names_appear_in_the_list_of_mappings_and_bad_ones_are_refused() {
    let held = Reservation::new(MIB);
    // SAFETY: in the reservation.
    let result = unsafe { Linux.name(held.0, "mempool: contract") };
    match result {
        Ok(()) => assert!(held.smaps(0).contains("[anon:mempool: contract]"), "{}", held.smaps(0)),
        Err(error) => assert_eq!(error, OsError { call: "prctl", errno: libc::EINVAL }, "a kernel without names"),
    }
    for bad in ["x".repeat(80), "a[b".to_string(), "\u{e9}".to_string()] {
        // SAFETY: in the reservation.
        assert_eq!(unsafe { Linux.name(held.0, &bad) }.unwrap_err().errno, libc::EINVAL);
    }
}

#[test]
fn core_files_can_do_without_a_range() {
    let held = Reservation::committed(MIB);
    // SAFETY: in the reservation.
    unsafe { Linux.dont_dump(held.0) }.unwrap();
    assert!(held.smaps(0).contains(" dd "), "{}", held.smaps(0));
}

#[test]
fn huge_pages_are_made_or_refused_with_a_reason() {
    let held = Reservation::aligned(4 * MIB, 2 * MIB);
    // SAFETY: in the reservation; committed before it is prefaulted.
    unsafe {
        Linux.commit(held.0).unwrap();
        let advised = Linux.huge_pages_advise(held.0);
        Linux.prefault(held.0).unwrap();
        held.write(MIB, 42);
        match (advised, Linux.huge_pages_make(held.0)) {
            (Ok(()), Ok(())) => assert!(held.smaps(0).contains("AnonHugePages:      4096 kB"), "{}", held.smaps(0)),
            (advised, made) => {
                let error = made.and(advised).unwrap_err();
                assert!(error.call == "madvise" && error.errno != 0, "{error}");
            }
        }
    }
    assert_eq!(held.read(MIB), 42);
}

#[test]
fn release_takes_the_mapping_away() {
    // In a child, where no other test maps something of its own there at once.
    let status = in_child(|| {
        let held = Reservation::committed(MIB);
        let head = std::format!("{:x}-", held.0.start.addr());
        let is_there = || fs::read_to_string("/proc/self/maps").unwrap().lines().any(|line| line.starts_with(&head));
        // SAFETY: committed.
        unsafe { Linux.lock(held.0) }.unwrap();
        let before = is_there();
        drop(held);
        if !before || is_there() {
            Linux.abort();
        }
    });
    assert_eq!(status, 0);
}

#[test]
fn the_lock_limit_is_the_kernels() {
    let LockLimit { soft, hard, .. } = Linux.lock_limit().unwrap();
    let text = fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
    let words: Vec<usize> =
        line.split_whitespace().skip(3).take(2).map(|word| word.parse().unwrap_or(usize::MAX)).collect();
    assert_eq!(words, [soft, hard]);
}

#[test]
fn cores_are_those_that_the_standard_library_may_use_or_more() {
    let limit = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(Linux.cores() >= limit && Linux.cores() <= 4096);
}

/// Runs this very test program again, in a way that the named test answers to.
fn rerun(test: &str, setup: impl FnOnce(&mut Command)) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("CONTRACT_CHILD", "yes");
    setup(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap()
}

fn is_child() -> bool {
    // SAFETY: no test changes the environment.
    let answer = unsafe { getenv(c"CONTRACT_CHILD") };
    answer == Some(b"yes")
}

#[test]
fn stderr_gets_whole_messages_and_errno_stays() {
    if is_child() {
        set_errno(77);
        Linux.write_stderr(std::format!("<<{}>>", "m".repeat(300_000)).as_bytes());
        assert_eq!(errno(), 77);
        return;
    }
    let output = rerun("os::linux::tests::stderr_gets_whole_messages_and_errno_stays", |_| {});
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&std::format!("<<{}>>", "m".repeat(300_000))));
}

#[test]
fn a_closed_or_full_stderr_is_no_obstacle() {
    let status = in_child(|| {
        let mut ends = [0; 2];
        // SAFETY: two descriptors into a live array; then only this child loses its standard error.
        unsafe {
            libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK);
            libc::close(2);
        }
        set_errno(5);
        // The shortest of three counts: a thread may have to wait for its processor.
        let closed = (0..3).map(|_| {
            let begin = Linux.now_ns();
            Linux.write_stderr(b"to nobody");
            Linux.now_ns() - begin
        });
        let (closed, kept) = (closed.min().unwrap_or(u64::MAX), errno());
        // SAFETY: a pipe that nobody reads.
        unsafe { libc::dup2(ends[1], 2) };
        let begin = Linux.now_ns();
        Linux.write_stderr(&[b'x'; 100_000]);
        let full = Linux.now_ns() - begin;
        if kept != 5 || closed > 500_000_000 || !(500_000_000..60_000_000_000).contains(&full) {
            Linux.abort();
        }
    });
    assert_eq!(status, 0);
}

#[test]
fn the_kernel_tells_which_advice_it_knows() {
    assert!(knows(libc::MADV_DONTNEED));
    assert!(!knows(9999));
}

#[test]
fn abort_dies_of_sigabrt_whatever_was_arranged() {
    extern "C" fn returns(_: c_int) {}
    assert_eq!(killed_by(in_child(|| Linux.abort())), Some(libc::SIGABRT));
    let handler = returns as extern "C" fn(c_int) as libc::sighandler_t;
    for arranged in [handler, libc::SIG_IGN] {
        let status = in_child(|| {
            // SAFETY: the child arranges its own signals.
            unsafe {
                libc::signal(libc::SIGABRT, arranged);
                let mut set = MaybeUninit::uninit();
                libc::sigfillset(set.as_mut_ptr());
                libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
            }
            Linux.abort();
        });
        assert_eq!(killed_by(status), Some(libc::SIGABRT));
    }
}

#[test]
fn sleep_lasts_through_signals_and_keeps_errno() {
    extern "C" fn nothing(_: c_int) {}
    let status = in_child(|| {
        // SAFETY: the child arranges its own timer: a signal each millisecond.
        unsafe {
            let handler = nothing as extern "C" fn(c_int) as libc::sighandler_t;
            libc::signal(libc::SIGALRM, handler);
            let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
            libc::setitimer(
                libc::ITIMER_REAL,
                &libc::itimerval { it_interval: every, it_value: every },
                ptr::null_mut(),
            );
        }
        set_errno(66);
        let begin = Linux.now_ns();
        Linux.sleep(30_000_000);
        if Linux.now_ns() - begin < 30_000_000 || errno() != 66 {
            Linux.abort();
        }
    });
    assert_eq!(status, 0);
    let begin = Linux.now_ns();
    Linux.sleep(0);
    assert!(Linux.now_ns() - begin < 1_000_000_000);
}

static EXITS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_exit(value: *mut c_void) {
    EXITS.fetch_add(value.addr(), Ordering::Relaxed);
}

#[test]
fn thread_exit_hands_the_stored_pointer_over() {
    let key = Linux.thread_key_create(count_exit).unwrap();
    let threads: Vec<_> = (1..=4usize)
        .map(|number| {
            std::thread::spawn(move || Linux.set_thread_value(key, ptr::without_provenance_mut(number)).unwrap())
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(EXITS.load(Ordering::Relaxed), 1 + 2 + 3 + 4);
    Linux.thread_key_delete(key).unwrap();
    assert_eq!(Linux.thread_key_delete(key).unwrap_err().errno, libc::EINVAL);
    assert_eq!(Linux.set_thread_value(ThreadKey(u32::MAX), ptr::null_mut()).unwrap_err().call, "pthread_setspecific");
}

static FORKS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn fork_handlers_run_in_the_child_alone() {
    Linux.at_fork_child(count_fork).unwrap();
    let status = in_child(|| {
        if FORKS.load(Ordering::Relaxed) != 1 {
            Linux.abort();
        }
    });
    assert_eq!((status, FORKS.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn the_environment_is_the_one_that_libc_sees() {
    // SAFETY: no test changes the environment.
    unsafe {
        let ours: Vec<_> = environment().collect();
        assert!(ours.len() >= std::env::vars_os().count());
        for (name, _) in &ours {
            let name = CString::new(*name).unwrap();
            let theirs = CStr::from_ptr(libc::getenv(name.as_ptr())).to_bytes();
            assert_eq!(getenv(&name), Some(theirs));
        }
        assert_eq!(getenv(c"MEMPOOL_THERE_IS_NO_SUCH_VARIABLE"), None);
        assert_eq!(getenv(c""), None);
    }
}

#[test]
fn entries_split_at_the_first_equals_sign() {
    for (entry, pair) in [
        (&b"A=b"[..], Some((&b"A"[..], &b"b"[..]))),
        (b"A=", Some((b"A", b""))),
        (b"A=b=c", Some((b"A", b"b=c"))),
        (b"=x", Some((b"", b"x"))),
        (b"none", None),
        (b"", None),
    ] {
        assert_eq!(split_entry(entry), pair);
    }
    assert_eq!(Environment { next: ptr::null() }.next(), None);
}

#[test]
fn this_test_runs_with_its_callers_rights() {
    set_errno(3);
    assert!(!is_secure());
    assert_eq!(errno(), 3);
    assert_eq!(platform().os_page(), 4096.max(platform().os_page()));
}
