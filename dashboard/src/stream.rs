//! What changes, as server-sent events.
//!
//! One task looks at the newest picture when there is one, at most four times a second, and renders what is new in it
//! once; every viewer is handed the same bytes, as far as they are of a topic of its own. An event says that something
//! changed, and brings it where it is small. Who missed some is told of a change of everything it follows.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use domain::ids::RunName;
use domain::picture::{Picture, RunPicture, SweepPicture};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use crate::api::asked::Asked;
use crate::api::{RunSummary, SweepSummary, SweepTrial};
use crate::{App, Failure};

/// The least time between two events of a topic.
const PAUSE: Duration = Duration::from_millis(250);
/// A viewer that hears nothing for longer may think that the connection is dead.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// Batches that a slow viewer may be behind before it misses some.
const BEHIND_MAX: usize = 64;
/// Topics of one viewer.
const TOPICS_MAX: usize = 50;
/// Runs or trials that an event brings along; of more it only says that there are.
const BROUGHT_MAX: usize = 20;

/// The events of one moment.
#[derive(Debug)]
struct Batch {
    /// The topics that changed, with an event for each.
    events: Vec<(String, Bytes)>,
}

/// Where viewers come to.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    batches: broadcast::Sender<Arc<Batch>>,
    pictures: watch::Receiver<Arc<Picture>>,
    shutdown: CancellationToken,
}

impl Hub {
    /// A hub, and what must run for it to hear of changes.
    pub(crate) fn new(
        pictures: watch::Receiver<Arc<Picture>>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()>) {
        let (batches, _) = broadcast::channel(BEHIND_MAX);
        let hub = Self { batches, pictures, shutdown };
        (hub.clone(), hub.follow())
    }

    async fn follow(self) {
        let Self { batches, mut pictures, shutdown } = self;
        let mut seen = pictures.borrow_and_update().version();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = pictures.changed() => if changed.is_err() { return },
            }
            let picture = pictures.borrow_and_update().clone();
            if batches.receiver_count() > 0 {
                let events = changes(&picture, seen);
                // They may all have gone away meanwhile.
                let _ = batches.send(Arc::new(Batch { events }));
            }
            seen = picture.version();
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Something changed.
#[derive(Serialize)]
struct Change {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sweep: Option<SweepSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<RunSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trials: Vec<SweepTrial>,
}

impl Change {
    fn bare(version: u64) -> Self {
        Self { version, run: None, sweep: None, runs: Vec::new(), trials: Vec::new() }
    }
}

/// An event for every topic of which something is new in `picture` since version `seen`.
fn changes(picture: &Picture, seen: u64) -> Vec<(String, Bytes)> {
    let version = picture.version();
    let mut events = Vec::new();
    let runs: Vec<&Arc<RunPicture>> = picture.runs().filter(|run| run.changed > seen).collect();
    let sweeps: Vec<&SweepPicture> = picture.sweeps().filter(|sweep| sweep.changed > seen).collect();
    let own = || runs.iter().filter(|run| run.view.sweep.is_none());
    if picture.workers_changed() > seen || own().next().is_some() || !sweeps.is_empty() {
        let brought = own().count() <= BROUGHT_MAX;
        let runs = own().filter(|_| brought).map(|run| RunSummary::of(run)).collect();
        events.push(event("cluster".to_owned(), &Change { runs, ..Change::bare(version) }));
    }
    if picture.stall_changed() > seen {
        events.push(event("store".to_owned(), &Change::bare(version)));
    }
    for run in &runs {
        let change = Change { run: Some(RunSummary::of(run)), ..Change::bare(version) };
        events.push(event(format!("run:{}", run.view.name), &change));
    }
    for sweep in sweeps {
        let new = || sweep.trials().filter(|trial| trial.changed > seen);
        let brought = new().count() <= BROUGHT_MAX;
        let trials = new().filter(|_| brought).map(|trial| SweepTrial::of(trial, picture)).collect();
        let change = Change { sweep: Some(SweepSummary::of(sweep)), trials, ..Change::bare(version) };
        events.push(event(format!("sweep:{}", sweep.view.name), &change));
    }
    events
}

fn event(topic: String, change: &Change) -> (String, Bytes) {
    let data = serde_json::to_string(change).expect("a change has only string keys");
    let text = format!("id: {}\nevent: {topic}\ndata: {data}\n\n", change.version);
    (topic, Bytes::from(text))
}

/// What a viewer asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Topics {
    topics: String,
}

