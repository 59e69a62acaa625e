//! Which parameters mattered: PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv:2304.10255).
//!
//! A parameter matters if its values among the best trials are distributed otherwise than among all trials. The measure is
//! the Pearson divergence of the two densities of its coordinate,
//! `(gamma / gamma')^2 * E_x[(p(x | best) / p(x | all) - 1)^2]` (with all trials as the region, so `gamma' = 1`). Only
//! the order of the losses counts, not their size, and interactions of parameters are not seen.
//!
//! Densities are kernel estimates on a grid of cells for coordinates with neighbours, and counts for those without, with a
//! prior that has the weight of one trial.

use crate::search::space::{Choice, Space};

/// How much a parameter mattered.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    /// The path of its key.
    pub path: String,
    /// Its share of the importance of all parameters, in `[0, 1]`; they add up to 1 unless all are 0.
    pub share: f64,
    /// The divergence that the share was made from.
    pub divergence: f64,
    /// Trials in which it was active, and which therefore say something about it.
    pub trials: usize,
}

/// The share of trials that count as the best (Watanabe's gamma).
pub const BEST_SHARE: f64 = 0.1;

/// Fewer trials than this say nothing about a parameter.
pub const TRIALS_MIN: usize = 10;

/// The importance of every parameter of the space, in its order, from points and their losses. A loss that is not finite is
/// worse than every finite one. For a parameter that exists under conditions, only trials in which it is active count.
/// Trials should have been measured at the same budget.
pub fn importance(space: &Space, trials: &[(&[f64], f64)]) -> Vec<Importance> {
    let active: Vec<Vec<bool>> = trials.iter().map(|(point, _)| space.active(point)).collect();
    let mut found: Vec<Importance> = Vec::new();
    for (index, parameter) in space.parameters().iter().enumerate() {
        let is_active = |(trial, _): &(usize, &(&[f64], f64))| active[*trial][index];
        let values: Vec<(f64, f64)> =
            trials.iter().enumerate().filter(is_active).map(|(_, (point, loss))| (point[index], *loss)).collect();
        let divergence = divergence(parameter.domain.choice(), &values);
        found.push(Importance { path: parameter.path.clone(), share: 0.0, divergence, trials: values.len() });
    }
    let total: f64 = found.iter().map(|one| one.divergence).sum();
    if total > 0.0 {
        found.iter_mut().for_each(|one| one.share = one.divergence / total);
    }
    found
}

/// How differently the coordinates of the best are distributed, from coordinates and losses.
fn divergence(choice: Choice, values: &[(f64, f64)]) -> f64 {
    let cells = match choice {
        Choice::Fixed => return 0.0,
        Choice::Continuous => GRID,
        Choice::Ordered(cells) | Choice::Unordered(cells) => cells.min(CELLS_MAX) as usize,
    };
    if values.len() < TRIALS_MIN || cells < 2 {
        return 0.0;
    }
    let badness = |loss: f64| if loss.is_finite() { loss } else { f64::INFINITY };
    let mut order: Vec<usize> = (0..values.len()).collect();
    // The sort is stable, so equal losses stay in the order of the trials.
    order.sort_by(|a, b| badness(values[*a].1).total_cmp(&badness(values[*b].1)));
    let best_count = (libm::ceil(BEST_SHARE * values.len() as f64) as usize).max(2);
    let all: Vec<f64> = order.iter().map(|trial| values[*trial].0).collect();
    let has_neighbours = !matches!(choice, Choice::Unordered(_));
    let density = |coordinates: &[f64]| {
        if has_neighbours { smoothed(coordinates, cells) } else { counted(coordinates, cells) }
    };
    let (best, all) = (density(&all[..best_count]), density(&all));
    let squares = best.iter().zip(&all).map(|(p, q)| q * (p / q - 1.0) * (p / q - 1.0));
    BEST_SHARE * BEST_SHARE * squares.sum::<f64>()
}

/// Cells of a continuous coordinate.
const GRID: usize = 50;

/// More choices than this share cells, which bounds memory and time.
const CELLS_MAX: u64 = 1000;

/// The share of each cell, every coordinate counting for its own cell only.
fn counted(coordinates: &[f64], cells: usize) -> Vec<f64> {
    let mut shares = vec![1.0 / cells as f64; cells];
    for u in coordinates {
        shares[cell(*u, cells)] += 1.0;
    }
    normalised(shares)
}

