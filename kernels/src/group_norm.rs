//! Group normalisation (Wu and He 2018): each sample by itself, some channels together.

use std::mem::MaybeUninit;

use crate::batch_norm::{ParameterGradients, sums};
use crate::fresh;
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// What [`forward`] makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalised {
    /// As large as the input.
    pub y: Vec<f32>,
    /// `[samples, groups]`.
    pub mean: Vec<f32>,
    /// `[samples, groups]`: `1 / sqrt(variance + epsilon)`.
    pub inverse: Vec<f32>,
}

fn check(x: &[f32], [samples, channels, places]: [usize; 3], groups: usize, gain: &[f32], bias: Option<&[f32]>) {
    assert_eq!(x.len(), samples * channels * places, "an input is [samples, channels, places]");
    assert!(groups > 0 && channels % groups == 0, "groups divide channels");
    let fits = gain.len() == channels && bias.is_none_or(|bias| bias.len() == channels);
    assert!(fits, "gain and bias have a value for each channel");
}

/// `y = (x - mean) / sqrt(variance + epsilon) * gain + bias` of `x` `[samples, channels, places]`, with the statistics of each
/// sample and group of `channels / groups` channels; gain and bias are those of the channel.
///
/// # Panics
/// If sizes do not fit.
pub fn forward(
    x: &[f32],
    [samples, channels, places]: [usize; 3],
    groups: usize,
    gain: &[f32],
    bias: &[f32],
    epsilon: f32,
) -> Normalised {
    check(x, [samples, channels, places], groups, gain, Some(bias));
    let together = channels / groups;
    let len = together * places;
    let mut statistics = vec![[0.0f32; 2]; samples * groups];
    let shared_statistics = Shared::new(&mut statistics);
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let shared = Shared::new(y);
        threads::for_each(samples * groups, x.len(), |i| {
            // SAFETY: each task has a group of a sample.
            let (y, statistics) = unsafe { (shared.slice(i * len, len), shared_statistics.slice(i, 1)) };
            let x = &x[i * len..][..len];
            let first = i % groups * together;
            vectorised(
                #[inline(always)]
                || {
                    let mean = (sums(len, |i| [x[i]])[0] / len as f64) as f32;
                    let variance = sums(len, |i| [(x[i] - mean) * (x[i] - mean)])[0] / len as f64;
                    let inverse = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
                    statistics[0] = [mean, inverse];
                    let planes = y.chunks_exact_mut(places.max(1)).zip(x.chunks_exact(places.max(1)));
                    for (channel, (y, x)) in (first..).zip(planes) {
                        let (scale, bias) = (inverse * gain[channel], bias[channel]);
                        for (y, x) in y.iter_mut().zip(x) {
                            y.write((x - mean).mul_add(scale, bias));
                        }
                    }
                },
            );
        });
    };
    // SAFETY: the tasks write all groups of all samples.
    let y = unsafe { fresh::written(x.len(), fill) };
    let of = |i: usize| statistics.iter().map(|values| values[i]).collect();
    Normalised { y, mean: of(0), inverse: of(1) }
}

