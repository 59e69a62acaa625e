//! One run.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use domain::audit::{AuditReport, EpochTally};
use domain::picture::RunPicture;
use domain::results::Goodput;
use domain::view::{CheckpointView, GroupView, MeasurementView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, Named};
use super::cluster::{RunSummary, worker_id};
use super::{known_run, picture, within};
use crate::failure::Problem;
use crate::number::Number;
use crate::source::ModelLayer;
use crate::{App, Failure, LogLine, LogQuery, Start};

/// Evaluations that are sent with a run, the newest ones.
const MEASUREMENTS_MAX: usize = 5_000;

/// A run in full.
#[derive(Serialize, ToSchema)]
pub(crate) struct Run {
    #[serde(flatten)]
    summary: RunSummary,
    /// The ids of the members of its group, by rank.
    members: Vec<String>,
    /// Its newest evaluations, at most 5000.
    measurements: Vec<Measurement>,
    checkpoints: Vec<Checkpoint>,
    /// The job.
    #[schema(value_type = Object)]
    spec: Value,
    /// What its data hold, once a worker has told.
    data: Option<Data>,
    /// The groups that formed for it, oldest first; at most the newest 100.
    generations: Vec<Group>,
    /// How much of the time of its steps counts.
    goodput: Option<GoodputShare>,
}

/// An evaluation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Measurement {
    step: u64,
    loss: Number,
    accuracy: Number,
}

/// A committed checkpoint.
#[derive(Serialize, ToSchema)]
pub(crate) struct Checkpoint {
    step: u64,
    /// When it was committed.
    at: u64,
    /// Whether it is the best by the run's metric.
    best: bool,
    /// Whether it is the run's result.
    result: bool,
    /// Whether a user wants it to stay, whatever the job says.
    pinned: bool,
    weights_sha256: String,
    /// The path of its manifest in the checkpoint store.
    manifest: String,
}

/// What the data of a run hold.
#[derive(Serialize, ToSchema)]
pub(crate) struct Data {
    train_samples: u64,
    total_steps: u64,
}

/// A group that formed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Group {
    generation: u64,
    /// The step that it went on from.
    from_step: u64,
    at: u64,
    /// The ids of its members, by rank.
    workers: Vec<String>,
}

/// How much of the time of a run's steps counts.
#[derive(Serialize, ToSchema)]
pub(crate) struct GoodputShare {
    productive_micros: u64,
    /// Of steps that were taken back and made again.
    lost_micros: u64,
    share: f64,
}

impl Run {
    fn of(run: &RunPicture, goodput: Goodput) -> Self {
        let view = &run.view;
        let newest = view.measurements.len().saturating_sub(MEASUREMENTS_MAX);
        let Goodput { productive_micros, lost_micros } = goodput;
        let measurement = |m: &MeasurementView| Measurement {
            step: m.step.0,
            loss: m.eval_loss.into(),
            accuracy: m.eval_accuracy.into(),
        };
        let checkpoint = |checkpoint: &CheckpointView| {
            let CheckpointView { step, at, manifest, blake3: _, weights_sha256, best, result, pinned } =
                checkpoint.clone();
            Checkpoint { step: step.0, at: at.0, best, result, pinned, weights_sha256, manifest }
        };
        let group = |group: &GroupView| {
            let GroupView { generation, step, at, members } = group;
            let workers = members.iter().map(|member| worker_id(*member)).collect();
            Group { generation: generation.0, from_step: step.0, at: at.0, workers }
        };
        Self {
            summary: RunSummary::of(run),
            members: view.members.iter().map(|member| worker_id(*member)).collect(),
            measurements: view.measurements[newest..].iter().map(measurement).collect(),
            checkpoints: view.checkpoints.iter().map(checkpoint).collect(),
            spec: serde_json::to_value(&*run.spec).expect("a specification has only string keys"),
            data: run.data.map(|data| Data { train_samples: data.train_samples, total_steps: data.total_steps }),
            generations: view.groups.iter().map(group).collect(),
            goodput: goodput.share().map(|share| GoodputShare { productive_micros, lost_micros, share }),
        }
    }
}

/// A run in full
#[utoipa::path(
    get, path = "/api/v1/runs/{name}", tag = "runs", params(("name" = String, Path)),
    responses((status = 200, body = Run), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn run(State(app): State<App>, Named(name): Named) -> Result<Json<Run>, Failure> {
    let run: Arc<RunPicture> = known_run(&picture(&app), &name)?;
    let goodput = app.source.goodput(name).await?;
    Ok(Json(Run::of(&run, goodput)))
}

/// Which lines of a log.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct LogAsked {
    /// Lines after this one; without it and `before`, the newest ones.
    after: Option<u64>,
    /// The last lines before this one.
    before: Option<u64>,
    /// At most so many, 1 to 1000; 200 without it.
    limit: Option<usize>,
    /// Only lines with this text in it, whatever the case of ASCII letters; at most 200 bytes.
    search: Option<String>,
    /// Only lines of this source: `coordinator` or the short id of a worker.
    source: Option<String>,
}

