//! Every random number of a run. A stream is named by what it is for, never by when it is asked for, so the same number
//! comes out on any worker, in any order of calls and after any restart.
//!
//! Generator: ChaCha with 8 rounds (Bernstein 2008) keyed by SHA-256 over the seed, the purpose and the coordinates.
//! Changing anything here changes every run: [`VERSION`] is part of the key.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// Part of every key; raise it when a sampling function changes its results.
pub const VERSION: u32 = 1;

/// What a stream of random numbers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights; coordinates: the parameter's name hashed by [`name_coordinate`].
    Initialisation,
    /// Dropout masks; coordinates: step, micro-batch, layer.
    Dropout,
    /// The order of samples in an epoch; coordinates: epoch.
    Order,
    /// Which samples are held out for evaluation; no coordinates.
    Holdout,
    /// Data augmentation; coordinates: epoch, sample.
    Augmentation,
    /// What a search tries; coordinates: the trial, and what of it.
    Search,
    /// What happens in a simulation of [`crate::sim`]; no coordinates.
    Simulation,
}

impl Purpose {
    fn label(self) -> &'static str {
        match self {
            Purpose::Initialisation => "initialisation",
            Purpose::Dropout => "dropout",
            Purpose::Order => "order",
            Purpose::Holdout => "holdout",
            Purpose::Augmentation => "augmentation",
            Purpose::Search => "search",
            Purpose::Simulation => "simulation",
        }
    }
}

/// A coordinate made from a name: the first eight bytes of its SHA-256, little-endian.
pub fn name_coordinate(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 digest has 32 bytes"))
}

/// An endless stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `purpose` at `coordinates` under `seed`.
    pub fn new(seed: u64, purpose: Purpose, coordinates: &[u64]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"phalanx");
        hash.update(VERSION.to_le_bytes());
        hash.update(seed.to_le_bytes());
        hash.update(purpose.label().as_bytes());
        hash.update([0]);
        for c in coordinates {
            hash.update(c.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `[0, 1)`, 24 random bits.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in `[0, 1)`, 53 random bits.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..bound`, without bias (Lemire 2019).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below 0 does not exist");
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal (Box and Muller 1958, the cosine branch). `libm` gives the same bits on every machine.
    pub fn normal_f64(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform_f64()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform_f64())
    }

    /// Standard normal cut off at two standard deviations, by rejection.
    pub fn truncated_normal_f64(&mut self) -> f64 {
        loop {
            let x = self.normal_f64();
            if x.abs() <= 2.0 {
                return x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_every_part_of_their_name() {
        let first = |seed, purpose, at: &[u64]| Stream::new(seed, purpose, at).next_u64();
        let base = first(1, Purpose::Dropout, &[2, 3]);
        assert_eq!(base, first(1, Purpose::Dropout, &[2, 3]));
        assert_ne!(base, first(2, Purpose::Dropout, &[2, 3]));
        assert_ne!(base, first(1, Purpose::Order, &[2, 3]));
        assert_ne!(base, first(1, Purpose::Dropout, &[3, 2]));
    }

    #[test]
    fn the_generator_is_pinned() {
        let mut s = Stream::new(17, Purpose::Order, &[0]);
        let drawn: Vec<u64> = (0..2).map(|_| s.next_u64()).collect();
        assert_eq!(drawn, PINNED, "changing the generator changes every run: raise VERSION");
    }

    const PINNED: [u64; 2] = [0x3529_90b7_77d2_95cf, 0x18ae_80dd_8e04_1732];

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut s = Stream::new(5, Purpose::Initialisation, &[]);
        let n = 20_000;
        let normal: Vec<f64> = (0..n).map(|_| s.normal_f64()).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
        assert!((0..n).all(|_| s.truncated_normal_f64().abs() <= 2.0));
        let mut counts = [0u32; 7];
        (0..7 * n).for_each(|_| counts[s.below(7) as usize] += 1);
        assert!(counts.iter().all(|c| c.abs_diff(n) < 800), "{counts:?}");
    }
}
