use std::ops::RangeInclusive;
use std::sync::Arc;

use domain::audit::AuditReport;
use domain::engine::Event;
use domain::ids::{Generation, RunName, Step, Time};
use domain::inspection::{Inspection, TensorHistograms};
use domain::picture::Picture;
use domain::record::Record;
use domain::results::{Goodput, Results};
use domain::search::study::Fact;
use domain::series::Sampler;
use domain::timeline::Moment;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::Failure;

/// What a [`Source`] gives when it is ready.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Failure>>;

/// Where the answers come from: the coordinator.
///
/// What is asked about a run is asked about one that the newest picture has. Pages are bounded by `limit`, which the
/// caller keeps small.
pub trait Source: Send + Sync + 'static {
    /// What can be seen, now and later. Ends with the coordinator.
    fn pictures(&self) -> watch::Receiver<Arc<Picture>>;

    /// The time, as events are stamped with it.
    fn now(&self) -> Time;

    /// How the sinks are doing.
    fn sinks(&self) -> Vec<SinkStanding>;

    /// All metrics in the text format of Prometheus.
    fn metrics(&self) -> String;

    /// The time line of the cluster, or of one run, and where to go on.
    fn moments(&self, start: Start, limit: usize, run: Option<RunName>) -> Answer<'_, (Vec<Moment>, u64)>;

    /// Lines of the log of a run or sweep, in their order, and where to go on if there may be more.
    fn log(&self, query: LogQuery) -> Answer<'_, (Vec<LogLine>, Option<u64>)>;

    /// The figures of a run's steps.
    fn series(&self, query: SeriesQuery) -> Answer<'_, Series>;

    /// How much of the time of a run's steps counts.
    fn goodput(&self, run: RunName) -> Answer<'_, Goodput>;

    /// The ledger of a run against its plan; nothing while a run has not read anything.
    fn audit(&self, run: RunName) -> Answer<'_, Option<Arc<AuditReport>>>;

    /// The layers of the newest checkpoint of a run; nothing before the first.
    fn model(&self, run: RunName) -> Answer<'_, Option<Vec<ModelLayer>>>;

    /// At which steps the inside of a run's model was looked at, as far as that is kept: by step, then by generation.
    fn inspections(&self, run: RunName) -> Answer<'_, Vec<InspectedAt>>;

    /// What was seen at a step by a generation, or without one by the one that counts; nothing where nothing was looked at.
    fn inspection(
        &self,
        run: RunName,
        step: Step,
        generation: Option<Generation>,
    ) -> Answer<'_, Option<(InspectedAt, Inspection)>>;

    /// What was seen of one tensor at the steps that count.
    fn histograms(&self, run: RunName, tensor: String) -> Answer<'_, Vec<(InspectedAt, TensorHistograms)>>;

    /// Steps of a run that count, and evaluations, after a step, in their order. Never ends between a step and its
    /// evaluation.
    fn records(&self, run: RunName, after: Step, limit: usize) -> Answer<'_, Vec<Record>>;

    /// What came of a sweep so far.
    fn results(&self, sweep: RunName) -> Answer<'_, Arc<Results>>;

    /// All that happened in a sweep.
    fn facts(&self, sweep: RunName) -> Answer<'_, Vec<Fact>>;

    /// Takes in what a user asks for; returns once it is durable and can be seen.
    fn take(&self, event: Event) -> Answer<'_, ()>;
}

/// How a sink is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SinkStanding {
    /// As it was named, without what may be secret.
    pub sink: String,
    /// Why it is not up to date.
    pub trouble: Option<String>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Option<u64>,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what follows this number.
    After(u64),
    /// So that it ends before this number.
    Before(u64),
    /// So that it ends with the newest.
    Newest,
}

/// Which lines of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The run or sweep.
    pub run: RunName,
    /// Where to begin.
    pub start: Start,
    /// At most so many.
    pub limit: usize,
    /// Only those whose text has this in it, whatever the case of ASCII letters.
    pub search: Option<String>,
    /// Only those of this source.
    pub source: Option<String>,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LogLine {
    /// Its place in the log.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// `coordinator`, or the short id of a worker.
    pub source: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened.
    pub text: String,
}

/// Which steps of a run, and how finely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesQuery {
    /// The run.
    pub run: RunName,
    /// The steps.
    pub steps: RangeInclusive<u64>,
    /// At most so many points.
    pub points: usize,
}

/// The figures of steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Those that count.
    pub live: Sampler,
    /// Those that were taken back, by the generation that made them.
    pub rolled_back: Vec<(Generation, Sampler)>,
    /// Grows when a step is added or taken back.
    pub version: u64,
}

/// A tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ModelLayer {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its elements.
    pub parameters: u64,
}

/// When the inside of a model was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InspectedAt {
    /// The step.
    pub step: u64,
    /// The generation that made it.
    pub generation: u64,
    /// Whether the run later went back to a state before it.
    pub rolled_back: bool,
    /// When it was stored, in milliseconds since the Unix epoch.
    pub at: u64,
}
