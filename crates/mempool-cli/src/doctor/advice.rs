//! From facts and settings to sentences: which promises of the pool hold here, and the command that fixes each that
//! does not.

use mempool::bytes::Bytes;
use mempool::config::{Commit, Config, Exhausted, Numa, Small, Values, Wish};
use mempool::{InitError, room_for_huge_pages};

use super::machine::{ADDRESSES, DATA, IPC_LOCK, MEMLOCK, Machine, STACKS, SYS_RESOURCE};
use crate::shell::quoted;

/// The score that `process` asks for.
const SCORE: i32 = -900;
/// The least stack of which `process` can make a MiB present.
const STACK: usize = 5 << 18;

/// What the program itself is taken to need beside the segment.
const PROGRAM: usize = 64 << 20;

/// How a promise stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    Holds,
    /// Something worth knowing; no promise.
    Note,
    /// The pool is made, and this promise does not hold.
    Short,
    /// No pool can be made.
    Fails,
}

/// A sentence about one thing.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about, in one word.
    pub topic: &'static str,
    /// How it stands.
    pub state: State,
    /// The sentence.
    pub says: String,
    /// The command, or the setting, that changes it; empty where nothing need be done.
    pub fix: String,
}

fn finding(topic: &'static str, state: State, says: String) -> Finding {
    Finding { topic, state, says, fix: String::new() }
}

impl Finding {
    fn fix(mut self, fix: String) -> Self {
        self.fix = fix;
        self
    }
}

fn unknown(topic: &'static str, what: &str) -> Finding {
    finding(topic, State::Note, format!("{what} is not known: the system does not show it."))
}

/// Short, or failing where the configuration requires the thing.
fn lacking(values: &Values, wish: Wish) -> State {
    if values.strict || wish == Wish::Required { State::Fails } else { State::Short }
}

/// All findings for a configuration.
pub fn findings(machine: &Machine, config: &Config) -> Vec<Finding> {
    let values = config.values();
    let mut all = vec![page(machine)];
    if values.small == Small::System {
        let says = "small=system hands every request to the C library: nothing is promised.".into();
        all.push(finding("autonomy", State::Short, says).fix("--small slab".into()));
        return all;
    }
    all.push(memory(machine, values));
    all.extend(growth(machine, config));
    all.extend(addresses(machine, config));
    all.extend(data(machine, config));
    all.push(overcommit(machine, config));
    all.push(lock(machine, values));
    all.push(swap(machine, values));
    all.push(huge_pages(machine, config));
    all.push(nodes(machine, values));
    all.extend(program(machine, values));
    all.push(core_files(machine, values));
    all
}

fn page(machine: &Machine) -> Finding {
    match machine.page {
        Some(bytes) => finding("page", State::Note, format!("OS pages have {}.", Bytes(bytes))),
        None => unknown("page", "The size of OS pages"),
    }
}

/// Whether the segment will lie in huge OS pages that were set aside, rather than fall back to small ones.
fn in_reserved_pages(machine: &Machine, values: &Values) -> bool {
    let size = values.huge_page_size;
    let enough = |stock: &super::machine::Stock| stock.size == size && stock.free >= values.segment.div_ceil(size);
    size > 0 && machine.stocks.iter().any(enough)
}

/// The least that is available: by the machine, or by a cgroup, whose file comes along.
pub fn available(machine: &Machine) -> Option<(usize, Option<String>)> {
    let groups = machine
        .cgroups
        .iter()
        .map(|group| (group.limit.saturating_sub(group.used), Some(group.file.display().to_string())));
    groups.chain(machine.available.map(|bytes| (bytes, None))).min_by_key(|(bytes, _)| *bytes)
}

