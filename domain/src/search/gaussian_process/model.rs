//! A Gaussian process with a Matern 5/2 kernel and a length scale for each coordinate (Rasmussen and Williams 2006,
//! chapters 2 and 5).

use std::cmp::Ordering;

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

use crate::search::Choice;

/// Hyperparameters, all as logarithms: the length scale of every coordinate, the variance of the function, that of the noise.
pub(crate) type Logs = Vec<f64>;

/// The least variance of the noise; keeps the covariance well conditioned.
const LEAST_NOISE: f64 = 1e-6;

/// What a pivot is that rounding made negative.
const LEAST_PIVOT: f64 = 1e-12;

/// The factor of a covariance, of which the lower part is given.
fn factor(covariance: DMatrix<f64>) -> Cholesky<f64, Dyn> {
    Cholesky::new_with_substitute(covariance, LEAST_PIVOT).expect("a pivot that is replaced is positive")
}

/// `L^-1 v`.
fn forward(factor: &Cholesky<f64, Dyn>, mut v: DVector<f64>) -> DVector<f64> {
    let is_solved = factor.l_dirty().solve_lower_triangular_mut(&mut v);
    debug_assert!(is_solved, "pivots are positive");
    v
}

/// `L^-T v`.
fn backward(factor: &Cholesky<f64, Dyn>, mut v: DVector<f64>) -> DVector<f64> {
    let is_solved = factor.l_dirty().tr_solve_lower_triangular_mut(&mut v);
    debug_assert!(is_solved, "pivots are positive");
    v
}

/// The kernel at hyperparameters.
#[derive(Clone, Debug)]
pub(crate) struct Kernel<'a> {
    choices: &'a [Choice],
    inverse_squares: Vec<f64>,
    variance: f64,
    noise: f64,
}

impl<'a> Kernel<'a> {
    /// The kernel over coordinates of the kinds `choices`.
    pub(crate) fn new(choices: &'a [Choice], logs: &[f64]) -> Self {
        let d = choices.len();
        let inverse_squares = logs[..d].iter().map(|log| libm::exp(-2.0 * log)).collect();
        Self { choices, inverse_squares, variance: libm::exp(logs[d]), noise: libm::exp(logs[d + 1]) + LEAST_NOISE }
    }

    /// The squared distance along one coordinate: values without an order are equally far from each other.
    fn square(&self, index: usize, a: &[f64], b: &[f64]) -> f64 {
        match self.choices[index] {
            Choice::Fixed => 0.0,
            Choice::Unordered(_) => f64::from(u8::from(a[index] != b[index])),
            Choice::Continuous | Choice::Ordered(_) => (a[index] - b[index]) * (a[index] - b[index]),
        }
    }

    fn distance(&self, a: &[f64], b: &[f64]) -> f64 {
        let terms = self.inverse_squares.iter().enumerate().map(|(index, s)| self.square(index, a, b) * s);
        libm::sqrt(5.0 * terms.sum::<f64>())
    }

    /// The covariance of the function at two points.
    pub(crate) fn at(&self, a: &[f64], b: &[f64]) -> f64 {
        let r = self.distance(a, b);
        self.variance * (1.0 + r + r * r / 3.0) * libm::exp(-r)
    }

    /// The lower part of the covariance of what is observed at points.
    fn covariance(&self, points: &[Vec<f64>]) -> DMatrix<f64> {
        DMatrix::from_fn(points.len(), points.len(), |i, j| match i.cmp(&j) {
            Ordering::Less => 0.0,
            Ordering::Equal => self.variance + self.noise,
            Ordering::Greater => self.at(&points[i], &points[j]),
        })
    }
}

/// The hyperparameters before anything is known, and the means of their normal priors. Length scales grow with the root of
/// the dimension (Hvarfner et al. 2024).
pub(crate) fn prior(dimension: usize) -> Logs {
    let length = -1.2 + 0.5 * libm::log(dimension.max(1) as f64 / 2.0).max(0.0);
    let mut logs = vec![length; dimension];
    logs.extend([0.0, libm::log(1e-4)]);
    logs
}

