//! From an image to tokens: cut into patches, and add what was learned about places.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::parallel::{pieces, sum_over_rows};
use super::tape::Tape;
use super::values::{Values, row_major, tensor_of};

/// Cuts images `[samples, channels, height, width]` into squares of side `patch`: `[samples, rows * columns, channels *
/// patch * patch]`, patches row by row, and inside a patch in the order of a convolution kernel `[channels, patch,
/// patch]`. A convolution with stride `patch` is then one matrix product.
pub(crate) fn patches(images: &[f32], shape: [usize; 4], patch: usize) -> Result<Tensor> {
    let [samples, channels, height, width] = shape;
    let (rows, columns) = (height / patch, width / patch);
    let mut out = vec![0.0; images.len()];
    pieces(&mut out, (channels * height * width).max(1), |sample, out| {
        let image = &images[sample * channels * height * width..];
        for (at, patch_out) in out.chunks_exact_mut(channels * patch * patch).enumerate() {
            let (top, left) = (at / columns * patch, at % columns * patch);
            for (line, line_out) in patch_out.chunks_exact_mut(patch).enumerate() {
                let (channel, y) = (line / patch, top + line % patch);
                line_out.copy_from_slice(&image[(channel * height + y) * width + left..][..patch]);
            }
        }
    });
    tensor_of(out, (samples, rows * columns, channels * patch * patch))
}

/// Adds `positions` `[1, tokens, dim]` to `x` `[samples, patches, dim]`, after putting `class_token` `[1, 1, dim]`
/// before the patches if there is one.
pub(crate) fn embed(tape: &Tape, x: &Tensor, class_token: Option<&Tensor>, positions: &Tensor) -> Result<Tensor> {
    match class_token {
        Some(class_token) => tape.apply3(Embed { extra: 1 }, [x, class_token, positions]),
        None => tape.apply2(Embed { extra: 0 }, [x, positions]),
    }
}

struct Embed {
    /// Tokens put before the patches.
    extra: usize,
}

impl Embed {
    fn forward(&self, x: &[f32], shape: &Shape, class_token: &[f32], positions: &[f32]) -> Result<(CpuStorage, Shape)> {
        let (samples, patches, dim) = shape.dims3()?;
        let tokens = patches + self.extra;
        if positions.len() != tokens * dim || class_token.len() != self.extra * dim {
            bail!("{} positions do not fit {tokens} tokens of {dim}", positions.len())
        }
        let mut y = vec![0.0; samples * tokens * dim];
        pieces(&mut y, tokens * dim, |sample, y| {
            let source = class_token.iter().chain(&x[sample * patches * dim..]);
            y.iter_mut().zip(source).zip(positions).for_each(|((y, x), position)| *y = x + position);
        });
        Ok((CpuStorage::F32(y), (samples, tokens, dim).into()))
    }

    /// The gradients of patches and positions; the class token's is the first row of the latter.
    fn backward(&self, x: &Tensor, grad: &Tensor) -> Result<(Tensor, Vec<f32>)> {
        let (samples, patches, dim) = x.dims3()?;
        let values = Values::of(grad);
        let grad = values.rows()?;
        let width = (patches + self.extra) * dim;
        let mut x_grad = vec![0.0; x.elem_count()];
        pieces(&mut x_grad, patches * dim, |sample, x_grad| {
            x_grad.copy_from_slice(&grad[sample * width + self.extra * dim..][..patches * dim]);
        });
        let positions = sum_over_rows(samples, width, |sample, sums| {
            sums.iter_mut().zip(&grad[sample * width..]).for_each(|(s, g)| *s += g);
        });
        Ok((tensor_of(x_grad, x.shape())?, positions))
    }
}

impl CustomOp2 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward(&row_major(x, x_layout)?, x_layout.shape(), &[], &row_major(positions, positions_layout)?)
    }

    fn bwd(
        &self,
        x: &Tensor,
        positions: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x_grad, positions_grad) = self.backward(x, grad)?;
        Ok((Some(x_grad), Some(tensor_of(positions_grad, positions.shape())?)))
    }
}

impl CustomOp3 for Embed {
    fn name(&self) -> &'static str {
        "embed-with-class-token"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        class_token: &CpuStorage,
        class_token_layout: &Layout,
        positions: &CpuStorage,
        positions_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let class_token = row_major(class_token, class_token_layout)?;
        let positions = row_major(positions, positions_layout)?;
        self.forward(&row_major(x, x_layout)?, x_layout.shape(), &class_token, &positions)
    }

    fn bwd(
        &self,
        x: &Tensor,
        class_token: &Tensor,
        positions: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x_grad, positions_grad) = self.backward(x, grad)?;
        let class_grad = positions_grad[..class_token.elem_count()].to_vec();
        Ok((
            Some(x_grad),
            Some(tensor_of(class_grad, class_token.shape())?),
            Some(tensor_of(positions_grad, positions.shape())?),
        ))
    }
}
