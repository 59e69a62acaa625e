use std::collections::BTreeMap;

use proptest::prelude::*;

use super::simulate::{Portion, PowerLaw, Timeline, World, simulate};
use super::*;
use crate::random::{Purpose, Stream};
use crate::search::cma_es::CmaEsSpec;
use crate::search::nsga2::Nsga2Spec;
use crate::search::population::PopulationSpec;
use crate::search::scheduler::{
    AshaSpec, HyperbandSpec, MedianSpec, Mode, NoneSpec, PatienceSpec, PercentileSpec, SchedulerSpec, ThresholdSpec,
};
use crate::search::searcher::SearcherSpec;
use crate::search::space::{Configuration, Domain, Parameter};
use crate::search::tpe::TpeSpec;
use crate::search::warm_start::Observation;

fn space() -> Space {
    let number = |path: &str| Parameter {
        path: path.to_owned(),
        domain: Domain::LogUniform { low: 1e-4, high: 1.0 },
        when: None,
    };
    Space::new(vec![number("schedule.lr_max"), number("optimizer.weight_decay")])
}

fn spec(scheduler: SchedulerSpec, trials: u32) -> StudySpec {
    let limits = Limits { trials: Some(trials), ..Limits::default() };
    StudySpec { searcher: SearcherSpec::Random, scheduler, limits, lock_step: None, prior: Vec::new() }
}

fn asha(eta: u32, mode: Mode) -> SchedulerSpec {
    SchedulerSpec::Asha(AshaSpec { min: 1, max: 27, eta, mode })
}

fn schedulers() -> Vec<SchedulerSpec> {
    vec![
        SchedulerSpec::None(NoneSpec { max: 4 }),
        asha(3, Mode::Pause),
        asha(3, Mode::Stop),
        SchedulerSpec::Hyperband(HyperbandSpec { min: 1, max: 27, eta: 3 }),
        SchedulerSpec::Median(MedianSpec { max: 6, interval: 2, ..MedianSpec::default() }),
        SchedulerSpec::Percentile(PercentileSpec { max: 6, interval: 2, ..PercentileSpec::default() }),
        SchedulerSpec::Patience(PatienceSpec { max: 6, evaluations: 1, ..PatienceSpec::default() }),
        SchedulerSpec::Threshold(ThresholdSpec { max: 6, limit: Some(2.0), ..ThresholdSpec::default() }),
        SchedulerSpec::Population(PopulationSpec { size: 8, interval: 2, max: 10, ..PopulationSpec::default() }),
    ]
}

/// Curves with durations, failures and losses that are not finite, all keyed by trial and budget.
struct Rough {
    curves: PowerLaw,
    timing: u64,
    failures: bool,
    attempts: BTreeMap<(u32, u64), u32>,
}

impl Rough {
    fn new(timing: u64, failures: bool) -> Self {
        Self { curves: PowerLaw::new(&space(), 7), timing, failures, attempts: BTreeMap::new() }
    }
}

impl World for Rough {
    fn duration_ms(&mut self, portion: &Portion<'_>) -> u64 {
        let coordinates = [self.timing, u64::from(portion.trial), portion.to];
        1 + Stream::new(9, Purpose::Simulation, &coordinates).below(1000)
    }

    fn outcome(&mut self, portion: &Portion<'_>) -> Result<Vec<f64>, String> {
        let attempt = self.attempts.entry((portion.trial, portion.to)).or_insert(0);
        *attempt += 1;
        let coordinates = [u64::from(portion.trial), portion.to, u64::from(*attempt)];
        let fate = Stream::new(11, Purpose::Simulation, &coordinates).below(20);
        match fate {
            0 | 1 if self.failures => Err("out of memory".to_owned()),
            2 => Ok(vec![f64::NAN]),
            _ => self.curves.outcome(portion),
        }
    }
}

fn play(spec: StudySpec, slots: u32, timing: u64, failures: bool) -> (Study, Timeline) {
    let mut study = Study::new(spec, space(), 3);
    let timeline = simulate(&mut study, slots, &mut Rough::new(timing, failures));
    (study, timeline)
}

