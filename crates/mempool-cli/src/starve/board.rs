//! The board: shared memory in which a worker notes every request, and which outlives it.
//!
//! A head of counters, and one word per request. Everything is a Relaxed atomic: each word has one writer, and who
//! reads while the worker lives wants a rough picture; the end of the process orders everything before the final reading.
//! The runner makes it present, and each process maps it present, so that noting something never needs memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a worker and its hog did. All zero at the start.
#[repr(C)]
pub struct Head {
    /// Requests that are to be done.
    pub planned: AtomicU64,
    /// Requests that have been begun.
    pub begun: AtomicU64,
    /// Requests that were done, with the right result.
    pub done: AtomicU64,
    /// Requests given up because an allocation was refused.
    pub failed: AtomicU64,
    /// Requests and sessions whose content was not what it should be.
    pub wrong: AtomicU64,
    /// Bytes of the first allocation that was refused.
    pub refused_bytes: AtomicU64,
    /// 1 from the moment when the hog is to start.
    pub starve: AtomicU64,
    /// Requests begun when the hog first got nothing more, plus 1; 0: not yet.
    pub starved: AtomicU64,
    /// Bytes that the hog holds.
    pub hog_bytes: AtomicU64,
    /// The most that it held.
    pub hog_most: AtomicU64,
    /// How often the hog tried and got nothing more.
    pub hog_refused: AtomicU64,
    /// Page faults of the worker's thread while it was starved.
    pub faults: AtomicU64,
    /// System calls about memory of the worker's thread, where they were counted.
    pub calls: AtomicU64,
    /// Requests in which they were counted, plus 1; 0: they could not be.
    pub counted: AtomicU64,
}

/// A board mapped into this process.
pub struct Board {
    head: NonNull<Head>,
    /// One for each request: nanoseconds from when it was due to its end; 0: not done.
    times: NonNull<AtomicU64>,
    count: usize,
    bytes: usize,
}

// SAFETY: all that is shared are atomics.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Head {
    /// Notes what the hog holds.
    pub fn hold(&self, bytes: usize) {
        self.hog_bytes.store(bytes as u64, Relaxed);
        self.hog_most.fetch_max(bytes as u64, Relaxed);
    }

    /// Counts one more of something.
    pub fn count(counter: &AtomicU64) {
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}

impl Board {
    /// The words of the requests.
    pub fn times(&self) -> &[AtomicU64] {
        // SAFETY: the mapping lives as long as `self` and has `count` words there; any content is a value.
        unsafe { std::slice::from_raw_parts(self.times.as_ptr(), self.count) }
    }
}

impl Deref for Board {
    type Target = Head;

    fn deref(&self) -> &Head {
        // SAFETY: the mapping lives as long as `self` and begins with a head, whose fields are atomics.
        unsafe { self.head.as_ref() }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody can use it after `self`.
        unsafe { libc::munmap(self.head.as_ptr().cast(), self.bytes) };
    }
}

/// A new board for `planned` requests, and its file, which a child process inherits.
pub fn create(planned: u64) -> io::Result<(Board, File)> {
    // SAFETY: the name ends in zero.
    let number = unsafe { libc::memfd_create(c"mempool-starve".as_ptr(), 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is that of a file just opened, which nobody else closes.
    let file = unsafe { File::from_raw_fd(number) };
    file.set_len((size_of::<Head>() + 8 * planned as usize) as u64)?;
    let board = open(file.as_raw_fd())?;
    board.planned.store(planned, Relaxed);
    Ok((board, file))
}

/// The board in the open file `number`.
pub fn open(number: i32) -> io::Result<Board> {
    // SAFETY: all zeros is a valid `stat`.
    let mut about: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: fills a live struct; a wrong `number` is an error.
    if unsafe { libc::fstat(number, &raw mut about) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = about.st_size as usize;
    let (prot, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    // SAFETY: the kernel chooses a free place.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, shared, number, 0) };
    let head = NonNull::new(place.cast::<Head>()).filter(|_| place != libc::MAP_FAILED && bytes >= size_of::<Head>());
    let head = head.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the words lie behind the head, in the mapping.
    let times = unsafe { head.add(1).cast::<AtomicU64>() };
    Ok(Board { head, times, count: (bytes - size_of::<Head>()) / 8, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_mapping_notes_the_other_reads() {
        let (board, file) = create(1000).unwrap();
        let other = open(file.as_raw_fd()).unwrap();
        assert_eq!((other.times().len(), other.planned.load(Relaxed)), (1000, 1000));
        other.times()[999].store(7, Relaxed);
        Head::count(&other.done);
        drop(other);
        assert_eq!((board.times()[999].load(Relaxed), board.done.load(Relaxed)), (7, 1));
        assert!(open(-1).is_err());
    }
}