/// The gradient of the input of [`forward`], of that of its result; with `mean` and `inverse` as they were found.
///
/// `dx = inverse (gain dy - mean(gain dy) - x' mean(gain dy x'))` with `x' = (x - mean) inverse`, the means over a group.
///
/// # Panics
/// If sizes do not fit.
pub fn backward(
    x: &[f32],
    gradient: &[f32],
    [samples, channels, places]: [usize; 3],
    groups: usize,
    (mean, inverse): (&[f32], &[f32]),
    gain: &[f32],
    into: ParameterGradients<'_>,
) -> Vec<f32> {
    check(x, [samples, channels, places], groups, gain, None);
    assert_eq!(gradient.len(), x.len(), "a gradient is as large as the input");
    let has_statistics = mean.len() == samples * groups && inverse.len() == samples * groups;
    assert!(has_statistics, "statistics are [samples, groups]");
    let together = channels / groups;
    let len = together * places;
    // Of each sample and channel: the sums of the gradient, and of its products with the normalised values.
    let mut parts = vec![[0.0f64; 2]; samples * channels];
    let shared_parts = Shared::new(&mut parts);
    let fill = |dx: &mut [MaybeUninit<f32>]| {
        let shared = Shared::new(dx);
        threads::for_each(samples * groups, x.len(), |i| {
            // SAFETY: each task has a group of a sample.
            let (dx, parts) = unsafe { (shared.slice(i * len, len), shared_parts.slice(i * together, together)) };
            let (mean, inverse) = (mean[i], inverse[i]);
            let gain = &gain[i % groups * together..][..together];
            vectorised(
                #[inline(always)]
                || {
                    let mut totals = [0.0f64; 2];
                    for (channel, part) in parts.iter_mut().enumerate() {
                        let begin = i * len + channel * places;
                        let (x, gradient) = (&x[begin..][..places], &gradient[begin..][..places]);
                        *part = sums(places, |i| [gradient[i], gradient[i] * ((x[i] - mean) * inverse)]);
                        let gain = f64::from(gain[channel]);
                        totals = [totals[0] + gain * part[0], totals[1] + gain * part[1]];
                    }
                    let [even, slope] = totals.map(|total| total / len as f64 * f64::from(inverse));
                    let (even, slope) = (even as f32, (slope * f64::from(inverse)) as f32);
                    for (channel, dx) in dx.chunks_exact_mut(places.max(1)).enumerate() {
                        let begin = i * len + channel * places;
                        let (x, gradient) = (&x[begin..][..places], &gradient[begin..][..places]);
                        let scale = gain[channel] * inverse;
                        for ((dx, x), gradient) in dx.iter_mut().zip(x).zip(gradient) {
                            dx.write((x - mean).mul_add(-slope, gradient.mul_add(scale, -even)));
                        }
                    }
                },
            );
        });
    };
    // SAFETY: the tasks write all groups of all samples.
    let dx = unsafe { fresh::written(x.len(), fill) };
    let of = |which: usize| -> Vec<f32> {
        let total = |channel: usize| (0..samples).map(|n| parts[n * channels + channel][which]).sum::<f64>() as f32;
        (0..channels).map(total).collect()
    };
    into.write(&of(1), &of(0));
    dx
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::Write;

    const EPSILON: f32 = 1e-5;

    fn values(len: usize, step: usize) -> Vec<f32> {
        (0..len).map(|i| (i * step % 1013) as f32 / 512.0 - 0.8).collect()
    }

    /// The result in double precision.
    fn reference(x: &[f64], [_, channels, places]: [usize; 3], groups: usize, gain: &[f64], bias: &[f64]) -> Vec<f64> {
        let len = channels / groups * places;
        let normalise = |(i, x): (usize, &[f64])| {
            let mean = x.iter().sum::<f64>() / len as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len as f64;
            let scale = 1.0 / (variance + f64::from(EPSILON)).sqrt();
            let channel = move |at: usize| (i * len + at) / places % channels;
            let of = |(at, x): (usize, &f64)| (x - mean) * scale * gain[channel(at)] + bias[channel(at)];
            x.iter().enumerate().map(of).collect::<Vec<f64>>()
        };
        x.chunks(len).enumerate().flat_map(normalise).collect()
    }

    #[track_caller]
    fn close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        // Two values that are normalised together have nearly no gradient.
        let largest = expected.iter().fold(1e-1f64, |m, v| m.max(v.abs()));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() <= tolerance * largest, "{i}: {found}, not {expected}");
        }
    }

    fn wide(values: &[f32]) -> Vec<f64> {
        values.iter().map(|v| f64::from(*v)).collect()
    }

    #[test]
    fn results_and_gradients_agree_with_double_precision() {
        const STEP: f64 = 1e-5;
        for (sizes, groups) in [([2, 6, 7], 3), ([3, 4, 1], 2), ([1, 6, 33], 1), ([2, 3, 17], 3), ([2, 33, 3], 11)] {
            let (x, gradient) = (values(sizes.iter().product(), 7919), values(sizes.iter().product(), 7907));
            let (gain, bias) = (values(sizes[1], 31), values(sizes[1], 77));
            let made = forward(&x, sizes, groups, &gain, &bias, EPSILON);
            let all = [wide(&x), wide(&gain), wide(&bias)];
            close(&made.y, &reference(&all[0], sizes, groups, &all[1], &all[2]), 3e-6);

            let slopes = |which: usize| -> Vec<f64> {
                let at = |i: usize, step: f64| -> f64 {
                    let mut all = all.clone();
                    all[which][i] += step;
                    let y = reference(&all[0], sizes, groups, &all[1], &all[2]);
                    y.iter().zip(&gradient).map(|(y, g)| y * f64::from(*g)).sum()
                };
                (0..all[which].len()).map(|i| (at(i, STEP) - at(i, -STEP)) / (2.0 * STEP)).collect()
            };
            let (mut of_gain, mut of_bias) = (vec![f32::NAN; gain.len()], vec![1.0; bias.len()]);
            let into = ParameterGradients {
                gain: Some((&mut of_gain, Write::Overwrite)),
                bias: Some((&mut of_bias, Write::Add)),
            };
            let dx = backward(&x, &gradient, sizes, groups, (&made.mean, &made.inverse), &gain, into);
            close(&dx, &slopes(0), 1e-4);
            close(&of_gain, &slopes(1), 1e-4);
            close(&of_bias, &slopes(2).iter().map(|v| v + 1.0).collect::<Vec<_>>(), 1e-4);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let sizes = [5, 8, 1700];
        let (x, gradient) = (values(sizes.iter().product(), 7919), values(sizes.iter().product(), 7907));
        let (gain, bias) = (values(8, 31), values(8, 77));
        let run = || {
            let made = forward(&x, sizes, 4, &gain, &bias, EPSILON);
            let mut of_gain = vec![0.0; 8];
            let into = ParameterGradients { gain: Some((&mut of_gain, Write::Overwrite)), bias: None };
            let dx = backward(&x, &gradient, sizes, 4, (&made.mean, &made.inverse), &gain, into);
            (made, dx, of_gain)
        };
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(run) == alone, "{threads} threads");
        }
    }
}
