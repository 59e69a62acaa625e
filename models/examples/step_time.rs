//! How fast a training step is: `cargo run --release -p models --example step_time -- [THREADS]`.
//!
//! Prints, for the models of the example jobs, the fastest and the median time of a micro-batch (on a busy machine they
//! differ), and for the fastest the images per second and the arithmetic that the matrix products of the layers need (6
//! operations per weight and token).
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::time::{Duration, Instant};

use domain::random::{Purpose, Stream};
use domain::spec::{Decay, ModelSpec, OptimizerRule, OptimizerSpec, Pool, VitSpec};
use models::{Batch, Gradient, ModelError, Network, Optimizer, TrainForward, Update, clip_scale, set_threads};

/// As in the binary: the default allocator gives every large tensor back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLES: usize = 16;

/// How long each model is measured.
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> Result<(), ModelError> {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    set_threads(threads)?;
    let digits = VitSpec {
        height: 8,
        width: 8,
        channels: 1,
        patch: 2,
        dim: 64,
        depth: 4,
        heads: 4,
        mlp_dim: 128,
        classes: 10,
        pool: Pool::ClassToken,
        dropout: 0.0,
    };
    let fashion = VitSpec { height: 28, width: 28, patch: 4, ..digits.clone() };
    let dropout = |spec: &VitSpec| VitSpec { dropout: 0.1, ..spec.clone() };
    println!("{threads} thread(s), micro-batches of {SAMPLES} images");
    measure("digits 8x8/2", &digits)?;
    measure("digits 8x8/2, dropout", &dropout(&digits))?;
    measure("fashion 28x28/4", &fashion)?;
    measure("fashion 28x28/4, dropout", &dropout(&fashion))
}

fn measure(name: &str, spec: &VitSpec) -> Result<(), ModelError> {
    let network = Network::new(&ModelSpec::Vit(spec.clone()), 1)?;
    let rule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 };
    let optimizer = OptimizerSpec { rule, weight_decay: 0.05, decay: Decay::Matrices };
    let mut optimizer = Optimizer::new(&optimizer, network.layout());
    let [channels, height, width] = [spec.channels, spec.height, spec.width].map(|size| size as usize);
    let mut stream = Stream::new(1, Purpose::Order, &[]);
    let images: Vec<f32> = (0..SAMPLES * channels * height * width).map(|_| stream.uniform_f32()).collect();
    let labels: Vec<u32> = (0..SAMPLES).map(|_| stream.below(u64::from(spec.classes)) as u32).collect();
    let batch = Batch { images: &images, labels: &labels, shape: [SAMPLES, channels, height, width] };
    let mut gradient = Gradient::default();
    let (mut passes, mut updates, mut evaluations) = (Vec::new(), Vec::new(), Vec::new());
    let begin = Instant::now();
    for step in 0.. {
        let forward = TrainForward { seed: 1, step, micro_batch: 0, label_smoothing: 0.1, scale: 1.0 / SAMPLES as f32 };
        let start = Instant::now();
        network.loss_and_gradient(batch, forward, &mut gradient)?;
        passes.push(start.elapsed());
        let start = Instant::now();
        let gradient_scale = clip_scale(gradient.norm(), Some(1.0));
        optimizer.apply(network.parameters(), &gradient, Update { lr: 1e-3, gradient_scale })?;
        updates.push(start.elapsed());
        let start = Instant::now();
        network.evaluate(batch)?;
        evaluations.push(start.elapsed());
        if begin.elapsed() > MEASURED {
            break;
        }
    }
    let tokens = (height / spec.patch as usize) * (width / spec.patch as usize) + 1;
    let operations = 6.0 * network.layout().len() as f64 * (tokens * SAMPLES) as f64;
    let [pass, update, evaluation] = [passes, updates, evaluations].map(fastest_and_median);
    println!(
        "{name}: pass {:.2} ms (median {:.2}; {:.0} images/s, {:.0} GFLOP/s), clip and update {:.2} ms, evaluation {:.2} ms",
        1e3 * pass.0,
        1e3 * pass.1,
        SAMPLES as f64 / pass.0,
        1e-9 * operations / pass.0,
        1e3 * update.0,
        1e3 * evaluation.0,
    );
    Ok(())
}

/// In seconds.
fn fastest_and_median(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    (times[0].as_secs_f64(), times[times.len() / 2].as_secs_f64())
}
