//! Cross-entropy of logits with smoothed labels (Szegedy et al. 2016). Loss and gradient are made together: both need
//! the probabilities.

use candle_core::{Result, Tensor, bail};

use super::math::{largest, softmax_row, sum};
use super::values::{Values, tensor_of};

/// What the loss compares the logits with, and how.
pub(crate) struct CrossEntropy<'a> {
    /// The class of each sample, below the number of classes.
    pub(crate) labels: &'a [u32],
    /// The target gives `1 - smoothing` to the label and `smoothing / classes` to every class.
    pub(crate) smoothing: f32,
    /// Multiplies the loss and its gradient.
    pub(crate) scale: f32,
}

/// The sum of the losses of all samples of `logits` `[samples, classes]`, times the scale, and its gradient by the
/// logits.
pub(crate) fn cross_entropy(logits: &Tensor, target: CrossEntropy<'_>) -> Result<(f64, Tensor)> {
    let mut total = 0.0;
    let mut gradient = Vec::with_capacity(logits.elem_count());
    each_row(logits, target.labels, |row, label| {
        let (loss, probabilities) = row_loss(row, label, target.smoothing);
        total += loss;
        let share = target.smoothing / row.len() as f32;
        let start = gradient.len();
        gradient.extend(probabilities.iter().map(|p| (p - share) * target.scale));
        gradient[start + label] -= (1.0 - target.smoothing) * target.scale;
    })?;
    Ok((total * f64::from(target.scale), tensor_of(gradient, logits.shape())?))
}

/// The sum of the losses of all samples without smoothing, and for how many the label has the highest logit.
pub(crate) fn score(logits: &Tensor, labels: &[u32]) -> Result<(f64, u64)> {
    let (mut total, mut correct) = (0.0, 0);
    each_row(logits, labels, |row, label| {
        total += row_loss(row, label, 0.0).0;
        let highest = largest(row);
        // Among equals the first one counts, as in PyTorch's argmax.
        correct += u64::from(row.iter().position(|v| *v == highest) == Some(label));
    })?;
    Ok((total, correct))
}

fn each_row(logits: &Tensor, labels: &[u32], mut f: impl FnMut(&[f32], usize)) -> Result<()> {
    let (samples, classes) = logits.dims2()?;
    if samples != labels.len() {
        bail!("{samples} rows of logits do not fit {} labels", labels.len())
    }
    let values = Values::of(logits);
    for (row, label) in values.rows()?.chunks(classes).zip(labels) {
        f(row, *label as usize);
    }
    Ok(())
}

/// The loss of one sample and the probabilities of its classes. With `z` the logarithm of the normaliser and `s` the
/// smoothing, `loss = z - (1 - s) * logit[label] - s * mean(logits)`.
fn row_loss(logits: &[f32], label: usize, smoothing: f32) -> (f64, Vec<f32>) {
    let mut probabilities = logits.to_vec();
    let (highest, normaliser) = softmax_row(&mut probabilities);
    let z = f64::from(highest) + libm::log(f64::from(normaliser));
    let mean = f64::from(sum(logits)) / logits.len() as f64;
    let smoothing = f64::from(smoothing);
    (z - (1.0 - smoothing) * f64::from(logits[label]) - smoothing * mean, probabilities)
}
