//! Convolutions of 3 x 3 taps with stride 1 by fewer products: Winograd's minimal filtering (Lavin and Gray 2016, "Fast
//! algorithms for convolutional neural networks", section 4.1), `F(2 x 2, 3 x 3)`.
//!
//! A tile of 2 x 2 results `y` is made of the 4 x 4 values `d` under it and the kernel `g`, for each pair of planes:
//!
//! ```text
//! y = A^T [(G g G^T) * (B^T d B)] A
//!
//!       1  0 -1  0          1    0    0
//! B^T = 0  1  1  0    G = 1/2  1/2  1/2    A^T = 1  1  1  0
//!       0 -1  1  0        1/2 -1/2  1/2          0  1 -1 -1
//!       0  1  0 -1          0    0    1
//! ```
//!
//! where `*` multiplies element by element: 16 products for what takes 36 otherwise. Over all planes, each of the 16 elements
//! is a product of matrices. The factors 1 and 1/2 lose nothing, so that only sums of a few values more are rounded.
//!
//! Work goes row by row of the 4 x 4 elements: of one row, what four products read and write stays in a small second cache.
//!
//! Rounding: sums over planes as in [`crate::gemm`]; in the gradient of the weight, sums over tiles are cut into pieces that
//! depend on nothing but sizes.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::Conv;
use super::grid::Grid;
use super::product::grow;
use crate::fresh::Write;
use crate::gemm::kernel::{self, Left, Tile};
use crate::gemm::pack::{Pack, Rounding};
use crate::gemm::{BLOCK, Corner, Matrix, Precision, Start};
use crate::simd::{arch, vectorised};
use crate::threads::{self, Shared};

/// Rows and columns of the transformed tiles.
const SIDE: usize = 4;

/// Fewer planes than this on either side do not pay for the transforms.
const PLANES_MIN: usize = 16;

/// Whether this is the way for `conv`.
pub(super) fn pays(conv: &Conv, precision: Precision) -> bool {
    let ones = conv.stride == [1, 1] && conv.dilation == [1, 1];
    let enough = (conv.channels / conv.groups).min(conv.filters / conv.groups) >= PLANES_MIN;
    let margin = conv.padding.iter().all(|padding| *padding <= 2);
    conv.kernel == [3, 3] && ones && enough && margin && precision == Precision::F32
}

/// Tiles that cover the places of a grid, and the zeros around it.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    pub(super) grid: Grid<'a>,
    /// Planes of the grid that are looked at.
    pub(super) planes: usize,
    pub(super) padding: [usize; 2],
}

impl Tiles<'_> {
    /// Rows of tiles of a sample, and tiles of a row.
    fn count(&self) -> [usize; 2] {
        self.grid.size.map(|size| size.div_ceil(2))
    }

    /// Rows of tiles of all samples.
    fn rows(&self) -> usize {
        self.grid.samples * self.count()[0]
    }

    /// Tiles of all samples.
    fn all(&self) -> usize {
        self.rows() * self.count()[1]
    }

    /// Row `i` of `B^T d B` of all tiles of a row of tiles, in one plane: four rows of as many values as there are tiles.
    #[inline(always)]
    fn transform(&self, i: usize, tile_row: usize, plane: usize, lines: &mut Lines) {
        let [down, across] = self.count();
        let [height, width] = self.grid.plane;
        let (sample, top) = (tile_row / down, tile_row % down * 2);
        let begin = (sample * self.grid.planes + self.grid.first_plane + plane) * height * width;
        let before = self.padding[1];
        let seen = width.min(2 * across + 2 - before);
        let Lines { line, even, odd, rows, zeros, .. } = lines;
        let row = |k: usize| match (top + k).checked_sub(self.padding[0]) {
            Some(y) if y < height => &self.grid.values[begin + y * width..][..seen],
            _ => &zeros[..seen],
        };
        let ([a, b], sign) = [([0, 2], -1.0), ([1, 2], 1.0), ([2, 1], -1.0), ([1, 3], -1.0)][i];
        let (a, b): (&[f32], &[f32]) = (row(a), row(b));
        // The margins stay 0.
        let inner = line[before..][..seen].iter_mut();
        inner.zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + sign * b);
        split(&line[..2 * across + 2], even, odd);
        let (first_even, next_even) = (&even[..across], &even[1..=across]);
        let (first_odd, next_odd) = (&odd[..across], &odd[1..=across]);
        let [r0, r1, r2, r3] = rows;
        difference(first_even, next_even, &mut r0[..across]);
        sum(first_odd, next_even, &mut r1[..across]);
        difference(next_even, first_odd, &mut r2[..across]);
        difference(first_odd, next_odd, &mut r3[..across]);
    }
}

