//! Memory cgroups: where one can be made, with which limit, what happened in it.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::kinds::Kind;
use crate::ending::{self, Kept, Thing};

/// Where cgroups can be made.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder that gets the new one.
    pub folder: PathBuf,
    /// 1 or 2.
    pub version: u32,
}

/// A memory cgroup that goes away when dropped, and processes that are still in it.
pub struct Cgroup {
    path: PathBuf,
    version: u32,
    /// None in tests.
    _kept: Option<Kept>,
}

/// How the names of all begin; the number of the process that made it follows, and what it is for.
const PREFIX: &str = "mempool-starve-";

/// Where this process may make memory cgroups, found out by making one; or why it may not.
pub fn place() -> Result<Place, String> {
    static FOUND: OnceLock<Result<Place, String>> = OnceLock::new();
    FOUND.get_or_init(find_place).clone()
}

fn find_place() -> Result<Place, String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    let mut refusal = None;
    for (mount, own, version) in candidates(Path::new("/sys/fs/cgroup"), &own) {
        for folder in [mount.join(&own), mount.clone()] {
            let place = Place { folder, version };
            sweep(&place.folder);
            match Cgroup::make(&place, "probe") {
                Ok(_) => return Ok(place),
                Err(error) if place.folder.is_dir() => {
                    let why = || format!("no memory cgroup can be made in {}: {error}", place.folder.display());
                    refusal.get_or_insert_with(why);
                }
                Err(_) => {}
            }
        }
    }
    Err(refusal.unwrap_or_else(|| "no memory controller is mounted below /sys/fs/cgroup".into()))
}

/// Removes the cgroups in `folder` whose makers were killed and could not.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<i32>().ok());
        if maker.is_some_and(is_gone) {
            // One in which somebody still is, seen from elsewhere, stays.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn is_gone(process: libc::pid_t) -> bool {
    // SAFETY: plain numbers; signal 0 asks and sends nothing.
    process > 0
        && unsafe { libc::kill(process, 0) } != 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// Mounts below `root`, the process's own cgroup in each, and the version: memory controllers alone.
fn candidates(root: &Path, own: &str) -> Vec<(PathBuf, PathBuf, u32)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let path = PathBuf::from(path.trim_start_matches('/'));
        if controllers.split(',').any(|name| name == "memory") {
            found.push((root.join("memory"), path, 1));
        } else if controllers.is_empty() {
            for mount in [root.to_path_buf(), root.join("unified")] {
                if mount.join("cgroup.controllers").exists() {
                    found.push((mount, path.clone(), 2));
                }
            }
        }
    }
    found
}

impl Cgroup {
    fn make(place: &Place, name: &str) -> io::Result<Self> {
        let path = place.folder.join(format!("{PREFIX}{}-{name}", std::process::id()));
        let ((), kept) = ending::keep(|| fs::create_dir(&path), |()| Thing::Cgroup(path.clone()))?;
        let made = Self { path, version: place.version, _kept: Some(kept) };
        let file = if made.version == 1 { "memory.limit_in_bytes" } else { "memory.max" };
        // Without the controller the folder is there and the file is not.
        fs::metadata(made.path.join(file)).map(|_| made)
    }

    /// One with `limit` bytes, set up for `kind`.
    pub fn new(kind: Kind, limit: usize) -> Result<Self, String> {
        let place = place()?;
        let made = Self::make(&place, kind.name()).map_err(|error| format!("{}: {error}", place.folder.display()))?;
        made.set(kind, limit)?;
        Ok(made)
    }

