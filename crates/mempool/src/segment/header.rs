//! The header: the first bytes of the metadata, for whoever looks in from outside.
//!
//! A tool finds a pool by the mapping's name or by the magic, checks the version, and reads everything
//! else through the layout's offsets. Written once before the pool is used, constant afterwards.

use super::layout::{HEADER_BYTES, Layout};

/// The first eight bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"MEMPOOL\0");
/// Grows with every change of header, layout or encodings.
pub const VERSION: u32 = 1;
/// Bytes of a name, the terminating zero included.
pub const NAME_LEN: usize = 32;

/// See the module.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Bytes of this structure.
    pub size: u32,
    /// Address of this header in the process that owns the pool.
    pub address: u64,
    /// The process that made the pool.
    pub process: u64,
    /// Number of the pool in that process.
    pub serial: u64,
    /// The pool's name, ends with a zero byte.
    pub name: [u8; NAME_LEN],
    /// Where everything lies.
    pub layout: Layout,
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES);
