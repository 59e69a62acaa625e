//! Multi-head scaled dot-product attention (Vaswani et al. 2017), all heads in one operator: the heads are read where
//! they stand, so that nothing is transposed or copied, and probabilities are made again on the way back instead of kept.

use candle_core::{Result, Tensor, TensorId, bail};
use kernels::attention::{self, Gradients as Into, Heads, HeadsMut, Mask, Sizes};
use kernels::fresh;

use super::dropout::Dropped;
use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of};
use crate::inspect::Attended;

/// Which keys a query sees, and what is added to the scores.
#[derive(Clone, Default)]
pub struct Pattern {
    /// Query `i` sees the keys up to `i + keys - queries`.
    pub causal: bool,
    /// For each sample and key whether it may be seen: false for padding.
    pub keys: Option<Vec<bool>>,
    /// Added to the scaled scores: `[heads, queries, keys]`.
    pub bias: Option<Tensor>,
    /// Which blocks of queries see which blocks of keys.
    pub blocks: Option<Blocks>,
    /// Which probabilities are dropped: [`Dropout::at`](super::Dropout::at) the place of the layer.
    pub dropout: Option<Dropped>,
}

/// A pattern of blocks, such as that of a sparse Transformer (Child et al. 2019).
#[derive(Clone)]
pub struct Blocks {
    /// Queries, and keys, of a block.
    pub size: usize,
    /// `[blocks of queries, blocks of keys]`.
    pub seen: Vec<bool>,
}

/// `softmax(q k^T / sqrt(width of a head)) v` for each of `heads` heads. `qkv` is `[samples, tokens, 3 * dim]`: queries,
/// keys and values of a token next to each other, head `h` being the columns from `h * dim / heads` on. Gives `[samples,
/// tokens, dim]`.
pub fn self_attention(tape: &Tape<'_>, qkv: &Tensor, heads: usize, pattern: Pattern) -> Result<Tensor> {
    let (samples, tokens, width) = qkv.dims3()?;
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        bail!("{heads} heads do not divide queries, keys and values of {width}")
    }
    let dim = width / 3;
    let sizes = Sizes { samples, queries: tokens, keys: tokens, heads, head_dim: dim / heads };
    check(&pattern, sizes)?;
    run(tape, Sources::Together(qkv.clone()), sizes, pattern)
}

/// The same with queries `[samples, queries, dim]` and other tokens' keys and values `[samples, keys, dim]`.
pub fn cross_attention(
    tape: &Tape<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    pattern: Pattern,
) -> Result<Tensor> {
    let (samples, queries, dim) = q.dims3()?;
    let (_, keys, _) = k.dims3()?;
    if k.dims() != [samples, keys, dim] || v.dims() != k.dims() || heads == 0 || !dim.is_multiple_of(heads) {
        bail!("attention of {heads} heads does not fit {:?}, {:?} and {:?}", q.dims(), k.dims(), v.dims())
    }
    let sizes = Sizes { samples, queries, keys, heads, head_dim: dim / heads };
    check(&pattern, sizes)?;
    run(tape, Sources::Apart([q, k, v].map(Tensor::clone)), sizes, pattern)
}

fn check(pattern: &Pattern, sizes: Sizes) -> Result<()> {
    let Sizes { samples, queries, keys, heads, .. } = sizes;
    if let Some(dropped) = pattern.dropout {
        dropped.check()?;
    }
    let keys_fit = pattern.keys.as_ref().is_none_or(|seen| seen.len() == samples * keys);
    let bias_fits = pattern.bias.as_ref().is_none_or(|bias| bias.dims() == [heads, queries, keys]);
    let blocks_fit = pattern
        .blocks
        .as_ref()
        .is_none_or(|Blocks { size, seen }| *size > 0 && seen.len() == queries.div_ceil(*size) * keys.div_ceil(*size));
    if !keys_fit || !bias_fits || !blocks_fit {
        bail!("a pattern does not fit {samples} samples of {queries} queries and {keys} keys")
    }
    Ok(())
}

/// Where queries, keys and values are.
enum Sources {
    Together(Tensor),
    Apart([Tensor; 3]),
}

