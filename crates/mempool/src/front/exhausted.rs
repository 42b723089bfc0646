//! What exhaustion means: the one place that waits, asks for help, or gives up. docs/SAFETY.md has the order.
//!
//! *Limits:* looking everywhere costs a walk over all slots, so a pool that lives at its limit pays it for each request
//! that finds its thread's slabs full.
#![allow(unsafe_code)]

use core::fmt::Write;
use core::num::NonZeroUsize;

use super::caches::CacheHandle;
use super::core::Core;
use super::route::Request;
use super::verdict::{Tried, Verdict};
use crate::bytes::Bytes;
use crate::config::Exhausted;
use crate::segment::{Granted, make_real};
use crate::slab::CLASSES;
use crate::sync::Ordering::{AcqRel, Relaxed};
use crate::text::Text;
use crate::units::{FRAGMENT, fragments_for};

/// What to do when nothing helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// What the pool's configuration says.
    Policy,
    /// Say so to the caller, who has no other way: Rust's global allocator.
    Null,
    /// Say so to a caller who is prepared for it, and don't call the program's callbacks: `try_`.
    Try,
}

/// A request that found nothing.
pub(crate) struct Plea<'a> {
    pub request: &'a Request,
    /// The class that is to serve it, if one is.
    pub class: Option<usize>,
    pub fail: Fail,
}

impl Plea<'_> {
    /// Whether any memory will do: not for an item of a named cache, which must lie in a slab of it.
    fn anonymous(&self) -> bool {
        self.class.is_none_or(|class| class < CLASSES)
    }

    /// The class of which any single item will do: not for an array.
    fn item_class(&self) -> Option<usize> {
        self.class.filter(|&class| !CacheHandle::is_array(class))
    }
}

/// Another attempt to serve a request.
pub(crate) type Again<'a> = dyn FnMut() -> Option<NonZeroUsize> + 'a;

impl Core {
    /// The order of docs/SAFETY.md: what lies free in anybody's slabs; more of the reservation; a run for a small
    /// request; reclaim callbacks; waiting; the reserve for critical requests; the policy.
    #[cold]
    #[inline(never)]
    pub(crate) fn exhausted(&self, plea: &Plea<'_>, again: &mut Again<'_>) -> Option<NonZeroUsize> {
        self.events.exhausted.fetch_add(1, Relaxed);
        let mut tried = Tried::default();
        if plea.request.size <= self.most_request() {
            let mut helped = self.search(plea, &mut tried, again);
            if helped.is_none() && !self.is_refused_by_budget(plea) {
                helped = self.grow_and(plea.request, &mut tried, again);
            }
            let helped = helped
                .or_else(|| self.serve_as_run(plea))
                .or_else(|| self.ask_program(plea, &mut tried, again))
                .or_else(|| self.wait(plea, &mut tried, again));
            if helped.is_some() {
                return helped;
            }
        }
        let reserved = if self.is_critical() { self.serve_reserve(plea) } else { None };
        if reserved.is_none() {
            self.refuse(plea, &tried);
        }
        reserved
    }

    /// Parked runs; what lies free in slabs: those that are wholly empty go back, whosever they are; then single items of the class; then
    /// slabs of it that others have, and others' current ones that are empty.
    fn search(&self, plea: &Plea<'_>, tried: &mut Tried, again: &mut Again<'_>) -> Option<NonZeroUsize> {
        // By themselves first: they are the most for the least work, and nobody's slabs are disturbed for them.
        if self.collect_parked(tried)
            && let Some(served) = again()
        {
            return Some(served);
        }
        if self.collect(tried)
            && let Some(served) = again()
        {
            return Some(served);
        }
        let found = plea.item_class().and_then(|class| self.pop_item_anywhere(class));
        if let Some(address) = found.and_then(NonZeroUsize::new) {
            return self.finish_request(plea.request, address);
        }
        // What others have free in slabs of theirs. Some slabs at a time, of which a run may need many; those who take and fill slabs
        // meanwhile don't keep us here for ever.
        let me = self.with_local(|local| local.id);
        for _ in 0..self.slabs.reach() {
            if self.slabs.loosen(self, me, plea.class) == 0 {
                return None;
            }
            tried.slabs += self.slabs.steal_empty(self);
            self.collect_parked(tried);
            let served = again();
            if served.is_some() {
                return served;
            }
        }
        None
    }

    /// An item of `class` that lies free in a slab of nobody, or was freed remotely into a slab of another thread.
    fn pop_item_anywhere(&self, class: usize) -> Option<usize> {
        let runs = self.runs_of(class, false);
        let found = self.with_local(|local| self.slabs.pop_anywhere(&runs, local, class));
        // Threads without a local heap of their own left slabs there, and may be gone.
        match found.unwrap_or_else(|bad| self.late_double_free(bad)) {
            None => self.with_shared(|local| self.pop_of(local, class)),
            found => found,
        }
    }

