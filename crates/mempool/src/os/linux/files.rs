//! Reading the kernel's files (/proc, /sys) line by line, without allocation and without cancellation points.

use core::ffi::{CStr, c_int, c_long};

use super::super::OsError;
use super::errno;

/// Bytes of a line that are looked at; the rest of a longer one is passed over.
const LINE: usize = 1024;

/// An open file, closed when dropped.
struct File(c_int);

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: ours, and used no more.
        unsafe { libc::syscall(libc::SYS_close, c_long::from(self.0)) };
    }
}

fn open(path: &CStr, flags: c_int) -> Result<File, OsError> {
    // SAFETY: the kernel reads a text that ends in NUL.
    let file = unsafe {
        libc::syscall(
            libc::SYS_openat,
            c_long::from(libc::AT_FDCWD),
            path.as_ptr(),
            c_long::from(flags | libc::O_CLOEXEC),
            0 as c_long,
        )
    };
    if file < 0 { Err(OsError { call: "open", errno: errno() }) } else { Ok(File(file as c_int)) }
}

/// Reads what there is, up to the buffer's length; 0 at the end.
fn read(file: &File, buffer: &mut [u8]) -> Result<usize, OsError> {
    loop {
        // SAFETY: the kernel fills at most a live slice.
        let got = unsafe { libc::syscall(libc::SYS_read, c_long::from(file.0), buffer.as_mut_ptr(), buffer.len()) };
        match usize::try_from(got) {
            Ok(got) => return Ok(got),
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return Err(OsError { call: "read", errno: errno() }),
        }
    }
}

/// The bytes from `from` to `to`. Without a panic, which must not be in reach of an allocation.
fn part(buffer: &[u8], from: usize, to: usize) -> &[u8] {
    buffer.get(from..to).unwrap_or(&[])
}

/// Calls `each` with the lines of a file, without their ends, until it says false.
// Not inlined: its buffer would be on the stack of whatever else its caller calls.
#[inline(never)]
pub fn each_line(path: &CStr, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), OsError> {
    let file = open(path, libc::O_RDONLY)?;
    let mut buffer = [0u8; 2 * LINE];
    let mut filled = 0;
    let mut skipping = false;
    loop {
        let got = read(&file, buffer.get_mut(filled..).unwrap_or(&mut []))?;
        filled += got;
        let mut at = 0;
        while let Some(length) = part(&buffer, at, filled).iter().position(|byte| *byte == b'\n') {
            if !core::mem::take(&mut skipping) && !each(part(&buffer, at, at + length)) {
                return Ok(());
            }
            at += length + 1;
        }
        if got == 0 {
            if at < filled && !skipping {
                each(part(&buffer, at, filled));
            }
            return Ok(());
        }
        for to in 0..filled - at {
            let byte = buffer.get(at + to).copied().unwrap_or(0);
            buffer.get_mut(to).into_iter().for_each(|place| *place = byte);
        }
        filled -= at;
        if filled >= LINE {
            // A line without end: its beginning counts.
            if !skipping && !each(part(&buffer, 0, filled)) {
                return Ok(());
            }
            skipping = true;
            filled = 0;
        }
    }
}

/// Calls `each` with the names in a folder that are numbers.
#[inline(never)]
pub fn each_number(path: &CStr, each: &mut dyn FnMut(usize)) -> Result<(), OsError> {
    /// Bytes of an entry before its name: inode, offset, length, kind.
    const HEAD: usize = 19;
    let folder = open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
    let mut buffer = [0u64; LINE / 8];
    loop {
        // SAFETY: the kernel fills at most a live array, whose alignment is that of an entry.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, c_long::from(folder.0), buffer.as_mut_ptr(), LINE) };
        let got = usize::try_from(got).map_err(|_| OsError { call: "getdents", errno: errno() })?;
        if got == 0 {
            return Ok(());
        }
        // SAFETY: the array's bytes, all of which have values.
        let bytes = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), got.min(LINE)) };
        let mut at = 0;
        while let Some(&[low, high]) = bytes.get(at + HEAD - 3..at + HEAD - 1) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            if let Some(found) = number(part(bytes, at + HEAD, at + length)) {
                each(found);
            }
            at += length.max(HEAD);
        }
    }
}

/// The number at the start of the file; None where there is none, as in `max`.
pub fn number_in(path: &CStr) -> Result<Option<usize>, OsError> {
    let mut found = None;
    each_line(path, &mut |line| {
        found = number(line);
        false
    })?;
    Ok(found)
}

/// Writes `text` with one call.
pub fn write(path: &CStr, text: &[u8]) -> Result<(), OsError> {
    let file = open(path, libc::O_WRONLY)?;
    // SAFETY: the kernel reads a live slice.
    let wrote = unsafe { libc::syscall(libc::SYS_write, c_long::from(file.0), text.as_ptr(), text.len()) };
    if wrote < 0 { Err(OsError { call: "write", errno: errno() }) } else { Ok(()) }
}

/// The decimal number at the start of `text`, behind blanks.
pub fn number(text: &[u8]) -> Option<usize> {
    digits(text, 10).map(|(value, _)| value)
}

/// The number in `radix` at the start of `text`, behind blanks, and the rest.
pub fn digits(text: &[u8], radix: u32) -> Option<(usize, &[u8])> {
    let text = text.trim_ascii_start();
    let length = text.iter().take_while(|byte| char::from(**byte).is_digit(radix)).count();
    let mut value = 0usize;
    for byte in text.get(..length)? {
        let digit = char::from(*byte).to_digit(radix)? as usize;
        value = value.checked_mul(radix as usize)?.checked_add(digit)?;
    }
    (length > 0).then_some((value, text.get(length..)?))
}

/// The figure behind `name` in a line `name: figure` or `name figure`.
pub fn field(line: &[u8], name: &[u8]) -> Option<usize> {
    let rest = line.strip_prefix(name)?;
    match rest.first()? {
        b':' | b' ' | b'\t' => number(rest.get(1..)?),
        _ => None,
    }
}
