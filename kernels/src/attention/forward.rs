use std::cell::RefCell;

use super::tile::{Right, exponentials, product};
use super::{Forward, Heads, Mask, Problem, Sizes, short};
use crate::fresh;
use crate::gemm::{Matrix, Precision, Start};
use crate::math::{exp, largest, ln};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Queries of a tile. Part of no result without [`Blocks`](super::Blocks): rows do not meet.
const QUERIES: usize = 48;

/// Attention of `q` to `k` and `v`: see [the module](super). In `Bf16`, queries, keys, values and exponentials are rounded where
/// they enter products. A query that sees no key gets zeros.
///
/// # Panics
/// If the sizes do not fit.
pub fn forward(
    sizes: Sizes,
    scale: f32,
    q: Heads<'_>,
    k: Heads<'_>,
    v: Heads<'_>,
    mask: Mask<'_>,
    precision: Precision,
) -> Forward {
    let problem = Problem { sizes, scale, q, k, v, mask, precision };
    problem.check();
    let Sizes { samples, queries, keys, heads, head_dim } = sizes;
    let (groups, width) = (samples * heads, heads * head_dim);
    if groups * queries * keys * head_dim == 0 {
        let log_sums = vec![f32::NEG_INFINITY; groups * queries];
        return Forward { out: vec![0.0; samples * queries * width], log_sums };
    }
    if problem.is_short() {
        return short::forward(&problem);
    }
    let mut log_sums = vec![f32::NEG_INFINITY; groups * queries];
    let (len_k, len_v) = (Right::len(head_dim, keys), Right::len(keys, head_dim));
    let cost = groups * queries * keys * head_dim / 16;
    thread_local!(static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });
    // Taken out of its place: while this thread waits for others it may begin another call.
    let mut packed = PACKED.take();
    let len = groups * (len_k + len_v);
    if packed.len() < len {
        packed.resize(len, 0.0);
    }
    let shared = Shared::new(&mut packed);
    threads::for_each(groups, cost, |group| {
        // SAFETY: each task has a group of its own.
        let packed = unsafe { shared.slice(group * (len_k + len_v), len_k + len_v) };
        let (packed_k, packed_v) = packed.split_at_mut(len_k);
        let [k, v] = [k, v].map(|m| m.matrix(group / heads, group % heads, [0, keys], head_dim));
        Right::pack(k, Problem::score_terms(), precision, packed_k);
        Right::pack(v.transposed(), problem.tile_keys(), precision, packed_v);
    });
    let shared_sums = Shared::new(&mut log_sums);
    let tall = problem.tile_queries(QUERIES);
    let blocks = queries.div_ceil(tall);
    let fill = |out: &mut [std::mem::MaybeUninit<f32>]| {
        let out = Shared::new(out);
        threads::for_each(groups * blocks, cost, |task| {
            let (group, query) = (task / blocks, task % blocks * tall);
            let (sample, head, here) = (group / heads, group % heads, tall.min(queries - query));
            let (packed_k, packed_v) = packed[group * (len_k + len_v)..][..len_k + len_v].split_at(len_k);
            let right_k = Right::packed(packed_k, [head_dim, keys], Problem::score_terms());
            let right_v = Right::packed(packed_v, [keys, head_dim], problem.tile_keys());
            // SAFETY: each task has queries of a group of its own.
            let log_sums = unsafe { shared_sums.slice(group * queries + query, here) };
            rows(&problem, [sample, head], [query, here], [right_k, right_v], log_sums, |row, values, factor| {
                let first = (sample * queries + query + row) * width + head * head_dim;
                // SAFETY: as above.
                let out = unsafe { out.slice(first, head_dim) };
                vectorised(
                    #[inline(always)]
                    || {
                        out.iter_mut().zip(values).for_each(|(out, value)| {
                            out.write(value * factor);
                        });
                    },
                );
            });
        });
    };
    // SAFETY: the tasks cover all queries of all heads.
    let out = unsafe { fresh::written(samples * queries * width, fill) };
    PACKED.set(packed);
    Forward { out, log_sums }
}

/// What is kept of a task for the next one on the same thread.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    sums: Vec<f32>,
    factors: Vec<f32>,
}

/// Attention of some queries of a head: calls `finish` with each row, its values, and what they have yet to be multiplied by.
fn rows(
    problem: &Problem<'_>,
    head: [usize; 2],
    [query, queries]: [usize; 2],
    [k, v]: [Right<'_>; 2],
    log_sums: &mut [f32],
    finish: impl Fn(usize, &[f32], f32),
) {
    thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
    let (dim, stride) = (problem.sizes.head_dim, problem.stride());
    SCRATCH.with_borrow_mut(|Scratch { scores, sums, factors }| {
        scores.resize(queries * stride, 0.0);
        factors.resize(stride, 0.0);
        sums.clear();
        sums.resize(queries * dim, 0.0);
        let mut state = vec![(f32::NEG_INFINITY, 0.0f32); queries];
        for place in problem.tiles(head, [query, queries]) {
            let scale = problem.scores(place, k, scores);
            vectorised(
                #[inline(always)]
                || {
                    for (i, (highest, total)) in state.iter_mut().enumerate() {
                        let (row, hidden) = scores[i * stride..][..place.keys].split_at_mut(problem.visible(place, i));
                        let before = *highest;
                        let here = largest(row) * scale;
                        *highest = if here > before { here } else { before };
                        // If nothing is seen yet, all exponentials are 0.
                        let base = if *highest == f32::NEG_INFINITY { 0.0 } else { *highest };
                        if *highest > before && before > f32::NEG_INFINITY {
                            let shrink = exp(before - base);
                            *total *= shrink;
                            sums[i * dim..][..dim].iter_mut().for_each(|v| *v *= shrink);
                        }
                        *total += exponentials(row, scale, base);
                        hidden.fill(0.0);
                    }
                },
            );
            if let Some(dropout) = problem.mask.dropout {
                for (i, row) in scores.chunks_mut(stride).take(queries).enumerate() {
                    let factors = &mut factors[..place.keys];
                    problem.dropped(dropout, place, i, factors);
                    vectorised(
                        #[inline(always)]
                        || row.iter_mut().zip(factors).for_each(|(v, factor)| *v *= *factor),
                    );
                }
            }
            for (first, here, visible) in problem.parts(place) {
                let values = &scores[first * stride..];
                let left = Matrix { values, rows: here, columns: visible, row_stride: stride, column_stride: 1 };
                let sums = (&mut sums[first * dim..], dim);
                product(left, v, [place.key, 0], dim, sums, Start::Output, problem.precision);
            }
        }
        for (i, (highest, total)) in state.into_iter().enumerate() {
            // No key is seen: zeros, and negative infinity as the logarithm.
            let (factor, log_sum) = if total == 0.0 {
                (0.0, f32::NEG_INFINITY)
            } else {
                let base = if highest == f32::NEG_INFINITY { 0.0 } else { highest };
                (1.0 / total, (f64::from(base) + ln(f64::from(total))) as f32)
            };
            log_sums[i] = log_sum;
            finish(i, &sums[i * dim..][..dim], factor);
        }
    });
}
