//! The one task that owns the engine.
//!
//! It takes what waits in its queue, in portions called rounds, and settles each: what was reported is made durable, then
//! the engine is told, then what it asks for is done, then people see it, and only then is it acknowledged. So nothing
//! that anybody was told can be lost with this process.
//!
//! Order within a round. Records come before facts: a fact may rest on the work that its reporter sent before it. And a
//! fact about a run is settled before later records of that run are looked at: it may be the formation after which they
//! count or no longer count.
//!
//! Late records. A group that forms goes on from a step and leaves behind what older generations made after it. A worker
//! that was cut off may report such work at any later time. It is stored, marked as rolled back (the store remembers what
//! was left behind), and the engine is not told of it ([`Engine::counts`]). Work of an older generation up to that step
//! counts, late or not, and is told as progress of the newest generation.
//!
//! When the store cannot take anything (a full disk), the round in hand is kept and tried again. Meanwhile no further
//! report is taken, so workers keep theirs and go on stepping; requests of users are refused at once.
//!
//! This file has the loop and what is shown; `restart.rs` what comes before it. The loop waits for users (`requests.rs`),
//! workers (`reports.rs`) and time (`deadlines.rs`). Each fills a [`round::Round`], and `settle.rs` settles it.

mod deadlines;
mod reports;
mod requests;
mod restart;
mod round;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::engine::{Engine, Timing};
use domain::ids::{RunName, Time, TrialId, WorkerId};
use domain::picture::Picture;
use domain::view::{RunState, View};
use store::{CheckpointStore, JournalEntry, Store, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Span, error};

use crate::clock::Clock;
use crate::connections::Connections;
use crate::effects::{self, Hands};
use crate::metrics::Metrics;
use crate::spans::{self, Rounds};

use self::requests::UserRequest;

pub(crate) use self::reports::Message;
pub(crate) use self::requests::{Handle, RequestError};
pub(crate) use self::round::Round;

/// Messages that wait for the driver before their senders have to. Also the most of one portion, so that after one
/// portion everything has been seen that waited when it began.
const MESSAGES_MAX: usize = 256;
/// Requests of users that wait.
const REQUESTS_MAX: usize = 64;

/// Owns the engine.
pub(crate) struct Driver {
    engine: Engine,
    clock: Clock,
    timing: Timing,
    checkpoint_url: String,
    store: Store,
    hands: Hands,
    metrics: Metrics,
    /// When the group was lost of runs that have no other one yet.
    lost_since: BTreeMap<RunName, (Instant, Span)>,
    /// Runs whose groups are forming.
    forming: BTreeMap<RunName, Span>,
    /// Chooses the rounds that a collector is told of.
    rounds: Rounds,
    connections: Connections,
    /// Paths of manifests that are being written.
    committing: BTreeSet<String>,
    picture: Picture,
    publish: watch::Sender<Arc<Picture>>,
    requests: mpsc::Receiver<UserRequest>,
    messages: mpsc::Receiver<Message>,
}

