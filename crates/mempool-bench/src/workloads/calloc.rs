//! Memory that must be zero.
#![allow(unsafe_code)]

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{Random, TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "calloc",
    about: "Programs that ask for zeroed memory: tables, structures in C, numeric arrays. Random replacement with \
            calloc; sizes are spread evenly over the powers of two. Objects are checked to be zero at four places and \
            written to before they are freed.",
    kind: Kind::Single,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "live", default: 2_000, about: "objects alive at once" },
        Parameter { name: "least", default: 16, about: "bytes of the smallest object" },
        Parameter { name: "most", default: 16 << 10, about: "bytes of the largest object" },
        Parameter { name: "pairs", default: 4_000_000, about: "frees and allocations" },
    ],
    caches: false,
    run,
};

/// A zeroed object; the sum of what was found in it, which is 0.
fn make(size: usize, stamp: u64) -> (Object, u64) {
    let at = family::calloc(size);
    let places = [0, size / 3, size / 2, size - 1];
    // SAFETY: each place is inside the object.
    let found = places.iter().map(|place| u64::from(unsafe { at.add(*place).read() })).sum();
    let object = Object::over(at, size, stamp);
    // SAFETY: inside the object. Dirt in the middle, for whoever gets this memory next.
    unsafe { at.add(size / 2).write(0xff) };
    (object, found)
}

fn run(job: &mut Job) -> Done {
    let (live, least, most) = (job.get("live"), job.get("least"), job.get("most"));
    let pairs = job.scaled(job.get("pairs"));
    let sizes = sizes(1, |random| random.log_between(least, most));
    let mut set: Vec<Object> = (0..live).map(|index| make(sizes[index % TABLE] as usize, 0).0).collect();
    let mut random = Random::new(2);
    let (mut checksum, mut wrong) = (0u64, 0);
    job.begin();
    for pair in 0..pairs {
        let place = &mut set[random.below(live)];
        checksum = checksum.wrapping_add(place.free());
        let (object, found) = make(sizes[pair % TABLE] as usize, pair as u64);
        wrong += usize::from(found != 0);
        *place = object;
    }
    checksum = set.into_iter().map(Object::free).fold(checksum, u64::wrapping_add);
    let wrong = if wrong == 0 { String::new() } else { format!("{wrong} of {pairs} objects were not zero") };
    Done { wrong, ..Done::new((2 * pairs + live) as u64, checksum) }
}
