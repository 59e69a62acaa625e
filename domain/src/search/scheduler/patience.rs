use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Decision, StopReason, next_rest};

/// Options of the patience rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatienceSpec {
    /// The budget of a trial that is never stopped.
    pub max: u64,
    /// Trials rest at the multiples of this.
    pub interval: u64,
    /// Nothing stops before this budget.
    pub warm_up: u64,
    /// A trial stops after so many evaluations without an improvement; at least 1.
    pub evaluations: u32,
    /// The least change that counts as an improvement.
    pub min_delta: f64,
}

impl Default for PatienceSpec {
    fn default() -> Self {
        Self { max: 100, interval: 1, warm_up: 0, evaluations: 5, min_delta: 0.0 }
    }
}

/// Stops a trial whose loss improves no more. Evaluations on the way count; the verdict falls at the next rest.
#[derive(Clone, Debug)]
pub struct Patience {
    spec: PatienceSpec,
    states: BTreeMap<u32, State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    best: f64,
    without_improvement: u32,
}

impl Patience {
    /// A rule that has seen nothing yet.
    pub fn new(spec: &PatienceSpec) -> Self {
        Self { spec: spec.clone(), states: BTreeMap::new() }
    }

    pub(super) fn start(&self) -> u64 {
        next_rest(0, self.spec.interval, self.spec.max)
    }

    pub(super) fn measured(&mut self, trial: u32, loss: f64) {
        let state = self.states.entry(trial).or_insert(State { best: f64::INFINITY, without_improvement: 0 });
        if loss.is_finite() && loss < state.best - self.spec.min_delta {
            *state = State { best: loss, without_improvement: 0 };
        } else {
            state.without_improvement += 1;
        }
    }

    pub(super) fn rested(&mut self, trial: u32, budget: u64, loss: f64) -> Decision {
        self.measured(trial, loss);
        let state = self.states[&trial];
        let evaluations = state.without_improvement;
        let decision = if budget >= self.spec.max {
            Decision::Complete
        } else if budget >= self.spec.warm_up && evaluations >= self.spec.evaluations.max(1) {
            let (best, last) = (state.best.into(), loss.into());
            Decision::Stop(StopReason::Patience { budget, evaluations, best, last })
        } else {
            return Decision::Continue { target: next_rest(budget, self.spec.interval, self.spec.max) };
        };
        self.forget(trial);
        decision
    }

    pub(super) fn forget(&mut self, trial: u32) {
        self.states.remove(&trial);
    }
}
