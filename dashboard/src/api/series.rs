//! The figures of a run's steps, for charts.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use domain::series::{Bucket, Extent, Figure, Sampler};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, Named};
use super::{known_run, picture, within};
use crate::failure::Problem;
use crate::number::Number;
use crate::{App, Failure, SeriesQuery};

/// Which figures of which steps.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct SeriesAsked {
    /// Names of figures, separated by commas: loss, lr, grad_norm, step_seconds, outside_seconds, samples_per_second,
    /// elapsed_seconds; all without it.
    keys: Option<String>,
    /// The first step; 1 without it.
    from: Option<u64>,
    /// The last step; the newest without it.
    to: Option<u64>,
    /// At most so many points, 1 to 5000; 1000 without it.
    points: Option<usize>,
}

const POINTS_MAX: usize = 5_000;
const POINTS_GIVEN: usize = 1_000;

/// Figures of steps. Where there are more steps than points, a point stands for several neighbouring steps, and has the
/// least, the greatest and the last value of each figure.
#[derive(Serialize, ToSchema)]
pub(crate) struct SeriesData {
    /// The last step of each point.
    steps: Vec<u64>,
    /// By figure.
    series: BTreeMap<&'static str, Values>,
    /// Steps that were taken back, in the same form; their time leads nowhere, so they have no elapsed_seconds.
    rolled_back: Vec<RolledBack>,
    /// Steps that all points stand for.
    total: u64,
    /// Grows when a step is added or taken back.
    version: u64,
}

/// The values of a figure.
#[derive(Serialize, ToSchema)]
pub(crate) struct Values {
    min: Vec<Number>,
    max: Vec<Number>,
    last: Vec<Number>,
}

/// Steps of a generation that were taken back.
#[derive(Serialize, ToSchema)]
pub(crate) struct RolledBack {
    generation: u64,
    steps: Vec<u64>,
    series: BTreeMap<&'static str, Values>,
}

fn steps(sampler: &Sampler) -> Vec<u64> {
    sampler.buckets().iter().map(|bucket| bucket.step.0).collect()
}

fn values(sampler: &Sampler, figures: &[Figure]) -> BTreeMap<&'static str, Values> {
    let of_figure = |figure: &Figure| {
        let pick = |value: fn(&Extent) -> f64| {
            let number = |bucket: &Bucket| Number::from(value(bucket.figure(*figure)));
            sampler.buckets().iter().map(number).collect()
        };
        (figure.name(), Values { min: pick(|e| e.min), max: pick(|e| e.max), last: pick(|e| e.last) })
    };
    figures.iter().map(of_figure).collect()
}

fn figures(keys: Option<&str>) -> Result<Vec<Figure>, Failure> {
    let Some(keys) = keys else { return Ok(Figure::ALL.to_vec()) };
    let figure = |key: &str| {
        let known = Figure::ALL.into_iter().find(|figure| figure.name() == key);
        known.ok_or_else(|| {
            let names = Figure::ALL.map(Figure::name).join(", ");
            Failure::bad_request(format!("keys: {key:?} is none of {names}"))
        })
    };
    keys.split(',').map(figure).collect()
}

/// The figures of a run's steps
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/series", tag = "runs", params(("name" = String, Path), SeriesAsked),
    responses((status = 200, body = SeriesData), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn series(
    State(app): State<App>,
    Named(name): Named,
    Asked(asked): Asked<SeriesAsked>,
) -> Result<Json<SeriesData>, Failure> {
    let run = known_run(&picture(&app), &name)?;
    let figures = figures(asked.keys.as_deref())?;
    let newest = run.newest.as_ref().map_or(run.view.step.0, |record| record.step.0);
    let (from, to) = (asked.from.unwrap_or(1), asked.to.unwrap_or(newest).min(newest));
    if asked.to.is_some_and(|to| to < from) {
        return Err(Failure::bad_request(format!("from ({from}) must be <= to ({})", asked.to.unwrap_or_default())));
    }
    let points = within("points", asked.points, POINTS_GIVEN, POINTS_MAX)?;
    let series = app.source.series(SeriesQuery { run: name, steps: from..=to, points }).await?;
    let lost: Vec<Figure> = figures.iter().copied().filter(|figure| *figure != Figure::ElapsedSeconds).collect();
    let rolled_back = series.rolled_back.iter().map(|(generation, sampler)| RolledBack {
        generation: generation.0,
        steps: steps(sampler),
        series: values(sampler, &lost),
    });
    Ok(Json(SeriesData {
        steps: steps(&series.live),
        series: values(&series.live, &figures),
        rolled_back: rolled_back.collect(),
        total: series.live.steps(),
        version: series.version,
    }))
}
