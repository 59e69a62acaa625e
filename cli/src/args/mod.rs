//! The command line: one file per group of arguments, nothing but declarations and their checks.

mod export;
mod follow;
mod place;
mod setup;
mod sweep;
mod verbs;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Parser, Subcommand};

pub(crate) use self::export::{PointsFormat, RunExportArgs};
pub(crate) use self::follow::{TopArgs, Until, WaitArgs, WatchArgs};
pub(crate) use self::place::{OtlpArgs, PlaceArgs, SinkArgs, StateDirArgs};
pub(crate) use self::setup::{DoctorArgs, InitArgs, ModelSize, Sides};
pub(crate) use self::sweep::{
    CurvesFormat, ExplainArgs, PlanArgs, ReplayArgs, SweepArgs, SweepBestArgs, SweepCurvesArgs, SweepRunArgs,
    SweepShowArgs, SweepVerb,
};
pub(crate) use self::verbs::{
    AuditArgs, CheckpointArgs, CheckpointListArgs, CheckpointPinArgs, CheckpointShowArgs, CheckpointVerb,
    CompletionsArgs, CoordinatorServiceArgs, DrainArgs, ExportArgs, Http, LaunchArgs, ListArgs, LocalArgs, LogsArgs,
    PriorityArgs, ResumeArgs, SchemaArgs, SchemaOf, StatusArgs, StopArgs, ValidateArgs, VerifyArgs, WorkerArgs,
    WorkerName,
};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  2   the command line, a job file or the state of a run does not allow it
  3   the coordinator cannot be reached
  4   the coordinator does not know who asks
  5   the run failed, or a check (audit, verify, doctor) found something
  6   a worker lost its coordinator for longer than it may go on alone
  75  left before the end: the run was stopped and can be resumed, or goes on without this command

Environment:
  PHALANX_COORDINATOR  a running coordinator, as --coordinator
  PHALANX_STATE_DIR    the state directory, as --state-dir
  OTEL_EXPORTER_OTLP_ENDPOINT  where logs and traces go, as --otlp; OTEL_EXPORTER_OTLP_HEADERS goes with them
  PHALANX_WEBHOOK_SECRET  signs what --sink webhook= sends; MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, are
                       shown to --sink mlflow=
  RUST_LOG             what is logged on stderr, for example `info` or `coordinator=debug`";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Trains models on many workers, and gets the same bits whatever happens to them