/// Standard deviation of the prior of each logarithm.
fn deviation(index: usize, dimension: usize) -> f64 {
    match index.checked_sub(dimension) {
        None => 1.0,
        Some(0) => 1.0,
        Some(_) => 2.5,
    }
}

/// The logarithm of the posterior density of the hyperparameters, up to a constant, and its gradient (Rasmussen and
/// Williams 2006, equations 5.8 and 5.9).
pub(crate) fn log_posterior(choices: &[Choice], logs: &[f64], points: &[Vec<f64>], values: &[f64]) -> (f64, Logs) {
    let (n, d) = (points.len(), choices.len());
    let kernel = Kernel::new(choices, logs);
    let factor = factor(kernel.covariance(points));
    let whitened = forward(&factor, DVector::from_column_slice(values));
    // Half of that of the covariance.
    let log_determinant: f64 = factor.l_dirty().diagonal().iter().map(|pivot| libm::log(*pivot)).sum();
    let mut value = -0.5 * whitened.norm_squared() - log_determinant;
    let alpha = backward(&factor, whitened);
    let inverse = factor.inverse();
    let mut gradient = vec![0.0; d + 2];
    for i in 0..n {
        for j in 0..i {
            let weight = alpha[i] * alpha[j] - inverse[(i, j)];
            let r = kernel.distance(&points[i], &points[j]);
            let decay = kernel.variance * libm::exp(-r);
            // The derivative with respect to the logarithm of a length scale; the pairs count twice, which takes the half.
            let slope = weight * decay * (5.0 / 3.0) * (1.0 + r);
            for (index, s) in kernel.inverse_squares.iter().enumerate() {
                gradient[index] += slope * kernel.square(index, &points[i], &points[j]) * s;
            }
            gradient[d] += weight * decay * (1.0 + r + r * r / 3.0);
        }
        let weight = 0.5 * (alpha[i] * alpha[i] - inverse[(i, i)]);
        gradient[d] += weight * kernel.variance;
        gradient[d + 1] += weight * (kernel.noise - LEAST_NOISE);
    }
    for (index, (log, mean)) in logs.iter().zip(prior(d)).enumerate() {
        let z = (log - mean) / deviation(index, d);
        value -= 0.5 * z * z;
        gradient[index] -= z / deviation(index, d);
    }
    (value, gradient)
}

/// Climbs from `logs` by steps that grow while a derivative keeps its sign and shrink when it turns (Rprop, Igel and Huesken
/// 2003), and gives the best point met, behind its [log_posterior].
pub(crate) fn fit(choices: &[Choice], logs: &[f64], points: &[Vec<f64>], values: &[f64], steps: u32) -> (f64, Logs) {
    let mut here = logs.to_vec();
    let mut sizes = vec![0.2; logs.len()];
    let mut before = vec![0.0; logs.len()];
    let mut best = (f64::NEG_INFINITY, here.clone());
    for _ in 0..=steps {
        let (value, gradient) = log_posterior(choices, &here, points, values);
        if value > best.0 {
            best = (value, here.clone());
        }
        for (index, slope) in gradient.into_iter().enumerate() {
            let turned = slope * before[index];
            if turned > 0.0 {
                sizes[index] = (sizes[index] * 1.3f64).min(1.0);
            } else if turned < 0.0 {
                sizes[index] *= 0.5;
            }
            before[index] = slope;
            if slope != 0.0 {
                here[index] = (here[index] + sizes[index].copysign(slope)).clamp(-14.0, 6.0);
            }
        }
    }
    best
}

/// The process given values at points, and further points whose values are not known yet. Those are imagined, several times
/// over, as the process itself would draw them: each time it has another mean, and always the same, smaller variance
/// (Snoek et al. 2012, section 3.2).
#[derive(Clone, Debug)]
pub(crate) struct Posterior<'a> {
    kernel: Kernel<'a>,
    points: Vec<Vec<f64>>,
    factor: Cholesky<f64, Dyn>,
    /// Weights of the covariances in the mean, one set for each time that values are imagined.
    alphas: Vec<DVector<f64>>,
    /// The least of the imagined values of each time; infinite if nothing is imagined.
    least: Vec<f64>,
}

