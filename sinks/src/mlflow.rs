//! Runs of an MLflow tracking server, through its REST API, <https://mlflow.org/docs/latest/api_reference/rest-api.html>.
//!
//! A run of ours is a run there: in the experiment of its sweep, or in `phalanx`. It is found again by the tag
//! `phalanx.run`, so that a request whose answer was lost makes no second one. Figures that are sent twice are the same in
//! every part, and MLflow keeps them once. What a run leaves behind when it goes back to an earlier step cannot be taken
//! out there: both values of a step then stand in its history, the one that counts later.

mod names;

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::ids::{RunName, Time};
use domain::picture::{Picture, RunPicture};
use domain::record::Record;
use domain::search::Configuration;
use domain::view::RunState;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{SinkPosition, Store, StoredRecord};
use tracing::warn;

use crate::feed::Feed;
use crate::follow::{Pictures, Trouble};
use crate::http::{Http, refused};
use crate::points::cut;
use crate::{Secrets, Sink, points};

/// The most of a batch that MLflow takes.
const METRICS_MAX: usize = 1000;
/// The most of a batch that MLflow takes.
const PARAMS_MAX: usize = 100;
/// Bytes of a parameter's value that every version of MLflow takes.
const VALUE_BYTES_MAX: usize = 250;
/// How often a server may refuse the same run before that run is given up: others must not wait for it forever.
const REFUSALS_MAX: u32 = 5;
/// The experiment of runs that belong to no sweep.
const EXPERIMENT: &str = "phalanx";

/// What is known of a run there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    /// Its id.
    id: Option<String>,
    /// Whether its parameters are there.
    is_described: bool,
    /// Records up to this number are there.
    through: u64,
    /// Where it stands there.
    state: Option<RunState>,
    /// It was refused so often that it is left alone.
    is_given_up: bool,
}

pub(crate) struct Mlflow {
    feed: Feed<Note>,
    http: Http,
    base: String,
    authorization: Option<String>,
    experiments: BTreeMap<String, String>,
    refusals: BTreeMap<RunName, u32>,
    seen: u64,
}

