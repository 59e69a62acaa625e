use std::cmp::Ordering;

use super::Fault;
use crate::batch::Length;
use crate::ids::RUN_NAME_BYTES_MAX;
use crate::search::grid::{GRID_POINTS_MAX, Grid};
use crate::search::{Choice, Observation, Space};
use crate::spec::JobSpec;
use crate::spec::file::{PRIORITY_MAX, STEPS_MAX, WORKERS_MAX};
use crate::spec::sweep::{
    AshaOptions, BanditOptions, CmaEsOptions, GaussianProcessOptions, Goal, GridOptions, Nsga2Options, PatienceOptions,
    PercentileOptions, PopulationOptions, SchedulerSpec, SearcherSpec, SweepBudget, SweepSpec, ThresholdOptions,
    TpeOptions,
};

/// The longest name of a sweep, in bytes: a dot and the longest number of a trial still make the name of a run.
const SWEEP_NAME_BYTES_MAX: usize = RUN_NAME_BYTES_MAX - 11;
/// The most trials of a sweep, of a generation, of anything that is counted in trials.
const TRIALS_MAX: u32 = 1_000_000;
/// The most points that are drawn for one proposal.
const CANDIDATES_MAX: u32 = 10_000;
/// The longest time: in milliseconds it is still far from overflowing.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;
/// The largest factor from rung to rung; with more there is but one rung.
const ETA_MAX: u32 = 1000;

/// What is wrong with everything but space, constraints and job.
pub(in crate::spec) fn options(spec: &SweepSpec) -> Vec<Fault> {
    let SweepSpec {
        name,
        seed: _,
        job: _,
        space,
        objectives: _,
        searcher,
        scheduler,
        budget,
        workers_per_trial,
        max_concurrent,
        priority,
        elastic: _,
        lock_step: _,
        trial_retries,
        max_failed,
        warm_start: _,
        prior: _,
    } = spec;
    let mut wrong = Wrong(Vec::new());
    wrong.unless(name.as_str().len() <= SWEEP_NAME_BYTES_MAX, &["name"], || {
        let bytes = name.as_str().len();
        format!(
            "is {bytes} bytes long, a sweep's name may have {SWEEP_NAME_BYTES_MAX}: its trials are runs NAME.NUMBER"
        )
    });
    objectives(spec, &mut wrong);
    self::budget(*budget, searcher, &mut wrong);
    let workers = u64::from(*workers_per_trial);
    wrong.unless((1..=WORKERS_MAX).contains(&workers), &["workers_per_trial"], || in_range(1, WORKERS_MAX));
    wrong.count(&["max_concurrent"], max_concurrent.unwrap_or(1), 1, TRIALS_MAX);
    wrong.unless((-PRIORITY_MAX..=PRIORITY_MAX).contains(priority), &["priority"], || {
        format!("must be a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}")
    });
    wrong.count(&["trial_retries"], *trial_retries, 0, TRIALS_MAX);
    wrong.count(&["max_failed"], *max_failed, 1, TRIALS_MAX);
    self::searcher(searcher, space, &mut wrong);
    wrong.unless(spec.objectives.len() <= 1 || !matches!(searcher, SearcherSpec::CmaEs(_)), &["objectives"], || {
        "must be one metric for the searcher cma_es: nsga2, tpe and gaussian_process know several".to_owned()
    });
    warm_start(spec, &mut wrong);
    let job = spec.base_job().ok();
    let whole = fixed_length(job.as_ref(), space);
    population_alone(searcher, scheduler, &mut wrong);
    if let SearcherSpec::Population(PopulationOptions { interval: Some(interval), .. }) = searcher {
        wrong.length(&["searcher", "interval"], *interval);
        wrong.below_max(&["searcher", "interval"], *interval, whole);
    }
    self::scheduler(scheduler, whole, &mut wrong);
    wrong.0
}

struct Wrong(Vec<Fault>);

