//! Linux, through libc. The contract and the states of an OS page are in the room's essay.
//!
//! A reservation is one private anonymous mapping without access rights and without swap accounting
//! (`MAP_NORESERVE`), so it costs nothing but addresses. Calls that libc makes cancellation points (`write`,
//! `nanosleep`, `poll`) are made through `syscall`, so that `pthread_cancel` never strikes inside a pool.
//!
//! *Limits:* with `vm.overcommit_memory = 2` the kernel ignores `MAP_NORESERVE`, and `commit` fails when the
//! promise is too large: that is the right moment to learn it. The kernel merges and splits mappings as
//! access rights change; each guard costs two of `vm.max_map_count`.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::mem::MaybeUninit;
use core::ptr;

pub use board::{image, program_name, shared_words};

use super::{Available, ForkChild, LockLimit, Nodes, Os, OsError, Range, ThreadExit, ThreadKey};

mod board;
mod files;
mod huge;
mod memory;
mod parallel;
mod program;

/// Linux 5.14.
const MADV_POPULATE_WRITE: c_int = 23;
/// Linux 5.18.
const MADV_DONTNEED_LOCKED: c_int = 24;
/// Linux 6.1.
const MADV_COLLAPSE: c_int = 25;
/// Bytes of a mapping's name, the final NUL included.
const NAME_BYTES: usize = 80;
/// How long a standard error that takes nothing is waited for, in nanoseconds.
const STDERR_PATIENCE: i64 = 1_000_000_000;

