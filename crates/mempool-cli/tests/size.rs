//! `mempool size`: what it counts is exact, what it finds works, and what it calls certain is.
#![allow(missing_docs)]

mod common;

use common::{Folder, assert_has, clean, fails, mempool, run, stderr, stdout, succeeds};
use serde_json::Value;

fn size(flags: &[&str], program: &[&str]) -> Value {
    let output = run(mempool(["size", "--json"].iter().chain(flags)).arg("--").args(program));
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Most objects and bytes of a holder in the program's own process.
fn peak(found: &Value, holder: &str) -> (u64, u64) {
    let holders = found["processes"][0]["holders"].as_array().expect("holders");
    let row = holders.iter().find(|row| row["holder"] == holder).unwrap_or_else(|| panic!("no {holder} in {found:#}"));
    (number(&row["peak_objects"]), number(&row["peak_bytes"]))
}

/// 10,000 objects of 100 bytes at once, twice; after the first half a block of 5,000,000 bytes, alone.
const PEAKS: &str = r#"
#include <stdlib.h>
#include <string.h>
static void *objects[10000];
int main(void) {
    for (int round = 0; round < 2; round++) {
        for (int k = 0; k < 10000; k++) if (!(objects[k] = malloc(100))) return 1;
        for (int k = 0; k < 10000; k++) free(objects[k]);
        void *volatile block = malloc(5000000);
        if (!block) return 2;
        memset(block, 1, 5000000);
        free(block);
    }
    return 0;
}
"#;

#[test]
fn peaks_are_exact_and_the_smallest_segment_works() {
    let folder = Folder::new("size");
    let program = folder.compile("peaks", PEAKS, &["-O0"]);
    let found = size(&[], &[&program]);
    let process = &found["processes"][0];
    assert_eq!(process["name"], "peaks");
    assert_eq!(number(&process["largest_request"]), 5_000_000);
    // 100 bytes are items of 112; the C library may have some of its own of that size.
    let (objects, bytes) = peak(&found, "size class 112");
    assert!((10_000..10_020).contains(&objects) && bytes == objects * 112, "{objects} objects, {bytes} bytes");
    let (runs, bytes) = peak(&found, "runs");
    assert!(runs == 1 && bytes == 5_000_192, "{runs} runs, {bytes} bytes");
    // Never both at once: the peak of all is less than the sum of the peaks.
    let live = number(&process["peak_bytes"]);
    assert!((5_000_192..5_600_000).contains(&live), "{live}");
    assert!(number(&process["requests"]) >= 20_002);
    let [smallest, too_small, recommended] = ["smallest", "too_small", "recommended"].map(|name| number(&found[name]));
    assert!(smallest > live && smallest < 8_000_000, "{smallest}");
    assert!(too_small < smallest && recommended >= smallest + smallest / 4);
    let on = |segment: u64| {
        let flags = ["run", "--commit=lazy", "--lock=off", "--segment", &segment.to_string(), "--", &program];
        run(&mut mempool(flags)).status.code()
    };
    assert_eq!((on(smallest), on(recommended)), (Some(0), Some(0)));
    assert!(too_small == 0 || on(too_small) != Some(0));
    let bound = &process["bound"];
    let certain = number(&bound["segment"]);
    assert!(certain >= smallest && on(certain) == Some(0), "{bound:#}");
    assert!(number(&bound["robson_lower"]) > live && number(&bound["slabs"]) >= 10_000);
}

/// Frees all but one object of each slab of one size after the other: the worst for slabs. The argument says how
/// many objects there are of each size.
const PINS: &str = r#"
#include <stdlib.h>
int main(int n, char **words) {
    int count = atoi(words[n - 1]);
    void **objects = malloc(count * sizeof *objects);
    if (!objects) return 1;
    for (int size = 16; size <= 1024; size += 16) {
        for (int k = 0; k < count; k++) if (!(objects[k] = malloc(size))) return 2;
        for (int k = 0; k < count; k++) if (k % 32) free(objects[k]);
    }
    return 0;
}
"#;

#[test]
fn the_bound_holds_against_a_program_that_pins_slabs() {
    let folder = Folder::new("size-bound");
    let program = folder.compile("pins", PINS, &["-O0"]);
    let found = size(&["--percent", "10"], &[&program, "2000"]);
    let certain = number(&found["processes"][0]["bound"]["segment"]);
    let smallest = number(&found["smallest"]);
    assert!(smallest <= certain, "{smallest} needed, {certain} promised");
    assert!(number(&found["processes"][0]["peak_bytes"]) < smallest);
}

/// By the argument: 40 threads one after another; 40 at once for 100 us; a child that has 8 at once while its parent waits, which then has 3;
/// 5 at once with 200 objects each.
const THREADS: &str = r#"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static pthread_barrier_t all;
static int objects;
static void *work(void *waits) {
    void *kept[200];
    for (int k = 0; k < objects; k++) if (!(kept[k] = malloc(k * 40))) _exit(1);
    if (waits) {
        pthread_barrier_wait(&all);
        usleep(100);
    }
    for (int k = 0; k < objects; k++) free(kept[k]);
    return 0;
}
static void at_once(int count) {
    pthread_t threads[40];
    pthread_barrier_init(&all, 0, count);
    for (int k = 0; k < count; k++) if (pthread_create(&threads[k], 0, work, &all)) _exit(2);
    for (int k = 0; k < count; k++) pthread_join(threads[k], 0);
}
int main(int n, char **words) {
    objects = 1;
    if (!strcmp(words[1], "serial")) {
        pthread_t thread;
        for (int k = 0; k < 40; k++) if (pthread_create(&thread, 0, work, 0) || pthread_join(thread, 0)) return 3;
    } else if (!strcmp(words[1], "barrier")) {
        at_once(40);
    } else if (!strcmp(words[1], "fork")) {
        int status, child = fork();
        if (child == 0) {
            at_once(8);
            _exit(0);
        }
        if (waitpid(child, &status, 0) != child || status) return 4;
        at_once(3);
    } else {
        objects = 200;
        at_once(5);
    }
    return 0;
}
"#;

/// Most threads at once of each process.
fn threads(found: &Value) -> Vec<u64> {
    found["processes"].as_array().expect("processes").iter().map(|process| number(&process["threads"])).collect()
}

#[test]
fn threads_at_once_are_counted_exactly_however_shortly_they_live() {
    let folder = Folder::new("size-threads");
    let program = folder.compile("threads", THREADS, &["-O0", "-pthread"]);
    let of = |how: &str| size(&["--percent", "20"], &[&program, how]);
    let (serial, barrier, fork) = (of("serial"), of("barrier"), of("fork"));
    // The first thread is one of them. A child's count for themselves.
    assert_eq!([threads(&serial), threads(&barrier), threads(&fork)], [[2], [41], [4]]);
    // A program that another one starts.
    let shell = size(&["--percent", "20"], &["sh", "-c", &format!("{program} barrier; true")]);
    assert_eq!(threads(&shell), [1, 41]);
    for (found, process, threads) in [(&serial, 0, 2), (&barrier, 0, 41), (&shell, 1, 41)] {
        let bound = &found["processes"][process]["bound"];
        assert_eq!(number(&bound["threads"]), threads);
        assert!(number(&bound["segment"]) >= number(&found["smallest"]));
    }
    let table = succeeds(&mut mempool(["size", "--percent", "20", "--", &program, "barrier"]));
    assert_has(line(&table, "threads"), &[" 41  at most at once, of those that asked for memory"]);
    // What a child asks for before it starts a program is nowhere, and that is said.
    assert_eq!([&serial, &fork].map(|found| number(&found["processes"][0]["forked"])), [0, 1]);
    let table = succeeds(&mut mempool(["size", "--percent", "20", "--", &program, "fork"]));
    assert_has(line(&table, "not counted"), &["what forked children (1) asked for", "\"certain\" leaves it out"]);
    // Few entries are no more local heaps: the others share one.
    let few = size(&["--percent", "20", "--max-threads", "4"], &[&program, "barrier"]);
    assert_eq!(threads(&few), [4]);
}

#[test]
fn the_segment_serves_all_threads() {
    let folder = Folder::new("size-served");
    let program = folder.compile("threads", THREADS, &["-O0", "-pthread"]);
    let found = size(&["--percent", "10"], &[&program, "objects"]);
    assert_eq!(threads(&found), [6]);
    let live = number(&found["processes"][0]["peak_bytes"]);
    // 5 threads with 200 objects of 0 to 7,960 bytes.
    assert!((3_900_000..4_800_000).contains(&live), "{live}");
    assert!(number(&found["smallest"]) > live);
}

/// What the bound's formula comes to.
fn formula(bound: &Value) -> u64 {
    let [s, slabs, t, h, r, l, g] =
        ["slot", "slabs", "threads", "local_heap", "runs", "run_bytes", "gap"].map(|name| number(&bound[name]));
    (s * (slabs + 2 * r + 2 * t) + l + t * h).max(s * slabs + l + t * h + (slabs + r + t + 1) * g) + s
}

#[test]
fn the_bound_is_what_its_formula_says_on_a_pool_of_these_settings() {
    let bound = |flags: &[&str]| {
        let found = size(&[&["--percent", "20"], flags].concat(), &["ls", "/"]);
        let bound = found["processes"][0]["bound"].clone();
        let certain = number(&bound["segment"]);
        assert!(certain > formula(&bound) && certain >= number(&found["smallest"]), "{bound:#}");
        (certain, bound)
    };
    let (plain, with) = bound(&[]);
    // What most requests may not have comes on top, and so do the bins of more caches.
    let (reserved, _) = bound(&["--reserve", "16M"]);
    assert!(reserved >= plain + (16 << 20), "{plain} {reserved}");
    let (_, wide) = bound(&["--max-caches", "2000"]);
    assert!(number(&wide["local_heap"]) >= number(&with["local_heap"]) + 32_000, "{with:#} {wide:#}");
    assert_eq!(with["formula"], "max(s (S + 2 R + 2 T) + L + T h, s S + L + T h + (S + R + T + 1) g) + s");
    let table = succeeds(&mut mempool(["size", "--percent", "20", "--", "ls", "/"]));
    let letters = ["s = 4 KiB (a slot", "S = ", " (slabs, ", "T = 1 (threads)", " h = ", " R = ", " L = ", " g = "];
    assert_has(&table, &letters);
}

/// Two caches of its own beside what it has of malloc: 3,000 items at most of one, then, with 1,000 of these, 20 arrays of 50 of the
/// other, which has an item of 40,000 bytes, too. A third lives before them, under a name that comes twice.
const CACHES: &str = r#"
#include <mempool.h>
#include <stdlib.h>
static void *items[3000], *arrays[20];
int main(void) {
    if (mempool_init()) return 1;
    mp_cache_t nodes, pages, large;
    for (int round = 0; round < 2; round++) {
        mp_cache_init_impl(&large, "large", 40000);
        void *one = mp_cache_alloc(&large), *two = mp_cache_alloc(&large);
        if (!one || !two) return 3;
        mp_cache_free(&large, one);
        mp_cache_destroy(&large);
    }
    mp_cache_init_aligned(&nodes, "nodes", 48, 16);
    mp_cache_init_aligned(&pages, "pages", 100, 4);
    for (int k = 0; k < 3000; k++) if (!(items[k] = mp_cache_alloc(&nodes))) return 5;
    for (int k = 1000; k < 3000; k++) mp_cache_free(&nodes, items[k]);
    for (int k = 0; k < 20; k++) if (!(arrays[k] = mp_cache_alloc_array(&pages, 50))) return 6;
    for (int k = 0; k < 20; k++) mp_cache_free_array(&pages, arrays[k], 50);
    for (int k = 0; k < 1000; k++) mp_cache_free(&nodes, items[k]);
    void *volatile object = malloc(5000);
    free(object);
    mp_cache_destroy(&nodes);
    mp_cache_destroy(&pages);
    mempool_fini();
    return 0;
}
"#;

#[test]
fn a_program_with_caches_of_its_own_has_them_counted() {
    let folder = Folder::new("size-caches");
    let deps = std::env::current_exe().expect("a path").parent().expect("a folder").display().to_string();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../mempool-c/include");
    // By the name that installed programs look for.
    let library = folder.path("libmempool.so.0");
    std::os::unix::fs::symlink(format!("{deps}/libmempool_c.so"), &library).expect("a link");
    let (source, program) = (folder.write("caches.c", CACHES), folder.path("caches"));
    let (headers, rpath) = (format!("-I{include}"), "-Wl,-rpath,$ORIGIN");
    let link = ["-O0", &headers, "-o", &program, &source, &library, rpath];
    succeeds(clean("cc").args(link));
    let found = size(&["--percent", "10"], &[&program]);
    let pools = found["processes"].as_array().expect("processes");
    let about: Vec<_> = pools.iter().map(|pool| (pool["name"].as_str(), number(&pool["pool"]))).collect();
    assert_eq!(about, [(Some("caches"), 0), (Some("caches"), 1)]);
    let holders: Vec<_> = pools[1]["holders"]
        .as_array()
        .expect("holders")
        .iter()
        .map(|row| (row["holder"].as_str().expect("a name"), number(&row["peak_objects"]), number(&row["peak_bytes"])))
        .collect();
    let caches = [("cache \"large\"", 2, 80_000), ("cache \"nodes\"", 3000, 144_000), ("cache \"pages\"", 20, 100_000)];
    assert_eq!(holders, caches);
    // 1,000 nodes and all arrays together are more than 3,000 nodes.
    assert_eq!((number(&pools[1]["peak_objects"]), number(&pools[1]["peak_bytes"])), (3000, 148_000));
    let (smallest, certain) = (number(&found["smallest"]), number(&pools[1]["bound"]["segment"]));
    assert!(smallest > 148_000 && certain >= smallest, "{smallest} needed, {certain} promised");
    let said = succeeds(&mut mempool(["size", "--percent", "20", "--", &program]));
    assert_has(&said, &["(caches): ", "(caches), its own pool: ", "cache \"nodes\"", "largest "]);
}

#[test]
fn programs_that_others_start_are_listed_and_end_without_destructors() {
    let found = size(&["--percent", "20"], &["sh", "-c", "ls / >/dev/null; exit 3"]);
    assert_eq!(found["end"], "exit code 3");
    let names: Vec<&str> =
        found["processes"].as_array().expect("processes").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["sh", "ls"]);
}

