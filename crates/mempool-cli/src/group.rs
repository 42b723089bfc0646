//! A program in a process group of its own, which ends with it: what it leaves behind is killed when it has ended, when its time is up, and when the
//! command is told to end.
//!
//! *Limits:* what leaves the group (`setsid`, a shell with job control) is out of reach, and so is all but the program itself when the command is killed
//! by SIGKILL.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

use crate::ending::{self, Kept, Thing};

/// A program that was started.
pub struct Group {
    child: Child,
    /// Until just before it is waited for, so that its number never is somebody else's.
    kept: Option<Kept>,
}

impl Group {
    /// Starts the program.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let (child, kept) = ending::spawn(command.process_group(0), Thing::Group)?;
        Ok(Self { child, kept: Some(kept) })
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
        if self.kept.take().is_some() {
            // SAFETY: the program is not waited for yet, so the number is its group's.
            unsafe { libc::kill(-self.process().cast_signed(), libc::SIGKILL) };
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
