//! Large objects.

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "large",
    about: "Buffers: images, matrices, network and file blocks, column stores. A random one of a few large objects is \
            freed and another made in its place; sizes are spread evenly over the powers of two. The memory is used \
            (each OS page touched) or not.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "live", default: 16, about: "objects alive at once in each thread" },
        Parameter { name: "least", default: 1 << 20, about: "bytes of the smallest object" },
        Parameter { name: "most", default: 32 << 20, about: "bytes of the largest object" },
        Parameter { name: "pairs", default: 1_000, about: "frees and allocations of each thread" },
        Parameter { name: "touch", default: 1, about: "1: each OS page of an object is written to" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (live, least, most) = (job.get("live"), job.get("least"), job.get("most"));
    let (pairs, touch) = (job.scaled(job.get("pairs")), job.get("touch") == 1);
    let make = move |random: &mut Random| {
        let object = Object::new(random.log_between(least, most), random.bits());
        if touch {
            object.touch();
        }
        object
    };
    let prepare = |thread: usize| {
        let mut random = Random::new(thread as u64);
        let set: Vec<Object> = (0..live).map(|_| make(&mut random)).collect();
        (set, random)
    };
    super::together(job, prepare, |_, (mut set, mut random)| {
        let mut checksum = 0u64;
        for _ in 0..pairs {
            let place = random.below(live);
            checksum = checksum.wrapping_add(set[place].free());
            set[place] = make(&mut random);
        }
        Done { rest: set, ..Done::new(2 * pairs as u64, checksum) }
    })
}
