use super::{Blocks, Heads, Mask, Sizes};
use crate::threads;

/// The probabilities of attention for a person to look at: each row of `out`, `[samples, heads, queries, keys]`, is the
/// softmax of a query's scores, in double precision and then rounded, without dropout. A query that sees no key has a row of
/// zeros. What trains never needs them.
///
/// # Panics
/// If something does not fit.
pub fn probabilities(sizes: Sizes, scale: f32, q: Heads<'_>, k: Heads<'_>, mask: Mask<'_>, out: &mut [f32]) {
    let Sizes { samples, queries, keys, heads, head_dim } = sizes;
    q.check([samples, queries, heads * head_dim]);
    k.check([samples, keys, heads * head_dim]);
    assert_eq!(out.len(), samples * heads * queries * keys, "probabilities are [samples, heads, queries, keys]");
    if out.is_empty() {
        return;
    }
    threads::pieces(out, keys, |row, out| {
        let (query, head, sample) = (row % queries, row / queries % heads, row / queries / heads);
        let at =
            |from: Heads<'_>, token: usize| sample * from.sample_stride + token * from.token_stride + head * head_dim;
        let asks = &q.values[at(q, query)..][..head_dim];
        let score = |key: usize| {
            let asked = &k.values[at(k, key)..][..head_dim];
            let product: f64 = asks.iter().zip(asked).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let bias = mask.bias.map_or(0.0, |bias| f64::from(bias[(head * queries + query) * keys + key]));
            if sees(mask, sizes, [sample, query, key]) { f64::from(scale) * product + bias } else { f64::NEG_INFINITY }
        };
        let mut scores: Vec<f64> = (0..keys).map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if most == f64::NEG_INFINITY && !scores.iter().any(|score| score.is_nan()) {
            return out.fill(0.0);
        }
        scores.iter_mut().for_each(|score| *score = (*score - most).exp());
        let sum: f64 = scores.iter().sum();
        out.iter_mut().zip(scores).for_each(|(out, score)| *out = (score / sum) as f32);
    });
}

fn sees(mask: Mask<'_>, sizes: Sizes, [sample, query, key]: [usize; 3]) -> bool {
    let Sizes { queries, keys, .. } = sizes;
    let Mask { causal, keys: seen, bias: _, blocks, dropout: _ } = mask;
    let in_time = !causal || key + queries <= query + keys;
    let in_block = |Blocks { size, seen }: Blocks<'_>| seen[query / size * keys.div_ceil(size) + key / size];
    in_time && seen.is_none_or(|seen| seen[sample * keys + key]) && blocks.is_none_or(in_block)
}
