//! `mempool run`: every message and exit code, and which setting wins.
#![allow(missing_docs)]

mod common;

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};

use common::{
    Folder, assert_has, clean, fails, mempool, on_pool, run, set_mode, stderr, stdout, succeeds, table_of, tables,
    terminal,
};

const MAIN: &str = "int main(void) { return 7; }";

fn is_root() -> bool {
    // The owner of one's own entry is one's user.
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

#[test]
fn a_program_runs_with_its_arguments_and_its_output() {
    let script = "printf '%s|' \"$0\" \"$@\"; exit 3";
    let output = run(&mut on_pool("sh", &["-c", script, "zero", "--stats", "a b", ""]));
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("zero|--stats|a b||", Some(3)));
    assert_eq!(stderr(&output), "");
    // Without `--` too; what follows the program is the program's.
    assert_eq!(succeeds(&mut mempool(["run", "--segment", "16M", "echo", "--segment", "x"])), "--segment x\n");
}

#[test]
fn its_name_and_input_are_the_callers() {
    let name = succeeds(&mut on_pool("sh", &["-c", "cat /proc/$$/cmdline"]));
    assert!(name.starts_with("sh\0-c\0"), "{name:?}");
    let piped =
        succeeds(clean("sh").arg("-c").arg(format!("echo word | {} run --segment 16M -- cat", common::MEMPOOL)));
    assert_eq!(piped, "word\n");
}

/// A runtime of the command's own must not change what the parent set: ignored signals, closed descriptors.
#[test]
fn signals_and_descriptors_are_the_callers() {
    let asked = "grep SigIgn /proc/self/status; for d in 0 1 2; do test -e /proc/$$/fd/$d || echo no $d; done >&3";
    for set in
        ["", "trap '' PIPE; ", "trap '' INT PIPE; ", "exec 0<&-; ", "exec 2>&-; ", "trap '' PIPE; exec 0<&- 2>&-; "]
    {
        let [plain, on_pool] = ["", "$MEMPOOL run --segment 16M --commit lazy -- "].map(|run| {
            let script = format!("exec 3>&1; {set}exec {run}sh -c '{asked}'");
            succeeds(clean("sh").arg("-c").arg(script).env("MEMPOOL", common::MEMPOOL))
        });
        assert_eq!(on_pool, plain, "{set}");
        assert_eq!(
            (plain.contains("no 0"), plain.contains("no 2")),
            (set.contains("0<"), set.contains("2>")),
            "{plain}"
        );
    }
    let broken =
        "trap '' PIPE; (exec $MEMPOOL run --segment 16M -- yes 2>/dev/null; ) | head -1; echo ${PIPESTATUS[0]}";
    assert_eq!(succeeds(clean("bash").arg("-c").arg(broken).env("MEMPOOL", common::MEMPOOL)), "y\n1\n");
}

#[test]
fn stats_go_to_standard_error_and_nothing_else_does() {
    let output = run(&mut mempool(["run", "--stats", "--segment", "16M", "--", "ls", "/"]));
    assert_eq!(stdout(&output), succeeds(clean("ls").arg("/")));
    let table = table_of(&stderr(&output), "ls");
    assert_eq!((table.segment, table.refused), (16 << 20, 0));
    assert!(table.slabs > 0);
    assert_eq!(tables(&stderr(&output)).len(), 1);
    // The line before the table, which docs/STATS.md explains with those of the table.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/STATS.md")).unwrap();
    let first = stderr(&output).lines().next().unwrap_or_default().replace(|c: char| c.is_ascii_digit(), "");
    assert_eq!(first, "mempool: process  (ls)");
    assert_has(&page, &["| `mempool: process N (NAME)` |"]);
    assert_eq!(stderr(&run(&mut mempool(["run", "--stats=off", "--segment", "16M", "ls"]))), "");
}

