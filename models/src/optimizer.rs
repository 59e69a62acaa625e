use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, InplaceOp2, InplaceOp3, Layout as TensorLayout, Tensor};
use domain::spec::{Decay, OptimizerRule, OptimizerSpec};

use crate::layout::Layout;
use crate::network::Network;
use crate::{ModelError, nn};

/// Moves the weights of a network, keeping the moments its rule needs.
///
/// AdamW is `torch.optim.AdamW`; SGD is `torch.optim.SGD` with dampening 0, but its weight decay is decoupled, too: the
/// weights shrink by `lr * weight_decay` and the momentum never sees it (Loshchilov and Hutter 2019, algorithm 1).
pub struct Optimizer {
    spec: OptimizerSpec,
    layout: Arc<Layout>,
    slots: Vec<Slot>,
    updates: u64,
}

/// One tensor per parameter, in the order of the layout.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) tensors: Vec<Tensor>,
}

/// What changes from one update to the next.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Learning rate.
    pub lr: f64,
    /// Multiplies every gradient: the factor that clips it, 1 for none.
    pub gradient_scale: f32,
}

/// The names of what a rule remembers about each parameter, as PyTorch calls it.
pub(crate) fn slot_names(spec: &OptimizerSpec) -> &'static [&'static str] {
    match spec.rule {
        OptimizerRule::Adamw { .. } => &["exp_avg", "exp_avg_sq"],
        OptimizerRule::Sgd { momentum: 0.0, .. } => &[],
        OptimizerRule::Sgd { .. } => &["momentum_buffer"],
    }
}

impl Optimizer {
    /// An optimizer for the parameters of `layout` that has seen no gradient yet.
    pub fn new(spec: &OptimizerSpec, layout: &Arc<Layout>) -> Result<Self, ModelError> {
        let mut slots = Vec::new();
        for name in slot_names(spec) {
            let zeros = |p: &crate::Parameter| Tensor::zeros(p.shape.as_slice(), DType::F32, &Device::Cpu);
            slots.push(Slot { name, tensors: layout.parameters().iter().map(zeros).collect::<Result<_, _>>()? });
        }
        Ok(Self { spec: spec.clone(), layout: layout.clone(), slots, updates: 0 })
    }

    /// Moves the weights of `network` by the flat `gradient`, in place.
    pub fn apply(&mut self, network: &Network, gradient: &[f32], update: Update) -> Result<(), ModelError> {
        if **network.layout() != *self.layout {
            return Err(ModelError::OtherLayout { what: "optimizer" });
        }
        if gradient.len() != self.layout.len() {
            return Err(ModelError::GradientLength { found: gradient.len(), expected: self.layout.len() });
        }
        self.updates += 1;
        for (i, (parameter, weight)) in self.layout.parameters().iter().zip(network.weights()).enumerate() {
            let decays = match self.spec.decay {
                Decay::Matrices => parameter.decays,
                Decay::All => true,
            };
            let decay = if decays { self.spec.weight_decay } else { 0.0 };
            let gradient = Gradient { values: &gradient[parameter.range.clone()], scale: update.gradient_scale };
            self.move_one(i, weight, gradient, update.lr, (1.0 - update.lr * decay) as f32)?;
        }
        Ok(())
    }

    fn move_one(
        &self,
        i: usize,
        weight: &Tensor,
        gradient: Gradient<'_>,
        lr: f64,
        shrink: f32,
    ) -> Result<(), ModelError> {
        match (self.spec.rule.clone(), self.slots.as_slice()) {
            (OptimizerRule::Adamw { beta1, beta2, eps }, [mean, square]) => {
                let (mean, square) = (&mean.tensors[i], &square.tensors[i]);
                mean.inplace_op1(&FirstMoment { gradient, weight: (1.0 - beta1) as f32 })?;
                let (keep, take) = (beta2 as f32, (1.0 - beta2) as f32);
                square.inplace_op1(&SecondMoment { gradient, keep, take })?;
                // The count fits: 2^31 updates are years.
                let updates = i32::try_from(self.updates).unwrap_or(i32::MAX);
                let step = lr / (1.0 - beta1.powi(updates));
                let root = (1.0 - beta2.powi(updates)).sqrt();
                weight.inplace_op3(
                    mean,
                    square,
                    &AdamStep { shrink, step: step as f32, inverse_root: (1.0 / root) as f32, eps: eps as f32 },
                )?;
            }
            (OptimizerRule::Sgd { momentum, nesterov }, [buffer]) => {
                let buffer = &buffer.tensors[i];
                let momentum = momentum as f32;
                buffer.inplace_op1(&Momentum { gradient, momentum })?;
                let along = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
                weight.inplace_op2(buffer, &SgdStep { gradient, along, lr: lr as f32, shrink })?;
            }
            (OptimizerRule::Sgd { .. }, _) => {
                weight.inplace_op1(&PlainStep { gradient, lr: lr as f32, shrink })?;
            }
            (OptimizerRule::Adamw { .. }, _) => unreachable!("an optimizer is made with the slots of its rule"),
        }
        Ok(())
    }

    /// Updates applied so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    pub(crate) fn spec(&self) -> &OptimizerSpec {
        &self.spec
    }

    pub(crate) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}

