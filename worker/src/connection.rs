//! The stream to the coordinator: kept up, and set up anew whenever it ends, while the device thread goes on stepping.

use std::time::Duration;

use domain::engine::WorkerInfo;
use domain::record::Vitals;
use proto::convert::{self, Command, Report};
use proto::v1;
use proto::v1::worker_link_client::WorkerLinkClient;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

use crate::device::Commands;
use crate::report::Outbox;
use crate::{Config, Ending, WorkerError};

/// How long connecting may take before it is tried again.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How often a silent connection is asked whether the other end is still there, and how long it may take to say so. A
/// coordinator whose host vanished never closes its end.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The first pause between two attempts; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A coordinator that comes back is found within half a second.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Reports handed to the transport but not yet written.
const STREAM_QUEUE: usize = 64;
/// How long a departing worker waits for its goodbye to be written.
const GOODBYE_LIMIT: Duration = Duration::from_millis(200);

/// Serves until `shutdown`, the coordinator's word, or the orphan limit.
pub(crate) async fn serve(
    config: &Config,
    info: &WorkerInfo,
    outbox: &Outbox,
    commands: &Commands,
    shutdown: &CancellationToken,
) -> Result<Ending, WorkerError> {
    let endpoint = Endpoint::from_shared(config.coordinator.clone())
        .map_err(|source| WorkerError::Url { url: config.coordinator.clone(), source })?
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tcp_nodelay(true);
    let mut last_contact = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let connected = tokio::select! {
            () = shutdown.cancelled() => return Ok(Ending::Asked),
            connected = endpoint.connect() => connected,
        };
        let mut was_there = false;
        match connected {
            Ok(channel) => match stream(channel, info, outbox, commands, shutdown).await {
                StreamEnd::Asked => return Ok(Ending::Asked),
                StreamEnd::Lost { cause, welcomed } => {
                    if welcomed {
                        info!(cause, "connection to the coordinator lost, going on without it");
                        // It was there until now, however long it had nothing to say.
                        (was_there, last_contact, pause) = (true, Instant::now(), PAUSE_MIN);
                    }
                }
            },
            Err(cause) => debug!(%cause, "the coordinator is not reachable"),
        }
        if !was_there && last_contact.elapsed() > config.orphan_limit {
            warn!(limit_s = config.orphan_limit.as_secs(), "the coordinator was gone for too long, giving up");
            return Ok(Ending::Orphaned);
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Ending::Asked),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

enum StreamEnd {
    Asked,
    Lost { cause: String, welcomed: bool },
}

async fn stream(
    channel: Channel,
    info: &WorkerInfo,
    outbox: &Outbox,
    commands: &Commands,
    shutdown: &CancellationToken,
) -> StreamEnd {
    let (up, reports) = mpsc::channel(STREAM_QUEUE);
    let hello = Report::Hello { worker: info.clone(), running: outbox.running() };
    let lost = |cause: String, welcomed| StreamEnd::Lost { cause, welcomed };
    if up.send(convert::report_to_wire(0, hello)).await.is_err() {
        return lost("the stream closed at once".to_owned(), false);
    }
    let mut client = WorkerLinkClient::new(channel)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let attached = tokio::select! {
        () = shutdown.cancelled() => return StreamEnd::Asked,
        attached = tokio::time::timeout(CONNECT_LIMIT, client.attach(ReceiverStream::new(reports))) => attached,
    };
    let mut down = match attached {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return lost(status.message().to_owned(), false),
        Err(_) => return lost("the coordinator does not answer".to_owned(), false),
    };
    let mut lease: Option<Duration> = None;
    let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent_through = 0;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                let goodbye = async move {
                    let _ = up.send(convert::report_to_wire(0, Report::Goodbye)).await;
                    drop(up);
                    while let Ok(Some(_)) = down.message().await {}
                };
                let _ = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
                return StreamEnd::Asked;
            }
            command = down.message() => {
                let command = match command {
                    Ok(Some(command)) => command,
                    Ok(None) => return lost("the coordinator closed the stream".to_owned(), lease.is_some()),
                    Err(status) => return lost(status.message().to_owned(), lease.is_some()),
                };
                match convert::command_from_wire(command) {
                    Ok(Command::Welcome { lease_ms, checkpoint_url }) => {
                        lease = Some(Duration::from_millis(lease_ms));
                        heartbeat = tokio::time::interval(Duration::from_millis((lease_ms / 3).clamp(1, 1000)));
                        commands.set_checkpoint_url(checkpoint_url);
                    }
                    Ok(Command::Acknowledge { sequence }) => outbox.acknowledge(sequence),
                    Ok(Command::Shutdown) => return StreamEnd::Asked,
                    Ok(command) => commands.send(command),
                    Err(cause) => warn!(%cause, "a command does not hold together, ignored"),
                }
            }
            _ = heartbeat.tick(), if lease.is_some() => {
                // Where the queue is full of reports, those are the sign of life.
                if let Err(TrySendError::Closed(_)) = up.try_send(convert::report_to_wire(0, heartbeat_of(outbox))) {
                    return lost("the stream closed".to_owned(), true);
                }
            }
            sent = send_next(&up, outbox, sent_through), if lease.is_some() => match sent {
                Some(sequence) => sent_through = sent_through.max(sequence),
                None => return lost("the stream closed".to_owned(), true),
            },
        }
    }
}

