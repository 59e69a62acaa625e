//! Population-based training (Jaderberg et al. 2017, arXiv:1711.09846).
//!
//! A population of fixed size trains in generations: every member trains for one interval and pauses; when all have, the
//! worst are replaced by copies of the best whose hyperparameters are changed a little, and the next generation begins.
//! Jaderberg's members do not wait for each other; these do, because then neither their number of slots nor their timing
//! reaches a decision, and a comparison is always made at one budget. It costs the slots of a generation's last members.
//!
//! A copy is a trial of its own, with a new number and a parent: the old trial ends with
//! [`StopReason::Exploited`].

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::random::{Purpose, Stream};
use crate::search::scheduler::{Comparison, Decision, PEERS_LISTED_MAX, StopReason};
use crate::search::space::{Choice, Domain, Space, Value};

/// Options of population-based training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PopulationSpec {
    /// Members that train at a time; at least 2.
    pub size: u32,
    /// The budget of a generation.
    pub interval: u64,
    /// The budget at which members are complete.
    pub max: u64,
    /// The share of the population that is replaced, and likewise the share that is copied; in (0, 0.5].
    pub quantile: f64,
    /// The probability that a copied parameter is drawn anew instead of perturbed.
    pub resample: f64,
    /// A perturbed number is multiplied by one of these; a choice in an order moves to a neighbour instead.
    pub factors: Vec<f64>,
}

impl Default for PopulationSpec {
    fn default() -> Self {
        Self { size: 16, interval: 5, max: 100, quantile: 0.25, resample: 0.25, factors: vec![0.8, 1.2] }
    }
}

/// The checkpoint from which a trial begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Parent {
    /// The trial that made it.
    pub trial: u32,
    /// The budget at which it rested.
    pub budget: u64,
}

/// A trial that is to be made from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// What it begins from.
    pub parent: Parent,
    /// The budget of its first rest.
    pub target: u64,
}

/// A population with what it knows.
#[derive(Clone, Debug)]
pub struct Population {
    spec: PopulationSpec,
    seed: u64,
    generation: u64,
    is_full: bool,
    /// The living members.
    members: BTreeMap<u32, Member>,
    births: VecDeque<Parent>,
    resumes: VecDeque<u32>,
    ends: VecDeque<(u32, StopReason)>,
    /// Members that failed in this generation; each is replaced with it.
    vacancies: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Member {
    Training,
    Resting(f64),
}

/// What a stream of random numbers is for, beside the trial's number.
const CHOOSE_PARENT: u64 = 0x5042_5401;
const EXPLORE: u64 = 0x5042_5402;

impl Population {
    /// A population without members. `seed` determines who is copied, and what is changed.
    pub fn new(spec: &PopulationSpec, seed: u64) -> Self {
        Self {
            spec: spec.clone(),
            seed,
            generation: 0,
            is_full: false,
            members: BTreeMap::new(),
            births: VecDeque::new(),
            resumes: VecDeque::new(),
            ends: VecDeque::new(),
            vacancies: 0,
        }
    }

    pub(super) fn admits(&self) -> bool {
        let count = self.members.len() as u32 + self.vacancies;
        self.generation == 0 && !self.is_full && count < self.spec.size.max(2)
    }

    pub(super) fn start(&mut self, trial: u32) -> u64 {
        self.members.insert(trial, Member::Training);
        self.target()
    }

    pub(super) fn birth(&self) -> Option<Birth> {
        self.births.front().map(|parent| Birth { parent: *parent, target: self.target() })
    }

    pub(super) fn parents(&self) -> Vec<Parent> {
        self.births.iter().copied().collect()
    }

    pub(super) fn bear(&mut self, trial: u32, parent_point: &[f64], space: &Space) -> (Vec<f64>, u64) {
        self.births.pop_front().expect("a birth was announced");
        (self.explore(trial, parent_point, space), self.start(trial))
    }

    pub(super) fn rested(&mut self, trial: u32, budget: u64, loss: f64) -> Decision {
        if budget >= self.spec.max {
            self.members.remove(&trial);
            return Decision::Complete;
        }
        if let Some(member) = self.members.get_mut(&trial) {
            *member = Member::Resting(loss);
        }
        self.turn();
        Decision::Pause
    }

    pub(super) fn failed(&mut self, trial: u32) {
        if self.members.remove(&trial).is_some() {
            self.vacancies += 1;
            self.turn();
        }
    }

    pub(super) fn promotable(&self) -> Option<(u32, u64)> {
        self.resumes.front().map(|trial| (*trial, self.target()))
    }

    pub(super) fn promote(&mut self) {
        self.resumes.pop_front();
    }

    pub(super) fn pop_end(&mut self) -> Option<(u32, StopReason)> {
        self.ends.pop_front()
    }

    /// The population stays as small as it is.
    pub(super) fn no_more_proposals(&mut self) {
        if !self.is_full {
            self.is_full = true;
            self.turn();
        }
    }

