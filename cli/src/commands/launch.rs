//! `phalanx launch`: from a job file to a trained model.

use std::path::Path;

use anyhow::Context;
use domain::spec::JobSpec;
use proto::v1::Run;
use tonic::Code;
use worker::Profiling;

use crate::args::{LaunchArgs, LocalArgs};
use crate::client::Client;
use crate::cluster::{Cluster, Ending, start_coordinator};
use crate::embedded::{ANY_LOCAL_PORT, Told};
use crate::exit::{Exit, Failure};
use crate::follow::{self, Ended};
use crate::interrupts::Interrupts;
use crate::job::{self, Overrides};
use crate::output::{Place, Show};
use crate::process::Process;
use crate::profile;

pub(crate) async fn run(args: LaunchArgs, process: &Process) -> Result<Exit, Failure> {
    let overrides = Overrides { name: args.name.clone(), workers: args.workers, steps: None };
    let spec = job::with_overrides(job::read(&args.file)?, overrides)?;
    match &args.place.coordinator.coordinator {
        Some(url) => on_running_cluster(url, &spec, args.json).await,
        None => on_own_cluster(&args, &spec, process).await,
    }
}

async fn on_running_cluster(url: &str, spec: &JobSpec, json: bool) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut client = Client::connect(url).await?;
    let run = submit(&mut client, spec).await?;
    let mut show = Show::new(json);
    show.started(&run, &Place::of(client.url()))?;
    let ended = follow::follow(&client, &run, None, &mut show, &mut interrupts, &mut None).await?;
    follow::conclude(ended, &run.name, &show)
}

async fn on_own_cluster(args: &LaunchArgs, spec: &JobSpec, process: &Process) -> Result<Exit, Failure> {
    let state_dir = &args.place.state_dir.state_dir;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let submitted = start_coordinator(
        state_dir,
        args.local.listen,
        Some(ANY_LOCAL_PORT),
        Told { sinks: &args.local.sinks.sinks, telemetry: process.telemetry.as_ref() },
        async |client| submit(client, spec).await,
    );
    let (embedded, client, run) = submitted.await?;
    let profile = profiling(&args.local, state_dir, &run)?;
    let (threads, otlp) = (args.local.threads, process.endpoint());
    let cluster = Cluster::complete(embedded, state_dir, spec.workers, threads, profile, otlp).await?;
    let mut show = Show::new(args.json);
    show.started(&run, &Place::own(&cluster.embedded, spec.workers))?;
    train(cluster, &client, &run, &mut show, &mut interrupts).await
}

/// Follows `run` on a cluster of our own, and ends the cluster with it.
pub(crate) async fn train(
    mut cluster: Cluster,
    client: &Client,
    run: &Run,
    show: &mut Show,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let ended = follow::follow(client, run, Some(&mut cluster), show, interrupts, &mut None).await;
    let ending = match &ended {
        Ok(Ended::Run(_) | Ended::Detached) => Ending::Orderly,
        Ok(Ended::AtOnce) | Err(_) => Ending::AtOnce,
    };
    let profile_folder = cluster.profile_folder.clone();
    let closed = cluster.end(ending).await;
    if let Some(folder) = &profile_folder {
        profile::show(folder, show)?;
    }
    let exit = follow::conclude(ended?, &run.name, show)?;
    closed?;
    Ok(exit)
}

/// What workers of ours are to profile of `run`, if that is asked for. Nothing is left of an earlier profile then.
pub(crate) fn profiling(local: &LocalArgs, state_dir: &Path, run: &Run) -> Result<Option<Profiling>, Failure> {
    let Some(steps) = local.profile else { return Ok(None) };
    let folder = profile::folder(state_dir, &run.name);
    profile::clear(&folder)?;
    Ok(Some(Profiling { folder, steps }))
}

/// Hands the job in.
pub(crate) async fn submit(client: &mut Client, spec: &JobSpec) -> Result<Run, Failure> {
    let status = match client.submit(spec).await {
        Ok(run) => return Ok(run),
        Err(status) => status,
    };
    let exists = status.code() == Code::AlreadyExists;
    let failure = Failure::from(status);
    if exists {
        let name = &spec.name;
        let hint =
            format!("--name NAME begins another run; phalanx resume {name} goes on with a stopped or failed one");
        return Err(failure.hint(hint));
    }
    Err(failure)
}
