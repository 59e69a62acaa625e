//! Pooling of planes, as PyTorch's `MaxPool2d` and `AvgPool2d` define it.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::fresh;
use crate::math;
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// The sizes of windows; pairs are vertical, horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Size of a window.
    pub kernel: [usize; 2],
    /// From a window to the next one.
    pub stride: [usize; 2],
    /// Places around the input, on each side, that hold nothing; at most half of the kernel.
    pub padding: [usize; 2],
}

/// What the sum of a window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// The size of the kernel: padding counts as zeros (`count_include_pad`).
    Kernel,
    /// The number of values in the window: padding does not count.
    Values,
}

/// Windows that are worked on side by side.
const LANES: usize = 16;

impl Pool {
    /// Height and width of the output, of those of the input: `(size + 2 padding - kernel) / stride + 1`.
    ///
    /// # Panics
    /// If the kernel is larger than the padded input, or the padding larger than half of the kernel.
    pub fn output(&self, size: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let (kernel, padding) = (self.kernel[axis], self.padding[axis]);
            assert!(kernel > 0 && self.stride[axis] > 0, "kernel and stride are at least 1");
            assert!(2 * padding <= kernel, "padding is at most half of the kernel");
            assert!(size[axis] + 2 * padding >= kernel, "the kernel is no larger than the padded input");
            (size[axis] + 2 * padding - kernel) / self.stride[axis] + 1
        })
    }

    /// The values of an axis of `size` that window `at` holds.
    #[inline(always)]
    fn window(&self, axis: usize, at: usize, size: usize) -> Range<usize> {
        let end = at * self.stride[axis] + self.kernel[axis];
        (at * self.stride[axis]).saturating_sub(self.padding[axis])..(end - self.padding[axis]).min(size)
    }

    /// The windows of a row of `width` values that are whole, of `windows`.
    #[inline(always)]
    fn whole(&self, width: usize, windows: usize) -> Range<usize> {
        let first = self.padding[1].div_ceil(self.stride[1]).min(windows);
        let end = (width + self.padding[1]).checked_sub(self.kernel[1]).map_or(0, |last| last / self.stride[1] + 1);
        first..end.clamp(first, windows)
    }

    /// Calls `lanes` with the first of [`LANES`] whole windows of a row, and `single` with each of the others.
    #[inline(always)]
    fn for_each_window(
        &self,
        width: usize,
        windows: usize,
        mut lanes: impl FnMut(usize),
        mut single: impl FnMut(usize),
    ) {
        let whole = if self.stride[1] <= 2 { self.whole(width, windows) } else { 0..0 };
        let grouped = whole.start..whole.start + whole.len() / LANES * LANES;
        (0..grouped.start).for_each(&mut single);
        grouped.clone().step_by(LANES).for_each(&mut lanes);
        (grouped.end..windows).for_each(&mut single);
    }
}

/// The largest value of each window of `x` `[planes, height, width]`, and where in its plane it is: the first one in row-major
/// order. Not a number wins.
///
/// # Panics
/// If sizes do not fit.
pub fn max_pool2d(pool: &Pool, x: &[f32], [planes, height, width]: [usize; 3]) -> (Vec<f32>, Vec<u32>) {
    let [out_height, out_width] = pool.output([height, width]);
    assert_eq!(x.len(), planes * height * width, "an input is [planes, height, width]");
    assert!(u32::try_from(height * width).is_ok(), "a plane is small enough for its places to be numbered");
    let places = out_height * out_width;
    let mut found = vec![0u32; planes * places];
    let indices = Shared::new(&mut found);
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let y = Shared::new(y);
        threads::for_each(planes, x.len(), |plane| {
            // SAFETY: each task has a plane of its own.
            let (y, indices) = unsafe { (y.slice(plane * places, places), indices.slice(plane * places, places)) };
            let x = &x[plane * height * width..][..height * width];
            vectorised(
                #[inline(always)]
                || {
                    let rows = y.chunks_exact_mut(out_width).zip(indices.chunks_exact_mut(out_width));
                    for (row, (y, indices)) in rows.enumerate() {
                        let window = pool.window(0, row, height);
                        if pool.stride[1] == 1 {
                            max_row::<1>(pool, x, width, window, y, indices);
                        } else {
                            max_row::<2>(pool, x, width, window, y, indices);
                        }
                    }
                },
            );
        });
    };
    // SAFETY: the tasks write all planes.
    let y = unsafe { fresh::written(planes * places, fill) };
    (y, found)
}

