//! Building and dropping hash maps.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "maps",
    about: "Dictionaries: Redis' tables, an interpreter's objects, C++'s unordered_map. Each thread fills chained hash \
            maps, whose tables grow by doubling, replaces and removes half of the entries, and drops the map.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "entries", default: 20_000, about: "entries of a map" },
        Parameter { name: "value", default: 100, about: "most bytes of a value" },
        Parameter { name: "maps", default: 60, about: "maps of each thread" },
    ],
    caches: false,
    run,
};

type Link = Option<NonNull<Entry>>;

/// An entry's head; its value lies in an object of its own.
struct Entry {
    key: u64,
    next: Link,
    value: NonNull<u8>,
    bytes: usize,
}

/// A chained hash map with a table of a power of two places.
struct Map {
    table: NonNull<Link>,
    places: usize,
    entries: usize,
}

impl Map {
    fn new() -> Self {
        Self { table: table(8), places: 8, entries: 0 }
    }

    /// The link of `key`'s chain in a table.
    fn place(table: NonNull<Link>, places: usize, key: u64) -> NonNull<Link> {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        // SAFETY: the index is below the number of places.
        unsafe { table.add(hash as usize & (places - 1)) }
    }

    /// The link that points to `key`'s entry, or the empty one at the end of its chain.
    fn find(&mut self, key: u64) -> NonNull<Link> {
        let mut link = Self::place(self.table, self.places, key);
        // SAFETY: links lie in the live table or in live entries.
        while let Some(mut entry) = unsafe { *link.as_ref() } {
            // SAFETY: an entry in a chain is live.
            let entry = unsafe { entry.as_mut() };
            if entry.key == key {
                break;
            }
            link = NonNull::from(&mut entry.next);
        }
        link
    }

    /// Sets `key`'s value to one of `bytes` bytes; how many operations that took.
    fn insert(&mut self, key: u64, bytes: usize) -> u64 {
        let value = family::malloc(bytes);
        // SAFETY: the value has at least 8 bytes.
        unsafe { value.cast::<u64>().write_unaligned(key) };
        let mut link = self.find(key);
        // SAFETY: links lie in the live table or in live entries; an entry in a chain is live.
        unsafe {
            if let Some(entry) = link.as_mut() {
                let entry = entry.as_mut();
                family::free(entry.value, entry.bytes);
                (entry.value, entry.bytes) = (value, bytes);
                return 1;
            }
            let entry = family::malloc(size_of::<Entry>()).cast::<Entry>();
            entry.write(Entry { key, next: None, value, bytes });
            *link.as_mut() = Some(entry);
        }
        self.entries += 1;
        if self.entries > self.places {
            self.grow();
        }
        2
    }

    /// Removes `key`; what its value adds to the checksum.
    fn remove(&mut self, key: u64) -> u64 {
        let mut link = self.find(key);
        // SAFETY: links lie in the live table or in live entries; the entry leaves its chain before it is freed.
        unsafe {
            let Some(entry) = *link.as_ref() else { return 0 };
            *link.as_mut() = entry.as_ref().next;
            self.entries -= 1;
            drop_entry(entry)
        }
    }

    fn grow(&mut self) {
        let (wide, places) = (table(2 * self.places), 2 * self.places);
        for index in 0..self.places {
            // SAFETY: every place of the old table is initialised, every entry in a chain live; each moves to one place
            // of the new table.
            unsafe {
                let mut link = self.table.add(index).read();
                while let Some(mut entry) = link {
                    let entry = entry.as_mut();
                    let mut place = Self::place(wide, places, entry.key);
                    link = std::mem::replace(&mut entry.next, *place.as_ref());
                    *place.as_mut() = Some(NonNull::from(entry));
                }
            }
        }
        self.drop_table();
        (self.table, self.places) = (wide, places);
    }

    fn drop_table(&self) {
        // SAFETY: allocated with these bytes, and not used any more.
        unsafe { family::free(self.table.cast(), self.places * size_of::<Link>()) };
    }

    /// Drops all; what the values add to the checksum.
    fn drop_all(self) -> u64 {
        let mut checksum = 0u64;
        for index in 0..self.places {
            // SAFETY: every place of the table is initialised, every entry in a chain live and dropped once.
            unsafe {
                let mut link = self.table.add(index).read();
                while let Some(entry) = link {
                    link = entry.as_ref().next;
                    checksum = checksum.wrapping_add(drop_entry(entry));
                }
            }
        }
        self.drop_table();
        checksum
    }
}

/// A table of empty links.
fn table(places: usize) -> NonNull<Link> {
    // All bits zero is an empty link.
    family::calloc(places * size_of::<Link>()).cast()
}

/// Frees an entry and its value; what the value adds to the checksum.
///
/// # Safety
/// The entry is live and in no chain any more.
unsafe fn drop_entry(entry: NonNull<Entry>) -> u64 {
    // SAFETY: the caller's contract; both were allocated with these bytes.
    unsafe {
        let Entry { value, bytes, .. } = entry.read();
        let content = value.cast::<u64>().read_unaligned();
        family::free(value, bytes);
        family::free(entry.cast(), size_of::<Entry>());
        content
    }
}

fn run(job: &mut Job) -> Done {
    let (entries, value) = (job.get("entries"), job.get("value"));
    let maps = job.scaled(job.get("maps"));
    super::together(
        job,
        |_| (),
        |thread, ()| {
            let (mut operations, mut checksum) = (0, 0u64);
            for number in 0..maps {
                let seed = (thread * maps + number) as u64;
                let mut map = Map::new();
                let mut random = Random::new(seed);
                for _ in 0..entries {
                    let key = random.bits();
                    operations += map.insert(key, 8 + key as usize % (value - 7));
                }
                let mut again = Random::new(seed);
                for index in 0..entries / 2 {
                    let key = again.bits();
                    if index % 2 == 0 {
                        checksum = checksum.wrapping_add(map.remove(key));
                    } else {
                        operations += map.insert(key, 8 + index % (value - 7));
                    }
                }
                checksum = checksum.wrapping_add(map.drop_all());
            }
            // Everything that was made is freed.
            Done::new(2 * operations, checksum)
        },
    )
}
