//! Keeping sinks up to date. Each has a task and a position of its own, so one that is away holds up no other.
//!
//! A sink looks whenever the picture has changed, catches up with all that is durable by then, and makes its position
//! durable after what it wrote. So what a crash cuts off is done again: a file is first cut back to where the position
//! knows it, and servers are told again in a way that they recognise. If a sink cannot be reached, that is logged once, and
//! it is tried again ever less often; meanwhile what it misses waits in the store, which has it anyway.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use domain::picture::Picture;
use hyper::StatusCode;
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::http::HttpError;
use crate::mlflow::Mlflow;
use crate::standing::Place;
use crate::tensorboard::TensorBoard;
use crate::webhook::Webhook;
use crate::{Board, Secrets, Sink};

/// How often sinks do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two looks, so that a fast run is told in portions.
    pub between: Duration,
    /// After the first failure; it doubles with each further one.
    pub pause_min: Duration,
    /// The longest pause: a server that came back is found within it.
    pub pause_max: Duration,
    /// How long the end of the coordinator waits for what is still missing.
    pub last_chance: Duration,
}

/// How often a sink that is not well is tried at the end. The pauses between add up to four seconds.
const LAST_TRIES: u32 = 5;

impl Default for Pace {
    fn default() -> Self {
        Self {
            between: Duration::from_millis(500),
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
            last_chance: Duration::from_secs(10),
        }
    }
}

/// A sink that lacks something at the end. It gets it when a coordinator of the same store next follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Which, without what may be secret.
    pub sink: String,
    /// Why.
    pub cause: String,
}

/// Why a sink is not up to date. All of this may pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("it answers {what} with {status}: {said}")]
    Refused { what: &'static str, status: StatusCode, said: String },
    #[error("its answer to {what} makes no sense")]
    Nonsense { what: &'static str },
    #[error("{} cannot be written: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("no request can be made: {0}")]
    Request(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the coordinator ended before it was up to date")]
    CutOff,
}

/// What is seen of the coordinator.
pub(crate) type Pictures = watch::Receiver<Arc<Picture>>;

/// A sink at work.
enum Following {
    TensorBoard(TensorBoard),
    Mlflow(Mlflow),
    Webhook(Webhook),
}

impl Following {
    async fn begin(sink: &Sink, secrets: &Secrets, store: &Store, picture: &Picture) -> Result<Self, Trouble> {
        let store = store.clone();
        Ok(match sink {
            Sink::TensorBoard { folder } => Self::TensorBoard(TensorBoard::open(store, sink, folder).await?),
            Sink::Mlflow { url } => Self::Mlflow(Mlflow::open(store, sink, url, secrets).await?),
            Sink::Webhook { url } => Self::Webhook(Webhook::open(store, sink, url, secrets, picture).await?),
        })
    }

    /// Brings the sink up to date with all that was durable when `picture` was taken. `pictures` shows later ones.
    async fn catch_up(&mut self, picture: &Picture, pictures: &Pictures) -> Result<(), Trouble> {
        match self {
            Self::TensorBoard(sink) => sink.catch_up(picture, pictures).await,
            Self::Mlflow(sink) => sink.catch_up(picture, pictures).await,
            Self::Webhook(sink) => sink.catch_up(picture).await,
        }
    }
}

/// Keeps `sinks` up to date until `stop`, and once more after that. Tells which of them lack something then. How they are doing
/// meanwhile is on `board`.
pub async fn follow(
    sinks: Vec<Sink>,
    secrets: Secrets,
    store: Store,
    pictures: Pictures,
    pace: Pace,
    board: &Board,
    stop: CancellationToken,
) -> Vec<Behind> {
    let mut tasks = JoinSet::new();
    for sink in sinks {
        let (secrets, store, pictures, stop) = (secrets.clone(), store.clone(), pictures.clone(), stop.clone());
        let place = board.add(&sink);
        tasks.spawn(async move {
            let cause = follow_one(&sink, secrets, store, pictures, pace, place, stop).await.err()?;
            Some(Behind { sink: sink.to_string(), cause: cause.to_string() })
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn follow_one(
    sink: &Sink,
    secrets: Secrets,
    store: Store,
    mut pictures: Pictures,
    pace: Pace,
    place: Place,
    stop: CancellationToken,
) -> Result<(), Trouble> {
    let mut following = None;
    let mut pause = pace.pause_min;
    let mut trouble: Option<Trouble> = None;
    let mut last_tries = 0;
    let mut end_of_patience = pin!(end_of_patience(&stop, pace.last_chance));
    loop {
        let is_last = stop.is_cancelled();
        let picture = pictures.borrow_and_update().clone();
        let looked = tokio::select! {
            biased;
            looked = look(sink, &secrets, &store, &picture, &pictures, &mut following) => looked,
            () = &mut end_of_patience => return Err(trouble.unwrap_or(Trouble::CutOff)),
        };
        place.set(looked.as_ref().err().map(Trouble::to_string));
        if let Err(cause) = looked {
            if trouble.is_none() {
                warn!(%sink, %cause, "the sink is not up to date, and is tried again; training goes on");
            }
            last_tries += u32::from(is_last);
            if last_tries == LAST_TRIES {
                return Err(cause);
            }
            trouble = Some(cause);
        } else {
            if trouble.take().is_some() {
                info!(%sink, "the sink is up to date again");
            }
            // What was asked for after the last picture is in the next one.
            if is_last {
                return Ok(());
            }
        }
        let again = if is_last {
            pace.pause_min * (1 << last_tries) / 8
        } else if trouble.is_none() {
            pause = pace.pause_min;
            pace.between
        } else {
            let again = pause;
            pause = (pause * 2).min(pace.pause_max);
            again
        };
        tokio::select! {
            biased;
            () = stop.cancelled(), if !is_last => continue,
            () = &mut end_of_patience => return Err(trouble.unwrap_or(Trouble::CutOff)),
            () = tokio::time::sleep(again) => {}
        }
        if trouble.is_none() {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                changed = pictures.changed() => if changed.is_err() { stop.cancelled().await },
            }
        }
    }
}

async fn look(
    sink: &Sink,
    secrets: &Secrets,
    store: &Store,
    picture: &Picture,
    pictures: &Pictures,
    following: &mut Option<Following>,
) -> Result<(), Trouble> {
    if following.is_none() {
        *following = Some(Following::begin(sink, secrets, store, picture).await?);
    }
    match following {
        Some(following) => following.catch_up(picture, pictures).await,
        None => Ok(()),
    }
}

async fn end_of_patience(stop: &CancellationToken, last_chance: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(last_chance).await;
}
