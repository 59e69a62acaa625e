//! Following a sweep until it ends.

use std::collections::BTreeMap;

use domain::ids::RunName;
use proto::v1::{RunState, Sweep, SweepTrial, TrialState, WatchSweepResponse};
use tokio::time::Instant;
use tonic::Streaming;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::exit::{Exit, Failure};
use crate::follow::{Absence, coordinator_ended, is_away, next_event, request_stop};
use crate::interrupts::Interrupts;
use crate::output::{escape, sweep};
use crate::workers::WorkerEvent;

/// How following came to its end.
pub(crate) enum SweepEnded {
    /// The sweep came to rest.
    Sweep(Box<Sweep>),
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
    let mut watching =
        Watching { client: client.clone(), name: name.clone(), stream: None, absence: Absence::default() };
    let (mut embedded, mut workers) = match cluster {
        Some(Cluster { embedded, workers, .. }) => (Some(embedded), Some(workers)),
        None => (None, None),
    };
    let began = Instant::now();
    let mut trials: BTreeMap<u32, SweepTrial> = BTreeMap::new();
    let mut asked_to_stop = false;
    loop {
        tokio::select! {
            message = watching.next(show) => {
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
                    return Ok(SweepEnded::Sweep(Box::new(newest)));
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
            match ended.state() {
                RunState::Completed => Ok(Exit::Done),
                RunState::Failed => {
                    Err(Failure::failed(anyhow::Error::msg(format!("sweep {name} failed: {}", escape(&ended.reason)))))
                }
                _ => {
                    show.say(&format!("stopped before the end\n  hint: {resume}"));
                    Ok(Exit::Left)
                }
            }
        }
    }
}

/// A sweep's changes, through absences of the coordinator.
struct Watching {
    client: Client,
    name: RunName,
    stream: Option<Streaming<WatchSweepResponse>>,
    absence: Absence,
}

impl Watching {
    /// The next change. Safe to cancel: at worst the stream is opened again, and then begins with how all trials stand.
    async fn next(&mut self, show: &sweep::Show) -> Result<WatchSweepResponse, Failure> {
        loop {
            match self.attempt().await {
                Ok(message) => {
                    self.absence.over();
                    return Ok(message);
                }
                Err(status) if is_away(&status) => {
                    self.absence.wait(status, self.client.url(), |line| show.say(line)).await?;
                }
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn attempt(&mut self) -> Result<WatchSweepResponse, tonic::Status> {
        if self.stream.is_none() {
            self.stream = Some(self.client.watch_sweep(&self.name).await?);
        }
        let stream = self.stream.as_mut().expect("set just above");
        match stream.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                self.stream = None;
                Err(tonic::Status::unavailable("the coordinator ended the stream"))
            }
            Err(status) => {
                self.stream = None;
                Err(status)
            }
        }
    }
}
