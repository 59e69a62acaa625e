use std::collections::BTreeMap;
use std::sync::Arc;

use domain::random::{Purpose, Stream, name_coordinate};
use domain::spec::{ModelSpec, VitSpec};

use crate::ModelError;
use crate::gradient::GradientSink;
use crate::layout::{Declaration, Layout, Role};
use crate::nn::{self, CrossEntropy, Dropout, Precision, Profile, Tape, Watcher, tensor_of};
use crate::parameters::Parameters;
use crate::vit::Vit;
use candle_core::Tensor;

/// An architecture and its weights, on the CPU.
pub struct Network {
    spec: VitSpec,
    parameters: Parameters,
    /// The same tensors, where the architecture needs them.
    vit: Vit<Tensor>,
    precision: Precision,
    profile: Option<Arc<Profile>>,
}

/// Images with their labels.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Normalised pixels, ordered as `shape` says.
    pub images: &'a [f32],
    /// The class of each image, counted from 0.
    pub labels: &'a [u32],
    /// Images, channels, height, width.
    pub shape: [usize; 4],
}

impl Batch<'_> {
    /// The first `count` samples, or all if there are fewer.
    pub(crate) fn first(&self, count: usize) -> Self {
        let [samples, rest @ ..] = self.shape;
        let count = count.min(samples);
        let [channels, height, width] = rest;
        let values = rest.iter().product::<usize>() * count;
        Self { images: &self.images[..values], labels: &self.labels[..count], shape: [count, channels, height, width] }
    }
}

/// How a training pass goes over a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct TrainForward {
    /// The run's seed; keys dropout.
    pub seed: u64,
    /// The step, counted from 0; keys dropout.
    pub step: u64,
    /// The micro-batch of the step; keys dropout.
    pub micro_batch: u32,
    /// Share of the target that every class gets alike; in [0, 1).
    pub label_smoothing: f32,
    /// Multiplies loss and gradient: 1 / global batch makes the sum over a step a mean.
    pub scale: f32,
}

/// What an evaluation adds up over its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EvalSums {
    /// Sum of the cross-entropies, in nats.
    pub loss: f64,
    /// Samples whose label has the highest logit.
    pub correct: u64,
    /// Samples seen.
    pub samples: u64,
}

impl Network {
    /// The network that `spec` describes, with the initial weights of `seed`.
    ///
    /// Weight matrices and the patch kernel are uniform in ±√(6 / (inputs + outputs)) (Glorot and Bengio 2010), as in the
    /// code of Dosovitskiy et al. 2020; positions and the class token are normal with deviation 0.02, cut off at two
    /// deviations; biases are 0 and the gains of norms 1. The paper's head starts at 0, which would leave everything
    /// before it without a gradient in the first step; ours starts like any other matrix. Every parameter has a random
    /// stream of its own, keyed by its name.
    pub fn new(spec: &ModelSpec, seed: u64) -> Result<Self, ModelError> {
        Self::filled(spec, |declaration| initial_values(declaration, seed))
    }

    /// The network that `spec` describes, with all weights 0: for one whose weights come from elsewhere, since drawing
    /// them takes seconds for large models.
    pub fn uninitialised(spec: &ModelSpec) -> Result<Self, ModelError> {
        Self::filled(spec, |declaration| vec![0.0; declaration.shape.iter().product()])
    }

    fn filled(spec: &ModelSpec, values: impl Fn(&Declaration) -> Vec<f32>) -> Result<Self, ModelError> {
        let ModelSpec::Vit(spec) = spec;
        let mut declared = Vec::new();
        drop(Vit::build(spec, &mut |declaration| declared.push(declaration)));
        let mut named = BTreeMap::new();
        for declaration in &declared {
            let tensor = tensor_of(values(declaration), declaration.shape.as_slice())?;
            named.insert(declaration.name.clone(), tensor);
        }
        let vit = Vit::build(spec, &mut |d| named[&d.name].clone());
        let parameters = Parameters::new(Arc::new(Layout::of(declared)), named.into_values().collect())?;
        Ok(Self { spec: spec.clone(), parameters, vit, precision: Precision::F32, profile: None })
    }

    /// The same network with operands rounded to `precision` before they enter a product. Weights, sums and all else stay
    /// as they are.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Notes in `profile`, from now on, how long each operator takes.
    pub fn set_profile(&mut self, profile: Option<Arc<Profile>>) {
        self.profile = profile;
    }

    /// Where every parameter stands in a gradient.
    pub fn layout(&self) -> &Arc<Layout> {
        self.parameters.layout()
    }

    /// The trainable tensors.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The loss of `batch`, summed over its samples and multiplied by `forward.scale`. Its gradient goes to `sink`, bucket by
    /// bucket while it is computed. An empty batch has loss and gradient 0.
    ///
    /// Refuses if a parameter got no gradient at all: then the graph is cut somewhere, and what lies before it would
    /// never learn.
    pub fn loss_and_gradient(
        &self,
        batch: Batch<'_>,
        forward: TrainForward,
        sink: &mut (dyn GradientSink + Send),
    ) -> Result<f64, ModelError> {
        self.check(batch)?;
        if batch.labels.is_empty() {
            for (bucket, len) in self.layout().buckets().iter().enumerate() {
                let mut zeros = sink.buffer(bucket, *len);
                zeros.fill(0.0);
                sink.complete(bucket, zeros);
            }
            return Ok(0.0);
        }
        kernels::threads::inside(|| self.train(batch, forward, sink))
    }

