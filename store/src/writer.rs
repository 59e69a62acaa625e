//! The threads behind a [`Store`](crate::Store): one writes, one reads.
//!
//! The writer takes all requests that wait, puts them into one transaction, commits it to disk, and only then answers
//! them: the cost of a sync is shared. If the transaction fails, each of its requests is tried in a transaction of its
//! own, so that a request fails only by its own fault or the disk's.

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::StoreError;

/// Requests that wait before senders have to. Enough for a full group behind the one being committed.
pub(crate) const QUEUE_MAX: usize = 2 * GROUP_MAX;

/// Requests of one transaction. A bound on how much is tried again after a failure; 64 already make a sync cheap.
const GROUP_MAX: usize = 64;

/// What a write does. It may run more than once, each time in a transaction that shows nothing of the time before.
type Work = Box<dyn Fn(&Connection) -> Result<(), StoreError> + Send>;

/// Something to write.
pub(crate) struct Write {
    pub(crate) work: Work,
    pub(crate) answer: oneshot::Sender<Result<(), StoreError>>,
}

/// Something to read; it answers by itself.
pub(crate) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Writes until the last sender is gone and the queue is empty.
pub(crate) fn write_all(mut connection: Connection, mut queue: mpsc::Receiver<Write>) {
    let mut group = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        group.push(first);
        while group.len() < GROUP_MAX {
            let Ok(next) = queue.try_recv() else { break };
            group.push(next);
        }
        write_group(&mut connection, &mut group);
    }
}

fn write_group(connection: &mut Connection, group: &mut Vec<Write>) {
    let together = commit(connection, group);
    if group.len() > 1 && together.is_err() {
        for write in group.drain(..) {
            let alone = commit(connection, std::slice::from_ref(&write));
            answer(write, alone);
        }
        return;
    }
    // Either all went well, or there is exactly one request to take the error.
    let mut outcome = Some(together);
    for write in group.drain(..) {
        answer(write, outcome.take().unwrap_or(Ok(())));
    }
}

fn commit(connection: &mut Connection, group: &[Write]) -> Result<(), StoreError> {
    // Dropping the transaction takes it back.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for write in group {
        (write.work)(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

fn answer(write: Write, outcome: Result<(), StoreError>) {
    // The asker may have gone away; what it asked for is done all the same.
    let _gone = write.answer.send(outcome);
}

/// Reads until the last sender is gone and the queue is empty.
pub(crate) fn read_all(connection: Connection, mut queue: mpsc::Receiver<Read>) {
    while let Some(read) = queue.blocking_recv() {
        read(&connection);
    }
}
