//! Finds libmempool_preload.so: where `MEMPOOL_LIBRARY` says, else near the command's own file.
//!
//! Near means: in `deps` beside it (where cargo puts the library that it builds with the command), next to it, in
//! `../lib` and in `../lib/mempool` (an installation). The first that exists is taken; `deps` comes first because
//! the copy next to the command may be one from an earlier build.
//!
//! The dynamic linker runs a program without a library that it cannot load, and takes any library that it can. So the
//! file is looked into first, and a process that is to show an allocator asks who serves it ([`check_serves`]).
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::program;

/// The library's file name.
const FILE: &str = "libmempool_preload.so";
/// The variable that names the library.
const VARIABLE: &str = "MEMPOOL_LIBRARY";
/// How to have it.
const BUILD: &str = "build it with `cargo build --release --workspace`";
/// What the library has and no other.
const SYMBOL: &str = "mempool_preload_contains";
/// The dynamic linker's variable.
pub const PRELOAD: &str = "LD_PRELOAD";

/// The absolute path of the library, which is one.
pub fn find() -> Result<PathBuf, Failure> {
    let given = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
    let path = match &given {
        Some(path) => absolute(Path::new(path))?,
        None => nearby()?,
    };
    if let Err(wrong) = program::check_library(&path, SYMBOL) {
        return Err(match &given {
            Some(given) => Failure::own(format_args!("{VARIABLE}={}: {wrong}", given.display()))
                .fix(format_args!("set {VARIABLE} to the path of {FILE}, or unset it")),
            None => Failure::own(format_args!("{}: {wrong}", path.display()))
                .fix(format_args!("{BUILD}, or set {VARIABLE} to its path")),
        });
    }
    // The dynamic linker splits its list at both, and knows no way to quote them.
    if path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        let message = format!(
            "the path of the library has a blank or a colon, which {PRELOAD} cannot express: {}",
            path.display()
        );
        return Err(Failure::own(message).fix(format_args!("copy it elsewhere and set {VARIABLE} to the new path")));
    }
    Ok(path)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let found = path.canonicalize().ok().filter(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::own(format_args!("{VARIABLE}={}: no such file", path.display()))
            .fix(format_args!("set {VARIABLE} to the path of {FILE}, or unset it"))
    })
}

fn nearby() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().and_then(|path| path.canonicalize()).map_err(|error| {
        Failure::own(format_args!("{FILE} is looked for near the command's own file, which cannot be found ({error})"))
            .fix(format_args!("mount /proc if it is not there, or set {VARIABLE} to the path of {FILE}"))
    })?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places = ["deps", ".", "../lib", "../lib/mempool"].map(|place| beside.join(place).join(FILE));
    let found = places.iter().find_map(|path| path.canonicalize().ok().filter(|path| path.is_file()));
    found.ok_or_else(|| {
        Failure::own(format_args!("{FILE} is not in {} or near it", beside.display()))
            .fix(format_args!("{BUILD}, or set {VARIABLE} to its path"))
    })
}

/// `list`, a value of `LD_PRELOAD`, with `library` in front unless it is in it already. In front, since the first
/// library that has a `malloc` provides it.
pub fn joined(library: &Path, list: Option<OsString>) -> OsString {
    let list = list.unwrap_or_default();
    let mut entries = list.as_bytes().split(|byte| matches!(byte, b' ' | b':'));
    if entries.any(|entry| entry == library.as_os_str().as_bytes()) {
        return list;
    }
    let mut all = library.as_os_str().to_owned();
    if !list.is_empty() {
        all.push(":");
        all.push(list);
    }
    all
}

/// Checks that this process's `malloc` is that of the library that it was started with, if it was with one.
///
/// # Errors
/// The C library or another one serves.
pub fn check_serves() -> Result<(), Failure> {
    let Some(wanted) = std::env::var_os(PRELOAD).filter(|list| !list.is_empty()) else { return Ok(()) };
    let mut about = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address of a function, and a live structure, of which zeroes are a value.
    let name = unsafe {
        libc::dladdr(libc::malloc as *const libc::c_void, about.as_mut_ptr());
        about.assume_init().dli_fname
    };
    let found = match name.is_null() {
        true => PathBuf::new(),
        // SAFETY: a text that ends in zero and stays while the library does, for ever.
        false => PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())),
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&found) == real(Path::new(&wanted)) {
        return Ok(());
    }
    let message = format!("malloc is served by {}, not by {}", found.display(), Path::new(&wanted).display());
    Err(Failure::own(message).fix("the dynamic linker says why it does not load a library: LD_DEBUG=files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_comes_first_and_once() {
        let library = Path::new("/lib/pool.so");
        let cases = [
            (None, "/lib/pool.so"),
            (Some(""), "/lib/pool.so"),
            (Some("/a.so"), "/lib/pool.so:/a.so"),
            (Some("/a.so /b.so"), "/lib/pool.so:/a.so /b.so"),
            (Some("/a.so:/lib/pool.so"), "/a.so:/lib/pool.so"),
            (Some("/a/lib/pool.so"), "/lib/pool.so:/a/lib/pool.so"),
        ];
        for (list, all) in cases {
            assert_eq!(joined(library, list.map(OsString::from)), all);
        }
    }
}
