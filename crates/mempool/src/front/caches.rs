//! Named caches: a name, an item size, two classes (single items; arrays) in the pool's class tables.
#![allow(unsafe_code)]

use core::fmt;
use core::num::NonZeroUsize;

use super::core::Core;
use super::exhausted::{Fail, Plea};
use super::misuse::{ItemText, Misuse};
use super::route::{Holder, MAX_REQUEST, Request};
use crate::segment::{CACHE_WORDS, NAME_LEN};
use crate::slab::{CLASSES, LocalHeap, Located, Shape, owner_id};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::text::Text;
use crate::units::FRAGMENT;

/// Longest name of a cache, in bytes.
pub const NAME_MAX: usize = NAME_LEN - 1;
/// Largest item of a cache, in bytes.
pub const ITEM_MAX: usize = 1 << 20;
/// Words of an entry of the cache table. The state word: generation and one of the states below.
const SIZE: usize = 4;
const ALIGN: usize = 5;
const STATE: usize = 6;
/// The number of its budget plus one, 0 for none; [`SCOPED`]; and from bit [`HOLDER`] on its holder on the board of a drill.
const BUDGET: usize = 7;
const HOLDER: u32 = 40;
/// The cache serves scoped allocations, whose objects are freed as if they were of no cache.
const SCOPED: u64 = 1 << 32;
/// States of an entry.
const VACANT: u64 = 0;
const MAKING: u64 = 1;
const ALIVE: u64 = 2;

/// Which cache. Stale handles are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CacheHandle {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl CacheHandle {
    /// The class of its single items.
    pub(crate) const fn class(self) -> usize {
        CLASSES + 2 * self.index as usize
    }

    const fn array_class(self) -> usize {
        self.class() + 1
    }

    /// Whether `class` is one of a cache's arrays.
    pub(crate) const fn is_array(class: usize) -> bool {
        class >= CLASSES && (class - CLASSES) % 2 == 1
    }

    /// The class of arrays of the cache that `class` belongs to.
    pub(crate) const fn array_of(class: usize) -> usize {
        if Self::is_array(class) { class } else { class + 1 }
    }
}

/// What a cache is.
#[derive(Clone, Copy, Debug)]
pub struct CacheInfo {
    /// The cache.
    pub handle: CacheHandle,
    /// Its name.
    pub name: Text<NAME_LEN>,
    /// Bytes of an item as asked for.
    pub item_size: usize,
    /// Multiple that items begin at.
    pub align: usize,
    /// Items of a slab.
    pub items_per_slab: usize,
}

/// Why there is no cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheError {
    /// The name has so many bytes, more than [`NAME_MAX`].
    NameTooLong(usize),
    /// Items of so many bytes; 1 byte to 1 MiB is possible.
    ItemSize(usize),
    /// Not a power of two, or larger than the pool can align to.
    Alignment(usize),
    /// The pool has so many caches already.
    TooMany(usize),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTooLong(len) => write!(f, "the cache's name has {len} bytes, more than {NAME_MAX}"),
            Self::ItemSize(size) => write!(f, "items of {size} bytes: a cache holds items of 1 to {ITEM_MAX} bytes"),
            Self::Alignment(align) => {
                write!(f, "an alignment of {align} bytes: it must be a power of two up to {ITEM_MAX}")
            }
            Self::TooMany(most) => {
                write!(f, "the pool has {most} caches already; max_caches sets how many it can have")
            }
        }
    }
}

impl core::error::Error for CacheError {}

impl Core {
    fn cache_word(&self, index: usize, k: usize) -> &AtomicU64 {
        debug_assert!(index < self.layout.max_caches as usize && k < CACHE_WORDS);
        // SAFETY: the table has CACHE_WORDS words for each of `max_caches` caches.
        unsafe { &*self.caches.add(index * CACHE_WORDS + k) }
    }

    /// Makes a cache. O(caches).
    pub(crate) fn cache_create(&self, name: &str, size: usize, align: usize) -> Result<CacheHandle, CacheError> {
        self.cache_create_for(name, size, align, None, false)
    }

