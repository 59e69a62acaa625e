use rayon::prelude::*;

use crate::layout::Layout;

/// What is wrong with a gradient, by parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Parameters with an infinite or undefined value in their gradient.
    pub non_finite: Vec<String>,
    /// Parameters whose gradient is zero everywhere: nothing they hold reaches the loss.
    pub zero: Vec<String>,
}

/// Looks at every parameter's part of the flat `gradient`.
pub fn audit(layout: &Layout, gradient: &[f32]) -> Audit {
    assert_eq!(gradient.len(), layout.len(), "a gradient has one value per parameter value");
    let mut audit = Audit::default();
    for parameter in layout.parameters() {
        let values = &gradient[parameter.range.clone()];
        if values.iter().any(|g| !g.is_finite()) {
            audit.non_finite.push(parameter.name.clone());
        } else if values.iter().all(|g| *g == 0.0) {
            audit.zero.push(parameter.name.clone());
        }
    }
    audit
}

/// Values whose squares are added up by one thread. Part of the result: it fixes the order of the sum.
const NORM_CHUNK: usize = 1 << 16;

/// Partial sums inside a chunk, for the vector unit. Part of the result, too.
const LANES: usize = 8;

/// The L2 norm of the whole gradient, in double precision.
pub fn global_norm(gradient: &[f32]) -> f64 {
    let sums: Vec<f64> = if gradient.len() <= NORM_CHUNK || rayon::current_num_threads() == 1 {
        gradient.chunks(NORM_CHUNK).map(sum_of_squares).collect()
    } else {
        gradient.par_chunks(NORM_CHUNK).map(sum_of_squares).collect()
    };
    sums.iter().sum::<f64>().sqrt()
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0f64; LANES];
    for group in whole {
        for (lane, value) in lanes.iter_mut().zip(group) {
            *lane += f64::from(*value) * f64::from(*value);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>()
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

    #[test]
    fn the_norm_is_the_norm_and_needs_no_fixed_number_of_threads() {
        let gradient: Vec<f32> = (0..3 * NORM_CHUNK + 17).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
        let exact: i64 = gradient.iter().map(|g| (*g as i64).pow(2)).sum();
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| global_norm(&gradient)), (exact as f64).sqrt());
        }
        assert_eq!(global_norm(&[]), 0.0);
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
        let layout = Layout::of(["c", "a", "b"].map(declare).to_vec());
        let found = audit(&layout, &[0.0, 0.0, 0.0, 1e-30, f32::NAN, 0.0]);
        assert_eq!(found, Audit { zero: vec!["a".to_owned()], non_finite: vec!["c".to_owned()] });
    }
}
