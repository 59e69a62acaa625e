//! Layer norm (Ba, Kiros and Hinton 2016) and RMS norm (Zhang and Sennrich 2019) over the last axis.

use std::mem::MaybeUninit;

use crate::elementwise::{SUM_ROWS, add_groups};
use crate::fresh::{self, Write};
use crate::math::{LANES, dot, fold, sum};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Rows that one task normalises at a time.
const PIECE_ROWS: usize = 16;

/// What [`layer_norm`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// The normalised rows, times gain plus bias: as large as the input.
    pub y: Vec<f32>,
    /// The mean of each row.
    pub mean: Vec<f32>,
    /// One over the deviation of each row.
    pub inverse: Vec<f32>,
}

/// What [`rms_norm`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// The normalised rows, times gain: as large as the input.
    pub y: Vec<f32>,
    /// One over the root of the mean of the squares of each row.
    pub inverse: Vec<f32>,
}

/// `y = (x - mean) / sqrt(variance + eps) * gain + bias` of every row of `x` `[rows, width]`, with the variance of the whole
/// row. Mean and variance take two passes: subtracting squares would lose all digits of a row far from 0.
///
/// # Panics
/// If sizes do not fit.
pub fn layer_norm(x: &[f32], width: usize, gain: &[f32], bias: &[f32], eps: f32) -> LayerNorm {
    assert!(gain.len() == width && bias.len() == width, "a gain and a bias for each column");
    let rows = whole_rows(x, width);
    let (mut mean, mut inverse) = (vec![0.0; rows], vec![0.0; rows]);
    let y = each_row(
        rows,
        width,
        [&mut mean, &mut inverse],
        #[inline(always)]
        |row, y| {
            let x = &x[row * width..][..width];
            let (mean, inverse) = moments(x, eps);
            normalise(x, (mean, inverse), (gain, bias), y);
            [mean, inverse]
        },
    );
    LayerNorm { y, mean, inverse }
}

/// The sum `x + more` and its [`layer_norm`], in one pass over memory.
///
/// # Panics
/// If sizes do not fit.
pub fn residual_layer_norm(
    x: &[f32],
    more: &[f32],
    width: usize,
    gain: &[f32],
    bias: &[f32],
    eps: f32,
) -> (Vec<f32>, LayerNorm) {
    assert!(gain.len() == width && bias.len() == width, "a gain and a bias for each column");
    assert_eq!(x.len(), more.len(), "two tensors of the same shape are added");
    let rows = whole_rows(x, width);
    let (mut mean, mut inverse) = (vec![0.0; rows], vec![0.0; rows]);
    let mut y = Vec::new();
    let fill = |sums: &mut [MaybeUninit<f32>]| {
        let sums = Shared::new(sums);
        y = each_row(
            rows,
            width,
            [&mut mean, &mut inverse],
            #[inline(always)]
            |row, y| {
                let range = row * width..(row + 1) * width;
                // SAFETY: each row is visited once.
                let sum = unsafe { sums.slice(range.start, width) };
                for (sum, (x, more)) in sum.iter_mut().zip(x[range.clone()].iter().zip(&more[range])) {
                    sum.write(x + more);
                }
                // SAFETY: written just now.
                let sum = unsafe { sum.assume_init_ref() };
                let (mean, inverse) = moments(sum, eps);
                normalise(sum, (mean, inverse), (gain, bias), y);
                [mean, inverse]
            },
        );
    };
    // SAFETY: each row is visited.
    let sums = unsafe { fresh::written(x.len(), fill) };
    (sums, LayerNorm { y, mean, inverse })
}

/// `y = x / sqrt(mean of x^2 + eps) * gain` of every row of `x` `[rows, width]`.
///
/// # Panics
/// If sizes do not fit.
pub fn rms_norm(x: &[f32], width: usize, gain: &[f32], eps: f32) -> RmsNorm {
    assert_eq!(gain.len(), width, "a gain for each column");
    let rows = whole_rows(x, width);
    let mut inverse = vec![0.0; rows];
    let y = each_row(
        rows,
        width,
        [&mut inverse],
        #[inline(always)]
        |row, y| {
            let x = &x[row * width..][..width];
            let inverse = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
            for ((y, x), gain) in y.iter_mut().zip(x).zip(gain) {
                y.write(x * inverse * gain);
            }
            [inverse]
        },
    );
    RmsNorm { y, inverse }
}

