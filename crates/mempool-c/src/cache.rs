//! `mp_cache_t`: a handle in the caller's memory.
//!
//! The struct may lie anywhere and need not be cleared before it is initialised. What makes it usable is its
//! mark: the pool's serial number, mixed with a constant. So one comparison on the hot path tells a
//! cache that was never initialised, was destroyed, or belongs to a pool that ended, and the cold path says which.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::fmt;

use mempool::process::{self, CacheHandle, Refusal};
use mempool::{Config, Text};

use crate::alloc::refused;
use crate::error::{ARGUMENT, CACHE_NAME, CACHE_TWICE, OK, fail, fail_cache, fail_init, keep_errno, misuse};

/// Bytes of a name, its final zero included.
pub const NAME: usize = 32;
/// Mixed with the serial number of the pool; no number that memory holds by chance.
const MARK: u64 = 0x9E6D_656D_706F_6F6C;
/// The mark of a cache that was destroyed.
const DESTROYED: u64 = 0x9E6D_6465_6164_6D70;

/// `mp_cache_t`.
#[repr(C)]
pub struct MpCache {
    /// Bytes of an item.
    pub c_item_size: usize,
    /// Items of a slab.
    pub c_items_per_page: c_uint,
    /// Multiple that items begin at, in bytes.
    pub c_item_align: c_uint,
    /// The name, with a final zero.
    pub c_name: [c_char; NAME],
    /// Which cache of the process pool; means nothing unless the mark is right.
    handle: CacheHandle,
    /// `MARK ^ serial` while the cache can be used.
    mark: u64,
}

/// What C knows of the handle and the mark: their offsets.
#[must_use]
pub const fn private_offsets() -> [usize; 2] {
    [core::mem::offset_of!(MpCache, handle), core::mem::offset_of!(MpCache, mark)]
}

/// The handle of `cache`, which `call` wants to use. Ends the process when it cannot be used.
#[inline(always)]
unsafe fn handle(cache: *const MpCache, call: &'static str) -> CacheHandle {
    // SAFETY: null, or a struct of the caller's.
    match unsafe { cache.as_ref() } {
        Some(cache) if cache.mark == MARK ^ process::serial() => cache.handle,
        other => unusable(other, call),
    }
}

#[cold]
#[inline(never)]
fn unusable(cache: Option<&MpCache>, call: &'static str) -> ! {
    let Some(cache) = cache else { misuse(call, "the cache is NULL") };
    match cache.mark {
        DESTROYED => misuse(call, format_args!("cache \"{}\" has been destroyed", Name(&cache.c_name))),
        // Serial numbers count pools.
        mark if (mark ^ MARK) >> 32 == 0 && mark != MARK => {
            misuse(call, format_args!("cache \"{}\" belongs to a pool that has ended", Name(&cache.c_name)))
        }
        _ => misuse(call, "the cache is not initialised (mp_cache_init)"),
    }
}

/// A name in a cache's struct, as a line and a terminal take it.
struct Name<'a>(&'a [c_char; NAME]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: chars are bytes.
        let bytes = unsafe { &*core::ptr::from_ref(self.0).cast::<[u8; NAME]>() };
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME);
        bytes.get(..end).unwrap_or(&[]).escape_ascii().fmt(f)
    }
}

/// The alignment that items of `size` bytes have where nothing says more: the largest power of two that divides the
/// size, at most 16, so that items of an array lie without gaps.
const fn natural_align(size: usize) -> usize {
    if size == 0 || size.trailing_zeros() > 4 { 16 } else { 1 << size.trailing_zeros() }
}

