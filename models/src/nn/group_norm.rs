//! Group normalisation (Wu and He 2018).

use candle_core::{Result, Tensor, bail};
use kernels::batch_norm::ParameterGradients;
use kernels::group_norm;

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, channels, tensor_of};

/// `(x - mean) / sqrt(variance + eps) * gain + bias` of `x` `[samples, channels, ..]`, with the statistics of each sample and
/// each of `groups` groups of channels; gain and bias are those of the channel.
pub fn group_norm(
    tape: &Tape<'_>,
    x: &Tensor,
    groups: usize,
    gain: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    let sizes = channels(x)?;
    if groups == 0 || !sizes[1].is_multiple_of(groups) {
        bail!("{groups} groups do not divide the channels of {:?}", x.dims())
    }
    if gain.elem_count() != sizes[1] || bias.elem_count() != sizes[1] {
        bail!("gain {:?} and bias {:?} do not fit the channels of {:?}", gain.dims(), bias.dims(), x.dims())
    }
    tape.run("group-norm", 0, &[x, gain, bias], |keep| {
        let [x_values, gain_values, bias_values] = [x, gain, bias].map(Values::of);
        let (gain_rows, bias_rows) = (gain_values.rows()?, bias_values.rows()?);
        let group_norm::Normalised { y, mean, inverse } =
            group_norm::forward(&x_values.rows()?, sizes, groups, &gain_rows, &bias_rows, eps);
        let operator =
            || GroupNorm { x: x.clone(), gain: gain.clone(), bias: bias.clone(), sizes, groups, mean, inverse };
        Ok((tensor_of(y, x.shape())?, keep.then(operator)))
    })
}

struct GroupNorm {
    x: Tensor,
    gain: Tensor,
    bias: Tensor,
    sizes: [usize; 3],
    groups: usize,
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl Operator for GroupNorm {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self { x, gain, bias, sizes, groups, mean, inverse } = *self;
        let [x_values, gain_values] = [&x, &gain].map(Values::of);
        let (x_rows, gain_rows) = (x_values.rows()?, gain_values.rows()?);
        let mut of_x = None;
        to.parameters([Some(gain.id()), Some(bias.id())], |[gain, bias]| {
            let (saved, into) = ((&mean[..], &inverse[..]), ParameterGradients { gain, bias });
            of_x = Some(group_norm::backward(&x_rows, &gradient, sizes, groups, saved, &gain_rows, into));
        });
        to.add(x.id(), of_x.expect("the place of the parameters was given"));
        Ok(())
    }
}
