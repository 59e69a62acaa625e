use std::collections::BTreeMap;

use super::{AfterFailure, Fact, Next, Phase, Study, StudySpec, first};
use crate::search::scheduler::{Decision, Scheduler, StopReason};
use crate::search::space::Space;

/// Where facts and a study went apart.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("fact {index} is {recorded:?}, the study has {found:?}")]
pub struct Divergence {
    /// Which of the facts, counted from 0.
    pub index: usize,
    /// The fact.
    pub recorded: Option<Box<Fact>>,
    /// What the study has in its place.
    pub found: Option<Box<Fact>>,
}

impl Study {
    /// The study that these facts were taken from, made by repeating the calls that led to them.
    ///
    /// # Errors
    /// If the study makes other facts, because specification, space, seed or program are not the same.
    pub fn replayed(spec: StudySpec, space: Space, seed: u64, facts: &[Fact]) -> Result<Self, Divergence> {
        let max_concurrent = spec.limits.max_concurrent;
        let is_lock_step = spec.lock_step.is_some();
        let mut study = Self::new(spec, space, seed);
        if is_lock_step {
            // Facts tell of a wave as a whole, whatever the number of slots that took it.
            study.spec.limits.max_concurrent = None;
        }
        for fact in facts {
            if !study.repeat(fact) {
                break;
            }
        }
        study.spec.limits.max_concurrent = max_concurrent;
        let found: Vec<Fact> = study.facts().collect();
        match (0..facts.len().max(found.len())).find(|index| facts.get(*index) != found.get(*index)) {
            None => Ok(study),
            Some(index) => {
                let at = |list: &[Fact]| list.get(index).cloned().map(Box::new);
                Err(Divergence { index, recorded: at(facts), found: at(&found) })
            }
        }
    }

    /// Makes the call that led to a fact, unless that is impossible.
    fn repeat(&mut self, fact: &Fact) -> bool {
        let trains = |study: &Study, trial: u32, budget: Option<u64>| {
            let record = study.trials.get(trial as usize).filter(|record| record.phase == Phase::Training);
            record.is_some_and(|record| budget.is_none_or(|budget| budget == record.target))
        };
        match fact {
            Fact::Started { .. } | Fact::Resumed { .. } => {
                matches!(self.next(), Next::Start { .. } | Next::Resume { .. })
            }
            Fact::Ended { .. } => matches!(self.next(), Next::End { .. }),
            Fact::Waited => matches!(self.next(), Next::Wait(_)),
            Fact::Finished { .. } => matches!(self.next(), Next::Finished(_)),
            Fact::OutOfTime { planned } => {
                // Every trial of the wave was given to a slot above, for facts tell of it as a whole.
                for trial in planned {
                    if !trains(self, *trial, None) {
                        return false;
                    }
                    self.take_back(*trial);
                }
                self.out_of_time();
                true
            }
            Fact::Rested { trial, budget, losses, .. } => {
                let can = trains(self, *trial, Some(*budget));
                if can {
                    let losses: Vec<f64> = losses.iter().map(|loss| (*loss).into()).collect();
                    self.rested(*trial, *budget, &losses);
                }
                can
            }
            Fact::Failed { trial, cause, after } => {
                if !trains(self, *trial, None) {
                    return false;
                }
                // In lock step only the last of a trial's failures is a fact.
                let is_final = matches!(after, AfterFailure::Failed { .. });
                while matches!(self.failed(*trial, cause), AfterFailure::Retry { .. }) && is_final {}
                true
            }
        }
    }

    /// A trial of the wave is planned still: no slot has taken it after all.
    fn take_back(&mut self, trial: u32) {
        let Some(wave) = &mut self.wave else { return };
        wave.queue.push_back(trial);
        let record = &mut self.trials[trial as usize];
        record.phase = Phase::Queued;
        record.has_started = !record.losses.is_empty();
        self.training -= 1;
    }
}

