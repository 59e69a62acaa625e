//! Dense layers: `y = x W + b`, several of them at a time if they read the same input.

use std::mem::MaybeUninit;

use crate::activation::{self, Activation};
use crate::elementwise;
use crate::fresh::{self, Write};
use crate::gemm::{self, Matrix, MatrixMut, Precision, Start};
use crate::simd::vectorised;
use crate::threads::Shared;

/// How the values of a weight are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[outputs, inputs]`, as in PyTorch's `Linear`.
    OutputsFirst,
    /// `[inputs, outputs]`, as in GPT-2's `Conv1D`.
    InputsFirst,
}

/// A layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `inputs * outputs` values.
    pub weight: &'a [f32],
    /// `outputs` values; none count as 0.
    pub bias: Option<&'a [f32]>,
    /// Outputs.
    pub outputs: usize,
    /// How the weight is stored.
    pub order: Order,
}

impl<'a> Layer<'a> {
    /// The weight as `[inputs, outputs]`.
    fn matrix(&self, inputs: usize) -> Matrix<'a> {
        match self.order {
            Order::OutputsFirst => Matrix { rows: self.outputs, ..Matrix::dense(self.weight, inputs) }.transposed(),
            Order::InputsFirst => Matrix { rows: inputs, ..Matrix::dense(self.weight, self.outputs) },
        }
    }
}

/// Where the gradients of a layer's parameters go.
#[derive(Debug)]
pub struct LayerGradient<'a> {
    /// As many values as the weight, in its order.
    pub weight: Option<(&'a mut [f32], Write)>,
    /// As many values as there are outputs.
    pub bias: Option<(&'a mut [f32], Write)>,
}

/// `x` is `[rows, inputs]`; gives `[rows, outputs of all layers]`, the outputs of a layer next to each other.
///
/// # Panics
/// If sizes do not fit.
pub fn forward(x: &[f32], inputs: usize, layers: &[Layer<'_>], precision: Precision) -> Vec<f32> {
    let x = Matrix::dense(x, inputs);
    let width: usize = layers.iter().map(|layer| layer.outputs).sum();
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let mut first = 0;
        for layer in layers {
            let out = MatrixMut::fresh_columns(y, width, first..first + layer.outputs);
            let start = layer.bias.map_or(Start::Zero, Start::Bias);
            gemm::multiply(out, start, x, layer.matrix(inputs), precision);
            first += layer.outputs;
        }
    };
    // SAFETY: the layers write all columns, one after another.
    unsafe { fresh::written(x.rows * width, fill) }
}

/// What a layer with an activation behind it gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Activated {
    /// `[rows, outputs]`, of `x W + b`; only if it was asked for.
    pub before: Option<Vec<f32>>,
    /// The activation of that.
    pub y: Vec<f32>,
}

/// `kind` of `x W + b`, computed while the product is in the cache. What stands before the activation is given only if
/// `keep` asks for it.
///
/// # Panics
/// If sizes do not fit.
pub fn forward_activated(
    x: &[f32],
    inputs: usize,
    layer: &Layer<'_>,
    kind: Activation,
    keep: bool,
    precision: Precision,
) -> Activated {
    let x = Matrix::dense(x, inputs);
    let start = layer.bias.map_or(Start::Zero, Start::Bias);
    let product = |out: &mut [MaybeUninit<f32>], finish: gemm::Finish<'_>| {
        let out = MatrixMut::fresh(out, layer.outputs);
        gemm::multiply_then(out, start, x, layer.matrix(inputs), precision, Some(finish));
    };
    let len = x.rows * layer.outputs;
    if !keep {
        let fill = |y: &mut [MaybeUninit<f32>]| {
            product(y, &|_, _, stretch| {
                vectorised(
                    #[inline(always)]
                    || activation::apply(kind, stretch),
                );
            });
        };
        // SAFETY: a product writes all of its output.
        return Activated { before: None, y: unsafe { fresh::written(len, fill) } };
    }
    let mut before = Vec::new();
    let fill = |y: &mut [MaybeUninit<f32>]| {
        let y = Shared::new(y);
        let fill = |out: &mut [MaybeUninit<f32>]| {
            product(out, &|row, column, stretch| {
                // SAFETY: each stretch is finished once, and they do not overlap.
                let y = unsafe { y.slice(row * layer.outputs + column, stretch.len()) };
                vectorised(
                    #[inline(always)]
                    || activation::apply_into(kind, stretch, y),
                );
            });
        };
        // SAFETY: a product writes all of its output.
        before = unsafe { fresh::written(len, fill) };
    };
    // SAFETY: every stretch of the product is finished, and each writes as many values here.
    let y = unsafe { fresh::written(len, fill) };
    Activated { before: Some(before), y }
}

