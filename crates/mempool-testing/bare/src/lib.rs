//! A pool in a static buffer, on nothing: no standard library, no operating system, no C library.
#![no_std]

use core::alloc::Layout;
use core::mem::MaybeUninit;

use mempool::Pool;
use mempool::config::{Config, Exhausted, Small};

const BYTES: usize = 512 << 10;
static mut SLABS: [MaybeUninit<u8>; BYTES] = [MaybeUninit::uninit(); BYTES];
static mut HEAP: [MaybeUninit<u8>; BYTES] = [MaybeUninit::uninit(); BYTES];

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

fn work(pool: &Pool) -> Option<usize> {
    let mut objects = [None; 64];
    let mut total = 0;
    for round in 1..20 {
        for (place, object) in objects.iter_mut().enumerate() {
            let layout = Layout::from_size_align(1 + place * round * 7 % 3000, 8).ok()?;
            let new = pool.try_alloc_zeroed(layout).ok()?;
            if let Some(old) = object.replace(new) {
                // SAFETY: live, and forgotten.
                unsafe { pool.free(old) };
            }
            // SAFETY: live.
            total += unsafe { pool.usable_size(new) };
        }
    }
    for object in objects.into_iter().flatten() {
        // SAFETY: as above.
        unsafe { pool.free(object) };
    }
    pool.verify().ok()?;
    (pool.stats().live() == 0).then_some(total)
}

/// Runs the pool; 0 when all was well.
#[unsafe(no_mangle)]
pub extern "C" fn bare_run() -> i32 {
    // SAFETY: the only references ever made to the buffers.
    let (slabs, heap) = unsafe { (&mut *(&raw mut SLABS), &mut *(&raw mut HEAP)) };
    let config = Config::new().exhausted(Exhausted::Null).max_retries(0);
    let Ok(pool) = Pool::over(slabs, &config) else { return 1 };
    if work(&pool).is_none() {
        return 2;
    }
    let Ok(pool) = Pool::over(heap, &config.small(Small::Heap)) else { return 3 };
    if work(&pool).is_none() {
        return 4;
    }
    0
}
