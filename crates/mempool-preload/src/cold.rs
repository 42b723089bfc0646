//! What lies behind the hot paths: the pool made if need be, errno, sizes that nobody can serve.

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;

use mempool::process::{self, Claim, Refusal, c_library};

use crate::{critical, cxx, panic, start};

/// The largest request: no pool can be set to serve more.
const MOST: usize = mempool::config::SEGMENT_MOST;

/// Requests up to here are worth a try of the hot paths: those that a size class may serve.
pub const SMALL: usize = 16384;

fn errno() -> *mut c_int {
    // SAFETY: no precondition; the place is this thread's.
    unsafe { libc::__errno_location() }
}

/// Runs `f` and leaves errno as it was.
pub fn keeping_errno<R>(f: impl FnOnce() -> R) -> R {
    let place = errno();
    // SAFETY: this thread's errno.
    let before = unsafe { *place };
    let result = f();
    // SAFETY: as above.
    unsafe { *place = before };
    result
}

/// Null, with `error` in errno.
#[cold]
#[inline(never)]
pub fn refuse(error: c_int) -> *mut c_void {
    // SAFETY: this thread's errno.
    unsafe { *errno() = error };
    core::ptr::null_mut()
}

/// Bytes in an OS page.
pub fn os_page() -> usize {
    // SAFETY: reads the auxiliary vector.
    keeping_errno(|| unsafe { libc::getauxval(libc::AT_PAGESZ) }) as usize
}

/// `size` bytes at a multiple of `align`, a power of two; null and ENOMEM when refused. Behind a hot path this is a jump, so
/// that the address above it on the stack is where `malloc` was called from; elsewhere it lies in this library.
#[cfg(target_arch = "x86_64")]
#[cold]
#[unsafe(naked)]
pub extern "C" fn get(size: usize, align: usize, zeroed: bool, call: &'static &'static str) -> *mut c_void {
    core::arch::naked_asm!("mov r8, qword ptr [rsp]", "jmp {}", sym get_for)
}

/// As above, where nobody knows who calls.
#[cfg(not(target_arch = "x86_64"))]
pub fn get(size: usize, align: usize, zeroed: bool, call: &'static &'static str) -> *mut c_void {
    get_for(size, align, zeroed, call, 0)
}

/// [`get`] for `malloc`: what commonly comes behind its hot path, with little around it.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub extern "C" fn get_more(size: usize) -> *mut c_void {
    core::arch::naked_asm!("mov rsi, qword ptr [rsp]", "jmp {}", sym get_more_for)
}

/// As above, where nobody knows who calls.
#[cfg(not(target_arch = "x86_64"))]
pub fn get_more(size: usize) -> *mut c_void {
    get_more_for(size, 0)
}

/// As [`get_more`], for whoever runs at `caller`.
#[cold]
#[inline(never)]
extern "C" fn get_more_for(size: usize, caller: usize) -> *mut c_void {
    let object = process::pop_next(size);
    if object.is_null() { get_last(size, caller) } else { object.cast() }
}

/// What is less common.
#[cold]
#[inline(never)]
fn get_last(size: usize, caller: usize) -> *mut c_void {
    let object = process::pop_last(size);
    if object.is_null() { get_slowly(size, 1, false, "malloc", caller) } else { object.cast() }
}

/// As [`get`], for whoever runs at `caller`. Who has no way to go on without memory may use the reserve: the dynamic loader, which makes it for
/// threads and their variables, and a C++ library that throws.
#[cold]
#[inline(never)]
extern "C" fn get_for(
    size: usize,
    align: usize,
    zeroed: bool,
    call: &'static &'static str,
    caller: usize,
) -> *mut c_void {
    let object = if align == 1 { process::pop_behind(size) } else { process::pop_at_behind(size, align) };
    if !object.is_null() {
        if zeroed {
            // SAFETY: so many bytes were just handed out.
            unsafe { process::make_zero(object, size) };
        }
        return object.cast();
    }
    get_slowly(size, align, zeroed, call, caller)
}