#[inline(always)]
fn sum(a: &[f32], b: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
}

#[inline(always)]
fn difference(a: &[f32], b: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a - b);
}

/// Deals pairs out.
#[inline(always)]
fn split(line: &[f32], even: &mut [f32], odd: &mut [f32]) {
    for (pair, (even, odd)) in line.as_chunks::<2>().0.iter().zip(even.iter_mut().zip(odd)) {
        [*even, *odd] = *pair;
    }
}

/// What a row of tiles passes through.
#[derive(Default)]
struct Lines {
    line: Vec<f32>,
    even: Vec<f32>,
    odd: Vec<f32>,
    rows: [Vec<f32>; SIDE],
    /// Results, with a 0 where the last tile reaches over the edge.
    pairs: Vec<f32>,
    zeros: Vec<f32>,
}

impl Lines {
    fn fit(&mut self, tiles: &Tiles<'_>) {
        let across = tiles.count()[1];
        self.line.clear();
        self.line.resize(2 * across + 2, 0.0);
        self.pairs.clear();
        self.pairs.resize(2 * across, 0.0);
        grow(&mut self.even, across + 1);
        grow(&mut self.odd, across + 1);
        self.rows.iter_mut().for_each(|row| grow(row, across));
        grow(&mut self.zeros, tiles.grid.plane[1].max(tiles.grid.size[1]));
    }
}

/// `G g G^T` of all pairs of planes.
pub(super) struct Kernels {
    planes: usize,
    rows: usize,
    /// Element by element of the tiles; of each, as [`Tile`] reads its left operand, in blocks of terms.
    packed: Vec<f32>,
}

impl Kernels {
    /// `taps` gives the nine taps that a row of the result has for a plane.
    pub(super) fn new(rows: usize, planes: usize, taps: impl Fn(usize, usize) -> [f32; 9] + Sync) -> Self {
        let tall = kernel::rows();
        let panels = rows.div_ceil(tall);
        let of_element = panels * tall * planes;
        let mut packed = vec![0.0; SIDE * SIDE * of_element];
        let shared = Shared::new(&mut packed);
        let blocks = planes.div_ceil(BLOCK);
        threads::for_each(blocks * panels, SIDE * SIDE * of_element, |task| {
            let (block, panel) = (task / panels, task % panels);
            let terms = BLOCK.min(planes - block * BLOCK);
            let begin = block * BLOCK * panels * tall + panel * terms * tall;
            let mut of: [&mut [f32]; SIDE * SIDE] = std::array::from_fn(|element| {
                // SAFETY: each task has panels of its own, in each element.
                unsafe { shared.slice(element * of_element + begin, terms * tall) }
            });
            for k in 0..terms {
                for lane in 0..tall.min(rows - panel * tall) {
                    let transformed = of_kernel(&taps(panel * tall + lane, block * BLOCK + k));
                    of.iter_mut().zip(transformed).for_each(|(of, value)| of[k * tall + lane] = value);
                }
            }
        });
        Self { planes, rows, packed }
    }

    fn element(&self, element: usize) -> &[f32] {
        let len = self.packed.len() / (SIDE * SIDE);
        &self.packed[element * len..][..len]
    }
}

/// `G g G^T`.
fn of_kernel(g: &[f32; 9]) -> [f32; SIDE * SIDE] {
    let expand = |[a, b, c]: [f32; 3]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    let columns: [[f32; SIDE]; 3] = std::array::from_fn(|x| expand([g[x], g[3 + x], g[6 + x]]));
    let rows: [[f32; SIDE]; SIDE] = std::array::from_fn(|y| expand([columns[0][y], columns[1][y], columns[2][y]]));
    std::array::from_fn(|element| rows[element / SIDE][element % SIDE])
}

