//! A density over the unit cube made of kernels, one for each observed point and one for the prior.
//!
//! The kernels are products over the coordinates, so that a mixture of them knows which values go together (the
//! "multivariate" form of Falkner et al. 2018). A coordinate that is inactive in an observed point has a flat factor there.
//! All densities are relative to the uniform one, on cells too.

use std::f64::consts::{PI, SQRT_2};

use crate::random::Stream;
use crate::search::Choice;

/// Up to so many cells a kernel on an order is summed cell by cell; beyond, the integral is close enough.
const SUMMED_CELLS: u64 = 64;

/// An observed point, which of its coordinates are active, and its share of the mixture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// Coordinates.
    pub(crate) point: &'a [f64],
    /// Which of them count.
    pub(crate) active: &'a [bool],
    /// Relative weight, above 0.
    pub(crate) weight: f64,
}

/// How wide kernels are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    /// Weight of the prior, as observed points.
    pub(crate) prior_weight: f64,
    /// No numeric kernel is narrower than the greater of this and `1 / (2 + kernels)`; unit: the side of the cube.
    pub(crate) least: f64,
}

/// The density.
#[derive(Clone, Debug)]
pub(crate) struct Parzen {
    /// Logarithms of the weights, which add up to 1.
    log_weights: Vec<f64>,
    /// The same as running sums.
    cumulative: Vec<f64>,
    factors: Vec<Factor>,
}

/// The kernels along one coordinate, in the order of the weights.
#[derive(Clone, Debug)]
enum Factor {
    /// `exp(log_scale - slope * (x - centre)^2)`; `sigma` is for sampling. Cells are for an order.
    Numeric { centre: Vec<f64>, slope: Vec<f64>, log_scale: Vec<f64>, sigma: Vec<f64>, cells: Option<u64> },
    /// `log_hit` where the cells are the same, else `log_miss`; `None` is flat.
    Cells { cell: Vec<Option<u64>>, cells: u64, log_hit: f64, log_miss: f64 },
    /// Nothing to choose.
    Flat,
}

impl Parzen {
    /// The density around `observed`, whose coordinates are of the kinds `choices`.
    pub(crate) fn new(choices: &[Choice], observed: &[Observed<'_>], width: Width) -> Self {
        let total: f64 = observed.iter().map(|o| o.weight).sum::<f64>() + width.prior_weight;
        let weights = observed.iter().map(|o| o.weight).chain([width.prior_weight]).map(|w| w / total);
        let log_weights = weights.clone().map(libm::log).collect();
        let mut sum = 0.0;
        let running = weights.map(|w| {
            sum += w;
            sum
        });
        let factor = |(index, choice): (usize, &Choice)| match *choice {
            Choice::Continuous => numeric(observed, index, None, width.least),
            Choice::Ordered(cells) if cells > 1 => numeric(observed, index, Some(cells), width.least),
            Choice::Unordered(cells) if cells > 1 => unordered(observed, index, cells, width.prior_weight),
            Choice::Ordered(_) | Choice::Unordered(_) | Choice::Fixed => Factor::Flat,
        };
        Self { log_weights, cumulative: running.collect(), factors: choices.iter().enumerate().map(factor).collect() }
    }

    /// A point drawn from the density.
    #[cfg(test)]
    pub(crate) fn sample(&self, stream: &mut Stream) -> Vec<f64> {
        let kernel = self.kernel(stream);
        self.factors.iter().map(|factor| factor.sample(kernel, 1.0, stream)).collect()
    }

    /// A point worth weighing. Half of them come nearer to what was observed than the density says, and some take every
    /// coordinate from another kernel, which finds values that are good each by itself. `bench/search.py` measured that.
    pub(crate) fn candidate(&self, stream: &mut Stream) -> Vec<f64> {
        let kernel = self.kernel(stream);
        let narrow = if stream.uniform_f64() < 0.5 { 0.5 } else { 1.0 };
        let is_crossed = stream.uniform_f64() < 0.3;
        let one = |factor: &Factor| {
            let kernel = if is_crossed { self.kernel(stream) } else { kernel };
            // The last kernel is the prior, which stays as wide as the cube.
            factor.sample(kernel, if kernel + 1 == self.cumulative.len() { 1.0 } else { narrow }, stream)
        };
        self.factors.iter().map(one).collect()
    }

    fn kernel(&self, stream: &mut Stream) -> usize {
        let draw = stream.uniform_f64();
        self.cumulative.partition_point(|sum| *sum <= draw).min(self.cumulative.len() - 1)
    }

    /// The logarithm of the density at a point, over its active coordinates. `scratch` is room for one number per kernel.
    pub(crate) fn log_density(&self, point: &[f64], active: &[bool], scratch: &mut Vec<f64>) -> f64 {
        scratch.clone_from(&self.log_weights);
        for ((factor, x), _) in self.factors.iter().zip(point).zip(active).filter(|(_, active)| **active) {
            factor.add_log(*x, scratch);
        }
        let most = scratch.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // What lies this far below the greatest term cannot change a bit of the sum.
        let sum: f64 = scratch.iter().filter(|e| **e > most - 40.0).map(|e| libm::exp(e - most)).sum();
        most + libm::log(sum)
    }
}

impl Factor {
    /// A coordinate drawn from a kernel, `narrow` times as wide if it is numeric.
    fn sample(&self, kernel: usize, narrow: f64, stream: &mut Stream) -> f64 {
        match self {
            Factor::Numeric { centre, sigma, cells, .. } => {
                let x = loop {
                    let x = centre[kernel] + narrow * sigma[kernel] * stream.normal_f64();
                    if (0.0..1.0).contains(&x) {
                        break x;
                    }
                };
                cells.map_or(x, |cells| middle(cell(x, cells), cells))
            }
            Factor::Cells { cell, cells, log_hit, .. } => match cell[kernel] {
                Some(hit) if stream.uniform_f64() * (*cells as f64) < libm::exp(*log_hit) => middle(hit, *cells),
                Some(hit) => middle((hit + 1 + stream.below(cells - 1)) % cells, *cells),
                None => middle(stream.below(*cells), *cells),
            },
            Factor::Flat => stream.uniform_f64(),
        }
    }

