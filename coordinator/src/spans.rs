//! Spans for whoever looks for where the coordinator's time goes: calls of gRPC until they are answered, rounds of the driver
//! and what they are made of, how long a run was without its group, and checkpoints that are committed.
//!
//! They are few by nature, but for rounds that only store records; of those one a second is told. Where no collector is
//! told anything, a span is never made.

use std::time::Duration;

use domain::ids::{Generation, Step, TrialId};
use domain::view::RunView;
use telemetry::SPANS;
use tokio::time::Instant;
use tonic::codegen::http::Request;
use tracing::field::Empty;
use tracing::{Level, Span, info_span, span_enabled};

use crate::driver::Round;

/// A call, until it is answered; the stream that may follow is not a part of it.
pub(crate) fn of_call(request: &Request<()>) -> Span {
    let path = request.uri().path().trim_start_matches('/');
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    // What others send may be no call of ours, and a name may be no longer than one of ours.
    if !service.starts_with("phalanx.") || path.len() > CALL_BYTES_MAX {
        return Span::none();
    }
    info_span!(
        target: SPANS, parent: None, "call", otel.name = path, otel.kind = "server", rpc.system = "grpc",
        rpc.service = service, rpc.method = method,
    )
}

/// The longest name of a call.
const CALL_BYTES_MAX: usize = 128;

/// Of the rounds that only store records, one in this time is told.
const RECORDS_EVERY: Duration = Duration::from_secs(1);

/// Chooses the rounds that are told.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    records_told: Option<Instant>,
}

impl Rounds {
    /// The span of a round, if it is told.
    pub(crate) fn span(&mut self, round: &Round) -> Span {
        if !span_enabled!(target: SPANS, Level::INFO) {
            return Span::none();
        }
        let facts = round.events.iter().filter(|event| event.is_fact()).count();
        let records: usize = round.records.iter().map(|(_, records)| records.len()).sum();
        let is_told = facts > 0 || (records > 0 && self.records_are_due());
        if !is_told {
            return Span::none();
        }
        info_span!(target: SPANS, parent: None, "round", phalanx.facts = facts, phalanx.records = records)
    }

    fn records_are_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.records_told.is_none_or(|told| now.duration_since(told) >= RECORDS_EVERY);
        if is_due {
            self.records_told = Some(now);
        }
        is_due
    }
}

/// What a user asks for within a call, until it is decided.
pub(crate) fn of_request(call: &Span) -> Span {
    info_span!(target: SPANS, parent: call, "request")
}

/// A part of the round or request that the caller is in, if that is told.
pub(crate) fn part(name: &'static str) -> Span {
    if Span::current().is_disabled() {
        return Span::none();
    }
    info_span!(target: SPANS, "part", otel.name = name)
}

/// From the loss of a run's group until steps are made again, or it has ended.
pub(crate) fn recovery(run: &RunView) -> Span {
    info_span!(
        target: SPANS, parent: None, "recovery", phalanx.run = %run.name, phalanx.failures = run.failures,
        phalanx.generation = Empty, phalanx.state = Empty,
    )
}

/// From the choice of a group's members until it makes steps.
pub(crate) fn forming(run: &RunView) -> Span {
    info_span!(
        target: SPANS, parent: None, "form group", phalanx.run = %run.name, phalanx.generation = run.generation.0,
        phalanx.state = Empty,
    )
}

/// Says how a recovery or formation came out.
pub(crate) fn came_out(span: &Span, run: &RunView) {
    span.record("phalanx.generation", run.generation.0);
    span.record("phalanx.state", tracing::field::display(run.state));
}

/// From the last part of a checkpoint until its manifest is durable.
pub(crate) fn commit(trial: &TrialId, generation: Generation, step: Step, parts: usize) -> Span {
    info_span!(
        target: SPANS, parent: None, "commit checkpoint", phalanx.run = %trial.run, phalanx.generation = generation.0,
        phalanx.step = step.0, phalanx.parts = parts,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rounds_that_only_store_records_few_are_told() {
        let mut rounds = Rounds::default();
        let began = Instant::now();
        let told = (0..1000).filter(|_| rounds.records_are_due()).count();
        assert!(told >= 1 && told as u64 <= 1 + began.elapsed().as_secs(), "{told}");
    }

    #[test]
    fn nothing_is_made_where_nobody_is_told() {
        let call = Request::builder().uri("/phalanx.v1.Control/Submit").body(()).expect("a request");
        assert!(of_call(&call).is_none());
        assert!(part("decide").is_none());
        assert!(Rounds::default().span(&Round::default()).is_none());
    }
}
