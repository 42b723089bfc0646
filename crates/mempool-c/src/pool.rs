//! The pool's life: made, ended, looked at, helped.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};
use core::fmt::Write;

use mempool::config::Config;
use mempool::{InitError, process};

use crate::config::{MempoolConfig, config_of, read};
use crate::error::{ARGUMENT, BROKEN, CALLBACK_LIMIT, OK, Out, fail, fail_init, keep_errno, remember, set_errno};

/// `mempool_reclaim_fn`.
pub type Reclaim = extern "C" fn(usize, *mut c_void) -> bool;

fn init(config: Result<Config, InitError>) -> c_int {
    match config.and_then(|config| process::init(&config)) {
        Ok(()) => OK,
        Err(error) => fail_init(&error),
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_init() -> c_int {
    if process::is_ready() {
        return fail_init(&InitError::AlreadyInitialised);
    }
    init(process::environment_config(Config::process()))
}

/// See the header.
///
/// # Safety
/// `config` is null or a struct that says its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_init_config(config: *const MempoolConfig) -> c_int {
    // SAFETY: contract.
    let known = match unsafe { read(config) } {
        Ok(known) => known,
        Err(code) => return code,
    };
    match config_of(&known) {
        Ok(config) if known.use_environment != 0 => init(process::environment_config(config)),
        Ok(config) => init(Ok(config)),
        Err(code) => code,
    }
}

/// See the header.
///
/// # Safety
/// No object of the pool is used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_fini() {
    print_stats_if_asked();
    let mut out = Out::new(libc::STDERR_FILENO);
    // Writing to an `Out` never fails; what the descriptor says shows at its end.
    // SAFETY: contract.
    let ended = unsafe { process::fini(|line| _ = writeln!(out, "mempool: {line}")) };
    match ended {
        Ok(leaks) if leaks.objects > 0 => {
            let (objects, bytes) = (leaks.objects, leaks.bytes);
            _ = writeln!(out, "mempool: mempool_fini: {objects} objects of {bytes} bytes were still live");
        }
        Ok(_) => {}
        Err(error) => {
            fail_init(&error);
        }
    }
    // There is nobody to tell if standard error is closed.
    keep_errno(|| _ = out.finish());
}

/// See the header.
///
/// # Safety
/// As for [`mempool_fini`]; `objects` and `bytes` are null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_fini_quiet(objects: *mut usize, bytes: *mut usize) -> c_int {
    // SAFETY: contract.
    match unsafe { process::fini(|_| ()) } {
        Ok(leaks) => {
            // SAFETY: contract.
            if let Some(objects) = unsafe { objects.as_mut() } {
                *objects = leaks.objects;
            }
            // SAFETY: contract.
            if let Some(bytes) = unsafe { bytes.as_mut() } {
                *bytes = leaks.bytes;
            }
            OK
        }
        Err(error) => fail_init(&error),
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_is_ready() -> bool {
    process::is_ready()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_contains(address: *const c_void) -> bool {
    process::contains(address.cast())
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_verify() -> c_int {
    if !process::is_ready() {
        return fail_init(&InitError::NotInitialised);
    }
    match process::verify() {
        Ok(()) => OK,
        Err(broken) => fail(BROKEN, format_args!("the pool is damaged: {broken}")),
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_trim() -> usize {
    keep_errno(process::trim)
}

/// See the header.
///
/// # Safety
/// `callback` is null or may be called with `argument` from any thread until the pool ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_on_reclaim(callback: Option<Reclaim>, argument: *mut c_void) -> c_int {
    // SAFETY: contract.
    unsafe { on_reclaim(0, callback, argument) }
}

/// See the header.
///
/// # Safety
/// As for [`mempool_on_reclaim`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mempool_on_low(level: usize, callback: Option<Reclaim>, argument: *mut c_void) -> c_int {
    if level == 0 {
        return fail(ARGUMENT, "the level is 0 bytes, below which no memory is ever free");
    }
    // SAFETY: contract.
    unsafe { on_reclaim(level, callback, argument) }
}

/// # Safety
/// As for [`mempool_on_reclaim`].
unsafe fn on_reclaim(level: usize, callback: Option<Reclaim>, argument: *mut c_void) -> c_int {
    let Some(callback) = callback else { return fail(ARGUMENT, "the callback is NULL") };
    if let Err(error) = process::ensure(Config::process()) {
        return fail_init(&error);
    }
    // SAFETY: the two types differ in what the second pointer is said to point to, and no code looks at that.
    let callback = unsafe { core::mem::transmute::<Reclaim, extern "C" fn(usize, *mut u8) -> bool>(callback) };
    // SAFETY: contract.
    match unsafe { process::on_reclaim(level, callback, argument.cast()) } {
        Ok(()) => OK,
        Err(0) => fail_init(&InitError::NotInitialised),
        Err(most) => {
            fail(CALLBACK_LIMIT, format_args!("the pool has {most} reclaim callbacks already, the most it takes"))
        }
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_stats_print(fd: c_int) -> c_int {
    let mut out = Out::new(fd);
    match process::with_table(|table| _ = write!(out, "{table}")) {
        Some(()) => out.finish(),
        None => fail_init(&InitError::NotInitialised),
    }
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mp_verdict_print(fd: c_int, size: usize) -> c_int {
    if !process::is_ready() {
        return fail_init(&InitError::NotInitialised);
    }
    let mut out = Out::new(fd);
    let asked = (size != 0).then_some((size, 1));
    if process::with_verdict(asked, |verdict| _ = writeln!(out, "{verdict}")).is_none() {
        _ = writeln!(out, "mempool: no request was refused so far");
    }
    out.finish()
}

/// See the header.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_shortfalls_print(fd: c_int) -> c_int {
    let Some(short) = process::shortfalls() else { return fail_init(&InitError::NotInitialised) };
    let mut out = Out::new(fd);
    for (setting, error) in short.each() {
        let hint = error.hint();
        let between = if hint.is_empty() { "" } else { "; " };
        _ = writeln!(out, "mempool: {setting} was not granted: {error}{between}{hint}");
    }
    out.finish()
}

/// Prints the table where the setting `stats` asks for it.
fn print_stats_if_asked() {
    if process::values().is_some_and(|values| values.stats_at_exit) {
        mp_stats_print(libc::STDERR_FILENO);
    }
}

/// What the process runs before the program's own code, so that the handlers of forks for which the program asks run later.
extern "C" fn at_start() {
    process::watch_forks();
}

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
static AT_START: extern "C" fn() = at_start;

/// What the process runs when it ends normally: `stats` is promised for then too.
extern "C" fn at_exit() {
    print_stats_if_asked();
}

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".fini_array"))]
static AT_EXIT: extern "C" fn() = at_exit;

/// Forgets the calling thread's last error.
#[unsafe(no_mangle)]
pub extern "C" fn mempool_clear_error() {
    remember("");
    set_errno(0);
}