    /// Clears a served request's bytes if it wants them zero.
    fn finish_request(&self, request: &Request, address: NonZeroUsize) -> Option<NonZeroUsize> {
        self.clear_if_asked(request, address.get());
        Some(address)
    }

    /// Returns everything that is wholly empty, whosever it is. Whether there was anything.
    fn collect(&self, tried: &mut Tried) -> bool {
        let own = self.with_local(|local| self.slabs.return_empty(self, local));
        let shared = self.with_shared(|local| self.slabs.return_empty(self, local));
        let empty = |result: Result<usize, _>| result.unwrap_or_else(|bad| self.late_double_free(bad));
        let slabs = empty(own) + empty(shared) + self.slabs.steal_empty(self);
        let pages = self.heap.return_empty(self);
        tried.slabs += slabs;
        tried.pages += pages;
        // Slabs that went back may have been parked.
        self.collect_parked(tried) || slabs + pages > 0
    }

    /// Gives back all parked runs. Whether there were any.
    fn collect_parked(&self, tried: &mut Tried) -> bool {
        let parked = self.frag.give_all_parked() + self.give_shorts();
        tried.parked += parked;
        parked > 0
    }

    /// A small request when no slab can be cut: any free fragment will do, for a scoped one any that is set aside for the budget.
    fn serve_as_run(&self, plea: &Plea<'_>) -> Option<NonZeroUsize> {
        if plea.anonymous() {
            return self.serve_run(plea.request);
        }
        let (Some(number), true) = self.cache_budget(plea.class?) else { return None };
        self.finish_request(plea.request, self.pop_set_aside(number, plea.request)?)
    }

    /// Opens more of a larger reservation until the request is served or there is no more: what one thread opens, others may take.
    fn grow_and(&self, request: &Request, tried: &mut Tried, again: &mut Again<'_>) -> Option<NonZeroUsize> {
        loop {
            let end = self.frag.open_end();
            // Another one may have opened the last of it just now.
            if !self.grow_pool(request, tried) && self.frag.open_end() == end {
                return None;
            }
            let served = again();
            if served.is_some() {
                return served;
            }
        }
    }

    /// Opens more of a larger reservation. Whether it did.
    fn grow_pool(&self, request: &Request, tried: &mut Tried) -> bool {
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
        if self.open_more(end, wanted) {
            return true;
        }
        // The system has less than that; perhaps it has what the request needs.
        let least = end.saturating_add(need.next_multiple_of(slot)).min(most);
        tried.growth_refused = true;
        least < wanted && self.open_more(end, least)
    }

    /// Makes the fragments from `end` to `wanted` real and opens them.
    fn open_more(&self, end: usize, wanted: usize) -> bool {
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
        self.count_given(wanted - end);
        true
    }

    /// The program's callbacks, with no lock held; not for `try_`.
    fn ask_program(&self, plea: &Plea<'_>, tried: &mut Tried, again: &mut Again<'_>) -> Option<NonZeroUsize> {
        if plea.fail == Fail::Try {
            return None;
        }
        self.tell_exhausted();
        let (called, freed) = self.call_reclaim(plea.request.size);
        tried.callbacks += called;
        if !freed {
            return None;
        }
        again().or_else(|| self.search(plea, tried, again)).or_else(|| self.serve_as_run(plea))
    }

    /// Waits for other threads, if there are any, to free something: `max_retries` times, and with `exhausted = wait` up to the limit. Where
    /// so many want the processor that the time is up before, no longer.
    fn wait(&self, plea: &Plea<'_>, tried: &mut Tried, again: &mut Again<'_>) -> Option<NonZeroUsize> {
        let patient = self.config.exhausted == Exhausted::Wait && plea.fail != Fail::Try;
        let (begin, limit) = (self.os.now_ns(), if patient { self.config.wait_limit } else { 0 });
        let (pause, retries) = (self.config.wait_time, u64::from(self.config.max_retries));
        // A clock that stands still would make the wait endless; no wait needs more rounds than that.
        let rounds = limit.div_ceil(pause.max(1_000)).max(retries);
        if rounds == 0 || self.os.is_single_threaded() {
            return None;
        }
        let limit = limit.max(pause.saturating_mul(retries));
        for round in 0..rounds {
            let left = limit.saturating_sub(self.os.now_ns().saturating_sub(begin));
            // Each round looks everywhere. Without pauses it is they that are counted.
            if round > 0 && left == 0 && (pause > 0 || round >= retries) {
                break;
            }
            let pause = if patient { pause.max(1_000).min(left.max(1)) } else { pause };
            if pause > 0 {
                self.os.sleep(pause);
            }
            tried.waits += 1;
            tried.waited = self.os.now_ns().saturating_sub(begin);
            let served = again().or_else(|| self.search(plea, tried, again)).or_else(|| self.serve_as_run(plea));
            if served.is_some() {
                return served;
            }
        }
        None
    }

