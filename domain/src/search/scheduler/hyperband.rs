use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::rung::Rung;
use super::{Decision, StopReason};

/// Options of Hyperband.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HyperbandSpec {
    /// The least budget after which trials are compared.
    pub min: u64,
    /// The budget of a trial that is never stopped.
    pub max: u64,
    /// One of so many goes on from a rung to the next; at least 2.
    pub eta: u32,
}

impl Default for HyperbandSpec {
    fn default() -> Self {
        Self { min: 1, max: 81, eta: 3 }
    }
}

/// Hyperband (Li et al. 2018, JMLR 18(185), Algorithm 1), without its barriers between brackets.
///
/// Trials fill the brackets one after the other, the one with the smallest first budget first, and begin anew after the
/// last. In a bracket a rung is decided when all its trials have rested or failed, so decisions are those of the paper; but
/// nobody waits for that, free slots begin the next bracket meanwhile. When no trial will start any more, the bracket that
/// is being filled is decided with those it has.
#[derive(Clone, Debug)]
pub struct Hyperband {
    eta: u32,
    plan: Vec<Vec<(u32, u64)>>,
    brackets: Vec<Bracket>,
    /// In which bracket and rung the trials are that may still go on.
    places: BTreeMap<u32, (usize, usize)>,
    promotions: VecDeque<(u32, u64)>,
    ends: VecDeque<(u32, StopReason)>,
}

#[derive(Clone, Debug)]
struct Bracket {
    budgets: Vec<u64>,
    size: u32,
    started: u32,
    rungs: Vec<Rung>,
    /// How many results a rung waits for.
    expected: Vec<usize>,
}

/// The brackets in their order, each with its rungs: how many trials, and with what budget.
pub fn bracket_sizes(min: u64, max: u64, eta: u32) -> Vec<Vec<(u32, u64)>> {
    let (min, eta) = (min.max(1), u64::from(eta.max(2)));
    let mut powers = vec![1u64];
    while let Some(power) = powers.last().and_then(|last| last.checked_mul(eta)) {
        if power.checked_mul(min).is_none_or(|least| least > max) {
            break;
        }
        powers.push(power);
    }
    let count = powers.len() as u64;
    let bracket = |s: usize| {
        let size = count.saturating_mul(powers[s]).div_ceil(s as u64 + 1);
        let rung = |i: usize| ((size / powers[i]).min(u64::from(u32::MAX)) as u32, (max / powers[s - i]).max(1));
        (0..=s).map(rung).collect()
    };
    (0..powers.len()).rev().map(bracket).collect()
}

impl Hyperband {
    /// Empty brackets.
    pub fn new(spec: &HyperbandSpec) -> Self {
        Self {
            eta: spec.eta.max(2),
            plan: bracket_sizes(spec.min, spec.max, spec.eta),
            brackets: Vec::new(),
            places: BTreeMap::new(),
            promotions: VecDeque::new(),
            ends: VecDeque::new(),
        }
    }

    pub(super) fn start(&mut self, trial: u32) -> u64 {
        if self.brackets.last().is_none_or(|bracket| bracket.started == bracket.size) {
            let plan = &self.plan[self.brackets.len() % self.plan.len()];
            let rungs = vec![Rung::default(); plan.len()];
            let budgets = plan.iter().map(|rung| rung.1).collect();
            let size = plan[0].0;
            self.brackets.push(Bracket { budgets, size, started: 0, rungs, expected: vec![size as usize] });
        }
        let index = self.brackets.len() - 1;
        let bracket = &mut self.brackets[index];
        bracket.started += 1;
        self.places.insert(trial, (index, 0));
        bracket.budgets[0]
    }

    pub(super) fn rested(&mut self, trial: u32, budget: u64, loss: f64) -> Decision {
        let Some(&(index, rung)) = self.places.get(&trial) else { return Decision::Pause };
        let bracket = &mut self.brackets[index];
        bracket.rungs[rung].insert(trial, loss);
        let is_top = rung + 1 == bracket.budgets.len();
        let decision = if is_top {
            Decision::Complete
        } else if loss.is_finite() {
            bracket.rungs[rung].wait(trial, loss);
            Decision::Pause
        } else {
            Decision::Stop(StopReason::NotFinite { budget, loss: loss.into() })
        };
        if decision != Decision::Pause {
            self.places.remove(&trial);
        }
        self.decide(index, rung);
        decision
    }

    pub(super) fn failed(&mut self, trial: u32) {
        let Some((index, rung)) = self.places.remove(&trial) else { return };
        self.brackets[index].rungs[rung].insert(trial, f64::NAN);
        self.decide(index, rung);
    }

    pub(super) fn promotable(&self) -> Option<(u32, u64)> {
        self.promotions.front().copied()
    }

    pub(super) fn promote(&mut self) {
        self.promotions.pop_front();
    }

    pub(super) fn pop_end(&mut self) -> Option<(u32, StopReason)> {
        self.ends.pop_front()
    }

    pub(super) fn no_more_proposals(&mut self) {
        let Some(index) = self.brackets.len().checked_sub(1) else { return };
        let bracket = &mut self.brackets[index];
        if bracket.started < bracket.size {
            bracket.size = bracket.started;
            bracket.expected[0] = bracket.started as usize;
            self.decide(index, 0);
        }
    }

    /// Promotes the best of a rung and ends the others, once all results are there.
    fn decide(&mut self, index: usize, rung: usize) {
        let bracket = &mut self.brackets[index];
        let is_complete = bracket.expected.get(rung) == Some(&bracket.rungs[rung].len());
        if !is_complete || rung + 1 == bracket.budgets.len() {
            return;
        }
        let results = std::mem::take(&mut bracket.rungs[rung]);
        let kept = results.len() / self.eta as usize;
        let mut promoted = 0;
        for (place, (trial, loss)) in results.iter().enumerate() {
            if !loss.is_finite() {
                continue;
            }
            if place < kept {
                promoted += 1;
                self.promotions.push_back((trial, bracket.budgets[rung + 1]));
                self.places.insert(trial, (index, rung + 1));
            } else {
                let comparison = results.compare(trial, loss, rung, bracket.budgets[rung], kept);
                self.ends.push_back((trial, StopReason::NotPromoted(Box::new(comparison))));
                self.places.remove(&trial);
            }
        }
        bracket.expected.push(promoted);
    }
}
