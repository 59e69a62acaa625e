//! `phalanx stop`: asks a run or sweep to come to rest, and waits until it has.

use anyhow::Context;
use domain::ids::RunName;

use crate::args::StopArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::follow::{OneRun, Watched, Watching};
use crate::follow_sweep::OneSweep;
use crate::interrupts::Interrupts;
use crate::output::{note, print};
use crate::session::must_be_live;

pub(crate) async fn run(args: StopArgs) -> Result<Exit, Failure> {
    let url = must_be_live(&args.place)?;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut client = Client::connect(&url).await?;
    client.stop(&args.run).await?;
    let is_sweep = client.sweep(&args.run).await.is_ok();
    if is_sweep {
        until_at_rest::<OneSweep>(&client, &args.run, &mut interrupts).await
    } else {
        until_at_rest::<OneRun>(&client, &args.run, &mut interrupts).await
    }
}

async fn until_at_rest<W: Watched>(
    client: &Client,
    name: &RunName,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let mut watching = Watching::<W>::new(client, name);
    loop {
        tokio::select! {
            message = watching.next(note) => {
                if let Some(line) = W::at_rest(&message?) {
                    print(&line)?;
                    return Ok(Exit::Done);
                }
            }
            () = interrupts.next() => {
                note("it was asked to stop and will, without this command");
                return Ok(Exit::Left);
            }
        }
    }
}