/// The gradient by the input of [`layer_norm`], from the `gradient` by its output and what it saved; with `known`, that is
/// added to, in its place: the gradient that reaches the input past the norm, by a residual connection. The gradients of gain
/// and bias go where they are told to. One pass over memory. With `n` the normalised row and `h = gradient * gain`,
///
/// ```text
/// dx = inverse * (h - mean(h) - n * mean(h * n)),  dgain = sum(gradient * n),  dbias = sum(gradient)
/// ```
///
/// where the sums go over groups of 64 rows first, then over the groups in order.
///
/// # Panics
/// If sizes do not fit.
#[expect(clippy::too_many_arguments, reason = "a norm has as many")]
pub fn layer_norm_backward(
    x: &[f32],
    width: usize,
    gain: &[f32],
    (mean, inverse): (&[f32], &[f32]),
    gradient: &[f32],
    known: Option<Vec<f32>>,
    gain_gradient: Option<(&mut [f32], Write)>,
    bias_gradient: Option<(&mut [f32], Write)>,
) -> Vec<f32> {
    let rows = whole_rows(x, width);
    assert!(gain.len() == width && gradient.len() == x.len(), "a gain for each column, a gradient for each value");
    assert!(mean.len() == rows && inverse.len() == rows, "saved values for each row");
    let (of_x, partial) = each_row_back(
        rows,
        width,
        known,
        2 * width,
        #[inline(always)]
        |row, out, sums| {
            let (x, gradient) = (&x[row * width..][..width], &gradient[row * width..][..width]);
            let (mean, inverse) = (mean[row], inverse[row]);
            let normal = |x: f32| (x - mean) * inverse;
            let (gain_sums, bias_sums) = sums.split_at_mut(width);
            let [of_h, of_hn] = row_sums(
                x,
                gradient,
                gain,
                normal,
                #[inline(always)]
                |i, n, g| {
                    gain_sums[i] += g * n;
                    bias_sums[i] += g;
                },
            );
            let (mean_h, mean_hn) = (of_h / width as f32, of_hn / width as f32);
            out.each(
                #[inline(always)]
                |i| inverse * (gradient[i] * gain[i] - mean_h - normal(x[i]) * mean_hn),
            );
        },
    );
    for (into, first) in [(gain_gradient, 0), (bias_gradient, width)] {
        if let Some((into, write)) = into {
            assert_eq!(into.len(), width, "a gradient for each column");
            add_groups(&partial, 2 * width, first, into, write);
        }
    }
    of_x
}

/// The gradient by the input of [`rms_norm`], as in [`layer_norm_backward`]: with `n = x * inverse` and
/// `h = gradient * gain`,
///
/// ```text
/// dx = inverse * (h - n * mean(h * n)),  dgain = sum(gradient * n)
/// ```
///
/// # Panics
/// If sizes do not fit.
pub fn rms_norm_backward(
    x: &[f32],
    width: usize,
    gain: &[f32],
    inverse: &[f32],
    gradient: &[f32],
    known: Option<Vec<f32>>,
    gain_gradient: Option<(&mut [f32], Write)>,
) -> Vec<f32> {
    let rows = whole_rows(x, width);
    assert!(gain.len() == width && gradient.len() == x.len(), "a gain for each column, a gradient for each value");
    assert_eq!(inverse.len(), rows, "a saved value for each row");
    let (of_x, partial) = each_row_back(
        rows,
        width,
        known,
        width,
        #[inline(always)]
        |row, out, sums| {
            let (x, gradient) = (&x[row * width..][..width], &gradient[row * width..][..width]);
            let inverse = inverse[row];
            let normal = |x: f32| x * inverse;
            let [_, of_hn] = row_sums(
                x,
                gradient,
                gain,
                normal,
                #[inline(always)]
                |i, n, g| sums[i] += g * n,
            );
            let mean_hn = of_hn / width as f32;
            out.each(
                #[inline(always)]
                |i| inverse * (gradient[i] * gain[i] - normal(x[i]) * mean_hn),
            );
        },
    );
    if let Some((into, write)) = gain_gradient {
        assert_eq!(into.len(), width, "a gradient for each column");
        add_groups(&partial, width, 0, into, write);
    }
    of_x
}

