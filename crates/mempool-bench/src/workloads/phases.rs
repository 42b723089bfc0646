//! Phases of unlike sizes.

use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::object::Object;
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "phases",
    about: "A program whose needs change: a compiler that parses and then optimises, a game that loads another level. \
            Many small objects are made, all but every tenth freed, and large ones made in their place, again and \
            again: memory that is held for the wrong sizes shows in the peak.",
    kind: Kind::Single,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "bytes", default: 48 << 20, about: "bytes of each filling" },
        Parameter { name: "least", default: 16, about: "bytes of the smallest small object" },
        Parameter { name: "most", default: 256, about: "bytes of the largest small object" },
        Parameter { name: "large", default: 8192, about: "bytes of a large object, and up to four times as many" },
        Parameter { name: "repeat", default: 6, about: "repetitions" },
    ],
    caches: false,
    run,
};

fn run(job: &mut Job) -> Done {
    let (bytes, large) = (job.scaled(job.get("bytes")), job.get("large"));
    let (least, most) = (job.get("least"), job.get("most"));
    let mut random = Random::new(3);
    let (mut operations, mut checksum) = (0, 0u64);
    let mut fill = |objects: &mut Vec<Object>, low: usize, high: usize| {
        let mut filled = 0;
        while filled < bytes {
            let size = random.between(low, high);
            objects.push(Object::new(size, size as u64));
            filled += size;
        }
    };
    let mut small = Vec::with_capacity(bytes / least);
    let mut big = Vec::with_capacity(bytes / large + 1);
    job.begin();
    for _ in 0..job.get("repeat") {
        fill(&mut small, least, most);
        let mut index = 0;
        let before = small.len();
        small.retain(|object| {
            index += 1;
            if index % 10 != 0 {
                checksum = checksum.wrapping_add(object.free());
            }
            index % 10 == 0
        });
        fill(&mut big, large, 4 * large);
        big.iter().for_each(Object::touch);
        operations += 2 * (before + big.len()) as u64;
        checksum = big.drain(..).chain(small.drain(..)).map(Object::free).fold(checksum, u64::wrapping_add);
    }
    Done::new(operations, checksum)
}
