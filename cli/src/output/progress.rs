//! What is worth telling about a run that is being watched: pure, so that the clock can be moved by tests.

use std::collections::VecDeque;
use std::time::Duration;

use domain::batch::BatchPlan;
use domain::spec::JobSpec;
use proto::convert::EVALS_SHOWN_MAX;
use proto::v1::{EvalPoint, Run, RunState, StepPoint};

/// Rates are taken over this much time: long enough to be calm, short enough to show a lost worker.
const WINDOW: Duration = Duration::from_secs(5);

/// The most points of the window; at more messages than that in [`WINDOW`], it is shorter.
const WINDOW_POINTS_MAX: usize = 256;

/// Turns pictures of a run into what changed from one to the next.
#[derive(Debug)]
pub(crate) struct Tracker {
    plan: BatchPlan,
    state: RunState,
    reason: String,
    formed: u64,
    step: u64,
    evaluated: u64,
    checkpoint: Option<u64>,
    window: VecDeque<(Duration, u64)>,
    first: Option<(Duration, u64)>,
    last: Option<(Duration, u64)>,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The run moved on, or waits for another reason.
    State {
        /// Where it stands.
        state: RunState,
        /// Why.
        reason: String,
    },
    /// A group formed.
    Group {
        /// Its generation.
        generation: u64,
        /// Worker ids, by rank.
        members: Vec<u64>,
        /// Where it goes on from.
        step: u64,
    },
    /// A step became durable.
    Step {
        /// The step.
        point: StepPoint,
        /// Steps of the whole run; 0 if unknown.
        total_steps: u64,
        /// Samples per second of late.
        rate: Option<Rate>,
        /// The newest evaluation's accuracy.
        accuracy: Option<f64>,
    },
    /// The held-out samples were evaluated.
    Eval(EvalPoint),
    /// A checkpoint was committed.
    Checkpoint {
        /// Steps completed in it.
        step: u64,
        /// SHA-256 over all weights.
        weights_sha256: String,
    },
}

/// How fast a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Samples per second.
    pub(crate) samples_per_second: f64,
    /// Until the last step at this rate, if that is known.
    pub(crate) left: Option<Duration>,
}

impl Tracker {
    /// Begins with `run`: what it already shows is not told again.
    pub(crate) fn new(spec: &JobSpec, run: &Run) -> Self {
        Self {
            plan: spec.batch_plan(run.train_samples),
            state: run.state(),
            reason: run.reason.clone(),
            // A run that is taken up may still look as its last group left it.
            formed: if run.state() == RunState::Running { run.generation } else { 0 },
            step: run.step,
            evaluated: run.evals.last().map_or(0, |e| e.step),
            checkpoint: run.checkpoints.last().map(|c| c.step),
            window: VecDeque::new(),
            first: None,
            last: None,
        }
    }

    /// The step after which evaluations are missing: a run is sent with its newest ones, and those between the last one
    /// told and the first one sent are not among them.
    pub(crate) fn evals_missing_after(&self, run: &Run) -> Option<u64> {
        let first = run.evals.first().filter(|_| run.evals.len() >= EVALS_SHOWN_MAX)?;
        (first.step > self.evaluated).then_some(self.evaluated)
    }

    /// What `run` and its newest step, seen at `now`, have to tell. `now` counts from any fixed moment and never falls.
    pub(crate) fn observe(&mut self, now: Duration, run: &Run, newest: Option<&StepPoint>) -> Vec<Change> {
        let mut changes = Vec::new();
        self.plan.samples = run.train_samples;
        self.observe_state(run, &mut changes);
        self.observe_step(now, run, newest, &mut changes);
        self.observe_evals(run, &mut changes);
        self.observe_checkpoints(run, &mut changes);
        changes
    }

    fn observe_state(&mut self, run: &Run, changes: &mut Vec<Change>) {
        let state = run.state();
        let formed = state == RunState::Running && (run.generation != self.formed);
        if formed {
            self.formed = run.generation;
            self.window.clear();
            let (generation, members) = (run.generation, run.members.clone());
            changes.push(Change::Group { generation, members, step: run.step });
        } else if state != self.state || (state == RunState::Waiting && run.reason != self.reason) {
            changes.push(Change::State { state, reason: run.reason.clone() });
        }
        self.state = state;
        self.reason.clone_from(&run.reason);
    }