/// The share of each cell under a kernel estimate: normal kernels cut off at the ends, bandwidth by Scott's rule (1992) and
/// at least a cell.
fn smoothed(coordinates: &[f64], cells: usize) -> Vec<f64> {
    let n = coordinates.len() as f64;
    let mean = coordinates.iter().sum::<f64>() / n;
    let variance = coordinates.iter().map(|u| (u - mean) * (u - mean)).sum::<f64>() / (n - 1.0).max(1.0);
    let bandwidth = (1.059 * libm::sqrt(variance) * libm::pow(n, -0.2)).max(1.0 / cells as f64);
    let mut counts = vec![0.0; cells];
    coordinates.iter().for_each(|u| counts[cell(*u, cells)] += 1.0);
    let middle = |index: usize| (index as f64 + 0.5) / cells as f64;
    let mut shares = vec![1.0 / cells as f64; cells];
    for (from, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        let kernel: Vec<f64> = (0..cells)
            .map(|to| {
                let distance = (middle(to) - middle(from)) / bandwidth;
                libm::exp(-0.5 * distance * distance)
            })
            .collect();
        let mass: f64 = kernel.iter().sum();
        shares.iter_mut().zip(kernel).for_each(|(share, k)| *share += count * k / mass);
    }
    normalised(shares)
}

fn cell(u: f64, cells: usize) -> usize {
    ((u * cells as f64) as usize).min(cells - 1)
}

fn normalised(mut shares: Vec<f64>) -> Vec<f64> {
    let total: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= total);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};
    use crate::search::space::{Condition, Domain, Parameter, Value};

    fn number(path: &str) -> Parameter {
        Parameter { path: path.to_owned(), domain: Domain::Uniform { low: 0.0, high: 1.0 }, when: None }
    }

    fn shares(space: &Space, loss: impl Fn(&[f64]) -> f64) -> Vec<Importance> {
        let mut stream = Stream::new(3, Purpose::Search, &[]);
        let points: Vec<Vec<f64>> = (0..500).map(|_| space.sample(&mut stream)).collect();
        let trials: Vec<(&[f64], f64)> = points.iter().map(|point| (point.as_slice(), loss(point))).collect();
        importance(space, &trials)
    }

    #[test]
    fn the_order_of_importance_is_that_of_the_influence() {
        let space = Space::new(vec![number("much"), number("little"), number("nothing")]);
        let found = shares(&space, |u| (u[0] - 0.3).abs() + 0.3 * (u[1] - 0.7).abs());
        assert!(found[0].share > 0.6 && found[0].share > 2.0 * found[1].share, "{found:?}");
        assert!(found[1].share > found[2].share && found[2].share < 0.1, "{found:?}");
        let total: f64 = found.iter().map(|one| one.share).sum();
        assert!((total - 1.0).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn only_the_order_of_losses_counts() {
        let space = Space::new(vec![number("a"), number("b")]);
        let loss = |u: &[f64]| u[0] + 0.1 * u[1];
        assert_eq!(shares(&space, loss), shares(&space, |u| libm::exp(9.0 * loss(u))));
    }

    #[test]
    fn a_conditional_parameter_is_judged_where_it_is_active() {
        let words = ["off", "on"].map(|w| Value::Text(w.to_owned())).to_vec();
        let when = Some(Condition { path: "kind".to_owned(), values: vec![words[1].clone()] });
        let space = Space::new(vec![
            Parameter { path: "kind".to_owned(), domain: Domain::Categorical { values: words }, when: None },
            Parameter { when, ..number("detail") },
            number("nothing"),
        ]);
        // Where `detail` is inactive all losses are worse, and its coordinate means nothing.
        let found = shares(&space, |u| if u[0] < 0.5 { 2.0 + u[2] * 1e-9 } else { u[1] });
        assert!((200..300).contains(&found[1].trials) && found[0].trials == 500, "{found:?}");
        assert!(found[1].share > 0.5 && found[2].share < 0.1, "{found:?}");
        assert!(found[0].share > found[2].share, "{found:?}");
    }

    #[test]
    fn nothing_matters_where_nothing_is_known() {
        let space = Space::new(vec![number("a")]);
        assert_eq!(importance(&space, &[])[0].share, 0.0);
        let points = [[0.5]; 20];
        let trials: Vec<(&[f64], f64)> = points.iter().map(|point| (point.as_slice(), f64::NAN)).collect();
        assert!(importance(&space, &trials)[0].share.is_finite());
    }
}
