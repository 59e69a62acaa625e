use super::super::section::{Interval, Section, Value};
use crate::batch::Length;
use crate::spec::EvalMetric;
use crate::spec::sweep::{
    AshaOptions, BanditOptions, CmaEsOptions, GaussianProcessOptions, Goal, GridOptions, Nsga2Options, Objective,
    PatienceOptions, PercentileOptions, PopulationOptions, RungMode, SchedulerSpec, SearcherSpec, ThresholdOptions,
    TpeOptions,
};

pub(super) fn natural(metric: EvalMetric) -> Objective {
    Objective::natural(metric)
}

/// A metric, or a section with a metric and its goal.
pub(super) fn read_objective(value: &Value<'_>) -> Option<Objective> {
    let metric = |v: &Value<'_>| {
        v.choice(&[EvalMetric::EvalLoss, EvalMetric::EvalAccuracy].map(|metric| (metric.name(), metric)))
    };
    if !value.is_section() {
        return metric(value).map(Objective::natural);
    }
    let section = value.section()?;
    let metric = section.required("metric", metric);
    let goal =
        section.optional("goal", |v| v.choice(&[Goal::Maximize, Goal::Minimize].map(|goal| (goal.name(), goal))));
    section.finish();
    let (metric, goal) = (metric?, goal?);
    Some(Objective { metric, goal: goal.unwrap_or(Goal::of(metric)) })
}

pub(super) fn default_searcher() -> SearcherSpec {
    SearcherSpec::Tpe(TpeOptions::default())
}

#[derive(Clone, Copy)]
enum SearcherKind {
    Grid,
    Random,
    Sobol,
    Tpe,
    GaussianProcess,
    CmaEs,
    Nsga2,
    Population,
}

const SEARCHERS: [(&str, SearcherKind); 8] = [
    ("grid", SearcherKind::Grid),
    ("random", SearcherKind::Random),
    ("sobol", SearcherKind::Sobol),
    ("tpe", SearcherKind::Tpe),
    ("gaussian_process", SearcherKind::GaussianProcess),
    ("cma_es", SearcherKind::CmaEs),
    ("nsga2", SearcherKind::Nsga2),
    ("population", SearcherKind::Population),
];

fn count(value: &Value<'_>) -> Option<u32> {
    value.integer_u32(0..=u64::from(u32::MAX))
}

fn number(value: &Value<'_>) -> Option<f64> {
    value.number(Interval::ANY)
}

pub(super) fn read_searcher(value: &Value<'_>) -> Option<SearcherSpec> {
    let section = value.section()?;
    let searcher = match section.required("type", |v| v.choice(&SEARCHERS))? {
        SearcherKind::Grid => {
            section.optional("points", count).map(|points| SearcherSpec::Grid(GridOptions { points }))
        }
        SearcherKind::Random => Some(SearcherSpec::Random),
        SearcherKind::Sobol => Some(SearcherSpec::Sobol),
        SearcherKind::Tpe => read_tpe(&section).map(SearcherSpec::Tpe),
        SearcherKind::GaussianProcess => {
            let startup = section.or("startup", GaussianProcessOptions::default().startup, count);
            startup.map(|startup| SearcherSpec::GaussianProcess(GaussianProcessOptions { startup }))
        }
        SearcherKind::CmaEs => read_cma_es(&section).map(SearcherSpec::CmaEs),
        SearcherKind::Nsga2 => read_nsga2(&section).map(SearcherSpec::Nsga2),
        SearcherKind::Population => read_population(&section).map(SearcherSpec::Population),
    };
    section.finish();
    searcher
}

fn read_tpe(section: &Section<'_>) -> Option<TpeOptions> {
    let default = TpeOptions::default();
    let startup = section.or("startup", default.startup, count);
    let candidates = section.or("candidates", default.candidates, count);
    let good_share = section.or("good_share", default.good_share, number);
    Some(TpeOptions { startup: startup?, candidates: candidates?, good_share: good_share? })
}

fn read_cma_es(section: &Section<'_>) -> Option<CmaEsOptions> {
    let population = section.optional("population", count);
    let sigma = section.or("sigma", CmaEsOptions::default().sigma, number);
    Some(CmaEsOptions { population: population?, sigma: sigma? })
}

fn read_nsga2(section: &Section<'_>) -> Option<Nsga2Options> {
    let default = Nsga2Options::default();
    let population = section.or("population", default.population, count);
    let crossover_probability = section.or("crossover_probability", default.crossover_probability, number);
    let mutation_probability = section.optional("mutation_probability", number);
    Some(Nsga2Options {
        population: population?,
        crossover_probability: crossover_probability?,
        mutation_probability: mutation_probability?,
    })
}

