//! The one task that owns the engine.
//!
//! It takes what waits in its queue, in portions called rounds, and settles each: what was reported is made durable, then
//! the engine is told, then what it asks for is done, then people see it, and only then is it acknowledged. So nothing
//! that anybody was told can be lost with this process.
//!
//! Order within a round. Records come before facts: a fact may rest on the work that its reporter sent before it. And a
//! fact about a run is settled before later records of that run are looked at: it may be the formation after which they
//! count or no longer count.
//!
//! Late records. A group that forms goes on from a step and leaves behind what older generations made after it. A worker
//! that was cut off may report such work at any later time. It is stored, marked as rolled back (the store remembers what
//! was left behind), and the engine is not told of it ([`Engine::counts`]). Work of an older generation up to that step
//! counts, late or not, and is told as progress of the newest generation.
//!
//! When the store cannot take anything (a full disk), the round in hand is kept and tried again. Meanwhile no further
//! report is taken, so workers keep theirs and go on stepping; requests of users are refused at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::engine::{Deadline, Engine, Event, LossCause, Refusal, Running, Timing, WorkerInfo};
use domain::ids::{RunName, Step, Time, TrialId, WorkerId};
use domain::record::{EvalRecord, Position, Record, StepRecord};
use domain::view::{RunState, RunView};
use futures::future::try_join_all;
use proto::convert::{Command, DataFacts, LogLine, Report};
use store::{CheckpointStore, JournalEntry, NewLogLine, PAGE_MAX, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock::Clock;
use crate::connections::{Admission, Connection, Connections, StreamId};
use crate::effects::{self, ForDriver, Hands};
use crate::picture::Picture;
use crate::status;

/// Messages that wait for the driver before their senders have to. Also the most of one portion, so that after one
/// portion everything has been seen that waited when it began.
const MESSAGES_MAX: usize = 256;
/// Requests of users that wait.
const REQUESTS_MAX: usize = 64;
/// The first pause before the store is tried again; it doubles up to [`STALL_PAUSE_MAX`].
const STALL_PAUSE_MIN: Duration = Duration::from_millis(100);
/// A disk that was cleared is found within a second.
const STALL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A lease noticed to have run out this late says that this process did not look (it was suspended, or the store
/// stalled), and nothing about the worker.
const LATE_MS: u64 = 1_000;

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

/// What a user asks for.
#[derive(Debug)]
struct UserRequest {
    event: Event,
    answer: oneshot::Sender<Result<(), RequestError>>,
}

/// Why a user's request was not taken. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The engine does not allow it.
    #[error(transparent)]
    Refused(Refusal),
    /// It could not be journalled.
    #[error(transparent)]
    Store(StoreError),
    /// The store takes nothing at the moment.
    #[error("the store cannot be written at the moment\nhint: see whether its disk is full")]
    Stalled,
    /// The coordinator is going away.
    #[error("the coordinator is shutting down")]
    Ending,
}

/// The way to the driver.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    requests: mpsc::Sender<UserRequest>,
    messages: mpsc::Sender<Message>,
    picture: watch::Receiver<Arc<Picture>>,
}

impl Handle {
    /// Asks for something; returns once it is journalled and can be seen.
    pub(crate) async fn request(&self, event: Event) -> Result<(), RequestError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(UserRequest { event, answer }).await.map_err(|_| RequestError::Ending)?;
        answered.await.unwrap_or(Err(RequestError::Ending))
    }

    /// Tells what happened; whether the driver still listens.
    pub(crate) async fn tell(&self, message: Message) -> bool {
        self.messages.send(message).await.is_ok()
    }

    /// What can be seen, now and later. Ends with the driver.
    pub(crate) fn picture(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.clone()
    }
}

