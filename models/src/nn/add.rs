use candle_core::{Result, Tensor, TensorId, bail};
use kernels::elementwise;

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

struct Add(TensorId, TensorId);

impl Operator for Add {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        to.share(self.0, gradient.clone());
        to.share(self.1, gradient);
        Ok(())
    }
}
