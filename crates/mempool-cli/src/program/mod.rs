//! Finds the program and says beforehand whether it can run on a pool.
//!
//! The library reaches a program through the dynamic linker. So what has no dynamic linker (static), one that
//! refuses libraries (set-uid, set-gid, file capabilities), or one of another kind (32 bits, another processor,
//! another C library) would run without a pool, silently or with a puzzling message; here it is refused, with the
//! way out. Of a script the interpreter counts, which is followed as the kernel does.
//!
//! *Limits:* only the program itself is looked at, not what it starts; there the dynamic linker's own rules hold.
#![allow(unsafe_code)]

mod elf;

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::{Object, ObjectKind, ObjectSymbol, ReadCache, ReadRef};

use crate::failure::Failure;
use elf::Kind;

/// Where programs are looked for when `PATH` is unset: the C library's default.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Scripts that the interpreter of a script may be, as in the kernel.
const SCRIPTS_MOST: usize = 5;
/// Bytes of a script's first line that the kernel reads.
const LINE_MOST: u64 = 256;

/// The path of `name`: itself if it has a slash, else the first executable file of that name in `PATH`.
pub fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut barred = None;
    for folder in std::env::split_paths(&path).filter(|_| !name.is_empty()) {
        let candidate = if folder.as_os_str().is_empty() { Path::new(".").join(name) } else { folder.join(name) };
        match candidate.metadata() {
            Ok(about) if about.is_file() && is_executable(&candidate) => return Ok(candidate),
            Ok(about) if about.is_file() => barred = barred.or(Some(candidate)),
            _ => {}
        }
    }
    Err(match barred {
        Some(path) => not_executable(&path),
        None => Failure::not_found(format_args!("{}: no such program in PATH", name.display())),
    })
}

/// Whether `path` can run on a pool: the program that the kernel will run, which of a script is its interpreter.
pub fn check(path: &Path) -> Result<PathBuf, Failure> {
    let mut path = path.to_owned();
    for _ in 0..=SCRIPTS_MOST {
        match look(&path)? {
            None => return Ok(path),
            Some(interpreter) => path = interpreter,
        }
    }
    Err(Failure::not_runnable(format_args!("{}: too many scripts that interpret one another", path.display())))
}

/// Whether the program brings a `malloc` of its own, which comes before the pool's.
pub fn has_malloc(path: &Path) -> bool {
    // What may not be read, or not understood, is not known to.
    let Ok(content) = std::fs::read(path) else { return false };
    object::File::parse(&*content).is_ok_and(|program| defines(&program, "malloc"))
}

fn defines<'data, R: ReadRef<'data>>(file: &object::File<'data, R>, name: &str) -> bool {
    file.dynamic_symbols().any(|symbol| symbol.is_definition() && symbol.name_bytes() == Ok(name.as_bytes()))
}

/// Checks that `path` is a shared library of this machine's kind that defines `symbol`: what the dynamic linker cannot load it leaves out, and
/// the program runs without.
///
/// # Errors
/// What is wrong, to stand behind the path and a colon.
pub fn check_library(path: &Path, symbol: &str) -> Result<(), String> {
    let own = std::env::consts::ARCH;
    // Opening what is no plain file may wait for ever.
    if !path.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("is no file".into());
    }
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    match elf::kind(&mut file).map_err(|error| error.to_string())? {
        Kind::Dynamic(_) | Kind::Static => {}
        Kind::OtherWidth => return Err(format!("is a 32-bit library, where a 64-bit one for {own} is needed")),
        Kind::OtherMachine(machine) => {
            return Err(format!("is a library for {machine}, where one for {own} is needed"));
        }
        Kind::Script | Kind::NoProgram | Kind::Unknown => return Err("is no shared library".into()),
    }
    // Of a library of many megabytes only its symbols are read.
    let content = ReadCache::new(file);
    let library = object::File::parse(&content).map_err(|error| format!("is no whole library: {error}"))?;
    match library.kind() {
        ObjectKind::Dynamic if defines(&library, symbol) => Ok(()),
        ObjectKind::Dynamic => Err(format!("is a library without {symbol}")),
        _ => Err("is a program and no shared library".into()),
    }
}

/// Checks one file; the interpreter if it is a script.
fn look(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let shown = path.display();
    let about = path.metadata().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::not_found(format_args!("{shown}: no such program")),
        _ => Failure::not_runnable(format_args!("{shown}: {error}")),
    })?;
    if about.is_dir() {
        return Err(Failure::not_runnable(format_args!("{shown}: is a directory")));
    }
    if !about.is_file() || !is_executable(path) {
        return Err(not_executable(path));
    }
    // An executable that may not be read cannot be checked; the kernel and the dynamic linker have the last word.
    let Ok(mut file) = File::open(path) else { return Ok(None) };
    let kind = elf::kind(&mut file).map_err(|error| Failure::not_runnable(format_args!("{shown}: {error}")))?;
    match kind {
        Kind::Script => interpreter(path, file).map(Some),
        Kind::Dynamic(linker) => {
            check_linker(path, &linker)?;
            check_rights(path, &about)?;
            Ok(None)
        }
        other => Err(unfit(path, &other)),
    }
}

