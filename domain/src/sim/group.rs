use super::plan::{Next, Plan, State};
use super::store::Record;
use super::worker::{Activity, Attempt, Report};
use super::{Action, PartDone, World};
use crate::batch::Length;
use crate::engine::{AttemptOutcome, StartFrom};
use crate::ids::{Generation, Step, TrialId, WorkerId};
use crate::record::SavedPart;

/// How long a member tries to connect to its peers.
const CONNECT_MS: u64 = 2_500;

/// What a bad worker reports.
pub(super) const NO_DATA: &str = "the data are missing";

/// What members of a group do together.
impl World<'_> {
    pub(super) fn begin_connecting(&mut self, worker: WorkerId) {
        let attempt = self.workers[&worker].attempt.as_ref().expect("it just took a place");
        let (trial, generation) = (attempt.assignment.trial.clone(), attempt.assignment.generation);
        if self.workers[&worker].bad {
            self.workers.get_mut(&worker).expect("just seen").attempt = None;
            let outcome = AttemptOutcome::Failed { step: Step(0), cause: NO_DATA.to_owned() };
            return self.report(worker, Report::AttemptEnded { trial, generation, outcome });
        }
        self.after_up_to(30, Action::TryForm { trial: trial.clone(), generation });
        let timeout = self.now.after_ms(CONNECT_MS);
        self.at(timeout, Action::ConnectTimeout { worker, trial, generation });
    }

    fn attempt(&self, worker: WorkerId, trial: &TrialId, generation: Generation) -> Option<&Attempt> {
        self.workers.get(&worker)?.is_in(trial, generation)
    }

    fn attempt_mut(&mut self, worker: WorkerId) -> &mut Attempt {
        self.workers.get_mut(&worker).and_then(|w| w.attempt.as_mut()).expect("members have a place")
    }

    fn is_frozen(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|w| w.frozen)
    }

    pub(super) fn connect_timeout(&mut self, worker: WorkerId, trial: &TrialId, generation: Generation) {
        let connecting = |a: &Attempt| a.activity == Activity::Connecting;
        if self.attempt(worker, trial, generation).is_some_and(connecting) {
            self.breaks(worker, trial, generation, "a peer cannot be reached");
        }
    }

    fn breaks(&mut self, worker: WorkerId, trial: &TrialId, generation: Generation, cause: &str) {
        self.attempt_mut(worker).activity = Activity::Idle;
        let (trial, cause) = (trial.clone(), cause.to_owned());
        self.report(worker, Report::Broken { trial, generation, cause });
    }

    /// Forms the group if every member is there.
    pub(super) fn try_form(&mut self, trial: &TrialId, generation: Generation) {
        let of_group = |w: &&super::Worker| w.is_in(trial, generation).is_some();
        let Some(one) = self.workers.values().find(of_group) else { return };
        let assignment = one.attempt.as_ref().expect("found by its attempt").assignment.clone();
        let members: Vec<WorkerId> = assignment.members.iter().map(|m| m.id).collect();
        let ready = |id: &WorkerId| {
            let connecting = |a: &Attempt| a.activity == Activity::Connecting;
            self.attempt(*id, trial, generation).is_some_and(connecting) && !self.is_frozen(*id)
        };
        if !members.iter().all(ready) {
            return;
        }
        if self.fault_in(12) {
            let unlucky = members[self.random.below(members.len() as u64) as usize];
            return self.breaks(unlucky, trial, generation, "reset by peer");
        }
        let holders = members.iter().filter_map(|id| {
            let attempt = self.attempt(*id, trial, generation)?;
            Some((attempt.state.clone()?, attempt.records.clone()))
        });
        let highest = holders.max_by_key(|(state, _)| state.position);
        let (state, records) = match highest {
            Some(found) => found,
            None => match self.load(trial, generation, &assignment.start) {
                Some(state) => (state, Vec::new()),
                None => return,
            },
        };
        self.summary.groups += 1;
        let position = state.position;
        for member in &members {
            let attempt = self.attempt_mut(*member);
            if attempt.state.as_ref().is_none_or(|held| held.position < position) {
                attempt.state = Some(state.clone());
                attempt.records = records.clone();
            }
            attempt.activity = Activity::Stepping;
        }
        for member in &members {
            let trial = trial.clone();
            self.report(*member, Report::Formed { trial, generation, position });
        }
        let records = self.attempt_mut(members[0]).records.clone();
        if !records.is_empty() {
            self.report(members[0], Report::Records { trial: trial.clone(), generation, records });
        }
        self.after_up_to(40, Action::Work { trial: trial.clone(), generation, members });
    }

    fn load(&self, trial: &TrialId, generation: Generation, start: &StartFrom) -> Option<State> {
        let plan = &self.plans[&trial.run];
        let (StartFrom::Checkpoint { step, manifest, .. } | StartFrom::Copy { step, manifest, .. }) = start else {
            return Some(plan.initial());
        };
        let Some(loaded) = self.store.manifests.get(manifest) else {
            let is_current = self.engine.as_ref().is_some_and(|engine| {
                engine.view().runs.iter().any(|run| run.name == trial.run && run.generation == generation)
            });
            assert!(!is_current, "checkpoint {manifest} was deleted while a group of {trial} begins from it");
            return None;
        };
        assert_eq!(loaded.step, *step);
        Some(match start {
            StartFrom::Copy { .. } => plan.take_over(&loaded.state),
            StartFrom::Checkpoint { .. } | StartFrom::Scratch => loaded.state.clone(),
        })
    }

    /// One piece of work of a whole group: a step, an evaluation, or the end.
    pub(super) fn work(&mut self, trial: TrialId, generation: Generation, members: Vec<WorkerId>) {
        let is_in = |world: &Self, id: &WorkerId| {
            let stepping = |a: &Attempt| a.activity == Activity::Stepping;
            world.attempt(*id, &trial, generation).is_some_and(stepping)
        };
        let present: Vec<WorkerId> = members.iter().copied().filter(|id| is_in(self, id)).collect();
        if present.iter().any(|id| self.is_frozen(*id)) {
            return self.after_up_to(60, Action::Work { trial, generation, members });
        }
        let Some(first) = present.first() else { return };
        let attempt = self.attempt(*first, &trial, generation).expect("present");
        let state = attempt.state.clone().expect("a formed group has a state");
        let plan = self.plans[&trial.run].clone();
        let next = plan.next(&state, &attempt.skip);
        let rests = attempt.assignment.until == Some(Length::Steps(state.position.step.0)) && next != Next::Evaluate;
        if present.len() < members.len() {
            let next = if rests { Next::Done } else { next };
            return self.work_breaks(&trial, generation, &present, &plan, &next);
        }
        let wants_stop = members.iter().any(|id| self.attempt(*id, &trial, generation).is_some_and(|a| a.stop));
        match next {
            Next::Done => {
                let step = state.position.step;
                return self.finish(&trial, generation, &members, AttemptOutcome::Completed { step });
            }
            Next::Step | Next::RollBack(_) if rests => {
                let step = state.position.step;
                return self.finish(&trial, generation, &members, AttemptOutcome::Rested { step });
            }
            Next::Step | Next::RollBack(_) if wants_stop => {
                let step = state.position.step;
                return self.finish(&trial, generation, &members, AttemptOutcome::Stopped { step });
            }
            Next::RollBack(step) => {
                for member in &members {
                    self.attempt_mut(*member).activity = Activity::Idle;
                    self.report(*member, Report::RollbackRequested { trial: trial.clone(), generation, step });
                }
                return self.take_newer_places(&members);
            }
            Next::Step | Next::Evaluate => {
                for member in &members {
                    self.advance(*member, &plan, &next, generation);
                }
                if next == Next::Step {
                    self.seen.invariant_a_stop_is_heeded(&trial, generation, &members);
                }
            }
        }
        self.report_newest(members[0], &trial, generation);
        let attempt = self.attempt_mut(members[0]);
        if attempt.state.as_ref().is_some_and(|state| plan.save_due(state, &attempt.skip)) {
            self.save(&trial, generation, &members, None);
        }
        self.take_newer_places(&members);
        let delay = if next == Next::Step { 60 } else { 20 };
        self.after_up_to(delay, Action::Work { trial, generation, members });
    }

    fn advance(&mut self, worker: WorkerId, plan: &Plan, next: &Next, generation: Generation) {
        let attempt = self.attempt_mut(worker);
        let state = attempt.state.as_mut().expect("a formed group has a state");
        let loss = match next {
            Next::Step => {
                plan.step(state, &attempt.skip);
                None
            }
            Next::Evaluate => Some(plan.evaluate(state)),
            Next::RollBack(_) | Next::Done => return,
        };
        let record = Record { position: state.position, generation, weights: state.weights, loss };
        attempt.records.push(record);
    }

    fn report_newest(&mut self, rank_0: WorkerId, trial: &TrialId, generation: Generation) {
        let newest = self.attempt_mut(rank_0).records.last().cloned().expect("a record was just made");
        self.report(rank_0, Report::Records { trial: trial.clone(), generation, records: vec![newest] });
    }

    /// A member is gone in the middle of a step: some of the others may have completed it, some not.
    fn work_breaks(&mut self, trial: &TrialId, generation: Generation, present: &[WorkerId], plan: &Plan, next: &Next) {
        for member in present {
            if self.one_in(2) {
                self.advance(*member, plan, next, generation);
            }
            if let Some(assignment) = self.attempt_mut(*member).next.take() {
                self.workers.get_mut(member).expect("a member").adopt(*assignment);
                self.begin_connecting(*member);
            } else {
                self.breaks(*member, trial, generation, "a peer is gone");
            }
        }
    }

    fn finish(&mut self, trial: &TrialId, generation: Generation, members: &[WorkerId], outcome: AttemptOutcome) {
        for member in members {
            self.attempt_mut(*member).activity = Activity::Idle;
        }
        if matches!(outcome, AttemptOutcome::Stopped { step: Step(0) }) {
            self.report(members[0], Report::AttemptEnded { trial: trial.clone(), generation, outcome });
        } else {
            self.save(trial, generation, members, Some(&outcome));
        }
        self.take_newer_places(members);
    }

    /// Members that have heard of a newer group go there.
    fn take_newer_places(&mut self, members: &[WorkerId]) {
        for member in members {
            if let Some(assignment) = self.attempt_mut(*member).next.take() {
                self.workers.get_mut(member).expect("a member").adopt(*assignment);
                self.begin_connecting(*member);
            }
        }
    }

    /// Every member writes its part in the background.
    fn save(&mut self, trial: &TrialId, generation: Generation, members: &[WorkerId], finish: Option<&AttemptOutcome>) {
        for (rank, worker) in members.iter().enumerate() {
            let state = self.attempt_mut(*worker).state.clone().expect("a formed group has a state");
            let step = state.position.step;
            let part = SavedPart {
                step,
                rank: rank as u32,
                world: members.len() as u32,
                path: format!("{trial}/{generation}/{step}/{rank}"),
                bytes: 1,
                blake3: String::new(),
                weights_sha256: format!("{:016x}", state.weights),
            };
            let finish = finish.filter(|_| rank == 0).cloned();
            let done = PartDone { worker: *worker, trial: trial.clone(), generation, part, state, finish };
            self.after_up_to(150, Action::PartDone(Box::new(done)));
        }
    }

    pub(super) fn part_done(&mut self, done: PartDone) {
        let PartDone { worker, trial, generation, part, state, finish } = done;
        if !self.workers.contains_key(&worker) {
            return;
        }
        if self.is_frozen(worker) {
            let done = PartDone { worker, trial, generation, part, state, finish };
            return self.after_up_to(100, Action::PartDone(Box::new(done)));
        }
        if self.fault_in(30) {
            let step = part.step;
            self.report(worker, Report::PartFailed { trial: trial.clone(), generation, step });
        } else {
            self.store.parts.insert(part.path.clone(), state);
            self.report(worker, Report::PartSaved { trial: trial.clone(), generation, part });
        }
        if let Some(outcome) = finish {
            self.report(worker, Report::AttemptEnded { trial, generation, outcome });
        }
    }
}
