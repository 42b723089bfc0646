//! The thread-local slot: eight words per thread, found without a call.
//!
//! Stable Rust's `thread_local!` in a shared library calls `__tls_get_addr`. On x86-64 Linux the slot is
//! declared in assembly and read initial-exec instead, two moves, and its initial value is the address of
//! the static local heap that serves nothing, so that the hot path needs no null check. It takes 64 bytes of
//! the static TLS block, which leaves room for `dlopen`. Elsewhere `thread_local!` serves where there is a
//! standard library; without one every thread uses the shared local heap under its lock.
//!
//! | word | meaning |
//! |---|---|
//! | 0 | the local heap of the process pool |
//! | 1 | the thread's token: 0 not given yet, [`EXITED`] when the thread's heaps are gone for good |
//! | 2, 4, 6 | serial number of another pool |
//! | 3, 5, 7 | this thread's local heap in it |
#![allow(unsafe_code)]

use core::cell::Cell;

use crate::slab::LocalHeap;
use crate::sync::AtomicU64;

/// The thread has ended: no local heap is made for it again.
pub const EXITED: u64 = u64::MAX;

static ZERO: AtomicU64 = AtomicU64::new(0);

struct Shared(LocalHeap);
// SAFETY: nothing ever writes to `NONE` but what threads announce, to an atomic: its bins pop from a word that is zero and stay as they are.
unsafe impl Sync for Shared {}

/// What threads without a local heap point to. Every pop of its bins finds zero.
static NONE: Shared = Shared(LocalHeap::none(&raw const ZERO));

/// The local heap that serves nothing.
pub fn none() -> &'static LocalHeap {
    &NONE.0
}

/// A word that is always zero.
pub fn zero() -> *const AtomicU64 {
    &raw const ZERO
}

/// The words of the calling thread.
#[repr(C)]
pub struct Words {
    pub process: Cell<*const LocalHeap>,
    pub token: Cell<u64>,
    pub others: [Other; OTHERS],
}

/// Of one of the pools other than the process pool.
#[repr(C)]
pub struct Other {
    pub serial: Cell<u64>,
    pub heap: Cell<*const LocalHeap>,
}

/// Pools other than the process pool that a thread remembers.
pub const OTHERS: usize = 3;

/// Where a thread has the words of one of these: as [`other`] reads them.
#[derive(Clone, Copy)]
pub struct Place(usize);

/// What the calling thread has there: the serial number of a pool, and its local heap in it.
#[inline(always)]
pub fn other(place: Place) -> (u64, *const LocalHeap) {
    places::other(place.0)
}

/// The place of the `n`-th of these pools, below [`OTHERS`].
pub fn place(n: usize) -> Place {
    debug_assert!(n < OTHERS);
    Place(places::place(n % OTHERS))
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod arch {
    use super::{LocalHeap, NONE, Other, Words};

    core::arch::global_asm!(
        ".pushsection .tdata.mempool_slot,\"awT\",@progbits",
        ".p2align 6",
        ".hidden mempool_slot_0_1",
        ".globl mempool_slot_0_1",
        ".type mempool_slot_0_1,@object",
        ".size mempool_slot_0_1,64",
        "mempool_slot_0_1:",
        ".quad {none}",
        ".zero 56",
        ".popsection",
        none = sym NONE,
    );

    #[inline(always)]
    pub fn process() -> &'static LocalHeap {
        let heap: *const LocalHeap;
        // SAFETY: reads word 0 of this thread's slot, which always points to a local heap that stays until the thread names
        // another one or ends, also where its pool ends before (`front::retired`).
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + mempool_slot_0_1@GOTTPOFF]",
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) heap,
                options(pure, readonly, nostack, preserves_flags)
            );
            &*heap
        }
    }

    /// From the thread's own base, which `fs` holds: two words lie there.
    pub fn place(n: usize) -> usize {
        let slot: usize;
        // SAFETY: reads a constant of the loader's.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + mempool_slot_0_1@GOTTPOFF]",
                out(reg) slot,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        slot.wrapping_add(core::mem::offset_of!(Words, others) + n * size_of::<Other>())
    }

    #[inline(always)]
    pub fn other(place: usize) -> (u64, *const LocalHeap) {
        let (serial, heap): (u64, *const LocalHeap);
        // SAFETY: reads two words of this thread's slot (`place` is what the function above gave).
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr fs:[{2}]",
                "mov {1}, qword ptr fs:[{2} + 8]",
                out(reg) serial,
                lateout(reg) heap,
                in(reg) place,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        (serial, heap)
    }

    pub fn words() -> Option<&'static Words> {
        let words: *const Words;
        // SAFETY: the address of this thread's slot; `Words` is eight words of cells that only this thread uses.
        unsafe {
            core::arch::asm!(
                "mov {0}, qword ptr [rip + mempool_slot_0_1@GOTTPOFF]",
                "add {0}, qword ptr fs:[0]",
                out(reg) words,
                options(pure, nomem, nostack)
            );
            Some(&*words)
        }
    }
}

#[cfg(all(feature = "std", not(all(target_arch = "x86_64", target_os = "linux"))))]
mod arch {
    use super::{Cell, LocalHeap, Other, Words, none};

    std::thread_local! {
        // A constant without a destructor: no allocation, no registration.
        static WORDS: Words = const {
            Words {
                process: Cell::new(core::ptr::null()),
                token: Cell::new(0),
                others: [const { Other { serial: Cell::new(0), heap: Cell::new(core::ptr::null()) } }; super::OTHERS],
            }
        };
    }

    #[inline(always)]
    pub fn process() -> &'static LocalHeap {
        let heap = WORDS.with(|words| words.process.get());
        // SAFETY: null or a local heap that lives until the thread or the pool ends.
        unsafe { heap.as_ref() }.unwrap_or(none())
    }

    pub fn words() -> Option<&'static Words> {
        // SAFETY: the words live as long as the thread; the reference is not kept across threads (`Words` is not Sync).
        WORDS.with(|words| Some(unsafe { &*core::ptr::from_ref(words) }))
    }
}

#[cfg(all(not(feature = "std"), not(all(target_arch = "x86_64", target_os = "linux"))))]
mod arch {
    use super::{LocalHeap, Words, none};

    #[inline(always)]
    pub fn process() -> &'static LocalHeap {
        none()
    }

    pub fn words() -> Option<&'static Words> {
        None
    }
}

/// By number, where there is no shorter way.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod places {
    use super::{LocalHeap, words};

    pub fn place(n: usize) -> usize {
        n
    }

    pub fn other(place: usize) -> (u64, *const LocalHeap) {
        let known = words().and_then(|words| words.others.get(place));
        known.map_or((0, core::ptr::null()), |other| (other.serial.get(), other.heap.get()))
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
use arch as places;
pub use arch::{process, words};