    /// The number of the budget that the cache of `class` is charged to, and whether it serves scoped allocations.
    pub(super) fn cache_budget(&self, class: usize) -> (Option<usize>, bool) {
        let word = self.cache_word((class - CLASSES) / 2, BUDGET).load(Relaxed);
        ((word as u32 as usize).checked_sub(1), word & SCOPED != 0)
    }

    /// The holder on the board of a drill of the cache that `class` belongs to.
    pub(super) fn cache_holder(&self, class: usize) -> usize {
        (self.cache_word((class - CLASSES) / 2, BUDGET).load(Relaxed) >> HOLDER) as usize
    }

    /// Makes a cache that is charged to a budget.
    pub(crate) fn cache_create_for(
        &self,
        name: &str,
        size: usize,
        align: usize,
        budget: Option<usize>,
        scoped: bool,
    ) -> Result<CacheHandle, CacheError> {
        if name.len() > NAME_MAX {
            return Err(CacheError::NameTooLong(name.len()));
        }
        if !(1..=ITEM_MAX).contains(&size) {
            return Err(CacheError::ItemSize(size));
        }
        if !align.is_power_of_two() || align > ITEM_MAX {
            return Err(CacheError::Alignment(align));
        }
        let most = self.layout.max_caches as usize;
        let claimed = (0..most).find_map(|index| {
            let state = self.cache_word(index, STATE);
            let seen = state.load(Relaxed);
            // Acquire pairs with the Release of `cache_destroy`.
            let vacant = seen as u32 as u64 == VACANT;
            let claimed = vacant && state.compare_exchange(seen, seen | MAKING, AcqRel, Relaxed).is_ok();
            claimed.then_some((index, (seen >> 32) as u32))
        });
        let Some((index, generation)) = claimed else { return Err(CacheError::TooMany(most)) };
        self.write_name(index, name);
        self.cache_word(index, SIZE).store(size as u64, Relaxed);
        self.cache_word(index, ALIGN).store(align as u64, Relaxed);
        let budget = budget.map_or(0, |number| number as u64 + 1) | if scoped { SCOPED } else { 0 };
        let holder = if self.drill.is_on() { self.drill.enlist(&name_bytes(name)) as u64 } else { 0 };
        self.cache_word(index, BUDGET).store(budget | holder << HOLDER, Relaxed);
        let handle = CacheHandle { index: index as u32, generation };
        let stride = (size + align - 1) & !(align - 1);
        let single = Shape { align, ..self.slabs.shape_for(handle.class(), stride) };
        let array = Shape { align, ..self.slabs.array_shape_for(handle.array_class(), stride) };
        self.slabs.define(handle.class(), &single);
        self.slabs.define(handle.array_class(), &array);
        // Release pairs with `cache_state`: who sees it alive sees what it is.
        self.cache_word(index, STATE).store(u64::from(generation) << 32 | ALIVE, Release);
        Ok(handle)
    }

    fn write_name(&self, index: usize, name: &str) {
        for (k, word) in name_bytes(name).chunks_exact(8).enumerate() {
            let word = word.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
            self.cache_word(index, k).store(word, Relaxed);
        }
    }

    fn is_alive(&self, handle: CacheHandle) -> bool {
        (handle.index as usize) < self.layout.max_caches as usize
            && self.cache_word(handle.index as usize, STATE).load(Acquire) == u64::from(handle.generation) << 32 | ALIVE
    }

    /// What the cache is; None when it has been destroyed.
    pub(crate) fn cache_info(&self, handle: CacheHandle) -> Option<CacheInfo> {
        if !self.is_alive(handle) {
            return None;
        }
        let index = handle.index as usize;
        Some(CacheInfo {
            handle,
            name: self.cache_name(handle.class())?,
            item_size: self.cache_word(index, SIZE).load(Relaxed) as usize,
            align: self.cache_word(index, ALIGN).load(Relaxed) as usize,
            items_per_slab: self.slabs.shape(handle.class())?.items as usize,
        })
    }

