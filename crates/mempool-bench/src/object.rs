//! An object as a workload keeps it: written where a program would write first and last, read back before it is freed.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::family;

/// The least bytes of an object: its stamp.
pub const LEAST: usize = 8;

/// A live object of the malloc family. Plain data: who drops it without [`Object::free`] leaks it.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    at: NonNull<u8>,
    size: u32,
    last: u8,
}

// SAFETY: an object belongs to whoever holds the value; its memory may be used and freed by any thread.
unsafe impl Send for Object {}

impl Object {
    /// A new object with `stamp` in its first bytes and a part of it in its last.
    #[inline]
    #[must_use]
    pub fn new(size: usize, stamp: u64) -> Self {
        Self::over(family::malloc(size.max(LEAST)), size.max(LEAST), stamp)
    }

    /// The object at `at`, stamped.
    #[inline]
    #[must_use]
    pub fn over(at: NonNull<u8>, size: usize, stamp: u64) -> Self {
        let last = stamp as u8;
        // SAFETY: the object was just allocated with `size` bytes, at least 8.
        unsafe {
            at.as_ptr().add(size - 1).write(last);
            at.cast::<u64>().as_ptr().write_unaligned(stamp);
        }
        Self { at, size: size as u32, last }
    }

    /// Where it lies.
    #[inline]
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.at
    }

    /// Its bytes.
    #[inline]
    #[must_use]
    pub fn size(&self) -> usize {
        self.size as usize
    }

    /// Writes a byte into each OS page of it.
    pub fn touch(&self) {
        for offset in (0..self.size()).step_by(4096).skip(1) {
            // SAFETY: inside the object. Volatile, since nobody reads it.
            unsafe { self.at.as_ptr().add(offset).write_volatile(1) };
        }
    }

    /// What its content adds to the checksum.
    #[inline]
    #[must_use]
    pub fn content(&self) -> u64 {
        // SAFETY: the object is live and was written at both places.
        unsafe {
            let last = self.at.as_ptr().add(self.size() - 1).read();
            // Objects of exactly 8 bytes have their last byte in the stamp.
            let whole = u64::from(last == self.last || self.size() == LEAST);
            self.at.cast::<u64>().as_ptr().read_unaligned().wrapping_add(whole)
        }
    }

    /// Frees it; what its content adds to the checksum.
    #[inline]
    pub fn free(self) -> u64 {
        let content = self.content();
        // SAFETY: allocated by the family with this size; the caller gives it up.
        unsafe { family::free(self.at, self.size()) };
        content
    }
}
