//! Facts of runs and sweeps, posted as JSON to whoever listens, in the manner of <https://www.standardwebhooks.com>.
//!
//! The body of a message is one object, and grows by fields only:
//!
//! | field | holds |
//! |---|---|
//! | `version` | 1 |
//! | `id` | which message this is; the same if it is sent again |
//! | `kind` | what happened: `submitted`, `group_formed`, `checkpoint_committed` and so on, as on the time line, or `run_ended` or `sweep_ended` |
//! | `at_ms` | when, in milliseconds since the Unix epoch |
//! | `run`, `sweep` | what it is about; of a trial both; null if neither |
//! | `state` | where the run or sweep stands now that it ended; null with other kinds |
//! | `generation`, `worker` | the generation and the worker that it is about, or null |
//! | `text` | what happened, for a person |
//!
//! Its headers are `webhook-id`, `webhook-timestamp` and, with a key, `webhook-signature`.
//!
//! Guaranteed: every fact since the sink was first followed is told at least once, facts in their order. A message that was
//! answered with 2xx is not sent again, unless the coordinator crashed just then. Not guaranteed: delivery to one who
//! refuses a message again and again; that message is given up, for those behind it.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::ids::{RunName, Time};
use domain::picture::Picture;
use domain::timeline::{ECHOES_MAX, Moment, is_echo, moment};
use domain::view::RunState;
use hmac::{Hmac, Mac};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::{SinkPosition, Store};
use tracing::warn;

use crate::feed::Feed;
use crate::follow::Trouble;
use crate::http::{Http, refused};
use crate::points::cut;
use crate::sink::hex;
use crate::{Secrets, Sink};

/// The longest text of a message: causes of failures can be of any length.
const TEXT_BYTES_MAX: usize = 4096;
/// How often a listener may refuse a message before it is given up.
const REFUSALS_MAX: u32 = 8;

/// What is known of a run or sweep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    /// When it ended, as was told last.
    ended_at: Option<Time>,
}

pub(crate) struct Webhook {
    feed: Feed<Note>,
    http: Http,
    url: Uri,
    key: Option<Vec<u8>>,
    /// Tells the messages of this store from those of others.
    instance: String,
    /// The newest moments, so that what several members of a group tell of the same thing is told once.
    recent: VecDeque<Moment>,
    refusals: u32,
}

/// The body of a message.
#[derive(Serialize)]
struct Message<'a> {
    version: u32,
    id: &'a str,
    kind: &'a str,
    at_ms: u64,
    run: Option<&'a RunName>,
    sweep: Option<&'a RunName>,
    state: Option<RunState>,
    generation: Option<u64>,
    worker: Option<String>,
    text: &'a str,
}

/// A run or sweep that has come to its end.
struct End<'a> {
    kind: &'static str,
    name: &'a RunName,
    run: Option<&'a RunName>,
    sweep: Option<&'a RunName>,
    state: RunState,
    at: Time,
    reason: &'a str,
}

impl Webhook {
    /// Tells what happens from now on, if the sink was never followed before: nobody wants to hear of last year.
    pub(crate) async fn open(
        store: Store,
        sink: &Sink,
        url: &Uri,
        secrets: &Secrets,
        picture: &Picture,
    ) -> Result<Self, Trouble> {
        let http = Http::new(url.scheme_str() == Some("https")).map_err(|e| Trouble::Request(e.to_string()))?;
        let mut feed = Feed::<Note>::open(store, sink).await?;
        if feed.is_new() {
            let journal = feed.newest_fact().await?;
            for end in ends(picture) {
                feed.set_note(end.name, Note { ended_at: Some(end.at) });
            }
            feed.move_to(SinkPosition { records: 0, journal });
            feed.save().await?;
        }
        let before = feed.facts_before(ECHOES_MAX).await?;
        let recent = before.iter().filter_map(|fact| moment(fact.sequence, fact.at, &fact.event)).collect();
        let (url, key) = (url.clone(), secrets.webhook.clone());
        Ok(Self { feed, http, url, key, instance: String::new(), recent, refusals: 0 })
    }

    pub(crate) async fn catch_up(&mut self, picture: &Picture) -> Result<(), Trouble> {
        let told = self.tell_all(picture).await;
        // Also after a failure: what was told before it need not be told again.
        self.feed.save().await?;
        told
    }

    async fn tell_all(&mut self, picture: &Picture) -> Result<(), Trouble> {
        loop {
            let facts = self.feed.facts().await?;
            if facts.is_empty() {
                break;
            }
            for fact in facts {
                if let Some(moment) = moment(fact.sequence, fact.at, &fact.event)
                    && !is_echo(&moment, self.recent.iter())
                {
                    self.tell_moment(picture, &moment).await?;
                    self.remember(moment);
                }
                self.feed.move_to(SinkPosition { journal: fact.sequence, ..self.feed.position() });
            }
            self.feed.save().await?;
        }
        for end in ends(picture) {
            let note = Note { ended_at: Some(end.at) };
            if self.feed.note(end.name) != note {
                self.tell_end(&end).await?;
                self.feed.set_note(end.name, note);
            }
        }
        Ok(())
    }