fn whole_rows(x: &[f32], width: usize) -> usize {
    assert!(width > 0 && x.len().is_multiple_of(width), "whole rows of {width} values, not {}", x.len());
    x.len() / width
}

/// Mean and inverse deviation of a row.
#[inline(always)]
fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum(row) / count;
    let (groups, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for group in groups {
        lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane += (v - mean) * (v - mean));
    }
    let squares = fold(lanes) + rest.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>();
    (mean, 1.0 / (squares / count + eps).sqrt())
}

#[inline(always)]
fn normalise(x: &[f32], (mean, inverse): (f32, f32), (gain, bias): (&[f32], &[f32]), y: &mut [MaybeUninit<f32>]) {
    for (((y, x), gain), bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
        y.write((x - mean) * inverse * gain + bias);
    }
}

/// Calls `row` with the number of each row and the place of its output, which it must fill; what it returns is saved.
fn each_row<const N: usize>(
    rows: usize,
    width: usize,
    saved: [&mut Vec<f32>; N],
    row: impl Fn(usize, &mut [MaybeUninit<f32>]) -> [f32; N] + Send + Sync,
) -> Vec<f32> {
    let saved = saved.map(|values| Shared::new(values));
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let y = Shared::new(y);
        threads::for_each(rows.div_ceil(PIECE_ROWS), rows * width, |piece| {
            vectorised(
                #[inline(always)]
                || {
                    for at in piece * PIECE_ROWS..rows.min((piece + 1) * PIECE_ROWS) {
                        // SAFETY: each row belongs to one task.
                        let values = row(at, unsafe { y.slice(at * width, width) });
                        for (saved, value) in saved.iter().zip(values) {
                            // SAFETY: as above.
                            unsafe { saved.slice(at, 1) }.copy_from_slice(&[value]);
                        }
                    }
                },
            );
        });
    };
    // SAFETY: `row` fills all rows: it is one of the closures above.
    unsafe { fresh::written(rows * width, fill) }
}

/// Where the gradient by a row goes.
struct Row<'a> {
    values: &'a mut [MaybeUninit<f32>],
    /// Whether the values are there and added to.
    known: bool,
}

impl Row<'_> {
    /// Writes all values.
    #[inline(always)]
    fn each(self, of: impl Fn(usize) -> f32) {
        if self.known {
            for (i, value) in self.values.iter_mut().enumerate() {
                // SAFETY: known values are there.
                value.write(unsafe { value.assume_init() } + of(i));
            }
        } else {
            self.values.iter_mut().enumerate().for_each(|(i, value)| _ = value.write(of(i)));
        }
    }
}

/// Calls `row` with the number of each row, the place of its gradient, which it must fill, and the `sums` sums of its group
/// of [`SUM_ROWS`] rows; gives the gradients and the sums of all groups.
fn each_row_back(
    rows: usize,
    width: usize,
    known: Option<Vec<f32>>,
    sums: usize,
    row: impl Fn(usize, Row<'_>, &mut [f32]) + Send + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let groups = rows.div_ceil(SUM_ROWS);
    let mut partial = vec![0.0; groups * sums];
    let all_sums = Shared::new(&mut partial);
    let is_known = known.is_some();
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let out = Shared::new(out);
        threads::for_each(groups, rows * width, |group| {
            // SAFETY: each task has a group of its own.
            let sums = unsafe { all_sums.slice(group * sums, sums) };
            vectorised(
                #[inline(always)]
                || {
                    for at in group * SUM_ROWS..rows.min((group + 1) * SUM_ROWS) {
                        // SAFETY: each row belongs to one group.
                        let values = unsafe { out.slice(at * width, width) };
                        row(at, Row { values, known: is_known }, sums);
                    }
                },
            );
        });
    };
    let out = match known {
        Some(mut values) => {
            assert_eq!(values.len(), rows * width, "a known gradient for each value");
            let len = values.len();
            values.clear();
            // The values are still there; only numbers are written over them.
            fill(&mut values.spare_capacity_mut()[..len]);
            // SAFETY: all values were there before, and still are.
            unsafe { values.set_len(len) };
            values
        }
        // SAFETY: `row` fills all rows: it is one of the closures above.
        None => unsafe { fresh::written(rows * width, fill) },
    };
    (out, partial)
}

