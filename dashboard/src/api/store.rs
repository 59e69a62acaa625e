//! Whether what happens becomes durable.

use axum::Json;
use axum::extract::State;
use domain::picture::Stall;
use serde::Serialize;
use utoipa::ToSchema;

use super::picture;
use crate::App;

/// How the store is doing.
#[derive(Serialize, ToSchema)]
pub(crate) struct StoreStanding {
    /// The coordinator's time, in milliseconds since the Unix epoch.
    now: u64,
    /// Why nothing can be made durable, for example because the disk is full; null if everything can.
    trouble: Option<String>,
    /// Since when, in milliseconds since the Unix epoch; null if there is no trouble.
    since: Option<u64>,
}

/// Whether what happens becomes durable
#[utoipa::path(get, path = "/api/v1/store", tag = "cluster", responses((status = 200, body = StoreStanding)))]
pub(crate) async fn store(State(app): State<App>) -> Json<StoreStanding> {
    let (trouble, since) = picture(&app).stall().map(|Stall { cause, since }| (cause.clone(), since.0)).unzip();
    Json(StoreStanding { now: app.source.now().0, trouble, since })
}
