//! The hogs: who takes all memory that can be had, and what becomes free later too.
//!
//! A hog asks the kernel directly and uses no allocator, so that it takes nothing from the worker but what the worker
//! shares with it. One kind is a thread of the worker's process, which reserves addresses; the others are processes
//! in the worker's cgroup, which touch what they get, read a file through the page cache, or have memory promised.
//! *Limits:* a hog never ends by itself; the runner ends it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::board::{Board, Head};
use super::kinds::Kind;

/// Bytes asked for at first; halved at each refusal.
const LARGEST: usize = 256 << 20;
/// Bytes asked for at last: an OS page.
const SMALLEST: usize = 4 << 10;
/// Nanoseconds between two attempts once nothing is left.
const PAUSE: i64 = 200_000;
/// Bytes that a hog in a cgroup touches at a time.
const STEP: usize = 1 << 20;
/// Bytes read or written at a time.
const CHUNK: usize = 256 << 10;

/// Starts the hog of [`Kind::Addresses`].
pub fn start_thread(board: &'static Board) -> io::Result<()> {
    let mut thread = std::mem::MaybeUninit::<libc::pthread_t>::uninit();
    let argument = std::ptr::from_ref(board).cast_mut().cast();
    // Not a thread of the standard library, which would allocate in it.
    // SAFETY: `run` takes what it is given here, a board that lives for ever; the thread's number is written.
    let refused = unsafe { libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), run, argument) };
    if refused == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(refused)) }
}

extern "C" fn run(board: *mut libc::c_void) -> *mut libc::c_void {
    if let Some(others) = super::OTHERS.get() {
        super::keep_to(others);
    }
    // SAFETY: `start_thread` passes a board that lives for ever and is only read through atomics.
    reserve_all(unsafe { &*board.cast::<Board>() }, libc::MAP_NORESERVE)
}

/// Takes addresses, and with them the kernel's promises unless `flags` say otherwise, for ever.
fn reserve_all(board: &Board, flags: i32) -> ! {
    let (mut bytes, mut held) = (LARGEST, 0);
    loop {
        if take(bytes, flags).is_some() {
            held += bytes;
            board.hold(held);
        } else if bytes > SMALLEST {
            bytes /= 2;
        } else {
            full(board);
            Head::count(&board.hog_refused);
            pause();
            bytes = LARGEST;
        }
    }
}

/// Notes the moment from which nothing is left.
fn full(board: &Board) {
    let _ = board.starved.compare_exchange(0, board.begun.load(Relaxed) + 1, Relaxed, Relaxed);
}

fn take(bytes: usize, flags: i32) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: the kernel chooses a free place; nobody else uses what is there.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    (place != libc::MAP_FAILED).then_some(place.cast())
}

fn pause() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: PAUSE };
    // SAFETY: the structure lives through the call; null means that the rest is not wanted.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// A hog that is a process of its own, in the cgroup that the runner has put it into. `limit` is what there is.
pub fn work(board: &Board, kind: Kind, limit: usize) -> io::Result<()> {
    match kind {
        Kind::Cache => fill_cache(board, limit),
        Kind::Overcommit => reserve_all(board, 0),
        Kind::Swap => touch_in_turn(board, 2 * limit),
        _ => touch_all(board, limit),
    }
}

/// Touches memory until no more is given. Who sleeps at the limit for lack of memory, or is ended there, has noted
/// before that this is the moment.
fn touch_all(board: &Board, limit: usize) -> io::Result<()> {
    let mut held = 0;
    let near = limit - limit / 16;
    loop {
        let Some(place) = take(STEP, libc::MAP_NORESERVE) else { return Err(io::Error::last_os_error()) };
        touch(place, STEP);
        held += STEP;
        board.hold(held);
        // The worker holds the rest.
        if usage().is_none_or(|usage| usage >= near) || held >= near {
            full(board);
            Head::count(&board.hog_refused);
        }
    }
}

fn touch(place: *mut u8, bytes: usize) {
    for offset in (0..bytes).step_by(SMALLEST) {
        // SAFETY: inside a mapping of this size, which is this process's alone.
        unsafe { place.add(offset).write_volatile(1) };
    }
}

/// Touches `bytes` bytes, which are more than there are, again and again, so that some of them are always swapped out.
fn touch_in_turn(board: &Board, bytes: usize) -> io::Result<()> {
    let place = take(bytes, libc::MAP_NORESERVE).ok_or_else(io::Error::last_os_error)?;
    loop {
        for offset in (0..bytes).step_by(STEP) {
            touch(place.wrapping_add(offset), STEP.min(bytes - offset));
            board.hold(offset.max(board.hog_most.load(Relaxed) as usize));
            if offset > bytes / 2 {
                full(board);
                Head::count(&board.hog_refused);
            }
        }
    }
}

/// Bytes charged to this process's cgroup, version 1 or 2.
fn usage() -> Option<usize> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let figure = |mount: &str, line: &str, file: &str| {
        let path = format!("{mount}{}/{file}", line.splitn(3, ':').nth(2)?);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    own.lines().find_map(|line| match line {
        line if line.contains(":memory:") => figure("/sys/fs/cgroup/memory", line, "memory.usage_in_bytes"),
        line if line.starts_with("0::") => figure("/sys/fs/cgroup", line, "memory.current"),
        _ => None,
    })
}

/// Writes a file of twice the limit and reads it for ever, so that page cache fills the cgroup and is reclaimed.
fn fill_cache(board: &Board, limit: usize) -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("mempool-starve-{}", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    // The name is not needed any more, and so nothing is left behind.
    std::fs::remove_file(&path)?;
    let mut chunk = vec![1u8; CHUNK];
    for written in (0..2 * limit).step_by(CHUNK) {
        file.write_all(&chunk)?;
        board.hold(written.min(limit));
        if written > limit {
            full(board);
            Head::count(&board.hog_refused);
        }
    }
    loop {
        file.rewind()?;
        while file.read(&mut chunk)? > 0 {
            Head::count(&board.hog_refused);
        }
        std::thread::sleep(Duration::from_micros(1));
    }
}
