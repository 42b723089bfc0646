//! Memory at aligned addresses.

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{Random, TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "aligned",
    about: "Programs that ask for alignment: vectorised numerics, direct input and output, padding against false \
            sharing. Random replacement with aligned_alloc, at alignments from 32 bytes to an OS page; addresses are \
            checked.",
    kind: Kind::Single,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "live", default: 2_000, about: "objects alive at once" },
        Parameter { name: "most", default: 8, about: "most multiples of the alignment in an object" },
        Parameter { name: "align", default: 4096, about: "bytes of the largest alignment, a power of two" },
        Parameter { name: "pairs", default: 4_000_000, about: "frees and allocations" },
    ],
    caches: false,
    run,
};

/// The logarithm of the smallest alignment.
const LEAST: usize = 5;

fn make(align: u32, multiple: u32, stamp: u64) -> (Object, u64) {
    let (align, size) = (1usize << align, (multiple as usize) << align);
    let object = Object::over(family::aligned(align, size), size, stamp);
    (object, (object.address().addr().get() % align) as u64)
}

fn run(job: &mut Job) -> Done {
    let (live, pairs) = (job.get("live"), job.scaled(job.get("pairs")));
    let largest = job.get("align").max(1 << LEAST).ilog2() as usize;
    // Small alignments are the frequent ones: two draws, the smaller counts.
    let aligns = sizes(1, |random| random.between(LEAST, largest).min(random.between(LEAST, largest)));
    let multiples = sizes(2, |random| random.between(1, job.get("most")));
    let make = |index: usize| make(aligns[index % TABLE], multiples[index % TABLE], index as u64);
    let mut set: Vec<Object> = (0..live).map(|index| make(index).0).collect();
    let mut random = Random::new(3);
    let (mut checksum, mut wrong) = (0u64, 0);
    job.begin();
    for pair in 0..pairs {
        let place = &mut set[random.below(live)];
        checksum = checksum.wrapping_add(place.free());
        let (object, off) = make(pair);
        wrong += usize::from(off != 0);
        *place = object;
    }
    checksum = set.into_iter().map(Object::free).fold(checksum, u64::wrapping_add);
    let wrong = if wrong == 0 { String::new() } else { format!("{wrong} of {pairs} addresses were not aligned") };
    Done { wrong, ..Done::new((2 * pairs + live) as u64, checksum) }
}
