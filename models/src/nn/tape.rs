//! The graph of one pass, as the list of operators in the order they ran.
//!
//! Candle can record and walk graphs, too, but it adds every gradient to zeros first, keeps all activations until the end,
//! and adds large tensors on spinning threads of its own, which starves a worker that shares its cores with others. Here
//! the first gradient of a tensor is taken as it is, and what an operator kept is freed as soon as it was walked over.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result, Tensor, TensorId};

use super::parallel::pieces;
use super::values::{Values, tensor_of};

/// Records operators, or only runs them.
pub(crate) struct Tape {
    recorded: Option<RefCell<Vec<Entry>>>,
}

/// An operator that ran, with its inputs and its output.
enum Entry {
    One(Box<dyn CustomOp1>, Tensor, Tensor),
    Two(Box<dyn CustomOp2>, [Tensor; 2], Tensor),
    Three(Box<dyn CustomOp3>, [Tensor; 3], Tensor),
}

/// The gradients that are known, by tensor.
#[derive(Default)]
pub(crate) struct Gradients(HashMap<TensorId, Tensor>);

impl Tape {
    /// A tape to walk back over.
    pub(crate) fn on() -> Self {
        Self { recorded: Some(RefCell::default()) }
    }

    /// For evaluations.
    pub(crate) fn off() -> Self {
        Self { recorded: None }
    }

    pub(super) fn apply1(&self, op: impl CustomOp1 + 'static, x: &Tensor) -> Result<Tensor> {
        let y = x.apply_op1_no_bwd(&op)?;
        self.record(|| Entry::One(Box::new(op), x.clone(), y.clone()));
        Ok(y)
    }

    pub(super) fn apply2(&self, op: impl CustomOp2 + 'static, [a, b]: [&Tensor; 2]) -> Result<Tensor> {
        let y = a.apply_op2_no_bwd(b, &op)?;
        self.record(|| Entry::Two(Box::new(op), [a, b].map(Tensor::clone), y.clone()));
        Ok(y)
    }

    pub(super) fn apply3(&self, op: impl CustomOp3 + 'static, [a, b, c]: [&Tensor; 3]) -> Result<Tensor> {
        let y = a.apply_op3_no_bwd(b, c, &op)?;
        self.record(|| Entry::Three(Box::new(op), [a, b, c].map(Tensor::clone), y.clone()));
        Ok(y)
    }

    fn record(&self, entry: impl FnOnce() -> Entry) {
        if let Some(recorded) = &self.recorded {
            recorded.borrow_mut().push(entry());
        }
    }

    /// Walks back from `output`, whose gradient is `gradient`, to all inputs that no operator made.
    pub(crate) fn backward(self, output: &Tensor, gradient: Tensor) -> Result<Gradients> {
        let mut gradients = Gradients::default();
        gradients.add(output, Some(gradient))?;
        let mut recorded = self.recorded.map(RefCell::into_inner).unwrap_or_default();
        while let Some(entry) = recorded.pop() {
            gradients.walk_over(entry)?;
        }
        Ok(gradients)
    }
}

impl Gradients {
    /// The gradient of an input, if the output depends on it.
    pub(crate) fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(&tensor.id())
    }

    fn walk_over(&mut self, entry: Entry) -> Result<()> {
        match entry {
            Entry::One(op, x, y) => {
                let Some(gradient) = self.0.remove(&y.id()) else { return Ok(()) };
                let of_x = op.bwd(&x, &y, &gradient)?;
                self.add(&x, of_x)
            }
            Entry::Two(op, [a, b], y) => {
                let Some(gradient) = self.0.remove(&y.id()) else { return Ok(()) };
                let (of_a, of_b) = op.bwd(&a, &b, &y, &gradient)?;
                self.add(&a, of_a)?;
                self.add(&b, of_b)
            }
            Entry::Three(op, [a, b, c], y) => {
                let Some(gradient) = self.0.remove(&y.id()) else { return Ok(()) };
                let (of_a, of_b, of_c) = op.bwd(&a, &b, &c, &y, &gradient)?;
                self.add(&a, of_a)?;
                self.add(&b, of_b)?;
                self.add(&c, of_c)
            }
        }
    }

    fn add(&mut self, tensor: &Tensor, more: Option<Tensor>) -> Result<()> {
        let Some(more) = more else { return Ok(()) };
        let sum = match self.0.get(&tensor.id()) {
            // Not in place: the tensors may be shared with the gradients of others.
            Some(known) => sum(known, &more)?,
            None => more,
        };
        self.0.insert(tensor.id(), sum);
        Ok(())
    }
}

/// Values that one thread adds at a time.
const PIECE: usize = 1 << 14;

fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a_values, b_values) = (Values::of(a), Values::of(b));
    tensor_of(sum_of_values(&a_values.rows()?, &b_values.rows()?), a.shape())
}

/// The sums of the elements at the same places.
pub(super) fn sum_of_values(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "only equal shapes add up");
    let mut out = vec![0.0; a.len()];
    pieces(&mut out, PIECE, |i, out| {
        let inputs = a[i * PIECE..].iter().zip(&b[i * PIECE..]);
        out.iter_mut().zip(inputs).for_each(|(out, (a, b))| *out = a + b);
    });
    out
}
