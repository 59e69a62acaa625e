//! Convolutions in two dimensions, as PyTorch's `Conv2d` defines them.
//!
//! They are products of matrices (Chellapilla et al. 2006, "High performance convolutional neural networks for document
//! processing"), but the matrix of what the kernel sees at every place is never stored: its panels are laid out from the images
//! when the product needs them (`grid`). `product` computes results and gradients of inputs, `weight` gradients of
//! weights, `depthwise` both where a filter sees only one channel, `winograd` all three where the kernel is 3 x 3.
//!
//! Rounding: sums over channels and taps (channels outside) are cut into blocks of [`gemm::BLOCK`](crate::gemm::BLOCK) as in
//! [`crate::gemm`]; sums over places and samples into pieces that depend on nothing but sizes.

mod depthwise;
mod grid;
mod product;
#[cfg(test)]
mod tests;
mod weight;
mod winograd;

use crate::fresh::{self, Write};
use crate::gemm::Precision;
use crate::math;
use crate::simd::vectorised;
use crate::threads::{self, Shared};
use grid::Grid;
use product::{Phase, Product};
use weight::WeightGradient;
use winograd::{Kernels, Results, Tiles};

/// The sizes of a convolution; pairs are vertical, horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Channels of the input.
    pub channels: usize,
    /// Channels of the output.
    pub filters: usize,
    /// Size of the kernel.
    pub kernel: [usize; 2],
    /// From a place of the kernel to the next one.
    pub stride: [usize; 2],
    /// Zeros around the input, on each side.
    pub padding: [usize; 2],
    /// From a tap of the kernel to the next one.
    pub dilation: [usize; 2],
    /// Channels and filters are cut into as many groups; a filter sees the channels of its group alone.
    pub groups: usize,
}

impl Conv {
    /// Height and width of the output, of those of the input: `(size + 2 padding - dilation (kernel - 1) - 1) / stride + 1`.
    ///
    /// # Panics
    /// If the kernel is larger than the padded input, or a size of the convolution makes no sense.
    pub fn output(&self, size: [usize; 2]) -> [usize; 2] {
        let Self { channels, filters, kernel, stride, dilation, groups, .. } = *self;
        let has_sizes = [kernel, stride, dilation, [channels, filters]].iter().flatten().all(|size| *size > 0);
        assert!(has_sizes && groups > 0, "channels, filters, kernel, stride, dilation and groups are at least 1");
        assert!(channels % groups == 0 && filters % groups == 0, "groups divide channels and filters");
        std::array::from_fn(|axis| {
            let padded = size[axis] + 2 * self.padding[axis];
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            assert!(padded >= reach, "the kernel is no larger than the padded input");
            (padded - reach) / self.stride[axis] + 1
        })
    }

    /// Values of the weight `[filters, channels / groups, kernel height, kernel width]`.
    pub fn weight_len(&self) -> usize {
        self.filters * (self.channels / self.groups) * self.taps()
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether each filter sees a single channel.
    fn is_depthwise(&self) -> bool {
        self.channels == self.groups && self.groups > 1
    }

    /// Whether a place of the output sees just the same place of the input.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// What the taps add to the place of the output, times stride.
    fn offsets(&self) -> Vec<[isize; 2]> {
        let at = |axis: usize, tap: usize| (tap * self.dilation[axis]) as isize - self.padding[axis] as isize;
        (0..self.taps()).map(|tap| [at(0, tap / self.kernel[1]), at(1, tap % self.kernel[1])]).collect()
    }

    /// The input as the filters of a group see it.
    fn grid<'a>(&self, x: &'a [f32], [samples, height, width]: [usize; 3], group: usize) -> Grid<'a> {
        let planes = self.channels;
        let first_plane = group * (planes / self.groups);
        let (plane, size) = if self.is_pointwise() {
            // Rows may be thought of as one.
            ([1, height * width], [1, height * width])
        } else {
            ([height, width], self.output([height, width]))
        };
        Grid { values: x, samples, planes, first_plane, plane, size, stride: self.stride }
    }

    fn check(&self, [samples, height, width]: [usize; 3], x: Option<&[f32]>, y: Option<&[f32]>, weight: &[f32]) {
        let [out_height, out_width] = self.output([height, width]);
        let fits = |values: Option<&[f32]>, len: usize| values.is_none_or(|values| values.len() == len);
        assert!(fits(x, samples * self.channels * height * width), "an input is [samples, channels, height, width]");
        assert!(
            fits(y, samples * self.filters * out_height * out_width),
            "an output is [samples, filters, height, width]"
        );
        assert_eq!(weight.len(), self.weight_len(), "a weight is [filters, channels / groups, kernel]");
    }
}

