//! A bound for what waits, and a count of what is lost, around the batches of the SDK.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::logs::Severity;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use tracing::warn;

/// Records of one kind that wait, those under way included: some ten megabytes.
pub(crate) const QUEUE_MAX: usize = 16_384;

/// How many records of one kind wait, and how many were lost.
#[derive(Debug)]
pub(crate) struct Queue {
    what: &'static str,
    endpoint: String,
    waiting: AtomicUsize,
    lost: AtomicU64,
    is_told: AtomicBool,
    is_ending: AtomicBool,
}

impl Queue {
    pub(crate) fn new(what: &'static str, endpoint: String) -> Self {
        Self {
            what,
            endpoint,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        }
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The process ends: what cannot be delivered at once now is given up.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Nothing is delivered any more.
    pub(crate) fn give_up(&self) {
        let left = self.waiting.swap(0, Ordering::Relaxed);
        self.lost.fetch_add(left as u64, Ordering::Relaxed);
    }

    /// Whether there is room for one more. It says nothing if not: whoever is here may be in the middle of an event.
    fn enter(&self) -> bool {
        let more = |waiting| (waiting < QUEUE_MAX).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if !entered {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    /// So many have left, with this result.
    fn left(&self, count: usize, result: &OTelSdkResult) {
        let less = |waiting: usize| Some(waiting.saturating_sub(count));
        // It always gives something to put in its place.
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if let Err(cause) = result {
            self.lost.fetch_add(count as u64, Ordering::Relaxed);
            self.tell(cause);
        } else if self.lost() > 0 {
            self.tell(&"more came than could be delivered");
        }
    }

    /// Once: that it goes on like this can be seen in the count.
    fn tell(&self, cause: &dyn fmt::Display) {
        if !self.is_told.swap(true, Ordering::Relaxed) {
            let Self { what, endpoint, .. } = self;
            warn!(endpoint, %cause, "{what} are lost on their way to the collector, which is not said again");
        }
    }
}

/// Lets so many records into a processor of the SDK that it never has to drop one unseen.
#[derive(Debug)]
pub(crate) struct Bounded<P> {
    inner: P,
    queue: Arc<Queue>,
}

impl<P> Bounded<P> {
    pub(crate) fn new(inner: P, queue: Arc<Queue>) -> Self {
        Self { inner, queue }
    }
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queue.enter() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Bounded<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.queue.enter() {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what an exporter of the SDK delivers and what not.
#[derive(Debug)]
pub(crate) struct Counted<E> {
    inner: E,
    queue: Arc<Queue>,
    /// A delivery has failed since the process began to end.
    has_given_up: AtomicBool,
}

impl<E> Counted<E> {
    pub(crate) fn new(inner: E, queue: Arc<Queue>) -> Self {
        Self { inner, queue, has_given_up: AtomicBool::new(false) }
    }

    /// Delivers `count` records by `deliver`, unless the process ends and the collector was not there a moment ago.
    async fn count(&self, count: usize, deliver: impl Future<Output = OTelSdkResult>) -> OTelSdkResult {
        let result = match self.has_given_up.load(Ordering::Relaxed) {
            true => Err(OTelSdkError::AlreadyShutdown),
            false => deliver.await,
        };
        if result.is_err() && self.queue.is_ending.load(Ordering::Relaxed) {
            self.has_given_up.store(true, Ordering::Relaxed);
        }
        self.queue.left(count, &result);
        result
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.count(batch.len(), self.inner.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counted<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        self.count(batch.iter().count(), self.inner.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.inner.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_a_bound_and_counts_what_does_not_fit() {
        let queue = Queue::new("spans", "http://nowhere".to_owned());
        assert!((0..QUEUE_MAX).all(|_| queue.enter()));
        assert!(!queue.enter() && !queue.enter());
        assert_eq!(queue.lost(), 2);
        queue.left(10, &Ok(()));
        assert!((0..10).all(|_| queue.enter()));
        assert!(!queue.enter());
        queue.left(5, &Err(OTelSdkError::AlreadyShutdown));
        assert_eq!(queue.lost(), 2 + 1 + 5);
        queue.give_up();
        assert_eq!(queue.lost(), 8 + QUEUE_MAX as u64 - 5);
    }
}