/// The gradient of `x`, of `gradient` `[rows, outputs of all layers]`.
///
/// # Panics
/// If sizes do not fit.
pub fn backward_input(gradient: &[f32], inputs: usize, layers: &[Layer<'_>], precision: Precision) -> Vec<f32> {
    let width: usize = layers.iter().map(|layer| layer.outputs).sum();
    let rows = gradient.len() / width.max(1);
    let [first, others @ ..] = layers else { return vec![0.0; rows * inputs] };
    let of = |column: usize, layer: &Layer<'_>| {
        let whole = Matrix::dense(gradient, width);
        Matrix { values: &gradient[column.min(gradient.len())..], columns: layer.outputs, ..whole }
    };
    let fill = |x: &mut [MaybeUninit<f32>]| {
        let right = first.matrix(inputs).transposed();
        gemm::multiply(MatrixMut::fresh(x, inputs), Start::Zero, of(0, first), right, precision);
    };
    // SAFETY: a product writes all of its output.
    let mut x = unsafe { fresh::written(rows * inputs, fill) };
    let mut column = first.outputs;
    for layer in others {
        let right = layer.matrix(inputs).transposed();
        gemm::multiply(MatrixMut::dense(&mut x, inputs), Start::Output, of(column, layer), right, precision);
        column += layer.outputs;
    }
    x
}

