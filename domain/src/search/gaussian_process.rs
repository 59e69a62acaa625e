//! Bayesian optimisation with a Gaussian process: the next point is where the expected improvement over the best is greatest
//! (Jones et al. 1998), as its logarithm, which has no flat parts (Ament et al. 2023).
//!
//! Hyperparameters are the most probable ones, fitted on a bounded number of trials. The losses of pending trials are imagined
//! several times, as the model draws them, and the improvement is the mean over these (Snoek et al. 2012), so that parallel
//! trials spread out. Losses are taken as they are or by their logarithm, whichever the model explains better. Several
//! objectives are weighed at random for each proposal (ParEGO, Knowles 2006).

mod model;

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use serde::{Deserialize, Serialize};

use self::model::{Kernel, Logs, Posterior};
use super::history::History;
use super::warm_start::Known;
use super::{Choice, Space, spread};
use crate::random::{Purpose, Stream};

/// How the searcher works; `bench/search.py` measures the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GaussianProcessSpec {
    /// So many trials must have a result before the model is used; until then points are spread evenly.
    pub startup: u32,
    /// Points of the whole cube that a proposal compares, before it searches around the best of them.
    pub candidates: u32,
    /// The most trials that the model holds: the best half of them, and the newest.
    pub trials_most: u32,
    /// The most trials that hyperparameters are fitted to.
    pub fitted_most: u32,
}

impl Default for GaussianProcessSpec {
    fn default() -> Self {
        Self { startup: 10, candidates: 512, trials_most: 200, fitted_most: 100 }
    }
}

/// Steps of the fit while it starts from the last one's result.
const FIT_STEPS: u32 = 12;
/// Radii of the search around the best candidates, as shares of the length scales; each is tried this often.
const RADII: [f64; 9] = [0.5, 0.3, 0.15, 0.08, 0.04, 0.02, 0.01, 0.004, 0.0015];
const TRIES: u32 = 24;
/// The search starts at so many of the candidates, and at the best trial.
const STARTS: usize = 5;
/// So often the losses of pending trials are imagined.
const DRAWS: u32 = 32;

/// How the model sees losses, of which the least is 0 and the median 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    /// As they are.
    Linear,
    /// Near the best they stay as they are, and a few huge ones do not drown the rest.
    Logarithmic,
}

impl Scale {
    const ALL: [Self; 2] = [Self::Linear, Self::Logarithmic];

    fn of(self, loss: f64) -> f64 {
        match self {
            Self::Linear => loss,
            Self::Logarithmic => libm::log1p(loss),
        }
    }

    /// The logarithm of the derivative.
    fn log_slope(self, loss: f64) -> f64 {
        match self {
            Self::Linear => 0.0,
            Self::Logarithmic => -libm::log1p(loss),
        }
    }
}

/// The searcher.
#[derive(Clone, Debug)]
pub struct GaussianProcess {
    spec: GaussianProcessSpec,
    seed: u64,
    choices: Vec<Choice>,
    history: History,
    /// Hyperparameters for each scale.
    logs: [Logs; Scale::ALL.len()],
    scale: Scale,
    /// How many trials had been ranked when hyperparameters were last fitted.
    fitted_at: usize,
}

impl GaussianProcess {
    /// A searcher of `space` that has seen nothing.
    pub fn new(spec: GaussianProcessSpec, space: &Space, seed: u64) -> Self {
        let choices: Vec<Choice> = space.parameters().iter().map(|p| p.domain.choice()).collect();
        let logs = Scale::ALL.map(|_| model::prior(choices.len()));
        let history = History::new(spec.startup as usize);
        Self { history, spec, seed, choices, logs, scale: Scale::Logarithmic, fitted_at: 0 }
    }

    /// Takes what is known from earlier sweeps, before the first proposal.
    pub fn import(&mut self, space: &Space, known: &[Known]) {
        self.history.import(space, known);
    }

    /// The point that trial `number` tries; it is pending from then on.
    pub fn propose(&mut self, space: &Space, number: u32) -> Vec<f64> {
        let is_modelled = self.history.finite() >= 2 && self.history.ranked().len() >= self.spec.startup as usize;
        let point = if is_modelled {
            let mut stream = Stream::new(self.seed, Purpose::Search, &[u64::from(number), 0]);
            self.most_promising(space, &mut stream)
        } else {
            spread::admitted(self.seed, number, &self.choices, space)
        };
        let active = space.active(&point);
        self.history.add(number, point.clone(), active);
        point
    }

    /// A result of a trial at a budget; may come several times with rising budgets.
    pub fn observe(&mut self, number: u32, budget: u64, losses: &[f64]) {
        self.history.observe(number, budget, losses);
    }

