use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rung::Rung;
use super::{Decision, StopReason};

/// Options of asynchronous successive halving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AshaSpec {
    /// The budget of the lowest rung.
    pub min: u64,
    /// The budget of the highest rung.
    pub max: u64,
    /// One of so many goes on from a rung to the next, whose budget is so many times as large; at least 2.
    pub eta: u32,
    /// What happens to those that do not go on.
    pub mode: Mode,
}

/// What happens to a trial that is not among the best of its rung.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It stops at once. Needs no checkpoint to come back to; early trials go far because they have few peers.
    Stop,
    /// It pauses, and goes on if it turns out to be among the best once the rung has more trials.
    #[default]
    Pause,
}

impl Default for AshaSpec {
    fn default() -> Self {
        Self { min: 1, max: 81, eta: 3, mode: Mode::Pause }
    }
}

/// Asynchronous successive halving (Li et al. 2018, arXiv:1810.05934, Algorithm 2).
///
/// With `n` results in a rung, its best `floor(n / eta)` go on, ties by the earlier trial, the highest rung first. In mode
/// `stop` a trial goes on at once if it is among the best `max(1, floor(n / eta))` when it arrives, or else stops for good.
#[derive(Clone, Debug)]
pub struct Asha {
    budgets: Vec<u64>,
    eta: u32,
    mode: Mode,
    rungs: Vec<Rung>,
    /// Where the paused trials are, and with which loss.
    paused: BTreeMap<u32, (usize, f64)>,
}

/// The budgets of the rungs: `min`, `min * eta`, `min * eta^2`, .. below `max`, and `max`.
pub fn rung_budgets(min: u64, max: u64, eta: u32) -> Vec<u64> {
    let next = |budget: &u64| budget.checked_mul(u64::from(eta.max(2)));
    let below = std::iter::successors(Some(min.max(1)), next).take_while(|budget| *budget < max);
    below.chain([max.max(1)]).collect()
}

impl Asha {
    /// A ladder with empty rungs.
    pub fn new(spec: &AshaSpec) -> Self {
        let budgets = rung_budgets(spec.min, spec.max, spec.eta);
        let rungs = vec![Rung::default(); budgets.len()];
        Self { budgets, eta: spec.eta.max(2), mode: spec.mode, rungs, paused: BTreeMap::new() }
    }

    pub(super) fn start(&self) -> u64 {
        self.budgets[0]
    }

    pub(super) fn rested(&mut self, trial: u32, budget: u64, loss: f64) -> Decision {
        let rung = self.budgets.partition_point(|other| *other < budget).min(self.budgets.len() - 1);
        self.rungs[rung].insert(trial, loss);
        if rung + 1 == self.budgets.len() {
            return Decision::Complete;
        }
        if !loss.is_finite() {
            return Decision::Stop(StopReason::NotFinite { budget, loss: loss.into() });
        }
        match self.mode {
            Mode::Pause => {
                self.rungs[rung].wait(trial, loss);
                self.paused.insert(trial, (rung, loss));
                Decision::Pause
            }
            Mode::Stop => {
                let kept = self.kept(rung).max(1);
                if self.rungs[rung].place(trial, loss) < kept {
                    return Decision::Continue { target: self.budgets[rung + 1] };
                }
                let comparison = self.rungs[rung].compare(trial, loss, rung, budget, kept);
                Decision::Stop(StopReason::BelowCut(Box::new(comparison)))
            }
        }
    }

    pub(super) fn promotable(&self) -> Option<(u32, u64)> {
        let below_the_top = 0..self.budgets.len() - 1;
        below_the_top
            .rev()
            .find_map(|rung| self.rungs[rung].promotable(self.kept(rung)).map(|trial| (trial, self.budgets[rung + 1])))
    }

    pub(super) fn promote(&mut self) {
        if let Some((trial, _)) = self.promotable() {
            let (rung, loss) = self.paused.remove(&trial).expect("a promotable trial is paused");
            self.rungs[rung].leave(trial, loss);
        }
    }

    pub(super) fn leftover(&self, trial: u32) -> Option<StopReason> {
        let (rung, loss) = *self.paused.get(&trial)?;
        let kept = self.kept(rung);
        if self.rungs[rung].place(trial, loss) < kept {
            return None;
        }
        let comparison = self.rungs[rung].compare(trial, loss, rung, self.budgets[rung], kept);
        Some(StopReason::NotPromoted(Box::new(comparison)))
    }

    fn kept(&self, rung: usize) -> usize {
        self.rungs[rung].len() / self.eta as usize
    }
}