/// `G^T u G`: the gradient of the kernel of that of [`of_kernel`].
fn of_gradient(u: [f32; SIDE * SIDE]) -> [f32; 9] {
    let fold = |[a, b, c, d]: [f32; SIDE]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d];
    let columns: [[f32; 3]; SIDE] = std::array::from_fn(|x| fold([u[x], u[4 + x], u[8 + x], u[12 + x]]));
    let rows: [[f32; 3]; 3] =
        std::array::from_fn(|y| fold([columns[0][y], columns[1][y], columns[2][y], columns[3][y]]));
    std::array::from_fn(|tap| rows[tap / 3][tap % 3])
}

/// Where results go: `[samples, all rows, places]`.
pub(super) struct Results<'a> {
    pub(super) out: &'a Shared<MaybeUninit<f32>>,
    pub(super) all_rows: usize,
    pub(super) first_row: usize,
    /// Added to each place of a row.
    pub(super) bias: Option<&'a [f32]>,
}

#[derive(Default)]
struct Scratch {
    lines: Lines,
    /// `B^T d B`, one row of elements.
    seen: Vec<f32>,
    /// The same as the kernel reads it, or what the products give.
    second: Vec<f32>,
    /// Sums of `A^T m`, of the two results above each other, two next to each other; or `A y A^T`.
    sums: Vec<f32>,
}

thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());

/// The results at all places of the tiles.
pub(super) fn run(tiles: &Tiles<'_>, kernels: &Kernels, results: &Results<'_>) {
    /// Tasks per thread, so that none waits long for the last one.
    const TASKS: usize = 4;
    /// For which the kernels are read.
    const TILES: usize = 128;
    let share = tiles.rows().div_ceil(TASKS * threads::count()).max(1);
    let rows = rows_at_a_time(tiles, kernels.planes + 2 * kernels.rows, TILES).min(share);
    let tasks = tiles.rows().div_ceil(rows);
    threads::for_each(tasks, tiles.all() * kernels.planes * kernels.rows, |task| {
        let rows = task * rows..tiles.rows().min((task + 1) * rows);
        SCRATCH.with_borrow_mut(|scratch| chunk(tiles, kernels, results, rows, scratch));
    });
}

/// Rows of tiles whose values for `planes` planes, and one row of elements, fit a small second cache; but at least `least`
/// tiles, for which what stays the same for all of them is read again.
fn rows_at_a_time(tiles: &Tiles<'_>, planes: usize, least: usize) -> usize {
    /// Values that fit.
    const VALUES: usize = 1 << 16;
    let count = (VALUES / SIDE / planes).clamp(least, BLOCK);
    (count / tiles.count()[1]).max(1)
}

fn chunk(tiles: &Tiles<'_>, kernels: &Kernels, results: &Results<'_>, rows: Range<usize>, scratch: &mut Scratch) {
    let (width, tall) = (kernel::columns(), kernel::rows());
    let across = tiles.count()[1];
    let count = rows.len() * across;
    let columns = count.next_multiple_of(width);
    let Scratch { lines, seen, second: products, sums } = scratch;
    lines.fit(tiles);
    let of_element = kernels.planes * columns;
    grow(seen, SIDE * of_element);
    let high = kernels.rows.next_multiple_of(tall);
    grow(products, SIDE * high * columns);
    grow(sums, 2 * 2 * kernels.rows * count);
    for i in 0..SIDE {
        vectorised(
            #[inline(always)]
            || see(tiles, i, rows.clone(), columns, lines, seen),
        );
        for j in 0..SIDE {
            let (left, right) = (kernels.element(i * SIDE + j), &seen[j * of_element..][..of_element]);
            let out = products[j * high * columns..][..high * columns].as_mut_ptr();
            for first in (0..kernels.planes).step_by(BLOCK) {
                let terms = BLOCK.min(kernels.planes - first);
                arch().dispatch(Tile {
                    left: Left::Packed(&left[first * high..][..terms * high]),
                    right: &right[first * columns..][..terms * columns],
                    pairs: false,
                    terms,
                    rows: high,
                    columns,
                    start: if first == 0 { Start::Zero } else { Start::Output },
                    out: Corner { start: out, stride: columns },
                });
            }
        }
        let of = |row: usize| -> [&[f32]; SIDE] {
            std::array::from_fn(|j| &products[(j * high + row) * columns..][..count])
        };
        vectorised(
            #[inline(always)]
            || {
                for (row, sums) in sums[..4 * kernels.rows * count].chunks_exact_mut(4 * count).enumerate() {
                    gather(i, of(row), sums);
                    // The upper results are complete with the third row of elements, the lower ones with the last.
                    if let Some(which) = i.checked_sub(2) {
                        write(tiles, results, (row, which), rows.clone(), &sums[which * 2 * count..][..2 * count]);
                    }
                }
            },
        );
    }
}

