//! Runs a program again and again on pools of given settings, and reads the board on which they count.
//!
//! Each run gets the same input, no output, no random addresses, and a process group of its own, which is killed when the
//! program has ended or takes too long. What the program last said to standard error is kept for messages.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::time::{Duration, Instant};

use mempool::bytes::Bytes;
use mempool::process::board;

use crate::failure::Failure;
use crate::group::Group;
use crate::library::{self, PRELOAD};
use crate::program;
use crate::say::Progress;

/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(2);
/// Bytes of what a program said that are kept.
const SAID: usize = 2000;
/// Bytes that a pipe holds.
const PIPE: usize = 64 << 10;

/// What to run.
pub struct Subject {
    /// The program's name or path.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it reads; nothing without.
    pub input: Option<PathBuf>,
    /// The longest that a run may take.
    pub timeout: Duration,
}

/// A subject that can be run.
pub struct Runner<'a> {
    subject: &'a Subject,
    path: PathBuf,
    library: PathBuf,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It was killed because it took too long.
    Hung,
}

/// What became of a run.
pub struct Run {
    /// How it ended.
    pub end: End,
    /// Its process number.
    pub process: u32,
    /// The end of what it said to standard error.
    pub said: String,
}

impl Run {
    /// What it said at the end, as the end of a sentence about it.
    pub fn last_words(&self) -> String {
        if self.said.is_empty() { String::new() } else { format!(": {}", self.said) }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Code(code) => write!(f, "exit code {code}"),
            End::Signal(signal) => write!(f, "{}", signal_name(*signal)),
            End::Hung => write!(f, "no end"),
        }
    }
}

/// What a signal is called.
pub fn signal_name(signal: i32) -> String {
    let known = [
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGTRAP, "SIGTRAP"),
    ];
    let found = known.iter().find(|(number, _)| *number == signal);
    found.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

impl<'a> Runner<'a> {
    /// Finds the program and the library, and checks that the one can run on the other.
    pub fn new(subject: &'a Subject) -> Result<Self, Failure> {
        let library = library::find()?;
        let path = program::find(&subject.program)?;
        program::check(&path)?;
        Ok(Self { subject, path, library })
    }

    /// Runs the program with `settings` (variables and values), on `board` if there is one. `progress` is shown on a
    /// terminal while it takes long.
    pub fn run(&self, settings: &[(&str, String)], on: Option<&Board>, progress: &str) -> Result<Run, Failure> {
        let failed = |error| Failure::own(format_args!("cannot run {}: {error}", self.subject.program.display()));
        let (pipe, end) = std::io::pipe().map_err(failed)?;
        let mut command = self.command(settings, on)?;
        command.stderr(end);
        let mut group = Group::spawn(&mut command).map_err(failed)?;
        // With it goes our copy of the pipe's other end.
        drop(command);
        let mut said = Said { pipe: Some(pipe), kept: Vec::new() };
        let process = group.process();
        let in_time = self.wait(&group, &mut said, progress);
        let status = group.end().map_err(failed)?;
        let end = match status.code() {
            _ if !in_time => End::Hung,
            Some(code) => End::Code(code),
            None => End::Signal(status.signal().unwrap_or(0)),
        };
        Ok(Run { end, process, said: said.end() })
    }

    fn command(&self, settings: &[(&str, String)], on: Option<&Board>) -> Result<Command, Failure> {
        let mut command = Command::new(&self.path);
        command.arg0(&self.subject.program).args(&self.subject.arguments);
        command.env(PRELOAD, library::joined(&self.library, std::env::var_os(PRELOAD)));
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        let input = match &self.subject.input {
            Some(path) => File::open(path).map(Stdio::from).map_err(|error| {
                Failure::own(format_args!("cannot read the input {}: {error}", path.display()))
                    .fix("pass a file that can be read to --input, or leave it out")
            })?,
            None => Stdio::null(),
        };
        command.stdin(input).stdout(Stdio::null());
        if let Some(board) = on {
            command.env("MEMPOOL_BOARD", board.file.as_raw_fd().to_string());
        }
        // SAFETY: between fork and exec only system calls.
        unsafe {
            command.pre_exec(|| {
                // A courtesy: without it places may be told apart that are one.
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                Ok(())
            });
        }
        Ok(command)
    }

    /// Waits for the end; whether it came in time.
    fn wait(&self, group: &Group, said: &mut Said, progress: &str) -> bool {
        let (begin, mut looked) = (Instant::now(), None::<Instant>);
        let mut line = Progress::new();
        while !group.has_ended() {
            if begin.elapsed() > self.subject.timeout {
                return false;
            }
            // What a program says may end the pause.
            if looked.is_none_or(|looked| looked.elapsed() >= TICK) {
                looked = Some(Instant::now());
                line.show(progress);
            }
            said.listen(TICK);
        }
        true
    }
}

