//! Typed caches: [`Cache<T>`] with owning boxes and slices that drop their values.
#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::error::AllocError;
use crate::front::{self, CacheError, CacheHandle, CacheInfo, Fail};
use crate::pool::Pool;

/// A named supplier of values of type `T`, with slabs of its own that it shares with no other cache.
///
/// ```
/// let pool = mempool::Pool::builder().segment(4 << 20).build()?;
/// let requests = pool.cache::<[u64; 4]>("request")?;
/// let request = requests.alloc([1, 2, 3, 4])?;
/// assert_eq!(request[2], 3);
/// let batch = requests.alloc_slice(10, |i| [i as u64; 4])?;
/// assert_eq!(batch.len(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<'p, T> {
    pool: &'p Pool,
    handle: CacheHandle,
    items: PhantomData<fn() -> T>,
}

impl Pool {
    /// Makes a cache of values of type `T`. O(caches).
    ///
    /// # Errors
    /// The name has more than 31 bytes, `T` is larger than 1 MiB or has no size, or there are too many caches.
    pub fn cache<T>(&self, name: &str) -> Result<Cache<'_, T>, CacheError> {
        Cache::made_for(self, name, None)
    }
}

impl<'p, T> Cache<'p, T> {
    /// A cache that is charged to a budget, if one is given.
    pub(crate) fn made_for(pool: &'p Pool, name: &str, budget: Option<usize>) -> Result<Self, CacheError> {
        let handle = pool.core().cache_create_for(name, size_of::<T>(), align_of::<T>(), budget, false)?;
        Ok(Cache { pool, handle, items: PhantomData })
    }
}

impl<T> Cache<'_, T> {
    /// What the cache is.
    #[must_use]
    pub fn info(&self) -> Option<CacheInfo> {
        self.pool.core().cache_info(self.handle)
    }

    /// Puts `value` into an item. O(1) amortised.
    ///
    /// # Errors
    /// The pool is exhausted (`value` is dropped), unless its policy is to abort.
    #[inline]
    pub fn alloc(&self, value: T) -> Result<CacheBox<'_, T>, AllocError> {
        self.place(value, Fail::Policy)
    }

    /// As [`Cache::alloc`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted.
    #[inline]
    pub fn try_alloc(&self, value: T) -> Result<CacheBox<'_, T>, AllocError> {
        self.place(value, Fail::Try)
    }

    #[inline]
    fn place(&self, value: T, fail: Fail) -> Result<CacheBox<'_, T>, AllocError> {
        let item = match front::pop_cache(self.pool.local(), self.handle) {
            Some(item) => NonNull::with_exposed_provenance(item),
            None => self.item_behind(fail)?,
        };
        // SAFETY: an item of this cache has T's size and alignment and is ours.
        unsafe { item.write(value) };
        Ok(CacheBox { item, cache: self })
    }

    /// What comes behind the hot path.
    #[inline(never)]
    fn item_behind(&self, fail: Fail) -> Result<NonNull<T>, AllocError> {
        if let Some(item) = front::pop_cache_behind(self.pool.local(), self.handle) {
            return Ok(NonNull::with_exposed_provenance(item));
        }
        let item = self.pool.core().cache_alloc(self.handle, fail, "Cache::alloc");
        NonNull::new(item.cast()).ok_or(Self::exhausted(1))
    }

    const fn exhausted(n: usize) -> AllocError {
        AllocError::Exhausted { bytes: size_of::<T>().saturating_mul(n), align: align_of::<T>() }
    }

    /// `n` values in consecutive items, each made by `make` from its index. O(n).
    ///
    /// # Errors
    /// The pool is exhausted, unless its policy is to abort.
    pub fn alloc_slice(&self, n: usize, make: impl FnMut(usize) -> T) -> Result<CacheSlice<'_, T>, AllocError> {
        self.place_slice(n, make, Fail::Policy)
    }

    /// As [`Cache::alloc_slice`], never ending the process.
    ///
    /// # Errors
    /// The pool is exhausted.
    pub fn try_alloc_slice(&self, n: usize, make: impl FnMut(usize) -> T) -> Result<CacheSlice<'_, T>, AllocError> {
        self.place_slice(n, make, Fail::Try)
    }

    fn place_slice(
        &self,
        n: usize,
        mut make: impl FnMut(usize) -> T,
        fail: Fail,
    ) -> Result<CacheSlice<'_, T>, AllocError> {
        let array = match front::pop_cache_array(self.pool.local(), self.handle, n) {
            Some(popped) => popped.get() as *mut T,
            None => self.pool.core().cache_alloc_array(self.handle, n, fail, "Cache::alloc_slice").cast::<T>(),
        };
        let first = NonNull::new(array).ok_or(Self::exhausted(n))?;
        // Filled one by one, so that a panic in `make` drops what is there and gives the array back.
        let mut slice = CacheSlice { first, filled: 0, reserved: n, cache: self };
        for index in 0..n {
            // SAFETY: the array has `n` items; a type's size is a multiple of its alignment, so they lie as in a slice.
            unsafe { first.add(index).write(make(index)) };
            slice.filled += 1;
        }
        Ok(slice)
    }

    #[inline]
    fn give(&self, item: NonNull<T>) {
        let address = item.as_ptr() as usize;
        if !front::push_cache(self.pool.local(), self.handle, address) {
            self.give_behind(address);
        }
    }

    /// What comes behind the hot path.
    #[inline(never)]
    fn give_behind(&self, address: usize) {
        if !front::push_cache_behind(self.pool.local(), self.handle, address) {
            self.pool.core().cache_free(self.handle, address, 1, "CacheBox::drop");
        }
    }
}

