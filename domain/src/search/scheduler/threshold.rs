use serde::{Deserialize, Serialize};

use super::{Decision, StopReason, next_rest};

/// Options of the threshold rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThresholdSpec {
    /// The budget of a trial that is never stopped.
    pub max: u64,
    /// Trials rest at the multiples of this.
    pub interval: u64,
    /// Nothing stops before this budget.
    pub warm_up: u64,
    /// The worst loss with which a trial goes on; without one, every finite loss does.
    pub limit: Option<f64>,
}

impl Default for ThresholdSpec {
    fn default() -> Self {
        Self { max: 100, interval: 1, warm_up: 0, limit: None }
    }
}

/// Stops a trial whose loss is not finite or worse than a fixed one.
#[derive(Clone, Debug)]
pub struct Threshold {
    spec: ThresholdSpec,
}

impl Threshold {
    /// A rule.
    pub fn new(spec: &ThresholdSpec) -> Self {
        Self { spec: spec.clone() }
    }

    pub(super) fn start(&self) -> u64 {
        next_rest(0, self.spec.interval, self.spec.max)
    }

    pub(super) fn rested(&self, budget: u64, loss: f64) -> Decision {
        if budget >= self.spec.max {
            return Decision::Complete;
        }
        let is_watched = budget >= self.spec.warm_up;
        match self.spec.limit {
            _ if is_watched && !loss.is_finite() => Decision::Stop(StopReason::NotFinite { budget, loss: loss.into() }),
            Some(limit) if is_watched && loss > limit => {
                Decision::Stop(StopReason::Threshold { budget, loss: loss.into(), limit: limit.into() })
            }
            _ => Decision::Continue { target: next_rest(budget, self.spec.interval, self.spec.max) },
        }
    }
}