impl Wrong {
    fn unless(&mut self, holds: bool, key: &[&str], message: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Fault::new(key, message()));
        }
    }

    fn count(&mut self, key: &[&str], value: u32, least: u32, most: u32) {
        self.unless((least..=most).contains(&value), key, || in_range(least.into(), most.into()));
    }

    fn share(&mut self, key: &[&str], value: f64, most: f64) {
        self.unless(value > 0.0 && value <= most && value < 1.0, key, || {
            if most < 1.0 {
                format!("must be a number > 0 and <= {most}")
            } else {
                "must be a number > 0 and < 1".to_owned()
            }
        });
    }

    fn probability(&mut self, key: &[&str], value: f64) {
        self.unless((0.0..=1.0).contains(&value), key, || "must be a number >= 0 and <= 1".to_owned());
    }

    fn length(&mut self, key: &[&str], length: Length) {
        let (Length::Epochs(n) | Length::Steps(n)) = length;
        self.unless((1..=STEPS_MAX).contains(&n), key, || format!("must be from 1 to {STEPS_MAX} epochs or steps"));
    }

    /// A length that must lie below the highest one; nothing is said of different units.
    fn below_max(&mut self, key: &[&str], length: Length, max: Option<Length>) {
        let Some(max) = max else { return };
        let is_less = compared(length, max).is_none_or(Ordering::is_lt);
        self.unless(is_less, key, || format!("must be < the length of a trial ({})", shown(max)));
    }
}

fn in_range(least: u64, most: u64) -> String {
    format!("must be a whole number from {least} to {most}")
}

fn shown(length: Length) -> String {
    match length {
        Length::Epochs(n) => format!("{n} epochs"),
        Length::Steps(n) => format!("{n} steps"),
    }
}

fn compared(a: Length, b: Length) -> Option<Ordering> {
    match (a, b) {
        (Length::Epochs(a), Length::Epochs(b)) | (Length::Steps(a), Length::Steps(b)) => Some(a.cmp(&b)),
        (Length::Epochs(_), Length::Steps(_)) | (Length::Steps(_), Length::Epochs(_)) => None,
    }
}

fn objectives(spec: &SweepSpec, wrong: &mut Wrong) {
    wrong.unless(!spec.objectives.is_empty(), &["objectives"], || "must name a metric".to_owned());
    for (index, objective) in spec.objectives.iter().enumerate() {
        let (place, metric) = (format!("[{index}]"), objective.metric);
        let is_first = spec.objectives[..index].iter().all(|earlier| earlier.metric != metric);
        wrong.unless(is_first, &["objectives", &place, "metric"], || format!("{} stands here twice", metric.name()));
        let natural = Goal::of(metric);
        wrong.unless(objective.goal == natural, &["objectives", &place, "goal"], || {
            format!("must be {} for {}", natural.name(), metric.name())
        });
    }
}

fn budget(budget: SweepBudget, searcher: &SearcherSpec, wrong: &mut Wrong) {
    let SweepBudget { trials, steps, seconds } = budget;
    let ends = trials.is_some() || steps.is_some() || seconds.is_some() || matches!(searcher, SearcherSpec::Grid(_));
    wrong.unless(ends, &["trials"], || "trials, max_steps or max_seconds is required".to_owned());
    wrong.count(&["trials"], trials.unwrap_or(1), 1, TRIALS_MAX);
    let steps_max = 1 << 53;
    wrong.unless((1..=steps_max).contains(&steps.unwrap_or(1)), &["max_steps"], || in_range(1, steps_max));
    wrong.unless((1..=SECONDS_MAX).contains(&seconds.unwrap_or(1)), &["max_seconds"], || in_range(1, SECONDS_MAX));
}