/// Initialises a cache.
///
/// # Safety
/// `cache` is null or can be written to; `name` is null or ends in a zero.
unsafe fn make(cache: *mut MpCache, name: *const c_char, size: usize, align: usize, budget: Option<usize>) -> c_int {
    if cache.is_null() || name.is_null() {
        let which = if cache.is_null() { "the cache" } else { "the name" };
        return fail(ARGUMENT, format_args!("cannot make a cache: {which} is NULL"));
    }
    // SAFETY: contract.
    let bytes = unsafe { CStr::from_ptr(name) };
    let Ok(name) = bytes.to_str() else {
        return fail(CACHE_NAME, format_args!("the cache's name is not UTF-8: {bytes:?}"));
    };
    if let Err(error) = process::ensure(Config::process()) {
        return fail_init(&error);
    }
    // SAFETY: contract; a struct that nobody has written to yet holds some bytes or other.
    let known = unsafe { core::ptr::read_volatile(&raw const (*cache).mark) } == MARK ^ process::serial();
    if known {
        // SAFETY: the mark says that the struct is a cache of this pool.
        let old = unsafe { &*cache };
        if let Some(info) = process::cache_info(old.handle).filter(|info| info.item_size == old.c_item_size) {
            return fail(
                CACHE_TWICE,
                format_args!("the cache is initialised already, as \"{}\"", info.name.as_bytes().escape_ascii()),
            );
        }
    }
    let made = match budget {
        Some(budget) => process::cache_create_for(name, size, align, budget),
        None => process::cache_create(name, size, align),
    };
    match made {
        Ok(handle) => {
            let items = process::cache_info(handle).map_or(0, |info| info.items_per_slab);
            let mut made = MpCache {
                c_item_size: size,
                c_items_per_page: c_uint::try_from(items).unwrap_or(c_uint::MAX),
                c_item_align: c_uint::try_from(align).unwrap_or(c_uint::MAX),
                c_name: [0; NAME],
                handle,
                mark: MARK ^ process::serial(),
            };
            for (to, from) in made.c_name.iter_mut().zip(name.bytes().take(NAME - 1)) {
                *to = from as c_char;
            }
            // SAFETY: contract.
            unsafe { cache.write(made) };
            OK
        }
        Err(error) => fail_cache(&error),
    }
}

/// As [`make`]; failure ends the process.
///
/// # Safety
/// As for [`make`].
unsafe fn make_or_end(cache: *mut MpCache, name: *const c_char, size: usize, align: usize, call: &'static str) {
    // SAFETY: contract.
    if unsafe { make(cache, name, size, align, None) } == OK {
        return;
    }
    // SAFETY: strings that end in a zero; the name is null or one by contract.
    let (why, name) = unsafe {
        let name = if name.is_null() { c"" } else { CStr::from_ptr(name) };
        (CStr::from_ptr(crate::mempool_last_error()), name)
    };
    let name = Text::<48>::of(name.to_bytes().escape_ascii());
    misuse(call, format_args!("\"{}\": {}", name.as_str(), why.to_str().unwrap_or("?")))
}

/// See the header.
///
/// # Safety
/// `cache` is null or can be written to; `name` is null or ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_init_impl(cache: *mut MpCache, name: *const c_char, item_size: usize) {
    // SAFETY: contract.
    unsafe { make_or_end(cache, name, item_size, natural_align(item_size), "mp_cache_init") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_cache_init_impl`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_init_aligned(
    cache: *mut MpCache,
    name: *const c_char,
    item_size: usize,
    align: usize,
) {
    // SAFETY: contract.
    unsafe { make_or_end(cache, name, item_size, align, "mp_cache_init") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_cache_init_impl`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_try_init(
    cache: *mut MpCache,
    name: *const c_char,
    item_size: usize,
    align: usize,
) -> c_int {
    let align = if align == 0 { natural_align(item_size) } else { align };
    // SAFETY: contract.
    unsafe { make(cache, name, item_size, align, None) }
}

/// See the header.
///
/// # Safety
/// As for [`mp_cache_init_impl`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_try_init_in(
    budget: c_uint,
    cache: *mut MpCache,
    name: *const c_char,
    item_size: usize,
    align: usize,
) -> c_int {
    let align = if align == 0 { natural_align(item_size) } else { align };
    match crate::budget::number(budget) {
        // SAFETY: contract.
        Ok(number) => unsafe { make(cache, name, item_size, align, Some(number)) },
        Err(code) => code,
    }
}

/// See the header.
///
/// # Safety
/// `cache` is a cache, and nobody uses it or an item of it during the call or afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_destroy(cache: *mut MpCache) {
    // SAFETY: contract.
    let handle = unsafe { handle(cache, "mp_cache_destroy") };
    // SAFETY: contract.
    let live = unsafe { process::cache_destroy(handle) };
    // SAFETY: `handle` has checked that the struct is there, and it is the caller's.
    let cache = unsafe { &mut *cache };
    cache.mark = DESTROYED;
    if live > 0 {
        let (name, size) = (Name(&cache.c_name), cache.c_item_size);
        let mut text = Text::<200>::of(format_args!(
            "mempool: mp_cache_destroy: cache \"{name}\" had {live} live items of {size} bytes"
        ));
        // There is nobody to tell if this fails.
        keep_errno(|| _ = crate::error::write_all(libc::STDERR_FILENO, text.line()));
    }
}

