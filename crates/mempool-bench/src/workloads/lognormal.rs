//! Sizes and lifetimes as programs have them.

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "lognormal",
    about: "A typical program: sizes are log-normally distributed (median 64 bytes, most below 1 KiB, some above 64 \
            KiB), and most objects die young: 90% within the next 100 allocations, 9% within 10,000, and the rest lives \
            500,000 long.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "median", default: 64, about: "bytes of the median object" },
        Parameter { name: "sigma", default: 150, about: "deviation of the size's logarithm, in hundredths" },
        Parameter { name: "most", default: 1 << 20, about: "bytes of the largest object" },
        Parameter { name: "objects", default: 6_000_000, about: "objects of each thread" },
    ],
    caches: false,
    run,
};

/// How far ahead deaths are planned, in allocations: a power of two.
const AHEAD: usize = 1 << 20;
/// No object.
const NONE: u32 = u32::MAX;
/// Sizes and lifetimes drawn beforehand.
const DRAWN: usize = 1 << 16;

/// Objects by the time of their death: `first[time]` begins a list through `next`.
struct Calendar {
    first: Vec<u32>,
    next: Vec<u32>,
    objects: Vec<Option<Object>>,
    vacant: Vec<u32>,
}

impl Calendar {
    fn new() -> Self {
        Self { first: vec![NONE; AHEAD], next: Vec::new(), objects: Vec::new(), vacant: Vec::new() }
    }

    /// Notes that `object` dies at `time`.
    fn note(&mut self, object: Object, time: usize) {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.objects.push(None);
            self.next.push(NONE);
            self.objects.len() as u32 - 1
        });
        let first = &mut self.first[time % AHEAD];
        self.next[place as usize] = std::mem::replace(first, place);
        self.objects[place as usize] = Some(object);
    }

    /// Frees what dies at `time`: what it adds to the checksum.
    fn bury(&mut self, time: usize) -> u64 {
        let mut place = std::mem::replace(&mut self.first[time % AHEAD], NONE);
        let mut checksum = 0u64;
        while place != NONE {
            let dead = self.objects[place as usize].take();
            checksum = checksum.wrapping_add(dead.map_or(0, Object::free));
            self.vacant.push(place);
            place = self.next[place as usize];
        }
        checksum
    }
}

fn lifetime(random: &mut Random) -> usize {
    match random.below(100) {
        0..90 => random.between(1, 100),
        90..99 => random.between(100, 10_000),
        _ => random.between(10_000, 500_000),
    }
}

fn run(job: &mut Job) -> Done {
    let (median, sigma, most) = (job.get("median") as f64, job.get("sigma") as f64 / 100.0, job.get("most"));
    let objects = job.scaled(job.get("objects"));
    let prepare = |thread: usize| {
        let mut random = Random::new(thread as u64);
        let drawn: Vec<(usize, usize)> = (0..DRAWN)
            .map(|_| ((random.log_normal(median, sigma) as usize).clamp(8, most), lifetime(&mut random)))
            .collect();
        (drawn, Calendar::new())
    };
    super::together(job, prepare, |_, (drawn, mut calendar)| {
        let mut checksum = 0u64;
        for time in 0..objects {
            // Another order in each pass over the table.
            let (size, life) = drawn[(time + time / DRAWN * 7) % DRAWN];
            calendar.note(Object::new(size, time as u64), time + life);
            checksum = checksum.wrapping_add(calendar.bury(time));
        }
        checksum = (objects..objects + AHEAD).fold(checksum, |sum, time| sum.wrapping_add(calendar.bury(time)));
        Done::new(2 * objects as u64, checksum)
    })
}
