//! What searchers and schedulers can be told. The defaults are those of sweep files.

use serde::{Deserialize, Serialize};

use crate::batch::Length;
use crate::search::cma_es::CmaEsSpec;
use crate::search::nsga2::Nsga2Spec;

/// How configurations are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SearcherSpec {
    /// Every combination of a few values of each parameter.
    Grid(GridOptions),
    /// Independent points.
    Random,
    /// Points that fill the space more evenly than random ones.
    Sobol,
    /// Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023).
    Tpe(TpeOptions),
    /// Bayesian optimisation by a Gaussian process (Snoek et al. 2012).
    GaussianProcess(GaussianProcessOptions),
    /// Evolution strategy with a covariance matrix (Hansen 2016), for one objective.
    CmaEs(CmaEsOptions),
    /// Genetic algorithm for several objectives (Deb et al. 2002).
    Nsga2(Nsga2Options),
    /// Population based training (Jaderberg et al. 2017): trials copy weights from better ones and go on with changed
    /// values.
    Population(PopulationOptions),
}

impl SearcherSpec {
    /// As sweep files write it.
    pub fn name(&self) -> &'static str {
        match self {
            SearcherSpec::Grid(_) => "grid",
            SearcherSpec::Random => "random",
            SearcherSpec::Sobol => "sobol",
            SearcherSpec::Tpe(_) => "tpe",
            SearcherSpec::GaussianProcess(_) => "gaussian_process",
            SearcherSpec::CmaEs(_) => "cma_es",
            SearcherSpec::Nsga2(_) => "nsga2",
            SearcherSpec::Population(_) => "population",
        }
    }

    /// Whether it learns from results, and so from those of earlier sweeps.
    pub fn learns(&self) -> bool {
        match self {
            SearcherSpec::Grid(_) | SearcherSpec::Random | SearcherSpec::Sobol | SearcherSpec::Population(_) => false,
            SearcherSpec::Tpe(_)
            | SearcherSpec::GaussianProcess(_)
            | SearcherSpec::CmaEs(_)
            | SearcherSpec::Nsga2(_) => true,
        }
    }
}

/// Options of [`SearcherSpec::Grid`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridOptions {
    /// Values of every continuous or logarithmic parameter, ends included. Needed where there is one.
    pub points: Option<u32>,
}

/// Options of [`SearcherSpec::Tpe`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TpeOptions {
    /// Trials with a result before the model is used. Default: 10.
    pub startup: u32,
    /// Points drawn for one proposal. Default: 24.
    pub candidates: u32,
    /// Share of the trials that counts as good, in (0, 1). Default: 0.1.
    pub good_share: f64,
}

impl Default for TpeOptions {
    fn default() -> Self {
        Self { startup: 10, candidates: 24, good_share: 0.1 }
    }
}

/// Options of [`SearcherSpec::GaussianProcess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaussianProcessOptions {
    /// Trials with a result before the model is used. Default: 10.
    pub startup: u32,
}

impl Default for GaussianProcessOptions {
    fn default() -> Self {
        Self { startup: 10 }
    }
}

/// Options of [`SearcherSpec::CmaEs`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CmaEsOptions {
    /// Trials of a generation, at least 4. Default: `4 + 3 ln n` for `n` parameters.
    pub population: Option<u32>,
    /// Standard deviation of the first generation, as a share of every parameter's range, in (0, 1]. Default: 1/6.
    pub sigma: f64,
}

impl Default for CmaEsOptions {
    fn default() -> Self {
        Self { population: None, sigma: CmaEsSpec::default().sigma }
    }
}

/// Options of [`SearcherSpec::Nsga2`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nsga2Options {
    /// Parents, and trials of a generation. Default: 20.
    pub population: u32,
    /// Probability that a trial mixes two parents, in [0, 1]. Default: 0.9.
    pub crossover_probability: f64,
    /// Probability that a value is changed, in [0, 1]. Default: one in as many as there are.
    pub mutation_probability: Option<f64>,
}

impl Default for Nsga2Options {
    fn default() -> Self {
        let Nsga2Spec { population, crossover_probability, mutation_probability, .. } = Nsga2Spec::default();
        Self { population, crossover_probability, mutation_probability }
    }
}

/// Options of [`SearcherSpec::Population`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PopulationOptions {
    /// Trials that train beside each other. Default: 8.
    pub population: u32,
    /// A trial is compared with the others whenever it trained so long; it must evaluate and save then. Default: the job's
    /// checkpoint period.
    pub interval: Option<Length>,
    /// The worst so many of all copy from the best so many, in (0, 0.5]. Default: 0.25.
    pub quantile: f64,
    /// Probability that a value is drawn anew instead of being changed a little, in [0, 1]. Default: 0.25.
    pub resample_probability: f64,
    /// By one of these a value is multiplied otherwise. Default: 0.8 and 1.2.
    pub perturb: [f64; 2],
}