    /// The trial will report no more: it is no longer pending.
    pub fn close(&mut self, number: u32) {
        self.history.close(number);
    }

    fn most_promising(&mut self, space: &Space, stream: &mut Stream) -> Vec<f64> {
        let numbers = self.modelled();
        let losses = self.losses(&numbers, stream);
        let of = |number: &u32| {
            let trial = self.history.trial(*number);
            canonical(&self.choices, &trial.point, &trial.active)
        };
        let mut points: Vec<Vec<f64>> = numbers.iter().map(of).collect();
        let ranked = self.history.ranked().len();
        if self.fitted_at == 0 || ranked >= self.fitted_at + 1 + self.fitted_at / 20 {
            // The first are the best ones; they matter most, and the rest is spread over the others.
            let most = (self.spec.fitted_most as usize).min(points.len());
            let some: Vec<usize> = (0..most).map(|index| index * points.len() / most).collect();
            let some_points: Vec<Vec<f64>> = some.iter().map(|index| points[*index].clone()).collect();
            let some_losses: Vec<f64> = some.iter().map(|index| losses[*index]).collect();
            let steps = if self.fitted_at == 0 { 3 * FIT_STEPS } else { FIT_STEPS };
            let mut most = f64::NEG_INFINITY;
            for (scale, logs) in Scale::ALL.into_iter().zip(&mut self.logs) {
                let (values, deviation) = standardised(&some_losses, scale);
                let (log_density, fitted) = model::fit(&self.choices, logs, &some_points, &values, steps);
                *logs = fitted;
                // The density of the losses themselves (Snelson et al. 2003).
                let log_slopes = some_losses.iter().map(|loss| scale.log_slope(*loss) - libm::log(deviation));
                let log_density = log_density + log_slopes.sum::<f64>();
                if log_density > most {
                    (most, self.scale) = (log_density, scale);
                }
            }
            self.fitted_at = ranked;
        }
        let (values, _) = standardised(&losses, self.scale);
        let logs = &self.logs[self.scale as usize];
        let best = values.iter().copied().fold(f64::INFINITY, f64::min);
        let start = (0..values.len()).find(|index| values[*index] == best).unwrap_or(0);
        let start = self.history.trial(numbers[start]).point.clone();
        let silent: Vec<u32> = self.history.silent().rev().take(self.spec.trials_most as usize).collect();
        points.extend(silent.iter().map(of));
        let normal = |_| silent.iter().map(|_| stream.normal_f64()).collect();
        let draws: Vec<Vec<f64>> = (0..if silent.is_empty() { 1 } else { DRAWS }).map(normal).collect();
        let posterior = Posterior::new(Kernel::new(&self.choices, logs), points, &values, &draws);
        let draws_log = libm::log(draws.len() as f64);
        let is_conditional = space.parameters().iter().any(|p| p.when.is_some());
        let all = vec![true; self.choices.len()];
        let gain = |point: &[f64]| {
            if !space.admits_point(point) {
                return f64::NEG_INFINITY;
            }
            let active = if is_conditional { space.active(point) } else { all.clone() };
            let point = canonical(&self.choices, point, &active);
            let (draws, deviation) = posterior.at(&point);
            let improvement = |(mean, least): (f64, f64)| log_improvement((best.min(least) - mean) / deviation);
            log_sum(&draws.map(improvement).collect::<Vec<_>>()) - draws_log + libm::log(deviation)
        };
        let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
        for _ in 0..self.spec.candidates.max(1) {
            let point: Vec<f64> = self.choices.iter().map(|_| stream.uniform_f64()).collect();
            found.push((gain(&point), point));
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(STARTS);
        found.push((gain(&start), start));
        let climbed = found.into_iter().map(|from| self.climb(from, &gain, stream));
        let best = climbed.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(gain, _)| *gain > f64::NEG_INFINITY);
        // None that the constraints admit: the model says nothing about the few points that there are.
        best.map_or_else(|| space.sample(stream), |(_, point)| point)
    }

    /// Searches around a point with ever smaller steps, as long as the length scales say.
    fn climb(&self, from: (f64, Vec<f64>), gain: &dyn Fn(&[f64]) -> f64, stream: &mut Stream) -> (f64, Vec<f64>) {
        let mut best = from;
        let dimension = self.choices.len() as u64;
        for radius in RADII {
            for _ in 0..TRIES {
                let mut point = best.1.clone();
                // One coordinate for certain, and the others with the chance of one or two more.
                let certain = stream.below(dimension) as usize;
                for (index, x) in point.iter_mut().enumerate() {
                    if index != certain && stream.uniform_f64() * dimension as f64 > 2.0 {
                        continue;
                    }
                    *x = match self.choices[index] {
                        Choice::Unordered(_) => stream.uniform_f64(),
                        Choice::Fixed => *x,
                        Choice::Continuous | Choice::Ordered(_) => {
                            let scale = libm::exp(self.logs[self.scale as usize][index]).min(1.0) * radius;
                            let cell =
                                if let Choice::Ordered(cells) = self.choices[index] { 1.0 / cells as f64 } else { 0.0 };
                            (*x + scale.max(cell) * stream.normal_f64()).clamp(0.0, 1.0 - f64::EPSILON)
                        }
                    };
                }
                let value = gain(&point);
                if value > best.0 {
                    best = (value, point);
                }
            }
        }
        best
    }

