//! The library's beginning and end.
//!
//! The first allocation may come before any constructor, even before the C library's own. So the pool is made by
//! whoever comes first, [`ready`] from a cold path or the constructor. The end is a destructor: the table, if asked
//! for. The pool itself stays, because other destructors still allocate and free.

use core::ffi::c_int;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use mempool::{Config, InitError, Text, process};

use crate::cold::keeping_errno;
use crate::{critical, cxx, panic};

/// What the program exits with when there can be no pool.
const EXIT: c_int = 125;
/// Descriptors below are left to the program, which may count on them.
const DESCRIPTOR: c_int = 512;

/// A second descriptor of standard error, -1 for none: programs close theirs before destructors run.
static COPY: AtomicI32 = AtomicI32::new(-1);
/// Device and file that standard error was, so that a descriptor used for something else is recognised.
static DEVICE: AtomicU64 = AtomicU64::new(0);
static FILE: AtomicU64 = AtomicU64::new(0);

/// Makes the pool if there is none yet. False for the thread that makes it just now: the C library serves it until that is done.
#[inline]
pub fn ready() -> bool {
    process::is_ready() || begin()
}

/// What the environment may change: as every process pool, but with room for a single named cache, since a program that knows
/// nothing of the pool makes none. Each would cost every thread two bins.
fn base() -> Config {
    Config::process().max_caches(1)
}

#[cold]
#[inline(never)]
fn begin() -> bool {
    keeping_errno(|| {
        process::share_with_c_library();
        match process::ensure(base()) {
            Ok(()) => true,
            Err(InitError::Busy) => false,
            Err(error) => stop(format_args!("{error}")),
        }
    })
}

/// Writes one line to standard error and ends the program, without destructors: they could allocate.
#[cold]
pub fn stop(why: fmt::Arguments<'_>) -> ! {
    let mut text = Text::<1024>::of(format_args!("mempool: {why}"));
    write_all(libc::STDERR_FILENO, text.line());
    // SAFETY: ends the process.
    unsafe { libc::_exit(EXIT) }
}

/// Runs when the dynamic loader starts the library.
extern "C" fn constructor() {
    ready();
    keeping_errno(critical::find);
    keeping_errno(panic::find);
    cxx::find_replacements();
    keeping_errno(crate::drill::begin);
    if process::values().is_some_and(|values| values.stats_at_exit) {
        keeping_errno(remember_stderr);
    }
}

/// Runs when the program exits, behind its own destructors.
extern "C" fn destructor() {
    if process::values().is_some_and(|values| values.stats_at_exit) {
        print_at_exit();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destructor;

/// Device and file behind a descriptor.
fn identity(descriptor: c_int) -> Option<(u64, u64)> {
    // SAFETY: all zeros is a valid `stat`.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: fills a live struct.
    let got = unsafe { libc::fstat(descriptor, &raw mut stat) };
    (got == 0).then_some((stat.st_dev, stat.st_ino))
}

fn remember_stderr() {
    let Some((device, file)) = identity(libc::STDERR_FILENO) else { return };
    DEVICE.store(device, Relaxed);
    FILE.store(file, Relaxed);
    for least in [DESCRIPTOR, 10] {
        // SAFETY: a new descriptor, closed by exec.
        let copy = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, least) };
        if copy >= 0 {
            COPY.store(copy, Relaxed);
            return;
        }
    }
}

/// A descriptor that still is the standard error of the start; None if the program has closed it.
fn stderr_at_exit() -> Option<c_int> {
    let wanted = (DEVICE.load(Relaxed), FILE.load(Relaxed));
    [COPY.load(Relaxed), libc::STDERR_FILENO].into_iter().find(|&descriptor| identity(descriptor) == Some(wanted))
}

fn print_at_exit() {
    let Some(descriptor) = stderr_at_exit() else { return };
    let mut out = Out::new(descriptor);
    // SAFETY: a plain call.
    let number = unsafe { libc::getpid() };
    let name = core::str::from_utf8(process::program_name()).unwrap_or("?");
    // `Out` never fails.
    let _ = writeln!(out, "mempool: process {number} ({name})");
    print_table(&mut out);
}

/// Writes the pool's table to `out`.
pub fn print_table(out: &mut dyn Write) {
    // What fails is the reader's own affair: a closed descriptor, a full disk.
    let _ = process::with_table(|table| write!(out, "{table}"));
}

fn write_all(descriptor: c_int, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: a live slice.
        let wrote = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        if wrote > 0 {
            bytes = bytes.get(wrote as usize..).unwrap_or(&[]);
        } else if wrote == 0 || crate::cold::errno_is_not(libc::EINTR) {
            return;
        }
    }
}

/// Text to a descriptor, by a buffer on the stack. Never fails: what cannot be written is dropped.
pub struct Out {
    descriptor: c_int,
    buffer: Text<2048>,
}

impl Out {
    /// To `descriptor`.
    pub const fn new(descriptor: c_int) -> Self {
        Self { descriptor, buffer: Text::new() }
    }

    fn flush(&mut self) {
        write_all(self.descriptor, self.buffer.as_bytes());
        self.buffer = Text::new();
    }
}

impl Write for Out {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.buffer.as_bytes().len() + part.len() > 1024 {
            self.flush();
        }
        if part.len() > 1024 {
            write_all(self.descriptor, part.as_bytes());
            return Ok(());
        }
        self.buffer.write_str(part)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.flush();
    }
}