    fn train(&self, batch: Batch<'_>, forward: TrainForward, sink: &mut dyn GradientSink) -> Result<f64, ModelError> {
        let TrainForward { seed, step, micro_batch, label_smoothing, scale } = forward;
        let dropout = Dropout::On { probability: self.spec.dropout, seed, step, micro_batch };
        let tape = Tape::training(&self.parameters, self.precision).profiled(self.profile.as_deref());
        let logits = self.vit.forward(&tape, batch.images, batch.shape, dropout)?;
        let target = CrossEntropy { labels: batch.labels, ignore: None, smoothing: label_smoothing, scale };
        let (loss, outcome) = tape.backward_from_loss(logits, target, sink)?;
        if outcome.unreached.is_empty() {
            return Ok(loss);
        }
        let name = |place: &usize| self.layout().parameters()[*place].name.clone();
        Err(ModelError::NoGradient { names: outcome.unreached.iter().map(name).collect() })
    }

    /// Loss and accuracy on `batch`: no dropout, no smoothing, no graph.
    pub fn evaluate(&self, batch: Batch<'_>) -> Result<EvalSums, ModelError> {
        self.check(batch)?;
        if batch.labels.is_empty() {
            return Ok(EvalSums::default());
        }
        kernels::threads::inside(|| {
            let tape = Tape::evaluation(self.precision);
            let logits = self.vit.forward(&tape, batch.images, batch.shape, Dropout::Off)?;
            let (loss, correct) = nn::score(&logits, batch.labels)?;
            Ok(EvalSums { loss, correct, samples: batch.labels.len() as u64 })
        })
    }

    /// Tells `watcher` what each attention layer looks at on `batch`, from the inputs to the outputs, without dropout. The
    /// weights stay as they are, and no random number is drawn.
    pub fn attention(&self, batch: Batch<'_>, watcher: Watcher<'_>) -> Result<(), ModelError> {
        self.check(batch)?;
        if batch.labels.is_empty() {
            return Ok(());
        }
        kernels::threads::inside(|| {
            let tape = Tape::evaluation(self.precision).watched(watcher);
            self.vit.forward(&tape, batch.images, batch.shape, Dropout::Off)?;
            Ok(())
        })
    }

    fn check(&self, batch: Batch<'_>) -> Result<(), ModelError> {
        let [samples, image @ ..] = batch.shape;
        let wanted = [self.spec.channels, self.spec.height, self.spec.width].map(|size| size as usize);
        if image != wanted {
            let shown = |[channels, height, width]: [usize; 3]| format!("{channels}x{height}x{width}");
            return Err(ModelError::ImageShape { found: shown(image), expected: shown(wanted) });
        }
        let expected = samples.saturating_mul(wanted.iter().product());
        if batch.images.len() != expected || batch.labels.len() != samples {
            let (pixels, labels) = (batch.images.len(), batch.labels.len());
            return Err(ModelError::BatchLength { samples, expected, pixels, labels });
        }
        match batch.labels.iter().find(|label| **label >= self.spec.classes) {
            Some(label) => Err(ModelError::Label { label: *label, classes: self.spec.classes }),
            None => Ok(()),
        }
    }
}

/// Deviation of the initial positions and class token.
const EMBEDDING_DEVIATION: f64 = 0.02;

fn initial_values(declaration: &Declaration, seed: u64) -> Vec<f32> {
    let Declaration { name, shape, role } = declaration;
    let count = shape.iter().product();
    let mut stream = Stream::new(seed, Purpose::Initialisation, &[name_coordinate(name)]);
    match role {
        Role::Matrix => {
            let (outputs, inputs) = (shape[0], shape[1..].iter().product::<usize>());
            let limit = (6.0 / (inputs + outputs) as f64).sqrt();
            (0..count).map(|_| (limit * (2.0 * stream.uniform_f64() - 1.0)) as f32).collect()
        }
        Role::Embedding => (0..count).map(|_| (EMBEDDING_DEVIATION * stream.truncated_normal_f64()) as f32).collect(),
        Role::Gain => vec![1.0; count],
        Role::Bias => vec![0.0; count],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient::Gradient;
    use domain::spec::Pool;

    #[test]
    fn a_cut_graph_is_refused_and_what_lies_behind_it_named() {
        let spec = VitSpec {
            height: 4,
            width: 4,
            channels: 1,
            patch: 2,
            dim: 4,
            depth: 1,
            heads: 2,
            mlp_dim: 8,
            classes: 3,
            pool: Pool::Mean,
            dropout: 0.0,
        };
        let mut network = Network::new(&ModelSpec::Vit(spec.clone()), 1).unwrap();
        let layout = network.layout().clone();
        let find = |name: &str| layout.parameters().iter().position(|p| p.name == name).unwrap();
        let weights = network.parameters.tensors();
        network.vit = Vit::build(&spec, &mut |d| match d.name.as_str() {
            "vit.layernorm.bias" => weights[find(&d.name)].copy().unwrap(),
            name => weights[find(name)].clone(),
        });
        let batch = Batch { images: &[0.5; 16], labels: &[1], shape: [1, 1, 4, 4] };
        let forward = TrainForward { seed: 0, step: 0, micro_batch: 0, label_smoothing: 0.0, scale: 1.0 };
        let error = network.loss_and_gradient(batch, forward, &mut Gradient::default()).unwrap_err();
        assert_eq!(error.to_string(), "no gradient reached vit.layernorm.bias");
    }
}