/// A row of windows, `S` apart where they are whole.
#[inline(always)]
fn max_row<const S: usize>(
    pool: &Pool,
    x: &[f32],
    width: usize,
    rows: Range<usize>,
    y: &mut [MaybeUninit<f32>],
    indices: &mut [u32],
) {
    let out = std::cell::RefCell::new((y, indices));
    let windows = out.borrow().0.len();
    pool.for_each_window(
        width,
        windows,
        #[inline(always)]
        |window| {
            let first = window * S - pool.padding[1];
            let mut best = [f32::NEG_INFINITY; LANES];
            let mut at: [u32; LANES] = std::array::from_fn(|lane| (rows.start * width + first + lane * S) as u32);
            for row in rows.clone() {
                for column in first..first + pool.kernel[1] {
                    let begin = row * width + column;
                    let from = &x[begin..][..(LANES - 1) * S + 1];
                    for lane in 0..LANES {
                        let value = from[lane * S];
                        let wins = value > best[lane] || value.is_nan();
                        best[lane] = if wins { value } else { best[lane] };
                        at[lane] = if wins { (begin + lane * S) as u32 } else { at[lane] };
                    }
                }
            }
            let (y, indices) = &mut *out.borrow_mut();
            y[window..][..LANES].iter_mut().zip(best).for_each(|(y, best)| _ = y.write(best));
            indices[window..][..LANES].copy_from_slice(&at);
        },
        #[inline(always)]
        |window| {
            let columns = pool.window(1, window, width);
            let (mut best, mut at) = (f32::NEG_INFINITY, rows.start * width + columns.start);
            for row in rows.clone() {
                for column in columns.clone() {
                    let value = x[row * width + column];
                    if value > best || value.is_nan() {
                        (best, at) = (value, row * width + column);
                    }
                }
            }
            let (y, indices) = &mut *out.borrow_mut();
            y[window].write(best);
            indices[window] = at as u32;
        },
    );
}

/// The gradient of the input of [`max_pool2d`], whose planes have `size` values, of that of its result and the places that
/// were found.
///
/// # Panics
/// If sizes do not fit.
pub fn max_pool2d_backward(gradient: &[f32], indices: &[u32], planes: usize, size: usize) -> Vec<f32> {
    assert_eq!(gradient.len(), indices.len(), "each value has a place");
    let places = gradient.len() / planes.max(1);
    assert_eq!(gradient.len(), planes * places, "a gradient is [planes, places]");
    by_plane(planes, size, |plane, x| {
        let all = plane * places..(plane + 1) * places;
        for (gradient, at) in gradient[all.clone()].iter().zip(&indices[all]) {
            x[*at as usize] += gradient;
        }
    })
}

/// Planes of zeros, to each of which `add` adds.
fn by_plane(planes: usize, size: usize, add: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let fill = |x: &mut [MaybeUninit<f32>]| {
        let (cost, shared) = (x.len(), Shared::new(x));
        threads::for_each(planes, cost, |plane| {
            // SAFETY: each task has a plane of its own.
            let x = unsafe { shared.slice(plane * size, size) };
            x.fill(MaybeUninit::new(0.0));
            // SAFETY: it has just been written.
            let x = unsafe { x.assume_init_mut() };
            vectorised(
                #[inline(always)]
                || add(plane, x),
            );
        });
    };
    // SAFETY: the tasks write all planes.
    unsafe { fresh::written(planes * size, fill) }
}

/// The mean of each window of `x` `[planes, height, width]`.
///
/// # Panics
/// If sizes do not fit.
pub fn avg_pool2d(pool: &Pool, x: &[f32], [planes, height, width]: [usize; 3], divisor: Divisor) -> Vec<f32> {
    let [out_height, out_width] = pool.output([height, width]);
    assert_eq!(x.len(), planes * height * width, "an input is [planes, height, width]");
    let places = out_height * out_width;
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let shared = Shared::new(y);
        threads::for_each(planes, x.len(), |plane| {
            // SAFETY: each task has a plane of its own.
            let y = unsafe { shared.slice(plane * places, places) };
            let x = &x[plane * height * width..][..height * width];
            vectorised(
                #[inline(always)]
                || {
                    for (row, y) in y.chunks_exact_mut(out_width).enumerate() {
                        let window = pool.window(0, row, height);
                        if pool.stride[1] == 1 {
                            mean_row::<1>(pool, x, width, window, y, divisor);
                        } else {
                            mean_row::<2>(pool, x, width, window, y, divisor);
                        }
                    }
                },
            );
        });
    };
    // SAFETY: the tasks write all planes.
    unsafe { fresh::written(planes * places, fill) }
}

