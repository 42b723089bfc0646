//! Real programs: the same output with and without the pool, and the pool's table as witness that it served.

mod common;

use std::path::Path;
use std::process::Command;

use common::{folder, on_pool, plain, succeed};

/// Runs a shell script both ways in `place`; the outputs must agree, and at least so many of
/// the processes must have been served.
fn same(place: &Path, least: usize, script: &str) {
    let shell = |mut command: Command| {
        let ran = succeed(command.args(["-c", script]).current_dir(place).env("HOME", place));
        (ran.out, ran.err)
    };
    let (expected, _) = shell(plain("/bin/bash"));
    let mut command = on_pool("/bin/bash");
    command.env("MEMPOOL_STATS", "on").env("MEMPOOL_SEGMENT", "1G");
    let (out, tables) = shell(command);
    assert_eq!(out, expected, "{script}\n{tables}");
    assert!(!out.is_empty(), "{script}: nothing to compare");
    // Some programs (gzip) allocate nothing; the shell does.
    let served = tables.split("mempool: process ").filter(|table| table.contains("  size class ")).count();
    assert!(served >= least, "{script}: {served} processes were served\n{tables}");
}

/// An empty folder of that name.
fn place(name: &str) -> std::path::PathBuf {
    let place = folder().join(name);
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir_all(&place).expect("a folder can be made");
    place
}

#[test]
fn ls_and_sort() {
    same(&place("ls"), 4, "ls -lR /usr/include | head -20000 | sort | sort -r -k5 | cksum");
}

#[test]
fn text_tools() {
    let script = "for i in $(seq 300); do echo line $i; done | sed 's/line/LINE/' | awk '{ s[$2 % 7] += $2 } END { for (k in s) print k, s[k] }' | sort > copy; gzip < copy | gunzip | cmp - copy && cat copy && grep -c . copy";
    same(&place("text"), 4, script);
}

#[test]
fn python() {
    let script = "PYTHONMALLOC=malloc PYTHONHASHSEED=0 /usr/bin/env python3 -c '
import json, re, threading, subprocess, sys
d = {str(i): [i] * (i % 50) for i in range(20000)}
s = json.dumps(d)
print(len(s), hash(s), sum(len(v) for v in json.loads(s).values()))
out = []
def f(n):
    x = [bytes(k % 3000) for k in range(3000)]
    out.append(sum(map(len, x)))
t = [threading.Thread(target=f, args=(i,)) for i in range(4)]
[x.start() for x in t]; [x.join() for x in t]
print(out)
print(subprocess.run([\"echo\", \"child\"], capture_output=True).stdout)
print(re.sub(r\"(a+)b\", r\"<\\1>\", \"aab\" * 1000)[:50])
try:
    bytearray(1 << 62)
except MemoryError:
    print(\"MemoryError\")
'";
    same(&place("python"), 2, script);
}

#[test]
fn compilers() {
    let sources = place("compilers");
    let mut text = String::from("#include <stdio.h>\n#include <string>\n#include <map>\n");
    for k in 0..300 {
        text += &format!(
            "std::map<std::string, int> f{k}(int n) {{ std::map<std::string, int> m; for (int i = 0; i < n; i++) m[std::to_string(i * {k})]++; return m; }}\n"
        );
    }
    text += "int main() { printf(\"%zu\\n\", f7(100).size() + f299(5).size()); }\n";
    std::fs::write(sources.join("a.cpp"), text).expect("the folder is writable");
    same(&sources, 5, "g++ -O1 -pipe a.cpp -o a && objdump -d a | tail -n +4 | cksum && ./a");
}

#[test]
fn perl() {
    let script = "perl -e 'my %h; for my $i (1..60000) { $h{\"k\" . $i % 1000} .= chr(65 + $i % 26) x ($i % 30); } my $t = 0; $t += length $h{$_} for keys %h; print \"$t\\n\"; my @s = sort { $h{$a} cmp $h{$b} or $a cmp $b } keys %h; print \"@s[0..9]\\n\"; my $c = fork; if (!$c) { my @x = map { \"y\" x $_ } 1..1000; exit 3 } waitpid $c, 0; print $? >> 8, \"\\n\"'";
    same(&place("perl"), 2, script);
}

#[test]
fn git() {
    let script = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
rm -rf r && git init -q r && cd r && for i in $(seq 25); do seq $((i * 100)) > f$((i % 5)); git add -A; git commit -q -m \"commit $i\"; done && git log --stat | cksum && git log --oneline | head -3 && git gc -q && git fsck && git rev-parse HEAD";
    same(&place("git"), 30, script);
}
