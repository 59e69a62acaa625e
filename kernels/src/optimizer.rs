//! How weights move: one pass over memory for clipping, moments and weights, over any number of tensors at once.

use crate::simd::vectorised;
use crate::threads;

/// Values that one task updates at a time.
const PIECE: usize = 1 << 14;

/// An update of AdamW (Loshchilov and Hutter 2019, algorithm 2), with what depends on the step alone worked out: with
/// `g = gradient_scale * gradient`,
///
/// ```text
/// mean   = mean + mean_weight * (g - mean)
/// square = square_keep * square + square_take * g * g
/// weight = shrink * weight - step * mean / (sqrt(square) * inverse_root + eps)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Multiplies every gradient: the factor that clips it.
    pub gradient_scale: f32,
    /// `1 - beta1`.
    pub mean_weight: f32,
    /// `beta2`.
    pub square_keep: f32,
    /// `1 - beta2`.
    pub square_take: f32,
    /// Keeps the divisor away from 0.
    pub eps: f32,
    /// `lr / (1 - beta1^t)`.
    pub step: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub inverse_root: f32,
    /// `1 - lr * weight_decay`.
    pub shrink: f32,
}

/// A tensor that [`AdamW`] moves. All slices have the same length.
#[derive(Debug)]
pub struct AdamWTensor<'a> {
    /// What moves.
    pub weights: &'a mut [f32],
    /// The first moment.
    pub mean: &'a mut [f32],
    /// The second moment.
    pub square: &'a mut [f32],
    /// The gradient, not yet scaled.
    pub gradient: &'a [f32],
    /// How this tensor moves.
    pub rule: AdamW,
}

/// Moves all `tensors` in one pass over all threads.
///
/// # Panics
/// If the lengths of a tensor differ.
pub fn adamw<'a>(tensors: impl IntoIterator<Item = AdamWTensor<'a>>) {
    let mut tasks = Vec::new();
    for AdamWTensor { weights, mean, square, gradient, rule } in tensors {
        let lengths = [mean.len(), square.len(), gradient.len()];
        assert!(lengths == [weights.len(); 3], "lengths must fit: {} and {lengths:?}", weights.len());
        let moments = mean.chunks_mut(PIECE).zip(square.chunks_mut(PIECE));
        for ((weights, (mean, square)), gradient) in weights.chunks_mut(PIECE).zip(moments).zip(gradient.chunks(PIECE))
        {
            tasks.push(AdamWTensor { weights, mean, square, gradient, rule });
        }
    }
    let cost = tasks.iter().map(|task| task.weights.len()).sum();
    threads::for_each_mut(&mut tasks, cost, |_, task| {
        vectorised(
            #[inline(always)]
            || adamw_piece(task),
        )
    });
}

#[inline(always)]
fn adamw_piece(task: &mut AdamWTensor<'_>) {
    let AdamW { gradient_scale, mean_weight, square_keep, square_take, eps, step, inverse_root, shrink } = task.rule;
    let moments = task.mean.iter_mut().zip(task.square.iter_mut());
    for ((w, (m, v)), gradient) in task.weights.iter_mut().zip(moments).zip(task.gradient) {
        let g = gradient * gradient_scale;
        *m += mean_weight * (g - *m);
        *v = square_keep * *v + square_take * g * g;
        *w = shrink * *w - step * *m / (v.sqrt() * inverse_root + eps);
    }
}

/// An update of stochastic gradient descent: with `g = gradient_scale * gradient`,
///
/// ```text
/// buffer = momentum * buffer + g
/// weight = shrink * weight - lr * (nesterov: g + momentum * buffer; else: buffer)
/// ```
///
/// and without a buffer `weight = shrink * weight - lr * g`.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Multiplies every gradient: the factor that clips it.
    pub gradient_scale: f32,
    /// How much of the buffer stays.
    pub momentum: f32,
    /// Whether to look ahead (Sutskever et al. 2013).
    pub nesterov: bool,
    /// Learning rate.
    pub lr: f32,
    /// `1 - lr * weight_decay`.
    pub shrink: f32,
}