#[test]
fn every_scheduler_comes_to_its_end_and_leaves_nothing_open() {
    for scheduler in schedulers() {
        for lock_step in [None, Some(LockStep { wave: 5 })] {
            let max = scheduler.max();
            let (study, timeline) = play(StudySpec { lock_step, ..spec(scheduler.clone(), 60) }, 4, 0, true);
            assert!(matches!(timeline.reason, FinishReason::Done { .. }), "{scheduler:?}: {}", timeline.reason);
            assert!(study.trials().iter().all(|t| t.phase().is_over() && t.budget() <= max), "{scheduler:?}");
            assert!(study.trials().len() <= 60 && study.checkpoints().is_empty());
            let complete = study.trials().iter().filter(|t| t.phase() == Phase::Complete).count();
            assert!(complete > 0, "{scheduler:?} completes nothing");
            // Everything that began ended exactly once.
            let mut ends = BTreeMap::new();
            for fact in study.facts() {
                match fact {
                    Fact::Rested { trial, decision: Decision::Stop(_) | Decision::Complete, .. }
                    | Fact::Failed { trial, after: AfterFailure::Failed { .. }, .. }
                    | Fact::Ended { trial, .. } => *ends.entry(trial).or_insert(0) += 1,
                    _ => {}
                }
            }
            assert!(ends.len() == study.trials().len() && ends.values().all(|n| *n == 1), "{scheduler:?}: {ends:?}");
        }
    }
}

fn learners() -> Vec<SearcherSpec> {
    vec![
        SearcherSpec::Tpe(TpeSpec { startup: 6, ..TpeSpec::default() }),
        SearcherSpec::CmaEs(CmaEsSpec::default()),
        SearcherSpec::Nsga2(Nsga2Spec { population: 6, ..Nsga2Spec::default() }),
    ]
}

/// Six good trials around 0.7, many bad ones below, and one of another sweep altogether.
fn prior() -> Vec<Observation> {
    let observation = |point: [f64; 2], loss: f64| Observation {
        configuration: space().decode(&point),
        budget: 1,
        losses: vec![loss.into()],
    };
    let good = (0..6).map(|i| observation([0.7, 0.7 + f64::from(i) / 1000.0], f64::from(i)));
    let bad = (0..24).map(|i| observation([f64::from(i) / 48.0, f64::from(i * 7 % 24) / 24.0], 100.0 + f64::from(i)));
    let mut prior: Vec<Observation> = good.chain(bad).collect();
    prior.push(Observation { configuration: Configuration::new(), ..prior[0].clone() });
    prior
}

#[test]
fn searchers_that_learn_are_replayed_with_what_they_knew() {
    for searcher in learners() {
        for scheduler in [SchedulerSpec::None(NoneSpec { max: 4 }), asha(3, Mode::Pause), asha(3, Mode::Stop)] {
            for lock_step in [None, Some(LockStep { wave: 5 })] {
                let spec =
                    StudySpec { searcher: searcher.clone(), lock_step, prior: prior(), ..spec(scheduler.clone(), 60) };
                let (study, timeline) = play(spec.clone(), 4, 0, true);
                assert!(matches!(timeline.reason, FinishReason::Done { .. }), "{spec:?}: {}", timeline.reason);
                let facts: Vec<Fact> = study.facts().collect();
                let again = Study::replayed(spec, space(), 3, &facts).unwrap();
                let told = |study: &Study| {
                    study.trials().iter().map(|t| (t.point().to_vec(), t.phase(), t.budget())).collect::<Vec<_>>()
                };
                assert_eq!(told(&again), told(&study));
            }
        }
    }
}

#[test]
fn what_is_known_is_used_from_the_first_trial() {
    for searcher in learners() {
        let with = |prior: Vec<Observation>| {
            let spec =
                StudySpec { searcher: searcher.clone(), prior, ..spec(SchedulerSpec::None(NoneSpec { max: 1 }), 60) };
            let mut study = Study::new(spec, space(), 3);
            (0..10).for_each(|_| assert!(matches!(study.next(), Next::Start { .. })));
            let distances = study.trials().iter().map(|trial| (trial.point()[0] - 0.7).abs());
            distances.sum::<f64>() / 10.0
        };
        assert!(with(prior()) < 0.6 * with(Vec::new()), "{searcher:?}: {} {}", with(prior()), with(Vec::new()));
    }
}

#[test]
fn a_paused_trial_counts_in_its_generation() {
    let points = |population: u32| {
        let searcher = SearcherSpec::Nsga2(Nsga2Spec { population, ..Nsga2Spec::default() });
        let (study, _) = play(StudySpec { searcher, ..spec(asha(3, Mode::Pause), 30) }, 4, 0, false);
        study.trials().iter().map(|trial| trial.point().to_vec()).collect::<Vec<_>>()
    };
    let (learnt, spread) = (points(8), points(1000));
    assert_eq!(learnt[..8], spread[..8]);
    // Four are under way when the eighth comes to rest.
    assert!(learnt.iter().zip(&spread).skip(12).all(|(a, b)| a != b));
}

