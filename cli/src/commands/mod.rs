//! One file per command: find the coordinator, ask, show.

mod audit;
mod checkpoint;
mod completions;
mod coordinator;
mod doctor;
mod drain;
mod explain;
mod export;
mod init;
mod launch;
mod list;
mod logs;
mod plan;
mod priority;
mod replay;
mod resume;
mod schema;
mod status;
mod stop;
mod sweep;
mod sweep_results;
mod top;
mod validate;
mod verify;
mod wait;
mod watch;
mod worker;

use crate::args::Verb;
use crate::exit::{Exit, Failure};
use crate::process::Process;

/// Does what was asked.
pub(crate) async fn run(verb: Verb, process: &Process) -> Result<Exit, Failure> {
    match verb {
        Verb::Init(args) => init::run(args),
        Verb::Launch(args) => launch::run(args, process).await,
        Verb::Sweep(args) => sweep::run(args, process).await,
        Verb::Explain(args) => explain::run(args).await,
        Verb::Plan(args) => plan::run(&args),
        Verb::Replay(args) => replay::run(args).await,
        Verb::Resume(args) => resume::run(args, process).await,
        Verb::Stop(args) => stop::run(args).await,
        Verb::Priority(args) => priority::run(args).await,
        Verb::Drain(args) => drain::run(args).await,
        Verb::Watch(args) => watch::run(args).await,
        Verb::Wait(args) => wait::run(args).await,
        Verb::Top(args) => top::run(args).await,
        Verb::Status(args) => status::run(args).await,
        Verb::List(args) => list::run(args).await,
        Verb::Logs(args) => logs::run(args).await,
        Verb::Export(args) => export::run(args).await,
        Verb::Checkpoint(args) => checkpoint::run(args.verb).await,
        Verb::Audit(args) => audit::run(args).await,
        Verb::Verify(args) => verify::run(args).await,
        Verb::Validate(args) => validate::run(&args),
        Verb::Schema(args) => schema::run(&args),
        Verb::Doctor(args) => doctor::run(args).await,
        Verb::Coordinator(args) => coordinator::run(args, process).await,
        Verb::Worker(args) => worker::run(args, process).await,
        Verb::Completions(args) => completions::run(&args),
    }
}
