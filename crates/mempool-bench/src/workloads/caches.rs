//! Named caches of ten types.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::hint::black_box;
use std::ptr::NonNull;

use mempool::config::{Commit, Exhausted, Lock};
use mempool::{Config, Pool, RawCache};

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "caches",
    about: "A program with a few kinds of records that it makes and drops all the time: a kernel's inodes and sockets, a \
            database's rows and locks. Ten types from 24 to 1,000 bytes, random replacement in the live set of a random \
            type, singly or in arrays; from the pool's named caches, from slab crates, and from malloc.",
    kind: Kind::Single,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "live", default: 1_000, about: "live items or arrays of each type" },
        Parameter { name: "longest", default: 1, about: "most items of an array" },
        Parameter { name: "pairs", default: 8_000_000, about: "frees and allocations" },
    ],
    caches: true,
    run,
};

/// Items are of so many words of 8 bytes.
const WORDS: [usize; 10] = [3, 4, 6, 8, 12, 17, 25, 32, 53, 125];

/// Who makes and drops items.
trait Supplier {
    /// How an item or array is named.
    type Key: Copy;

    /// An array of `n` items of a type, all words of which are `stamp`.
    fn make(&mut self, kind: usize, n: usize, stamp: u64) -> Self::Key;

    /// Drops it; its first word plus its last.
    fn drop(&mut self, kind: usize, n: usize, key: Self::Key) -> u64;
}

/// Writes `stamp` into all words.
fn write(at: NonNull<u8>, words: usize, stamp: u64) {
    // SAFETY: callers give memory of so many words, aligned to 8, that nobody else uses.
    let words = unsafe { std::slice::from_raw_parts_mut(at.cast::<u64>().as_ptr(), words) };
    words.fill(black_box(stamp));
}

/// The first word plus the last.
fn read(at: NonNull<u8>, words: usize) -> u64 {
    // SAFETY: callers give memory of so many words, aligned to 8, all of which were written.
    let words = unsafe { std::slice::from_raw_parts(at.cast::<u64>().as_ptr(), words) };
    words[0].wrapping_add(words[words.len() - 1])
}

struct Malloc;

impl Supplier for Malloc {
    type Key = NonNull<u8>;

    fn make(&mut self, kind: usize, n: usize, stamp: u64) -> NonNull<u8> {
        let words = n * WORDS[kind];
        let at = family::malloc(8 * words);
        write(at, words, stamp);
        at
    }

    fn drop(&mut self, kind: usize, n: usize, at: NonNull<u8>) -> u64 {
        let words = n * WORDS[kind];
        let sum = read(at, words);
        // SAFETY: made above with so many bytes, dropped once.
        unsafe { family::free(at, 8 * words) };
        sum
    }
}

struct Caches<'p>(Vec<RawCache<'p>>);

impl<'p> Caches<'p> {
    fn new(pool: &'p Pool) -> Self {
        let make = |words: usize| {
            let layout = Layout::from_size_align(8 * words, 8).expect("a small layout");
            pool.raw_cache(&format!("words{words}"), layout).expect("the pool has room for ten caches")
        };
        Self(WORDS.map(make).into_iter().collect())
    }
}

impl Supplier for Caches<'_> {
    type Key = NonNull<u8>;

    fn make(&mut self, kind: usize, n: usize, stamp: u64) -> NonNull<u8> {
        let made = if n == 1 { self.0[kind].alloc() } else { self.0[kind].alloc_array(n) };
        let at = made.unwrap_or_else(|_| family::refuse(8 * n * WORDS[kind]));
        write(at, n * WORDS[kind], stamp);
        at
    }

    fn drop(&mut self, kind: usize, n: usize, at: NonNull<u8>) -> u64 {
        let sum = read(at, n * WORDS[kind]);
        // SAFETY: made above by the same cache with the same count, dropped once.
        unsafe {
            if n == 1 {
                self.0[kind].free(at);
            } else {
                self.0[kind].free_array(at, n);
            }
        }
        sum
    }
}

