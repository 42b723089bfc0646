//! No operating system: for `no_std` programs and for systems that this crate does not know.
//!
//! A pool then lives in a buffer that its caller hands over, which is committed and present from the start.
//! Nothing can be reserved, given back or locked; each such call says `ENOSYS`. What remains of a system is
//! how to say something and how to stop, and the program brings both: build a `static` [`NoOs`] and make
//! the pool with it. [`NoOs::SILENT`] says nothing and stops by spinning for ever.
#![allow(unsafe_code)]

use core::ffi::c_void;

use super::{Available, Bound, ForkChild, LockLimit, Nodes, Os, OsError, Range, ThreadExit, ThreadKey};

/// The absence of a system, with what the program brings instead.
#[derive(Clone, Copy, Debug)]
pub struct NoOs {
    /// Gets each message, whole lines of ASCII.
    pub message: fn(&[u8]),
    /// Stops the program or the task; never returns.
    pub stop: fn() -> !,
    /// Lets at least so many nanoseconds pass, or returns at once where there is no clock.
    pub sleep: fn(u64),
}

fn say_nothing(_: &[u8]) {}

fn spin_for_ever() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

fn pass(_: u64) {
    core::hint::spin_loop();
}

impl NoOs {
    /// Says nothing, stops by spinning for ever, does not wait.
    pub const SILENT: Self = Self { message: say_nothing, stop: spin_for_ever, sleep: pass };
}

const fn lacking<T>(call: &'static str) -> Result<T, OsError> {
    Err(OsError { call, errno: OsError::ENOSYS })
}

// SAFETY: nothing is ever reserved, so there is no address to break a promise about.
unsafe impl Os for NoOs {
    fn os_page(&self) -> usize {
        4096
    }
    fn reserve(&self, _: usize, _: usize) -> Result<*mut u8, OsError> {
        lacking("reserve")
    }
    unsafe fn commit(&self, _: Range) -> Result<(), OsError> {
        lacking("commit")
    }
    unsafe fn prefault(&self, _: Range) -> Result<(), OsError> {
        lacking("prefault")
    }
    unsafe fn lock(&self, _: Range) -> Result<(), OsError> {
        lacking("lock")
    }
    unsafe fn unlock(&self, _: Range) -> Result<(), OsError> {
        lacking("unlock")
    }
    unsafe fn decommit(&self, _: Range, _: bool) -> Result<(), OsError> {
        lacking("decommit")
    }
    unsafe fn present(&self, _: Range) -> Result<usize, OsError> {
        lacking("present")
    }
    unsafe fn guard(&self, _: Range) -> Result<(), OsError> {
        lacking("guard")
    }
    unsafe fn name(&self, _: Range, _: &str) -> Result<(), OsError> {
        lacking("name")
    }
    unsafe fn huge_pages_advise(&self, _: Range) -> Result<(), OsError> {
        lacking("huge_pages_advise")
    }
    unsafe fn huge_pages_make(&self, _: Range) -> Result<(), OsError> {
        lacking("huge_pages_make")
    }
    unsafe fn huge_bytes(&self, _: Range) -> Result<usize, OsError> {
        lacking("huge_bytes")
    }
    fn huge_page(&self) -> usize {
        0
    }
    fn free_huge_pages(&self, _: usize) -> usize {
        0
    }
    unsafe fn commit_huge(&self, _: Range, _: usize) -> Result<(), OsError> {
        lacking("commit_huge")
    }
    unsafe fn place(&self, _: Range, _: Nodes) -> Result<(), OsError> {
        lacking("place")
    }
    fn available(&self) -> Result<Available, OsError> {
        Ok(Available { bytes: usize::MAX, bound: Bound::Machine })
    }
    fn lock_program(&self) -> (usize, usize, Result<(), OsError>) {
        (0, 0, lacking("lock_program"))
    }
    fn prefault_stack(&self, _: usize) -> Result<(), OsError> {
        lacking("prefault_stack")
    }
    fn lower_oom_score(&self, _: i32) -> Result<(), OsError> {
        lacking("lower_oom_score")
    }
    unsafe fn dont_dump(&self, _: Range) -> Result<(), OsError> {
        lacking("dont_dump")
    }
    unsafe fn release(&self, _: Range) -> Result<(), OsError> {
        lacking("release")
    }
    unsafe fn release_part(&self, _: Range) -> Result<(), OsError> {
        lacking("release_part")
    }
    fn lock_limit(&self) -> Result<LockLimit, OsError> {
        lacking("lock_limit")
    }
    fn process(&self) -> u32 {
        0
    }

    fn thread(&self) -> u32 {
        0
    }
    fn thread_name(&self) -> [u8; 16] {
        [0; 16]
    }
    fn barrier(&self) -> bool {
        false
    }
    fn signal(&self, _: u32) {}
    fn notify(&self, _: u32, _: &[u8]) {}

    fn cores(&self) -> usize {
        1
    }
    fn write_stderr(&self, message: &[u8]) {
        (self.message)(message);
    }
    fn abort(&self) -> ! {
        (self.stop)()
    }
    fn is_single_threaded(&self) -> bool {
        false
    }
    fn sleep(&self, ns: u64) {
        (self.sleep)(ns);
    }
    fn now_ns(&self) -> u64 {
        0
    }
    fn thread_key_create(&self, _: ThreadExit) -> Result<ThreadKey, OsError> {
        lacking("thread_key_create")
    }
    fn thread_key_delete(&self, _: ThreadKey) -> Result<(), OsError> {
        lacking("thread_key_delete")
    }
    fn set_thread_value(&self, _: ThreadKey, _: *mut c_void) -> Result<(), OsError> {
        lacking("set_thread_value")
    }
    fn at_fork_child(&self, _: ForkChild) -> Result<(), OsError> {
        lacking("at_fork_child")
    }
}

/// The variables of a system that has none.
pub type Environment = core::iter::Empty<(&'static [u8], &'static [u8])>;

/// No variables.
///
/// # Safety
///
/// None is asked here; see the function of the same name where there is a system.
pub unsafe fn environment() -> Environment {
    core::iter::empty()
}

/// Whether the process runs with more rights than its caller: never.
#[must_use]
pub fn is_secure() -> bool {
    false
}

/// Shared memory behind a descriptor: none.
#[must_use]
pub fn shared_words(_: u32, _: usize) -> Option<*const crate::sync::AtomicU64> {
    None
}

/// There are no programs to tell apart.
#[must_use]
pub fn image() -> u64 {
    0
}

/// The program's name: not known.
#[must_use]
pub fn program_name() -> &'static [u8] {
    b""
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::vec::Vec;

    static SAID: Mutex<Vec<u8>> = Mutex::new(Vec::new());

    #[test]
    fn brings_the_programs_own_ways_and_lacks_the_rest() {
        let os = NoOs {
            message: |text| SAID.lock().unwrap().extend_from_slice(text),
            stop: || panic!("stopped"),
            sleep: pass,
        };
        os.write_stderr(b"a line\n");
        os.sleep(1);
        assert_eq!(*SAID.lock().unwrap(), b"a line\n");
        let stopped = std::panic::catch_unwind(|| os.abort());
        assert_eq!(stopped.unwrap_err().downcast_ref::<&str>(), Some(&"stopped"));
        assert_eq!(os.reserve(4096, 4096), Err(OsError { call: "reserve", errno: 38 }));
        NoOs::SILENT.write_stderr(b"nobody reads this");
        NoOs::SILENT.sleep(u64::MAX);
    }
}
