//! The figures of a run's steps, thinned out for a chart.
//!
//! A bucket of neighbouring steps keeps the least, the greatest and the last value of each figure, so a chart of a
//! million steps shows every spike. Buckets are a power of two wide and begin at multiples of their width: as a run goes
//! on, those that are there stay as they are, until all become twice as wide.

use crate::ids::Step;
use crate::record::StepRecord;

/// A figure of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Mean training loss.
    Loss,
    /// Learning rate.
    Lr,
    /// Norm of the gradient before clipping.
    GradNorm,
    /// Wall time of the step.
    StepSeconds,
    /// Of it, the part outside the model.
    OutsideSeconds,
    /// Samples read, by the wall time.
    SamplesPerSecond,
    /// Wall time of this step and of all before it that count. Evaluations, saving and waiting are not in it.
    ElapsedSeconds,
}

impl Figure {
    /// All of them, in the order in which [`Sampler`] keeps them.
    pub const ALL: [Figure; 7] = [
        Figure::Loss,
        Figure::Lr,
        Figure::GradNorm,
        Figure::StepSeconds,
        Figure::OutsideSeconds,
        Figure::SamplesPerSecond,
        Figure::ElapsedSeconds,
    ];

    /// As it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Loss => "loss",
            Figure::Lr => "lr",
            Figure::GradNorm => "grad_norm",
            Figure::StepSeconds => "step_seconds",
            Figure::OutsideSeconds => "outside_seconds",
            Figure::SamplesPerSecond => "samples_per_second",
            Figure::ElapsedSeconds => "elapsed_seconds",
        }
    }

    /// Of a step that read `samples` and ended `elapsed_micros` after the first one began.
    pub fn of(self, record: &StepRecord, samples: Option<u64>, elapsed_micros: u64) -> f64 {
        let seconds = record.micros as f64 / 1e6;
        match self {
            Figure::Loss => record.loss,
            Figure::Lr => record.lr,
            Figure::GradNorm => record.grad_norm,
            Figure::StepSeconds => seconds,
            Figure::OutsideSeconds => record.micros_outside_model as f64 / 1e6,
            Figure::SamplesPerSecond => samples.map_or(f64::NAN, |samples| samples as f64 / seconds),
            Figure::ElapsedSeconds => elapsed_micros as f64 / 1e6,
        }
    }
}

/// What is kept of a figure's values in a bucket. Values that are no numbers count only where there is no other one, but
/// for the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The last.
    pub last: f64,
}

impl Extent {
    fn of(value: f64) -> Self {
        Self { min: value, max: value, last: value }
    }

    fn add(&mut self, value: f64) {
        // Of a number and NaN these take the number.
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.last = value;
    }
}

/// Neighbouring steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// The last of them.
    pub step: Step,
    /// Their figures, in the order of [`Figure::ALL`].
    figures: [Extent; Figure::ALL.len()],
}

impl Bucket {
    /// One of its figures.
    pub fn figure(&self, figure: Figure) -> &Extent {
        &self.figures[figure as usize]
    }
}

/// Thins out steps as they come.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampler {
    width: u64,
    buckets: Vec<Bucket>,
    steps: u64,
    elapsed_micros: u64,
}

impl Sampler {
    /// For steps from `from` to `to`, in at most `points` buckets.
    pub fn new(from: Step, to: Step, points: usize) -> Self {
        let points = points.max(1) as u64;
        let mut width: u64 = 1;
        let buckets = |width: u64| (to.0 / width).saturating_sub(from.0 / width).saturating_add(1);
        while width <= to.0 && width < 1 << 62 && buckets(width) > points {
            width *= 2;
        }
        Self { width, buckets: Vec::new(), steps: 0, elapsed_micros: 0 }
    }

    /// The same, where the steps before the first one took `elapsed_micros`.
    pub fn begun_after(self, elapsed_micros: u64) -> Self {
        Self { elapsed_micros, ..self }
    }

