//! One training step after another, for `bench/training.py` to compare with PyTorch:
//! `cargo run --release -p models --example training_step -- --work gpt2 --dir DIR [--precision f32] [--threads 2] [--profile]`.
//!
//! DIR holds `weights.safetensors`, under Hugging Face's names, and `batch.safetensors`, which the script makes. The first
//! line printed says that the model is loaded. It answers `step` on its input with one training step (forward and backward
//! pass, clipping, AdamW) and its loss; at `quit`, or when its input ends, it prints its peak memory and ends.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

mod networks;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use domain::spec::{Decay, OptimizerRule, OptimizerSpec};
use models::nn::{CrossEntropy, Phase, Precision, Profile, Tape, tensor_of};
use models::{Declaration, Gradient, Layout, Optimizer, Parameters, Role, Update, clip_scale};
use networks::{Inputs, Network};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

/// As in the binary: the default allocator gives every large tensor back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error>;

/// As in the peer.
const LEARNING_RATE: f64 = 1e-4;
const CLIP_NORM: f32 = 1.0;
const ADAMW: OptimizerSpec = OptimizerSpec {
    rule: OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8 },
    weight_decay: 0.01,
    decay: Decay::Matrices,
};

/// Tensors with these in their names do not decay, whatever their shape.
const NO_DECAY: [&str; 3] = ["cls_token", "position_embeddings", "wpe"];

fn main() -> Result<(), Error> {
    let arguments = Arguments::read()?;
    models::set_threads(arguments.threads)?;
    let mut training = Training::load(&arguments)?;
    let ready = json!({
        "ready": true,
        "parameters": training.parameters.layout().len(),
        "threads": arguments.threads,
        "precision": arguments.precision,
        "gemm_gflops": kernels::gemm::rate(),
        "vector_unit": kernels::simd::name(),
    });
    println!("{ready}");
    for line in std::io::stdin().lock().lines() {
        match line?.trim() {
            "step" => println!("{}", training.step()?),
            "quit" => break,
            other => return Err(format!("`{other}` is neither step nor quit").into()),
        }
    }
    if arguments.profile {
        training.show_profile();
    }
    println!("{}", json!({ "peak_rss_mib": peak_rss_mib()? }));
    Ok(())
}

struct Arguments {
    work: String,
    dir: String,
    precision: String,
    threads: usize,
    profile: bool,
}

impl Arguments {
    fn read() -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        let mut profile = false;
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            if name == "--profile" {
                profile = true;
                continue;
            }
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            found.insert(name, value);
        }
        let mut take = |name: &str, default: Option<&str>| {
            found.remove(name).or(default.map(ToOwned::to_owned)).ok_or_else(|| format!("{name} is missing"))
        };
        let arguments = Self {
            work: take("--work", None)?,
            dir: take("--dir", None)?,
            precision: take("--precision", Some("f32"))?,
            threads: take("--threads", Some("2"))?.parse()?,
            profile,
        };
        match found.keys().next() {
            Some(unknown) => Err(format!("{unknown} is unknown").into()),
            None => Ok(arguments),
        }
    }
}

struct Training {
    network: Network,
    parameters: Parameters,
    optimizer: Optimizer,
    gradient: Gradient,
    inputs: Inputs,
    labels: Vec<u32>,
    precision: Precision,
    profile: Option<Profile>,
}

