//! A shadow allocator: a list of what must be live, driven beside a pool.
//!
//! Every object is filled with a pattern of its own, over all the bytes that its owner may use, and the pattern
//! is looked at before it is freed, moved, and whenever somebody asks. What the pool says is held against the
//! list: places, alignments, sizes, zeros, statistics, and that a refusal was deserved.
//!
//! *Limits:* of one thread. Other threads may use the pool at the same time only where [`Shadow::check_figures`]
//! is not called.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ptr::NonNull;

use mempool::config::{Exhausted, Small};
use mempool::{Pool, RawCache};

/// Bytes that every address handed out without a larger alignment is a multiple of.
const GRANULE: usize = 16;
const FRAGMENT: usize = 256;

/// Where an object came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Pool,
    /// Number of the cache, items.
    Cache(u64, usize),
}

#[derive(Clone, Copy, Debug)]
struct Object {
    at: NonNull<u8>,
    /// Bytes asked for.
    size: usize,
    /// Bytes that may be used.
    usable: usize,
    /// Bytes that statistics count for it.
    held: usize,
    /// Of the pattern.
    seed: u8,
    from: From,
}

struct Kept<'p> {
    id: u64,
    item: Layout,
    cache: RawCache<'p>,
}

/// What must be live in a pool.
pub struct Shadow<'p> {
    pool: &'p Pool,
    objects: Vec<Object>,
    /// First address to end.
    spans: BTreeMap<usize, usize>,
    caches: Vec<Kept<'p>>,
    serial: u64,
    /// `verify` and figures after each so many steps; 0 never.
    every: u64,
    steps: u64,
    refused: usize,
    /// Whether statistics can be exact: one thread, and a pool that serves by itself.
    exact: bool,
}

impl<'p> Shadow<'p> {
    /// Nothing is live in `pool`. It is verified after every `every` steps, 0 for never.
    #[must_use]
    pub fn new(pool: &'p Pool, every: u64) -> Self {
        let exact = pool.values().small != Small::System;
        Self {
            pool,
            objects: Vec::new(),
            spans: BTreeMap::new(),
            caches: Vec::new(),
            serial: 0,
            every,
            steps: 0,
            refused: 0,
            exact,
        }
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &'p Pool {
        self.pool
    }

