//! A system of bookkeeping, for tests: real memory from the test's own allocator, every promise of the
//! contract checked, and any call made to fail.
//!
//! Each OS page of a reservation has a state. A call whose precondition does not hold panics, with what was
//! wrong. Pages that were never committed hold [`POISON`]; `release` and `commit` check it, so a write outside
//! of committed pages is found. Time is virtual: `sleep` moves the clock. `write_stderr` is recorded,
//! `abort` panics with "aborted".
//!
//! Calls that return a `Result` are counted from 1. [`Fake::fail`] makes the Nth of them fail with a chosen
//! errno, once or for ever, among all calls or those of one name. A test that wants to see each call fail
//! runs its scenario for N = 1, 2, ... until [`Fake::calls`] stays below N.
#![allow(unsafe_code)]

use core::ffi::c_void;
use std::alloc::{Layout, alloc, dealloc};
use std::boxed::Box;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::vec::Vec;

use super::{Available, Bound, ForkChild, LockLimit, Nodes, Os, OsError, Range, ThreadExit, ThreadKey};

mod state;

/// Bytes in an OS page of this system, unless it is made with [`Fake::with_page`].
pub const OS_PAGE: usize = 4096;
/// What pages hold that were never committed.
pub const POISON: u8 = 0xDB;

/// What is known of one OS page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageState {
    /// May be read and written.
    pub committed: bool,
    /// Has been made a guard.
    pub guard: bool,
    /// Has memory for sure.
    pub present: bool,
    /// Is locked.
    pub locked: bool,
}

/// How often a planned failure strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// At the Nth call alone.
    Once,
    /// At the Nth call and all later ones.
    ForEver,
}

#[derive(Clone, Copy)]
struct Plan {
    /// Calls of this name alone; all where empty.
    only: &'static str,
    at: usize,
    errno: i32,
    strike: Strike,
    seen: usize,
}

struct Reservation {
    layout: Layout,
    pages: Vec<PageState>,
}

#[derive(Default)]
struct State {
    /// By address.
    reservations: BTreeMap<usize, Reservation>,
    plan: Option<Plan>,
    calls: Vec<&'static str>,
    stderr: Vec<u8>,
    clock: u64,
    slept: Vec<u64>,
    lock_limit: Option<usize>,
    /// Bytes of an OS page.
    page: usize,
    /// Bytes that can still be made present, and what bounds them.
    available: Option<Available>,
    /// Bytes of a transparent huge OS page, and whether faults get them.
    huge: (usize, bool),
    /// Free huge OS pages that were set aside.
    stock: usize,
    /// Where the ranges were placed, oldest first.
    placed: Vec<Nodes>,
    keys: BTreeMap<u32, ThreadExit>,
    values: HashMap<(ThreadId, u32), usize>,
    next_key: u32,
    fork_children: Vec<ForkChild>,
    names: Vec<std::string::String>,
    signals: Vec<u32>,
    notes: Vec<u8>,
    /// There is no barrier for all threads.
    no_barrier: bool,
}

/// The system. Lives for ever, as systems do.
pub struct Fake {
    state: Mutex<State>,
}

/// Whether all bytes of the page at `start` are poison.
///
/// # Safety
///
/// The page is memory of a reservation.
unsafe fn is_poisoned(start: *const u8, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    (0..bytes).all(|offset| unsafe { start.add(offset).read_volatile() } == POISON)
}

