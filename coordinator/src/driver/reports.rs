//! What happens at the edges, and what workers report: each message becomes a part of a round.

use domain::engine::{AttemptOutcome, Event, LossCause, Running, WorkerInfo};
use domain::ids::{RunName, Step, TrialId, WorkerId};
use domain::record::{EvalRecord, Record, StepRecord};
use domain::view::DataFacts;
use proto::convert::{Command, LogLine, Report};
use store::{CheckpointStore, NewLogLine};
use tracing::{debug, info};

use crate::connections::{Admission, Connection, StreamId};
use crate::status;

use super::round::Round;
use super::{Driver, Stopped};

/// What happened at the edges.
#[derive(Debug)]
pub(crate) enum Message {
    /// A worker's stream said Hello.
    Attached { worker: WorkerInfo, running: Option<Running>, connection: Connection },
    /// A stream ended.
    Detached { worker: WorkerId, stream: StreamId },
    /// A worker reported.
    Reported { worker: WorkerId, stream: StreamId, sequence: u64, report: Report },
    /// Background work came to an end.
    Happened(Event),
}

impl Driver {
    pub(super) async fn on_messages(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), Stopped> {
        let mut round = Round::default();
        for message in messages {
            if round.must_settle_before(&message) {
                self.settle(std::mem::take(&mut round)).await?;
            }
            match message {
                Message::Attached { worker, running, connection } => {
                    self.on_attached(worker, running, connection, &mut round);
                }
                Message::Detached { worker, stream } => {
                    if self.connections.detach(worker, stream) {
                        debug!(worker = worker.short(), "stream ended");
                        round.events.push(Event::Lost { worker, cause: LossCause::ConnectionClosed });
                    }
                }
                Message::Reported { worker, stream, sequence, report } => {
                    if self.connections.is_current(worker, stream) {
                        round.push_alive(worker);
                        if self.admit(worker, sequence, &mut round) {
                            self.on_report(worker, report, &mut round);
                        }
                    }
                }
                Message::Happened(event) => {
                    self.on_commit_over(&event);
                    round.push_fact(event);
                }
            }
        }
        self.settle(round).await
    }

    fn on_attached(&mut self, worker: WorkerInfo, running: Option<Running>, connection: Connection, round: &mut Round) {
        info!(worker = worker.id.short(), host = worker.host, pid = worker.pid, "worker connected");
        let id = worker.id;
        self.connections.attach(id, connection);
        let (lease_ms, checkpoint_url) = (self.timing.lease_ms, self.checkpoint_url.clone());
        self.connections.send(id, Command::Welcome { lease_ms, checkpoint_url });
        round.events.push(Event::Joined { worker, running });
    }

    fn on_commit_over(&mut self, event: &Event) {
        if let Event::Committed { trial, generation, step, .. } | Event::PartFailed { trial, generation, step, .. } =
            event
        {
            self.committing.remove(&CheckpointStore::manifest_path(trial, *generation, *step));
        }
    }

    /// Whether the report with this number is to be handled. What carries none always is.
    fn admit(&mut self, worker: WorkerId, sequence: u64, round: &mut Round) -> bool {
        if sequence == 0 {
            return true;
        }
        match self.connections.admit(worker, sequence) {
            Admission::Next => {
                round.acknowledge.insert(worker);
                true
            }
            Admission::Repeated => {
                round.acknowledge.insert(worker);
                false
            }
            Admission::Gap { handled } => {
                let cause = format!("report {sequence} follows report {handled}");
                self.connections.refuse(worker, status::out_of_order(cause));
                false
            }
        }
    }