#[test]
fn a_process_that_runs_one_program_after_the_other_has_no_pools_of_its_own() {
    let found = size(&["--percent", "20"], &["sh", "-c", "exec env true"]);
    let about: Vec<_> = found["processes"].as_array().expect("processes").iter().collect();
    assert!(about.iter().all(|process| process["process"] == about[0]["process"] && number(&process["pool"]) == 0));
    assert!(about.len() > 1, "{found:#}");
    let said = succeeds(&mut mempool(["size", "--percent", "20", "--", "sh", "-c", "exec env true"]));
    assert!(!said.contains("its own pool") && said.matches("peak live").count() == 1, "{said}");
    assert_has(&said, &[" programs that ran; --json has them all"]);
}

#[test]
fn input_is_the_same_in_each_run_and_the_table_says_what_to_do() {
    let folder = Folder::new("size-input");
    let input = folder.write("input", &"line\n".repeat(50_000));
    let said = succeeds(&mut mempool(["size", "--input", &input, "--", "sort"]));
    assert_has(&said, &["(sort): ", "peak live", "peak segment", "threads", "size class", "smallest", "recommended"]);
    assert_has(&said, &["certain", "Robson 1974", "worked 3 times", "mempool run --segment ", " -- sort"]);
    let runs = said.lines().find(|line| line.contains(" runs in ")).expect("a line");
    assert_has(runs, &["exit code 0"]);
}

