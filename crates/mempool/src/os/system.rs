//! The C library's allocator, for pools configured `small = system`.
//!
//! Called by the names that glibc keeps for itself, so that it is glibc's even in a program whose `malloc` is ours.
#![allow(unsafe_code)]

#[cfg(all(feature = "os", target_os = "linux", target_env = "gnu"))]
mod calls {
    use core::ffi::c_void;

    unsafe extern "C" {
        pub fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
        pub fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
        pub fn __libc_realloc(old: *mut c_void, size: usize) -> *mut c_void;
        pub fn __libc_free(old: *mut c_void);
    }
}

/// The end of the heap that `brk` gives, 0 for none.
#[must_use]
pub fn heap_end() -> u64 {
    #[cfg(all(feature = "os", target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: asks, and moves nothing.
        let end = unsafe { libc::sbrk(0) } as u64;
        if end == u64::MAX { 0 } else { end }
    }
    #[cfg(not(all(feature = "os", target_os = "linux", target_env = "gnu")))]
    0
}

/// Whether there is one.
pub const PRESENT: bool = cfg!(all(feature = "os", target_os = "linux", target_env = "gnu"));

#[cfg(not(all(feature = "os", target_os = "linux", target_env = "gnu")))]
pub use absent::{alloc, free, realloc, usable_size};
#[cfg(all(feature = "os", target_os = "linux", target_env = "gnu"))]
pub use present::{alloc, free, realloc, usable_size};

#[cfg(all(feature = "os", target_os = "linux", target_env = "gnu"))]
mod present {
    use super::calls::{__libc_calloc, __libc_free, __libc_memalign, __libc_realloc};

    /// What glibc aligns to by itself.
    const NATURAL: usize = 16;

    /// `size` bytes at a multiple of `align`, or null.
    pub fn alloc(size: usize, align: usize, zeroed: bool) -> *mut u8 {
        if zeroed && align <= NATURAL {
            // SAFETY: plain calls of the C library.
            return unsafe { __libc_calloc(1, size).cast() };
        }
        // SAFETY: as above; the alignment is a power of two.
        let object: *mut u8 = unsafe { __libc_memalign(align, size).cast() };
        if zeroed && !object.is_null() {
            // SAFETY: `size` bytes were just handed out.
            unsafe { core::ptr::write_bytes(object, 0, size) };
        }
        object
    }

    /// Gives an object back.
    ///
    /// # Safety
    /// `object` is a live object of the C library, or null.
    pub unsafe fn free(object: *mut u8) {
        // SAFETY: contract.
        unsafe { __libc_free(object.cast()) }
    }

    /// Moves an object, keeping its content. A size of 0 counts as 1: glibc would free the object and say null.
    ///
    /// # Safety
    /// `old` is a live object of the C library; if null is returned it still is, otherwise it is gone.
    pub unsafe fn realloc(old: *mut u8, size: usize, align: usize) -> *mut u8 {
        if align <= NATURAL {
            // SAFETY: contract.
            return unsafe { __libc_realloc(old.cast(), size.max(1)).cast() };
        }
        let new = alloc(size, align, false);
        if !new.is_null() {
            // SAFETY: both are live and distinct; the smaller size is copied.
            unsafe {
                core::ptr::copy_nonoverlapping(old, new, usable_size(old).min(size));
                free(old);
            }
        }
        new
    }

    /// Usable bytes of an object.
    ///
    /// # Safety
    /// `object` is a live object of the C library.
    pub unsafe fn usable_size(object: *mut u8) -> usize {
        // glibc keeps a chunk's size and flags in the word before it; `malloc_usable_size` may be ours, and glibc has no
        // other name for it. SAFETY: contract; glibc's chunk layout (stable since 2.26): bit 1 says mapped.
        let size = unsafe { *object.cast::<usize>().sub(1) };
        let mapped = size & 2 != 0;
        (size & !7) - if mapped { 16 } else { 8 }
    }
}

#[cfg(not(all(feature = "os", target_os = "linux", target_env = "gnu")))]
mod absent {
    /// There is none: null. A pool refuses `small = system` here.
    pub fn alloc(_: usize, _: usize, _: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    /// Nothing to do.
    ///
    /// # Safety
    /// None asked.
    pub unsafe fn free(_: *mut u8) {}

    /// Null.
    ///
    /// # Safety
    /// None asked.
    pub unsafe fn realloc(_: *mut u8, _: usize, _: usize) -> *mut u8 {
        core::ptr::null_mut()
    }

    /// 0.
    ///
    /// # Safety
    /// None asked.
    pub unsafe fn usable_size(_: *mut u8) -> usize {
        0
    }
}
