//! What interfaces of other languages need of the process pool beyond the plain calls: a name to blame in messages,
//! failure as null whatever the policy says, and the hot path apart from the cold one, so that errno is looked
//! after where it can change and costs nothing where it cannot.
#![allow(unsafe_code)]

use ::core::num::NonZeroUsize;

use super::{
    CacheHandle, Config, Core, ENDED, InitError, UNUSED, core, demand_core, environment_config, init, is_mine, state,
    wait,
};
use crate::front::{self, BudgetError, BudgetInfo, CacheError, Callback, Fail, Request};
use crate::stats::{CacheStats, Stats};
use crate::units::GRANULE;

/// What an allocation does when the pool is exhausted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What the configuration says: the end of the process with a message, or null.
    Policy,
    /// Null, also where there is no process pool and none can be made.
    Null,
}

/// The process pool, made now from the environment if there never was one; `base` has what the environment doesn't say.
///
/// # Errors
/// It cannot be made, or was ended by [`fini`](super::fini). [`InitError::Busy`]: the calling thread is making it, and has come here from there: a
/// function of the C library that was called for it is somebody else's, who allocates.
pub fn ensure(base: Config) -> Result<(), InitError> {
    let mut times = 0;
    loop {
        if core().is_some() {
            return Ok(());
        }
        match state() {
            ENDED => return Err(InitError::NotInitialised),
            state if is_mine(state) => return Err(InitError::Busy),
            UNUSED => match environment_config(base).and_then(|config| init(&config)) {
                // Another thread was quicker.
                Ok(()) | Err(InitError::AlreadyInitialised | InitError::Busy) => {}
                Err(error) => return Err(error),
            },
            _ => wait(&mut times),
        }
    }
}

/// The pool and how its requests fail.
fn reach(refusal: Refusal, call: &'static str) -> Option<(&'static Core, Fail)> {
    match refusal {
        Refusal::Policy => Some((demand_core(call), Fail::Policy)),
        Refusal::Null => {
            ensure(Config::process()).ok()?;
            Some((core()?, Fail::Try))
        }
    }
}

/// A number that differs from process pool to process pool; 0 when there is none.
#[inline(always)]
#[must_use]
pub fn serial() -> u64 {
    front::process_serial()
}

/// What a hot path gives as a pointer.
#[inline(always)]
fn address_or_null(address: Option<NonZeroUsize>) -> *mut u8 {
    address.map_or(::core::ptr::null_mut(), |address| address.get() as *mut u8)
}

/// The hot path of an allocation alone: `size` bytes aligned to 16, or null when this needs [`request`].
#[inline(always)]
#[must_use]
pub fn pop(size: usize) -> *mut u8 {
    address_or_null(front::pop(front::process_local(), size))
}

/// What commonly comes right behind it, likewise: small objects from another word or slab.
#[inline(always)]
#[must_use]
pub fn pop_next(size: usize) -> *mut u8 {
    address_or_null(front::pop_next(front::process_local(), size))
}

/// And what remains of it, for at most 16 KiB.
#[must_use]
pub fn pop_last(size: usize) -> *mut u8 {
    address_or_null(front::pop_last(front::process_local(), size))
}

/// All that comes right behind it, likewise.
#[inline]
#[must_use]
pub fn pop_behind(size: usize) -> *mut u8 {
    address_or_null(front::pop_behind(front::process_local(), size))
}

/// The hot path of an aligned allocation alone: `size` bytes at a multiple of `align`, a power of two, or null when this needs
/// [`request`].
#[inline(always)]
#[must_use]
pub fn pop_at(size: usize, align: usize) -> *mut u8 {
    address_or_null(front::pop_aligned(front::process_local(), size, align))
}

/// What comes right behind it, likewise.
#[inline]
#[must_use]
pub fn pop_at_behind(size: usize, align: usize) -> *mut u8 {
    address_or_null(front::pop_aligned_behind(front::process_local(), size, align))
}

/// Makes `size` bytes at `object` zero, without bringing memory that nobody used.
///
/// # Safety
/// They were just handed out by [`pop_behind`] or [`pop_aligned`].
#[doc(hidden)]
pub unsafe fn make_zero(object: *mut u8, size: usize) {
    match Core::of(front::process_local()) {
        // SAFETY: contract.
        Some(core) => unsafe { core.make_zero(object.addr(), size) },
        // SAFETY: contract.
        None => unsafe { object.write_bytes(0, size) },
    }
}

