//! The graph of one pass, as the list of operators in the order they ran.
//!
//! Candle can record and walk graphs, too, but it adds every gradient to zeros first, keeps all activations until the end,
//! and adds large tensors on spinning threads of its own, which starves a worker that shares its cores with others. Here
//! an operator owns what it keeps and gives it up as soon as it was walked over; the first gradient of a tensor is taken as
//! it is and later ones are added to it in place; and gradients of parameters are computed where they belong.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use candle_core::{Result, Tensor, TensorId, bail};
use kernels::elementwise;
use kernels::fresh::Write;
use kernels::gemm::Precision;

use super::cross_entropy::{CrossEntropy, cross_entropy};
use super::profile::{Phase, Profile};
use crate::gradient::GradientSink;
use crate::inspect::Attended;
use crate::layout::Layout;
use crate::parameters::Parameters;

/// What an operator needs to walk back over it.
pub trait Operator {
    /// Gives its inputs their share of `gradient`, which is that of its output, row-major.
    ///
    /// It keeps a tensor only if it needs the values; to name an input, its id is enough.
    fn backward(self: Box<Self>, gradient: Shared, to: &mut Gradients<'_>) -> Result<()>;
}

/// Records the operators of a pass, or only runs them.
pub struct Tape<'p> {
    precision: Precision,
    recorded: Option<RefCell<Recorded<'p>>>,
    profile: Option<&'p Profile>,
    /// Who is told what attention looks at.
    watcher: Option<RefCell<Watcher<'p>>>,
    /// What the model is doing, for the profile and the watcher.
    scope: RefCell<String>,
}

/// Takes what each attention layer looks at, in the order in which they run.
pub type Watcher<'p> = &'p mut (dyn FnMut(Attended) + Send);

struct Recorded<'p> {
    parameters: &'p Parameters,
    entries: Vec<Entry>,
    /// Tensors whose gradient is wanted and that are no parameters.
    wanted: HashSet<TensorId>,
    /// How many operators read each parameter.
    uses: Vec<u32>,
}

struct Entry {
    operator: Box<dyn Operator>,
    output: TensorId,
    /// The parameters that it reads.
    parameters: Vec<usize>,
    label: Label,
}

/// What the profile says about an operator.
struct Label {
    scope: String,
    name: &'static str,
    /// Floating-point operations of its backward pass.
    operations: u64,
}

impl<'p> Tape<'p> {
    /// A tape to walk back over.
    pub fn training(parameters: &'p Parameters, precision: Precision) -> Self {
        let recorded = Recorded {
            parameters,
            entries: Vec::new(),
            wanted: HashSet::new(),
            uses: vec![0; parameters.tensors().len()],
        };
        Self {
            precision,
            recorded: Some(RefCell::new(recorded)),
            profile: None,
            watcher: None,
            scope: RefCell::default(),
        }
    }

    /// For evaluations.
    pub fn evaluation(precision: Precision) -> Self {
        Self { precision, recorded: None, profile: None, watcher: None, scope: RefCell::default() }
    }

    /// Notes in `profile` how long each operator took.
    pub fn profiled(self, profile: Option<&'p Profile>) -> Self {
        Self { profile, ..self }
    }

    /// Tells `watcher` what every attention layer looks at.
    pub fn watched(self, watcher: Watcher<'p>) -> Self {
        Self { watcher: Some(RefCell::new(watcher)), ..self }
    }

    /// Tells whoever watches what an attention layer looks at, which `attended` makes for the part of the model in hand.
    pub(super) fn tell(&self, attended: impl FnOnce(String) -> Result<Attended>) -> Result<()> {
        if let Some(watcher) = &self.watcher {
            let attended = attended(self.scope.borrow().clone())?;
            (*watcher.borrow_mut())(attended);
        }
        Ok(())
    }

    /// In which format operands enter products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Says that what follows belongs to the part `name` of the model.
    pub fn enter(&self, name: &str) {
        if self.profile.is_some() || self.watcher.is_some() {
            name.clone_into(&mut self.scope.borrow_mut());
        }
    }

    /// Asks for the gradient of a tensor that no operator made.
    pub fn want(&self, tensor: &Tensor) {
        if let Some(recorded) = &self.recorded {
            recorded.borrow_mut().wanted.insert(tensor.id());
        }
    }

    /// Whether the gradient of `tensor` is wanted.
    pub fn wants(&self, tensor: &Tensor) -> bool {
        self.recorded.as_ref().is_some_and(|recorded| recorded.borrow().wants(tensor))
    }

