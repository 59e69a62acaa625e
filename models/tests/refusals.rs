//! What does not fit is refused with an error that says so, by every operator; nothing panics.
#![expect(clippy::unwrap_used, reason = "tests may, and clippy does not see that their helpers are tests")]

use candle_core::{DType, Device, Result, Tensor};
use models::nn::*;

/// An operator on inputs that it must refuse.
type Call = Box<dyn Fn(&Tape<'_>) -> Result<Tensor>>;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn convolution(x: &[usize], weight: &[usize], bias: Option<usize>, how: Conv2d) -> Call {
    let (x, weight, bias) = (zeros(x), zeros(weight), bias.map(|size| zeros(&[size])));
    Box::new(move |tape| conv2d(tape, &x, &weight, bias.as_ref(), how))
}

fn pooling(x: &[usize], kernel: usize, stride: usize, padding: usize) -> [Call; 2] {
    let (x, pool) = (zeros(x), Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] });
    let mean = x.clone();
    [
        Box::new(move |tape| max_pool2d(tape, &x, pool)),
        Box::new(move |tape| avg_pool2d(tape, &mean, pool, Divisor::Kernel)),
    ]
}

fn batch_normalisation(x: &[usize], parameters: [usize; 2], running: Option<usize>, training: bool) -> Call {
    let (x, gain, bias) = (zeros(x), zeros(&parameters[..1]), zeros(&parameters[1..]));
    Box::new(move |tape| {
        let mut running = running.map(|channels| RunningStatistics::new(channels, 0.1));
        let norm = BatchNorm { gain: &gain, bias: &bias, eps: 1e-5, then: Then::Nothing };
        let statistics = match (training, &mut running) {
            (false, Some(running)) => Statistics::Running(running),
            (_, running) => Statistics::Batch(running.as_mut()),
        };
        batch_norm(tape, &x, norm, statistics)
    })
}

fn attention(query: &[usize], key: &[usize], value: &[usize], heads: usize, pattern: Pattern) -> Call {
    let (query, key, value) = (zeros(query), zeros(key), zeros(value));
    Box::new(move |tape| cross_attention(tape, &query, &key, &value, heads, pattern.clone()))
}