impl Fake {
    /// A fresh system.
    #[must_use]
    pub fn new() -> &'static Fake {
        Self::with_page(OS_PAGE)
    }

    /// A fresh system with OS pages of `page` bytes, a power of two.
    #[must_use]
    pub fn with_page(page: usize) -> &'static Fake {
        let state = State { page, huge: (2 << 20, true), ..State::default() };
        Box::leak(Box::new(Self { state: Mutex::new(state) }))
    }

    /// From now on so much memory is available, bounded by `bound`.
    pub fn set_available(&self, bytes: usize, bound: Bound) {
        self.state().available = Some(Available { bytes, bound });
    }

    /// From now on faults get huge OS pages, or do not.
    pub fn set_transparent(&self, size: usize, given: bool) {
        self.state().huge = (size, given);
    }

    /// So many huge OS pages are set aside and free.
    pub fn set_stock(&self, pages: usize) {
        self.state().stock = pages;
    }

    /// The system has no call that makes all threads pass a barrier.
    pub fn refuse_barriers(&self) {
        self.state().no_barrier = true;
    }

    /// Huge OS pages that are set aside and free.
    #[must_use]
    pub fn stock(&self) -> usize {
        self.state().stock
    }

    /// Where ranges were placed so far.
    #[must_use]
    pub fn placed(&self) -> Vec<Nodes> {
        self.state().placed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, call number `at` (from 1) fails with `errno`: among those called `only`, or among all
    /// where that is empty.
    pub fn fail(&self, only: &'static str, at: usize, errno: i32, strike: Strike) {
        self.state().plan = Some(Plan { only, at, errno, strike, seen: 0 });
    }

    /// No call fails any more.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// Locks of more than `bytes` bytes in all fail with ENOMEM.
    pub fn limit_locks(&self, bytes: usize) {
        self.state().lock_limit = Some(bytes);
    }

    /// The calls so far, by name, oldest first.
    pub fn calls(&self) -> Vec<&'static str> {
        self.state().calls.clone()
    }

    /// All that was written to standard error.
    pub fn stderr(&self) -> Vec<u8> {
        self.state().stderr.clone()
    }

    /// The signals that were sent to the process.
    pub fn signals(&self) -> Vec<u32> {
        self.state().signals.clone()
    }

    /// All that was written to the program's descriptors, each message behind its descriptor's number.
    pub fn notes(&self) -> Vec<u8> {
        self.state().notes.clone()
    }

    /// The sleeps so far, in nanoseconds.
    pub fn sleeps(&self) -> Vec<u64> {
        self.state().slept.clone()
    }

    /// The names given so far.
    pub fn names(&self) -> Vec<std::string::String> {
        self.state().names.clone()
    }

    /// Bytes reserved and not released: 0 when nothing leaks.
    pub fn reserved_bytes(&self) -> usize {
        self.state().count(|_| true)
    }

    /// Bytes committed now.
    pub fn committed_bytes(&self) -> usize {
        self.state().count(|page| page.committed)
    }

    /// Bytes locked now.
    pub fn locked_bytes(&self) -> usize {
        self.state().count(|page| page.locked)
    }

    /// Keys that were created and not deleted.
    pub fn thread_keys(&self) -> usize {
        self.state().keys.len()
    }

    /// The state of the OS page at `address`, which must be reserved.
    #[must_use]
    pub fn page(&self, address: *mut u8) -> PageState {
        let mut state = self.state();
        let page = state.page;
        let start = address.map_addr(|address| address & !(page - 1));
        state.pages("page", Range::new(start, page))[0]
    }

    /// Does for the calling thread what its end would do: up to 4 rounds over the stored pointers.
    pub fn run_thread_exit(&self) {
        for _ in 0..4 {
            let mut due = Vec::new();
            {
                let state = &mut *self.state();
                let me = thread::current().id();
                for ((_, key), value) in
                    state.values.iter_mut().filter(|((thread, _), value)| *thread == me && **value != 0)
                {
                    due.extend(state.keys.get(key).map(|on_exit| (*on_exit, core::mem::take(value))));
                }
            }
            for (on_exit, value) in due {
                // SAFETY: the pointer was stored for this function.
                unsafe { on_exit(core::ptr::with_exposed_provenance_mut(value)) };
            }
        }
    }

    /// Runs the handlers for the child of a fork.
    pub fn run_fork_child(&self) {
        let children = self.state().fork_children.clone();
        // SAFETY: handlers for this purpose, called once each as after a fork.
        children.into_iter().for_each(|child| unsafe { child() });
    }
}

// SAFETY: reservations are allocations, so disjoint; `commit` clears pages that were not committed.
unsafe impl Os for Fake {
    fn os_page(&self) -> usize {
        self.state().page
    }

    fn reserve(&self, bytes: usize, align: usize) -> Result<*mut u8, OsError> {
        let mut state = self.state();
        let page = state.page;
        assert!(bytes > 0 && bytes.is_multiple_of(page), "reserve: {bytes} bytes");
        assert!(align.is_power_of_two() && align >= page, "reserve: align {align}");
        state.enter("reserve")?;
        let layout =
            Layout::from_size_align(bytes, align).map_err(|_| OsError { call: "reserve", errno: OsError::ENOMEM })?;
        // SAFETY: the size is above 0; the memory is written before anything reads it.
        let start = unsafe {
            let start = alloc(layout);
            if start.is_null() {
                return Err(OsError { call: "reserve", errno: OsError::ENOMEM });
            }
            start.write_bytes(POISON, bytes);
            start
        };
        let pages = std::vec![PageState::default(); bytes / page];
        state.reservations.insert(start.expose_provenance(), Reservation { layout, pages });
        Ok(start)
    }

