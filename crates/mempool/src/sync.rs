//! The one door to atomics: `core`, or loom under `cfg(loom)`.
//!
//! All metadata that threads share is an array of these, reached by element arithmetic (never by byte
//! arithmetic), so that the very same code runs under loom, whose atomics have another size.

#[cfg(loom)]
mod quiet;
#[cfg(all(test, not(loom)))]
pub(crate) mod steps;

#[cfg(not(any(loom, test)))]
pub(crate) use core::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(not(any(loom, test)))]
pub(crate) use core::sync::atomic::AtomicPtr;
#[cfg(loom)]
pub(crate) use quiet::AtomicPtr;
// In ordinary tests every store can be the thread's last one.
#[cfg(all(test, not(loom)))]
pub(crate) use steps::{AtomicPtr, AtomicU64};

/// Tells the processor (or loom) that this is a spin.
#[inline]
pub(crate) fn spin() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Keeps what comes behind it behind what comes before it, for one who lets this thread pass a barrier meanwhile. The models know
/// no such barrier: there it is a fence, and so is the other one's, in those models that ask for it, so that it hides nothing from
/// the others.
#[inline(always)]
pub(crate) fn light_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(loom)]
    if FENCES.get() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// Whether anybody in this program reads what threads announce: the models that have a fence for the barrier.
#[inline(always)]
pub(crate) fn is_heard() -> bool {
    #[cfg(not(loom))]
    return true;
    #[cfg(loom)]
    return FENCES.get();
}

/// Stores to a word that others change meanwhile by compare-exchange, whatever they make of it. Release. In C and Rust all changes of a word have one
/// order, so that a store comes behind both of two changes that follow on one another, or before both; loom forgets that, and an
/// exchange reminds it.
#[inline(always)]
pub(crate) fn put(word: &AtomicU64, value: u64) {
    #[cfg(loom)]
    if FENCES.get() {
        word.swap(value, Ordering::Release);
        return;
    }
    word.store(value, Ordering::Release);
}

/// Before a look at an owner word and before a change of one, for the models alone. Loom compares an access with the very last one to the same
/// word: it doesn't try what another thread does between two loads, if that thread loads the word itself before it changes it.
/// So in those models that ask for it each is a change of one word more, which orders nothing.
#[inline(always)]
pub(crate) fn look() {
    #[cfg(loom)]
    if LOOKS.get() {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(loom)]
loom::lazy_static! {
    static ref COUNT: AtomicU64 = AtomicU64::new(0);
}

#[cfg(loom)]
std::thread_local! {
    /// Whether looks are counted in the model that this thread of the operating system explores.
    pub(crate) static LOOKS: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
    /// Whether the model that this thread of the operating system explores has fences in place of a barrier.
    pub(crate) static FENCES: core::cell::Cell<bool> = const { core::cell::Cell::new(false) };
}

/// What one does who has spun for long: who is waited for may not be running, and never will where many spin, or one of a higher priority. It is
/// told how often it was called.
pub(crate) type GiveWay = fn(u32);

/// How often one looks before giving way.
#[cfg(not(loom))]
const PATIENCE: u32 = 64;

/// Runs `f` while no other thread is in such a call with the same word, which is 0 when nobody is. For what happens
/// seldom and takes no time: waiting is spinning, at first. Never held across a callback or a system call. The models leave it
/// out: it keeps nothing apart that they do.
#[cfg(loom)]
pub(crate) fn alone<R>(_: &AtomicU64, _: GiveWay, f: impl FnOnce() -> R) -> R {
    f()
}

/// As above.
#[cfg(not(loom))]
pub(crate) fn alone<R>(word: &AtomicU64, give_way: GiveWay, f: impl FnOnce() -> R) -> R {
    let mut looks = 0_u32;
    // Acquire pairs with the Release below: what the last holder did is seen.
    while word.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(PATIENCE) { give_way(looks / PATIENCE) } else { spin() }
    }
    let result = f();
    word.store(0, Ordering::Release);
    result
}
