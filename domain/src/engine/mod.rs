//! The engine: facts in, effects out. See [`Engine`].
//!
//! Split by what happened: `on_worker` (joined, lost, restarted), `on_trial` (a user's or a group's word about a
//! run), `on_checkpoint` (parts, manifests, retention), `on_sweep` (trials of sweeps), `on_priority` (a user's other
//! priority), `drain` (workers that are to leave), `liveness` (deadlines), `place` (who works for whom), `widen` (to whom idle
//! workers are lent), `picture` (the view).
//!
//! Replay: whatever is not journalled ([`Event::Alive`], [`Event::Advanced`]) changes no decision that later facts build
//! on, so the journal alone leads to the same state; what hangs on it is reset by [`Event::Restarted`].

mod digest;
mod drain;
mod event;
mod lineage;
mod liveness;
mod on_checkpoint;
mod on_priority;
mod on_sweep;
mod on_trial;
mod on_worker;
mod picture;
mod place;
mod reason;
mod refusal;
mod sweep;
#[cfg(test)]
mod tests;
mod trial;
mod trials;
mod unfit;
mod widen;

use std::collections::{BTreeMap, BTreeSet};

pub use event::*;
pub use reason::{Completion, EndReason, StopCause, WaitReason};
pub use refusal::Refusal;

use self::sweep::Sweep;
pub use self::sweep::trial_run;
use self::trial::Phase;
use self::trials::Trials;
use crate::ids::{Generation, RunName, Step, Time, TrialId, WorkerId};
use crate::spec::JobSpec;

/// Decides everything about runs and workers. [`Engine::apply`] takes in what happened and says what is to be done; the
/// driver journals facts before it applies them, performs the effects, and applies [`Event::DeadlinePassed`] when
/// [`Engine::next_deadline`] has come.
///
/// What the driver owes: reports of one worker are applied in the order in which they were sent; records are durable
/// before what was reported after them is applied; after [`Event::Restarted`] its effects are performed first, then
/// [`Event::Advanced`] is applied for every run from the store's newest position; a connection that a newer one of the
/// same worker has replaced does not count as a loss when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Engine {
    timing: Timing,
    workers: BTreeMap<WorkerId, Worker>,
    /// Those that get no more work, lost ones too: they may come back.
    draining: BTreeSet<WorkerId>,
    trials: Trials,
    sweeps: BTreeMap<RunName, Sweep>,
    /// The next free place in the queue.
    next_turn: u64,
    /// When the newest journalled event happened.
    newest_fact: Time,
}

/// How long the engine waits for what. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Without a sign of life for this long, a worker is lost. Five of the worker's heartbeats of one second: a dead
    /// process is noticed by its connection anyway, so the lease may be patient with a busy machine.
    pub lease_ms: u64,
    /// How long a run with enough workers to start waits for its full number, and how long workers are held for a run
    /// that has just lost one. Workers of one launch connect within a fraction of it.
    pub gather_ms: u64,
    /// How long a group may take to form: connecting, opening the data, loading a checkpoint. Doubled with each attempt
    /// in a row that fails, so that a slow start is not cut short for ever.
    pub form_ms: u64,
    /// How long a worker known from before a restart may take to come back: longer than the pause between its attempts
    /// to connect, short enough that a machine that died meanwhile is missed soon.
    pub rejoin_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease_ms: 5_000, gather_ms: 2_000, form_ms: 10_000, rejoin_ms: 30_000 }
    }
}

/// A worker that counts as alive.
#[derive(Clone, Debug, PartialEq)]
struct Worker {
    info: WorkerInfo,
    /// Whether it has connected since the coordinator started.
    connected: bool,
    /// When it is lost unless it is heard of.
    lease_until: Time,
    /// The trial in whose group it is.
    trial: Option<TrialId>,
    /// The state it keeps in memory although it is in no group.
    held: Option<Held>,
}

