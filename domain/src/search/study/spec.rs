use std::fmt;

use serde::{Deserialize, Serialize};

use crate::search::population::Parent;
use crate::search::scheduler::{SchedulerSpec, StopReason};
use crate::search::searcher::SearcherSpec;
use crate::search::space::Configuration;
use crate::search::warm_start::Observation;

/// What a study does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudySpec {
    /// Which configurations are tried.
    pub searcher: SearcherSpec,
    /// Which of them go on.
    pub scheduler: SchedulerSpec,
    /// When it ends.
    pub limits: Limits,
    /// Trials run in waves of so many, whose results count together; see [`super::Study`]. Without it results count when
    /// they arrive, which keeps slots busier.
    pub lock_step: Option<LockStep>,
    /// Trials of earlier sweeps that the searcher knows from the beginning; those that do not fit the space are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prior: Vec<Observation>,
}

/// Decisions that depend neither on timing nor on the number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockStep {
    /// Trials of a wave, at least 1; more slots than this find no work.
    pub wave: u32,
}

/// When a study ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// So many trials are started, copies included.
    pub trials: Option<u32>,
    /// The budgets of all trials together, attempts after a failure not counted. The first portion that does not fit ends
    /// the study: nothing more starts or goes on, and what trains comes to its rest.
    pub total_budget: Option<u64>,
    /// So many train at a time.
    pub max_concurrent: Option<u32>,
    /// So many attempts of a trial follow a failed one.
    pub retries: u32,
    /// So many trials that failed for good, without a rest of another between them, end the study.
    pub max_consecutive_failures: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { trials: None, total_budget: None, max_concurrent: None, retries: 1, max_consecutive_failures: Some(5) }
    }
}

/// What a free slot does.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// It begins a trial.
    Start {
        /// Its number.
        trial: u32,
        /// Its point of the unit cube.
        point: Vec<f64>,
        /// What this point stands for.
        configuration: Configuration,
        /// The budget of its first rest.
        target: u64,
        /// The checkpoint it begins from, if it is a copy.
        parent: Option<Parent>,
    },
    /// It takes up a paused trial.
    Resume {
        /// Its number.
        trial: u32,
        /// The budget of its next rest.
        target: u64,
    },
    /// Nothing yet: this trial will not go on, which is told once; then it asks again. In lock step it may be one that was
    /// planned and never started.
    End {
        /// A paused trial.
        trial: u32,
        /// Why it ends.
        reason: StopReason,
    },
    /// It asks again after the next result.
    Wait(WaitReason),
    /// Nothing is left to do.
    Finished(FinishReason),
}

/// Why a slot has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// As many trials train as may.
    MaxConcurrent {
        /// The limit.
        limit: u32,
    },
    /// What comes next depends on those that train.
    Results {
        /// How many train.
        training: u32,
    },
    /// The wave is not complete.
    Wave {
        /// Trials of it that have not come to rest.
        outstanding: u32,
    },
}

/// Why a study is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// All trials came to their end, and no more are to be started.
    Done {
        /// How many were started.
        trials: u32,
    },
    /// The next portion does not fit into the total budget.
    BudgetSpent {
        /// What was given out.
        spent: u64,
        /// The limit.
        limit: u64,
    },
    /// Its time is over.
    OutOfTime,
    /// Too many trials failed one after the other.
    TooManyFailures {
        /// How many.
        failures: u32,
        /// What the last of them said.
        cause: String,
    },
}

/// What becomes of a trial after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterFailure {
    /// The same slot tries again, from the checkpoint of its last rest, if there is one.
    Retry {
        /// The budget of that rest, 0 if it has not rested.
        from: u64,
        /// Where it rests next.
        target: u64,
        /// The number of the coming attempt; the failed first one was number 0.
        attempt: u32,
    },
    /// It has failed for good.
    Failed {
        /// Attempts made.
        attempts: u32,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::MaxConcurrent { limit } => write!(f, "{limit} trials are training, the limit"),
            WaitReason::Results { training } => {
                write!(f, "what comes next depends on the results of {training} trials that are training")
            }
            WaitReason::Wave { outstanding } => {
                write!(f, "{outstanding} trials of the wave have not come to rest")
            }
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FinishReason::Done { trials } => write!(f, "all {trials} trials came to their end"),
            FinishReason::BudgetSpent { spent, limit } => {
                write!(f, "the next portion does not fit into the total budget: {spent} of {limit} are spent")
            }
            FinishReason::OutOfTime => f.write_str("the time of the sweep is over"),
            FinishReason::TooManyFailures { failures, cause } => {
                write!(f, "{failures} trials failed one after the other, the last with: {cause}")
            }
        }
    }
}
