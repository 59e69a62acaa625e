//! Copies of an operand in the order in which the kernel reads it.

use pulp::{Simd, WithSimd};

use super::matrix::Matrix;
use super::{BLOCK, bf16};

/// What happens to the values on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Nothing.
    None,
    /// They are rounded to `bf16`.
    Bf16,
    /// They are rounded, and two terms share a place: see [`bf16::pair_terms`].
    PairsOfBf16,
}

/// Values that packing may write behind the last one.
pub(crate) const SLACK: usize = 8;

/// Copies `rows` x `columns` values into panels of `panel` rows each: column by column, the values of a column next to each
/// other. Rows that are missing in the last panel count as 0.
pub(crate) struct Pack<'a> {
    pub(crate) from: Matrix<'a>,
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) first_column: usize,
    pub(crate) columns: usize,
    pub(crate) panel: usize,
    pub(crate) rounding: Rounding,
    /// Room for all panels, and [`SLACK`] more if their height is not a multiple of it.
    pub(crate) out: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        match self.panel {
            6 => self.run::<S, 6>(),
            12 => self.run::<S, 12>(),
            14 => self.run::<S, 14>(),
            8 => self.run::<S, 8>(),
            16 => self.run::<S, 16>(),
            32 => self.run::<S, 32>(),
            _ => unreachable!("kernels have these sizes"),
        }
    }
}

impl Pack<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize>(self) {
        let Self { from, first_row, rows, first_column, columns, rounding, out, .. } = self;
        let spill = if R.is_multiple_of(SLACK) { 0 } else { SLACK };
        assert!(out.len() >= rows.div_ceil(R) * R * columns + spill && rows > 0 && columns > 0, "room for all panels");
        let last = (first_row + rows - 1) * from.row_stride + (first_column + columns - 1) * from.column_stride;
        assert!(last < from.values.len(), "the part lies inside of the matrix");
        for panel in 0..rows.div_ceil(R) {
            let row = first_row + panel * R;
            let here = R.min(first_row + rows - row);
            let begin = panel * R * columns;
            let start = row * from.row_stride + first_column * from.column_stride;
            // Panels follow each other, and each may write a little into the next one before that is written.
            let panel_out = &mut out[begin..begin + R * columns + spill];
            let values = &from.values[start..];
            if rounding == Rounding::PairsOfBf16 && here == R && from.row_stride == 1 {
                pair_columns::<R>(values, from.column_stride, columns, panel_out);
                continue;
            }
            if rounding == Rounding::PairsOfBf16
                && here == R
                && from.column_stride == 1
                && S::F32_LANES >= 8
                && columns <= BLOCK
            {
                // Terms that share a place stand next to each other: half as many places are left to be turned.
                let mut places = [[0.0; BLOCK / 2]; R];
                for (row, places) in places.iter_mut().enumerate() {
                    bf16::pair_neighbours(&values[row * from.row_stride..][..columns], places);
                }
                transpose::<R>(places.as_flattened(), BLOCK / 2, columns.div_ceil(2), panel_out);
                continue;
            }
            if here < R {
                edge::<R>(values, from, here, columns, panel_out);
            } else if from.row_stride == 1 {
                for (k, group) in panel_out[..R * columns].chunks_exact_mut(R).enumerate() {
                    group.copy_from_slice(&values[k * from.column_stride..][..R]);
                }
            } else if from.column_stride == 1 && S::F32_LANES >= 8 {
                transpose::<R>(values, from.row_stride, columns, panel_out);
            } else {
                edge::<R>(values, from, R, columns, panel_out);
            }
            let packed = &mut panel_out[..R * columns];
            match rounding {
                Rounding::None => {}
                Rounding::Bf16 => packed.iter_mut().for_each(|value| *value = bf16::rounded(*value)),
                Rounding::PairsOfBf16 => bf16::pair_terms::<R>(packed),
            }
        }
    }
}

