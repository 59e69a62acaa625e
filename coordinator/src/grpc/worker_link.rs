use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::engine::{Running, WorkerInfo};
use domain::ids::WorkerId;
use proto::convert::{self, Report};
use proto::v1;
use proto::v1::worker_link_server::WorkerLink;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::connections::{COMMANDS_MAX, Connection, Down, StreamId};
use crate::driver::{Handle, Message};
use crate::status;

/// How long a stream may stay open without a Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a host name, a device name or an address.
const TEXT_BYTES_MAX: usize = 256;

/// Serves workers: one stream each.
#[derive(Debug)]
pub(crate) struct WorkerLinkService {
    driver: Handle,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    streams: AtomicU64,
}

impl WorkerLinkService {
    pub(crate) fn new(driver: Handle, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { driver, tasks, shutdown, streams: AtomicU64::new(0) }
    }
}

#[tonic::async_trait]
impl WorkerLink for WorkerLinkService {
    type AttachStream = ReceiverStream<Down>;

    async fn attach(&self, request: Request<Streaming<v1::Report>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(HELLO_LIMIT, reports.message()).await;
        let first = first.map_err(|_| status::no_hello(HELLO_LIMIT.as_secs()))??;
        let (worker, running) = read_hello(first)?;
        let (commands, down) = mpsc::channel(COMMANDS_MAX);
        let stream = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        let cut = self.shutdown.child_token();
        let reading = Reading { worker: worker.id, stream, commands: commands.clone(), cut: cut.clone() };
        let connection = Connection { stream, commands, cut };
        if !self.driver.tell(Message::Attached { worker, running, connection }).await {
            return Err(status::ending());
        }
        self.tasks.spawn(reading.read(reports, self.driver.clone()));
        Ok(Response::new(ReceiverStream::new(down)))
    }
}

fn read_hello(first: Option<v1::Report>) -> Result<(WorkerInfo, Option<Running>), Status> {
    let first = first.ok_or_else(|| status::out_of_order("the stream ended before Hello".to_owned()))?;
    let report = convert::report_from_wire(first).map_err(|e| status::of_message(&e))?;
    let Report::Hello { worker, running } = report else {
        return Err(status::out_of_order("the first report must be Hello".to_owned()));
    };
    let WorkerInfo { id: _, host, pid: _, device, peer_address, ring_address } = &worker;
    for (field, text) in
        [("host", host), ("device", device), ("peer_address", peer_address), ("ring_address", ring_address)]
    {
        if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(status::out_of_order(format!(
                "Worker.{field} must be at most {TEXT_BYTES_MAX} bytes without control characters"
            )));
        }
    }
    for (field, address) in [("peer_address", peer_address), ("ring_address", ring_address)] {
        let has_port =
            address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !has_port {
            return Err(status::out_of_order(format!("Worker.{field} {address:?} is not of the form HOST:PORT")));
        }
    }
    Ok((worker, running))
}

/// The reading half of a worker's stream.
struct Reading {
    worker: WorkerId,
    stream: StreamId,
    commands: mpsc::Sender<Down>,
    cut: CancellationToken,
}

impl Reading {
    /// Hands reports to the driver, one after the other, until the stream ends or is cut.
    async fn read(self, mut reports: Streaming<v1::Report>, driver: Handle) {
        let Self { worker, stream, commands, cut } = self;
        let ended = async {
            loop {
                let report = match reports.message().await {
                    Ok(Some(report)) => report,
                    Ok(None) => return "the worker closed the stream".to_owned(),
                    Err(status) => {
                        let cause = status.message().to_owned();
                        // A message that was too long; if the connection is gone, so is this.
                        let _ = commands.try_send(Err(status));
                        return cause;
                    }
                };
                let sequence = report.sequence;
                let report = match convert::report_from_wire(report) {
                    Ok(report) => report,
                    Err(error) => {
                        // If the queue is full, the worker misses only the reason.
                        let _ = commands.try_send(Err(status::of_message(&error)));
                        return error.to_string();
                    }
                };
                if !driver.tell(Message::Reported { worker, stream, sequence, report }).await {
                    return "the coordinator ends".to_owned();
                }
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            cause = ended => debug!(worker = worker.short(), cause, "stream of a worker ended"),
        }
        // While the coordinator ends, nobody listens, and a stream that ends is no loss of a worker.
        driver.tell(Message::Detached { worker, stream }).await;
    }
}