/// `y[n, f, p] = bias[f] + sum over c, t of weight[f, c, t] x[n, c, p stride + t dilation - padding]`: `x`
/// `[samples, channels, height, width]`, `weight` `[filters, channels / groups, kernel height, kernel width]`, the result
/// `[samples, filters, height, width]` of the size that [`Conv::output`] says.
///
/// # Panics
/// If sizes do not fit.
pub fn forward(
    conv: &Conv,
    x: &[f32],
    sizes: [usize; 3],
    weight: &[f32],
    bias: Option<&[f32]>,
    precision: Precision,
) -> Vec<f32> {
    conv.check(sizes, Some(x), None, weight);
    assert!(bias.is_none_or(|bias| bias.len() == conv.filters), "a bias has a value for each filter");
    if conv.is_depthwise() {
        return depthwise::forward(conv, x, sizes, weight, bias, precision);
    }
    let [samples, height, width] = sizes;
    let [out_height, out_width] = conv.output([height, width]);
    let places = out_height * out_width;
    let (planes, rows, taps) = (conv.channels / conv.groups, conv.filters / conv.groups, conv.taps());
    let fill = |y: &mut [std::mem::MaybeUninit<f32>]| {
        let shared = Shared::new(y);
        for group in 0..conv.groups {
            let first = group * rows;
            if winograd::pays(conv, precision) {
                let tiles = Tiles { grid: conv.grid(x, sizes, group), planes, padding: conv.padding };
                let kernels = Kernels::new(rows, planes, |row, plane| {
                    weight[((first + row) * planes + plane) * taps..][..9].try_into().expect("nine taps")
                });
                let results = Results { out: &shared, all_rows: conv.filters, first_row: first, bias };
                winograd::run(&tiles, &kernels, &results);
                continue;
            }
            let of = |row: usize, plane: usize, tap: usize| weight[((first + row) * planes + plane) * taps + tap];
            let phases = vec![Phase::new(conv.offsets(), rows, planes, precision, of)];
            Product { grid: conv.grid(x, sizes, group), planes, rows, phases, precision }.run(
                #[inline(always)]
                |sums| {
                    let chunk = sums.chunk;
                    for n in 0..chunk.samples {
                        for row in 0..rows {
                            let begin = ((chunk.sample + n) * conv.filters + first + row) * places + chunk.first;
                            let bias = bias.map_or(0.0, |bias| bias[first + row]);
                            // SAFETY: each chunk has places of its own.
                            let out = unsafe { shared.slice(begin, chunk.places) };
                            for (out, sum) in out.iter_mut().zip(sums.row(0, row, n)) {
                                out.write(sum + bias);
                            }
                        }
                    }
                },
            );
        }
    };
    // SAFETY: the chunks hold all places of all samples, and the groups all filters.
    unsafe { fresh::written(samples * conv.filters * places, fill) }
}

/// The gradient of the input of [`forward`], `[samples, channels, height, width]`, of that of its result.
///
/// Places of the input that are a multiple of the stride apart see the same taps of the kernel; each such phase is a
/// convolution of the gradient with stride 1.
///
/// # Panics
/// If sizes do not fit.
pub fn backward_input(
    conv: &Conv,
    gradient: &[f32],
    sizes: [usize; 3],
    weight: &[f32],
    precision: Precision,
) -> Vec<f32> {
    conv.check(sizes, None, Some(gradient), weight);
    if conv.is_depthwise() {
        return depthwise::backward_input(conv, gradient, sizes, weight, precision);
    }
    let [samples, height, width] = sizes;
    let (plane, size) = if conv.is_pointwise() {
        ([1, height * width], [1, height * width])
    } else {
        let size = [height.div_ceil(conv.stride[0]), width.div_ceil(conv.stride[1])];
        (conv.output([height, width]), size)
    };
    let (planes, rows, taps) = (conv.filters / conv.groups, conv.channels / conv.groups, conv.taps());
    let fill = |x: &mut [std::mem::MaybeUninit<f32>]| {
        let shared = Shared::new(x);
        for group in 0..conv.groups {
            let first_plane = group * planes;
            let grid =
                Grid { values: gradient, samples, planes: conv.filters, first_plane, plane, size, stride: [1, 1] };
            if winograd::pays(conv, precision) {
                let tiles = Tiles { grid, planes, padding: conv.padding.map(|padding| 2 - padding) };
                let kernels = Kernels::new(rows, planes, |row, plane| {
                    let taps = &weight[((first_plane + plane) * rows + row) * taps..][..9];
                    std::array::from_fn(|tap| taps[8 - tap])
                });
                let results = Results { out: &shared, all_rows: conv.channels, first_row: group * rows, bias: None };
                winograd::run(&tiles, &kernels, &results);
                continue;
            }
            let phase = |[phase_y, phase_x]: [usize; 2]| {
                let seen = (0..taps).filter_map(|tap| {
                    let y = source(conv, 0, phase_y, tap / conv.kernel[1])?;
                    Some((tap, [y, source(conv, 1, phase_x, tap % conv.kernel[1])?]))
                });
                let (numbers, offsets): (Vec<usize>, Vec<[isize; 2]>) = seen.unzip();
                Phase::new(offsets, rows, planes, precision, |row, plane, tap| {
                    weight[((first_plane + plane) * rows + row) * taps + numbers[tap]]
                })
            };
            let across = conv.stride[1];
            let phases = (0..conv.stride[0] * across).map(|i| phase([i / across, i % across])).collect();
            Product { grid, planes, rows, phases, precision }.run(
                #[inline(always)]
                |sums| {
                    let chunk = sums.chunk;
                    for n in 0..chunk.samples {
                        for row in 0..rows {
                            let channel = (chunk.sample + n) * conv.channels + group * rows + row;
                            if conv.stride == [1, 1] {
                                let begin = channel * height * width + chunk.first;
                                // SAFETY: each chunk has places of its own.
                                let out = unsafe { shared.slice(begin, chunk.places) };
                                for (out, sum) in out.iter_mut().zip(sums.row(0, row, n)) {
                                    out.write(*sum);
                                }
                                continue;
                            }
                            let [sy, sx] = conv.stride;
                            let mut place = chunk.first;
                            let end = chunk.first + chunk.places;
                            while place < end {
                                // A stretch within a row of the grid.
                                let (y, x) = (place / size[1], place % size[1]);
                                let count = (size[1] - x).min(end - place);
                                for phase_y in 0..sy.min(height - y * sy) {
                                    let begin = (channel * height + y * sy + phase_y) * width + x * sx;
                                    // SAFETY: each chunk has places of its own, and what they stand for are these columns.
                                    let out = unsafe { shared.slice(begin, (count * sx).min(width - x * sx)) };
                                    let of = |phase_x: usize| {
                                        &sums.row(phase_y * sx + phase_x, row, n)[place - chunk.first..][..count]
                                    };
                                    interleave(sx, of, out);
                                }
                                place += count;
                            }
                        }
                    }
                },
            );
        }
    };
    // SAFETY: the chunks and phases hold all places of all samples, and the groups all channels.
    unsafe { fresh::written(samples * conv.channels * height * width, fill) }
}

