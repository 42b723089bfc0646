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
//! *Limits:* addresses of one process; 64 bits; no file mappings.
#![allow(unsafe_code)]

use core::ffi::c_void;

#[cfg(all(test, not(loom)))]
pub mod fake;
#[cfg(all(feature = "os", target_os = "linux", target_pointer_width = "64"))]
pub mod linux;
// Compiled everywhere, so that it cannot rot.
#[cfg_attr(all(feature = "os", target_os = "linux", target_pointer_width = "64"), allow(dead_code))]
pub mod none;
mod refusal;
#[cfg(not(loom))]
pub mod system;

#[cfg(all(feature = "os", target_os = "linux", target_pointer_width = "64"))]
pub use linux::{environment, image, is_secure, program_name, shared_words};
#[cfg(not(all(feature = "os", target_os = "linux", target_pointer_width = "64")))]
pub use none::{environment, image, is_secure, program_name, shared_words};

pub use refusal::OsError;

/// The system that this build was made for.
#[must_use]
pub fn platform() -> &'static dyn Os {
    #[cfg(all(feature = "os", target_os = "linux", target_pointer_width = "64"))]
    return &linux::Linux;
    #[cfg(not(all(feature = "os", target_os = "linux", target_pointer_width = "64")))]
    return &none::NoOs::SILENT;
}

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

/// RLIMIT_MEMLOCK, in bytes; `usize::MAX` means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockLimit {
    /// What counts now.
    pub soft: usize,
    /// How far the process may raise it.
    pub hard: usize,
    /// Bytes that the process has locked now, which count against it; 0 where that is not known.
    pub locked: usize,
}

/// What bounds the memory that is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The machine's own memory.
    Machine,
    /// The limit of a memory cgroup, version 1.
    Cgroup1,
    /// The limit of a memory cgroup, version 2.
    Cgroup2,
}

/// Memory that can still be had without swapping and without ending a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// How much, in bytes; `usize::MAX` means no known bound.
    pub bytes: usize,
    /// What bounds it.
    pub bound: Bound,
}

/// Memory nodes of a machine that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// The calling thread's, and others when it is full.
    Local,
    /// All, in turn.
    All,
    /// These alone: bit n is node n.
    These(u64),
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

    /// Locks the committed range: what is present, now or later, stays in memory. Makes nothing present by itself. A
    /// child of fork inherits no lock.
    ///
    /// # Errors
    ///
    /// The lock limit is too low, or there is not that much memory. Then nothing of the range that was not
    /// locked before counts as locked: call [`unlock`](Self::unlock) to be rid of parts.
    ///
    /// # Safety
    ///
    /// The range is committed.
    unsafe fn lock(&self, range: Range) -> Result<(), OsError>;

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
    /// says that the range is locked, and it stays so.
    ///
    /// # Errors
    ///
    /// The kernel cannot do so (locked ranges need Linux 5.18). Content is then kept or zeros, page by page.
    ///
    /// # Safety
    ///
    /// The range is committed, and nobody needs its content or touches it meanwhile.
    unsafe fn decommit(&self, range: Range, locked: bool) -> Result<(), OsError>;

    /// Bytes of the range that are there at this moment: in memory, and mapped. What is swapped out is not there.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    ///
    /// # Safety
    ///
    /// The range is committed.
    unsafe fn present(&self, range: Range) -> Result<usize, OsError>;

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

    /// Bytes of the range that lie in transparent huge OS pages now.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    ///
    /// # Safety
    ///
    /// The range is present.
    unsafe fn huge_bytes(&self, range: Range) -> Result<usize, OsError>;

    /// Bytes of a transparent huge OS page; 0 where there are none.
    fn huge_page(&self) -> usize;

    /// Huge OS pages of `size` bytes that the administrator has set aside and that are free.
    fn free_huge_pages(&self, size: usize) -> usize;

    /// Makes the range committed, in huge OS pages of `size` bytes that were set aside, which are the range's from now
    /// on. They can be neither swapped nor decommitted, and are locked by nature.
    ///
    /// After: reads as zeros. On an error the range is `reserved` as before.
    ///
    /// # Errors
    ///
    /// There are not enough of them, or none of that size.
    ///
    /// # Safety
    ///
    /// The range is in state `reserved`, begins at a multiple of `size`, and is a multiple of it.
    unsafe fn commit_huge(&self, range: Range, size: usize) -> Result<(), OsError>;

    /// Sets on which memory nodes the pages of the range will lie that are not present yet.
    ///
    /// # Errors
    ///
    /// The machine has no such node, the process may not use it, or the kernel knows no nodes.
    ///
    /// # Safety
    ///
    /// The range lies in a reservation.
    unsafe fn place(&self, range: Range, nodes: Nodes) -> Result<(), OsError>;

    /// Memory that can still be had.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    fn available(&self) -> Result<Available, OsError>;

    /// Locks the program as it is now: text, constants, data, libraries, main stack. The bytes locked, those that were to be, and the first
    /// refusal; what was not refused stays locked.
    fn lock_program(&self) -> (usize, usize, Result<(), OsError>);

    /// Makes `bytes` of the calling thread's stack present.
    ///
    /// # Errors
    ///
    /// The stack's limit is lower; as much as it allows is present.
    fn prefault_stack(&self, bytes: usize) -> Result<(), OsError>;

    /// Makes the process a less likely victim when memory runs out: `score` is -1000 (never) to 0.
    ///
    /// # Errors
    ///
    /// The process lacks the right.
    fn lower_oom_score(&self, score: i32) -> Result<(), OsError>;

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

    /// Gives a part of a reservation back, locked or not. The parts around it stay as they are, and go back by this call, too.
    ///
    /// # Errors
    ///
    /// The system has no room to note the change; the part is then as before.
    ///
    /// # Safety
    ///
    /// The range lies in a reservation, is whole huge OS pages where it has such, and nobody touches it any more.
    unsafe fn release_part(&self, range: Range) -> Result<(), OsError>;

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

    /// Lets every thread of the process pass a full barrier before it returns. False where the system has no such call; then
    /// nothing has happened.
    fn barrier(&self) -> bool;

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

    /// Whether the process has no other thread. False where nobody can tell.
    fn is_single_threaded(&self) -> bool;

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

    #[test]
    fn a_build_with_a_system_offers_it() {
        let bytes = platform().os_page();
        assert!(bytes.is_power_of_two() && bytes >= 4096);
    }
}
