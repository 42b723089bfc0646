//! Random numbers: the same sequence for each allocator, and cheap beside an allocation.

/// A generator (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded; near seeds give unlike sequences.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    /// 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`, which is below 2^32.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        ((self.bits() >> 32) as usize * n) >> 32
    }

    /// A number from `low` to `high`, both included.
    #[inline]
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// From 0 up to, but not, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number from `low` to `high` whose logarithm is uniformly distributed.
    pub fn log_between(&mut self, low: usize, high: usize) -> usize {
        let (from, to) = ((low as f64).ln(), (high as f64).ln());
        ((from + (to - from) * self.fraction()).exp() as usize).clamp(low, high)
    }

    /// A number whose logarithm is normally distributed, about `median`; `sigma` is the deviation of the logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        // Box and Muller's way to a normally distributed number.
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        median * (sigma * radius * (std::f64::consts::TAU * self.fraction()).cos()).exp()
    }
}

/// How many sizes are drawn beforehand, so that drawing them is no part of what is timed.
pub const TABLE: usize = 4096;

/// A table of [`TABLE`] sizes, by `draw`.
pub fn sizes(seed: u64, mut draw: impl FnMut(&mut Random) -> usize) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..TABLE).map(|_| draw(&mut random) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_bounds_and_reach_them() {
        let mut random = Random::new(1);
        let drawn: Vec<usize> = (0..10_000).map(|_| random.between(3, 9)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&9)));
        let drawn: Vec<usize> = (0..10_000).map(|_| random.log_between(32, 1 << 20)).collect();
        assert!(drawn.iter().all(|n| (32..=1 << 20).contains(n)));
        let small = drawn.iter().filter(|n| **n < 5793).count();
        assert!((4_700..5_300).contains(&small), "half lie below the geometric mean: {small}");
    }

    #[test]
    fn the_median_is_the_one_asked_for() {
        let mut random = Random::new(2);
        let below = (0..10_000).filter(|_| random.log_normal(64.0, 1.5) < 64.0).count();
        assert!((4_700..5_300).contains(&below), "{below}");
    }
}
