//! Pooling of images.

use candle_core::{Result, Tensor, TensorId, bail};
use kernels::pool;
pub use kernels::pool::{Divisor, Pool as Pool2d};

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};

/// The largest value of each window of `x` `[samples, channels, height, width]`. Of equal values the first one in the order of
/// rows gets the gradient.
pub fn max_pool2d(tape: &Tape<'_>, x: &Tensor, pool: Pool2d) -> Result<Tensor> {
    let Windows { sizes, shape } = windows(x, pool)?;
    tape.run("max-pool2d", 0, &[x], |keep| {
        let values = Values::of(x);
        let (y, places) = pool::max_pool2d(&pool, &values.rows()?, sizes);
        Ok((tensor_of(y, shape)?, keep.then(|| MaxPool { x: x.id(), places, sizes })))
    })
}

/// The mean of each window of `x` `[samples, channels, height, width]`.
pub fn avg_pool2d(tape: &Tape<'_>, x: &Tensor, pool: Pool2d, divisor: Divisor) -> Result<Tensor> {
    let Windows { sizes, shape } = windows(x, pool)?;
    tape.run("avg-pool2d", 0, &[x], |keep| {
        let values = Values::of(x);
        let y = pool::avg_pool2d(&pool, &values.rows()?, sizes, divisor);
        Ok((tensor_of(y, shape)?, keep.then(|| AvgPool { x: x.id(), pool, divisor, sizes })))
    })
}

/// The mean of each channel of each sample: `[samples, channels, height, width]` to `[samples, channels]`.
pub fn global_avg_pool(tape: &Tape<'_>, x: &Tensor) -> Result<Tensor> {
    let (samples, channels, height, width) = x.dims4()?;
    let size = height * width;
    tape.run("global-avg-pool", 0, &[x], |keep| {
        let values = Values::of(x);
        let y = pool::global_avg_pool(&values.rows()?, samples * channels, size);
        Ok((tensor_of(y, (samples, channels))?, keep.then(|| GlobalAvgPool { x: x.id(), size })))
    })
}

struct Windows {
    /// Planes, height and width of the input.
    sizes: [usize; 3],
    /// Of the output.
    shape: (usize, usize, usize, usize),
}

fn windows(x: &Tensor, pool: Pool2d) -> Result<Windows> {
    let (samples, channels, height, width) = x.dims4()?;
    let Pool2d { kernel, stride, padding } = pool;
    let makes_sense = |axis: usize| kernel[axis] > 0 && stride[axis] > 0 && 2 * padding[axis] <= kernel[axis];
    if !makes_sense(0) || !makes_sense(1) {
        bail!("kernel and stride are at least 1, and padding is at most half of the kernel: {pool:?}")
    }
    if height + 2 * padding[0] < kernel[0] || width + 2 * padding[1] < kernel[1] {
        bail!("windows {kernel:?} do not fit into an input {:?} with padding {padding:?}", x.dims())
    }
    if u32::try_from(height * width).is_err() {
        bail!("planes of {height} x {width} values are too large")
    }
    let [out_height, out_width] = pool.output([height, width]);
    Ok(Windows { sizes: [samples * channels, height, width], shape: (samples, channels, out_height, out_width) })
}

struct MaxPool {
    x: TensorId,
    /// Where in its plane the largest value of each window is.
    places: Vec<u32>,
    sizes: [usize; 3],
}

impl Operator for MaxPool {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let [planes, height, width] = self.sizes;
        to.add(self.x, pool::max_pool2d_backward(&gradient, &self.places, planes, height * width));
        Ok(())
    }
}

struct AvgPool {
    x: TensorId,
    pool: Pool2d,
    divisor: Divisor,
    sizes: [usize; 3],
}

impl Operator for AvgPool {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        to.add(self.x, pool::avg_pool2d_backward(&self.pool, &gradient, self.sizes, self.divisor));
        Ok(())
    }
}

struct GlobalAvgPool {
    x: TensorId,
    size: usize,
}

impl Operator for GlobalAvgPool {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        to.add(self.x, pool::global_avg_pool_backward(&gradient, self.size));
        Ok(())
    }
}