    /// The birth that [`Population::birth`] told of does not take place; the population shrinks.
    pub(super) fn refuse_birth(&mut self) {
        self.births.pop_front();
        self.turn();
    }

    /// The budget at which the present generation rests.
    fn target(&self) -> u64 {
        let interval = self.spec.interval.max(1);
        (self.generation + 1).saturating_mul(interval).min(self.spec.max.max(1))
    }

    /// Begins the next generation if all members of this one rest.
    fn turn(&mut self) {
        let is_waiting = self.admits() || !self.births.is_empty() || !self.resumes.is_empty();
        let mut resting: Vec<(u32, f64)> = Vec::new();
        for (trial, member) in &self.members {
            match member {
                Member::Training => return,
                Member::Resting(loss) => resting.push((*trial, *loss)),
            }
        }
        if is_waiting || resting.is_empty() {
            return;
        }
        let budget = self.target();
        let badness = |loss: f64| if loss.is_finite() { loss } else { f64::INFINITY };
        resting.sort_by(|a, b| badness(a.1).total_cmp(&badness(b.1)).then(a.0.cmp(&b.0)));
        let count = resting.len();
        let replaced = ((self.spec.quantile * count as f64) as usize).min(count / 2);
        let best: Vec<u32> = resting[..replaced.max(1)].iter().filter(|m| m.1.is_finite()).map(|m| m.0).collect();
        self.generation += 1;
        for (place, (trial, loss)) in resting.iter().enumerate() {
            let is_bad = place >= count - replaced || !loss.is_finite();
            if !is_bad {
                self.resumes.push_back(*trial);
                continue;
            }
            self.members.remove(trial);
            let reason = match self.choose(&best, *trial) {
                None => StopReason::NotFinite { budget, loss: (*loss).into() },
                Some(by) => {
                    self.births.push_back(Parent { trial: by, budget });
                    let comparison = compare(&resting, place, self.generation - 1, budget, count - replaced);
                    StopReason::Exploited { by, comparison: Box::new(comparison) }
                }
            };
            self.ends.push_back((*trial, reason));
        }
        for vacancy in 0..std::mem::take(&mut self.vacancies) {
            if let Some(by) = self.choose(&best, u32::MAX - vacancy) {
                self.births.push_back(Parent { trial: by, budget });
            }
        }
        for trial in &self.resumes {
            self.members.insert(*trial, Member::Training);
        }
    }

    /// One of the best, in the place of `trial`.
    fn choose(&self, best: &[u32], trial: u32) -> Option<u32> {
        let coordinates = [u64::from(trial), CHOOSE_PARENT, self.generation];
        let bound = (!best.is_empty()).then_some(best.len() as u64)?;
        Some(best[Stream::new(self.seed, Purpose::Search, &coordinates).below(bound) as usize])
    }

