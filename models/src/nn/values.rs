//! Reading a tensor's values, whatever its strides.

use std::borrow::Cow;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, StorageRef, Tensor, bail};

/// The values of a tensor, locked for reading.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Values<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// The values in row-major order.
    pub(crate) fn rows(&self) -> Result<Cow<'_, [f32]>> {
        match &*self.storage {
            Storage::Cpu(storage) => row_major(storage, self.layout),
            Storage::Cuda(_) | Storage::Metal(_) => bail!("models compute on the CPU"),
        }
    }
}

/// The values of a stored tensor in row-major order; copies only if they are stored otherwise.
pub(super) fn row_major<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    let values = storage.as_slice::<f32>()?;
    if let Some((start, end)) = layout.contiguous_offsets() {
        return Ok(Cow::Borrowed(&values[start..end]));
    }
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
    Ok(Cow::Owned(gathered))
}

/// A tensor on the CPU, outside of any graph.
pub(crate) fn tensor_of(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// Length of the last axis, and how many such rows there are.
pub(super) fn rows_and_width(layout: &Layout) -> Result<(usize, usize)> {
    match layout.dims() {
        [outer @ .., width] => Ok((outer.iter().product(), *width)),
        [] => bail!("a scalar has no rows"),
    }
}
