//! glibc's functions that ask and tune: answered from the pool's bitmaps, at the cost of a walk.
#![allow(clippy::missing_safety_doc, reason = "the manual pages say it")]

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};

use mempool::config::Commit;
use mempool::{Stats, process};

use crate::cold::refuse;
use crate::start::{self, Out};

/// glibc's answer, with figures of any size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MallInfo2 {
    /// Bytes that are open to requests.
    pub arena: usize,
    /// Free runs: 1 or 0, since they are not counted.
    pub ordblks: usize,
    /// 0.
    pub smblks: usize,
    /// Objects with a run of their own.
    pub hblks: usize,
    /// Bytes of them.
    pub hblkhd: usize,
    /// 0.
    pub usmblks: usize,
    /// Bytes of free items in slabs.
    pub fsmblks: usize,
    /// Bytes in use, those in runs of their own included.
    pub uordblks: usize,
    /// Bytes free.
    pub fordblks: usize,
    /// Bytes of the largest free run.
    pub keepcost: usize,
}

/// The same, for programs from before; what does not fit is the largest that does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MallInfo([c_int; 10]);

/// As in glibc.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> MallInfo2 {
    start::ready();
    let Some(stats) = process::stats() else { return MallInfo2::default() };
    let slabs = slab_bytes(&stats);
    MallInfo2 {
        arena: stats.open,
        ordblks: usize::from(stats.free > 0),
        hblks: stats.runs,
        hblkhd: stats.run_bytes,
        fsmblks: slabs,
        uordblks: stats.live_bytes(),
        fordblks: stats.free + slabs,
        keepcost: stats.largest_free,
        ..MallInfo2::default()
    }
}

/// Bytes of slabs and heap pages that no object uses.
fn slab_bytes(stats: &Stats) -> usize {
    let held: usize = stats.classes.iter().map(|class| class.run_bytes - class.bytes.min(class.run_bytes)).sum();
    held + stats.heap_page_bytes.saturating_sub(stats.heap_bytes)
}

/// As in glibc.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> MallInfo {
    let i = mallinfo2_of();
    MallInfo(i.map(|figure| c_int::try_from(figure).unwrap_or(c_int::MAX)))
}

/// The figures in their order. Not by the exported function, which may be somebody else's.
fn mallinfo2_of() -> [usize; 10] {
    start::ready();
    process::stats().map_or([0; 10], |s| {
        let slabs = slab_bytes(&s);
        let free = usize::from(s.free > 0);
        [s.open, free, 0, s.runs, s.run_bytes, 0, slabs, s.live_bytes(), s.free + slabs, s.largest_free]
    })
}

/// Parameters that glibc knows: M_MXFAST to M_NLBLKS, and those below 0.
const KNOWN: [c_int; 12] = [1, 2, 3, 4, -1, -2, -3, -4, -5, -6, -7, -8];

/// 1 for glibc's parameters: accepted, since they tune an allocator that is not in use, and mean nothing here. 0 for
/// others.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, _value: c_int) -> c_int {
    c_int::from(KNOWN.contains(&parameter))
}

/// Gives free memory of a lazily committed segment back to the OS: 1 if there was any. One that is committed eagerly
/// keeps its memory, which is what it is for: 0. `pad` means nothing here.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    let lazy = process::values().is_some_and(|values| values.commit == Commit::Lazy);
    c_int::from(lazy && crate::cold::keeping_errno(process::trim) > 0)
}

/// Prints the pool's table to standard error.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    start::ready();
    start::print_table(&mut Out::new(libc::STDERR_FILENO));
}

/// Text to a stream of the C library.
struct Stream(*mut libc::FILE);

impl Write for Stream {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        // SAFETY: a live slice, and the caller's open stream. No lock of ours is held: stdio may allocate.
        let wrote = unsafe { libc::fwrite(part.as_ptr().cast::<c_void>(), 1, part.len(), self.0) };
        if wrote == part.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Writes the pool's figures to `stream` as XML in the manner of glibc; its version is `mempool-1`. 0, or -1 with
/// errno: EINVAL for options other than 0, otherwise what writing failed with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if options != 0 || stream.is_null() {
        refuse(libc::EINVAL);
        return -1;
    }
    start::ready();
    let Some(stats) = process::stats() else { return -1 };
    if write_xml(&mut Stream(stream), &stats).is_ok() { 0 } else { -1 }
}

fn write_xml(out: &mut Stream, stats: &Stats) -> fmt::Result {
    writeln!(out, "<malloc version=\"mempool-1\">")?;
    writeln!(out, "<system type=\"current\" size=\"{}\"/>", stats.open)?;
    writeln!(out, "<total type=\"live\" count=\"{}\" size=\"{}\"/>", stats.live(), stats.live_bytes())?;
    writeln!(out, "<total type=\"run\" count=\"{}\" size=\"{}\"/>", stats.runs, stats.run_bytes)?;
    writeln!(out, "<total type=\"free\" size=\"{}\" largest=\"{}\"/>", stats.free, stats.largest_free)?;
    writeln!(out, "</malloc>")
}
