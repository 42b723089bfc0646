//! Making memory really there: nodes, commit, huge OS pages, prefault, lock, core dumps; and the program itself.
//!
//! Each wish of the configuration ends in one of three ways: granted, which [`Granted`] counts in bytes; refused and
//! only tried, which [`Shortfalls`] notes with the reason; refused and required, which is an error. `strict` makes all
//! of them required. Memory that is not there is asked for before it is touched: touching it would wake the
//! out-of-memory killer, which ends a process instead of returning an error.
#![allow(unsafe_code)]

use core::fmt;

use crate::config::{Commit, Numa, Values, Wish};
use crate::error::InitError;
use crate::os::{Nodes, Os, OsError, Range};

/// Bytes of stack that `process` makes present.
const STACK: usize = 1 << 20;
/// The out-of-memory score that `process` asks for. Not -1000: where nobody may be ended the kernel itself gives up.
const OOM_SCORE: i32 = -900;

/// What was asked for and not granted: one entry per thing, see the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortfalls {
    /// Locking.
    pub lock: Option<OsError>,
    /// Huge OS pages.
    pub huge_pages: Option<OsError>,
    /// The memory nodes.
    pub numa: Option<OsError>,
    /// Keeping the segment out of core files.
    pub dump: Option<OsError>,
    /// Locking the program itself.
    pub program: Option<OsError>,
    /// The stack that is present.
    pub stack: Option<OsError>,
    /// The out-of-memory score.
    pub oom_score: Option<OsError>,
}

impl Shortfalls {
    /// All of them, each by the name of its setting or of the part of `process` that it is.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, OsError)> {
        [
            ("lock", self.lock),
            ("huge_pages", self.huge_pages),
            ("numa", self.numa),
            ("dump", self.dump),
            ("process: locking the program", self.program),
            ("process: the stack", self.stack),
            ("process: the out-of-memory score", self.oom_score),
        ]
        .into_iter()
        .filter_map(|(name, error)| Some((name, error?)))
    }

    /// Whether all was granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.each().next().is_none()
    }
}

/// What was granted, in bytes, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Granted {
    /// Made present at init.
    pub present: usize,
    /// Locked.
    pub locked: usize,
    /// In huge OS pages.
    pub huge: usize,
    /// Of the program itself, locked.
    pub program: usize,
    /// Bytes of the huge OS pages that were set aside and are used; 0 for none.
    pub huge_page: usize,
    /// What was refused.
    pub short: Shortfalls,
}

/// A wish that was refused: an error where it is required, a note where it was tried.
fn refused(
    required: bool,
    what: &'static str,
    bytes: usize,
    error: OsError,
    note: &mut Option<OsError>,
) -> Result<(), InitError> {
    *note = Some(error);
    if required { Err(InitError::Os { what, bytes, error }) } else { Ok(()) }
}

/// Makes `ranges` usable as `values` say: always committed; on their nodes; prefaulted when eager; huge and locked where
/// possible.
///
/// # Errors
/// What the OS refused, if it is needed: memory always, other things when they are required.
///
/// # Safety
/// The ranges lie in a reservation of `os`, and nobody uses them yet.
pub unsafe fn make_real(
    os: &dyn Os,
    ranges: &[Range],
    values: &Values,
    granted: &mut Granted,
) -> Result<(), InitError> {
    let bytes = ranges.iter().map(|range| range.bytes).sum();
    if values.commit == Commit::Eager {
        require_memory(os, bytes)?;
    }
    let mut huge = None;
    // SAFETY: contract; committed by the first loop.
    unsafe {
        for &range in ranges {
            huge = prepare(os, range, values, granted)?.or(huge);
        }
        // Before the memory is there, since that is one pass over it less, and a refusal comes sooner.
        lock(os, ranges, bytes, values, granted)?;
        for &range in ranges {
            huge = populate(os, range, values, granted, huge)?.or(huge);
        }
    }
    if let Some(error) = huge {
        let required = values.strict || values.huge_pages == Wish::Required;
        refused(required, "back memory with huge OS pages", bytes, error, &mut granted.short.huge_pages)?;
    }
    Ok(())
}

