//! Every function of the library as a C program sees it, with each small tier.

mod common;

use common::{compile, on_pool, run, succeed};

/// The figures of "N checks, M failures".
fn checks(out: &str) -> usize {
    let words: Vec<&str> = out.lines().last().expect("a last line").split(' ').collect();
    assert_eq!(words[1..], ["checks,", "0", "failures"], "{out}");
    words[0].parse().expect("a number")
}

fn abi(small: &str, who: &str, least: usize) {
    let program = compile("abi.c", &format!("abi-{small}"), &[]);
    let ran = run(on_pool(program).arg(who).env("MEMPOOL_SMALL", small).env("MEMPOOL_SEGMENT", "4G"));
    assert_eq!((ran.code, ran.signal), (Some(0), None), "{}\n{}", ran.out, ran.err);
    assert!(checks(&ran.out) >= least, "{}", ran.out);
}

#[test]
fn every_function_keeps_its_promises_with_slabs() {
    abi("slab", "pool", 500);
}

#[test]
fn every_function_keeps_its_promises_with_the_heap() {
    abi("heap", "pool", 500);
}

#[test]
fn every_function_keeps_its_promises_with_the_c_library() {
    abi("system", "system", 450);
}

#[test]
fn an_exhausted_pool_refuses_with_enomem_and_goes_on() {
    for policy in ["null", "grow"] {
        let program = compile("exhausted.c", &format!("exhausted-{policy}"), &[]);
        let ran = succeed(
            on_pool(program)
                .env("MEMPOOL_SEGMENT", "8M")
                .env("MEMPOOL_EXHAUSTED", policy)
                .env("MEMPOOL_WAIT_TIME", "0"),
        );
        assert!(checks(&ran.out) >= 25, "{}", ran.out);
    }
}

#[test]
fn an_exhausted_pool_ends_the_program_by_default() {
    let program = compile("exhausted.c", "exhausted-abort", &[]);
    let ran = run(on_pool(program).env("MEMPOOL_SEGMENT", "8M").env("MEMPOOL_WAIT_TIME", "0"));
    assert_eq!(ran.signal, Some(6), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("mempool: exhausted: 1 MiB asked") && ran.err.contains("MEMPOOL_SEGMENT="), "{}", ran.err);
}

/// The smallest threads have 16 KiB of stack, of which their variables take a part.
#[test]
fn a_refusal_with_its_verdict_needs_little_stack() {
    let program = compile("stack.c", "stack", &[]);
    let ran = succeed(on_pool(program).env("MEMPOOL_SEGMENT", "8M").env("MEMPOOL_EXHAUSTED", "null"));
    assert!(ran.err.contains("mempool: exhausted: 3000 bytes asked"), "{}", ran.err);
    let bytes: usize = ran.out.trim().parse().expect("a number");
    assert!(bytes < 8 << 10, "{bytes}");
}

#[test]
fn cxx_operators_are_served_checked_and_replaceable() {
    for standard in ["-std=c++11", "-std=c++17", "-std=c++20"] {
        let program = compile("operators.cpp", &format!("operators{standard}"), &[standard]);
        let ran = succeed(on_pool(program).env("MEMPOOL_SEGMENT", "64M").env("MEMPOOL_EXHAUSTED", "null"));
        let least = if standard == "-std=c++11" { 15 } else { 30 };
        assert!(checks(&ran.out) >= least, "{}", ran.out);
    }
    for form in ["PLAIN", "ARRAY", "ALIGNED"] {
        let define = format!("-D{form}");
        let program = compile("replaced.cpp", &format!("replaced-{form}"), &["-std=c++17", &define]);
        let ran = succeed(&mut on_pool(program));
        assert!(checks(&ran.out) >= 3, "{form}: {}", ran.out);
    }
}

#[test]
fn a_program_with_a_malloc_of_its_own_gets_back_what_it_deletes() {
    for flags in [&["-std=c++17"][..], &["-std=c++17", "-no-pie"]] {
        let program = compile("own_malloc.cpp", &format!("own-malloc{}", flags.len()), flags);
        assert_eq!(succeed(&mut on_pool(program)).out, "own 1 frees 12\n");
    }
}

