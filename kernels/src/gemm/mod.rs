//! Products of matrices.
//!
//! The shape of the algorithm is that of Goto and van de Geijn 2008 ("Anatomy of high-performance matrix multiplication"):
//! both operands are copied into panels in the order in which the innermost kernel reads them, in blocks that fit the caches;
//! that kernel keeps a small tile of the result in registers.
//!
//! Rounding: the inner dimension is cut into blocks of [`BLOCK`]; within a block, products are added one after another by
//! fused multiply-adds, starting at 0; the sums of the blocks are added in order to what the element starts from. Nothing else
//! about the blocking reaches the result.

pub(crate) mod bf16;
pub(crate) mod kernel;
mod matrix;
pub(crate) mod pack;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::time::{Duration, Instant};

pub use bf16::is_instruction as is_bf16_instruction;
pub(crate) use matrix::Corner;
pub use matrix::{Matrix, MatrixMut};

use crate::simd::arch;
use crate::threads::{self, Shared};
use kernel::{Left, Tile};
use pack::{Pack, Rounding};

/// Terms added up before they join the sum. Part of every result: it fixes the roundings.
pub const BLOCK: usize = 256;

/// Most columns of the right operand that are packed at a time.
const COLUMNS_MAX: usize = 3072;

/// Most values of the right operand that are packed at a time: they stay in the last cache.
const PACKED_MAX: usize = 1 << 21;

/// Rows of the left operand that are packed at a time: with [`BLOCK`] columns they fill half of a small second cache.
const ROWS: usize = 192;

/// Widest tile of the result that one task makes.
const TILE_COLUMNS: usize = 768;

/// Fewer columns than this are not worth packing the left operand for, if it can be read where it is.
const PACK_LEFT_COLUMNS: usize = 1024;

/// In which format the operands enter the products. Sums are made in `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to `bf16`, to nearest, ties to even. By the processor's instruction for such products where it has a fast one,
    /// whose roundings differ from those in `f32`: see [`is_bf16_instruction`].
    Bf16,
}

impl Precision {
    /// What happens to operands when they are packed.
    pub(crate) fn rounding(self) -> Rounding {
        match self {
            Self::F32 => Rounding::None,
            Self::Bf16 if bf16::is_instruction() => Rounding::PairsOfBf16,
            Self::Bf16 => Rounding::Bf16,
        }
    }
}

/// What the sums are added to.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Nothing.
    Zero,
    /// The value of the element's column.
    Bias(&'a [f32]),
    /// What the output holds.
    Output,
}

/// Called with the row, the first column, and the values of each stretch of a row that is finished.
pub type Finish<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

/// `out = start + left * right`, on all threads.
///
/// # Panics
/// If the sizes do not fit.
pub fn multiply(out: MatrixMut<'_>, start: Start<'_>, left: Matrix<'_>, right: Matrix<'_>, precision: Precision) {
    multiply_then(out, start, left, right, precision, None);
}

