use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::plan::State;
use super::store::Record;
use crate::engine::{Assignment, AttemptOutcome, Running, StateInMemory, WorkerInfo};
use crate::ids::{Generation, Step, TrialId, WorkerId};
use crate::record::{Position, SavedPart};

/// A scripted worker: the protocol of the real one without its work.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) info: WorkerInfo,
    /// Its connection to the coordinator.
    pub(super) link: Option<Link>,
    pub(super) frozen: bool,
    /// Whether it lacks the data, so that every attempt of it fails.
    pub(super) bad: bool,
    pub(super) attempt: Option<Attempt>,
    /// The newest generation that it was told of, by trial: older commands are refused.
    seen: BTreeMap<TrialId, Generation>,
    /// Reports that are not acknowledged.
    pub(super) unacknowledged: VecDeque<(u64, Report)>,
    next_sequence: u64,
}

/// One connection. What is under way when it breaks is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u64,
    /// Messages of one direction arrive in order.
    pub(super) newest_up: u64,
    pub(super) newest_down: u64,
}

/// Its place in a group.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) assignment: Assignment,
    pub(super) skip: BTreeSet<Step>,
    pub(super) state: Option<State>,
    /// Records that it does not know to be durable.
    pub(super) records: Vec<Record>,
    pub(super) activity: Activity,
    pub(super) stop: bool,
    /// A newer place, taken after the step in progress.
    pub(super) next: Option<Box<Assignment>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Connecting,
    Stepping,
    /// Nothing to do until the next command: broken, rolled back, finished.
    Idle,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Report {
    Formed { trial: TrialId, generation: Generation, position: Position },
    Broken { trial: TrialId, generation: Generation, cause: String },
    Records { trial: TrialId, generation: Generation, records: Vec<Record> },
    PartSaved { trial: TrialId, generation: Generation, part: SavedPart },
    PartFailed { trial: TrialId, generation: Generation, step: Step },
    RollbackRequested { trial: TrialId, generation: Generation, step: Step },
    AttemptEnded { trial: TrialId, generation: Generation, outcome: AttemptOutcome },
}

#[derive(Clone, Debug)]
pub(super) enum Command {
    Assign(Box<Assignment>),
    Stop { trial: TrialId, generation: Generation },
    Release { trial: TrialId, generation: Generation },
    Acknowledge { sequence: u64 },
}

/// What a command led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    Nothing,
    /// A new place was taken: connecting may begin.
    Connecting,
}

impl Worker {
    pub(super) fn new(id: WorkerId) -> Self {
        let address = format!("{}:1", id.short());
        let info = WorkerInfo {
            id,
            host: "sim".into(),
            pid: 1,
            device: "cpu".into(),
            peer_address: address.clone(),
            ring_address: address,
        };
        Self {
            info,
            link: None,
            frozen: false,
            bad: false,
            attempt: None,
            seen: BTreeMap::new(),
            unacknowledged: VecDeque::new(),
            next_sequence: 1,
        }
    }

    pub(super) fn running(&self) -> Option<Running> {
        let attempt = self.attempt.as_ref()?;
        Some(Running {
            trial: attempt.assignment.trial.clone(),
            generation: attempt.assignment.generation,
            position: attempt.state.as_ref().map_or(Position::default(), |state| state.position),
        })
    }

    pub(super) fn is_in(&self, trial: &TrialId, generation: Generation) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|a| a.assignment.trial == *trial && a.assignment.generation == generation)
    }

    pub(super) fn queue(&mut self, report: Report) -> (u64, Report) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.unacknowledged.push_back((sequence, report.clone()));
        (sequence, report)
    }

    pub(super) fn obey(&mut self, command: Command) -> Reaction {
        match command {
            Command::Acknowledge { sequence } => {
                self.unacknowledged.retain(|(s, _)| *s > sequence);
                Reaction::Nothing
            }
            Command::Stop { trial, generation } => {
                if self.is_in(&trial, generation).is_some() {
                    self.attempt.as_mut().expect("just seen").stop = true;
                }
                Reaction::Nothing
            }
            Command::Release { trial, generation } => {
                let seen = self.seen.entry(trial.clone()).or_default();
                *seen = generation.max(*seen);
                let drops = |a: &Attempt| a.assignment.trial == trial && a.assignment.generation <= generation;
                if self.attempt.as_ref().is_some_and(drops) {
                    self.attempt = None;
                }
                Reaction::Nothing
            }
            Command::Assign(assignment) => self.consider(assignment),
        }
    }

    fn consider(&mut self, assignment: Box<Assignment>) -> Reaction {
        let seen = self.seen.entry(assignment.trial.clone()).or_default();
        if assignment.generation <= *seen {
            return Reaction::Nothing;
        }
        *seen = assignment.generation;
        if let Some(attempt) = &mut self.attempt
            && attempt.activity == Activity::Stepping
            && attempt.assignment.trial == assignment.trial
            && attempt
                .assignment
                .members
                .iter()
                .all(|m| assignment.members.contains(m) || assignment.leaving.contains(&m.id))
        {
            attempt.next = Some(assignment);
            return Reaction::Nothing;
        }
        self.adopt(*assignment);
        Reaction::Connecting
    }

    pub(super) fn adopt(&mut self, assignment: Assignment) {
        let old = self.attempt.take().filter(|a| a.assignment.trial == assignment.trial);
        let keep = assignment.state == StateInMemory::Keep;
        let (state, mut records) = old.filter(|_| keep).map_or((None, Vec::new()), |a| (a.state, a.records));
        records.retain(|record| record.position > assignment.recorded);
        self.attempt = Some(Attempt {
            skip: assignment.skip_updates.iter().copied().collect(),
            assignment,
            state,
            records,
            activity: Activity::Connecting,
            stop: false,
            next: None,
        });
    }
}
