//! Whole models: against PyTorch and Hugging Face, against themselves on other threads and after a restart, and their
//! snapshots against damage.
#![expect(clippy::unwrap_used, reason = "tests may, and clippy does not see that their helpers are tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use domain::random::{Purpose, Stream};
use domain::spec::{Decay, ModelSpec, OptimizerRule, OptimizerSpec, Pool, ScheduleShape, ScheduleSpec, VitSpec, file};
use models::{
    Batch, EvalSums, Gradient, Layout, ModelError, Network, Optimizer, Snapshot, SnapshotError, TrainForward, Update,
    audit, clip_scale, learning_rate,
};
use proptest::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

const REFERENCE: &[u8] = include_bytes!("../fixtures/vit_reference.safetensors");

fn small_vit() -> VitSpec {
    VitSpec {
        height: 8,
        width: 12,
        channels: 3,
        patch: 4,
        dim: 16,
        depth: 2,
        heads: 2,
        mlp_dim: 32,
        classes: 5,
        pool: Pool::ClassToken,
        dropout: 0.0,
    }
}

fn adamw() -> OptimizerSpec {
    OptimizerSpec {
        rule: OptimizerRule::Adamw { beta1: 0.9, beta2: 0.98, eps: 1e-8 },
        weight_decay: 0.1,
        decay: Decay::Matrices,
    }
}

fn sgd(momentum: f64, nesterov: bool) -> OptimizerSpec {
    OptimizerSpec { rule: OptimizerRule::Sgd { momentum, nesterov }, ..adamw() }
}

/// Random images and labels for `spec`.
struct Samples {
    images: Vec<f32>,
    labels: Vec<u32>,
    shape: [usize; 4],
}

impl Samples {
    fn new(spec: &VitSpec, count: usize) -> Self {
        let [channels, height, width] = [spec.channels, spec.height, spec.width].map(|s| s as usize);
        let mut stream = Stream::new(7, Purpose::Order, &[]);
        let images = (0..count * channels * height * width).map(|_| stream.normal_f64() as f32).collect();
        let labels = (0..count).map(|_| stream.below(u64::from(spec.classes)) as u32).collect();
        Self { images, labels, shape: [count, channels, height, width] }
    }

    fn all(&self) -> Batch<'_> {
        Batch { images: &self.images, labels: &self.labels, shape: self.shape }
    }

    fn some(&self, first: usize, count: usize) -> Batch<'_> {
        let [_, channels, height, width] = self.shape;
        let pixels = channels * height * width;
        Batch {
            images: &self.images[first * pixels..(first + count) * pixels],
            labels: &self.labels[first..first + count],
            shape: [count, channels, height, width],
        }
    }
}

fn at_step(step: u64, samples: usize) -> TrainForward {
    TrainForward { seed: 1, step, micro_batch: 0, label_smoothing: 0.1, scale: 1.0 / samples as f32 }
}

fn gradient_of(network: &Network, batch: Batch<'_>, forward: TrainForward) -> (f64, Gradient) {
    let mut gradient = Gradient::default();
    let loss = network.loss_and_gradient(batch, forward, &mut gradient).unwrap();
    (loss, gradient)
}

fn gradient_from(layout: &Layout, flat: &[f32]) -> Gradient {
    let mut gradient = Gradient::zeros(layout);
    layout.parameters().iter().for_each(|p| gradient.of_mut(p).copy_from_slice(&flat[p.range.clone()]));
    gradient
}

