//! What kind of file a program is, from its first bytes: as much of the ELF format as that takes.
//!
//! *Limits:* little-endian 64-bit programs are read further than their first 20 bytes; program headers beyond the
//! 65,534th do not count.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins with `#!`.
    Script,
    /// A program of this machine's kind, with the path of its dynamic linker.
    Dynamic(Vec<u8>),
    /// A program of this machine's kind without a dynamic linker.
    Static,
    /// A program of another address width.
    OtherWidth,
    /// A program for another processor.
    OtherMachine(String),
    /// An ELF file that is no program.
    NoProgram,
    /// None of these.
    Unknown,
}

/// The header, the header of a segment, and where fields lie in them (64 bits).
const HEADER: usize = 64;
const TYPE: usize = 16;
const MACHINE: usize = 18;
const TABLE: usize = 32;
const ENTRY_BYTES: usize = 54;
const ENTRIES: usize = 56;
const ENTRY: usize = 56;
const ENTRY_OFFSET: usize = 8;
const ENTRY_FILE_BYTES: usize = 32;

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u64 = 2;
const SHARED: u64 = 3;
const INTERPRETER: u64 = 3;
/// Longest path of a dynamic linker that is read.
const PATH_MOST: u64 = 4096;

/// Processors by their number.
const MACHINES: [(u64, &str); 10] = [
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// The kind of `file`.
pub fn kind(file: &mut File) -> io::Result<Kind> {
    let mut header = [0; HEADER];
    let read = read_up_to(file, &mut header, 0)?;
    let header = header.get(..read).unwrap_or(&header);
    if header.starts_with(b"#!") {
        return Ok(Kind::Script);
    }
    let [0x7F, b'E', b'L', b'F', class, order, ..] = *header else { return Ok(Kind::Unknown) };
    if order != LITTLE_ENDIAN || class != CLASS_64 {
        return Ok(foreign(header, class, order));
    }
    if read < HEADER {
        return Ok(Kind::NoProgram);
    }
    let machine = field(header, MACHINE, 2);
    let name = machine_name(machine);
    if name != std::env::consts::ARCH {
        return Ok(Kind::OtherMachine(name));
    }
    match field(header, TYPE, 2) {
        EXECUTABLE | SHARED => Ok(linker(file, header)?.map_or(Kind::Static, Kind::Dynamic)),
        _ => Ok(Kind::NoProgram),
    }
}

fn foreign(header: &[u8], class: u8, order: u8) -> Kind {
    if class != CLASS_64 && order == LITTLE_ENDIAN {
        return Kind::OtherWidth;
    }
    let [high, low] = [0, 1].map(|place| field(header, MACHINE + place, 1));
    Kind::OtherMachine(machine_name(high << 8 | low))
}

fn machine_name(number: u64) -> String {
    let known = MACHINES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("processor number {number}"), |(_, name)| (*name).to_owned())
}

/// The path of the dynamic linker that the program headers name.
fn linker(file: &File, header: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let (table, stride) = (field(header, TABLE, 8), field(header, ENTRY_BYTES, 2));
    for index in 0..field(header, ENTRIES, 2) {
        let mut entry = [0; ENTRY];
        let Some(at) = table.checked_add(index * stride) else { break };
        if read_up_to(file, &mut entry, at)? < ENTRY {
            break;
        }
        if field(&entry, 0, 4) == INTERPRETER {
            let bytes = field(&entry, ENTRY_FILE_BYTES, 8).min(PATH_MOST) as usize;
            let mut path = vec![0; bytes];
            let read = read_up_to(file, &mut path, field(&entry, ENTRY_OFFSET, 8))?;
            path.truncate(read);
            path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A little-endian number of up to 8 bytes; missing bytes count as 0.
fn field(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes.get(at..).unwrap_or(&[]);
    bytes.iter().take(len).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // An offset beyond what a file can have: there is nothing.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn kind_of(bytes: &[u8]) -> Kind {
        // The process number and the address make the name unique.
        let path = std::env::temp_dir().join(format!("mempool-elf-{}-{:p}", std::process::id(), bytes));
        File::create(&path).unwrap().write_all(bytes).unwrap();
        let kind = kind(&mut File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        kind
    }

    /// An ELF header with `class`, `order`, type and machine, and then `rest`.
    fn elf(class: u8, order: u8, kind: u16, machine: u16, headers: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x7F, b'E', b'L', b'F', class, order];
        bytes.resize(HEADER, 0);
        let number = |value: u16| if order == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
        bytes[TYPE..TYPE + 2].copy_from_slice(&number(kind));
        bytes[MACHINE..MACHINE + 2].copy_from_slice(&number(machine));
        bytes[TABLE] = HEADER as u8;
        bytes[ENTRY_BYTES] = ENTRY as u8;
        bytes[ENTRIES..ENTRIES + 2].copy_from_slice(&headers.to_le_bytes());
        bytes.extend(rest);
        bytes
    }

    fn own() -> u16 {
        MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).unwrap().0 as u16
    }

    #[test]
    fn kinds_are_told_apart() {
        let foreign = if own() == 62 { (183, "aarch64") } else { (62, "x86_64") };
        for (bytes, kind) in [
            (b"".to_vec(), Kind::Unknown),
            (b"echo".to_vec(), Kind::Unknown),
            (b"#!/bin/sh\n".to_vec(), Kind::Script),
            (b"\x7FELF".to_vec(), Kind::Unknown),
            (b"\x7FELF\x02\x01".to_vec(), Kind::NoProgram),
            (elf(1, 1, 2, 3, 0, &[]), Kind::OtherWidth),
            (elf(2, 2, 2, 22, 0, &[]), Kind::OtherMachine("s390x".into())),
            (elf(2, 1, 2, foreign.0, 0, &[]), Kind::OtherMachine(foreign.1.into())),
            (elf(2, 1, 2, 9999, 0, &[]), Kind::OtherMachine("processor number 9999".into())),
            (elf(2, 1, 1, own(), 0, &[]), Kind::NoProgram),
            (elf(2, 1, 2, own(), 0, &[]), Kind::Static),
            (elf(2, 1, 3, own(), 9, &[]), Kind::Static),
        ] {
            assert_eq!(kind_of(&bytes), kind, "{bytes:?}");
        }
    }

    #[test]
    fn the_dynamic_linker_is_read_to_its_end_and_no_further() {
        let mut entry = vec![0; ENTRY];
        entry[0] = INTERPRETER as u8;
        entry[ENTRY_OFFSET] = (HEADER + ENTRY) as u8;
        entry[ENTRY_FILE_BYTES] = 7;
        let mut rest = entry.clone();
        rest.extend(b"/ld.so\0/other");
        assert_eq!(kind_of(&elf(2, 1, 3, own(), 1, &rest)), Kind::Dynamic(b"/ld.so".to_vec()));
        entry[ENTRY_FILE_BYTES + 7] = 0xFF;
        entry[ENTRY_OFFSET + 7] = 0xFF;
        assert_eq!(kind_of(&elf(2, 1, 3, own(), 1, &entry)), Kind::Dynamic(vec![]));
    }
}
