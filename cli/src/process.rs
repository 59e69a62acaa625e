//! What this process is, and whom it tells what it does.

use domain::ids::WorkerId;
use telemetry::{Endpoint, Telemetry};
use tokio::runtime::Runtime;

use crate::args::Verb;
use crate::exit::Failure;

/// This process.
#[derive(Debug)]
pub(crate) struct Process {
    /// The way to the collector of `--otlp`.
    pub(crate) telemetry: Option<Telemetry>,
    /// The worker that it is.
    worker: Option<WorkerId>,
}

impl Process {
    /// Opens the way to the collector that `verb` names.
    pub(crate) fn start(runtime: &Runtime, verb: &Verb) -> Result<Self, Failure> {
        let Some((endpoint, role)) = told(verb) else { return Ok(Self { telemetry: None, worker: None }) };
        let worker = match role {
            Role::Worker => Some(worker::draw_id().map_err(Failure::failed)?),
            Role::Coordinator => None,
        };
        let instance = worker.map_or_else(|| "coordinator".to_owned(), |id| format!("{:016x}", id.0));
        let _inside = runtime.enter();
        let telemetry = Telemetry::start(endpoint, &instance).map_err(Failure::config)?;
        Ok(Self { telemetry: Some(telemetry), worker })
    }

    /// The id of the worker that it is.
    pub(crate) fn worker_id(&self) -> Result<WorkerId, Failure> {
        self.worker.map_or_else(|| worker::draw_id().map_err(Failure::failed), Ok)
    }

    /// Where workers that it starts tell what they do.
    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        self.telemetry.as_ref().map(Telemetry::endpoint)
    }
}

/// What a process serves as.
enum Role {
    Coordinator,
    Worker,
}

/// Whom `verb` tells what, unless it only talks to a coordinator that is running elsewhere.
fn told(verb: &Verb) -> Option<(&Endpoint, Role)> {
    let (otlp, elsewhere) = match verb {
        Verb::Worker(args) => return args.otlp.endpoint().map(|endpoint| (endpoint, Role::Worker)),
        Verb::Coordinator(args) => (&args.otlp, &None),
        Verb::Launch(args) => (&args.local.otlp, &args.place.coordinator.coordinator),
        Verb::Resume(args) => (&args.local.otlp, &args.place.coordinator.coordinator),
        Verb::Sweep(args) if args.verb.is_none() => (&args.run.otlp, &args.run.place.coordinator.coordinator),
        Verb::Sweep(_)
        | Verb::Explain(_)
        | Verb::Plan(_)
        | Verb::Replay(_)
        | Verb::Stop(_)
        | Verb::Priority(_)
        | Verb::Drain(_)
        | Verb::Watch(_)
        | Verb::Wait(_)
        | Verb::Top(_)
        | Verb::Doctor(_)
        | Verb::Init(_)
        | Verb::Status(_)
        | Verb::List(_)
        | Verb::Logs(_)
        | Verb::Export(_)
        | Verb::Checkpoint(_)
        | Verb::Audit(_)
        | Verb::Verify(_)
        | Verb::Validate(_)
        | Verb::Schema(_)
        | Verb::Completions(_) => return None,
    };
    let endpoint = otlp.endpoint().filter(|_| elsewhere.is_none())?;
    Some((endpoint, Role::Coordinator))
}