impl Mlflow {
    pub(crate) async fn open(store: Store, sink: &Sink, url: &Uri, secrets: &Secrets) -> Result<Self, Trouble> {
        let http = Http::new(url.scheme_str() == Some("https")).map_err(|e| Trouble::Request(e.to_string()))?;
        let base = format!("{}/api/2.0/mlflow", url.to_string().trim_end_matches('/'));
        let feed = Feed::open(store, sink).await?;
        let authorization = secrets.mlflow.clone();
        let (experiments, refusals) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { feed, http, base, authorization, experiments, refusals, seen: 0 })
    }

    pub(crate) async fn catch_up(&mut self, picture: &Picture, pictures: &Pictures) -> Result<(), Trouble> {
        let sent = self.send_all(picture, pictures).await;
        // Also after a failure: what was sent before it need not be sent again.
        self.feed.save().await?;
        sent
    }

    async fn send_all(&mut self, picture: &Picture, pictures: &Pictures) -> Result<(), Trouble> {
        loop {
            let records = self.feed.records().await?;
            let Some(last) = records.last().map(|last| last.sequence) else { break };
            let mut by_run: BTreeMap<RunName, Vec<StoredRecord>> = BTreeMap::new();
            for record in records {
                by_run.entry(record.run.clone()).or_default().push(record);
            }
            let newest = pictures.borrow().clone();
            for (name, records) in by_run {
                let Some(run) = self.feed.run(&newest, &name).await? else { continue };
                let outcome = self.send_records(&newest, &run, &records).await;
                self.judge(&name, outcome)?;
            }
            self.feed.move_to(SinkPosition { records: last, ..self.feed.position() });
            self.feed.save().await?;
        }
        let seen = self.seen;
        for run in picture.runs().filter(|run| run.changed > seen) {
            let outcome = self.send_state(picture, run).await;
            self.judge(&run.view.name, outcome)?;
        }
        self.seen = picture.version();
        Ok(())
    }

    /// Gives up a run that MLflow itself, and not something on the way, has refused often enough.
    fn judge(&mut self, name: &RunName, outcome: Result<(), Trouble>) -> Result<(), Trouble> {
        let Err(Trouble::Refused { what, status, said }) = outcome else {
            self.refusals.remove(name);
            return outcome;
        };
        let refusals = self.refusals.entry(name.clone()).or_default();
        *refusals += 1;
        if *refusals < REFUSALS_MAX || !concerns_one_run(status, &said) {
            return Err(Trouble::Refused { what, status, said });
        }
        warn!(run = %name, %status, said, "mlflow refuses the run, it is given up there");
        self.refusals.remove(name);
        self.feed.set_note(name, Note { is_given_up: true, ..self.feed.note(name) });
        Ok(())
    }

    async fn send_records(
        &mut self,
        picture: &Picture,
        run: &RunPicture,
        records: &[StoredRecord],
    ) -> Result<(), Trouble> {
        let name = &run.view.name;
        if self.feed.note(name).is_given_up {
            return Ok(());
        }
        let id = self.begin(picture, run).await?;
        let mut note = self.feed.note(name);
        let new = records.iter().filter(|record| record.sequence > note.through);
        let metrics: Vec<Value> =
            new.clone().filter(|record| !record.rolled_back).flat_map(|record| metrics(record, run)).collect();
        let through = new.map(|record| record.sequence).max().unwrap_or(note.through);
        for metrics in metrics.chunks(METRICS_MAX) {
            self.post("log-batch", "runs/log-batch", json!({ "run_id": id, "metrics": metrics })).await?;
        }
        note.through = through;
        self.feed.set_note(name, note);
        Ok(())
    }

    /// Says where a run stands.
    async fn send_state(&mut self, picture: &Picture, run: &RunPicture) -> Result<(), Trouble> {
        let (name, state) = (&run.view.name, run.view.state);
        let note = self.feed.note(name);
        let has_begun = note.id.is_some() || state != RunState::Waiting;
        if note.is_given_up || note.state == Some(state) || !has_begun {
            return Ok(());
        }
        let id = self.begin(picture, run).await?;
        let reason = cut(&run.view.reason, VALUE_BYTES_MAX);
        let tags = json!([
            { "key": "phalanx.state", "value": state.to_string() },
            { "key": "phalanx.reason", "value": reason },
        ]);
        self.post("log-batch", "runs/log-batch", json!({ "run_id": id, "tags": tags })).await?;
        let mut update = json!({ "run_id": id, "status": status(state) });
        if let Some(ended_at) = run.view.ended_at {
            update["end_time"] = ended_at.0.into();
        }
        self.post("update", "runs/update", update).await?;
        self.feed.set_note(name, Note { state: Some(state), ..self.feed.note(name) });
        Ok(())
    }

    /// The id of a run, which is made there if it is not known.
    async fn begin(&mut self, picture: &Picture, run: &RunPicture) -> Result<String, Trouble> {
        let name = &run.view.name;
        let mut note = self.feed.note(name);
        let id = match note.id.clone() {
            Some(id) => id,
            None => {
                let id = self.find_or_create(run).await?;
                note.id = Some(id.clone());
                self.feed.set_note(name, note.clone());
                id
            }
        };
        if !note.is_described {
            for params in params(picture, run).chunks(PARAMS_MAX) {
                self.post("log-batch", "runs/log-batch", json!({ "run_id": id, "params": params })).await?;
            }
            note.is_described = true;
            self.feed.set_note(name, note);
        }
        Ok(id)
    }

    async fn find_or_create(&mut self, run: &RunPicture) -> Result<String, Trouble> {
        let (name, submitted_at) = (&run.view.name, run.view.submitted_at.0);
        let experiment = self.experiment(run.view.sweep.as_ref().map_or(EXPERIMENT, RunName::as_str)).await?;
        // Runs of other coordinators may have the name.
        let mark = format!("{name}@{submitted_at}");
        let search = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`phalanx.run` = '{mark}'"), "max_results": 1,
        });
        let found = self.post("search", "runs/search", search).await?;
        if let Some(id) = found["runs"][0]["info"]["run_id"].as_str() {
            return Ok(id.to_owned());
        }
        let tag = |key: &str, value: &str| json!({ "key": key, "value": value });
        let create = json!({
            "experiment_id": experiment, "run_name": name.as_str(), "start_time": submitted_at,
            "tags": [
                tag("phalanx.run", &mark), tag("mlflow.runName", name.as_str()), tag("mlflow.source.name", "phalanx"),
                tag("mlflow.source.type", "JOB"), tag("mlflow.user", "phalanx"),
            ],
        });
        let made = self.post("create", "runs/create", create).await?;
        let id = made["run"]["info"]["run_id"].as_str().ok_or(Trouble::Nonsense { what: "create" })?;
        Ok(id.to_owned())
    }

    async fn experiment(&mut self, name: &str) -> Result<String, Trouble> {
        if let Some(id) = self.experiments.get(name) {
            return Ok(id.clone());
        }
        let path = format!("experiments/get-by-name?experiment_name={name}");
        let id = match self.ask("get-by-name", Method::GET, &path, None).await {
            Ok(found) => found["experiment"]["experiment_id"].as_str().map(str::to_owned),
            Err(Trouble::Refused { said, .. }) if said.contains("RESOURCE_DOES_NOT_EXIST") => {
                let made = self.post("create", "experiments/create", json!({ "name": name })).await?;
                made["experiment_id"].as_str().map(str::to_owned)
            }
            Err(trouble) => return Err(trouble),
        };
        let id = id.ok_or(Trouble::Nonsense { what: "get-by-name" })?;
        self.experiments.insert(name.to_owned(), id.clone());
        Ok(id)
    }

    async fn post(&self, what: &'static str, path: &str, body: Value) -> Result<Value, Trouble> {
        self.ask(what, Method::POST, path, Some(body)).await
    }

    async fn ask(&self, what: &'static str, method: Method, path: &str, body: Option<Value>) -> Result<Value, Trouble> {
        let mut request = Request::builder().method(method).uri(format!("{}/{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(|e| Trouble::Request(e.to_string()))?;
        let answer = self.http.send(request).await?;
        if !answer.status.is_success() {
            return Err(refused(what, answer.status, &answer.body));
        }
        serde_json::from_slice(&answer.body).map_err(|_| Trouble::Nonsense { what })
    }
}

/// Whether trying again is of no use to this run, while others may do better.
fn concerns_one_run(status: StatusCode, said: &str) -> bool {
    let is_general = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    );
    status.is_client_error() && !is_general && said.contains("error_code")
}

