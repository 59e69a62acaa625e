//! What the driver gathers before it acts.

use std::collections::{BTreeMap, BTreeSet};

use domain::engine::Event;
use domain::ids::{RunName, TrialId, WorkerId};
use domain::inspection::Inspection;
use domain::record::{Position, Record, StepRecord, Vitals};
use domain::view::DataFacts;
use proto::convert::Report;
use store::NewLogLine;

use super::Message;

/// What is settled together.
#[derive(Debug, Default)]
pub(crate) struct Round {
    pub(crate) records: Vec<(RunName, Vec<Record>)>,
    /// The inside of models, as it was seen.
    pub(super) inspections: Vec<(RunName, Inspection)>,
    /// How far the records that count go.
    pub(super) advanced: BTreeMap<RunName, Position>,
    /// The newest step in `records` that counts.
    pub(super) newest: BTreeMap<RunName, StepRecord>,
    pub(super) data: BTreeMap<RunName, DataFacts>,
    /// How workers are doing, as far as they told.
    pub(super) vitals: BTreeMap<WorkerId, Vitals>,
    /// In the order in which they came.
    pub(crate) events: Vec<Event>,
    /// Workers that `events` says are alive.
    pub(super) alive: BTreeSet<WorkerId>,
    /// Runs that a fact in `events` is about, but for evaluations.
    pub(super) runs_with_facts: BTreeSet<RunName>,
    pub(super) lines: Vec<(RunName, NewLogLine)>,
    /// Workers that sent something to be acknowledged.
    pub(super) acknowledge: BTreeSet<WorkerId>,
    /// Workers whose streams are to end.
    pub(super) left: Vec<WorkerId>,
}

impl Round {
    /// Records and inspections of a run wait until the facts about it that came before them are settled.
    pub(super) fn must_settle_before(&self, message: &Message) -> bool {
        match message {
            Message::Reported { report: Report::Records { trial, .. } | Report::Inspected { trial, .. }, .. } => {
                self.runs_with_facts.contains(&trial.run)
            }
            Message::Reported { .. } | Message::Attached { .. } | Message::Detached { .. } | Message::Happened(_) => {
                false
            }
        }
    }

    /// Takes any report as a sign of life: a worker whose stream is full of them has no room for heartbeats. Told before
    /// what the report says, and once: no time passes within a round.
    pub(super) fn push_alive(&mut self, worker: WorkerId) {
        if self.alive.insert(worker) {
            self.events.push(Event::Alive { worker });
        }
    }

    /// Adds a fact about a trial.
    pub(super) fn push_fact(&mut self, event: Event) {
        if let Some(trial) = trial_of_event(&event) {
            self.runs_with_facts.insert(trial.run.clone());
        }
        self.events.push(event);
    }
}

fn trial_of_event(event: &Event) -> Option<&TrialId> {
    match event {
        Event::Advanced { trial, .. }
        | Event::Formed { trial, .. }
        | Event::Broken { trial, .. }
        | Event::Measured { trial, .. }
        | Event::PartSaved { trial, .. }
        | Event::PartFailed { trial, .. }
        | Event::Committed { trial, .. }
        | Event::RollbackRequested { trial, .. }
        | Event::AttemptEnded { trial, .. } => Some(trial),
        Event::Restarted
        | Event::Submitted { .. }
        | Event::SweepSubmitted { .. }
        | Event::Joined { .. }
        | Event::Lost { .. }
        | Event::Alive { .. }
        | Event::StopRequested { .. }
        | Event::ResumeRequested { .. }
        | Event::PriorityRequested { .. }
        | Event::DrainRequested { .. }
        | Event::UndrainRequested { .. }
        | Event::PinRequested { .. }
        | Event::UnpinRequested { .. }
        | Event::DeadlinePassed { .. } => None,
    }
}
