//! Who is compared: the pool, the system's allocator, and every peer that is found or given.
//!
//! A contender is a name and an environment: the library that the dynamic linker puts first, and settings. What could not
//! be found is kept with the way to get it, so that the report says so.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mempool_bench::Mode;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::library::{self, PRELOAD};
use crate::{peers, program, settings};

/// The contender that all others are compared with.
pub const POOL: &str = "pool";
/// The C library's allocator.
pub const SYSTEM: &str = "system";
/// How names of the pool's contenders begin.
const POOLS: [&str; 2] = [POOL, "pool-heap"];

/// One side of the comparison.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As printed.
    pub name: String,
    /// The library that serves malloc; none is the system's.
    pub library: Option<PathBuf>,
    /// Variables besides the pool's own.
    pub settings: Vec<(String, String)>,
    /// Serves named caches from inside the worker, in place of malloc.
    pub supplier: Option<&'static str>,
}

/// What the report keeps of a contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// As printed.
    pub name: String,
    /// Path of its library, empty for the system's.
    pub library: String,
    /// Its version as far as its file says it.
    pub version: String,
}

/// A peer that could not be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// How to get it.
    pub get: String,
}

impl Contender {
    fn new(name: &str, library: Option<PathBuf>) -> Self {
        Self { name: name.into(), library, settings: Vec::new(), supplier: None }
    }

    /// A supplier of named caches inside the worker.
    pub fn supplier(name: &'static str) -> Self {
        // The pool's caches compete under the pool's name.
        Self { supplier: Some(name), ..Self::new(name, None) }
    }

    /// Whether it is the pool in one of its settings.
    pub fn is_pool(&self) -> bool {
        is_pool(&self.name)
    }

    /// The variables of a process that it serves.
    pub fn environment(&self, mode: Mode, threads: usize) -> Vec<(String, OsString)> {
        let mut all: Vec<(String, OsString)> =
            pool_settings(mode, threads).map(|(name, value)| (name.into(), value.into())).into();
        all.extend(self.settings.iter().map(|(name, value)| (name.clone(), value.into())));
        if let Some(library) = &self.library {
            all.push((PRELOAD.into(), library.into()));
        }
        all
    }

    /// For the report.
    pub fn known(&self) -> Known {
        let library = self.library.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        Known { name: self.name.clone(), library, version: self.library.as_deref().map(version).unwrap_or_default() }
    }
}

/// Whether a contender of that name is the pool in one of its settings.
pub fn is_pool(name: &str) -> bool {
    POOLS.contains(&name)
}

/// Checks the settings of the environment, and that they go with those that the pool gets here.
pub fn check_settings() -> Result<(), Failure> {
    let given = settings::from_environment()?;
    let own = pool_settings(Mode::Lazy, 1).map(|(name, _)| name);
    settings::warn_of_own("bench", &own);
    for mode in [Mode::Lazy, Mode::Ready] {
        let mut config = given;
        let set = |(name, value): &(&str, String)| config.apply(name.as_bytes(), value.as_bytes());
        let set = pool_settings(mode, 1).iter().try_for_each(set).and_then(|()| config.validate());
        set.map_err(|error| settings::contradicts("bench", &own, error))?;
    }
    Ok(())
}

/// The pool's settings for a workload, whatever the environment says.
fn pool_settings(mode: Mode, threads: usize) -> [(&'static str, String); 6] {
    let (commit, lock, exhausted) = match mode {
        Mode::Lazy => ("lazy", "off", "grow"),
        Mode::Ready => ("eager", "try", "null"),
    };
    // Ready memory is prefaulted, so it is no more than the workload needs.
    let (segment, most) = match mode {
        Mode::Lazy => ("1G".into(), "16G".into()),
        Mode::Ready => (format!("{}M", 256 + 64 * threads), "0".into()),
    };
    [
        ("MEMPOOL_SMALL", "slab".into()),
        ("MEMPOOL_COMMIT", commit.into()),
        ("MEMPOOL_LOCK", lock.into()),
        ("MEMPOOL_EXHAUSTED", exhausted.into()),
        ("MEMPOOL_SEGMENT", segment),
        ("MEMPOOL_MAX_SEGMENT", most),
    ]
}

/// The version in a library's file name, or in the file beside it that the build script wrote.
fn version(library: &Path) -> String {
    if let Ok(text) = std::fs::read_to_string(library.with_extension("version")) {
        return text.trim().to_owned();
    }
    let real = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A peer as `--peer NAME=PATH` gives it.
pub fn given(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH, as in jemalloc=/usr/lib/libjemalloc.so.2")?;
    if name.is_empty() || is_pool(name) || name == SYSTEM {
        return Err(format!("{name:?} cannot be a peer's name"));
    }
    let found = Path::new(path).canonicalize().map_err(|error| format!("{path}: {error}"))?;
    program::check_library(&found, "malloc")
        .map_err(|wrong| format!("{path}: {wrong}; give a library that has malloc"))?;
    Ok((name.to_owned(), found))
}

/// Everybody that can be found, and who could not be.
pub fn find(given: &[(String, PathBuf)], heap: bool) -> Result<(Vec<Contender>, Vec<Missing>), Failure> {
    let pool = library::find()?;
    let mut all = vec![Contender::new(POOL, Some(pool.clone()))];
    if heap {
        let settings = vec![("MEMPOOL_SMALL".to_owned(), "heap".to_owned())];
        all.push(Contender { settings, ..Contender::new("pool-heap", Some(pool)) });
    }
    all.push(Contender::new(SYSTEM, None));
    let named = |name: &str| given.iter().any(|(given, _)| given == name);
    let (here, absent) = peers::find();
    let here = here.into_iter().filter(|peer| peer.library.is_some() && !named(peer.name));
    all.extend(here.map(|peer| Contender::new(peer.name, peer.library)));
    let absent = absent.into_iter().filter(|missing| !named(missing.name));
    let missing = absent.map(|missing| Missing { name: missing.name.into(), get: missing.get.into() }).collect();
    all.extend(given.iter().map(|(name, path)| Contender::new(name, Some(path.clone()))));
    Ok((all, missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process's C library: a file that has a malloc.
    fn c_library() -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps.split_whitespace().find(|word| word.starts_with('/') && word.contains("/libc.so"));
        path.expect("a C library").into()
    }

    #[test]
    fn peers_are_given_by_name_and_path() {
        let library = c_library();
        assert_eq!(given(&format!("mine={library}")).unwrap().0, "mine");
        let bad = ["", "=", "pool=", "system="].map(|name| format!("{name}{library}"));
        let no_library = ["mine=/no/such.so", "mine=/etc/passwd", "mine=/dev/null", "mine=/bin/sh"].map(String::from);
        for bad in bad.iter().chain(&no_library) {
            assert!(given(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pool_gets_its_settings_and_a_peer_its_library() {
        let pool = Contender::new(POOL, Some("/pool.so".into()));
        let lazy = pool.environment(Mode::Lazy, 2);
        let has = |all: &[(String, OsString)], name: &str, value: &str| {
            all.iter().any(|(n, v)| n == name && v.to_str() == Some(value))
        };
        assert!(has(&lazy, "MEMPOOL_COMMIT", "lazy") && has(&lazy, "LD_PRELOAD", "/pool.so"));
        assert!(has(&pool.environment(Mode::Ready, 2), "MEMPOOL_LOCK", "try"));
        let system = Contender::new(SYSTEM, None);
        assert!(system.environment(Mode::Lazy, 2).iter().all(|(name, _)| name != PRELOAD));
    }
}
