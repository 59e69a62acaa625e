//! Sweeps: a scripted cluster trains what it is assigned to, and a loss follows from the configuration.

use std::collections::VecDeque;
use std::path::Path;

use super::*;
use crate::engine::trial_run;
use crate::picture::Picture;
use crate::search::study::Fact;
use crate::spec::sweep::SweepSpec;
use crate::view::{SweepView, TrialState};

const TOTAL: u64 = 27;

pub(super) fn spec(more: &str) -> SweepSpec {
    let text = format!(
        "version: 1\n\
         name: s\n\
         job:\n\
        \x20 data: {{format: image_folder, path: i, holdout: 0.3}}\n\
        \x20 model: {{type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 1, heads: 4, classes: 10}}\n\
        \x20 train: {{steps: {TOTAL}, global_batch: 8, micro_batches: 4}}\n\
        \x20 eval: {{every_steps: 1}}\n\
        \x20 checkpoint: {{every_steps: 1}}\n\
         space:\n\
        \x20 schedule.lr: {{uniform: [0.01, 1.0]}}\n\
         objectives: [{{metric: eval_loss}}]\n\
         {more}"
    );
    let load = |_: &Path| Err("there is no other file".to_owned());
    crate::spec::file::sweep::read(&text, "s.yaml", Path::new("/"), load).unwrap_or_else(|e| panic!("{e}"))
}

const ASHA: &str = "scheduler: {type: asha, min: {steps: 3}, max: {steps: 27}, eta: 3, mode: pause}\n\
                    searcher: {type: random}\ntrials: 12\n";

/// An engine with workers that do at once what they are told to.
struct Cluster {
    engine: Engine,
    now: u64,
    journal: Vec<(Time, Event)>,
    waiting: VecDeque<Event>,
    /// Starting from here, every worker's attempts fail.
    fails: fn(&RunName) -> bool,
    /// Everything trials were told to do: run and where to rest.
    assigned: Vec<(String, Option<u64>)>,
    /// Members of the largest group.
    widest: usize,
    /// Which runs began from a copy, and the manifest of it. It was not deleted before.
    copied: Vec<(String, String)>,
    deleted: Vec<String>,
}

impl Cluster {
    fn new(spec: SweepSpec, workers: u64, fails: fn(&RunName) -> bool) -> Self {
        let mut cluster = Self {
            engine: Engine::new(Timing::default()),
            now: 1_000_000,
            journal: Vec::new(),
            waiting: VecDeque::new(),
            fails,
            assigned: Vec::new(),
            widest: 0,
            copied: Vec::new(),
            deleted: Vec::new(),
        };
        cluster.waiting.push_back(Event::SweepSubmitted { spec: Box::new(spec) });
        for id in 1..=workers {
            cluster.waiting.push_back(Event::Joined { worker: info(id), running: None });
        }
        cluster
    }

    /// Lets one thing happen; whether there was something.
    fn go(&mut self) -> bool {
        let Some(event) = self.waiting.pop_front() else { return false };
        self.now += 1;
        let now = Time(self.now);
        if event.is_fact() {
            self.journal.push((now, event.clone()));
        }
        for effect in self.engine.apply(now, event) {
            self.perform(effect);
        }
        true
    }

