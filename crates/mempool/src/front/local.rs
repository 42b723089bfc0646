//! Threads and their local heaps: join, leave, the shared heap, thread exit and fork.
//!
//! A thread joins a pool with its first request. The directory has two words per thread: its token (0: the
//! entry is vacant) and the address of its local heap, a run of the page-frag tier that stays with the entry
//! for the next thread. A thread that finds no vacant entry, no memory for a local heap, or that has already
//! ended (destructors of other libraries still free), uses the shared heap under a spin lock.
#![allow(unsafe_code)]

use core::ffi::c_void;

use super::core::Core;
use super::retired;
use super::tls::{self, EXITED, OTHERS, Other};
use crate::config::Small;
use crate::os::{Os, ThreadKey};
use crate::slab::{LocalHeap, SHARED};
use crate::sync::AtomicU64;
use crate::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::alone;
use crate::units::{FRAGMENT, fragments_for};

/// The first thread's number in owner words.
const FIRST_ID: u32 = 2;
/// Walks over the directory in which other threads may be quicker, before a thread does without an entry for one request more.
const WALKS: usize = 64;

/// A pool's threads.
pub struct Threads {
    /// `THREAD_WORDS` words per thread: token, address of the local heap.
    pub directory: *const AtomicU64,
    pub most: usize,
    /// The shared local heap, used under `lock`.
    pub shared: *mut LocalHeap,
    /// Taken before the slab tier's, never by one who has that.
    pub lock: SpinLock,
    /// No entry below was vacant: a hint where to look first.
    pub low: AtomicU64,
    /// Threads that have an entry, claim one or are giving one up.
    pub present: AtomicU64,
    /// The most that `present` has been.
    pub peak: AtomicU64,
}

/// Lets others run: for 50 us at first, twice as long each time up to 1.6 ms.
pub fn give_way(times: u32) {
    crate::os::platform().sleep(50_000 << times.saturating_sub(1).min(5));
}

/// A lock for what happens seldom. Never held across a callback or a system call.
#[derive(Default)]
pub struct SpinLock(AtomicU64);

impl SpinLock {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Runs `f` alone.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        alone(&self.0, give_way, f)
    }

    /// The child of a fork: whoever held it is gone.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// All pools of the process, for thread exit and fork.
pub static LIST: SpinLock = SpinLock::new();
static FIRST: AtomicU64 = AtomicU64::new(0);
/// Tokens count from 1 and are never reused: the upper bits say which thread of the operating system it is.
static TOKENS: AtomicU64 = AtomicU64::new(1);
/// Bits of a token that count.
const TOKEN_BITS: u32 = 40;
static SERIALS: AtomicU64 = AtomicU64::new(1);
/// The thread-exit key plus one; 0 none yet, `NO_KEY` when the OS has none.
static KEY: AtomicU64 = AtomicU64::new(0);
const NO_KEY: u64 = u64::MAX;
/// 1 when the OS was asked to tell of forks.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// A number for a new pool.
pub fn next_serial() -> u64 {
    SERIALS.fetch_add(1, Relaxed)
}

/// Which of a thread's words for pools other than the process pool are those of the pool with this number.
const fn place_of(serial: u64) -> usize {
    (serial % OTHERS as u64) as usize
}

/// Where they are.
pub fn place_for(serial: u64) -> tls::Place {
    tls::place(place_of(serial))
}

/// Adds a pool to the process's list.
pub fn enlist(core: &Core) {
    LIST.with(|| {
        core.next.set(FIRST.load(Relaxed) as *const Core);
        // Release: the child of a fork, which takes no lock, finds what follows.
        FIRST.store(core::ptr::from_ref(core) as u64, Release);
    });
}

/// Asks to be told of forks, once. Without it a child finds what its parent's threads left; nothing else can be done.
pub fn watch_forks(os: &dyn Os) {
    if FORKS.swap(1, Relaxed) == 0 {
        let _ = os.at_fork_child(on_fork_child);
    }
}

/// Asks to be told of thread exits and forks, once. The pool must be usable: both calls may allocate.
pub fn watch_threads(core: &Core) {
    if KEY.compare_exchange(0, NO_KEY, AcqRel, Relaxed).is_ok()
        && let Ok(key) = core.os.thread_key_create(on_thread_exit)
    {
        KEY.store(u64::from(key.0) + 1, Release);
    }
    watch_forks(core.os);
}

