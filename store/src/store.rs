use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use domain::engine::Event;
use domain::ids::{Generation, RunName, Step, Time};
use domain::inspection::{Inspection, TensorHistograms};
use domain::record::{EvalRecord, Position, Record, StepRecord};
use domain::results::{Effort, Goodput};
use domain::view::DataFacts;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::lock::FolderLock;
use crate::writer::{self, QUEUE_MAX, Read, Write};
use crate::{
    InspectionEntry, JournalEntry, LedgerCursor, LedgerStep, LogFilter, LogLine, LogPage, NewLogLine, RecordCursor,
    SinkPosition, StoreError, StoredRecord, efforts, facts, inspections, journal, log, records, schema, sinks,
};

/// The coordinator's memory: journal, records, log lines and data facts of all runs, in `STATE_DIR/phalanx.db`.
///
/// A handle; clones share two threads, one that writes and one that reads. A write is durable when its call returns, and
/// a read begun after that sees it. A write that fails has changed nothing, and the next may succeed. A call that is
/// dropped while it waits is still carried out. Dropping the last handle waits for what is queued, ends the threads and
/// gives the state folder free.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // All four are `None` only while being opened or dropped.
    reads: Option<mpsc::Sender<Read>>,
    reader: Option<JoinHandle<()>>,
    writes: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
    // Declared last: given free after the threads have ended.
    _lock: FolderLock,
}

const FILE_NAME: &str = "phalanx.db";

