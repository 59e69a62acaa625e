//! CMA-ES, the covariance matrix adaptation evolution strategy (Hansen 2016, arXiv:1604.00772): points are drawn from a
//! normal distribution, which learns from each generation where and in which direction to look next.
//!
//! What it models are the coordinates with neighbours that always exist; whole numbers with a margin ([`margin`]). Values
//! without an order and parameters under conditions are drawn uniformly and independently, as Optuna's `CmaEsSampler` does.
//! Points outside the cube, or that the constraints do not admit, are drawn again, and in the end clipped.
//!
//! **Pending trials.** Generations are those of [`super::generation`]: the distribution learns whenever a population of
//! trials has come to rest that it has not learnt from, and proposals are drawn from it as it is. A solution from an earlier
//! state of it, or one that was not drawn at all, counts as an external one (Hansen 2011): shortened where it lies so far
//! away that it would tear the distribution apart. With one trial at a time there are none of these.
//!
//! When nothing is left to find, because the distribution has shrunk to a point or all losses are the same, another search
//! begins elsewhere with twice the population (IPOP, Auger and Hansen 2005). A search that begins warm starts where the
//! earlier one promises most (Nomura et al. 2021).
//!
//! The crates for this own the objective function and call it, draw random numbers of their own in the order of calls, and
//! know no whole numbers; the journal needs the opposite. What is left are 200 lines, compared with the `cmaes` package
//! number by number.

mod distribution;
mod eigen;
mod margin;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use self::distribution::Distribution;
use self::margin::{Cells, Margin};
use super::Space;
use super::generation::Rested;
use super::history::History;
use super::warm_start::Known;
use crate::random::{Purpose, Stream};

/// How the searcher works. The defaults are those of the papers and of Optuna.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CmaEsSpec {
    /// Trials of a generation, at least 4; if absent, `4 + 3 ln n` for `n` parameters (Hansen 2016, equation 48).
    pub population: Option<u32>,
    /// The standard deviation of the first generation, as a share of the side of the cube.
    pub sigma: f64,
}

impl Default for CmaEsSpec {
    fn default() -> Self {
        Self { population: None, sigma: 1.0 / 6.0 }
    }
}

/// So often a point is drawn in search of one that is admitted.
const DRAWS_MAX: u32 = 100;
/// A distribution narrower than this along every coordinate has nothing left to find, as a share of its first deviation.
const NARROW: f64 = 1e-12;
/// A distribution so much longer than wide cannot be computed with.
const CONDITION_MAX: f64 = 1e14;
/// Losses that differ by no more over many generations are the same.
const FLAT: f64 = 1e-12;

/// The searcher.
#[derive(Clone, Debug)]
pub struct CmaEs {
    spec: CmaEsSpec,
    seed: u64,
    /// Which coordinates are modelled.
    modelled: Vec<usize>,
    cells: Vec<Cells>,
    history: History,
    rested: Rested,
    /// What was drawn for trials that have not been learnt from.
    drawn: BTreeMap<u32, Drawn>,
    search: Search,
    searches: u32,
}

/// One search, from its first generation until nothing is left to find.
#[derive(Clone, Debug)]
struct Search {
    distribution: Distribution,
    margin: Margin,
    /// Best and worst loss of the last generations.
    ranges: VecDeque<(f64, f64)>,
    first_sigma: f64,
}

/// A solution of the modelled coordinates.
#[derive(Clone, Debug)]
struct Drawn {
    x: Vec<f64>,
    /// The search and the generation whose distribution it was drawn from, if it was.
    by: Option<(u32, u32)>,
}

impl CmaEs {
    /// A searcher of `space` that has seen nothing.
    pub fn new(spec: CmaEsSpec, space: &Space, seed: u64) -> Self {
        let mut modelled = Vec::new();
        let mut all_cells = Vec::new();
        for (index, parameter) in space.parameters().iter().enumerate() {
            if let (None, Some(cells)) = (&parameter.when, Cells::of(&parameter.domain)) {
                modelled.push(index);
                all_cells.push(cells);
            }
        }
        let n = modelled.len();
        let population = spec.population.unwrap_or(distribution::default_population(n)).max(4);
        let start = (vec![0.5; n], spec.sigma, eigen::identity(n));
        let search = Search::new(start, &all_cells, population as usize);
        Self {
            history: History::new(population as usize),
            spec,
            seed,
            modelled,
            cells: all_cells,
            rested: Rested::default(),
            drawn: BTreeMap::new(),
            search,
            searches: 0,
        }
    }

    /// Takes what is known from an earlier search, before the first proposal.
    pub fn import(&mut self, space: &Space, known: &[Known]) {
        self.history.import(space, known);
        let ids: Vec<u32> = self.history.ranked()[..self.history.finite()].iter().map(|(_, id)| *id).collect();
        if ids.is_empty() || self.modelled.is_empty() {
            return;
        }
        let solution = |id: &u32| {
            let point = &self.history.trial(*id).point;
            self.modelled.iter().map(|index| point[*index]).collect()
        };
        let solutions: Vec<Vec<f64>> = ids.iter().map(solution).collect();
        let population = self.search.distribution.population();
        self.search = Search::new(distribution::promised(&solutions), &self.cells, population);
    }

