//! The verdict: why a request cannot be served, on one screen, and what would have helped.
//!
//! Composed from the bitmaps when it is printed; nothing is allocated, no lock is taken, and the program may be at work
//! meanwhile: each figure is then of some moment.

use core::fmt;

use super::advice::Step;
use super::core::Core;
use super::route::Request;
use crate::bytes::{Bytes, Compact};
use crate::config::{Exhausted, SEGMENT_MOST};
use crate::frag::RUN_MOST;
use crate::slab::CLASSES;
use crate::units::{FRAGMENT, fragments_for};

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Nothing: the request could be served now.
    Fits,
    /// The whole segment is smaller than the request.
    TooLarge,
    /// The budget that the request would be charged to is used up.
    OverBudget,
    /// Enough is free, but not in one piece.
    Fragmented,
    /// Enough is free, but in slabs that belong to threads which don't give them up.
    Stranded,
    /// Enough is free, but it is the reserve, and the request isn't critical.
    ReserveLeft,
    /// All is in use.
    Exhausted,
}

/// What was done for a request before it was refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried {
    /// Slabs that went back.
    pub slabs: usize,
    /// Heap pages that went back.
    pub pages: usize,
    /// Fragments of freed runs that were parked for their next use.
    pub parked: usize,
    /// Callbacks that were called.
    pub callbacks: usize,
    /// Waits, and nanoseconds of them all.
    pub waits: u64,
    pub waited: u64,
    /// The operating system gave no more memory, or not as much as asked for.
    pub growth_refused: bool,
}

/// How many threads are looked at that keep memory; three are named.
const LOOKED_AT: usize = 32;

/// Bytes that one thread keeps to itself.
#[derive(Clone, Copy, Default)]
struct Keeper {
    thread: u32,
    bytes: usize,
}

/// What threads keep to themselves.
#[derive(Clone, Copy, Default)]
struct Kept {
    bytes: usize,
    /// Bytes of it that the request could use if they weren't kept.
    useful: usize,
    /// Bytes of the longest run among those: of a slab that is wholly empty.
    longest: usize,
    slabs: usize,
    keepers: [Keeper; LOOKED_AT],
}

impl Kept {
    fn add(&mut self, thread: u32, bytes: usize) {
        self.bytes += bytes;
        self.slabs += 1;
        if let Some(keeper) = self.keepers.iter_mut().find(|keeper| keeper.thread == thread || keeper.bytes == 0) {
            keeper.thread = thread;
            keeper.bytes += bytes;
        }
    }
}

/// A verdict, ready to print: up to a dozen lines.
pub struct Verdict<'a> {
    core: &'a Core,
    request: Request,
    class: Option<usize>,
    tried: Tried,
    why: Why,
    /// Bytes in one piece that the request needs, at which multiple of bytes.
    need: (usize, usize),
    free: usize,
    largest: usize,
    /// Bytes from the beginning of the data to the end of the last run in use.
    extent: usize,
    kept: Kept,
}

impl fmt::Debug for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdict").field("request", &self.request).field("why", &self.why).finish_non_exhaustive()
    }
}

impl<'a> Verdict<'a> {
    /// On `request`, which `class` is to serve. O(segment / 256 bytes / 64).
    pub(crate) fn of(core: &'a Core, request: &Request, class: Option<usize>, tried: &Tried) -> Self {
        let mut verdict = Self {
            core,
            request: *request,
            class,
            tried: *tried,
            why: Why::Exhausted,
            need: core.need_of(request, class),
            free: 0,
            largest: 0,
            extent: core.frag.open_end() * FRAGMENT,
            kept: core.kept(class),
        };
        let (need, align) = verdict.need;
        let mut fits = false;
        let end = verdict.extent;
        core.frag.gaps(&mut |gap| {
            let bytes = gap.len * FRAGMENT;
            verdict.free += bytes;
            verdict.largest = verdict.largest.max(bytes);
            if gap.end() * FRAGMENT == end {
                verdict.extent = gap.start * FRAGMENT;
            }
            let start = core.data + gap.start * FRAGMENT;
            // A power of two.
            let before = start.wrapping_neg() & align.wrapping_sub(1);
            fits |= before.saturating_add(need) <= bytes;
        });
        verdict.why = verdict.judge(class, fits);
        verdict
    }

