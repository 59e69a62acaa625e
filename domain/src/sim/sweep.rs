//! Sweeps under fire: what they are asked to do, and what must hold of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::engine::{Engine, Event};
use crate::ids::{RunName, Step};
use crate::random::Stream;
use crate::search::scheduler::Decision;
use crate::search::study::{AfterFailure, Fact};
use crate::spec::sweep::SweepSpec;
use crate::view::{RunState, SweepView, TrialState, View};

/// Steps of a whole trial.
pub(super) const STEPS: u64 = 18;

/// Schedulers and searchers that are played, with rests at even steps.
const METHODS: [&str; 7] = [
    "scheduler: {type: asha, min: {steps: 2}, eta: 3, mode: pause}\nsearcher: {type: random}\n",
    "scheduler: {type: asha, min: {steps: 2}, eta: 3, mode: stop}\nsearcher: {type: sobol}\n",
    "scheduler: {type: hyperband, min: {steps: 2}, eta: 3}\nsearcher: {type: random}\n",
    "scheduler: {type: bohb, min: {steps: 2}, eta: 3}\nsearcher: {type: tpe, startup: 3}\n",
    "searcher: {type: population, population: 4, interval: {steps: 4}}\n",
    "scheduler: {type: median, interval: {steps: 2}, min_trials: 2}\nsearcher: {type: tpe, startup: 2}\n",
    "searcher: {type: random}\n",
];

/// The name of the sweep of a simulation.
pub(super) fn name() -> RunName {
    RunName::new("sweep").expect("a fine name")
}

/// Any sweep. In lock step nothing that faults do may reach its decisions: failed attempts are tried again, ever so often.
pub(super) fn draw(random: &mut Stream) -> SweepSpec {
    let mut text = METHODS[random.below(METHODS.len() as u64) as usize].to_owned();
    let is_lock_step = random.below(2) == 0;
    let retries = if is_lock_step { 100_000 } else { random.below(3) };
    text += &format!("lock_step: {is_lock_step}\ntrial_retries: {retries}\nmax_failed: {}\n", 2 + random.below(9));
    text += &format!("trials: {}\nseed: {}\n", 4 + random.below(6), random.below(1 << 32));
    text += &format!("elastic: {}\nworkers_per_trial: {}\n", random.below(2) == 0, 1 + random.below(2));
    text += &format!("priority: {}\n", random.below(3) as i32 - 1);
    if random.below(3) == 0 {
        text += &format!("max_concurrent: {}\n", 1 + random.below(3));
    }
    if random.below(3) == 0 {
        text += &format!("max_steps: {}\n", 10 + random.below(50));
    }
    if !is_lock_step && random.below(6) == 0 {
        text += &format!("max_seconds: {}\n", 1 + random.below(20));
    }
    read(&text)
}

/// A sweep whose decisions depend on its losses alone, by one of the methods.
#[cfg(test)]
pub(super) fn draw_in_lock_step(random: &mut Stream, method: usize) -> SweepSpec {
    let mut text = METHODS[method % METHODS.len()].to_owned();
    text += &format!("lock_step: true\ntrial_retries: 100000\ntrials: 12\nseed: {}\n", random.below(1 << 32));
    text += &format!("elastic: {}\nworkers_per_trial: {}\n", random.below(2) == 0, 1 + random.below(2));
    if random.below(3) == 0 {
        text += "max_steps: 60\n";
    }
    read(&text)
}

fn read(more: &str) -> SweepSpec {
    let text = format!(
        "version: 1\n\
         name: sweep\n\
         job:\n\
        \x20 data: {{format: image_folder, path: i, holdout: 0.3}}\n\
        \x20 model: {{type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 1, heads: 4, classes: 10}}\n\
        \x20 train: {{steps: {STEPS}, global_batch: 8, micro_batches: 4, on_non_finite: rollback}}\n\
        \x20 eval: {{every_steps: 2}}\n\
        \x20 checkpoint: {{every_steps: 5, keep_last: 1, keep_best: 0}}\n\
         space:\n\
        \x20 schedule.lr: {{uniform: [0.01, 1.0]}}\n\
         objectives: [{{metric: eval_loss}}]\n\
         {more}"
    );
    let load = |_: &Path| Err("the job is in the sweep".to_owned());
    crate::spec::file::sweep::read(&text, "sweep.yaml", Path::new("/"), load).expect("a sweep that can be read")
}

/// What must hold of a sweep after every event.
pub(super) fn invariant_limits_are_kept(spec: &SweepSpec, view: &View) {
    let Some(sweep) = view.sweeps.iter().find(|sweep| sweep.name == spec.name) else { return };
    let numbers = sweep.trials.iter().map(|trial| trial.number);
    assert!(numbers.eq(0..sweep.trials.len() as u32), "trials are numbered, each once");
    let begun = sweep.trials.len() as u32;
    assert!(spec.budget.trials.is_none_or(|limit| begun <= limit), "{begun} trials are more than the budget");
    let of_sweep = |run: &&crate::view::RunView| run.sweep.as_ref() == Some(&spec.name);
    let live = view.runs.iter().filter(of_sweep).filter(|run| !run.state.is_ended()).count() as u32;
    assert!(spec.max_concurrent.is_none_or(|limit| live <= limit), "{live} trials are more than may train at once");
}

