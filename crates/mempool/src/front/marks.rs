//! Marks: what a thread is in the midst of, critical scopes and the pool's reclaim callbacks.
//!
//! They belong to the thread, while the local heap that serves it may change: in a full pool a new thread uses the shared one
//! until there is memory for one of its own. So a thread's own local heap has its marks, and as long as it has none they lie in a
//! small table of the pool, by the thread's token; `join` takes them along. Only cold paths ask.
//!
//! *Limits:* so many threads without a local heap of their own as the table has entries can be marked at a time; a further one is
//! called back for nothing and gets nothing of the reserve. One that ends while it is marked leaves its entry behind.

use super::core::Core;
use crate::sync::AtomicU64;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// Entries of the table.
const ENTRIES: usize = 32;
/// The thread is inside the pool's reclaim callbacks.
const RECLAIMING: u16 = 1;
/// One critical scope: the bits above count how deep the thread is in them.
const SCOPE: u16 = 2;

/// The marks of threads that have no local heap of their own: token of each, 0 for none, and marks.
#[derive(Default)]
pub struct Marks([[AtomicU64; 2]; ENTRIES]);

impl Marks {
    /// Changes the marks of `thread`; what they were. None, and nothing is changed, when there is no room to keep them.
    fn change(&self, thread: u64, change: impl Fn(u16) -> u16) -> Option<u16> {
        let mut entries = self.0.iter();
        // Relaxed: who finds its own token wrote it.
        let Some([token, marks]) = entries.find(|[token, _]| token.load(Relaxed) == thread) else {
            return if change(0) == 0 { Some(0) } else { self.claim(thread, change(0)) };
        };
        let before = marks.load(Relaxed) as u16;
        marks.store(u64::from(change(before)), Relaxed);
        if change(before) == 0 {
            // Release pairs with `claim`.
            token.store(0, Release);
        }
        Some(before)
    }

    fn claim(&self, thread: u64, first: u16) -> Option<u16> {
        // Acquire: the last owner's marks were stored before.
        let free = |token: &AtomicU64| token.compare_exchange(0, thread, Acquire, Relaxed).is_ok();
        let [_, marks] = self.0.iter().find(|[token, _]| token.load(Relaxed) == 0 && free(token))?;
        marks.store(u64::from(first), Relaxed);
        Some(0)
    }

    /// Takes the marks of `thread` away.
    pub(super) fn take(&self, thread: u64) -> u16 {
        self.change(thread, |_| 0).unwrap_or(0)
    }

    /// The child of a fork: only `thread` goes on.
    pub(super) fn keep(&self, thread: u64) {
        for [token, _] in self.0.iter().filter(|[token, _]| token.load(Relaxed) != thread) {
            token.store(0, Relaxed);
        }
    }
}

impl Core {
    /// Changes the calling thread's marks; what they were. None when there is no room to keep them.
    fn mark(&self, change: impl Fn(u16) -> u16) -> Option<u16> {
        match self.own().or_else(|| self.join()) {
            Some(local) => Some(local.marks.replace(change(local.marks.get()))),
            None => self.marks.change(self.token(), change),
        }
    }

    fn marked(&self) -> u16 {
        self.mark(|marks| marks).unwrap_or(0)
    }

    /// Enters (true) or leaves a critical scope of the calling thread.
    pub(crate) fn critical(&self, enter: bool) {
        self.mark(|marks| {
            let deeper = if enter { marks.checked_add(SCOPE) } else { marks.checked_sub(SCOPE) };
            deeper.unwrap_or(marks)
        });
    }

    /// Whether the calling thread is inside a critical scope.
    pub(super) fn is_in_scope(&self) -> bool {
        self.marked() >= SCOPE
    }

    /// Whether the calling thread is inside the reclaim callbacks.
    pub(crate) fn is_reclaiming(&self) -> bool {
        self.marked() & RECLAIMING != 0
    }

    /// The calling thread enters the reclaim callbacks; false when it is inside them already, or that cannot be noted.
    pub(super) fn begin_reclaiming(&self) -> bool {
        self.mark(|marks| marks | RECLAIMING).is_some_and(|before| before & RECLAIMING == 0)
    }

    /// It leaves them.
    pub(super) fn end_reclaiming(&self) {
        self.mark(|marks| marks & !RECLAIMING);
    }
}
