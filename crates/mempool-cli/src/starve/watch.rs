//! Counting a thread's system calls about memory, by a seccomp filter that hands each to a second thread.
//!
//! Calls that the filter lets through cost nothing; a counted one waits until the other thread has said "go on". So
//! this happens in requests of its own, whose latency nobody looks at. *Limits:* Linux 5.5; x86-64; where a sandbox
//! forbids it nothing is counted, and the report says so.
#![allow(unsafe_code)]

use std::sync::atomic::{
    AtomicI64, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

/// How often the watched thread asked the kernel for memory, or gave it back.
pub static CALLS: AtomicU64 = AtomicU64::new(0);
/// The listener's descriptor, or one of the states below.
static LISTENER: AtomicI64 = AtomicI64::new(STARTING);

const STARTING: i64 = -3;
const READY: i64 = -2;
const REFUSED: i64 = -1;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
/// BPF: load the word at an offset; compare and jump; return.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// The calls that count.
const ABOUT_MEMORY: [libc::c_long; 7] = [
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mlock,
];

const fn step(code: u16, jump: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: jump, jf: 0, k: value }
}

/// Counts this thread's calls about memory from now on. False where the system does not allow it.
pub fn begin() -> bool {
    let count = ABOUT_MEMORY.len();
    let mut filter = [step(LOAD, 0, 0); ABOUT_MEMORY.len() + 3];
    for (place, (slot, call)) in filter.iter_mut().skip(1).zip(ABOUT_MEMORY).enumerate() {
        // To the last instruction; otherwise on to the next.
        *slot = step(EQUAL, (count - place) as u8, call as u32);
    }
    filter[count + 1] = step(RETURN, 0, RET_ALLOW);
    filter[count + 2] = step(RETURN, 0, RET_NOTIFY);
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // The thread exists before the filter, and so is not watched itself. Nor does it allocate from then on: the watched
    // thread may hold the allocator's lock while it waits for an answer.
    if std::thread::Builder::new().spawn(serve).is_err() {
        return false;
    }
    while LISTENER.load(Acquire) == STARTING {
        std::thread::sleep(Duration::from_micros(100));
    }
    let (mode, listen) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: plain numbers, and a filter that lives through the call; the filter holds for this thread alone.
    let listener = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(libc::SYS_seccomp, mode, listen, &raw const program)
    };
    LISTENER.store(if listener >= 0 { listener } else { REFUSED }, Release);
    listener >= 0
}

/// Lets every call go on, and counts it.
fn serve() {
    LISTENER.store(READY, Release);
    let listener = loop {
        match LISTENER.load(Acquire) {
            READY => std::thread::sleep(Duration::from_micros(100)),
            REFUSED => return,
            listener => break listener as i32,
        }
    };
    loop {
        // SAFETY: all zeros is what the kernel wants to see and fills.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: fills a live struct.
        if unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            return;
        }
        CALLS.fetch_add(1, Relaxed);
        let go_on = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: go_on };
        // SAFETY: reads a live struct. A thread that is gone needs no answer.
        unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_about_memory_are_counted_and_others_are_not() {
        let worker = std::thread::spawn(|| {
            if !begin() {
                return None;
            }
            // SAFETY: plain calls; the mapping is given back.
            unsafe {
                let before = CALLS.load(Relaxed);
                for _ in 0..10 {
                    libc::getppid();
                }
                assert_eq!(CALLS.load(Relaxed), before);
                let place = libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                libc::munmap(place, 4096);
                Some(CALLS.load(Relaxed) - before)
            }
        });
        let counted = worker.join().unwrap();
        assert!(counted.is_none_or(|count| count == 2), "{counted:?}");
    }
}
