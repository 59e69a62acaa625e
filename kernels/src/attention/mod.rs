//! Scaled dot-product attention (Vaswani et al. 2017) in tiles, without ever storing the scores: the forward pass keeps one
//! number for each query, the logarithm of its sum of exponentials, and the backward pass makes the probabilities again from
//! it. The algorithm is that of FlashAttention-2 (Dao 2023, algorithms 1 and 2).
//!
//! For each head: `S = scale * Q K^T + bias`, with what may not be seen at negative infinity; `P` is the softmax of each row
//! of `S`; `out = dropout(P) V`.
//!
//! Rounding: the sizes of the tiles are constants (or follow from [`Blocks`]), sums go over tiles in order, and within a tile
//! as in [`gemm`](crate::gemm). Where there are at most 8 queries and 8 keys, other code without tiles is faster; its sums go over
//! their terms in order.

mod backward;
mod forward;
mod heads;
mod probabilities;
mod short;
#[cfg(test)]
mod tests;
mod tile;

pub use backward::backward;
pub use forward::forward;
pub use heads::{Heads, HeadsMut};
pub use probabilities::probabilities;

use crate::gemm::Precision;

/// How much attention is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Independent sequences.
    pub samples: usize,
    /// Tokens that ask, in each sample.
    pub queries: usize,
    /// Tokens that are asked, in each sample.
    pub keys: usize,
    /// Heads of each token.
    pub heads: usize,
    /// Values of each head.
    pub head_dim: usize,
}

/// Which keys a query sees, and how much of them. The default: all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask<'a> {
    /// Query `i` sees the keys `<= i + keys - queries` alone.
    pub causal: bool,
    /// `[samples, keys]`: whether the key may be seen.
    pub keys: Option<&'a [bool]>,
    /// `[heads, queries, keys]`: added to the scaled scores.
    pub bias: Option<&'a [f32]>,
    /// Which blocks of queries see which blocks of keys.
    pub blocks: Option<Blocks<'a>>,
    /// Drops probabilities.
    pub dropout: Option<Dropout>,
}

/// Which square blocks of scores are seen. With a size that is a multiple of 32 and at most 256, those that are not cost nothing.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    /// Queries, and keys, of a block.
    pub size: usize,
    /// `[ceil(queries / size), ceil(keys / size)]`: whether the block is seen.
    pub seen: &'a [bool],
}

/// Sets probabilities to 0 at random and scales the others up to keep the mean. Which ones is a pure function of the key
/// and of sample, head, query and key token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// In `[0, 1)`.
    pub probability: f32,
    /// Another key, another mask.
    pub key: u64,
}

/// What the forward pass makes.
#[derive(Clone, Debug)]
pub struct Forward {
    /// `[samples, queries, heads * head_dim]`.
    pub out: Vec<f32>,
    /// `[samples, heads, queries]`: the logarithm of the sum of the exponentials of all scores; negative infinity if no
    /// key is seen.
    pub log_sums: Vec<f32>,
}

/// Where the backward pass writes.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// The gradient of the queries.
    pub q: HeadsMut<'a>,
    /// The gradient of the keys.
    pub k: HeadsMut<'a>,
    /// The gradient of the values.
    pub v: HeadsMut<'a>,
    /// The gradient of the bias, `[heads, queries, keys]`, if it is wanted: it is overwritten.
    pub bias: Option<&'a mut [f32]>,
}

/// All that the two passes have in common.
#[derive(Clone, Copy)]
struct Problem<'a> {
    sizes: Sizes,
    scale: f32,
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
    mask: Mask<'a>,
    precision: Precision,
}

impl Problem<'_> {
    /// Panics if something does not fit.
    fn check(&self) {
        let Sizes { samples, queries, keys, heads, head_dim } = self.sizes;
        self.q.check([samples, queries, heads * head_dim]);
        self.k.check([samples, keys, heads * head_dim]);
        self.v.check([samples, keys, heads * head_dim]);
        let Mask { causal: _, keys: seen, bias, blocks, dropout } = self.mask;
        assert!(seen.is_none_or(|seen| seen.len() == samples * keys), "the mask of keys is [samples, keys]");
        assert!(bias.is_none_or(|bias| bias.len() == heads * queries * keys), "the bias is [heads, queries, keys]");
        if let Some(Blocks { size, seen }) = blocks {
            assert!(size > 0, "blocks are not empty");
            assert_eq!(seen.len(), queries.div_ceil(size) * keys.div_ceil(size), "blocks cover all queries and keys");
        }
        assert!(dropout.is_none_or(|d| (0.0..1.0).contains(&d.probability)), "a share below 1 is dropped");
    }
}
