use std::cell::RefCell;

use super::tile::{Right, product};
use super::{Gradients, Heads, Mask, Problem, Sizes, short};
use crate::gemm::kernel;
use crate::gemm::{Matrix, Precision, Start};
use crate::math::{dot, exp};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Queries of a tile. Part of the gradients of keys and values.
const QUERIES: usize = 96;

/// The gradients of [`forward`](super::forward()), from the gradient of its output and what it returned; everything else is
/// what it was given. Every element of the gradients is written.
///
/// With `P` the probabilities, `dP = dO V^T` (dropped like them) and `D` the sums of `dO * O` over each row: `dS = P * (dP - D)`
/// is the gradient of the bias, summed over samples in order; `dV = dropout(P)^T dO`, `dQ = scale * dS K`,
/// `dK = scale * dS^T Q`. In `Bf16` all operands of these products are rounded, `P` and `dS` too.
///
/// # Panics
/// If the sizes do not fit.
#[expect(clippy::too_many_arguments, reason = "they are those of the forward pass, and what came of it")]
pub fn backward(
    sizes: Sizes,
    scale: f32,
    q: Heads<'_>,
    k: Heads<'_>,
    v: Heads<'_>,
    mask: Mask<'_>,
    (out, log_sums): (&[f32], &[f32]),
    grad_out: &[f32],
    into: Gradients<'_>,
    precision: Precision,
) {
    let problem = Problem { sizes, scale, q, k, v, mask, precision };
    problem.check();
    let Sizes { samples, queries, keys, heads, head_dim } = sizes;
    let width = heads * head_dim;
    assert_eq!(out.len(), samples * queries * width, "the output is [samples, queries, heads * head_dim]");
    assert_eq!(log_sums.len(), samples * heads * queries, "the sums are [samples, heads, queries]");
    assert_eq!(grad_out.len(), out.len(), "the gradient has the shape of the output");
    into.q.check([samples, queries, width]);
    into.k.check([samples, keys, width]);
    into.v.check([samples, keys, width]);
    assert!(
        into.bias.as_ref().is_none_or(|bias| bias.len() == heads * queries * keys),
        "the bias is [heads, queries, keys]"
    );
    if samples * heads * queries * keys * head_dim > 0 && problem.is_short() {
        return short::backward(&problem, log_sums, grad_out, into);
    }
    let Gradients { q: grad_q, k: grad_k, v: grad_v, bias } = into;
    let cost = samples * heads * (queries + 1) * (keys + 1) * head_dim;
    if cost == 0 {
        if let Some(bias) = bias {
            bias.fill(0.0);
        }
        return;
    }
    let one = |sample: usize, head: usize, bias: Option<&mut [f32]>| {
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { q, k, v, .. } = &mut *scratch;
            for (values, tokens) in [(q, queries), (k, keys), (v, keys)] {
                values.clear();
                values.resize(tokens * head_dim, 0.0);
            }
            if queries * keys > 0 {
                one_head(&problem, [sample, head], (out, log_sums), grad_out, bias, scratch);
            }
            vectorised(
                #[inline(always)]
                || {
                    // SAFETY: each head of a sample is one task's alone.
                    unsafe {
                        grad_q.write([sample, head], &scratch.q, [head_dim; 2], scale);
                        grad_k.write([sample, head], &scratch.k, [head_dim; 2], scale);
                        grad_v.write([sample, head], &scratch.v, [head_dim; 2], 1.0);
                    }
                },
            );
        });
    };
    match bias {
        None => threads::for_each(samples * heads, cost, |task| one(task / heads, task % heads, None)),
        Some(bias) => {
            bias.fill(0.0);
            let shared = Shared::new(bias);
            threads::for_each(heads, cost, |head| {
                // SAFETY: each task has a head of its own.
                let bias = unsafe { shared.slice(head * queries * keys, queries * keys) };
                (0..samples).for_each(|sample| one(sample, head, Some(&mut *bias)));
            });
        }
    }
}

thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());

/// What is kept of a task for the next one on the same thread.
#[derive(Default)]
struct Scratch {
    /// Gradients of a head, yet to be scaled.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Operands.
    packed: Vec<f32>,
    /// A tile of each.
    probabilities: Vec<f32>,
    gradients: Vec<f32>,
    factors: Vec<f32>,
    /// Of each query: see [`backward`].
    deltas: Vec<f32>,
}

