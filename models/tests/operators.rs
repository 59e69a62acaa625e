//! Every operator against PyTorch in double precision: values and gradients of `fixtures/operators.safetensors`, which
//! `fixtures/make_operator_reference.py` makes, and the same bits from any number of threads.
#![expect(clippy::unwrap_used, reason = "tests may, and clippy does not see that their helpers are tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use domain::spec::{Decay, OptimizerRule, OptimizerSpec};
use models::nn::{self, Activation, Blocks, Conv2d, CrossEntropy, Divisor, Pattern, Pool2d, Precision, Tape};
use models::nn::{BatchNorm, RunningStatistics, Statistics, Then};
use models::{Declaration, Gradient, Layout, Optimizer, Parameters, Role, Update, clip_scale};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const FIXTURE: &[u8] = include_bytes!("../fixtures/operators.safetensors");

/// Of the largest magnitude of a tensor.
const TOLERANCE: f64 = 1e-5;

/// Tensors smaller than this are compared with it.
const FLOOR: f64 = 1e-3;

/// A case of the fixture.
struct Case<'a> {
    file: &'a SafeTensors<'static>,
    name: String,
    op: String,
    parameters: Value,
}

impl Case<'_> {
    fn has(&self, tensor: &str) -> bool {
        self.file.tensor(&format!("{}/{tensor}", self.name)).is_ok()
    }

    /// Values of single or double precision, and their shape.
    fn f64(&self, tensor: &str) -> (Vec<f64>, Vec<usize>) {
        let view = self.file.tensor(&format!("{}/{tensor}", self.name)).unwrap();
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => view.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            other => panic!("{}/{tensor} is {other:?}", self.name),
        };
        (values, view.shape().to_vec())
    }

    fn f32(&self, tensor: &str) -> Vec<f32> {
        self.f64(tensor).0.into_iter().map(|value| value as f32).collect()
    }

    fn tensor(&self, tensor: &str) -> Tensor {
        Tensor::from_vec(self.f32(tensor), self.f64(tensor).1, &Device::Cpu).unwrap()
    }

    fn i32(&self, tensor: &str) -> Vec<i32> {
        let view = self.file.tensor(&format!("{}/{tensor}", self.name)).unwrap();
        assert_eq!(view.dtype(), Dtype::I32, "{}/{tensor}", self.name);
        view.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
    }

    fn mask(&self, tensor: &str) -> Option<Vec<bool>> {
        let view = self.file.tensor(&format!("{}/{tensor}", self.name)).ok()?;
        assert_eq!(view.dtype(), Dtype::U8, "{}/{tensor}", self.name);
        Some(view.data().iter().map(|byte| *byte != 0).collect())
    }

    fn number(&self, parameter: &str) -> f64 {
        self.parameters[parameter].as_f64().unwrap_or_else(|| panic!("{} has no number {parameter}", self.name))
    }

    fn count(&self, parameter: &str) -> usize {
        self.parameters[parameter].as_u64().unwrap_or_else(|| panic!("{} has no count {parameter}", self.name)) as usize
    }

    /// The inputs that have a gradient, in an order that the names alone give.
    fn inputs(&self) -> BTreeMap<String, Tensor> {
        let prefix = format!("{}/", self.name);
        let names =
            self.file.names().into_iter().filter_map(|name| name.strip_prefix(&prefix)?.strip_suffix("_gradient"));
        names.filter(|name| *name != "output").map(|name| (name.to_owned(), self.tensor(name))).collect()
    }
}

/// What an operator made, by the name of what it is compared with.
type Found = BTreeMap<String, Vec<f32>>;

fn file() -> (SafeTensors<'static>, BTreeMap<String, Value>) {
    let (_, metadata) = SafeTensors::read_metadata(FIXTURE).unwrap();
    let cases = &metadata.metadata().as_ref().unwrap()["cases"];
    (SafeTensors::deserialize(FIXTURE).unwrap(), serde_json::from_str(cases).unwrap())
}

