//! Putting a coordinator together and taking it apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sinks::{Behind, Board, Pace};
use store::{CheckpointError, CheckpointStore, Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::Config;
use crate::address::Address;
use crate::driver::{Driver, Parts};
use crate::grpc;
use crate::grpc::control::ControlService;
use crate::grpc::sweeps::SweepsService;
use crate::grpc::worker_link::WorkerLinkService;
use crate::http::HttpSource;
use crate::metrics::{self, Metrics};

/// How long connections and background work may take to end. What is cut off then is done again at the next start.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Why a coordinator cannot work.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// What it must remember cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its checkpoints have no place.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// Its URL cannot be left in the state folder.
    #[error("cannot write the coordinator's address into {}", folder.display())]
    Address {
        /// The state folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The state folder's path cannot be part of a URL.
    #[error("state folder {} is not valid UTF-8", folder.display())]
    FolderName {
        /// The state folder.
        folder: PathBuf,
    },
    /// The gRPC server ended.
    #[error("cannot serve")]
    Serve(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Serves on `listener` until `shutdown`, and the dashboard on `http`, if that is given.
///
/// When this returns, everything that was acknowledged is on the disk and the state folder is free. Workers are not told
/// to end: they go on stepping, and find the next coordinator of this folder if it listens at the same address.
///
/// Tells which sinks lack something. Fails with [`StoreError::InUse`] if another coordinator holds the state folder.
pub async fn run(
    config: Config,
    listener: TcpListener,
    http: Option<TcpListener>,
    shutdown: CancellationToken,
) -> Result<Vec<Behind>, CoordinatorError> {
    let Config { state_dir, timing, sinks, secrets, lost } = config;
    let (store, journal) = open_store(&state_dir).await?;
    let checkpoint_url = checkpoint_url(&state_dir)?;
    let checkpoints = CheckpointStore::open(&checkpoint_url)?;
    let cannot = |source| CoordinatorError::Address { folder: state_dir.clone(), source };
    let address = listener.local_addr().map_err(cannot)?;

    // Whichever part ends first takes the others with it.
    let ending = shutdown.child_token();
    let tasks = TaskTracker::new();
    let metrics = Metrics::new(lost);
    let parts = Parts {
        timing,
        metrics: metrics.clone(),
        checkpoint_url,
        store: store.clone(),
        checkpoints: checkpoints.clone(),
        tasks: tasks.clone(),
        shutdown: ending.clone(),
    };
    let (driver, handle) = Driver::start(parts, journal).await?;
    tasks.spawn(metrics::keep_tidy(metrics.clone(), ending.clone()));
    let board = Board::default();
    if let Some(http) = http {
        let source =
            HttpSource::new(handle.clone(), store.clone(), checkpoints.clone(), driver.clock(), metrics, board.clone());
        tasks.spawn(serve_dashboard(http, source, ending.clone()));
    }
    let pictures = handle.picture();
    let sweeps = SweepsService::new(handle.clone(), store.clone());
    let control = ControlService::new(handle.clone(), store.clone(), checkpoints, driver.clock());
    let worker_link = WorkerLinkService::new(handle, tasks.clone(), ending.clone());
    let no_more_comes = CancellationToken::new();
    let (followed, until) = (store.clone(), no_more_comes.clone());
    let sinking =
        tokio::spawn(
            async move { sinks::follow(sinks, secrets, followed, pictures, Pace::default(), &board, until).await },
        );
    let published = Address::publish(&state_dir, address).map_err(cannot)?;
    info!(%address, state_dir = %state_dir.display(), "coordinator started");

    let driving = tokio::spawn(ending_with(ending.clone(), driver.run()));
    let serving =
        tokio::spawn(ending_with(ending.clone(), grpc::serve(listener, control, sweeps, worker_link, ending.clone())));
    let driven = driving.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let served = tokio::time::timeout(END_LIMIT, serving).await;
    tasks.close();
    if tokio::time::timeout(END_LIMIT, tasks.wait()).await.is_err() {
        warn!("background work was cut off");
    }
    no_more_comes.cancel();
    let behind = sinking.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    for Behind { sink, cause } in &behind {
        warn!(sink, cause, "the sink lacks something, and gets it when it is followed again");
    }
    drop(published);
    close_store(store).await;
    info!("coordinator ended");

    driven?;
    match served {
        Ok(Ok(served)) => served.map_err(|error| CoordinatorError::Serve(error.into()))?,
        Ok(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
        // A client that does not let go of its connection.
        Err(_) => {}
    }
    Ok(behind)
}

/// Without the dashboard, training goes on.
async fn serve_dashboard(listener: TcpListener, source: HttpSource, shutdown: CancellationToken) {
    if let Err(cause) = dashboard::serve(listener, Arc::new(source), shutdown).await {
        error!(%cause, "the dashboard cannot be served");
    }
}

/// Runs `part`, and cancels `ending` when it ends, however it does.
async fn ending_with<F: Future>(ending: CancellationToken, part: F) -> F::Output {
    let _guard = ending.drop_guard();
    part.await
}

async fn open_store(state_dir: &Path) -> Result<(Store, Vec<store::JournalEntry>), StoreError> {
    let folder = state_dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder)).await;
    opened.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
}

/// Waits for what is queued and gives the folder free, if no connection was cut off that still holds it.
async fn close_store(store: Store) {
    // A panic in there was reported by the thread itself.
    let _ = tokio::task::spawn_blocking(move || drop(store)).await;
}

/// Where checkpoints are kept, as workers are told. They may run in another folder, so the path is absolute.
fn checkpoint_url(state_dir: &Path) -> Result<String, CoordinatorError> {
    let no_name = || CoordinatorError::FolderName { folder: state_dir.to_owned() };
    let folder = state_dir.canonicalize();
    let folder = folder.map_err(|source| StoreError::Folder { folder: state_dir.to_owned(), source })?;
    Ok(format!("file://{}/checkpoints", folder.to_str().ok_or_else(no_name)?))
}
