//! Following a sweep until it ends.

use std::collections::BTreeMap;

use domain::ids::RunName;
use proto::v1::{RunState, Sweep, SweepTrial, TrialState, WatchSweepResponse};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::client::{Client, SweepResults};
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::follow::{Watched, Watching, coordinator_ended, next_event, request_stop};
use crate::interrupts::Interrupts;
use crate::output::{escape, run_state_name, sweep};
use crate::workers::WorkerEvent;

/// How following came to its end.
pub(crate) enum SweepEnded {
    /// The sweep came to rest.
    Sweep(Box<SweepResults>),
    /// A user left; the sweep goes on elsewhere.
    Detached,
    /// A user does not want to wait for it to come to rest.
    AtOnce,
}

/// Follows a sweep to its end. With `cluster`, an interrupt stops the sweep; without, it only ends the following.
pub(crate) async fn follow(
    client: &Client,
    name: &RunName,
    cluster: Option<&mut Cluster>,
    show: &sweep::Show,
    interrupts: &mut Interrupts,
) -> Result<SweepEnded, Failure> {
    let mut watching = Watching::<OneSweep>::new(client, name);
    let (mut embedded, mut workers) = match cluster {
        Some(Cluster { embedded, workers, .. }) => (Some(embedded), Some(workers)),
        None => (None, None),
    };
    let began = Instant::now();
    let mut trials: BTreeMap<u32, SweepTrial> = BTreeMap::new();
    let mut asked_to_stop = false;
    loop {
        tokio::select! {
            message = watching.next(|line| show.say(line)) => {
                let Some(mut newest) = message?.sweep else { continue };
                for trial in std::mem::take(&mut newest.trials) {
                    let before = trials.insert(trial.number, trial.clone());
                    show.trial(&newest, before.as_ref(), &trial, began.elapsed())?;
                    if let (TrialState::Completed | TrialState::Paused | TrialState::Pruned, Some(workers)) = (trial.state(), &workers) {
                        workers.progressed(trial.step);
                    }
                }
                if is_ended(&newest) {
                    newest.trials = trials.into_values().collect();
                    // A coordinator that ends just now takes with it what only it can tell.
                    let results = watching.client.sweep_results(name).await;
                    return Ok(SweepEnded::Sweep(Box::new(results.unwrap_or_else(|_| SweepResults::of(newest)))));
                }
            }
            event = next_event(&mut workers) => {
                show.worker(&event)?;
                if let WorkerEvent::GaveUp { why, .. } = event {
                    let hint = format!("the sweep is kept: phalanx resume {name}");
                    return Err(Failure::failed(anyhow::Error::msg(why)).hint(hint));
                }
            }
            failure = coordinator_ended(&mut embedded) => return Err(failure),
            () = interrupts.next() => {
                if workers.is_none() {
                    return Ok(SweepEnded::Detached);
                }
                if asked_to_stop {
                    return Ok(SweepEnded::AtOnce);
                }
                asked_to_stop = true;
                show.say("stopping every trial after its step in progress, saved; once more to leave at once");
                request_stop(&mut watching.client, name).await?;
            }
        }
    }
}

/// Whether a sweep has come to rest.
pub(crate) fn is_ended(sweep: &Sweep) -> bool {
    matches!(sweep.state(), RunState::Stopped | RunState::Completed | RunState::Failed)
}

/// The exit code and the last words.
pub(crate) fn conclude(ended: SweepEnded, name: &RunName, show: &sweep::Show) -> Result<Exit, Failure> {
    let resume = format!("phalanx resume {name} takes it up again");
    match ended {
        SweepEnded::Detached => {
            show.say(&format!("sweep {name} goes on without this command\n  hint: phalanx stop {name} stops it"));
            Ok(Exit::Left)
        }
        SweepEnded::AtOnce => {
            show.say(&format!("left before the sweep came to rest\n  hint: {resume}"));
            Ok(Exit::Left)
        }
        SweepEnded::Sweep(ended) => {
            show.summary(&ended)?;
            match ended.sweep.state() {
                RunState::Completed => Ok(Exit::Done),
                RunState::Failed => {
                    let message = format!("sweep {name} failed: {}", escape(&ended.sweep.reason));
                    Err(Failure::failed(anyhow::Error::msg(message)))
                }
                _ => {
                    show.say(&format!("stopped before the end\n  hint: {resume}"));
                    Ok(Exit::Left)
                }
            }
        }
    }
}

/// A sweep. Its first message has all trials, later ones those that changed.
pub(crate) struct OneSweep;

impl Watched for OneSweep {
    type Message = WatchSweepResponse;

    async fn open(client: &mut Client, name: &RunName) -> Result<Streaming<WatchSweepResponse>, Status> {
        client.watch_sweep(name).await
    }

    fn at_rest(message: &WatchSweepResponse) -> Option<String> {
        let sweep = message.sweep.as_ref().filter(|sweep| is_ended(sweep))?;
        let state = run_state_name(sweep.state());
        Some(format!("sweep {} is {state}, {} trials have begun", escape(&sweep.name), sweep.trials_begun))
    }
}
