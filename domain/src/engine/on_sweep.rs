use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::sweep::{Sweep, SweepPhase, split_trial_run};
use super::trial::{Origin, Phase, Trial};
use super::{Deadline, Effect, EndReason, Engine, Event, Refusal, StopCause, only_trial, picture};
use crate::ids::{RunName, Time, TrialId};
use crate::search::Configuration;
use crate::search::population::Parent;
use crate::search::scheduler::{Decision, StopReason};
use crate::search::study::{AfterFailure, Fact, Next};
use crate::search::warm_start::Prior;
use crate::spec::sweep::SweepSpec;

impl Engine {
    pub(super) fn on_sweep_submitted(&mut self, now: Time, mut spec: Box<SweepSpec>, effects: &mut Vec<Effect>) {
        if self.is_taken(&spec.name) {
            return;
        }
        let left_out = self.add_prior(&mut spec);
        let (name, turn) = (spec.name.clone(), self.take_turn());
        match Sweep::new(spec, now, turn) {
            Ok(sweep) => {
                note_run(effects, &name, "submitted");
                if !sweep.spec.warm_start.is_empty() {
                    let known = sweep.spec.prior.len();
                    note_run(
                        effects,
                        &name,
                        format!("begins with {known} trials of earlier sweeps; {left_out} do not fit"),
                    );
                }
                self.sweeps.insert(name, sweep);
            }
            // Whoever accepted it has checked it; a journal of another version may hold one.
            Err(cause) => note_run(effects, &name, format!("the sweep is not understood: {cause}")),
        }
    }

    /// Adds what the sweeps have found that it is to begin with. Tells how many trials do not fit.
    fn add_prior(&self, spec: &mut SweepSpec) -> u32 {
        // What whoever submits it says of earlier sweeps counts for nothing.
        let mut prior = Prior::default();
        for earlier in spec.warm_start.iter().filter_map(|name| self.sweeps.get(name)) {
            prior.add(spec, &earlier.spec, &earlier.study);
        }
        spec.prior = prior.observations;
        prior.left_out
    }

    /// Whether a run or a sweep may not have this name: because one has it, or for it could be confused with a trial.
    pub(super) fn is_taken(&self, name: &RunName) -> bool {
        let is_trial = split_trial_run(name).is_some_and(|(sweep, _)| self.sweeps.contains_key(&sweep));
        let has_trials =
            self.trials.iter().any(|(id, _)| split_trial_run(&id.run).is_some_and(|(sweep, _)| sweep == *name));
        is_trial || has_trials || self.sweeps.contains_key(name) || self.trials.contains_key(&only_trial(name))
    }

    pub(super) fn check_submission(&self, spec: &SweepSpec) -> Result<(), Refusal> {
        self.check_name(&spec.name)?;
        match spec.warm_start.iter().find(|earlier| !self.sweeps.contains_key(*earlier)) {
            Some(earlier) => Err(Refusal::NoEarlierSweep { sweep: earlier.clone() }),
            None => Ok(()),
        }
    }

    pub(super) fn check_name(&self, name: &RunName) -> Result<(), Refusal> {
        if let Some(trial) = self.trials.get(&only_trial(name)).filter(|trial| trial.sweep.is_none()) {
            let (run, state) = (name.clone(), picture::state(trial));
            return Err(if state.is_ended() {
                Refusal::RunEnded { run, state }
            } else {
                Refusal::RunLive { run, state }
            });
        }
        if !self.is_taken(name) {
            return Ok(());
        }
        let of_trial = split_trial_run(name).map(|(sweep, _)| sweep).filter(|sweep| self.sweeps.contains_key(sweep));
        Err(Refusal::NameOfSweep { run: name.clone(), sweep: of_trial.unwrap_or_else(|| name.clone()) })
    }

    /// Whether a sweep can be stopped or resumed.
    pub(super) fn check_sweep(&self, event: &Event, name: &RunName) -> Result<(), Refusal> {
        let sweep = &self.sweeps[name];
        let (name, state) = (name.clone(), picture::sweep_state(sweep));
        match (event, &sweep.phase) {
            (Event::StopRequested { .. }, SweepPhase::Live { .. })
            | (Event::ResumeRequested { .. }, SweepPhase::Stopped { .. }) => Ok(()),
            (Event::ResumeRequested { .. }, _) => Err(Refusal::SweepNotResumable { sweep: name, state }),
            _ => Err(Refusal::SweepNotLive { sweep: name, state }),
        }
    }

