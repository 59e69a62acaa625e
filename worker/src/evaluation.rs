//! Measuring the held-out samples.
//!
//! They are cut into batches of a fixed size, the batches are dealt to the ranks, and the sums over each batch are added
//! up in the order of the batches: the same bits for any number of workers.

use std::ops::Range;

use collective::Background;
use data::Split;
use domain::batch;
use models::{EvalSums, Network};

use crate::agreement::EvaluationPart;
use crate::attempt::Halt;
use crate::orders::Orders;

/// What is measured, and with what.
pub(crate) struct Evaluation<'a> {
    pub(crate) network: &'a Network,
    pub(crate) holdout: &'a Split,
    /// Samples of one forward pass.
    pub(crate) batch: u64,
}

impl Evaluation<'_> {
    /// The sums over all held-out samples, on every rank.
    pub(crate) fn run(&self, group: &mut Background, orders: &Orders<'_>) -> Result<EvalSums, Halt> {
        let batches = self.holdout.len().div_ceil(self.batch);
        let mut own = Vec::new();
        for index in batch::split(batches, group.rank(), group.world()) {
            if orders.is_aborted() {
                return Err(Halt::Left);
            }
            own.push(self.sums_of(samples_of(index, self.batch, self.holdout.len()))?);
        }
        let messages = group.all_gather(&EvaluationPart(own).encode())?;
        let mut total = EvalSums { loss: 0.0, correct: 0, samples: 0 };
        for (rank, message) in messages.iter().enumerate() {
            let owned = batch::split(batches, rank as u32, group.world());
            let EvaluationPart(sums) =
                EvaluationPart::decode(message, owned.end - owned.start).map_err(Halt::garbled)?;
            for EvalSums { loss, correct, samples } in sums {
                total.loss += loss;
                total.correct += correct;
                total.samples += samples;
            }
        }
        Ok(total)
    }

    fn sums_of(&self, samples: Range<u64>) -> Result<EvalSums, Halt> {
        let samples: Vec<u64> = samples.collect();
        let batch = self.holdout.batch(&samples, None).map_err(Halt::failed)?;
        let batch = models::Batch { images: &batch.images, labels: &batch.labels, shape: batch.shape };
        self.network.evaluate(batch).map_err(Halt::failed)
    }
}

/// The held-out samples of a batch; the last one may be short.
fn samples_of(index: u64, batch: u64, samples: u64) -> Range<u64> {
    index * batch..((index + 1) * batch).min(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_sample_is_measured_once_in_order(samples in 1u64..200, size in 1u64..50, world in 1u32..6) {
            let batches = samples.div_ceil(size);
            let dealt: Vec<u64> = (0..world)
                .flat_map(|rank| batch::split(batches, rank, world))
                .flat_map(|index| samples_of(index, size, samples))
                .collect();
            prop_assert_eq!(dealt, (0..samples).collect::<Vec<_>>());
        }
    }
}
