//! What people and machines get to read. Data goes to standard output, everything else to standard error.

mod escape;
pub(crate) mod json;
pub(crate) mod parquet;
mod progress;
mod show;
pub(crate) mod sweep;
mod table;
mod time;
mod wrap;

use std::io::Write;
use std::time::Duration;

use domain::ids::WorkerId;
use proto::v1::{Stall, Worker};

use crate::embedded::Embedded;

pub(crate) use self::escape::{escape, escape_lines};
pub(crate) use self::progress::{Change, Tracker, percent, run_state_name};
pub(crate) use self::show::{Show, Summary};
pub(crate) use self::table::{table, table_within};
pub(crate) use self::time::{duration, utc};
pub(crate) use self::wrap::{terminal_width, wrap};

/// Where a run or sweep that is followed trains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The URL of the coordinator.
    coordinator: &'a str,
    /// The URL of the dashboard, if the coordinator is ours.
    dashboard: Option<&'a str>,
    /// Workers on this machine, if they are ours.
    workers: Option<u32>,
}

impl<'a> Place<'a> {
    /// A cluster that runs without us.
    pub(crate) fn of(coordinator: &'a str) -> Self {
        Self { coordinator, dashboard: None, workers: None }
    }

    /// A cluster of our own.
    pub(crate) fn own(embedded: &'a Embedded, workers: u32) -> Self {
        Self { coordinator: embedded.url(), dashboard: embedded.dashboard(), workers: Some(workers) }
    }
}

/// Writes a line of data. An error means that nobody reads any more, and ends the command.
pub(crate) fn print(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Tells a person something that is not data. Whether anybody hears it changes nothing.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A worker's id as people see it, and as it stands in the logs.
pub(crate) fn worker_name(id: u64) -> String {
    WorkerId(id).short()
}

/// Whether a worker is there, and gets work.
pub(crate) fn worker_state(worker: &Worker) -> &'static str {
    match (worker.connected, worker.draining, worker.run.is_empty()) {
        (false, _, _) => "away",
        (true, true, false) => "draining",
        (true, true, true) => "drained",
        (true, false, _) => "connected",
    }
}

/// That nothing can be made durable, and why; not escaped.
pub(crate) fn stalled(stall: &Stall, now_ms: u64) -> String {
    let since = Duration::from_millis(now_ms.saturating_sub(stall.since_ms));
    format!("for {} the store cannot be written: {}", duration(since), stall.cause)
}

/// `1 worker`, `2 workers`.
pub(crate) fn count(number: u64, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}
