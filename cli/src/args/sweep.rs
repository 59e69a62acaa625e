use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, value_parser};
use domain::ids::RunName;
use domain::spec::file::WORKERS_MAX;

use super::PlaceArgs;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, subcommand_negates_reqs = true)]
pub(crate) struct SweepArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<SweepVerb>,
    #[command(flatten)]
    pub(crate) run: SweepRunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SweepVerb {
    /// Show the trials of a sweep, the best first
    Show(SweepShowArgs),
    /// Show the best trial, or export its model
    Best(SweepBestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SweepRunArgs {
    /// The sweep file (YAML)
    #[arg(required = true)]
    pub(crate) file: Option<PathBuf>,
    /// Worker processes [default: one for each core, but no more than may train at a time]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=WORKERS_MAX as i64))]
    #[arg(conflicts_with = "coordinator")]
    pub(crate) workers: Option<u32>,
    /// Name of the sweep [default: the file's `name`]
    #[arg(long)]
    pub(crate) name: Option<RunName>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Threads of each worker [default: cores / workers]
    #[arg(long, value_name = "T", conflicts_with = "coordinator")]
    #[arg(value_parser = value_parser!(u32).range(1..=super::verbs::THREADS_MAX))]
    pub(crate) threads: Option<u32>,
    /// Where the coordinator in this process listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", conflicts_with = "coordinator")]
    pub(crate) listen: SocketAddr,
    /// Print one JSON object per line on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SweepShowArgs {
    /// The sweep
    pub(crate) sweep: RunName,
    /// Print JSON, with all trials
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// Print all trials as comma-separated values
    #[arg(long)]
    pub(crate) csv: bool,
    /// Trials to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SweepBestArgs {
    /// The sweep
    pub(crate) sweep: RunName,
    /// Write its model to this folder, as `checkpoint export` does
    #[arg(long, value_name = "DIR")]
    pub(crate) export: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The trial, as SWEEP/NUMBER or the name of its run
    pub(crate) trial: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The sweep file (YAML)
    pub(crate) file: PathBuf,
    /// Seconds that a trial takes for an epoch, or for a step where the job counts steps
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time that is more than nothing.
fn positive(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if seconds > 0.0 && seconds <= 1e6 { Ok(seconds) } else { Err("must be a number > 0 and <= 1000000".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The sweep
    pub(crate) sweep: RunName,
    /// Decide with this reduction factor instead
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(2..=100))]
    pub(crate) eta: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}
