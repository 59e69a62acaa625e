//! One step of the training loop.

use std::ops::Range;
use std::time::Instant;

use data::MicroBatch;
use domain::batch;
use domain::ids::Step;
use domain::record::{Pace, Position, Read, Record, StepRecord};
use domain::schedule::learning_rate;
use domain::spec::NonFinitePolicy;
use models::{Batch, TrainForward, Update};

use crate::agreement::{MicroBatchPart, StepPart};
use crate::attempt::Halt;
use crate::orders::Wish;
use crate::reduction::Reduction;
use crate::training::Training;

/// Parameters named in a message at most.
const NAMES_MAX: usize = 20;

impl Training<'_> {
    /// Makes the next step: the same on every rank, and on any number of ranks.
    pub(crate) fn step(&mut self) -> Result<(), Halt> {
        let next = self.state.progress.position.step.next();
        self.recorder.begin_step(next.0, &mut self.state.network);
        let (index, micro_batches) = self.batches.next().map_err(Halt::failed)?;
        self.clock.lap(|pace| &mut pace.data);
        self.recorder.phase("data");

        let computed = self.compute_and_reduce(index, micro_batches)?;
        let Agreed { loss, reads } = self.agree(computed)?;
        self.clock.lap(|pace| &mut pace.agree);
        self.recorder.phase("agree");

        let step = Step(index).next();
        let grad_norm = self.gradient.norm();
        let lr = learning_rate(&self.job.spec.schedule, index, self.job.plan.total_steps());
        self.audit(step)?;
        let skipped = self.leaves_out(step, loss, grad_norm)?;
        if !skipped {
            self.update(lr, grad_norm)?;
        }
        self.state.progress.position = Position { step, evaluated: false };
        self.clock.lap(|pace| &mut pace.update);
        self.recorder.phase("update");
        self.inspect(step);

        let pace = self.clock.take();
        let (micros, micros_outside_model) = (pace.step_micros(), pace.outside_micros());
        self.outbox.set_pace(pace);
        let generation = self.assignment.generation;
        let record = StepRecord { step, generation, loss, grad_norm, lr, skipped, micros, micros_outside_model, reads };
        self.report(Record::Step(record));
        self.clock.lap(|pace| &mut pace.report);
        self.recorder.phase("report");
        if self.recorder.end_step() {
            self.end_profile();
        }
        Ok(())
    }

    /// Forward and backward passes over this rank's micro-batches, with the reduction of what is complete beside them.
    /// Tells what was read.
    fn compute_and_reduce(&mut self, index: u64, micro_batches: Vec<MicroBatch>) -> Result<Vec<MicroBatchPart>, Halt> {
        let positions = self.job.plan.step_positions(index);
        let scale = 1.0 / (positions.end - positions.start) as f32;
        let owned = self.owned_by(self.group.rank());
        let network = &self.state.network;
        let buckets = network.layout().buckets().len();
        let mut reduction =
            Reduction::new(&mut self.group, &mut self.spare, self.job.plan.micro_batches, owned, buckets);
        let mut parts = Vec::with_capacity(micro_batches.len());
        for MicroBatch { index: micro_batch, samples, batch } in micro_batches {
            if self.orders.is_aborted() {
                return Err(Halt::Left);
            }
            let batch = Batch { images: &batch.images, labels: &batch.labels, shape: batch.shape };
            let forward = TrainForward {
                seed: self.job.spec.seed,
                step: index,
                micro_batch,
                label_smoothing: self.job.spec.train.label_smoothing,
                scale,
            };
            self.recorder.read(samples.len());
            reduction.next(micro_batch);
            let mut sink = self.recorder.watch(&mut reduction);
            let loss = network.loss_and_gradient(batch, forward, &mut sink).map_err(Halt::failed)?;
            self.recorder.passes();
            parts.push(MicroBatchPart { loss, samples });
        }
        self.clock.lap(|pace| &mut pace.passes);
        reduction.finish(&mut self.gradient, |bucket, took| self.recorder.reduced(bucket, took))?;
        self.clock.lap(|pace| &mut pace.reduce);
        self.recorder.phase("reduce");
        Ok(parts)
    }

    /// Tells the other ranks what was computed and wished here, and takes in what was there.
    fn agree(&mut self, micro_batches: Vec<MicroBatchPart>) -> Result<Agreed, Halt> {
        let Wish { stop, leave } = self.orders.look();
        let durable = if self.is_first() { self.records.durable(self.outbox) } else { Position::default() };
        let messages = self.group.all_gather(&StepPart { stop, leave, durable, micro_batches }.encode())?;

        let samples_max = self.job.plan.global_batch / u64::from(self.job.plan.micro_batches);
        let mut agreed = Agreed { loss: 0.0, reads: Vec::new() };
        for ((rank, message), member) in (0..).zip(&messages).zip(&self.assignment.members) {
            let owned = self.owned_by(rank);
            let part = StepPart::decode(message, &owned, samples_max).map_err(Halt::garbled)?;
            self.wish.stop |= part.stop;
            self.wish.leave |= part.leave;
            self.records.prune(part.durable);
            for (micro_batch, MicroBatchPart { loss, samples }) in owned.zip(part.micro_batches) {
                agreed.loss += loss;
                agreed.reads.push(Read { micro_batch, worker: member.id, samples });
            }
        }
        Ok(agreed)
    }

    /// Refuses to train on if the very first gradient is not that of a working model.
    fn audit(&self, step: Step) -> Result<(), Halt> {
        if step != Step(1) {
            return Ok(());
        }
        let models::Audit { non_finite, zero } = models::audit(self.state.network.layout(), &self.gradient);
        if !non_finite.is_empty() {
            return Err(Halt::Failed(format!("the first gradient is not finite in {}", listed(&non_finite))));
        }
        if !zero.is_empty() && self.is_first() {
            self.log("warn", format!("the first gradient is zero everywhere in {}", listed(&zero)));
        }
        Ok(())
    }

    /// Whether this step leaves the parameters as they are.
    fn leaves_out(&self, step: Step, loss: f64, grad_norm: f64) -> Result<bool, Halt> {
        if self.assignment.skip_updates.contains(&step) {
            return Ok(true);
        }
        if loss.is_finite() && grad_norm.is_finite() {
            return Ok(false);
        }
        let cause = format!("step {step} has loss {loss} and gradient norm {grad_norm}");
        match self.job.spec.train.on_non_finite {
            NonFinitePolicy::Skip => {
                if self.is_first() {
                    self.log("warn", format!("{cause}; its update is skipped"));
                }
                Ok(true)
            }
            NonFinitePolicy::Stop => {
                let remedy = "lower schedule.lr, or set train.on_non_finite to skip or rollback";
                Err(Halt::Failed(format!("{cause}; {remedy}")))
            }
            NonFinitePolicy::Rollback => Err(Halt::Rollback { step, cause }),
        }
    }

    /// Clips by the global norm and moves the parameters.
    fn update(&mut self, lr: f64, grad_norm: f64) -> Result<(), Halt> {
        let gradient_scale = models::clip_scale(grad_norm, self.job.spec.train.clip_norm);
        let update = Update { lr, gradient_scale };
        self.state.optimizer.apply(self.state.network.parameters(), &self.gradient, update).map_err(Halt::failed)
    }

    /// The micro-batches of a rank.
    pub(crate) fn owned_by(&self, rank: u32) -> Range<u32> {
        let owned = batch::split(u64::from(self.job.plan.micro_batches), rank, self.group.world());
        owned.start as u32..owned.end as u32
    }
}

/// What all ranks know of a step after telling each other.
struct Agreed {
    /// Mean over the global batch, its parts added up in the order of the micro-batches.
    loss: f64,
    reads: Vec<Read>,
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Where the time of a step goes. What a report costs counts for the step after it.
#[derive(Debug)]
pub(crate) struct Clock {
    last: Instant,
    pace: Pace,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), pace: Pace::default() }
    }

    /// The time since the last call of any method went into the phase that is picked.
    fn lap(&mut self, phase: fn(&mut Pace) -> &mut u64) {
        let now = Instant::now();
        let lap = now.duration_since(std::mem::replace(&mut self.last, now));
        *phase(&mut self.pace) += lap.as_micros() as u64;
    }

    /// It belongs to no step.
    pub(crate) fn pause(&mut self) {
        self.last = Instant::now();
    }

    /// What the phases took since the last call.
    fn take(&mut self) -> Pace {
        std::mem::take(&mut self.pace)
    }
}