/// A sign of life, with how this worker is doing.
fn heartbeat_of(outbox: &Outbox) -> Report {
    Report::Heartbeat(Vitals { resident_bytes: resident_bytes(), pace: outbox.pace() })
}

/// Memory that this process holds, in whole MiB, so that it changes only where somebody would notice. Linux alone tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10 << 20)
}

/// Sends the next report, waiting for one if need be. Safe to cancel: what was not sent is still queued.
async fn send_next(up: &mpsc::Sender<v1::Report>, outbox: &Outbox, sent_through: u64) -> Option<u64> {
    let permit = up.reserve().await.ok()?;
    loop {
        if let Some(report) = outbox.next(sent_through) {
            let sequence = report.sequence;
            permit.send(report);
            return Some(sequence);
        }
        outbox.added().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use domain::ids::WorkerId;
    use futures::Stream;
    use proto::v1::worker_link_server::{WorkerLink, WorkerLinkServer};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;
    use crate::device;
    use crate::peer::Offers;

    /// A coordinator that hands each stream of a worker to the test.
    struct Coordinator(mpsc::Sender<Attached>);

    struct Attached {
        reports: Streaming<v1::Report>,
        commands: mpsc::Sender<Result<v1::Command, Status>>,
    }

    #[tonic::async_trait]
    impl WorkerLink for Coordinator {
        type AttachStream = Pin<Box<dyn Stream<Item = Result<v1::Command, Status>> + Send>>;

        async fn attach(
            &self,
            request: Request<Streaming<v1::Report>>,
        ) -> Result<Response<Self::AttachStream>, Status> {
            let (commands, down) = mpsc::channel(8);
            let _ = self.0.send(Attached { reports: request.into_inner(), commands }).await;
            Ok(Response::new(Box::pin(ReceiverStream::new(down))))
        }
    }

    impl Attached {
        async fn command(&self, command: Command) {
            self.commands.send(Ok(convert::command_to_wire(command))).await.unwrap();
        }

        /// The next report that is no heartbeat, with its number.
        async fn report(&mut self) -> (u64, Report) {
            loop {
                let report = self.reports.message().await.unwrap().unwrap();
                let sequence = report.sequence;
                let report = convert::report_from_wire(report).unwrap();
                if !matches!(report, Report::Heartbeat(_)) {
                    return (sequence, report);
                }
            }
        }

        async fn welcome(&mut self) {
            assert!(matches!(self.report().await, (0, Report::Hello { .. })));
            let checkpoint_url = "file:///nowhere".to_owned();
            self.command(Command::Welcome { lease_ms: 3000, checkpoint_url }).await;
        }
    }

    fn opened(train_samples: u64) -> Report {
        Report::DataOpened { trial: "a/0".parse().unwrap(), train_samples, total_steps: 1 }
    }

    /// A worker's connection at work, and its coordinator.
    struct Working {
        streams: mpsc::Receiver<Attached>,
        outbox: Outbox,
        serving: tokio::task::JoinHandle<Result<Ending, WorkerError>>,
        device: std::thread::JoinHandle<()>,
        server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    }

    async fn start(orphan_limit: Duration) -> Working {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            id: WorkerId(5),
            coordinator: format!("http://{}", listener.local_addr().unwrap()),
            bind: "127.0.0.1".parse().unwrap(),
            orphan_limit,
            threads: None,
            profile: None,
            spans: None,
        };
        let (attached, streams) = mpsc::channel(1);
        let server = tonic::transport::Server::builder()
            .add_service(WorkerLinkServer::new(Coordinator(attached)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(server);

        let ring = collective::ring::Listener::bind("127.0.0.1:0").unwrap();
        let info = WorkerInfo {
            id: WorkerId(5),
            host: "here".to_owned(),
            pid: 1,
            device: "cpu".to_owned(),
            peer_address: "127.0.0.1:1".to_owned(),
            ring_address: ring.local_addr().to_string(),
        };
        let outbox = Outbox::default();
        let parts =
            device::Parts { ring, offers: Offers::default(), outbox: outbox.clone(), profile: None, spans: None };
        let device = device::start(parts).unwrap();
        let (commands, reports) = (device.commands, outbox.clone());
        let serving = tokio::spawn(async move {
            let ending = serve(&config, &info, &reports, &commands, &CancellationToken::new()).await;
            commands.shut_down();
            ending
        });
        Working { streams, outbox, serving, device: device.thread, server }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_not_acknowledged_is_sent_again_over_the_next_stream() {
        let Working { mut streams, outbox, serving, device, server } = start(Duration::from_secs(60)).await;
        outbox.send(opened(1));
        outbox.send(opened(2));
        let mut first = streams.recv().await.unwrap();
        first.welcome().await;
        assert_eq!([first.report().await, first.report().await], [(1, opened(1)), (2, opened(2))]);
        first.command(Command::Acknowledge { sequence: 1 }).await;
        while outbox.acknowledged() < 1 {
            tokio::task::yield_now().await;
        }
        drop(first);
        outbox.send(opened(3));

        let mut second = streams.recv().await.unwrap();
        second.welcome().await;
        assert_eq!([second.report().await, second.report().await], [(2, opened(2)), (3, opened(3))]);
        second.command(Command::Shutdown).await;
        assert_eq!(serving.await.unwrap().unwrap(), Ending::Asked);
        device.join().unwrap();
        server.abort();
    }

    /// A connected coordinator with nothing to say is not gone: only the time after it was lost counts.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_orphan_limit_begins_when_the_connection_ends() {
        let Working { mut streams, outbox, mut serving, device, server } = start(Duration::ZERO).await;
        let mut first = streams.recv().await.unwrap();
        first.welcome().await;
        outbox.send(opened(1));
        assert_eq!(first.report().await, (1, opened(1)));
        drop(first);

        let mut second = tokio::select! {
            second = streams.recv() => second.unwrap(),
            ending = &mut serving => panic!("it gave up: {ending:?}"),
        };
        second.welcome().await;
        assert_eq!(second.report().await, (1, opened(1)));
        server.abort();
        drop((second, streams));
        assert_eq!(serving.await.unwrap().unwrap(), Ending::Orphaned);
        device.join().unwrap();
    }
}