/// `R` rows whose values of a column stand next to each other, two terms in a place.
#[inline(always)]
fn pair_columns<const R: usize>(values: &[f32], stride: usize, columns: usize, out: &mut [f32]) {
    let mut pair = 0;
    // Whole vectors, which spill into what is written next, as long as there is room for that on both sides.
    while 2 * pair + 1 < columns {
        let Some(second) = values[(2 * pair + 1) * stride..].first_chunk::<16>().filter(|_| R < 16) else { break };
        let Some(out) = out[pair * R..].first_chunk_mut::<16>() else { break };
        let first: &[f32; 16] = values[2 * pair * stride..].first_chunk().expect("as many as in a later column");
        *out = bf16::paired_each(first, second);
        pair += 1;
    }
    for pair in pair..columns.div_ceil(2) {
        let column = |k: usize| values[k * stride..].first_chunk::<R>().expect("a column of the panel");
        let second = if 2 * pair + 1 < columns { column(2 * pair + 1) } else { &[0.0; R] };
        let out = out[pair * R..].first_chunk_mut::<R>().expect("a place for each row");
        *out = bf16::paired_each(column(2 * pair), second);
    }
}

/// Any strides, and any number of rows.
#[inline(always)]
fn edge<const R: usize>(values: &[f32], from: Matrix<'_>, rows: usize, columns: usize, out: &mut [f32]) {
    for (k, group) in out[..R * columns].chunks_exact_mut(R).enumerate() {
        for (i, out) in group.iter_mut().enumerate() {
            *out = if i < rows { values[i * from.row_stride + k * from.column_stride] } else { 0.0 };
        }
    }
}

/// `R` rows whose values stand next to each other.
#[inline(always)]
fn transpose<const R: usize>(values: &[f32], stride: usize, columns: usize, out: &mut [f32]) {
    assert!((R - 1) * stride + columns <= values.len(), "all rows lie inside of the values");
    let whole = columns / 8 * 8;
    for k in (0..whole).step_by(8) {
        for first in (0..R).step_by(16) {
            let turned = |first: usize| {
                transpose_8x8(std::array::from_fn(|i| {
                    // A row that does not exist is read from one that does: what it gives is overwritten.
                    let row = (first + i).min(R - 1);
                    let group: &[f32; 8] = values[row * stride + k..][..8].try_into().expect("eight values");
                    *group
                }))
            };
            // The last group of a column may spill into the first one of the next column, which is written after it.
            let mut write = |i: usize, row: usize, group: &[f32; 8]| {
                let at = (k + i) * R + row;
                if at + 8 <= out.len() {
                    out[at..at + 8].copy_from_slice(group);
                }
            };
            let upper = turned(first);
            if first + 8 < R {
                let lower = turned(first + 8);
                for (i, (upper, lower)) in upper.iter().zip(&lower).enumerate() {
                    write(i, first, upper);
                    write(i, first + 8, lower);
                }
            } else {
                upper.iter().enumerate().for_each(|(i, upper)| write(i, first, upper));
            }
        }
    }
    for k in whole..columns {
        for row in 0..R {
            out[k * R + row] = values[row * stride + k];
        }
    }
}

/// Exchanges rows and columns.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_8x8(rows: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    use std::arch::x86_64::{
        __m256, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };

    #[target_feature(enable = "avx")]
    #[inline]
    fn exchange(r: [__m256; 8]) -> [__m256; 8] {
        // Neighbours, then pairs, then halves.
        let low = |i: usize| _mm256_unpacklo_ps(r[i], r[i + 1]);
        let high = |i: usize| _mm256_unpackhi_ps(r[i], r[i + 1]);
        let (a, b) = ([low(0), low(2), low(4), low(6)], [high(0), high(2), high(4), high(6)]);
        let pairs = |x: &[__m256; 4], i: usize| {
            [_mm256_shuffle_ps::<0x44>(x[i], x[i + 1]), _mm256_shuffle_ps::<0xee>(x[i], x[i + 1])]
        };
        let ([t0, t1], [t2, t3]) = (pairs(&a, 0), pairs(&b, 0));
        let ([t4, t5], [t6, t7]) = (pairs(&a, 2), pairs(&b, 2));
        let lower = |x, y| _mm256_permute2f128_ps::<0x20>(x, y);
        let upper = |x, y| _mm256_permute2f128_ps::<0x31>(x, y);
        [
            lower(t0, t4),
            lower(t1, t5),
            lower(t2, t6),
            lower(t3, t7),
            upper(t0, t4),
            upper(t1, t5),
            upper(t2, t6),
            upper(t3, t7),
        ]
    }

    // SAFETY: only reached with vectors of at least eight lanes, which the machine has with AVX alone; and the two types
    // have the same size, and hold nothing but numbers.
    unsafe { std::mem::transmute(exchange(std::mem::transmute::<[[f32; 8]; 8], [__m256; 8]>(rows))) }
}

/// Exchanges rows and columns.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transpose_8x8(rows: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}
