//! Finds libmempool_preload.so: where `MEMPOOL_LIBRARY` says, else near the command's own file.
//!
//! Near means: in `deps` beside it (where cargo puts the library that it builds with the command), next to it, in
//! `../lib` and in `../lib/mempool` (an installation). The first that exists is taken; `deps` comes first because
//! the copy next to the command may be one from an earlier build.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The library's file name.
const FILE: &str = "libmempool_preload.so";
/// The variable that names the library.
const VARIABLE: &str = "MEMPOOL_LIBRARY";
/// The dynamic linker's variable.
pub const PRELOAD: &str = "LD_PRELOAD";

/// The absolute path of the library.
pub fn find() -> Result<PathBuf, Failure> {
    let path = match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => absolute(Path::new(&path))?,
        None => nearby()?,
    };
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
    let own = std::env::current_exe().and_then(|path| path.canonicalize());
    let own = own.map_err(|error| Failure::own(format_args!("cannot find the command's own file: {error}")))?;
    let beside = own.parent().unwrap_or(Path::new("/"));
    let places = ["deps", ".", "../lib", "../lib/mempool"].map(|place| beside.join(place).join(FILE));
    let found = places.iter().find_map(|path| path.canonicalize().ok().filter(|path| path.is_file()));
    found.ok_or_else(|| {
        Failure::own(format_args!("{FILE} is not in {} or near it", beside.display()))
            .fix(format_args!("build it with `cargo build --release --workspace`, or set {VARIABLE} to its path"))
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
