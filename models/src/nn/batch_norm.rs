//! Batch normalisation (Ioffe and Szegedy 2015), with ReLU behind it if wanted: both read and write memory once.

use candle_core::{Result, Tensor, bail};
use kernels::batch_norm::{self, Normalised, ParameterGradients};
use kernels::simd::vectorised;
use kernels::threads::pieces;

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, channels, tensor_of};

/// What is learned about each channel, and the rest that defines a batch norm.
#[derive(Clone, Copy)]
pub struct BatchNorm<'a> {
    /// The normalised values are multiplied by this.
    pub gain: &'a Tensor,
    /// This is added after that.
    pub bias: &'a Tensor,
    /// Keeps the divisor away from 0.
    pub eps: f32,
    /// What follows.
    pub then: Then,
}

/// What a batch norm does to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// Negative values become 0.
    Relu,
}

/// Mean and variance of each channel over the batches of a training.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStatistics {
    /// Of each channel.
    pub mean: Vec<f32>,
    /// Of each channel: of the population, as PyTorch estimates it.
    pub variance: Vec<f32>,
    /// How far they move to those of each batch; 0.1 in PyTorch, whose `momentum` this is.
    pub momentum: f32,
}

impl RunningStatistics {
    /// Before the first batch: mean 0 and variance 1.
    pub fn new(channels: usize, momentum: f32) -> Self {
        Self { mean: vec![0.0; channels], variance: vec![1.0; channels], momentum }
    }
}

/// By which statistics values are normalised.
pub enum Statistics<'a> {
    /// Those of the batch, in a training. Running statistics, if given, move towards them.
    Batch(Option<&'a mut RunningStatistics>),
    /// Those that were kept, in an evaluation, or in a training that leaves them as they are.
    Running(&'a RunningStatistics),
}

/// `(x - mean) / sqrt(variance + eps) * gain + bias` of each channel of `x` `[samples, channels, ..]`.
pub fn batch_norm(tape: &Tape<'_>, x: &Tensor, norm: BatchNorm<'_>, statistics: Statistics<'_>) -> Result<Tensor> {
    let BatchNorm { gain, bias, eps, then } = norm;
    let sizes = channels(x)?;
    check(x, sizes, norm, &statistics)?;
    tape.run("batch-norm", 0, &[x, gain, bias], |keep| {
        let [x_values, gain_values, bias_values] = [x, gain, bias].map(Values::of);
        let (x_rows, gain_rows, bias_rows) = (x_values.rows()?, gain_values.rows()?, bias_values.rows()?);
        let relu = then == Then::Relu;
        let (y, mean, inverse, of_batch) = match statistics {
            Statistics::Batch(running) => {
                let made = batch_norm::forward(&x_rows, sizes, &gain_rows, &bias_rows, eps, relu);
                if let Some(RunningStatistics { mean, variance, momentum }) = running {
                    batch_norm::update_running(mean, variance, &made, sizes[0] * sizes[2], *momentum);
                }
                let Normalised { y, mean, inverse, .. } = made;
                (y, mean, inverse, true)
            }
            Statistics::Running(RunningStatistics { mean, variance, .. }) => {
                let y = batch_norm::evaluate(&x_rows, sizes, (mean, variance), &gain_rows, &bias_rows, eps, relu);
                // As the kernel does.
                let inverse = |variance: &f32| (1.0 / (f64::from(*variance) + f64::from(eps)).sqrt()) as f32;
                (y, mean.clone(), variance.iter().map(inverse).collect(), false)
            }
        };
        let operator = || Normalisation {
            x: x.clone(),
            gain: gain.clone(),
            bias: bias.clone(),
            relu,
            sizes,
            mean,
            inverse,
            of_batch,
        };
        Ok((tensor_of(y, x.shape())?, keep.then(operator)))
    })
}

fn check(x: &Tensor, sizes: [usize; 3], norm: BatchNorm<'_>, statistics: &Statistics<'_>) -> Result<()> {
    let BatchNorm { gain, bias, .. } = norm;
    let [samples, channels, places] = sizes;
    if gain.elem_count() != channels || bias.elem_count() != channels {
        bail!("gain {:?} and bias {:?} do not fit the channels of {:?}", gain.dims(), bias.dims(), x.dims())
    }
    let running = match statistics {
        Statistics::Batch(running) => running.as_deref(),
        Statistics::Running(running) => Some(*running),
    };
    if let Some(RunningStatistics { mean, variance, .. }) = running
        && (mean.len() != channels || variance.len() != channels)
    {
        bail!("running statistics of {} channels do not fit {:?}", mean.len(), x.dims())
    }
    if matches!(statistics, Statistics::Batch(_)) && samples * places == 1 {
        bail!("a batch norm needs more than one value a channel to learn from, found {:?}", x.dims())
    }
    Ok(())
}

struct Normalisation {
    x: Tensor,
    gain: Tensor,
    bias: Tensor,
    relu: bool,
    sizes: [usize; 3],
    mean: Vec<f32>,
    inverse: Vec<f32>,
    /// Whether mean and inverse depend on the input.
    of_batch: bool,
}

impl Operator for Normalisation {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self { x, gain, bias, relu, sizes, mean, inverse, of_batch } = *self;
        let [x_values, gain_values, bias_values] = [&x, &gain, &bias].map(Values::of);
        let (x_rows, gain_rows, bias_rows) = (x_values.rows()?, gain_values.rows()?, bias_values.rows()?);
        let mut of_x = None;
        to.parameters([Some(gain.id()), Some(bias.id())], |[gain, bias]| {
            let into = ParameterGradients { gain, bias };
            let (saved, parameters) = ((&mean[..], &inverse[..]), (&gain_rows[..], &bias_rows[..]));
            of_x = Some(batch_norm::backward(&x_rows, &gradient, sizes, saved, parameters, relu, into));
        });
        if of_batch {
            to.add(x.id(), of_x.expect("the place of the parameters was given"));
            return Ok(());
        }
        // Gain and bias have the same gradients whatever the statistics depend on; the input's is the slope alone.
        drop(of_x);
        let [_, channels, places] = sizes;
        let mut of_x = gradient.into_vec();
        pieces(&mut of_x, places, |plane, of_x: &mut [f32]| {
            let channel = plane % channels;
            let (mean, scale, bias) = (mean[channel], inverse[channel] * gain_rows[channel], bias_rows[channel]);
            let x = &x_rows[plane * places..][..places];
            vectorised(
                #[inline(always)]
                || {
                    for (of_x, x) in of_x.iter_mut().zip(x) {
                        let cut = relu && (x - mean).mul_add(scale, bias) <= 0.0;
                        *of_x = if cut { 0.0 } else { *of_x * scale };
                    }
                },
            );
        });
        to.add(x.id(), of_x);
        Ok(())
    }
}
