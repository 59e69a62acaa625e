use candle_core::{Result, Tensor};
pub use kernels::activation::Activation;

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// Applies `kind` to every element.
pub fn activation(tape: &Tape<'_>, kind: Activation, x: &Tensor) -> Result<Tensor> {
    tape.run("activation", 0, &[x], |keep| {
        let values = Values::of(x);
        let y = tensor_of(kernels::activation::forward(kind, &values.rows()?), x.shape())?;
        Ok((y, keep.then(|| Elementwise { kind, x: x.clone() })))
    })
}

struct Elementwise {
    kind: Activation,
    x: Tensor,
}

impl Operator for Elementwise {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let values = Values::of(&self.x);
        let of_x = kernels::activation::backward(self.kind, &values.rows()?, gradient.into_vec());
        to.add(self.x.id(), of_x);
        Ok(())
    }
}
