use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{CpuStorage, InplaceOp1, Result, Tensor, TensorId, bail};

use crate::layout::Layout;

/// The trainable tensors of a network.
pub struct Parameters {
    layout: Arc<Layout>,
    /// In the order of the layout.
    tensors: Vec<Tensor>,
    places: HashMap<TensorId, usize>,
}

impl Parameters {
    /// `tensors` are in the order of `layout`, each with the shape it says.
    pub fn new(layout: Arc<Layout>, tensors: Vec<Tensor>) -> Result<Self> {
        if layout.parameters().len() != tensors.len() {
            bail!("a layout of {} parameters does not fit {} tensors", layout.parameters().len(), tensors.len())
        }
        for (parameter, tensor) in layout.parameters().iter().zip(&tensors) {
            if parameter.shape != tensor.dims() {
                bail!("{} has shape {:?}, not {:?}", parameter.name, tensor.dims(), parameter.shape)
            }
        }
        let places = tensors.iter().enumerate().map(|(i, tensor)| (tensor.id(), i)).collect();
        Ok(Self { layout, tensors, places })
    }

    /// Where every parameter stands in the gradient.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// In the order of the layout.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The number of a parameter, if `tensor` is one.
    pub(crate) fn place(&self, tensor: TensorId) -> Option<usize> {
        self.places.get(&tensor).copied()
    }

    /// Calls `change` once, with the values of all parameters in the order of the layout; each must stand in order.
    pub fn update<R>(&self, change: impl FnOnce(Vec<&mut [f32]>) -> R) -> Result<R> {
        let mut outcome = None;
        let change = RefCell::new(Some(change));
        lend(&self.tensors, Vec::with_capacity(self.tensors.len()), &mut |values| {
            outcome = change.take().map(|change| change(values));
        })?;
        Ok(outcome.expect("the values were lent once"))
    }
}

/// The tensor library lends the values of a tensor for writing to operators only: each lends those of the next one inside
/// of its own call.
fn lend(tensors: &[Tensor], lent: Vec<&mut [f32]>, then: &mut dyn FnMut(Vec<&mut [f32]>)) -> Result<()> {
    let [first, rest @ ..] = tensors else {
        then(lent);
        return Ok(());
    };
    first.inplace_op1(&Lend { rest, state: RefCell::new(Some((lent, then))) })
}

struct Lend<'a> {
    rest: &'a [Tensor],
    /// What was lent so far, and who asked for it.
    state: RefCell<Option<Borrowed<'a>>>,
}

type Borrowed<'a> = (Vec<&'a mut [f32]>, &'a mut dyn FnMut(Vec<&mut [f32]>));

impl InplaceOp1 for Lend<'_> {
    fn name(&self) -> &'static str {
        "lend"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &candle_core::Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("parameters are contiguous and of type F32")
        };
        let (mut lent, then) = self.state.take().expect("an operator runs once");
        lent.push(&mut values[start..end]);
        lend(self.rest, lent, then)
    }
}
