//! Spans whose identities and times are known before they are told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanEvents, SpanLinks, SpanProcessor};

/// A stretch of time that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedSpan {
    /// The trace it belongs to; not all zero.
    pub trace: [u8; 16],
    /// Its own identity; not all zero.
    pub id: [u8; 8],
    /// What it is a part of.
    pub parent: Option<[u8; 8]>,
    /// What people see.
    pub name: String,
    /// By the clock on the wall.
    pub begin: SystemTime,
    /// By the same clock.
    pub end: SystemTime,
    /// What else is known of it.
    pub attributes: Vec<KeyValue>,
}

/// The way to the collector for spans that are over. Clones lead to the same place.
#[derive(Clone, Debug)]
pub struct Spans {
    processor: Arc<dyn SpanProcessor>,
    scope: InstrumentationScope,
}

impl Spans {
    pub(crate) fn new(processor: Arc<dyn SpanProcessor>) -> Self {
        Self { processor, scope: InstrumentationScope::builder("phalanx").build() }
    }

    /// Puts a span into the queue, or counts it as lost if that is full. Never waits.
    pub fn send(&self, span: FinishedSpan) {
        let FinishedSpan { trace, id, parent, name, begin, end, attributes } = span;
        let (trace, id) = (TraceId::from_bytes(trace), SpanId::from_bytes(id));
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: begin,
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        });
    }
}

/// A processor that [`Spans`] hold too. Its resource is set before.
#[derive(Debug)]
pub(crate) struct Shared<P>(pub(crate) Arc<P>);

impl<P: SpanProcessor> SpanProcessor for Shared<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
}
