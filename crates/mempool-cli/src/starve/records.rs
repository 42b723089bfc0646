//! Records of one size: items of a named cache on the pool, objects of the C library otherwise.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use mempool::process::{self, CacheHandle};

use super::service::Refused;

/// What the service knows of a session.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Record {
    /// Which session.
    pub id: u64,
    /// Checksum of the session's text.
    pub sum: u64,
    /// What a real program would keep here, each word `id + index`.
    pub state: [u64; 20],
}

/// A supplier of records.
#[derive(Clone, Copy)]
pub enum Records {
    /// A named cache of the process-wide pool.
    Cache(CacheHandle),
    /// The allocator of everything else.
    Plain,
}

impl Records {
    /// On the pool's named cache `session`, or not.
    ///
    /// # Errors
    /// The cache cannot be made.
    pub fn new(pool: bool) -> Result<Self, String> {
        if !pool {
            return Ok(Self::Plain);
        }
        let cache = process::cache_create("session", size_of::<Record>(), align_of::<Record>());
        cache.map(Self::Cache).map_err(|error| error.to_string())
    }

    /// A record with `value`.
    ///
    /// # Errors
    /// No memory is left.
    pub fn make(self, value: Record) -> Result<RecordBox, Refused> {
        match self {
            Self::Cache(cache) => {
                let item = NonNull::new(process::cache_alloc(cache).cast::<Record>());
                let item = item.ok_or(Refused(size_of::<Record>()))?;
                // SAFETY: an item of the cache has a record's size and alignment, and is ours alone.
                unsafe { item.write(value) };
                Ok(RecordBox::Item(item, cache))
            }
            Self::Plain => {
                let mut one = Vec::new();
                one.try_reserve_exact(1).map_err(|_| Refused(size_of::<Record>()))?;
                one.push(value);
                Ok(RecordBox::Plain(one))
            }
        }
    }
}

/// A record that goes back to its supplier when dropped.
pub enum RecordBox {
    /// An item of a cache.
    Item(NonNull<Record>, CacheHandle),
    /// A vector of one.
    Plain(Vec<Record>),
}

impl RecordBox {
    /// The record.
    pub fn get(&self) -> Option<&Record> {
        match self {
            // SAFETY: the item is live and ours until `drop`, and was written by `make`.
            Self::Item(item, _) => Some(unsafe { item.as_ref() }),
            Self::Plain(one) => one.first(),
        }
    }
}

impl Drop for RecordBox {
    fn drop(&mut self) {
        if let Self::Item(item, cache) = self {
            // SAFETY: the item came from this cache and is not used after `self`.
            unsafe { process::cache_free(*cache, item.as_ptr().cast()) };
        }
    }
}