/// Lays out row `i` of `B^T d B` of all planes and of some rows of tiles: elements, blocks of planes, panels of tiles,
/// planes, tiles of a panel. What stands in tiles that do not exist does not matter.
#[inline(always)]
fn see(tiles: &Tiles<'_>, i: usize, rows: Range<usize>, columns: usize, lines: &mut Lines, seen: &mut [f32]) {
    let width = kernel::columns();
    let across = tiles.count()[1];
    let of_element = tiles.planes * columns;
    for first in (0..tiles.planes).step_by(BLOCK) {
        let terms = BLOCK.min(tiles.planes - first);
        for k in 0..terms {
            for (row, tile_row) in rows.clone().enumerate() {
                tiles.transform(i, tile_row, first + k, lines);
                let mut done = 0;
                while done < across {
                    let (panel, lane) = ((row * across + done) / width, (row * across + done) % width);
                    let here = (width - lane).min(across - done);
                    let place = first * columns + (panel * terms + k) * width + lane;
                    for (j, line) in lines.rows.iter().enumerate() {
                        let (out, from) = (&mut seen[j * of_element + place..][..here], &line[done..][..here]);
                        match here {
                            // Of a known length, it is a few moves.
                            16 => out[..16].copy_from_slice(&from[..16]),
                            _ => out.copy_from_slice(from),
                        }
                    }
                    done += here;
                }
            }
        }
    }
}

/// Adds what row `i` of the products gives to the four results of each tile: `sums` holds those of the upper left ones, the
/// upper right ones, the lower left ones and the lower right ones.
#[inline(always)]
fn gather(i: usize, m: [&[f32]; SIDE], sums: &mut [f32]) {
    let count = m[0].len();
    let (upper, lower) = sums.split_at_mut(2 * count);
    match i {
        0 => gather_into(m, upper, |_, new| new),
        1 => {
            gather_into(m, upper, |sum, new| sum + new);
            gather_into(m, lower, |_, new| new);
        }
        2 => {
            gather_into(m, upper, |sum, new| sum + new);
            gather_into(m, lower, |sum, new| sum - new);
        }
        _ => gather_into(m, lower, |sum, new| sum - new),
    }
}

#[inline(always)]
fn gather_into([m0, m1, m2, m3]: [&[f32]; SIDE], sums: &mut [f32], join: impl Fn(f32, f32) -> f32) {
    let (left, right) = sums.split_at_mut(m0.len());
    let middle = m1.iter().zip(m2);
    for ((sum, m0), (m1, m2)) in left.iter_mut().zip(m0).zip(middle.clone()) {
        *sum = join(*sum, m0 + m1 + m2);
    }
    for ((sum, m3), (m1, m2)) in right.iter_mut().zip(m3).zip(middle) {
        *sum = join(*sum, m1 - m2 - m3);
    }
}

