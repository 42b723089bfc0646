//! Libraries that a program loads with `RTLD_DEEPBIND`.
//!
//! Such a library, and all that come with it, looks for `free` in itself and what it needs before it looks where everybody looks, so that it
//! finds the C library's: what the program, or the C library's `strdup`, got from the pool would end there. PHP loads its extensions so. The
//! loader has no way to say "but for malloc"; so the flag is left out. A library that exports a name which the program exports, too, and relies on the flag
//! to find its own, then finds the program's.
//!
//! *Limits:* x86-64. `dlmopen` into another namespace brings another C library with a heap of its own, as ever.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The next `dlopen`, the C library's as a rule; 0 until it is looked for.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// As in POSIX, without `RTLD_DEEPBIND`. A jump: the loader sees by the address on top of the stack who calls, and looks where that object says.
///
/// # Safety
/// As in POSIX.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        "and esi, {rest}",
        "mov rax, qword ptr [rip + {next}]",
        "test rax, rax",
        "jnz 2f",
        // Two registers to keep, and the stack a multiple of 16 again.
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {find}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "2:",
        "jmp rax",
        rest = const !libc::RTLD_DEEPBIND,
        next = sym NEXT,
        find = sym find,
    )
}

/// Finds the next `dlopen`: its address.
#[cold]
extern "C" fn find() -> usize {
    const NAME: &CStr = c"dlopen";
    // SAFETY: a plain look-up.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr()) } as usize;
    // A program without one could not have called us, but for one that looked us up by name.
    let next = if next == 0 { refuse as *const () as usize } else { next };
    // Relaxed: each thread finds the same.
    NEXT.store(next, Relaxed);
    next
}

/// Loads nothing.
extern "C" fn refuse(_: *const c_char, _: c_int) -> *mut c_void {
    core::ptr::null_mut()
}
