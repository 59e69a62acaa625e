use super::lineage::Cut;
use super::liveness::{BROKEN_IN_A_ROW_MAX, STEADY_MS};
use super::trial::{Finish, Phase, Trial, Unfit};
use super::{
    AttemptOutcome, Completion, Effect, EndReason, Engine, Held, MetricValue, StopCause, drop_saves, note, only_trial,
};
use crate::ids::{Generation, Step, Time, TrialId, WorkerId};
use crate::record::Position;
use crate::spec::JobSpec;
use crate::view::{GroupView, MeasurementView};

/// Rollbacks of a run before it fails: a training that is not finite this often needs a person.
const ROLLBACKS_MAX: u32 = 10;

/// Groups in a row that may break, or not form, before new members are done without: a connection may break by chance,
/// and a new member may be slow to read its data.
const TRIES_WITH_NEWCOMERS: u32 = 2;

impl Engine {
    pub(super) fn on_submitted(&mut self, now: Time, spec: JobSpec, effects: &mut Vec<Effect>) {
        let id = only_trial(&spec.name);
        if self.is_taken(&spec.name) {
            return;
        }
        note(effects, &id, format!("submitted: {} workers wanted, at least {}", spec.workers, spec.min_workers));
        let turn = self.take_turn();
        self.trials.insert(id, Trial::new(spec, now, turn));
    }

