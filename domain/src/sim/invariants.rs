//! What must hold after every event. Each function panics with what it saw.

use std::collections::{BTreeMap, BTreeSet};

use super::group::NO_DATA;
use super::plan::State;
use super::requests::Requested;
use super::store::{Record, Store};
use crate::engine::{AttemptOutcome, Effect, Engine, Event, StartFrom, Timing};
use crate::ids::{Generation, RunName, Step, Time, TrialId, WorkerId};
use crate::view::{RunState, RunView, View};

/// What was seen before, for what must not go back.
#[derive(Default)]
pub(super) struct Seen {
    view: View,
    commanded: BTreeMap<(WorkerId, TrialId), Generation>,
    /// Members of the newest group that formed since the run was submitted or resumed.
    formed: BTreeMap<RunName, Vec<WorkerId>>,
    stops: BTreeMap<(TrialId, Generation), Stop>,
    requested: Requested,
}

/// What became of a stop.
#[derive(Default)]
struct Stop {
    delivered: BTreeSet<WorkerId>,
    /// Steps made after it was delivered to all.
    steps_after: u64,
}

/// A step may be under way when the last member hears of the stop.
const STEPS_AFTER_STOP_MAX: u64 = 2;

impl Seen {
    pub(super) fn check(&mut self, engine: &Engine, event: &Event, effects: &[Effect], view: View) {
        invariant_a_worker_is_in_one_group(&view);
        invariant_groups_are_neither_too_small_nor_too_large(engine, &view);
        invariant_nothing_goes_back(&self.view, &view);
        invariant_ended_runs_stay_ended(&self.view, &view, event);
        invariant_waiting_and_failed_runs_say_why(&view);
        self.invariant_commands_are_of_the_newest_generation(effects, &view);
        self.invariant_no_needed_checkpoint_is_deleted(effects, &view);
        self.invariant_a_bad_newcomer_fails_no_run(event, &view);
        self.requested.check(event, effects, &self.view, &view);
        self.view = view;
    }

    /// What users asked for.
    pub(super) fn requested(&self) -> &Requested {
        &self.requested
    }

    fn invariant_commands_are_of_the_newest_generation(&mut self, effects: &[Effect], view: &View) {
        let newest = |trial: &TrialId| run_of(view, &trial.run).generation;
        for effect in effects {
            let (worker, trial, generation) = match effect {
                Effect::Assign { worker, assignment } => {
                    let place = &assignment.members[assignment.rank.0 as usize];
                    assert_eq!(place.id, *worker, "an assignment goes to the member of its rank");
                    assert_eq!(assignment.generation, newest(&assignment.trial), "only the newest group is assigned");
                    (*worker, &assignment.trial, assignment.generation)
                }
                Effect::Stop { worker, trial, generation } => {
                    assert_eq!(*generation, newest(trial), "only the newest group is stopped");
                    (*worker, trial, *generation)
                }
                Effect::Release { .. }
                | Effect::CommitCheckpoint { .. }
                | Effect::DeleteCheckpoints { .. }
                | Effect::DropSave { .. }
                | Effect::RollBack { .. }
                | Effect::Note { .. } => continue,
            };
            let before = self.commanded.entry((worker, trial.clone())).or_default();
            assert!(generation >= *before, "command of {trial} generation {generation} after {before}");
            *before = generation;
        }
    }

    /// As long as a member of the newest group that formed is there, the run does without a bad worker.
    fn invariant_a_bad_newcomer_fails_no_run(&mut self, event: &Event, after: &View) {
        match event {
            Event::Formed { trial, generation, .. } => {
                let before = run_of(&self.view, &trial.run);
                if before.generation == *generation && !before.members.is_empty() {
                    self.formed.insert(trial.run.clone(), before.members.clone());
                }
            }
            Event::ResumeRequested { run } => {
                self.formed.remove(run);
            }
            Event::AttemptEnded { trial, outcome: AttemptOutcome::Failed { cause, .. }, .. } if cause == NO_DATA => {
                let before = run_of(&self.view, &trial.run);
                let failed = !before.state.is_ended() && run_of(after, &trial.run).state == RunState::Failed;
                let formed = self.formed.get(&trial.run);
                let vouched = formed.is_some_and(|formed| {
                    let connected = |id: &WorkerId| {
                        self.view.workers.iter().any(|worker| worker.info.id == *id && worker.connected)
                    };
                    before.members.is_empty() || before.members.iter().any(|id| formed.contains(id) && connected(id))
                });
                assert!(!(failed && vouched), "{} had formed, and a bad newcomer failed it", trial.run);
            }
            _ => {}
        }
    }

    pub(super) fn stop_delivered(&mut self, trial: &TrialId, generation: Generation, worker: WorkerId) {
        self.stops.entry((trial.clone(), generation)).or_default().delivered.insert(worker);
    }

    /// A group whose members all heard of a stop makes no more than a few steps.
    pub(super) fn invariant_a_stop_is_heeded(&mut self, trial: &TrialId, generation: Generation, members: &[WorkerId]) {
        let Some(stop) = self.stops.get_mut(&(trial.clone(), generation)) else { return };
        if members.iter().all(|member| stop.delivered.contains(member)) {
            stop.steps_after += 1;
            assert!(stop.steps_after <= STEPS_AFTER_STOP_MAX, "{trial} generation {generation} does not stop");
        }
    }

