//! From what a sweep file says to a study.

use super::{SchedulerSpec as Rule, SearcherSpec as Choice, SweepSpec};
use crate::batch::Length;
use crate::search::cma_es::CmaEsSpec;
use crate::search::gaussian_process::GaussianProcessSpec;
use crate::search::nsga2::Nsga2Spec;
use crate::search::population::PopulationSpec;
use crate::search::scheduler::{
    AshaSpec, HyperbandSpec, MedianSpec, Mode, NoneSpec, PatienceSpec, PercentileSpec, SchedulerSpec, Statistic,
    ThresholdSpec,
};
use crate::search::searcher::SearcherSpec;
use crate::search::study::{Limits, LockStep, Study, StudySpec};
use crate::search::tpe::TpeSpec;
use crate::spec::sweep::RungMode;
use crate::spec::{Every, JobSpec};

/// What the budgets of a study count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Passes over the data.
    Epochs,
    /// Optimizer steps.
    Steps,
}

impl Unit {
    /// The length that a budget stands for.
    pub fn length(self, budget: u64) -> Length {
        match self {
            Unit::Epochs => Length::Epochs(budget),
            Unit::Steps => Length::Steps(budget),
        }
    }

    /// As people read it, after a number.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Epochs => "epochs",
            Unit::Steps => "steps",
        }
    }

    fn of(length: Length) -> Self {
        match length {
            Length::Epochs(_) => Unit::Epochs,
            Length::Steps(_) => Unit::Steps,
        }
    }

    /// The number of this unit that `length` is, or that it is given in another.
    fn count(self, key: &str, length: Length) -> Result<u64, String> {
        match (self, length) {
            (Unit::Epochs, Length::Epochs(n)) | (Unit::Steps, Length::Steps(n)) => Ok(n),
            (Unit::Epochs, Length::Steps(_)) | (Unit::Steps, Length::Epochs(_)) => {
                Err(format!("{key} must be in {}, as train is", self.name()))
            }
        }
    }
}

/// Trials of a wave in lock step, where `max_concurrent` does not say: enough for most machines, few enough for a searcher
/// to learn between them.
const WAVE: u32 = 4;

impl SweepSpec {
    /// The study that this sweep is, and what its budgets count.
    ///
    /// # Errors
    /// If a length is not in the unit of the job's own; never where [`super::check::check`] passed.
    pub fn study(&self) -> Result<(Study, Unit), String> {
        let (spec, unit) = self.study_spec()?;
        Ok((Study::new(spec, self.space.clone(), self.seed), unit))
    }

    /// What the study is made from, and what its budgets count.
    ///
    /// # Errors
    /// As [`SweepSpec::study`].
    pub fn study_spec(&self) -> Result<(StudySpec, Unit), String> {
        let job = self.base_job()?;
        let unit = Unit::of(job.train.length);
        let limits = Limits {
            trials: self.budget.trials,
            // Steps are counted as they are made, for nobody knows before how many an epoch has.
            total_budget: None,
            max_concurrent: self.max_concurrent,
            retries: self.trial_retries,
            max_consecutive_failures: Some(self.max_failed),
        };
        let lock_step = self.lock_step.then(|| LockStep { wave: self.max_concurrent.unwrap_or(WAVE) });
        let scheduler = scheduler(self, &job, unit)?;
        let prior = self.prior.clone();
        Ok((StudySpec { searcher: searcher(self), scheduler, limits, lock_step, prior }, unit))
    }
}

fn searcher(sweep: &SweepSpec) -> SearcherSpec {
    match &sweep.searcher {
        Choice::Grid(options) => SearcherSpec::Grid { points: options.points.unwrap_or(1) },
        // Members of a population begin anywhere; how they go on is the scheduler's part.
        Choice::Random | Choice::Population(_) => SearcherSpec::Random,
        Choice::Sobol => SearcherSpec::Sobol,
        Choice::Tpe(options) => SearcherSpec::Tpe(TpeSpec {
            startup: options.startup,
            candidates: options.candidates,
            good_share: options.good_share,
            ..TpeSpec::default()
        }),
        Choice::GaussianProcess(options) => SearcherSpec::GaussianProcess(GaussianProcessSpec {
            startup: options.startup,
            ..GaussianProcessSpec::default()
        }),
        Choice::CmaEs(options) => {
            SearcherSpec::CmaEs(CmaEsSpec { population: options.population, sigma: options.sigma })
        }
        Choice::Nsga2(options) => SearcherSpec::Nsga2(Nsga2Spec {
            population: options.population,
            crossover_probability: options.crossover_probability,
            mutation_probability: options.mutation_probability,
            ..Nsga2Spec::default()
        }),
    }
}

