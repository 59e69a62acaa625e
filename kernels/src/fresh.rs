//! Buffers that are written before they are read, without the pass over memory that fills them with zeros.

use std::mem::MaybeUninit;

/// A vector of `len` values, all of which `write` writes.
///
/// # Safety
/// `write` must have written every element when it returns.
pub unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and the caller promises that all elements are written.
    unsafe { values.set_len(len) };
    values
}

/// Whether an output is replaced or added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// What it holds counts for nothing.
    Overwrite,
    /// The result is added to what it holds.
    Add,
}
