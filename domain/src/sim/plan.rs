use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::batch::Length;
use crate::ids::{RunName, Step};
use crate::random::Stream;
use crate::record::Position;
use crate::spec::{
    AugmentSpec, CheckpointSpec, DataSource, DataSpec, Decay, EarlyStoppingSpec, EvalMetric, EvalSpec, Every, Holdout,
    JobSpec, ModelSpec, NonFinitePolicy, OptimizerRule, OptimizerSpec, Pool, Precision, ScheduleShape, ScheduleSpec,
    TrainSpec, VitSpec,
};
use crate::stop::{Stopper, Verdict};

/// A scripted training. The "weights" are one number, a hash over the whole history of updates, so that a state that was
/// built on the wrong history has the wrong weights.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) spec: JobSpec,
    total: u64,
    eval_every: u64,
    save_every: u64,
    /// Steps whose gradient is not finite.
    bad: BTreeSet<u64>,
    /// What sets its weights apart from those of other runs.
    salt: u64,
}

/// The state of a scripted training.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) position: Position,
    pub(super) weights: u64,
    stopper: Stopper,
    stopped_early: bool,
}

/// What comes next after a state.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    Step,
    Evaluate,
    /// The next step is not finite.
    RollBack(Step),
    Done,
}

impl Plan {
    pub(super) fn draw(name: RunName, random: &mut Stream) -> Self {
        let workers = 1 + random.below(3) as u32;
        let total = 4 + random.below(18);
        let bad = if random.below(4) == 0 { 1 + random.below(2) } else { 0 };
        let mut spec = base_spec(name);
        spec.workers = workers;
        spec.min_workers = 1 + random.below(u64::from(workers)) as u32;
        spec.train.length = Length::Steps(total);
        spec.checkpoint.keep_last = 1 + random.below(2) as u32;
        spec.checkpoint.keep_best = random.below(3) as u32;
        spec.checkpoint.keep_every_steps = (random.below(4) == 0).then_some(5);
        spec.early_stopping.patience = (random.below(3) == 0).then(|| 2 + random.below(3) as u32);
        spec.early_stopping.max_seconds = (random.below(6) == 0).then_some(2);
        Self {
            spec,
            total,
            eval_every: 1 + random.below(5),
            save_every: 2 + random.below(5),
            bad: (0..bad).map(|_| 1 + random.below(total)).collect(),
            salt: 0,
        }
    }

    /// The same with gradients that are finite.
    #[cfg(test)]
    pub(super) fn without_bad_steps(self) -> Self {
        Self { bad: BTreeSet::new(), ..self }
    }

    /// The training of a trial of a sweep, which follows from its configuration.
    pub(super) fn of_trial(spec: JobSpec) -> Self {
        let steps = |every: Every| match every {
            Every::Steps(steps) => steps,
            Every::Epochs(_) => unreachable!("the sweeps of simulations count steps"),
        };
        let Length::Steps(total) = spec.train.length else { unreachable!("the sweeps of simulations count steps") };
        let salt = mix(spec.schedule.lr_max.to_bits());
        let bad = if salt.is_multiple_of(5) { BTreeSet::from([1 + salt / 5 % total]) } else { BTreeSet::new() };
        let (eval_every, save_every) = (steps(spec.eval.every), steps(spec.checkpoint.every));
        Self { spec, total, eval_every, save_every, bad, salt }
    }

    pub(super) fn initial(&self) -> State {
        State {
            position: Position::default(),
            weights: 1 ^ self.salt,
            stopper: Stopper::new(&self.spec.early_stopping),
            stopped_early: false,
        }
    }

    pub(super) fn next(&self, state: &State, skip: &BTreeSet<Step>) -> Next {
        let step = state.position.step.0;
        let is_last = step == self.total;
        let eval_due = step > 0 && (step.is_multiple_of(self.eval_every) || is_last);
        let upcoming = Step(step + 1);
        if eval_due && !state.position.evaluated {
            Next::Evaluate
        } else if is_last || state.stopped_early {
            Next::Done
        } else if self.bad.contains(&upcoming.0) && !skip.contains(&upcoming) {
            Next::RollBack(upcoming)
        } else {
            Next::Step
        }
    }