#[test]
fn a_flag_overrides_the_environment_and_that_the_default() {
    let segment = |command: &mut std::process::Command| table_of(&stderr(&run(command)), "ls").segment;
    let common = ["--stats", "--commit", "lazy", "--", "ls"];
    let plain = || mempool(std::iter::once("run").chain(common));
    let flagged = || mempool(["run", "--segment", "8M"].into_iter().chain(common));
    assert_eq!(segment(&mut plain()), 512 << 20);
    assert_eq!(segment(plain().env("MEMPOOL_SEGMENT", "32M")), 32 << 20);
    assert_eq!(segment(flagged().env("MEMPOOL_SEGMENT", "32M")), 8 << 20);
    let script = "echo $MEMPOOL_SEGMENT $MEMPOOL_COMMIT $MEMPOOL_NAME $MEMPOOL_DUMP";
    let mut command = mempool(["run", "--segment", "8M", "--commit", "lazy", "--dump=off", "sh", "-c", script]);
    command.env("MEMPOOL_NAME", "mine").env("MEMPOOL_COMMIT", "eager");
    assert_eq!(succeeds(&mut command), "8M lazy mine off\n");
    // A bad value in the environment is an error even where a flag overrides it: nothing is ignored.
    assert_has(&fails(flagged().env("MEMPOOL_SEGMENT", "8MB"), 125), &["MEMPOOL_SEGMENT=8MB: KB, MB, GB and TB"]);
    // Whether it is in range, and goes with the others, is asked of what is in force.
    assert_eq!(segment(flagged().env("MEMPOOL_SEGMENT", "1")), 8 << 20);
}

#[test]
fn settings_are_refused_with_the_librarys_messages() {
    let cases: [(&[&str], &str); 8] = [
        (&["--segment", "512MB"], "--segment=512MB: KB, MB, GB and TB mean 1000 to some and 1024 to others"),
        (
            &["--segment", "100K"],
            "segment is 100 KiB, but must be from 256 KiB to 16 TiB (set by MEMPOOL_SEGMENT or --segment)",
        ),
        (&["--small", "tiny"], "--small=tiny: accepted: slab, heap, system"),
        (&["--guard-pages=maybe"], "--guard-pages=maybe: accepted: on, off, 1, 0"),
        (&["--wait-time", "5"], "--wait-time=5: accepted: a whole number with ns, us, ms or s; or 0"),
        (&["--name", "a$b"], "name is \"a$b\", but must be 1 to 31 bytes of printable ASCII"),
        (
            &["--exhausted", "grow", "--max-segment", "32M"],
            "max_segment must not be less than segment: 32 MiB against 512 MiB",
        ),
        (&["--huge-pages", "required", "--commit", "lazy"], "huge_pages=required needs commit=eager"),
    ];
    for (flags, message) in cases {
        let said = fails(&mut mempool(["run"].iter().chain(flags).chain(&["--", "true"])), 125);
        assert_has(&said, &["mempool: ", message]);
    }
}