    pub(super) fn take_turn(&mut self) -> u64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        turn
    }

    pub(super) fn on_stop_requested(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let Some(trial) = self.trials.get(id) else { return };
        match trial.phase {
            Phase::Waiting { .. } => self.end_stopped(now, id, effects),
            Phase::Forming { .. } | Phase::Broken { .. } | Phase::Running { .. }
                if matches!(trial.stopping, None | Some(StopCause::Drained { .. })) =>
            {
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
        self.trial_mut(id).turn = turn;
        self.wake(now, id, effects);
    }

    /// A trial at rest waits for workers again, to go on from its newest checkpoint.
    pub(super) fn wake(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let rests = matches!(self.trials[id].phase, Phase::Ended { reason: EndReason::Paused { .. }, .. });
        if !rests {
            // They may hold steps that were not saved, and that count no more.
            self.drop_states_of(id, effects);
        }
        let trial = self.trial_mut(id);
        let step = trial.newest_saved_step();
        note(effects, id, format!("resumed from step {step}"));
        trial.stopping = None;
        trial.rollbacks = 0;
        trial.broken_in_a_row = 0;
        trial.proven.clear();
        trial.shunned.clear();
        // A generation without a group: whatever still arrives of the old attempt is too late.
        let dropped = trial.take_generation();
        drop_saves(effects, id, dropped);
        let trial = self.trial_mut(id);
        trial.enter(now, Phase::waiting(now));
        let generation = trial.generation;
        self.go_on_from(id, step, generation, effects);
    }

    /// Free workers drop what they hold of a trial.
    fn drop_states_of(&mut self, id: &TrialId, effects: &mut Vec<Effect>) {
        for (worker_id, worker) in &mut self.workers {
            let Some(held) = worker.held.take_if(|held| held.trial == *id) else { continue };
            if worker.connected {
                effects.push(Effect::Release { worker: *worker_id, trial: held.trial, generation: held.generation });
            }
        }
    }

    /// The history goes on from `step` with `generation`: what older ones made beyond it no longer counts.
    fn go_on_from(&mut self, id: &TrialId, step: Step, generation: Generation, effects: &mut Vec<Effect>) {
        let trial = self.trial_mut(id);
        trial.lineage.cut(Cut { generation, step });
        let recorded = trial.recorded.step;
        let mut dropped = Vec::new();
        trial.saves.retain(|(maker, saved), save| {
            let stays = *maker >= generation || *saved <= step;
            // What came of a manifest that is being written, the driver is still to tell.
            let is_committing = save.is_complete() && recorded >= *saved;
            if !stays && !is_committing {
                dropped.push((*maker, *saved));
            }
            stays
        });
        drop_saves(effects, id, dropped);
        let trial = self.trial_mut(id);
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
        if !trial.phase.members().is_empty() {
            trial.proven = trial.phase.members().iter().copied().collect();
        }
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
            trial.remember_group(GroupView { generation, step: position.step, at: now, members: members.clone() });
            trial.enter(now, Phase::Running { members, since: now });
            if trial.stopping.is_some() {
                self.send_stop(id, effects);
            }
            self.found_able(id, effects);
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
        if trial.stopping == Some(StopCause::User) {
            // Another group would only have to save; whether it forms at all is open.
            note(effects, id, format!("{cause}; no other group is made, for the run is to stop"));
            return self.end_stopped(now, id, effects);
        }
        trial.broken_in_a_row += 1;
        if trial.broken_in_a_row >= TRIES_WITH_NEWCOMERS
            && self.go_back_to_proven(now, id, Unfit::DidNotForm, cause, effects)
        {
            return;
        }
        let trial = self.trial_mut(id);
        if trial.broken_in_a_row > BROKEN_IN_A_ROW_MAX {
            let cause = format!("{} groups in a row broke; the last one: {cause}", trial.broken_in_a_row);
            return self.end(now, id, EndReason::Failed { cause }, effects);
        }
        let members = trial.phase.members().to_vec();
        self.regroup(now, id, members, cause, effects);
    }

    /// If a group did not form although one did without its new members, those are shunned and the others go on. Says
    /// whether it is so. With nobody left of the group that formed, the new ones count as the first ones do.
    fn go_back_to_proven(
        &mut self,
        now: Time,
        id: &TrialId,
        unfit: Unfit,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let trial = &self.trials[id];
        let is_connected = |member: &WorkerId| self.workers[member].connected;
        let (proven, newcomers): (Vec<WorkerId>, Vec<WorkerId>) =
            trial.phase.members().iter().partition(|member| trial.proven.contains(member));
        let enough = match unfit {
            // They cannot work here, so it is better to wait for others.
            Unfit::Failed => 1,
            Unfit::DidNotForm => trial.spec.min_workers as usize,
        };
        let left = proven.iter().filter(|member| is_connected(member)).count();
        if trial.formed == trial.generation || newcomers.is_empty() || left < enough {
            return false;
        }
        for newcomer in newcomers {
            self.shun(id, newcomer, unfit, cause, effects);
        }
        self.trial_mut(id).broken_in_a_row = 0;
        self.regroup(now, id, proven, cause, effects);
        true
    }

    fn shun(&mut self, id: &TrialId, member: WorkerId, unfit: Unfit, cause: &str, effects: &mut Vec<Effect>) {
        note(effects, id, format!("worker {} is left out until it connects anew: {cause}", member.short()));
        let worker = self.worker_mut(member);
        (worker.trial, worker.held) = (None, None);
        let is_connected = worker.connected;
        let trial = self.trial_mut(id);
        trial.shunned.insert(member, unfit);
        if is_connected {
            let generation = trial.generation;
            effects.push(Effect::Release { worker: member, trial: id.clone(), generation });
        }
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
            let dropped = trial.take_generation();
            drop_saves(effects, id, dropped);
        }
    }

    pub(super) fn on_attempt_ended(
        &mut self,
        now: Time,
        id: &TrialId,
        generation: Generation,
        outcome: AttemptOutcome,
        worker: Option<WorkerId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(trial) = self.trials.get_mut(id).filter(|trial| trial.generation == generation) else { return };
        let finish = match outcome {
            _ if trial.is_ended() => return,
            AttemptOutcome::Failed { step, cause } => {
                let cause = format!("after step {step}: {cause}");
                return self.on_attempt_failed(now, id, worker, cause, effects);
            }
            AttemptOutcome::Completed { step } => Finish::Completed { step },
            AttemptOutcome::Stopped { step } => Finish::Stopped { step },
            AttemptOutcome::Rested { step } => Finish::Rested { step },
        };
        if matches!(trial.phase, Phase::Saving { .. }) || !trial.can_reach(finish.step()) {
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

    fn on_attempt_failed(
        &mut self,
        now: Time,
        id: &TrialId,
        worker: Option<WorkerId>,
        cause: String,
        effects: &mut Vec<Effect>,
    ) {
        let trial = &self.trials[id];
        let is_waiting = matches!(trial.phase, Phase::Waiting { .. });
        if is_waiting && trial.formed != trial.generation && !trial.proven.is_empty() {
            // Of a group that was given up before it formed. If it matters, the next one fails in the same way.
            return;
        }
        let goes_on = self.go_back_to_proven(now, id, Unfit::Failed, &cause, effects)
            || self.try_elsewhere(now, id, worker, &cause, effects);
        if !goes_on {
            self.end(now, id, EndReason::Failed { cause }, effects);
        }
    }

    /// Ends a trial whose attempt has ended, once the fate of its last checkpoint is known.
    pub(super) fn finish_if_saved(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let Phase::Saving { finish, .. } = &trial.phase else { return };
        let step = finish.step();
        let is_initialisation = step == Step(0);
        let is_saved = trial.has_checkpoint_at(step) || is_initialisation;
        if is_saved && matches!((finish, trial.stopping), (Finish::Stopped { .. }, Some(StopCause::Drained { .. }))) {
            return self.wait_for_others(now, id, step, effects);
        }
        let reason = if is_saved {
            trial.end_reason(*finish)
        } else if let Some(cause) = trial.lost_saves.get(&step) {
            EndReason::Failed { cause: format!("the state of step {step} could not be saved: {cause}") }
        } else {
            return;
        };
        self.end(now, id, reason, effects);
    }

    /// A group that is too small without its drained member has saved its state.
    fn wait_for_others(&mut self, now: Time, id: &TrialId, step: Step, effects: &mut Vec<Effect>) {
        note(effects, id, format!("step {step} is saved; waiting for other workers than the drained one"));
        self.fall_back_to_waiting(now, id, effects);
        // A generation without a group: told again, the end of this attempt must not end the run.
        let dropped = self.trial_mut(id).take_generation();
        drop_saves(effects, id, dropped);
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
            EndReason::Paused { .. } => "paused",
            EndReason::Pruned { .. } => "stopped by its sweep",
            EndReason::Completed { .. } => "completed",
            EndReason::Failed { .. } => "failed",
        };
        note(effects, id, format!("{state}: {reason}"));
        trial.stopping = None;
        trial.enter(now, Phase::Ended { at: now, reason });
        self.on_sweep_trial_ended(now, id, effects);
        self.apply_retention(id, effects);
    }

    /// The group is no more. Its members are free and keep the state in memory for the time being.
    pub(super) fn dissolve(&mut self, id: &TrialId) {
        let trial = &self.trials[id];
        let generation = trial.generation;
        for member in trial.phase.members().to_vec() {
            if let Some(worker) = self.workers.get_mut(&member).filter(|worker| worker.trial.as_ref() == Some(id)) {
                worker.trial = None;
                worker.held = Some(Held { trial: id.clone(), generation, step: None });
            }
        }
    }

    /// No group can be formed: the trial waits, or ends if it was to stop anyway.
    pub(super) fn fall_back_to_waiting(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        self.dissolve(id);
        let trial = self.trial_mut(id);
        trial.shunned.retain(|_, unfit| *unfit != Unfit::DidNotForm);
        match trial.stopping {
            Some(StopCause::User) => self.end_stopped(now, id, effects),
            // Once it runs again, the limit strikes again.
            Some(StopCause::TimeLimit { .. } | StopCause::Drained { .. }) | None => {
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
    /// Begins the next generation: what the one before reports from now on is too late. Gives the saves that thereby never
    /// become whole.
    #[must_use]
    pub(super) fn take_generation(&mut self) -> Vec<(Generation, Step)> {
        self.generation = self.generation.next();
        self.world = 0;
        self.lost_saves.clear();
        let mut dropped = Vec::new();
        self.saves.retain(|save_id, save| {
            let stays = save.is_complete();
            if !stays {
                dropped.push(*save_id);
            }
            stays
        });
        dropped
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
            (Finish::Stopped { step }, Some(StopCause::User | StopCause::Drained { .. }) | None) => {
                EndReason::Stopped { step }
            }
            (Finish::Rested { step }, _) => EndReason::Paused { step },
        }
    }
}
