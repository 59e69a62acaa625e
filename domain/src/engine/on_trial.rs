use super::lineage::Cut;
use super::liveness::{BROKEN_IN_A_ROW_MAX, STEADY_MS};
use super::trial::{Finish, Phase, Trial};
use super::{AttemptOutcome, Completion, Effect, EndReason, Engine, Held, MetricValue, StopCause, note, only_trial};
use crate::ids::{Generation, Step, Time, TrialId, WorkerId};
use crate::record::Position;
use crate::spec::JobSpec;
use crate::view::MeasurementView;

/// Rollbacks of a run before it fails: a training that is not finite this often needs a person.
const ROLLBACKS_MAX: u32 = 10;

impl Engine {
    pub(super) fn on_submitted(&mut self, now: Time, spec: JobSpec, effects: &mut Vec<Effect>) {
        let id = only_trial(&spec.name);
        if self.trials.contains_key(&id) {
            return;
        }
        note(effects, &id, format!("submitted: {} workers wanted, at least {}", spec.workers, spec.min_workers));
        let turn = self.take_turn();
        self.trials.insert(id, Trial::new(spec, now, turn));
    }

    fn take_turn(&mut self) -> u64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        turn
    }

    pub(super) fn on_stop_requested(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let Some(trial) = self.trials.get(id) else { return };
        match trial.phase {
            Phase::Waiting { .. } => self.end_stopped(now, id, effects),
            Phase::Forming { .. } | Phase::Broken { .. } | Phase::Running { .. } if trial.stopping.is_none() => {
                self.bring_to_stop(id, StopCause::User, effects);
            }
            Phase::Forming { .. } | Phase::Broken { .. } | Phase::Running { .. } => {}
            Phase::Saving { .. } | Phase::Ended { .. } => {}
        }
    }

    /// Asks the group to stop: at once if it is running, else as soon as it has formed.
    pub(super) fn bring_to_stop(&mut self, id: &TrialId, cause: StopCause, effects: &mut Vec<Effect>) {
        note(effects, id, format!("stopping: {cause}"));
        self.trial_mut(id).stopping = Some(cause);
        self.send_stop(id, effects);
    }

    fn send_stop(&self, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let Phase::Running { members, .. } = &trial.phase else { return };
        let connected = members.iter().filter(|member| self.workers[*member].connected);
        effects.extend(connected.map(|member| Effect::Stop {
            worker: *member,
            trial: id.clone(),
            generation: trial.generation,
        }));
    }

    pub(super) fn on_resume_requested(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let Some(trial) = self.trials.get(id) else { return };
        let resumable =
            matches!(trial.phase, Phase::Ended { reason: EndReason::Stopped { .. } | EndReason::Failed { .. }, .. });
        if !resumable {
            return;
        }
        let turn = self.take_turn();
        let trial = self.trial_mut(id);
        let step = trial.newest_saved_step();
        note(effects, id, format!("resumed from step {step}"));
        trial.turn = turn;
        trial.stopping = None;
        trial.rollbacks = 0;
        trial.broken_in_a_row = 0;
        // A generation without a group: whatever still arrives of the old attempt is too late.
        trial.take_generation();
        trial.enter(now, Phase::waiting(now));
        let generation = trial.generation;
        self.go_on_from(id, step, generation, effects);
    }

    /// The history goes on from `step` with `generation`: what older ones made beyond it no longer counts.
    fn go_on_from(&mut self, id: &TrialId, step: Step, generation: Generation, effects: &mut Vec<Effect>) {
        let trial = self.trial_mut(id);
        trial.lineage.cut(Cut { generation, step });
        trial.saves.retain(|(_, saved), _| *saved <= step);
        trial.measurements.retain(|measured| measured.step <= step);
        if trial.recorded.step > step {
            trial.recorded = Position { step, evaluated: true };
        }
        effects.push(Effect::RollBack { trial: id.clone(), step, generation });
    }

    pub(super) fn on_advanced(
        &mut self,
        id: &TrialId,
        generation: Generation,
        position: Position,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.generation == generation) else { return };
        let before = trial.recorded;
        trial.recorded = before.max(position);
        for ((generation, step), save) in &trial.saves {
            if save.is_complete() && (before.step < *step && *step <= position.step) {
                effects.push(save.commit(id, *generation, *step));
            }
        }
    }

    pub(super) fn on_formed(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        position: Position,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.generation == generation) else { return };
        if trial.formed == generation || trial.is_ended() {
            return;
        }
        trial.formed = generation;
        let saved = trial.newest_saved_step();
        if position.step < saved {
            trial.discard = true;
            let cause = format!("generation {generation} formed at step {position}, but step {saved} is saved");
            if matches!(trial.phase, Phase::Forming { .. } | Phase::Broken { .. }) {
                self.form_anew(now, id, &cause, effects);
            }
            return;
        }
        if trial.recorded > position {
            let text = format!("going back from step {} to {position}, the newest state that is left", trial.recorded);
            note(effects, id, text);
        }
        trial.discard = false;
        self.go_on_from(id, position.step, generation, effects);
        let trial = self.trial_mut(id);
        if let Phase::Forming { members, .. } = &trial.phase {
            let members = members.clone();
            let text = format!("generation {generation} runs with {} workers from step {position}", members.len());
            note(effects, id, text);
            trial.enter(now, Phase::Running { members, since: now });
            if trial.stopping.is_some() {
                self.send_stop(id, effects);
            }
            self.apply_retention(id, effects);
        }
    }

    pub(super) fn on_broken(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        worker: WorkerId,
        cause: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.generation == generation) else { return };
        if !trial.phase.members().contains(&worker) {
            return;
        }
        match &trial.phase {
            Phase::Running { since, .. } => {
                if since.after_ms(STEADY_MS) <= now {
                    trial.broken_in_a_row = 0;
                }
            }
            Phase::Forming { .. } => {}
            Phase::Saving { finish, .. }
                if trial.saves.get(&(generation, finish.step())).is_some_and(|s| s.is_complete()) =>
            {
                return;
            }
            Phase::Saving { .. } => {}
            Phase::Broken { .. } | Phase::Waiting { .. } | Phase::Ended { .. } => return,
        }
        trial.failures += 1;
        let cause = format!("worker {} reports: {cause}", worker.short());
        note(effects, id, format!("generation {generation} broke: {cause}"));
        let until = Self::explain_until(now, trial.broken_in_a_row);
        let members = trial.phase.members().to_vec();
        trial.enter(now, Phase::Broken { members, until, cause });
    }

    /// A group broke, or did not form, and no loss explains it: the same members try again, a few times.
    pub(super) fn form_anew(&mut self, now: Time, id: &TrialId, cause: &str, effects: &mut Vec<Effect>) {
        let trial = self.trial_mut(id);
        trial.broken_in_a_row += 1;
        if trial.broken_in_a_row > BROKEN_IN_A_ROW_MAX {
            let cause = format!("{} groups in a row broke; the last one: {cause}", trial.broken_in_a_row);
            return self.end(now, id, EndReason::Failed { cause }, effects);
        }
        let members = trial.phase.members().to_vec();
        self.regroup(now, id, members, cause, effects);
    }

    pub(super) fn on_measured(
        &mut self,
        id: &TrialId,
        generation: Generation,
        step: Step,
        eval_loss: MetricValue,
        eval_accuracy: MetricValue,
    ) {
        let Some(trial) = self.trials.get_mut(id) else { return };
        if generation > trial.generation || !trial.lineage.contains(generation, step) {
            return;
        }
        let place = trial.measurements.partition_point(|measured| measured.step < step);
        if trial.measurements.get(place).is_none_or(|measured| measured.step != step) {
            trial.measurements.insert(place, MeasurementView { step, eval_loss, eval_accuracy });
        }
    }

    pub(super) fn on_rollback_requested(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        step: Step,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.generation == generation) else { return };
        match trial.phase {
            Phase::Forming { .. } | Phase::Running { .. } | Phase::Broken { .. } | Phase::Saving { .. } => {}
            // The next group comes to the same step and asks again.
            Phase::Waiting { .. } | Phase::Ended { .. } => return,
        }
        if trial.rollbacks == ROLLBACKS_MAX {
            let cause = format!("step {step} is not finite ({cause}) after {ROLLBACKS_MAX} rollbacks");
            return self.end(now, id, EndReason::Failed { cause }, effects);
        }
        trial.rollbacks += 1;
        trial.skip_updates.insert(step);
        trial.discard = true;
        let saved = trial.newest_saved_step();
        let text = format!("step {step} is not finite ({cause}): going back to step {saved}, leaving its update out");
        let members = trial.phase.members().to_vec();
        // Before the assignments, which say how far the records are durable.
        self.go_on_from(id, saved, generation.next(), effects);
        self.regroup(now, id, members, &text, effects);
        let trial = self.trial_mut(id);
        if trial.generation == generation {
            trial.take_generation();
        }
    }

    pub(super) fn on_attempt_ended(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        outcome: AttemptOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.generation == generation) else { return };
        let finish = match outcome {
            _ if trial.is_ended() => return,
            AttemptOutcome::Failed { step, cause } => {
                let cause = format!("failed after step {step}: {cause}");
                return self.end(now, id, EndReason::Failed { cause }, effects);
            }
            AttemptOutcome::Completed { step } => Finish::Completed { step },
            AttemptOutcome::Stopped { step } => Finish::Stopped { step },
        };
        if matches!(trial.phase, Phase::Saving { .. }) {
            return;
        }
        let is_written = trial.has_checkpoint_at(finish.step())
            || trial.saves.iter().any(|((_, step), save)| *step == finish.step() && save.is_complete());
        if matches!(trial.phase, Phase::Waiting { .. }) && !is_written {
            return;
        }
        let members = trial.phase.members().to_vec();
        trial.enter(now, Phase::Saving { members, finish });
        self.finish_if_saved(now, id, effects);
    }

    /// Ends a trial whose attempt has ended, once the fate of its last checkpoint is known.
    pub(super) fn finish_if_saved(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let Phase::Saving { finish, .. } = &trial.phase else { return };
        let step = finish.step();
        let is_initialisation = step == Step(0);
        let reason = if trial.has_checkpoint_at(step) || is_initialisation {
            trial.end_reason(*finish)
        } else if let Some(cause) = trial.lost_saves.get(&step) {
            EndReason::Failed { cause: format!("the state of step {step} could not be saved: {cause}") }
        } else {
            return;
        };
        self.end(now, id, reason, effects);
    }

    fn end_stopped(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let step = self.trials[id].newest_saved_step();
        self.end(now, id, EndReason::Stopped { step }, effects);
    }

    /// The trial comes to rest; its workers are free, and drop its state when placement finds nobody waiting for it.
    pub(super) fn end(&mut self, now: Time, id: &TrialId, reason: EndReason, effects: &mut Vec<Effect>) {
        self.dissolve(id);
        let trial = self.trial_mut(id);
        let state = match &reason {
            EndReason::Stopped { .. } => "stopped",
            EndReason::Completed { .. } => "completed",
            EndReason::Failed { .. } => "failed",
        };
        note(effects, id, format!("{state}: {reason}"));
        trial.stopping = None;
        trial.enter(now, Phase::Ended { at: now, reason });
        self.apply_retention(id, effects);
    }

    /// The group is no more. Its members are free and keep the state in memory for the time being.
    pub(super) fn dissolve(&mut self, id: &TrialId) {
        let trial = &self.trials[id];
        let generation = trial.generation;
        for member in trial.phase.members().to_vec() {
            if let Some(worker) = self.workers.get_mut(&member) {
                worker.trial = None;
                worker.held = Some(Held { trial: id.clone(), generation, step: None });
            }
        }
    }

    /// No group can be formed: the trial waits, or ends if it was to stop anyway.
    pub(super) fn fall_back_to_waiting(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        self.dissolve(id);
        let trial = self.trial_mut(id);
        match trial.stopping {
            Some(StopCause::User) => self.end_stopped(now, id, effects),
            // Once it runs again, the limit strikes again.
            Some(StopCause::TimeLimit { .. }) | None => {
                trial.stopping = None;
                trial.enter(now, Phase::waiting(now));
            }
        }
    }

    pub(super) fn trial_mut(&mut self, id: &TrialId) -> &mut Trial {
        self.trials.get_mut(id).expect("a trial is never forgotten")
    }
}

impl Trial {
    /// Begins the next generation: what the one before reports from now on is too late.
    pub(super) fn take_generation(&mut self) {
        self.generation = self.generation.next();
        self.lost_saves.clear();
        self.saves.retain(|_, save| save.is_complete());
    }

    fn end_reason(&self, finish: Finish) -> EndReason {
        match (finish, self.stopping) {
            (Finish::Completed { step }, _) => {
                let why = match self.early_stop() {
                    Some(reason) if reason.step() == step => Completion::EarlyStop(reason),
                    Some(_) | None => Completion::AllSteps,
                };
                EndReason::Completed { step, why }
            }
            (Finish::Stopped { step: Step(0) }, Some(StopCause::TimeLimit { max_seconds })) => EndReason::Failed {
                cause: format!("trained for {max_seconds} s, the limit, without completing a step"),
            },
            (Finish::Stopped { step }, Some(StopCause::TimeLimit { max_seconds })) => {
                EndReason::Completed { step, why: Completion::TimeLimit { max_seconds } }
            }
            (Finish::Stopped { step }, Some(StopCause::User) | None) => EndReason::Stopped { step },
        }
    }
}
