//! The operating system as a contract. One file per system implements it; nothing above this room names
//! a system call.
//!
//! *What it manages:* reservations of addresses, and what stands behind each OS page of them. A page of a
//! reservation is in one of these states; a fresh reservation is all `reserved`:
//!
//! ```text
//!            commit             prefault, or first touch
//!  reserved --------> committed ------------------------> present <---> locked   (lock, unlock)
//!     ^   \              |  ^                                |
//!     |    \ guard       |  +------------ decommit ----------+
//!     |     v            v guard (content unspecified)
//!     |   guard <--------+
//!     +--- release takes the whole reservation, in any state
//! ```
//!
//! | state | read | write | memory behind it |
//! |---|---|---|---|
//! | reserved, guard | fault | fault | none is promised |
//! | committed | zeros | first touch faults it in, and may fail by signal when the machine is full | on demand |
//! | present | content | content | yes; the kernel may swap it out |
//! | locked | content | content | yes, for good |
//!
//! All of it is cold: at init, growth, trim, exhaustion and exit. No allocation or free from a pool that has
//! memory comes here. A pool holds a `&'static dyn Os`, given when it is made, so that tests put `fake`
//! there and make each call fail in turn. [`platform`] is the one that this build was made for, [`none::NoOs`]
//! where there is none: then a pool lives in a buffer that its caller hands over.
//!
//! *What every implementation owes:* it allocates nothing, keeps no lock, is no cancellation point, and
//! reports each failure with the call and its errno. The errno of the thread is unspecified after a function
//! that returns a `Result`, and untouched by all others. Only `write_stderr`, `sleep` and `abort` may wait.
//!
//! *Limits:* addresses of one process; 64 bits; no file mappings; NUMA is left to the kernel's policy.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::fmt;

#[cfg(all(test, not(loom)))]
pub mod fake;
#[cfg(all(feature = "os", target_os = "linux", target_pointer_width = "64"))]
pub mod linux;
// Compiled everywhere, so that it cannot rot.
#[cfg_attr(all(feature = "os", target_os = "linux", target_pointer_width = "64"), allow(dead_code))]
pub mod none;
#[cfg(not(loom))]
pub mod system;

#[cfg(all(feature = "os", target_os = "linux", target_pointer_width = "64"))]
pub use linux::{environment, is_secure};
#[cfg(not(all(feature = "os", target_os = "linux", target_pointer_width = "64")))]
pub use none::{environment, is_secure};

/// The system that this build was made for.
#[must_use]
pub fn platform() -> &'static dyn Os {
    #[cfg(all(feature = "os", target_os = "linux", target_pointer_width = "64"))]
    return &linux::Linux;
    #[cfg(not(all(feature = "os", target_os = "linux", target_pointer_width = "64")))]
    return &none::NoOs::SILENT;
}

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
const ERRNOS: [Errno; 14] = [
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

impl OsError {
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
    pub const fn hint(&self) -> &'static str {
        let mut rows = ERRNOS.as_slice();
        while let [row, rest @ ..] = rows {
            if row.number == self.errno {
                return row.hint;
            }
            rows = rest;
        }
        ""
    }
}

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some(row) => write!(f, "{} failed: {} ({}, {})", self.call, row.words, row.name, self.errno),
            None => write!(f, "{} failed: errno {}", self.call, self.errno),
        }
    }
}

impl core::error::Error for OsError {}

/// A part of a reservation: whole OS pages. An address and a length, with no claim on what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte; a multiple of the OS page.
    pub start: *mut u8,
    /// Length in bytes; a multiple of the OS page.
    pub bytes: usize,
}

// SAFETY: a range is two numbers; whoever goes through the pointer answers for that.
unsafe impl Send for Range {}
// SAFETY: as above.
unsafe impl Sync for Range {}

impl Range {
    /// The range of `bytes` bytes from `start`.
    #[must_use]
    pub const fn new(start: *mut u8, bytes: usize) -> Self {
        Self { start, bytes }
    }
}

/// When a locked page gets its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Before `lock` returns.
    Now,
    /// At its first touch, for pools that commit lazily.
    AtTouch,
}

/// RLIMIT_MEMLOCK, in bytes; `usize::MAX` means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockLimit {
    /// What counts now.
    pub soft: usize,
    /// How far the process may raise it.
    pub hard: usize,
}

