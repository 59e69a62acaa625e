//! NSGA-II, a genetic algorithm for several objectives (Deb et al. 2002): the parents of a generation are the best of the
//! last parents and their children together, whole Pareto fronts first and then the least crowded; a child has two of them
//! that won a tournament, mixes their coordinates and changes a few. With one objective it is a plain genetic algorithm.
//!
//! Children of which the constraints admit none are replaced by random points, and so are those that mean the same as a
//! parent or a pending trial. A coordinate that does not exist in one parent comes from the other one.
//!
//! **Pending trials.** Generations are those of [`super::generation`]: parents are chosen anew whenever a population of
//! trials has come to rest that was not chosen from before, and every proposal is a child of the parents as they are. Until
//! the first generation is complete, points are spread evenly.

mod variation;

use serde::{Deserialize, Serialize};

use self::variation::Variation;
use super::generation::Rested;
use super::history::History;
use super::space::{Choice, Space};
use super::warm_start::Known;
use super::{pareto, spread};
use crate::random::{Purpose, Stream};

/// How the searcher works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nsga2Spec {
    /// Parents, and children of a generation; at least 2.
    pub population: u32,
    /// The probability that a child mixes two parents instead of being like one.
    pub crossover_probability: f64,
    /// The probability that a coordinate is changed; if absent, one in as many as there are.
    pub mutation_probability: Option<f64>,
    /// The distribution indices of crossover and mutation: with higher ones children are more like their parents.
    pub crossover_index: f64,
    /// See `crossover_index`.
    pub mutation_index: f64,
}

impl Default for Nsga2Spec {
    fn default() -> Self {
        Self {
            population: 20,
            crossover_probability: 0.9,
            mutation_probability: None,
            crossover_index: 15.0,
            mutation_index: 20.0,
        }
    }
}

/// So many children are made in search of one that is admitted and new.
const CHILDREN_MAX: u32 = 100;

/// The searcher.
#[derive(Clone, Debug)]
pub struct Nsga2 {
    spec: Nsga2Spec,
    seed: u64,
    choices: Vec<Choice>,
    history: History,
    rested: Rested,
    parents: Vec<Parent>,
}

/// A trial that may have children.
#[derive(Clone, Copy, Debug)]
struct Parent {
    id: u32,
    /// How many fronts are before its own.
    front: usize,
    crowding: f64,
}

impl Nsga2 {
    /// A searcher of `space` that has seen nothing.
    pub fn new(spec: Nsga2Spec, space: &Space, seed: u64) -> Self {
        let choices = space.parameters().iter().map(|p| p.domain.choice()).collect();
        let history = History::new(spec.population as usize);
        Self { spec, seed, choices, history, rested: Rested::default(), parents: Vec::new() }
    }

    /// Takes what is known from an earlier search, before the first proposal: those trials came to rest before all others.
    pub fn import(&mut self, space: &Space, known: &[Known]) {
        self.history.import(space, known);
        (0..self.history.id(0)).for_each(|id| self.rested.add(id));
        self.turn();
    }

    /// The point that trial `number` tries; it is pending from then on.
    pub fn propose(&mut self, space: &Space, number: u32) -> Vec<f64> {
        let point = if self.parents.is_empty() {
            spread::admitted(self.seed, number, &self.choices, space)
        } else {
            self.child(space, &mut Stream::new(self.seed, Purpose::Search, &[u64::from(number), 0]))
        };
        self.history.add(number, point.clone(), space.active(&point));
        point
    }

    /// A result of a trial at a budget; may come several times with rising budgets.
    pub fn observe(&mut self, number: u32, budget: u64, losses: &[f64]) {
        self.history.observe(number, budget, losses);
    }

    /// The trial has come to rest, for now or for good.
    pub fn pause(&mut self, number: u32) {
        let id = self.history.id(number);
        if self.history.has(id) {
            self.rested.add(id);
            self.turn();
        }
    }

    /// The trial will report no more: it is no longer pending.
    pub fn close(&mut self, number: u32) {
        self.history.close(number);
        self.pause(number);
    }

    /// Chooses parents for every generation that is complete.
    fn turn(&mut self) {
        let population = self.spec.population.max(2) as usize;
        while let Some(children) = self.rested.take(population) {
            let ids: Vec<u32> = self.parents.iter().map(|parent| parent.id).chain(children).collect();
            self.parents = chosen(&self.history, ids, population);
        }
    }

    fn child(&self, space: &Space, stream: &mut Stream) -> Vec<f64> {
        let variation = Variation {
            choices: &self.choices,
            mutation_probability: self.spec.mutation_probability.unwrap_or(1.0 / self.searched().max(1) as f64),
            crossover_index: self.spec.crossover_index,
            mutation_index: self.spec.mutation_index,
        };
        let parents = self.parents.iter().map(|parent| parent.id);
        let known: Vec<_> =
            parents.chain(self.history.silent()).map(|id| space.decode(&self.history.trial(id).point)).collect();
        for _ in 0..CHILDREN_MAX {
            let (one, other) = (self.winner(stream), self.winner(stream));
            let (one, other) = (self.history.trial(one), self.history.trial(other));
            let mixed = if stream.uniform_f64() < self.spec.crossover_probability {
                variation.mixed([&one.point, &other.point], [&one.active, &other.active], stream)
            } else {
                one.point.clone()
            };
            let child = variation.mutated(mixed, stream);
            let configuration = space.decode(&child);
            if space.admits(&configuration) && !known.contains(&configuration) {
                return child;
            }
        }
        space.sample(stream)
    }

    /// The better one of two parents (Deb et al. 2002, section III-C): of a better front, or less crowded in the same.
    fn winner(&self, stream: &mut Stream) -> u32 {
        let count = self.parents.len() as u64;
        let (a, b) = (self.parents[stream.below(count) as usize], self.parents[stream.below(count) as usize]);
        let order = a.front.cmp(&b.front).then(b.crowding.total_cmp(&a.crowding));
        if order.is_gt() { b.id } else { a.id }
    }

    /// How many coordinates have something to choose.
    fn searched(&self) -> usize {
        self.choices.iter().filter(|choice| !matches!(choice, Choice::Fixed)).count()
    }
}

/// The best of these trials, as parents. Those without a finite first loss are never among them.
fn chosen(history: &History, mut ids: Vec<u32>, count: usize) -> Vec<Parent> {
    ids.retain(|id| history.first_loss(*id).is_finite());
    ids.sort_unstable();
    let losses: Vec<&[f64]> = ids.iter().map(|id| history.losses(*id)).collect();
    let mut parents: Vec<Parent> = Vec::new();
    for (front, members) in pareto::fronts(&losses, count).into_iter().enumerate() {
        let crowding = pareto::crowding(&members.iter().map(|index| losses[*index]).collect::<Vec<_>>());
        let parent = |(index, crowding): (&usize, f64)| Parent { id: ids[*index], front, crowding };
        let mut of_front: Vec<Parent> = members.iter().zip(crowding).map(parent).collect();
        // The sort is stable, so of equally crowded ones the older come first.
        of_front.sort_by(|a, b| b.crowding.total_cmp(&a.crowding));
        parents.extend(of_front);
    }
    parents.truncate(count);
    parents
}

#[cfg(test)]
mod tests;