    /// The sweep that a run is a trial of.
    pub(super) fn sweep_of(&self, run: &RunName) -> Option<RunName> {
        self.trials.get(&only_trial(run))?.sweep.as_ref().map(|(sweep, _)| sweep.clone())
    }

    /// What a sweep was asked to be.
    pub fn sweep_spec(&self, name: &RunName) -> Option<&SweepSpec> {
        self.sweeps.get(name).map(|sweep| &*sweep.spec)
    }

    /// All that happened in a sweep, and what was decided.
    pub fn sweep_facts(&self, name: &RunName) -> Option<Vec<Fact>> {
        self.sweeps.get(name).map(|sweep| sweep.study.facts().collect())
    }

    /// Gives free workers something to do: lets studies start trials, or go on with them, as long as there are slots. The
    /// sweep with the highest priority is asked first, and of these the one with the fewest workers, so that they share.
    /// Jobs that wait come before trials that have not begun.
    pub(super) fn feed_sweeps(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let live = self.sweeps.iter().filter(|(_, sweep)| sweep.is_live());
        let mut asked: BTreeSet<RunName> = live.map(|(name, _)| name.clone()).collect();
        let place = |engine: &Self, name: &RunName| {
            let sweep = &engine.sweeps[name];
            let workers = sweep.study.training().saturating_mul(sweep.spec.workers_per_trial);
            (Reverse(sweep.priority), workers, sweep.turn)
        };
        while let Some(name) = asked.iter().min_by_key(|name| place(self, name)).cloned() {
            asked.remove(&name);
            let is_due = self.has_slot(&name) || self.would_be_passed(&name, &asked);
            if is_due && self.fill_slot(now, &name, effects) {
                asked.insert(name);
            }
        }
    }

    /// Whether one of the `others` would take free workers that are too few for this sweep, whose turn it is. Its next
    /// trial is begun then all the same, and waits: so it is not smaller trials that get every worker that becomes free.
    fn would_be_passed(&self, name: &RunName, others: &BTreeSet<RunName>) -> bool {
        let sweep = &self.sweeps[name];
        sweep.is_live() && self.vacant_for(sweep) > 0 && others.iter().any(|other| self.has_slot(other))
    }

    /// Whether enough workers are free, beyond those that waiting runs before it want. A sweep of which nothing trains is
    /// asked all the same: it may be over, and otherwise its next trial says what it waits for.
    fn has_slot(&self, name: &RunName) -> bool {
        let sweep = &self.sweeps[name];
        let is_idle = || sweep.study.training() == 0;
        sweep.is_live() && (is_idle() || self.vacant_for(sweep) >= sweep.spec.workers_per_trial)
    }