#[test]
fn a_library_whose_new_is_not_our_malloc_gets_back_what_it_made() {
    let library = compile("beside.cpp", "libbeside.so", &["-std=c++17", "-shared", "-fPIC", "-DLIBRARY", "-O0"]);
    let folder = common::folder();
    let flags = ["-std=c++17", library.to_str().expect("a text"), &format!("-Wl,-rpath,{}", folder.display())];
    let program = compile("beside.cpp", "beside", &flags);
    assert_eq!(succeed(&mut on_pool(program)).out, "was 7 freed 2\n");
}

#[test]
fn objects_of_the_c_library_go_back_to_it() {
    let program = compile("foreign.c", "foreign", &[]);
    for small in ["slab", "heap", "system"] {
        let ran = succeed(on_pool(&program).arg(small).env("MEMPOOL_SMALL", small));
        assert!(checks(&ran.out) >= 10, "{}", ran.out);
    }
}

#[test]
fn first_calls_before_constructors_and_last_ones_after_destructors_work() {
    let program = compile("moments.c", "moments", &[]);
    let ran = succeed(on_pool(program).env("MEMPOOL_SEGMENT", "32M").env("MEMPOOL_STATS", "1"));
    for moment in ["early constructor", "constructor", "main", "atexit", "destructor", "late destructor"] {
        assert!(ran.out.contains(&format!("{moment} served\n")), "{moment}: {}", ran.out);
    }
    // What was configured counts from the very first call on.
    assert!(ran.err.contains(" 33554432 bytes"), "{}", ran.err);
}

/// As under libfaketime, whose functions look for others that are not there: the loader makes a message of that.
#[test]
fn who_allocates_while_the_pool_is_made_is_served_by_the_c_library() {
    let program = compile("early.c", "early", &["-rdynamic"]);
    for small in ["slab", "heap"] {
        let ran = succeed(on_pool("/usr/bin/timeout").arg("60").arg(&program).env("MEMPOOL_SMALL", small));
        assert_eq!((&*ran.out, &*ran.err), ("ok\n", ""), "{small}");
    }
}

/// As PHP loads its extensions.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "known to the library on x86-64 alone")]
fn a_library_that_looks_in_itself_first_finds_the_same_malloc() {
    let library = compile("deep.c", "deep-library", &["-shared", "-fPIC", "-DLIBRARY"]);
    let program = compile("deep.c", "deep", &["-Wl,-rpath,$ORIGIN"]);
    let ran = succeed(on_pool(program).arg(library.file_name().expect("a name")).current_dir("/"));
    assert_eq!((&*ran.out, &*ran.err), ("ok\n", ""));
}

#[test]
fn a_program_with_one_thread_does_not_wait_for_others() {
    let mut command = on_pool(compile("alone.c", "alone", &[]));
    command.envs([("MEMPOOL_SEGMENT", "64M"), ("MEMPOOL_EXHAUSTED", "null"), ("MEMPOOL_VERDICT_INTERVAL", "0")]);
    let ran = succeed(command.envs([("MEMPOOL_MAX_RETRIES", "20"), ("MEMPOOL_WAIT_TIME", "100ms")]));
    let waited: Vec<u64> = ran.out.split_whitespace().map(|ms| ms.parse().expect("refused")).collect();
    assert!(waited[0] < 1000 && waited[1] >= 2000, "{waited:?}");
}

/// Whatever a pool may grow to, a child looks at the metadata of what was used.
#[test]
fn a_child_of_a_fork_touches_little() {
    let program = compile("child.c", "child", &[]);
    for small in ["slab", "heap"] {
        let ran = succeed(on_pool(&program).env("MEMPOOL_SMALL", small).env("MEMPOOL_SEGMENT", "16G"));
        let faults: u32 = ran.out.trim().parse().expect("a number");
        assert!(faults < 1000, "{small}: {faults}");
    }
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "known to the library on x86-64 alone")]
fn threads_libraries_and_exceptions_have_the_reserve_when_all_else_is_used() {
    let program = compile("error_path.cpp", "error-path", &["-std=c++17"]);
    let late = compile("late.c", "late-for-error-path", &["-shared", "-fPIC"]);
    let on = |reserve: &str| {
        let mut command = on_pool(&program);
        command.arg(&late).envs([("MEMPOOL_SEGMENT", "8M"), ("MEMPOOL_EXHAUSTED", "null"), ("MEMPOOL_WAIT_TIME", "0")]);
        run(command.env("MEMPOOL_RESERVE", reserve))
    };
    let with = on("1M");
    assert_eq!(
        with.out, "threads 8 libraries 1 exceptions 2 refused 3\n",
        "{:?} {:?} {}",
        with.code, with.signal, with.err
    );
    // Without one it is the same program that fails.
    let without = on("0");
    assert_ne!(without.out, with.out, "{}", without.err);
}

