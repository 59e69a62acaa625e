//! What came of a sweep: which trials no other one beats, which parameters mattered, and what ending trials early saved.
//!
//! Nothing is decided by it; it is made when somebody asks.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::batch::BatchPlan;
use crate::ids::RunName;
use crate::picture::{Picture, SweepPicture, TrialPicture};
use crate::search::Configuration;
use crate::search::importance::{self, Importance};
use crate::search::pareto;
use crate::search::scheduler::Decision;
use crate::search::study::Fact;
use crate::spec::sweep::{Objective, SearcherSpec, SweepSpec};
use crate::view::{SweepTrialView, TrialState};

/// What came of a sweep so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// See [`front`].
    pub front: Vec<u32>,
    /// See [`rungs`].
    pub rungs: Vec<Rung>,
    /// See [`importances`].
    pub importances: Importances,
    /// See [`saved`].
    pub saved: Option<Saved>,
}

/// What came of `sweep`, given all that happened in it and what the steps of its trials took.
pub fn of_sweep(
    picture: &Picture,
    sweep: &SweepPicture,
    facts: &[Fact],
    efforts: &BTreeMap<RunName, Effort>,
) -> Results {
    let spec = &*sweep.spec;
    // The length of a trial that nobody ends early. A specification that is in the journal was checked.
    let full = spec.study_spec().ok().map(|(study, unit)| unit.length(study.scheduler.max()));
    let course = |trial: &TrialPicture| {
        let SweepTrialView { run, state, step, .. } = &trial.view;
        let plan = picture.run(run).filter(|_| has_ended(*state))?.plan()?;
        let full_steps = BatchPlan { length: full?, ..plan }.total_steps();
        Some(Course { step: step.0, full_steps, effort: efforts.get(run).copied().unwrap_or_default() })
    };
    let values = |trial: &TrialPicture| trial.view.values.iter().map(|value| f64::from(*value)).collect();
    let values: Vec<(u32, Vec<f64>)> = sweep.trials().map(|trial| (trial.view.number, values(trial))).collect();
    let configurations = sweep.trials().map(|trial| (trial.view.number, trial.view.configuration.clone())).collect();
    Results {
        front: front(&spec.objectives, &values),
        rungs: rungs(facts),
        importances: importances(spec, &configurations, facts),
        saved: saved(spec, sweep.trials().filter_map(course)),
    }
}

/// Whether early stopping has had its say: a trial that failed, or may go on, neither saved nor cost anything by it.
fn has_ended(state: TrialState) -> bool {
    match state {
        TrialState::Completed | TrialState::Pruned => true,
        TrialState::Training | TrialState::Paused | TrialState::Failed => false,
    }
}

/// The trials that no other one beats: none is as good in all objectives and better in one (Pareto front). With one
/// objective these are the best trials. `trials` are numbers with the values of the objectives; who lacks a value, or has
/// one that is not finite, is left out.
pub fn front(objectives: &[Objective], trials: &[(u32, Vec<f64>)]) -> Vec<u32> {
    let is_whole = |values: &[f64]| values.len() == objectives.len() && values.iter().all(|value| value.is_finite());
    let whole: Vec<&(u32, Vec<f64>)> = trials.iter().filter(|(_, values)| is_whole(values)).collect();
    let loss = |(objective, value): (&Objective, &f64)| objective.loss(*value);
    let losses: Vec<Vec<f64>> =
        whole.iter().map(|(_, values)| objectives.iter().zip(values).map(loss).collect()).collect();
    let first = pareto::fronts(&losses, 1).into_iter().next().unwrap_or_default();
    first.into_iter().map(|index| whole[index].0).collect()
}

/// How good a trial is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The value of the first objective.
    pub value: Option<f64>,
    /// The budget after which it was measured.
    pub budget: u64,
    /// The trial's number.
    pub number: u32,
}

/// Which of two trials comes first: the better one, and of equals the one that trained longer. Without a finite value a
/// trial comes last.
pub fn best_first(objective: Option<&Objective>, a: Standing, b: Standing) -> Ordering {
    let loss = |standing: Standing| {
        let value = standing.value.filter(|value| value.is_finite());
        value.map_or(f64::INFINITY, |value| objective.map_or(value, |objective| objective.loss(value)))
    };
    loss(a).total_cmp(&loss(b)).then(b.budget.cmp(&a.budget)).then(a.number.cmp(&b.number))
}

