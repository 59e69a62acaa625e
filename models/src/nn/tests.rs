//! Every operator against a plain implementation in double precision: its values, and its gradient against central
//! differences of that implementation.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use domain::random::{Purpose, Stream};

use super::*;
use crate::{Declaration, Gradient, Layout, Parameters, Role};

/// An input: its shape and values.
type Input = (Vec<usize>, Vec<f32>);

/// Rounding errors of sums of up to 100 terms of size 1 in single precision: 100 * 2^-24.
const TOLERANCE: f64 = 6e-6;

/// Step of the central differences; in double precision their own error is then below 1e-9.
const STEP: f64 = 1e-5;

fn random(seed: u64, shape: &[usize]) -> Input {
    let mut stream = Stream::new(seed, Purpose::Initialisation, &[]);
    (shape.to_vec(), (0..shape.iter().product()).map(|_| stream.normal_f64() as f32).collect())
}

fn inputs(shapes: &[&[usize]]) -> Vec<Input> {
    shapes.iter().enumerate().map(|(i, shape)| random(i as u64, shape)).collect()
}

/// An operator under test.
trait Op: Fn(&Tape<'_>, &[Tensor]) -> Result<Tensor> {}
impl<F: Fn(&Tape<'_>, &[Tensor]) -> Result<Tensor>> Op for F {}

/// The inputs as parameters, named by their numbers.
fn parameters(inputs: &[Tensor]) -> Parameters {
    let declare = |(i, x): (usize, &Tensor)| Declaration {
        name: format!("{i:03}"),
        shape: x.dims().to_vec(),
        role: Role::Matrix,
    };
    let layout = Layout::of(inputs.iter().enumerate().map(declare).collect());
    Parameters::new(Arc::new(layout), inputs.to_vec()).unwrap()
}

/// Values and gradients of `sum(coefficients * op(inputs))`, with coefficients that depend on the place alone.
fn run(op: &impl Op, inputs: &[Tensor]) -> (Vec<f32>, Vec<Vec<f32>>) {
    let parameters = parameters(inputs);
    let tape = Tape::training(&parameters, Precision::F32);
    let y = op(&tape, inputs).unwrap();
    let coefficients = random(99, y.dims()).1;
    let mut gradient = Gradient::default();
    let outcome = tape.backward(&y, coefficients, &mut gradient).unwrap();
    assert_eq!(outcome.unreached, [0usize; 0], "the graph is not cut");
    let y = y.flatten_all().unwrap().to_vec1().unwrap();
    (y, parameters.layout().parameters().iter().map(|p| gradient.of(p).to_vec()).collect())
}

fn run_contiguous(given: &[Input], op: &impl Op) -> (Vec<f32>, Vec<Vec<f32>>) {
    let tensor = |(shape, values): &Input| Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap();
    run(op, &given.iter().map(tensor).collect::<Vec<_>>())
}

/// The same with every input as every second value of a tensor twice as long.
fn run_strided(given: &[Input], op: &impl Op) -> (Vec<f32>, Vec<Vec<f32>>) {
    let tensor = |(shape, values): &Input| {
        let doubled: Vec<f32> = values.iter().flat_map(|v| [f32::NAN, *v]).collect();
        let doubled_shape: Vec<usize> = shape.iter().copied().chain([2]).collect();
        let last = shape.len();
        let tensor = Tensor::from_vec(doubled, doubled_shape, &Device::Cpu).unwrap();
        let view = tensor.narrow(last, 1, 1).unwrap().squeeze(last).unwrap();
        assert!(!view.is_contiguous());
        view
    };
    run(op, &given.iter().map(tensor).collect::<Vec<_>>())
}

fn check(name: &str, given: &[Input], op: impl Op, reference: impl Fn(&[Vec<f64>]) -> Vec<f64>) {
    let (y, gradients) = run_contiguous(given, &op);
    let exact: Vec<Vec<f64>> = given.iter().map(|(_, v)| v.iter().map(|x| f64::from(*x)).collect()).collect();
    let expected = reference(&exact);
    close(&format!("{name}: values"), &y, &expected);

    let coefficients: Vec<f64> = random(99, &[y.len()]).1.iter().map(|c| f64::from(*c)).collect();
    let loss = |inputs: &[Vec<f64>]| reference(inputs).iter().zip(&coefficients).map(|(y, c)| y * c).sum::<f64>();
    for (i, gradient) in gradients.iter().enumerate() {
        let difference = |j: usize| {
            let at = |delta: f64| {
                let mut moved = exact.clone();
                moved[i][j] += delta;
                loss(&moved)
            };
            (at(STEP) - at(-STEP)) / (2.0 * STEP)
        };
        let differences: Vec<f64> = (0..exact[i].len()).map(difference).collect();
        close(&format!("{name}: gradient of input {i}"), gradient, &differences);
    }
    assert_eq!(run_strided(given, &op), (y, gradients), "{name}: strides must not matter");
}

fn close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let size = expected.iter().fold(1.0f64, |m, e| m.max(e.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= TOLERANCE * size, "{what}: element {i} is {found}, expected {expected}");
    }
}

fn linear_f64(t: &[Vec<f64>], width: usize) -> Vec<f64> {
    let row = |x: &[f64]| {
        let unit = |(w, b): (&[f64], &f64)| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + b;
        t[1].chunks(width).zip(&t[2]).map(unit).collect::<Vec<_>>()
    };
    t[0].chunks(width).flat_map(row).collect()
}

fn softmax_f64(row: &[f64]) -> Vec<f64> {
    let total: f64 = row.iter().map(|v| v.exp()).sum();
    row.iter().map(|v| v.exp() / total).collect()
}

fn attention_f64(t: &[Vec<f64>], [samples, tokens, dim, heads]: [usize; 4]) -> Vec<f64> {
    let head_dim = dim / heads;
    let mut out = vec![0.0; t[0].len()];
    for (sample, head) in (0..samples).flat_map(|s| (0..heads).map(move |h| (s, h))) {
        let at = |token: usize, column: usize| (sample * tokens + token) * dim + head * head_dim + column;
        for i in 0..tokens {
            let score = |j| (0..head_dim).map(|c| t[0][at(i, c)] * t[1][at(j, c)]).sum::<f64>();
            let scores: Vec<f64> = (0..tokens).map(|j| score(j) / (head_dim as f64).sqrt()).collect();
            for (j, p) in softmax_f64(&scores).into_iter().enumerate() {
                (0..head_dim).for_each(|c| out[at(i, c)] += p * t[2][at(j, c)]);
            }
        }
    }
    out
}

fn layer_norm_f64(t: &[Vec<f64>], width: usize, eps: f64) -> Vec<f64> {
    let row = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let unit = |((x, gain), bias): ((&f64, &f64), &f64)| (x - mean) / (variance + eps).sqrt() * gain + bias;
        x.iter().zip(&t[1]).zip(&t[2]).map(unit).collect::<Vec<_>>()
    };
    t[0].chunks(width).flat_map(row).collect()
}