    /// Makes the next step, leaving its update out if it is in `skip`.
    pub(super) fn step(&self, state: &mut State, skip: &BTreeSet<Step>) {
        let step = state.position.step.next();
        state.position = Position { step, evaluated: false };
        let is_skipped = u64::from(skip.contains(&step));
        state.weights = mix(state.weights ^ self.salt ^ mix(step.0 * 2 + is_skipped));
    }

    pub(super) fn evaluate(&self, state: &mut State) -> f64 {
        state.position.evaluated = true;
        let loss = (state.weights % 1000) as f64 / 1000.0;
        state.stopped_early = matches!(state.stopper.observe(state.position.step, loss, loss), Verdict::Stop(_));
        loss
    }

    pub(super) fn save_due(&self, state: &State, skip: &BTreeSet<Step>) -> bool {
        let step = state.position.step.0;
        step.is_multiple_of(self.save_every) && self.next(state, skip) != Next::Evaluate
    }

    /// What this training makes of the state of another: its early stopping begins anew.
    pub(super) fn take_over(&self, state: &State) -> State {
        State { position: state.position, weights: state.weights, ..self.initial() }
    }

    /// All states of the undisturbed training after each step, the initial one first.
    pub(super) fn undisturbed(&self) -> Vec<State> {
        self.undisturbed_from(&[self.initial()])
    }

    /// As [`Plan::undisturbed`], for a training that goes on after those of another.
    pub(super) fn undisturbed_from(&self, before: &[State]) -> Vec<State> {
        let skip = self.bad.iter().copied().map(Step).collect();
        let mut states = before.to_vec();
        let mut state = self.take_over(before.last().expect("at least the initial state"));
        *states.last_mut().expect("just seen") = state.clone();
        loop {
            match self.next(&state, &skip) {
                Next::Step => {
                    self.step(&mut state, &skip);
                    states.push(state.clone());
                }
                Next::Evaluate => {
                    self.evaluate(&mut state);
                    *states.last_mut().expect("holds the initial state") = state.clone();
                }
                Next::RollBack(_) => unreachable!("every bad step is skipped"),
                Next::Done => return states,
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A small valid job.
pub(crate) fn base_spec(name: RunName) -> JobSpec {
    JobSpec {
        name,
        seed: 1,
        workers: 2,
        min_workers: 1,
        priority: 0,
        data: DataSpec {
            source: DataSource::ImageFolder { path: PathBuf::from("/data") },
            holdout: Holdout::Fraction(0.2),
            pixel_max: 16.0,
            mean: vec![0.0],
            std: vec![1.0],
            augment: AugmentSpec::default(),
        },
        model: ModelSpec::Vit(VitSpec {
            height: 8,
            width: 8,
            channels: 1,
            patch: 2,
            dim: 8,
            depth: 1,
            heads: 2,
            mlp_dim: 16,
            classes: 10,
            pool: Pool::Mean,
            dropout: 0.0,
        }),
        train: TrainSpec {
            length: Length::Steps(10),
            global_batch: 8,
            micro_batches: 4,
            label_smoothing: 0.0,
            clip_norm: None,
            on_non_finite: NonFinitePolicy::Rollback,
            precision: Precision::F32,
        },
        optimizer: OptimizerSpec {
            rule: OptimizerRule::Sgd { momentum: 0.9, nesterov: false },
            weight_decay: 0.0,
            decay: Decay::Matrices,
        },
        schedule: ScheduleSpec { lr_max: 0.1, warmup_steps: 0, shape: ScheduleShape::Constant },
        eval: EvalSpec { every: Every::Steps(5), batch: 8 },
        checkpoint: CheckpointSpec { every: Every::Steps(5), keep_last: 1, keep_best: 1, keep_every_steps: None },
        early_stopping: EarlyStoppingSpec {
            metric: EvalMetric::EvalLoss,
            patience: None,
            min_delta: 0.0,
            threshold: None,
            max_seconds: None,
        },
        inspect: None,
    }
}
