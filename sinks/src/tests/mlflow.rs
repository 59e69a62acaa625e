use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::world::{World, step};
use crate::{Secrets, Sink};

/// A run as the server has it.
#[derive(Clone, Debug, Default)]
struct Kept {
    experiment: String,
    tags: BTreeMap<String, String>,
    params: BTreeMap<String, String>,
    /// Each is kept once, as MLflow does.
    metrics: BTreeMap<(String, u64, u64), Value>,
    status: String,
}

/// A tracking server that can misbehave.
#[derive(Debug, Default)]
struct Tracking {
    experiments: Vec<String>,
    runs: Vec<Kept>,
    requests: usize,
    largest_batch: usize,
    /// Every so many requests are answered with 500, half of them after they were carried out.
    fails_every: usize,
    /// Metrics of this run are refused.
    refuses: Option<String>,
    authorization: Vec<String>,
}

/// Shared between the test and the handlers of the server, which look into it for a moment each.
type Shared = Arc<Mutex<Tracking>>;

struct Server {
    url: String,
    tracking: Shared,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(tracking: Tracking) -> Self {
        // See `Shared`.
        let tracking = Arc::new(Mutex::new(tracking));
        let router = Router::new()
            .route("/base/api/2.0/mlflow/experiments/get-by-name", get(get_experiment))
            .route("/base/api/2.0/mlflow/{of}/{verb}", post(change))
            .with_state(tracking.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, tracking, task }
    }

    fn sink(&self) -> Sink {
        format!("mlflow={}", self.url).parse().unwrap()
    }

    fn run(&self, name: &str) -> Kept {
        let tracking = self.tracking.lock().unwrap();
        let mut found = tracking.runs.iter().filter(|run| run.tags["mlflow.runName"] == name);
        let run = found.next().unwrap_or_else(|| panic!("no run {name}")).clone();
        assert!(found.next().is_none(), "two runs {name}");
        run
    }
}

async fn get_experiment(State(tracking): State<Shared>, Query(asked): Query<BTreeMap<String, String>>) -> Response {
    let tracking = tracking.lock().unwrap();
    match tracking.experiments.iter().position(|name| *name == asked["experiment_name"]) {
        Some(id) => axum::Json(json!({ "experiment": { "experiment_id": id.to_string() } })).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "RESOURCE_DOES_NOT_EXIST"),
    }
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, axum::Json(json!({ "error_code": code, "message": "m".repeat(1 << 16) }))).into_response()
}

async fn change(
    State(tracking): State<Shared>,
    Path((of, verb)): Path<(String, String)>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    let mut tracking = tracking.lock().unwrap();
    tracking.requests += 1;
    if let Some(shown) = headers.get("authorization") {
        tracking.authorization.push(shown.to_str().unwrap().to_owned());
    }
    let fails = tracking.fails_every > 0 && tracking.requests.is_multiple_of(tracking.fails_every);
    if fails && tracking.requests.is_multiple_of(2 * tracking.fails_every) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let answer = tracking.carry_out(&format!("{of}/{verb}"), &body);
    if fails { StatusCode::INTERNAL_SERVER_ERROR.into_response() } else { answer }
}

impl Tracking {
    fn carry_out(&mut self, what: &str, body: &Value) -> Response {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let run = |body: &Value| text(&body["run_id"]).parse::<usize>().unwrap();
        let done = match what {
            "experiments/create" => {
                self.experiments.push(text(&body["name"]));
                json!({ "experiment_id": (self.experiments.len() - 1).to_string() })
            }
            "runs/search" => {
                let (experiment, filter) = (text(&body["experiment_ids"][0]), text(&body["filter"]));
                let is_it = |run: &Kept| {
                    run.experiment == experiment
                        && filter == format!("tags.`phalanx.run` = '{}'", run.tags["phalanx.run"])
                };
                let found = self.runs.iter().position(is_it);
                json!({ "runs": found.map(|id| json!({ "info": { "run_id": id.to_string() } })).into_iter().collect::<Vec<_>>() })
            }
            "runs/create" => {
                let tags = body["tags"].as_array().unwrap();
                let tags = tags.iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))).collect();
                self.runs.push(Kept { experiment: text(&body["experiment_id"]), tags, ..Kept::default() });
                json!({ "run": { "info": { "run_id": (self.runs.len() - 1).to_string() } } })
            }
            "runs/log-batch" => {
                let run = run(body);
                let part = |key: &str| body[key].as_array().cloned().unwrap_or_default();
                let (metrics, params) = (part("metrics"), part("params"));
                self.largest_batch = self.largest_batch.max(metrics.len());
                assert!(metrics.len() <= 1000 && params.len() <= 100, "{} and {}", metrics.len(), params.len());
                let name = self.runs[run].tags["mlflow.runName"].clone();
                if !metrics.is_empty() && self.refuses.as_ref() == Some(&name) {
                    return refusal(StatusCode::BAD_REQUEST, "INVALID_PARAMETER_VALUE");
                }
                let kept = &mut self.runs[run];
                for metric in metrics {
                    let (step, at) = (metric["step"].as_u64().unwrap(), metric["timestamp"].as_u64().unwrap());
                    assert!(metric["value"].is_number() || metric["value"].is_string(), "{metric}");
                    kept.metrics.insert((text(&metric["key"]), step, at), metric["value"].clone());
                }
                kept.params.extend(params.iter().map(|param| (text(&param["key"]), text(&param["value"]))));
                kept.tags.extend(part("tags").iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))));
                json!({})
            }
            "runs/update" => {
                let run = run(body);
                self.runs[run].status = text(&body["status"]);
                json!({})
            }
            other => panic!("{other}"),
        };
        axum::Json(done).into_response()
    }
}

