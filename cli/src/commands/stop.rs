//! `phalanx stop`: asks a run to come to rest, and waits until it has.

use anyhow::Context;
use proto::v1::WatchRunResponse;

use crate::args::StopArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::follow::{Watching, is_ended};
use crate::interrupts::Interrupts;
use crate::output::{Show, escape, note, print, run_state_name};
use crate::session::live_coordinator;

pub(crate) async fn run(args: StopArgs) -> Result<Exit, Failure> {
    let Some(url) = live_coordinator(&args.place) else {
        let message = format!("no coordinator holds {}", args.place.state_dir.state_dir.display());
        return Err(Failure::unreachable(anyhow::Error::msg(message))
            .hint("then no run of it is being trained; --coordinator URL names a coordinator"));
    };
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut client = Client::connect(&url).await?;
    client.stop(&args.run).await?;
    let mut watching = Watching::new(&client, &args.run);
    let show = Show::new(false);
    loop {
        tokio::select! {
            message = watching.next(&show) => {
                let WatchRunResponse { run: Some(run), .. } = message? else { continue };
                if is_ended(&run) {
                    let state = run_state_name(run.state());
                    print(&format!("run {} is {state} at step {}", escape(&run.name), run.step))?;
                    return Ok(Exit::Done);
                }
            }
            () = interrupts.next() => {
                note("the run was asked to stop and will, without this command");
                return Ok(Exit::Left);
            }
        }
    }
}
