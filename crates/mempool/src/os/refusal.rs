//! A refused call: which, why in words, and what can be done about it.

use core::fmt;

/// A refused call: which, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OsError {
    /// The call that failed, as its manual page is called.
    pub call: &'static str,
    /// Its errno, in this system's numbering.
    pub errno: i32,
}

/// One row of [`ERRNOS`].
struct Errno {
    number: i32,
    name: &'static str,
    words: &'static str,
    hint: &'static str,
}

/// A row without advice.
const fn plain(number: i32, name: &'static str, words: &'static str) -> Errno {
    Errno { number, name, words, hint: "" }
}

/// The numbers that the calls of this room can give (Linux, all architectures), in words.
const ERRNOS: [Errno; 15] = [
    plain(OsError::SHORT, "-", "less was given than was asked for"),
    Errno {
        hint: "a capability, a seccomp filter or a lock limit of 0 forbids it",
        ..plain(1, "EPERM", "not permitted")
    },
    plain(2, "ENOENT", "does not exist"),
    plain(4, "EINTR", "interrupted by a signal"),
    plain(5, "EIO", "input/output error"),
    Errno { hint: "see ulimit -l, ulimit -a and /proc/self/limits", ..plain(11, "EAGAIN", "a limit is reached") },
    Errno {
        hint: "see ulimit -v, ulimit -l, the memory cgroup and /proc/sys/vm/overcommit_memory",
        ..plain(12, "ENOMEM", "no memory, or a limit on memory, on locking or on mappings is reached")
    },
    plain(13, "EACCES", "access denied"),
    plain(14, "EFAULT", "bad address"),
    plain(16, "EBUSY", "busy"),
    plain(17, "EEXIST", "exists already"),
    plain(22, "EINVAL", "the kernel does not know or does not allow this"),
    plain(28, "ENOSPC", "no space left"),
    Errno { hint: "this build or kernel lacks the call", ..plain(38, "ENOSYS", "not available") },
    plain(133, "EHWPOISON", "the memory is damaged"),
];

/// What can be done about a refusal, where the call says more than the errno does.
const HINTS: [(&str, i32, &str); 17] = [
    (
        "mlock",
        12,
        "RLIMIT_MEMLOCK counts all that the process locks (VmLck in /proc/self/status): raise it, by `ulimit -l`, LimitMEMLOCK=, memlock in limits.conf or --ulimit memlock of a container, or grant CAP_IPC_LOCK; where it has room, the process has as many mappings as vm.max_map_count allows (wc -l /proc/self/maps): raise that by sysctl",
    ),
    ("mlock", 11, "the kernel could not lock part of it now: see MemAvailable in /proc/meminfo, and try again"),
    (
        "mlock",
        1,
        "RLIMIT_MEMLOCK is 0, or a seccomp filter forbids it: raise the one or change the other, or grant CAP_IPC_LOCK (--cap-add IPC_LOCK of a container)",
    ),
    (
        "mlock of the stack",
        12,
        "a locked stack that grows beyond RLIMIT_MEMLOCK kills the process, so it is locked only if RLIMIT_STACK fits: raise `ulimit -l`, lower `ulimit -s`, or grant CAP_IPC_LOCK",
    ),
    ("prefault the stack", 12, "raise `ulimit -s`, or run on a thread with a larger stack"),
    (
        "mmap",
        12,
        "see ulimit -v, the memory cgroup and /proc/sys/vm/overcommit_memory; for huge OS pages /sys/kernel/mm/hugepages/*/nr_hugepages",
    ),
    (
        "madvise for core files",
        22,
        "this kernel lacks MADV_DONTDUMP, or a seccomp filter forbids it: change the filter, or set dump=on",
    ),
    (
        "madvise to collapse",
        22,
        "this kernel cannot make huge OS pages of small ones (Linux 6.1 can), or free memory lies in small pieces: see /sys/kernel/mm/transparent_hugepage/enabled, or ask for reserved ones by huge_page_size",
    ),
    (
        "get_robust_list",
        1,
        "a seccomp filter forbids it, so that the stacks of threads are not found: change the filter, or make the pool before the threads",
    ),
    (
        "madvise for huge OS pages",
        22,
        "this kernel has no transparent huge OS pages, or this process may not have them (prctl PR_SET_THP_DISABLE): set huge_pages=off, or ask for reserved ones by huge_page_size",
    ),
    ("mbind", 22, "there is no such memory node, or it has no memory: see /sys/devices/system/node/has_memory"),
    ("mbind", 1, "a seccomp filter forbids it: for a container, --cap-add SYS_NICE or another profile"),
    ("get_mempolicy", 1, "a seccomp filter forbids it: for a container, --cap-add SYS_NICE or another profile"),
    (
        "write",
        13,
        "lowering /proc/self/oom_score_adj needs CAP_SYS_RESOURCE: systemd's OOMScoreAdjust= or a container's --oom-score-adj sets it from outside",
    ),
    (
        "write",
        1,
        "lowering /proc/self/oom_score_adj needs CAP_SYS_RESOURCE: systemd's OOMScoreAdjust= or a container's --oom-score-adj sets it from outside",
    ),
    (
        "open",
        13,
        "/proc/self/oom_score_adj may not be written: systemd's OOMScoreAdjust= or a container's --oom-score-adj sets it from outside",
    ),
    (
        "huge pages",
        0,
        "see /sys/kernel/mm/transparent_hugepage/enabled, which must not be never, and free memory in pieces of 2 MiB (/proc/buddyinfo)",
    ),
];

