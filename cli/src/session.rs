//! Finding the coordinator to talk to: the one that was named, the one that holds the state directory, or, where no worker
//! is needed, one in this process for the time of the command.

use std::path::Path;

use domain::engine::Timing;
use domain::ids::RunName;

use crate::args::PlaceArgs;
use crate::client::{Client, Named};
use crate::embedded::{ANY_LOCAL_PORT, Embedded, Told};
use crate::exit::Failure;
use crate::{follow, follow_sweep};

/// A connection, and the coordinator behind it if that is ours.
pub(crate) struct Session {
    pub(crate) client: Client,
    embedded: Option<Embedded>,
}

impl Session {
    /// For commands that only read: works without a running coordinator too.
    pub(crate) async fn to_read(place: &PlaceArgs) -> Result<Self, Failure> {
        Self::without_workers(place).await
    }

    /// For commands about what is stored: works without a running coordinator too.
    pub(crate) async fn without_workers(place: &PlaceArgs) -> Result<Self, Failure> {
        if let Some(url) = live_coordinator(place) {
            return Ok(Self { client: Client::connect(&url).await?, embedded: None });
        }
        must_exist(&place.state_dir.state_dir)?;
        let (embedded, client) =
            Embedded::start(&place.state_dir.state_dir, ANY_LOCAL_PORT, None, Timing::default(), Told::default())
                .await?;
        Ok(Self { client, embedded: Some(embedded) })
    }

    /// The run or sweep `name`, if it will change or has come to rest: without a running coordinator, what broke off in
    /// the middle stays as it is.
    pub(crate) async fn find_followed(&mut self, name: &RunName) -> Result<Named, Failure> {
        let found = self.client.named(name).await?;
        let (kind, is_ended) = match &found {
            Named::Run(run) => ("run", follow::is_ended(run)),
            Named::Sweep(sweep) => ("sweep", follow_sweep::is_ended(sweep)),
        };
        if self.embedded.is_some() && !is_ended {
            let message = format!("{kind} {name} broke off, and no coordinator is running");
            return Err(Failure::unreachable(anyhow::Error::msg(message))
                .hint(format!("phalanx resume {name} takes it up again")));
        }
        Ok(found)
    }

    /// Ends what was started.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self.embedded {
            Some(embedded) => embedded.shut_down().await,
            None => Ok(()),
        }
    }
}

/// The coordinator that was named, or the one that holds the state directory.
pub(crate) fn live_coordinator(place: &PlaceArgs) -> Option<String> {
    place.coordinator.coordinator.clone().or_else(|| coordinator::live_url(&place.state_dir.state_dir))
}

/// The coordinator that was named or holds the state directory, for commands that mean nothing without one.
pub(crate) fn must_be_live(place: &PlaceArgs) -> Result<String, Failure> {
    live_coordinator(place).ok_or_else(|| {
        let message = format!("no coordinator holds {}", place.state_dir.state_dir.display());
        Failure::unreachable(anyhow::Error::msg(message))
            .hint("then no run of it is being trained; --coordinator URL names a coordinator")
    })
}

/// Refuses a state directory that is not there: to read from it must not make it.
pub(crate) fn must_exist(state_dir: &Path) -> Result<(), Failure> {
    if state_dir.is_dir() {
        return Ok(());
    }
    let message = format!("there is no state directory {}", state_dir.display());
    Err(Failure::config(anyhow::Error::msg(message))
        .hint("--state-dir DIR names another one, --coordinator URL a running coordinator"))
}
