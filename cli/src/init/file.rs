//! The file that is written: every key with what it means, so that people go on from there.

use std::path::Path;

use anyhow::{Context, ensure};
use domain::ids::RunName;

use super::{Data, Source};
use crate::args::{ModelSize, Sides};

/// What is known once everything was asked.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) name: RunName,
    pub(crate) data: Data,
    pub(crate) classes: u32,
    pub(crate) sides: Sides,
    pub(crate) size: ModelSize,
    pub(crate) epochs: u64,
    pub(crate) workers: u32,
    pub(crate) kind: Kind,
}

/// What the file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One training.
    Job,
    /// A search.
    Sweep,
}

/// Tokens that tell something about an image.
const TOKENS_MIN: u32 = 16;

/// Attention over more takes too long on processors.
const TOKENS_MAX: u32 = 4096;

/// The side of a patch that cuts an image into a sensible number of tokens: the largest that leaves enough of them.
pub(crate) fn patch_for(sides: Sides) -> Option<u32> {
    let tokens = |patch: u32| (sides.height / patch) * (sides.width / patch);
    let mut fitting = (1..=16_u32).rev().filter(|p| sides.height.is_multiple_of(*p) && sides.width.is_multiple_of(*p));
    fitting.clone().find(|p| tokens(*p) >= TOKENS_MIN && tokens(*p) <= TOKENS_MAX).or_else(|| {
        // An image of a few pixels has as many tokens as pixels.
        fitting.rfind(|p| tokens(*p) <= TOKENS_MAX)
    })
}

/// Width, depth and heads of a model.
fn shape(size: ModelSize) -> (u32, u32, u32) {
    match size {
        ModelSize::Tiny => (64, 4, 4),
        ModelSize::Small => (192, 6, 6),
        ModelSize::Base => (384, 12, 6),
    }
}

/// The text of the file. `folder` is where it will lie; paths are relative to it, or absolute.
pub(crate) fn yaml(answers: &Answers, folder: &Path) -> anyhow::Result<String> {
    let Answers { name, workers, kind, .. } = answers;
    let job = job_sections(answers, folder)?;
    match kind {
        Kind::Job => Ok(format!(
            "\
# A job for `phalanx launch`, written by `phalanx init`. `phalanx validate` checks it after a change.
version: 1
name: {name}
seed: 0               # another seed is another run of the same job
workers: {workers}            # as many processes train together
min_workers: 1        # and go on while at least so many live

{job}"
        )),
        Kind::Sweep => {
            let job: String =
                job.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect();
            let scheduler = scheduler(answers.epochs);
            Ok(format!(
                "\
# A sweep for `phalanx sweep`, written by `phalanx init`. `phalanx validate` checks it after a change, `phalanx plan`
# tells how long it takes.
version: 1
name: {name}
seed: 0
trials: 20            # configurations that are tried
workers_per_trial: {workers}

space:                # any key of the job
  schedule.lr: {{log_uniform: [1e-4, 1e-2]}}
  optimizer.weight_decay: {{log_uniform: [1e-3, 0.5]}}
  model.dropout: {{uniform: [0, 0.3]}}

objectives:
  - metric: eval_accuracy

searcher:
  type: tpe           # proposes what is like the good trials so far
{scheduler}
job:
{job}"
            ))
        }
    }
}

/// Ends bad trials early where there is something to end.
fn scheduler(epochs: u64) -> String {
    match epochs {
        0..3 => String::new(),
        _ => format!(
            "\n# Rungs: the best third of the trials goes on from each.\nscheduler:\n  type: asha\n  min: {{epochs: {}}}\n  eta: 3\n",
            (epochs / 9).max(1)
        ),
    }
}

fn job_sections(answers: &Answers, folder: &Path) -> anyhow::Result<String> {
    let Answers { name: _, data, classes, sides, size, epochs, workers, kind: _ } = answers;
    let channels = data.channels.unwrap_or(match data.source {
        Source::Folder(_) => 3,
        Source::Idx { .. } => 1,
    });
    let patch = patch_for(*sides).with_context(|| {
        format!("images of {sides} pixels cannot be cut into at most {TOKENS_MAX} equal squares\nhint: scale them, for example to 224x224")
    })?;
    let tokens = (sides.height / patch) * (sides.width / patch);
    let (dim, depth, heads) = shape(*size);
    // Every worker needs a micro-batch of each step.
    let micro_batches = workers.next_power_of_two().max(8);
    let global_batch = micro_batches.max(64);
    let mut text = format!("data:\n{}", source(&data.source, folder, "  ")?);
    match &data.test {
        Some(test) => text.push_str(&format!(
            "  holdout:            # evaluated, never trained on\n{}",
            source(test, folder, "    ")?
        )),
        None => text.push_str("  holdout: 0.1        # share of the images that is evaluated, never trained on\n"),
    }
    if let Some(pixels) = data.pixels {
        let per_channel = |value: f64| vec![format!("{value:.3}"); channels as usize].join(", ");
        text.push_str(&format!(
            "  pixel_max: {}      # pixels are divided by this\n  mean: [{}]       # of all pixels, after that\n  std: [{}]\n",
            pixels.max,
            per_channel(pixels.mean),
            per_channel(pixels.std)
        ));
    }
    text.push_str(&format!(
        "\
  # augment:
  #   shift: 2        # training images move by up to so many pixels
  #   flip: true      # and half of them are mirrored; not for digits or letters

model:
  type: vit
  image: [{}, {}]
  channels: {channels}
  patch: {patch}            # {tokens} tokens
  dim: {dim}
  depth: {depth}
  heads: {heads}
  classes: {classes}

train:
  epochs: {epochs}
  global_batch: {global_batch}    # samples of a step, whatever the number of workers
  micro_batches: {micro_batches}    # any number of workers up to this gives the same weights
  label_smoothing: 0.1
  clip_norm: 1.0

optimizer:
  type: adamw
  weight_decay: 0.05

schedule:
  type: cosine
  lr: 1e-3
  warmup_steps: 20

checkpoint:
  every_epochs: 1
  keep_last: 2        # the newest, and the best
  keep_best: 1
",
        sides.height, sides.width
    ));
    Ok(text)
}

fn source(source: &Source, folder: &Path, indent: &str) -> anyhow::Result<String> {
    let quoted = |path: &Path| quote(path, folder);
    Ok(match source {
        Source::Folder(path) => {
            format!("{indent}format: image_folder\n{indent}path: {}   # a sub-folder for each class\n", quoted(path)?)
        }
        Source::Idx { images, labels } => {
            format!("{indent}format: idx\n{indent}images: {}\n{indent}labels: {}\n", quoted(images)?, quoted(labels)?)
        }
    })
}

/// A path as YAML text. What was relative to this process is absolute if the file lies elsewhere.
fn quote(path: &Path, folder: &Path) -> anyhow::Result<String> {
    let is_here = folder.as_os_str().is_empty() || folder == Path::new(".");
    let path = if is_here { path.to_owned() } else { std::path::absolute(path)? };
    let text = path.to_str().with_context(|| format!("{} is not UTF-8 text", path.display()))?;
    ensure!(!text.chars().any(char::is_control), "the path {text:?} has control characters");
    Ok(serde_json::to_string(text)?)
}
