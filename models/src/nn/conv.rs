//! Convolutions of images.

use candle_core::{Result, Tensor, bail};
use kernels::conv;

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// How a kernel moves over an image; pairs are vertical, horizontal. Channels and the size of the kernel are those of the
/// weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// From a place of the kernel to the next one.
    pub stride: [usize; 2],
    /// Zeros around the image, on each side.
    pub padding: [usize; 2],
    /// From a tap of the kernel to the next one.
    pub dilation: [usize; 2],
    /// Channels and filters are cut into as many groups; a filter sees the channels of its group alone.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// `x` `[samples, channels, height, width]` under the filters of `weight` `[filters, channels / groups, kernel height, kernel
/// width]`, plus the bias of each filter: `[samples, filters, ..]`, of the size `(size + 2 padding - dilation (kernel - 1) - 1) /
/// stride + 1`.
pub fn conv2d(tape: &Tape<'_>, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, how: Conv2d) -> Result<Tensor> {
    let (samples, channels, height, width) = x.dims4()?;
    let conv = checked(x, weight, bias, how)?;
    let [out_height, out_width] = conv.output([height, width]);
    let sizes = [samples, height, width];
    let shape = (samples, conv.filters, out_height, out_width);
    let of_place = weight.elem_count() / conv.filters;
    let operations = 2 * (samples * conv.filters * out_height * out_width * of_place) as u64;
    debug_assert_eq!(of_place * conv.groups, channels * conv.kernel.iter().product::<usize>(), "checked above");
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    tape.run("conv2d", operations, &inputs, |keep| {
        let [x_values, weight_values] = [x, weight].map(Values::of);
        let bias_values = bias.map(Values::of);
        let bias_rows = bias_values.as_ref().map(Values::rows).transpose()?;
        let (x_rows, weight_rows) = (x_values.rows()?, weight_values.rows()?);
        let y = conv::forward(&conv, &x_rows, sizes, &weight_rows, bias_rows.as_deref(), tape.precision());
        let operator = || Convolution { conv, sizes, x: x.clone(), weight: weight.clone(), bias: bias.cloned() };
        Ok((tensor_of(y, shape)?, keep.then(operator)))
    })
}

/// The convolution, if all sizes fit.
fn checked(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, how: Conv2d) -> Result<conv::Conv> {
    let (_, channels, height, width) = x.dims4()?;
    let (filters, planes, kernel_height, kernel_width) = weight.dims4()?;
    let Conv2d { stride, padding, dilation, groups } = how;
    let kernel = [kernel_height, kernel_width];
    if [stride, dilation, kernel, [filters, groups]].iter().flatten().any(|size| *size == 0) {
        bail!(
            "a convolution needs filters, kernel, stride, dilation and groups of at least 1: weight {:?}, {how:?}",
            weight.dims()
        )
    }
    if planes * groups != channels || !filters.is_multiple_of(groups) {
        bail!("a weight {:?} in {groups} groups does not fit an input {:?}", weight.dims(), x.dims())
    }
    if bias.is_some_and(|bias| bias.elem_count() != filters) {
        bail!("a bias {:?} does not fit {filters} filters", bias.map(Tensor::dims).unwrap_or_default())
    }
    let fits = |axis: usize, size: usize| size + 2 * padding[axis] > dilation[axis] * (kernel[axis] - 1);
    if !fits(0, height) || !fits(1, width) {
        bail!("a kernel {kernel:?} does not fit into an input {:?} ({how:?})", x.dims())
    }
    Ok(conv::Conv { channels, filters, kernel, stride, padding, dilation, groups })
}

struct Convolution {
    conv: conv::Conv,
    /// Samples, height and width of the input.
    sizes: [usize; 3],
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Operator for Convolution {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let Self { conv, sizes, x, weight, bias } = *self;
        let precision = to.precision();
        if to.wants(x.id()) {
            let values = Values::of(&weight);
            let of_x = conv::backward_input(&conv, &gradient, sizes, &values.rows()?, precision);
            to.add(x.id(), of_x);
        }
        let values = Values::of(&x);
        let x_rows = values.rows()?;
        to.parameter(weight.id(), |of_weight, write| {
            conv::backward_weight(&conv, &x_rows, &gradient, sizes, (of_weight, write), precision);
        });
        if let Some(bias) = bias {
            let [height, width] = conv.output([sizes[1], sizes[2]]);
            to.parameter(bias.id(), |of_bias, write| {
                conv::backward_bias(&gradient, [sizes[0], conv.filters, height * width], (of_bias, write));
            });
        }
        Ok(())
    }
}
