//! The malloc family as the C library declares it, so that whoever the dynamic linker finds first serves it; and an
//! account of the bytes that a workload has alive, kept only where somebody asked for it.
//!
//! A request that is refused ends the process with [`REFUSED`] and a line on standard error: no workload goes on with
//! less than all its objects.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

/// The exit code of a worker whose allocator refused a request.
pub const REFUSED: i32 = 3;

/// Whether the bytes alive are counted. Set before the workload begins, while there is one thread.
static COUNTING: AtomicBool = AtomicBool::new(false);
/// Bytes asked for and not freed since counting began; what is older and freed makes it less.
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// The most that `LIVE` ever was.
static PEAK: AtomicIsize = AtomicIsize::new(0);

/// Counts the bytes alive from now on. Costs a shared counter on each operation: not for timed runs.
pub fn count_live() {
    COUNTING.store(true, Relaxed);
}

/// The most bytes that were alive at once, by what was asked for; 0 unless counted.
pub fn peak_live() -> usize {
    PEAK.load(Relaxed).max(0) as usize
}

/// Notes an object of `size` bytes, whoever made it: the command's own allocator does so too.
#[inline]
pub fn born(size: usize) {
    if COUNTING.load(Relaxed) {
        let size = size as isize;
        PEAK.fetch_max(LIVE.fetch_add(size, Relaxed) + size, Relaxed);
    }
}

/// Notes the end of an object of `size` bytes.
#[inline]
pub fn died(size: usize) {
    if COUNTING.load(Relaxed) {
        LIVE.fetch_sub(size as isize, Relaxed);
    }
}

#[inline]
fn checked(object: *mut libc::c_void, size: usize) -> NonNull<u8> {
    match NonNull::new(object.cast()) {
        Some(object) => {
            born(size);
            object
        }
        None => refuse(size),
    }
}

/// Ends the process: the allocator refused `size` bytes.
#[cold]
pub fn refuse(size: usize) -> ! {
    eprintln!("the allocator refused {size} bytes");
    std::process::exit(REFUSED)
}

/// `malloc(size)`.
#[inline]
#[must_use]
pub fn malloc(size: usize) -> NonNull<u8> {
    // SAFETY: any size may be asked for.
    checked(unsafe { libc::malloc(size) }, size)
}

/// `malloc(size)`, None where it is refused.
#[inline]
#[must_use]
pub fn try_malloc(size: usize) -> Option<NonNull<u8>> {
    // SAFETY: any size may be asked for.
    let object = NonNull::new(unsafe { libc::malloc(size) }.cast());
    if object.is_some() {
        born(size);
    }
    object
}

/// `calloc(1, size)`.
#[inline]
#[must_use]
pub fn calloc(size: usize) -> NonNull<u8> {
    // SAFETY: any size may be asked for.
    checked(unsafe { libc::calloc(1, size) }, size)
}

/// `aligned_alloc(align, size)`.
#[inline]
#[must_use]
pub fn aligned(align: usize, size: usize) -> NonNull<u8> {
    // SAFETY: any size and alignment may be asked for; what is not to be had is refused.
    checked(unsafe { libc::aligned_alloc(align, size) }, size)
}

/// `realloc(object, new)`.
///
/// # Safety
/// `object` has `old` bytes, came from this module, and is not used afterwards.
#[inline]
#[must_use]
pub unsafe fn realloc(object: NonNull<u8>, old: usize, new: usize) -> NonNull<u8> {
    died(old);
    // SAFETY: the caller's contract.
    checked(unsafe { libc::realloc(object.as_ptr().cast(), new) }, new)
}

/// `free(object)`.
///
/// # Safety
/// `object` has `size` bytes, came from this module, and is not used afterwards.
#[inline]
pub unsafe fn free(object: NonNull<u8>, size: usize) {
    died(size);
    // SAFETY: the caller's contract.
    unsafe { libc::free(object.as_ptr().cast()) };
}
