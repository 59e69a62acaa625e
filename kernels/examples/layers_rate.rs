//! How fast the layers between products are: `cargo run --release -p kernels --example layers_rate -- [THREADS]`.
//!
//! Nanoseconds a value, and for those that memory bounds, how many GB a second they read and write. The fastest of several runs is
//! printed, since the machine may be busy.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::time::Instant;

use kernels::activation::{self, Activation};
use kernels::fresh::Write;
use kernels::optimizer::{AdamW, AdamWTensor, adamw};
use kernels::{cross_entropy, norm, threads};

fn main() -> Result<(), String> {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    threads::set_threads(count)?;
    println!("{count} thread(s), {}, nanoseconds a value; GB/s", kernels::simd::name());
    threads::inside(|| {
        activations();
        layer_norm();
        loss();
        adam();
    });
    Ok(())
}

/// Runs `work` on what `prepare` makes, `runs` times; prints the fastest run, which touches so many bytes of each value.
fn measure<T>(name: &str, runs: usize, [values, bytes]: [usize; 2], prepare: impl Fn() -> T, mut work: impl FnMut(T)) {
    let mut fastest = f64::MAX;
    for _ in 0..runs {
        let input = prepare();
        let begin = Instant::now();
        work(input);
        fastest = fastest.min(begin.elapsed().as_secs_f64());
    }
    let each = fastest / values as f64;
    println!("{name:24} {:7.3} {:7.1}", 1e9 * each, 1e-9 * bytes as f64 / each);
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1013) as f32 / 202.6 - 2.5).collect()
}

fn activations() {
    let x = values(1576 * 768);
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh, Activation::Relu] {
        let size = [x.len(), 8];
        measure(&format!("{kind:?}"), 50, size, || (), |()| drop(activation::forward(kind, &x)));
        let size = [x.len(), 12];
        measure(&format!("{kind:?}, backward"), 50, size, || x.clone(), |g| drop(activation::backward(kind, &x, g)));
    }
}

fn layer_norm() {
    const WIDTH: usize = 768;
    let (x, gain, bias) = (values(1024 * WIDTH), values(WIDTH), values(WIDTH));
    measure("layer norm", 50, [x.len(), 8], || (), |()| drop(norm::layer_norm(&x, WIDTH, &gain, &bias, 1e-5)));
    let made = norm::layer_norm(&x, WIDTH, &gain, &bias, 1e-5);
    let (mut of_gain, mut of_bias) = (vec![0.0; WIDTH], vec![0.0; WIDTH]);
    measure(
        "layer norm, backward",
        50,
        [x.len(), 12],
        || (),
        |()| {
            let of_gain = Some((&mut of_gain[..], Write::Overwrite));
            let of_bias = Some((&mut of_bias[..], Write::Overwrite));
            drop(norm::layer_norm_backward(&x, WIDTH, &gain, (&made.mean, &made.inverse), &x, None, of_gain, of_bias));
        },
    );
}

fn loss() {
    const CLASSES: usize = 50_257;
    let logits = values(128 * CLASSES);
    let labels: Vec<u32> = (0..128).map(|i| i * 391).collect();
    measure(
        "cross-entropy",
        8,
        [logits.len(), 8],
        || logits.clone(),
        |logits| {
            let _ = cross_entropy::forward_backward(logits, CLASSES, &labels, None, 0.0, 1.0);
        },
    );
    measure(
        "cross-entropy, score",
        8,
        [logits.len(), 4],
        || (),
        |()| {
            let _ = cross_entropy::score(&logits, CLASSES, &labels, None);
        },
    );
}

fn adam() {
    const WEIGHTS: usize = 124_000_000;
    let gradient = values(WEIGHTS);
    let (mut weights, mut mean, mut square) = (gradient.clone(), vec![0.0; WEIGHTS], vec![0.0; WEIGHTS]);
    let rule = AdamW {
        gradient_scale: 0.5,
        mean_weight: 0.1,
        square_keep: 0.999,
        square_take: 0.001,
        eps: 1e-8,
        step: 1e-3,
        inverse_root: 1.0,
        shrink: 0.999,
    };
    let update = |()| {
        let [weights, mean, square] = [&mut weights, &mut mean, &mut square].map(Vec::as_mut_slice);
        adamw([AdamWTensor { weights, mean, square, gradient: &gradient, rule }]);
    };
    measure("AdamW", 5, [WEIGHTS, 28], || (), update);
}
