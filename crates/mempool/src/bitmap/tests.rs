//! Tests of the bitmaps, and the hook that stops a thread between two writes.
use std::cell::Cell;
std::thread_local! { static LEFT: Cell<Option<usize>> = const { Cell::new(None) }; }

/// What a stopped thread unwinds with.
pub(crate) struct Stopped;

/// Called after each write; unwinds when the steps that `stop_after` allowed are used up.
pub(crate) fn step() {
    LEFT.with(|left| match left.get() {
        None => {}
        Some(0) => {
            left.set(None);
            std::panic::resume_unwind(std::boxed::Box::new(Stopped));
        }
        Some(n) => left.set(Some(n - 1)),
    });
}

/// Runs `f` and stops it for ever after `steps` writes and the one that follows. True if it came to its end.
pub(crate) fn stop_after(steps: usize, f: impl FnOnce()) -> bool {
    LEFT.with(|left| left.set(Some(steps)));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    LEFT.with(|left| left.set(None));
    match result {
        Ok(()) => true,
        Err(stopped) if stopped.is::<Stopped>() => false,
        Err(other) => std::panic::resume_unwind(other),
    }
}
