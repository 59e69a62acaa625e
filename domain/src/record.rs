//! What workers tell about completed work. Every member of a group holds every record until it is durable, so none is
//! lost with a worker; storing one twice changes nothing.

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, Step, WorkerId};

/// A completed optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps completed with this one; the first step's record says 1.
    pub step: Step,
    /// The generation that computed it.
    pub generation: Generation,
    /// Mean training loss over the global batch, before the update.
    pub loss: f64,
    /// L2 norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Whether the update was left out because loss or gradient was not finite.
    pub skipped: bool,
    /// Wall time of the step on the reporting worker, in microseconds.
    pub micros: u64,
    /// Of `micros`, the part spent waiting for data, reducing and reporting.
    pub micros_outside_model: u64,
    /// Who read which samples.
    pub reads: Vec<Read>,
}

/// The samples that one worker read for one micro-batch of a step: a line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The micro-batch's index in the step.
    pub micro_batch: u32,
    /// Who read it.
    pub worker: WorkerId,
    /// Sample numbers, in the order of the batch.
    pub samples: Vec<u64>,
}

/// A step as the ledger keeps it: who read which samples, and whether the step still counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStep {
    /// Steps completed with this one; the first step says 1.
    pub step: Step,
    /// The generation that computed it.
    pub generation: Generation,
    /// Whether it was taken back: the run went on from an older checkpoint and computed the step again.
    pub rolled_back: bool,
    /// Who read which samples.
    pub reads: Vec<Read>,
}

/// An evaluation of the held-out samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Steps completed before it.
    pub step: Step,
    /// The generation that computed it.
    pub generation: Generation,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Share classified right.
    pub accuracy: f64,
    /// Samples evaluated.
    pub samples: u64,
}

/// A step or an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A step was completed.
    Step(StepRecord),
    /// The held-out samples were evaluated.
    Eval(EvalRecord),
}

impl Record {
    /// The generation that made it.
    pub fn generation(&self) -> Generation {
        match self {
            Record::Step(r) => r.generation,
            Record::Eval(r) => r.generation,
        }
    }

    /// Records of a run are ordered by this: a step before the evaluation that follows it.
    pub fn position(&self) -> Position {
        match self {
            Record::Step(r) => Position { step: r.step, evaluated: false },
            Record::Eval(r) => Position { step: r.step, evaluated: true },
        }
    }
}

/// How a worker is doing. Told with every sign of life; shown to people, and decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Memory that its process holds, in bytes; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
    /// Its newest step; `None` while it makes none.
    pub pace: Option<Pace>,
}

/// What the phases of a step took on one rank, in microseconds of wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Waiting for the samples.
    pub data: u64,
    /// Forward and backward passes, with the reduction of what is complete beside them.
    pub passes: u64,
    /// Waiting for the rest of the reduction.
    pub reduce: u64,
    /// Telling the other ranks what was read and wished, and waiting for them.
    pub agree: u64,
    /// Norm, clipping and the update of the parameters.
    pub update: u64,
    /// Reporting the step before.
    pub report: u64,
}

impl Pace {
    /// The whole step. All ranks wait for each other, so it is much the same on all.
    pub fn step_micros(&self) -> u64 {
        let Self { data, passes, reduce, agree, update, report } = self;
        [data, passes, reduce, agree, update, report].into_iter().fold(0, |sum, phase| sum.saturating_add(*phase))
    }

    /// The part outside the model: waiting for data and for the others, and reporting. The rank that waits least is the one
    /// that the others wait for.
    pub fn outside_micros(&self) -> u64 {
        self.step_micros().saturating_sub(self.passes.saturating_add(self.update))
    }
}

/// How far a worker's state has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Steps completed.
    pub step: Step,
    /// Whether the evaluation at this step was done as well.
    pub evaluated: bool,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.step, if self.evaluated { " (evaluated)" } else { "" })
    }
}

/// One rank's part of a checkpoint, written and synced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPart {
    /// Steps completed in the saved state.
    pub step: Step,
    /// The rank's number, from 0.
    pub rank: u32,
    /// Parts that make up the checkpoint.
    pub world: u32,
    /// The blob's path in the checkpoint store.
    pub path: String,
    /// The blob's length.
    pub bytes: u64,
    /// BLAKE3 of the blob, in hexadecimal.
    pub blake3: String,
    /// SHA-256 over all weights of the model, in hexadecimal; equal on every rank or the replicas have diverged.
    pub weights_sha256: String,
}
