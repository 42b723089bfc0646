//! What the machine and this user's process are allowed: the facts, read from /proc and /sys below some root.
//!
//! Every fact may be missing, where a kernel or a container does not show it; the advice then says that it is not known.

use std::fs;
use std::path::{Path, PathBuf};

/// A capability's bit in CapEff.
pub const IPC_LOCK: u32 = 14;
pub const SYS_RESOURCE: u32 = 24;
/// AT_PAGESZ in the auxiliary vector.
const PAGE_SIZE: u64 = 6;

/// A limit; None where there is none.
pub type Limit = Option<usize>;

/// A limit's names.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The flag of `ulimit`, which counts in KiB.
    pub flag: char,
    /// What limits.conf calls it.
    pub item: &'static str,
    /// What systemd calls it.
    pub unit: &'static str,
    /// Whether a container's --ulimit knows it by that name.
    pub container: bool,
}

pub const MEMLOCK: Named = Named { flag: 'l', item: "memlock", unit: "LimitMEMLOCK", container: true };
pub const ADDRESSES: Named = Named { flag: 'v', item: "as", unit: "LimitAS", container: false };
pub const DATA: Named = Named { flag: 'd', item: "data", unit: "LimitDATA", container: true };
pub const STACKS: Named = Named { flag: 's', item: "stack", unit: "LimitSTACK", container: true };

impl Named {
    /// What raises the limit to `need` bytes: the shell's command as far as the hard limit goes, else what needs the administrator.
    pub fn raise(&self, need: usize, hard: Limit) -> String {
        let (kib, Self { flag, item, unit, container }) = (need.div_ceil(1024), self);
        match hard {
            Some(hard) if hard < need => {
                let ways = format!(
                    "echo \"$USER - {item} {kib}\" | sudo tee -a /etc/security/limits.conf, then log in again; in a service {unit}={need}"
                );
                if *container { format!("{ways}; in a container --ulimit {item}={need}") } else { ways }
            }
            _ => format!("ulimit -{flag} {kib}"),
        }
    }
}

/// A memory cgroup with a limit, this process's own or one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The file that holds the limit.
    pub file: PathBuf,
    /// Bytes that may be used.
    pub limit: usize,
    /// Bytes in use that cannot be dropped.
    pub used: usize,
}

/// Huge OS pages of one size that the administrator has set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Bytes of each.
    pub size: usize,
    /// How many are free, those included that the kernel may add by itself.
    pub free: usize,
    /// How many there are.
    pub all: usize,
}

/// The facts. Sizes are bytes.
#[derive(Debug, Default)]
pub struct Machine {
    /// An OS page.
    pub page: Option<usize>,
    /// Memory that could be had.
    pub available: Option<usize>,
    /// Swap.
    pub swap: Option<usize>,
    /// What may be promised under strict overcommit, and what is.
    pub promises: Option<(usize, usize)>,
    /// vm.overcommit_memory.
    pub overcommit: Option<u32>,
    /// RLIMIT_MEMLOCK: soft, hard.
    pub lock: Option<(Limit, Limit)>,
    /// RLIMIT_AS, soft, hard.
    pub addresses: Option<(Limit, Limit)>,
    /// RLIMIT_DATA, soft, hard.
    pub data: Option<(Limit, Limit)>,
    /// RLIMIT_STACK, soft, hard.
    pub stack: Option<(Limit, Limit)>,
    /// RLIMIT_CORE, soft.
    pub core: Option<Limit>,
    /// CapEff.
    pub capabilities: Option<u64>,
    /// The word in brackets of transparent_hugepage/enabled.
    pub transparent: Option<String>,
    /// Bytes of a transparent huge OS page.
    pub huge: Option<usize>,
    /// Reserved huge OS pages by size.
    pub stocks: Vec<Stock>,
    /// Cgroups with a limit.
    pub cgroups: Vec<Cgroup>,
    /// Memory nodes.
    pub nodes: Option<u64>,
    /// oom_score_adj.
    pub score: Option<i32>,
    /// core_pattern.
    pub core_pattern: Option<String>,
}

impl Machine {
    /// Reads everything below `root`, which is `/` or a tree like it.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let word = |path: &str| text(path).map(|text| text.trim().to_owned());
        let meminfo = text("proc/meminfo").unwrap_or_default();
        let kib = |name: &str| field(&meminfo, name).map(|kib| kib * 1024);
        let limits = text("proc/self/limits").unwrap_or_default();
        let status = text("proc/self/status").unwrap_or_default();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self {
            page: fs::read(root.join("proc/self/auxv")).ok().and_then(|vector| page_size(&vector)),
            available: kib("MemAvailable"),
            swap: kib("SwapTotal"),
            promises: kib("CommitLimit").zip(kib("Committed_AS")),
            overcommit: word("proc/sys/vm/overcommit_memory").and_then(|mode| mode.parse().ok()),
            lock: limit(&limits, "Max locked memory"),
            addresses: limit(&limits, "Max address space"),
            data: limit(&limits, "Max data size"),
            stack: limit(&limits, "Max stack size"),
            core: limit(&limits, "Max core file size").map(|(soft, _)| soft),
            capabilities: capabilities.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()),
            transparent: text("sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| {
                let (_, rest) = text.split_once('[')?;
                Some(rest.split_once(']')?.0.to_owned())
            }),
            huge: number(root.join("sys/kernel/mm/transparent_hugepage/hpage_pmd_size")),
            stocks: stocks(root),
            cgroups: cgroups(root),
            nodes: word("sys/devices/system/node/online").and_then(|list| node_list(&list)),
            score: word("proc/self/oom_score_adj").and_then(|score| score.parse().ok()),
            core_pattern: word("proc/sys/kernel/core_pattern"),
        }
    }

    /// Whether the process has a capability; false where that is not known.
    pub fn can(&self, capability: u32) -> bool {
        self.capabilities.is_some_and(|bits| bits >> capability & 1 == 1)
    }
}