/// Takes a pool off the process's list: no thread exit or fork looks at it afterwards. `and` is called before another one may.
pub fn delist(core: &Core, and: impl FnOnce()) {
    if let Some(words) = tls::words() {
        let token = words.token.get();
        if let Some(index) = core.threads.find(token).filter(|_| token != 0) {
            core.threads.vacate(index);
        }
        if Core::of(tls::process()).is_some_and(|c| core::ptr::eq(c, core)) {
            words.process.set(tls::none());
        }
        for Other { serial, heap } in &words.others {
            if serial.get() == core.serial {
                serial.set(0);
                heap.set(core::ptr::null());
            }
        }
    }
    let this = core::ptr::from_ref(core);
    LIST.with(|| {
        let mut at = FIRST.load(Relaxed) as *const Core;
        if at == this {
            FIRST.store(core.next.get() as u64, Relaxed);
        }
        // SAFETY: pools on the list are alive; `Pool::drop` takes them off first, under this lock.
        while let Some(pool) = unsafe { at.as_ref() } {
            if pool.next.get() == this {
                pool.next.set(core.next.get());
            }
            at = pool.next.get();
        }
        and();
    });
}

fn each_pool(mut f: impl FnMut(&Core)) {
    let mut at = FIRST.load(Relaxed) as *const Core;
    // SAFETY: the caller holds the list's lock or is alone, so that the pools on the list are alive.
    while let Some(pool) = unsafe { at.as_ref() } {
        f(pool);
        at = pool.next.get();
    }
}

/// The OS says that the calling thread ends.
extern "C" fn on_thread_exit(_value: *mut c_void) {
    let Some(words) = tls::words() else { return };
    let token = words.token.replace(EXITED);
    let before = words.process.replace(tls::none());
    for Other { serial, heap } in &words.others {
        serial.set(0);
        heap.set(core::ptr::null());
    }
    if token != 0 && token != EXITED {
        LIST.with(|| {
            each_pool(|core| core.leave(token));
            retired::leave(before);
        });
        retired::sweep();
    }
}

/// The OS says that this is the child of a fork, in which only the calling thread goes on.
extern "C" fn on_fork_child() {
    LIST.reset();
    let words = tls::words();
    let token = words.map_or(0, |words| words.token.get());
    // Its parent may have been about to end the process pool, and cannot retire this local heap any more.
    if let Some(words) = words.filter(|_| super::process_serial() == 0) {
        retired::leave(words.process.replace(tls::none()));
    }
    each_pool(|core| core.repair(token));
}

impl Threads {
    fn entry(&self, index: usize) -> (&AtomicU64, &AtomicU64) {
        debug_assert!(index < self.most);
        // SAFETY: the directory has two words for each of `most` threads.
        unsafe { (&*self.directory.add(2 * index), &*self.directory.add(2 * index + 1)) }
    }

    /// The entry of `token`.
    fn find(&self, token: u64) -> Option<usize> {
        (0..self.most).find(|&index| self.entry(index).0.load(Relaxed) == token)
    }

    /// Claims a vacant entry for `token`, among the first `peak`: each entry keeps its local heap, so that there are never more of these than threads
    /// at once. O(threads) at worst; at once when few threads come and go. None where there are more threads than entries, and where others
    /// were quicker too often.
    pub(crate) fn claim(&self, token: u64) -> Option<usize> {
        // Acquire pairs with the Release of `vacate`: who is not counted any more is seen to be gone. As the caller is counted, too, one of
        // the entries is vacant at any moment; a walk can miss it only where another thread claims one.
        let present = self.present.fetch_add(1, Acquire) + 1;
        if present <= self.most as u64 {
            let among = self.peak.fetch_max(present, Relaxed).max(present) as usize;
            if let Some(index) = (0..WALKS).find_map(|_| self.claim_among(among.min(self.most), token)) {
                return Some(index);
            }
        }
        self.present.fetch_sub(1, Release);
        None
    }

