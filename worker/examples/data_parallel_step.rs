//! One data-parallel training step of ViT-Ti/16 after another, for `bench/training.py` to compare with PyTorch's
//! DistributedDataParallel: `cargo run --release -p worker --example data_parallel_step -- --dir DIR --ranks 2`.
//!
//! Each rank is a process of one thread. The batch in DIR is cut into as many micro-batches as there are ranks; gradients
//! are added exactly, bucket by bucket, beside the backward pass. Rank 0 starts the others and speaks with the script.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use collective::ring::{Listener, Membership, connect};
use collective::{AbortHandle, Background};
use domain::spec::{Decay, ModelSpec, OptimizerRule, OptimizerSpec, Pool, VitSpec};
use models::{Batch, Gradient, GradientSink, Network, Optimizer, TrainForward, Update, clip_scale};
use safetensors::SafeTensors;
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
const VIT_TINY: VitSpec = VitSpec {
    height: 224,
    width: 224,
    channels: 3,
    patch: 16,
    dim: 192,
    depth: 12,
    heads: 3,
    mlp_dim: 768,
    classes: 1000,
    pool: Pool::ClassToken,
    dropout: 0.0,
};

fn main() -> Result<(), Error> {
    let options = Options::read()?;
    models::set_threads(1)?;
    let mut listener = Listener::bind("127.0.0.1:0")?;
    let own = listener.local_addr().to_string();
    let (addresses, mut others) =
        if options.rank == 0 { start_others(&options, own)? } else { (told(own)?, Vec::new()) };
    let membership = Membership { group: "bench", generation: 1, rank: options.rank, addresses: &addresses };
    let ring = connect(&mut listener, membership, &AbortHandle::new(), Duration::from_secs(20))?;
    let mut training = Training::load(&options, Background::start(Box::new(ring))?)?;
    if options.rank == 0 {
        let parameters = training.network.layout().len();
        println!(
            "{}",
            json!({ "ready": true, "parameters": parameters, "threads": options.ranks, "precision": "f32" })
        );
    }
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        for other in &mut others {
            writeln!(other.commands, "{line}")?;
        }
        match line.trim() {
            "step" => {
                let said = training.step()?;
                if options.rank == 0 {
                    println!("{said}");
                }
            }
            "quit" => break,
            other => return Err(format!("`{other}` is neither step nor quit").into()),
        }
    }
    let mut peak = peak_rss_mib()?;
    for Other { mut process, commands, answers } in others {
        drop(commands);
        let said: serde_json::Value = serde_json::from_str(&answers.lines().next().ok_or("a rank ended early")??)?;
        peak += said["peak_rss_mib"].as_f64().ok_or("a rank says its memory")?;
        process.wait()?;
    }
    println!("{}", json!({ "peak_rss_mib": peak }));
    Ok(())
}

struct Options {
    dir: String,
    ranks: u32,
    rank: u32,
}

impl Options {
    fn read() -> Result<Self, Error> {
        let (mut dir, mut ranks, mut rank) = (None, 2, 0);
        let mut rest = std::env::args().skip(1);
        while let Some(name) = rest.next() {
            let value = rest.next().ok_or_else(|| format!("{name} needs a value"))?;
            match &name[..] {
                "--dir" => dir = Some(value),
                "--ranks" => ranks = value.parse()?,
                "--rank" => rank = value.parse()?,
                _ => return Err(format!("{name} is unknown").into()),
            }
        }
        Ok(Self { dir: dir.ok_or("--dir is missing")?, ranks, rank })
    }
}

