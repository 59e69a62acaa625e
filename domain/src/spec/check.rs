//! Whether a [`JobSpec`] that did not come out of a job file holds together.
//!
//! [`file`](super::file) never makes one that does not. A specification that travelled as JSON could hold anything, so
//! whoever accepts one asks [`check`] first: everything later divides, allocates and loops by these numbers.

use super::file::{EPOCHS_MAX, GLOBAL_BATCH_MAX, PATH_BYTES_MAX, PRIORITY_MAX, STEPS_MAX, WORKERS_MAX};
use super::{
    CheckpointSpec, DataSource, DataSpec, EarlyStoppingSpec, EvalSpec, Every, Holdout, InspectSpec, JobSpec, ModelSpec,
    OptimizerRule, OptimizerSpec, ScheduleShape, ScheduleSpec, TrainSpec, VitSpec,
};
use crate::batch::Length;

/// The largest width, height, depth or count inside a model, as job files allow it.
const SIZE_MAX: u32 = 1 << 20;
/// The most micro-batches of a step; every one is a line of the ledger.
const MICRO_BATCHES_MAX: u32 = 1 << 16;
/// The longest time limit: in milliseconds it is still far from overflowing.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// A specification does not hold together. Names everything that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the specification does not hold together: {}", .0.join("; "))]
pub struct Inconsistent(pub Vec<String>);

/// Finds everything that is wrong with `spec` by itself, without looking at data or machine.
pub fn check(spec: &JobSpec) -> Result<(), Inconsistent> {
    let JobSpec {
        name: _,
        seed: _,
        workers,
        min_workers,
        priority,
        data,
        model,
        train,
        optimizer,
        schedule,
        eval,
        checkpoint,
        early_stopping,
        inspect,
    } = spec;
    let mut wrong = Wrong(Vec::new());
    wrong.unless(in_range(u64::from(*workers), WORKERS_MAX), || {
        format!("workers ({workers}) must be 1 to {WORKERS_MAX}")
    });
    wrong.unless((1..=*workers).contains(min_workers), || {
        format!("min_workers ({min_workers}) must be 1 to workers ({workers})")
    });
    wrong.unless((-PRIORITY_MAX..=PRIORITY_MAX).contains(priority), || {
        format!("priority ({priority}) must be -{PRIORITY_MAX} to {PRIORITY_MAX}")
    });
    let ModelSpec::Vit(vit) = model;
    check_data(data, vit, &mut wrong);
    check_vit(vit, &mut wrong);
    check_train(train, *workers, &mut wrong);
    check_optimizer(optimizer, &mut wrong);
    check_schedule(schedule, &mut wrong);
    check_eval(eval, &mut wrong);
    check_checkpoint(checkpoint, &mut wrong);
    check_early_stopping(early_stopping, &mut wrong);
    if let Some(InspectSpec { every, histograms, attention }) = inspect {
        check_every("inspect", *every, &mut wrong);
        wrong.unless(*histograms || *attention, || "inspect.histograms or inspect.attention must be true".to_owned());
    }
    if wrong.0.is_empty() { Ok(()) } else { Err(Inconsistent(wrong.0)) }
}

/// What was found so far.
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(message());
        }
    }
}

fn in_range(value: u64, max: u64) -> bool {
    (1..=max).contains(&value)
}

fn check_data(data: &DataSpec, vit: &VitSpec, wrong: &mut Wrong) {
    let DataSpec { source, holdout, pixel_max, mean, std, augment } = data;
    check_source("data", source, wrong);
    match holdout {
        Holdout::Fraction(f) => wrong.unless(*f > 0.0 && *f < 1.0, || format!("data.holdout ({f}) must be in (0, 1)")),
        Holdout::Source(source) => check_source("data.holdout", source, wrong),
    }
    wrong.unless(positive(f64::from(*pixel_max)), || format!("data.pixel_max ({pixel_max}) must be > 0"));
    for (name, numbers) in [("mean", mean), ("std", std)] {
        wrong.unless(numbers.len() == vit.channels as usize, || {
            format!(
                "data.{name} must hold one number for each of the {} channel(s), found {}",
                vit.channels,
                numbers.len()
            )
        });
    }
    wrong.unless(mean.iter().all(|m| m.is_finite()), || "data.mean must be finite".to_owned());
    wrong.unless(std.iter().all(|s| positive(f64::from(*s))), || "data.std must be > 0".to_owned());
    let side = vit.height.min(vit.width);
    wrong.unless(augment.shift < side.max(1), || {
        format!("data.augment.shift ({}) must be < the image's shorter side ({side})", augment.shift)
    });
}

