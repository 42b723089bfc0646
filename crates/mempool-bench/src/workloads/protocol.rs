//! The reference's protocol.

use crate::clock;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "protocol",
    about: "The benchmark of the reference: a loader in whose threads small records come in bursts. Each thread makes \
            500 objects of up to 512 bytes, frees every second of them, makes 500 more, and frees all; then again.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "count", default: 500, about: "objects of a burst" },
        Parameter { name: "most", default: 512, about: "bytes of the largest object" },
        Parameter { name: "repeat", default: 4_000, about: "repetitions of each thread" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (count, most) = (job.get("count"), job.get("most"));
    let repeat = job.scaled(job.get("repeat"));
    let tick = clock::nanoseconds_per_tick() * 1e-9;
    let prepare =
        |thread: usize| (sizes(thread as u64, |random| random.between(1, most)), Vec::with_capacity(2 * count));
    super::together(job, prepare, |_, (sizes, mut objects): (_, Vec<Object>)| {
        let (mut operations, mut checksum) = (0, 0u64);
        let mut ticks = [0; 3];
        for round in 0..repeat {
            let size = |index: usize| sizes[(round * 2 * count + index) % TABLE] as usize;
            let begin = clock::ticks();
            objects.extend((0..count).map(|index| Object::new(size(index), index as u64)));
            let filled = clock::ticks();
            let mut kept = false;
            objects.retain(|object| {
                kept = !kept;
                if !kept {
                    checksum = checksum.wrapping_add(object.free());
                }
                kept
            });
            objects.extend((count..2 * count).map(|index| Object::new(size(index), index as u64)));
            let mixed = clock::ticks();
            operations += 4 * count as u64;
            for object in objects.drain(..) {
                checksum = checksum.wrapping_add(object.free());
            }
            let emptied = clock::ticks();
            for (sum, part) in ticks.iter_mut().zip([filled - begin, mixed - filled, emptied - mixed]) {
                *sum += part;
            }
        }
        let names = ["allocate", "free half and allocate", "free all"];
        let phases = names.into_iter().zip(ticks.map(|ticks| ticks as f64 * tick)).collect();
        Done { phases, ..Done::new(operations, checksum) }
    })
}
