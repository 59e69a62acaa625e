//! Layer normalisation over the last axis (Ba, Kiros and Hinton 2016).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::math::{dot, sum, vectorised};
use super::parallel::{pieces, sum_over_rows};
use super::tape::Tape;
use super::values::{Values, row_major, rows_and_width, tensor_of};

/// Rows that one thread normalises at a time.
const PIECE_ROWS: usize = 64;

/// Every row of the last axis of `x`, less its mean and divided by its deviation, times `gain` plus `bias`. `eps` is
/// added to the variance.
pub(crate) fn layer_norm(tape: &Tape, x: &Tensor, gain: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    tape.apply3(LayerNorm { eps }, [x, gain, bias])
}

struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    /// Mean and inverse deviation of a row.
    #[inline(always)]
    fn moments(&self, row: &[f32]) -> (f32, f32) {
        let count = row.len() as f32;
        let mean = sum(row) / count;
        // Two passes: subtracting squares would lose all digits of a row far from 0.
        let mut lanes = [0.0f32; 8];
        let (groups, rest) = row.as_chunks::<8>();
        for group in groups {
            lanes.iter_mut().zip(group).for_each(|(lane, v)| *lane += (v - mean) * (v - mean));
        }
        let squares = sum(&lanes) + rest.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>();
        (mean, 1.0 / (squares / count + self.eps).sqrt())
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gain: &CpuStorage,
        gain_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, width) = rows_and_width(x_layout)?;
        let (x, gain, bias) = (row_major(x, x_layout)?, row_major(gain, gain_layout)?, row_major(bias, bias_layout)?);
        let (gain, bias) = (&gain[..width], &bias[..width]);
        let mut y = vec![0.0; x.len()];
        pieces(&mut y, PIECE_ROWS * width, |i, y| {
            let x = &x[i * PIECE_ROWS * width..];
            vectorised(|| {
                for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                    let (mean, scale) = self.moments(x);
                    for (((y, x), gain), bias) in y.iter_mut().zip(x).zip(gain).zip(bias) {
                        *y = (x - mean) * scale * gain + bias;
                    }
                }
            });
        });
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    /// With `n` the normalised row and `h = grad * gain`:
    /// `dx = scale * (h - mean(h) - n * mean(h * n))`, `dgain = sum(grad * n)`, `dbias = sum(grad)`.
    fn bwd(
        &self,
        x: &Tensor,
        gain: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_values, gain_values, grad_values) = (Values::of(x), Values::of(gain), Values::of(grad));
        let (x_rows, gain_row, grad_rows) = (x_values.rows()?, gain_values.rows()?, grad_values.rows()?);
        let (rows, width) = rows_and_width(x.layout())?;
        let count = width as f32;

        let mut x_grad = vec![0.0; x_rows.len()];
        pieces(&mut x_grad, PIECE_ROWS * width, |i, x_grad| {
            let first = i * PIECE_ROWS * width;
            let inputs = x_rows[first..].chunks_exact(width).zip(grad_rows[first..].chunks_exact(width));
            vectorised(|| {
                for (out, (x, grad)) in x_grad.chunks_exact_mut(width).zip(inputs) {
                    let (mean, scale) = self.moments(x);
                    for ((out, grad), gain) in out.iter_mut().zip(grad).zip(gain_row.iter()) {
                        *out = grad * gain;
                    }
                    let total = sum(out);
                    let mean_h = total / count;
                    let mean_hn = (dot(out, x) - mean * total) * scale / count;
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = scale * (*out - mean_h - (x - mean) * scale * mean_hn);
                    }
                }
            });
        });

        // One sum of gain gradients beside bias gradients.
        let sums = sum_over_rows(rows, 2 * width, |r, sums| {
            let (x, grad) = (&x_rows[r * width..][..width], &grad_rows[r * width..][..width]);
            let (mean, scale) = self.moments(x);
            let (gain_sums, bias_sums) = sums.split_at_mut(width);
            vectorised(|| {
                for (((gain_sum, bias_sum), x), grad) in gain_sums.iter_mut().zip(bias_sums).zip(x).zip(grad) {
                    *gain_sum += grad * ((x - mean) * scale);
                    *bias_sum += grad;
                }
            });
        });
        let (gain_grad, bias_grad) = sums.split_at(width);
        Ok((
            Some(tensor_of(x_grad, x.shape())?),
            Some(tensor_of(gain_grad.to_vec(), gain.shape())?),
            Some(tensor_of(bias_grad.to_vec(), bias.shape())?),
        ))
    }
}
