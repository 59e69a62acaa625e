use std::collections::{BTreeMap, BTreeSet};

use super::unfit::Fitness;
use crate::batch::Length;
use crate::engine::MetricValue;
use crate::ids::{RunName, Step, Time};
use crate::search::Configuration;
use crate::search::study::{FinishReason, Study};
use crate::spec::JobSpec;
use crate::spec::sweep::{Objective, SweepSpec, Unit, Words};
use crate::view::MeasurementView;

/// All that the engine knows of one sweep, but for its trials as runs.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub(super) spec: Box<SweepSpec>,
    pub(super) study: Study,
    /// What its budgets count.
    pub(super) unit: Unit,
    /// The step at which a trial rested with a budget.
    pub(super) rests: BTreeMap<(u32, u64), Step>,
    /// Steps that each trial had made when it came to rest last.
    pub(super) steps: BTreeMap<u32, u64>,
    /// Their sum.
    pub(super) steps_made: u64,
    /// Trials that no worker was asked to train, and why.
    pub(super) untrained: BTreeMap<u32, String>,
    /// Facts of the study that people have seen the results of.
    pub(super) seen_facts: usize,
    pub(super) submitted_at: Time,
    pub(super) turn: u64,
    /// That of the specification until a user wants another.
    pub(super) priority: i32,
    pub(super) phase: SweepPhase,
    /// How long it has run before `Live::since`, in milliseconds.
    pub(super) banked_ms: u64,
    /// Its time or its steps are used up.
    pub(super) is_out_of_time: bool,
    pub(super) fitness: Fitness,
}

/// Where a sweep stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SweepPhase {
    /// Trials start as workers become free.
    Live { since: Time },
    /// A user wants it to stop; trials are coming to rest.
    Stopping,
    /// It was stopped and can go on.
    Stopped { at: Time },
    /// Nothing is left to do. Blind means that no trial has a number for the first objective.
    Ended { at: Time, reason: FinishReason, is_blind: bool },
}

/// What happened says all that a study is.
impl PartialEq for Sweep {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
            && self.phase == other.phase
            && self.steps == other.steps
            && self.rests == other.rests
            && (self.submitted_at, self.turn, self.banked_ms) == (other.submitted_at, other.turn, other.banked_ms)
            && self.priority == other.priority
            && self.is_out_of_time == other.is_out_of_time
            && self.study.facts().eq(other.study.facts())
    }
}

impl Sweep {
    pub(super) fn new(spec: Box<SweepSpec>, now: Time, turn: u64) -> Result<Self, String> {
        let (study, unit) = spec.study()?;
        Ok(Self {
            study,
            unit,
            priority: spec.priority,
            spec,
            rests: BTreeMap::new(),
            steps: BTreeMap::new(),
            steps_made: 0,
            untrained: BTreeMap::new(),
            seen_facts: 0,
            submitted_at: now,
            turn,
            phase: SweepPhase::Live { since: now },
            banked_ms: 0,
            is_out_of_time: false,
            fitness: Fitness::default(),
        })
    }

    /// The run of a trial.
    ///
    /// # Panics
    /// If the name of the sweep leaves no room for the number; the reader of sweep files sees to that.
    pub(super) fn run(&self, number: u32) -> RunName {
        trial_run(&self.spec.name, number)
    }

    /// The step or pass over the data that stands for a budget.
    pub(super) fn until(&self, budget: u64) -> Length {
        self.unit.length(budget)
    }

    /// What was measured, as losses: less is better.
    pub(super) fn losses(&self, measured: Option<&MeasurementView>) -> Vec<f64> {
        let loss = |objective: &Objective| {
            let Some(m) = measured else { return f64::NAN };
            objective.loss(objective.metric.of(m.eval_loss.into(), m.eval_accuracy.into()))
        };
        self.spec.objectives.iter().map(loss).collect()
    }

    /// The values of the objectives behind losses.
    pub(super) fn values(&self, losses: &[f64]) -> Vec<MetricValue> {
        // The sign is all that is between them, and changes back with itself.
        self.spec.objectives.iter().zip(losses).map(|(objective, loss)| objective.loss(*loss).into()).collect()
    }

    /// How it speaks of what it measured and decided.
    pub(super) fn words(&self) -> Words<'_> {
        Words { objectives: &self.spec.objectives, unit: Some(self.unit) }
    }

    /// The job of a trial.
    pub(super) fn job(&self, number: u32, configuration: &Configuration) -> Result<JobSpec, String> {
        self.spec.job(configuration, number).map(|job| JobSpec { name: self.run(number), ..job })
    }

    /// The steps of a trial's checkpoints that other trials may still begin from.
    pub(super) fn wanted_steps(&self, number: u32) -> BTreeSet<Step> {
        let budgets = self.study.checkpoints_of(number).into_iter();
        budgets.filter_map(|budget| self.rests.get(&(number, budget)).copied()).collect()
    }

    /// When its time is over.
    pub(super) fn out_of_time_at(&self) -> Option<Time> {
        let SweepPhase::Live { since } = self.phase else { return None };
        let limit_ms = self.spec.budget.seconds.filter(|_| !self.is_out_of_time)?.saturating_mul(1000);
        Some(since.after_ms(limit_ms.saturating_sub(self.banked_ms)))
    }

    /// Whether trials have rested, but none with a number for the first objective: nothing could be compared.
    pub(super) fn is_blind(&self) -> bool {
        let mut rested = self.study.trials().iter().filter_map(|trial| trial.losses().first()).peekable();
        rested.peek().is_some() && rested.all(|loss| loss.is_nan())
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, SweepPhase::Live { .. })
    }
}

/// The run of trial `number` of a sweep.
pub fn trial_run(sweep: &RunName, number: u32) -> RunName {
    RunName::new(format!("{sweep}.{number}")).expect("names of sweeps leave room for the numbers of trials")
}

/// The sweep and the number that the name of a run would stand for, were there such a sweep.
pub(super) fn split_trial_run(run: &RunName) -> Option<(RunName, u32)> {
    let (sweep, number) = run.as_str().rsplit_once('.')?;
    let parsed: u32 = number.parse().ok().filter(|parsed: &u32| parsed.to_string() == number)?;
    Some((RunName::new(sweep).ok()?, parsed))
}