    fn set(&self, kind: Kind, limit: usize) -> Result<(), String> {
        for (file, value) in self.settings(kind, limit) {
            let path = self.path.join(file);
            fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn settings(&self, kind: Kind, limit: usize) -> Vec<(&'static str, String)> {
        let bytes = limit.to_string();
        match (self.version, kind) {
            (1, Kind::Sleep) => vec![("memory.limit_in_bytes", bytes), ("memory.oom_control", "1".into())],
            (1, _) => vec![("memory.limit_in_bytes", bytes)],
            (_, Kind::Throttle) => vec![("memory.high", bytes)],
            _ => vec![("memory.max", bytes)],
        }
    }

    /// The file to write a process's number to, 0 for the writer's.
    pub fn entrance(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// How many processes the kernel has ended for lack of memory.
    pub fn kills(&self) -> u64 {
        let file = if self.version == 1 { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        ending::remove_cgroup(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_controllers_are_found_in_both_versions() {
        let root = Path::new("/sys/fs/cgroup");
        let found = candidates(root, "9:name=systemd:/\n4:cpu,memory:/a/b\n3:cpu:/\n");
        assert_eq!(found, [(PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("a/b"), 1)]);
        assert!(candidates(root, "5:pids:/\n").is_empty());
    }

    #[test]
    fn limits_are_written_as_each_version_and_kind_wants_them() {
        let of = |version, kind| {
            let group = Cgroup { path: PathBuf::from("/nonexistent"), version, _kept: None };
            group.settings(kind, 7).into_iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(of(1, Kind::Sleep), ["memory.limit_in_bytes=7", "memory.oom_control=1"]);
        assert_eq!(of(1, Kind::Cache), ["memory.limit_in_bytes=7"]);
        assert_eq!(of(2, Kind::Throttle), ["memory.high=7"]);
        assert_eq!(of(2, Kind::Killer), ["memory.max=7"]);
    }

    /// A machine with version 2, as files.
    #[test]
    fn version_2_is_found_set_up_and_read() {
        let root = std::env::temp_dir().join(format!("mempool-cgroup2-{}", std::process::id()));
        let made = root.join("user.slice/mempool-starve");
        fs::create_dir_all(&made).expect("a folder");
        fs::write(root.join("cgroup.controllers"), "cpu memory\n").expect("a file");
        let found = candidates(&root, "0::/user.slice\n");
        assert_eq!(found, [(root.clone(), PathBuf::from("user.slice"), 2)]);
        let group = Cgroup { path: made.clone(), version: 2, _kept: None };
        group.set(Kind::Throttle, 64 << 20).expect("files can be written");
        assert_eq!(fs::read_to_string(made.join("memory.high")).expect("a file"), "67108864");
        assert!(!made.join("memory.max").exists());
        group.set(Kind::Cache, 1 << 20).expect("files can be written");
        assert_eq!(fs::read_to_string(made.join("memory.max")).expect("a file"), "1048576");
        fs::write(made.join("memory.events"), "low 0\nhigh 9\nmax 1\noom 2\noom_kill 3\n").expect("a file");
        assert_eq!((group.kills(), group.entrance()), (3, made.join("cgroup.procs")));
        // A folder in which nobody may write.
        let locked = Cgroup { path: root.join("nothing-here"), version: 2, _kept: None };
        assert!(locked.set(Kind::Throttle, 1).is_err_and(|why| why.contains("nothing-here/memory.high")));
        drop(group);
        fs::remove_dir_all(&root).expect("our own folder");
    }

    #[test]
    fn what_a_killed_runner_left_is_removed_and_nothing_else() {
        let root = std::env::temp_dir().join(format!("mempool-sweep-{}", std::process::id()));
        let mut ended = std::process::Command::new("true").spawn().expect("a process");
        ended.wait().expect("its end");
        let of = |process: u32, kind: &str| root.join(format!("{PREFIX}{process}-{kind}"));
        let (left, used, own) = (of(ended.id(), "sleep"), of(ended.id(), "killer"), of(std::process::id(), "sleep"));
        let strangers = [root.join("mempool-starve"), root.join("other-1"), root.join("mempool-starve-x-sleep")];
        for folder in [&left, &own, &used.join("somebody")].into_iter().chain(&strangers) {
            fs::create_dir_all(folder).expect("a folder");
        }
        sweep(&root);
        assert!(!left.exists());
        assert!([&used, &own].into_iter().chain(&strangers).all(|folder| folder.exists()));
        fs::remove_dir_all(&root).expect("our own folder");
    }

    #[test]
    fn one_is_made_and_goes_away_or_the_reason_is_named() {
        match Cgroup::new(Kind::Killer, 64 << 20) {
            Ok(group) => {
                let path = group.path.clone();
                assert!(group.entrance().exists() && group.kills() == 0);
                drop(group);
                assert!(!path.exists());
            }
            Err(why) => {
                eprintln!("nothing is made here: {why}");
                assert!(why.contains("cgroup"), "{why}");
            }
        }
    }
}