/// The gradient of one parameter.
#[derive(Clone, Copy)]
struct Gradient<'a> {
    values: &'a [f32],
    scale: f32,
}

impl Gradient<'_> {
    /// Calls `f` with every element of `out` and of the scaled gradient, and of `others`, all of the same length.
    fn update<const N: usize>(
        self,
        out: &mut [f32],
        others: [&[f32]; N],
        f: impl Fn(&mut f32, f32, [f32; N]) + Sync + Send,
    ) {
        assert!(out.len() == self.values.len() && others.iter().all(|o| o.len() == out.len()), "lengths must fit");
        nn::pieces(out, PIECE, |i, out| {
            let (first, count) = (i * PIECE, out.len());
            let gradient = &self.values[first..][..count];
            let others = others.map(|other| &other[first..][..count]);
            nn::vectorised(|| {
                for j in 0..count {
                    f(&mut out[j], gradient[j] * self.scale, others.map(|other| other[j]));
                }
            });
        });
    }
}

/// Values that one thread updates at a time.
const PIECE: usize = 1 << 14;

/// `m += weight * (g - m)`.
struct FirstMoment<'a> {
    gradient: Gradient<'a>,
    weight: f32,
}

impl InplaceOp1 for FirstMoment<'_> {
    fn name(&self) -> &'static str {
        "first-moment"
    }

    fn cpu_fwd(&self, mean: &mut CpuStorage, layout: &TensorLayout) -> candle_core::Result<()> {
        self.gradient.update(writable(mean, layout)?, [], |m, g, []| *m += self.weight * (g - *m));
        Ok(())
    }
}

/// `v = keep * v + take * g^2`.
struct SecondMoment<'a> {
    gradient: Gradient<'a>,
    keep: f32,
    take: f32,
}

impl InplaceOp1 for SecondMoment<'_> {
    fn name(&self) -> &'static str {
        "second-moment"
    }

    fn cpu_fwd(&self, square: &mut CpuStorage, layout: &TensorLayout) -> candle_core::Result<()> {
        self.gradient.update(writable(square, layout)?, [], |v, g, []| *v = self.keep * *v + self.take * g * g);
        Ok(())
    }
}

/// `w = shrink * w - step * m / (sqrt(v) * inverse_root + eps)`.
struct AdamStep {
    shrink: f32,
    step: f32,
    inverse_root: f32,
    eps: f32,
}

impl InplaceOp3 for AdamStep {
    fn name(&self) -> &'static str {
        "adam-step"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_layout: &TensorLayout,
        mean: &CpuStorage,
        mean_layout: &TensorLayout,
        square: &CpuStorage,
        square_layout: &TensorLayout,
    ) -> candle_core::Result<()> {
        let means = Gradient { values: readable(mean, mean_layout)?, scale: 1.0 };
        let squares = readable(square, square_layout)?;
        means.update(writable(weight, weight_layout)?, [squares], |w, m, [v]| {
            *w = self.shrink * *w - self.step * m / (v.sqrt() * self.inverse_root + self.eps);
        });
        Ok(())
    }
}

/// `b = momentum * b + g`.
struct Momentum<'a> {
    gradient: Gradient<'a>,
    momentum: f32,
}

impl InplaceOp1 for Momentum<'_> {
    fn name(&self) -> &'static str {
        "momentum"
    }

    fn cpu_fwd(&self, buffer: &mut CpuStorage, layout: &TensorLayout) -> candle_core::Result<()> {
        self.gradient.update(writable(buffer, layout)?, [], |b, g, []| *b = self.momentum * *b + g);
        Ok(())
    }
}

/// `w = shrink * w - lr * (along.0 * g + along.1 * b)`.
struct SgdStep<'a> {
    gradient: Gradient<'a>,
    along: (f32, f32),
    lr: f32,
    shrink: f32,
}

impl InplaceOp2 for SgdStep<'_> {
    fn name(&self) -> &'static str {
        "sgd-step"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        weight_layout: &TensorLayout,
        buffer: &CpuStorage,
        buffer_layout: &TensorLayout,
    ) -> candle_core::Result<()> {
        let buffer = readable(buffer, buffer_layout)?;
        self.gradient.update(writable(weight, weight_layout)?, [buffer], |w, g, [b]| {
            *w = self.shrink * *w - self.lr * (self.along.0 * g + self.along.1 * b);
        });
        Ok(())
    }
}

/// `w = shrink * w - lr * g`.
struct PlainStep<'a> {
    gradient: Gradient<'a>,
    lr: f32,
    shrink: f32,
}

impl InplaceOp1 for PlainStep<'_> {
    fn name(&self) -> &'static str {
        "plain-step"
    }

    fn cpu_fwd(&self, weight: &mut CpuStorage, layout: &TensorLayout) -> candle_core::Result<()> {
        self.gradient.update(writable(weight, layout)?, [], |w, g, []| *w = self.shrink * *w - self.lr * g);
        Ok(())
    }
}

/// Weights and moments are made whole and never sliced, so their values stand in order.
fn writable<'a>(storage: &'a mut CpuStorage, layout: &TensorLayout) -> candle_core::Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("weights and moments must be contiguous and of type F32"),
    }
}

fn readable<'a>(storage: &'a CpuStorage, layout: &TensorLayout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("weights and moments must be contiguous and of type F32"),
    }
}