    /// The point that trial `number` tries; it is pending from then on.
    pub fn propose(&mut self, space: &Space, number: u32) -> Vec<f64> {
        let mut stream = Stream::new(self.seed, Purpose::Search, &[u64::from(number), 0]);
        let (point, drawn) = self.draw(space, &mut stream);
        self.history.add(number, point.clone(), space.active(&point));
        self.drawn.insert(self.history.id(number), drawn);
        point
    }

    /// A result of a trial at a budget; may come several times with rising budgets.
    pub fn observe(&mut self, number: u32, budget: u64, losses: &[f64]) {
        self.history.observe(number, budget, losses);
    }

    /// The trial has come to rest, for now or for good.
    pub fn pause(&mut self, number: u32) {
        let id = self.history.id(number);
        if self.drawn.contains_key(&id) {
            self.rested.add(id);
        }
        while let Some(generation) = self.rested.take(self.search.distribution.population()) {
            self.learn(generation);
        }
    }

    /// The trial will report no more: it is no longer pending.
    pub fn close(&mut self, number: u32) {
        self.history.close(number);
        self.pause(number);
    }

    fn draw(&self, space: &Space, stream: &mut Stream) -> (Vec<f64>, Drawn) {
        let Search { distribution, margin, .. } = &self.search;
        let place = |mut point: Vec<f64>, x: &[f64]| {
            for (index, u) in self.modelled.iter().zip(margin.point(&distribution.mean, x)) {
                point[*index] = u;
            }
            point
        };
        let mut last = None;
        for _ in 0..DRAWS_MAX {
            let (others, x) = (space.draw(stream), distribution.sample(stream));
            let point = place(others, &x);
            if space.admits_point(&point) {
                if margin.is_inside(&x) {
                    return (point, Drawn { x, by: Some((self.searches, distribution.generation())) });
                }
                last = Some(point);
            }
        }
        let point = last.unwrap_or_else(|| space.sample(stream));
        let x = self.modelled.iter().map(|index| point[*index]).collect();
        (point, Drawn { x, by: None })
    }

    /// The distribution learns from trials that came to rest.
    fn learn(&mut self, mut ids: Vec<u32>) {
        let loss = |id: &u32| self.history.first_loss(*id);
        ids.sort_by(|a, b| loss(a).total_cmp(&loss(b)).then(a.cmp(b)));
        let range = (loss(&ids[0]), loss(&ids[ids.len() - 1]));
        let drawn: Vec<Drawn> = ids.iter().filter_map(|id| self.drawn.remove(id)).collect();
        // A generation that failed as a whole says nothing of directions.
        if !range.0.is_finite() || self.modelled.is_empty() {
            return;
        }
        let Search { distribution, margin, ranges, .. } = &mut self.search;
        let now = Some((self.searches, distribution.generation()));
        let solution = |Drawn { x, by }| if by == now { x } else { distribution.shortened(&x) };
        let solutions: Vec<Vec<f64>> = drawn.into_iter().map(solution).collect();
        distribution.learn(&solutions);
        margin.correct(distribution);
        ranges.push_back(range);
        if self.search.is_over() {
            self.searches += 1;
            let mut stream = Stream::new(self.seed, Purpose::Search, &[u64::MAX, u64::from(self.searches)]);
            let mean = self.modelled.iter().map(|_| stream.uniform_f64()).collect();
            let population = 2 * self.search.distribution.population();
            let start = (mean, self.spec.sigma, eigen::identity(self.modelled.len()));
            self.search = Search::new(start, &self.cells, population);
        }
    }
}

impl Search {
    fn new((mean, sigma, covariance): (Vec<f64>, f64, eigen::Matrix), cells: &[Cells], population: usize) -> Self {
        let distribution = Distribution::new(mean, sigma, covariance, population);
        let margin = Margin::new(cells.to_vec(), distribution.population());
        Self { distribution, margin, ranges: VecDeque::new(), first_sigma: sigma }
    }

    /// Whether nothing is left to find (Hansen 2016, appendix B.3: TolX, ConditionCov and TolFun).
    fn is_over(&mut self) -> bool {
        let n = self.distribution.mean.len();
        let is_narrow = (0..n).all(|i| self.distribution.deviation(i) < NARROW * self.first_sigma);
        // A quotient that cannot be computed is too large as well.
        let is_long = self.distribution.condition().partial_cmp(&CONDITION_MAX) != Some(std::cmp::Ordering::Less);
        let generations = 10 + (30 * n).div_ceil(self.distribution.population());
        if self.ranges.len() > generations {
            self.ranges.pop_front();
        }
        let best = self.ranges.iter().map(|(best, _)| *best).fold(f64::INFINITY, f64::min);
        let worst = self.ranges.iter().map(|(_, worst)| *worst).fold(f64::NEG_INFINITY, f64::max);
        let is_flat = self.ranges.len() == generations && worst - best < FLAT;
        is_narrow || is_long || is_flat
    }
}

#[cfg(test)]
mod tests;
