//! The innermost loops: a tile of the result in registers.

use std::mem::MaybeUninit;

use pulp::{Arch, Simd, WithSimd};

use super::matrix::Corner;
use super::{BLOCK, Start, bf16};
use crate::simd::arch;

/// Rows that the kernel of this machine makes at a time: as many as its registers hold.
pub(crate) fn rows() -> usize {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => 14,
        #[cfg(target_arch = "aarch64")]
        Arch::Neon(_) => 12,
        _ => 6,
    }
}

/// Columns that the kernel of this machine makes at a time: two vectors.
pub(crate) fn columns() -> usize {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(_) => 32,
        #[cfg(target_arch = "x86_64")]
        Arch::V3(_) => 16,
        // Scalar code is compiled as if there were vectors of four.
        _ => 8,
    }
}

/// Terms after which another line of the next panel is asked for: what is packed lies in the last cache, from which it comes
/// more slowly than it is used.
const AHEAD: usize = 4;

/// Values in a line of the cache.
pub(super) const LINE: usize = 16;

/// Most elements of a tile in registers.
const TILE_MAX: usize = 14 * 32;

/// Where the kernel reads the left operand.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// In panels of [`rows`] rows.
    Packed(&'a [f32]),
    /// Row by row, where it was.
    InPlace { values: &'a [f32], stride: usize },
    /// Where it was, term by term; what stands behind the last row is read, too, up to a multiple of [`rows`].
    Columns { values: &'a [f32], stride: usize },
}

/// `rows` x `columns` sums of at most [`BLOCK`] products.
pub(crate) struct Tile<'a> {
    pub(crate) left: Left<'a>,
    /// In panels of [`columns`] columns.
    pub(crate) right: &'a [f32],
    /// Whether two terms share a place in both operands.
    pub(crate) pairs: bool,
    pub(crate) terms: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) start: Start<'a>,
    pub(crate) out: Corner,
}

impl WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 14, 2>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 12, 2>(simd),
            _ => self.run::<S, 6, 8>(simd),
        }
    }
}

impl Tile<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let Self { left, right, pairs, terms, rows, columns, start, out } = self;
        let width = V * S::F32_LANES;
        assert!(terms <= BLOCK && right.len() >= columns.div_ceil(width) * width * terms, "packed as the kernel reads");
        for (i, panel) in right.chunks(width * terms.max(1)).take(columns.div_ceil(width)).enumerate() {
            let here = width.min(columns - i * width);
            for row in (0..rows).step_by(R) {
                let tall = R.min(rows - row);
                // SAFETY: the caller's corner has `rows` rows of `columns` values, and this is one of its parts.
                let corner = Corner { start: unsafe { out.start.add(row * out.stride + i * width) }, ..out };
                let start = match start {
                    Start::Bias(bias) => Start::Bias(&bias[i * width..][..here]),
                    other => other,
                };
                let left = match left {
                    Left::Packed(values) => {
                        Rows { start: &values[row * terms..][..R * terms], row: 1, last: R - 1, term: R, pairs }
                    }
                    // Missing rows are read as the last one; what they give is thrown away.
                    Left::InPlace { values, stride } => {
                        let start = &values[row * stride..][..(tall - 1) * stride + terms];
                        Rows { start, row: stride, last: tall - 1, term: 1, pairs }
                    }
                    Left::Columns { values, stride } => {
                        let start = &values[row..][..terms.saturating_sub(1) * stride + R];
                        Rows { start, row: 1, last: R - 1, term: stride, pairs }
                    }
                };
                let next = panel.as_ptr().wrapping_add(width * terms + row / R * (terms / AHEAD) * LINE);
                let right = Panel { values: panel, next };
                if tall == R && here == width {
                    // SAFETY: the tile lies whole inside of the output; `left` and `right` have `terms` terms.
                    unsafe { kernel::<S, R, V>(simd, left, right, terms, start, corner) };
                } else {
                    // SAFETY: as above, for a tile of its own; then only what exists is copied.
                    unsafe { partial::<S, R, V>(simd, left, right, terms, start, corner, (tall, here)) };
                }
            }
        }
    }
}

/// The rows of the left operand that a tile needs.
#[derive(Clone, Copy)]
struct Rows<'a> {
    start: &'a [f32],
    /// From a row to the next one.
    row: usize,
    /// The last row that exists.
    last: usize,
    /// From a term to the next one.
    term: usize,
    /// Whether two terms share a place.
    pairs: bool,
}

/// Columns of the right operand that a tile needs.
#[derive(Clone, Copy)]
struct Panel<'a> {
    values: &'a [f32],
    /// From where the next panel is fetched meanwhile.
    next: *const f32,
}