/// Writes the upper or the lower results of the tiles.
#[inline(always)]
fn write(
    tiles: &Tiles<'_>,
    results: &Results<'_>,
    (row, which): (usize, usize),
    tile_rows: Range<usize>,
    sums: &[f32],
) {
    let [down, across] = tiles.count();
    let [height, width] = tiles.grid.size;
    let (left, right) = sums.split_at(sums.len() / 2);
    let bias = results.bias.map_or(0.0, |bias| bias[results.first_row + row]);
    for (n, tile_row) in tile_rows.enumerate() {
        let y = tile_row % down * 2 + which;
        if y >= height {
            continue;
        }
        let plane = tile_row / down * results.all_rows + results.first_row + row;
        // SAFETY: each task has rows of tiles of its own.
        let out = unsafe { results.out.slice((plane * height + y) * width, width) };
        let (left, right) = (&left[n * across..][..across], &right[n * across..][..across]);
        let (pairs, rest) = out.as_chunks_mut::<2>();
        for (pair, (left, right)) in pairs.iter_mut().zip(left.iter().zip(right)) {
            *pair = [MaybeUninit::new(left + bias), MaybeUninit::new(right + bias)];
        }
        if let [last] = rest {
            last.write(left[across - 1] + bias);
        }
    }
}

/// The gradient of the weight `[filters, planes, 3, 3]` of a group, of that of the results `[samples, all filters, places]`.
pub(super) struct WeightGradient<'a> {
    pub(super) tiles: Tiles<'a>,
    pub(super) gradient: &'a [f32],
    pub(super) all_filters: usize,
    pub(super) first_filter: usize,
    pub(super) filters: usize,
}

