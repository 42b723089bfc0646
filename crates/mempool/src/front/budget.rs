//! Budgets: a cap, and a part set aside, for the sum of some caches and scoped allocations, so that one tenant fails alone.
//!
//! What is charged is slabs, when they are cut and when they go back: nothing on the hot path knows of budgets. A cache
//! belongs to a budget or to none. Scoped allocations are served by caches of the budget's own, one for each of a few
//! sizes; while a thread is in a scope it has no local heap that the hot path knows of, so that every request arrives
//! here. An object of theirs that is freed goes back to its slab, whoever frees it wherever, and so does the charge.
//!
//! The part that is set aside is taken from the reserve, whose fragments nobody else can have. What no size of scoped
//! allocations serves, and what no slab is left for, lies there as a run (`reserve`): where it lies says whose it is.
//!
//! *Limits:* a budget lives as long as its pool. Whole slabs are charged: up to a slot (4 to 64 KiB) for each thread and
//! size that has one object, and two slots for caches of large items. Outside of what is set aside a large scoped allocation
//! begins at a slot.

use core::fmt;
use core::num::NonZeroUsize;

use super::caches::CacheHandle;
use super::core::Core;
use super::exhausted::{Fail, Plea};
use super::route::Request;
use crate::bytes::{Bytes, Compact};
use crate::segment::NAME_LEN;
use crate::slab::{CLASSES, Runs};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::text::Text;
use crate::units::{FRAGMENT, GRANULE};

/// Most budgets of a pool.
pub const BUDGETS: usize = 16;
/// Sizes of scoped allocations; larger ones get a run of what is set aside, or a slab of their own.
const SIZES: [usize; 18] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192];
/// The size whose arrays serve larger requests.
const LARGE: usize = 7;
/// Words of a name.
const NAME_WORDS: usize = NAME_LEN / 8;

/// States of an entry.
const VACANT: u64 = 0;
const MAKING: u64 = 1;
const ALIVE: u64 = 2;

/// One budget: words of the core.
pub struct Entry {
    state: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
    /// Fragments that it may have, and has.
    most: AtomicU64,
    used: AtomicU64,
    /// The fragments set aside for it: first, and one behind the last. A run in there that is no slab is a scoped allocation,
    /// charged to it (I31).
    from: AtomicU64,
    to: AtomicU64,
    /// The caches of its scoped allocations: index plus one in the lower half, generation in the upper; 0: not made yet.
    scoped: [AtomicU64; SIZES.len()],
}

/// All budgets of a pool.
pub struct Budgets {
    entries: [Entry; BUDGETS],
    /// How many there are.
    count: AtomicU64,
    /// Fragments of the reserve that are set aside for budgets: all below. Raised while all that it passes over is claimed.
    pub(super) assigned: AtomicU64,
}

impl Budgets {
    /// No budget. A constant: made one by one, the entries would be on the stack.
    pub const fn new() -> Self {
        Self {
            entries: [const {
                Entry {
                    state: AtomicU64::new(0),
                    name: [const { AtomicU64::new(0) }; NAME_WORDS],
                    most: AtomicU64::new(0),
                    used: AtomicU64::new(0),
                    from: AtomicU64::new(0),
                    to: AtomicU64::new(0),
                    scoped: [const { AtomicU64::new(0) }; SIZES.len()],
                }
            }; BUDGETS],
            count: AtomicU64::new(0),
            assigned: AtomicU64::new(0),
        }
    }
}

/// Why there is no budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetError {
    /// The name has so many bytes, more than 31.
    NameTooLong(usize),
    /// So many bytes are to be set aside, more than the cap, the second number.
    LeastAboveMost(usize, usize),
    /// So many bytes are to be set aside, but of the reserve only the second number is left.
    Reserve(usize, usize),
    /// The pool has 16 budgets already, the most it takes.
    TooMany,
    /// The pool has so many caches already, and a budget needs one.
    TooManyCaches(usize),
    /// The thread has no local heap of its own (more threads than `max_threads`, or no thread-local storage), so that it
    /// cannot be in a scope.
    NoLocalHeap,
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTooLong(len) => write!(f, "the budget's name has {len} bytes, more than {}", NAME_LEN - 1),
            Self::LeastAboveMost(least, most) => {
                write!(
                    f,
                    "the budget is to have {} set aside, more than the {} that it may have",
                    Bytes(*least),
                    Bytes(*most)
                )
            }
            Self::Reserve(need, left) => write!(
                f,
                "{} are to be set aside for the budget, but of the reserve {} is left; the setting reserve is to cover all of them",
                Bytes(*need),
                Bytes(*left)
            ),
            Self::TooMany => write!(f, "the pool has {BUDGETS} budgets already, the most it takes"),
            Self::TooManyCaches(most) => {
                write!(
                    f,
                    "the pool has {most} caches already, and a budget needs one; max_caches sets how many it can have"
                )
            }
            Self::NoLocalHeap => {
                f.write_str("the thread has no local heap of its own: no memory was left for one when it asked, or max_threads have one already")
            }
        }
    }
}