/// A run's state in MLflow's words. Who is stopped or ended early is `KILLED` there, as other searches have it.
fn status(state: RunState) -> &'static str {
    match state {
        RunState::Waiting | RunState::Forming | RunState::Running | RunState::Stopping => "RUNNING",
        RunState::Paused => "SCHEDULED",
        RunState::Stopped | RunState::Pruned => "KILLED",
        RunState::Completed => "FINISHED",
        RunState::Failed => "FAILED",
    }
}

fn metrics(stored: &StoredRecord, run: &RunPicture) -> Vec<Value> {
    let samples = match &stored.record {
        Record::Step(step) => run.samples_of(step),
        Record::Eval(_) => None,
    };
    let Time(at_ms) = stored.at.unwrap_or(run.view.submitted_at);
    let step = stored.record.position().step.0;
    let metric = |(key, value)| json!({ "key": key, "value": number(value), "timestamp": at_ms, "step": step });
    points(&stored.record, samples).into_iter().map(metric).collect()
}

/// JSON has no word for numbers that are none; protobuf's form of it has.
fn number(value: f64) -> Value {
    if value.is_finite() {
        return value.into();
    }
    let word = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    word.into()
}

/// What a trial tries, under the keys of the job file, and the whole job, under the keys of its specification.
fn params(picture: &Picture, run: &RunPicture) -> Vec<Value> {
    let mut params: BTreeMap<String, String> = BTreeMap::new();
    let spec = serde_json::to_value(&*run.spec).expect("a specification has only string keys and finite numbers");
    flatten("", &spec, &mut params);
    for (path, value) in tried(picture, run).into_iter().flatten() {
        params.insert(names::key(path), value.to_string());
    }
    let param = |(key, value): (String, String)| json!({ "key": key, "value": cut(&value, VALUE_BYTES_MAX) });
    params.into_iter().map(param).collect()
}

fn tried<'a>(picture: &'a Picture, run: &RunPicture) -> Option<&'a Configuration> {
    let sweep = picture.sweep(run.view.sweep.as_ref()?)?;
    let (_, number) = run.view.name.as_str().rsplit_once('.')?;
    Some(&sweep.trial(number.parse().ok()?)?.view.configuration)
}

fn flatten(path: &str, value: &Value, params: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, params);
            }
        }
        Value::String(text) => {
            params.insert(names::key(path), text.clone());
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            params.insert(names::key(path), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_words() {
        for (value, json) in
            [(0.5, "0.5"), (f64::NAN, "\"NaN\""), (f64::INFINITY, "\"Infinity\""), (f64::NEG_INFINITY, "\"-Infinity\"")]
        {
            assert_eq!(number(value).to_string(), json);
        }
    }

    #[test]
    fn only_what_mlflow_itself_says_of_a_run_gives_it_up() {
        let said = "{\"error_code\": \"INVALID_PARAMETER_VALUE\"}";
        for (status, said, gives_up) in [
            (400, said, true),
            (404, said, true),
            (401, said, false),
            (403, said, false),
            (429, said, false),
            (500, said, false),
            (404, "<html>nginx</html>", false),
        ] {
            assert_eq!(concerns_one_run(StatusCode::from_u16(status).unwrap(), said), gives_up, "{status}");
        }
    }
}
