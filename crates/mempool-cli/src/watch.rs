//! Runs a program again and again on pools of given settings, and reads the board on which they count.
//!
//! Each run gets the same input, no output, no random addresses, and a process group of its own, which is killed when the
//! run takes too long. What the program last said to standard error is kept for messages.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::time::{Duration, Instant};

use mempool::process::board;

use crate::failure::Failure;
use crate::library::{self, PRELOAD};
use crate::program;

/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(2);
/// After so long a progress line appears.
const QUIET: Duration = Duration::from_secs(1);
/// Bytes of what a program said that are kept.
const SAID: i64 = 2000;

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
    /// The most threads that were seen in it.
    pub threads: usize,
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
        let mut said = memory_file(c"mempool-said").map_err(failed)?;
        let mut command = self.command(settings, on, &said).map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        let process = child.id();
        let (status, threads) = self.wait(&mut child, progress).map_err(failed)?;
        let end = match (status, status.and_then(|status| status.code())) {
            (None, _) => End::Hung,
            (Some(_), Some(code)) => End::Code(code),
            (Some(status), None) => End::Signal(status.signal().unwrap_or(0)),
        };
        Ok(Run { end, process, threads, said: tail(&mut said) })
    }

    fn command(&self, settings: &[(&str, String)], on: Option<&Board>, said: &File) -> std::io::Result<Command> {
        let mut command = Command::new(&self.path);
        command.arg0(&self.subject.program).args(&self.subject.arguments).process_group(0);
        command.env(PRELOAD, library::joined(&self.library, std::env::var_os(PRELOAD)));
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        let input = match &self.subject.input {
            Some(path) => File::open(path)?.into(),
            None => Stdio::null(),
        };
        command.stdin(input).stdout(Stdio::null()).stderr(said.try_clone()?);
        if let Some(board) = on {
            command.env("MEMPOOL_BOARD", board.file.as_raw_fd().to_string());
        }
        // SAFETY: between fork and exec only system calls.
        unsafe {
            command.pre_exec(|| {
                // Both are courtesies: without them places may be told apart that are one, and a killed command may
                // leave a program behind.
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Ok(command)
    }

    /// Waits for the end; None when the time was up. The most threads seen.
    fn wait(&self, child: &mut Child, progress: &str) -> std::io::Result<(Option<ExitStatus>, usize)> {
        let (begin, mut threads, mut shown) = (Instant::now(), 1, false);
        let is_terminal = std::io::stderr().is_terminal();
        let tasks = format!("/proc/{}/task", child.id());
        let result = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            threads = threads.max(std::fs::read_dir(&tasks).map_or(0, Iterator::count));
            if begin.elapsed() > self.subject.timeout {
                // SAFETY: the child is not waited for yet, so its group's number is still its own.
                unsafe { libc::kill(-child.id().cast_signed(), libc::SIGKILL) };
                child.wait()?;
                break None;
            }
            if is_terminal && begin.elapsed() > QUIET {
                shown = true;
                eprint!("\r{progress}, {} s\x1b[K", begin.elapsed().as_secs());
            }
            std::thread::sleep(TICK);
        };
        if shown {
            eprint!("\r\x1b[K");
        }
        Ok((result, threads))
    }
}

/// The end of what is in `file`.
fn tail(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let length = file.metadata().map_or(0, |about| about.len().cast_signed());
    // What it said is only a part of the message.
    let _ = file.seek(SeekFrom::Start((length - SAID).max(0).cast_unsigned()));
    let _ = file.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
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
        let file = memory_file(c"mempool-board").map_err(failed)?;
        let bytes = board::WORDS * size_of::<AtomicU64>();
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

    /// What each process counted, in the order in which they started.
    pub fn areas(&self) -> impl Iterator<Item = Area<'_>> {
        // SAFETY: mapped for so many words until `drop`.
        let words = unsafe { std::slice::from_raw_parts(self.words, board::WORDS) };
        let claimed = words.first().map_or(0, |count| count.load(Acquire) as usize).min(board::AREAS);
        words.get(1..).unwrap_or(&[]).chunks_exact(board::AREA).take(claimed).map(Area)
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