/// What the thread's own local heap has not: from the pool, made if need be.
#[inline(never)]
fn get_slowly(size: usize, align: usize, zeroed: bool, call: &'static str, caller: usize) -> *mut c_void {
    if critical::is_entitled(caller) {
        return critical::scope(|| get_now(size, align, zeroed, call));
    }
    get_now(size, align, zeroed, call)
}

/// The bytes, wherever they are.
#[inline(always)]
fn get_now(size: usize, align: usize, zeroed: bool, call: &'static str) -> *mut c_void {
    if size > MOST || align > MOST {
        return refuse(libc::ENOMEM);
    }
    if !start::ready() {
        let object = c_library::alloc(size, align, zeroed);
        return if object.is_null() { refuse(libc::ENOMEM) } else { object.cast() };
    }
    let object = or_from_reserve(|refusal| process::request(size, align, zeroed, refusal, call));
    if object.is_null() { refuse(libc::ENOMEM) } else { object.cast() }
}

/// A request, as the policy says; for a thread that panics from the reserve, if there is no other memory.
#[inline(always)]
fn or_from_reserve(request: impl Fn(Refusal) -> *mut u8) -> *mut u8 {
    if panic::is_known() {
        let object = request(Refusal::Null);
        if !object.is_null() {
            return object;
        }
        if panic::is_on_the_stack() {
            return critical::scope(|| request(Refusal::Policy));
        }
    }
    request(Refusal::Policy)
}

/// Frees what the hot path did not. Null does nothing. Keeps errno.
///
/// # Safety
/// `object` is a live object.
#[cold]
#[inline(never)]
pub unsafe fn put(object: *mut c_void, call: &'static str) {
    if process::is_narrow() {
        // SAFETY: contract.
        return unsafe { put_narrow(object, call) };
    }
    // SAFETY: contract.
    unsafe { put_behind(object, call) }
}

/// As [`put`], in a small pool.
///
/// # Safety
/// As for [`put`].
#[inline(never)]
unsafe fn put_narrow(object: *mut c_void, call: &'static str) {
    // SAFETY: contract.
    unsafe {
        if !process::push_narrow(object.cast()) {
            put_behind(object, call);
        }
    }
}

/// What comes behind the paths for objects in the thread's own slabs: an object in another thread's, without a frame.
///
/// # Safety
/// As for [`put`].
#[inline(never)]
unsafe fn put_behind(object: *mut c_void, call: &'static str) {
    // SAFETY: contract.
    unsafe {
        if !process::push_remote(object.cast()) {
            put_elsewhere(object, call);
        }
    }
}

/// What comes behind that.
///
/// # Safety
/// As for [`put`].
#[inline(never)]
unsafe fn put_elsewhere(object: *mut c_void, call: &'static str) {
    // SAFETY: contract. What it does makes no system call, so errno stays.
    unsafe {
        if !process::push_elsewhere(object.cast(), call) && !object.is_null() {
            put_last(object, call);
        }
    }
}

/// What remains.
///
/// # Safety
/// As for [`put`], and `object` is not null.
#[inline(never)]
unsafe fn put_last(object: *mut c_void, call: &'static str) {
    // SAFETY: contract. What this thread has before there is a pool came from the C library.
    keeping_errno(|| unsafe {
        if !start::ready() {
            c_library::free(object.cast());
        } else if let Some(free) = cxx::free_of_another().filter(|_| !process::is_known(object.cast())) {
            free(object);
        } else {
            process::free_cold(object.cast(), call);
        }
    });
}

/// As [`put`], with a size and an alignment to check.
///
/// # Safety
/// As for [`put`].
#[cold]
#[inline(never)]
pub unsafe fn put_sized(object: *mut c_void, size: usize, align: usize, claim: Claim, call: &'static str) {
    if !object.is_null() {
        // SAFETY: as in `put_elsewhere`.
        keeping_errno(|| unsafe {
            if start::ready() {
                process::free_sized(object.cast(), size, align, claim, call);
            } else {
                c_library::free(object.cast());
            }
        });
    }
}

