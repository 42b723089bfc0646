//! Retired local heaps: what stays of the process pool for threads that outlive it.
//!
//! A thread's hot path reads the local heap that its word names, and never asks whether the pool still is there. So when the process
//! pool ends, the local heaps of other threads stay, with the OS pages in which they lie: *retired*, they serve nothing, and a late
//! use finds an end and no crash. A thread *leaves* the one that its word names by naming another one, in the next pool, or by ending.
//! From then on nobody reads it but for the list of all that are retired, and its pages go back: not at once, since what joins a pool is an
//! allocation, which makes no system call, but when the next thread or pool ends. Local heaps lie side by side, so that a page may be one of
//! several: it goes back with the last of these.
//!
//! The list and what it says of each are guarded by the lock of the list of pools; so a pool's local heaps are either found and left in the pool
//! by a thread that ends, or retired. *Limits:* what a thread does not tell that it ends, or has vanished in a fork, stays.
#![allow(unsafe_code)]

use super::core::Core;
use super::local::{LIST, delist};
use super::tls;
use crate::os::Range;
use crate::slab::LocalHeap;
use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// The first of the list. Relaxed throughout: see above.
static FIRST: AtomicU64 = AtomicU64::new(0);

/// The one at `address`, None for 0.
fn at<'a>(address: u64) -> Option<&'a LocalHeap> {
    // SAFETY: 0, or one on the list (the caller has the lock), which are there until they are taken off it.
    unsafe { (address as *const LocalHeap).as_ref() }
}

/// Calls `f` with each one of the list.
fn each(f: &mut dyn FnMut(&LocalHeap)) {
    let mut next = at(FIRST.load(Relaxed));
    while let Some(local) = next {
        f(local);
        next = at(local.next.get().addr() as u64);
    }
}

/// The word of the calling thread named `before` and does not any more. Under the list's lock.
pub fn leave(before: *const LocalHeap) {
    // The one that serves nothing has no pool either, and is never left.
    if core::ptr::eq(before, tls::none()) {
        return;
    }
    // SAFETY: null, or what the thread's word named: of a pool that is there or, if it has none, retired and not left until now.
    if let Some(local) = unsafe { before.as_ref() }.filter(|local| local.pool.get().is_null()) {
        local.set_left();
    }
}

/// Gives back the pages of all that were left.
pub fn sweep() {
    let os = crate::os::platform();
    while let Some(range) = LIST.with(take_left) {
        if range.bytes > 0 {
            // SAFETY: a part of an ended pool's reservation: nobody reads the local heap in it, and no other one lies there. If the OS
            // refuses, it stays.
            let _ = unsafe { os.release_part(range) };
        }
    }
}

/// Takes one that was left off the list: its pages, but for those in which others of the list lie. Under the lock.
fn take_left() -> Option<Range> {
    let (mut found, mut before): (Option<&LocalHeap>, Option<&LocalHeap>) = (None, None);
    let mut next = at(FIRST.load(Relaxed));
    while let Some(local) = next {
        if local.is_left() {
            found = next;
            break;
        }
        (before, next) = (next, at(local.next.get().addr() as u64));
    }
    let found = found?;
    // One store each, so that the child of a fork finds a list.
    match before {
        Some(before) => before.next.set(found.next.get()),
        None => FIRST.store(found.next.get().addr() as u64, Relaxed),
    }
    let start = core::ptr::from_ref(found);
    let (mut from, mut to) = found.pages();
    each(&mut |other| {
        let (first, last) = other.pages();
        if core::ptr::from_ref(other) < start { from = from.max(last) } else { to = to.min(first) }
    });
    let start = start.cast::<u8>().cast_mut();
    Some(Range::new(start.wrapping_add(from.wrapping_sub(start.addr())), to.saturating_sub(from)))
}

impl Core {
    /// The process pool's end: it is on no list any more, and its memory goes back to the OS, but for the pages of other threads'
    /// local heaps. Nothing else has to stay for them: they are of no pool and have no slots any more, and what their bins pop from lies
    /// elsewhere.
    pub(crate) fn dissolve(&self) {
        let (start, bytes) = self.reservation;
        let (os, unit) = (self.os, self.os.os_page().max(self.granted.huge_page));
        let mut retired: *const LocalHeap = core::ptr::null();
        delist(self, || {
            self.each_joined(&mut |local| {
                let at = core::ptr::from_ref(local).addr();
                local.retire(tls::zero(), (at / unit * unit, (at + self.local_bytes()).next_multiple_of(unit)));
                local.next.set(retired);
                retired = local;
            });
        });
        let range = |from: usize, to: usize| Range::new(start.wrapping_add(from - start.addr()), to - from);
        let give = |from: usize, to: usize| {
            if from < to {
                // SAFETY: a part of the reservation that nobody uses any more. If the OS refuses, it stays.
                let _ = unsafe { os.release_part(range(from, to)) };
            }
        };
        // Backwards: the directory of the local heaps, and this core, lie in front of them all and go last. Meanwhile those that are
        // retired are on no list, so that nobody gives them back.
        let mut end = start.addr() + bytes;
        while let Some((first, last)) = self.last_joined(end) {
            give(last, end);
            if self.is_locked() {
                // SAFETY: committed. If the OS refuses, a few pages stay locked.
                let _ = unsafe { os.unlock(range(first, last)) };
            }
            end = first;
        }
        give(start.addr(), end);
        LIST.with(|| {
            while let Some(local) = at(retired.addr() as u64) {
                retired = local.next.get();
                local.next.set(FIRST.load(Relaxed) as *const LocalHeap);
                FIRST.store(core::ptr::from_ref(local) as u64, Relaxed);
            }
        });
        sweep();
    }

    /// The pages of the last retired local heap that begins before `end`, no further than `end`.
    fn last_joined(&self, end: usize) -> Option<(usize, usize)> {
        let mut last: Option<&LocalHeap> = None;
        let address = |local: &LocalHeap| core::ptr::from_ref(local).addr();
        self.each_joined(&mut |local| {
            if address(local) < end && last.is_none_or(|last| address(last) < address(local)) {
                // SAFETY: it stays until it is on the list.
                last = Some(unsafe { &*core::ptr::from_ref(local) });
            }
        });
        last.map(|local| (local.pages().0, local.pages().1.min(end)))
    }
}
