//! How fast attention is: `cargo run --release -p kernels --example attention_rate -- [THREADS]`.
//!
//! The shapes are those of ViT-Ti/16 with 8 images, GPT-2 with 512 tokens, BERT-base with 8 x 128, and
//! two with few tokens, the first of them that of the example job on digits. Counted are `4 * queries *
//! keys * head_dim` operations a head forward and `10 * ..` backward, half of them if the mask is causal. The fastest of many runs
//! is printed, since the machine may be busy.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::mem::MaybeUninit;
use std::time::Instant;

use kernels::attention::{Gradients, Heads, HeadsMut, Mask, Sizes, backward, forward};
use kernels::gemm::Precision;

/// Name; samples, tokens, heads, values of a head; whether the mask is causal.
type Shape = (&'static str, [usize; 4], bool);

const SHAPES: [Shape; 8] = [
    ("ViT-Ti", [8, 197, 3, 64], false),
    ("GPT-2, causal", [1, 512, 12, 64], true),
    ("GPT-2, everything", [1, 512, 12, 64], false),
    ("BERT", [8, 128, 12, 64], false),
    ("heads of 32", [8, 197, 6, 32], false),
    ("heads of 16", [8, 65, 12, 16], false),
    ("5 tokens of 16", [16, 5, 4, 16], false),
    ("8 tokens of 64", [16, 8, 4, 64], false),
];

fn main() -> Result<(), String> {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    kernels::threads::set_threads(threads)?;
    println!("{threads} thread(s), {}, GFLOP/s: forward, backward; in bf16", kernels::simd::name());
    for shape in SHAPES {
        kernels::threads::inside(|| measure(shape));
    }
    Ok(())
}

fn measure((name, [samples, tokens, heads, head_dim], causal): Shape) {
    let values =
        |len: usize, step: usize| (0..len).map(|i| (i * step % 1013) as f32 / 1013.0 - 0.5).collect::<Vec<_>>();
    let width = heads * head_dim;
    let (fused, grad_out) = (values(samples * tokens * 3 * width, 7919), values(samples * tokens * width, 7907));
    let mut grads = vec![MaybeUninit::<f32>::uninit(); fused.len()];
    let [q, k, v] = Heads::thirds(&fused, tokens, width);
    let sizes = Sizes { samples, queries: tokens, keys: tokens, heads, head_dim };
    let mask = Mask { causal, ..Mask::default() };
    let scale = 1.0 / (head_dim as f32).sqrt();
    let seen = if causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
    let operations = 1e-9 * (samples * heads * seen * head_dim) as f64;
    let mut fastest = [f64::MAX; 4];
    for _ in 0..(4.0 / operations / 28.0).clamp(10.0, 2000.0) as usize {
        for (precision, fastest) in [Precision::F32, Precision::Bf16].into_iter().zip(fastest.as_chunks_mut().0) {
            let [fastest_forward, fastest_backward]: &mut [f64; 2] = fastest;
            let begin = Instant::now();
            let made = forward(sizes, scale, q, k, v, mask, precision);
            *fastest_forward = fastest_forward.min(begin.elapsed().as_secs_f64());
            let begin = Instant::now();
            let [into_q, into_k, into_v] = HeadsMut::thirds(&mut grads, tokens, width);
            let into = Gradients { q: into_q, k: into_k, v: into_v, bias: None };
            backward(sizes, scale, q, k, v, mask, (&made.out, &made.log_sums), &grad_out, into, precision);
            *fastest_backward = fastest_backward.min(begin.elapsed().as_secs_f64());
        }
    }
    let rates = [4.0, 10.0, 4.0, 10.0].map(|factor| factor * operations);
    let [f, b, low_f, low_b] = std::array::from_fn(|i| rates[i] / fastest[i]);
    println!("{name:20} {f:6.1} {b:6.1}   {low_f:6.1} {low_b:6.1}");
}