/// With `n` the normalised value and `h = gradient * gain`, the sums over a row of `h` and of `h * n`. Calls `each` with each
/// place, its `n` and its gradient.
#[inline(always)]
fn row_sums(
    x: &[f32],
    gradient: &[f32],
    gain: &[f32],
    normal: impl Fn(f32) -> f32,
    mut each: impl FnMut(usize, f32, f32),
) -> [f32; 2] {
    // Loops of their own, each of which becomes vector code; the row is in the first cache.
    for (i, (x, g)) in x.iter().zip(gradient).enumerate() {
        each(i, normal(*x), *g);
    }
    let mut lanes = [[0.0f32; LANES]; 2];
    let mut rest = [0.0f32; 2];
    let ((xs, rest_x), (gradients, rest_gradient)) = (x.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
    let (gains, rest_gain) = gain.as_chunks::<LANES>();
    for ((x, gradient), gain) in xs.iter().zip(gradients).zip(gains) {
        for i in 0..LANES {
            let h = gradient[i] * gain[i];
            lanes[0][i] += h;
            lanes[1][i] += h * normal(x[i]);
        }
    }
    for ((x, gradient), gain) in rest_x.iter().zip(rest_gradient).zip(rest_gain) {
        let h = gradient * gain;
        rest[0] += h;
        rest[1] += h * normal(*x);
    }
    [fold(lanes[0]) + rest[0], fold(lanes[1]) + rest[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::testing::{bits, close, same_for_any_threads, values};

    const EPS: f32 = 1e-3;
    const SIZES: [(usize, usize); 6] = [(1, 1), (3, 7), (17, 33), (70, 5), (1, 17), (130, 8)];

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Layer,
        Rms,
    }

    /// A row by its definition.
    fn exact(kind: Kind, x: &[f64], gain: &[f64], bias: &[f64]) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = if kind == Kind::Layer { x.iter().sum::<f64>() / count } else { 0.0 };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let inverse = 1.0 / (square + f64::from(EPS)).sqrt();
        (0..x.len()).map(|i| (x[i] - mean) * inverse * gain[i] + bias[i]).collect()
    }

    fn double(values: &[f32]) -> Vec<f64> {
        values.iter().map(|v| f64::from(*v)).collect()
    }

    /// The slope of `gradient . exact` along one of three arguments, by central differences.
    fn slope(kind: Kind, arguments: [&[f64]; 3], gradient: &[f64], which: usize, i: usize) -> f64 {
        const H: f64 = 1e-5;
        let at = |h: f64| {
            let mut arguments = arguments.map(<[f64]>::to_vec);
            arguments[which][i] += h;
            let [x, gain, bias] = &arguments;
            exact(kind, x, gain, bias).iter().zip(gradient).map(|(y, g)| y * g).sum::<f64>()
        };
        (at(H) - at(-H)) / (2.0 * H)
    }

    /// What the kernels give: output; gradients of input, gain and bias.
    fn found(kind: Kind, x: &[f32], gain: &[f32], bias: &[f32], g: &[f32], known: Option<Vec<f32>>) -> [Vec<f32>; 4] {
        let width = gain.len();
        let (mut of_gain, mut of_bias) = (vec![f32::NAN; width], vec![0.5; width]);
        let into_gain = Some((&mut of_gain[..], Write::Overwrite));
        let (y, of_x) = match kind {
            Kind::Layer => {
                let LayerNorm { y, mean, inverse } = layer_norm(x, width, gain, bias, EPS);
                let into_bias = Some((&mut of_bias[..], Write::Add));
                let saved = (&mean[..], &inverse[..]);
                (y, layer_norm_backward(x, width, gain, saved, g, known, into_gain, into_bias))
            }
            Kind::Rms => {
                let RmsNorm { y, inverse } = rms_norm(x, width, gain, EPS);
                (y, rms_norm_backward(x, width, gain, &inverse, g, known, into_gain))
            }
        };
        [y, of_x, of_gain, of_bias]
    }

    #[test]
    fn outputs_and_gradients_are_those_of_the_definition() {
        for (kind, (rows, width)) in [Kind::Layer, Kind::Rms].into_iter().flat_map(|k| SIZES.map(|size| (k, size))) {
            // Far from 0, where one pass over the squares would lose digits.
            let x: Vec<f32> = values(1, rows * width).iter().map(|v| v + 10.0).collect();
            let (gain, mut bias, g) = (values(2, width), values(3, width), values(4, rows * width));
            if kind == Kind::Rms {
                bias.fill(0.0);
            }
            let [y, of_x, of_gain, of_bias] = found(kind, &x, &gain, &bias, &g, None);
            let (xs, gains, biases, gs) = (double(&x), double(&gain), double(&bias), double(&g));
            let (mut ys, mut of_xs) = (Vec::new(), Vec::new());
            let (mut of_gains, mut of_biases) = (vec![0.0; width], vec![0.5; width]);
            for (x, g) in xs.chunks(width).zip(gs.chunks(width)) {
                ys.extend(exact(kind, x, &gains, &biases));
                let along = |which, i| slope(kind, [x, &gains, &biases], g, which, i);
                for i in 0..width {
                    of_xs.push(along(0, i));
                    of_gains[i] += along(1, i);
                    of_biases[i] += if kind == Kind::Layer { along(2, i) } else { 0.0 };
                }
            }
            close(&y, &ys, 1e-5);
            close(&of_biases.iter().map(|v| *v as f32).collect::<Vec<_>>(), &double(&of_bias), 1e-5);
            if width > 1 {
                close(&of_x, &of_xs, 1e-5);
                close(&of_gain, &of_gains, 1e-5);
            } else if kind == Kind::Layer {
                // A row of one value is its own mean.
                assert!(of_x[0].abs() < 1e-5 && of_gain[0].abs() < 1e-5);
            }
        }
    }

    #[test]
    fn a_known_gradient_is_added_to() {
        for kind in [Kind::Layer, Kind::Rms] {
            for (rows, width) in SIZES {
                let [x, g, known] = [1, 2, 3].map(|seed| values(seed, rows * width));
                let (gain, bias) = (values(4, width), values(5, width));
                let [_, alone, of_gain, of_bias] = found(kind, &x, &gain, &bias, &g, None);
                let [_, both, same_gain, same_bias] = found(kind, &x, &gain, &bias, &g, Some(known.clone()));
                let expected: Vec<f32> = known.iter().zip(&alone).map(|(known, more)| known + more).collect();
                assert_eq!(bits(&both), bits(&expected));
                assert_eq!((bits(&of_gain), bits(&of_bias)), (bits(&same_gain), bits(&same_bias)));
            }
        }
    }

    #[test]
    fn a_residual_is_added_before_the_norm() {
        for (rows, width) in SIZES {
            let (x, more) = (values(1, rows * width), values(2, rows * width));
            let (gain, bias) = (values(3, width), values(4, width));
            let (sum, norm) = residual_layer_norm(&x, &more, width, &gain, &bias, EPS);
            let expected: Vec<f32> = x.iter().zip(&more).map(|(x, more)| x + more).collect();
            assert_eq!(bits(&sum), bits(&expected));
            assert_eq!(norm, layer_norm(&expected, width, &gain, &bias, EPS));
        }
    }

    #[test]
    fn threads_change_nothing() {
        let (rows, width) = (203, 67);
        let [x, g] = [1, 2].map(|seed| values(seed, rows * width));
        let (gain, bias) = (values(3, width), values(4, width));
        for kind in [Kind::Layer, Kind::Rms] {
            same_for_any_threads(|| found(kind, &x, &gain, &bias, &g, Some(g.clone())).concat());
        }
        same_for_any_threads(|| {
            let (sum, norm) = residual_layer_norm(&x, &g, width, &gain, &bias, EPS);
            [sum, norm.y, norm.mean, norm.inverse].concat()
        });
    }

    #[test]
    fn no_rows_give_no_gradient() {
        assert!(layer_norm(&[], 3, &[1.0; 3], &[0.0; 3], EPS).y.is_empty());
        let mut of_gain = [7.0; 3];
        let into = Some((&mut of_gain[..], Write::Overwrite));
        assert!(rms_norm_backward(&[], 3, &[1.0; 3], &[], &[], None, into).is_empty());
        assert_eq!(of_gain, [0.0; 3]);
    }
}
