use crate::ids::{RunName, Step, WorkerId};
use crate::spec::file::PRIORITY_MAX;
use crate::view::RunState;

/// Why a user's request is not taken. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is taken by a run that is live.
    #[error("run {run} exists already and is {state}\nhint: stop it first, or choose another name")]
    RunLive {
        /// The run.
        run: RunName,
        /// Where it stands.
        state: RunState,
    },
    /// The name is taken by a run that has ended.
    #[error("run {run} exists already and is {state}\nhint: names are not reused, choose another one{}", or_resume(.run, *.state))]
    RunEnded {
        /// The run.
        run: RunName,
        /// Where it stands.
        state: RunState,
    },
    /// The name is taken by a sweep or one of its trials, or would be that of a trial.
    #[error("the name {run} belongs to sweep {sweep}\nhint: choose another name")]
    NameOfSweep {
        /// The name.
        run: RunName,
        /// The sweep.
        sweep: RunName,
    },
    /// A trial starts and stops with its sweep, and has its priority.
    #[error("run {run} is a trial of sweep {sweep}\nhint: ask it of {sweep}")]
    PartOfSweep {
        /// The trial's run.
        run: RunName,
        /// The sweep.
        sweep: RunName,
    },
    /// Only a live sweep can be stopped.
    #[error("sweep {sweep} is {state} already")]
    SweepNotLive {
        /// The sweep.
        sweep: RunName,
        /// Where it stands.
        state: RunState,
    },
    /// Only a stopped sweep can go on.
    #[error("sweep {sweep} is {state}, only a stopped sweep can be resumed")]
    SweepNotResumable {
        /// The sweep.
        sweep: RunName,
        /// Where it stands.
        state: RunState,
    },
    /// A sweep can begin with what an earlier one found only if that one is known.
    #[error(
        "warm_start: there is no sweep {sweep}\nhint: `phalanx list` shows all sweeps of this state folder or coordinator"
    )]
    NoEarlierSweep {
        /// The name that was given.
        sweep: RunName,
    },
    /// There is no such run.
    #[error("there is no run {run}\nhint: `phalanx list` shows all runs")]
    NoSuchRun {
        /// The name that was given.
        run: RunName,
    },
    /// The run has come to rest, so there is nothing to stop.
    #[error("run {run} is {state} already")]
    NotLive {
        /// The run.
        run: RunName,
        /// Where it stands.
        state: RunState,
    },
    /// The run has no checkpoint of this step.
    #[error(
        "run {run} has no checkpoint of step {step}: none was saved there, or it is not kept any more\n\
         hint: `phalanx checkpoint list {run}`"
    )]
    NoSuchCheckpoint {
        /// The run.
        run: RunName,
        /// The step that was given.
        step: Step,
    },
    /// There is no such worker.
    #[error("there is no worker {:016x}\nhint: `phalanx status` shows all workers", .worker.0)]
    NoSuchWorker {
        /// The id that was given.
        worker: WorkerId,
    },
    /// Nothing can have this priority.
    #[error("priority ({priority}) must be -{PRIORITY_MAX} to {PRIORITY_MAX}")]
    PriorityOutOfRange {
        /// The number that was given.
        priority: i32,
    },
    /// Only stopped and failed runs can go on.
    #[error("run {run} is {state}, only a stopped or failed run can be resumed")]
    NotResumable {
        /// The run.
        run: RunName,
        /// Where it stands.
        state: RunState,
    },
}

fn or_resume(run: &RunName, state: RunState) -> String {
    match state {
        RunState::Stopped | RunState::Failed => format!(", or let it go on: `phalanx resume {run}`"),
        RunState::Completed
        | RunState::Paused
        | RunState::Pruned
        | RunState::Waiting
        | RunState::Forming
        | RunState::Running
        | RunState::Stopping => String::new(),
    }
}
