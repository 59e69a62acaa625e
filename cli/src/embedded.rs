//! A coordinator in this process, for as long as a command runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use coordinator::CoordinatorError;
use domain::engine::Timing;
use sinks::{Behind, Sink};
use telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::exit::Failure;
use crate::output::note;

/// A free port on this machine only.
pub(crate) const ANY_LOCAL_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Whom a coordinator tells what it does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told<'a> {
    /// Figures and facts.
    pub(crate) sinks: &'a [Sink],
    /// Logs and traces.
    pub(crate) telemetry: Option<&'a Telemetry>,
}

/// A running coordinator. Dropping it without [`Embedded::shut_down`] leaves its journal as a crash would: whole.
pub(crate) struct Embedded {
    url: String,
    dashboard: Option<String>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<Vec<Behind>, CoordinatorError>>,
}

impl Embedded {
    /// Starts one on `state_dir` and connects to it.
    pub(crate) async fn start(
        state_dir: &Path,
        listen: SocketAddr,
        http: Option<SocketAddr>,
        timing: Timing,
        told: Told<'_>,
    ) -> Result<(Self, Client), Failure> {
        if let Some(url) = coordinator::live_url(state_dir) {
            return Err(in_use(state_dir, &url));
        }
        let listener = bind("--listen", listen).await?;
        let url = url_of(listener.local_addr()?);
        let http = match http {
            Some(address) => Some(bind("--http", address).await?),
            None => None,
        };
        let dashboard = http.as_ref().map(|http| http.local_addr()).transpose()?.map(url_of);
        let shutdown = CancellationToken::new();
        let config = with_sinks(coordinator::Config::new(state_dir.to_owned(), timing), told.sinks)?;
        let config = coordinator::Config { lost: told.telemetry.map(Telemetry::lost), ..config };
        let task = tokio::spawn(coordinator::run(config, listener, http, shutdown.clone()));
        let mut embedded = Self { url, dashboard, shutdown, task };
        let url = embedded.url.clone();
        // It may have lost a race for the folder: then the winner is worth naming.
        let other = || coordinator::live_url(state_dir).filter(|live| *live != url);
        let connected = tokio::select! {
            biased;
            failure = embedded.ended() => return Err(other().map_or(failure, |url| in_use(state_dir, &url))),
            client = reach(&url) => client,
        };
        match (connected, other()) {
            (Ok(client), _) => Ok((embedded, client)),
            (Err(_), Some(url)) => Err(in_use(state_dir, &url)),
            // Its own reason tells more than that it cannot be reached.
            (Err(failure), None) => Err(embedded.shut_down().await.err().unwrap_or(failure)),
        }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where its dashboard is, if it has one.
    pub(crate) fn dashboard(&self) -> Option<&str> {
        self.dashboard.as_deref()
    }

    /// Waits for an end that nobody asked for.
    pub(crate) async fn ended(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Ok(_)) => Failure::failed(anyhow::Error::msg("the coordinator ended")),
            Ok(Err(error)) => failure(error),
            Err(panic) => Failure::failed(anyhow::Error::new(panic).context("the coordinator broke off")),
        }
    }

    /// Ends it, everything written, and says what sinks lack.
    pub(crate) async fn shut_down(self) -> Result<(), Failure> {
        self.shutdown.cancel();
        match self.task.await {
            Ok(Ok(behind)) => {
                note_behind(&behind);
                Ok(())
            }
            Ok(Err(error)) => Err(failure(error)),
            Err(panic) => Err(Failure::failed(anyhow::Error::new(panic).context("the coordinator broke off"))),
        }
    }
}

/// The most sinks of a coordinator. Each has a task and reads what all runs make.
const SINKS_MAX: usize = 16;

/// Adds sinks, with the secrets of this process's environment.
pub(crate) fn with_sinks(config: coordinator::Config, sinks: &[Sink]) -> Result<coordinator::Config, Failure> {
    if sinks.is_empty() {
        return Ok(config);
    }
    if let Some((_, again)) = (1..).zip(sinks).find(|(earlier, sink)| sinks[..earlier - 1].contains(sink)) {
        return Err(Failure::config(anyhow::Error::msg(format!("--sink names {again} twice"))));
    }
    if sinks.len() > SINKS_MAX {
        let message = format!("sinks ({}) must be <= {SINKS_MAX}", sinks.len());
        return Err(Failure::config(anyhow::Error::msg(message)));
    }
    let secrets = sinks::Secrets::from_env().map_err(Failure::config)?;
    Ok(coordinator::Config { sinks: sinks.to_vec(), secrets, ..config })
}

/// Says which sinks lack something at the end.
pub(crate) fn note_behind(behind: &[Behind]) {
    for Behind { sink, cause } in behind {
        note(&format!(
            "{sink} lacks something: {cause}\n  hint: it gets the rest from the next command with this --sink"
        ));
    }
}

/// Connects to a coordinator that is just starting, and waits for its first reply.
pub(crate) async fn reach(url: &str) -> Result<Client, Failure> {
    let mut client = Client::connect(url).await?;
    client.cluster().await?;
    Ok(client)
}

/// Binds `address`, which `option` has given, or says what to do about it.
pub(crate) async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    bound.map_err(|e| Failure::config(e).hint(format!("{option} {}:0 takes a port that is free", bracketed(address))))
}

fn bracketed(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    }
}

/// The URL at which a coordinator that listens on `address` is reached from this machine.
pub(crate) fn url_of(address: SocketAddr) -> String {
    let mut reached = address;
    if address.ip().is_unspecified() {
        reached.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{reached}")
}

/// A coordinator's own error: its state directory does not allow it to run.
pub(crate) fn failure(error: CoordinatorError) -> Failure {
    Failure::config(error)
}

fn in_use(state_dir: &Path, url: &str) -> Failure {
    let message = format!("state directory {} is in use by the coordinator at {url}", state_dir.display());
    Failure::config(anyhow::Error::msg(message))
        .hint(format!("--coordinator {url} hands the job to that one, --state-dir DIR takes another folder"))
}

/// Where the coordinator of `state_dir` keeps checkpoints.
pub(crate) fn checkpoint_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("checkpoints")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_reachable_from_this_machine() {
        for (address, url) in [
            ("127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::1]:7070", "http://[::1]:7070"),
        ] {
            assert_eq!(url_of(address.parse().unwrap()), url);
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_a_way_out() {
        let taken = TcpListener::bind(ANY_LOCAL_PORT).await.unwrap();
        let address = taken.local_addr().unwrap();
        let shown = bind("--listen", address).await.unwrap_err().to_string();
        assert!(shown.starts_with(&format!("error: cannot listen on {address}: Address already in use")), "{shown}");
        assert!(shown.ends_with("hint: --listen 127.0.0.1:0 takes a port that is free"), "{shown}");
    }
}
