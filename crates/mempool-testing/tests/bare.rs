//! The library without a standard library: it builds, it refers to nobody's `malloc` or `mmap`, and a program on
//! a static buffer runs.

use std::path::{Path, PathBuf};
use std::process::Command;

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bare")
}

/// Runs a command to its end and gives what it said.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn build(target: &Path) -> PathBuf {
    // The versions of the workspace, so that nothing need be looked up.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    std::fs::copy(lock, here().join("Cargo.lock")).expect("the workspace's lock file");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run(Command::new(cargo)
        .args(["build", "--release", "--target-dir"])
        .arg(target)
        .current_dir(here())
        .env_remove("RUSTFLAGS"));
    target.join("release/libbare.a")
}

#[test]
fn a_program_on_nothing_but_a_buffer() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare");
    let archive = build(&target);
    let program = target.join("bare");
    run(Command::new("cc").arg(here().join("main.c")).arg(&archive).args(["-static", "-o"]).arg(&program));
    run(&mut Command::new(&program));

    // All that the archive wants from elsewhere.
    let names = run(Command::new("nm").args(["--undefined-only", "-A"]).arg(&archive));
    let ours: Vec<&str> = names.lines().filter(|line| line.contains("bare-") || line.contains("mempool")).collect();
    let of_pool = run(Command::new("nm").args(["--defined-only"]).arg(&archive));
    assert!(of_pool.contains("bare_run"), "the archive lacks the program: {of_pool}");
    assert!(!ours.is_empty(), "{names}");
    for line in ours {
        let name = line.rsplit(' ').next().unwrap_or("");
        let allowed = ["memcpy", "memmove", "memset", "memcmp", "bcmp", "_GLOBAL_OFFSET_TABLE_", "rust_eh_personality"];
        let core = name.starts_with("_ZN4core") || name.starts_with("_R") || name.starts_with("__rustc");
        assert!(allowed.contains(&name) || core, "{line}");
    }
}
