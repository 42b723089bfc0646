//! The hog: a thread that takes all address space the process may have, and what becomes free later too.
//!
//! It asks the kernel directly and uses no allocator, so that it takes nothing from the worker but what the worker
//! shares with the rest of the process. *Limits:* it never ends; the process's end ends it.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::board::Board;

/// Bytes asked for at first; halved at each refusal.
const LARGEST: usize = 256 << 20;
/// Bytes asked for at last: an OS page.
const SMALLEST: usize = 4 << 10;
/// Nanoseconds between two attempts once nothing is left.
const PAUSE: i64 = 200_000;

/// Starts the hog.
pub fn start(board: &'static Board) -> io::Result<()> {
    let mut thread = std::mem::MaybeUninit::<libc::pthread_t>::uninit();
    let argument = std::ptr::from_ref(board).cast_mut().cast();
    // Not a thread of the standard library, which would allocate in it.
    // SAFETY: `run` takes what it is given here, a board that lives for ever; the thread's number is written.
    let refused = unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), run, argument) };
    if refused == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(refused)) }
}

extern "C" fn run(board: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `start` passes a board that lives for ever and is only read through atomics.
    let board = unsafe { &*board.cast::<Board>() };
    let mut bytes = LARGEST;
    loop {
        if take(bytes) {
            board.hog_bytes.fetch_add(bytes as u64, Relaxed);
        } else if bytes > SMALLEST {
            bytes /= 2;
        } else {
            Board::count(&board.hog_refused);
            pause();
            bytes = LARGEST;
        }
    }
}

fn take(bytes: usize) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses a free place; nobody uses what is there.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    place != libc::MAP_FAILED
}

fn pause() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: PAUSE };
    // SAFETY: the structure lives through the call; null means that the rest is not wanted.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}