    /// Does what the study says comes next; whether to ask again.
    fn fill_slot(&mut self, now: Time, name: &RunName, effects: &mut Vec<Effect>) -> bool {
        self.end_if_steps_are_spent(name, effects);
        let sweep = self.sweep_mut(name);
        match sweep.study.next() {
            Next::Start { trial, point: _, configuration, target, parent } => {
                self.start_trial(now, name, trial, configuration, target, parent, effects);
                true
            }
            Next::Resume { trial, target } => {
                // It rested, and others have come meanwhile.
                let (turn, id) = (self.take_turn(), only_trial(&self.sweeps[name].run(trial)));
                self.trial_mut(&id).turn = turn;
                self.go_on_to(now, name, trial, target, effects);
                true
            }
            Next::End { trial, reason } => {
                self.prune(name, trial, reason, effects);
                true
            }
            Next::Wait(_) => false,
            Next::Finished(reason) => {
                let is_blind = sweep.is_blind();
                sweep.phase = SweepPhase::Ended { at: now, reason, is_blind };
                let text = format!("the sweep is over: {}", picture::sweep_reason(&self.sweeps[name]));
                note_run(effects, name, text);
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the parts of one decision of the study")]
    fn start_trial(
        &mut self,
        now: Time,
        name: &RunName,
        number: u32,
        configuration: Configuration,
        target: u64,
        parent: Option<Parent>,
        effects: &mut Vec<Effect>,
    ) {
        let turn = self.take_turn();
        let sweep = self.sweep_mut(name);
        let (job, until, run) = (sweep.job(number, &configuration), sweep.until(target), sweep.run(number));
        let shown: Vec<String> = configuration.iter().map(|(path, value)| format!("{path} = {value}")).collect();
        note_run(effects, name, format!("trial {number} starts with {}", shown.join(", ")));
        let job = match job {
            Ok(job) => job,
            Err(cause) => {
                // No attempt is made, and none would go better.
                while let AfterFailure::Retry { .. } = self.sweep_mut(name).study.failed(number, &cause) {}
                let cause = format!("cannot be trained: {cause}");
                note_run(effects, name, format!("trial {number} {cause}"));
                self.sweep_mut(name).untrained.insert(number, cause);
                return;
            }
        };
        let id = only_trial(&run);
        let mut trial = Trial::new(job, now, turn);
        trial.sweep = Some((name.clone(), number));
        trial.priority = self.sweeps[name].priority;
        trial.is_elastic = self.sweeps[name].spec.elastic;
        trial.until = Some(until);
        if let Some(Parent { trial: parent, budget }) = parent {
            let sweep = &self.sweeps[name];
            let (step, run) = (sweep.rests.get(&(parent, budget)), sweep.run(parent));
            let saved = self.trials.get(&only_trial(&run)).and_then(|parent| {
                parent.checkpoints.iter().find(|checkpoint| Some(&checkpoint.step) == step).cloned()
            });
            let checkpoint = saved.expect("checkpoints that are to be copied are kept");
            trial.parent = Some(Box::new(Origin { run, checkpoint }));
        }
        self.trials.insert(id, trial);
    }

    /// A trial goes on to `target` from where it rests.
    fn go_on_to(&mut self, now: Time, name: &RunName, number: u32, target: u64, effects: &mut Vec<Effect>) {
        let sweep = &self.sweeps[name];
        let (until, id) = (sweep.until(target), only_trial(&sweep.run(number)));
        let trial = self.trial_mut(&id);
        trial.until = Some(until);
        let has_completed = matches!(trial.phase, Phase::Ended { reason: EndReason::Completed { .. }, .. });
        if has_completed {
            // By its own early stopping: there is nothing left to train, and its result stands.
            self.on_sweep_trial_ended(now, &id, effects);
        } else {
            self.wake(now, &id, effects);
        }
    }

    /// A trial of a sweep came to rest, in one way or another.
    pub(super) fn on_sweep_trial_ended(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let Some((name, number)) = trial.sweep.clone() else { return };
        let Phase::Ended { reason, .. } = &trial.phase else { return };
        let step = match reason.clone() {
            EndReason::Paused { step } | EndReason::Completed { step, .. } => step,
            EndReason::Failed { cause } => return self.on_sweep_trial_failed(now, &name, number, id, &cause, effects),
            // By the sweep's own stopping: it trains on when the sweep does.
            EndReason::Stopped { .. } => return self.note_if_stopped(now, &name, effects),
            EndReason::Pruned { .. } => return,
        };
        let measured = trial.measurements.iter().find(|m| m.step == step).copied();
        let sweep = self.sweep_mut(&name);
        let losses = sweep.losses(measured.as_ref());
        let before = sweep.steps.insert(number, step.0).unwrap_or_default();
        sweep.steps_made = sweep.steps_made + step.0 - before;
        let target = sweep.study.trials()[number as usize].target();
        sweep.rests.insert((number, target), step);
        self.end_if_steps_are_spent(&name, effects);
        let sweep = self.sweep_mut(&name);
        let is_live = sweep.is_live();
        let decision = sweep.study.rested(number, target, &losses);
        let told = self.sweeps[&name].words().decision(&decision);
        note_run(effects, &name, format!("trial {number} at step {step}: {told}"));
        match decision {
            Decision::Continue { target } if is_live => self.go_on_to(now, &name, number, target, effects),
            // It is taken up with the sweep.
            Decision::Continue { .. } | Decision::Pause | Decision::Complete => {}
            Decision::Stop(reason) => self.prune(&name, number, reason, effects),
        }
        self.note_if_stopped(now, &name, effects);
    }

    /// In lock step the limit strikes between two waves, for the order in which trials come to rest must not matter.
    fn end_if_steps_are_spent(&mut self, name: &RunName, effects: &mut Vec<Effect>) {
        let sweep = self.sweep_mut(name);
        let steps = sweep.steps_made;
        let are_spent = sweep.spec.budget.steps.is_some_and(|limit| steps >= limit);
        if are_spent && !sweep.is_out_of_time && !sweep.study.is_within_wave() {
            sweep.study.out_of_time();
            sweep.is_out_of_time = true;
            note_run(
                effects,
                name,
                format!("{steps} steps were made in all, the limit: trials end where they rest next"),
            );
        }
    }

    fn on_sweep_trial_failed(
        &mut self,
        now: Time,
        name: &RunName,
        number: u32,
        id: &TrialId,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) {
        self.withdraw_blame(name, number);
        let sweep = self.sweep_mut(name);
        let is_live = sweep.is_live();
        match sweep.study.failed(number, cause) {
            AfterFailure::Retry { attempt, .. } => {
                note_run(effects, name, format!("trial {number} failed, attempt {attempt} follows: {cause}"));
                if is_live {
                    self.wake(now, id, effects);
                }
            }
            AfterFailure::Failed { attempts } => {
                note_run(effects, name, format!("trial {number} failed after {attempts} attempts: {cause}"));
            }
        }
        self.note_if_stopped(now, name, effects);
    }

    /// The study wants no more of a trial.
    fn prune(&mut self, name: &RunName, number: u32, reason: StopReason, effects: &mut Vec<Effect>) {
        note_run(effects, name, format!("trial {number} ends: {}", self.sweeps[name].words().stop(&reason)));
        let id = only_trial(&self.sweeps[name].run(number));
        let Some(trial) = self.trials.get_mut(&id) else {
            let never = format!("was not begun: {}", self.sweeps[name].words().stop(&reason));
            self.sweep_mut(name).untrained.insert(number, never);
            return;
        };
        let step = trial.newest_saved_step();
        if let Phase::Ended { reason: ended, .. } = &mut trial.phase
            && matches!(ended, EndReason::Paused { .. })
        {
            *ended = EndReason::Pruned { step, reason };
        }
    }

    pub(super) fn on_sweep_stop_requested(&mut self, now: Time, name: &RunName, effects: &mut Vec<Effect>) {
        let sweep = self.sweep_mut(name);
        let SweepPhase::Live { since } = sweep.phase else { return };
        sweep.banked_ms += now.0.saturating_sub(since.0);
        sweep.phase = SweepPhase::Stopping;
        note_run(effects, name, format!("stopping: {}", StopCause::User));
        let of_sweep = |trial: &Trial| trial.sweep.as_ref().is_some_and(|(sweep, _)| sweep == name);
        let live = self.trials.live().filter(|(_, trial)| of_sweep(trial)).map(|(id, _)| id.clone());
        for id in live.collect::<Vec<_>>() {
            self.on_stop_requested(now, &id, effects);
        }
        self.note_if_stopped(now, name, effects);
    }

    fn note_if_stopped(&mut self, now: Time, name: &RunName, effects: &mut Vec<Effect>) {
        let is_stopping = self.sweeps[name].phase == SweepPhase::Stopping;
        let of_sweep = |trial: &Trial| trial.sweep.as_ref().is_some_and(|(sweep, _)| sweep == name);
        if is_stopping && !self.trials.live().any(|(_, trial)| of_sweep(trial)) {
            let sweep = self.sweep_mut(name);
            sweep.phase = SweepPhase::Stopped { at: now };
            note_run(effects, name, "stopped; all trials are saved");
        }
    }

    pub(super) fn on_sweep_resume_requested(&mut self, now: Time, name: &RunName, effects: &mut Vec<Effect>) {
        let turn = self.take_turn();
        let sweep = self.sweep_mut(name);
        if !matches!(sweep.phase, SweepPhase::Stopped { .. }) {
            return;
        }
        sweep.phase = SweepPhase::Live { since: now };
        sweep.turn = turn;
        note_run(effects, name, "resumed");
        let going_on: Vec<(u32, u64)> = sweep.study.in_training().collect();
        for (number, target) in going_on {
            self.go_on_to(now, name, number, target, effects);
        }
    }

    pub(super) fn on_sweep_out_of_time(&mut self, now: Time, name: &RunName, effects: &mut Vec<Effect>) {
        let Some(sweep) = self.sweeps.get_mut(name) else { return };
        if sweep.out_of_time_at().is_some_and(|at| at <= now) {
            sweep.study.out_of_time();
            sweep.is_out_of_time = true;
            note_run(effects, name, "the time of the sweep is over: trials end where they rest next");
        }
    }

    /// When the time of a sweep is over.
    pub(super) fn sweep_deadlines(&self) -> impl Iterator<Item = (Time, Deadline)> + '_ {
        self.sweeps.iter().filter_map(|(name, sweep)| {
            let at = sweep.out_of_time_at()?;
            Some((at, Deadline::SweepTime { sweep: name.clone() }))
        })
    }

    pub(super) fn sweep_mut(&mut self, name: &RunName) -> &mut Sweep {
        self.sweeps.get_mut(name).expect("a sweep is never forgotten")
    }
}

pub(super) fn note_run(effects: &mut Vec<Effect>, run: &RunName, text: impl Into<String>) {
    effects.push(Effect::Note { run: run.clone(), text: text.into() });
}