/// All tiles of a head, in order.
fn one_head(
    problem: &Problem<'_>,
    [sample, head]: [usize; 2],
    (out, log_sums): (&[f32], &[f32]),
    grad_out: &[f32],
    mut bias: Option<&mut [f32]>,
    scratch: &mut Scratch,
) {
    let Problem { sizes, q, k, v, mask, precision, .. } = *problem;
    let Sizes { queries, keys, heads, head_dim: dim, .. } = sizes;
    let Scratch { q: grad_q, k: grad_k, v: grad_v, packed, probabilities, gradients, factors, deltas } = scratch;
    let (tall, stride) = (problem.tile_queries(QUERIES), problem.stride());
    let grad_out = Heads::dense(grad_out, queries, heads * dim);
    let out = Heads::dense(out, queries, heads * dim);
    let log_sums = &log_sums[(sample * heads + head) * queries..][..queries];

    fn rows<'a>(m: Heads<'a>, place: [usize; 2], tokens: [usize; 2], dim: usize) -> Matrix<'a> {
        m.matrix(place[0], place[1], tokens, dim)
    }
    let place = [sample, head];
    let lens = [Right::len(dim, keys), Right::len(dim, keys), Right::len(keys, dim)];
    let len_rows = Right::len(tall, dim);
    packed.resize(lens.iter().sum::<usize>() + 2 * len_rows, 0.0);
    let (scores_k, rest) = packed.split_at_mut(lens[0]);
    let (scores_v, rest) = rest.split_at_mut(lens[1]);
    let (sums_k, rest) = rest.split_at_mut(lens[2]);
    let (rows_q, rows_out) = rest.split_at_mut(len_rows);
    let scores_k = Right::pack(rows(k, place, [0, keys], dim), Problem::score_terms(), precision, scores_k);
    let scores_v = Right::pack(rows(v, place, [0, keys], dim), Problem::score_terms(), precision, scores_v);
    let sums_k = Right::pack(rows(k, place, [0, keys], dim).transposed(), problem.tile_keys(), precision, sums_k);
    probabilities.resize(tall * stride, 0.0);
    gradients.resize(tall * stride, 0.0);
    factors.resize(stride, 0.0);
    deltas.resize(tall, 0.0);

    for query in (0..queries).step_by(tall) {
        let here = tall.min(queries - query);
        let (q, grad_out, out) = (
            rows(q, place, [query, here], dim),
            rows(grad_out, place, [query, here], dim),
            rows(out, place, [query, here], dim),
        );
        let rows_q = Right::pack(q.transposed(), tall, precision, rows_q);
        let rows_out = Right::pack(grad_out.transposed(), tall, precision, rows_out);
        let row = |m: Matrix<'_>, i: usize| -> std::ops::Range<usize> { i * m.row_stride..i * m.row_stride + dim };
        vectorised(
            #[inline(always)]
            || {
                for (i, delta) in deltas[..here].iter_mut().enumerate() {
                    *delta = dot(&grad_out.values[row(grad_out, i)], &out.values[row(out, i)]);
                }
            },
        );
        for place in problem.tiles([sample, head], [query, here]) {
            let scale = problem.scores(place, scores_k, probabilities);
            for (first, here, visible) in problem.parts(place) {
                let values = &grad_out.values[row(grad_out, first).start..];
                let left = Matrix { values, rows: here, ..grad_out };
                let columns = visible.next_multiple_of(kernel::columns());
                let grads = (&mut gradients[first * stride..], stride);
                product(left, scores_v, [0, place.key], columns, grads, Start::Zero, precision);
            }
            let each = probabilities.chunks_mut(stride).zip(gradients.chunks_mut(stride)).take(here);
            let each = each.enumerate().map(
                #[inline(always)]
                |(i, (row, grads))| {
                    // A query that sees nothing: every probability is 0.
                    let log_sum = match log_sums[query + i] {
                        f32::NEG_INFINITY => f32::INFINITY,
                        log_sum => log_sum,
                    };
                    let visible = problem.visible(place, i);
                    let (row, hidden) = row[..place.keys].split_at_mut(visible);
                    hidden.fill(0.0);
                    let (grads, hidden) = grads[..place.keys].split_at_mut(visible);
                    hidden.fill(0.0);
                    (i, row, grads, log_sum, deltas[i])
                },
            );
            if let Some(dropout) = mask.dropout {
                for (i, row, grads, log_sum, delta) in each {
                    let factors = &mut factors[..place.keys];
                    problem.dropped(dropout, place, i, factors);
                    vectorised(
                        #[inline(always)]
                        || {
                            for ((p, ds), factor) in row.iter_mut().zip(grads).zip(factors) {
                                let probability = exp(p.mul_add(scale, -log_sum));
                                *ds = probability * (*ds * *factor - delta);
                                *p = probability * *factor;
                            }
                        },
                    );
                }
            } else {
                vectorised(
                    #[inline(always)]
                    || {
                        for (_, row, grads, log_sum, delta) in each {
                            for (p, ds) in row.iter_mut().zip(grads) {
                                *p = exp(p.mul_add(scale, -log_sum));
                                *ds = *p * (*ds - delta);
                            }
                        }
                    },
                );
            }
            if let Some(bias) = &mut bias {
                for (i, grads) in gradients.chunks(stride).take(here).enumerate() {
                    let bias = &mut bias[(query + i) * keys + place.key..][..place.keys];
                    vectorised(
                        #[inline(always)]
                        || bias.iter_mut().zip(grads).for_each(|(bias, ds)| *bias += *ds),
                    );
                }
            }
            let (first, end) = (place.key * dim, (place.key + place.keys) * dim);
            let columns = |values| {
                // With all that follows: the kernel reads a little behind the last key.
                Matrix { values, rows: place.keys, columns: here, row_stride: 1, column_stride: stride }
            };
            let add = |left, right, terms, out: &mut [f32]| {
                product(left, right, [terms, 0], dim, (out, dim), Start::Output, precision);
            };
            add(columns(&*probabilities), rows_out, 0, &mut grad_v[first..end]);
            add(columns(&*gradients), rows_q, 0, &mut grad_k[first..end]);
            for (first, here, visible) in problem.parts(place) {
                let values = &gradients[first * stride..];
                let ds = Matrix { values, rows: here, columns: visible, row_stride: stride, column_stride: 1 };
                add(ds, sums_k, place.key, &mut grad_q[(query + first) * dim..][..here * dim]);
            }
        }
    }
}
