//! The time line of a cluster: the facts of the journal that people look for, in words.

use crate::engine::{AttemptOutcome, Deadline, Event};
use crate::ids::{Generation, RunName, Time, WorkerId};
use crate::view::GroupView;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Its place in the journal.
    pub sequence: u64,
    /// When.
    pub at: Time,
    /// Of which kind.
    pub kind: Kind,
    /// The run or sweep that it is about.
    pub run: Option<RunName>,
    /// The generation of its group that it is about.
    pub generation: Option<Generation>,
    /// The worker that it is about.
    pub worker: Option<WorkerId>,
    /// What happened.
    pub text: String,
}

/// Kinds of moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The coordinator started again.
    CoordinatorRestarted,
    /// A job or sweep was handed in.
    Submitted,
    /// A worker connected.
    WorkerJoined,
    /// A worker left or was lost.
    WorkerLost,
    /// A group formed.
    GroupFormed,
    /// A group broke.
    GroupBroken,
    /// A run goes back to a checkpoint.
    RolledBack,
    /// A checkpoint exists.
    CheckpointCommitted,
    /// A checkpoint could not be written.
    CheckpointFailed,
    /// A user asked for a stop.
    StopRequested,
    /// A user asked to go on.
    Resumed,
    /// A user asked for another priority.
    PriorityChanged,
    /// A user wants a worker to get no more work.
    WorkerDrained,
    /// A user wants a drained worker to get work again.
    WorkerUndrained,
    /// A user wants a checkpoint to stay.
    CheckpointPinned,
    /// A user no longer wants a checkpoint to stay.
    CheckpointUnpinned,
    /// An attempt came to its end by itself.
    Completed,
    /// An attempt came to rest because it was asked to.
    Stopped,
    /// An attempt cannot go on.
    Failed,
}

impl Kind {
    /// As tools read it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::CoordinatorRestarted => "coordinator_restarted",
            Kind::Submitted => "submitted",
            Kind::WorkerJoined => "worker_joined",
            Kind::WorkerLost => "worker_lost",
            Kind::GroupFormed => "group_formed",
            Kind::GroupBroken => "group_broken",
            Kind::RolledBack => "rolled_back",
            Kind::CheckpointCommitted => "checkpoint_committed",
            Kind::CheckpointFailed => "checkpoint_failed",
            Kind::StopRequested => "stop_requested",
            Kind::Resumed => "resumed",
            Kind::PriorityChanged => "priority_changed",
            Kind::WorkerDrained => "worker_drained",
            Kind::WorkerUndrained => "worker_undrained",
            Kind::CheckpointPinned => "checkpoint_pinned",
            Kind::CheckpointUnpinned => "checkpoint_unpinned",
            Kind::Completed => "completed",
            Kind::Stopped => "stopped",
            Kind::Failed => "failed",
        }
    }
}