    /// One walk over the entries below `end`.
    fn claim_among(&self, end: usize, token: u64) -> Option<usize> {
        let low = self.low.load(Relaxed) as usize;
        for index in low..end {
            let word = self.entry(index).0;
            // Acquire pairs with the Release of `vacate`: the local heap is found as its last user left it.
            if word.load(Relaxed) == 0 && word.compare_exchange(0, token, Acquire, Relaxed).is_ok() {
                let _ = self.low.compare_exchange(low as u64, index as u64 + 1, Relaxed, Relaxed);
                return Some(index);
            }
        }
        // An entry that was vacated behind a walk's back may lie below.
        self.low.store(0, Relaxed);
        None
    }

    /// The most threads that there were at once, of those that have ever asked for a local heap. No more entries have been used.
    pub fn most_at_once(&self) -> usize {
        self.peak.load(Relaxed) as usize
    }

    /// Threads that have a local heap.
    pub fn count(&self) -> usize {
        let has_one = |&index: &usize| {
            let (token, address) = self.entry(index);
            token.load(Relaxed) != 0 && address.load(Relaxed) != 0
        };
        (0..self.most).filter(has_one).count()
    }

    pub(crate) fn vacate(&self, index: usize) {
        self.entry(index).0.store(0, Release);
        self.low.fetch_min(index as u64, Relaxed);
        // Last, and Release: see `claim`.
        self.present.fetch_sub(1, Release);
    }
}

impl Core {
    /// Runs `f` with a local heap that the calling thread may use: its own, or the shared one.
    pub(crate) fn with_local<R>(&self, f: impl FnOnce(&LocalHeap) -> R) -> R {
        match self.own().or_else(|| self.join()) {
            Some(local) => f(local),
            None => self.with_shared(f),
        }
    }

    /// Runs `f` with the shared heap.
    pub(crate) fn with_shared<R>(&self, f: impl FnOnce(&LocalHeap) -> R) -> R {
        // SAFETY: the shared heap lives in the metadata; the lock makes us its only user.
        self.threads.lock.with(|| f(unsafe { &*self.threads.shared }))
    }

    /// The calling thread's local heap in this pool, if it has joined.
    pub(crate) fn own(&self) -> Option<&LocalHeap> {
        self.known().or_else(|| self.of_process())
    }

    /// The same for the hot path: one that serves nothing where there is none.
    #[inline(always)]
    pub(crate) fn local(&self) -> &LocalHeap {
        self.known().unwrap_or_else(|| self.of_process().unwrap_or(tls::none()))
    }

    /// The local heap that the calling thread's words name, if this is not the process pool.
    #[inline(always)]
    fn known(&self) -> Option<&LocalHeap> {
        let (serial, heap) = tls::other(self.place);
        // SAFETY: serials are never reused, so this is this thread's local heap in this very pool, written before the serial.
        (serial == self.serial).then(|| unsafe { &*heap })
    }

    /// The same if it is.
    #[inline(never)]
    fn of_process(&self) -> Option<&LocalHeap> {
        let local = tls::process();
        core::ptr::eq(local.pool.get().cast(), self).then_some(local)
    }

    /// Gives the calling thread a local heap of its own.
    #[cold]
    pub(super) fn join(&self) -> Option<&LocalHeap> {
        self.join_within(0..0)
    }

    /// As above; where nothing is free otherwise, with a local heap from `range` of the reserve.
    pub(super) fn join_within(&self, range: core::ops::Range<usize>) -> Option<&LocalHeap> {
        let words = tls::words()?;
        let key = KEY.load(Acquire);
        if words.token.get() == EXITED || key == NO_KEY {
            return None;
        }
        // The words for pools other than the process pool are few and forget, and a scope hides them all: such a thread may
        // have joined before.
        let may_know = words.token.get() != 0;
        let token = self.token();
        let known = if may_know { self.threads.find(token) } else { None };
        let index = known.or_else(|| self.threads.claim(token))?;
        // In a drill every request takes the long way: see `drill`. But threads are counted.
        if self.drill.is_on() {
            if known.is_none() {
                self.drill.note_threads(self.threads.most_at_once());
                self.expect_exit(key, words);
            }
            return None;
        }
        let Some(local) = self.local_heap(index, known.is_none(), range) else {
            self.threads.vacate(index);
            return None;
        };
        if local.budget.get() != 0 {
            return Some(local);
        }
        if known.is_none() {
            local.marks.set(self.marks.take(token));
        }
        if super::process_serial() == self.serial {
            let before = words.process.replace(local);
            if !core::ptr::eq(before, tls::none()) {
                LIST.with(|| retired::leave(before));
            }
        } else if let Some(Other { serial, heap }) = words.others.get(place_of(self.serial)) {
            serial.set(0);
            heap.set(local);
            serial.set(self.serial);
        }
        if known.is_none() {
            self.expect_exit(key, words);
        }
        Some(local)
    }

