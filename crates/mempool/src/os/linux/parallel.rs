//! Prefaulting on all cores at once: the kernel clears some gigabytes a second on each.
//!
//! The first request of a process may make its pool, before the C library is up and while `malloc` is us. So the
//! helpers are no threads of the C library, whose start would allocate: each is a bare task that shares everything with
//! the caller, makes one `madvise` and ends. It has no stack and no thread-local storage: between its start and its end
//! lie a few instructions, all in one assembler block, that touch neither. Signals are blocked meanwhile, so
//! that no handler runs on it.
//!
//! *Limits:* x86-64; elsewhere, and where the kernel or a sandbox refuses a task, the caller does that part itself.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::super::{OsError, Range};

/// Bytes that are worth a task of their own.
const PART: usize = 16 << 20;
/// Parts begin at multiples of this, so that no huge OS page is cut.
const ALIGN: usize = 2 << 20;
/// Most tasks, the caller included.
const TASKS: usize = 64;

/// What one helper shares with the caller. The kernel clears `alive` when the helper is gone, and wakes the caller.
struct Helper {
    alive: AtomicU32,
    result: AtomicI64,
}

/// `madvise(advice)` over the range, by as many tasks as there are cores. `alone` does it for a part, in this task.
///
/// # Safety
///
/// As `madvise` asks for `advice`, and the advice may be given part by part.
pub unsafe fn advise(
    range: Range,
    advice: c_int,
    cores: usize,
    alone: &dyn Fn(Range) -> Result<(), OsError>,
) -> Result<(), OsError> {
    let tasks = cores.min(range.bytes / PART).clamp(1, TASKS);
    if tasks == 1 || !cfg!(target_arch = "x86_64") {
        return alone(range);
    }
    let helpers = [const { Helper { alive: AtomicU32::new(0), result: AtomicI64::new(0) } }; TASKS];
    let part = |index: usize| part(range, tasks, index);
    let blocked = block_signals();
    for (index, helper) in helpers.iter().enumerate().take(tasks).skip(1) {
        // SAFETY: `wait` below lets the helper end before anything that it uses goes away.
        unsafe { start(helper, part(index), advice) };
    }
    let mut result = alone(part(0));
    for (index, helper) in helpers.iter().enumerate().take(tasks).skip(1) {
        wait(&helper.alive);
        // A helper that could not start, or failed: the same again in this task, which has an errno to tell.
        if helper.result.load(Ordering::Acquire) != 0 && result.is_ok() {
            result = alone(part(index));
        }
    }
    restore_signals(&blocked);
    result
}

/// Part `index` of `tasks` of the range.
fn part(range: Range, tasks: usize, index: usize) -> Range {
    let first = range.start.addr();
    let cut = |index: usize| match index {
        0 => 0,
        _ if index == tasks => range.bytes,
        _ => ((first + range.bytes / tasks * index).next_multiple_of(ALIGN) - first).min(range.bytes),
    };
    Range::new(range.start.wrapping_add(cut(index)), cut(index + 1) - cut(index))
}

fn block_signals() -> MaybeUninit<libc::sigset_t> {
    let (mut all, mut before) = (MaybeUninit::<libc::sigset_t>::uninit(), MaybeUninit::uninit());
    // SAFETY: `sigfillset` makes the set valid before it is read; the old mask is written.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    before
}

fn restore_signals(before: &MaybeUninit<libc::sigset_t>) {
    // SAFETY: written by `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), core::ptr::null_mut()) };
}

/// Starts a helper; where that is refused it counts as failed.
///
/// # Safety
///
/// `helper` stays until [`wait`] has seen it end; `part` is fit for `advice`.
#[cfg(target_arch = "x86_64")]
unsafe fn start(helper: &Helper, part: Range, advice: c_int) {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_CHILD_CLEARTID;
    helper.result.store(1, Ordering::Relaxed);
    helper.alive.store(1, Ordering::Relaxed);
    let task: i64;
    // SAFETY: the helper gets a copy of all registers, uses no stack (the block pushes and calls nothing, and no signal
    // can strike), writes to `result` alone, and never leaves the block. For the caller the block is one system call.
    unsafe {
        core::arch::asm!(
            "syscall",              // clone
            "test rax, rax",
            "jnz 2f",
            "mov rdi, {start}",
            "mov rsi, {bytes}",
            "mov edx, {advice:e}",
            "mov eax, {madvise}",
            "syscall",
            "mov qword ptr [{result}], rax",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            start = in(reg) part.start,
            bytes = in(reg) part.bytes,
            advice = in(reg) advice,
            result = in(reg) helper.result.as_ptr(),
            madvise = const libc::SYS_madvise,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone => task,
            inlateout("rdi") i64::from(flags) => _,
            inlateout("rsi") 0i64 => _,
            inlateout("rdx") 0i64 => _,
            in("r10") helper.alive.as_ptr(),
            in("r8") 0i64,
            // Not `lateout`: the inputs are read after the first system call, which destroys both.
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    if task < 0 {
        helper.alive.store(0, Ordering::Relaxed);
    }
}

/// No helpers here: each counts as failed.
///
/// # Safety
///
/// None is asked here.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn start(helper: &Helper, _: Range, _: c_int) {
    helper.result.store(1, Ordering::Relaxed);
}

/// Waits until the kernel has cleared the word.
fn wait(alive: &AtomicU32) {
    while alive.load(Ordering::Acquire) != 0 {
        let forever: *const libc::timespec = core::ptr::null();
        // SAFETY: waits on a live word. The kernel wakes as for a shared futex, so this is no private one.
        unsafe { libc::syscall(libc::SYS_futex, alive.as_ptr(), libc::FUTEX_WAIT, 1, forever) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_range_and_cut_no_huge_page() {
        for (start, bytes) in [(0x1000usize, 100 << 20), (0x20_0000, 64 << 20), (0x7000, 33 << 20), (0, 16 << 20)] {
            for tasks in 1..=8 {
                let range = Range::new(core::ptr::without_provenance_mut(start), bytes);
                let mut at = start;
                for index in 0..tasks {
                    let part = part(range, tasks, index);
                    assert_eq!(part.start.addr(), at);
                    assert!(index == 0 || at.is_multiple_of(ALIGN) || part.bytes == 0, "{at:#x}");
                    at += part.bytes;
                }
                assert_eq!(at, start + bytes);
            }
        }
    }
}