fn searcher(searcher: &SearcherSpec, space: &Space, wrong: &mut Wrong) {
    match searcher {
        SearcherSpec::Grid(GridOptions { points }) => grid(*points, space, wrong),
        SearcherSpec::Random | SearcherSpec::Sobol => {}
        SearcherSpec::Tpe(TpeOptions { startup, candidates, good_share }) => {
            wrong.count(&["searcher", "startup"], *startup, 1, TRIALS_MAX);
            wrong.count(&["searcher", "candidates"], *candidates, 1, CANDIDATES_MAX);
            wrong.share(&["searcher", "good_share"], *good_share, 1.0);
        }
        SearcherSpec::GaussianProcess(GaussianProcessOptions { startup }) => {
            wrong.count(&["searcher", "startup"], *startup, 1, TRIALS_MAX);
        }
        SearcherSpec::CmaEs(CmaEsOptions { population, sigma }) => {
            wrong.count(&["searcher", "population"], population.unwrap_or(4), 4, TRIALS_MAX);
            wrong.unless(*sigma > 0.0 && *sigma <= 1.0, &["searcher", "sigma"], || {
                "must be a number > 0 and <= 1".to_owned()
            });
        }
        SearcherSpec::Nsga2(Nsga2Options { population, crossover_probability, mutation_probability }) => {
            wrong.count(&["searcher", "population"], *population, 2, TRIALS_MAX);
            wrong.probability(&["searcher", "crossover_probability"], *crossover_probability);
            wrong.probability(&["searcher", "mutation_probability"], mutation_probability.unwrap_or(0.0));
        }
        SearcherSpec::Population(options) => population(options, wrong),
    }
}

fn warm_start(spec: &SweepSpec, wrong: &mut Wrong) {
    let SweepSpec { name, searcher, warm_start, prior, space, objectives, .. } = spec;
    wrong.unless(warm_start.is_empty() || searcher.learns(), &["warm_start"], || {
        format!("has no use for the searcher {}, which does not learn from results", searcher.name())
    });
    for (index, earlier) in warm_start.iter().enumerate() {
        let place = format!("[{index}]");
        wrong.unless(earlier != name, &["warm_start", &place], || "is this sweep itself".to_owned());
        let is_first = !warm_start[..index].contains(earlier);
        wrong.unless(is_first, &["warm_start", &place], || format!("{earlier} stands here twice"));
    }
    // Conditions are looked up only in a space in order.
    let is_right = super::parameters(space.parameters()).is_empty();
    let fits = |one: &Observation| one.losses.len() == objectives.len() && one.known(space).is_some();
    wrong.unless(!is_right || prior.iter().all(fits), &["prior"], || "holds a trial that does not fit".to_owned());
}

fn grid(points: Option<u32>, space: &Space, wrong: &mut Wrong) {
    let continuous = space.parameters().iter().find(|p| p.domain.choice() == Choice::Continuous);
    match (points, continuous) {
        (None, Some(parameter)) => {
            let message = format!("is required: {} has no values of its own to go through", parameter.path);
            wrong.0.push(Fault::new(&["searcher", "points"], message));
            return;
        }
        (Some(points), _) => wrong.count(&["searcher", "points"], points, 1, 10_000),
        (None, None) => {}
    }
    // Of domains that are wrong themselves nothing can be counted.
    if super::parameters(space.parameters()).is_empty() {
        let size = Grid::size(points.unwrap_or(1), space);
        wrong.unless(size <= GRID_POINTS_MAX, &["searcher"], || {
            format!("the grid has {size} points, at most {GRID_POINTS_MAX} are allowed")
        });
    }
}

fn population(options: &PopulationOptions, wrong: &mut Wrong) {
    let PopulationOptions { population, interval: _, quantile, resample_probability, perturb } = options;
    wrong.count(&["searcher", "population"], *population, 2, TRIALS_MAX);
    wrong.share(&["searcher", "quantile"], *quantile, 0.5);
    wrong.probability(&["searcher", "resample_probability"], *resample_probability);
    let is_factor = |factor: &f64| factor.is_finite() && *factor > 0.0 && *factor != 1.0;
    wrong.unless(perturb.iter().all(is_factor), &["searcher", "perturb"], || {
        "must be two factors > 0, none of them 1".to_owned()
    });
}