/// The gradients of the parameters of one layer, whose outputs are the columns of `gradient` `[rows, width]` from
/// `first_column` on.
///
/// # Panics
/// If sizes do not fit.
pub fn backward_layer(
    x: &[f32],
    inputs: usize,
    (gradient, width, first_column): (&[f32], usize, usize),
    (outputs, order): (usize, Order),
    into: LayerGradient<'_>,
    precision: Precision,
) {
    let x = Matrix::dense(x, inputs);
    let columns = first_column..first_column + outputs;
    let all = gradient;
    let gradient = Matrix {
        values: &gradient[first_column.min(gradient.len())..],
        columns: outputs,
        ..Matrix::dense(gradient, width)
    };
    if let Some((weight, write)) = into.weight {
        let start = match write {
            Write::Overwrite => Start::Zero,
            Write::Add => Start::Output,
        };
        match order {
            Order::OutputsFirst => {
                gemm::multiply(MatrixMut::dense(weight, inputs), start, gradient.transposed(), x, precision);
            }
            Order::InputsFirst => {
                gemm::multiply(MatrixMut::dense(weight, outputs), start, x.transposed(), gradient, precision);
            }
        }
    }
    if let Some((bias, write)) = into.bias {
        elementwise::sum_rows(all, width, columns, bias, write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 507.0 - 1.0).collect()
    }

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        let size = expected.iter().fold(1.0f64, |m, e| m.max(e.abs()));
        found.iter().zip(expected).for_each(|(f, e)| assert!((f64::from(*f) - e).abs() < 1e-5 * size, "{f} {e}"));
    }

    #[test]
    fn layers_side_by_side_and_their_gradients_are_right() {
        let [rows, inputs] = [70, 9];
        let outputs = [5, 1, 17];
        let x = values(1, rows * inputs);
        let weights: Vec<Vec<f32>> = outputs.iter().map(|o| values(*o, o * inputs)).collect();
        let biases: Vec<Vec<f32>> = outputs.iter().map(|o| values(o + 30, *o)).collect();
        for order in [Order::OutputsFirst, Order::InputsFirst] {
            let layers: Vec<Layer<'_>> = (0..3)
                .map(|i| Layer {
                    weight: &weights[i],
                    bias: (i != 1).then_some(&biases[i][..]),
                    outputs: outputs[i],
                    order,
                })
                .collect();
            let weight = |i: usize, input: usize, output: usize| {
                f64::from(match order {
                    Order::OutputsFirst => weights[i][output * inputs + input],
                    Order::InputsFirst => weights[i][input * outputs[i] + output],
                })
            };
            let width = 23;
            let gradient = values(77, rows * width);
            let (mut y, mut dx) = (Vec::new(), vec![0.0; rows * inputs]);
            let mut dw: Vec<Vec<f64>> = outputs.iter().map(|o| vec![0.5; o * inputs]).collect();
            let mut db: Vec<Vec<f64>> = outputs.iter().map(|o| vec![0.5; *o]).collect();
            for row in 0..rows {
                let mut column = 0;
                for i in 0..3 {
                    for output in 0..outputs[i] {
                        let g = f64::from(gradient[row * width + column]);
                        let mut sum = if i == 1 { 0.0 } else { f64::from(biases[i][output]) };
                        for input in 0..inputs {
                            let value = f64::from(x[row * inputs + input]);
                            sum += value * weight(i, input, output);
                            dx[row * inputs + input] += g * weight(i, input, output);
                            let place = match order {
                                Order::OutputsFirst => output * inputs + input,
                                Order::InputsFirst => input * outputs[i] + output,
                            };
                            dw[i][place] += g * value;
                        }
                        db[i][output] += g;
                        y.push(sum);
                        column += 1;
                    }
                }
            }
            close(&forward(&x, inputs, &layers, Precision::F32), &y);
            close(&backward_input(&gradient, inputs, &layers, Precision::F32), &dx);
            let mut first = 0;
            for i in 0..3 {
                let (mut w, mut b) = (vec![0.5; outputs[i] * inputs], vec![0.5; outputs[i]]);
                let into = LayerGradient { weight: Some((&mut w, Write::Add)), bias: Some((&mut b, Write::Add)) };
                let of = (&gradient[..], width, first);
                backward_layer(&x, inputs, of, (outputs[i], order), into, Precision::F32);
                close(&w, &dw[i]);
                close(&b, &db[i]);
                let into =
                    LayerGradient { weight: Some((&mut w, Write::Overwrite)), bias: Some((&mut b, Write::Overwrite)) };
                backward_layer(&x, inputs, of, (outputs[i], order), into, Precision::F32);
                close(&w, &dw[i].iter().map(|v| v - 0.5).collect::<Vec<_>>());
                close(&b, &db[i].iter().map(|v| v - 0.5).collect::<Vec<_>>());
                first += outputs[i];
            }
        }
    }

    /// To the bit, whatever is kept; over several tiles and blocks of terms.
    #[test]
    fn an_activation_behind_a_layer_is_that_of_its_outputs() {
        for [rows, inputs, outputs] in [[1, 1, 1], [7, 9, 33], [200, 300, 1100], [3, 40, 3100]] {
            let (x, weight, bias) = (values(1, rows * inputs), values(2, inputs * outputs), values(3, outputs));
            for (kind, order) in [(Activation::Gelu, Order::OutputsFirst), (Activation::Relu, Order::InputsFirst)] {
                let layer = Layer { weight: &weight, bias: Some(&bias), outputs, order };
                let before = forward(&x, inputs, &[layer], Precision::F32);
                let y = activation::forward(kind, &before);
                let found = forward_activated(&x, inputs, &layer, kind, true, Precision::F32);
                assert!(found == Activated { before: Some(before), y: y.clone() }, "{rows} {inputs} {outputs}");
                let found = forward_activated(&x, inputs, &layer, kind, false, Precision::F32);
                assert!(found == Activated { before: None, y }, "{rows} {inputs} {outputs}");
            }
        }
        let layer = Layer { weight: &[], bias: Some(&[1.0, -1.0]), outputs: 2, order: Order::OutputsFirst };
        let found = forward_activated(&[], 0, &layer, Activation::Relu, true, Precision::F32);
        assert_eq!(found.y, Vec::<f32>::new());
    }

    #[test]
    fn no_rows_give_no_outputs_and_no_gradient() {
        let layers = [Layer { weight: &[1.0, 2.0], bias: None, outputs: 1, order: Order::OutputsFirst }];
        assert!(forward(&[], 2, &layers, Precision::F32).is_empty());
        let mut w = [7.0, 7.0];
        let into = LayerGradient { weight: Some((&mut w, Write::Overwrite)), bias: None };
        backward_layer(&[], 2, (&[], 1, 0), (1, Order::OutputsFirst), into, Precision::F32);
        assert_eq!(w, [0.0, 0.0]);
    }
}
