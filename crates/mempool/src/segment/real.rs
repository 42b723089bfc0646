//! Making memory really there: commit, prefault, lock, huge OS pages, core dumps.
#![allow(unsafe_code)]

use crate::config::{Commit, Values, Wish};
use crate::error::InitError;
use crate::os::{Fault, Os, OsError, Range};

/// What was asked for with `try` and not granted: one entry per thing, see the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortfalls {
    /// Locking.
    pub lock: Option<OsError>,
    /// Huge OS pages.
    pub huge_pages: Option<OsError>,
    /// Keeping the segment out of core files.
    pub dump: Option<OsError>,
}

/// Makes `range` usable as `values` say: always committed; prefaulted when eager; locked and huge where possible.
///
/// # Errors
/// What the OS refused, if it is needed: memory always, a lock or huge OS pages when they are required.
///
/// # Safety
/// The range lies in a reservation of `os`, and nobody uses it yet.
pub unsafe fn make_real(os: &dyn Os, range: Range, values: &Values, short: &mut Shortfalls) -> Result<(), InitError> {
    let failed = |what| move |error| InitError::Os { what, bytes: range.bytes, error };
    let eager = values.commit == Commit::Eager;
    // SAFETY: for all calls: the range lies in a reservation, is committed by the first, and nobody uses it (contract).
    unsafe {
        os.commit(range).map_err(failed("commit memory"))?;
        if !values.dump {
            short.dump = os.dont_dump(range).err().or(short.dump);
        }
        let huge = if values.huge_pages == Wish::Off { Ok(()) } else { os.huge_pages_advise(range) };
        if eager {
            os.prefault(range).map_err(failed("prefault memory"))?;
        }
        let huge = match values.huge_pages {
            Wish::Required if eager => huge.and_then(|()| os.huge_pages_make(range)),
            _ => huge,
        };
        if let Err(error) = huge {
            if values.huge_pages == Wish::Required {
                return Err(InitError::Os { what: "back memory with huge OS pages", bytes: range.bytes, error });
            }
            short.huge_pages = Some(error);
        }
        let lock = match values.lock {
            Wish::Off => Ok(()),
            _ => os.lock(range, if eager { Fault::Now } else { Fault::AtTouch }),
        };
        if let Err(error) = lock {
            if values.lock == Wish::Required {
                return Err(lock_error(os, range.bytes, error));
            }
            short.lock = Some(error);
            // Parts may be locked; without the rest they are worth nothing. If that fails they stay so.
            let _ = os.unlock(range);
        }
    }
    Ok(())
}

fn lock_error(os: &dyn Os, need: usize, error: OsError) -> InitError {
    match os.lock_limit() {
        Ok(limit) if limit.soft < need => InitError::LockLimit { need, soft: limit.soft, hard: limit.hard },
        _ => InitError::Os { what: "lock memory", bytes: need, error },
    }
}
