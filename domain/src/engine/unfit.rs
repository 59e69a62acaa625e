//! Workers that cannot do what others can: their data are missing, say, or their program is another one. Such a worker is
//! free again at once, so it would take trial after trial of a sweep, and fail them all. A trial that fails before its group
//! has formed is therefore tried elsewhere, and if it forms there, that worker gets no more trials of this sweep.

use std::collections::{BTreeMap, BTreeSet};

use super::on_sweep::note_run;
use super::sweep::Sweep;
use super::trial::Trial;
use super::{Effect, Engine, StopCause, Worker, drop_saves};
use crate::ids::{RunName, Time, TrialId, WorkerId};

/// Workers that fail a trial before the trial itself is to blame, while none is known that could do better.
const TRIES: usize = 2;

/// What is known of the workers of one sweep, until they connect anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Fitness {
    /// They were in a group that formed for one of its trials.
    able: BTreeSet<WorkerId>,
    /// Trials that failed here before their group formed, and that are being tried elsewhere.
    accused: BTreeMap<WorkerId, BTreeSet<u32>>,
    /// They failed trials that formed elsewhere.
    unfit: BTreeSet<WorkerId>,
}

impl Fitness {
    fn doubts(&self, worker: WorkerId) -> bool {
        self.unfit.contains(&worker) || self.accused.contains_key(&worker)
    }

    fn accused_by(&self, number: u32) -> Vec<WorkerId> {
        let accuses = |(_, trials): &(&WorkerId, &BTreeSet<u32>)| trials.contains(&number);
        self.accused.iter().filter(accuses).map(|(worker, _)| *worker).collect()
    }

    /// A trial found no better worker: it was to blame.
    fn withdraw(&mut self, number: u32) {
        self.accused.retain(|_, trials| {
            trials.remove(&number);
            !trials.is_empty()
        });
    }

    fn forget(&mut self, worker: WorkerId) {
        self.able.remove(&worker);
        self.accused.remove(&worker);
        self.unfit.remove(&worker);
    }
}

impl Engine {
    /// An attempt failed where `worker` says so. Whether the trial is tried elsewhere instead of failing.
    pub(super) fn try_elsewhere(
        &mut self,
        now: Time,
        id: &TrialId,
        worker: Option<WorkerId>,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let trial = &self.trials[id];
        let Some((name, number)) = trial.sweep.clone() else { return false };
        let members = trial.phase.members().to_vec();
        let Some(worker) = worker.filter(|worker| members.contains(worker)) else { return false };
        let fitness = &self.sweeps[&name].fitness;
        let is_begun = trial.formed == trial.generation || trial.stopping == Some(StopCause::User);
        if is_begun || fitness.able.contains(&worker) {
            return false;
        }
        let others: Vec<WorkerId> = self.fit_for(&self.sweeps[&name]).filter(|other| *other != worker).collect();
        let is_known_to_work = others.iter().any(|other| fitness.able.contains(other));
        let has_tries = is_known_to_work || fitness.accused_by(number).len() + 1 < TRIES;
        if others.len() < trial.spec.min_workers as usize || !has_tries {
            return false;
        }
        let text = format!("trial {number} failed on worker {} and is tried elsewhere: {cause}", worker.short());
        note_run(effects, &name, text);
        self.sweep_mut(&name).fitness.accused.entry(worker).or_default().insert(number);
        let left = members.into_iter().filter(|member| *member != worker).collect();
        let generation = self.trials[id].generation;
        self.regroup(now, id, left, cause, effects);
        let trial = self.trial_mut(id);
        if trial.generation == generation {
            // A generation without a group: what the others still say of this one is too late.
            let dropped = trial.take_generation();
            drop_saves(effects, id, dropped);
        }
        true
    }

    /// The group of a trial formed: whoever failed it before is to blame.
    pub(super) fn found_able(&mut self, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let Some((name, number)) = trial.sweep.clone() else { return };
        let members = trial.phase.members().to_vec();
        let fitness = &mut self.sweep_mut(&name).fitness;
        // Those that show now that they can are not among them.
        for member in &members {
            fitness.forget(*member);
        }
        let accused = fitness.accused_by(number);
        fitness.withdraw(number);
        fitness.able.extend(members);
        for worker in accused {
            fitness.unfit.insert(worker);
            let text = format!(
                "worker {} gets no more trials of this sweep until it connects anew: trial {number} went better elsewhere",
                worker.short()
            );
            note_run(effects, &name, text);
        }
    }

    /// A trial failed, and is not tried elsewhere.
    pub(super) fn withdraw_blame(&mut self, name: &RunName, number: u32) {
        self.sweep_mut(name).fitness.withdraw(number);
    }

    /// A new connection is a new chance.
    pub(super) fn forgive_in_sweeps(&mut self, worker: WorkerId) {
        for sweep in self.sweeps.values_mut() {
            sweep.fitness.forget(worker);
        }
    }

    /// Whether a trial is not to be placed on a worker.
    pub(super) fn shuns(&self, trial: &Trial, worker: WorkerId) -> bool {
        let avoids = |(name, _): &(RunName, u32)| self.avoids(&self.sweeps[name], worker);
        trial.shunned.contains_key(&worker) || trial.sweep.as_ref().is_some_and(avoids)
    }

    /// Whether a sweep does without a worker: not when the others are too few for a trial.
    pub(super) fn avoids(&self, sweep: &Sweep, worker: WorkerId) -> bool {
        let needed = sweep.spec.workers_per_trial as usize;
        sweep.fitness.doubts(worker) && self.fit_for(sweep).take(needed).count() == needed
    }

    /// Connected workers that get work and that the sweep has nothing against.
    fn fit_for(&self, sweep: &Sweep) -> impl Iterator<Item = WorkerId> {
        let is_fit = |(id, worker): &(&WorkerId, &Worker)| {
            worker.connected && !self.draining.contains(id) && !sweep.fitness.doubts(**id)
        };
        self.workers.iter().filter(is_fit).map(|(id, _)| *id)
    }
}
