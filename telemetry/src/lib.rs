//! What a process tells an OpenTelemetry collector: its log and spans of what it does, by OTLP over gRPC.
//!
//! Start at [`Telemetry`]. Its [`layer`](Telemetry::layer) takes events of `tracing` as log records, and spans with the
//! target [`SPANS`] as spans; [`Spans`] takes spans that are over and have identities of their own. Nothing here holds
//! anybody up: what waits for the collector has a bound, what does not fit or cannot be delivered is counted and gone
//! ([`Lost`]), and the end of a process waits for at most [`FLUSH_LIMIT`].

mod bound;
mod endpoint;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{ExporterBuildError, LogExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogBatches, BatchLogProcessor, SdkLoggerProvider};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder as SpanBatches, BatchSpanProcessor, SdkTracerProvider, SpanProcessor,
};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::bound::{Bounded, Counted, QUEUE_MAX, Queue};
use crate::spans::Shared;

pub use crate::endpoint::{Endpoint, EndpointError};
pub use crate::spans::{FinishedSpan, Spans};
pub use opentelemetry::KeyValue;

/// The target of spans that go to the collector. What others open as spans of `tracing` stays in the process.
pub const SPANS: &str = "phalanx::span";

/// How long the end of a process waits for the collector to take the rest.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How long one delivery may take, trying again included.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);

/// Records are on their way after this time at the latest.
const DELAY: Duration = Duration::from_secs(1);

/// Records of one delivery: a few hundred kilobytes, far below the 4 MiB that collectors take.
const BATCH_MAX: usize = 512;

/// Whose events come of the delivery itself: to deliver them too would never end.
const OF_THE_DELIVERY: [&str; 10] = [
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "h2",
    "hyper",
    "hyper_util",
    "tonic",
    "tower",
    "telemetry",
    "want",
];

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
#[error("cannot export to {endpoint}")]
pub struct TelemetryError {
    endpoint: Endpoint,
    source: ExporterBuildError,
}

/// The way to a collector. End it with [`Telemetry::end`], or what still waits is gone.
#[derive(Debug)]
pub struct Telemetry {
    endpoint: Endpoint,
    tracers: SdkTracerProvider,
    loggers: SdkLoggerProvider,
    spans: Spans,
    lost: Lost,
}

impl Telemetry {
    /// The way to the collector at `endpoint` for the process `instance`: a worker's id, or `coordinator`. Must be called
    /// inside a tokio runtime with threads of its own, which carries the connections. Connects when there is something to
    /// tell; a collector that is not there is no error.
    ///
    /// What OpenTelemetry's own variables say of headers (`OTEL_EXPORTER_OTLP_HEADERS`) and of the resource
    /// (`OTEL_RESOURCE_ATTRIBUTES`) holds.
    pub fn start(endpoint: &Endpoint, instance: &str) -> Result<Self, TelemetryError> {
        let failed = |source| TelemetryError { endpoint: endpoint.clone(), source };
        let to_spans = SpanExporter::builder().with_tonic().with_endpoint(endpoint.url()).with_timeout(EXPORT_LIMIT);
        let to_logs = LogExporter::builder().with_tonic().with_endpoint(endpoint.url()).with_timeout(EXPORT_LIMIT);
        let resource = Resource::builder()
            .with_service_name("phalanx")
            .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
            .build();

        let span_queue = Arc::new(Queue::new("spans", endpoint.to_string()));
        let exporter = Counted::new(to_spans.build().map_err(failed)?, span_queue.clone());
        let batches = SpanBatches::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(DELAY)
            .build();
        let mut batching = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        // The processor is shared below, and then takes no resource any more.
        batching.set_resource(&resource);
        let processor = Arc::new(Bounded::new(batching, span_queue.clone()));
        let tracers = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_span_processor(Shared(processor.clone()))
            .build();

        let log_queue = Arc::new(Queue::new("log records", endpoint.to_string()));
        let exporter = Counted::new(to_logs.build().map_err(failed)?, log_queue.clone());
        let batches = LogBatches::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(DELAY)
            .build();
        let batching = BatchLogProcessor::builder(exporter).with_batch_config(batches).build();
        let loggers = SdkLoggerProvider::builder()
            .with_resource(resource)
            .with_log_processor(Bounded::new(batching, log_queue.clone()))
            .build();

        let (spans, lost) = (Spans::new(processor), Lost { spans: span_queue, logs: log_queue });
        Ok(Self { endpoint: endpoint.clone(), tracers, loggers, spans, lost })
    }

    /// Takes what happens in the process: events as log records, from `info` on or as `RUST_LOG` says, and the spans with the
    /// target [`SPANS`]. Events of the connection's own crates stay here, whoever's connection it is.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let spans = tracing_opentelemetry::layer()
            .with_tracer(self.tracers.tracer("phalanx"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false);
        let spans_of_ours = filter_fn(|metadata| metadata.is_span() && metadata.target() == SPANS)
            .with_max_level_hint(LevelFilter::INFO);
        let chosen = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
        let of_others =
            filter_fn(|metadata| !is_of_the_delivery(metadata.target())).with_max_level_hint(LevelFilter::TRACE);
        let logs = OpenTelemetryTracingBridge::new(&self.loggers).with_filter(chosen.and(of_others));
        spans.with_filter(spans_of_ours).and_then(logs)
    }

    /// The way for spans that are over.
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Counts what did not get there, now and later.
    pub fn lost(&self) -> Lost {
        self.lost.clone()
    }

    /// Where it goes.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Delivers what still waits, and counts what cannot be delivered within [`FLUSH_LIMIT`] as lost. Blocks; the runtime must
    /// still be there, and must not be the caller's.
    pub fn end(self) -> Lost {
        let Self { endpoint: _, tracers, loggers, spans: _, lost } = self;
        lost.queues().for_each(Queue::end);
        // Beside each other, so that the limit is one for both. That it was reached shows in what is lost.
        std::thread::scope(|scope| {
            scope.spawn(|| tracers.shutdown_with_timeout(FLUSH_LIMIT));
            let _ = loggers.shutdown_with_timeout(FLUSH_LIMIT);
        });
        lost.queues().for_each(Queue::give_up);
        lost
    }
}

fn is_of_the_delivery(target: &str) -> bool {
    let of = target.split("::").next().unwrap_or_default();
    OF_THE_DELIVERY.contains(&of)
}

/// Counts what did not get to the collector. Clones count the same.
#[derive(Clone, Debug)]
pub struct Lost {
    spans: Arc<Queue>,
    logs: Arc<Queue>,
}

impl Lost {
    /// Spans so far.
    pub fn spans(&self) -> u64 {
        self.spans.lost()
    }

    /// Log records so far.
    pub fn logs(&self) -> u64 {
        self.logs.lost()
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        [&*self.spans, &*self.logs].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_delivery_are_known_by_their_crate() {
        for target in
            ["h2::codec::framed_write", "tonic", "opentelemetry_sdk", "telemetry::bound", "hyper_util::client"]
        {
            assert!(is_of_the_delivery(target), "{target}");
        }
        for target in ["coordinator::run", "worker", "h2o", "sinks::http", "tonics::x"] {
            assert!(!is_of_the_delivery(target), "{target}");
        }
    }
}
