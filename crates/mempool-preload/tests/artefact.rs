//! The library as it is released: what it refers to, what it exports, and whom it does not touch.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{folder, plain, run};

/// Runs a tool; its standard output.
fn tool(command: &mut Command) -> String {
    let ran = run(command);
    assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.err);
    ran.out
}

/// Cargo, offline, in a target folder of its own.
fn cargo(arguments: &[&str], target: &Path) {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).args(["--offline", "--quiet", "--target-dir"]).arg(target);
    // What the outer Cargo says about itself must not reach the inner one.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CARGO_PKG")) {
        command.env_remove(name);
    }
    tool(command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").env_remove("LD_PRELOAD"));
}

/// The released library. Built by one test, of which both checks are part, since Cargo locks the folder anyway.
fn released() -> PathBuf {
    let target = folder().join("released");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    cargo(&["build", "--release", "--manifest-path", manifest], &target);
    target.join("release/libmempool_preload.so")
}

const EXPORTS: &[&str] = &[
    "_ZdaPvm",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvm",
    "_ZdlPvmSt11align_val_t",
    "aligned_alloc",
    "calloc",
    "cfree",
    "dlopen",
    "free",
    "free_aligned_sized",
    "free_sized",
    "mallinfo",
    "mallinfo2",
    "malloc",
    "malloc_info",
    "malloc_stats",
    "malloc_trim",
    "malloc_usable_size",
    "mallopt",
    "memalign",
    "mempool_preload_contains",
    "posix_memalign",
    "pvalloc",
    "realloc",
    "reallocarray",
    "valloc",
];

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "known to the library on x86-64 alone")]
fn the_released_library_panics_nowhere_and_needs_no_malloc() {
    let library = released();
    let symbols = tool(Command::new("nm").arg("--demangle").arg(&library));
    assert!(symbols.contains(" T malloc\n"), "{symbols}");
    for line in symbols.lines() {
        assert!(!line.contains("panicking"), "something can panic: {line}");
        assert!(!line.contains("std::sys"), "the standard library is in: {line}");
    }
    let undefined = tool(Command::new("nm").args(["-D", "--undefined-only"]).arg(&library));
    for line in undefined.lines() {
        let name = line.split_whitespace().last().unwrap_or("").split('@').next().unwrap_or("");
        let forbidden = ["malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc", "__tls_get_addr"];
        assert!(!forbidden.contains(&name) && !name.starts_with("_Unwind"), "{line}");
    }
    let mut exports: Vec<String> = tool(Command::new("nm").args(["-D", "--defined-only"]).arg(&library))
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    exports.sort();
    assert_eq!(exports, EXPORTS);
    let dynamic = tool(Command::new("readelf").args(["-dW"]).arg(&library));
    for word in ["STATIC_TLS", "NODELETE", "BIND_NOW", "libmempool_preload.so"] {
        assert!(dynamic.contains(word), "{word}: {dynamic}");
    }
    assert_eq!(dynamic.matches("(NEEDED)").count(), 1, "the C library alone: {dynamic}");
    let segments = tool(Command::new("readelf").args(["-lW"]).arg(&library));
    let tls = segments.lines().find(|line| line.trim_start().starts_with("TLS")).expect("a TLS segment");
    assert_eq!(tls.split_whitespace().nth(5), Some("0x000040"), "64 bytes of static TLS: {tls}");
    hot_paths_are_short(&library);
    no_refusal_leads_back_to_itself(&library);
}

/// Instructions from the entry to the first return, which is where the hot paths end.
fn instructions(listing: &str, function: &str) -> usize {
    let from = listing.split_once(&format!("<{function}>:\n")).expect("the function is there").1;
    let body = from.split_once("\n\n").map_or(from, |(body, _)| body);
    body.lines().position(|line| line.split_whitespace().any(|word| word == "ret")).expect("it returns") + 1
}

fn hot_paths_are_short(library: &Path) {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let listing = tool(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(library));
    let (malloc, free) = (instructions(&listing, "malloc"), instructions(&listing, "free"));
    assert!(malloc <= 21 && free <= 35, "malloc {malloc}, free {free}");
}

/// A watched program whose first requests are refused one by one, those among them that load what finds return addresses. A debug build has that
/// loaded from the start.
fn no_refusal_leads_back_to_itself(library: &Path) {
    let board = folder().join(format!("board-{}", std::process::id()));
    let words = mempool::process::board::WORDS as u64;
    std::fs::File::create(&board).and_then(|file| file.set_len(8 * words)).expect("the folder is writable");
    for request in 1..20 {
        let mut program = plain("sh");
        program.args(["-c", "exec 9<>$BOARD; MEMPOOL_BOARD=9 LD_PRELOAD=$LIBRARY exec ls -d /"]);
        program.env("BOARD", &board).env("LIBRARY", library);
        program.env("MEMPOOL_FAIL_NTH", request.to_string());
        let settings = [("SURVEY", "on"), ("EXHAUSTED", "null"), ("COMMIT", "lazy"), ("LOCK", "off")];
        program.envs(settings.map(|(name, value)| (format!("MEMPOOL_{name}"), value)));
        let ran = run(&mut program);
        assert_eq!(ran.signal, None, "request {request}: {}", ran.err);
    }
    std::fs::remove_file(board).expect("it is there");
}

#[test]
fn a_program_that_merely_depends_on_the_crate_keeps_its_malloc() {
    let place = folder().join("bystander");
    std::fs::create_dir_all(place.join("src")).expect("the folder is writable");
    let manifest = format!(
        "[package]\nname = \"bystander\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\nmempool-preload = {{ path = {:?} }}\n[workspace]\n[profile.release]\npanic = \"abort\"\nlto = \"fat\"\n",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::write(place.join("Cargo.toml"), manifest).expect("the folder is writable");
    std::fs::write(place.join("src/main.rs"), "fn main() { println!(\"{:?}\", vec![1; 3]); }\n").expect("as above");
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    std::fs::copy(lock, place.join("Cargo.lock")).expect("the workspace has a lock file");
    let manifest = place.join("Cargo.toml");
    let manifest = manifest.to_str().expect("a path in UTF-8");
    for (profile, arguments) in [
        ("debug", &["build", "--manifest-path", manifest][..]),
        ("release", &["build", "--release", "--manifest-path", manifest]),
    ] {
        let target = folder().join("bystander-target");
        cargo(arguments, &target);
        let program = target.join(profile).join("bystander");
        let symbols = tool(Command::new("nm").arg(&program));
        assert!(symbols.lines().any(|line| line.contains("U malloc")), "its malloc is the C library's: {symbols}");
        assert!(!symbols.contains("mempool"), "nothing of ours is in it: {symbols}");
        // The promise that makes a dependency worth it: the library lies beside the program.
        assert!(target.join(profile).join("deps/libmempool_preload.so").exists());
        assert_eq!(tool(&mut Command::new(program)), "[1, 1, 1]\n");
    }
}
