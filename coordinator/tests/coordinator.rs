//! A real coordinator on loopback, and workers that speak the real protocol but compute nothing.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod http;
mod peer;
mod users;

use std::net::SocketAddr;
use std::path::Path;

use coordinator::{Config, CoordinatorError, live_url};
use domain::engine::{AttemptOutcome, StartFrom, Timing};
use domain::ids::{Generation, Step};
use domain::record::{EvalRecord, Position, Read, Record, SavedPart, StepRecord, Vitals};
use proto::convert::{Command, LogLine, Report};
use proto::v1;
use sinks::Behind;
use store::StoreError;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use peer::{Tools, Worker, hello, info, soon, trial};

/// No wait of the engine ends by itself during a test.
const PATIENT: Timing = Timing { lease_ms: 120_000, gather_ms: 120_000, form_ms: 120_000, rejoin_ms: 120_000 };

struct Coordinator {
    address: SocketAddr,
    /// Where the dashboard is.
    http: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<Result<Vec<Behind>, CoordinatorError>>,
}

impl Coordinator {
    async fn start(folder: &Path) -> Self {
        Self::start_at(folder, "127.0.0.1:0".parse().unwrap(), PATIENT).await
    }

    async fn start_at(folder: &Path, address: SocketAddr, timing: Timing) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let dashboard = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = dashboard.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let config = Config::new(folder.to_owned(), timing);
        let task = tokio::spawn(coordinator::run(config, listener, Some(dashboard), shutdown.clone()));
        Self { address, http, shutdown, task }
    }

    async fn tools(&self) -> Tools {
        Tools::connect(self.address).await
    }

    async fn worker(&self, id: u64) -> Worker {
        Worker::connect(self.address, hello(info(id), None)).await
    }

    async fn end(self) {
        self.shutdown.cancel();
        soon(self.task).await.unwrap().unwrap();
    }
}

fn spec_json(name: &str, workers: u32, min_workers: u32) -> String {
    let text = format!(
        "version: 1\nname: {name}\nworkers: {workers}\nmin_workers: {min_workers}\n\
         data: {{format: image_folder, path: images}}\n\
         model: {{type: vit, image: [8, 8], channels: 1, patch: 2, dim: 8, depth: 1, heads: 2, classes: 10}}\n\
         train: {{steps: 4, global_batch: 8, micro_batches: 4}}\n"
    );
    proto::convert::spec_to_json(&domain::spec::file::read(&text, "a.yaml", Path::new("/data")).unwrap())
}

fn step(step: u64, generation: u64, worker: u64) -> Record {
    Record::Step(StepRecord {
        step: Step(step),
        generation: Generation(generation),
        loss: 1.0 / step as f64,
        grad_norm: f64::NAN,
        lr: 0.1,
        skipped: false,
        micros: 1000,
        micros_outside_model: 10,
        reads: vec![Read { micro_batch: 0, worker: info(worker).id, samples: vec![step * 8, step * 8 + 1] }],
    })
}

fn eval(step: u64, generation: u64) -> Record {
    Record::Eval(EvalRecord {
        step: Step(step),
        generation: Generation(generation),
        loss: 0.5,
        accuracy: 0.75,
        samples: 9,
    })
}

fn position(step: u64, evaluated: bool) -> Position {
    Position { step: Step(step), evaluated }
}

fn formed(run: &str, generation: u64, at: Position) -> Report {
    Report::Formed { trial: trial(run), generation: Generation(generation), position: at }
}

fn records(run: &str, generation: u64, records: Vec<Record>) -> Report {
    Report::Records { trial: trial(run), generation: Generation(generation), records }
}

fn saved(run: &str, generation: u64, part: SavedPart) -> Report {
    Report::PartSaved { trial: trial(run), generation: Generation(generation), part }
}

fn ended(run: &str, generation: u64, outcome: AttemptOutcome) -> Report {
    Report::AttemptEnded { trial: trial(run), generation: Generation(generation), outcome }
}

