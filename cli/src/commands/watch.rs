//! `phalanx watch`: follows a run or sweep that goes on elsewhere, as `launch` and `sweep` do, and ends with its exit code.

use anyhow::Context;

use crate::args::WatchArgs;
use crate::client::Named;
use crate::exit::{Exit, Failure};
use crate::follow;
use crate::follow_sweep;
use crate::interrupts::Interrupts;
use crate::output::{Place, Show, sweep};
use crate::session::Session;

pub(crate) async fn run(args: WatchArgs) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let mut session = Session::to_read(&args.place).await?;
    let watched = watch(&mut session, &args, &mut interrupts).await;
    session.close().await?;
    watched
}

async fn watch(session: &mut Session, args: &WatchArgs, interrupts: &mut Interrupts) -> Result<Exit, Failure> {
    let found = session.to_follow(&args.name).await?;
    let client = &session.client;
    let place = Place::of(client.url());
    match found {
        Named::Run(run) => {
            let mut show = Show::new(args.json);
            if !follow::is_ended(&run) {
                show.started(&run, &place)?;
            }
            let ended = follow::follow(client, &run, None, &mut show, interrupts, &mut None).await?;
            follow::conclude(ended, &run.name, &show)
        }
        Named::Sweep(sweep) => {
            let show = sweep::Show::new(args.json);
            if !follow_sweep::is_ended(&sweep) {
                show.started(&sweep, &place)?;
            }
            let ended = follow_sweep::follow(client, &args.name, None, &show, interrupts).await?;
            follow_sweep::conclude(ended, &args.name, &show)
        }
    }
}