/// What a system must have so that `bytes` can be made present: also the page tables for it (8 bytes for each of 4 KiB), and what the kernel
/// takes from a memory cgroup ahead of need.
#[must_use]
pub const fn memory_for(bytes: usize) -> usize {
    const AHEAD: usize = 1 << 20;
    bytes.saturating_add(bytes / 512).saturating_add(AHEAD)
}

/// Whether `bytes` can be made present; an error that says what bounds it where they cannot. Without a margin the killer would decide.
fn require_memory(os: &dyn Os, bytes: usize) -> Result<(), InitError> {
    let need = memory_for(bytes);
    // A system that does not tell is believed to have it: touching it will show.
    match os.available() {
        Ok(room) if room.bytes < need => Err(InitError::Memory { need, available: room.bytes, bound: room.bound }),
        _ => Ok(()),
    }
}

/// Commits one range and says what it is to be like. What stands against huge OS pages, if anything does.
///
/// # Safety
/// As [`make_real`].
unsafe fn prepare(
    os: &dyn Os,
    range: Range,
    values: &Values,
    granted: &mut Granted,
) -> Result<Option<OsError>, InitError> {
    // SAFETY: for all calls: the range lies in a reservation, and nobody uses it (contract).
    unsafe {
        os.commit(range).map_err(|error| InitError::Os { what: "commit memory", bytes: range.bytes, error })?;
        place(os, range, values, granted)?;
        if !values.dump
            && let Err(error) = os.dont_dump(range)
        {
            refused(values.strict, "keep memory out of core files", range.bytes, error, &mut granted.short.dump)?;
        }
        // With lazy commit a touch would bring a huge OS page, and memory that nobody asked for.
        let wanted = values.huge_pages != Wish::Off && values.commit == Commit::Eager;
        Ok(if wanted { os.huge_pages_advise(range).err() } else { None })
    }
}

/// Prefaults one committed range, unless that is for later. What stood against huge OS pages, if anything did.
///
/// # Safety
/// As [`make_real`].
unsafe fn populate(
    os: &dyn Os,
    range: Range,
    values: &Values,
    granted: &mut Granted,
    known: Option<OsError>,
) -> Result<Option<OsError>, InitError> {
    if values.commit == Commit::Lazy {
        return Ok(None);
    }
    let failed = |error| InitError::Os { what: "prefault memory", bytes: range.bytes, error };
    // SAFETY: committed, and nobody uses it (contract).
    unsafe {
        os.prefault(range).map_err(failed)?;
        granted.present += range.bytes;
        let look = values.huge_pages != Wish::Off && known.is_none();
        Ok(if look { count_huge(os, range, values, granted).err() } else { None })
    }
}

/// Sets the nodes, before the range is touched.
///
/// # Safety
/// As [`make_real`].
unsafe fn place(os: &dyn Os, range: Range, values: &Values, granted: &mut Granted) -> Result<(), InitError> {
    let nodes = match values.numa {
        Numa::Off => return Ok(()),
        Numa::Local => Nodes::Local,
        Numa::Interleave => Nodes::All,
        Numa::Bind(nodes) => Nodes::These(nodes),
    };
    // SAFETY: contract.
    match unsafe { os.place(range, nodes) } {
        Ok(()) => Ok(()),
        Err(error) => {
            // Nodes none of which is there are a bad setting, not one that this machine does not grant.
            let absent = matches!(values.numa, Numa::Bind(_)) && error.errno == OsError::EINVAL;
            let required = values.strict || absent;
            refused(required, "place memory on its nodes", range.bytes, error, &mut granted.short.numa)
        }
    }
}

