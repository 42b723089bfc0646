//! Counts the system calls of a worker's measured part, by tracing it as a debugger would.
//!
//! The worker makes a system call that does not exist ([`MARK`]) where its measured part begins (more than once if it
//! begins anew: the last counts) and one where it ends. What all its threads call in between is counted.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use mempool_bench::job::MARK;

/// The status of a stop at a system call, with PTRACE_O_TRACESYSGOOD.
const AT_CALL: i32 = libc::SIGTRAP | 0x80;

/// System calls between the last two marks; None where tracing is not allowed or the worker failed.
pub fn count_calls(command: &mut Command) -> Option<u64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec only `ptrace` and `prctl` are called, which are safe there.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
    let child = command.spawn().ok()?;
    let id = child.id() as libc::pid_t;
    let (mut status, options) = (0, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL);
    // SAFETY: waits for the stop at exec of the child just started; the status lives through the call.
    let stopped = unsafe { libc::waitpid(id, &raw mut status, libc::__WALL) == id && libc::WIFSTOPPED(status) };
    // SAFETY: the child is stopped and traced by this thread; the requests take numbers.
    let set = stopped && unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, id, 0, options) == 0 };
    if !set || !go_on(id, 0) {
        // SAFETY: the child is ours and not waited for.
        unsafe {
            libc::kill(id, libc::SIGKILL);
            libc::waitpid(id, &raw mut status, libc::__WALL);
        }
        return None;
    }
    count(id)
}

/// Lets a stopped thread run to its next stop.
fn go_on(thread: libc::pid_t, signal: i32) -> bool {
    // SAFETY: the thread is stopped and traced by this thread; the request takes a number.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, signal) == 0 }
}

/// The number of the system call that the thread enters; None when it leaves one.
fn entered(thread: libc::pid_t) -> Option<u64> {
    let mut info = std::mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    // SAFETY: the thread is stopped at a system call; the structure lives through the call and has the size given. Zeroes
    // are a value of it, and its number is set where the operation says "entry".
    unsafe {
        let size = size_of::<libc::ptrace_syscall_info>();
        libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, info.as_mut_ptr());
        let info = info.assume_init();
        (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(info.u.entry.nr)
    }
}

/// Follows all threads to the end of process `id`.
fn count(id: libc::pid_t) -> Option<u64> {
    let (mut since, mut between, mut marks) = (0u64, None, 0);
    loop {
        let mut status = 0;
        // Any thread that this one traces; what other threads of this process started is theirs to wait for.
        // SAFETY: the status lives through the call.
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if thread < 0 {
            return None;
        }
        if thread == id && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            let whole = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            return between.filter(|_| whole && marks > 1);
        }
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        if signal == AT_CALL {
            match entered(thread) {
                Some(number) if number == MARK as u64 => {
                    marks += 1;
                    between = Some(since);
                    since = 0;
                }
                Some(_) => since += 1,
                None => {}
            }
        }
        // A new thread begins with a stop, and so does the event of its birth; neither is for the program.
        let own = signal == AT_CALL || signal == libc::SIGSTOP || (signal == libc::SIGTRAP && status >> 16 != 0);
        go_on(thread, if own { 0 } else { signal });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_marks_has_no_count() {
        assert_eq!(count_calls(&mut Command::new("true")), None);
    }

    #[test]
    fn the_children_of_other_threads_are_left_to_them() {
        let mut other = Command::new("true").spawn().unwrap();
        // SAFETY: all bits zero are a value, which the call writes to.
        unsafe {
            let mut about: libc::siginfo_t = std::mem::zeroed();
            assert_eq!(libc::waitid(libc::P_PID, other.id(), &raw mut about, libc::WEXITED | libc::WNOWAIT), 0);
        }
        std::thread::spawn(|| count_calls(&mut Command::new("true"))).join().unwrap();
        assert!(other.wait().unwrap().success());
    }
}
