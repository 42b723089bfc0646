//! Operation programs: each step is a number, so that whoever can make numbers can test a pool.

use crate::Shadow;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes, alignment, zeroed.
    Alloc(usize, usize, bool),
    /// Which.
    Free(usize),
    /// Which, bytes, alignment.
    Realloc(usize, usize, usize),
    /// Which.
    UsableSize(usize),
    /// Item bytes, alignment.
    MakeCache(usize, usize),
    /// Which.
    EndCache(usize),
    /// Which cache, count (0: one item).
    Take(usize, usize),
    /// Gives free OS pages back.
    Trim,
}

/// What a program does mostly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Of everything some.
    All,
    /// Small objects that come and go.
    Small,
    /// Objects of several fragments and pages.
    Large,
    /// Objects that change their size.
    Grow,
    /// Named caches and arrays.
    Caches,
    /// More allocated than freed, until nothing is left.
    Fill,
}

/// Sizes where something changes: 0, classes, fragments, pages, slots, each with its neighbours; `code` chooses.
#[must_use]
pub fn sizes(code: u64, most: usize) -> usize {
    let fine = (code >> 4) as usize;
    let size = match code & 15 {
        0..=3 => fine % 129,
        4..=6 => fine % 1025,
        7 | 8 => fine % 9000,
        9 => (1usize << (fine % 21)) - 1 + (fine >> 8) % 3,
        10 => 256 * (1 + fine % 70) - 1 + (fine >> 8) % 3,
        11 => 16_384 * (1 + fine % 5) - 1 + (fine >> 8) % 3,
        12 => fine % 70_000,
        13 => fine % 300_000,
        14 => most / (1 + fine % 9) + (fine >> 8) % 3,
        _ => fine % 33,
    };
    size.min(2 * most)
}

fn align_of(code: u64) -> usize {
    match code & 7 {
        0..=4 => 1 << ((code >> 3) % 5),
        5 | 6 => 1 << ((code >> 3) % 13),
        _ => 1 << ((code >> 3) % 22),
    }
}

impl Op {
    /// The step that `word` means in `mix`; sizes go up to about `most`.
    #[must_use]
    pub fn decode(word: u64, mix: Mix, most: usize) -> Self {
        let (kind, pick, size, align) = ((word & 63) as usize, (word >> 6 & 0xFFF) as usize, word >> 18, word >> 52);
        let allowed = |small: usize, big: usize| sizes(size, most).clamp(0, big).max(small.min(big));
        let alloc =
            |op_size, aligned: bool| Self::Alloc(op_size, if aligned { align_of(align) } else { 1 }, kind & 1 == 0);
        match (mix, kind) {
            (_, 63) => Self::Trim,
            (Mix::Fill, 0..=15) | (Mix::Small | Mix::Large, 0..=29) => Self::Free(pick),
            (Mix::Small, 30..=33) => Self::Realloc(pick, allowed(0, 2048), 16),
            (Mix::Small, _) => alloc(allowed(0, 2048), kind < 40),
            (Mix::Large, 30..=36) => Self::Realloc(pick, allowed(0, most), align_of(align)),
            (Mix::Large, _) => alloc(allowed(200, usize::MAX), kind < 50),
            (Mix::Grow, 0..=11) => Self::Free(pick),
            (Mix::Grow, 12..=45) => Self::Realloc(pick, allowed(0, most), if kind < 18 { align_of(align) } else { 1 }),
            (Mix::Fill, _) => alloc(allowed(0, usize::MAX), kind < 22),
            (Mix::Caches, 0..=2) => Self::EndCache(pick),
            (Mix::Caches, 3..=8) | (Mix::All, 0 | 1) => {
                Self::MakeCache(allowed(1, 1 << 20), if kind < 6 { 1 << (align % 5) } else { align_of(align) })
            }
            (Mix::Caches, 9..=30) | (Mix::All, 2..=6) => Self::Take(pick, count(size, most)),
            (Mix::Caches, 31..=58) => Self::Free(pick),
            (Mix::All, 7) => Self::EndCache(pick),
            (Mix::All, 8..=12) => Self::Realloc(pick, allowed(0, most), align_of(align)),
            (Mix::All, 13 | 14) => Self::UsableSize(pick),
            (Mix::All, 15..=34) => Self::Free(pick),
            _ => alloc(allowed(0, usize::MAX), kind < 45),
        }
    }
}

/// Counts of an array's items: one by one, within a slab, beyond it.
fn count(code: u64, most: usize) -> usize {
    match code & 7 {
        0..=2 => 0,
        3 | 4 => 1 + (code >> 3) as usize % 9,
        5 => 1 + (code >> 3) as usize % 130,
        6 => 1 + (code >> 3) as usize % 3000,
        _ => (code >> 3) as usize % (1 + most / 8),
    }
}

/// Runs the step on `shadow`.
pub fn run(shadow: &mut Shadow<'_>, op: Op) {
    match op {
        Op::Alloc(size, align, zeroed) => {
            shadow.alloc(size, align, zeroed);
        }
        Op::Free(pick) => {
            shadow.free(pick);
        }
        Op::Realloc(pick, size, align) => {
            shadow.realloc(pick, size, align);
        }
        Op::UsableSize(pick) => shadow.usable_size(pick),
        Op::MakeCache(size, align) => {
            shadow.make_cache(size, align);
        }
        Op::EndCache(pick) => shadow.end_cache(pick),
        Op::Take(pick, count) => {
            shadow.take(pick, count);
        }
        Op::Trim => {
            shadow.pool().trim();
        }
    }
}
