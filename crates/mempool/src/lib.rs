//! An autonomous memory pool. See the README for what it is for.
#![no_std]
// The models exercise the tiers; what joins them is not there.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("mempool keeps addresses and bits in words of 64 bits: it is for processors with addresses of 64 bits");

// Only the fallback of `front::tls` needs it in a library; a panic handler of a `no_std` program may stand beside us.
#[cfg(any(test, loom, all(feature = "std", not(all(target_arch = "x86_64", target_os = "linux")))))]
extern crate std;

pub mod bitmap;
#[cfg(not(loom))]
mod budget;
pub mod bytes;
pub mod config;
mod error;
mod frag;
#[cfg(not(loom))]
mod front;
mod heap;
mod os;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
pub mod process;
#[cfg(not(loom))]
mod raw;
mod segment;
mod slab;
#[cfg(not(loom))]
mod stats;
mod sync;
mod text;
#[cfg(not(loom))]
mod typed;
mod units;
#[cfg(not(loom))]
mod verify;

pub use config::Config;
pub use error::{AllocError, InitError};
pub use segment::{Granted, Shortfalls, memory_for};
pub use text::Text;
#[cfg(not(loom))]
pub use {
    budget::Budget,
    front::{BudgetError, BudgetInfo, CacheError, CacheInfo, Verdict, Why},
    pool::{Pool, room_for_huge_pages},
    process::Global,
    raw::RawCache,
    stats::{CacheStats, Held, Stats},
    typed::{Cache, CacheBox, CacheSlice},
    verify::Broken,
};

/// The README's examples are tests too.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The tests of this crate once more, with the pool under their own feet: `RUSTFLAGS="--cfg mempool_global" cargo
/// test -p mempool --lib --config profile.dev.package.mempool.opt-level=1` (rustc 1.95 ends with a segmentation fault
/// when it optimises more).
#[cfg(all(test, mempool_global, not(loom)))]
#[global_allocator]
static POOL: Global = Global::new(Config::process());
