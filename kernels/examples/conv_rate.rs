//! How fast images are convolved: `cargo run --release -p kernels --example conv_rate -- [THREADS]`. Milliseconds, the fastest of
//! several runs, since the machine may be busy: forward, gradient of the input, gradient of the weight.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::time::Instant;

use kernels::conv::{self, Conv};
use kernels::fresh::Write;
use kernels::gemm::Precision;

/// Channels, filters, kernel, stride, height and width, groups; padded to the same size.
const SHAPES: [[usize; 6]; 7] = [
    [3, 64, 3, 1, 64, 1],
    [64, 64, 3, 1, 64, 1],
    [64, 128, 3, 2, 64, 1],
    [128, 128, 3, 1, 32, 1],
    [64, 128, 1, 2, 64, 1],
    [512, 512, 3, 1, 8, 1],
    [64, 64, 3, 1, 64, 64],
];

/// Images.
const SAMPLES: usize = 16;

fn main() -> Result<(), String> {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    kernels::threads::set_threads(threads)?;
    println!("{threads} thread(s), {}, milliseconds (GFLOP/s): forward, input, weight", kernels::simd::name());
    for shape in SHAPES {
        kernels::threads::inside(|| measure(shape));
    }
    Ok(())
}

fn measure(shape @ [channels, filters, kernel, stride, size, groups]: [usize; 6]) {
    let pair = |value: usize| [value, value];
    let conv = Conv {
        channels,
        filters,
        kernel: pair(kernel),
        stride: pair(stride),
        padding: pair(kernel / 2),
        dilation: pair(1),
        groups,
    };
    let places: usize = conv.output(pair(size)).iter().product();
    let values =
        |len: usize, step: usize| (0..len).map(|i| (i * step % 1013) as f32 / 1013.0 - 0.5).collect::<Vec<_>>();
    let x = values(SAMPLES * channels * size * size, 7919);
    let gradient = values(SAMPLES * filters * places, 7907);
    let weight = values(conv.weight_len(), 7901);
    let mut of_weight = vec![0.0; weight.len()];
    let sizes = [SAMPLES, size, size];
    let operations = 2e-9 * (SAMPLES * places * conv.weight_len()) as f64;
    let mut fastest = [f64::MAX; 3];
    for _ in 0..(8.0 / operations).clamp(3.0, 20.0) as usize {
        for (way, fastest) in fastest.iter_mut().enumerate() {
            let begin = Instant::now();
            match way {
                0 => drop(conv::forward(&conv, &x, sizes, &weight, None, Precision::F32)),
                1 => drop(conv::backward_input(&conv, &gradient, sizes, &weight, Precision::F32)),
                _ => {
                    let into = (&mut of_weight[..], Write::Overwrite);
                    conv::backward_weight(&conv, &x, &gradient, sizes, into, Precision::F32);
                }
            }
            *fastest = fastest.min(begin.elapsed().as_secs_f64());
        }
    }
    let [forward, input, of_weight] =
        fastest.map(|seconds| format!("{:7.2} ({:4.0})", 1e3 * seconds, operations / seconds));
    println!("{:28} {forward} {input} {of_weight}", format!("{shape:?}"));
}
