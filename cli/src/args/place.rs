use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use sinks::Sink;
use telemetry::{Endpoint, EndpointError};

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

/// The collector that is told what processes do.
#[derive(Clone, Debug, Args)]
pub(crate) struct OtlpArgs {
    /// Export logs and traces of this process, and of workers that it starts, by OTLP over gRPC to a collector such as
    /// http://127.0.0.1:4317, or `off`
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", hide_env = true)]
    otlp: Option<Otlp>,
}

impl OtlpArgs {
    /// Where it is, if there is one.
    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        match self.otlp.as_ref()? {
            Otlp::To(endpoint) => Some(endpoint),
            Otlp::Off => None,
        }
    }
}

/// Whether a collector is told anything. An empty variable means no, as OpenTelemetry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Otlp {
    To(Endpoint),
    Off,
}

impl FromStr for Otlp {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text {
            "" | "off" => Ok(Otlp::Off),
            endpoint => endpoint.parse().map(Otlp::To),
        }
    }
}
