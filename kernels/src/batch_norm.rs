//! Batch normalisation (Ioffe and Szegedy 2015), with ReLU behind it if wanted: what costs is reading and writing, so both are
//! done at once.
//!
//! A task makes all values of a channel, so that they stay in its second cache from the statistics to the result. Sums are made
//! in [`LANES`] parts of pieces of [`PIECE`] values in `f32`, and these are added in order in `f64`.

use std::mem::MaybeUninit;

use crate::fresh::{self, Write};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Values added up side by side. Part of every sum.
const LANES: usize = 32;

/// Values whose sum is made in `f32`. Part of every sum.
const PIECE: usize = 1024;

/// Several sums of what `terms` makes of each place below `len`.
#[inline(always)]
pub(crate) fn sums<const N: usize>(len: usize, terms: impl Fn(usize) -> [f32; N]) -> [f64; N] {
    let mut totals = [0.0f64; N];
    for first in (0..len).step_by(PIECE) {
        let end = len.min(first + PIECE);
        let whole = (end - first) / LANES * LANES;
        let mut lanes = [[0.0f32; LANES]; N];
        for begin in (first..first + whole).step_by(LANES) {
            for lane in 0..LANES {
                for (lanes, term) in lanes.iter_mut().zip(terms(begin + lane)) {
                    lanes[lane] += term;
                }
            }
        }
        for at in first + whole..end {
            let terms = terms(at);
            for i in 0..N {
                lanes[i][at % LANES] += terms[i];
            }
        }
        for i in 0..N {
            let mut half = LANES / 2;
            while half > 0 {
                for lane in 0..half {
                    lanes[i][lane] += lanes[i][lane + half];
                }
                half /= 2;
            }
            totals[i] += f64::from(lanes[i][0]);
        }
    }
    totals
}

/// What [`forward`] makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalised {
    /// As large as the input.
    pub y: Vec<f32>,
    /// Of each channel.
    pub mean: Vec<f32>,
    /// Of each channel, the mean of the squares of the distances from the mean.
    pub variance: Vec<f32>,
    /// Of each channel, `1 / sqrt(variance + epsilon)`.
    pub inverse: Vec<f32>,
}

/// Where the gradients of gain and bias go, each with a value for every channel.
#[derive(Debug, Default)]
pub struct ParameterGradients<'a> {
    /// Of the gain.
    pub gain: Option<(&'a mut [f32], Write)>,
    /// Of the bias.
    pub bias: Option<(&'a mut [f32], Write)>,
}

impl ParameterGradients<'_> {
    /// Writes a value for each channel.
    pub(crate) fn write(self, gains: &[f32], biases: &[f32]) {
        for (into, values) in [(self.gain, gains), (self.bias, biases)] {
            let Some((into, write)) = into else { continue };
            assert_eq!(into.len(), values.len(), "a gradient of a parameter has a value for each channel");
            for (into, value) in into.iter_mut().zip(values) {
                *into = match write {
                    Write::Overwrite => *value,
                    Write::Add => *into + value,
                };
            }
        }
    }
}

/// The line that a channel's values are put on, and what is cut off of it.
#[derive(Clone, Copy)]
struct Line {
    mean: f32,
    scale: f32,
    bias: f32,
    relu: bool,
}

impl Line {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        (x - self.mean).mul_add(self.scale, self.bias)
    }

    /// What ReLU lets through of the gradient of what `x` became.
    #[inline(always)]
    fn passed(self, x: f32, gradient: f32) -> f32 {
        if self.relu && self.at(x) <= 0.0 { 0.0 } else { gradient }
    }

    #[inline(always)]
    fn write(self, x: &[f32], y: &mut [MaybeUninit<f32>]) {
        if self.relu {
            for (y, x) in y.iter_mut().zip(x) {
                let value = self.at(*x);
                // Not a number passes.
                y.write(if value < 0.0 { 0.0 } else { value });
            }
        } else {
            for (y, x) in y.iter_mut().zip(x) {
                y.write(self.at(*x));
            }
        }
    }
}