    /// Runs an operator: `forward` gives the output and, if asked to, what the way back needs. Refuses inputs without values.
    ///
    /// `operations` counts the floating-point operations of the forward pass; the backward pass is taken to need twice as many.
    pub fn run<O: Operator + 'static>(
        &self,
        name: &'static str,
        operations: u64,
        inputs: &[&Tensor],
        forward: impl FnOnce(bool) -> Result<(Tensor, Option<O>)>,
    ) -> Result<Tensor> {
        if let Some(input) = inputs.iter().find(|input| input.elem_count() == 0) {
            bail!("{name} needs values, and an input of shape {:?} has none", input.dims())
        }
        let keep = inputs.iter().any(|input| self.wants(input));
        let begin = self.profile.map(Profile::now);
        let (output, operator) = forward(keep)?;
        if let (Some(profile), Some(begin)) = (self.profile, begin) {
            profile.note(Phase::Forward, &self.scope.borrow(), name, begin, operations);
        }
        if let (Some(recorded), true, Some(operator)) = (&self.recorded, keep, operator) {
            let mut recorded = recorded.borrow_mut();
            let parameters: Vec<usize> =
                inputs.iter().filter_map(|input| recorded.parameters.place(input.id())).collect();
            parameters.iter().for_each(|place| recorded.uses[*place] += 1);
            recorded.wanted.insert(output.id());
            let scope = if self.profile.is_some() { self.scope.borrow().clone() } else { String::new() };
            let label = Label { scope, name, operations: 2 * operations };
            recorded.entries.push(Entry { operator: Box::new(operator), output: output.id(), parameters, label });
        }
        Ok(output)
    }

    /// The loss of `logits`, and the way back from it: see [`cross_entropy`] and [`backward`](Self::backward).
    pub fn backward_from_loss(
        self,
        logits: Tensor,
        target: CrossEntropy<'_>,
        sink: &mut dyn GradientSink,
    ) -> Result<(f64, Outcome)> {
        let (id, begin) = (logits.id(), self.profile.map(Profile::now));
        let (loss, gradient) = cross_entropy(logits, target)?;
        if let (Some(profile), Some(begin)) = (self.profile, begin) {
            profile.note(Phase::Forward, "loss", "cross-entropy", begin, 0);
        }
        Ok((loss, self.walk(id, gradient, sink)?))
    }

    /// Walks back from `output`, whose gradient is `gradient`, to all parameters and all tensors that [`want`](Self::want)
    /// named. Buckets of parameters go to `sink` as soon as they are complete.
    pub fn backward(self, output: &Tensor, gradient: Vec<f32>, sink: &mut dyn GradientSink) -> Result<Outcome> {
        if gradient.len() != output.elem_count() {
            bail!("a gradient of {} values does not fit an output of {:?}", gradient.len(), output.dims())
        }
        self.walk(output.id(), gradient, sink)
    }

    fn walk(self, output: TensorId, gradient: Vec<f32>, sink: &mut dyn GradientSink) -> Result<Outcome> {
        let Some(recorded) = self.recorded.map(RefCell::into_inner) else {
            bail!("an evaluation cannot be walked back over")
        };
        let layout: &Layout = recorded.parameters.layout();
        let mut missing = vec![0; layout.buckets().len()];
        layout.parameters().iter().for_each(|parameter| missing[parameter.bucket] += 1);
        let mut gradients = Gradients {
            pending: HashMap::from([(output, Shared(Arc::new(gradient)))]),
            wanted: &recorded.wanted,
            parameters: recorded.parameters,
            buckets: vec![None; missing.len()],
            missing,
            reached: vec![false; recorded.uses.len()],
            uses: recorded.uses.clone(),
            sink,
            precision: self.precision,
        };
        let mut entries = recorded.entries;
        while let Some(Entry { operator, output, parameters, label }) = entries.pop() {
            let begin = self.profile.map(Profile::now);
            if let Some(gradient) = gradients.pending.remove(&output) {
                operator.backward(gradient, &mut gradients)?;
            } else {
                drop(operator);
            }
            if let (Some(profile), Some(begin)) = (self.profile, begin) {
                profile.note(Phase::Backward, &label.scope, label.name, begin, label.operations);
            }
            parameters.into_iter().for_each(|place| gradients.used(place));
        }
        Ok(gradients.outcome())
    }
}

impl Recorded<'_> {
    fn wants(&self, tensor: &Tensor) -> bool {
        self.wanted.contains(&tensor.id()) || self.parameters.place(tensor.id()).is_some()
    }
}

/// A gradient that several inputs may have in common.
#[derive(Clone)]
pub struct Shared(Arc<Vec<f32>>);

impl Shared {
    /// The values, to change in place; copied if others have them, too.
    pub fn into_vec(self) -> Vec<f32> {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| shared.to_vec())
    }
}

impl std::ops::Deref for Shared {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

/// The gradients that are known while walking back.
pub struct Gradients<'a> {
    pending: HashMap<TensorId, Shared>,
    wanted: &'a HashSet<TensorId>,
    parameters: &'a Parameters,
    buckets: Vec<Option<Vec<f32>>>,
    /// Parameters of each bucket that are not complete.
    missing: Vec<usize>,
    /// Which parameters have got a gradient.
    reached: Vec<bool>,
    /// Operators that will still add to each parameter.
    uses: Vec<u32>,
    sink: &'a mut dyn GradientSink,
    precision: Precision,
}