impl Default for PopulationOptions {
    fn default() -> Self {
        Self { population: 8, interval: None, quantile: 0.25, resample_probability: 0.25, perturb: [0.8, 1.2] }
    }
}

/// What ends trials early. All watch the first objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SchedulerSpec {
    /// Nothing.
    None,
    /// Asynchronous successive halving (Li et al. 2020): at each rung the best share goes on.
    Asha(AshaOptions),
    /// Hyperband (Li et al. 2018): successive halving from several first rungs.
    Hyperband(BanditOptions),
    /// Hyperband whose configurations come from a model (Falkner et al. 2018): with the searcher `tpe`.
    Bohb(BanditOptions),
    /// A trial ends where its best value is worse than the median of what the others had by then (Golovin et al. 2017).
    Median(PercentileOptions),
    /// The same with another share than a half.
    Percentile(PercentileOptions),
    /// A trial ends where it improves no more.
    Patience(PatienceOptions),
    /// A trial ends where it is worse than a fixed value.
    Threshold(ThresholdOptions),
}

impl SchedulerSpec {
    /// As sweep files write it.
    pub fn name(&self) -> &'static str {
        match self {
            SchedulerSpec::None => "none",
            SchedulerSpec::Asha(_) => "asha",
            SchedulerSpec::Hyperband(_) => "hyperband",
            SchedulerSpec::Bohb(_) => "bohb",
            SchedulerSpec::Median(_) => "median",
            SchedulerSpec::Percentile(_) => "percentile",
            SchedulerSpec::Patience(_) => "patience",
            SchedulerSpec::Threshold(_) => "threshold",
        }
    }
}

/// Options of [`SchedulerSpec::Asha`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AshaOptions {
    /// The lowest rung: trials are compared when they trained so long. Default: one epoch.
    pub min: Length,
    /// The highest rung. Default: the whole length of the job.
    pub max: Option<Length>,
    /// One of so many goes on from a rung to the next, which is so many times as high; at least 2. Default: 4.
    pub eta: u32,
    /// What happens to those that do not go on. Default: pause.
    pub mode: RungMode,
    /// No trial ends before. Default: the lowest rung.
    pub warm_up: Option<Length>,
}

impl Default for AshaOptions {
    fn default() -> Self {
        Self { min: Length::Epochs(1), max: None, eta: 4, mode: RungMode::Pause, warm_up: None }
    }
}

/// What happens to a trial that is not among the best of its rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungMode {
    /// It ends.
    Stop,
    /// It waits at its checkpoint and goes on if it turns out to be among the best.
    Pause,
}

/// Options of [`SchedulerSpec::Hyperband`] and [`SchedulerSpec::Bohb`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanditOptions {
    /// The lowest rung of all. Default: one epoch.
    pub min: Length,
    /// The highest rung. Default: the whole length of the job.
    pub max: Option<Length>,
    /// One of so many goes on from a rung to the next; at least 2. Default: 3.
    pub eta: u32,
    /// No trial ends before. Default: the lowest rung.
    pub warm_up: Option<Length>,
}

impl Default for BanditOptions {
    fn default() -> Self {
        Self { min: Length::Epochs(1), max: None, eta: 3, warm_up: None }
    }
}

/// Options of [`SchedulerSpec::Median`] and [`SchedulerSpec::Percentile`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PercentileOptions {
    /// A trial goes on if it is at least as good as this percentile of the others, in (0, 100): 25 keeps the best quarter.
    /// Always 50 for the median. Default: 50.
    pub percentile: f64,
    /// No trial ends that can be compared with fewer others; at least 1. Default: 5.
    pub min_trials: u32,
    /// Trials are compared whenever they trained so long. Default: the job's evaluation period.
    pub interval: Option<Length>,
    /// No trial ends before. Default: none.
    pub warm_up: Option<Length>,
}

impl Default for PercentileOptions {
    fn default() -> Self {
        Self { percentile: 50.0, min_trials: 5, interval: None, warm_up: None }
    }
}

/// Options of [`SchedulerSpec::Patience`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatienceOptions {
    /// A trial ends after so many evaluations without an improvement; at least 1. Default: 5.
    pub evaluations: u32,
    /// The least change that counts as an improvement. Default: 0.
    pub min_delta: f64,
    /// No trial ends before. Default: none.
    pub warm_up: Option<Length>,
}

impl Default for PatienceOptions {
    fn default() -> Self {
        Self { evaluations: 5, min_delta: 0.0, warm_up: None }
    }
}

/// Options of [`SchedulerSpec::Threshold`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdOptions {
    /// A trial whose first objective is worse than this, or not finite, ends.
    pub value: f64,
    /// No trial ends before. Default: none.
    pub warm_up: Option<Length>,
}
