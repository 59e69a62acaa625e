//! Attention among few tokens: a head at a time, all of it in the first cache. Next to no packing, and no sum across a vector:
//! scores lie with a row for each key, so that queries are side by side in all that happens to them.
//!
//! Rounding: every sum goes over its terms in order, by fused multiply-adds starting at 0.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use super::tile::Place;
use super::{Blocks, Dropout, Forward, Gradients, Heads, HeadsMut, Mask, Problem, Sizes};
use crate::fresh;
use crate::gemm::{Precision, bf16};
use crate::math::{exp, ln};
use crate::simd::vectorised;
use crate::threads::{self, Shared};

/// Most queries, and most keys, that are few: beyond, tiles are as fast. Part of the results: it chooses how they are rounded.
/// A row of scores has room for so many queries, and rows of scratch memory are multiples of it.
const LANES: usize = 8;

/// Products of queries, keys and values that one task makes at least: handing fewer over costs more than it gains.
const TASK: usize = 1 << 15;

impl Problem<'_> {
    /// Whether there are so few tokens that this module is faster than tiles.
    pub(super) fn is_short(&self) -> bool {
        self.sizes.queries <= LANES && self.sizes.keys <= LANES
    }

    /// Heads of samples that one task attends to.
    fn groups_of_task(&self) -> usize {
        let Sizes { queries, keys, head_dim, .. } = self.sizes;
        TASK.div_ceil(queries * keys * head_dim)
    }

    /// By what the probabilities of a head are multiplied, a row for each key: see [`Problem::dropped`].
    fn few_dropped(&self, dropout: Dropout, [sample, head]: [usize; 2], factors: &mut Vec<f32>) {
        let Sizes { queries, keys, .. } = self.sizes;
        factors.resize(keys * LANES, 0.0);
        let place = Place { sample, head, query: 0, queries, key: 0, keys };
        let mut row = [0.0; LANES];
        for query in 0..queries {
            self.dropped(dropout, place, query, &mut row[..keys]);
            row[..keys].iter().enumerate().for_each(|(key, factor)| factors[key * LANES + query] = *factor);
        }
    }
}

/// What is kept of a task for the next one on the same thread.
#[derive(Default)]
struct Scratch {
    /// The operands, a row for each token.
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    grad_out: Vec<f32>,
    /// The other way round: a row for each value of the head.
    columns: Vec<f32>,
    /// A row for each key.
    probabilities: Vec<f32>,
    gradients: Vec<f32>,
    factors: Vec<f32>,
    /// Results, a row for each token.
    out: Vec<f32>,
}

thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());

/// [`forward`](super::forward()) for few tokens, all sizes above 0.
pub(super) fn forward(problem: &Problem<'_>) -> Forward {
    let Sizes { samples, queries, keys, heads, head_dim } = problem.sizes;
    let (groups, each, width) = (samples * heads, problem.groups_of_task(), heads * head_dim);
    let mut log_sums = vec![f32::NEG_INFINITY; groups * queries];
    let shared_sums = Shared::new(&mut log_sums);
    let fill = |out: &mut [MaybeUninit<f32>]| {
        let out = Shared::new(out);
        threads::for_each(groups.div_ceil(each), groups * queries * keys * head_dim / 4, |task| {
            SCRATCH.with_borrow_mut(|scratch| {
                for group in task * each..groups.min((task + 1) * each) {
                    // SAFETY: each task has groups of its own.
                    let sums = unsafe { shared_sums.slice(group * queries, queries) };
                    one_forward(problem, [group / heads, group % heads], sums, scratch);
                    let rows = scratch.out.chunks_exact(wide(head_dim)).take(queries).enumerate();
                    vectorised(
                        #[inline(always)]
                        || {
                            for (query, row) in rows {
                                let first = (group / heads * queries + query) * width + group % heads * head_dim;
                                // SAFETY: as above.
                                let out = unsafe { out.slice(first, head_dim) };
                                out.iter_mut().zip(row).for_each(|(out, value)| _ = out.write(*value));
                            }
                        },
                    );
                }
            });
        });
    };
    // SAFETY: the tasks cover all queries of all heads.
    let out = unsafe { fresh::written(samples * queries * width, fill) };
    Forward { out, log_sums }
}

