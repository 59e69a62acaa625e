//! Products of `bf16` values: rounding, and the instruction that some processors have for them.
//!
//! `VDPBF16PS` (AVX512-BF16) adds two products at a time to a sum, with roundings of its own, so the results of a processor that has
//! it differ in the last bits from those of one that multiplies the rounded values in `f32`. The instruction is used only where
//! it is fast, and after it has been seen to give the right results here.

use std::sync::OnceLock;

use crate::simd;

/// Rounds to the nearest value that has 8 bits of mantissa, ties to even. Not a number stays so.
#[inline(always)]
pub(crate) fn rounded(value: f32) -> f32 {
    f32::from_bits(if value.is_nan() { value.to_bits() } else { rounded_bits(value) & 0xffff_0000 })
}

/// The rounded value in the upper half, something in the lower.
#[inline(always)]
fn rounded_bits(value: f32) -> u32 {
    let bits = value.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1))
}

/// Whether products are made by the instruction: it is here, is wanted, and works.
pub fn is_instruction() -> bool {
    static IS_USED: OnceLock<bool> = OnceLock::new();
    *IS_USED.get_or_init(|| simd::wants_bf16_instruction() && instruction::exists() && works())
}

/// Puts the values of each two terms of a packed panel of `rows` rows next to each other, rounded: the lower half of a place is
/// the first term. Places in the second half of the panel are left over.
pub(super) fn pair_terms(panel: &mut [f32], rows: usize) {
    let terms = panel.len() / rows;
    for pair in 0..terms.div_ceil(2) {
        for row in 0..rows {
            let first = rounded(panel[2 * pair * rows + row]).to_bits() >> 16;
            let second = panel.get((2 * pair + 1) * rows + row).map_or(0, |v| rounded(*v).to_bits());
            panel[pair * rows + row] = f32::from_bits(first | second);
        }
    }
}

/// Compares a tile with sums in double precision.
fn works() -> bool {
    const PAIRS: usize = 5;
    let value = |i: usize| rounded((i * 37 % 23) as f32 / 8.0 - 1.25);
    let mut left: Vec<f32> = (0..2 * PAIRS * ROWS).map(value).collect();
    let mut right: Vec<f32> = (0..2 * PAIRS * COLUMNS).map(|i| value(i + 5)).collect();
    let exact = |row: usize, column: usize| -> f64 {
        (0..2 * PAIRS).map(|k| f64::from(left[k * ROWS + row]) * f64::from(right[k * COLUMNS + column])).sum()
    };
    let expected: Vec<f64> = (0..ROWS * COLUMNS).map(|i| exact(i / COLUMNS, i % COLUMNS)).collect();
    pair_terms(&mut left, ROWS);
    pair_terms(&mut right, COLUMNS);
    let mut sums = vec![0.0; ROWS * COLUMNS];
    // SAFETY: the instruction exists, and the operands have as many pairs.
    unsafe { instruction::add_products(&mut sums, left.as_ptr(), right.as_ptr(), PAIRS) };
    sums.iter().zip(expected).all(|(sum, expected)| (f64::from(*sum) - expected).abs() < 1e-4)
}

/// Rows of a tile.
pub(super) const ROWS: usize = 14;

/// Columns of a tile: two vectors.
pub(super) const COLUMNS: usize = 32;

pub(super) use instruction::add_products;

#[cfg(target_arch = "x86_64")]
mod instruction {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::{COLUMNS, ROWS};

    pub(super) fn exists() -> bool {
        is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f")
    }

    /// Adds the products of `pairs` pairs of terms to a tile of sums, which begin at 0.
    ///
    /// # Safety
    /// The instruction exists; `left` has `pairs` times [`ROWS`] pairs, `right` has `pairs` times [`COLUMNS`].
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(in super::super) unsafe fn add_products(sums: &mut [f32], left: *const f32, right: *const f32, pairs: usize) {
        assert_eq!(sums.len(), ROWS * COLUMNS, "a tile of sums");
        // SAFETY: both types are 64 bytes of plain numbers.
        let pairs_of = |values: __m512| unsafe { std::mem::transmute::<__m512, __m512bh>(values) };
        let mut totals = [[_mm512_setzero_ps(); 2]; ROWS];
        for pair in 0..pairs {
            // SAFETY: inside of the operands, as the caller promises.
            let columns = unsafe {
                let place = right.add(pair * COLUMNS);
                [pairs_of(_mm512_loadu_ps(place)), pairs_of(_mm512_loadu_ps(place.add(16)))]
            };
            for (row, totals) in totals.iter_mut().enumerate() {
                // SAFETY: as above.
                let value = pairs_of(_mm512_set1_ps(unsafe { *left.add(pair * ROWS + row) }));
                totals[0] = _mm512_dpbf16_ps(totals[0], value, columns[0]);
                totals[1] = _mm512_dpbf16_ps(totals[1], value, columns[1]);
            }
        }
        for (sums, totals) in sums.chunks_exact_mut(COLUMNS).zip(totals) {
            // SAFETY: a row of sums has room for two vectors.
            unsafe {
                _mm512_storeu_ps(sums.as_mut_ptr(), totals[0]);
                _mm512_storeu_ps(sums.as_mut_ptr().add(16), totals[1]);
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod instruction {
    pub(super) fn exists() -> bool {
        false
    }

    /// Never called.
    ///
    /// # Safety
    /// There is no such instruction.
    pub(in super::super) unsafe fn add_products(_: &mut [f32], _: *const f32, _: *const f32, _: usize) {
        unreachable!("there is no instruction for it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_nearest_even() {
        for (value, expected) in [(1.0f32, 1.0f32), (1.0 + 1.0 / 256.0, 1.0), (1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0)] {
            assert_eq!(rounded(value), expected);
        }
        assert!(rounded(f32::NAN).is_nan() && rounded(f32::INFINITY).is_infinite());
        assert_eq!(rounded(f32::MAX), f32::INFINITY);
    }

    #[test]
    fn terms_are_paired_and_an_odd_one_is_alone() {
        let mut panel = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        pair_terms(&mut panel, 2);
        let halves = |v: f32| [v.to_bits() << 16, v.to_bits() & 0xffff_0000].map(f32::from_bits);
        assert_eq!([0, 1, 2, 3].map(|i| halves(panel[i])), [[1.0, 3.0], [2.0, 4.0], [5.0, 0.0], [6.0, 0.0]]);
    }

    #[test]
    fn where_the_instruction_exists_it_works() {
        assert!(!instruction::exists() || works());
    }
}
