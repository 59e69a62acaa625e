//! Requests that nobody of good will sends. Each is refused with a status and words, and breaks nothing.

use domain::engine::{AttemptOutcome, WorkerInfo};
use domain::ids::{Generation, Step};
use proto::convert::{self, Report};
use serde_json::Value;
use tonic::Code;

use super::client::{exchange, get, get_json, send};
use super::{line, lines_are_there, long_spec, training};
use crate::peer::{Worker, hello, info, trial};
use crate::{Coordinator, ended};

#[tokio::test]
async fn bad_requests_are_refused_in_a_few_words() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (_tools, mut worker) = training(&coordinator, 4).await;
    worker.acknowledged_all().await;
    let names = [
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "%00",
        "%E2%80%AEdesrever",
        "..%2f..%2fetc%2fpasswd",
        "a%0d%0aSet-Cookie:x",
        "%ff%fe",
        "nosuch",
        &"x".repeat(5_000),
    ];
    let places = [
        "",
        "/series",
        "/log",
        "/ledger",
        "/model",
        "/inspections",
        "/inspections/1",
        "/histograms?tensor=a",
        "/export.csv",
    ];
    for name in names {
        for path in places.iter().map(|place| format!("/api/v1/runs/{name}{place}")).chain([
            format!("/api/v1/sweeps/{name}"),
            format!("/api/v1/sweeps/{name}/decisions"),
            format!("/api/v1/sweeps/{name}/export.csv"),
        ]) {
            let reply = get(http, &path).await;
            assert!(reply.status == 400 || reply.status == 404, "{path}: {reply:?}");
            assert!(reply.json()["error"].is_string() && reply.body.len() < 4_000, "{path}: {reply:?}");
        }
    }
    for query in [
        "series?points=0",
        "series?points=5001",
        "series?points=-1",
        "series?points=99999999999999999999999",
        "series?keys=%3Cb%3E",
        "series?from=5&to=2",
        "series?from=x",
        "log?limit=0",
        "log?limit=1001",
        "log?after=1&before=2",
        "log?after=-1",
        &format!("log?search={}", "y".repeat(201)),
    ] {
        let reply = get(http, &format!("/api/v1/runs/a/{query}")).await;
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
        assert!(reply.json()["error"].is_string() && reply.body.len() < 4_000, "{query}: {reply:?}");
    }
    for (path, status) in [
        ("/api/v1/stream", 400),
        ("/api/v1/stream?topics=", 400),
        ("/api/v1/stream?topics=cluster,run:../x", 400),
        ("/api/v1/events?limit=1001", 400),
        ("/api/v1/events?run=%3C", 400),
        ("/api/v1/nosuch", 404),
        ("/api/", 404),
    ] {
        let reply = get(http, path).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(reply.json()["error"].is_string(), "{path}: {reply:?}");
    }
    for (method, path) in
        [("DELETE", "/api/v1/runs/a"), ("POST", "/api/v1/cluster"), ("PUT", "/"), ("POST", "/metrics")]
    {
        let reply = send(http, method, path, "X-Phalanx: 1\r\n").await;
        assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
    }
    get_json(http, "/api/v1/cluster").await;
    coordinator.end().await;
}

#[tokio::test]
async fn huge_and_broken_requests_leave_the_server_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let long = "z".repeat(1 << 20);
    for request in [
        format!("GET /api/v1/cluster?x={long} HTTP/1.1\r\nHost: {http}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: {http}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {http}\r\nX-Long: {long}\r\n\r\n"),
        "GARBAGE\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost\r\n\r\n".to_owned(),
    ] {
        // Where so much is sent, the refusal may be lost with the connection.
        if let Some(reply) = exchange(http, request.as_bytes()).await {
            assert!((400..500).contains(&reply.status), "{reply:?}");
        }
    }
    let rebound = exchange(http, b"GET /api/v1/cluster HTTP/1.0\r\nHost: evil.example\r\n\r\n").await.unwrap();
    assert_eq!(rebound.status, 403);
    assert!(rebound.json()["hint"].as_str().is_some_and(|hint| hint.contains("127.0.0.1")), "{rebound:?}");
    get_json(http, "/api/v1/cluster").await;
    coordinator.end().await;
}