/// [`backward`](super::backward()) for few tokens, all sizes above 0.
pub(super) fn backward(problem: &Problem<'_>, log_sums: &[f32], grad_out: &[f32], into: Gradients<'_>) {
    let Sizes { samples, queries, keys, heads, head_dim } = problem.sizes;
    let (groups, cost) = (samples * heads, samples * heads * queries * keys * head_dim);
    let grad_out = Heads::dense(grad_out, queries, heads * head_dim);
    let Gradients { q, k, v, bias } = into;
    let one = |sample: usize, head: usize, bias: Option<&mut [f32]>, scratch: &mut Scratch| {
        let log_sums = &log_sums[(sample * heads + head) * queries..][..queries];
        let place = [sample, head];
        scores_of(problem, place, log_sums, grad_out, scratch);
        if let Some(bias) = bias {
            add_transposed(&scratch.gradients, keys, bias);
        }
        round(problem.precision, &mut scratch.probabilities);
        round(problem.precision, &mut scratch.gradients);
        let Scratch { q: of_q, k: of_k, grad_out, probabilities, gradients, out, .. } = scratch;
        // A row of scores belongs to a key.
        let (by_key, by_query) = ([LANES, 1], [1, LANES]);
        let sizes_q = [queries, keys, head_dim];
        let sizes_k = [keys, queries, head_dim];
        let write = |into: &HeadsMut<'_>, values: &[f32], scale: f32| {
            vectorised(
                #[inline(always)]
                || {
                    // SAFETY: each head of a sample is one task's alone.
                    unsafe { into.write(place, values, [wide(head_dim), head_dim], scale) }
                },
            );
        };
        product((gradients, by_query), of_k, sizes_q, out);
        write(&q, out, problem.scale);
        product((gradients, by_key), of_q, sizes_k, out);
        write(&k, out, problem.scale);
        product((probabilities, by_key), grad_out, sizes_k, out);
        write(&v, out, 1.0);
    };
    let Some(bias) = bias else {
        let each = problem.groups_of_task();
        return threads::for_each(groups.div_ceil(each), cost, |task| {
            SCRATCH.with_borrow_mut(|scratch| {
                let groups = task * each..groups.min((task + 1) * each);
                groups.for_each(|group| one(group / heads, group % heads, None, scratch));
            });
        });
    };
    bias.fill(0.0);
    let shared = Shared::new(bias);
    threads::for_each(heads, cost, |head| {
        // SAFETY: each task has a head of its own.
        let bias = unsafe { shared.slice(head * queries * keys, queries * keys) };
        SCRATCH.with_borrow_mut(|scratch| (0..samples).for_each(|s| one(s, head, Some(&mut *bias), scratch)));
    });
}

/// Values of a row of scratch memory for `count` that count; the others are 0 or anything finite.
fn wide(count: usize) -> usize {
    count.next_multiple_of(LANES)
}

/// The output of a head, in `scratch.out`, and its sums.
fn one_forward(problem: &Problem<'_>, place: [usize; 2], log_sums: &mut [f32], scratch: &mut Scratch) {
    let Sizes { queries, keys, head_dim, .. } = problem.sizes;
    raw_scores(problem, place, scratch);
    let Scratch { v, probabilities, factors, out, .. } = scratch;
    gather(problem.v, place, [keys, head_dim], problem.precision, v);
    vectorised(
        #[inline(always)]
        || softmax(probabilities, log_sums),
    );
    if let Some(dropout) = problem.mask.dropout {
        problem.few_dropped(dropout, place, factors);
        vectorised(
            #[inline(always)]
            || probabilities.iter_mut().zip(&*factors).for_each(|(p, factor)| *p *= *factor),
        );
    }
    round(problem.precision, probabilities);
    product((probabilities, [1, LANES]), v, [queries, keys, head_dim], out);
}

