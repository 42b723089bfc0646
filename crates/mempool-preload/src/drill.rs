//! The board of `mempool drill` and `mempool size`: shared memory behind a descriptor that the command leaves open, in
//! which the pool counts, and in which this file notes where requests come from.
//!
//! Where a request comes from is a list of return addresses, found by the C library from the unwind tables, so that
//! programs without frame pointers have one, too. Its first use loads a library and allocates; so it is used once before
//! any request is looked at. From then on it allocates only where a program has registered unwind tables of its own. A request that comes while its
//! thread looks at another is not looked at.
//!
//! *Limits:* requests from before this library's constructor are numbered and counted for, but not noted. A program that
//! closes all descriptors before it starts another leaves that one unwatched.

use core::ffi::{CStr, c_void};
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::Release};

use mempool::process::{self, board};
use mempool::{Text, config::Values};

/// Frames that are looked at.
const FRAMES: usize = 48;
/// Places that a survey tells apart.
const PLACES: usize = 1 << 15;
/// Threads that may look at requests at once; beyond that they are not looked at.
const BUSY: usize = 64;

/// The process's area of the board, null for none.
static AREA: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// Whether places of all requests are noted, not only of the first that is refused.
static SURVEY: AtomicBool = AtomicBool::new(false);
/// What the return addresses of known places come to; an open table, 0 for vacant.
static KNOWN: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];

/// Threads that look at a request just now, by the place of their errno; 0 for vacant.
static LOOKING: [AtomicUsize; BUSY] = [const { AtomicUsize::new(0) }; BUSY];

/// Word `at` of the area.
fn word(at: usize) -> Option<&'static AtomicU64> {
    let area = AREA.load(Relaxed);
    // SAFETY: null, or an area of `AREA` words that is never unmapped; `at` is one of its places.
    (!area.is_null() && at < board::AREA).then(|| unsafe { &*area.add(at) })
}

/// Watches the pool if the settings ask for it.
pub fn begin() {
    let Some(values) = process::values().filter(|values| is_drilled(values)) else { return };
    // The first use allocates. It does so in every drill, with a board or without, so that requests have the same numbers.
    // A refusal may keep the library from being loaded, but one of a kind not twice.
    let mut frames = [core::ptr::null_mut::<c_void>(); FRAMES];
    // SAFETY: room for so many.
    let _ = (0..2).any(|_| unsafe { libc::backtrace(frames.as_mut_ptr(), 2) } > 0);
    SURVEY.store(values.survey, Relaxed);
    if let Some(area) = process::witness(witness) {
        AREA.store(area.as_ptr().cast_mut(), Relaxed);
    }
}

fn is_drilled(values: &Values) -> bool {
    values.fail_nth | values.fail_every | values.fail_seed | values.board != 0 || values.fail_above != 0
}

/// Told of each request.
fn witness(number: u64, size: usize, refused: bool) {
    // SAFETY: no precondition; the place is this thread's alone while it lives.
    let thread = unsafe { libc::__errno_location() } as usize;
    if LOOKING.iter().any(|entry| entry.load(Relaxed) == thread) {
        return;
    }
    let vacant = |entry: &&AtomicUsize| entry.compare_exchange(0, thread, Relaxed, Relaxed).is_ok();
    if let Some(entry) = LOOKING.iter().find(vacant) {
        look(number, size, refused);
        entry.store(0, Relaxed);
    }
}

/// Notes a request if it is refused or to be noted.
fn look(number: u64, size: usize, refused: bool) {
    if refused {
        note_refusal(number, size);
    } else if SURVEY.load(Relaxed) {
        let mut frames = [core::ptr::null_mut::<c_void>(); FRAMES];
        if is_new(place_of(trace(&mut frames))) {
            log(number);
        }
    }
}

/// The return addresses of the calls that lead here.
fn trace(frames: &mut [*mut c_void; FRAMES]) -> &[*mut c_void] {
    // SAFETY: room for so many.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), FRAMES as i32) };
    frames.get(..usize::try_from(count).unwrap_or(0)).unwrap_or(&[])
}

/// A number for a list of return addresses, not 0.
fn place_of(frames: &[*mut c_void]) -> u64 {
    let step = |sum: u64, frame: &*mut c_void| (sum ^ *frame as u64).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
    frames.iter().fold(0xCBF2_9CE4_8422_2325, step) | 1
}

/// Whether a place was not known; then it is.
fn is_new(place: u64) -> bool {
    for probe in 0..64 {
        let Some(entry) = KNOWN.get((place as usize >> 8).wrapping_add(probe) % PLACES) else { return false };
        match entry.compare_exchange(0, place, Relaxed, Relaxed) {
            Ok(_) => return true,
            Err(known) if known == place => return false,
            Err(_) => {}
        }
    }
    // So crowded that it is better noted twice than not at all.
    true
}

fn log(number: u64) {
    let entry = word(board::LOGGED).map_or(board::LOG_MOST, |count| count.fetch_add(1, Relaxed) as usize);
    if entry < board::LOG_MOST
        && let Some(word) = word(board::LOG + entry)
    {
        word.store(number, Release);
    }
}

/// Notes the first refusal, with the frames that lead to it.
fn note_refusal(number: u64, size: usize) {
    let Some(first) = word(board::REFUSAL) else { return };
    if first.compare_exchange(0, number, Relaxed, Relaxed).is_err() {
        return;
    }
    let mut frames = [core::ptr::null_mut::<c_void>(); FRAMES];
    let mut text = Text::<{ board::TEXT_BYTES }>::new();
    let own = module_of(witness as *const c_void).map(|(_, base, _)| base);
    for &frame in trace(&mut frames) {
        // The call, not what follows it.
        let address = (frame as usize).wrapping_sub(1);
        let Some((path, base, symbol)) = module_of(address as *const c_void) else { continue };
        if Some(base) != own {
            // A list that is too long is cut at its end.
            let _ = writeln!(text, "{address:x}\t{base:x}\t{path}\t{symbol}");
        }
    }
    for (at, part) in text.as_bytes().chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        if let Some(word) = word(board::TEXT + at) {
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
    }
    if let Some(word) = word(board::REFUSAL + 1) {
        word.store(size as u64, Relaxed);
    }
    if let Some(word) = word(board::REFUSAL + 2) {
        word.store(text.as_bytes().len() as u64, Release);
    }
}

/// File, first address and nearest exported name of the module at `address`.
fn module_of(address: *const c_void) -> Option<(&'static str, usize, &'static str)> {
    // SAFETY: all zeros is a valid `Dl_info`.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: asks about an address; fills a live struct.
    if unsafe { libc::dladdr(address, &raw mut info) } == 0 {
        return None;
    }
    let text = |start: *const core::ffi::c_char| {
        if start.is_null() {
            return "";
        }
        // SAFETY: texts of the dynamic loader's, which live while the object is loaded.
        unsafe { CStr::from_ptr(start) }.to_str().unwrap_or("")
    };
    Some((text(info.dli_fname), info.dli_fbase as usize, text(info.dli_sname)))
}
