//! A few calls of the operating system that the tests need.
#![allow(unsafe_code)]

/// Page faults of the process so far, minor and major.
#[must_use]
pub fn page_faults() -> i64 {
    usage(libc::RUSAGE_SELF).map_or(0, |usage| usage.ru_minflt + usage.ru_majflt)
}

/// Bytes of the process that are in memory.
#[must_use]
pub fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn usage(who: i32) -> Option<libc::rusage> {
    // SAFETY: all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: writes into the structure.
    (unsafe { libc::getrusage(who, &raw mut usage) } == 0).then_some(usage)
}

/// Forks; the child runs `child` and ends with what it says. The child's process number.
///
/// # Panics
/// The system has no process left.
pub fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child uses the pool, whose fork handler has run, and calls that are safe there.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let status = child();
        // SAFETY: ends the child without its parent's destructors.
        unsafe { libc::_exit(status) }
    }
    pid
}

/// Waits for a child up to `seconds`: its exit status, 128 + signal, or None after killing it.
#[must_use]
pub fn wait(pid: i32, seconds: u64) -> Option<i32> {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        let mut status = 0;
        // SAFETY: writes into `status`.
        let done = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if done == pid {
            return Some(if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            });
        }
        if std::time::Instant::now() > end {
            // SAFETY: our own child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            return None;
        }
        std::thread::yield_now();
    }
}
