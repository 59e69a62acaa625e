use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum, value_parser};
use domain::ids::{RunName, WorkerId};
use domain::spec::file::{PRIORITY_MAX, STEPS_MAX, WORKERS_MAX};
use sinks::Sink;
use worker::ProfiledSteps;

use super::{OtlpArgs, PlaceArgs, SinkArgs, StateDirArgs};

/// The most threads of a worker; far above any machine, and low enough to catch a slip.
pub(super) const THREADS_MAX: i64 = 1024;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx launch job.yaml --name digits")]
pub(crate) struct LaunchArgs {
    /// The job file (YAML)
    pub(crate) file: PathBuf,
    /// Worker processes [default: the file's `workers`]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=WORKERS_MAX as i64))]
    pub(crate) workers: Option<u32>,
    /// Name of the run [default: the file's `name`]
    #[arg(long)]
    pub(crate) name: Option<RunName>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    /// Print one JSON object per line on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// What matters only when coordinator and workers are started here.
#[derive(Clone, Debug, Args)]
pub(crate) struct LocalArgs {
    /// Threads of each worker [default: cores / workers]
    #[arg(long, value_name = "T", conflicts_with = "coordinator")]
    #[arg(value_parser = value_parser!(u32).range(1..=THREADS_MAX))]
    pub(crate) threads: Option<u32>,
    /// Where the coordinator in this process listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", conflicts_with = "coordinator")]
    pub(crate) listen: SocketAddr,
    /// Write where the time of steps FIRST-LAST goes, one trace for ui.perfetto.dev per worker, and print a table
    #[arg(long, value_name = "FIRST-LAST", conflicts_with = "coordinator", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "3-7")]
    pub(crate) profile: Option<ProfiledSteps>,
    #[command(flatten)]
    pub(crate) sinks: SinkArgs,
    #[command(flatten)]
    pub(crate) otlp: OtlpArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx resume job")]
pub(crate) struct ResumeArgs {
    /// The run
    pub(crate) run: RunName,
    /// Worker processes to start, if no coordinator is running [default: as many as the run wants]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=WORKERS_MAX as i64))]
    #[arg(conflicts_with = "coordinator")]
    pub(crate) workers: Option<u32>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) local: LocalArgs,
    /// Print one JSON object per line on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx stop job")]
pub(crate) struct StopArgs {
    /// The run
    pub(crate) run: RunName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx priority job 10")]
pub(crate) struct PriorityArgs {
    /// The run or sweep
    pub(crate) name: RunName,
    /// Of those that wait for workers, the one with the highest gets them; nobody who has workers loses them
    #[arg(value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = value_parser!(i32).range(-i64::from(PRIORITY_MAX)..=i64::from(PRIORITY_MAX)))]
    pub(crate) priority: i32,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx drain 1a2b3c4d")]
pub(crate) struct DrainArgs {
    /// The worker, by the eight digits that `status` shows, or the sixteen of `status --json`
    pub(crate) worker: WorkerName,
    /// Give it work again
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

/// What people call a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerName {
    /// Its whole id.
    Full(WorkerId),
    /// The eight digits that stand for it; another worker may have the same.
    Short(u32),
}

impl FromStr for WorkerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        match (u64::from_str_radix(text, 16), text.len()) {
            (Ok(id), 16) if is_hex => Ok(WorkerName::Full(WorkerId(id))),
            (Ok(id), 8) if is_hex => Ok(WorkerName::Short(id as u32)),
            _ => Err("it is eight or sixteen hexadecimal digits".to_owned()),
        }
    }
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkerName::Full(id) => write!(f, "{:016x}", id.0),
            WorkerName::Short(digits) => write!(f, "{digits:08x}"),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx status digits")]
pub(crate) struct StatusArgs {
    /// A run to show in detail
    pub(crate) run: Option<RunName>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx list")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx logs digits")]
pub(crate) struct LogsArgs {
    /// The run
    pub(crate) run: RunName,
    /// Go on with new lines until the run ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx checkpoint list digits")]
#[command(arg_required_else_help = true)]
pub(crate) struct CheckpointArgs {
    #[command(subcommand)]
    pub(crate) verb: CheckpointVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointVerb {
    /// List the checkpoints of a run
    List(CheckpointListArgs),
    /// Check one checkpoint and show what is in it
    Show(CheckpointShowArgs),
    /// Write the model of a checkpoint as model.safetensors and config.json
    Export(ExportArgs),
    /// Keep a checkpoint, whatever the job's keep_last and keep_best say
    Pin(CheckpointPinArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx checkpoint list digits")]
pub(crate) struct CheckpointListArgs {
    /// The run
    pub(crate) run: RunName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx checkpoint show digits")]
pub(crate) struct CheckpointShowArgs {
    /// The run
    pub(crate) run: RunName,
    /// Step of the checkpoint [default: the run's result, or else the newest]
    #[arg(long)]
    pub(crate) step: Option<u64>,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx checkpoint export digits --output model")]
pub(crate) struct ExportArgs {
    /// The run
    pub(crate) run: RunName,
    /// Step of the checkpoint [default: the run's result, or else the newest]
    #[arg(long)]
    pub(crate) step: Option<u64>,
    /// Folder to write into [default: RUN-step-STEP in the current folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Write the optimizer's state too, as state.safetensors, and the job as job.json
    #[arg(long)]
    pub(crate) whole: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx checkpoint pin digits 100")]
pub(crate) struct CheckpointPinArgs {
    /// The run
    pub(crate) run: RunName,
    /// Step of the checkpoint
    pub(crate) step: u64,
    /// Let it stay or go as the job says
    #[arg(long)]
    pub(crate) unpin: bool,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx audit digits")]
pub(crate) struct AuditArgs {
    /// The run
    pub(crate) run: RunName,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx verify job.yaml --steps 40")]
pub(crate) struct VerifyArgs {
    /// The job file (YAML)
    pub(crate) file: PathBuf,
    /// Workers to compare with one
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = value_parser!(u32).range(2..=WORKERS_MAX as i64))]
    pub(crate) workers: u32,
    /// Train this many steps instead of the file's length
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=STEPS_MAX))]
    pub(crate) steps: Option<u64>,
    /// Threads of each worker [default: cores / workers]
    #[arg(long, value_name = "T", value_parser = value_parser!(u32).range(1..=THREADS_MAX))]
    pub(crate) threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx validate job.yaml")]
pub(crate) struct ValidateArgs {
    /// Job files (YAML)
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Print each complete specification as a line of JSON, in the form that coordinators take
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx schema job")]
pub(crate) struct SchemaArgs {
    /// Of which files
    #[arg(value_enum)]
    pub(crate) of: SchemaOf,
}

/// Files that people write.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SchemaOf {
    /// Job files
    Job,
    /// Sweep files
    Sweep,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx coordinator --listen 127.0.0.1:7070")]
pub(crate) struct CoordinatorServiceArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,
    /// Where to serve the dashboard and its API, or `off`
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7788")]
    pub(crate) http: Http,
    /// Give figures or events of all runs to another tool too: tensorboard=DIR, mlflow=URL or webhook=URL; may be repeated
    #[arg(long = "sink", value_name = "KIND=TARGET")]
    pub(crate) sinks: Vec<Sink>,
    #[command(flatten)]
    pub(crate) otlp: OtlpArgs,
    #[command(flatten)]
    pub(crate) state_dir: StateDirArgs,
}

/// Where the dashboard is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Http {
    /// At this address.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl FromStr for Http {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Http::Off),
            address => address.parse().map(Http::At).map_err(|e| format!("{e}; it is IP:PORT or `off`")),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx worker --coordinator http://127.0.0.1:7070 --threads 1")]
pub(crate) struct WorkerArgs {
    /// URL of the coordinator
    #[arg(long, env = "PHALANX_COORDINATOR", value_name = "URL", hide_env = true)]
    pub(crate) coordinator: String,
    /// The address at which other workers reach this one
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) bind: IpAddr,
    /// Threads to compute with [default: cores]
    #[arg(long, value_name = "T")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Seconds to go on without hearing from the coordinator
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = value_parser!(u64).range(1..=ORPHAN_LIMIT_MAX))]
    pub(crate) orphan_limit: u64,
    /// Write where the time of some steps goes to profile-RANK.json in this folder, for ui.perfetto.dev
    #[arg(long, value_name = "DIR")]
    pub(crate) profile: Option<PathBuf>,
    /// Which steps, counted from the first that a group makes
    #[arg(long, value_name = "FIRST-LAST", default_value_t, requires = "profile")]
    pub(crate) profile_steps: ProfiledSteps,
    #[command(flatten)]
    pub(crate) otlp: OtlpArgs,
    /// End when standard input is closed: how a worker notices that the process which started it is gone
    #[arg(long)]
    pub(crate) exit_with_stdin: bool,
}

/// A week: longer than any outage that somebody will still want to have survived.
const ORPHAN_LIMIT_MAX: u64 = 7 * 86_400;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  phalanx completions bash")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}