fn scheduler(sweep: &SweepSpec, job: &JobSpec, unit: Unit) -> Result<SchedulerSpec, String> {
    let whole = unit.count("train", job.train.length)?;
    let most = |max: Option<Length>| match max {
        Some(max) => Ok::<u64, String>(unit.count("scheduler.max", max)?.min(whole)),
        None => Ok(whole),
    };
    let warm_up = |length: Option<Length>| match length {
        Some(length) => unit.count("scheduler.warm_up", length),
        None => Ok(0),
    };
    let interval = |length: Option<Length>| match length {
        Some(length) => unit.count("scheduler.interval", length),
        None => period(job.eval.every, unit, "eval.every"),
    };
    if let Choice::Population(options) = &sweep.searcher {
        let interval = match options.interval {
            Some(length) => unit.count("searcher.interval", length)?,
            None => period(job.checkpoint.every, unit, "checkpoint.every")?,
        };
        return Ok(SchedulerSpec::Population(PopulationSpec {
            size: options.population,
            interval,
            max: whole,
            quantile: options.quantile,
            resample: options.resample_probability,
            factors: options.perturb.to_vec(),
        }));
    }
    let lowest =
        |min: Length, warm: Option<Length>| Ok::<u64, String>(unit.count("scheduler.min", min)?.max(warm_up(warm)?));
    Ok(match &sweep.scheduler {
        Rule::None => SchedulerSpec::None(NoneSpec { max: whole }),
        Rule::Asha(options) => SchedulerSpec::Asha(AshaSpec {
            min: lowest(options.min, options.warm_up)?,
            max: most(options.max)?,
            eta: options.eta,
            mode: match options.mode {
                RungMode::Stop => Mode::Stop,
                RungMode::Pause => Mode::Pause,
            },
        }),
        Rule::Hyperband(options) | Rule::Bohb(options) => SchedulerSpec::Hyperband(HyperbandSpec {
            min: lowest(options.min, options.warm_up)?,
            max: most(options.max)?,
            eta: options.eta,
        }),
        Rule::Median(options) => SchedulerSpec::Median(MedianSpec {
            max: whole,
            interval: interval(options.interval)?,
            warm_up: warm_up(options.warm_up)?,
            min_trials: options.min_trials,
            peers: Statistic::default(),
        }),
        Rule::Percentile(options) => SchedulerSpec::Percentile(PercentileSpec {
            max: whole,
            interval: interval(options.interval)?,
            warm_up: warm_up(options.warm_up)?,
            min_trials: options.min_trials,
            percentile: options.percentile,
            peers: Statistic::BestSoFar,
        }),
        Rule::Patience(options) => SchedulerSpec::Patience(PatienceSpec {
            max: whole,
            interval: interval(None)?,
            warm_up: warm_up(options.warm_up)?,
            evaluations: options.evaluations,
            min_delta: options.min_delta,
        }),
        Rule::Threshold(options) => SchedulerSpec::Threshold(ThresholdSpec {
            max: whole,
            interval: interval(None)?,
            warm_up: warm_up(options.warm_up)?,
            limit: sweep.objectives.first().map(|objective| objective.loss(options.value)),
        }),
    })
}

/// A period of the job in the unit of the sweep.
fn period(every: Every, unit: Unit, key: &str) -> Result<u64, String> {
    match every {
        Every::Epochs(n) => unit.count(key, Length::Epochs(n)),
        Every::Steps(n) => unit.count(key, Length::Steps(n)),
    }
}