    fn add_log(&self, x: f64, sums: &mut [f64]) {
        match self {
            Factor::Numeric { centre, slope, log_scale, cells, .. } => {
                let x = cells.map_or(x, |cells| middle(cell(x, cells), cells));
                for (((sum, centre), slope), log_scale) in sums.iter_mut().zip(centre).zip(slope).zip(log_scale) {
                    let distance = x - centre;
                    *sum += log_scale - slope * distance * distance;
                }
            }
            Factor::Cells { cell: kernels, cells, log_hit, log_miss } => {
                let here = cell(x, *cells);
                for (sum, kernel) in sums.iter_mut().zip(kernels) {
                    *sum += kernel.map_or(0.0, |kernel| if kernel == here { *log_hit } else { *log_miss });
                }
            }
            Factor::Flat => {}
        }
    }
}

/// Normal kernels cut off at the sides. Each is as wide as its farther neighbour is far, within bounds: Optuna's form of
/// the "magic clip" of Bergstra et al. 2011. The prior is as wide as the cube.
fn numeric(observed: &[Observed<'_>], index: usize, cells: Option<u64>, least: f64) -> Factor {
    let mut order: Vec<usize> = (0..observed.len()).filter(|k| observed[*k].active[index]).collect();
    let at = |k: usize| cells.map_or(observed[k].point[index], |n| middle(cell(observed[k].point[index], n), n));
    order.sort_by(|a, b| at(*a).total_cmp(&at(*b)));
    let least = least.max(1.0 / (2.0 + order.len() as f64));
    let kernels = observed.len() + 1;
    let (mut centre, mut slope) = (vec![0.5; kernels], vec![0.0; kernels]);
    let (mut log_scale, mut sigma) = (vec![0.0; kernels], vec![1.0; kernels]);
    let mut set = |kernel: usize, mean: f64, deviation: f64| {
        centre[kernel] = mean;
        sigma[kernel] = deviation;
        slope[kernel] = 0.5 / (deviation * deviation);
        log_scale[kernel] = -libm::log(mass(mean, deviation, cells));
    };
    for (position, kernel) in order.iter().enumerate() {
        let here = at(*kernel);
        let below = position.checked_sub(1).map(|p| here - at(order[p]));
        let above = order.get(position + 1).map(|k| at(*k) - here);
        let farther = match (below, above) {
            (Some(below), Some(above)) => below.max(above),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => here.max(1.0 - here),
        };
        set(*kernel, here, farther.clamp(least, 1.0));
    }
    set(kernels - 1, 0.5, 1.0);
    // A kernel whose coordinate is inactive keeps slope and scale 0: flat. It is sampled as widely as the prior.
    Factor::Numeric { centre, slope, log_scale, sigma, cells }
}

/// The integral of `exp(-(x - mean)^2 / (2 deviation^2))` over the unit interval, or its mean over the middles of the cells.
fn mass(mean: f64, deviation: f64, cells: Option<u64>) -> f64 {
    if let Some(cells) = cells.filter(|cells| *cells <= SUMMED_CELLS) {
        let term = |index: u64| {
            let z = (middle(index, cells) - mean) / deviation;
            if z.abs() > 9.0 { 0.0 } else { libm::exp(-0.5 * z * z) }
        };
        return (0..cells).map(term).sum::<f64>() / cells as f64;
    }
    // Beyond six deviations nothing is cut off that a double would show.
    let tail = |distance: f64| if distance > 6.0 { 1.0 } else { libm::erf(distance / SQRT_2) };
    deviation * (2.0 * PI).sqrt() * 0.5 * (tail(mean / deviation) + tail((1.0 - mean) / deviation))
}

/// Kernels that prefer the observed cell, as Optuna's: the prior's weight is dealt out over all cells of all kernels.
fn unordered(observed: &[Observed<'_>], index: usize, cells: u64, prior_weight: f64) -> Factor {
    let kernels = observed.len() + 1;
    let share = prior_weight / kernels as f64;
    let total = 1.0 + share * cells as f64;
    let relative = |weight: f64| libm::log(weight / total * cells as f64);
    let of = |o: &Observed<'_>| o.active[index].then(|| cell(o.point[index], cells));
    Factor::Cells {
        cell: observed.iter().map(of).chain([None]).collect(),
        cells,
        log_hit: relative(1.0 + share),
        log_miss: relative(share),
    }
}

fn cell(u: f64, cells: u64) -> u64 {
    ((u * cells as f64) as u64).min(cells - 1)
}

fn middle(index: u64, cells: u64) -> f64 {
    (index as f64 + 0.5) / cells as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    const WIDTH: Width = Width { prior_weight: 1.0, least: 0.01 };

    fn density_of(choice: Choice, points: &[Option<f64>]) -> Parzen {
        let coordinates: Vec<[f64; 1]> = points.iter().map(|p| [p.unwrap_or(0.3)]).collect();
        let active: Vec<[bool; 1]> = points.iter().map(|p| [p.is_some()]).collect();
        let pairs = coordinates.iter().zip(&active);
        let observed: Vec<_> = pairs.map(|(point, active)| Observed { point, active, weight: 1.0 }).collect();
        Parzen::new(&[choice], &observed, WIDTH)
    }

    /// The mean of the density over the interval or the cells, which must be 1, and the share of samples in the lower half
    /// against the share of the density there.
    fn check(choice: Choice, points: &[Option<f64>]) {
        let density = density_of(choice, points);
        let grid = match choice {
            Choice::Ordered(cells) | Choice::Unordered(cells) => cells,
            Choice::Continuous | Choice::Fixed => 20_000,
        };
        let at = |i: u64| libm::exp(density.log_density(&[middle(i, grid)], &[true], &mut Vec::new())) / grid as f64;
        let total: f64 = (0..grid).map(at).sum();
        assert!((total - 1.0).abs() < 1e-4, "{choice:?} {points:?}: {total}");
        let lower: f64 = (0..grid / 2).map(at).sum();
        let mut stream = Stream::new(3, Purpose::Search, &[]);
        let samples: Vec<f64> = (0..20_000).map(|_| density.sample(&mut stream)[0]).collect();
        assert!(samples.iter().all(|x| (0.0..1.0).contains(x)));
        let drawn = samples.iter().filter(|x| **x < (grid / 2) as f64 / grid as f64).count() as f64 / 20_000.0;
        // On few cells a kernel is sampled by rounding, which is close to its density and not equal.
        let tolerance = if matches!(choice, Choice::Ordered(_)) { 0.03 } else { 0.012 };
        assert!((drawn - lower).abs() < tolerance, "{choice:?} {points:?}: {drawn} drawn, {lower} in the density");
    }

    #[test]
    fn a_density_is_one_in_all_and_samples_follow_it() {
        for points in [&[][..], &[Some(0.0)], &[Some(0.1), Some(0.15), Some(0.9)], &[None, Some(0.7)], &[Some(0.2); 30]]
        {
            for choice in [Choice::Continuous, Choice::Ordered(5), Choice::Ordered(500), Choice::Unordered(4)] {
                check(choice, points);
            }
        }
    }

    #[test]
    fn values_that_go_together_are_known() {
        let (points, active) = ([[0.2, 0.2], [0.8, 0.8]], [true; 2]);
        let observed = points.each_ref().map(|point| Observed { point, active: &active, weight: 1.0 });
        let width = Width { prior_weight: 0.1, least: 0.01 };
        let density =
            Parzen::new(&[Choice::Continuous; 2], &[observed[0], observed[0], observed[1], observed[1]], width);
        let at = |point: [f64; 2]| density.log_density(&point, &active, &mut Vec::new());
        assert!(at([0.2, 0.2]) > at([0.2, 0.8]) + 0.1);
        assert!(at([0.2, 0.9]).is_finite());
        let only_first = density.log_density(&[0.2, 0.9], &[true, false], &mut Vec::new());
        let other = density.log_density(&[0.2, 0.1], &[true, false], &mut Vec::new());
        assert_eq!(only_first, other, "an inactive coordinate does not count");
    }
}