    /// Objects that are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.objects.len()
    }

    /// Requests that were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Caches that there are.
    #[must_use]
    pub fn caches(&self) -> usize {
        self.caches.len()
    }

    /// Asks for `size` bytes at a multiple of `align`. Whether they were granted.
    pub fn alloc(&mut self, size: usize, align: usize, zeroed: bool) -> bool {
        let Ok(layout) = Layout::from_size_align(size, align) else { return false };
        let served = if zeroed { self.pool.try_alloc_zeroed(layout) } else { self.pool.try_alloc(layout) };
        match served {
            Ok(at) => {
                if zeroed {
                    assert!(read(at, size).iter().all(|&byte| byte == 0), "{size} bytes at {at:?} are not zero");
                }
                // SAFETY: just handed out.
                let usable = unsafe { self.pool.usable_size(at) };
                self.add(at, layout, usable, usable, From::Pool);
                true
            }
            Err(error) => {
                assert_eq!(error, mempool::AllocError::Exhausted { bytes: size, align });
                self.check_refusal(size, align);
                false
            }
        }
    }

    fn add(&mut self, at: NonNull<u8>, layout: Layout, usable: usize, held: usize, from: From) {
        let (address, size) = (at.as_ptr() as usize, layout.size());
        let least = if from == From::Pool { GRANULE } else { 1 };
        assert!(address.is_multiple_of(layout.align().max(least)), "{address:#x} is no multiple of {}", layout.align());
        assert!(usable >= size, "{usable} bytes usable of {size}");
        assert!(!self.exact || self.pool.contains(at.as_ptr()), "{address:#x} is not in the pool");
        assert!(!self.exact || self.pool.contains((address + usable.max(1) - 1) as *const u8), "its end is not");
        let end = address + usable.max(1);
        if let Some((&other, &until)) = self.spans.range(..end).next_back() {
            assert!(until <= address, "{address:#x}+{usable} overlaps {other:#x}..{until:#x}");
        }
        self.spans.insert(address, end);
        self.serial += 1;
        let object = Object { at, size, usable, held, seed: self.serial as u8, from };
        object.fill();
        self.objects.push(object);
        self.step();
    }

    fn remove(&mut self, index: usize) -> Object {
        let object = self.objects.swap_remove(index);
        self.spans.remove(&(object.at.as_ptr() as usize));
        object.check();
        object
    }

    /// The request for `size` bytes was refused: nothing may be free that would have served it for sure.
    fn check_refusal(&mut self, size: usize, align: usize) {
        self.refused += 1;
        if !self.exact {
            return;
        }
        let stats = self.pool.stats();
        assert!(stats.refused > 0);
        // A slab or a heap page is a slot or two, and begins at a slot.
        let slot = 2usize << 16;
        let need = size.max(1).saturating_add(align.max(FRAGMENT)).saturating_add(if size > 16_384 { 0 } else { slot });
        assert!(
            stats.largest_free < need.saturating_add(stats.reserve),
            "{size} bytes aligned to {align} refused with {} in one run",
            stats.largest_free
        );
    }

    /// Gives back the object `pick` chooses, to whom it came from. Whether there was one.
    pub fn free(&mut self, pick: usize) -> bool {
        if self.objects.is_empty() {
            return false;
        }
        let object = self.remove(pick % self.objects.len());
        // What is freed is overwritten first: nothing of the pool's may lie in it.
        object.stain();
        // SAFETY: live by the list, which has just forgotten it.
        unsafe {
            match object.from {
                From::Pool => self.pool.free(object.at),
                From::Cache(id, count) => {
                    let kept = self.caches.iter().find(|kept| kept.id == id).expect("the cache of a live item");
                    if count == 0 { kept.cache.free(object.at) } else { kept.cache.free_array(object.at, count) }
                }
            }
        }
        self.step();
        true
    }

    /// Changes the size of the object that `pick` chooses. Whether that was granted; false if there is none.
    pub fn realloc(&mut self, pick: usize, size: usize, align: usize) -> bool {
        let Ok(layout) = Layout::from_size_align(size, align) else { return false };
        if self.objects.is_empty() {
            return false;
        }
        let index = pick % self.objects.len();
        let old = self.objects[index];
        if old.from != From::Pool {
            return false;
        }
        old.check();
        // SAFETY: live by the list.
        let moved = unsafe { self.pool.try_realloc(old.at, layout) };
        match moved {
            Ok(at) => {
                // SAFETY: just handed out.
                let usable = unsafe { self.pool.usable_size(at) };
                let fits = size <= old.usable && (old.at.as_ptr() as usize).is_multiple_of(align);
                if self.exact && fits {
                    assert_eq!((at, usable), (old.at, old.usable), "shrunk or moved without need");
                }
                let keep = old.size.min(size);
                assert!(old.matches(at, keep), "realloc lost content");
                self.objects.swap_remove(index);
                self.spans.remove(&(old.at.as_ptr() as usize));
                self.add(at, layout, usable, usable, From::Pool);
                true
            }
            Err(_) => {
                old.check();
                self.check_refusal(size, align);
                false
            }
        }
    }

    /// Asks how much of the object that `pick` chooses may be used: always the same.
    pub fn usable_size(&mut self, pick: usize) {
        let plain: Vec<&Object> = self.objects.iter().filter(|object| object.from == From::Pool).collect();
        if !plain.is_empty() {
            let object = plain[pick % plain.len()];
            // SAFETY: live by the list.
            assert_eq!(unsafe { self.pool.usable_size(object.at) }, object.usable);
            object.check();
        }
    }

    /// Makes a cache of items of `size` bytes at multiples of `align`. Whether it was granted.
    pub fn make_cache(&mut self, size: usize, align: usize) -> bool {
        let Ok(item) = Layout::from_size_align(size, align) else { return false };
        self.serial += 1;
        let name = format!("cache {}", self.serial);
        match self.pool.raw_cache(&name, item) {
            Ok(cache) => {
                let info = cache.info().expect("a cache that was just made");
                assert_eq!((info.item_size, info.align, info.name.as_str()), (size, align, name.as_str()));
                assert!(info.items_per_slab > 0);
                self.caches.push(Kept { id: self.serial, item, cache });
                self.step();
                true
            }
            Err(_) => {
                assert!(size == 0 || size > 1 << 20 || align > 1 << 20 || !self.caches.is_empty());
                false
            }
        }
    }

    /// Takes `count` items in a row of the cache that `pick` chooses; 0 means one by the call for one.
    pub fn take(&mut self, pick: usize, count: usize) -> bool {
        if self.caches.is_empty() {
            return false;
        }
        let kept = &self.caches[pick % self.caches.len()];
        let stride = kept.item.pad_to_align().size();
        let Some(held) = stride.checked_mul(count.max(1)) else { return false };
        if !self.exact && held > 4 << 20 {
            // The C library would give the whole machine.
            return false;
        }
        // Behind the last item lies padding, which nobody was promised.
        let size = held - (stride - kept.item.size());
        let served = if count == 0 { kept.cache.try_alloc() } else { kept.cache.try_alloc_array(count) };
        let (id, align) = (kept.id, kept.item.align());
        match served {
            Ok(at) => {
                let layout = Layout::from_size_align(size, align).expect("a size that was served");
                self.add(at, layout, size, held, From::Cache(id, count));
                true
            }
            Err(_) => {
                // A slab of one to eight items, begun at a slot.
                self.check_refusal(held.saturating_mul(2).saturating_add(1 << 17), align);
                false
            }
        }
    }

    /// Ends the cache that `pick` chooses, live items and all.
    pub fn end_cache(&mut self, pick: usize) {
        if self.caches.is_empty() {
            return;
        }
        let kept = self.caches.swap_remove(pick % self.caches.len());
        let of_it = |object: &Object| matches!(object.from, From::Cache(id, _) if id == kept.id);
        let mut live = 0;
        let mut index = 0;
        while index < self.objects.len() {
            if of_it(&self.objects[index]) {
                let From::Cache(_, count) = self.remove(index).from else { unreachable!() };
                live += count.max(1);
            } else {
                index += 1;
            }
        }
        // SAFETY: the list has forgotten its items.
        let reported = unsafe { kept.cache.destroy() };
        assert!(!self.exact || reported == live, "{reported} items reported as live, {live} are");
        self.step();
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.every > 0 && self.steps.is_multiple_of(self.every) {
            self.check_figures();
        }
    }

    /// Holds the pool's figures and its own check against the list.
    pub fn check_figures(&self) {
        self.pool.verify().unwrap_or_else(|broken| panic!("{broken}"));
        if !self.exact {
            return;
        }
        let stats = self.pool.stats();
        let items = |object: &Object| if let From::Cache(_, count) = object.from { count.max(1) } else { 1 };
        let (objects, bytes) =
            self.objects.iter().fold((0, 0), |(objects, bytes), object| (objects + items(object), bytes + object.held));
        assert_eq!(stats.live(), objects, "live objects: {stats:?}");
        assert_eq!(stats.live_bytes(), bytes, "live bytes: {stats:?}");
        let held = stats.classes.iter().map(|held| held.run_bytes).sum::<usize>() + stats.caches.run_bytes;
        let used = held + stats.heap_page_bytes + stats.run_bytes + stats.local_heap_bytes;
        assert_eq!(used + stats.free + stats.reserve_free, stats.open, "the parts do not add up: {stats:?}");
        assert!(stats.largest_free <= stats.free && stats.open + stats.metadata <= stats.segment);
    }

    /// Looks at every object's pattern.
    pub fn check_content(&self) {
        self.objects.iter().for_each(Object::check);
    }

    /// Frees everything and ends the caches; the pool must then be as empty as `free` bytes in `largest` say, but
    /// for what it keeps against thrashing, which the next exhausted request takes back.
    pub fn finish(mut self, before: &Baseline) {
        self.check_content();
        while self.free(self.serial as usize) {}
        while !self.caches.is_empty() {
            self.end_cache(0);
        }
        self.check_figures();
        if !self.exact {
            return;
        }
        let stats = self.pool.stats();
        for (class, held) in stats.classes.iter().enumerate() {
            // A current slab, and one in the queue.
            assert!(held.slabs <= 2, "class {class} keeps {} empty slabs", held.slabs);
        }
        assert_eq!((stats.caches.slabs, stats.runs), (0, 0));
        let after = Baseline::of(self.pool);
        assert_eq!((after.free, after.largest), (before.free, before.largest));
    }
}

