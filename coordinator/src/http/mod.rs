//! What the dashboard shows, from the picture, the store and the driver.

mod fresh;
mod records;
mod samplers;

use std::sync::Arc;
use std::time::Duration;

use dashboard::{
    Answer, Failure, InspectedAt, LogLine, LogQuery, ModelLayer, Series, SeriesQuery, SinkStanding, Source, Start,
};
use domain::audit::AuditReport;
use domain::engine::Event;
use domain::ids::{Generation, RunName, Step, Time};
use domain::inspection::{Inspection, TensorHistograms};
use domain::picture::{Picture, RunPicture};
use domain::record::Record;
use domain::results::{self, Goodput, Results};
use domain::search::study::Fact;
use domain::timeline::{self, Moment, OfRun};
use sinks::{Board, Standing};
use store::{CheckpointStore, InspectionEntry, Layer, LogFilter, LogPage, PAGE_MAX, Store, StoreError};
use tokio::sync::watch;

use self::fresh::Fresh;
use self::samplers::Samplers;
use crate::clock::Clock;
use crate::driver::Handle;
use crate::metrics::Metrics;
use crate::status;

/// What came of a sweep may be this old: it takes time to make, and a sweep changes all the time.
const RESULTS_AGE: Duration = Duration::from_secs(1);
/// An audit reads a whole ledger.
const AUDIT_AGE: Duration = Duration::from_secs(5);
/// Entries of the journal that are looked at for one page of the time line.
const ENTRIES_MAX: u64 = 20_000;
/// Of them, those that are read at once: many have nothing to show.
const ENTRIES_AT_ONCE: usize = 500;

/// Answers the dashboard.
#[derive(Debug)]
pub(crate) struct HttpSource {
    driver: Handle,
    store: Store,
    checkpoints: CheckpointStore,
    clock: Clock,
    metrics: Metrics,
    sinks: Board,
    results: Fresh<Results>,
    audits: Fresh<AuditReport>,
    samplers: Samplers,
}

impl HttpSource {
    pub(crate) fn new(
        driver: Handle,
        store: Store,
        checkpoints: CheckpointStore,
        clock: Clock,
        metrics: Metrics,
        sinks: Board,
    ) -> Self {
        let (results, audits) = (Fresh::new(RESULTS_AGE), Fresh::new(AUDIT_AGE));
        Self { driver, store, checkpoints, clock, metrics, sinks, results, audits, samplers: Samplers::default() }
    }

    fn picture(&self) -> Arc<Picture> {
        self.driver.picture().borrow().clone()
    }

    fn run(&self, name: &RunName) -> Result<Arc<RunPicture>, Failure> {
        let run = self.picture().run(name).cloned();
        run.ok_or_else(|| status::failure(&status::no_run(name)))
    }

    async fn results_of(&self, name: RunName) -> Result<Arc<Results>, Failure> {
        let picture = self.picture();
        let sweep = picture.sweep(&name).ok_or_else(|| status::failure(&status::no_sweep(&name)))?.clone();
        let changed = sweep.changed;
        self.results
            .get(name.clone(), changed, async || {
                let facts = self.facts_of(name.clone()).await?;
                let efforts = self.store.efforts(&name).await.map_err(of_store)?;
                // Which parameters mattered takes many sums.
                let made = tokio::task::spawn_blocking(move || results::of_sweep(&picture, &sweep, &facts, &efforts));
                Ok(made.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())))
            })
            .await
    }

    async fn facts_of(&self, sweep: RunName) -> Result<Vec<Fact>, Failure> {
        self.driver.sweep_facts(sweep).await.map_err(|e| status::failure(&status::of_request(&e)))
    }

    /// Moments after a place in the journal, and the place that was looked at last.
    async fn moments_after(
        &self,
        after: u64,
        limit: usize,
        run: Option<&RunName>,
    ) -> Result<(Vec<Moment>, u64), StoreError> {
        let (mut moments, mut next) = (Vec::new(), after);
        let picture = self.picture();
        let groups = run.and_then(|run| picture.run(run)).map_or(&[][..], |run| run.view.groups.as_slice());
        let mut of_run = run.map(|run| OfRun::new(run, groups));
        while moments.len() < limit && next.saturating_sub(after) < ENTRIES_MAX {
            let entries = self.store.read_journal(next, limit.max(ENTRIES_AT_ONCE)).await?;
            let Some(last) = entries.last() else { break };
            next = last.sequence;
            let told = entries.iter().filter_map(|entry| timeline::moment(entry.sequence, entry.at, &entry.event));
            moments.extend(told.filter(|moment| of_run.as_mut().is_none_or(|run| run.is_about(moment))));
        }
        timeline::without_echoes(&mut moments);
        if moments.len() > limit {
            moments.truncate(limit);
            next = moments.last().map_or(next, |last| last.sequence);
        }
        Ok((moments, next))
    }

    /// The last moments before a place in the journal.
    async fn moments_before(
        &self,
        end: u64,
        limit: usize,
        run: Option<&RunName>,
    ) -> Result<(Vec<Moment>, u64), StoreError> {
        let newest = self.store.newest_entry().await?.min(end.saturating_sub(1));
        let mut window = (4 * limit as u64).max(ENTRIES_AT_ONCE as u64);
        loop {
            let start = newest.saturating_sub(window);
            let (mut moments, _) = self.moments_after(start, window as usize, run).await?;
            moments.retain(|moment| moment.sequence < end);
            if moments.len() >= limit || start == 0 || window >= ENTRIES_MAX {
                moments.drain(..moments.len().saturating_sub(limit));
                return Ok((moments, newest));
            }
            window *= 4;
        }
    }

    async fn lines(&self, query: LogQuery) -> Result<(Vec<LogLine>, Option<u64>), StoreError> {
        let LogQuery { run, start, limit, search, source } = query;
        let at = match start {
            Start::After(after) => LogPage::After(after),
            Start::Before(end) => LogPage::Before(end),
            Start::Newest => LogPage::Newest,
        };
        let filter = LogFilter { text: search, source };
        let lines = self.store.search_log(&run, at, limit.min(PAGE_MAX), filter).await?;
        let is_full = lines.len() >= limit && matches!(start, Start::After(_));
        let next = lines.last().map(|line| line.sequence).filter(|_| is_full);
        let line = |line: store::LogLine| {
            let store::LogLine { sequence, at_ms, source, level, text } = line;
            LogLine { sequence, at: at_ms, source, level, text }
        };
        Ok((lines.into_iter().map(line).collect(), next))
    }

    async fn layers(&self, name: RunName) -> Result<Option<Vec<ModelLayer>>, Failure> {
        let run = self.run(&name)?;
        let Some(newest) = run.view.checkpoints.last() else { return Ok(None) };
        let layers = self.checkpoints.layers(&newest.manifest, &newest.blake3).await;
        let layers = layers.map_err(|e| status::failure(&status::of_checkpoint(&e)))?;
        let layer = |Layer { name, shape }| ModelLayer { parameters: shape.iter().product(), name, shape };
        Ok(Some(layers.into_iter().map(layer).collect()))
    }
}

