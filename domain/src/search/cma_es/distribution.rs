//! The normal distribution of CMA-ES and how it learns (Hansen 2016, arXiv:1604.00772; equation numbers are of that text).

use super::eigen::{self, Matrix};
use crate::random::Stream;

/// Added to a squared length before a division, as the `cmaes` package does.
const TINY: f64 = 1e-8;

/// Constants that follow from dimension and population (equations 49 to 56, table 1).
#[derive(Clone, Debug)]
struct Constants {
    /// Of the solutions, best first; those of the worse half are negative.
    weights: Vec<f64>,
    /// So many of them are positive and move the mean.
    parents: usize,
    /// How many equally weighted solutions would say as much.
    mass: f64,
    /// Learning rate and damping of the step size.
    step_rate: f64,
    step_damping: f64,
    /// Learning rate of the path, and of the covariance from it and from the solutions.
    path_rate: f64,
    rank_one: f64,
    rank_mu: f64,
    /// The expected length of a standard normal vector.
    expected: f64,
}

impl Constants {
    fn new(dimension: usize, population: usize) -> Self {
        let (n, count) = (dimension as f64, population as f64);
        let parents = population / 2;
        let raw: Vec<f64> =
            (0..population).map(|i| libm::log((count + 1.0) / 2.0) - libm::log(i as f64 + 1.0)).collect();
        let mass_of = |part: &[f64]| {
            let (sum, squares) = (part.iter().sum::<f64>(), part.iter().map(|w| w * w).sum::<f64>());
            sum * sum / squares
        };
        let (mass, mass_of_worse) = (mass_of(&raw[..parents]), mass_of(&raw[parents..]));
        let rank_one = 2.0 / ((n + 1.3) * (n + 1.3) + mass);
        let rank_mu = (2.0 * (mass - 2.0 + 1.0 / mass) / ((n + 2.0) * (n + 2.0) + mass)).min(1.0 - rank_one - TINY);
        // Equations 50 to 52 bound what the worse half takes away, so that the covariance stays positive.
        let bound = (1.0 + rank_one / rank_mu)
            .min(1.0 + 2.0 * mass_of_worse / (mass + 2.0))
            .min((1.0 - rank_one - rank_mu) / (n * rank_mu));
        let positive: f64 = raw.iter().filter(|w| **w > 0.0).sum();
        let negative: f64 = -raw.iter().filter(|w| **w < 0.0).sum::<f64>();
        let weights = raw.iter().map(|w| if *w >= 0.0 { w / positive } else { bound / negative * w }).collect();
        let step_rate = (mass + 2.0) / (n + mass + 5.0);
        let step_damping = 1.0 + 2.0 * (libm::sqrt((mass - 1.0) / (n + 1.0)) - 1.0).max(0.0) + step_rate;
        let path_rate = (4.0 + mass / n) / (n + 4.0 + 2.0 * mass / n);
        let expected = libm::sqrt(n) * (1.0 - 1.0 / (4.0 * n) + 1.0 / (21.0 * n * n));
        Self { weights, parents, mass, step_rate, step_damping, path_rate, rank_one, rank_mu, expected }
    }
}

/// Where solutions are sought: a normal distribution with mean `mean` and covariance `sigma^2 C`.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    constants: Constants,
    /// Its middle.
    pub(crate) mean: Vec<f64>,
    /// The step size.
    pub(crate) sigma: f64,
    covariance: Matrix,
    /// Eigenvectors of the covariance, and the roots of their eigenvalues.
    axes: Matrix,
    lengths: Vec<f64>,
    path: Vec<f64>,
    step_path: Vec<f64>,
    generation: u32,
}

/// The population that Hansen advises (equation 48).
pub(crate) fn default_population(dimension: usize) -> u32 {
    4 + (3.0 * libm::log(dimension.max(1) as f64)) as u32
}

