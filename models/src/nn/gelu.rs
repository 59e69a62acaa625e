//! GELU with the exact normal distribution, as ViT uses it (Hendrycks and Gimpel 2016): `x * P(N <= x)`.

use std::f32::consts::FRAC_1_SQRT_2;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::math::{erf, exp, vectorised};
use super::parallel::pieces;
use super::tape::Tape;
use super::values::{Values, row_major, tensor_of};

/// Values that one thread computes at a time.
const PIECE: usize = 4096;

/// `1 / sqrt(2 pi)`.
const DENSITY_AT_0: f32 = 0.398_942_3;

/// `x * P(N <= x)` for every element.
pub(crate) fn gelu(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    tape.apply1(Gelu, x)
}

struct Gelu;

/// The probability that a standard normal number is at most `x`.
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * FRAC_1_SQRT_2)
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = row_major(x, layout)?;
        let mut y = vec![0.0; x.len()];
        pieces(&mut y, PIECE, |i, y| {
            let x = &x[i * PIECE..];
            vectorised(|| y.iter_mut().zip(x).for_each(|(y, x)| *y = x * normal_cdf(*x)));
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (x_values, grad_values) = (Values::of(x), Values::of(grad));
        let (x_rows, grad_rows) = (x_values.rows()?, grad_values.rows()?);
        let mut x_grad = vec![0.0; x_rows.len()];
        pieces(&mut x_grad, PIECE, |i, x_grad| {
            let inputs = x_rows[i * PIECE..].iter().zip(&grad_rows[i * PIECE..]);
            vectorised(|| {
                for (out, (x, grad)) in x_grad.iter_mut().zip(inputs) {
                    *out = grad * (normal_cdf(*x) + x * (DENSITY_AT_0 * exp(-0.5 * x * x)));
                }
            });
        });
        Ok(Some(tensor_of(x_grad, x.shape())?))
    }
}
