//! One sweep.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use domain::picture::{Picture, SweepPicture, TrialPicture};
use domain::results::{Importances, Results, Rung};
use domain::search::importance;
use domain::search::scheduler::Decision;
use domain::search::study::Fact;
use domain::search::{Condition, Domain, Parameter, Value as Tried};
use domain::spec::EvalMetric;
use domain::spec::sweep::{Objective, Unit, Words};
use domain::view::{SweepTrialView, TrialState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, Named};
use super::cluster::{SweepHead, TrialCounts};
use super::{known_sweep, picture};
use crate::failure::Problem;
use crate::number::Number;
use crate::{App, Failure};

/// A sweep in full.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sweep {
    #[serde(flatten)]
    head: SweepHead,
    /// Trials by state.
    counts: TrialCounts,
    /// The sweep as it was asked for.
    #[schema(value_type = Object)]
    spec: Value,
    /// What budgets count: `epochs` or `steps`.
    unit: Option<&'static str>,
    space: Vec<SpaceParameter>,
    /// Names of what is measured of every trial.
    metrics: [&'static str; 2],
    /// All trials, by number.
    trials: Vec<SweepTrial>,
    /// From the lowest budget.
    rungs: Vec<RungCounts>,
    /// Which parameters mattered for each objective; empty while too little is known.
    importance: Vec<Importance>,
    /// Why the list is empty, or between which trials it holds.
    importance_note: String,
    /// The numbers of the trials that no other one beats.
    front: Vec<u32>,
    /// What ending trials early saved.
    time_saved: Option<TimeSaved>,
}

/// Something that is tried.
#[derive(Serialize, ToSchema)]
pub(crate) struct SpaceParameter {
    /// The path of its key in the job file.
    path: String,
    /// `uniform`, `log_uniform`, `integer`, `log_integer`, `categorical`, `ordinal` or `constant`.
    kind: &'static str,
    low: Option<f64>,
    high: Option<f64>,
    /// The values, where it has no bounds.
    #[schema(value_type = Option<Vec<Object>>)]
    choices: Option<Vec<Tried>>,
    /// Under which choice of another parameter it exists, in words.
    condition: Option<String>,
}

/// A trial of a sweep.
#[derive(Serialize, ToSchema)]
pub(crate) struct SweepTrial {
    number: u32,
    /// The run that trains it.
    run: String,
    /// `training`, `paused`, `completed`, `pruned` or `failed`.
    #[schema(value_type = String)]
    state: TrialState,
    /// Why it stands there; may be empty.
    reason: String,
    /// What it tries, by the path of the key; parameters that do not exist in it are absent.
    #[schema(value_type = BTreeMap<String, Object>)]
    parameters: BTreeMap<String, Tried>,
    /// The objectives when it rested last.
    values: Option<Vec<Number>>,
    /// The budget at which it rested last.
    budget: u64,
    /// Steps completed and durable.
    step: u64,
    /// The trial that it is a copy of, and where it was copied.
    parent: Option<Parent>,
    /// What its evaluations gave, by metric.
    metrics: BTreeMap<&'static str, Course>,
    started_at: Option<u64>,
    ended_at: Option<u64>,
}

/// What a trial is a copy of.
#[derive(Serialize, ToSchema)]
pub(crate) struct Parent {
    trial: u32,
    budget: u64,
}

/// The evaluations of a trial in short.
#[derive(Serialize, ToSchema)]
pub(crate) struct Course {
    last: Number,
    min: Number,
    max: Number,
}

/// What became of the trials that rested with one budget.
#[derive(Serialize, ToSchema)]
pub(crate) struct RungCounts {
    budget: u64,
    /// Trials that rested there.
    reached: u32,
    /// Of them, those that went on or are complete.
    promoted: u32,
    /// Of them, those that were stopped there.
    stopped: u32,
}

/// How much a parameter mattered.
#[derive(Serialize, ToSchema)]
pub(crate) struct Importance {
    path: String,
    /// Its share of the importance of all parameters, 0 to 1.
    share: f64,
    /// The metric that it mattered for.
    objective: &'static str,
}

/// What ending trials early saved.
#[derive(Serialize, ToSchema)]
pub(crate) struct TimeSaved {
    /// Steps that were not made.
    steps: u64,
    /// The steps of all trials that came to their end, had nobody ended them early.
    full_steps: u64,
    /// Seconds of workers that were not spent, at each trial's own pace.
    seconds: Number,
    /// The seconds of all these trials, had nobody ended them early.
    full_seconds: Number,
}