    /// The trials that the model holds, best first.
    fn modelled(&self) -> Vec<u32> {
        let ranked: Vec<u32> = self.history.ranked().iter().map(|(_, number)| *number).collect();
        let most = self.spec.trials_most as usize;
        if ranked.len() <= most {
            return ranked;
        }
        let (best, rest) = ranked.split_at(most / 2);
        let mut newest = rest.to_vec();
        newest.sort_unstable();
        best.iter().copied().chain(newest.into_iter().rev().take(most - most / 2)).collect()
    }

    /// One loss for each trial, see [`scaled`].
    fn losses(&self, numbers: &[u32], stream: &mut Stream) -> Vec<f64> {
        let objectives = self.history.objectives();
        let mut columns = (0..objectives).map(|objective| {
            let loss = |number: &u32| self.history.losses(*number).get(objective).copied().unwrap_or(f64::NAN);
            scaled(&numbers.iter().map(loss).collect::<Vec<_>>())
        });
        if objectives == 1 {
            return columns.next().expect("there is one objective");
        }
        let columns = columns.map(|losses| standardised(&losses, Scale::Logarithmic).0);
        let columns: Vec<Vec<f64>> = columns.collect();
        let weights: Vec<f64> = columns.iter().map(|_| -libm::log(1.0 - stream.uniform_f64())).collect();
        let total: f64 = weights.iter().sum();
        let one = |index: usize| {
            let terms = columns.iter().zip(&weights).map(|(column, weight)| weight / total * (column[index] + 4.0));
            terms.clone().fold(0.0, f64::max) + 0.05 * terms.sum::<f64>()
        };
        scaled(&(0..numbers.len()).map(one).collect::<Vec<_>>())
    }
}

/// Losses shifted and scaled so that the least is 0 and the median 1. What is not finite is as bad as the worst; what is a
/// trillion times the median is no worse than that.
fn scaled(losses: &[f64]) -> Vec<f64> {
    let mut finite: Vec<f64> = losses.iter().copied().filter(|loss| loss.is_finite()).collect();
    finite.sort_by(f64::total_cmp);
    let (Some(least), Some(worst)) = (finite.first().copied(), finite.last().copied()) else {
        return vec![0.0; losses.len()];
    };
    let extent = (finite[finite.len() / 2] / 2.0 - least / 2.0) * 2.0;
    let extent = if extent > 0.0 && extent.is_finite() { extent } else { 1.0 };
    let scale = |loss: &f64| ((if loss.is_finite() { *loss } else { worst } - least) / extent).min(1e12);
    losses.iter().map(scale).collect()
}

