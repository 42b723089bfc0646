//! Making the program itself stay: its text, its libraries and its stack locked, its stack present, and a score that
//! keeps the out-of-memory killer away.
//!
//! What is locked is what /proc/self/maps shows at this moment as a private mapping of a file (text, constants, data),
//! the uninitialised data behind such a mapping, the main stack, and the stacks of the threads that there are. The C library
//! keeps a thread's control block at the top of its stack, and has told the kernel an address in it: the head of the list of robust
//! mutexes. The mapping around that address is the thread's stack. It is locked as it becomes present, since whole it would be 8 MiB
//! of memory for each thread. *Limits:* libraries loaded later and stacks of later threads are not locked; nor are shared mappings
//! of files, which are data.

use core::ffi::{CStr, c_int, c_long};

use super::super::{Os, OsError};
use super::files::{digits, each_line, each_number, field, number, write};
use super::{Linux, outcome};

const MAPS: &CStr = c"/proc/self/maps";
/// CAP_IPC_LOCK in CapEff.
const IPC_LOCK: u32 = 14;
/// Bytes below the caller's frame that are left alone, for the frames of what is called meanwhile.
const FRAMES: usize = 64 << 10;
/// Bytes at the far end of the stack that are left alone: the kernel keeps a gap there.
const GAP: usize = 256 << 10;

/// What a mapping is to the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A private mapping of a file, or the uninitialised data behind one.
    Image,
    /// The main thread's stack.
    Stack,
    /// Anything else.
    Other,
}

/// Calls `each` with start, end and kind of every mapping.
fn each_mapping(each: &mut dyn FnMut(usize, usize, Kind)) -> Result<(), OsError> {
    let mut before = (0, Kind::Other);
    each_line(MAPS, &mut |line| {
        if let Some((start, end, mut kind, anonymous)) = mapping(line) {
            if anonymous && before == (start, Kind::Image) {
                kind = Kind::Image;
            }
            before = (end, kind);
            each(start, end, kind);
        }
        true
    })
}

/// Start, end and kind of a line of /proc/self/maps, and whether the mapping is anonymous and nameless.
pub(super) fn mapping(line: &[u8]) -> Option<(usize, usize, Kind, bool)> {
    let (start, rest) = digits(line, 16)?;
    let (end, rest) = digits(rest.strip_prefix(b"-")?, 16)?;
    // Rights, offset, device, inode, and the name behind blanks.
    let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let rights = words.next()?;
    let name = words.nth(3).unwrap_or(&[]);
    let usable = rights.first() == Some(&b'r') && rights.last() == Some(&b'p');
    let kind = match name {
        b"[stack]" => Kind::Stack,
        [b'/', ..] if usable => Kind::Image,
        _ => Kind::Other,
    };
    Some((start, end, kind, name.is_empty() && usable))
}

/// Locks the program. Bytes that are locked now, those that were to be, and the first refusal.
pub fn lock() -> (usize, usize, Result<(), OsError>) {
    let (mut locked, mut wanted, mut result) = (0, 0, Ok(()));
    let mut take = |start, end| {
        wanted += end - start;
        // SAFETY: locking changes no content. A mapping that is gone meanwhile is an error.
        match outcome("mlock", unsafe { libc::mlock(core::ptr::without_provenance(start), end - start) }) {
            Ok(()) => locked += end - start,
            Err(error) => result = result.and(Err(error)),
        }
    };
    let images = each_mapping(&mut |start, end, kind| {
        if kind == Kind::Image {
            take(start, end);
        }
    });
    // What is locked by now counts against the limit.
    let stack = match may_lock_stack() {
        true => each_mapping(&mut |start, end, kind| {
            if kind == Kind::Stack {
                take(start, end);
            }
        }),
        false => {
            // As far as it may grow.
            wanted = wanted.saturating_add(stack_limit());
            Err(OsError { call: "mlock of the stack", errno: OsError::ENOMEM })
        }
    };
    let threads = lock_threads(&mut locked, &mut wanted);
    (locked, wanted, images.and(result).and(stack).and(threads))
}

/// Locks the stacks of all threads but the first. The first refusal; a thread that ends meanwhile is none.
#[inline(never)]
fn lock_threads(locked: &mut usize, wanted: &mut usize) -> Result<(), OsError> {
    let first = Linux.process() as usize;
    let mut result = Ok(());
    each_number(c"/proc/self/task", &mut |thread| {
        if thread != first {
            result = result.and(lock_thread(thread, locked, wanted));
        }
    })?;
    result
}

/// Locks the mapping that holds a thread's control block.
fn lock_thread(thread: usize, locked: &mut usize, wanted: &mut usize) -> Result<(), OsError> {
    let (mut head, mut bytes) = (0usize, 0usize);
    // SAFETY: fills two live words.
    match outcome("get_robust_list", unsafe {
        libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut bytes) as c_int
    }) {
        Err(OsError { errno: libc::ESRCH, .. }) => return Ok(()),
        asked => asked?,
    }
    let mut result = Err(OsError { call: "find the stack of a thread", errno: libc::ENOENT });
    each_mapping(&mut |start, end, _| {
        if (start..end).contains(&head) {
            *wanted += end - start;
            // SAFETY: locking changes no content. A mapping that is gone meanwhile is an error.
            result = outcome("mlock", unsafe {
                libc::syscall(libc::SYS_mlock2, start, end - start, libc::MLOCK_ONFAULT as c_long) as c_int
            });
            if result.is_ok() {
                *locked += end - start;
            }
        }
    })?;
    result
}

