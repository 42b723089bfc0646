//! The workloads of `mempool bench`: programs in small that use the malloc family alone, so that the same code runs on
//! any allocator that the dynamic linker puts in its place.
//!
//! A **workload** is a function with parameters; a **row** is a workload with given parameters, under the name that
//! `--only` knows; a [`Job`] is a row in this process, with a number of threads. Each workload does the same work
//! whatever allocator serves it, and sums what it reads back from its objects into a checksum: equal checksums show that
//! the work was done, and done right.
//!
//! *Limits:* Linux. Nothing here links another allocator.

pub mod clock;
pub mod family;
pub mod job;
pub mod latency;
pub mod object;
pub mod random;
pub mod rows;
pub mod workloads;

pub use job::{Done, Job, Kind, Mode, Parameter, Workload};
pub use rows::{POOL_ROWS, ROWS, Row};
