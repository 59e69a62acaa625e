//! The other side of the wire: a worker that does what a test says, and the calls of a tool.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use domain::engine::{Assignment, Running, WorkerInfo};
use domain::ids::{Generation, Step, TrialId, WorkerId};
use domain::record::{Position, SavedPart};
use proto::convert::{self, Command, Report};
use proto::v1;
use proto::v1::control_client::ControlClient;
use proto::v1::worker_link_client::WorkerLinkClient;
use store::CheckpointStore;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// What does not happen within this time does not happen.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it did not happen in time")
}

pub(crate) async fn channel(address: SocketAddr) -> Channel {
    soon(Endpoint::from_shared(format!("http://{address}")).unwrap().connect()).await.unwrap()
}

pub(crate) fn info(id: u64) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId(id),
        host: "localhost".to_owned(),
        pid: id as u32,
        device: "cpu".to_owned(),
        peer_address: format!("127.0.0.1:{}", 10_000 + id),
        ring_address: format!("127.0.0.1:{}", 20_000 + id),
    }
}

pub(crate) fn hello(worker: WorkerInfo, running: Option<Running>) -> Report {
    Report::Hello { worker, running }
}

pub(crate) fn running(run: &str, generation: u64, position: Position) -> Running {
    Running { trial: trial(run), generation: Generation(generation), position }
}

pub(crate) fn trial(run: &str) -> TrialId {
    TrialId { run: run.parse().unwrap(), number: 0 }
}

/// The names of the tensors in a safetensors file, sorted.
pub(crate) fn tensors(file: &[u8]) -> impl Iterator<Item = String> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let mut names: Vec<String> = header.into_iter().map(|(name, _)| name).filter(|n| n != "__metadata__").collect();
    names.sort();
    names.into_iter()
}

/// A worker's stream.
pub(crate) struct Worker {
    info: WorkerInfo,
    up: mpsc::Sender<v1::Report>,
    down: Streaming<v1::Command>,
    checkpoints: CheckpointStore,
    sequence: u64,
    acknowledged: u64,
    /// Commands that came while acknowledgements were awaited.
    waiting: VecDeque<Command>,
}

/// A worker without a stream.
pub(crate) struct Disconnected {
    info: WorkerInfo,
    sequence: u64,
}

impl Worker {
    pub(crate) async fn connect(address: SocketAddr, hello: Report) -> Worker {
        Self::try_connect(address, convert::report_to_wire(0, hello)).await.unwrap()
    }

    pub(crate) async fn try_connect(address: SocketAddr, first: v1::Report) -> Result<Worker, Status> {
        let (up, reports) = mpsc::channel(64);
        up.send(first.clone()).await.unwrap();
        let mut client = WorkerLinkClient::new(channel(address).await);
        let mut down = soon(client.attach(ReceiverStream::new(reports))).await?.into_inner();
        let welcome = soon(down.message()).await?.expect("a welcome");
        let Command::Welcome { checkpoint_url, .. } = convert::command_from_wire(welcome).unwrap() else {
            panic!("the first command is not Welcome")
        };
        let checkpoints = CheckpointStore::open(&checkpoint_url).unwrap();
        let Report::Hello { worker: info, .. } = convert::report_from_wire(first).unwrap() else {
            panic!("welcomed without Hello")
        };
        Ok(Worker { info, up, down, checkpoints, sequence: 0, acknowledged: 0, waiting: VecDeque::new() })
    }

    pub(crate) async fn send(&mut self, report: Report) {
        self.sequence += 1;
        self.send_raw(convert::report_to_wire(self.sequence, report)).await;
    }

    pub(crate) async fn send_unnumbered(&mut self, report: Report) {
        self.send_raw(convert::report_to_wire(0, report)).await;
    }

    pub(crate) async fn send_raw(&mut self, report: v1::Report) {
        self.up.send(report).await.unwrap();
    }

    /// The next command that is no acknowledgement; those are counted.
    pub(crate) async fn command(&mut self) -> Command {
        if let Some(command) = self.waiting.pop_front() {
            return command;
        }
        loop {
            if let Some(command) = self.any_command().await {
                return command;
            }
        }
    }

    async fn any_command(&mut self) -> Option<Command> {
        let command = soon(self.down.message()).await.unwrap().expect("the stream ended");
        match convert::command_from_wire(command).unwrap() {
            Command::Acknowledge { sequence } => {
                assert!(sequence >= self.acknowledged && sequence <= self.sequence, "{sequence} was acknowledged");
                self.acknowledged = sequence;
                None
            }
            command => Some(command),
        }
    }

