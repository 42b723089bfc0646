//! Unmodified programs of the system do their usual work on a pool: with the results that they have without it, and
//! with a table at exit that shows that the pool served them.
//!
//! A program that is not installed fails its test with the name of the Debian package; nothing is skipped.
#![allow(missing_docs)]

mod common;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, Table, clean, mempool, run, stderr, stdout, table_of};

/// Where Debian puts programs; other copies in the caller's `PATH` are not meant.
const PATH: &str = "/usr/bin:/bin";

#[track_caller]
fn installed(program: &str, package: &str) {
    let found = PATH.split(':').any(|folder| Path::new(folder).join(program).exists());
    assert!(found, "{program} is not installed; apt-get install {package}");
}

/// `program` as it is, and on a pool of `segment`.
fn plain(program: &str) -> Command {
    let mut command = clean(Path::new("/usr/bin").join(program));
    command.env("PATH", PATH);
    command
}

fn pooled(program: &str, segment: &str) -> Command {
    let mut command = mempool(["run", "--stats", "--commit", "lazy", "--segment", segment, "--", program]);
    command.env("PATH", PATH);
    command
}

/// Runs `program` without and with a pool, prepared by `prepare`; both outputs, which must be successes.
#[track_caller]
fn both(program: &str, segment: &str, prepare: impl Fn(&mut Command)) -> [Output; 2] {
    [plain(program), pooled(program, segment)].map(|mut command| {
        prepare(&mut command);
        let output = run(&mut command);
        assert!(output.status.success(), "{command:?}: {}\n{}{}", output.status, stdout(&output), stderr(&output));
        output
    })
}

/// As [`both`], with the same standard output; the pool's table, which shows that it did the work with `slabs` slabs or more.
#[track_caller]
fn same(program: &str, segment: &str, slabs: u64, prepare: impl Fn(&mut Command)) -> (String, Table) {
    let [without, with] = both(program, segment, prepare);
    assert_eq!(stdout(&with), stdout(&without));
    let table = table_of(&stderr(&with), program);
    assert_served(&table, slabs);
    (stdout(&with), table)
}

#[track_caller]
fn assert_served(table: &Table, slabs: u64) {
    assert!(table.slabs >= slabs && table.refused == 0, "fewer than {slabs} slabs: {table:?}");
}

/// A million rows, an index, a join, text functions and an aggregate, all in memory.
#[test]
fn sqlite_builds_and_queries_a_million_rows() {
    installed("sqlite3", "sqlite3");
    let script = "
        PRAGMA temp_store = memory;
        CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INTEGER);
        WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000)
            INSERT INTO t SELECT x, printf('%08x', x * 2654435761 % 4294967296), x % 1000 FROM n;
        CREATE INDEX i ON t (b);
        SELECT count(*), sum(length(b)), min(b), max(b), sum(a), total(c) FROM t;
        SELECT c, count(*), group_concat(substr(b, 1, 2), '-') FROM t WHERE b < '00100000' GROUP BY c ORDER BY c;
        SELECT count(*) FROM t x JOIN t y ON x.b = y.b WHERE x.a % 7 = 0;
        UPDATE t SET b = upper(b) || 'x' WHERE a % 3 = 0;
        DELETE FROM t WHERE a % 5 = 0;
        SELECT count(*), max(b), sum(length(b)) FROM t;
        PRAGMA integrity_check;";
    let (text, table) = same("sqlite3", "512M", 500, |command| {
        command.args(["-batch", ":memory:", script]);
    });
    common::assert_has(&text, &["1000000|8000000|", "500000500000", "142857\n", "800000|", "\nok\n"]);
    // Few: what grows takes parked runs, which are not counted.
    assert!(table.runs > 0, "{table:?}");
}

const PYTHON_TESTS: [&str; 9] = [
    "test_list",
    "test_dict",
    "test_set",
    "test_json",
    "test_re",
    "test_bytes",
    "test_deque",
    "test_heapq",
    "test_struct",
];

/// Python's own tests of its containers, texts and parsers. They look at the standard error of processes that they
/// start, so that these get no table.
#[test]
fn python_passes_its_own_tests() {
    installed("python3", "python3");
    let found = Path::new("/usr/lib").read_dir().unwrap().flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("python3.") && entry.path().join("test/test_list.py").exists()
    });
    assert!(
        found,
        "python's own test suite is not installed; apt-get install libpython3.11-testsuite (or libpython3-testsuite)"
    );
    let start =
        "import os, runpy; os.environ.pop('MEMPOOL_STATS', None); runpy.run_module('test', run_name='__main__')";
    let folder = Folder::new("python");
    let outputs = both("python3", "512M", |command| {
        command.args(["-c", start, "-v"]).args(PYTHON_TESTS);
        command.env("PYTHONMALLOC", "malloc").env("PYTHONHASHSEED", "1").current_dir(&folder.0);
    });
    let [without, with] = outputs.each_ref().map(|output| {
        let all = stdout(output) + &stderr(output);
        let mut passed: Vec<String> = all.lines().filter(|line| line.ends_with("... ok")).map(str::to_owned).collect();
        passed.sort();
        assert!(all.contains(&format!("All {} tests OK.", PYTHON_TESTS.len())), "{all}");
        passed
    });
    assert_eq!(with, without);
    assert!(with.len() > 900, "only {} tests ran", with.len());
    assert_served(&table_of(&stderr(&outputs[1]), "python3"), 200);
}

