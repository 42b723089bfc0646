//! Other allocators that this machine has: what `mempool starve` and `mempool bench` compare the pool with.
//!
//! The C library's own is always there. The others are shared libraries that a program takes by `LD_PRELOAD`, looked
//! for by file name where distributions install them, in `LD_LIBRARY_PATH`, and where the script that builds newer ones
//! puts them. One that is not there is named with the way to get it; nothing is left out in silence.
//!
//! *Limits:* a library is known by its name; that it is one for this processor, by its ELF header.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An allocator to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name: `glibc`, `jemalloc`, ...
    pub name: &'static str,
    /// The library that brings it; None for the C library's own.
    pub library: Option<PathBuf>,
}

/// One that is not on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: &'static str,
    /// How to get it.
    pub get: &'static str,
}

/// A peer that is looked for.
struct Wanted {
    name: &'static str,
    /// How its file's name begins.
    file: &'static str,
    /// Whether it is built by the script, and not installed.
    built: bool,
    get: &'static str,
}

const BUILD: &str = "crates/mempool-bench/peers/build.sh";

const fn installed(name: &'static str, file: &'static str, get: &'static str) -> Wanted {
    Wanted { name, file, built: false, get }
}

const fn built(name: &'static str, file: &'static str) -> Wanted {
    Wanted { name, file, built: true, get: BUILD }
}

const WANTED: [Wanted; 6] = [
    installed("jemalloc", "libjemalloc.so.", "apt-get install libjemalloc2"),
    installed("tcmalloc", "libtcmalloc_minimal.so.", "apt-get install libtcmalloc-minimal4"),
    installed("mimalloc2", "libmimalloc.so.", "apt-get install libmimalloc2.0"),
    built("mimalloc3", "libmimalloc3.so"),
    built("snmalloc", "libsnmalloc.so"),
    built("rpmalloc", "librpmalloc.so"),
];

/// The peers that are here, the C library's first, and those that are not.
pub fn find() -> (Vec<Peer>, Vec<Missing>) {
    find_in(&folders(std::env::var_os("LD_LIBRARY_PATH").as_deref()), &beside())
}

/// Where the dynamic linker looks, and where distributions put libraries.
fn folders(path: Option<&OsStr>) -> Vec<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let given = path.into_iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
    let usual = ["/usr/local/lib", "/usr/lib", "/lib"].into_iter().flat_map(|root| {
        let root = Path::new(root);
        [root.join(&triple), root.with_file_name("lib64"), root.to_path_buf()]
    });
    given.chain(usual).collect()
}

/// Where the script puts what it builds.
fn beside() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok()).unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new("/"));
    ["peers", "../release/peers", "../lib/mempool/peers"].map(|place| beside.join(place)).into()
}

fn find_in(folders: &[PathBuf], beside: &[PathBuf]) -> (Vec<Peer>, Vec<Missing>) {
    let mut here = vec![Peer { name: "glibc", library: None }];
    let mut missing = Vec::new();
    for wanted in &WANTED {
        match look_for(wanted, if wanted.built { beside } else { folders }) {
            Some(path) => here.push(Peer { name: wanted.name, library: Some(path) }),
            None => missing.push(Missing { name: wanted.name, get: wanted.get }),
        }
    }
    (here, missing)
}

/// The first library of the name.
fn look_for(wanted: &Wanted, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().find_map(|folder| {
        let entries = std::fs::read_dir(folder).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let fit = names.filter(|name| name.starts_with(wanted.file) && is_for_this_processor(&folder.join(name)));
        // The shortest is the link without a minor version.
        fit.min_by_key(String::len).map(|name| folder.join(name))
    })
}

/// Whether the file is a library with the same class and machine in its ELF header as the command's own file.
fn is_for_this_processor(path: &Path) -> bool {
    let head = |path: &Path| {
        let mut head = [0u8; 20];
        File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
        // Magic, class and byte order; then the machine, behind the type.
        Some((head[..6].to_vec(), head[18..].to_vec()))
    };
    head(path).is_some_and(|found| head(Path::new("/proc/self/exe")) == Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_named_with_the_way_to_get_it() {
        let (here, missing) = find();
        assert_eq!((here[0].name, &here[0].library), ("glibc", &None));
        assert_eq!(here.len() + missing.len(), 1 + WANTED.len());
        assert!(here.iter().skip(1).all(|peer| peer.library.as_ref().is_some_and(|path| path.is_file())));
        let (here, missing) = find_in(&[PathBuf::from("/nowhere")], &[]);
        assert_eq!((here.len(), missing.len()), (1, WANTED.len()));
        assert_eq!((missing[2].get, missing[4].get), ("apt-get install libmimalloc2.0", BUILD));
    }

    #[test]
    fn a_library_must_be_one_for_this_processor() {
        let folder = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = std::fs::read("/proc/self/exe").unwrap();
        let mut head = own[..64].to_vec();
        let found = || find_in(std::slice::from_ref(&folder), &[]).0.get(1).and_then(|peer| peer.library.clone());
        for name in ["libjemalloc.so.2.1", "libjemalloc.so.2"] {
            std::fs::write(folder.join(name), &head).unwrap();
            assert_eq!(found(), Some(folder.join(name)), "the shorter name");
        }
        head[18] ^= 0xFF;
        std::fs::write(folder.join("libjemalloc.so.2"), &head).unwrap();
        assert_eq!(found(), Some(folder.join("libjemalloc.so.2.1")), "another processor's");
        std::fs::write(folder.join("libjemalloc.so.2.1"), "text").unwrap();
        assert_eq!(found(), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_library_path_comes_first_and_relative_parts_count_for_nothing() {
        let all = folders(Some(OsStr::new("/a:b::/c")));
        assert_eq!(all[..2], [PathBuf::from("/a"), PathBuf::from("/c")]);
        assert!(all.contains(&PathBuf::from("/usr/lib64")));
    }
}