/// What is left when the tape is at its beginning.
pub struct Outcome {
    /// The numbers of the parameters that no gradient reached. Their buckets were not given to the sink.
    pub unreached: Vec<usize>,
    gradients: HashMap<TensorId, Shared>,
}

impl Outcome {
    /// The gradient of a tensor that was wanted, if the output depends on it.
    pub fn of(&self, tensor: &Tensor) -> Option<&[f32]> {
        self.gradients.get(&tensor.id()).map(|gradient| &**gradient)
    }
}

impl Gradients<'_> {
    /// In which format operands enter products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether the gradient of `tensor` is wanted.
    pub fn wants(&self, tensor: TensorId) -> bool {
        self.wanted.contains(&tensor) || self.parameters.place(tensor).is_some()
    }

    /// Adds to the gradient of a tensor.
    pub fn add(&mut self, tensor: TensorId, more: Vec<f32>) {
        self.share(tensor, Shared(Arc::new(more)));
    }

    /// The same for values that others keep, too.
    pub fn share(&mut self, tensor: TensorId, more: Shared) {
        if !self.wants(tensor) {
            return;
        }
        if self.parameters.place(tensor).is_some() {
            return self.parameter(tensor, |values, how| match how {
                Write::Overwrite => values.copy_from_slice(&more),
                Write::Add => elementwise::add_into(values, &more),
            });
        }
        match self.pending.remove(&tensor) {
            None => self.pending.insert(tensor, more),
            Some(known) => {
                let mut sum = known.into_vec();
                elementwise::add_into(&mut sum, &more);
                self.pending.insert(tensor, Shared(Arc::new(sum)))
            }
        };
    }

    /// Takes the gradient that is known of a tensor so far, to add to it: what comes of it is given back by
    /// [`add`](Self::add).
    pub fn take(&mut self, tensor: TensorId) -> Option<Vec<f32>> {
        self.pending.remove(&tensor).map(Shared::into_vec)
    }

    /// Calls `write` with the place of a parameter's gradient, and whether to replace what is there or to add to it. Does
    /// nothing if the tensor is not trained.
    pub fn parameter(&mut self, tensor: TensorId, write: impl FnOnce(&mut [f32], Write)) {
        self.parameters([Some(tensor)], |[place]| {
            if let Some((values, how)) = place {
                write(values, how);
            }
        });
    }

    /// The same for several parameters of one operator at once; `None` for those that are not trained.
    pub fn parameters<const N: usize>(
        &mut self,
        tensors: [Option<TensorId>; N],
        write: impl FnOnce([Option<(&mut [f32], Write)>; N]),
    ) {
        let places = tensors.map(|tensor| tensor.and_then(|tensor| self.parameters.place(tensor)));
        let layout = self.parameters.layout();
        for place in places.iter().flatten() {
            let bucket = layout.parameters()[*place].bucket;
            if self.buckets[bucket].is_none() {
                let buffer = self.sink.buffer(bucket, layout.buckets()[bucket]);
                assert_eq!(buffer.len(), layout.buckets()[bucket], "a buffer is as long as its bucket");
                self.buckets[bucket] = Some(buffer);
            }
        }
        let mut wanted: Vec<(usize, usize)> =
            places.iter().enumerate().filter_map(|(i, place)| place.map(|place| (i, place))).collect();
        wanted.sort_by_key(|(_, place)| (layout.parameters()[*place].bucket, layout.parameters()[*place].part.start));
        let mut out: [Option<(&mut [f32], Write)>; N] = std::array::from_fn(|_| None);
        let mut rest: Vec<(usize, &mut [f32])> =
            self.buckets.iter_mut().map(|bucket| (0, bucket.as_deref_mut().unwrap_or_default())).collect();
        for (i, place) in wanted {
            let parameter = &layout.parameters()[place];
            let (offset, values) = std::mem::take(&mut rest[parameter.bucket]);
            let (part, behind) = values.split_at_mut(parameter.part.end - offset);
            rest[parameter.bucket] = (parameter.part.end, behind);
            let how = if self.reached[place] { Write::Add } else { Write::Overwrite };
            self.reached[place] = true;
            out[i] = Some((&mut part[parameter.part.start - offset..], how));
        }
        write(out);
    }

    /// One operator fewer will add to a parameter.
    fn used(&mut self, place: usize) {
        self.uses[place] -= 1;
        if self.uses[place] > 0 || !self.reached[place] {
            return;
        }
        let bucket = self.parameters.layout().parameters()[place].bucket;
        self.missing[bucket] -= 1;
        if self.missing[bucket] == 0 {
            let values = self.buckets[bucket].take().expect("a bucket whose parameters were reached has a buffer");
            self.sink.complete(bucket, values);
        }
    }

    fn outcome(self) -> Outcome {
        let unreached = (0..self.reached.len()).filter(|place| !self.reached[*place]).collect();
        Outcome { unreached, gradients: self.pending }
    }
}