    fn remember(&mut self, moment: Moment) {
        self.recent.push_back(moment);
        if self.recent.len() > ECHOES_MAX {
            self.recent.pop_front();
        }
    }

    async fn tell_moment(&mut self, picture: &Picture, moment: &Moment) -> Result<(), Trouble> {
        let Moment { sequence, at, kind, run, generation, worker, text } = moment;
        let id = format!("{}-{sequence}", self.instance().await?);
        // Runs and sweeps share their names.
        let is_sweep = |name: &&RunName| picture.sweep(name).is_some();
        let sweep_of = |name: &RunName| picture.run(name).and_then(|run| run.view.sweep.clone());
        let own_sweep = run.as_ref().and_then(sweep_of);
        self.post(&Message {
            version: 1,
            id: &id,
            kind: kind.name(),
            at_ms: at.0,
            run: run.as_ref().filter(|name| !is_sweep(name)),
            sweep: run.as_ref().filter(is_sweep).or(own_sweep.as_ref()),
            state: None,
            generation: generation.map(|generation| generation.0),
            worker: worker.map(|worker| worker.short()),
            text: cut(text, TEXT_BYTES_MAX),
        })
        .await
    }

    async fn tell_end(&mut self, end: &End<'_>) -> Result<(), Trouble> {
        let End { kind, name, run, sweep, state, at, reason } = *end;
        let id = format!("{}-{name}-{}", self.instance().await?, at.0);
        self.post(&Message {
            version: 1,
            id: &id,
            kind,
            at_ms: at.0,
            run,
            sweep,
            state: Some(state),
            generation: None,
            worker: None,
            text: cut(reason, TEXT_BYTES_MAX),
        })
        .await
    }

    /// What all ids of this store begin with: a hash of its first fact, which holds a time and a random id or a job.
    async fn instance(&mut self) -> Result<&str, Trouble> {
        if self.instance.is_empty() {
            let first = self.feed.first_fact().await?;
            let first = serde_json::to_vec(&first.map(|first| (first.at, first.event)));
            let first = first.map_err(|e| Trouble::Request(e.to_string()))?;
            self.instance = hex(&Sha256::digest(first)[..6]);
        }
        Ok(&self.instance)
    }

    async fn post(&mut self, message: &Message<'_>) -> Result<(), Trouble> {
        let body = serde_json::to_vec(message).map_err(|e| Trouble::Request(e.to_string()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("phalanx/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", message.id)
            .header("webhook-timestamp", now);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", signature(key, message.id, now, &body));
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| Trouble::Request(e.to_string()))?;
        let answer = self.http.send(request).await?;
        if answer.status.is_success() {
            self.refusals = 0;
            return Ok(());
        }
        let trouble = refused("a message", answer.status, &answer.body);
        if !concerns_the_message(answer.status) {
            return Err(trouble);
        }
        self.refusals += 1;
        if self.refusals < REFUSALS_MAX {
            return Err(trouble);
        }
        warn!(id = message.id, kind = message.kind, status = %answer.status, "the webhook refuses a message, it is given up");
        self.refusals = 0;
        Ok(())
    }
}

/// Whether trying again is of little use.
fn concerns_the_message(status: StatusCode) -> bool {
    let may_pass =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    !status.is_server_error() && !may_pass
}

/// The signature of a message as Standard Webhooks has it: HMAC-SHA256 over id, time and body.
fn signature(key: &[u8], id: &str, timestamp: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Runs and sweeps that have ended, and are not only at rest.
fn ends(picture: &Picture) -> impl Iterator<Item = End<'_>> {
    let is_over = |state: RunState| state.is_ended() && state != RunState::Paused;
    let runs = picture.runs().filter_map(move |run| {
        let view = &run.view;
        let at = view.ended_at.filter(|_| is_over(view.state))?;
        let (name, sweep, reason) = (&view.name, view.sweep.as_ref(), view.reason.as_str());
        Some(End { kind: "run_ended", name, run: Some(name), sweep, state: view.state, at, reason })
    });
    let sweeps = picture.sweeps().filter_map(move |sweep| {
        let view = &sweep.view;
        let at = view.ended_at.filter(|_| is_over(view.state))?;
        let (name, reason) = (&view.name, view.reason.as_str());
        Some(End { kind: "sweep_ended", name, run: None, sweep: Some(name), state: view.state, at, reason })
    });
    runs.chain(sweeps)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification, <https://github.com/standard-webhooks/standard-webhooks>.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
