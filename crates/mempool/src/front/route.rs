//! Which tier serves a request, and whose an address is.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::core::Core;
use super::exhausted::{Fail, Plea};
use super::misuse::{ItemText, Misuse, Use};
use super::store::longest_for;
use crate::config::Small;
use crate::heap::HeapError;
use crate::segment::State;
use crate::slab::{Bad, Bin, CLASSES, LocalHeap, Located, class_of, class_of_aligned, class_size};
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;
use crate::units::{FRAGMENT, GRANULE, fragments_for};

/// The largest request that any pool takes: half the address space, as in Rust's `Layout`.
pub const MAX_REQUEST: usize = isize::MAX as usize;

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Bytes.
    pub size: usize,
    /// A power of two.
    pub align: usize,
    /// Whether the bytes must be zero.
    pub zeroed: bool,
}

impl Request {
    /// `size` bytes as `malloc` aligns them.
    pub const fn plain(size: usize) -> Self {
        Self { size, align: GRANULE, zeroed: false }
    }
}

/// Which tier serves.
enum Tier {
    Class(usize),
    Heap,
    Runs,
}

/// What lies at an address.
pub(crate) enum Holder<'a> {
    /// An item of a slab, or an address inside one.
    Item(Located<'a>),
    /// A heap page.
    HeapPage,
    /// A run of its own, or nothing.
    Run,
}

/// Where the C library's heap began when somebody began to watch it; the end of all addresses until then.
static HEAP: AtomicU64 = AtomicU64::new(u64::MAX);

/// From now on [`in_c_heap`] knows what the C library adds to its heap.
pub fn watch_heap() {
    let now = crate::os::system::heap_end();
    if now != 0 {
        // Relaxed: a bound that only falls, compared with addresses that the reader has otherwise.
        HEAP.fetch_min(now, Relaxed);
    }
}

/// Whether `address` lies in the part of the C library's heap that is watched. Objects that it maps apart are not
/// known.
fn in_c_heap(address: usize) -> bool {
    let start = HEAP.load(Relaxed);
    address as u64 >= start && (address as u64) < crate::os::system::heap_end()
}

impl Core {
    fn tier(&self, request: &Request) -> Tier {
        let Request { size, align, .. } = *request;
        if size <= self.max_small {
            let class = if align <= GRANULE { Some(class_of(size)) } else { class_of_aligned(size, align) };
            if let Some(class) = class.filter(|&class| class_size(class) <= self.max_small) {
                return Tier::Class(class);
            }
        }
        if self.is_for_heap(size, align) { Tier::Heap } else { Tier::Runs }
    }

    /// Serves `request`: never null under `Fail::Policy` with policy abort.
    pub(crate) fn alloc(&self, request: &Request, fail: Fail) -> *mut u8 {
        if self.drill.is_on() {
            return self.drilled(request, fail, &mut || self.alloc_now(request, fail));
        }
        self.alloc_now(request, fail)
    }

    /// As `alloc`, whatever the drill says.
    pub(super) fn alloc_now(&self, request: &Request, fail: Fail) -> *mut u8 {
        if self.is_system() {
            let object = crate::os::system::alloc(request.size, request.align, request.zeroed);
            return self.served_by_system(object, request, fail);
        }
        if let Some(budget) = self.scope() {
            return self.alloc_scoped(budget, request, fail);
        }
        self.look_before();
        let served = match self.serve(request) {
            Some(address) => Some(address),
            None => {
                let plea = Plea { request, class: self.class_for(request), fail };
                self.exhausted(&plea, &mut || self.serve(request))
            }
        };
        self.look_after(fail);
        served.map_or(core::ptr::null_mut(), |address| address.get() as *mut u8)
    }

    /// The size class that is to serve `request`, if one is.
    pub(super) fn class_for(&self, request: &Request) -> Option<usize> {
        match self.tier(request) {
            Tier::Class(class) => Some(class),
            Tier::Heap | Tier::Runs => None,
        }
    }

    /// One attempt.
    fn serve(&self, request: &Request) -> Option<core::num::NonZeroUsize> {
        let address = match self.tier(request) {
            Tier::Class(class) => self.with_local(|local| self.pop_class(local, class)),
            Tier::Heap => match self.alloc_in_heap(request.size) {
                Ok(object) => object.map(|object| object.as_ptr() as usize),
                // Not exhausted, but no page to be had in the bounded time: the exhaustion path waits and asks again.
                Err(HeapError::Busy | HeapError::TooLarge) => None,
                Err(error) => self.heap_misuse(error, "malloc", 0),
            },
            Tier::Runs => return self.serve_run(request),
        }?;
        self.clear_if_asked(request, address);
        core::num::NonZeroUsize::new(address)
    }