const METRICS: [EvalMetric; 2] = [EvalMetric::EvalLoss, EvalMetric::EvalAccuracy];

impl Sweep {
    fn of(sweep: &SweepPicture, picture: &Picture, results: &Results) -> Self {
        let spec = &sweep.spec;
        let Results { front, rungs, importances, saved } = results;
        let rung = |rung: &Rung| {
            let Rung { budget, reached, promoted, stopped } = *rung;
            RungCounts { budget, reached, promoted, stopped }
        };
        let time_saved = saved.map(|saved| TimeSaved {
            steps: saved.full_steps.saturating_sub(saved.steps),
            full_steps: saved.full_steps,
            full_seconds: saved.full_worker_seconds.into(),
            seconds: (saved.full_worker_seconds - saved.worker_seconds).into(),
        });
        let unit = spec.study_spec().ok().map(|(_, unit)| unit);
        let words = Words { objectives: &spec.objectives, unit };
        Self {
            head: SweepHead::of(sweep),
            counts: TrialCounts::of(sweep),
            spec: serde_json::to_value(&**spec).expect("a specification has only string keys"),
            unit: unit.map(Unit::name),
            space: spec.space.parameters().iter().map(SpaceParameter::of).collect(),
            metrics: METRICS.map(EvalMetric::name),
            trials: sweep.trials().map(|trial| SweepTrial::of(trial, picture)).collect(),
            rungs: rungs.iter().map(rung).collect(),
            importance: importance(importances, &spec.objectives),
            importance_note: importance_note(importances, words),
            front: front.clone(),
            time_saved,
        }
    }
}

fn importance(importances: &Importances, named: &[Objective]) -> Vec<Importance> {
    let Importances::Known { objectives, .. } = importances else { return Vec::new() };
    let of_objective = |(objective, parameters): (&Objective, &Vec<importance::Importance>)| {
        let metric = objective.metric.name();
        let one =
            |one: &importance::Importance| Importance { path: one.path.clone(), share: one.share, objective: metric };
        parameters.iter().map(one).collect::<Vec<_>>()
    };
    named.iter().zip(objectives).flat_map(of_objective).collect()
}

fn importance_note(importances: &Importances, words: Words<'_>) -> String {
    match importances {
        Importances::TooFew { have, need } => format!("{have} of {need} trials that are needed were measured"),
        Importances::Known { budget, trials, .. } => {
            format!("{trials} trials, compared after {}", words.length(*budget))
        }
    }
}

impl SpaceParameter {
    fn of(parameter: &Parameter) -> Self {
        let Parameter { path, domain, when } = parameter;
        let bounds = |low: f64, high: f64| (Some(low), Some(high), None);
        let (kind, (low, high, choices)) = match domain {
            Domain::Uniform { low, high } => ("uniform", bounds(*low, *high)),
            Domain::LogUniform { low, high } => ("log_uniform", bounds(*low, *high)),
            Domain::Integer { low, high, step: _ } => ("integer", bounds(*low as f64, *high as f64)),
            Domain::LogInteger { low, high } => ("log_integer", bounds(*low as f64, *high as f64)),
            Domain::Categorical { values } => ("categorical", (None, None, Some(values.clone()))),
            Domain::Ordinal { values } => ("ordinal", (None, None, Some(values.clone()))),
            Domain::Constant { value } => ("constant", (None, None, Some(vec![value.clone()]))),
        };
        let condition = |Condition { path, values }: &Condition| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("{path} = {}", values.join(" or "))
        };
        Self { path: path.clone(), kind, low, high, choices, condition: when.as_ref().map(condition) }
    }
}

