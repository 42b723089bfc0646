//! The header and this crate must say the same: signatures, constants, sizes, offsets, the set of functions.
//!
//! Every function stands in one list below with its type. Rust checks that the function has that type; a C file is
//! written from the list in which the C compiler checks the same of the header.

mod support;

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::{offset_of, size_of};
use std::process::Command;

use mempool_c::{CODES, MempoolConfig, MempoolStats, MpCache, Reclaim, private_offsets};

/// How a type is called in C.
trait InC {
    fn name() -> String;
}

macro_rules! in_c {
    ($($rust:ty => $c:literal,)*) => {
        $(impl InC for $rust {
            fn name() -> String {
                $c.to_owned()
            }
        })*
    };
}

in_c! {
    () => "void",
    usize => "size_t",
    bool => "bool",
    c_int => "int",
    c_uint => "unsigned",
    *mut c_void => "void *",
    *const c_void => "const void *",
    *mut c_char => "char *",
    *const c_char => "const char *",
    *mut usize => "size_t *",
    *mut c_uint => "unsigned *",
    *mut MpCache => "mp_cache_t *",
    *const MpCache => "const mp_cache_t *",
    *mut MempoolConfig => "mempool_config_t *",
    *const MempoolConfig => "const mempool_config_t *",
    Option<Reclaim> => "mempool_reclaim_fn",
}

macro_rules! functions {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// Each function with its result and arguments in C.
        fn functions() -> Vec<(&'static str, String, Vec<String>)> {
            $({
                // Fails to compile when the function has another type.
                let _: unsafe extern "C" fn($($argument),*) -> $result = mempool_c::$name;
            })*
            vec![$((stringify!($name), <$result>::name(), vec![$(<$argument>::name()),*])),*]
        }
    };
}

functions! {
    mempool_clear_error() -> ();
    mempool_config_check(*const MempoolConfig) -> c_int;
    mempool_config_defaults_impl(*mut MempoolConfig, usize) -> c_int;
    mempool_config_set(*mut MempoolConfig, *const c_char, *const c_char) -> c_int;
    mempool_contains(*const c_void) -> bool;
    mempool_fini() -> ();
    mempool_fini_quiet(*mut usize, *mut usize) -> c_int;
    mempool_init() -> c_int;
    mempool_init_config(*const MempoolConfig) -> c_int;
    mempool_is_ready() -> bool;
    mempool_last_error() -> *const c_char;
    mempool_on_low(usize, Option<Reclaim>, *mut c_void) -> c_int;
    mempool_on_reclaim(Option<Reclaim>, *mut c_void) -> c_int;
    mempool_shortfalls_print(c_int) -> c_int;
    mempool_stats_impl(*mut c_void, usize) -> c_int;
    mempool_strerror(c_int) -> *const c_char;
    mempool_trim() -> usize;
    mempool_verify() -> c_int;
    mempool_version() -> *const c_char;
    mp_aligned_alloc(usize, usize) -> *mut c_void;
    mp_budget_enter(c_uint, *mut c_uint) -> c_int;
    mp_budget_make(*mut c_uint, *const c_char, usize, usize) -> c_int;
    mp_budget_used(c_uint) -> usize;
    mp_cache_alloc(*mut MpCache) -> *mut c_void;
    mp_cache_alloc_array(*mut MpCache, c_uint) -> *mut c_void;
    mp_cache_destroy(*mut MpCache) -> ();
    mp_cache_free(*mut MpCache, *mut c_void) -> ();
    mp_cache_free_array(*mut MpCache, *mut c_void, c_uint) -> ();
    mp_cache_init_aligned(*mut MpCache, *const c_char, usize, usize) -> ();
    mp_cache_init_impl(*mut MpCache, *const c_char, usize) -> ();
    mp_cache_live(*const MpCache) -> usize;
    mp_cache_try_alloc(*mut MpCache) -> *mut c_void;
    mp_cache_try_alloc_array(*mut MpCache, c_uint) -> *mut c_void;
    mp_cache_try_init(*mut MpCache, *const c_char, usize, usize) -> c_int;
    mp_cache_try_init_in(c_uint, *mut MpCache, *const c_char, usize, usize) -> c_int;
    mp_calloc(usize, usize) -> *mut c_void;
    mp_critical_enter() -> ();
    mp_critical_leave() -> ();
    mp_free(*mut c_void) -> ();
    mp_malloc(usize) -> *mut c_void;
    mp_realloc(*mut c_void, usize) -> *mut c_void;
    mp_reallocarray(*mut c_void, usize, usize) -> *mut c_void;
    mp_stats_print(c_int) -> c_int;
    mp_strdup(*const c_char) -> *mut c_char;
    mp_strndup(*const c_char, usize) -> *mut c_char;
    mp_thread_idle() -> ();
    mp_try_aligned_alloc(usize, usize) -> *mut c_void;
    mp_try_calloc(usize, usize) -> *mut c_void;
    mp_try_malloc(usize) -> *mut c_void;
    mp_try_realloc(*mut c_void, usize) -> *mut c_void;
    mp_try_reallocarray(*mut c_void, usize, usize) -> *mut c_void;
    mp_usable_size(*const c_void) -> usize;
    mp_verdict_print(c_int, usize) -> c_int;
}

