use std::ops::Range;

use domain::spec::ModelSpec;

use crate::vit;

/// Where every parameter of a model stands in a flat vector of all its values: sorted by name, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    parameters: Vec<Parameter>,
}

/// A trainable tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in Hugging Face's implementation of the architecture.
    pub name: String,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
    /// Where its values stand in a flat vector, row-major.
    pub range: Range<usize>,
    /// Whether it is a weight matrix or convolution kernel: not a bias, norm, position or class token.
    pub decays: bool,
}

/// A parameter as an architecture asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
}

/// What a parameter is for; decides how it starts and whether it decays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A weight matrix or convolution kernel.
    Matrix,
    /// A learned token or table of positions.
    Embedding,
    /// The gain of a norm.
    Gain,
    /// An offset.
    Bias,
}

impl Layout {
    /// The layout of the model that `spec` describes; allocates no weights.
    pub fn new(spec: &ModelSpec) -> Self {
        let mut declared = Vec::new();
        match spec {
            ModelSpec::Vit(spec) => drop(vit::Vit::build(spec, &mut |declaration| declared.push(declaration))),
        }
        Self::of(declared)
    }

    pub(crate) fn of(mut declared: Vec<Declaration>) -> Self {
        declared.sort_by(|a, b| a.name.cmp(&b.name));
        debug_assert!(declared.windows(2).all(|pair| pair[0].name != pair[1].name), "a name is used twice");
        let mut end = 0;
        let place = |Declaration { name, shape, role }| {
            let start = end;
            end += shape.iter().product::<usize>();
            Parameter { name, shape, range: start..end, decays: role == Role::Matrix }
        };
        Self { parameters: declared.into_iter().map(place).collect() }
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
}