/// Looks how much of the range huge OS pages have become, and makes the rest where they are required.
///
/// # Safety
/// The range is present, and nobody uses it yet.
unsafe fn count_huge(os: &dyn Os, range: Range, values: &Values, granted: &mut Granted) -> Result<(), OsError> {
    let size = os.huge_page();
    let start = range.start.addr();
    // Both ends of the range may lie within a huge OS page.
    let whole = match size {
        0 => 0,
        _ => (start + range.bytes).saturating_sub(start.next_multiple_of(size)) / size * size,
    };
    // SAFETY: contract.
    unsafe {
        let mut got = os.huge_bytes(range)?;
        if got < whole && (values.strict || values.huge_pages == Wish::Required) {
            os.huge_pages_make(range)?;
            got = os.huge_bytes(range)?;
        }
        granted.huge += got;
        let none = size == 0 || got < whole;
        if none { Err(OsError { call: "huge pages", errno: OsError::SHORT }) } else { Ok(()) }
    }
}

/// Locks the ranges, all or none.
///
/// # Safety
/// The ranges are committed.
unsafe fn lock(
    os: &dyn Os,
    ranges: &[Range],
    bytes: usize,
    values: &Values,
    granted: &mut Granted,
) -> Result<(), InitError> {
    if values.lock == Wish::Off {
        return Ok(());
    }
    // SAFETY: committed (contract).
    let refused = ranges.iter().find_map(|&range| unsafe { os.lock(range) }.err());
    let Some(error) = refused else {
        granted.locked += bytes;
        return Ok(());
    };
    for &range in ranges {
        // Parts may be locked; without the rest they are worth nothing. If that fails they stay so.
        // SAFETY: as above.
        let _ = unsafe { os.unlock(range) };
    }
    granted.short.lock = Some(error);
    if values.strict || values.lock == Wish::Required {
        Err(lock_error(os, "lock memory", bytes, 0, error))
    } else {
        Ok(())
    }
}

/// The error of a lock of `need` bytes that was refused, of which `done` are locked.
fn lock_error(os: &dyn Os, what: &'static str, need: usize, done: usize, error: OsError) -> InitError {
    let (no_memory, none) = (error.errno == OsError::ENOMEM, error.errno == OsError::EPERM);
    match os.lock_limit() {
        // The limit was in the way only if what is locked and what was to be are more than it: ENOMEM has other reasons, too, with
        // other remedies.
        Ok(limit)
            if no_memory && limit.locked.saturating_add(need.saturating_sub(done)) > limit.soft
                || none && limit.soft == 0 =>
        {
            InitError::LockLimit { need, soft: limit.soft, hard: limit.hard }
        }
        _ => InitError::Os { what, bytes: need, error },
    }
}

/// Makes `range` usable in huge OS pages of `values.huge_page_size` bytes that the administrator has set aside.
///
/// # Errors
/// There are too few of them, with how many; or something that is required was refused.
///
/// # Safety
/// The range lies in a reservation of `os`, begins at a multiple of the huge OS page, and is a multiple of it.
pub unsafe fn make_huge(os: &dyn Os, range: Range, values: &Values, granted: &mut Granted) -> Result<(), InitError> {
    let size = values.huge_page_size.max(1);
    let failed = |error| InitError::Os { what: "back memory with huge OS pages", bytes: range.bytes, error };
    // SAFETY: contract.
    unsafe {
        let free = os.free_huge_pages(size);
        if let Err(error) = os.commit_huge(range, size) {
            let few = free < range.bytes / size;
            let pages = InitError::HugePages { need: range.bytes, size, free: free * size };
            granted.short.huge_pages = Some(error);
            return Err(if few { pages } else { failed(error) });
        }
        place(os, range, values, granted)?;
        os.prefault(range).map_err(failed).inspect_err(|error| {
            if let InitError::Os { error, .. } = error {
                granted.short.huge_pages = Some(*error);
            }
        })?;
        if !values.dump
            && let Err(error) = os.dont_dump(range)
        {
            refused(values.strict, "keep memory out of core files", range.bytes, error, &mut granted.short.dump)?;
        }
    }
    *granted = Granted {
        present: range.bytes,
        // The kernel never swaps them.
        locked: if values.lock == Wish::Off { 0 } else { range.bytes },
        huge: range.bytes,
        huge_page: size,
        ..*granted
    };
    Ok(())
}

