//! How much memory there still is: the machine's, and that of each memory cgroup around the process. And how much of a range
//! is there.
//!
//! A segment that is made present beyond that wakes the killer, which ends some process, this one or another. So it is
//! asked for beforehand. Page cache counts as available, since the kernel drops it first; swap does not, since what
//! is swapped is not there. *Limits:* a figure of this moment; others may take it in the next.

use core::ffi::CStr;

use super::super::{Available, Bound, OsError, Range};
use super::files::{each_line, field, number_in};
use super::outcome;

/// Bytes of a path that is looked at.
const PATH: usize = 1024;

/// Where cgroups of version 2 are mounted, in the order of trial, and of version 1.
const UNIFIED: [&[u8]; 2] = [b"/sys/fs/cgroup", b"/sys/fs/cgroup/unified"];
const MEMORY: [&[u8]; 1] = [b"/sys/fs/cgroup/memory"];

/// A path that is put together on the stack. One for all: a thread's may have 16 KiB.
struct Path {
    bytes: [u8; PATH],
    len: usize,
}

impl Path {
    /// Puts `part` behind it; false, and nothing is changed, where that is too long.
    fn push(&mut self, part: &[u8]) -> bool {
        let end = self.len + part.len();
        // There must be room for a final NUL.
        let Some(room) = self.bytes.get_mut(self.len..end).filter(|_| end < PATH) else { return false };
        room.copy_from_slice(part);
        self.len = end;
        true
    }

    /// The path of `file` in the folder that it is, for as long as `f` takes; None where that is too long.
    fn with<R>(&mut self, file: &[u8], f: impl FnOnce(&CStr) -> R) -> Option<R> {
        let folder = self.len;
        let fits = self.push(file) && self.push(b"\0");
        let path = self.bytes.get(..self.len).filter(|_| fits);
        let result = path.and_then(|path| CStr::from_bytes_until_nul(path).ok()).map(f);
        self.len = folder;
        result
    }

    /// Goes up a folder, unless it has only `least` bytes; then false.
    fn climb(&mut self, least: usize) -> bool {
        let below = self.bytes.get(least..self.len).and_then(|path| path.iter().rposition(|byte| *byte == b'/'));
        below.inspect(|end| self.len = least + end).is_some()
    }
}

/// The names of one version's files.
struct Names {
    /// Limits, of which the lowest counts.
    limits: &'static [&'static [u8]],
    usage: &'static [u8],
    /// Lines of memory.stat that count page cache.
    cache: [&'static [u8]; 2],
    bound: Bound,
}

const V2: Names = Names {
    limits: &[b"/memory.max", b"/memory.high"],
    usage: b"/memory.current",
    cache: [b"inactive_file", b"active_file"],
    bound: Bound::Cgroup2,
};

const V1: Names = Names {
    limits: &[b"/memory.limit_in_bytes"],
    usage: b"/memory.usage_in_bytes",
    cache: [b"total_inactive_file", b"total_active_file"],
    bound: Bound::Cgroup1,
};

/// The least that is available under any bound.
pub fn available() -> Result<Available, OsError> {
    let mut least = Available { bytes: usize::MAX, bound: Bound::Machine };
    each_line(c"/proc/meminfo", &mut |line| match field(line, b"MemAvailable") {
        Some(kib) => {
            least.bytes = kib.saturating_mul(1024);
            false
        }
        None => true,
    })?;
    let mut path = Path { bytes: [0; PATH], len: 0 };
    UNIFIED.iter().for_each(|mount| look(&mut path, mount, &V2, &mut least));
    MEMORY.iter().for_each(|mount| look(&mut path, mount, &V1, &mut least));
    Ok(least)
}

/// Looks at the process's cgroup below `mount` and all above it. In a container the path may be that of the outside: what does not
/// exist is passed over, and the mount's own root is the container's cgroup.
fn look(path: &mut Path, mount: &[u8], names: &Names, least: &mut Available) {
    if !is_of(path, mount, names.bound) {
        return;
    }
    loop {
        if let Some(bytes) = room(path, names).filter(|bytes| *bytes < least.bytes) {
            *least = Available { bytes, bound: names.bound };
        }
        if !path.climb(mount.len()) {
            return;
        }
    }
}

/// Makes `path` that of the process's cgroup of a version below `mount`. False where it is in none, or the path is too long.
fn is_of(path: &mut Path, mount: &[u8], version: Bound) -> bool {
    let mut found = false;
    // Without this file there are no cgroups.
    let _ = each_line(c"/proc/self/cgroup", &mut |line| {
        // number:controllers:path
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (number, controllers) = (parts.next().unwrap_or(&[]), parts.next().unwrap_or(&[]));
        let below = parts.next().unwrap_or(&[]);
        let wanted = match version {
            Bound::Cgroup1 => controllers.split(|byte| *byte == b',').any(|name| name == b"memory"),
            _ => number == b"0" && controllers.is_empty(),
        };
        if wanted {
            path.len = 0;
            found = path.push(mount) && path.push(below.strip_suffix(b"/").unwrap_or(below));
        }
        !wanted
    });
    found
}

/// Bytes that the cgroup at `path` may still take; None where it has no limit.
fn room(path: &mut Path, names: &Names) -> Option<usize> {
    let mut figure = |file: &[u8]| path.with(file, number_in)?.ok().flatten();
    let limit = names.limits.iter().filter_map(|file| figure(file)).min()?;
    let mut used = figure(names.usage)?;
    // Where the page cache is unknown nothing is taken off.
    let _ = path.with(b"/memory.stat", |path| {
        each_line(path, &mut |line| {
            let cache: usize = names.cache.iter().filter_map(|name| field(line, name)).sum();
            used = used.saturating_sub(cache);
            true
        })
    });
    Some(limit.saturating_sub(used))
}

/// Bytes of the range, whole OS pages of `page` bytes, that are in memory and mapped.
pub fn present(range: Range, page: usize) -> Result<usize, OsError> {
    // Never 0: then no division can panic.
    let (page, mut says) = (page.max(1), [0u8; 256]);
    let (mut at, mut left, mut found) = (range.start, range.bytes, 0);
    while left > 0 {
        let bytes = left.min(says.len() * page);
        // SAFETY: fills a byte for each OS page, of which there are as many; reads no memory of the range.
        outcome("mincore", unsafe { libc::mincore(at.cast(), bytes, says.as_mut_ptr()) })?;
        found += says.iter().take(bytes / page).filter(|says| *says & 1 != 0).count() * page;
        at = at.wrapping_add(bytes);
        left -= bytes;
    }
    Ok(found)
}