/// The steps of a metric, and how many values each has.
fn steps(run: &Kept, metric: &str) -> Vec<u64> {
    run.metrics.keys().filter(|(key, _, _)| key == metric).map(|(_, step, _)| *step).collect()
}

#[tokio::test]
async fn a_run_is_there_whole_and_once_though_every_third_request_fails() {
    let server = Server::start(Tracking { fails_every: 3, ..Tracking::default() }).await;
    let mut world = World::new();
    let sinks = [server.sink()];
    world.submit("a").await;
    world.join(1).await;
    let generation = world.form("a", 0).await;
    for from in [1, 26, 51, 76] {
        world.train("a", generation, from..=from + 24).await;
        // A server that fails so often is tried until it has all.
        while !world.follow(&sinks, Secrets::default()).end().await.is_empty() {}
    }
    assert_eq!(server.run("a").status, "RUNNING");
    world.complete("a", generation).await;
    while !world.follow(&sinks, Secrets::default()).end().await.is_empty() {}
    let run = server.run("a");
    assert_eq!(steps(&run, "loss"), (1..=100).collect::<Vec<_>>());
    assert_eq!(steps(&run, "samples_per_second"), (1..=100).collect::<Vec<_>>());
    assert_eq!(steps(&run, "eval_accuracy"), [25, 50, 75, 100]);
    let value = |metric: &str| run.metrics.iter().find(|((key, _, _), _)| key == metric).unwrap().1.clone();
    assert_eq!((value("grad_norm"), value("lr")), (json!("NaN"), json!(0.1)));
    assert_eq!((run.status.as_str(), run.tags["phalanx.state"].as_str()), ("FINISHED", "completed"));
    assert_eq!((run.params["schedule.lr_max"].as_str(), run.params["train.global_batch"].as_str()), ("0.001", "8"));
    let tracking = server.tracking.lock().unwrap();
    assert_eq!(tracking.experiments, ["phalanx"]);
    assert!(tracking.requests > 10 && tracking.authorization.is_empty());
    server.task.abort();
}

#[tokio::test]
async fn a_server_that_is_away_is_told_later_and_nothing_waits_for_it() {
    let mut server = Server::start(Tracking::default()).await;
    let mut world = World::new();
    let address = server.url.trim_start_matches("http://").trim_end_matches("/base/").to_owned();
    server.task.abort();
    assert!((&mut server.task).await.is_err());
    let sinks = [server.sink()];
    let followed = world.follow(&sinks, Secrets::default());
    world.submit_sweep("s").await;
    world.join(1).await;
    let generation = world.form("s.0", 0).await;
    world.train("s.0", generation, 1..=100).await;
    world.complete("s.0", generation).await;
    let board = followed.board.clone();
    let behind = followed.end().await;
    let standings = board.standings();
    let (trouble, since) = standings[0].trouble.as_ref().expect("it is behind");
    assert!(trouble.starts_with("it cannot be reached: ") && *since > 0, "{standings:?}");
    assert_eq!((standings.len(), board.troubled(), &standings[0].sink), (1, 1, &behind[0].sink));
    assert_eq!(behind.len(), 1);
    assert!(behind[0].sink == format!("mlflow at http://{address}"), "{behind:?}");
    assert!(behind[0].cause.starts_with("it cannot be reached: "), "{behind:?}");

    let router = Router::new()
        .route("/base/api/2.0/mlflow/experiments/get-by-name", get(get_experiment))
        .route("/base/api/2.0/mlflow/{of}/{verb}", post(change))
        .with_state(server.tracking.clone());
    let listener = TcpListener::bind(&address).await.unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let secrets = Secrets { mlflow: Some("Bearer t".to_owned()), webhook: None };
    let followed = world.follow(&sinks, secrets);
    let board = followed.board.clone();
    assert_eq!(followed.end().await, []);
    assert_eq!((board.troubled(), board.standings()[0].trouble.as_ref()), (0, None));
    let run = server.run("s.0");
    assert_eq!(steps(&run, "loss"), (1..=100).collect::<Vec<_>>());
    assert_eq!(run.status, "FINISHED");
    let tried = &world.picture().sweep(&super::world::name("s")).unwrap().trial(0).unwrap().view.configuration;
    for (path, value) in tried {
        assert_eq!(run.params[path], value.to_string());
    }
    let tracking = server.tracking.lock().unwrap();
    assert_eq!(tracking.experiments, ["s"]);
    assert!(tracking.authorization.iter().all(|shown| shown == "Bearer t"), "{:?}", tracking.authorization);
    assert_eq!(tracking.authorization.len(), tracking.requests);
    task.abort();
}

#[tokio::test]
async fn a_run_that_is_refused_again_and_again_does_not_stop_the_others() {
    let server = Server::start(Tracking { refuses: Some("a".to_owned()), ..Tracking::default() }).await;
    let mut world = World::new();
    for run in ["a", "b"] {
        world.submit(run).await;
        let records = (1..=1500).map(|number| step(number, 1, f64::INFINITY)).collect();
        world.store(run, records).await;
    }
    let followed = world.follow(&[server.sink()], Secrets::default());
    let has_all = async {
        loop {
            let count = {
                let tracking = server.tracking.lock().unwrap();
                let b = tracking.runs.iter().find(|run| run.tags["mlflow.runName"] == "b");
                b.map_or(0, |run| steps(run, "loss").len())
            };
            if count == 1500 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), has_all).await.unwrap();
    assert_eq!(followed.end().await, []);
    assert_eq!(server.run("a").metrics.len(), 0);
    assert_eq!(server.tracking.lock().unwrap().largest_batch, 1000);
    server.task.abort();
}