    fn invariant_no_needed_checkpoint_is_deleted(&mut self, effects: &[Effect], view: &View) {
        for effect in effects {
            match effect {
                Effect::DeleteCheckpoints { trial, manifests } => {
                    let run = run_of(view, &trial.run);
                    for manifest in manifests {
                        let is_listed = run.checkpoints.iter().any(|c| c.manifest == *manifest);
                        assert!(!is_listed, "checkpoint {manifest} is shown and deleted");
                    }
                }
                Effect::Assign { assignment, .. } => {
                    let run = run_of(view, &assignment.trial.run);
                    let expected = match (run.checkpoints.last(), &run.parent) {
                        (Some(c), _) => StartFrom::Checkpoint {
                            step: c.step,
                            manifest: c.manifest.clone(),
                            blake3: c.blake3.clone(),
                        },
                        (None, Some((parent, step))) => {
                            let copied = run_of(view, parent).checkpoints.iter().find(|c| c.step == *step);
                            let Some(c) = copied else { panic!("{} is to copy {parent} at step {step}", run.name) };
                            let (manifest, blake3) = (c.manifest.clone(), c.blake3.clone());
                            StartFrom::Copy { step: *step, manifest, blake3 }
                        }
                        (None, None) => StartFrom::Scratch,
                    };
                    assert_eq!(assignment.start, expected, "a group begins from the newest checkpoint");
                }
                Effect::DropSave { trial, generation, step } => {
                    let commits = |other: &Effect| {
                        matches!(other, Effect::CommitCheckpoint { trial: t, generation: g, step: s, .. }
                            if (t, g, s) == (trial, generation, step))
                    };
                    assert!(!effects.iter().any(commits), "step {step} is committed and dropped at once");
                }
                Effect::CommitCheckpoint { .. }
                | Effect::Stop { .. }
                | Effect::Release { .. }
                | Effect::RollBack { .. }
                | Effect::Note { .. } => {}
            }
        }
        for (run, before) in view.runs.iter().filter_map(|run| Some((run, find(&self.view, &run.name)?))) {
            for gone in before.checkpoints.iter().filter(|c| run.checkpoints.iter().all(|d| d.manifest != c.manifest)) {
                assert!(gone.step < newest_step(run), "the newest checkpoint of {} is gone", run.name);
                assert!(!gone.result, "the result of {} is gone", run.name);
            }
        }
    }
}

fn run_of<'a>(view: &'a View, run: &RunName) -> &'a RunView {
    find(view, run).expect("effects name known runs")
}

fn find<'a>(view: &'a View, run: &RunName) -> Option<&'a RunView> {
    view.runs.iter().find(|r| r.name == *run)
}

fn newest_step(run: &RunView) -> Step {
    run.checkpoints.last().map_or(Step(0), |c| c.step)
}

fn invariant_a_worker_is_in_one_group(view: &View) {
    let mut seen = BTreeSet::new();
    for run in &view.runs {
        for member in &run.members {
            assert!(seen.insert(*member), "worker {member} is in two groups");
            let worker = view.workers.iter().find(|w| w.info.id == *member).expect("members are known workers");
            assert_eq!(worker.run.as_ref(), Some(&run.name), "worker {member} knows its run");
        }
    }
    for worker in view.workers.iter().filter(|worker| worker.run.is_some()) {
        assert!(seen.contains(&worker.info.id), "worker {} is in no group but has a run", worker.info.id);
    }
}

fn invariant_groups_are_neither_too_small_nor_too_large(engine: &Engine, view: &View) {
    for run in view.runs.iter().filter(|run| matches!(run.state, RunState::Forming | RunState::Running)) {
        let spec = engine.spec(&run.name).expect("a shown run has a specification");
        // Once its attempt has ended and its state is written, a group may melt away.
        let is_saving = run.reason.starts_with("saving");
        // To trials of elastic sweeps idle workers are lent.
        let is_elastic = run.sweep.as_ref().is_some_and(|sweep| engine.sweep_spec(sweep).is_some_and(|s| s.elastic));
        let most = if is_elastic { spec.train.micro_batches } else { spec.workers };
        let sizes = if is_saving { 0..=most } else { spec.min_workers..=most };
        assert!(sizes.contains(&(run.members.len() as u32)), "{} has {} members", run.name, run.members.len());
    }
}

fn invariant_nothing_goes_back(before: &View, after: &View) {
    for old in &before.runs {
        let new = run_of(after, &old.name);
        assert!(new.generation >= old.generation, "the generation of {} went back", old.name);
        assert!(newest_step(new) >= newest_step(old), "the newest checkpoint of {} went back", old.name);
        assert!(new.failures >= old.failures);
        let regrouped = new.generation > old.generation;
        let changed = new.members != old.members && !new.members.is_empty();
        let shrunk_while_saving = new.reason.starts_with("saving");
        assert!(!changed || regrouped || shrunk_while_saving, "{} has new members in an old generation", new.name);
    }
}

