use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reason::Comparison;
use super::rung::Rung;
use super::{Decision, StopReason, next_rest};

/// Options of the percentile rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PercentileSpec {
    /// The budget of a trial that is never stopped.
    pub max: u64,
    /// Trials rest at the multiples of this.
    pub interval: u64,
    /// Nothing stops before this budget.
    pub warm_up: u64,
    /// Nothing stops with fewer peers than this.
    pub min_trials: u32,
    /// A trial goes on if it is at least as good as this percentile of its peers, in 0..=100; 25 keeps the best quarter.
    pub percentile: f64,
    /// What of the peers is compared with the best loss of the trial.
    pub peers: Statistic,
}

/// What stands for the losses of a trial up to a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Their mean, which is not finite if one of them is not.
    #[default]
    RunningAverage,
    /// The least.
    BestSoFar,
}

impl Default for PercentileSpec {
    fn default() -> Self {
        let peers = Statistic::BestSoFar;
        Self { max: 100, interval: 1, warm_up: 0, min_trials: 5, percentile: 25.0, peers }
    }
}

/// Stops a trial whose best loss so far is worse than a percentile of its peers at the same budget. Peers are all other
/// trials that have rested there before, whatever became of them; between two of them the percentile is interpolated.
#[derive(Clone, Debug)]
pub struct Percentile {
    spec: PercentileSpec,
    rungs: BTreeMap<u64, Rung>,
    curves: BTreeMap<u32, Curve>,
}

#[derive(Clone, Copy, Debug)]
struct Curve {
    best: f64,
    sum: f64,
    count: u32,
}

impl Percentile {
    /// A rule that has seen nothing yet.
    pub fn new(spec: &PercentileSpec) -> Self {
        Self { spec: spec.clone(), rungs: BTreeMap::new(), curves: BTreeMap::new() }
    }

    pub(super) fn start(&self) -> u64 {
        next_rest(0, self.spec.interval, self.spec.max)
    }

    pub(super) fn measured(&mut self, trial: u32, loss: f64) {
        let curve = self.curves.entry(trial).or_insert(Curve { best: f64::INFINITY, sum: 0.0, count: 0 });
        curve.sum += loss;
        curve.count += 1;
        if loss.is_finite() && loss < curve.best {
            curve.best = loss;
        }
    }

    pub(super) fn rested(&mut self, trial: u32, budget: u64, loss: f64) -> Decision {
        self.measured(trial, loss);
        let curve = self.curves[&trial];
        let index = self.rungs.range(..budget).count();
        let rung = self.rungs.entry(budget).or_default();
        let verdict = verdict(&self.spec, rung, trial, curve.best, index, budget);
        rung.insert(trial, self.spec.peers.of(curve));
        let decision = match verdict {
            _ if budget >= self.spec.max => Decision::Complete,
            Some(reason) => Decision::Stop(reason),
            None => return Decision::Continue { target: next_rest(budget, self.spec.interval, self.spec.max) },
        };
        self.forget(trial);
        decision
    }

    pub(super) fn forget(&mut self, trial: u32) {
        self.curves.remove(&trial);
    }
}

/// Why the trial stops, if it does; the rung holds its peers only.
fn verdict(spec: &PercentileSpec, rung: &Rung, trial: u32, best: f64, index: usize, budget: u64) -> Option<StopReason> {
    if budget < spec.warm_up {
        return None;
    }
    if !best.is_finite() {
        return Some(StopReason::NotFinite { budget, loss: best.into() });
    }
    if rung.len() == 0 || rung.len() < spec.min_trials as usize {
        return None;
    }
    let cutoff = interpolate(rung, spec.percentile);
    (best > cutoff).then(|| {
        let comparison = rung.compare(trial, best, index, budget, 0);
        let kept = rung.at_most(cutoff) as u32;
        let comparison = Comparison { of: comparison.of + 1, kept, cutoff: cutoff.into(), ..comparison };
        StopReason::WorseThanPeers(Box::new(comparison))
    })
}

/// The percentile of the losses, linear between neighbours; infinite where there is none that is finite.
fn interpolate(rung: &Rung, percentile: f64) -> f64 {
    let position = (percentile / 100.0).clamp(0.0, 1.0) * (rung.len() - 1) as f64;
    let below = libm::floor(position);
    let (low, high) = (rung.loss(below as usize), rung.loss(below as usize + 1));
    let share = position - below;
    match (low.is_finite(), high.is_finite()) {
        (false, _) => f64::INFINITY,
        (true, false) => low,
        (true, true) => low + share * (high - low),
    }
}

impl Statistic {
    fn of(self, curve: Curve) -> f64 {
        match self {
            Statistic::RunningAverage => curve.sum / f64::from(curve.count),
            Statistic::BestSoFar => curve.best,
        }
    }
}
