use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use domain::batch::BatchPlan;
use domain::spec::AugmentSpec;

use crate::error::DataError;
use crate::split::{Augmentation, Batch, Split};

/// One micro-batch of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatch {
    /// Its index in the step.
    pub index: u32,
    /// Sample numbers, in the order of the batch.
    pub samples: Vec<u64>,
    /// The images and labels; empty where a short last step leaves nothing for this micro-batch.
    pub batch: Batch,
}

/// A thread that prepares the micro-batches of the coming steps. Dropping it ends the thread.
#[derive(Debug)]
pub struct Prefetcher {
    /// `None` only while being dropped.
    prepared: Option<Receiver<Result<Step, DataError>>>,
    thread: Option<JoinHandle<()>>,
    total_steps: u64,
}

type Step = (u64, Vec<MicroBatch>);

/// What the thread works through.
struct Work {
    split: Arc<Split>,
    plan: BatchPlan,
    augment: AugmentSpec,
    micro_batches: Range<u32>,
}

impl Prefetcher {
    /// Prepares `micro_batches` of each step from `first_step` (counted from 0) to the end of `plan`. At most `ahead`
    /// steps wait to be taken, and one more is in the making.
    pub fn new(
        split: Arc<Split>,
        plan: BatchPlan,
        augment: AugmentSpec,
        micro_batches: Range<u32>,
        first_step: u64,
        ahead: usize,
    ) -> Result<Self, DataError> {
        debug_assert!(plan.samples == split.len() && micro_batches.end <= plan.micro_batches);
        let total_steps = plan.total_steps();
        let (sender, prepared) = sync_channel(ahead);
        let work = Work { split, plan, augment, micro_batches };
        let thread = Builder::new()
            .name("prefetch".to_owned())
            .spawn(move || work.run(first_step..total_steps, &sender))
            .map_err(DataError::Thread)?;
        Ok(Self { prepared: Some(prepared), thread: Some(thread), total_steps })
    }

    /// The next step and its micro-batches, in order; waits until they are ready. After the last step, and after an
    /// error, it is [`DataError::NoMoreSteps`].
    #[expect(clippy::should_implement_trait, reason = "the end of a run is an error to its training loop")]
    pub fn next(&mut self) -> Result<(u64, Vec<MicroBatch>), DataError> {
        let prepared = self.prepared.as_ref().expect("taken only by drop");
        if let Ok(step) = prepared.recv() {
            return step;
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        Err(DataError::NoMoreSteps { last_step: self.total_steps })
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        // Closing the queue fails the thread's next send; only then does joining not wait for ever.
        drop(self.prepared.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there concerns no one any more.
            let _ = thread.join();
        }
    }
}

impl Work {
    fn run(&self, steps: Range<u64>, prepared: &SyncSender<Result<Step, DataError>>) {
        for step in steps {
            let micro_batches: Result<Vec<_>, _> =
                self.micro_batches.clone().map(|index| self.micro_batch(step, index)).collect();
            let failed = micro_batches.is_err();
            let receiver_gone = prepared.send(micro_batches.map(|m| (step, m))).is_err();
            if failed || receiver_gone {
                return;
            }
        }
    }

    fn micro_batch(&self, step: u64, index: u32) -> Result<MicroBatch, DataError> {
        let positions = self.plan.micro_batch_positions(step, index);
        let epochs: Vec<u64> = positions.clone().map(|position| position / self.plan.samples).collect();
        let samples = self.plan.samples_at(positions);
        let augment = Augmentation { seed: self.plan.seed, spec: self.augment, epochs: &epochs };
        let batch = self.split.batch(&samples, Some(augment))?;
        Ok(MicroBatch { index, samples, batch })
    }
}

#[cfg(test)]
mod tests;
