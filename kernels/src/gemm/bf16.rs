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
#[inline(always)]
pub(super) fn pair_terms<const R: usize>(panel: &mut [f32]) {
    let (terms, _) = panel.as_chunks_mut::<R>();
    for pair in 0..terms.len() / 2 {
        terms[pair] = paired_each(&terms[2 * pair], &terms[2 * pair + 1]);
    }
    if terms.len() % 2 == 1 {
        terms[terms.len() / 2] = paired_each(&terms[terms.len() - 1], &[0.0; R]);
    }
}

/// Puts each two neighbours of `values` into a place, the first of them below. An odd one is alone.
#[inline(always)]
pub(super) fn pair_neighbours(values: &[f32], places: &mut [f32]) {
    let (pairs, last) = values.as_chunks::<2>();
    for (place, [first, second]) in places.iter_mut().zip(pairs) {
        *place = paired(*first, *second);
    }
    if let Some(last) = last.first() {
        places[pairs.len()] = paired(*last, 0.0);
    }
}

/// The values of a term beside those of the next one.
#[inline(always)]
pub(super) fn paired_each<const R: usize>(first: &[f32; R], second: &[f32; R]) -> [f32; R] {
    let mut places = [0.0; R];
    // Not by `array::from_fn`, which is not always inlined, and then is no vector code.
    for (place, (first, second)) in places.iter_mut().zip(first.iter().zip(second)) {
        *place = paired(*first, *second);
    }
    places
}

/// Two rounded values in one place.
#[inline(always)]
fn paired(first: f32, second: f32) -> f32 {
    f32::from_bits(rounded(first).to_bits() >> 16 | rounded(second).to_bits())
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
    pair_terms::<ROWS>(&mut left);
    pair_terms::<COLUMNS>(&mut right);
    let mut sums = vec![0.0; ROWS * COLUMNS];
    let next = right.as_ptr();
    // SAFETY: the instruction exists, the operands have as many pairs, and the sums are as many as a tile has.
    unsafe { instruction::products(sums.as_mut_ptr(), left.as_ptr(), right.as_ptr(), PAIRS, next) };
    sums.iter().zip(expected).all(|(sum, expected)| (f64::from(*sum) - expected).abs() < 1e-4)
}

/// Rows of a tile.
pub(super) const ROWS: usize = 14;

/// Columns of a tile: two vectors.
pub(super) const COLUMNS: usize = 32;

pub(super) use instruction::products;

#[cfg(target_arch = "x86_64")]
mod instruction {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::super::kernel::{LINE, fetch};
    use super::{COLUMNS, ROWS};

    /// Pairs of terms after which another line is asked for.
    const AHEAD: usize = 2;

    pub(super) fn exists() -> bool {
        is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f")
    }

    /// Writes the sums of the products of `pairs` pairs of terms into a tile, and asks for the lines from `next` meanwhile.
    ///
    /// # Safety
    /// The instruction exists; `left` has `pairs` times [`ROWS`] pairs, `right` has `pairs` times [`COLUMNS`], and there is
    /// room for [`ROWS`] times [`COLUMNS`] sums.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(in super::super) unsafe fn products(
        sums: *mut f32,
        left: *const f32,
        right: *const f32,
        pairs: usize,
        next: *const f32,
    ) {
        // SAFETY: both types are 64 bytes of plain numbers.
        let pairs_of = |values: __m512| unsafe { std::mem::transmute::<__m512, __m512bh>(values) };
        let mut totals = [[_mm512_setzero_ps(); 2]; ROWS];
        for pair in 0..pairs {
            if pair % AHEAD == 0 {
                fetch(next.wrapping_add(pair / AHEAD * LINE));
            }
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
        for (row, totals) in totals.into_iter().enumerate() {
            // SAFETY: there is room for all rows, as the caller promises, and a row has two vectors.
            unsafe {
                _mm512_storeu_ps(sums.add(row * COLUMNS), totals[0]);
                _mm512_storeu_ps(sums.add(row * COLUMNS + 16), totals[1]);
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
    pub(in super::super) unsafe fn products(_: *mut f32, _: *const f32, _: *const f32, _: usize, _: *const f32) {
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
        pair_terms::<2>(&mut panel);
        let halves = |v: f32| [v.to_bits() << 16, v.to_bits() & 0xffff_0000].map(f32::from_bits);
        assert_eq!([0, 1, 2, 3].map(|i| halves(panel[i])), [[1.0, 3.0], [2.0, 4.0], [5.0, 0.0], [6.0, 0.0]]);
    }

    #[test]
    fn where_the_instruction_exists_it_works() {
        assert!(!instruction::exists() || works());
    }
}