    /// The handle of the `index`-th entry, if there is a cache.
    pub(crate) fn cache_at(&self, index: usize) -> Option<CacheHandle> {
        let generation = (self.cache_word(index, STATE).load(Acquire) >> 32) as u32;
        let handle = CacheHandle { index: index as u32, generation };
        self.is_alive(handle).then_some(handle)
    }

    /// The name of the cache that `class` belongs to; None for a size class.
    pub(crate) fn cache_name(&self, class: usize) -> Option<Text<NAME_LEN>> {
        let index = class.checked_sub(CLASSES)? / 2;
        let mut bytes = [0u8; NAME_LEN];
        for (k, part) in bytes.chunks_exact_mut(8).enumerate() {
            part.copy_from_slice(&self.cache_word(index, k).load(Relaxed).to_le_bytes());
        }
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_MAX);
        let name = core::str::from_utf8(bytes.get(..end)?).unwrap_or("?");
        Some(Text::of(name))
    }

    fn stale(&self, handle: CacheHandle, call: &'static str, address: usize) -> ! {
        self.misuse(call, address, &Misuse::NoCache(handle.index))
    }

    /// Bytes of an item and the multiple that it begins at; None when the cache has been destroyed.
    fn item_layout(&self, handle: CacheHandle) -> Option<(usize, usize)> {
        let word = |k| self.cache_word(handle.index as usize, k).load(Relaxed) as usize;
        self.is_alive(handle).then(|| (word(SIZE), word(ALIGN)))
    }

    /// Whether what lies right behind the hot path may serve the cache: it is alive, the pool's, and nobody must look how much
    /// is free.
    fn serves_now(&self, handle: CacheHandle) -> bool {
        !self.is_system() && !self.is_look_due() && self.is_alive(handle)
    }

    /// One item of another slab of the calling thread's own `local`.
    fn cache_pop_behind(&self, local: &LocalHeap, handle: CacheHandle) -> Option<NonZeroUsize> {
        if self.serves_now(handle) { self.cache_pop(local, handle.class()) } else { None }
    }

    /// `n` consecutive items, at least 2, wherever the calling thread's own `local` has or gets them.
    fn cache_pop_array(&self, local: &LocalHeap, handle: CacheHandle, n: usize) -> Option<NonZeroUsize> {
        let class = handle.array_class();
        // Larger ones get a run of their own, the size of which must be looked at first.
        if n < 2 || !self.serves_now(handle) || n > self.slabs.shape(class)?.items as usize {
            return None;
        }
        let popped = self.slabs.pop_array(&self.runs_of(class, false), local, class, n);
        popped.unwrap_or_else(|bad| self.late_double_free(bad)).and_then(NonZeroUsize::new)
    }

    /// One item behind the hot path. Null only when the policy or `fail` allows it.
    pub(crate) fn cache_alloc(&self, handle: CacheHandle, fail: Fail, call: &'static str) -> *mut u8 {
        let Some((size, align)) = self.item_layout(handle) else { self.stale(handle, call, 0) };
        if self.is_system() {
            return crate::os::system::alloc(size, align, false);
        }
        let class = handle.class();
        let request = Request { size, align, zeroed: false };
        let plea = Plea { request: &request, class: Some(class), fail };
        self.finish_cached(&plea, &mut || self.with_local(|local| self.cache_pop(local, class)))
    }

    /// As `finish`, for a request for items of a cache.
    fn finish_cached(&self, plea: &Plea<'_>, serve: &mut dyn FnMut() -> Option<NonZeroUsize>) -> *mut u8 {
        if self.drill.is_on() {
            return self.drilled(plea.request, plea.fail, &mut || self.finish(plea, serve));
        }
        self.finish(plea, serve)
    }

    pub(super) fn cache_pop(&self, local: &LocalHeap, class: usize) -> Option<NonZeroUsize> {
        local.bin(class).and_then(|bin| bin.pop(local)).or_else(|| {
            let runs = self.runs_of(class, false);
            let popped = self.slabs.pop(&runs, local, class).unwrap_or_else(|bad| self.late_double_free(bad));
            popped.and_then(NonZeroUsize::new)
        })
    }

    pub(super) fn finish(&self, plea: &Plea<'_>, serve: &mut dyn FnMut() -> Option<NonZeroUsize>) -> *mut u8 {
        self.look_before();
        let served = serve().or_else(|| self.exhausted(plea, serve));
        self.look_after(plea.fail);
        served.map_or(core::ptr::null_mut(), |address| address.get() as *mut u8)
    }

    /// `n` consecutive items (0 counts as 1).
    pub(crate) fn cache_alloc_array(&self, handle: CacheHandle, n: usize, fail: Fail, call: &'static str) -> *mut u8 {
        let Some((item, align)) = self.item_layout(handle) else { self.stale(handle, call, 0) };
        let n = n.max(1);
        if n == 1 {
            return self.cache_alloc(handle, fail, call);
        }
        let size = item.next_multiple_of(align).checked_mul(n).unwrap_or(MAX_REQUEST);
        let request = Request { size, align, zeroed: false };
        if self.is_system() {
            return crate::os::system::alloc(size, align, false);
        }
        let class = handle.array_class();
        let plea = Plea { request: &request, class: Some(class), fail };
        self.finish_cached(&plea, &mut || {
            if size > self.data_len {
                return None;
            }
            let popped = self.with_local(|local| self.slabs.pop_array(&self.runs_of(class, false), local, class, n));
            popped.unwrap_or_else(|bad| self.late_double_free(bad)).and_then(NonZeroUsize::new)
        })
    }

    /// Frees `n` items that `cache_alloc_array` handed out (or one of `cache_alloc`). O(n / 64 + 1).
    pub(crate) fn cache_free(&self, handle: CacheHandle, address: usize, n: usize, call: &'static str) {
        if !self.is_alive(handle) {
            self.stale(handle, call, address)
        }
        if self.is_system() && !self.contains(address) {
            // SAFETY: with `small = system` every address outside the pool is the C library's.
            return unsafe { crate::os::system::free(address as *mut u8) };
        }
        let n = n.max(1);
        if !self.contains(address) {
            self.misuse(call, address, &Misuse::Foreign)
        }
        let located = match self.holder(address) {
            Holder::Item(located) => located,
            Holder::HeapPage => self.no_item(handle, "memory of the heap", address, call),
            Holder::Run if self.frag.run_of((address - self.data) / FRAGMENT).is_some() => {
                self.no_item(handle, "a run of its own", address, call)
            }
            Holder::Run => self.misuse(call, address, &Misuse::NotAllocated),
        };
        let class = located.shape.class as usize;
        if class != handle.class() && class != handle.array_class() {
            self.misuse(call, address, &Misuse::WrongCache(self.item_text(&located), self.cache_text(handle)))
        }
        if !located.exact {
            self.misuse(call, address, &Misuse::Interior(self.item_text(&located)))
        }
        if !located.slab.is_allocated(located.item) {
            self.misuse(call, address, &Misuse::DoubleFree(self.item_text(&located)))
        }
        let right = self.count_at(&located, handle);
        match right {
            None => {
                let array = ItemText::of(format_args!("an array of {}", self.cache_text(handle).as_str()));
                self.misuse(call, address, &Misuse::Interior(array))
            }
            Some(right) if right != n => {
                self.misuse(call, address, &Misuse::WrongCount(self.item_text(&located), right, n))
            }
            Some(_) => {
                if self.drill.is_on() {
                    self.free_drilled(address, call);
                }
                let items = if located.shape.count > 0 { 1 } else { n };
                self.push_items(&located, items, address, call);
            }
        }
    }

    /// How many items the allocation at `located` has; None inside an array.
    fn count_at(&self, located: &Located<'_>, handle: CacheHandle) -> Option<usize> {
        if located.shape.class as usize == handle.class() {
            Some(1)
        } else if located.shape.count > 0 {
            Some(located.shape.count)
        } else {
            located.slab.region_at(located.item)
        }
    }

    fn no_item(&self, handle: CacheHandle, what: &str, address: usize, call: &'static str) -> ! {
        self.misuse(call, address, &Misuse::WrongCache(ItemText::of(what), self.cache_text(handle)))
    }

    fn cache_text(&self, handle: CacheHandle) -> ItemText {
        let name = self.cache_name(handle.class()).unwrap_or_default();
        ItemText::of(format_args!("cache \"{}\"", name.escaped()))
    }

    /// Ends the cache: every slab goes back. The number of items that were still live. Nobody may use the cache
    /// meanwhile or afterwards. O(slots).
    pub(crate) fn cache_destroy(&self, handle: CacheHandle, call: &'static str) -> usize {
        if !self.is_alive(handle) {
            self.stale(handle, call, 0)
        }
        let mut live = 0;
        for class in [handle.class(), handle.array_class()] {
            self.each_local(&mut |local| self.slabs.forget(local, class));
            live += self.slabs.destroy(self, class);
        }
        if self.drill.is_on() {
            self.clear_drilled(self.cache_holder(handle.class()));
        }
        let next = u64::from(handle.generation.wrapping_add(1)) << 32 | VACANT;
        // Release pairs with the next `cache_create`.
        self.cache_word(handle.index as usize, STATE).store(next, Release);
        live
    }
}

