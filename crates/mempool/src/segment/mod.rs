//! The segment: one reservation, metadata inside it, described by a versioned header.

pub mod slot;