/// The normal distribution function by Simpson's rule, good to 1e-12.
fn normal_cdf_f64(x: f64) -> f64 {
    const PIECES: i32 = 400;
    let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    let width = x / f64::from(2 * PIECES);
    let term = |i: i32| {
        let weight = if i == 0 || i == 2 * PIECES { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        weight * density(f64::from(i) * width)
    };
    0.5 + (0..=2 * PIECES).map(term).sum::<f64>() * width / 3.0
}

fn embed_f64(x: &[f64], class_token: &[f64], positions: &[f64], width: usize) -> Vec<f64> {
    let sample = |x: &[f64]| {
        let tokens = class_token.iter().chain(x);
        tokens.zip(positions).map(|(x, p)| x + p).collect::<Vec<_>>()
    };
    x.chunks(width).flat_map(sample).collect()
}

fn cross_entropy_f64(logits: &[f64], labels: &[u32], smoothing: f64, scale: f64) -> f64 {
    let classes = logits.len() / labels.len();
    let sample = |(row, label): (&[f64], &u32)| {
        let p = softmax_f64(row);
        let target = |class| smoothing / classes as f64 + if class == *label as usize { 1.0 - smoothing } else { 0.0 };
        -p.iter().enumerate().map(|(class, p)| target(class) * p.ln()).sum::<f64>()
    };
    logits.chunks(classes).zip(labels).map(sample).sum::<f64>() * scale
}

#[test]
fn linear_is_exact() {
    let given = inputs(&[&[2, 3, 5], &[4, 5], &[4]]);
    check("linear", &given, |tape, t| linear(tape, &t[0], &t[1], Some(&t[2])), |t| linear_f64(t, 5));
    // A convolution kernel counts as a matrix.
    let given = inputs(&[&[7, 12], &[3, 3, 2, 2], &[3]]);
    check("linear of a kernel", &given, |tape, t| linear(tape, &t[0], &t[1], Some(&t[2])), |t| linear_f64(t, 12));
}

#[test]
fn attention_is_exact() {
    let given = inputs(&[&[2, 5, 6], &[2, 5, 6], &[2, 5, 6]]);
    for heads in [1, 2, 6] {
        let name = format!("attention with {heads} heads");
        check(
            &name,
            &given,
            |tape, t| cross_attention(tape, &t[0], &t[1], &t[2], heads, Pattern::default()),
            |t| attention_f64(t, [2, 5, 6, heads]),
        );
    }
    let mismatch = inputs(&[&[2, 5, 6]]).remove(0);
    let tensor = Tensor::from_vec(mismatch.1, mismatch.0, &Device::Cpu).unwrap();
    assert!(
        cross_attention(&Tape::evaluation(Precision::F32), &tensor, &tensor, &tensor, 4, Pattern::default()).is_err()
    );
}

#[test]
fn layer_norm_is_exact() {
    for (shape, eps) in [([2usize, 3, 5], 1e-6f32), ([1, 2, 17], 0.1)] {
        let width = shape[2];
        let given = inputs(&[&shape, &[width], &[width]]);
        let reference = |t: &[Vec<f64>]| layer_norm_f64(t, width, f64::from(eps));
        check("layer norm", &given, |tape, t| layer_norm(tape, &t[0], &t[1], &t[2], eps), reference);
    }
}

#[test]
fn gelu_is_exact() {
    let mut given = inputs(&[&[6, 7]]);
    given[0].1[..6].copy_from_slice(&[0.0, -0.0, 5.0, -5.0, 12.0, -12.0]);
    let reference = |t: &[Vec<f64>]| t[0].iter().map(|x| x * normal_cdf_f64(*x)).collect();
    check("gelu", &given, |tape, t| activation(tape, Activation::Gelu, &t[0]), reference);
}

#[test]
fn embedding_and_pooling_are_exact() {
    let given = inputs(&[&[3, 4, 5], &[1, 1, 5], &[1, 5, 5]]);
    let reference = |t: &[Vec<f64>]| embed_f64(&t[0], &t[1], &t[2], 20);
    check("embed with class token", &given, |tape, t| embed(tape, &t[0], Some(&t[1]), &t[2]), reference);
    let given = inputs(&[&[3, 4, 5], &[1, 4, 5]]);
    check("embed", &given, |tape, t| embed(tape, &t[0], None, &t[1]), |t| embed_f64(&t[0], &[], &t[1], 20));

    let given = inputs(&[&[3, 4, 5]]);
    let first = |t: &[Vec<f64>]| t[0].chunks(20).flat_map(|sample| sample[..5].to_vec()).collect();
    check("first token", &given, |tape, t| first_token(tape, &t[0]), first);
    let column = |sample: &[f64], c: usize| sample.iter().skip(c).step_by(5).sum::<f64>() / 4.0;
    let mean =
        |t: &[Vec<f64>]| t[0].chunks(20).flat_map(|s| (0..5).map(|c| column(s, c)).collect::<Vec<_>>()).collect();
    check("mean of tokens", &given, |tape, t| mean_of_tokens(tape, &t[0]), mean);
}

#[test]
fn addition_is_exact() {
    let given = inputs(&[&[3, 4], &[3, 4]]);
    let reference = |t: &[Vec<f64>]| t[0].iter().zip(&t[1]).map(|(a, b)| 2.0 * a + b).collect();
    check("addition", &given, |tape, t| add(tape, &add(tape, &t[0], &t[1])?, &t[0]), reference);
}

#[test]
fn cross_entropy_is_exact() {
    let (_, values) = random(0, &[4, 5]);
    let logits = Tensor::from_vec(values.clone(), (4, 5), &Device::Cpu).unwrap();
    let exact: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
    let labels = [3, 0, 4, 1];
    for (smoothing, scale) in [(0.0f32, 1.0f32), (0.1, 0.25)] {
        let reference = |logits: &[f64]| cross_entropy_f64(logits, &labels, f64::from(smoothing), f64::from(scale));
        let (loss, gradient) =
            cross_entropy(logits.copy().unwrap(), CrossEntropy { labels: &labels, ignore: None, smoothing, scale })
                .unwrap();
        assert!((loss - reference(&exact)).abs() < TOLERANCE);
        let difference = |i: usize| {
            let at = |delta: f64| {
                let mut moved = exact.clone();
                moved[i] += delta;
                reference(&moved)
            };
            (at(STEP) - at(-STEP)) / (2.0 * STEP)
        };
        let differences: Vec<f64> = (0..exact.len()).map(difference).collect();
        close("cross-entropy", &gradient, &differences);
    }
    let (loss, _) = score(&logits, &labels).unwrap();
    assert!((loss - cross_entropy_f64(&exact, &labels, 0.0, 1.0)).abs() < TOLERANCE);
}

#[test]
fn large_logits_have_a_finite_loss_and_ties_go_to_the_first() {
    let logits = Tensor::new(&[[1e4f32, -1e4, 0.0], [2.0, 2.0, 1.0]], &Device::Cpu).unwrap();
    let target = CrossEntropy { labels: &[1, 1], ignore: None, smoothing: 0.0, scale: 1.0 };
    let (loss, gradient) = cross_entropy(logits.copy().unwrap(), target).unwrap();
    assert!((loss - 2e4).abs() < 2.0, "{loss}");
    assert_eq!(gradient[..3], [1.0, -1.0, 0.0]);
    assert_eq!(score(&logits, &[0, 0]).unwrap().1, 2);
    assert_eq!(score(&logits, &[0, 1]).unwrap().1, 1);
}

#[test]
fn patches_are_those_of_a_strided_convolution() {
    let [samples, channels, height, width, patch] = [2, 3, 4, 6, 2];
    let at = |s: usize, c: usize, y: usize, x: usize| (((s * channels + c) * height + y) * width + x) as f32;
    let pixels = (0..samples * channels * height * width).map(|i| i as f32).collect::<Vec<_>>();
    let found = patches(&pixels, [samples, channels, height, width], patch).unwrap();
    assert_eq!(found.dims(), [2, 6, 12]);
    let found: Vec<Vec<Vec<f32>>> = found.to_vec3().unwrap();
    for (s, p, i) in (0..2).flat_map(|s| (0..6).flat_map(move |p| (0..12).map(move |i| (s, p, i)))) {
        let (row, column) = (p / 3, p % 3);
        let (c, y, x) = (i / 4, i / 2 % 2, i % 2);
        assert_eq!(found[s][p][i], at(s, c, row * patch + y, column * patch + x));
    }
}

#[test]
fn a_photograph_becomes_196_tokens_of_768() {
    let pixels = vec![0.5; 3 * 224 * 224];
    let patches = patches(&pixels, [1, 3, 224, 224], 16).unwrap();
    assert_eq!(patches.dims(), [1, 14 * 14, 3 * 16 * 16]);
    let [weight, bias] = [vec![768, 3, 16, 16], vec![768]]
        .map(|shape| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap());
    assert_eq!(
        linear(&Tape::evaluation(Precision::F32), &patches, &weight, Some(&bias)).unwrap().dims(),
        [1, 14 * 14, 768]
    );
}

#[test]
fn a_fused_relu_is_the_relu_behind_a_batch_norm() {
    let given = inputs(&[&[3, 5, 4, 2], &[5], &[5]]);
    let running = RunningStatistics { mean: vec![0.1, -0.2, 0.3, 0.0, 1.0], variance: vec![0.5; 5], momentum: 0.1 };
    for kept in [false, true] {
        let statistics = || if kept { Statistics::Running(&running) } else { Statistics::Batch(None) };
        let norm = |t: &[Tensor], tape: &Tape<'_>, then| {
            batch_norm(tape, &t[0], BatchNorm { gain: &t[1], bias: &t[2], eps: 1e-5, then }, statistics())
        };
        let fused = run_contiguous(&given, &|tape: &Tape<'_>, t: &[Tensor]| norm(t, tape, Then::Relu));
        let apart = run_contiguous(&given, &|tape: &Tape<'_>, t: &[Tensor]| {
            activation(tape, Activation::Relu, &norm(t, tape, Then::Nothing)?)
        });
        assert_eq!(fused, apart, "with kept statistics: {kept}");
        let strided = run_strided(&given, &|tape: &Tape<'_>, t: &[Tensor]| norm(t, tape, Then::Relu));
        assert_eq!(fused, strided, "strides must not matter");
    }
}

#[test]
fn dropped_attention_is_linear_in_the_values_and_its_mask_is_made_again() {
    let given = inputs(&[&[2, 5, 6], &[2, 5, 6], &[2, 5, 6]]);
    let place = |step| Dropout::On { probability: 0.4, seed: 1, step, micro_batch: 0 };
    let attend = |dropout: Option<Dropped>| {
        run_contiguous(&given, &|tape: &Tape<'_>, t: &[Tensor]| {
            cross_attention(tape, &t[0], &t[1], &t[2], 2, Pattern { dropout, ..Pattern::default() })
        })
    };
    let (y, gradients) = attend(place(0).at("layer"));
    assert_eq!((&y, &gradients), (&attend(place(0).at("layer")).0, &attend(place(0).at("layer")).1));
    assert_ne!(y, attend(place(1).at("layer")).0);
    assert_ne!(y, attend(None).0);
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let of_output = product(&y, &random(99, &[y.len()]).1);
    assert!((of_output - product(&gradients[2], &given[2].1)).abs() < 1e-4, "another mask on the way back");
    let dropout = Dropout::On { probability: 1.5, seed: 1, step: 0, micro_batch: 0 }.at("layer");
    let x = Tensor::from_vec(given[0].1.clone(), (2, 5, 6), &Device::Cpu).unwrap();
    let tape = Tape::evaluation(Precision::F32);
    assert!(cross_attention(&tape, &x, &x, &x, 2, Pattern { dropout, ..Pattern::default() }).is_err());
}