/// What a window's sum is multiplied by.
#[inline(always)]
fn share(pool: &Pool, rows: &Range<usize>, columns: &Range<usize>, divisor: Divisor) -> f32 {
    let count = match divisor {
        Divisor::Kernel => pool.kernel[0] * pool.kernel[1],
        Divisor::Values => rows.len() * columns.len(),
    };
    1.0 / count as f32
}

/// A row of windows, `S` apart where they are whole.
#[inline(always)]
fn mean_row<const S: usize>(
    pool: &Pool,
    x: &[f32],
    width: usize,
    rows: Range<usize>,
    y: &mut [MaybeUninit<f32>],
    divisor: Divisor,
) {
    let windows = y.len();
    let out = std::cell::RefCell::new(y);
    pool.for_each_window(
        width,
        windows,
        #[inline(always)]
        |window| {
            let first = window * S - pool.padding[1];
            let mut sums = [0.0f32; LANES];
            for row in rows.clone() {
                for column in first..first + pool.kernel[1] {
                    let from = &x[row * width + column..][..(LANES - 1) * S + 1];
                    for lane in 0..LANES {
                        sums[lane] += from[lane * S];
                    }
                }
            }
            let share = share(pool, &rows, &(first..first + pool.kernel[1]), divisor);
            out.borrow_mut()[window..][..LANES].iter_mut().zip(sums).for_each(|(y, sum)| _ = y.write(sum * share));
        },
        #[inline(always)]
        |window| {
            let columns = pool.window(1, window, width);
            let mut sum = 0.0f32;
            for row in rows.clone() {
                x[row * width..][columns.clone()].iter().for_each(|value| sum += value);
            }
            out.borrow_mut()[window].write(sum * share(pool, &rows, &columns, divisor));
        },
    );
}

/// The gradient of the input of [`avg_pool2d`], `[planes, height, width]`, of that of its result.
///
/// # Panics
/// If sizes do not fit.
pub fn avg_pool2d_backward(
    pool: &Pool,
    gradient: &[f32],
    [planes, height, width]: [usize; 3],
    divisor: Divisor,
) -> Vec<f32> {
    let [out_height, out_width] = pool.output([height, width]);
    let places = out_height * out_width;
    assert_eq!(gradient.len(), planes * places, "a gradient is [planes, places]");
    by_plane(
        planes,
        height * width,
        #[inline(always)]
        |plane, x| {
            let gradient = &gradient[plane * places..][..places];
            for (at, gradient) in gradient.iter().enumerate() {
                let rows = pool.window(0, at / out_width, height);
                let columns = pool.window(1, at % out_width, width);
                let value = gradient * share(pool, &rows, &columns, divisor);
                for row in rows {
                    x[row * width..][columns.clone()].iter_mut().for_each(|x| *x += value);
                }
            }
        },
    )
}

/// The mean of each plane of `x` `[planes, size]`.
///
/// # Panics
/// If sizes do not fit.
pub fn global_avg_pool(x: &[f32], planes: usize, size: usize) -> Vec<f32> {
    assert!(x.len() == planes * size && size > 0, "an input is [planes, size]");
    let mut means = vec![0.0; planes];
    threads::for_each_mut(&mut means, x.len(), |plane, mean| {
        vectorised(
            #[inline(always)]
            || *mean = math::sum(&x[plane * size..][..size]) / size as f32,
        );
    });
    means
}

