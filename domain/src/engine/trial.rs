use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::digest::Digest;
use super::lineage::Lineage;
use super::reason::{EndReason, StopCause, WaitReason};
use crate::batch::Length;
use crate::ids::{Generation, RunName, Step, Time, WorkerId};
use crate::keep::{self, Candidate};
use crate::record::{Position, SavedPart};
use crate::spec::JobSpec;
use crate::stop::{StopReason, Stopper, Verdict};
use crate::view::{GroupView, MeasurementView};

/// All that the engine knows of one trial.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trial {
    pub(super) spec: JobSpec,
    pub(super) submitted_at: Time,
    /// Its place in the queue: lower ones are served first.
    pub(super) turn: u64,
    /// Who has a higher one is served before. That of the job until a user wants another; the job stays as it was handed in.
    pub(super) priority: i32,
    /// The sweep that it is a part of, and its number there.
    pub(super) sweep: Option<(RunName, u32)>,
    /// Whether idle workers may be lent to it.
    pub(super) is_elastic: bool,
    /// Where its sweep wants it to come to rest before its end.
    pub(super) until: Option<Length>,
    /// Another trial's checkpoint that it begins from, instead of the initialisation.
    pub(super) parent: Option<Box<Origin>>,
    /// The newest generation, 0 before the first.
    pub(super) generation: Generation,
    /// Members of the newest generation's group when it was made; 0 if it never had one.
    pub(super) world: u32,
    pub(super) phase: Phase,
    /// Why the group is being brought to a stop.
    pub(super) stopping: Option<StopCause>,
    /// The newest generation that is known to have formed.
    pub(super) formed: Generation,
    /// Whether the next group must drop what its members hold.
    pub(super) discard: bool,
    /// Members of the newest group that formed since it was submitted or resumed.
    pub(super) proven: BTreeSet<WorkerId>,
    /// Workers that are not placed here until they connect anew: groups formed without them, and with them did not.
    pub(super) shunned: BTreeMap<WorkerId, Unfit>,
    pub(super) lineage: Lineage,
    /// How far the records are known to be durable. Not journalled: the driver tells it again after a restart.
    pub(super) recorded: Position,
    pub(super) measurements: Vec<MeasurementView>,
    /// Committed checkpoints by step, ascending.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Checkpoints of which parts are written, or whose manifest is being written.
    pub(super) saves: BTreeMap<(Generation, Step), Save>,
    /// Steps whose checkpoint could not be written in this generation, and why.
    pub(super) lost_saves: BTreeMap<Step, String>,
    /// Manifests given up last, so that a deletion lost in a crash is asked for again.
    pub(super) deleted: VecDeque<String>,
    pub(super) skip_updates: BTreeSet<Step>,
    /// Rollbacks since it was submitted or resumed.
    pub(super) rollbacks: u32,
    /// Groups that broke one after the other without a loss that explains it.
    pub(super) broken_in_a_row: u32,
    pub(super) failures: u32,
    /// Groups that formed, oldest first; at most [`GROUPS_MAX`]. For people only.
    pub(super) groups: Vec<GroupView>,
    pub(super) trained: Trained,
}

/// Groups that are remembered of a trial: enough to see what happened of late.
const GROUPS_MAX: usize = 100;

/// Where a trial stands, with what that state needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// No group.
    Waiting {
        since: Time,
        reason: WaitReason,
        /// Until when it holds out for more workers.
        gather_until: Option<Time>,
    },
    /// The group of the current generation is connecting. Before that, the drained workers that leave finish the step in
    /// progress with those that stay.
    Forming { members: Vec<WorkerId>, until: Time, leaving: Vec<WorkerId> },
    /// Steps are being made.
    Running { members: Vec<WorkerId>, since: Time },
    /// The group broke; the loss that explains it is awaited.
    Broken { members: Vec<WorkerId>, until: Time, cause: String },
    /// The attempt has ended; the checkpoint of its last step is not committed yet.
    Saving { members: Vec<WorkerId>, finish: Finish },
    /// It came to rest.
    Ended { at: Time, reason: EndReason },
}

/// How an attempt that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finish {
    Completed {
        step: Step,
    },
    Stopped {
        step: Step,
    },
    /// It came to where its sweep wanted it to rest.
    Rested {
        step: Step,
    },
}

/// Why a worker is shunned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its group failed: its data are missing, or its program is another version.
    Failed,
    /// Its group did not form, whoever is to blame: it gets another chance once the run lacks workers.
    DidNotForm,
}

