//! Products of small strided matrices on one thread: the caller deals them to threads, in pieces of a fixed size.

use gemm::Parallelism;

/// A matrix to read: `rows` x `columns` values of `values`, whose neighbours are `row_stride` and `column_stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

/// A row-major matrix to write, whose rows begin `row_stride` values apart.
pub(super) struct MatrixMut<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix without gaps.
    pub(super) fn dense(values: &'a [f32], columns: usize) -> Self {
        Self { values, rows: values.len() / columns, columns, row_stride: columns, column_stride: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    fn is_inside(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.values.len()
    }
}

impl<'a> MatrixMut<'a> {
    /// A row-major matrix without gaps.
    pub(super) fn dense(values: &'a mut [f32], columns: usize) -> Self {
        Self { rows: values.len() / columns, values, columns, row_stride: columns }
    }

    fn is_inside(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) < self.values.len()
    }
}

/// `out = scale * left * right`.
pub(super) fn multiply(out: MatrixMut<'_>, scale: f32, left: Matrix<'_>, right: Matrix<'_>) {
    run(out, false, scale, left, right);
}

/// `out = out + left * right`.
pub(super) fn multiply_add(out: MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>) {
    run(out, true, 1.0, left, right);
}

fn run(out: MatrixMut<'_>, keep: bool, scale: f32, left: Matrix<'_>, right: Matrix<'_>) {
    assert!(out.rows == left.rows && out.columns == right.columns && left.columns == right.rows, "sizes must fit");
    assert!(out.is_inside() && left.is_inside() && right.is_inside(), "a matrix must lie inside its values");
    // SAFETY: every element that the three matrices name lies inside of its slice, as asserted above, and `out` is
    // borrowed exclusively, so it overlaps neither of the others. Strides are lengths of slices and fit `isize`.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            left.columns,
            out.values.as_mut_ptr(),
            1,
            out.row_stride as isize,
            keep,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0f32,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
