//! Random replacement in a live set.

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{Random, TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "replace",
    about: "A cache or a table that is full: memcached, a session store, an interpreter's heap. A random object of the \
            live set is freed and another, of another size, takes its place. Each thread has a set of its own.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "live", default: 10_000, about: "objects alive at once in each thread" },
        Parameter { name: "least", default: 8, about: "bytes of the smallest object" },
        Parameter { name: "most", default: 512, about: "bytes of the largest object" },
        Parameter { name: "pairs", default: 10_000_000, about: "frees and allocations of each thread" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (live, least, most) = (job.get("live"), job.get("least"), job.get("most"));
    let pairs = job.scaled(job.get("pairs"));
    let prepare = |thread: usize| {
        let sizes = sizes(thread as u64, |random| random.between(least, most));
        let set: Vec<Object> =
            (0..live).map(|index| Object::new(sizes[index % TABLE] as usize, index as u64)).collect();
        (sizes, set, Random::new(100 + thread as u64))
    };
    super::together(job, prepare, |_, (sizes, mut set, mut random)| {
        let mut checksum = 0u64;
        for pair in 0..pairs {
            let place = &mut set[random.below(live)];
            checksum = checksum.wrapping_add(place.free());
            *place = Object::new(sizes[pair % TABLE] as usize, pair as u64);
        }
        Done { rest: set, ..Done::new(2 * pairs as u64, checksum) }
    })
}
