use serde::{Deserialize, Serialize};

use super::percentile::{PercentileSpec, Statistic};

/// Options of the median rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MedianSpec {
    /// The budget of a trial that is never stopped.
    pub max: u64,
    /// Trials rest at the multiples of this.
    pub interval: u64,
    /// Nothing stops before this budget.
    pub warm_up: u64,
    /// Nothing stops with fewer peers than this.
    pub min_trials: u32,
    /// What of the peers is compared with the best loss of the trial.
    pub peers: Statistic,
}

impl Default for MedianSpec {
    fn default() -> Self {
        Self { max: 100, interval: 1, warm_up: 0, min_trials: 5, peers: Statistic::RunningAverage }
    }
}

impl MedianSpec {
    /// The percentile rule that it is: the median stopping rule of Golovin et al. 2017, section 3.2.2.
    pub(super) fn as_percentile(&self) -> PercentileSpec {
        PercentileSpec {
            max: self.max,
            interval: self.interval,
            warm_up: self.warm_up,
            min_trials: self.min_trials,
            percentile: 50.0,
            peers: self.peers,
        }
    }
}