    fn until_over(mut self) -> Self {
        let mut events = 0;
        while self.go() {
            events += 1;
            assert!(events < 100_000, "the sweep does not come to an end");
        }
        self
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { assignment, .. } if assignment.rank == Rank(0) => self.train(*assignment),
            Effect::CommitCheckpoint { trial, generation, step, parts } => {
                self.waiting.push_back(Event::Committed {
                    manifest: format!("{trial}/{step}"),
                    trial,
                    generation,
                    step,
                    blake3: "b".to_owned(),
                    weights_sha256: parts[0].weights_sha256.clone(),
                });
            }
            Effect::DeleteCheckpoints { manifests, .. } => self.deleted.extend(manifests),
            _ => {}
        }
    }

    fn train(&mut self, assignment: Assignment) {
        let Assignment { trial, generation, members, spec, start, until, .. } = assignment;
        self.widest = self.widest.max(members.len());
        let rest = until.map(|until| match until {
            Length::Steps(steps) => steps,
            Length::Epochs(_) => panic!("this sweep counts steps"),
        });
        self.assigned.push((trial.run.to_string(), rest));
        if let StartFrom::Copy { manifest, .. } = &start {
            assert!(!self.deleted.contains(manifest), "{manifest} is gone");
            self.copied.push((trial.run.to_string(), manifest.clone()));
        }
        let from = match start {
            StartFrom::Scratch => 0,
            StartFrom::Checkpoint { step, .. } | StartFrom::Copy { step, .. } => step.0,
        };
        let position = Position { step: Step(from), evaluated: from > 0 };
        self.waiting.push_back(Event::Formed { trial: trial.clone(), generation, position });
        if (self.fails)(&trial.run) {
            let outcome = AttemptOutcome::Failed { step: Step(from), cause: "out of memory".to_owned() };
            return self.waiting.push_back(Event::AttemptEnded { trial, generation, outcome, worker: None });
        }
        let to = rest.unwrap_or(TOTAL).min(TOTAL);
        let step = Step(to);
        let loss = (spec.schedule.lr_max - 0.3).abs() + 1.0 / to as f64;
        self.waiting.push_back(Event::Measured {
            trial: trial.clone(),
            generation,
            step,
            eval_loss: loss.into(),
            eval_accuracy: 0.5.into(),
        });
        let position = Position { step, evaluated: true };
        self.waiting.push_back(Event::Advanced { trial: trial.clone(), generation, position });
        for rank in 0..members.len() as u32 {
            let part = SavedPart {
                step,
                rank,
                world: members.len() as u32,
                path: format!("{trial}/{generation}/{step}/{rank}"),
                bytes: 1,
                blake3: "b".to_owned(),
                weights_sha256: "w".to_owned(),
            };
            self.waiting.push_back(Event::PartSaved { trial: trial.clone(), generation, part });
        }
        let outcome = match to == TOTAL {
            true => AttemptOutcome::Completed { step },
            false => AttemptOutcome::Rested { step },
        };
        self.waiting.push_back(Event::AttemptEnded { trial, generation, outcome, worker: None });
    }

    fn view(&self) -> SweepView {
        self.engine.view().sweeps.remove(0)
    }
}

fn info(id: u64) -> WorkerInfo {
    WorkerInfo {
        id: WorkerId(id),
        host: "h".to_owned(),
        pid: id as u32,
        device: "cpu".to_owned(),
        peer_address: format!("127.0.0.1:{id}"),
        ring_address: format!("127.0.0.1:{id}"),
    }
}

fn never(_: &RunName) -> bool {
    false
}

#[test]
fn asha_trains_the_best_third_of_each_rung_on() {
    let cluster = Cluster::new(spec(ASHA), 2, never).until_over();
    let view = cluster.view();
    assert_eq!((view.state, view.reason.as_str()), (RunState::Completed, "all 12 trials came to their end"));
    let steps: Vec<u64> = view.trials.iter().map(|trial| trial.step.0).collect();
    let at_least = |step: u64| steps.iter().filter(|made| **made >= step).count();
    // A third of twelve, and whoever was among the best of fewer before.
    assert_eq!(at_least(3), 12, "{steps:?}");
    assert!((4..=6).contains(&at_least(9)) && (1..=3).contains(&at_least(27)), "{steps:?}");
    let loss = |trial: &crate::view::SweepTrialView| f64::from(trial.values[0]);
    let best = view.trials.iter().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert_eq!((best.state, best.step), (TrialState::Completed, Step(TOTAL)));
    let pruned: Vec<_> = view.trials.iter().filter(|trial| trial.state == TrialState::Pruned).collect();
    assert_eq!(pruned.len(), 12 - at_least(27));
    assert!(pruned.iter().all(|trial| trial.reason.contains("number")), "{:?}", pruned[0].reason);
}

#[test]
fn a_trial_that_goes_on_begins_where_it_rested() {
    let cluster = Cluster::new(spec(ASHA), 1, never).until_over();
    let of_best: Vec<Option<u64>> = {
        let best = cluster.view().trials.into_iter().find(|trial| trial.step == Step(TOTAL)).unwrap();
        cluster.assigned.iter().filter(|(run, _)| *run == best.run.to_string()).map(|(_, rest)| *rest).collect()
    };
    assert_eq!(of_best, [Some(3), Some(9), Some(27)]);
    let trials = cluster.view().trials;
    let portions = trials.iter().map(|trial| match trial.step.0 {
        3 => 1,
        9 => 2,
        _ => 3,
    });
    assert_eq!(cluster.assigned.len(), portions.sum::<usize>(), "no portion is trained twice");
}

