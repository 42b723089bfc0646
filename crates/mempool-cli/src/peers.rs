//! Other allocators that this machine has: what `mempool starve` and `mempool bench` compare the pool with.
//!
//! The C library's own is always there. The others are shared libraries that a program takes by `LD_PRELOAD`, looked
//! for by file name where Debian and others install them and in `LD_LIBRARY_PATH`. One that is not there is named with
//! the package that brings it; nothing is left out in silence.
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
    /// Why it is left out, and how to get it.
    pub why: String,
}

/// The library that a name stands for: file names, newest first, and Debian's package.
struct Known {
    name: &'static str,
    files: &'static [&'static str],
    package: &'static str,
}

const KNOWN: [Known; 3] = [
    Known { name: "jemalloc", files: &["libjemalloc.so.2"], package: "libjemalloc2" },
    Known {
        name: "mimalloc",
        files: &["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0"],
        package: "libmimalloc2.0",
    },
    Known {
        name: "tcmalloc",
        files: &["libtcmalloc_minimal.so.4", "libtcmalloc.so.4"],
        package: "libtcmalloc-minimal4",
    },
];

/// The peers that are here, the C library's first, and those that are not.
pub fn find() -> (Vec<Peer>, Vec<Missing>) {
    find_in(&folders(std::env::var_os("LD_LIBRARY_PATH").as_deref()))
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

fn find_in(folders: &[PathBuf]) -> (Vec<Peer>, Vec<Missing>) {
    let mut here = vec![Peer { name: "glibc", library: None }];
    let mut missing = Vec::new();
    for known in &KNOWN {
        let paths = known.files.iter().flat_map(|file| folders.iter().map(move |folder| folder.join(file)));
        match paths.filter_map(|path| path.canonicalize().ok()).find(|path| is_for_this_processor(path)) {
            Some(path) => here.push(Peer { name: known.name, library: Some(path) }),
            None => missing.push(Missing {
                name: known.name,
                why: format!("no {} here; on Debian: apt-get install {}", known.files.join(" or "), known.package),
            }),
        }
    }
    (here, missing)
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
    fn what_is_there_is_found_and_what_is_not_is_named_with_its_package() {
        let (here, missing) = find();
        assert_eq!((here[0].name, &here[0].library), ("glibc", &None));
        assert_eq!(here.len() + missing.len(), 1 + KNOWN.len());
        assert!(here.iter().skip(1).all(|peer| peer.library.as_ref().is_some_and(|path| path.is_file())));
        let (here, missing) = find_in(&[PathBuf::from("/nowhere")]);
        assert_eq!((here.len(), missing.len()), (1, 3));
        assert!(missing[1].why.contains("libmimalloc.so.3 or") && missing[1].why.ends_with("install libmimalloc2.0"));
    }

    #[test]
    fn a_library_must_be_one_for_this_processor() {
        let folder = std::env::temp_dir().join(format!("peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("libjemalloc.so.2");
        let own = std::fs::read("/proc/self/exe").unwrap();
        let mut head = own[..64].to_vec();
        std::fs::write(&file, &head).unwrap();
        let found = |folder: &PathBuf| find_in(std::slice::from_ref(folder)).0.len();
        assert_eq!(found(&folder), 2);
        head[18] ^= 0xFF;
        std::fs::write(&file, &head).unwrap();
        assert_eq!(found(&folder), 1);
        std::fs::write(&file, "text").unwrap();
        assert_eq!(found(&folder), 1);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_library_path_comes_first_and_relative_parts_count_for_nothing() {
        let all = folders(Some(OsStr::new("/a:b::/c")));
        assert_eq!(all[..2], [PathBuf::from("/a"), PathBuf::from("/c")]);
        assert!(all.contains(&PathBuf::from("/usr/lib64")));
    }
}