    /// Asks to be told when the calling thread ends, with the key that `KEY` names.
    fn expect_exit(&self, key: u64, words: &tls::Words) {
        if key != 0 {
            // The value only has to be other than null. May allocate, which works by now.
            let _ = self.os.set_thread_value(ThreadKey((key - 1) as u32), core::ptr::from_ref(words).cast_mut().cast());
        }
    }

    /// The calling thread's token, given now if it has none. One that ends, or has no words, is known by its number in the system.
    pub(super) fn token(&self) -> u64 {
        let number = || u64::from(self.os.thread()) << TOKEN_BITS;
        let Some(words) = tls::words().filter(|words| words.token.get() != EXITED) else { return number().max(1) };
        if words.token.get() == 0 {
            words.token.set(number() | TOKENS.fetch_add(1, Relaxed));
        }
        words.token.get()
    }

    /// The calling thread's words name no local heap of this pool any more: it has one all the same, which `join` finds.
    pub(super) fn hide_local(&self) {
        let Some(words) = tls::words() else { return };
        if super::process_serial() == self.serial {
            words.process.set(tls::none());
        }
        for other in words.others.iter().filter(|other| other.serial.get() == self.serial) {
            other.serial.set(0);
        }
    }

    /// The local heap of directory entry `index`, made if there is none yet, if need be in `range` of the reserve; emptied if `fresh`.
    fn local_heap(&self, index: usize, fresh: bool, range: core::ops::Range<usize>) -> Option<&LocalHeap> {
        let word = self.threads.entry(index).1;
        let mut address = word.load(Relaxed) as usize;
        if address == 0 {
            let len = fragments_for(self.local_bytes());
            let run = self.frag.take_internal(len, 1).or_else(|| self.frag.take_internal_within(range, len))?;
            address = self.data + run.start * FRAGMENT;
        } else if !fresh {
            // SAFETY: this entry is the calling thread's, and so is the local heap that it wrote.
            return Some(unsafe { &*(address as *const LocalHeap) });
        }
        let at = address as *mut LocalHeap;
        self.slabs.undisturbed(|| {
            if word.load(Relaxed) == 0 {
                // SAFETY: the run is this entry's, which the calling thread has just claimed.
                unsafe { self.write_local(at, index as u32 + FIRST_ID) };
            }
            // SAFETY: written, now or for the thread that had the entry before.
            let local = unsafe { &*at };
            local.renew(core::ptr::from_ref(self).cast(), self.words(self.layout.zero));
            self.clear_store(local);
            self.clear_shorts(local);
            // Release pairs with `each_joined`.
            word.store(address as u64, Release);
        });
        // SAFETY: written above.
        Some(unsafe { &*at })
    }

    /// # Safety
    /// `at` is valid for a local heap of this pool, and nobody uses it.
    unsafe fn write_local(&self, at: *mut LocalHeap, id: u32) {
        let classes = self.layout.classes as usize;
        let pool = core::ptr::from_ref(self).cast();
        let zero = self.words(self.layout.zero);
        // SAFETY: contract.
        unsafe { LocalHeap::write(at, id, &self.slabs.slots, (self.data, self.data_len), pool, classes, zero) };
    }

    /// The number that the operating system's tools show for the thread with the local heap `id`; None for the shared
    /// heap. In the child of a fork the surviving thread keeps its parent's.
    pub(crate) fn os_thread(&self, id: u32) -> Option<u32> {
        let index = id.checked_sub(FIRST_ID)? as usize;
        let token = (index < self.threads.most).then(|| self.threads.entry(index).0.load(Relaxed))?;
        Some((token >> TOKEN_BITS) as u32)
    }

    /// The local heap with the number `id`, whoever uses it; None for the shared one, and for numbers that none has had.
    pub(super) fn local_of(&self, id: u32) -> Option<&LocalHeap> {
        let index = id.checked_sub(FIRST_ID)? as usize;
        let address = (index < self.threads.most).then(|| self.threads.entry(index).1.load(Acquire))?;
        // SAFETY: local heaps are never freed while the pool lives.
        unsafe { (address as *const LocalHeap).as_ref() }
    }

