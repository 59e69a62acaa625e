//! The one binary, `phalanx`: coordinator, worker and everything that people type.
//!
//! Start at [`args`] for what can be asked, and at [`commands`] for what is then done, one file per command. Commands
//! talk to a coordinator by gRPC only ([`client`]), also where they run it themselves ([`embedded`]). [`follow`] watches
//! a run to its end; [`workers`] keeps worker processes alive and never leaves one behind.

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
mod profile;
mod session;
mod top;
mod weights;
mod workers;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Verb};
use crate::exit::{Exit, Failure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for connections and files. Models are computed on threads of their own.
const IO_THREADS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(&cli.verb);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(IO_THREADS).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli.verb)),
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

/// Services say what they do; other commands speak for themselves and log only what `RUST_LOG` asks for.
fn log_to_stderr(verb: &Verb) {
    let default = match verb {
        Verb::Coordinator(_) | Verb::Worker(_) => "info",
        Verb::Launch(_)
        | Verb::Sweep(_)
        | Verb::Explain(_)
        | Verb::Plan(_)
        | Verb::Replay(_)
        | Verb::Resume(_)
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
        | Verb::Completions(_) => "off",
    };
    let filter = EnvFilter::builder().with_default_directive(default.parse().expect("a level is a directive"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
}
