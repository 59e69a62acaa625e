use proptest::prelude::*;

use super::*;

fn values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Calls `visit` with the numbers of every output, input and weight that are multiplied: the definition.
fn visit(conv: &Conv, [samples, height, width]: [usize; 3], mut visit: impl FnMut(usize, usize, usize)) {
    let [out_height, out_width] = conv.output([height, width]);
    let (planes, filters) = (conv.channels / conv.groups, conv.filters / conv.groups);
    for n in 0..samples {
        for f in 0..conv.filters {
            for (oy, ox) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
                let out = ((n * conv.filters + f) * out_height + oy) * out_width + ox;
                for (c, ky) in (0..planes).flat_map(|c| (0..conv.kernel[0]).map(move |y| (c, y))) {
                    for kx in 0..conv.kernel[1] {
                        let y = (oy * conv.stride[0] + ky * conv.dilation[0]).checked_sub(conv.padding[0]);
                        let x = (ox * conv.stride[1] + kx * conv.dilation[1]).checked_sub(conv.padding[1]);
                        let (Some(y), Some(x)) = (y.filter(|y| *y < height), x.filter(|x| *x < width)) else {
                            continue;
                        };
                        let channel = f / filters * planes + c;
                        let input = ((n * conv.channels + channel) * height + y) * width + x;
                        visit(out, input, ((f * planes + c) * conv.kernel[0] + ky) * conv.kernel[1] + kx);
                    }
                }
            }
        }
    }
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() <= tolerance * largest, "{what}, {i}: {found}, not {expected}");
    }
}

fn check(conv: &Conv, sizes: [usize; 3], precision: Precision) {
    let tolerance = if precision == Precision::F32 { 2e-6 } else { 2e-2 };
    let [samples, height, width] = sizes;
    let places: usize = conv.output([height, width]).iter().product();
    let x = values(1, samples * conv.channels * height * width);
    let (weight, bias) = (values(2, conv.weight_len()), values(3, conv.filters));
    let gradient = values(4, samples * conv.filters * places);

    let (wide_x, wide_weight, wide_gradient) = (wide(&x), wide(&weight), wide(&gradient));
    let mut y: Vec<f64> = (0..gradient.len()).map(|i| f64::from(bias[i / places % conv.filters])).collect();
    let mut of_x = vec![0.0f64; x.len()];
    let mut of_weight = vec![0.0f64; weight.len()];
    visit(conv, sizes, |out, input, tap| {
        y[out] += wide_x[input] * wide_weight[tap];
        of_x[input] += wide_gradient[out] * wide_weight[tap];
        of_weight[tap] += wide_gradient[out] * wide_x[input];
    });
    let mut of_bias = vec![0.0f64; conv.filters];
    wide_gradient.iter().enumerate().for_each(|(i, g)| of_bias[i / places % conv.filters] += g);

    let what = format!("{conv:?} {sizes:?}");
    close(&forward(conv, &x, sizes, &weight, Some(&bias), precision), &y, tolerance, &format!("forward {what}"));
    let found = backward_input(conv, &gradient, sizes, &weight, precision);
    close(&found, &of_x, tolerance, &format!("input {what}"));
    let mut found = vec![f32::NAN; weight.len()];
    backward_weight(conv, &x, &gradient, sizes, (&mut found, Write::Overwrite), precision);
    close(&found, &of_weight, tolerance, &format!("weight {what}"));
    let mut more = weight.clone();
    backward_weight(conv, &x, &gradient, sizes, (&mut more, Write::Add), precision);
    let sums: Vec<f32> = weight.iter().zip(&found).map(|(a, b)| a + b).collect();
    assert_eq!(more, sums, "added, {what}");
    let mut found = bias.clone();
    backward_bias(&gradient, [samples, conv.filters, places], (&mut found, Write::Overwrite));
    close(&found, &of_bias, 2e-6, &format!("bias {what}"));
    backward_bias(&gradient, [samples, conv.filters, places], (&mut found, Write::Add));
    let twice: Vec<f64> = of_bias.iter().map(|v| v * 2.0).collect();
    close(&found, &twice, 2e-6, &format!("bias twice {what}"));
}

