//! Steady work, each operation timed.

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::latency::{Latency, time};
use crate::object::Object;
use crate::random::{Random, TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "steady",
    about: "A program that must never wait: audio, trading, a control loop. Random replacement of log-normally \
            distributed sizes in a live set, after a warm-up; each malloc and each free is timed on its own, and so is \
            an operation that does nothing. The pool is prefaulted and locked, as such a program would have it.",
    kind: Kind::Threaded,
    mode: Mode::Ready,
    parameters: &[
        Parameter { name: "live", default: 10_000, about: "objects alive at once in each thread" },
        Parameter { name: "median", default: 128, about: "bytes of the median object" },
        Parameter { name: "sigma", default: 130, about: "deviation of the size's logarithm, in hundredths" },
        Parameter { name: "most", default: 64 << 10, about: "bytes of the largest object" },
        Parameter { name: "pairs", default: 2_000_000, about: "frees and allocations of each thread" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (live, pairs, most) = (job.get("live"), job.scaled(job.get("pairs")), job.get("most"));
    let (median, sigma) = (job.get("median") as f64, job.get("sigma") as f64 / 100.0);
    let prepare = |thread: usize| {
        let sizes = sizes(thread as u64, |random| (random.log_normal(median, sigma) as usize).clamp(8, most));
        let mut set: Vec<Object> =
            (0..live).map(|index| Object::new(sizes[index % TABLE] as usize, index as u64)).collect();
        let mut random = Random::new(thread as u64);
        for pair in 0..pairs / 4 {
            let place = random.below(live);
            set[place].free();
            set[place] = Object::new(sizes[(pair * 3) % TABLE] as usize, pair as u64);
        }
        (sizes, set, random, Latency::default())
    };
    super::together(job, prepare, |_, (sizes, mut set, mut random, mut latency)| {
        let mut checksum = 0u64;
        for pair in 0..pairs {
            let place = &mut set[random.below(live)];
            checksum = checksum.wrapping_add(place.content());
            time(&mut latency.empty, || ());
            time(&mut latency.free, || place.free());
            *place = time(&mut latency.malloc, || Object::new(sizes[pair % TABLE] as usize, pair as u64));
        }
        Done { latency: Some(latency), rest: set, ..Done::new(2 * pairs as u64, checksum) }
    })
}
