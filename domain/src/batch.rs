//! Which samples a step reads: a pure function of (seed, step, micro-batch), O(1) in memory and time at any size.
//!
//! The sample stream is the concatenation of one permutation per epoch. Step `s` takes the next `global_batch` positions
//! of it, so a step may straddle two epochs, nothing is padded and nothing dropped; only the very last step of a run
//! counted in epochs may be shorter. A position `p` lies in epoch `p / samples` at index `p % samples`.

use std::ops::Range;

use crate::random::{Purpose, Stream};

/// A permutation of `0..n` keyed by a stream: a balanced Feistel network of [`ROUNDS`] rounds over the next even power
/// of two, with cycle walking (Black and Rogaway 2002).
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

/// Rounds of the Feistel network. Four make a strong pseudo-random permutation (Luby and Rackoff 1988); six add margin
/// for the short halves of small data sets.
const ROUNDS: usize = 6;

impl Permutation {
    /// The permutation of `0..n` that `stream` keys.
    ///
    /// # Panics
    /// If `n` is 0 or above 2^62.
    pub fn new(n: u64, mut stream: Stream) -> Self {
        assert!(n > 0 && n <= 1 << 62, "a permutation needs 1 to 2^62 elements, got {n}");
        let bits = u64::BITS - (n - 1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(1);
        Self { n, half_bits, keys: std::array::from_fn(|_| stream.next_u64()) }
    }

    /// Where `index` goes.
    ///
    /// # Panics
    /// If `index` is not below `n`.
    pub fn apply(&self, index: u64) -> u64 {
        assert!(index < self.n, "index {index} must be below {}", self.n);
        let mut x = index;
        loop {
            x = self.network(x);
            if x < self.n {
                return x;
            }
        }
    }

    fn network(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How a run reads its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Keys the order of every epoch.
    pub seed: u64,
    /// Training samples in the data set.
    pub samples: u64,
    /// Samples of one optimizer step.
    pub global_batch: u64,
    /// Micro-batches of one optimizer step; divides `global_batch`.
    pub micro_batches: u32,
    /// When the run ends.
    pub length: Length,
}

/// When a run ends if nothing stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// After this many passes over the data.
    Epochs(u64),
    /// After this many optimizer steps.
    Steps(u64),
}

impl BatchPlan {
    /// Positions in the whole sample stream.
    pub fn total_positions(&self) -> u64 {
        match self.length {
            Length::Epochs(epochs) => epochs.saturating_mul(self.samples),
            Length::Steps(steps) => steps.saturating_mul(self.global_batch),
        }
    }

    /// Optimizer steps in the whole run.
    pub fn total_steps(&self) -> u64 {
        self.total_positions().div_ceil(self.global_batch)
    }

    /// Positions that step `step` (counted from 0) reads.
    pub fn step_positions(&self, step: u64) -> Range<u64> {
        let end = self.total_positions();
        let first = step.saturating_mul(self.global_batch).min(end);
        first..(first + self.global_batch).min(end)
    }

    /// Positions that micro-batch `micro_batch` of step `step` reads; empty only in a short last step.
    pub fn micro_batch_positions(&self, step: u64, micro_batch: u32) -> Range<u64> {
        debug_assert!(micro_batch < self.micro_batches);
        let whole = self.step_positions(step);
        let size = self.global_batch / u64::from(self.micro_batches);
        let first = (step * self.global_batch + u64::from(micro_batch) * size).min(whole.end);
        first..(first + size).min(whole.end)
    }

    /// Epochs completed once `step` steps are done, as a fraction.
    pub fn epochs_at(&self, step: u64) -> f64 {
        let positions = (step.saturating_mul(self.global_batch)).min(self.total_positions());
        positions as f64 / self.samples as f64
    }

    /// The first step count at which at least `epochs` passes are complete.
    pub fn steps_for_epochs(&self, epochs: u64) -> u64 {
        epochs.saturating_mul(self.samples).div_ceil(self.global_batch)
    }

    /// The samples at `positions`, in order.
    pub fn samples_at(&self, positions: Range<u64>) -> Vec<u64> {
        let mut samples = Vec::with_capacity((positions.end - positions.start) as usize);
        let mut order: Option<(u64, Permutation)> = None;
        for p in positions {
            let epoch = p / self.samples;
            if order.as_ref().is_none_or(|(e, _)| *e != epoch) {
                let stream = Stream::new(self.seed, Purpose::Order, &[epoch]);
                order = Some((epoch, Permutation::new(self.samples, stream)));
            }
            let (_, permutation) = order.as_ref().expect("set just above");
            samples.push(permutation.apply(p % self.samples));
        }
        samples
    }
}

/// The contiguous range of `items` that `rank` of `world` owns. Sizes differ by at most one, larger ones first.
pub fn split(items: u64, rank: u32, world: u32) -> Range<u64> {
    debug_assert!(rank < world);
    let (world, rank) = (u64::from(world), u64::from(rank));
    let (size, extra) = (items / world, items % world);
    let first = rank * size + rank.min(extra);
    first..first + size + u64::from(rank < extra)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(samples: u64, global_batch: u64, micro_batches: u32, length: Length) -> BatchPlan {
        BatchPlan { seed: 3, samples, global_batch, micro_batches, length }
    }

    #[test]
    fn a_billion_samples_cost_nothing() {
        let p = Permutation::new(1_000_000_000, Stream::new(1, Purpose::Order, &[0]));
        assert!((0..1000).map(|i| p.apply(i)).all(|x| x < 1_000_000_000));
    }

    proptest! {
        #[test]
        fn a_permutation_hits_every_element_once(n in 1u64..3000, seed: u64) {
            let p = Permutation::new(n, Stream::new(seed, Purpose::Order, &[0]));
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                prop_assert!(!std::mem::replace(&mut seen[p.apply(i) as usize], true));
            }
        }

        #[test]
        fn every_epoch_reads_every_sample_once(
            samples in 1u64..300, micro in 1u32..9, size in 1u64..9, epochs in 1u64..4,
        ) {
            let plan = plan(samples, u64::from(micro) * size, micro, Length::Epochs(epochs));
            let mut times = vec![0u64; samples as usize];
            for step in 0..plan.total_steps() {
                for m in 0..micro {
                    for s in plan.samples_at(plan.micro_batch_positions(step, m)) {
                        times[s as usize] += 1;
                    }
                }
            }
            prop_assert!(times.iter().all(|t| *t == epochs));
        }

        #[test]
        fn splits_cover_everything_in_order(items in 0u64..100, world in 1u32..9) {
            let mut next = 0;
            for rank in 0..world {
                let range = split(items, rank, world);
                prop_assert_eq!(range.start, next);
                next = range.end;
            }
            prop_assert_eq!(next, items);
        }
    }

    #[test]
    fn steps_are_counted_in_both_units() {
        let by_epochs = plan(100, 32, 4, Length::Epochs(2));
        assert_eq!((by_epochs.total_steps(), by_epochs.step_positions(6)), (7, 192..200));
        assert_eq!(by_epochs.micro_batch_positions(6, 1), 200..200);
        assert_eq!(by_epochs.steps_for_epochs(1), 4);
        assert_eq!(plan(100, 32, 4, Length::Steps(5)).total_steps(), 5);
    }
}