    /// Whether the calling thread is inside a critical scope, or is one that always is.
    pub(super) fn is_critical(&self) -> bool {
        self.frag.reserve() > 0 && (self.is_in_scope() || self.is_critical_by_name())
    }

    fn is_critical_by_name(&self) -> bool {
        let names = self.config.critical.as_str();
        if names.is_empty() {
            return false;
        }
        let name = self.os.thread_name();
        let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        names.split(',').any(|known| Some(known.as_bytes()) == name.get(..len))
    }

    /// From the reserve: a run of its own, or for a named cache what its slabs there have, or a slab of its own.
    fn serve_reserve(&self, plea: &Plea<'_>) -> Option<NonZeroUsize> {
        let request = plea.request;
        if request.size > self.data_len {
            return None;
        }
        if let Some(class) = plea.class.filter(|_| !plea.anonymous()) {
            // What a slab there has free is charged already.
            let may_charge = !self.is_refused_by_budget(plea);
            let address = self
                .pop_critical(class, request, may_charge)
                .or_else(|| may_charge.then(|| self.pop_large(CacheHandle::array_of(class), request, true)).flatten());
            return self.finish_request(request, address?);
        }
        let run = self.take_critical(fragments_for(request.size), (request.align / FRAGMENT).max(1))?;
        self.finish_request(request, NonZeroUsize::new(self.data + run.start * FRAGMENT)?)
    }

    /// Whether the budget of the cache is what refuses the request.
    fn is_refused_by_budget(&self, plea: &Plea<'_>) -> bool {
        plea.class.is_some_and(|class| self.is_over_budget(class, self.need_of(plea.request, plea.class).0 / FRAGMENT))
    }

    /// The request cannot be served: the policy.
    fn refuse(&self, plea: &Plea<'_>, tried: &Tried) {
        self.note_refusal(plea);
        let ends = plea.fail == Fail::Policy && self.config.exhausted == Exhausted::Abort;
        if ends || (plea.fail != Fail::Try && self.may_write()) {
            self.write_verdict(plea, tried);
        }
        if ends {
            self.os.abort()
        }
    }

    /// What the C library gave; the policy holds for its refusals, too, of which there is less to say.
    pub(super) fn served_by_system(&self, object: *mut u8, request: &Request, fail: Fail) -> *mut u8 {
        if object.is_null() {
            self.note_refusal(&Plea { request, class: None, fail });
            if fail == Fail::Policy && self.config.exhausted == Exhausted::Abort {
                let (size, align, name) = (Bytes(request.size), Bytes(request.align), self.config.name.as_str());
                let asked = format_args!("exhausted: {size} asked (alignment {align}), pool \"{name}\"");
                let text = format_args!("mempool: {asked}: the C library, which serves with small=system, refused");
                self.os.write_stderr(Text::<256>::of(text).line());
                self.os.abort()
            }
        }
        object
    }

    fn note_refusal(&self, plea: &Plea<'_>) {
        self.events.refused.fetch_add(1, Relaxed);
        self.events.refused_size.store(plea.request.size as u64, Relaxed);
        self.events.refused_align.store(plea.request.align as u64, Relaxed);
        self.events.refused_class.store(plea.class.map_or(0, |class| class as u64 + 1), Relaxed);
    }

    /// Whether the last verdict is old enough for another one.
    fn may_write(&self) -> bool {
        let interval = self.config.verdict_interval;
        // Never 0, which says that there was none yet.
        let now = self.os.now_ns().max(1);
        let last = self.events.verdict_at.load(Relaxed);
        let due = interval > 0 && (last == 0 || now.saturating_sub(last) >= interval);
        due && self.events.verdict_at.compare_exchange(last, now, AcqRel, Relaxed).is_ok()
    }

    /// Writes the verdict to standard error, from the stack, of which the smallest threads have 16 KiB: so nothing here is moved, which would copy it.
    #[cold]
    #[inline(never)]
    fn write_verdict(&self, plea: &Plea<'_>, tried: &Tried) {
        let verdict = Verdict::of(self, plea.request, plea.class, tried);
        let mut text = Text::<2048>::new();
        // A text never fails.
        let _ = write!(text, "{verdict}");
        self.os.write_stderr(text.line());
    }
}
