//! What would outlive the command: processes that it started, folders, cgroups, settings of the system. A signal that ends the command ends them first.
//!
//! ```text
//!   by_signal   SIGINT, SIGQUIT, SIGTERM and SIGHUP go to a thread that waits for them; it ends all that is kept, and then the command by that signal
//!   spawn       starts a child, with the signals that the command was started with, and keeps it
//!   keep        makes something and keeps it, in one step as that thread sees it
//!   drop        somebody else has seen to its end
//! ```
//!
//! *Limits:* SIGKILL leaves folders, cgroups and settings behind. A signal that the command was started with ignored stays so.
#![allow(unsafe_code)]

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Something that does not end by itself when the command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A child process, not yet waited for.
    Process(u32),
    /// A child process that leads a group, and the group.
    Group(u32),
    /// A folder and what is in it.
    Folder(PathBuf),
    /// A cgroup, with processes that were started for it.
    Cgroup(PathBuf),
    /// A setting of the system that is to be this again.
    Text(PathBuf, String),
}

/// Everything kept, in the order in which it was made.
static ALL: Mutex<Vec<Thing>> = Mutex::new(Vec::new());

/// The signals that had to wait before [`by_signal`].
static BEFORE: OnceLock<libc::sigset_t> = OnceLock::new();

/// Keeps something while it lives.
#[derive(Debug)]
pub struct Kept(Thing);

impl Drop for Kept {
    fn drop(&mut self) {
        all().retain(|thing| *thing != self.0);
    }
}

fn all() -> MutexGuard<'static, Vec<Thing>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes what is `thing` then, and keeps it. Never returns when a signal has come before.
pub fn keep<T, E>(make: impl FnOnce() -> Result<T, E>, thing: impl FnOnce(&T) -> Thing) -> Result<(T, Kept), E> {
    let mut all = all();
    let made = make()?;
    let thing = thing(&made);
    all.push(thing.clone());
    Ok((made, Kept(thing)))
}

/// Starts a child, which is `thing` by its number, and keeps it. It ends with the calling thread, and has its signals as the command had them.
pub fn spawn(command: &mut Command, thing: impl FnOnce(u32) -> Thing) -> std::io::Result<(Child, Kept)> {
    // SAFETY: between fork and exec only system calls, and a look at what was set before.
    unsafe {
        command.pre_exec(|| {
            if let Some(before) = BEFORE.get() {
                libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut());
            }
            // Whoever is killed leaves nobody behind who wants the child's work.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    keep(|| command.spawn(), |child| thing(child.id()))
}

/// From now on a signal ends what is kept before it ends the command. To be called while there is one thread, whose mask others inherit;
/// what is started by [`spawn`] does not.
pub fn by_signal() {
    // SAFETY: zeroes are a value of each structure; all calls fill or read live ones.
    let waited = unsafe {
        let (mut waited, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigemptyset(&raw mut waited);
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP] {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if action.sa_sigaction != libc::SIG_IGN {
                libc::sigaddset(&raw mut waited, signal);
            }
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const waited, &raw mut before);
        BEFORE.get_or_init(|| before);
        waited
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both live through the call.
        while unsafe { libc::sigwait(&raw const waited, &raw mut signal) } != 0 {}
        end(signal);
    };
    if std::thread::Builder::new().spawn(wait).is_err() {
        // Without the thread the command ends at once, as it would have.
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const waited, std::ptr::null_mut()) };
    }
}

/// Ends all that is kept, and the command by `signal`.
fn end(signal: libc::c_int) -> ! {
    // Never unlocked again: nothing more is made.
    let all = all();
    // Processes first, so that nobody writes to a folder any more.
    all.iter().filter(|thing| matches!(thing, Thing::Process(_) | Thing::Group(_))).for_each(undo);
    all.iter().filter(|thing| !matches!(thing, Thing::Process(_) | Thing::Group(_))).for_each(undo);
    // SAFETY: the signal's action is the default one, which ends the process; zeroes are a value of the set.
    unsafe {
        let mut only: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut());
        libc::raise(signal);
    }
    std::process::exit(128 + signal)
}

fn undo(thing: &Thing) {
    match thing {
        Thing::Process(id) => kill(id.cast_signed()),
        Thing::Group(id) => kill(-id.cast_signed()),
        Thing::Folder(path) => remove(|| std::fs::remove_dir_all(path)),
        Thing::Cgroup(path) => remove_cgroup(path),
        Thing::Text(path, text) => _ = std::fs::write(path, text),
    }
}

fn kill(id: libc::pid_t) {
    // SAFETY: plain numbers. Who is kept is not waited for, so that the number is its own but for a moment at its end.
    unsafe { libc::kill(id, libc::SIGKILL) };
}

/// Ends a cgroup's processes and removes it.
pub fn remove_cgroup(path: &Path) {
    remove(|| {
        let processes = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        // 0 stands for one that cannot be seen from here.
        processes.lines().filter_map(|id| id.parse().ok()).filter(|id| *id > 0).for_each(kill);
        std::fs::remove_dir(path)
    });
}

/// Tries again for a while: what has just been killed may still be counted, or write its last, and giving back its memory takes time on a busy machine.
fn remove(attempt: impl Fn() -> std::io::Result<()>) {
    for _ in 0..1000 {
        match attempt() {
            Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_kept_from_its_making_to_its_end() {
        let folder = std::env::temp_dir().join(format!("mempool-kept-{}", std::process::id()));
        let thing = Thing::Folder(folder.clone());
        let (_, kept) = keep(|| std::fs::create_dir(&folder), |()| thing.clone()).unwrap();
        assert!(all().contains(&thing));
        assert!(keep(|| std::fs::create_dir(&folder), |()| Thing::Process(0)).is_err(), "what is not made is not kept");
        assert!(!all().contains(&Thing::Process(0)));
        drop(kept);
        assert!(!all().contains(&thing) && folder.exists());
        std::fs::write(folder.join("file"), "text").unwrap();
        undo(&thing);
        assert!(!folder.exists());
    }
}