/// The figure of a line `name: figure`.
fn field(text: &str, name: &str) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Soft and hard limit of a line of /proc/self/limits.
fn limit(text: &str, name: &str) -> Option<(Limit, Limit)> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = rest.split_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(None),
        figure => figure.parse().ok().map(Some),
    };
    Some((next()?, next()?))
}

/// The page size in an auxiliary vector of 64-bit words.
fn page_size(vector: &[u8]) -> Option<usize> {
    let (words, _) = vector.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let pairs = words.as_chunks::<2>().0;
    pairs.iter().find(|[key, _]| *key == PAGE_SIZE).and_then(|[_, bytes]| usize::try_from(*bytes).ok())
}

/// Nodes as bits, from a list such as `0-1,3`.
fn node_list(list: &str) -> Option<u64> {
    list.split(',').try_fold(0u64, |all, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some((first..=last).filter(|node| *node < 64).fold(all, |all, node| all | 1 << node))
    })
}

fn number(path: PathBuf) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn stocks(root: &Path) -> Vec<Stock> {
    let Ok(folders) = fs::read_dir(root.join("sys/kernel/mm/hugepages")) else { return Vec::new() };
    let mut found: Vec<Stock> = folders
        .filter_map(|folder| {
            let folder = folder.ok()?.path();
            let kib: usize =
                folder.file_name()?.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let figure = |name: &str| number(folder.join(name)).unwrap_or(0);
            let free = figure("free_hugepages").saturating_sub(figure("resv_hugepages"));
            let more = figure("nr_overcommit_hugepages").saturating_sub(figure("surplus_hugepages"));
            Some(Stock { size: kib * 1024, free: free + more, all: figure("nr_hugepages") })
        })
        .collect();
    found.sort_by_key(|stock| stock.size);
    found
}

/// The limited memory cgroups around this process: own first, then those above.
fn cgroups(root: &Path) -> Vec<Cgroup> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let path = Path::new(path.trim_start_matches('/'));
        if controllers.split(',').any(|name| name == "memory") {
            climb(&root.join("sys/fs/cgroup/memory"), path, &V1, &mut found);
        } else if controllers.is_empty() {
            climb(&root.join("sys/fs/cgroup"), path, &V2, &mut found);
            climb(&root.join("sys/fs/cgroup/unified"), path, &V2, &mut found);
        }
    }
    found
}

/// The names of one version's files.
struct Names {
    limits: &'static [&'static str],
    usage: &'static str,
    cache: [&'static str; 2],
}

const V1: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    cache: ["total_inactive_file ", "total_active_file "],
};
const V2: Names = Names {
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    cache: ["inactive_file ", "active_file "],
};
/// What version 1 shows where there is no limit, or more than any machine has.
const NONE: usize = 1 << 60;

fn climb(mount: &Path, path: &Path, names: &Names, found: &mut Vec<Cgroup>) {
    for folder in path.ancestors().map(|path| mount.join(path)) {
        let Some(used) = number(folder.join(names.usage)) else { continue };
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let cache = |name: &&str| stat.lines().find_map(|line| line.strip_prefix(*name)?.trim().parse::<usize>().ok());
        let cache: usize = names.cache.iter().filter_map(cache).sum();
        for file in names.limits.iter().map(|name| folder.join(name)) {
            if let Some(limit) = number(file.clone()).filter(|limit| *limit < NONE) {
                found.push(Cgroup { file, limit, used: used.saturating_sub(cache) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_lists_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         8388608              unlimited            bytes     \n";
        assert_eq!(limit(limits, "Max locked memory"), Some((Some(8_388_608), None)));
        assert_eq!(limit(limits, "Max stack size"), None);
        assert_eq!(field("MemTotal:  12 kB\nMemAvailable:   7 kB\n", "MemAvailable"), Some(7));
        assert_eq!((node_list("0-1,3"), node_list("0"), node_list("x")), (Some(0b1011), Some(1), None));
        let vector: Vec<u8> = [3u64, 9, 6, 65_536, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!((page_size(&vector), page_size(&[])), (Some(65_536), None));
    }

    #[test]
    fn the_real_machine_shows_what_every_linux_shows() {
        let machine = Machine::read(Path::new("/"));
        assert!(machine.page.is_some_and(usize::is_power_of_two) && machine.lock.is_some());
        assert!(machine.available.is_some_and(|bytes| bytes > 1 << 20) && machine.capabilities.is_some());
        assert!(machine.score.is_some() && machine.core_pattern.is_some() && machine.overcommit.is_some());
    }

    #[test]
    fn an_empty_tree_is_a_machine_of_which_nothing_is_known() {
        let machine = Machine::read(Path::new("/nonexistent"));
        assert!(
            machine.page.is_none() && machine.lock.is_none() && machine.cgroups.is_empty() && !machine.can(IPC_LOCK)
        );
    }
}
