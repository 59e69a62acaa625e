//! Tables of vectors: looking rows up, and the gradient of that.

use std::mem::MaybeUninit;

use crate::fresh::{self, Write};
use crate::simd::vectorised;
use crate::threads::{self, Shared, pieces};

/// Values that one task copies at a time, about.
const PIECE: usize = 1 << 13;

/// The rows of `table` `[words, width]` that `ids` name: `[ids, width]`.
///
/// # Panics
/// If an id is not below the number of words.
pub fn gather(table: &[f32], width: usize, ids: &[u32]) -> Vec<f32> {
    let rows = (PIECE / width.max(1)).max(1);
    let fill = |y: &mut [MaybeUninit<f32>]| {
        pieces(y, (rows * width).max(1), |piece, y| {
            for (y, id) in y.chunks_exact_mut(width).zip(&ids[piece * rows..]) {
                y.write_copy_of_slice(&table[*id as usize * width..][..width]);
            }
        });
    };
    // SAFETY: the pieces cover all rows, and each row is copied whole.
    unsafe { fresh::written(ids.len() * width, fill) }
}

/// The gradient of the table of [`gather`]: adds each row of `gradient` `[ids, width]` to the row of `into`
/// `[words, width]` that its id names. The gradients of one word are added in the order of their places.
///
/// # Panics
/// If an id is not below the number of words, or sizes do not fit.
pub fn scatter_add(ids: &[u32], width: usize, gradient: &[f32], into: &mut [f32], write: Write) {
    /// Columns that one task adds up, so that a word that is everywhere does not keep all but one thread idle.
    const COLUMNS: usize = 256;
    /// Gradients that one task adds up, about.
    const ROWS: usize = 32;
    assert_eq!(gradient.len(), ids.len() * width, "a gradient for each id");
    let words = into.len() / width.max(1);
    assert!(ids.iter().all(|id| (*id as usize) < words), "an id is below the number of words");
    if write == Write::Overwrite {
        pieces(into, 1 << 16, |_, into| into.fill(0.0));
    }
    // Sorted by word, then by place.
    let mut places: Vec<(u32, u32)> = ids.iter().copied().zip(0..).collect();
    places.sort_unstable();
    let (groups, blocks) = (places.len().div_ceil(ROWS), width.div_ceil(COLUMNS));
    let shared = Shared::new(into);
    threads::for_each(groups * blocks, gradient.len(), |task| {
        let (group, first) = (task / blocks, task % blocks * COLUMNS);
        let count = COLUMNS.min(width - first);
        let begin = first_of_word(&places, group * ROWS);
        let end = first_of_word(&places, (group + 1) * ROWS);
        for (word, place) in &places[begin..end] {
            // SAFETY: all places of a word belong to one group, and each task has a group and columns of its own.
            let sums = unsafe { shared.slice(*word as usize * width + first, count) };
            let values = &gradient[*place as usize * width + first..][..count];
            vectorised(
                #[inline(always)]
                || sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
            );
        }
    });
}

/// The first index from `at` on where a word begins.
fn first_of_word(places: &[(u32, u32)], at: usize) -> usize {
    let Some((before, rest)) = places.split_at_checked(at) else { return places.len() };
    match before.last() {
        Some((word, _)) => at + rest.partition_point(|(other, _)| other == word),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::testing::{bits, same_for_any_threads, values};
    use proptest::prelude::*;

    /// The definition: one place after the other.
    fn in_order(ids: &[u32], width: usize, gradient: &[f32], into: &mut [f32]) {
        for (id, row) in ids.iter().zip(gradient.chunks_exact(width)) {
            into[*id as usize * width..][..width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_are_found_and_gradients_added_in_order(
            ids in prop::collection::vec(0u32..9, 0..150), width in 1usize..40, seed: u32,
        ) {
            let (table, gradient) = (values(seed, 9 * width), values(seed ^ 1, ids.len() * width));
            let rows: Vec<f32> =
                ids.iter().flat_map(|id| &table[*id as usize * width..][..width]).copied().collect();
            prop_assert_eq!(bits(&gather(&table, width, &ids)), bits(&rows));
            let (mut found, mut expected) = (table.clone(), table.clone());
            scatter_add(&ids, width, &gradient, &mut found, Write::Add);
            in_order(&ids, width, &gradient, &mut expected);
            prop_assert_eq!(bits(&found), bits(&expected));
            scatter_add(&ids, width, &gradient, &mut found, Write::Overwrite);
            expected.fill(0.0);
            in_order(&ids, width, &gradient, &mut expected);
            prop_assert_eq!(bits(&found), bits(&expected));
        }
    }

    #[test]
    fn threads_change_nothing_even_if_one_word_is_everywhere() {
        let width = 517;
        for ids in [vec![3; 300], (0..300).map(|i| (i * i) % 41).collect::<Vec<u32>>()] {
            let gradient = values(1, ids.len() * width);
            let compute = || {
                let mut into = vec![1.0; 41 * width];
                scatter_add(&ids, width, &gradient, &mut into, Write::Overwrite);
                into
            };
            let mut expected = vec![0.0; 41 * width];
            in_order(&ids, width, &gradient, &mut expected);
            assert_eq!(bits(&compute()), bits(&expected));
            same_for_any_threads(compute);
            same_for_any_threads(|| gather(&gradient, width, &ids));
        }
    }

    #[test]
    #[should_panic(expected = "an id is below the number of words")]
    fn an_unknown_word_is_refused() {
        scatter_add(&[2], 1, &[1.0], &mut [0.0, 0.0], Write::Add);
    }
}