/// The scaled, masked scores of a head, in `scratch.probabilities`; queries and keys stay in their places, too.
fn raw_scores(problem: &Problem<'_>, [sample, head]: [usize; 2], scratch: &mut Scratch) {
    let Sizes { queries, keys, head_dim, .. } = problem.sizes;
    let Scratch { q, k, columns, probabilities: scores, .. } = scratch;
    gather(problem.q, [sample, head], [queries, head_dim], problem.precision, q);
    gather(problem.k, [sample, head], [keys, head_dim], problem.precision, k);
    transpose(q, [queries, head_dim], columns);
    product((k, [wide(head_dim), 1]), columns, [keys, head_dim, LANES], scores);
    let Mask { causal, keys: seen, bias, blocks, dropout: _ } = problem.mask;
    vectorised(
        #[inline(always)]
        || scores.iter_mut().for_each(|score| *score *= problem.scale),
    );
    if let Some(bias) = bias {
        for (query, bias) in bias[head * queries * keys..].chunks_exact(keys).take(queries).enumerate() {
            bias.iter().enumerate().for_each(|(key, bias)| scores[key * LANES + query] += bias);
        }
    }
    let hide = |score: &mut f32| *score = f32::NEG_INFINITY;
    for (key, row) in scores.chunks_exact_mut(LANES).enumerate() {
        if causal {
            // The first query that sees the key.
            let first = (key + queries).saturating_sub(keys).min(queries);
            row[..first].iter_mut().for_each(hide);
        }
        if seen.is_some_and(|seen| !seen[sample * keys + key]) {
            row.iter_mut().for_each(hide);
        }
        if let Some(Blocks { size, seen }) = blocks {
            let across = keys.div_ceil(size);
            let hidden = |(query, _): &(usize, &mut f32)| !seen[query / size * across + key / size];
            row[..queries].iter_mut().enumerate().filter(hidden).for_each(|(_, score)| hide(score));
        }
    }
}

/// Turns scores into probabilities, and gives the logarithms of the sums of their exponentials.
#[inline(always)]
fn softmax(scores: &mut [f32], log_sums: &mut [f32]) {
    let (scores, _) = scores.as_chunks_mut::<LANES>();
    let (mut highest, mut total) = ([f32::NEG_INFINITY; LANES], [0.0f32; LANES]);
    for row in scores.iter() {
        for i in 0..LANES {
            highest[i] = if row[i] > highest[i] { row[i] } else { highest[i] };
        }
    }
    // If nothing is seen, all exponentials are 0.
    let base = highest.map(|highest| if highest == f32::NEG_INFINITY { 0.0 } else { highest });
    for row in scores.iter_mut() {
        for i in 0..LANES {
            row[i] = exp(row[i] - base[i]);
            total[i] += row[i];
        }
    }
    let factor = total.map(|total| if total == 0.0 { 0.0 } else { 1.0 / total });
    for row in scores {
        row.iter_mut().zip(factor).for_each(|(p, factor)| *p *= factor);
    }
    for ((log_sum, base), total) in log_sums.iter_mut().zip(base).zip(total) {
        if total != 0.0 {
            *log_sum = (f64::from(base) + ln(f64::from(total))) as f32;
        }
    }
}