impl<'a> Posterior<'a> {
    /// `values` belong to the first of the `points`. Each of the `draws`, at least one, imagines the others: it holds a normal
    /// number for each of them, or zeros for the mean.
    pub(crate) fn new(kernel: Kernel<'a>, points: Vec<Vec<f64>>, values: &[f64], draws: &[Vec<f64>]) -> Self {
        let factor = factor(kernel.covariance(&points));
        // The factor times whitened values gives values; those imagined are white before.
        let (known, all) = (values.len(), points.len());
        let leading = factor.l_dirty().view((0, 0), (known, known));
        let mut white = DVector::zeros(all);
        white.rows_mut(0, known).copy_from_slice(values);
        let is_solved = leading.solve_lower_triangular_mut(&mut white.rows_mut(0, known));
        debug_assert!(is_solved, "pivots are positive");
        let (mut alphas, mut least) = (Vec::new(), Vec::new());
        for draw in draws {
            white.rows_mut(known, all - known).copy_from_slice(draw);
            let imagined =
                (known..all).map(|row| factor.l_dirty().view((row, 0), (1, row + 1)).tr_dot(&white.rows(0, row + 1)));
            least.push(imagined.fold(f64::INFINITY, f64::min));
            alphas.push(backward(&factor, white.clone()));
        }
        Self { kernel, points, factor, alphas, least }
    }

