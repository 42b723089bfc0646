//! Worlds: the pools that programs run on.
#![allow(unsafe_code)]

use mempool::config::{Commit, Config, Exhausted, Lock, Small, Wish};
use mempool::{InitError, Pool};

/// Where a pool's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// A segment of the operating system.
    Os,
    /// A buffer of so many bytes, begun so many bytes behind a multiple of 64 KiB.
    Buffer(usize, usize),
}

/// A pool to be.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Its settings.
    pub config: Config,
    /// Its memory.
    pub ground: Ground,
}

impl World {
    /// A world in a segment of `bytes`, made for tests: no waiting, no locking, memory at the first touch, `null`.
    #[must_use]
    pub const fn of(bytes: usize) -> Self {
        let config = Config::new()
            .segment(bytes)
            .exhausted(Exhausted::Null)
            .commit(Commit::Lazy)
            .lock(Lock::Off)
            .huge_pages(Wish::Off)
            .max_retries(0);
        Self { config, ground: Ground::Os }
    }

    /// With `small` requests served so.
    #[must_use]
    pub const fn small(mut self, small: Small) -> Self {
        self.config = self.config.small(small);
        self
    }

    /// With slots of `1 << shift` bytes.
    #[must_use]
    pub const fn slots(mut self, shift: u32) -> Self {
        self.config = self.config.slot_shift(shift);
        self
    }

    /// In a buffer that begins `skew` bytes behind a multiple of 64 KiB.
    #[must_use]
    pub const fn buffer(mut self, skew: usize) -> Self {
        self.ground = Ground::Buffer(self.config.values().segment, skew);
        self
    }

    /// Runs `f` with the pool.
    ///
    /// # Errors
    /// The pool could not be made.
    pub fn with<R>(&self, f: impl FnOnce(&Pool) -> R) -> Result<R, InitError> {
        match self.ground {
            Ground::Os => Ok(f(&self.config.build()?)),
            Ground::Buffer(bytes, skew) => {
                let layout = std::alloc::Layout::from_size_align(bytes + skew, 1 << 16).expect("a buffer's size");
                // SAFETY: not of size 0.
                let buffer = unsafe { std::alloc::alloc(layout) };
                assert!(!buffer.is_null());
                // SAFETY: as many bytes were allocated; what is in them must not matter.
                unsafe { buffer.write_bytes(0xA5, bytes + skew) };
                // SAFETY: inside the buffer, which outlives the pool.
                let result = unsafe { Pool::over_raw(buffer.add(skew), bytes, &self.config) }.map(|pool| f(&pool));
                // SAFETY: allocated above; the pool is gone.
                unsafe { std::alloc::dealloc(buffer, layout) };
                result
            }
        }
    }
}

/// Worlds of every kind, small ones first.
#[must_use]
pub fn worlds() -> Vec<World> {
    let mut all = vec![
        World::of(256 << 10),
        World::of(256 << 10).small(Small::Heap),
        World::of(256 << 10).buffer(0),
        World::of(512 << 10).buffer(1).small(Small::Heap),
        World::of(700_001).buffer(4095),
        World::of(1 << 20),
        World::of(1 << 20).small(Small::Heap),
        World::of(1 << 20).small(Small::System),
    ];
    for shift in 12..=16 {
        all.push(World::of(4 << 20).slots(shift));
        all.push(World::of(4 << 20).slots(shift).small(Small::Heap));
    }
    all.extend([World::of(16 << 20), World::of(64 << 20), World::of(64 << 20).small(Small::Heap)]);
    all
}
