//! What this process is, and whom it tells what it does.

use domain::ids::WorkerId;
use telemetry::{Endpoint, Telemetry};
use tokio::runtime::Runtime;

use crate::args::{OtlpArgs, Verb};
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
        let part = Part::of(verb);
        let otlp = match part {
            Part::Worker(otlp) | Part::Coordinator(otlp) | Part::Inside(otlp) => otlp.endpoint(),
            Part::Client => None,
        };
        let Some(endpoint) = otlp else { return Ok(Self { telemetry: None, worker: None }) };
        let worker = match part {
            Part::Worker(_) => Some(worker::draw_id().map_err(Failure::failed)?),
            Part::Coordinator(_) | Part::Inside(_) | Part::Client => None,
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

/// What a command is to a cluster.
pub(crate) enum Part<'a> {
    /// A service: the coordinator.
    Coordinator(&'a OtlpArgs),
    /// A service: a worker.
    Worker(&'a OtlpArgs),
    /// A command with a coordinator inside.
    Inside(&'a OtlpArgs),
    /// It talks to one that runs elsewhere, or to none.
    Client,
}

impl<'a> Part<'a> {
    /// What `verb` is.
    pub(crate) fn of(verb: &'a Verb) -> Self {
        let (otlp, elsewhere) = match verb {
            Verb::Worker(args) => return Part::Worker(&args.otlp),
            Verb::Coordinator(args) => return Part::Coordinator(&args.otlp),
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
            | Verb::Completions(_) => return Part::Client,
        };
        if elsewhere.is_none() { Part::Inside(otlp) } else { Part::Client }
    }
}