impl Sources {
    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Sources::Together(qkv) => vec![qkv],
            Sources::Apart(all) => all.iter().collect(),
        }
    }

    /// Calls `work` with queries, keys and values.
    fn with<R>(&self, sizes: Sizes, work: impl FnOnce([Heads<'_>; 3]) -> R) -> Result<R> {
        let values: Vec<Values<'_>> = self.tensors().into_iter().map(Values::of).collect();
        let rows: Vec<_> = values.iter().map(Values::rows).collect::<Result<_>>()?;
        let dim = sizes.heads * sizes.head_dim;
        Ok(match &rows[..] {
            [qkv] => work(Heads::thirds(qkv, sizes.queries, dim)),
            [q, k, v] => work([
                Heads::dense(q, sizes.queries, dim),
                Heads::dense(k, sizes.keys, dim),
                Heads::dense(v, sizes.keys, dim),
            ]),
            _ => unreachable!("one tensor or three"),
        })
    }
}

fn run(tape: &Tape<'_>, sources: Sources, sizes: Sizes, pattern: Pattern) -> Result<Tensor> {
    let Sizes { samples, queries, keys, heads, head_dim } = sizes;
    let operations = 4 * (samples * heads * queries * keys * head_dim) as u64 / if pattern.causal { 2 } else { 1 };
    let operator = Attention { sources, sizes, pattern, forward: None };
    tape.tell(|scope| operator.attended(scope))?;
    let mut inputs: Vec<Tensor> = operator.sources.tensors().into_iter().cloned().collect();
    inputs.extend(operator.pattern.bias.clone());
    tape.run("attention", operations, &inputs.iter().collect::<Vec<_>>(), |keep| {
        let mut operator = operator;
        let attention::Forward { out, log_sums } = operator.with_mask(|mask| {
            operator
                .sources
                .with(sizes, |[q, k, v]| attention::forward(sizes, operator.scale(), q, k, v, mask, tape.precision()))
        })??;
        let out = tensor_of(out, (samples, queries, heads * head_dim))?;
        operator.forward = Some((out.clone(), log_sums));
        Ok((out, keep.then_some(operator)))
    })
}

struct Attention {
    sources: Sources,
    sizes: Sizes,
    pattern: Pattern,
    /// The output, and the logarithm of the sum of exponentials of every query's scores.
    forward: Option<(Tensor, Vec<f32>)>,
}

/// The gradients of queries, keys and values, as one tensor or three, and of the bias.
type OfInputs = (Vec<Vec<f32>>, Option<Vec<f32>>);

impl Attention {
    fn scale(&self) -> f32 {
        1.0 / (self.sizes.head_dim as f32).sqrt()
    }

    fn with_mask<R>(&self, work: impl FnOnce(Mask<'_>) -> R) -> Result<R> {
        let bias = self.pattern.bias.as_ref().map(Values::of);
        let bias_rows = bias.as_ref().map(Values::rows).transpose()?;
        let blocks = self.pattern.blocks.as_ref().map(|Blocks { size, seen }| attention::Blocks { size: *size, seen });
        let dropped = |Dropped { probability, key }| attention::Dropout { probability, key };
        Ok(work(Mask {
            causal: self.pattern.causal,
            keys: self.pattern.keys.as_deref(),
            bias: bias_rows.as_deref(),
            blocks,
            dropout: self.pattern.dropout.map(dropped),
        }))
    }

    /// What the heads look at: the probabilities in double precision, without dropout. The operator itself never holds them
    /// all, so they are made again.
    fn attended(&self, scope: String) -> Result<Attended> {
        let Sizes { samples, queries, keys, heads, head_dim: _ } = self.sizes;
        let mut probabilities = vec![0.0; samples * heads * queries * keys];
        self.with_mask(|mask| {
            self.sources.with(self.sizes, |[q, k, _]| {
                attention::probabilities(self.sizes, self.scale(), q, k, mask, &mut probabilities);
            })
        })??;
        Ok(Attended { scope, samples, heads, queries, keys, probabilities })
    }

    fn gradients(&self, gradient: &[f32], to: &Gradients<'_>) -> Result<OfInputs> {
        let sizes = self.sizes;
        let dim = sizes.heads * sizes.head_dim;
        let (out, log_sums) = self.forward.as_ref().expect("an operator is recorded after its forward pass");
        let out = Values::of(out);
        let out = out.rows()?;
        let mut of_bias =
            self.pattern.bias.as_ref().filter(|bias| to.wants(bias.id())).map(|bias| vec![0.0; bias.elem_count()]);
        let precision = to.precision();
        let backward = |q: HeadsMut<'_>, k: HeadsMut<'_>, v: HeadsMut<'_>, bias: Option<&mut [f32]>| {
            self.with_mask(|mask| {
                self.sources.with(sizes, |[query, key, value]| {
                    let into = Into { q, k, v, bias };
                    let saved = (&out[..], &log_sums[..]);
                    attention::backward(sizes, self.scale(), query, key, value, mask, saved, gradient, into, precision);
                })
            })?
        };
        let of_sources = match &self.sources {
            Sources::Together(qkv) => {
                let mut result = Ok(());
                // SAFETY: the heads of queries, keys and values are all columns of it, and all of them are written.
                let of_qkv = unsafe {
                    fresh::written(qkv.elem_count(), |values| {
                        let [q, k, v] = HeadsMut::thirds(values, sizes.queries, dim);
                        result = backward(q, k, v, of_bias.as_deref_mut());
                    })
                };
                result?;
                vec![of_qkv]
            }
            Sources::Apart([q, k, v]) => {
                let mut of_v = Vec::new();
                let mut of_k = Vec::new();
                let mut result = Ok(());
                // SAFETY: the heads of the queries are all columns of it, and all of them are written; so for keys and values.
                let of_q = unsafe {
                    fresh::written(q.elem_count(), |q| {
                        of_k = fresh::written(k.elem_count(), |k| {
                            of_v = fresh::written(v.elem_count(), |v| {
                                let (q, k) =
                                    (HeadsMut::dense(q, sizes.queries, dim), HeadsMut::dense(k, sizes.keys, dim));
                                let v = HeadsMut::dense(v, sizes.keys, dim);
                                result = backward(q, k, v, of_bias.as_deref_mut());
                            });
                        });
                    })
                };
                result?;
                vec![of_q, of_k, of_v]
            }
        };
        Ok((of_sources, of_bias))
    }
}

impl Operator for Attention {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let (of_sources, of_bias) = self.gradients(&gradient, to)?;
        let ids: Vec<TensorId> = self.sources.tensors().into_iter().map(Tensor::id).collect();
        ids.into_iter().zip(of_sources).for_each(|(id, gradient)| to.add(id, gradient));
        if let (Some(bias), Some(gradient)) = (&self.pattern.bias, of_bias) {
            to.add(bias.id(), gradient);
        }
        Ok(())
    }
}