impl core::error::Error for BudgetError {}

/// What a budget has.
#[derive(Clone, Copy, Debug)]
pub struct BudgetInfo {
    /// Its name.
    pub name: Text<NAME_LEN>,
    /// Bytes set aside for it.
    pub least: usize,
    /// Bytes that it may have.
    pub most: usize,
    /// Bytes of its slabs, and of its runs in what is set aside.
    pub used: usize,
}

impl Entry {
    /// Charges `fragments`; false when that were too many.
    pub(super) fn charge(&self, fragments: usize) -> bool {
        let most = self.most.load(Relaxed);
        let more = |used: u64| used.checked_add(fragments as u64).filter(|&used| used <= most);
        // Not added and taken away again: nobody ever sees more than the cap.
        self.used.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Charges `fragments` less, which were charged.
    pub(super) fn uncharge(&self, fragments: usize) {
        self.used.fetch_sub(fragments as u64, Relaxed);
    }

    /// The fragments set aside for it.
    pub(super) fn range(&self) -> core::ops::Range<usize> {
        self.from.load(Relaxed) as usize..self.to.load(Relaxed) as usize
    }

    fn name(&self) -> Text<NAME_LEN> {
        let mut bytes = [0u8; NAME_LEN];
        for (part, word) in bytes.chunks_exact_mut(8).zip(&self.name) {
            part.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN - 1);
        Text::of(core::str::from_utf8(bytes.get(..end).unwrap_or(&[])).unwrap_or("?"))
    }
}

/// The page-frag tier for slabs of one class: charges the budget of its cache, if that has one.
pub(super) struct Charged<'a> {
    core: &'a Core,
    entry: Option<&'a Entry>,
    /// From the reserve, for a critical request, and from nowhere else.
    reserve: bool,
}

impl Runs for Charged<'_> {
    fn take(&self, fragments: usize, align: usize) -> Option<usize> {
        let core = self.core;
        let slot = core.slot_fragments();
        let align = slot.max(align / FRAGMENT);
        if self.entry.is_some_and(|entry| !entry.charge(fragments)) {
            return None;
        }
        let set_aside = |entry: &Entry| core.frag.take_within(entry.range(), fragments, align);
        let counted = |run: crate::frag::Run| {
            core.count_slab(fragments);
            // Not `slot`, of which the compiler doesn't see here that it isn't 0.
            run.start / core.slot_fragments()
        };
        let taken = if self.reserve {
            core.take_critical(fragments, align).map(counted)
        } else {
            self.entry.and_then(set_aside).map(counted).or_else(|| core.take_slab(fragments, align))
        };
        if let (None, Some(entry)) = (taken, self.entry) {
            entry.uncharge(fragments);
        }
        taken
    }

    fn give(&self, slot: usize, before_clear: &mut dyn FnMut()) {
        Runs::give(self.core, slot, before_clear);
    }
}

impl Core {
    pub(super) fn budget_entry(&self, number: usize) -> Option<&Entry> {
        // Acquire pairs with `budget_create`.
        self.budgets.entries.get(number).filter(|entry| entry.state.load(Acquire) == ALIVE)
    }

    /// The budget that `class`, a cache's, is charged to.
    fn budget_of(&self, class: usize) -> Option<&Entry> {
        if class < CLASSES || self.budgets.count.load(Relaxed) == 0 {
            return None;
        }
        self.budget_entry(self.cache_budget(class).0?)
    }

