//! Cross-entropy of logits with smoothed labels (Szegedy et al. 2016). Loss and gradient are made together: both need the
//! probabilities, and a row of logits is read from memory once.

use crate::math::{self, largest, ln, softmax_row, sum};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Values that one task takes at a time, about: a whole row if there are many classes.
const PIECE: usize = 1 << 13;

/// The sum of the losses of all rows of `logits` `[rows, classes]`, times `scale`; its gradient by the logits, in their
/// place; and how many rows counted: all whose label is not `ignore`. The gradient of the others is 0.
///
/// The target gives `1 - smoothing` to the label and `smoothing / classes` to every class. With `z` the logarithm of the
/// sum of the exponentials and `p` the probabilities,
///
/// ```text
/// loss     = z - (1 - smoothing) * logit[label] - smoothing * mean(logits)
/// gradient = scale * (p - smoothing / classes - (1 - smoothing) * [class = label])
/// ```
///
/// # Panics
/// If there is not a label for each row, or one that counts is not below the number of classes.
pub fn forward_backward(
    mut logits: Vec<f32>,
    classes: usize,
    labels: &[u32],
    ignore: Option<u32>,
    smoothing: f32,
    scale: f32,
) -> (f64, Vec<f32>, u64) {
    let counted = check(logits.len(), classes, labels, ignore);
    let mut losses = vec![0.0f64; labels.len()];
    let (all, all_losses) = (Shared::new(&mut logits), Shared::new(&mut losses));
    let rows = (PIECE / classes.max(1)).max(1);
    threads::for_each(labels.len().div_ceil(rows), labels.len() * classes, |piece| {
        vectorised(
            #[inline(always)]
            || {
                for (row, label) in labels.iter().enumerate().skip(piece * rows).take(rows) {
                    // SAFETY: each row belongs to one task.
                    let (values, [loss]) = (unsafe { (all.slice(row * classes, classes), all_losses.slice(row, 1)) })
                    else {
                        unreachable!("one loss was asked for")
                    };
                    if Some(*label) == ignore {
                        values.fill(0.0);
                    } else {
                        *loss = row_forward_backward(values, *label as usize, smoothing, scale);
                    }
                }
            },
        );
    });
    (losses.iter().sum::<f64>() * f64::from(scale), logits, counted)
}

#[inline(always)]
fn row_forward_backward(row: &mut [f32], label: usize, smoothing: f32, scale: f32) -> f64 {
    let of_label = f64::from(row[label]);
    let of_all = if smoothing == 0.0 { 0.0 } else { f64::from(smoothing) * (f64::from(sum(row)) / row.len() as f64) };
    let (highest, total) = softmax_row(row);
    let share = smoothing / row.len() as f32;
    row.iter_mut().for_each(|p| *p = (*p - share) * scale);
    row[label] -= (1.0 - smoothing) * scale;
    f64::from(highest) + ln(f64::from(total)) - (1.0 - f64::from(smoothing)) * of_label - of_all
}

/// The sum of the losses of all rows of `logits` `[rows, classes]` without smoothing, for how many of them the label has the
/// highest logit, and how many counted: all whose label is not `ignore`. Among equal logits the first one is the highest, as in
/// PyTorch's `argmax`.
///
/// # Panics
/// If there is not a label for each row, or one that counts is not below the number of classes.
pub fn score(logits: &[f32], classes: usize, labels: &[u32], ignore: Option<u32>) -> (f64, u64, u64) {
    let counted = check(logits.len(), classes, labels, ignore);
    let mut scores = vec![(0.0f64, false); labels.len()];
    let all = Shared::new(&mut scores);
    let rows = (PIECE / classes.max(1)).max(1);
    threads::for_each(labels.len().div_ceil(rows), logits.len(), |piece| {
        let first = piece * rows;
        // SAFETY: each row belongs to one task.
        let scores = unsafe { all.slice(first, rows.min(labels.len() - first)) };
        vectorised(
            #[inline(always)]
            || {
                let piece = logits[first * classes..].chunks_exact(classes).zip(&labels[first..]);
                for (score, (row, label)) in scores.iter_mut().zip(piece) {
                    if Some(*label) != ignore {
                        *score = row_score(row, *label as usize);
                    }
                }
            },
        );
    });
    let total = scores.iter().map(|(loss, _)| loss).sum();
    (total, scores.iter().filter(|(_, correct)| *correct).count() as u64, counted)
}

#[inline(always)]
fn row_score(row: &[f32], label: usize) -> (f64, bool) {
    let highest = largest(row);
    let total = math::sum_of_exponentials(row, highest);
    let loss = f64::from(highest) + ln(f64::from(total)) - f64::from(row[label]);
    (loss, row[label] == highest && !row[..label].contains(&highest))
}