    pub(crate) async fn assignment(&mut self) -> Assignment {
        match self.command().await {
            Command::Assign(assignment) => *assignment,
            command => panic!("{command:?} instead of an assignment"),
        }
    }

    /// Waits until everything sent is acknowledged.
    pub(crate) async fn acknowledged_all(&mut self) -> u64 {
        while self.acknowledged < self.sequence {
            let command = self.any_command().await;
            self.waiting.extend(command);
        }
        self.acknowledged
    }

    /// Reads to the end of the stream, and gives the code if it ended with one. No command to end may come on the way.
    pub(crate) async fn end(&mut self) -> Option<Code> {
        loop {
            match self.down.message().await {
                Ok(None) => return None,
                Err(status) => return Some(status.code()),
                Ok(Some(command)) => {
                    let command = convert::command_from_wire(command).unwrap();
                    assert_ne!(command, Command::Shutdown);
                }
            }
        }
    }

    pub(crate) fn disconnect(self) -> Disconnected {
        let Worker { info, sequence, .. } = self;
        Disconnected { info, sequence }
    }

    /// The same session on a new stream.
    pub(crate) async fn connect_again(self, address: SocketAddr, running: Option<Running>) -> Worker {
        self.disconnect().connect_again(address, running).await
    }

    /// Writes a part with one weight and one moment.
    pub(crate) async fn save_part(&self, run: &str, generation: u64, step: u64, rank: u32, world: u32) -> SavedPart {
        let bytes = part_bytes(rank, step);
        let blake3 = blake3::hash(&bytes).to_string();
        let path = CheckpointStore::part_path(&trial(run), Generation(generation), Step(step), rank, &blake3);
        self.checkpoints.put_part(&path, Bytes::from(bytes.clone())).await.unwrap();
        let weights_sha256 = format!("weights-{step}");
        SavedPart { step: Step(step), rank, world, path, bytes: bytes.len() as u64, blake3, weights_sha256 }
    }
}

impl Disconnected {
    pub(crate) async fn connect_again(self, address: SocketAddr, running: Option<Running>) -> Worker {
        let worker = Worker::connect(address, hello(self.info, running)).await;
        Worker { sequence: self.sequence, acknowledged: 0, ..worker }
    }
}

/// A safetensors file: the header's length, the header, the tensors.
fn part_bytes(rank: u32, step: u64) -> Vec<u8> {
    let entry = |start: u64| serde_json::json!({"dtype": "F32", "shape": [1], "data_offsets": [start, start + 4]});
    let header = serde_json::json!({
        format!("model.r{rank}"): entry(0),
        format!("optimizer.m.r{rank}"): entry(4),
    });
    let mut header = header.to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((step as f32).to_le_bytes());
    bytes.extend((rank as f32).to_le_bytes());
    bytes
}

/// What people and tools call.
pub(crate) struct Tools(ControlClient<Channel>);

/// A stream of views of one run.
pub(crate) struct Watch(Streaming<v1::WatchRunResponse>);

impl Watch {
    pub(crate) async fn next(&mut self) -> v1::WatchRunResponse {
        soon(self.0.message()).await.unwrap().expect("the run ended")
    }

    /// The last view before the stream ends.
    pub(crate) async fn last(mut self) -> v1::WatchRunResponse {
        let mut last = None;
        while let Some(next) = soon(self.0.message()).await.unwrap() {
            last = Some(next);
        }
        last.expect("the first message comes at once")
    }
}

impl Tools {
    pub(crate) async fn connect(address: SocketAddr) -> Tools {
        Tools(ControlClient::new(channel(address).await))
    }

    pub(crate) async fn submit(&mut self, spec_json: &str) -> Result<v1::Run, Status> {
        let request = v1::SubmitRequest { spec_json: spec_json.to_owned() };
        Ok(soon(self.0.submit(request)).await?.into_inner().run.unwrap())
    }

    pub(crate) async fn run(&mut self, name: &str) -> v1::Run {
        let request = v1::GetRunRequest { name: name.to_owned() };
        soon(self.0.get_run(request)).await.unwrap().into_inner().run.unwrap()
    }

    pub(crate) async fn inspections(&mut self, name: &str) -> Vec<v1::ReadInspectionsResponse> {
        let request = v1::ReadInspectionsRequest { name: name.to_owned() };
        let mut pages = soon(self.0.read_inspections(request)).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(page) = soon(pages.message()).await.unwrap() {
            all.push(page);
        }
        all
    }

    pub(crate) async fn cluster(&mut self) -> v1::GetClusterResponse {
        soon(self.0.get_cluster(v1::GetClusterRequest {})).await.unwrap().into_inner()
    }

