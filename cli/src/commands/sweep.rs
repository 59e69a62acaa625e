//! `phalanx sweep`: a job in many configurations.

use anyhow::Context;
use domain::ids::RunName;
use domain::spec::sweep::SweepSpec;
use proto::v1::Sweep;
use tonic::Code;

use crate::args::{SweepArgs, SweepRunArgs, SweepVerb};
use crate::client::Client;
use crate::cluster::{Cluster, Ending, start_coordinator};
use crate::commands::sweep_results;
use crate::embedded::{ANY_LOCAL_PORT, Told};
use crate::exit::{Exit, Failure};
use crate::follow_sweep::{self, SweepEnded};
use crate::interrupts::Interrupts;
use crate::job;
use crate::output::{Place, sweep};
use crate::process::Process;

pub(crate) async fn run(args: SweepArgs, process: &Process) -> Result<Exit, Failure> {
    match args.verb {
        Some(SweepVerb::Show(args)) => sweep_results::show(args).await,
        Some(SweepVerb::Curves(args)) => sweep_results::curves(args).await,
        Some(SweepVerb::Best(args)) => sweep_results::best(args).await,
        None => start(args.run, process).await,
    }
}

async fn start(args: SweepRunArgs, process: &Process) -> Result<Exit, Failure> {
    let file = args.file.as_deref().expect("clap asks for a file where there is no verb");
    let mut spec = job::read_sweep(file)?;
    if let Some(name) = &args.name {
        spec.name = name.clone();
    }
    match &args.place.coordinator.coordinator {
        Some(url) => on_running_cluster(url, &spec, args.json).await,
        None => on_own_cluster(&args, &spec, process).await,
    }
}

async fn on_running_cluster(url: &str, spec: &SweepSpec, json: bool) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut client = Client::connect(url).await?;
    let begun = submit(&mut client, spec).await?;
    let show = sweep::Show::new(json);
    show.started(&begun, &Place::of(client.url()))?;
    let ended = follow_sweep::follow(&client, &spec.name, None, &show, &mut interrupts).await?;
    follow_sweep::conclude(ended, &spec.name, &show)
}

async fn on_own_cluster(args: &SweepRunArgs, spec: &SweepSpec, process: &Process) -> Result<Exit, Failure> {
    let state_dir = &args.place.state_dir.state_dir;
    let workers = args.workers.unwrap_or_else(|| workers_for(spec));
    check_workers(spec, workers)?;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let told = Told { sinks: &args.sinks.sinks, telemetry: process.telemetry.as_ref() };
    let submitted = start_coordinator(state_dir, args.listen, Some(ANY_LOCAL_PORT), told, async |client| {
        submit(client, spec).await
    });
    let (embedded, client, begun) = submitted.await?;
    let cluster = Cluster::complete(embedded, state_dir, workers, args.threads, None, process.endpoint()).await?;
    let show = sweep::Show::new(args.json);
    show.started(&begun, &Place::own(&cluster.embedded, workers))?;
    train(cluster, &client, &spec.name, &show, &mut interrupts).await
}

/// Follows a sweep on a cluster of our own, and ends the cluster with it.
pub(crate) async fn train(
    mut cluster: Cluster,
    client: &Client,
    name: &RunName,
    show: &sweep::Show,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let ended = follow_sweep::follow(client, name, Some(&mut cluster), show, interrupts).await;
    let ending = match &ended {
        Ok(SweepEnded::Sweep(_) | SweepEnded::Detached) => Ending::Orderly,
        Ok(SweepEnded::AtOnce) | Err(_) => Ending::AtOnce,
    };
    let closed = cluster.end(ending).await;
    let exit = follow_sweep::conclude(ended?, name, show)?;
    closed?;
    Ok(exit)
}

/// One worker for each core, but no more than may train at a time, and enough for one trial.
pub(crate) fn workers_for(spec: &SweepSpec) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    workers_on(cores, spec)
}

/// As many as have something to do: those that no trial asks for are lent, if it may have more.
fn workers_on(cores: u32, spec: &SweepSpec) -> u32 {
    if spec.elastic {
        return cores;
    }
    let trials = spec.max_concurrent.unwrap_or(u32::MAX);
    let useful = trials.saturating_mul(spec.workers_per_trial);
    cores.min(useful).max(spec.workers_per_trial)
}

/// Refuses workers that are too few for a trial.
pub(crate) fn check_workers(spec: &SweepSpec, workers: u32) -> Result<(), Failure> {
    let least = if spec.elastic { 1 } else { spec.workers_per_trial };
    if workers >= least {
        return Ok(());
    }
    let message = format!("workers ({workers}) must be >= workers_per_trial ({least})");
    Err(Failure::config(anyhow::Error::msg(message)))
}

async fn submit(client: &mut Client, spec: &SweepSpec) -> Result<Sweep, Failure> {
    let status = match client.submit_sweep(spec).await {
        Ok(sweep) => return Ok(sweep),
        Err(status) => status,
    };
    let exists = status.code() == Code::AlreadyExists;
    let failure = Failure::from(status);
    if exists {
        let name = &spec.name;
        let hint = format!("--name NAME begins another sweep; phalanx resume {name} goes on with a stopped one");
        return Err(failure.hint(hint));
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn workers_are_enough_for_a_trial_and_no_more_than_may_train() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/digits-sweep.yaml");
        let mut spec = job::read_sweep(&path).unwrap_or_else(|_| panic!("{} is a sweep file", path.display()));
        spec.max_concurrent = Some(1);
        assert_eq!(workers_for(&spec), 1);
        spec.workers_per_trial = 1000;
        assert_eq!(workers_for(&spec), 1000);
        let refused = check_workers(&spec, 3).unwrap_err().to_string();
        assert_eq!(refused, "error: workers (3) must be >= workers_per_trial (1000)");
        spec.elastic = true;
        assert!(check_workers(&spec, 3).is_ok());
        // One trial at a time, on all that there is.
        assert_eq!(workers_on(8, &spec), 8);
    }
}
