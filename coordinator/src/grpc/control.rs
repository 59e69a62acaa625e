use std::sync::Arc;

use domain::engine::Event;
use domain::ids::{RunName, Step, WorkerId};
use domain::picture::{Picture, RunPicture, Stall};
use domain::record::{Record, StepRecord};
use domain::spec::check;
use domain::view::CheckpointView;
use futures::stream;
use proto::convert;
use proto::v1;
use proto::v1::control_server::Control;
use store::{CheckpointStore, LedgerCursor, LedgerStep, LogLine, PAGE_MAX, RecordCursor, Store, StoredRecord};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::inspections::InspectionsReading;
use super::pages::{Messages, Pages, messages};
use crate::clock::Clock;
use crate::driver::Handle;
use crate::status;

/// Points in one message: some 50 KB.
const POINTS_MAX: usize = 500;
/// Steps of the ledger in one message. A step of 4,096 samples takes some 12 KB, so messages stay below a megabyte; the
/// store ends a page of larger ones at [`store::LEDGER_PAGE_BYTES_MAX`] and one step, which still fits a message.
const LEDGER_STEPS_MAX: usize = 64;
/// Log lines in one message. With the longest texts this is 2 MB.
const LINES_MAX: usize = 500;
/// Bytes of a checkpoint in one message.
const CHUNK_BYTES: usize = 1 << 20;

const _: () = assert!(POINTS_MAX <= PAGE_MAX && LINES_MAX <= PAGE_MAX);

/// Answers people and tools.
#[derive(Debug)]
pub(crate) struct ControlService {
    driver: Handle,
    store: Store,
    checkpoints: CheckpointStore,
    clock: Clock,
}

impl ControlService {
    pub(crate) fn new(driver: Handle, store: Store, checkpoints: CheckpointStore, clock: Clock) -> Self {
        Self { driver, store, checkpoints, clock }
    }

    fn picture(&self) -> Arc<Picture> {
        self.driver.picture().borrow().clone()
    }

    /// The name of a run that exists.
    fn known(&self, name: &str) -> Result<RunName, Status> {
        let name = read_name(name)?;
        match self.picture().run(&name) {
            Some(_) => Ok(name),
            None => Err(status::no_run(&name)),
        }
    }
}

/// A name that can be one.
pub(super) fn read_name(name: &str) -> Result<RunName, Status> {
    RunName::new(name).map_err(|e| status::of_name(&e))
}

