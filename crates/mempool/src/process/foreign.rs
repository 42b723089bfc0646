//! What a library that stands in for the C library's malloc needs of the process pool: sized frees, and pointers
//! that the C library handed out behind its back.
#![allow(unsafe_code)]

use super::demand_core;
use crate::front::{self, Misuse, Request, Use};
use crate::units::GRANULE;

/// What is known about the size that a sized free gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The object was asked for with this very size and never reallocated (C++'s `delete`): its room must be what the
    /// size asks for.
    Exact,
    /// The object may have come from a shrinking `realloc`, which keeps the room (C's `free_sized`): the size must not
    /// exceed the room.
    AtMost,
}

/// From now on, an address in the C library's own heap (the part that it gets by `brk` from this moment on) is its
/// object: free, realloc and usable size hand it over instead of calling it a wrong pointer. O(1).
pub fn share_with_c_library() {
    front::watch_heap();
}

/// Whether `object` lies in the pool, or is one that a free hands over to the C library: every one with `small = system`. O(1).
#[must_use]
pub fn is_known(object: *const u8) -> bool {
    let core = demand_core("free");
    core.contains(object as usize) || core.is_c_library(object as usize)
}

/// The C library's own allocator, for who asks while the thread makes the pool ([`super::ensure`]). After [`share_with_c_library`] the pool takes its
/// objects back, but for those that it maps apart.
pub mod c_library {
    pub use crate::os::system::{alloc, free, realloc, usable_size};
}

/// The hot path of a sized free alone. False when nothing was done and this needs [`free_sized`].
///
/// # Safety
/// `object` came from the process pool and is not used any more.
#[inline(always)]
#[must_use]
pub unsafe fn push_sized(object: *mut u8, size: usize) -> bool {
    front::push_sized(front::process_local(), object as usize, size)
}

/// Whether `object` is known, without a look further, to have room for `size` bytes: then `realloc` has nothing to do.
#[inline(always)]
#[must_use]
pub fn fits(object: *const u8, size: usize) -> bool {
    front::fits(front::process_local(), object as usize, size)
}

/// The room of an object that is a live small item; None when more must be asked.
#[inline]
#[must_use]
pub fn room_of(object: *const u8) -> Option<usize> {
    front::room_of(front::process_local(), object as usize)
}

/// Any sized free; null does nothing. `size` and `align` are what the object was asked for with; what
/// cannot be right ends the process with a message that blames `call`. O(1).
///
/// # Safety
/// As for [`push_sized`].
#[cold]
#[inline(never)]
pub unsafe fn free_sized(object: *mut u8, size: usize, align: usize, claim: Claim, call: &'static str) {
    if object.is_null() {
        return;
    }
    let (core, address) = (demand_core(call), object as usize);
    if !align.is_power_of_two() || !address.is_multiple_of(align) {
        core.misuse(call, address, &Misuse::WrongAlign(align));
    }
    if core.config.check_sizes && core.contains(address) {
        let room = core.room(address, call, Use::Free);
        let align = align.max(GRANULE);
        // A C++ library may round the size up to the alignment before it asks.
        let fits = |size| core.could_answer(&Request { size, align, zeroed: false }, room);
        let right = match claim {
            _ if size > room => false,
            Claim::AtMost => true,
            Claim::Exact => {
                core.is_scoped(address) || fits(size) || size.checked_next_multiple_of(align).is_some_and(fits)
            }
        };
        if !right {
            core.misuse(call, address, &Misuse::WrongSize(size, room));
        }
    }
    core.free(address, call);
}