/// How many rows count.
fn check(len: usize, classes: usize, labels: &[u32], ignore: Option<u32>) -> u64 {
    assert_eq!(len, labels.len() * classes, "a row of logits for each label");
    let mut counted = 0;
    for label in labels.iter().filter(|label| Some(**label) != ignore) {
        assert!((*label as usize) < classes, "label {label} is not below the number of classes, {classes}");
        counted += 1;
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::testing::{bits, close, same_for_any_threads, values};

    const IGNORED: u32 = u32::MAX;

    fn exact(row: &[f64], label: usize, smoothing: f64) -> f64 {
        let highest = row.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
        let z = highest + row.iter().map(|v| (v - highest).exp()).sum::<f64>().ln();
        z - (1.0 - smoothing) * row[label] - smoothing * row.iter().sum::<f64>() / row.len() as f64
    }

    fn example(rows: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
        let logits = values(classes as u32, rows * classes).iter().map(|v| v * 4.0).collect();
        let label = |row: usize| if row % 5 == 3 { IGNORED } else { (row * 7 % classes) as u32 };
        (logits, (0..rows).map(label).collect())
    }

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() {
        const H: f64 = 1e-4;
        for (rows, classes) in [(1, 1), (7, 3), (33, 17), (9, 1001)] {
            let (logits, labels) = example(rows, classes);
            for smoothing in [0.0f32, 0.1] {
                let (loss, gradient, counted) =
                    forward_backward(logits.clone(), classes, &labels, Some(IGNORED), smoothing, 0.5);
                let smoothing = f64::from(smoothing);
                let (mut total, mut slopes, mut rows_counted) = (0.0, vec![0.0; logits.len()], 0);
                for (row, label) in labels.iter().enumerate().filter(|(_, label)| **label != IGNORED) {
                    let mut values: Vec<f64> =
                        logits[row * classes..][..classes].iter().map(|v| f64::from(*v)).collect();
                    let label = *label as usize;
                    total += 0.5 * exact(&values, label, smoothing);
                    rows_counted += 1;
                    for class in 0..classes {
                        let value = values[class];
                        values[class] = value + H;
                        let above = exact(&values, label, smoothing);
                        values[class] = value - H;
                        let below = exact(&values, label, smoothing);
                        values[class] = value;
                        slopes[row * classes + class] = 0.5 * (above - below) / (2.0 * H);
                    }
                }
                assert!((loss - total).abs() <= 1e-6 * total.abs().max(1.0), "{loss}, not {total}");
                assert_eq!(counted, rows_counted);
                if classes > 1 {
                    close(&gradient, &slopes, 1e-6);
                } else {
                    assert!(gradient.iter().all(|g| g.abs() < 1e-6));
                }
                if smoothing == 0.0 {
                    let (same, _, same_count) = score(&logits, classes, &labels, Some(IGNORED));
                    assert!((same * 0.5 - loss).abs() <= 1e-12 * loss.abs().max(1.0) && same_count == counted);
                }
            }
        }
    }

    #[test]
    fn the_first_of_equal_logits_is_the_highest() {
        let logits = [1.0, 3.0, 3.0, 1.0, 3.0, 3.0, 5.0, 0.0, 0.0];
        assert_eq!(score(&logits, 3, &[1, 2, 0], None).1, 2);
        assert_eq!(score(&logits, 3, &[1, IGNORED, 0], Some(IGNORED)), {
            let (a, ..) = score(&logits[..3], 3, &[1], None);
            let (b, ..) = score(&logits[6..], 3, &[0], None);
            (0.0 + a + 0.0 + b, 2, 2)
        });
    }

    #[test]
    fn not_a_number_spreads_over_its_row_and_the_loss() {
        let logits = vec![1.0, f32::NAN, 2.0, 1.0, 2.0, 3.0];
        let (loss, gradient, _) = forward_backward(logits.clone(), 3, &[0, 1], None, 0.0, 1.0);
        assert!(
            loss.is_nan() && gradient[..3].iter().all(|g| g.is_nan()) && gradient[3..].iter().all(|g| g.is_finite())
        );
        assert!(score(&logits, 3, &[0, 1], None).0.is_nan());
        let masked = vec![1.0, f32::NEG_INFINITY, 1.0];
        let (loss, gradient, _) = forward_backward(masked, 3, &[0], None, 0.0, 1.0);
        assert!((loss - f64::ln(2.0)).abs() < 1e-6);
        assert_eq!(gradient, [-0.5, 0.0, 0.5]);
    }

    #[test]
    fn threads_change_nothing() {
        for (rows, classes) in [(5000, 10), (17, 5003)] {
            let (logits, labels) = example(rows, classes);
            same_for_any_threads(|| {
                let (loss, mut gradient, _) =
                    forward_backward(logits.clone(), classes, &labels, Some(IGNORED), 0.1, 0.3);
                let (sum, ..) = score(&logits, classes, &labels, Some(IGNORED));
                for bits in [loss.to_bits(), sum.to_bits()] {
                    gradient.extend([f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]);
                }
                gradient
            });
        }
    }

    #[test]
    fn ignored_rows_have_no_gradient_whatever_they_hold() {
        let (_, gradient, counted) = forward_backward(vec![f32::NAN; 6], 3, &[IGNORED; 2], Some(IGNORED), 0.1, 1.0);
        assert_eq!((bits(&gradient), counted), (vec![0; 6], 0));
    }
}
