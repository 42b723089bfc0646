//! The process pool: the one pool behind `mp_malloc`, `#[global_allocator]` and the preload library.
//!
//! Made by [`init`], or by the first allocation with what the environment says. Every function may be called
//! at any time, before constructors and after destructors, from any thread.
#![allow(unsafe_code)]

use core::mem::ManuallyDrop;

use crate::config::Config;
use crate::error::InitError;
use crate::front::{self, Core, Fail, Request};
use crate::pool::Pool;
use crate::segment::{Granted, Shortfalls};
use crate::stats::{Stats, Table};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Release};
use crate::text::Text;
use crate::units::GRANULE;

mod foreign;
mod more;

pub use crate::front::{CacheError, CacheHandle, CacheInfo, ITEM_MAX, NAME_MAX, board};
pub use crate::stats::Leaks;
pub use foreign::*;
pub use more::*;

/// The core of the process pool, 0 for none.
static CORE: AtomicU64 = AtomicU64::new(0);
/// One of the states below; the latter two with the process and the thread that is at it, in one word, so that there is no
/// moment at which a fork could part them.
static STATE: AtomicU64 = AtomicU64::new(UNUSED);

const UNUSED: u64 = 0;
const READY: u64 = 1;
const ENDED: u64 = 2;
/// A thread makes the pool.
const MAKING: u64 = 3;
/// A thread ends it.
const ENDING: u64 = 4;

/// Where process and thread begin in such a word. Linux numbers both with 22 bits.
const PROCESS: u32 = 3;
const THREAD: u32 = 33;

fn core() -> Option<&'static Core> {
    // Acquire pairs with `init`: who sees the core sees it whole.
    // SAFETY: 0, or the address of a core that lives until `fini`, after which CORE is 0.
    unsafe { (CORE.load(Acquire) as *const Core).as_ref() }
}

/// The state, or the word for it of a thread that makes or ends the pool.
const fn kind(state: u64) -> u64 {
    state & ((1 << PROCESS) - 1)
}

/// The word of the calling thread for MAKING or ENDING.
fn by_me(kind: u64) -> u64 {
    // Numbers of the system's: the child of a fork may have a thread where another one was in its parent.
    let os = crate::os::platform();
    kind | u64::from(os.process()) << PROCESS | u64::from(os.thread()) << THREAD
}

/// Whether the calling thread makes or ends the pool at this moment, as the state says.
fn is_mine(state: u64) -> bool {
    kind(state) >= MAKING && state == by_me(kind(state))
}

/// The state. What a thread of another process was at when it forked is settled: there is no such thread here.
fn state() -> u64 {
    let seen = STATE.load(Acquire);
    if kind(seen) < MAKING || (seen ^ by_me(kind(seen))) & ((1 << THREAD) - 1) == 0 {
        return seen;
    }
    // The core is the last thing that its maker sets, and the first that its end takes away. Without it, what was reserved is lost.
    let settled = match core() {
        Some(_) => READY,
        None if kind(seen) == ENDING => ENDED,
        None => UNUSED,
    };
    match STATE.compare_exchange(seen, settled, AcqRel, Acquire) {
        Ok(_) => settled,
        Err(other) => other,
    }
}

/// Makes the process pool.
///
/// # Errors
/// There is one already, or had been; another thread is making it; or what [`Config::build`] says.
pub fn init(config: &Config) -> Result<(), InitError> {
    let from = match state() {
        READY => return Err(InitError::AlreadyInitialised),
        state @ (UNUSED | ENDED) => state,
        _ => return Err(InitError::Busy),
    };
    if STATE.compare_exchange(from, by_me(MAKING), AcqRel, Acquire).is_err() {
        return Err(InitError::Busy);
    }
    match Pool::on(crate::os::platform(), config) {
        Ok(pool) => {
            // Ended by `fini`, or by the OS with the process.
            let pool = ManuallyDrop::new(pool);
            front::set_process_serial(pool.core().serial);
            pool.core().watch();
            // Before anybody uses it, so that the child of a fork mends it.
            front::enlist(pool.core());
            CORE.store(core::ptr::from_ref(pool.core()) as u64, Release);
            STATE.store(READY, Release);
            front::watch_threads(pool.core());
            Ok(())
        }
        Err(error) => {
            STATE.store(from, Release);
            Err(error)
        }
    }
}

