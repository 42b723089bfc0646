//! Models only: a pointer that threads share in those models that ask for fences, and that in all others its one user has for itself, so
//! that loom need not try what others might do between two looks at it.

use core::cell::Cell;
use loom::sync::atomic::{AtomicPtr as Word, Ordering};

use super::FENCES;

/// See above.
pub(crate) struct AtomicPtr<T> {
    shared: Word<T>,
    own: Cell<*mut T>,
}

impl<T> AtomicPtr<T> {
    pub(crate) fn new(value: *mut T) -> Self {
        Self { shared: Word::new(value), own: Cell::new(value) }
    }

    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        if FENCES.get() { self.shared.load(order) } else { self.own.get() }
    }

    pub(crate) fn store(&self, value: *mut T, order: Ordering) {
        if FENCES.get() {
            // See `put`.
            self.shared.swap(value, order);
        } else {
            self.own.set(value);
        }
    }
}
