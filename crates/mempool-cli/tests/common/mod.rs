//! What the tests of the command share: starting it in a clean environment, files of their own, reading its table.
#![allow(dead_code, missing_docs, unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The command under test.
pub const MEMPOOL: &str = env!("CARGO_BIN_EXE_mempool");

/// The command with `arguments`, without variables that would change what it does.
pub fn mempool<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = clean(MEMPOOL);
    command.args(arguments);
    command
}

/// `program` without variables and ignored signals that would change what it or the command does.
pub fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEMPOOL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").env("LC_ALL", "C.UTF-8");
    // SAFETY: between fork and exec only system calls.
    unsafe {
        command.pre_exec(|| {
            // Whatever the test's own parent ignores, as a shell does for what it starts in the background.
            for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTERM] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

/// `program` on a small pool that takes memory when it is touched.
pub fn on_pool(program: &str, arguments: &[&str]) -> Command {
    let mut command = mempool(["run", "--segment", "64M", "--commit", "lazy", "--", program]);
    command.args(arguments);
    command
}

pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts the exit code and returns standard error.
#[track_caller]
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = run(command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}{said}", stdout(&output));
    said
}

/// Asserts success and returns standard output.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}\n{}{}", output.status, stdout(&output), stderr(&output));
    stdout(&output)
}

#[track_caller]
pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// A terminal: who reads what is shown on it, and who writes.
pub fn terminal() -> (File, File) {
    // Never without O_CLOEXEC, so that nothing that another test starts meanwhile keeps it open.
    let shown = File::options().read(true).write(true).open("/dev/ptmx").expect("a terminal");
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: our own descriptor, and plain numbers. The other one is new and nobody else's.
    unsafe {
        assert_eq!((libc::grantpt(shown.as_raw_fd()), libc::unlockpt(shown.as_raw_fd())), (0, 0), "a terminal");
        let written = libc::ioctl(shown.as_raw_fd(), libc::TIOCGPTPEER, flags);
        assert!(written >= 0, "a terminal's other end");
        (shown, File::from_raw_fd(written))
    }
}

/// Sends a signal to a process.
pub fn send(process: u32, signal: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::kill(process.cast_signed(), signal) };
}

/// Whether there is such a process; one that is only to be waited for is none.
pub fn lives(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Waits until `done`, for a minute at most: what comes is there at once, but on a machine with much else to do.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(begin.elapsed().as_secs() < 60, "{what}: not in 60 s");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A folder of the test `name` alone, empty, that disappears at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    pub fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }

    pub fn script(&self, name: &str, content: &str) -> String {
        let text = self.write(&format!("{name}.text"), content);
        let path = self.program(name, &text);
        std::fs::remove_file(text).unwrap();
        path
    }

    /// A copy of `from` that can be executed. Made by a process of its own: while a file is open for writing here, what other tests start gets
    /// the descriptor too, and has it until it is another program; and what anybody may write to is executed by nobody ("text file busy").
    pub fn program(&self, name: &str, from: impl AsRef<std::ffi::OsStr>) -> String {
        let path = self.path(name);
        succeeds(clean("install").args(["-m", "755", "-T"]).arg(from).arg(&path));
        path
    }

    /// A program from `source`, by the C compiler with `flags`.
    pub fn compile(&self, name: &str, source: &str, flags: &[&str]) -> String {
        let (from, to) = (self.write(&format!("{name}.c"), source), self.path(name));
        succeeds(clean("cc").args(flags).args(["-o", &to, &from]));
        to
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn set_mode(path: &str, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The figures of a table that the pool printed at exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The process's program.
    pub program: String,
    /// Bytes of the segment.
    pub segment: u64,
    /// Slabs that were carved out of runs.
    pub slabs: u64,
    /// Runs handed out.
    pub runs: u64,
    /// Requests that were refused.
    pub refused: u64,
}

/// All tables in `text`.
pub fn tables(text: &str) -> Vec<Table> {
    let parts = text.split("mempool: process ").skip(1);
    parts.filter(|part| part.contains("mempool statistics of pool")).map(table).collect()
}

fn table(part: &str) -> Table {
    let figure = |name: &str, place: usize| {
        let line = part.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no line {name:?} in:\n{part}"));
        let numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        numbers.clone().nth(place).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let program = part.split(['(', ')']).nth(1).unwrap_or_default().to_owned();
    Table {
        program,
        segment: figure("segment", 0),
        slabs: figure("slabs carved", 0),
        runs: figure("runs served", 0),
        refused: figure("exhausted", 1),
    }
}

/// The table of `program` that served most.
#[track_caller]
pub fn table_of(text: &str, program: &str) -> Table {
    let mut found = tables(text);
    found.retain(|table| table.program == program);
    let most = found.into_iter().max_by_key(|table| table.slabs + table.runs);
    most.unwrap_or_else(|| panic!("no table of {program} in:\n{text}"))
}
