//! A job file: YAML a person writes, read into a [`JobSpec`]. All mistakes are reported at once, each with its place.
//!
//! Reading goes in three moves. [`node`] parses the text into a tree that knows where everything stands; only a text
//! that is no YAML at all stops there. [`section`] reads typed values out of the tree and collects what is wrong. The
//! functions below say which keys there are, what they default to and how they must fit together.

mod describe;
mod keys;
mod node;
mod problem;
pub mod schema;
mod section;
pub mod sweep;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use self::node::Node;
pub use self::problem::{PROBLEMS_MAX, Problem, Problems};
pub(super) use self::section::nearest;
use self::section::{Collector, Interval, Section, Value};
use super::{
    AugmentSpec, CheckpointSpec, DataSource, DataSpec, Decay, EarlyStoppingSpec, EvalMetric, EvalSpec, Every, Holdout,
    InspectSpec, JobSpec, ModelSpec, NonFinitePolicy, OptimizerRule, OptimizerSpec, Pool, Precision, ScheduleShape,
    ScheduleSpec, TrainSpec, VitSpec,
};
use crate::batch::Length;
use crate::ids::{RUN_NAME_BYTES_MAX, RunName, RunNameError};

/// The largest job file. A thousand times a long one, and little enough to parse at once.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The longest path that Linux opens.
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// The version of the format that is read.
pub const VERSION: u64 = 1;

/// The most workers of a run; every one holds a connection to every other.
pub const WORKERS_MAX: u64 = 1024;

/// The highest priority of a run or sweep, either way.
pub const PRIORITY_MAX: i32 = 1000;

/// The most samples of one step. A step's record names each of them and must fit a message: at most 10 bytes each are 10
/// MiB of the 16 MiB there are. With [`STEPS_MAX`], positions in the sample stream stay below 2^54.
pub const GLOBAL_BATCH_MAX: u64 = 1 << 20;

/// The most steps of a run.
pub const STEPS_MAX: u64 = 1 << 34;

/// The most passes over the data; with 2^40 samples, positions in the sample stream stay below 2^60.
pub const EPOCHS_MAX: u64 = 1 << 20;

/// The largest width, height, depth or count inside a model. The product of three of them fits 64 bits.
const SIZE_MAX: u64 = 1 << 20;

/// The longest side of an image in pixels.
const SIDE_MAX: u64 = 1 << 14;

/// The most channels of an image: red, green, blue and transparency.
const CHANNELS_MAX: u64 = 4;