#[tokio::test]
async fn a_run_goes_from_submission_to_a_committed_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    let run = tools.submit(&spec_json("a", 2, 2)).await.unwrap();
    assert_eq!(live_url(folder.path()), Some(format!("http://{}", coordinator.address)));
    assert_eq!((run.state(), run.step), (v1::RunState::Waiting, 0));
    let mut watch = tools.watch("a").await;
    let first = watch.next().await;
    assert_eq!(first.run.unwrap().reason, run.reason, "the first message comes at once");
    assert_eq!(first.newest, None);

    let (mut a, mut b) = (coordinator.worker(1).await, coordinator.worker(2).await);
    let (on_a, on_b) = (a.assignment().await, b.assignment().await);
    assert_eq!((on_a.rank.0, on_b.rank.0), (0, 1));
    assert_eq!((on_a.generation, on_a.start.clone()), (Generation(1), StartFrom::Scratch));
    assert_eq!(on_a.members, [info(1), info(2)]);
    assert_eq!(on_a.members, on_b.members);

    a.send(Report::DataOpened { trial: trial("a"), train_samples: 100, total_steps: 4 }).await;
    a.send(formed("a", 1, position(0, false))).await;
    let line = LogLine { at_ms: 7, level: "shout".to_owned(), text: "hello".to_owned() };
    a.send_unnumbered(Report::Logs { trial: trial("a"), lines: vec![line] }).await;
    b.send(formed("a", 1, position(0, false))).await;
    a.send(records("a", 1, (1..=4).map(|s| step(s, 1, 1)).chain([eval(4, 1)]).collect())).await;
    let parts = (a.save_part("a", 1, 4, 0, 2).await, b.save_part("a", 1, 4, 1, 2).await);
    a.send(saved("a", 1, parts.0)).await;
    b.send(saved("a", 1, parts.1)).await;
    a.send(ended("a", 1, AttemptOutcome::Completed { step: Step(4) })).await;
    a.acknowledged_all().await;
    b.acknowledged_all().await;

    let last = watch.last().await;
    let run = last.run.unwrap();
    assert_eq!(run.state(), v1::RunState::Completed, "{}", run.reason);
    assert_eq!((run.step, run.total_steps, run.train_samples), (4, 4, 100));
    assert_eq!((run.evals.len(), run.failures), (1, 0));
    assert_eq!(run.checkpoints.iter().map(|c| (c.step, c.result)).collect::<Vec<_>>(), [(4, true)]);
    assert_eq!(last.newest.map(|p| (p.step, p.samples)), Some((4, 8)));
    assert!(matches!(a.command().await, Command::Release { .. }), "a worker drops what nobody needs");

    let (steps, evals) = tools.records("a").await;
    assert_eq!(
        steps.iter().map(|p| (p.step, p.loss)).collect::<Vec<_>>(),
        [(1, 1.0), (2, 0.5), (3, 1.0 / 3.0), (4, 0.25)]
    );
    assert!(steps.iter().all(|p| p.grad_norm.is_nan()));
    assert_eq!(evals.iter().map(|e| (e.step, e.accuracy)).collect::<Vec<_>>(), [(4, 0.75)]);
    let ledger = tools.ledger("a").await;
    assert!(ledger.iter().all(|s| !s.rolled_back && s.reads[0].worker == 1));
    assert_eq!(ledger.iter().map(|s| s.reads[0].samples[1]).collect::<Vec<_>>(), [9, 17, 25, 33]);
    let log = tools.log("a", true).await;
    assert!(log.iter().any(|l| l.source == "coordinator" && l.text.starts_with("completed")), "{log:?}");
    assert!(log.iter().any(|l| l.source == info(1).id.short() && l.level == "info" && l.text == "hello"), "{log:?}");

    let (header, whole) = tools.checkpoint("a", None, true).await.unwrap();
    assert_eq!((header.step, header.weights_sha256.as_str()), (4, "weights-4"));
    assert!(peer::tensors(&whole).eq(["model.r0", "model.r1", "optimizer.m.r0", "optimizer.m.r1"]));
    let (_, weights) = tools.checkpoint("a", Some(4), false).await.unwrap();
    assert!(peer::tensors(&weights).eq(["r0", "r1"]));
    assert_eq!(tools.checkpoint("a", Some(3), false).await.unwrap_err().code(), Code::NotFound);

    let cluster = tools.cluster().await;
    assert_eq!(
        cluster.workers.iter().map(|w| (w.id, w.connected, w.run.as_str())).collect::<Vec<_>>(),
        [(1, true, ""), (2, true, "")]
    );
    assert_eq!(cluster.runs, [run]);
    coordinator.end().await;
    assert_eq!(live_url(folder.path()), None);
}