impl Distribution {
    /// A distribution that has learnt nothing. The covariance is positive definite; the population is at least 4.
    pub(crate) fn new(mean: Vec<f64>, sigma: f64, covariance: Matrix, population: usize) -> Self {
        let n = mean.len();
        let constants = Constants::new(n, population.max(4));
        let mut new = Self {
            constants,
            mean,
            sigma,
            covariance,
            axes: Matrix::new(),
            lengths: Vec::new(),
            path: vec![0.0; n],
            step_path: vec![0.0; n],
            generation: 0,
        };
        new.decompose();
        new
    }

    /// How many solutions [`Distribution::learn`] takes.
    pub(crate) fn population(&self) -> usize {
        self.constants.weights.len()
    }

    /// How often it has learnt.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The standard deviation of a coordinate.
    pub(crate) fn deviation(&self, coordinate: usize) -> f64 {
        self.sigma * libm::sqrt(self.covariance[coordinate][coordinate])
    }

    /// The greatest eigenvalue of the covariance as a multiple of the least.
    pub(crate) fn condition(&self) -> f64 {
        let most = self.lengths.iter().copied().fold(0.0, f64::max);
        let least = self.lengths.iter().copied().fold(f64::INFINITY, f64::min);
        (most / least) * (most / least)
    }

    /// A solution.
    pub(crate) fn sample(&self, stream: &mut Stream) -> Vec<f64> {
        let mut x = self.mean.clone();
        for (axis, length) in self.axes.iter().zip(&self.lengths) {
            let along = self.sigma * length * stream.normal_f64();
            x.iter_mut().zip(axis).for_each(|(x, a)| *x += along * a);
        }
        x
    }

    /// A solution that was not drawn from this distribution, no farther from the mean than one that was is likely to be
    /// (Hansen 2011, arXiv:1110.4181), so that it cannot tear the distribution apart.
    pub(crate) fn shortened(&self, x: &[f64]) -> Vec<f64> {
        let n = self.mean.len() as f64;
        let length = norm(&self.whitened(&self.steps(x)));
        let share = ((libm::sqrt(n) + 2.0 * n / (n + 2.0)) / length).min(1.0);
        self.mean.iter().zip(x).map(|(m, x)| m + share * (x - m)).collect()
    }

    /// Learns from as many solutions as the population has, best first.
    pub(crate) fn learn(&mut self, solutions: &[Vec<f64>]) {
        let constants = self.constants.clone();
        assert_eq!(solutions.len(), constants.weights.len(), "a generation is as large as the population");
        let n = self.mean.len();
        self.generation += 1;
        let steps: Vec<Vec<f64>> = solutions.iter().map(|x| self.steps(x)).collect();
        // Equations 41 and 42: the mean moves to the better half.
        let mut moved = vec![0.0; n];
        for (step, weight) in steps.iter().zip(&constants.weights[..constants.parents]) {
            moved.iter_mut().zip(step).for_each(|(moved, y)| *moved += weight * y);
        }
        self.mean.iter_mut().zip(&moved).for_each(|(m, y)| *m += self.sigma * y);

        // Equations 43 and 44: steps in one direction lengthen the next ones, steps back and forth shorten them.
        let rate = constants.step_rate;
        let gain = libm::sqrt(rate * (2.0 - rate) * constants.mass);
        let whitened = self.whitened(&moved);
        self.step_path.iter_mut().zip(&whitened).for_each(|(p, z)| *p = (1.0 - rate) * *p + gain * z);
        let length = norm(&self.step_path);
        let relative = length / constants.expected - 1.0;
        self.sigma = (self.sigma * libm::exp(rate / constants.step_damping * relative)).min(1e32);

        // Equations 45 to 47: the covariance learns the path of the mean and the steps of the solutions.
        let settled = 1.0 - libm::pow(1.0 - rate, 2.0 * (f64::from(self.generation) + 1.0));
        let is_slow = length / libm::sqrt(settled) < (1.4 + 2.0 / (n as f64 + 1.0)) * constants.expected;
        let rate = constants.path_rate;
        let gain = if is_slow { libm::sqrt(rate * (2.0 - rate) * constants.mass) } else { 0.0 };
        self.path.iter_mut().zip(&moved).for_each(|(p, y)| *p = (1.0 - rate) * *p + gain * y);
        let lost = if is_slow { 0.0 } else { rate * (2.0 - rate) };
        let weight_of = |(step, weight): (&Vec<f64>, &f64)| {
            if *weight >= 0.0 {
                return *weight;
            }
            let length = norm(&self.whitened(step));
            weight * n as f64 / (length * length + TINY)
        };
        let weights: Vec<f64> = steps.iter().zip(&constants.weights).map(weight_of).collect();
        let kept = 1.0 + constants.rank_one * lost
            - constants.rank_one
            - constants.rank_mu * constants.weights.iter().sum::<f64>();
        for i in 0..n {
            for j in 0..=i {
                let spread: f64 = steps.iter().zip(&weights).map(|(y, weight)| weight * y[i] * y[j]).sum();
                let value = kept * self.covariance[i][j]
                    + constants.rank_one * self.path[i] * self.path[j]
                    + constants.rank_mu * spread;
                self.covariance[i][j] = value;
                self.covariance[j][i] = value;
            }
        }
        self.decompose();
    }

