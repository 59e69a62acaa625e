use crate::layout::{Layout, Parameter};

/// The gradient of a model, in the buckets of its [`Layout`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradient {
    buckets: Vec<Vec<f32>>,
}

/// Takes in the buckets of a gradient as the backward pass completes them.
pub trait GradientSink {
    /// A buffer of `len` values for a bucket. What it holds counts for nothing.
    fn buffer(&mut self, bucket: usize, len: usize) -> Vec<f32>;

    /// A bucket is complete. Every bucket comes once, in the same order in every pass of a model.
    fn complete(&mut self, bucket: usize, values: Vec<f32>);
}

impl GradientSink for Gradient {
    fn buffer(&mut self, bucket: usize, len: usize) -> Vec<f32> {
        match self.buckets.get_mut(bucket) {
            Some(known) if known.len() == len => std::mem::take(known),
            _ => vec![0.0; len],
        }
    }

    fn complete(&mut self, bucket: usize, values: Vec<f32>) {
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, Vec::new());
        }
        self.buckets[bucket] = values;
    }
}

impl Gradient {
    /// A gradient that is 0 everywhere.
    pub fn zeros(layout: &Layout) -> Self {
        Self { buckets: layout.buckets().iter().map(|len| vec![0.0; *len]).collect() }
    }

    /// The part of one parameter.
    ///
    /// # Panics
    /// If the gradient belongs to another layout.
    pub fn of(&self, parameter: &Parameter) -> &[f32] {
        &self.buckets[parameter.bucket][parameter.part.clone()]
    }

    /// The part of one parameter.
    ///
    /// # Panics
    /// If the gradient belongs to another layout.
    pub fn of_mut(&mut self, parameter: &Parameter) -> &mut [f32] {
        &mut self.buckets[parameter.bucket][parameter.part.clone()]
    }

    /// All buckets.
    pub fn buckets(&self) -> &[Vec<f32>] {
        &self.buckets
    }

    /// Takes a bucket out, to be given back with [`GradientSink::complete`].
    pub fn take(&mut self, bucket: usize) -> Vec<f32> {
        std::mem::take(&mut self.buckets[bucket])
    }

    /// All values in the order of the layout.
    pub fn flat(&self, layout: &Layout) -> Vec<f32> {
        layout.parameters().iter().flat_map(|parameter| self.of(parameter)).copied().collect()
    }

    /// Whether it has the buckets of `layout`.
    pub fn fits(&self, layout: &Layout) -> bool {
        self.buckets.iter().map(Vec::len).eq(layout.buckets().iter().copied())
    }

    /// The L2 norm of the whole, in double precision: the norms of the buckets, in order.
    pub fn norm(&self) -> f64 {
        self.buckets.iter().map(|bucket| kernels::optimizer::sum_of_squares(bucket)).sum::<f64>().sqrt()
    }
}

/// What is wrong with a gradient, by parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Parameters with an infinite or undefined value in their gradient.
    pub non_finite: Vec<String>,
    /// Parameters whose gradient is zero everywhere: nothing they hold reaches the loss.
    pub zero: Vec<String>,
}

/// Looks at every parameter's part of a gradient.
///
/// # Panics
/// If the gradient belongs to another layout.
pub fn audit(layout: &Layout, gradient: &Gradient) -> Audit {
    let mut audit = Audit::default();
    for parameter in layout.parameters() {
        let values = gradient.of(parameter);
        if values.iter().any(|g| !g.is_finite()) {
            audit.non_finite.push(parameter.name.clone());
        } else if values.iter().all(|g| *g == 0.0) {
            audit.zero.push(parameter.name.clone());
        }
    }
    audit
}

/// What to multiply a gradient of norm `norm` by so that its norm is at most `clip_norm`, as
/// `torch.nn.utils.clip_grad_norm_` does; 1 if there is no limit or the norm is not finite.
pub fn clip_scale(norm: f64, clip_norm: Option<f32>) -> f32 {
    /// PyTorch's guard against a division by zero.
    const GUARD: f64 = 1e-6;
    match clip_norm {
        Some(limit) if norm.is_finite() => (f64::from(limit) / (norm + GUARD)).min(1.0) as f32,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Declaration, Role};

    fn bucket(values: Vec<f32>) -> Gradient {
        Gradient { buckets: vec![values] }
    }

    #[test]
    fn the_norm_is_the_norm_and_needs_no_fixed_number_of_threads() {
        let gradient: Vec<f32> = (0..(3 << 16) + 17).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let exact: i64 = gradient.iter().map(|g| (*g as i64).pow(2)).sum();
        let gradient = bucket(gradient);
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| gradient.norm()), (exact as f64).sqrt());
        }
        assert_eq!(bucket(Vec::new()).norm(), 0.0);
    }

    #[test]
    fn clipping_never_makes_a_gradient_longer() {
        assert_eq!(clip_scale(4.0, None), 1.0);
        assert_eq!(clip_scale(0.5, Some(1.0)), 1.0);
        assert_eq!(clip_scale(f64::NAN, Some(1.0)), 1.0);
        assert!((clip_scale(4.0, Some(1.0)) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn the_audit_names_what_is_wrong() {
        let declare = |name: &str| Declaration { name: name.to_owned(), shape: vec![2], role: Role::Bias };
        let layout = Layout::of(["b", "a", "c"].map(declare).to_vec());
        // The last one declared comes first.
        let found = audit(&layout, &bucket(vec![f32::NAN, 0.0, 0.0, 0.0, 0.0, 1e-30]));
        assert_eq!(found, Audit { zero: vec!["a".to_owned()], non_finite: vec!["c".to_owned()] });
    }

    #[test]
    fn buckets_go_from_the_outputs_to_the_inputs() {
        let declare = |name: &str, len| Declaration { name: name.to_owned(), shape: vec![len], role: Role::Bias };
        let large = 1 << 20;
        let layout = Layout::of(vec![declare("first", 3), declare("b", large), declare("a", 5), declare("last", 7)]);
        assert_eq!(layout.buckets(), [7 + 5 + large, 3]);
        let places: Vec<_> = layout.parameters().iter().map(|p| (&p.name[..], p.bucket, p.part.start)).collect();
        assert_eq!(places, [("a", 0, 7), ("b", 0, 12), ("first", 1, 0), ("last", 0, 0)]);
        assert!(Gradient::zeros(&layout).fits(&layout));
    }
}
