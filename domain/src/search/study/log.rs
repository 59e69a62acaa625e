use serde::{Deserialize, Serialize};

use super::{AfterFailure, FinishReason};
use crate::engine::MetricValue;
use crate::search::population::Parent;
use crate::search::scheduler::{Decision, StopReason};

/// What happened in a study, and what it decided. Facts in their order say everything, see [`super::Study::replayed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A trial was begun.
    Started {
        /// Its number.
        trial: u32,
        /// The budget of its first rest.
        target: u64,
        /// The checkpoint it begins from, if it is a copy.
        parent: Option<Parent>,
    },
    /// A paused trial went on.
    Resumed {
        /// Its number.
        trial: u32,
        /// The budget of its next rest.
        target: u64,
    },
    /// It came to rest.
    Rested {
        /// Its number.
        trial: u32,
        /// Where.
        budget: u64,
        /// Its losses.
        losses: Vec<MetricValue>,
        /// What became of it.
        decision: Decision,
    },
    /// An attempt failed.
    Failed {
        /// The trial.
        trial: u32,
        /// Why.
        cause: String,
        /// What became of it.
        after: AfterFailure,
    },
    /// A paused trial was stopped.
    Ended {
        /// Its number.
        trial: u32,
        /// Why.
        reason: StopReason,
    },
    /// The time for the study was over.
    OutOfTime {
        /// Trials of the wave that no slot had taken yet, in their order: they end without having gone on. None without
        /// lock step.
        planned: Vec<u32>,
    },
    /// A slot asked in vain, and the study found thereby that it has nothing new to start.
    Waited,
    /// The study is over.
    Finished {
        /// Why.
        reason: FinishReason,
    },
}

impl Fact {
    /// The trial that it is about.
    pub fn trial(&self) -> Option<u32> {
        match self {
            Fact::Started { trial, .. }
            | Fact::Resumed { trial, .. }
            | Fact::Rested { trial, .. }
            | Fact::Failed { trial, .. }
            | Fact::Ended { trial, .. } => Some(*trial),
            Fact::OutOfTime { .. } | Fact::Waited | Fact::Finished { .. } => None,
        }
    }
}

/// Facts in little memory: 16 bytes for each, 8 for each loss, and what a few of them have beside that.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    /// Those of all entries, one after the other.
    losses: Vec<f64>,
    /// Those of all entries that have one, one after the other.
    details: Vec<Detail>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    budget: u64,
    trial: u32,
    kind: Kind,
    losses: u16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Started,
    Copied,
    Resumed,
    Rested,
    /// With what is decided most often, which needs no detail.
    Paused,
    Completed,
    Failed,
    Ended,
    OutOfTime,
    Waited,
    Finished,
}

#[derive(Clone, Debug)]
enum Detail {
    Parent(Parent),
    Decision(Decision),
    Failure(Box<(String, AfterFailure)>),
    Stop(StopReason),
    Planned(Vec<u32>),
    Finish(FinishReason),
}

impl Log {
    /// Adds a fact.
    ///
    /// # Panics
    /// If there are more than 65535 losses.
    pub(super) fn push(&mut self, fact: Fact) {
        let (kind, trial, budget, losses, detail) = match fact {
            Fact::Started { trial, target, parent: None } => (Kind::Started, trial, target, Vec::new(), None),
            Fact::Started { trial, target, parent: Some(parent) } => {
                (Kind::Copied, trial, target, Vec::new(), Some(Detail::Parent(parent)))
            }
            Fact::Resumed { trial, target } => (Kind::Resumed, trial, target, Vec::new(), None),
            Fact::Rested { trial, budget, losses, decision: Decision::Pause } => {
                (Kind::Paused, trial, budget, losses, None)
            }
            Fact::Rested { trial, budget, losses, decision: Decision::Complete } => {
                (Kind::Completed, trial, budget, losses, None)
            }
            Fact::Rested { trial, budget, losses, decision } => {
                (Kind::Rested, trial, budget, losses, Some(Detail::Decision(decision)))
            }
            Fact::Failed { trial, cause, after } => {
                (Kind::Failed, trial, 0, Vec::new(), Some(Detail::Failure(Box::new((cause, after)))))
            }
            Fact::Ended { trial, reason } => (Kind::Ended, trial, 0, Vec::new(), Some(Detail::Stop(reason))),
            Fact::OutOfTime { planned } => (Kind::OutOfTime, 0, 0, Vec::new(), Some(Detail::Planned(planned))),
            Fact::Waited => (Kind::Waited, 0, 0, Vec::new(), None),
            Fact::Finished { reason } => (Kind::Finished, 0, 0, Vec::new(), Some(Detail::Finish(reason))),
        };
        let count = u16::try_from(losses.len()).expect("a study has few objectives");
        self.entries.push(Entry { budget, trial, kind, losses: count });
        self.losses.extend(losses.into_iter().map(f64::from));
        self.details.extend(detail);
    }

    /// All facts in their order.
    pub(super) fn facts(&self) -> impl Iterator<Item = Fact> + '_ {
        let mut losses = self.losses.iter();
        let mut details = self.details.iter();
        self.entries.iter().map(move |entry| {
            let Entry { budget, trial, kind, losses: count } = *entry;
            let losses = losses.by_ref().take(usize::from(count)).map(|loss| (*loss).into()).collect();
            let mut detail = || details.next().expect("every kind of entry pushes its own detail").clone();
            match kind {
                Kind::Started => Fact::Started { trial, target: budget, parent: None },
                Kind::Resumed => Fact::Resumed { trial, target: budget },
                Kind::Waited => Fact::Waited,
                Kind::Paused => Fact::Rested { trial, budget, losses, decision: Decision::Pause },
                Kind::Completed => Fact::Rested { trial, budget, losses, decision: Decision::Complete },
                Kind::Copied | Kind::Rested | Kind::Failed | Kind::Ended | Kind::OutOfTime | Kind::Finished => {
                    match detail() {
                        Detail::Parent(parent) => Fact::Started { trial, target: budget, parent: Some(parent) },
                        Detail::Decision(decision) => Fact::Rested { trial, budget, losses, decision },
                        Detail::Failure(failure) => {
                            let (cause, after) = *failure;
                            Fact::Failed { trial, cause, after }
                        }
                        Detail::Stop(reason) => Fact::Ended { trial, reason },
                        Detail::Planned(planned) => Fact::OutOfTime { planned },
                        Detail::Finish(reason) => Fact::Finished { reason },
                    }
                }
            }
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The trials that the facts from number `first` on are about, as often as there are facts.
    pub(super) fn trials_since(&self, first: usize) -> impl Iterator<Item = u32> + '_ {
        let of_trial = |entry: &&Entry| !matches!(entry.kind, Kind::OutOfTime | Kind::Waited | Kind::Finished);
        self.entries.iter().skip(first).filter(of_trial).map(|entry| entry.trial)
    }

    /// The bytes that the log holds.
    pub(super) fn bytes(&self) -> usize {
        let heap = |detail: &Detail| match detail {
            Detail::Decision(Decision::Stop(reason)) | Detail::Stop(reason) => reason.heap_bytes(),
            Detail::Failure(failure) => size_of::<(String, AfterFailure)>() + failure.0.capacity(),
            Detail::Planned(planned) => planned.capacity() * size_of::<u32>(),
            Detail::Parent(_) | Detail::Decision(_) | Detail::Finish(_) => 0,
        };
        self.entries.capacity() * size_of::<Entry>()
            + self.losses.capacity() * size_of::<f64>()
            + self.details.capacity() * size_of::<Detail>()
            + self.details.iter().map(heap).sum::<usize>()
    }
}