#[test]
fn what_does_not_fit_is_refused() {
    let plain = Conv2d::default();
    let mut table: Vec<(&str, Call)> = vec![
        ("does not fit an input", convolution(&[1, 3, 5, 5], &[4, 2, 3, 3], None, plain)),
        ("does not fit an input", convolution(&[1, 4, 5, 5], &[3, 2, 3, 3], None, Conv2d { groups: 2, ..plain })),
        ("at least 1", convolution(&[1, 3, 5, 5], &[4, 3, 3, 3], None, Conv2d { groups: 0, ..plain })),
        ("at least 1", convolution(&[1, 3, 5, 5], &[4, 3, 3, 3], None, Conv2d { stride: [1, 0], ..plain })),
        ("at least 1", convolution(&[1, 3, 5, 5], &[4, 3, 3, 3], None, Conv2d { dilation: [0, 1], ..plain })),
        ("at least 1", convolution(&[1, 3, 5, 5], &[4, 3, 0, 3], None, plain)),
        ("at least 1", convolution(&[1, 3, 5, 5], &[0, 3, 3, 3], None, plain)),
        ("does not fit 4 filters", convolution(&[1, 3, 5, 5], &[4, 3, 3, 3], Some(3), plain)),
        ("does not fit into an input", convolution(&[1, 3, 5, 2], &[4, 3, 3, 3], None, plain)),
        (
            "does not fit into an input",
            convolution(&[1, 3, 5, 5], &[4, 3, 3, 3], None, Conv2d { dilation: [3, 1], ..plain }),
        ),
        ("unexpected rank", convolution(&[3, 5, 5], &[4, 3, 3, 3], None, plain)),
        ("has none", convolution(&[0, 3, 5, 5], &[4, 3, 3, 3], None, plain)),
        ("do not fit the channels", batch_normalisation(&[2, 3, 4], [2, 3], None, true)),
        ("do not fit the channels", batch_normalisation(&[2, 3, 4], [3, 4], None, true)),
        ("running statistics of 2 channels", batch_normalisation(&[2, 3, 4], [3, 3], Some(2), true)),
        ("running statistics of 2 channels", batch_normalisation(&[2, 3, 4], [3, 3], Some(2), false)),
        ("more than one value", batch_normalisation(&[1, 3], [3, 3], None, true)),
        ("two axes", batch_normalisation(&[3], [3, 3], None, true)),
        ("has none", batch_normalisation(&[0, 3, 4], [3, 3], None, true)),
        ("has none", batch_normalisation(&[0, 3, 4], [3, 3], Some(3), false)),
        (
            "do not divide the channels",
            Box::new(|t| group_norm(t, &zeros(&[2, 6, 3]), 4, &zeros(&[6]), &zeros(&[6]), 1e-5)),
        ),
        (
            "do not divide the channels",
            Box::new(|t| group_norm(t, &zeros(&[2, 6, 3]), 0, &zeros(&[6]), &zeros(&[6]), 1e-5)),
        ),
        (
            "do not fit the channels",
            Box::new(|t| group_norm(t, &zeros(&[2, 6, 3]), 3, &zeros(&[5]), &zeros(&[6]), 1e-5)),
        ),
        ("has none", Box::new(|t| group_norm(t, &zeros(&[0, 6, 3]), 3, &zeros(&[6]), &zeros(&[6]), 1e-5))),
        ("has none", Box::new(|t| global_avg_pool(t, &zeros(&[2, 3, 0, 5])))),
        ("unexpected rank", Box::new(|t| global_avg_pool(t, &zeros(&[2, 3])))),
        ("do not fit", Box::new(|t| layer_norm(t, &zeros(&[2, 3]), &zeros(&[3]), &zeros(&[2]), 1e-5))),
        ("has none", Box::new(|t| layer_norm(t, &zeros(&[0, 3]), &zeros(&[3]), &zeros(&[3]), 1e-5))),
        ("has none", Box::new(|t| layer_norm(t, &zeros(&[2, 0]), &zeros(&[0]), &zeros(&[0]), 1e-5))),
        ("does not fit", Box::new(|t| rms_norm(t, &zeros(&[2, 3]), &zeros(&[2]), 1e-5))),
        ("has none", Box::new(|t| rms_norm(t, &zeros(&[0, 3]), &zeros(&[3]), 1e-5))),
        ("do not fit an input", Box::new(|t| linear(t, &zeros(&[2, 3]), &zeros(&[4, 2]), None))),
        ("do not fit an input", Box::new(|t| linear(t, &zeros(&[2, 3]), &zeros(&[4, 3]), Some(&zeros(&[3]))))),
        ("do not fit an input", Box::new(|t| linear_inputs_first(t, &zeros(&[2, 3]), &zeros(&[4, 3]), None))),
        ("two axes", Box::new(|t| linear_inputs_first(t, &zeros(&[2, 3]), &zeros(&[3]), None))),
        ("needs a weight", Box::new(|t| linear_stack(t, &zeros(&[2, 3]), &[]))),
        ("no rows", Box::new(|t| linear(t, &zeros(&[]), &zeros(&[4, 3]), None))),
        ("has none", Box::new(|t| linear(t, &zeros(&[0, 3]), &zeros(&[4, 3]), None))),
        ("has none", Box::new(|t| linear(t, &zeros(&[2, 0]), &zeros(&[4, 0]), None))),
        ("cannot add", Box::new(|t| add(t, &zeros(&[2, 3]), &zeros(&[3, 2])))),
        ("has none", Box::new(|t| add(t, &zeros(&[0, 3]), &zeros(&[0, 3])))),
        ("has none", Box::new(|t| activation(t, Activation::Gelu, &zeros(&[0])))),
        ("has none", Box::new(|t| first_token(t, &zeros(&[2, 0, 3])))),
        ("has none", Box::new(|t| mean_of_tokens(t, &zeros(&[0, 2, 3])))),
        ("not below the 5 words", Box::new(|t| embedding(t, &zeros(&[5, 2]), &[1, 5], [1, 2]))),
        ("are not 2 samples", Box::new(|t| embedding(t, &zeros(&[5, 2]), &[1, 2, 3], [2, 2]))),
        ("are not 0 samples", Box::new(|t| embedding(t, &zeros(&[5, 2]), &[], [0, 2]))),
        ("positions do not fit", Box::new(|t| embed(t, &zeros(&[2, 3, 4]), None, &zeros(&[1, 4, 4])))),
        ("has none", Box::new(|t| embed(t, &zeros(&[0, 3, 4]), None, &zeros(&[1, 3, 4])))),
        ("do not divide images", Box::new(|_| patches(&[0.0; 12], [1, 1, 3, 4], 2))),
        ("do not divide images", Box::new(|_| patches(&[0.0; 12], [1, 1, 3, 4], 0))),
        ("are not images", Box::new(|_| patches(&[0.0; 11], [1, 1, 3, 4], 1))),
        ("are not images", Box::new(|_| patches(&[], [0, 1, 4, 4], 2))),
        ("does not fit", attention(&[2, 3, 6], &[2, 4, 6], &[2, 5, 6], 2, Pattern::default())),
        ("does not fit", attention(&[2, 3, 6], &[1, 4, 6], &[1, 4, 6], 2, Pattern::default())),
        ("does not fit", attention(&[2, 3, 6], &[2, 4, 6], &[2, 4, 6], 4, Pattern::default())),
        ("does not fit", attention(&[2, 3, 6], &[2, 4, 6], &[2, 4, 6], 0, Pattern::default())),
        ("has none", attention(&[0, 3, 6], &[0, 4, 6], &[0, 4, 6], 2, Pattern::default())),
        ("has none", attention(&[2, 3, 6], &[2, 0, 6], &[2, 0, 6], 2, Pattern::default())),
        ("do not divide", Box::new(|t| self_attention(t, &zeros(&[2, 3, 16]), 2, Pattern::default()))),
        ("has none", Box::new(|t| self_attention(t, &zeros(&[2, 0, 18]), 2, Pattern::default()))),
    ];
    let patterns = [
        Pattern { keys: Some(vec![true; 7]), ..Pattern::default() },
        Pattern { bias: Some(zeros(&[2, 4, 3])), ..Pattern::default() },
        Pattern { blocks: Some(Blocks { size: 0, seen: vec![true] }), ..Pattern::default() },
        Pattern { blocks: Some(Blocks { size: 2, seen: vec![true; 3] }), ..Pattern::default() },
    ];
    for pattern in patterns {
        table.push(("a pattern does not fit", attention(&[2, 3, 6], &[2, 4, 6], &[2, 4, 6], 2, pattern)));
    }
    for (wanted, x, [kernel, stride, padding]) in [
        ("at least 1", [1, 2, 5, 5], [0, 1, 0]),
        ("at least 1", [1, 2, 5, 5], [2, 0, 0]),
        ("at most half", [1, 2, 5, 5], [3, 1, 2]),
        ("do not fit into", [1, 2, 5, 2], [3, 1, 0]),
        ("has none", [0, 2, 5, 5], [2, 2, 0]),
    ] {
        table.extend(pooling(&x, kernel, stride, padding).map(|call| (wanted, call)));
    }
    for (i, (wanted, call)) in table.iter().enumerate() {
        match call(&Tape::evaluation(Precision::F32)) {
            Err(error) => assert!(error.to_string().contains(wanted), "row {i} ({wanted}): {error}"),
            Ok(y) => panic!("row {i} ({wanted}): gave {:?}", y.dims()),
        }
    }
}

#[test]
fn losses_refuse_what_does_not_fit() {
    for (wanted, shape, labels) in [
        ("hold nothing", vec![0, 3], vec![]),
        ("hold nothing", vec![2, 0], vec![0, 0]),
        ("do not fit 1 labels", vec![2, 3], vec![0]),
        ("label 3 is not below", vec![2, 3], vec![0, 3]),
    ] {
        let target = CrossEntropy { labels: &labels, ignore: None, smoothing: 0.0, scale: 1.0 };
        let error = cross_entropy(zeros(&shape), target).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
        let error = score(&zeros(&shape), &labels).unwrap_err().to_string();
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}