/// Where a place of the input, `phase` after a multiple of the stride, finds the place of the output that sees it through a
/// tap: so much after that multiple over the stride. None if no place does.
fn source(conv: &Conv, axis: usize, phase: usize, tap: usize) -> Option<isize> {
    let at = (phase + conv.padding[axis]) as isize - (tap * conv.dilation[axis]) as isize;
    let stride = conv.stride[axis] as isize;
    (at % stride == 0).then_some(at / stride)
}

/// Value `i` of `out` is value `i / step` of the `i % step`-th row.
#[inline(always)]
fn interleave<'a>(step: usize, row: impl Fn(usize) -> &'a [f32], out: &mut [std::mem::MaybeUninit<f32>]) {
    if step == 2 {
        let (even, odd) = (row(0), row(1));
        let (pairs, rest) = out.as_chunks_mut::<2>();
        for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
            pair[0].write(*even);
            pair[1].write(*odd);
        }
        if let [last] = rest {
            last.write(even[even.len() - 1]);
        }
        return;
    }
    for phase in 0..step {
        for (out, value) in out.iter_mut().skip(phase).step_by(step).zip(row(phase)) {
            out.write(*value);
        }
    }
}

/// The gradient of the weight of [`forward`], of its input and the gradient of its result.
///
/// # Panics
/// If sizes do not fit.
pub fn backward_weight(
    conv: &Conv,
    x: &[f32],
    gradient: &[f32],
    sizes: [usize; 3],
    (into, write): (&mut [f32], Write),
    precision: Precision,
) {
    conv.check(sizes, Some(x), Some(gradient), into);
    if conv.is_depthwise() {
        return depthwise::backward_weight(conv, x, gradient, sizes, (into, write), precision);
    }
    let (planes, filters) = (conv.channels / conv.groups, conv.filters / conv.groups);
    for (group, into) in into.chunks_exact_mut((filters * planes * conv.taps()).max(1)).enumerate() {
        if winograd::pays(conv, precision) {
            let tiles = Tiles { grid: conv.grid(x, sizes, group), planes, padding: conv.padding };
            let (all_filters, first_filter) = (conv.filters, group * filters);
            winograd::WeightGradient { tiles, gradient, all_filters, first_filter, filters }.run(into, write);
            continue;
        }
        let gradient = WeightGradient {
            grid: conv.grid(x, sizes, group),
            taps: conv.offsets(),
            planes,
            gradient,
            all_filters: conv.filters,
            first_filter: group * filters,
            filters,
            precision,
        };
        gradient.run(into, write);
    }
}

/// The gradient of the bias of [`forward`], of that of its result, `[samples, filters, height, width]`: sums over samples and
/// places.
///
/// # Panics
/// If sizes do not fit.
pub fn backward_bias(gradient: &[f32], [samples, filters, places]: [usize; 3], (into, write): (&mut [f32], Write)) {
    assert_eq!(gradient.len(), samples * filters * places, "a gradient is [samples, filters, places]");
    assert_eq!(into.len(), filters, "a bias has a value for each filter");
    threads::for_each_mut(into, gradient.len(), |filter, into| {
        vectorised(
            #[inline(always)]
            || {
                let mut total = 0.0f64;
                for n in 0..samples {
                    total += f64::from(math::sum(&gradient[(n * filters + filter) * places..][..places]));
                }
                *into = match write {
                    Write::Overwrite => total as f32,
                    Write::Add => *into + total as f32,
                };
            },
        );
    });
}