/// Like [`multiply`], and calls `finish` with every stretch of the result while it is in the cache.
///
/// # Panics
/// If the sizes do not fit.
pub fn multiply_then(
    out: MatrixMut<'_>,
    start: Start<'_>,
    left: Matrix<'_>,
    right: Matrix<'_>,
    precision: Precision,
    finish: Option<Finish<'_>>,
) {
    assert!(out.rows == left.rows && out.columns == right.columns && left.columns == right.rows, "sizes must fit");
    assert!(left.is_inside() && right.is_inside(), "a matrix must lie inside its values");
    match start {
        Start::Bias(bias) => assert_eq!(bias.len(), out.columns, "a bias has a value for each column"),
        Start::Output => assert!(out.is_written, "a fresh output holds nothing to start from"),
        Start::Zero => {}
    }
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    if left.columns == 0 {
        return without_terms(&out, start, finish);
    }
    thread_local!(static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    // Taken out while in use: a task of this product may steal another one that multiplies.
    let mut packed = PACKED.take();
    let whole = Whole { out: &out, start, left, right: right.transposed(), precision, finish };
    let width = kernel::columns();
    let blocks_max = (PACKED_MAX / COLUMNS_MAX.min(out.columns.next_multiple_of(width)) / BLOCK).max(1);
    for first_column in (0..out.columns).step_by(COLUMNS_MAX) {
        let columns = COLUMNS_MAX.min(out.columns - first_column);
        let mut first_term = 0;
        loop {
            let terms = (blocks_max * BLOCK).min(left.columns - first_term);
            let part = Part { first_column, columns, first_term, terms, panels: columns.div_ceil(width) };
            whole.pack_right(part, &mut packed);
            whole.multiply_part(part, &packed);
            first_term += terms;
            if first_term == left.columns {
                break;
            }
        }
    }
    PACKED.set(packed);
}

/// A product whose sums have no terms.
fn without_terms(out: &MatrixMut<'_>, start: Start<'_>, finish: Option<Finish<'_>>) {
    for row in 0..out.rows {
        let corner = out.at(row, 0);
        for column in 0..out.columns {
            let value = match start {
                Start::Zero => 0.0,
                Start::Bias(bias) => bias[column],
                Start::Output => continue,
            };
            // SAFETY: a row of the output has as many columns.
            unsafe { corner.start.add(column).write(value) };
        }
        if let Some(finish) = finish {
            // SAFETY: the row is written, and nobody else works on it.
            finish(row, 0, unsafe { out.row(row, 0, out.columns) });
        }
    }
}

/// A product.
struct Whole<'a> {
    out: &'a MatrixMut<'a>,
    start: Start<'a>,
    left: Matrix<'a>,
    /// Transposed: packing looks at both operands alike.
    right: Matrix<'a>,
    precision: Precision,
    finish: Option<Finish<'a>>,
}

/// The columns of the result, and the terms of their sums, that are worked on at a time.
#[derive(Clone, Copy)]
struct Part {
    first_column: usize,
    columns: usize,
    first_term: usize,
    terms: usize,
    /// Groups of as many columns as the kernel makes.
    panels: usize,
}

impl Part {
    /// Where block `block` of panel `panel` begins in the packed right operand; and its terms.
    fn block(&self, block: usize, panel: usize) -> (usize, usize) {
        let before = block * BLOCK;
        let terms = BLOCK.min(self.terms - before);
        ((before * self.panels + panel * terms) * kernel::columns(), terms)
    }

    fn blocks(&self) -> usize {
        self.terms.div_ceil(BLOCK)
    }
}

impl Whole<'_> {
    fn pack_right(&self, part: Part, packed: &mut Vec<f32>) {
        /// Panels that one task packs.
        const PANELS: usize = 4;
        let width = kernel::columns();
        let len = part.terms * part.panels * width;
        if packed.len() < len {
            packed.resize(len, 0.0);
        }
        let shared = Shared::new(packed);
        let groups = part.panels.div_ceil(PANELS);
        threads::for_each(groups * part.blocks(), len, |task| {
            let (block, panel) = (task / groups, task % groups * PANELS);
            let panels = PANELS.min(part.panels - panel);
            let (begin, terms) = part.block(block, panel);
            // SAFETY: each task has a block and panels of its own, and these lie one after another.
            let out = unsafe { shared.slice(begin, panels * terms * width) };
            arch().dispatch(Pack {
                from: self.right,
                first_row: part.first_column + panel * width,
                rows: (panels * width).min(part.columns - panel * width),
                first_column: part.first_term + block * BLOCK,
                columns: terms,
                panel: width,
                rounding: self.precision.rounding(),
                out,
            });
        });
    }

    fn multiply_part(&self, part: Part, packed: &[f32]) {
        let (rows, columns) = tile(self.out.rows, part.columns);
        let across = part.columns.div_ceil(columns);
        let tasks = self.out.rows.div_ceil(rows) * across;
        threads::for_each(tasks, self.out.rows * part.columns * part.terms.div_ceil(16), |task| {
            let (row, column) = (task / across * rows, task % across * columns);
            let size = (rows.min(self.out.rows - row), columns.min(part.columns - column));
            self.multiply_tile(part, packed, (row, column), size);
        });
    }

    /// The tile whose first element is `(row, column)` of the part.
    fn multiply_tile(
        &self,
        part: Part,
        packed: &[f32],
        (row, column): (usize, usize),
        (rows, columns): (usize, usize),
    ) {
        thread_local!(static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
        let width = kernel::columns();
        let first_column = part.first_column + column;
        let in_place =
            self.left.column_stride == 1 && self.precision == Precision::F32 && self.out.columns < PACK_LEFT_COLUMNS;
        PACKED.with_borrow_mut(|left_packed| {
            for block in 0..part.blocks() {
                let (begin, terms) = part.block(block, column / width);
                let first_term = part.first_term + block * BLOCK;
                let left = if in_place {
                    Left::InPlace {
                        values: &self.left.values[row * self.left.row_stride + first_term..],
                        stride: self.left.row_stride,
                    }
                } else {
                    let len = rows.next_multiple_of(kernel::rows()) * terms + pack::SLACK;
                    if left_packed.len() < len {
                        left_packed.resize(len, 0.0);
                    }
                    arch().dispatch(Pack {
                        from: self.left,
                        first_row: row,
                        rows,
                        first_column: first_term,
                        columns: terms,
                        panel: kernel::rows(),
                        rounding: self.precision.rounding(),
                        out: &mut left_packed[..len],
                    });
                    Left::Packed(left_packed)
                };
                let start = match self.start {
                    _ if first_term > 0 => Start::Output,
                    Start::Bias(bias) => Start::Bias(&bias[first_column..][..columns]),
                    other => other,
                };
                let pairs = self.precision.rounding() == Rounding::PairsOfBf16;
                arch().dispatch(Tile {
                    pairs,
                    left,
                    right: &packed[begin..],
                    terms,
                    rows,
                    columns,
                    start,
                    out: self.out.at(row, first_column),
                });
            }
        });
        let is_last = part.first_term + part.terms == self.left.columns;
        if let Some(finish) = self.finish.filter(|_| is_last) {
            for r in row..row + rows {
                // SAFETY: this task alone works on the tile, all elements of which are written by now.
                finish(r, first_column, unsafe { self.out.row(r, first_column, columns) });
            }
        }
    }
}