/// A supplier of ten typed slabs of a crate; arrays are beyond them.
macro_rules! ten_slabs {
    ($name:ident, $slab:ident, $insert:expr, $remove:expr) => {
        #[derive(Default)]
        struct $name {
            w3: $slab<[u64; 3]>,
            w4: $slab<[u64; 4]>,
            w6: $slab<[u64; 6]>,
            w8: $slab<[u64; 8]>,
            w12: $slab<[u64; 12]>,
            w17: $slab<[u64; 17]>,
            w25: $slab<[u64; 25]>,
            w32: $slab<[u64; 32]>,
            w53: $slab<[u64; 53]>,
            w125: $slab<[u64; 125]>,
        }

        impl Supplier for $name {
            type Key = usize;

            fn make(&mut self, kind: usize, _: usize, stamp: u64) -> usize {
                let stamp = black_box(stamp);
                match kind {
                    0 => $insert(&mut self.w3, [stamp; 3]),
                    1 => $insert(&mut self.w4, [stamp; 4]),
                    2 => $insert(&mut self.w6, [stamp; 6]),
                    3 => $insert(&mut self.w8, [stamp; 8]),
                    4 => $insert(&mut self.w12, [stamp; 12]),
                    5 => $insert(&mut self.w17, [stamp; 17]),
                    6 => $insert(&mut self.w25, [stamp; 25]),
                    7 => $insert(&mut self.w32, [stamp; 32]),
                    8 => $insert(&mut self.w53, [stamp; 53]),
                    _ => $insert(&mut self.w125, [stamp; 125]),
                }
            }

            fn drop(&mut self, kind: usize, _: usize, key: usize) -> u64 {
                match kind {
                    0 => $remove(&mut self.w3, key),
                    1 => $remove(&mut self.w4, key),
                    2 => $remove(&mut self.w6, key),
                    3 => $remove(&mut self.w8, key),
                    4 => $remove(&mut self.w12, key),
                    5 => $remove(&mut self.w17, key),
                    6 => $remove(&mut self.w25, key),
                    7 => $remove(&mut self.w32, key),
                    8 => $remove(&mut self.w53, key),
                    _ => $remove(&mut self.w125, key),
                }
            }
        }
    };
}

use sharded_slab::Slab as ShardedSlab;
use slab::Slab;

fn insert<const N: usize>(slab: &mut Slab<[u64; N]>, item: [u64; N]) -> usize {
    slab.insert(item)
}

fn remove<const N: usize>(slab: &mut Slab<[u64; N]>, key: usize) -> u64 {
    let sum = slab[key][0].wrapping_add(slab[key][N - 1]);
    slab.remove(key);
    sum
}

fn insert_sharded<const N: usize>(slab: &mut ShardedSlab<[u64; N]>, item: [u64; N]) -> usize {
    slab.insert(item).expect("the slab has room")
}

fn remove_sharded<const N: usize>(slab: &mut ShardedSlab<[u64; N]>, key: usize) -> u64 {
    let sum = slab.get(key).map_or(0, |item| item[0].wrapping_add(item[N - 1]));
    slab.remove(key);
    sum
}

ten_slabs!(Slabs, Slab, insert, remove);
ten_slabs!(ShardedSlabs, ShardedSlab, insert_sharded, remove_sharded);

fn run(job: &mut Job) -> Done {
    match job.supplier.as_str() {
        "pool" => {
            let config = Config::new().segment(256 << 20).commit(Commit::Lazy).lock(Lock::Off);
            let pool = config.exhausted(Exhausted::Null).build().unwrap_or_else(|error| {
                eprintln!("{error}");
                std::process::exit(family::REFUSED)
            });
            replace(job, Caches::new(&pool))
        }
        "slab" => replace(job, Slabs::default()),
        "sharded-slab" => replace(job, ShardedSlabs::default()),
        _ => replace(job, Malloc),
    }
}

fn replace<S: Supplier>(job: &mut Job, mut supplier: S) -> Done {
    let (live, longest, pairs) = (job.get("live"), job.get("longest"), job.scaled(job.get("pairs")));
    let mut random = Random::new(4);
    let mut sets: Vec<Vec<(usize, S::Key)>> = (0..WORDS.len())
        .map(|kind| {
            let mut make = |index: usize| {
                let n = random.between(1, longest);
                (n, supplier.make(kind, n, index as u64))
            };
            (0..live).map(&mut make).collect()
        })
        .collect();
    let mut checksum = 0u64;
    job.begin();
    for pair in 0..pairs {
        let kind = random.below(WORDS.len());
        let place = &mut sets[kind][random.below(live)];
        checksum = checksum.wrapping_add(supplier.drop(kind, place.0, place.1));
        let n = random.between(1, longest);
        *place = (n, supplier.make(kind, n, pair as u64));
    }
    for (kind, set) in sets.into_iter().enumerate() {
        for (n, key) in set {
            checksum = checksum.wrapping_add(supplier.drop(kind, n, key));
        }
    }
    Done::new((2 * pairs + WORDS.len() * live) as u64, checksum)
}
