//! What the command was started with, as it was before Rust's runtime looked after itself: it ignores SIGPIPE, and opens /dev/null in place of standard
//! descriptors that are closed. The program that takes the command's place gets what its parent meant it to have.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Set in what was found: SIGPIPE was ignored. The bits below stand for descriptors that were closed.
const PIPE_IGNORED: u8 = 1 << STANDARD;
/// Standard descriptors.
const STANDARD: u8 = 3;

/// Written once, before `main`.
static FOUND: AtomicU8 = AtomicU8::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

/// Runs before the runtime's start.
extern "C" fn look() {
    // SAFETY: asks for the flags of a descriptor, whether it is open or not.
    let closed = |&descriptor: &u8| unsafe { libc::fcntl(libc::c_int::from(descriptor), libc::F_GETFD) } < 0;
    let mut found = (0..STANDARD).filter(closed).fold(0, |found, descriptor| found | 1 << descriptor);
    // SAFETY: all bits zero are a value; the call writes to it, and changes nothing.
    let ignored = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    };
    if ignored {
        found |= PIPE_IGNORED;
    }
    FOUND.store(found, Relaxed);
}

/// Lets `command` begin as this process did.
pub fn hand_on(command: &mut Command) {
    let found = FOUND.load(Relaxed);
    // SAFETY: what runs between fork, if there is one, and exec makes system calls and nothing else. The descriptors are those that the runtime
    // opened, which nobody has used.
    unsafe {
        command.pre_exec(move || {
            (0..STANDARD).filter(|descriptor| found >> descriptor & 1 != 0).for_each(|descriptor| {
                libc::close(libc::c_int::from(descriptor));
            });
            if found & PIPE_IGNORED != 0 {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            }
            Ok(())
        });
    }
}
