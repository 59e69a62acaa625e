//! The one binary, `phalanx`: coordinator, worker and everything that people type.
//!
//! Start at [`args`] for what can be asked, and at [`commands`] for what is then done, one file per command. Commands
//! talk to a coordinator by gRPC only ([`client`]), also where they run it themselves ([`embedded`]). [`follow`] watches
//! a run to its end; [`workers`] keeps worker processes alive and never leaves one behind. [`process`] is what this process is
//! to a collector.

mod args;
mod client;
mod cluster;
mod commands;
mod doctor;
mod embedded;
mod exit;
mod export;
mod follow;
mod follow_sweep;
mod init;
mod interrupts;
mod job;
mod memory;
mod output;
mod process;
mod profile;
mod session;
mod top;
mod weights;
mod workers;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use telemetry::Telemetry;
use tokio::runtime::Runtime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::{Cli, Verb};
use crate::exit::{Exit, Failure};
use crate::process::{Part, Process};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for connections and files. Models are computed on threads of their own.
const IO_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(IO_THREADS).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => run(&runtime, cli.verb),
        Err(cause) => Err(Failure::failed(anyhow::Error::new(cause).context("cannot start threads"))),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_broken_pipe() => Exit::Done.into(),
        Err(failure) => {
            output::note(&failure.to_string());
            failure.exit().into()
        }
    }
}

/// Does what was asked, and tells the collector of it to the end, if there is one.
fn run(runtime: &Runtime, verb: Verb) -> Result<Exit, Failure> {
    let process = Process::start(runtime, &verb)?;
    log(&verb, process.telemetry.as_ref());
    let is_service = matches!(Part::of(&verb), Part::Coordinator(_) | Part::Worker(_));
    let ended = runtime.block_on(commands::run(verb, &process));
    if let Some(telemetry) = process.telemetry {
        let endpoint = telemetry.endpoint().clone();
        let lost = telemetry.end();
        // Services have said so in their logs.
        if !is_service && lost.spans() + lost.logs() > 0 {
            let (spans, logs) = (output::count(lost.spans(), "span"), output::count(lost.logs(), "log record"));
            output::note(&format!("{spans} and {logs} did not get to the collector at {endpoint}"));
        }
    }
    ended
}

/// Logs to stderr, and to the collector. Services say what they do; other commands speak for themselves, and log on stderr only
/// what `RUST_LOG` asks for. Those with a coordinator inside say what it cannot do: that its disk is full, say, and all wait.
fn log(verb: &Verb, telemetry: Option<&Telemetry>) {
    let default = match Part::of(verb) {
        Part::Coordinator(_) | Part::Worker(_) => "info",
        Part::Inside(_) => "error",
        Part::Client => "off",
    };
    let filter = EnvFilter::builder().with_default_directive(default.parse().expect("a level is a directive"));
    // Spans for the collector are for nobody else, and without one never made.
    let no_spans = format!("{}=off", telemetry::SPANS).parse().expect("a target and a level are a directive");
    let filter = filter.from_env_lossy().add_directive(no_spans);
    let is_terminal = std::io::stderr().is_terminal();
    let to_stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
    let to_collector = telemetry.map(Telemetry::layer);
    tracing_subscriber::registry().with(to_stderr.with_filter(filter)).with(to_collector).init();
}