/// Reads the job file `text`. Problems name it `file`; data paths in it are relative to `base`, an absolute folder.
pub fn read(text: &str, file: &str, base: &Path) -> Result<JobSpec, Problems> {
    let problems = Collector::default();
    let spec = match node::parse(text) {
        Ok(root) => Section::root(&root, &problems).and_then(|job| read_job(&job, base)),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    match (spec, problems.into_problems(file, text)) {
        (Some(spec), None) => Ok(spec),
        (_, Some(problems)) => Err(problems),
        (None, None) => unreachable!("a value is missing only after a problem was reported"),
    }
}

/// Reads the tree of a job file. Problems come on one line.
pub(super) fn read_json(tree: &serde_json::Value, base: &Path) -> Result<JobSpec, String> {
    let (root, problems) = (Node::from_json(tree), Collector::default());
    let spec = Section::root(&root, &problems).and_then(|job| read_job(&job, base));
    match (spec, problems.into_problems("", "")) {
        (Some(spec), None) => Ok(spec),
        (_, Some(problems)) => Err(problems.list().iter().map(Problem::on_one_line).collect::<Vec<_>>().join("; ")),
        (None, None) => unreachable!("a value is missing only after a problem was reported"),
    }
}

fn read_job(job: &Section<'_>, base: &Path) -> Option<JobSpec> {
    job.required("version", read_version);
    let name = job.required("name", read_name);
    let seed = job.or("seed", 0, |v| v.integer(0..=u64::MAX));
    let workers = job.or("workers", 1, |v| v.integer_u32(1..=WORKERS_MAX));
    let min_workers = job.or("min_workers", 1, |v| v.integer_u32(1..=WORKERS_MAX));
    if let (Some(workers), Some(min_workers)) = (workers, min_workers)
        && min_workers > workers
    {
        job.report("min_workers", format!("must be at most workers ({workers})"), None);
    }
    let priority = job.or("priority", 0, read_priority);

    let (shape, model) = job.required("model", |v| v.section().map(|s| read_model(&s))).unwrap_or_default();
    let data = job.required("data", |v| read_data(&v.section()?, shape, base));
    let train = job.required("train", |v| read_train(&v.section()?, workers));
    let optimizer = read_optimizer(&job.section_or_empty("optimizer"));
    let steps = train.as_ref().and_then(|train| match train.length {
        Length::Steps(steps) => Some(steps),
        Length::Epochs(_) => None,
    });
    let schedule = read_schedule(&job.section_or_empty("schedule"), steps);
    let eval = read_eval(&job.section_or_empty("eval"));
    let checkpoint = read_checkpoint(&job.section_or_empty("checkpoint"));
    let early_stopping = read_early_stopping(&job.section_or_empty("early_stopping"));
    let inspect = job.optional("inspect", |v| read_inspect(&v.section()?));
    job.finish();

    Some(JobSpec {
        name: name?,
        seed: seed?,
        workers: workers?,
        min_workers: min_workers?,
        priority: priority?,
        data: data?,
        model: model?,
        train: train?,
        optimizer: optimizer?,
        schedule: schedule?,
        eval: eval?,
        checkpoint: checkpoint?,
        early_stopping: early_stopping?,
        inspect: inspect?,
    })
}

fn read_version(value: &Value<'_>) -> Option<()> {
    match value.integer(0..=u64::MAX)? {
        VERSION => Some(()),
        _ => value.problem(format!("is not known, this program reads version {VERSION}"), None),
    }
}

fn read_name(value: &Value<'_>) -> Option<RunName> {
    let message = match RunName::new(value.text()?) {
        Ok(name) => return Some(name),
        Err(RunNameError::Empty) => "must not be empty".to_owned(),
        Err(RunNameError::TooLong { bytes }) => {
            format!("is {bytes} bytes long, at most {RUN_NAME_BYTES_MAX} are allowed")
        }
        Err(RunNameError::BadCharacter { .. }) => {
            "may hold only letters, digits, '-', '_' and '.', and must begin with a letter or digit".to_owned()
        }
    };
    value.problem(message, None)
}

fn read_priority(value: &Value<'_>) -> Option<i32> {
    match i32::try_from(value.signed()?) {
        Ok(number) if (-PRIORITY_MAX..=PRIORITY_MAX).contains(&number) => Some(number),
        _ => value.problem(format!("must be a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"), None),
    }
}

/// What the data must look like for the model to read them, as far as the file says it.
#[derive(Clone, Copy, Default)]
struct WantedShape {
    channels: Option<u32>,
    /// The shorter side.
    side: Option<u32>,
}

fn read_data(data: &Section<'_>, shape: WantedShape, base: &Path) -> Option<DataSpec> {
    let source = read_source(data, base);
    let holdout = data.or("holdout", Holdout::Fraction(0.1), |v| read_holdout(v, base));
    let pixel_max = data.or("pixel_max", 255.0, |v| v.number_f32(Interval::POSITIVE));
    let mean = read_per_channel(data, "mean", shape.channels, Interval::ANY);
    let std = read_per_channel(data, "std", shape.channels, Interval::POSITIVE);
    let augment = read_augment(&data.section_or_empty("augment"), shape.side);
    // Without a format there is no telling which other keys belong here.
    if source.is_some() {
        data.finish();
    }
    Some(DataSpec {
        source: source??,
        holdout: holdout?,
        pixel_max: pixel_max?,
        mean: mean?,
        std: std?,
        augment: augment?,
    })
}

/// The outer `None` says that not even the format is known.
fn read_source(section: &Section<'_>, base: &Path) -> Option<Option<DataSource>> {
    let path = |v: &Value<'_>| read_path(v, base);
    match section.required("format", |v| v.choice(&[("idx", Format::Idx), ("image_folder", Format::ImageFolder)]))? {
        Format::Idx => {
            let (images, labels) = (section.required("images", path), section.required("labels", path));
            Some(images.zip(labels).map(|(images, labels)| DataSource::Idx { images, labels }))
        }
        Format::ImageFolder => Some(section.required("path", path).map(|path| DataSource::ImageFolder { path })),
    }
}

#[derive(Clone, Copy)]
enum Format {
    Idx,
    ImageFolder,
}

fn read_path(value: &Value<'_>, base: &Path) -> Option<PathBuf> {
    let text = value.text()?;
    if text.is_empty() || text.contains('\0') {
        return value.problem("must be the path of a file or folder", None);
    }
    let path = base.join(text);
    let bytes = path.as_os_str().len();
    if bytes > PATH_BYTES_MAX {
        return value
            .problem(format!("is {bytes} bytes long as a whole path, at most {PATH_BYTES_MAX} can be opened"), None);
    }
    Some(path)
}

fn read_holdout(value: &Value<'_>, base: &Path) -> Option<Holdout> {
    if value.is_section() {
        let section = value.section()?;
        let source = read_source(&section, base);
        if source.is_some() {
            section.finish();
        }
        return source?.map(Holdout::Source);
    }
    if !value.is_number() {
        return value.problem("must be a fraction of the data, or a section with format and paths", None);
    }
    value.number(Interval::INSIDE_UNIT).map(Holdout::Fraction)
}

fn read_per_channel(
    data: &Section<'_>,
    name: &'static str,
    channels: Option<u32>,
    allowed: Interval,
) -> Option<Vec<f32>> {
    let numbers = data.optional(name, |v| v.list(|v| v.number_f32(allowed)))?;
    match (numbers, channels) {
        (None, channels) => Some(vec![0.5; channels? as usize]),
        (Some(numbers), Some(channels)) if numbers.len() != channels as usize => {
            let message =
                format!("must hold one number for each of the {channels} channel(s), found {}", numbers.len());
            data.problem(name, message, None)
        }
        (Some(numbers), _) => Some(numbers),
    }
}

fn read_augment(augment: &Section<'_>, side: Option<u32>) -> Option<AugmentSpec> {
    let shift = augment.or("shift", 0, |v| v.integer_u32(0..=SIDE_MAX));
    let flip = augment.or("flip", false, Value::boolean);
    if let (Some(shift), Some(side)) = (shift, side)
        && shift >= side
    {
        augment.report("shift", format!("must be < the image's shorter side ({side})"), None);
    }
    augment.finish();
    Some(AugmentSpec { shift: shift?, flip: flip? })
}

/// The sizes that a preset fixes (Dosovitskiy et al. 2020; Touvron et al. 2021 for the two smaller ones).
#[derive(Clone, Copy)]
struct Preset {
    dim: u32,
    heads: u32,
}

const PRESETS: [(&str, Preset); 3] = [
    ("vit-tiny-16", Preset { dim: 192, heads: 3 }),
    ("vit-small-16", Preset { dim: 384, heads: 6 }),
    ("vit-base-16", Preset { dim: 768, heads: 12 }),
];

impl Preset {
    const SIDE: u32 = 224;
    const CHANNELS: u32 = 3;
    const PATCH: u32 = 16;
    const DEPTH: u32 = 12;
}

fn read_model(model: &Section<'_>) -> (WantedShape, Option<ModelSpec>) {
    let kind = model.required("type", |v| v.choice(&[("vit", ())]));
    let (shape, vit) = read_vit(model);
    if kind.is_some() {
        model.finish();
    }
    (shape, kind.and(vit).map(ModelSpec::Vit))
}

fn read_vit(model: &Section<'_>) -> (WantedShape, Option<VitSpec>) {
    // After a preset that does not exist, the keys that any preset would give are not missing.
    let preset = match model.optional("preset", |v| v.choice(&PRESETS)) {
        Some(preset) => preset,
        None => Some(PRESETS[0].1),
    };
    let size = |name, max: u64, default: Option<u32>| {
        let read = |v: &Value<'_>| v.integer_u32(1..=max);
        match default {
            Some(default) => model.or(name, default, read),
            None => model.required(name, read),
        }
    };
    let image = match preset {
        Some(_) => model.or("image", [Preset::SIDE; 2], read_image),
        None => model.required("image", read_image),
    };
    let channels = size("channels", CHANNELS_MAX, preset.map(|_| Preset::CHANNELS));
    let patch = size("patch", SIDE_MAX, preset.map(|_| Preset::PATCH));
    let dim = size("dim", SIZE_MAX, preset.map(|p| p.dim));
    let depth = size("depth", SIZE_MAX, preset.map(|_| Preset::DEPTH));
    let heads = size("heads", SIZE_MAX, preset.map(|p| p.heads));
    let classes = size("classes", SIZE_MAX, None);
    let mlp_dim = read_mlp_dim(model, dim);
    let pool =
        model.or("pool", Pool::ClassToken, |v| v.choice(&[("class_token", Pool::ClassToken), ("mean", Pool::Mean)]));
    let dropout = model.or("dropout", 0.0, |v| v.number_f32(Interval::UNIT_BELOW_ONE));

    if let (Some(dim), Some(heads)) = (dim, heads)
        && dim % heads != 0
    {
        let at = if model.has("heads") { "heads" } else { "dim" };
        model.report(at, format!("heads ({heads}) must divide dim ({dim})"), None);
    }
    if let (Some([height, width]), Some(patch)) = (image, patch)
        && (height % patch != 0 || width % patch != 0)
    {
        let at = if model.has("patch") { "patch" } else { "image" };
        model.report(at, format!("patch ({patch}) must divide both sides of image ({height}x{width})"), None);
    }

    let shape = WantedShape { channels, side: image.map(|[height, width]| height.min(width)) };
    let vit = || {
        let [height, width] = image?;
        Some(VitSpec {
            height,
            width,
            channels: channels?,
            patch: patch?,
            dim: dim?,
            depth: depth?,
            heads: heads?,
            mlp_dim: mlp_dim?,
            classes: classes?,
            pool: pool?,
            dropout: dropout?,
        })
    };
    (shape, vit())
}

fn read_image(value: &Value<'_>) -> Option<[u32; 2]> {
    let sides = value.list(|v| v.integer_u32(1..=SIDE_MAX))?;
    match <[u32; 2]>::try_from(sides) {
        Ok(sides) => Some(sides),
        Err(_) => value.problem("must be [height, width]", None),
    }
}

fn read_mlp_dim(model: &Section<'_>, dim: Option<u32>) -> Option<u32> {
    let mlp_dim = model.optional("mlp_dim", |v| v.integer_u32(1..=SIZE_MAX));
    let mlp_ratio = model.optional("mlp_ratio", |v| v.integer_u32(1..=64));
    match (mlp_dim?, mlp_ratio?) {
        (Some(_), Some(_)) => model.problem("mlp_ratio", "must not be given together with mlp_dim", None),
        (Some(mlp_dim), None) => Some(mlp_dim),
        (None, mlp_ratio) => Some(dim? * mlp_ratio.unwrap_or(4)),
    }
}

fn read_train(train: &Section<'_>, workers: Option<u32>) -> Option<TrainSpec> {
    let length = read_length(train);
    let global_batch = train.or("global_batch", 64, |v| v.integer(1..=GLOBAL_BATCH_MAX));
    let default = workers.map_or(MICRO_BATCHES_DEFAULT, |w| w.next_power_of_two().max(MICRO_BATCHES_DEFAULT));
    let micro_batches = train.or("micro_batches", default, |v| v.integer_u32(1..=MICRO_BATCHES_MAX));
    let label_smoothing = train.or("label_smoothing", 0.0, |v| v.number_f32(Interval::UNIT_BELOW_ONE));
    let clip_norm = train.optional("clip_norm", |v| v.number_f32(Interval::POSITIVE));
    let on_non_finite = train.or("on_non_finite", NonFinitePolicy::Stop, |v| {
        v.choice(&[
            ("skip", NonFinitePolicy::Skip),
            ("stop", NonFinitePolicy::Stop),
            ("rollback", NonFinitePolicy::Rollback),
        ])
    });
    let precision =
        train.or("precision", Precision::F32, |v| v.choice(&[("f32", Precision::F32), ("bf16", Precision::Bf16)]));
    if let (Some(global_batch), Some(micro_batches), Some(workers)) = (global_batch, micro_batches, workers) {
        check_portions(train, global_batch, micro_batches, workers);
    }
    train.finish();
    Some(TrainSpec {
        length: length?,
        global_batch: global_batch?,
        micro_batches: micro_batches?,
        label_smoothing: label_smoothing?,
        clip_norm: clip_norm?,
        on_non_finite: on_non_finite?,
        precision: precision?,
    })
}

/// Micro-batches of a step unless there are more workers: enough for the group to grow without changing the result.
const MICRO_BATCHES_DEFAULT: u32 = 8;

/// The most micro-batches of a step; every one is a line of the ledger.
const MICRO_BATCHES_MAX: u64 = 1 << 16;

fn read_length(train: &Section<'_>) -> Option<Length> {
    let epochs = train.optional("epochs", |v| v.integer(1..=EPOCHS_MAX));
    let steps = train.optional("steps", |v| v.integer(1..=STEPS_MAX));
    match (epochs?, steps?) {
        (Some(epochs), None) => Some(Length::Epochs(epochs)),
        (None, Some(steps)) => Some(Length::Steps(steps)),
        (Some(_), Some(_)) => train.problem("steps", "must not be given together with epochs", None),
        (None, None) => train.problem("epochs", "epochs or steps is required", None),
    }
}

fn check_portions(train: &Section<'_>, global_batch: u64, micro_batches: u32, workers: u32) {
    let by_default = if train.has("micro_batches") { "" } else { ", the default" };
    let at = if train.has("micro_batches") { "micro_batches" } else { "global_batch" };
    if micro_batches < workers {
        let message = format!("micro_batches ({micro_batches}) must be >= workers ({workers})");
        train.report(at, message, Some("every worker needs a micro-batch of each step".to_owned()));
    }
    if !global_batch.is_multiple_of(u64::from(micro_batches)) {
        let message = format!("micro_batches ({micro_batches}{by_default}) must divide global_batch ({global_batch})");
        let divides = |m: &u64| global_batch.is_multiple_of(*m);
        let nearest = (u64::from(workers)..=global_batch.min(MICRO_BATCHES_MAX)).find(|m| divides(m));
        let below = (u64::from(workers)..=u64::from(micro_batches)).rev().find(divides);
        let hint = below.or(nearest).map(|m| format!("micro_batches: {m} would do"));
        train.report(at, message, hint);
    }
}

fn read_optimizer(optimizer: &Section<'_>) -> Option<OptimizerSpec> {
    let kind = optimizer.or("type", Rule::Adamw, |v| v.choice(&[("adamw", Rule::Adamw), ("sgd", Rule::Sgd)]))?;
    let (rule, weight_decay) = match kind {
        Rule::Adamw => (read_adamw(optimizer), 0.01),
        Rule::Sgd => (read_sgd(optimizer), 0.0),
    };
    let weight_decay = optimizer.or("weight_decay", weight_decay, |v| v.number(Interval::NOT_NEGATIVE));
    let decay =
        optimizer.or("decay", Decay::Matrices, |v| v.choice(&[("matrices", Decay::Matrices), ("all", Decay::All)]));
    optimizer.finish();
    Some(OptimizerSpec { rule: rule?, weight_decay: weight_decay?, decay: decay? })
}

#[derive(Clone, Copy)]
enum Rule {
    Adamw,
    Sgd,
}

fn read_adamw(optimizer: &Section<'_>) -> Option<OptimizerRule> {
    let betas = optimizer.or("betas", [0.9, 0.999], |v| {
        let betas = v.list(|v| v.number(Interval::UNIT_BELOW_ONE))?;
        match <[f64; 2]>::try_from(betas) {
            Ok(betas) => Some(betas),
            Err(_) => v.problem("must be [beta1, beta2]", None),
        }
    });
    let eps = optimizer.or("eps", 1e-8, |v| v.number(Interval::POSITIVE));
    let [beta1, beta2] = betas?;
    Some(OptimizerRule::Adamw { beta1, beta2, eps: eps? })
}

fn read_sgd(optimizer: &Section<'_>) -> Option<OptimizerRule> {
    let momentum = optimizer.or("momentum", 0.9, |v| v.number(Interval::UNIT_BELOW_ONE));
    let nesterov = optimizer.or("nesterov", false, Value::boolean);
    if momentum == Some(0.0) && nesterov == Some(true) {
        optimizer.report("nesterov", "needs a momentum > 0", None);
    }
    Some(OptimizerRule::Sgd { momentum: momentum?, nesterov: nesterov? })
}

fn read_schedule(schedule: &Section<'_>, steps: Option<u64>) -> Option<ScheduleSpec> {
    let lr_max = schedule.or("lr", 1e-3, |v| v.number(Interval::POSITIVE));
    let warmup_steps = schedule.or("warmup_steps", 0, |v| v.integer(0..=STEPS_MAX));
    if let (Some(warmup_steps), Some(steps)) = (warmup_steps, steps)
        && warmup_steps > steps
    {
        schedule.report("warmup_steps", format!("must be <= train.steps ({steps})"), None);
    }
    let kind = schedule.or("type", Curve::Cosine, |v| {
        v.choice(&[
            ("constant", Curve::Constant),
            ("linear", Curve::Linear),
            ("cosine", Curve::Cosine),
            ("inverse_sqrt", Curve::InverseSqrt),
        ])
    })?;
    let shape = match kind {
        Curve::Constant => Some(ScheduleShape::Constant),
        Curve::Linear => read_lr_min(schedule, lr_max).map(|lr_min| ScheduleShape::Linear { lr_min }),
        Curve::Cosine => read_lr_min(schedule, lr_max).map(|lr_min| ScheduleShape::Cosine { lr_min }),
        Curve::InverseSqrt => Some(ScheduleShape::InverseSqrt),
    };
    schedule.finish();
    Some(ScheduleSpec { lr_max: lr_max?, warmup_steps: warmup_steps?, shape: shape? })
}

#[derive(Clone, Copy)]
enum Curve {
    Constant,
    Linear,
    Cosine,
    InverseSqrt,
}

fn read_lr_min(schedule: &Section<'_>, lr_max: Option<f64>) -> Option<f64> {
    let lr_min = schedule.or("lr_min", 0.0, |v| v.number(Interval::NOT_NEGATIVE))?;
    match lr_max {
        Some(lr_max) if lr_min > lr_max => schedule.problem("lr_min", format!("must be <= lr ({lr_max:?})"), None),
        _ => Some(lr_min),
    }
}

fn read_eval(eval: &Section<'_>) -> Option<EvalSpec> {
    let every = read_every(eval);
    let batch = eval.or("batch", 256, |v| v.integer(1..=GLOBAL_BATCH_MAX));
    eval.finish();
    Some(EvalSpec { every: every?, batch: batch? })
}

fn read_every(section: &Section<'_>) -> Option<Every> {
    let epochs = section.optional("every_epochs", |v| v.integer(1..=EPOCHS_MAX));
    let steps = section.optional("every_steps", |v| v.integer(1..=STEPS_MAX));
    match (epochs?, steps?) {
        (Some(_), Some(_)) => section.problem("every_steps", "must not be given together with every_epochs", None),
        (None, Some(steps)) => Some(Every::Steps(steps)),
        (epochs, None) => Some(Every::Epochs(epochs.unwrap_or(1))),
    }
}

fn read_checkpoint(checkpoint: &Section<'_>) -> Option<CheckpointSpec> {
    let every = read_every(checkpoint);
    let keep_last = checkpoint.or("keep_last", 2, |v| v.integer_u32(1..=KEEP_MAX));
    let keep_best = checkpoint.or("keep_best", 1, |v| v.integer_u32(0..=KEEP_MAX));
    let keep_every_steps = checkpoint.optional("keep_every_steps", |v| v.integer(1..=STEPS_MAX));
    checkpoint.finish();
    Some(CheckpointSpec {
        every: every?,
        keep_last: keep_last?,
        keep_best: keep_best?,
        keep_every_steps: keep_every_steps?,
    })
}

/// The most checkpoints to keep by one rule.
const KEEP_MAX: u64 = 10_000;

fn read_early_stopping(stopping: &Section<'_>) -> Option<EarlyStoppingSpec> {
    let metric = stopping.or("metric", EvalMetric::EvalAccuracy, |v| {
        v.choice(&[("eval_loss", EvalMetric::EvalLoss), ("eval_accuracy", EvalMetric::EvalAccuracy)])
    });
    let patience = stopping.optional("patience", |v| v.integer_u32(1..=u64::from(u32::MAX)));
    let min_delta = stopping.or("min_delta", 0.0, |v| v.number(Interval::NOT_NEGATIVE));
    let threshold = stopping.optional("threshold", |v| match metric {
        Some(EvalMetric::EvalAccuracy) => v.number(Interval::UNIT_ABOVE_ZERO),
        Some(EvalMetric::EvalLoss) | None => v.number(Interval::NOT_NEGATIVE),
    });
    let max_seconds = stopping.optional("max_seconds", |v| v.integer(1..=SECONDS_MAX));
    let mode = stopping.optional("mode", |v| v.choice(&[("max", Mode::Max), ("min", Mode::Min)]));
    if let (Some(metric), Some(Some(mode))) = (metric, mode) {
        check_mode(stopping, metric, mode);
    }
    stopping.finish();
    Some(EarlyStoppingSpec {
        metric: metric?,
        patience: patience?,
        min_delta: min_delta?,
        threshold: threshold?,
        max_seconds: max_seconds?,
    })
}

fn read_inspect(inspect: &Section<'_>) -> Option<InspectSpec> {
    let every = read_every(inspect);
    let histograms = inspect.or("histograms", true, Value::boolean);
    let attention = inspect.or("attention", true, Value::boolean);
    if (histograms, attention) == (Some(false), Some(false)) {
        let hint = "leave out the section to look at nothing".to_owned();
        inspect.report("attention", "must not be false together with histograms", Some(hint));
    }
    inspect.finish();
    Some(InspectSpec { every: every?, histograms: histograms?, attention: attention? })
}

/// The longest time limit: a century, which in milliseconds is still far from overflowing.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// Which way a metric is better. The metric alone decides; the key exists so that a file can say it.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Max,
    Min,
}

fn check_mode(stopping: &Section<'_>, metric: EvalMetric, mode: Mode) {
    let (right, word) = match metric {
        EvalMetric::EvalAccuracy => (Mode::Max, "max"),
        EvalMetric::EvalLoss => (Mode::Min, "min"),
    };
    if mode != right {
        stopping.report("mode", format!("must be {word} for {}", metric.name()), None);
    }
}