fn run_of(picture: &Picture, name: &RunName) -> Result<v1::Run, Status> {
    picture.run(name).map(|run| convert::run_to_wire(run)).ok_or_else(|| status::no_run(name))
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let v1::SubmitRequest { spec_json } = request.into_inner();
        let spec = convert::spec_from_json(&spec_json).map_err(|e| status::of_message(&e))?;
        check::check(&spec).map_err(|e| status::of_spec(&e))?;
        let name = spec.name.clone();
        let submitted = Event::Submitted { spec: Box::new(spec) };
        self.driver.request(submitted).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::SubmitResponse { run: Some(run_of(&self.picture(), &name)?) }))
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Result<Response<v1::GetRunResponse>, Status> {
        let name = read_name(&request.into_inner().name)?;
        Ok(Response::new(v1::GetRunResponse { run: Some(run_of(&self.picture(), &name)?) }))
    }

    async fn get_cluster(
        &self,
        _request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::GetClusterResponse>, Status> {
        let picture = self.picture();
        Ok(Response::new(v1::GetClusterResponse {
            runs: picture.runs().map(|run| convert::run_to_wire(run)).collect(),
            workers: picture.workers().iter().map(convert::worker_view_to_wire).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.clock.now().0,
            stall: picture.stall().map(|Stall { cause, since }| v1::Stall { cause: cause.clone(), since_ms: since.0 }),
        }))
    }

    type WatchRunStream = Messages<v1::WatchRunResponse>;

    async fn watch_run(&self, request: Request<v1::WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let watching = Watching { name, pictures: self.driver.picture(), shown: None, is_over: false };
        Ok(Response::new(messages(watching)))
    }

    async fn stop_run(&self, request: Request<v1::StopRunRequest>) -> Result<Response<v1::StopRunResponse>, Status> {
        let run = read_name(&request.into_inner().name)?;
        self.driver.request(Event::StopRequested { run }).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::StopRunResponse {}))
    }

    async fn resume_run(
        &self,
        request: Request<v1::ResumeRunRequest>,
    ) -> Result<Response<v1::ResumeRunResponse>, Status> {
        let run = read_name(&request.into_inner().name)?;
        self.driver.request(Event::ResumeRequested { run }).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::ResumeRunResponse {}))
    }

    async fn set_priority(
        &self,
        request: Request<v1::SetPriorityRequest>,
    ) -> Result<Response<v1::SetPriorityResponse>, Status> {
        let v1::SetPriorityRequest { name, priority } = request.into_inner();
        let run = read_name(&name)?;
        self.driver.request(Event::PriorityRequested { run, priority }).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::SetPriorityResponse {}))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let v1::DrainWorkerRequest { worker, undo } = request.into_inner();
        let worker = WorkerId(worker);
        let event = if undo { Event::UndrainRequested { worker } } else { Event::DrainRequested { worker } };
        self.driver.request(event).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::DrainWorkerResponse {}))
    }

    async fn pin_checkpoint(
        &self,
        request: Request<v1::PinCheckpointRequest>,
    ) -> Result<Response<v1::PinCheckpointResponse>, Status> {
        let v1::PinCheckpointRequest { name, step, unpin } = request.into_inner();
        let (run, step) = (read_name(&name)?, Step(step));
        let event = if unpin { Event::UnpinRequested { run, step } } else { Event::PinRequested { run, step } };
        self.driver.request(event).await.map_err(|e| status::of_request(&e))?;
        Ok(Response::new(v1::PinCheckpointResponse {}))
    }

    type ReadRecordsStream = Messages<v1::ReadRecordsResponse>;

    async fn read_records(
        &self,
        request: Request<v1::ReadRecordsRequest>,
    ) -> Result<Response<Self::ReadRecordsStream>, Status> {
        let v1::ReadRecordsRequest { name, after_step } = request.into_inner();
        let name = self.known(&name)?;
        let run = self.picture().run(&name).cloned().ok_or_else(|| status::no_run(&name))?;
        let reading = RecordsReading { store: self.store.clone(), run, after: Step(after_step) };
        Ok(Response::new(messages(reading)))
    }

    type ReadHistoryStream = Messages<v1::ReadHistoryResponse>;

    async fn read_history(
        &self,
        request: Request<v1::ReadHistoryRequest>,
    ) -> Result<Response<Self::ReadHistoryStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let run = self.picture().run(&name).cloned().ok_or_else(|| status::no_run(&name))?;
        let reading = HistoryReading { store: self.store.clone(), run, after: Some(RecordCursor::default()) };
        Ok(Response::new(messages(reading)))
    }

    type ReadInspectionsStream = Messages<v1::ReadInspectionsResponse>;

    async fn read_inspections(
        &self,
        request: Request<v1::ReadInspectionsRequest>,
    ) -> Result<Response<Self::ReadInspectionsStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let entries = self.store.inspections(&name).await.map_err(|e| status::of_store(&e))?;
        let reading = InspectionsReading { store: self.store.clone(), name, entries: entries.into() };
        Ok(Response::new(messages(reading)))
    }

    type ReadLedgerStream = Messages<v1::ReadLedgerResponse>;

    async fn read_ledger(
        &self,
        request: Request<v1::ReadLedgerRequest>,
    ) -> Result<Response<Self::ReadLedgerStream>, Status> {
        let name = self.known(&request.into_inner().name)?;
        let reading = LedgerReading { store: self.store.clone(), name, after: Some(LedgerCursor::default()) };
        Ok(Response::new(messages(reading)))
    }

    type ReadLogStream = Messages<v1::ReadLogResponse>;

    async fn read_log(&self, request: Request<v1::ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let v1::ReadLogRequest { name, after_sequence, follow } = request.into_inner();
        let name = read_name(&name)?;
        if self.picture().state(&name).is_none() {
            return Err(status::no_run(&name));
        }
        let pictures = follow.then(|| self.driver.picture());
        let reading = LogReading { store: self.store.clone(), name, after_sequence, pictures };
        Ok(Response::new(messages(reading)))
    }

    type ReadCheckpointStream = Messages<v1::ReadCheckpointResponse>;

    async fn read_checkpoint(
        &self,
        request: Request<v1::ReadCheckpointRequest>,
    ) -> Result<Response<Self::ReadCheckpointStream>, Status> {
        let v1::ReadCheckpointRequest { name, step, whole_state } = request.into_inner();
        let name = self.known(&name)?;
        let picture = self.picture();
        let saved = picture.run(&name).and_then(|run| choose(&run.view.checkpoints, step));
        let saved = saved.ok_or_else(|| status::no_checkpoint(&name, step))?;
        let checkpoint = self.checkpoints.load(&saved.manifest, &saved.blake3).await;
        let checkpoint = checkpoint.map_err(|e| status::of_checkpoint(&e))?;
        let header = v1::CheckpointHeader {
            step: saved.step.0,
            weights_sha256: saved.weights_sha256.clone(),
            spec_json: convert::spec_to_json(&checkpoint.manifest.spec),
        };
        let file = if whole_state { checkpoint.whole() } else { checkpoint.weights() };
        let file = file.map_err(|e| status::of_checkpoint(&e))?;
        Ok(Response::new(Box::pin(stream::iter(chunks(header, file).map(Ok)))))
    }
}

