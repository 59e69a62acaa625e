//! The sum of two tensors of the same shape.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::tape::{Tape, sum_of_values};
use super::values::row_major;

/// `a + b`, element by element.
pub(crate) fn add(tape: &Tape, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    tape.apply2(Add, [a, b])
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if a_layout.shape() != b_layout.shape() {
            bail!("cannot add shapes {:?} and {:?}", a_layout.dims(), b_layout.dims())
        }
        let sums = sum_of_values(&row_major(a, a_layout)?, &row_major(b, b_layout)?);
        Ok((CpuStorage::F32(sums), a_layout.shape().clone()))
    }

    fn bwd(&self, _a: &Tensor, _b: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone())))
    }
}