/// The best trial of a sweep that has a value.
pub fn best(sweep: &SweepPicture) -> Option<&TrialPicture> {
    let standing = |trial: &TrialPicture| {
        let SweepTrialView { number, values, budget, .. } = &trial.view;
        Standing { value: values.first().map(|value| f64::from(*value)), budget: *budget, number: *number }
    };
    let measured = sweep.trials().filter(|trial| standing(trial).value.is_some_and(f64::is_finite));
    measured.min_by(|a, b| best_first(sweep.spec.objectives.first(), standing(a), standing(b)))
}

/// What became of the trials that rested with one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The budget.
    pub budget: u64,
    /// Trials that rested there.
    pub reached: u32,
    /// Of them, those that went on or are complete.
    pub promoted: u32,
    /// Of them, those that were stopped there.
    pub stopped: u32,
}

/// The rungs of a sweep, from the lowest.
pub fn rungs(facts: &[Fact]) -> Vec<Rung> {
    let mut rungs: BTreeMap<u64, Rung> = BTreeMap::new();
    // Where trials that may still go on rest.
    let mut paused: BTreeMap<u32, u64> = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Rested { trial, budget, losses: _, decision } => {
                let rung = rungs.entry(*budget);
                let rung = rung.or_insert(Rung { budget: *budget, reached: 0, promoted: 0, stopped: 0 });
                rung.reached += 1;
                paused.remove(trial);
                match decision {
                    Decision::Continue { .. } | Decision::Complete => rung.promoted += 1,
                    Decision::Stop(_) => rung.stopped += 1,
                    Decision::Pause => drop(paused.insert(*trial, *budget)),
                }
            }
            Fact::Resumed { trial, .. } => {
                if let Some(rung) = paused.remove(trial).and_then(|budget| rungs.get_mut(&budget)) {
                    rung.promoted += 1;
                }
            }
            Fact::Ended { trial, .. } => {
                if let Some(rung) = paused.remove(trial).and_then(|budget| rungs.get_mut(&budget)) {
                    rung.stopped += 1;
                }
            }
            Fact::Started { .. }
            | Fact::Failed { .. }
            | Fact::OutOfTime { .. }
            | Fact::Waited
            | Fact::Finished { .. } => {}
        }
    }
    rungs.into_values().collect()
}

/// Which parameters mattered for each objective, or that too little is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Importances {
    /// Nowhere were enough trials measured after the same length.
    TooFew {
        /// The most that were.
        have: u32,
        /// So many are needed: [`importance::TRIALS_MIN`], and half of all that were measured.
        need: u32,
    },
    /// They are known.
    Known {
        /// Where the trials were compared, in the unit of the sweep's rungs.
        budget: u64,
        /// How many were.
        trials: u32,
        /// For each objective of the sweep, every parameter of its space, each in the order of the specification.
        objectives: Vec<Vec<Importance>>,
    },
}

/// Which parameters mattered. Losses of trials are comparable only after the same length, and those that got far are a
/// choice of the best; so trials are compared at the greatest budget at which at least half of them were measured.
pub fn importances(spec: &SweepSpec, configurations: &BTreeMap<u32, Configuration>, facts: &[Fact]) -> Importances {
    let mut measured_at: BTreeMap<u64, u32> = BTreeMap::new();
    let mut measured: BTreeSet<u32> = BTreeSet::new();
    for (trial, budget, _) in facts.iter().filter_map(measurement) {
        *measured_at.entry(budget).or_default() += 1;
        measured.insert(trial);
    }
    let need = importance::TRIALS_MIN.max(measured.len().div_ceil(2)) as u32;
    let have = measured_at.values().copied().max().unwrap_or(0);
    let Some((budget, trials)) = measured_at.into_iter().rfind(|(_, trials)| *trials >= need) else {
        return Importances::TooFew { have, need };
    };
    let compared: Vec<(Vec<f64>, Vec<f64>)> = facts
        .iter()
        .filter_map(measurement)
        .filter(|(_, at, _)| *at == budget)
        .filter_map(|(trial, _, losses)| Some((point(spec, configurations.get(&trial)?), losses)))
        .collect();
    let of_objective = |index: usize| {
        let loss = |losses: &[f64]| losses.get(index).copied().unwrap_or(f64::NAN);
        let of_trials: Vec<(&[f64], f64)> =
            compared.iter().map(|(point, losses)| (point.as_slice(), loss(losses))).collect();
        importance::importance(&spec.space, &of_trials)
    };
    Importances::Known { budget, trials, objectives: (0..spec.objectives.len()).map(of_objective).collect() }
}