/// Any allocation: `size` bytes at a multiple of `align` (a power of two), all zero if `zeroed`. Null when refused.
#[cold]
#[inline(never)]
#[must_use]
pub fn request(size: usize, align: usize, zeroed: bool, refusal: Refusal, call: &'static str) -> *mut u8 {
    let request = Request { size, align: align.max(GRANULE), zeroed };
    reach(refusal, call).map_or(core::ptr::null_mut(), |(core, fail)| core.alloc(&request, fail))
}

/// The hot path of a free alone. False when nothing was done and this needs [`free_cold`].
///
/// # Safety
/// `object` came from the process pool and is not used any more.
#[inline(always)]
#[must_use]
pub unsafe fn push(object: *mut u8) -> bool {
    front::push(front::process_local(), object as usize)
}

/// Whether the pool is so small that [`push_narrow`] must follow [`push`].
#[inline(always)]
#[must_use]
pub fn is_narrow() -> bool {
    front::is_narrow(front::process_local())
}

/// What comes right behind it in a small pool, likewise.
///
/// # Safety
/// As for [`push`].
#[inline(always)]
#[must_use]
pub unsafe fn push_narrow(object: *mut u8) -> bool {
    front::push_narrow(front::process_local(), object as usize)
}

/// What comes right behind those: an item of another thread's slab, in a pool of 128 MiB or more. Likewise.
///
/// # Safety
/// As for [`push`].
#[inline]
#[must_use]
pub unsafe fn push_remote(object: *mut u8) -> bool {
    front::push_remote(front::process_local(), object as usize)
}

/// What comes right behind that, likewise.
///
/// # Safety
/// As for [`push`].
#[inline]
#[must_use]
pub unsafe fn push_elsewhere(object: *mut u8, call: &'static str) -> bool {
    let (local, address) = (front::process_local(), object as usize);
    front::push_run(local, address) || front::push_elsewhere(local, address, call)
}

/// Any free; null does nothing. A wrong pointer ends the process with a message that blames `call`.
///
/// # Safety
/// As for [`push`].
#[cold]
#[inline(never)]
pub unsafe fn free_cold(object: *mut u8, call: &'static str) {
    super::free_slow(object as usize, call);
}

/// As [`realloc`](super::realloc), with a choice of what refusal means. Null when refused; the old object then stays.
///
/// # Safety
/// `object` is a live object of the process pool; unless null is returned it must not be used any more.
#[must_use]
pub unsafe fn resize(object: *mut u8, size: usize, refusal: Refusal, call: &'static str) -> *mut u8 {
    let request = Request::plain(size);
    let Some((core, fail)) = reach(refusal, call) else { return core::ptr::null_mut() };
    core.realloc(object as usize, &request, fail, call)
}

/// The hot path of a cache's allocation alone: an item, or null when this needs [`cache_request`].
#[inline(always)]
#[must_use]
pub fn cache_pop(cache: CacheHandle) -> *mut u8 {
    address_or_null(front::pop_cache(front::process_local(), cache))
}

/// What comes right behind it, likewise.
#[inline]
#[must_use]
pub fn cache_pop_behind(cache: CacheHandle) -> *mut u8 {
    address_or_null(front::pop_cache_behind(front::process_local(), cache))
}

/// The hot path of an array's allocation, and what comes right behind it; null when this needs [`cache_request`].
#[inline]
#[must_use]
pub fn cache_pop_array(cache: CacheHandle, n: usize) -> *mut u8 {
    address_or_null(front::pop_cache_array(front::process_local(), cache, n))
}

/// `n` consecutive items; 0 counts as 1. Null when refused.
#[cold]
#[inline(never)]
#[must_use]
pub fn cache_request(cache: CacheHandle, n: usize, refusal: Refusal, call: &'static str) -> *mut u8 {
    let Some((core, fail)) = reach(refusal, call) else { return core::ptr::null_mut() };
    core.cache_alloc_array(cache, n, fail, call)
}

/// The hot path of a cache's free alone. False when nothing was done and this needs [`cache_free_cold`].
///
/// # Safety
/// `item` came from this cache and is not used any more.
#[inline(always)]
#[must_use]
pub unsafe fn cache_push(cache: CacheHandle, item: *mut u8) -> bool {
    front::push_cache(front::process_local(), cache, item as usize)
}

/// What comes right behind it, likewise.
///
/// # Safety
/// As for [`cache_push`].
#[inline]
#[must_use]
pub unsafe fn cache_push_behind(cache: CacheHandle, item: *mut u8) -> bool {
    front::push_cache_behind(front::process_local(), cache, item as usize)
}

