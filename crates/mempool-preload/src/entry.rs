//! The C functions. Each hot path is here whole: a bit of the thread's word for `malloc`, a bit of the descriptor for
//! `free`. Everything else is one call into `cold`, which looks after errno.
//!
//! No function calls another exported one: a name may belong to somebody else's library, and a compiler that sees
//! `malloc` and `memset` makes a `calloc` of them.
//!
//! # Safety
//! All functions: as the C standard, POSIX and the manual pages say. Pointers to free are live objects of this
//! library; what is wrong nevertheless is caught where it can be.
#![allow(clippy::missing_safety_doc, reason = "one section above says it for all")]

use core::ffi::{c_int, c_void};

use mempool::process;

use crate::cold;

/// As in C.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    if size > cold::SMALL {
        return cold::get(size, 1, false, &"malloc");
    }
    let object = process::pop(size);
    if object.is_null() { cold::get_more(size) } else { object.cast() }
}

/// As in C. Keeps errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(object: *mut c_void) {
    // SAFETY: contract of `free`.
    unsafe {
        if !process::push(object.cast()) {
            cold::put(object, "free");
        }
    }
}

/// As `free`, for old programs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cfree(object: *mut c_void) {
    // SAFETY: contract of `cfree`.
    unsafe {
        if !process::push(object.cast()) {
            cold::put(object, "cfree");
        }
    }
}

/// As in C.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return cold::refuse(libc::ENOMEM) };
    let object = process::pop(bytes);
    if object.is_null() {
        return cold::get(bytes, 1, true, &"calloc");
    }
    // SAFETY: so many bytes were just handed out.
    unsafe { object.write_bytes(0, bytes) };
    object.cast()
}

/// As in C; size 0 frees and gives null, like glibc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(old: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: contract of `realloc`.
    unsafe { cold::resize(old, size, "realloc") }
}

/// As in POSIX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(old: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: contract of `reallocarray`.
        Some(bytes) => unsafe { cold::resize(old, bytes, "reallocarray") },
        None => cold::refuse(libc::ENOMEM),
    }
}

/// As in POSIX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || !align.is_multiple_of(size_of::<*mut c_void>()) {
        return libc::EINVAL;
    }
    let popped = process::pop_at(size, align);
    if !popped.is_null() {
        // SAFETY: the caller's result (contract).
        unsafe { out.write(popped.cast()) };
        return 0;
    }
    let object = cold::keeping_errno(|| cold::get(size, align, false, &"posix_memalign"));
    if object.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's result (contract).
    unsafe { out.write(object) };
    0
}

/// As in C23: the alignment is a power of two; the size need not be a multiple of it.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return cold::refuse(libc::EINVAL);
    }
    let object = process::pop_at(size, align);
    if object.is_null() { cold::get(size, align, false, &"aligned_alloc") } else { object.cast() }
}

/// As in glibc: the alignment is rounded up to a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => {
            let object = process::pop_at(size, align);
            if object.is_null() { cold::get(size, align, false, &"memalign") } else { object.cast() }
        }
        None => cold::refuse(libc::EINVAL),
    }
}

/// At a multiple of the OS page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    cold::get(size, cold::os_page(), false, &"valloc")
}

/// Whole OS pages, at least one.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    let page = cold::os_page();
    match size.max(1).checked_next_multiple_of(page) {
        Some(bytes) => cold::get(bytes, page, false, &"pvalloc"),
        None => cold::refuse(libc::ENOMEM),
    }
}

/// Bytes that may be used, at least those asked for; 0 for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(object: *mut c_void) -> usize {
    match process::room_of(object.cast()) {
        Some(room) => room,
        None if object.is_null() => 0,
        // SAFETY: contract of the C function: a live object.
        None => unsafe { cold::usable_size(object) },
    }
}

/// As in C23. The size may be smaller than the object if `realloc` made it so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(object: *mut c_void, size: usize) {
    // SAFETY: contract of `free_sized`.
    unsafe {
        if !process::push_sized(object.cast(), size) {
            cold::put_sized(object, size, 1, process::Claim::AtMost, "free_sized");
        }
    }
}

/// As in C23. An alignment that is no power of two cannot have been asked for, and ends the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(object: *mut c_void, align: usize, size: usize) {
    // SAFETY: contract of `free_aligned_sized`.
    unsafe { cold::put_sized(object, size, align, process::Claim::AtMost, "free_aligned_sized") }
}

/// Whether an address lies in the pool: 1 or 0. For programs that check that the library serves them.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_preload_contains(address: *const c_void) -> c_int {
    c_int::from(process::contains(address.cast()))
}