#[tokio::test]
async fn a_worker_that_connects_again_sends_again_and_nothing_doubles() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    tools.submit(&spec_json("a", 1, 1)).await.unwrap();
    let mut first = coordinator.worker(1).await;
    let assignment = first.assignment().await;
    let sent = [formed("a", 1, position(0, false)), records("a", 1, vec![step(1, 1, 1), eval(1, 1), step(2, 1, 1)])];
    for report in sent.clone() {
        first.send(report).await;
    }
    assert_eq!(first.acknowledged_all().await, 2);

    let mut second =
        Worker::connect(coordinator.address, hello(info(1), Some(peer::running("a", 1, position(2, false))))).await;
    assert_eq!(second.assignment().await.generation, assignment.generation, "a lost command is repeated");
    assert_eq!(soon(first.end()).await, None, "the older stream ends");
    for report in sent {
        second.send(report).await;
    }
    second.send(records("a", 1, vec![step(2, 1, 1), step(3, 1, 1)])).await;
    assert_eq!(second.acknowledged_all().await, 3);

    let run = tools.run("a").await;
    assert_eq!((run.state(), run.step, run.failures, run.evals.len()), (v1::RunState::Running, 3, 0, 1));
    assert_eq!(tools.ledger("a").await.iter().map(|s| s.step).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(tools.cluster().await.workers.len(), 1, "it is the same worker");
    coordinator.end().await;
}

#[tokio::test]
async fn a_coordinator_that_comes_back_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let address = coordinator.address;
    let mut tools = coordinator.tools().await;
    tools.submit(&spec_json("a", 1, 1)).await.unwrap();
    let mut worker = coordinator.worker(1).await;
    worker.assignment().await;
    worker.send(Report::DataOpened { trial: trial("a"), train_samples: 100, total_steps: 4 }).await;
    worker.send(formed("a", 1, position(0, false))).await;
    worker.send(records("a", 1, vec![step(1, 1, 1), eval(1, 1), step(2, 1, 1)])).await;
    worker.acknowledged_all().await;
    coordinator.end().await;
    assert_eq!(soon(worker.end()).await, None, "the stream ends without a word; the worker goes on");

    let coordinator = Coordinator::start_at(folder.path(), address, PATIENT).await;
    let mut tools = coordinator.tools().await;
    let run = tools.run("a").await;
    assert_eq!((run.state(), run.step, run.generation), (v1::RunState::Running, 2, 1));
    assert_eq!((run.failures, run.evals.len(), run.train_samples), (0, 1, 100));
    assert_eq!(tools.watch("a").await.next().await.newest.map(|p| p.step), Some(2));

    let mut worker = worker.connect_again(address, Some(peer::running("a", 1, position(4, false)))).await;
    let again = worker.assignment().await;
    assert_eq!((again.generation, again.recorded), (Generation(1), position(2, false)));
    worker.send(records("a", 1, vec![step(3, 1, 1), step(4, 1, 1), eval(4, 1)])).await;
    let part = worker.save_part("a", 1, 4, 0, 1).await;
    worker.send(saved("a", 1, part)).await;
    worker.send(ended("a", 1, AttemptOutcome::Completed { step: Step(4) })).await;
    let run = tools.watch("a").await.last().await.run.unwrap();
    assert_eq!((run.state(), run.failures, run.evals.len()), (v1::RunState::Completed, 0, 2));
    let ledger = tools.ledger("a").await;
    assert_eq!(
        ledger.iter().map(|s| (s.step, s.rolled_back)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, false), (4, false)]
    );
    coordinator.end().await;

    let coordinator = Coordinator::start(folder.path()).await;
    let again = coordinator.tools().await.run("a").await;
    assert_eq!((again.state(), again.step, again.checkpoints), (v1::RunState::Completed, 4, run.checkpoints));
    coordinator.end().await;
}

#[tokio::test]
async fn a_state_folder_has_one_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    coordinator.tools().await.cluster().await;
    let second = Coordinator::start(folder.path()).await;
    let refused = soon(second.task).await.unwrap();
    assert!(matches!(refused, Err(CoordinatorError::Store(StoreError::InUse { .. }))), "{refused:?}");
    assert_eq!(live_url(folder.path()), Some(format!("http://{}", coordinator.address)), "the first one still counts");
    coordinator.end().await;
}

