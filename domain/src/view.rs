//! What people see: the engine's state in plain words, made by it after every change and never read back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::{MetricValue, WorkerInfo};
use crate::ids::{Generation, RunName, Step, Time, WorkerId};
use crate::search::Configuration;

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Runs by name.
    pub runs: Vec<RunView>,
    /// Workers by id.
    pub workers: Vec<WorkerView>,
    /// Sweeps by name.
    pub sweeps: Vec<SweepView>,
}

/// One sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepView {
    /// Its name.
    pub name: RunName,
    /// Where it stands.
    pub state: RunState,
    /// Why it stands there, for a person.
    pub reason: String,
    /// That of its trials.
    pub priority: i32,
    /// When it was handed in.
    pub submitted_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Its trials by number.
    pub trials: Vec<SweepTrialView>,
}

/// One trial of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepTrialView {
    /// Its number.
    pub number: u32,
    /// The run that trains it.
    pub run: RunName,
    /// What it tries.
    pub configuration: Configuration,
    /// Where it stands, as its sweep sees it.
    pub state: TrialState,
    /// Why it stands there, for a person.
    pub reason: String,
    /// The budget at which it rested last.
    pub budget: u64,
    /// Steps made when it rested last.
    pub step: Step,
    /// The objectives when it rested last; none before.
    pub values: Vec<MetricValue>,
    /// The trial that it is a copy of, and the budget at which it was copied.
    pub parent: Option<(u32, u64)>,
}

/// Where a trial stands, as its sweep sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialState {
    /// It trains, or waits for workers.
    Training,
    /// It rests, and may be taken up again.
    Paused,
    /// It has the full budget.
    Completed,
    /// It was stopped early.
    Pruned,
    /// It failed.
    Failed,
}

impl fmt::Display for TrialState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrialState::Training => "training",
            TrialState::Paused => "paused",
            TrialState::Completed => "completed",
            TrialState::Pruned => "pruned",
            TrialState::Failed => "failed",
        })
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// Its name.
    pub name: RunName,
    /// The sweep that it is a trial of.
    pub sweep: Option<RunName>,
    /// The run whose checkpoint it begins from, and the steps completed in that: they are a part of its history.
    pub parent: Option<(RunName, Step)>,
    /// Where it stands.
    pub state: RunState,
    /// Why it stands there, for a person; never empty while waiting or after a failure.
    pub reason: String,
    /// The generation of its group.
    pub generation: Generation,
    /// Members of its group, by rank.
    pub members: Vec<WorkerId>,
    /// Workers it wants.
    pub workers_wanted: u32,
    /// Of runs that wait for workers, the one with the highest gets them. Not always that of its job: users change it.
    pub priority: i32,
    /// Steps completed and durable.
    pub step: Step,
    /// Evaluations so far, oldest first.
    pub measurements: Vec<MeasurementView>,
    /// Committed checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointView>,
    /// When it was handed in.
    pub submitted_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Groups lost to a failure so far.
    pub failures: u32,
    /// The groups that formed for it, oldest first; of many, the newest ones.
    pub groups: Vec<GroupView>,
}

/// A group that formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its generation.
    pub generation: Generation,
    /// The step that it went on from.
    pub step: Step,
    /// When it formed.
    pub at: Time,
    /// Its members, by rank.
    pub members: Vec<WorkerId>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// No group yet; the reason says what is missing.
    Waiting,
    /// A group is connecting.
    Forming,
    /// Steps are being made.
    Running,
    /// Told to stop, saving.
    Stopping,
    /// Stopped by a user; can be resumed.
    Stopped,
    /// At rest until its sweep takes it up again.
    Paused,
    /// Stopped early by its sweep.
    Pruned,
    /// Done: the last step, or early stopping.
    Completed,
    /// Cannot go on; can be resumed from its last checkpoint.
    Failed,
}

impl RunState {
    /// Whether the run has come to rest.
    pub fn is_ended(self) -> bool {
        matches!(self, RunState::Stopped | RunState::Paused | RunState::Pruned | RunState::Completed | RunState::Failed)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RunState::Waiting => "waiting",
            RunState::Forming => "forming",
            RunState::Running => "running",
            RunState::Stopping => "stopping",
            RunState::Stopped => "stopped",
            RunState::Paused => "paused",
            RunState::Pruned => "pruned",
            RunState::Completed => "completed",
            RunState::Failed => "failed",
        })
    }
}

/// One evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasurementView {
    /// Steps completed.
    pub step: Step,
    /// Mean cross-entropy.
    pub eval_loss: MetricValue,
    /// Share classified right.
    pub eval_accuracy: MetricValue,
}

/// What the data of a run turned out to hold. Shown to people; decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataFacts {
    /// Training samples; 0 while unknown.
    pub train_samples: u64,
    /// Steps of the whole run; 0 while unknown.
    pub total_steps: u64,
}

/// One committed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Steps completed in it.
    pub step: Step,
    /// When it was committed.
    pub at: Time,
    /// The manifest's path in the checkpoint store.
    pub manifest: String,
    /// BLAKE3 of the manifest.
    pub blake3: String,
    /// SHA-256 over all weights.
    pub weights_sha256: String,
    /// Whether it is the best by the run's metric.
    pub best: bool,
    /// Whether it is the run's result.
    pub result: bool,
    /// Whether a user wants it to stay, whatever retention says.
    pub pinned: bool,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// The worker and where it is.
    pub info: WorkerInfo,
    /// Whether it is connected; a worker known from before a restart may not be yet.
    pub connected: bool,
    /// The run it works for.
    pub run: Option<RunName>,
    /// Whether a user drained it: it gets no more work.
    pub draining: bool,
}