    /// For each draw the mean of the function at a point, and the least value that is imagined elsewhere; and the standard
    /// deviation.
    pub(crate) fn at(&self, point: &[f64]) -> (impl Iterator<Item = (f64, f64)>, f64) {
        let covariances = self.points.iter().map(|other| self.kernel.at(point, other));
        let covariances = DVector::from_iterator(self.points.len(), covariances);
        let means: Vec<f64> = self.alphas.iter().map(|alpha| covariances.dot(alpha)).collect();
        let explained = forward(&self.factor, covariances).norm_squared();
        let deviation = libm::sqrt((self.kernel.variance - explained).max(1e-14));
        (means.into_iter().zip(self.least.iter().copied()), deviation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOICES: [Choice; 4] = [Choice::Continuous, Choice::Ordered(5), Choice::Unordered(3), Choice::Fixed];

    fn data() -> (Vec<Vec<f64>>, Vec<f64>) {
        let point = |i: u32| vec![f64::from(i * 7 % 11) / 11.0, f64::from(i % 5) / 5.0, f64::from(i % 3) / 3.0, 0.5];
        let points: Vec<Vec<f64>> = (0..11).map(point).collect();
        let values = points.iter().map(|p| libm::sin(6.0 * p[0]) + p[1] - if p[2] > 0.5 { 1.0 } else { 0.0 }).collect();
        (points, values)
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let (points, values) = data();
        let logs = [-0.5, -0.2, 0.3, 0.1, 0.4, -3.0];
        let (_, gradient) = log_posterior(&CHOICES, &logs, &points, &values);
        for index in 0..logs.len() {
            let moved = |by: f64| {
                let mut logs = logs;
                logs[index] += by;
                log_posterior(&CHOICES, &logs, &points, &values).0
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((difference - gradient[index]).abs() < 1e-6 * (1.0 + difference.abs()), "{index}: {difference}");
        }
    }

    #[test]
    fn likelihood_and_posterior_are_those_of_scikit_learn() {
        let reference = &crate::search::reference()["gaussian_process"];
        let numbers = |key: &str| serde_json::from_value::<Vec<f64>>(reference[key].clone()).unwrap();
        let rows = |key: &str| serde_json::from_value::<Vec<Vec<f64>>>(reference[key].clone()).unwrap();
        let number = |key: &str| reference[key].as_f64().unwrap();
        let choices = [Choice::Continuous; 3];
        let mut logs: Logs = numbers("lengths").into_iter().map(libm::log).collect();
        logs.extend([libm::log(number("variance")), libm::log(number("noise") - LEAST_NOISE)]);
        let (points, values) = (rows("points"), numbers("values"));
        // What is left without the prior of the hyperparameters; its constant is left out, the likelihood's too.
        let (mut likelihood, mut gradient) = log_posterior(&choices, &logs, &points, &values);
        for (index, (log, mean)) in logs.iter().zip(prior(3)).enumerate() {
            let z = (log - mean) / deviation(index, 3);
            likelihood += 0.5 * z * z;
            gradient[index] += z / deviation(index, 3);
        }
        likelihood -= 0.5 * values.len() as f64 * libm::log(std::f64::consts::TAU);
        // The logarithm of our noise is that above the least one.
        gradient[4] *= number("noise") / (number("noise") - LEAST_NOISE);
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-9 * (1.0 + expected.abs());
        assert!(close(likelihood, number("log_marginal_likelihood")), "{likelihood}");
        let expected = numbers("gradient");
        for (index, expected) in
            [(3, expected[0]), (0, expected[1]), (1, expected[2]), (2, expected[3]), (4, expected[4])]
        {
            assert!(close(gradient[index], expected), "{index}: {} {expected}", gradient[index]);
        }
        let posterior = Posterior::new(Kernel::new(&choices, &logs), points, &values, &[vec![]]);
        for ((point, mean), deviation) in rows("elsewhere").iter().zip(numbers("mean")).zip(numbers("deviation")) {
            let (found, found_deviation) = mean_at(&posterior, point);
            assert!(close(found, mean) && close(found_deviation, deviation), "{found} {mean}");
        }
    }

    #[test]
    fn fitting_climbs_and_the_posterior_passes_the_values() {
        let (points, values) = data();
        let start = prior(4);
        let (most, fitted) = fit(&CHOICES, &start, &points, &values, 40);
        let density = |logs: &[f64]| log_posterior(&CHOICES, logs, &points, &values).0;
        assert!(density(&fitted) > density(&start) + 0.5 && density(&fitted) == most);
        let mut logs = fitted;
        logs[5] = -14.0;
        let posterior = Posterior::new(Kernel::new(&CHOICES, &logs), points.clone(), &values, &[vec![]]);
        for (point, value) in points.iter().zip(&values) {
            let (mean, deviation) = mean_at(&posterior, point);
            assert!((mean - value).abs() < 0.01 && deviation < 0.01, "{mean} {value} {deviation}");
        }
    }

    fn mean_at(posterior: &Posterior<'_>, point: &[f64]) -> (f64, f64) {
        let (draws, deviation) = posterior.at(point);
        let means: Vec<f64> = draws.map(|(mean, _)| mean).collect();
        (means.iter().sum::<f64>() / means.len() as f64, deviation)
    }

    #[test]
    fn the_mean_as_imagined_value_narrows_and_does_not_move() {
        let (points, values) = data();
        let kernel = Kernel::new(&CHOICES, &prior(4));
        let elsewhere = [0.33, 0.5, 0.0, 0.5];
        let more: Vec<Vec<f64>> = points.iter().cloned().chain([elsewhere.to_vec()]).collect();
        let (mean, deviation) = mean_at(&Posterior::new(kernel.clone(), points, &values, &[vec![]]), &elsewhere);
        let (same, narrower) = mean_at(&Posterior::new(kernel, more, &values, &[vec![0.0]]), &elsewhere);
        assert!((mean - same).abs() < 1e-9, "{mean} {same}");
        assert!(narrower < 0.3 * deviation, "{narrower} {deviation}");
    }

    /// What is imagined has the mean and the deviation of the process, and the mean passes through it.
    #[test]
    fn values_are_imagined_as_the_process_says() {
        let (points, values) = data();
        let kernel = Kernel::new(&CHOICES, &prior(4));
        let elsewhere = [0.33, 0.5, 0.0, 0.5];
        let more: Vec<Vec<f64>> = points.iter().cloned().chain([elsewhere.to_vec()]).collect();
        let (mean, deviation) = mean_at(&Posterior::new(kernel.clone(), points, &values, &[vec![]]), &elsewhere);
        let posterior = Posterior::new(kernel, more, &values, &[vec![-1.0], vec![0.0], vec![2.0]]);
        let (draws, _) = posterior.at(&elsewhere);
        for ((there, imagined), z) in draws.zip([-1.0, 0.0, 2.0]) {
            let expected = mean + z * deviation;
            assert!((imagined - expected).abs() < 0.02 * deviation, "{imagined} {expected}");
            assert!((there - imagined).abs() < 0.02 * deviation, "{there} {imagined}");
        }
    }
}
