//! What users ask for, and the way to the driver.

use std::sync::Arc;
use std::time::Duration;

use domain::engine::{Event, Refusal};
use domain::ids::RunName;
use domain::picture::Picture;
use domain::search::study::Fact;
use store::StoreError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::spans;

use super::settle::may_pass;
use super::{Driver, Message, Stopped};

/// What a user asks for.
#[derive(Debug)]
pub(super) enum UserRequest {
    /// To take something in, within a call.
    Take { event: Event, call: Span, answer: oneshot::Sender<Result<(), RequestError>> },
    /// To tell what happened in a sweep.
    SweepFacts { sweep: RunName, answer: oneshot::Sender<Vec<Fact>> },
}

/// Why a user's request was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The engine does not allow it.
    #[error(transparent)]
    Refused(Refusal),
    /// It could not be journalled.
    #[error(transparent)]
    Store(StoreError),
    /// The store takes nothing at the moment.
    #[error("the store cannot be written at the moment\nhint: see whether its disk is full")]
    Stalled,
    /// The coordinator is going away.
    #[error("the coordinator is shutting down")]
    Ending,
}

/// The way to the driver.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(super) requests: mpsc::Sender<UserRequest>,
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) picture: watch::Receiver<Arc<Picture>>,
}

impl Handle {
    /// Asks for something; returns once it is journalled and can be seen.
    pub(crate) async fn request(&self, event: Event) -> Result<(), RequestError> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(UserRequest::Take { event, call: Span::current(), answer })
            .await
            .map_err(|_| RequestError::Ending)?;
        answered.await.unwrap_or(Err(RequestError::Ending))
    }

    /// All that happened in a sweep; nothing if there is none of that name.
    pub(crate) async fn sweep_facts(&self, sweep: RunName) -> Result<Vec<Fact>, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(UserRequest::SweepFacts { sweep, answer }).await.map_err(|_| RequestError::Ending)?;
        answered.await.map_err(|_| RequestError::Ending)
    }

    /// Tells what happened; whether the driver still listens.
    pub(crate) async fn tell(&self, message: Message) -> bool {
        self.messages.send(message).await.is_ok()
    }

    /// What can be seen, now and later. Ends with the driver.
    pub(crate) fn picture(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.clone()
    }
}

impl Driver {
    pub(super) async fn on_request(&mut self, request: UserRequest) -> Result<(), Stopped> {
        let (event, call, answer) = match request {
            UserRequest::Take { event, call, answer } => (event, call, answer),
            UserRequest::SweepFacts { sweep, answer } => {
                let _ = answer.send(self.engine.sweep_facts(&sweep).unwrap_or_default());
                return Ok(());
            }
        };
        let outcome = self.take(event).instrument(spans::of_request(&call)).await?;
        // A user who has gone away finds out by looking.
        let _ = answer.send(outcome);
        Ok(())
    }

    async fn take(&mut self, event: Event) -> Result<Result<(), RequestError>, Stopped> {
        if let Err(refusal) = self.engine.check(&event) {
            return Ok(Err(RequestError::Refused(refusal)));
        }
        let now = self.clock.now();
        let began = Instant::now();
        match self.store.append(vec![(now, event.clone())]).instrument(spans::part("journal")).await {
            Ok(()) => {
                self.metrics.journalled(1, began.elapsed());
                self.apply(now, vec![event]).await?;
                Ok(Ok(()))
            }
            Err(error) if concerns_one_request(&error) => Ok(Err(RequestError::Store(error))),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn refuse_requests_for(&mut self, pause: Duration) -> Result<(), Stopped> {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                () = self.hands.shutdown.cancelled() => return Err(Stopped::Asked),
                () = &mut end => return Ok(()),
                Some(request) = self.requests.recv() => match request {
                    UserRequest::Take { event: _, call: _, answer } => {
                        let _ = answer.send(Err(RequestError::Stalled));
                    }
                    UserRequest::SweepFacts { sweep, answer } => {
                        let _ = answer.send(self.engine.sweep_facts(&sweep).unwrap_or_default());
                    }
                },
            }
        }
    }
}

/// Whether only the request at hand is the worse for it.
fn concerns_one_request(error: &StoreError) -> bool {
    may_pass(error) || matches!(error, StoreError::NotJournalable { .. } | StoreError::TooLarge { .. })
}