#[test]
fn the_best_fit_heap_has_a_size_too() {
    let folder = Folder::new("size-heap");
    let program = folder.compile("peaks", PEAKS, &["-O0"]);
    let found = size(&["--percent", "10", "--small", "heap"], &[&program]);
    let (objects, bytes) = peak(&found, "best-fit heap");
    assert!(objects >= 10_000 && bytes >= 1_000_000, "{objects} objects, {bytes} bytes");
    assert!(number(&found["processes"][0]["bound"]["segment"]) >= number(&found["smallest"]));
}

#[test]
fn what_cannot_be_sized_is_refused() {
    let folder = Folder::new("size-refused");
    assert_has(&fails(&mut mempool(["size", "--", "no-such-program"]), 127), &["no such program"]);
    let endless = folder.compile("endless", "#include <unistd.h>\nint main(void) { for (;;) pause(); }", &[]);
    let said = fails(&mut mempool(["size", "--timeout", "1", "--", &endless]), 125);
    assert_has(&said, &["did not end within 1 s", "fix: raise --timeout"]);
    let huge =
        folder.compile("huge", "#include <stdlib.h>\nint main(void) { return malloc(1 << 28) ? 0 : 9; }", &["-O0"]);
    // With growth it is refused, ends with 9, and aborts on each fixed segment.
    let said = fails(&mut mempool(["size", "--most", "64M", "--", &huge]), 125);
    assert_has(&said, &["no segment up to 64 MiB serves the program", "fix: raise --most"]);
    // What dies of its own fault dies the same way on every segment.
    let source = "#include <stdlib.h>\nint main(void) { free(malloc(100)); return *(volatile int *)0; }";
    let broken = folder.compile("broken", source, &["-O0"]);
    for json in [&["size", "--"][..], &["size", "--json", "--"]] {
        let output = run(mempool(json).arg(&broken));
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(125), ""));
        let parts =
            ["dies of SIGSEGV on a pool that may grow to 64 GiB", "measures nothing\n", "fix: see whether it dies"];
        assert_has(&stderr(&output), &parts);
    }
    let said = fails(&mut mempool(["size", "--", "sh", "-c", "echo why >&2; kill -TERM $$"]), 125);
    assert_has(&said, &["dies of SIGTERM", ": why\n"]);
}

