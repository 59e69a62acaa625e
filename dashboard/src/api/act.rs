//! What users ask for.

use axum::Json;
use axum::extract::State;
use domain::engine::Event;
use domain::ids::{RunName, Step};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::asked::{Asked, Named, TheWorker};
use super::{known_run, known_sweep, picture};
use crate::failure::Problem;
use crate::{App, Failure};

/// It is taken, and nothing more is to be said.
#[derive(Serialize, ToSchema)]
pub(crate) struct Taken {}

async fn of_run(app: &App, run: RunName, event: Event) -> Result<Json<Taken>, Failure> {
    known_run(&picture(app), &run)?;
    app.source.take(event).await?;
    Ok(Json(Taken {}))
}

async fn of_sweep(app: &App, sweep: RunName, event: Event) -> Result<Json<Taken>, Failure> {
    known_sweep(&picture(app), &sweep)?;
    app.source.take(event).await?;
    Ok(Json(Taken {}))
}

/// Bring a run to rest, saved
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/runs/{name}/stop", tag = "actions",
    params(("name" = String, Path), ("X-Phalanx" = String, Header, description = "must be 1")),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn stop(State(app): State<App>, Named(run): Named) -> Result<Json<Taken>, Failure> {
    of_run(&app, run.clone(), Event::StopRequested { run }).await
}

/// Let a stopped or failed run go on
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/runs/{name}/resume", tag = "actions",
    params(("name" = String, Path), ("X-Phalanx" = String, Header, description = "must be 1")),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn resume(State(app): State<App>, Named(run): Named) -> Result<Json<Taken>, Failure> {
    of_run(&app, run.clone(), Event::ResumeRequested { run }).await
}

/// Bring the trials of a sweep to rest, saved
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/sweeps/{name}/stop", tag = "actions",
    params(("name" = String, Path), ("X-Phalanx" = String, Header, description = "must be 1")),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn stop_sweep(State(app): State<App>, Named(run): Named) -> Result<Json<Taken>, Failure> {
    of_sweep(&app, run.clone(), Event::StopRequested { run }).await
}

/// Let a stopped sweep go on
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/sweeps/{name}/resume", tag = "actions",
    params(("name" = String, Path), ("X-Phalanx" = String, Header, description = "must be 1")),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn resume_sweep(State(app): State<App>, Named(run): Named) -> Result<Json<Taken>, Failure> {
    of_sweep(&app, run.clone(), Event::ResumeRequested { run }).await
}

/// Which priority.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct PriorityAsked {
    /// -1000 to 1000.
    value: i32,
}

/// Give a run another priority
///
/// It changes who gets workers next, and takes none from anybody. Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/runs/{name}/priority", tag = "actions",
    params(
        ("name" = String, Path), PriorityAsked, ("X-Phalanx" = String, Header, description = "must be 1")
    ),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn priority(
    State(app): State<App>,
    Named(run): Named,
    Asked(PriorityAsked { value: priority }): Asked<PriorityAsked>,
) -> Result<Json<Taken>, Failure> {
    of_run(&app, run.clone(), Event::PriorityRequested { run, priority }).await
}

/// Give a sweep another priority
///
/// It changes who gets workers next, and takes none from anybody. Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/sweeps/{name}/priority", tag = "actions",
    params(
        ("name" = String, Path), PriorityAsked, ("X-Phalanx" = String, Header, description = "must be 1")
    ),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)
    )
)]
pub(crate) async fn priority_of_sweep(
    State(app): State<App>,
    Named(run): Named,
    Asked(PriorityAsked { value: priority }): Asked<PriorityAsked>,
) -> Result<Json<Taken>, Failure> {
    of_sweep(&app, run.clone(), Event::PriorityRequested { run, priority }).await
}

/// Which checkpoint.
#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct CheckpointAsked {
    /// Steps completed in it.
    step: u64,
}

/// Keep a checkpoint, whatever the job says about how many are kept
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/runs/{name}/pin", tag = "actions",
    params(
        ("name" = String, Path), CheckpointAsked, ("X-Phalanx" = String, Header, description = "must be 1")
    ),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)
    )
)]
pub(crate) async fn pin(
    State(app): State<App>,
    Named(run): Named,
    Asked(CheckpointAsked { step }): Asked<CheckpointAsked>,
) -> Result<Json<Taken>, Failure> {
    of_run(&app, run.clone(), Event::PinRequested { run, step: Step(step) }).await
}

/// Let a checkpoint stay or go as the job says
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/runs/{name}/unpin", tag = "actions",
    params(
        ("name" = String, Path), CheckpointAsked, ("X-Phalanx" = String, Header, description = "must be 1")
    ),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)
    )
)]
pub(crate) async fn unpin(
    State(app): State<App>,
    Named(run): Named,
    Asked(CheckpointAsked { step }): Asked<CheckpointAsked>,
) -> Result<Json<Taken>, Failure> {
    of_run(&app, run.clone(), Event::UnpinRequested { run, step: Step(step) }).await
}

/// Give a worker no more work
///
/// The group that it works in finishes the step in progress and goes on without it; if the others are too few, the run is
/// saved and waits. Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/workers/{id}/drain", tag = "actions",
    params(
        ("id" = String, Path, description = "sixteen hexadecimal digits"),
        ("X-Phalanx" = String, Header, description = "must be 1")
    ),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)
    )
)]
pub(crate) async fn drain(State(app): State<App>, TheWorker(worker): TheWorker) -> Result<Json<Taken>, Failure> {
    app.source.take(Event::DrainRequested { worker }).await?;
    Ok(Json(Taken {}))
}

/// Give a drained worker work again
///
/// Must carry the header `X-Phalanx: 1`.
#[utoipa::path(
    post, path = "/api/v1/workers/{id}/undrain", tag = "actions",
    params(
        ("id" = String, Path, description = "sixteen hexadecimal digits"),
        ("X-Phalanx" = String, Header, description = "must be 1")
    ),
    responses(
        (status = 200, body = Taken), (status = 400, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem)
    )
)]
pub(crate) async fn undrain(State(app): State<App>, TheWorker(worker): TheWorker) -> Result<Json<Taken>, Failure> {
    app.source.take(Event::UndrainRequested { worker }).await?;
    Ok(Json(Taken {}))
}
