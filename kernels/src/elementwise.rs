//! Sums of tensors: element by element, and over rows.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::fresh::{self, Write};
use crate::simd::vectorised;
use crate::threads::{self, Shared, pieces};

/// Values that one task computes at a time.
const PIECE: usize = 1 << 14;

/// `a + b`: a residual connection.
///
/// # Panics
/// If the lengths differ.
pub fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "two tensors of the same shape are added");
    let fill = |y: &mut [MaybeUninit<f32>]| {
        pieces(y, PIECE, |i, y| {
            let (a, b) = (&a[i * PIECE..][..y.len()], &b[i * PIECE..][..y.len()]);
            vectorised(
                #[inline(always)]
                || {
                    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                        y.write(a + b);
                    }
                },
            );
        });
    };
    // SAFETY: the pieces cover all of the output.
    unsafe { fresh::written(a.len(), fill) }
}

/// `a += b`.
///
/// # Panics
/// If the lengths differ.
pub fn add_into(a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "two tensors of the same shape are added");
    pieces(a, PIECE, |i, a| {
        let b = &b[i * PIECE..][..a.len()];
        vectorised(
            #[inline(always)]
            || a.iter_mut().zip(b).for_each(|(a, b)| *a += b),
        );
    });
}

/// `a *= factor`.
pub fn scale(a: &mut [f32], factor: f32) {
    pieces(a, PIECE, |_, a| {
        vectorised(
            #[inline(always)]
            || a.iter_mut().for_each(|a| *a *= factor),
        )
    });
}

/// The sum of all rows of some columns of `x` `[rows, width]`, such as the gradient of a bias: pieces of 64 rows first, then
/// the pieces in order.
///
/// # Panics
/// If `into` has not a value for each of the `columns`, or `x` does not consist of whole rows.
pub fn sum_rows(x: &[f32], width: usize, columns: Range<usize>, into: &mut [f32], write: Write) {
    /// Columns that one task adds up: they stay in the first cache.
    const COLUMNS: usize = 2048;
    assert!(columns.start <= columns.end && columns.end <= width, "columns lie inside of their matrix");
    assert!(into.len() == columns.len() && x.len().is_multiple_of(width.max(1)), "a sum for each column of whole rows");
    let (rows, wide) = (x.len() / width.max(1), columns.len());
    let (groups, blocks) = (rows.div_ceil(SUM_ROWS), wide.div_ceil(COLUMNS));
    let mut partial = vec![0.0; groups * wide];
    let shared = Shared::new(&mut partial);
    threads::for_each(groups * blocks, rows * wide, |task| {
        let (group, first) = (task / blocks, task % blocks * COLUMNS);
        let count = COLUMNS.min(wide - first);
        // SAFETY: each task has a group and columns of its own.
        let sums = unsafe { shared.slice(group * wide + first, count) };
        vectorised(
            #[inline(always)]
            || {
                for row in group * SUM_ROWS..rows.min((group + 1) * SUM_ROWS) {
                    let values = &x[row * width + columns.start + first..][..count];
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            },
        );
    });
    add_groups(&partial, wide, 0, into, write);
}

/// Rows whose sum is made before it is added to that of others. Part of every sum over rows: changing it changes results.
pub(crate) const SUM_ROWS: usize = 64;

/// Adds up the columns of `partial` from `first` on, whose rows have `stride` values, in order.
pub(crate) fn add_groups(partial: &[f32], stride: usize, first: usize, into: &mut [f32], write: Write) {
    /// Columns that one task adds up.
    const COLUMNS: usize = 4096;
    pieces(into, COLUMNS, |piece, into| {
        let (first, mut totals) = (first + piece * COLUMNS, [0.0f32; COLUMNS]);
        let totals = &mut totals[..into.len()];
        vectorised(
            #[inline(always)]
            || {
                for sums in partial.chunks_exact(stride.max(1)) {
                    totals.iter_mut().zip(&sums[first..]).for_each(|(total, sum)| *total += sum);
                }
                match write {
                    Write::Overwrite => into.copy_from_slice(totals),
                    Write::Add => into.iter_mut().zip(&*totals).for_each(|(into, total)| *into += total),
                }
            },
        );
    });
}

/// What the tests of the operators share.
#[cfg(test)]
pub(crate) mod testing {
    /// Numbers between -1 and 1 that look random.
    pub(crate) fn values(seed: u32, len: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// Checks values against a reference, relative to the largest of them.
    pub(crate) fn close(found: &[f32], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1e-30f64, |m, e| m.max(e.abs()));
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*f) - e).abs() <= tolerance * largest, "{f}, not {e}, at {i}");
        }
    }

    /// The bits of all values: unlike the values, these tell zeros apart.
    pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    /// Checks that `compute` gives the same bits with 1, 2 and 3 threads.
    pub(crate) fn same_for_any_threads(compute: impl Fn() -> Vec<f32> + Sync) {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            bits(&pool.install(&compute))
        };
        let alone = on(1);
        assert!(alone == on(2) && alone == on(3), "threads change the result");
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{bits, same_for_any_threads, values};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tensors_are_added_and_scaled_element_by_element() {
        for len in [0, 1, 3, 7, 33, 3 * PIECE + 17] {
            let (a, b) = (values(1, len), values(2, len));
            let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            assert_eq!(bits(&add(&a, &b)), bits(&sum));
            let mut into = a.clone();
            add_into(&mut into, &b);
            assert_eq!(bits(&into), bits(&sum));
            scale(&mut into, 0.3);
            assert_eq!(bits(&into), bits(&sum.iter().map(|v| v * 0.3).collect::<Vec<_>>()));
        }
    }

    /// The definition: groups of rows first, then the groups in order.
    fn rows_in_order(x: &[f32], width: usize) -> Vec<f32> {
        let column = |column: usize| {
            let groups = x
                .chunks(SUM_ROWS * width)
                .map(|group| group.chunks_exact(width).fold(0.0f32, |sum, row| sum + row[column]));
            groups.fold(0.0f32, |sum, group| sum + group)
        };
        (0..width).map(column).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_are_added_in_groups(
            rows in 0usize..200, width in 1usize..70, cut in [0.0f64..=1.0, 0.0f64..=1.0], seed: u32,
        ) {
            let x = values(seed, rows * width);
            let mut columns = cut.map(|share| (share * width as f64) as usize);
            columns.sort_unstable();
            let columns = columns[0]..columns[1];
            let expected = &rows_in_order(&x, width)[columns.clone()];
            let mut into = vec![f32::NAN; columns.len()];
            sum_rows(&x, width, columns.clone(), &mut into, Write::Overwrite);
            prop_assert_eq!(bits(&into), bits(expected));
            let mut into = vec![0.5; columns.len()];
            sum_rows(&x, width, columns, &mut into, Write::Add);
            prop_assert_eq!(bits(&into), bits(&expected.iter().map(|sum| 0.5 + sum).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn wide_sums_are_the_same_for_any_threads() {
        for [rows, width] in [[300, 192], [8, 5003], [65, 4097]] {
            let x = values(3, rows * width);
            let compute = || {
                let mut into = vec![0.0; width];
                sum_rows(&x, width, 0..width, &mut into, Write::Overwrite);
                into
            };
            assert_eq!(bits(&compute()), bits(&rows_in_order(&x, width)));
            same_for_any_threads(compute);
        }
    }
}
