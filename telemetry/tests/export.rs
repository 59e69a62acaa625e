//! What a process tells, as a collector hears it; and what becomes of it when there is none.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must say where")]

mod collector;

use std::net::TcpListener;
use std::time::{Duration, Instant, SystemTime};

use telemetry::{FLUSH_LIMIT, FinishedSpan, KeyValue, SPANS, Telemetry};
use tokio::runtime::Runtime;
use tracing::{error, info, info_span, warn};
use tracing_subscriber::layer::SubscriberExt;

use collector::{Collector, attribute, text};

fn start(url: &str) -> (Runtime, Telemetry) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let inside = runtime.enter();
    let telemetry = Telemetry::start(&url.parse().unwrap(), "0000000000000007").unwrap();
    drop(inside);
    (runtime, telemetry)
}

fn span(id: u8, parent: Option<u8>) -> FinishedSpan {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_764_370_000_000_000_001);
    FinishedSpan {
        trace: [1; 16],
        id: [id; 8],
        parent: parent.map(|id| [id; 8]),
        name: format!("span {id}"),
        begin,
        end: begin + Duration::from_nanos(500),
        attributes: vec![KeyValue::new("phalanx.step", 12)],
    }
}

#[test]
fn a_collector_hears_of_events_and_spans_and_whose_they_are() {
    let collector = Collector::start();
    let (_runtime, telemetry) = start(&collector.url());
    let subscriber = tracing_subscriber::registry().with(telemetry.layer());
    tracing::subscriber::with_default(subscriber, || {
        info!(target: "worker::attempt", rank = 1, trial = %"digits/0", "group formed");
        warn!(target: "h2::client", "this comes of the delivery");
        tracing::debug!(target: "worker::attempt", "too fine");
        let outer = info_span!(target: SPANS, "round", phalanx.facts = 2);
        let _in = outer.enter();
        let _inner = info_span!(target: SPANS, "part", otel.name = "decide").entered();
        let _not_ours = info_span!(target: "h2::codec", "frame").entered();
        error!(target: "coordinator::driver", "in a span");
    });
    telemetry.spans().send(span(1, None));
    telemetry.spans().send(span(2, Some(1)));
    let lost = telemetry.end();
    assert_eq!((lost.spans(), lost.logs()), (0, 0));

    let logs = collector.logs();
    let shown: Vec<_> = logs
        .iter()
        .map(|log| (&*log.target, &*log.record.severity_text, text(log.record.body.as_ref()).unwrap()))
        .collect();
    let expected = [("worker::attempt", "INFO", "group formed"), ("coordinator::driver", "ERROR", "in a span")];
    assert_eq!(shown, expected.map(|(target, severity, body)| (target, severity, body.to_owned())));
    let of_event = |key| attribute(&logs[0].record.attributes, key);
    assert_eq!((of_event("rank").as_deref(), of_event("trial").as_deref()), (Some("1"), Some("digits/0")));

    let spans = collector.spans();
    let named = |name: &str| spans.iter().map(|(_, span)| span).find(|span| span.name == name).unwrap();
    assert_eq!(spans.len(), 4, "{spans:?}");
    let (round, part) = (named("round"), named("decide"));
    assert_eq!((&part.trace_id, &part.parent_span_id), (&round.trace_id, &round.span_id));
    assert!(round.parent_span_id.is_empty());
    assert_eq!(attribute(&round.attributes, "phalanx.facts").as_deref(), Some("2"));
    assert_eq!((&logs[1].record.trace_id, &logs[1].record.span_id), (&part.trace_id, &part.span_id));
    let (above, below) = (named("span 1"), named("span 2"));
    assert_eq!((&*above.trace_id, &*above.span_id), (&[1; 16][..], &[1; 8][..]));
    assert_eq!(below.parent_span_id, above.span_id);
    assert_eq!(above.start_time_unix_nano, 1_764_370_000_000_000_001);
    assert_eq!(above.end_time_unix_nano - above.start_time_unix_nano, 500);
    assert_eq!(attribute(&above.attributes, "phalanx.step").as_deref(), Some("12"));

    for resource in logs.iter().map(|log| &log.resource).chain(spans.iter().map(|(resource, _)| resource)) {
        let of = |key| attribute(&resource.attributes, key).unwrap();
        assert_eq!(of("service.name"), "phalanx");
        assert_eq!(of("service.instance.id"), "0000000000000007");
        assert_eq!(of("service.version"), env!("CARGO_PKG_VERSION"));
    }
}

/// Sends more than fits, and tells what was lost and how long the end took.
fn lose(url: &str) -> (u64, Duration) {
    let (_runtime, telemetry) = start(url);
    let spans = telemetry.spans();
    (0..SENT).for_each(|_| spans.send(span(1, None)));
    let began = Instant::now();
    let lost = telemetry.end();
    assert_eq!(lost.logs(), 0);
    (lost.spans(), began.elapsed())
}

/// More than any queue holds.
const SENT: u64 = 50_000;

/// What the machine may take beside the limit.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn a_collector_that_refuses_holds_nobody_up() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (lost, took) = lose(&format!("http://127.0.0.1:{port}"));
    assert_eq!(lost, SENT);
    assert!(took < FLUSH_LIMIT + SLACK, "{took:?}");
}

#[test]
fn a_collector_that_never_answers_holds_nobody_up() {
    // Connections are taken by the system, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (lost, took) = lose(&format!("http://{}", silent.local_addr().unwrap()));
    assert_eq!(lost, SENT);
    assert!(took < FLUSH_LIMIT + SLACK, "{took:?}");
}
