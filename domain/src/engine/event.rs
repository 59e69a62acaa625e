//! What the engine is told ([`Event`]) and what it asks for ([`Effect`]).

use serde::{Deserialize, Serialize};

use crate::batch::Length;
use crate::ids::{Generation, Rank, RunName, Step, TrialId, WorkerId};
use crate::record::{Position, SavedPart};
use crate::spec::JobSpec;
use crate::spec::sweep::SweepSpec;

/// Something that happened. All but [`Event::Alive`] and [`Event::Advanced`] are facts and are journalled before they
/// are applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The coordinator started on this journal. Workers known from before have the grace period to come back.
    Restarted,
    /// A user handed in a job.
    Submitted {
        /// The job.
        spec: Box<JobSpec>,
    },
    /// A user handed in a sweep.
    SweepSubmitted {
        /// The sweep.
        spec: Box<SweepSpec>,
    },
    /// A worker connected, for the first time or again.
    Joined {
        /// The worker and where it is.
        worker: WorkerInfo,
        /// What it is in the middle of.
        running: Option<Running>,
    },
    /// A worker is gone: its connection broke or its lease ran out.
    Lost {
        /// The worker.
        worker: WorkerId,
        /// How it was noticed.
        cause: LossCause,
    },
    /// A worker is alive. Not journalled.
    Alive {
        /// The worker.
        worker: WorkerId,
    },
    /// The group's records are durable up to here. Not journalled.
    Advanced {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The newest record.
        position: Position,
    },
    /// The group has connected and agreed on where to go on.
    Formed {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The state all members hold.
        position: Position,
    },
    /// A member could not go on in its generation; what broke it is usually reported as a loss of its own.
    Broken {
        /// The trial.
        trial: TrialId,
        /// The generation that broke.
        generation: Generation,
        /// Who reports it.
        worker: WorkerId,
        /// What it saw.
        cause: String,
    },
    /// The held-out samples were evaluated.
    Measured {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// Steps completed.
        step: Step,
        /// Mean cross-entropy.
        eval_loss: MetricValue,
        /// Share classified right.
        eval_accuracy: MetricValue,
    },
    /// A rank wrote its part of a checkpoint.
    PartSaved {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The part.
        part: SavedPart,
    },
    /// A rank could not write its part of a checkpoint. Training goes on.
    PartFailed {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The step whose checkpoint is lost.
        step: Step,
        /// Why.
        cause: String,
    },
    /// The manifest of a checkpoint is durable: the checkpoint exists.
    Committed {
        /// The trial.
        trial: TrialId,
        /// The generation that saved it.
        generation: Generation,
        /// Steps completed in it.
        step: Step,
        /// The manifest's path in the checkpoint store.
        manifest: String,
        /// BLAKE3 of the manifest.
        blake3: String,
        /// SHA-256 over all weights.
        weights_sha256: String,
    },
    /// A step's loss or gradient was not finite and the specification says to roll back.
    RollbackRequested {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// The step, counted with itself, whose update is to be left out.
        step: Step,
        /// What was not finite.
        cause: String,
    },
    /// The group has nothing left to do, or cannot go on. Reported by rank 0 for a completed or stopped attempt, by any
    /// rank for a failure.
    AttemptEnded {
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
        /// How.
        outcome: AttemptOutcome,
        /// Who says so; nobody in journals of older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerId>,
    },
    /// A user asked a run to stop.
    StopRequested {
        /// The run.
        run: RunName,
    },
    /// A user asked a stopped or failed run to go on.
    ResumeRequested {
        /// The run.
        run: RunName,
    },
    /// A user wants a checkpoint to stay, whatever retention says.
    PinRequested {
        /// The run.
        run: RunName,
        /// Steps completed in the checkpoint.
        step: Step,
    },
    /// A user no longer wants a checkpoint to stay.
    UnpinRequested {
        /// The run.
        run: RunName,
        /// Steps completed in the checkpoint.
        step: Step,
    },
    /// A user wants a worker to get no more work.
    DrainRequested {
        /// The worker.
        worker: WorkerId,
    },
    /// A user wants a drained worker to get work again.
    UndrainRequested {
        /// The worker.
        worker: WorkerId,
    },
    /// A user asked for another priority of a run or sweep.
    PriorityRequested {
        /// The run or sweep.
        run: RunName,
        /// From now on.
        priority: i32,
    },
    /// A deadline of the engine passed; see [`Deadline`].
    DeadlinePassed {
        /// Which.
        deadline: Deadline,
    },
}

impl Event {
    /// Whether the event is written to the journal.
    pub fn is_fact(&self) -> bool {
        !matches!(self, Event::Alive { .. } | Event::Advanced { .. })
    }
}

/// A floating-point metric that survives JSON exactly, not-a-number included: its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MetricValue(u64);

impl From<f64> for MetricValue {
    fn from(value: f64) -> Self {
        Self(value.to_bits())
    }
}

impl From<MetricValue> for f64 {
    fn from(value: MetricValue) -> Self {
        f64::from_bits(value.0)
    }
}

/// A worker process and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its session.
    pub id: WorkerId,
    /// Host name, for people.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// What it computes on, for example `cpu`.
    pub device: String,
    /// Where its peers reach its gRPC service, `host:port`.
    pub peer_address: String,
    /// Where its peers reach its collective transport, `host:port`.
    pub ring_address: String,
}

/// What a connecting worker is in the middle of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The trial.
    pub trial: TrialId,
    /// The generation it last joined.
    pub generation: Generation,
    /// How far its state has come.
    pub position: Position,
}