/// A cache's name, as it is kept.
fn name_bytes(name: &str) -> [u8; NAME_LEN] {
    let mut bytes = [0u8; NAME_LEN];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(NAME_MAX)) {
        *to = from;
    }
    bytes
}

/// **The hot path of a cache's allocation**: the item's address, None when the bin's word has none.
#[inline(always)]
pub fn pop_cache(local: &LocalHeap, handle: CacheHandle) -> Option<NonZeroUsize> {
    local.bin(handle.class())?.pop(local)
}

/// What comes right behind it: an item from another word or slab.
pub fn pop_cache_behind(local: &LocalHeap, handle: CacheHandle) -> Option<NonZeroUsize> {
    let bin = local.bin(handle.class())?;
    local.announce_bin(bin);
    bin.advance(local).or_else(|| Core::of(local)?.cache_pop_behind(local, handle))
}

/// `n` consecutive items of the current word, of the current slab, of another one. None for a single item, and when
/// that is not all there is to it.
#[inline]
pub fn pop_cache_array(local: &LocalHeap, handle: CacheHandle, n: usize) -> Option<NonZeroUsize> {
    if n < 2 {
        return None;
    }
    local.pop_array(handle.array_class(), n).or_else(|| Core::of(local)?.cache_pop_array(local, handle, n))
}