impl<T> Drop for Cache<'_, T> {
    /// Ends the cache. Boxes and slices borrow it, so that none is left but what was forgotten.
    fn drop(&mut self) {
        self.pool.core().cache_destroy(self.handle, "Cache::drop");
    }
}

/// A value in an item of a cache; dropped, it gives the item back.
pub struct CacheBox<'c, T> {
    item: NonNull<T>,
    cache: &'c Cache<'c, T>,
}

// SAFETY: a box owns its value; the cache may be used from any thread.
unsafe impl<T: Send> Send for CacheBox<'_, T> {}
// SAFETY: a shared box gives shared access to its value alone.
unsafe impl<T: Sync> Sync for CacheBox<'_, T> {}

impl<T> CacheBox<'_, T> {
    /// Takes the value out and gives the item back.
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: the box is not dropped, so that the value is read once.
        let value = unsafe { this.item.read() };
        this.cache.give(this.item);
        value
    }
}

impl<T> Deref for CacheBox<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the item holds a value until the box is dropped.
        unsafe { self.item.as_ref() }
    }
}

impl<T> DerefMut for CacheBox<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the box is borrowed mutably.
        unsafe { self.item.as_mut() }
    }
}

impl<T> Drop for CacheBox<'_, T> {
    fn drop(&mut self) {
        let _behind = Behind(|| self.cache.give(self.item));
        // SAFETY: the value is dropped once, here.
        unsafe { self.item.drop_in_place() };
    }
}

/// What happens at the end, even if the value's own `drop` panics.
struct Behind<F: Fn()>(F);

impl<F: Fn()> Drop for Behind<F> {
    #[inline]
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<T: core::fmt::Debug> core::fmt::Debug for CacheBox<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

/// Values in consecutive items of a cache; dropped, it gives them back.
pub struct CacheSlice<'c, T> {
    first: NonNull<T>,
    /// Values there are.
    filled: usize,
    /// Items asked for: what must be given back.
    reserved: usize,
    cache: &'c Cache<'c, T>,
}

// SAFETY: as for `CacheBox`.
unsafe impl<T: Send> Send for CacheSlice<'_, T> {}
// SAFETY: as for `CacheBox`.
unsafe impl<T: Sync> Sync for CacheSlice<'_, T> {}