/// The figures of a step. Its samples are counted from the plan, for the reads are in the ledger.
fn step_point(record: &StepRecord, run: &RunPicture) -> v1::StepPoint {
    v1::StepPoint { samples: run.samples_of(record).unwrap_or_default(), ..convert::step_point_to_wire(record) }
}

/// A run as it is shown to one watcher.
struct Watching {
    name: RunName,
    pictures: watch::Receiver<Arc<Picture>>,
    shown: Option<v1::WatchRunResponse>,
    is_over: bool,
}

impl Pages for Watching {
    type Page = v1::WatchRunResponse;

    async fn next(&mut self) -> Result<Option<v1::WatchRunResponse>, Status> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let picture = self.pictures.borrow_and_update().clone();
            let run = picture.run(&self.name).ok_or_else(|| status::no_run(&self.name))?;
            self.is_over = run.view.state.is_ended();
            let newest = run.newest.as_ref().map(|record| step_point(record, run));
            let now = v1::WatchRunResponse { run: Some(convert::run_to_wire(run)), newest };
            if self.shown.as_ref() != Some(&now) {
                self.shown = Some(now.clone());
                return Ok(Some(now));
            }
            self.pictures.changed().await.map_err(|_| status::ending())?;
        }
    }
}

struct RecordsReading {
    store: Store,
    run: Arc<RunPicture>,
    after: Step,
}

impl Pages for RecordsReading {
    type Page = v1::ReadRecordsResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadRecordsResponse>, Status> {
        let records = self.store.read_records(&self.run.view.name, self.after, POINTS_MAX).await;
        let records = records.map_err(|e| status::of_store(&e))?;
        let Some(last) = records.last() else { return Ok(None) };
        self.after = last.position().step;
        let mut page = v1::ReadRecordsResponse::default();
        for record in &records {
            match record {
                Record::Step(step) => page.steps.push(step_point(step, &self.run)),
                Record::Eval(eval) => page.evals.push(convert::eval_point_to_wire(eval)),
            }
        }
        Ok(Some(page))
    }
}

struct HistoryReading {
    store: Store,
    run: Arc<RunPicture>,
    /// `None` at the end.
    after: Option<RecordCursor>,
}

impl Pages for HistoryReading {
    type Page = v1::ReadHistoryResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadHistoryResponse>, Status> {
        let Some(after) = self.after else { return Ok(None) };
        let page = self.store.read_history(&self.run.view.name, after, POINTS_MAX).await;
        let (stored, next) = page.map_err(|e| status::of_store(&e))?;
        self.after = next;
        if stored.is_empty() {
            return Ok(None);
        }
        let points = stored.iter().map(|stored| stored_point(stored, &self.run)).collect();
        Ok(Some(v1::ReadHistoryResponse { points }))
    }
}