/// How fast this process multiplies a large matrix, in GFLOP/s: what the arithmetic of a network is held against. Takes a fifth of a second.
pub fn rate() -> f64 {
    const SIZE: usize = 1536;
    const BUDGET: Duration = Duration::from_millis(200);
    let values = |step: usize| (0..SIZE * SIZE).map(|i| (i * step % 1013) as f32 / 1013.0 - 0.5).collect::<Vec<_>>();
    let (left, right, mut out) = (values(7919), values(7907), vec![0.0; SIZE * SIZE]);
    let (left, right) = (Matrix::dense(&left, SIZE), Matrix::dense(&right, SIZE));
    let began = Instant::now();
    let mut fastest = Duration::MAX;
    while began.elapsed() < BUDGET {
        let begin = Instant::now();
        threads::inside(|| multiply(MatrixMut::dense(&mut out, SIZE), Start::Zero, left, right, Precision::F32));
        fastest = fastest.min(begin.elapsed());
    }
    2e-9 * (SIZE * SIZE * SIZE) as f64 / fastest.as_secs_f64()
}

/// The sizes of the tiles that tasks make: as large as the caches like them, but enough of them for all threads.
fn tile(rows: usize, columns: usize) -> (usize, usize) {
    /// Tasks per thread, so that none waits long for the last one.
    const TASKS: usize = 4;
    let (unit_rows, unit_columns) = (kernel::rows(), kernel::columns());
    let even = |size: usize, limit: usize, unit: usize| {
        let pieces = size.div_ceil(limit);
        size.div_ceil(pieces).next_multiple_of(unit)
    };
    let (mut tall, mut wide) = (even(rows, ROWS, unit_rows), even(columns, TILE_COLUMNS, unit_columns));
    let threads = threads::count();
    if threads > 1 {
        loop {
            let tasks = rows.div_ceil(tall) * columns.div_ceil(wide);
            let is_few = tasks < TASKS * threads;
            // A task that is left over keeps one thread busy while the others wait: the smaller it is, the better.
            let is_uneven = !tasks.is_multiple_of(threads) && tasks < 2 * TASKS * threads;
            // Half of a tile packs as much of the left operand as all of it: prefer to cut rows.
            if tall > 8 * unit_rows && (is_few || is_uneven) {
                tall = (tall / 2).next_multiple_of(unit_rows);
            } else if wide > 4 * unit_columns && is_few {
                wide = (wide / 2).next_multiple_of(unit_columns);
            } else {
                break;
            }
        }
    }
    (tall, wide)
}
