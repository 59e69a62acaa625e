//! Whole numbers in CMA-ES (CMA-ES with Margin, Hamano et al. 2022, arXiv:2205.13482; the method's letters are in brackets).
//!
//! A coordinate with cells is drawn like every other one and means the cell that it falls into. Where the distribution has
//! become narrower than a cell, all solutions would mean the same and the search would never leave it. So after each
//! generation mean and scale of the coordinate are corrected, such that the cells on both sides keep at least the
//! probability of the margin together.

use std::f64::consts::FRAC_1_SQRT_2;

use super::distribution::Distribution;
use crate::search::space::{Choice, Domain, Value};

/// How a coordinate of the unit cube is divided.
#[derive(Clone, Debug)]
pub(crate) enum Cells {
    /// Not at all.
    Continuous,
    /// Into so many equal ones, at least 2.
    Equal(u64),
    /// Into whole numbers on a logarithmic scale.
    Logarithmic(Domain),
}

impl Cells {
    /// Those of a domain that has neighbours, `None` if it has none or nothing to choose.
    pub(crate) fn of(domain: &Domain) -> Option<Self> {
        match (domain, domain.choice()) {
            (_, Choice::Fixed | Choice::Unordered(_) | Choice::Ordered(0 | 1)) => None,
            (_, Choice::Ordered(cells)) => Some(Cells::Equal(cells)),
            (Domain::LogInteger { low, high }, _) => (low < high).then(|| Cells::Logarithmic(domain.clone())),
            (_, Choice::Continuous) => Some(Cells::Continuous),
        }
    }

    /// The coordinate that stands for all of the cell that `x` lies in, or the nearest one inside.
    fn middle(&self, x: f64) -> f64 {
        match self {
            Cells::Continuous => x,
            Cells::Equal(cells) => (index(x, *cells) as f64 + 0.5) / *cells as f64,
            Cells::Logarithmic(domain) => {
                domain.coordinate(&domain.at(x)).expect("a value of the domain has a coordinate")
            }
        }
    }

    /// The two borders next to the cell of `x`; at an end of the cube there is but one, which is given twice.
    fn borders(&self, x: f64) -> Option<(f64, f64)> {
        match self {
            Cells::Continuous => None,
            Cells::Equal(cells) => {
                let (cell, last) = (index(x, *cells), cells - 1);
                let border = |above: u64| above as f64 / *cells as f64;
                Some((border(cell.max(1)), border((cell + 1).min(last))))
            }
            Cells::Logarithmic(domain) => {
                let (Domain::LogInteger { low, high }, Value::Integer(value)) = (domain, domain.at(x)) else {
                    return None;
                };
                let (from, to) = (libm::log(*low as f64 - 0.5), libm::log(*high as f64 + 0.5));
                let border = |below: i64| (libm::log(below as f64 + 0.5) - from) / (to - from);
                Some((border((value - 1).max(*low)), border(value.min(high - 1))))
            }
        }
    }
}

fn index(x: f64, cells: u64) -> u64 {
    ((x * cells as f64).max(0.0) as u64).min(cells - 1)
}

/// The correction of a distribution.
#[derive(Clone, Debug)]
pub(crate) struct Margin {
    cells: Vec<Cells>,
    /// What distances from the mean are multiplied with before they mean a cell (the diagonal of A).
    pub(crate) scales: Vec<f64>,
    /// The probability that is kept outside of a cell (alpha).
    margin: f64,
}

impl Margin {
    /// The correction for coordinates with these cells and a population of this size.
    pub(crate) fn new(cells: Vec<Cells>, population: usize) -> Self {
        let scales = vec![1.0; cells.len()];
        let margin = 1.0 / (cells.len() * population) as f64;
        Self { cells, scales, margin }
    }

    /// Whether every coordinate without cells lies in the cube.
    pub(crate) fn is_inside(&self, x: &[f64]) -> bool {
        let is_inside = |(cells, x): (&Cells, &f64)| !matches!(cells, Cells::Continuous) || (0.0..1.0).contains(x);
        self.cells.iter().zip(x).all(is_inside)
    }

    /// The point of the cube that a solution means.
    pub(crate) fn point(&self, mean: &[f64], x: &[f64]) -> Vec<f64> {
        let coordinate = |i: usize| match &self.cells[i] {
            Cells::Continuous => x[i].clamp(0.0, 1.0 - f64::EPSILON),
            cells => cells.middle(mean[i] + (x[i] - mean[i]) * self.scales[i]),
        };
        (0..x.len()).map(coordinate).collect()
    }

