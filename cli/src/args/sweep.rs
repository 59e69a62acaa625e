use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand, value_parser};
use domain::ids::RunName;
use domain::spec::file::WORKERS_MAX;

use super::{OtlpArgs, PlaceArgs, SinkArgs};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx sweep sweep.yaml --name search")]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, subcommand_negates_reqs = true)]
pub(crate) struct SweepArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<SweepVerb>,
    #[command(flatten)]
    pub(crate) run: SweepRunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SweepVerb {
    /// Show what came of a sweep: the best trials, which parameters mattered, what early stopping saved
    Show(SweepShowArgs),
    /// Give out the learning curves: every evaluation of every trial
    Curves(SweepCurvesArgs),
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
    #[command(flatten)]
    pub(crate) sinks: SinkArgs,
    #[command(flatten)]
    pub(crate) otlp: OtlpArgs,
    /// Print one JSON object per line on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx sweep show search --top 20")]
pub(crate) struct SweepShowArgs {
    /// The sweep
    pub(crate) sweep: RunName,
    /// Print JSON, with all trials
    #[arg(long, conflicts_with_all = ["csv", "parquet"])]
    pub(crate) json: bool,
    /// Print all trials as comma-separated values, a row for each
    #[arg(long, conflicts_with = "parquet")]
    pub(crate) csv: bool,
    /// Write all trials to this new file, with typed columns for pandas, Polars or DuckDB
    #[arg(long, value_name = "FILE")]
    pub(crate) parquet: Option<PathBuf>,
    /// Trials to list
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx sweep curves search --parquet curves.parquet")]
#[command(group(ArgGroup::new("format").required(true).args(["json", "csv", "parquet"])))]
pub(crate) struct SweepCurvesArgs {
    /// The sweep
    pub(crate) sweep: RunName,
    /// Print one JSON object for each evaluation
    #[arg(long)]
    pub(crate) json: bool,
    /// Print comma-separated values: trial, step, metric, value
    #[arg(long)]
    pub(crate) csv: bool,
    /// Write these columns to this new file
    #[arg(long, value_name = "FILE")]
    pub(crate) parquet: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// What curves are given out as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CurvesFormat<'a> {
    /// An object on each line.
    Json,
    /// Comma-separated values.
    Csv,
    /// A file.
    Parquet(&'a Path),
}

impl SweepCurvesArgs {
    /// The one that was asked for.
    pub(crate) fn format(&self) -> CurvesFormat<'_> {
        match &self.parquet {
            Some(path) => CurvesFormat::Parquet(path),
            None if self.json => CurvesFormat::Json,
            None => CurvesFormat::Csv,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx sweep best search --export best")]
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
#[command(after_help = "Example:\n  phalanx explain search/0")]
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
#[command(after_help = "Example:\n  phalanx plan sweep.yaml --seconds 0.5")]
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
#[command(after_help = "Example:\n  phalanx replay search --eta 4")]
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
