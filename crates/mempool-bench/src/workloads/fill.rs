//! Filling all the memory there is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};

pub static WORKLOAD: Workload = Workload {
    name: "fill",
    about: "A small machine whose memory is shared by many threads and many kinds of objects: each thread makes objects \
            of all sizes in turn until the first of them is refused. What counts is how much was alive then.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "sizes", default: 20, about: "sizes, evenly spread" },
        Parameter { name: "most", default: 1_024, about: "bytes of the largest object" },
        Parameter { name: "bytes", default: 64 << 20, about: "bytes after which it ends without a refusal" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (sizes, most, bytes) = (job.get("sizes"), job.get("most"), job.get("bytes"));
    let (over, live) = (AtomicBool::new(false), AtomicUsize::new(0));
    let done = super::together(
        job,
        |_| (),
        |thread, ()| {
            let mut operations = 0;
            for turn in thread.. {
                let size = most * (turn % sizes + 1) / sizes;
                if over.load(Relaxed) {
                    break;
                }
                // Nobody looks at the object, and still it must be made.
                match std::hint::black_box(family::try_malloc(size)) {
                    // Never freed: the process ends with it.
                    Some(_) if live.fetch_add(size, Relaxed) + size < bytes => operations += 1,
                    _ => over.store(true, Relaxed),
                }
            }
            Done::new(operations, 1)
        },
    );
    Done { figures: vec![("live_bytes", live.load(Relaxed) as f64)], ..done }
}
