//! Rust programs that panic: the message, the payload and the exception are made by `malloc`, and a program that gets none ends there.
//!
//! The functions that make them are part of the program and not exported, but its symbol table names them, and where it was
//! `strip`ped they are found by whom they call (stripped.rs). So where there is a reserve, the program's file is read once, at the start. A
//! request that would be refused then looks who calls: with one of these functions among the callers it may use the reserve.
//!
//! *Limits:* the program's own; libraries written in Rust that it loads have others. Functions that a compiler has inlined
//! into their callers are not found (the standard library keeps these apart).

mod stripped;

use core::ffi::c_void;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mempool::process;

/// Parts of the names of the functions below which a panic's memory is asked for, whichever way names are mangled.
const NAMES: [&[u8]; 3] = [b"panic_with_hook", b"panic_without_hook", b"__rust_start_panic"];
/// Functions that are remembered.
const MOST: usize = 8;
/// Frames that are looked at.
const FRAMES: usize = 64;

/// First address of each, and the one behind its end.
static FUNCTIONS: [[AtomicUsize; 2]; MOST] = [const { [const { AtomicUsize::new(0) }; 2] }; MOST];
/// How many.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Whether the program is one that panics as Rust's do, and there is a reserve.
#[inline]
pub fn is_known() -> bool {
    COUNT.load(Relaxed) > 0
}

/// Whether the calling thread is about to panic. Asks the C library for the callers, which neither allocates nor waits: its
/// first call did.
#[cold]
pub fn is_on_the_stack() -> bool {
    let mut frames = [core::ptr::null_mut::<c_void>(); FRAMES];
    // SAFETY: room for so many.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), FRAMES as i32) };
    let frames = frames.get(..usize::try_from(count).unwrap_or(0)).unwrap_or(&[]);
    frames.iter().any(|&frame| {
        // The call, not what follows it.
        let address = (frame as usize).wrapping_sub(1);
        FUNCTIONS.iter().any(|[start, end]| (start.load(Relaxed)..end.load(Relaxed)).contains(&address))
    })
}

/// Looks for the functions if there is a reserve.
pub fn find() {
    if process::values().is_none_or(|values| values.reserve == 0) {
        return;
    }
    // SAFETY: opens a file for reading.
    let file = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return;
    }
    // SAFETY: all zeros is a valid `stat`; fills a live struct.
    let bytes = unsafe {
        let mut stat: libc::stat = core::mem::zeroed();
        if libc::fstat(file, &raw mut stat) == 0 { usize::try_from(stat.st_size).unwrap_or(0) } else { 0 }
    };
    // SAFETY: a new mapping, or an error.
    let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_PRIVATE, file, 0) };
    // SAFETY: our own descriptor.
    unsafe { libc::close(file) };
    if start == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the file that the kernel runs cannot be written to, so the bytes stay as they are until they are unmapped.
    let image = Image(unsafe { core::slice::from_raw_parts(start.cast::<u8>(), bytes) });
    let _ = image.note_named();
    if !is_known() {
        let _ = image.note_callers();
    }
    // SAFETY: the mapping made above.
    unsafe { libc::munmap(start, bytes) };
    if is_known() {
        let mut frames = [core::ptr::null_mut::<c_void>(); FRAMES];
        // The first use loads a library and allocates.
        // SAFETY: room for so many.
        unsafe { libc::backtrace(frames.as_mut_ptr(), 2) };
    }
}

/// An ELF file of 64 bits in this machine's byte order.
struct Image<'a>(&'a [u8]);

