use std::cmp::Reverse;

use super::liveness::backed_off_ms;
use super::sweep::Sweep;
use super::trial::{Checkpoint, Phase, Trial};
use super::{Assignment, Effect, Engine, StartFrom, StateInMemory, StopCause, WaitReason, Worker, drop_saves, note};
use crate::ids::{Rank, RunName, Time, TrialId, WorkerId};

/// What becomes of a waiting trial.
#[derive(Clone, Debug, PartialEq)]
enum Placement {
    /// It starts with as many free workers as it can use.
    Start,
    /// It goes on waiting; `reserves` says whether later runs must leave it the free workers.
    Wait { reason: WaitReason, gather_until: Option<Time>, reserves: bool },
}

/// What placement knows of a waiting trial.
struct Demand {
    workers: u32,
    min_workers: u32,
    since: Time,
    gather_until: Option<Time>,
}

/// What placement knows of the workers.
struct Supply {
    /// Free workers, and those that are lent out.
    free: u32,
    /// Free workers that hold the trial's state.
    holders: u32,
    /// All connected workers.
    connected: u32,
    /// Connected workers that would serve it if they were not drained.
    drained: u32,
}

/// A run starts with its full number of workers at once, with fewer after `gather_ms`. One that lacks workers blocks later
/// runs if it could start once others end. One that the cluster cannot serve at all does not, except for `gather_ms` after
/// it lost its group: a replacement is usually on its way, and the survivors hold its newest state.
fn decide(demand: &Demand, supply: &Supply, gather_ms: u64, now: Time) -> Placement {
    let Demand { workers, min_workers, since, gather_until } = *demand;
    let have = supply.free;
    if have >= workers {
        return Placement::Start;
    }
    if have >= min_workers {
        let until = gather_until.unwrap_or(now.after_ms(gather_ms));
        if until <= now {
            return Placement::Start;
        }
        let reason = WaitReason::Gathering { have, want: workers };
        return Placement::Wait { reason, gather_until: Some(until), reserves: true };
    }
    let reason = WaitReason::TooFew { have, need: min_workers, drained: supply.drained };
    let can_be_served = supply.connected >= min_workers;
    let held_until = since.after_ms(gather_ms);
    let is_held = !can_be_served && supply.holders > 0 && now < held_until;
    Placement::Wait { reason, gather_until: is_held.then_some(held_until), reserves: can_be_served || is_held }
}

impl Engine {
    /// Gives free workers to waiting trials first, by their priorities and turns, then to groups that are not full, and lends
    /// out what is left.
    pub(super) fn place(&mut self, now: Time, effects: &mut Vec<Effect>) {
        // Once more after each change, so that every reason to wait is given from how things stand in the end. It ends:
        // a trial gets a group, or a worker drops a state, in every round but the last.
        loop {
            let before = effects.len();
            self.place_once(now, effects);
            if effects.len() == before {
                return;
            }
        }
    }

    fn place_once(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let mut ahead: Option<RunName> = None;
        let mut is_gathering = false;
        let waiting = self.by_turn(|trial| matches!(trial.phase, Phase::Waiting { .. }));
        for id in &waiting {
            match &ahead {
                Some(run) => self.keep_waiting(id, WaitReason::Behind { run: run.clone() }, None),
                None => match self.placement(id, now) {
                    Placement::Start => self.start_group(now, id, waiting.last() == Some(id), effects),
                    Placement::Wait { reason, gather_until, reserves } => {
                        is_gathering |= matches!(reason, WaitReason::Gathering { .. });
                        self.keep_waiting(id, reason, gather_until);
                        ahead = reserves.then(|| id.run.clone());
                    }
                },
            }
        }
        self.release_idle(Trial::may_want_a_holder, effects);
        if ahead.is_none() {
            for id in self.by_turn(|trial| trial.can_grow()) {
                self.grow_group(now, &id, effects);
            }
        }
        // What is lent comes back as soon as it helps whoever waits; one that holds out for a moment only is not worth it.
        if !is_gathering {
            self.widen_groups(now, effects);
        }
        self.release_idle(Trial::wants_holders, effects);
    }