fn measurement(fact: &Fact) -> Option<(u32, u64, Vec<f64>)> {
    match fact {
        Fact::Rested { trial, budget, losses, decision: _ } => {
            Some((*trial, *budget, losses.iter().map(|loss| f64::from(*loss)).collect()))
        }
        Fact::Started { .. }
        | Fact::Resumed { .. }
        | Fact::Failed { .. }
        | Fact::Ended { .. }
        | Fact::OutOfTime { .. }
        | Fact::Waited
        | Fact::Finished { .. } => None,
    }
}

/// The point of a configuration. The coordinate of a parameter that it does not have means nothing.
fn point(spec: &SweepSpec, configuration: &Configuration) -> Vec<f64> {
    spec.space.encode(configuration).into_iter().map(|coordinate| coordinate.unwrap_or(0.5)).collect()
}

/// What the steps of a trial took, steps that were taken back and made again included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// Steps.
    pub steps: u64,
    /// Their wall time, times the workers that made them. Evaluations, saving and waiting are not in it.
    pub worker_seconds: f64,
}

/// How much of the time of a run's steps counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goodput {
    /// Wall time of the steps that count.
    pub productive_micros: u64,
    /// Wall time of those that were taken back and made again.
    pub lost_micros: u64,
}

impl Goodput {
    /// The share that counts; none before the first step.
    pub fn share(self) -> Option<f64> {
        let all = self.productive_micros + self.lost_micros;
        (all > 0).then(|| self.productive_micros as f64 / all as f64)
    }
}

/// A trial that came to its end, and how far it would have gone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// The steps at which it ended.
    pub step: u64,
    /// The steps of a trial of this configuration that nobody ends early.
    pub full_steps: u64,
    /// What its steps took.
    pub effort: Effort,
}

/// What ending trials early saved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Saved {
    /// The trials that are counted: those that came to their end and made a step.
    pub trials: u32,
    /// The steps at which they ended.
    pub steps: u64,
    /// The steps at which they would have ended.
    pub full_steps: u64,
    /// What they took.
    pub worker_seconds: f64,
    /// What they would have taken, each at its own seconds per step.
    pub full_worker_seconds: f64,
}