const LINES_MAX: usize = 1_000;
const LINES_GIVEN: usize = 200;
const SEARCH_BYTES_MAX: usize = 200;

/// A part of a log.
#[derive(Serialize, ToSchema)]
pub(crate) struct Log {
    lines: Vec<LogLine>,
    /// What to ask for as `after` to go on; absent at the end.
    next: Option<u64>,
}

/// The log of a run or sweep
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/log", tag = "runs", params(("name" = String, Path), LogAsked),
    responses((status = 200, body = Log), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn log(
    State(app): State<App>,
    Named(run): Named,
    Asked(asked): Asked<LogAsked>,
) -> Result<Json<Log>, Failure> {
    if picture(&app).state(&run).is_none() {
        return Err(Failure::not_found(format!("there is no run {run}")));
    }
    let LogAsked { after, before, limit, search, source } = asked;
    for (key, text) in [("search", &search), ("source", &source)] {
        if text.as_ref().is_some_and(|text| text.len() > SEARCH_BYTES_MAX) {
            return Err(Failure::bad_request(format!("{key}: at most {SEARCH_BYTES_MAX} bytes")));
        }
    }
    let limit = within("limit", limit, LINES_GIVEN, LINES_MAX)?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let start = match (after, before) {
        (Some(after), None) => Start::After(after),
        (None, Some(before)) => Start::Before(before),
        (None, None) => Start::Newest,
        (Some(_), Some(_)) => return Err(Failure::bad_request("after and before exclude each other")),
    };
    let query = LogQuery { run, start, limit, search: filled(search), source: filled(source) };
    let (lines, next) = app.source.log(query).await?;
    Ok(Json(Log { lines, next }))
}

/// Who read what, counted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ledger {
    epochs: Vec<Epoch>,
    /// What the ledger says against the plan; absent while the run has not read anything.
    audit: Option<Audit>,
}

/// One pass over the data.
#[derive(Serialize, ToSchema)]
pub(crate) struct Epoch {
    /// From 0.
    epoch: u64,
    /// Samples of the data set.
    samples: u64,
    /// Those that were read once, as planned.
    read_once: u64,
    /// Samples read again because their step was taken back.
    replayed: u64,
    /// Samples that the run has not come to yet.
    pending: u64,
}

/// Whether every sample was read exactly once.
#[derive(Serialize, ToSchema)]
pub(crate) struct Audit {
    ok: bool,
    /// What was found, in words.
    text: Vec<String>,
}

impl Ledger {
    fn of(report: &AuditReport, samples: u64) -> Self {
        let epoch = |listed: &EpochTally| {
            let EpochTally { epoch, tally } = *listed;
            Epoch {
                epoch,
                samples,
                read_once: tally.expected.saturating_sub(tally.missing + tally.duplicated),
                replayed: report.replayed.get(&epoch).copied().unwrap_or_default(),
                pending: samples.saturating_sub(tally.expected),
            }
        };
        let text = report.findings.iter().map(ToString::to_string).chain([report.verdict()]).collect();
        let audit = Some(Audit { ok: report.is_clean(), text });
        Self { epochs: report.epochs.iter().map(epoch).collect(), audit }
    }
}

/// The ledger of a run against its plan
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/ledger", tag = "runs", params(("name" = String, Path)),
    responses((status = 200, body = Ledger), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn ledger(State(app): State<App>, Named(name): Named) -> Result<Json<Ledger>, Failure> {
    let run = known_run(&picture(&app), &name)?;
    let samples = run.data.map_or(0, |data| data.train_samples);
    let report = app.source.audit(name).await?;
    Ok(Json(report.map_or(Ledger { epochs: Vec::new(), audit: None }, |report| Ledger::of(&report, samples))))
}

/// What a model is made of.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model {
    /// Elements of all layers.
    parameters: u64,
    layers: Vec<ModelLayer>,
}

/// The layers of the newest checkpoint
///
/// `null` before the first checkpoint.
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/model", tag = "runs", params(("name" = String, Path)),
    responses((status = 200, body = Option<Model>), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn model(State(app): State<App>, Named(name): Named) -> Result<Json<Option<Model>>, Failure> {
    known_run(&picture(&app), &name)?;
    let layers = app.source.model(name).await?;
    let model =
        |layers: Vec<ModelLayer>| Model { parameters: layers.iter().map(|layer| layer.parameters).sum(), layers };
    Ok(Json(layers.map(model)))
}
