//! From the tokens of a sample to the one vector that the head reads.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::parallel::pieces;
use super::tape::Tape;
use super::values::{Values, row_major, tensor_of};

/// The first token of each sample: `[samples, tokens, dim]` to `[samples, dim]`.
pub(crate) fn first_token(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    tape.apply1(FirstToken, x)
}

/// The mean of all tokens of each sample: `[samples, tokens, dim]` to `[samples, dim]`.
pub(crate) fn mean_of_tokens(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    tape.apply1(MeanOfTokens, x)
}

struct FirstToken;

struct MeanOfTokens;

impl CustomOp1 for FirstToken {
    fn name(&self) -> &'static str {
        "first-token"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (samples, tokens, dim) = layout.shape().dims3()?;
        let x = row_major(x, layout)?;
        let y = x.chunks(tokens * dim).flat_map(|sample| &sample[..dim]).copied().collect();
        Ok((CpuStorage::F32(y), (samples, dim).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, tokens, dim) = x.dims3()?;
        let values = Values::of(grad);
        let mut x_grad = vec![0.0; x.elem_count()];
        for (sample, grad) in x_grad.chunks_mut(tokens * dim).zip(values.rows()?.chunks(dim)) {
            sample[..dim].copy_from_slice(grad);
        }
        Ok(Some(tensor_of(x_grad, x.shape())?))
    }
}

impl CustomOp1 for MeanOfTokens {
    fn name(&self) -> &'static str {
        "mean-of-tokens"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (samples, tokens, dim) = layout.shape().dims3()?;
        let x = row_major(x, layout)?;
        let scale = 1.0 / tokens as f32;
        let mut y = vec![0.0; samples * dim];
        pieces(&mut y, dim, |sample, y| {
            for token in x[sample * tokens * dim..][..tokens * dim].chunks_exact(dim) {
                y.iter_mut().zip(token).for_each(|(y, x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= scale);
        });
        Ok((CpuStorage::F32(y), (samples, dim).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, tokens, dim) = x.dims3()?;
        let values = Values::of(grad);
        let grad = values.rows()?;
        let scale = 1.0 / tokens as f32;
        let mut x_grad = vec![0.0; x.elem_count()];
        pieces(&mut x_grad, tokens * dim, |sample, x_grad| {
            let grad = &grad[sample * dim..][..dim];
            for token in x_grad.chunks_exact_mut(dim) {
                token.iter_mut().zip(grad).for_each(|(out, g)| *out = g * scale);
            }
        });
        Ok(Some(tensor_of(x_grad, x.shape())?))
    }
}
