//! Finding the coordinator to talk to: the one that was named, the one that holds the state directory, or, to read only,
//! one in this process for the time of the command.

use std::path::Path;

use domain::engine::Timing;

use crate::args::PlaceArgs;
use crate::client::Client;
use crate::embedded::{ANY_LOCAL_PORT, Embedded};
use crate::exit::Failure;

/// A connection, and the coordinator behind it if that is ours.
pub(crate) struct Session {
    pub(crate) client: Client,
    embedded: Option<Embedded>,
}

impl Session {
    /// For commands that only read: works without a running coordinator too.
    pub(crate) async fn to_read(place: &PlaceArgs) -> Result<Self, Failure> {
        if let Some(url) = live_coordinator(place) {
            return Ok(Self { client: Client::connect(&url).await?, embedded: None });
        }
        must_exist(&place.state_dir.state_dir)?;
        let (embedded, client) =
            Embedded::start(&place.state_dir.state_dir, ANY_LOCAL_PORT, None, Timing::default()).await?;
        Ok(Self { client, embedded: Some(embedded) })
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

/// Refuses a state directory that is not there: to read from it must not make it.
pub(crate) fn must_exist(state_dir: &Path) -> Result<(), Failure> {
    if state_dir.is_dir() {
        return Ok(());
    }
    let message = format!("there is no state directory {}", state_dir.display());
    Err(Failure::config(anyhow::Error::msg(message))
        .hint("--state-dir DIR names another one, --coordinator URL a running coordinator"))
}