/// What ending trials early saved, and [`None`] in a population, whose members are replaced and not ended.
pub fn saved(spec: &SweepSpec, courses: impl Iterator<Item = Course>) -> Option<Saved> {
    if matches!(spec.searcher, SearcherSpec::Population(_)) {
        return None;
    }
    let mut saved = Saved::default();
    for Course { step, full_steps, effort } in courses.filter(|course| course.effort.steps > 0) {
        saved.trials += 1;
        saved.steps += step;
        saved.full_steps += full_steps;
        saved.worker_seconds += effort.worker_seconds;
        saved.full_worker_seconds += effort.worker_seconds / effort.steps as f64 * full_steps as f64;
    }
    Some(saved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::scheduler::StopReason;
    use crate::spec::EvalMetric;
    use crate::spec::file::sweep::read;

    fn spec(searcher: &str) -> SweepSpec {
        let text = format!(
            "{{version: 1, name: s, job: {{data: {{format: idx, images: i, labels: l}}, train: {{epochs: 9}}, model: {{type: vit, \
             image: [4, 4], channels: 1, patch: 2, dim: 8, depth: 1, heads: 1, classes: 2}}}}, \
             space: {{schedule.lr: {{uniform: [0.5, 1.5]}}, optimizer.weight_decay: {{uniform: [0, 1]}}}}, \
             objectives: [{{metric: eval_accuracy}}, {{metric: eval_loss}}], trials: 90, searcher: {{type: {searcher}}}}}"
        );
        let base = std::path::Path::new("/");
        read(&text, "s.yaml", base, |_| Err("no other file".to_owned())).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn the_front_is_what_nothing_beats_in_all_objectives() {
        let accuracy_and_loss = [EvalMetric::EvalAccuracy, EvalMetric::EvalLoss].map(Objective::natural);
        let trials = [
            (0, vec![0.9, 0.5]),
            (1, vec![0.8, 0.4]),
            (2, vec![0.8, 0.6]),
            (3, vec![0.95, f64::NAN]),
            (4, vec![0.9, 0.5]),
            (7, vec![]),
        ];
        assert_eq!(front(&accuracy_and_loss, &trials), [0, 1, 4]);
        assert_eq!(front(&accuracy_and_loss[..1], &[(5, vec![0.1]), (6, vec![0.2])]), [6]);
        assert_eq!(front(&accuracy_and_loss, &[]), [0; 0]);
    }

    /// Trials on a line of learning rates; only those below `goes_on` were measured at the higher budget.
    fn facts(trials: u32, goes_on: u32) -> (BTreeMap<u32, Configuration>, Vec<Fact>) {
        let lr = |trial: u32| 0.5 + f64::from(trial) / f64::from(trials);
        let other = |trial: u32| f64::from(trial * 7 % trials) / f64::from(trials);
        let configuration = |trial| {
            let values = [("schedule.lr", lr(trial)), ("optimizer.weight_decay", other(trial))];
            values.map(|(path, value)| (path.to_owned(), crate::search::Value::Number(value))).into()
        };
        let rested = |budget: u64| {
            move |trial| Fact::Rested {
                trial,
                budget,
                losses: vec![lr(trial).into(), other(trial).into()],
                decision: Decision::Pause,
            }
        };
        let facts = (0..trials).map(rested(1)).chain((0..goes_on).map(rested(3))).collect();
        ((0..trials).map(|trial| (trial, configuration(trial))).collect(), facts)
    }

    #[test]
    fn parameters_matter_for_the_objective_that_they_decide() {
        let spec = spec("random");
        let (configurations, facts) = facts(40, 15);
        let Importances::Known { budget, trials, objectives } = importances(&spec, &configurations, &facts) else {
            panic!("40 trials are enough")
        };
        // Fifteen are less than half, and the best ones: they would say little.
        assert_eq!((budget, trials), (1, 40));
        let share = |objective: usize, path: &str| {
            objectives[objective].iter().find(|one| one.path == path).expect("a parameter of the space").share
        };
        assert!(share(0, "schedule.lr") > 0.9 && share(1, "optimizer.weight_decay") > 0.9, "{objectives:?}");
    }

    #[test]
    fn trials_are_compared_as_far_as_half_of_them_got() {
        let spec = spec("random");
        let (configurations, facts) = facts(30, 15);
        let known = importances(&spec, &configurations, &facts);
        assert!(matches!(known, Importances::Known { budget: 3, trials: 15, .. }), "{known:?}");
    }

    #[test]
    fn few_trials_say_nothing() {
        let spec = spec("random");
        let (configurations, facts) = facts(9, 9);
        assert_eq!(importances(&spec, &configurations, &facts), Importances::TooFew { have: 9, need: 10 });
        assert_eq!(importances(&spec, &configurations, &[]), Importances::TooFew { have: 0, need: 10 });
    }

    #[test]
    fn a_rung_counts_what_became_of_those_that_reached_it() {
        let reason = || StopReason::SweepEnded { budget: 1 };
        let rested = |trial, budget, decision| Fact::Rested { trial, budget, losses: Vec::new(), decision };
        let facts = [
            rested(0, 1, Decision::Pause),
            rested(1, 1, Decision::Stop(reason())),
            rested(2, 1, Decision::Pause),
            rested(3, 1, Decision::Continue { target: 3 }),
            Fact::Resumed { trial: 0, target: 3 },
            rested(3, 3, Decision::Complete),
            rested(0, 3, Decision::Pause),
            Fact::Ended { trial: 2, reason: reason() },
        ];
        let rung = |budget, reached, promoted, stopped| Rung { budget, reached, promoted, stopped };
        assert_eq!(rungs(&facts), [rung(1, 4, 2, 2), rung(3, 2, 1, 0)]);
        assert_eq!(rungs(&[]), []);
    }

    #[test]
    fn the_best_comes_first_and_what_is_no_number_last() {
        let accuracy = Objective::natural(EvalMetric::EvalAccuracy);
        let standing = |number, value, budget| Standing { value, budget, number };
        let mut trials = [
            standing(0, None, 9),
            standing(1, Some(0.5), 3),
            standing(2, Some(f64::NAN), 9),
            standing(3, Some(0.9), 3),
            standing(4, Some(0.9), 9),
            standing(5, Some(0.5), 3),
        ];
        trials.sort_by(|a, b| best_first(Some(&accuracy), *a, *b));
        assert_eq!(trials.map(|trial| trial.number), [4, 3, 1, 5, 0, 2]);
    }

    #[test]
    fn what_is_saved_is_priced_at_the_pace_of_each_trial() {
        let course =
            |step, steps, worker_seconds| Course { step, full_steps: 90, effort: Effort { steps, worker_seconds } };
        // The second made ten steps twice; of the third nothing is known.
        let courses = [course(90, 90, 90.0), course(10, 20, 40.0), course(5, 0, 0.0)];
        let expected =
            Saved { trials: 2, steps: 100, full_steps: 180, worker_seconds: 130.0, full_worker_seconds: 270.0 };
        assert_eq!(saved(&spec("random"), courses.into_iter()), Some(expected));
        assert_eq!(saved(&spec("population"), courses.into_iter()), None);
    }
}