/// How a loss was noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// Its connection ended: the process died or closed it.
    ConnectionClosed,
    /// Nothing was heard of it for this long.
    LeaseExpired {
        /// The lease, in milliseconds.
        lease_ms: u64,
    },
    /// It said goodbye.
    Left,
}

/// How an attempt ended, as the worker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The last step is done and saved.
    Completed {
        /// Steps completed.
        step: Step,
    },
    /// It was told to stop, and the state is saved.
    Stopped {
        /// Steps completed.
        step: Step,
    },
    /// It came to [`Assignment::until`], is evaluated there, and the state is saved.
    Rested {
        /// Steps completed.
        step: Step,
    },
    /// It cannot go on, and would not on another worker either.
    Failed {
        /// Steps completed.
        step: Step,
        /// Why, for a person.
        cause: String,
    },
}

/// Something the engine waits for with a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "deadline", rename_all = "snake_case")]
pub enum Deadline {
    /// A worker's lease.
    Lease {
        /// The worker.
        worker: WorkerId,
    },
    /// How long a waiting trial holds out for its full gang before it starts with fewer.
    Gather {
        /// The trial.
        trial: TrialId,
    },
    /// How long a broken group waits for the loss that explains it before it forms anew with the same members, or how
    /// long a group may take to form.
    Form {
        /// The trial.
        trial: TrialId,
        /// The generation.
        generation: Generation,
    },
    /// The time of a sweep.
    SweepTime {
        /// The sweep.
        sweep: RunName,
    },
    /// The run's limit of training time.
    TimeLimit {
        /// The trial.
        trial: TrialId,
    },
}

/// What the engine asks the driver to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Tell a worker to take its place in a group. Repeating it is harmless.
    Assign {
        /// The worker.
        worker: WorkerId,
        /// Its place.
        assignment: Box<Assignment>,
    },
    /// Tell a worker to bring the group to a stop at the next step, saved, and report `Stopped`.
    Stop {
        /// The worker.
        worker: WorkerId,
        /// The trial.
        trial: TrialId,
        /// Its generation.
        generation: Generation,
    },
    /// Tell a worker to drop all it holds of a trial.
    Release {
        /// The worker.
        worker: WorkerId,
        /// The trial.
        trial: TrialId,
        /// Everything up to this generation.
        generation: Generation,
    },
    /// Write the manifest over these parts (given by rank), then report [`Event::Committed`].
    CommitCheckpoint {
        /// The trial.
        trial: TrialId,
        /// The generation that saved the parts.
        generation: Generation,
        /// Steps completed.
        step: Step,
        /// The parts, by rank.
        parts: Vec<SavedPart>,
    },
    /// Delete checkpoints that retention gave up.
    DeleteCheckpoints {
        /// The trial.
        trial: TrialId,
        /// Their manifests' paths.
        manifests: Vec<String>,
    },
    /// Delete the parts of a save that will never be a checkpoint, unless its manifest is committed after all. Asked for
    /// again whenever a rank turns out to have written another part of it.
    DropSave {
        /// The trial.
        trial: TrialId,
        /// The generation that saved the parts.
        generation: Generation,
        /// Steps completed.
        step: Step,
    },
    /// Mark the records after `step` that older generations made as rolled back: the trial goes on from there. Emitted at
    /// every formation, because records may have become durable that the engine was never told of.
    RollBack {
        /// The trial.
        trial: TrialId,
        /// The last step that stays.
        step: Step,
        /// The generation that goes on from `step`; what it made itself stays.
        generation: Generation,
    },
    /// Tell people. Goes to the run's log.
    Note {
        /// The run.
        run: RunName,
        /// What happened, with its reason.
        text: String,
    },
}

/// A worker's place in a group, complete enough that the worker has no choice left to make.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The trial.
    pub trial: TrialId,
    /// The generation of the group.
    pub generation: Generation,
    /// The worker's place.
    pub rank: Rank,
    /// All members, by rank.
    pub members: Vec<WorkerInfo>,
    /// Members of the group before that are no members any more and alive: its step in progress can be finished.
    pub leaving: Vec<WorkerId>,
    /// The job.
    pub spec: JobSpec,
    /// Where to begin if no member holds a state of the trial.
    pub start: StartFrom,
    /// Records up to here are durable and need not be sent again.
    pub recorded: Position,
    /// Steps whose update must be left out (from a rollback).
    pub skip_updates: Vec<Step>,
    /// What becomes of a state that the worker already holds in memory.
    pub state: StateInMemory,
    /// Where the trial comes to rest before its end, evaluated and saved: what becomes of it is decided there.
    pub until: Option<Length>,
}

/// What becomes of a state that a worker already holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateInMemory {
    /// It counts: the group goes on from the highest position that a member holds.
    Keep,
    /// It is dropped: the group begins from `start` (after a rollback).
    Discard,
}

/// Where a group begins if no member holds a state of the trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// The initialisation that the seed gives.
    Scratch,
    /// A committed checkpoint of another trial: weights, optimizer and position, but not its early stopping. What differs
    /// between the two jobs counts from there on.
    Copy {
        /// Steps completed in it.
        step: Step,
        /// The manifest's path in the checkpoint store.
        manifest: String,
        /// BLAKE3 of the manifest.
        blake3: String,
    },
    /// A committed checkpoint.
    Checkpoint {
        /// Steps completed in it.
        step: Step,
        /// The manifest's path in the checkpoint store.
        manifest: String,
        /// BLAKE3 of the manifest.
        blake3: String,
    },
}