/// The running kernel.
#[derive(Clone, Copy, Debug)]
pub struct Linux;

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED`, and what registers the process for it.
const EXPEDITED: c_int = 1 << 3;
const REGISTER_EXPEDITED: c_int = 1 << 4;

/// The outcome of a call that gives -1 and sets errno.
fn outcome(call: &'static str, result: c_int) -> Result<(), OsError> {
    if result == -1 { Err(OsError { call, errno: errno() }) } else { Ok(()) }
}

/// The outcome of a pthread call, which returns its errno.
fn pthread_outcome(call: &'static str, errno: c_int) -> Result<(), OsError> {
    if errno == 0 { Ok(()) } else { Err(OsError { call, errno }) }
}

/// Runs `body` and leaves the thread's errno as it was.
fn keeping_errno<T>(body: impl FnOnce() -> T) -> T {
    let before = errno();
    let result = body();
    set_errno(before);
    result
}

fn map(bytes: usize) -> Result<*mut u8, OsError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(OsError { call: "mmap", errno: errno() }) } else { Ok(start.cast()) }
}

/// # Safety
///
/// The range is whole OS pages of the caller's own mapping, not used any more.
unsafe fn unmap(range: Range) -> Result<(), OsError> {
    if range.bytes == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    outcome("munmap", unsafe { libc::munmap(range.start.cast(), range.bytes) })
}

/// Maps `align` bytes too many and gives both ends back.
#[cold]
fn map_aligned(bytes: usize, align: usize) -> Result<*mut u8, OsError> {
    let Some(whole) = bytes.checked_add(align) else {
        return Err(OsError { call: "mmap", errno: OsError::ENOMEM });
    };
    let start = map(whole)?;
    let head = start.addr().wrapping_neg() & (align - 1);
    let aligned = start.wrapping_add(head);
    let tail = Range::new(aligned.wrapping_add(bytes), align - head);
    // SAFETY: part of the mapping just made, which nobody knows yet.
    if let Err(error) = unsafe { unmap(tail) } {
        // SAFETY: the mapping just made, whole. What splits nothing does not fail.
        let _ = unsafe { unmap(Range::new(start, whole)) };
        return Err(error);
    }
    // SAFETY: as the tail.
    if let Err(error) = unsafe { unmap(Range::new(start, head)) } {
        // SAFETY: what is left of the mapping just made.
        let _ = unsafe { unmap(Range::new(start, head + bytes)) };
        return Err(error);
    }
    Ok(aligned)
}

/// # Safety
///
/// As `madvise` asks for `advice`.
unsafe fn advise(range: Range, advice: c_int) -> Result<(), OsError> {
    loop {
        // SAFETY: the caller's promise.
        match outcome("madvise", unsafe { libc::madvise(range.start.cast(), range.bytes, advice) }) {
            Err(OsError { errno: libc::EINTR, .. }) => {}
            result => return result,
        }
    }
}

/// Whether the kernel has this advice: EINVAL says that it lacks it, but also that the range is unfit.
#[cold]
fn knows(advice: c_int) -> bool {
    // SAFETY: no byte is advised; the kernel looks at the advice alone.
    unsafe { libc::madvise(ptr::null_mut(), 0, advice) == 0 }
}

/// # Safety
///
/// The range lies in a reservation of the caller's.
unsafe fn protect(range: Range, rights: c_int) -> Result<(), OsError> {
    // SAFETY: the caller's promise.
    outcome("mprotect", unsafe { libc::mprotect(range.start.cast(), range.bytes, rights) })
}

/// Writes to each OS page what it holds, for kernels without MADV_POPULATE_WRITE.
///
/// # Safety
///
/// The range is committed, and nobody else writes there meanwhile.
#[cold]
unsafe fn touch(range: Range, os_page: usize) {
    for offset in (0..range.bytes).step_by(os_page.max(1)) {
        let byte = range.start.wrapping_add(offset);
        // SAFETY: inside the committed range, and no other thread writes there.
        unsafe { byte.write_volatile(byte.read_volatile()) };
    }
}

/// The number that `call` gives, which is one without arguments that cannot fail. Without the C library where possible: another
/// library may replace its functions by some that allocate, and this is asked before it is known who makes the pool.
#[cfg(target_arch = "x86_64")]
fn number(call: c_long) -> u32 {
    let result: c_long;
    // SAFETY: such a call changes no memory; the kernel uses these two registers besides that of the result.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") call => result,
            lateout("rcx") _,
            lateout("r11") _,
            options(nomem, nostack)
        );
    }
    result as u32
}

/// As above.
#[cfg(not(target_arch = "x86_64"))]
fn number(call: c_long) -> u32 {
    // SAFETY: such a call.
    unsafe { libc::syscall(call) as u32 }
}

/// One write; how many bytes went out, or the errno.
fn write_once(message: &[u8]) -> Result<usize, c_int> {
    // SAFETY: the kernel reads `message.len()` bytes from a live slice.
    let wrote = unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, message.as_ptr(), message.len()) };
    usize::try_from(wrote).map_err(|_| errno())
}

/// Waits until standard error takes something; whether it does.
fn stderr_ready() -> bool {
    let mut poll = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    let patience = libc::timespec { tv_sec: 0, tv_nsec: STDERR_PATIENCE - 1 };
    let no_mask: *const c_void = ptr::null();
    // SAFETY: one live pollfd, a live timespec, and no signal mask.
    let ready = unsafe {
        libc::syscall(libc::SYS_ppoll, &raw mut poll, 1 as c_long, &raw const patience, no_mask, 0 as c_long)
    };
    ready == 1
}

/// Sends SIGABRT to this very thread.
fn raise_abort() {
    // SAFETY: plain numbers; the thread signals itself.
    unsafe {
        let process = libc::syscall(libc::SYS_getpid);
        let thread = libc::syscall(libc::SYS_gettid);
        libc::syscall(libc::SYS_tgkill, process, thread, c_long::from(libc::SIGABRT));
    }
}

/// Lets SIGABRT through in this thread.
fn unblock_abort() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` makes the set valid before the others read it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGABRT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Gives SIGABRT back its default, death.
fn default_abort() {
    let action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid action: SIG_DFL, no flags, empty mask.
    unsafe { libc::sigaction(libc::SIGABRT, action.as_ptr(), ptr::null_mut()) };
}

fn limit_bytes(limit: libc::rlim_t) -> usize {
    if limit == libc::RLIM_INFINITY { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) }
}

// SAFETY: mappings of one process are disjoint, private anonymous memory reads as zeros, and each call below
// changes only the range it is given.
unsafe impl Os for Linux {
    fn os_page(&self) -> usize {
        // SAFETY: reads the auxiliary vector.
        unsafe { libc::getauxval(libc::AT_PAGESZ) as usize }
    }

    fn reserve(&self, bytes: usize, align: usize) -> Result<*mut u8, OsError> {
        let start = map(bytes)?;
        if start.addr() & (align - 1) == 0 {
            return Ok(start);
        }
        // SAFETY: the mapping just made, which nobody knows yet.
        unsafe { unmap(Range::new(start, bytes)) }?;
        map_aligned(bytes, align)
    }