    /// Corrects mean and scales after `distribution` has learnt.
    pub(crate) fn correct(&mut self, distribution: &mut Distribution) {
        for i in 0..self.cells.len() {
            let mean = distribution.mean[i];
            let Some((lower, upper)) = self.cells[i].borders(mean) else { continue };
            let deviation = distribution.deviation(i);
            let scaled = deviation * self.scales[i];
            let below = probability_above((mean - lower) / scaled);
            let above = probability_above((upper - mean) / scaled);
            if lower == upper || below.max(above) > 0.5 {
                // At an end of the cube (equation 14): the mean comes as near to the border as the margin wants.
                if below.min(above) < self.margin {
                    let distance = scaled * normal_quantile_above(self.margin);
                    distribution.mean[i] = upper + distance.copysign(mean - upper);
                }
                continue;
            }
            // In between (equations 17 to 20): mean and scale are those at which both sides have the wanted probability.
            let within = 1.0 - (below + above);
            let (least_below, least_above) = (below.max(self.margin / 2.0), above.max(self.margin / 2.0));
            let excess = 1.0 - least_below - least_above - within;
            let free = least_below + within + least_above - 1.5 * self.margin;
            let wanted = |p: f64| (p + excess * (p - self.margin / 2.0) / free).clamp(1e-10, 0.5 - 1e-10);
            let to_lower = normal_quantile_above(wanted(least_below));
            let to_upper = normal_quantile_above(wanted(least_above));
            self.scales[i] = (upper - lower) / ((to_lower + to_upper) * deviation);
            distribution.mean[i] = (lower * to_upper + upper * to_lower) / (to_lower + to_upper);
        }
    }
}

/// The probability that a standard normal variable exceeds `z`.
fn probability_above(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// Where a standard normal variable exceeds with probability `p`, in (0, 0.5]; by halving an interval.
fn normal_quantile_above(p: f64) -> f64 {
    let (mut low, mut high) = (0.0, 10.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if probability_above(middle) > p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_where_the_value_changes() {
        let domains = [
            Domain::Integer { low: 3, high: 7, step: 1 },
            Domain::LogInteger { low: 1, high: 20 },
            Domain::Ordinal { values: (0..2).map(Value::Integer).collect() },
        ];
        for domain in domains {
            let cells = Cells::of(&domain).unwrap();
            for step in 0..100 {
                let x = (f64::from(step) + 0.5) / 100.0;
                let (lower, upper) = cells.borders(x).unwrap();
                for border in [lower, upper] {
                    assert_ne!(domain.at(border - 1e-9), domain.at(border + 1e-9), "{domain:?} at {border}");
                }
                assert!(lower == upper || (lower < x && x < upper));
                assert_eq!(domain.at(cells.middle(x)), domain.at(x));
            }
            let beyond = [-0.7, 1.6].map(|x| domain.at(cells.middle(x)));
            assert_eq!(beyond, [domain.at(0.0), domain.at(1.0)]);
        }
    }

    #[test]
    fn the_quantile_is_where_the_probability_is() {
        for p in [1e-10, 1e-3, 0.025, 0.3, 0.5 - 1e-10] {
            let z = normal_quantile_above(p);
            assert!((probability_above(z) / p - 1.0).abs() < 1e-9, "{p} {z}");
        }
        assert!((normal_quantile_above(0.025) - 1.959_963_984_540_054).abs() < 1e-12);
    }

    #[test]
    fn neighbours_keep_the_margin_however_narrow_the_distribution() {
        let cells = vec![Cells::Continuous, Cells::Equal(5), Cells::Equal(2), Cells::Equal(9)];
        let mut margin = Margin::new(cells, 10);
        let covariance = super::super::eigen::identity(4);
        // In the middle of a cell, exactly on the only border, and beyond the end.
        let mut distribution = Distribution::new(vec![0.5, 0.5, 0.5, 1.2], 1e-7, covariance, 10);
        margin.correct(&mut distribution);
        let outside = |i: usize, border: f64| {
            let scaled = distribution.deviation(i) * margin.scales[i];
            probability_above((border - distribution.mean[i]).abs() / scaled)
        };
        assert!((outside(1, 0.4) - 1.0 / 80.0).abs() < 1e-9 && (outside(1, 0.6) - 1.0 / 80.0).abs() < 1e-9);
        assert_eq!((distribution.mean[2], margin.scales[2]), (0.5, 1.0));
        assert!((outside(3, 8.0 / 9.0) - 1.0 / 40.0).abs() < 1e-9, "{}", outside(3, 8.0 / 9.0));
        assert_eq!((distribution.mean[0], margin.scales[0]), (0.5, 1.0));
    }
}
