//! Reading a tensor's values, whatever its strides.

use std::borrow::Cow;
use std::cell::RefCell;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Shape, Storage, StorageRef, Tensor, bail};

/// The values of a tensor, locked for reading.
pub struct Values<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Values<'a> {
    /// Those of `tensor`.
    pub fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The values in row-major order; copied only if they are stored otherwise.
    pub fn rows(&self) -> Result<Cow<'_, [f32]>> {
        let Storage::Cpu(storage) = &*self.storage else { bail!("models compute on the CPU") };
        let values = storage.as_slice::<f32>()?;
        match self.layout.contiguous_offsets() {
            Some((start, end)) => Ok(Cow::Borrowed(&values[start..end])),
            None => Ok(Cow::Owned(gathered(values, self.layout))),
        }
    }
}

fn gathered(values: &[f32], layout: &Layout) -> Vec<f32> {
    let (dims, strides) = (layout.dims(), layout.stride());
    let mut index = vec![0; dims.len()];
    let mut offset = layout.start_offset();
    let mut gathered = Vec::with_capacity(layout.shape().elem_count());
    for _ in 0..layout.shape().elem_count() {
        gathered.push(values[offset]);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            offset -= dims[axis] * strides[axis];
            index[axis] = 0;
        }
    }
    gathered
}

/// A tensor on the CPU, outside of any graph.
pub fn tensor_of(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// The values of a tensor that nobody reads any more, without a copy where they stand in order.
pub(super) fn into_vec(tensor: Tensor) -> Result<Vec<f32>> {
    /// The tensor library lends its storage for writing to operators only.
    struct Take(RefCell<Vec<f32>>);

    impl InplaceOp1 for Take {
        fn name(&self) -> &'static str {
            "take"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, _layout: &Layout) -> Result<()> {
            let CpuStorage::F32(values) = storage else { bail!("models compute in F32") };
            *self.0.borrow_mut() = std::mem::take(values);
            Ok(())
        }
    }

    if tensor.layout().contiguous_offsets() != Some((0, tensor.elem_count())) {
        return Ok(Values::of(&tensor).rows()?.into_owned());
    }
    let taken = Take(RefCell::default());
    tensor.inplace_op1(&taken)?;
    Ok(taken.0.into_inner())
}

/// Length of the last axis.
pub(super) fn width(tensor: &Tensor) -> Result<usize> {
    match tensor.dims() {
        [.., width] => Ok(*width),
        [] => bail!("a scalar has no rows"),
    }
}

/// Samples, channels and places of `[samples, channels, ..]`.
pub(super) fn channels(tensor: &Tensor) -> Result<[usize; 3]> {
    match tensor.dims() {
        [samples, channels, places @ ..] => Ok([*samples, *channels, places.iter().product()]),
        dims => bail!("samples and channels are two axes, found {dims:?}"),
    }
}

/// The shape of `tensor` with another last axis.
pub(super) fn with_width(tensor: &Tensor, width: usize) -> Vec<usize> {
    let mut dims = tensor.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    dims
}
