//! The C interface: `mp_*` and `mempool_*` over the process pool, declared in include/mempool.h.
//!
//! What each function promises is written in the header, once; here is only how. The hot path of an allocation
//! or free is the library's own, inlined; whatever leaves it is cold, and only there errno is looked after:
//! a free keeps it, a null sets it to ENOMEM or EINVAL.
//!
//! *Limits:* no `malloc` is exported, so that linking this library replaces nobody's allocator. Nothing here
//! allocates but from the pool, and nothing panics. A test compiles the header against the signatures, sizes and
//! offsets of this crate.

mod alloc;
mod budget;
mod cache;
mod config;
mod error;
mod pool;
mod stats;

pub use alloc::*;
pub use budget::*;
pub use cache::*;
pub use config::*;
pub use error::*;
pub use pool::*;
pub use stats::*;