/// `y = (x - mean) / sqrt(variance + epsilon) * gain + bias` of `x` `[samples, channels, places]`, with the statistics of each
/// channel over samples and places; then `max(y, 0)` if `relu`.
///
/// # Panics
/// If sizes do not fit.
pub fn forward(
    x: &[f32],
    [samples, channels, places]: [usize; 3],
    gain: &[f32],
    bias: &[f32],
    epsilon: f32,
    relu: bool,
) -> Normalised {
    check(x, [samples, channels, places], gain, bias);
    let mut statistics = vec![[0.0f32; 3]; channels];
    let shared_statistics = Shared::new(&mut statistics);
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let shared = Shared::new(y);
        threads::for_each(channels, x.len(), |channel| {
            let count = (samples * places) as f64;
            let planes = (0..samples).map(|n| (n * channels + channel) * places);
            vectorised(
                #[inline(always)]
                || {
                    let mut total = 0.0;
                    for begin in planes.clone() {
                        let x = &x[begin..][..places];
                        total += sums(places, |i| [x[i]])[0];
                    }
                    let mean = (total / count) as f32;
                    let mut total = 0.0;
                    for begin in planes.clone() {
                        let x = &x[begin..][..places];
                        total += sums(places, |i| [(x[i] - mean) * (x[i] - mean)])[0];
                    }
                    let variance = total / count;
                    let inverse = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
                    // SAFETY: each task has a channel of its own.
                    let statistics = unsafe { shared_statistics.slice(channel, 1) };
                    statistics[0] = [mean, variance as f32, inverse];
                    let line = Line { mean, scale: inverse * gain[channel], bias: bias[channel], relu };
                    for begin in planes {
                        // SAFETY: each task has the planes of its channel.
                        line.write(&x[begin..][..places], unsafe { shared.slice(begin, places) });
                    }
                },
            );
        });
    };
    // SAFETY: the tasks write the planes of all channels.
    let y = unsafe { fresh::written(x.len(), fill) };
    let of = |i: usize| statistics.iter().map(|values| values[i]).collect();
    Normalised { y, mean: of(0), variance: of(1), inverse: of(2) }
}

fn check(x: &[f32], [samples, channels, places]: [usize; 3], gain: &[f32], bias: &[f32]) {
    assert_eq!(x.len(), samples * channels * places, "an input is [samples, channels, places]");
    assert!(gain.len() == channels && bias.len() == channels, "gain and bias have a value for each channel");
}

/// Moves running statistics by the share `momentum` to those of a batch of `count` values for each channel. As in PyTorch, the
/// running variance is that of the population: the batch's times `count / (count - 1)`.
///
/// # Panics
/// If sizes do not fit.
pub fn update_running(
    running_mean: &mut [f32],
    running_variance: &mut [f32],
    batch: &Normalised,
    count: usize,
    momentum: f32,
) {
    let channels = batch.mean.len();
    assert!(running_mean.len() == channels && running_variance.len() == channels, "statistics are of each channel");
    // A single value has no variance; PyTorch refuses it, here it counts as it is.
    let unbiased = count as f32 / count.saturating_sub(1).max(1) as f32;
    for (running, value) in running_mean.iter_mut().zip(&batch.mean) {
        *running = (1.0 - momentum) * *running + momentum * value;
    }
    for (running, value) in running_variance.iter_mut().zip(&batch.variance) {
        *running = (1.0 - momentum) * *running + momentum * (value * unbiased);
    }
}

/// [`forward`] with given statistics.
///
/// # Panics
/// If sizes do not fit.
pub fn evaluate(
    x: &[f32],
    sizes: [usize; 3],
    (mean, variance): (&[f32], &[f32]),
    gain: &[f32],
    bias: &[f32],
    epsilon: f32,
    relu: bool,
) -> Vec<f32> {
    check(x, sizes, gain, bias);
    let [samples, channels, places] = sizes;
    assert!(mean.len() == channels && variance.len() == channels, "statistics are of each channel");
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let shared = Shared::new(y);
        threads::for_each(samples * channels, x.len(), |plane| {
            let channel = plane % channels;
            let inverse = (1.0 / (f64::from(variance[channel]) + f64::from(epsilon)).sqrt()) as f32;
            let line = Line { mean: mean[channel], scale: inverse * gain[channel], bias: bias[channel], relu };
            vectorised(
                #[inline(always)]
                // SAFETY: each task has a plane of its own.
                || line.write(&x[plane * places..][..places], unsafe { shared.slice(plane * places, places) }),
            );
        });
    };
    // SAFETY: the tasks write all planes.
    unsafe { fresh::written(x.len(), fill) }
}

