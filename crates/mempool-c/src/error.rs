//! Error codes, the last error of a thread, errno, and the end of a process that misuses the interface.
//!
//! A code is 0 for success or one of [`CODES`], which the header repeats. The codes up to 11 are those of the
//! library; those from 20 on are of C alone. The last error is a sentence with figures, kept per thread.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use core::fmt::{self, Write};

use mempool::{CacheError, InitError, Text};

/// Success.
pub const OK: c_int = 0;
/// A setting cannot be read.
pub const VALUE: c_int = 2;
/// The operating system refused a request.
pub const OS: c_int = 5;
/// There is no pool.
pub const NOT_INITIALISED: c_int = 8;
/// A null pointer, or another argument that cannot be used.
pub const ARGUMENT: c_int = 20;
/// A struct of a size that this library does not know.
pub const STRUCT_SIZE: c_int = 21;
/// A cache's name.
pub const CACHE_NAME: c_int = 22;
/// A cache's item size.
pub const CACHE_ITEM: c_int = 23;
/// A cache's alignment.
pub const CACHE_ALIGN: c_int = 24;
/// No room for another cache.
pub const CACHE_LIMIT: c_int = 25;
/// The cache is initialised already.
pub const CACHE_TWICE: c_int = 26;
/// No room for another reclaim callback.
pub const CALLBACK_LIMIT: c_int = 27;
/// The consistency check found something broken.
pub const BROKEN: c_int = 28;
/// A budget cannot be made or entered.
pub const BUDGET: c_int = 29;

/// Every code: the name of its constant in the header, its words, its errno.
pub const CODES: [(c_int, &str, &CStr, c_int); 25] = [
    (OK, "MEMPOOL_OK", c"success", 0),
    (1, "MEMPOOL_ERROR_UNKNOWN_SETTING", c"unknown setting", libc::EINVAL),
    (VALUE, "MEMPOOL_ERROR_VALUE", c"the value of a setting cannot be read", libc::EINVAL),
    (3, "MEMPOOL_ERROR_RANGE", c"the value of a setting is out of range", libc::EINVAL),
    (4, "MEMPOOL_ERROR_CONFLICT", c"two settings contradict each other", libc::EINVAL),
    (OS, "MEMPOOL_ERROR_OS", c"the operating system refused a request", libc::ENOMEM),
    (6, "MEMPOOL_ERROR_TOO_SMALL", c"the segment is too small", libc::EINVAL),
    (7, "MEMPOOL_ERROR_ALREADY_INITIALISED", c"the pool is already initialised", libc::EALREADY),
    (NOT_INITIALISED, "MEMPOOL_ERROR_NOT_INITIALISED", c"the pool is not initialised", libc::ENXIO),
    (9, "MEMPOOL_ERROR_LOCK_LIMIT", c"the lock limit (RLIMIT_MEMLOCK) is too low", libc::ENOMEM),
    (10, "MEMPOOL_ERROR_MISALIGNED", c"the buffer is not aligned", libc::EINVAL),
    (11, "MEMPOOL_ERROR_BUSY", c"the pool is being initialised or ended", libc::EBUSY),
    (12, "MEMPOOL_ERROR_MEMORY", c"there is not enough memory to make the segment present", libc::ENOMEM),
    (13, "MEMPOOL_ERROR_HUGE_PAGES", c"there are not enough huge OS pages", libc::ENOMEM),
    (14, "MEMPOOL_ERROR_IN_CALLBACK", c"a reclaim callback cannot end the pool that called it", libc::EBUSY),
    (ARGUMENT, "MEMPOOL_ERROR_ARGUMENT", c"an argument cannot be used", libc::EINVAL),
    (STRUCT_SIZE, "MEMPOOL_ERROR_STRUCT_SIZE", c"a struct has a size that this library does not know", libc::EINVAL),
    (CACHE_NAME, "MEMPOOL_ERROR_CACHE_NAME", c"the name of a cache is too long or not UTF-8", libc::EINVAL),
    (CACHE_ITEM, "MEMPOOL_ERROR_CACHE_ITEM", c"the item size of a cache is out of range", libc::EINVAL),
    (CACHE_ALIGN, "MEMPOOL_ERROR_CACHE_ALIGN", c"the alignment of a cache cannot be had", libc::EINVAL),
    (CACHE_LIMIT, "MEMPOOL_ERROR_CACHE_LIMIT", c"the pool has no room for another cache", libc::ENOSPC),
    (CACHE_TWICE, "MEMPOOL_ERROR_CACHE_TWICE", c"the cache is initialised already", libc::EALREADY),
    (CALLBACK_LIMIT, "MEMPOOL_ERROR_CALLBACK_LIMIT", c"the pool has no room for another callback", libc::ENOSPC),
    (BROKEN, "MEMPOOL_ERROR_BROKEN", c"the pool is damaged", libc::EIO),
    (BUDGET, "MEMPOOL_ERROR_BUDGET", c"there can be no such budget", libc::ENOSPC),
];

