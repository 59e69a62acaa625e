//! Retention: which checkpoints stay. A pure function of the specification and the checkpoints.

use std::collections::BTreeSet;

use crate::ids::Step;
use crate::spec::{CheckpointSpec, EvalMetric};

/// A committed checkpoint as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Steps completed in it.
    pub step: Step,
    /// The run's metric, if it was measured at this step.
    pub metric: Option<f64>,
    /// Whether it is the run's result.
    pub result: bool,
    /// Whether a user wants it to stay.
    pub pinned: bool,
}

/// The steps whose checkpoints stay: the last `keep_last`, the best `keep_best` by `metric`, the multiples of
/// `keep_every_steps`, and always the newest, the result and what is pinned. One that is pinned counts among the last and the
/// best as it did before, so pinning and unpinning it changes nothing for the others.
pub fn kept(spec: &CheckpointSpec, metric: EvalMetric, candidates: &[Candidate]) -> BTreeSet<Step> {
    let mut newest_first: Vec<&Candidate> = candidates.iter().collect();
    newest_first.sort_by_key(|c| std::cmp::Reverse(c.step));
    let last = newest_first.iter().take(spec.keep_last.max(1) as usize).map(|c| c.step);
    let best = best_first(metric, candidates).into_iter().take(spec.keep_best as usize);
    let periodic = |step: Step| spec.keep_every_steps.is_some_and(|n| n > 0 && step.0.is_multiple_of(n));
    let always = candidates.iter().filter(|c| c.result || c.pinned || periodic(c.step)).map(|c| c.step);
    last.chain(best).chain(always).collect()
}

/// The step of the best checkpoint by `metric`; the earliest of equals. `None` if no metric is finite.
pub fn best(metric: EvalMetric, candidates: &[Candidate]) -> Option<Step> {
    best_first(metric, candidates).first().copied()
}

/// Measured checkpoints, best first, the earlier of equals first; those with a metric that is not finite are left out.
fn best_first(metric: EvalMetric, candidates: &[Candidate]) -> Vec<Step> {
    let mut measured: Vec<(f64, Step)> =
        candidates.iter().filter_map(|c| c.metric.filter(|m| m.is_finite()).map(|m| (m, c.step))).collect();
    measured.sort_by(|(a, a_step), (b, b_step)| {
        let better = match metric {
            EvalMetric::EvalLoss => a.total_cmp(b),
            EvalMetric::EvalAccuracy => b.total_cmp(a),
        };
        better.then(a_step.cmp(b_step))
    });
    measured.into_iter().map(|(_, step)| step).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::Every;

    fn spec(keep_last: u32, keep_best: u32, keep_every_steps: Option<u64>) -> CheckpointSpec {
        CheckpointSpec { every: Every::Steps(1), keep_last, keep_best, keep_every_steps }
    }

    fn candidates(metrics: &[(u64, f64)], result: Option<u64>) -> Vec<Candidate> {
        let candidate = |(step, metric): &(u64, f64)| Candidate {
            step: Step(*step),
            metric: (*metric != 0.0).then_some(*metric),
            result: result == Some(*step),
            pinned: false,
        };
        metrics.iter().map(candidate).collect()
    }

    #[test]
    fn what_stays() {
        use EvalMetric::{EvalAccuracy, EvalLoss};
        // A metric of 0 stands for a checkpoint that was not measured.
        let saved = [(1, 0.5), (2, 0.3), (3, 0.0), (4, 0.3), (5, f64::NAN), (6, 0.4)];
        let cases: &[(CheckpointSpec, EvalMetric, Option<u64>, &[u64])] = &[
            (spec(1, 0, None), EvalLoss, None, &[6]),
            (spec(0, 0, None), EvalLoss, None, &[6]),
            (spec(3, 0, None), EvalLoss, None, &[4, 5, 6]),
            (spec(1, 1, None), EvalLoss, None, &[2, 6]),
            (spec(1, 2, None), EvalLoss, None, &[2, 4, 6]),
            (spec(1, 1, None), EvalAccuracy, None, &[1, 6]),
            (spec(1, 9, None), EvalAccuracy, None, &[1, 2, 4, 6]),
            (spec(1, 0, Some(2)), EvalLoss, None, &[2, 4, 6]),
            (spec(1, 0, None), EvalLoss, Some(3), &[3, 6]),
        ];
        for (spec, metric, result, expected) in cases {
            let stays: Vec<u64> = kept(spec, *metric, &candidates(&saved, *result)).iter().map(|s| s.0).collect();
            assert_eq!(stays, *expected, "{spec:?} by {metric:?}, result {result:?}");
        }
        assert_eq!(best(EvalLoss, &candidates(&saved, None)), Some(Step(2)), "the earlier of equals is the best");
        assert_eq!(best(EvalLoss, &candidates(&[(1, 0.0), (2, f64::NAN)], None)), None);
        assert!(kept(&spec(1, 1, None), EvalLoss, &[]).is_empty());
        let mut pinned = candidates(&saved, None);
        pinned[0].pinned = true;
        let stays: Vec<u64> = kept(&spec(2, 1, None), EvalLoss, &pinned).iter().map(|s| s.0).collect();
        assert_eq!(stays, [1, 2, 5, 6], "what is pinned stays beside the others");
    }

    proptest! {
        #[test]
        fn retention_is_bounded_stable_and_never_takes_the_newest(
            metrics in prop::collection::btree_map(1u64..60, 0.0f64..1.0, 1..20),
            keep_last in 1u32..4, keep_best in 0u32..4,
        ) {
            let metrics: Vec<(u64, f64)> = metrics.into_iter().collect();
            let spec = spec(keep_last, keep_best, None);
            let all = candidates(&metrics, None);
            let stays = kept(&spec, EvalMetric::EvalLoss, &all);
            prop_assert!(stays.contains(&all.last().unwrap().step));
            prop_assert!(stays.len() <= (keep_last + keep_best) as usize);
            let left: Vec<Candidate> = all.iter().copied().filter(|c| stays.contains(&c.step)).collect();
            prop_assert_eq!(kept(&spec, EvalMetric::EvalLoss, &left), stays);
        }
    }
}
