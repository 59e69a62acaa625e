//! Decides where trials come to rest and which of them go on.
//!
//! A scheduler sees a loss for each trial at a budget, the first one where there are several. One that is not finite counts
//! as worse than every finite one, and its trial is never promoted. Every scheduler is a file; [`Scheduler`] holds them all.

mod asha;
mod hyperband;
mod median;
mod none;
mod patience;
mod percentile;
mod reason;
mod rung;
mod threshold;

use serde::{Deserialize, Serialize};

pub use asha::{Asha, AshaSpec, Mode, rung_budgets};
pub use hyperband::{Hyperband, HyperbandSpec, bracket_sizes};
pub use median::MedianSpec;
pub use none::{NoneSpec, Unscheduled};
pub use patience::{Patience, PatienceSpec};
pub use percentile::{Percentile, PercentileSpec, Statistic};
pub use reason::{Comparison, Decision, PEERS_LISTED_MAX, StopReason};
pub use threshold::{Threshold, ThresholdSpec};

use crate::search::population::{Birth, Parent, Population, PopulationSpec};
use crate::search::space::Space;

/// Which scheduler, with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SchedulerSpec {
    /// Every trial gets its full budget.
    None(NoneSpec),
    /// Asynchronous successive halving.
    Asha(AshaSpec),
    /// Brackets of successive halving; with a TPE that is told budgets, this is BOHB (Falkner et al. 2018).
    Hyperband(HyperbandSpec),
    /// Stops what is worse than the median of its peers.
    Median(MedianSpec),
    /// Stops what is worse than a percentile of its peers.
    Percentile(PercentileSpec),
    /// Stops what improves no more.
    Patience(PatienceSpec),
    /// Stops what is worse than a fixed loss.
    Threshold(ThresholdSpec),
    /// Population-based training.
    Population(PopulationSpec),
}

/// A scheduler with what it knows.
#[derive(Clone, Debug)]
pub enum Scheduler {
    /// Every trial gets its full budget.
    None(Unscheduled),
    /// Asynchronous successive halving.
    Asha(Asha),
    /// Brackets of successive halving.
    Hyperband(Hyperband),
    /// The median and the percentile rule.
    Percentile(Percentile),
    /// Stops what improves no more.
    Patience(Patience),
    /// Stops what is worse than a fixed loss.
    Threshold(Threshold),
    /// Population-based training.
    Population(Population),
}

impl SchedulerSpec {
    /// The budget of a trial that is never stopped.
    pub fn max(&self) -> u64 {
        match self {
            SchedulerSpec::None(spec) => spec.max,
            SchedulerSpec::Asha(spec) => spec.max,
            SchedulerSpec::Hyperband(spec) => spec.max,
            SchedulerSpec::Median(spec) => spec.max,
            SchedulerSpec::Percentile(spec) => spec.max,
            SchedulerSpec::Patience(spec) => spec.max,
            SchedulerSpec::Threshold(spec) => spec.max,
            SchedulerSpec::Population(spec) => spec.max,
        }
    }
}

impl Scheduler {
    /// A scheduler that has seen nothing yet.
    pub fn new(spec: &SchedulerSpec, seed: u64) -> Self {
        match spec {
            SchedulerSpec::None(spec) => Scheduler::None(Unscheduled::new(spec)),
            SchedulerSpec::Asha(spec) => Scheduler::Asha(Asha::new(spec)),
            SchedulerSpec::Hyperband(spec) => Scheduler::Hyperband(Hyperband::new(spec)),
            SchedulerSpec::Median(spec) => Scheduler::Percentile(Percentile::new(&spec.as_percentile())),
            SchedulerSpec::Percentile(spec) => Scheduler::Percentile(Percentile::new(spec)),
            SchedulerSpec::Patience(spec) => Scheduler::Patience(Patience::new(spec)),
            SchedulerSpec::Threshold(spec) => Scheduler::Threshold(Threshold::new(spec)),
            SchedulerSpec::Population(spec) => Scheduler::Population(Population::new(spec, seed)),
        }
    }

    /// Whether there is room for another trial that a searcher proposes.
    pub fn admits(&self) -> bool {
        match self {
            Scheduler::Population(population) => population.admits(),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => true,
        }
    }

    /// A trial begins; the budget of its first rest.
    pub fn start(&mut self, trial: u32) -> u64 {
        match self {
            Scheduler::None(none) => none.max(),
            Scheduler::Asha(asha) => asha.start(),
            Scheduler::Hyperband(hyperband) => hyperband.start(trial),
            Scheduler::Percentile(percentile) => percentile.start(),
            Scheduler::Patience(patience) => patience.start(),
            Scheduler::Threshold(threshold) => threshold.start(),
            Scheduler::Population(population) => population.start(trial),
        }
    }

    /// A trial to be made from another one, which comes before any that a searcher proposes. [`Scheduler::bear`] follows.
    pub fn birth(&self) -> Option<Birth> {
        match self {
            Scheduler::Population(population) => population.birth(),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => None,
        }
    }