fn check_source(at: &str, source: &DataSource, wrong: &mut Wrong) {
    let paths = match source {
        DataSource::Idx { images, labels } => vec![images, labels],
        DataSource::ImageFolder { path } => vec![path],
    };
    for path in paths {
        let bytes = path.as_os_str().len();
        if bytes > PATH_BYTES_MAX {
            wrong.0.push(format!("{at}: path of {bytes} bytes must be at most {PATH_BYTES_MAX} long"));
            continue;
        }
        wrong.unless(path.is_absolute(), || format!("{at}: path {} must be absolute", path.display()));
    }
}

fn check_vit(vit: &VitSpec, wrong: &mut Wrong) {
    let VitSpec { height, width, channels, patch, dim, depth, heads, mlp_dim, classes, pool: _, dropout } = vit;
    let sizes = [
        ("height", height),
        ("width", width),
        ("channels", channels),
        ("patch", patch),
        ("dim", dim),
        ("depth", depth),
        ("heads", heads),
        ("mlp_dim", mlp_dim),
        ("classes", classes),
    ];
    for (name, size) in sizes {
        // A hidden width is at most 64 times the token's, as job files allow it.
        let max = if name == "mlp_dim" { 64 * SIZE_MAX } else { SIZE_MAX };
        wrong.unless((1..=max).contains(size), || format!("model.{name} ({size}) must be 1 to {max}"));
    }
    wrong.unless(*heads > 0 && dim.is_multiple_of(*heads), || format!("model.heads ({heads}) must divide dim ({dim})"));
    let fits = *patch > 0 && height.is_multiple_of(*patch) && width.is_multiple_of(*patch);
    wrong.unless(fits, || format!("model.patch ({patch}) must divide both sides of image ({height}x{width})"));
    wrong.unless((0.0..1.0).contains(dropout), || format!("model.dropout ({dropout}) must be in [0, 1)"));
}

fn check_train(train: &TrainSpec, workers: u32, wrong: &mut Wrong) {
    let TrainSpec { length, global_batch, micro_batches, label_smoothing, clip_norm, on_non_finite: _, precision: _ } =
        train;
    match length {
        Length::Epochs(n) => {
            wrong.unless(in_range(*n, EPOCHS_MAX), || format!("train.epochs ({n}) must be 1 to {EPOCHS_MAX}"));
        }
        Length::Steps(n) => {
            wrong.unless(in_range(*n, STEPS_MAX), || format!("train.steps ({n}) must be 1 to {STEPS_MAX}"));
        }
    }
    wrong.unless(in_range(*global_batch, GLOBAL_BATCH_MAX), || {
        format!("train.global_batch ({global_batch}) must be 1 to {GLOBAL_BATCH_MAX}")
    });
    wrong.unless((1..=MICRO_BATCHES_MAX).contains(micro_batches), || {
        format!("train.micro_batches ({micro_batches}) must be 1 to {MICRO_BATCHES_MAX}")
    });
    wrong.unless(*micro_batches >= workers, || {
        format!("train.micro_batches ({micro_batches}) must be >= workers ({workers})")
    });
    wrong.unless(*micro_batches > 0 && global_batch.is_multiple_of(u64::from(*micro_batches)), || {
        format!("train.micro_batches ({micro_batches}) must divide global_batch ({global_batch})")
    });
    wrong.unless((0.0..1.0).contains(label_smoothing), || {
        format!("train.label_smoothing ({label_smoothing}) must be in [0, 1)")
    });
    if let Some(norm) = clip_norm {
        wrong.unless(positive(f64::from(*norm)), || format!("train.clip_norm ({norm}) must be > 0"));
    }
}

