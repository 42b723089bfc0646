//! Real programs as rows: each runs under every contender, and what it prints is its checksum.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mempool_bench::Mode;

use super::child;
use super::contenders::Contender;
use super::measure::{LIMIT, run_of, under};
use super::results::Run;

/// A run, and resident memory over time.
type Ran = Result<(Run, Vec<(f64, u64)>), String>;

/// A program to be compared.
#[derive(Clone, Debug)]
pub struct Program {
    /// As `--only` knows it.
    pub name: String,
    /// What it does.
    pub about: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// A command; its standard output is compared where `compared`.
    Command { path: PathBuf, arguments: Vec<OsString>, variables: Vec<(&'static str, &'static str)>, compared: bool },
    /// redis-server under redis-benchmark, in a folder of its own.
    Redis { server: PathBuf, client: PathBuf, folder: PathBuf },
}

/// What real programs need, by its package.
const PACKAGES: [(&str, &str); 4] =
    [("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"), ("sqlite3", "sqlite3"), ("gcc", "gcc")];

impl Program {
    /// The user's own.
    pub fn own(path: PathBuf, arguments: Vec<OsString>) -> Self {
        let shown: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let about = format!("{} {}", path.display(), shown.join(" "));
        Self { name, about, kind: Kind::Command { path, arguments, variables: Vec::new(), compared: false } }
    }

    /// One run under `contender`.
    pub fn run(&self, contender: &Contender, scale: f64) -> Ran {
        match &self.kind {
            Kind::Command { path, arguments, variables, compared } => {
                let mut command = under(path.as_os_str(), contender, Mode::Lazy, 1);
                command.args(arguments).envs(variables.iter().copied());
                run_command(&mut command, *compared)
            }
            Kind::Redis { server, client, folder } => redis(server, client, folder, contender, scale),
        }
    }
}

fn run_command(command: &mut Command, compared: bool) -> Ran {
    let failed = |error: std::io::Error| format!("{}: {error}", command.get_program().display());
    let output = child::scratch().map_err(failed)?;
    if compared {
        command.stdout(output.try_clone().map_err(|error| error.to_string())?);
    }
    let ended = child::start(command, LIMIT).and_then(child::Running::wait).map_err(|error| error.to_string())?;
    if let Some(failure) = ended.failure() {
        return Err(failure);
    }
    let mut hasher = DefaultHasher::new();
    child::contents(output).map_err(|error| error.to_string())?.hash(&mut hasher);
    Ok((Run { checksum: format!("{:016x}", hasher.finish()), ..run_of(&ended) }, ended.memory))
}

/// A server under load: requests as fast as the client can send them.
fn redis(server: &Path, client: &Path, folder: &Path, contender: &Contender, scale: f64) -> Ran {
    let socket = folder.join("redis.sock");
    let _ = std::fs::remove_file(&socket);
    let mut command = under(server.as_os_str(), contender, Mode::Lazy, 1);
    command.current_dir(folder).args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let text = |error: std::io::Error| error.to_string();
    let running = child::start(&mut command, LIMIT).map_err(text)?;
    let begin = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let requests = ((300_000.0 * scale) as u64).max(1_000);
    let tests = ["set", "get", "lpush", "hset", "zadd", "mset"];
    let begin = Instant::now();
    let mut load = Command::new(client);
    load.env_remove(crate::library::PRELOAD).arg("-s").arg(&socket).args(["-q", "--csv", "-P", "16", "-c", "20"]);
    load.args(["-d", "300", "-r", "100000", "-n", &requests.to_string(), "-t", &tests.join(",")]);
    let output = load.output();
    let seconds = begin.elapsed().as_secs_f64();
    shut_down(&socket);
    let ended = running.wait().map_err(text)?;
    if let Some(failure) = ended.failure() {
        return Err(failure);
    }
    let output = output.map_err(text)?;
    let done = String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('"')).count();
    if !output.status.success() || done < tests.len() {
        return Err(format!("redis-benchmark did {done} of {} tests", tests.len()));
    }
    let operations = requests * tests.len() as u64;
    Ok((Run { seconds, operations, checksum: "redis".into(), ..run_of(&ended) }, ended.memory))
}

