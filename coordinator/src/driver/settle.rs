//! Settling a round: durable, told, done, seen, acknowledged, in this order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::engine::{Deadline, Event, LossCause};
use domain::ids::{RunName, Step, Time, WorkerId};
use domain::picture::Stall;
use domain::record::{Position, Record};
use futures::future::try_join_all;
use proto::convert::Command;
use store::{NewLogLine, StoreError};
use tokio::time::Instant;
use tracing::{Instrument, error, info, warn};

use crate::effects::{self, ForDriver};
use crate::spans;

use super::round::Round;
use super::{Driver, Stopped, only_trial};

/// The first pause before the store is tried again; it doubles up to [`STALL_PAUSE_MAX`].
const STALL_PAUSE_MIN: Duration = Duration::from_millis(100);
/// A disk that was cleared is found within a second.
const STALL_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Driver {
    /// Makes a round durable, tells the engine, does what it asks for, shows it, acknowledges it.
    pub(super) async fn settle(&mut self, round: Round) -> Result<(), Stopped> {
        let span = self.rounds.span(&round);
        self.settle_within(round).instrument(span).await
    }

    async fn settle_within(&mut self, round: Round) -> Result<(), Stopped> {
        let Round {
            records,
            inspections,
            advanced,
            newest,
            data,
            vitals,
            events,
            alive: _,
            runs_with_facts: _,
            lines,
            acknowledge,
            left,
        } = round;
        let store = self.store.clone();
        let now = self.clock.now();
        self.until_durable(|| async {
            // Whoever reads the records finds what their data hold.
            for (run, data) in &data {
                store.set_data_facts(run, *data).await?;
            }
            // Whoever reads a step finds what was seen at it.
            let seen = inspections.iter().map(|(run, seen)| store.insert_inspection(run, now, seen.clone()));
            try_join_all(seen).await?;
            try_join_all(records.iter().map(|(run, records)| store.insert_records(run, now, records.clone()))).await?;
            Ok(())
        })
        .instrument(spans::part("store records"))
        .await?;
        let now = self.clock.now();
        let facts: Vec<(Time, Event)> = events.iter().filter(|e| e.is_fact()).map(|e| (now, e.clone())).collect();
        if !facts.is_empty() {
            let began = Instant::now();
            self.until_durable(|| store.append(facts.clone())).instrument(spans::part("journal")).await?;
            self.metrics.journalled(facts.len(), began.elapsed());
        }
        for (run, data) in data {
            self.picture.set_data(&run, data);
        }
        self.observe_records(&records);
        self.observe_losses(&events);
        for (run, step) in newest {
            if self.newest_step(&run).is_none_or(|known| known < step.step) {
                self.picture.set_newest(&run, Some(step));
            }
        }
        // The records came before the facts, and were looked at under the generations that are still the newest.
        let mut told: Vec<Event> =
            advanced.into_iter().filter_map(|(run, position)| self.advanced(&run, position)).collect();
        told.extend(events);
        if !told.is_empty() {
            self.apply(now, told).await?;
        }
        let shown = self.picture.version();
        inspections.iter().for_each(|(run, _)| self.picture.touch(run));
        vitals.into_iter().for_each(|(worker, vitals)| self.picture.set_vitals(worker, vitals));
        if self.picture.version() > shown {
            self.publish();
        }
        for worker in acknowledge {
            let sequence = self.connections.handled(worker);
            self.connections.send(worker, Command::Acknowledge { sequence });
        }
        left.into_iter().for_each(|worker| self.connections.close(worker));
        if !lines.is_empty() {
            let runs: BTreeSet<RunName> = lines.iter().map(|(run, _)| run.clone()).collect();
            self.write_lines(lines).await;
            runs.iter().for_each(|run| self.picture.touch(run));
            self.publish();
        }
        Ok(())
    }

    /// Counts what was stored, and each new step once.
    fn observe_records(&self, records: &[(RunName, Vec<Record>)]) {
        let mut seen: BTreeMap<&RunName, Step> = BTreeMap::new();
        for (name, records) in records {
            self.metrics.records_stored.increment(records.len() as u64);
            let Some(run) = self.picture.run(name) else { continue };
            let newest = seen.entry(name).or_insert_with(|| self.newest_step(name).unwrap_or_default());
            for record in records {
                if let Record::Step(step) = record
                    && step.step > *newest
                    && self.engine.counts(name, step.generation, step.step)
                {
                    self.metrics.step(step, run.samples_of(step));
                    *newest = step.step;
                }
            }
        }
    }

    /// Counts the workers that are gone.
    fn observe_losses(&self, events: &[Event]) {
        let is_known = |id: &WorkerId| self.picture.workers().iter().any(|worker| worker.info.id == *id);
        for event in events {
            match event {
                Event::Lost { worker, cause } if is_known(worker) => self.metrics.lost(cause),
                Event::DeadlinePassed { deadline: Deadline::Lease { worker } } if is_known(worker) => {
                    self.metrics.lost(&LossCause::LeaseExpired { lease_ms: self.timing.lease_ms });
                }
                _ => {}
            }
        }
    }

    /// The event that says how far the records of a run are durable.
    fn advanced(&self, run: &RunName, position: Position) -> Option<Event> {
        let generation = self.picture.run(run)?.view.generation;
        Some(Event::Advanced { trial: only_trial(run), generation, position })
    }

    /// Tells the engine what is durable, and does what it asks for.
    pub(super) async fn apply(&mut self, now: Time, events: Vec<Event>) -> Result<(), Stopped> {
        let mut for_driver = ForDriver::default();
        let mut is_seen = false;
        let deciding = spans::part("decide").entered();
        for event in events {
            is_seen |= event.is_fact() || matches!(event, Event::Advanced { .. });
            let effects = self.engine.apply(now, event);
            let engine = &self.engine;
            for effect in effects {
                let spec_of = |run: &RunName| engine.spec(run).cloned();
                effects::perform(effect, &self.hands, &self.connections, spec_of, now.0, &mut for_driver);
            }
        }
        drop(deciding);
        let ForDriver { lines, roll_backs, committing } = for_driver;
        self.committing.extend(committing);
        for (run, step, generation) in roll_backs {
            let store = self.store.clone();
            self.until_durable(|| store.roll_back(&run, step, generation)).await?;
            if self.newest_step(&run).is_some_and(|newest| newest > step) {
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
                        let since = self.clock.now();
                        self.picture.set_stall(Some(Stall { cause: error.to_string(), since }));
                        self.publish();
                    }
                }
                Err(error) => return Err(error.into()),
            }
            self.refuse_requests_for(pause).await?;
            pause = (pause * 2).min(STALL_PAUSE_MAX);
        }
        if stalled {
            info!("the store can be written again");
            self.picture.set_stall(None);
            self.publish();
        }
        Ok(())
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

    pub(super) async fn read_newest(&mut self, run: &RunName) -> Result<(), StoreError> {
        let Position { step, evaluated: _ } = self.store.newest_position(run).await?;
        let mut newest = None;
        if let Some(before) = step.0.checked_sub(1) {
            for record in self.store.read_records(run, Step(before), 1).await? {
                if let Record::Step(step) = record {
                    newest = Some(step);
                }
            }
        }
        self.picture.set_newest(run, newest);
        Ok(())
    }

    /// The newest step of a run whose record is durable.
    fn newest_step(&self, run: &RunName) -> Option<Step> {
        self.picture.run(run)?.newest.as_ref().map(|newest| newest.step)
    }
}

/// Whether the store may take the same thing later.
pub(super) fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::DiskFull { .. } | StoreError::Io { .. })
}
