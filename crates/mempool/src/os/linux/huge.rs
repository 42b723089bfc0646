//! Huge OS pages and memory nodes: how many there are, and how to get them.

use core::ffi::{c_int, c_long};
use core::fmt::Write;
use core::ptr;

use super::super::{Nodes, OsError, Range};
use super::files::{each_line, field, number_in};
use super::program::mapping;
use super::{Linux, MADV_POPULATE_WRITE, Os, errno, knows};

/// Where `mmap`'s flags carry the logarithm of the size.
const SIZE_SHIFT: u32 = 26;
const MPOL_BIND: c_int = 2;
const MPOL_INTERLEAVE: c_int = 3;
const MPOL_LOCAL: c_int = 4;
const MPOL_F_MEMS_ALLOWED: c_long = 1 << 2;
/// Nodes that a mask has room for; the kernel wants at least as many as it was built for.
const NODES: usize = 1024;
const WORDS: usize = NODES / 64;

/// Bytes of the range's mappings that lie in transparent huge OS pages.
pub fn bytes_in(range: Range) -> Result<usize, OsError> {
    let (start, end) = (range.start.addr(), range.start.addr() + range.bytes);
    let (mut inside, mut found) = (false, 0);
    each_line(c"/proc/self/smaps", &mut |line| {
        if let Some((from, to, ..)) = mapping(line) {
            inside = from < end && start < to;
        } else if inside && let Some(kib) = field(line, b"AnonHugePages") {
            found += kib * 1024;
        }
        true
    })?;
    Ok(found.min(range.bytes))
}

/// Advice whose refusal is told by its purpose: what can be done about it depends on that.
///
/// # Safety
///
/// As `madvise` asks for `advice`.
pub unsafe fn advise(range: Range, advice: c_int, call: &'static str) -> Result<(), OsError> {
    // SAFETY: the caller's promise.
    unsafe { super::advise(range, advice) }.map_err(|error| OsError { call, ..error })
}

/// Bytes of a transparent huge OS page, 0 where the kernel has none.
pub fn transparent() -> usize {
    number_in(c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok().flatten().unwrap_or(0)
}

/// A text that is put together on the stack, for the path of a file.
struct Path {
    bytes: [u8; 128],
    len: usize,
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        // One byte stays zero.
        let room = self.bytes.get_mut(self.len..end).filter(|_| end < 128).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Huge OS pages of `size` bytes that could be had now, those included that the kernel may add by itself.
pub fn free(size: usize) -> usize {
    let figure = |name: &str| {
        let mut path = Path { bytes: [0; 128], len: 0 };
        write!(path, "/sys/kernel/mm/hugepages/hugepages-{}kB/{name}", size >> 10).ok()?;
        number_in(core::ffi::CStr::from_bytes_until_nul(&path.bytes).ok()?).ok().flatten()
    };
    let figure = |name| figure(name).unwrap_or(0);
    let there = figure("free_hugepages").saturating_sub(figure("resv_hugepages"));
    there + figure("nr_overcommit_hugepages").saturating_sub(figure("surplus_hugepages"))
}

/// # Safety
///
/// `at` is null, or `flags` has MAP_FIXED and the addresses are the caller's, or MAP_FIXED_NOREPLACE.
unsafe fn map(at: *mut u8, bytes: usize, rights: c_int, flags: c_int) -> Result<*mut u8, OsError> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the caller's promise.
    let got = unsafe { libc::mmap(at.cast(), bytes, rights, flags, -1, 0) };
    if got == libc::MAP_FAILED { Err(OsError { call: "mmap", errno: errno() }) } else { Ok(got.cast()) }
}

/// Puts reserved huge OS pages of `size` bytes behind the range.
///
/// The kernel takes them from its stock when it maps them, and says so if there are too few; but a mapping in place
/// that it refuses may leave a hole. So they are first asked for elsewhere. A hole that is there all the
/// same, because another process was faster in between, is closed at once. What is mapped is reserved: `prefault` says
/// so if a page cannot be had after all, and no access ends in SIGBUS.
///
/// # Safety
///
/// The range is part of a reservation of the caller's, in state reserved, whole huge OS pages.
pub unsafe fn commit(range: Range, size: usize) -> Result<(), OsError> {
    if !knows(MADV_POPULATE_WRITE) {
        return Err(OsError { call: "madvise", errno: OsError::ENOSYS });
    }
    let huge = libc::MAP_HUGETLB | ((size.trailing_zeros() as c_int) << SIZE_SHIFT);
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: at an address of the kernel's choice, given back at once.
    unsafe {
        map(ptr::null_mut(), range.bytes, rights, huge).and_then(|at| super::unmap(Range::new(at, range.bytes)))
    }?;
    // SAFETY: the caller's own addresses, which nobody uses yet.
    if let Err(error) = unsafe { map(range.start, range.bytes, rights, huge | libc::MAP_FIXED) } {
        // SAFETY: replaces nothing.
        let closed =
            unsafe { map(range.start, range.bytes, libc::PROT_NONE, libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE) };
        // Refused: the range is mapped still, which is as it should be.
        if closed.is_ok_and(|at| at != range.start) {
            Linux.write_stderr(b"mempool: lost addresses of its reservation to another thread\n");
            Linux.abort();
        }
        return Err(error);
    }
    Ok(())
}

/// Nodes that the process may use.
fn allowed() -> Result<[u64; WORDS], OsError> {
    let mut nodes = [0u64; WORDS];
    let nowhere: *const u8 = ptr::null();
    let policy: *mut c_int = ptr::null_mut();
    // SAFETY: the kernel fills at most as many bits as it is told.
    let got = unsafe {
        libc::syscall(libc::SYS_get_mempolicy, policy, nodes.as_mut_ptr(), NODES, nowhere, MPOL_F_MEMS_ALLOWED)
    };
    if got < 0 { Err(OsError { call: "get_mempolicy", errno: errno() }) } else { Ok(nodes) }
}

/// Sets on which nodes the pages of the range will lie.
///
/// # Safety
///
/// The range lies in a reservation of the caller's.
pub unsafe fn place(range: Range, nodes: Nodes) -> Result<(), OsError> {
    let (mode, mask) = match nodes {
        Nodes::Local => (MPOL_LOCAL, None),
        Nodes::All => (MPOL_INTERLEAVE, Some(allowed()?)),
        Nodes::These(bits) => {
            let mut mask = [0; WORDS];
            mask[0] = bits;
            (MPOL_BIND, Some(mask))
        }
    };
    let (mask, count) = mask.as_ref().map_or((ptr::null(), 0), |mask| (mask.as_ptr(), NODES));
    let no_flags: c_long = 0;
    // SAFETY: the kernel reads the mask, and notes a policy for the range.
    let done =
        unsafe { libc::syscall(libc::SYS_mbind, range.start, range.bytes, c_long::from(mode), mask, count, no_flags) };
    if done < 0 { Err(OsError { call: "mbind", errno: errno() }) } else { Ok(()) }
}
