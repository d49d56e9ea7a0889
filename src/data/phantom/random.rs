//! A seedable generator (splitmix64, Steele and others 2014) and lattice hashes, the same on every machine.
//!
//! Each part of a scene draws from a stream of its own ([`Random::stream`]), so that a new draw in one part leaves
//! the others as they were.

/// Splitmix64's step.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Splitmix64's output function: a bijection of 64-bit words with good avalanche.
#[inline]
pub fn mix(word: u64) -> u64 {
    let mut z = word;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: mix(seed ^ 0x5851_F42D_4C95_7F2D),
        }
    }

    /// The stream called `name` under `seed`; different names are independent.
    pub fn stream(seed: u64, name: &str) -> Self {
        let folded = name
            .bytes()
            .fold(seed, |h, b| mix(h.wrapping_add(GOLDEN) ^ u64::from(b)));
        Self::new(folded)
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`, 24 bits.
    #[inline]
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`.
    #[inline]
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..count`; 0 for an empty range.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.bits()) * count as u128) >> 64) as usize
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// -1 or 1.
    pub fn sign(&mut self) -> f32 {
        if self.bits() >> 63 == 0 { 1.0 } else { -1.0 }
    }

    /// Nearly normal with mean 0 and variance 1: the sum of twelve uniforms less six.
    pub fn normal(&mut self) -> f32 {
        let mut sum = 0.0;
        for _ in 0..12 {
            sum += self.unit();
        }
        sum - 6.0
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// 32 random bits for a lattice point.
#[inline(always)]
pub fn lattice(seed: u32, x: i32, y: i32) -> u32 {
    let mut h = seed ^ (x as u32).wrapping_mul(0x85EB_CA6B) ^ (y as u32).wrapping_mul(0xC2B2_AE35);
    h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
    h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
    h ^ (h >> 15)
}

/// Uniform in `[0, 1)` from the top 24 bits of `bits`.
#[inline(always)]
pub fn unit_of(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_evenly() {
        let mut random = Random::stream(7, "test");
        let mut counts = [0u32; 10];
        let mut sum = 0.0f64;
        for _ in 0..10_000 {
            counts[random.below(10)] += 1;
            sum += f64::from(random.normal());
        }
        assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
        assert!((sum / 10_000.0).abs() < 0.05);
    }

    #[test]
    fn streams_do_not_depend_on_each_other() {
        let first = |seed, name| Random::stream(seed, name).bits();
        assert_ne!(first(1, "a"), first(1, "b"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_eq!(first(1, "a"), first(1, "a"));
    }

    #[test]
    fn shuffling_keeps_every_item() {
        let mut items: Vec<usize> = (0..20).collect();
        Random::new(3).shuffle(&mut items);
        let mut sorted = items.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
        assert_ne!(items, sorted);
    }
}