/// Markup, control characters and marks that turn the direction, and a megabyte of it.
fn hostile_texts() -> [String; 2] {
    let short = "'\"><script>alert(1)</script>\u{0}\u{1b}[2J\u{202e}gnp.exe".to_owned();
    let long = short.repeat((1 << 20) / short.len());
    [short, long]
}

/// The specification of run `b` with another text in one place.
fn with_text(place: &str, text: &str) -> String {
    let mut spec: Value = serde_json::from_str(&long_spec("b", 4)).unwrap();
    *spec.pointer_mut(place).unwrap() = Value::from(text);
    spec.to_string()
}

/// Everything that a worker or a user can name or say is refused, or cut, or passed on as the text that it is.
#[tokio::test]
async fn hostile_texts_are_refused_or_bounded_in_every_place() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let http = coordinator.http;
    let (mut tools, mut worker) = training(&coordinator, 4).await;
    for text in hostile_texts() {
        let with = |change: fn(&mut WorkerInfo) -> &mut String| {
            let mut named = info(2);
            change(&mut named).clone_from(&text);
            convert::report_to_wire(0, hello(named, None))
        };
        for first in [
            with(|w| &mut w.host),
            with(|w| &mut w.device),
            with(|w| &mut w.peer_address),
            with(|w| &mut w.ring_address),
        ] {
            let refused = Worker::try_connect(coordinator.address, first).await.err();
            assert_eq!(refused.map(|status| status.code()), Some(Code::InvalidArgument), "a worker's name");
        }
        let named = with_text("/name", &text);
        assert_eq!(tools.submit(&named).await.unwrap_err().code(), Code::InvalidArgument, "a run's name");
    }
    let [short, long] = hostile_texts();
    let path = |text: &str| with_text("/data/source/path", &format!("/{text}"));
    assert_eq!(tools.submit(&path(&long)).await.unwrap_err().code(), Code::InvalidArgument, "a path");
    tools.submit(&path(&short)).await.unwrap();
    let shown = get_json(http, "/api/v1/runs/b").await;
    assert_eq!(shown["spec"]["data"]["source"]["path"], Value::from(format!("/{short}")));

    let (trial, generation) = (trial("a"), Generation(1));
    for cause in [short, long] {
        worker.send(Report::Logs { trial: trial.clone(), lines: vec![line(&cause)] }).await;
        worker.send(Report::PartFailed { trial: trial.clone(), generation, step: Step(1), cause: cause.clone() }).await;
        worker
            .send(Report::RollbackRequested { trial: trial.clone(), generation, step: Step(2), cause: cause.clone() })
            .await;
        worker.send(Report::Broken { trial: trial.clone(), generation, cause: cause.clone() }).await;
        worker.send(ended("a", 1, AttemptOutcome::Failed { step: Step(2), cause })).await;
    }
    worker.acknowledged_all().await;
    lines_are_there(http, 2).await;
    for path in
        ["/api/v1/cluster", "/api/v1/runs/a", "/api/v1/runs/a/log", "/api/v1/events", "/api/v1/runs/b", "/metrics"]
    {
        let reply = get(http, path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.body.len() < 200_000, "{path} has become {} bytes", reply.body.len());
    }
    let log = get_json(http, "/api/v1/runs/a/log?source=00000001").await;
    let text = log["lines"][1]["text"].as_str().unwrap();
    assert!(text.len() <= 4096, "{} bytes", text.len());
    coordinator.end().await;
}

/// What workers tell may hold anything; it is passed on as text.
#[tokio::test]
async fn hostile_lines_come_out_as_they_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let (_tools, mut worker) = training(&coordinator, 4).await;
    let texts = ["<img src=x onerror=alert(1)>", "\u{202e}gnp.exe", "\u{1b}[2J\u{0}\u{7f}", "\"},{\"", "\u{2028}"];
    worker.send(Report::Logs { trial: trial("a"), lines: texts.map(line).to_vec() }).await;
    lines_are_there(coordinator.http, texts.len()).await;
    let log = get(coordinator.http, "/api/v1/runs/a/log?source=00000001").await;
    assert_eq!(log.header("content-type"), Some("application/json"));
    let lines = log.json()["lines"].clone();
    let shown: Vec<&str> = lines.as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(shown, texts);
    coordinator.end().await;
}