/// A tile that reaches over the edge of the output.
///
/// # Safety
/// `corner` has `rows` rows of `columns` values, and the operands have `terms` terms for a whole tile.
#[inline(always)]
unsafe fn partial<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: Rows<'_>,
    right: Panel<'_>,
    terms: usize,
    start: Start<'_>,
    corner: Corner,
    (rows, columns): (usize, usize),
) {
    let width = V * S::F32_LANES;
    let mut tile = MaybeUninit::<[f32; TILE_MAX]>::uninit();
    let tile: *mut f32 = tile.as_mut_ptr().cast();
    if !matches!(start, Start::Zero) {
        // SAFETY: a tile is no larger than the largest one.
        unsafe { tile.write_bytes(0, R * width) };
        for row in 0..rows {
            for column in 0..columns {
                let value = match start {
                    Start::Zero => 0.0,
                    Start::Bias(bias) => bias[column],
                    // SAFETY: inside of the corner, as the caller promises; written, since it is started from.
                    Start::Output => unsafe { *corner.start.add(row * corner.stride + column) },
                };
                // SAFETY: inside of the tile.
                unsafe { tile.add(row * width + column).write(value) };
            }
        }
    }
    let keep = if matches!(start, Start::Zero) { Start::Zero } else { Start::Output };
    let whole = Corner { start: tile, stride: width };
    // SAFETY: the tile has room for `R` rows of `width` values.
    unsafe { kernel::<S, R, V>(simd, left, right, terms, keep, whole) };
    for row in 0..rows {
        for column in 0..columns {
            // SAFETY: inside of the corner, as the caller promises, and of the tile, which the kernel has written.
            unsafe { corner.start.add(row * corner.stride + column).write(*tile.add(row * width + column)) };
        }
    }
}

/// `R` rows of `V` vectors.
///
/// # Safety
/// `corner` has `R` rows of `V` vectors, and the operands have `terms` terms.
#[inline(always)]
unsafe fn kernel<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: Rows<'_>,
    right: Panel<'_>,
    terms: usize,
    start: Start<'_>,
    corner: Corner,
) {
    let lanes = S::F32_LANES;
    debug_assert!(terms == 0 || left.last * left.row + (terms - 1) * left.term < left.start.len());
    debug_assert!(right.values.len() >= terms * V * lanes);
    let at = |row: usize, vector: usize| {
        // SAFETY: inside of the corner, as the caller promises.
        unsafe { corner.start.add(row * corner.stride + vector * lanes) }
    };
    for row in 0..R {
        prefetch(at(row, 0));
        prefetch(at(row, V).wrapping_sub(1));
    }
    let mut next = right.next;
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    // SAFETY: all reads below stay inside of the operands: the assertions above hold by the caller's promise.
    unsafe {
        let mut b = right.values.as_ptr();
        if left.pairs {
            // Only asked for where the instruction is, and there tiles have its size. Sums whose address is known to others would
            // not stay in registers below.
            let mut tile = MaybeUninit::<[f32; TILE_MAX]>::uninit();
            let tile: *mut f32 = tile.as_mut_ptr().cast();
            bf16::products(tile, left.start.as_ptr(), b, terms.div_ceil(2), next);
            for (row, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = tile.add((row * V + vector) * lanes).cast::<S::f32s>().read_unaligned();
                }
            }
        } else if left.term == 1 {
            let rows: [*const f32; R] =
                std::array::from_fn(|row| left.start.as_ptr().add(row.min(left.last) * left.row));
            for first in (0..terms).step_by(AHEAD) {
                fetch(next);
                next = next.wrapping_add(LINE);
                for k in first..terms.min(first + AHEAD) {
                    term::<S, R, V>(simd, &mut sums, |row| *rows[row].add(k), b);
                    b = b.add(V * lanes);
                }
            }
        } else {
            let mut a = left.start.as_ptr();
            for first in (0..terms).step_by(AHEAD) {
                fetch(next);
                next = next.wrapping_add(LINE);
                for _ in first..terms.min(first + AHEAD) {
                    term::<S, R, V>(simd, &mut sums, |row| *a.add(row), b);
                    a = a.wrapping_add(left.term);
                    b = b.add(V * lanes);
                }
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        for (vector, sum) in sums.into_iter().enumerate() {
            let place: *mut S::f32s = at(row, vector).cast();
            let value = match start {
                Start::Zero => sum,
                // SAFETY: a bias has a value for each column of a whole tile.
                Start::Bias(bias) => unsafe {
                    let bias: *const S::f32s = bias.as_ptr().add(vector * lanes).cast();
                    simd.add_f32s(bias.read_unaligned(), sum)
                },
                // SAFETY: inside of the corner, and written, since it is started from.
                Start::Output => simd.add_f32s(unsafe { place.read_unaligned() }, sum),
            };
            // SAFETY: inside of the corner.
            unsafe { place.write_unaligned(value) };
        }
    }
}

/// Adds one product to every sum.
///
/// # Safety
/// `right` has `V` vectors.
#[inline(always)]
unsafe fn term<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &mut [[S::f32s; V]; R],
    left: impl Fn(usize) -> f32,
    right: *const f32,
) {
    let right: *const S::f32s = right.cast();
    // SAFETY: as the caller promises.
    let right: [S::f32s; V] = std::array::from_fn(|vector| unsafe { right.add(vector).read_unaligned() });
    for (row, sums) in sums.iter_mut().enumerate() {
        let left = simd.splat_f32s(left(row));
        for (sum, right) in sums.iter_mut().zip(right) {
            *sum = simd.mul_add_f32s(left, right, *sum);
        }
    }
}

/// Asks for the cache line of `place` early.
#[inline(always)]
fn prefetch(place: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, and its instruction belongs to every x86-64 processor.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks for the cache line of `place` in the second cache.
#[inline(always)]
pub(super) fn fetch(place: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch`.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
