//! What the tests, fuzzers and benchmarks share.
//!
//! [`Shadow`] drives a pool and knows what must be true of it after each step; [`Op`] is a step, read from a
//! number, so that a property test, a fuzzer and an exhaustive search all speak the same language;
//! [`World`] says on which pools programs run.

mod op;
pub mod os;
mod rng;
mod shadow;
mod world;

#[cfg(feature = "global")]
#[global_allocator]
static POOL: mempool::Global = mempool::Global::new(mempool::Config::process());

pub use op::{Mix, Op, run, sizes};
pub use rng::Rng;
pub use shadow::{Baseline, Shadow};
pub use world::{Ground, World, worlds};
