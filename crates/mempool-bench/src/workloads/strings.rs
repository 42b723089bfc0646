//! Text.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "strings",
    about: "Text processing: a parser, a template engine, a log analyser. Each thread builds lines by appending to \
            strings that grow by doubling, splits them into words, keeps the words, joins every second one into another \
            line, and drops all.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "words", default: 40, about: "most words of a line" },
        Parameter { name: "lines", default: 60_000, about: "lines of each thread" },
        Parameter { name: "kept", default: 500, about: "lines kept before they are dropped" },
    ],
    caches: false,
    run,
};

/// A string that grows by doubling.
struct Text {
    at: NonNull<u8>,
    capacity: usize,
    length: usize,
}

impl Text {
    fn with_capacity(capacity: usize) -> Self {
        Self { at: family::malloc(capacity), capacity, length: 0 }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut text = Self::with_capacity(bytes.len().max(1));
        text.push(bytes);
        text
    }

    fn push(&mut self, bytes: &[u8]) {
        let length = self.length + bytes.len();
        if length > self.capacity {
            let capacity = length.max(2 * self.capacity);
            // SAFETY: allocated with `capacity` bytes; the old address is not used any more.
            self.at = unsafe { family::realloc(self.at, self.capacity, capacity) };
            self.capacity = capacity;
        }
        // SAFETY: the room was just made, and nobody else has the string's memory.
        unsafe { self.at.add(self.length).as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.length = length;
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes were written.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.length) }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: allocated with `capacity` bytes, and gone after this.
        unsafe { family::free(self.at, self.capacity) };
    }
}

fn run(job: &mut Job) -> Done {
    let (words, kept) = (job.get("words"), job.get("kept"));
    let lines = job.scaled(job.get("lines"));
    super::together(
        job,
        |thread| Random::new(thread as u64),
        |_, mut random| {
            let (mut operations, mut checksum) = (0, 0u64);
            let mut kept_words: Vec<Vec<Text>> = (0..kept).map(|_| Vec::with_capacity(words)).collect();
            for number in 0..lines {
                let mut line = Text::with_capacity(16);
                for _ in 0..random.between(1, words) {
                    let letters = random.bits().to_le_bytes().map(|byte| b'a' + byte % 26);
                    line.push(&letters[..random.between(1, letters.len())]);
                    line.push(b" ");
                }
                let slot = &mut kept_words[number % kept];
                operations += 2 * slot.len() as u64;
                slot.clear();
                slot.extend(line.bytes().split(|byte| *byte == b' ').filter(|word| !word.is_empty()).map(Text::of));
                let mut joined = Text::with_capacity(16);
                slot.iter().step_by(2).for_each(|word| joined.push(word.bytes()));
                let sum = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
                checksum = checksum.wrapping_add(joined.bytes().iter().fold(0, sum));
                operations += 4;
            }
            Done::new(operations, checksum)
        },
    )
}
