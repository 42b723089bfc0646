//! A pool's addresses before there is a pool: they go back by themselves when none comes of them.
#![allow(unsafe_code)]

use super::Pool;
use crate::config::Config;
use crate::error::InitError;
use crate::os::{Os, Range};
use crate::segment::{Granted, Layout as Areas, make_program_real};

/// Addresses that go back when no pool comes of them.
pub(super) struct Reservation {
    os: &'static dyn Os,
    pub(super) range: Range,
}

impl Reservation {
    /// `bytes` bytes of addresses at a multiple of `align`.
    pub(super) fn new(os: &'static dyn Os, bytes: usize, align: usize) -> Result<Self, InitError> {
        let start = os.reserve(bytes, align);
        let start = start.map_err(|error| InitError::Os { what: "reserve addresses", bytes, error })?;
        Ok(Self { os, range: Range::new(start, bytes) })
    }

    /// Builds the pool in the reservation, which it owns from then on.
    ///
    /// # Safety
    /// `metadata` lies in the reservation and is made real as `areas` say, and so are `open` bytes of data.
    pub(super) unsafe fn furnish(
        self,
        config: &Config,
        metadata: *mut u8,
        areas: &Areas,
        open: usize,
        mut granted: Granted,
    ) -> Result<Pool, InitError> {
        let (os, values) = (self.os, config.values());
        make_program_real(os, values, &mut granted)?;
        let Range { start, bytes } = self.range;
        core::mem::forget(self);
        // SAFETY: contract.
        unsafe {
            // A courtesy for people who read /proc/PID/maps.
            let _ = os.name(Range::new(start, bytes), values.name.as_str());
            Ok(Pool::construct(os, config, metadata, (start, bytes), areas, open, granted))
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: nothing uses the reservation. There is nobody to tell if this fails too.
        let _ = unsafe { self.os.release(self.range) };
    }
}
