//! Starting again: what the journal tells, and what became durable without it.

use std::sync::Arc;

use domain::engine::Event;
use domain::picture::RunPicture;
use domain::record::Record;
use store::{JournalEntry, PAGE_MAX};
use tracing::info;

use super::reports::measured;
use super::round::Round;
use super::{Driver, Stopped, only_trial};

impl Driver {
    /// Applies the journal. What it led to was done, or will be asked for again.
    pub(super) fn replay(&mut self, journal: Vec<JournalEntry>) {
        let events = journal.len();
        for JournalEntry { sequence: _, at, event } in journal {
            let _done_then = self.engine.apply(at, event);
        }
        let _completed_then = self.take_over();
        if events > 0 {
            info!(events, runs = self.picture.runs().len(), "journal replayed");
        }
    }

    /// Asks the engine what may have been left undone, and tells it what became durable without its knowledge.
    pub(super) async fn reconcile(&mut self) -> Result<(), Stopped> {
        self.settle(Round { events: vec![Event::Restarted], ..Round::default() }).await?;
        let runs: Vec<Arc<RunPicture>> = self.picture.runs().cloned().collect();
        for run in runs {
            let name = &run.view.name;
            if let Some(data) = self.store.data_facts(name).await? {
                self.picture.set_data(name, data);
            }
            self.read_newest(name).await?;
            let round = self.what_the_engine_missed(&run).await?;
            self.settle(round).await?;
        }
        Ok(())
    }

    /// How far a run's records go, and evaluations whose record is durable but whose fact is not: the process may have
    /// ended between the two, and the worker that would tell it again may be gone.
    async fn what_the_engine_missed(&self, run: &RunPicture) -> Result<Round, Stopped> {
        let mut round = Round::default();
        let run = &run.view;
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
}
