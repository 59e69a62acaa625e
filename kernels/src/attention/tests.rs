use proptest::prelude::*;

use super::*;
use crate::fresh;

fn values(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Gradients of queries, keys, values, and bias.
type Grads = [Vec<f32>; 4];

struct Case {
    sizes: Sizes,
    scale: f32,
    /// Queries, keys, values, gradient of the output.
    operands: [Vec<f32>; 4],
    causal: bool,
    seen: Option<Vec<bool>>,
    bias: Option<Vec<f32>>,
    blocks: Option<(usize, Vec<bool>)>,
    dropout: Option<Dropout>,
}

impl Case {
    fn new([samples, queries, keys, heads, head_dim]: [usize; 5]) -> Self {
        let width = heads * head_dim;
        let tokens = [queries, keys, keys, queries];
        let operands = [0, 1, 2, 3].map(|i| values(i as u32 + 1, samples * tokens[i] * width));
        let sizes = Sizes { samples, queries, keys, heads, head_dim };
        Self { sizes, scale: 0.7, operands, causal: false, seen: None, bias: None, blocks: None, dropout: None }
    }

    fn mask(&self) -> Mask<'_> {
        Mask {
            causal: self.causal,
            keys: self.seen.as_deref(),
            bias: self.bias.as_deref(),
            blocks: self.blocks.as_ref().map(|(size, seen)| Blocks { size: *size, seen }),
            dropout: self.dropout,
        }
    }

    fn run(&self, precision: Precision) -> (Forward, Grads) {
        let Sizes { samples, queries, keys, heads, head_dim } = self.sizes;
        let width = heads * head_dim;
        let [q, k, v, grad_out] = &self.operands;
        let (q, k, v) = (Heads::dense(q, queries, width), Heads::dense(k, keys, width), Heads::dense(v, keys, width));
        let made = forward(self.sizes, self.scale, q, k, v, self.mask(), precision);
        let mut grad_bias = vec![f32::NAN; if self.bias.is_some() { heads * queries * keys } else { 0 }];
        let mut grads: Grads = Default::default();
        let mut others = [Vec::new(), Vec::new()];
        let [grad_k, grad_v] = &mut others;
        let bias = self.bias.is_some().then_some(&mut grad_bias[..]);
        let write_q = |into_q: &mut [std::mem::MaybeUninit<f32>]| {
            let write_k = |into_k: &mut [std::mem::MaybeUninit<f32>]| {
                let write_v = |into_v: &mut [std::mem::MaybeUninit<f32>]| {
                    let into = Gradients {
                        q: HeadsMut::dense(into_q, queries, width),
                        k: HeadsMut::dense(into_k, keys, width),
                        v: HeadsMut::dense(into_v, keys, width),
                        bias,
                    };
                    backward(
                        self.sizes,
                        self.scale,
                        q,
                        k,
                        v,
                        self.mask(),
                        (&made.out, &made.log_sums),
                        grad_out,
                        into,
                        precision,
                    );
                };
                // SAFETY: the backward pass writes all.
                *grad_v = unsafe { fresh::written(samples * keys * width, write_v) };
            };
            // SAFETY: as above.
            *grad_k = unsafe { fresh::written(samples * keys * width, write_k) };
        };
        // SAFETY: as above.
        grads[0] = unsafe { fresh::written(samples * queries * width, write_q) };
        [grads[1], grads[2]] = others;
        grads[3] = grad_bias;
        (made, grads)
    }

    /// The definition in double precision, with the gradients written out; `None` of the dropout's factors are made anew.
    fn reference(&self) -> [Vec<f64>; 6] {
        let Sizes { samples, queries, keys, heads, head_dim } = self.sizes;
        let width = heads * head_dim;
        let [q, k, v, grad_out] = self.operands.each_ref().map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let (mut out, mut sums) = (vec![0.0; q.len()], vec![f64::NEG_INFINITY; samples * heads * queries]);
        let (mut gq, mut gk, mut gv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        let mut gb = vec![0.0; if self.bias.is_some() { heads * queries * keys } else { 0 }];
        for (s, h, i) in (0..samples * heads * queries).map(|n| (n / queries / heads, n / queries % heads, n % queries))
        {
            let at_q = (s * queries + i) * width + h * head_dim;
            let at_k = |j: usize| (s * keys + j) * width + h * head_dim;
            let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
            let seen: Vec<usize> = (0..keys).filter(|j| self.sees(s, i, *j)).collect();
            let score = |j: &usize| {
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[(h * queries + i) * keys + j]));
                f64::from(self.scale) * dot(&q[at_q..][..head_dim], &k[at_k(*j)..][..head_dim]) + bias
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            sums[(s * heads + h) * queries + i] = total.ln();
            let p: Vec<f64> = scores.iter().map(|s| s.exp() / total).collect();
            let factors: Vec<f64> = seen.iter().map(|j| self.factor(s, h, i, *j)).collect();
            let go = grad_out[at_q..][..head_dim].to_vec();
            let dp: Vec<f64> =
                seen.iter().zip(&factors).map(|(j, f)| f * dot(&go, &v[at_k(*j)..][..head_dim])).collect();
            let delta = dot(&p, &dp);
            for (n, j) in seen.iter().enumerate() {
                let ds = p[n] * (dp[n] - delta);
                if let Some(place) = gb.get_mut((h * queries + i) * keys + j) {
                    *place += ds;
                }
                for c in 0..head_dim {
                    out[at_q + c] += factors[n] * p[n] * v[at_k(*j) + c];
                    gv[at_k(*j) + c] += factors[n] * p[n] * go[c];
                    gq[at_q + c] += f64::from(self.scale) * ds * k[at_k(*j) + c];
                    gk[at_k(*j) + c] += f64::from(self.scale) * ds * q[at_q + c];
                }
            }
        }
        [out, sums, gq, gk, gv, gb]
    }

    fn sees(&self, sample: usize, i: usize, j: usize) -> bool {
        let Sizes { queries, keys, .. } = self.sizes;
        (!self.causal || j + queries <= i + keys)
            && self.seen.as_ref().is_none_or(|seen| seen[sample * keys + j])
            && self.blocks.as_ref().is_none_or(|(size, seen)| seen[i / size * keys.div_ceil(*size) + j / size])
    }

    /// By what the probability is multiplied, from the numbers that the mask is made of.
    fn factor(&self, sample: usize, head: usize, i: usize, j: usize) -> f64 {
        let Some(Dropout { probability, key }) = self.dropout else { return 1.0 };
        let Sizes { queries, keys, heads, .. } = self.sizes;
        let line = (sample * heads + head) * queries + i;
        let bits = crate::dropout::random_bits(key, (line * keys.div_ceil(2) + j / 2) as u64);
        let bits = if j.is_multiple_of(2) { bits & 0xffff_ffff } else { bits >> 32 };
        let dropped = (bits as f64) < (f64::from(probability) * f64::from(u32::MAX)).floor();
        if dropped { 0.0 } else { 1.0 / (1.0 - f64::from(probability)) }
    }

    fn check(&self, precision: Precision, tolerance: f64) {
        let (made, [q, k, v, bias]) = self.run(precision);
        let names = ["output", "sums", "queries", "keys", "values", "bias"];
        for ((found, exact), name) in [made.out, made.log_sums, q, k, v, bias].iter().zip(self.reference()).zip(names) {
            assert_eq!(found.len(), exact.len());
            // Where one key is all that is seen, these gradients are 0, and keep the roundings of terms that are near 1.
            let floor = if ["queries", "keys", "bias"].contains(&name) { 0.1 } else { 1e-2 };
            let largest = exact.iter().filter(|v| v.is_finite()).fold(floor, |m: f64, v| m.max(v.abs()));
            for (i, (found, exact)) in found.iter().zip(exact).enumerate() {
                let found = f64::from(*found);
                let close = found == exact || (found - exact).abs() <= tolerance * largest;
                assert!(close, "{:?}: {name} {i}: {found}, not {exact}", self.sizes);
            }
        }
    }
}