    /// Where slabs of `class` come from and go to.
    pub(super) fn runs_of(&self, class: usize, reserve: bool) -> Charged<'_> {
        Charged { core: self, entry: self.budget_of(class), reserve }
    }

    /// A slab of `class` with so many fragments goes back.
    pub(super) fn uncharge(&self, class: usize, fragments: usize) {
        if let Some(entry) = self.budget_of(class) {
            entry.uncharge(fragments);
        }
    }

    /// Where there are budgets: the one that the fragment `start` is set aside for.
    pub(super) fn budget_at(&self, start: usize) -> Option<&Entry> {
        if start >= self.budgets.assigned.load(Relaxed) as usize {
            return None;
        }
        (0..BUDGETS).filter_map(|number| self.budget_entry(number)).find(|entry| entry.range().contains(&start))
    }

    /// Makes a budget. Linear in what is set aside, with 1/64 of a step per fragment.
    pub(crate) fn budget_create(&self, name: &str, least: usize, most: usize) -> Result<usize, BudgetError> {
        if name.len() >= NAME_LEN {
            return Err(BudgetError::NameTooLong(name.len()));
        }
        if least > most {
            return Err(BudgetError::LeastAboveMost(least, most));
        }
        let claim = |entry: &Entry| entry.state.compare_exchange(VACANT, MAKING, AcqRel, Relaxed).is_ok();
        let (number, entry) =
            self.budgets.entries.iter().enumerate().find(|(_, entry)| claim(entry)).ok_or(BudgetError::TooMany)?;
        let need = least.div_ceil(FRAGMENT).next_multiple_of(self.slot_fragments());
        entry.most.store((most / FRAGMENT) as u64, Relaxed);
        let mut bytes = [0u8; NAME_LEN];
        bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        for (word, part) in entry.name.iter().zip(bytes.chunks_exact(8)) {
            word.store(part.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte)), Relaxed);
        }
        self.budgets.count.fetch_add(1, Relaxed);
        // Release pairs with `budget_entry`: who sees it alive sees what it is.
        entry.state.store(ALIVE, Release);
        let made = self.furnish_budget(number, entry, need);
        if made.is_err() {
            self.budgets.count.fetch_sub(1, Relaxed);
            entry.state.store(VACANT, Release);
        }
        made.map(|()| number)
    }

    /// Its cache, and `need` fragments set aside. These come last: what is set aside stays so, while a cache can end.
    fn furnish_budget(&self, number: usize, entry: &Entry, need: usize) -> Result<(), BudgetError> {
        let full = BudgetError::TooManyCaches(self.layout.max_caches as usize);
        let cache = self.scoped_cache(number, LARGE).ok_or(full)?;
        match self.set_aside(need) {
            Ok(from) => {
                // Nobody has the budget's number yet.
                entry.from.store(from as u64, Relaxed);
                entry.to.store((from + need) as u64, Relaxed);
                Ok(())
            }
            Err(left) => {
                self.cache_destroy(cache, "budget");
                entry.scoped.iter().for_each(|word| word.store(0, Relaxed));
                // So much may be asked for that its bytes are no number.
                Err(BudgetError::Reserve(need.saturating_mul(FRAGMENT), left * FRAGMENT))
            }
        }
    }

    /// What a budget has; None when there is none of this number.
    pub(crate) fn budget_info(&self, number: usize) -> Option<BudgetInfo> {
        let entry = self.budget_entry(number)?;
        let bytes = |word: &AtomicU64| word.load(Relaxed) as usize * FRAGMENT;
        let least = bytes(&entry.to) - bytes(&entry.from);
        Some(BudgetInfo { name: entry.name(), least, most: bytes(&entry.most), used: bytes(&entry.used) })
    }

    /// The child of a fork: charges anew what slabs and runs there are.
    pub(crate) fn recharge(&self) {
        self.budgets.entries.iter().for_each(|entry| entry.used.store(0, Relaxed));
        self.slabs.for_each(&mut |_, shape| {
            if let Some(entry) = self.budget_of(shape.class as usize) {
                entry.used.fetch_add(shape.run as u64, Relaxed);
            }
        });
        self.each_set_aside(&mut |entry, run| _ = entry.used.fetch_add(run.len as u64, Relaxed));
    }

    /// Makes the budget `scope` (its number plus one, 0: none) that of the calling thread's requests; what it was. From
    /// then on the thread's hot path finds no local heap, until the scope is none again.
    pub(crate) fn enter_budget(&self, scope: u8) -> Result<u8, BudgetError> {
        // What is set aside for the budget is for whoever asks in its name, also for a new thread's local heap in a full pool.
        let number = (scope as usize).checked_sub(1);
        let set_aside = number.and_then(|number| self.budget_entry(number)).map_or(0..0, Entry::range);
        let local = self.own().or_else(|| self.join_within(set_aside)).ok_or(BudgetError::NoLocalHeap)?;
        let before = local.budget.replace(scope);
        if scope != 0 {
            self.hide_local();
        }
        Ok(before)
    }

    /// The budget of the scope that the calling thread is in.
    #[inline]
    pub(super) fn scope(&self) -> Option<usize> {
        if self.budgets.count.load(Relaxed) == 0 {
            return None;
        }
        (self.with_local(|local| local.budget.get()) as usize).checked_sub(1)
    }

    /// Serves a request from the caches of a budget.
    pub(crate) fn alloc_scoped(&self, number: usize, request: &Request, fail: Fail) -> *mut u8 {
        let size = request.size.max(1);
        let fits = |&place: &usize| {
            SIZES.get(place).is_some_and(|&item| item >= size && item.is_multiple_of(request.align.max(GRANULE)))
        };
        // Slabs begin at slots, and are aligned no more than those.
        let slot = self.slot_fragments() * FRAGMENT;
        let place = (0..SIZES.len()).find(fits).filter(|_| request.align <= slot);
        // Where the pool has no room for another cache, that for large requests was made with the budget.
        let small = place.and_then(|place| self.scoped_cache(number, place));
        let place = place.filter(|_| small.is_some());
        let Some(cache) = small.or_else(|| self.scoped_cache(number, LARGE)) else { return core::ptr::null_mut() };
        let class = if place.is_some() { cache.class() } else { CacheHandle::array_of(cache.class()) };
        let plea = Plea { request, class: Some(class), fail };
        self.finish(&plea, &mut || {
            let served = match place {
                Some(_) => self.with_local(|local| self.cache_pop(local, class)),
                None => self.pop_set_aside(number, request).or_else(|| self.pop_large(class, request, false)),
            };
            served.inspect(|address| self.clear_if_asked(request, address.get()))
        })
    }

    /// A slab of its own for a request that no size of scoped allocations serves.
    pub(super) fn pop_large(&self, class: usize, request: &Request, reserve: bool) -> Option<NonZeroUsize> {
        if request.size > self.data_len {
            return None;
        }
        let shape = crate::slab::Shape { align: request.align, ..self.slabs.shape(class)? };
        let n = request.size.saturating_add(shape.size - 1).checked_div(shape.size)?.max(1);
        NonZeroUsize::new(self.slabs.pop_whole(&self.runs_of(class, reserve), shape, n)?)
    }

    /// The cache for scoped allocations of the size at `place`, made when it is first needed. None when the pool has no
    /// room for another cache.
    fn scoped_cache(&self, number: usize, place: usize) -> Option<CacheHandle> {
        let entry = self.budget_entry(number)?;
        let (word, &size) = (entry.scoped.get(place)?, SIZES.get(place)?);
        let handle = |seen: u64| CacheHandle { index: (seen as u32).wrapping_sub(1), generation: (seen >> 32) as u32 };
        let seen = word.load(Acquire);
        if seen != 0 {
            return Some(handle(seen));
        }
        let made = self.cache_create_for(entry.name().as_str(), size, GRANULE, Some(number), true).ok()?;
        let value = u64::from(made.generation) << 32 | u64::from(made.index + 1);
        match word.compare_exchange(0, value, AcqRel, Acquire) {
            Ok(_) => Some(made),
            Err(first) => {
                // Another thread was quicker. Nothing was allocated from ours.
                self.cache_destroy(made, "budget");
                Some(handle(first))
            }
        }
    }

    /// Whether a request that `class` is to serve, with so many fragments at once, is refused because of its budget.
    pub(super) fn is_over_budget(&self, class: usize, fragments: usize) -> bool {
        self.budget_of(class)
            .is_some_and(|entry| entry.used.load(Relaxed) + fragments as u64 > entry.most.load(Relaxed))
    }

    /// What to say about the budget of `class`, for a request that needs so many fragments more.
    pub(super) fn write_budget(&self, class: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(entry) = self.budget_of(class) else { return Ok(()) };
        let (used, most) = (entry.used.load(Relaxed) as usize, entry.most.load(Relaxed) as usize);
        write!(f, "over budget: \"{}\" has slabs of {} ", entry.name().escaped(), Bytes(used * FRAGMENT))?;
        write!(f, "and may have {}", Bytes(most * FRAGMENT))
    }

    /// The advice where that is the matter.
    pub(super) fn write_budget_help(&self, class: usize, need: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(entry) = self.budget_of(class) else { return Ok(()) };
        let enough = entry.used.load(Relaxed) as usize * FRAGMENT + 2 * need;
        write!(f, "budget \"{}\" to at least {}", entry.name().escaped(), Compact(enough.next_multiple_of(1 << 16)))
    }
}