fn invariant_ended_runs_stay_ended(before: &View, after: &View, event: &Event) {
    for old in before.runs.iter().filter(|run| run.state.is_ended()) {
        // A trial that rests is its sweep's affair.
        let rests = old.sweep.is_some() && !matches!(old.state, RunState::Completed | RunState::Pruned);
        let is_resumed = matches!(event, Event::ResumeRequested { run } if *run == old.name) || rests;
        let new = run_of(after, &old.name);
        assert!(is_resumed || new.state == old.state, "{} was {} and is {}", old.name, old.state, new.state);
        assert!(new.state != RunState::Completed || new.ended_at.is_some());
    }
}

fn invariant_waiting_and_failed_runs_say_why(view: &View) {
    for run in &view.runs {
        let needs_reason = !matches!(run.state, RunState::Running);
        assert!(!needs_reason || !run.reason.is_empty(), "{} is {} without a reason", run.name, run.state);
    }
}

/// The live records of a run are those of the undisturbed training, without a gap, each once; no checkpoint runs ahead of
/// them.
pub(super) fn invariant_the_history_is_whole(run: &RunView, records: &[Record], undisturbed: &[State]) {
    let steps: Vec<&Record> = records.iter().filter(|r| r.loss.is_none()).collect();
    let copied = copied_steps(run);
    for (step, record) in (copied + 1..).zip(&steps) {
        assert_eq!(record.position.step, Step(step as u64), "the steps of {} have a gap or a double", run.name);
        assert_eq!(record.weights, undisturbed[step].weights, "step {step} of {} went astray", run.name);
    }
    for evaluated in records.iter().filter(|r| r.loss.is_some()) {
        let expected = undisturbed.get(evaluated.position.step.0 as usize);
        assert_eq!(Some(evaluated.weights), expected.map(|s| s.weights), "an evaluation of {} went astray", run.name);
    }
    assert!(
        newest_step(run).0 as usize <= copied + steps.len(),
        "a checkpoint of {} runs ahead of its records",
        run.name
    );
}

/// Steps of its history that another run made.
fn copied_steps(run: &RunView) -> usize {
    run.parent.as_ref().map_or(0, |(_, step)| step.0 as usize)
}

/// A completed run has all steps and the weights of the undisturbed training.
pub(super) fn invariant_a_completed_run_is_complete(run: &RunView, store: &Store, undisturbed: &[State]) {
    if run.state != RunState::Completed {
        return;
    }
    let result = run.checkpoints.iter().find(|c| c.result).expect("a completed run has a result");
    let last = result.step.0 as usize;
    assert!(last < undisturbed.len(), "{} made too many steps", run.name);
    let ended_by_time = run.reason.contains("the limit");
    assert!(ended_by_time || last + 1 == undisturbed.len(), "{} completed at {last}: {}", run.name, run.reason);
    assert_eq!(store.manifests[&result.manifest].state, undisturbed[last], "{} has the wrong weights", run.name);
    let steps = store.records[&run.name].iter().filter(|r| r.loss.is_none()).count();
    let copied = copied_steps(run);
    assert_eq!(copied + steps, last, "{} has {steps} steps for a result at {last}", run.name);
    let evals = |upto: usize| undisturbed[copied + 1..=upto].iter().filter(|s| s.position.evaluated).count();
    let recorded = store.records[&run.name].iter().filter(|r| r.loss.is_some()).count();
    assert_eq!(recorded, evals(last), "{} misses evaluations", run.name);
    assert_eq!(run.measurements.len(), recorded, "{} shows other evaluations than recorded", run.name);
}

/// The journal alone leads to the same state, but for what is reset by a restart anyway.
pub(super) fn invariant_replay_gives_the_same_engine(
    live: &Engine,
    store: &Store,
    timing: Timing,
    now: Time,
) -> Engine {
    let mut replayed = Engine::new(timing);
    for (at, event) in &store.journal {
        replayed.apply(*at, event.clone());
    }
    let mut live = live.clone();
    let live_effects = live.apply(now, Event::Restarted);
    let mut after = replayed.clone();
    assert_eq!(after.apply(now, Event::Restarted), live_effects, "a replayed engine asks for the same");
    assert!(after == live, "replay leads elsewhere:\n{after:#?}\ninstead of\n{live:#?}");
    replayed
}

/// A fact that is told twice changes nothing the second time. Joining and restarting repeat commands; requests of users
/// are checked before.
pub(super) fn invariant_repetition_is_harmless(engine: &Engine, now: Time, event: &Event) {
    if matches!(event, Event::Joined { .. } | Event::Restarted | Event::ResumeRequested { .. }) {
        return;
    }
    let mut again = engine.clone();
    let effects = again.apply(now, event.clone());
    let is_deletion = |e: &&Effect| matches!(e, Effect::DeleteCheckpoints { .. } | Effect::DropSave { .. });
    let commands = effects.iter().filter(|e| !is_deletion(e));
    assert_eq!(commands.count(), 0, "{event:?} told again leads to {effects:?}");
    assert!(again == *engine, "{event:?} told again changes something");
}
