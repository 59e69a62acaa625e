//! Trace events in the JSON form that Perfetto (ui.perfetto.dev) and Chrome open.

use std::time::Duration;

use serde_json::{Value, json};

/// What a span is a part of the step as. Spans of a kind lie inside those of the kinds before it, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A whole step.
    Step,
    /// One after another, the phases make up the step.
    Phase,
    /// What belongs to one part of the model on its way forward or backward.
    Layer,
    /// One run of an operator.
    Operator,
    /// A bucket of the gradient on its way to the group.
    Bucket,
    /// The group reduces a bucket, while the training loop goes on.
    Reduction,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Step => "step",
            Kind::Phase => "phase",
            Kind::Layer => "layer",
            Kind::Operator => "operator",
            Kind::Bucket => "bucket",
            Kind::Reduction => "reduction",
        }
    }

    /// The thread that it is shown on.
    fn lane(self) -> u32 {
        match self {
            Kind::Reduction => REDUCTIONS,
            Kind::Step | Kind::Phase | Kind::Layer | Kind::Operator | Kind::Bucket => LOOP,
        }
    }
}

/// A stretch of time with a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The phase it is or lies in; nothing for a step.
    pub(crate) phase: &'static str,
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    /// Floating-point operations of matrix products.
    pub(crate) operations: u64,
}

/// Whose time it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owner {
    pub(crate) rank: u32,
    /// As people see it.
    pub(crate) worker: String,
    /// What the same processor does at best, measured by a large product.
    pub(crate) peak_gflops: f64,
    /// When the clock of the spans began, by the clock on the wall: time since midnight, UTC. Files of several ranks that are
    /// opened together then stand next to each other, as well as the clocks of their hosts agree.
    pub(crate) origin: Duration,
}

/// The file: complete events (`"ph": "X"`) on two lanes, with the times in microseconds since midnight.
pub(crate) fn trace(owner: &Owner, spans: &[Span]) -> Value {
    let Owner { rank, worker, peak_gflops, origin } = owner;
    let metadata =
        |lane: u32, name: &str, value: Value| json!({"ph": "M", "name": name, "pid": rank, "tid": lane, "args": value});
    let mut events = vec![
        metadata(LOOP, "process_name", json!({"name": format!("rank {rank}: {worker}")})),
        metadata(LOOP, "process_sort_index", json!({"sort_index": rank})),
        metadata(LOOP, "thread_name", json!({"name": "training loop"})),
        metadata(REDUCTIONS, "thread_name", json!({"name": "reductions"})),
    ];
    events.extend(spans.iter().map(|span| event(*rank, *origin, span)));
    let about = json!({"rank": rank, "worker": worker, "peak_gflops": peak_gflops});
    json!({"displayTimeUnit": "ms", "otherData": about, "traceEvents": events})
}

/// The thread that the training loop is shown as.
const LOOP: u32 = 1;

/// The thread that the reductions are shown on.
const REDUCTIONS: u32 = 2;

fn event(rank: u32, origin: Duration, span: &Span) -> Value {
    let Span { kind, name, phase, begin, end, operations } = span;
    let duration = end.saturating_sub(*begin);
    let mut args = serde_json::Map::new();
    if !phase.is_empty() {
        args.insert("phase".to_owned(), json!(phase));
    }
    if *operations > 0 {
        args.insert("operations".to_owned(), json!(operations));
        args.insert("gflops".to_owned(), json!(*operations as f64 / duration.as_nanos().max(1) as f64));
    }
    json!({
        "ph": "X", "name": name, "cat": kind.name(), "pid": rank, "tid": kind.lane(),
        "ts": micros(origin + *begin), "dur": micros(duration), "args": args,
    })
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_what_perfetto_reads() {
        let owner = Owner {
            rank: 1,
            worker: "0000000a on \"host\"".to_owned(),
            peak_gflops: 50.0,
            origin: Duration::from_micros(100),
        };
        let span = Span {
            kind: Kind::Operator,
            name: "linear".to_owned(),
            phase: "forward",
            begin: Duration::from_nanos(1_500),
            end: Duration::from_nanos(3_500),
            operations: 4000,
        };
        let text = trace(&owner, &[span]).to_string();
        let trace: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(trace["otherData"]["peak_gflops"], 50.0);
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events[0]["args"]["name"], "rank 1: 0000000a on \"host\"");
        assert_eq!(
            events.last().unwrap(),
            &json!({
                "ph": "X", "name": "linear", "cat": "operator", "pid": 1, "tid": 1, "ts": 101.5, "dur": 2.0,
                "args": {"phase": "forward", "operations": 4000, "gflops": 2.0},
            })
        );
    }
}
