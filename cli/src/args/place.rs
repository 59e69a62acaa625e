use std::path::PathBuf;

use clap::Args;
use sinks::Sink;

/// Where the state of runs is kept.
#[derive(Clone, Debug, Args)]
pub(crate) struct StateDirArgs {
    /// Folder of the journal, metrics, logs and checkpoints
    #[arg(long, env = "PHALANX_STATE_DIR", value_name = "DIR", default_value = ".phalanx", hide_env = true)]
    pub(crate) state_dir: PathBuf,
}

/// Which coordinator to talk to.
#[derive(Clone, Debug, Args)]
pub(crate) struct CoordinatorArgs {
    /// URL of a running coordinator to talk to
    #[arg(long, env = "PHALANX_COORDINATOR", value_name = "URL", hide_env = true)]
    pub(crate) coordinator: Option<String>,
}

/// Where to ask about runs: a running coordinator, or the state directory itself.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) coordinator: CoordinatorArgs,
    #[command(flatten)]
    pub(crate) state_dir: StateDirArgs,
}

/// Where figures and facts go beside the state directory.
#[derive(Clone, Debug, Args)]
pub(crate) struct SinkArgs {
    /// Give figures or events to another tool too: tensorboard=DIR, mlflow=URL or webhook=URL; may be repeated
    #[arg(long = "sink", value_name = "KIND=TARGET", conflicts_with = "coordinator")]
    pub(crate) sinks: Vec<Sink>,
}
