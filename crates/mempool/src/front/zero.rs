//! Making large runs zero.
//!
//! A run that was used before is cleared by hand, or, in a lazily committed pool, given back to the OS, which hands out zeros when it is
//! touched. Which is better depends on how much of it is there: what was used as a whole probably will be again, and a page
//! fault costs as much as clearing twenty OS pages; what was hardly touched is made zero by one call, however long it is, and takes no memory
//! then. So the OS is asked first how much is there.
#![allow(unsafe_code)]

use super::core::Core;
use crate::config::{Commit, Wish};
use crate::os::Range;

/// Fewer bytes are always cleared by hand.
const LEAST: usize = 32 << 10;
/// Bytes that the OS is asked about at most: how the rest was used is taken to be the same.
const SAMPLE: usize = 1 << 20;

impl Core {
    /// Whether memory of this pool was locked, for [`Os::decommit`](crate::os::Os::decommit).
    pub(super) fn is_locked(&self) -> bool {
        self.config.lock != Wish::Off && self.granted.short.lock.is_none()
    }

    /// Makes `bytes` bytes at `address` zero.
    ///
    /// # Safety
    /// They are the caller's own, in the data area.
    #[inline]
    pub(crate) unsafe fn make_zero(&self, address: usize, bytes: usize) {
        if bytes < LEAST || self.config.commit != Commit::Lazy || self.reservation.0.is_null() {
            // SAFETY: contract.
            return unsafe { core::ptr::write_bytes(address as *mut u8, 0, bytes) };
        }
        // SAFETY: contract.
        unsafe { self.make_long_zero(address, bytes) }
    }

    /// As above, for a long stretch of a lazily committed pool.
    ///
    /// # Safety
    /// As above.
    #[cold]
    #[inline(never)]
    unsafe fn make_long_zero(&self, address: usize, bytes: usize) {
        let (from, to) = self.os_pages_of(address, bytes);
        // SAFETY: whole OS pages of the caller's own bytes, whose content is needed no more.
        let dropped = from < to && unsafe { self.drop_sparse(from, to) };
        let (from, to) = if dropped { (from, to) } else { (address, address) };
        // SAFETY: the caller's own: what lies before the OS pages that became zero, and behind them.
        unsafe {
            core::ptr::write_bytes(address as *mut u8, 0, from - address);
            core::ptr::write_bytes(to as *mut u8, 0, address + bytes - to);
        }
    }

    /// Gives the memory of the whole OS pages among `bytes` bytes at `address` back if the pool is committed lazily and little of it is
    /// there.
    ///
    /// # Safety
    /// They are the caller's own, in the data area; their content is needed no more.
    pub(super) unsafe fn drop_if_sparse(&self, address: usize, bytes: usize) {
        let (from, to) = self.os_pages_of(address, bytes);
        if from < to && self.config.commit == Commit::Lazy && !self.reservation.0.is_null() {
            // SAFETY: contract.
            unsafe { self.drop_sparse(from, to) };
        }
    }

    /// Where the whole OS pages among `bytes` bytes at `address` begin and end; there is none if that is not in order.
    fn os_pages_of(&self, address: usize, bytes: usize) -> (usize, usize) {
        let page = self.os.os_page().max(1);
        (address.next_multiple_of(page), (address + bytes) / page * page)
    }

    /// Gives the memory of `from..to` back to the OS if little of it is there. Whether it did: then all is zero.
    ///
    /// # Safety
    /// Whole OS pages that the caller owns; their content is needed no more.
    unsafe fn drop_sparse(&self, from: usize, to: usize) -> bool {
        let sample = SAMPLE.min(to - from);
        // SAFETY: committed memory of the data area (contract).
        unsafe {
            let present = self.os.present(Range::new(from as *mut u8, sample));
            present.is_ok_and(|present| present <= sample / 2)
                && self.os.decommit(Range::new(from as *mut u8, to - from), self.is_locked()).is_ok()
        }
    }
}
