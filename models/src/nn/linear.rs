//! Dense layers.

use std::borrow::Cow;

use candle_core::{Result, Tensor, bail};
use kernels::activation::{self, Activation};
pub use kernels::linear::Order;
use kernels::linear::{Activated, Layer, LayerGradient};

use super::tape::{Gradients, Operator, Shared, Tape};
use super::values::{Values, tensor_of, width, with_width};

/// `y = x W^T + b`: `x` is `[.., inputs]`, the weight `[outputs, ..]` with `inputs` values an output.
pub fn linear(tape: &Tape<'_>, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    dense(tape, x, &[(weight, bias)], Order::OutputsFirst, None)
}

/// `y = x W + b`, the weight being `[inputs, outputs]`: what GPT-2 calls a `Conv1D`.
pub fn linear_inputs_first(tape: &Tape<'_>, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    dense(tape, x, &[(weight, bias)], Order::InputsFirst, None)
}

/// A layer with an activation behind it, in one pass over memory; `order` says how its weight is stored.
pub fn linear_activated(
    tape: &Tape<'_>,
    x: &Tensor,
    (weight, bias): (&Tensor, Option<&Tensor>),
    order: Order,
    kind: Activation,
) -> Result<Tensor> {
    dense(tape, x, &[(weight, bias)], order, Some(kind))
}

/// Several layers that read the same input: `[.., outputs of all]`, the outputs of each next to each other.
pub fn linear_stack(tape: &Tape<'_>, x: &Tensor, layers: &[(&Tensor, Option<&Tensor>)]) -> Result<Tensor> {
    dense(tape, x, layers, Order::OutputsFirst, None)
}

/// An activation goes with a single layer.
fn dense(
    tape: &Tape<'_>,
    x: &Tensor,
    layers: &[(&Tensor, Option<&Tensor>)],
    order: Order,
    kind: Option<Activation>,
) -> Result<Tensor> {
    let inputs = width(x)?;
    if layers.is_empty() {
        bail!("a dense layer needs a weight")
    }
    for (weight, bias) in layers {
        let (outputs, found) = sizes(weight, order)?;
        if found != inputs || bias.is_some_and(|bias| bias.elem_count() != outputs) {
            bail!("a weight {:?} and its bias do not fit an input {:?}", weight.dims(), x.dims())
        }
    }
    let owned = || layers.iter().map(|(weight, bias)| ((*weight).clone(), bias.cloned())).collect();
    let mut operator = Dense { x: x.clone(), layers: owned(), order, then: None };
    let rows = x.elem_count() / inputs.max(1);
    let weights: usize = layers.iter().map(|(weight, _)| weight.elem_count()).sum();
    let mut read = vec![x];
    layers.iter().for_each(|(weight, bias)| read.extend([*weight].into_iter().chain(*bias)));
    tape.run("linear", 2 * (rows * weights) as u64, &read, |keep| {
        let values = Values::of(x);
        let x_rows = values.rows()?;
        let precision = tape.precision();
        let (y, before) = operator.with_layers(|layers| {
            Ok(match (kind, layers) {
                (Some(kind), [layer]) => {
                    // Where ReLU lets nothing through can be seen in what it gives.
                    let keep_before = keep && kind != Activation::Relu;
                    let found =
                        kernels::linear::forward_activated(&x_rows, inputs, layer, kind, keep_before, precision);
                    let Activated { before, y } = found;
                    (y, before)
                }
                _ => (kernels::linear::forward(&x_rows, inputs, layers, precision), None),
            })
        })?;
        let shape = with_width(x, y.len() / rows.max(1));
        let y = tensor_of(y, shape.as_slice())?;
        if let Some(kind) = kind {
            let before = before.map(|before| tensor_of(before, shape.as_slice())).transpose()?;
            operator.then = Some((kind, before.unwrap_or_else(|| y.clone())));
        }
        Ok((y, keep.then_some(operator)))
    })
}

/// Outputs and inputs of a weight.
fn sizes(weight: &Tensor, order: Order) -> Result<(usize, usize)> {
    match (order, weight.dims()) {
        (Order::OutputsFirst, [outputs, inputs @ ..]) => Ok((*outputs, inputs.iter().product())),
        (Order::InputsFirst, [inputs, outputs]) => Ok((*outputs, *inputs)),
        (_, dims) => bail!("a weight has two axes, not {dims:?}"),
    }
}

struct Dense {
    x: Tensor,
    layers: Vec<(Tensor, Option<Tensor>)>,
    order: Order,
    /// What follows, and what it was applied to.
    then: Option<(Activation, Tensor)>,
}

impl Dense {
    fn with_layers<R>(&self, work: impl FnOnce(&[Layer<'_>]) -> Result<R>) -> Result<R> {
        let values: Vec<_> = self.layers.iter().map(|(w, b)| (Values::of(w), b.as_ref().map(Values::of))).collect();
        let mut rows = Vec::with_capacity(values.len());
        for (weight, bias) in &values {
            rows.push((weight.rows()?, bias.as_ref().map(Values::rows).transpose()?));
        }
        let mut layers = Vec::with_capacity(rows.len());
        for ((weight, bias), (tensor, _)) in rows.iter().zip(&self.layers) {
            let (outputs, _) = sizes(tensor, self.order)?;
            layers.push(Layer { weight, bias: bias.as_deref(), outputs, order: self.order });
        }
        work(&layers)
    }
}

impl Operator for Dense {
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()> {
        let gradient: Cow<'_, [f32]> = match &self.then {
            Some((kind, before)) => {
                Cow::Owned(activation::backward(*kind, &Values::of(before).rows()?, gradient.into_vec()))
            }
            None => Cow::Borrowed(&gradient),
        };
        let inputs = width(&self.x)?;
        let precision = to.precision();
        if to.wants(self.x.id()) {
            let of_x =
                self.with_layers(|layers| Ok(kernels::linear::backward_input(&gradient, inputs, layers, precision)))?;
            to.add(self.x.id(), of_x);
        }
        let outputs: Vec<usize> =
            self.layers.iter().map(|(weight, _)| Ok(sizes(weight, self.order)?.0)).collect::<Result<_>>()?;
        let total: usize = outputs.iter().sum();
        let values = Values::of(&self.x);
        let x = values.rows()?;
        let mut first = 0;
        for ((weight, bias), outputs) in self.layers.iter().zip(outputs) {
            to.parameters([Some(weight.id()), bias.as_ref().map(Tensor::id)], |[weight, bias]| {
                let into = LayerGradient { weight, bias };
                let columns = (&gradient[..], total, first);
                kernels::linear::backward_layer(&x, inputs, columns, (outputs, self.order), into, precision);
            });
            first += outputs;
        }
        Ok(())
    }
}
