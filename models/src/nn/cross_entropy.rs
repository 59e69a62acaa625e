//! Cross-entropy of logits with smoothed labels (Szegedy et al. 2016). Loss and gradient are made together: both need
//! the probabilities.

use candle_core::{Result, Tensor, bail};

use super::values::{Values, into_vec, width};

/// What the loss compares the logits with, and how.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// The class of each sample, below the number of classes.
    pub labels: &'a [u32],
    /// A label that counts for nothing.
    pub ignore: Option<u32>,
    /// The target gives `1 - smoothing` to the label and `smoothing / classes` to every class.
    pub smoothing: f32,
    /// Multiplies the loss and its gradient.
    pub scale: f32,
}

/// The sum of the losses of all samples of `logits` `[.., classes]`, times the scale, and its gradient by the logits. They
/// become the gradient in place, so nobody else may read them any more.
pub fn cross_entropy(logits: Tensor, target: CrossEntropy<'_>) -> Result<(f64, Vec<f32>)> {
    let CrossEntropy { labels, ignore, smoothing, scale } = target;
    let classes = check(&logits, labels, ignore)?;
    let rows = into_vec(logits)?;
    let (loss, gradient, _) = kernels::cross_entropy::forward_backward(rows, classes, labels, ignore, smoothing, scale);
    Ok((loss, gradient))
}

/// The sum of the losses of all samples without smoothing, and for how many the label has the highest logit.
pub fn score(logits: &Tensor, labels: &[u32]) -> Result<(f64, u64)> {
    let classes = check(logits, labels, None)?;
    let values = Values::of(logits);
    let (loss, correct, _) = kernels::cross_entropy::score(&values.rows()?, classes, labels, None);
    Ok((loss, correct))
}

fn check(logits: &Tensor, labels: &[u32], ignore: Option<u32>) -> Result<usize> {
    let classes = width(logits)?;
    if logits.elem_count() == 0 {
        bail!("logits of shape {:?} hold nothing", logits.dims())
    }
    if logits.elem_count() != labels.len() * classes {
        bail!("logits {:?} do not fit {} labels", logits.dims(), labels.len())
    }
    match labels.iter().find(|label| Some(**label) != ignore && **label as usize >= classes) {
        Some(label) => bail!("label {label} is not below the number of classes, {classes}"),
        None => Ok(classes),
    }
}
