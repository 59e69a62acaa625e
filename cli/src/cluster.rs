//! A cluster of our own: a coordinator in this process and worker processes on this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use domain::engine::Timing;
use telemetry::Endpoint;
use worker::Profiling;

use crate::client::Client;
use crate::embedded::{self, Embedded, Told};
use crate::exit::Failure;
use crate::workers::{self, Plan, Workers};

/// A coordinator and the workers that serve it. End it with [`Cluster::end`]; if this process dies, the workers leave.
pub(crate) struct Cluster {
    pub(crate) embedded: Embedded,
    pub(crate) workers: Workers,
    state_dir: PathBuf,
    /// Where its workers write profiles, if they do.
    pub(crate) profile_folder: Option<PathBuf>,
}

/// How a cluster comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Workers may finish what they are in.
    Orderly,
    /// Workers are killed. Nothing that was acknowledged is lost.
    AtOnce,
}

impl Cluster {
    /// Gives `embedded` its workers. Without `threads`, they share the cores. With `otlp`, they tell that collector what they do.
    pub(crate) async fn complete(
        embedded: Embedded,
        state_dir: &Path,
        count: u32,
        threads: Option<u32>,
        profile: Option<Profiling>,
        otlp: Option<&Endpoint>,
    ) -> Result<Self, Failure> {
        let plan = Plan {
            coordinator: embedded.url().to_owned(),
            workers: count,
            threads: threads.unwrap_or_else(|| workers::threads_for(count)),
            log_dir: state_dir.join("logs"),
            profile,
            otlp: otlp.cloned(),
        };
        match Workers::start(&plan) {
            Ok(workers) => {
                let profile_folder = plan.profile.map(|profile| profile.folder);
                Ok(Self { embedded, workers, state_dir: state_dir.to_owned(), profile_folder })
            }
            Err(failure) => {
                embedded.shut_down().await?;
                Err(failure)
            }
        }
    }

    /// Where checkpoints are kept.
    pub(crate) fn checkpoint_folder(&self) -> PathBuf {
        embedded::checkpoint_folder(&self.state_dir)
    }

    /// Ends workers first, so that the coordinator still hears them leave.
    pub(crate) async fn end(self, ending: Ending) -> Result<(), Failure> {
        match ending {
            Ending::Orderly => self.workers.shut_down().await,
            Ending::AtOnce => self.workers.kill_all().await,
        }
        self.embedded.shut_down().await
    }
}

/// Starts a coordinator on `state_dir`, lets `prepare` hand in or take up a run with it, and ends it if that fails.
pub(crate) async fn start_coordinator<T>(
    state_dir: &Path,
    listen: SocketAddr,
    http: Option<SocketAddr>,
    told: Told<'_>,
    prepare: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>,
) -> Result<(Embedded, Client, T), Failure> {
    // Workers of an earlier process have left with it: there is nobody to wait for.
    let timing = Timing { rejoin_ms: 0, ..Timing::default() };
    let (embedded, mut client) = Embedded::start(state_dir, listen, http, timing, told).await?;
    match prepare(&mut client).await {
        Ok(prepared) => Ok((embedded, client, prepared)),
        Err(failure) => {
            embedded.shut_down().await?;
            Err(failure)
        }
    }
}