    unsafe fn commit(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: the caller's promise.
        unsafe { protect(range, libc::PROT_READ | libc::PROT_WRITE) }
    }

    unsafe fn prefault(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: populating keeps content; each part lies in the range, which is committed.
        let alone = |part| match unsafe { advise(part, MADV_POPULATE_WRITE) } {
            Err(OsError { errno: libc::EINVAL, .. }) if !knows(MADV_POPULATE_WRITE) => {
                // SAFETY: the caller's promise.
                unsafe { touch(part, self.os_page()) };
                Ok(())
            }
            result => result,
        };
        // SAFETY: as above.
        unsafe { parallel::advise(range, MADV_POPULATE_WRITE, self.cores(), &alone) }
    }

    fn available(&self) -> Result<Available, OsError> {
        memory::available()
    }

    unsafe fn lock(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: locking changes no content; the range is committed.
        outcome("mlock", unsafe {
            libc::syscall(libc::SYS_mlock2, range.start, range.bytes, libc::MLOCK_ONFAULT as c_long) as c_int
        })
    }

    unsafe fn unlock(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: unlocking changes no content; the range is committed.
        outcome("munlock", unsafe { libc::munlock(range.start.cast(), range.bytes) })
    }

    unsafe fn decommit(&self, range: Range, locked: bool) -> Result<(), OsError> {
        let advice = if locked { MADV_DONTNEED_LOCKED } else { libc::MADV_DONTNEED };
        // SAFETY: the caller needs the content no more.
        unsafe { advise(range, advice) }
    }

    unsafe fn present(&self, range: Range) -> Result<usize, OsError> {
        memory::present(range, self.os_page())
    }

    unsafe fn guard(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: the caller touches the range no more.
        unsafe { protect(range, libc::PROT_NONE) }
    }

    unsafe fn name(&self, range: Range, name: &str) -> Result<(), OsError> {
        let mut text = [0u8; NAME_BYTES];
        match text.get_mut(..name.len()) {
            Some(room) if name.len() < NAME_BYTES => room.copy_from_slice(name.as_bytes()),
            _ => return Err(OsError { call: "prctl", errno: OsError::EINVAL }),
        }
        let (what, which) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        // SAFETY: the kernel copies a text that ends in NUL, and changes no memory.
        outcome("prctl", unsafe { libc::prctl(what, which, range.start, range.bytes, text.as_ptr()) })
    }

    unsafe fn huge_pages_advise(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: keeps content.
        unsafe { huge::advise(range, libc::MADV_HUGEPAGE, "madvise for huge OS pages") }
    }

    unsafe fn huge_pages_make(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: keeps content.
        unsafe { huge::advise(range, MADV_COLLAPSE, "madvise to collapse") }
    }

    unsafe fn huge_bytes(&self, range: Range) -> Result<usize, OsError> {
        huge::bytes_in(range)
    }

    fn huge_page(&self) -> usize {
        huge::transparent()
    }

    fn free_huge_pages(&self, size: usize) -> usize {
        huge::free(size)
    }

    unsafe fn commit_huge(&self, range: Range, size: usize) -> Result<(), OsError> {
        // SAFETY: the caller's promise.
        unsafe { huge::commit(range, size) }
    }

    unsafe fn place(&self, range: Range, nodes: Nodes) -> Result<(), OsError> {
        // SAFETY: the caller's promise.
        unsafe { huge::place(range, nodes) }
    }

    fn lock_program(&self) -> (usize, usize, Result<(), OsError>) {
        program::lock()
    }

    fn prefault_stack(&self, bytes: usize) -> Result<(), OsError> {
        program::prefault_stack(bytes)
    }

    fn lower_oom_score(&self, score: i32) -> Result<(), OsError> {
        program::lower_oom_score(score)
    }

    unsafe fn dont_dump(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: keeps content.
        unsafe { huge::advise(range, libc::MADV_DONTDUMP, "madvise for core files") }
    }

    unsafe fn release(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: the caller gives its whole reservation up.
        unsafe { unmap(range) }
    }

    unsafe fn release_part(&self, range: Range) -> Result<(), OsError> {
        // SAFETY: the caller gives this part of its reservation up.
        unsafe { unmap(range) }
    }

