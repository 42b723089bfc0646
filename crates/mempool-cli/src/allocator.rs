//! The command's allocator: the C library's, until [`Switch::to_pool`] turns to the process-wide pool.
//!
//! One program can so do the same work on either. Objects made before the switch stay where they are: an address tells
//! who made it, since the pool knows its segment.
//!
//! Where `mempool bench` wants to know how many bytes a worker has alive, the worker's own objects are counted here.
//!
//! *Limits:* turned once, while the process has one thread.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mempool::{Config, Global, InitError, process};
use mempool_bench::family;

/// The two allocators, and which one serves.
pub struct Switch {
    /// The process-wide pool as an allocator.
    pool: Global,
    /// Whether the pool serves. Relaxed: set while there is one thread; a thread that starts later sees it.
    on: AtomicBool,
}

impl Switch {
    /// On the C library's allocator.
    pub const fn new() -> Self {
        Self { pool: Global::new(Config::process()), on: AtomicBool::new(false) }
    }

    /// Makes the process-wide pool, which serves from now on.
    ///
    /// # Errors
    /// The pool cannot be made; the C library goes on serving.
    pub fn to_pool(&self, config: &Config) -> Result<(), InitError> {
        process::init(config)?;
        self.on.store(true, Relaxed);
        Ok(())
    }

    fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }
}

// SAFETY: each call goes to one of two allocators that keep the contract, and an object always to the one that made it.
unsafe impl GlobalAlloc for Switch {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        family::born(layout.size());
        // SAFETY: the caller's contract is that of both.
        unsafe { if self.is_on() { self.pool.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        family::born(layout.size());
        // SAFETY: the caller's contract is that of both.
        unsafe { if self.is_on() { self.pool.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    #[inline]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        family::died(layout.size());
        // SAFETY: the pool made the object if it lies in its segment, and the C library did otherwise.
        unsafe {
            if process::contains(object) { self.pool.dealloc(object, layout) } else { System.dealloc(object, layout) }
        }
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        family::died(layout.size());
        family::born(size);
        // SAFETY: the pool made the object if it lies in its segment, and the C library did otherwise.
        unsafe {
            if process::contains(object) {
                self.pool.realloc(object, layout, size)
            } else {
                System.realloc(object, layout, size)
            }
        }
    }
}
