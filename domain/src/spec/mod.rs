//! What a user asked for, checked and complete: every default is filled in, every size fits every other.
//!
//! [`mod@file`] reads a job file (YAML) into a [`JobSpec`], or a sweep file into a [`sweep::SweepSpec`], and reports all
//! mistakes at once. Both travel and are journalled as JSON.

pub mod check;
pub mod file;
pub mod sweep;
mod values;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::batch::{BatchPlan, Length};
use crate::ids::RunName;

/// A training job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The run's name.
    pub name: RunName,
    /// Determines every random number of the run.
    pub seed: u64,
    /// Workers the run starts with and grows back to.
    pub workers: u32,
    /// Workers below which the run waits.
    pub min_workers: u32,
    /// Of runs that wait for workers, the one with the highest priority gets them.
    #[serde(default)]
    pub priority: i32,
    /// What is read.
    pub data: DataSpec,
    /// What is trained.
    pub model: ModelSpec,
    /// How long and in what portions.
    pub train: TrainSpec,
    /// How parameters move.
    pub optimizer: OptimizerSpec,
    /// How the learning rate moves.
    pub schedule: ScheduleSpec,
    /// When the held-out samples are evaluated.
    pub eval: EvalSpec,
    /// When the whole state is saved and which saves are kept.
    pub checkpoint: CheckpointSpec,
    /// When to stop before the end.
    pub early_stopping: EarlyStoppingSpec,
    /// What is shown of the inside of the model; nothing without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<InspectSpec>,
}

impl JobSpec {
    /// The batch plan over `samples` training samples.
    pub fn batch_plan(&self, samples: u64) -> BatchPlan {
        BatchPlan {
            seed: self.seed,
            samples,
            global_batch: self.train.global_batch,
            micro_batches: self.train.micro_batches,
            length: self.train.length,
        }
    }
}

/// Images with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataSpec {
    /// Where the samples are.
    pub source: DataSource,
    /// Where the held-out samples are.
    pub holdout: Holdout,
    /// A pixel value is divided by this before normalisation (255 for bytes, 16 for the UCI digits).
    pub pixel_max: f32,
    /// Subtracted from every scaled pixel, one per channel.
    pub mean: Vec<f32>,
    /// Divides every pixel after the subtraction, one per channel.
    pub std: Vec<f32>,
    /// Random changes of training images.
    pub augment: AugmentSpec,
}

/// Random changes of a training image, drawn anew for each sample and epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AugmentSpec {
    /// Shifts by up to this many pixels each way, filling with the value 0.
    pub shift: u32,
    /// Mirrors left-right with probability one half.
    pub flip: bool,
}

/// A stored data set. Paths are absolute once a job file was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum DataSource {
    /// A pair of IDX files (the MNIST family), plain or gzip.
    Idx {
        /// `images-idx3-ubyte[.gz]`.
        images: PathBuf,
        /// `labels-idx1-ubyte[.gz]`.
        labels: PathBuf,
    },
    /// A folder with one sub-folder of PNG or JPEG files per class; classes in the order of their names.
    ImageFolder {
        /// The folder.
        path: PathBuf,
    },
}

/// Where the held-out samples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holdout {
    /// This share of the source, chosen by the seed; in (0, 1).
    Fraction(f64),
    /// A data set of its own.
    Source(DataSource),
}

/// An architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ModelSpec {
    /// Vision Transformer.
    Vit(VitSpec),
}

/// Vision Transformer (Dosovitskiy et al. 2020): patches, learned positions, pre-norm encoder, linear head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VitSpec {
    /// Image height in pixels; a multiple of `patch`.
    pub height: u32,
    /// Image width in pixels; a multiple of `patch`.
    pub width: u32,
    /// Colour channels.
    pub channels: u32,
    /// Side of a square patch in pixels.
    pub patch: u32,
    /// Width of a token; a multiple of `heads`.
    pub dim: u32,
    /// Encoder blocks.
    pub depth: u32,
    /// Attention heads.
    pub heads: u32,
    /// Width of the hidden layer of a block's perceptron.
    pub mlp_dim: u32,
    /// Output classes.
    pub classes: u32,
    /// What the head reads.
    pub pool: Pool,
    /// Dropout probability after embedding, attention projection and perceptron; in [0, 1).
    pub dropout: f32,
}

/// What the head of an encoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// A learned token put before the patches.
    ClassToken,
    /// The mean of all patch tokens.
    Mean,
}

/// Length and portions of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSpec {
    /// When the run ends if nothing stops it.
    pub length: Length,
    /// Samples of one optimizer step.
    pub global_batch: u64,
    /// Portions a global batch is cut into; the unit dealt to workers. Divides `global_batch`.
    pub micro_batches: u32,
    /// Label smoothing (Szegedy et al. 2016); in [0, 1).
    pub label_smoothing: f32,
    /// Gradients are scaled down to this global L2 norm.
    pub clip_norm: Option<f32>,
    /// What happens when loss or gradient is not finite.
    pub on_non_finite: NonFinitePolicy,
    /// In which format numbers enter matrix products.
    #[serde(default)]
    pub precision: Precision,
}

/// In which format numbers enter matrix products. Weights, moments, sums and everything else are `f32` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to `bf16`: faster where the processor has instructions for it.
    Bf16,
}

