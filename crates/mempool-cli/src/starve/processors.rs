//! Which processor the workers have, and how it is theirs alone.
//!
//! *Limits:* `--isolate` keeps the kernel's unbound work off, which writes files out; what belongs to a processor (its timer, its interrupts) and
//! kswapd stay. Killed by SIGKILL the command leaves the mask as it set it.
#![allow(unsafe_code)]

use std::path::PathBuf;

use crate::ending::{self, Kept, Thing};
use crate::failure::Failure;

/// Where the kernel's work that is bound to no processor may run: a mask in groups of 32 bits.
const UNBOUND: &str = "/sys/devices/virtual/workqueue/cpumask";

/// The processors that this process may run on.
pub fn processors() -> Vec<usize> {
    // SAFETY: all zeros is the empty set, and the call fills at most the size it is told.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        set
    };
    // SAFETY: numbers within the set.
    (0..libc::CPU_SETSIZE as usize).filter(|number| unsafe { libc::CPU_ISSET(*number, &set) }).collect()
}

/// Keeps the calling thread, and what it starts, to these processors.
pub fn keep_to(processors: &[usize]) {
    // SAFETY: all zeros is the empty set; numbers within it; the call reads it. Where it is refused all stays as it is.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        processors.iter().for_each(|number| libc::CPU_SET(*number, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Leaves to the workers the processor that devices have interrupted least, so that what is measured is the lack of memory and not of
/// processors: a hog that writes files makes disks busy. Its number; None where there is only one.
pub fn apart() -> Option<usize> {
    let mut all = processors();
    if all.len() < 2 {
        return None;
    }
    let counts = interrupts(&std::fs::read_to_string("/proc/interrupts").unwrap_or_default());
    // Of those that are alike the last.
    let quietest = all.iter().rev().min_by_key(|&&number| counts.get(number).copied().unwrap_or(0)).copied()?;
    all.retain(|&number| number != quietest);
    keep_to(&all);
    Some(quietest)
}

/// How often devices have interrupted each processor, by its number: the lines of /proc/interrupts that begin with a number.
fn interrupts(text: &str) -> Vec<u64> {
    let mut lines = text.lines();
    let named = |word: &str| word.strip_prefix("CPU").and_then(|number| number.parse::<usize>().ok());
    let columns: Vec<usize> = lines.next().unwrap_or_default().split_whitespace().filter_map(named).collect();
    let mut counts = vec![0; columns.iter().max().map_or(0, |most| most + 1)];
    for line in lines {
        let mut words = line.split_whitespace();
        let is_device = words.next().is_some_and(|name| name.trim_end_matches(':').parse::<u32>().is_ok());
        for (count, number) in words.zip(&columns).filter(|_| is_device) {
            if let (Some(sum), Ok(count)) = (counts.get_mut(*number), count.parse::<u64>()) {
                *sum += count;
            }
        }
    }
    counts
}

/// The kernel's own work, kept off a processor while this lives.
pub struct Isolation {
    before: String,
    _kept: Kept,
}

impl Drop for Isolation {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = std::fs::write(UNBOUND, &self.before);
    }
}

/// Keeps the kernel's own work off `processor`.
///
/// # Errors
/// There is but one processor, or the system refuses.
pub fn isolate(processor: Option<usize>) -> Result<Isolation, Failure> {
    let Some(processor) = processor else {
        let failure = Failure::own("--isolate: there is one processor, which workers cannot have alone");
        return Err(failure.fix("run it where it may use two, or do without --isolate"));
    };
    let refused = |error: std::io::Error| {
        Failure::own(format_args!("--isolate: {UNBOUND}: {error}")).fix("run it as root, or do without --isolate")
    };
    let before = std::fs::read_to_string(UNBOUND).map_err(refused)?;
    let Some(mask) = without(before.trim(), processor) else {
        let message = format!("--isolate: {UNBOUND} leaves the kernel no other processor: {}", before.trim());
        return Err(Failure::own(message).fix("add another one to that mask, or do without --isolate"));
    };
    let thing = Thing::Text(PathBuf::from(UNBOUND), before.clone());
    let ((), kept) = ending::keep(|| std::fs::write(UNBOUND, mask), |()| thing).map_err(refused)?;
    Ok(Isolation { before, _kept: kept })
}

/// `mask`, groups of 32 bits in hexadecimal digits, the highest first, without a processor. None if none is left, or it is no mask.
fn without(mask: &str, processor: usize) -> Option<String> {
    let groups: Option<Vec<u32>> = mask.split(',').map(|group| u32::from_str_radix(group, 16).ok()).collect();
    let mut groups = groups?;
    if let Some(group) = groups.iter_mut().rev().nth(processor / 32) {
        *group &= !(1 << (processor % 32));
    }
    let text: Vec<String> = groups.iter().map(|group| format!("{group:08x}")).collect();
    groups.iter().any(|group| *group != 0).then(|| text.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_interrupts_are_counted_by_processor() {
        let text = "           CPU0       CPU2       \n 24:  1  20   IO-APIC   5-edge\n 36:  3  400  PCI-MSIX  virtio1-req.0\nLOC:  5000  6000   Local timer\n";
        assert_eq!(interrupts(text), [4, 0, 420]);
        assert!(interrupts("").is_empty());
    }

    #[test]
    fn masks_lose_one_processor() {
        assert_eq!(without("3", 0).as_deref(), Some("00000002"));
        assert_eq!(without("ffffffff,00000003", 33).as_deref(), Some("fffffffd,00000003"));
        assert_eq!(without("ff", 40).as_deref(), Some("000000ff"), "it was not there");
        assert_eq!((without("2", 1), without("", 0), without("x", 0)), (None, None, None));
    }
}