/// A tensor that [`Sgd`] moves. All slices have the same length.
#[derive(Debug)]
pub struct SgdTensor<'a> {
    /// What moves.
    pub weights: &'a mut [f32],
    /// The momentum, if there is any.
    pub buffer: Option<&'a mut [f32]>,
    /// The gradient, not yet scaled.
    pub gradient: &'a [f32],
    /// How this tensor moves.
    pub rule: Sgd,
}

/// Moves all `tensors` in one pass over all threads.
///
/// # Panics
/// If the lengths of a tensor differ.
pub fn sgd<'a>(tensors: impl IntoIterator<Item = SgdTensor<'a>>) {
    let mut tasks = Vec::new();
    for SgdTensor { weights, buffer, gradient, rule } in tensors {
        let fits = buffer.as_ref().is_none_or(|buffer| buffer.len() == weights.len());
        assert!(fits && gradient.len() == weights.len(), "lengths must fit");
        let mut buffers = buffer.map(|buffer| buffer.chunks_mut(PIECE));
        for (weights, gradient) in weights.chunks_mut(PIECE).zip(gradient.chunks(PIECE)) {
            let buffer = buffers.as_mut().and_then(Iterator::next);
            tasks.push(SgdTensor { weights, buffer, gradient, rule });
        }
    }
    let cost = tasks.iter().map(|task| task.weights.len()).sum();
    threads::for_each_mut(&mut tasks, cost, |_, task| {
        vectorised(
            #[inline(always)]
            || sgd_piece(task),
        )
    });
}

#[inline(always)]
fn sgd_piece(task: &mut SgdTensor<'_>) {
    let Sgd { gradient_scale, momentum, nesterov, lr, shrink } = task.rule;
    let weights = task.weights.iter_mut().zip(task.gradient);
    let Some(buffer) = &mut task.buffer else {
        weights.for_each(|(w, gradient)| *w = shrink * *w - lr * (gradient * gradient_scale));
        return;
    };
    let (of_gradient, of_buffer) = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
    for ((w, gradient), b) in weights.zip(buffer.iter_mut()) {
        let g = gradient * gradient_scale;
        *b = momentum * *b + g;
        *w = shrink * *w - lr * (of_gradient * g + of_buffer * *b);
    }
}

/// Values whose squares are added up by one task. Part of the result: it fixes the order of the sum.
const NORM_CHUNK: usize = 1 << 16;

/// Partial sums inside a chunk, for the vector unit. Part of the result, too.
const LANES: usize = 8;

/// The sum of all squares, in double precision.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = vec![0.0; values.len().div_ceil(NORM_CHUNK)];
    threads::for_each_mut(&mut sums, values.len(), |chunk, sum| {
        let values = &values[chunk * NORM_CHUNK..];
        *sum = vectorised(
            #[inline(always)]
            || chunk_of_squares(&values[..values.len().min(NORM_CHUNK)]),
        );
    });
    sums.iter().sum()
}