/// Bytes of the last error, its final zero included.
const LAST: usize = 400;

thread_local! {
    // A constant without a destructor: nothing is allocated or registered for it, and it outlives all destructors.
    static LAST_ERROR: UnsafeCell<[u8; LAST]> = const { UnsafeCell::new([0; LAST]) };
}

/// Remembers `what` as the calling thread's last error.
pub(crate) fn remember(what: impl fmt::Display) {
    let text = Text::<{ LAST - 1 }>::of(what);
    LAST_ERROR.with(|last| {
        // SAFETY: this thread's alone, and no reference to it is kept; C code reads it between calls.
        let bytes = unsafe { &mut *last.get() };
        let mut line = text.as_bytes().iter().filter(|&&byte| byte != 0);
        bytes.fill_with(|| line.next().copied().unwrap_or(0));
        bytes[LAST - 1] = 0;
    });
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the calling thread's errno always exists.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(number: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = number };
}

/// Runs `f` and leaves errno as it was.
pub(crate) fn keep_errno<R>(f: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = f();
    set_errno(before);
    result
}

/// Notes an error: the sentence, errno, the code.
pub(crate) fn fail(code: c_int, what: impl fmt::Display) -> c_int {
    remember(what);
    set_errno(CODES.iter().find(|row| row.0 == code).map_or(libc::EINVAL, |row| row.3));
    code
}

/// As [`fail`], for the library's errors.
pub(crate) fn fail_init(error: &InitError) -> c_int {
    let code = fail(error.code(), error);
    if let InitError::Os { error, .. } = error {
        set_errno(error.errno);
    }
    code
}

/// As [`fail`], for errors of caches.
pub(crate) fn fail_cache(error: &CacheError) -> c_int {
    let code = match error {
        CacheError::NameTooLong(_) => CACHE_NAME,
        CacheError::ItemSize(_) => CACHE_ITEM,
        CacheError::Alignment(_) => CACHE_ALIGN,
        // The errors to come are limits of the pool.
        _ => CACHE_LIMIT,
    };
    fail(code, error)
}

/// Ends the process with one line that blames `call`.
#[cold]
#[inline(never)]
pub(crate) fn misuse(call: &str, what: impl fmt::Display) -> ! {
    let mut text = Text::<512>::of(format_args!("mempool: {call}: {what}"));
    // There is nobody to tell if this fails.
    let _ = write_all(libc::STDERR_FILENO, text.line());
    // SAFETY: never returns.
    unsafe { libc::abort() }
}

/// Writes all of `bytes`.
///
/// # Errors
/// The errno of the write that failed.
pub(crate) fn write_all(fd: c_int, mut bytes: &[u8]) -> Result<(), c_int> {
    while !bytes.is_empty() {
        // SAFETY: reads `bytes`, which are valid.
        let wrote = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(wrote) {
            Ok(wrote) => bytes = bytes.get(wrote..).unwrap_or(&[]),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(errno()),
        }
    }
    Ok(())
}

/// Collects lines for a file descriptor, from a buffer on the stack.
pub(crate) struct Out {
    fd: c_int,
    buffer: [u8; 1024],
    len: usize,
    failed: c_int,
}

impl Out {
    pub(crate) const fn new(fd: c_int) -> Self {
        Self { fd, buffer: [0; 1024], len: 0, failed: 0 }
    }

    fn flush(&mut self) {
        if self.failed == 0
            && let Err(errno) = write_all(self.fd, self.buffer.get(..self.len).unwrap_or(&[]))
        {
            self.failed = errno;
        }
        self.len = 0;
    }

    /// Writes what is left; the code of the whole.
    pub(crate) fn finish(mut self) -> c_int {
        self.flush();
        if self.failed == 0 {
            return OK;
        }
        let code = fail(OS, format_args!("cannot write to file descriptor {}: errno {}", self.fd, self.failed));
        set_errno(self.failed);
        code
    }
}

impl Write for Out {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for &byte in part.as_bytes() {
            if self.len == self.buffer.len() {
                self.flush();
            }
            if let Some(place) = self.buffer.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_strerror(code: c_int) -> *const c_char {
    CODES.iter().find(|row| row.0 == code).map_or(c"unknown error code", |row| row.2).as_ptr()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.get().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_the_library_says() {
        for (code, name, words, _) in CODES {
            if code < ARGUMENT {
                assert_eq!(words.to_str(), Ok(InitError::text_of(code)), "{name}");
            } else {
                assert_eq!(InitError::text_of(code), "unknown error code", "{name} is taken");
            }
        }
    }

    #[test]
    fn the_last_error_is_cut_and_ends_in_zero() {
        remember("x".repeat(1000));
        // SAFETY: a string of this thread.
        let text = unsafe { CStr::from_ptr(mempool_last_error()) }.to_str().unwrap();
        assert_eq!(text.len(), LAST - 1);
        assert!(text.ends_with("x..."));
        remember("short");
        // SAFETY: as above.
        assert_eq!(unsafe { CStr::from_ptr(mempool_last_error()) }, c"short");
    }
}