fn unfit(path: &Path, kind: &Kind) -> Failure {
    let shown = path.display();
    let own = std::env::consts::ARCH;
    match kind {
        Kind::Static => Failure::not_runnable(format_args!(
            "{shown} is statically linked: it has no dynamic linker that could load the pool"
        ))
        .fix("link it dynamically (without -static), or link the pool into it: libmempool.a with mp_malloc, or the Rust crate's global allocator"),
        Kind::OtherWidth => Failure::not_runnable(format_args!("{shown} is a 32-bit program; the pool's library is for 64-bit {own}"))
            .fix(format_args!("use the program's 64-bit {own} build")),
        Kind::OtherMachine(machine) => Failure::not_runnable(format_args!(
            "{shown} is for {machine}; the pool's library is for {own}"
        ))
        .fix(format_args!("use the program's {own} build, or a `mempool` built for {machine}")),
        Kind::NoProgram => Failure::not_runnable(format_args!("{shown} is an ELF file but no program"))
            .fix("name an executable; object files and core files cannot be run"),
        _ => Failure::not_runnable(format_args!("{shown} is neither an ELF program nor a script that begins with #!"))
            .fix("for a shell script without a #! line, name the shell: mempool run -- sh SCRIPT"),
    }
}

fn not_executable(path: &Path) -> Failure {
    Failure::not_runnable(format_args!("{}: not executable", path.display()))
        .fix("if it is a program, `chmod +x` it; a script can be given to its interpreter")
}

fn is_executable(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: `path` is a string that ends in zero and lives through the call.
    unsafe { libc::access(path.as_ptr(), libc::X_OK) == 0 }
}

/// The interpreter that the script names.
fn interpreter(script: &Path, file: File) -> Result<PathBuf, Failure> {
    let mut line = Vec::new();
    let read = file.take(LINE_MOST).read_to_end(&mut line);
    read.map_err(|error| Failure::not_runnable(format_args!("{}: {error}", script.display())))?;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let first = line.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
    let rest = first.strip_prefix(b"#!").unwrap_or(first);
    let name = rest.split(blank).find(|word| !word.is_empty()).unwrap_or(&[]);
    if name.is_empty() {
        return Err(Failure::not_runnable(format_args!("{}: its #! line names no interpreter", script.display())));
    }
    let path = PathBuf::from(OsString::from_vec(name.to_vec()));
    if path.exists() {
        return Ok(path);
    }
    let failure = format!("{}: its interpreter {} does not exist", script.display(), path.display());
    let failure = Failure::not_found(failure);
    Err(if name.ends_with(b"\r") { failure.fix("its lines end in CR LF; convert them to LF") } else { failure })
}

/// The library is linked against the GNU C library, and so must the program be.
fn check_linker(path: &Path, linker: &[u8]) -> Result<(), Failure> {
    if linker.windows(4).any(|part| part == b"musl") {
        let linker = OsStr::from_bytes(linker).display();
        let message =
            format!("{} uses the C library of {linker}; the pool's library needs the GNU C library", path.display());
        return Err(Failure::not_runnable(message).fix("use the program's build for the GNU C library"));
    }
    Ok(())
}

/// A program that runs with more rights than its caller gets no library from the caller.
fn check_rights(path: &Path, about: &Metadata) -> Result<(), Failure> {
    // SAFETY: none of the two takes anything or can fail.
    let (user, group) = unsafe { (libc::getuid(), libc::getgid()) };
    let mode = about.mode();
    let group_too = mode & libc::S_IXGRP != 0;
    let right = if mode & libc::S_ISUID != 0 && about.uid() != user {
        "set-uid"
    } else if mode & libc::S_ISGID != 0 && group_too && about.gid() != group {
        "set-gid"
    } else if user != 0 && has_capabilities(path) {
        "given file capabilities"
    } else {
        return Ok(());
    };
    Err(Failure::not_runnable(format_args!(
        "{} is {right}: the dynamic linker lets nobody load a library into it",
        path.display()
    ))
    .fix("run it as the user whose rights it gets (for instance with sudo), or use a copy without them"))
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: both strings end in zero; a length of 0 asks for the attribute's size and writes nothing.
    unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) > 0 }
}