impl OsError {
    /// No errno: the call went well, and what came of it falls short.
    pub const SHORT: i32 = 0;
    /// Not permitted.
    pub const EPERM: i32 = 1;
    /// No memory, or a limit is reached.
    pub const ENOMEM: i32 = 12;
    /// The kernel does not know or does not allow the request.
    pub const EINVAL: i32 = 22;
    /// There is no such call.
    pub const ENOSYS: i32 = 38;

    fn row(&self) -> Option<&'static Errno> {
        ERRNOS.iter().find(|row| row.number == self.errno)
    }

    /// The name of the errno, `ENOMEM`; "errno" for one that the table lacks.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.row().map_or("errno", |row| row.name)
    }

    /// What the user can look at or change; empty where nothing general can be said.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        let of_call = HINTS.iter().find(|(call, errno, _)| self.call == *call && self.errno == *errno);
        of_call.map_or_else(|| self.row().map_or("", |row| row.hint), |(.., hint)| *hint)
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) if row.number == Self::SHORT => write!(f, "{}: {}", self.call, row.words),
            Some(row) => write!(f, "{} failed: {} ({}, {})", self.call, row.words, row.name, self.errno),
            None => write!(f, "{} failed: errno {}", self.call, self.errno),
        }
    }
}

impl core::error::Error for OsError {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn errors_name_call_words_name_and_number() {
        let text = OsError { call: "mlock", errno: 12 }.to_string();
        for part in ["mlock failed", "no memory", "ENOMEM", "12"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(OsError { call: "mmap", errno: 999 }.to_string(), "mmap failed: errno 999");
        assert_eq!(OsError { call: "mmap", errno: 999 }.name(), "errno");
        assert_eq!(OsError { call: "mmap", errno: 999 }.hint(), "");
        assert!(OsError { call: "mlock2", errno: 1 }.hint().contains("capability"));
        assert_eq!(
            OsError { call: "huge pages", errno: 0 }.to_string(),
            "huge pages: less was given than was asked for"
        );
    }

    #[test]
    fn different_errnos_of_one_call_have_different_words_and_hints() {
        let of = |errno| OsError { call: "mlock", errno };
        for (a, b) in [(1, 11), (1, 12), (11, 12), (12, 22)] {
            assert_ne!(of(a).hint(), of(b).hint());
            assert!(of(a).to_string().split(':').nth(1) != of(b).to_string().split(':').nth(1));
        }
        assert!(
            of(12).hint().contains("vm.max_map_count")
                && of(12).hint().contains("LimitMEMLOCK")
                && of(1).hint().contains("CAP_IPC_LOCK")
        );
    }

    #[test]
    fn one_call_for_two_purposes_has_the_advice_of_each() {
        let of = |call| OsError { call, errno: OsError::EINVAL }.hint();
        assert!(of("madvise for core files").contains("dump=on") && !of("madvise for core files").contains("huge"));
        assert!(of("madvise for huge OS pages").contains("huge_pages=off"));
        assert_eq!(of("madvise"), "");
    }

    #[test]
    fn errno_table_is_sorted_and_named() {
        assert!(ERRNOS.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(ERRNOS.iter().all(|row| (row.name.starts_with('E') || row.number == 0) && !row.words.is_empty()));
    }
}