    fn on_report(&mut self, worker: WorkerId, report: Report, round: &mut Round) {
        if let Some(trial) = trial_of(&report)
            && !self.knows(trial)
        {
            debug!(worker = worker.short(), %trial, "report about an unknown trial, ignored");
            return;
        }
        match report {
            Report::Hello { .. } => {
                self.connections.refuse(worker, status::out_of_order("a second Hello".to_owned()));
            }
            Report::Heartbeat(vitals) => drop(round.vitals.insert(worker, vitals)),
            Report::Formed { trial, generation, position } => {
                round.push_fact(Event::Formed { trial, generation, position });
            }
            Report::Broken { trial, generation, cause } => {
                round.push_fact(Event::Broken { trial, generation, worker, cause: cut(cause, CAUSE_BYTES_MAX) });
            }
            Report::Records { trial, generation: _, records } => self.on_records(trial, records, round),
            Report::PartSaved { trial, generation, part } => {
                round.push_fact(Event::PartSaved { trial, generation, part });
            }
            Report::PartFailed { trial, generation, step, cause } => {
                let cause = cut(cause, CAUSE_BYTES_MAX);
                round.push_fact(Event::PartFailed { trial, generation, step, cause });
            }
            Report::RollbackRequested { trial, generation, step, cause } => {
                let cause = cut(cause, CAUSE_BYTES_MAX);
                round.push_fact(Event::RollbackRequested { trial, generation, step, cause });
            }
            Report::AttemptEnded { trial, generation, outcome } => {
                let outcome = match outcome {
                    AttemptOutcome::Failed { step, cause } => {
                        AttemptOutcome::Failed { step, cause: cut(cause, CAUSE_BYTES_MAX) }
                    }
                    AttemptOutcome::Completed { .. }
                    | AttemptOutcome::Stopped { .. }
                    | AttemptOutcome::Rested { .. } => outcome,
                };
                round.push_fact(Event::AttemptEnded { trial, generation, outcome, worker: Some(worker) });
            }
            Report::Logs { trial, lines } => {
                round.lines.extend(lines.into_iter().map(|line| (trial.run.clone(), worker_line(worker, line))));
            }
            Report::Goodbye => {
                info!(worker = worker.short(), "worker leaves");
                round.events.push(Event::Lost { worker, cause: LossCause::Left });
                round.left.push(worker);
            }
            Report::DataOpened { trial, train_samples, total_steps } => {
                round.data.insert(trial.run, DataFacts { train_samples, total_steps });
            }
            Report::Inspected { trial, inspection } => round.inspections.push((trial.run, *inspection)),
        }
    }

    /// Work that counts is told to the engine; all of it is stored.
    fn on_records(&mut self, trial: TrialId, records: Vec<Record>, round: &mut Round) {
        let run = &trial.run;
        for record in &records {
            let position = record.position();
            if !self.engine.counts(run, record.generation(), position.step) {
                continue;
            }
            let advanced = round.advanced.entry(run.clone()).or_default();
            *advanced = position.max(*advanced);
            match record {
                Record::Step(step) => {
                    let newest = round.newest.entry(run.clone()).or_insert_with(|| without_reads(step));
                    if newest.step < step.step {
                        *newest = without_reads(step);
                    }
                }
                Record::Eval(eval) => {
                    let event = measured(&trial, eval);
                    if !self.is_measured(run, eval.step) && !round.events.contains(&event) {
                        round.events.push(event);
                    }
                }
            }
        }
        round.records.push((trial.run, records));
    }

    fn knows(&self, trial: &TrialId) -> bool {
        trial.number == 0 && self.picture.run(&trial.run).is_some()
    }

    /// Whether the engine was told of the evaluation at `step` before.
    fn is_measured(&self, run: &RunName, step: Step) -> bool {
        let run = self.picture.run(run);
        run.is_some_and(|run| run.view.measurements.binary_search_by(|m| m.step.cmp(&step)).is_ok())
    }
}

/// The figures of a step. Who read what is in the ledger.
fn without_reads(step: &StepRecord) -> StepRecord {
    StepRecord { reads: Vec::new(), ..step.clone() }
}

/// The fact that an evaluation makes.
pub(super) fn measured(trial: &TrialId, eval: &EvalRecord) -> Event {
    Event::Measured {
        trial: trial.clone(),
        generation: eval.generation,
        step: eval.step,
        eval_loss: eval.loss.into(),
        eval_accuracy: eval.accuracy.into(),
    }
}

fn trial_of(report: &Report) -> Option<&TrialId> {
    match report {
        Report::Formed { trial, .. }
        | Report::Broken { trial, .. }
        | Report::Records { trial, .. }
        | Report::PartSaved { trial, .. }
        | Report::PartFailed { trial, .. }
        | Report::RollbackRequested { trial, .. }
        | Report::AttemptEnded { trial, .. }
        | Report::Logs { trial, .. }
        | Report::DataOpened { trial, .. }
        | Report::Inspected { trial, .. } => Some(trial),
        Report::Hello { .. } | Report::Heartbeat(_) | Report::Goodbye => None,
    }
}

