use std::fmt;

use crate::ids::{RunName, Step, WorkerId};
use crate::search;
use crate::stop::StopReason;

/// Why a run has no group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// Fewer workers are free than it needs at least.
    TooFew {
        /// Free workers.
        have: u32,
        /// Workers it needs at least.
        need: u32,
        /// Workers that are there and get no work.
        drained: u32,
    },
    /// It could start, and holds out a little for its full number.
    Gathering {
        /// Free workers.
        have: u32,
        /// Workers it wants.
        want: u32,
    },
    /// An earlier run comes first.
    Behind {
        /// That run.
        run: RunName,
    },
}

/// Why a group is brought to a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// A user asked for it.
    User,
    /// The run has trained for as long as it may.
    TimeLimit {
        /// The limit.
        max_seconds: u64,
    },
    /// A member was drained, and the others are too few: the run waits, saved.
    Drained {
        /// That member.
        worker: WorkerId,
    },
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A user stopped it; its newest checkpoint is of this step (0 if there is none).
    Stopped {
        /// The step.
        step: Step,
    },
    /// It rests where its sweep wanted it to, saved, and may be taken up again.
    Paused {
        /// The step.
        step: Step,
    },
    /// Its sweep wants no more of it.
    Pruned {
        /// Where it came to rest.
        step: Step,
        /// Why.
        reason: search::scheduler::StopReason,
    },
    /// It is done.
    Completed {
        /// Its last step.
        step: Step,
        /// Why it was the last.
        why: Completion,
    },
    /// It cannot go on.
    Failed {
        /// Why.
        cause: String,
    },
}

/// Why a run is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// All steps are done.
    AllSteps,
    /// The evaluations said so.
    EarlyStop(StopReason),
    /// It trained for as long as it may.
    TimeLimit {
        /// The limit.
        max_seconds: u64,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::TooFew { have, need, drained } => {
                write!(f, "waiting for workers: {have} of at least {need} are free")?;
                match drained {
                    0 => Ok(()),
                    1 => write!(f, ", 1 more is drained"),
                    _ => write!(f, ", {drained} more are drained"),
                }
            }
            WaitReason::Gathering { have, want } => {
                write!(f, "{have} of {want} workers are free, holding out for the others")
            }
            WaitReason::Behind { run } => write!(f, "waiting behind run {run}"),
        }
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopCause::User => write!(f, "stop requested"),
            StopCause::TimeLimit { max_seconds } => write!(f, "trained for {max_seconds} s, the limit"),
            StopCause::Drained { worker } => {
                write!(f, "worker {} is drained: saving, to go on with others", worker.short())
            }
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndReason::Stopped { step } => write!(f, "stopped by a user; step {step} is saved"),
            EndReason::Paused { step } => write!(f, "rests at step {step} until its sweep takes it up again"),
            EndReason::Pruned { step, .. } => write!(f, "stopped by its sweep at step {step}"),
            EndReason::Completed { step, why: Completion::AllSteps } => write!(f, "all {step} steps are done"),
            EndReason::Completed { step, why: Completion::EarlyStop(reason) } => {
                write!(f, "stopped early at step {step}: {reason}")
            }
            EndReason::Completed { step, why: Completion::TimeLimit { max_seconds } } => {
                write!(f, "trained for {max_seconds} s, the limit, up to step {step}")
            }
            EndReason::Failed { cause } => f.write_str(cause),
        }
    }
}