    unsafe fn commit(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("commit")?;
        let bytes = state.page;
        for (number, page) in state.pages("commit", range).iter_mut().enumerate() {
            let start = range.start.wrapping_add(number * bytes);
            if !page.committed {
                // SAFETY: a page of a reservation that nobody may use yet.
                unsafe {
                    assert!(page.guard || is_poisoned(start, bytes), "commit: written to before, at {start:?}");
                    start.write_bytes(0, bytes);
                }
            }
            *page = PageState { committed: true, guard: false, ..*page };
        }
        Ok(())
    }

    unsafe fn prefault(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("prefault")?;
        state.committed("prefault", range).iter_mut().for_each(|page| page.present = true);
        Ok(())
    }

    unsafe fn lock(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("lock")?;
        let page = state.page;
        let more = state.committed("lock", range).iter().filter(|page| !page.locked).count() * page;
        if state.lock_limit.is_some_and(|limit| state.count(|page| page.locked) + more > limit) {
            return Err(OsError { call: "lock", errno: OsError::ENOMEM });
        }
        for page in state.pages("lock", range) {
            page.locked = true;
        }
        Ok(())
    }

    unsafe fn unlock(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("unlock")?;
        state.committed("unlock", range).iter_mut().for_each(|page| page.locked = false);
        Ok(())
    }