/// A further rank, as rank 0 sees it.
struct Other {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Starts the other ranks; each says its address and is told all of them.
fn start_others(options: &Options, own: String) -> Result<(Vec<String>, Vec<Other>), Error> {
    let mut addresses = vec![own];
    let mut others = Vec::new();
    for rank in 1..options.ranks {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(std::env::args().skip(1)).args(["--rank", &rank.to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let commands = process.stdin.take().ok_or("the input is a pipe")?;
        let mut answers = BufReader::new(process.stdout.take().ok_or("the output is a pipe")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        addresses.push(line.trim().to_owned());
        others.push(Other { process, commands, answers });
    }
    for other in &mut others {
        writeln!(other.commands, "{}", addresses.join(" "))?;
    }
    Ok((addresses, others))
}

fn told(own: String) -> Result<Vec<String>, Error> {
    println!("{own}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.split_whitespace().map(str::to_owned).collect())
}

struct Training {
    network: Network,
    optimizer: Optimizer,
    group: Background,
    gradient: Gradient,
    /// This rank's part of the batch.
    images: Vec<f32>,
    labels: Vec<u32>,
    shape: [usize; 4],
    ranks: u32,
    rank: u32,
}

impl Training {
    fn load(options: &Options, group: Background) -> Result<Self, Error> {
        let read = |file: &str| std::fs::read(Path::new(&options.dir).join(file));
        let network = Network::uninitialised(&ModelSpec::Vit(VIT_TINY))?;
        let bytes = read("weights.safetensors")?;
        let file = SafeTensors::deserialize(&bytes)?;
        network.parameters().update(|weights| {
            for (parameter, weight) in network.layout().parameters().iter().zip(weights) {
                weight.copy_from_slice(&floats(file.tensor(&parameter.name)?.data()));
            }
            Ok::<_, Error>(())
        })??;
        let bytes = read("batch.safetensors")?;
        let file = SafeTensors::deserialize(&bytes)?;
        let [samples, image @ ..]: [usize; 4] = file.tensor("inputs")?.shape().try_into()?;
        let own = domain::batch::split(samples as u64, options.rank, options.ranks);
        let own = own.start as usize..own.end as usize;
        let pixels: usize = image.iter().product();
        let images = floats(file.tensor("inputs")?.data())[own.start * pixels..own.end * pixels].to_vec();
        let all = file.tensor("labels")?;
        let labels: Vec<u32> = all.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as u32).collect();
        Ok(Self {
            optimizer: Optimizer::new(&ADAMW, network.layout()),
            gradient: Gradient::zeros(network.layout()),
            network,
            group,
            images,
            labels: labels[own.clone()].to_vec(),
            shape: [own.len(), image[0], image[1], image[2]],
            ranks: options.ranks,
            rank: options.rank,
        })
    }

    fn step(&mut self) -> Result<serde_json::Value, Error> {
        let begin = Instant::now();
        let batch = Batch { images: &self.images, labels: &self.labels, shape: self.shape };
        let samples = self.labels.len() * self.ranks as usize;
        let (micro_batch, scale) = (self.rank, 1.0 / samples as f32);
        let forward = TrainForward { seed: 0, step: 0, micro_batch, label_smoothing: 0.0, scale };
        let (group, gradient) = (&mut self.group, &mut self.gradient);
        let mut sink =
            Beside { group, gradient, ranks: self.ranks, rank: self.rank, begun: Vec::new(), failed: Ok(()) };
        let loss = self.network.loss_and_gradient(batch, forward, &mut sink)?;
        let Beside { begun, failed, .. } = sink;
        failed?;
        for bucket in begun {
            let sum = self.group.finish()?.sum;
            self.gradient.complete(bucket, sum);
        }
        let losses = self.group.all_gather(&loss.to_le_bytes())?;
        let of = |bytes: Vec<u8>| <[u8; 8]>::try_from(bytes).map(f64::from_le_bytes);
        let loss: f64 = losses.into_iter().map(of).sum::<Result<f64, _>>().map_err(|_| "a loss has eight bytes")?;
        let grad_norm = self.gradient.norm();
        let update = Update { lr: LEARNING_RATE, gradient_scale: clip_scale(grad_norm, Some(CLIP_NORM)) };
        self.optimizer.apply(self.network.parameters(), &self.gradient, update)?;
        Ok(json!({ "loss": loss, "grad_norm": grad_norm, "seconds": begin.elapsed().as_secs_f64() }))
    }
}

/// Hands buckets to the group as they become complete.
struct Beside<'a> {
    group: &'a mut Background,
    gradient: &'a mut Gradient,
    ranks: u32,
    rank: u32,
    begun: Vec<usize>,
    failed: Result<(), collective::CollectiveError>,
}

impl GradientSink for Beside<'_> {
    fn buffer(&mut self, bucket: usize, len: usize) -> Vec<f32> {
        self.gradient.buffer(bucket, len)
    }

    fn complete(&mut self, bucket: usize, values: Vec<f32>) {
        self.begun.push(bucket);
        if self.failed.is_ok() {
            self.failed = self.group.reduce(self.ranks, vec![(self.rank..self.rank + 1, values)]);
        }
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The most memory that this process has had.
fn peak_rss_mib() -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
