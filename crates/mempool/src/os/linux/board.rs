//! What a watched process shows of itself: shared memory to count in, and its name.

use core::ffi::{CStr, c_char};
use core::ptr;

use super::keeping_errno;
use crate::sync::AtomicU64;

/// `words` words of the shared memory behind `descriptor`, mapped for good; None if that is none.
pub fn shared_words(descriptor: u32, words: usize) -> Option<*const AtomicU64> {
    let (bytes, access) = (words * size_of::<AtomicU64>(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: all zeros is a valid `stat`, which is live while it is filled; then a new mapping. The descriptor may be anything: both
    // calls fail then.
    let start = keeping_errno(|| unsafe {
        // A shorter file would be mapped, too, and end the process at the first touch.
        let mut stat: libc::stat = core::mem::zeroed();
        if libc::fstat(descriptor.cast_signed(), &raw mut stat) != 0 || stat.st_size.cast_unsigned() < bytes as u64 {
            return libc::MAP_FAILED;
        }
        libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, descriptor.cast_signed(), 0)
    });
    (start != libc::MAP_FAILED).then(|| start.cast::<AtomicU64>().cast_const())
}

/// A number for the program that the process runs, another one after each `exec`.
#[must_use]
pub fn image() -> u64 {
    // SAFETY: no precondition; the kernel puts 16 random bytes for each program there, which stay.
    unsafe {
        let bytes = libc::getauxval(libc::AT_RANDOM) as *const [u8; 8];
        if bytes.is_null() { 0 } else { u64::from_ne_bytes(*bytes) }
    }
}

/// The program's name without its folder; empty before the C library's first constructor has run. Programs change it, if at all,
/// by pointing to another text that lives as long as they do.
#[must_use]
pub fn program_name() -> &'static [u8] {
    unsafe extern "C" {
        static program_invocation_short_name: *const c_char;
    }
    // SAFETY: null, or a text that lives as long as the process.
    unsafe {
        if program_invocation_short_name.is_null() {
            return b"";
        }
        CStr::from_ptr(program_invocation_short_name).to_bytes()
    }
}
