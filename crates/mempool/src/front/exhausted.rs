//! What exhaustion means: the one place that waits, asks for help, or gives up.
#![allow(unsafe_code)]

use core::fmt::Write;
use core::num::NonZeroUsize;

use super::core::Core;
use super::route::Request;
use crate::bytes::Bytes;
use crate::config::{Exhausted, SEGMENT_MOST};
use crate::segment::{Granted, make_real};
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::text::Text;
use crate::units::{FRAGMENT, fragments_for};

/// In the place of a callback that is being added.
const CLAIMED: u64 = 1;

/// What to do when nothing helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// What the pool's configuration says.
    Policy,
    /// Say so to the caller: `try_` and Rust's fallible interfaces.
    Null,
}

impl Core {
    /// The order of docs/SAFETY.md: own and others' empty slabs, heap pages; more of the reservation; reclaim
    /// callbacks; waiting; the reserve for critical requests; the policy.
    #[cold]
    #[inline(never)]
    pub(crate) fn exhausted(
        &self,
        request: &Request,
        fail: Fail,
        again: &mut dyn FnMut() -> Option<NonZeroUsize>,
    ) -> Option<NonZeroUsize> {
        self.events.exhausted.fetch_add(1, Relaxed);
        if request.size <= self.data_len {
            let helped = self
                .collect()
                .then(&mut *again)
                .flatten()
                .or_else(|| self.grow_pool(request).then(&mut *again).flatten());
            let helped = helped.or_else(|| self.call_reclaim(request.size).then(&mut *again).flatten());
            let helped = helped.or_else(|| self.wait(&mut *again));
            if helped.is_some() {
                return helped;
            }
        }
        if self.is_critical() {
            let reserved = self.serve_reserve(request);
            if reserved.is_some() {
                return reserved;
            }
        }
        self.events.refused.fetch_add(1, Relaxed);
        if fail == Fail::Policy && self.config.exhausted == Exhausted::Abort {
            self.give_up(request)
        }
        None
    }

    /// Returns everything that is wholly empty, whosever it is. Whether there was anything.
    fn collect(&self) -> bool {
        let own = self.with_local(|local| self.slabs.return_empty(self, local));
        // Threads without a local heap of their own left slabs there, and may be gone.
        let shared = self.with_shared(|local| self.slabs.return_empty(self, local));
        let empty = |result: Result<usize, _>| result.unwrap_or_else(|bad| self.late_double_free(bad));
        empty(own)
            + empty(shared)
            + self.slabs.steal_empty(self)
            + self.heap.return_empty(self)
            + self.frag.give_all_parked()
            > 0
    }

    /// Opens more of a larger reservation. Whether it did.
    fn grow_pool(&self, request: &Request) -> bool {
        if self.config.exhausted != Exhausted::Grow {
            return false;
        }
        // Half as much again, so that a growing program asks the OS a logarithmic number of times.
        let end = self.frag.open_end();
        let most = self.data_len / FRAGMENT;
        let need = fragments_for(request.size) + request.align / FRAGMENT;
        let slot = self.slot_fragments();
        let wanted = end.saturating_add(need.max(end / 2)).next_multiple_of(slot).min(most);
        if wanted <= end {
            return false;
        }
        // What is open may end within an OS page, which is committed already.
        let edge = |fragment: usize| (self.data + fragment * FRAGMENT).next_multiple_of(self.os.os_page().max(1));
        let range = crate::os::Range::new(edge(end) as *mut u8, edge(wanted) - edge(end));
        let mut granted = Granted::default();
        // SAFETY: the range lies in the reservation, behind what is open; two threads that make it real both succeed.
        if unsafe { make_real(self.os, &[range], &self.config, &mut granted) }.is_err() {
            return false;
        }
        self.note_growth(range.bytes, &granted);
        self.frag.extend(wanted);
        true
    }