/// # Safety
/// `cache` is null or a cache's struct.
#[inline(always)]
unsafe fn alloc(cache: *mut MpCache, refusal: Refusal, call: &'static str) -> *mut c_void {
    // SAFETY: contract.
    let handle = unsafe { handle(cache, call) };
    let popped = process::cache_pop(handle);
    if popped.is_null() {
        // SAFETY: `handle` has checked that the struct is there.
        unsafe { alloc_behind(cache, handle, refusal, call) }
    } else {
        popped.cast()
    }
}

/// # Safety
/// `handle` is that of `cache`, which is there.
#[cold]
#[inline(never)]
unsafe fn alloc_behind(cache: *mut MpCache, handle: CacheHandle, refusal: Refusal, call: &'static str) -> *mut c_void {
    let popped = process::cache_pop_behind(handle);
    if popped.is_null() {
        // SAFETY: contract.
        unsafe { alloc_array(cache, 1, refusal, call) }
    } else {
        popped.cast()
    }
}

/// # Safety
/// As for [`alloc`].
unsafe fn alloc_array(cache: *mut MpCache, n: c_uint, refusal: Refusal, call: &'static str) -> *mut c_void {
    // SAFETY: contract.
    let handle = unsafe { handle(cache, call) };
    let popped = process::cache_pop_array(handle, n as usize);
    let array = if popped.is_null() { process::cache_request(handle, n as usize, refusal, call) } else { popped };
    if array.is_null() {
        // SAFETY: `handle` has checked that the struct is there.
        refused_items(unsafe { &*cache }, n);
    }
    array.cast()
}

#[cold]
fn refused_items(cache: &MpCache, n: c_uint) {
    let align = cache.c_item_align.max(1) as usize;
    refused(cache.c_item_size.next_multiple_of(align).saturating_mul(n.max(1) as usize), align);
}

/// See the header.
///
/// # Safety
/// `cache` is null or a cache's struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_alloc(cache: *mut MpCache) -> *mut c_void {
    // SAFETY: contract.
    unsafe { alloc(cache, Refusal::Policy, "mp_cache_alloc") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_cache_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_try_alloc(cache: *mut MpCache) -> *mut c_void {
    // SAFETY: contract.
    unsafe { alloc(cache, Refusal::Null, "mp_cache_try_alloc") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_cache_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_alloc_array(cache: *mut MpCache, num: c_uint) -> *mut c_void {
    // SAFETY: contract.
    unsafe { alloc_array(cache, num, Refusal::Policy, "mp_cache_alloc_array") }
}

/// See the header.
///
/// # Safety
/// As for [`mp_cache_alloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_try_alloc_array(cache: *mut MpCache, num: c_uint) -> *mut c_void {
    // SAFETY: contract.
    unsafe { alloc_array(cache, num, Refusal::Null, "mp_cache_try_alloc_array") }
}

/// See the header.
///
/// # Safety
/// `cache` is null or a cache's struct; `item` is null or a live item of it, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_free(cache: *mut MpCache, item: *mut c_void) {
    // SAFETY: contract.
    let handle = unsafe { handle(cache, "mp_cache_free") };
    // SAFETY: contract.
    if !unsafe { process::cache_push(handle, item.cast()) || process::cache_push_behind(handle, item.cast()) } {
        // SAFETY: contract.
        keep_errno(|| unsafe { process::cache_free_cold(handle, item.cast(), 1, "mp_cache_free") });
    }
}

/// See the header.
///
/// # Safety
/// `cache` is null or a cache's struct; `array` is null or a live array of it, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_free_array(cache: *mut MpCache, array: *mut c_void, num: c_uint) {
    // SAFETY: contract.
    let handle = unsafe { handle(cache, "mp_cache_free_array") };
    // SAFETY: contract.
    if !unsafe { process::cache_push_array(handle, array.cast(), num as usize) } {
        // SAFETY: contract.
        keep_errno(|| unsafe {
            process::cache_free_cold(handle, array.cast(), num as usize, "mp_cache_free_array");
        });
    }
}

/// See the header.
///
/// # Safety
/// `cache` is null or a cache's struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mp_cache_live(cache: *const MpCache) -> usize {
    // SAFETY: contract.
    let handle = unsafe { handle(cache, "mp_cache_live") };
    process::cache_stats(handle).map_or(0, |stats| stats.held.live)
}

#[cfg(test)]
mod tests {
    use super::natural_align;

    #[test]
    fn items_without_an_alignment_leave_no_gaps_in_arrays() {
        for (size, align) in [(0, 16), (1, 1), (2, 2), (3, 1), (12, 4), (16, 16), (24, 8), (48, 16), (1 << 20, 16)] {
            assert_eq!(natural_align(size), align, "{size}");
            assert!(size % align == 0);
        }
    }
}