fn of_store(error: StoreError) -> Failure {
    status::failure(&status::of_store(&error))
}

fn inspected_at(entry: InspectionEntry) -> InspectedAt {
    let InspectionEntry { sequence: _, step, generation, rolled_back, at } = entry;
    InspectedAt { step: step.0, generation: generation.0, rolled_back, at: at.0 }
}

impl Source for HttpSource {
    fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.driver.picture()
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn sinks(&self) -> Vec<SinkStanding> {
        let shown = |Standing { sink, trouble }| {
            let (trouble, since) = trouble.unzip();
            SinkStanding { sink, trouble, since }
        };
        self.sinks.standings().into_iter().map(shown).collect()
    }

    fn metrics(&self) -> String {
        self.metrics.render(&self.picture(), self.sinks.troubled())
    }

    fn moments(&self, start: Start, limit: usize, run: Option<RunName>) -> Answer<'_, (Vec<Moment>, u64)> {
        Box::pin(async move {
            let moments = match start {
                Start::After(after) => self.moments_after(after, limit, run.as_ref()).await,
                Start::Before(end) => self.moments_before(end, limit, run.as_ref()).await,
                Start::Newest => self.moments_before(u64::MAX, limit, run.as_ref()).await,
            };
            moments.map_err(of_store)
        })
    }

    fn log(&self, query: LogQuery) -> Answer<'_, (Vec<LogLine>, Option<u64>)> {
        Box::pin(async move { self.lines(query).await.map_err(of_store) })
    }

    fn series(&self, query: SeriesQuery) -> Answer<'_, Series> {
        Box::pin(async move {
            let run = self.run(&query.run)?;
            records::series(&self.store, &self.samplers, &run, query).await.map_err(of_store)
        })
    }

    fn goodput(&self, run: RunName) -> Answer<'_, Goodput> {
        Box::pin(async move { self.store.goodput(&run).await.map_err(of_store) })
    }

    fn audit(&self, name: RunName) -> Answer<'_, Option<Arc<AuditReport>>> {
        Box::pin(async move {
            let run = self.run(&name)?;
            let Some(plan) = run.plan() else { return Ok(None) };
            let changed = run.changed;
            let made = self.audits.get(name, changed, async || records::audit(&self.store, &run, plan).await);
            made.await.map(Some)
        })
    }

    fn model(&self, run: RunName) -> Answer<'_, Option<Vec<ModelLayer>>> {
        Box::pin(self.layers(run))
    }

    fn inspections(&self, run: RunName) -> Answer<'_, Vec<InspectedAt>> {
        Box::pin(async move {
            let entries = self.store.inspections(&run).await.map_err(of_store)?;
            Ok(entries.into_iter().map(inspected_at).collect())
        })
    }

    fn inspection(
        &self,
        run: RunName,
        step: Step,
        generation: Option<Generation>,
    ) -> Answer<'_, Option<(InspectedAt, Inspection)>> {
        Box::pin(async move {
            let found = self.store.inspection(&run, step, generation).await.map_err(of_store)?;
            Ok(found.map(|(entry, inspection)| (inspected_at(entry), inspection)))
        })
    }

    fn histograms(&self, run: RunName, tensor: String) -> Answer<'_, Vec<(InspectedAt, TensorHistograms)>> {
        Box::pin(async move {
            let found = self.store.histograms(&run, tensor).await.map_err(of_store)?;
            Ok(found.into_iter().map(|(entry, tensor)| (inspected_at(entry), tensor)).collect())
        })
    }

    fn records(&self, run: RunName, after: Step, limit: usize) -> Answer<'_, Vec<Record>> {
        Box::pin(async move { self.store.read_records(&run, after, limit).await.map_err(of_store) })
    }

    fn results(&self, sweep: RunName) -> Answer<'_, Arc<Results>> {
        Box::pin(self.results_of(sweep))
    }

    fn facts(&self, sweep: RunName) -> Answer<'_, Vec<Fact>> {
        Box::pin(self.facts_of(sweep))
    }

    fn take(&self, event: Event) -> Answer<'_, ()> {
        Box::pin(async move { self.driver.request(event).await.map_err(|e| status::failure(&status::of_request(&e))) })
    }
}
