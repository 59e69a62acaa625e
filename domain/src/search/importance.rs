//! Which parameters mattered: PED-ANOVA (Watanabe, Bansal and Hutter 2023, arXiv:2304.10255).
//!
//! A parameter matters if its values among the best trials are distributed otherwise than among all trials. The measure is
//! the Pearson divergence of the two densities of its coordinate, `gamma^2 * E_x[(p(x | best) / p(x | all) - 1)^2]` for the
//! best share `gamma`. Only the order of the losses counts, not their size, and interactions of parameters are not seen.
//!
//! A parameter under conditions is judged where it exists, weighted by `alpha^2 / beta`, where `alpha` and `beta` are the
//! shares of the best and of all trials that have it (Conditional PED-ANOVA, arXiv:2601.20800, theorem 4.2).
//!
//! The densities are those of Optuna's `PedAnovaImportanceEvaluator`, with which a test compares: on a grid, kernels whose
//! width follows Scott's rule, and a prior that has the weight of one trial.

use std::f64::consts::FRAC_1_SQRT_2;

use crate::search::space::{Choice, Domain, Parameter, Space, Value};

/// How much a parameter mattered.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    /// The path of its key.
    pub path: String,
    /// Its share of the importance of all parameters, in `[0, 1]`; they add up to 1 unless all are 0.
    pub share: f64,
    /// The weighted divergence that the share was made from.
    pub divergence: f64,
    /// Trials in which it was active, and which therefore say something about it.
    pub trials: usize,
}

/// The share of trials that count as the best (Watanabe's gamma prime).
pub const BEST_SHARE: f64 = 0.1;

/// Fewer trials than this say nothing about a parameter.
pub const TRIALS_MIN: usize = 10;

/// Points of the grid of a coordinate with neighbours, or as many as it has values.
const GRID: u64 = 50;

/// The least width of a kernel, in points of the grid: 90 % of it lie within one.
const WIDTH_MIN: f64 = 0.5 / 1.64;

/// Added to every density, so that none is zero.
const TINY: f64 = 1e-12;

/// The importance of every parameter of the space, in its order, from points and their losses. A loss that is not finite is
/// worse than every finite one. Trials should have been measured at the same budget.
pub fn importance(space: &Space, trials: &[(&[f64], f64)]) -> Vec<Importance> {
    let is_best = best(trials);
    let best_count = is_best.iter().filter(|is_best| **is_best).count() as f64;
    let active: Vec<Vec<bool>> = trials.iter().map(|(point, _)| space.active(point)).collect();
    let mut found: Vec<Importance> = Vec::new();
    for (index, parameter) in space.parameters().iter().enumerate() {
        let grid = Grid::of(parameter);
        let (mut of_best, mut of_all) = (vec![0.0; grid.points], vec![0.0; grid.points]);
        let mut count = 0;
        for (trial, (point, _)) in trials.iter().enumerate().filter(|(trial, _)| active[*trial][index]) {
            let at = grid.at(&parameter.domain, point[index]);
            count += 1;
            of_all[at] += 1.0;
            of_best[at] += if is_best[trial] { 1.0 } else { 0.0 };
        }
        let mut divergence = 0.0;
        let count_of_best: f64 = of_best.iter().sum();
        if grid.points > 1 && count >= TRIALS_MIN && count_of_best > 0.0 {
            let (alpha, beta) = (count_of_best / best_count, count as f64 / trials.len() as f64);
            let gamma = best_count / trials.len() as f64;
            let (p, q) = (grid.density(&of_best), grid.density(&of_all));
            let squares = p.iter().zip(&q).map(|(p, q)| q * (p / q - 1.0) * (p / q - 1.0));
            divergence = gamma * gamma * alpha * alpha / beta * squares.sum::<f64>();
        }
        found.push(Importance { path: parameter.path.clone(), share: 0.0, divergence, trials: count });
    }
    let total: f64 = found.iter().map(|one| one.divergence).sum();
    if total > 0.0 {
        found.iter_mut().for_each(|one| one.share = one.divergence / total);
    }
    found
}

