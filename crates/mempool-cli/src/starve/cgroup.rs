//! Memory cgroups: where one can be made, with which limit, what happened in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::kinds::Kind;

/// Where cgroups can be made.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder that gets the new one.
    pub folder: PathBuf,
    /// 1 or 2.
    pub version: u32,
}

/// A memory cgroup that goes away when dropped. Its processes must have ended.
pub struct Cgroup {
    path: PathBuf,
    version: u32,
}

/// Where this process may make memory cgroups, found out by making one; or why it may not.
pub fn place() -> Result<Place, String> {
    static FOUND: OnceLock<Result<Place, String>> = OnceLock::new();
    FOUND.get_or_init(find_place).clone()
}

fn find_place() -> Result<Place, String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    let mut refusal = None;
    for (mount, own, version) in candidates(&own) {
        for folder in [mount.join(&own), mount.clone()] {
            let place = Place { folder, version };
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

/// Mounts, the process's own cgroup in each, and the version: memory controllers alone.
fn candidates(own: &str) -> Vec<(PathBuf, PathBuf, u32)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let path = PathBuf::from(path.trim_start_matches('/'));
        if controllers.split(',').any(|name| name == "memory") {
            found.push((PathBuf::from("/sys/fs/cgroup/memory"), path, 1));
        } else if controllers.is_empty() {
            for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
                if Path::new(mount).join("cgroup.controllers").exists() {
                    found.push((PathBuf::from(mount), path.clone(), 2));
                }
            }
        }
    }
    found
}

impl Cgroup {
    fn make(place: &Place, name: &str) -> io::Result<Self> {
        let path = place.folder.join(format!("mempool-starve-{}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        let made = Self { path, version: place.version };
        let file = if made.version == 1 { "memory.limit_in_bytes" } else { "memory.max" };
        // Without the controller the folder is there and the file is not.
        fs::metadata(made.path.join(file)).map(|_| made)
    }

    /// One with `limit` bytes, set up for `kind`.
    pub fn new(kind: Kind, limit: usize) -> Result<Self, String> {
        let place = place()?;
        let made = Self::make(&place, kind.name()).map_err(|error| format!("{}: {error}", place.folder.display()))?;
        for (file, value) in made.settings(kind, limit) {
            let path = made.path.join(file);
            fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(made)
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
        // What just ended may still be counted for a moment.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10))
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_controllers_are_found_in_both_versions() {
        let found = candidates("9:name=systemd:/\n4:cpu,memory:/a/b\n3:cpu:/\n");
        assert_eq!(found, [(PathBuf::from("/sys/fs/cgroup/memory"), PathBuf::from("a/b"), 1)]);
        assert!(candidates("5:pids:/\n").is_empty());
    }

    #[test]
    fn limits_are_written_as_each_version_and_kind_wants_them() {
        let of = |version, kind| {
            let group = Cgroup { path: PathBuf::from("/nonexistent"), version };
            group.settings(kind, 7).into_iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(of(1, Kind::Sleep), ["memory.limit_in_bytes=7", "memory.oom_control=1"]);
        assert_eq!(of(1, Kind::Cache), ["memory.limit_in_bytes=7"]);
        assert_eq!(of(2, Kind::Throttle), ["memory.high=7"]);
        assert_eq!(of(2, Kind::Killer), ["memory.max=7"]);
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
            Err(why) => assert!(why.contains("cgroup"), "{why}"),
        }
    }
}