#[tokio::test]
async fn requests_that_cannot_be_taken_are_refused_by_code() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    let good = spec_json("a", 1, 1);
    for bad in
        ["{", "{}", &good.replace("\"heads\":2", "\"heads\":3"), &good.replace("\"name\":\"a\"", "\"name\":\"../x\"")]
    {
        assert_eq!(tools.submit(bad).await.unwrap_err().code(), Code::InvalidArgument, "{bad}");
    }
    assert!(tools.cluster().await.runs.is_empty(), "nothing of a refused job stays");
    tools.submit(&good).await.unwrap();
    assert_eq!(tools.submit(&good).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(tools.resume("a").await.unwrap_err().code(), Code::FailedPrecondition, "it is live");
    assert_eq!(tools.checkpoint("a", None, false).await.unwrap_err().code(), Code::NotFound);
    tools.stop("a").await.unwrap();
    assert_eq!(tools.run("a").await.state(), v1::RunState::Stopped, "a run without a group stops at once");
    assert_eq!(tools.stop("a").await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(tools.submit(&good).await.unwrap_err().code(), Code::AlreadyExists, "names are not reused");
    tools.resume("a").await.unwrap();
    for (name, code) in [("b", Code::NotFound), ("../../x", Code::InvalidArgument), ("", Code::InvalidArgument)] {
        assert_eq!(tools.codes_for(name).await, [code; 9], "{name:?}");
    }
    coordinator.end().await;
}

#[tokio::test]
async fn a_run_stops_with_its_state_saved_and_goes_on_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    tools.submit(&spec_json("a", 1, 1)).await.unwrap();
    let mut worker = coordinator.worker(1).await;
    worker.assignment().await;
    worker.send(formed("a", 1, position(0, false))).await;
    worker.acknowledged_all().await;
    tools.stop("a").await.unwrap();
    assert!(matches!(worker.command().await, Command::Stop { generation: Generation(1), .. }));
    worker.send(records("a", 1, vec![step(1, 1, 1)])).await;
    let part = worker.save_part("a", 1, 1, 0, 1).await;
    let file = folder.path().join("checkpoints").join(&part.path);
    worker.send(saved("a", 1, part)).await;
    worker.send(ended("a", 1, AttemptOutcome::Stopped { step: Step(1) })).await;
    let run = tools.watch("a").await.last().await.run.unwrap();
    assert_eq!((run.state(), run.checkpoints.len()), (v1::RunState::Stopped, 1));
    assert!(matches!(worker.command().await, Command::Release { .. }));

    tools.resume("a").await.unwrap();
    let assignment = worker.assignment().await;
    assert!(matches!(assignment.start, StartFrom::Checkpoint { step: Step(1), .. }), "{:?}", assignment.start);
    let generation = assignment.generation.0;
    worker.send(formed("a", generation, position(1, false))).await;

    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(tools.checkpoint("a", Some(1), true).await.unwrap_err().code(), Code::DataLoss);

    worker.send(records("a", generation, (2..=4).map(|s| step(s, generation, 1)).collect())).await;
    let mut gone = worker.save_part("a", generation, 4, 0, 1).await;
    gone.path = gone.path.replace('4', "5");
    worker.send(saved("a", generation, gone)).await;
    worker.send(ended("a", generation, AttemptOutcome::Completed { step: Step(4) })).await;
    let run = tools.watch("a").await.last().await.run.unwrap();
    assert_eq!(run.state(), v1::RunState::Failed, "a checkpoint that cannot be committed hangs nothing");
    assert!(run.reason.contains("step 4 could not be saved"), "{}", run.reason);
    coordinator.end().await;
}

