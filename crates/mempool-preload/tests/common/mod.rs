//! Compiles C and C++ programs and runs them on the pool.
#![allow(dead_code, reason = "each test file uses its part")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The library that was built together with this test.
pub fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let library = test.with_file_name("libmempool_preload.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

/// A folder for this test run's files.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Compiles tests/c/`source` with `flags`; the program's (or library's) path, `name` in the folder.
pub fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source);
    // Tests of one file run at once, and may want the same program.
    let to = folder().join(format!("{name}-{:?}", std::thread::current().id()).replace(['(', ')'], ""));
    let compiler = if source.ends_with(".cpp") { "c++" } else { "cc" };
    let mut command = Command::new(compiler);
    command.args(["-O1", "-g", "-Wall", "-Wno-unused-result", "-fno-builtin", "-D_GNU_SOURCE", "-pthread", "-o"]);
    command.arg(&to).arg(from).args(flags).arg("-ldl");
    let output = command.output().expect("a compiler is there");
    assert!(output.status.success(), "{compiler} {source}: {}", String::from_utf8_lossy(&output.stderr));
    to
}

/// `program` on the pool, in a small lazily committed segment, with no other `MEMPOOL_` variable around.
pub fn on_pool(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = plain(program);
    command.env("LD_PRELOAD", library());
    command.envs([("MEMPOOL_COMMIT", "lazy"), ("MEMPOOL_LOCK", "off"), ("MEMPOOL_HUGE_PAGES", "off")]);
    command
}

/// `program` without the pool.
pub fn plain(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MEMPOOL_")) {
        command.env_remove(name);
    }
    command.env_remove("LD_PRELOAD").env("LC_ALL", "C");
    command
}

/// What a run left behind.
pub struct Ran {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    Ran {
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
        code: status.code(),
        signal: status.signal(),
    }
}

/// Runs to the end and demands success.
pub fn succeed(command: &mut Command) -> Ran {
    let ran = run(command);
    assert!(ran.code == Some(0), "{command:?}: code {:?} signal {:?}\n{}\n{}", ran.code, ran.signal, ran.out, ran.err);
    ran
}
