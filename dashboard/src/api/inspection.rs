//! The inside of a run's model, as it was seen while it trained.

use axum::Json;
use axum::extract::State;
use domain::ids::{Generation, Step};
use domain::inspection::{self, Inspection, NAME_BYTES_MAX, TensorHistograms};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, Named, NamedStep};
use super::{known_run, picture};
use crate::failure::Problem;
use crate::source::InspectedAt;
use crate::{App, Failure};

/// What was looked at, and when.
#[derive(Serialize, ToSchema)]
pub(crate) struct Inspections {
    /// The newest ones of the run, at most 100, by step and then by generation.
    inspections: Vec<InspectedAt>,
    /// The tensors that the newest one which counts has histograms of.
    tensors: Vec<Tensor>,
}

/// A parameter.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tensor {
    name: String,
    shape: Vec<u64>,
}

/// When the inside of the model was looked at
///
/// A job asks for it with its section `inspect`.
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/inspections", tag = "runs", params(("name" = String, Path)),
    responses((status = 200, body = Inspections), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn inspections(State(app): State<App>, Named(name): Named) -> Result<Json<Inspections>, Failure> {
    known_run(&picture(&app), &name)?;
    let inspections = app.source.inspections(name.clone()).await?;
    let newest = inspections.iter().rfind(|inspected| !inspected.rolled_back);
    let newest = match newest {
        Some(newest) => app.source.inspection(name, Step(newest.step), None).await?,
        None => None,
    };
    let tensors = newest.map(|(_, inspection)| inspection.tensors).unwrap_or_default();
    let tensors = tensors.into_iter().map(|TensorHistograms { name, shape, .. }| Tensor { name, shape }).collect();
    Ok(Json(Inspections { inspections, tensors }))
}

/// Which inspection, and what of it.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct InspectionAsked {
    /// The one of this generation, also if it was taken back; without it the one that counts.
    generation: Option<u64>,
    /// Only this part: `histograms` or `attention`; both without it.
    #[param(inline)]
    part: Option<Part>,
}

/// A part of what was seen.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// How parameters and gradients are spread.
    Histograms,
    /// What attention looks at.
    Attention,
}

/// The inside of a model at a step.
#[derive(Serialize, ToSchema)]
pub(crate) struct InspectionData {
    #[serde(flatten)]
    inspected: InspectedAt,
    /// Parameters and their gradients, sorted by name.
    tensors: Vec<TensorData>,
    /// Tensors that there was no room for, the smallest ones.
    tensors_left_out: u64,
    /// What attention looks at, if that was asked for.
    attention: Option<Attention>,
}

/// A parameter and its gradient.
#[derive(Serialize, ToSchema)]
pub(crate) struct TensorData {
    name: String,
    shape: Vec<u64>,
    /// Its values after the step.
    weights: Histogram,
    /// Its gradient, the mean over the global batch before clipping.
    gradient: Histogram,
}

/// How values are spread, in 64 equally wide buckets from the least to the greatest finite value.
#[derive(Serialize, ToSchema)]
pub(crate) struct Histogram {
    /// The lower edge of the first bucket.
    low: f64,
    /// The upper edge of the last bucket, which belongs to it.
    high: f64,
    /// Values in each bucket.
    counts: Vec<u64>,
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    /// Values that are 0.
    zeros: u64,
    /// Values that are infinite or no number; in none of the buckets and none of the figures.
    non_finite: u64,
}

/// What attention looks at.
#[derive(Serialize, ToSchema)]
pub(crate) struct Attention {
    /// The first of the held-out samples.
    samples: Vec<Sample>,
    /// From the inputs to the outputs.
    layers: Vec<Layer>,
}

/// A held-out sample.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sample {
    label: u32,
    width: u32,
    height: u32,
    /// Values of a pixel: 1 grey, 2 grey and opacity, 3 colours, 4 colours and opacity.
    channels: u32,
    /// Row by row, the channels of a pixel together, 0 to 255.
    pixels: Vec<u8>,
}

/// What the heads of a layer look at.
#[derive(Serialize, ToSchema)]
pub(crate) struct Layer {
    name: String,
    heads: u32,
    /// Tokens that look.
    queries: u32,
    /// Tokens that can be looked at.
    keys: u32,
    /// Neighbouring tokens that make a row or column.
    block: u32,
    rows: u32,
    columns: u32,
    /// Those of the first sample by head, then those of the next.
    patterns: Vec<Pattern>,
}

/// What a head looks at.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pattern {
    /// The greatest cell, 0 to 1.
    peak: f32,
    /// Row by row, in 65,535ths of the peak. A row has a query and adds up to 1, a column a key.
    cells: Vec<u16>,
}

