//! Very many short-lived threads.

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "births",
    about: "A program that starts a thread for each task: a build tool, a CGI server, a test runner. Each of very many \
            threads makes a few objects, frees them, and ends; so many as asked for are alive at once. What an allocator \
            does at a thread's first request and at its end is what counts.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "objects", default: 100, about: "objects of a thread" },
        Parameter { name: "most", default: 500, about: "bytes of the largest object" },
        Parameter { name: "births", default: 8_000, about: "threads, one after the other, in each place" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (objects, most) = (job.get("objects"), job.get("most"));
    let births = job.scaled(job.get("births"));
    let prepare = |thread: usize| sizes(thread as u64, |random| random.between(8, most));
    super::together(job, prepare, |place, sizes| {
        let mut checksum = 0u64;
        for birth in 0..births {
            let sizes = &sizes;
            let life = move || {
                let make = |index: usize| {
                    let stamp = birth * objects + index;
                    Object::new(sizes[(stamp + place) % TABLE] as usize, stamp as u64)
                };
                let set: Vec<Object> = (0..objects).map(make).collect();
                set.into_iter().map(Object::free).fold(0, u64::wrapping_add)
            };
            let sum = std::thread::scope(|scope| scope.spawn(life).join().expect("a thread panicked"));
            checksum = checksum.wrapping_add(sum);
        }
        Done::new((2 * objects * births) as u64, checksum)
    })
}