/// The gradient of the input of [`global_avg_pool`], `[planes, size]`, of that of its result.
pub fn global_avg_pool_backward(gradient: &[f32], size: usize) -> Vec<f32> {
    let fill = |x: &mut [MaybeUninit<f32>]| {
        threads::pieces(x, size.max(1), |plane, x| x.fill(MaybeUninit::new(gradient[plane] / size as f32)));
    };
    // SAFETY: the pieces are all there is.
    unsafe { fresh::written(gradient.len() * size, fill) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Calls `visit` with the output, and the number and place in its plane of every value of its window: the definition.
    fn visit(pool: &Pool, [planes, height, width]: [usize; 3], mut visit: impl FnMut(usize, usize, usize)) {
        let [out_height, out_width] = pool.output([height, width]);
        for out in 0..planes * out_height * out_width {
            let (plane, y, x) = (out / out_width / out_height, out / out_width % out_height, out % out_width);
            for (ky, kx) in (0..pool.kernel[0]).flat_map(|ky| (0..pool.kernel[1]).map(move |kx| (ky, kx))) {
                let y = (y * pool.stride[0] + ky).checked_sub(pool.padding[0]).filter(|y| *y < height);
                let x = (x * pool.stride[1] + kx).checked_sub(pool.padding[1]).filter(|x| *x < width);
                if let (Some(y), Some(x)) = (y, x) {
                    visit(out, plane * height * width, y * width + x);
                }
            }
        }
    }

    fn check(pool: &Pool, sizes @ [planes, height, width]: [usize; 3]) {
        let places: usize = pool.output([height, width]).iter().product();
        // Few different values, so that there are ties.
        let x: Vec<f32> = (0..planes * height * width).map(|i| (i * 7919 % 1013 % 11) as f32 - 8.5).collect();
        let gradient: Vec<f32> = (0..planes * places).map(|i| (i * 7907 % 1013) as f32 / 512.0 - 1.0).collect();
        let (mut y, mut at) = (vec![f32::NEG_INFINITY; gradient.len()], vec![0u32; gradient.len()]);
        let (mut sums, mut counts) = (vec![0.0f64; gradient.len()], vec![0usize; gradient.len()]);
        visit(pool, sizes, |out, plane, place| {
            let value = x[plane + place];
            if value > y[out] {
                (y[out], at[out]) = (value, place as u32);
            }
            sums[out] += f64::from(value);
            counts[out] += 1;
        });
        assert_eq!(max_pool2d(pool, &x, sizes), (y, at.clone()), "{pool:?} {sizes:?}");
        let mut expected = vec![0.0f32; x.len()];
        for (i, gradient) in gradient.iter().enumerate() {
            expected[i / places * height * width + at[i] as usize] += gradient;
        }
        assert_eq!(max_pool2d_backward(&gradient, &at, planes, height * width), expected);

        for divisor in [Divisor::Kernel, Divisor::Values] {
            let by = |out: usize| match divisor {
                Divisor::Kernel => (pool.kernel[0] * pool.kernel[1]) as f64,
                Divisor::Values => counts[out] as f64,
            };
            let mut expected = vec![0.0f64; x.len()];
            visit(pool, sizes, |out, plane, place| expected[plane + place] += f64::from(gradient[out]) / by(out));
            let means: Vec<f64> = sums.iter().enumerate().map(|(out, sum)| sum / by(out)).collect();
            close(&avg_pool2d(pool, &x, sizes, divisor), &means);
            close(&avg_pool2d_backward(pool, &gradient, sizes, divisor), &expected);
        }
    }

    #[track_caller]
    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let largest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() <= 1e-6 * largest, "{found}, not {expected}");
        }
    }

    proptest! {
        #[test]
        fn every_shape_agrees_with_the_definition(
            kernel in [1usize..6, 1usize..6], stride in [1usize..4, 1usize..4], padding in [0usize..3, 0usize..3],
            more in [0usize..10, 0usize..70], planes in 1usize..4,
        ) {
            let padding = std::array::from_fn(|axis| padding[axis].min(kernel[axis] / 2));
            let pool = Pool { kernel, stride, padding };
            let size: [usize; 2] = std::array::from_fn(|a| (kernel[a] - 2 * padding[a]).max(1) + more[a]);
            check(&pool, [planes, size[0], size[1]]);
        }
    }

    #[test]
    fn the_mean_of_planes_agrees_with_the_definition() {
        for (planes, size) in [(1, 1), (3, 7), (5, 33), (2, 4096)] {
            let x: Vec<f32> = (0..planes * size).map(|i| (i * 7919 % 1013) as f32 / 512.0).collect();
            let mean = |x: &[f32]| x.iter().map(|v| f64::from(*v)).sum::<f64>() / size as f64;
            close(&global_avg_pool(&x, planes, size), &x.chunks(size).map(mean).collect::<Vec<_>>());
            let gradient: Vec<f32> = (0..planes).map(|i| i as f32 - 1.5).collect();
            let expected: Vec<f64> = (0..x.len()).map(|i| f64::from(gradient[i / size]) / size as f64).collect();
            close(&global_avg_pool_backward(&gradient, size), &expected);
        }
    }

    #[test]
    fn not_a_number_is_the_largest() {
        let pool = Pool { kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
        let (y, at) = max_pool2d(&pool, &[9.0, f32::NAN, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1, 2, 4]);
        assert!(y[0].is_nan() && y[1] == 6.0);
        assert_eq!(at, [1, 7]);
    }

    #[test]
    #[should_panic(expected = "at most half of the kernel")]
    fn a_window_must_hold_something() {
        let _ = Pool { kernel: [2, 2], stride: [1, 1], padding: [2, 0] }.output([4, 4]);
    }
}
