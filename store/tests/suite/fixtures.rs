//! Values that the tests store.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::batch::Length;
use domain::ids::{Generation, RunName, Step, TrialId, WorkerId};
use domain::record::{EvalRecord, Read, Record, SavedPart, StepRecord};
use domain::spec::{
    AugmentSpec, CheckpointSpec, DataSource, DataSpec, Decay, EarlyStoppingSpec, EvalMetric, EvalSpec, Every, Holdout,
    JobSpec, ModelSpec, NonFinitePolicy, OptimizerRule, OptimizerSpec, Pool, Precision, ScheduleShape, ScheduleSpec,
    TrainSpec, VitSpec,
};
use safetensors::tensor::{Dtype, TensorView};
use store::{CheckpointStore, MANIFEST_VERSION, Manifest};

pub(crate) fn run(name: &str) -> RunName {
    RunName::new(name).unwrap()
}

pub(crate) fn trial(id: &str) -> TrialId {
    id.parse().unwrap()
}

/// A job with `number` in its floating-point fields.
pub(crate) fn spec(name: &RunName, number: f64) -> JobSpec {
    JobSpec {
        name: name.clone(),
        seed: u64::MAX,
        workers: 2,
        min_workers: 1,
        priority: 0,
        data: DataSpec {
            source: DataSource::Idx { images: "/data/images".into(), labels: "/data/labels".into() },
            holdout: Holdout::Fraction(number),
            pixel_max: 16.0,
            mean: vec![(number as f32).clamp(f32::MIN, f32::MAX)],
            std: vec![0.1],
            augment: AugmentSpec { shift: 1, flip: false },
        },
        model: ModelSpec::Vit(VitSpec {
            height: 8,
            width: 8,
            channels: 1,
            patch: 2,
            dim: 64,
            depth: 4,
            heads: 4,
            mlp_dim: 128,
            classes: 10,
            pool: Pool::Mean,
            dropout: 0.1,
        }),
        train: TrainSpec {
            length: Length::Epochs(3),
            global_batch: 64,
            micro_batches: 8,
            label_smoothing: 0.1,
            clip_norm: Some(1.0),
            on_non_finite: NonFinitePolicy::Rollback,
            precision: Precision::F32,
        },
        optimizer: OptimizerSpec {
            rule: OptimizerRule::Adamw { beta1: 0.9, beta2: number, eps: 1e-8 },
            weight_decay: number,
            decay: Decay::Matrices,
        },
        schedule: ScheduleSpec { lr_max: number, warmup_steps: 10, shape: ScheduleShape::Cosine { lr_min: number } },
        eval: EvalSpec { every: Every::Epochs(1), batch: 64 },
        checkpoint: CheckpointSpec { every: Every::Steps(10), keep_last: 2, keep_best: 1, keep_every_steps: None },
        early_stopping: EarlyStoppingSpec {
            metric: EvalMetric::EvalAccuracy,
            patience: Some(3),
            min_delta: number,
            threshold: None,
            max_seconds: Some(60),
        },
        inspect: None,
    }
}

pub(crate) fn step_record(step: u64, generation: u64, loss: f64) -> Record {
    let read = |micro_batch: u32| Read {
        micro_batch,
        // Groups of one and of two workers.
        worker: WorkerId(u64::MAX - 2 * generation - u64::from(micro_batch) * (generation % 2)),
        samples: vec![step, 300 * step, u64::from(micro_batch)],
    };
    Record::Step(StepRecord {
        step: Step(step),
        generation: Generation(generation),
        loss,
        grad_norm: -0.0,
        lr: 1e-3,
        skipped: step.is_multiple_of(2),
        micros: 1000 + step,
        micros_outside_model: 10,
        reads: vec![read(0), read(1)],
    })
}

pub(crate) fn eval_record(step: u64, generation: u64, loss: f64) -> Record {
    Record::Eval(EvalRecord { step: Step(step), generation: Generation(generation), loss, accuracy: 0.5, samples: 360 })
}

/// A record as `read_records` gives it.
pub(crate) fn without_reads(record: &Record) -> Record {
    let mut record = record.clone();
    if let Record::Step(step) = &mut record {
        step.reads.clear();
    }
    record
}

/// A safetensors file with these tensors, each of one row of f32.
pub(crate) fn safetensors(tensors: &[(&str, &[f32])], metadata: &[(&str, &str)]) -> Bytes {
    let raw: BTreeMap<&str, Vec<u8>> =
        tensors.iter().map(|(name, values)| (*name, values.iter().flat_map(|v| v.to_le_bytes()).collect())).collect();
    let mut views = Vec::new();
    for (name, bytes) in &raw {
        views.push((*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).unwrap()));
    }
    let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Bytes::from(safetensors::serialize(views, Some(metadata)).unwrap())
}

/// The parts of a small model, with other bytes each time, for the order of metadata is random: rank r holds weight r, its moment, and 1000 filler values.
pub(crate) fn parts(world: u32, salt: f32) -> Vec<Bytes> {
    let part = |rank: u32| {
        let filler: Vec<f32> = (0..1000).map(|i| salt + i as f32).collect();
        safetensors(
            &[
                (format!("model.layer{rank}.weight").as_str(), &[salt, rank as f32]),
                (format!("optimizer.m.layer{rank}.weight").as_str(), &filler),
            ],
            &[("format", "pt"), ("updates", "7")],
        )
    };
    (0..world).map(part).collect()
}

/// The manifest over `parts`.
pub(crate) fn manifest(trial: &TrialId, generation: u64, step: u64, parts: &[Bytes]) -> Manifest {
    let saved = |(rank, bytes): (usize, &Bytes)| {
        let blake3 = blake3::hash(bytes).to_string();
        SavedPart {
            step: Step(step),
            rank: rank as u32,
            world: parts.len() as u32,
            path: CheckpointStore::part_path(trial, Generation(generation), Step(step), rank as u32, &blake3),
            bytes: bytes.len() as u64,
            blake3,
            weights_sha256: "ab".repeat(32),
        }
    };
    Manifest {
        version: MANIFEST_VERSION,
        trial: trial.clone(),
        generation: Generation(generation),
        step: Step(step),
        parts: parts.iter().enumerate().map(saved).collect(),
        weights_sha256: "ab".repeat(32),
        spec: spec(&trial.run, 0.1),
    }
}