/// What happens when a step's loss or gradient is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinitePolicy {
    /// Leave the parameters as they are and go on with the next step.
    Skip,
    /// End the run as failed, keeping the last checkpoint.
    Stop,
    /// Go back to the last checkpoint and skip the update of the offending step.
    Rollback,
}

/// How parameters move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSpec {
    /// The rule.
    pub rule: OptimizerRule,
    /// Decoupled weight decay (Loshchilov and Hutter 2019).
    pub weight_decay: f64,
    /// Which parameters decay.
    pub decay: Decay,
}

/// An update rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum OptimizerRule {
    /// AdamW.
    Adamw {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// Stochastic gradient descent with momentum, as PyTorch's SGD with dampening 0.
    Sgd {
        /// Share of the previous update kept.
        momentum: f64,
        /// Nesterov's form.
        nesterov: bool,
    },
}

/// Which parameters weight decay applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Weight matrices only: no biases, norms, positions or class token.
    Matrices,
    /// Every parameter.
    All,
}

/// How the learning rate moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// The highest learning rate.
    pub lr_max: f64,
    /// Steps over which the rate rises linearly from 0; the first step already takes `lr_max / warmup_steps`.
    pub warmup_steps: u64,
    /// What comes after the warm-up.
    pub shape: ScheduleShape,
}

/// The learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ScheduleShape {
    /// Stays.
    Constant,
    /// Falls linearly to `lr_min` at the last step.
    Linear {
        /// The rate at the end.
        lr_min: f64,
    },
    /// Falls along half a cosine to `lr_min` at the last step (Loshchilov and Hutter 2017).
    Cosine {
        /// The rate at the end.
        lr_min: f64,
    },
    /// Falls with the inverse square root of the step (Vaswani et al. 2017).
    InverseSqrt,
}

/// When the held-out samples are evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalSpec {
    /// How often; the end of the run is always evaluated.
    pub every: Every,
    /// Samples of one forward pass; fixes the order of summation.
    pub batch: u64,
}

/// A period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Passes over the data.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
}

impl Every {
    /// Whether something periodic is due once `step` steps are done. Never at step 0.
    pub fn is_due(self, step: u64, plan: &BatchPlan) -> bool {
        if step == 0 {
            return false;
        }
        match self {
            Every::Steps(n) => step.is_multiple_of(n),
            Every::Epochs(n) => {
                let passed = |s: u64| (s * plan.global_batch).min(plan.total_positions()) / (plan.samples * n);
                passed(step) > passed(step - 1)
            }
        }
    }
}

/// When the whole state is saved and which saves are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// How often; the end of the run is always saved.
    pub every: Every,
    /// The newest so many are kept; at least 1.
    pub keep_last: u32,
    /// The best so many by `early_stopping.metric` are kept.
    pub keep_best: u32,
    /// Checkpoints whose step is a multiple of this are kept.
    pub keep_every_steps: Option<u64>,
}

/// What is shown of the inside of the model while it trains. It must not change the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectSpec {
    /// How often.
    pub every: Every,
    /// Histograms of every parameter and its gradient.
    pub histograms: bool,
    /// What attention looks at, for a few held-out samples.
    pub attention: bool,
}

/// When to stop before the end. The metric also ranks checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStoppingSpec {
    /// A metric that evaluation reports.
    pub metric: EvalMetric,
    /// Stop after this many evaluations without an improvement.
    pub patience: Option<u32>,
    /// The least change that counts as an improvement.
    pub min_delta: f64,
    /// Stop as soon as the metric is at least this good.
    pub threshold: Option<f64>,
    /// Stop when the run has trained for this long, waiting not counted.
    pub max_seconds: Option<u64>,
}

impl EarlyStoppingSpec {
    /// Whether measurements can end the run.
    pub fn watches_metric(&self) -> bool {
        self.patience.is_some() || self.threshold.is_some()
    }
}

/// A metric that evaluation reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalMetric {
    /// Mean cross-entropy of the held-out samples, in nats.
    EvalLoss,
    /// Share of held-out samples classified right.
    EvalAccuracy,
}

impl EvalMetric {
    /// The name under which points are stored.
    pub fn name(self) -> &'static str {
        match self {
            EvalMetric::EvalLoss => "eval_loss",
            EvalMetric::EvalAccuracy => "eval_accuracy",
        }
    }

    /// This one of the two.
    pub fn of(self, eval_loss: f64, eval_accuracy: f64) -> f64 {
        match self {
            EvalMetric::EvalLoss => eval_loss,
            EvalMetric::EvalAccuracy => eval_accuracy,
        }
    }

    /// Whether `new` is better than `old` by more than `min_delta`. A value that is not finite is never better.
    pub fn improves(self, new: f64, old: f64, min_delta: f64) -> bool {
        match self {
            EvalMetric::EvalLoss => new.is_finite() && (!old.is_finite() || new < old - min_delta),
            EvalMetric::EvalAccuracy => new.is_finite() && (!old.is_finite() || new > old + min_delta),
        }
    }

    /// Whether `value` reaches `threshold`.
    pub fn reaches(self, value: f64, threshold: f64) -> bool {
        match self {
            EvalMetric::EvalLoss => value <= threshold,
            EvalMetric::EvalAccuracy => value >= threshold,
        }
    }
}