/// A C file of `functions` functions, about 25 lines each.
fn c_source(functions: u32) -> String {
    let mut text = String::from("struct node { struct node *next; long key; double weight; char name[24]; };\n");
    for n in 0..functions {
        let (a, b, c) = (n % 17 + 1, n % 29 + 2, n % 7);
        write!(
            text,
            "long f{n}(struct node *list, long x, const double *v) {{
    long sum = {a};
    for (struct node *at = list; at; at = at->next) {{
        switch ((at->key + x) % {b}) {{
        case 0: sum += at->key * {a}; break;
        case 1: sum ^= (long)(at->weight * v[{c}]); break;
        case {b}: sum -= at->name[{c}]; break;
        default: sum = (sum << {c}) | (at->key & {n});
        }}
        if (at->key > {n}) {{ at->key -= x; at->name[{c}] = (char)('a' + x % 26); }}
    }}
    while (x > {a}) {{ x = x / 2 + {c}; sum += x * {b}; if (sum % {b} == {c}) break; }}
    return sum + {};
}}\n",
            if n == 0 { "0".to_owned() } else { format!("f{}(list, x - 1, v + 1)", n - 1) },
        )
        .unwrap();
    }
    text
}

#[test]
fn gcc_makes_the_same_object() {
    installed("gcc", "gcc");
    let folder = Folder::new("gcc");
    folder.write("large.c", &c_source(500));
    let outputs = both("gcc", "1G", |command| {
        // The first run leaves `first.o`, the second has it there and leaves `second.o`.
        let object = if folder.0.join("first.o").exists() { "second.o" } else { "first.o" };
        command.args(["-O2", "-g", "-c", "large.c", "-o", object]).current_dir(&folder.0);
    });
    let [first, second] = ["first.o", "second.o"].map(|name| std::fs::read(folder.0.join(name)).unwrap());
    assert!(first.len() > 200_000 && first == second, "objects of {} and {} bytes differ", first.len(), second.len());
    for program in ["gcc", "cc1", "as"] {
        assert_served(&table_of(&stderr(&outputs[1]), program), if program == "cc1" { 60 } else { 5 });
    }
}

/// A stream for `git fast-import`: `commits` commits to 40 files that grow and change.
fn git_stream(commits: u32) -> String {
    let mut stream = String::new();
    let mut lines: Vec<Vec<String>> = vec![Vec::new(); 40];
    for n in 0..commits {
        let message = format!("Change number {n}");
        let author = format!("A <a{}@example.org> {} +0000", n % 5, 1_600_000_000 + n * 60);
        write!(stream, "commit refs/heads/main\ncommitter {author}\ndata {}\n{message}\n", message.len()).unwrap();
        for file in [n % 40, (n * 7 + 3) % 40] {
            let content = &mut lines[file as usize];
            if content.len() > 60 {
                content.remove((n % 60) as usize);
            }
            content.insert((n as usize * 13) % (content.len() + 1), format!("line {} of change {n}", n * 31 % 997));
            let text = content.join("\n") + "\n";
            write!(stream, "M 100644 inline dir{}/file{file}.txt\ndata {}\n{text}\n", file % 4, text.len()).unwrap();
        }
    }
    stream + "done\n"
}

