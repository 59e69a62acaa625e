//! Layer norm (Ba, Kiros and Hinton 2016) and RMS norm (Zhang and Sennrich 2019), over the last axis.

use candle_core::{Result, Tensor, bail};
use kernels::norm;

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of, width};

/// `(x - mean) / sqrt(variance + eps) * gain + bias` over the last axis of `x`, with the variance of the whole row.
pub fn layer_norm(tape: &Tape<'_>, x: &Tensor, gain: &Tensor, bias: &Tensor, eps: f32) -> Result<Tensor> {
    let width = check_norm(x, gain, bias)?;
    recorded(tape, x, gain, bias, || {
        let [x, gain, bias] = [x, gain, bias].map(Values::of);
        Ok(norm::layer_norm(&x.rows()?, width, &gain.rows()?, &bias.rows()?, eps))
    })
}

/// The width of what is normalised.
pub(super) fn check_norm(x: &Tensor, gain: &Tensor, bias: &Tensor) -> Result<usize> {
    let width = width(x)?;
    if gain.elem_count() != width || bias.elem_count() != width {
        bail!("gain {:?} and bias {:?} do not fit {:?}", gain.dims(), bias.dims(), x.dims())
    }
    Ok(width)
}

/// Runs the operator whose result `make` gives.
pub(super) fn recorded(
    tape: &Tape<'_>,
    x: &Tensor,
    gain: &Tensor,
    bias: &Tensor,
    make: impl FnOnce() -> Result<norm::LayerNorm>,
) -> Result<Tensor> {
    tape.run("layer-norm", 0, &[x, gain, bias], |keep| {
        let norm::LayerNorm { y, mean, inverse } = make()?;
        let operator = keep.then(|| LayerNorm { x: x.clone(), gain: gain.clone(), bias: bias.clone(), mean, inverse });
        Ok((tensor_of(y, x.shape())?, operator))
    })
}

struct LayerNorm {
    x: Tensor,
    gain: Tensor,
    bias: Tensor,
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl Operator for LayerNorm {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self { x, gain, bias, mean, inverse } = *self;
        let [x_values, gain_values] = [&x, &gain].map(Values::of);
        let (x_rows, gain_rows) = (x_values.rows()?, gain_values.rows()?);
        let known = to.take(x.id());
        let mut of_x = None;
        to.parameters([Some(gain.id()), Some(bias.id())], |[gain, bias]| {
            let saved = (&mean[..], &inverse[..]);
            of_x = Some(norm::layer_norm_backward(
                &x_rows,
                gain_rows.len(),
                &gain_rows,
                saved,
                &gradient,
                known,
                gain,
                bias,
            ));
        });
        to.add(x.id(), of_x.expect("the place of the parameters was given"));
        Ok(())
    }
}

/// `x / sqrt(mean of x^2 + eps) * gain` over the last axis of `x`.
pub fn rms_norm(tape: &Tape<'_>, x: &Tensor, gain: &Tensor, eps: f32) -> Result<Tensor> {
    let width = width(x)?;
    if gain.elem_count() != width {
        bail!("gain {:?} does not fit {:?}", gain.dims(), x.dims())
    }
    tape.run("rms-norm", 0, &[x, gain], |keep| {
        let [x_values, gain_values] = [x, gain].map(Values::of);
        let norm::RmsNorm { y, inverse } = norm::rms_norm(&x_values.rows()?, width, &gain_values.rows()?, eps);
        let operator = keep.then(|| RmsNorm { x: x.clone(), gain: gain.clone(), inverse });
        Ok((tensor_of(y, x.shape())?, operator))
    })
}

struct RmsNorm {
    x: Tensor,
    gain: Tensor,
    inverse: Vec<f32>,
}

impl Operator for RmsNorm {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self { x, gain, inverse } = *self;
        let [x_values, gain_values] = [&x, &gain].map(Values::of);
        let (x_rows, gain_rows) = (x_values.rows()?, gain_values.rows()?);
        let known = to.take(x.id());
        let mut of_x = None;
        to.parameters([Some(gain.id())], |[gain]| {
            of_x =
                Some(norm::rms_norm_backward(&x_rows, gain_rows.len(), &gain_rows, &inverse, &gradient, known, gain));
        });
        to.add(x.id(), of_x.expect("the place of the parameters was given"));
        Ok(())
    }
}
