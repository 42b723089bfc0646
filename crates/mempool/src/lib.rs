//! An autonomous memory pool. See the README for what it is for.
#![no_std]

#[cfg(any(test, feature = "std", loom))]
extern crate std;

mod bitmap;
mod bytes;
mod config;
mod error;
mod frag;
mod heap;
mod os;
mod segment;
mod slab;
mod sync;
mod units;