macro_rules! offsets {
    ($rust:ident, $c:literal: $($field:ident)*) => {
        vec![$(format!("offsetof({}, {}) == {}", $c, stringify!($field), offset_of!($rust, $field))),*]
    };
}

/// What must be true of the header's types and constants.
fn truths() -> Vec<String> {
    let mut all = offsets!(MpCache, "mp_cache_t": c_item_size c_items_per_page c_item_align c_name);
    all.extend(offsets!(MempoolConfig, "mempool_config_t":
        struct_size use_environment small exhausted commit lock huge_pages guard_pages dump stats max_retries max_threads
        max_caches segment max_segment reserve heap_max_alloc wait_time_ns heap_page_lifetime slot_shift reserved name
        huge_page_size numa_nodes numa process strict check_sizes
        wait_limit_ns verdict_interval_ns watermark watermark_signal watermark_fd critical fail_above fail_nth fail_every fail_seed fail_rate board survey));
    all.extend(offsets!(MempoolStats, "mempool_stats_t":
        segment metadata open free parked largest_free reserve reserve_free live_objects live_bytes threads exhausted refused threads_most));
    let [handle, mark] = private_offsets();
    all.push(format!("offsetof(mp_cache_t, c_private) == {handle}"));
    all.push(format!("offsetof(mp_cache_t, c_mark) == {mark}"));
    for (name, size) in [
        ("mp_cache_t", size_of::<MpCache>()),
        ("mempool_config_t", size_of::<MempoolConfig>()),
        ("mempool_stats_t", size_of::<MempoolStats>()),
        ("bool", size_of::<bool>()),
        ("((mp_cache_t *)0)->c_name", mempool_c::NAME),
        ("((mempool_config_t *)0)->name", mempool_c::POOL_NAME),
        ("((mempool_config_t *)0)->wait_time_ns", 8),
    ] {
        all.push(format!("sizeof({name}) == {size}"));
    }
    all.extend(CODES.iter().map(|(code, name, ..)| format!("{name} == {code}")));
    for (place, name) in [
        (0, "MEMPOOL_SMALL_SLAB"),
        (1, "MEMPOOL_SMALL_HEAP"),
        (2, "MEMPOOL_SMALL_SYSTEM"),
        (0, "MEMPOOL_EXHAUSTED_ABORT"),
        (1, "MEMPOOL_EXHAUSTED_NULL"),
        (2, "MEMPOOL_EXHAUSTED_GROW"),
        (3, "MEMPOOL_EXHAUSTED_WAIT"),
        (0, "MEMPOOL_COMMIT_EAGER"),
        (1, "MEMPOOL_COMMIT_LAZY"),
        (0, "MEMPOOL_NUMA_OFF"),
        (1, "MEMPOOL_NUMA_LOCAL"),
        (2, "MEMPOOL_NUMA_INTERLEAVE"),
        (3, "MEMPOOL_NUMA_BIND"),
        (0, "MEMPOOL_OFF"),
        (1, "MEMPOOL_TRY"),
        (2, "MEMPOOL_REQUIRED"),
    ] {
        all.push(format!("{name} == {place}"));
    }
    for (name, part) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        all.push(format!("MEMPOOL_VERSION_{name} == {part}"));
    }
    all
}

fn c_file() -> String {
    let mut text = String::from("#include <mempool.h>\n#define SAME(a, b) __builtin_types_compatible_p(a, b)\n");
    for (name, result, arguments) in functions() {
        let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
        text += &format!("_Static_assert(SAME(__typeof__(&{name}), {result} (*)({arguments})), \"{name}\");\n");
    }
    for truth in truths() {
        text += &format!("_Static_assert({truth}, \"{truth}\");\n");
    }
    text
}

