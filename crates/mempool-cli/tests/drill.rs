//! `mempool run --fail-...` and `mempool drill`: programs that bear a refusal, and programs that do not.
#![allow(missing_docs)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use common::{Folder, assert_has, clean, fails, mempool, run, stderr, stdout, succeeds};
use serde_json::Value;

/// 1,000 requests of 32 bytes; prints which of them gave null with ENOMEM.
const MANY: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    static char buffer[1 << 16];
    static void *volatile objects[1000];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    for (int k = 0; k < 1000; k++) {
        errno = 0;
        objects[k] = malloc(32);
        if (!objects[k] && errno == ENOMEM) printf("%d ", k);
    }
    for (int k = 0; k < 1000; k++) free(objects[k]);
    return 0;
}
"#;

/// What was refused of [`MANY`] under `flags`.
fn refused(program: &str, flags: &[&str]) -> Vec<u32> {
    let mut command = mempool(["run", "--segment", "16M", "--exhausted", "null"].iter().chain(flags));
    let said = succeeds(command.args(["--", program]));
    said.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn the_nth_request_alone_is_refused() {
    let folder = Folder::new("fail-nth");
    let program = folder.compile("many", MANY, &["-O1"]);
    assert_eq!(refused(&program, &[]), [0u32; 0]);
    let at = |n: u32| refused(&program, &["--fail-nth", &n.to_string()]);
    let first = (1..200).find(|&n| !at(n).is_empty()).expect("some request is the program's");
    for more in [0, 1, 2, 500, 999] {
        assert_eq!(at(first + more), [more]);
    }
    assert_eq!(at(first + 1000), [0u32; 0]);
}

#[test]
fn every_nth_request_is_refused_and_the_others_are_served() {
    let folder = Folder::new("fail-every");
    let program = folder.compile("many", MANY, &["-O1"]);
    let found = refused(&program, &["--fail-every", "10"]);
    assert!(found.len() == 100 && found.windows(2).all(|pair| pair[1] - pair[0] == 10), "{found:?}");
    assert_eq!(refused(&program, &["--fail-every", "1"]).len(), 1000);
}

#[test]
fn a_size_or_a_seed_says_what_is_refused() {
    let folder = Folder::new("fail-seed");
    let program = folder.compile("many", MANY, &["-O1"]);
    assert_eq!(refused(&program, &["--fail-above", "32"]), [0u32; 0]);
    assert_eq!(refused(&program, &["--fail-above", "31"]).len(), 1000);
    let drawn = |seed: &str, rate: &str| refused(&program, &["--fail-seed", seed, "--fail-rate", rate]);
    let once = drawn("7", "10");
    assert_eq!(drawn("7", "10"), once, "the same seed draws the same requests");
    assert_ne!(drawn("8", "10"), once);
    // Binomial: 100 of 1000, with a deviation of 9.5.
    assert!((50..150).contains(&once.len()), "{}", once.len());
    assert_eq!(drawn("7", "1").len(), 1000);
    assert!(drawn("7", "4000000000").len() < 2);
    fails(&mut mempool(["run", "--fail-rate", "0", "--", "true"]), 125);
}

#[test]
fn requests_of_all_threads_are_numbered_together() {
    let folder = Folder::new("fail-threads");
    let source = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static void *work(void *count) {
    for (int k = 0; k < 1000; k++) {
        void *volatile object = malloc(100);
        if (!object) ++*(int *)count;
        free(object);
    }
    return 0;
}
int main(void) {
    pthread_t threads[4];
    int counts[4] = {0, 0, 0, 0}, all = 0;
    for (int k = 0; k < 4; k++) while (pthread_create(&threads[k], 0, work, &counts[k])) {}
    for (int k = 0; k < 4; k++) pthread_join(threads[k], 0), all += counts[k];
    char buffer[100]; setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    printf("%d", all);
    return 0;
}
"#;
    let program = folder.compile("threads", source, &["-O1", "-pthread"]);
    let said = succeeds(mempool(["run", "--segment", "16M", "--exhausted=null", "--fail-every", "7"]).arg(program));
    // 4,000 requests, and those that make threads among them: no number is given twice or left out.
    let count: i32 = said.parse().expect("a number");
    assert!((570..=572).contains(&count), "{count}");
}

#[test]
fn the_policy_says_what_a_refusal_means() {
    let folder = Folder::new("fail-policy");
    let program = folder.compile("many", MANY, &["-O1"]);
    let output = run(mempool(["run", "--segment", "16M", "--fail-above", "31", "--"]).arg(&program));
    assert_eq!(output.status.signal(), Some(6));
    let said = stderr(&output);
    assert_has(
        &said,
        &["mempool: drill: request ", " refused as if the pool were exhausted: ", "MEMPOOL_EXHAUSTED=null"],
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn operators_of_cxx_throw_and_nothrow_forms_give_null() {
    let folder = Folder::new("fail-cxx");
    let source = r#"
#include <cstdio>
#include <new>
struct alignas(64) Wide { char bytes[50000]; };
int main() {
    int thrown = 0;
    try { delete[] new char[50000]; } catch (const std::bad_alloc &) { thrown += 1; }
    try { delete new Wide; } catch (const std::bad_alloc &) { thrown += 10; }
    char *none = new (std::nothrow) char[50000];
    if (!none) thrown += 100;
    delete[] none;
    return thrown;
}
"#;
    let (from, to) = (folder.write("new.cc", source), folder.path("new"));
    succeeds(clean("c++").args(["-std=c++17", "-O0", "-o", &to, &from]));
    let common = ["run", "--segment", "16M", "--exhausted", "null"];
    fails(mempool(common).arg(&to), 0);
    fails(mempool(common).args(["--fail-above", "40000"]).arg(&to), 111);
    // Nobody catches: the C++ library ends the program.
    let bare = r#"int main() { delete new char[50000]; return 0; }"#;
    let (from, to) = (folder.write("bare.cc", bare), folder.path("bare"));
    succeeds(clean("c++").args(["-O0", "-w", "-o", &to, &from]));
    let output = run(mempool(common).args(["--fail-above", "40000"]).arg(&to));
    assert_eq!(output.status.signal(), Some(6), "{}", stderr(&output));
}

#[test]
fn growing_is_a_request_and_the_old_object_stays() {
    let folder = Folder::new("fail-realloc");
    let source = r#"
#include <stdlib.h>
#include <string.h>
int main(void) {
    char *text = malloc(20000);
    if (!text) return 1;
    memset(text, 'x', 20000);
    char *volatile more = realloc(text, 60000);
    if (more) return 2;
    for (int k = 0; k < 20000; k++) if (text[k] != 'x') return 3;
    free(text);
    return calloc(1000, 61) ? 4 : 0;
}
"#;
    let program = folder.compile("realloc", source, &["-O0"]);
    let common = ["run", "--segment", "16M", "--exhausted", "null"];
    fails(mempool(common).args(["--fail-above", "50000"]).arg(&program), 0);
    fails(mempool(common).args(["--fail-above", "60000"]).arg(&program), 2);
}

/// Five places: one handles null, one hands it on, one crashes, one waits for ever if it is `PATIENT`, one gives up with 3.
const PLACES: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define NOINLINE __attribute__((noinline))
NOINLINE static void handles(void) { char *p = malloc(100); if (p) p[0] = 1; free(p); }
NOINLINE static char *hands_on(void) { return strdup("text"); }
NOINLINE static void crashes(void) { char *volatile p = malloc(200); p[0] = 1; free(p); }
#ifdef PATIENT
NOINLINE static void waits(void) { char *p; while (!(p = malloc(300))) pause(); free(p); }
#else
NOINLINE static void waits(void) { free(malloc(300)); }
#endif
NOINLINE static void gives_up(void) { char *p = malloc(400); if (!p) _exit(3); free(p); }
int main(void) {
    for (int k = 0; k < 3; k++) handles();
    free(hands_on());
    crashes();
    waits();
    gives_up();
    return 0;
}
"#;

/// Seconds after which a run counts as hung, where one is. All the others must have ended by then, on a machine with much else to do, too.
const ONE_HANGS: &str = "10";

fn drill(flags: &[&str], program: &str, code: i32) -> Value {
    let output = run(mempool(["drill", "--json"].iter().chain(flags)).args(["--", program]));
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(&output), stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

/// Verdict and detail of the site whose function is `name`.
fn verdict(found: &Value, name: &str) -> (String, String) {
    let sites = found["sites"].as_array().expect("sites");
    let site = sites.iter().find(|site| site["site"].as_str().is_some_and(|text| text.starts_with(name)));
    let site = site.unwrap_or_else(|| panic!("no site {name} in {found:#}"));
    (site["verdict"].as_str().unwrap_or("").into(), site["detail"].as_str().unwrap_or("").into())
}

#[test]
fn a_drill_tells_places_that_bear_a_refusal_from_those_that_do_not() {
    let folder = Folder::new("drill");
    let program = folder.compile("places", PLACES, &["-O0", "-g", "-DPATIENT"]);
    let found = drill(&["--timeout", ONE_HANGS], &program, 1);
    assert_eq!(found["usual"], "exit code 0");
    assert_eq!((found["missed"].as_u64(), found["left_out"].as_u64()), (Some(0), Some(0)));
    let is =
        |name: &str, verdict_, detail: &str| assert_eq!(verdict(&found, name), (String::from(verdict_), detail.into()));
    is("handles", "handled", "");
    is("hands_on", "handled", "");
    is("crashes", "crashed", "SIGSEGV");
    is("waits", "hung", "");
    is("gives_up", "gave up", "exit code 3");
    // Three requests of `handles` come from one place.
    let sites = found["sites"].as_array().expect("sites");
    let handles = sites.iter().find(|site| site["site"].as_str().unwrap_or("").starts_with("handles")).expect("a site");
    assert_eq!((handles["runs"].as_u64(), handles["bytes"].as_u64()), (Some(1), Some(100)));
    assert_has(handles["site"].as_str().expect("text"), &["handles (places.c:6)"]);
    // The call by the C library for somebody is that somebody's.
    let on = sites.iter().find(|site| site["site"].as_str().unwrap_or("").starts_with("hands_on")).expect("a site");
    let frames: Vec<&str> =
        on["frames"].as_array().expect("frames").iter().filter_map(|f| f["function"].as_str()).collect();
    assert!(frames.len() == 2 && frames[0].contains("strdup"), "{frames:?}");
}

#[test]
fn a_drill_tries_every_request_if_asked_and_stops_at_a_number() {
    let folder = Folder::new("drill-all");
    let program = folder.compile("places", PLACES, &["-O0", "-g"]);
    let all = drill(&["--all"], &program, 1);
    let requests = all["requests"].as_u64().expect("a number");
    assert_eq!(all["runs"].as_u64().map(|runs| runs + all["missed"].as_u64().unwrap_or(0)), Some(requests));
    // Each is counted once, those from before the library's constructor among them.
    let sized = succeeds(&mut mempool(["size", "--json", "--percent", "50", "--", &program]));
    let sized: Value = serde_json::from_str(&sized).expect("JSON");
    assert_eq!(sized["processes"][0]["requests"].as_u64(), Some(requests));
    let sites = all["sites"].as_array().expect("sites");
    let handles = sites.iter().find(|site| site["site"].as_str().unwrap_or("").starts_with("handles")).expect("a site");
    assert_eq!(handles["runs"].as_u64(), Some(3));
    let few = drill(&["--max", "1"], &program, 0);
    assert_eq!(few["runs"].as_u64(), Some(1));
    assert_eq!(few["left_out"].as_u64(), Some(few["places"].as_u64().expect("a number") - 1));
}

#[test]
fn exit_codes_may_be_wrong() {
    let folder = Folder::new("drill-accept");
    let program = folder.compile("places", PLACES, &["-O0", "-g"]);
    assert_eq!(verdict(&drill(&["--accept", "1,2"], &program, 1), "gives_up"), ("wrong".into(), "exit code 3".into()));
    assert_eq!(
        verdict(&drill(&["--accept", "1,3"], &program, 1), "gives_up"),
        ("gave up".into(), "exit code 3".into())
    );
}

#[test]
fn the_table_names_the_worst_first_and_how_to_see_it() {
    let folder = Folder::new("drill-table");
    let program = folder.compile("places", PLACES, &["-O0", "-g", "-DPATIENT"]);
    let said = fails_with_output(mempool(["drill", "--timeout", ONE_HANGS, "--"]).arg(&program), 1);
    assert_has(
        &said,
        &["verdict", "crashed  SIGSEGV", "crashes (places.c:8)", "2 sites cannot bear a refusal", "--fail-nth "],
    );
    let command = said.lines().last().expect("a line").trim_start();
    assert!(command.starts_with("mempool run ") && command.ends_with(&format!(" -- {program}")), "{command}");
    let number = said.split("--fail-nth ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
    let again = run(mempool(["run", "--exhausted", "null", "--segment", "16M", "--fail-nth", number]).arg(&program));
    assert_eq!(again.status.signal(), Some(11));
}

#[test]
fn the_command_of_the_table_repeats_the_run() {
    let folder = Folder::new("drill-paste");
    // Crashes only with this argument and this input, when the request that they lead to is refused.
    let source = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int n, char **words) {
    static char line[100];
    if (n != 2 || strcmp(words[1], "two words") || !fgets(line, sizeof line, stdin) || strcmp(line, "it\n")) return 0;
    char *volatile p = malloc(200);
    p[0] = 1;
    free(p);
    return 0;
}
"#;
    let (program, input) = (folder.compile("asks", source, &["-O0"]), folder.write("an input", "it\n"));
    let flags = ["drill", "--input", &input, "--segment", "16M", "--exhausted", "abort", "--stats", "--"];
    let said = fails_with_output(mempool(flags).args([&program, "two words"]), 1);
    let command = said.lines().last().expect("a line").trim_start();
    assert_has(command, &["--segment 16M", "--exhausted null", "-- ", " 'two words' < '"]);
    assert!(!command.contains("abort"), "{command}");
    let bin = std::path::Path::new(common::MEMPOOL).parent().expect("a folder").display();
    let path = format!("{bin}:{}", std::env::var("PATH").expect("PATH"));
    let again = run(clean("sh").args(["-c", &format!("exec {command}")]).env("PATH", path));
    assert_eq!(again.status.signal(), Some(11), "{command}\n{}", stderr(&again));
}

fn fails_with_output(command: &mut Command, code: i32) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

#[test]
fn programs_that_cannot_be_drilled_are_refused() {
    let folder = Folder::new("drill-refused");
    assert_has(&fails(&mut mempool(["drill", "--", "no-such-program"]), 127), &["no such program"]);
    let fixed = folder.compile("fixed", "int main(void) { return 0; }", &["-static"]);
    assert_has(&fails(&mut mempool(["drill", "--", &fixed]), 126), &["statically linked"]);
    let endless = folder.compile("endless", "#include <unistd.h>\nint main(void) { for (;;) pause(); }", &[]);
    let said = fails(&mut mempool(["drill", "--timeout", "1", "--", &endless]), 125);
    assert_has(&said, &["did not end within 1 s", "fix: raise --timeout"]);
    assert_has(&fails(&mut mempool(["drill", "--max", "0", "--", "ls"]), 125), &["--max"]);
    let source = "#include <stdlib.h>\nint main(void) { free(malloc(100)); return *(volatile int *)0; }";
    let broken = folder.compile("broken", source, &["-O0"]);
    let output = run(&mut mempool(["drill", "--", &broken]));
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(125), ""));
    assert_has(
        &stderr(&output),
        &["dies of SIGSEGV without a refusal", "cannot be told\n", "fix: see whether it dies"],
    );
}

#[test]
fn a_program_of_debian_bears_every_refusal() {
    let output = run(&mut mempool(["drill", "--", "ls", "/"]));
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    assert_has(&said, &["every site tried can bear a refusal"]);
}

#[test]
fn what_is_refused_is_the_drills_to_say() {
    let said = fails(&mut mempool(["drill", "--fail-every", "3", "--", "true"]), 125);
    assert_has(&said, &["MEMPOOL_FAIL_EVERY=3: `mempool drill` itself sets", "fix: leave out --fail-every"]);
    let said = fails(mempool(["drill", "--", "true"]).env("MEMPOOL_FAIL_NTH", "5"), 125);
    assert_has(&said, &["MEMPOOL_FAIL_NTH=5", "unset MEMPOOL_FAIL_NTH"]);
    succeeds(mempool(["drill", "--max", "1", "--", "true"]).env("MEMPOOL_FAIL_NTH", "0"));
}

#[test]
fn requests_from_before_the_start_are_told_apart() {
    let folder = Folder::new("drill-before");
    let program = folder.compile("nothing", "int main(void) { return 0; }", &["-O0"]);
    let none = fails_with_output(&mut mempool(["drill", "--", &program]), 0);
    assert_has(&none, &["0 runs with one refusal", "nothing was tried: "]);
    assert!(!none.contains("every site tried"), "{none}");
    // One of each was refused, so none was missed.
    let all = drill(&["--all"], &program, 0);
    assert_eq!((all["runs"].as_u64(), all["missed"].as_u64()), (all["requests"].as_u64(), Some(0)));
    assert_eq!(all["before"], all["requests"]);
    let sites = all["sites"].as_array().expect("sites");
    assert!(sites.iter().all(|site| site["site"] == "(before the program's start)"), "{all:#}");
}

#[test]
fn a_crash_counts_although_nothing_was_refused() {
    let folder = Folder::new("drill-unreached");
    // Asks in its first run, and crashes in all others.
    let source = format!(
        "#include <fcntl.h>\n#include <stdlib.h>\nint main(void) {{\n\
         if (open({:?}, O_CREAT | O_EXCL, 0600) < 0) abort();\n free(malloc(10)); return 0; }}",
        folder.path("mark")
    );
    let program = folder.compile("once", &source, &["-O0"]);
    let found = drill(&[], &program, 1);
    assert_eq!((found["runs"].as_u64(), found["missed"].as_u64()), (Some(1), Some(0)), "{found:#}");
    assert_eq!(verdict(&found, "(nothing that it asked itself was refused)"), ("crashed".into(), "SIGABRT".into()));
}

#[test]
fn functions_of_c_keep_their_names() {
    let folder = Folder::new("drill-names");
    let source = "#include <stdlib.h>\nvoid f(void) { free(malloc(10)); }\nint main(void) { f(); return 0; }";
    for debug in ["-g", "-g0"] {
        let program = folder.compile("short", source, &["-O0", debug]);
        let found = drill(&[], &program, 0);
        assert_eq!(verdict(&found, "f (").0, "handled", "{found:#}");
    }
}
