//! From an image or a text to tokens: cut into patches, look words up, and add what was learned about places.

use candle_core::{Result, Tensor, TensorId, bail};
use kernels::{embedding, threads::pieces};

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// Cuts images `[samples, channels, height, width]` into squares of side `patch`: `[samples, rows * columns, channels *
/// patch * patch]`, patches row by row, and inside a patch in the order of a convolution kernel `[channels, patch,
/// patch]`. A convolution with stride `patch` is then one matrix product.
pub fn patches(images: &[f32], shape: [usize; 4], patch: usize) -> Result<Tensor> {
    let [samples, channels, height, width] = shape;
    if images.is_empty() || images.len() != shape.iter().product::<usize>() {
        bail!("{} values are not images {shape:?}", images.len())
    }
    if patch == 0 || !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        bail!("patches of {patch} do not divide images {shape:?}")
    }
    let (rows, columns) = (height / patch, width / patch);
    let mut out = vec![0.0; images.len()];
    pieces(&mut out, (channels * height * width).max(1), |sample, out: &mut [f32]| {
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
pub fn embed(tape: &Tape<'_>, x: &Tensor, class_token: Option<&Tensor>, positions: &Tensor) -> Result<Tensor> {
    let (samples, patches, dim) = x.dims3()?;
    let extra = usize::from(class_token.is_some());
    let tokens = patches + extra;
    if positions.elem_count() != tokens * dim || class_token.is_some_and(|token| token.elem_count() != dim) {
        bail!("{} positions do not fit {tokens} tokens of {dim}", positions.elem_count())
    }
    let inputs: Vec<&Tensor> = [x, positions].into_iter().chain(class_token).collect();
    tape.run("embed", 0, &inputs, |keep| {
        let [x_values, position_values] = [x, positions].map(Values::of);
        let (x_rows, position_rows) = (x_values.rows()?, position_values.rows()?);
        let class_values = class_token.map(Values::of);
        let class_rows = class_values.as_ref().map(Values::rows).transpose()?;
        let mut y = vec![0.0; samples * tokens * dim];
        pieces(&mut y, (tokens * dim).max(1), |sample, y: &mut [f32]| {
            let source = class_rows.as_deref().unwrap_or_default().iter().chain(&x_rows[sample * patches * dim..]);
            y.iter_mut().zip(source).zip(&*position_rows).for_each(|((y, x), position)| *y = x + position);
        });
        let operator = || Embed {
            x: x.id(),
            class_token: class_token.map(Tensor::id),
            positions: positions.id(),
            samples,
            patches,
            dim,
        };
        Ok((tensor_of(y, (samples, tokens, dim))?, keep.then(operator)))
    })
}

struct Embed {
    x: TensorId,
    class_token: Option<TensorId>,
    positions: TensorId,
    samples: usize,
    patches: usize,
    dim: usize,
}

impl Operator for Embed {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self { x, class_token, positions, samples, patches, dim } = *self;
        let extra = usize::from(class_token.is_some());
        let width = (patches + extra) * dim;
        let mut of_positions = vec![0.0; width];
        kernels::elementwise::sum_rows(&gradient, width, 0..width, &mut of_positions, kernels::fresh::Write::Overwrite);
        if let Some(token) = class_token {
            to.add(token, of_positions[..dim].to_vec());
        }
        to.add(positions, of_positions);
        if to.wants(x) {
            let mut of_x = vec![0.0; samples * patches * dim];
            pieces(&mut of_x, (patches * dim).max(1), |sample, of_x: &mut [f32]| {
                of_x.copy_from_slice(&gradient[sample * width + extra * dim..][..patches * dim]);
            });
            to.add(x, of_x);
        }
        Ok(())
    }
}

/// The rows of `table` `[words, dim]` that `ids` `[samples, tokens]` name: `[samples, tokens, dim]`.
pub fn embedding(tape: &Tape<'_>, table: &Tensor, ids: &[u32], [samples, tokens]: [usize; 2]) -> Result<Tensor> {
    let (words, dim) = table.dims2()?;
    if ids.is_empty() || ids.len() != samples * tokens {
        bail!("{} words are not {samples} samples of {tokens} tokens", ids.len())
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= words) {
        bail!("word {id} is not below the {words} words of the table")
    }
    tape.run("embedding", 0, &[table], |keep| {
        let values = Values::of(table);
        let y = tensor_of(embedding::gather(&values.rows()?, dim, ids), (samples, tokens, dim))?;
        Ok((y, keep.then(|| Embedding { table: table.id(), ids: ids.to_vec(), dim })))
    })
}

struct Embedding {
    table: TensorId,
    ids: Vec<u32>,
    dim: usize,
}

impl Operator for Embedding {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        to.parameter(self.table, |table, write| embedding::scatter_add(&self.ids, self.dim, &gradient, table, write));
        Ok(())
    }
}
