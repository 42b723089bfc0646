//! The board: shared memory in which the worker counts, and which outlives it.
//!
//! Counts are Relaxed atomics: each has one writer, and who reads them while the worker lives wants a rough picture;
//! the end of the process orders everything before the final reading.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Latencies are counted in buckets: 8 for each power of two, so that a figure read back is at most an eighth too high.
const BUCKETS: usize = 64 * STEPS;
const STEPS: usize = 8;
const STEP_BITS: u32 = STEPS.trailing_zeros();

/// What a worker and its hog did. All zero at the start.
#[repr(C)]
pub struct Board {
    /// Requests that are to be done.
    pub planned: AtomicU64,
    /// Requests that were done, with the right result.
    pub done: AtomicU64,
    /// Requests given up because an allocation was refused.
    pub failed: AtomicU64,
    /// Requests and sessions whose content was not what it should be.
    pub wrong: AtomicU64,
    /// Bytes of the first allocation that was refused.
    pub refused_bytes: AtomicU64,
    /// Bytes that the hog holds.
    pub hog_bytes: AtomicU64,
    /// How often the hog tried and got nothing more.
    pub hog_refused: AtomicU64,
    /// The longest latency in nanoseconds.
    pub worst: AtomicU64,
    latencies: [AtomicU64; BUCKETS],
}

impl Board {
    /// Counts one more of something.
    pub fn count(counter: &AtomicU64) {
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }

    /// Notes how long a request took.
    pub fn note(&self, nanoseconds: u64) {
        if let Some(bucket) = self.latencies.get(bucket(nanoseconds)) {
            Self::count(bucket);
        }
        if nanoseconds > self.worst.load(Relaxed) {
            self.worst.store(nanoseconds, Relaxed);
        }
    }

    /// The latency in nanoseconds that `share` of the requests stayed within.
    pub fn quantile(&self, share: f64) -> u64 {
        let all: u64 = self.latencies.iter().map(|bucket| bucket.load(Relaxed)).sum();
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.latencies.iter().position(|bucket| {
            seen += bucket.load(Relaxed);
            seen >= wanted
        });
        reached.map_or(0, |bucket| upper_end(bucket).min(self.worst.load(Relaxed)))
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let power = nanoseconds.max(STEPS as u64).ilog2() - STEP_BITS;
    (power as usize) * STEPS + (nanoseconds >> power) as usize
}

/// The largest latency that the bucket counts.
fn upper_end(bucket: usize) -> u64 {
    if bucket < 2 * STEPS {
        return bucket as u64;
    }
    let power = bucket / STEPS - 1;
    (((STEPS + bucket % STEPS) as u64 + 1) << power) - 1
}

/// A board mapped into this process.
pub struct Mapped(NonNull<Board>);

impl Deref for Mapped {
    type Target = Board;

    fn deref(&self) -> &Board {
        // SAFETY: the mapping lives as long as `self`, is as large as a board, aligned to an OS page, and all its
        // fields are atomics, for which any content is a value.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody can use it after `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Board>()) };
    }
}

/// A new board, and its file, which a child process inherits.
pub fn create() -> io::Result<(Mapped, File)> {
    // SAFETY: the name ends in zero.
    let number = unsafe { libc::memfd_create(c"mempool-starve".as_ptr(), 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is that of a file just opened, which nobody else closes.
    let file = unsafe { File::from_raw_fd(number) };
    file.set_len(size_of::<Board>() as u64)?;
    Ok((open(file.as_raw_fd())?, file))
}

/// The board in the open file `number`.
pub fn open(number: i32) -> io::Result<Mapped> {
    let (prot, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: the kernel chooses a free place; a wrong `number` is an error.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<Board>(), prot, shared, number, 0) };
    match NonNull::new(place.cast::<Board>()) {
        Some(board) if place != libc::MAP_FAILED => Ok(Mapped(board)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_hold_what_they_say() {
        let mut last = 0;
        for value in (0..100_000).chain((17..64).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let at = bucket(value);
            assert!(at == last || at == last + 1 || value > 100_000, "{value}: {last} to {at}");
            assert!(at < BUCKETS && upper_end(at) >= value && (at == 0 || upper_end(at - 1) < value), "{value}: {at}");
            assert!(upper_end(at) - value <= value / STEPS as u64, "{value}: {}", upper_end(at));
            last = at;
        }
        assert_eq!(bucket(u64::MAX), bucket(u64::MAX - 1));
    }

    #[test]
    fn quantiles_come_from_the_notes_of_all_requests() {
        let (board, _file) = create().unwrap();
        assert_eq!((board.quantile(0.5), board.quantile(0.99)), (0, 0));
        for value in 1..=1000 {
            board.note(value);
        }
        assert!((500..=562).contains(&board.quantile(0.5)), "{}", board.quantile(0.5));
        assert!((990..=1000).contains(&board.quantile(0.99)));
        assert_eq!(board.worst.load(Relaxed), 1000);
        assert_eq!(board.quantile(1.0), 1000);
    }
}
