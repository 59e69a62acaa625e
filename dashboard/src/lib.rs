//! The coordinator over HTTP: a JSON API, a stream of changes, metrics, and the page that shows them.
//!
//! Start at [`serve()`]. What is known comes from a [`Source`], which
//! the coordinator implements; nothing is computed here, only brought into shape (`api`) and passed on as it changes
//! (`stream`). `guard` has what holds for every request, and `assets` the page, which is built from `web/` into `dist/`.

mod api;
mod assets;
mod failure;
mod guard;
mod number;
mod serve;
mod source;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use axum::http::StatusCode;

pub use self::failure::Failure;
pub use self::source::{
    Answer, InspectedAt, LogLine, LogQuery, ModelLayer, Series, SeriesQuery, SinkStanding, Source, Start,
};
use self::stream::Hub;

/// What every handler may use.
#[derive(Clone)]
struct App {
    source: Arc<dyn Source>,
    hub: Hub,
}

/// Serves what `source` knows on `listener` until `shutdown`, then until requests in progress are answered.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>, shutdown: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (hub, following) = Hub::new(source.pictures(), shutdown.clone());
    let router = router(App { source, hub }, address);
    tokio::join!(serve::connections(listener, router, shutdown), following);
    Ok(())
}

/// Everything that can be asked, on a server that listens at `address`.
fn router(app: App, address: SocketAddr) -> Router {
    let router = Router::new()
        .merge(api::router())
        .route("/metrics", get(metrics))
        .fallback(assets::serve)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(app);
    guard::guarded(router, address)
}

/// Answers a scrape of Prometheus.
async fn metrics(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.source.metrics()).into_response()
}

async fn method_not_allowed() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here", None)
}
