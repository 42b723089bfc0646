//! Producers and consumers.

use std::sync::{Condvar, Mutex};

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::{Random, TABLE, sizes};

pub static WORKLOAD: Workload = Workload {
    name: "pipe",
    about: "A pipeline of threads: a logger, a video encoder, an actor system. Half of the threads make objects and send \
            them in batches, the other half frees them, in the order of their making or in a random one; each producer \
            has its own consumer, or all share one queue.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "batch", default: 200, about: "objects of a batch" },
        Parameter { name: "least", default: 64, about: "bytes of the smallest object" },
        Parameter { name: "most", default: 400, about: "bytes of the largest object" },
        Parameter { name: "objects", default: 6_000_000, about: "objects of each producer" },
        Parameter { name: "shuffled", default: 0, about: "1: each batch is freed in random order" },
        Parameter { name: "many", default: 0, about: "1: all producers and consumers share one queue" },
    ],
    caches: false,
    run,
};

/// Batches under way at most, for each producer.
const AHEAD: usize = 8;

/// A queue of at most so many batches; an end is told by empty ones.
struct Queue {
    batches: Mutex<Vec<Vec<Object>>>,
    changed: Condvar,
    most: usize,
}

impl Queue {
    fn new(most: usize) -> Self {
        Self { batches: Mutex::new(Vec::with_capacity(most)), changed: Condvar::new(), most }
    }

    fn put(&self, batch: Vec<Object>) {
        let held = self.batches.lock().expect("nobody panics");
        let mut held = self.changed.wait_while(held, |held| held.len() == self.most).expect("nobody panics");
        held.insert(0, batch);
        drop(held);
        self.changed.notify_all();
    }

    fn take(&self) -> Vec<Object> {
        let held = self.batches.lock().expect("nobody panics");
        let mut held = self.changed.wait_while(held, |held| held.is_empty()).expect("nobody panics");
        let batch = held.pop().expect("waited for");
        drop(held);
        self.changed.notify_all();
        batch
    }
}

fn run(job: &mut Job) -> Done {
    let pairs = job.threads.div_ceil(2);
    let queues = if job.get("many") == 1 { 1 } else { pairs };
    let per_queue = pairs / queues * AHEAD;
    let full: Vec<Queue> = (0..queues).map(|_| Queue::new(per_queue)).collect();
    // Twice as many empty batches as can be under way: nobody waits for one to come back.
    let empty: Vec<Queue> = (0..queues).map(|_| Queue::new(4 * per_queue)).collect();
    let (batch, shuffled) = (job.get("batch"), job.get("shuffled") == 1);
    for queue in &empty {
        (0..2 * per_queue).for_each(|_| queue.put(Vec::with_capacity(batch)));
    }
    let batches = job.scaled(job.get("objects")).div_ceil(batch);
    let (least, most) = (job.get("least"), job.get("most"));
    let given = job.threads;
    job.threads = 2 * pairs;
    let prepare = |thread: usize| sizes(thread as u64, |random| random.between(least, most));
    let mut done = super::together(job, prepare, |thread, sizes| {
        let queue = thread / 2 % queues;
        if thread % 2 == 0 {
            produce(&full[queue], &empty[queue], &sizes, batches, batch)
        } else {
            consume(&full[queue], &empty[queue], batches, shuffled)
        }
    });
    job.threads = given;
    done.operations *= 2;
    done
}

fn produce(full: &Queue, empty: &Queue, sizes: &[u32], batches: usize, batch: usize) -> Done {
    for number in 0..batches {
        let mut objects = empty.take();
        let first = number * batch;
        objects.extend((first..first + batch).map(|index| Object::new(sizes[index % TABLE] as usize, index as u64)));
        full.put(objects);
    }
    Done::default()
}

fn consume(full: &Queue, empty: &Queue, batches: usize, shuffled: bool) -> Done {
    let mut random = Random::new(1);
    let (mut freed, mut checksum) = (0, 0u64);
    for _ in 0..batches {
        let mut objects = full.take();
        if shuffled {
            for index in (1..objects.len()).rev() {
                objects.swap(index, random.below(index + 1));
            }
        }
        freed += objects.len() as u64;
        checksum = objects.drain(..).map(Object::free).fold(checksum, u64::wrapping_add);
        empty.put(objects);
    }
    Done::new(freed, checksum)
}