#[inline(always)]
fn chunk_of_squares(values: &[f32]) -> f64 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f64; LANES];
    for group in whole {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::testing::{bits, same_for_any_threads, values};

    const RULE: AdamW = AdamW {
        gradient_scale: 0.7,
        mean_weight: 0.1,
        square_keep: 0.999,
        square_take: 0.001,
        eps: 1e-8,
        step: 1e-2,
        inverse_root: 3.0,
        shrink: 0.99,
    };

    const LENGTHS: [usize; 6] = [0, 1, 3, 17, 33, 2 * PIECE + 5];

    /// Weights, moments and gradients before an update.
    fn state(seed: u32, len: usize) -> [Vec<f32>; 4] {
        let square = values(seed + 2, len).iter().map(|v| v * v).collect();
        [values(seed, len), values(seed + 1, len), square, values(seed + 3, len)]
    }

    fn with_rule([weights, mean, square, gradient]: &mut [Vec<f32>; 4]) -> AdamWTensor<'_> {
        AdamWTensor { weights, mean, square, gradient, rule: RULE }
    }

    #[test]
    fn adamw_rounds_as_its_formulas_are_written_for_any_number_of_tensors() {
        let mut tensors: Vec<_> = (0..).zip(LENGTHS).map(|(i, len)| state(10 * i, len)).collect();
        let mut expected = tensors.clone();
        for [w, m, v, gradient] in &mut expected {
            let g: Vec<f32> = gradient.iter().map(|g| g * RULE.gradient_scale).collect();
            (0..g.len()).for_each(|i| m[i] += RULE.mean_weight * (g[i] - m[i]));
            (0..g.len()).for_each(|i| v[i] = RULE.square_keep * v[i] + RULE.square_take * g[i] * g[i]);
            for i in 0..g.len() {
                w[i] = RULE.shrink * w[i] - RULE.step * m[i] / (v[i].sqrt() * RULE.inverse_root + RULE.eps);
            }
        }
        let mut one_by_one = tensors.clone();
        one_by_one.iter_mut().for_each(|state| adamw([with_rule(state)]));
        adamw(tensors.iter_mut().map(with_rule));
        for found in [tensors, one_by_one] {
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert_eq!(bits(found), bits(expected));
            }
        }
    }

    #[test]
    fn sgd_rounds_as_its_formulas_are_written() {
        for (nesterov, with_buffer) in [(false, false), (false, true), (true, true)] {
            let rule = Sgd { gradient_scale: 0.7, momentum: 0.9, nesterov, lr: 0.1, shrink: 0.99 };
            for len in LENGTHS {
                let [mut w, mut b, _, gradient] = state(5, len);
                let (mut expected_w, mut expected_b) = (w.clone(), b.clone());
                for i in 0..len {
                    let g = gradient[i] * 0.7;
                    let along = if with_buffer {
                        expected_b[i] = 0.9 * expected_b[i] + g;
                        if nesterov { g + 0.9 * expected_b[i] } else { expected_b[i] }
                    } else {
                        g
                    };
                    expected_w[i] = 0.99 * expected_w[i] - 0.1 * along;
                }
                let buffer = with_buffer.then_some(&mut b[..]);
                sgd([SgdTensor { weights: &mut w, buffer, gradient: &gradient, rule }]);
                assert_eq!((bits(&w), bits(&b)), (bits(&expected_w), bits(&expected_b)));
            }
        }
    }

    #[test]
    fn threads_change_no_weight() {
        same_for_any_threads(|| {
            let mut state = state(1, 3 * PIECE + 1);
            adamw([with_rule(&mut state)]);
            let [mut w, mut m, v, g] = state;
            let rule = Sgd { gradient_scale: 0.7, momentum: 0.9, nesterov: true, lr: 0.1, shrink: 0.99 };
            sgd([SgdTensor { weights: &mut w, buffer: Some(&mut m), gradient: &g, rule }]);
            [w, m, v].concat()
        });
    }

    #[test]
    fn the_sum_of_squares_is_exact_and_the_same_for_any_threads() {
        let x: Vec<f32> = (0..3 * NORM_CHUNK + 17).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let exact: i64 = x.iter().map(|g| (*g as i64).pow(2)).sum();
        assert_eq!(sum_of_squares(&x), exact as f64);
        assert_eq!(sum_of_squares(&[]), 0.0);
        let random = values(1, 2 * NORM_CHUNK + 3);
        same_for_any_threads(|| {
            let sum = sum_of_squares(&random).to_bits();
            vec![f32::from_bits(sum as u32), f32::from_bits((sum >> 32) as u32)]
        });
    }
}