/// That two ways give the same bits, there and back.
fn check_same(name: &str, given: &[Input], one: impl Op, other: impl Op) {
    assert_eq!(run_contiguous(given, &one), run_contiguous(given, &other), "{name}");
    assert_eq!(run_strided(given, &one), run_strided(given, &other), "{name}, strided");
}

#[test]
fn what_follows_a_layer_in_one_pass_is_what_follows_it_in_two() {
    let given = inputs(&[&[3, 5, 7], &[9, 7], &[9]]);
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh] {
        check_same(
            &format!("{kind:?}"),
            &given,
            |tape, t| linear_activated(tape, &t[0], (&t[1], Some(&t[2])), Order::OutputsFirst, kind),
            |tape, t| activation(tape, kind, &linear(tape, &t[0], &t[1], Some(&t[2]))?),
        );
        check_same(
            &format!("{kind:?}, inputs first"),
            &inputs(&[&[3, 5, 7], &[7, 9]]),
            |tape, t| linear_activated(tape, &t[0], (&t[1], None), Order::InputsFirst, kind),
            |tape, t| activation(tape, kind, &linear_inputs_first(tape, &t[0], &t[1], None)?),
        );
    }
    // Both the sum and its norm are read on.
    let given = inputs(&[&[3, 5, 7], &[3, 5, 7], &[7], &[7]]);
    let fused = |tape: &Tape<'_>, t: &[Tensor]| {
        let [sum, normed] = add_layer_norm(tape, [&t[0], &t[1]], &t[2], &t[3], 1e-6)?;
        add(tape, &sum, &activation(tape, Activation::Gelu, &normed)?)
    };
    let plain = |tape: &Tape<'_>, t: &[Tensor]| {
        let sum = add(tape, &t[0], &t[1])?;
        let normed = layer_norm(tape, &sum, &t[2], &t[3], 1e-6)?;
        add(tape, &sum, &activation(tape, Activation::Gelu, &normed)?)
    };
    check_same("sum and norm", &given, fused, plain);
    let tape = Tape::evaluation(Precision::F32);
    let tensor = |(shape, values): &Input| Tensor::from_slice(values, shape.as_slice(), &Device::Cpu).unwrap();
    let [x, gain] = [&given[0], &given[2]].map(tensor);
    assert!(add_layer_norm(&tape, [&x, &gain], &gain, &gain, 1e-6).is_err(), "shapes differ");
    assert!(add_layer_norm(&tape, [&x, &x], &x, &gain, 1e-6).is_err(), "a gain for each column");
}

