//! Finds the built libraries, installs them as a user would, compiles C programs against them and runs these.
//!
//! The libraries are those that cargo has built for this very test: in the directory of its executable (deps),
//! or one above. Where neither is (cargo of another version, another runner), `cargo build` makes them.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static COMPILED: AtomicUsize = AtomicUsize::new(0);

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Shared,
    Static,
}

pub const BOTH: [Link; 2] = [Link::Shared, Link::Static];

pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory that has the shared and the static library.
fn artefacts() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let profile = deps.parent().unwrap().to_path_buf();
    let complete = |dir: &Path| ["so", "a"].iter().all(|kind| dir.join(format!("libmempool_c.{kind}")).is_file());
    if let Some(found) = [&deps, &profile].into_iter().find(|dir| complete(dir)) {
        return found.clone();
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--package", "mempool-c"]).current_dir(crate_dir());
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "cargo build failed");
    assert!(complete(&profile), "no libmempool_c.so and .a in {}", profile.display());
    profile
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A directory of this test executable's own.
pub fn scratch() -> PathBuf {
    let name = std::env::current_exe().unwrap().file_name().unwrap().to_owned();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Where install.sh has put everything. Once for each test executable.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = scratch().join("prefix");
        run(Command::new(crate_dir().join("install.sh")).arg(&prefix).arg(artefacts()).env_remove("DESTDIR"));
        prefix
    })
}

/// What pkg-config says.
pub fn pkg_config(arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.args(arguments).arg("mempool").env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
    run(&mut command).split_whitespace().map(str::to_owned).collect()
}

/// Compiles `source` with `compiler` and strict warnings; the program.
pub fn compile(compiler: &str, standard: &str, source: &Path, link: Link) -> PathBuf {
    let stem = source.file_stem().unwrap().to_str().unwrap();
    // Tests run side by side: each compiles for itself.
    let program = scratch().join(format!("{stem}-{standard}-{link:?}-{}", COMPILED.fetch_add(1, Relaxed)));
    let mut command = Command::new(compiler);
    command.arg(format!("-std={standard}")).args(["-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-D_GNU_SOURCE"]);
    command.arg("-I").arg(crate_dir().join("tests/c")).arg(source).arg("-o").arg(&program).arg("-pthread");
    match link {
        Link::Shared => command.args(pkg_config(&["--cflags", "--libs"])),
        // As -lmempool finds it where there is no shared library.
        Link::Static => {
            let flags = pkg_config(&["--static", "--cflags", "--libs"]);
            command.args(flags.iter().map(|flag| if flag == "-lmempool" { "-l:libmempool.a" } else { flag.as_str() }))
        }
    };
    run(&mut command);
    program
}

/// Compiles a program of tests/c.
pub fn c_program(name: &str, link: Link) -> PathBuf {
    compile("cc", "c11", &crate_dir().join("tests/c").join(name), link)
}

/// Runs a program with nothing of ours in its environment but `variables`.
pub fn start(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_LIBRARY_PATH", prefix().join("lib"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MEMPOOL_")) {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Standard error without the verdicts of pools that go on when they are exhausted.
fn without_verdicts(err: &str) -> String {
    let mut inside = false;
    let mut rest = String::new();
    for line in err.lines() {
        inside = line.starts_with("mempool: exhausted: ") || inside && line.starts_with("  ");
        if !inside {
            rest += line;
            rest.push('\n');
        }
    }
    rest
}

/// Runs a program that must succeed, silently but for verdicts; how many checks it made.
pub fn checks(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> usize {
    let output = start(program, arguments, variables);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let who = format!("{} {arguments:?}: {}\n{out}{err}", program.display(), output.status);
    assert!(output.status.success(), "{who}");
    assert_eq!(without_verdicts(&err), "", "{who}");
    let count = out.lines().last().and_then(|line| line.strip_suffix(" checks")).and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no count: {who}"))
}