/// `size` bytes with the old content; null and ENOMEM when refused, and the old object stays.
///
/// # Safety
/// `old` is null or a live object, not used any more unless null is returned and `size` is not 0.
pub unsafe fn resize(old: *mut c_void, size: usize, call: &'static str) -> *mut c_void {
    if old.is_null() {
        let object = process::pop(size);
        return if object.is_null() { get_now(size, 1, false, call) } else { object.cast() };
    }
    if size == 0 {
        // SAFETY: contract.
        unsafe { put(old, call) };
        return core::ptr::null_mut();
    }
    if process::fits(old.cast(), size) {
        return old;
    }
    if let Some(room) = process::room_of(old.cast()).filter(|_| size <= SMALL) {
        // `fits` knows the thread's own alone.
        if size <= room {
            return old;
        }
        if let Some(new) = NonNull::new(process::pop(size)).or_else(|| NonNull::new(process::pop_behind(size))) {
            // SAFETY: contract; a live small object with less room, and another one that was just handed out.
            return unsafe { move_into(new, old, room, call) }.as_ptr();
        }
    }
    // SAFETY: contract.
    unsafe { move_to(old, size, call) }
}

/// Moves the content of a small object with `room` bytes to `new`, and frees it.
///
/// # Safety
/// `old` is a live object of the pool with so much room, and not used any more; `new` is another one with more.
#[inline]
unsafe fn move_into(new: NonNull<u8>, old: *mut c_void, room: usize, call: &'static str) -> NonNull<c_void> {
    // SAFETY: both are live and distinct, and the new one is the larger (contract).
    unsafe { new.copy_from_nonoverlapping(NonNull::new_unchecked(old.cast()), room) };
    // SAFETY: contract; the content has moved.
    unsafe {
        if !process::push(old.cast()) {
            put(old, call);
        }
    }
    new.cast()
}

/// What [`resize`] does with an object that does not fit where it is, or about which more must be known.
///
/// # Safety
/// As for [`resize`]; neither `old` nor `size` is 0.
#[cold]
#[inline(never)]
unsafe fn move_to(old: *mut c_void, size: usize, call: &'static str) -> *mut c_void {
    if size > MOST {
        return refuse(libc::ENOMEM);
    }
    if !start::ready() {
        // SAFETY: as in `put_elsewhere`.
        let new = unsafe { c_library::realloc(old.cast(), size, 1) };
        return if new.is_null() { refuse(libc::ENOMEM) } else { new.cast() };
    }
    // SAFETY: contract.
    if let Some(new) = unsafe { move_by_hot_paths(old, size, call) } {
        return new.as_ptr();
    }
    // SAFETY: contract.
    let new = or_from_reserve(|refusal| unsafe { process::resize(old.cast(), size, refusal, call) });
    if new.is_null() { refuse(libc::ENOMEM) } else { new.cast() }
}

/// A small object of the pool, moved by the hot paths where they serve; None when nothing was done.
///
/// # Safety
/// As for [`move_to`].
unsafe fn move_by_hot_paths(old: *mut c_void, size: usize, call: &'static str) -> Option<NonNull<c_void>> {
    if size > SMALL || !process::contains(old.cast()) {
        return None;
    }
    // SAFETY: contract.
    let room = unsafe { process::usable_size(old.cast(), call) };
    if size <= room {
        return NonNull::new(old);
    }
    let new = NonNull::new(process::pop(size))?;
    // SAFETY: contract; a live object with less room, and another one that was just handed out.
    Some(unsafe { move_into(new, old, room, call) })
}

/// Usable bytes of an object that is not null.
///
/// # Safety
/// `object` is live.
pub unsafe fn usable_size(object: *mut c_void) -> usize {
    if !start::ready() {
        // SAFETY: as in `put_elsewhere`.
        return unsafe { c_library::usable_size(object.cast()) };
    }
    // SAFETY: contract.
    unsafe { process::usable_size(object.cast(), "malloc_usable_size") }
}

/// Whether the last failure was for another reason than `error`.
pub fn errno_is_not(error: c_int) -> bool {
    // SAFETY: this thread's errno.
    unsafe { *errno() != error }
}
