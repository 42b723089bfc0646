//! Tests of the slab tier: a small world that both the loom models and the ordinary tests run in.

#[cfg(not(loom))]
mod kill;
#[cfg(loom)]
mod loom_arrays;
#[cfg(loom)]
mod loom_ends;
#[cfg(loom)]
mod loom_lent;
#[cfg(loom)]
mod loom_loosened;
#[cfg(loom)]
mod loom_owner;
#[cfg(loom)]
mod loom_queues;
#[cfg(loom)]
mod loom_reserved;
#[cfg(loom)]
mod loom_tapped;
#[cfg(not(loom))]
mod oracle;
#[cfg(not(loom))]
mod regress;
#[cfg(not(loom))]
mod reserved;
#[cfg(not(loom))]
mod threads;
mod world;