/// Owns the engine.
pub(crate) struct Driver {
    engine: Engine,
    clock: Clock,
    timing: Timing,
    checkpoint_url: String,
    store: Store,
    hands: Hands,
    connections: Connections,
    /// Paths of manifests that are being written.
    committing: BTreeSet<String>,
    picture: Picture,
    publish: watch::Sender<Arc<Picture>>,
    requests: mpsc::Receiver<UserRequest>,
    messages: mpsc::Receiver<Message>,
}

/// Why the driver ends. A full disk is no such reason.
enum Stopped {
    Asked,
    Failed(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Stopped::Failed(error)
    }
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) timing: Timing,
    pub(crate) checkpoint_url: String,
    pub(crate) store: Store,
    pub(crate) checkpoints: CheckpointStore,
    pub(crate) tasks: tokio_util::task::TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Driver {
    /// Brings back what `journal` tells, and looks where things stand now.
    pub(crate) async fn start(parts: Parts, journal: Vec<JournalEntry>) -> Result<(Self, Handle), StoreError> {
        let Parts { timing, checkpoint_url, store, checkpoints, tasks, shutdown } = parts;
        let (ask, requests) = mpsc::channel(REQUESTS_MAX);
        let (happened, messages) = mpsc::channel(MESSAGES_MAX);
        let (publish, picture) = watch::channel(Arc::default());
        let handle = Handle { requests: ask, messages: happened.clone(), picture };
        let newest = journal.last().map_or(Time(0), |entry| entry.at);
        let is_restart = !journal.is_empty();
        let mut driver = Driver {
            engine: Engine::new(timing),
            clock: Clock::start(newest),
            timing,
            checkpoint_url,
            store,
            hands: Hands { checkpoints, tasks, happened, shutdown },
            connections: Connections::default(),
            committing: BTreeSet::new(),
            picture: Picture::default(),
            publish,
            requests,
            messages,
        };
        driver.replay(journal);
        if is_restart {
            match driver.reconcile().await {
                Ok(()) | Err(Stopped::Asked) => {}
                Err(Stopped::Failed(error)) => return Err(error),
            }
        }
        driver.publish();
        Ok((driver, handle))
    }

    /// Serves until asked to end.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        match self.serve().await {
            Ok(()) | Err(Stopped::Asked) => Ok(()),
            Err(Stopped::Failed(error)) => {
                error!(cause = %error, "the store failed, the coordinator must end");
                Err(error)
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Stopped> {
        let shutdown = self.hands.shutdown.clone();
        let mut messages = Vec::with_capacity(MESSAGES_MAX);
        loop {
            let due = self.engine.next_deadline().map(|(at, _)| self.clock.instant(at));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(request) = self.requests.recv() => self.on_request(request).await?,
                _ = self.messages.recv_many(&mut messages, MESSAGES_MAX) => {
                    self.on_messages(messages.drain(..)).await?;
                }
                () = sleep_until(due) => {}
            }
            self.pass_deadlines().await?;
        }
    }

    // --- Starting again ---------------------------------------------------------------------------------------------

    /// Applies the journal. What it led to was done, or will be asked for again.
    fn replay(&mut self, journal: Vec<JournalEntry>) {
        let events = journal.len();
        for JournalEntry { sequence: _, at, event } in journal {
            self.note_spec(&event);
            let _done_then = self.engine.apply(at, event);
        }
        self.picture.view = self.engine.view();
        if events > 0 {
            info!(events, runs = self.picture.view.runs.len(), "journal replayed");
        }
    }

    /// Asks the engine what may have been left undone, and tells it what became durable without its knowledge.
    async fn reconcile(&mut self) -> Result<(), Stopped> {
        self.settle(Round { events: vec![Event::Restarted], ..Round::default() }).await?;
        let runs: Vec<RunView> = self.picture.view.runs.clone();
        for run in runs {
            if let Some(data) = self.store.data_facts(&run.name).await? {
                let store::DataFacts { train_samples, total_steps } = data;
                self.picture.data.insert(run.name.clone(), DataFacts { train_samples, total_steps });
            }
            self.read_newest(&run.name).await?;
            let round = self.what_the_engine_missed(&run).await?;
            self.settle(round).await?;
        }
        Ok(())
    }

    /// How far a run's records go, and evaluations whose record is durable but whose fact is not: the process may have
    /// ended between the two, and the worker that would tell it again may be gone.
    async fn what_the_engine_missed(&self, run: &RunView) -> Result<Round, Stopped> {
        let mut round = Round::default();
        let trial = only_trial(&run.name);
        let position = self.store.newest_position(&run.name).await?;
        round.advanced.insert(run.name.clone(), position);
        let mut after = run.measurements.last().map(|m| m.step).unwrap_or_default();
        loop {
            let records = self.store.read_records(&run.name, after, PAGE_MAX).await?;
            let Some(last) = records.last() else { return Ok(round) };
            after = last.position().step;
            round.events.extend(records.iter().filter_map(|record| match record {
                Record::Step(_) => None,
                Record::Eval(eval) => Some(measured(&trial, eval)),
            }));
        }
    }

    // --- Users ------------------------------------------------------------------------------------------------------

    async fn on_request(&mut self, request: UserRequest) -> Result<(), Stopped> {
        let UserRequest { event, answer } = request;
        let outcome = match self.engine.check(&event) {
            Err(refusal) => Err(RequestError::Refused(refusal)),
            Ok(()) => {
                let now = self.clock.now();
                match self.store.append(vec![(now, event.clone())]).await {
                    Ok(()) => {
                        self.apply(now, vec![event]).await?;
                        Ok(())
                    }
                    Err(error) if concerns_one_request(&error) => Err(RequestError::Store(error)),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        // A user who has gone away finds out by looking.
        let _ = answer.send(outcome);
        Ok(())
    }

    // --- Workers ----------------------------------------------------------------------------------------------------

    async fn on_messages(&mut self, messages: impl Iterator<Item = Message>) -> Result<(), Stopped> {
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
                    if self.connections.is_current(worker, stream) && self.admit(worker, sequence, &mut round) {
                        self.on_report(worker, report, &mut round);
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
            Report::Heartbeat => round.events.push(Event::Alive { worker }),
            Report::Formed { trial, generation, position } => {
                round.push_fact(Event::Formed { trial, generation, position });
            }
            Report::Broken { trial, generation, cause } => {
                round.push_fact(Event::Broken { trial, generation, worker, cause });
            }
            Report::Records { trial, generation: _, records } => self.on_records(trial, records, round),
            Report::PartSaved { trial, generation, part } => {
                round.push_fact(Event::PartSaved { trial, generation, part });
            }
            Report::PartFailed { trial, generation, step, cause } => {
                round.push_fact(Event::PartFailed { trial, generation, step, cause });
            }
            Report::RollbackRequested { trial, generation, step, cause } => {
                round.push_fact(Event::RollbackRequested { trial, generation, step, cause });
            }
            Report::AttemptEnded { trial, generation, outcome } => {
                round.push_fact(Event::AttemptEnded { trial, generation, outcome });
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
        trial.number == 0 && self.picture.specs.contains_key(&trial.run)
    }

    /// Whether the engine was told of the evaluation at `step` before.
    fn is_measured(&self, run: &RunName, step: Step) -> bool {
        let run = self.picture.run(run);
        run.is_some_and(|run| run.measurements.binary_search_by(|m| m.step.cmp(&step)).is_ok())
    }

    // --- Deadlines --------------------------------------------------------------------------------------------------

    async fn pass_deadlines(&mut self) -> Result<(), Stopped> {
        while let Some((at, deadline)) = self.engine.next_deadline() {
            let now = self.clock.now();
            if at > now {
                return Ok(());
            }
            let mut round = Round::default();
            match &deadline {
                Deadline::Lease { worker } if now > at.after_ms(LATE_MS) && self.connections.is_open(*worker) => {
                    warn!(
                        worker = worker.short(),
                        late_ms = now.0 - at.0,
                        "a lease was looked at too late, it starts anew"
                    );
                    round.events.push(Event::Alive { worker: *worker });
                }
                Deadline::Lease { worker } => {
                    // If its stream is still there, it must say Hello again.
                    round.left.push(*worker);
                    round.events.push(Event::DeadlinePassed { deadline });
                }
                Deadline::Gather { .. } | Deadline::Form { .. } | Deadline::TimeLimit { .. } => {
                    round.events.push(Event::DeadlinePassed { deadline });
                }
            }
            self.settle(round).await?;
        }
        Ok(())
    }

    // --- Settling ---------------------------------------------------------------------------------------------------

    /// Makes a round durable, tells the engine, does what it asks for, shows it, acknowledges it.
    async fn settle(&mut self, round: Round) -> Result<(), Stopped> {
        let Round { records, advanced, newest, data, events, runs_with_facts: _, lines, acknowledge, left } = round;
        let store = self.store.clone();
        self.until_durable(|| async {
            try_join_all(records.iter().map(|(run, records)| store.insert_records(run, records.clone()))).await?;
            for (run, DataFacts { train_samples, total_steps }) in &data {
                store.set_data_facts(run, *train_samples, *total_steps).await?;
            }
            Ok(())
        })
        .await?;
        let now = self.clock.now();
        let facts: Vec<(Time, Event)> = events.iter().filter(|e| e.is_fact()).map(|e| (now, e.clone())).collect();
        if !facts.is_empty() {
            self.until_durable(|| store.append(facts.clone())).await?;
        }
        for (run, step) in newest {
            if self.picture.newest.get(&run).is_none_or(|known| known.step < step.step) {
                self.picture.newest.insert(run, step);
            }
        }
        self.picture.data.extend(data);
        // The records came before the facts, and were looked at under the generations that are still the newest.
        let mut told: Vec<Event> =
            advanced.into_iter().filter_map(|(run, position)| self.advanced(&run, position)).collect();
        told.extend(events);
        if !told.is_empty() {
            self.apply(now, told).await?;
        }
        for worker in acknowledge {
            let sequence = self.connections.handled(worker);
            self.connections.send(worker, Command::Acknowledge { sequence });
        }
        left.into_iter().for_each(|worker| self.connections.close(worker));
        if !lines.is_empty() {
            self.write_lines(lines).await;
            self.publish();
        }
        Ok(())
    }

    /// The event that says how far the records of a run are durable.
    fn advanced(&self, run: &RunName, position: Position) -> Option<Event> {
        let generation = self.picture.run(run)?.generation;
        Some(Event::Advanced { trial: only_trial(run), generation, position })
    }

    /// Tells the engine what is durable, and does what it asks for.
    async fn apply(&mut self, now: Time, events: Vec<Event>) -> Result<(), Stopped> {
        let mut for_driver = ForDriver::default();
        let mut is_seen = false;
        for event in events {
            is_seen |= event.is_fact() || matches!(event, Event::Advanced { .. });
            self.note_spec(&event);
            for effect in self.engine.apply(now, event) {
                let specs = &self.picture.specs;
                let spec_of = |run: &RunName| specs.get(run).map(|spec| spec.as_ref().clone());
                effects::perform(effect, &self.hands, &self.connections, spec_of, now.0, &mut for_driver);
            }
        }
        let ForDriver { lines, roll_backs, committing } = for_driver;
        self.committing.extend(committing);
        for (run, step, generation) in roll_backs {
            let store = self.store.clone();
            self.until_durable(|| store.roll_back(&run, step, generation)).await?;
            if self.picture.newest.get(&run).is_some_and(|newest| newest.step > step) {
                self.read_newest(&run).await?;
            }
        }
        self.write_lines(lines).await;
        if is_seen {
            self.look();
            self.publish();
        }
        Ok(())
    }

    /// Does `work` again until the store takes it. Ends early if the coordinator is to end, or the store is broken.
    async fn until_durable<F, W>(&mut self, work: W) -> Result<(), Stopped>
    where
        W: Fn() -> F,
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut pause = STALL_PAUSE_MIN;
        let mut stalled = false;
        loop {
            match work().await {
                Ok(()) => break,
                Err(error) if may_pass(&error) => {
                    if !std::mem::replace(&mut stalled, true) {
                        error!(cause = %error, "the store cannot be written; workers go on, nothing is acknowledged");
                    }
                }
                Err(error) => return Err(error.into()),
            }
            self.refuse_requests_for(pause).await?;
            pause = (pause * 2).min(STALL_PAUSE_MAX);
        }
        if stalled {
            info!("the store can be written again");
        }
        Ok(())
    }

    async fn refuse_requests_for(&mut self, pause: Duration) -> Result<(), Stopped> {
        let end = tokio::time::sleep(pause);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                () = self.hands.shutdown.cancelled() => return Err(Stopped::Asked),
                () = &mut end => return Ok(()),
                Some(UserRequest { event: _, answer }) = self.requests.recv() => {
                    let _ = answer.send(Err(RequestError::Stalled));
                }
            }
        }
    }

    /// Lines are for people: if they cannot be written, training goes on.
    async fn write_lines(&self, lines: Vec<(RunName, NewLogLine)>) {
        let mut by_run: BTreeMap<RunName, Vec<NewLogLine>> = BTreeMap::new();
        for (run, line) in lines {
            by_run.entry(run).or_default().push(line);
        }
        if by_run.is_empty() {
            return;
        }
        let store = self.store.clone();
        let written = by_run.into_iter().map(|(run, lines)| {
            let store = &store;
            async move { store.append_log(&run, lines).await }
        });
        if let Err(error) = try_join_all(written).await {
            warn!(cause = %error, "log lines could not be written");
        }
    }

    async fn read_newest(&mut self, run: &RunName) -> Result<(), StoreError> {
        let Position { step, evaluated: _ } = self.store.newest_position(run).await?;
        self.picture.newest.remove(run);
        let Some(before) = step.0.checked_sub(1) else { return Ok(()) };
        for record in self.store.read_records(run, Step(before), 1).await? {
            if let Record::Step(step) = record {
                self.picture.newest.insert(run.clone(), step);
            }
        }
        Ok(())
    }

    // --- Showing ----------------------------------------------------------------------------------------------------

    fn note_spec(&mut self, event: &Event) {
        if let Event::Submitted { spec } = event {
            self.picture.specs.entry(spec.name.clone()).or_insert_with(|| Arc::new(spec.as_ref().clone()));
        }
    }

    /// Takes a new view of the engine, and cleans up behind runs that have just completed.
    fn look(&mut self) {
        let before = std::mem::replace(&mut self.picture.view, self.engine.view());
        let completed = |runs: &[RunView]| -> BTreeSet<RunName> {
            runs.iter().filter(|r| r.state == RunState::Completed).map(|r| r.name.clone()).collect()
        };
        for run in completed(&self.picture.view.runs).difference(&completed(&before.runs)) {
            let trial = only_trial(run);
            let saved = self.picture.run(run).into_iter().flat_map(|r| &r.checkpoints).map(|c| &c.manifest);
            let kept: BTreeSet<String> = saved.chain(&self.committing).cloned().collect();
            effects::sweep_in_background(&self.hands, trial, kept.into_iter().collect());
        }
        if before.workers.len() != self.picture.view.workers.len() {
            let known: BTreeSet<WorkerId> = self.picture.view.workers.iter().map(|w| w.info.id).collect();
            self.connections.forget_unless(|worker| known.contains(&worker));
        }
    }

    fn publish(&self) {
        self.publish.send_replace(Arc::new(self.picture.clone()));
    }
}

/// What is settled together.
#[derive(Debug, Default)]
struct Round {
    records: Vec<(RunName, Vec<Record>)>,
    /// How far the records that count go.
    advanced: BTreeMap<RunName, Position>,
    /// The newest step in `records` that counts.
    newest: BTreeMap<RunName, StepRecord>,
    data: BTreeMap<RunName, DataFacts>,
    /// In the order in which they came.
    events: Vec<Event>,
    /// Runs that a fact in `events` is about, but for evaluations.
    runs_with_facts: BTreeSet<RunName>,
    lines: Vec<(RunName, NewLogLine)>,
    /// Workers that sent something to be acknowledged.
    acknowledge: BTreeSet<WorkerId>,
    /// Workers whose streams are to end.
    left: Vec<WorkerId>,
}

impl Round {
    /// Records of a run wait until the facts about it that came before them are settled.
    fn must_settle_before(&self, message: &Message) -> bool {
        match message {
            Message::Reported { report: Report::Records { trial, .. }, .. } => {
                self.runs_with_facts.contains(&trial.run)
            }
            Message::Reported { .. } | Message::Attached { .. } | Message::Detached { .. } | Message::Happened(_) => {
                false
            }
        }
    }

    /// Adds a fact about a trial.
    fn push_fact(&mut self, event: Event) {
        if let Some(trial) = trial_of_event(&event) {
            self.runs_with_facts.insert(trial.run.clone());
        }
        self.events.push(event);
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whether the store may take the same thing later.
fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::DiskFull { .. } | StoreError::Io { .. })
}

/// Whether only the request at hand is the worse for it.
fn concerns_one_request(error: &StoreError) -> bool {
    may_pass(error) || matches!(error, StoreError::NotJournalable { .. } | StoreError::TooLarge { .. })
}

/// A job is a run with a single trial.
fn only_trial(run: &RunName) -> TrialId {
    TrialId { run: run.clone(), number: 0 }
}

fn measured(trial: &TrialId, eval: &EvalRecord) -> Event {
    Event::Measured {
        trial: trial.clone(),
        generation: eval.generation,
        step: eval.step,
        eval_loss: eval.loss.into(),
        eval_accuracy: eval.accuracy.into(),
    }
}

/// The figures of a step. Who read what is in the ledger.
fn without_reads(step: &StepRecord) -> StepRecord {
    StepRecord { reads: Vec::new(), ..step.clone() }
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
        | Report::DataOpened { trial, .. } => Some(trial),
        Report::Hello { .. } | Report::Heartbeat | Report::Goodbye => None,
    }
}

fn trial_of_event(event: &Event) -> Option<&TrialId> {
    match event {
        Event::Advanced { trial, .. }
        | Event::Formed { trial, .. }
        | Event::Broken { trial, .. }
        | Event::Measured { trial, .. }
        | Event::PartSaved { trial, .. }
        | Event::PartFailed { trial, .. }
        | Event::Committed { trial, .. }
        | Event::RollbackRequested { trial, .. }
        | Event::AttemptEnded { trial, .. } => Some(trial),
        Event::Restarted
        | Event::Submitted { .. }
        | Event::Joined { .. }
        | Event::Lost { .. }
        | Event::Alive { .. }
        | Event::StopRequested { .. }
        | Event::ResumeRequested { .. }
        | Event::DeadlinePassed { .. } => None,
    }
}

fn worker_line(worker: WorkerId, line: LogLine) -> NewLogLine {
    let LogLine { at_ms, level, text } = line;
    let level = if matches!(level.as_str(), "info" | "warn" | "error") { level } else { "info".to_owned() };
    NewLogLine { at_ms: at_ms.min(LATEST_MS), source: worker.short(), level, text }
}

/// The latest time that the store can hold.
const LATEST_MS: u64 = i64::MAX as u64;