#[test]
fn the_journal_brings_back_a_sweep_from_any_point() {
    let mut cluster = Cluster::new(spec(ASHA), 2, never);
    let mut compared = 0;
    while cluster.go() {
        let mut replayed = Engine::new(Timing::default());
        for (at, event) in &cluster.journal {
            replayed.apply(*at, event.clone());
        }
        // How far records are durable is not journalled; it is told again.
        assert_eq!(replayed.view().sweeps, cluster.engine.view().sweeps);
        assert_eq!(replayed.sweeps, cluster.engine.sweeps);
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn in_lock_step_trials_and_decisions_do_not_depend_on_the_workers() {
    let lock_step = spec(&format!("{ASHA}lock_step: true\n"));
    let widest = std::cell::Cell::new(0);
    let facts = |spec: &SweepSpec, workers| {
        let cluster = Cluster::new(spec.clone(), workers, never).until_over();
        assert_eq!(cluster.view().state, RunState::Completed, "{workers} workers");
        widest.set(cluster.widest.max(widest.get()));
        (cluster.engine.sweep_facts(&spec.name).unwrap(), cluster.view().trials)
    };
    let alone = facts(&lock_step, 1);
    assert!(alone.0.len() > 40);
    for workers in [2, 4] {
        assert_eq!(facts(&lock_step, workers), alone, "{workers} workers");
    }
    assert_eq!(widest.get(), 1);
    let elastic = SweepSpec { elastic: true, ..lock_step };
    for workers in [1, 2, 3, 4, 6, 9] {
        assert_eq!(facts(&elastic, workers), alone, "{workers} workers, elastic");
    }
    assert_eq!(widest.get(), 4, "idle workers widen trials");
    // The limit is passed within a wave.
    let mut limited = elastic;
    limited.budget.steps = Some(40);
    let alone = facts(&limited, 1);
    assert!(alone.0.iter().any(|fact| matches!(fact, Fact::OutOfTime { .. })));
    assert!(
        alone.1.iter().all(|trial| trial.state != TrialState::Training && !trial.reason.is_empty()),
        "{:#?}",
        alone.1
    );
    for workers in [2, 3, 4] {
        assert_eq!(facts(&limited, workers), alone, "{workers} workers, a limit of steps");
    }
}

#[test]
fn a_failing_trial_is_tried_again_and_does_not_end_the_sweep() {
    let fails = |run: &RunName| run.as_str() == "s.2";
    let cluster = Cluster::new(spec(&format!("{ASHA}trial_retries: 1\n")), 2, fails).until_over();
    let view = cluster.view();
    assert_eq!(view.state, RunState::Completed);
    assert_eq!(view.trials[2].state, TrialState::Failed);
    assert!(view.trials[2].reason.contains("out of memory"), "{}", view.trials[2].reason);
    let attempts = cluster.assigned.iter().filter(|(run, _)| run == "s.2").count();
    assert_eq!(attempts, 2);
}

#[test]
fn a_sweep_of_which_every_trial_fails_ends_with_the_cause() {
    let cluster = Cluster::new(spec(&format!("{ASHA}max_failed: 3\n")), 2, |_| true).until_over();
    let view = cluster.view();
    assert_eq!(view.state, RunState::Failed);
    assert!(view.reason.contains("out of memory"), "{}", view.reason);
    assert!(view.trials.len() <= 4, "{}", view.trials.len());
}

#[test]
fn a_stopped_sweep_goes_on_to_the_same_end() {
    let undisturbed = Cluster::new(spec(ASHA), 2, never).until_over();
    let mut cluster = Cluster::new(spec(ASHA), 2, never);
    for _ in 0..40 {
        cluster.go();
    }
    let run: RunName = "s".parse().unwrap();
    cluster.waiting.push_back(Event::StopRequested { run: run.clone() });
    while cluster.go() {}
    assert_eq!(cluster.view().state, RunState::Stopped);
    assert!(cluster.engine.view().runs.iter().all(|trial| trial.state.is_ended()));
    let resume = Event::ResumeRequested { run };
    assert_eq!(cluster.engine.check(&resume), Ok(()));
    cluster.waiting.push_back(resume);
    let cluster = cluster.until_over();
    let ends = |cluster: &Cluster| {
        let view = cluster.view();
        (view.state, view.trials.into_iter().map(|trial| (trial.configuration, trial.state)).collect::<Vec<_>>())
    };
    assert_eq!(ends(&cluster).0, RunState::Completed);
    assert_eq!(ends(&cluster).1.len(), ends(&undisturbed).1.len());
}

#[test]
fn names_of_sweeps_and_trials_are_not_taken_twice() {
    let mut cluster = Cluster::new(spec(ASHA), 1, never);
    while cluster.go() {}
    let submit = |name: &str| Event::Submitted { spec: Box::new(base_spec(name.parse().unwrap())) };
    for (name, message) in [
        ("s", "the name s belongs to sweep s\nhint: choose another name"),
        ("s.0", "the name s.0 belongs to sweep s\nhint: choose another name"),
        ("s.99", "the name s.99 belongs to sweep s\nhint: choose another name"),
    ] {
        assert_eq!(cluster.engine.check(&submit(name)).unwrap_err().to_string(), message);
    }
    assert_eq!(cluster.engine.check(&submit("t.0")), Ok(()));
    let stop = Event::StopRequested { run: trial_run(&"s".parse().unwrap(), 0) };
    assert_eq!(
        cluster.engine.check(&stop).unwrap_err().to_string(),
        "run s.0 is a trial of sweep s\nhint: ask it of s"
    );
}

#[test]
fn the_time_of_a_sweep_ends_it() {
    let mut cluster = Cluster::new(spec(&format!("{ASHA}max_seconds: 1\n")), 1, never);
    for _ in 0..30 {
        cluster.go();
    }
    let (at, deadline) = cluster.engine.next_deadline().unwrap();
    assert_eq!(deadline, Deadline::SweepTime { sweep: "s".parse().unwrap() });
    cluster.now = at.0;
    cluster.waiting.push_back(Event::DeadlinePassed { deadline });
    let cluster = cluster.until_over();
    let view = cluster.view();
    assert_eq!((view.state, view.reason.as_str()), (RunState::Completed, "the time of the sweep is over"));
    assert!(view.trials.len() < 12);
}

#[test]
fn copies_of_a_population_begin_from_the_checkpoints_of_better_members() {
    let population = "searcher: {type: population, population: 8, interval: {steps: 9}}\ntrials: 20\n";
    let cluster = Cluster::new(spec(population), 2, never).until_over();
    let view = cluster.view();
    assert_eq!(view.state, RunState::Completed, "{}", view.reason);
    let copies: Vec<_> = view.trials.iter().filter(|trial| trial.parent.is_some()).collect();
    assert!(!copies.is_empty());
    for copy in copies {
        let (parent, budget) = copy.parent.unwrap();
        let from =
            cluster.copied.iter().find(|(run, _)| *run == copy.run.to_string()).map(|(_, manifest)| manifest.clone());
        assert_eq!(from, Some(format!("s.{parent}/0/{budget}")));
        let runs = cluster.engine.view().runs;
        let run = runs.iter().find(|run| run.name == copy.run).expect("it has begun");
        assert_eq!(run.parent, Some((trial_run(&view.name, parent), Step(budget))));
    }
}

#[test]
fn a_sweep_begins_with_what_an_earlier_one_found() {
    let mut cluster = Cluster::new(spec(ASHA), 2, never);
    while cluster.go() {}
    let best = |view: &SweepView| view.trials.iter().map(|trial| f64::from(trial.values[0])).fold(f64::MAX, f64::min);
    let earlier = cluster.view();
    let after = |name: &str| SweepSpec {
        name: "later".parse().unwrap(),
        warm_start: vec![name.parse().unwrap()],
        ..spec("searcher: {type: tpe, startup: 5}\ntrials: 6\n")
    };
    let submit = |spec: SweepSpec| Event::SweepSubmitted { spec: Box::new(spec) };
    assert_eq!(
        cluster.engine.check(&submit(after("s.5"))).unwrap_err().to_string(),
        "warm_start: there is no sweep s.5\nhint: `phalanx list` shows all sweeps of this state folder or coordinator"
    );
    assert_eq!(cluster.engine.check(&submit(after("s"))), Ok(()));
    cluster.waiting.push_back(submit(after("s")));
    while cluster.go() {}
    let later: RunName = "later".parse().unwrap();
    let known = &cluster.engine.sweeps[&later].spec.prior;
    assert_eq!(known.len(), earlier.trials.len(), "what was pruned was measured, too");
    let view = cluster.engine.view().sweeps.into_iter().find(|view| view.name == later).unwrap();
    assert_eq!(view.state, RunState::Completed);
    // Nothing is drawn at random any more: already the first ones are near the best of the earlier sweep.
    let lr = |view: &SweepView, which: usize| view.trials[which].configuration["schedule.lr"].clone();
    assert!(best(&view) <= best(&earlier) + 0.02, "{} {}", best(&view), best(&earlier));
    let fresh = Cluster::new(spec("searcher: {type: tpe, startup: 5}\ntrials: 6\n"), 2, never).until_over().view();
    assert_ne!(lr(&view, 0), lr(&fresh, 0));

    // The journal alone brings it back.
    let mut replayed = Engine::new(Timing::default());
    for (at, event) in &cluster.journal {
        replayed.apply(*at, event.clone());
    }
    assert_eq!(replayed.sweeps, cluster.engine.sweeps);
}

#[test]
fn a_sweep_whose_trials_would_have_no_names_is_refused() {
    let named = |bytes: usize| SweepSpec { name: "s".repeat(bytes).parse().unwrap(), ..spec(ASHA) };
    assert!(crate::spec::sweep::check::check(&named(53)).is_ok());
    let refused = crate::spec::sweep::check::check(&named(54)).unwrap_err().to_string();
    assert!(refused.contains("name: is 54 bytes long, a sweep's name may have 53"), "{refused}");
    trial_run(&named(53).name, u32::MAX);
}

#[test]
fn changes_put_over_each_other_are_the_view() {
    let population = "searcher: {type: population, population: 8, interval: {steps: 9}}\ntrials: 20\n";
    let fails = |run: &RunName| run.as_str() == "s.2";
    for more in [ASHA.to_owned(), format!("{ASHA}lock_step: true\n"), population.to_owned()] {
        let mut cluster = Cluster::new(spec(&more), 2, fails);
        let mut picture = Picture::default();
        let (mut changed, mut events) = (0, 0);
        while cluster.go() {
            let changes = cluster.engine.take_changes();
            changed += changes.runs.len();
            events += 1;
            picture.put(changes, &cluster.engine);
            assert_eq!(picture.view(), cluster.engine.view());
        }
        assert!(
            picture.view().sweeps[0].trials.len() >= 12 && changed < 2 * events,
            "{changed} runs in {events} events"
        );
        assert_eq!(cluster.engine.take_changes().runs, []);
    }
}

#[test]
fn a_metric_that_is_not_a_number_or_never_told_ends_the_sweep_all_the_same() {
    let population = "searcher: {type: population, population: 8, interval: {steps: 9}}\ntrials: 20\n";
    let median = "scheduler: {type: median, interval: {steps: 3}}\ntrials: 12\n";
    for more in [ASHA.to_owned(), format!("{ASHA}lock_step: true\n"), population.to_owned(), median.to_owned()] {
        for told in [Some(f64::NAN), None] {
            let mut cluster = Cluster::new(spec(&more), 2, never);
            let mut events = 0;
            while !cluster.waiting.is_empty() {
                if let (Some(Event::Measured { eval_loss, .. }), told) = (cluster.waiting.front_mut(), told) {
                    match told {
                        Some(loss) => *eval_loss = loss.into(),
                        None => drop(cluster.waiting.pop_front()),
                    }
                }
                cluster.go();
                events += 1;
                assert!(events < 100_000, "the sweep does not come to an end");
            }
            let view = cluster.view();
            assert_eq!(view.state, RunState::Failed, "{more}: {}", view.reason);
            assert!(view.reason.ends_with("; no trial has a number for eval_loss"), "{}", view.reason);
            assert!(view.trials.iter().all(|trial| trial.state != TrialState::Training));
        }
    }
}
