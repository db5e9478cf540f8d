//! A small seeded generator for jitter: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). Not for secrets.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Deterministic pseudo-random numbers from a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng(u64);

impl Rng {
    /// A generator that always gives the same sequence for the same seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// One octet.
    #[cfg(test)]
    pub(crate) fn octet(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// True in one of `n` cases.
    #[cfg(test)]
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// At most `most` octets.
    #[cfg(test)]
    pub(crate) fn octets(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most as u64 + 1);
        (0..length).map(|_| self.octet()).collect()
    }

    /// `d` times a factor uniform in [0.75, 1.0): the jitter of RFC 4271 §10.
    pub fn jitter(&mut self, d: Duration) -> Duration {
        d.mul_f64(0.75 + 0.25 * self.next_f64())
    }
}
