//! Early stopping: a pure function of the evaluations, so that every worker and the engine reach the same verdict at the
//! same step, whatever the timing.
//!
//! The worker asks right after each evaluation and keeps the [`Stopper`] with the training state; the engine runs the same
//! code over [`crate::engine::Event::Measured`] to know the reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::MetricValue;
use crate::ids::Step;
use crate::spec::{EarlyStoppingSpec, EvalMetric};

/// Watches the metric of a run. Its state belongs to the training state and is saved in checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stopper {
    spec: EarlyStoppingSpec,
    best: Option<Best>,
    without_improvement: u32,
    newest: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Best {
    step: Step,
    value: MetricValue,
}

/// Whether training goes on after an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes on.
    Continue,
    /// It ends with this step.
    Stop(StopReason),
}

/// Why the evaluations ended a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Too many evaluations in a row brought no improvement.
    Patience {
        /// What was watched.
        metric: EvalMetric,
        /// Evaluations without an improvement.
        evaluations: u32,
        /// The best value; absent if no value was finite.
        best: Option<MetricValue>,
        /// Where it was measured.
        best_step: Step,
        /// The last value.
        last: MetricValue,
        /// Where it was measured.
        last_step: Step,
    },
    /// The metric is good enough.
    Threshold {
        /// What was watched.
        metric: EvalMetric,
        /// The value that sufficed.
        value: MetricValue,
        /// Where it was measured.
        step: Step,
        /// What it had to reach.
        threshold: MetricValue,
    },
}

impl Stopper {
    /// A stopper that has seen nothing yet.
    pub fn new(spec: &EarlyStoppingSpec) -> Self {
        Self { spec: spec.clone(), best: None, without_improvement: 0, newest: None }
    }

    /// Takes in the evaluation at `step`. One that is not later than the newest changes nothing.
    pub fn observe(&mut self, step: Step, eval_loss: f64, eval_accuracy: f64) -> Verdict {
        if self.newest.is_some_and(|newest| step <= newest) {
            return Verdict::Continue;
        }
        self.newest = Some(step);
        let metric = self.spec.metric;
        let value = metric.of(eval_loss, eval_accuracy);
        let old = self.best.map_or(f64::NAN, |best| best.value.into());
        if metric.improves(value, old, self.spec.min_delta) {
            self.best = Some(Best { step, value: value.into() });
            self.without_improvement = 0;
        } else {
            self.without_improvement += 1;
        }
        self.verdict(step, value)
    }

    fn verdict(&self, step: Step, value: f64) -> Verdict {
        let metric = self.spec.metric;
        if let Some(threshold) = self.spec.threshold.filter(|threshold| metric.reaches(value, *threshold)) {
            return Verdict::Stop(StopReason::Threshold {
                metric,
                value: value.into(),
                step,
                threshold: threshold.into(),
            });
        }
        if self.spec.patience.is_some_and(|patience| self.without_improvement >= patience) {
            return Verdict::Stop(StopReason::Patience {
                metric,
                evaluations: self.without_improvement,
                best: self.best.map(|best| best.value),
                best_step: self.best.map_or(Step(0), |best| best.step),
                last: value.into(),
                last_step: step,
            });
        }
        Verdict::Continue
    }
}

impl StopReason {
    /// The step that it made the last one.
    pub fn step(&self) -> Step {
        match self {
            StopReason::Patience { last_step, .. } => *last_step,
            StopReason::Threshold { step, .. } => *step,
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Patience { metric, evaluations, best: Some(best), best_step, last, last_step } => write!(
                f,
                "{} did not improve in {evaluations} evaluations: best {:.6} at step {best_step}, last {:.6} at step {last_step}",
                metric.name(),
                f64::from(*best),
                f64::from(*last),
            ),
            StopReason::Patience { metric, evaluations, best: None, best_step: _, last, last_step } => write!(
                f,
                "{} was not finite in {evaluations} evaluations, last {} at step {last_step}",
                metric.name(),
                f64::from(*last),
            ),
            StopReason::Threshold { metric, value, step, threshold } => {
                let (value, threshold) = (f64::from(*value), f64::from(*threshold));
                write!(f, "{} reached {value:.6} at step {step}, the threshold is {threshold}", metric.name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(metric: EvalMetric, patience: Option<u32>, min_delta: f64, threshold: Option<f64>) -> EarlyStoppingSpec {
        EarlyStoppingSpec { metric, patience, min_delta, threshold, max_seconds: None }
    }

    /// Feeds `values` at steps 10, 20, ..; expects the reason of the first stop, if any.
    fn check(spec: &EarlyStoppingSpec, values: &[f64], expected: Option<&str>) {
        let mut stopper = Stopper::new(spec);
        let mut first = None;
        for (index, value) in values.iter().enumerate() {
            let step = Step(10 * (index as u64 + 1));
            // It goes through JSON before every evaluation, as in a checkpoint.
            let json = serde_json::to_string(&stopper).unwrap();
            stopper = serde_json::from_str(&json).unwrap();
            if let (Verdict::Stop(reason), None) = (stopper.observe(step, *value, *value), &first) {
                assert_eq!(reason.step(), step);
                first = Some(reason.to_string());
            }
            assert_eq!(stopper.observe(step, 0.0, 1.0), Verdict::Continue, "a repeated evaluation does not count");
        }
        assert_eq!(first.as_deref(), expected, "{spec:?} over {values:?}");
    }

    #[test]
    fn verdicts() {
        use EvalMetric::{EvalAccuracy, EvalLoss};
        let nan = f64::NAN;
        let cases: &[(EarlyStoppingSpec, &[f64], Option<&str>)] = &[
            (spec(EvalLoss, None, 0.0, None), &[1.0, 2.0, 3.0, nan], None),
            (
                spec(EvalLoss, Some(2), 0.0, None),
                &[0.5, 0.4, 0.4, 0.45],
                Some("eval_loss did not improve in 2 evaluations: best 0.400000 at step 20, last 0.450000 at step 40"),
            ),
            (spec(EvalLoss, Some(2), 0.0, None), &[0.5, 0.6, 0.4, 0.5, 0.3], None),
            (
                spec(EvalLoss, Some(2), 0.1, None),
                &[0.5, 0.45, 0.42],
                Some("eval_loss did not improve in 2 evaluations: best 0.500000 at step 10, last 0.420000 at step 30"),
            ),
            (spec(EvalAccuracy, Some(2), 0.0, None), &[0.5, 0.6, 0.7, 0.8], None),
            (
                spec(EvalLoss, Some(2), 0.0, None),
                &[nan, nan],
                Some("eval_loss was not finite in 2 evaluations, last NaN at step 20"),
            ),
            (
                spec(EvalAccuracy, Some(1), 0.0, Some(0.97)),
                &[0.5, 0.97],
                Some("eval_accuracy reached 0.970000 at step 20, the threshold is 0.97"),
            ),
            (spec(EvalLoss, None, 0.0, Some(0.1)), &[0.5, nan, 0.11], None),
        ];
        for (spec, values, expected) in cases {
            check(spec, values, *expected);
        }
    }
}
