//! Workers that users drain: they get no more work, and what they do goes on without them. A group at work makes the next
//! generation without its drained member, as it does for a lost one, but nobody is lost here: all finish the step in
//! progress, and leave together. A group that would be too small, or of newcomers alone, comes to a stop instead, saved, and waits.

use super::trial::{Phase, Trial};
use super::{Effect, Engine, Refusal, StopCause, Worker};
use crate::ids::{Time, TrialId, WorkerId};

impl Engine {
    /// Whether a worker can be drained, or taken back: one that is known, or that was drained before it was lost.
    pub(super) fn check_drain(&self, worker: WorkerId) -> Result<(), Refusal> {
        if self.workers.contains_key(&worker) || self.draining.contains(&worker) {
            return Ok(());
        }
        Err(Refusal::NoSuchWorker { worker })
    }

    pub(super) fn on_drain_requested(&mut self, worker: WorkerId) {
        if self.workers.contains_key(&worker) {
            self.draining.insert(worker);
        }
    }

    pub(super) fn on_undrain_requested(&mut self, worker: WorkerId) {
        self.draining.remove(&worker);
    }

    /// Whether a worker can be given a place in a group.
    pub(super) fn is_free(&self, id: WorkerId, worker: &Worker) -> bool {
        worker.connected && worker.trial.is_none() && !self.draining.contains(&id)
    }

    /// How many workers can be given a place.
    pub(super) fn count_free(&self) -> u32 {
        self.workers.iter().filter(|(id, worker)| self.is_free(**id, worker)).count() as u32
    }

    /// Groups at work go on without their drained members. Those that are forming, broken or about to end come to it, or to
    /// their end, by themselves.
    pub(super) fn let_drained_go(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.draining.is_empty() {
            return;
        }
        let concerned = self.trials.live().filter(|(_, trial)| self.has_to_let_go(trial));
        for id in concerned.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.let_go(now, &id, effects);
        }
    }

    /// After a restart a group is left alone until all members are back, as it is when it grows.
    fn has_to_let_go(&self, trial: &Trial) -> bool {
        matches!(trial.phase, Phase::Running { .. })
            && trial.stopping.is_none()
            && trial.phase.members().iter().any(|member| self.draining.contains(member))
            && self.all_connected(trial)
    }

    fn let_go(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let members = trial.phase.members().to_vec();
        let drained: Vec<WorkerId> = members.iter().copied().filter(|member| self.draining.contains(member)).collect();
        let staying = members.len() - drained.len();
        if staying == 0 || staying + self.spare_for(id).len() < trial.spec.min_workers as usize {
            // Nobody who goes on holds what it has in memory, or nobody goes on: it must not be lost with the worker.
            return self.bring_to_stop(id, StopCause::Drained { worker: drained[0] }, effects);
        }
        let names: Vec<String> = drained.iter().map(|worker| worker.short()).collect();
        self.regroup(now, id, members, &format!("drained: worker {}", names.join(", ")), effects);
    }

    /// A drained worker was lost while the group that goes on without it may be waiting for it in its last step.
    pub(super) fn on_leaver_lost(&mut self, now: Time, lost: WorkerId, cause: &str, effects: &mut Vec<Effect>) {
        let waits = |trial: &Trial| matches!(&trial.phase, Phase::Forming { leaving, .. } if leaving.contains(&lost));
        let waiting = self.trials.live().filter(|(_, trial)| waits(trial));
        for id in waiting.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            let members = self.trials[&id].phase.members().to_vec();
            self.regroup(now, &id, members, &format!("drained worker {} lost: {cause}", lost.short()), effects);
        }
    }
}
