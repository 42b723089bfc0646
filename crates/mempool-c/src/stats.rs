//! `mempool_stats_t`: the figures of the pool for programs.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};

use mempool::{InitError, process};

use crate::error::{ARGUMENT, OK, STRUCT_SIZE, fail, fail_init};

/// `mempool_stats_t`. Later versions add fields at its end; a program that knows fewer gets those.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MempoolStats {
    /// Bytes of the segment at its largest.
    pub segment: usize,
    /// Bytes of metadata and guards.
    pub metadata: usize,
    /// Bytes open to requests.
    pub open: usize,
    /// Bytes in free fragments.
    pub free: usize,
    /// Of these, bytes of freed large objects kept for the next one.
    pub parked: usize,
    /// Bytes of the largest free run.
    pub largest_free: usize,
    /// Bytes of the reserve.
    pub reserve: usize,
    /// Bytes of it that are free.
    pub reserve_free: usize,
    /// Objects in use.
    pub live_objects: usize,
    /// Their bytes.
    pub live_bytes: usize,
    /// Threads with a local heap.
    pub threads: usize,
    /// Requests that found the pool exhausted at first.
    pub exhausted: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Most threads with a local heap at once.
    pub threads_most: usize,
}

/// See the header.
///
/// # Safety
/// `out` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_stats_impl(out: *mut c_void, size: usize) -> c_int {
    if out.is_null() {
        return fail(ARGUMENT, "the struct for the figures is NULL");
    }
    let known = size_of::<MempoolStats>();
    if size == 0 || size > known {
        return fail(STRUCT_SIZE, format_args!("a mempool_stats_t of {size} bytes; this library's has {known}"));
    }
    let Some(s) = process::stats() else { return fail_init(&InitError::NotInitialised) };
    let figures = MempoolStats {
        segment: s.segment,
        metadata: s.metadata,
        open: s.open,
        free: s.free,
        parked: s.parked,
        largest_free: s.largest_free,
        reserve: s.reserve,
        reserve_free: s.reserve_free,
        live_objects: s.live(),
        live_bytes: s.live_bytes(),
        threads: s.threads,
        exhausted: s.exhausted,
        refused: s.refused,
        threads_most: s.threads_most,
    };
    // SAFETY: contract; the program's struct is the beginning of ours.
    unsafe { core::ptr::copy_nonoverlapping((&raw const figures).cast::<u8>(), out.cast(), size) };
    OK
}
