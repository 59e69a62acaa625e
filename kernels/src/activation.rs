//! Activations and their derivatives, element by element.

use std::f32::consts::FRAC_1_SQRT_2;
use std::mem::MaybeUninit;

use crate::fresh;
use crate::math::{erf, exp, sigmoid, tanh};
use crate::simd::vectorised;
use crate::threads::pieces;

/// Values that one task computes at a time.
const PIECE: usize = 4096;

/// What is applied to every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * P(N <= x)` for a standard normal number `N` (Hendrycks and Gimpel 2016), by the error function.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`: the approximation that GPT-2 uses.
    GeluTanh,
    /// `max(x, 0)`; its derivative at 0 is 0.
    Relu,
    /// `x / (1 + e^-x)` (Elfwing, Uchibe and Doya 2018), also called swish.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
}

/// `kind` of every element of `x`.
pub fn forward(kind: Activation, x: &[f32]) -> Vec<f32> {
    let fill = |y: &mut [MaybeUninit<f32>]| {
        pieces(y, PIECE, |i, y| {
            vectorised(
                #[inline(always)]
                || apply_into(kind, &x[i * PIECE..][..y.len()], y),
            )
        });
    };
    // SAFETY: the pieces cover all of the output, and each is written whole.
    unsafe { fresh::written(x.len(), fill) }
}

/// The gradient by `x`, from the `gradient` by what [`forward`] gave: in its place.
///
/// # Panics
/// If the lengths differ.
pub fn backward(kind: Activation, x: &[f32], mut gradient: Vec<f32>) -> Vec<f32> {
    assert_eq!(x.len(), gradient.len(), "a gradient for each value");
    pieces(&mut gradient, PIECE, |i, gradient| {
        vectorised(
            #[inline(always)]
            || backward_stretch(kind, &x[i * PIECE..][..gradient.len()], gradient),
        );
    });
    gradient
}

/// Replaces every value of a stretch, on this thread; vector code if called inside of [`vectorised`].
#[inline(always)]
pub fn apply(kind: Activation, x: &mut [f32]) {
    #[inline(always)]
    fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
        x.iter_mut().for_each(|x| *x = f(*x));
    }
    match kind {
        Activation::Gelu => each(x, gelu),
        Activation::GeluTanh => each(x, gelu_tanh),
        Activation::Relu => each(x, relu),
        Activation::Silu => each(x, silu),
        Activation::Tanh => each(x, tanh),
    }
}

/// Writes `kind` of every value of a stretch, on this thread; vector code if called inside of [`vectorised`].
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn apply_into(kind: Activation, x: &[f32], y: &mut [MaybeUninit<f32>]) {
    #[inline(always)]
    fn each(x: &[f32], y: &mut [MaybeUninit<f32>], f: impl Fn(f32) -> f32) {
        for (y, x) in y.iter_mut().zip(x) {
            y.write(f(*x));
        }
    }
    assert_eq!(x.len(), y.len(), "an output for each input");
    match kind {
        Activation::Gelu => each(x, y, gelu),
        Activation::GeluTanh => each(x, y, gelu_tanh),
        Activation::Relu => each(x, y, relu),
        Activation::Silu => each(x, y, silu),
        Activation::Tanh => each(x, y, tanh),
    }
}

/// Multiplies a stretch of the gradient by the derivative at `x`, on this thread; vector code if called inside of
/// [`vectorised`].
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn backward_stretch(kind: Activation, x: &[f32], gradient: &mut [f32]) {
    #[inline(always)]
    fn each(x: &[f32], gradient: &mut [f32], slope: impl Fn(f32) -> f32) {
        gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient *= slope(*x));
    }
    assert_eq!(x.len(), gradient.len(), "a gradient for each value");
    match kind {
        Activation::Gelu => each(x, gradient, gelu_slope),
        Activation::GeluTanh => each(x, gradient, gelu_tanh_slope),
        // Not a product with 0 or 1: what is not let through does not count, even if it is infinite.
        Activation::Relu => {
            for (gradient, x) in gradient.iter_mut().zip(x) {
                // All bits or none. A choice would become a store under a mask, which is several times slower on some processors.
                let kept = u32::from(*x <= 0.0).wrapping_sub(1);
                *gradient = f32::from_bits(gradient.to_bits() & kept);
            }
        }
        Activation::Silu => each(x, gradient, silu_slope),
        Activation::Tanh => each(x, gradient, tanh_slope),
    }
}

/// The probability that a standard normal number is at most `x`.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * FRAC_1_SQRT_2)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal_cdf(x)
}

#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    /// `1 / sqrt(2 pi)`.
    const DENSITY_AT_0: f32 = 0.398_942_3;
    normal_cdf(x) + x * (DENSITY_AT_0 * exp(-0.5 * x * x))
}