/// Tells the server to end; who does not listen ends by itself or by the time limit.
fn shut_down(socket: &Path) {
    use std::io::{Read, Write};
    if let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) {
        let _ = stream.write_all(b"SHUTDOWN NOSAVE\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// The programs that are there, and a note on each that is not. Their input is written to `folder`.
pub fn all(folder: &Path, scale: f64) -> std::io::Result<(Vec<Program>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut find = |name: &str| {
        let found = crate::program::find(name.as_ref()).ok();
        if found.is_none() {
            let package = PACKAGES.iter().find(|(program, _)| *program == name).map_or(name, |(_, package)| package);
            notes.push(format!("not found: {name}; to get it: apt-get install {package}"));
        }
        found
    };
    let command = |name: &str, about: &str, path: PathBuf, arguments: Vec<OsString>| Program {
        name: name.into(),
        about: about.into(),
        kind: Kind::Command { path, arguments, variables: Vec::new(), compared: true },
    };
    let mut all = Vec::new();
    if let (Some(server), Some(client)) = (find("redis-server"), find("redis-benchmark")) {
        let about = "redis-server under redis-benchmark: 20 clients send pipelined requests with values of 300 bytes.";
        let kind = Kind::Redis { server, client, folder: folder.into() };
        all.push(Program { name: "redis".into(), about: about.into(), kind });
    }
    if let Some(path) = find("sqlite3") {
        let script = folder.join("work.sql");
        std::fs::write(&script, sql((400_000.0 * scale) as usize))?;
        let arguments = vec![":memory:".into(), format!(".read {}", script.display()).into()];
        let about = "sqlite3 on a database in memory: inserts, an index, joins, updates and deletes.";
        all.push(command("sqlite", about, path, arguments));
    }
    if let Some(path) = python(&mut find) {
        let script = folder.join("work.py");
        std::fs::write(&script, PYTHON.replace("COUNT", &((150_000.0 * scale) as usize + 1).to_string()))?;
        let about =
            "python3 with PYTHONMALLOC=malloc, so that every object is malloc's: dictionaries, strings, JSON, sorting.";
        let mut program = command("python", about, path, vec![script.into()]);
        if let Kind::Command { variables, .. } = &mut program.kind {
            variables.extend([("PYTHONMALLOC", "malloc"), ("PYTHONHASHSEED", "0")]);
        }
        all.push(program);
    }
    if let Some(path) = find("gcc") {
        let (source, object) = (folder.join("work.c"), folder.join("work.o"));
        std::fs::write(&source, c((1_200.0 * scale) as usize + 1))?;
        let arguments = vec!["-O1".into(), "-c".into(), source.into(), "-o".into(), object.into()];
        all.push(command("gcc", "gcc -O1 on a C file of 1,200 functions.", path, arguments));
    }
    Ok((all, notes))
}

/// A Python that is the interpreter itself, not a script that looks for one.
fn python(find: &mut impl FnMut(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    if system.exists() { Some(system) } else { find("python3") }
}

fn sql(rows: usize) -> String {
    format!(
        "PRAGMA cache_size=-200000;
create table orders(id integer primary key, customer integer, amount real, note text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
  insert into orders select i, (i * 7919) % 5003, (i * 31) % 997 / 7.0, 'note ' || hex(i * 2654435761 % 4294967296) from n;
create index by_customer on orders(customer, amount);
create table customers(id integer primary key, name text);
insert into customers select distinct customer, 'customer ' || customer from orders;
select count(*), sum(amount), max(note) from orders join customers on customers.id = customer where amount > 50;
select name, group_concat(substr(note, 1, 8)) from orders join customers on customers.id = customer
  where customer < 200 group by name order by name;
update orders set note = note || ' changed' where id % 3 = 0;
delete from orders where id % 5 = 0;
select count(*), sum(length(note)) from orders;
"
    )
}

const PYTHON: &str = "import json, re
count = COUNT
table = {}
for i in range(count):
    table['key%d' % (i * 7919 % count)] = {'id': i, 'name': 'name ' + str(i) * 3, 'tags': [str(i % 7), str(i % 11)]}
text = json.dumps(table)
again = json.loads(text)
words = re.findall(r'[a-z]+[0-9]*', text[: 40 * count])
counts = {}
for word in words:
    counts[word] = counts.get(word, 0) + 1
rows = sorted(again.values(), key=lambda row: (row['tags'], -row['id']))
parts = [' '.join(row['tags']) + row['name'] for row in rows]
del table
print(len(text), len(words), len(counts), rows[0]['id'], rows[-1]['id'], sum(map(len, parts)))
";

fn c(functions: usize) -> String {
    let mut text =
        String::from("#include <stdio.h>\n#include <string.h>\nstruct s { int a, b; char name[32]; double d; };\n");
    for number in 0..functions {
        text += &format!(
            "static int f{number}(struct s *s, int n, const char *t) {{
    int sum = {number}; double x = s->d;
    for (int i = 0; i < n; i++) {{
        switch ((i + sum) % 5) {{
        case 0: sum += s->a * {number} + i; break;
        case 1: sum ^= s->b << (i & 7); x *= 1.5; break;
        case 2: if (strlen(t) > (unsigned)i) sum -= t[i]; break;
        case 3: snprintf(s->name, sizeof s->name, \"%d %s\", sum, t); break;
        default: x += sum / (n + 1.0); s->a = sum;
        }}
    }}
    s->d = x;
    return sum + (int)x;
}}
"
        );
    }
    text += "int all(struct s *s, int n, const char *t) {\n    int sum = 0;\n";
    for number in 0..functions {
        text += &format!("    sum += f{number}(s, n + {number}, t);\n");
    }
    text + "    return sum;\n}\n"
}
