//! `phalanx resume`: a stopped or failed run goes on. Where no coordinator is running, it brings everything with it, and
//! then takes up a run too that was broken off in the middle.

use anyhow::Context;
use domain::spec::JobSpec;
use proto::v1::{Run, Sweep};

use crate::args::ResumeArgs;
use crate::client::{Client, spec_of};
use crate::cluster::{Cluster, start_coordinator};
use crate::commands::{self, launch};
use crate::embedded::{ANY_LOCAL_PORT, Told};
use crate::exit::{Exit, Failure};
use crate::follow::{self, is_ended};
use crate::follow_sweep;
use crate::interrupts::Interrupts;
use crate::job;
use crate::output::{Place, Show, sweep};
use crate::process::Process;
use crate::session::{live_coordinator, must_exist};

pub(crate) async fn run(args: ResumeArgs, process: &Process) -> Result<Exit, Failure> {
    match live_coordinator(&args.place) {
        Some(url) => on_running_cluster(&url, &args).await,
        None => on_own_cluster(&args, process).await,
    }
}

async fn on_running_cluster(url: &str, args: &ResumeArgs) -> Result<Exit, Failure> {
    if args.workers.is_some() {
        let message = format!("--workers starts nothing: the coordinator at {url} has workers of its own");
        return Err(Failure::config(anyhow::Error::msg(message)).hint("phalanx worker --coordinator URL adds one"));
    }
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut client = Client::connect(url).await?;
    if client.sweep(&args.run).await.is_ok() {
        client.resume(&args.run).await?;
        let show = sweep::Show::new(args.json);
        let ended = follow_sweep::follow(&client, &args.run, None, &show, &mut interrupts).await?;
        return follow_sweep::conclude(ended, &args.run, &show);
    }
    let run = client.run(&args.run).await?;
    client.resume(&args.run).await?;
    let mut show = Show::new(args.json);
    show.started(&run, &Place::of(client.url()))?;
    let ended = follow::follow(&client, &run, None, &mut show, &mut interrupts, &mut None).await?;
    follow::conclude(ended, &run.name, &show)
}

async fn on_own_cluster(args: &ResumeArgs, process: &Process) -> Result<Exit, Failure> {
    let state_dir = &args.place.state_dir.state_dir;
    must_exist(state_dir)?;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let taken_up = start_coordinator(
        state_dir,
        args.local.listen,
        Some(ANY_LOCAL_PORT),
        Told { sinks: &args.local.sinks.sinks, telemetry: process.telemetry.as_ref() },
        async |client| take_up(client, args).await,
    );
    let (embedded, client, taken_up) = taken_up.await?;
    let (threads, otlp) = (args.local.threads, process.endpoint());
    let (run, workers) = match taken_up {
        TakenUp::Run(run, workers) => (*run, workers),
        TakenUp::Sweep(begun, workers) => {
            let cluster = Cluster::complete(embedded, state_dir, workers, threads, None, otlp).await?;
            let show = sweep::Show::new(args.json);
            show.started(&begun, &Place::own(&cluster.embedded, workers))?;
            return commands::sweep::train(cluster, &client, &args.run, &show, &mut interrupts).await;
        }
    };
    let profile = launch::profiling(&args.local, state_dir, &run)?;
    let cluster = Cluster::complete(embedded, state_dir, workers, threads, profile, otlp).await?;
    let mut show = Show::new(args.json);
    show.started(&run, &Place::own(&cluster.embedded, workers))?;
    launch::train(cluster, &client, &run, &mut show, &mut interrupts).await
}

/// What goes on, as it was, and how many workers to start.
pub(crate) enum TakenUp {
    Run(Box<Run>, u32),
    Sweep(Box<Sweep>, u32),
}

/// Lets the run or sweep go on.
pub(crate) async fn take_up(client: &mut Client, args: &ResumeArgs) -> Result<TakenUp, Failure> {
    if let Ok(found) = client.sweep(&args.run).await {
        let spec = sweep::spec(&found).context("the coordinator sent a sweep that this program does not know")?;
        let workers = args.workers.unwrap_or_else(|| commands::sweep::workers_for(&spec));
        commands::sweep::check_workers(&spec, workers)?;
        if follow_sweep::is_ended(&found) {
            client.resume(&args.run).await?;
        }
        return Ok(TakenUp::Sweep(Box::new(found), workers));
    }
    let run = client.run(&args.run).await?;
    let spec = spec_of(&run)?;
    let workers = args.workers.unwrap_or(spec.workers);
    check_workers(&spec, workers)?;
    // A run that was broken off is still live for the coordinator, and goes on once it has workers.
    if is_ended(&run) {
        client.resume(&args.run).await?;
    }
    Ok(TakenUp::Run(Box::new(run), workers))
}

fn check_workers(spec: &JobSpec, workers: u32) -> Result<(), Failure> {
    job::check_workers(spec, workers)?;
    let JobSpec { workers: most, min_workers: least, .. } = spec;
    if workers < *least {
        return Err(Failure::config(anyhow::Error::msg(format!(
            "workers ({workers}) must be >= min_workers ({least})"
        ))));
    }
    if workers > *most {
        let message = format!("workers ({workers}) must be <= the workers that the run takes ({most})");
        return Err(Failure::config(anyhow::Error::msg(message)));
    }
    Ok(())
}