/// The hot path of an array's free alone. False when nothing was done and this needs [`cache_free_cold`].
///
/// # Safety
/// As for [`cache_push`].
#[inline]
#[must_use]
pub unsafe fn cache_push_array(cache: CacheHandle, array: *mut u8, n: usize) -> bool {
    front::push_cache_array(front::process_local(), cache, array as usize, n)
}

/// Gives `n` items back, as they were allocated; null does nothing.
///
/// # Safety
/// As for [`cache_push`].
#[cold]
#[inline(never)]
pub unsafe fn cache_free_cold(cache: CacheHandle, item: *mut u8, n: usize, call: &'static str) {
    super::cache_free_slow(cache, item, n, call);
}

/// The figures of a cache; None when it is none of the process pool's. O(slots).
#[must_use]
pub fn cache_stats(cache: CacheHandle) -> Option<CacheStats> {
    let core = core()?;
    core.cache_info(cache).map(|info| Stats::of_cache(core, &info))
}

/// The program's name without its folder; empty where it is not known, or not yet.
#[must_use]
pub fn program_name() -> &'static [u8] {
    crate::os::program_name()
}

/// From now on each request of a drilled process pool (a `fail_` setting, or a board) is reported to `witness`, which must not allocate
/// from the pool. The pool's area of the board, [`board::AREA`](front::board::AREA) words that stay mapped; None where there is no pool or no board.
pub fn witness(witness: front::Witness) -> Option<&'static [::core::sync::atomic::AtomicU64]> {
    let area = core()?.add_witness(witness);
    // SAFETY: null, or an area that `Core::watch` mapped for good.
    (!area.is_null()).then(|| unsafe { ::core::slice::from_raw_parts(area.cast(), front::board::AREA) })
}

/// Adds a callback for exhaustion, as [`Pool::on_reclaim`](crate::Pool::on_reclaim), and with a level other than 0 for
/// less free memory than that, as [`Pool::on_low`](crate::Pool::on_low).
///
/// # Errors
/// There is no process pool, with 0; or it has as many callbacks as a pool takes, with that number.
///
/// # Safety
/// `callback` may be called with `argument` from any thread until the pool ends.
pub unsafe fn on_reclaim(level: usize, callback: Callback, argument: *mut u8) -> Result<(), usize> {
    let core = core().ok_or(0usize)?;
    if core.on_reclaim(level, callback, argument) { Ok(()) } else { Err(front::CALLBACKS) }
}

/// Calls `f` with the verdict on a request for `size` bytes at a multiple of `align`; without a size on the last request
/// that was refused. None when there is no process pool, or none was.
pub fn with_verdict<R>(size: Option<(usize, usize)>, f: impl FnOnce(&dyn ::core::fmt::Display) -> R) -> Option<R> {
    let core = core()?;
    let Some((size, align)) = size else { return core.last_verdict(|verdict| f(verdict)) };
    Some(f(&core.verdict(&Request { size, align: align.max(GRANULE), zeroed: false })))
}

/// Makes a budget, as [`Pool::budget`](crate::Pool::budget): its number. The process pool is made if there is none.
///
/// # Errors
/// As there; None when there is no process pool.
pub fn budget_create(name: &str, least: usize, most: usize) -> Option<Result<usize, BudgetError>> {
    core().map(|core| core.budget_create(name, least, most))
}

/// What a budget has; None when there is none of this number.
#[must_use]
pub fn budget_info(number: usize) -> Option<BudgetInfo> {
    core()?.budget_info(number)
}

/// Makes the budget `scope` (its number plus one; 0: none) that of what the calling thread allocates from now on, as in
/// [`Budget::scope`](crate::Budget::scope). What it was before.
///
/// # Errors
/// The thread has no local heap of its own; None when there is no process pool or no such budget.
pub fn budget_enter(scope: u8) -> Option<Result<u8, BudgetError>> {
    let core = core()?;
    if scope != 0 {
        core.budget_info(usize::from(scope) - 1)?;
    }
    Some(core.enter_budget(scope))
}

/// Makes a named cache that is charged to a budget.
///
/// # Errors
/// As [`CacheError`] says.
pub fn cache_create_for(name: &str, size: usize, align: usize, budget: usize) -> Result<CacheHandle, CacheError> {
    demand_core("mp_cache_init").cache_create_for(name, size, align, Some(budget), false)
}

/// Gives up what the calling thread keeps, as [`Pool::relinquish`](crate::Pool::relinquish).
pub fn relinquish() {
    if let Some(core) = core() {
        core.relinquish();
    }
}