fn population_alone(searcher: &SearcherSpec, scheduler: &SchedulerSpec, wrong: &mut Wrong) {
    let is_population = matches!(searcher, SearcherSpec::Population(_));
    wrong.unless(!is_population || *scheduler == SchedulerSpec::None, &["scheduler", "type"], || {
        "must be none: the searcher population ends no trial early".to_owned()
    });
    let has_model = matches!(searcher, SearcherSpec::Tpe(_));
    wrong.unless(!matches!(scheduler, SchedulerSpec::Bohb(_)) || has_model, &["searcher", "type"], || {
        format!("must be tpe for the scheduler bohb, found {}", searcher.name())
    });
}

/// How long the job is, where it says so and no parameter changes it.
fn fixed_length(job: Option<&JobSpec>, space: &Space) -> Option<Length> {
    let is_searched = space.parameters().iter().any(|p| ["train.epochs", "train.steps"].contains(&p.path.as_str()));
    job.filter(|_| !is_searched).map(|job| job.train.length)
}

fn scheduler(scheduler: &SchedulerSpec, whole: Option<Length>, wrong: &mut Wrong) {
    let warm_up = match scheduler {
        SchedulerSpec::None => None,
        SchedulerSpec::Asha(AshaOptions { min, max, eta, mode: _, warm_up }) => {
            rungs(*min, *max, *eta, whole, wrong);
            *warm_up
        }
        SchedulerSpec::Hyperband(options) | SchedulerSpec::Bohb(options) => {
            let BanditOptions { min, max, eta, warm_up } = options;
            rungs(*min, *max, *eta, whole, wrong);
            *warm_up
        }
        SchedulerSpec::Median(options) | SchedulerSpec::Percentile(options) => {
            let PercentileOptions { percentile, min_trials, interval, warm_up } = options;
            wrong.unless(*percentile > 0.0 && *percentile < 100.0, &["scheduler", "percentile"], || {
                "must be a number > 0 and < 100".to_owned()
            });
            wrong.count(&["scheduler", "min_trials"], *min_trials, 1, TRIALS_MAX);
            if let Some(interval) = interval {
                wrong.length(&["scheduler", "interval"], *interval);
                wrong.below_max(&["scheduler", "interval"], *interval, whole);
            }
            *warm_up
        }
        SchedulerSpec::Patience(PatienceOptions { evaluations, min_delta, warm_up }) => {
            wrong.count(&["scheduler", "evaluations"], *evaluations, 1, TRIALS_MAX);
            wrong.unless(min_delta.is_finite() && *min_delta >= 0.0, &["scheduler", "min_delta"], || {
                "must be a number >= 0".to_owned()
            });
            *warm_up
        }
        SchedulerSpec::Threshold(ThresholdOptions { value, warm_up }) => {
            wrong.unless(value.is_finite(), &["scheduler", "value"], || "must be a finite number".to_owned());
            *warm_up
        }
    };
    if let Some(warm_up) = warm_up {
        wrong.length(&["scheduler", "warm_up"], warm_up);
        wrong.below_max(&["scheduler", "warm_up"], warm_up, whole);
    }
}

fn rungs(min: Length, max: Option<Length>, eta: u32, whole: Option<Length>, wrong: &mut Wrong) {
    wrong.count(&["scheduler", "eta"], eta, 2, ETA_MAX);
    wrong.length(&["scheduler", "min"], min);
    if let Some(max) = max {
        wrong.length(&["scheduler", "max"], max);
        if let Some(job) = whole {
            let is_within = compared(max, job).is_none_or(Ordering::is_le);
            wrong.unless(is_within, &["scheduler", "max"], || {
                format!("must be at most the length of the job ({})", shown(job))
            });
        }
    }
    let (Some(top), what) = (max.or(whole), if max.is_some() { "max" } else { "the length of the job" }) else {
        return;
    };
    match compared(min, top) {
        Some(order) => wrong.unless(order.is_lt(), &["scheduler", "min"], || {
            format!("min ({}) must be < {what} ({})", shown(min), shown(top))
        }),
        None => wrong.0.push(Fault::new(
            &["scheduler", "min"],
            format!("min ({}) must be in the same unit as {what} ({})", shown(min), shown(top)),
        )),
    }
}