#[test]
fn a_program_that_ends_differently_each_time_is_refused_in_the_end() {
    let folder = Folder::new("size-fickle");
    let count = folder.path("count");
    // As the first time in the first two or three runs, otherwise in all that follow.
    let program = folder.script("fickle", &format!("#!/bin/sh\necho >> {count}\n[ $(wc -l < {count}) -le $1 ]\n"));
    for runs in ["2", "3"] {
        let _ = std::fs::remove_file(&count);
        let said = fails(&mut mempool(["size", "--most", "4M", "--", &program, runs]), 125);
        assert_has(&said, &["not behave the same", "now with exit code 0 and now with exit code 1, last on ", "fix: "]);
        let lines = std::fs::read_to_string(&count).expect("a count").lines().count();
        assert!(lines < 40, "{lines} runs");
    }
}

#[test]
fn sizes_that_no_segment_has_and_pools_that_serve_nothing_are_refused() {
    for most in ["100T", "1K", "0"] {
        let said = fails(&mut mempool(["size", "--most", most, "--", "true"]), 125);
        assert_has(&said, &["--most ", "no segment can be that large", "fix: pass 256 KiB to 16 TiB"]);
    }
    let said = fails(&mut mempool(["size", "--small", "system", "--", "true"]), 125);
    assert_has(&said, &["small=system", "fix: choose small=slab"]);
    let said = fails(&mut mempool(["size", "--input", "/no such file", "--", "cat"]), 125);
    assert_has(&said, &["cannot read the input /no such file: No such file", "fix: "]);
    let limited = format!("ulimit -f 100; exec {} size -- true", common::MEMPOOL);
    let said = fails(clean("sh").args(["-c", &limited]), 125);
    assert_has(&said, &["files may be no larger than ", "fix: raise the limit: `ulimit -f unlimited`"]);
}