/// What people see of a fact; `None` for what they do not look for, such as the parts of a checkpoint.
pub fn moment(sequence: u64, at: Time, event: &Event) -> Option<Moment> {
    let (kind, run, worker, text) = match event {
        Event::Restarted => (Kind::CoordinatorRestarted, None, None, "the coordinator started again".to_owned()),
        Event::Submitted { spec } => (Kind::Submitted, Some(&spec.name), None, "submitted".to_owned()),
        Event::SweepSubmitted { spec } => (Kind::Submitted, Some(&spec.name), None, "sweep submitted".to_owned()),
        Event::Joined { worker, running } => {
            let text = format!("worker {} on {} (pid {})", worker.id.short(), worker.host, worker.pid);
            let (run, doing) = match running {
                Some(running) => (Some(&running.trial.run), format!(" came back at step {}", running.position.step)),
                None => (None, " connected".to_owned()),
            };
            (Kind::WorkerJoined, run, Some(worker.id), text + &doing)
        }
        Event::Lost { worker, cause } => {
            (Kind::WorkerLost, None, Some(*worker), format!("worker {} is gone: {cause}", worker.short()))
        }
        Event::DeadlinePassed { deadline: Deadline::Lease { worker } } => {
            let text = format!("worker {} is gone: nothing was heard of it", worker.short());
            (Kind::WorkerLost, None, Some(*worker), text)
        }
        Event::Formed { trial, generation, position } => {
            let text = format!("generation {generation} formed, from step {}", position.step);
            (Kind::GroupFormed, Some(&trial.run), None, text)
        }
        Event::Broken { trial, generation, worker, cause } => {
            let text = format!("generation {generation} broke: {cause}");
            (Kind::GroupBroken, Some(&trial.run), Some(*worker), text)
        }
        Event::RollbackRequested { trial, step, cause, .. } => {
            let text = format!("back to the last checkpoint, without the update of step {step}: {cause}");
            (Kind::RolledBack, Some(&trial.run), None, text)
        }
        Event::Committed { trial, step, .. } => {
            (Kind::CheckpointCommitted, Some(&trial.run), None, format!("checkpoint of step {step}"))
        }
        Event::PartFailed { trial, step, cause, .. } => {
            (Kind::CheckpointFailed, Some(&trial.run), None, format!("no checkpoint of step {step}: {cause}"))
        }
        Event::StopRequested { run } => (Kind::StopRequested, Some(run), None, "stop requested".to_owned()),
        Event::ResumeRequested { run } => (Kind::Resumed, Some(run), None, "resumed".to_owned()),
        Event::DrainRequested { worker } => {
            (Kind::WorkerDrained, None, Some(*worker), format!("worker {} gets no more work", worker.short()))
        }
        Event::UndrainRequested { worker } => {
            (Kind::WorkerUndrained, None, Some(*worker), format!("worker {} gets work again", worker.short()))
        }
        Event::PinRequested { run, step } => {
            (Kind::CheckpointPinned, Some(run), None, format!("checkpoint of step {step} is pinned"))
        }
        Event::UnpinRequested { run, step } => {
            (Kind::CheckpointUnpinned, Some(run), None, format!("checkpoint of step {step} is no longer pinned"))
        }
        Event::PriorityRequested { run, priority } => {
            (Kind::PriorityChanged, Some(run), None, format!("priority {priority}"))
        }
        Event::AttemptEnded { trial, outcome, .. } => {
            let (kind, text) = match outcome {
                AttemptOutcome::Completed { step } => (Kind::Completed, format!("completed with step {step}")),
                AttemptOutcome::Stopped { step } => (Kind::Stopped, format!("stopped at step {step}")),
                AttemptOutcome::Rested { step } => (Kind::Stopped, format!("rests at step {step}")),
                AttemptOutcome::Failed { step, cause } => (Kind::Failed, format!("failed at step {step}: {cause}")),
            };
            (kind, Some(&trial.run), None, text)
        }
        Event::Alive { .. }
        | Event::Advanced { .. }
        | Event::Measured { .. }
        | Event::PartSaved { .. }
        | Event::DeadlinePassed { .. } => return None,
    };
    let generation = match event {
        Event::Formed { generation, .. }
        | Event::Broken { generation, .. }
        | Event::RollbackRequested { generation, .. }
        | Event::Committed { generation, .. }
        | Event::PartFailed { generation, .. }
        | Event::AttemptEnded { generation, .. } => Some(*generation),
        _ => None,
    };
    Some(Moment { sequence, at, kind, run: run.cloned(), generation, worker, text })
}

/// Leaves out what several members of a group told of the same thing: only the first of them counts.
pub fn without_echoes(moments: &mut Vec<Moment>) {
    let mut kept: Vec<Moment> = Vec::with_capacity(moments.len());
    for moment in moments.drain(..) {
        if !is_echo(&moment, kept.iter()) {
            kept.push(moment);
        }
    }
    *moments = kept;
}

/// Whether one of the moments `before`, the newest last, told of the same thing.
pub fn is_echo<'a>(moment: &Moment, before: impl DoubleEndedIterator<Item = &'a Moment>) -> bool {
    let is_same =
        |other: &Moment| (other.kind, other.generation, &other.run) == (moment.kind, moment.generation, &moment.run);
    let is_told_by_all = matches!(moment.kind, Kind::GroupFormed | Kind::GroupBroken);
    is_told_by_all && before.rev().take(ECHOES_MAX).any(is_same)
}