/// As Python's extensions are: a C program loads a library that is written in C++.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "known to the library on x86-64 alone")]
fn libraries_that_are_loaded_late_throw_and_have_the_reserve() {
    let program = compile("thrown.c", "thrown", &[]);
    for (name, flags) in
        [("thrower", &["-shared", "-fPIC"][..]), ("thrower-static", &["-shared", "-fPIC", "-static-libstdc++"])]
    {
        let library = compile("thrower.cpp", name, flags);
        for scope in ["0", "1"] {
            let ran = run(on_pool(&program).arg(&library).arg(scope));
            assert_eq!((ran.out.as_str(), ran.code), ("thrown 1\n", Some(0)), "{name} {scope}: {}", ran.err);
        }
        let on = |reserve: &str| {
            let mut command = on_pool(&program);
            command.arg(&library).args(["0", "full"]).env("MEMPOOL_RESERVE", reserve);
            command.envs([("MEMPOOL_SEGMENT", "8M"), ("MEMPOOL_EXHAUSTED", "null"), ("MEMPOOL_WAIT_TIME", "0")]);
            run(&mut command)
        };
        assert_eq!(on("1M").out, "thrown 1\nrefused 1, thrown 2\n", "{name}");
        assert_eq!((on("0").out.as_str(), on("0").signal), ("thrown 1\n", Some(6)), "{name}");
    }
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "known to the library on x86-64 alone")]
fn the_panic_of_a_rust_program_draws_on_the_reserve() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rust/panics.rs");
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // The last three have no symbol table.
    for (name, flags) in [
        ("panics", &["-Cdebuginfo=0"][..]),
        ("panics-fast", &["-O", "-Clto=fat"]),
        ("panics-stripped", &["-Cstrip=symbols"]),
        ("panics-stripped-fast", &["-O", "-Clto=fat", "-Ccodegen-units=1", "-Cstrip=symbols"]),
        ("panics-stripped-small", &["-Copt-level=z", "-Clto=fat", "-Cstrip=symbols", "-Crelocation-model=static"]),
    ] {
        let program = common::folder().join(name);
        let mut command = std::process::Command::new(&compiler);
        common::succeed(command.arg("--edition=2024").args(flags).arg("-o").arg(&program).arg(&source));
        let on = |reserve: &str| {
            let mut command = on_pool(&program);
            command.envs([("MEMPOOL_SEGMENT", "8M"), ("MEMPOOL_EXHAUSTED", "null"), ("MEMPOOL_WAIT_TIME", "0")]);
            // A trace of the stack reads debug information, which takes more than the reserve has.
            run(command.env("MEMPOOL_RESERVE", reserve).env("RUST_BACKTRACE", "0"))
        };
        let with = on("1M");
        assert_eq!(with.out, "plain true any true formatted true refused true\n", "{:?} {}", with.signal, with.err);
        assert!(with.err.contains("panicked at"), "{}", with.err);
        // Without one it is the end of the program.
        let without = on("0");
        assert_eq!((without.signal, without.out.as_str()), (Some(6), ""), "{}", without.err);
    }
}

/// The kernel does not look at section headers, so what they say need not be true.
#[test]
fn a_program_with_a_wrong_section_table_runs_with_a_reserve() {
    let mut bytes = std::fs::read(compile("early.c", "odd", &[])).expect("just compiled");
    let table = u64::from_le_bytes(bytes[0x28..0x30].try_into().expect("eight bytes")) as usize;
    // Of the first real section: a symbol table, without end.
    let section = table + 64;
    bytes[section + 4..section + 8].copy_from_slice(&2_u32.to_le_bytes());
    bytes[section + 0x20..section + 0x28].copy_from_slice(&(1_u64 << 62).to_le_bytes());
    let (image, program) = (common::folder().join("odd-image"), common::folder().join("odd-program"));
    std::fs::write(&image, bytes).expect("its place is ours");
    // By a process of its own: what is open for writing here is so in whatever other tests start meanwhile, and is executed by nobody.
    succeed(common::plain("install").args(["-m", "755", "-T"]).arg(&image).arg(&program));
    let whole = succeed(&mut on_pool(compile("early.c", "even", &[])));
    assert_eq!(succeed(on_pool(&program).env("MEMPOOL_RESERVE", "1M")).out, whole.out);
}
