//! A sweep: a job that is tried in many configurations, and how they are chosen.
//!
//! [`super::file::sweep`] reads one from YAML. A `SweepSpec` travels and is journalled as JSON; whoever accepts one asks
//! [`check`] first.

pub mod check;
mod options;
mod study;
mod template;
mod words;

use serde::{Deserialize, Serialize};

pub use self::options::{
    AshaOptions, BanditOptions, CmaEsOptions, GaussianProcessOptions, GridOptions, Nsga2Options, PatienceOptions,
    PercentileOptions, PopulationOptions, RungMode, SchedulerSpec, SearcherSpec, ThresholdOptions, TpeOptions,
};
pub use self::study::Unit;
pub use self::template::JobTemplate;
pub use self::words::Words;
use super::{EvalMetric, JobSpec};
use crate::ids::RunName;
use crate::search::{Configuration, Observation, Space};

/// A sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepSpec {
    /// The run's name; trials are numbered in it.
    pub name: RunName,
    /// Determines which configurations are tried. Trials train under the job's own seed, so that they differ by their
    /// configuration alone.
    pub seed: u64,
    /// The job that every trial is, but for its configuration.
    pub job: JobTemplate,
    /// What can be tried.
    pub space: Space,
    /// What is good: at least one, the first before all.
    pub objectives: Vec<Objective>,
    /// Chooses configurations.
    pub searcher: SearcherSpec,
    /// Ends trials early.
    pub scheduler: SchedulerSpec,
    /// When no more trials begin.
    pub budget: SweepBudget,
    /// Workers that a trial starts with and grows back to; instead of the job's `workers`.
    pub workers_per_trial: u32,
    /// The most trials that train at a time; as many as there are workers for, if absent.
    pub max_concurrent: Option<u32>,
    /// Of runs that wait for workers, the one with the highest priority gets them.
    pub priority: i32,
    /// Whether a trial trains on with fewer workers than it should have, down to one, and with more while nobody else needs
    /// them, up to one for each micro-batch.
    pub elastic: bool,
    /// Whether results are told to searcher and scheduler in rounds and in the order of the trials, so that the sweep is
    /// repeated exactly whatever the speed of its workers. They wait for each other then.
    pub lock_step: bool,
    /// How often a failed trial is tried again from its last checkpoint.
    pub trial_retries: u32,
    /// After so many failed trials in a row the sweep fails too; at least 1.
    pub max_failed: u32,
    /// Earlier sweeps whose finished trials the searcher knows from the beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm_start: Vec<RunName>,
    /// Those trials, as far as they fit. Whoever accepts the sweep fills them in, from the sweeps that it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prior: Vec<Observation>,
}

/// When no more trials begin. At least one limit is set, unless the searcher ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepBudget {
    /// So many trials began.
    pub trials: Option<u32>,
    /// All trials together made so many steps; those that train are stopped.
    pub steps: Option<u64>,
    /// So many seconds passed since the sweep began; those that train are stopped.
    pub seconds: Option<u64>,
}

/// A metric to be good at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// The metric.
    pub metric: EvalMetric,
    /// Which way is better.
    pub goal: Goal,
}

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// More is better.
    Maximize,
    /// Less is better.
    Minimize,
}

impl Goal {
    /// The natural one of a metric.
    pub fn of(metric: EvalMetric) -> Self {
        match metric {
            EvalMetric::EvalLoss => Goal::Minimize,
            EvalMetric::EvalAccuracy => Goal::Maximize,
        }
    }

    /// As job and sweep files write it.
    pub fn name(self) -> &'static str {
        match self {
            Goal::Maximize => "maximize",
            Goal::Minimize => "minimize",
        }
    }
}

impl Objective {
    /// The metric with its natural goal.
    pub fn natural(metric: EvalMetric) -> Self {
        Self { metric, goal: Goal::of(metric) }
    }

    /// What searchers and schedulers are told: less is better.
    pub fn loss(self, value: f64) -> f64 {
        match self.goal {
            Goal::Maximize => -value,
            Goal::Minimize => value,
        }
    }
}

impl SweepSpec {
    /// The job of trial `number` with `configuration`. It has the sweep's name; which trial it is, stands in its
    /// [`TrialId`](crate::ids::TrialId).
    ///
    /// # Errors
    /// What the reader of job files says about it, with the trial's number.
    pub fn job(&self, configuration: &Configuration, number: u32) -> Result<JobSpec, String> {
        let job = self.job.with(configuration).map_err(|why| format!("trial {number} is no job: {why}"))?;
        Ok(self.adapted(job))
    }

    /// The job as the file has it, without a configuration.
    ///
    /// # Errors
    /// What the reader of job files says about it; never where [`check::check`] passed.
    pub fn base_job(&self) -> Result<JobSpec, String> {
        self.job.with(&Configuration::new()).map(|job| self.adapted(job))
    }

    fn adapted(&self, mut job: JobSpec) -> JobSpec {
        job.name = self.name.clone();
        job.workers = self.workers_per_trial;
        job.priority = self.priority;
        job.min_workers = if self.elastic { 1 } else { self.workers_per_trial };
        job
    }
}