/// Follow changes
///
/// Server-sent events named as their topic. Each says in which version of the picture something changed, and brings the
/// summary of the run or sweep and the trials that changed, unless they are many. Sent at most four times a second for
/// each topic; the first ones come at once.
#[utoipa::path(
    get, path = "/api/v1/stream", tag = "stream",
    params(("topics" = String, Query, description = "`cluster`, `store`, `run:NAME` and `sweep:NAME`, separated by commas")),
    responses(
        (status = 200, description = "events", content_type = "text/event-stream", body = String),
        (status = 400, description = "no such topic", body = crate::failure::Problem)
    )
)]
pub(crate) async fn stream(State(app): State<App>, Asked(asked): Asked<Topics>) -> Result<Response, Failure> {
    let topics: BTreeSet<String> = asked.topics.split(',').map(str::to_owned).collect();
    if topics.len() > TOPICS_MAX {
        return Err(Failure::bad_request(format!("topics: at most {TOPICS_MAX} at a time")));
    }
    if let Some(unknown) = topics.iter().find(|topic| !is_topic(topic)) {
        return Err(Failure::bad_request(format!(
            "topics: {unknown:?} is none of cluster, store, run:NAME, sweep:NAME"
        )));
    }
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    let body = Body::from_stream(Viewer::new(&app.hub, topics).events());
    Ok((headers, body).into_response())
}

fn is_topic(topic: &str) -> bool {
    let name = topic.strip_prefix("run:").or_else(|| topic.strip_prefix("sweep:"));
    ["cluster", "store"].contains(&topic) || name.is_some_and(|name| RunName::new(name).is_ok())
}

/// Somebody who follows topics.
struct Viewer {
    topics: BTreeSet<String>,
    batches: broadcast::Receiver<Arc<Batch>>,
    pictures: watch::Receiver<Arc<Picture>>,
    shutdown: CancellationToken,
    quiet: Interval,
    is_new: bool,
}

impl Viewer {
    fn new(hub: &Hub, topics: BTreeSet<String>) -> Self {
        let Hub { batches, pictures, shutdown } = hub.clone();
        let quiet = tokio::time::interval_at(Instant::now() + QUIET_MAX, QUIET_MAX);
        Self { topics, batches: batches.subscribe(), pictures, shutdown, quiet, is_new: true }
    }

    fn events(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut viewer| async move {
            let bytes = viewer.next().await?;
            Some((Ok(bytes), viewer))
        })
    }

    /// What goes out next; nothing more when the coordinator ends.
    async fn next(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.is_new, false) {
            return Some(self.everything());
        }
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                batch = self.batches.recv() => match batch {
                    Ok(batch) => {
                        let own = batch.events.iter().filter(|(topic, _)| self.topics.contains(topic));
                        let mut own = own.map(|(_, event)| event).peekable();
                        let Some(first) = own.next() else { continue };
                        self.quiet.reset();
                        if own.peek().is_none() {
                            return Some(first.clone());
                        }
                        return Some(Bytes::from_iter(first.iter().chain(own.flatten()).copied()));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => return Some(self.everything()),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                _ = self.quiet.tick() => return Some(Bytes::from_static(b": nothing new\n\n")),
            }
        }
    }

    /// Says of every topic that it may have changed.
    fn everything(&self) -> Bytes {
        let version = self.pictures.borrow().version();
        let events = self.topics.iter().map(|topic| event(topic.clone(), &Change::bare(version)).1);
        Bytes::from(events.collect::<Vec<_>>().concat())
    }
}
