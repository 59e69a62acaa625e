use super::trial::{Phase, Trial};
use super::{Effect, Engine, Held, LossCause, Running, Worker, WorkerInfo, note};
use crate::ids::{Time, TrialId, WorkerId};
use crate::record::Position;

impl Engine {
    pub(super) fn on_alive(&mut self, now: Time, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.connected) {
            worker.lease_until = now.after_ms(self.timing.lease_ms);
        }
    }

    pub(super) fn on_joined(
        &mut self,
        now: Time,
        info: WorkerInfo,
        running: Option<Running>,
        effects: &mut Vec<Effect>,
    ) {
        let id = info.id;
        if self.workers.get(&id).is_some_and(|known| known.info != info) {
            self.on_lost(now, id, "it came back at another address", effects);
        }
        let lease_until = now.after_ms(self.timing.lease_ms);
        let fresh = Worker { info, connected: false, lease_until, trial: None, held: None };
        let worker = self.workers.entry(id).or_insert(fresh);
        worker.connected = true;
        worker.lease_until = lease_until;
        worker.held = None;
        let member_of = worker.trial.clone();
        self.forgive(id);
        if let Some(running) = running {
            self.take_in_running(id, member_of.as_ref(), running, effects);
        }
    }

    /// A new connection is a new chance: whatever was wrong may have been repaired.
    fn forgive(&mut self, id: WorkerId) {
        let shun = |(_, trial): &(&TrialId, &Trial)| trial.shunned.contains_key(&id);
        let shunning: Vec<TrialId> = self.trials.live().filter(shun).map(|(trial, _)| trial.clone()).collect();
        for trial in shunning {
            self.trial_mut(&trial).shunned.remove(&id);
        }
        self.forgive_in_sweeps(id);
    }

    /// Decides what becomes of the state that a joining worker holds.
    fn take_in_running(
        &mut self,
        id: WorkerId,
        member_of: Option<&TrialId>,
        running: Running,
        effects: &mut Vec<Effect>,
    ) {
        let Running { trial: trial_id, generation, position } = running;
        let trial = self.trials.get_mut(&trial_id);
        let is_member = member_of == Some(&trial_id);
        if let Some(trial) = trial {
            if is_member && generation == trial.generation {
                trial.trained.confirm();
                return;
            }
            let belongs = is_member || member_of.is_none();
            if belongs && trial.can_use(generation, position.step) {
                if !is_member {
                    let held = Held { trial: trial_id, generation, step: Some(position.step) };
                    self.worker_mut(id).held = Some(held);
                }
                return;
            }
        }
        effects.push(Effect::Release { worker: id, trial: trial_id, generation });
    }

    /// A member came back: commands may have been lost with its old connection. Not if it just got a newer one.
    pub(super) fn repeat_commands(&self, id: WorkerId, effects: &mut Vec<Effect>) {
        let Some(trial_id) = &self.workers[&id].trial else { return };
        if effects.iter().any(|effect| matches!(effect, Effect::Assign { worker, .. } if *worker == id)) {
            return;
        }
        let trial = &self.trials[trial_id];
        let rank = trial.phase.members().iter().position(|member| *member == id).expect("a member has a rank");
        effects.push(Effect::Assign { worker: id, assignment: Box::new(self.assignment(trial_id, rank)) });
        if trial.stopping.is_some() && matches!(trial.phase, Phase::Running { .. }) {
            let generation = trial.generation;
            effects.push(Effect::Stop { worker: id, trial: trial_id.clone(), generation });
        }
    }

    pub(super) fn on_lost(&mut self, now: Time, id: WorkerId, cause: &str, effects: &mut Vec<Effect>) {
        let Some(worker) = self.workers.remove(&id) else { return };
        self.forgive(id);
        if let Some(trial) = worker.trial {
            self.on_member_lost(now, &trial, id, cause, effects);
        }
        self.on_leaver_lost(now, id, cause, effects);
    }

    fn on_member_lost(
        &mut self,
        now: Time,
        trial_id: &TrialId,
        lost: WorkerId,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) {
        let trial = self.trial_mut(trial_id);
        let text = format!("worker {} lost: {cause}", lost.short());
        if let Phase::Saving { members, finish } = &mut trial.phase
            && trial.saves.iter().any(|((_, step), save)| *step == finish.step() && save.is_complete())
        {
            members.retain(|member| *member != lost);
            note(effects, trial_id, format!("{text}; the attempt had ended and its state is written"));
            return;
        }
        if !matches!(trial.phase, Phase::Broken { .. }) {
            trial.failures += 1;
        }
        let survivors: Vec<WorkerId> = trial.phase.members().iter().copied().filter(|m| *m != lost).collect();
        self.regroup(now, trial_id, survivors, &text, effects);
    }

    /// The coordinator started anew: nobody is connected, and what is not journalled is not known.
    pub(super) fn on_restarted(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let back_until = now.after_ms(self.timing.rejoin_ms);
        for worker in self.workers.values_mut() {
            worker.connected = false;
            worker.lease_until = back_until;
        }
        let all: Vec<TrialId> = self.trials.iter().map(|(id, _)| id.clone()).collect();
        for id in &all {
            let trial = self.trials.get_mut(id).expect("a trial is never forgotten");
            trial.recorded = Position::default();
            trial.trained.doubt(self.newest_fact);
            match &mut trial.phase {
                Phase::Waiting { gather_until, .. } => *gather_until = None,
                Phase::Forming { until, .. } => *until = back_until.after_ms(self.timing.form_ms),
                Phase::Broken { until, .. } => *until = now.after_ms(self.timing.lease_ms),
                Phase::Running { .. } | Phase::Saving { .. } | Phase::Ended { .. } => {}
            }
            if let Some(cut) = trial.lineage.newest() {
                let (step, generation) = (cut.step, cut.generation);
                effects.push(Effect::RollBack { trial: id.clone(), step, generation });
            }
            if !trial.deleted.is_empty() {
                let manifests = trial.deleted.iter().cloned().collect();
                effects.push(Effect::DeleteCheckpoints { trial: id.clone(), manifests });
            }
        }
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> &mut Worker {
        self.workers.get_mut(&id).expect("members of groups and free workers are known")
    }
}

impl std::fmt::Display for LossCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LossCause::ConnectionClosed => write!(f, "connection closed"),
            LossCause::LeaseExpired { lease_ms } => write!(f, "nothing heard of it for {lease_ms} ms"),
            LossCause::Left => write!(f, "it left"),
        }
    }
}
