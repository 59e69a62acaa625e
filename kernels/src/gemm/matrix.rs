use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// A matrix to read: `rows` x `columns` values of `values`, whose neighbours are `row_stride` and `column_stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Begins with the element of the first row and column.
    pub values: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// From a row to the next one.
    pub row_stride: usize,
    /// From a column to the next one.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix without gaps.
    pub fn dense(values: &'a [f32], columns: usize) -> Self {
        Self { values, rows: values.len() / columns.max(1), columns, row_stride: columns, column_stride: 1 }
    }

    /// The same values with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        self.rows == 0
            || self.columns == 0
            || (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride < self.values.len()
    }
}

/// A row-major matrix to write, whose rows begin `row_stride` values apart.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    start: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    /// Whether its elements hold values.
    pub(super) is_written: bool,
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for an exclusive slice.
unsafe impl Send for MatrixMut<'_> {}
// SAFETY: all writing goes through functions whose callers promise to write to parts of their own.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// A matrix without gaps.
    pub fn dense(values: &'a mut [f32], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self::strided(values, [rows, columns], columns)
    }

    /// A matrix of `rows` x `columns` values, whose rows begin `row_stride` values apart.
    pub fn strided(values: &'a mut [f32], [rows, columns]: [usize; 2], row_stride: usize) -> Self {
        let inside = rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= values.len();
        assert!(inside && columns <= row_stride.max(1), "a matrix must lie inside its values");
        Self { start: values.as_mut_ptr(), rows, columns, row_stride, is_written: true, values: PhantomData }
    }

    /// A matrix without gaps, all of which a product will write.
    pub fn fresh(values: &'a mut [MaybeUninit<f32>], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        let start = values.as_mut_ptr().cast();
        Self { start, rows, columns, row_stride: columns, is_written: false, values: PhantomData }
    }

    /// Some columns of a matrix of `width` columns without gaps, all of which a product will write.
    pub fn fresh_columns(values: &'a mut [MaybeUninit<f32>], width: usize, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= width, "columns lie inside of their matrix");
        let rows = values.len() / width.max(1);
        let first = columns.start.min(values.len());
        let start = values[first..].as_mut_ptr().cast();
        Self { start, rows, columns: columns.len(), row_stride: width, is_written: false, values: PhantomData }
    }

    /// Where the element of a row and a column is.
    pub(super) fn at(&self, row: usize, column: usize) -> Corner {
        assert!(row < self.rows && column < self.columns, "an element lies inside of its matrix");
        // SAFETY: inside, as asserted here and by the constructors.
        Corner { start: unsafe { self.start.add(row * self.row_stride + column) }, stride: self.row_stride }
    }

    /// `len` values of a row, from a column on.
    ///
    /// # Safety
    /// They are written, and nobody else uses them meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that nobody else uses them")]
    pub(super) unsafe fn row(&self, row: usize, column: usize, len: usize) -> &mut [f32] {
        let corner = self.at(row, column);
        assert!(column + len <= self.columns, "a stretch lies inside of its row");
        // SAFETY: inside, as asserted; written and exclusive, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(corner.start, len) }
    }
}

/// The first element of a tile of a matrix that is being written.
#[derive(Clone, Copy)]
pub(crate) struct Corner {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
}
