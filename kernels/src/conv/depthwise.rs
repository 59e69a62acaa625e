//! Convolutions whose filters see a single channel each: there is nothing to multiply matrices for, and each plane stays in the
//! first cache.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use super::Conv;
use crate::fresh::{self, Write};
use crate::gemm::{Precision, bf16};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Places that are summed side by side.
const LANES: usize = 32;

/// Partial sums of the gradient of a tap. Part of every result.
const PARTS: usize = 8;

/// A plane with a margin of zeros.
#[derive(Default)]
struct Padded {
    values: Vec<f32>,
    columns: usize,
}

impl Padded {
    /// A plane of `[rows, columns]`; value `[y, x]` of `from` goes to `[y * stride[0] + first[0], ..]`, if that is inside;
    /// the rest is 0.
    #[inline(always)]
    fn fill(
        &mut self,
        from: &[f32],
        width: usize,
        [rows, columns]: [usize; 2],
        first: [isize; 2],
        stride: [usize; 2],
        precision: Precision,
    ) {
        self.columns = columns;
        self.values.clear();
        // Reading a whole group of places may reach beyond the last one.
        self.values.resize(rows * columns + 2 * LANES, 0.0);
        for (y, from) in from.chunks_exact(width).enumerate() {
            let row = (y * stride[0]) as isize + first[0];
            if row < 0 || row as usize >= rows {
                continue;
            }
            let out = &mut self.values[row as usize * columns..][..columns];
            let (skipped, begin) = if first[1] < 0 {
                let skipped = first[1].unsigned_abs().div_ceil(stride[1]);
                (skipped, (skipped * stride[1]) - first[1].unsigned_abs())
            } else {
                (0, first[1] as usize)
            };
            let from = from.iter().skip(skipped);
            let out = out.iter_mut().skip(begin).step_by(stride[1]);
            match precision {
                Precision::F32 => out.zip(from).for_each(|(out, from)| *out = *from),
                Precision::Bf16 => out.zip(from).for_each(|(out, from)| *out = bf16::rounded(*from)),
            }
        }
    }
}

/// The kernel of a filter as it meets a padded plane.
struct Taps<'a> {
    weight: &'a [f32],
    /// Where each tap looks, from the place it is summed for.
    offsets: &'a [usize],
    stride: [usize; 2],
}

