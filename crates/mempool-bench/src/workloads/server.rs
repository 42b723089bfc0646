//! A server whose threads come and go, and hand on what they hold.

use std::sync::mpsc::{Sender, channel};

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{Random, TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "server",
    about: "A server with a thread for each connection (after Larson and Krishnan): each thread replaces random objects \
            of its live set, starts a successor, hands it the set, and exits. So most objects are freed by a thread that \
            did not make them, and whose maker is gone.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "live", default: 1_000, about: "objects alive at once in each thread" },
        Parameter { name: "least", default: 8, about: "bytes of the smallest object" },
        Parameter { name: "most", default: 1_000, about: "bytes of the largest object" },
        Parameter { name: "pairs", default: 20_000, about: "frees and allocations of each thread's life" },
        Parameter { name: "lives", default: 250, about: "threads that follow one another, in each place" },
    ],
    caches: false,
    run,
};

/// What a thread hands to its successor.
struct Life {
    set: Vec<Object>,
    sizes: Vec<u32>,
    random: Random,
    pairs: usize,
    left: usize,
    checksum: u64,
    last: Sender<u64>,
}

fn run(job: &mut Job) -> Done {
    let (live, least, most) = (job.get("live"), job.get("least"), job.get("most"));
    let (pairs, lives) = (job.get("pairs"), job.scaled(job.get("lives")));
    let (last, ended) = channel();
    let first: Vec<Life> = (0..job.threads)
        .map(|thread| {
            let sizes = sizes(thread as u64, |random| random.between(least, most));
            let set = (0..live).map(|index| Object::new(sizes[index % TABLE] as usize, index as u64)).collect();
            Life { set, sizes, random: Random::new(thread as u64), pairs, left: lives, checksum: 0, last: last.clone() }
        })
        .collect();
    drop(last);
    job.begin();
    first.into_iter().for_each(be_born);
    let checksum = ended.iter().fold(0u64, u64::wrapping_add);
    job.end();
    Done::new((job.threads * (lives * 2 * pairs + live)) as u64, checksum)
}

fn be_born(life: Life) {
    std::thread::spawn(move || live(life));
}

fn live(mut life: Life) {
    for pair in 0..life.pairs {
        let place = life.random.below(life.set.len());
        life.checksum = life.checksum.wrapping_add(life.set[place].free());
        life.set[place] = Object::new(life.sizes[pair % TABLE] as usize, pair as u64);
    }
    life.left -= 1;
    if life.left > 0 {
        return be_born(life);
    }
    let rest = life.set.drain(..).map(Object::free).fold(life.checksum, u64::wrapping_add);
    // Only a main thread that has panicked does not listen.
    let _ = life.last.send(rest);
}