fn worker_line(worker: WorkerId, line: LogLine) -> NewLogLine {
    let LogLine { at_ms, level, text } = line;
    let level = if matches!(level.as_str(), "info" | "warn" | "error") { level } else { "info".to_owned() };
    NewLogLine { at_ms: at_ms.min(LATEST_MS), source: worker.short(), level, text }
}

/// Bytes of a cause that a worker tells: it is journalled, and shown wherever the run is.
const CAUSE_BYTES_MAX: usize = 4 << 10;

/// What a worker says, as far as there is room for it.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let all = text.len();
        text.truncate(text.floor_char_boundary(bytes_max));
        text += &format!("… ({all} bytes)");
    }
    text
}

/// The latest time that the store can hold.
const LATEST_MS: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use domain::engine::{Deadline, Timing};
    use domain::ids::Generation;
    use domain::record::Vitals;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::super::Parts;
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;

    /// A driver that nobody runs: the test hands it messages and moves its clock.
    async fn driver(folder: &std::path::Path) -> Driver {
        let (store, journal) = store::Store::open(folder).unwrap();
        let checkpoint_url = format!("file://{}", folder.display());
        let parts = Parts {
            timing: Timing::default(),
            metrics: Metrics::new(None),
            checkpoints: CheckpointStore::open(&checkpoint_url).unwrap(),
            checkpoint_url,
            store,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        };
        Driver::start(parts, journal).await.unwrap().0
    }

    fn worker() -> WorkerInfo {
        let text = |text: &str| text.to_owned();
        let (peer_address, ring_address) = (text("127.0.0.1:1"), text("127.0.0.1:2"));
        WorkerInfo { id: WorkerId(7), host: text("here"), pid: 1, device: text("cpu"), peer_address, ring_address }
    }

    #[tokio::test]
    async fn every_report_of_the_current_stream_is_a_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let mut driver = driver(folder.path()).await;
        let id = worker().id;
        let (commands, _down) = mpsc::channel(64);
        let connection = Connection { stream: StreamId(2), commands, cut: CancellationToken::new() };
        let attached = Message::Attached { worker: worker(), running: None, connection };
        assert!(driver.on_messages([attached].into_iter()).await.is_ok());
        let lease = |driver: &Driver| match driver.engine.next_deadline() {
            Some((at, Deadline::Lease { worker })) if worker == id => at,
            other => panic!("{other:?}"),
        };
        let mut until = lease(&driver);

        let trial: TrialId = "a/0".parse().unwrap();
        let generation = Generation(1);
        let records = || Report::Records { trial: trial.clone(), generation, records: Vec::new() };
        let broken = Report::Broken { trial: trial.clone(), generation, cause: String::new() };
        let cases = [
            ("a heartbeat", 2, 0, Report::Heartbeat(Vitals::default()), true),
            ("records of an unknown run", 2, 1, records(), true),
            ("records that came before", 2, 1, records(), true),
            ("a log", 2, 0, Report::Logs { trial: trial.clone(), lines: Vec::new() }, true),
            ("a fact", 2, 2, broken, true),
            ("an older stream", 1, 3, records(), false),
            ("an older stream's heartbeat", 1, 0, Report::Heartbeat(Vitals::default()), false),
        ];
        for (what, stream, sequence, report, counts) in cases {
            driver.clock = Clock::start(driver.clock.now().after_ms(1));
            let reported =
                || Message::Reported { worker: id, stream: StreamId(stream), sequence, report: report.clone() };
            assert!(driver.on_messages([reported(), reported()].into_iter()).await.is_ok());
            let before = std::mem::replace(&mut until, lease(&driver));
            assert_eq!(until > before, counts, "{what}");
        }
    }

    #[test]
    fn what_workers_say_is_cut_between_letters() {
        assert_eq!(cut("short".to_owned(), 5), "short");
        assert_eq!(cut("aé".repeat(3), 5), "aéa… (9 bytes)");
    }

    #[test]
    fn a_round_tells_of_each_life_once_and_journals_none() {
        let mut round = Round::default();
        for worker in [7, 9, 7, 7] {
            round.push_alive(WorkerId(worker));
        }
        let alive = |worker| Event::Alive { worker: WorkerId(worker) };
        assert_eq!(round.events, [alive(7), alive(9)]);
        assert!(round.events.iter().all(|event| !event.is_fact()));
    }
}