    /// A point near `point`, for this trial.
    fn explore(&self, trial: u32, point: &[f64], space: &Space) -> Vec<f64> {
        let mut stream = Stream::new(self.seed, Purpose::Search, &[u64::from(trial), EXPLORE]);
        let changed = |(parameter, u): (&crate::search::Parameter, &f64)| {
            // The same numbers are drawn for every parameter, whatever becomes of them.
            let (fate, fresh, pick) = (stream.uniform_f64(), stream.uniform_f64(), stream.uniform_f64());
            if parameter.domain.choice() == Choice::Fixed {
                *u
            } else if fate < self.spec.resample {
                fresh
            } else {
                perturb(&parameter.domain, *u, pick, &self.spec.factors)
            }
        };
        space.parameters().iter().zip(point).map(changed).collect()
    }
}

/// A neighbour of a coordinate, chosen by `pick` in `[0, 1)`.
fn perturb(domain: &Domain, u: f64, pick: f64, factors: &[f64]) -> f64 {
    match domain {
        Domain::Constant { .. } | Domain::Categorical { .. } => u,
        Domain::Integer { .. } | Domain::Ordinal { .. } => {
            let Choice::Ordered(cells) = domain.choice() else { return u };
            let cell = ((u * cells as f64) as u64).min(cells - 1);
            let neighbour = if pick < 0.5 { cell.saturating_sub(1) } else { (cell + 1).min(cells - 1) };
            (neighbour as f64 + 0.5) / cells as f64
        }
        Domain::Uniform { low, high } | Domain::LogUniform { low, high } => {
            let (Some(x), false) = (domain.at(u).as_number(), factors.is_empty()) else { return u };
            let value = Value::Number((x * factor(factors, pick)).clamp(*low, *high));
            domain.coordinate(&value).unwrap_or(u)
        }
        Domain::LogInteger { low, high } => {
            let (Some(x), false) = (domain.at(u).as_number(), factors.is_empty()) else { return u };
            let factor = factor(factors, pick);
            let scaled = libm::round(x * factor);
            // A small number moves by one at least, or else it would never move.
            let moved = if scaled == x && factor != 1.0 { x + (factor - 1.0).signum() } else { scaled };
            domain.coordinate(&Value::Integer((moved as i64).clamp(*low, *high))).unwrap_or(u)
        }
    }
}

fn factor(factors: &[f64], pick: f64) -> f64 {
    factors[((pick * factors.len() as f64) as usize).min(factors.len() - 1)]
}

/// How the member at `place` stands in its generation, of which the best `kept` are not replaced.
fn compare(resting: &[(u32, f64)], place: usize, generation: u64, budget: u64, kept: usize) -> Comparison {
    let others = resting.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, member)| member.0);
    Comparison {
        rung: generation as u32,
        budget,
        loss: resting[place].1.into(),
        rank: place as u32 + 1,
        of: resting.len() as u32,
        kept: kept as u32,
        cutoff: kept.checked_sub(1).map_or(f64::NAN, |last| resting[last].1).into(),
        peers: others.take(PEERS_LISTED_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Parameter;

    fn space() -> Space {
        let words = ["a", "b", "c"].map(|w| Value::Text(w.to_owned())).to_vec();
        let domains = [
            Domain::LogUniform { low: 1e-4, high: 1.0 },
            Domain::Ordinal { values: words.clone() },
            Domain::Categorical { values: words },
            Domain::LogInteger { low: 1, high: 8 },
            Domain::Constant { value: Value::Boolean(true) },
        ];
        let parameter = |(i, domain): (usize, Domain)| Parameter { path: format!("p{i}"), domain, when: None };
        Space::new(domains.into_iter().enumerate().map(parameter).collect())
    }

    #[test]
    fn the_worst_are_replaced_by_copies_of_the_best() {
        let spec = PopulationSpec { size: 4, interval: 5, max: 20, resample: 0.0, ..PopulationSpec::default() };
        let mut population = Population::new(&spec, 1);
        assert!((0..4).all(|trial| population.admits() && population.start(trial) == 5));
        assert!(!population.admits());
        for (trial, loss) in [(3, 1.0), (0, 2.0), (1, f64::NAN)] {
            assert_eq!(population.rested(trial, 5, loss), Decision::Pause);
            assert_eq!((population.promotable(), population.birth()), (None, None), "the generation is not complete");
        }
        population.rested(2, 5, 0.5);
        let (ended, reason) = population.pop_end().expect("one is replaced");
        assert_eq!(ended, 1);
        assert!(matches!(reason, StopReason::Exploited { by: 2, .. }), "{reason:?}");
        assert_eq!(population.pop_end(), None);
        assert_eq!(population.birth(), Some(Birth { parent: Parent { trial: 2, budget: 5 }, target: 10 }));
        let (point, target) = population.bear(4, &[0.5, 0.5, 0.5, 0.01, 0.5], &space());
        assert_eq!(target, 10);
        assert!((point[0] - 0.5).abs() > 1e-3 && (point[0] - 0.5).abs() < 0.03, "a factor of 0.8 or 1.2: {point:?}");
        assert!((point[1] - 0.5).abs() > 0.3, "a neighbour: {point:?}");
        assert_eq!((point[2], point[4]), (0.5, 0.5));
        let mut resumed = Vec::new();
        while let Some((trial, 10)) = population.promotable() {
            population.promote();
            resumed.push(trial);
        }
        assert_eq!(resumed, [2, 3, 0]);
    }

    #[test]
    fn a_failed_member_is_replaced_and_a_refused_birth_shrinks_the_population() {
        let spec = PopulationSpec { size: 4, interval: 5, max: 10, ..PopulationSpec::default() };
        let mut population = Population::new(&spec, 1);
        (0..4).for_each(|trial| assert_eq!(population.start(trial), 5));
        population.failed(0);
        (1..4).for_each(|trial| assert_eq!(population.rested(trial, 5, f64::from(trial)), Decision::Pause));
        assert_eq!(population.birth().map(|birth| birth.parent), Some(Parent { trial: 1, budget: 5 }));
        population.refuse_birth();
        assert_eq!(population.birth(), None);
        for _ in 1..4 {
            let (trial, target) = population.promotable().expect("all go on");
            population.promote();
            assert_eq!(population.rested(trial, target, 1.0), Decision::Complete);
        }
    }

    #[test]
    fn a_small_whole_number_moves() {
        let domain = Domain::LogInteger { low: 1, high: 8 };
        let at = |x| domain.coordinate(&Value::Integer(x)).expect("in the domain");
        assert_eq!(domain.at(perturb(&domain, at(1), 0.9, &[0.8, 1.2])), Value::Integer(2));
        assert_eq!(domain.at(perturb(&domain, at(1), 0.1, &[0.8, 1.2])), Value::Integer(1));
        assert_eq!(domain.at(perturb(&domain, at(8), 0.9, &[0.8, 1.2])), Value::Integer(8));
    }
}
