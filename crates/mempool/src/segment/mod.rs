//! The segment: one reservation, metadata inside it, described by a versioned header.

pub mod header;
pub mod layout;
pub mod real;
pub mod slot;
