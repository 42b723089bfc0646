//! One file for each workload, and what they share: threads that begin together.

mod aligned;
mod births;
mod caches;
mod calloc;
mod fill;
mod grow;
mod large;
mod lognormal;
mod maps;
mod phases;
mod pipe;
mod protocol;
mod replace;
mod server;
mod steady;
mod strings;
mod trees;

use std::sync::Barrier;

use crate::job::{Done, Job, Workload};
use crate::object::Object;

/// All of them.
pub static WORKLOADS: [&Workload; 17] = [
    &protocol::WORKLOAD,
    &replace::WORKLOAD,
    &server::WORKLOAD,
    &pipe::WORKLOAD,
    &phases::WORKLOAD,
    &trees::WORKLOAD,
    &maps::WORKLOAD,
    &strings::WORKLOAD,
    &grow::WORKLOAD,
    &lognormal::WORKLOAD,
    &large::WORKLOAD,
    &births::WORKLOAD,
    &calloc::WORKLOAD,
    &aligned::WORKLOAD,
    &caches::WORKLOAD,
    &steady::WORKLOAD,
    &fill::WORKLOAD,
];

/// The workload of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().copied().find(|workload| workload.name == name)
}

/// Does `prepare` and then `work` in each of the job's threads, all beginning the work at once; what is measured is the
/// work alone. The first result's phases are kept, the others' are added to them.
fn together<T: Send>(
    job: &mut Job,
    prepare: impl Fn(usize) -> T + Sync,
    work: impl Fn(usize, T) -> Done + Sync,
) -> Done {
    let (ready, go) = (Barrier::new(job.threads + 1), Barrier::new(job.threads + 1));
    std::thread::scope(|scope| {
        let (ready, go, prepare, work) = (&ready, &go, &prepare, &work);
        let threads: Vec<_> = (0..job.threads)
            .map(|thread| {
                scope.spawn(move || {
                    let prepared = prepare(thread);
                    ready.wait();
                    go.wait();
                    work(thread, prepared)
                })
            })
            .collect();
        ready.wait();
        job.begin();
        go.wait();
        let done: Vec<Done> = threads.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect();
        job.end();
        let mut done = done.into_iter().reduce(sum).unwrap_or_default();
        let rest = done.rest.drain(..).map(Object::free);
        done.checksum = rest.fold(done.checksum, u64::wrapping_add);
        done
    })
}

/// Both together.
fn sum(mut one: Done, other: Done) -> Done {
    one.operations += other.operations;
    one.checksum = one.checksum.wrapping_add(other.checksum);
    one.rest.extend(other.rest);
    for (name, seconds) in other.phases {
        match one.phases.iter_mut().find(|phase| phase.0 == name) {
            Some(phase) => phase.1 += seconds,
            None => one.phases.push((name, seconds)),
        }
    }
    match (&mut one.latency, other.latency) {
        (Some(own), Some(its)) => own.add(&its),
        (own @ None, its) => *own = its,
        (Some(_), None) => {}
    }
    one
}

#[cfg(test)]
mod tests;