impl<T> Deref for CacheSlice<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `filled` values lie one behind the other.
        unsafe { core::slice::from_raw_parts(self.first.as_ptr(), self.filled) }
    }
}

impl<T> DerefMut for CacheSlice<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the slice is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.first.as_ptr(), self.filled) }
    }
}

impl<T> Drop for CacheSlice<'_, T> {
    fn drop(&mut self) {
        let values: *mut [T] = &raw mut **self;
        let _behind = Behind(|| {
            let address = self.first.as_ptr() as usize;
            let (pool, handle) = (self.cache.pool, self.cache.handle);
            if !front::push_cache_array(pool.local(), handle, address, self.reserved) {
                pool.core().cache_free(handle, address, self.reserved, "CacheSlice::drop");
            }
        });
        // SAFETY: the values are dropped once, here.
        unsafe { values.drop_in_place() };
    }
}

impl<T: core::fmt::Debug> core::fmt::Debug for CacheSlice<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        (**self).fmt(f)
    }
}

/// Vectors, boxes and maps on a pool, for collections that take an allocator.
#[cfg(feature = "allocator-api2")]
mod collections {
    use core::alloc::Layout;
    use core::ptr::NonNull;

    use allocator_api2::alloc::{AllocError, Allocator};

    use crate::pool::Pool;

    /// A block without a size: nothing of the pool. Collections make such addresses up themselves and give them back.
    fn nothing(layout: Layout) -> NonNull<u8> {
        NonNull::without_provenance(layout.align().try_into().unwrap_or(core::num::NonZeroUsize::MIN))
    }

    fn block(object: NonNull<u8>, layout: Layout) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(object, layout.size())
    }

    // SAFETY: an object stays valid until it is freed, since the pool outlives its borrow; a clone of `&Pool` is the
    // same pool; a block without a size is valid anywhere.
    unsafe impl Allocator for &Pool {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            if layout.size() == 0 {
                return Ok(block(nothing(layout), layout));
            }
            self.try_alloc(layout).map(|object| block(object, layout)).map_err(|_| AllocError)
        }

        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            if layout.size() == 0 {
                return Ok(block(nothing(layout), layout));
            }
            self.try_alloc_zeroed(layout).map(|object| block(object, layout)).map_err(|_| AllocError)
        }

        unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
            if layout.size() != 0 {
                // SAFETY: contract of `deallocate`.
                unsafe { self.free(object) };
            }
        }

        unsafe fn grow(&self, object: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
            if old.size() == 0 {
                return self.allocate(new);
            }
            // SAFETY: contract of `grow`; an object with a size is the pool's.
            let moved = unsafe { self.try_realloc(object, new) };
            moved.map(|object| block(object, new)).map_err(|_| AllocError)
        }

        unsafe fn grow_zeroed(
            &self,
            object: NonNull<u8>,
            old: Layout,
            new: Layout,
        ) -> Result<NonNull<[u8]>, AllocError> {
            if old.size() == 0 {
                return self.allocate_zeroed(new);
            }
            // SAFETY: contract of `grow_zeroed`, the same as that of `grow`.
            let grown = unsafe { self.grow(object, old, new) }?;
            // SAFETY: the block has `new.size()` bytes, no fewer than the old one, and nobody uses those behind its content.
            unsafe { grown.cast::<u8>().add(old.size()).write_bytes(0, new.size() - old.size()) };
            Ok(grown)
        }

        unsafe fn shrink(&self, object: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
            if new.size() == 0 {
                // SAFETY: contract of `shrink`: the block is not used any more.
                unsafe { self.deallocate(object, old) };
                return self.allocate(new);
            }
            // An object keeps its room, so that this needs no memory, and fails only for a larger alignment.
            // SAFETY: contract of `shrink`: the old block, no smaller than the new one, has a size.
            unsafe { self.grow(object, old, new) }
        }
    }
}
