//! A searcher and a scheduler together, with the limits of a sweep.
//!
//! The engine asks [`Study::next`] for every free slot, and tells what came of it: [`Study::rested`] or
//! [`Study::failed`]. A trial trains up to its target exactly, is evaluated there and rests
//! as a checkpoint; all that becomes of it is decided there.

mod log;
mod replay;
pub mod simulate;
mod spec;
mod trial;
mod wave;

use std::collections::{BTreeSet, VecDeque};

pub use log::Fact;
pub use replay::{Divergence, Rederived, Renewed, replay};
pub use spec::{AfterFailure, FinishReason, Limits, LockStep, Next, StudySpec, WaitReason};
pub use trial::{Phase, Trial};

use self::log::Log;
use self::wave::{Outcome, Wave};
use crate::search::population::Parent;
use crate::search::scheduler::{Decision, Scheduler, StopReason};
use crate::search::searcher::Searcher;
use crate::search::space::Space;
use crate::search::warm_start::Known;

/// A sweep as a state machine: a function of specification, space, seed and the calls made.
///
/// # Lock step
///
/// With [`StudySpec::lock_step`] trials run in waves. When a slot asks and no wave is under way, one is planned: first the
/// trials that continue, by number, then paused trials that go on, then new trials, as many as `wave` says or as there are.
/// No result counts meanwhile. Slots take the planned trials in this order, whichever slot comes. A trial that has come to
/// rest, or has failed for good, is set aside; [`Study::rested`] answers [`Decision::Pause`]. When all of the wave have, their
/// results count, in the order of their numbers, and slots are told of ends and of the next wave. A failed attempt is tried
/// again at once, which concerns that trial alone.
///
/// So what is tried, and every decision, depends on the losses only, and not on the number of slots or on who is first; the
/// facts of [`Study::facts`] are the same, one by one. The exception is [`Study::out_of_time`], by its nature; its
/// fact says which trials it kept from beginning, so that it replays too. The price is
/// that slots wait for the last trial of a wave.
#[derive(Clone, Debug)]
pub struct Study {
    spec: StudySpec,
    space: Space,
    searcher: Searcher,
    scheduler: Scheduler,
    trials: Vec<Trial>,
    log: Log,
    training: u32,
    paused: BTreeSet<u32>,
    /// Copies that have not rested yet: their parents' checkpoints are needed.
    copies: BTreeSet<u32>,
    ends: VecDeque<(u32, StopReason)>,
    wave: Option<Wave>,
    spent: u64,
    consecutive_failures: u32,
    /// No more proposals: their limit is reached, or everything was tried.
    is_full: bool,
    /// Nothing starts or goes on any more.
    closing: Option<FinishReason>,
    finished: Option<FinishReason>,
}

impl Study {
    /// A study in which nothing happened yet.
    pub fn new(spec: StudySpec, space: Space, seed: u64) -> Self {
        let known: Vec<Known> = spec.prior.iter().filter_map(|observation| observation.known(&space)).collect();
        let mut searcher = Searcher::new(&spec.searcher, &space, seed);
        searcher.import(&space, &known);
        Self {
            searcher,
            scheduler: Scheduler::new(&spec.scheduler, seed),
            trials: Vec::new(),
            log: Log::default(),
            training: 0,
            paused: BTreeSet::new(),
            copies: BTreeSet::new(),
            ends: VecDeque::new(),
            wave: spec.lock_step.map(|_| Wave::default()),
            spent: 0,
            consecutive_failures: 0,
            is_full: false,
            closing: None,
            finished: None,
            spec,
            space,
        }
    }

