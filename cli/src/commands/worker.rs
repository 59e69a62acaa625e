//! `phalanx worker`: serves a coordinator until asked to end.

use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;
use worker::{Ending, Profiling, WorkerError};

use crate::args::WorkerArgs;
use crate::client::with_scheme;
use crate::exit::{Exit, Failure};
use crate::interrupts::Interrupts;
use crate::process::Process;

pub(crate) async fn run(args: WorkerArgs, process: &Process) -> Result<Exit, Failure> {
    crate::memory::keep_freed();
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let shutdown = CancellationToken::new();
    if args.exit_with_stdin {
        cancel_with_stdin(shutdown.clone())?;
    }
    let config = worker::Config {
        id: process.worker_id()?,
        coordinator: with_scheme(&args.coordinator),
        bind: args.bind,
        orphan_limit: Duration::from_secs(args.orphan_limit),
        threads: args.threads,
        profile: args.profile.map(|folder| Profiling { folder, steps: args.profile_steps }),
        spans: process.telemetry.as_ref().map(Telemetry::spans),
    };
    let asked = async {
        interrupts.next().await;
        shutdown.cancel();
        // A second signal does not wait for what the first one began.
        interrupts.next().await;
    };
    let ending = tokio::select! {
        ending = worker::run(config, shutdown.clone()) => ending.map_err(failure)?,
        () = asked => return Ok(Exit::Left),
    };
    Ok(match ending {
        Ending::Asked => Exit::Done,
        Ending::Orphaned => Exit::LostLease,
    })
}

fn failure(error: WorkerError) -> Failure {
    match error {
        WorkerError::Listen { .. } | WorkerError::Url { .. } => Failure::config(error),
        WorkerError::Thread(_) | WorkerError::Random(_) | WorkerError::Panicked => Failure::failed(error),
    }
}

/// Cancels `shutdown` once standard input is closed. A thread of its own, since reading it cannot be interrupted.
fn cancel_with_stdin(shutdown: CancellationToken) -> Result<(), Failure> {
    let watch = move || {
        let mut ignored = [0; 64];
        while std::io::stdin().lock().read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
        shutdown.cancel();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).context("cannot start a thread")?;
    Ok(())
}
