//! `mp_malloc` and its kin.
//!
//! Two families: without `try`, refusal means what the configuration says, as the reference has it (the end of the
//! process by default); with `try`, refusal is null. Both set errno and the last error when they return null.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_void};
use core::ptr::{copy_nonoverlapping, null_mut};

use mempool::process::{self, Refusal};
use mempool::{AllocError, Config};

use crate::error::{fail_init, keep_errno, remember, set_errno};

/// What the pool aligns every object to.
const ALIGN: usize = 16;

/// `object`, with errno and the last error set if it is null.
#[inline(always)]
fn told(object: *mut u8, size: usize, align: usize) -> *mut c_void {
    if object.is_null() {
        refused(size, align);
    }
    object.cast()
}

#[cold]
#[inline(never)]
pub(crate) fn refused(size: usize, align: usize) {
    if !process::is_ready()
        && let Err(error) = process::ensure(Config::process())
    {
        // Of `try` functions alone: the others have ended the process.
        fail_init(&error);
    } else if size == usize::MAX {
        remember("the request is larger than the address space");
    } else {
        remember(AllocError::Exhausted { bytes: size, align });
    }
    set_errno(libc::ENOMEM);
}

/// Any allocation that is not served by the hot path.
fn request(size: usize, align: usize, zeroed: bool, refusal: Refusal, call: &'static str) -> *mut c_void {
    told(process::request(size, align, zeroed, refusal, call), size, align)
}

/// `count * size`; a product that overflows becomes a request that every pool refuses.
const fn product(count: usize, size: usize) -> usize {
    count.saturating_mul(size)
}

#[inline(always)]
fn alloc(size: usize, refusal: Refusal, call: &'static str) -> *mut c_void {
    let popped = process::pop(size);
    if popped.is_null() { request(size, ALIGN, false, refusal, call) } else { popped.cast() }
}

/// # Safety
/// `old` is null or live.
#[inline(always)]
unsafe fn resize(old: *mut c_void, size: usize, refusal: Refusal, call: &'static str) -> *mut c_void {
    if old.is_null() {
        return alloc(size, refusal, call);
    }
    // SAFETY: contract.
    told(unsafe { process::resize(old.cast(), size, refusal, call) }, size, ALIGN)
}

fn aligned(align: usize, size: usize, refusal: Refusal, call: &'static str) -> *mut c_void {
    if !align.is_power_of_two() {
        remember(format_args!("{call}: an alignment of {align} bytes: it must be a power of two"));
        set_errno(libc::EINVAL);
        return null_mut();
    }
    request(size, align, false, refusal, call)
}

/// A copy of the first `len` bytes of `text` and a zero.
///
/// # Safety
/// They can be read.
unsafe fn duplicate(text: *const c_char, len: usize, call: &'static str) -> *mut c_char {
    let copy = alloc(len + 1, Refusal::Policy, call).cast::<c_char>();
    if !copy.is_null() {
        // SAFETY: the new object has room for one more byte than there is text, and is distinct from it.
        unsafe {
            copy_nonoverlapping(text, copy, len);
            copy.add(len).write(0);
        }
    }
    copy
}

fn no_text(call: &str) -> *mut c_char {
    remember(format_args!("{call}: the string is NULL"));
    set_errno(libc::EINVAL);
    null_mut()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_malloc(size: usize) -> *mut c_void {
    alloc(size, Refusal::Policy, "mp_malloc")
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_try_malloc(size: usize) -> *mut c_void {
    alloc(size, Refusal::Null, "mp_try_malloc")
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_calloc(count: usize, size: usize) -> *mut c_void {
    request(product(count, size), ALIGN, true, Refusal::Policy, "mp_calloc")
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_try_calloc(count: usize, size: usize) -> *mut c_void {
    request(product(count, size), ALIGN, true, Refusal::Null, "mp_try_calloc")
}

/// See the header.
///
/// # Safety
/// `old` is null or a live object of the pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_realloc(old: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: contract.
    unsafe { resize(old, size, Refusal::Policy, "mp_realloc") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_try_realloc(old: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: contract.
    unsafe { resize(old, size, Refusal::Null, "mp_try_realloc") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_reallocarray(old: *mut c_void, count: usize, size: usize) -> *mut c_void {
    // SAFETY: contract.
    unsafe { resize(old, product(count, size), Refusal::Policy, "mp_reallocarray") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_try_reallocarray(old: *mut c_void, count: usize, size: usize) -> *mut c_void {
    // SAFETY: contract.
    unsafe { resize(old, product(count, size), Refusal::Null, "mp_try_reallocarray") }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_aligned_alloc(align: usize, size: usize) -> *mut c_void {
    aligned(align, size, Refusal::Policy, "mp_aligned_alloc")
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_try_aligned_alloc(align: usize, size: usize) -> *mut c_void {
    aligned(align, size, Refusal::Null, "mp_try_aligned_alloc")
}

/// See the header.
///
/// # Safety
/// `object` is null or a live object of the pool, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_free(object: *mut c_void) {
    // SAFETY: contract.
    if !unsafe { process::push(object.cast()) } && !object.is_null() {
        // SAFETY: contract.
        keep_errno(|| unsafe { process::free_cold(object.cast(), "mp_free") });
    }
}

/// See the header.
///
/// # Safety
/// `object` is null or a live object of the pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_usable_size(object: *const c_void) -> usize {
    if object.is_null() {
        return 0;
    }
    // SAFETY: contract.
    unsafe { process::usable_size(object.cast_mut().cast(), "mp_usable_size") }
}

/// See the header.
///
/// # Safety
/// `text` is null or ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_strdup(text: *const c_char) -> *mut c_char {
    if text.is_null() {
        return no_text("mp_strdup");
    }
    // SAFETY: contract; the string's length is what can be read.
    unsafe { duplicate(text, libc::strlen(text), "mp_strdup") }
}

/// See the header.
///
/// # Safety
/// `text` is null, ends in a zero, or has at least `most` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_strndup(text: *const c_char, most: usize) -> *mut c_char {
    if text.is_null() {
        return no_text("mp_strndup");
    }
    // SAFETY: contract.
    unsafe { duplicate(text, libc::strnlen(text, most), "mp_strndup") }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_thread_idle() {
    process::relinquish();
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_critical_enter() {
    process::critical(true);
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_critical_leave() {
    process::critical(false);
}
