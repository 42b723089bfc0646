//! `mempool doctor`, on faked machines, one flaw at a time, and on the real one.
#![allow(missing_docs)]

mod common;

use common::{Folder, MEMPOOL, assert_has, clean, fails, mempool, run, stderr, stdout};
use serde_json::Value;

/// A tree of /proc and /sys in which everything is as it should be.
struct Machine(Folder);

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
Max data size             unlimited            unlimited            bytes     \n\
Max stack size            8388608              unlimited            bytes     \n\
Max core file size        0                    unlimited            bytes     \n\
Max locked memory         LOCK                 HARD                 bytes     \n\
Max address space         unlimited            unlimited            bytes     \n";

impl Machine {
    fn good(name: &str) -> Self {
        let machine = Self(Folder::new(&format!("doctor-{name}")));
        let auxv: Vec<u8> = [6u64, 4096, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        machine.file("proc/self/auxv", &auxv);
        machine.set("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 0 kB\nCommitLimit: 4194304 kB\nCommitted_AS: 4000000 kB\n");
        machine.limits("unlimited", "unlimited");
        machine.set("proc/self/status", "Name: x\nCapEff:\t0000000000000000\n");
        machine.set("proc/self/cgroup", "0::/user/session\n");
        machine.set("proc/self/oom_score_adj", "0\n");
        machine.set("proc/sys/vm/overcommit_memory", "0\n");
        machine.set("proc/sys/kernel/core_pattern", "core\n");
        machine.set("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        machine.set("sys/devices/system/node/online", "0\n");
        machine.stock("2048", 0);
        machine
    }

    fn file(&self, path: &str, content: &[u8]) {
        let path = self.0.0.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn set(&self, path: &str, content: &str) {
        self.file(path, content.as_bytes());
    }

    fn limits(&self, soft: &str, hard: &str) {
        self.set("proc/self/limits", &LIMITS.replace("LOCK", soft).replace("HARD", hard));
    }

    fn stock(&self, kib: &str, pages: usize) {
        for (name, count) in [("nr_hugepages", pages), ("free_hugepages", pages), ("resv_hugepages", 0)] {
            self.set(&format!("sys/kernel/mm/hugepages/hugepages-{kib}kB/{name}"), &format!("{count}\n"));
        }
    }

    /// The exit code, and the report.
    fn doctor(&self, arguments: &[&str]) -> (i32, Value) {
        self.doctor_of(MEMPOOL, arguments)
    }

    /// The same from another copy of the command.
    fn doctor_of(&self, command: &str, arguments: &[&str]) -> (i32, Value) {
        let root = self.0.0.to_str().unwrap();
        let output = run(clean(command).args(["doctor", "--json", "--root", root]).args(arguments));
        assert_eq!(stderr(&output), "");
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(output.status.code().map(Value::from), Some(report["exit_code"].clone()));
        (output.status.code().unwrap(), report)
    }
}

fn finding<'a>(report: &'a Value, topic: &str) -> &'a Value {
    let all = report["findings"].as_array().expect("findings");
    all.iter().find(|finding| finding["topic"] == topic).unwrap_or_else(|| panic!("no {topic} in {report:#}"))
}

/// That `topic` stands so, with these parts in its sentence, and in its fix.
#[track_caller]
fn says(report: &Value, topic: &str, state: &str, parts: &[&str], fix: &str) {
    let found = finding(report, topic);
    assert_eq!(found["state"], state, "{found:#}");
    assert_has(found["says"].as_str().unwrap(), parts);
    assert_has(found["fix"].as_str().unwrap_or(""), &[fix]);
}

#[test]
fn on_a_good_machine_every_promise_holds() {
    let machine = Machine::good("good");
    let (code, report) = machine.doctor(&[]);
    assert_eq!(code, 0, "{report:#}");
    for topic in ["present", "overcommit", "lock", "swap", "huge", "numa"] {
        says(&report, topic, "holds", &[], "");
    }
    says(&report, "library", "holds", &["`mempool run` loads", "libmempool_preload.so"], "");
    says(&report, "page", "note", &["4 KiB"], "");
    says(&report, "process", "note", &["process=off"], "--process");
    says(&report, "core", "note", &["ulimit -c is 0"], "ulimit -c");
    assert_eq!(report["verdict"], "All 7 promises hold.");
    let output = run(&mut mempool(["doctor", "--root", machine.0.0.to_str().unwrap(), "--segment", "1G"]));
    assert_has(&stdout(&output), &["A pool with segment=1 GiB", "  holds  lock ", "fix: --process"]);
}

#[test]
fn memory_is_bounded_by_the_machine_and_by_each_cgroup() {
    let machine = Machine::good("memory");
    let (code, report) = machine.doctor(&["--segment", "5G"]);
    assert_eq!(code, 2);
    says(&report, "present", "fails", &["The machine has 4 GiB", "5 GiB"], "--segment 4087M");
    assert_has(report["verdict"].as_str().unwrap(), &["No pool serves so: present."]);
    // A group above the process's own.
    let group = |file: &str, text: &str| machine.set(&format!("sys/fs/cgroup/user/{file}"), text);
    group("memory.max", "536870912\n");
    group("memory.current", "314572800\n");
    group("memory.stat", "anon 1\ninactive_file 52428800\nactive_file 52428800\n");
    let (code, report) = machine.doctor(&["--segment", "400M"]);
    assert_eq!(code, 2);
    says(&report, "present", "fails", &["cgroup", "user/memory.max", "312 MiB"], "echo 631242752 | sudo tee");
    assert_eq!(machine.doctor(&["--segment", "300M"]).0, 0);
    group("memory.high", "419430400\n");
    says(&machine.doctor(&["--segment", "300M"]).1, "present", "fails", &["memory.high"], "MemoryMax=");
    let lazy = machine.doctor(&["--segment", "400M", "--commit", "lazy"]);
    assert_eq!(lazy.0, 1);
    says(&lazy.1, "present", "short", &["first touch"], "--commit eager");
    // A name with a backslash, as systemd makes them.
    let machine = Machine::good("memory-quoted");
    machine.set("proc/self/cgroup", "0::/a\\x2db\n");
    machine.set("sys/fs/cgroup/a\\x2db/memory.max", "1048576\n");
    machine.set("sys/fs/cgroup/a\\x2db/memory.current", "0\n");
    says(&machine.doctor(&[]).1, "present", "fails", &[], "cgroup/a\\x2db/memory.max' (");
    // Version 1.
    let machine = Machine::good("memory1");
    machine.set("proc/self/cgroup", "4:cpu,memory:/box\n0::/\n");
    machine.set("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    machine.set("sys/fs/cgroup/memory/memory.usage_in_bytes", "0\n");
    machine.set("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "104857600\n");
    machine.set("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "20971520\n");
    machine.set("sys/fs/cgroup/memory/box/memory.stat", "total_inactive_file 0\n");
    says(&machine.doctor(&["--segment", "100M"]).1, "present", "fails", &["80 MiB", "limit_in_bytes"], "--memory");
    assert_eq!(machine.doctor(&["--segment", "64M"]).0, 0);
}

#[test]
fn locking_needs_a_limit_or_a_capability() {
    let machine = Machine::good("lock");
    machine.limits("8388608", "unlimited");
    let (code, report) = machine.doctor(&["--segment", "64M"]);
    assert_eq!(code, 1);
    says(&report, "lock", "short", &["8 MiB", "unlimited", "64 MiB"], "ulimit -l 65536");
    machine.limits("8388608", "8388608");
    let (_, report) = machine.doctor(&["--segment", "64M"]);
    for way in ["limits.conf", "memlock 65536", "LimitMEMLOCK=67108864", "--ulimit memlock", "--cap-add IPC_LOCK"] {
        says(&report, "lock", "short", &[], way);
    }
    assert_eq!(machine.doctor(&["--segment", "64M", "--lock", "required"]).0, 2);
    assert_eq!(machine.doctor(&["--segment", "64M", "--strict"]).0, 2);
    machine.set("proc/self/status", "CapEff:\t0000000000004000\n");
    let (code, report) = machine.doctor(&["--segment", "64M", "--lock", "required"]);
    assert_eq!(code, 0);
    says(&report, "lock", "holds", &["CAP_IPC_LOCK"], "");
}

#[test]
fn swap_matters_where_nothing_is_locked() {
    let machine = Machine::good("swap");
    machine.set("proc/meminfo", "MemAvailable: 4194304 kB\nSwapTotal: 1048576 kB\n");
    says(&machine.doctor(&[]).1, "swap", "holds", &["1 GiB of swap", "never goes there"], "");
    let (code, report) = machine.doctor(&["--lock", "off"]);
    assert_eq!(code, 1);
    says(&report, "swap", "short", &["may go there"], "swapoff");
    says(&report, "lock", "short", &["lock=off"], "--lock try");
}

#[test]
fn huge_pages_are_allowed_or_set_aside_or_neither() {
    let machine = Machine::good("huge");
    machine.set("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    let (code, report) = machine.doctor(&[]);
    assert_eq!(code, 1);
    says(&report, "huge", "short", &["switched off"], "echo madvise | sudo tee");
    assert_eq!(machine.doctor(&["--huge-pages", "required"]).0, 2);
    assert_eq!(machine.doctor(&["--huge-pages", "off"]).0, 0);
    machine.set("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
    machine.set("sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n");
    let (code, report) = machine.doctor(&["--segment", "4M", "--huge-pages", "required"]);
    assert_eq!(code, 2);
    says(&report, "huge", "fails", &["4 MiB", "no room", "2 MiB"], "--segment 5120K, or --huge-pages off");
    says(&machine.doctor(&["--segment", "4M"]).1, "huge", "short", &["no room"], "--segment 5120K");
    assert_eq!(machine.doctor(&["--segment", "5120K", "--huge-pages", "required"]).0, 0);
    machine.set("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    machine.stock("2048", 3);
    let (code, report) = machine.doctor(&["--segment", "64M", "--huge-page-size", "2M"]);
    assert_eq!(code, 1);
    says(&report, "huge", "short", &["32 huge OS pages of 2 MiB", "of 3", "3 are free"], "echo 32 | sudo tee");
    machine.stock("2048", 32);
    machine.limits("0", "0");
    let (code, report) = machine.doctor(&["--segment", "64M", "--huge-page-size", "2M"]);
    assert_eq!(code, 0, "{report:#}");
    says(&report, "lock", "holds", &["never swapped"], "");
    let (code, report) = machine.doctor(&["--segment", "1G", "--huge-page-size", "1G", "--huge-pages", "required"]);
    assert_eq!(code, 2);
    says(&report, "huge", "fails", &["no huge OS pages of 1 GiB", "2 MiB"], "--huge-page-size 2M");
}

#[test]
fn strict_overcommit_and_address_limits_can_forbid_a_pool() {
    let machine = Machine::good("promises");
    machine.set("proc/sys/vm/overcommit_memory", "2\n");
    let (code, report) = machine.doctor(&["--segment", "1G"]);
    assert_eq!(code, 2);
    says(&report, "overcommit", "fails", &["is 2", "1 GiB"], "sysctl vm.overcommit_memory=0");
    assert_eq!(machine.doctor(&["--segment", "100M"]).0, 0);
    let limits = LIMITS.replace("LOCK", "unlimited").replace("HARD", "unlimited");
    let limited = limits.replace("Max address space         unlimited", "Max address space         1073741824");
    machine.set("proc/self/limits", &limited);
    says(&machine.doctor(&["--segment", "2G"]).1, "addresses", "fails", &["1 GiB", "2 GiB"], "ulimit -v 2162688");
    says(&machine.doctor(&["--segment", "100M"]).1, "addresses", "holds", &[], "");
    let limited = limits.replace("Max data size             unlimited", "Max data size             1073741824");
    machine.set("proc/self/limits", &limited);
    says(&machine.doctor(&["--segment", "2G"]).1, "data", "fails", &["1 GiB", "2 GiB"], "ulimit -d 2162688");
    says(&machine.doctor(&["--segment", "100M"]).1, "data", "holds", &[], "");
    // Where the hard limit is the same a shell cannot raise it.
    for (name, topic, item) in [
        ("Max address space         unlimited            unlimited", "addresses", "- as 2162688"),
        ("Max data size             unlimited            unlimited", "data", "- data 2162688"),
    ] {
        machine.set("proc/self/limits", &limits.replace(name, &name.replace("unlimited", "1073741824")));
        let (_, report) = machine.doctor(&["--segment", "2G"]);
        says(&report, topic, "fails", &["1 GiB"], item);
        says(&report, topic, "fails", &[], "=2214592512");
        assert!(!finding(&report, topic)["fix"].as_str().unwrap().contains("ulimit -"), "{report:#}");
    }
    let stack = "Max stack size            8388608              unlimited";
    machine.set("proc/self/limits", &limits.replace(stack, "Max stack size            65536                65536"));
    says(&machine.doctor(&["--process", "--segment", "100M"]).1, "stack", "short", &["64 KiB"], "- stack 1280");
    let grow = ["--segment", "1G", "--exhausted", "grow", "--max-segment", "64G"];
    says(&Machine::good("grow").doctor(&grow).1, "growth", "short", &["64 GiB", "4 GiB"], "--max-segment 4087M");
}

#[test]
fn nodes_the_program_and_core_files_are_looked_at() {
    let machine = Machine::good("nodes");
    machine.set("sys/devices/system/node/online", "0-1\n");
    says(&machine.doctor(&[]).1, "numa", "note", &["2 memory nodes"], "--numa local");
    says(&machine.doctor(&["--numa", "1"]).1, "numa", "holds", &[], "");
    let (code, report) = machine.doctor(&["--numa", "0,2"]);
    assert_eq!(code, 1);
    says(&report, "numa", "short", &["node 2"], "online");
    let (code, report) = machine.doctor(&["--numa", "2-3"]);
    assert_eq!(code, 2);
    says(&report, "numa", "fails", &["node 2"], "online");
    let (code, report) = machine.doctor(&["--process"]);
    assert_eq!(code, 1);
    says(&report, "process", "holds", &["can be locked"], "");
    says(&report, "score", "short", &["is 0", "-900", "CAP_SYS_RESOURCE"], "OOMScoreAdjust=-900");
    machine.set("proc/self/oom_score_adj", "-950\n");
    assert_eq!(machine.doctor(&["--process"]).0, 0);
    machine.limits("536870912", "unlimited");
    says(&machine.doctor(&["--process"]).1, "process", "short", &["no room"], "ulimit -l 589824");
    let required = machine.doctor(&["--process", "--lock", "required"]);
    says(&required.1, "process", "fails", &["no room"], "ulimit -l 589824");
    assert_eq!(required.0, 2);
    machine.limits("536870912", "536870912");
    for way in ["memlock 589824", "LimitMEMLOCK=603979776", "--ulimit memlock=603979776", "--cap-add IPC_LOCK"] {
        says(&machine.doctor(&["--process"]).1, "process", "short", &["no room"], way);
    }
    machine.set("proc/sys/kernel/core_pattern", "|/usr/lib/systemd/systemd-coredump %P\n");
    says(
        &machine.doctor(&[]).1,
        "core",
        "note",
        &["the program /usr/lib/systemd/systemd-coredump", "512 MiB"],
        "--dump=off",
    );
    says(&machine.doctor(&["--dump=off"]).1, "core", "holds", &["leave the segment out"], "");
    says(&machine.doctor(&["--small", "system"]).1, "autonomy", "short", &["nothing is promised"], "--small slab");
}

#[test]
fn a_program_is_checked_as_run_would() {
    let machine = Machine::good("program");
    let (code, report) = machine.doctor(&["--", "sh"]);
    assert_eq!(code, 0);
    says(&report, "program", "holds", &["can run on a pool"], "");
    let fixed = machine.0.compile("fixed", "int main(void) { return 0; }", &["-static"]);
    let (code, report) = machine.doctor(&["--", &fixed]);
    assert_eq!(code, 2);
    says(&report, "program", "fails", &["statically linked"], "link it dynamically");
    let own = "#include <stddef.h>\nvoid *malloc(size_t n) { return NULL; }\nvoid free(void *p) {}\nint main(void) { return 0; }";
    let own = machine.0.compile("own", own, &["-fno-builtin"]);
    let (code, report) = machine.doctor(&["--", &own]);
    assert_eq!(code, 1);
    says(&report, "program", "short", &["a malloc of its own"], "C library's malloc");
    says(&machine.doctor(&["--", "no-such-program"]).1, "program", "fails", &["no such program"], "");
    // With arguments, as `mempool run` takes it.
    for words in [&["--", "ls", "-l"][..], &["ls", "-l", "--", "--segment"], &["sh"]] {
        let (code, report) = machine.doctor(words);
        assert_eq!(code, 0, "{report:#}");
        says(&report, "program", "holds", &["can run on a pool"], "");
    }
}

#[test]
fn without_its_library_nothing_can_be_run() {
    let machine = Machine::good("library");
    let alone = machine.0.program("mempool", MEMPOOL);
    let (code, report) = machine.doctor_of(&alone, &[]);
    let missing = ["libmempool_preload.so is not in"];
    says(
        &report,
        "library",
        "short",
        &["`mempool run` fails: libmempool_preload.so is not in"],
        "build it with `cargo build",
    );
    assert_eq!((code, &report["verdict"]), (1, &Value::from("6 of 7 promises hold; not: library.")));
    let (code, report) = machine.doctor_of(&alone, &["--", "sh"]);
    says(&report, "library", "fails", &missing, "MEMPOOL_LIBRARY");
    assert_eq!((code, &report["verdict"]), (2, &Value::from("No pool serves so: library.")));
    // In the words of `mempool run`.
    let said = fails(clean(&alone).args(["run", "--", "sh"]), 125);
    let found = finding(&report, "library");
    let (words, fix) = (found["says"].as_str().expect("text"), found["fix"].as_str().expect("text"));
    assert_eq!(said, format!("mempool: {}\n  fix: {fix}\n", words.trim_end_matches('.')));
    let deps = std::path::Path::new(MEMPOOL).with_file_name("deps").join("libmempool_preload.so");
    std::fs::copy(deps, machine.0.path("libmempool_preload.so")).unwrap();
    assert_eq!(machine.doctor_of(&alone, &["--", "sh"]).0, 0);
}

#[test]
fn what_is_not_shown_is_not_known_and_no_error() {
    let machine = Machine(Folder::new("doctor-nothing"));
    let (code, report) = machine.doctor(&[]);
    assert!(code <= 1, "{report:#}");
    for topic in ["page", "present", "overcommit", "lock", "swap", "numa", "core"] {
        says(&report, topic, "note", &["not known"], "");
    }
}

/// The real machine: what the doctor promises, a pool has.
#[test]
fn on_the_real_machine_the_doctor_and_the_pool_agree() {
    let settings = ["--segment", "32M", "--strict"];
    let output = run(mempool(["doctor", "--json"]).args(settings));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let program = run(mempool(["run"]).args(settings).args(["--", "true"]));
    match output.status.code() {
        Some(0) => assert!(program.status.success(), "{report:#}\n{}", stderr(&program)),
        Some(2) => assert_eq!(program.status.code(), Some(125), "{report:#}"),
        code => assert!(code == Some(1), "{report:#}"),
    }
    let vast = run(&mut mempool(["doctor", "--json", "--segment", "8T"]));
    assert_eq!(vast.status.code(), Some(2), "{}", stdout(&vast));
    let said = fails(&mut mempool(["run", "--segment", "8T", "--", "true"]), 125);
    assert_has(&said, &["cannot make", "available"]);
}

#[test]
fn bad_settings_are_refused() {
    assert_has(&fails(&mut mempool(["doctor", "--segment", "1KB"]), 125), &["1000 to some"]);
    assert_has(&fails(&mut mempool(["doctor", "--segment", "1K"]), 125), &["from 256 KiB"]);
}