    fn observe_step(&mut self, now: Duration, run: &Run, newest: Option<&StepPoint>, changes: &mut Vec<Change>) {
        let Some(point) = newest.filter(|point| point.step != self.step) else { return };
        if point.step < self.step {
            // Rolled back: what was counted before says nothing about the rate from here.
            self.window.clear();
            self.evaluated = self.evaluated.min(point.step);
        }
        self.step = point.step;
        let position = self.position(point);
        self.first.get_or_insert((now, position));
        self.last = Some((now, position));
        self.window.push_back((now, position));
        while self.window.len() > WINDOW_POINTS_MAX
            || self.window.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW && self.window.len() > 2)
        {
            self.window.pop_front();
        }
        changes.push(Change::Step {
            point: *point,
            total_steps: run.total_steps,
            rate: self.rate(run.total_steps),
            accuracy: run.evals.iter().rev().find(|e| e.step <= point.step).map(|e| e.accuracy),
        });
    }

    fn observe_evals(&mut self, run: &Run, changes: &mut Vec<Change>) {
        for eval in run.evals.iter().filter(|e| e.step > self.evaluated) {
            changes.push(Change::Eval(*eval));
        }
        self.evaluated = run.evals.last().map_or(0, |e| e.step);
    }

    fn observe_checkpoints(&mut self, run: &Run, changes: &mut Vec<Change>) {
        for checkpoint in run.checkpoints.iter().filter(|c| self.checkpoint.is_none_or(|seen| c.step > seen)) {
            let (step, weights_sha256) = (checkpoint.step, checkpoint.weights_sha256.clone());
            changes.push(Change::Checkpoint { step, weights_sha256 });
        }
        if let Some(checkpoint) = run.checkpoints.last() {
            self.checkpoint = Some(checkpoint.step);
        }
    }

    /// Samples read up to and with `point`.
    fn position(&self, point: &StepPoint) -> u64 {
        if self.plan.samples == 0 {
            return point.step.saturating_mul(self.plan.global_batch);
        }
        self.plan.step_positions(point.step.saturating_sub(1)).end
    }

    fn rate(&self, total_steps: u64) -> Option<Rate> {
        let samples_per_second = between(*self.window.front()?, *self.window.back()?)?;
        let left = total_steps.checked_sub(self.step).filter(|_| total_steps > 0).map(|steps| {
            let samples = steps.saturating_mul(self.plan.global_batch) as f64;
            Duration::try_from_secs_f64(samples / samples_per_second).unwrap_or(Duration::MAX)
        });
        Some(Rate { samples_per_second, left })
    }

    /// Samples per second from the first step that was seen to the last one.
    pub(crate) fn overall_rate(&self) -> Option<f64> {
        between(self.first?, self.last?)
    }
}

/// Samples per second between two moments, if there is anything between them.
fn between(from: (Duration, u64), to: (Duration, u64)) -> Option<f64> {
    let (samples, time) = (to.1.checked_sub(from.1)?, to.0.checked_sub(from.0)?.as_secs_f64());
    (samples > 0 && time > 0.0).then(|| samples as f64 / time)
}

/// The name of a state, as it is shown and written into JSON.
pub(crate) fn run_state_name(state: RunState) -> &'static str {
    match state {
        RunState::Unspecified => "unknown",
        RunState::Waiting => "waiting",
        RunState::Forming => "forming",
        RunState::Running => "running",
        RunState::Stopping => "stopping",
        RunState::Stopped => "stopped",
        RunState::Paused => "paused",
        RunState::Pruned => "pruned",
        RunState::Completed => "completed",
        RunState::Failed => "failed",
    }
}