/// Bytes that the process has locked, 0 where the kernel does not say.
pub fn locked() -> usize {
    let mut locked = 0;
    // Where it cannot be read nothing is known.
    let _ = each_line(c"/proc/self/status", &mut |line| {
        locked = field(line, b"VmLck").map_or(locked, |kib| kib * 1024);
        true
    });
    locked
}

/// Whether the stack can be locked without harm: a locked stack that outgrows the lock limit kills the process.
fn may_lock_stack() -> bool {
    let Ok(limit) = Linux.lock_limit() else { return false };
    let mut capable = false;
    let read = each_line(c"/proc/self/status", &mut |line| {
        if let Some((rights, _)) = line.strip_prefix(b"CapEff:").and_then(|rest| digits(rest, 16)) {
            capable = rights >> IPC_LOCK & 1 == 1;
        }
        true
    });
    let room = limit.soft == usize::MAX || limit.locked.saturating_add(stack_limit()) <= limit.soft;
    read.is_ok() && (capable || room)
}

/// RLIMIT_STACK in bytes.
fn stack_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills a live struct.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    if got == 0 { super::limit_bytes(limit.rlim_cur) } else { 0 }
}

/// Makes `bytes` of the calling thread's stack below here present, or what its limit allows.
#[inline(never)]
pub fn prefault_stack(bytes: usize) -> Result<(), OsError> {
    let mark = 0u8;
    let here = (&raw const mark).addr();
    let mut lowest = None;
    each_mapping(&mut |start, end, kind| {
        if (start..end).contains(&here) {
            // The main stack grows downwards to its limit; others are mapped whole.
            let floor = if kind == Kind::Stack { end.saturating_sub(stack_limit()) } else { start };
            lowest = Some(floor.saturating_add(GAP));
        }
    })?;
    let lowest = lowest.ok_or(OsError { call: "find the stack", errno: libc::ENOENT })?;
    let short = here.saturating_sub(bytes) < lowest;
    let page = Linux.os_page();
    let mut at = here.saturating_sub(FRAMES);
    let end = here.saturating_sub(bytes).max(lowest);
    while at >= end {
        // SAFETY: below every frame in use and above the stack's end, so nobody's; the kernel makes it present. No
        // signal's frame is live there when this runs.
        unsafe { core::ptr::with_exposed_provenance_mut::<u8>(at).write_volatile(0) };
        at = at.saturating_sub(page);
    }
    if short { Err(OsError { call: "prefault the stack", errno: OsError::ENOMEM }) } else { Ok(()) }
}

/// Lowers the out-of-memory score to `score`, unless it is lower.
pub fn lower_oom_score(score: i32) -> Result<(), OsError> {
    let path = c"/proc/self/oom_score_adj";
    let mut low = false;
    each_line(path, &mut |line| {
        low = line.strip_prefix(b"-").and_then(number).is_some_and(|below| below >= score.unsigned_abs() as usize);
        false
    })?;
    if low {
        return Ok(());
    }
    let mut text = [b'-', 0, 0, 0, 0];
    let (mut rest, mut length) = (score.unsigned_abs().min(1000), 0);
    for place in [1000, 100, 10, 1] {
        let digit = (rest / place) as u8;
        rest %= place;
        if digit > 0 || length > 0 || place == 1 {
            length += 1;
            if let Some(byte) = text.get_mut(length) {
                *byte = b'0' + digit;
            }
        }
    }
    write(path, text.get(..=length).unwrap_or(&text))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_understood() {
        let image = b"55d0c1a00000-55d0c1a21000 r-xp 00002000 08:01 1234   /usr/bin/my program";
        assert_eq!(mapping(image), Some((0x55d0_c1a0_0000, 0x55d0_c1a2_1000, Kind::Image, false)));
        let of = |line: &[u8]| mapping(line).map(|(_, _, kind, anonymous)| (kind, anonymous));
        assert_eq!(of(b"1000-2000 rw-p 00000000 00:00 0 "), Some((Kind::Other, true)));
        assert_eq!(of(b"1000-2000 ---p 00000000 00:00 0 "), Some((Kind::Other, false)));
        assert_eq!(of(b"1000-2000 rw-s 00000000 00:05 9 /data"), Some((Kind::Other, false)));
        assert_eq!(of(b"1000-2000 rw-p 00000000 00:00 0 [stack]"), Some((Kind::Stack, false)));
        assert_eq!(of(b"1000-2000 rw-p 00000000 00:00 0 [anon:mempool]"), Some((Kind::Other, false)));
        assert_eq!((of(b"Size: 4 kB"), of(b"AnonHugePages: 0 kB"), of(b"")), (None, None, None));
    }
}
