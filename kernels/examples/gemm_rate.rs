//! How fast matrices are multiplied, beside the `gemm` crate: `cargo run --release -p kernels --example gemm_rate -- [THREADS]`.
//!
//! The shapes are those of ViT-Ti/16 with 8 images, BERT-base with 1,024 tokens, and GPT-2's head with 512. Both run in turn;
//! the fastest of each is printed, since the machine may be busy.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::time::Instant;

use kernels::gemm::{Matrix, MatrixMut, Precision, Start, multiply};

/// Name; rows, terms, columns; whether left and right are stored transposed.
type Shape = (&'static str, [usize; 3], [bool; 2]);

const SHAPES: [Shape; 12] = [
    ("ViT qkv", [1576, 192, 576], [false, true]),
    ("ViT mlp 1", [1576, 192, 768], [false, true]),
    ("ViT mlp 2", [1576, 768, 192], [false, true]),
    ("ViT mlp 1, input", [1576, 768, 192], [false, false]),
    ("ViT mlp 1, weight", [768, 1576, 192], [true, false]),
    ("ViT output, weight", [192, 1576, 192], [true, false]),
    ("BERT mlp 1", [1024, 768, 3072], [false, true]),
    ("BERT mlp 2", [1024, 3072, 768], [false, true]),
    ("BERT mlp 1, weight", [3072, 1024, 768], [true, false]),
    ("GPT-2 head", [512, 768, 50257], [false, true]),
    ("GPT-2 head, input", [512, 50257, 768], [false, false]),
    ("large", [2048, 2048, 2048], [false, false]),
];

fn main() -> Result<(), String> {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    kernels::threads::set_threads(threads)?;
    println!("{threads} thread(s), {}, GFLOP/s: ours, ours in bf16, gemm", kernels::simd::name());
    for shape in SHAPES {
        kernels::threads::inside(|| measure(shape, threads));
    }
    Ok(())
}

fn measure((name, [m, k, n], turned): Shape, threads: usize) {
    let values =
        |len: usize, step: usize| (0..len).map(|i| (i * step % 1013) as f32 / 1013.0 - 0.5).collect::<Vec<_>>();
    let (a, b) = (values(m * k, 7919), values(k * n, 7907));
    let left = if turned[0] { Matrix::dense(&a, m).transposed() } else { Matrix::dense(&a, k) };
    let right = if turned[1] { Matrix::dense(&b, k).transposed() } else { Matrix::dense(&b, n) };
    let mut out = vec![0.0f32; m * n];
    let operations = 2e-9 * (m * k * n) as f64;
    let mut fastest = [f64::MAX; 3];
    for _ in 0..(4.0 / operations).clamp(3.0, 100.0) as usize {
        for (way, fastest) in fastest.iter_mut().enumerate() {
            let begin = Instant::now();
            match way {
                0 => multiply(MatrixMut::dense(&mut out, n), Start::Zero, left, right, Precision::F32),
                1 => multiply(MatrixMut::dense(&mut out, n), Start::Zero, left, right, Precision::Bf16),
                _ => peer(&mut out, left, right, threads),
            }
            *fastest = fastest.min(begin.elapsed().as_secs_f64());
        }
    }
    let [ours, low, peer] = fastest.map(|seconds| operations / seconds);
    println!("{name:20} {ours:6.1} {low:6.1} {peer:6.1}");
}

fn peer(out: &mut [f32], left: Matrix<'_>, right: Matrix<'_>, threads: usize) {
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    // SAFETY: the matrices are dense and as large as their sizes say.
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            out.as_mut_ptr(),
            1,
            right.columns as isize,
            false,
            left.values.as_ptr(),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr(),
            right.column_stride as isize,
            right.row_stride as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}