/// Which trials are among the best, those as good as the last of them included.
fn best(trials: &[(&[f64], f64)]) -> Vec<bool> {
    let badness = |loss: f64| if loss.is_finite() { loss } else { f64::INFINITY };
    let mut losses: Vec<f64> = trials.iter().map(|(_, loss)| badness(*loss)).collect();
    losses.sort_by(f64::total_cmp);
    let count = libm::ceil(BEST_SHARE * losses.len() as f64) as usize;
    let Some(cutoff) = losses.get(count.saturating_sub(1)).copied() else { return Vec::new() };
    trials.iter().map(|(_, loss)| badness(*loss) <= cutoff).collect()
}

/// The points at which the densities of a coordinate are compared.
#[derive(Clone, Copy, Debug)]
struct Grid {
    points: usize,
    has_neighbours: bool,
}

impl Grid {
    fn of(parameter: &Parameter) -> Self {
        let has_neighbours = !matches!(parameter.domain.choice(), Choice::Unordered(_));
        let points = match (&parameter.domain, parameter.domain.choice()) {
            (Domain::LogInteger { low, high }, _) => {
                let doublings = libm::ceil(libm::log2((high.abs_diff(*low) + 1) as f64));
                (doublings as u64 + 1).min(GRID)
            }
            (_, Choice::Fixed) => 1,
            (_, Choice::Continuous) => GRID,
            (_, Choice::Ordered(cells)) => cells.min(GRID),
            (_, Choice::Unordered(cells)) => cells,
        };
        Self { points: points as usize, has_neighbours }
    }

    /// The point that is nearest to a coordinate. The ends of the domain are points, of the same distance as all.
    fn at(self, domain: &Domain, u: f64) -> usize {
        let last = self.points - 1;
        let cell = |cells: u64| ((u * cells as f64) as u64).min(cells - 1);
        let share = match (domain, domain.choice()) {
            (_, Choice::Fixed) => 0.0,
            (_, Choice::Unordered(cells)) => return cell(cells) as usize,
            (_, Choice::Ordered(cells)) => cell(cells) as f64 / (cells - 1).max(1) as f64,
            (Domain::LogInteger { low, high }, _) => {
                let Value::Integer(value) = domain.at(u) else { return 0 };
                let log = |n: i64| libm::log(n as f64);
                (log(value) - log(*low)) / (log(*high) - log(*low))
            }
            (_, Choice::Continuous) => u,
        };
        (libm::ceil(share * last as f64 - 0.5).max(0.0) as usize).min(last)
    }

    /// The density at every point, from how many trials are there; at least one is somewhere.
    fn density(self, counts: &[f64]) -> Vec<f64> {
        let observed: Vec<(usize, f64)> = counts.iter().copied().enumerate().filter(|(_, n)| *n > 0.0).collect();
        let total: f64 = counts.iter().sum::<f64>() + 1.0;
        let mut density = vec![TINY; self.points];
        let mut add = |weight: f64, kernel: &dyn Fn(usize) -> f64| {
            density.iter_mut().enumerate().for_each(|(at, density)| *density += weight / total * kernel(at));
        };
        if self.has_neighbours {
            let (last, width) = ((self.points - 1) as f64, width(&observed));
            for (from, count) in observed {
                add(count, &|at| normal_share(at as f64, from as f64, width, last));
            }
            add(1.0, &|at| normal_share(at as f64, last / 2.0, last + 1.0, last));
        } else {
            // A kernel has a prior of its own, which all of them together have with the weight of one trial.
            let share = 1.0 / (observed.len() + 1) as f64;
            let sum = 1.0 + share * self.points as f64;
            for (from, count) in observed {
                add(count, &|at| (share + if at == from { 1.0 } else { 0.0 }) / sum);
            }
            add(1.0, &|_| 1.0 / self.points as f64);
        }
        density
    }
}

