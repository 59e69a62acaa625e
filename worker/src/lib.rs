//! A worker process: it holds a device, takes its place in groups, and makes steps. It decides nothing.
//!
//! Start at [`attempt`]: what happens from an assignment to its end. [`form`] makes a group of its members, [`training`] is
//! the loop and [`step`] one turn of it, [`evaluation`] measures, [`inspection`] shows the inside
//! of the model, [`agreement`] is what the ranks tell each other.
//! [`connection`] keeps the stream to the coordinator, [`report`] what is on its way there, [`records`] what is not yet
//! durable there, [`orders`] what has come from there. [`peer`] brings members up to date, [`checkpoint`] saves in the
//! background what [`state`] and its [`sidecar`] hold, [`device`] is the thread that all tensors live on. [`profile`] notes
//! where the time of a few steps goes, [`trace`] is the file that it leaves, and [`step_trace`] what a collector is told.

mod agreement;
mod attempt;
mod checkpoint;
mod connection;
mod device;
mod evaluation;
mod form;
mod inspection;
mod orders;
mod peer;
mod profile;
mod records;
mod reduction;
mod report;
mod sidecar;
mod state;
mod step;
mod step_trace;
mod trace;
mod training;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use domain::engine::WorkerInfo;
use domain::ids::WorkerId;
use telemetry::Spans;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use models::vector_unit;

pub use crate::profile::{ProfiledSteps, Profiling};

/// What a worker needs to know at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own; see [`draw_id`].
    pub id: WorkerId,
    /// Where the coordinator listens, for example `http://127.0.0.1:7070`.
    pub coordinator: String,
    /// The address its peers reach it at.
    pub bind: IpAddr,
    /// How long it goes on without hearing from the coordinator.
    pub orphan_limit: Duration,
    /// Threads that compute; all cores if not given. The results do not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// Whether it profiles the first group that it makes steps in.
    pub profile: Option<Profiling>,
    /// Where the steps that it profiles are told as spans.
    pub spans: Option<Spans>,
}

/// Why a worker ended without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to, by its caller or the coordinator.
    Asked,
    /// Nothing was heard of the coordinator for longer than the limit.
    Orphaned,
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A listening socket could not be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The coordinator's URL is not one.
    #[error("{url:?} is not a coordinator URL such as http://127.0.0.1:7070")]
    Url {
        /// What was given.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The device thread could not be started.
    #[error("cannot start the device thread")]
    Thread(#[source] std::io::Error),
    /// The device thread ended in a panic; its message went to standard error.
    #[error("the device thread panicked")]
    Panicked,
    /// The operating system gave no random bytes for the worker's id.
    #[error("cannot draw a worker id from /dev/urandom")]
    Random(#[source] std::io::Error),
}

/// Serves the coordinator until asked to end, or until it was gone for too long.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<Ending, WorkerError> {
    let listen = |source| WorkerError::Listen { address: config.bind.to_string(), source };
    let ring = collective::ring::Listener::bind(&format!("{}:0", bracketed(config.bind))).map_err(listen)?;
    let peer_listener = tokio::net::TcpListener::bind((config.bind, 0)).await.map_err(listen)?;
    let info = WorkerInfo {
        id: config.id,
        host: host_name(),
        pid: std::process::id(),
        device: "cpu".to_owned(),
        peer_address: peer_listener.local_addr().map_err(listen)?.to_string(),
        ring_address: ring.local_addr().to_string(),
    };
    let threads = config.threads.or_else(|| std::thread::available_parallelism().ok());
    if let Err(cause) = models::set_threads(threads.map_or(1, NonZeroUsize::get)) {
        warn!(cause = report::chain(&cause), "the number of threads stays as it is");
    }
    info!(worker = info.id.short(), pid = info.pid, "worker started");

    let offers = peer::Offers::default();
    let peers = tokio::spawn(peer::serve(peer_listener, offers.clone(), shutdown.child_token()));
    let outbox = report::Outbox::default();
    let device::Device { commands, thread, ended } = device::start(device::Parts {
        ring,
        offers,
        outbox: outbox.clone(),
        profile: config.profile.clone(),
        spans: config.spans.clone(),
    })
    .map_err(WorkerError::Thread)?;
    let ending = tokio::select! {
        ending = connection::serve(&config, &info, &outbox, &commands, &shutdown) => ending,
        _ = ended => Err(WorkerError::Panicked),
    };

    commands.shut_down();
    let joined = tokio::task::spawn_blocking(move || thread.join());
    let _ = tokio::time::timeout(DEVICE_END_LIMIT, joined).await;
    peers.abort();
    ending
}

/// How long the device thread may take to end the step it is in.
const DEVICE_END_LIMIT: Duration = Duration::from_secs(5);

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Draws a worker's id at random: a process that starts again is a new worker.
pub fn draw_id() -> Result<WorkerId, WorkerError> {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(WorkerError::Random)?;
    Ok(WorkerId(u64::from_le_bytes(bytes)))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