/// For the backward pass of a head: what the gradient of the values is made of, in `scratch.probabilities`, and the gradients of
/// the scores, in `scratch.gradients`; queries, keys and the gradient of the output stay in their places.
fn scores_of(problem: &Problem<'_>, place: [usize; 2], log_sums: &[f32], grad_out: Heads<'_>, scratch: &mut Scratch) {
    let Sizes { queries, keys, head_dim, .. } = problem.sizes;
    raw_scores(problem, place, scratch);
    let Scratch { v, grad_out: grad, columns, probabilities, gradients, factors, .. } = scratch;
    gather(problem.v, place, [keys, head_dim], problem.precision, v);
    gather(grad_out, place, [queries, head_dim], problem.precision, grad);
    transpose(grad, [queries, head_dim], columns);
    product((v, [wide(head_dim), 1]), columns, [keys, head_dim, LANES], gradients);
    let factors = problem.mask.dropout.map(|dropout| {
        problem.few_dropped(dropout, place, factors);
        &**factors
    });
    // Of queries that are not there, or that see nothing, every probability is 0.
    let mut sums = [f32::INFINITY; LANES];
    for (sum, known) in sums.iter_mut().zip(log_sums) {
        *sum = if *known == f32::NEG_INFINITY { f32::INFINITY } else { *known };
    }
    vectorised(
        #[inline(always)]
        || {
            let (probabilities, gradients) =
                (probabilities.as_chunks_mut::<LANES>().0, gradients.as_chunks_mut::<LANES>().0);
            let factors = factors.map(|factors| factors.as_chunks::<LANES>().0);
            let mut deltas = [0.0f32; LANES];
            for (key, (p, grads)) in probabilities.iter_mut().zip(gradients.iter_mut()).enumerate() {
                if let Some(factors) = factors {
                    grads.iter_mut().zip(factors[key]).for_each(|(g, factor)| *g *= factor);
                }
                for i in 0..LANES {
                    p[i] = exp(p[i] - sums[i]);
                    deltas[i] = p[i].mul_add(grads[i], deltas[i]);
                }
            }
            for (key, (p, grads)) in probabilities.iter_mut().zip(gradients).enumerate() {
                for i in 0..LANES {
                    grads[i] = p[i] * (grads[i] - deltas[i]);
                }
                if let Some(factors) = factors {
                    p.iter_mut().zip(factors[key]).for_each(|(p, factor)| *p *= factor);
                }
            }
        },
    );
}

/// Copies a head to rows of its own, rounded as it enters products.
fn gather(
    from: Heads<'_>,
    [sample, head]: [usize; 2],
    [tokens, dim]: [usize; 2],
    precision: Precision,
    into: &mut Vec<f32>,
) {
    into.resize(tokens * wide(dim), 0.0);
    let start = sample * from.sample_stride + head * dim;
    vectorised(
        #[inline(always)]
        || {
            for (token, row) in into.chunks_exact_mut(wide(dim)).enumerate() {
                let values = &from.values[start + token * from.token_stride..][..dim];
                let (whole, rest) = values.as_chunks::<LANES>();
                let (rows, _) = row.as_chunks_mut::<LANES>();
                rows.iter_mut().zip(whole).for_each(|(row, values)| *row = *values);
                if !rest.is_empty() {
                    let (last, zeros) = rows[whole.len()].split_at_mut(rest.len());
                    last.copy_from_slice(rest);
                    zeros.fill(0.0);
                }
            }
        },
    );
    round(precision, into);
}

/// Rounds values that enter a product.
fn round(precision: Precision, values: &mut [f32]) {
    if precision == Precision::Bf16 {
        vectorised(
            #[inline(always)]
            || values.iter_mut().for_each(|value| *value = bf16::rounded(*value)),
        );
    }
}

/// `[dim, tokens]` of `[tokens, dim]`, in rows of scratch memory.
fn transpose(from: &[f32], [tokens, dim]: [usize; 2], into: &mut Vec<f32>) {
    into.resize(wide(dim) * LANES, 0.0);
    vectorised(
        #[inline(always)]
        || {
            let (columns, _) = into.as_chunks_mut::<LANES>();
            for (i, columns) in columns.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut rows = [[0.0; LANES]; LANES];
                for (row, from) in rows.iter_mut().zip(from.chunks_exact(wide(dim)).take(tokens)) {
                    row.copy_from_slice(&from[i * LANES..][..LANES]);
                }
                for j in 0..LANES {
                    for i in 0..LANES {
                        columns[j][i] = rows[i][j];
                    }
                }
            }
        },
    );
}