    /// Makes what was just handed out at `address` zero, if it is to be.
    pub(super) fn clear_if_asked(&self, request: &Request, address: usize) {
        if request.zeroed {
            // SAFETY: `size` bytes at `address` were just handed out to us.
            unsafe { core::ptr::write_bytes(address as *mut u8, 0, request.size) };
        }
    }

    /// An item of another slab of `bin`, one of the size classes' in the calling thread's own `local`, where that takes no more than a
    /// change of slabs. Not when somebody must look how much is free: that is `alloc`'s to do.
    #[inline]
    pub(super) fn swap_small(&self, local: &LocalHeap, bin: &Bin) -> Option<core::num::NonZeroUsize> {
        if self.is_look_due() { None } else { self.slabs.swap(local, bin, local.id) }
    }

    /// `size` bytes from another slab of the calling thread's own `local`, where a size class serves so much. Not when
    /// somebody must look how much is free: that is `alloc`'s to do.
    pub(super) fn pop_small(&self, local: &LocalHeap, size: usize) -> Option<core::num::NonZeroUsize> {
        if self.is_look_due() {
            return None;
        }
        if size <= self.max_small {
            return self.pop_class(local, class_of(size)).and_then(core::num::NonZeroUsize::new);
        }
        if !self.is_for_heap(size, GRANULE) {
            return self.pop_short(local, fragments_for(size));
        }
        match self.heap.alloc_near(self, size, &local.near) {
            Ok(object) => object.map(|object| object.addr()),
            Err(error @ HeapError::Corrupted { .. }) => self.heap_misuse(error, "malloc", 0),
            Err(_) => None,
        }
    }

    /// An object of the heap, not under the shared local heap's lock: the heap may wait.
    fn alloc_in_heap(&self, size: usize) -> Result<Option<NonNull<u8>>, HeapError> {
        match self.own().or_else(|| self.join()) {
            Some(local) => self.heap.alloc_near(self, size, &local.near),
            None => self.heap.alloc_near(self, size, &core::cell::Cell::new(0)),
        }
    }

    /// Whether the best-fit heap serves such requests. The reference: large or fragment-sized requests go to the page-frag
    /// tier, all others to the heap.
    fn is_for_heap(&self, size: usize, align: usize) -> bool {
        self.config.small == Small::Heap
            && size <= self.config.heap_max_alloc
            && align <= GRANULE
            && (size == 0 || !size.is_multiple_of(FRAGMENT))
    }

    /// Frees an object of the heap. False, and nothing has changed, if it is none.
    pub(super) fn push_in_heap(&self, address: usize, call: &'static str) -> bool {
        match self.heap.free(self, address) {
            Ok(()) => true,
            // The object was freed all the same.
            Err(error @ HeapError::Corrupted { .. }) => self.heap_misuse(error, call, address),
            Err(_) => false,
        }
    }

    /// As [`Self::pop_class`], for a cache's class too.
    pub(super) fn pop_of(&self, local: &LocalHeap, class: usize) -> Option<usize> {
        if class < CLASSES { self.pop_class(local, class) } else { self.cache_pop(local, class).map(|a| a.get()) }
    }

    pub(super) fn pop_class(&self, local: &LocalHeap, class: usize) -> Option<usize> {
        if let Some(popped) = local.bin(class).and_then(|bin| bin.pop(local)) {
            return Some(popped.get());
        }
        self.slabs.pop_unswapped(self, local, class).unwrap_or_else(|bad| self.late_double_free(bad))
    }

    pub(super) fn serve_run(&self, request: &Request) -> Option<core::num::NonZeroUsize> {
        if request.size > self.data_len {
            return None;
        }
        let (len, align) = (fragments_for(request.size), (request.align / FRAGMENT).max(1));
        if align == 1
            && let Some(address) = self.unpark(len)
        {
            if request.zeroed {
                // SAFETY: the run is ours and has at least so many bytes.
                unsafe { self.make_zero(address.get(), request.size) };
            }
            return Some(address);
        }
        if len >= self.slot_fragments() {
            self.give_idle_spares();
        }
        let run = if request.zeroed { self.take_zeroed(len, align) } else { self.frag.take(len, align) }?;
        self.count_taken(len);
        self.note_taken(len);
        self.events.runs.fetch_add(1, Relaxed);
        core::num::NonZeroUsize::new(self.data + run.start * FRAGMENT)
    }