/// A state in the memory of a free worker.
#[derive(Clone, Debug, PartialEq)]
struct Held {
    trial: TrialId,
    generation: Generation,
    /// Steps completed; unknown for the survivor of a group, whose state is never older than the group's checkpoints.
    step: Option<Step>,
}

impl Engine {
    /// An engine that knows no run and no worker.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            workers: BTreeMap::new(),
            draining: BTreeSet::new(),
            trials: Trials::default(),
            sweeps: BTreeMap::new(),
            next_turn: 0,
            newest_fact: Time(0),
        }
    }

    /// Whether a user's request can be taken; asked before it is journalled. Other events always can.
    pub fn check(&self, event: &Event) -> Result<(), Refusal> {
        match event {
            Event::Submitted { spec } => self.check_name(&spec.name),
            Event::SweepSubmitted { spec } => self.check_submission(spec),
            Event::PriorityRequested { run, priority } => self.check_priority(run, *priority),
            Event::DrainRequested { worker } | Event::UndrainRequested { worker } => self.check_drain(*worker),
            Event::PinRequested { run, step } | Event::UnpinRequested { run, step } => {
                self.check_checkpoint(run, *step)
            }
            Event::StopRequested { run } | Event::ResumeRequested { run } if self.sweeps.contains_key(run) => {
                self.check_sweep(event, run)
            }
            Event::StopRequested { run } | Event::ResumeRequested { run } if self.sweep_of(run).is_some() => {
                let sweep = self.sweep_of(run).expect("just seen");
                Err(Refusal::PartOfSweep { run: run.clone(), sweep })
            }
            Event::StopRequested { run } => self.check_live(run),
            Event::ResumeRequested { run } => {
                let trial = &self.trials[&self.known(run)?];
                match trial.phase {
                    Phase::Ended { reason: EndReason::Stopped { .. } | EndReason::Failed { .. }, .. } => Ok(()),
                    _ => Err(Refusal::NotResumable { run: run.clone(), state: picture::state(trial) }),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether a run has not come to rest.
    fn check_live(&self, run: &RunName) -> Result<(), Refusal> {
        match picture::state(&self.trials[&self.known(run)?]) {
            state if state.is_ended() => Err(Refusal::NotLive { run: run.clone(), state }),
            _ => Ok(()),
        }
    }

    fn known(&self, run: &RunName) -> Result<TrialId, Refusal> {
        let id = only_trial(run);
        if self.trials.contains_key(&id) { Ok(id) } else { Err(Refusal::NoSuchRun { run: run.clone() }) }
    }

    /// Takes in what happened at `now` and says what is to be done, in order. An event that no longer applies (of an older
    /// generation, of a run or worker that is unknown or gone) changes nothing.
    pub fn apply(&mut self, now: Time, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        let is_fact = event.is_fact();
        let joined = match &event {
            Event::Joined { worker, .. } => Some(worker.id),
            _ => None,
        };
        self.dispatch(now, event, &mut effects);
        if is_fact {
            self.let_drained_go(now, &mut effects);
            self.feed_sweeps(now, &mut effects);
            self.place(now, &mut effects);
            self.newest_fact = now;
            // A group that was made may have had to give back members at once.
            effects.retain(|effect| !self.is_superseded(effect));
        }
        if let Some(worker) = joined {
            self.repeat_commands(worker, &mut effects);
        }
        self.trials.settle();
        effects
    }

    /// Whether an effect assigns a place in a group that has made room for a newer one since.
    fn is_superseded(&self, effect: &Effect) -> bool {
        let Effect::Assign { assignment, .. } = effect else { return false };
        assignment.generation < self.trials[&assignment.trial].generation
    }

    fn dispatch(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Restarted => self.on_restarted(now, effects),
            Event::Joined { worker, running } => self.on_joined(now, worker, running, effects),
            Event::Lost { worker, cause } => {
                self.on_lost(now, worker, &cause.to_string(), effects);
                if cause == LossCause::Left {
                    // It does not come back.
                    self.draining.remove(&worker);
                }
            }
            Event::DrainRequested { worker } => self.on_drain_requested(worker),
            Event::UndrainRequested { worker } => self.on_undrain_requested(worker),
            Event::Alive { worker } => self.on_alive(now, worker),
            Event::DeadlinePassed { deadline } => self.on_deadline(now, deadline, effects),
            Event::Submitted { spec } => self.on_submitted(now, *spec, effects),
            Event::SweepSubmitted { spec } => self.on_sweep_submitted(now, spec, effects),
            Event::StopRequested { run } if self.sweeps.contains_key(&run) => {
                self.on_sweep_stop_requested(now, &run, effects);
            }
            Event::ResumeRequested { run } if self.sweeps.contains_key(&run) => {
                self.on_sweep_resume_requested(now, &run, effects);
            }
            Event::StopRequested { run } => self.on_stop_requested(now, &only_trial(&run), effects),
            Event::ResumeRequested { run } => self.on_resume_requested(now, &only_trial(&run), effects),
            Event::PriorityRequested { run, priority } => self.on_priority_requested(&run, priority, effects),
            Event::PinRequested { run, step } => self.on_pin_requested(&only_trial(&run), step, effects),
            Event::UnpinRequested { run, step } => self.on_unpin_requested(&only_trial(&run), step, effects),
            Event::Advanced { trial, generation, position } => {
                self.on_advanced(&trial, generation, position, effects);
            }
            Event::Formed { trial, generation, position } => {
                self.on_formed(now, &trial, generation, position, effects);
            }
            Event::Broken { trial, generation, worker, cause } => {
                self.on_broken(now, &trial, generation, worker, cause, effects);
            }
            Event::Measured { trial, generation, step, eval_loss, eval_accuracy } => {
                self.on_measured(&trial, generation, step, eval_loss, eval_accuracy);
            }
            Event::RollbackRequested { trial, generation, step, cause } => {
                self.on_rollback_requested(now, &trial, generation, step, &cause, effects);
            }
            Event::AttemptEnded { trial, generation, outcome, worker } => {
                self.on_attempt_ended(now, &trial, generation, outcome, worker, effects);
            }
            Event::PartSaved { trial, generation, part } => {
                self.on_part_saved(now, &trial, generation, part, effects);
            }
            Event::PartFailed { trial, generation, step, cause } => {
                self.on_part_failed(now, &trial, generation, step, cause, effects);
            }
            Event::Committed { trial, generation, step, manifest, blake3, weights_sha256 } => {
                let (blake3, weights_sha256) = (blake3.into(), weights_sha256.into());
                let is_pinned = false;
                let checkpoint =
                    trial::Checkpoint { generation, step, at: now, manifest, blake3, weights_sha256, is_pinned };
                self.on_committed(now, &trial, checkpoint, effects);
            }
        }
    }

    /// What a run was asked to be.
    pub fn spec(&self, run: &RunName) -> Option<&JobSpec> {
        self.trials.get(&only_trial(run)).map(|trial| &trial.spec)
    }

    /// Whether a record of `step` made by `generation` is part of the run's history as it stands: no later generation
    /// went on from a step before it. When the record arrives does not matter. A generation that is still to come has
    /// made nothing.
    pub fn counts(&self, run: &RunName, generation: Generation, step: Step) -> bool {
        let trial = self.trials.get(&only_trial(run));
        trial.is_some_and(|trial| generation <= trial.generation && trial.lineage.contains(generation, step))
    }
}

/// The one trial of a job.
fn only_trial(run: &RunName) -> TrialId {
    TrialId { run: run.clone(), number: 0 }
}

/// Asks to delete the parts of saves that were given up.
fn drop_saves(effects: &mut Vec<Effect>, trial: &TrialId, saves: Vec<(Generation, Step)>) {
    effects.extend(saves.into_iter().map(|(generation, step)| Effect::DropSave {
        trial: trial.clone(),
        generation,
        step,
    }));
}

fn note(effects: &mut Vec<Effect>, trial: &TrialId, text: impl Into<String>) {
    effects.push(Effect::Note { run: trial.run.clone(), text: text.into() });
}