/// Adds `[queries, keys]` of scores that have a row for each key.
fn add_transposed(scores: &[f32], keys: usize, into: &mut [f32]) {
    for (query, into) in into.chunks_exact_mut(keys).enumerate() {
        into.iter_mut().enumerate().for_each(|(key, into)| *into += scores[key * LANES + query]);
    }
}

/// `out = left * right`: `rows` rows of `columns` sums of `terms` products, `right` and `out` in rows of scratch memory. The left
/// operand has its strides from row to row and from term to term.
fn product(
    (left, strides): (&[f32], [usize; 2]),
    right: &[f32],
    [rows, terms, columns]: [usize; 3],
    out: &mut Vec<f32>,
) {
    /// Rows whose sums are in registers at a time.
    const ROWS: usize = 6;
    let columns = wide(columns);
    out.resize(rows * columns, 0.0);
    assert!((rows - 1) * strides[0] + (terms - 1) * strides[1] < left.len(), "the left operand is whole");
    assert!(terms * columns <= right.len(), "the right operand is whole");
    vectorised(
        #[inline(always)]
        || {
            for (i, out) in out.chunks_mut(ROWS * columns).enumerate() {
                let left = (&left[i * ROWS * strides[0]..], strides);
                // SAFETY: inside of the operands, as asserted: these are some of the rows.
                unsafe {
                    match out.len() / columns {
                        6 => panel::<6>(left, right, [terms, columns], out),
                        5 => panel::<5>(left, right, [terms, columns], out),
                        4 => panel::<4>(left, right, [terms, columns], out),
                        3 => panel::<3>(left, right, [terms, columns], out),
                        2 => panel::<2>(left, right, [terms, columns], out),
                        _ => panel::<1>(left, right, [terms, columns], out),
                    }
                }
            }
        },
    );
}

/// `R` rows of a product.
///
/// # Safety
/// The operands have as many rows, terms and columns.
#[inline(always)]
unsafe fn panel<const R: usize>(
    left: (&[f32], [usize; 2]),
    right: &[f32],
    [terms, columns]: [usize; 2],
    out: &mut [f32],
) {
    let mut column = 0;
    while column + 2 * LANES <= columns {
        // SAFETY: as the caller promises.
        unsafe { tile::<R, 2>(left, right, [terms, columns], column, out) };
        column += 2 * LANES;
    }
    if column < columns {
        // SAFETY: as the caller promises.
        unsafe { tile::<R, 1>(left, right, [terms, columns], column, out) };
    }
}

/// `R` rows of `C` groups of columns.
///
/// # Safety
/// The operands have as many rows, terms and columns.
#[inline(always)]
unsafe fn tile<const R: usize, const C: usize>(
    (left, [row_stride, term_stride]): (&[f32], [usize; 2]),
    right: &[f32],
    [terms, columns]: [usize; 2],
    column: usize,
    out: &mut [f32],
) {
    let mut sums = [[[0.0f32; LANES]; C]; R];
    for term in 0..terms {
        // SAFETY: inside of the operands, as the caller promises.
        let (right, left) = unsafe {
            let right = right.as_ptr().add(term * columns + column).cast::<[[f32; LANES]; C]>().read_unaligned();
            (right, left.as_ptr().add(term * term_stride))
        };
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let left = unsafe { *left.add(row * row_stride) };
            for (sums, right) in sums.iter_mut().zip(&right) {
                sums.iter_mut().zip(right).for_each(|(sum, right)| *sum = left.mul_add(*right, *sum));
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * columns + column..][..C * LANES];
        out.as_chunks_mut().0.iter_mut().zip(sums).for_each(|(out, sums)| *out = *sums);
    }
}
