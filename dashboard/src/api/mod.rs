//! What can be asked, and the forms of the answers.

mod act;
pub(crate) mod asked;
mod cluster;
mod docs;
mod export;
mod inspection;
mod run;
mod series;
mod store;
mod sweep;

use axum::Router;
use axum::routing::{any, get, post};
use domain::ids::RunName;
use domain::picture::{Picture, RunPicture, SweepPicture};
use std::sync::Arc;

pub(crate) use self::cluster::{RunSummary, SweepSummary};
pub(crate) use self::sweep::SweepTrial;
use crate::{App, Failure, stream};

/// Everything below `/api`.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/api/v1/cluster", get(cluster::cluster))
        .route("/api/v1/events", get(cluster::events))
        .route("/api/v1/store", get(store::store))
        .route("/api/v1/stream", get(stream::stream))
        .route("/api/v1/runs/{name}", get(run::run))
        .route("/api/v1/runs/{name}/series", get(series::series))
        .route("/api/v1/runs/{name}/log", get(run::log))
        .route("/api/v1/runs/{name}/ledger", get(run::ledger))
        .route("/api/v1/runs/{name}/model", get(run::model))
        .route("/api/v1/runs/{name}/inspections", get(inspection::inspections))
        .route("/api/v1/runs/{name}/inspections/{step}", get(inspection::inspection))
        .route("/api/v1/runs/{name}/histograms", get(inspection::histograms))
        .route("/api/v1/runs/{name}/export.csv", get(export::run))
        .route("/api/v1/runs/{name}/stop", post(act::stop))
        .route("/api/v1/runs/{name}/resume", post(act::resume))
        .route("/api/v1/runs/{name}/priority", post(act::priority))
        .route("/api/v1/runs/{name}/pin", post(act::pin))
        .route("/api/v1/runs/{name}/unpin", post(act::unpin))
        .route("/api/v1/sweeps/{name}", get(sweep::sweep))
        .route("/api/v1/sweeps/{name}/decisions", get(sweep::decisions))
        .route("/api/v1/sweeps/{name}/export.csv", get(export::sweep))
        .route("/api/v1/sweeps/{name}/stop", post(act::stop_sweep))
        .route("/api/v1/sweeps/{name}/resume", post(act::resume_sweep))
        .route("/api/v1/sweeps/{name}/priority", post(act::priority_of_sweep))
        .route("/api/v1/workers/{id}/drain", post(act::drain))
        .route("/api/v1/workers/{id}/undrain", post(act::undrain))
        .route("/api/openapi.json", get(docs::openapi))
        .route("/api/docs", get(docs::page))
        .route("/api", any(nothing))
        .route("/api/", any(nothing))
        .route("/api/{*rest}", any(nothing))
}

async fn nothing() -> Failure {
    Failure::not_found("there is nothing at this address").with_hint("/api/docs lists what there is")
}

/// The newest picture.
fn picture(app: &App) -> Arc<Picture> {
    app.source.pictures().borrow().clone()
}

/// A run that exists.
fn known_run(picture: &Picture, name: &RunName) -> Result<Arc<RunPicture>, Failure> {
    picture.run(name).cloned().ok_or_else(|| Failure::not_found(format!("there is no run {name}")))
}

/// A sweep that exists.
fn known_sweep<'a>(picture: &'a Picture, name: &RunName) -> Result<&'a SweepPicture, Failure> {
    picture.sweep(name).ok_or_else(|| Failure::not_found(format!("there is no sweep {name}")))
}

/// A number that was asked for, if it is from 1 to `most`; `given` if none was.
fn within(key: &str, asked: Option<usize>, given: usize, most: usize) -> Result<usize, Failure> {
    match asked {
        None => Ok(given),
        Some(number) if (1..=most).contains(&number) => Ok(number),
        Some(number) => Err(Failure::bad_request(format!("{key} ({number}) must be 1 to {most}"))),
    }
}