#[derive(Debug, Parser)]
#[command(name = "phalanx", version, styles = STYLES, after_help = EXIT_CODES, max_term_width = 100)]
#[command(arg_required_else_help = true, infer_subcommands = false, disable_help_subcommand = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a job file from the answers to a few questions
    Init(InitArgs),
    /// Train a job file: everything on this machine, or on a running coordinator's workers
    Launch(LaunchArgs),
    /// Search hyperparameters: train a job in many configurations, and stop bad ones early
    Sweep(SweepArgs),
    /// Tell what became of a trial of a sweep, and why
    Explain(ExplainArgs),
    /// Play a sweep in virtual time: how long it takes on 1 to 1024 workers
    Plan(PlanArgs),
    /// Decide a sweep anew from what it measured, under the same or another setting
    Replay(ReplayArgs),
    /// Let a stopped or failed run go on from its newest checkpoint
    Resume(ResumeArgs),
    /// Bring a run to rest after the step in progress, with its state saved
    Stop(StopArgs),
    /// Change who is next: give a waiting or running run or sweep another priority
    Priority(PriorityArgs),
    /// Give a worker no more work, and let what it does go on without it
    Drain(DrainArgs),
    /// Follow a run or sweep to its end, as `launch` does, without being needed by it
    Watch(WatchArgs),
    /// Wait until a run or sweep has completed, ended or come to a step
    Wait(WaitArgs),
    /// Show workers, runs and sweeps live, full screen
    Top(TopArgs),
    /// Show the cluster, or one run in detail
    Status(StatusArgs),
    /// List all runs
    List(ListArgs),
    /// Print the log of a run
    Logs(LogsArgs),
    /// Give out every point of a run as CSV, JSON, Parquet or for TensorBoard
    Export(RunExportArgs),
    /// List, show, export and keep checkpoints
    Checkpoint(CheckpointArgs),
    /// Prove from the ledger that every sample was read exactly once per epoch
    Audit(AuditArgs),
    /// Train a job several ways, disturbed and not, and compare the weights bit by bit
    Verify(VerifyArgs),
    /// Check job files and report everything that is wrong with them
    Validate(ValidateArgs),
    /// Print the JSON Schema of job files or sweep files, for editors
    Schema(SchemaArgs),
    /// Check this machine and its cluster for what keeps people from training
    Doctor(DoctorArgs),
    /// Serve as the coordinator of a cluster
    Coordinator(CoordinatorServiceArgs),
    /// Serve a coordinator as a worker
    Worker(WorkerArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    /// What `line` comes to, or the kind of the error.
    fn parse(line: &str) -> Result<Cli, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|e| e.kind())
    }

    /// Every command, however deep, with its whole name.
    fn commands(of: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        for command in of.get_subcommands() {
            let path = format!("{path} {}", command.get_name());
            found.extend(commands(command, &path));
            found.push((path, command.clone()));
        }
        found
    }

    /// What they do when they are run is tested with real processes.
    #[test]
    fn every_help_ends_with_an_example_that_parses() {
        let all = commands(&Cli::command(), "phalanx");
        assert!(all.len() > 25, "only {} commands were found", all.len());
        for (path, mut command) in all {
            let help = command.render_long_help().to_string();
            let (before, example) = help.trim_end().rsplit_once("\n  ").unwrap();
            assert!(before.ends_with("\nExample:") && example.starts_with(&path), "{path} ends with {example:?}");
            assert!(parse(example).is_ok(), "{example}");
        }
    }

    #[test]
    fn good_lines_parse() {
        for line in [
            "phalanx launch job.yaml",
            "phalanx launch job.yaml --workers 4 --threads 1 --name again --state-dir s --json",
            "phalanx launch job.yaml --coordinator http://10.0.0.1:7070",
            "phalanx launch job.yaml --profile",
            "phalanx launch --profile job.yaml",
            "phalanx launch --profile=10-12 job.yaml",
            "phalanx sweep sweep.yaml",
            "phalanx sweep sweep.yaml --workers 2 --threads 1 --name again --json",
            "phalanx sweep sweep.yaml --coordinator http://10.0.0.1:7070",
            "phalanx sweep show digits --csv",
            "phalanx sweep show digits --parquet trials.parquet",
            "phalanx sweep curves digits --parquet curves.parquet --state-dir s",
            "phalanx sweep curves digits --json",
            "phalanx sweep best digits --export model",
            "phalanx explain digits/7",
            "phalanx replay digits --eta 3",
            "phalanx plan sweep.yaml --seconds 0.5 --json",
            "phalanx resume digits --workers 3 --sink tensorboard=runs",
            "phalanx launch job.yaml --sink tensorboard=runs --sink mlflow=http://127.0.0.1:5000",
            "phalanx sweep sweep.yaml --sink webhook=https://chat.example/T/B",
            "phalanx coordinator --sink mlflow=http://127.0.0.1:5000",
            "phalanx launch job.yaml --profile --otlp http://127.0.0.1:4317",
            "phalanx launch job.yaml --coordinator http://a:1 --otlp off",
            "phalanx sweep sweep.yaml --otlp http://127.0.0.1:4317",
            "phalanx resume digits --otlp http://127.0.0.1:4317",
            "phalanx coordinator --otlp http://collector:4317",
            "phalanx worker --coordinator 127.0.0.1:7070 --otlp http://collector:4317",
            "phalanx export digits --csv",
            "phalanx export digits --json",
            "phalanx export digits --parquet points.parquet --state-dir s",
            "phalanx export digits --tensorboard runs --coordinator http://a:1",
            "phalanx stop digits",
            "phalanx priority digits 10",
            "phalanx priority digits -1000 --coordinator http://10.0.0.1:7070",
            "phalanx drain 1a2b3c4d",
            "phalanx drain 000000001A2B3C4D --undo",
            "phalanx watch digits --json",
            "phalanx wait digits --for step=100 --timeout 10m",
            "phalanx top",
            "phalanx doctor --json",
            "phalanx init",
            "phalanx init job.yaml --yes --data images --classes 3 --image 28x28 --size small --force",
            "phalanx init --yes --data images --sweep",
            "phalanx status",
            "phalanx status digits --json",
            "phalanx list --json",
            "phalanx logs digits -f",
            "phalanx checkpoint list digits",
            "phalanx checkpoint show digits --step 100 --json",
            "phalanx checkpoint export digits --output model --whole",
            "phalanx checkpoint pin digits 100",
            "phalanx checkpoint pin digits 100 --unpin",
            "phalanx audit digits --json",
            "phalanx verify job.yaml --workers 3 --steps 20",
            "phalanx validate a.yaml b.yaml",
            "phalanx coordinator --listen 0.0.0.0:7070",
            "phalanx coordinator --http 127.0.0.1:0",
            "phalanx coordinator --http off",
            "phalanx worker --coordinator 127.0.0.1:7070 --bind 10.0.0.2 --threads 2 --orphan-limit 30",
            "phalanx worker --coordinator 127.0.0.1:7070 --profile traces --profile-steps 2-3",
            "phalanx completions zsh",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn bad_lines_are_refused_by_kind() {
        use clap::error::ErrorKind::{
            ArgumentConflict, DisplayHelpOnMissingArgumentOrSubcommand, InvalidSubcommand, MissingRequiredArgument,
            UnknownArgument, ValueValidation,
        };
        for (line, kind) in [
            ("phalanx", DisplayHelpOnMissingArgumentOrSubcommand),
            ("phalanx train", InvalidSubcommand),
            ("phalanx launch", MissingRequiredArgument),
            ("phalanx launch job.yaml --workers 0", ValueValidation),
            ("phalanx launch job.yaml --workers many", ValueValidation),
            ("phalanx launch job.yaml --workers 2000", ValueValidation),
            ("phalanx launch job.yaml --name ../../x", ValueValidation),
            ("phalanx launch job.yaml --quick", UnknownArgument),
            ("phalanx launch job.yaml --coordinator http://a:1 --threads 2", ArgumentConflict),
            ("phalanx launch job.yaml --coordinator http://a:1 --listen 127.0.0.1:1", ArgumentConflict),
            ("phalanx launch job.yaml --profile=7-3", ValueValidation),
            ("phalanx launch job.yaml --profile=1-1000", ValueValidation),
            ("phalanx launch job.yaml --coordinator http://a:1 --profile", ArgumentConflict),
            ("phalanx launch job.yaml --coordinator http://a:1 --sink tensorboard=runs", ArgumentConflict),
            ("phalanx launch job.yaml --sink wandb=x", ValueValidation),
            ("phalanx coordinator --sink mlflow=http://me:secret@host", ValueValidation),
            ("phalanx launch job.yaml --otlp collector:4317", ValueValidation),
            ("phalanx worker --coordinator http://a:1 --otlp https://collector:4317", ValueValidation),
            ("phalanx export digits", MissingRequiredArgument),
            ("phalanx export digits --csv --tensorboard runs", ArgumentConflict),
            ("phalanx sweep", DisplayHelpOnMissingArgumentOrSubcommand),
            ("phalanx sweep show", MissingRequiredArgument),
            ("phalanx sweep show digits --csv --parquet f", ArgumentConflict),
            ("phalanx sweep show digits --json --csv", ArgumentConflict),
            ("phalanx sweep curves digits", MissingRequiredArgument),
            ("phalanx sweep curves digits --csv --json", ArgumentConflict),
            ("phalanx sweep sweep.yaml --workers 0", ValueValidation),
            ("phalanx replay digits --eta 1", ValueValidation),
            ("phalanx plan sweep.yaml --seconds 0", ValueValidation),
            ("phalanx status ../../x", ValueValidation),
            ("phalanx wait digits --timeout soon", ValueValidation),
            ("phalanx wait", MissingRequiredArgument),
            ("phalanx init --image 28", ValueValidation),
            ("phalanx init --classes 1", ValueValidation),
            ("phalanx stop", MissingRequiredArgument),
            ("phalanx priority digits", MissingRequiredArgument),
            ("phalanx priority digits 1001", ValueValidation),
            ("phalanx priority digits high", ValueValidation),
            ("phalanx checkpoint pin digits", MissingRequiredArgument),
            ("phalanx checkpoint pin digits best", ValueValidation),
            ("phalanx drain", MissingRequiredArgument),
            ("phalanx drain 1a2b3c4", ValueValidation),
            ("phalanx drain worker-1", ValueValidation),
            ("phalanx drain +1a2b3c4", ValueValidation),
            ("phalanx worker", MissingRequiredArgument),
            ("phalanx worker --coordinator http://a:1 --bind nowhere", ValueValidation),
            ("phalanx verify job.yaml --workers 1", ValueValidation),
            ("phalanx coordinator --listen nowhere", ValueValidation),
            ("phalanx coordinator --http on", ValueValidation),
            ("phalanx completions cobol", clap::error::ErrorKind::InvalidValue),
        ] {
            assert_eq!(parse(line).map(|_| ()), Err(kind), "{line}");
        }
    }
}
