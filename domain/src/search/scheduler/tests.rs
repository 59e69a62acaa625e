use proptest::prelude::*;

use super::*;

fn promoted(scheduler: &mut Scheduler) -> Vec<(u32, u64)> {
    let mut list = Vec::new();
    while let Some(promotion) = scheduler.promotable() {
        scheduler.promote();
        list.push(promotion);
    }
    list
}

#[test]
fn rungs_grow_by_eta_and_end_at_the_maximum() {
    let table: [(u64, u64, u32, &[u64]); 4] =
        [(1, 81, 3, &[1, 3, 9, 27, 81]), (2, 20, 3, &[2, 6, 18, 20]), (5, 5, 4, &[5]), (9, 5, 2, &[5])];
    for (min, max, eta, expected) in table {
        assert_eq!(rung_budgets(min, max, eta), expected);
    }
}

#[test]
fn brackets_are_those_of_the_paper() {
    // Li et al. 2018, table 1: R = 81, eta = 3.
    let expected: Vec<Vec<(u32, u64)>> = vec![
        vec![(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        vec![(34, 3), (11, 9), (3, 27), (1, 81)],
        vec![(15, 9), (5, 27), (1, 81)],
        vec![(8, 27), (2, 81)],
        vec![(5, 81)],
    ];
    assert_eq!(bracket_sizes(1, 81, 3), expected);
    assert_eq!(bracket_sizes(1, 80, 3).len(), 4, "80 is less than 3^4");
    assert_eq!(bracket_sizes(7, 7, 3), [[(1, 7)]]);
}

#[test]
fn a_stopping_ladder_keeps_those_that_are_among_the_best_on_arrival() {
    let spec = AshaSpec { min: 1, max: 9, eta: 3, mode: Mode::Stop };
    let mut asha = Scheduler::new(&SchedulerSpec::Asha(spec), 0);
    let table =
        [(0, 5.0, true), (1, 4.0, true), (2, 6.0, false), (3, 4.0, false), (4, f64::NAN, false), (5, 3.5, true)];
    for (trial, loss, goes_on) in table {
        assert_eq!(asha.start(trial), 1);
        let decision = asha.rested(trial, 1, loss);
        assert_eq!(decision == Decision::Continue { target: 3 }, goes_on, "trial {trial}: {decision:?}");
        assert!(goes_on || matches!(decision, Decision::Stop(_)));
    }
}

#[test]
fn a_bracket_promotes_when_its_rung_is_complete_and_slots_go_on_with_the_next() {
    let spec = HyperbandSpec { min: 1, max: 9, eta: 3 };
    let mut hyperband = Scheduler::new(&SchedulerSpec::Hyperband(spec), 0);
    let targets: Vec<u64> = (0..18).map(|trial| hyperband.start(trial)).collect();
    assert_eq!(targets, [[1; 9].as_slice(), &[3; 5], &[9; 3], &[1; 1]].concat());
    (0..8).for_each(|trial| assert_eq!(hyperband.rested(trial, 1, -f64::from(trial)), Decision::Pause));
    assert_eq!(hyperband.promotable(), None);
    hyperband.failed(8);
    assert_eq!(promoted(&mut hyperband), [(7, 3), (6, 3), (5, 3)]);
    let ended: Vec<u32> = std::iter::from_fn(|| hyperband.pop_end()).map(|end| end.0).collect();
    assert_eq!(ended, [4, 3, 2, 1, 0]);
    assert_eq!(hyperband.rested(14, 9, 1.0), Decision::Complete);
    // The bracket of trial 17 will have no other: it ends with its only trial.
    assert_eq!(hyperband.rested(17, 1, 1.0), Decision::Pause);
    hyperband.no_more_proposals();
    assert_eq!((promoted(&mut hyperband), hyperband.pop_end().map(|end| end.0)), (vec![], Some(17)));
}

#[test]
fn the_median_rule_is_the_one_computed_by_hand() {
    let spec = MedianSpec { max: 3, interval: 1, warm_up: 2, min_trials: 3, ..MedianSpec::default() };
    let mut median = Scheduler::new(&SchedulerSpec::Median(spec), 0);
    // Running averages at budget 2: 2.0, 3.0, 4.0, 8.0.
    for (trial, first, second) in [(0, 3.0, 1.0), (1, 4.0, 2.0), (2, 5.0, 3.0), (3, 9.0, 7.0)] {
        assert_eq!(median.rested(trial, 1, first), Decision::Continue { target: 2 });
        let decision = median.rested(trial, 2, second);
        // Trial 3 has three peers with the median 3.0, and its best is 7.0.
        assert_eq!(matches!(decision, Decision::Stop(_)), trial == 3, "{decision:?}");
    }
    // Four peers: the median is (3.0 + 4.0) / 2, which the best loss of the trial may equal.
    median.rested(4, 1, 9.0);
    assert_eq!(median.rested(4, 2, 3.5), Decision::Continue { target: 3 });
    median.rested(6, 1, 9.0);
    let Decision::Stop(StopReason::WorseThanPeers(comparison)) = median.rested(6, 2, 4.5) else {
        panic!("4.5 is worse than the median 4.0 of 2.0, 3.0, 4.0, 6.25, 8.0");
    };
    assert_eq!((f64::from(comparison.cutoff), comparison.kept, comparison.rank, comparison.of), (4.0, 3, 4, 6));
    assert_eq!(comparison.peers, [0, 1, 2, 4, 3]);
}

#[test]
fn a_percentile_is_interpolated_among_the_best_losses_of_peers() {
    let spec = PercentileSpec { max: 2, interval: 1, percentile: 25.0, min_trials: 4, ..PercentileSpec::default() };
    let mut percentile = Scheduler::new(&SchedulerSpec::Percentile(spec), 0);
    for (trial, loss, stops) in [
        (0, 1.0, false),
        (1, 2.0, false),
        (2, 3.0, false),
        (3, 4.0, false),
        // The quarter of 1, 2, 3, 4 is 1.75, that of 1, 1.7, 2, 3, 4 is 1.7.
        (4, 1.7, false),
        (5, 1.75, true),
        (6, f64::NAN, true),
    ] {
        let decision = percentile.rested(trial, 1, loss);
        assert_eq!(matches!(decision, Decision::Stop(_)), stops, "{trial}: {decision:?}");
    }
}

#[test]
fn patience_and_threshold_follow_their_tables() {
    let spec = PatienceSpec { max: 10, interval: 2, evaluations: 2, min_delta: 0.1, ..PatienceSpec::default() };
    let mut patience = Scheduler::new(&SchedulerSpec::Patience(spec), 0);
    patience.measured(0, 1.0);
    assert_eq!(patience.rested(0, 2, 0.95), Decision::Continue { target: 4 });
    patience.measured(0, 0.8);
    assert_eq!(patience.rested(0, 4, 0.75), Decision::Continue { target: 6 });
    let Decision::Stop(StopReason::Patience { evaluations: 2, best, .. }) = patience.rested(0, 6, f64::NAN) else {
        panic!("two evaluations without an improvement");
    };
    assert_eq!(f64::from(best), 0.8);

    let spec = ThresholdSpec { max: 9, interval: 4, warm_up: 8, limit: Some(2.0) };
    let mut threshold = Scheduler::new(&SchedulerSpec::Threshold(spec), 0);
    assert_eq!(threshold.rested(0, 4, 99.0), Decision::Continue { target: 8 });
    assert_eq!(threshold.rested(0, 8, 2.0), Decision::Continue { target: 9 });
    assert!(matches!(threshold.rested(1, 8, 2.1), Decision::Stop(StopReason::Threshold { .. })));
    assert!(matches!(threshold.rested(1, 8, f64::INFINITY), Decision::Stop(StopReason::NotFinite { .. })));
    assert_eq!(threshold.rested(1, 9, 99.0), Decision::Complete);
}

proptest! {
    /// Losses are small whole numbers, so that there are ties; some are not finite.
    #[test]
    fn a_rung_promotes_exactly_its_best(losses in prop::collection::vec(0u32..40, 1..120), eta in 2u32..5) {
        let loss = |code: u32| if code == 0 { f64::NAN } else { f64::from(code) };
        let spec = AshaSpec { min: 1, max: 100, eta, mode: Mode::Pause };
        let mut asha = Scheduler::new(&SchedulerSpec::Asha(spec), 0);
        for (trial, code) in losses.iter().enumerate() {
            asha.rested(trial as u32, 1, loss(*code));
        }
        let mut order: Vec<u32> = (0..losses.len() as u32).collect();
        order.sort_by_key(|trial| (if losses[*trial as usize] == 0 { 99 } else { losses[*trial as usize] }, *trial));
        let best = order.iter().take(losses.len() / eta as usize);
        let expected: Vec<(u32, u64)> = best.filter(|t| losses[**t as usize] != 0).map(|t| (*t, eta.into())).collect();
        prop_assert_eq!(promoted(&mut asha), expected);
    }

    /// Results come one by one and promotions are taken at once, so early ones may be of trials that fall behind later.
    #[test]
    fn whoever_is_promoted_was_among_the_best_then(losses in prop::collection::vec(1u32..40, 1..100), eta in 2u32..5) {
        let spec = AshaSpec { min: 1, max: 100, eta, mode: Mode::Pause };
        let mut asha = Scheduler::new(&SchedulerSpec::Asha(spec), 0);
        let mut seen: Vec<u32> = Vec::new();
        for (trial, code) in losses.iter().enumerate() {
            asha.rested(trial as u32, 1, f64::from(*code));
            let mut order: Vec<u32> = (0..=trial as u32).collect();
            order.sort_by_key(|t| (losses[*t as usize], *t));
            let best = &order[..order.len() / eta as usize];
            for (promoted, target) in promoted(&mut asha) {
                prop_assert_eq!(target, u64::from(eta));
                prop_assert!(best.contains(&promoted) && !seen.contains(&promoted));
                seen.push(promoted);
            }
            prop_assert!(best.iter().all(|t| seen.contains(t)));
        }
    }
}