/// The configuration of a process pool that nobody configured: the environment's, unless the program runs with
/// more rights than its caller.
///
/// # Errors
/// A `MEMPOOL_` variable that is unknown or has a bad value.
pub fn environment_config(base: Config) -> Result<Config, InitError> {
    if crate::os::is_secure() {
        return Ok(base);
    }
    // SAFETY: nobody changes the environment while the process's first allocation or its init runs; a program whose
    // threads do so races with itself.
    let variables = unsafe { crate::os::environment() };
    base.from_env(variables).map_err(InitError::Config)
}

/// The core, made now if need be. Ends the process with a message if that fails or the pool has ended.
#[cold]
#[inline(never)]
fn demand(call: &'static str, base: &Config) -> &'static Core {
    let mut times = 0;
    loop {
        if let Some(core) = core() {
            return core;
        }
        match state() {
            UNUSED => {
                if let Err(error) = environment_config(*base).and_then(|config| init(&config)) {
                    match error {
                        InitError::Busy | InitError::AlreadyInitialised => {}
                        error => stop(call, error),
                    }
                }
            }
            ENDED => stop(call, format_args!("{}: it was ended, and is used afterwards", InitError::NotInitialised)),
            // A function of the C library that was called for it is somebody else's, and asks for memory.
            state if is_mine(state) => stop(call, InitError::Busy),
            _ => wait(&mut times),
        }
    }
}

/// Another thread makes or ends the pool. A large segment takes seconds to be made ready, by all processors.
fn wait(times: &mut u32) {
    *times = times.saturating_add(1);
    front::give_way(*times);
}

fn stop(call: &'static str, why: impl core::fmt::Display) -> ! {
    let os = crate::os::platform();
    let mut text = Text::<512>::of(format_args!("mempool: {call}: {why}"));
    os.write_stderr(text.line());
    os.abort()
}

/// Ends the process pool: reports what is still live to `report` (one line per size class, cache, and so on) and
/// returns the segment to the OS. Other threads must not use the pool any more; a use afterwards ends the process
/// with a message. If `report` panics the pool goes on.
///
/// # Errors
/// There is no process pool; [`InitError::InCallback`]: the calling thread is inside one of its reclaim callbacks, whose caller
/// goes on in it.
///
/// # Safety
/// No object of the pool is used any more, be it to free it. With [`Global`] as the global allocator hardly a program can
/// say so of everything that it and the standard library have allocated.
pub unsafe fn fini(mut report: impl FnMut(&dyn core::fmt::Display)) -> Result<Leaks, InitError> {
    if state() == READY && core().is_some_and(Core::is_reclaiming) {
        return Err(InitError::InCallback);
    }
    if state() != READY || STATE.compare_exchange(READY, by_me(ENDING), AcqRel, Acquire).is_err() {
        return Err(InitError::NotInitialised);
    }
    let unless_done = GoesOn;
    let Some(core) = core() else { return Err(InitError::NotInitialised) };
    let leaks = crate::stats::report_leaks(core, &mut report);
    core::mem::forget(unless_done);
    // First of all: see `state`.
    CORE.store(0, Release);
    front::set_process_serial(0);
    core.dissolve();
    STATE.store(ENDED, Release);
    Ok(leaks)
}

/// The pool is not ended after all, when this is dropped.
struct GoesOn;

impl Drop for GoesOn {
    fn drop(&mut self) {
        STATE.store(READY, Release);
    }
}

/// Asks the operating system to tell of forks now, and not when the first pool is made: it tells in the order in which it was
/// asked, so that what a program asks for later finds the pools of a child mended.
pub fn watch_forks() {
    front::watch_forks(crate::os::platform());
}

/// Whether there is a process pool at the moment.
#[must_use]
pub fn is_ready() -> bool {
    core().is_some()
}

/// `size` bytes, aligned to 16; 0 bytes give a unique address. Null only when exhausted under a policy that says so.
#[inline(always)]
#[must_use]
pub fn alloc(size: usize) -> *mut u8 {
    match front::pop(front::process_local(), size) {
        Some(popped) => popped.get() as *mut u8,
        None => alloc_slow(size),
    }
}

#[cold]
#[inline(never)]
fn alloc_slow(size: usize) -> *mut u8 {
    if let Some(popped) = front::pop_behind(front::process_local(), size) {
        return popped.get() as *mut u8;
    }
    demand_core("malloc").alloc(&Request::plain(size), Fail::Policy)
}

fn demand_core(call: &'static str) -> &'static Core {
    core().unwrap_or_else(|| demand(call, &Config::process()))
}

/// Gives an object back; null does nothing. A wrong pointer ends the process with a message that blames `call`.
///
/// # Safety
/// `object` came from the process pool and is not used any more.
#[inline(always)]
pub unsafe fn free(object: *mut u8, call: &'static str) {
    if !front::push(front::process_local(), object as usize) {
        free_slow(object as usize, call);
    }
}

#[cold]
#[inline(never)]
fn free_slow(address: usize, call: &'static str) {
    let local = front::process_local();
    let pushed = front::is_narrow(local) && front::push_narrow(local, address);
    if !pushed && !front::push_behind(local, address, call) && address != 0 {
        demand_core(call).free(address, call);
    }
}

/// As `realloc`: in place where possible, never shrinks, null gives a new object. Null when exhausted; the old
/// object then stays.
///
/// # Safety
/// `object` is null or a live object of the process pool; unless null is returned it must not be used any more.
#[must_use]
pub unsafe fn realloc(object: *mut u8, size: usize, align: usize, call: &'static str) -> *mut u8 {
    let request = Request { size, align: align.max(GRANULE), zeroed: false };
    let core = demand_core(call);
    if object.is_null() {
        core.alloc(&request, Fail::Policy)
    } else {
        core.realloc(object as usize, &request, Fail::Policy, call)
    }
}

/// Bytes that may be used at `object`. Programs that keep account ask for each object, twice, so small ones have a short path.
///
/// # Safety
/// `object` is a live object of the process pool, or of the C library where that serves or shares.
#[inline]
#[must_use]
pub unsafe fn usable_size(object: *mut u8, call: &'static str) -> usize {
    match front::room_of(front::process_local(), object as usize) {
        Some(room) => room,
        None => usable_size_slow(object, call),
    }
}

#[cold]
#[inline(never)]
fn usable_size_slow(object: *mut u8, call: &'static str) -> usize {
    demand_core(call).usable_size(object as usize, call)
}

/// Whether `object` lies in the process pool. False when there is none.
#[must_use]
pub fn contains(object: *const u8) -> bool {
    core().is_some_and(|core| core.contains(object as usize))
}

/// Whether the C library's allocator serves the requests (`small = system`).
#[must_use]
pub fn is_system() -> bool {
    core().is_some_and(Core::is_system)
}

/// Makes a named cache.
///
/// # Errors
/// As [`CacheError`] says.
pub fn cache_create(name: &str, item_size: usize, align: usize) -> Result<CacheHandle, CacheError> {
    demand_core("mp_cache_init").cache_create(name, item_size, align)
}

/// What a cache is; None when it has been destroyed.
#[must_use]
pub fn cache_info(cache: CacheHandle) -> Option<CacheInfo> {
    core()?.cache_info(cache)
}

/// One item.
#[inline(always)]
#[must_use]
pub fn cache_alloc(cache: CacheHandle) -> *mut u8 {
    match front::pop_cache(front::process_local(), cache) {
        Some(popped) => popped.get() as *mut u8,
        None => cache_alloc_slow(cache),
    }
}

#[cold]
#[inline(never)]
fn cache_alloc_slow(cache: CacheHandle) -> *mut u8 {
    if let Some(popped) = front::pop_cache_behind(front::process_local(), cache) {
        return popped.get() as *mut u8;
    }
    demand_core("mp_cache_alloc").cache_alloc(cache, Fail::Policy, "mp_cache_alloc")
}

/// Gives an item back. Null does nothing.
///
/// # Safety
/// `item` came from this cache and is not used any more.
#[inline(always)]
pub unsafe fn cache_free(cache: CacheHandle, item: *mut u8) {
    if !front::push_cache(front::process_local(), cache, item as usize) {
        cache_free_slow(cache, item, 1, "mp_cache_free");
    }
}

#[cold]
#[inline(never)]
fn cache_free_slow(cache: CacheHandle, item: *mut u8, n: usize, call: &'static str) {
    let pushed = n == 1 && front::push_cache_behind(front::process_local(), cache, item as usize);
    if !pushed && !item.is_null() {
        demand_core(call).cache_free(cache, item as usize, n, call);
    }
}

/// `n` consecutive items; 0 counts as 1.
#[must_use]
pub fn cache_alloc_array(cache: CacheHandle, n: usize) -> *mut u8 {
    match front::pop_cache_array(front::process_local(), cache, n) {
        Some(popped) => popped.get() as *mut u8,
        None => demand_core("mp_cache_alloc_array").cache_alloc_array(cache, n, Fail::Policy, "mp_cache_alloc_array"),
    }
}

/// Gives an array back, with the count that it was asked for with.
///
/// # Safety
/// `array` came from this cache and is not used any more.
pub unsafe fn cache_free_array(cache: CacheHandle, array: *mut u8, n: usize) {
    if !front::push_cache_array(front::process_local(), cache, array as usize, n) {
        cache_free_slow(cache, array, n, "mp_cache_free_array");
    }
}

/// Ends a cache; the number of items that were still live. All its slabs go back.
///
/// # Safety
/// Nobody uses the cache or an item of it during the call or afterwards.
pub unsafe fn cache_destroy(cache: CacheHandle) -> usize {
    demand_core("mp_cache_destroy").cache_destroy(cache, "mp_cache_destroy")
}

/// Gives whole free pages back to the OS. Bytes given back.
pub fn trim() -> usize {
    core().map_or(0, Core::trim)
}

/// Enters (true) or leaves a critical scope of the calling thread, in which the reserve may be used.
pub fn critical(enter: bool) {
    demand_core("mp_critical").critical(enter);
}

/// The figures; None when there is no process pool.
#[must_use]
pub fn stats() -> Option<Stats> {
    core().map(Stats::of)
}

/// Calls `f` with the table of docs/STATS.md.
pub fn with_table<R>(f: impl FnOnce(&dyn core::fmt::Display) -> R) -> Option<R> {
    core().map(|core| f(&Table(core)))
}

/// The configuration of the process pool.
#[must_use]
pub fn values() -> Option<&'static crate::config::Values> {
    core().map(|core| &core.config)
}

/// What was asked for with `try` and not granted.
#[must_use]
pub fn shortfalls() -> Option<Shortfalls> {
    core().map(|core| core.granted.short)
}

/// What was got of what was asked for at init.
#[must_use]
pub fn granted() -> Option<Granted> {
    core().map(|core| core.granted)
}

/// Checks every invariant; see [`Pool::verify`]. Nothing when there is no process pool.
///
/// # Errors
/// The first broken invariant.
pub fn verify() -> Result<(), crate::verify::Broken> {
    core().map_or(Ok(()), crate::verify::verify)
}

/// The process pool as Rust's global allocator. Made by the first allocation, from the environment's settings on top
/// of the given ones.
///
/// ```
/// use mempool::{Config, Global};
/// #[global_allocator]
/// static POOL: Global = Global::new(Config::process().segment(16 << 20));
/// let numbers: Vec<u32> = (0..1000).collect();
/// assert!(mempool::process::contains(numbers.as_ptr().cast()));
/// ```
pub struct Global {
    config: Config,
}

impl Global {
    /// With `config`, which the environment may change.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config }
    }

    #[cold]
    #[inline(never)]
    fn slow(&self, size: usize, align: usize, zeroed: bool) -> *mut u8 {
        if align <= GRANULE
            && !zeroed
            && let Some(popped) = front::pop_behind(front::process_local(), size)
        {
            return popped.get() as *mut u8;
        }
        let core = core().unwrap_or_else(|| demand("alloc", &self.config));
        core.alloc(&Request { size, align: align.max(GRANULE), zeroed }, Fail::Null)
    }
}

impl Default for Global {
    fn default() -> Self {
        Self::new(Config::process())
    }
}

// SAFETY: the pool hands out what is asked for, never the same memory twice, and never unwinds. Exhaustion gives null, so
// that Rust's own error path decides.
unsafe impl core::alloc::GlobalAlloc for Global {
    #[inline]
    unsafe fn alloc(&self, layout: core::alloc::Layout) -> *mut u8 {
        if layout.align() <= GRANULE
            && let Some(popped) = front::pop(front::process_local(), layout.size())
        {
            return popped.get() as *mut u8;
        }
        self.slow(layout.size(), layout.align(), false)
    }

    unsafe fn alloc_zeroed(&self, layout: core::alloc::Layout) -> *mut u8 {
        self.slow(layout.size(), layout.align(), true)
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, _layout: core::alloc::Layout) {
        // SAFETY: contract of `dealloc`.
        unsafe { free(object, "dealloc") };
    }

    unsafe fn realloc(&self, object: *mut u8, layout: core::alloc::Layout, size: usize) -> *mut u8 {
        let request = Request { size, align: layout.align().max(GRANULE), zeroed: false };
        demand_core("realloc").realloc(object as usize, &request, Fail::Null, "realloc")
    }
}