/// Compiles `text`; what the compiler says if it refuses.
fn compiles(compiler: &str, standard: &str, name: &str, text: &str) -> Result<(), String> {
    let source = support::scratch().join(name);
    std::fs::write(&source, text).unwrap();
    let output = Command::new(compiler)
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I"])
        .arg(support::crate_dir().join("include"))
        .arg(&source)
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn header_and_library_agree() {
    let text = c_file();
    assert!(text.matches("_Static_assert").count() >= 120);
    compiles("cc", "gnu11", "agree.c", &text).unwrap();
}

/// The comparison itself notices a drift of each kind.
#[test]
fn a_drift_would_be_noticed() {
    let text = c_file();
    for (from, to) in [
        ("void * (*)(size_t)), \"mp_malloc\"", "void * (*)(int)), \"mp_malloc\""),
        ("mp_cache_t *, unsigned)), \"mp_cache_alloc_array\"", "mp_cache_t *, size_t)), \"mp_cache_alloc_array\""),
        ("sizeof(mp_cache_t) == ", "sizeof(mp_cache_t) == 1"),
        ("MEMPOOL_ERROR_BROKEN == 28,", "MEMPOOL_ERROR_BROKEN == 27,"),
        ("offsetof(mempool_config_t, name) == ", "offsetof(mempool_config_t, name) == 1"),
    ] {
        let drifted = text.replacen(from, to, 1);
        assert!(drifted != text, "{from} is not there");
        assert!(compiles("cc", "gnu11", "drifted.c", &drifted).is_err(), "{to}");
    }
}

#[test]
fn the_header_is_clean_in_every_standard() {
    let text = "#include <mempool.h>\n#include <mempool.h>\n\
        struct item { long a; }; mp_cache_t cache = MP_CACHE_INITIALIZER; void f(void);\n\
        void f(void) { mempool_config_t c; mempool_stats_t s; mp_cache_init(&cache, struct item);\n\
        (void)mempool_config_defaults(&c); (void)mempool_stats(&s); }\n";
    for standard in ["c99", "c11", "c17", "gnu99", "gnu17"] {
        compiles("cc", standard, &format!("clean-{standard}.c"), text).unwrap();
    }
    for standard in ["c++11", "c++14", "c++17", "c++20"] {
        compiles("c++", standard, &format!("clean-{standard}.cpp"), text).unwrap();
    }
}

/// The functions that the header declares, as `LIBEXPORT ... name(`.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(support::crate_dir().join("include/mempool.h")).unwrap();
    let declaration = |line: &str| {
        let name = line.strip_prefix("LIBEXPORT ")?.split('(').next()?;
        Some(name.rsplit([' ', '*']).next()?.to_owned())
    };
    header.lines().filter_map(declaration).collect()
}

#[test]
fn header_list_and_library_have_the_same_functions() {
    let listed: BTreeSet<String> = functions().into_iter().map(|(name, ..)| name.to_owned()).collect();
    assert_eq!(declared(), listed);
    let library = support::prefix().join("lib/libmempool.so");
    let output = Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library).output().unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<String> =
        symbols.lines().filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect();
    assert_eq!(exported, listed, "the shared library exports these and nothing else, least of all malloc");
}

#[test]
fn the_static_library_defines_no_malloc() {
    let library = support::prefix().join("lib/libmempool.a");
    // Not nm, which may hand objects to a compiler's plugin that is older than them.
    let output = Command::new("readelf").args(["-sW"]).arg(library).output().unwrap();
    let symbols = String::from_utf8(output.stdout).unwrap();
    let global = |line: &&str| line.contains(" GLOBAL ") && !line.contains(" UND ");
    let names = symbols.lines().filter(global).filter_map(|line| line.split_whitespace().last());
    let defined: BTreeSet<&str> = names.collect();
    assert!(functions().iter().all(|(name, ..)| defined.contains(name)));
    for foreign in ["malloc", "free", "calloc", "realloc", "memalign", "aligned_alloc", "posix_memalign"] {
        assert!(!defined.contains(foreign), "{foreign}");
    }
}

#[test]
fn installation_is_as_a_program_expects_it() {
    let prefix = support::prefix();
    for file in [
        "include/mempool.h",
        "lib/libmempool.so",
        "lib/libmempool.so.0",
        "lib/libmempool.a",
        "lib/pkgconfig/mempool.pc",
    ] {
        assert!(prefix.join(file).exists(), "{file}");
    }
    let version = support::pkg_config(&["--modversion"]);
    assert_eq!(version, [env!("CARGO_PKG_VERSION")]);
    assert_eq!(support::pkg_config(&["--variable=prefix"]), [prefix.to_str().unwrap()]);
    let soname = Command::new("readelf").arg("-d").arg(prefix.join("lib/libmempool.so")).output().unwrap();
    assert!(String::from_utf8(soname.stdout).unwrap().contains("[libmempool.so.0]"));
    let refused = Command::new(support::crate_dir().join("install.sh")).arg("relative").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let missing = Command::new(support::crate_dir().join("install.sh")).args(["/nowhere", "/"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("/libmempool_c.so is missing"));
}