    /// A run of zeros; clears only what was in use before.
    fn take_zeroed(&self, len: usize, align: usize) -> Option<crate::frag::Run> {
        let clear = |dirty: crate::frag::Run| {
            // SAFETY: the dirty part lies in the run, which is being handed out to us.
            unsafe { self.make_zero(self.data + dirty.start * FRAGMENT, dirty.len * FRAGMENT) };
        };
        self.frag.take_zeroed(len, align, false, clear)
    }

    /// What lies at `address`, which is in the data area. O(1).
    pub(crate) fn holder(&self, address: usize) -> Holder<'_> {
        let offset = address - self.data;
        if let Some(located) = self.slabs.locate(offset) {
            return Holder::Item(located);
        }
        let slot = offset >> self.slabs.slots.geometry().shift;
        if self.slabs.slab(slot).peek().state() == State::Heap { Holder::HeapPage } else { Holder::Run }
    }

    /// Frees what `alloc` handed out. `call` is the name to blame.
    pub(crate) fn free(&self, address: usize, call: &'static str) {
        if !self.contains(address) {
            return self.foreign(address, call);
        }
        if self.drill.is_on() {
            self.free_drilled(address, call);
        }
        if self.own().is_some_and(|local| super::push_behind(local, address, call)) {
            return;
        }
        match self.holder(address) {
            Holder::Item(located) => self.free_item(&located, address, call),
            Holder::HeapPage => {
                if let Err(error) = self.heap.free(self, address) {
                    self.heap_misuse::<()>(error, call, address);
                }
            }
            Holder::Run => self.free_run(address, call),
        }
    }

    /// Whether `address`, which is not in the pool, is taken for an object of the C library: each one with
    /// `small = system`, otherwise those in the part of its heap that is watched.
    pub(crate) fn is_c_library(&self, address: usize) -> bool {
        self.is_system() || in_c_heap(address)
    }

    /// Whether the object at `address` is a scoped allocation, which may have more room than another of its size.
    pub(crate) fn is_scoped(&self, address: usize) -> bool {
        match self.holder(address) {
            Holder::Item(located) if located.shape.class as usize >= CLASSES => {
                self.cache_budget(located.shape.class as usize).1
            }
            Holder::Run => self.budget_at((address - self.data) / FRAGMENT).is_some(),
            _ => false,
        }
    }

    /// Whether an object with room for `room` bytes can be the answer to `request`.
    pub(crate) fn could_answer(&self, request: &Request, room: usize) -> bool {
        // A run may have been parked before, and be a little longer.
        let least = fragments_for(request.size);
        let as_run = room.is_multiple_of(FRAGMENT) && (least..=longest_for(least)).contains(&(room / FRAGMENT));
        match self.tier(request) {
            // A request that the class could not serve, no slab being to be had, got a run.
            Tier::Class(class) => room == class_size(class) || as_run,
            Tier::Runs => as_run,
            // The rest of a chunk that was too small to split off is part of the object.
            Tier::Heap => room >= request.size,
        }
    }

    fn foreign(&self, address: usize, call: &'static str) {
        if self.is_c_library(address) {
            // SAFETY: an object of the C library, as far as anybody can tell.
            return unsafe { crate::os::system::free(address as *mut u8) };
        }
        self.misuse(call, address, &Misuse::Foreign)
    }

    fn free_item(&self, located: &Located<'_>, address: usize, call: &'static str) {
        if !located.exact {
            self.misuse(call, address, &Misuse::Interior(self.item_text(located)))
        }
        let class = located.shape.class as usize;
        if class >= CLASSES && !self.cache_budget(class).1 {
            self.misuse(call, address, &Misuse::CacheItem(self.item_text(located)))
        }
        self.push_items(located, 1, address, call);
    }

    /// Frees `n` items from a located one on.
    pub(crate) fn push_items(&self, located: &Located<'_>, n: usize, address: usize, call: &'static str) {
        let pushed = self.with_local(|local| self.slabs.push(self, local, &located.slab, located.item, n));
        if let Err(Bad { item, .. }) = pushed {
            self.misuse(call, address, &Misuse::DoubleFree(self.item_text(&Located { item, ..*located })))
        }
    }

    fn free_run(&self, address: usize, call: &'static str) {
        let Some(start) = self.fragment_at(address) else {
            return self.not_a_run(address, call);
        };
        match self.frag.give(start, |_| ()) {
            Ok(run) => {
                self.count_given(run.len);
                self.uncharge_run(run);
            }
            Err(_) => self.not_a_run(address, call),
        }
    }

    fn not_a_run(&self, address: usize, call: &'static str) {
        let fragment = (address - self.data) / FRAGMENT;
        match self.frag.run_of(fragment) {
            Some(run) => self.misuse(call, address, &Misuse::InteriorOfRun(run)),
            None => self.misuse(call, address, &Misuse::NotAllocated),
        }
    }

    /// Bytes that may be used at `address`, at least those asked for. What is free was used after it was freed.
    pub(crate) fn usable_size(&self, address: usize, call: &'static str) -> usize {
        self.room(address, call, Use::After)
    }

    /// As [`Self::usable_size`]; `wrong` is what was done to an object that is free already.
    pub(crate) fn room(&self, address: usize, call: &'static str, wrong: Use) -> usize {
        if !self.contains(address) {
            if self.is_c_library(address) {
                // SAFETY: as in `foreign`.
                return unsafe { crate::os::system::usable_size(address as *mut u8) };
            }
            self.misuse(call, address, &Misuse::Foreign)
        }
        match self.holder(address) {
            Holder::Item(located) => {
                if !located.exact {
                    self.misuse(call, address, &Misuse::Interior(self.item_text(&located)))
                }
                if !located.slab.is_allocated(located.item) {
                    let item = self.item_text(&located);
                    self.misuse(call, address, &wrong.of(item))
                }
                located.shape.size
            }
            Holder::HeapPage => match self.heap.size_of(address) {
                Ok(size) => size,
                Err(HeapError::Free) => self.misuse(call, address, &wrong.of(ItemText::of("the object of the heap"))),
                Err(error) => self.heap_misuse(error, call, address),
            },
            Holder::Run => match self.fragment_at(address).and_then(|start| self.frag.run_at(start)) {
                Some(run) => run.len * FRAGMENT,
                None => match self.frag.run_of((address - self.data) / FRAGMENT) {
                    Some(run) => self.misuse(call, address, &Misuse::InteriorOfRun(run)),
                    None => self.misuse(call, address, &wrong.nothing()),
                },
            },
        }
    }

    /// `size` bytes at the same address or another, with the old content; never shrinks. Null when exhausted (the old
    /// object stays). `old` is not null.
    pub(crate) fn realloc(&self, old: usize, request: &Request, fail: Fail, call: &'static str) -> *mut u8 {
        if self.is_system() && !self.contains(old) {
            // SAFETY: as in `foreign`.
            let object = unsafe { crate::os::system::realloc(old as *mut u8, request.size, request.align) };
            return self.served_by_system(object, request, fail);
        }
        let usable = self.usable_size(old, call);
        // In a drill an object that grows is a request, so it moves.
        let inside = self.contains(old) && !self.drill.is_on();
        if request.size <= usable && old.is_multiple_of(request.align) || inside && self.grow(old, usable, request) {
            return old as *mut u8;
        }
        let new = self.alloc(request, fail);
        if let Some(new) = NonNull::new(new) {
            // SAFETY: both are live and distinct; the smaller size is copied.
            unsafe { core::ptr::copy_nonoverlapping(old as *const u8, new.as_ptr(), usable.min(request.size)) };
            self.free(old, call);
        }
        new
    }

    /// Grows in place: a run by the free fragments or the parked runs behind it, a heap object by the free chunk behind it.
    fn grow(&self, old: usize, usable: usize, request: &Request) -> bool {
        if request.size <= usable || request.size > self.data_len || !old.is_multiple_of(request.align) {
            return false;
        }
        match self.holder(old) {
            Holder::Item(_) => false,
            Holder::HeapPage => self.heap.grow_in_place(old, request.size).unwrap_or(false),
            Holder::Run => {
                // Those in the reserve stay as they are: what lies behind one is not its budget's, or not the reserve's.
                let open = |start: &usize| *start >= self.frag.reserve();
                let run = self.fragment_at(old).filter(open).and_then(|start| self.frag.run_at(start));
                let len = fragments_for(request.size);
                let grown = run.filter(|run| self.frag.grow_in_place(*run, len));
                grown.inspect(|run| self.count_taken(len.saturating_sub(run.len))).is_some()
                    || run.is_some_and(|run| self.grow_into_parked(run, len))
            }
        }
    }

    fn heap_misuse<T>(&self, error: HeapError, call: &'static str, address: usize) -> T {
        self.misuse(call, address, &Misuse::Heap(error))
    }

    /// A double free that showed only when its owner took the remote frees.
    pub(crate) fn late_double_free<T>(&self, bad: Bad) -> T {
        let slab = self.slabs.slab(bad.slot);
        let shape = slab.shape();
        let address = self.slabs.address(&slab) + bad.item * shape.size;
        let located = Located { slab, shape, item: bad.item, exact: true };
        self.misuse("free", address, &Misuse::DoubleFree(self.item_text(&located)))
    }
}
