//! One child process: started, watched while it runs, and waited for with what the kernel says that it used.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ending::{self, Kept, Thing};

/// Between two looks at a child's memory: rare enough to cost nothing.
const SAMPLE: Duration = Duration::from_millis(20);

/// Bytes that are kept of the begin of what a child says to standard error, and of the end: what lies between tells nothing, and may be endless.
const SAID: u64 = 16 << 10;

/// How a child ended and what it used.
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// From start to end.
    pub wall_seconds: f64,
    /// Of the child and its children, user and system.
    pub cpu_seconds: f64,
    /// The most memory that one of its processes had resident.
    pub peak_bytes: u64,
    /// Page faults without input or output.
    pub minor_faults: i64,
    /// Page faults with.
    pub major_faults: i64,
    /// Resident memory over time: seconds, bytes.
    pub memory: Vec<(f64, u64)>,
    /// The line of standard error that says most, see [`telling`].
    pub said: String,
    /// Whether it was ended because it ran too long.
    pub late: bool,
}

/// A child that runs.
pub struct Running {
    child: Child,
    /// Until it is waited for.
    kept: Kept,
    begin: Instant,
    watcher: JoinHandle<Vec<(f64, u64)>>,
    over: Arc<AtomicBool>,
    late: Arc<AtomicBool>,
    stderr: File,
}