impl Training {
    fn load(arguments: &Arguments) -> Result<Self, Error> {
        let read = |file: &str| std::fs::read(Path::new(&arguments.dir).join(file));
        let bytes = read("weights.safetensors")?;
        let file = SafeTensors::deserialize(&bytes)?;
        let mut tensors = BTreeMap::new();
        let mut declared = Vec::new();
        for (name, view) in file.tensors() {
            // The statistics of batch norms are no parameters.
            if name.contains("running_") {
                continue;
            }
            let values = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            tensors.insert(name.clone(), tensor_of(values, view.shape())?);
            let never = name.split('.').any(|part| NO_DECAY.contains(&part));
            let role = match view.shape().len() {
                1 => Role::Bias,
                _ if never => Role::Embedding,
                _ => Role::Matrix,
            };
            declared.push(Declaration { name, shape: view.shape().to_vec(), role });
        }
        declared.sort_by_key(|declaration| networks::order(&declaration.name));
        drop(file);
        drop(bytes);
        let bytes = read("batch.safetensors")?;
        let file = SafeTensors::deserialize(&bytes)?;
        let labels = integers(&file, "labels")?;
        let inputs = file.tensor("inputs")?;
        let inputs = match inputs.dtype() {
            Dtype::F32 => Inputs::Images {
                values: inputs.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                shape: inputs.shape().try_into()?,
            },
            _ => Inputs::Words { ids: integers(&file, "inputs")?, tokens: inputs.shape()[1] },
        };
        let network = Network::named(&arguments.work, &tensors)?;
        let layout = Arc::new(Layout::of(declared));
        let parameters = Parameters::new(layout.clone(), tensors.into_values().collect::<Vec<Tensor>>())?;
        let precision = match &arguments.precision[..] {
            "f32" => Precision::F32,
            "bf16" => Precision::Bf16,
            other => return Err(format!("precision `{other}` is neither f32 nor bf16").into()),
        };
        Ok(Self {
            network,
            optimizer: Optimizer::new(&ADAMW, &layout),
            gradient: Gradient::default(),
            parameters,
            inputs,
            labels,
            precision,
            profile: arguments.profile.then(Profile::new),
        })
    }

    fn step(&mut self) -> Result<serde_json::Value, Error> {
        let begin = Instant::now();
        let (loss, grad_norm) = kernels::threads::inside(|| self.pass().map_err(|error| error.to_string()))?;
        let update = Update { lr: LEARNING_RATE, gradient_scale: clip_scale(grad_norm, Some(CLIP_NORM)) };
        self.optimizer.apply(&self.parameters, &self.gradient, update)?;
        Ok(json!({ "loss": loss, "grad_norm": grad_norm, "seconds": begin.elapsed().as_secs_f64() }))
    }

    fn pass(&mut self) -> candle_core::Result<(f64, f64)> {
        let tape = Tape::training(&self.parameters, self.precision).profiled(self.profile.as_ref());
        let logits = self.network.logits(&tape, &self.inputs)?;
        let scale = 1.0 / self.labels.len() as f32;
        let target = CrossEntropy { labels: &self.labels, ignore: None, smoothing: 0.0, scale };
        let (loss, outcome) = tape.backward_from_loss(logits, target, &mut self.gradient)?;
        if let Some(place) = outcome.unreached.first() {
            let name = &self.parameters.layout().parameters()[*place].name;
            candle_core::bail!("no gradient reached {name}");
        }
        Ok((loss, self.gradient.norm()))
    }

    /// Where the time went, by operator.
    fn show_profile(&self) {
        let mut sums: BTreeMap<(&str, bool), (f64, u64, u64)> = BTreeMap::new();
        for span in self.profile.iter().flat_map(Profile::take) {
            let sum = sums.entry((span.name, span.phase == Phase::Backward)).or_default();
            *sum = (sum.0 + span.duration.as_secs_f64(), sum.1 + span.operations, sum.2 + 1);
        }
        for ((name, backward), (seconds, operations, calls)) in sums {
            let (way, rate) = (if backward { "backward" } else { "forward" }, 1e-9 * operations as f64 / seconds);
            eprintln!("{name:15} {way:9} {:9.1} ms {calls:6} calls {rate:7.1} GFLOP/s", 1e3 * seconds);
        }
    }
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Result<Vec<u32>, Error> {
    let view = file.tensor(name)?;
    let all = view.data().as_chunks().0.iter().map(|b| u32::try_from(i32::from_le_bytes(*b)));
    Ok(all.collect::<Result<_, _>>()?)
}

/// The most memory that this process has had.
fn peak_rss_mib() -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