/// Losses on a scale, shifted and scaled once more to mean 0 and deviation 1, and by which deviation they were divided.
fn standardised(losses: &[f64], scale: Scale) -> (Vec<f64>, f64) {
    let values: Vec<f64> = losses.iter().map(|loss| scale.of(*loss)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
    let deviation = if variance > 0.0 { libm::sqrt(variance) } else { 1.0 };
    (values.into_iter().map(|v| (v - mean) / deviation).collect(), deviation)
}

/// A point as the kernel compares it: the middle of its cell where there are cells, and of the cube where it is inactive.
fn canonical(choices: &[Choice], point: &[f64], active: &[bool]) -> Vec<f64> {
    let coordinate = |((choice, x), active): ((&Choice, &f64), &bool)| match choice {
        _ if !active => 0.5,
        Choice::Continuous => *x,
        Choice::Fixed => 0.5,
        Choice::Ordered(cells) | Choice::Unordered(cells) => {
            let cell = ((x * *cells as f64) as u64).min(cells - 1);
            (cell as f64 + 0.5) / *cells as f64
        }
    };
    choices.iter().zip(point).zip(active).map(coordinate).collect()
}

/// `log(phi(z) + z Phi(z))`, the logarithm of the expected improvement of a unit normal over `z` (Ament et al. 2023,
/// equation 9). Below -25 by the asymptotic series, whose error there is under 1e-10; above it the sum loses no more than
/// three of its sixteen digits.
fn log_improvement(z: f64) -> f64 {
    let log_density = -0.5 * z * z - 0.5 * libm::log(TAU);
    if z > -25.0 {
        return libm::log(libm::exp(log_density) + z * 0.5 * libm::erfc(-z * FRAC_1_SQRT_2));
    }
    let s = 1.0 / (z * z);
    let series = 1.0 - s * (3.0 - s * (15.0 - s * (105.0 - s * (945.0 - s * 10_395.0))));
    log_density + libm::log(s * series)
}

/// The logarithm of the sum of the exponentials.
fn log_sum(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + libm::log(logs.iter().map(|log| libm::exp(log - most)).sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Domain, Parameter};

    /// Two numbers between 0 and 1.
    fn square() -> Space {
        let domain = Domain::Uniform { low: 0.0, high: 1.0 };
        let parameter = |path: &str| Parameter { path: path.to_owned(), domain: domain.clone(), when: None };
        Space::new(vec![parameter("a"), parameter("b")])
    }

    #[test]
    fn the_logarithm_of_the_improvement_is_smooth_and_right() {
        assert!((log_improvement(0.0) - libm::log(0.398_942_280_401_432_7)).abs() < 1e-12);
        assert!((log_improvement(-25.0 - 1e-12) - log_improvement(-25.0 + 1e-12)).abs() < 1e-9);
        let reference = crate::search::reference()["log_improvement"].clone();
        for [z, exact] in serde_json::from_value::<Vec<[f64; 2]>>(reference).unwrap() {
            let found = log_improvement(z);
            assert!((found - exact).abs() < 1e-10 * (1.0 + exact.abs()), "{z}: {found} {exact}");
        }
        assert!((log_improvement(30.0) - libm::log(30.0)).abs() < 1e-9);
        assert!(log_improvement(-1e6).is_finite() && log_improvement(-1e6) < log_improvement(-1e5));
    }

    #[test]
    fn losses_are_scaled_without_changing_their_order() {
        for scale in Scale::ALL {
            let values = |losses: &[f64]| standardised(&scaled(losses), scale).0;
            let some = values(&[1.0, 2.0, 3.0, 1e9, f64::NAN, f64::NEG_INFINITY]);
            assert!(some.windows(2).take(3).all(|w| w[0] < w[1]), "{some:?}");
            assert_eq!((some[4], some[5]), (some[3], some[3]));
            assert_eq!(values(&[f64::NAN; 2]), [0.0; 2]);
            assert_eq!(values(&[7.0; 2]), [0.0; 2]);
            let extreme = values(&[-1e300, 0.0, f64::MAX]);
            assert!(extreme.iter().all(|v| v.is_finite()), "{extreme:?}");
        }
    }

    /// A wave is explained best as it is, and the exponential of a bowl by its logarithm.
    #[test]
    fn the_scale_is_the_one_that_explains_the_losses() {
        let space = square();
        let chosen = |shape: fn(f64) -> f64| {
            let spec = GaussianProcessSpec { startup: 40, ..GaussianProcessSpec::default() };
            let mut searcher = GaussianProcess::new(spec, &space, 3);
            // The last proposal asks the model.
            for number in 0..=40 {
                let point = searcher.propose(&space, number);
                let bowl = (point[0] - 0.3).powi(2) + (point[1] - 0.6).powi(2);
                searcher.observe(number, 1, &[shape(bowl)]);
                searcher.close(number);
            }
            searcher.scale
        };
        assert_eq!(chosen(|bowl| libm::sin(6.0 * bowl)), Scale::Linear);
        assert_eq!(chosen(|bowl| libm::exp(20.0 * bowl)), Scale::Logarithmic);
    }

    #[test]
    fn it_finds_the_bottom_of_a_bowl_and_repeats_itself() {
        let space = square();
        let play = |seed, pending: u32| {
            let mut searcher = GaussianProcess::new(GaussianProcessSpec::default(), &space, seed);
            let mut points: Vec<Vec<f64>> = Vec::new();
            for number in 0..30 + pending {
                points.push(searcher.propose(&space, number));
                if let Some(finished) = number.checked_sub(pending) {
                    let p = &points[finished as usize];
                    let loss = (p[0] - 0.3).powi(2) + 3.0 * (p[1] - 0.7).powi(2);
                    searcher.observe(finished, 1, &[if finished == 3 { f64::NAN } else { loss }]);
                    searcher.close(finished);
                }
            }
            points
        };
        for pending in [0, 5] {
            let points = play(1, pending);
            assert_eq!(points, play(1, pending));
            assert!(points.iter().flatten().all(|x| (0.0..1.0).contains(x)));
            let nearest = points.iter().map(|p| (p[0] - 0.3).powi(2) + (p[1] - 0.7).powi(2)).fold(1.0, f64::min);
            assert!(nearest < 1e-3, "{nearest}");
        }
    }
}