/// What becomes of a trial at a budget, as it was and under another setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Rederived {
    /// The trial.
    pub trial: u32,
    /// Where it rests in one of the two.
    pub budget: u64,
    /// What became of it; nothing if it did not rest there. [`Decision::Pause`] stands only where nothing followed.
    pub old: Option<Decision>,
    /// What becomes of it now.
    pub new: Renewed,
}

/// What becomes of a trial at a budget under another setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewed {
    /// This.
    Decided(Decision),
    /// It trains on beyond what was recorded, so nobody knows.
    UnknownBeyond {
        /// The last budget with a loss, 0 if there is none.
        budget: u64,
    },
    /// It has ended before.
    EndedBefore {
        /// Where.
        budget: u64,
    },
    /// It does not rest here.
    NoRest,
}

/// Derives the decisions about recorded curves again, with another scheduler. Rows are ordered by trial and budget.
///
/// The trials and their curves are those of the record; searcher and limits play no part. Slots ask in the order of the
/// record: where it says that a trial began or went on, the scheduler here may promote one of its own. A trial that rests
/// where the record has no loss is judged by the loss before. With the scheduler of the record, old and new are the same,
/// except where a limit decided.
pub fn replay(facts: &[Fact], spec: &StudySpec, seed: u64) -> Vec<Rederived> {
    let last_start = facts.iter().rposition(|fact| matches!(fact, Fact::Started { parent: None, .. }));
    let mut replay = Replay {
        scheduler: Scheduler::new(&spec.scheduler, seed),
        is_eager: spec.lock_step.is_none(),
        curves: BTreeMap::new(),
        training: BTreeMap::new(),
        rested: BTreeMap::new(),
        old: BTreeMap::new(),
        new: BTreeMap::new(),
    };
    for (index, fact) in facts.iter().enumerate() {
        let starts_follow = last_start.is_some_and(|last| index <= last);
        replay.take(fact, starts_follow);
    }
    replay.scheduler.no_more_proposals();
    while replay.promote() {}
    replay.conclude()
}

struct Replay {
    scheduler: Scheduler,
    /// Whether a trial that would be the next to go on does so at once.
    is_eager: bool,
    curves: BTreeMap<u32, Curve>,
    /// The targets of the trials that train now.
    training: BTreeMap<u32, u64>,
    /// Where trials rested last, now.
    rested: BTreeMap<u32, u64>,
    old: BTreeMap<(u32, u64), Decision>,
    new: BTreeMap<(u32, u64), Decision>,
}

#[derive(Default)]
struct Curve {
    points: Vec<(u64, f64)>,
    /// How many of the points the scheduler has seen.
    seen: usize,
    /// Where it rested last, in the record.
    rested: u64,
}

impl Replay {
    fn take(&mut self, fact: &Fact, starts_follow: bool) {
        match fact {
            Fact::Started { trial, parent, .. } => {
                self.promote();
                self.start(*trial, parent.is_some());
            }
            Fact::Resumed { trial, target } => {
                let rested = self.curves.get(trial).map_or(0, |curve| curve.rested);
                self.old.insert((*trial, rested), Decision::Continue { target: *target });
                let is_continuation = !self.is_eager && self.training.contains_key(trial);
                if !is_continuation && !self.promote() && !starts_follow {
                    self.scheduler.no_more_proposals();
                    self.promote();
                }
            }
            Fact::Rested { trial, budget, losses, decision } => {
                self.curves.entry(*trial).or_default().rested = *budget;
                self.old.insert((*trial, *budget), decision.clone());
                let losses: Vec<f64> = losses.iter().map(|loss| (*loss).into()).collect();
                self.point(*trial, *budget, first(&losses));
            }
            Fact::Failed { trial, after: AfterFailure::Failed { .. }, .. } => {
                if self.training.remove(trial).is_some() {
                    self.scheduler.failed(*trial);
                }
            }
            Fact::Ended { trial, reason } => {
                self.old.insert((*trial, reason.budget()), Decision::Stop(reason.clone()));
            }
            Fact::Waited | Fact::Finished { .. } if !starts_follow => self.scheduler.no_more_proposals(),
            Fact::Failed { after: AfterFailure::Retry { .. }, .. }
            | Fact::OutOfTime { .. }
            | Fact::Waited
            | Fact::Finished { .. } => {}
        }
    }