/// The width of a kernel by Scott's rule (1992) with the smaller one of deviation and distance of the quartiles, from
/// points and how many trials are there.
fn width(observed: &[(usize, f64)]) -> f64 {
    let total: f64 = observed.iter().map(|(_, n)| n).sum();
    let mean = observed.iter().map(|(at, n)| n * *at as f64).sum::<f64>() / total;
    let squares = observed.iter().map(|(at, n)| n * (*at as f64 - mean) * (*at as f64 - mean)).sum::<f64>();
    let deviation = libm::sqrt(squares / (total - 1.0).max(1.0));
    let quartile = |is_beyond: &dyn Fn(f64) -> bool| {
        let mut sum = 0.0;
        let found = observed.iter().find(|(_, n)| {
            sum += n;
            is_beyond(sum)
        });
        found.or(observed.last()).map_or(0.0, |(at, _)| *at as f64)
    };
    let (first, third) = (libm::floor(total / 4.0), libm::floor(total * 3.0 / 4.0));
    let quartiles = quartile(&|sum| sum > third) - quartile(&|sum| sum >= first);
    (1.059 * (quartiles / 1.34).min(deviation) * libm::pow(total, -0.2)).max(WIDTH_MIN)
}

/// The probability of the unit interval around a point under a normal distribution that is cut off half a unit beyond 0 and
/// `last`.
fn normal_share(at: f64, middle: f64, width: f64, last: f64) -> f64 {
    let below = |x: f64| 0.5 * libm::erfc((middle - x) / width * FRAC_1_SQRT_2);
    (below(at + 0.5) - below(at - 0.5)) / (below(last + 0.5) - below(-0.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Stream};
    use crate::search::space::{Condition, Configuration};

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
    fn divergences_are_those_of_optuna() {
        let words = ["a", "b", "c"].map(|w| Value::Text(w.to_owned())).to_vec();
        let when = Some(Condition { path: "kind".to_owned(), values: vec![words[1].clone()] });
        let parameter = |path: &str, domain| Parameter { path: path.to_owned(), domain, when: None };
        for case in crate::search::reference()["importance"].as_array().unwrap() {
            let detail = parameter("detail", Domain::Uniform { low: 0.0, high: 1.0 });
            let when = when.clone().filter(|_| case["conditional"].as_bool().unwrap());
            let space = Space::new(vec![
                parameter("log", Domain::LogUniform { low: 1e-4, high: 1e-1 }),
                parameter("linear", Domain::Uniform { low: -2.0, high: 3.0 }),
                parameter("integer", Domain::Integer { low: 1, high: 7, step: 1 }),
                parameter("wide", Domain::Integer { low: 0, high: 99, step: 1 }),
                parameter("stepped", Domain::Integer { low: 2, high: 14, step: 3 }),
                parameter("log_integer", Domain::LogInteger { low: 1, high: 300 }),
                parameter("kind", Domain::Categorical { values: words.clone() }),
                Parameter { when, ..detail },
            ]);
            let points: Vec<(Vec<f64>, f64)> = case["trials"]
                .as_array()
                .unwrap()
                .iter()
                .map(|trial| {
                    let configuration: Configuration = serde_json::from_value(trial["configuration"].clone()).unwrap();
                    let point = space.encode(&configuration).into_iter().map(|u| u.unwrap_or(0.5)).collect();
                    (point, trial["loss"].as_f64().unwrap())
                })
                .collect();
            let trials: Vec<(&[f64], f64)> = points.iter().map(|(point, loss)| (point.as_slice(), *loss)).collect();
            for Importance { path, divergence, .. } in importance(&space, &trials) {
                let expected = case["divergences"][&path].as_f64().unwrap();
                assert!((divergence - expected).abs() < 1e-9 * (1.0 + expected), "{path}: {divergence} {expected}");
            }
        }
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