#[test]
fn colours_are_for_terminals_that_have_them() {
    let said = |kind: &str, colours: &str| {
        let (mut shown, written) = terminal();
        let mut command = mempool(["run", "--segment", "1K", "--", "true"]);
        let child = command.env("TERM", kind).env("NO_COLOR", colours).stderr(written).spawn();
        drop(command);
        assert_eq!(child.unwrap().wait().unwrap().code(), Some(125));
        let mut bytes = Vec::new();
        // Nobody writes any more, which a terminal reports as an error behind all that was written.
        let _ = shown.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    assert_has(&said("xterm", ""), &["\x1b[1;31mmempool:\x1b[0m segment is 1 KiB"]);
    for plain in [said("dumb", ""), said("xterm", "1")] {
        assert!(plain.starts_with("mempool: segment is 1 KiB"), "{plain:?}");
    }
}

#[test]
fn unknown_variables_and_flags_name_the_nearest() {
    let said = fails(on_pool("true", &[]).env("MEMPOOL_SEGMNT", "1"), 125);
    assert_eq!(said, "mempool: unknown setting MEMPOOL_SEGMNT; did you mean MEMPOOL_SEGMENT?\n");
    let said = fails(on_pool("true", &[]).env("MEMPOOL_QQQQQQQQ", "1"), 125);
    assert_has(&said, &["unknown setting MEMPOOL_QQQQQQQQ", "fix: `mempool config` lists all settings"]);
    let said = fails(on_pool("true", &[]).env("MEMPOOL_LOCK", "maybe"), 125);
    assert_has(&said, &["MEMPOOL_LOCK=maybe: accepted: off, try, required"]);
    assert_has(&fails(&mut mempool(["run", "--segmnt", "1M", "true"]), 125), &["--segmnt", "--segment"]);
    assert_has(&fails(&mut mempool(["run"]), 125), &["PROGRAM", "Usage"]);
    assert_has(&fails(&mut mempool(["rum"]), 125), &["rum", "run"]);
    fails(&mut mempool([] as [&str; 0]), 125);
}

#[test]
fn help_and_version_are_no_failures() {
    let help = succeeds(&mut mempool(["run", "--help"]));
    for setting in mempool::config::SETTINGS {
        assert_eq!(
            help.contains(&format!("{} ", setting.flag)) || help.contains(&format!("{}[", setting.flag)),
            !setting.hidden
        );
    }
    assert_has(&help, &["Examples:", "mempool run -- redis-server", "125", "126", "127", "128+n"]);
    assert!(!help.contains('\x1b'), "colours, though this is no terminal");
    assert_has(&succeeds(&mut mempool(["--help"])), &["run", "starve", "config", "Examples:"]);
    assert_has(&succeeds(&mut mempool(["--version"])), &["mempool ", env!("CARGO_PKG_VERSION")]);
}

#[test]
fn exit_codes_are_those_of_env_and_timeout() {
    let folder = Folder::new("codes");
    assert_has(&fails(&mut on_pool("no-such-program", &[]), 127), &["no-such-program: no such program in PATH"]);
    assert_has(&fails(&mut on_pool("/no/such/program", &[]), 127), &["/no/such/program: no such program"]);
    let plain = folder.write("plain", "text");
    assert_has(&fails(&mut on_pool(&plain, &[]), 126), &["not executable", "chmod +x"]);
    assert_has(&fails(&mut on_pool(&folder.path("."), &[]), 126), &["is a directory"]);
    // In PATH, a file that may not be executed is found, but not runnable.
    assert_has(&fails(on_pool("plain", &[]).env("PATH", &folder.0), 126), &["not executable"]);
    fails(on_pool("", &[]).env("PATH", &folder.0), 127);
    let seven = folder.compile("seven", MAIN, &[]);
    fails(&mut on_pool(&seven, &[]), 7);
    fails(on_pool("seven", &[]).env("PATH", &folder.0), 7);
    fails(on_pool("./seven", &[]).current_dir(&folder.0), 7);
}

#[test]
fn a_signal_is_the_programs_own() {
    let killed = run(&mut on_pool("sh", &["-c", "kill -TERM $$"]));
    assert_eq!(killed.status.signal(), Some(15));
    let script = format!("{} run --segment 16M -- sh -c 'kill -KILL $$'; echo $?", common::MEMPOOL);
    assert_eq!(succeeds(clean("sh").args(["-c", &script])), "137\n");
}

#[test]
fn what_has_no_dynamic_linker_is_refused() {
    let folder = Folder::new("static");
    for (name, flag) in [("static", "-static"), ("static-pie", "-static-pie")] {
        let program = folder.compile(name, MAIN, &[flag]);
        let said = fails(&mut on_pool(&program, &[]), 126);
        assert_has(&said, &[&program, "is statically linked", "fix: link it dynamically"]);
    }
    let object = folder.compile("object", MAIN, &["-c"]);
    set_mode(&object, 0o755);
    assert_has(&fails(&mut on_pool(&object, &[]), 126), &["is an ELF file but no program"]);
}

#[test]
fn foreign_programs_are_refused() {
    let folder = Folder::new("foreign");
    let seven = folder.compile("seven", MAIN, &[]);
    let image = std::fs::read(&seven).unwrap();
    let changed = |name: &str, changes: &[(usize, u8)]| {
        let mut image = image.clone();
        for (at, byte) in changes {
            image[*at] = *byte;
        }
        std::fs::write(folder.0.join(name), image).unwrap();
        set_mode(&folder.path(name), 0o755);
        fails(&mut on_pool(&folder.path(name), &[]), 126)
    };
    assert_has(&changed("narrow", &[(4, 1)]), &["is a 32-bit program", "fix: use the program's 64-bit"]);
    assert_has(&changed("riscv", &[(18, 243), (19, 0)]), &["is for riscv64", "fix: use the program's"]);
    let linker = format!("-Wl,--dynamic-linker={}", "/lib/ld-musl-x86_64.so.1");
    let musl = folder.compile("musl", MAIN, &[&linker]);
    assert_has(&fails(&mut on_pool(&musl, &[]), 126), &["ld-musl", "needs the GNU C library"]);
}

#[test]
fn programs_with_more_rights_are_refused() {
    let folder = Folder::new("rights");
    if !is_root() {
        eprintln!("only a set-uid program of the system is tested: without root none can be made");
        let said = fails(&mut on_pool("/bin/su", &[]), 126);
        assert_has(&said, &["/bin/su is set-uid: the dynamic linker lets nobody load a library into it", "fix: "]);
        return;
    }
    for (name, mode, message) in [("user", 0o4755, "is set-uid"), ("group", 0o2755, "is set-gid")] {
        let program = folder.compile(name, MAIN, &[]);
        std::os::unix::fs::chown(&program, Some(65534), Some(65534)).unwrap();
        set_mode(&program, mode);
        assert_has(&fails(&mut on_pool(&program, &[]), 126), &[message, "fix: run it as the user"]);
        // The rights are the caller's own: nothing is gained, and the library is let in.
        std::os::unix::fs::chown(&program, Some(0), Some(0)).unwrap();
        set_mode(&program, mode);
        fails(&mut on_pool(&program, &[]), 7);
    }
}

/// File capabilities make a program privileged for everybody but root, so this takes root to prepare and another
/// user to try; the files lie where that user can reach them.
#[test]
fn programs_with_file_capabilities_are_refused() {
    if !is_root() {
        // Set-uid is tested on a program of the system above.
        eprintln!("not tested: without root there is no way to give a program capabilities");
        return;
    }
    let folder = Folder(std::env::temp_dir().join(format!("mempool-rights-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    set_mode(folder.0.to_str().unwrap(), 0o755);
    let program = folder.compile("seven", MAIN, &[]);
    let (own, library) = (folder.program("mempool", common::MEMPOOL), folder.path("libmempool_preload.so"));
    let deps = std::path::Path::new(common::MEMPOOL).with_file_name("deps");
    std::fs::copy(deps.join("libmempool_preload.so"), library).unwrap();
    let as_nobody = || {
        let mut command = clean(&own);
        command.args(["run", "--segment", "16M", "--", &program]).uid(65534).gid(65534);
        command
    };
    fails(&mut as_nobody(), 7);
    // Version 2, effective, CAP_NET_RAW permitted.
    let mut capabilities = [0u8; 20];
    capabilities[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    capabilities[4..8].copy_from_slice(&(1u32 << 13).to_le_bytes());
    let value = capabilities.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let script = format!("import os; os.setxattr('{program}', 'security.capability', b'{value}')");
    succeeds(clean("/usr/bin/python3").args(["-c", &script]));
    assert_has(&fails(&mut as_nobody(), 126), &["is given file capabilities", "fix: "]);
    fails(&mut on_pool(&program, &[]), 7);
}

#[test]
fn of_a_script_the_interpreter_counts() {
    let folder = Folder::new("scripts");
    fails(&mut on_pool(&folder.script("five", "#!/bin/sh\nexit 5\n"), &[]), 5);
    let chained = folder.script("chained", &format!("#! {} argument\n", folder.path("five")));
    fails(&mut on_pool(&chained, &[]), 5);
    let said = fails(&mut on_pool(&folder.script("gone", "#!/no/interpreter -x\n"), &[]), 127);
    assert_has(&said, &["gone: its interpreter /no/interpreter does not exist"]);
    let said = fails(&mut on_pool(&folder.script("dos", "#!/bin/sh\r\nexit 0\r\n"), &[]), 127);
    assert_has(&said, &["its lines end in CR LF"]);
    assert_has(&fails(&mut on_pool(&folder.script("none", "#!\n"), &[]), 126), &["names no interpreter"]);
    let said = fails(&mut on_pool(&folder.script("bare", "exit 0\n"), &[]), 126);
    assert_has(&said, &["neither an ELF program nor a script", "fix: for a shell script without a #! line"]);
    let own = folder.path("loop");
    assert_has(&fails(&mut on_pool(&folder.script("loop", &format!("#!{own}\n")), &[]), 126), &["too many scripts"]);
    let seven = folder.compile("static", MAIN, &["-static"]);
    let said = fails(&mut on_pool(&folder.script("on-static", &format!("#!{seven}\n")), &[]), 126);
    assert_has(&said, &["static is statically linked"]);
}

#[test]
fn the_library_is_found_or_named() {
    let folder = Folder::new("library");
    let alone = folder.program("mempool", common::MEMPOOL);
    let copy = || {
        let mut command = clean(&alone);
        command.args(["run", "--segment", "16M", "--stats", "--", "ls"]);
        command
    };
    let said = fails(&mut copy(), 125);
    assert_has(&said, &["libmempool_preload.so is not in", "fix: build it with", "MEMPOOL_LIBRARY"]);
    let deps = std::path::Path::new(common::MEMPOOL).with_file_name("deps").join("libmempool_preload.so");
    table_of(&stderr(&run(copy().env("MEMPOOL_LIBRARY", &deps))), "ls");
    assert_has(
        &fails(copy().env("MEMPOOL_LIBRARY", "/no/file"), 125),
        &["MEMPOOL_LIBRARY=/no/file: no such file", "fix: "],
    );
    std::fs::create_dir(folder.0.join("a b")).unwrap();
    std::fs::copy(&deps, folder.0.join("a b/pool.so")).unwrap();
    let said = fails(copy().env("MEMPOOL_LIBRARY", folder.0.join("a b/pool.so")), 125);
    assert_has(&said, &["has a blank or a colon", "fix: copy it elsewhere"]);
    std::fs::copy(&deps, folder.path("libmempool_preload.so")).unwrap();
    table_of(&stderr(&run(&mut copy())), "ls");
}

/// The dynamic linker would run the program without a library that it cannot load, or on one that has no pool.
#[test]
fn what_is_not_the_library_is_refused() {
    let folder = Folder::new("no-library");
    let deps = std::path::Path::new(common::MEMPOOL).with_file_name("deps").join("libmempool_preload.so");
    let image = std::fs::read(deps).unwrap();
    let mut foreign = image.clone();
    foreign[18..20].copy_from_slice(&[243, 0]);
    for (name, content) in [("half.so", &image[..image.len() / 2]), ("head.so", &image[..64]), ("foreign.so", &foreign)]
    {
        std::fs::write(folder.path(name), content).unwrap();
    }
    folder.compile("other.so", "int other;", &["-shared", "-fPIC"]);
    folder.compile("program", "int main(void) { return 0; }\nvoid mempool_preload_contains(void) {}", &["-no-pie"]);
    for (path, wrong) in [
        ("/etc/passwd".to_owned(), "is no shared library"),
        (folder.path("half.so"), "is no whole library"),
        (folder.path("head.so"), "is no whole library"),
        (folder.path("foreign.so"), "is a library for riscv64, where one for"),
        (folder.path("other.so"), "is a library without mempool_preload_contains"),
        (folder.path("program"), "is a program and no shared library"),
    ] {
        let message = format!("mempool: MEMPOOL_LIBRARY={path}: {wrong}");
        for command in ["run --segment 16M -- true", "bench --only protocol --allocators pool,system"] {
            let said = fails(mempool(command.split(' ')).env("MEMPOOL_LIBRARY", &path), 125);
            assert_has(&said, &[&message, "fix: set MEMPOOL_LIBRARY to the path of libmempool_preload.so"]);
        }
        let told = run(mempool(["doctor", "--", "true"]).env("MEMPOOL_LIBRARY", &path));
        assert_eq!(told.status.code(), Some(2), "{}", stdout(&told));
        assert_has(&stdout(&told), &[wrong, "No pool serves so: "]);
    }
}

#[test]
fn other_preloaded_libraries_stay() {
    let folder = Folder::new("preload");
    let other = folder.compile("other.so", "int mempool_test_other;", &["-shared", "-fPIC"]);
    let mut command = on_pool("sh", &["-c", "echo $LD_PRELOAD"]);
    let list = succeeds(command.env("LD_PRELOAD", &other));
    let (first, rest) = list.trim().split_once(':').expect("two libraries");
    assert!(first.ends_with("/libmempool_preload.so") && rest == other, "{list}");
    // Inside of another `mempool run`, the library is in the list already.
    let list =
        succeeds(on_pool(common::MEMPOOL, &["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).env("LD_PRELOAD", &other));
    assert_eq!(list.trim(), format!("{first}:{rest}"));
}