    /// Takes in a step; they come in their order.
    pub fn observe(&mut self, record: &StepRecord, samples: Option<u64>) {
        self.steps += 1;
        self.elapsed_micros = self.elapsed_micros.saturating_add(record.micros);
        let figures = Figure::ALL.map(|figure| figure.of(record, samples, self.elapsed_micros));
        match self.buckets.last_mut().filter(|bucket| bucket.step.0 / self.width == record.step.0 / self.width) {
            Some(bucket) => {
                bucket.step = record.step;
                for (extent, value) in bucket.figures.iter_mut().zip(figures) {
                    extent.add(value);
                }
            }
            None => self.buckets.push(Bucket { step: record.step, figures: figures.map(Extent::of) }),
        }
    }

    /// Steps in a bucket.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// What there is so far.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Steps that were taken in.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The newest step that was taken in.
    pub fn through(&self) -> Option<Step> {
        self.buckets.last().map(|bucket| bucket.step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Generation;

    fn record(step: u64, loss: f64) -> StepRecord {
        StepRecord {
            step: Step(step),
            generation: Generation(1),
            loss,
            grad_norm: -loss,
            lr: 0.1,
            skipped: false,
            micros: 500_000,
            micros_outside_model: 1,
            reads: Vec::new(),
        }
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![8 => -1e3..1e3, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)]
    }

    proptest! {
        #[test]
        fn no_extreme_is_lost_and_no_more_points_come_than_are_asked_for(
            losses in proptest::collection::vec(value(), 1..400), before in 0..1000_u64, points in 1..50_usize,
        ) {
            let (from, to) = (before + 1, before + losses.len() as u64);
            let mut sampler = Sampler::new(Step(from), Step(to), points);
            for (step, loss) in (from..).zip(&losses) {
                sampler.observe(&record(step, *loss), Some(8));
            }
            let buckets = sampler.buckets();
            prop_assert!(buckets.len() <= points, "{} buckets for {points} points", buckets.len());
            prop_assert_eq!((sampler.steps(), sampler.through()), (losses.len() as u64, Some(Step(to))));
            if losses.len() <= points {
                prop_assert_eq!(buckets.len(), losses.len(), "nothing is thinned out without need");
            }
            // Bucket by bucket, and figure by figure.
            let mut rest = losses.as_slice();
            let mut first = from;
            for bucket in buckets {
                let (inside, after) = rest.split_at((bucket.step.0 + 1 - first) as usize);
                (rest, first) = (after, bucket.step.0 + 1);
                let numbers = || inside.iter().copied().filter(|x| !x.is_nan());
                let Extent { min, max, last } = bucket.figures[0];
                prop_assert_eq!(last.to_bits(), inside[inside.len() - 1].to_bits());
                if numbers().count() == 0 {
                    prop_assert!(min.is_nan() && max.is_nan());
                } else {
                    prop_assert_eq!(min, numbers().fold(f64::INFINITY, f64::min));
                    prop_assert_eq!(max, numbers().fold(f64::NEG_INFINITY, f64::max));
                }
                prop_assert_eq!(bucket.figures[5], Extent::of(16.0));
            }
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn time_goes_on_from_what_the_steps_before_took() {
        let mut sampler = Sampler::new(Step(41), Step(44), 2).begun_after(20_000_000);
        (41..=44).for_each(|step| sampler.observe(&record(step, 1.0), None));
        let elapsed: Vec<Extent> = sampler.buckets().iter().map(|b| *b.figure(Figure::ElapsedSeconds)).collect();
        assert_eq!(elapsed.last(), Some(&Extent { min: 22.0, max: 22.0, last: 22.0 }));
        assert_eq!(elapsed[0].min, 20.5);
    }

    #[test]
    fn buckets_stay_as_a_run_goes_on() {
        let mut sampler = Sampler::new(Step(1), Step(700), 100);
        assert_eq!(sampler.width(), 8);
        (1..=700).for_each(|step| sampler.observe(&record(step, step as f64), None));
        let mut later = Sampler::new(Step(1), Step(790), 100);
        (1..=790).for_each(|step| later.observe(&record(step, step as f64), None));
        let whole = sampler.buckets().len() - 1;
        assert_eq!(
            later.buckets()[..whole].iter().map(|b| b.step).collect::<Vec<_>>(),
            sampler.buckets()[..whole].iter().map(|b| b.step).collect::<Vec<_>>()
        );
    }
}