    pub(crate) async fn watch(&mut self, name: &str) -> Watch {
        let request = v1::WatchRunRequest { name: name.to_owned() };
        Watch(soon(self.0.watch_run(request)).await.unwrap().into_inner())
    }

    pub(crate) async fn stop(&mut self, name: &str) -> Result<(), Status> {
        soon(self.0.stop_run(v1::StopRunRequest { name: name.to_owned() })).await.map(drop)
    }

    pub(crate) async fn resume(&mut self, name: &str) -> Result<(), Status> {
        soon(self.0.resume_run(v1::ResumeRunRequest { name: name.to_owned() })).await.map(drop)
    }

    pub(crate) async fn set_priority(&mut self, name: &str, priority: i32) -> Result<(), Status> {
        soon(self.0.set_priority(v1::SetPriorityRequest { name: name.to_owned(), priority })).await.map(drop)
    }

    pub(crate) async fn drain(&mut self, worker: u64) -> Result<(), Status> {
        soon(self.0.drain_worker(v1::DrainWorkerRequest { worker, undo: false })).await.map(drop)
    }

    pub(crate) async fn undrain(&mut self, worker: u64) -> Result<(), Status> {
        soon(self.0.drain_worker(v1::DrainWorkerRequest { worker, undo: true })).await.map(drop)
    }

    pub(crate) async fn pin(&mut self, name: &str, step: u64) -> Result<(), Status> {
        soon(self.0.pin_checkpoint(v1::PinCheckpointRequest { name: name.to_owned(), step, unpin: false }))
            .await
            .map(drop)
    }

    pub(crate) async fn records(&mut self, name: &str) -> (Vec<v1::StepPoint>, Vec<v1::EvalPoint>) {
        let request = v1::ReadRecordsRequest { name: name.to_owned(), after_step: 0 };
        let pages = all(soon(self.0.read_records(request)).await.unwrap().into_inner()).await.unwrap();
        let evals = pages.iter().flat_map(|p| p.evals.clone()).collect();
        (pages.into_iter().flat_map(|p| p.steps).collect(), evals)
    }

    pub(crate) async fn ledger(&mut self, name: &str) -> Vec<v1::LedgerStep> {
        let request = v1::ReadLedgerRequest { name: name.to_owned() };
        let pages = all(soon(self.0.read_ledger(request)).await.unwrap().into_inner()).await.unwrap();
        pages.into_iter().flat_map(|p| p.steps).collect()
    }

    pub(crate) async fn log(&mut self, name: &str, follow: bool) -> Vec<v1::LogLine> {
        let request = v1::ReadLogRequest { name: name.to_owned(), after_sequence: 0, follow };
        let pages = all(soon(self.0.read_log(request)).await.unwrap().into_inner()).await.unwrap();
        pages.into_iter().flat_map(|p| p.lines).collect()
    }

    pub(crate) async fn checkpoint(
        &mut self,
        name: &str,
        step: Option<u64>,
        whole_state: bool,
    ) -> Result<(v1::CheckpointHeader, Vec<u8>), Status> {
        let request = v1::ReadCheckpointRequest { name: name.to_owned(), step, whole_state };
        let mut pieces = all(soon(self.0.read_checkpoint(request)).await?.into_inner()).await?;
        let header = pieces.first_mut().and_then(|p| p.header.take()).expect("a header");
        Ok((header, pieces.into_iter().flat_map(|p| p.data).collect()))
    }

    /// The codes of all calls that name a run.
    pub(crate) async fn codes_for(&mut self, name: &str) -> [Code; 9] {
        let name = || name.to_owned();
        [
            code(self.0.get_run(v1::GetRunRequest { name: name() }).await),
            code(self.0.watch_run(v1::WatchRunRequest { name: name() }).await),
            code(self.0.stop_run(v1::StopRunRequest { name: name() }).await),
            code(self.0.resume_run(v1::ResumeRunRequest { name: name() }).await),
            code(self.0.set_priority(v1::SetPriorityRequest { name: name(), priority: 1 }).await),
            code(self.0.pin_checkpoint(v1::PinCheckpointRequest { name: name(), step: 1, unpin: false }).await),
            code(self.0.read_records(v1::ReadRecordsRequest { name: name(), after_step: 0 }).await),
            code(self.0.read_log(v1::ReadLogRequest { name: name(), after_sequence: 0, follow: true }).await),
            code(
                self.0
                    .read_checkpoint(v1::ReadCheckpointRequest { name: name(), step: None, whole_state: false })
                    .await,
            ),
        ]
    }
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut messages = Vec::new();
    while let Some(message) = soon(stream.message()).await? {
        messages.push(message);
    }
    Ok(messages)
}