/// Makes the program itself stay, where `process` asks for it.
///
/// # Errors
/// Locking was refused, and `lock` is `required`; or anything was, and `strict` is set.
pub fn make_program_real(os: &dyn Os, values: &Values, granted: &mut Granted) -> Result<(), InitError> {
    if !values.lock_process {
        return Ok(());
    }
    let short = &mut granted.short;
    if let Err(error) = os.prefault_stack(STACK) {
        refused(values.strict, "make the stack present", STACK, error, &mut short.stack)?;
    }
    let (locked, need, done) = os.lock_program();
    granted.program = locked;
    if let Err(error) = done {
        short.program = Some(error);
        // What `process` locks is part of what `lock` asks for.
        if values.strict || values.lock == Wish::Required {
            return Err(lock_error(os, "lock the program's text, libraries and stacks", need, locked, error));
        }
    }
    if let Err(error) = os.lower_oom_score(OOM_SCORE) {
        refused(values.strict, "lower the out-of-memory score to -900", 0, error, &mut short.oom_score)?;
    }
    Ok(())
}

/// A refusal with what can be done about it.
struct Advised(OsError);

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.hint() {
            "" => write!(f, "{}", self.0),
            hint => write!(f, "{}; {hint}", self.0),
        }
    }
}

/// What was asked for and what was got, and what can be done about the rest: a line per wish, as the pool's table prints
/// them. The lock limit is the one of now.
pub struct Report<'a>(pub &'a Values, pub &'a Granted, pub &'a dyn Os);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(values, granted, os) = self;
        let short = &granted.short;
        let wish = |wish| match wish {
            Wish::Off => "off",
            Wish::Try => "try",
            Wish::Required => "required",
        };
        type Show<'a> = &'a dyn fmt::Display;
        let mut show = |name: &str, asked: Show<'_>, got: fmt::Arguments<'_>, refused: Option<Show<'_>>| {
            write!(f, "  {name:<16} {asked}: {got}")?;
            match refused {
                Some(error) => writeln!(f, "; {error}"),
                None => writeln!(f),
            }
        };
        let commit = if values.commit == Commit::Eager { "eager" } else { "lazy" };
        show("commit", &commit, format_args!("{} bytes present at init", granted.present), None)?;
        // In the words of an error at init, which names need and limit.
        let unlocked = short.lock.map(|error| lock_error(*os, "lock memory", values.segment, 0, error));
        let unlocked = unlocked.as_ref().map(|error| error as Show<'_>);
        show("lock", &wish(values.lock), format_args!("{} bytes locked", granted.locked), unlocked)?;
        let mut line = |name: &str, asked: Show<'_>, got: fmt::Arguments<'_>, refused: Option<OsError>| {
            let refused = refused.map(Advised);
            show(name, asked, got, refused.as_ref().map(|error| error as Show<'_>))
        };
        let huge = format_args!("{} bytes in huge OS pages", granted.huge);
        // Without a shortfall all whole huge OS pages are there: then there is room for none.
        let wanted = values.huge_pages != Wish::Off && values.commit == Commit::Eager;
        let none = wanted && granted.huge == 0 && short.huge_pages.is_none();
        match none {
            true => {
                let room = format_args!("{huge}; the segment has no room for a whole one");
                line("huge pages", &wish(values.huge_pages), room, None)?;
            }
            false => line("huge pages", &wish(values.huge_pages), huge, short.huge_pages)?,
        }
        if values.numa != Numa::Off {
            let got = if short.numa.is_none() { "set" } else { "not set" };
            line("numa", &crate::config::Nodes(values.numa), format_args!("{got}"), short.numa)?;
        }
        if !values.dump {
            let got = if short.dump.is_none() { "not in core files" } else { "in core files" };
            line("dump", &"off", format_args!("{got}"), short.dump)?;
        }
        if values.lock_process {
            let program = format_args!("{} bytes of the program locked", granted.program);
            line("process", &"on", program, short.program)?;
            let stack = if short.stack.is_none() { "present" } else { "present in part" };
            line("stack", &"1 MiB", format_args!("{stack}"), short.stack)?;
            let score = if short.oom_score.is_none() { "granted" } else { "not granted" };
            line("score", &OOM_SCORE, format_args!("{score}"), short.oom_score)?;
        }
        Ok(())
    }
}