fn stored_point(stored: &StoredRecord, run: &RunPicture) -> v1::StoredPoint {
    let StoredRecord { sequence: _, run: _, at, rolled_back, record } = stored;
    let point = match record {
        Record::Step(step) => v1::stored_point::Point::Step(step_point(step, run)),
        Record::Eval(eval) => v1::stored_point::Point::Eval(convert::eval_point_to_wire(eval)),
    };
    v1::StoredPoint { point: Some(point), rolled_back: *rolled_back, at_ms: at.map(|at| at.0) }
}

struct LedgerReading {
    store: Store,
    name: RunName,
    /// `None` at the end.
    after: Option<LedgerCursor>,
}

impl Pages for LedgerReading {
    type Page = v1::ReadLedgerResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadLedgerResponse>, Status> {
        let Some(after) = self.after else { return Ok(None) };
        let page = self.store.read_ledger(&self.name, after, LEDGER_STEPS_MAX).await;
        let (steps, next) = page.map_err(|e| status::of_store(&e))?;
        self.after = next;
        if steps.is_empty() {
            return Ok(None);
        }
        Ok(Some(v1::ReadLedgerResponse { steps: steps.into_iter().map(ledger_step_to_wire).collect() }))
    }
}

fn ledger_step_to_wire(step: LedgerStep) -> v1::LedgerStep {
    let LedgerStep { step, generation, rolled_back, reads } = step;
    v1::LedgerStep { step: step.0, generation: generation.0, rolled_back, reads: convert::reads_to_wire(reads) }
}

struct LogReading {
    store: Store,
    name: RunName,
    after_sequence: u64,
    /// For a reader who wants to go on with new lines.
    pictures: Option<watch::Receiver<Arc<Picture>>>,
}

impl Pages for LogReading {
    type Page = v1::ReadLogResponse;

    async fn next(&mut self) -> Result<Option<v1::ReadLogResponse>, Status> {
        loop {
            // Looked at before the lines: the last line is written before the run is seen to have ended.
            let is_followed = self.pictures.as_mut().is_some_and(|pictures| {
                let picture = pictures.borrow_and_update();
                picture.state(&self.name).is_some_and(|state| !state.is_ended())
            });
            let lines = self.store.read_log(&self.name, self.after_sequence, LINES_MAX).await;
            let lines = lines.map_err(|e| status::of_store(&e))?;
            if let Some(last) = lines.last() {
                self.after_sequence = last.sequence;
                return Ok(Some(v1::ReadLogResponse { lines: lines.into_iter().map(line_to_wire).collect() }));
            }
            match &mut self.pictures {
                Some(pictures) if is_followed => pictures.changed().await.map_err(|_| status::ending())?,
                Some(_) | None => return Ok(None),
            }
        }
    }
}

fn line_to_wire(line: LogLine) -> v1::LogLine {
    let LogLine { sequence, at_ms, source, level, text } = line;
    v1::LogLine { sequence, at_ms, source, level, text }
}

/// The checkpoint of `step`; without one, the run's result, or the newest.
fn choose(checkpoints: &[CheckpointView], step: Option<u64>) -> Option<&CheckpointView> {
    match step {
        Some(step) => checkpoints.iter().find(|c| c.step.0 == step),
        None => checkpoints.iter().find(|c| c.result).or(checkpoints.last()),
    }
}

fn chunks(header: v1::CheckpointHeader, file: Vec<u8>) -> impl Iterator<Item = v1::ReadCheckpointResponse> + Send {
    let first = v1::ReadCheckpointResponse { header: Some(header), data: Vec::new() };
    let starts = (0..file.len()).step_by(CHUNK_BYTES);
    std::iter::once(first).chain(starts.map(move |start| {
        let end = (start + CHUNK_BYTES).min(file.len());
        v1::ReadCheckpointResponse { header: None, data: file[start..end].to_vec() }
    }))
}