/// What must hold of a sweep that came to its end.
pub(super) fn invariant_a_sweep_ends_as_it_should(engine: &Engine, spec: &SweepSpec, view: &View) {
    let sweep = view.sweeps.iter().find(|sweep| sweep.name == spec.name).expect("it was submitted");
    let too_many_failed = sweep.state == RunState::Failed && !spec.lock_step;
    assert!(sweep.state == RunState::Completed || too_many_failed, "the sweep is {}: {}", sweep.state, sweep.reason);
    assert!(!sweep.reason.is_empty());
    for trial in &sweep.trials {
        let is_over = matches!(trial.state, TrialState::Completed | TrialState::Pruned | TrialState::Failed);
        assert!(is_over && !trial.reason.is_empty(), "trial {} is {:?}: {:?}", trial.number, trial.state, trial.reason);
        assert!(!spec.lock_step || trial.state != TrialState::Failed, "trial {}: {}", trial.number, trial.reason);
    }
    let facts = engine.sweep_facts(&spec.name).expect("it was submitted");
    invariant_no_trial_is_counted_twice(sweep, &facts);
    invariant_nobody_trains_further_than_decided(sweep, view);
}

/// Every trial begins once, rests where it was sent, and ends once; once the budget is used up nothing begins any more.
fn invariant_no_trial_is_counted_twice(sweep: &SweepView, facts: &[Fact]) {
    let mut targets: BTreeMap<u32, u64> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    let mut is_out_of_time = false;
    for fact in facts {
        if let Some(trial) = fact.trial() {
            assert!(!ended.contains(&trial), "{fact:?} of a trial that has ended");
        }
        match fact {
            Fact::Started { trial, target, .. } => {
                assert!(!is_out_of_time, "{fact:?} although the budget is used up");
                assert_eq!(targets.insert(*trial, *target), None, "trial {trial} began twice");
            }
            Fact::Resumed { trial, target } => {
                assert!(!is_out_of_time, "{fact:?} although the budget is used up");
                let before = targets.insert(*trial, *target).expect("it began");
                assert!(before <= *target, "{fact:?} goes back from {before}");
            }
            Fact::Rested { trial, budget, decision, .. } => {
                assert_eq!(targets[trial], *budget, "{fact:?} is not where it was sent");
                match decision {
                    Decision::Continue { target } => {
                        assert!(!is_out_of_time, "{fact:?} although the budget is used up");
                        targets.insert(*trial, *target);
                    }
                    Decision::Pause => {}
                    Decision::Stop(_) | Decision::Complete => assert!(ended.insert(*trial)),
                }
            }
            Fact::Failed { trial, after: AfterFailure::Failed { .. }, .. } | Fact::Ended { trial, .. } => {
                assert!(ended.insert(*trial));
            }
            Fact::Failed { .. } | Fact::Waited | Fact::Finished { .. } => {}
            Fact::OutOfTime { .. } => is_out_of_time = true,
        }
    }
    assert_eq!(ended.len(), sweep.trials.len(), "every trial ends");
    assert_eq!(targets.len(), sweep.trials.len(), "every trial is in the log");
}

/// The steps that were made are those that the study decided on.
fn invariant_nobody_trains_further_than_decided(sweep: &SweepView, view: &View) {
    for trial in &sweep.trials {
        let Some(run) = view.runs.iter().find(|run| run.name == trial.run) else { continue };
        if trial.state != TrialState::Failed {
            assert_eq!(trial.step, Step(trial.budget), "trial {} made other steps than decided", trial.number);
            assert!(run.checkpoints.last().is_none_or(|newest| newest.step == trial.step));
        }
        assert!(run.step <= Step(STEPS), "{} made {} steps", run.name, run.step);
    }
}

/// What a sweep decided, and what came of its trials.
pub(super) fn outcome(engine: &Engine) -> (Vec<Fact>, Vec<(TrialState, String, Step)>) {
    let facts = engine.sweep_facts(&name()).expect("it was submitted");
    let view = engine.view();
    let sweep = view.sweeps.into_iter().find(|sweep| sweep.name == name()).expect("it was submitted");
    let trials = sweep.trials.into_iter().map(|trial| (trial.state, trial.reason, trial.step));
    (facts, trials.collect())
}

/// A request of a user about the sweep.
pub(super) fn request(random: &mut Stream) -> Option<Event> {
    match random.below(7) {
        0 => Some(Event::StopRequested { run: name() }),
        1..=4 => Some(Event::ResumeRequested { run: name() }),
        5 => Some(Event::PriorityRequested { run: name(), priority: random.below(3) as i32 - 1 }),
        _ => None,
    }
}