impl Taps<'_> {
    /// Calls `write` with the place and value of the sums of all taps at `[height, width]` places.
    #[inline(always)]
    fn sums(&self, padded: &Padded, width: usize, bias: f32, out: &mut [MaybeUninit<f32>]) {
        match self.stride[1] {
            1 => self.sums_by::<1>(padded, width, bias, out),
            2 => self.sums_by::<2>(padded, width, bias, out),
            _ => {
                for (y, out) in out.chunks_exact_mut(width).enumerate() {
                    for (x, out) in out.iter_mut().enumerate() {
                        let from = &padded.values[y * self.stride[0] * padded.columns + x * self.stride[1]..];
                        let taps = self.weight.iter().zip(self.offsets);
                        out.write(taps.fold(0.0f32, |sum, (weight, at)| weight.mul_add(from[*at], sum)) + bias);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn sums_by<const S: usize>(&self, padded: &Padded, width: usize, bias: f32, out: &mut [MaybeUninit<f32>]) {
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            let row = &padded.values[y * self.stride[0] * padded.columns..];
            let mut x = 0;
            for out in out.chunks_mut(LANES) {
                if out.len() > LANES / 4 {
                    self.group::<S, LANES>(&row[x * S..], bias, out);
                } else {
                    self.group::<S, { LANES / 4 }>(&row[x * S..], bias, out);
                }
                x += LANES;
            }
        }
    }

    /// At most `L` places next to each other.
    #[inline(always)]
    fn group<const S: usize, const L: usize>(&self, row: &[f32], bias: f32, out: &mut [MaybeUninit<f32>]) {
        let mut sums = [0.0f32; L];
        for (weight, at) in self.weight.iter().zip(self.offsets) {
            let from = &row[*at..][..(L - 1) * S + 1];
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum = weight.mul_add(from[lane * S], *sum);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            out.write(sum + bias);
        }
    }
}

thread_local!(static PADDED: RefCell<Padded> = RefCell::default());

/// The weight in the format of the products.
fn rounded(weight: &[f32], precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => weight.to_vec(),
        Precision::Bf16 => weight.iter().map(|value| bf16::rounded(*value)).collect(),
    }
}

/// Rows and columns of a plane with its padding.
fn padded_size(conv: &Conv, [height, width]: [usize; 2]) -> [usize; 2] {
    [height + 2 * conv.padding[0], width + 2 * conv.padding[1]]
}

/// Where the taps look in a plane of so many columns.
fn offsets(conv: &Conv, columns: usize) -> Vec<usize> {
    let of = |tap: usize| tap / conv.kernel[1] * conv.dilation[0] * columns + tap % conv.kernel[1] * conv.dilation[1];
    (0..conv.taps()).map(of).collect()
}

/// See [`super::forward`].
pub(super) fn forward(
    conv: &Conv,
    x: &[f32],
    [samples, height, width]: [usize; 3],
    weight: &[f32],
    bias: Option<&[f32]>,
    precision: Precision,
) -> Vec<f32> {
    let [out_height, out_width] = conv.output([height, width]);
    let (places, of_channel, taps) = (out_height * out_width, conv.filters / conv.channels, conv.taps());
    let size = padded_size(conv, [height, width]);
    let first = conv.padding.map(|padding| padding as isize);
    let (weight, offsets) = (rounded(weight, precision), offsets(conv, size[1]));
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let (cost, shared) = (y.len() * taps, Shared::new(y));
        threads::for_each(samples * conv.channels, cost, |plane| {
            // SAFETY: each task has a plane of its own, and the filters that see it.
            let out = unsafe { shared.slice(plane * of_channel * places, of_channel * places) };
            let first_filter = plane % conv.channels * of_channel;
            PADDED.with_borrow_mut(|padded| {
                vectorised(
                    #[inline(always)]
                    || {
                        let from = &x[plane * height * width..][..height * width];
                        padded.fill(from, width, size, first, [1, 1], precision);
                        for (i, out) in out.chunks_exact_mut(places).enumerate() {
                            let filter = first_filter + i;
                            let weight = &weight[filter * taps..][..taps];
                            let bias = bias.map_or(0.0, |bias| bias[filter]);
                            Taps { weight, offsets: &offsets, stride: conv.stride }.sums(padded, out_width, bias, out);
                        }
                    },
                );
            });
        });
    };
    // SAFETY: the tasks write the places of all planes.
    unsafe { fresh::written(samples * conv.filters * places, fill) }
}

/// See [`super::backward_input`]. The gradient is spread by the stride, and convolved with the kernel turned by half.
pub(super) fn backward_input(
    conv: &Conv,
    gradient: &[f32],
    [samples, height, width]: [usize; 3],
    weight: &[f32],
    precision: Precision,
) -> Vec<f32> {
    let [out_height, out_width] = conv.output([height, width]);
    let (places, of_channel, taps) = (out_height * out_width, conv.filters / conv.channels, conv.taps());
    let reach = |axis: usize| conv.dilation[axis] * (conv.kernel[axis] - 1);
    let size = [height + reach(0), width + reach(1)];
    let first = std::array::from_fn(|axis| reach(axis) as isize - conv.padding[axis] as isize);
    let offsets = offsets(conv, size[1]);
    let turned: Vec<f32> =
        rounded(weight, precision).chunks_exact(taps).flat_map(|filter| filter.iter().rev().copied()).collect();
    let fill = |x: &mut [MaybeUninit<f32>]| {
        let (cost, shared) = (x.len() * taps * of_channel, Shared::new(x));
        threads::for_each(samples * conv.channels, cost, |plane| {
            // SAFETY: each task has a plane of its own.
            let out = unsafe { shared.slice(plane * height * width, height * width) };
            let first_filter = plane % conv.channels * of_channel;
            PADDED.with_borrow_mut(|padded| {
                vectorised(
                    #[inline(always)]
                    || {
                        let mut more = vec![MaybeUninit::uninit(); if of_channel > 1 { out.len() } else { 0 }];
                        for i in 0..of_channel {
                            let from = &gradient[(plane * of_channel + i) * places..][..places];
                            padded.fill(from, out_width, size, first, conv.stride, precision);
                            let weight = &turned[(first_filter + i) * taps..][..taps];
                            let taps = Taps { weight, offsets: &offsets, stride: [1, 1] };
                            taps.sums(padded, width, 0.0, if i == 0 { &mut *out } else { &mut more });
                            if i > 0 {
                                for (out, more) in out.iter_mut().zip(&more) {
                                    // SAFETY: both are written by the sums.
                                    out.write(unsafe { out.assume_init_read() + more.assume_init() });
                                }
                            }
                        }
                    },
                );
            });
        });
    };
    // SAFETY: the tasks write the places of all planes.
    unsafe { fresh::written(samples * conv.channels * height * width, fill) }
}

/// See [`super::backward_weight`]. Sums of a plane are made in [`PARTS`] parts, and added in the order of the samples.
pub(super) fn backward_weight(
    conv: &Conv,
    x: &[f32],
    gradient: &[f32],
    [samples, height, width]: [usize; 3],
    (into, write): (&mut [f32], Write),
    precision: Precision,
) {
    let [out_height, out_width] = conv.output([height, width]);
    let (places, of_channel, taps) = (out_height * out_width, conv.filters / conv.channels, conv.taps());
    let size = padded_size(conv, [height, width]);
    let first = conv.padding.map(|padding| padding as isize);
    let offsets = offsets(conv, size[1]);
    let (cost, shared) = (gradient.len() * taps, Shared::new(into));
    threads::for_each(conv.channels, cost, |channel| {
        // SAFETY: each task has the filters of a channel of its own.
        let into = unsafe { shared.slice(channel * of_channel * taps, of_channel * taps) };
        PADDED.with_borrow_mut(|padded| {
            vectorised(
                #[inline(always)]
                || {
                    let mut sums = vec![0.0f32; of_channel * taps];
                    for n in 0..samples {
                        let plane = n * conv.channels + channel;
                        let from = &x[plane * height * width..][..height * width];
                        padded.fill(from, width, size, first, [1, 1], precision);
                        for i in 0..of_channel {
                            let gradient = &gradient[(plane * of_channel + i) * places..][..places];
                            for (sum, at) in sums[i * taps..][..taps].iter_mut().zip(&offsets) {
                                *sum += correlation(padded, *at, conv.stride, gradient, out_width, precision);
                            }
                        }
                    }
                    for (into, sum) in into.iter_mut().zip(sums) {
                        *into = match write {
                            Write::Overwrite => sum,
                            Write::Add => *into + sum,
                        };
                    }
                },
            );
        });
    });
}

/// The sum of the products of a gradient and what a tap sees.
#[inline(always)]
fn correlation(
    padded: &Padded,
    at: usize,
    stride: [usize; 2],
    gradient: &[f32],
    width: usize,
    precision: Precision,
) -> f32 {
    let mut parts = [0.0f32; PARTS];
    for (y, gradient) in gradient.chunks_exact(width).enumerate() {
        let row = &padded.values[at + y * stride[0] * padded.columns..];
        match (stride[1], precision) {
            (1, Precision::F32) => add::<1>(row, gradient, &mut parts),
            (2, Precision::F32) => add::<2>(row, gradient, &mut parts),
            (_, Precision::F32) => {
                for (x, gradient) in gradient.iter().enumerate() {
                    parts[x % PARTS] = gradient.mul_add(row[x * stride[1]], parts[x % PARTS]);
                }
            }
            (_, Precision::Bf16) => {
                for (x, gradient) in gradient.iter().enumerate() {
                    parts[x % PARTS] = bf16::rounded(*gradient).mul_add(row[x * stride[1]], parts[x % PARTS]);
                }
            }
        }
    }
    parts.iter().sum()
}

#[inline(always)]
fn add<const S: usize>(row: &[f32], gradient: &[f32], parts: &mut [f32; PARTS]) {
    let (groups, rest) = gradient.as_chunks::<PARTS>();
    for (i, group) in groups.iter().enumerate() {
        let row = &row[i * PARTS * S..][..(PARTS - 1) * S + 1];
        for lane in 0..PARTS {
            parts[lane] = group[lane].mul_add(row[lane * S], parts[lane]);
        }
    }
    let begin = groups.len() * PARTS;
    for (lane, gradient) in rest.iter().enumerate() {
        parts[lane] = gradient.mul_add(row[(begin + lane) * S], parts[lane]);
    }
}
