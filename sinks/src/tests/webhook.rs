use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::world::World;
use crate::{Secrets, Sink};

/// A message as it came.
#[derive(Clone, Debug)]
struct Came {
    id: String,
    signature: Option<String>,
    body: Value,
}

/// Who listens.
#[derive(Debug, Default)]
struct Listener {
    came: Vec<Came>,
    /// The answers to the next messages; 200 after them.
    answers: VecDeque<u16>,
}

/// Shared between the test and the handler of the server, which looks into it for a moment.
type Shared = Arc<Mutex<Listener>>;

struct Server {
    sink: Sink,
    listener: Shared,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        // See `Shared`.
        let listener: Shared = Arc::new(Mutex::new(Listener::default()));
        let router = Router::new().route("/hook", post(take)).with_state(listener.clone());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = format!("webhook=http://{}/hook?room=7", socket.local_addr().unwrap()).parse().unwrap();
        let task = tokio::spawn(async move { axum::serve(socket, router).await.unwrap() });
        Self { sink, listener, task }
    }

    fn answer_with(&self, answers: &[u16]) {
        self.listener.lock().unwrap().answers.extend(answers);
    }

    fn take_all(&self) -> Vec<Came> {
        std::mem::take(&mut self.listener.lock().unwrap().came)
    }

    /// Follows until all is told, and gives what came.
    async fn told(&self, world: &World) -> Vec<Came> {
        while !world.follow(std::slice::from_ref(&self.sink), Secrets::default()).end().await.is_empty() {}
        self.take_all()
    }
}

async fn take(State(listener): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut listener = listener.lock().unwrap();
    assert!(body.len() < 8192, "{} bytes", body.len());
    let body: Value = serde_json::from_slice(&body).unwrap();
    let id = header("webhook-id").unwrap();
    assert_eq!((body["id"].as_str(), &body["version"]), (Some(id.as_str()), &1.into()));
    assert!(header("webhook-timestamp").unwrap().parse::<u64>().unwrap() > 1_600_000_000);
    listener.came.push(Came { id, signature: header("webhook-signature"), body });
    StatusCode::from_u16(listener.answers.pop_front().unwrap_or(200)).unwrap()
}

fn shown(came: &[Came]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |came: &Came| {
        let body = &came.body;
        format!("{} {} {} {}", word(&body["kind"]), word(&body["run"]), word(&body["sweep"]), word(&body["state"]))
    };
    came.iter().map(line).collect()
}

#[tokio::test]
async fn facts_are_told_in_order_from_the_first_look_on_and_the_end_of_a_run_last() {
    let server = Server::start().await;
    let mut world = World::new();
    world.submit("old").await;
    assert_eq!(shown(&server.told(&world).await), Vec::<String>::new());
    world.submit_sweep("s").await;
    world.join(1).await;
    let generation = world.form("old", 0).await;
    let first = server.told(&world).await;
    // Every member tells that the group formed.
    world.form("old", 0).await;
    world.train("old", generation, 1..=100).await;
    world.complete("old", generation).await;
    let second = server.told(&world).await;
    assert_eq!(shown(&first), ["submitted - s -", "worker_joined - - -", "group_formed old - -"]);
    assert_eq!(shown(&second), ["checkpoint_committed old - -", "completed old - -", "run_ended old - completed"]);
    let generation = world.form("s.0", 0).await;
    world.fail("s.0", generation, &"disk \u{1b}[31m".repeat(100_000)).await;
    let third = server.told(&world).await;
    assert_eq!(shown(&third), ["group_formed s.0 s -", "failed s.0 s -", "run_ended s.0 s failed"]);
    assert_eq!(server.told(&world).await.len(), 0);
    let mut ids: Vec<&str> = [&first, &second, &third].into_iter().flatten().map(|came| came.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 9);
    assert!(first.iter().all(|came| came.signature.is_none()));
    server.task.abort();
}

#[tokio::test]
async fn what_was_not_taken_comes_again_as_the_same_message_and_holds_its_place() {
    let server = Server::start().await;
    let mut world = World::new();
    server.told(&world).await;
    world.submit("a").await;
    world.submit("b").await;
    server.answer_with(&[500, 503, 429]);
    let sinks = [server.sink.clone()];
    let secrets = Secrets { webhook: Some(vec![7; 32]), mlflow: None };
    let followed = world.follow(&sinks, secrets.clone());
    let came = |count: usize| {
        let listener = server.listener.clone();
        async move {
            while listener.lock().unwrap().came.len() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), came(5)).await.unwrap();
    assert_eq!(followed.end().await, []);
    let came = server.take_all();
    assert_eq!(shown(&came), [["submitted a - -"; 4].as_slice(), &["submitted b - -"]].concat());
    assert!(came[..4].iter().all(|one| one.id == came[0].id) && came[4].id != came[0].id);
    assert!(came.iter().all(|one| one.signature.as_ref().is_some_and(|signature| signature.starts_with("v1,"))));
    server.task.abort();
}

#[tokio::test]
async fn a_message_that_is_always_refused_makes_way_for_the_next() {
    let server = Server::start().await;
    let mut world = World::new();
    server.told(&world).await;
    world.submit("a").await;
    world.submit("b").await;
    server.answer_with(&[400; 8]);
    let followed = world.follow(std::slice::from_ref(&server.sink), Secrets::default());
    while server.listener.lock().unwrap().came.len() < 9 {
        tokio::task::yield_now().await;
    }
    assert_eq!(followed.end().await, []);
    let came = shown(&server.take_all());
    assert_eq!(came, [["submitted a - -"; 8].as_slice(), &["submitted b - -"]].concat());
    server.task.abort();
}

#[tokio::test]
async fn what_is_refused_at_the_end_gets_another_chance() {
    let server = Server::start().await;
    let mut world = World::new();
    server.told(&world).await;
    world.submit("a").await;
    server.answer_with(&[503, 503]);
    assert_eq!(world.follow(std::slice::from_ref(&server.sink), Secrets::default()).end().await, []);
    assert_eq!(shown(&server.take_all()), ["submitted a - -"; 3]);
    server.task.abort();
}

#[tokio::test]
async fn nothing_is_lost_by_a_crash_in_between() {
    let server = Server::start().await;
    let mut world = World::new();
    server.told(&world).await;
    let mut expected = Vec::new();
    let mut all = Vec::new();
    for number in 0..20 {
        let run = format!("r{number}");
        world.submit(&run).await;
        expected.push(format!("submitted {run} - -"));
        if number % 3 == 0 {
            server.answer_with(&[200]);
            server.answer_with(&[500; 1000]);
            let followed = world.follow(std::slice::from_ref(&server.sink), Secrets::default());
            while server.listener.lock().unwrap().came.len() < 1 + usize::from(number > 0) {
                tokio::task::yield_now().await;
            }
            followed.crash().await;
            server.listener.lock().unwrap().answers.clear();
            all.extend(shown(&server.take_all()));
        }
    }
    all.extend(shown(&server.told(&world).await));
    assert!(all.len() > 20, "what was refused comes again");
    let mut seen = BTreeSet::new();
    all.retain(|line| seen.insert(line.clone()));
    assert_eq!(all, expected);
    server.task.abort();
}