    fn lock_limit(&self) -> Result<LockLimit, OsError> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: fills a live struct.
        outcome("getrlimit", unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
        let (soft, hard) = (limit_bytes(limit.rlim_cur), limit_bytes(limit.rlim_max));
        Ok(LockLimit { soft, hard, locked: program::locked() })
    }

    fn process(&self) -> u32 {
        number(libc::SYS_getpid)
    }

    fn thread(&self) -> u32 {
        number(libc::SYS_gettid)
    }

    fn thread_name(&self) -> [u8; 16] {
        let mut name = [0u8; 16];
        // SAFETY: fills the 16 bytes that the call is documented to fill.
        keeping_errno(|| unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) });
        name
    }

    fn barrier(&self) -> bool {
        // SAFETY: plain numbers. The first call of a process registers it, which the kernel wants for the cheap command.
        let command = |command: c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 };
        keeping_errno(|| command(EXPEDITED) || command(REGISTER_EXPEDITED) && command(EXPEDITED))
    }

    fn signal(&self, number: u32) {
        // SAFETY: plain numbers. The program asked for this signal, and there is nobody to tell if it cannot be sent.
        keeping_errno(|| unsafe { libc::kill(libc::getpid(), number as c_int) });
    }

    fn notify(&self, descriptor: u32, message: &[u8]) {
        keeping_errno(|| {
            let mut ready = libc::pollfd { fd: descriptor as c_int, events: libc::POLLOUT, revents: 0 };
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            let no_mask: *const c_void = ptr::null();
            // SAFETY: one live pollfd, a live timespec, and no signal mask. No call of libc, which may end a thread that
            // was cancelled. A pipe that nobody reads any more shows an error here, and gets no SIGPIPE.
            let count = unsafe {
                libc::syscall(libc::SYS_ppoll, &raw mut ready, 1 as c_long, &raw const now, no_mask, 0 as c_long)
            };
            if count == 1 && ready.revents == libc::POLLOUT {
                // SAFETY: the kernel reads from a live slice.
                unsafe { libc::syscall(libc::SYS_write, ready.fd, message.as_ptr(), message.len()) };
            }
        });
    }

    fn cores(&self) -> usize {
        keeping_errno(|| {
            let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
            // SAFETY: fills at most the size it is told; all zeros is the empty set.
            let count = unsafe {
                let got = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
                if got == 0 { libc::CPU_COUNT(&set.assume_init()) } else { 1 }
            };
            usize::try_from(count).unwrap_or(1).max(1)
        })
    }

    fn write_stderr(&self, message: &[u8]) {
        keeping_errno(|| {
            let mut left = message;
            while !left.is_empty() {
                match write_once(left) {
                    Ok(wrote) if wrote > 0 => left = left.get(wrote..).unwrap_or(&[]),
                    Err(libc::EINTR) => {}
                    Err(libc::EAGAIN) if stderr_ready() => {}
                    _ => return,
                }
            }
        });
    }

    fn abort(&self) -> ! {
        unblock_abort();
        raise_abort();
        // A handler returned, or the signal is ignored.
        default_abort();
        raise_abort();
        // SAFETY: ends the process; 134 is what a shell shows for SIGABRT.
        unsafe { libc::_exit(134) }
    }

    fn is_single_threaded(&self) -> bool {
        // SAFETY: all zeros is a valid `stat`.
        let mut tasks: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: a text, and a live struct to fill.
        let asked = keeping_errno(|| unsafe { libc::stat(c"/proc/self/task".as_ptr(), &raw mut tasks) });
        // A link for each thread, besides the two of every folder.
        asked == 0 && tasks.st_nlink == 3
    }

    fn sleep(&self, ns: u64) {
        let end = self.now_ns().saturating_add(ns);
        keeping_errno(|| {
            let until = libc::timespec { tv_sec: (end / 1_000_000_000) as i64, tv_nsec: (end % 1_000_000_000) as i64 };
            let (clock, absolute) = (c_long::from(libc::CLOCK_MONOTONIC), c_long::from(libc::TIMER_ABSTIME));
            let nothing: *mut libc::timespec = ptr::null_mut();
            // SAFETY: reads a live timespec; an absolute time leaves no remainder to write.
            let sleep =
                || unsafe { libc::syscall(libc::SYS_clock_nanosleep, clock, absolute, &raw const until, nothing) };
            while sleep() == -1 && errno() == libc::EINTR {}
        });
    }

    fn now_ns(&self) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fills a live timespec. This clock always exists, so errno stays.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
    }

    fn thread_key_create(&self, on_exit: ThreadExit) -> Result<ThreadKey, OsError> {
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: fills a live key; the function is one for this purpose.
        pthread_outcome("pthread_key_create", unsafe { libc::pthread_key_create(&raw mut key, Some(on_exit)) })?;
        Ok(ThreadKey(key))
    }

    fn thread_key_delete(&self, key: ThreadKey) -> Result<(), OsError> {
        // SAFETY: a plain number, checked by libc.
        pthread_outcome("pthread_key_delete", unsafe { libc::pthread_key_delete(key.0) })
    }

    fn set_thread_value(&self, key: ThreadKey, value: *mut c_void) -> Result<(), OsError> {
        // SAFETY: a plain number, checked by libc, and a pointer that is stored, never followed.
        pthread_outcome("pthread_setspecific", unsafe { libc::pthread_setspecific(key.0, value) })
    }

    fn at_fork_child(&self, child: ForkChild) -> Result<(), OsError> {
        // SAFETY: a function for this purpose; there are no handlers before and in the parent, on purpose:
        // libc runs those before it takes its own locks, so that a lock taken there can deadlock.
        pthread_outcome("pthread_atfork", unsafe { libc::pthread_atfork(None, None, Some(child)) })
    }
}