/// A committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) generation: Generation,
    pub(super) step: Step,
    pub(super) at: Time,
    pub(super) manifest: String,
    pub(super) blake3: Digest,
    pub(super) weights_sha256: Digest,
    /// Whether a user wants it to stay, whatever retention says.
    pub(super) is_pinned: bool,
}

/// The parts of a checkpoint that are written, by rank.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Save {
    pub(super) parts: BTreeMap<u32, SavedPart>,
}

/// Another trial's checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin {
    pub(super) run: RunName,
    pub(super) checkpoint: Checkpoint,
}

/// How long a trial has trained.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Trained {
    banked_ms: u64,
    since: Option<Time>,
    /// After a restart: the newest fact before it. Until a member comes back, nobody knows whether steps were made since.
    unconfirmed_since: Option<Time>,
}

impl Finish {
    pub(super) fn step(self) -> Step {
        match self {
            Finish::Completed { step } | Finish::Stopped { step } | Finish::Rested { step } => step,
        }
    }
}

impl Save {
    pub(super) fn is_complete(&self) -> bool {
        self.parts.first_key_value().is_some_and(|(_, part)| self.parts.len() == part.world as usize)
    }
}

impl Trained {
    fn start(&mut self, now: Time) {
        self.since = Some(now);
        self.unconfirmed_since = None;
    }

    fn pause(&mut self, now: Time) {
        if let Some(since) = self.since.take() {
            let until = self.unconfirmed_since.take().unwrap_or(now);
            self.banked_ms += until.0.saturating_sub(since.0);
        }
    }

    pub(super) fn doubt(&mut self, newest_fact: Time) {
        if self.since.is_some() && self.unconfirmed_since.is_none() {
            self.unconfirmed_since = Some(newest_fact);
        }
    }

    pub(super) fn confirm(&mut self) {
        self.unconfirmed_since = None;
    }

    /// When it will have trained for `limit_ms`, if it goes on without a pause.
    pub(super) fn reaches(&self, limit_ms: u64) -> Option<Time> {
        let since = self.since.filter(|_| self.unconfirmed_since.is_none())?;
        Some(since.after_ms(limit_ms.saturating_sub(self.banked_ms)))
    }
}

impl Trial {
    pub(super) fn new(spec: JobSpec, now: Time, turn: u64) -> Self {
        Self {
            priority: spec.priority,
            spec,
            submitted_at: now,
            turn,
            sweep: None,
            is_elastic: false,
            until: None,
            parent: None,
            generation: Generation(0),
            world: 0,
            phase: Phase::waiting(now),
            stopping: None,
            formed: Generation(0),
            discard: false,
            proven: BTreeSet::new(),
            shunned: BTreeMap::new(),
            lineage: Lineage::default(),
            recorded: Position::default(),
            measurements: Vec::new(),
            checkpoints: Vec::new(),
            saves: BTreeMap::new(),
            lost_saves: BTreeMap::new(),
            deleted: VecDeque::new(),
            skip_updates: BTreeSet::new(),
            rollbacks: 0,
            broken_in_a_row: 0,
            failures: 0,
            groups: Vec::new(),
            trained: Trained::default(),
        }
    }

    /// A group formed for it.
    pub(super) fn remember_group(&mut self, group: GroupView) {
        if self.groups.len() == GROUPS_MAX {
            self.groups.remove(0);
        }
        self.groups.push(group);
    }

    /// All moves from one phase to another.
    pub(super) fn enter(&mut self, now: Time, next: Phase) {
        let legal = match (&self.phase, &next) {
            (Phase::Waiting { .. }, Phase::Forming { .. } | Phase::Saving { .. } | Phase::Ended { .. })
            | (Phase::Forming { .. } | Phase::Broken { .. } | Phase::Running { .. } | Phase::Saving { .. }, _)
            | (Phase::Ended { .. }, Phase::Waiting { .. }) => true,
            (Phase::Waiting { .. } | Phase::Ended { .. }, _) => false,
        };
        assert!(legal, "a trial does not go from {:?} to {next:?}", self.phase);
        match next {
            Phase::Running { .. } => self.trained.start(now),
            Phase::Waiting { .. }
            | Phase::Forming { .. }
            | Phase::Broken { .. }
            | Phase::Saving { .. }
            | Phase::Ended { .. } => self.trained.pause(now),
        }
        self.phase = next;
    }