fn memory(machine: &Machine, values: &Values) -> Finding {
    // As the pool asks.
    let need = mempool::memory_for(values.segment);
    if values.commit == Commit::Lazy {
        let says = "commit=lazy takes memory at the first touch: a request may fault, and may end in the killer when the machine is full.";
        return finding("present", State::Short, says.into()).fix("--commit eager".into());
    }
    if in_reserved_pages(machine, values) {
        let says = "Huge OS pages that were set aside are present from the start.";
        return finding("present", State::Holds, says.into());
    }
    let Some((room, file)) = available(machine) else { return unknown("present", "Available memory") };
    let of = file.as_ref().map_or("The machine has".into(), |file| format!("The memory cgroup leaves ({file})"));
    let says = format!(
        "{of} {:#} available; the segment needs {} at init, and page tables.",
        Bytes(room),
        Bytes(values.segment)
    );
    if room >= need {
        return finding("present", State::Holds, says);
    }
    let fix = match file {
        Some(file) => format!(
            "echo {} | sudo tee {} (MemoryMax= of systemd, --memory of a container), or a smaller --segment",
            need.saturating_sub(room).saturating_add(limit_of(machine, &file)).next_multiple_of(1 << 20),
            // systemd writes a backslash into the names of some groups.
            quoted(&file)
        ),
        None => format!("--segment {}M", most_in(room) >> 20),
    };
    finding("present", State::Fails, says).fix(fix)
}

/// The largest segment that can be made present where so much is available.
const fn most_in(room: usize) -> usize {
    let apart = mempool::memory_for(room) - room;
    room.saturating_sub(apart)
}

fn limit_of(machine: &Machine, file: &str) -> usize {
    machine.cgroups.iter().find(|group| group.file.display().to_string() == file).map_or(0, |group| group.limit)
}

fn growth(machine: &Machine, config: &Config) -> Option<Finding> {
    if config.values().exhausted != Exhausted::Grow {
        return None;
    }
    let most = config.growth_limit();
    let (room, _) = available(machine)?;
    let says = format!("exhausted=grow may take {} in all; {:#} are available now.", Bytes(most), Bytes(room));
    Some(match room >= most {
        true => finding("growth", State::Holds, says),
        false => finding("growth", State::Short, says + " Growth ends where memory does.")
            .fix(format!("--max-segment {}M", most_in(room) >> 20)),
    })
}

/// A limit with room for the pool's `need` and the program.
const fn beside(need: usize) -> usize {
    need.saturating_add(PROGRAM)
}

/// Memory that may be written to counts against its own limit from where it is committed.
fn data(machine: &Machine, config: &Config) -> Option<Finding> {
    let (limit, hard) = machine.data?;
    let limit = limit?;
    let need = config.values().segment;
    let says = format!(
        "The data of a process are limited to {} (ulimit -d); the pool's count, {}.",
        Bytes(limit),
        Bytes(need)
    );
    Some(match limit > need {
        true => finding("data", State::Holds, says),
        false => finding("data", State::Fails, says).fix(DATA.raise(beside(need), hard)),
    })
}

fn addresses(machine: &Machine, config: &Config) -> Option<Finding> {
    let (limit, hard) = machine.addresses?;
    let limit = limit?;
    let need = config.growth_limit();
    let says =
        format!("The address space is limited to {} (ulimit -v); the pool reserves {}.", Bytes(limit), Bytes(need));
    Some(match limit > need {
        true => finding("addresses", State::Holds, says),
        false => finding("addresses", State::Fails, says).fix(ADDRESSES.raise(beside(need), hard)),
    })
}

fn overcommit(machine: &Machine, config: &Config) -> Finding {
    let Some(mode) = machine.overcommit else { return unknown("overcommit", "vm.overcommit_memory") };
    if mode != 2 {
        let says = format!("vm.overcommit_memory is {mode}: the kernel promises the segment without counting.");
        return finding("overcommit", State::Holds, says);
    }
    let Some((most, given)) = machine.promises else { return unknown("overcommit", "CommitLimit") };
    let (room, need) = (most.saturating_sub(given), config.values().segment);
    let says = format!(
        "vm.overcommit_memory is 2: {:#} may still be promised, the segment needs {}.",
        Bytes(room),
        Bytes(need)
    );
    match room >= need {
        true => finding("overcommit", State::Holds, says),
        false => finding("overcommit", State::Fails, says).fix("sudo sysctl vm.overcommit_memory=0".into()),
    }
}