    /// Those with the highest priority first, and of them those that came first.
    pub(super) fn by_turn(&self, filter: impl Fn(&Trial) -> bool) -> Vec<TrialId> {
        let place = |(id, trial): (&TrialId, &Trial)| (Reverse(trial.priority), trial.turn, id.clone());
        let mut ids: Vec<_> = self.trials.live().filter(|(_, trial)| filter(trial)).map(place).collect();
        ids.sort();
        ids.into_iter().map(|(_, _, id)| id).collect()
    }

    fn placement(&self, id: &TrialId, now: Time) -> Placement {
        let trial = &self.trials[id];
        let Phase::Waiting { since, gather_until, .. } = trial.phase else {
            unreachable!("only waiting trials are placed")
        };
        let (workers, min_workers) = (trial.spec.workers, trial.spec.min_workers);
        let free = self.free_for(id);
        let holders = free.iter().filter(|worker| self.holds(**worker, id)).count() as u32;
        let free = if free.len() < workers as usize { free.len() + self.lent_for(id).len() } else { free.len() };
        let connected = self.connected_for(trial);
        let demand = Demand { workers, min_workers, since, gather_until };
        let drained = self.would_have(self.draining.iter().filter_map(|id| Some((id, self.workers.get(id)?))), trial);
        let supply = Supply { free: free as u32, holders, connected, drained };
        decide(&demand, &supply, self.timing.gather_ms, now)
    }

    /// Workers that may serve a trial, busy or not.
    fn connected_for(&self, trial: &Trial) -> u32 {
        self.would_have(self.workers.iter().filter(|(id, _)| !self.draining.contains(id)), trial)
    }

    /// How many workers a new trial of this sweep would find: those that are free or lent out, less what the waiting
    /// ones before it want. None, if one of these waits for workers to become free.
    pub(super) fn vacant_for(&self, sweep: &Sweep) -> u32 {
        let avoided = |(id, worker): &(&WorkerId, &Worker)| self.is_free(**id, worker) && self.avoids(sweep, **id);
        let avoided = self.workers.iter().filter(avoided).count() as u32;
        let mut vacant = self.count_free() - avoided + self.lent();
        let is_before =
            |trial: &Trial| matches!(trial.phase, Phase::Waiting { .. }) && trial.priority >= sweep.priority;
        for (_, trial) in self.trials.live().filter(|(_, trial)| is_before(trial)) {
            match vacant.checked_sub(trial.spec.workers) {
                Some(left) => vacant = left,
                None if self.connected_for(trial) >= trial.spec.min_workers => return 0,
                // The cluster cannot serve it at all: it blocks nobody.
                None => {}
            }
        }
        vacant
    }