    fn judge(&self, class: Option<usize>, fits: bool) -> Why {
        let (core, (need, align), useful) = (self.core, self.need, self.kept.useful);
        let in_one = self.kept.longest >= need && align <= core.slot_fragments() * FRAGMENT;
        let reserve = core.frag.free_reserve() * FRAGMENT;
        match () {
            () if self.request.size > core.most_request() => Why::TooLarge,
            () if class.is_some_and(|class| core.is_over_budget(class, need / FRAGMENT)) => Why::OverBudget,
            () if fits => Why::Fits,
            () if class.is_some() && useful > 0 || in_one => Why::Stranded,
            () if self.free >= need => Why::Fragmented,
            () if useful > 0 && self.free + useful >= need => Why::Stranded,
            () if reserve >= need && !core.is_critical() => Why::ReserveLeft,
            () => Why::Exhausted,
        }
    }

    /// What is the matter.
    #[must_use]
    pub const fn why(&self) -> Why {
        self.why
    }

    fn write_why(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (need, align) = self.need;
        let free = Bytes(self.free);
        match self.why {
            Why::Fits => write!(f, "not exhausted: a free run of {} bytes has room for it", self.largest),
            Why::TooLarge if self.request.size <= self.core.data_len => {
                write!(f, "too large: an object has less than {}", Bytes((RUN_MOST + 1) * FRAGMENT))
            }
            Why::TooLarge => {
                write!(f, "too large: the whole pool has room for {}", Bytes(self.core.data_len))
            }
            Why::OverBudget => self.core.write_budget(self.class.unwrap_or(0), f),
            Why::Fragmented => {
                write!(f, "fragmented: {free} are free, the largest run has {}, ", Bytes(self.largest))?;
                write!(f, "needed are {} in one piece", Bytes(need))?;
                if align > FRAGMENT { write!(f, " at a multiple of {}", Bytes(align)) } else { Ok(()) }
            }
            Why::Stranded => {
                write!(f, "stranded: {} that would do lie in slabs which threads keep", Bytes(self.kept.useful))
            }
            Why::ReserveLeft => {
                let reserve = Bytes(self.core.frag.free_reserve() * FRAGMENT);
                write!(f, "only the reserve is left: {reserve}, for critical requests alone")
            }
            Why::Exhausted => {
                // What the line "stranded" counts is not in use.
                let kept = if self.kept.bytes > 0 { ", or stranded in slabs" } else { "" };
                write!(f, "exhausted: all but {free} is in use{kept}")
            }
        }
    }

    fn write_kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = &self.kept;
        if kept.bytes == 0 {
            return f.write_str("nothing");
        }
        write!(f, "{} in {} slabs", Bytes(kept.bytes), kept.slabs)?;
        let mut rest = kept.bytes;
        let mut last = Keeper { thread: 0, bytes: usize::MAX };
        for mark in [": ", ", ", ", "] {
            // Those with as many bytes by their number.
            let behind = |keeper: &&Keeper| (keeper.bytes, keeper.thread) < (last.bytes, last.thread);
            let next = kept.keepers.iter().filter(behind).max_by_key(|keeper| (keeper.bytes, keeper.thread));
            let Some(keeper) = next.filter(|keeper| keeper.bytes > 0) else { break };
            last = *keeper;
            rest = rest.saturating_sub(keeper.bytes);
            write!(f, "{mark}{} with ", Bytes(keeper.bytes))?;
            match self.core.os_thread(keeper.thread) {
                Some(thread) => write!(f, "thread {thread}")?,
                None => f.write_str("threads without a local heap")?,
            }
        }
        if rest > 0 { write!(f, ", {} with others", Bytes(rest)) } else { Ok(()) }
    }

    fn write_tried(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tried = &self.tried;
        write!(
            f,
            "{} slabs, {} heap pages, {} of parked runs; ",
            tried.slabs,
            tried.pages,
            Bytes(tried.parked * FRAGMENT)
        )?;
        write!(f, "{} callbacks called", tried.callbacks)?;
        if tried.waits > 0 {
            write!(f, "; looked again {} times within {} us", tried.waits, tried.waited / 1000)?;
        }
        if tried.growth_refused {
            f.write_str("; the system did not let the pool grow as far")?;
        }
        Ok(())
    }

    fn write_help(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (core, (size, align)) = (self.core, self.need);
        if self.why == Why::Fits {
            return f.write_str("none needed");
        }
        if self.why == Why::OverBudget {
            return core.write_budget_help(self.class.unwrap_or(0), size, f);
        }
        if size > RUN_MOST * FRAGMENT {
            let less = Bytes((RUN_MOST + 1) * FRAGMENT);
            return write!(f, "none: an object has less than {less}; MEMPOOL_EXHAUSTED=null refuses");
        }
        let critical = self.why != Why::TooLarge && core.is_critical();
        if let Some(reserve) = core.larger_reserve(size, align).filter(|_| critical) {
            return write!(f, "MEMPOOL_RESERVE={}", Compact(reserve));
        }
        let grows = core.config.exhausted == Exhausted::Grow;
        let refused = grows && self.tried.growth_refused;
        let step = match self.why {
            // What is missing is known.
            Why::TooLarge => Step::None,
            _ if self.kept.bytes > core.segment_bytes() / 4 => Step::Twice,
            _ => Step::Quarter,
        };
        let Some(segment) = core.larger_segment(self.extent, size, align, step, refused) else {
            return write!(f, "none: no segment has more than {}; MEMPOOL_EXHAUSTED=null refuses", Bytes(SEGMENT_MOST));
        };
        let name = if grows && !refused { "MAX_SEGMENT" } else { "SEGMENT" };
        write!(f, "MEMPOOL_{name}={}", Compact(segment))?;
        // What it refused behind the pool it may refuse at the start.
        if refused {
            write!(f, ", if `mempool doctor --segment {}` finds room for it", Compact(segment))
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (core, request) = (self.core, &self.request);
        write!(f, "mempool: exhausted: {} asked (alignment {}), ", Bytes(request.size), Bytes(request.align))?;
        writeln!(f, "pool \"{}\"", core.config.name.as_str())?;
        f.write_str("  verdict    ")?;
        self.write_why(f)?;
        let open = core.frag.open_end() * FRAGMENT;
        write!(f, "\n  memory     {} of {} free", Bytes(self.free), Bytes(open))?;
        write!(f, ", largest run {}", Bytes(self.largest))?;
        let reserve = core.frag.reserve() * FRAGMENT;
        if reserve > 0 {
            write!(f, "; reserve {}, {} of it free", Bytes(reserve), Bytes(core.frag.free_reserve() * FRAGMENT))?;
        }
        f.write_str("\n  stranded   ")?;
        self.write_kept(f)?;
        f.write_str("\n  holders    ")?;
        (core.write_holders)(core, f)?;
        f.write_str("\n  reclaimed  ")?;
        self.write_tried(f)?;
        let refused = core.events.refused.load(crate::sync::Ordering::Relaxed);
        write!(f, "\n  refused    {refused} requests so far\n  set        ")?;
        self.write_help(f)
    }
}