    unsafe fn decommit(&self, range: Range, locked: bool) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("decommit")?;
        let pages = state.committed("decommit", range);
        if !locked && pages.iter().any(|page| page.locked) {
            return Err(OsError { call: "decommit", errno: OsError::EINVAL });
        }
        pages.iter_mut().for_each(|page| page.present = false);
        // SAFETY: committed pages whose content nobody needs.
        unsafe { range.start.write_bytes(0, range.bytes) };
        Ok(())
    }

    unsafe fn present(&self, range: Range) -> Result<usize, OsError> {
        let mut state = self.state();
        state.enter("present")?;
        let page = state.page;
        Ok(state.committed("present", range).iter().filter(|page| page.present).count() * page)
    }

    unsafe fn guard(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("guard")?;
        for page in state.pages("guard", range) {
            *page = PageState { guard: true, ..PageState::default() };
        }
        // SAFETY: pages of a reservation that nobody may use any more.
        unsafe { range.start.write_bytes(POISON, range.bytes) };
        Ok(())
    }

    unsafe fn name(&self, range: Range, name: &str) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("name")?;
        state.pages("name", range);
        let forbidden = |byte: u8| !(0x20..0x7F).contains(&byte) || b"\\`$[]".contains(&byte);
        if name.len() > 79 || name.bytes().any(forbidden) {
            return Err(OsError { call: "name", errno: OsError::EINVAL });
        }
        state.names.push(name.into());
        Ok(())
    }

    unsafe fn huge_pages_advise(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("huge_pages_advise")?;
        state.pages("huge_pages_advise", range);
        Ok(())
    }

    unsafe fn huge_pages_make(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("huge_pages_make")?;
        let pages = state.committed("huge_pages_make", range);
        assert!(pages.iter().all(|page| page.present), "huge_pages_make: part of {range:?} is not present");
        Ok(())
    }

    unsafe fn huge_bytes(&self, range: Range) -> Result<usize, OsError> {
        let mut state = self.state();
        state.enter("huge_bytes")?;
        let (size, given) = state.huge;
        Ok(if given { range.bytes / size * size } else { 0 })
    }

    fn huge_page(&self) -> usize {
        self.state().huge.0
    }

    fn free_huge_pages(&self, _: usize) -> usize {
        self.state().stock
    }

    unsafe fn commit_huge(&self, range: Range, size: usize) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("commit_huge")?;
        assert!(range.start.addr().is_multiple_of(size) && range.bytes.is_multiple_of(size), "commit_huge: {range:?}");
        if range.bytes / size > state.stock {
            return Err(OsError { call: "commit_huge", errno: OsError::ENOMEM });
        }
        state.stock -= range.bytes / size;
        for page in state.pages("commit_huge", range) {
            assert_eq!(*page, PageState::default(), "commit_huge: part of {range:?} was committed before");
            *page = PageState { committed: true, locked: true, ..PageState::default() };
        }
        // SAFETY: pages of a reservation that nobody uses yet.
        unsafe { range.start.write_bytes(0, range.bytes) };
        Ok(())
    }

    unsafe fn place(&self, range: Range, nodes: Nodes) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("place")?;
        let touched = state.pages("place", range).iter().any(|page| page.present);
        assert!(!touched, "place: part of {range:?} was touched before");
        state.placed.push(nodes);
        Ok(())
    }

    fn available(&self) -> Result<Available, OsError> {
        let mut state = self.state();
        state.enter("available")?;
        Ok(state.available.unwrap_or(Available { bytes: usize::MAX, bound: Bound::Machine }))
    }

    fn lock_program(&self) -> (usize, usize, Result<(), OsError>) {
        (4096, 8192, self.state().enter("lock_program"))
    }

    fn prefault_stack(&self, _: usize) -> Result<(), OsError> {
        self.state().enter("prefault_stack")
    }

    fn lower_oom_score(&self, _: i32) -> Result<(), OsError> {
        self.state().enter("lower_oom_score")
    }

    unsafe fn dont_dump(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("dont_dump")?;
        state.pages("dont_dump", range);
        Ok(())
    }

    unsafe fn release(&self, range: Range) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("release")?;
        let bytes = state.page;
        let start = range.start.addr();
        let found = state.reservations.get(&start).unwrap_or_else(|| panic!("release: {range:?} is no reservation"));
        assert_eq!(found.layout.size(), range.bytes, "release: {range:?} is not the whole reservation");
        for (number, page) in found.pages.iter().enumerate().filter(|(_, page)| !page.committed) {
            let start = range.start.wrapping_add(number * bytes);
            // SAFETY: a page of this reservation.
            assert!(unsafe { is_poisoned(start, bytes) }, "release: {page:?} at {start:?} was written to");
        }
        let layout = found.layout;
        state.reservations.remove(&start);
        // SAFETY: allocated by `reserve` with this layout, and not used any more.
        unsafe { dealloc(range.start, layout) };
        Ok(())
    }

    unsafe fn release_part(&self, range: Range) -> Result<(), OsError> {
        self.state().enter("release_part")?;
        // SAFETY: nobody touches it any more (contract).
        unsafe { self.guard(range) }
    }

    fn lock_limit(&self) -> Result<LockLimit, OsError> {
        let mut state = self.state();
        state.enter("lock_limit")?;
        let limit = state.lock_limit.unwrap_or(usize::MAX);
        let locked = state.count(|page| page.locked);
        Ok(LockLimit { soft: limit, hard: limit, locked })
    }

    fn process(&self) -> u32 {
        0
    }

    fn thread(&self) -> u32 {
        7
    }

    fn thread_name(&self) -> [u8; 16] {
        *b"fake\0\0\0\0\0\0\0\0\0\0\0\0"
    }

    fn barrier(&self) -> bool {
        !self.state().no_barrier && super::linux::Linux.barrier()
    }

    fn signal(&self, number: u32) {
        self.state().signals.push(number);
    }

    fn notify(&self, descriptor: u32, message: &[u8]) {
        self.state().notes.extend([std::format!("{descriptor}: ").as_bytes(), message].concat());
    }

    fn cores(&self) -> usize {
        2
    }

    fn write_stderr(&self, message: &[u8]) {
        self.state().stderr.extend_from_slice(message);
    }

    fn abort(&self) -> ! {
        panic!("aborted")
    }

    fn is_single_threaded(&self) -> bool {
        false
    }

    fn sleep(&self, ns: u64) {
        let mut state = self.state();
        state.clock += ns;
        state.slept.push(ns);
        drop(state);
        thread::yield_now();
    }

    fn now_ns(&self) -> u64 {
        self.state().clock
    }

    fn thread_key_create(&self, on_exit: ThreadExit) -> Result<ThreadKey, OsError> {
        let mut state = self.state();
        state.enter("thread_key_create")?;
        let key = state.next_key;
        state.next_key += 1;
        state.keys.insert(key, on_exit);
        Ok(ThreadKey(key))
    }

    fn thread_key_delete(&self, key: ThreadKey) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("thread_key_delete")?;
        state.values.retain(|(_, stored), _| *stored != key.0);
        state.keys.remove(&key.0).map(drop).ok_or(OsError { call: "thread_key_delete", errno: OsError::EINVAL })
    }

    fn set_thread_value(&self, key: ThreadKey, value: *mut c_void) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("set_thread_value")?;
        if !state.keys.contains_key(&key.0) {
            return Err(OsError { call: "set_thread_value", errno: OsError::EINVAL });
        }
        state.values.insert((thread::current().id(), key.0), value.expose_provenance());
        Ok(())
    }

    fn at_fork_child(&self, child: ForkChild) -> Result<(), OsError> {
        let mut state = self.state();
        state.enter("at_fork_child")?;
        state.fork_children.push(child);
        Ok(())
    }
}

#[cfg(test)]
#[path = "fake_tests.rs"]
mod tests;