    fn decompose(&mut self) {
        let (values, axes) = eigen::symmetric(&self.covariance);
        // What rounding or a foreign solution made negative is lifted, in the covariance too.
        if values.iter().any(|value| *value <= 0.0) {
            let lifted = |value: &f64| if *value > 0.0 { *value } else { TINY * TINY };
            let lifted: Vec<f64> = values.iter().map(lifted).collect();
            let n = values.len();
            for i in 0..n {
                for j in 0..n {
                    self.covariance[i][j] = (0..n).map(|k| lifted[k] * axes[k][i] * axes[k][j]).sum();
                }
            }
            self.lengths = lifted.iter().map(|value| libm::sqrt(*value)).collect();
        } else {
            self.lengths = values.iter().map(|value| libm::sqrt(*value)).collect();
        }
        self.axes = axes;
    }

    fn steps(&self, x: &[f64]) -> Vec<f64> {
        x.iter().zip(&self.mean).map(|(x, m)| (x - m) / self.sigma).collect()
    }

    /// `C^(-1/2) y`.
    fn whitened(&self, y: &[f64]) -> Vec<f64> {
        let mut z = vec![0.0; y.len()];
        for (axis, length) in self.axes.iter().zip(&self.lengths) {
            let along = axis.iter().zip(y).map(|(a, y)| a * y).sum::<f64>() / length;
            z.iter_mut().zip(axis).for_each(|(z, a)| *z += along * a);
        }
        z
    }
}

/// Mean, step size and covariance that an earlier search promises: the best tenth of its solutions, each believed to a
/// tenth of the cube (Nomura et al. 2021, arXiv:2012.06932, equations 6 and 7). `solutions` are sorted, best first.
///
/// # Panics
/// If there are none.
pub(crate) fn promised(solutions: &[Vec<f64>]) -> (Vec<f64>, f64, Matrix) {
    let n = solutions[0].len();
    let best = &solutions[..(solutions.len() / 10).max(1)];
    let count = best.len() as f64;
    let mean: Vec<f64> = (0..n).map(|i| best.iter().map(|x| x[i]).sum::<f64>() / count).collect();
    let element = |i: usize, j: usize| {
        let spread = best.iter().map(|x| (x[i] - mean[i]) * (x[j] - mean[j])).sum::<f64>() / count;
        if i == j { spread + 0.01 } else { spread }
    };
    let mut covariance: Matrix = (0..n).map(|i| (0..n).map(|j| element(i, j)).collect()).collect();
    // The step size is such that the rest has determinant 1.
    let (values, _) = eigen::symmetric(&covariance);
    let logs: f64 = values.iter().map(|value| libm::log(*value)).sum();
    let variance = libm::exp(logs / n as f64);
    covariance.iter_mut().flatten().for_each(|element| *element /= variance);
    (mean, libm::sqrt(variance), covariance)
}

fn norm(v: &[f64]) -> f64 {
    libm::sqrt(v.iter().map(|x| x * x).sum())
}

#[cfg(test)]
mod tests;