/// A share as `97.78 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        let text = "\
version: 1
name: a
model: { type: vit, image: [8, 8], channels: 1, patch: 4, dim: 8, depth: 1, heads: 2, classes: 10 }
data: { format: idx, images: i, labels: l }
train: { epochs: 2, global_batch: 10, micro_batches: 2 }
";
        domain::spec::file::read(text, "a.yaml", std::path::Path::new("/")).unwrap()
    }

    fn run(state: RunState, step: u64) -> Run {
        let mut run = Run { step, total_steps: 20, train_samples: 100, ..Run::default() };
        run.set_state(state);
        run
    }

    fn step(step: u64) -> StepPoint {
        StepPoint { step, loss: 0.5, samples: 10, ..StepPoint::default() }
    }

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn each_change_is_told_once() {
        let waiting = run(RunState::Waiting, 0);
        let mut tracker = Tracker::new(&spec(), &waiting);
        assert_eq!(tracker.observe(seconds(0), &waiting, None), []);

        let few = Run { reason: "too few workers: 1 of 2".to_owned(), ..waiting };
        let told = Change::State { state: RunState::Waiting, reason: few.reason.clone() };
        assert_eq!(tracker.observe(seconds(0), &few, None), [told]);
        assert_eq!(tracker.observe(seconds(0), &few, None), []);

        let running = Run { generation: 1, members: vec![7, 9], ..run(RunState::Running, 0) };
        let group = Change::Group { generation: 1, members: vec![7, 9], step: 0 };
        assert_eq!(tracker.observe(seconds(1), &running, None), [group]);
        assert_eq!(tracker.observe(seconds(1), &running, None), []);

        let eval = EvalPoint { step: 1, accuracy: 0.5, ..EvalPoint::default() };
        let measured = Run { step: 1, evals: vec![eval], ..running.clone() };
        let changes = tracker.observe(seconds(2), &measured, Some(&step(1)));
        assert!(matches!(changes[..], [Change::Step { rate: None, accuracy: Some(0.5), .. }, Change::Eval(_)]));
        assert_eq!(tracker.observe(seconds(2), &measured, Some(&step(1))), []);

        let regrouped = Run { generation: 2, members: vec![9], ..measured };
        let changes = tracker.observe(seconds(3), &regrouped, Some(&step(1)));
        assert_eq!(changes, [Change::Group { generation: 2, members: vec![9], step: 1 }]);
    }

    #[test]
    fn the_rate_is_that_of_late_and_the_end_is_foreseen() {
        let running = run(RunState::Running, 0);
        let mut tracker = Tracker::new(&spec(), &running);
        for s in 1..=8 {
            let changes = tracker.observe(seconds(s), &running, Some(&step(s)));
            let Some(Change::Step { rate, .. }) = changes.last() else { panic!("no step in {changes:?}") };
            let expected = Rate { samples_per_second: 10.0, left: Some(seconds(20 - s)) };
            assert_eq!(*rate, (s > 1).then_some(expected));
        }
        assert_eq!(tracker.overall_rate(), Some(10.0));
        // Twice as fast from here: the window soon holds nothing else.
        for s in 9..=14 {
            tracker.observe(seconds(s), &running, Some(&step(8 + 2 * (s - 8))));
        }
        assert!(tracker.rate(20).unwrap().samples_per_second > 18.0, "{:?}", tracker.rate(20));
    }

    #[test]
    fn a_roll_back_is_no_negative_rate() {
        let running = run(RunState::Running, 0);
        let mut tracker = Tracker::new(&spec(), &running);
        tracker.observe(seconds(1), &running, Some(&step(8)));
        let changes = tracker.observe(seconds(2), &running, Some(&step(4)));
        assert!(matches!(changes[..], [Change::Step { rate: None, .. }]), "{changes:?}");
        assert_eq!(tracker.overall_rate(), None);
    }

    #[test]
    fn evaluations_that_were_not_sent_are_asked_for() {
        let evals = |steps: std::ops::RangeInclusive<u64>| -> Vec<EvalPoint> {
            steps.map(|step| EvalPoint { step, ..EvalPoint::default() }).collect()
        };
        let seen = Run { evals: evals(1..=9), ..run(RunState::Running, 9) };
        let tracker = Tracker::new(&spec(), &seen);
        let most = EVALS_SHOWN_MAX as u64;
        for (sent, expected) in [
            (1..=20, None),
            (9..=8 + most, None),
            (10..=9 + most, Some(9)),
            (11..=10 + most, Some(9)),
            (11..=9 + most, None),
        ] {
            let now = Run { evals: evals(sent.clone()), ..seen.clone() };
            assert_eq!(tracker.evals_missing_after(&now), expected, "{sent:?}");
        }
    }

    #[test]
    fn what_a_resumed_run_showed_before_is_not_told_again() {
        let eval = |step| EvalPoint { step, ..EvalPoint::default() };
        let stopped = Run { evals: vec![eval(4), eval(8)], ..run(RunState::Stopped, 8) };
        let mut tracker = Tracker::new(&spec(), &stopped);
        let on = Run { evals: vec![eval(4), eval(8), eval(12)], ..run(RunState::Running, 12) };
        let told: Vec<Change> = tracker.observe(seconds(0), &on, None);
        assert_eq!(told.last(), Some(&Change::Eval(eval(12))));
        assert_eq!(told.iter().filter(|c| matches!(c, Change::Eval(_))).count(), 1);
    }
}