/// Calls `visit` with every case.
fn for_each_case(mut visit: impl FnMut(&Case<'_>)) {
    let (file, cases) = file();
    assert_eq!(cases.len(), 95, "cases of operators and of an optimizer");
    for (name, case) in cases {
        let op = case["op"].as_str().unwrap().to_owned();
        visit(&Case { file: &file, name, op, parameters: case["parameters"].clone() });
    }
}

fn parameters_of(tensors: &BTreeMap<String, Tensor>, roles: impl Fn(&str) -> Role) -> Parameters {
    let declare = |(name, tensor): (&String, &Tensor)| Declaration {
        name: name.clone(),
        shape: tensor.dims().to_vec(),
        role: roles(name),
    };
    let layout = Layout::of(tensors.iter().map(declare).collect());
    Parameters::new(Arc::new(layout), tensors.values().cloned().collect()).unwrap()
}

/// Runs a case, whatever its operator.
fn run(case: &Case<'_>) -> Found {
    match &case.op[..] {
        "cross_entropy" => cross_entropy(case),
        "softmax" => softmax(case),
        "adamw" => adamw(case),
        _ => on_tape(case),
    }
}

/// An operator of the tape, forward and back.
fn on_tape(case: &Case<'_>) -> Found {
    let inputs = case.inputs();
    let parameters = parameters_of(&inputs, |_| Role::Matrix);
    let tape = Tape::training(&parameters, Precision::F32);
    let mut found = Found::new();
    let output = forward(case, &tape, &inputs, &mut found).unwrap();
    let shape = case.f64("output").1;
    // One axis of ids is a sample.
    let is_sample = case.op == "embedding" && shape.len() == 2;
    assert_eq!(&output.dims()[usize::from(is_sample)..], shape, "{}: shape", case.name);
    let mut gradient = Gradient::default();
    let outcome = tape.backward(&output, case.f32("output_gradient"), &mut gradient).unwrap();
    assert_eq!(outcome.unreached, [0usize; 0], "{}: the graph is cut", case.name);
    found.insert("output".to_owned(), output.flatten_all().unwrap().to_vec1().unwrap());
    for parameter in parameters.layout().parameters() {
        found.insert(format!("{}_gradient", parameter.name), gradient.of(parameter).to_vec());
    }
    found
}

/// The output. What the operator makes besides goes to `found`.
fn forward(case: &Case<'_>, tape: &Tape<'_>, inputs: &BTreeMap<String, Tensor>, found: &mut Found) -> Result<Tensor> {
    let input = |name: &str| inputs.get(name).unwrap_or_else(|| panic!("{} has no input {name}", case.name));
    let eps = || case.number("eps") as f32;
    match &case.op[..] {
        "linear" => {
            let y = nn::linear(tape, input("x"), input("weight"), inputs.get("bias"))?;
            activated(case, tape, y)
        }
        "activation" => activated(case, tape, input("x").clone()),
        // As BERT does it.
        "pooler" => {
            let first = nn::first_token(tape, input("x"))?;
            let y = nn::linear(tape, &first, input("weight"), Some(input("bias")))?;
            nn::activation(tape, Activation::Tanh, &y)
        }
        "layer_norm" => nn::layer_norm(tape, input("x"), input("gain"), input("bias"), eps()),
        "rms_norm" => nn::rms_norm(tape, input("x"), input("gain"), eps()),
        "group_norm" => {
            nn::group_norm(tape, input("x"), case.count("groups"), input("gain"), input("bias"), eps_or(case))
        }
        "attention" => {
            let has = |mask: &str| {
                case.parameters["masks"].as_array().is_some_and(|masks| masks.iter().any(|name| name == mask))
            };
            let blocks = case.mask("block_mask").map(|seen| Blocks { size: case.count("block"), seen });
            let (keys, bias) = (case.mask("key_mask"), inputs.get("bias").cloned());
            let found = (has("keys"), has("bias"), has("blocks"));
            assert_eq!((keys.is_some(), bias.is_some(), blocks.is_some()), found, "{}: masks", case.name);
            let pattern = Pattern { causal: has("causal"), keys, bias, blocks, dropout: None };
            nn::cross_attention(tape, input("query"), input("key"), input("value"), case.count("heads"), pattern)
        }
        "embedding" => {
            let ids: Vec<u32> = case.i32("ids").into_iter().map(|id| u32::try_from(id).unwrap()).collect();
            let shape = case.file.tensor(&format!("{}/ids", case.name)).unwrap().shape().to_vec();
            // One axis of ids is a sample.
            let [samples, tokens] = if let [samples, tokens] = shape[..] { [samples, tokens] } else { [1, ids.len()] };
            nn::embedding(tape, input("table"), &ids, [samples, tokens])
        }
        "conv2d" => {
            let both = |parameter: &str| [case.count(parameter); 2];
            let groups = case.parameters["groups"].as_u64().unwrap_or(1) as usize;
            let how = Conv2d { stride: both("stride"), padding: both("padding"), groups, ..Conv2d::default() };
            nn::conv2d(tape, input("x"), input("weight"), inputs.get("bias"), how)
        }
        "max_pool2d" => nn::max_pool2d(tape, input("x"), windows(case)),
        "avg_pool2d" => nn::avg_pool2d(tape, input("x"), windows(case), Divisor::Kernel),
        "global_avg_pool" => nn::global_avg_pool(tape, input("x")),
        "batch_norm" => batch_norm(case, tape, inputs, found),
        other => panic!("{}: there is no operator {other}", case.name),
    }
}

fn eps_or(case: &Case<'_>) -> f32 {
    case.parameters["eps"].as_f64().unwrap_or(1e-5) as f32
}

fn activated(case: &Case<'_>, tape: &Tape<'_>, x: Tensor) -> Result<Tensor> {
    let kind = match case.parameters["activation"].as_str().unwrap() {
        "none" => return Ok(x),
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" => Activation::Silu,
        "tanh" => Activation::Tanh,
        other => panic!("{}: there is no activation {other}", case.name),
    };
    nn::activation(tape, kind, &x)
}

fn windows(case: &Case<'_>) -> Pool2d {
    let both = |parameter: &str| [case.count(parameter); 2];
    Pool2d { kernel: both("kernel"), stride: both("stride"), padding: both("padding") }
}

fn batch_norm(
    case: &Case<'_>,
    tape: &Tape<'_>,
    inputs: &BTreeMap<String, Tensor>,
    found: &mut Found,
) -> Result<Tensor> {
    let norm = BatchNorm { gain: &inputs["gain"], bias: &inputs["bias"], eps: eps_or(case), then: Then::Nothing };
    let momentum = case.parameters["momentum"].as_f64().unwrap_or(0.1) as f32;
    let mut running = RunningStatistics { mean: case.f32("running_mean"), variance: case.f32("running_var"), momentum };
    if !case.parameters["training"].as_bool().unwrap() {
        return nn::batch_norm(tape, &inputs["x"], norm, Statistics::Running(&running));
    }
    let y = nn::batch_norm(tape, &inputs["x"], norm, Statistics::Batch(Some(&mut running)))?;
    found.insert("running_mean_after".to_owned(), running.mean);
    found.insert("running_var_after".to_owned(), running.variance);
    Ok(y)
}

/// A loss is where the way back begins, so it is no operator of the tape.
fn cross_entropy(case: &Case<'_>) -> Found {
    const IGNORED: u32 = u32::MAX;
    let labels: Vec<u32> =
        case.i32("labels").into_iter().map(|label| u32::try_from(label).unwrap_or(IGNORED)).collect();
    let smoothing = case.parameters["label_smoothing"].as_f64().unwrap_or_default() as f32;
    let target = CrossEntropy { labels: &labels, ignore: Some(IGNORED), smoothing, scale: 1.0 };
    let (loss, gradient) = nn::cross_entropy(case.tensor("logits"), target).unwrap();
    assert_eq!(case.f32("output_gradient"), [1.0], "a loss is where the way back begins");
    let counted = labels.iter().filter(|label| **label != IGNORED).count();
    assert_eq!(case.i32("count"), [counted as i32], "{}: count", case.name);
    Found::from([("output".to_owned(), vec![loss as f32]), ("logits_gradient".to_owned(), gradient)])
}

/// No operator stands alone for it. Attention contains it: with keys of the unit vectors, a query is a row of scores, and with
/// values of the unit vectors, the output is a row of weights.
fn softmax(case: &Case<'_>) -> Found {
    let x = case.tensor("x");
    let width = *x.dims().last().unwrap();
    let rows = x.elem_count() / width;
    // The scores are divided by the root of the width.
    let root = (width as f64).sqrt();
    let unit = |size: f64| {
        let values = (0..width * width).map(|i| if i % (width + 1) == 0 { size as f32 } else { 0.0 }).collect();
        Tensor::from_vec(values, (1, width, width), &Device::Cpu).unwrap()
    };
    let query = x.reshape((1, rows, width)).unwrap();
    let parameters = parameters_of(&BTreeMap::from([("x".to_owned(), query.clone())]), |_| Role::Matrix);
    let tape = Tape::training(&parameters, Precision::F32);
    let y = nn::cross_attention(&tape, &query, &unit(root), &unit(1.0), 1, Pattern::default()).unwrap();
    let mut gradient = Gradient::default();
    tape.backward(&y, case.f32("output_gradient"), &mut gradient).unwrap();
    Found::from([
        ("output".to_owned(), y.flatten_all().unwrap().to_vec1().unwrap()),
        ("x_gradient".to_owned(), gradient.flat(parameters.layout())),
    ])
}

fn adamw(case: &Case<'_>) -> Found {
    let decays = case.parameters["decays"].as_array().unwrap();
    let names: Vec<String> = (0..decays.len()).map(|i| format!("parameter{i}")).collect();
    let tensors: BTreeMap<String, Tensor> = names.iter().map(|name| (name.clone(), case.tensor(name))).collect();
    let role = |name: &str| match decays[names.iter().position(|known| known == name).unwrap()].as_bool().unwrap() {
        true => Role::Matrix,
        false => Role::Bias,
    };
    let parameters = parameters_of(&tensors, role);
    let layout = parameters.layout().clone();
    let spec = OptimizerSpec {
        rule: OptimizerRule::Adamw {
            beta1: case.number("beta1"),
            beta2: case.number("beta2"),
            eps: case.number("eps"),
        },
        weight_decay: case.number("weight_decay"),
        decay: Decay::Matrices,
    };
    let mut optimizer = Optimizer::new(&spec, &layout);
    let mut found = Found::new();
    for step in 0..case.f64("norm").1[0] {
        let mut gradient = Gradient::zeros(&layout);
        for parameter in layout.parameters() {
            let steps = case.f32(&format!("{}_gradient", parameter.name));
            let len = parameter.range.len();
            gradient.of_mut(parameter).copy_from_slice(&steps[step * len..][..len]);
        }
        let norm = gradient.norm();
        found.entry("norm".to_owned()).or_default().push(norm as f32);
        let clip = case.parameters["clip_norm"].as_f64().map(|norm| norm as f32);
        let update = Update { lr: case.number("lr"), gradient_scale: clip_scale(norm, clip) };
        optimizer.apply(&parameters, &gradient, update).unwrap();
        for (parameter, tensor) in layout.parameters().iter().zip(parameters.tensors()) {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            found.entry(format!("{}_after", parameter.name)).or_default().extend(values);
        }
    }
    found
}

#[test]
fn operators_are_those_of_pytorch() {
    let mut compared = BTreeMap::<String, (usize, f64)>::new();
    let mut wrong = Vec::new();
    for_each_case(|case| {
        let found = run(case);
        match &case.op[..] {
            "adamw" => assert_eq!(found.len(), 5, "the norm and every parameter"),
            _ => assert!(found.contains_key("output"), "{}", case.name),
        }
        let given = |name: &String| case.op != "adamw" && !found.contains_key(name);
        let missing: Vec<String> = case.inputs().keys().map(|name| format!("{name}_gradient")).filter(given).collect();
        assert!(missing.is_empty(), "{}: nothing was compared with {missing:?}", case.name);
        assert_eq!(case.has("running_mean_after"), found.contains_key("running_mean_after"), "{}", case.name);
        for (name, values) in &found {
            let expected = case.f64(name).0;
            assert_eq!(values.len(), expected.len(), "{}: length of {name}", case.name);
            let size = expected.iter().fold(FLOOR, |size, value| size.max(value.abs()));
            // Not a number is as wrong as can be.
            let differs = |(found, expected): (&f32, &f64)| {
                let error = (f64::from(*found) - expected).abs();
                if error.is_nan() { f64::INFINITY } else { error }
            };
            let error = values.iter().zip(&expected).map(differs).fold(0.0, f64::max) / size;
            if error > TOLERANCE {
                wrong.push(format!("{}: {name} is {error:.1e} off", case.name));
            }
            let (count, worst) = compared.entry(case.op.clone()).or_default();
            (*count, *worst) = (*count + 1, worst.max(error));
        }
    });
    assert!(wrong.is_empty(), "{}\nworst by operator: {compared:#?}", wrong.join("\n"));
    assert_eq!(compared.len(), 16, "{compared:#?}");
}

#[test]
fn threads_do_not_change_a_bit_of_any_case() {
    let pools = [1, 2, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    let bits = |found: Found| -> BTreeMap<String, Vec<u32>> {
        found.into_iter().map(|(name, values)| (name, values.into_iter().map(f32::to_bits).collect())).collect()
    };
    for_each_case(|case| {
        let [alone, two, three] = [0, 1, 2].map(|i| bits(pools[i].install(|| run(case))));
        assert!(two == alone, "{} with 2 threads", case.name);
        assert!(three == alone, "{} with 3 threads", case.name);
    });
}
