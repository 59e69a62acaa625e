use candle_core::{Result, Tensor, TensorId, bail};
use kernels::{elementwise, norm};

use super::norm::{check_norm, recorded};
use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// `a + b`, element by element: a residual connection.
pub fn add(tape: &Tape<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("cannot add shapes {:?} and {:?}", a.dims(), b.dims())
    }
    tape.run("add", 0, &[a, b], |keep| {
        let (left, right) = (Values::of(a), Values::of(b));
        let sum = tensor_of(elementwise::add(&left.rows()?, &right.rows()?), a.shape())?;
        Ok((sum, keep.then(|| Add(a.id(), b.id()))))
    })
}

/// `a + b`, and its layer norm: see [`layer_norm`](super::layer_norm).
pub fn add_layer_norm(
    tape: &Tape<'_>,
    [a, b]: [&Tensor; 2],
    gain: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<[Tensor; 2]> {
    if a.dims() != b.dims() {
        bail!("cannot add shapes {:?} and {:?}", a.dims(), b.dims())
    }
    let width = check_norm(a, gain, bias)?;
    let mut normed = None;
    let sum = tape.run("add", 0, &[a, b], |keep| {
        let [left, right, gain, bias] = [a, b, gain, bias].map(Values::of);
        let (sum, norm) =
            norm::residual_layer_norm(&left.rows()?, &right.rows()?, width, &gain.rows()?, &bias.rows()?, eps);
        normed = Some(norm);
        Ok((tensor_of(sum, a.shape())?, keep.then(|| Add(a.id(), b.id()))))
    })?;
    let normed = recorded(tape, &sum, gain, bias, || Ok(normed.expect("the sum was made with its norm")))?;
    Ok([sum, normed])
}

struct Add(TensorId, TensorId);

impl Operator for Add {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        to.share(self.0, gradient.clone());
        to.share(self.1, gradient);
        Ok(())
    }
}
