//! The same bits on every vector unit: the results of this machine's against those of scalar code, in another process.

#![expect(clippy::unwrap_used, reason = "a process that shows no results has failed")]

use std::collections::BTreeMap;
use std::process::Command;

use kernels::activation::{self, Activation};
use kernels::attention::{self, Gradients, Heads, HeadsMut, Mask, Sizes};
use kernels::conv::{self, Conv};
use kernels::fresh::Write;
use kernels::gemm::{self, Precision};
use kernels::linear::{self, Layer, Order};
use kernels::{batch_norm, cross_entropy, dropout, norm, optimizer, simd};

/// Set in the process that shows its results.
const SHOW: &str = "SHOW_RESULTS";

const MARK: &str = "results ";
const SEPARATOR: &str = "; ";

fn values(seed: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// FNV-1a over the bits.
fn digest(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn results() -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    let mut note = |name, values: &[f32]| found.push((name, digest(values)));

    let [rows, inputs, outputs] = [53, 301, 37];
    let (x, weight, bias) = (values(1, rows * inputs), values(2, outputs * inputs), values(3, outputs));
    let layers = [Layer { weight: &weight, bias: Some(&bias), outputs, order: Order::OutputsFirst }];
    let y = linear::forward(&x, inputs, &layers, Precision::F32);
    note("linear", &y);
    note("linear, backward", &linear::backward_input(&y, inputs, &layers, Precision::F32));
    // The instruction for products of bf16 values has roundings of its own.
    if !gemm::is_bf16_instruction() {
        note("linear, bf16", &linear::forward(&x, inputs, &layers, Precision::Bf16));
    }

    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh, Activation::Relu] {
        note("activation", &activation::forward(kind, &x));
        note("activation, backward", &activation::backward(kind, &x, x.clone()));
    }

    let (gain, shift) = (values(4, inputs), values(5, inputs));
    let normed = norm::layer_norm(&x, inputs, &gain, &shift, 1e-5);
    note("layer norm", &normed.y);
    let saved = (&normed.mean[..], &normed.inverse[..]);
    note("layer norm, backward", &norm::layer_norm_backward(&x, inputs, &gain, saved, &normed.y, None, None, None));
    note("rms norm", &norm::rms_norm(&x, inputs, &gain, 1e-5).y);

    for (tokens, dropout) in [(71, None), (5, Some(attention::Dropout { probability: 0.1, key: 3 }))] {
        let mask = Mask { causal: true, dropout, ..Mask::default() };
        attended(tokens, mask, Precision::F32).iter().for_each(|values| note("attention", values));
        if !gemm::is_bf16_instruction() {
            attended(tokens, mask, Precision::Bf16).iter().for_each(|values| note("attention, bf16", values));
        }
    }

    let (loss, gradient, _) = cross_entropy::forward_backward(x.clone(), inputs, &[3; 53], None, 0.1, 0.5);
    note("loss", &[loss as f32]);
    note("loss, backward", &gradient);
    note("dropout", &dropout::apply(x.clone(), 0.3, 77));

    let conv =
        Conv { channels: 5, filters: 7, kernel: [3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1 };
    // The second one goes by transformed tiles.
    for conv in [conv, Conv { channels: 17, filters: 19, ..conv }] {
        let (image, kernel) = (values(8, 2 * conv.channels * 19 * 23), values(9, conv.weight_len()));
        let y = conv::forward(&conv, &image, [2, 19, 23], &kernel, None, Precision::F32);
        note("convolution", &y);
        note("convolution, input", &conv::backward_input(&conv, &y, [2, 19, 23], &kernel, Precision::F32));
        let mut of_kernel = vec![0.0; kernel.len()];
        conv::backward_weight(&conv, &image, &y, [2, 19, 23], (&mut of_kernel, Write::Overwrite), Precision::F32);
        note("convolution, weight", &of_kernel);
    }
    let image = values(8, 2 * 5 * 19 * 23);
    note("batch norm", &batch_norm::forward(&image, [2, 5, 19 * 23], &[1.5; 5], &[0.5; 5], 1e-5, true).y);

    let (mut weights, mut mean, mut square) = (x.clone(), vec![0.0; x.len()], vec![0.0; x.len()]);
    let rule = optimizer::AdamW {
        gradient_scale: 0.7,
        mean_weight: 0.1,
        square_keep: 0.999,
        square_take: 0.001,
        eps: 1e-8,
        step: 1e-3,
        inverse_root: 3.0,
        shrink: 0.99,
    };
    let gradient = values(10, x.len());
    let tensor = optimizer::AdamWTensor {
        weights: &mut weights,
        mean: &mut mean,
        square: &mut square,
        gradient: &gradient,
        rule,
    };
    optimizer::adamw([tensor]);
    note("adamw", &weights);
    note("sum of squares", &[optimizer::sum_of_squares(&x) as f32]);
    found
}

/// Output, and gradients of queries, keys and values.
fn attended(tokens: usize, mask: Mask<'_>, precision: Precision) -> [Vec<f32>; 4] {
    let sizes = Sizes { samples: 2, queries: tokens, keys: tokens, heads: 3, head_dim: 20 };
    let width = sizes.heads * sizes.head_dim;
    let qkv = values(6, 2 * tokens * 3 * width);
    let [q, k, v] = Heads::thirds(&qkv, tokens, width);
    let seen = attention::forward(sizes, 0.2, q, k, v, mask, precision);
    let gradient = values(7, seen.out.len());
    let [mut of_q, mut of_k, mut of_v] = [(); 3].map(|()| vec![std::mem::MaybeUninit::uninit(); gradient.len()]);
    let into = Gradients {
        q: HeadsMut::dense(&mut of_q, tokens, width),
        k: HeadsMut::dense(&mut of_k, tokens, width),
        v: HeadsMut::dense(&mut of_v, tokens, width),
        bias: None,
    };
    let saved = (&seen.out[..], &seen.log_sums[..]);
    attention::backward(sizes, 0.2, q, k, v, mask, saved, &gradient, into, precision);
    // SAFETY: the backward pass writes every element.
    let written =
        |values: Vec<std::mem::MaybeUninit<f32>>| values.into_iter().map(|v| unsafe { v.assume_init() }).collect();
    [seen.out, written(of_q), written(of_k), written(of_v)]
}

#[test]
fn results_do_not_depend_on_the_vector_unit() {
    let here = numbered(results());
    if std::env::var_os(SHOW).is_some() {
        let shown: Vec<String> = here.iter().map(|(what, digest)| format!("{what} {digest}")).collect();
        let shown = format!("{MARK}{}{SEPARATOR}{}\n", simd::name(), shown.join(SEPARATOR));
        // The harness swallows what goes through its own printing.
        std::io::Write::write_all(&mut std::io::stderr(), shown.as_bytes()).unwrap();
        return;
    }
    for (wanted, units) in [("scalar", &["scalar"][..]), ("avx2", &["AVX2", "NEON", "scalar"])] {
        let (unit, there) = of_process(wanted);
        assert!(units.contains(&unit.as_str()), "asked for {wanted}, it used {unit}");
        // Here those of bf16 are missing if an instruction makes them; without it there are all of them.
        for (what, digest) in &here {
            assert_eq!(there.get(what), Some(digest), "{what}: {} and {unit}", simd::name());
        }
        assert!(there.keys().any(|what| what.contains("bf16")), "{unit}");
    }
}

/// Results by what they are of, and a number.
fn numbered(results: Vec<(&'static str, u64)>) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut number = |what: &'static str| {
        let count = seen.entry(what).or_insert(0);
        *count += 1;
        format!("{what} {count}")
    };
    results.into_iter().map(|(what, digest)| (number(what), digest.to_string())).collect()
}

/// Which vector unit a process uses that was asked for `wanted`, and its results.
fn of_process(wanted: &str) -> (String, BTreeMap<String, String>) {
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["results_do_not_depend_on_the_vector_unit", "--exact", "--nocapture"]);
    let output = other.env(SHOW, "1").env(simd::VARIABLE, wanted).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let shown = text.lines().find_map(|line| line.strip_prefix(MARK));
    let shown = shown.unwrap_or_else(|| panic!("with {wanted} there are no results: {text}"));
    let (unit, results) = shown.split_once(SEPARATOR).unwrap();
    let pair = |one: &str| one.rsplit_once(' ').map(|(what, digest)| (what.to_owned(), digest.to_owned()));
    (unit.to_owned(), results.split(SEPARATOR).map(|one| pair(one).unwrap()).collect())
}
