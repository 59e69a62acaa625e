//! Vision Transformer (Dosovitskiy et al. 2020): pre-norm encoder blocks over patches with learned positions.
//!
//! Names and shapes are those of Hugging Face's `ViTForImageClassification`, which knows the class token only; with mean
//! pooling the class token and its position are left out.

use candle_core::{Result, Tensor};
use domain::spec::{Pool, VitSpec};

use crate::layout::{Declaration, Role};
use crate::nn::{self, Dropout, Tape};

/// Added to the variance by every layer norm, as in the paper's code and in the published weights. (Hugging Face's
/// configuration says 1e-12 unless told; the export must say 1e-6.)
pub(crate) const LAYER_NORM_EPS: f32 = 1e-6;

/// The parameters of a network: tensors, or whatever else `build` is asked to make.
pub(crate) struct Vit<T> {
    patch: usize,
    heads: usize,
    classifier: Linear<T>,
    class_token: Option<T>,
    positions: T,
    projection: Linear<T>,
    blocks: Vec<Block<T>>,
    norm: Norm<T>,
}

struct Linear<T> {
    weight: T,
    bias: T,
}

struct Norm<T> {
    gain: T,
    bias: T,
}

struct Block<T> {
    /// Names the dropouts of this block.
    name: String,
    norm_before: Norm<T>,
    query: Linear<T>,
    key: Linear<T>,
    value: Linear<T>,
    attention_output: Linear<T>,
    norm_after: Norm<T>,
    intermediate: Linear<T>,
    output: Linear<T>,
}

impl<T> Vit<T> {
    /// Asks `make` for every parameter, once.
    pub(crate) fn build(spec: &VitSpec, make: &mut impl FnMut(Declaration) -> T) -> Self {
        let [patch, channels, dim, mlp_dim, classes] =
            [spec.patch, spec.channels, spec.dim, spec.mlp_dim, spec.classes].map(|size| size as usize);
        let extra = match spec.pool {
            Pool::ClassToken => 1,
            Pool::Mean => 0,
        };
        let patches = (spec.height / spec.patch) as usize * (spec.width / spec.patch) as usize;
        let embeddings = "vit.embeddings";
        Self {
            patch,
            heads: spec.heads as usize,
            class_token: (extra == 1).then(|| make(declare(embeddings, "cls_token", vec![1, 1, dim], Role::Embedding))),
            positions: make(declare(embeddings, "position_embeddings", vec![1, patches + extra, dim], Role::Embedding)),
            projection: Linear::build(
                make,
                "vit.embeddings.patch_embeddings.projection",
                vec![dim, channels, patch, patch],
            ),
            blocks: (0..spec.depth)
                .map(|i| Block::build(make, format!("vit.encoder.layer.{i}"), dim, mlp_dim))
                .collect(),
            norm: Norm::build(make, "vit.layernorm", dim),
            classifier: Linear::build(make, "classifier", vec![classes, dim]),
        }
    }
}

impl<T> Block<T> {
    fn build(make: &mut impl FnMut(Declaration) -> T, name: String, dim: usize, mlp_dim: usize) -> Self {
        let within = |part: &str| format!("{name}.{part}");
        Self {
            norm_before: Norm::build(make, &within("layernorm_before"), dim),
            query: Linear::build(make, &within("attention.attention.query"), vec![dim, dim]),
            key: Linear::build(make, &within("attention.attention.key"), vec![dim, dim]),
            value: Linear::build(make, &within("attention.attention.value"), vec![dim, dim]),
            attention_output: Linear::build(make, &within("attention.output.dense"), vec![dim, dim]),
            norm_after: Norm::build(make, &within("layernorm_after"), dim),
            intermediate: Linear::build(make, &within("intermediate.dense"), vec![mlp_dim, dim]),
            output: Linear::build(make, &within("output.dense"), vec![dim, mlp_dim]),
            name,
        }
    }
}

