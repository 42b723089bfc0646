//! A program in a process group of its own, which ends with it: what it leaves behind is killed when it has ended, when its time is up, and when the
//! command is told to end.
//!
//! *Limits:* one group at a time; what leaves the group (`setsid`, a shell with job control) is out of reach, and so is all but the program itself when the
//! command is killed by SIGKILL.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Signals that tell the command to end, as they would by themselves.
const FATAL: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The group's number from the program's start until just before it is waited for, so that it never is somebody else's; 0 for none.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// A program that was started.
pub struct Group {
    child: Child,
}

impl Group {
    /// Starts the program.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        take_along();
        // No signal between the start and the note of it.
        let before = mask(libc::SIG_BLOCK, &fatal());
        command.process_group(0);
        // SAFETY: between fork and exec only system calls.
        unsafe {
            command.pre_exec(move || {
                mask(libc::SIG_SETMASK, &before);
                // A courtesy: without it a command that is killed may leave the program behind.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn();
        if let Ok(child) = &child {
            GROUP.store(child.id().cast_signed(), Relaxed);
        }
        mask(libc::SIG_SETMASK, &before);
        Ok(Self { child: child? })
    }

    /// The program's process number.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Whether the program has ended. It stays to be waited for.
    pub fn has_ended(&self) -> bool {
        // SAFETY: all bits zero are a value; the call writes to it.
        unsafe {
            let mut about: libc::siginfo_t = std::mem::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            let result = libc::waitid(libc::P_PID, self.process(), &raw mut about, how);
            result == 0 && about.si_pid() != 0
        }
    }

    /// Kills whatever is left of the group, and says how the program ended.
    pub fn end(&mut self) -> std::io::Result<ExitStatus> {
        if GROUP.load(Relaxed) != 0 {
            // SAFETY: the program is not waited for yet, so the number is its group's.
            unsafe { libc::kill(-self.process().cast_signed(), libc::SIGKILL) };
            GROUP.store(0, Relaxed);
        }
        self.child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After a failure in between, which is what is told.
        let _ = self.end();
    }
}

/// From now on a fatal signal kills the group before it ends the command, unless the command is to ignore it.
fn take_along() {
    for signal in FATAL {
        // SAFETY: all bits zero are a value, filled by the first call; the handler makes system calls alone.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0;
            if known && action.sa_sigaction == libc::SIG_DFL {
                action.sa_sigaction = die_with_group as extern "C" fn(libc::c_int) as libc::sighandler_t;
                action.sa_flags = libc::SA_RESETHAND;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

extern "C" fn die_with_group(signal: libc::c_int) {
    let group = GROUP.load(Relaxed);
    // SAFETY: plain system calls. The signal's own effect is back, and comes when this returns.
    unsafe {
        if group != 0 {
            libc::kill(-group, libc::SIGKILL);
        }
        libc::raise(signal);
    }
}

fn fatal() -> libc::sigset_t {
    // SAFETY: all bits zero are a value; the calls write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in FATAL {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Changes which signals have to wait; those that had to before.
fn mask(how: libc::c_int, set: &libc::sigset_t) -> libc::sigset_t {
    // SAFETY: all bits zero are a value; the call writes to it.
    unsafe {
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(how, set, &raw mut before);
        before
    }
}
