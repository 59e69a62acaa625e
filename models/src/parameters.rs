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

    /// Calls `change` with the number and the values of every parameter, which must stand in order.
    pub fn update(&self, change: impl FnMut(usize, &mut [f32])) -> Result<()> {
        let change = std::cell::RefCell::new(change);
        for (place, tensor) in self.tensors.iter().enumerate() {
            tensor.inplace_op1(&Change { place, change: &change })?;
        }
        Ok(())
    }
}

/// The tensor library lends the values of a tensor for writing to operators only.
struct Change<'a, F> {
    place: usize,
    change: &'a std::cell::RefCell<F>,
}

impl<F: FnMut(usize, &mut [f32])> InplaceOp1 for Change<'_, F> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &candle_core::Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                (self.change.borrow_mut())(self.place, &mut values[start..end]);
                Ok(())
            }
            _ => bail!("parameters are contiguous and of type F32"),
        }
    }
}