/// The gradient of the input of [`forward`], of that of its result; with `mean` and `inverse` as they were found. Where ReLU cut
/// is computed again, to the same bits, rather than read.
///
/// `dx = gain inverse (dy - mean(dy) - x' mean(dy x'))` with `x' = (x - mean) inverse`.
///
/// # Panics
/// If sizes do not fit.
pub fn backward(
    x: &[f32],
    gradient: &[f32],
    [samples, channels, places]: [usize; 3],
    (mean, inverse): (&[f32], &[f32]),
    (gain, bias): (&[f32], &[f32]),
    relu: bool,
    into: ParameterGradients<'_>,
) -> Vec<f32> {
    check(x, [samples, channels, places], gain, bias);
    assert_eq!(gradient.len(), x.len(), "a gradient is as large as the input");
    assert!(mean.len() == channels && inverse.len() == channels, "statistics are of each channel");
    let mut parameters = vec![[0.0f32; 2]; channels];
    let shared_parameters = Shared::new(&mut parameters);
    let fill = |dx: &mut [MaybeUninit<f32>]| {
        let shared = Shared::new(dx);
        threads::for_each(channels, x.len(), |channel| {
            let (mean, inverse) = (mean[channel], inverse[channel]);
            let line = Line { mean, scale: inverse * gain[channel], bias: bias[channel], relu };
            let planes = (0..samples).map(|n| (n * channels + channel) * places);
            vectorised(
                #[inline(always)]
                || {
                    let mut totals = [0.0f64; 2];
                    for begin in planes.clone() {
                        let (x, gradient) = (&x[begin..][..places], &gradient[begin..][..places]);
                        let [a, b] = sums(places, |i| {
                            let passed = line.passed(x[i], gradient[i]);
                            [passed, passed * ((x[i] - mean) * inverse)]
                        });
                        totals = [totals[0] + a, totals[1] + b];
                    }
                    // SAFETY: each task has a channel of its own.
                    let parameters = unsafe { shared_parameters.slice(channel, 1) };
                    parameters[0] = totals.map(|total| total as f32);
                    let [of_bias, of_gain] = totals.map(|total| total / (samples * places) as f64);
                    let (even, slope) = (of_bias as f32, (of_gain * f64::from(inverse)) as f32);
                    for begin in planes {
                        // SAFETY: each task has the planes of its channel.
                        let dx = unsafe { shared.slice(begin, places) };
                        let (x, gradient) = (&x[begin..][..places], &gradient[begin..][..places]);
                        for ((dx, x), gradient) in dx.iter_mut().zip(x).zip(gradient) {
                            let inner = (*x - mean).mul_add(-slope, line.passed(*x, *gradient) - even);
                            dx.write(inner * line.scale);
                        }
                    }
                },
            );
        });
    };
    // SAFETY: the tasks write the planes of all channels.
    let dx = unsafe { fresh::written(x.len(), fill) };
    let of = |i: usize| parameters.iter().map(|values| values[i]).collect::<Vec<f32>>();
    into.write(&of(1), &of(0));
    dx
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPSILON: f32 = 1e-5;

    fn values(len: usize, step: usize) -> Vec<f32> {
        (0..len).map(|i| (i * step % 1013) as f32 / 512.0 - 0.8).collect()
    }

    /// The result in double precision.
    fn reference(
        x: &[f64],
        [samples, channels, places]: [usize; 3],
        gain: &[f32],
        bias: &[f32],
        relu: bool,
    ) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for channel in 0..channels {
            let all: Vec<usize> =
                (0..samples * places).map(|i| (i / places * channels + channel) * places + i % places).collect();
            let count = all.len() as f64;
            let mean = all.iter().map(|i| x[*i]).sum::<f64>() / count;
            let variance = all.iter().map(|i| (x[*i] - mean).powi(2)).sum::<f64>() / count;
            let scale = f64::from(gain[channel]) / (variance + f64::from(EPSILON)).sqrt();
            for i in all {
                let value = (x[i] - mean) * scale + f64::from(bias[channel]);
                y[i] = if relu { value.max(0.0) } else { value };
            }
        }
        y
    }

    #[track_caller]
    fn close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() <= tolerance * largest, "{i}: {found}, not {expected}");
        }
    }

    const SIZES: [[usize; 3]; 5] = [[2, 3, 17], [7, 1, 1], [3, 5, 33], [1, 2, 70], [4, 2, 9]];

    #[test]
    fn results_agree_with_double_precision() {
        for sizes in SIZES.into_iter().chain([[3, 2, 5000]]) {
            for relu in [false, true] {
                let x: Vec<f32> = values(sizes.iter().product(), 7919).iter().map(|v| v + 3.0).collect();
                let (gain, bias) = (values(sizes[1], 3), values(sizes[1], 5));
                let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
                let found = forward(&x, sizes, &gain, &bias, EPSILON, relu);
                close(&found.y, &reference(&wide, sizes, &gain, &bias, relu), 3e-6);
                let statistics = (&found.mean[..], &found.variance[..]);
                let again = evaluate(&x, sizes, statistics, &gain, &bias, EPSILON, relu);
                let exact: Vec<f64> = found.y.iter().map(|v| f64::from(*v)).collect();
                close(&again, &exact, 1e-6);
            }
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        const STEP: f64 = 1e-5;
        for (sizes, relu) in SIZES.into_iter().flat_map(|sizes| [(sizes, false), (sizes, true)]) {
            let x = values(sizes.iter().product(), 7919);
            let (gain, bias) = (values(sizes[1], 31), values(sizes[1], 77));
            let gradient = values(x.len(), 7907);
            let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
            let loss = |x: &[f64], gain: &[f32], bias: &[f32]| -> f64 {
                reference(x, sizes, gain, bias, relu).iter().zip(&gradient).map(|(y, g)| y * f64::from(*g)).sum()
            };
            let of_x: Vec<f64> = (0..x.len())
                .map(|i| {
                    let at = |step: f64| {
                        let mut x = wide.clone();
                        x[i] += step;
                        loss(&x, &gain, &bias)
                    };
                    (at(STEP) - at(-STEP)) / (2.0 * STEP)
                })
                .collect();
            // The result is linear in gain and bias where ReLU does not switch.
            let of = |parameter: &[f32], loss: &dyn Fn(&[f32]) -> f64| -> Vec<f64> {
                let step = |i: usize, step: f32| {
                    let mut moved = parameter.to_vec();
                    moved[i] += step;
                    (loss(&moved), f64::from(moved[i]))
                };
                let slope = |i: usize| {
                    let ((high, right), (low, left)) = (step(i, 1e-4), step(i, -1e-4));
                    (high - low) / (right - left)
                };
                (0..parameter.len()).map(slope).collect()
            };
            let of_gain = of(&gain, &|gain| loss(&wide, gain, &bias));
            let of_bias = of(&bias, &|bias| loss(&wide, &gain, bias));
            let made = forward(&x, sizes, &gain, &bias, EPSILON, relu);
            let (mut found_gain, mut found_bias) = (vec![f32::NAN; gain.len()], vec![1.0; bias.len()]);
            let into = ParameterGradients {
                gain: Some((&mut found_gain, Write::Overwrite)),
                bias: Some((&mut found_bias, Write::Add)),
            };
            let statistics = (&made.mean[..], &made.inverse[..]);
            let found = backward(&x, &gradient, sizes, statistics, (&gain, &bias), relu, into);
            close(&found, &of_x, 1e-4);
            close(&found_gain, &of_gain, 1e-4);
            close(&found_bias, &of_bias.iter().map(|v| v + 1.0).collect::<Vec<_>>(), 1e-4);
        }
    }

    #[test]
    fn running_statistics_move_as_in_pytorch() {
        let batch = forward(&[1.0, 2.0, 3.0, 6.0], [1, 1, 4], &[1.0], &[0.0], EPSILON, false);
        let (mut mean, mut variance) = ([0.0], [1.0]);
        update_running(&mut mean, &mut variance, &batch, 4, 0.1);
        // The mean is 3; the unbiased variance (4 + 1 + 0 + 9) / 3.
        close(&mean, &[0.3], 1e-6);
        close(&variance, &[0.9 + 0.1 * 14.0 / 3.0], 1e-6);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let sizes = [5, 7, 1700];
        let (x, gradient) = (values(sizes.iter().product(), 7919), values(sizes.iter().product(), 7907));
        let (gain, bias) = (values(7, 31), values(7, 77));
        let run = || {
            let made = forward(&x, sizes, &gain, &bias, EPSILON, true);
            let mut of_gain = vec![0.0; 7];
            let into = ParameterGradients { gain: Some((&mut of_gain, Write::Overwrite)), bias: None };
            let statistics = (&made.mean[..], &made.inverse[..]);
            let dx = backward(&x, &gradient, sizes, statistics, (&gain, &bias), true, into);
            (made, dx, of_gain)
        };
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
        for threads in [2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(run) == alone, "{threads} threads");
        }
    }
}