/// Frees an array of `n` items of the calling thread's own slabs. False when something else is the case, about anything, and
/// nothing has changed.
#[inline]
pub fn push_cache_array(local: &LocalHeap, handle: CacheHandle, address: usize, n: usize) -> bool {
    let (offset, class) = (address.wrapping_sub(local.data), handle.array_class());
    if offset >= local.len.get() {
        return false;
    }
    let slab = local.slab_at(offset >> local.shift);
    local.announce_slab(&slab);
    if slab.peek().thread() != owner_id(local.id, class) {
        return false;
    }
    let Some(item) = slab.item_of(offset & local.mask, class as u64) else { return false };
    match slab.own_free_array(item, n) {
        Some(true) => super::filled(address, local),
        Some(false) => {}
        None => return false,
    }
    true
}

/// What comes right behind `push_cache`: an item of another thread's slab or of nobody's.
pub fn push_cache_behind(local: &LocalHeap, handle: CacheHandle, address: usize) -> bool {
    let (offset, class) = (address.wrapping_sub(local.data), handle.class());
    super::is_narrow(local) && super::push_tagged::<super::Any>(local, address, class as u64)
        || super::push_into_other::<super::Any>(local, address, class as u64)
        || offset < local.len.get()
            && Core::of(local).is_some_and(|core| {
                let slab = local.slab_at(offset >> local.shift);
                core.slabs.adopt_into(core, local, &slab, offset & local.mask, class)
            })
}

/// **The hot path of a cache's free**, as `front::push`.
#[inline(always)]
pub fn push_cache(local: &LocalHeap, handle: CacheHandle, address: usize) -> bool {
    super::push_tagged::<super::Wide>(local, address, handle.class() as u64)
}