/// A key under which each thread stores one pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadKey(pub u32);

/// What runs when a thread ends that stored a pointer other than null; it gets the pointer, and the
/// stored one is null by then. If it stores another, it is called again, at least 4 times in all.
pub type ThreadExit = unsafe extern "C" fn(*mut c_void);

/// What runs in the child of a fork, in the one thread that it has.
pub type ForkChild = unsafe extern "C" fn();

/// The contract. "The range" is always whole OS pages inside one reservation of the same system.
///
/// # Safety
///
/// A pool turns the addresses that come from here into references: an implementation must keep each
/// postcondition, above all that ranges of different reservations never overlap and that committed memory
/// reads as zeros until it is written.
// A pool needs no guard call (reserved memory is one), and never deletes its key; the tests need both.
#[cfg_attr(not(test), allow(dead_code))]
pub unsafe trait Os: Sync {
    /// Bytes in an OS page: a power of two, the same in each call.
    fn os_page(&self) -> usize;

    /// Reserves `bytes` bytes of addresses that begin at a multiple of `align`, all in state `reserved`.
    /// Promises no memory and counts against no memory limit but RLIMIT_AS.
    ///
    /// Before: `bytes` is above 0, `align` a power of two; both multiples of the OS page.
    /// After: the range is the caller's until [`release`](Self::release); on an error nothing is reserved.
    ///
    /// # Errors
    ///
    /// No such range is free, or RLIMIT_AS forbids it.
    fn reserve(&self, bytes: usize, align: usize) -> Result<*mut u8, OsError>;

    /// Makes the range `committed`: readable and writable.
    ///
    /// After: pages that were `reserved` read as zeros; pages that were committed are unchanged; the content
    /// of pages that were guards is unspecified. On an error each page is as before or committed.
    ///
    /// # Errors
    ///
    /// The system does not promise that much memory, or has no room to note the change.
    ///
    /// # Safety
    ///
    /// The range lies in a reservation that is not released meanwhile.
    unsafe fn commit(&self, range: Range) -> Result<(), OsError>;

    /// Makes the committed range `present`, so that no access faults any more. Content is kept.
    ///
    /// # Errors
    ///
    /// There is not that much memory. Pages before the failure may be present.
    ///
    /// # Safety
    ///
    /// The range is committed, and nobody else writes there meanwhile.
    unsafe fn prefault(&self, range: Range) -> Result<(), OsError>;

    /// Locks the committed range: what is present, now or later, stays in memory. A child of fork inherits no
    /// lock.
    ///
    /// # Errors
    ///
    /// The lock limit is too low, or there is not that much memory. Then nothing of the range that was not
    /// locked before counts as locked: call [`unlock`](Self::unlock) to be rid of parts.
    ///
    /// # Safety
    ///
    /// The range is committed.
    unsafe fn lock(&self, range: Range, when: Fault) -> Result<(), OsError>;

    /// Undoes [`lock`](Self::lock). Content is kept.
    ///
    /// # Errors
    ///
    /// The system has no room to note the change.
    ///
    /// # Safety
    ///
    /// The range is committed.
    unsafe fn unlock(&self, range: Range) -> Result<(), OsError>;

    /// Gives the memory behind the committed range back; it stays committed and reads as zeros. `locked`
    /// says that the range is locked, and it stays so in the manner of [`Fault::AtTouch`].
    ///
    /// # Errors
    ///
    /// The kernel cannot do so (locked ranges need Linux 5.18). Content is then kept or zeros, page by page.
    ///
    /// # Safety
    ///
    /// The range is committed, and nobody needs its content or touches it meanwhile.
    unsafe fn decommit(&self, range: Range, locked: bool) -> Result<(), OsError>;

    /// Makes the range a guard: each access faults.
    ///
    /// # Errors
    ///
    /// The system has no room to note the change (see /proc/sys/vm/max_map_count).
    ///
    /// # Safety
    ///
    /// The range lies in a reservation, and nobody needs its content or touches it any more.
    unsafe fn guard(&self, range: Range) -> Result<(), OsError>;

    /// Names the range in the system's list of mappings. A courtesy: callers go on without.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the kernel lacks the call, or `name` has more than 79 bytes, a byte that is not printable
    /// ASCII, or one of `` \`$[] ``.
    ///
    /// # Safety
    ///
    /// The range lies in a reservation.
    unsafe fn name(&self, range: Range, name: &str) -> Result<(), OsError>;

