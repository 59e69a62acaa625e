use std::collections::BTreeMap;

use domain::ids::WorkerId;
use proto::convert::{self, Command};
use proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::warn;

/// Commands that wait for a worker's stream. A worker that lets so many lie does not read; it is cut off, and gets what
/// still counts when it comes back.
pub(crate) const COMMANDS_MAX: usize = 256;

/// What goes down a worker's stream; a status ends it.
pub(crate) type Down = Result<v1::Command, Status>;

/// Tells one stream of a worker from its next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(pub(crate) u64);

/// The way to a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: StreamId,
    pub(crate) commands: mpsc::Sender<Down>,
    /// Ends the reading of the stream. Its end is then told as that of any other.
    pub(crate) cut: CancellationToken,
}

/// Which stream leads to which worker, and how far each worker's reports were handled.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: BTreeMap<WorkerId, Connection>,
    /// The newest report handled of each session. Kept while the engine knows the worker. A session that is not here may
    /// have been handled before the coordinator restarted, or not; handling a report twice changes nothing.
    handled: BTreeMap<WorkerId, u64>,
}

/// What is to be done with a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is the next one.
    Next,
    /// It was handled before.
    Repeated,
    /// Reports before it are missing.
    Gap {
        /// The newest one that was handled.
        handled: u64,
    },
}

impl Connections {
    /// Takes a worker's new stream in place of an older one, which ends.
    pub(crate) fn attach(&mut self, worker: WorkerId, connection: Connection) {
        if let Some(older) = self.open.insert(worker, connection) {
            older.cut.cancel();
        }
    }

    /// Forgets a stream that has ended. Whether it was the worker's current one.
    pub(crate) fn detach(&mut self, worker: WorkerId, stream: StreamId) -> bool {
        let current = self.is_current(worker, stream);
        if current {
            self.open.remove(&worker);
        }
        current
    }

    /// Ends the stream of a worker that has left or is lost.
    pub(crate) fn close(&mut self, worker: WorkerId) {
        if let Some(connection) = self.open.remove(&worker) {
            connection.cut.cancel();
        }
    }

    /// Ends a worker's stream with a status.
    pub(crate) fn refuse(&mut self, worker: WorkerId, status: Status) {
        if let Some(connection) = self.open.get(&worker) {
            // If the queue is full, the worker does not read and misses only the reason.
            let _ = connection.commands.try_send(Err(status));
            connection.cut.cancel();
        }
    }

    /// Whether `stream` is the worker's current one. What came on an older one will come again on this.
    pub(crate) fn is_current(&self, worker: WorkerId, stream: StreamId) -> bool {
        self.open.get(&worker).is_some_and(|c| c.stream == stream)
    }

    /// Whether a worker is connected.
    pub(crate) fn is_open(&self, worker: WorkerId) -> bool {
        self.open.contains_key(&worker)
    }

    /// Puts a command on its way. A worker that is not connected is told anew when it comes back.
    pub(crate) fn send(&self, worker: WorkerId, command: Command) {
        let Some(connection) = self.open.get(&worker) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) =
            connection.commands.try_send(Ok(convert::command_to_wire(command)))
        {
            warn!(worker = worker.short(), waiting = COMMANDS_MAX, "worker does not read its commands, cutting it off");
            connection.cut.cancel();
        }
    }

    /// Admits the report with this number, if it is the next one.
    pub(crate) fn admit(&mut self, worker: WorkerId, sequence: u64) -> Admission {
        let admission = match self.handled.get(&worker) {
            Some(handled) if sequence <= *handled => Admission::Repeated,
            Some(handled) if sequence > *handled + 1 => Admission::Gap { handled: *handled },
            Some(_) | None => Admission::Next,
        };
        if admission == Admission::Next {
            self.handled.insert(worker, sequence);
        }
        admission
    }

    /// The newest report handled of a worker.
    pub(crate) fn handled(&self, worker: WorkerId) -> u64 {
        self.handled.get(&worker).copied().unwrap_or_default()
    }

    /// Forgets how far the reports of workers were handled that nobody knows any more.
    pub(crate) fn forget_unless(&mut self, known: impl Fn(WorkerId) -> bool) {
        self.handled.retain(|worker, _| known(*worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_admitted_once_and_in_order() {
        let mut connections = Connections::default();
        let worker = WorkerId(7);
        assert_eq!(connections.admit(worker, 5), Admission::Next, "after a restart any number may come first");
        let cases = [
            (5, Admission::Repeated),
            (1, Admission::Repeated),
            (7, Admission::Gap { handled: 5 }),
            (6, Admission::Next),
            (7, Admission::Next),
        ];
        for (sequence, expected) in cases {
            assert_eq!(connections.admit(worker, sequence), expected, "report {sequence}");
        }
        assert_eq!(connections.handled(worker), 7);
        connections.forget_unless(|_| false);
        assert_eq!(connections.handled(worker), 0);
    }

    #[test]
    fn a_new_stream_replaces_the_older_one() {
        let mut connections = Connections::default();
        let worker = WorkerId(7);
        let open = |stream| {
            let (commands, down) = mpsc::channel(1);
            (Connection { stream: StreamId(stream), commands, cut: CancellationToken::new() }, down)
        };
        let (first, mut first_down) = open(1);
        let first_cut = first.cut.clone();
        connections.attach(worker, first);
        let (second, mut second_down) = open(2);
        let second_cut = second.cut.clone();
        connections.attach(worker, second);
        assert!(first_cut.is_cancelled() && !second_cut.is_cancelled());
        assert!(matches!(first_down.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        assert!(!connections.detach(worker, StreamId(1)), "the end of an older stream is no loss");
        assert!(connections.is_current(worker, StreamId(2)));
        connections.send(worker, Command::Shutdown);
        connections.send(worker, Command::Shutdown);
        assert!(second_cut.is_cancelled(), "a worker that does not read is cut off");
        assert!(second_down.try_recv().is_ok());
        assert!(connections.detach(worker, StreamId(2)));
        assert!(!connections.is_open(worker));
    }
}
