//! Workers that nobody needs are lent to trials of elastic sweeps, whose groups become wider than they ask for. They go
//! back as soon as somebody needs them. A lost worker and a new one change a group in the same way: by a next generation.
//! The result is the same whatever the width.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::trial::{Phase, Trial};
use super::{Effect, Engine};
use crate::ids::{Time, TrialId, WorkerId};
use crate::spec::file::WORKERS_MAX;

impl Engine {
    /// Lends the free workers out. Whatever waits could not use them, or gets them back.
    pub(super) fn widen_groups(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.count_free() == 0 {
            return;
        }
        for (id, width) in self.widths(None) {
            let mut members = self.trials[&id].phase.members().to_vec();
            let before = members.len();
            members.extend(self.spare_for(&id));
            // Fewer may be spare for this one than are free.
            let width = useful(width.min(members.len() as u32), self.trials[&id].spec.train.micro_batches);
            if width as usize > before {
                members.truncate(width as usize);
                self.form_group(now, &id, members, "workers are lent to it", effects);
            }
        }
    }

    /// How wide groups become if the free workers are lent out, beginning with the narrowest. `starting` is about to get
    /// those that it wants. Left out are trials that nothing is lent to.
    pub(super) fn widths(&self, starting: Option<&TrialId>) -> BTreeMap<TrialId, u32> {
        let mut left = self.count_free();
        let mut narrowest = BTreeSet::new();
        for (id, trial) in self.trials.live() {
            let width = if starting == Some(id) {
                left = left.saturating_sub(trial.spec.workers);
                trial.spec.workers
            } else if trial.can_widen() && self.all_connected(trial) {
                trial.phase.members().len() as u32
            } else {
                continue;
            };
            narrowest.insert((width, Reverse(trial.priority), trial.turn, id));
        }
        let mut widths = BTreeMap::new();
        while let Some((width, priority, turn, id)) = narrowest.pop_first() {
            let trial = &self.trials[id];
            let next = next_width(width, trial.spec.train.micro_batches).filter(|next| *next <= trial.most_workers());
            if let Some(next) = next.filter(|next| next - width <= left) {
                left -= next - width;
                widths.insert(id.clone(), next);
                narrowest.insert((next, priority, turn, id));
            }
        }
        widths
    }

    /// Workers that are lent out and could serve `id`, in the order in which they are to be taken back: the widest group
    /// gives first.
    pub(super) fn lent_for(&self, id: &TrialId) -> Vec<(TrialId, WorkerId)> {
        let taker = &self.trials[id];
        let mut lent: Vec<(Reverse<usize>, &TrialId, WorkerId)> = Vec::new();
        for (holder, trial) in self.trials.live().filter(|(_, trial)| self.gives_back(trial)) {
            let beyond = trial.phase.members().iter().enumerate().skip(trial.spec.workers as usize);
            let usable = beyond.filter(|(_, member)| !self.shuns(taker, **member) && !self.draining.contains(member));
            lent.extend(usable.map(|(rank, member)| (Reverse(rank - trial.spec.workers as usize), holder, *member)));
        }
        lent.sort();
        lent.into_iter().map(|(_, holder, member)| (holder.clone(), member)).collect()
    }

    /// How many workers are lent out and could be taken back.
    pub(super) fn lent(&self) -> u32 {
        let count = |trial: &Trial| {
            let beyond = trial.phase.members().iter().skip(trial.spec.workers as usize);
            beyond.filter(|member| !self.draining.contains(member)).count() as u32
        };
        self.trials.live().filter(|(_, trial)| self.gives_back(trial)).map(|(_, trial)| count(trial)).sum()
    }

    /// Takes back so many of the workers that are lent out, for `id`. They are free then, without a state.
    pub(super) fn take_back(&mut self, now: Time, id: &TrialId, count: usize, effects: &mut Vec<Effect>) {
        let mut given: BTreeMap<TrialId, Vec<WorkerId>> = BTreeMap::new();
        for (holder, worker) in self.lent_for(id).into_iter().take(count) {
            given.entry(holder).or_default().push(worker);
        }
        for (holder, workers) in given {
            let members = self.trials[&holder].phase.members().iter().copied();
            let staying = members.filter(|member| !workers.contains(member)).collect();
            self.regroup(now, &holder, staying, &format!("workers go back, for run {}", id.run), effects);
            for worker in workers {
                self.drop_state(worker, effects);
            }
        }
    }

    fn drop_state(&mut self, id: WorkerId, effects: &mut Vec<Effect>) {
        if let Some(held) = self.worker_mut(id).held.take() {
            effects.push(Effect::Release { worker: id, trial: held.trial, generation: held.generation });
        }
    }

    fn gives_back(&self, trial: &Trial) -> bool {
        let is_steady = matches!(trial.phase, Phase::Forming { .. } | Phase::Running { .. });
        trial.lent() > 0 && is_steady && trial.stopping.is_none() && self.all_connected(trial)
    }

    /// A member that has not come back after a restart may be stepping still: its group is left alone.
    pub(super) fn all_connected(&self, trial: &Trial) -> bool {
        trial.phase.members().iter().all(|member| self.workers[member].connected)
    }
}

impl Trial {
    /// The most members that its group may have: more than it asks for if its sweep is elastic, but none without a
    /// micro-batch.
    pub(super) fn most_workers(&self) -> u32 {
        if self.is_elastic {
            self.spec.train.micro_batches.min(WORKERS_MAX as u32).max(self.spec.workers)
        } else {
            self.spec.workers
        }
    }

    /// Members beyond what it asks for.
    fn lent(&self) -> u32 {
        (self.phase.members().len() as u32).saturating_sub(self.spec.workers)
    }

    pub(super) fn can_widen(&self) -> bool {
        self.is_elastic
            && self.stopping.is_none()
            && matches!(&self.phase, Phase::Running { members, .. } if (members.len() as u32) < self.most_workers())
    }
}

/// The smallest group that is as fast as one of `width`: micro-batches are dealt out whole, so that a step takes as long
/// as the member with the most of them.
fn useful(width: u32, micro_batches: u32) -> u32 {
    micro_batches.div_ceil(micro_batches.div_ceil(width))
}

/// The smallest group that is faster than one of `width`.
fn next_width(width: u32, micro_batches: u32) -> Option<u32> {
    let most = micro_batches.div_ceil(width);
    (most > 1).then(|| micro_batches.div_ceil(most - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_group_has_fewer_micro_batches_for_its_busiest_member() {
        for micro_batches in 1..40u32 {
            for width in 1..=micro_batches {
                let busiest = |width: u32| micro_batches.div_ceil(width);
                let same = (1..=micro_batches).find(|other| busiest(*other) == busiest(width));
                assert_eq!(Some(useful(width, micro_batches)), same, "{width} of {micro_batches}");
                let faster = (1..=micro_batches).find(|other| busiest(*other) < busiest(width));
                assert_eq!(next_width(width, micro_batches), faster, "{width} of {micro_batches}");
            }
        }
    }
}
