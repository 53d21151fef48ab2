//! Random numbers from a seed, so that a decision or a whole run can be replayed.

use std::time::Duration;

use rand_xoshiro::{
    SplitMix64,
    rand_core::{RngCore, SeedableRng},
};

/// A generator whose numbers depend on its seed alone. Not for secrets.
#[derive(Debug, Clone)]
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::seed_from_u64(seed))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, or 0 if `end` is 0. Its bias is below 2^-32 if `end` is below 2^32.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end.max(1) as u64) as usize
    }

    /// A random duration between half of `longest` and `longest`.
    pub fn about(&mut self, longest: Duration) -> Duration {
        let half = longest.as_micros() as u64 / 2;
        Duration::from_micros(half + self.next_u64() % half.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds of the simulation keep their traces only if the numbers stay the same. These are from
    /// the algorithm's reference implementation, `splitmix64.c`.
    #[test]
    fn numbers_of_a_seed_never_change() {
        let mut random = Random::new(1234567);
        let numbers: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }
}