    /// Once it has ended it takes no more memory than it needs: a sweep leaves tens of thousands of trials behind.
    pub(super) fn shrink(&mut self) {
        self.proven.clear();
        self.measurements.shrink_to_fit();
        self.checkpoints.shrink_to_fit();
        for checkpoint in &mut self.checkpoints {
            checkpoint.manifest.shrink_to_fit();
        }
        self.deleted.shrink_to_fit();
        if self.saves.is_empty() {
            // An empty map keeps room for eleven entries once it had one.
            self.saves = BTreeMap::new();
        }
        self.lineage.shrink();
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    pub(super) fn newest_checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoints.last()
    }

    /// Steps completed in the newest checkpoint; 0, the initialisation, if there is none.
    pub(super) fn newest_saved_step(&self) -> Step {
        self.newest_checkpoint().map_or(Step(0), |checkpoint| checkpoint.step)
    }

    pub(super) fn has_checkpoint_at(&self, step: Step) -> bool {
        self.checkpoints.iter().any(|checkpoint| checkpoint.step == step)
    }

    /// Whether the save of `generation` at `step` is a checkpoint.
    pub(super) fn is_committed(&self, generation: Generation, step: Step) -> bool {
        self.checkpoints.iter().any(|checkpoint| checkpoint.generation == generation && checkpoint.step == step)
    }

    /// Whether the run can have `step` steps, as far as its specification says: how long an epoch is, the workers know.
    pub(super) fn can_reach(&self, step: Step) -> bool {
        match self.spec.train.length {
            Length::Steps(total) => step.0 <= total,
            Length::Epochs(_) => true,
        }
    }

    /// Whether a state held in a worker's memory is part of the history and worth more than the newest checkpoint.
    pub(super) fn can_use(&self, generation: Generation, step: Step) -> bool {
        generation <= self.generation
            && self.lineage.contains(generation, step)
            && step >= self.newest_saved_step()
            && !self.is_ended()
    }

    /// The checkpoints as retention sees them.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let result = self.result();
        let candidate = |checkpoint: &Checkpoint| Candidate {
            step: checkpoint.step,
            metric: self.metric_at(checkpoint.step),
            result: result == Some(checkpoint.step),
            pinned: checkpoint.is_pinned,
        };
        self.checkpoints.iter().map(candidate).collect()
    }

    pub(super) fn best(&self) -> Option<Step> {
        keep::best(self.spec.early_stopping.metric, &self.candidates())
    }

    /// The step whose checkpoint is the result of the completed trial.
    pub(super) fn result(&self) -> Option<Step> {
        match &self.phase {
            Phase::Ended { reason: EndReason::Completed { step, .. }, .. } => Some(*step),
            Phase::Ended {
                reason:
                    EndReason::Stopped { .. }
                    | EndReason::Paused { .. }
                    | EndReason::Pruned { .. }
                    | EndReason::Failed { .. },
                ..
            }
            | Phase::Waiting { .. }
            | Phase::Forming { .. }
            | Phase::Broken { .. }
            | Phase::Running { .. }
            | Phase::Saving { .. } => None,
        }
    }

    fn metric_at(&self, step: Step) -> Option<f64> {
        let measured = self.measurements.iter().find(|m| m.step == step)?;
        Some(self.spec.early_stopping.metric.of(measured.eval_loss.into(), measured.eval_accuracy.into()))
    }

    /// What early stopping says of the measurements so far.
    pub(super) fn early_stop(&self) -> Option<StopReason> {
        let mut stopper = Stopper::new(&self.spec.early_stopping);
        self.measurements.iter().find_map(|m| {
            match stopper.observe(m.step, m.eval_loss.into(), m.eval_accuracy.into()) {
                Verdict::Continue => None,
                Verdict::Stop(reason) => Some(reason),
            }
        })
    }
}

impl Phase {
    pub(super) fn waiting(now: Time) -> Self {
        Phase::Waiting { since: now, reason: WaitReason::TooFew { have: 0, need: 0, drained: 0 }, gather_until: None }
    }

    /// The group's members by rank; none if there is no group.
    pub(super) fn members(&self) -> &[WorkerId] {
        match self {
            Phase::Forming { members, .. }
            | Phase::Running { members, .. }
            | Phase::Broken { members, .. }
            | Phase::Saving { members, .. } => members,
            Phase::Waiting { .. } | Phase::Ended { .. } => &[],
        }
    }
}