impl Core {
    /// Bytes in one piece that would serve `request`, and the multiple of bytes that they must begin at.
    pub(super) fn need_of(&self, request: &Request, class: Option<usize>) -> (usize, usize) {
        let slot = self.slot_fragments() * FRAGMENT;
        match class.filter(|&class| class >= CLASSES).and_then(|class| self.slabs.shape(class)) {
            Some(shape) => ((shape.run * FRAGMENT).max(request.size), slot.max(shape.align)),
            None => (fragments_for(request.size).saturating_mul(FRAGMENT), request.align.max(FRAGMENT)),
        }
    }

    /// Bytes of the largest request that the pool could serve if it were empty.
    pub(super) fn most_request(&self) -> usize {
        self.data_len.min(RUN_MOST * FRAGMENT)
    }

    /// What threads other than the calling one keep, so that a request of `class` can't have it. O(slots).
    fn kept(&self, class: Option<usize>) -> Kept {
        let mut kept = Kept::default();
        let me = self.own().map_or(0, |local| local.id);
        self.slabs.each_stranded(&mut |thread, shape, current, free| {
            if thread == me {
                return;
            }
            kept.add(thread, free);
            if class == Some(shape.class as usize) {
                kept.useful += free;
            } else if current && free == shape.items as usize * shape.size {
                kept.useful += shape.run * FRAGMENT;
                kept.longest = kept.longest.max(shape.run * FRAGMENT);
            }
        });
        kept
    }

    /// The verdict on the last request that was refused, as things are now, given to `f`; None when none was.
    pub(crate) fn last_verdict<R>(&self, f: impl FnOnce(&Verdict<'_>) -> R) -> Option<R> {
        use crate::sync::Ordering::Relaxed;
        let align = self.events.refused_align.load(Relaxed) as usize;
        let request = Request { size: self.events.refused_size.load(Relaxed) as usize, align, zeroed: false };
        // Of a named cache or a budget's scope, unless that has ended since.
        let class = self.events.refused_class.load(Relaxed).checked_sub(1).map(|class| class as usize);
        let class = class.filter(|&class| self.slabs.shape(class).is_some()).or_else(|| self.class_for(&request));
        (align != 0).then(|| f(&Verdict::of(self, &request, class, &Tried::default())))
    }

    /// The verdict on a request of the program, as things are now.
    pub(crate) fn verdict(&self, request: &Request) -> Verdict<'_> {
        Verdict::of(self, request, self.class_for(request), &Tried::default())
    }
}