#[test]
fn too_many_failures_in_a_row_end_the_study_with_their_cause() {
    let mut limited = spec(SchedulerSpec::None(NoneSpec { max: 1 }), 100);
    limited.limits = Limits { retries: 1, max_consecutive_failures: Some(2), ..limited.limits };
    let mut study = Study::new(limited, space(), 3);
    for trial in 0..2 {
        assert!(matches!(study.next(), Next::Start { trial: t, .. } if t == trial));
        let again = AfterFailure::Retry { from: 0, target: 1, attempt: 1 };
        assert_eq!(study.failed(trial, "no data"), again);
        assert_eq!(study.failed(trial, "no data"), AfterFailure::Failed { attempts: 2 });
    }
    let reason = FinishReason::TooManyFailures { failures: 2, cause: "no data".to_owned() };
    assert_eq!(study.next(), Next::Finished(reason));
}

#[test]
fn out_of_time_lets_what_trains_rest_and_ends_the_others() {
    let mut study = Study::new(spec(asha(3, Mode::Pause), 100), space(), 3);
    (0..2).for_each(|trial| assert!(matches!(study.next(), Next::Start { trial: t, .. } if t == trial)));
    assert_eq!(study.rested(0, 1, &[1.0]), Decision::Pause);
    study.out_of_time();
    assert_eq!(study.next(), Next::Wait(WaitReason::Results { training: 1 }));
    assert_eq!(study.rested(1, 1, &[0.5]), Decision::Pause);
    assert!(matches!(study.next(), Next::End { trial: 0, reason: StopReason::NotPromoted(_) }));
    assert!(matches!(study.next(), Next::End { trial: 1, .. }));
    assert_eq!(study.next(), Next::Finished(FinishReason::OutOfTime));
}

#[test]
fn a_wave_that_is_cut_by_the_time_replays() {
    for taken in 0..=4 {
        for rested in 0..=taken {
            let mut cut = spec(asha(3, Mode::Pause), 100);
            cut.lock_step = Some(LockStep { wave: 4 });
            let mut study = Study::new(cut.clone(), space(), 3);
            (0..taken).for_each(|trial| assert!(matches!(study.next(), Next::Start { trial: t, .. } if t == trial)));
            (0..rested).for_each(|trial| {
                study.rested(trial, 1, &[f64::from(trial)]);
            });
            study.out_of_time();
            let planned: Vec<u32> = if taken == 0 { Vec::new() } else { (taken..4).collect() };
            assert!(study.facts().any(|fact| fact == Fact::OutOfTime { planned: planned.clone() }), "{taken}");
            (rested..taken).for_each(|trial| {
                study.rested(trial, 1, &[f64::from(trial)]);
            });
            let is_over = |_| matches!(study.next(), Next::Finished(FinishReason::OutOfTime));
            assert!((0..20).any(is_over), "the study does not come to an end");
            let facts: Vec<Fact> = study.facts().collect();
            let replayed = Study::replayed(cut, space(), 3, &facts).unwrap_or_else(|e| panic!("{taken} {rested}: {e}"));
            assert_eq!(replayed.trials(), study.trials());
        }
    }
}

#[test]
fn another_setting_is_derived_from_the_recorded_curves() {
    let recorded = spec(asha(3, Mode::Stop), 60);
    let (study, _) = play(recorded.clone(), 4, 0, false);
    let facts: Vec<Fact> = study.facts().collect();
    let same = replay(&facts, &recorded, 3);
    assert!(same.iter().all(|row| row.old.as_ref().map(|old| Renewed::Decided(old.clone())) == Some(row.new.clone())));
    // All pass where nothing is stopped, so what was stopped in the record is unknown beyond.
    let lenient = spec(SchedulerSpec::None(NoneSpec { max: 27 }), 60);
    let unknown = replay(&facts, &lenient, 3).iter().filter(|r| matches!(r.new, Renewed::UnknownBeyond { .. })).count();
    let stopped = study.trials().iter().filter(|t| t.phase() == Phase::Stopped).count();
    assert_eq!(unknown, stopped);
    // A stricter ladder with the same first rungs stops earlier.
    let strict = spec(SchedulerSpec::Asha(AshaSpec { min: 1, max: 27, eta: 9, mode: Mode::Stop }), 60);
    let rows = replay(&facts, &strict, 3);
    assert!(rows.iter().any(|row| matches!(row.new, Renewed::EndedBefore { budget: 1 })), "{rows:?}");
    assert!(rows.iter().any(|row| row.budget == 3 && row.new == Renewed::NoRest), "{rows:?}");
}

