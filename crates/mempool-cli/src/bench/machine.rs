//! Where a benchmark ran: what a reader needs to know to judge its figures.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine and its system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The C library's version.
    pub libc: String,
    /// The setting of transparent huge pages.
    pub huge_pages: String,
    /// The load of the machine when the benchmark began: processes, over one minute.
    pub load: f64,
    /// The command's version.
    pub version: String,
    /// Seconds since 1970.
    pub time: u64,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of the first line of `text` that begins with `name`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map(|(_, value)| value.trim()).unwrap_or_default()
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let kib = |text: &str| text.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
        let libc = Command::new("getconf").arg("GNU_LIBC_VERSION").output().map(|output| output.stdout);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kib(field(&read("/proc/meminfo"), "MemTotal")) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            libc: String::from_utf8_lossy(&libc.unwrap_or_default()).trim().to_owned(),
            huge_pages: huge.split(['[', ']']).nth(1).unwrap_or_default().to_owned(),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: since.map_or(0, |since| since.as_secs()),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        format!(
            "{}, {} cores, {gib:.0} GiB, Linux {}, {}, transparent huge pages {}, load {:.2} at the start",
            self.processor, self.cores, self.kernel, self.libc, self.huge_pages, self.load
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_memory() {
        let here = Machine::here();
        assert!(here.cores > 0 && here.memory_bytes > 1 << 28, "{here:?}");
        assert!(here.kernel.contains('.') && here.libc.starts_with("glibc"), "{here:?}");
        assert_eq!(field("a : b\nmodel name\t: x y\n", "model name"), "x y");
    }
}
