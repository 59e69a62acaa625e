//! From the tokens of a sample to the one vector that the head reads.

use candle_core::{Result, Tensor, TensorId};
use kernels::threads::pieces;

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// The first token of each sample: `[samples, tokens, dim]` to `[samples, dim]`.
pub fn first_token(tape: &Tape<'_>, x: &Tensor) -> Result<Tensor> {
    tape.run("first-token", 0, &[x], |keep| {
        let (samples, tokens, dim) = x.dims3()?;
        let values = Values::of(x);
        let y = values.rows()?.chunks(tokens * dim).flat_map(|sample| &sample[..dim]).copied().collect();
        Ok((tensor_of(y, (samples, dim))?, keep.then(|| FirstToken(x.id(), [samples, tokens, dim]))))
    })
}

/// The mean of all tokens of each sample: `[samples, tokens, dim]` to `[samples, dim]`.
pub fn mean_of_tokens(tape: &Tape<'_>, x: &Tensor) -> Result<Tensor> {
    tape.run("mean-of-tokens", 0, &[x], |keep| {
        let (samples, tokens, dim) = x.dims3()?;
        let values = Values::of(x);
        let rows = values.rows()?;
        let scale = 1.0 / tokens as f32;
        let mut y = vec![0.0; samples * dim];
        pieces(&mut y, dim, |sample, y: &mut [f32]| {
            for token in rows[sample * tokens * dim..][..tokens * dim].chunks_exact(dim) {
                y.iter_mut().zip(token).for_each(|(y, x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y *= scale);
        });
        Ok((tensor_of(y, (samples, dim))?, keep.then(|| MeanOfTokens(x.id(), [samples, tokens, dim]))))
    })
}

struct FirstToken(TensorId, [usize; 3]);

struct MeanOfTokens(TensorId, [usize; 3]);

impl Operator for FirstToken {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self(x, [samples, tokens, dim]) = *self;
        let mut of_x = vec![0.0; samples * tokens * dim];
        for (sample, gradient) in of_x.chunks_mut(tokens * dim).zip(gradient.chunks(dim)) {
            sample[..dim].copy_from_slice(gradient);
        }
        to.add(x, of_x);
        Ok(())
    }
}

impl Operator for MeanOfTokens {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self(x, [samples, tokens, dim]) = *self;
        let scale = 1.0 / tokens as f32;
        let mut of_x = vec![0.0; samples * tokens * dim];
        pieces(&mut of_x, tokens * dim, |sample, of_x: &mut [f32]| {
            let gradient = &gradient[sample * dim..][..dim];
            for token in of_x.chunks_exact_mut(dim) {
                token.iter_mut().zip(gradient).for_each(|(out, g)| *out = g * scale);
            }
        });
        to.add(x, of_x);
        Ok(())
    }
}
