//! The learning rate of every optimizer update: a pure function of the schedule, the update and the length of the run.

use crate::spec::{ScheduleShape, ScheduleSpec};

/// The learning rate of update `step`, counted from 0, in a run of `total_steps` updates.
///
/// The warm-up ends at the update that takes `lr_max` (update 0 without one), and what falls, falls from there to its
/// lowest value at update `total_steps - 1`. With a warm-up this is Hugging Face's schedule of the same name read one
/// step later, since theirs begins with an update of rate 0. `libm` gives the same bits on every machine.
pub fn learning_rate(schedule: &ScheduleSpec, step: u64, total_steps: u64) -> f64 {
    let ScheduleSpec { lr_max, warmup_steps, shape } = *schedule;
    if step < warmup_steps {
        return lr_max * ((step + 1) as f64 / warmup_steps as f64);
    }
    let peak = warmup_steps.saturating_sub(1);
    let last = total_steps.saturating_sub(1);
    match shape {
        ScheduleShape::Constant => lr_max,
        ScheduleShape::Linear { lr_min } => lr_min + (lr_max - lr_min) * (1.0 - progress(step, peak, last)),
        ScheduleShape::Cosine { lr_min } => {
            let half_turn = std::f64::consts::PI * progress(step, peak, last);
            lr_min + (lr_max - lr_min) * (0.5 * (1.0 + libm::cos(half_turn)))
        }
        ScheduleShape::InverseSqrt => lr_max * libm::sqrt((peak + 1) as f64 / (step + 1) as f64),
    }
}

/// How far `step` is on the way from `peak` to `last`, in [0, 1].
fn progress(step: u64, peak: u64, last: u64) -> f64 {
    match last.saturating_sub(peak) {
        0 => 0.0,
        way => (step.saturating_sub(peak) as f64 / way as f64).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates(shape: ScheduleShape, warmup_steps: u64, total: u64) -> Vec<f64> {
        let schedule = ScheduleSpec { lr_max: 1.0, warmup_steps, shape };
        (0..total).map(|step| learning_rate(&schedule, step, total)).collect()
    }

    #[test]
    fn the_shapes_are_as_written() {
        let linear = ScheduleShape::Linear { lr_min: 0.0 };
        let cosine = ScheduleShape::Cosine { lr_min: 0.5 };
        let table: [(ScheduleShape, u64, &[f64]); 7] = [
            (ScheduleShape::Constant, 0, &[1.0, 1.0, 1.0]),
            (ScheduleShape::Constant, 4, &[0.25, 0.5, 0.75, 1.0, 1.0]),
            (linear, 0, &[1.0, 0.75, 0.5, 0.25, 0.0]),
            (linear, 2, &[0.5, 1.0, 0.5, 0.0]),
            (cosine, 1, &[1.0, 0.75, 0.5]),
            (ScheduleShape::InverseSqrt, 0, &[1.0, 0.5f64.sqrt(), (1.0f64 / 3.0).sqrt(), 0.5]),
            (ScheduleShape::InverseSqrt, 2, &[0.5, 1.0, (2.0f64 / 3.0).sqrt(), 0.5f64.sqrt()]),
        ];
        for (shape, warmup, expected) in table {
            let found = rates(shape, warmup, expected.len() as u64);
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-15), "{shape:?}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn rates_stay_between_their_bounds_and_fall_after_the_peak(
            lr_min in 0.0f64..1.0, warmup in 0u64..20, total in 1u64..60, which in 0usize..4,
        ) {
            let shape = [
                ScheduleShape::Constant,
                ScheduleShape::Linear { lr_min },
                ScheduleShape::Cosine { lr_min },
                ScheduleShape::InverseSqrt,
            ][which];
            let rates = rates(shape, warmup, total);
            prop_assert!(rates.iter().all(|lr| *lr > 0.0 && *lr <= 1.0 || *lr >= lr_min));
            let peak = (warmup.max(1) - 1) as usize;
            prop_assert!(rates.iter().skip(peak).is_sorted_by(|a, b| a >= b));
            prop_assert!(rates.iter().take(peak + 1).is_sorted());
        }
    }
}