unsafe extern "C" {
    /// The process's variables: an array of texts `NAME=value` that ends in null. The dynamic loader sets it
    /// before the first constructor.
    static mut environ: *const *const c_char;
}

/// The process's environment, as pairs of name and value. Entries without `=` are skipped.
#[derive(Clone, Debug)]
pub struct Environment {
    next: *const *const c_char,
}

/// All variables, read without a lock and without allocation, so even before constructors ran.
///
/// # Safety
///
/// While the iterator and the slices from it are used, nobody changes the environment (`setenv`, `putenv`).
#[must_use]
pub unsafe fn environment() -> Environment {
    // SAFETY: nobody changes it meanwhile, says the caller.
    Environment { next: unsafe { environ } }
}

impl Iterator for Environment {
    type Item = (&'static [u8], &'static [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.next.is_null() {
            // SAFETY: the array ends in null, where `next` stays.
            let entry = unsafe { *self.next };
            if entry.is_null() {
                return None;
            }
            // SAFETY: this entry was not null, so one more follows it.
            self.next = unsafe { self.next.add(1) };
            // SAFETY: each entry is a text that ends in NUL.
            let entry = unsafe { CStr::from_ptr(entry) }.to_bytes();
            if let Some(pair) = split_entry(entry) {
                return Some(pair);
            }
        }
        None
    }
}

/// `NAME=value`, at the first `=`; `None` without one.
fn split_entry(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = entry.iter().position(|byte| *byte == b'=')?;
    let (name, rest) = entry.split_at_checked(at)?;
    Some((name, rest.get(1..)?))
}

/// The value of variable `name`; the first one if there are several, as libc has it.
///
/// # Safety
///
/// While the slice is used, nobody changes the environment.
#[must_use]
#[cfg(test)]
pub unsafe fn getenv(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the caller's promise.
    let mut variables = unsafe { environment() };
    variables.find(|(known, _)| *known == name.to_bytes()).map(|(_, value)| value)
}

/// Whether the process runs with more rights than its caller (set-uid, set-gid, file capabilities). Its
/// environment is then in a stranger's hand and must not configure anything.
#[must_use]
pub fn is_secure() -> bool {
    // SAFETY: reads the auxiliary vector.
    keeping_errno(|| unsafe { libc::getauxval(libc::AT_SECURE) } != 0)
}

/// The thread's errno.
#[must_use]
fn errno() -> i32 {
    // SAFETY: libc gives a valid pointer to this thread's errno.
    unsafe { *errno_location() }
}

/// Sets the thread's errno.
fn set_errno(errno: i32) {
    // SAFETY: as above.
    unsafe { *errno_location() = errno };
}

fn errno_location() -> *mut c_int {
    // SAFETY: no precondition.
    unsafe { libc::__errno_location() }
}

#[cfg(all(test, not(loom)))]
mod machine_tests;
#[cfg(all(test, not(loom)))]
#[path = "linux_tests.rs"]
mod tests;