#[tokio::test]
async fn a_lost_worker_is_replaced_at_once_and_its_late_work_is_marked() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut tools = coordinator.tools().await;
    tools.submit(&spec_json("a", 2, 1)).await.unwrap();
    let (mut a, mut b) = (coordinator.worker(1).await, coordinator.worker(2).await);
    a.assignment().await;
    b.assignment().await;
    a.send(formed("a", 1, position(0, false))).await;
    a.send(records("a", 1, vec![step(1, 1, 1), step(2, 1, 1)])).await;
    a.acknowledged_all().await;

    let a_was = a.disconnect();
    let assignment = b.assignment().await;
    assert_eq!((assignment.generation, assignment.members.len()), (Generation(2), 1));
    b.send(formed("a", 2, position(1, false))).await;
    b.send(records("a", 2, vec![step(2, 2, 2)])).await;
    b.acknowledged_all().await;

    let mut a = a_was.connect_again(coordinator.address, None).await;
    assert_eq!(a.assignment().await.generation, Generation(3), "it is taken in again");
    a.send(records("a", 1, vec![step(3, 1, 1), eval(3, 1)])).await;
    a.acknowledged_all().await;
    let run = tools.run("a").await;
    assert_eq!((run.step, run.failures, run.evals.len()), (2, 1, 0), "what was left behind is no progress");
    let ledger = tools.ledger("a").await;
    let ledger: Vec<_> = ledger.iter().map(|s| (s.step, s.generation, s.rolled_back)).collect();
    assert_eq!(ledger, [(1, 1, false), (2, 1, true), (2, 2, false), (3, 1, true)]);
    let (steps, evals) = tools.records("a").await;
    assert_eq!((steps.len(), evals.len()), (2, 0));
    coordinator.end().await;
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_lost_and_must_say_hello_again() {
    let folder = tempfile::tempdir().unwrap();
    let timing = Timing { lease_ms: 50, ..PATIENT };
    let coordinator = Coordinator::start_at(folder.path(), "127.0.0.1:0".parse().unwrap(), timing).await;
    let mut worker = coordinator.worker(1).await;
    assert_eq!(soon(worker.end()).await, None);
    assert!(coordinator.tools().await.cluster().await.workers.is_empty());
    coordinator.end().await;
}

#[tokio::test]
async fn workers_that_break_the_protocol_are_turned_away_alone() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let mut good = coordinator.worker(1).await;
    let wire = |report| proto::convert::report_to_wire(0, report);
    let mut nameless = info(2);
    nameless.peer_address = "nowhere".to_owned();
    let mut loud = info(2);
    loud.host = "\u{1b}[31m".to_owned();
    let unknown = v1::Report { sequence: 0, body: None };
    let first_words = [
        wire(Report::Heartbeat(Vitals::default())),
        unknown.clone(),
        wire(hello(nameless, None)),
        wire(hello(loud, None)),
    ];
    for first in first_words {
        let refused = Worker::try_connect(coordinator.address, first.clone()).await.err();
        assert_eq!(refused.map(|s| s.code()), Some(Code::InvalidArgument), "{first:?}");
    }

    let line = LogLine { at_ms: 0, level: String::new(), text: "x".repeat(proto::MESSAGE_BYTES_MAX) };
    let huge = wire(Report::Logs { trial: trial("a"), lines: vec![line] });
    let gap = proto::convert::report_to_wire(9, Report::Goodbye);
    for (bad, code) in [
        (unknown, Some(Code::InvalidArgument)),
        (wire(hello(info(3), None)), Some(Code::InvalidArgument)),
        (gap, Some(Code::InvalidArgument)),
        // The transport has ended the stream already: only that it ended is certain.
        (huge, None),
    ] {
        let mut worker = coordinator.worker(3).await;
        worker.send(records("nobody", 1, Vec::new())).await;
        worker.acknowledged_all().await;
        worker.send_raw(bad).await;
        let ended = soon(worker.end()).await;
        assert!(code.is_none() || ended == code, "{ended:?} instead of {code:?}");
    }
    good.send(records("nobody", 1, vec![step(1, 1, 1)])).await;
    assert_eq!(good.acknowledged_all().await, 1, "what is about nothing known is taken and dropped");
    coordinator.end().await;
}

#[tokio::test]
async fn services_describe_themselves_and_say_that_they_serve() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(folder.path()).await;
    let channel = peer::channel(coordinator.address).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "phalanx.v1.Control", "phalanx.v1.WorkerLink"] {
        let answer = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let answers = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = soon(answers.into_inner().message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    for service in ["phalanx.v1.Control", "phalanx.v1.WorkerLink", "grpc.health.v1.Health"] {
        assert!(names.contains(&service), "{service} is not in {names:?}");
    }
    coordinator.end().await;
}