impl WeightGradient<'_> {
    pub(super) fn run(&self, into: &mut [f32], how: Write) {
        /// Filters that one task takes.
        const FILTERS: usize = 128;
        let columns = self.tiles.planes.next_multiple_of(kernel::columns());
        let high = self.filters.next_multiple_of(kernel::rows());
        let pieces = self.pieces();
        let of_element = high * columns;
        // Pieces, elements, filters, planes.
        let mut sums = vec![0.0f32; pieces * SIDE * SIDE * of_element];
        let shared = Shared::new(&mut sums);
        let slabs = self.filters.div_ceil(FILTERS);
        let slab = self.filters.div_ceil(slabs).next_multiple_of(kernel::rows());
        let cost = self.tiles.all() * self.filters * self.tiles.planes;
        threads::for_each(pieces * SIDE * slabs, cost, |task| {
            let (piece, i, first) = (task / slabs / SIDE, task / slabs % SIDE, task % slabs * slab);
            let rows = self.tiles.rows();
            let rows = piece * rows / pieces..(piece + 1) * rows / pieces;
            let filters = first..self.filters.min(first + slab);
            if filters.is_empty() {
                return;
            }
            let of: [&mut [f32]; SIDE] = std::array::from_fn(|j| {
                let begin = ((piece * SIDE + i) * SIDE + j) * of_element + first * columns;
                // SAFETY: each task has rows of its own.
                unsafe { shared.slice(begin, filters.len().next_multiple_of(kernel::rows()) * columns) }
            });
            SCRATCH.with_borrow_mut(|scratch| self.piece(i, rows, filters, columns, of, scratch));
        });
        threads::pieces(into, self.tiles.planes * 9, |filter, into| {
            for (plane, into) in into.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                let of = |element: usize| {
                    let place = |piece: usize| (piece * SIDE * SIDE + element) * of_element + filter * columns + plane;
                    (0..pieces).map(|piece| sums[place(piece)]).sum()
                };
                let gradient = of_gradient(std::array::from_fn(of));
                match how {
                    Write::Overwrite => *into = gradient,
                    Write::Add => into.iter_mut().zip(gradient).for_each(|(into, more)| *into += more),
                }
            }
        });
    }

    /// Into how many pieces the tiles are cut. Part of the result.
    fn pieces(&self) -> usize {
        /// More would give more threads something to do, and take more memory.
        const MOST: usize = 8;
        /// Tiles that are worth sums of their own.
        const TILES: usize = 512;
        /// Values that all sums may take.
        const VALUES: usize = 1 << 22;
        let sums = SIDE * SIDE * self.filters * self.tiles.planes;
        (self.tiles.all() / TILES).min(VALUES / sums).min(self.tiles.rows()).clamp(1, MOST)
    }

    /// Adds what some rows of tiles give to row `i` of the elements.
    fn piece(
        &self,
        i: usize,
        rows: Range<usize>,
        filters: Range<usize>,
        columns: usize,
        mut sums: [&mut [f32]; SIDE],
        scratch: &mut Scratch,
    ) {
        /// For which the sums are read and written.
        const TILES: usize = 256;
        let (width, planes) = (kernel::columns(), self.tiles.planes);
        let across = self.tiles.count()[1];
        let high = filters.len().next_multiple_of(kernel::rows());
        let Scratch { lines, seen, second: packed, sums: gradient } = scratch;
        lines.fit(&self.tiles);
        let step = rows_at_a_time(&self.tiles, 2 * planes + filters.len(), TILES);
        for first in rows.clone().step_by(step) {
            let rows = first..rows.end.min(first + step);
            let count = rows.len() * across;
            grow(seen, SIDE * planes * count);
            grow(gradient, SIDE * high * count);
            vectorised(
                #[inline(always)]
                || {
                    for plane in 0..planes {
                        for (n, tile_row) in rows.clone().enumerate() {
                            self.tiles.transform(i, tile_row, plane, lines);
                            for (j, line) in lines.rows.iter().enumerate() {
                                let begin = (j * planes + plane) * count + n * across;
                                seen[begin..][..across].copy_from_slice(&line[..across]);
                            }
                        }
                    }
                    for (row, filter) in filters.clone().enumerate() {
                        for (n, tile_row) in rows.clone().enumerate() {
                            let begin = |j: usize| (j * high + row) * count + n * across;
                            self.spread(i, tile_row, filter, lines);
                            for (j, line) in lines.rows.iter().enumerate() {
                                gradient[begin(j)..][..across].copy_from_slice(&line[..across]);
                            }
                        }
                    }
                },
            );
            for terms in (0..count).step_by(BLOCK).map(|first| first..count.min(first + BLOCK)) {
                grow(packed, columns * terms.len());
                for (j, sums) in sums.iter_mut().enumerate() {
                    arch().dispatch(Pack {
                        from: Matrix::dense(&seen[j * planes * count..][..planes * count], count),
                        first_row: 0,
                        rows: planes,
                        first_column: terms.start,
                        columns: terms.len(),
                        panel: width,
                        rounding: Rounding::None,
                        out: &mut packed[..columns * terms.len()],
                    });
                    arch().dispatch(Tile {
                        left: Left::InPlace {
                            values: &gradient[j * high * count + terms.start..][..high * count - terms.start],
                            stride: count,
                        },
                        right: packed,
                        pairs: false,
                        terms: terms.len(),
                        rows: high,
                        columns,
                        start: Start::Output,
                        out: Corner { start: sums.as_mut_ptr(), stride: columns },
                    });
                }
            }
        }
    }

    /// Row `i` of `A y A^T` of all tiles of a row of tiles.
    #[inline(always)]
    fn spread(&self, i: usize, tile_row: usize, filter: usize, lines: &mut Lines) {
        let [down, across] = self.tiles.count();
        let [height, width] = self.tiles.grid.size;
        let (sample, top) = (tile_row / down, tile_row % down * 2);
        let begin = (sample * self.all_filters + self.first_filter + filter) * height * width;
        let Lines { pairs, even, odd, rows: [r0, r1, r2, r3], zeros, .. } = lines;
        let upper = &self.gradient[begin + top * width..][..width];
        let lower =
            if top + 1 < height { &self.gradient[begin + (top + 1) * width..][..width] } else { &zeros[..width] };
        let line = &mut pairs[..width];
        match i {
            0 => line.copy_from_slice(upper),
            1 => sum(upper, lower, line),
            2 => difference(upper, lower, line),
            _ => line.iter_mut().zip(lower).for_each(|(out, value)| *out = -value),
        }
        split(&pairs[..2 * across], even, odd);
        let (left, right) = (&even[..across], &odd[..across]);
        r0[..across].copy_from_slice(left);
        sum(left, right, &mut r1[..across]);
        difference(left, right, &mut r2[..across]);
        r3.iter_mut().zip(right).for_each(|(out, value)| *out = -value);
    }
}
