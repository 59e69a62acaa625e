//! `phalanx coordinator`: serves until asked to end.

use anyhow::Context;
use domain::engine::Timing;
use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;

use crate::args::{CoordinatorServiceArgs, Http};
use crate::embedded::{self, bind, note_behind, reach, url_of, with_sinks};
use crate::exit::{Exit, Failure};
use crate::interrupts::Interrupts;
use crate::output::print;
use crate::process::Process;

pub(crate) async fn run(args: CoordinatorServiceArgs, process: &Process) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let state_dir = args.state_dir.state_dir;
    if let Some(url) = coordinator::live_url(&state_dir) {
        let message = format!("state directory {} is in use by the coordinator at {url}", state_dir.display());
        return Err(Failure::config(anyhow::Error::msg(message)).hint("--state-dir DIR takes another folder"));
    }
    let listener = bind("--listen", args.listen).await?;
    let http = match args.http {
        Http::At(address) => Some(bind("--http", address).await?),
        Http::Off => None,
    };
    let url = url_of(listener.local_addr()?);
    let mut ready = format!("coordinator at {url} with its state in {}", state_dir.display());
    if let Some(http) = &http {
        ready.push_str(&format!("\ndashboard at {}", url_of(http.local_addr()?)));
    }
    let config = with_sinks(coordinator::Config::new(state_dir, Timing::default()), &args.sinks)?;
    let config = coordinator::Config { lost: process.telemetry.as_ref().map(Telemetry::lost), ..config };
    let shutdown = CancellationToken::new();
    let service = coordinator::run(config, listener, http, shutdown.clone());
    let asked = async {
        interrupts.next().await;
        shutdown.cancel();
        // A second signal does not wait for what the first one began.
        interrupts.next().await;
    };
    // Who reads the line may count on the coordinator and on its place in the state directory.
    let announced = async {
        reach(&url).await?;
        // A service does not end because nobody reads any more, as after `| head -1`.
        let _ = print(&ready);
        std::future::pending().await
    };
    tokio::select! {
        biased;
        ended = service => {
            note_behind(&ended.map_err(embedded::failure)?);
            Ok(Exit::Done)
        }
        () = asked => Ok(Exit::Left),
        failure = announced => failure,
    }
}