fn read_population(section: &Section<'_>) -> Option<PopulationOptions> {
    let default = PopulationOptions::default();
    let population = section.or("population", default.population, count);
    let interval = section.optional("interval", read_length);
    let quantile = section.or("quantile", default.quantile, number);
    let resample_probability = section.or("resample_probability", default.resample_probability, number);
    let perturb = section.or("perturb", default.perturb, |v| match v.list(number)?[..] {
        [down, up] => Some([down, up]),
        _ => v.problem("must be two factors, such as [0.8, 1.2]", None),
    });
    Some(PopulationOptions {
        population: population?,
        interval: interval?,
        quantile: quantile?,
        resample_probability: resample_probability?,
        perturb: perturb?,
    })
}

#[derive(Clone, Copy)]
enum SchedulerKind {
    None,
    Asha,
    Hyperband,
    Bohb,
    Median,
    Percentile,
    Patience,
    Threshold,
}

const SCHEDULERS: [(&str, SchedulerKind); 8] = [
    ("none", SchedulerKind::None),
    ("asha", SchedulerKind::Asha),
    ("hyperband", SchedulerKind::Hyperband),
    ("bohb", SchedulerKind::Bohb),
    ("median", SchedulerKind::Median),
    ("percentile", SchedulerKind::Percentile),
    ("patience", SchedulerKind::Patience),
    ("threshold", SchedulerKind::Threshold),
];

pub(super) fn read_scheduler(value: &Value<'_>) -> Option<SchedulerSpec> {
    let section = value.section()?;
    let scheduler = match section.required("type", |v| v.choice(&SCHEDULERS))? {
        SchedulerKind::None => Some(SchedulerSpec::None),
        SchedulerKind::Asha => read_asha(&section).map(SchedulerSpec::Asha),
        SchedulerKind::Hyperband => read_bandit(&section).map(SchedulerSpec::Hyperband),
        SchedulerKind::Bohb => read_bandit(&section).map(SchedulerSpec::Bohb),
        SchedulerKind::Median => {
            let percentile = PercentileOptions::default().percentile;
            read_percentile(&section, Some(percentile)).map(SchedulerSpec::Median)
        }
        SchedulerKind::Percentile => {
            let percentile = section.or("percentile", PercentileOptions::default().percentile, number);
            read_percentile(&section, percentile).map(SchedulerSpec::Percentile)
        }
        SchedulerKind::Patience => read_patience(&section).map(SchedulerSpec::Patience),
        SchedulerKind::Threshold => {
            let value = section.required("value", number);
            let warm_up = section.optional("warm_up", read_length);
            value.zip(warm_up).map(|(value, warm_up)| SchedulerSpec::Threshold(ThresholdOptions { value, warm_up }))
        }
    };
    section.finish();
    scheduler
}

fn read_asha(section: &Section<'_>) -> Option<AshaOptions> {
    let default = AshaOptions::default();
    let min = section.or("min", default.min, read_length);
    let max = section.optional("max", read_length);
    let eta = section.or("eta", default.eta, count);
    let mode = section.or("mode", default.mode, |v| v.choice(&[("stop", RungMode::Stop), ("pause", RungMode::Pause)]));
    let warm_up = section.optional("warm_up", read_length);
    Some(AshaOptions { min: min?, max: max?, eta: eta?, mode: mode?, warm_up: warm_up? })
}

fn read_bandit(section: &Section<'_>) -> Option<BanditOptions> {
    let default = BanditOptions::default();
    let min = section.or("min", default.min, read_length);
    let max = section.optional("max", read_length);
    let eta = section.or("eta", default.eta, count);
    let warm_up = section.optional("warm_up", read_length);
    Some(BanditOptions { min: min?, max: max?, eta: eta?, warm_up: warm_up? })
}

fn read_percentile(section: &Section<'_>, percentile: Option<f64>) -> Option<PercentileOptions> {
    let min_trials = section.or("min_trials", PercentileOptions::default().min_trials, count);
    let interval = section.optional("interval", read_length);
    let warm_up = section.optional("warm_up", read_length);
    Some(PercentileOptions { percentile: percentile?, min_trials: min_trials?, interval: interval?, warm_up: warm_up? })
}

fn read_patience(section: &Section<'_>) -> Option<PatienceOptions> {
    let default = PatienceOptions::default();
    let evaluations = section.or("evaluations", default.evaluations, count);
    let min_delta = section.or("min_delta", default.min_delta, number);
    let warm_up = section.optional("warm_up", read_length);
    Some(PatienceOptions { evaluations: evaluations?, min_delta: min_delta?, warm_up: warm_up? })
}

/// `{epochs: n}` or `{steps: n}`.
fn read_length(value: &Value<'_>) -> Option<Length> {
    let hint = || Some("{epochs: 5} or {steps: 100}".to_owned());
    if !value.is_section() {
        return value.problem("must say epochs or steps", hint());
    }
    let section = value.section()?;
    let epochs = section.optional("epochs", |v| v.integer(0..=u64::MAX));
    let steps = section.optional("steps", |v| v.integer(0..=u64::MAX));
    section.finish();
    match (epochs?, steps?) {
        (Some(epochs), None) => Some(Length::Epochs(epochs)),
        (None, Some(steps)) => Some(Length::Steps(steps)),
        _ => value.problem("must say either epochs or steps", hint()),
    }
}
