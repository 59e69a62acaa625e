//! Values at the places of a grid: sums over planes and taps, weighted.

use std::cell::RefCell;

use super::grid::{self, Chunk, Grid, Layout};
use crate::gemm::kernel::{self, Left, Tile};
use crate::gemm::{BLOCK, Corner, Precision, Start, bf16};
use crate::simd::{arch, vectorised};
use crate::threads;

/// Weighted sums that all places make.
pub(super) struct Phase {
    /// Taps of the kernel. None: all sums are 0.
    taps: Vec<[isize; 2]>,
    /// In blocks of terms; within, in panels of the kernel's rows.
    weight: Vec<f32>,
}

impl Phase {
    /// `weight` gives the factor of a row of the result, a plane and a tap.
    pub(super) fn new(
        taps: Vec<[isize; 2]>,
        rows: usize,
        planes: usize,
        precision: Precision,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let (terms, tall) = (planes * taps.len(), kernel::rows());
        let panels = rows.div_ceil(tall);
        let mut packed = vec![0.0; terms * panels * tall];
        threads::pieces(&mut packed, panels * tall * BLOCK, |block, out| {
            let terms = BLOCK.min(terms - block * BLOCK);
            for (panel, out) in out.chunks_exact_mut(terms * tall).enumerate() {
                for (k, out) in out.chunks_exact_mut(tall).enumerate() {
                    let k = block * BLOCK + k;
                    let (plane, tap) = (k / taps.len(), k % taps.len());
                    for (row, out) in (panel * tall..rows).zip(out) {
                        let value = weight(row, plane, tap);
                        *out = if precision == Precision::Bf16 { bf16::rounded(value) } else { value };
                    }
                }
            }
        });
        Self { taps, weight: packed }
    }
}

/// What is computed: for all phases, `rows` sums at each place of the grid, each over `planes` and the taps of the phase.
/// Sums are cut into blocks of [`BLOCK`] terms, planes outside, taps inside, as in [`crate::gemm`].
pub(super) struct Product<'a> {
    pub(super) grid: Grid<'a>,
    pub(super) planes: usize,
    pub(super) rows: usize,
    pub(super) phases: Vec<Phase>,
    pub(super) precision: Precision,
}

/// The sums at the places of a chunk.
pub(super) struct Sums<'a> {
    pub(super) chunk: Chunk,
    values: &'a [f32],
    rows: usize,
    columns: usize,
}

impl Sums<'_> {
    /// The sums of a row at the places of the `sample`-th sample of the chunk.
    #[inline(always)]
    pub(super) fn row(&self, phase: usize, row: usize, sample: usize) -> &[f32] {
        let begin = (phase * self.rows + row) * self.columns + sample * self.chunk.places;
        &self.values[begin..][..self.chunk.places]
    }
}

#[derive(Default)]
struct Scratch {
    view: Vec<f32>,
    packed: Vec<f32>,
    sums: Vec<f32>,
}

impl Product<'_> {
    /// Computes on all threads; `finish` is called with each chunk while it is in the cache, inside of vectorised code.
    pub(super) fn run(&self, finish: impl Fn(&Sums<'_>) + Sync) {
        thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
        let chunks = grid::chunks(self.grid.samples, self.grid.places(), self.limit(), kernel::columns());
        let terms: usize = self.phases.iter().map(|phase| phase.taps.len() * self.planes).sum();
        let cost = self.grid.samples * self.grid.places() * self.rows * terms.div_ceil(16);
        threads::for_each(chunks.len(), cost, |i| {
            SCRATCH.with_borrow_mut(|scratch| {
                let sums = self.chunk(chunks[i], scratch);
                vectorised(
                    #[inline(always)]
                    || finish(&sums),
                );
            });
        });
    }

    /// Places of a chunk: its values fit a small second cache, and there are enough chunks for all threads.
    fn limit(&self) -> usize {
        /// Values of a chunk.
        const VALUES: usize = 1 << 17;
        /// Chunks per thread, so that none waits long for the last one.
        const TASKS: usize = 4;
        /// A chunk's weights and margins are read again for the next one.
        const PLACES: usize = 256;
        let width = kernel::columns();
        let share = self.grid.samples * self.grid.places() / (TASKS * threads::count());
        (VALUES / (BLOCK + self.rows * self.phases.len())).min(PLACES).min(share).max(width) / width * width
    }

    fn chunk<'a>(&self, chunk: Chunk, scratch: &'a mut Scratch) -> Sums<'a> {
        let (width, tall) = (kernel::columns(), kernel::rows());
        let (rows, columns) = (self.rows.next_multiple_of(tall), chunk.len().next_multiple_of(width));
        let Scratch { view, packed, sums } = scratch;
        grow(sums, self.phases.len() * rows * columns);
        grow(packed, BLOCK * columns + grid::SLACK);
        for (phase, out) in self.phases.iter().zip(sums.chunks_exact_mut(rows * columns)) {
            if phase.taps.is_empty() {
                out.fill(0.0);
                continue;
            }
            let layout = Layout::new(&self.grid, &chunk, &phase.taps);
            let all_terms = self.planes * phase.taps.len();
            for first in (0..all_terms).step_by(BLOCK) {
                let terms = BLOCK.min(all_terms - first);
                let planes = first / phase.taps.len()..(first + terms).div_ceil(phase.taps.len());
                vectorised(
                    #[inline(always)]
                    || {
                        let view = layout.view(&self.grid, &chunk, planes, view);
                        match width {
                            8 => layout.panels::<8>(view, first, terms, packed),
                            16 => layout.panels::<16>(view, first, terms, packed),
                            32 => layout.panels::<32>(view, first, terms, packed),
                            _ => unreachable!("kernels have these widths"),
                        }
                        if self.precision == Precision::Bf16 {
                            packed[..terms * columns].iter_mut().for_each(|value| *value = bf16::rounded(*value));
                        }
                    },
                );
                arch().dispatch(Tile {
                    left: Left::Packed(&phase.weight[first * rows..][..terms * rows]),
                    right: &packed[..terms * columns],
                    pairs: false,
                    terms,
                    rows,
                    columns,
                    start: if first == 0 { Start::Zero } else { Start::Output },
                    out: Corner { start: out.as_mut_ptr(), stride: columns },
                });
            }
        }
        Sums { chunk, values: sums, rows, columns }
    }
}

/// Makes room for `len` values.
pub(super) fn grow(values: &mut Vec<f32>, len: usize) {
    if values.len() < len {
        values.resize(len, 0.0);
    }
}