    /// Makes the shared heap. Once, before the pool is used, and in the child of a fork.
    pub(crate) fn write_shared(&self) {
        // SAFETY: nobody else runs at these two moments.
        unsafe { self.write_local(self.threads.shared, SHARED) };
    }

    /// The thread with `token` ends.
    fn leave(&self, token: u64) {
        self.marks.take(token);
        let Some(index) = self.threads.find(token) else { return };
        let address = self.threads.entry(index).1.load(Relaxed) as usize;
        // SAFETY: the entry is the calling thread's, its local heap lives in the pool.
        if let Some(local) = unsafe { (address as *const LocalHeap).as_ref() } {
            self.empty_store(local);
            self.slabs.leave(self, local);
        }
        self.threads.vacate(index);
    }

    /// Gives up all that the calling thread keeps: empty slabs and parked runs go back, other slabs become nobody's.
    pub(crate) fn relinquish(&self) {
        if let Some(local) = self.own().or_else(|| self.join()) {
            self.empty_store(local);
            self.slabs.leave(self, local);
        }
    }

    /// The child of a fork: only the thread with `token` (0: none yet) goes on.
    fn repair(&self, token: u64) {
        self.threads.lock.reset();
        self.drill.detach();
        self.frag.repair(&mut |keep| self.internal_runs(keep));
        self.forget_shorts();
        // Nobody else has heap pages, and looking for them brings the descriptors of all slots.
        if self.config.small == Small::Heap {
            self.heap.repair(self);
        }
        let mine = if token == 0 { None } else { self.threads.find(token) };
        self.slabs.repair(self, mine.map_or(0, |index| index as u32 + FIRST_ID));
        for index in (0..self.threads.most).filter(|&index| Some(index) != mine) {
            let token = self.threads.entry(index).0;
            if token.load(Relaxed) != 0 {
                token.store(0, Relaxed);
            }
        }
        self.threads.low.store(0, Relaxed);
        // The local heaps of those who are gone stay with their entries, and the peak with them.
        self.threads.present.store(mine.is_some().into(), Relaxed);
        self.recharge();
        self.marks.keep(token);
        self.common.reset();
        self.write_shared();
    }

    /// Calls `f` with every run that holds a local heap.
    pub(crate) fn internal_runs(&self, f: &mut dyn FnMut(crate::frag::Run)) {
        let len = fragments_for(self.local_bytes());
        for index in 0..self.threads.most {
            let address = self.threads.entry(index).1.load(Relaxed) as usize;
            if let Some(start) = self.fragment_at(address) {
                f(crate::frag::Run { start, len });
            }
        }
    }

    /// Calls `f` with every local heap of a thread that there is, whether somebody uses it or not.
    pub(super) fn each_known(&self, f: &mut dyn FnMut(&LocalHeap)) {
        for index in 0..self.threads.most {
            // SAFETY: local heaps are never freed while the pool lives. Acquire pairs with the Release in `local_heap`.
            if let Some(local) = unsafe { (self.threads.entry(index).1.load(Acquire) as *const LocalHeap).as_ref() } {
                f(local);
            }
        }
    }

    /// Calls `f` with the local heap of every thread that has joined.
    pub(crate) fn each_joined(&self, f: &mut dyn FnMut(&LocalHeap)) {
        for index in 0..self.threads.most {
            let (token, address) = self.threads.entry(index);
            if token.load(Acquire) == 0 {
                continue;
            }
            // SAFETY: local heaps are never freed while the pool lives.
            if let Some(local) = unsafe { (address.load(Acquire) as *const LocalHeap).as_ref() } {
                f(local);
            }
        }
    }

    /// Calls `f` with every local heap that a thread uses, while nobody goes through the bins of one. The threads must be kept from using what `f`
    /// changes.
    pub(crate) fn each_local(&self, f: &mut dyn FnMut(&LocalHeap)) {
        // In this order, as whoever uses the shared heap and goes through its bins.
        self.with_shared(|shared| {
            self.slabs.undisturbed(|| {
                self.each_joined(f);
                f(shared);
            });
        });
    }
}