const PLAIN: Conv =
    Conv { channels: 3, filters: 5, kernel: [3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_shape_agrees_with_the_definition(
        groups in 1usize..4, planes in 1usize..5, filters in 1usize..9,
        kernel in [1usize..5, 1usize..5], stride in [1usize..4, 1usize..4], padding in [0usize..4, 0usize..4],
        dilation in [1usize..3, 1usize..3], samples in 1usize..4, more in [0usize..20, 0usize..40],
    ) {
        let conv = Conv { channels: planes * groups, filters: filters * groups, kernel, stride, padding, dilation, groups };
        // At least one value, and as many as the kernel needs.
        let size: [usize; 2] = std::array::from_fn(|axis| {
            let reach = dilation[axis] * (kernel[axis] - 1) + 1;
            reach.saturating_sub(2 * padding[axis]).max(1) + more[axis]
        });
        check(&conv, [samples, size[0], size[1]], Precision::F32);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn transformed_tiles_agree_with_the_definition(
        groups in 1usize..3, planes in 16usize..40, filters in 16usize..40, padding in [0usize..3, 0usize..3],
        samples in 1usize..4, size in [3usize..20, 3usize..40],
    ) {
        let conv = Conv { channels: planes * groups, filters: filters * groups, padding, groups, ..PLAIN };
        prop_assert!(winograd::pays(&conv, Precision::F32));
        check(&conv, [samples, size[0], size[1]], Precision::F32);
    }
}

/// That images of every size, kernels of more than one block and sums of several pieces go the right way.
#[test]
fn large_transformed_tiles_agree_with_the_definition() {
    for (conv, sizes) in [
        (Conv { channels: 300, filters: 20, ..PLAIN }, [2, 7, 9]),
        (Conv { channels: 20, filters: 150, ..PLAIN }, [3, 5, 40]),
        (Conv { channels: 16, filters: 16, ..PLAIN }, [5, 47, 49]),
        (Conv { channels: 16, filters: 17, padding: [0, 2], ..PLAIN }, [1, 3, 1200]),
        (Conv { channels: 16, filters: 16, ..PLAIN }, [3, 1, 1]),
    ] {
        assert!(winograd::pays(&conv, Precision::F32));
        check(&conv, sizes, Precision::F32);
    }
}

#[test]
fn the_shapes_of_networks_agree_with_the_definition() {
    for (conv, sizes) in [
        (PLAIN, [2, 33, 65]),
        (Conv { channels: 33, filters: 70, ..PLAIN }, [2, 17, 32]),
        (Conv { channels: 64, filters: 17, ..PLAIN }, [5, 8, 8]),
        (Conv { channels: 33, filters: 7, ..PLAIN }, [3, 7, 7]),
        (Conv { channels: 40, filters: 7, ..PLAIN }, [20, 4, 4]),
        (Conv { channels: 40, filters: 9, ..PLAIN }, [9, 1, 1]),
        (Conv { channels: 20, filters: 33, stride: [2, 2], ..PLAIN }, [2, 32, 31]),
        (Conv { channels: 300, filters: 20, kernel: [1, 1], padding: [0, 0], ..PLAIN }, [3, 7, 7]),
        (Conv { channels: 33, filters: 20, kernel: [1, 1], padding: [0, 0], stride: [2, 2], ..PLAIN }, [2, 16, 17]),
        (Conv { kernel: [7, 7], padding: [3, 3], stride: [2, 2], ..PLAIN }, [2, 33, 64]),
        (Conv { kernel: [4, 4], padding: [0, 0], stride: [4, 4], ..PLAIN }, [2, 33, 64]),
        (Conv { channels: 7, filters: 7, groups: 7, ..PLAIN }, [2, 33, 70]),
        (Conv { channels: 7, filters: 14, groups: 7, stride: [2, 2], ..PLAIN }, [2, 33, 70]),
        (Conv { channels: 6, filters: 4, groups: 2, ..PLAIN }, [3, 17, 1]),
        (Conv { channels: 1, filters: 1, ..PLAIN }, [1, 1, 1]),
    ] {
        check(&conv, sizes, Precision::F32);
    }
}

#[test]
fn products_in_bf16_are_near() {
    check(&Conv { channels: 40, filters: 20, ..PLAIN }, [2, 17, 16], Precision::Bf16);
    check(&Conv { channels: 5, filters: 5, groups: 5, ..PLAIN }, [2, 17, 16], Precision::Bf16);
}

/// That the sums are those of products of matrices, to the bit.
#[test]
fn a_kernel_of_one_tap_is_a_product() {
    use crate::gemm::{Matrix, MatrixMut, Start, multiply};
    let conv = Conv { channels: 300, filters: 33, kernel: [1, 1], padding: [0, 0], ..PLAIN };
    let (x, weight) = (values(1, 300 * 35), values(2, 300 * 33));
    let mut expected = vec![0.0; 33 * 35];
    let (left, right) = (Matrix::dense(&weight, 300), Matrix::dense(&x, 35));
    multiply(MatrixMut::dense(&mut expected, 35), Start::Zero, left, right, Precision::F32);
    assert_eq!(forward(&conv, &x, [1, 5, 7], &weight, None, Precision::F32), expected);
}

#[test]
fn threads_do_not_change_a_bit() {
    for (conv, sizes) in [
        (Conv { channels: 33, filters: 40, ..PLAIN }, [5, 17, 33]),
        (Conv { channels: 33, filters: 40, stride: [2, 2], ..PLAIN }, [5, 17, 33]),
        (PLAIN, [40, 33, 33]),
        (Conv { channels: 12, filters: 24, groups: 12, ..PLAIN }, [3, 33, 33]),
        (Conv { channels: 33, filters: 150, kernel: [3, 1], padding: [1, 0], ..PLAIN }, [3, 17, 33]),
    ] {
        let [samples, height, width] = sizes;
        let places: usize = conv.output([height, width]).iter().product();
        let x = values(1, samples * conv.channels * height * width);
        let weight = values(2, conv.weight_len());
        let gradient = values(4, samples * conv.filters * places);
        let run = || {
            let mut of_weight = vec![0.0; weight.len()];
            let into = (&mut of_weight[..], Write::Overwrite);
            backward_weight(&conv, &x, &gradient, sizes, into, Precision::F32);
            let mut of_bias = vec![0.0; conv.filters];
            backward_bias(&gradient, [samples, conv.filters, places], (&mut of_bias, Write::Overwrite));
            let y = forward(&conv, &x, sizes, &weight, None, Precision::F32);
            (y, backward_input(&conv, &gradient, sizes, &weight, Precision::F32), of_weight, of_bias)
        };
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(run);
        for threads in [2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(run) == alone, "{threads} threads, {conv:?}");
        }
    }
}

#[test]
#[should_panic(expected = "no larger than the padded input")]
fn a_kernel_must_fit() {
    let _ = Conv { kernel: [5, 5], ..PLAIN }.output([2, 9]);
}
