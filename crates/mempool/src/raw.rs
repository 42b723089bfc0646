//! [`RawCache`]: a cache whose items are bytes of a size that only the running program knows.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::error::AllocError;
use crate::front::{self, CacheError, CacheHandle, CacheInfo, Fail};
use crate::pool::Pool;

/// A named supplier of items of one size and alignment, with slabs of its own. [`crate::Cache`] is the same for values
/// of a type.
///
/// ```
/// use std::alloc::Layout;
/// let pool = mempool::Pool::builder().segment(4 << 20).build()?;
/// let rows = pool.raw_cache("row", Layout::from_size_align(100, 4)?)?;
/// let row = rows.alloc()?;
/// // SAFETY: allocated above, not used afterwards.
/// unsafe { rows.free(row) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RawCache<'p> {
    pool: &'p Pool,
    handle: CacheHandle,
    item: Layout,
}

impl Pool {
    /// Makes a cache of items of `item`'s size and alignment. O(caches).
    ///
    /// # Errors
    /// As [`Pool::cache`].
    pub fn raw_cache(&self, name: &str, item: Layout) -> Result<RawCache<'_>, CacheError> {
        RawCache::made_for(self, name, item, None)
    }
}

impl<'p> RawCache<'p> {
    /// A cache that is charged to a budget, if one is given.
    pub(crate) fn made_for(
        pool: &'p Pool,
        name: &str,
        item: Layout,
        budget: Option<usize>,
    ) -> Result<Self, CacheError> {
        let handle = pool.core().cache_create_for(name, item.size(), item.align(), budget, false)?;
        Ok(RawCache { pool, handle, item })
    }
}

impl RawCache<'_> {
    /// What the cache is.
    #[must_use]
    pub fn info(&self) -> Option<CacheInfo> {
        self.pool.core().cache_info(self.handle)
    }

    /// An item; its content is undefined. O(1) amortised.
    ///
    /// # Errors
    /// The pool is exhausted, unless its policy is to abort.
    #[inline]
    pub fn alloc(&self) -> Result<NonNull<u8>, AllocError> {
        self.serve_one(Fail::Policy)
    }

    /// As [`RawCache::alloc`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted.
    #[inline]
    pub fn try_alloc(&self) -> Result<NonNull<u8>, AllocError> {
        self.serve_one(Fail::Try)
    }

    /// `n` consecutive items, one item's size (rounded up to its alignment) apart; 0 counts as 1. O(slab).
    ///
    /// # Errors
    /// The pool is exhausted, unless its policy is to abort.
    pub fn alloc_array(&self, n: usize) -> Result<NonNull<u8>, AllocError> {
        self.serve(n, Fail::Policy)
    }

    /// As [`RawCache::alloc_array`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted.
    pub fn try_alloc_array(&self, n: usize) -> Result<NonNull<u8>, AllocError> {
        self.serve(n, Fail::Try)
    }

    #[inline]
    fn serve_one(&self, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        match front::pop_cache(self.pool.local(), self.handle) {
            Some(item) => Ok(NonNull::with_exposed_provenance(item)),
            None => self.serve_one_behind(fail),
        }
    }

    /// What comes behind the hot path.
    #[inline(never)]
    fn serve_one_behind(&self, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        if let Some(item) = front::pop_cache_behind(self.pool.local(), self.handle) {
            return Ok(NonNull::with_exposed_provenance(item));
        }
        let item = self.pool.core().cache_alloc(self.handle, fail, "RawCache::alloc");
        NonNull::new(item).ok_or(self.exhausted(1))
    }

    fn serve(&self, n: usize, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        if n < 2 {
            return self.serve_one(fail);
        }
        if let Some(array) = front::pop_cache_array(self.pool.local(), self.handle, n) {
            return Ok(NonNull::with_exposed_provenance(array));
        }
        let array = self.pool.core().cache_alloc_array(self.handle, n, fail, "RawCache::alloc_array");
        NonNull::new(array).ok_or(self.exhausted(n))
    }

    const fn exhausted(&self, n: usize) -> AllocError {
        AllocError::Exhausted { bytes: self.item.size().saturating_mul(n), align: self.item.align() }
    }

    /// Gives an item back. O(1) amortised. A wrong pointer ends the process.
    ///
    /// # Safety
    /// `item` came from [`RawCache::alloc`] of this cache, has not been freed, and is not used any more.
    #[inline]
    pub unsafe fn free(&self, item: NonNull<u8>) {
        let address = item.as_ptr() as usize;
        if !front::push_cache(self.pool.local(), self.handle, address) {
            self.free_behind(address);
        }
    }

    /// What comes behind the hot path.
    #[inline(never)]
    fn free_behind(&self, address: usize) {
        if !front::push_cache_behind(self.pool.local(), self.handle, address) {
            self.pool.core().cache_free(self.handle, address, 1, "RawCache::free");
        }
    }

    /// Gives an array back, with the count that it was asked for with. O(n / 64 + 1). A wrong count ends the process.
    ///
    /// # Safety
    /// `array` came from [`RawCache::alloc_array`] of this cache, has not been freed, and is not used any more.
    pub unsafe fn free_array(&self, array: NonNull<u8>, n: usize) {
        let address = array.as_ptr() as usize;
        if !front::push_cache_array(self.pool.local(), self.handle, address, n) {
            self.pool.core().cache_free(self.handle, address, n, "RawCache::free_array");
        }
    }

    /// Ends the cache: all its slabs go back. The number of items that were still live.
    ///
    /// # Safety
    /// No item of it is used afterwards.
    pub unsafe fn destroy(self) -> usize {
        let this = core::mem::ManuallyDrop::new(self);
        this.pool.core().cache_destroy(this.handle, "RawCache::destroy")
    }
}

impl Drop for RawCache<'_> {
    fn drop(&mut self) {
        self.pool.core().cache_destroy(self.handle, "RawCache::drop");
    }
}