#[test]
fn ten_thousand_trials_of_a_second_take_little_more_than_the_ideal() {
    let mut study = Study::new(spec(SchedulerSpec::None(NoneSpec { max: 1 }), 10_000), space(), 3);
    let timeline = simulate(&mut study, 16, &mut PowerLaw::new(&space(), 1));
    let ideal = timeline.busy_ms.div_ceil(16);
    assert_eq!((timeline.portions, timeline.peak), (10_000, 16));
    assert!(timeline.makespan_ms * 100 <= ideal * 101, "{timeline:?}, ideal {ideal} ms");
}

#[test]
fn a_trial_takes_less_than_two_kilobytes() {
    let mut study = Study::new(spec(asha(3, Mode::Pause), 20_000), space(), 3);
    let timeline = simulate(&mut study, 64, &mut PowerLaw::new(&space(), 1));
    assert_eq!(timeline.trials, 20_000);
    assert!(study.bytes() < 20_000 * 2_000, "{} bytes", study.bytes());
}

#[test]
fn losses_that_are_not_finite_everywhere_end_a_study_too() {
    struct Hopeless;
    impl World for Hopeless {
        fn duration_ms(&mut self, _: &Portion<'_>) -> u64 {
            1
        }
        fn outcome(&mut self, _: &Portion<'_>) -> Result<Vec<f64>, String> {
            Ok(vec![f64::NAN])
        }
    }
    for scheduler in schedulers() {
        let mut study = Study::new(spec(scheduler, 40), space(), 3);
        let timeline = simulate(&mut study, 3, &mut Hopeless);
        assert_eq!(timeline.best, None);
        assert!(study.trials().iter().all(|trial| trial.phase().is_over()));
    }
}

fn any_scheduler() -> impl Strategy<Value = SchedulerSpec> {
    prop::sample::select(schedulers())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn limits_hold(
        scheduler in any_scheduler(),
        (slots, most) in (1u32..9, 1u32..6),
        total in 1u64..400,
        timing in 0u64..1000,
        lock in prop::option::of(1u32..7),
    ) {
        let mut limited = spec(scheduler, 40);
        limited.limits.max_concurrent = Some(most);
        limited.limits.total_budget = Some(total);
        limited.limits.retries = 0;
        limited.lock_step = lock.map(|wave| LockStep { wave });
        let (study, timeline) = play(limited, slots, timing, true);
        prop_assert!(timeline.peak <= most.min(slots));
        prop_assert!(timeline.budget <= total && study.spent() <= total);
        prop_assert!(study.trials().iter().all(|trial| trial.phase().is_over()));
    }

    #[test]
    fn facts_make_the_same_study_and_the_same_decisions(
        scheduler in any_scheduler(),
        slots in 1u32..9,
        timing in 0u64..1000,
        failures in any::<bool>(),
        lock in prop::option::of(1u32..7),
    ) {
        let recorded = StudySpec { lock_step: lock.map(|wave| LockStep { wave }), ..spec(scheduler, 40) };
        let (study, _) = play(recorded.clone(), slots, timing, failures);
        let facts: Vec<Fact> = study.facts().collect();
        let again = Study::replayed(recorded.clone(), space(), 3, &facts);
        prop_assert!(again.is_ok(), "{}", again.unwrap_err());
        prop_assert_eq!(again.unwrap().trials().len(), study.trials().len());
        if !failures {
            for row in replay(&facts, &recorded, 3) {
                let expected = row.old.clone().map(Renewed::Decided);
                prop_assert_eq!(expected, Some(row.new.clone()), "{:?}", row);
            }
        }
        let json = serde_json::to_string(&facts).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Fact>>(&json).unwrap(), facts);
    }

    #[test]
    fn in_lock_step_neither_slots_nor_timing_matter(
        scheduler in any_scheduler(),
        timing in 0u64..1000,
        wave in 1u32..9,
    ) {
        let locked = StudySpec { lock_step: Some(LockStep { wave }), ..spec(scheduler, 40) };
        let (one, _) = play(locked.clone(), 1, 0, true);
        let facts: Vec<Fact> = one.facts().collect();
        for slots in [2, 4] {
            let (other, _) = play(locked.clone(), slots, timing, true);
            prop_assert_eq!(&facts, &other.facts().collect::<Vec<_>>());
            prop_assert!(one.trials().iter().zip(other.trials()).all(|(a, b)| a.point() == b.point()));
        }
    }
}