/// Picks the moments of one run out of all, as they come. A worker that is lost belongs to the run whose group it is in,
/// which its moment does not say; that is known from the formation of the group on.
#[derive(Clone, Debug)]
pub struct OfRun<'a> {
    run: &'a RunName,
    groups: &'a [GroupView],
    /// The group of the run at this moment.
    group: Option<&'a GroupView>,
}

impl<'a> OfRun<'a> {
    /// For a run, with the groups that formed for it.
    pub fn new(run: &'a RunName, groups: &'a [GroupView]) -> Self {
        Self { run, groups, group: None }
    }

    /// Whether the next moment is about the run.
    pub fn is_about(&mut self, moment: &Moment) -> bool {
        if moment.run.as_ref() == Some(self.run) {
            match moment.kind {
                Kind::GroupFormed => {
                    self.group = self.groups.iter().find(|group| Some(group.generation) == moment.generation);
                }
                Kind::Completed | Kind::Stopped | Kind::Failed => self.group = None,
                _ => {}
            }
            return true;
        }
        let lost = moment.worker.filter(|_| moment.kind == Kind::WorkerLost);
        lost.is_some_and(|worker| self.group.is_some_and(|group| group.members.contains(&worker)))
    }
}

/// How far back an echo is looked for.
pub const ECHOES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::LossCause;
    use crate::ids::{Step, TrialId};
    use crate::record::Position;

    #[test]
    fn what_all_members_tell_is_told_once() {
        let trial: TrialId = "a/0".parse().unwrap();
        let broken = |generation, worker| Event::Broken {
            trial: trial.clone(),
            generation: Generation(generation),
            worker: WorkerId(worker),
            cause: "a peer closed".to_owned(),
        };
        let lost = |worker| Event::Lost { worker: WorkerId(worker), cause: LossCause::Left };
        let events = [broken(1, 1), broken(1, 2), lost(3), lost(4), broken(2, 1), Event::Alive { worker: WorkerId(1) }];
        let told = (1..).zip(&events).filter_map(|(sequence, event)| moment(sequence, Time(7), event));
        let mut moments: Vec<Moment> = told.collect();
        without_echoes(&mut moments);
        let shown: Vec<(u64, Kind)> = moments.iter().map(|moment| (moment.sequence, moment.kind)).collect();
        use Kind::{GroupBroken, WorkerLost};
        assert_eq!(shown, [(1, GroupBroken), (3, WorkerLost), (4, WorkerLost), (5, GroupBroken)]);
        assert_eq!(moments[0].text, "generation 1 broke: a peer closed");
        assert_eq!(moments[1].text, "worker 00000003 is gone: it left");
    }

    #[test]
    fn a_lost_worker_belongs_to_the_run_whose_group_it_is_in() {
        let group = |generation, members: &[u64]| GroupView {
            generation: Generation(generation),
            step: Step(0),
            at: Time(0),
            members: members.iter().copied().map(WorkerId).collect(),
        };
        let trial: TrialId = "a/0".parse().unwrap();
        let formed = |generation| Event::Formed {
            trial: trial.clone(),
            generation: Generation(generation),
            position: Position::default(),
        };
        let lost = |worker| Event::Lost { worker: WorkerId(worker), cause: LossCause::ConnectionClosed };
        let outcome = AttemptOutcome::Completed { step: Step(1) };
        let ended = Event::AttemptEnded { trial: trial.clone(), generation: Generation(2), outcome, worker: None };
        let events = [lost(1), formed(1), lost(3), lost(2), formed(2), lost(2), lost(3), ended, lost(1)];
        let groups = [group(1, &[1, 2]), group(2, &[1, 3])];
        let mut of_run = OfRun::new(&trial.run, &groups);
        let told = (1..).zip(&events).filter_map(|(sequence, event)| moment(sequence, Time(7), event));
        let about: Vec<u64> = told.filter(|moment| of_run.is_about(moment)).map(|moment| moment.sequence).collect();
        assert_eq!(about, [2, 4, 5, 7, 8]);
    }
}