    fn start(&mut self, trial: u32, is_copy: bool) {
        let target = if is_copy {
            // What it tries does not matter here, only that it takes the place.
            if self.scheduler.birth().is_none() {
                return;
            }
            self.scheduler.bear(trial, &[], &Space::new(Vec::new())).1
        } else if self.scheduler.admits() {
            self.scheduler.start(trial)
        } else {
            return;
        };
        self.training.insert(trial, target);
    }

    /// Lets the next paused trial go on, if there is one.
    fn promote(&mut self) -> bool {
        let Some((trial, target)) = self.scheduler.promotable() else { return false };
        self.scheduler.promote();
        let rested = self.rested.get(&trial).copied().unwrap_or(0);
        self.new.insert((trial, rested), Decision::Continue { target });
        self.training.insert(trial, target);
        self.follow(trial);
        true
    }

    fn point(&mut self, trial: u32, budget: u64, loss: f64) {
        self.curves.entry(trial).or_default().points.push((budget, loss));
        self.follow(trial);
    }

    /// Tells the scheduler of the recorded curve, as far as the trial trains.
    fn follow(&mut self, trial: u32) {
        let curve = self.curves.entry(trial).or_default();
        while let (Some(&target), Some(&(budget, loss))) = (self.training.get(&trial), curve.points.get(curve.seen)) {
            if budget < target {
                curve.seen += 1;
                self.scheduler.measured(trial, loss);
                continue;
            }
            let judged = if budget == target {
                curve.seen += 1;
                loss
            } else {
                curve.seen.checked_sub(1).map_or(f64::NAN, |before| curve.points[before].1)
            };
            self.training.remove(&trial);
            self.rested.insert(trial, target);
            let mut decision = self.scheduler.rested(trial, target, judged);
            if let (Decision::Pause, true, Some((next, further))) =
                (&decision, self.is_eager, self.scheduler.promotable())
                && next == trial
            {
                self.scheduler.promote();
                decision = Decision::Continue { target: further };
            }
            if let Decision::Continue { target } = decision {
                self.training.insert(trial, target);
            }
            self.new.insert((trial, target), decision);
        }
    }

    fn conclude(mut self) -> Vec<Rederived> {
        while let Some((trial, reason)) = self.scheduler.pop_end() {
            self.new.insert((trial, reason.budget()), Decision::Stop(reason));
        }
        for ((trial, budget), decision) in &mut self.new {
            if *decision == Decision::Pause {
                let reason = self.scheduler.leftover(*trial, *budget);
                if !matches!(reason, StopReason::SweepEnded { .. }) {
                    *decision = Decision::Stop(reason);
                }
            }
        }
        let unknown = |(trial, target): (&u32, &u64)| {
            let last = self.curves.get(trial).and_then(|curve| curve.points.last()).map_or(0, |point| point.0);
            ((*trial, *target), Renewed::UnknownBeyond { budget: last })
        };
        let mut rows: BTreeMap<(u32, u64), Renewed> = self.training.iter().map(unknown).collect();
        rows.extend(self.new.iter().map(|(at, decision)| (*at, Renewed::Decided(decision.clone()))));
        for (trial, budget) in self.old.keys() {
            rows.entry((*trial, *budget)).or_insert_with(|| match self.rested.get(trial) {
                Some(last) if last < budget && !self.training.contains_key(trial) => {
                    Renewed::EndedBefore { budget: *last }
                }
                _ => Renewed::NoRest,
            });
        }
        let row = |((trial, budget), new)| {
            let old = self.old.get(&(trial, budget)).cloned();
            Rederived { trial, budget, old, new }
        };
        rows.into_iter().map(row).collect()
    }
}