/// `2 sqrt(2 / pi)`.
const TWICE_ROOT: f32 = 1.595_769;

/// The weight of the cube in the approximation of GELU.
const CUBE: f32 = 0.044_715;

/// Since `(1 + tanh(u)) / 2 = sigmoid(2 u)`, and small differences from 1 are exact this way.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(TWICE_ROOT * (x + CUBE * (x * x) * x))
}

#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    /// From here on the slope is 0 or 1; further out the cube could overflow.
    const FLAT: f32 = 20.0;
    let x = if x > FLAT { FLAT } else { x };
    let x = if x < -FLAT { -FLAT } else { x };
    let square = x * x;
    let e = exp(-TWICE_ROOT * (x + CUBE * square * x));
    let s = 1.0 / (1.0 + e);
    s + x * s * (e * s) * (TWICE_ROOT * (1.0 + 3.0 * CUBE * square))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let e = exp(-x);
    let s = 1.0 / (1.0 + e);
    s + x * s * (e * s)
}

#[inline(always)]
fn tanh_slope(x: f32) -> f32 {
    let y = tanh(x);
    1.0 - y * y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::testing::{bits, same_for_any_threads, values};

    const ALL: [Activation; 5] =
        [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh];

    /// The error function in double precision: its Maclaurin series near 0, the continued fraction of its complement
    /// further out.
    fn erf_f64(x: f64) -> f64 {
        if x.abs() > 3.0 {
            let tail = (1..=80).rev().fold(x.abs(), |tail, k| x.abs() + f64::from(k) / 2.0 / tail);
            return (1.0 - (-x * x).exp() / (tail * std::f64::consts::PI.sqrt())).copysign(x);
        }
        let (mut term, mut total, mut n) = (x, x, 0.0);
        while f64::abs(term) > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            total += term / (2.0 * n + 1.0);
        }
        total * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn exact(kind: Activation, x: f64) -> f64 {
        match kind {
            Activation::Gelu => x * 0.5 * (1.0 + erf_f64(x * std::f64::consts::FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
        }
    }

    fn arguments() -> Vec<f32> {
        let near = (-15_000..=15_000).map(|i| i as f32 * 1e-3 + 1e-4);
        near.chain([50.0, -50.0, 1e4, -1e4]).collect()
    }

    #[test]
    fn values_and_slopes_are_accurate_to_single_precision() {
        const H: f64 = 1e-4;
        let x = arguments();
        for kind in ALL {
            let (y, slope) = (forward(kind, &x), backward(kind, &x, vec![1.0; x.len()]));
            for ((x, y), slope) in x.iter().map(|x| f64::from(*x)).zip(&y).zip(&slope) {
                let size = 1e-6 * x.abs().max(1.0);
                let expected = exact(kind, x);
                assert!((f64::from(*y) - expected).abs() <= size, "{kind:?}({x}) = {y}, not {expected}");
                // The one kink is not crossed.
                let expected = (exact(kind, x + H / 2.0) - exact(kind, x - H / 2.0)) / H;
                assert!((f64::from(*slope) - expected).abs() <= size, "{kind:?}'({x}) = {slope}, not {expected}");
            }
        }
    }

    #[test]
    fn edges_are_as_in_pytorch() {
        assert_eq!(backward(Activation::Relu, &[0.0, -0.0, 1.0, -1.0], vec![5.0; 4]), [0.0, 0.0, 5.0, 0.0]);
        for kind in ALL {
            assert!(forward(kind, &[f32::NAN])[0].is_nan(), "{kind:?}");
            assert_eq!(forward(kind, &[0.0]), [0.0], "{kind:?}");
            assert!(backward(kind, &[1e30, -1e30], vec![1.0; 2]).iter().all(|g| g.is_finite()), "{kind:?}");
            if kind != Activation::Relu {
                assert!(backward(kind, &[f32::NAN], vec![1.0])[0].is_nan(), "{kind:?}");
            }
        }
    }

    #[test]
    fn stretches_and_threads_give_the_same_bits() {
        for kind in ALL {
            for len in [0, 1, 3, 7, 17, 33, 3 * PIECE + 5] {
                let x: Vec<f32> = values(1, len).iter().map(|v| v * 5.0).collect();
                let mut y = x.clone();
                apply(kind, &mut y);
                assert_eq!(bits(&forward(kind, &x)), bits(&y), "{kind:?}");
                let mut gradient = values(2, len);
                backward_stretch(kind, &x, &mut gradient);
                assert_eq!(bits(&backward(kind, &x, values(2, len))), bits(&gradient), "{kind:?}");
            }
            let x = values(3, 3 * PIECE + 5);
            same_for_any_threads(|| backward(kind, &x, forward(kind, &x)));
        }
    }
}