#[test]
fn odd_sizes_agree_with_the_definition() {
    for shape in [
        [1, 1, 1, 1, 1],
        [2, 3, 7, 3, 5],
        [3, 8, 8, 2, 33],
        [70, 5, 5, 4, 16],
        [1, 17, 33, 2, 16],
        [2, 197, 197, 1, 64],
        [1, 100, 530, 1, 32],
        [1, 9, 5, 1, 300],
    ] {
        for causal in [false, true] {
            Case { causal, ..Case::new(shape) }.check(Precision::F32, 1e-5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn every_mask_agrees_with_the_definition(
        // Few tokens, and many.
        shape in prop_oneof![[1usize..7, 1..10, 1..10, 1..4, 1..40], [1usize..3, 1..130, 1..300, 1..4, 1..20]],
        causal in any::<bool>(), seen in any::<bool>(), bias in any::<bool>(), dropout in any::<bool>(),
        size in proptest::option::of(prop_oneof![Just(2usize), Just(7), Just(32), Just(64), Just(100)]),
    ) {
        let [samples, queries, keys, heads, _] = shape;
        Case {
            causal,
            seen: seen.then(|| values(7, samples * keys).iter().map(|v| *v > -0.3).collect()),
            bias: bias.then(|| values(8, heads * queries * keys)),
            blocks: size.map(|size| {
                let seen = values(9, queries.div_ceil(size) * keys.div_ceil(size));
                (size, seen.iter().map(|v| *v > 0.0).collect())
            }),
            dropout: dropout.then_some(Dropout { probability: 0.3, key: 5 }),
            ..Case::new(shape)
        }
        .check(Precision::F32, 1e-5);
    }
}

#[test]
fn a_query_that_sees_nothing_gets_zeros() {
    let mut case = Case { causal: true, ..Case::new([2, 9, 4, 2, 8]) };
    case.seen = Some([vec![true; 4], vec![false; 4]].concat());
    case.check(Precision::F32, 1e-5);
    let (made, grads) = case.run(Precision::F32);
    assert!(made.out[9 * 16..].iter().all(|v| *v == 0.0));
    assert!(made.log_sums[2 * 9..].iter().all(|v| *v == f32::NEG_INFINITY));
    assert!(grads.iter().flatten().all(|v| v.is_finite()));
    Case::new([2, 3, 0, 1, 4]).check(Precision::F32, 0.0);
    Case::new([2, 0, 3, 1, 4]).check(Precision::F32, 0.0);
}

#[test]
fn bf16_is_close_and_large_scores_are_finite() {
    Case::new([2, 70, 300, 2, 32]).check(Precision::Bf16, 3e-2);
    Case { causal: true, ..Case::new([1, 50, 50, 1, 15]) }.check(Precision::Bf16, 3e-2);
    Case { causal: true, ..Case::new([3, 6, 6, 1, 15]) }.check(Precision::Bf16, 3e-2);
    for shape in [[1, 20, 300, 1, 16], [1, 6, 7, 1, 16]] {
        let (made, grads) = Case { scale: 1e4, ..Case::new(shape) }.run(Precision::F32);
        assert!(made.out.iter().chain(&made.log_sums).chain(grads.iter().flatten()).all(|v| v.is_finite()));
    }
}

#[test]
fn not_a_number_reaches_the_query_that_holds_it_alone() {
    let mut case = Case::new([1, 3, 5, 1, 4]);
    case.operands[0][4] = f32::NAN;
    let (made, _) = case.run(Precision::F32);
    let nan: Vec<bool> = made.out.chunks(4).map(|row| row.iter().all(|v| v.is_nan())).collect();
    assert_eq!((nan, made.out[..4].iter().any(|v| v.is_nan())), (vec![false, true, false], false));
}

#[test]
fn threads_do_not_change_a_bit() {
    for ([samples, queries, keys], with_bias) in
        [([3, 150, 290], true), ([3, 150, 290], false), ([301, 7, 5], true), ([301, 7, 5], false)]
    {
        let mut case = Case { causal: true, ..Case::new([samples, queries, keys, 3, 16]) };
        case.bias = with_bias.then(|| values(8, 3 * queries * keys));
        case.dropout = Some(Dropout { probability: 0.1, key: 3 });
        let run = || {
            let (made, grads) = case.run(Precision::F32);
            [made.out, made.log_sums, grads.concat()].concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let alone = pool(1).install(run);
        for threads in [2, 3] {
            assert!(pool(threads).install(run) == alone, "{threads} threads");
        }
    }
}

#[test]
fn columns_of_one_buffer_give_the_same_bits() {
    [5, 20].into_iter().for_each(columns_of_one_buffer);
}

fn columns_of_one_buffer(tokens: usize) {
    let (samples, heads, dim) = (2, 2, 8);
    let width = heads * dim;
    let case = Case::new([samples, tokens, tokens, heads, dim]);
    let fused: Vec<f32> = (0..samples * tokens)
        .flat_map(|t| (0..3).flat_map(move |i| (0..width).map(move |c| (t, i, c))))
        .map(|(t, i, c)| case.operands[i][t * width + c])
        .collect();
    let [q, k, v] = Heads::thirds(&fused, tokens, width);
    let made = forward(case.sizes, case.scale, q, k, v, case.mask(), Precision::F32);
    let write = |into: &mut [std::mem::MaybeUninit<f32>]| {
        let [into_q, into_k, into_v] = HeadsMut::thirds(into, tokens, width);
        let into = Gradients { q: into_q, k: into_k, v: into_v, bias: None };
        backward(
            case.sizes,
            case.scale,
            q,
            k,
            v,
            case.mask(),
            (&made.out, &made.log_sums),
            &case.operands[3],
            into,
            Precision::F32,
        );
    };
    // SAFETY: the three gradients cover all.
    let grads = unsafe { fresh::written(fused.len(), write) };
    let (expected, apart) = case.run(Precision::F32);
    assert!(made.out == expected.out && made.log_sums == expected.log_sums);
    for (i, apart) in apart[..3].iter().enumerate() {
        let third: Vec<f32> = grads.chunks(3 * width).flat_map(|row| row[i * width..][..width].to_vec()).collect();
        assert!(third == *apart);
    }
}