impl From<inspection::Histogram> for Histogram {
    fn from(histogram: inspection::Histogram) -> Self {
        let inspection::Histogram { low, high, counts, min, max, mean, std, zeros, non_finite } = histogram;
        Self { low, high, counts, min, max, mean, std, zeros, non_finite }
    }
}

impl From<TensorHistograms> for TensorData {
    fn from(tensor: TensorHistograms) -> Self {
        let TensorHistograms { name, shape, weights, gradient } = tensor;
        Self { name, shape, weights: weights.into(), gradient: gradient.into() }
    }
}

impl From<inspection::Attention> for Attention {
    fn from(attention: inspection::Attention) -> Self {
        let inspection::Attention { samples, layers } = attention;
        let sample = |sample: inspection::Sample| {
            let inspection::Sample { label, width, height, channels, pixels } = sample;
            Sample { label, width, height, channels, pixels }
        };
        let pattern = |inspection::Pattern { peak, cells }| Pattern { peak, cells };
        let layer = |layer: inspection::AttentionLayer| {
            let (rows, columns) = (layer.rows(), layer.columns());
            let inspection::AttentionLayer { name, heads, queries, keys, block, patterns } = layer;
            let patterns = patterns.into_iter().map(pattern).collect();
            Layer { name, heads, queries, keys, block, rows, columns, patterns }
        };
        Self { samples: samples.into_iter().map(sample).collect(), layers: layers.into_iter().map(layer).collect() }
    }
}

impl InspectionData {
    fn of(inspected: InspectedAt, inspection: Inspection, part: Option<Part>) -> Self {
        let Inspection { step: _, generation: _, tensors, tensors_left_out, attention } = inspection;
        let (tensors, attention) = match part {
            None => (tensors, attention),
            Some(Part::Histograms) => (tensors, None),
            Some(Part::Attention) => (Vec::new(), attention),
        };
        let tensors = tensors.into_iter().map(TensorData::from).collect();
        Self { inspected, tensors, tensors_left_out, attention: attention.map(Attention::from) }
    }
}

/// The inside of the model at a step
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/inspections/{step}", tag = "runs",
    params(("name" = String, Path), ("step" = u64, Path), InspectionAsked),
    responses((status = 200, body = InspectionData), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn inspection(
    State(app): State<App>,
    NamedStep(name, step): NamedStep,
    Asked(asked): Asked<InspectionAsked>,
) -> Result<Json<InspectionData>, Failure> {
    known_run(&picture(&app), &name)?;
    let InspectionAsked { generation, part } = asked;
    let found = app.source.inspection(name.clone(), step, generation.map(Generation)).await?;
    let none = || {
        let known = format!("/api/v1/runs/{name}/inspections lists those that are kept");
        Failure::not_found(format!("there is no inspection of step {step} of run {name}")).with_hint(&known)
    };
    let (inspected, inspection) = found.ok_or_else(none)?;
    Ok(Json(InspectionData::of(inspected, inspection, part)))
}

/// Which tensor.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct HistogramsAsked {
    /// Its name.
    tensor: String,
}

/// A tensor over time.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistogramsData {
    tensor: String,
    /// By step; only those that count.
    steps: Vec<HistogramsAt>,
}

/// A tensor at a step.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistogramsAt {
    #[serde(flatten)]
    inspected: InspectedAt,
    /// Its values after the step.
    weights: Histogram,
    /// Its gradient, the mean over the global batch before clipping.
    gradient: Histogram,
}

/// How the values and the gradient of a tensor changed over time
#[utoipa::path(
    get, path = "/api/v1/runs/{name}/histograms", tag = "runs", params(("name" = String, Path), HistogramsAsked),
    responses((status = 200, body = HistogramsData), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(crate) async fn histograms(
    State(app): State<App>,
    Named(name): Named,
    Asked(HistogramsAsked { tensor }): Asked<HistogramsAsked>,
) -> Result<Json<HistogramsData>, Failure> {
    known_run(&picture(&app), &name)?;
    if tensor.len() > NAME_BYTES_MAX {
        return Err(Failure::bad_request(format!("tensor: at most {NAME_BYTES_MAX} bytes")));
    }
    let found = app.source.histograms(name, tensor.clone()).await?;
    let at = |(inspected, tensor): (InspectedAt, TensorHistograms)| {
        let TensorHistograms { name: _, shape: _, weights, gradient } = tensor;
        HistogramsAt { inspected, weights: weights.into(), gradient: gradient.into() }
    };
    Ok(Json(HistogramsData { tensor, steps: found.into_iter().map(at).collect() }))
}