    /// Calls the reclaim callbacks, with no lock held and never from within one. Whether any said it freed something.
    fn call_reclaim(&self, needed: usize) -> bool {
        self.with_flag(|| {
            let mut helped = false;
            for [function, argument] in &self.callbacks {
                // Acquire pairs with `on_reclaim`, which writes the argument first.
                let function = function.load(Acquire);
                if function <= CLAIMED {
                    continue;
                }
                // SAFETY: only `on_reclaim` writes functions, of this type.
                let call: extern "C" fn(usize, *mut u8) -> bool = unsafe { core::mem::transmute(function as usize) };
                helped |= call(needed, argument.load(Relaxed) as *mut u8);
            }
            helped
        })
        .unwrap_or(false)
    }

    /// Runs `f` unless this thread is inside it already.
    fn with_flag(&self, f: impl FnOnce() -> bool) -> Option<bool> {
        let entered = self.with_local(|local| !local.reclaiming.replace(true));
        if !entered {
            return None;
        }
        let result = f();
        self.with_local(|local| local.reclaiming.set(false));
        Some(result)
    }

    /// Adds a reclaim callback. False when there are [`CALLBACKS`] already.
    pub(crate) fn on_reclaim(&self, function: extern "C" fn(usize, *mut u8) -> bool, argument: *mut u8) -> bool {
        for [f, a] in &self.callbacks {
            // Claimed with a value that is no function, so that two callers never share an entry.
            if f.compare_exchange(0, CLAIMED, Relaxed, Relaxed).is_ok() {
                a.store(argument as u64, Relaxed);
                // Release pairs with `call_reclaim`.
                f.store(function as usize as u64, Release);
                return true;
            }
        }
        false
    }

    /// Waits for other threads to free something.
    fn wait(&self, again: &mut dyn FnMut() -> Option<NonZeroUsize>) -> Option<NonZeroUsize> {
        for _ in 0..self.config.max_retries {
            if self.config.wait_time > 0 {
                self.os.sleep(self.config.wait_time);
            }
            self.collect();
            let served = again();
            if served.is_some() {
                return served;
            }
        }
        None
    }

    /// Whether the calling thread is inside a critical scope.
    fn is_critical(&self) -> bool {
        self.own().is_some_and(|local| local.critical.get() > 0)
    }

    /// Enters (true) or leaves a critical scope of the calling thread.
    pub(crate) fn critical(&self, enter: bool) {
        self.with_local(|local| {
            let depth = local.critical.get();
            local.critical.set(if enter { depth + 1 } else { depth.saturating_sub(1) });
        });
    }

    /// Policy abort: one message, then the end.
    fn give_up(&self, request: &Request) -> ! {
        let mut text = Text::<1024>::new();
        // A text that doesn't fit is cut visibly; nothing else can fail.
        let _ = self.explain(request, &mut text);
        self.os.write_stderr(text.line());
        self.os.abort()
    }

    /// The message of policy abort: what was asked, what is there, who holds it, what to set.
    fn explain(&self, request: &Request, to: &mut dyn Write) -> core::fmt::Result {
        let open = self.frag.open_end() * FRAGMENT;
        let free = self.frag.free_fragments() * FRAGMENT;
        let largest = self.frag.largest_free() * FRAGMENT;
        write!(
            to,
            "mempool: exhausted: {} asked (alignment {}); largest free run {}, ",
            Bytes(request.size),
            Bytes(request.align),
            Bytes(largest)
        )?;
        write!(to, "{} of {} free. Holders: ", Bytes(free), Bytes(open))?;
        (self.write_holders)(self, to)?;
        let segment = self.config.segment;
        let need = (segment + segment / 4).max(segment.saturating_add(request.size.saturating_mul(2)));
        if need > SEGMENT_MOST {
            return write!(
                to,
                ". No segment can serve it: {} is the most. Set MEMPOOL_EXHAUSTED=null.",
                Bytes(SEGMENT_MOST)
            );
        }
        write!(to, ". Set MEMPOOL_SEGMENT={}M or more, or MEMPOOL_EXHAUSTED=null or grow.", need.div_ceil(1 << 20))
    }
}
