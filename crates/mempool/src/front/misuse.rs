//! Wrong pointers end the process, with one line that says what they are.
//!
//! `mempool: CALL(ADDRESS): WHAT`, written with `write(2)` from the stack.

use core::fmt;

use super::core::Core;
use crate::bytes::Bytes;
use crate::frag::Run;
use crate::heap::HeapError;
use crate::slab::Located;
use crate::text::Text;
use crate::units::FRAGMENT;

/// Describes one item: `item 17 of slab 3 of cache "request", 64 bytes`.
pub type ItemText = Text<160>;

/// What is wrong.
pub enum Misuse {
    /// Free already.
    DoubleFree(ItemText),
    /// Free, and used.
    UseAfterFree(ItemText),
    /// Not an item's first byte.
    Interior(ItemText),
    /// An item of a named cache, freed as if it were not.
    CacheItem(ItemText),
    /// Not an item of the cache named.
    WrongCache(ItemText, ItemText),
    /// There is no cache of this number any more.
    NoCache(u32),
    /// Of an array: the right and the wrong count.
    WrongCount(ItemText, usize, usize),
    /// Inside a run, not its first byte.
    InteriorOfRun(Run),
    /// In the pool, but nothing is allocated there.
    NotAllocated,
    /// The same of what was not freed, but used.
    NothingToUse,
    /// Not in the pool.
    Foreign,
    /// A wrong size in a sized deallocation: the size given, the bytes there.
    WrongSize(usize, usize),
    /// A wrong alignment in a sized deallocation.
    WrongAlign(usize),
    /// What the heap tier found.
    Heap(HeapError),
}

/// What was done to an object that turns out to be free.
#[derive(Clone, Copy)]
pub enum Use {
    /// It was freed.
    Free,
    /// It was looked at or resized.
    After,
}

impl Use {
    /// The misuse of a free item.
    pub fn of(self, item: ItemText) -> Misuse {
        match self {
            Self::Free => Misuse::DoubleFree(item),
            Self::After => Misuse::UseAfterFree(item),
        }
    }

    /// The misuse of an address where nothing is.
    pub fn nothing(self) -> Misuse {
        match self {
            Self::Free => Misuse::NotAllocated,
            Self::After => Misuse::NothingToUse,
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoubleFree(item) => write!(f, "double free: {} is free already", item.as_str()),
            Self::UseAfterFree(item) => write!(f, "use after free: {} is free", item.as_str()),
            Self::Interior(item) => write!(f, "invalid pointer: inside {}, not its first byte", item.as_str()),
            Self::CacheItem(item) => {
                write!(f, "wrong call: {} belongs to its cache and goes back there", item.as_str())
            }
            Self::WrongCache(item, cache) => write!(f, "wrong cache: {}, not of {}", item.as_str(), cache.as_str()),
            Self::NoCache(index) => write!(f, "no such cache: cache {index} was destroyed, or is of another pool"),
            Self::WrongCount(item, right, wrong) => {
                write!(f, "wrong count: {} begins an allocation of {right} items, not {wrong}", item.as_str())
            }
            Self::InteriorOfRun(run) => {
                write!(f, "invalid pointer: inside a run of {} bytes, not its first byte", run.len * FRAGMENT)
            }
            Self::NotAllocated => f.write_str("invalid pointer or double free: nothing is allocated there"),
            Self::NothingToUse => f.write_str("invalid pointer or use after free: nothing is allocated there"),
            Self::Foreign => f.write_str("invalid pointer: not from this pool"),
            Self::WrongSize(wrong, right) => write!(
                f,
                "wrong size: {wrong} bytes given, but {right} bytes are there (MEMPOOL_CHECK_SIZES=off overlooks it)"
            ),
            Self::WrongAlign(align) => write!(f, "wrong alignment: {align} given, which the object does not have"),
            Self::Heap(HeapError::Free) => f.write_str("double free: the object of the heap is free already"),
            Self::Heap(HeapError::Interior { start }) => {
                write!(f, "invalid pointer: inside the heap object at {start:#x}, not its first byte")
            }
            Self::Heap(HeapError::NotHere | HeapError::Busy | HeapError::TooLarge) => {
                f.write_str("invalid pointer: nothing is allocated there")
            }
            Self::Heap(HeapError::Corrupted { page }) => {
                write!(f, "corrupted tree: free memory of the heap page at {page:#x} was written to")
            }
        }
    }
}

impl Core {
    /// Reports and ends the process.
    #[cold]
    #[inline(never)]
    pub(crate) fn misuse(&self, call: &'static str, address: usize, what: &Misuse) -> ! {
        let mut text = Text::<512>::of(format_args!("mempool: {call}({address:#x}): {what}"));
        self.os.write_stderr(text.line());
        self.os.abort()
    }

    /// Describes a located item.
    pub(crate) fn item_text(&self, located: &Located<'_>) -> ItemText {
        let shape = &located.shape;
        let slab = located.slab.index();
        match self.cache_name(shape.class as usize) {
            Some(name) if shape.count > 0 => {
                Text::of(format_args!("the array of {} items of cache \"{}\"", shape.count, name.escaped()))
            }
            Some(name) => {
                let name = name.escaped();
                Text::of(format_args!("item {} of slab {slab} of cache \"{name}\", {} bytes", located.item, shape.size))
            }
            None => Text::of(format_args!("item {} of slab {slab} of size class {}", located.item, Bytes(shape.size))),
        }
    }
}