impl Store {
    /// Opens the store in `state_dir`, which is made if need be, and gives the whole journal.
    ///
    /// Fails with [`StoreError::InUse`] if somebody has it open, and if any row of the journal is missing or unreadable.
    pub fn open(state_dir: &Path) -> Result<(Self, Vec<JournalEntry>), StoreError> {
        let lock = FolderLock::take(state_dir)?;
        let file = state_dir.join(FILE_NAME);
        let opened = schema::open_for_writing(&file).and_then(|writing| {
            let reading = schema::open_for_reading(&file)?;
            let entries = journal::read(&reading)?;
            Ok((writing, reading, entries))
        });
        let (writing, reading, entries) = opened.map_err(|e| e.while_opening(&file))?;
        let (writes, to_write) = mpsc::channel(QUEUE_MAX);
        let (reads, to_read) = mpsc::channel(QUEUE_MAX);
        let mut shared = Shared { reads: Some(reads), reader: None, writes: Some(writes), writer: None, _lock: lock };
        let cannot = |source| StoreError::Folder { folder: state_dir.to_owned(), source };
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(body).map_err(cannot)
        };
        shared.reader = Some(spawn("store-reader", Box::new(move || writer::read_all(reading, to_read)))?);
        shared.writer = Some(spawn("store-writer", Box::new(move || writer::write_all(writing, to_write)))?);
        Ok((Self { shared: Arc::new(shared) }, entries))
    }

    /// Adds events to the journal, all or none.
    pub async fn append(&self, entries: Vec<(Time, Event)>) -> Result<(), StoreError> {
        let lines = entries.iter().map(|(at, event)| journal::encode(*at, event)).collect::<Result<Vec<_>, _>>()?;
        self.write(move |connection| journal::append(connection, &lines)).await
    }

    /// Entries of the journal after number `after`, in order, at most `limit` (1 to [`PAGE_MAX`](crate::PAGE_MAX)).
    pub async fn read_journal(&self, after: u64, limit: usize) -> Result<Vec<JournalEntry>, StoreError> {
        self.read(move |connection| journal::read_after(connection, after, limit)).await
    }

    /// The number of the newest entry of the journal; 0 if there is none.
    pub async fn newest_entry(&self) -> Result<u64, StoreError> {
        self.read(journal::newest).await
    }

    /// Stores records of a run, all or none. A record that is there already changes nothing, nor does one of a position
    /// that the live lineage holds. A record that an earlier [`roll_back`](Self::roll_back) covers is stored as rolled
    /// back: what was left behind stays so, however late it arrives. The last one is taken to be made at `now`.
    pub async fn insert_records(&self, run: &RunName, now: Time, records: Vec<Record>) -> Result<(), StoreError> {
        let run = run.clone();
        self.write(move |connection| records::insert(connection, &run, now, &records)).await
    }

    /// Records of all runs after number `after`, rolled back or not, in the order in which they became durable. At most
    /// `limit` (1 to [`PAGE_MAX`](crate::PAGE_MAX)); go on with the number of the last one.
    pub async fn read_stored(&self, after: u64, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
        self.read(move |connection| records::read_stored(connection, after, limit)).await
    }

    /// Records of a run behind `after`, rolled back or not, by step, a step before the evaluation that follows it, then by
    /// generation. At most `limit` (1 to [`PAGE_MAX`](crate::PAGE_MAX)); go on with the cursor, `None` is the end.
    pub async fn read_history(
        &self,
        run: &RunName,
        after: RecordCursor,
        limit: usize,
    ) -> Result<(Vec<StoredRecord>, Option<RecordCursor>), StoreError> {
        let run = run.clone();
        self.read(move |connection| records::read_history(connection, &run, after, limit)).await
    }

    /// How far `sink` has come, and what it remembers of runs and sweeps; `None` if it never moved.
    pub async fn sink(&self, sink: &str) -> Result<Option<(SinkPosition, BTreeMap<RunName, String>)>, StoreError> {
        let sink = sink.to_owned();
        let read = move |connection: &Connection| {
            let Some(position) = sinks::position(connection, &sink)? else { return Ok(None) };
            Ok(Some((position, sinks::notes(connection, &sink)?)))
        };
        self.read(read).await
    }

    /// Moves `sink` to `position`, and replaces what it remembers of those in `notes`.
    pub async fn move_sink(
        &self,
        sink: &str,
        position: SinkPosition,
        notes: Vec<(RunName, String)>,
    ) -> Result<(), StoreError> {
        let sink = sink.to_owned();
        self.write(move |connection| sinks::advance(connection, &sink, position, &notes)).await
    }

    /// Marks the records after `step` made by generations before `generation`, which goes on from `step`. To be called
    /// before records of `generation` are inserted. Repeating it changes nothing.
    pub async fn roll_back(&self, run: &RunName, step: Step, generation: Generation) -> Result<(), StoreError> {
        let run = run.clone();
        self.write(move |connection| records::roll_back(connection, &run, step, generation)).await
    }

    /// How far the live lineage of a run goes; the zero position if there is nothing.
    pub async fn newest_position(&self, run: &RunName) -> Result<Position, StoreError> {
        let run = run.clone();
        self.read(move |connection| records::newest_position(connection, &run)).await
    }

    /// The live lineage after step `after`, in order, without the reads. At most `limit` records (1 to
    /// [`PAGE_MAX`](crate::PAGE_MAX)), one more if an evaluation of the last step follows; go on with the last step.
    pub async fn read_records(&self, run: &RunName, after: Step, limit: usize) -> Result<Vec<Record>, StoreError> {
        let run = run.clone();
        self.read(move |connection| records::read(connection, &run, after, limit)).await
    }

    /// What the steps of the live lineage before `step` took, in microseconds. Reads them all.
    pub async fn micros_before(&self, run: &RunName, step: Step) -> Result<u64, StoreError> {
        let run = run.clone();
        self.read(move |connection| records::micros_before(connection, &run, step)).await
    }

    /// The evaluations of the live lineage after step `after`, in order, at most `limit` (1 to
    /// [`PAGE_MAX`](crate::PAGE_MAX)); go on with the last step.
    pub async fn read_evals(&self, run: &RunName, after: Step, limit: usize) -> Result<Vec<EvalRecord>, StoreError> {
        let run = run.clone();
        self.read(move |connection| records::read_evals(connection, &run, after, limit)).await
    }

    /// Steps of a run that were rolled back, from step `from` to step `to`, by generation and then step, at most `limit`
    /// (1 to [`PAGE_MAX`](crate::PAGE_MAX)), without the reads. Go on behind the last one.
    pub async fn read_rolled_back(
        &self,
        run: &RunName,
        from: Step,
        to: Step,
        behind: Option<(Generation, Step)>,
        limit: usize,
    ) -> Result<Vec<StepRecord>, StoreError> {
        let run = run.clone();
        self.read(move |connection| records::read_rolled_back(connection, &run, from, to, behind, limit)).await
    }

    /// What the steps of all trials of a sweep took, those that were rolled back included, by the run of the trial. Runs
    /// without a step are absent.
    pub async fn efforts(&self, sweep: &RunName) -> Result<BTreeMap<RunName, Effort>, StoreError> {
        let sweep = sweep.clone();
        self.read(move |connection| efforts::of_sweep(connection, &sweep)).await
    }

    /// How much of the time of a run's steps counts.
    pub async fn goodput(&self, run: &RunName) -> Result<Goodput, StoreError> {
        let run = run.clone();
        self.read(move |connection| efforts::goodput(connection, &run)).await
    }

    /// The ledger after `after`, rolled-back steps included and marked, by step and then generation. At most `limit`
    /// steps (1 to [`PAGE_MAX`](crate::PAGE_MAX)), fewer if they are large; go on with the cursor, `None` is the end.
    pub async fn read_ledger(
        &self,
        run: &RunName,
        after: LedgerCursor,
        limit: usize,
    ) -> Result<(Vec<LedgerStep>, Option<LedgerCursor>), StoreError> {
        let run = run.clone();
        self.read(move |connection| records::read_ledger(connection, &run, after, limit)).await
    }

    /// Stores the inside of a model at a step, and drops the oldest of the run beyond
    /// [`INSPECTIONS_MAX`](crate::INSPECTIONS_MAX). One of a step that the live lineage has one of changes nothing; one that an
    /// earlier [`roll_back`](Self::roll_back) covers is stored as rolled back.
    pub async fn insert_inspection(&self, run: &RunName, now: Time, inspection: Inspection) -> Result<(), StoreError> {
        let (run, encoded) = (run.clone(), inspections::Encoded::of(inspection)?);
        self.write(move |connection| inspections::insert(connection, &run, now, &encoded)).await
    }

    /// The inspections that are kept of a run, rolled back or not, by step, then by generation.
    pub async fn inspections(&self, run: &RunName) -> Result<Vec<InspectionEntry>, StoreError> {
        let run = run.clone();
        self.read(move |connection| inspections::list(connection, &run)).await
    }

    /// The inspection of a step by a generation; without one, that of the live lineage.
    pub async fn inspection(
        &self,
        run: &RunName,
        step: Step,
        generation: Option<Generation>,
    ) -> Result<Option<(InspectionEntry, Inspection)>, StoreError> {
        let name = run.clone();
        let found = self.read(move |connection| inspections::read(connection, &name, step, generation)).await?;
        found.map(|found| found.inspection(run)).transpose()
    }

    /// The first inspection of a run behind number `after` that is of the live lineage and of a step up to `through`.
    pub async fn next_inspection(
        &self,
        run: &RunName,
        after: u64,
        through: Step,
    ) -> Result<Option<(InspectionEntry, Inspection)>, StoreError> {
        let name = run.clone();
        let found = self.read(move |connection| inspections::read_next(connection, &name, after, through)).await?;
        found.map(|found| found.inspection(run)).transpose()
    }

    /// What the inspections of the live lineage say of one tensor, by step; those that say nothing of it are left out.
    pub async fn histograms(
        &self,
        run: &RunName,
        tensor: String,
    ) -> Result<Vec<(InspectionEntry, TensorHistograms)>, StoreError> {
        let (name, run) = (run.clone(), run.clone());
        let found = self.read(move |connection| inspections::read_histograms(connection, &name)).await?;
        // Unpacking many takes a while, in which others read.
        let unpack = move || found.iter().filter_map(|found| found.tensor(&run, &tensor).transpose()).collect();
        tokio::task::spawn_blocking(unpack).await.map_err(|_| StoreError::Closed)?
    }

    /// Adds lines to a run's log, and drops the oldest beyond [`LOG_LINES_MAX`](crate::LOG_LINES_MAX).
    pub async fn append_log(&self, run: &RunName, lines: Vec<NewLogLine>) -> Result<(), StoreError> {
        let run = run.clone();
        self.write(move |connection| log::append(connection, &run, &lines)).await
    }

    /// Lines of a run's log after `after_sequence`, in order, at most `limit` (1 to [`PAGE_MAX`](crate::PAGE_MAX)).
    pub async fn read_log(&self, run: &RunName, after_sequence: u64, limit: usize) -> Result<Vec<LogLine>, StoreError> {
        self.search_log(run, LogPage::After(after_sequence), limit, LogFilter::default()).await
    }

    /// As [`read_log`](Self::read_log), but only lines that pass `filter`, and perhaps the newest ones.
    pub async fn search_log(
        &self,
        run: &RunName,
        at: LogPage,
        limit: usize,
        filter: LogFilter,
    ) -> Result<Vec<LogLine>, StoreError> {
        let run = run.clone();
        self.read(move |connection| log::read(connection, &run, at, limit, &filter)).await
    }

    /// Keeps what a run's data set holds; the last call counts.
    pub async fn set_data_facts(&self, run: &RunName, facts: DataFacts) -> Result<(), StoreError> {
        let run = run.clone();
        self.write(move |connection| facts::set(connection, &run, facts)).await
    }

    /// What a run's data set holds, if that was told.
    pub async fn data_facts(&self, run: &RunName) -> Result<Option<DataFacts>, StoreError> {
        let run = run.clone();
        self.read(move |connection| facts::get(connection, &run)).await
    }

    async fn write<F>(&self, work: F) -> Result<(), StoreError>
    where
        F: Fn(&Connection) -> Result<(), StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let writes = self.shared.writes.as_ref().ok_or(StoreError::Closed)?;
        writes.send(Write { work: Box::new(work), answer }).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let reads = self.shared.reads.as_ref().ok_or(StoreError::Closed)?;
        let read: Read = Box::new(move |connection| {
            // The asker may have gone away.
            let _gone = answer.send(work(connection));
        });
        reads.send(read).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A panic in a thread was reported by that thread. The writer ends last: only a connection that may write, and is
        // the last, moves the write-ahead log into the database.
        self.reads = None;
        let _reader = self.reader.take().map(JoinHandle::join);
        self.writes = None;
        let _writer = self.writer.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use futures::future::join_all;

    use super::*;

    fn line(text: &str) -> NewLogLine {
        NewLogLine { at_ms: 1, source: "coordinator".to_owned(), level: "info".to_owned(), text: text.to_owned() }
    }

    #[tokio::test]
    async fn requests_that_wait_are_committed_together_and_fail_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let run = RunName::new("run").unwrap();
        // The writer is held up until all requests wait behind this one.
        let (open_gate, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let first = store.write(move |_| {
            // Open once the other end is gone, also when this is tried again.
            assert!(gate.lock().unwrap().recv().is_err());
            Ok(())
        });
        let good = (0..20).map(|i| store.append_log(&run, vec![line(&format!("good {i}"))]));
        let bad = store.set_data_facts(&run, DataFacts { train_samples: 1, total_steps: u64::MAX });
        let release = async { drop(open_gate) };
        let (first, good, bad, ()) = futures::join!(first, join_all(good), bad, release);

        first.unwrap();
        assert!(good.into_iter().all(|outcome| outcome.is_ok()));
        assert_eq!(bad.unwrap_err().to_string(), format!("number of steps {} must be <= {}", u64::MAX, i64::MAX));
        let lines = store.read_log(&run, 0, 100).await.unwrap();
        let numbered: Vec<_> = lines.iter().map(|l| (l.sequence, l.text.clone())).collect();
        assert_eq!(numbered, (0..20).map(|i| (i + 1, format!("good {i}"))).collect::<Vec<_>>());
        assert_eq!(store.data_facts(&run).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_full_disk_fails_a_write_whole_and_the_next_may_succeed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path()).unwrap();
        let run = RunName::new("run").unwrap();
        store.append_log(&run, vec![line("kept")]).await.unwrap();
        // SQLite's own limit gives the same error as a full disk. It cannot go below the pages there are.
        let limit = |pages: i64| store.write(move |c| Ok(c.pragma_update(None, "max_page_count", pages)?));
        limit(1).await.unwrap();
        let large = (0..1000).map(|i| line(&format!("{i} {}", "x".repeat(100)))).collect::<Vec<_>>();
        let full = store.append_log(&run, large.clone()).await;
        assert!(matches!(full, Err(StoreError::DiskFull { .. })), "{full:?}");
        assert_eq!(store.read_log(&run, 0, 100).await.unwrap().len(), 1);

        store.append_log(&run, vec![line("small")]).await.unwrap();
        limit(1 << 20).await.unwrap();
        store.append_log(&run, large).await.unwrap();
        assert_eq!(store.read_log(&run, 0, 10_000).await.unwrap().len(), 1002);
    }
}
