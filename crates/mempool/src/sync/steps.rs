//! Tests only: an `AtomicU64` and an `AtomicPtr` after whose n-th change the thread can be made to vanish, by unwinding.
//!
//! What the thread has stored by then stays, what it would have done next never happens: the picture that
//! the child of a fork finds of every thread but the forking one.

use core::ops::Deref;
use core::sync::atomic::{AtomicPtr as Pointer, AtomicU64 as Word, Ordering};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

std::thread_local! {
    /// Changes until this thread vanishes; 0: never.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// What the unwinding carries.
struct Vanished;

/// Runs `work` until it has changed `n` words. Its result, or None when it vanished before it came to one.
pub(crate) fn run_until<T>(n: u64, work: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(n);
    let result = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(0);
    match result {
        Ok(result) => Some(result),
        Err(reason) if reason.is::<Vanished>() => None,
        Err(reason) => resume_unwind(reason),
    }
}

fn step() {
    let left = LEFT.get();
    if left > 0 {
        LEFT.set(left - 1);
        if left == 1 {
            resume_unwind(std::boxed::Box::new(Vanished));
        }
    }
}

/// The core's atomic, counting its changes.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct AtomicU64(Word);

impl AtomicU64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(Word::new(value))
    }
}

impl Deref for AtomicU64 {
    type Target = Word;

    fn deref(&self) -> &Word {
        &self.0
    }
}

/// The operations that change the word; `Deref` has the others.
macro_rules! changes {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        impl AtomicU64 {
            $(
                #[allow(dead_code)]
                pub(crate) fn $name(&self, $($argument: $kind),*) -> $result {
                    let result = self.0.$name($($argument),*);
                    step();
                    result
                }
            )*
        }
    };
}

changes! {
    store(value: u64, order: Ordering) -> ();
    swap(value: u64, order: Ordering) -> u64;
    fetch_or(value: u64, order: Ordering) -> u64;
    fetch_and(value: u64, order: Ordering) -> u64;
    fetch_xor(value: u64, order: Ordering) -> u64;
    fetch_add(value: u64, order: Ordering) -> u64;
    fetch_sub(value: u64, order: Ordering) -> u64;
    fetch_max(value: u64, order: Ordering) -> u64;
    fetch_min(value: u64, order: Ordering) -> u64;
    compare_exchange(old: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64>;
    compare_exchange_weak(old: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64>;
}

/// The core's atomic pointer, counting its changes.
#[repr(transparent)]
pub struct AtomicPtr<T>(Pointer<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(Pointer::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: *mut T, order: Ordering) {
        self.0.store(value, order);
        step();
    }
}
