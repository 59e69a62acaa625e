use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use domain::ids::RunName;

use super::PlaceArgs;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx export digits --parquet points.parquet")]
#[command(group(ArgGroup::new("format").required(true).args(["json", "csv", "parquet", "tensorboard"])))]
pub(crate) struct RunExportArgs {
    /// The run
    pub(crate) run: RunName,
    /// Print one JSON object for each point
    #[arg(long)]
    pub(crate) json: bool,
    /// Print comma-separated values: step, epoch, metric, value, seconds, generation, rolled_back
    #[arg(long)]
    pub(crate) csv: bool,
    /// Write these columns to this new file, with types for pandas, Polars or DuckDB
    #[arg(long, value_name = "FILE")]
    pub(crate) parquet: Option<PathBuf>,
    /// Write the points that count to a new event file in a folder for the run in this one
    #[arg(long, value_name = "DIR")]
    pub(crate) tensorboard: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// What points are given out as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PointsFormat<'a> {
    /// An object on each line.
    Json,
    /// Comma-separated values.
    Csv,
    /// A file.
    Parquet(&'a Path),
    /// An event file, under this folder.
    TensorBoard(&'a Path),
}

impl RunExportArgs {
    /// The one that was asked for.
    pub(crate) fn format(&self) -> PointsFormat<'_> {
        match (&self.parquet, &self.tensorboard) {
            (Some(path), _) => PointsFormat::Parquet(path),
            (None, Some(folder)) => PointsFormat::TensorBoard(folder),
            (None, None) if self.json => PointsFormat::Json,
            (None, None) => PointsFormat::Csv,
        }
    }
}
