//! Reading the time around single operations: the processor's time stamp counter where there is one, else the system's
//! clock.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// The counter's value; what is before it in the program is done, what is behind it has not begun.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[must_use]
pub fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 processor has these instructions; they touch no memory.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

/// Nanoseconds of the system's steady clock.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn ticks() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives through the call, which fills it.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The clock and the counter at one moment: of several readings the one in which least time passed, since a thread may have to wait for its
/// processor between the two.
fn moment() -> (Instant, u64) {
    let reading = || {
        let (before, ticks) = (Instant::now(), ticks());
        (before.elapsed(), before, ticks)
    };
    let (_, time, ticks) = (0..9).map(|_| reading()).min_by_key(|(passed, ..)| *passed).unwrap_or_else(reading);
    (time, ticks)
}

/// Nanoseconds of one tick, measured for 20 ms.
#[must_use]
pub fn nanoseconds_per_tick() -> f64 {
    let (begin, first) = moment();
    while begin.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    let (end, last) = moment();
    end.duration_since(begin).as_nanos() as f64 / (last - first).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_of_the_clock() {
        let tick = nanoseconds_per_tick();
        let (begin, first) = moment();
        std::thread::sleep(Duration::from_millis(50));
        let (end, last) = moment();
        let (by_ticks, by_clock) = ((last - first) as f64 * tick, end.duration_since(begin).as_nanos() as f64);
        assert!((by_ticks / by_clock - 1.0).abs() < 0.1, "{by_ticks} against {by_clock}");
    }
}