fn check_optimizer(optimizer: &OptimizerSpec, wrong: &mut Wrong) {
    let OptimizerSpec { rule, weight_decay, decay: _ } = optimizer;
    match rule {
        OptimizerRule::Adamw { beta1, beta2, eps } => {
            for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
                wrong.unless((0.0..1.0).contains(beta), || format!("optimizer.{name} ({beta}) must be in [0, 1)"));
            }
            wrong.unless(positive(*eps), || format!("optimizer.eps ({eps}) must be > 0"));
        }
        OptimizerRule::Sgd { momentum, nesterov } => {
            wrong
                .unless((0.0..1.0).contains(momentum), || format!("optimizer.momentum ({momentum}) must be in [0, 1)"));
            wrong.unless(!nesterov || *momentum > 0.0, || "optimizer.nesterov needs a momentum > 0".to_owned());
        }
    }
    wrong.unless(not_negative(*weight_decay), || format!("optimizer.weight_decay ({weight_decay}) must be >= 0"));
}

fn check_schedule(schedule: &ScheduleSpec, wrong: &mut Wrong) {
    let ScheduleSpec { lr_max, warmup_steps, shape } = schedule;
    wrong.unless(positive(*lr_max), || format!("schedule.lr ({lr_max}) must be > 0"));
    wrong.unless(*warmup_steps <= STEPS_MAX, || {
        format!("schedule.warmup_steps ({warmup_steps}) must be <= {STEPS_MAX}")
    });
    match shape {
        ScheduleShape::Constant | ScheduleShape::InverseSqrt => {}
        ScheduleShape::Linear { lr_min } | ScheduleShape::Cosine { lr_min } => {
            wrong.unless(not_negative(*lr_min) && lr_min <= lr_max, || {
                format!("schedule.lr_min ({lr_min}) must be 0 to lr ({lr_max})")
            });
        }
    }
}

fn check_eval(eval: &EvalSpec, wrong: &mut Wrong) {
    let EvalSpec { every, batch } = eval;
    check_every("eval", *every, wrong);
    wrong
        .unless(in_range(*batch, GLOBAL_BATCH_MAX), || format!("eval.batch ({batch}) must be 1 to {GLOBAL_BATCH_MAX}"));
}

fn check_every(at: &str, every: Every, wrong: &mut Wrong) {
    let (unit, n, max) = match every {
        Every::Epochs(n) => ("epochs", n, EPOCHS_MAX),
        Every::Steps(n) => ("steps", n, STEPS_MAX),
    };
    wrong.unless(in_range(n, max), || format!("{at}.every_{unit} ({n}) must be 1 to {max}"));
}

fn check_checkpoint(checkpoint: &CheckpointSpec, wrong: &mut Wrong) {
    let CheckpointSpec { every, keep_last, keep_best: _, keep_every_steps } = checkpoint;
    check_every("checkpoint", *every, wrong);
    wrong.unless(*keep_last >= 1, || "checkpoint.keep_last (0) must be >= 1".to_owned());
    wrong.unless(keep_every_steps.is_none_or(|n| n >= 1), || "checkpoint.keep_every_steps (0) must be >= 1".to_owned());
}