    /// The trial that [`Scheduler::birth`] told of begins under this number, from the point of its parent; its own point and
    /// the budget of its first rest.
    ///
    /// # Panics
    /// If there is none.
    pub fn bear(&mut self, trial: u32, parent_point: &[f64], space: &Space) -> (Vec<f64>, u64) {
        match self {
            Scheduler::Population(population) => population.bear(trial, parent_point, space),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => panic!("only populations have births"),
        }
    }

    /// A loss on the way to the next rest.
    pub fn measured(&mut self, trial: u32, loss: f64) {
        match self {
            Scheduler::Percentile(percentile) => percentile.measured(trial, loss),
            Scheduler::Patience(patience) => patience.measured(trial, loss),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Threshold(_)
            | Scheduler::Population(_) => {}
        }
    }

    /// A trial rests at a budget with this loss.
    pub fn rested(&mut self, trial: u32, budget: u64, loss: f64) -> Decision {
        match self {
            Scheduler::None(none) => none.rested(budget),
            Scheduler::Asha(asha) => asha.rested(trial, budget, loss),
            Scheduler::Hyperband(hyperband) => hyperband.rested(trial, budget, loss),
            Scheduler::Percentile(percentile) => percentile.rested(trial, budget, loss),
            Scheduler::Patience(patience) => patience.rested(trial, budget, loss),
            Scheduler::Threshold(threshold) => threshold.rested(budget, loss),
            Scheduler::Population(population) => population.rested(trial, budget, loss),
        }
    }

    /// The trial will not come back.
    pub fn failed(&mut self, trial: u32) {
        match self {
            Scheduler::Hyperband(hyperband) => hyperband.failed(trial),
            Scheduler::Population(population) => population.failed(trial),
            Scheduler::Percentile(percentile) => percentile.forget(trial),
            Scheduler::Patience(patience) => patience.forget(trial),
            Scheduler::None(_) | Scheduler::Asha(_) | Scheduler::Threshold(_) => {}
        }
    }

    /// The paused trial that goes on next, and the budget of its next rest.
    pub fn promotable(&self) -> Option<(u32, u64)> {
        match self {
            Scheduler::Asha(asha) => asha.promotable(),
            Scheduler::Hyperband(hyperband) => hyperband.promotable(),
            Scheduler::Population(population) => population.promotable(),
            Scheduler::None(_) | Scheduler::Percentile(_) | Scheduler::Patience(_) | Scheduler::Threshold(_) => None,
        }
    }

    /// The trial that [`Scheduler::promotable`] named goes on.
    pub fn promote(&mut self) {
        match self {
            Scheduler::Asha(asha) => asha.promote(),
            Scheduler::Hyperband(hyperband) => hyperband.promote(),
            Scheduler::Population(population) => population.promote(),
            Scheduler::None(_) | Scheduler::Percentile(_) | Scheduler::Patience(_) | Scheduler::Threshold(_) => {}
        }
    }

    /// A paused trial that will not go on; each is told once.
    pub fn pop_end(&mut self) -> Option<(u32, StopReason)> {
        match self {
            Scheduler::Hyperband(hyperband) => hyperband.pop_end(),
            Scheduler::Population(population) => population.pop_end(),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => None,
        }
    }

    /// The checkpoints from which trials are to be made.
    pub fn parents(&self) -> Vec<Parent> {
        match self {
            Scheduler::Population(population) => population.parents(),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => Vec::new(),
        }
    }

    /// The birth that [`Scheduler::birth`] told of does not take place.
    pub fn refuse_birth(&mut self) {
        match self {
            Scheduler::Population(population) => population.refuse_birth(),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => {}
        }
    }

    /// No searcher's proposal will start any more: what waits for others waits in vain.
    pub fn no_more_proposals(&mut self) {
        match self {
            Scheduler::Hyperband(hyperband) => hyperband.no_more_proposals(),
            Scheduler::Population(population) => population.no_more_proposals(),
            Scheduler::None(_)
            | Scheduler::Asha(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_) => {}
        }
    }

    /// Why a trial that is still paused at the end of the sweep, at this budget, did not go on.
    pub fn leftover(&self, trial: u32, budget: u64) -> StopReason {
        let reason = match self {
            Scheduler::Asha(asha) => asha.leftover(trial),
            Scheduler::None(_)
            | Scheduler::Hyperband(_)
            | Scheduler::Percentile(_)
            | Scheduler::Patience(_)
            | Scheduler::Threshold(_)
            | Scheduler::Population(_) => None,
        };
        reason.unwrap_or(StopReason::SweepEnded { budget })
    }
}

/// The next multiple of `interval` after `budget`, at most `max`.
fn next_rest(budget: u64, interval: u64, max: u64) -> u64 {
    let interval = interval.max(1);
    (budget / interval + 1).saturating_mul(interval).min(max)
}

#[cfg(test)]
mod tests;
