use std::ops::Range;

use domain::spec::ModelSpec;

use crate::vit;

/// The parameters of a model, and where each stands in its gradient.
///
/// A gradient is cut into buckets. In the backward pass the buckets become complete one after another, from the outputs
/// of the model to its inputs, so that each can be reduced while the next ones are computed. The layout follows from the
/// model alone, so it is the same on every rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    parameters: Vec<Parameter>,
    /// Values of each bucket.
    buckets: Vec<usize>,
}

/// A trainable tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in Hugging Face's implementation of the architecture.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Where its values stand in a flat vector of all parameters, row-major.
    pub range: Range<usize>,
    /// The bucket of the gradient that holds its part.
    pub bucket: usize,
    /// Where its part stands in that bucket, row-major.
    pub part: Range<usize>,
    /// Whether it is a weight matrix or convolution kernel: not a bias, norm, position or class token.
    pub decays: bool,
}

/// A parameter as an architecture asks for it.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

/// What a parameter is for; decides how it starts and whether it decays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A weight matrix or convolution kernel.
    Matrix,
    /// A learned token or table of positions.
    Embedding,
    /// The gain of a norm.
    Gain,
    /// An offset.
    Bias,
}

/// Values that a bucket holds at least, but for the last one: 4 MiB, enough to use the bandwidth of a network, and few enough
/// that several fit into one backward pass.
const BUCKET_MIN: usize = 1 << 20;

impl Layout {
    /// The layout of the model that `spec` describes; allocates no weights.
    pub fn new(spec: &ModelSpec) -> Self {
        let mut declared = Vec::new();
        match spec {
            ModelSpec::Vit(spec) => drop(vit::Vit::build(spec, &mut |declaration| declared.push(declaration))),
        }
        Self::of(declared)
    }

    /// The layout of parameters that are declared in the order in which the model uses them.
    pub fn of(declared: Vec<Declaration>) -> Self {
        let mut buckets = vec![0];
        let mut parameters = Vec::with_capacity(declared.len());
        // What is used last has its gradient first.
        for Declaration { name, shape, role } in declared.into_iter().rev() {
            let len: usize = shape.iter().product();
            if buckets.last().is_some_and(|filled| *filled >= BUCKET_MIN) {
                buckets.push(0);
            }
            let bucket = buckets.len() - 1;
            let part = buckets[bucket]..buckets[bucket] + len;
            buckets[bucket] = part.end;
            parameters.push(Parameter { name, shape, range: 0..len, bucket, part, decays: role == Role::Matrix });
        }
        parameters.sort_by(|a, b| a.name.cmp(&b.name));
        debug_assert!(parameters.windows(2).all(|pair| pair[0].name != pair[1].name), "a name is used twice");
        let mut end = 0;
        for parameter in &mut parameters {
            parameter.range = end..end + parameter.range.len();
            end = parameter.range.end;
        }
        Self { parameters, buckets }
    }

    /// Values of all parameters together.
    pub fn len(&self) -> usize {
        self.parameters.last().map_or(0, |p| p.range.end)
    }

    /// Whether there is nothing to train.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All parameters, sorted by name.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many values each bucket of a gradient holds.
    pub fn buckets(&self) -> &[usize] {
        &self.buckets
    }
}
