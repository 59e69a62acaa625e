//! The coordinator: one process that knows every run and every worker, and never holds a tensor.
//!
//! Start at [`run()`]. The [`driver`] is the one task that owns the engine: it takes messages, writes facts to the
//! journal, applies them and performs what follows ([`effects`]). Everything else is an edge: [`grpc`] turns calls and
//! streams into messages, [`http`] answers the dashboard, [`sinks`] take figures elsewhere, [`connections`] knows which stream leads to which worker, [`status`] chooses gRPC codes, [`spans`] tell a
//! collector where time goes.

mod address;
mod clock;
mod connections;
mod driver;
mod effects;
mod grpc;
mod http;
mod metrics;
mod run;
mod spans;
mod status;

use std::path::PathBuf;

use domain::engine::Timing;
use sinks::{Secrets, Sink};
use telemetry::Lost;

pub use address::live_url;
pub use run::{CoordinatorError, run};

/// What a coordinator needs to know at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds everything it must remember. Made if it does not exist.
    pub state_dir: PathBuf,
    /// How long the engine waits for what.
    pub timing: Timing,
    /// Where figures and facts go beside the store.
    pub sinks: Vec<Sink>,
    /// What the servers of `sinks` are shown.
    pub secrets: Secrets,
    /// Counts what this process tells a collector in vain, if it tells one.
    pub lost: Option<Lost>,
}

impl Config {
    /// Of a coordinator without sinks.
    pub fn new(state_dir: PathBuf, timing: Timing) -> Self {
        Self { state_dir, timing, sinks: Vec::new(), secrets: Secrets::default(), lost: None }
    }
}