    /// What a free slot does; the study counts on it being done.
    #[expect(clippy::should_implement_trait, reason = "a study is no iterator: it answers every slot, also by waiting")]
    pub fn next(&mut self) -> Next {
        if let Some(reason) = &self.finished {
            return Next::Finished(reason.clone());
        }
        // In lock step between waves: whoever asks within one, and how often, must not matter.
        if !self.is_within_wave()
            && let Some((trial, reason)) = self.ends.pop_front().or_else(|| self.scheduler.pop_end())
        {
            return self.end(trial, reason);
        }
        if let Some(limit) = self.spec.limits.max_concurrent.filter(|limit| self.training >= (*limit).max(1)) {
            return Next::Wait(WaitReason::MaxConcurrent { limit });
        }
        let before = (self.is_full, self.closing.is_some());
        let trial = if self.wave.is_some() { self.next_of_wave() } else { self.plan() };
        match trial {
            Some(trial) => self.hand_out(trial),
            None => {
                let next = self.idle();
                if matches!(next, Next::Wait(_)) && before != (self.is_full, self.closing.is_some()) {
                    self.log.push(Fact::Waited);
                }
                next
            }
        }
    }

    /// A trial that trains came to rest at its target.
    ///
    /// # Panics
    /// If the trial does not train, or `budget` is not its target.
    pub fn rested(&mut self, trial: u32, budget: u64, losses: &[f64]) -> Decision {
        let record = self.training_trial(trial);
        assert_eq!(budget, record.target, "trial {trial} rests at its target");
        record.phase = Phase::Resting;
        self.training -= 1;
        if let Some(wave) = &mut self.wave {
            wave.of(trial).outcome = Some(Outcome::Rested { budget, losses: losses.to_vec() });
            self.count_wave();
            return Decision::Pause;
        }
        let decision = self.count_rested(trial, budget, losses);
        if matches!(decision, Decision::Continue { .. }) {
            self.trials[trial as usize].phase = Phase::Training;
            self.training += 1;
        }
        decision
    }

    /// An attempt of a trial that trains failed.
    ///
    /// # Panics
    /// If the trial does not train.
    pub fn failed(&mut self, trial: u32, cause: &str) -> AfterFailure {
        let (retries, is_closing) = (self.spec.limits.retries, self.closing.is_some());
        let record = self.training_trial(trial);
        record.failures += 1;
        if record.failures <= retries && !is_closing {
            let after = AfterFailure::Retry { from: record.budget, target: record.target, attempt: record.failures };
            if self.wave.is_none() {
                self.log.push(Fact::Failed { trial, cause: cause.to_owned(), after: after.clone() });
            }
            return after;
        }
        record.phase = Phase::Resting;
        let after = AfterFailure::Failed { attempts: record.failures };
        self.training -= 1;
        if let Some(wave) = &mut self.wave {
            wave.of(trial).outcome = Some(Outcome::Failed { cause: cause.to_owned() });
            self.count_wave();
        } else {
            self.count_failed(trial, cause);
        }
        after
    }

    /// In lock step: whether trials of a wave are still to come to rest. Never without.
    pub fn is_within_wave(&self) -> bool {
        self.wave.as_ref().is_some_and(|wave| wave.outstanding() > 0)
    }

    /// The time for the study is over: nothing more starts, and what trains ends at its next rest, if not before.
    pub fn out_of_time(&mut self) {
        if self.closing.is_some() || self.finished.is_some() {
            return;
        }
        let planned = self.wave.iter().flat_map(|wave| &wave.queue).copied().collect();
        self.log.push(Fact::OutOfTime { planned });
        self.closing = Some(FinishReason::OutOfTime);
        if let Some(wave) = &mut self.wave {
            let continuing: Vec<u32> = wave.continuing.drain(..).map(|(trial, _)| trial).collect();
            let withdrawn: Vec<u32> = wave.queue.drain(..).chain(continuing).collect();
            for trial in withdrawn {
                wave.buffered.remove(&trial);
                let reason = StopReason::SweepEnded { budget: self.trials[trial as usize].budget };
                self.ends.push_back((trial, reason));
            }
            self.count_wave();
        }
    }