fn lock(machine: &Machine, values: &Values) -> Finding {
    if values.lock == Wish::Off {
        let says = "lock=off: the kernel may swap the segment out.";
        let state = if machine.swap == Some(0) { State::Note } else { State::Short };
        return finding("lock", state, says.into()).fix("--lock try".into());
    }
    if in_reserved_pages(machine, values) {
        return finding("lock", State::Holds, "Huge OS pages that were set aside are never swapped.".into());
    }
    let need = values.segment;
    if machine.can(IPC_LOCK) {
        let says = format!("CAP_IPC_LOCK is there: {} can be locked whatever the limit.", Bytes(need));
        return finding("lock", State::Holds, says);
    }
    let Some((soft, hard)) = machine.lock else { return unknown("lock", "The lock limit") };
    let show = |limit: Option<usize>| limit.map_or("unlimited".into(), |bytes| Bytes(bytes).to_string());
    let says = format!("The lock limit is {} (hard {}); the segment needs {}.", show(soft), show(hard), Bytes(need));
    if soft.is_none_or(|soft| soft >= need) {
        return finding("lock", State::Holds, says);
    }
    let fix = lock_more(need, hard);
    finding("lock", lacking(values, values.lock), says).fix(fix)
}

/// What makes room for so much that is locked.
fn lock_more(need: usize, hard: Option<usize>) -> String {
    let capability = if hard.is_some_and(|hard| hard < need) { " or --cap-add IPC_LOCK" } else { "" };
    MEMLOCK.raise(need, hard) + capability
}

fn swap(machine: &Machine, values: &Values) -> Finding {
    match machine.swap {
        Some(0) => finding("swap", State::Holds, "There is no swap: nothing that is present goes away.".into()),
        Some(bytes) => {
            let locked = values.lock != Wish::Off && lock(machine, values).state == State::Holds;
            let says = format!("There is {:#} of swap; ", Bytes(bytes));
            match locked {
                true => finding("swap", State::Holds, says + "the locked segment never goes there."),
                false => finding("swap", State::Short, says + "a segment that is not locked may go there.")
                    .fix("sudo swapoff -a".into()),
            }
        }
        None => unknown("swap", "Swap"),
    }
}

fn huge_pages(machine: &Machine, config: &Config) -> Finding {
    let values = config.values();
    let state = lacking(values, values.huge_pages);
    if values.huge_pages == Wish::Off {
        return finding("huge", State::Note, "huge_pages=off: each OS page costs its own entry of the TLB.".into());
    }
    if values.huge_page_size > 0 {
        return reserved(machine, values, state);
    }
    // As the pool asks.
    let room = machine.huge.map(|size| room_for_huge_pages(config, machine.page.unwrap_or(4096), size));
    if let Some(Err(error @ InitError::NoHugeRoom { bytes, size, least })) = room {
        let says = format!("A segment of {} has no room for a whole huge OS page of {}.", Bytes(bytes), Bytes(size));
        let fix = match least {
            0 => error.hint().to_owned(),
            least => format!("--segment {}K, or --huge-pages off", least.div_ceil(1024)),
        };
        return finding("huge", state, says).fix(fix);
    }
    match machine.transparent.as_deref() {
        Some("never") => finding("huge", state, "Transparent huge OS pages are switched off.".into())
            .fix("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled".into()),
        Some(mode) => finding(
            "huge",
            State::Holds,
            format!(
                "Transparent huge OS pages are allowed ({mode}); how many there were, the pool's table says (--stats)."
            ),
        ),
        None => finding("huge", state, "This kernel has no transparent huge OS pages.".into())
            .fix("--huge-pages off, to say that this is fine".into()),
    }
}

fn reserved(machine: &Machine, values: &Values, state: State) -> Finding {
    let size = values.huge_page_size;
    let need = values.segment.div_ceil(size);
    let kib = size >> 10;
    let Some(stock) = machine.stocks.iter().find(|stock| stock.size == size) else {
        let sizes: Vec<String> = machine.stocks.iter().map(|stock| Bytes(stock.size).to_string()).collect();
        let says = format!("There are no huge OS pages of {} here (there are: {}).", Bytes(size), sizes.join(", "));
        return finding("huge", state, says).fix("--huge-page-size 2M, or 0 for transparent ones".into());
    };
    let says = format!(
        "{need} huge OS pages of {} are needed; of {} that are set aside {} are free.",
        Bytes(size),
        stock.all,
        stock.free
    );
    match stock.free >= need {
        true => finding("huge", State::Holds, says),
        false => finding("huge", state, says).fix(format!(
            "echo {} | sudo tee /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages",
            stock.all + need - stock.free
        )),
    }
}