/// An operator on large inputs, together with its gradients.
type Case = (Vec<Input>, Box<dyn Fn(&Tape<'_>, &[Tensor]) -> Result<Tensor> + Send + Sync>);

#[test]
fn threads_do_not_change_a_bit() {
    let cases: Vec<Case> = vec![
        (inputs(&[&[5, 150, 70], &[90, 70], &[90]]), Box::new(|tape, t| linear(tape, &t[0], &t[1], Some(&t[2])))),
        (
            inputs(&[&[6, 50, 64], &[6, 50, 64], &[6, 50, 64]]),
            Box::new(|tape, t| cross_attention(tape, &t[0], &t[1], &t[2], 4, Pattern::default())),
        ),
        (inputs(&[&[300, 70], &[70], &[70]]), Box::new(|tape, t| layer_norm(tape, &t[0], &t[1], &t[2], 1e-6))),
        (inputs(&[&[300, 70]]), Box::new(|tape, t| activation(tape, Activation::Gelu, &t[0]))),
        (
            inputs(&[&[100, 9, 30], &[1, 1, 30], &[1, 10, 30]]),
            Box::new(|tape, t| embed(tape, &t[0], Some(&t[1]), &t[2])),
        ),
        (inputs(&[&[400, 9, 30]]), Box::new(|tape, t| mean_of_tokens(tape, &t[0]))),
        (
            inputs(&[&[4, 16, 33, 31], &[24, 8, 3, 3], &[24]]),
            Box::new(|tape, t| {
                let how = Conv2d { stride: [2, 1], padding: [1, 2], dilation: [1, 2], groups: 2 };
                conv2d(tape, &t[0], &t[1], Some(&t[2]), how)
            }),
        ),
        (
            inputs(&[&[4, 16, 33, 31], &[24, 16, 3, 3], &[24]]),
            Box::new(|tape, t| {
                conv2d(tape, &t[0], &t[1], Some(&t[2]), Conv2d { padding: [1, 1], ..Conv2d::default() })
            }),
        ),
        (
            inputs(&[&[8, 16, 33, 31]]),
            Box::new(|tape, t| {
                let pool = Pool2d { kernel: [3, 3], stride: [2, 1], padding: [1, 1] };
                global_avg_pool(tape, &avg_pool2d(tape, &max_pool2d(tape, &t[0], pool)?, pool, Divisor::Values)?)
            }),
        ),
        (
            inputs(&[&[8, 16, 33, 31], &[16], &[16], &[16], &[16]]),
            Box::new(|tape, t| {
                let norm = BatchNorm { gain: &t[1], bias: &t[2], eps: 1e-5, then: Then::Relu };
                let x = batch_norm(tape, &t[0], norm, Statistics::Batch(None))?;
                group_norm(tape, &x, 4, &t[3], &t[4], 1e-5)
            }),
        ),
    ];
    for (i, (given, op)) in cases.iter().enumerate() {
        let alone = run_contiguous(given, op);
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let together = pool.install(|| run_contiguous(given, op));
            assert!(together == alone, "operator {i} with {threads} threads");
        }
    }
}

/// Who watches is told the probabilities, whatever the mask: the output is their product with the values.
#[test]
fn what_is_told_of_attention_is_what_attention_does() {
    let (samples, queries, keys, heads, dim) = (2, 5, 7, 3, 12);
    let tensor = |seed: u64, shape: &[usize]| {
        let (shape, values) = random(seed, shape);
        tensor_of(values, shape.as_slice()).unwrap()
    };
    let q = tensor(1, &[samples, queries, dim]);
    let [k, v] = [2, 3].map(|seed| tensor(seed, &[samples, keys, dim]));
    let unseen = Some((0..samples * keys).map(|i| i % 5 != 0).collect::<Vec<_>>());
    let blocks = Some(Blocks { size: 4, seen: vec![true, false, true, true] });
    let patterns = [
        Pattern::default(),
        Pattern { causal: true, keys: unseen, ..Pattern::default() },
        Pattern { bias: Some(tensor(4, &[heads, queries, keys])), blocks, ..Pattern::default() },
    ];
    for pattern in patterns {
        let mut told = Vec::new();
        let mut watcher = |attended| told.push(attended);
        let tape = Tape::evaluation(Precision::F32).watched(&mut watcher);
        tape.enter("part");
        let y = cross_attention(&tape, &q, &k, &v, heads, pattern).unwrap();
        drop(tape);
        let [attended] = &told[..] else { panic!("{told:?}") };
        assert_eq!((attended.scope.as_str(), attended.queries, attended.keys), ("part", queries, keys));
        let p = |s, h, i, j| f64::from(attended.probabilities[((s * heads + h) * queries + i) * keys + j]);
        let values: Vec<f32> = v.flatten_all().unwrap().to_vec1().unwrap();
        let mut expected = Vec::new();
        for (s, i, column) in (0..samples * queries * dim).map(|n| (n / dim / queries, n / dim % queries, n % dim)) {
            let h = column / (dim / heads);
            let row: f64 = (0..keys).map(|j| p(s, h, i, j)).sum();
            assert!((row - 1.0).abs() < 1e-6, "a row adds up to {row}");
            expected.push((0..keys).map(|j| p(s, h, i, j) * f64::from(values[(s * keys + j) * dim + column])).sum());
        }
        close("attention", &y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), &expected);
    }
}