    /// The trials by number.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// What can be tried.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// All that happened, in its order.
    pub fn facts(&self) -> impl Iterator<Item = Fact> + '_ {
        self.log.facts()
    }

    /// How many trials train.
    pub fn training(&self) -> u32 {
        self.training
    }

    /// The trials that train, with the budgets of their next rests.
    pub fn in_training(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let training = self.trials.iter().zip(0..).filter(|(trial, _)| trial.phase == Phase::Training);
        training.map(|(trial, number)| (number, trial.target))
    }

    /// The budgets given out, attempts after a failure not counted.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// The checkpoints that may still be asked for: of paused trials, of the last rest of those that train, and of the
    /// parents of copies that have not rested yet. All others can be deleted as far as the study is concerned.
    pub fn checkpoints(&self) -> BTreeSet<Parent> {
        let living = self.trials.iter().enumerate().filter(|(_, trial)| !trial.phase.is_over());
        let needed = living.filter_map(|(number, trial)| match trial.parent {
            Some(parent) if trial.losses.is_empty() => Some(parent),
            _ => (!trial.losses.is_empty()).then_some(Parent { trial: number as u32, budget: trial.budget }),
        });
        needed.chain(self.scheduler.parents()).collect()
    }

    /// The budgets of a trial's checkpoints that are among [`Study::checkpoints`].
    pub fn checkpoints_of(&self, trial: u32) -> BTreeSet<u64> {
        let own = self.trials.get(trial as usize).filter(|t| !t.phase.is_over() && !t.losses.is_empty());
        let copied = self.copies.iter().filter_map(|copy| self.trials[*copy as usize].parent);
        let of_trial = copied.chain(self.scheduler.parents()).filter(|parent| parent.trial == trial);
        of_trial.map(|parent| parent.budget).chain(own.map(|own| own.budget)).collect()
    }

    /// How many facts there are.
    pub fn facts_made(&self) -> usize {
        self.log.len()
    }

    /// The trials that the facts from number `first` on are about.
    pub fn trials_since(&self, first: usize) -> BTreeSet<u32> {
        self.log.trials_since(first).collect()
    }

    /// About how many bytes trials and facts hold; searcher and scheduler have theirs.
    pub fn bytes(&self) -> usize {
        let trials: usize = self.trials.iter().map(Trial::bytes).sum();
        trials + (self.trials.capacity() - self.trials.len()) * size_of::<Trial>() + self.log.bytes()
    }

    fn training_trial(&mut self, trial: u32) -> &mut Trial {
        let record = self.trials.get_mut(trial as usize).filter(|record| record.phase == Phase::Training);
        record.expect("only a trial that trains has results")
    }

    /// A trial to be given to a slot.
    fn next_of_wave(&mut self) -> Option<u32> {
        let size = self.spec.lock_step.map_or(1, |lock_step| lock_step.wave.max(1)) as usize;
        let wave = self.wave.as_mut().expect("only lock step has waves");
        if wave.buffered.is_empty() {
            let mut planned = Vec::new();
            while planned.len() < size {
                let continuing = self.wave.as_mut().and_then(|wave| wave.continuing.pop_front());
                let trial = match continuing {
                    Some((trial, target)) => {
                        self.resume(trial, target);
                        Some(trial)
                    }
                    None => self.plan(),
                };
                let Some(trial) = trial else { break };
                planned.push(trial);
            }
            let wave = self.wave.as_mut().expect("only lock step has waves");
            planned.into_iter().for_each(|trial| wave.plan(trial));
        }
        self.wave.as_mut().and_then(|wave| wave.queue.pop_front())
    }

    /// The trial that comes next, which is queued then: a paused one, a copy or a new one.
    fn plan(&mut self) -> Option<u32> {
        loop {
            if self.closing.is_some() {
                return None;
            }
            if let Some((trial, target)) = self.scheduler.promotable() {
                if !self.spend(target - self.trials[trial as usize].budget) {
                    return None;
                }
                self.scheduler.promote();
                self.resume(trial, target);
                return Some(trial);
            }
            let number = self.trials.len() as u32;
            let is_at_limit = self.spec.limits.trials.is_some_and(|limit| number >= limit);
            if let Some(birth) = self.scheduler.birth() {
                if is_at_limit {
                    self.scheduler.refuse_birth();
                    continue;
                }
                if !self.spend(birth.target - birth.parent.budget) {
                    return None;
                }
                let parent_point = self.trials[birth.parent.trial as usize].point.clone();
                let (point, target) = self.scheduler.bear(number, &parent_point, &self.space);
                return Some(self.add(point, target, Some(birth.parent)));
            }
            if is_at_limit && !self.is_full {
                self.is_full = true;
                self.scheduler.no_more_proposals();
                continue;
            }
            if self.is_full || !self.scheduler.admits() {
                return None;
            }
            let Some(point) = self.searcher.propose(&self.space, number) else {
                self.is_full = true;
                self.scheduler.no_more_proposals();
                continue;
            };
            let target = self.scheduler.start(number);
            if !self.spend(target) {
                self.searcher.close(number);
                return None;
            }
            return Some(self.add(point, target, None));
        }
    }

    fn add(&mut self, point: Vec<f64>, target: u64, parent: Option<Parent>) -> u32 {
        let trial = self.trials.len() as u32;
        let budget = parent.map_or(0, |parent| parent.budget);
        self.trials.push(Trial {
            point: point.into(),
            losses: Box::default(),
            parent,
            budget,
            target,
            failures: 0,
            phase: Phase::Queued,
            has_started: false,
        });
        if parent.is_some() {
            self.copies.insert(trial);
        }
        self.log.push(Fact::Started { trial, target, parent });
        trial
    }

    fn resume(&mut self, trial: u32, target: u64) {
        self.log.push(Fact::Resumed { trial, target });
        self.paused.remove(&trial);
        let record = &mut self.trials[trial as usize];
        record.target = target;
        record.phase = Phase::Queued;
    }

    fn hand_out(&mut self, trial: u32) -> Next {
        self.training += 1;
        let record = &mut self.trials[trial as usize];
        record.phase = Phase::Training;
        let target = record.target;
        if std::mem::replace(&mut record.has_started, true) {
            return Next::Resume { trial, target };
        }
        let configuration = self.space.decode(&record.point);
        Next::Start { trial, point: record.point.to_vec(), configuration, target, parent: record.parent }
    }

    fn end(&mut self, trial: u32, reason: StopReason) -> Next {
        self.paused.remove(&trial);
        self.copies.remove(&trial);
        self.trials[trial as usize].phase = Phase::Stopped;
        self.searcher.close(trial);
        self.log.push(Fact::Ended { trial, reason: reason.clone() });
        Next::End { trial, reason }
    }

    /// What a slot is told for which there is no trial.
    fn idle(&mut self) -> Next {
        let outstanding = self.wave.as_ref().map_or(0, Wave::outstanding) as u32;
        if outstanding > 0 {
            return Next::Wait(WaitReason::Wave { outstanding });
        }
        if self.training > 0 {
            return Next::Wait(WaitReason::Results { training: self.training });
        }
        for trial in std::mem::take(&mut self.paused) {
            let reason = self.scheduler.leftover(trial, self.trials[trial as usize].budget);
            self.ends.push_back((trial, reason));
        }
        if let Some((trial, reason)) = self.ends.pop_front().or_else(|| self.scheduler.pop_end()) {
            return self.end(trial, reason);
        }
        let reason = self.closing.clone().unwrap_or(FinishReason::Done { trials: self.trials.len() as u32 });
        self.finished = Some(reason.clone());
        self.log.push(Fact::Finished { reason: reason.clone() });
        Next::Finished(reason)
    }

    /// Takes a portion of the total budget, or begins to close the study if there is not enough.
    fn spend(&mut self, portion: u64) -> bool {
        let spent = self.spent.saturating_add(portion);
        match self.spec.limits.total_budget {
            Some(limit) if spent > limit => {
                self.closing = Some(FinishReason::BudgetSpent { spent: self.spent, limit });
                false
            }
            _ => {
                self.spent = spent;
                true
            }
        }
    }

    /// Lets the results of a wave count, if all are there.
    fn count_wave(&mut self) {
        let Some(results) = self.wave.as_mut().and_then(Wave::take_complete) else { return };
        for (trial, buffered) in results {
            match buffered.outcome.expect("the wave is complete") {
                Outcome::Failed { cause } => self.count_failed(trial, &cause),
                Outcome::Rested { budget, losses } => {
                    if let Decision::Continue { target } = self.count_rested(trial, budget, &losses) {
                        self.trials[trial as usize].phase = Phase::Queued;
                        let wave = self.wave.as_mut().expect("only lock step has waves");
                        wave.continuing.push_back((trial, target));
                    }
                }
            }
        }
    }

    fn count_rested(&mut self, trial: u32, budget: u64, losses: &[f64]) -> Decision {
        self.consecutive_failures = 0;
        self.copies.remove(&trial);
        let record = &mut self.trials[trial as usize];
        (record.budget, record.losses) = (budget, losses.into());
        self.searcher.observe(trial, budget, losses);
        let decision = self.scheduler.rested(trial, budget, first(losses));
        let decision = self.within_limits(trial, budget, decision);
        let record = &mut self.trials[trial as usize];
        match &decision {
            Decision::Continue { target } => record.target = *target,
            Decision::Pause => {
                record.phase = Phase::Paused;
                self.paused.insert(trial);
                self.searcher.pause(trial);
            }
            Decision::Stop(_) => record.phase = Phase::Stopped,
            Decision::Complete => record.phase = Phase::Complete,
        }
        if record.phase.is_over() {
            self.searcher.close(trial);
        }
        let losses = losses.iter().map(|loss| (*loss).into()).collect();
        self.log.push(Fact::Rested { trial, budget, losses, decision: decision.clone() });
        decision
    }

    /// The decision, if limits allow it. A trial that would be the next to go on does so at once, in its slot.
    fn within_limits(&mut self, trial: u32, budget: u64, decision: Decision) -> Decision {
        let decision = match decision {
            Decision::Pause if self.wave.is_none() && self.closing.is_none() => match self.scheduler.promotable() {
                Some((next, target)) if next == trial && self.spend(target - budget) => {
                    self.scheduler.promote();
                    return Decision::Continue { target };
                }
                _ => decision,
            },
            other => other,
        };
        match decision {
            Decision::Continue { target } if self.closing.is_some() || !self.spend(target - budget) => {
                Decision::Stop(StopReason::SweepEnded { budget })
            }
            other => other,
        }
    }

    fn count_failed(&mut self, trial: u32, cause: &str) {
        self.copies.remove(&trial);
        let record = &mut self.trials[trial as usize];
        record.phase = Phase::Failed;
        let after = AfterFailure::Failed { attempts: record.failures };
        self.log.push(Fact::Failed { trial, cause: cause.to_owned(), after });
        self.searcher.close(trial);
        self.scheduler.failed(trial);
        self.consecutive_failures += 1;
        let failures = self.consecutive_failures;
        let is_too_many = self.spec.limits.max_consecutive_failures.is_some_and(|bound| failures >= bound.max(1));
        if is_too_many && self.closing.is_none() {
            self.closing = Some(FinishReason::TooManyFailures { failures, cause: cause.to_owned() });
        }
    }
}

/// What the scheduler decides by.
fn first(losses: &[f64]) -> f64 {
    losses.first().copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests;