fn nodes(machine: &Machine, values: &Values) -> Finding {
    let Some(online) = machine.nodes else { return unknown("numa", "The number of memory nodes") };
    let count = online.count_ones();
    let wanted = match values.numa {
        Numa::Bind(nodes) => nodes,
        Numa::Off if count > 1 => {
            let says =
                format!("There are {count} memory nodes; numa=off leaves the segment where the first touch puts it.");
            return finding("numa", State::Note, says)
                .fix("--numa local, or interleave for threads on all nodes".into());
        }
        _ => 0,
    };
    let absent = wanted & !online;
    if absent != 0 {
        let says = format!("numa names node {}, which is not there.", absent.trailing_zeros());
        // Without any the system refuses; else memory lies on those that are there.
        let state = if absent == wanted { State::Fails } else { lacking(values, Wish::Try) };
        return finding("numa", state, says).fix("see /sys/devices/system/node/online".into());
    }
    let plural = if count == 1 { "is one memory node" } else { "are several memory nodes" };
    finding("numa", State::Holds, format!("There {plural}; what numa asks for can be had."))
}

fn program(machine: &Machine, values: &Values) -> Vec<Finding> {
    if !values.lock_process {
        let says = "process=off: only the segment is locked; the program's text, libraries and stack may be dropped and read again, and the killer may choose it.";
        return vec![finding("process", State::Note, says.into()).fix("--process".into())];
    }
    let capable = machine.can(IPC_LOCK);
    let need = beside(values.segment);
    let room = machine.lock.is_some_and(|(soft, _)| soft.is_none_or(|soft| soft >= need));
    let locked = match capable || room {
        true => finding("process", State::Holds, "The program's text, libraries and stacks can be locked.".into()),
        false => finding(
            "process",
            lacking(values, values.lock),
            "The lock limit has no room for the program's text, libraries and stacks beside the segment.".into(),
        )
        .fix(lock_more(need, machine.lock.and_then(|(_, hard)| hard))),
    };
    let score = machine.score.unwrap_or(0);
    let says = format!("The out-of-memory score is {score}, and process=on asks for {SCORE}");
    let score = match score <= SCORE || machine.can(SYS_RESOURCE) {
        true => finding("score", State::Holds, says + ": granted."),
        false => finding("score", lacking(values, Wish::Try), says + ", which needs CAP_SYS_RESOURCE.").fix(
            "from outside: OOMScoreAdjust=-900 of systemd, --oom-score-adj -900 of a container, or echo -900 | sudo tee /proc/PID/oom_score_adj"
                .into(),
        ),
    };
    let mut all = vec![locked, score];
    if let Some((Some(limit), hard)) = machine.stack.filter(|(soft, _)| soft.is_some_and(|bytes| bytes < STACK)) {
        let says = format!("The stack is limited to {}; process=on makes 1 MiB of it present.", Bytes(limit));
        all.push(
            finding("stack", lacking(values, Wish::Try), says)
                .fix(STACKS.raise(hard.map_or(8 << 20, |hard| hard.clamp(STACK, 8 << 20)), hard)),
        );
    }
    all
}

fn core_files(machine: &Machine, values: &Values) -> Finding {
    let Some(pattern) = &machine.core_pattern else { return unknown("core", "Where core files go") };
    let piped = pattern.starts_with('|');
    let to =
        if piped { format!("the program {}", pattern.trim_start_matches('|')) } else { format!("the file {pattern}") };
    match (values.dump, machine.core) {
        (false, _) => finding("core", State::Holds, format!("dump=off: core files (to {to}) leave the segment out.")),
        (true, Some(Some(0))) if !piped => {
            finding("core", State::Note, "No core files are written (ulimit -c is 0).".into())
                .fix("ulimit -c unlimited, to have them".into())
        }
        (true, _) => finding(
            "core",
            State::Note,
            format!("A core file goes to {to} and holds the segment: up to {}.", Bytes(values.segment)),
        )
        .fix("--dump=off, to leave it out".into()),
    }
}
