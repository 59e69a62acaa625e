//! The gradient of the weight: sums over all places of all samples.

use std::cell::RefCell;

use super::grid::{self, Chunk, Grid, Layout};
use super::product::grow;
use crate::fresh::Write;
use crate::gemm::kernel::{self, Left, Tile};
use crate::gemm::pack::{Pack, Rounding};
use crate::gemm::{BLOCK, Corner, Matrix, Precision, Start, bf16};
use crate::simd::{arch, vectorised};
use crate::threads::{self, Shared};

/// The gradient of the weight of one group of a convolution.
pub(super) struct WeightGradient<'a> {
    /// The input as the kernel's taps see it.
    pub(super) grid: Grid<'a>,
    pub(super) taps: Vec<[isize; 2]>,
    /// Planes of the input.
    pub(super) planes: usize,
    /// `[samples, all filters, places]`.
    pub(super) gradient: &'a [f32],
    pub(super) all_filters: usize,
    pub(super) first_filter: usize,
    /// Filters of the group.
    pub(super) filters: usize,
    pub(super) precision: Precision,
}

/// Most values of the gradient that are packed at a time: they stay in the last cache.
const PACKED_MAX: usize = 1 << 21;

#[derive(Default)]
struct Scratch {
    view: Vec<f32>,
    rows: Vec<f32>,
}

impl WeightGradient<'_> {
    /// Writes `into` `[filters, planes, taps]`. The places of all samples are cut into chunks of at most [`BLOCK`] that depend
    /// on nothing but sizes; the sums of the chunks are added in order.
    pub(super) fn run(&self, into: &mut [f32], write: Write) {
        let (width, tall) = (kernel::columns(), kernel::rows());
        let (terms, columns) = (self.planes * self.taps.len(), self.filters.next_multiple_of(width));
        assert_eq!(into.len(), self.filters * terms, "the gradient of a weight is as large as the weight");
        let chunks = grid::chunks(self.grid.samples, self.grid.places(), BLOCK, 1);
        // Transposed: `[terms, filters]`.
        let mut sums = vec![0.0f32; terms.next_multiple_of(tall) * columns];
        let slab = self.slab(terms);
        let slabs = terms.div_ceil(slab);
        let at_a_time = (PACKED_MAX / columns / BLOCK).max(1);
        let mut packed = Vec::new();
        for chunks in chunks.chunks(at_a_time) {
            self.pack_gradient(chunks, columns, &mut packed);
            let shared = Shared::new(&mut sums);
            let cost = slabs * chunks.len() * slab * columns * BLOCK / 16;
            threads::for_each(slabs, cost, |i| {
                let (first, terms) = (i * slab, slab.min(terms - i * slab));
                let rows = terms.next_multiple_of(tall);
                // SAFETY: each task has rows of its own.
                let sums = unsafe { shared.slice(first * columns, rows * columns) };
                self.multiply(chunks, &packed, (first, terms), columns, sums);
            });
        }
        self.finish(&sums, columns, into, write);
    }

    /// Rows of the sums that one task makes.
    fn slab(&self, terms: usize) -> usize {
        /// Rows that fit a small second cache.
        const ROWS: usize = 192;
        /// Tasks per thread, so that none waits long for the last one.
        const TASKS: usize = 4;
        terms.div_ceil(TASKS * threads::count()).min(ROWS).next_multiple_of(kernel::rows())
    }

    /// Packs the gradient at the places of the chunks, each in panels of as many filters as the kernel makes.
    fn pack_gradient(&self, chunks: &[Chunk], columns: usize, packed: &mut Vec<f32>) {
        let places = self.grid.places();
        let begins = begins(chunks, columns);
        let len = begins.last().expect("an end");
        grow(packed, *len);
        let width = kernel::columns();
        let shared = Shared::new(packed);
        threads::for_each(chunks.len(), *len, |i| {
            let chunk = chunks[i];
            // SAFETY: each task has a chunk of its own.
            let out = unsafe { shared.slice(begins[i], begins[i + 1] - begins[i]) };
            for (panel, out) in out.chunks_exact_mut(chunk.len() * width).enumerate() {
                for (n, out) in out.chunks_exact_mut(chunk.places * width).enumerate() {
                    let first = ((chunk.sample + n) * self.all_filters + self.first_filter) * places;
                    let values = &self.gradient[first..][..self.filters * places];
                    arch().dispatch(Pack {
                        from: Matrix::dense(values, places),
                        first_row: panel * width,
                        rows: width.min(self.filters - panel * width),
                        first_column: chunk.first,
                        columns: chunk.places,
                        panel: width,
                        rounding: match self.precision {
                            Precision::F32 => Rounding::None,
                            Precision::Bf16 => Rounding::Bf16,
                        },
                        out,
                    });
                }
            }
        });
    }

    /// Adds what the chunks give to `sums`, the rows of `terms` terms from `first` on.
    fn multiply(
        &self,
        chunks: &[Chunk],
        packed: &[f32],
        (first, terms): (usize, usize),
        columns: usize,
        sums: &mut [f32],
    ) {
        thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
        let rows = terms.next_multiple_of(kernel::rows());
        let planes = first / self.taps.len()..(first + terms).div_ceil(self.taps.len());
        let begins = begins(chunks, columns);
        SCRATCH.with_borrow_mut(|Scratch { view, rows: left }| {
            for (chunk, begin) in chunks.iter().zip(begins) {
                let layout = Layout::new(&self.grid, chunk, &self.taps);
                let places = chunk.len();
                grow(left, rows * places + grid::SLACK);
                vectorised(
                    #[inline(always)]
                    || {
                        let view = layout.view(&self.grid, chunk, planes.clone(), view);
                        layout.rows(&self.grid, view, first, terms, left);
                        if self.precision == Precision::Bf16 {
                            left[..terms * places].iter_mut().for_each(|value| *value = bf16::rounded(*value));
                        }
                    },
                );
                arch().dispatch(Tile {
                    left: Left::InPlace { values: &left[..rows * places], stride: places },
                    right: &packed[begin..][..places * columns],
                    pairs: false,
                    terms: places,
                    rows,
                    columns,
                    start: Start::Output,
                    out: Corner { start: sums.as_mut_ptr(), stride: columns },
                });
            }
        });
    }

    /// Transposes.
    fn finish(&self, sums: &[f32], columns: usize, into: &mut [f32], write: Write) {
        let terms = self.planes * self.taps.len();
        threads::pieces(into, terms, |filter, into| {
            let sums = sums[filter..].iter().step_by(columns);
            match write {
                Write::Overwrite => into.iter_mut().zip(sums).for_each(|(into, sum)| *into = *sum),
                Write::Add => into.iter_mut().zip(sums).for_each(|(into, sum)| *into += sum),
            }
        });
    }
}

/// Where the packed gradient of each chunk begins, and the end.
fn begins(chunks: &[Chunk], columns: usize) -> Vec<usize> {
    let mut total = 0;
    let mut begins = vec![0];
    begins.extend(chunks.iter().map(|chunk| {
        total += chunk.len() * columns;
        total
    }));
    begins
}
