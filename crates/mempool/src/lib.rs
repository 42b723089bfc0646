//! An autonomous memory pool. See the README for what it is for.
#![no_std]

#[cfg(any(test, feature = "std", loom))]
extern crate std;

pub mod bytes;
pub mod config;
pub mod error;
pub mod os;
pub mod segment;
mod sync;
pub mod units;
