//! The segment: one reservation, metadata inside it, described by a versioned header.

pub mod header;
pub mod layout;
pub mod real;
pub mod slot;

pub use header::{Header, MAGIC, NAME_LEN, VERSION};
pub use layout::{CACHE_WORDS, Layout, Needs, Wish};
pub use real::{Granted, Report, Shortfalls, make_huge, make_program_real, make_real, memory_for};
pub use slot::{HALF_LINE, LINE_WORDS, Owner, Slot, SlotGeometry, Slots, State};
