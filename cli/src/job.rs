//! Job files, and what the command line changes about them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use domain::batch::Length;
use domain::ids::RunName;
use domain::spec::JobSpec;
use domain::spec::file::{self, FILE_BYTES_MAX, Problems};
use domain::spec::sweep::SweepSpec;

use crate::exit::Failure;

/// Why there is no job.
pub(crate) enum JobError {
    /// The file could not be read.
    Unreadable(anyhow::Error),
    /// It says something that does not hold together.
    Wrong(Problems),
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Unreadable(error) => Failure::config(error),
            JobError::Wrong(problems) => Failure::config(problems),
        }
    }
}

/// Reads the job file at `path`. Data paths in it are relative to its folder.
pub(crate) fn read(path: &Path) -> Result<JobSpec, JobError> {
    read_job_text(&read_file(path)?, path)
}

/// Reads `text` as the job file at `path`.
pub(crate) fn read_job_text(text: &str, path: &Path) -> Result<JobSpec, JobError> {
    file::read(text, &path.display().to_string(), &folder_of(path)?).map_err(JobError::Wrong)
}

/// Whether the file at `path` is meant as a sweep.
pub(crate) fn is_sweep(path: &Path) -> bool {
    read_text(path).is_ok_and(|text| file::sweep::is_sweep(&text))
}

/// Reads the sweep file at `path`. Paths in it are relative to its folder.
pub(crate) fn read_sweep(path: &Path) -> Result<SweepSpec, JobError> {
    read_sweep_text(&read_file(path)?, path)
}

/// Reads `text` as the sweep file at `path`.
pub(crate) fn read_sweep_text(text: &str, path: &Path) -> Result<SweepSpec, JobError> {
    let load = |path: &Path| read_text(path).map_err(|e| format!("{e:#}"));
    file::sweep::read(text, &path.display().to_string(), &folder_of(path)?, load).map_err(JobError::Wrong)
}

/// The absolute folder of a file.
fn folder_of(path: &Path) -> Result<PathBuf, JobError> {
    let absolute = std::path::absolute(path).with_context(|| format!("cannot tell the folder of {}", path.display()));
    let absolute = absolute.map_err(JobError::Unreadable)?;
    Ok(absolute.parent().unwrap_or(Path::new("/")).to_owned())
}

fn read_file(path: &Path) -> Result<String, JobError> {
    read_text(path).with_context(|| format!("cannot read {}", path.display())).map_err(JobError::Unreadable)
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() <= FILE_BYTES_MAX, "it is larger than a job file may be ({FILE_BYTES_MAX} bytes)");
    String::from_utf8(text).context("it is not UTF-8 text")
}

/// What the command line asks for instead of what the file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) name: Option<RunName>,
    pub(crate) workers: Option<u32>,
    pub(crate) steps: Option<u64>,
}

/// `spec` with `overrides`. What a step computes stays the same, so that the result does too.
pub(crate) fn with_overrides(mut spec: JobSpec, overrides: Overrides) -> Result<JobSpec, Failure> {
    let Overrides { name, workers, steps } = overrides;
    if let Some(name) = name {
        spec.name = name;
    }
    if let Some(workers) = workers {
        check_workers(&spec, workers)?;
        spec.workers = workers;
        spec.min_workers = spec.min_workers.min(workers);
    }
    if let Some(steps) = steps {
        spec.train.length = Length::Steps(steps);
        spec.schedule.warmup_steps = spec.schedule.warmup_steps.min(steps);
    }
    Ok(spec)
}

/// Refuses more workers than there are micro-batches to deal to them.
pub(crate) fn check_workers(spec: &JobSpec, workers: u32) -> Result<(), Failure> {
    let micro_batches = spec.train.micro_batches;
    if workers <= micro_batches {
        return Ok(());
    }
    let message = format!("micro_batches ({micro_batches}) must be >= workers ({workers})");
    Err(Failure::config(anyhow::Error::msg(message)).hint("every worker needs a micro-batch of each step"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        let text = "\
version: 1
name: a
workers: 2
min_workers: 2
model: { type: vit, image: [8, 8], channels: 1, patch: 4, dim: 8, depth: 1, heads: 2, classes: 10 }
data: { format: idx, images: i, labels: l }
train: { epochs: 2, global_batch: 8, micro_batches: 4 }
schedule: { warmup_steps: 10 }
";
        file::read(text, "a.yaml", Path::new("/")).unwrap()
    }

    #[test]
    fn overrides_keep_the_job_whole() {
        let overrides = Overrides { name: Some("b".parse().unwrap()), workers: Some(1), steps: Some(5) };
        let changed = with_overrides(spec(), overrides).unwrap();
        assert_eq!((changed.name.as_str(), changed.workers, changed.min_workers), ("b", 1, 1));
        assert_eq!((changed.train.length, changed.schedule.warmup_steps), (Length::Steps(5), 5));
        assert_eq!(changed.train.micro_batches, 4, "or the result would be another");
        assert_eq!(with_overrides(spec(), Overrides::default()).unwrap(), spec());
    }

    #[test]
    fn too_many_workers_are_refused_with_both_numbers() {
        let many = Overrides { workers: Some(5), ..Overrides::default() };
        assert_eq!(
            with_overrides(spec(), many).unwrap_err().to_string(),
            "error: micro_batches (4) must be >= workers (5)\n  hint: every worker needs a micro-batch of each step"
        );
    }
}