    /// How many of these workers are connected and not shunned by the trial.
    fn would_have<'a>(&self, workers: impl Iterator<Item = (&'a WorkerId, &'a Worker)>, trial: &Trial) -> u32 {
        workers.filter(|(id, worker)| worker.connected && !self.shuns(trial, **id)).count() as u32
    }

    fn keep_waiting(&mut self, id: &TrialId, new_reason: WaitReason, new_until: Option<Time>) {
        if let Phase::Waiting { reason, gather_until, .. } = &mut self.trial_mut(id).phase {
            (*reason, *gather_until) = (new_reason, new_until);
        }
    }

    fn holds(&self, worker: WorkerId, id: &TrialId) -> bool {
        self.workers[&worker].held.as_ref().is_some_and(|held| held.trial == *id)
    }

    /// Free workers that `id` does not shun, in the order in which it should take them: those with its state,
    /// those with none, those with another trial's.
    fn free_for(&self, id: &TrialId) -> Vec<WorkerId> {
        let trial = &self.trials[id];
        let is_free = |(worker_id, worker): &(&WorkerId, &Worker)| {
            self.is_free(**worker_id, worker) && !self.shuns(trial, **worker_id)
        };
        let free = self.workers.iter().filter(is_free);
        let mut ids: Vec<(u32, WorkerId)> = free
            .map(|(worker_id, worker)| match &worker.held {
                Some(held) if held.trial == *id => (0, *worker_id),
                None => (1, *worker_id),
                Some(_) => (2, *worker_id),
            })
            .collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Free workers that may join a group which could do without them: not those that hold another trial's state.
    pub(super) fn spare_for(&self, id: &TrialId) -> Vec<WorkerId> {
        let mut free = self.free_for(id);
        free.retain(|worker| self.workers[worker].held.is_none() || self.holds(*worker, id));
        free
    }

    /// `is_last` says whether nobody else waits, so that workers may be lent to it from the beginning.
    fn start_group(&mut self, now: Time, id: &TrialId, is_last: bool, effects: &mut Vec<Effect>) {
        let workers = self.trials[id].spec.workers as usize;
        let missing = workers.saturating_sub(self.free_for(id).len());
        if missing > 0 {
            self.take_back(now, id, missing, effects);
        }
        let mut members = self.free_for(id);
        let lent = if is_last { self.widths(Some(id)).get(id).copied() } else { None };
        members.truncate(lent.map_or(workers, |width| width as usize));
        self.form_group(now, id, members, "starting", effects);
    }

    fn grow_group(&mut self, now: Time, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        if !self.all_connected(trial) {
            return;
        }
        let workers = trial.spec.workers as usize;
        let mut members = trial.phase.members().to_vec();
        let before = members.len();
        let missing = workers.saturating_sub(before + self.spare_for(id).len());
        if missing > 0 {
            self.take_back(now, id, missing, effects);
        }
        members.extend(self.spare_for(id));
        members.truncate(workers);
        if members.len() > before {
            self.form_group(now, id, members, "more workers are free", effects);
        }
    }

    /// The group lost members or broke: goes on with those that are left and as many spare workers as it wants. Waits if
    /// these are too few.
    pub(super) fn regroup(
        &mut self,
        now: Time,
        id: &TrialId,
        left: Vec<WorkerId>,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) {
        let (workers, min_workers) = (self.trials[id].spec.workers, self.trials[id].spec.min_workers);
        let (drained, mut members): (Vec<WorkerId>, Vec<WorkerId>) =
            left.into_iter().filter(|m| self.workers[m].connected).partition(|m| self.draining.contains(m));
        if members.is_empty() {
            // Nobody else holds the state: they go on until it is saved, or with somebody else too.
            members = drained;
        }
        if members.len() < workers as usize {
            members.extend(self.spare_for(id));
            members.truncate(workers as usize);
        }
        if members.len() >= min_workers as usize {
            return self.form_group(now, id, members, cause, effects);
        }
        let text = format!("{cause}; {} workers are left, at least {min_workers} are needed", members.len());
        note(effects, id, text);
        self.fall_back_to_waiting(now, id, effects);
    }

    /// The next generation, with these members. Survivors keep their order, so that rank 0 seldom moves.
    pub(super) fn form_group(
        &mut self,
        now: Time,
        id: &TrialId,
        members: Vec<WorkerId>,
        cause: &str,
        effects: &mut Vec<Effect>,
    ) {
        let leaving = self.leaving(id, &members);
        self.dissolve(id);
        let form_ms = self.timing.form_ms;
        let trial = self.trial_mut(id);
        if matches!(trial.stopping, Some(StopCause::Drained { .. })) {
            // Whether this group has to stop is seen once it has formed.
            trial.stopping = None;
        }
        debug_assert!(members.len() >= trial.spec.min_workers as usize);
        debug_assert!(members.len() <= trial.most_workers() as usize);
        let dropped = trial.take_generation();
        trial.world = members.len() as u32;
        let until = now.after_ms(backed_off_ms(form_ms, trial.broken_in_a_row));
        let text = format!(
            "{cause}; going on with {} of {} workers as generation {}",
            members.len(),
            trial.spec.workers,
            trial.generation
        );
        note(effects, id, text);
        drop_saves(effects, id, dropped);
        trial.enter(now, Phase::Forming { members: members.clone(), until, leaving });
        for member in &members {
            self.take_worker(*member, id, effects);
        }
        for (rank, member) in members.iter().enumerate() {
            effects.push(Effect::Assign { worker: *member, assignment: Box::new(self.assignment(id, rank)) });
        }
    }

    /// Members of the group at work that are drained, and not among the next ones.
    fn leaving(&self, id: &TrialId, next: &[WorkerId]) -> Vec<WorkerId> {
        let Phase::Running { members, .. } = &self.trials[id].phase else { return Vec::new() };
        let leaves = |member: &&WorkerId| {
            let is_connected = self.workers.get(member).is_some_and(|worker| worker.connected);
            is_connected && self.draining.contains(member) && !next.contains(member)
        };
        members.iter().filter(leaves).copied().collect()
    }

    /// Puts a free worker into the group of `id`; a state that is of no use there is dropped first.
    fn take_worker(&mut self, worker_id: WorkerId, id: &TrialId, effects: &mut Vec<Effect>) {
        let trial = &self.trials[id];
        let worker = self.workers.get_mut(&worker_id).expect("only known workers are placed");
        debug_assert!(worker.trial.is_none(), "a worker is in one group at a time");
        worker.trial = Some(id.clone());
        let Some(held) = worker.held.take() else { return };
        let is_usable = match held.step {
            Some(step) => trial.can_use(held.generation, step),
            // Where a group has gone on since without it, it may hold a step more than that began with.
            None => trial.formed <= held.generation && trial.can_use(held.generation, trial.newest_saved_step()),
        };
        if held.trial != *id || !is_usable {
            effects.push(Effect::Release { worker: worker_id, trial: held.trial, generation: held.generation });
        }
    }

    /// Free workers drop the states of trials that are not `wanted` any more.
    fn release_idle(&mut self, wanted: fn(&Trial) -> bool, effects: &mut Vec<Effect>) {
        for (id, worker) in &mut self.workers {
            let Some(held) = worker.held.take_if(|held| !wanted(&self.trials[&held.trial])) else { continue };
            if worker.connected {
                effects.push(Effect::Release { worker: *id, trial: held.trial, generation: held.generation });
            }
        }
    }

    /// The place of the member with `rank` in the newest group.
    pub(super) fn assignment(&self, id: &TrialId, rank: usize) -> Assignment {
        let trial = &self.trials[id];
        let start = match (trial.newest_checkpoint(), &trial.parent) {
            (Some(Checkpoint { step, manifest, blake3, .. }), _) => {
                StartFrom::Checkpoint { step: *step, manifest: manifest.clone(), blake3: blake3.to_string() }
            }
            (None, Some(parent)) => {
                let Checkpoint { step, manifest, blake3, .. } = &parent.checkpoint;
                StartFrom::Copy { step: *step, manifest: manifest.clone(), blake3: blake3.to_string() }
            }
            (None, None) => StartFrom::Scratch,
        };
        Assignment {
            trial: id.clone(),
            generation: trial.generation,
            rank: Rank(rank as u32),
            members: trial.phase.members().iter().map(|member| self.workers[member].info.clone()).collect(),
            leaving: match &trial.phase {
                Phase::Forming { leaving, .. } => leaving.clone(),
                Phase::Waiting { .. }
                | Phase::Running { .. }
                | Phase::Broken { .. }
                | Phase::Saving { .. }
                | Phase::Ended { .. } => Vec::new(),
            },
            spec: trial.spec.clone(),
            start,
            recorded: trial.recorded,
            skip_updates: trial.skip_updates.iter().copied().collect(),
            state: if trial.discard { StateInMemory::Discard } else { StateInMemory::Keep },
            until: trial.until,
        }
    }
}

impl Trial {
    fn can_grow(&self) -> bool {
        matches!(&self.phase, Phase::Running { members, .. } if members.len() < self.spec.workers as usize)
            && self.stopping.is_none()
    }

    /// Whether a free worker with the trial's state may be put into its next group.
    fn wants_holders(&self) -> bool {
        match self.phase {
            Phase::Waiting { .. } | Phase::Forming { .. } | Phase::Broken { .. } => true,
            Phase::Running { .. } | Phase::Saving { .. } | Phase::Ended { .. } => false,
        }
    }

    /// As [`Trial::wants_holders`], before groups have grown.
    fn may_want_a_holder(&self) -> bool {
        self.wants_holders() || self.can_grow() || self.can_widen()
    }
}
