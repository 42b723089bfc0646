//! Growing vectors.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "grow",
    about: "Arrays that grow: readers of files, builders of results, output buffers. Several vectors of unknown final \
            length are appended to in turn, each grown by realloc to one and a half of its size, shrunk to fit at its \
            end, and dropped.",
    kind: Kind::Single,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "vectors", default: 64, about: "vectors growing at once" },
        Parameter { name: "most", default: 1 << 20, about: "bytes of the longest vector" },
        Parameter { name: "bytes", default: 2 << 30, about: "bytes appended in all" },
    ],
    caches: false,
    run,
};

/// Bytes appended at once.
const STEP: usize = 256;

struct Vector {
    at: NonNull<u8>,
    capacity: usize,
    length: usize,
    goal: usize,
}

impl Vector {
    fn new(random: &mut Random, most: usize) -> Self {
        Self { at: family::malloc(STEP), capacity: STEP, length: 0, goal: random.log_between(STEP, most) }
    }

    fn resize(&mut self, capacity: usize) {
        // SAFETY: allocated with `capacity` bytes; the old address is not used any more.
        self.at = unsafe { family::realloc(self.at, self.capacity, capacity) };
        self.capacity = capacity;
    }

    /// Appends [`STEP`] bytes; reallocations that took.
    fn append(&mut self, value: u8) -> u64 {
        let grows = self.length + STEP > self.capacity;
        if grows {
            self.resize((self.capacity * 3 / 2).max(self.length + STEP));
        }
        // SAFETY: there is room for so many bytes behind the length.
        unsafe { self.at.add(self.length).as_ptr().write_bytes(value, STEP) };
        self.length += STEP;
        u64::from(grows)
    }

    /// Shrinks to fit and drops; the sum of what each step wrote.
    fn end(mut self) -> u64 {
        // Nobody shrinks to nothing: C leaves open what that means.
        self.resize(self.length.max(1));
        // SAFETY: each is below the length, and was written.
        let sum = (0..self.length).step_by(STEP).map(|at| u64::from(unsafe { self.at.add(at).read() })).sum();
        // SAFETY: allocated with so many bytes, and gone after this.
        unsafe { family::free(self.at, self.capacity) };
        sum
    }
}

fn run(job: &mut Job) -> Done {
    let (most, steps) = (job.get("most"), job.scaled(job.get("bytes")) / STEP);
    let mut random = Random::new(5);
    let mut vectors: Vec<Vector> = (0..job.get("vectors")).map(|_| Vector::new(&mut random, most)).collect();
    let (mut operations, mut checksum) = (0, 0u64);
    job.begin();
    for step in 0..steps {
        let place = random.below(vectors.len());
        operations += vectors[place].append(step as u8);
        if vectors[place].length >= vectors[place].goal {
            let whole = std::mem::replace(&mut vectors[place], Vector::new(&mut random, most));
            checksum += whole.end();
            operations += 3;
        }
    }
    checksum = vectors.into_iter().map(Vector::end).fold(checksum, u64::wrapping_add);
    Done::new(operations, checksum)
}