/// The fixture, read.
struct Reference(SafeTensors<'static>);

impl Reference {
    fn read() -> Self {
        Self(SafeTensors::deserialize(REFERENCE).unwrap())
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let view = self.0.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        let view = self.0.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F64, "{name}");
        view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    fn labels(&self) -> Vec<u32> {
        let view = self.0.tensor("labels").unwrap();
        view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
    }

    /// A network with the fixture's weights and a fresh optimizer.
    fn network(&self, optimizer: &OptimizerSpec) -> (Network, Optimizer) {
        let network = Network::new(&ModelSpec::Vit(small_vit()), 0).unwrap();
        let mut fresh = Optimizer::new(optimizer, network.layout());
        let mut file = File::of(&Snapshot::take(network.parameters(), &fresh));
        for name in self.0.names() {
            if let Some(parameter) = name.strip_prefix("weight.") {
                let tensor = file.tensors.get_mut(&format!("model.{parameter}")).expect("names are Hugging Face's");
                let view = self.0.tensor(name).unwrap();
                assert_eq!(tensor.1, view.shape(), "{name}");
                tensor.2 = view.data().to_vec();
            }
        }
        let (snapshot, _) = Snapshot::from_safetensors(network.layout(), optimizer, &[&file.bytes()]).unwrap();
        snapshot.restore(network.parameters(), &mut fresh).unwrap();
        (network, fresh)
    }

    /// All tensors `PREFIX.NAME`, flat in the order of `layout`.
    fn flat<T>(&self, layout: &Layout, prefix: &str, read: impl Fn(&Self, &str) -> Vec<T>) -> Vec<T> {
        layout.parameters().iter().flat_map(|p| read(self, &format!("{prefix}.{}", p.name))).collect()
    }
}

/// A safetensors file that can be damaged.
#[derive(Clone)]
struct File {
    metadata: std::collections::HashMap<String, String>,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl File {
    fn of(snapshot: &Snapshot) -> Self {
        Self::read(&snapshot.to_safetensors(0, 1, &BTreeMap::new()))
    }

    fn read(bytes: &[u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let tensors = SafeTensors::deserialize(bytes).unwrap();
        let owned = |(name, view): (String, TensorView<'_>)| {
            (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        Self {
            metadata: header.metadata().clone().unwrap(),
            tensors: tensors.tensors().into_iter().map(owned).collect(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut views = Vec::new();
        for (name, (dtype, shape, data)) in &self.tensors {
            views.push((name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        }
        safetensors::serialize(views, Some(self.metadata.clone())).unwrap()
    }
}

/// The largest difference, relative to the largest expected value.
fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
    found.iter().zip(expected).fold(0.0f64, |m, (f, e)| m.max((f64::from(*f) - e).abs())) / size
}

#[test]
fn presets_have_the_published_numbers_of_parameters() {
    for (preset, count) in [("vit-tiny-16", 5_717_416), ("vit-small-16", 22_050_664), ("vit-base-16", 86_567_656)] {
        let text = format!(
            "version: 1\nname: count\nmodel: {{type: vit, preset: {preset}, classes: 1000}}\n\
             data: {{format: image_folder, path: images}}\ntrain: {{epochs: 1}}\n"
        );
        let job = file::read(&text, "job.yaml", Path::new("/")).unwrap();
        assert_eq!(Layout::new(&job.model).len(), count, "{preset}");
    }
}

/// The heads look at what those of Hugging Face's model look at, in double precision.
#[test]
fn attention_is_what_pytorch_says() {
    let reference = Reference::read();
    let (network, _) = reference.network(&adamw());
    let (images, labels) = (reference.f32("images"), reference.labels());
    let batch = Batch { images: &images, labels: &labels, shape: [3, 3, 8, 12] };
    let before = weights_of(&network);
    let mut layers = Vec::new();
    network.attention(batch, &mut |attended| layers.push(attended)).unwrap();
    let names: Vec<&str> = layers.iter().map(|layer| layer.scope.as_str()).collect();
    assert_eq!(names, ["vit.encoder.layer.0", "vit.encoder.layer.1"]);
    for (i, layer) in layers.iter().enumerate() {
        assert_eq!([layer.samples, layer.heads, layer.queries, layer.keys], [3, 2, 7, 7]);
        let expected = reference.f64(&format!("attention.{i}"));
        let error = relative_error(&layer.probabilities, &expected);
        assert!(error < 5e-6, "{}: off by {error}", layer.scope);
        for row in layer.probabilities.chunks(7) {
            assert!((row.iter().map(|p| f64::from(*p)).sum::<f64>() - 1.0).abs() < 1e-6, "{row:?}");
        }
    }
    // As it is kept: 16 bits of the greatest cell.
    let (samples, kept) = network.look(batch).unwrap().unwrap();
    assert_eq!((samples, kept.len()), (3, 2));
    for (layer, kept) in layers.iter().zip(&kept) {
        assert_eq!((kept.heads, kept.queries, kept.keys, kept.block), (2, 7, 7, 1));
        let found: Vec<f32> = kept.patterns.iter().flat_map(|pattern| pattern.values()).collect();
        assert_eq!(found.len(), layer.probabilities.len());
        assert!(found.iter().zip(&layer.probabilities).all(|(f, e)| (f - e).abs() <= 1.0 / 65_535.0));
    }
    assert_eq!(weights_of(&network), before, "looking changes nothing");
}

#[test]
fn every_parameter_has_its_histograms() {
    let reference = Reference::read();
    let (network, _) = reference.network(&adamw());
    let layout = network.layout();
    let flat: Vec<f32> = reference.flat(layout, "gradient", Reference::f64).iter().map(|g| *g as f32).collect();
    let (tensors, left_out) = network.histograms(&gradient_from(layout, &flat)).unwrap();
    assert_eq!((tensors.len(), left_out), (layout.parameters().len(), 0));
    for (tensor, parameter) in tensors.iter().zip(layout.parameters()) {
        assert_eq!(tensor.name, parameter.name);
        let values = reference.f32(&format!("weight.{}", parameter.name));
        assert_eq!(tensor.weights, models::histogram(&values), "{}", parameter.name);
        assert_eq!(tensor.gradient, models::histogram(&flat[parameter.range.clone()]), "{}", parameter.name);
        assert_eq!(tensor.weights.finite(), parameter.range.len() as u64);
    }
}

fn weights_of(network: &Network) -> String {
    let fresh = Optimizer::new(&adamw(), network.layout());
    Snapshot::take(network.parameters(), &fresh).weights_sha256()
}

#[test]
fn a_layout_is_sorted_gapless_and_decays_matrices_only() {
    let spec = ModelSpec::Vit(VitSpec { depth: 12, ..small_vit() });
    let layout = Layout::new(&spec);
    assert_eq!(layout, **Network::new(&spec, 0).unwrap().layout());
    let mut end = 0;
    for (i, p) in layout.parameters().iter().enumerate() {
        assert_eq!((p.range.start, p.range.len()), (end, p.shape.iter().product()));
        assert!(i == 0 || layout.parameters()[i - 1].name < p.name);
        end = p.range.end;
        let is_token = p.name.ends_with("cls_token") || p.name.ends_with("position_embeddings");
        assert_eq!(p.decays, p.shape.len() > 1 && !is_token, "{}", p.name);
    }
    let mean = Layout::new(&ModelSpec::Vit(VitSpec { pool: Pool::Mean, depth: 12, ..small_vit() }));
    assert_eq!(layout.len() - mean.len(), 2 * 16, "mean pooling has no class token and no position for it");
}

#[test]
fn logits_loss_and_gradient_are_those_of_pytorch() {
    let reference = Reference::read();
    let (network, _) = reference.network(&sgd(0.0, false));
    let (images, labels) = (reference.f32("images"), reference.labels());
    let batch = Batch { images: &images, labels: &labels, shape: [3, 3, 8, 12] };
    let (loss, gradient) = gradient_of(&network, batch, TrainForward { scale: 1.0, ..at_step(0, 1) });
    assert!((loss / reference.f64("loss")[0] - 1.0).abs() < 1e-6, "loss {loss}");
    let expected = reference.flat(network.layout(), "gradient", Reference::f64);
    let gradient = gradient.flat(network.layout());
    assert!(relative_error(&gradient, &expected) < 1e-5, "{}", relative_error(&gradient, &expected));
    for p in network.layout().parameters() {
        // Nothing depends on a key's bias: it moves all scores of a query alike. What is left is rounding.
        let (found, expected) = (&gradient[p.range.clone()], &expected[p.range.clone()]);
        if !p.name.ends_with("key.bias") {
            assert!(relative_error(found, expected) < 1e-5, "{}: {}", p.name, relative_error(found, expected));
        }
    }

    let logits = reference.f64("logits");
    let expected: f64 = logits
        .chunks(5)
        .zip(&labels)
        .map(|(row, label)| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[*label as usize])
        .sum();
    let sums = network.evaluate(batch).unwrap();
    assert!((sums.loss / expected - 1.0).abs() < 1e-6, "{} is not {expected}", sums.loss);
    let best = |row: &[f64]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
    let correct = logits.chunks(5).zip(&labels).filter(|(row, label)| best(row) == **label).count();
    assert_eq!((sums.correct, sums.samples), (correct as u64, 3));
}

#[test]
fn optimizers_step_as_those_of_pytorch() {
    const FACTORS: [f32; 5] = [1.0, -0.5, 2.0, 0.25, 1.5];
    const LEARNING_RATES: [f64; 5] = [0.004, 0.01, 0.007, 0.003, 0.0005];
    let reference = Reference::read();
    for (name, spec) in [("adamw", adamw()), ("sgd", sgd(0.9, false)), ("nesterov", sgd(0.9, true))] {
        let (network, mut optimizer) = reference.network(&spec);
        let exact = reference.flat(network.layout(), "gradient", Reference::f64);
        let gradient: Vec<f32> = exact.iter().map(|g| *g as f32).collect();
        let gradient = gradient_from(network.layout(), &gradient);
        for (gradient_scale, lr) in FACTORS.into_iter().zip(LEARNING_RATES) {
            optimizer.apply(network.parameters(), &gradient, Update { lr, gradient_scale }).unwrap();
        }
        assert_eq!(optimizer.updates(), 5);
        let expected = reference.flat(network.layout(), name, Reference::f32);
        let file = File::of(&Snapshot::take(network.parameters(), &optimizer));
        let found: Vec<f32> = network
            .layout()
            .parameters()
            .iter()
            .flat_map(|p| {
                let data = &file.tensors[&format!("model.{}", p.name)].2;
                data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<_>>()
            })
            .collect();
        let worst = found.iter().zip(&expected).fold(0.0f32, |m, (f, e)| m.max((f - e).abs() / e.abs().max(1.0)));
        assert!(worst < 1e-6, "{name}: {worst}");
    }
}

#[test]
fn plain_descent_and_decay_of_everything_do_what_they_say() {
    let network = Network::new(&ModelSpec::Vit(small_vit()), 3).unwrap();
    let spec = OptimizerSpec { decay: Decay::All, ..sgd(0.0, false) };
    let mut optimizer = Optimizer::new(&spec, network.layout());
    let weights = |o: &Optimizer| File::of(&Snapshot::take(network.parameters(), o)).tensors;
    let before = weights(&optimizer);
    let gradient = gradient_from(network.layout(), &vec![0.25; network.layout().len()]);
    optimizer.apply(network.parameters(), &gradient, Update { lr: 0.5, gradient_scale: 2.0 }).unwrap();
    for (name, (_, _, after)) in weights(&optimizer) {
        for (before, after) in before[&name].2.as_chunks().0.iter().zip(after.as_chunks().0) {
            let (before, after) = (f32::from_le_bytes(*before), f32::from_le_bytes(*after));
            assert!((after - (0.95 * before - 0.25)).abs() < 1e-7, "{name}");
        }
    }
}

#[test]
fn schedules_are_those_of_hugging_face() {
    let reference = Reference::read();
    let shapes = [
        ("constant", ScheduleShape::Constant),
        ("linear", ScheduleShape::Linear { lr_min: 0.0 }),
        ("cosine", ScheduleShape::Cosine { lr_min: 0.0 }),
        ("inverse_sqrt", ScheduleShape::InverseSqrt),
    ];
    for (name, shape) in shapes {
        let schedule = ScheduleSpec { lr_max: 0.003, warmup_steps: 5, shape };
        for (step, expected) in reference.f64(&format!("schedule.{name}")).into_iter().enumerate() {
            let found = learning_rate(&schedule, step as u64, 20);
            assert!((found - expected).abs() < 1e-15, "{name} at {step}: {found}, expected {expected}");
        }
    }
}

#[test]
fn the_start_depends_on_the_seed_and_is_what_it_says() {
    let spec = ModelSpec::Vit(VitSpec { dim: 64, heads: 4, mlp_dim: 128, ..small_vit() });
    let state = |seed| {
        let network = Network::new(&spec, seed).unwrap();
        let optimizer = Optimizer::new(&sgd(0.0, false), network.layout());
        Snapshot::take(network.parameters(), &optimizer)
    };
    assert_eq!(state(1), state(1));
    assert_ne!(state(1).weights_sha256(), state(2).weights_sha256());
    for (name, (_, shape, data)) in File::of(&state(1)).tensors {
        let values: Vec<f64> = data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        if name.ends_with("bias") {
            assert!(values.iter().all(|v| *v == 0.0), "{name}");
        } else if name.contains("norm") {
            assert!(values.iter().all(|v| *v == 1.0), "{name}");
        } else if name.ends_with("_token") || name.ends_with("_embeddings") {
            assert!(values.iter().all(|v| v.abs() <= 0.04 + 1e-9), "{name}");
            // A normal distribution cut off at two deviations has 0.88 of its deviation.
            assert!(values.len() < 1000 || (deviation / 0.02 - 0.88).abs() < 0.05, "{name}: {deviation}");
        } else {
            let limit = (6.0 / (shape[0] + shape[1..].iter().product::<usize>()) as f64).sqrt();
            assert!(values.iter().all(|v| v.abs() <= limit), "{name}");
            assert!(values.len() < 1000 || (deviation / limit - 1.0 / 3f64.sqrt()).abs() < 0.03, "{name}: {deviation}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let spec = VitSpec { dim: 64, heads: 4, mlp_dim: 128, depth: 3, dropout: 0.1, ..small_vit() };
    for pool in [Pool::ClassToken, Pool::Mean] {
        let spec = VitSpec { pool, ..spec.clone() };
        let samples = Samples::new(&spec, 8);
        let run = || {
            let network = Network::new(&ModelSpec::Vit(spec.clone()), 5).unwrap();
            let mut optimizer = Optimizer::new(&adamw(), network.layout());
            let (loss, gradient) = gradient_of(&network, samples.all(), at_step(0, 8));
            let gradient_scale = clip_scale(gradient.norm(), Some(0.1));
            optimizer.apply(network.parameters(), &gradient, Update { lr: 0.01, gradient_scale }).unwrap();
            (loss, gradient, network.evaluate(samples.all()).unwrap(), Snapshot::take(network.parameters(), &optimizer))
        };
        let runs =
            [1, 2, 4].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run));
        assert!(runs[0] == runs[1] && runs[0] == runs[2]);
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let samples = Samples::new(&small_vit(), 12);
    let network = Network::new(&ModelSpec::Vit(small_vit()), 5).unwrap();
    let (loss, whole) = gradient_of(&network, samples.all(), at_step(0, 12));
    let whole = whole.flat(network.layout());
    let mut sums = (0.0, vec![0.0f32; whole.len()]);
    for first in (0..12).step_by(4) {
        let (loss, part) = gradient_of(&network, samples.some(first, 4), at_step(0, 12));
        sums.0 += loss;
        sums.1.iter_mut().zip(part.flat(network.layout())).for_each(|(s, p)| *s += p);
    }
    assert!((sums.0 - loss).abs() < 1e-6);
    let whole: Vec<f64> = whole.iter().map(|g| f64::from(*g)).collect();
    assert!(relative_error(&sums.1, &whole) < 1e-5);
}

/// Trains from step `from` to step `to`.
fn train(network: &Network, optimizer: &mut Optimizer, samples: &Samples, from: u64, to: u64) -> f64 {
    let mut loss = 0.0;
    for step in from..to {
        let (here, gradient) = gradient_of(network, samples.all(), at_step(step, samples.labels.len()));
        loss = here;
        let gradient_scale = clip_scale(gradient.norm(), Some(1.0));
        optimizer.apply(network.parameters(), &gradient, Update { lr: 0.003, gradient_scale }).unwrap();
    }
    loss
}

#[test]
fn training_learns_and_goes_on_from_a_snapshot_to_the_bit() {
    for (spec, pool) in [(adamw(), Pool::ClassToken), (sgd(0.9, true), Pool::Mean)] {
        let vit = VitSpec { dropout: 0.1, pool, ..small_vit() };
        let samples = Samples::new(&vit, 16);
        let model = ModelSpec::Vit(vit.clone());
        let network = Network::new(&model, 1).unwrap();
        let mut optimizer = Optimizer::new(&spec, network.layout());
        let first = train(&network, &mut optimizer, &samples, 0, 1);
        train(&network, &mut optimizer, &samples, 1, 7);
        let saved = Snapshot::take(network.parameters(), &optimizer);
        let last = train(&network, &mut optimizer, &samples, 7, 60);
        assert!(last < first, "loss {first} became {last}");
        assert!(
            audit(network.layout(), &gradient_of(&network, samples.all(), at_step(60, 16)).1).non_finite.is_empty()
        );

        let parts = [0, 1, 2].map(|part| saved.to_safetensors(part, 3, &BTreeMap::new()));
        for other in [Network::new(&model, 2).unwrap(), Network::uninitialised(&model).unwrap()] {
            let mut other_optimizer = Optimizer::new(&spec, other.layout());
            let (read, _) =
                Snapshot::from_safetensors(other.layout(), &spec, &parts.each_ref().map(Vec::as_slice)).unwrap();
            read.restore(other.parameters(), &mut other_optimizer).unwrap();
            assert_eq!(other_optimizer.updates(), 7);
            train(&other, &mut other_optimizer, &samples, 7, 60);
            let (one, two) = (
                Snapshot::take(network.parameters(), &optimizer),
                Snapshot::take(other.parameters(), &other_optimizer),
            );
            assert_eq!(one, two);
            assert_eq!(one.weights_sha256(), two.weights_sha256());
        }
    }
}

#[test]
fn an_empty_micro_batch_adds_nothing() {
    let samples = Samples::new(&small_vit(), 2);
    let network = Network::new(&ModelSpec::Vit(small_vit()), 5).unwrap();
    let (loss, gradient) = gradient_of(&network, samples.some(1, 0), at_step(0, 2));
    assert!(loss == 0.0 && gradient.buckets().iter().flatten().all(|g| *g == 0.0));
    assert_eq!(network.evaluate(samples.some(1, 0)).unwrap(), EvalSums::default());
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let samples = Samples::new(&small_vit(), 2);
    let network = Network::new(&ModelSpec::Vit(small_vit()), 5).unwrap();
    let good = samples.all();
    let table = [
        (
            Batch { shape: [2, 3, 12, 8], ..good },
            "images are 3x12x8 (channels x height x width), the model reads 3x8x12",
        ),
        (
            Batch { shape: [3, 3, 8, 12], ..good },
            "a batch of 3 images needs 864 pixel values and 3 labels, found 576 and 2",
        ),
        (Batch { labels: &[0], ..good }, "a batch of 2 images needs 576 pixel values and 2 labels, found 576 and 1"),
        (Batch { labels: &[0, 5], ..good }, "label 5 is not below the model's number of classes (5)"),
    ];
    for (batch, message) in table {
        let error = network.loss_and_gradient(batch, at_step(0, 2), &mut Gradient::default()).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(network.evaluate(batch).unwrap_err().to_string(), message);
    }
}

/// A small state after one step, so that no slot is zero.
fn some_state(spec: &OptimizerSpec) -> (Network, Optimizer) {
    let network = Network::new(&ModelSpec::Vit(small_vit()), 4).unwrap();
    let mut optimizer = Optimizer::new(spec, network.layout());
    train(&network, &mut optimizer, &Samples::new(&small_vit(), 4), 0, 1);
    (network, optimizer)
}

#[test]
fn a_snapshot_of_another_kind_is_not_restored() {
    let (network, optimizer) = some_state(&adamw());
    let snapshot = Snapshot::take(network.parameters(), &optimizer);
    let deeper = Network::new(&ModelSpec::Vit(VitSpec { depth: 3, ..small_vit() }), 4).unwrap();
    let mut optimizers = [
        (&network, Optimizer::new(&sgd(0.9, false), network.layout())),
        (&deeper, Optimizer::new(&adamw(), deeper.layout())),
        (&network, Optimizer::new(&adamw(), deeper.layout())),
    ];
    for (network, optimizer) in &mut optimizers {
        assert!(matches!(snapshot.restore(network.parameters(), optimizer), Err(ModelError::OtherLayout { .. })));
    }
    let update = Update { lr: 0.1, gradient_scale: 1.0 };
    let gradient = Gradient::zeros(network.layout());
    let applied = optimizers[2].1.apply(network.parameters(), &gradient, update);
    assert!(matches!(applied, Err(ModelError::OtherLayout { what: "optimizer" })));
    let mut fitting = Optimizer::new(&adamw(), network.layout());
    let applied = fitting.apply(network.parameters(), &Gradient::default(), update);
    assert!(matches!(applied, Err(ModelError::OtherLayout { what: "gradient" })));
}

#[test]
fn parts_are_nearly_equal_and_equal_states_have_equal_bytes() {
    let (network, optimizer) = some_state(&adamw());
    let snapshot = Snapshot::take(network.parameters(), &optimizer);
    let metadata: BTreeMap<String, String> = (0..9).map(|i| (format!("key-{i}"), format!("\"{i}\"\n"))).collect();
    for of in 1..6 {
        let write = || (0..of).map(|part| snapshot.to_safetensors(part, of, &metadata)).collect::<Vec<_>>();
        let parts = write();
        assert_eq!(parts, write());
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(most - least < 4096, "{sizes:?}");
        let mut slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        slices.reverse();
        let (read, found) = Snapshot::from_safetensors(network.layout(), &adamw(), &slices).unwrap();
        assert_eq!((read, found), (snapshot.clone(), metadata.clone()));
    }
}

/// What `from_safetensors` says about the parts.
fn refusal(layout: &Arc<Layout>, parts: &[Vec<u8>]) -> SnapshotError {
    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    match Snapshot::from_safetensors(layout, &adamw(), &slices) {
        Err(ModelError::Snapshot(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn damaged_snapshots_are_refused_with_the_reason() {
    let (network, optimizer) = some_state(&adamw());
    let layout = network.layout();
    let snapshot = Snapshot::take(network.parameters(), &optimizer);
    let whole = File::of(&snapshot);
    let changed = |change: &dyn Fn(&mut File)| {
        let mut file = whole.clone();
        change(&mut file);
        refusal(layout, &[file.bytes()]).to_string()
    };
    let bias = "model.classifier.bias";
    let table = [
        (changed(&|f| drop(f.tensors.remove(bias))), "1 tensor(s) are missing: model.classifier.bias"),
        (
            changed(&|f| f.tensors.retain(|name, _| name.starts_with("model."))),
            "80 tensor(s) are missing: optimizer.exp_avg.classifier.bias, ",
        ),
        (
            changed(&|f| drop(f.tensors.insert("model.extra".to_owned(), (Dtype::F32, vec![1], vec![0; 4])))),
            "tensor model.extra is not one of this model and optimizer",
        ),
        (
            changed(&|f| f.tensors.get_mut(bias).unwrap().1 = vec![1, 5]),
            "tensor model.classifier.bias has shape [1, 5], expected [5]",
        ),
        (
            changed(&|f| f.tensors.get_mut(bias).unwrap().0 = Dtype::I32),
            "tensor model.classifier.bias holds I32, expected F32",
        ),
        (
            changed(&|f| drop(f.metadata.remove("optimizer.updates"))),
            "part 1 of 1: metadata `optimizer.updates` is absent, expected a whole number",
        ),
        (
            changed(&|f| drop(f.metadata.insert("optimizer.updates".to_owned(), "-1".to_owned()))),
            "part 1 of 1: metadata `optimizer.updates` is \"-1\", expected a whole number",
        ),
        (changed(&|f| f.metadata.clear()), "part 1 of 1: metadata `format` is absent, expected pt"),
        (refusal(layout, &[]).to_string(), "a snapshot needs at least one part"),
        (refusal(layout, &[vec![1; 7]]).to_string(), "part 1 of 1 is not a readable safetensors file: "),
    ];
    for (found, expected) in table {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }

    let half =
        |part, run: &str| snapshot.to_safetensors(part, 2, &BTreeMap::from([("run".to_owned(), run.to_owned())]));
    let doubled = refusal(layout, &[half(0, "a"), half(1, "a"), half(0, "a")]);
    assert!(matches!(doubled, SnapshotError::Doubled { .. }));
    let mixed = refusal(layout, &[half(0, "a"), half(1, "b")]);
    assert_eq!(mixed.to_string(), "part 2 of 2: metadata `run` is \"b\", expected \"a\" as in part 1");
    assert!(matches!(refusal(layout, &[half(0, "a")]), SnapshotError::Missing { .. }));
    let other = Snapshot::from_safetensors(layout, &sgd(0.9, false), &[&half(0, "a"), &half(1, "a")]);
    assert!(matches!(other, Err(ModelError::Snapshot(SnapshotError::Unknown { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A byte of the header changed or the file cut off: an error or, where nothing was lost, the same state.
    #[test]
    fn damage_never_panics(position in 0usize..20_000, value: u8, length in 0usize..200_000, cut: bool) {
        static STATE: std::sync::OnceLock<(Arc<Layout>, Vec<u8>)> = std::sync::OnceLock::new();
        let (layout, bytes) = STATE.get_or_init(|| {
            let (network, optimizer) = some_state(&adamw());
            (network.layout().clone(), Snapshot::take(network.parameters(), &optimizer).to_safetensors(0, 1, &BTreeMap::new()))
        });
        let mut bytes = bytes.clone();
        if cut {
            prop_assume!(length < bytes.len());
            bytes.truncate(length);
            prop_assert!(Snapshot::from_safetensors(layout, &adamw(), &[&bytes]).is_err());
        } else {
            let position = position % bytes.len();
            bytes[position] = value;
            let _ = Snapshot::from_safetensors(layout, &adamw(), &[&bytes]);
        }
    }
}