/// A file in memory, which a child process can inherit.
pub fn scratch() -> io::Result<File> {
    // SAFETY: the name ends in zero.
    let number = unsafe { libc::memfd_create(c"mempool-bench".as_ptr(), 0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is that of a file just opened, which nobody else closes.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// All that was written to a scratch file.
pub fn contents(mut file: File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Starts `command`, without input; it is ended when it runs longer than `limit`.
pub fn start(command: &mut Command, limit: Duration) -> io::Result<Running> {
    let stderr = scratch()?;
    let said = stderr.try_clone()?;
    // A group of its own, so that what it starts ends with it.
    command.stdin(Stdio::null()).stderr(stderr.try_clone()?).process_group(0);
    let begin = Instant::now();
    let (child, kept) = ending::spawn(command, Thing::Group)?;
    let (over, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (id, over, late) = (child.id(), over.clone(), late.clone());
        std::thread::spawn(move || watch(id, begin, limit, &over, &late, &said))
    };
    Ok(Running { child, kept, begin, watcher, over, late, stderr })
}

/// Samples the memory of the process until it is over, and keeps what it says short.
fn watch(
    id: u32,
    begin: Instant,
    limit: Duration,
    over: &AtomicBool,
    late: &AtomicBool,
    said: &File,
) -> Vec<(f64, u64)> {
    // SAFETY: asks for a constant of the system.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let path = format!("/proc/{id}/statm");
    let mut samples = Vec::new();
    while !over.load(Relaxed) {
        let resident = || std::fs::read_to_string(&path).ok()?.split(' ').nth(1)?.parse::<u64>().ok();
        if let Some(pages) = resident().filter(|pages| *pages > 0) {
            samples.push((begin.elapsed().as_secs_f64(), pages * page));
        }
        if begin.elapsed() > limit && !late.swap(true, Relaxed) {
            // SAFETY: the child is not waited for yet, so the number is still its own group's.
            unsafe { libc::kill(-id.cast_signed(), libc::SIGKILL) };
        }
        shorten(said);
        std::thread::park_timeout(SAMPLE);
    }
    samples
}

/// Gives back the memory of what lies between begin and end.
fn shorten(said: &File) {
    let bytes = said.metadata().map_or(0, |about| about.len());
    if bytes > 4 * SAID {
        let (mode, from) = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, SAID.cast_signed());
        // SAFETY: the number is that of an open file, whose middle nobody reads.
        unsafe { libc::fallocate(said.as_raw_fd(), mode, from, (bytes - 2 * SAID).cast_signed()) };
    }
}

/// Begin and end of what was said, on lines of their own.
fn ends(mut said: File) -> io::Result<String> {
    let all = said.metadata()?.len();
    let mut bytes = Vec::new();
    said.rewind()?;
    (&mut said).take(SAID).read_to_end(&mut bytes)?;
    if all > SAID {
        bytes.push(b'\n');
        said.seek(SeekFrom::Start(SAID.max(all - SAID)))?;
        said.take(SAID).read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Running {
    /// Waits for its end.
    pub fn wait(self) -> io::Result<Ended> {
        let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
        let waited = loop {
            // SAFETY: both live through the call, which fills them; the child was not waited for before.
            let waited = unsafe { libc::wait4(self.child.id() as libc::pid_t, &raw mut status, 0, usage.as_mut_ptr()) };
            let error = io::Error::last_os_error();
            if waited >= 0 || error.kind() != io::ErrorKind::Interrupted {
                break if waited >= 0 { Ok(()) } else { Err(error) };
            }
        };
        let wall_seconds = self.begin.elapsed().as_secs_f64();
        drop(self.kept);
        self.over.store(true, Relaxed);
        self.watcher.thread().unpark();
        let memory = self.watcher.join().unwrap_or_default();
        waited?;
        // SAFETY: filled by the call; zeroes are a value of it anyway.
        let usage = unsafe { usage.assume_init() };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
        let said = telling(&ends(self.stderr)?).to_owned();
        let sampled = memory.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        Ok(Ended {
            status: ExitStatus::from_raw(status),
            wall_seconds,
            cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            peak_bytes: sampled.max(usage.ru_maxrss.unsigned_abs() * 1024),
            minor_faults: usage.ru_minflt,
            major_faults: usage.ru_majflt,
            memory,
            said,
            late: self.late.load(Relaxed),
        })
    }
}

/// The line that an allocator of ours wrote, since it knows why; the first one otherwise. Of several threads that are refused at once
/// one writes the verdict, and another may end the process with a line of its own first.
fn telling(stderr: &str) -> &str {
    let mut lines = stderr.lines().filter(|line| !line.is_empty());
    lines.clone().find(|line| line.starts_with("mempool:")).or_else(|| lines.next()).unwrap_or_default()
}

impl Ended {
    /// What went wrong, None if nothing did.
    pub fn failure(&self) -> Option<String> {
        let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
        match (self.late, self.status.signal(), self.status.code()) {
            (true, ..) => Some(format!("ended after {:.0} s without a result{said}", self.wall_seconds)),
            (_, Some(signal), _) => Some(format!("killed by {}{said}", signal_name(signal))),
            (_, _, Some(0)) => None,
            (_, _, code) => Some(format!("exit code {}{said}", code.unwrap_or(-1))),
        }
    }
}

/// A signal's name as people know it.
pub fn signal_name(signal: i32) -> String {
    // SAFETY: the function takes any number; the string it returns is constant.
    let text = unsafe { std::ffi::CStr::from_ptr(libc::strsignal(signal)) };
    let known = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGTERM => "SIGTERM",
        _ => return format!("signal {signal} ({})", text.to_string_lossy()),
    };
    known.into()
}

/// The argument that names an inherited file.
pub fn number(file: &File) -> String {
    file.as_raw_fd().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(script: &str, limit: Duration) -> Ended {
        start(Command::new("sh").args(["-c", script]).stdout(Stdio::null()), limit).unwrap().wait().unwrap()
    }

    #[test]
    fn endings_are_told_apart() {
        let second = Duration::from_secs(10);
        assert_eq!(end("true", second).failure(), None);
        assert_eq!(end("echo why >&2; echo more >&2; exit 3", second).failure().unwrap(), "exit code 3: why");
        let refused = end("echo refused >&2; echo 'mempool: exhausted' >&2; exit 3", second);
        assert_eq!(refused.failure().unwrap(), "exit code 3: mempool: exhausted");
        assert_eq!(end("kill -SEGV $$", second).failure().unwrap(), "killed by SIGSEGV");
        let late = end("sleep 60", Duration::from_millis(50));
        assert!(late.late && late.failure().unwrap().starts_with("ended after"), "{:?}", late.failure());
    }

    #[test]
    fn of_much_that_is_said_begin_and_end_are_kept() {
        let folder = std::env::temp_dir().join(format!("mempool-said-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        // Behind what there is too much of it waits to be looked at.
        let script = "echo first >&2; head -c 300M /dev/zero >&2; echo >&2; until [ -e \"$0\" ]; do sleep 0.02; done; echo \"$1\" >&2; exit 3";
        for (last, said) in [("mempool: exhausted", "mempool: exhausted"), ("more", "first")] {
            let looked = folder.join(said);
            let mut command = Command::new("sh");
            command.args(["-c", script]).arg(&looked).arg(last);
            let running = start(&mut command, Duration::from_secs(120)).unwrap();
            let stderr = running.stderr.try_clone().unwrap();
            let held = || std::os::unix::fs::MetadataExt::blocks(&stderr.metadata().unwrap()) * 512;
            // It is given back while the child lives, whenever the watcher comes to it.
            let begin = Instant::now();
            while stderr.metadata().unwrap().len() < 300 << 20 || held() > 1 << 20 {
                assert!(begin.elapsed() < Duration::from_secs(60), "{} bytes of memory", held());
                std::thread::sleep(Duration::from_millis(5));
            }
            File::create(looked).unwrap();
            assert_eq!(running.wait().unwrap().failure().unwrap(), format!("exit code 3: {said}"));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn time_memory_and_faults_are_the_childs() {
        let ended = end("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 2", Duration::from_secs(60));
        assert!(ended.wall_seconds > ended.cpu_seconds && ended.cpu_seconds > 0.0);
        // A hundred looks at it are due.
        assert!(ended.minor_faults > 0 && ended.memory.len() > 2);
    }
}
