use std::sync::Arc;

use domain::spec::{Decay, OptimizerRule, OptimizerSpec};

use crate::ModelError;
use crate::gradient::Gradient;
use crate::layout::Layout;
use crate::parameters::Parameters;
use kernels::optimizer::{self as kernel, AdamW, AdamWTensor, Sgd, SgdTensor};

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

/// What is remembered about every parameter, in the order of the layout.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<Vec<f32>>,
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
    pub fn new(spec: &OptimizerSpec, layout: &Arc<Layout>) -> Self {
        let zeros = || layout.parameters().iter().map(|p| vec![0.0; p.range.len()]).collect();
        let slots = slot_names(spec).iter().map(|name| Slot { name, values: zeros() }).collect();
        Self { spec: spec.clone(), layout: layout.clone(), slots, updates: 0 }
    }

    /// Moves the weights by the gradient, in place: clipping, moments and weights in one pass over memory.
    pub fn apply(&mut self, parameters: &Parameters, gradient: &Gradient, update: Update) -> Result<(), ModelError> {
        if **parameters.layout() != *self.layout {
            return Err(ModelError::OtherLayout { what: "optimizer" });
        }
        if !gradient.fits(&self.layout) {
            return Err(ModelError::OtherLayout { what: "gradient" });
        }
        self.updates += 1;
        let layout = self.layout.clone();
        let Update { lr, gradient_scale } = update;
        let gradients = layout.parameters().iter().map(|parameter| gradient.of(parameter));
        let shrinks: Vec<f32> = layout.parameters().iter().map(|parameter| self.shrink(parameter.decays, lr)).collect();
        let rest = gradients.zip(shrinks);
        kernels::threads::inside(|| {
            parameters.update(|weights| match (&self.spec.rule, self.slots.as_mut_slice()) {
                (OptimizerRule::Adamw { beta1, beta2, eps }, [means, squares]) => {
                    // The count fits: 2^31 updates are years.
                    let updates = i32::try_from(self.updates).unwrap_or(i32::MAX);
                    let step = lr / (1.0 - beta1.powi(updates));
                    let root = (1.0 - beta2.powi(updates)).sqrt();
                    let moments = means.values.iter_mut().zip(&mut squares.values);
                    let tensors = weights.into_iter().zip(moments).zip(rest);
                    kernel::adamw(tensors.map(|((weights, (mean, square)), (gradient, shrink))| {
                        let rule = AdamW {
                            gradient_scale,
                            mean_weight: (1.0 - beta1) as f32,
                            square_keep: *beta2 as f32,
                            square_take: (1.0 - beta2) as f32,
                            eps: *eps as f32,
                            step: step as f32,
                            inverse_root: (1.0 / root) as f32,
                            shrink,
                        };
                        AdamWTensor { weights, mean, square, gradient, rule }
                    }));
                }
                (OptimizerRule::Sgd { momentum, nesterov }, slots) => {
                    let mut buffers = slots.first_mut().map(|slot| slot.values.iter_mut());
                    kernel::sgd(weights.into_iter().zip(rest).map(|(weights, (gradient, shrink))| {
                        let (momentum, nesterov) = (*momentum as f32, *nesterov);
                        let rule = Sgd { gradient_scale, momentum, nesterov, lr: lr as f32, shrink };
                        let buffer = buffers.as_mut().and_then(Iterator::next).map(Vec::as_mut_slice);
                        SgdTensor { weights, buffer, gradient, rule }
                    }));
                }
                (OptimizerRule::Adamw { .. }, _) => unreachable!("an optimizer is made with the slots of its rule"),
            })
        })?;
        Ok(())
    }

    /// What weight decay leaves of the weights of a parameter.
    fn shrink(&self, decays: bool, lr: f64) -> f32 {
        let decays = match self.spec.decay {
            Decay::Matrices => decays,
            Decay::All => true,
        };
        (1.0 - lr * if decays { self.spec.weight_decay } else { 0.0 }) as f32
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

    pub(crate) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    pub(crate) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}