/// What a program says to standard error: read as it comes, of which the end is kept.
struct Said {
    /// None when nobody can say anything any more.
    pipe: Option<PipeReader>,
    /// The last [`SAID`] bytes at most.
    kept: Vec<u8>,
}

impl Said {
    /// Reads once what is said within `time`; whether there was something.
    fn listen(&mut self, time: Duration) -> bool {
        let Some(pipe) = &mut self.pipe else {
            std::thread::sleep(time);
            return false;
        };
        let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        if unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as libc::c_int) } <= 0 {
            return false;
        }
        let mut part = [0; PIPE];
        match pipe.read(&mut part) {
            Ok(bytes) if bytes > 0 => {
                let part = part.get(..bytes).unwrap_or(&part);
                self.kept.extend_from_slice(part.get(bytes.saturating_sub(SAID)..).unwrap_or(part));
                self.kept.drain(..self.kept.len().saturating_sub(SAID));
                true
            }
            _ => {
                self.pipe = None;
                false
            }
        }
    }

    /// The end of all that was said, when the program has ended. Who is out of reach may go on for ever, and is not waited for.
    fn end(mut self) -> String {
        let _ = (0..16).take_while(|_| self.listen(Duration::ZERO)).count();
        String::from_utf8_lossy(&self.kept).trim_end().to_owned()
    }
}

/// A file in memory, which programs that are started inherit only as what they are given.
fn memory_file(name: &std::ffi::CStr) -> std::io::Result<File> {
    // SAFETY: a text that ends in 0.
    let descriptor = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}

/// Bytes that a file may have.
fn file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: fills a live struct.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// Shared memory on which the processes of one run count.
pub struct Board {
    file: File,
    /// The mapping, `board::WORDS` words.
    words: *const AtomicU64,
}

/// What one process counted.
#[derive(Clone, Copy)]
pub struct Area<'a>(&'a [AtomicU64]);

impl Board {
    /// An empty one. Programs that are started inherit it.
    pub fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::own(format_args!("shared memory: {error}"));
        let bytes = board::WORDS * size_of::<AtomicU64>();
        // Beyond it a signal would end the command without a word.
        let limit = file_limit();
        if limit < bytes as u64 {
            let message = format!(
                "files may be no larger than {} here, and the shared memory in which the program counts takes {}",
                Bytes(limit as usize),
                Bytes(bytes)
            );
            return Err(Failure::own(message).fix("raise the limit: `ulimit -f unlimited`"));
        }
        let file = memory_file(c"mempool-board").map_err(failed)?;
        file.set_len(bytes as u64).map_err(failed)?;
        // Inherited on purpose.
        // SAFETY: changes a flag of our own descriptor.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
        // SAFETY: a new mapping.
        let words =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if words == libc::MAP_FAILED {
            return Err(failed(std::io::Error::last_os_error()));
        }
        Ok(Self { file, words: words.cast::<AtomicU64>().cast_const() })
    }

    /// Pools of processes that came when all areas were claimed, and counted nothing.
    pub fn unseen(&self) -> usize {
        self.claims().saturating_sub(board::AREAS)
    }

    fn claims(&self) -> usize {
        self.all().first().map_or(0, |count| count.load(Acquire) as usize)
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: mapped for so many words until `drop`.
        unsafe { std::slice::from_raw_parts(self.words, board::WORDS) }
    }

    /// What each process counted, in the order in which they started.
    pub fn areas(&self) -> impl Iterator<Item = Area<'_>> {
        let areas = self.all().get(1..).unwrap_or(&[]).chunks_exact(board::AREA);
        areas.take(self.claims()).map(Area)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let bytes = board::WORDS * size_of::<AtomicU64>();
        // SAFETY: our own mapping, which nobody borrows any more.
        unsafe { libc::munmap(self.words.cast_mut().cast(), bytes) };
    }
}

impl Area<'_> {
    /// A word.
    pub fn get(&self, at: usize) -> u64 {
        self.0.get(at).map_or(0, |word| word.load(Acquire))
    }

    /// Most objects and most bytes of a holder.
    pub fn most(&self, holder: usize) -> (u64, u64) {
        let first = board::HOLDERS + 4 * holder;
        (self.get(first + 1), self.get(first + 3))
    }

    /// `bytes` bytes from a word on.
    pub fn text(&self, at: usize, bytes: usize) -> String {
        let all: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|k| self.get(at + k).to_le_bytes()).collect();
        let text = all.get(..bytes).unwrap_or(&all);
        String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()
    }

    /// Name and bytes of the largest object of the cache of a holder, [`board::CACHES`] or one of [`board::NAMED`].
    pub fn cache(&self, holder: usize) -> (String, u64) {
        let entry = holder.checked_sub(board::NAMED).unwrap_or(board::NAMED_MOST);
        let at = board::NAMES + board::NAMES_STRIDE * entry;
        (self.text(at, board::NAME_BYTES), self.get(at + board::NAME_BYTES / 8))
    }

    /// The program's name.
    pub fn name(&self) -> String {
        self.text(board::NAME, 24)
    }
}