/// Why the driver ends. A full disk is no such reason.
enum Stopped {
    Asked,
    Failed(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Stopped::Failed(error)
    }
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) timing: Timing,
    pub(crate) metrics: Metrics,
    pub(crate) checkpoint_url: String,
    pub(crate) store: Store,
    pub(crate) checkpoints: CheckpointStore,
    pub(crate) tasks: tokio_util::task::TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Driver {
    /// Brings back what `journal` tells, and looks where things stand now.
    pub(crate) async fn start(parts: Parts, journal: Vec<JournalEntry>) -> Result<(Self, Handle), StoreError> {
        let Parts { timing, metrics, checkpoint_url, store, checkpoints, tasks, shutdown } = parts;
        let (ask, requests) = mpsc::channel(REQUESTS_MAX);
        let (happened, messages) = mpsc::channel(MESSAGES_MAX);
        let (publish, picture) = watch::channel(Arc::default());
        let handle = Handle { requests: ask, messages: happened.clone(), picture };
        let newest = journal.last().map_or(Time(0), |entry| entry.at);
        let is_restart = !journal.is_empty();
        let mut driver = Driver {
            engine: Engine::new(timing),
            clock: Clock::start(newest),
            timing,
            checkpoint_url,
            store,
            hands: Hands { checkpoints, tasks, happened, shutdown },
            metrics,
            lost_since: BTreeMap::new(),
            forming: BTreeMap::new(),
            rounds: Rounds::default(),
            connections: Connections::default(),
            committing: BTreeSet::new(),
            picture: Picture::default(),
            publish,
            requests,
            messages,
        };
        driver.replay(journal);
        if is_restart {
            match driver.reconcile().await {
                Ok(()) | Err(Stopped::Asked) => {}
                Err(Stopped::Failed(error)) => return Err(error),
            }
        }
        driver.publish();
        Ok((driver, handle))
    }

    /// Serves until asked to end.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        match self.serve().await {
            Ok(()) | Err(Stopped::Asked) => Ok(()),
            Err(Stopped::Failed(error)) => {
                error!(cause = %error, "the store failed, the coordinator must end");
                Err(error)
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Stopped> {
        let shutdown = self.hands.shutdown.clone();
        let mut messages = Vec::with_capacity(MESSAGES_MAX);
        loop {
            let due = self.engine.next_deadline().map(|(at, _)| self.clock.instant(at));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(request) = self.requests.recv() => self.on_request(request).await?,
                _ = self.messages.recv_many(&mut messages, MESSAGES_MAX) => {
                    self.on_messages(messages.drain(..)).await?;
                }
                () = sleep_until(due) => {}
            }
            self.pass_deadlines().await?;
        }
    }

    /// Takes over what is different of the engine, and cleans up behind runs that have just completed.
    fn look(&mut self) {
        let workers = self.picture.workers().len();
        let completed = self.take_over();
        for run in &completed {
            let trial = only_trial(run);
            let saved = self.picture.run(run).into_iter().flat_map(|r| &r.view.checkpoints).map(|c| &c.manifest);
            let kept: BTreeSet<String> = saved.chain(&self.committing).cloned().collect();
            effects::sweep_in_background(&self.hands, trial, kept.into_iter().collect());
        }
        if workers != self.picture.workers().len() {
            let known: BTreeSet<WorkerId> = self.picture.workers().iter().map(|w| w.info.id).collect();
            self.connections.forget_unless(|worker| known.contains(&worker));
        }
    }

    /// Takes over what is different of the engine. Tells which runs have completed since.
    fn take_over(&mut self) -> Vec<RunName> {
        let changes = self.engine.take_changes();
        let was_completed =
            |name: &RunName| self.picture.run(name).is_some_and(|run| run.view.state == RunState::Completed);
        let completed = changes.runs.iter().filter(|run| run.state == RunState::Completed && !was_completed(&run.name));
        let completed = completed.map(|run| run.name.clone()).collect();
        self.observe_groups(&changes);
        self.picture.put(changes, &self.engine);
        completed
    }

    /// Counts the groups that formed, and times how long runs were without one.
    fn observe_groups(&mut self, changes: &View) {
        let now = Instant::now();
        for run in &changes.runs {
            let Some(before) = self.picture.run(&run.name).map(|before| &before.view) else { continue };
            let newest = before.groups.last().map(|group| group.generation);
            let formed = run.groups.iter().filter(|group| newest.is_none_or(|newest| group.generation > newest));
            self.metrics.formations.increment(formed.count() as u64);
            if run.failures > before.failures {
                self.lost_since.entry(run.name.clone()).or_insert_with(|| (now, spans::recovery(run)));
            }
            if run.state == RunState::Forming {
                self.forming.entry(run.name.clone()).or_insert_with(|| spans::forming(run));
            } else if let Some(span) = self.forming.remove(&run.name) {
                spans::came_out(&span, run);
            }
            if run.state == RunState::Running || run.state.is_ended() {
                let Some((since, span)) = self.lost_since.remove(&run.name) else { continue };
                spans::came_out(&span, run);
                if run.state == RunState::Running {
                    self.metrics.recovery.record(now.duration_since(since));
                }
            }
        }
    }

    /// What the engine is told the time is.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    fn publish(&self) {
        self.publish.send_replace(Arc::new(self.picture.clone()));
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A job is a run with a single trial.
fn only_trial(run: &RunName) -> TrialId {
    TrialId { run: run.clone(), number: 0 }
}