fn check_early_stopping(stopping: &EarlyStoppingSpec, wrong: &mut Wrong) {
    let EarlyStoppingSpec { metric: _, patience, min_delta, threshold, max_seconds } = stopping;
    wrong.unless(patience.is_none_or(|p| p >= 1), || "early_stopping.patience (0) must be >= 1".to_owned());
    wrong.unless(not_negative(*min_delta), || format!("early_stopping.min_delta ({min_delta}) must be >= 0"));
    wrong.unless(threshold.is_none_or(not_negative), || "early_stopping.threshold must be >= 0".to_owned());
    wrong.unless(max_seconds.is_none_or(|s| in_range(s, SECONDS_MAX)), || {
        format!("early_stopping.max_seconds must be 1 to {SECONDS_MAX}")
    });
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

fn not_negative(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn good() -> JobSpec {
        let text = "version: 1\nname: a\nworkers: 2\n\
            data: {format: idx, images: i, labels: l}\n\
            model: {type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 1, heads: 4, classes: 10}\n\
            train: {epochs: 2, global_batch: 64}\n";
        crate::spec::file::read(text, "a.yaml", Path::new("/data")).unwrap()
    }

    fn vit(spec: &mut JobSpec) -> &mut VitSpec {
        let ModelSpec::Vit(vit) = &mut spec.model;
        vit
    }

    type Case = (&'static str, fn(&mut JobSpec));

    #[test]
    fn what_does_not_hold_together_is_named() {
        assert_eq!(check(&good()), Ok(()));
        let cases: &[Case] = &[
            ("workers (0)", |s| (s.workers, s.min_workers) = (0, 0)),
            ("min_workers (3) must be 1 to workers (2)", |s| s.min_workers = 3),
            ("priority (-1001) must be -1000 to 1000", |s| s.priority = -1001),
            ("micro_batches (8) must be >= workers (9)", |s| s.workers = 9),
            ("micro_batches (0) must be 1", |s| s.train.micro_batches = 0),
            ("micro_batches (8) must divide global_batch (63)", |s| s.train.global_batch = 63),
            ("global_batch (0)", |s| s.train.global_batch = 0),
            ("train.steps (0)", |s| s.train.length = Length::Steps(0)),
            ("train.epochs (18446744073709551615)", |s| s.train.length = Length::Epochs(u64::MAX)),
            ("label_smoothing (NaN)", |s| s.train.label_smoothing = f32::NAN),
            ("clip_norm (0)", |s| s.train.clip_norm = Some(0.0)),
            ("heads (3) must divide dim (32)", |s| vit(s).heads = 3),
            ("heads (0)", |s| vit(s).heads = 0),
            ("patch (3) must divide both sides of image (8x8)", |s| vit(s).patch = 3),
            ("classes (0)", |s| vit(s).classes = 0),
            ("dropout (1)", |s| vit(s).dropout = 1.0),
            ("one number for each of the 3 channel(s), found 1", |s| vit(s).channels = 3),
            ("shift (8) must be < the image's shorter side (8)", |s| s.data.augment.shift = 8),
            ("holdout (1)", |s| s.data.holdout = Holdout::Fraction(1.0)),
            ("path x must be absolute", |s| s.data.source = DataSource::ImageFolder { path: "x".into() }),
            ("data.std", |s| s.data.std = vec![0.0]),
            ("lr (inf)", |s| s.schedule.lr_max = f64::INFINITY),
            ("lr_min (2)", |s| s.schedule.shape = ScheduleShape::Linear { lr_min: 2.0 }),
            ("beta1 (1)", |s| s.optimizer.rule = OptimizerRule::Adamw { beta1: 1.0, beta2: 0.9, eps: 1e-8 }),
            ("nesterov", |s| s.optimizer.rule = OptimizerRule::Sgd { momentum: 0.0, nesterov: true }),
            ("eval.every_epochs (0)", |s| s.eval.every = Every::Epochs(0)),
            ("checkpoint.keep_last (0)", |s| s.checkpoint.keep_last = 0),
            ("patience (0)", |s| s.early_stopping.patience = Some(0)),
            ("inspect.every_steps (0)", |s| {
                s.inspect = Some(InspectSpec { every: Every::Steps(0), histograms: true, attention: false });
            }),
            ("inspect.histograms or inspect.attention", |s| {
                s.inspect = Some(InspectSpec { every: Every::Steps(1), histograms: false, attention: false });
            }),
        ];
        for (expected, spoil) in cases {
            let mut spec = good();
            spoil(&mut spec);
            let message = check(&spec).expect_err(expected).to_string();
            assert!(message.contains(expected), "{expected:?} is not in {message:?}");
        }
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let mut spec = good();
        (spec.train.global_batch, vit(&mut spec).heads) = (0, 5);
        let Inconsistent(found) = check(&spec).unwrap_err();
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