    /// Asks for huge OS pages at the coming faults of the range. No promise: see
    /// [`huge_pages_make`](Self::huge_pages_make).
    ///
    /// # Errors
    ///
    /// The kernel was built without them.
    ///
    /// # Safety
    ///
    /// The range lies in a reservation.
    unsafe fn huge_pages_advise(&self, range: Range) -> Result<(), OsError>;

    /// Puts huge OS pages behind the range now. Content is kept.
    ///
    /// # Errors
    ///
    /// The kernel is older than Linux 6.1, or could not find enough of them.
    ///
    /// # Safety
    ///
    /// The range is present.
    unsafe fn huge_pages_make(&self, range: Range) -> Result<(), OsError>;

    /// Leaves the range out of core files.
    ///
    /// # Errors
    ///
    /// The system has no room to note the change.
    ///
    /// # Safety
    ///
    /// The range lies in a reservation.
    unsafe fn dont_dump(&self, range: Range) -> Result<(), OsError>;

    /// Gives a whole reservation back, locked parts included.
    ///
    /// # Errors
    ///
    /// The system has no room to note the change; the reservation is then as before.
    ///
    /// # Safety
    ///
    /// `range` is exactly one reservation, and nobody touches it any more.
    unsafe fn release(&self, range: Range) -> Result<(), OsError>;

    /// The lock limit of this process.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    fn lock_limit(&self) -> Result<LockLimit, OsError>;

    /// The number of this process, 0 where there is none.
    fn process(&self) -> u32;

    /// The number of the calling thread as the system's tools show it, 0 where there is none.
    fn thread(&self) -> u32;

    /// The name of the calling thread, zeros behind it; empty where there is none.
    fn thread_name(&self) -> [u8; 16];

    /// Sends signal `number` to the process.
    fn signal(&self, number: u32);

    /// Writes `message` to a file descriptor of the program's, if that can be done without waiting. What cannot be
    /// written is dropped.
    fn notify(&self, descriptor: u32, message: &[u8]);

    /// Processors that this thread may run on, at least 1.
    fn cores(&self) -> usize;

    /// Writes `message` to standard error; what cannot be written within about a second is dropped.
    fn write_stderr(&self, message: &[u8]);

    /// Ends the process as `abort` does (SIGABRT), without stdio.
    fn abort(&self) -> !;

    /// Lets at least `ns` nanoseconds pass. Other threads run meanwhile.
    fn sleep(&self, ns: u64);

    /// Nanoseconds since some moment; never goes backwards.
    fn now_ns(&self) -> u64;

    /// A new key, with null stored for each thread.
    ///
    /// # Errors
    ///
    /// There are no keys left (PTHREAD_KEYS_MAX, 1,024).
    fn thread_key_create(&self, on_exit: ThreadExit) -> Result<ThreadKey, OsError>;

    /// Gives a key back. No exit function runs for it any more, for no thread.
    ///
    /// # Errors
    ///
    /// There is no such key.
    fn thread_key_delete(&self, key: ThreadKey) -> Result<(), OsError>;

    /// Stores a pointer for this thread. May call the process's malloc (glibc does, for key 32 and above).
    ///
    /// # Errors
    ///
    /// There is no such key or no memory.
    fn set_thread_value(&self, key: ThreadKey, value: *mut c_void) -> Result<(), OsError>;

    /// Runs `child` in each child of `fork` (not of `_Fork` or `vfork`), behind the handlers that were
    /// registered before. May call the process's malloc. Cannot be undone.
    ///
    /// # Errors
    ///
    /// There is no memory to note it.
    fn at_fork_child(&self, child: ForkChild) -> Result<(), OsError>;
}

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
        assert!(OsError { call: "mlock", errno: 1 }.hint().contains("capability"));
    }

    #[test]
    fn errno_table_is_sorted_and_named() {
        assert!(ERRNOS.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(ERRNOS.iter().all(|row| row.name.starts_with('E') && !row.words.is_empty()));
    }

    #[test]
    fn a_build_with_a_system_offers_it() {
        let bytes = platform().os_page();
        assert!(bytes.is_power_of_two() && bytes >= 4096);
    }
}