/// What git does with a repository of thousands of commits, as one script.
const GIT_SCRIPT: &str = "set -e
git init -q -b main .
git config pack.threads 1
git fast-import --quiet --done < ../stream
git log --format='%H %T %an %s' --stat -n 500
git rev-list --all --objects | sort | cksum
git blame -s main -- dir3/file3.txt
git gc -q --prune=now --aggressive
git repack -q -a -d -f --depth=30
git fsck --full --strict
git verify-pack -v .git/objects/pack/*.pack | cksum
git checkout -q -f main
git grep -c 'of change 1' | sort
git diff --stat main~2000 main
git archive main | cksum";

#[test]
fn git_keeps_thousands_of_commits() {
    installed("git", "git");
    let folder = Folder::new("git");
    folder.write("stream", &git_stream(3000));
    let (text, _) = {
        let [without, with] = both("sh", "256M", |command| {
            let place = folder.0.join(if folder.0.join("first").exists() { "second" } else { "first" });
            std::fs::create_dir(&place).unwrap();
            command.args(["-c", GIT_SCRIPT]).current_dir(place);
            command.env("HOME", &folder.0).env("GIT_CONFIG_NOSYSTEM", "1");
        });
        assert_eq!(stdout(&with), stdout(&without));
        let served: u64 =
            common::tables(&stderr(&with)).iter().filter(|table| table.program == "git").map(|table| table.slabs).sum();
        assert!(served > 300, "only {served} slabs");
        assert!(common::tables(&stderr(&with)).iter().all(|table| table.refused == 0));
        (stdout(&with), served)
    };
    common::assert_has(&text, &["Change number 2999", "Change number 2500", "of change", "dir3/file3.txt"]);
}

const PERL_SCRIPT: &str = r#"
my (%h, @rows);
for my $i (0 .. 200_000) {
    $h{"key$i"} = [ $i, "v" x ($i % 40), { n => $i, name => "n$i" } ];
    delete $h{"key" . ($i - 50_000)} if $i >= 50_000;
}
my $sum = 0;
$sum += $h{$_}[2]{n} + length $h{$_}[1] for keys %h;
push @rows, join(",", split(//, $_)) for sort keys %h;
my $text = join "\n", @rows;
(my $plain = $text) =~ s/,//g;
my %words;
$words{$_}++ for $text =~ /(\d,\d)/g;
print "$sum ", scalar(@rows), " ", length($plain), " $rows[777]\n";
print join(" ", map { "$_=$words{$_}" } sort keys %words), "\n";
print unpack("%32C*", $plain), "\n";
"#;

#[test]
fn perl_builds_hashes_and_matches() {
    installed("perl", "perl");
    let (text, _) = same("perl", "512M", 150, |command| {
        command.args(["-e", PERL_SCRIPT]);
    });
    common::assert_has(&text, &["50000", "k,e,y,1,5"]);
}

const NODE_SCRIPT: &str = r#"
const crypto = require('crypto'), zlib = require('zlib');
const map = new Map();
for (let i = 0; i < 200000; i++) map.set('k' + i, { a: i, b: [i, i + 1], c: 'x'.repeat(i % 50) });
let sum = 0;
for (const [, value] of map) sum += value.b[1] + value.c.length;
const hash = crypto.createHash('sha256');
let kept = [];
for (let i = 0; i < 30000; i++) {
    kept.push(Buffer.alloc(100 + (i * 37) % 20000, i % 256));
    if (kept.length > 2000) { kept.splice(0, 1000).forEach(buffer => hash.update(buffer)); }
}
let bytes = 0;
for (let i = 0; i < 20; i++) {
    const text = Buffer.from(JSON.stringify([...Array(20000).keys()].map(x => x * i)));
    const back = zlib.inflateSync(zlib.deflateSync(text));
    if (!back.equals(text)) throw new Error('content changed');
    bytes += zlib.brotliDecompressSync(zlib.brotliCompressSync(text, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } })).length;
}
console.log(sum, kept.length, bytes, hash.digest('hex'));
"#;

#[test]
fn node_fills_buffers_and_compresses() {
    installed("node", "nodejs");
    let [without, with] = both("node", "1G", |command| {
        command.args(["-e", NODE_SCRIPT]);
    });
    assert_eq!(stdout(&with), stdout(&without));
    common::assert_has(&stdout(&with), &["20005000000 2000 2434131 "]);
    // Newer versions name the process after its main thread.
    let table = common::tables(&stderr(&with)).into_iter().max_by_key(|table| table.slabs).expect("a table");
    assert!(["node", "MainThread"].contains(&table.program.as_str()), "{table:?}");
    assert_served(&table, 100);
    assert!(table.runs > 1000, "{table:?}");
}

/// A redis-server on a socket of its own, which nobody else can take meanwhile as a port that is free, and a connection to it.
struct Redis {
    server: Child,
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Redis {
    fn start(mut command: Command, folder: &Folder) -> Self {
        // Its path has to be a short one.
        let socket = std::env::temp_dir().join(format!("mempool-redis-{}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.args(["--enable-debug-command", "local"]).current_dir(&folder.0);
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > Duration::from_secs(60) || server.try_wait().unwrap().is_some() => {
                    let _ = server.kill();
                    let output = server.wait_with_output().unwrap();
                    panic!("{command:?}: {error}; {}\n{}", output.status, stderr(&output));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { server, socket, stream: BufReader::new(stream) }
    }

    /// Sends commands in one go and compares each reply with the wanted one, as the protocol writes it.
    fn exchange(&mut self, commands: &[(String, String)]) {
        let text: String = commands.iter().map(|(command, _)| format!("{command}\r\n")).collect();
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
        for (command, wanted) in commands {
            assert_eq!(&self.reply(), wanted, "{command}");
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        self.reply()
    }

    /// One reply: the line itself, or the content of a bulk string.
    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        let Some(len) = line.strip_prefix('$').and_then(|len| len.parse::<usize>().ok()) else { return line };
        let mut content = vec![0; len + 2];
        self.stream.read_exact(&mut content).unwrap();
        String::from_utf8_lossy(&content).trim_end().to_owned()
    }

    /// Asks the server to end; what it wrote to standard error.
    fn end(mut self) -> String {
        self.stream.get_mut().write_all(b"SHUTDOWN NOSAVE\r\n").unwrap();
        let mut said = String::new();
        self.server.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.server.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Commands number `n` of every kind, with the replies that they must have.
fn redis_commands(n: usize) -> [(String, String); 8] {
    let value = format!("{n}-").repeat(n % 60 + 1);
    [
        (format!("SET key:{n} {value}"), "+OK".into()),
        (format!("GET key:{n}"), value.clone()),
        (format!("APPEND key:{n} tail"), format!(":{}", value.len() + 4)),
        ("INCR counter".into(), format!(":{}", n + 1)),
        (format!("RPUSH list:{} {value}", n % 50), format!(":{}", n / 50 + 1)),
        (format!("HSET hash:{} field{n} {value}", n % 20), ":1".into()),
        (format!("ZADD sorted {n} member{n}"), ":1".into()),
        (if n.is_multiple_of(3) { format!("DEL key:{n}") } else { format!("EXISTS key:{n}") }, ":1".into()),
    ]
}

/// Fills a server, loads it with redis-benchmark, and returns the digest of all it keeps.
fn work_redis(redis: &mut Redis) -> String {
    for batch in 0..50 {
        let commands: Vec<_> = (batch * 400..(batch + 1) * 400).flat_map(redis_commands).collect();
        redis.exchange(&commands);
    }
    let digest = redis.ask("DEBUG DIGEST");
    let kinds = "set,get,incr,lpush,rpush,lpop,sadd,hset,spop,zadd,lrange_100,mset";
    let mut benchmark = plain("redis-benchmark");
    benchmark.arg("-s").arg(&redis.socket).args(["-n", "20000", "-c", "20", "-P", "16"]);
    benchmark.args(["-r", "10000", "-d", "300", "--csv", "-t", kinds]);
    let output = run(&mut benchmark);
    let text = stdout(&output);
    assert!(
        output.status.success() && !text.contains("rror") && stderr(&output).is_empty(),
        "{text}{}",
        stderr(&output)
    );
    for kind in ["SET", "GET", "INCR", "LPUSH", "RPUSH", "LPOP", "SADD", "HSET", "SPOP", "ZADD", "LRANGE_100", "MSET"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("\"{kind}"))), "no {kind} in:\n{text}");
    }
    redis.exchange(&[("GET counter".into(), "20000".into()), ("LLEN list:7".into(), ":400".into())]);
    digest
}

#[test]
fn redis_answers_rightly_under_load() {
    installed("redis-server", "redis-server");
    installed("redis-benchmark", "redis-tools");
    let folder = Folder::new("redis");
    let [without, with] = [plain("redis-server"), pooled("redis-server", "512M")].map(|command| {
        let mut redis = Redis::start(command, &folder);
        (work_redis(&mut redis), redis.end())
    });
    assert!(with.0.len() == 41 && with.0 == without.0, "{} and {}", with.0, without.0);
    assert_served(&table_of(&with.1, "redis-server"), 100);
}

/// The other ways of serving give the same results: the best-fit heap, the C library, and a segment that grows.
#[test]
fn every_way_of_serving_gives_the_same_result() {
    installed("perl", "perl");
    let script = PERL_SCRIPT.replace("200_000", "40_000").replace("50_000", "10_000");
    let wanted = common::succeeds(plain("perl").args(["-e", &script]));
    let ways: [&[&str]; 4] = [
        &["--small", "heap", "--segment", "64M"],
        &["--small", "system", "--segment", "1M"],
        &["--exhausted", "grow", "--segment", "1M", "--max-segment", "256M"],
        &["--exhausted", "null", "--segment", "64M", "--guard-pages=off", "--lock", "off", "--huge-pages", "off"],
    ];
    for way in ways {
        let mut command = mempool(["run"].iter().chain(way).chain(&["--stats", "--", "perl", "-e", &script]));
        let output = run(command.env("PATH", PATH));
        assert_eq!(stdout(&output), wanted, "{way:?}: {}", stderr(&output));
        assert_eq!(table_of(&stderr(&output), "perl").refused, 0, "{way:?}");
    }
}