impl Image<'_> {
    fn number<const N: usize>(&self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..at.checked_add(N)?)?;
        let mut word = [0_u8; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(u64::from_le_bytes(word) as usize)
    }

    /// Notes the functions of the symbol table. None when something is missing, or is not as it should be.
    fn note_named(&self) -> Option<()> {
        let bias = self.bias()?;
        let (table, entry, count) = (self.number::<8>(0x28)?, self.number::<2>(0x3a)?, self.number::<2>(0x3c)?);
        let section = |k: usize| table.checked_add(k.checked_mul(entry)?);
        for k in 0..count {
            let at = section(k)?;
            if self.number::<4>(at.checked_add(4)?)? != SHT_SYMTAB {
                continue;
            }
            let (start, bytes) = (self.number::<8>(at + 0x18)?, self.number::<8>(at + 0x20)?);
            let names = self.number::<8>(section(self.number::<4>(at + 0x28)?)? + 0x18)?;
            // What a table says of itself need not be true: the kernel does not look at it.
            for symbol in (start..start.checked_add(bytes)?.min(self.0.len())).step_by(SYMBOL) {
                self.note_symbol(symbol, names, bias);
            }
        }
        Some(())
    }

    fn note_symbol(&self, at: usize, names: usize, bias: usize) -> Option<()> {
        let is_function = self.number::<1>(at + 4)? & 0xf == STT_FUNC;
        let (name, value, size) = (self.number::<4>(at)?, self.number::<8>(at + 8)?, self.number::<8>(at + 0x10)?);
        if !is_function || size == 0 {
            return None;
        }
        let name = self.0.get(names.checked_add(name)?..)?;
        let name = name.get(..name.iter().position(|&byte| byte == 0)?)?;
        let has = |part: &[u8]| (0..name.len()).any(|at| name.get(at..).is_some_and(|rest| rest.starts_with(part)));
        if NAMES.iter().any(|part| has(part)) {
            let start = bias.wrapping_add(value);
            note(start, start.wrapping_add(size));
        }
        Some(())
    }

    /// The program headers: type, flags, and what they say.
    fn segments(&self) -> impl Iterator<Item = (usize, usize, Segment)> {
        let head = || Some((self.number::<8>(0x20)?, self.number::<2>(0x36)?, self.number::<2>(0x38)?));
        let (table, entry, count) = head().unwrap_or_default();
        (0..count).map_while(move |k| {
            let at = table.checked_add(k.checked_mul(entry)?)?;
            let (offset, address, bytes) =
                (self.number::<8>(at + 8)?, self.number::<8>(at + 0x10)?, self.number::<8>(at + 0x20)?);
            Some((self.number::<4>(at)?, self.number::<4>(at + 4)?, Segment { offset, address, bytes }))
        })
    }

    /// The first whose type and flags will do.
    fn segment(&self, wanted: impl Fn(usize, usize) -> bool) -> Option<Segment> {
        self.segments().find(|&(kind, flags, _)| wanted(kind, flags)).map(|(_, _, segment)| segment)
    }

    /// What is added to the file's addresses: from where the kernel says that the program headers are.
    fn bias(&self) -> Option<usize> {
        let first =
            self.segments().find(|(kind, _, segment)| *kind == libc::PT_LOAD as usize && segment.offset == 0)?;
        // SAFETY: reads the auxiliary vector.
        let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
        Some(headers.wrapping_sub(self.number::<8>(0x20)?).wrapping_sub(first.2.address))
    }
}

/// A part of the file that the program has in its memory.
#[derive(Clone, Copy)]
struct Segment {
    offset: usize,
    address: usize,
    /// In the file.
    bytes: usize,
}

/// From now on the function from `start` up to `end` is one of those, while there is room.
fn note(start: usize, end: usize) {
    if let Some([first, behind]) = FUNCTIONS.get(COUNT.load(Relaxed)) {
        first.store(start, Relaxed);
        behind.store(end, Relaxed);
        COUNT.fetch_add(1, Relaxed);
    }
}

/// The type of a symbol table, and bytes of its entries.
const SHT_SYMTAB: usize = 2;
const SYMBOL: usize = 24;
/// The type of functions' symbols.
const STT_FUNC: usize = 2;