impl SweepTrial {
    pub(crate) fn of(trial: &TrialPicture, picture: &Picture) -> Self {
        let SweepTrialView { number, run, configuration, state, reason, budget, step, values, parent } = &trial.view;
        let known = picture.run(run);
        let measurements = known.map(|run| run.view.measurements.as_slice()).unwrap_or_default();
        let course = |metric: EvalMetric| {
            let value = |at: usize| {
                let m = &measurements[at];
                metric.of(m.eval_loss.into(), m.eval_accuracy.into())
            };
            let last = measurements.len().checked_sub(1)?;
            let all = || (0..=last).map(value);
            let (min, max) = (all().fold(f64::NAN, f64::min), all().fold(f64::NAN, f64::max));
            Some((metric.name(), Course { last: value(last).into(), min: min.into(), max: max.into() }))
        };
        Self {
            number: *number,
            run: run.to_string(),
            state: *state,
            reason: reason.clone(),
            parameters: configuration.clone(),
            values: (!values.is_empty()).then(|| values.iter().map(|value| (*value).into()).collect()),
            budget: *budget,
            step: known.map_or(step.0, |run| run.view.step.0.max(step.0)),
            parent: parent.map(|(trial, budget)| Parent { trial, budget }),
            metrics: METRICS.into_iter().filter_map(course).collect(),
            started_at: known.map(|run| run.view.submitted_at.0),
            ended_at: known.and_then(|run| run.view.ended_at).map(|at| at.0),
        }
    }
}

/// A sweep in full
#[utoipa::path(
    get, path = "/api/v1/sweeps/{name}", tag = "sweeps", params(("name" = String, Path)),
    responses((status = 200, body = Sweep), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn sweep(State(app): State<App>, Named(name): Named) -> Result<Json<Sweep>, Failure> {
    let picture = picture(&app);
    known_sweep(&picture, &name)?;
    let results = app.source.results(name.clone()).await?;
    Ok(Json(Sweep::of(known_sweep(&picture, &name)?, &picture, &results)))
}

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DecisionsAsked {
    /// Only those about this trial; without it, the newest 1000 of all trials.
    trial: Option<u32>,
}

const DECISIONS_MAX: usize = 1_000;

/// What a sweep decided.
#[derive(Serialize, ToSchema)]
pub(crate) struct Decisions {
    /// In the order in which they were made.
    decisions: Vec<DecisionMade>,
}

/// Something that was decided about a trial.
#[derive(Serialize, ToSchema)]
pub(crate) struct DecisionMade {
    trial: u32,
    /// The budget at which it was made.
    budget: Option<u64>,
    /// `started`, `resumed`, `continued`, `paused`, `completed`, `stopped`, `retried` or `failed`.
    kind: &'static str,
    /// What and why.
    text: String,
}

impl DecisionMade {
    fn of(fact: &Fact, words: Words<'_>) -> Option<Self> {
        use domain::search::study::AfterFailure;
        let (kind, budget) = match fact {
            Fact::Started { target, .. } => ("started", Some(*target)),
            Fact::Resumed { target, .. } => ("resumed", Some(*target)),
            Fact::Rested { budget, decision, .. } => {
                let kind = match decision {
                    Decision::Continue { .. } => "continued",
                    Decision::Pause => "paused",
                    Decision::Complete => "completed",
                    Decision::Stop(_) => "stopped",
                };
                (kind, Some(*budget))
            }
            Fact::Failed { after: AfterFailure::Retry { .. }, .. } => ("retried", None),
            Fact::Failed { after: AfterFailure::Failed { .. }, .. } => ("failed", None),
            Fact::Ended { .. } => ("stopped", None),
            Fact::OutOfTime { .. } | Fact::Waited | Fact::Finished { .. } => return None,
        };
        Some(Self { trial: fact.trial()?, budget, kind, text: words.fact(fact)? })
    }
}

/// What a sweep decided about its trials, and why
#[utoipa::path(
    get, path = "/api/v1/sweeps/{name}/decisions", tag = "sweeps", params(("name" = String, Path), DecisionsAsked),
    responses((status = 200, body = Decisions), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn decisions(
    State(app): State<App>,
    Named(name): Named,
    Asked(asked): Asked<DecisionsAsked>,
) -> Result<Json<Decisions>, Failure> {
    let spec = known_sweep(&picture(&app), &name)?.spec.clone();
    let facts = app.source.facts(name).await?;
    let unit = spec.study_spec().ok().map(|(_, unit)| unit);
    let words = Words { objectives: &spec.objectives, unit };
    let wanted = facts.iter().filter(|fact| asked.trial.is_none_or(|trial| fact.trial() == Some(trial)));
    let mut decisions: Vec<DecisionMade> =
        wanted.rev().filter_map(|fact| DecisionMade::of(fact, words)).take(DECISIONS_MAX).collect();
    decisions.reverse();
    Ok(Json(Decisions { decisions }))
}
