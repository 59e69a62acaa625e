//! Which configuration to try next.
//!
//! Another searcher is a file, a variant of [`SearcherSpec`] and one of [`Searcher`]; the compiler lists the rest.

use serde::{Deserialize, Serialize};

use crate::search::cma_es::{CmaEs, CmaEsSpec};
use crate::search::gaussian_process::{GaussianProcess, GaussianProcessSpec};
use crate::search::grid::Grid;
use crate::search::nsga2::{Nsga2, Nsga2Spec};
use crate::search::random::Random;
use crate::search::sobol::Sobol;
use crate::search::space::Space;
use crate::search::tpe::{Tpe, TpeSpec};
use crate::search::warm_start::Known;

/// Which searcher, with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SearcherSpec {
    /// Every point is equally likely, whatever was found before.
    Random,
    /// Points that fill the space evenly.
    Sobol,
    /// Every combination.
    Grid {
        /// Values of every parameter that has no cells.
        points: u32,
    },
    /// A tree-structured Parzen estimator.
    Tpe(TpeSpec),
    /// A Gaussian process.
    GaussianProcess(GaussianProcessSpec),
    /// An evolution strategy with a covariance matrix.
    CmaEs(CmaEsSpec),
    /// A genetic algorithm for several objectives.
    Nsga2(Nsga2Spec),
}

/// A searcher with what it knows.
#[derive(Clone, Debug)]
pub enum Searcher {
    /// Every point is equally likely.
    Random(Random),
    /// Points that fill the space evenly.
    Sobol(Sobol),
    /// Every combination.
    Grid(Grid),
    /// A tree-structured Parzen estimator.
    Tpe(Tpe),
    /// A Gaussian process.
    GaussianProcess(Box<GaussianProcess>),
    /// An evolution strategy with a covariance matrix.
    CmaEs(Box<CmaEs>),
    /// A genetic algorithm for several objectives.
    Nsga2(Box<Nsga2>),
}

impl Searcher {
    /// A searcher that has proposed nothing yet.
    pub fn new(spec: &SearcherSpec, space: &Space, seed: u64) -> Self {
        match spec {
            SearcherSpec::Random => Searcher::Random(Random::new(seed)),
            SearcherSpec::Sobol => Searcher::Sobol(Sobol::new(seed)),
            SearcherSpec::Grid { points } => Searcher::Grid(Grid::new(*points, space)),
            SearcherSpec::Tpe(spec) => Searcher::Tpe(Tpe::new(spec.clone(), space, seed)),
            SearcherSpec::GaussianProcess(spec) => {
                Searcher::GaussianProcess(Box::new(GaussianProcess::new(spec.clone(), space, seed)))
            }
            SearcherSpec::CmaEs(spec) => Searcher::CmaEs(Box::new(CmaEs::new(spec.clone(), space, seed))),
            SearcherSpec::Nsga2(spec) => Searcher::Nsga2(Box::new(Nsga2::new(spec.clone(), space, seed))),
        }
    }

    /// Takes what is known from earlier sweeps, before the first proposal. Those that learn nothing from results ignore it.
    pub fn import(&mut self, space: &Space, known: &[Known]) {
        match self {
            Searcher::Random(_) | Searcher::Sobol(_) | Searcher::Grid(_) => {}
            Searcher::Tpe(tpe) => tpe.import(space, known),
            Searcher::GaussianProcess(process) => process.import(space, known),
            Searcher::CmaEs(strategy) => strategy.import(space, known),
            Searcher::Nsga2(algorithm) => algorithm.import(space, known),
        }
    }

    /// The point that trial `number` tries; it is pending from then on. `None` if everything was tried.
    pub fn propose(&mut self, space: &Space, number: u32) -> Option<Vec<f64>> {
        match self {
            Searcher::Random(random) => Some(random.propose(space, number)),
            Searcher::Sobol(sobol) => Some(sobol.propose(space, number)),
            Searcher::Grid(grid) => grid.propose(space, number),
            Searcher::Tpe(tpe) => Some(tpe.propose(space, number)),
            Searcher::GaussianProcess(process) => Some(process.propose(space, number)),
            Searcher::CmaEs(strategy) => Some(strategy.propose(space, number)),
            Searcher::Nsga2(algorithm) => Some(algorithm.propose(space, number)),
        }
    }

    /// A result of a trial at a budget; may come several times with rising budgets.
    pub fn observe(&mut self, number: u32, budget: u64, losses: &[f64]) {
        match self {
            Searcher::Random(random) => random.observe(number, budget, losses),
            Searcher::Sobol(sobol) => sobol.observe(number, budget, losses),
            Searcher::Grid(grid) => grid.observe(number, budget, losses),
            Searcher::Tpe(tpe) => tpe.observe(number, budget, losses),
            Searcher::GaussianProcess(process) => process.observe(number, budget, losses),
            Searcher::CmaEs(strategy) => strategy.observe(number, budget, losses),
            Searcher::Nsga2(algorithm) => algorithm.observe(number, budget, losses),
        }
    }

    /// The trial rests, and may go on later. Those that learn by generations count it now.
    pub fn pause(&mut self, number: u32) {
        match self {
            Searcher::Random(_) | Searcher::Sobol(_) | Searcher::Grid(_) => {}
            Searcher::Tpe(_) | Searcher::GaussianProcess(_) => {}
            Searcher::CmaEs(strategy) => strategy.pause(number),
            Searcher::Nsga2(algorithm) => algorithm.pause(number),
        }
    }

    /// The trial will report no more: it is no longer pending.
    pub fn close(&mut self, number: u32) {
        match self {
            Searcher::Random(random) => random.close(number),
            Searcher::Sobol(sobol) => sobol.close(number),
            Searcher::Grid(grid) => grid.close(number),
            Searcher::Tpe(tpe) => tpe.close(number),
            Searcher::GaussianProcess(process) => process.close(number),
            Searcher::CmaEs(strategy) => strategy.close(number),
            Searcher::Nsga2(algorithm) => algorithm.close(number),
        }
    }
}
