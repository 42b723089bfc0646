//! [`Budget`]: a cap, and a part set aside, for some caches and scoped allocations together.

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::error::AllocError;
use crate::front::{BudgetError, BudgetInfo, CacheError, Fail, Request};
use crate::pool::Pool;
use crate::raw::RawCache;
use crate::text::Text;
use crate::typed::Cache;

/// What one tenant of a pool may have. Made by [`Pool::budget`]; lives as long as the pool.
///
/// ```
/// use std::alloc::Layout;
/// let pool = mempool::Pool::builder().segment(8 << 20).reserve(1 << 20).build()?;
/// // Half a MiB is its own whatever others do, and two MiB are the most.
/// let tenant = pool.budget("tenant", 512 << 10, 2 << 20)?;
/// let orders = tenant.cache::<[u64; 8]>("order")?;
/// let order = orders.try_alloc([0; 8])?;
/// let page = tenant.scope(|| pool.try_alloc(Layout::from_size_align(4096, 16).unwrap()))??;
/// assert!(tenant.info().used > 0);
/// // SAFETY: allocated above, not used afterwards.
/// unsafe { pool.free(page) };
/// # drop(order);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Budget<'p> {
    pool: &'p Pool,
    number: usize,
}

impl core::fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.info().fmt(f)
    }
}

impl Pool {
    /// Makes a budget of at most `most` bytes, of which `least` are set aside now, in whole slots (4 to 64 KiB), out of the
    /// setting `reserve`. Charged are the slabs of its caches and of its scoped allocations, whole; of scoped allocations that no
    /// slab serves, the fragments. Linear in `least`.
    ///
    /// # Errors
    /// The name has more than 31 bytes, `least` is more than `most` or than what lies free of the reserve, or there are 16
    /// budgets already.
    pub fn budget(&self, name: &str, least: usize, most: usize) -> Result<Budget<'_>, BudgetError> {
        Ok(Budget { pool: self, number: self.core().budget_create(name, least, most)? })
    }
}

impl<'p> Budget<'p> {
    /// What it has. O(1).
    #[must_use]
    pub fn info(&self) -> BudgetInfo {
        let none = BudgetInfo { name: Text::new(), least: 0, most: 0, used: 0 };
        self.pool.core().budget_info(self.number).unwrap_or(none)
    }

    /// Makes a cache of values of type `T` that is charged to the budget. O(caches).
    ///
    /// # Errors
    /// As [`Pool::cache`].
    pub fn cache<T>(&self, name: &str) -> Result<Cache<'p, T>, CacheError> {
        Cache::made_for(self.pool, name, Some(self.number))
    }

    /// Makes a cache of items of `item`'s size and alignment that is charged to the budget. O(caches).
    ///
    /// # Errors
    /// As [`Pool::cache`].
    pub fn raw_cache(&self, name: &str, item: Layout) -> Result<RawCache<'p>, CacheError> {
        RawCache::made_for(self.pool, name, item, Some(self.number))
    }

    /// Runs `f`, in which what the calling thread allocates from the pool without naming a cache is charged to the budget.
    /// Such an object may be freed and reallocated like any other, by any thread, in and behind the scope. Scopes nest, the
    /// innermost counts; they end also by panic. In a scope each allocation and free takes the long way round.
    ///
    /// # Errors
    /// The thread has no local heap of its own; `f` was not run.
    pub fn scope<R>(&self, f: impl FnOnce() -> R) -> Result<R, BudgetError> {
        struct Scope<'a>(&'a Pool, u8);
        impl Drop for Scope<'_> {
            fn drop(&mut self) {
                // It had a local heap when the scope began.
                let _ = self.0.core().enter_budget(self.1);
            }
        }
        let before = self.pool.core().enter_budget(self.number as u8 + 1)?;
        let _scope = Scope(self.pool, before);
        Ok(f())
    }

    /// Memory for `layout`, charged to the budget, as if in a scope. O(1) amortised.
    ///
    /// # Errors
    /// The budget or the pool is exhausted, unless the pool's policy is to abort.
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.serve(layout, Fail::Policy)
    }

    /// As [`Budget::alloc`], never ending the process.
    ///
    /// # Errors
    /// The budget or the pool is exhausted.
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.serve(layout, Fail::Try)
    }

    fn serve(&self, layout: Layout, fail: Fail) -> Result<NonNull<u8>, AllocError> {
        let request = Request { size: layout.size(), align: layout.align(), zeroed: false };
        NonNull::new(self.pool.core().alloc_scoped(self.number, &request, fail))
            .ok_or(AllocError::Exhausted { bytes: layout.size(), align: layout.align() })
    }
}