/// The line of the table that begins with `name`.
fn line<'a>(table: &'a str, name: &str) -> &'a str {
    let found = table.lines().find(|line| line.trim_start().starts_with(name));
    found.unwrap_or_else(|| panic!("no line {name:?} in:\n{table}"))
}

#[test]
fn the_table_says_how_the_recommended_segment_comes_about() {
    let said = succeeds(&mut mempool(["size", "--", "sh", "-c", "exit 3"]));
    assert_has(line(&said, "smallest"), &[" 256 KiB "]);
    let rounded = "1 MiB  a quarter more, 320 KiB, rounded up to whole MiB: for another day's input";
    assert_has(line(&said, "recommended"), &[rounded]);
}

#[test]
fn the_command_at_the_end_can_be_pasted() {
    let folder = Folder::new("size-paste");
    let script = "read -r line; test \"$line\" = \"it's so\" && test $# = 2 && test -z \"$2\" && echo fine";
    let (input, program) =
        (folder.write("an input", "it's so\n"), folder.script("a program", "#!/bin/sh\neval \"$1\"\n"));
    let flags = ["--input", &input, "--percent", "50", "--small", "heap", "--name", "my pool", "--stats=off"];
    let said = succeeds(mempool(["size"].iter().chain(&flags)).args(["--segment", "3M", "--", &program, script, ""]));
    let command = line(&said, "mempool run ");
    assert_has(command, &["run --segment 1M --small heap --name 'my pool' --stats=off -- ", "it'\\''s so", " '' < "]);
    assert!(command.matches("--segment").count() == 1 && !command.contains("3M"), "{command}");
    let bin = std::path::Path::new(common::MEMPOOL).parent().expect("a folder").display();
    let path = format!("{bin}:{}", std::env::var("PATH").expect("PATH"));
    assert_eq!(succeeds(clean("sh").args(["-c", command]).env("PATH", path)), "fine\n");
}
