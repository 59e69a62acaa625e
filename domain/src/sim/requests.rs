//! What users asked for beside starting and stopping, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Effect, Event};
use crate::ids::{RunName, Step, WorkerId};
use crate::random::Stream;
use crate::view::{RunState, RunView, View};

/// What was asked for last.
#[derive(Default)]
pub(super) struct Requested {
    priorities: BTreeMap<RunName, i32>,
    pinned: BTreeSet<(RunName, Step)>,
    drained: BTreeSet<WorkerId>,
}

impl Requested {
    /// Workers that get no work, gone ones too.
    pub(super) fn drained(&self) -> impl Iterator<Item = WorkerId> {
        self.drained.iter().copied()
    }

    /// `before` and `after` are what was to be seen around `event`.
    pub(super) fn check(&mut self, event: &Event, effects: &[Effect], before: &View, after: &View) {
        match event {
            Event::PriorityRequested { run, priority } => {
                self.priorities.insert(run.clone(), *priority);
                invariant_a_priority_takes_no_worker(before, after);
            }
            Event::PinRequested { run, step } => {
                self.pinned.insert((run.clone(), *step));
            }
            Event::UnpinRequested { run, step } => {
                self.pinned.remove(&(run.clone(), *step));
            }
            Event::DrainRequested { worker } => {
                self.drained.insert(*worker);
            }
            Event::UndrainRequested { worker } => {
                self.drained.remove(worker);
            }
            _ => {}
        }
        self.invariant_priorities_are_as_asked(after);
        self.invariant_what_is_pinned_stays(after);
        self.invariant_drained_workers_get_no_work(effects, before, after);
        invariant_nobody_waits_behind_a_lower_priority(after);
    }

    fn invariant_priorities_are_as_asked(&self, view: &View) {
        let sweeps = view.sweeps.iter().map(|sweep| (&sweep.name, &sweep.name, sweep.priority));
        let is_over = |run: &&RunView| matches!(run.state, RunState::Completed | RunState::Pruned);
        let runs = view.runs.iter().filter(|run| !is_over(run));
        let runs = runs.map(|run| (&run.name, run.sweep.as_ref().unwrap_or(&run.name), run.priority));
        for (name, asked_of, priority) in runs.chain(sweeps) {
            let asked = self.priorities.get(asked_of);
            assert!(asked.is_none_or(|asked| *asked == priority), "{name} has priority {priority}, not {asked:?}");
        }
    }

    fn invariant_what_is_pinned_stays(&self, view: &View) {
        let pinned = view.runs.iter().flat_map(|run| {
            let pinned = run.checkpoints.iter().filter(|checkpoint| checkpoint.pinned);
            pinned.map(|checkpoint| (run.name.clone(), checkpoint.step))
        });
        assert_eq!(pinned.collect::<BTreeSet<_>>(), self.pinned, "what is pinned is not what was asked for");
    }

    /// None but the place it has, told again; and that no longer than its group has a reason to keep it.
    fn invariant_drained_workers_get_no_work(&self, effects: &[Effect], before: &View, after: &View) {
        for worker in &after.workers {
            assert_eq!(worker.draining, self.drained.contains(&worker.info.id), "{} and drains", worker.info.id);
        }
        for effect in effects {
            let Effect::Assign { worker, assignment } = effect else { continue };
            let run = before.runs.iter().find(|run| run.name == assignment.trial.run);
            let was_member = |id: &WorkerId| run.is_some_and(|run| run.members.contains(id));
            let is_told_again = run.is_some_and(|run| run.generation == assignment.generation);
            // Of a group that is drained as a whole, somebody must hold the state until it is saved.
            let mut survivors = assignment.members.iter().filter(|member| was_member(&member.id));
            let is_place_kept = is_told_again || survivors.all(|member| self.drained.contains(&member.id));
            assert!(
                !self.drained.contains(worker) || (was_member(worker) && is_place_kept),
                "drained {worker} gets work"
            );
            let stays = |leaver: &WorkerId| assignment.members.iter().any(|member| member.id == *leaver);
            assert!(!assignment.leaving.iter().any(stays), "{:?} leave and stay", assignment.leaving);
        }
        for run in after.runs.iter().filter(|run| run.state == RunState::Running && !run.reason.starts_with("saving")) {
            let is_connected =
                |id: &WorkerId| after.workers.iter().any(|worker| worker.info.id == *id && worker.connected);
            let has_drained = run.members.iter().any(|member| self.drained.contains(member));
            assert!(!has_drained || !run.members.iter().all(is_connected), "{} keeps a drained worker", run.name);
        }
    }
}

/// A request of a user about one of the workers that there are.
pub(super) fn about_a_worker(view: &View, random: &mut Stream) -> Option<Event> {
    if view.workers.is_empty() {
        return None;
    }
    let worker = &view.workers[random.below(view.workers.len() as u64) as usize];
    let id = worker.info.id;
    Some(if worker.draining { Event::UndrainRequested { worker: id } } else { Event::DrainRequested { worker: id } })
}

/// A request of a user about one of the checkpoints that there are.
pub(super) fn about_a_checkpoint(run: &RunView, random: &mut Stream) -> Option<Event> {
    if run.checkpoints.is_empty() {
        return None;
    }
    let step = run.checkpoints[random.below(run.checkpoints.len() as u64) as usize].step;
    let run = run.name.clone();
    Some(if random.below(3) > 0 { Event::PinRequested { run, step } } else { Event::UnpinRequested { run, step } })
}

/// It changes who is next. Only what was lent may go back to somebody who waits.
fn invariant_a_priority_takes_no_worker(before: &View, after: &View) {
    for run in &before.runs {
        let now = after.runs.iter().find(|now| now.name == run.name).expect("runs are not forgotten");
        let stay = run.members.iter().filter(|member| now.members.contains(member)).count();
        let own = run.members.len().min(run.workers_wanted as usize);
        assert!(stay >= own, "{} had {} workers, and {stay} are left", run.name, run.members.len());
    }
}

fn invariant_nobody_waits_behind_a_lower_priority(view: &View) {
    for run in &view.runs {
        let Some(ahead) = run.reason.strip_prefix("waiting behind run ") else { continue };
        let ahead = view.runs.iter().find(|other| other.name.as_str() == ahead).expect("a run that is known");
        assert!(ahead.priority >= run.priority, "{} waits behind {}", run.name, ahead.name);
    }
}