/// How empty an empty pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Bytes free.
    pub free: usize,
    /// Bytes of the largest free run.
    pub largest: usize,
}

impl Baseline {
    /// What is free in `pool` after an exhausted request, which returns all that is wholly empty. Such a request
    /// neither lets a pool grow nor asks for more than it could ever serve.
    #[must_use]
    pub fn of(pool: &Pool) -> Self {
        if pool.values().exhausted != Exhausted::Grow && pool.values().small != Small::System {
            let layout = Layout::from_size_align(pool.stats().open, 1).expect("a segment's size");
            if let Ok(all) = pool.try_alloc(layout) {
                // SAFETY: live. No thread has a local heap yet, so that even the whole can be had.
                unsafe { pool.free(all) };
            }
        }
        let stats = pool.stats();
        Self { free: stats.free, largest: stats.largest_free }
    }
}

/// The first `len` bytes at `at`.
fn read<'a>(at: NonNull<u8>, len: usize) -> &'a [u8] {
    // SAFETY: callers ask for bytes that the pool has handed out to the list.
    unsafe { core::slice::from_raw_parts(at.as_ptr(), len) }
}

/// Byte `index` of pattern `seed`; a pattern repeats after a prime number of bytes, so that neighbours differ.
const fn pattern(seed: u8, index: usize) -> u8 {
    seed.wrapping_mul(31).wrapping_add((index % 251) as u8)
}

/// Bytes that are looked at: all of a small object, the ends and some of the middle of a large one.
fn looked_at(len: usize) -> impl Iterator<Item = usize> {
    let dense = len.min(2048);
    let rest = (dense..len).step_by(509);
    (0..dense).chain(rest).chain(len.saturating_sub(64).max(dense)..len)
}

impl Object {
    fn fill(&self) {
        for index in 0..self.usable {
            // SAFETY: usable bytes of a live object.
            unsafe { self.at.add(index).write(pattern(self.seed, index)) };
        }
    }

    fn stain(&self) {
        // SAFETY: as above.
        unsafe { self.at.write_bytes(0xEE, self.usable) };
    }

    fn matches(&self, at: NonNull<u8>, len: usize) -> bool {
        let bytes = read(at, len);
        looked_at(len).all(|index| bytes[index] == pattern(self.seed, index))
    }

    fn check(&self) {
        assert!(self.matches(self.at, self.usable), "{self:?} was overwritten");
    }
}