impl<T> Linear<T> {
    fn build(make: &mut impl FnMut(Declaration) -> T, name: &str, shape: Vec<usize>) -> Self {
        let out = shape[0];
        Self {
            weight: make(declare(name, "weight", shape, Role::Matrix)),
            bias: make(declare(name, "bias", vec![out], Role::Bias)),
        }
    }
}

impl<T> Norm<T> {
    fn build(make: &mut impl FnMut(Declaration) -> T, name: &str, dim: usize) -> Self {
        Self {
            gain: make(declare(name, "weight", vec![dim], Role::Gain)),
            bias: make(declare(name, "bias", vec![dim], Role::Bias)),
        }
    }
}

fn declare(within: &str, name: &str, shape: Vec<usize>, role: Role) -> Declaration {
    Declaration { name: format!("{within}.{name}"), shape, role }
}

impl Vit<Tensor> {
    /// The logits `[samples, classes]` of `images` `[samples, channels, height, width]`.
    ///
    /// Dropout stands where the paper's appendix B.1 puts it: after every dense layer except for the projections to
    /// queries, keys and values, and right after adding the positions. Its code has no dropout before the head, and
    /// applies the one after the first layer of a perceptron behind the GELU.
    pub(crate) fn forward(
        &self,
        tape: &Tape<'_>,
        images: &[f32],
        shape: [usize; 4],
        dropout: Dropout,
    ) -> Result<Tensor> {
        tape.enter("vit.embeddings");
        let patches = nn::patches(images, shape, self.patch)?;
        let projected = self.projection.forward(tape, &patches)?;
        let embedded = nn::embed(tape, &projected, self.class_token.as_ref(), &self.positions)?;
        let mut x = nn::dropout(tape, embedded, dropout, "vit.embeddings")?;
        for block in &self.blocks {
            tape.enter(&block.name);
            x = block.forward(tape, &x, self.heads, dropout)?;
        }
        tape.enter("classifier");
        // A norm looks at one token at a time, so the others need none where only the first is read.
        let pooled = match self.class_token {
            Some(_) => self.norm.forward(tape, &nn::first_token(tape, &x)?)?,
            None => nn::mean_of_tokens(tape, &self.norm.forward(tape, &x)?)?,
        };
        self.classifier.forward(tape, &pooled)
    }
}

impl Block<Tensor> {
    fn forward(&self, tape: &Tape<'_>, x: &Tensor, heads: usize, dropout: Dropout) -> Result<Tensor> {
        let drop = |x, part: &str| nn::dropout(tape, x, dropout, &format!("{}.{part}", self.name));

        let normed = self.norm_before.forward(tape, x)?;
        let layers = [&self.query, &self.key, &self.value].map(|layer| (&layer.weight, Some(&layer.bias)));
        let qkv = nn::linear_stack(tape, &normed, &layers)?;
        let attended = nn::self_attention(tape, &qkv, heads, nn::Pattern::default())?;
        let attended = self.attention_output.forward(tape, &attended)?;
        let attended = drop(attended, "attention.output")?;
        let Norm { gain, bias } = &self.norm_after;
        let [x, normed] = nn::add_layer_norm(tape, [x, &attended], gain, bias, LAYER_NORM_EPS)?;

        let Linear { weight, bias } = &self.intermediate;
        let hidden =
            nn::linear_activated(tape, &normed, (weight, Some(bias)), nn::Order::OutputsFirst, nn::Activation::Gelu)?;
        let hidden = drop(hidden, "intermediate")?;
        nn::add(tape, &x, &drop(self.output.forward(tape, &hidden)?, "output")?)
    }
}

impl Linear<Tensor> {
    fn forward(&self, tape: &Tape<'_>, x: &Tensor) -> Result<Tensor> {
        nn::linear(tape, x, &self.weight, Some(&self.bias))
    }
}

impl Norm<Tensor> {
    fn forward(&self, tape: &Tape<'_>, x: &Tensor) -> Result<Tensor> {
        nn::layer_norm(tape, x, &self.gain, &self.bias, LAYER_NORM_EPS)
    }
}
